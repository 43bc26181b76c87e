/*
 * test_apic.c - local APICs: priorities, EOI, IPIs, destinations, timer, x2APIC, MSI
 */
#include <sched.h>

#include "cmocka_all.h"
#include "device_test.h"
#include "devices/apic.h"
#include "devices/pic.h"
#include "host/host.h"

#define CPUS          4

#define BASE          0xfee00000ull
#define BSP           0x100ull
#define EXTD          0x400ull
#define EN            0x800ull

/* xAPIC offsets */
#define ID            0x20
#define TPR           0x80
#define PPR           0xa0
#define EOI           0xb0
#define LDR           0xd0
#define DFR           0xe0
#define SVR           0xf0
#define ISR           0x100
#define TMR           0x180
#define IRR           0x200
#define ESR           0x280
#define ICR_LOW       0x300
#define ICR_HIGH      0x310
#define LVT_TIMER     0x320
#define LVT_LINT0     0x350
#define LVT_LINT1     0x360
#define LVT_ERROR     0x370
#define TIMER_INITIAL 0x380
#define TIMER_CURRENT 0x390
#define TIMER_DIVIDE  0x3e0

#define MASKED        0x10000
#define PERIODIC      0x20000
#define DEADLINE_MSR  0x6e0

struct fixture {
    struct device_test *t;
    struct device *apic[CPUS];
    unsigned eois;
    uint8_t eoi_vector;
};

static struct vcpu *cpu(struct fixture *f, unsigned i)
{
    return machine_vcpu(f->t->machine, i);
}

static uint32_t get(struct fixture *f, unsigned i, uint32_t offset)
{
    return (uint32_t)cpu(f, i)->apic_ops->mmio_read(cpu(f, i)->apic, offset, 4);
}

static void set(struct fixture *f, unsigned i, uint32_t offset, uint32_t value)
{
    cpu(f, i)->apic_ops->mmio_write(cpu(f, i)->apic, offset, value, 4);
}

static bool get_msr(struct fixture *f, unsigned i, uint32_t msr, uint64_t *out)
{
    return cpu(f, i)->apic_ops->msr_read(cpu(f, i)->apic, msr, out);
}

static bool set_msr(struct fixture *f, unsigned i, uint32_t msr, uint64_t value)
{
    return cpu(f, i)->apic_ops->msr_write(cpu(f, i)->apic, msr, value);
}

static uint64_t msr(struct fixture *f, unsigned i, uint32_t number)
{
    uint64_t value = ~0ull;

    assert_true(get_msr(f, i, number, &value));
    return value;
}

/* What the engine would do at an instruction boundary; also checks that the event agrees. */
static int take(struct fixture *f, unsigned i)
{
    bool pending = cpu(f, i)->apic_ops->pending(cpu(f, i)->apic);

    assert_int_equal(pending, !!(cpu(f, i)->events & VCPU_EVENT_INTERRUPT));
    return pending ? cpu(f, i)->apic_ops->acknowledge(cpu(f, i)->apic) : -1;
}

static uint32_t events(struct fixture *f, unsigned i)
{
    return vcpu_take(cpu(f, i), VCPU_EVENT_NMI | VCPU_EVENT_NMI_AGAIN | VCPU_EVENT_INIT |
                                    VCPU_EVENT_SIPI | VCPU_EVENT_SMI);
}

static void message(struct fixture *f, uint8_t cpu_id, uint8_t vector, bool level)
{
    struct apic_message m = {.destination = cpu_id, .vector = vector, .level = level};

    apic_deliver(f->t->machine, &m);
}

static void count_eoi(void *opaque, uint8_t vector)
{
    struct fixture *f = opaque;

    f->eois++;
    f->eoi_vector = vector;
}

static int set_up(void **state)
{
    static struct fixture f;
    static const char *const index[CPUS] = {"vcpu=0", "vcpu=1", "vcpu=2", "vcpu=3"};

    f = (struct fixture){.t = device_test_new_smp(0, CPUS)};
    for (unsigned i = 0; i < CPUS; i++)
        f.apic[i] = device_test_add(f.t, &apic_class, index[i]);
    assert_int_equal(apic_set_eoi_sink(f.t->machine, count_eoi, &f, NULL), 0);
    machine_set_msi_sink(f.t->machine, apic_msi_sink, f.t->machine);
    device_test_start(f.t);
    for (unsigned i = 0; i < CPUS; i++)
        set(&f, i, SVR, 0x1ff);
    for (unsigned i = 0; i < CPUS; i++)
        events(&f, i);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    device_test_free(((struct fixture *)*state)->t);
    return 0;
}

static void power_on_values(void **state)
{
    struct fixture *f = *state;

    device_test_reset(f->t);
    assert_int_equal(msr(f, 0, 0x1b), BASE | EN | BSP);
    assert_int_equal(msr(f, 1, 0x1b), BASE | EN);
    assert_int_equal(get(f, 2, ID), 2u << 24);
    assert_int_equal(get(f, 0, 0x30), 0x01050014);
    assert_int_equal(get(f, 0, SVR), 0xff);
    assert_int_equal(get(f, 0, DFR), 0xffffffff);
    assert_int_equal(get(f, 0, LDR), 0);
    for (uint32_t lvt = LVT_TIMER; lvt <= LVT_ERROR; lvt += 0x10)
        assert_int_equal(get(f, 0, lvt), MASKED);
}

static void priorities_order_and_hold_back(void **state)
{
    struct fixture *f = *state;

    message(f, 0, 0x31, false);
    message(f, 0, 0x52, false);
    message(f, 0, 0x35, false);
    assert_int_equal(get(f, 0, IRR + 0x10), 1u << 0x11 | 1u << 0x15);
    assert_int_equal(take(f, 0), 0x52);
    assert_int_equal(get(f, 0, PPR), 0x50);
    assert_int_equal(get(f, 0, ISR + 0x20), 1u << 0x12);
    assert_int_equal(take(f, 0), -1);
    message(f, 0, 0x5f, false); /* the same class waits */
    assert_int_equal(take(f, 0), -1);
    message(f, 0, 0x61, false);
    assert_int_equal(take(f, 0), 0x61);
    set(f, 0, EOI, 0);
    set(f, 0, EOI, 0);
    assert_int_equal(take(f, 0), 0x5f);
    set(f, 0, EOI, 0);
    assert_int_equal(take(f, 0), 0x35);
    set(f, 0, EOI, 0);
    assert_int_equal(take(f, 0), 0x31);
    set(f, 0, EOI, 0);
    assert_int_equal(take(f, 0), -1);
    set(f, 0, EOI, 0); /* nothing in service: no effect */
    assert_int_equal(get(f, 0, PPR), 0);
}

static void task_priority_and_cr8_are_one(void **state)
{
    struct fixture *f = *state;
    const struct vcpu_apic_ops *ops = cpu(f, 0)->apic_ops;
    void *apic = cpu(f, 0)->apic;

    message(f, 0, 0x51, false);
    set(f, 0, TPR, 0x53);
    assert_int_equal(ops->cr8(apic), 5);
    assert_int_equal(get(f, 0, PPR), 0x53);
    assert_int_equal(take(f, 0), -1);
    ops->set_cr8(apic, 4);
    assert_int_equal(get(f, 0, TPR), 0x40);
    assert_int_equal(take(f, 0), 0x51);
    assert_int_equal(get(f, 0, PPR), 0x50);
}

static void a_second_request_waits_in_irr(void **state)
{
    struct fixture *f = *state;

    message(f, 0, 0x41, false);
    message(f, 0, 0x41, false);
    assert_int_equal(take(f, 0), 0x41);
    message(f, 0, 0x41, false);
    message(f, 0, 0x41, false);
    set(f, 0, EOI, 0);
    assert_int_equal(take(f, 0), 0x41);
    set(f, 0, EOI, 0);
    assert_int_equal(take(f, 0), -1);
}

static void eoi_of_level_vectors_is_broadcast(void **state)
{
    struct fixture *f = *state;

    message(f, 0, 0x41, true);
    assert_int_equal(get(f, 0, TMR + 0x20), 2);
    assert_int_equal(take(f, 0), 0x41);
    set(f, 0, EOI, 0);
    assert_int_equal(f->eois, 1);
    assert_int_equal(f->eoi_vector, 0x41);
    message(f, 0, 0x41, false);
    assert_int_equal(get(f, 0, TMR + 0x20), 0);
    assert_int_equal(take(f, 0), 0x41);
    set(f, 0, EOI, 0);
    assert_int_equal(f->eois, 1);
    set(f, 0, SVR, 0x11ff); /* suppress */
    message(f, 0, 0x41, true);
    assert_int_equal(take(f, 0), 0x41);
    set(f, 0, EOI, 0);
    assert_int_equal(f->eois, 1);
}

static void software_disable_masks_the_lvt_and_refuses_vectors(void **state)
{
    struct fixture *f = *state;

    set(f, 0, LVT_TIMER, 0x40);
    message(f, 0, 0x41, false);
    set(f, 0, SVR, 0xff);
    assert_int_equal(get(f, 0, LVT_TIMER), MASKED | 0x40);
    set(f, 0, LVT_LINT0, 0x700);
    assert_int_equal(get(f, 0, LVT_LINT0), MASKED | 0x700);
    message(f, 0, 0x42, false);
    assert_int_equal(get(f, 0, IRR + 0x20), 2);
    struct apic_message nmi = {.destination = 0, .delivery = APIC_NMI};
    assert_int_equal(apic_deliver(f->t->machine, &nmi), 1);
    assert_int_equal(events(f, 0), VCPU_EVENT_NMI);
    assert_int_equal(take(f, 0), 0x41); /* what was accepted before is still delivered */
}

static void two_nmis_that_nobody_has_seen_count(void **state)
{
    struct apic_message nmi = {.destination = 0, .delivery = APIC_NMI};
    struct fixture *f = *state;

    apic_deliver(f->t->machine, &nmi);
    apic_deliver(f->t->machine, &nmi);
    apic_deliver(f->t->machine, &nmi);
    assert_int_equal(events(f, 0), VCPU_EVENT_NMI | VCPU_EVENT_NMI_AGAIN);
    apic_deliver(f->t->machine, &nmi);
    assert_int_equal(events(f, 0), VCPU_EVENT_NMI);
}

static void physical_ipis_reach_one_or_all(void **state)
{
    struct fixture *f = *state;

    set(f, 0, ICR_HIGH, 2u << 24);
    set(f, 0, ICR_LOW, 0x4041);
    assert_int_equal(take(f, 1), -1);
    assert_int_equal(take(f, 2), 0x41);
    assert_int_equal(get(f, 0, ICR_HIGH), 2u << 24);
    assert_int_equal(get(f, 0, ICR_LOW), 0x4041);
    set(f, 0, ICR_HIGH, 0xff000000);
    set(f, 0, ICR_LOW, 0x4052);
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(take(f, i), 0x52);
}

static void shorthands(void **state)
{
    struct fixture *f = *state;

    set(f, 1, ICR_LOW, 0x44041); /* self */
    assert_int_equal(take(f, 0), -1);
    assert_int_equal(take(f, 1), 0x41);
    set(f, 1, ICR_LOW, 0x84051); /* all */
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(take(f, i), 0x51);
    set(f, 1, ICR_LOW, 0xc4061); /* all but self */
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(take(f, i), i == 1 ? -1 : 0x61);
}

static void flat_logical_destinations(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < CPUS; i++)
        set(f, i, LDR, 1u << (24 + i));
    set(f, 0, ICR_HIGH, 0x0au << 24);
    set(f, 0, ICR_LOW, 0x4841);
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(take(f, i), i & 1 ? 0x41 : -1);
}

static void cluster_logical_destinations(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < CPUS; i++) {
        set(f, i, DFR, 0x0fffffff);
        set(f, i, LDR, (i / 2) << 28 | 1u << (24 + i % 2));
    }
    set(f, 0, ICR_HIGH, 0x12u << 24); /* cluster 1, member 1: CPU 3 */
    set(f, 0, ICR_LOW, 0x4841);
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(take(f, i), i == 3 ? 0x41 : -1);
    set(f, 0, ICR_HIGH, 0xf1u << 24); /* member 0 of every cluster */
    set(f, 0, ICR_LOW, 0x4842);
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(take(f, i), i % 2 ? -1 : 0x42);
}

static void lowest_priority_goes_to_the_least_busy(void **state)
{
    struct fixture *f = *state;
    struct apic_message m = {.destination = 0x0f, .logical = true, .delivery = APIC_LOWEST};

    for (unsigned i = 0; i < CPUS; i++) {
        set(f, i, LDR, 1u << (24 + i));
        set(f, i, TPR, i == 2 ? 0x10 : 0x20);
    }
    m.vector = 0x41;
    assert_int_equal(apic_deliver(f->t->machine, &m), 1);
    assert_int_equal(take(f, 2), 0x41);
    set(f, 2, SVR, 0xff); /* a disabled one does not take part */
    assert_int_equal(apic_deliver(f->t->machine, &m), 1);
    assert_int_equal(take(f, 2), -1);
}

static void init_and_sipi_start_a_waiting_processor(void **state)
{
    struct fixture *f = *state;

    set(f, 1, LVT_TIMER, 0x41);
    set(f, 0, ICR_HIGH, 1u << 24);
    set(f, 0, ICR_LOW, 0x8500); /* INIT level deassert: nothing */
    assert_int_equal(events(f, 1), 0);
    set(f, 0, ICR_LOW, 0xc500); /* INIT assert */
    assert_int_equal(events(f, 1), VCPU_EVENT_INIT);
    assert_int_equal(get(f, 1, LVT_TIMER), MASKED);
    assert_int_equal(get(f, 1, SVR), 0xff);
    assert_int_equal(get(f, 1, ID), 1u << 24);
    set(f, 0, ICR_LOW, 0x4698);
    assert_int_equal(events(f, 1), VCPU_EVENT_SIPI);
    assert_int_equal(cpu(f, 1)->sipi_vector, 0x98);
    set(f, 0, ICR_LOW, 0x4699); /* runs already: ignored */
    assert_int_equal(events(f, 1), 0);
    assert_int_equal(cpu(f, 1)->sipi_vector, 0x98);
}

static void init_of_the_boot_processor_does_not_wait(void **state)
{
    struct fixture *f = *state;

    set(f, 1, ICR_HIGH, 0);
    set(f, 1, ICR_LOW, 0x4500);
    assert_int_equal(events(f, 0), VCPU_EVENT_INIT);
    set(f, 1, ICR_LOW, 0x4698);
    assert_int_equal(events(f, 0), 0);
}

static void other_processors_wait_for_sipi_after_reset(void **state)
{
    struct fixture *f = *state;

    device_test_reset(f->t);
    set(f, 0, ICR_LOW, 0xc4612); /* all but self */
    assert_int_equal(events(f, 0), 0);
    for (unsigned i = 1; i < CPUS; i++) {
        assert_int_equal(events(f, i), VCPU_EVENT_SIPI);
        assert_int_equal(cpu(f, i)->sipi_vector, 0x12);
    }
}

static void nmi_and_smi_ipis(void **state)
{
    struct fixture *f = *state;

    set(f, 0, ICR_HIGH, 3u << 24);
    set(f, 0, ICR_LOW, 0x4400);
    assert_int_equal(events(f, 3), VCPU_EVENT_NMI);
    set(f, 0, ICR_LOW, 0x4200);
    assert_int_equal(events(f, 3), VCPU_EVENT_SMI);
}

static void illegal_vectors_are_reported(void **state)
{
    struct fixture *f = *state;

    set(f, 0, LVT_ERROR, 0x40);
    set(f, 0, ICR_LOW, 0x4405f & 0xfff00);
    set(f, 0, ICR_LOW, 0x4400f);
    assert_int_equal(get(f, 0, ESR), 0);
    assert_int_equal(take(f, 0), 0x40);
    set(f, 0, EOI, 0);
    message(f, 0, 0x0e, false); /* logged as well, but no second interrupt */
    assert_int_equal(take(f, 0), -1);
    set(f, 0, ESR, 0);
    assert_int_equal(get(f, 0, ESR), 0x60);
    set(f, 0, ESR, 0);
    assert_int_equal(get(f, 0, ESR), 0);
    get(f, 0, 0x40);
    set(f, 0, 0x3f0, 0x41); /* there is no self-IPI register in this mode */
    set(f, 0, ESR, 0);
    assert_int_equal(get(f, 0, ESR), 0x80);
    assert_int_equal(take(f, 0), 0x40);
    assert_int_equal(get(f, 0, IRR), 0);
}

static void odd_accesses_do_nothing(void **state)
{
    struct fixture *f = *state;
    const struct vcpu_apic_ops *ops = cpu(f, 0)->apic_ops;
    void *apic = cpu(f, 0)->apic;

    ops->mmio_write(apic, TPR, 0x30, 1);
    ops->mmio_write(apic, TPR + 4, 0x40, 4);
    assert_int_equal(get(f, 0, TPR), 0);
    set(f, 0, TPR, 0xabcd12);
    assert_int_equal(get(f, 0, TPR), 0x12);
    assert_int_equal(ops->mmio_read(apic, 0x31, 1), 0);
    assert_int_equal(ops->mmio_read(apic, 0x32, 2), 0x0105);
    assert_int_equal(ops->mmio_read(apic, 0x34, 4), 0);
    assert_int_equal(ops->mmio_read(apic, 0xffc, 4), 0);
}

static void one_shot_timer(void **state)
{
    struct fixture *f = *state;

    set(f, 0, TIMER_DIVIDE, 0x3); /* by 16 */
    set(f, 0, LVT_TIMER, 0x41);
    set(f, 0, TIMER_INITIAL, 1000);
    assert_int_equal(get(f, 0, TIMER_CURRENT), 1000);
    device_test_advance_ns(f->t, 159);
    assert_int_equal(get(f, 0, TIMER_CURRENT), 991);
    device_test_advance_ns(f->t, 1);
    assert_int_equal(get(f, 0, TIMER_CURRENT), 990);
    device_test_advance_ns(f->t, 16000 - 161);
    assert_int_equal(get(f, 0, TIMER_CURRENT), 1);
    assert_int_equal(take(f, 0), -1);
    device_test_advance_ns(f->t, 1);
    assert_int_equal(take(f, 0), 0x41);
    assert_int_equal(get(f, 0, TIMER_CURRENT), 0);
    set(f, 0, EOI, 0);
    device_test_advance_ns(f->t, 1000000);
    assert_int_equal(take(f, 0), -1);
}

static void the_count_goes_on_when_the_mode_changes(void **state)
{
    struct fixture *f = *state;

    set(f, 0, TIMER_DIVIDE, 0xb);
    set(f, 0, LVT_TIMER, 0x40);
    set(f, 0, TIMER_INITIAL, 1000000);
    device_test_advance_ns(f->t, 400000);
    set(f, 0, LVT_TIMER, PERIODIC | 0x40);
    assert_int_equal(get(f, 0, TIMER_CURRENT), 600000); /* it was still running */
    device_test_advance_ns(f->t, 700000);
    assert_int_equal(take(f, 0), 0x40);
    assert_int_equal(get(f, 0, TIMER_CURRENT), 900000);
    set(f, 0, EOI, 0);
    set(f, 0, LVT_TIMER, 0x40);
    assert_int_equal(get(f, 0, TIMER_CURRENT), 900000);
    device_test_advance_ns(f->t, 1000000);
    assert_int_equal(take(f, 0), 0x40);
    set(f, 0, EOI, 0);
    assert_int_equal(get(f, 0, TIMER_CURRENT), 0);
    set(f, 0, LVT_TIMER, PERIODIC | 0x40);
    device_test_advance_ns(f->t, 2500000);
    assert_int_equal(get(f, 0, TIMER_CURRENT), 0);
    assert_int_equal(take(f, 0), -1);
    set(f, 0, TIMER_INITIAL, 1000000);
    device_test_advance_ns(f->t, 1500000);
    assert_int_equal(take(f, 0), 0x40);
    assert_int_equal(get(f, 0, TIMER_CURRENT), 500000);
}

static void periodic_timer(void **state)
{
    struct fixture *f = *state;

    set(f, 0, TIMER_DIVIDE, 0xb); /* by 1 */
    set(f, 0, LVT_TIMER, 0x20041);
    set(f, 0, TIMER_INITIAL, 100000);
    for (unsigned i = 0; i < 5; i++) {
        device_test_advance_ns(f->t, 99999);
        assert_int_equal(get(f, 0, TIMER_CURRENT), 1);
        assert_int_equal(take(f, 0), -1);
        device_test_advance_ns(f->t, 1);
        assert_int_equal(get(f, 0, TIMER_CURRENT), 100000);
        assert_int_equal(take(f, 0), 0x41);
        set(f, 0, EOI, 0);
    }
    set(f, 0, LVT_TIMER, 0x30041); /* masked: counts on */
    device_test_advance_ns(f->t, 250000);
    assert_int_equal(take(f, 0), -1);
    assert_int_equal(get(f, 0, TIMER_CURRENT), 50000);
    set(f, 0, LVT_TIMER, 0x20041);
    device_test_advance_ns(f->t, 50000);
    assert_int_equal(take(f, 0), 0x41);
    set(f, 0, TIMER_INITIAL, 0);
    set(f, 0, EOI, 0);
    device_test_advance_ns(f->t, 1000000);
    assert_int_equal(take(f, 0), -1);
}

static void the_divider_can_change_while_counting(void **state)
{
    struct fixture *f = *state;

    set(f, 0, TIMER_DIVIDE, 0x0); /* by 2 */
    set(f, 0, LVT_TIMER, 0x41);
    set(f, 0, TIMER_INITIAL, 1000);
    device_test_advance_ns(f->t, 1000);
    assert_int_equal(get(f, 0, TIMER_CURRENT), 500);
    set(f, 0, TIMER_DIVIDE, 0xa); /* by 128 */
    assert_int_equal(get(f, 0, TIMER_CURRENT), 500);
    device_test_advance_ns(f->t, 128 * 500 - 1);
    assert_int_equal(take(f, 0), -1);
    device_test_advance_ns(f->t, 1);
    assert_int_equal(take(f, 0), 0x41);
}

static void a_period_of_one_nanosecond_is_survived(void **state)
{
    struct fixture *f = *state;

    set(f, 0, TIMER_DIVIDE, 0xb);
    set(f, 0, LVT_TIMER, 0x20041);
    set(f, 0, TIMER_INITIAL, 1);
    device_test_advance_ns(f->t, 1000000);
    assert_int_equal(take(f, 0), 0x41);
    assert_int_equal(get(f, 0, TIMER_CURRENT), 1);
}

static void tsc_deadline_timer(void **state)
{
    struct fixture *f = *state;
    uint64_t now = device_test_now_ns(f->t); /* TSC at 1 GHz */

    assert_true(set_msr(f, 0, DEADLINE_MSR, now + 100)); /* wrong mode: ignored */
    assert_int_equal(msr(f, 0, DEADLINE_MSR), 0);
    set(f, 0, LVT_TIMER, 0x40041);
    set(f, 0, TIMER_INITIAL, 100); /* ignored in this mode */
    assert_int_equal(get(f, 0, TIMER_INITIAL), 0);
    cpu(f, 0)->tsc_offset = 5000;
    assert_true(set_msr(f, 0, DEADLINE_MSR, now + 6000));
    assert_int_equal(msr(f, 0, DEADLINE_MSR), now + 6000);
    device_test_advance_ns(f->t, 999);
    assert_int_equal(take(f, 0), -1);
    device_test_advance_ns(f->t, 1);
    assert_int_equal(take(f, 0), 0x41);
    assert_int_equal(msr(f, 0, DEADLINE_MSR), 0);
    set(f, 0, EOI, 0);

    assert_true(set_msr(f, 0, DEADLINE_MSR, 1)); /* long past: at once */
    assert_int_equal(take(f, 0), 0x41);
    set(f, 0, EOI, 0);

    assert_true(set_msr(f, 0, DEADLINE_MSR, now + 50000));
    assert_true(set_msr(f, 0, DEADLINE_MSR, 0)); /* disarmed */
    device_test_advance_ns(f->t, 100000);
    assert_int_equal(take(f, 0), -1);

    assert_true(set_msr(f, 0, DEADLINE_MSR, ~0ull));
    device_test_advance_ns(f->t, 100000);
    assert_int_equal(take(f, 0), -1);
    set(f, 0, LVT_TIMER, 0x41); /* leaving the mode disarms */
    assert_int_equal(msr(f, 0, DEADLINE_MSR), 0);
}

static void a_tsc_write_moves_the_deadline(void **state)
{
    struct fixture *f = *state;
    uint64_t now = device_test_now_ns(f->t);

    set(f, 0, LVT_TIMER, 0x40041);
    assert_true(set_msr(f, 0, DEADLINE_MSR, now + 1000000));
    cpu(f, 0)->tsc_offset = 999000;
    cpu(f, 0)->apic_ops->tsc_changed(cpu(f, 0)->apic);
    device_test_advance_ns(f->t, 999);
    assert_int_equal(take(f, 0), -1);
    device_test_advance_ns(f->t, 1);
    assert_int_equal(take(f, 0), 0x41);
}

static void virtual_wire_takes_vectors_from_the_pic(void **state)
{
    struct fixture *f = *state;
    struct device *pic = device_test_add(f->t, &pic_class, NULL);

    irq_connect(pic_output(pic), apic_intr_sink, f->t->machine, 0);
    device_test_reset(f->t);
    apic_set_virtual_wire(f->apic[0]);
    test_outb(f->t, 0x20, 0x13);
    test_outb(f->t, 0x21, 0x30);
    test_outb(f->t, 0x21, 0x01);
    pic_sink(pic, 1, true);
    assert_int_equal(take(f, 1), -1); /* LINT0 is masked there */
    assert_int_equal(take(f, 0), 0x31);
    assert_int_equal(take(f, 0), -1);
    assert_int_equal(get(f, 0, ISR + 0x10), 0); /* not the APIC's affair */
    test_outb(f->t, 0x20, 0x20);
    set(f, 0, LVT_LINT0, MASKED | 0x700);
    pic_sink(pic, 3, true);
    assert_int_equal(take(f, 0), -1);
    set(f, 0, LVT_LINT0, 0x700);
    assert_int_equal(take(f, 0), 0x33);
}

static void a_disabled_apic_passes_intr_and_nmi_through(void **state)
{
    struct fixture *f = *state;
    struct device *pic = device_test_add(f->t, &pic_class, NULL);

    irq_connect(pic_output(pic), apic_intr_sink, f->t->machine, 0);
    device_test_reset(f->t);
    assert_true(set_msr(f, 0, 0x1b, BASE | BSP));
    test_outb(f->t, 0x20, 0x13);
    test_outb(f->t, 0x21, 0x30);
    test_outb(f->t, 0x21, 0x01);
    pic_sink(pic, 1, true);
    assert_int_equal(take(f, 0), 0x31);
    message(f, 0, 0x41, false);
    assert_int_equal(take(f, 0), -1);
    apic_nmi_sink(f->t->machine, 0, true);
    assert_int_equal(events(f, 0), VCPU_EVENT_NMI);
    apic_nmi_sink(f->t->machine, 0, true);
    assert_int_equal(events(f, 0), 0);
}

static void lint1_delivers_nmi_on_the_edge(void **state)
{
    struct fixture *f = *state;

    set(f, 0, LVT_LINT1, 0x400);
    apic_nmi_sink(f->t->machine, 0, true);
    assert_int_equal(events(f, 0), VCPU_EVENT_NMI);
    assert_int_equal(events(f, 1), 0);
    apic_nmi_sink(f->t->machine, 0, false);
    assert_int_equal(events(f, 0), 0);
}

static void a_level_pin_interrupts_again_after_eoi(void **state)
{
    struct fixture *f = *state;

    set(f, 0, LVT_LINT0, 0x8041);
    apic_intr_sink(f->t->machine, 0, true);
    assert_int_equal(get(f, 0, LVT_LINT0), 0xc041);
    assert_int_equal(take(f, 0), 0x41);
    assert_int_equal(take(f, 0), -1);
    set(f, 0, EOI, 0);
    assert_int_equal(take(f, 0), 0x41);
    apic_intr_sink(f->t->machine, 0, false);
    set(f, 0, EOI, 0);
    assert_int_equal(take(f, 0), -1);
    assert_int_equal(get(f, 0, LVT_LINT0), 0x8041);
}

static void apic_base_transitions(void **state)
{
    struct fixture *f = *state;
    const uint64_t xapic = BASE | EN, x2apic = BASE | EN | EXTD;

    assert_false(set_msr(f, 1, 0x1b, BASE | EXTD));        /* no such mode */
    assert_false(set_msr(f, 1, 0x1b, xapic | 1));          /* reserved */
    assert_false(set_msr(f, 1, 0x1b, xapic | 0x200));      /* reserved */
    assert_false(set_msr(f, 1, 0x1b, xapic | 1ull << 63)); /* beyond physical memory */
    assert_true(set_msr(f, 1, 0x1b, x2apic));
    assert_false(set_msr(f, 1, 0x1b, xapic));
    assert_true(set_msr(f, 1, 0x1b, x2apic));
    assert_true(set_msr(f, 1, 0x1b, BASE));
    assert_false(set_msr(f, 1, 0x1b, x2apic)); /* from disabled only through xAPIC */
    assert_true(set_msr(f, 1, 0x1b, xapic));
    assert_int_equal(get(f, 1, SVR), 0xff); /* power-on state again */
    assert_true(set_msr(f, 1, 0x1b, 0xfed10000 | EN));
    assert_int_equal(cpu(f, 1)->apic_ops->base(cpu(f, 1)->apic), 0xfed10000 | EN);
}

static void x2apic_registers_are_guarded(void **state)
{
    struct fixture *f = *state;
    uint64_t value;

    assert_false(get_msr(f, 2, 0x802, &value)); /* not in xAPIC mode */
    assert_false(set_msr(f, 2, 0x80b, 0));
    assert_true(set_msr(f, 2, 0x1b, BASE | EN | EXTD));
    assert_int_equal(msr(f, 2, 0x802), 2);
    assert_int_equal(msr(f, 2, 0x80d), 4);
    assert_int_equal(msr(f, 2, 0x80f), 0x1ff); /* kept over the switch */
    /* read-only, write-only and absent registers */
    static const uint32_t no_write[] = {0x802, 0x803, 0x80a, 0x80d, 0x810, 0x818, 0x820, 0x839};
    static const uint32_t no_read[] = {0x80b, 0x83f};
    static const uint32_t absent[] = {0x800, 0x804, 0x809, 0x80c, 0x80e,
                                      0x831, 0x82f, 0x840, 0x8ff};
    for (unsigned i = 0; i < sizeof(no_write) / sizeof(*no_write); i++)
        assert_false(set_msr(f, 2, no_write[i], 0));
    for (unsigned i = 0; i < sizeof(no_read) / sizeof(*no_read); i++)
        assert_false(get_msr(f, 2, no_read[i], &value));
    for (unsigned i = 0; i < sizeof(absent) / sizeof(*absent); i++) {
        assert_false(get_msr(f, 2, absent[i], &value));
        assert_false(set_msr(f, 2, absent[i], 0));
    }
    /* reserved bits */
    assert_false(set_msr(f, 2, 0x808, 0x100));
    assert_false(set_msr(f, 2, 0x80b, 1));
    assert_false(set_msr(f, 2, 0x80f, 0x200));
    assert_false(set_msr(f, 2, 0x828, 1));
    assert_false(set_msr(f, 2, 0x832, 0x80041));
    assert_false(set_msr(f, 2, 0x838, 1ull << 32));
    assert_false(set_msr(f, 2, 0x83e, 4));
    assert_false(set_msr(f, 2, 0x83f, 0x100));
    assert_false(set_msr(f, 2, 0x830, 0x100041));
    assert_true(set_msr(f, 2, 0x808, 0xff));
    assert_true(set_msr(f, 2, 0x828, 0));
    assert_true(set_msr(f, 2, 0x80b, 0));
}

static void x2apic_ipis(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < CPUS; i++)
        assert_true(set_msr(f, i, 0x1b, msr(f, i, 0x1b) | EXTD));
    assert_true(set_msr(f, 0, 0x830, 3ull << 32 | 0x4041)); /* physical */
    assert_int_equal(msr(f, 0, 0x830), 3ull << 32 | 0x4041);
    assert_int_equal(take(f, 3), 0x41);
    assert_true(set_msr(f, 0, 0x830, 0x6ull << 32 | 0x4842)); /* logical: 1 and 2 */
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(take(f, i), i == 1 || i == 2 ? 0x42 : -1);
    assert_true(set_msr(f, 0, 0x830, 0xffffffffull << 32 | 0x4051)); /* everybody */
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(take(f, i), 0x51);
    assert_true(set_msr(f, 0, 0x830, 0xffull << 32 | 0x4061));    /* nobody has ID 255 */
    assert_true(set_msr(f, 0, 0x830, 0x10001ull << 32 | 0x4861)); /* another cluster */
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(take(f, i), -1);
    assert_true(set_msr(f, 2, 0x83f, 0x71));
    assert_int_equal(take(f, 2), 0x71);
    message(f, 0xff, 0x81, false); /* the I/O APIC's broadcast has 8 bits */
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(take(f, i), 0x81);
}

static void init_keeps_x2apic_mode(void **state)
{
    struct fixture *f = *state;

    assert_true(set_msr(f, 1, 0x1b, BASE | EN | EXTD));
    set(f, 0, ICR_HIGH, 1u << 24);
    set(f, 0, ICR_LOW, 0x4500);
    assert_int_equal(msr(f, 1, 0x1b), BASE | EN | EXTD);
    assert_int_equal(msr(f, 1, 0x80d), 2);
    assert_int_equal(msr(f, 1, 0x80f), 0xff);
}

static void message_interrupts(void **state)
{
    struct fixture *f = *state;

    msi_send(f->t->machine, 0xfee01000, 0x4041);
    assert_int_equal(take(f, 1), 0x41);
    for (unsigned i = 0; i < CPUS; i++)
        set(f, i, LDR, 1u << (24 + i));
    msi_send(f->t->machine, 0xfee0c004, 0x0051); /* logical: 2 and 3 */
    assert_int_equal(take(f, 2), 0x51);
    assert_int_equal(take(f, 3), 0x51);
    set(f, 2, EOI, 0);
    set(f, 3, EOI, 0);
    set(f, 2, TPR, 0xf0);
    msi_send(f->t->machine, 0xfee0c00c, 0x0052); /* redirection hint: one of them */
    assert_int_equal(take(f, 3), 0x52);
    msi_send(f->t->machine, 0xfee00000, 0x0400); /* NMI */
    assert_int_equal(events(f, 0), VCPU_EVENT_NMI);
    msi_send(f->t->machine, 0xfee02000, 0x8051); /* level deassert */
    set(f, 2, TPR, 0);
    assert_int_equal(take(f, 2), -1);
    msi_send(f->t->machine, 0x1000, 0x0051);
    assert_int_equal(take(f, 0), -1);
}

static void the_state_survives_a_round_trip(void **state)
{
    struct fixture *f = *state;

    set(f, 0, TIMER_DIVIDE, 0x3);
    set(f, 0, LVT_TIMER, 0x20041);
    set(f, 0, TIMER_INITIAL, 1000);
    message(f, 0, 0x52, true);
    assert_int_equal(take(f, 0), 0x52);
    message(f, 0, 0x53, false);
    device_test_advance_ns(f->t, 100);
    device_test_round_trip(f->t, f->apic[0]);
    assert_int_equal(get(f, 0, PPR), 0x50);
    device_test_advance_ns(f->t, 16000 - 100);
    assert_int_equal(get(f, 0, IRR + 0x20), 1u << 1 | 1u << 0x13);
    set(f, 0, EOI, 0);
    assert_int_equal(f->eoi_vector, 0x52);
    assert_int_equal(take(f, 0), 0x53);
}

static void an_impossible_base_is_not_loaded(void **state)
{
    struct fixture *f = *state;
    struct state_buffer buffer = {0};
    static const uint8_t good[8] = {0x00, 0x09, 0xe0, 0xfe};
    uint8_t *at;

    assert_int_equal(state_save(&apic_class.state, f->apic[0], &buffer, NULL), 0);
    at = memmem(buffer.data, buffer.size_bytes, good, sizeof(good));
    assert_non_null(at);
    at[1] = 0x04; /* x2APIC without enable */
    assert_true(state_load(&apic_class.state, f->apic[0], buffer.data, buffer.size_bytes, NULL) <
                0);
    free(buffer.data);
}

static void a_vcpu_has_one_apic(void **state)
{
    struct fixture *f = *state;
    struct error err = {0};
    struct device *second = device_test_create(f->t, &apic_class, "vcpu=1");
    struct device *none = device_test_create(f->t, &apic_class, "vcpu=4");

    assert_int_equal(device_attach(second, &err), -EBUSY);
    error_clear(&err);
    assert_int_equal(device_attach(none, &err), -EINVAL);
    message(f, 1, 0x41, false);
    assert_int_equal(take(f, 1), 0x41);
}

/* ---- several threads ---- */

#define RING_VECTOR 0x41
#define RING_ROUNDS 1000
#define RING_NS     60000000000ull

struct runner {
    struct fixture *f;
    unsigned index, taken;
};

/* Take the token and pass it on: an interrupt that is lost stops the ring. */
static void run_ring(void *opaque)
{
    struct runner *r = opaque;
    uint64_t end_ns = host_monotonic_ns() + RING_NS;

    while (r->taken < RING_ROUNDS && host_monotonic_ns() < end_ns) {
        struct vcpu *vcpu = cpu(r->f, r->index);

        if (!(atomic_load(&vcpu->events) & VCPU_EVENT_INTERRUPT) ||
            vcpu->apic_ops->acknowledge(vcpu->apic) != RING_VECTOR) {
            sched_yield(); /* there may be fewer processors than threads */
            continue;
        }
        r->taken++;
        set(r->f, r->index, EOI, 0);
        set(r->f, r->index, ICR_HIGH, (r->index + 1) % CPUS << 24);
        set(r->f, r->index, ICR_LOW, 0x4000 | RING_VECTOR);
    }
}

/* Messages of lower priority and NMIs from outside meanwhile. */
static void run_noise(void *opaque)
{
    struct runner *r = opaque;

    for (unsigned i = 0; i < 50000; i++) {
        struct apic_message m = {.destination = i % CPUS, .delivery = APIC_NMI};

        apic_deliver(r->f->t->machine, &m);
        apic_nmi_sink(r->f->t->machine, 0, i & 1);
        machine_lock(r->f->t->machine);
        apic_intr_sink(r->f->t->machine, 0, i & 1);
        machine_unlock(r->f->t->machine);
    }
}

static void threads_lose_no_interrupt(void **state)
{
    struct fixture *f = *state;
    struct runner runners[CPUS + 1];
    struct host_thread *threads[CPUS + 1];

    message(f, 0, RING_VECTOR, false);
    for (unsigned i = 0; i <= CPUS; i++) {
        runners[i] = (struct runner){.f = f, .index = i};
        threads[i] = host_thread_start("ring", i < CPUS ? run_ring : run_noise, &runners[i], NULL);
        assert_non_null(threads[i]);
    }
    for (unsigned i = 0; i <= CPUS; i++)
        host_thread_join(threads[i]);
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(runners[i].taken, RING_ROUNDS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(power_on_values),
        TEST(priorities_order_and_hold_back),
        TEST(task_priority_and_cr8_are_one),
        TEST(a_second_request_waits_in_irr),
        TEST(eoi_of_level_vectors_is_broadcast),
        TEST(software_disable_masks_the_lvt_and_refuses_vectors),
        TEST(two_nmis_that_nobody_has_seen_count),
        TEST(physical_ipis_reach_one_or_all),
        TEST(shorthands),
        TEST(flat_logical_destinations),
        TEST(cluster_logical_destinations),
        TEST(lowest_priority_goes_to_the_least_busy),
        TEST(init_and_sipi_start_a_waiting_processor),
        TEST(init_of_the_boot_processor_does_not_wait),
        TEST(other_processors_wait_for_sipi_after_reset),
        TEST(nmi_and_smi_ipis),
        TEST(illegal_vectors_are_reported),
        TEST(odd_accesses_do_nothing),
        TEST(one_shot_timer),
        TEST(the_count_goes_on_when_the_mode_changes),
        TEST(periodic_timer),
        TEST(the_divider_can_change_while_counting),
        TEST(a_period_of_one_nanosecond_is_survived),
        TEST(tsc_deadline_timer),
        TEST(a_tsc_write_moves_the_deadline),
        TEST(virtual_wire_takes_vectors_from_the_pic),
        TEST(a_disabled_apic_passes_intr_and_nmi_through),
        TEST(lint1_delivers_nmi_on_the_edge),
        TEST(a_level_pin_interrupts_again_after_eoi),
        TEST(apic_base_transitions),
        TEST(x2apic_registers_are_guarded),
        TEST(x2apic_ipis),
        TEST(init_keeps_x2apic_mode),
        TEST(message_interrupts),
        TEST(the_state_survives_a_round_trip),
        TEST(an_impossible_base_is_not_loaded),
        TEST(a_vcpu_has_one_apic),
        TEST(threads_lose_no_interrupt),
    };

    return cmocka_run_group_tests_name("apic", tests, NULL, NULL);
}
