/*
 * guest.c - runs instances through an engine: CPL 3, long mode, paging as the native child's
 *
 * Guest-physical layout: page tables, descriptor tables and handlers below 64 KiB, then the
 * code and data pages. Every vector's handler is one HLT at HANDLERS + vector * 16, so
 * the RIP at the halt says which exception came, and the stack holds its frame.
 */
#include "instance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/loop.h"
#include "trapeze/engine.h"
#include "trapeze/machine.h"
#include "x86/bits.h"
#include "x86/features.h"

#define PML4      0x1000u
#define PDPT      0x2000u
#define PD        0x3000u
#define PT_LOW    0x4000u /* 0 - 2 MiB, supervisor */
#define PT_CODE   0x5000u
#define PT_DATA   0x6000u
#define GDT       0x7000u
#define IDT       0x8000u
#define TSS       0x9000u
#define HANDLERS  0xa000u
#define STACK_TOP 0xc000u
#define CODE_GPA  0x10000u
#define DATA_GPA  0x20000u
#define WARM_GPA  0x30000u
#define WARM_RIP  (CODE_BASE + 0x1a7000) /* which no operand comes near */

static struct loop *loop;
static struct machine *machine;
static struct vcpu *vcpu;
static const struct engine_ops *engine;
static uint8_t *ram;
static uint8_t code_pages[CODE_SIZE]; /* as they are before an instance */
static struct region ram_region;
static struct x86_state initial;

static void put64(uint32_t gpa, uint64_t value)
{
    memcpy(ram + gpa, &value, 8);
}

static void build_tables(void)
{
    put64(PML4, PDPT | 7);
    put64(PDPT, PD | 7);
    put64(PD, PT_LOW | 7);
    put64(PD + 8 * (CODE_BASE >> 21), PT_CODE | 7);
    put64(PD + 8 * (DATA_BASE >> 21), PT_DATA | 7);
    for (unsigned n = 0; n < 16; n++)
        put64(PT_LOW + 8 * n, n << 12 | 3);
    for (unsigned n = 0; n < CODE_SIZE >> 12; n++)
        put64(PT_CODE + 8 * n, (CODE_GPA + (n << 12)) | 7);
    for (unsigned n = 0; n < DATA_SIZE >> 12; n++)
        put64(PT_DATA + 8 * n, (DATA_GPA + (n << 12)) | 0x67 | 1ull << 63);
    put64(PT_CODE + 8 * ((WARM_RIP >> 12) % 512), WARM_GPA | 7);
    put64(GDT + 8, 0x00af9b000000ffff);    /* 08: code, ring 0 */
    put64(GDT + 16, 0x00cf93000000ffff);   /* 10: data, ring 0 */
    put64(GDT + 0x20, 0x00cffb000000ffff); /* 23: 32-bit code, ring 3 */
    put64(GDT + 0x28, 0x00cff3000000ffff); /* 2b: data, ring 3 */
    put64(GDT + 0x30, 0x00affb000000ffff); /* 33: code, ring 3 */
    for (unsigned v = 0; v < 32; v++) {
        uint64_t handler = HANDLERS + v * 16;

        /* DPL 3, so that INT3 and INTO come here and not to #GP */
        put64(IDT + 16 * v, (handler & 0xffff) | 8 << 16 | 0xee00ull << 32 | (handler >> 16) << 48);
        put64(IDT + 16 * v + 8, handler >> 32);
        ram[handler] = 0xf4;
    }
    put64(TSS + 4, STACK_TOP);
}

static void set_segment(struct x86_segment *s, uint16_t selector, uint16_t attributes)
{
    *s = (struct x86_segment){.selector = selector, .limit = 0xffffffff, .attributes = attributes};
}

static void set_segments_32(struct x86_state *s)
{
    set_segment(&s->seg[X86_CS], CS_32, 0xc0fb);
    set_segment(&s->seg[X86_DS], DS_32, 0xc0f3);
    set_segment(&s->seg[X86_ES], DS_32, 0xc0f3);
    if (!host_has_ldt)
        return;
    set_segment(&s->seg[X86_GS], GS_LDT, 0x40f3);
    s->seg[X86_GS].base = DATA_BASE;
    s->seg[X86_GS].limit = DATA_SIZE - 1;
}

static void build_state(struct x86_state *s)
{
    x86_state_reset(s, false);
    s->cr0 = X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_PG;
    s->cr3 = PML4;
    s->cr4 = X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE | X86_CR4_UMIP;
    s->msr.efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE | X86_EFER_SCE;
    s->xcr0 = vcpu->model->xcr0 & ~(uint64_t)X86_XCR0_PKRU;
    set_segment(&s->seg[X86_CS], 0x33, 0xa0fb);
    for (unsigned n = 0; n < X86_SEGMENT_COUNT; n++) /* null selectors, as Linux leaves them */
        if (n != X86_CS)
            set_segment(&s->seg[n], n == X86_SS ? 0x2b : 0, n == X86_SS ? 0xc0f3 : 0);
    if (code_size == X86_CODE_32)
        set_segments_32(s);
    s->gdtr = (struct x86_table){.base = GDT, .limit = 0x3f};
    s->idtr = (struct x86_table){.base = IDT, .limit = 32 * 16 - 1};
    set_segment(&s->tr, 0x18, 0x008b);
    s->tr.base = TSS;
    s->tr.limit = 0x67;
}

bool guest_start(const char *name)
{
    struct error err = {0};
    struct machine_config config = {.ram_bytes = 1 << 20, .vcpu_count = 1, .cpu_model = "max"};

    loop = loop_new(&err);
    engine = engine_find(name);
    config.engine = engine;
    config.loop = loop;
    machine = engine ? machine_new(&config, &err) : NULL;
    if (!machine) {
        fprintf(stderr, "differential: engine %s: %s\n", name,
                err.code ? err.text : "no such engine");
        return false;
    }
    ram = memory_ram_hva(machine_memory(machine));
    ram_region = (struct region){
        .name = "ram", .kind = REGION_RAM, .size_bytes = config.ram_bytes, .hva = ram};
    machine_lock(machine);
    if (memory_map(machine_memory(machine), &ram_region, &err)) {
        fprintf(stderr, "differential: %s\n", err.text);
        return false;
    }
    machine_unlock(machine);
    vcpu = machine_vcpu(machine, 0);
    build_tables();
    build_state(&initial);
    return true;
}

static void registers_to_state(const struct registers *r, struct x86_state *s)
{
    memcpy(s->gpr, r->gpr, sizeof(s->gpr));
    s->rip = r->rip;
    s->rflags = r->rflags | X86_FLAG_FIXED;
    s->fpu.mxcsr = r->mxcsr;
    s->fpu.fcw = r->fcw;
    s->fpu.fsw = r->fsw;
    s->fpu.ftw = r->ftw;
    memcpy(s->fpu.st, r->st, sizeof(s->fpu.st));
    memcpy(s->fpu.zmm, r->zmm, sizeof(s->fpu.zmm));
    memcpy(s->fpu.k, r->k, sizeof(s->fpu.k));
}

static void state_to_registers(const struct x86_state *s, struct registers *r)
{
    memcpy(r->gpr, s->gpr, sizeof(r->gpr));
    r->mxcsr = s->fpu.mxcsr;
    r->fcw = s->fpu.fcw;
    r->fsw = s->fpu.fsw;
    r->ftw = s->fpu.ftw;
    memcpy(r->st, s->fpu.st, sizeof(r->st));
    memcpy(r->zmm, s->fpu.zmm, sizeof(r->zmm));
    memcpy(r->k, s->fpu.k, sizeof(r->k));
}

/* Undo what the handler's entry changed: the frame on its stack holds the rest. */
static void read_frame(struct outcome *o, const struct x86_state *s)
{
    uint64_t frame[6];
    bool has_error;

    o->vector = (uint32_t)(s->rip - 1 - HANDLERS) / 16;
    has_error = o->vector == 8 || (o->vector >= 10 && o->vector <= 14) || o->vector == 17;
    memcpy(frame, ram + STACK_TOP - (has_error ? 48 : 40), sizeof(frame));
    o->error = has_error ? (uint32_t)frame[0] : 0;
    o->regs.rip = frame[has_error];
    o->regs.rflags = frame[2 + has_error];
    o->regs.gpr[X86_RSP] = frame[3 + has_error];
    o->cr2 = o->vector == 14 ? s->cr2 : 0;
}

/*
 * Code that writes to both data pages, outside the windows, and then jumps to the instance, without
 * changing registers or flags: so the engine's TLB knows the pages. Returns its RIP.
 */
static uint64_t put_warm_up(uint64_t rip)
{
    static const uint32_t offsets[] = {0, 0x1800};
    uint8_t *at = ram + WARM_GPA;
    uint32_t pointer = 0;

    for (unsigned n = 0; n < 2; n++) {
        uint32_t address = (uint32_t)DATA_BASE + offsets[n];

        memcpy(at, "\xc6\x04\x25", 3); /* mov byte [address], imm8 */
        memcpy(at + 3, &address, 4);
        at[7] = ram[DATA_GPA + offsets[n]]; /* what is there */
        at += 8;
    }
    if (code_size == X86_CODE_32)
        pointer = (uint32_t)(WARM_RIP + (uint64_t)(at - (ram + WARM_GPA)) + 6);
    memcpy(at, "\xff\x25", 2); /* jmp [rip], or jmp [pointer] */
    memcpy(at + 2, &pointer, 4);
    memcpy(at + 6, &rip, 8);
    return WARM_RIP;
}

/* What an instance has written over code, its own included, is not left to others. */
static void restore_code(struct instance *t, uint32_t code_gpa)
{
    t->wrote_itself = memcmp(ram + code_gpa, t->code, t->code_size) != 0;
    if (memcmp(ram + CODE_GPA, code_pages, CODE_SIZE) == 0)
        return;
    memcpy(ram + CODE_GPA, code_pages, CODE_SIZE);
    engine->memory_written(machine_engine_data(machine), CODE_GPA, CODE_SIZE);
}

void guest_run(struct instance *t)
{
    struct outcome *o = &t->guest;
    struct vcpu_exit exit = {0};
    uint32_t code_gpa = CODE_GPA + (uint32_t)(t->code_rip - CODE_BASE);

    memset(o, 0, sizeof(*o));
    memset(ram + DATA_GPA, 0, DATA_SIZE); /* an instance that differs leaves nothing to others */
    memcpy(ram + DATA_GPA + WINDOW_A, t->window_a, WINDOW_SIZE);
    memcpy(ram + DATA_GPA + WINDOW_B, t->window_b, WINDOW_SIZE);
    memcpy(ram + code_gpa, t->code, t->code_size);
    memcpy(code_pages + (t->code_rip - CODE_BASE), t->code, t->code_size);
    engine->memory_written(machine_engine_data(machine), code_gpa, t->code_size);
    vcpu->state = initial;
    registers_to_state(&t->before, &vcpu->state);
    if (t->seed & 1)
        vcpu->state.rip = put_warm_up(t->code_rip);
    engine->set_state(vcpu);
    engine->run(vcpu, UINT64_MAX, &exit);
    engine->get_state(vcpu);
    state_to_registers(&vcpu->state, &o->regs);
    if (exit.reason == EXIT_HALT)
        read_frame(o, &vcpu->state);
    else
        o->vector = 0x100u + exit.reason;
    memcpy(o->window_a, ram + DATA_GPA + WINDOW_A, WINDOW_SIZE);
    memcpy(o->window_b, ram + DATA_GPA + WINDOW_B, WINDOW_SIZE);
    restore_code(t, code_gpa);
}

void guest_stop(void)
{
    machine_free(machine);
    loop_free(loop);
}
