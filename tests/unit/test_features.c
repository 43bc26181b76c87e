/*
 * test_features.c - CPU models and what CPUID says about them
 */
#include "fake_system.h"

#include <errno.h>

/* ---- models ---- */

static struct cpu_model model;
static struct error error;

static int parse(const char *description)
{
    memset(&error, 0, sizeof(error));
    memset(&model, 0, sizeof(model));
    return cpu_model_parse(description, 2, &model, &error);
}

static void expect_error(const char *description, int code, const char *words)
{
    assert_int_equal(parse(description), -code);
    assert_null(model.name); /* untouched */
    if (!strstr(error.text, words))
        fail_msg("'%s': \"%s\" does not say \"%s\"", description, error.text, words);
}

/* OVMF's time before the first boot loader goes by their number. */
static void addresses_are_not_more_than_firmware_maps_quickly(void **state)
{
    (void)state;
    assert_int_equal(parse("x86-64"), 0);
    assert_int_equal(model.physical_bits, 40);
    assert_int_equal(model.linear_bits, 48);
}

static void levels_contain_each_other(void **state)
{
    struct cpu_model lower = {0};

    (void)state;
    for (const struct cpu_model_name *n = cpu_model_names; n->name; n++) {
        if (parse(n->name) == -ENOTSUP)
            continue; /* this host is too old for it */
        assert_string_equal(model.name, n->name);
        for (unsigned f = 0; f < X86_FEATURE_COUNT; f++)
            if (cpu_model_has(&lower, f) && !cpu_model_has(&model, f))
                fail_msg("%s has no %s", n->name, x86_feature_name(f));
        lower = model;
    }
    assert_int_equal(parse("x86-64"), 0);
    assert_true(cpu_model_has(&model, X86_FEATURE_SSE2) && cpu_model_has(&model, X86_FEATURE_LM));
    assert_false(cpu_model_has(&model, X86_FEATURE_SSE3));
    assert_int_equal(parse("max"), 0);
    assert_true(cpu_model_has(&model, X86_FEATURE_SMAP));
}

static void max_is_what_the_host_can_give(void **state)
{
    static const enum x86_feature vectors[] = {X86_FEATURE_AVX2, X86_FEATURE_AVX512F,
                                               X86_FEATURE_SHA, X86_FEATURE_GFNI};

    (void)state;
    assert_int_equal(parse("max"), 0);
    for (size_t i = 0; i < COUNT(vectors); i++)
        assert_int_equal(cpu_model_has(&model, vectors[i]), x86_host_has(vectors[i]));
}

static void changes_take_what_they_need_with_them(void **state)
{
    (void)state;
    assert_int_equal(parse("max,-avx"), 0);
    assert_false(cpu_model_has(&model, X86_FEATURE_AVX));
    assert_false(cpu_model_has(&model, X86_FEATURE_AVX2));
    assert_false(cpu_model_has(&model, X86_FEATURE_AVX512_BF16));
    assert_true(cpu_model_has(&model, X86_FEATURE_XSAVE));
    assert_int_equal(model.xcr0, X86_XCR0_X87 | X86_XCR0_SSE | X86_XCR0_PKRU);
    assert_int_equal(parse("max,-xsave"), 0);
    assert_false(cpu_model_has(&model, X86_FEATURE_PKU));
    assert_int_equal(model.xcr0, X86_XCR0_X87);
    assert_int_equal(parse("x86-64,+smap,+lzcnt,+sse3"), 0);
    assert_true(cpu_model_has(&model, X86_FEATURE_SMAP));
    assert_true(cpu_model_has(&model, X86_FEATURE_LZCNT)); /* called abm in /proc/cpuinfo */
    assert_int_equal(parse("x86-64,+xsaves"), 0);
    assert_true(cpu_model_has(&model, X86_FEATURE_XSAVEC) &&
                cpu_model_has(&model, X86_FEATURE_XSAVE));
    assert_int_equal(parse("max,-lm"), 0);
    assert_false(cpu_model_has(&model, X86_FEATURE_SYSCALL));
}

static void errors_say_what_to_do(void **state)
{
    (void)state;
    expect_error("x86-64-v7", EINVAL, "did you mean");
    expect_error("pentium", EINVAL, "no CPU model 'pentium'");
    expect_error("", EINVAL, "needs a name");
    expect_error("max,avx2", EINVAL, "'+avx2' adds it");
    expect_error("max,+avx512foo", EINVAL, "did you mean 'avx512");
    expect_error("max,+", EINVAL, "no CPU feature");
    expect_error("max,-fpu", EINVAL, "cannot be removed");
    if (!x86_host_has(X86_FEATURE_AVX512F))
        expect_error("x86-64-v4", ENOTSUP, "avx512f");
}

static void names_and_numbers_agree(void **state)
{
    enum x86_feature found;

    (void)state;
    for (unsigned f = 0; f < X86_FEATURE_COUNT; f++) {
        assert_true(x86_feature_find(x86_feature_name(f), &found));
        assert_int_equal(found, f);
    }
    assert_false(x86_feature_find("cmov_", &found));
    assert_null(x86_feature_name(X86_FEATURE_COUNT));
}

/* ---- CPUID ---- */

static struct x86_cpuid id(uint32_t leaf, uint32_t subleaf)
{
    return x86_cpuid(&fake.cpu, leaf, subleaf);
}

#define EXPECT(leaf, subleaf, a, b, c, d)                                                          \
    do {                                                                                           \
        struct x86_cpuid got_ = id(leaf, subleaf);                                                 \
        CHECK(#leaf "." #subleaf, got_.eax, a);                                                    \
        CHECK(#leaf "." #subleaf, got_.ebx, b);                                                    \
        CHECK(#leaf "." #subleaf, got_.ecx, c);                                                    \
        CHECK(#leaf "." #subleaf, got_.edx, d);                                                    \
    } while (0)

static void identity(void **state)
{
    char text[49] = "";

    (void)state;
    fake_system(LONG, 0);
    EXPECT(0, 0, 0x1f, 0x756e6547, 0x6c65746e, 0x49656e69); /* GenuineIntel */
    assert_int_equal(id(1, 0).eax, CPU_MODEL_SIGNATURE);
    assert_int_equal(id(1, 0).ebx, 3u << 24 | 4u << 16 | 8u << 8);
    for (unsigned i = 0; i < 3; i++) {
        struct x86_cpuid part = id(0x80000002u + i, 0);

        memcpy(text + 16 * i, &part, 16);
    }
    assert_string_equal(text, "Test CPU");
    EXPECT(0x40000000, 0, 0x40000010, 0x70617254, 0x54657a65, 0x007a7072); /* TrapezeTrpz */
    EXPECT(0x40000010, 0, 1000000, 1000000, 0, 0);
    EXPECT(0x80000000, 0, 0x80000008, 0, 0, 0);
    EXPECT(0x80000008, 0, 40 | 48 << 8, 1 << 9, 0, 0);
}

static void features_sit_at_their_bits(void **state)
{
    (void)state;
    fake_system(LONG, 0);
    assert_int_equal(id(1, 0).edx, 0x178bfbff & ~(1u << 10)); /* bit 10 is reserved */
    assert_int_equal(id(1, 0).ecx & (1u << 27 | 1u << 31 | 1u << 28 | 1u << 3),
                     1u << 31 | 1u << 28);
    assert_int_equal(id(7, 0).eax, 2);
    assert_int_equal(id(7, 0).ebx & (1u << 5 | 1u << 11 | 1u << 29), 1u << 5 | 1u << 29);
    assert_int_equal(id(7, 0).edx, 1u << 4 | 1u << 26 | 1u << 27 | 1u << 29 | 1u << 31);
    EXPECT(7, 1, 1 << 5, 0, 0, 0);
    EXPECT(7, 2, 0, 0, 0, 0x30);
    EXPECT(7, 3, 0, 0, 0, 0);
    EXPECT(6, 0, 4, 0, 0, 0);
    EXPECT(0xa, 0, 0, 0, 0, 0);
    EXPECT(0x80000007, 0, 0, 0, 0, 1 << 8);
    fake_clear_feature(X86_FEATURE_AVX2);
    assert_int_equal(id(7, 0).ebx & 1u << 5, 0);
}

static void registers_show_in_feature_bits(void **state)
{
    (void)state;
    fake_system(LONG, 0);
    fake.cpu.s.cr4 |= X86_CR4_OSXSAVE | X86_CR4_PKE;
    assert_true(id(1, 0).ecx & 1u << 27);
    assert_true(id(7, 0).ecx & 1u << 4);
    assert_true(id(1, 0).edx & 1u << 9);
    assert_true(id(0x80000001, 0).edx & 1u << 11);
    fake_apic.base = 0xfee00000;
    assert_false(id(1, 0).edx & 1u << 9);
    fake.cpu.s.msr.misc_enable = X86_MISC_ENABLE_XD_DISABLE | X86_MISC_ENABLE_LIMIT_CPUID;
    assert_false(id(0x80000001, 0).edx & 1u << 20);
    assert_int_equal(id(0, 0).eax, 2);
    fake_system(P32, 0);
    assert_false(id(0x80000001, 0).edx & 1u << 11); /* SYSCALL: 64-bit code only */
}

static uint32_t cache_bytes(uint32_t subleaf)
{
    struct x86_cpuid c = id(4, subleaf);

    return ((c.ebx >> 22) + 1) * ((c.ebx >> 12 & 0x3ff) + 1) * ((c.ebx & 0xfff) + 1) * (c.ecx + 1);
}

static void caches_and_topology(void **state)
{
    (void)state;
    fake_system(LONG, 0);
    fake.model.vcpu_count = 6;
    assert_int_equal(cache_bytes(0), 32 << 10);
    assert_int_equal(cache_bytes(1), 32 << 10);
    assert_int_equal(cache_bytes(2), 1 << 20);
    assert_int_equal(cache_bytes(3), 16 << 20);
    assert_int_equal(id(4, 0).eax, 0x1c000121);      /* data, level 1, 8 core ids */
    assert_int_equal(id(4, 3).eax >> 14 & 0xfff, 7); /* shared by all */
    EXPECT(4, 4, 0, 0, 0, 0);
    assert_int_equal(id(0x80000006, 0).ecx >> 16, 1024);
    EXPECT(0xb, 0, 0, 1, 0x100, 3);
    EXPECT(0xb, 1, 3, 6, 0x201, 3);
    EXPECT(0xb, 2, 0, 0, 2, 3);
    EXPECT(0x1f, 1, 3, 6, 0x201, 3);
    fake.model.vcpu_count = 1;
    EXPECT(0xb, 1, 0, 1, 0x201, 3);
}

static void xsave_sizes_follow_xcr0(void **state)
{
    (void)state;
    fake_system(LONG, 0);
    EXPECT(0xd, 0, 0x2e7, 576, 2696, 0);
    fake.cpu.s.xcr0 = 7;
    EXPECT(0xd, 0, 0x2e7, 832, 2696, 0);
    EXPECT(0xd, 1, 0xf, 832, 0, 0);
    fake.cpu.s.xcr0 = 0x2e7;
    EXPECT(0xd, 1, 0xf, 2440, 0, 0);
    EXPECT(0xd, 2, 256, 576, 0, 0);
    EXPECT(0xd, 5, 64, 1088, 0, 0);
    EXPECT(0xd, 6, 512, 1152, 0, 0);
    EXPECT(0xd, 7, 1024, 1664, 0, 0);
    EXPECT(0xd, 9, 8, 2688, 0, 0);
    EXPECT(0xd, 3, 0, 0, 0, 0);
    EXPECT(0xd, 63, 0, 0, 0, 0);
    EXPECT(0xd, 0xffffffff, 0, 0, 0, 0);
    fake.model.xcr0 = 7;
    EXPECT(0xd, 7, 0, 0, 0, 0);
    fake_clear_feature(X86_FEATURE_XSAVE);
    EXPECT(0xd, 0, 0, 0, 0, 0);
}

static void clocks_need_no_calibration(void **state)
{
    static const uint64_t rates[] = {1000000000, 2893437000, 2500000000, 999999937, 3999999999};

    (void)state;
    fake_system(LONG, 0);
    EXPECT(0x15, 0, 1, 1, 1000000000, 0);
    EXPECT(0x16, 0, 1000, 1000, 1000, 0);
    for (size_t i = 0; i < COUNT(rates); i++) {
        struct x86_cpuid c;

        fake.model.tsc_hz = rates[i];
        c = id(0x15, 0);
        assert_int_equal((uint64_t)((unsigned __int128)c.ecx * c.ebx / c.eax), rates[i]);
    }
}

static void leaves_beyond_the_end_repeat_the_last_basic_leaf(void **state)
{
    static const uint32_t beyond[] = {0x20,       0x3fffffff, 0x40000011, 0x40000100,
                                      0x7fffffff, 0x80000009, 0xc0000000, 0xffffffff};

    (void)state;
    fake_system(LONG, 0);
    for (size_t i = 0; i < COUNT(beyond); i++) {
        struct x86_cpuid a = id(beyond[i], 1), b = id(0x1f, 1);

        assert_memory_equal(&a, &b, sizeof(a));
    }
    EXPECT(0x40000005, 0, 0, 0, 0, 0);
    EXPECT(3, 0, 0, 0, 0, 0);
    fake_clear_feature(X86_FEATURE_HYPERVISOR);
    assert_int_equal(id(0x40000000, 1).ecx, 0x201);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_not_more_than_firmware_maps_quickly),
        cmocka_unit_test(levels_contain_each_other),
        cmocka_unit_test(max_is_what_the_host_can_give),
        cmocka_unit_test(changes_take_what_they_need_with_them),
        cmocka_unit_test(errors_say_what_to_do),
        cmocka_unit_test(names_and_numbers_agree),
        cmocka_unit_test(identity),
        cmocka_unit_test(features_sit_at_their_bits),
        cmocka_unit_test(registers_show_in_feature_bits),
        cmocka_unit_test(caches_and_topology),
        cmocka_unit_test(xsave_sizes_follow_xcr0),
        cmocka_unit_test(clocks_need_no_calibration),
        cmocka_unit_test(leaves_beyond_the_end_repeat_the_last_basic_leaf),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
