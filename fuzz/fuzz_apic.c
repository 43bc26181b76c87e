/*
 * fuzz_apic.c - random register accesses, messages, lines and times at two local APICs, the
 * I/O APIC and the PIC behind LINT0
 *
 * Claims: VCPU_EVENT_INTERRUPT says what pending() says; only what is pending is delivered;
 * the state survives a round trip.
 */
#include "devices/apic.h"
#include "devices/ioapic.h"
#include "devices/pic.h"
#include "fuzz_device.h"

#define CPUS 2

struct rig {
    struct device_test *t;
    struct device *apic[CPUS], *ioapic, *pic;
    struct isa_irqs isa;
};

static struct vcpu *cpu(struct rig *r, unsigned i)
{
    return machine_vcpu(r->t->machine, i % CPUS);
}

static void access_mmio(struct vcpu *vcpu, struct fuzz_input *in)
{
    uint64_t where = fuzz_take(in, 2);
    unsigned size = 1u << (where >> 12 & 3);
    uint32_t offset = where & 0xfff;

    if (!(where & 0x8000))
        offset &= 0xff0; /* mostly real registers */
    if (where & 0x4000)
        vcpu->apic_ops->mmio_write(vcpu->apic, offset, fuzz_take(in, 4), 4);
    else
        vcpu->apic_ops->mmio_read(vcpu->apic, offset, size);
}

static void access_msr(struct vcpu *vcpu, struct fuzz_input *in)
{
    static const uint32_t others[] = {0x1b, 0x6e0};
    uint64_t where = fuzz_take(in, 1), value;
    uint32_t msr = 0x800 + (where & 0x3f);

    if (where & 0x40)
        msr = others[where & 1];
    if (where & 0x80)
        vcpu->apic_ops->msr_write(vcpu->apic, msr, fuzz_take(in, where & 0x20 ? 8 : 2));
    else
        vcpu->apic_ops->msr_read(vcpu->apic, msr, &value);
}

static void change_mode(struct vcpu *vcpu, struct fuzz_input *in)
{
    uint64_t base = vcpu->apic_ops->base(vcpu->apic);

    vcpu->apic_ops->msr_write(vcpu->apic, 0x1b, base ^ (fuzz_take(in, 1) << 8 & 0xd00));
}

static void access_ioapic(struct rig *r, struct fuzz_input *in)
{
    uint64_t where = fuzz_take(in, 1);
    uint64_t gpa = IOAPIC_GPA + (where & 0x40 ? fuzz_take(in, 1) : 0x10);

    test_write(r->t, IOAPIC_GPA, where & 0x3f, 4);
    if (where & 0x80)
        test_write(r->t, gpa, fuzz_take(in, 4), 4);
    else
        test_read(r->t, gpa, 4);
}

static void acknowledge(struct vcpu *vcpu)
{
    bool pending = vcpu->apic_ops->pending(vcpu->apic);
    int vector = vcpu->apic_ops->acknowledge(vcpu->apic);

    FUZZ_CLAIM(vector < 256);
    FUZZ_CLAIM(pending || vector < 0);
}

static void change_tsc(struct vcpu *vcpu, struct fuzz_input *in)
{
    vcpu->tsc_offset = fuzz_take(in, 8);
    vcpu->apic_ops->tsc_changed(vcpu->apic);
}

static void step(struct rig *r, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    struct vcpu *vcpu = cpu(r, what >> 7);

    switch (what & 0xf) {
    case 0:
    case 1:
    case 2:
        access_mmio(vcpu, in);
        break;
    case 3:
    case 4:
        access_msr(vcpu, in);
        break;
    case 5:
        change_mode(vcpu, in);
        break;
    case 6:
        access_ioapic(r, in);
        break;
    case 7:
        msi_send(r->t->machine, 0xfee00000 | fuzz_take(in, 3), (uint32_t)fuzz_take(in, 2));
        break;
    case 8:
        isa_irq_sink(&r->isa, what >> 3, what & 4);
        break;
    case 9:
        ioapic_sink(r->ioapic, (unsigned)fuzz_take(in, 1), what & 0x40);
        break;
    case 10:
        acknowledge(vcpu);
        break;
    case 11:
        device_test_advance_ns(r->t, fuzz_take_ns(in, 16));
        break;
    case 12:
        vcpu->apic_ops->set_cr8(vcpu->apic, what >> 3 & 15);
        break;
    case 13:
        test_outb(r->t, what & 0x40 ? 0x20 : 0x21, (uint8_t)fuzz_take(in, 1));
        break;
    case 14:
        change_tsc(vcpu, in);
        break;
    default:
        apic_nmi_sink(r->t->machine, 0, what & 0x40);
        break;
    }
}

static void check(struct rig *r)
{
    for (unsigned i = 0; i < CPUS; i++) {
        struct vcpu *vcpu = cpu(r, i);

        FUZZ_CLAIM(vcpu->apic_ops->pending(vcpu->apic) == !!(vcpu->events & VCPU_EVENT_INTERRUPT));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void build(struct rig *r, struct fuzz_saved *saved)
{
    r->t = device_test_new_smp(0, CPUS);
    r->apic[0] = saved[0].dev = device_test_add(r->t, &apic_class, "vcpu=0");
    r->apic[1] = saved[1].dev = device_test_add(r->t, &apic_class, "vcpu=1");
    r->pic = saved[2].dev = device_test_add(r->t, &pic_class, NULL);
    r->ioapic = saved[3].dev = device_test_add(r->t, &ioapic_class, NULL);
    r->isa = (struct isa_irqs){.pic = r->pic, .ioapic = r->ioapic};
    irq_connect(pic_output(r->pic), apic_intr_sink, r->t->machine, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rig r;
    static struct fuzz_saved saved[5];
    struct fuzz_input in = {data, size};

    if (!r.t)
        build(&r, saved);
    fuzz_begin(r.t, saved);
    apic_set_virtual_wire(r.apic[0]);
    while (in.left) {
        if (*in.data == 0xff) {
            fuzz_take(&in, 1);
            fuzz_load_state(&in, r.apic[0]);
            fuzz_load_state(&in, r.ioapic);
        }
        step(&r, &in);
        check(&r);
    }
    device_test_round_trip(r.t, r.apic[0]);
    device_test_round_trip(r.t, r.ioapic);
    return 0;
}
