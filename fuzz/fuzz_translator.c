/*
 * fuzz_translator.c - user code of 64 and 32 bits, translated, against the interpreter
 *
 * Input: as for fuzz_interpreter, whose header chooses mode, flags and registers. The
 * interpreter runs the code first; if that comes to an end within its budget, the translator must
 * come to the same one: registers, memory, and the exception if there was one. Then the
 * translator runs it again, with what it has translated. Not compared: the status
 * flags at a fault, which may not be kept (docs/design/translator.md), and code that
 * executes an instruction after which flags are undefined (tests/differential looks at those)
 * or one that overwrites itself: when a repeated one notices that is the processor's choice.
 *
 * The first exception ends a run, at the HLT that is its handler; code that comes to its end
 * ends at INT 30h. RDTSC and SYSCALL are off: time differs, and kernel code may read it.
 */
#include <Zydis/Zydis.h>

#include "guest_fuzz.h"
#include "x86/decode.h"

#define BUDGET     400u
#define END_VECTOR 0x30u
#define LAST_PAGE  0x3fu
#define END        (HANDLERS + 3 * 32 * 16) /* handlers, 16 bytes a vector */

static struct guest interpreted, translated;

static void build_end(void)
{
    for (unsigned v = 0; v < 64; v++) {
        put(IDT32 + 8 * v, (END + 16 * v) | (uint64_t)CODE32 << 16 | 0xee00ull << 32, 8);
        put(IDT64 + 16 * v, (END + 16 * v) | (uint64_t)CODE64 << 16 | 0xee00ull << 32, 8);
        put(END + 16 * v, 0xf4, 1);
    }
}

/* Repeated string instructions end soon, at memory that is not there. */
static void build_borders(void)
{
    put(TABLES + 0x2000 + 16, 0, 8); /* the page directory */
    put(TABLES + 0x4000 + 4, 0, 4);
    for (unsigned n = LAST_PAGE + 1; n < PAGES; n++) {
        put(TABLES + 0x3000 + 8 * n, 0, 8);
        put(TABLES + 0x5000 + 4 * n, 0, 4);
    }
}

static enum x86_code_size code_size(const struct x86_state *s)
{
    uint16_t attributes = s->seg[X86_CS].attributes;

    return (s->msr.efer & X86_EFER_LMA) && (attributes & X86_SEG_L) ? X86_CODE_64
           : attributes & X86_SEG_DB                                ? X86_CODE_32
                                                                    : X86_CODE_16;
}

/* In the frame of the exception: where RIP and RFLAGS are. */
static unsigned frame_rip(const struct x86_state *s)
{
    return STACK0 - (s->msr.efer & X86_EFER_LMA ? 40 : 20);
}
static unsigned frame_flags(const struct x86_state *s)
{
    return STACK0 - (s->msr.efer & X86_EFER_LMA ? 24 : 12);
}

static void read_code(uint64_t rip, uint8_t bytes[X86_MAX_INSN_BYTES])
{
    uint64_t gpa;

    memset(bytes, 0, X86_MAX_INSN_BYTES);
    for (unsigned i = 0; i < X86_MAX_INSN_BYTES; i++)
        if (interpreted.engine->translate(interpreted.vcpu, rip + i, &gpa) && gpa < RAM_BYTES)
            bytes[i] = interpreted.ram[gpa];
}

/* Are all status flags defined behind it? */
static bool keeps_to_manual(const struct x86_state *s, const uint8_t bytes[X86_MAX_INSN_BYTES])
{
    struct insn insn;

    return x86_decode(code_size(s), false, bytes, X86_MAX_INSN_BYTES, &insn) != DECODE_OK ||
           !insn.info.cpu_flags || !(insn.info.cpu_flags->undefined & X86_FLAGS_STATUS);
}

/* One instruction. False: another processor may do it in another way. */
static bool interpret_one(struct vcpu_exit *exit)
{
    const struct engine_ops *engine = interpreted.engine;
    uint8_t before[X86_MAX_INSN_BYTES], after[X86_MAX_INSN_BYTES];
    uint64_t rip;

    engine->get_state(interpreted.vcpu);
    rip = interpreted.vcpu->state.rip;
    read_code(rip, before);
    if (!keeps_to_manual(&interpreted.vcpu->state, before))
        return false;
    engine->run(interpreted.vcpu, 1, exit);
    read_code(rip, after);
    return memcmp(before, after, sizeof(before)) == 0;
}

static bool interpret(const struct x86_state *start)
{
    struct vcpu_exit exit = {.reason = EXIT_BUDGET};

    guest_load(&interpreted, start);
    for (unsigned n = 0; n < BUDGET && exit.reason == EXIT_BUDGET; n++)
        if (!interpret_one(&exit))
            return false;
    return exit.reason == EXIT_HALT;
}

static bool translate(const struct x86_state *start)
{
    struct vcpu_exit exit = {.reason = EXIT_BUDGET};

    guest_load(&translated, start);
    while (exit.reason == EXIT_BUDGET)
        translated.engine->run(translated.vcpu, UINT64_MAX, &exit);
    return exit.reason == EXIT_HALT;
}

static void fetch(struct guest *g, struct x86_state *out)
{
    guest_fetch(g, out);
    guest_check_dirty(g);
    out->instructions = 0;
}

/* What the two may differ in. */
static void hide_status_flags(struct x86_state *s, struct guest *g)
{
    if (s->rip == END + 16 * END_VECTOR + 1)
        return;
    s->rflags &= ~(uint64_t)X86_FLAGS_STATUS;
    g->ram[frame_flags(s)] &= (uint8_t)~X86_FLAGS_STATUS;
    g->ram[frame_flags(s) + 1] &= (uint8_t) ~(X86_FLAGS_STATUS >> 8);
}

static void difference(const char *what, size_t at, const uint8_t *a, const uint8_t *b)
{
    fprintf(stderr, "%s differs at 0x%zx: %02x interpreted, %02x translated\n", what, at, a[at],
            b[at]);
    abort();
}

static void compare(const struct x86_state *a, const struct x86_state *b)
{
    const uint8_t *x = (const uint8_t *)a, *y = (const uint8_t *)b;

    if (a->rip != b->rip)
        fprintf(stderr, "ended at 0x%llx and 0x%llx, from 0x%llx and 0x%llx\n",
                (unsigned long long)a->rip, (unsigned long long)b->rip,
                *(unsigned long long *)(interpreted.ram + frame_rip(a)),
                *(unsigned long long *)(translated.ram + frame_rip(b)));
    for (size_t i = 0; i < sizeof(*a); i++)
        if (x[i] != y[i])
            difference("state", i, x, y);
    for (unsigned page = 0; page < PAGES; page++) {
        uint32_t gpa = page * GUEST_PAGE_SIZE;

        if (!memcmp(interpreted.ram + gpa, translated.ram + gpa, GUEST_PAGE_SIZE))
            continue;
        for (uint32_t i = gpa; i < gpa + GUEST_PAGE_SIZE; i++)
            if (interpreted.ram[i] != translated.ram[i])
                difference("memory", i, interpreted.ram, translated.ram);
    }
}

static void start(void)
{
    guest_start(&interpreted, "interpreter", true);
    guest_start(&translated, "translator", false);
    build_tables();
    build_handlers();
    build_paging();
    build_borders();
    build_end();
}

static void build_start(struct x86_state *s, enum mode mode, struct fuzz_input *in)
{
    build_state(s, mode, interpreted.vcpu->model, in);
    s->cr4 |= X86_CR4_TSD;
    s->msr.efer &= ~(uint64_t)X86_EFER_SCE;
    s->msr.sysenter_cs = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    static struct x86_state state, expected, got;
    enum mode mode;

    if (!interpreted.machine)
        start();
    mode = (enum mode)(fuzz_take(&in, 1) % MODE_COUNT);
    if (mode != USER_32 && mode != COMPATIBILITY)
        mode = LONG3;
    put(GDT + TASK, 0x00008b0000000067ull | (uint64_t)(mode == USER_32 ? TSS32 : TSS64) << 16, 8);
    fuzz_take(&in, 1); /* when there is an NMI */
    build_start(&state, mode, &in);
    memset(pristine + CODE, 0x90, CODE_BYTES);
    memcpy(pristine + CODE, in.data, in.left < CODE_BYTES ? in.left : CODE_BYTES);
    put(CODE + CODE_BYTES, 0xcd | END_VECTOR << 8, 2);
    guest_restore(&interpreted);
    if (!interpret(&state))
        return 0;
    fetch(&interpreted, &expected);
    hide_status_flags(&expected, &interpreted);
    for (unsigned pass = 0; pass < 2; pass++) {
        guest_restore(&translated);
        FUZZ_CLAIM(translate(&state));
        fetch(&translated, &got);
        hide_status_flags(&got, &translated);
        compare(&expected, &got);
    }
    return 0;
}
