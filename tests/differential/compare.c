/*
 * compare.c - where the native and the guest's outcome of one instance differ
 */
#include "instance.h"

#include <stdio.h>
#include <string.h>

#include "x86/bits.h"

static const char *const gpr_names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                          "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
static unsigned differences;
static bool silent;

static void differ(const char *what, unsigned index, uint64_t native, uint64_t guest)
{
    differences++;
    if (!silent)
        printf("    %s%.0d: native %016lx guest %016lx\n", what, index, native, guest);
}

static void check(const char *what, unsigned index, uint64_t native, uint64_t guest)
{
    if (native != guest)
        differ(what, index, native, guest);
}

static void check_bytes(const char *what, unsigned index, const void *native, const void *guest,
                        size_t size)
{
    const uint8_t *a = native, *b = guest;

    for (size_t n = 0; n < size; n++)
        if (a[n] != b[n]) {
            uint64_t x = 0, y = 0;
            size_t at = n & ~(size_t)7, room = size - at < 8 ? size - at : 8;

            memcpy(&x, a + at, room);
            memcpy(&y, b + at, room);
            differ(what, index, x, y);
            if (!silent)
                printf("      (at byte %zu)\n", at);
            return;
        }
}

/* Elsewhere the child's own address space decides whether a page is present. */
static bool near_test_pages(uint64_t address)
{
    return address - (DATA_BASE - 0x10000) < 0x20000 || address - (CODE_BASE - 0x10000) < 0x20000;
}

/* Does any instruction of the instance satisfy the predicate? */
static bool has_insn(const struct instance *t, bool (*is)(ZydisMnemonic mnemonic))
{
    struct insn insn;

    for (size_t at = 0; at < t->code_size; at += insn.info.length) {
        if (x86_decode(code_size, false, t->code + at, t->code_size - at, &insn) != DECODE_OK)
            return false;
        if (is(insn.info.mnemonic))
            return true;
    }
    return false;
}

static bool is_mask_store(ZydisMnemonic m)
{
    return m == ZYDIS_MNEMONIC_MASKMOVDQU || m == ZYDIS_MNEMONIC_VMASKMOVDQU ||
           m == ZYDIS_MNEMONIC_MASKMOVQ;
}

static bool is_gather(ZydisMnemonic m)
{
    const char *name = ZydisMnemonicGetString(m);

    return strstr(name, "gather") != NULL;
}

static bool is_masked(ZydisMnemonic m)
{
    return ZydisMnemonicGetString(m)[0] == 'v';
}

static bool is_pop_all(ZydisMnemonic m)
{
    return m == ZYDIS_MNEMONIC_POPA || m == ZYDIS_MNEMONIC_POPAD;
}

static bool is_compare_string(ZydisMnemonic m)
{
    return m == ZYDIS_MNEMONIC_CMPSB || m == ZYDIS_MNEMONIC_CMPSW || m == ZYDIS_MNEMONIC_CMPSD ||
           m == ZYDIS_MNEMONIC_CMPSQ;
}

static bool ended_alike(const struct instance *t)
{
    return t->native.vector == t->guest.vector && t->native.regs.rip == t->guest.regs.rip;
}

/*
 * What the manuals leave to the processor, and this host does differently from us on purpose:
 * elements that a gather has finished when another one faults; whether bytes that a masked store
 * leaves out fault; which of two bad operands of CMPS faults; MXCSR bit 17, which one vendor has;
 * masked operands that are not in their segment as a whole (vector_memory.c); which fault an
 * operand raises that is misaligned and beyond its segment.
 */
static bool is_explained(const struct instance *t)
{
    if (t->native.regs.mxcsr & 0x20000)
        return true;
    if (code_size == X86_CODE_32 && t->native.vector == 13 && t->guest.vector == 12)
        return true;
    if (code_size == X86_CODE_32 && (t->guest.vector == 12 || t->guest.vector == 13) &&
        !ended_alike(t))
        return has_insn(t, is_masked) || has_insn(t, is_compare_string);
    return t->native.vector != 3 &&
           (has_insn(t, is_gather) || has_insn(t, is_mask_store) || has_insn(t, is_compare_string));
}

static bool is_moved_string(ZydisMnemonic m)
{
    return m == ZYDIS_MNEMONIC_MOVSB || m == ZYDIS_MNEMONIC_MOVSW || m == ZYDIS_MNEMONIC_MOVSD ||
           m == ZYDIS_MNEMONIC_MOVSQ || m == ZYDIS_MNEMONIC_STOSB || m == ZYDIS_MNEMONIC_STOSW ||
           m == ZYDIS_MNEMONIC_STOSD || m == ZYDIS_MNEMONIC_STOSQ;
}

/*
 * Where it ends is left to the processor: after how many elements a repeated instruction notices
 * that it overwrites itself, and whether a masked store faults for bytes that it leaves out.
 */
static bool is_open_end(const struct instance *t)
{
    return (t->wrote_itself && has_insn(t, is_moved_string)) ||
           (t->native.vector == 14 && !ended_alike(t) && has_insn(t, is_mask_store));
}

bool dead_flags_may_differ;

/*
 * Masked byte stores: processors report the first byte of the page, or of what is stored. Masked
 * elements behind a 16-bit address: this host wraps each at 64 KiB.
 */
static void check_cr2(const struct instance *t)
{
    if (code_size == X86_CODE_32 && (t->native.cr2 ^ t->guest.cr2) == 0x10000 &&
        has_insn(t, is_masked))
        return;
    if ((t->native.cr2 ^ t->guest.cr2) < 0x1000 && t->native.cr2 != t->guest.cr2 &&
        has_insn(t, is_mask_store))
        return;
    check("cr2", 0, t->native.cr2, t->guest.cr2);
}

/*
 * Flags that are overwritten before they are read, from the instruction that faulted on. The
 * translator does not keep them (docs/design/translator.md): only a fault's frame shows them.
 */
static uint64_t dead_flags(const struct instance *t)
{
    uint64_t used = 0, killed = 0;
    uint32_t at = (uint32_t)(t->native.regs.rip - t->code_rip);

    while (dead_flags_may_differ && t->native.vector != 3 && at < t->code_size) {
        struct insn insn;

        if (x86_decode(code_size, false, t->code + at, t->code_size - at, &insn) != DECODE_OK)
            break;
        if (insn.info.cpu_flags) {
            const ZydisAccessedFlags *f = insn.info.cpu_flags;

            used |= f->tested & ~killed;
            killed |= (f->modified | f->set_0 | f->set_1 | f->undefined) & ~used;
        }
        at += insn.info.length;
    }
    return killed & X86_FLAGS_STATUS;
}

/*
 * What 32-bit code leaves in the upper halves of its registers is open (SDM vol. 1, 3.4.1.1), and
 * so is what a POPA that faults has popped.
 */
static uint64_t gpr_mask(const struct instance *t, unsigned n)
{
    if (n != 4 && t->native.vector != 3 && has_insn(t, is_pop_all))
        return 0;
    return code_size == X86_CODE_32 && n < 8 ? 0xffffffff : ~0ull;
}

static void check_registers(const struct instance *t)
{
    const struct registers *a = &t->native.regs, *b = &t->guest.regs;
    uint64_t flags = X86_FLAGS_STATUS | X86_FLAG_DF | X86_FLAG_AC | X86_FLAG_ID;

    for (unsigned n = 0; n < 16; n++)
        if ((a->gpr[n] ^ b->gpr[n]) & gpr_mask(t, n))
            differ(gpr_names[n], 0, a->gpr[n], b->gpr[n]);
    check("rip", 0, a->rip, b->rip);
    flags &= ~(t->undefined_flags | dead_flags(t));
    check("rflags", 0, a->rflags & flags, b->rflags & flags);
    if (!is_explained(t))
        check("mxcsr", 0, a->mxcsr, b->mxcsr);
    check("fcw", 0, a->fcw, b->fcw);
    if (is_explained(t))
        return;
    check("fsw", 0, a->fsw, b->fsw);
    check("ftw", 0, a->ftw, b->ftw);
    for (unsigned n = 0; n < 8; n++) {
        check_bytes("st", n, a->st[n], b->st[n], 10);
        if (host_has_opmask)
            check("k", n, a->k[n], b->k[n]);
    }
    for (unsigned n = 0; n < (host_vector_bytes == 64 ? 32 : 16); n++)
        check_bytes("zmm", n, a->zmm[n], b->zmm[n], host_vector_bytes);
}

static void list_code(const struct instance *t)
{
    size_t at = 0;

    while (at < t->code_size) {
        char text[128];
        size_t length = x86_disassemble(code_size, t->code + at, t->code_size - at,
                                        t->code_rip + at, text, sizeof(text));

        if (!length)
            break;
        printf("    %lx:", t->code_rip + at);
        for (size_t n = 0; n < length; n++)
            printf(" %02x", t->code[at + n]);
        printf("  %s\n", text);
        at += length;
    }
}

bool compare_instance(const struct instance *t, bool quiet)
{
    const struct outcome *a = &t->native, *b = &t->guest;

    differences = 0;
    silent = true;
    if ((t->native.regs.mxcsr & 0x20000) || is_open_end(t) ||
        (t->native.vector != t->guest.vector && is_explained(t)) ||
        (code_size == X86_CODE_32 && t->guest.vector == 13 && !ended_alike(t) && is_explained(t)))
        return true;
    for (unsigned pass = 0; pass < 2; pass++) {
        check("vector", 0, a->vector, b->vector);
        if (a->vector == b->vector && !is_explained(t)) {
            if (a->vector != 3 && a->vector != 16 && a->vector != 19)
                check("error", 0, a->error | !near_test_pages(a->cr2),
                      b->error | !near_test_pages(a->cr2));
            check_cr2(t);
        }
        check_registers(t);
        check_bytes("memory a", 0, a->window_a, b->window_a, WINDOW_SIZE);
        check_bytes("memory b", 0, a->window_b, b->window_b, WINDOW_SIZE);
        if (differences == 0 || quiet || pass == 1)
            break;
        printf("  seed 0x%lx:\n", t->seed);
        list_code(t);
        printf("    before: rflags %lx mxcsr %x fcw %x fsw %x ftw %x\n   ", t->before.rflags,
               t->before.mxcsr, t->before.fcw, t->before.fsw, t->before.ftw);
        for (unsigned n = 0; n < 16; n++)
            printf(" %s=%lx", gpr_names[n], t->before.gpr[n]);
        printf("\n");
        silent = false;
        differences = 0;
    }
    return differences == 0;
}
