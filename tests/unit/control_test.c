/*
 * control_test.c - a machine whose processors only count
 */
#include "control_test.h"

#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct counter {
    uint64_t rip, instructions;
    const struct debug_request *request;
};

static int probe(struct error *err)
{
    return 0;
}

static int vcpu_create(void *engine, struct vcpu *vcpu, struct error *err)
{
    vcpu->engine = calloc(1, sizeof(struct counter));
    return vcpu->engine ? 0 : -1;
}

static void vcpu_destroy(struct vcpu *vcpu)
{
    free(vcpu->engine);
    vcpu->engine = NULL;
}

static void get_state(struct vcpu *vcpu)
{
    const struct counter *counter = vcpu->engine;

    vcpu->state.rip = counter->rip;
    vcpu->state.instructions = counter->instructions;
}

static void set_state(struct vcpu *vcpu)
{
    struct counter *counter = vcpu->engine;

    counter->rip = vcpu->state.rip;
    counter->instructions = vcpu->state.instructions;
}

static int debug(struct vcpu *vcpu, const struct debug_request *request, struct error *err)
{
    ((struct counter *)vcpu->engine)->request = request;
    return 0;
}

static bool translate(struct vcpu *vcpu, uint64_t gva, uint64_t *out_gpa)
{
    if (gva >> 12 == COUNTER_HOLE >> 12)
        return false;
    *out_gpa = gva;
    return true;
}

static bool stop(struct vcpu_exit *exit, enum debug_cause cause, uint64_t gva)
{
    *exit = (struct vcpu_exit){.reason = EXIT_DEBUG, .debug = {.cause = cause, .gva = gva}};
    return true;
}

static bool hits(const struct debug_point *point, enum debug_cause kind, uint64_t gva,
                 uint64_t size)
{
    return point->kind == kind && gva < point->gva + point->size_bytes && point->gva < gva + size;
}

static bool at_breakpoint(const struct counter *counter, struct vcpu_exit *exit)
{
    for (unsigned i = 0; counter->request && i < counter->request->point_count; i++)
        if (hits(&counter->request->points[i], DEBUG_BREAKPOINT, counter->rip, 1))
            return stop(exit, DEBUG_BREAKPOINT, counter->rip);
    return false;
}

static bool writes_watched(const struct counter *counter, uint64_t rip, struct vcpu_exit *exit)
{
    for (unsigned i = 0; counter->request && i < counter->request->point_count; i++) {
        const struct debug_point *point = &counter->request->points[i];

        if (rip % 64 == 0 && hits(point, DEBUG_WATCH_WRITE, rip + COUNTER_DATA, 8))
            return stop(exit, DEBUG_WATCH_WRITE, point->gva);
    }
    return false;
}

static void run(struct vcpu *vcpu, uint64_t budget, struct vcpu_exit *exit)
{
    struct counter *counter = vcpu->engine;

    for (;;) {
        if (vcpu->events & VCPU_EVENT_KICK) {
            exit->reason = EXIT_KICKED;
            return;
        }
        if (at_breakpoint(counter, exit))
            return;
        counter->instructions++;
        if (writes_watched(counter, counter->rip++, exit))
            return;
        if (counter->request && counter->request->step && stop(exit, DEBUG_STEP, 0))
            return;
        if (counter->rip % 1024 == 0)
            sched_yield();
    }
}

const struct engine_ops counting_engine = {
    .name = "counting",
    .summary = "count instructions",
    .runs_on_vcpu_thread = true,
    .probe = probe,
    .vcpu_create = vcpu_create,
    .vcpu_destroy = vcpu_destroy,
    .run = run,
    .get_state = get_state,
    .set_state = set_state,
    .debug = debug,
    .translate = translate,
};

static void boot(void *opaque, struct machine *machine)
{
    for (unsigned i = 0; i < machine_vcpu_count(machine); i++) {
        machine_vcpu(machine, i)->state.rip = 0x1000;
        machine_vcpu(machine, i)->state.activity = X86_ACTIVE;
    }
}

static void map_ram(struct counting_machine *m)
{
    struct memory *memory = machine_memory(m->machine);

    m->ram = (struct region){
        .name = "ram",
        .kind = REGION_RAM,
        .size_bytes = COUNTER_RAM_BYTES,
        .hva = memory_ram_hva(memory),
    };
    machine_lock(m->machine);
    memory_begin(memory);
    assert_int_equal(memory_map(memory, &m->ram, NULL), 0);
    assert_int_equal(memory_commit(memory, NULL), 0);
    machine_unlock(m->machine);
}

void counting_machine_open(struct counting_machine *m, unsigned vcpu_count, bool start)
{
    struct machine_config config = {
        .name = "test",
        .ram_bytes = COUNTER_RAM_BYTES,
        .vcpu_count = vcpu_count,
        .engine = &counting_engine,
    };
    struct error err = {0};

    m->loop = config.loop = loop_new(&err);
    assert_non_null(m->loop);
    m->machine = machine_new(&config, &err);
    if (!m->machine)
        fail_msg("%s", err.text);
    map_ram(m);
    machine_set_boot(m->machine, boot, NULL);
    if (start)
        assert_int_equal(machine_start(m->machine, &err), 0);
}

void counting_machine_close(struct counting_machine *m)
{
    machine_free(m->machine);
    loop_free(m->loop);
}

static bool readable(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

    return poll(&poll_fd, 1, 0) == 1;
}

void counting_machine_wait_readable(struct counting_machine *m, int fd)
{
    for (unsigned i = 0; i < 500 && !readable(fd); i++)
        loop_once(m->loop, 10000000);
    if (!readable(fd))
        fail_msg("nothing came within five seconds");
}

void counting_machine_settle(struct counting_machine *m)
{
    for (unsigned i = 0; i < 8; i++)
        loop_once(m->loop, 1000000);
}
