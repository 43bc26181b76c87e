/*
 * task.c - hardware task switch
 *
 * SDM vol. 3, chapter 7, with 32- and 16-bit TSS. Long mode has none: #GP.
 *
 * Theory of operation. Up to the commit point nothing that the guest can see changes: the new
 * TSS is checked and read, and every write that will be made is probed, so that a fault finds
 * the old task. Then descriptors' busy bits, the old TSS and the back link are written and
 * the registers change. Segment descriptors are loaded last, one by one, and what is wrong with
 * them is a fault of the new task (table 7-1): selectors are all loaded then, and the
 * descriptors not yet reached are unusable.
 */
#include <stddef.h>

#include "x86/descriptor.h"
#include "x86/features.h"
#include "x86/paging.h"
#include "x86/segments.h"

/* Offsets in bytes. General registers and selectors are in encoding order. */
struct tss_layout {
    unsigned width; /* of a register: 4 or 2 */
    uint32_t min_limit;
    uint32_t ip, flags, gpr, segments, ldt;
    unsigned segment_count;
};

static const struct tss_layout tss32 = {
    .width = 4,
    .min_limit = 0x67,
    .ip = 0x20,
    .flags = 0x24,
    .gpr = 0x28,
    .segments = 0x48,
    .ldt = 0x60,
    .segment_count = 6,
};
static const struct tss_layout tss16 = {
    .width = 2,
    .min_limit = 0x2b,
    .ip = 0x0e,
    .flags = 0x10,
    .gpr = 0x12,
    .segments = 0x22,
    .ldt = 0x2a,
    .segment_count = 4,
};

#define TSS_CR3        0x1cu /* 32-bit TSS only */
#define TSS_DEBUG_TRAP 0x64u /* likewise, bit 0 */
#define GPR_COUNT      8u
#define DR7_LOCAL      UINT64_C(0x155) /* L0-L3 and LE end with the task */
#define TASK_FLAGS     0x3f7fd7u

/* What a task switch takes from the new TSS. */
struct task {
    uint16_t selector;
    unsigned ext;
    const struct tss_layout *layout;
    struct x86_descriptor descriptor;
    uint64_t base;
    uint32_t cr3, ip, flags;
    uint32_t gpr[GPR_COUNT];
    uint16_t segments[X86_SEGMENT_COUNT];
    uint16_t ldt;
    bool debug_trap;
    uint64_t pdpte[4];
};

static const struct tss_layout *layout_of(uint16_t attributes)
{
    return attributes & 8 ? &tss32 : &tss16;
}

noreturn static void fault(struct x86_cpu *cpu, const struct task *task, uint8_t vector,
                           uint16_t selector)
{
    x86_raise_code(cpu, vector, x86_selector_code(selector, task->ext));
}

/* ---- before the commit point ---- */

static void check_tss(struct x86_cpu *cpu, enum x86_task_cause cause, struct task *task)
{
    const uint8_t bad = cause == X86_TASK_IRET ? X86_TS : X86_GP;
    const unsigned available = 1u << X86_TYPE_TSS16 | 1u << X86_TYPE_TSS;
    const unsigned types = cause == X86_TASK_IRET ? available << X86_TSS_BUSY : available;

    if ((task->selector & 4) || x86_selector_is_null(task->selector) || x86_in_long_mode(cpu))
        fault(cpu, task, bad, task->selector);
    x86_descriptor_get(cpu, task->selector, bad, task->ext, &task->descriptor);
    if (!(types >> x86_descriptor_system_type(&task->descriptor) & 1))
        fault(cpu, task, bad, task->selector);
    if (!x86_descriptor_present(&task->descriptor))
        fault(cpu, task, X86_NP, task->selector);
    task->layout = layout_of(x86_descriptor_attributes(&task->descriptor));
    task->base = x86_descriptor_base(&task->descriptor);
    if (x86_descriptor_limit(&task->descriptor) < task->layout->min_limit)
        fault(cpu, task, X86_TS, task->selector);
}

static uint32_t tss_read(struct x86_cpu *cpu, const struct task *task, uint32_t offset,
                         unsigned size_bytes)
{
    return (uint32_t)x86_read_system(cpu, task->base + offset, size_bytes);
}

static void read_tss(struct x86_cpu *cpu, struct task *task)
{
    const struct tss_layout *l = task->layout;
    const uint32_t fill = l->width == 2 ? 0xffff0000u : 0; /* high halves are undefined */

    task->ip = tss_read(cpu, task, l->ip, l->width);
    task->flags = tss_read(cpu, task, l->flags, l->width);
    for (unsigned i = 0; i < GPR_COUNT; i++)
        task->gpr[i] = tss_read(cpu, task, l->gpr + i * l->width, l->width) | fill;
    for (unsigned i = 0; i < l->segment_count; i++)
        task->segments[i] = (uint16_t)tss_read(cpu, task, l->segments + i * l->width, 2);
    task->ldt = (uint16_t)tss_read(cpu, task, l->ldt, 2);
    if (l->width == 4) {
        task->cr3 = tss_read(cpu, task, TSS_CR3, 4);
        task->debug_trap = tss_read(cpu, task, TSS_DEBUG_TRAP, 2) & 1;
    }
}

static bool changes_cr3(const struct x86_cpu *cpu, const struct task *task)
{
    return (cpu->s.cr0 & X86_CR0_PG) && task->layout->width == 4;
}

static void read_pdptes(struct x86_cpu *cpu, struct task *task)
{
    if (changes_cr3(cpu, task) && (cpu->s.cr4 & X86_CR4_PAE) &&
        !x86_load_pdptes(cpu->walk_memory, task->cr3, cpu->model->physical_bits, task->pdpte))
        x86_raise_code(cpu, X86_GP, 0);
}

/* Byte of the current TSS' descriptor that has the busy bit. */
static uint64_t old_busy_byte(const struct x86_cpu *cpu)
{
    return cpu->s.gdtr.base + (cpu->s.tr.selector & 0xfff8u) + 5;
}

static void probe(struct x86_cpu *cpu, uint64_t linear, unsigned size_bytes)
{
    cpu->ops->probe_write(cpu, (uint32_t)linear, size_bytes,
                          X86_ACCESS_WRITE | X86_ACCESS_SUPERVISOR);
}

/* Everything that commit() will write. */
static void probe_writes(struct x86_cpu *cpu, enum x86_task_cause cause, const struct task *task)
{
    const struct x86_segment *tr = &cpu->s.tr;
    const struct tss_layout *old = layout_of(tr->attributes);

    if (!(tr->attributes & X86_SEG_P) || tr->limit < old->min_limit)
        fault(cpu, task, X86_TS, tr->selector);
    probe(cpu, tr->base + old->ip, old->ldt - old->ip);
    if (cause == X86_TASK_JUMP || cause == X86_TASK_IRET)
        probe(cpu, old_busy_byte(cpu), 1);
    else
        probe(cpu, task->base, 2);
    if (cause != X86_TASK_IRET)
        probe(cpu, task->descriptor.linear + 5, 1);
}

/* ---- the commit point ---- */

static uint64_t flags_to_save(const struct x86_cpu *cpu, enum x86_task_cause cause)
{
    if (cause == X86_TASK_EVENT)
        return x86_event_flags(cpu, &cpu->first);
    return cpu->s.rflags & ~(uint64_t)(cause == X86_TASK_IRET ? X86_FLAG_NT : 0);
}

static void save_old_task(struct x86_cpu *cpu, uint64_t next_rip, uint64_t flags)
{
    const struct x86_state *s = &cpu->s;
    const struct tss_layout *l = layout_of(s->tr.attributes);
    const uint32_t mask = l->width == 4 ? 0xffffffffu : 0xffffu;

    x86_write_system(cpu, s->tr.base + l->ip, next_rip & mask, l->width);
    x86_write_system(cpu, s->tr.base + l->flags, flags & mask, l->width);
    for (unsigned i = 0; i < GPR_COUNT; i++)
        x86_write_system(cpu, s->tr.base + l->gpr + i * l->width, s->gpr[i] & mask, l->width);
    for (unsigned i = 0; i < l->segment_count; i++)
        x86_write_system(cpu, s->tr.base + l->segments + i * l->width, s->seg[i].selector, 2);
}

/* Busy bits, the old task's state and the back link, in memory. */
static void write_tables(struct x86_cpu *cpu, enum x86_task_cause cause, struct task *task,
                         uint64_t next_rip)
{
    uint64_t busy = old_busy_byte(cpu);

    save_old_task(cpu, next_rip, flags_to_save(cpu, cause));
    if (cause == X86_TASK_JUMP || cause == X86_TASK_IRET) {
        x86_write_system(cpu, busy, x86_read_system(cpu, busy, 1) & ~(uint64_t)X86_TSS_BUSY, 1);
    } else {
        x86_write_system(cpu, task->base, cpu->s.tr.selector, 2);
        task->flags |= X86_FLAG_NT;
    }
    if (cause != X86_TASK_IRET)
        x86_set_bits_system(cpu, task->descriptor.linear + 5, X86_TSS_BUSY);
}

static void load_registers(struct x86_cpu *cpu, const struct task *task)
{
    struct x86_state *s = &cpu->s;

    s->tr = (struct x86_segment){
        .base = task->base,
        .limit = x86_descriptor_limit(&task->descriptor),
        .selector = task->selector,
        .attributes = x86_descriptor_attributes(&task->descriptor) | X86_TSS_BUSY,
    };
    s->cr0 |= X86_CR0_TS;
    s->dr7 &= ~DR7_LOCAL;
    if (changes_cr3(cpu, task)) {
        s->cr3 = task->cr3;
        if (s->cr4 & X86_CR4_PAE)
            for (unsigned i = 0; i < 4; i++)
                s->pdpte[i] = task->pdpte[i];
    }
    s->rip = task->ip;
    s->rflags = (task->flags & TASK_FLAGS) | X86_FLAG_FIXED;
    for (unsigned i = 0; i < GPR_COUNT; i++)
        s->gpr[i] = task->gpr[i];
    s->ldtr = x86_null_segment(task->ldt, 0);
    cpu->cpl = s->rflags & X86_FLAG_VM ? 3 : (uint8_t)x86_rpl(task->segments[X86_CS]);
    for (unsigned i = 0; i < X86_SEGMENT_COUNT; i++)
        s->seg[i] = x86_null_segment(task->segments[i], cpu->cpl);
    cpu->ops->changed(cpu, (changes_cr3(cpu, task) ? X86_CHANGED_CR3 : 0) | X86_CHANGED_CODE |
                               X86_CHANGED_SEGMENTS | X86_CHANGED_FLAGS | X86_CHANGED_DEBUG |
                               X86_CHANGED_FPU);
}

/* ---- in the new task ---- */

static void load_ldt(struct x86_cpu *cpu, const struct task *task)
{
    struct x86_descriptor d;

    if (task->ldt & 4)
        fault(cpu, task, X86_TS, task->ldt);
    if (x86_selector_is_null(task->ldt))
        return;
    x86_descriptor_get(cpu, task->ldt, X86_TS, task->ext, &d);
    if (x86_descriptor_system_type(&d) != X86_TYPE_LDT || !x86_descriptor_present(&d))
        fault(cpu, task, X86_TS, task->ldt);
    cpu->s.ldtr = (struct x86_segment){
        .base = x86_descriptor_base(&d),
        .limit = x86_descriptor_limit(&d),
        .selector = task->ldt,
        .attributes = x86_descriptor_attributes(&d),
    };
}

static void set_segment(struct x86_cpu *cpu, enum x86_segment_index seg, uint16_t selector,
                        const struct x86_descriptor *d)
{
    x86_descriptor_touch(cpu, d);
    cpu->s.seg[seg] = x86_segment_from(selector, d);
    cpu->ops->changed(cpu, seg == X86_CS ? X86_CHANGED_CODE : X86_CHANGED_SEGMENTS);
}

static void load_cs(struct x86_cpu *cpu, const struct task *task)
{
    uint16_t selector = task->segments[X86_CS], attributes;
    struct x86_descriptor d;
    unsigned dpl;

    if (x86_selector_is_null(selector))
        fault(cpu, task, X86_TS, selector);
    x86_descriptor_get(cpu, selector, X86_TS, task->ext, &d);
    attributes = x86_descriptor_attributes(&d);
    dpl = x86_descriptor_dpl(&d);
    if (!x86_is_code(attributes) ||
        (x86_is_conforming(attributes) ? dpl > cpu->cpl : dpl != cpu->cpl))
        fault(cpu, task, X86_TS, selector);
    if (!x86_descriptor_present(&d))
        fault(cpu, task, X86_NP, selector);
    set_segment(cpu, X86_CS, selector, &d);
}

static void load_ss(struct x86_cpu *cpu, const struct task *task)
{
    uint16_t selector = task->segments[X86_SS];
    struct x86_descriptor d;

    if (x86_selector_is_null(selector))
        fault(cpu, task, X86_TS, selector);
    x86_check_ss(cpu, selector, cpu->cpl, X86_TS, task->ext, &d);
    set_segment(cpu, X86_SS, selector, &d);
}

static void load_data(struct x86_cpu *cpu, const struct task *task, enum x86_segment_index seg)
{
    uint16_t selector = task->segments[seg], attributes;
    struct x86_descriptor d;
    unsigned dpl;

    if (x86_selector_is_null(selector)) {
        cpu->s.seg[seg] = x86_null_segment(selector, 0);
        return;
    }
    x86_descriptor_get(cpu, selector, X86_TS, task->ext, &d);
    attributes = x86_descriptor_attributes(&d);
    dpl = x86_descriptor_dpl(&d);
    if (!x86_is_readable(attributes) ||
        (!x86_is_conforming(attributes) && (x86_rpl(selector) > dpl || cpu->cpl > dpl)))
        fault(cpu, task, X86_TS, selector);
    if (!x86_descriptor_present(&d))
        fault(cpu, task, X86_NP, selector);
    set_segment(cpu, seg, selector, &d);
}

static void load_v86_segments(struct x86_cpu *cpu, const struct task *task)
{
    for (unsigned i = 0; i < X86_SEGMENT_COUNT; i++)
        cpu->s.seg[i] = x86_v86_segment(task->segments[i]);
    cpu->ops->changed(cpu, X86_CHANGED_CODE | X86_CHANGED_SEGMENTS);
}

static void load_segments(struct x86_cpu *cpu, const struct task *task)
{
    static const uint8_t data[] = {X86_ES, X86_DS, X86_FS, X86_GS};

    load_ldt(cpu, task);
    if (x86_in_v86_mode(cpu)) {
        load_v86_segments(cpu, task);
        return;
    }
    load_cs(cpu, task);
    load_ss(cpu, task);
    for (unsigned i = 0; i < sizeof(data); i++)
        load_data(cpu, task, (enum x86_segment_index)data[i]);
}

static void push_error_code(struct x86_cpu *cpu, const struct task *task, uint32_t error_code)
{
    struct x86_stack stack;

    x86_stack_current(cpu, task->ext, &stack);
    x86_stack_push(cpu, &stack, error_code, task->layout->width);
    x86_stack_commit(cpu, &stack);
}

void x86_task_switch(struct x86_cpu *cpu, uint16_t tss_selector, enum x86_task_cause cause,
                     uint64_t next_rip, const uint32_t *event_error)
{
    struct task task = {
        .selector = tss_selector,
        .ext = cause == X86_TASK_EVENT ? x86_event_ext(&cpu->first) : 0,
    };
    const struct x86_segment *cs = &cpu->s.seg[X86_CS];

    check_tss(cpu, cause, &task);
    read_tss(cpu, &task);
    read_pdptes(cpu, &task);
    probe_writes(cpu, cause, &task);
    write_tables(cpu, cause, &task, next_rip);
    load_registers(cpu, &task);
    load_segments(cpu, &task);
    if (event_error)
        push_error_code(cpu, &task, *event_error);
    x86_check_target(cpu, cs->attributes, cs->limit, cpu->s.rip, task.ext);
    if (task.debug_trap)
        cpu->s.pending.debug_traps |= X86_DR6_BT;
    if (x86_in_v86_mode(cpu))
        x86_check_virtual_interrupt(cpu);
}
