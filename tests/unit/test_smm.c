/*
 * test_smm.c - what a processor saves when it takes an SMI, and what RSM makes of it
 *
 * SDM vol. 3, tables 32-4 and 32.5; APM vol. 2, table 10-1. tests/guest/smm.S has the rest.
 */
#include "fake_system.h"

#include "base/bytes.h"
#include "x86/smm.h"

static struct x86_state state, before;
static uint8_t area[X86_SMM_AREA_BYTES];

/* A kernel in 64-bit mode, with something of its own everywhere. */
static int set_up(void **unused)
{
    struct x86_state *s = &state;

    (void)unused;
    memset(area, 0xee, sizeof(area));
    x86_state_reset(s, false);
    for (unsigned i = 0; i < X86_GPR_COUNT; i++)
        s->gpr[i] = 0x1111111111111111ull * i;
    s->rip = 0xffffffff81000123ull;
    s->rflags = X86_FLAG_FIXED | X86_FLAG_IF | X86_FLAG_CF;
    s->cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_ET | X86_CR0_TS | X86_CR0_WP;
    s->cr3 = 0x1234000;
    s->cr4 = X86_CR4_PAE | X86_CR4_PGE;
    s->msr.efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_SCE;
    s->msr.smbase = 0x7f000;
    s->seg[X86_CS] =
        (struct x86_segment){.selector = 0x10, .limit = UINT32_MAX, .attributes = 0xa09b};
    s->seg[X86_SS] =
        (struct x86_segment){.selector = 0x18, .limit = UINT32_MAX, .attributes = 0xc093};
    s->seg[X86_GS].base = 0xffff888000000000ull;
    s->gdtr = (struct x86_table){.base = 0xfffffe0000001000ull, .limit = 0x7f};
    s->idtr = (struct x86_table){.base = 0xfffffe0000000000ull, .limit = 0xfff};
    s->dr7 |= 2;
    before = *s;
    return 0;
}

static void area_has_registers_in_their_places(void **unused)
{
    (void)unused;
    x86_smm_enter(&state, area);
    assert_int_equal(get_le64(area + 0x1f8), 0);                     /* RAX */
    assert_int_equal(get_le64(area + 0x1f0), 0x1111111111111111ull); /* RCX */
    assert_int_equal(get_le64(area + 0x180), 0xffffffffffffffffull); /* R15 */
    assert_int_equal(get_le64(area + 0x178), before.rip);
    assert_int_equal(get_le64(area + 0x170), before.rflags);
    assert_int_equal(get_le64(area + 0x158), before.cr0);
    assert_int_equal(get_le64(area + 0x150), before.cr3);
    assert_int_equal(get_le64(area + 0x148), before.cr4);
    assert_int_equal(get_le32(area + 0x100), 0x7f000);
    assert_int_equal(get_le32(area + 0x0fc), 0x20064);
    assert_int_equal(get_le64(area + 0x0d0), before.msr.efer);
    assert_int_equal(get_le64(area + 0x058), before.seg[X86_GS].base);
    assert_int_equal(get_le16(area + 0x012), 0xa09b); /* CS */
    assert_int_equal(get_le64(area + 0x088), before.idtr.base);
    assert_int_equal(get_le16(area + 0x064), 0x7f);
    assert_int_equal(area[0x0c9], 0);
}

static void handler_starts_in_real_mode(void **unused)
{
    struct error err = {0};

    (void)unused;
    x86_smm_enter(&state, area);
    assert_int_equal(state.seg[X86_CS].base, 0x7f000);
    assert_int_equal(state.seg[X86_CS].selector, 0x7f00);
    assert_int_equal(state.rip, 0x8000);
    assert_int_equal(state.rflags, X86_FLAG_FIXED);
    assert_int_equal(state.cr0, X86_CR0_ET | X86_CR0_WP);
    assert_int_equal(state.cr4, 0);
    assert_int_equal(state.msr.efer, 0);
    assert_int_equal(state.dr7, X86_DR7_FIXED);
    assert_int_equal(state.seg[X86_DS].limit, UINT32_MAX);
    assert_true(state.pending.nmi_blocked && state.smm.active);
    assert_false(x86_smm_can_enter(&state));
    assert_int_equal(x86_state_check(&state, &err), 0);
}

static void rsm_brings_all_back(void **unused)
{
    (void)unused;
    state.pending.interrupt_shadow = true;
    state.pending.debug_traps = X86_DR6_BS;
    state.pdpte[2] = 0x5001;
    before = state;
    x86_smm_enter(&state, area);
    assert_false(state.pending.interrupt_shadow || state.pending.debug_traps);
    memset(state.gpr, 0x5a, sizeof(state.gpr));
    memset(state.pdpte, 0, sizeof(state.pdpte));
    state.activity = X86_RESUMING;
    x86_smm_leave(&state, area);
    assert_memory_equal(&state, &before, sizeof(state));
}

static void halt_goes_on_if_the_area_says_so(void **unused)
{
    (void)unused;
    state.activity = X86_HALTED;
    x86_smm_enter(&state, area);
    assert_int_equal(area[0x0c9], 1);
    x86_smm_leave(&state, area);
    assert_int_equal(state.activity, X86_HALTED);
    x86_smm_enter(&state, area);
    area[0x0c9] = 0;
    x86_smm_leave(&state, area);
    assert_int_equal(state.activity, X86_ACTIVE);
}

static void impossible_areas_are_a_shutdown(void **unused)
{
    static const struct {
        unsigned offset;
        uint64_t value;
    } rows[] = {
        {0x158, X86_CR0_PG | X86_CR0_ET}, /* paging without protection */
        {0x148, 1ull << 40},
        {0x178, 1ull << 62},
        {0x0d0, X86_EFER_LME},
        {0x058, 1ull << 62},
        {0x170, 0},
    };
    struct error err = {0};

    (void)unused;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        state = before;
        x86_smm_enter(&state, area);
        put_le64(area + rows[i].offset, rows[i].value);
        x86_smm_leave(&state, area);
        assert_int_equal(state.activity, X86_SHUTDOWN);
        assert_false(state.smm.active);
        assert_int_equal(x86_state_check(&state, &err), 0);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(area_has_registers_in_their_places, set_up),
        cmocka_unit_test_setup(handler_starts_in_real_mode, set_up),
        cmocka_unit_test_setup(rsm_brings_all_back, set_up),
        cmocka_unit_test_setup(halt_goes_on_if_the_area_says_so, set_up),
        cmocka_unit_test_setup(impossible_areas_are_a_shutdown, set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
