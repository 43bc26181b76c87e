/*
 * host_stub_isa.c - which CPUID features and which class an x87 or vector instruction needs
 *
 * One row per instruction set of the decoder's. An instruction whose set is not
 * here is not executed by stubs (SDM vol. 2, 2.4 to 2.8 for the classes).
 */
#include "engine/interpreter/host_stub.h"

#define MAX_FEATURES 3

#define F(id)        (X86_FEATURE_##id + 1)

struct isa {
    uint8_t class;
    bool is_mmx;
    uint8_t features[MAX_FEATURES]; /* each F(...); 0 ends the list */
};

#define AVX512(set, ...)                                                                           \
    [ZYDIS_ISA_SET_##set##_128] = {FPU_AVX512, false, {F(AVX512VL), __VA_ARGS__}},                 \
    [ZYDIS_ISA_SET_##set##_256] = {FPU_AVX512, false, {F(AVX512VL), __VA_ARGS__}},                 \
    [ZYDIS_ISA_SET_##set##_512] = {FPU_AVX512, false, {F(AVX512F), __VA_ARGS__}}

static const struct isa isas[ZYDIS_ISA_SET_MAX_VALUE + 1] = {
    [ZYDIS_ISA_SET_X87] = {FPU_X87, false, {F(FPU)}},
    [ZYDIS_ISA_SET_FCMOV] = {FPU_X87, false, {F(FPU), F(CMOV)}},
    [ZYDIS_ISA_SET_SSE3X87] = {FPU_X87, false, {F(FPU), F(SSE3)}},
    [ZYDIS_ISA_SET_PENTIUMMMX] = {FPU_X87, true, {F(MMX)}},
    [ZYDIS_ISA_SET_SSE2MMX] = {FPU_X87, true, {F(MMX), F(SSE2)}},
    [ZYDIS_ISA_SET_SSSE3MMX] = {FPU_X87, true, {F(MMX), F(SSSE3)}},

    [ZYDIS_ISA_SET_SSE] = {FPU_SSE, false, {F(SSE)}},
    [ZYDIS_ISA_SET_SSEMXCSR] = {FPU_SSE, false, {F(SSE)}},
    [ZYDIS_ISA_SET_SSE2] = {FPU_SSE, false, {F(SSE2)}},
    [ZYDIS_ISA_SET_SSE3] = {FPU_SSE, false, {F(SSE3)}},
    [ZYDIS_ISA_SET_SSSE3] = {FPU_SSE, false, {F(SSSE3)}},
    [ZYDIS_ISA_SET_SSE4] = {FPU_SSE, false, {F(SSE4_1)}},
    [ZYDIS_ISA_SET_SSE42] = {FPU_SSE, false, {F(SSE4_2)}},
    [ZYDIS_ISA_SET_AES] = {FPU_SSE, false, {F(AES)}},
    [ZYDIS_ISA_SET_PCLMULQDQ] = {FPU_SSE, false, {F(PCLMULQDQ)}},
    [ZYDIS_ISA_SET_SHA] = {FPU_SSE, false, {F(SHA)}},
    [ZYDIS_ISA_SET_GFNI] = {FPU_SSE, false, {F(GFNI)}},

    [ZYDIS_ISA_SET_AVX] = {FPU_AVX, false, {F(AVX)}},
    [ZYDIS_ISA_SET_AVX2] = {FPU_AVX, false, {F(AVX2)}},
    [ZYDIS_ISA_SET_AVX2GATHER] = {FPU_AVX, false, {F(AVX2)}},
    [ZYDIS_ISA_SET_FMA] = {FPU_AVX, false, {F(FMA)}},
    [ZYDIS_ISA_SET_F16C] = {FPU_AVX, false, {F(F16C)}},
    [ZYDIS_ISA_SET_AVXAES] = {FPU_AVX, false, {F(AVX), F(AES)}},
    [ZYDIS_ISA_SET_VAES] = {FPU_AVX, false, {F(AVX), F(VAES)}},
    [ZYDIS_ISA_SET_VPCLMULQDQ] = {FPU_AVX, false, {F(AVX), F(VPCLMULQDQ)}},
    [ZYDIS_ISA_SET_AVX_GFNI] = {FPU_AVX, false, {F(AVX), F(GFNI)}},

    AVX512(AVX512F, F(AVX512F)),
    AVX512(AVX512BW, F(AVX512BW)),
    AVX512(AVX512CD, F(AVX512CD)),
    AVX512(AVX512DQ, F(AVX512DQ)),
    AVX512(AVX512_IFMA, F(AVX512IFMA)),
    AVX512(AVX512_VBMI, F(AVX512VBMI)),
    AVX512(AVX512_VBMI2, F(AVX512_VBMI2)),
    AVX512(AVX512_VNNI, F(AVX512_VNNI)),
    AVX512(AVX512_BITALG, F(AVX512_BITALG)),
    AVX512(AVX512_VPOPCNTDQ, F(AVX512_VPOPCNTDQ)),
    AVX512(AVX512_BF16, F(AVX512_BF16)),
    AVX512(AVX512_GFNI, F(GFNI)),
    AVX512(AVX512_VAES, F(VAES)),
    AVX512(AVX512_VPCLMULQDQ, F(VPCLMULQDQ)),
    [ZYDIS_ISA_SET_AVX512F_128N] = {FPU_AVX512, false, {F(AVX512F)}},
    [ZYDIS_ISA_SET_AVX512F_SCALAR] = {FPU_AVX512, false, {F(AVX512F)}},
    [ZYDIS_ISA_SET_AVX512F_KOP] = {FPU_AVX512, false, {F(AVX512F)}},
    [ZYDIS_ISA_SET_AVX512BW_128N] = {FPU_AVX512, false, {F(AVX512BW)}},
    [ZYDIS_ISA_SET_AVX512BW_KOP] = {FPU_AVX512, false, {F(AVX512BW)}},
    [ZYDIS_ISA_SET_AVX512DQ_128N] = {FPU_AVX512, false, {F(AVX512DQ)}},
    [ZYDIS_ISA_SET_AVX512DQ_SCALAR] = {FPU_AVX512, false, {F(AVX512DQ)}},
    [ZYDIS_ISA_SET_AVX512DQ_KOP] = {FPU_AVX512, false, {F(AVX512DQ)}},
};

static bool has_features(const struct cpu_model *model, const struct isa *isa)
{
    for (unsigned n = 0; n < MAX_FEATURES && isa->features[n]; n++)
        if (!cpu_model_has(model, isa->features[n] - 1u))
            return false;
    return true;
}

/* SDM vol. 2, 2.4 and 2.7: types 2, 3 and 11 raise floating-point exceptions. */
static bool raises_simd_exceptions(const struct insn *insn)
{
    switch (insn->info.meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_SSE2:
    case ZYDIS_EXCEPTION_CLASS_SSE3:
    case ZYDIS_EXCEPTION_CLASS_AVX2:
    case ZYDIS_EXCEPTION_CLASS_AVX3:
    case ZYDIS_EXCEPTION_CLASS_AVX11:
    case ZYDIS_EXCEPTION_CLASS_E2:
    case ZYDIS_EXCEPTION_CLASS_E2NF:
    case ZYDIS_EXCEPTION_CLASS_E3:
    case ZYDIS_EXCEPTION_CLASS_E3NF:
    case ZYDIS_EXCEPTION_CLASS_E11:
    case ZYDIS_EXCEPTION_CLASS_E11NF:
        return true;
    default:
        break;
    }
    switch (insn->info.mnemonic) { /* with MMX registers: the decoder knows no class */
    case ZYDIS_MNEMONIC_CVTPI2PS:
    case ZYDIS_MNEMONIC_CVTPS2PI:
    case ZYDIS_MNEMONIC_CVTTPS2PI:
    case ZYDIS_MNEMONIC_CVTPD2PI:
    case ZYDIS_MNEMONIC_CVTTPD2PI:
        return true;
    default:
        return false;
    }
}

static bool has_mmx_operand(const struct insn *insn)
{
    for (unsigned n = 0; n < insn->info.operand_count; n++)
        if (insn->operands[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            insn->operands[n].reg.value >= ZYDIS_REGISTER_MM0 &&
            insn->operands[n].reg.value <= ZYDIS_REGISTER_MM7)
            return true;
    /* Some processors switch to MMX state with a memory source, too (SDM vol. 2). */
    return insn->info.mnemonic == ZYDIS_MNEMONIC_CVTPI2PS;
}

static const struct isa *isa_of(const struct insn *insn)
{
    ZydisISASet set = insn->info.meta.isa_set;

    if (set == ZYDIS_ISA_SET_PPRO && insn->info.meta.category == ZYDIS_CATEGORY_X87_ALU)
        set = ZYDIS_ISA_SET_FCMOV; /* FCOMI and its like came with FCMOV */
    if (set == ZYDIS_ISA_SET_SSE3 && insn->info.mnemonic == ZYDIS_MNEMONIC_FISTTP)
        set = ZYDIS_ISA_SET_SSE3X87;
    return &isas[set];
}

bool host_stub_isa(const struct cpu_model *model, const struct insn *insn, uint8_t *out_needs,
                   bool *out_is_mmx)
{
    static const struct isa pclmul = {0, false, {F(PCLMULQDQ)}};
    const struct isa *isa = isa_of(insn);
    uint8_t needs = isa->class;

    if (!needs || !has_features(model, isa))
        return false;
    if (insn->info.mnemonic == ZYDIS_MNEMONIC_VPCLMULQDQ && !has_features(model, &pclmul))
        return false;
    if (needs != FPU_X87 && raises_simd_exceptions(insn))
        needs = (uint8_t)(needs << 1); /* FPU_SSE to FPU_SSE_FP and so on */
    if (has_mmx_operand(insn))
        needs |= FPU_X87;
    *out_needs = needs;
    *out_is_mmx = isa->is_mmx;
    return true;
}
