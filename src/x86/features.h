/*
 * features.h - CPU models as tables of CPUID features
 *
 * A model is a named set of feature bits, a CPUID identity and limits. What the
 * software engines can execute (and, for vector extensions, what the host has) bounds it.
 */
#ifndef X86_FEATURES_H
#define X86_FEATURES_H

#include <stdbool.h>
#include <stdint.h>

#include "trapeze/error.h"

/* One per CPUID feature bit; the list with leaf, register, bit, name and XCR0 needs is in
 * features.def. */
enum x86_feature {
#define X86_FEATURE(id, leaf, subleaf, reg, bit, text) X86_FEATURE_##id,
#include "x86/features.def"
#undef X86_FEATURE
    X86_FEATURE_COUNT
};

struct cpu_model {
    const char *name;
    const char *summary; /* one line, no full stop */
    const char *vendor;  /* 12 characters */
    uint32_t signature;  /* CPUID.1:EAX */
    const char *brand;   /* at most 47 characters */
    uint32_t max_leaf, max_extended_leaf;
    uint64_t tsc_hz;
    uint8_t physical_bits, linear_bits;
    uint8_t features[(X86_FEATURE_COUNT + 7) / 8];
    uint64_t xcr0;       /* components that XSETBV may enable */
    unsigned vcpu_count; /* topology: one thread per core */
};

/* CPUID.1:EAX of every model: family 6 and a model number that no processor was given. */
#define CPU_MODEL_SIGNATURE 0x000f0601u

static inline bool cpu_model_has(const struct cpu_model *model, enum x86_feature feature)
{
    return model->features[feature / 8] >> (feature % 8) & 1;
}

/*
 * Build a model from its description: a name ("x86-64-v2", "max", ...), optionally with
 * features added or removed: "x86-64-v3,+sha,-avx2". Features that the host cannot give are
 * dropped from "max" and refused for a named model, with a sentence which. The caller owns
 * *out_model (plain data, no pointers to free).
 */
int cpu_model_parse(const char *description, unsigned vcpu_count, struct cpu_model *out_model,
                    struct error *err);

/* For `trapeze cpus`: the table of named models, ends with NULL name. */
struct cpu_model_name {
    const char *name;
    const char *summary;
};
extern const struct cpu_model_name cpu_model_names[];

/* Where the feature bits of a model show in CPUID: a register of a leaf. 0 if there are none. */
enum x86_cpuid_register { X86_CPUID_EAX, X86_CPUID_EBX, X86_CPUID_ECX, X86_CPUID_EDX };
uint32_t cpu_model_bits(const struct cpu_model *model, uint32_t leaf, uint32_t subleaf,
                        enum x86_cpuid_register reg);

/* Feature name as in /proc/cpuinfo, and lookup. */
const char *x86_feature_name(enum x86_feature feature);
bool x86_feature_find(const char *name, enum x86_feature *out_feature);
bool x86_host_has(enum x86_feature feature); /* this host's CPUID (and OS support through XCR0) */

#endif
