/*
 * host_stub_isa.c - which CPUID features and which class an x87 or vector instruction needs
 *
 * One row per instruction set of the decoder's. An instruction whose set is not
 * here is not executed by stubs (SDM vol. 2, 2.4 to 2.8 for the classes).
 */
#include "engine/interpreter/host_stub.h"

#define MAX_FEATURES 3

struct isa {
    uint8_t class;
    bool is_mmx;
    const char *features[MAX_FEATURES];
};

#define AVX512(set, ...)                                                                           \
    [ZYDIS_ISA_SET_##set##_128] = {FPU_AVX512, false, {"avx512vl", __VA_ARGS__}},                  \
    [ZYDIS_ISA_SET_##set##_256] = {FPU_AVX512, false, {"avx512vl", __VA_ARGS__}},                  \
    [ZYDIS_ISA_SET_##set##_512] = {FPU_AVX512, false, {"avx512f", __VA_ARGS__}}

static const struct isa isas[ZYDIS_ISA_SET_MAX_VALUE + 1] = {
    [ZYDIS_ISA_SET_X87] = {FPU_X87, false, {"fpu"}},
    [ZYDIS_ISA_SET_FCMOV] = {FPU_X87, false, {"fpu", "cmov"}},
    [ZYDIS_ISA_SET_SSE3X87] = {FPU_X87, false, {"fpu", "pni"}},
    [ZYDIS_ISA_SET_PENTIUMMMX] = {FPU_X87, true, {"mmx"}},
    [ZYDIS_ISA_SET_SSE2MMX] = {FPU_X87, true, {"mmx", "sse2"}},
    [ZYDIS_ISA_SET_SSSE3MMX] = {FPU_X87, true, {"mmx", "ssse3"}},

    [ZYDIS_ISA_SET_SSE] = {FPU_SSE, false, {"sse"}},
    [ZYDIS_ISA_SET_SSEMXCSR] = {FPU_SSE, false, {"sse"}},
    [ZYDIS_ISA_SET_SSE2] = {FPU_SSE, false, {"sse2"}},
    [ZYDIS_ISA_SET_SSE3] = {FPU_SSE, false, {"pni"}},
    [ZYDIS_ISA_SET_SSSE3] = {FPU_SSE, false, {"ssse3"}},
    [ZYDIS_ISA_SET_SSE4] = {FPU_SSE, false, {"sse4_1"}},
    [ZYDIS_ISA_SET_SSE42] = {FPU_SSE, false, {"sse4_2"}},
    [ZYDIS_ISA_SET_AES] = {FPU_SSE, false, {"aes"}},
    [ZYDIS_ISA_SET_PCLMULQDQ] = {FPU_SSE, false, {"pclmulqdq"}},
    [ZYDIS_ISA_SET_SHA] = {FPU_SSE, false, {"sha_ni"}},
    [ZYDIS_ISA_SET_GFNI] = {FPU_SSE, false, {"gfni"}},

    [ZYDIS_ISA_SET_AVX] = {FPU_AVX, false, {"avx"}},
    [ZYDIS_ISA_SET_AVX2] = {FPU_AVX, false, {"avx2"}},
    [ZYDIS_ISA_SET_AVX2GATHER] = {FPU_AVX, false, {"avx2"}},
    [ZYDIS_ISA_SET_FMA] = {FPU_AVX, false, {"fma"}},
    [ZYDIS_ISA_SET_F16C] = {FPU_AVX, false, {"f16c"}},
    [ZYDIS_ISA_SET_AVXAES] = {FPU_AVX, false, {"avx", "aes"}},
    [ZYDIS_ISA_SET_VAES] = {FPU_AVX, false, {"avx", "vaes"}},
    [ZYDIS_ISA_SET_VPCLMULQDQ] = {FPU_AVX, false, {"avx", "vpclmulqdq"}},
    [ZYDIS_ISA_SET_AVX_GFNI] = {FPU_AVX, false, {"avx", "gfni"}},

    AVX512(AVX512F, "avx512f"),
    AVX512(AVX512BW, "avx512bw"),
    AVX512(AVX512CD, "avx512cd"),
    AVX512(AVX512DQ, "avx512dq"),
    AVX512(AVX512_IFMA, "avx512ifma"),
    AVX512(AVX512_VBMI, "avx512vbmi"),
    AVX512(AVX512_VBMI2, "avx512_vbmi2"),
    AVX512(AVX512_VNNI, "avx512_vnni"),
    AVX512(AVX512_BITALG, "avx512_bitalg"),
    AVX512(AVX512_VPOPCNTDQ, "avx512_vpopcntdq"),
    AVX512(AVX512_BF16, "avx512_bf16"),
    AVX512(AVX512_GFNI, "gfni"),
    AVX512(AVX512_VAES, "vaes"),
    AVX512(AVX512_VPCLMULQDQ, "vpclmulqdq"),
    [ZYDIS_ISA_SET_AVX512F_128N] = {FPU_AVX512, false, {"avx512f"}},
    [ZYDIS_ISA_SET_AVX512F_SCALAR] = {FPU_AVX512, false, {"avx512f"}},
    [ZYDIS_ISA_SET_AVX512F_KOP] = {FPU_AVX512, false, {"avx512f"}},
    [ZYDIS_ISA_SET_AVX512BW_128N] = {FPU_AVX512, false, {"avx512bw"}},
    [ZYDIS_ISA_SET_AVX512BW_KOP] = {FPU_AVX512, false, {"avx512bw"}},
    [ZYDIS_ISA_SET_AVX512DQ_128N] = {FPU_AVX512, false, {"avx512dq"}},
    [ZYDIS_ISA_SET_AVX512DQ_SCALAR] = {FPU_AVX512, false, {"avx512dq"}},
    [ZYDIS_ISA_SET_AVX512DQ_KOP] = {FPU_AVX512, false, {"avx512dq"}},
};

static bool has_features(const struct cpu_model *model, const struct isa *isa)
{
    enum x86_feature feature;

    for (unsigned n = 0; n < MAX_FEATURES && isa->features[n]; n++)
        if (!x86_feature_find(isa->features[n], &feature) || !cpu_model_has(model, feature))
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
    /* With a memory source some processors still switch to MMX state. */
    return insn->info.mnemonic == ZYDIS_MNEMONIC_CVTPI2PS ||
           insn->info.mnemonic == ZYDIS_MNEMONIC_CVTPI2PD;
}

static const struct isa *isa_of(const struct insn *insn)
{
    ZydisISASet set = insn->info.meta.isa_set;

    if (set == ZYDIS_ISA_SET_PPRO && insn->info.meta.category == ZYDIS_CATEGORY_X87_ALU)
        set = ZYDIS_ISA_SET_FCMOV; /* FCOMI and its like came with FCMOV */
    return &isas[set];
}

bool host_stub_isa(const struct cpu_model *model, const struct insn *insn, uint8_t *out_needs,
                   bool *out_is_mmx)
{
    static const struct isa pclmul = {0, false, {"pclmulqdq"}};
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

const char *host_stub_isa_unknown_feature(void)
{
    enum x86_feature feature;

    for (unsigned set = 0; set <= ZYDIS_ISA_SET_MAX_VALUE; set++)
        for (unsigned n = 0; n < MAX_FEATURES && isas[set].features[n]; n++)
            if (!x86_feature_find(isas[set].features[n], &feature))
                return isas[set].features[n];
    return NULL;
}
