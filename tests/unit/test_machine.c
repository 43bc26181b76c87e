/*
 * test_machine.c - lifecycle, vCPU threads, parking, reset, stop, counted time
 *
 * The engine here runs a script instead of instructions: each vCPU calls a function
 * of the test, which plays the guest and says how run() ends.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "host/host.h"
#include "host/loop.h"
#include "trapeze/device.h"
#include "trapeze/machine.h"

#define MILLISECOND 1000000ull

/* ---- the engine ---- */

typedef void script_fn(struct vcpu *vcpu, uint64_t budget, struct vcpu_exit *exit);

static script_fn *script;
static bool registers_in_engine[MACHINE_MAX_VCPUS]; /* set_state was called last */
static uint64_t engine_rip[MACHINE_MAX_VCPUS];      /* the register it works on */
static _Atomic bool inside_run[MACHINE_MAX_VCPUS];
static _Atomic unsigned runs[MACHINE_MAX_VCPUS];
static _Atomic unsigned memory_changes, kicks;

static int test_create(struct machine *machine, void **out_engine, struct error *err)
{
    *out_engine = &script;
    return 0;
}

static int test_vcpu_create(void *engine, struct vcpu *vcpu, struct error *err)
{
    vcpu->engine = engine;
    return 0;
}

static void test_vcpu_destroy(struct vcpu *vcpu)
{
    vcpu->engine = NULL;
}

/* As a real engine does: KICK first, then the guest. */
static void test_run(struct vcpu *vcpu, uint64_t budget, struct vcpu_exit *exit)
{
    assert_true(registers_in_engine[vcpu->index]);
    inside_run[vcpu->index] = true;
    engine_rip[vcpu->index]++;
    runs[vcpu->index]++;
    if (vcpu->events & VCPU_EVENT_KICK)
        exit->reason = EXIT_KICKED;
    else
        script(vcpu, budget, exit);
    inside_run[vcpu->index] = false;
}

static void test_kick(struct vcpu *vcpu)
{
    kicks++;
}

static void test_get_state(struct vcpu *vcpu)
{
    registers_in_engine[vcpu->index] = false;
    vcpu->state.rip = engine_rip[vcpu->index];
}

static void test_set_state(struct vcpu *vcpu)
{
    registers_in_engine[vcpu->index] = true;
    engine_rip[vcpu->index] = vcpu->state.rip;
}

static void test_memory_changed(void *engine)
{
    memory_changes++;
}

static const struct engine_ops test_engine = {
    .name = "script",
    .counts_instructions = true,
    .runs_on_vcpu_thread = true,
    .create = test_create,
    .vcpu_create = test_vcpu_create,
    .vcpu_destroy = test_vcpu_destroy,
    .run = test_run,
    .kick = test_kick,
    .get_state = test_get_state,
    .set_state = test_set_state,
    .memory_changed = test_memory_changed,
};

/* ---- a device: port 0x80 stops, 0x81 resets, 0x82 raises vCPU 1, 0x83 arms the timer ---- */

struct lever {
    struct device dev;
    struct timer timer;
    unsigned fired;
    uint64_t fired_at_ns, delay_ns;
    unsigned raise_vcpu;
    uint32_t raise_events;
};

static struct lever *lever;

static uint64_t lever_read(struct device *dev, uint64_t offset, unsigned size)
{
    return 0x40 + offset;
}

static void lever_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct lever *self = container_of(dev, struct lever, dev);

    assert_true(machine_is_locked_by_me(dev->machine));
    if (offset == 0)
        machine_request_stop(dev->machine, STOP_GUEST_EXIT, (int)value);
    else if (offset == 1)
        machine_request_reset(dev->machine);
    else if (offset == 2)
        vcpu_raise(machine_vcpu(dev->machine, 1), (uint32_t)value);
    else
        timer_arm(&self->timer, device_now_ns(dev) + value);
}

static const struct region_ops lever_ops = {
    .name = "lever", .read = lever_read, .write = lever_write, .max_size = 1};

static void lever_fire(void *opaque)
{
    struct lever *self = opaque;

    assert_true(machine_is_locked_by_me(self->dev.machine));
    self->fired++;
    self->fired_at_ns = device_now_ns(&self->dev);
    if (self->raise_events)
        vcpu_raise(machine_vcpu(self->dev.machine, self->raise_vcpu), self->raise_events);
    if (self->delay_ns)
        timer_arm(&self->timer, self->timer.deadline_ns + self->delay_ns);
}

static int lever_attach(struct device *dev, struct error *err)
{
    lever = container_of(dev, struct lever, dev);
    timer_init(&lever->timer, device_clocks(dev), CLOCK_ID_VIRTUAL, lever_fire, lever);
    return device_map_ports(dev, 0x80, 4, &lever_ops, err);
}

static void lever_detach(struct device *dev)
{
    timer_done(&container_of(dev, struct lever, dev)->timer);
}

static const struct device_class lever_class = {
    .name = "lever",
    .summary = "what the tests pull",
    .instance_size = sizeof(struct lever),
    .attach = lever_attach,
    .detach = lever_detach,
};

/* ---- the machine of a test ---- */

static struct loop *loop;
static struct machine *machine;
static _Atomic unsigned phase; /* for scripts */
static char states[256];
static unsigned boots;

static void observe(void *opaque, struct machine *m, enum machine_state state)
{
    assert_true(machine_is_locked_by_me(m));
    strncat(states, machine_state_name(state), sizeof(states) - strlen(states) - 1);
    strncat(states, " ", sizeof(states) - strlen(states) - 1);
}

static void boot(void *opaque, struct machine *m)
{
    boots++;
    machine_vcpu(m, 0)->state.gpr[X86_RAX] = 0x1234;
}

static void build(struct machine_config config, script_fn *fn)
{
    struct error err = {0};
    struct device *dev;

    loop = loop_new(&err);
    assert_non_null(loop);
    script = fn;
    phase = 0;
    boots = 0;
    states[0] = 0;
    kicks = 0;
    memory_changes = 0;
    memset(registers_in_engine, 0, sizeof(registers_in_engine));
    for (int i = 0; i < MACHINE_MAX_VCPUS; i++)
        runs[i] = 0;
    config.loop = loop;
    config.engine = &test_engine;
    config.ram_bytes = 1 << 20;
    machine = machine_new(&config, &err);
    if (!machine)
        print_error("%s\n", err.text);
    assert_non_null(machine);
    dev = device_new(machine, &lever_class, NULL, &err);
    assert_non_null(dev);
    assert_int_equal(device_attach(dev, &err), 0);
    assert_int_equal(machine_observe(machine, observe, NULL), 0);
    machine_set_boot(machine, boot, NULL);
}

static void start(void)
{
    struct error err = {0};

    assert_int_equal(machine_start(machine, &err), 0);
}

static int tear_down(void **state)
{
    machine_free(machine);
    loop_free(loop);
    machine = NULL;
    loop = NULL;
    return 0;
}

static void halt(struct vcpu_exit *exit)
{
    exit->reason = EXIT_HALT;
}

static void out(struct vcpu_exit *exit, uint16_t port, uint32_t value)
{
    exit->reason = EXIT_PORT;
    exit->port.port = port;
    exit->port.size_bytes = 1;
    exit->port.write = true;
    exit->port.value = value;
}

/* Go round the main loop until it is so; the test hangs if it never is. */
static void loop_until(bool (*done)(void))
{
    while (!done())
        loop_once(loop, MILLISECOND);
}

static bool in_phase_1(void)
{
    return phase >= 1;
}

/* ---- tests ---- */

static void guest_exits(struct vcpu *vcpu, uint64_t budget, struct vcpu_exit *exit)
{
    out(exit, 0x80, 42);
}

static void the_guests_status_is_the_machines(void **state)
{
    build((struct machine_config){0}, guest_exits);
    assert_int_equal(machine_get_state(machine), MACHINE_BUILT);
    assert_int_equal(machine_stop_reason(machine), STOP_NONE);
    start();
    assert_int_equal(machine_main(machine), 42);
    assert_int_equal(machine_stop_reason(machine), STOP_GUEST_EXIT);
    assert_int_equal(machine_get_state(machine), MACHINE_STOPPED);
    assert_string_equal(states, "running stopped ");
    assert_int_equal(boots, 1);
    assert_int_equal(machine_vcpu(machine, 0)->state.gpr[X86_RAX], 0x1234);
    assert_false(registers_in_engine[0]);        /* vcpu->state is current */
    machine_request_stop(machine, STOP_HOST, 7); /* too late */
    assert_int_equal(machine_stop_status(machine), 42);
}

static void guest_reads_a_port(struct vcpu *vcpu, uint64_t budget, struct vcpu_exit *exit)
{
    if (phase++ == 0) {
        exit->reason = EXIT_PORT;
        exit->port.port = 0x83;
        exit->port.size_bytes = 1;
        exit->port.write = false;
        return;
    }
    out(exit, 0x80, exit->port.value);
}

static void a_port_read_comes_back_in_the_exit(void **state)
{
    build((struct machine_config){0}, guest_reads_a_port);
    start();
    assert_int_equal(machine_main(machine), 0x43);
}

static void guest_uses_memory(struct vcpu *vcpu, uint64_t budget, struct vcpu_exit *exit)
{
    *exit = (struct vcpu_exit){.reason = EXIT_MMIO};
    exit->mmio.gpa = 0xd0000000;
    exit->mmio.size_bytes = 2;
    exit->mmio.write = phase == 0;
    if (phase++ > 1)
        out(exit, 0x80, 1);
}

static void a_memory_exit_goes_to_the_bus(void **state)
{
    build((struct machine_config){0}, guest_uses_memory);
    start();
    assert_int_equal(machine_main(machine), 1);
}

static void guest_fails(struct vcpu *vcpu, uint64_t budget, struct vcpu_exit *exit)
{
    *exit =
        (struct vcpu_exit){.reason = EXIT_FAILED, .failure = "(this failure is part of a test)"};
}

static void a_failed_engine_stops_the_machine(void **state)
{
    build((struct machine_config){0}, guest_fails);
    start();
    assert_int_equal(machine_main(machine), 1);
    assert_int_equal(machine_stop_reason(machine), STOP_ERROR);
}

static void guest_faults_three_times(struct vcpu *vcpu, uint64_t budget, struct vcpu_exit *exit)
{
    if (phase++ < 3)
        exit->reason = EXIT_SHUTDOWN;
    else
        out(exit, 0x80, 3);
}

static void a_triple_fault_resets(void **state)
{
    build((struct machine_config){0}, guest_faults_three_times);
    start();
    assert_int_equal(machine_main(machine), 3);
    assert_int_equal(boots, 4);
}

static void without_reboot_a_triple_fault_stops(void **state)
{
    build((struct machine_config){.no_reboot = true}, guest_faults_three_times);
    start();
    assert_int_equal(machine_main(machine), 1);
    assert_int_equal(machine_stop_reason(machine), STOP_GUEST_SHUTDOWN);
    assert_int_equal(boots, 1);
}

static void guest_resets(struct vcpu *vcpu, uint64_t budget, struct vcpu_exit *exit)
{
    if (vcpu->index > 0) {
        assert_int_equal(vcpu->state.activity, X86_WAIT_FOR_SIPI);
        halt(exit);
    } else if (phase++ < 20) {
        out(exit, 0x81, 0);
    } else {
        out(exit, 0x80, 5);
    }
}

static void a_reset_waits_for_all_vcpus(void **state)
{
    build((struct machine_config){.vcpu_count = 3}, guest_resets);
    start();
    assert_int_equal(machine_main(machine), 5);
    assert_int_equal(boots, 21); /* nothing runs between the request and the reset */
}

static void without_reboot_a_reset_stops(void **state)
{
    build((struct machine_config){.no_reboot = true}, guest_resets);
    start();
    assert_int_equal(machine_main(machine), 0);
    assert_int_equal(machine_stop_reason(machine), STOP_GUEST_RESET);
}

static void guest_works(struct vcpu *vcpu, uint64_t budget, struct vcpu_exit *exit)
{
    /* Until KICK, touching a device all the while, so that it often wants the machine lock. */
    while (!(vcpu->events & VCPU_EVENT_KICK))
        bus_port_read(vcpu->machine, 0x80, 1);
    exit->reason = EXIT_KICKED;
}

static void a_pause_finds_everybody_outside_run(void **state)
{
    uint64_t now, rip = 0;

    build((struct machine_config){.vcpu_count = 4}, guest_works);
    start();
    for (int i = 0; i < 50; i++) {
        loop_once(loop, 0);
        machine_lock(machine);
        machine_pause(machine);
        assert_true(machine_is_locked_by_me(machine));
        machine_unlock(machine);
        now = clock_now_ns(machine_clocks(machine), CLOCK_ID_VIRTUAL);
        for (int vcpu = 0; vcpu < 4; vcpu++) {
            assert_false(inside_run[vcpu]);
            /* What the engine counted, or what this test added since. */
            assert_true(machine_vcpu(machine, (unsigned)vcpu)->state.rip >= engine_rip[vcpu]);
        }
        assert_true(machine_vcpu(machine, 0)->state.rip >= rip);
        rip = machine_vcpu(machine, 0)->state.rip += 1000000; /* ours to change */
        assert_int_equal(clock_now_ns(machine_clocks(machine), CLOCK_ID_VIRTUAL), now);
        machine_resume(machine);
    }
    machine_request_stop(machine, STOP_HOST, 9);
    assert_int_equal(machine_main(machine), 9);
    assert_true(kicks > 0);
}

/* What was raised and not seen yet is in the state that a pause leaves, and comes back from it. */
static void events_are_saved(void **state)
{
    struct state_buffer saved = {0};
    struct vcpu *vcpu;

    build((struct machine_config){.vcpu_count = 1}, guest_works);
    start();
    vcpu = machine_vcpu(machine, 0);
    vcpu_raise_nmi(vcpu);
    vcpu_raise_nmi(vcpu);
    atomic_store(&vcpu->sipi_vector, 0x9a);
    vcpu_raise(vcpu, VCPU_EVENT_INIT | VCPU_EVENT_SIPI);
    machine_pause(machine);
    assert_int_equal(vcpu->events & ~VCPU_EVENT_KICK, 0);
    assert_int_equal(state_save(&x86_state_table, &vcpu->state, &saved, NULL), 0);
    machine_reset(machine);
    atomic_store(&vcpu->sipi_vector, 0);
    assert_int_equal(state_load(&x86_state_table, &vcpu->state, saved.data, saved.size_bytes, NULL),
                     0);
    free(saved.data);
    assert_true(vcpu->state.pending.nmi_pending);
    machine_resume(machine);
    assert_int_equal(vcpu->events & ~VCPU_EVENT_KICK,
                     VCPU_EVENT_NMI | VCPU_EVENT_INIT | VCPU_EVENT_SIPI);
    assert_int_equal(vcpu->sipi_vector, 0x9a);

    /* Raised while it is paused; and blocked, so that the second is nothing. */
    machine_pause(machine);
    vcpu->state.pending = (struct x86_pending){.nmi_blocked = true};
    vcpu_raise_nmi(vcpu);
    vcpu_raise_nmi(vcpu);
    vcpu_events_to_state(vcpu);
    assert_true(vcpu->state.pending.nmi_pending);
    machine_resume(machine);
    assert_int_equal(vcpu->events & ~VCPU_EVENT_KICK, 0);
    machine_request_stop(machine, STOP_HOST, 0);
    machine_main(machine);
}

static void a_reset_while_paused_stays_paused(void **state)
{
    build((struct machine_config){.vcpu_count = 2}, guest_works);
    start();
    machine_pause(machine);
    machine_request_reset(machine);
    loop_once(loop, 0);
    assert_int_equal(boots, 2);
    assert_int_equal(machine_get_state(machine), MACHINE_PAUSED);
    machine_reset(machine);
    assert_int_equal(boots, 3);
    machine_resume(machine);
    machine_request_stop(machine, STOP_HOST, 0);
    assert_int_equal(machine_main(machine), 0);
    /* Told of each reset, too. */
    assert_string_equal(states, "running paused paused paused running stopped ");
}

static void a_paused_machine_can_be_stopped(void **state)
{
    build((struct machine_config){.start_paused = true}, guest_works);
    start();
    assert_int_equal(machine_get_state(machine), MACHINE_PAUSED);
    loop_once(loop, MILLISECOND);
    assert_int_equal(runs[0], 0);
    machine_request_stop(machine, STOP_HOST, 4);
    assert_int_equal(machine_main(machine), 4);
    assert_int_equal(runs[0], 0);
}

static void a_machine_can_be_freed_at_any_time(void **state)
{
    build((struct machine_config){.vcpu_count = 2}, guest_works);
    tear_down(NULL); /* not started */
    build((struct machine_config){.vcpu_count = 2}, guest_works);
    start();
    tear_down(NULL); /* running */
    build((struct machine_config){.vcpu_count = 2}, guest_works);
    start();
    machine_pause(machine);
    tear_down(NULL);
    machine_free(NULL);
}

/* vCPU 0 raises an interrupt on vCPU 1 and waits for the answer, many times. */
static void guest_ping_pong(struct vcpu *vcpu, uint64_t budget, struct vcpu_exit *exit)
{
    if (vcpu_take(vcpu, VCPU_EVENT_INTERRUPT) == 0 && !(vcpu->index == 0 && phase == 0)) {
        halt(exit);
        return;
    }
    if (vcpu->index == 1) {
        vcpu_raise(machine_vcpu(vcpu->machine, 0), VCPU_EVENT_INTERRUPT);
        halt(exit);
    } else if (phase++ < 2000) {
        out(exit, 0x82, VCPU_EVENT_INTERRUPT);
    } else {
        out(exit, 0x80, 6);
    }
}

static void no_wake_up_is_lost(void **state)
{
    build((struct machine_config){.vcpu_count = 2}, guest_ping_pong);
    start();
    assert_int_equal(machine_main(machine), 6); /* hangs otherwise */
}

static void guest_ignores_interrupts(struct vcpu *vcpu, uint64_t budget, struct vcpu_exit *exit)
{
    phase = 1;
    halt(exit);
}

static void a_masked_interrupt_does_not_keep_a_halted_vcpu_busy(void **state)
{
    unsigned before;

    build((struct machine_config){0}, guest_ignores_interrupts);
    start();
    loop_until(in_phase_1);
    vcpu_raise(machine_vcpu(machine, 0), VCPU_EVENT_INTERRUPT);
    for (int i = 0; i < 5; i++)
        loop_once(loop, MILLISECOND);
    before = runs[0];
    assert_true(before <= 2);
    for (int i = 0; i < 20; i++)
        loop_once(loop, MILLISECOND);
    assert_int_equal(runs[0], before);
    machine_request_stop(machine, STOP_HOST, 0);
    machine_main(machine);
}

static void guest_waits_for_its_timer(struct vcpu *vcpu, uint64_t budget, struct vcpu_exit *exit)
{
    if (phase == 0) {
        phase = 1;
        lever->raise_events = VCPU_EVENT_INTERRUPT;
        out(exit, 0x83, 200); /* nanoseconds */
        return;
    }
    if (vcpu_take(vcpu, VCPU_EVENT_INTERRUPT))
        out(exit, 0x80, 8);
    else
        halt(exit);
}

static void a_timer_wakes_a_halted_vcpu(void **state)
{
    build((struct machine_config){0}, guest_waits_for_its_timer);
    start();
    assert_int_equal(machine_main(machine), 8);
    assert_int_equal(lever->fired, 1);
}

static void many_timers_are_on_time(void **state)
{
    uint64_t late = 0;

    build((struct machine_config){0}, guest_ignores_interrupts);
    start();
    for (int i = 0; i < 20; i++) {
        uint64_t deadline;

        machine_lock(machine);
        deadline = device_now_ns(&lever->dev) + MILLISECOND;
        lever->fired = 0;
        timer_arm(&lever->timer, deadline);
        machine_unlock(machine);
        while (!lever->fired)
            loop_once(loop, UINT64_MAX);
        assert_true(lever->fired_at_ns >= deadline);
        late += lever->fired_at_ns - deadline;
    }
    print_message("timers were %llu ns late on average\n", (unsigned long long)late / 20);
    machine_request_stop(machine, STOP_HOST, 0);
    machine_main(machine);
}

static struct vcpu_exit debug_seen;
static unsigned debug_calls;

static void on_debug(void *opaque, struct vcpu *vcpu, const struct vcpu_exit *exit)
{
    struct machine *m = vcpu->machine;

    assert_true(machine_is_locked_by_me(m));
    assert_int_equal(machine_get_state(m), MACHINE_PAUSED);
    for (unsigned i = 0; i < machine_vcpu_count(m); i++)
        assert_false(inside_run[i]);
    debug_seen = *exit;
    debug_calls++;
    if (debug_calls < 4)
        machine_resume(m);
}

/* Others run on until the fourth stop has parked them: they end nothing before it is over. */
static _Atomic bool was_resumed;

static void guest_hits_breakpoints(struct vcpu *vcpu, uint64_t budget, struct vcpu_exit *exit)
{
    if (phase < 4 && phase++ < 4)
        *exit = (struct vcpu_exit){.reason = EXIT_DEBUG,
                                   .debug = {.cause = DEBUG_BREAKPOINT, .gva = 0x1000}};
    else if (was_resumed)
        out(exit, 0x80, 2);
    else
        exit->reason = EXIT_KICKED;
}

static bool four_debug_calls(void)
{
    return debug_calls == 4;
}

static void the_debugger_sees_every_stop(void **state)
{
    debug_calls = 0;
    was_resumed = false;
    build((struct machine_config){.vcpu_count = 3}, guest_hits_breakpoints);
    machine_set_debugger(machine, on_debug, NULL);
    start();
    loop_until(four_debug_calls);
    assert_int_equal(debug_seen.reason, EXIT_DEBUG);
    assert_int_equal(debug_seen.debug.cause, DEBUG_BREAKPOINT);
    assert_int_equal(machine_get_state(machine), MACHINE_PAUSED);
    loop_once(loop, MILLISECOND);
    assert_int_equal(machine_get_state(machine), MACHINE_PAUSED);
    was_resumed = true;
    machine_resume(machine);
    assert_int_equal(machine_main(machine), 2);
}

static void without_a_debugger_a_stop_is_ignored(void **state)
{
    build((struct machine_config){.vcpu_count = 2}, guest_hits_breakpoints);
    start();
    assert_int_equal(machine_main(machine), 2);
}

/* ---- counted mode ---- */

static uint64_t guest_count; /* instructions */
static uint64_t trace_hash;

/* Mixes everything a guest could see into one number. */
static void observe_guest(uint64_t value)
{
    trace_hash = (trace_hash ^ value) * 0x100000001b3ull;
}

/*
 * A guest that computes for a while, programs the timer, halts now and then, and looks at
 * the time. As a real engine it reports its count before each device access.
 */
static void guest_counts(struct vcpu *vcpu, uint64_t budget, struct vcpu_exit *exit)
{
    struct clocks *clocks = machine_clocks(vcpu->machine);
    uint64_t wanted = 100 + phase % 7 * 13, done = wanted < budget ? wanted : budget;

    guest_count += done;
    vcpu->state.instructions = guest_count;
    clocks_set_counted_ns(clocks, guest_count);
    observe_guest(clock_now_ns(clocks, CLOCK_ID_VIRTUAL));
    observe_guest(lever->fired);
    exit->reason = EXIT_BUDGET;
    if (done < wanted)
        return;
    phase++;
    if (phase == 3000) {
        out(exit, 0x80, 1);
        return;
    }
    if (phase % 3 == 0)
        bus_port_write(vcpu->machine, 0x83, 50 + phase % 11, 1);
    if (phase % 15 == 0)
        halt(exit);
}

static uint64_t counted_run(void)
{
    guest_count = 0;
    trace_hash = 0xcbf29ce484222325ull;
    build((struct machine_config){.counted = true}, guest_counts);
    start();
    assert_int_equal(machine_main(machine), 1);
    observe_guest(lever->fired);
    observe_guest(guest_count);
    assert_true(lever->fired > 100);
    tear_down(NULL);
    return trace_hash;
}

static void two_counted_runs_are_equal(void **state)
{
    uint64_t first = counted_run();

    for (int i = 0; i < 5; i++)
        assert_int_equal(counted_run(), first);
}

static void guest_is_idle(struct vcpu *vcpu, uint64_t budget, struct vcpu_exit *exit)
{
    if (phase++ == 0) {
        lever->delay_ns = NANOSECONDS_PER_SECOND; /* a tick a second */
        machine_lock(vcpu->machine);
        timer_arm(&lever->timer, NANOSECONDS_PER_SECOND);
        machine_unlock(vcpu->machine);
    }
    halt(exit);
    if (lever->fired == 1000)
        out(exit, 0x80, 0);
}

static void counted_idle_time_passes_at_once(void **state)
{
    uint64_t start_ns = host_monotonic_ns();

    build((struct machine_config){.counted = true}, guest_is_idle);
    start();
    assert_int_equal(machine_main(machine), 0);
    assert_true(clock_now_ns(machine_clocks(machine), CLOCK_ID_VIRTUAL) >=
                1000 * NANOSECONDS_PER_SECOND);
    assert_true(host_monotonic_ns() - start_ns < 20 * NANOSECONDS_PER_SECOND);
}

static void guest_waits_for_the_host(struct vcpu *vcpu, uint64_t budget, struct vcpu_exit *exit)
{
    phase = 1;
    if (vcpu_take(vcpu, VCPU_EVENT_INTERRUPT))
        out(exit, 0x80, 11);
    else
        halt(exit);
}

static void a_counted_vcpu_without_deadline_sleeps_until_raised(void **state)
{
    unsigned before;

    build((struct machine_config){.counted = true}, guest_waits_for_the_host);
    start();
    loop_until(in_phase_1);
    before = runs[0];
    loop_once(loop, 5 * MILLISECOND);
    assert_true(runs[0] <= before + 2);
    lever->raise_events = VCPU_EVENT_INTERRUPT;
    machine_lock(machine);
    timer_arm(&lever->timer, 1000); /* by the host: the sleeper has a deadline now */
    machine_unlock(machine);
    assert_int_equal(machine_main(machine), 11);
}

static void guest_executes(struct vcpu *vcpu, uint64_t budget, struct vcpu_exit *exit)
{
    guest_count += budget < 7 ? budget : 7;
    vcpu->state.instructions = guest_count;
    clocks_set_counted_ns(machine_clocks(vcpu->machine), guest_count);
    exit->reason = vcpu->events & VCPU_EVENT_KICK ? EXIT_KICKED : EXIT_BUDGET;
}

static void request_pause(void *opaque)
{
    machine_request_pause(opaque);
}

static bool is_paused(void)
{
    return machine_get_state(machine) == MACHINE_PAUSED;
}

static void a_counted_timer_pauses_at_its_time(void **state)
{
    struct timer timer;

    guest_count = 0;
    build((struct machine_config){.counted = true}, guest_executes);
    timer_init(&timer, machine_clocks(machine), CLOCK_ID_VIRTUAL, request_pause, machine);
    timer_arm(&timer, 1000);
    start();
    loop_until(is_paused);
    assert_int_equal(guest_count, 1000);
    timer_arm(&timer, 2000);
    machine_request_pause(machine); /* it is: nothing is left of this behind the resume */
    loop_once(loop, 0);
    machine_resume(machine);
    loop_until(is_paused);
    assert_int_equal(guest_count, 2000);
    timer_done(&timer);
    machine_request_stop(machine, STOP_HOST, 0);
    assert_int_equal(machine_main(machine), 0);
}

static uint64_t budgets[4];

static void guest_notes_budgets(struct vcpu *vcpu, uint64_t budget, struct vcpu_exit *exit)
{
    struct clocks *clocks = machine_clocks(vcpu->machine);

    if (phase < 4)
        budgets[phase] = budget;
    exit->reason = EXIT_BUDGET;
    switch (phase++) {
    case 0:
        bus_port_write(vcpu->machine, 0x83, 100, 1);
        break;
    case 1:
        vcpu->state.instructions = 40; /* left early */
        break;
    case 2:
        vcpu->state.instructions = 100;
        break;
    default:
        out(exit, 0x80, 0);
    }
    clocks_set_counted_ns(clocks, vcpu->state.instructions);
}

static void the_budget_ends_at_the_deadline(void **state)
{
    build((struct machine_config){.counted = true}, guest_notes_budgets);
    start();
    assert_int_equal(machine_main(machine), 0);
    assert_true(budgets[0] == UINT64_MAX);
    assert_int_equal(budgets[1], 100);
    assert_int_equal(budgets[2], 60);
    assert_true(budgets[3] == UINT64_MAX);
    assert_int_equal(lever->fired, 1);
    assert_int_equal(lever->fired_at_ns, 100);
}

/* ---- building ---- */

static void wrong_configurations_are_refused(void **state)
{
    struct engine_ops uncounted = test_engine;
    struct loop *own = loop_new(NULL);
    struct machine_config bad[] = {
        {.engine = &test_engine},
        {.loop = own},
        {.engine = &test_engine, .loop = own, .ram_bytes = 4096},
        {.engine = &test_engine, .loop = own, .ram_bytes = 1ull << 50},
        {.engine = &test_engine, .loop = own, .vcpu_count = MACHINE_MAX_VCPUS + 1},
        {.engine = &test_engine, .loop = own, .vcpu_count = 2, .counted = true},
        {.engine = &uncounted, .loop = own, .counted = true},
    };

    uncounted.counts_instructions = false;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct error err = {0};

        assert_null(machine_new(&bad[i], &err));
        assert_true(err.code != 0);
        assert_string_not_equal(err.text, "");
    }
    loop_free(own);
}

static void defaults_are_filled_in(void **state)
{
    struct error err = {0};
    struct machine *m;

    loop = loop_new(&err);
    m = machine_new(&(struct machine_config){.engine = &test_engine, .loop = loop}, &err);
    assert_non_null(m);
    assert_string_equal(machine_config(m)->name, "vm");
    assert_int_equal(machine_config(m)->ram_bytes, 512 << 20);
    assert_int_equal(memory_ram_size_bytes(machine_memory(m)), 512 << 20);
    assert_int_equal(machine_vcpu_count(m), 1);
    assert_null(machine_vcpu(m, 1));
    assert_int_equal(machine_vcpu(m, 0)->apic_id, 0);
    assert_ptr_equal(machine_loop(m), loop);
    assert_ptr_equal(machine_engine_data(m), &script);
    machine_free(m);
    loop_free(loop);
}

static void the_engine_hears_of_memory(void **state)
{
    struct region ram;

    build((struct machine_config){0}, guest_exits);
    ram = (struct region){.name = "ram",
                          .kind = REGION_RAM,
                          .size_bytes = 1 << 20,
                          .hva = memory_ram_hva(machine_memory(machine))};
    machine_lock(machine);
    assert_int_equal(memory_map(machine_memory(machine), &ram, NULL), 0);
    machine_unlock(machine);
    assert_int_equal(memory_changes, 1);
    tear_down(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(the_guests_status_is_the_machines, tear_down),
        cmocka_unit_test_teardown(a_port_read_comes_back_in_the_exit, tear_down),
        cmocka_unit_test_teardown(a_memory_exit_goes_to_the_bus, tear_down),
        cmocka_unit_test_teardown(a_failed_engine_stops_the_machine, tear_down),
        cmocka_unit_test_teardown(a_triple_fault_resets, tear_down),
        cmocka_unit_test_teardown(without_reboot_a_triple_fault_stops, tear_down),
        cmocka_unit_test_teardown(a_reset_waits_for_all_vcpus, tear_down),
        cmocka_unit_test_teardown(without_reboot_a_reset_stops, tear_down),
        cmocka_unit_test_teardown(a_pause_finds_everybody_outside_run, tear_down),
        cmocka_unit_test_teardown(events_are_saved, tear_down),
        cmocka_unit_test_teardown(a_reset_while_paused_stays_paused, tear_down),
        cmocka_unit_test_teardown(a_paused_machine_can_be_stopped, tear_down),
        cmocka_unit_test(a_machine_can_be_freed_at_any_time),
        cmocka_unit_test_teardown(no_wake_up_is_lost, tear_down),
        cmocka_unit_test_teardown(a_masked_interrupt_does_not_keep_a_halted_vcpu_busy, tear_down),
        cmocka_unit_test_teardown(a_timer_wakes_a_halted_vcpu, tear_down),
        cmocka_unit_test_teardown(many_timers_are_on_time, tear_down),
        cmocka_unit_test_teardown(the_debugger_sees_every_stop, tear_down),
        cmocka_unit_test_teardown(without_a_debugger_a_stop_is_ignored, tear_down),
        cmocka_unit_test(two_counted_runs_are_equal),
        cmocka_unit_test_teardown(counted_idle_time_passes_at_once, tear_down),
        cmocka_unit_test_teardown(a_counted_timer_pauses_at_its_time, tear_down),
        cmocka_unit_test_teardown(a_counted_vcpu_without_deadline_sleeps_until_raised, tear_down),
        cmocka_unit_test_teardown(the_budget_ends_at_the_deadline, tear_down),
        cmocka_unit_test(wrong_configurations_are_refused),
        cmocka_unit_test(defaults_are_filled_in),
        cmocka_unit_test(the_engine_hears_of_memory),
    };

    return cmocka_run_group_tests_name("machine", tests, NULL, NULL);
}
