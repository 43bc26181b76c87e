/*
 * test_control.c - control and debug registers, MSRs, XCR0, the time stamp counter
 */
#include "fake_system.h"

#define PE   X86_CR0_PE
#define PG   X86_CR0_PG
#define ET   X86_CR0_ET
#define CD   X86_CR0_CD
#define NW   X86_CR0_NW
#define WP   X86_CR0_WP
#define NONE 0xffffffffu /* a register keeps its value */

/* ---- operations ---- */

struct write {
    uint32_t number;
    uint64_t value;
};

static uint64_t result;

static void write_cr(const void *arg)
{
    const struct write *w = arg;

    x86_write_cr(&fake.cpu, w->number, w->value);
}

static void read_cr(const void *arg)
{
    result = x86_read_cr(&fake.cpu, *(const unsigned *)arg);
}

static void write_dr(const void *arg)
{
    const struct write *w = arg;

    x86_write_dr(&fake.cpu, w->number, w->value);
}

static void read_dr(const void *arg)
{
    result = x86_read_dr(&fake.cpu, *(const unsigned *)arg);
}

static void write_msr(const void *arg)
{
    const struct write *w = arg;

    x86_write_msr(&fake.cpu, w->number, w->value);
}

static void read_msr(const void *arg)
{
    result = x86_read_msr(&fake.cpu, *(const uint32_t *)arg);
}

static void xsetbv(const void *arg)
{
    const struct write *w = arg;

    x86_xsetbv(&fake.cpu, w->number, w->value);
}

static void xgetbv(const void *arg)
{
    result = x86_xgetbv(&fake.cpu, *(const uint32_t *)arg);
}

static void lmsw(const void *arg)
{
    x86_lmsw(&fake.cpu, *(const uint16_t *)arg);
}

static void clts(const void *arg)
{
    (void)arg;
    x86_clts(&fake.cpu);
}

static void cr(const char *name, unsigned n, uint64_t value, int vector)
{
    fake.changed = 0;
    fake_expect(name, write_cr, &(struct write){n, value}, vector, vector == X86_GP ? 0 : -1);
}

static void msr(const char *name, uint32_t number, uint64_t value, int vector)
{
    fake.changed = 0;
    fake_expect(name, write_msr, &(struct write){number, value}, vector, vector == OK ? -1 : 0);
}

static uint64_t msr_value(const char *name, uint32_t number)
{
    fake_expect(name, read_msr, &number, OK, -1);
    return result;
}

/* ---- CR0 ---- */

static void cr0_rules(void **state)
{
    static const struct {
        const char *name;
        uint64_t cr0, cr4, efer, value;
        int vector;
    } cases[] = {
        {"PG without PE", ET, 0, 0, PG, X86_GP},
        {"NW without CD", ET, 0, 0, NW, X86_GP},
        {"NW with CD", ET, 0, 0, NW | CD, OK},
        {"bit 32", ET | PE, 0, 0, PE | 1ull << 32, X86_GP},
        {"reserved bits are ignored", ET | PE, 0, 0, PE | 0x1ff8ffc0, OK},
        {"32-bit paging", ET | PE, 0, 0, PE | PG, OK},
        {"long mode without PAE", ET | PE, 0, X86_EFER_LME, PE | PG, X86_GP},
        {"long mode", ET | PE, X86_CR4_PAE, X86_EFER_LME, PE | PG, OK},
        {"leaving long mode from compatibility mode", ET | PE | PG, X86_CR4_PAE,
         X86_EFER_LME | X86_EFER_LMA, PE, OK},
        {"leaving with PCIDs", ET | PE | PG, X86_CR4_PAE | X86_CR4_PCIDE,
         X86_EFER_LME | X86_EFER_LMA, PE, X86_GP},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct x86_state *s = &fake.cpu.s;

        fake_system(P32, 0);
        s->cr0 = cases[i].cr0;
        s->cr4 = cases[i].cr4;
        s->msr.efer = cases[i].efer;
        cr(cases[i].name, 0, cases[i].value, cases[i].vector);
        if (cases[i].vector != OK)
            continue;
        CHECK(cases[i].name, s->cr0, (cases[i].value & 0xe005003f) | ET);
        CHECK(cases[i].name, !!(s->msr.efer & X86_EFER_LMA),
              (s->msr.efer & X86_EFER_LME) && (s->cr0 & PG));
    }
}

static void long_mode_wants_a_fit_code_segment_and_tss(void **state)
{
    (void)state;
    fake_system(P32, 0);
    fake.cpu.s.cr4 = X86_CR4_PAE;
    fake.cpu.s.msr.efer = X86_EFER_LME;
    fake.cpu.s.seg[X86_CS].attributes |= X86_SEG_L;
    cr("CS.L is set", 0, PE | PG, X86_GP);
    fake.cpu.s.seg[X86_CS].attributes &= (uint16_t)~X86_SEG_L;
    fake.cpu.s.tr.attributes = A_SYSTEM(3);
    cr("TR is a 16-bit TSS", 0, PE | PG, X86_GP);
    fake.cpu.s.tr.attributes = A_SYSTEM(11);
    cr("both fit", 0, PE | PG, OK);
    assert_true(fake.changed & X86_CHANGED_PAGING && fake.changed & X86_CHANGED_CODE);
    fake_system(LONG, 0);
    cr("64-bit code cannot leave", 0, PE, X86_GP);
}

static void cr0_tells_the_engine(void **state)
{
    static const struct {
        uint32_t bit;
        unsigned what;
    } cases[] = {
        {WP, X86_CHANGED_PAGING},         {X86_CR0_TS, X86_CHANGED_FPU},
        {X86_CR0_EM, X86_CHANGED_FPU},    {X86_CR0_AM, X86_CHANGED_CODE},
        {X86_CR0_PG, X86_CHANGED_PAGING}, {CD, 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        fake_system(P32, 0);
        cr("set", 0, PE | cases[i].bit, OK);
        assert_int_equal(fake.changed & cases[i].what, cases[i].what);
        cr("clear", 0, PE, OK);
        assert_int_equal(fake.changed & cases[i].what, cases[i].what);
    }
}

static void lmsw_sets_but_never_clears_pe(void **state)
{
    uint16_t all = 0xffff, none = 0;

    (void)state;
    fake_system(REAL, 0);
    fake_expect("lmsw ffff", lmsw, &all, OK, -1);
    assert_int_equal(fake.cpu.s.cr0, ET | 0xf);
    fake_expect("lmsw 0", lmsw, &none, OK, -1);
    assert_int_equal(fake.cpu.s.cr0, ET | PE);
    fake_system(P32, 3);
    fake_expect("lmsw at level 3", lmsw, &none, X86_GP, 0);
    fake_expect("clts at level 3", clts, NULL, X86_GP, 0);
    fake_system(P32, 0);
    fake.cpu.s.cr0 |= X86_CR0_TS;
    fake_expect("clts", clts, NULL, OK, -1);
    assert_int_equal(fake.cpu.s.cr0, ET | PE);
    assert_int_equal(fake.changed, X86_CHANGED_FPU);
}

/* ---- CR3, CR4, PAE ---- */

static void cr3_reserved_bits_and_pcid(void **state)
{
    (void)state;
    fake_system(LONG, 0);
    cr("bit 40 is beyond the physical address", 3, 1ull << 40, X86_GP);
    cr("bit 63 without PCIDs", 3, 1ull << 63 | 0x1000, X86_GP);
    cr("low bits are kept", 3, 0x1abc, OK);
    assert_int_equal(fake.cpu.s.cr3, 0x1abc);
    assert_int_equal(fake.changed, X86_CHANGED_CR3);
    cr("PCIDE needs PCID 0", 4, X86_CR4_PAE | X86_CR4_PCIDE, X86_GP);
    cr("PCID 0", 3, 0x1000, OK);
    cr("PCIDE", 4, X86_CR4_PAE | X86_CR4_PCIDE, OK);
    assert_true(fake.changed & X86_CHANGED_PAGING);
    cr("no flush", 3, 1ull << 63 | 0x2005, OK);
    assert_int_equal(fake.cpu.s.cr3, 0x2005);
    assert_int_equal(fake.changed, X86_CHANGED_CR3 | X86_CHANGED_KEEP);
    cr("flush", 3, 0x2005, OK);
    assert_int_equal(fake.changed, X86_CHANGED_CR3);
    cr("PCIDE may go with any PCID", 4, X86_CR4_PAE, OK);
}

static void cr4_rules(void **state)
{
    (void)state;
    fake_system(LONG, 0);
    cr("PAE cannot go in long mode", 4, 0, X86_GP);
    cr("LA57", 4, X86_CR4_PAE | X86_CR4_LA57, X86_GP);
    cr("VMXE", 4, X86_CR4_PAE | 1u << 13, X86_GP);
    cr("bit 32", 4, X86_CR4_PAE | 1ull << 32, X86_GP);
    cr("all that there are", 4, 0x01770fff & ~(uint64_t)X86_CR4_PCIDE, OK);
    fake_system(P32, 0);
    cr("PCIDE outside long mode", 4, X86_CR4_PCIDE, X86_GP);
    fake_clear_feature(X86_FEATURE_SMAP);
    cr("SMAP without the feature", 4, X86_CR4_SMAP, X86_GP);
    cr("SMEP", 4, X86_CR4_SMEP, OK);
    cr("OSXSAVE", 4, X86_CR4_OSXSAVE | X86_CR4_SMEP, OK);
    assert_true(fake.changed & X86_CHANGED_FPU);
}

static void pae_registers_are_loaded_and_checked(void **state)
{
    (void)state;
    fake_system(P32, 0);
    fake.cpu.s.cr4 = X86_CR4_PAE;
    poke(0x20020, 0x5001, 8);
    poke(0x20028, 0x6001, 8);
    cr("CR3 without paging loads nothing", 3, 0x20020, OK);
    assert_int_equal(fake.cpu.s.pdpte[0], 0);
    cr("PG loads", 0, PE | PG, OK);
    assert_int_equal(fake.cpu.s.pdpte[0], 0x5001);
    assert_int_equal(fake.cpu.s.pdpte[1], 0x6001);
    poke(0x30038, 0x7003, 8);
    cr("CR3 with a bad one", 3, 0x30020, X86_GP);
    poke(0x30038, 0x7001, 8);
    cr("CR3 loads", 3, 0x30020, OK);
    assert_int_equal(fake.cpu.s.pdpte[3], 0x7001);
    poke(0x30020, 0x8001, 8);
    cr("TS does not load", 0, PE | PG | X86_CR0_TS, OK);
    assert_int_equal(fake.cpu.s.pdpte[0], 0);
    cr("CD loads", 0, PE | PG | CD, OK);
    assert_int_equal(fake.cpu.s.pdpte[0], 0x8001);
    assert_true(fake.changed & X86_CHANGED_PAGING);
    poke(0x30020, 0x9001, 8);
    cr("TSD does not load", 4, X86_CR4_PAE | X86_CR4_TSD, OK);
    assert_int_equal(fake.cpu.s.pdpte[0], 0x8001);
    cr("PGE loads", 4, X86_CR4_PAE | X86_CR4_PGE, OK);
    assert_int_equal(fake.cpu.s.pdpte[0], 0x9001);
}

static void which_control_registers_there_are(void **state)
{
    static const unsigned missing[] = {1, 5, 6, 7, 9, 15};

    (void)state;
    fake_system(LONG, 0);
    for (size_t i = 0; i < COUNT(missing); i++) {
        fake_expect("read", read_cr, &missing[i], X86_UD, -1);
        cr("write", missing[i], 0, X86_UD);
    }
    fake_system(LONG, 3);
    fake_expect("level 3", read_cr, &(unsigned){0}, X86_GP, 0);
    cr("level 3", 0, PE, X86_GP);
    fake_expect("#UD comes first", read_cr, &(unsigned){1}, X86_UD, -1);
}

static void cr8_is_the_apics(void **state)
{
    (void)state;
    fake_system(LONG, 0);
    cr("16", 8, 16, X86_GP);
    cr("9", 8, 9, OK);
    assert_int_equal(fake_apic.cr8, 9);
    fake_apic.cr8 = 4;
    fake_expect("read", read_cr, &(unsigned){8}, OK, -1);
    assert_int_equal(result, 4);
    fake_vcpu.apic_ops = NULL;
    fake_expect("no APIC", read_cr, &(unsigned){8}, OK, -1);
    assert_int_equal(result, 0);
}

/* ---- debug registers ---- */

static void debug_registers(void **state)
{
    (void)state;
    fake_system(LONG, 0);
    fake_expect("DR0", write_dr, &(struct write){0, UINT64_MAX}, OK, -1);
    assert_int_equal(fake.cpu.s.dr[0], UINT64_MAX);
    assert_int_equal(fake.changed, X86_CHANGED_DEBUG);
    fake_expect("DR6", write_dr, &(struct write){6, 0xffffffff}, OK, -1);
    assert_int_equal(fake.cpu.s.dr6, 0xffffefff);
    fake_expect("DR6 high", write_dr, &(struct write){6, 1ull << 32}, X86_GP, 0);
    fake_expect("DR7 high", write_dr, &(struct write){7, 1ull << 32}, X86_GP, 0);
    fake_expect("DR5 is DR7", write_dr, &(struct write){5, 0xffffdfff}, OK, -1);
    assert_int_equal(fake.cpu.s.dr7, 0xffff07ff);
    fake_expect("DR4 is DR6", read_dr, &(unsigned){4}, OK, -1);
    assert_int_equal(result, 0xffffefff);
    fake.cpu.s.cr4 |= X86_CR4_DE;
    fake_expect("DR4 with DE", read_dr, &(unsigned){4}, X86_UD, -1);
    fake_expect("DR8", read_dr, &(unsigned){8}, X86_UD, -1);
    fake_system(LONG, 3);
    fake_expect("level 3", read_dr, &(unsigned){0}, X86_GP, 0);
}

static void general_detect_traps_debug_registers(void **state)
{
    (void)state;
    fake_system(LONG, 0);
    fake.cpu.s.dr7 |= X86_DR7_GD;
    assert_true(fake_faults(write_dr, &(struct write){0, 1}));
    assert_int_equal(fake.cpu.event.vector, X86_DB);
    assert_int_equal(fake.cpu.event.return_rip, FAKE_RIP);
    assert_int_equal(fake.cpu.s.dr6, X86_DR6_FIXED | X86_DR6_BD);
    assert_int_equal(fake.cpu.s.dr[0], 0);
}

/* ---- XCR0 ---- */

static void xcr0_rules(void **state)
{
    static const struct {
        uint64_t value;
        bool valid;
    } cases[] = {
        {1, true},     {0, false},    {2, false},    {3, true},      {5, false},     {7, true},
        {0xe7, true},  {0xe3, false}, {0x27, false}, {0x67, false},  {0xc7, false},  {0x201, true},
        {0x2e7, true}, {0x9, false},  {0x18, false}, {0x107, false}, {0x407, false},
    };

    (void)state;
    fake_system(LONG, 0);
    fake_expect("OSXSAVE is clear", xsetbv, &(struct write){0, 1}, X86_UD, -1);
    fake_expect("OSXSAVE is clear", xgetbv, &(uint32_t){0}, X86_UD, -1);
    fake.cpu.s.cr4 |= X86_CR4_OSXSAVE;
    for (size_t i = 0; i < COUNT(cases); i++) {
        char name[32];

        snprintf(name, sizeof(name), "XCR0 = 0x%x", (unsigned)cases[i].value);
        fake_expect(name, xsetbv, &(struct write){0, cases[i].value}, cases[i].valid ? OK : X86_GP,
                    cases[i].valid ? -1 : 0);
    }
    fake_expect("XCR1", xsetbv, &(struct write){1, 1}, X86_GP, 0);
    fake_expect("XCR2", xgetbv, &(uint32_t){2}, X86_GP, 0);
    fake.model.xcr0 = 7;
    fake_expect("not in the model", xsetbv, &(struct write){0, 0xe7}, X86_GP, 0);
    fake_expect("in the model", xsetbv, &(struct write){0, 7}, OK, -1);
    fake.cpu.s.fpu.zmm[5][17] = 1;
    fake.cpu.s.fpu.pkru = 1;
    fake_expect("in use", xgetbv, &(uint32_t){1}, OK, -1);
    assert_int_equal(result, X86_XCR0_AVX); /* PKRU is not enabled */
    fake.cpu.cpl = 3;
    fake_expect("level 3 may read", xgetbv, &(uint32_t){0}, OK, -1);
    assert_int_equal(result, 7);
    fake_expect("level 3 may not write", xsetbv, &(struct write){0, 1}, X86_GP, 0);
}

/* ---- MSRs ---- */

static void msrs_keep_what_they_should(void **state)
{
    static const struct {
        const char *name;
        uint32_t number;
        uint64_t good, bad;
    } cases[] = {
        {"SYSENTER_CS", 0x174, 0x10, 1ull << 32},
        {"SYSENTER_ESP", 0x175, 0xffff800000001000, 0x0000800000000000},
        {"SYSENTER_EIP", 0x176, 0xffff800000001000, 0x7fff800000000000},
        {"PAT", 0x277, 0x0007040600070401, 0x0007040600070402},
        {"PAT type 3", 0x277, 0x0606060606060606, 0x0306060606060606},
        {"MTRR base", 0x200, 0x80000006, 0x80000002},
        {"MTRR base reserved", 0x20e, 0xff00000001, 0x80000100},
        {"MTRR base too wide", 0x202, 0xff00000000, 1ull << 40},
        {"MTRR mask", 0x201, 0xffff000800, 0x400},
        {"MTRR mask too wide", 0x20f, 0x800, 1ull << 41},
        {"MTRR 64K", 0x250, 0x0606060606060606, 0x0706060606060606},
        {"MTRR 16K", 0x259, 0x0504010006060606, 0x02},
        {"MTRR 4K", 0x26f, 0x0606060606060606, 0x03},
        {"MTRR def type", 0x2ff, 0xc06, 0x1000},
        {"MTRR def type 2", 0x2ff, 0x806, 0xc02},
        {"STAR", 0xc0000081, 0xffffffffffffffff, NONE},
        {"LSTAR", 0xc0000082, 0xffffffff81000000, 0x8000000000000000},
        {"CSTAR", 0xc0000083, 0x00007fffffffffff, 0x0000ffffffffffff},
        {"SFMASK", 0xc0000084, 0xffffffff, 1ull << 32},
        {"FS base", 0xc0000100, 0x00007fffdeadbeef, 0x00008fffdeadbeef},
        {"GS base", 0xc0000101, 0xffff888000000000, 0x1fff888000000000},
        {"kernel GS base", 0xc0000102, 0xffff888000000000, 0x1fff888000000000},
        {"TSC_AUX", 0xc0000103, 0xffffffff, 1ull << 32},
        {"SPEC_CTRL", 0x48, 0x407, 8},
        {"XSS", 0xda0, 0, 1},
        {"DEBUGCTL", 0x1d9, 2, 4},
        {"MC0_CTL", 0x400, UINT64_MAX, 1},
        {"MC1_STATUS", 0x405, 0, 1},
        {"MC2_ADDR", 0x40a, 0x1234, NONE},
        {"MC3_MISC", 0x40f, UINT64_MAX, NONE},
        {"MCG_CTL", 0x17b, UINT64_MAX, NONE},
        {"MCG_STATUS", 0x17a, 0, 1},
        {"MISC_ENABLE", 0x1a0, 0x400c51889, 1ull << 50},
    };

    (void)state;
    fake_system(LONG, 0);
    for (size_t i = 0; i < COUNT(cases); i++) {
        msr(cases[i].name, cases[i].number, cases[i].good, OK);
        CHECK(cases[i].name, msr_value(cases[i].name, cases[i].number), cases[i].good);
        if (cases[i].bad == NONE)
            continue;
        msr(cases[i].name, cases[i].number, cases[i].bad, X86_GP);
        CHECK(cases[i].name, msr_value(cases[i].name, cases[i].number), cases[i].good);
    }
    CHECK("FS base", fake.cpu.s.seg[X86_FS].base, 0x00007fffdeadbeef);
    CHECK("MTRR order", fake.cpu.s.msr.mtrr_mask[7], 0x800);
    CHECK("MTRR order", fake.cpu.s.msr.mtrr_fixed[10], 0x0606060606060606);
    CHECK("bank order", fake.cpu.s.msr.mc[0].ctl, UINT64_MAX);
}

static void constant_msrs(void **state)
{
    static const struct {
        const char *name;
        uint32_t number;
        uint64_t value;
        bool writable; /* the write is ignored */
    } cases[] = {
        {"MTRRCAP", 0xfe, 0x508, false},
        {"MCG_CAP", 0x179, 0x104, false},
        {"FEATURE_CONTROL", 0x3a, 1, false},
        {"BIOS_SIGN_ID", 0x8b, 1ull << 32, true},
        {"PLATFORM_ID", 0x17, 0, false},
        {"PERF_STATUS", 0x198, 10u << 8, true},
        {"PLATFORM_INFO", 0xce, 10u << 8 | 10ull << 40, false},
    };

    (void)state;
    fake_system(LONG, 0);
    fake.cpu.s.msr.feature_control = 1;
    for (size_t i = 0; i < COUNT(cases); i++) {
        CHECK(cases[i].name, msr_value(cases[i].name, cases[i].number), cases[i].value);
        msr(cases[i].name, cases[i].number, 0, cases[i].writable ? OK : X86_GP);
        CHECK(cases[i].name, msr_value(cases[i].name, cases[i].number), cases[i].value);
    }
    CHECK("no flaws", msr_value("ARCH_CAPABILITIES", 0x10a), 0x400000000d10e17b);
}

static void msrs_that_are_not_there(void **state)
{
    static const uint32_t missing[] = {
        0x9e,  0x186, 0x345, 0x38f,      0x480,      0x600,      0x770,      0x210,     0x251,
        0x25a, 0x270, 0x410, 0xc0000085, 0xc0000104, 0xc0010015, 0x4b564d00, 0xffffffff};

    (void)state;
    fake_system(LONG, 0);
    for (size_t i = 0; i < COUNT(missing); i++) {
        uint64_t value;

        fake_expect("read", read_msr, &missing[i], X86_GP, 0);
        msr("write", missing[i], 0, X86_GP);
        assert_false(x86_peek_msr(&fake.cpu, missing[i], &value));
    }
    fake_expect("PRED_CMD is write-only", read_msr, &(uint32_t){0x49}, X86_GP, 0);
    msr("IBPB", 0x49, 1, OK);
    msr("more than IBPB", 0x49, 2, X86_GP);
    fake_clear_feature(X86_FEATURE_SPEC_CTRL);
    fake_clear_feature(X86_FEATURE_LM);
    fake_clear_feature(X86_FEATURE_TSC_DEADLINE);
    msr("IBPB without the feature", 0x49, 1, X86_GP);
    fake_expect("LSTAR without long mode", read_msr, &(uint32_t){0xc0000082}, X86_GP, 0);
    fake_expect("TSC deadline", read_msr, &(uint32_t){0x6e0}, X86_GP, 0);
    fake_system(LONG, 3);
    fake_expect("level 3", read_msr, &(uint32_t){0xc0000082}, X86_GP, 0);
    msr("level 3", 0xc0000082, 0, X86_GP);
    fake_system(V86, 3);
    fake_expect("virtual-8086", read_msr, &(uint32_t){0x10}, X86_GP, 0);
}

static void efer_rules(void **state)
{
    (void)state;
    fake_system(P32, 0);
    msr("LME NXE SCE", 0xc0000080, 0x901, OK);
    assert_int_equal(fake.cpu.s.msr.efer, 0x901);
    assert_true(fake.changed & X86_CHANGED_PAGING);
    msr("LMA is ignored", 0xc0000080, 0xd01, OK);
    assert_int_equal(fake.cpu.s.msr.efer, 0x901);
    msr("reserved", 0xc0000080, 0x1000, X86_GP);
    fake_clear_feature(X86_FEATURE_NX);
    msr("NXE without the feature", 0xc0000080, 0x801, X86_GP);
    fake_system(P32, 0);
    fake.cpu.s.msr.misc_enable = X86_MISC_ENABLE_XD_DISABLE;
    msr("NXE while XD is disabled", 0xc0000080, 0x801, X86_GP);
    fake_system(LONG, 0);
    msr("LME under paging", 0xc0000080, 0x401, X86_GP);
    msr("LMA stays", 0xc0000080, 0x900, OK);
    assert_int_equal(fake.cpu.s.msr.efer, 0xd00);
}

static void apic_registers_go_to_the_apic(void **state)
{
    static const uint32_t numbers[] = {0x1b, 0x6e0, 0x800, 0x830, 0x8ff};

    (void)state;
    for (size_t i = 0; i < COUNT(numbers); i++) {
        fake_system(LONG, 0);
        msr("write", numbers[i], 0x1234, OK);
        assert_int_equal(fake_apic.msr, numbers[i]);
        assert_int_equal(fake_apic.msr_value, 0x1234);
        assert_int_equal(msr_value("read", numbers[i]), 0x1234);
        fake_apic.refuses = true;
        msr("refused", numbers[i], 0, X86_GP);
        fake_expect("refused", read_msr, &numbers[i], X86_GP, 0);
        fake_vcpu.apic_ops = NULL;
        msr("no APIC", numbers[i], 0, X86_GP);
    }
}

/* ---- time stamp counter ---- */

static void tsc_follows_virtual_time(void **state)
{
    (void)state;
    fake_system(LONG, 0);
    clocks_set_counted_ns(fake_clocks, 5000000000);
    assert_int_equal(x86_read_tsc(&fake.cpu), 5000000000);
    fake.model.tsc_hz = 2893437000;
    assert_int_equal(x86_read_tsc(&fake.cpu), 14467185000);
    clocks_set_counted_ns(fake_clocks, 10000000000000000000ull);        /* 317 years */
    assert_int_equal(x86_read_tsc(&fake.cpu), 10487625926290448384ull); /* modulo 2^64 */
}

static void writing_the_tsc_moves_tsc_adjust(void **state)
{
    (void)state;
    fake_system(LONG, 0);
    clocks_set_counted_ns(fake_clocks, 1000);
    msr("TSC", 0x10, 300, OK);
    assert_int_equal(x86_read_tsc(&fake.cpu), 300);
    assert_int_equal(msr_value("TSC_ADJUST", 0x3b), (uint64_t)-700);
    assert_int_equal(fake_vcpu.tsc_offset, (uint64_t)-700);
    assert_int_equal(fake_apic.tsc_changes, 1);
    msr("TSC_ADJUST", 0x3b, 50, OK);
    assert_int_equal(msr_value("TSC", 0x10), 1050);
    assert_int_equal(fake_vcpu.tsc_offset, 50);
    assert_int_equal(fake_apic.tsc_changes, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cr0_rules),
        cmocka_unit_test(long_mode_wants_a_fit_code_segment_and_tss),
        cmocka_unit_test(cr0_tells_the_engine),
        cmocka_unit_test(lmsw_sets_but_never_clears_pe),
        cmocka_unit_test(cr3_reserved_bits_and_pcid),
        cmocka_unit_test(cr4_rules),
        cmocka_unit_test(pae_registers_are_loaded_and_checked),
        cmocka_unit_test(which_control_registers_there_are),
        cmocka_unit_test(cr8_is_the_apics),
        cmocka_unit_test(debug_registers),
        cmocka_unit_test(general_detect_traps_debug_registers),
        cmocka_unit_test(xcr0_rules),
        cmocka_unit_test(msrs_keep_what_they_should),
        cmocka_unit_test(constant_msrs),
        cmocka_unit_test(msrs_that_are_not_there),
        cmocka_unit_test(efer_rules),
        cmocka_unit_test(apic_registers_go_to_the_apic),
        cmocka_unit_test(tsc_follows_virtual_time),
        cmocka_unit_test(writing_the_tsc_moves_tsc_adjust),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
