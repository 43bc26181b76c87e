/*
 * segments.c - loading segment registers and asking about descriptors
 *
 * MOV/POP to segment registers, LLDT, LTR, LAR, LSL, VERR, VERW and the TSS' I/O permission
 * bitmap: SDM vol. 2 and vol. 3, chapters 3.4, 5 and 7; vol. 1, 19.5. Far transfers are in
 * far_transfer.c, SYSCALL and SYSENTER in syscall.c, task switches in task.c.
 */
#include "x86/segments.h"

#include "x86/descriptor.h"

void x86_refresh_cpl(struct x86_cpu *cpu)
{
    if (!x86_in_protected_mode(cpu))
        cpu->cpl = 0;
    else if (x86_in_v86_mode(cpu))
        cpu->cpl = 3;
    else
        cpu->cpl = (cpu->s.seg[X86_SS].attributes & X86_SEG_DPL) >> X86_SEG_DPL_SHIFT;
}

/* ---- segment registers ---- */

static void set_segment(struct x86_cpu *cpu, enum x86_segment_index seg, struct x86_segment value)
{
    cpu->s.seg[seg] = value;
    cpu->ops->changed(cpu, X86_CHANGED_SEGMENTS);
}

/* A null SS is allowed in 64-bit mode outside CPL 3. */
static void load_null(struct x86_cpu *cpu, enum x86_segment_index seg, uint16_t selector)
{
    if (seg != X86_SS) {
        set_segment(cpu, seg, x86_null_segment(selector, 0));
        return;
    }
    if (!x86_in_64bit_mode(cpu) || cpu->cpl == 3 || x86_rpl(selector) != cpu->cpl)
        x86_raise_code(cpu, X86_GP, 0);
    set_segment(cpu, seg, x86_null_segment(selector, cpu->cpl));
}

static void check_data(struct x86_cpu *cpu, uint16_t selector, struct x86_descriptor *out)
{
    uint16_t attributes;
    unsigned dpl;

    x86_descriptor_get(cpu, selector, X86_GP, 0, out);
    attributes = x86_descriptor_attributes(out);
    dpl = x86_descriptor_dpl(out);
    if (!x86_is_readable(attributes) ||
        (!x86_is_conforming(attributes) && (x86_rpl(selector) > dpl || cpu->cpl > dpl)))
        x86_raise_code(cpu, X86_GP, x86_selector_code(selector, 0));
    if (!x86_descriptor_present(out))
        x86_raise_code(cpu, X86_NP, x86_selector_code(selector, 0));
}

void x86_load_segment(struct x86_cpu *cpu, enum x86_segment_index seg, uint16_t selector)
{
    struct x86_descriptor d;

    if (!x86_in_protected_mode(cpu) || x86_in_v86_mode(cpu)) {
        set_segment(cpu, seg, x86_real_segment(cpu, selector, &cpu->s.seg[seg]));
        return;
    }
    if (x86_selector_is_null(selector)) {
        load_null(cpu, seg, selector);
        return;
    }
    if (seg == X86_SS)
        x86_check_ss(cpu, selector, cpu->cpl, X86_GP, 0, &d);
    else
        check_data(cpu, selector, &d);
    x86_descriptor_touch(cpu, &d);
    set_segment(cpu, seg, x86_segment_from(selector, &d));
}

/* ---- LDTR and TR ---- */

static void need_protected_mode(struct x86_cpu *cpu)
{
    if (!x86_in_protected_mode(cpu) || x86_in_v86_mode(cpu))
        x86_raise(cpu, X86_UD);
}

/* The descriptor that LLDT or LTR loads: types is the set of allowed ones. */
static void system_segment(struct x86_cpu *cpu, uint16_t selector, unsigned types,
                           struct x86_descriptor *out)
{
    const uint32_t code = x86_selector_code(selector, 0);

    if (selector & 4)
        x86_raise_code(cpu, X86_GP, code);
    x86_descriptor_get(cpu, selector, X86_GP, 0, out);
    if (!(types >> x86_descriptor_system_type(out) & 1) ||
        !x86_descriptor_extend(cpu, selector, out))
        x86_raise_code(cpu, X86_GP, code);
    if (!x86_descriptor_present(out))
        x86_raise_code(cpu, X86_NP, code);
    if (!x86_is_canonical(x86_descriptor_base(out)))
        x86_raise_code(cpu, X86_GP, code);
}

static struct x86_segment system_segment_from(uint16_t selector, const struct x86_descriptor *d)
{
    return (struct x86_segment){
        .base = x86_descriptor_base(d),
        .limit = x86_descriptor_limit(d),
        .selector = selector,
        .attributes = x86_descriptor_attributes(d),
    };
}

void x86_lldt(struct x86_cpu *cpu, uint16_t selector)
{
    struct x86_descriptor d;

    need_protected_mode(cpu);
    if (cpu->cpl != 0)
        x86_raise_code(cpu, X86_GP, 0);
    if (x86_selector_is_null(selector)) {
        cpu->s.ldtr = x86_null_segment(selector, 0);
        return;
    }
    system_segment(cpu, selector, 1u << X86_TYPE_LDT, &d);
    cpu->s.ldtr = system_segment_from(selector, &d);
}

void x86_ltr(struct x86_cpu *cpu, uint16_t selector)
{
    unsigned types = 1u << X86_TYPE_TSS;
    struct x86_descriptor d;

    need_protected_mode(cpu);
    if (cpu->cpl != 0 || x86_selector_is_null(selector))
        x86_raise_code(cpu, X86_GP, 0);
    if (!x86_in_long_mode(cpu))
        types |= 1u << X86_TYPE_TSS16;
    system_segment(cpu, selector, types, &d);
    if (x86_set_bits_system(cpu, d.linear + 5, X86_TSS_BUSY) & X86_TSS_BUSY)
        x86_raise_code(cpu, X86_GP, x86_selector_code(selector, 0)); /* another CPU was first */
    cpu->s.tr = system_segment_from(selector, &d);
    cpu->s.tr.attributes |= X86_TSS_BUSY;
}

/* ---- LAR, LSL, VERR, VERW ---- */

/* Types that LAR and LSL accept; [1]: in long mode. */
static const uint16_t lar_types[2] = {
    1u << X86_TYPE_TSS16 | 1u << X86_TYPE_LDT | 1u << X86_TYPE_TSS16_BUSY |
        1u << X86_TYPE_CALL_GATE16 | 1u << X86_TYPE_TASK_GATE | 1u << X86_TYPE_TSS |
        1u << X86_TYPE_TSS_BUSY | 1u << X86_TYPE_CALL_GATE,
    1u << X86_TYPE_LDT | 1u << X86_TYPE_TSS | 1u << X86_TYPE_TSS_BUSY | 1u << X86_TYPE_CALL_GATE,
};
static const uint16_t lsl_types[2] = {
    1u << X86_TYPE_TSS16 | 1u << X86_TYPE_LDT | 1u << X86_TYPE_TSS16_BUSY | 1u << X86_TYPE_TSS |
        1u << X86_TYPE_TSS_BUSY,
    1u << X86_TYPE_LDT | 1u << X86_TYPE_TSS | 1u << X86_TYPE_TSS_BUSY,
};

static bool set_zf(struct x86_cpu *cpu, bool zf)
{
    if (zf)
        cpu->s.rflags |= X86_FLAG_ZF;
    else
        cpu->s.rflags &= ~(uint64_t)X86_FLAG_ZF;
    cpu->ops->changed(cpu, X86_CHANGED_FLAGS);
    return zf;
}

/* Is the descriptor there, of an accepted system type or code or data, and visible at CPL and RPL?
 */
static bool visible(struct x86_cpu *cpu, uint16_t selector, uint16_t types,
                    struct x86_descriptor *out)
{
    uint16_t attributes;
    unsigned dpl;

    if (x86_selector_is_null(selector) || !x86_descriptor_find(cpu, selector, out))
        return false;
    attributes = x86_descriptor_attributes(out);
    if (!(attributes & X86_SEG_S) &&
        (!(types >> (attributes & X86_SEG_TYPE) & 1) || !x86_descriptor_extend(cpu, selector, out)))
        return false;
    dpl = x86_descriptor_dpl(out);
    return x86_is_conforming(attributes) || (cpu->cpl <= dpl && x86_rpl(selector) <= dpl);
}

bool x86_lar(struct x86_cpu *cpu, uint16_t selector, uint32_t *out_value)
{
    struct x86_descriptor d;

    need_protected_mode(cpu);
    if (!visible(cpu, selector, lar_types[x86_in_long_mode(cpu)], &d))
        return set_zf(cpu, false);
    *out_value = (uint32_t)(d.low >> 32) & 0x00ffff00u;
    return set_zf(cpu, true);
}

bool x86_lsl(struct x86_cpu *cpu, uint16_t selector, uint32_t *out_value)
{
    struct x86_descriptor d;

    need_protected_mode(cpu);
    if (!visible(cpu, selector, lsl_types[x86_in_long_mode(cpu)], &d))
        return set_zf(cpu, false);
    *out_value = x86_descriptor_limit(&d);
    return set_zf(cpu, true);
}

bool x86_verify(struct x86_cpu *cpu, uint16_t selector, bool write)
{
    struct x86_descriptor d;
    uint16_t attributes;

    need_protected_mode(cpu);
    if (!visible(cpu, selector, 0, &d))
        return set_zf(cpu, false);
    attributes = x86_descriptor_attributes(&d);
    return set_zf(cpu, write ? x86_is_writable_data(attributes) : x86_is_readable(attributes));
}

/* ---- I/O permission ---- */

#define TSS_IO_MAP_BASE 102u

static bool port_allowed(struct x86_cpu *cpu, uint16_t port, unsigned size_bytes)
{
    const struct x86_segment *tr = &cpu->s.tr;
    uint32_t offset;
    unsigned bits;

    if (!(tr->attributes & X86_SEG_P) || (tr->attributes & 0xdu) != X86_TYPE_TSS ||
        tr->limit < TSS_IO_MAP_BASE + 1)
        return false;
    offset = (uint32_t)x86_read_system(cpu, tr->base + TSS_IO_MAP_BASE, 2) + port / 8u;
    if (offset + 1 > tr->limit) /* two bytes are read whatever the size */
        return false;
    bits = (unsigned)x86_read_system(cpu, tr->base + offset, 2) >> (port & 7u);
    return (bits & ((1u << size_bytes) - 1)) == 0;
}

void x86_check_port(struct x86_cpu *cpu, uint16_t port, unsigned size_bytes)
{
    unsigned iopl = (cpu->s.rflags & X86_FLAG_IOPL) >> 12;

    if (!x86_in_protected_mode(cpu) || (!x86_in_v86_mode(cpu) && cpu->cpl <= iopl))
        return;
    if (!port_allowed(cpu, port, size_bytes))
        x86_raise_code(cpu, X86_GP, 0);
}
