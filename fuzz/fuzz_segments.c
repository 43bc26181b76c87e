/*
 * fuzz_segments.c - segments, far transfers and events with hostile tables
 *
 * Input: struct input, then patches of the guest's memory, which holds sane tables at
 * first. One operation is run, and what it raises is delivered as an engine would. Checked:
 * - delivery ends, at the latest in shutdown;
 * - a fault leaves the registers alone, unless a task switch was under way;
 * - CPL agrees with SS, and CS is a present code segment outside real and V86 mode.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "x86/features.h"
#include "x86/paging.h"
#include "x86/segments.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MEMORY_BYTES 0x1000u
#define PAGE_SHIFT   8 /* of what can be absent */
#define GDT          0x000u
#define IDT          0x200u
#define LDT          0x600u
#define TSS          0x700u
#define TSS_B        0x800u
#define TSS16        0x900u
#define STACK        0xb00u

enum mode { REAL, V86, PROTECTED, COMPATIBILITY, LONG, MODE_COUNT };

struct input {
    uint8_t mode, cpl, operation, operand_size;
    uint16_t selector, pop_bytes, port;
    uint16_t gdt_limit, idt_limit, tss_limit; /* less than all by this */
    uint16_t ldtr_selector, absent_pages;
    uint8_t tss_type, event_kind, vector, has_error_code;
    uint8_t cr4, cs_attributes, paging, segment;
    uint32_t flags, ss_limit; /* inverted */
    uint64_t rsp, offset, star, lstar, sysenter_cs, rcx, rdx;
};

static struct x86_cpu cpu;
static struct cpu_model model;
static struct input in;
static jmp_buf unwind;
static uint8_t memory[MEMORY_BYTES];

/* ---- the engine ---- */

static void check(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "%s\n", what);
    abort();
}

/* All of the linear address space shows the same memory, but for absent pages. */
static uint8_t *byte_at(uint64_t linear, unsigned access)
{
    unsigned offset = linear & (MEMORY_BYTES - 1);

    if (in.absent_pages >> (offset >> 12) & 1) {
        cpu.s.cr2 = linear;
        x86_raise_code(&cpu, X86_PF, (access & 1) << 1 | (cpu.cpl == 3) << 2);
    }
    return &memory[offset];
}

static void check_linear(uint64_t linear, unsigned size)
{
    check(x86_in_long_mode(&cpu) ? x86_is_canonical(linear) : linear <= 0xffffffffu,
          "linear address");
    check(size == 1 || size == 2 || size == 4 || size == 8, "access size");
}

static uint64_t do_read(struct x86_cpu *c, uint64_t linear, unsigned size, unsigned access)
{
    uint64_t value = 0;

    check_linear(linear, size);
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)*byte_at(linear + i, access) << 8 * i;
    return value;
}

static void do_probe(struct x86_cpu *c, uint64_t linear, unsigned size, unsigned access)
{
    for (unsigned i = 0; i < size; i++)
        byte_at(linear + i, access);
}

static void do_write(struct x86_cpu *c, uint64_t linear, uint64_t value, unsigned size,
                     unsigned access)
{
    check_linear(linear, size);
    check(size == 8 || value >> 8 * size == 0, "value wider than the access");
    do_probe(c, linear, size, access);
    for (unsigned i = 0; i < size; i++)
        *byte_at(linear + i, access) = (uint8_t)(value >> 8 * i);
}

static void do_raise(struct x86_cpu *c) __attribute__((__noreturn__));
static void do_raise(struct x86_cpu *c)
{
    longjmp(unwind, 1);
}

static void do_changed(struct x86_cpu *c, unsigned what)
{
    unsigned cpl = c->cpl;

    x86_refresh_cpl(c);
    check(c->cpl == cpl, "CPL does not agree with SS");
}

static const struct x86_cpu_ops ops = {
    .read = do_read,
    .write = do_write,
    .probe_write = do_probe,
    .raise = do_raise,
    .changed = do_changed,
};

static void *entry(void *opaque, uint64_t gpa)
{
    return gpa + 8 <= MEMORY_BYTES ? &memory[gpa & ~7ull] : NULL;
}
static const struct x86_walk_memory walk_memory = {.entry = entry};

/* ---- set-up ---- */

static struct x86_segment segment(uint16_t selector, unsigned attributes, uint32_t limit)
{
    return (struct x86_segment){
        .selector = selector, .attributes = (uint16_t)attributes, .limit = limit};
}

static void setup_segments(enum mode mode, unsigned cpl)
{
    unsigned flat = 0xc093 | cpl << 5;

    for (unsigned i = 0; i < X86_SEGMENT_COUNT; i++) {
        if (mode == REAL || mode == V86)
            cpu.s.seg[i] = segment(in.selector, mode == V86 ? 0xf3 : 0x93, 0xffff);
        else
            cpu.s.seg[i] = segment((uint16_t)(0x30 + 9 * cpl), flat, 0xffffffff);
    }
    if (mode == REAL || mode == V86)
        return;
    cpu.s.seg[X86_CS] = segment((uint16_t)((mode == LONG ? 0x50 : 0x10) + 9 * cpl),
                                mode == LONG ? 0xa09b | cpl << 5 : flat | 0x1b, 0xffffffff);
    cpu.s.seg[X86_SS].limit = ~in.ss_limit;
    if (in.cs_attributes & 1)
        cpu.s.seg[X86_SS].attributes &= ~X86_SEG_DB;
    if (in.cs_attributes & 2)
        cpu.s.seg[X86_SS].attributes |= X86_SEG_DOWN;
}

static void setup_msrs(enum mode mode)
{
    struct x86_msrs *msr = &cpu.s.msr;

    if (mode == COMPATIBILITY || mode == LONG)
        msr->efer = X86_EFER_LMA | X86_EFER_LME | X86_EFER_SCE;
    msr->star = in.star;
    msr->lstar = x86_is_canonical(in.lstar) ? in.lstar : 0;
    msr->sysenter_cs = in.sysenter_cs;
    msr->sfmask = in.star;
}

static void setup(void)
{
    enum mode mode = (enum mode)(in.mode % MODE_COUNT);
    unsigned cpl = mode == V86 ? 3 : mode == REAL ? 0 : in.cpl & 3;

    memset(&cpu, 0, sizeof(cpu));
    model.physical_bits = 40;
    cpu.ops = &ops;
    cpu.model = &model;
    cpu.walk_memory = &walk_memory;
    cpu.s.cr0 = mode == REAL ? 0 : X86_CR0_PE | (in.paging & 1 ? X86_CR0_PG : 0);
    cpu.s.cr4 = (in.cr4 & (X86_CR4_VME | X86_CR4_PVI)) | (in.paging & 2 ? X86_CR4_PAE : 0);
    cpu.s.rflags = (in.flags & 0x3d7fd5) | X86_FLAG_FIXED | (mode == V86 ? X86_FLAG_VM : 0);
    cpu.s.rip = 0x1234;
    cpu.s.gpr[X86_RSP] = STACK + (mode == LONG ? in.rsp : in.rsp & 0xffff);
    cpu.s.gpr[X86_RCX] = in.rcx;
    cpu.s.gpr[X86_RDX] = in.rdx;
    cpu.s.gdtr = (struct x86_table){GDT, 0x1ff - in.gdt_limit % 0x200};
    cpu.s.idtr = (struct x86_table){mode == REAL ? 0 : IDT, 0x3ff - in.idt_limit % 0x400};
    cpu.s.ldtr = segment(in.ldtr_selector, in.ldtr_selector & 0xfffc ? 0x82 : 0, 0xff);
    cpu.s.ldtr.base = LDT;
    cpu.s.tr = segment(0x70, in.tss_type & 1 ? 0x83 : 0x8b, 0xff - in.tss_limit % 0x100);
    cpu.s.tr.base = TSS;
    setup_msrs(mode);
    setup_segments(mode, cpl);
    x86_refresh_cpl(&cpu);
}

/* ---- operations ---- */

static unsigned operand_size(void)
{
    static const uint8_t sizes[] = {2, 4, 8};

    return sizes[in.operand_size % (x86_in_64bit_mode(&cpu) ? 3 : 2)];
}

static void op_load(void)
{
    static const uint8_t segs[] = {X86_ES, X86_SS, X86_DS, X86_FS, X86_GS};

    x86_load_segment(&cpu, (enum x86_segment_index)segs[in.segment % sizeof(segs)], in.selector);
}
static void op_jump(void)
{
    x86_far_jump(&cpu, in.selector, in.offset, operand_size(), 0x1238);
}
static void op_call(void)
{
    x86_far_call(&cpu, in.selector, in.offset, operand_size(), 0x1238);
}
static void op_return(void)
{
    x86_far_return(&cpu, operand_size(), in.pop_bytes);
}
static void op_iret(void)
{
    x86_iret(&cpu, operand_size(), 0x1238);
}
static void op_syscall(void)
{
    x86_syscall(&cpu, 0x1238);
}
static void op_sysret(void)
{
    x86_sysret(&cpu, in.operand_size & 1 ? 8 : 4);
}
static void op_sysenter(void)
{
    x86_sysenter(&cpu);
}
static void op_sysexit(void)
{
    x86_sysexit(&cpu, x86_in_64bit_mode(&cpu) && (in.operand_size & 1) ? 8 : 4);
}
static void op_lldt(void)
{
    x86_lldt(&cpu, in.selector);
}
static void op_ltr(void)
{
    x86_ltr(&cpu, in.selector);
}
static void op_ask(void)
{
    uint32_t value;

    x86_lar(&cpu, in.selector, &value);
    x86_lsl(&cpu, in.selector, &value);
    x86_verify(&cpu, in.selector, in.segment & 1);
}
static void op_port(void)
{
    x86_check_port(&cpu, in.port, 1u << in.operand_size % 3);
}
static void op_event(void)
{
    struct x86_event event = {
        .vector = in.vector,
        .kind = (enum x86_event_kind)(in.event_kind % (X86_EVENT_INT1 + 1)),
        .has_error_code = in.has_error_code & 1,
        .error_code = in.port,
        .return_rip = in.has_error_code & 2 ? 0x1234 : 0x1238,
    };

    x86_deliver(&cpu, &event);
}

static void (*const operations[])(void) = {
    op_load,     op_jump,    op_call, op_return, op_iret, op_syscall, op_sysret,
    op_sysenter, op_sysexit, op_lldt, op_ltr,    op_ask,  op_port,    op_event,
};

/* ---- checks ---- */

static void check_state(void)
{
    const struct x86_segment *cs = &cpu.s.seg[X86_CS];

    do_changed(&cpu, 0);
    check(cpu.s.rflags & X86_FLAG_FIXED, "RFLAGS bit 1");
    check(!(cpu.s.rflags & ~0x3f7fd7ull), "reserved bits of RFLAGS");
    check(x86_in_64bit_mode(&cpu) ? x86_is_canonical(cpu.s.rip) : cpu.s.rip <= 0xffffffffu, "RIP");
    if (!x86_in_protected_mode(&cpu) || x86_in_v86_mode(&cpu) || cpu.s.activity == X86_SHUTDOWN)
        return;
    check((cs->attributes & (X86_SEG_P | X86_SEG_S | X86_SEG_CODE)) ==
              (X86_SEG_P | X86_SEG_S | X86_SEG_CODE),
          "CS is no code segment");
}

/* Registers that a fault leaves alone. */
static void check_unchanged(const struct x86_state *before)
{
    struct x86_state now = cpu.s;

    now.cr2 = before->cr2;
    now.pending.nmi_blocked = before->pending.nmi_blocked;
    check(memcmp(&now, before, sizeof(now)) == 0, "registers changed by a fault");
}

static bool task_switched(const struct x86_state *before)
{
    return cpu.s.tr.selector != before->tr.selector || cpu.s.cr0 != before->cr0;
}

/* IRET to V86 mode with VIF and VIP faults at the new instruction. */
static bool entered_v86(const struct x86_state *before)
{
    return (cpu.s.rflags & ~before->rflags) & X86_FLAG_VM;
}

static void run(void)
{
    static struct x86_state before;
    static unsigned rounds;

    rounds = 0;
    before = cpu.s;
    if (setjmp(unwind) == 0) {
        operations[in.operation % (sizeof(operations) / sizeof(operations[0]))]();
    } else {
        if (!task_switched(&before) && !entered_v86(&before))
            check_unchanged(&before);
        check(++rounds < 8, "delivery does not end");
        before = cpu.s;
        x86_deliver(&cpu, &cpu.event);
    }
    check(!cpu.delivering, "delivering");
    check_state();
}

/* ---- memory ---- */

static void put(uint32_t offset, uint64_t value, unsigned size)
{
    memcpy(&memory[offset], &value, size);
}

static uint64_t gate(uint16_t selector, uint32_t offset, unsigned attributes)
{
    return (offset & 0xffffu) | (uint64_t)selector << 16 | (uint64_t)attributes << 40 |
           (uint64_t)(offset >> 16) << 48;
}

static uint64_t table_segment(uint32_t base, unsigned type)
{
    return 0xffu | (uint64_t)base << 16 | (uint64_t)(0x80 | type) << 40;
}

/* Flat code, data and 64-bit code of each level at 0x10, 0x30, 0x50; then TSSs, LDT, gates. */
static void fill_gdt(bool wide)
{
    for (unsigned dpl = 0; dpl < 4; dpl++) {
        put(GDT + 0x10 + 8 * dpl, 0x00cf9a000000ffffull | (uint64_t)dpl << 45, 8);
        put(GDT + 0x30 + 8 * dpl, 0x00cf92000000ffffull | (uint64_t)dpl << 45, 8);
        put(GDT + 0x50 + 8 * dpl, 0x00af9a000000ffffull | (uint64_t)dpl << 45, 8);
        put(GDT + 0x100 + 16 * dpl, gate((uint16_t)((wide ? 0x50 : 0x10) + 8 * dpl), 0x1234, 0xec),
            8);
    }
    put(GDT + 0x70, table_segment(TSS, 11), 8);
    put(GDT + 0x80, table_segment(LDT, 2), 8);
    put(GDT + 0x90, table_segment(TSS_B, 9) | 3ull << 45, 8);
    put(GDT + 0xa0, table_segment(TSS16, 1) | 3ull << 45, 8);
    put(GDT + 0xb0, gate(0x90, 0, 0xe5), 8);
    put(GDT + 0x140, 0x00cf9e000000ffffull, 8); /* conforming */
    put(GDT + 0x148, 0x0000f2000000ffffull, 8); /* 16-bit stack */
}

static void fill_idt(bool wide)
{
    for (unsigned i = 0; i < 0x40; i++)
        if (wide)
            put(IDT + 16 * i, gate((uint16_t)(0x50 + i % 4 * 8), 0x1000 + i, i & 4 ? 0xef : 0x8e),
                8);
        else
            put(IDT + 8 * i, gate((uint16_t)(0x10 + i % 4 * 8), 0x1000 + i, i & 4 ? 0xef : 0x8e),
                8);
    if (!wide)
        put(IDT + 8 * 0x30, gate(0x90, 0, 0xe5), 8);
}

static void fill_tss(bool wide)
{
    for (unsigned i = 0; i < 3; i++)
        put(TSS + 4 + 8 * i, STACK | (wide ? 0 : (uint64_t)(0x30 + 9 * i) << 32), 8);
    for (unsigned i = 0; wide && i < 8; i++)
        put(TSS + 0x24 + 8 * i, STACK, 8);
    put(TSS, 0x90, 2);
    put(TSS + 102, 0x88, 2);
    put(TSS_B + 0x38, STACK, 4);
    put(TSS16 + 0x1a, STACK, 2);
    for (unsigned i = 0; i < X86_SEGMENT_COUNT; i++)
        put(TSS_B + 0x48 + 4 * i, i == X86_CS ? 0x10 : 0x30, 2);
    for (unsigned i = 0; i < 4; i++)
        put(TSS16 + 0x22 + 2 * i, i == X86_CS ? 0x10 : 0x30, 2);
}

/* A return frame in words of the operand size: IP, CS, FLAGS, SP, SS, ES, DS, FS, GS. */
static void fill_stack(unsigned size)
{
    const unsigned level = in.segment & 3;
    const uint64_t frame[] = {0x1234, 0x10 + 9 * level, in.flags, STACK, 0x30 + 9 * level, 1, 2, 3,
                              4};

    for (unsigned i = 0; i < 9; i++)
        put(STACK + size * i, frame[i], size);
}

/* Sane tables, then patches: an offset and what to exclusive-or there, 10 bytes each. */
static void fill_memory(const uint8_t *data, size_t size)
{
    bool wide = x86_in_long_mode(&cpu);
    uint16_t offset;

    memset(memory, 0, sizeof(memory));
    fill_gdt(wide);
    fill_idt(wide);
    fill_tss(wide);
    fill_stack(operand_size());
    for (; size >= 10; data += 10, size -= 10) {
        memcpy(&offset, data, 2);
        for (unsigned i = 0; i < 8; i++)
            memory[(offset + i) % MEMORY_BYTES] ^= data[2 + i];
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < sizeof(in))
        return -1;
    memcpy(&in, data, sizeof(in));
    setup();
    fill_memory(data + sizeof(in), size - sizeof(in));
    run();
    return 0;
}
