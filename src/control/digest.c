/*
 * digest.c - digests of registers, devices and RAM at exact times of a counted run
 *
 * A timer on the virtual clock fires between two instructions, on the vCPU's thread. Two runs are
 * the same up to there if their digests are; where they are not, a run that pauses at that time is
 * looked at with the monitor or gdb (docs/design/lockstep.md).
 */
#include "control/digest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "trapeze/device.h"
#include "trapeze/x86_state.h"

struct digest {
    struct machine *machine;
    struct timer timer;
    uint64_t every_ns; /* 0: pause instead */
};

/* ---- hashing: not against an adversary ---- */

#define LANES 4u
#define PRIME 0x9e3779b97f4a7c15ull

static uint64_t mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * PRIME;
    return hash ^ hash >> 32;
}

static uint64_t hash_bytes(uint64_t seed, const uint8_t *data, size_t size)
{
    uint64_t lanes[LANES] = {seed, seed + 1, seed + 2, seed + 3}, words[LANES];

    for (; size >= sizeof(words); data += sizeof(words), size -= sizeof(words)) {
        memcpy(words, data, sizeof(words));
        for (unsigned n = 0; n < LANES; n++)
            lanes[n] = mix(lanes[n], words[n]);
    }
    memset(words, 0, sizeof(words));
    memcpy(words, data, size);
    for (unsigned n = 0; n < LANES; n++)
        seed = mix(mix(seed, lanes[n]), words[n]);
    return seed;
}

static uint64_t hash_state(uint64_t seed, const struct state_table *table, void *object)
{
    struct state_buffer buffer = {0};
    struct error err = {0};

    if (table->version && state_save(table, object, &buffer, &err) == 0)
        seed = hash_bytes(seed, buffer.data, buffer.size_bytes);
    free(buffer.data);
    return seed;
}

/* ---- the timer ---- */

static void trace_digests(struct digest *d, uint64_t now_ns)
{
    struct machine *machine = d->machine;
    struct vcpu *vcpu = machine_vcpu(machine, 0);
    struct memory *memory = machine_memory(machine);
    uint64_t devices = 0;

    machine_config(machine)->engine->get_state(vcpu);
    trace(CPU_DIGEST, now_ns, vcpu->state.rip, hash_state(0, &x86_state_table, &vcpu->state));
    if (!atomic_load_explicit(&trace_on[TRACE_MACHINE_DIGEST], memory_order_relaxed))
        return;
    for (struct device *dev = machine_first_device(machine); dev; dev = dev->next)
        devices = hash_state(devices, &dev->class->state, dev);
    trace(MACHINE_DIGEST, now_ns, devices,
          hash_bytes(0, memory_ram_hva(memory), memory_ram_size_bytes(memory)));
}

static void fire(void *opaque)
{
    struct digest *d = opaque;
    uint64_t now_ns = clock_now_ns(machine_clocks(d->machine), CLOCK_ID_VIRTUAL);

    if (!d->every_ns) {
        machine_request_pause(d->machine);
        return;
    }
    trace_digests(d, now_ns);
    timer_arm(&d->timer, now_ns + d->every_ns);
}

static struct digest *new_timer(struct machine *machine, uint64_t every_ns, uint64_t from_ns,
                                struct error *err)
{
    struct digest *d = calloc(1, sizeof(*d));

    if (!d) {
        error_set(err, ENOMEM, "no memory for a timer");
        return NULL;
    }
    d->machine = machine;
    d->every_ns = every_ns;
    timer_init(&d->timer, machine_clocks(machine), CLOCK_ID_VIRTUAL, fire, d);
    timer_arm(&d->timer, from_ns);
    return d;
}

struct digest *digest_new(struct machine *machine, uint64_t every_ns, uint64_t from_ns,
                          struct error *err)
{
    return new_timer(machine, every_ns, from_ns, err);
}

struct digest *digest_pause_at(struct machine *machine, uint64_t at_ns, struct error *err)
{
    return new_timer(machine, 0, at_ns, err);
}

void digest_free(struct digest *digest)
{
    if (!digest)
        return;
    timer_done(&digest->timer);
    free(digest);
}
