/*
 * features.c - CPU models as tables of CPUID features
 *
 * The named levels are those of the x86-64 psABI (x86-64-v2, -v3, -v4): each adds its
 * features to the level before, and with them the system features that processors of that time
 * have. "max" is everything that the software engines execute on this host.
 *
 * Theory of operation. Three tables say everything: levels (which features a model has), needs
 * (which feature is useless without which) and host_executed (features whose instructions the
 * host's own units execute, so that the host must have them). A description is a name and changes
 * to it; adding a feature adds what it needs, removing one removes what needs it.
 */
#include "x86/features.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "trapeze/property.h"
#include "x86/bits.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define CPU_DESCRIPTION_MAX 1024
/* Enough for a TiB; OVMF maps all addresses, GiB by GiB and slowly, before it starts a system. */
#define CPU_PHYSICAL_BITS   40
#define CPU_LINEAR_BITS     48
#define CPU_TSC_HZ          1000000000ull

struct feature_info {
    const char *name;
    uint32_t leaf;
    uint8_t subleaf;
    uint8_t reg; /* enum x86_cpuid_register */
    uint8_t bit;
};

static const struct feature_info feature_infos[X86_FEATURE_COUNT] = {
#define X86_FEATURE(id, leaf_, subleaf_, reg_, bit_, text)                                         \
    [X86_FEATURE_##id] = {text, leaf_, subleaf_, X86_CPUID_##reg_, bit_},
#include "x86/features.def"
#undef X86_FEATURE
};

/* ---- tables ---- */

#define F(id) (X86_FEATURE_##id + 1) /* so that 0 ends a list */

/* psABI baseline; and what every machine here has: APIC, constant clock, mitigation MSRs. */
static const uint8_t baseline[] = {
    F(FPU),
    F(VME),
    F(DE),
    F(PSE),
    F(TSC),
    F(MSR),
    F(PAE),
    F(MCE),
    F(CX8),
    F(APIC),
    F(SEP),
    F(MTRR),
    F(PGE),
    F(MCA),
    F(CMOV),
    F(PAT),
    F(PSE36),
    F(CLFLUSH),
    F(MMX),
    F(FXSR),
    F(SSE),
    F(SSE2),
    F(SYSCALL),
    F(NX),
    F(LM),
    F(HYPERVISOR),
    F(X2APIC),
    F(ARAT),
    F(TSC_DEADLINE),
    F(TSC_ADJUST),
    F(INVARIANT_TSC),
    F(ARCH_CAPABILITIES),
    F(SPEC_CTRL),
    F(STIBP),
    F(BHI_CTRL),
    F(MCDT_NO),
    0,
};

/* psABI v2, and what came up to Westmere. */
static const uint8_t level2[] = {
    F(CX16),   F(LAHF_LM), F(POPCNT), F(SSE3),    F(SSSE3), F(SSE4_1),
    F(SSE4_2), F(RDTSCP),  F(PCID),   F(PDPE1GB), 0,
};

/* psABI v3, and what came up to Haswell. */
static const uint8_t level3[] = {
    F(AVX),   F(AVX2),     F(BMI1), F(BMI2), F(F16C),    F(FMA),    F(LZCNT),    F(MOVBE),
    F(XSAVE), F(XSAVEOPT), F(SMEP), F(ERMS), F(INVPCID), F(RDRAND), F(FSGSBASE), 0,
};

/* psABI v4, and what came up to the servers that introduced it. */
static const uint8_t level4[] = {
    F(AVX512F),    F(AVX512BW), F(AVX512CD),  F(AVX512DQ), F(AVX512VL),  F(SMAP),
    F(ADX),        F(RDSEED),   F(PREFETCHW), F(XSAVEC),   F(XGETBV1),   F(XSAVES),
    F(CLFLUSHOPT), F(CLWB),     F(PKU),       F(AES),      F(PCLMULQDQ), 0,
};

static const uint8_t everything_else[] = {
    F(SHA),
    F(AVX512IFMA),
    F(AVX512VBMI),
    F(AVX512_VBMI2),
    F(AVX512_VNNI),
    F(AVX512_BITALG),
    F(AVX512_VPOPCNTDQ),
    F(AVX512_BF16),
    F(GFNI),
    F(VAES),
    F(VPCLMULQDQ),
    F(UMIP),
    F(RDPID),
    F(FSRM),
    F(WBNOINVD),
    F(PKS),
    0,
};

static const uint8_t *const levels[] = {baseline, level2, level3, level4, everything_else};

#define LEVEL_COUNT (sizeof(levels) / sizeof(levels[0]))
#define LEVEL_MAX   (LEVEL_COUNT - 1)

/* In the order of levels. */
const struct cpu_model_name cpu_model_names[] = {
    {"x86-64", "the 64-bit baseline: SSE2, NX, and a modern interrupt controller and clock"},
    {"x86-64-v2", "adds SSE4.2, POPCNT, CMPXCHG16B, PCID and 1 GiB pages"},
    {"x86-64-v3", "adds AVX2, FMA, BMI, MOVBE, SMEP and FSGSBASE"},
    {"x86-64-v4", "adds AVX-512, AES, ADX, SMAP and protection keys"},
    {"max", "everything that the software engines execute on this host"},
    {NULL, NULL},
};

/* Executed by the host's own units. */
static const uint8_t host_executed[] = {
    F(MMX),           F(SSE),
    F(SSE2),          F(SSE3),
    F(SSSE3),         F(SSE4_1),
    F(SSE4_2),        F(PCLMULQDQ),
    F(AES),           F(SHA),
    F(GFNI),          F(AVX),
    F(F16C),          F(FMA),
    F(AVX2),          F(VAES),
    F(VPCLMULQDQ),    F(AVX512F),
    F(AVX512DQ),      F(AVX512IFMA),
    F(AVX512CD),      F(AVX512BW),
    F(AVX512VL),      F(AVX512VBMI),
    F(AVX512_VBMI2),  F(AVX512_VNNI),
    F(AVX512_BITALG), F(AVX512_VPOPCNTDQ),
    F(AVX512_BF16),   0,
};

/* No engine can leave these out. */
static const uint8_t indispensable[] = {
    F(FPU), F(TSC), F(MSR), F(CX8), F(APIC), F(CMOV), F(MMX), F(FXSR), F(SSE), F(SSE2), 0,
};

/* first is useless without second (SDM vol. 1, 13 to 16). */
static const uint8_t needs[][2] = {
    {F(XSAVEOPT), F(XSAVE)},
    {F(XSAVEC), F(XSAVE)},
    {F(XGETBV1), F(XSAVE)},
    {F(XSAVES), F(XSAVEC)},
    {F(PKU), F(XSAVE)},
    {F(AVX), F(XSAVE)},
    {F(F16C), F(AVX)},
    {F(FMA), F(AVX)},
    {F(AVX2), F(AVX)},
    {F(VAES), F(AVX)},
    {F(VAES), F(AES)},
    {F(VPCLMULQDQ), F(AVX)},
    {F(VPCLMULQDQ), F(PCLMULQDQ)},
    {F(AVX512F), F(AVX2)},
    {F(AVX512F), F(FMA)},
    {F(AVX512F), F(F16C)},
    {F(AVX512DQ), F(AVX512F)},
    {F(AVX512IFMA), F(AVX512F)},
    {F(AVX512CD), F(AVX512F)},
    {F(AVX512BW), F(AVX512F)},
    {F(AVX512VL), F(AVX512F)},
    {F(AVX512VBMI), F(AVX512BW)},
    {F(AVX512_VBMI2), F(AVX512BW)},
    {F(AVX512_VNNI), F(AVX512F)},
    {F(AVX512_BITALG), F(AVX512BW)},
    {F(AVX512_VPOPCNTDQ), F(AVX512F)},
    {F(AVX512_BF16), F(AVX512BW)},
    {F(SSSE3), F(SSE3)},
    {F(SSE4_1), F(SSSE3)},
    {F(SSE4_2), F(SSE4_1)},
    {F(AVX), F(SSE4_2)},
    {F(SYSCALL), F(LM)},
    {F(PDPE1GB), F(LM)},
    {F(PCID), F(LM)},
    {F(FSGSBASE), F(LM)},
    {F(LAHF_LM), F(LM)},
    {F(CX16), F(LM)},
    {F(PKU), F(LM)},
    {F(PKS), F(LM)},
    {F(LM), F(PAE)},
    {F(NX), F(PAE)},
    {F(X2APIC), F(APIC)},
    {F(TSC_DEADLINE), F(APIC)},
    {F(STIBP), F(SPEC_CTRL)},
    {F(SSBD), F(SPEC_CTRL)},
    {F(BHI_CTRL), F(SPEC_CTRL)},
};

#define NEEDS_COUNT (sizeof(needs) / sizeof(needs[0]))

/* ---- feature bits ---- */

static bool listed(const uint8_t *list, enum x86_feature feature)
{
    for (; *list; list++)
        if (*list == feature + 1)
            return true;
    return false;
}

static void put_feature(struct cpu_model *model, enum x86_feature feature, bool on)
{
    uint8_t bit = (uint8_t)(1u << (feature % 8));

    if (on)
        model->features[feature / 8] |= bit;
    else
        model->features[feature / 8] &= (uint8_t)~bit;
}

static void add_with_needs(struct cpu_model *model, enum x86_feature feature)
{
    put_feature(model, feature, true);
    for (size_t i = 0; i < NEEDS_COUNT; i++)
        if (needs[i][0] == feature + 1 && !cpu_model_has(model, needs[i][1] - 1u))
            add_with_needs(model, needs[i][1] - 1u);
}

static void remove_with_dependants(struct cpu_model *model, enum x86_feature feature)
{
    put_feature(model, feature, false);
    for (size_t i = 0; i < NEEDS_COUNT; i++)
        if (needs[i][1] == feature + 1 && cpu_model_has(model, needs[i][0] - 1u))
            remove_with_dependants(model, needs[i][0] - 1u);
}

uint32_t cpu_model_bits(const struct cpu_model *model, uint32_t leaf, uint32_t subleaf,
                        enum x86_cpuid_register reg)
{
    uint32_t bits = 0;

    for (unsigned i = 0; i < X86_FEATURE_COUNT; i++) {
        const struct feature_info *info = &feature_infos[i];

        if (info->leaf == leaf && info->subleaf == subleaf && info->reg == reg &&
            cpu_model_has(model, i))
            bits |= 1u << info->bit;
    }
    return bits;
}

const char *x86_feature_name(enum x86_feature feature)
{
    return (unsigned)feature < X86_FEATURE_COUNT ? feature_infos[feature].name : NULL;
}

/* What the manuals and other programs call some features. */
static const char *const aliases[][2] = {
    {"sse3", "pni"},
    {"sha", "sha_ni"},
    {"lzcnt", "abm"},
    {"pclmul", "pclmulqdq"},
    {"prefetchw", "3dnowprefetch"},
    {"tsc_deadline", "tsc_deadline_timer"},
    {"invtsc", "nonstop_tsc"},
};

bool x86_feature_find(const char *name, enum x86_feature *out_feature)
{
    for (size_t i = 0; i < sizeof(aliases) / sizeof(aliases[0]); i++)
        if (strcmp(aliases[i][0], name) == 0)
            name = aliases[i][1];
    for (unsigned i = 0; i < X86_FEATURE_COUNT; i++) {
        if (strcmp(feature_infos[i].name, name) == 0) {
            *out_feature = i;
            return true;
        }
    }
    return false;
}

/* ---- the host ---- */

#if defined(__x86_64__)

static uint64_t host_xcr0(void)
{
    unsigned eax, ebx, ecx, edx;
    uint32_t low, high;

    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_OSXSAVE))
        return X86_XCR0_X87 | X86_XCR0_SSE;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* The register state that a feature's instructions use. */
static uint64_t xcr0_needed(enum x86_feature feature)
{
    static const uint8_t avx[] = {F(AVX), F(F16C), F(FMA), F(AVX2), F(VAES), F(VPCLMULQDQ), 0};

    if (listed(avx, feature))
        return X86_XCR0_SSE | X86_XCR0_AVX;
    if (strncmp(feature_infos[feature].name, "avx512", 6) == 0)
        return X86_XCR0_SSE | X86_XCR0_AVX | X86_XCR0_AVX512;
    return 0;
}

bool x86_host_has(enum x86_feature feature)
{
    const struct feature_info *info = &feature_infos[feature];
    uint64_t needed = xcr0_needed(feature);
    unsigned reg[4];

    if (!__get_cpuid_count(info->leaf, info->subleaf, &reg[0], &reg[1], &reg[2], &reg[3]))
        return false;
    return (reg[info->reg] >> info->bit & 1) && (host_xcr0() & needed) == needed;
}

#else

bool x86_host_has(enum x86_feature feature)
{
    (void)feature;
    return false;
}

#endif

/* Can the software engines on this host execute it? */
static bool available(enum x86_feature feature)
{
    return !listed(host_executed, feature) || x86_host_has(feature);
}

/* ---- models ---- */

static int find_level(const char *name, size_t *out_level, struct error *err)
{
    const char *names[LEVEL_COUNT + 1] = {NULL};
    const char *nearest;

    for (size_t i = 0; i < LEVEL_COUNT; i++) {
        if (strcmp(cpu_model_names[i].name, name) == 0) {
            *out_level = i;
            return 0;
        }
        names[i] = cpu_model_names[i].name;
    }
    nearest = nearest_word(name, names);
    if (nearest)
        return error_set(err, EINVAL, "there is no CPU model '%s'; did you mean '%s'?", name,
                         nearest);
    return error_set(err, EINVAL, "there is no CPU model '%s'; 'trapeze cpus' lists them", name);
}

static void fill_level(struct cpu_model *model, size_t level)
{
    for (size_t i = 0; i <= level; i++)
        for (const uint8_t *f = levels[i]; *f; f++)
            put_feature(model, *f - 1u, true);
}

static void drop_unavailable(struct cpu_model *model)
{
    for (unsigned i = 0; i < X86_FEATURE_COUNT; i++)
        if (cpu_model_has(model, i) && !available(i))
            remove_with_dependants(model, i);
}

static int unknown_feature(const char *name, struct error *err)
{
    const char *names[X86_FEATURE_COUNT + 1] = {NULL};
    const char *nearest;

    for (unsigned i = 0; i < X86_FEATURE_COUNT; i++)
        names[i] = feature_infos[i].name;
    nearest = nearest_word(name, names);
    if (nearest)
        return error_set(err, EINVAL, "there is no CPU feature '%s'; did you mean '%s'?", name,
                         nearest);
    return error_set(err, EINVAL, "there is no CPU feature '%s'; names are those of /proc/cpuinfo",
                     name);
}

/* "+name" or "-name" */
static int apply_change(struct cpu_model *model, const char *change, struct error *err)
{
    enum x86_feature feature;

    if (change[0] != '+' && change[0] != '-')
        return error_set(err, EINVAL,
                         "CPU feature '%s' needs a sign: '+%s' adds it, '-%s' removes it", change,
                         change, change);
    if (!x86_feature_find(change + 1, &feature))
        return unknown_feature(change + 1, err);
    if (change[0] == '+') {
        add_with_needs(model, feature);
        return 0;
    }
    if (listed(indispensable, feature))
        return error_set(err, EINVAL, "CPU feature '%s' cannot be removed: no engine runs without",
                         change + 1);
    remove_with_dependants(model, feature);
    return 0;
}

/* Everything in the model must be something that the host can give. */
static int check_available(const struct cpu_model *model, const char *description,
                           struct error *err)
{
    char missing[256] = "";
    size_t used = 0;

    for (unsigned i = 0; i < X86_FEATURE_COUNT; i++) {
        if (!cpu_model_has(model, i) || available(i))
            continue;
        used +=
            (size_t)snprintf(missing + used, sizeof(missing) - used, " %s", feature_infos[i].name);
        if (used >= sizeof(missing))
            break;
    }
    if (!used)
        return 0;
    return error_set(err, ENOTSUP,
                     "CPU '%s' has features that this host does not execute:%s; remove them or "
                     "take 'max'",
                     description, missing);
}

static uint64_t model_xcr0(const struct cpu_model *model)
{
    uint64_t xcr0 = X86_XCR0_X87;

    if (!cpu_model_has(model, X86_FEATURE_XSAVE))
        return xcr0;
    xcr0 |= X86_XCR0_SSE;
    if (cpu_model_has(model, X86_FEATURE_AVX))
        xcr0 |= X86_XCR0_AVX;
    if (cpu_model_has(model, X86_FEATURE_AVX512F))
        xcr0 |= X86_XCR0_AVX512;
    if (cpu_model_has(model, X86_FEATURE_PKU))
        xcr0 |= X86_XCR0_PKRU;
    return xcr0;
}

/* Names and changes; text is cut into words. */
static int parse_words(struct cpu_model *model, char *text, struct error *err)
{
    char *rest = NULL, *word = strtok_r(text, ",", &rest);
    size_t level = 0;
    int ret;

    if (!word)
        return error_set(err, EINVAL, "a CPU model needs a name, such as 'max'");
    ret = find_level(word, &level, err);
    if (ret)
        return ret;
    model->name = cpu_model_names[level].name;
    model->summary = cpu_model_names[level].summary;
    fill_level(model, level);
    if (level == LEVEL_MAX)
        drop_unavailable(model);
    while (!ret && (word = strtok_r(NULL, ",", &rest)))
        ret = apply_change(model, word, err);
    return ret;
}

int cpu_model_parse(const char *description, unsigned vcpu_count, struct cpu_model *out_model,
                    struct error *err)
{
    struct cpu_model model = {
        .vendor = "GenuineIntel",
        .brand = "Trapeze Virtual CPU",
        .signature = CPU_MODEL_SIGNATURE,
        .max_leaf = 0x1f,
        .max_extended_leaf = 0x80000008u,
        .tsc_hz = CPU_TSC_HZ,
        .physical_bits = CPU_PHYSICAL_BITS,
        .linear_bits = CPU_LINEAR_BITS,
        .vcpu_count = vcpu_count,
    };
    char text[CPU_DESCRIPTION_MAX];
    int ret;

    if (strlen(description) >= sizeof(text))
        return error_set(err, EINVAL, "the CPU description is longer than %zu characters",
                         sizeof(text) - 1);
    strcpy(text, description);
    ret = parse_words(&model, text, err);
    if (!ret)
        ret = check_available(&model, description, err);
    if (ret)
        return ret;
    put_feature(&model, X86_FEATURE_HT, vcpu_count > 1);
    model.xcr0 = model_xcr0(&model);
    *out_model = model;
    return 0;
}
