/*
 * test_x86_state.c - reset values, and what a saved processor may look like
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "trapeze/x86_state.h"
#include "x86/bits.h"
#include "x86/features.h"

static struct x86_state cpu;

static void power_on_values(void **state)
{
    (void)state;
    memset(&cpu, 0xcc, sizeof(cpu));
    x86_state_reset(&cpu, false);
    assert_int_equal(cpu.rip, 0xfff0);
    assert_int_equal(cpu.seg[X86_CS].selector, 0xf000);
    assert_int_equal(cpu.seg[X86_CS].base, 0xffff0000);
    assert_int_equal(cpu.seg[X86_CS].limit, 0xffff);
    assert_int_equal(cpu.seg[X86_CS].attributes, 0x9b);
    assert_int_equal(cpu.seg[X86_GS].attributes, 0x93);
    assert_int_equal(cpu.gpr[X86_RDX], CPU_MODEL_SIGNATURE);
    assert_int_equal(cpu.gpr[X86_RAX] | cpu.gpr[X86_RSP] | cpu.gpr[X86_R15], 0);
    assert_int_equal(cpu.rflags, 2);
    assert_int_equal(cpu.cr0, 0x60000010);
    assert_int_equal(cpu.cr2 | cpu.cr3 | cpu.cr4 | cpu.msr.efer, 0);
    assert_int_equal(cpu.dr6, 0xffff0ff0);
    assert_int_equal(cpu.dr7, 0x400);
    assert_int_equal(cpu.idtr.limit, 0xffff);
    assert_int_equal(cpu.tr.attributes, 0x8b);
    assert_int_equal(cpu.ldtr.attributes, 0x82);
    assert_int_equal(cpu.xcr0, 1);
    assert_int_equal(cpu.msr.pat, 0x0007040600070406);
    assert_int_equal(cpu.msr.tsc_offset | cpu.msr.tsc_adjust, 0);
    assert_int_equal(cpu.fpu.fcw, 0x40);
    assert_int_equal(cpu.fpu.ftw, 0xff);
    assert_int_equal(cpu.fpu.mxcsr, 0x1f80);
    assert_int_equal(cpu.activity, X86_ACTIVE);
    assert_int_equal(cpu.instructions, 0);
}

static void init_keeps_what_it_should(void **state)
{
    (void)state;
    x86_state_reset(&cpu, false);
    cpu.cr0 = 0x80010033 | X86_CR0_CD;
    cpu.cr4 = 0x20;
    cpu.msr.efer = 0xd01;
    cpu.msr.kernel_gs_base = 0x1234;
    cpu.msr.tsc_adjust = 77;
    cpu.xcr0 = 7;
    cpu.fpu.zmm[3][5] = 9;
    cpu.fpu.fcw = 0x37f;
    cpu.instructions = 12345;
    cpu.activity = X86_HALTED;
    cpu.pending.nmi_blocked = true;
    cpu.seg[X86_CS].selector = 8;
    x86_state_reset(&cpu, true);
    assert_int_equal(cpu.cr0, 0x40000010);
    assert_int_equal(cpu.cr4 | cpu.msr.efer, 0);
    assert_int_equal(cpu.msr.kernel_gs_base, 0x1234);
    assert_int_equal(cpu.msr.tsc_adjust, 77);
    assert_int_equal(cpu.xcr0, 7);
    assert_int_equal(cpu.fpu.zmm[3][5], 9);
    assert_int_equal(cpu.fpu.fcw, 0x37f);
    assert_int_equal(cpu.instructions, 12345);
    assert_int_equal(cpu.activity, X86_ACTIVE);
    assert_false(cpu.pending.nmi_blocked);
    assert_int_equal(cpu.seg[X86_CS].base, 0xffff0000);
}

/* ---- save and load ---- */

/* A processor in 64-bit user code with everything set to something. */
static void long_mode(struct x86_state *s)
{
    x86_state_reset(s, false);
    s->cr0 = 0x80050033;
    s->cr3 = 0x123000;
    s->cr4 = 0x3606f0;
    s->msr.efer = 0xd01;
    s->rip = 0x7fff12345678;
    s->rflags = 0x246;
    s->seg[X86_CS] = (struct x86_segment){0, 0xffffffff, 0x33, 0xa0fb};
    s->seg[X86_SS] = (struct x86_segment){0, 0xffffffff, 0x2b, 0xc0f3};
    s->seg[X86_DS] = s->seg[X86_ES] = (struct x86_segment){0};
    s->seg[X86_FS] = (struct x86_segment){.base = 0x7ffff7d8a740};
    s->xcr0 = 0x2e7;
    for (unsigned i = 0; i < 16; i++)
        s->gpr[i] = 0x0123456789abcdef * (i + 1);
    for (unsigned i = 0; i < sizeof(s->fpu.zmm); i++)
        s->fpu.zmm[i / 64][i % 64] = (uint8_t)(i * 7);
    s->msr.lstar = 0xffffffff81800000;
    s->msr.mc[2].ctl = 5;
    s->msr.mtrr_base[7] = 0x80000006;
    s->instructions = 99;
}

static int reload(struct x86_state *s, struct x86_state *out, struct error *err)
{
    struct state_buffer buffer = {0};
    int ret;

    assert_int_equal(state_save(&x86_state_table, s, &buffer, err), 0);
    ret = state_load(&x86_state_table, out, buffer.data, buffer.size_bytes, err);
    free(buffer.data);
    return ret;
}

static void saving_and_loading_keeps_every_register(void **state)
{
    static struct x86_state loaded;
    struct state_buffer a = {0}, b = {0};
    struct error err = {0};

    (void)state;
    memset(&cpu, 0, sizeof(cpu));
    long_mode(&cpu);
    memset(&loaded, 0, sizeof(loaded));
    assert_int_equal(reload(&cpu, &loaded, &err), 0);
    assert_memory_equal(loaded.gpr, cpu.gpr, sizeof(cpu.gpr));
    assert_memory_equal(&loaded.fpu, &cpu.fpu, sizeof(cpu.fpu));
    assert_memory_equal(&loaded.msr, &cpu.msr, sizeof(cpu.msr));
    assert_memory_equal(loaded.seg, cpu.seg, sizeof(cpu.seg));
    assert_int_equal(loaded.rip, cpu.rip);
    assert_int_equal(loaded.instructions, 99);
    assert_int_equal(state_save(&x86_state_table, &cpu, &a, &err), 0);
    assert_int_equal(state_save(&x86_state_table, &loaded, &b, &err), 0);
    assert_int_equal(a.size_bytes, b.size_bytes);
    assert_memory_equal(a.data, b.data, a.size_bytes);
    free(a.data);
    free(b.data);
}

/* From the end of one member to the start of another, in the same structure. */
#define GAP(at, type, before, after)                                                               \
    {                                                                                              \
        (at) + offsetof(type, before) + sizeof(((type *)0)->before), (at) + offsetof(type, after)  \
    }
#define TAIL(at, type, last)                                                                       \
    {                                                                                              \
        (at) + offsetof(type, last) + sizeof(((type *)0)->last), (at) + sizeof(type)               \
    }

static bool is_padding(size_t at)
{
    const size_t fpu = offsetof(struct x86_state, fpu);
    const size_t pending = offsetof(struct x86_state, pending);
    const size_t gaps[][2] = {
        TAIL(offsetof(struct x86_state, gdtr), struct x86_table, limit),
        TAIL(offsetof(struct x86_state, idtr), struct x86_table, limit),
        GAP(0, struct x86_state, activity, msr),
        GAP(0, struct x86_state, msr, pending),
        GAP(0, struct x86_state, pending, smm),
        TAIL(offsetof(struct x86_state, smm), struct x86_smm, shadow_is_mov_ss),
        GAP(0, struct x86_state, smm, fpu),
        TAIL(0, struct x86_state, instructions),
        GAP(pending, struct x86_pending, has_error_code, error_code),
        TAIL(pending, struct x86_pending, sipi_vector),
        GAP(fpu, struct x86_fpu, ftw, fop),
        GAP(fpu, struct x86_fpu, fop, fip),
        GAP(fpu, struct x86_fpu, fds, mxcsr),
        GAP(fpu, struct x86_fpu, mxcsr, st),
        GAP(fpu, struct x86_fpu, st, zmm),
        TAIL(fpu, struct x86_fpu, pkru),
    };

    for (size_t i = 0; i < sizeof(gaps) / sizeof(gaps[0]); i++)
        if (at >= gaps[i][0] && at < gaps[i][1])
            return true;
    return false;
}

static bool saves_alike(struct x86_state *a, struct x86_state *b)
{
    struct state_buffer x = {0}, y = {0};
    struct error err = {0};
    bool alike;

    assert_int_equal(state_save(&x86_state_table, a, &x, &err), 0);
    assert_int_equal(state_save(&x86_state_table, b, &y, &err), 0);
    alike = x.size_bytes == y.size_bytes && memcmp(x.data, y.data, x.size_bytes) == 0;
    free(x.data);
    free(y.data);
    return alike;
}

/* A change of any byte that is not padding must show in what is saved. */
static void no_register_is_forgotten(void **state)
{
    static struct x86_state changed;

    (void)state;
    memset(&cpu, 0, sizeof(cpu));
    long_mode(&cpu);
    for (size_t at = 0; at < sizeof(cpu); at++) {
        changed = cpu;
        ((uint8_t *)&changed)[at] ^= 1;
        if (saves_alike(&cpu, &changed) != is_padding(at))
            fail_msg("byte %zu is %s", at, is_padding(at) ? "padding" : "not in the table");
    }
}

struct bad {
    const char *name;
    void (*spoil)(struct x86_state *s);
};

#define SPOIL(function, statement)                                                                 \
    static void function(struct x86_state *s)                                                      \
    {                                                                                              \
        statement;                                                                                 \
    }

SPOIL(paging_without_protection, s->cr0 &= ~1ull)
SPOIL(nw_without_cd, s->cr0 |= X86_CR0_NW)
SPOIL(et_clear, s->cr0 &= ~(uint64_t)X86_CR0_ET)
SPOIL(long_mode_without_pae, s->cr4 &= ~(uint64_t)X86_CR4_PAE)
SPOIL(lma_without_lme, s->msr.efer = 0xc01)
SPOIL(lme_and_paging_without_lma, s->msr.efer = 0x901)
SPOIL(efer_reserved, s->msr.efer |= 2)
SPOIL(v86_in_long_mode, s->rflags |= X86_FLAG_VM)
SPOIL(flags_bit_1, s->rflags &= ~2ull)
SPOIL(flags_reserved, s->rflags |= 8)
SPOIL(cr3_too_wide, s->cr3 |= 1ull << 52)
SPOIL(cr4_reserved, s->cr4 |= X86_CR4_LA57)
SPOIL(xcr0_gap, s->xcr0 = 5)
SPOIL(xcr0_zero, s->xcr0 = 0)
SPOIL(xss_set, s->msr.xss = 1)
SPOIL(dr6_fixed, s->dr6 = 0)
SPOIL(dr7_reserved, s->dr7 |= 0x800)
SPOIL(activity_unknown, s->activity = X86_ACTIVITY_COUNT)
SPOIL(fs_base, s->seg[X86_FS].base = 1ull << 50)
SPOIL(gdt_base, s->gdtr.base = 1ull << 63)
SPOIL(segment_attributes, s->seg[X86_DS].attributes = 0x100)
SPOIL(system_in_data_segment, s->seg[X86_DS].attributes = 0x82)
SPOIL(cs_absent, s->seg[X86_CS].attributes &= (uint16_t)~X86_SEG_P)
SPOIL(cs_long_and_32, s->seg[X86_CS].attributes |= X86_SEG_DB)
SPOIL(levels_differ, s->seg[X86_SS].attributes &= (uint16_t)~X86_SEG_DPL)
SPOIL(tr_is_data, s->tr.attributes |= X86_SEG_S)
SPOIL(rip_not_canonical, s->rip = 1ull << 48)
SPOIL(lstar, s->msr.lstar = 1ull << 60)
SPOIL(pat_type, s->msr.pat = 2)
SPOIL(mtrr_type, s->msr.mtrr_fixed[4] = 2)
SPOIL(mtrr_mask, s->msr.mtrr_mask[1] = 1)
SPOIL(mxcsr_reserved, s->fpu.mxcsr = 0x10000)
SPOIL(exception_vector, (s->pending.exception = true, s->pending.vector = 32))
SPOIL(shadow_without_shadow, s->pending.shadow_is_mov_ss = true)
SPOIL(pdpte_reserved, s->pdpte[2] = 3)
SPOIL(tsc_aux_wide, s->msr.tsc_aux = 1ull << 32)

#define BAD(name)                                                                                  \
    {                                                                                              \
#name, name                                                                                \
    }

static void impossible_states_are_refused(void **state)
{
    static const struct bad cases[] = {
        BAD(paging_without_protection),
        BAD(nw_without_cd),
        BAD(et_clear),
        BAD(long_mode_without_pae),
        BAD(lma_without_lme),
        BAD(lme_and_paging_without_lma),
        BAD(efer_reserved),
        BAD(v86_in_long_mode),
        BAD(flags_bit_1),
        BAD(flags_reserved),
        BAD(cr3_too_wide),
        BAD(cr4_reserved),
        BAD(xcr0_gap),
        BAD(xcr0_zero),
        BAD(xss_set),
        BAD(dr6_fixed),
        BAD(dr7_reserved),
        BAD(activity_unknown),
        BAD(fs_base),
        BAD(gdt_base),
        BAD(segment_attributes),
        BAD(system_in_data_segment),
        BAD(cs_absent),
        BAD(cs_long_and_32),
        BAD(levels_differ),
        BAD(tr_is_data),
        BAD(rip_not_canonical),
        BAD(lstar),
        BAD(pat_type),
        BAD(mtrr_type),
        BAD(mtrr_mask),
        BAD(mxcsr_reserved),
        BAD(exception_vector),
        BAD(shadow_without_shadow),
        BAD(pdpte_reserved),
        BAD(tsc_aux_wide),
    };
    static struct x86_state bad, target, before;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error err = {0};
        int ret;

        memset(&bad, 0, sizeof(bad));
        long_mode(&bad);
        cases[i].spoil(&bad);
        memset(&target, 0, sizeof(target));
        x86_state_reset(&target, false);
        before = target;
        ret = reload(&bad, &target, &err);
        if (ret >= 0)
            fail_msg("%s was accepted", cases[i].name);
        assert_true(err.text[0]);
        assert_memory_equal(&before, &target, sizeof(target));
    }
}

static void every_mode_is_accepted(void **state)
{
    static struct x86_state s, target;
    struct error err = {0};

    (void)state;
    x86_state_reset(&s, false); /* real mode */
    assert_int_equal(reload(&s, &target, &err), 0);
    s.cr0 |= X86_CR0_PE; /* protected mode before the first far jump */
    assert_int_equal(reload(&s, &target, &err), 0);
    s.rflags |= X86_FLAG_VM | X86_FLAG_IOPL;
    for (unsigned i = 0; i < X86_SEGMENT_COUNT; i++)
        s.seg[i] = (struct x86_segment){0x1230, 0xffff, 0x123, 0xf3};
    assert_int_equal(reload(&s, &target, &err), 0);
    long_mode(&s);
    s.seg[X86_CS].attributes = 0xc0fb; /* compatibility mode */
    s.rip = 0x1234;
    assert_int_equal(reload(&s, &target, &err), 0);
    long_mode(&s);
    s.rip = 1ull << 47; /* fell off the end of the lower half */
    assert_int_equal(reload(&s, &target, &err), 0);
    s.seg[X86_SS].attributes = 0x60; /* null, at level 3 */
    assert_int_equal(reload(&s, &target, &err), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(power_on_values),
        cmocka_unit_test(init_keeps_what_it_should),
        cmocka_unit_test(saving_and_loading_keeps_every_register),
        cmocka_unit_test(no_register_is_forgotten),
        cmocka_unit_test(impossible_states_are_refused),
        cmocka_unit_test(every_mode_is_accepted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
