/*
 * descriptor.c - descriptors and stacks
 *
 * Reading GDT and LDT with their limits, loading the hidden part of segment registers, and
 * stacks as far transfers and events use them: SDM vol. 3, chapters 3.4, 3.5, 5.8
 * and 7.7. Nothing here changes a register except x86_drop_inner_segments().
 */
#include "x86/descriptor.h"

#include "base/guest_ram.h"

/* ---- system tables ---- */

static uint64_t system_linear(struct x86_cpu *cpu, uint64_t linear)
{
    if (!x86_in_long_mode(cpu))
        return (uint32_t)linear;
    if (!x86_is_canonical(linear))
        x86_raise_code(cpu, X86_GP, 0);
    return linear;
}

uint64_t x86_read_system(struct x86_cpu *cpu, uint64_t linear, unsigned size_bytes)
{
    return cpu->ops->read(cpu, system_linear(cpu, linear), size_bytes,
                          X86_ACCESS_READ | X86_ACCESS_SUPERVISOR);
}

void x86_write_system(struct x86_cpu *cpu, uint64_t linear, uint64_t value, unsigned size_bytes)
{
    cpu->ops->write(cpu, system_linear(cpu, linear), value, size_bytes,
                    X86_ACCESS_WRITE | X86_ACCESS_SUPERVISOR);
}

uint8_t x86_set_bits_system(struct x86_cpu *cpu, uint64_t linear, uint8_t bits)
{
    const unsigned access = X86_ACCESS_WRITE | X86_ACCESS_SUPERVISOR;
    uint8_t old;

    linear = system_linear(cpu, linear);
    if (cpu->ops->set_bits)
        return cpu->ops->set_bits(cpu, linear, bits, access);
    old = (uint8_t)x86_read_system(cpu, linear, 1);
    cpu->ops->write(cpu, linear, old | bits, 1, access);
    return old;
}

/* ---- descriptors ---- */

/* Linear address of size_bytes at the selector's index; false if not within the table. */
static bool table_entry(const struct x86_cpu *cpu, uint16_t selector, unsigned size_bytes,
                        uint64_t *out_linear)
{
    const struct x86_state *s = &cpu->s;
    uint32_t offset = selector & 0xfff8u;

    if (selector & 4) {
        if (!(s->ldtr.attributes & X86_SEG_P) || offset + size_bytes - 1 > s->ldtr.limit)
            return false;
        *out_linear = s->ldtr.base + offset;
        return true;
    }
    if (offset + size_bytes - 1 > s->gdtr.limit)
        return false;
    *out_linear = s->gdtr.base + offset;
    return true;
}

bool x86_descriptor_find(struct x86_cpu *cpu, uint16_t selector, struct x86_descriptor *out)
{
    uint64_t linear;

    if (!table_entry(cpu, selector, 8, &linear))
        return false;
    *out = (struct x86_descriptor){.low = x86_read_system(cpu, linear, 8), .linear = linear};
    return true;
}

bool x86_plain_descriptor(struct x86_cpu *cpu, uint16_t selector, unsigned dpl, uint16_t mask,
                          uint16_t want, struct x86_descriptor *out)
{
    const uint16_t always = X86_SEG_P | X86_SEG_DPL | X86_SEG_ACCESSED;
    const uint8_t *host = NULL;

    if (!x86_selector_is_null(selector) && table_entry(cpu, selector, 8, &out->linear))
        host = x86_host_at(cpu, out->linear, 8, X86_ACCESS_READ | X86_ACCESS_SUPERVISOR);
    if (!host)
        return false;
    out->low = ram_load64(host);
    out->high = 0;
    return (x86_descriptor_attributes(out) & (mask | always)) ==
           (want | X86_SEG_P | X86_SEG_ACCESSED | dpl << X86_SEG_DPL_SHIFT);
}

void x86_descriptor_get(struct x86_cpu *cpu, uint16_t selector, uint8_t vector, unsigned ext,
                        struct x86_descriptor *out)
{
    if (!x86_descriptor_find(cpu, selector, out))
        x86_raise_code(cpu, vector, x86_selector_code(selector, ext));
}

bool x86_descriptor_extend(struct x86_cpu *cpu, uint16_t selector, struct x86_descriptor *d)
{
    uint64_t linear;

    if (!x86_in_long_mode(cpu))
        return true;
    if (!table_entry(cpu, selector, 16, &linear))
        return false;
    d->high = x86_read_system(cpu, linear + 8, 8);
    if (d->high >> 40 & 0x1fu) /* must not pass for a descriptor itself (SDM vol. 3, 3.5.2) */
        return false;
    d->high &= 0xffffffffu;
    return true;
}

void x86_descriptor_touch(struct x86_cpu *cpu, const struct x86_descriptor *d)
{
    if (!(d->low >> 40 & X86_SEG_ACCESSED))
        x86_set_bits_system(cpu, d->linear + 5, X86_SEG_ACCESSED);
}

struct x86_segment x86_v86_segment(uint16_t selector)
{
    return (struct x86_segment){
        .base = (uint32_t)selector << 4,
        .limit = 0xffff,
        .selector = selector,
        .attributes = X86_SEG_P | X86_SEG_DPL | X86_SEG_S | X86_SEG_WRITABLE | X86_SEG_ACCESSED,
    };
}

/*
 * Real mode changes the base and makes the segment writable, but leaves the limit and
 * the size bits of the last load in protected mode ("big real mode").
 */
struct x86_segment x86_real_segment(const struct x86_cpu *cpu, uint16_t selector,
                                    const struct x86_segment *old)
{
    const uint16_t fixed = X86_SEG_P | X86_SEG_S | X86_SEG_WRITABLE | X86_SEG_ACCESSED;
    bool usable = old->attributes & X86_SEG_P;

    if (x86_in_v86_mode(cpu))
        return x86_v86_segment(selector);
    return (struct x86_segment){
        .base = (uint32_t)selector << 4,
        .limit = usable ? old->limit : 0xffffu,
        .selector = selector,
        .attributes =
            fixed | (usable ? old->attributes & (X86_SEG_AVL | X86_SEG_DB | X86_SEG_G) : 0),
    };
}

void x86_check_target(struct x86_cpu *cpu, uint16_t attributes, uint32_t limit, uint64_t rip,
                      unsigned ext)
{
    bool wide = x86_in_long_mode(cpu) && (attributes & X86_SEG_L);

    if (wide ? !x86_is_canonical(rip) : rip > limit)
        x86_raise_code(cpu, X86_GP, ext);
}

void x86_check_ss(struct x86_cpu *cpu, uint16_t selector, unsigned cpl, uint8_t bad, unsigned ext,
                  struct x86_descriptor *out)
{
    x86_descriptor_get(cpu, selector, bad, ext, out);
    if (x86_rpl(selector) != cpl || !x86_is_writable_data(x86_descriptor_attributes(out)) ||
        x86_descriptor_dpl(out) != cpl)
        x86_raise_code(cpu, bad, x86_selector_code(selector, ext));
    if (!x86_descriptor_present(out))
        x86_raise_code(cpu, X86_SS_FAULT, x86_selector_code(selector, ext));
}

void x86_drop_inner_segments(struct x86_cpu *cpu)
{
    static const uint8_t data[] = {X86_ES, X86_DS, X86_FS, X86_GS};

    for (unsigned i = 0; i < sizeof(data); i++) {
        struct x86_segment *seg = &cpu->s.seg[data[i]];
        unsigned dpl = (seg->attributes & X86_SEG_DPL) >> X86_SEG_DPL_SHIFT;

        /* A null FS or GS may have a base from its MSR, which stays. */
        if (x86_selector_is_null(seg->selector) || dpl >= cpu->cpl ||
            x86_is_conforming(seg->attributes))
            continue;
        seg->selector = 0;
        seg->attributes = 0;
        seg->limit = 0;
    }
}

/* ---- stacks ---- */

static uint64_t sp_mask(const struct x86_stack *stack)
{
    if (stack->flat)
        return UINT64_MAX;
    return stack->ss.attributes & X86_SEG_DB ? 0xffffffffu : 0xffffu;
}

static uint64_t sp_plus(const struct x86_stack *stack, uint64_t sp, uint64_t size_bytes)
{
    uint64_t mask = sp_mask(stack);

    return (sp & ~mask) | ((sp + size_bytes) & mask);
}

static bool within_limit(const struct x86_segment *ss, uint64_t offset, unsigned size_bytes)
{
    uint64_t last = offset + size_bytes - 1;

    if (!(ss->attributes & X86_SEG_P))
        return false;
    if ((ss->attributes & (X86_SEG_CODE | X86_SEG_DOWN)) == X86_SEG_DOWN)
        return offset > ss->limit && last <= (ss->attributes & X86_SEG_DB ? 0xffffffffu : 0xffffu);
    return last <= ss->limit;
}

/* Linear address of size_bytes at sp; raises #SS. */
static uint64_t stack_linear(struct x86_cpu *cpu, const struct x86_stack *stack, uint64_t sp,
                             unsigned size_bytes)
{
    uint64_t offset = sp & sp_mask(stack);

    if (stack->flat) {
        if (!x86_is_canonical(offset) || !x86_is_canonical(offset + size_bytes - 1))
            x86_raise_code(cpu, X86_SS_FAULT, stack->fault_code);
        return offset;
    }
    if (!within_limit(&stack->ss, offset, size_bytes))
        x86_raise_code(cpu, X86_SS_FAULT, stack->fault_code);
    return (uint32_t)(stack->ss.base + offset);
}

void x86_stack_current(struct x86_cpu *cpu, uint32_t fault_code, struct x86_stack *out)
{
    *out = (struct x86_stack){
        .ss = cpu->s.seg[X86_SS],
        .sp = cpu->s.gpr[X86_RSP],
        .flat = x86_in_64bit_mode(cpu),
        .fault_code = fault_code,
    };
}

/* Read a field of the TSS, or raise #TS(TSS selector) if last_offset is beyond its limit. */
static uint64_t tss_field(struct x86_cpu *cpu, uint32_t offset, unsigned size_bytes,
                          uint32_t last_offset, unsigned ext)
{
    const struct x86_segment *tr = &cpu->s.tr;

    if (!(tr->attributes & X86_SEG_P) || last_offset > tr->limit)
        x86_raise_code(cpu, X86_TS, x86_selector_code(tr->selector, ext));
    return x86_read_system(cpu, tr->base + offset, size_bytes);
}

static void tss64_stack(struct x86_cpu *cpu, unsigned dpl, unsigned ist, unsigned ext,
                        struct x86_stack *out)
{
    uint32_t offset = ist ? ist * 8 + 28 : dpl * 8 + 4;

    out->sp = tss_field(cpu, offset, 8, offset + 7, ext);
    out->ss = x86_null_segment((uint16_t)dpl, dpl);
    out->flat = true;
    out->fault_code = ext;
}

/* SP and SS of a 16- or 32-bit TSS. */
static uint16_t tss_stack_pointer(struct x86_cpu *cpu, unsigned dpl, unsigned ext, uint64_t *out_sp)
{
    uint32_t offset;

    if (cpu->s.tr.attributes & 8) {
        offset = dpl * 8 + 4;
        *out_sp = tss_field(cpu, offset, 4, offset + 5, ext);
        return (uint16_t)x86_read_system(cpu, cpu->s.tr.base + offset + 4, 2);
    }
    offset = dpl * 4 + 2;
    *out_sp = tss_field(cpu, offset, 2, offset + 3, ext);
    return (uint16_t)x86_read_system(cpu, cpu->s.tr.base + offset + 2, 2);
}

void x86_stack_from_tss(struct x86_cpu *cpu, unsigned dpl, unsigned ist, unsigned ext,
                        struct x86_stack *out)
{
    uint16_t selector;

    *out = (struct x86_stack){.access = X86_ACCESS_SUPERVISOR};
    if (x86_in_long_mode(cpu)) {
        tss64_stack(cpu, dpl, ist, ext, out);
        return;
    }
    selector = tss_stack_pointer(cpu, dpl, ext, &out->sp);
    if (x86_selector_is_null(selector))
        x86_raise_code(cpu, X86_TS, ext);
    x86_check_ss(cpu, selector, dpl, X86_TS, ext, &out->descriptor);
    out->ss = x86_segment_from(selector, &out->descriptor);
    out->fault_code = x86_selector_code(selector, ext);
}

void x86_stack_need(struct x86_cpu *cpu, const struct x86_stack *stack, unsigned count,
                    unsigned size_bytes)
{
    uint64_t sp = stack->sp;

    while (count--) {
        sp = sp_plus(stack, sp, -(uint64_t)size_bytes);
        stack_linear(cpu, stack, sp, size_bytes);
    }
}

void x86_stack_have(struct x86_cpu *cpu, const struct x86_stack *stack, unsigned count,
                    unsigned size_bytes)
{
    for (unsigned i = 0; i < count; i++)
        stack_linear(cpu, stack, sp_plus(stack, stack->sp, i * size_bytes), size_bytes);
}

void x86_stack_push(struct x86_cpu *cpu, struct x86_stack *stack, uint64_t value,
                    unsigned size_bytes)
{
    uint64_t sp = sp_plus(stack, stack->sp, -(uint64_t)size_bytes);
    uint64_t linear = stack_linear(cpu, stack, sp, size_bytes);

    if (size_bytes < 8)
        value &= (UINT64_C(1) << size_bytes * 8) - 1;
    cpu->ops->write(cpu, linear, value, size_bytes, X86_ACCESS_WRITE | stack->access);
    stack->sp = sp;
}

uint64_t x86_stack_peek(struct x86_cpu *cpu, const struct x86_stack *stack, uint64_t offset_bytes,
                        unsigned size_bytes)
{
    uint64_t sp = sp_plus(stack, stack->sp, offset_bytes);
    uint64_t linear = stack_linear(cpu, stack, sp, size_bytes);

    return cpu->ops->read(cpu, linear, size_bytes, X86_ACCESS_READ | stack->access);
}

uint64_t x86_stack_pop(struct x86_cpu *cpu, struct x86_stack *stack, unsigned size_bytes)
{
    uint64_t value = x86_stack_peek(cpu, stack, 0, size_bytes);

    x86_stack_skip(stack, size_bytes);
    return value;
}

void x86_stack_skip(struct x86_stack *stack, uint64_t size_bytes)
{
    stack->sp = sp_plus(stack, stack->sp, size_bytes);
}
