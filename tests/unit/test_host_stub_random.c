/*
 * test_host_stub_random.c - random vector and x87 instructions, over the whole opcode space
 */
#include "host_stub_rig.h"

#include <stdlib.h>

#define BASE_REGISTER 3u /* rbx; rsi is the index */

static unsigned random_modrm(uint8_t *bytes)
{
    unsigned reg = rig_below(8), n = 0;

    switch (rig_below(5)) {
    case 0: /* [rbx] */
        bytes[n++] = (uint8_t)(reg << 3 | BASE_REGISTER);
        break;
    case 1: /* [rbx + disp8] */
        bytes[n++] = (uint8_t)(0x40 | reg << 3 | BASE_REGISTER);
        bytes[n++] = (uint8_t)rig_random64();
        break;
    case 2: /* [rbx + rsi * scale + disp32] */
        bytes[n++] = (uint8_t)(0x80 | reg << 3 | 4);
        bytes[n++] = (uint8_t)(rig_below(4) << 6 | 6 << 3 | BASE_REGISTER);
        bytes[n++] = (uint8_t)rig_random64();
        bytes[n++] = 0;
        bytes[n++] = 0;
        bytes[n++] = 0;
        break;
    default:
        bytes[n++] = (uint8_t)(0xc0 | reg << 3 | rig_below(8));
        break;
    }
    return n;
}

static unsigned random_legacy(uint8_t *bytes)
{
    static const uint8_t prefixes[] = {0, 0x66, 0xf2, 0xf3};
    uint8_t prefix = prefixes[rig_below(4)];
    unsigned n = 0, map = rig_below(6);

    if (prefix)
        bytes[n++] = prefix;
    if (rig_below(2))
        bytes[n++] = (uint8_t)(0x40 | rig_below(8) << 1 | 0) & ~2; /* no X, B: rbx stays the base */
    bytes[n++] = 0x0f;
    if (map >= 4)
        bytes[n++] = map == 4 ? 0x38 : 0x3a;
    bytes[n++] = (uint8_t)rig_random64();
    return n;
}

static unsigned random_vex(uint8_t *bytes)
{
    bytes[0] = 0xc4;
    bytes[1] = (uint8_t)(rig_below(2) << 7 | 0x60 | (1 + rig_below(3)));
    bytes[2] = (uint8_t)rig_random64();
    if (rig_below(2))
        bytes[2] |= 0x78;
    bytes[3] = (uint8_t)rig_random64();
    return 4;
}

static unsigned random_evex(uint8_t *bytes)
{
    bytes[0] = 0x62;
    bytes[1] = (uint8_t)(rig_below(2) << 7 | 0x60 | rig_below(2) << 4 | (1 + rig_below(3)));
    bytes[2] = (uint8_t)rig_random64() | 4;
    bytes[3] = (uint8_t)rig_random64();
    if (rig_below(2))
        bytes[2] |= 0x78, bytes[3] |= 8;
    if (rig_below(3) == 0)
        bytes[3] &= 0x68;
    bytes[4] = (uint8_t)rig_random64();
    return 5;
}

static unsigned random_vex_gather(uint8_t *bytes)
{
    random_vex(bytes);
    bytes[1] = (bytes[1] & 0xe0) | 2;
    bytes[2] = (bytes[2] & ~3) | 1;
    bytes[3] = (uint8_t)(0x90 + rig_below(4));
    return 4;
}

static unsigned random_evex_gather(uint8_t *bytes)
{
    random_evex(bytes);
    bytes[1] = (bytes[1] & 0xf0) | 2;
    bytes[2] = (bytes[2] & 0x80) | 0x7d;
    bytes[3] &= 0x6f; /* neither z nor b */
    bytes[4] = (uint8_t)((rig_below(2) ? 0x90 : 0xa0) + rig_below(4));
    return 5;
}

static unsigned random_x87_opcode(uint8_t *bytes)
{
    bytes[0] = (uint8_t)(0xd8 + rig_below(8));
    return 1;
}

typedef unsigned generator(uint8_t *bytes);

static bool wants(const struct insn *insn)
{
    uint8_t needs;
    bool is_mmx;

    if (insn->info.mnemonic == ZYDIS_MNEMONIC_CRC32 || insn->info.mnemonic == ZYDIS_MNEMONIC_MOVNTI)
        return false;                                         /* no vector operand: not for stubs */
    for (unsigned n = 0; n < insn->info.operand_count; n++) { /* r15, rsp: the thunk's own */
        const struct insn_operand *o = &insn->operands[n];

        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->mem.base != ZYDIS_REGISTER_RBX &&
            o->mem.base != ZYDIS_REGISTER_RDI)
            return false;
        if (insn->operands[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            (rig_gpr_offset(insn->operands[n].reg.value) == REG_OFFSET(X86_RSP) ||
             rig_gpr_offset(insn->operands[n].reg.value) == REG_OFFSET(X86_R15)))
            return false;
    }
    return host_stub_isa(rig.cpu->cpu.model, insn, &needs, &is_mmx);
}

/* Where the operand is: mostly inside, sometimes over a page's end, sometimes not there. */
static void place_operand(void)
{
    uint64_t at = (uintptr_t)rig.guest + 512;

    switch (rig_below(4)) {
    case 0:
        at = (uintptr_t)rig.guest + 4096;
        break;
    case 1:
        at = (uintptr_t)rig.guest + RIG_BYTES - rig_below(256);
        break;
    default:
        at += rig_below(64) * 64;
        break;
    }
    if (rig_below(2))
        at += rig_below(64);
    rig.cpu->cpu.s.gpr[X86_RBX] = at;
    rig.cpu->cpu.s.gpr[X86_RSI] = rig_below(16);
    rig.cpu->cpu.s.gpr[X86_RDI] = (uintptr_t)rig.guest + rig_below(RIG_BYTES - 16);
}

/* Lanes of the index register (6, or 22 with V' clear) that stay near the base, mostly. */
static void fill_indices(const struct insn *insn)
{
    bool quad;

    if (x86_disassemble(X86_CODE_64, insn->bytes, insn->info.length, 0, rig.text,
                        sizeof(rig.text)) == 0)
        return;
    quad = strstr(rig.text, "gatherq") || strstr(rig.text, "scatterq");
    for (unsigned n = 6; n < 32; n += 16)
        for (unsigned lane = 0; lane < 16; lane++) {
            int32_t index = (int32_t)rig_below(600) - 300;
            int32_t high = quad && index < 0 ? -1 : 0;

            memcpy(rig.cpu->cpu.s.fpu.zmm[n] + 4 * lane, quad && lane % 2 ? &high : &index, 4);
            if (quad && lane % 2 == 0) {
                high = index < 0 ? -1 : 0;
                memcpy(rig.cpu->cpu.s.fpu.zmm[n] + 4 * ++lane, &high, 4);
            }
        }
    if (!rig.has_avx512)
        memset(rig.cpu->cpu.s.fpu.zmm[6] + 32, 0, 32);
}

static bool is_gather(const struct insn *insn)
{
    for (unsigned n = 0; n < insn->info.operand_count_visible; n++)
        if (insn->operands[n].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            insn->operands[n].mem.type == ZYDIS_MEMOP_TYPE_VSIB)
            return true;
    return false;
}

static bool same_operands(const struct insn *a, const struct insn *b)
{
    if (a->info.mnemonic != b->info.mnemonic || a->info.length != b->info.length ||
        a->info.operand_count != b->info.operand_count)
        return false;
    for (unsigned n = 0; n < a->info.operand_count; n++) {
        const struct insn_operand *x = &a->operands[n], *y = &b->operands[n];

        if (x->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN &&
            rig_gpr_offset(x->reg.value) == offsetof(struct icpu, zero))
            continue; /* flags and the like are named after the code size */

        if (x->type != y->type || x->size != y->size)
            return false;
        if (x->type == ZYDIS_OPERAND_TYPE_REGISTER && x->reg.value != y->reg.value)
            return false;
        if (x->type == ZYDIS_OPERAND_TYPE_MEMORY &&
            (rig_gpr_offset(x->mem.base) != rig_gpr_offset(y->mem.base) ||
             rig_gpr_offset(x->mem.index) != rig_gpr_offset(y->mem.index) ||
             x->mem.disp.value != y->mem.disp.value))
            return false;
    }
    return true;
}

/*
 * Decode bytes as code of a size, and find what means the same in 64-bit code: the same bytes, or
 * with W clear and high bits of vvvv set, which only 64-bit code looks at.
 */
static bool decode_both(enum x86_code_size size, const uint8_t *bytes, struct insn *out,
                        struct insn *out_direct)
{
    uint8_t copy[X86_MAX_INSN_BYTES];

    if (x86_decode(size, false, bytes, X86_MAX_INSN_BYTES, out) != DECODE_OK)
        return false;
    if (x86_decode(X86_CODE_64, false, bytes, X86_MAX_INSN_BYTES, out_direct) == DECODE_OK &&
        same_operands(out, out_direct))
        return true;
    memcpy(copy, bytes, sizeof(copy));
    if (copy[0] != 0xc4 && copy[0] != 0x62)
        return false;
    copy[2] |= 0x40;
    if (x86_decode(X86_CODE_64, false, copy, X86_MAX_INSN_BYTES, out_direct) == DECODE_OK &&
        same_operands(out, out_direct))
        return true;
    copy[2] &= 0x7f;
    return x86_decode(X86_CODE_64, false, copy, X86_MAX_INSN_BYTES, out_direct) == DECODE_OK &&
           same_operands(out, out_direct);
}

static bool is_usable(enum x86_code_size size, const struct insn *insn)
{
    if (!wants(insn))
        return false;
    if (size != X86_CODE_64 && insn->info.meta.category == ZYDIS_CATEGORY_AVX &&
        insn->info.opcode == 0x77)
        return false; /* VZEROALL, VZEROUPPER: of eight registers there */
    /* Addresses are another matter in 16-bit code. */
    return size != X86_CODE_16 || !insn->info.operand_count ||
           (insn->info.raw.modrm.mod == 3 && insn->info.mnemonic != ZYDIS_MNEMONIC_MASKMOVQ &&
            insn->info.mnemonic != ZYDIS_MNEMONIC_MASKMOVDQU &&
            insn->info.mnemonic != ZYDIS_MNEMONIC_VMASKMOVDQU);
}

static void prepare(enum x86_code_size size, const struct insn *insn, bool masked)
{
    rig_random_state(masked);
    place_operand();
    if (is_gather(insn))
        fill_indices(insn);
    for (unsigned n = 0; size != X86_CODE_64 && n < 16; n++)
        rig.cpu->cpu.s.gpr[n] = (uint32_t)rig.cpu->cpu.s.gpr[n];
    rig.cpu->code_size = size;
    rig.tlb_hits = rig_below(2);
    rig_reset_tlb();
    if (rig.tlb_hits) {
        rig_fill_tlb((uintptr_t)rig.guest);
        rig_fill_tlb((uintptr_t)rig.guest + 4096);
    }
}

/* Exercise so many random instances of a generator. */
static void run_random(generator *generate, enum x86_code_size size, unsigned count, bool masked)
{
    unsigned done = 0;

    rig_move_signals(false);
    for (unsigned attempt = 0; done < count; attempt++) {
        uint8_t bytes[16];
        struct insn insn, direct;
        unsigned n = generate(bytes);

        assert_true(attempt < count * 400);
        n += random_modrm(bytes + n);
        while (n < sizeof(bytes))
            bytes[n++] = (uint8_t)rig_random64();
        if (!decode_both(size, bytes, &insn, &direct) || !is_usable(size, &insn))
            continue;
        prepare(size, &insn, masked);
        if (!rig_build(&insn))
            rig_fail_insn(&insn, "not built", 0);
        rig_run_both(&insn, direct.bytes, direct.info.length);
        done++;
    }
}

static unsigned instances =
    20000; /* or from the environment: HOST_STUB_INSTANCES; HOST_STUB_SEED chooses others */

static void test_legacy(void **state)
{
    (void)state;
    run_random(random_legacy, X86_CODE_64, instances, true);
}

static void test_vex(void **state)
{
    (void)state;
    if (!rig.has_avx)
        skip();
    run_random(random_vex, X86_CODE_64, instances, true);
}

static void test_evex(void **state)
{
    (void)state;
    if (!rig.has_avx512)
        skip();
    run_random(random_evex, X86_CODE_64, 2 * instances, true);
}

static void test_gathers(void **state)
{
    (void)state;
    if (rig.has_avx)
        run_random(random_vex_gather, X86_CODE_64, instances / 4, true);
    if (rig.has_avx512)
        run_random(random_evex_gather, X86_CODE_64, instances / 2, true);
    if (!rig.has_avx)
        skip();
}

static void test_x87(void **state)
{
    (void)state;
    run_random(random_x87_opcode, X86_CODE_64, instances, true);
}

static void test_unmasked(void **state)
{
    (void)state;
    run_random(random_legacy, X86_CODE_64, instances / 10, false);
    run_random(random_x87_opcode, X86_CODE_64, instances / 5, false);
    if (rig.has_avx)
        run_random(random_vex, X86_CODE_64, instances / 10, false);
    if (rig.has_avx512)
        run_random(random_evex, X86_CODE_64, instances / 10, false);
}

static void test_16_and_32_bit_code(void **state)
{
    (void)state;
    for (unsigned size = X86_CODE_16; size <= X86_CODE_32; size++) {
        run_random(random_legacy, size, instances / 4, true);
        run_random(random_x87_opcode, size, instances / 8, true);
        if (rig.has_avx)
            run_random(random_vex, size, instances / 4, true);
        if (rig.has_avx512)
            run_random(random_evex, size, instances / 4, true);
    }
}

int main(void)
{
    const char *text = getenv("HOST_STUB_INSTANCES");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_legacy),
        cmocka_unit_test(test_vex),
        cmocka_unit_test(test_evex),
        cmocka_unit_test(test_gathers),
        cmocka_unit_test(test_x87),
        cmocka_unit_test(test_unmasked),
        cmocka_unit_test(test_16_and_32_bit_code),
    };

    if (text)
        instances = (unsigned)strtoul(text, NULL, 0);
    return cmocka_run_group_tests(tests, rig_set_up, rig_tear_down);
}
