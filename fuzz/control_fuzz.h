/*
 * control_fuzz.h - a machine for the fuzz targets of monitor and debugger
 *
 * The engine has no processor, but takes breakpoints (and reads them all, so that a stale
 * list is found) and translates addresses, with a hole. It is made anew after the input ended it.
 */
#ifndef FUZZ_CONTROL_FUZZ_H
#define FUZZ_CONTROL_FUZZ_H

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "host/loop.h"
#include "trapeze/machine.h"

static struct loop *fuzz_loop;
static struct machine *fuzz_machine;
static struct region fuzz_ram;
static int fuzz_fd;
static bool fuzz_lazy; /* the client reads only when it can send nothing more */

static int fuzz_probe(struct error *err)
{
    return 0;
}

static void fuzz_run(struct vcpu *vcpu, uint64_t budget, struct vcpu_exit *exit)
{
    abort(); /* nobody calls it: runs_on_vcpu_thread is false */
}

static int fuzz_debug(struct vcpu *vcpu, const struct debug_request *request, struct error *err)
{
    volatile uint64_t sum = 0;

    for (unsigned i = 0; request && i < request->point_count; i++)
        sum += request->points[i].gva;
    (void)sum; /* reading the points is what matters */
    return request && request->point_count > 40 ? error_set(err, ENOSPC, "too many") : 0;
}

static bool fuzz_translate(struct vcpu *vcpu, uint64_t gva, uint64_t *out_gpa)
{
    *out_gpa = gva & 0xffffffffff;
    return gva >> 12 != 5;
}

static const struct engine_ops fuzz_engine = {
    .name = "fuzz",
    .probe = fuzz_probe,
    .run = fuzz_run,
    .debug = fuzz_debug,
    .translate = fuzz_translate,
};

static inline void fuzz_machine_open(void)
{
    struct machine_config config = {
        .ram_bytes = MACHINE_MIN_RAM_BYTES, .vcpu_count = 3, .engine = &fuzz_engine};
    struct error err = {0};
    struct memory *memory;

    log_threshold = LOG_ERROR;
    trace_open("/dev/null", &err);
    fuzz_loop = config.loop = loop_new(&err);
    fuzz_machine = machine_new(&config, &err);
    assert(fuzz_machine);
    memory = machine_memory(fuzz_machine);
    fuzz_ram = (struct region){.name = "ram",
                               .kind = REGION_RAM,
                               .size_bytes = MACHINE_MIN_RAM_BYTES,
                               .hva = memory_ram_hva(memory)};
    machine_lock(fuzz_machine);
    memory_begin(memory);
    memory_map(memory, &fuzz_ram, &err);
    memory_commit(memory, &err);
    machine_unlock(fuzz_machine);
}

/* Our end of a new connection; the other is returned. */
static inline int fuzz_socket(void)
{
    int pair[2], result = socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair);

    assert(result == 0);
    fuzz_fd = pair[0];
    return pair[1];
}

static inline void fuzz_drain(void)
{
    char bytes[65536];

    while (read(fuzz_fd, bytes, sizeof(bytes)) > 0)
        ;
}

/* Write everything, letting the loop run in between; what comes back is thrown away. */
static inline void fuzz_send(const uint8_t *data, size_t size)
{
    for (size_t sent = 0; sent < size;) {
        ssize_t n = send(fuzz_fd, data + sent, size - sent, MSG_NOSIGNAL);

        if (n > 0)
            sent += (size_t)n;
        else if (errno != EAGAIN)
            break;
        loop_once(fuzz_loop, 0);
        if (!fuzz_lazy || n <= 0)
            fuzz_drain();
    }
    loop_once(fuzz_loop, 0);
    if (!fuzz_lazy)
        fuzz_drain();
}

/* The client hangs up; the loop notices. True if the machine has ended. */
static inline bool fuzz_hang_up(void)
{
    close(fuzz_fd);
    for (unsigned i = 0; i < 4; i++)
        loop_once(fuzz_loop, 0);
    return machine_get_state(fuzz_machine) == MACHINE_STOPPED;
}

#endif
