/*
 * test_paging.c - the page walk: against a second implementation, and claim by claim
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "paging_oracle.h"

#define P   1u
#define W   2u
#define U   4u
#define A   0x20u
#define D   0x40u
#define PS  0x80u
#define G   0x100u
#define XD  (1ull << 63)
#define ALL (P | W | U)

static struct oracle_memory memory;
static unsigned updates;

static void count_update(void *opaque, uint64_t gpa)
{
    (void)opaque, (void)gpa;
    updates++;
}

static const struct x86_walk_memory walk_memory = {oracle_entry, count_update, &memory};

static void put8(uint64_t gpa, uint64_t value)
{
    memcpy(memory.bytes + gpa, &value, 8);
}

static void put4(uint64_t gpa, uint32_t value)
{
    memcpy(memory.bytes + gpa, &value, 4);
}

static uint64_t get8(uint64_t gpa)
{
    uint64_t value;

    memcpy(&value, memory.bytes + gpa, 8);
    return value;
}

static uint32_t get4(uint64_t gpa)
{
    uint32_t value;

    memcpy(&value, memory.bytes + gpa, 4);
    return value;
}

/* 4-level paging with tables at 1000h, 2000h, 3000h, 4000h; linear 0 maps 12345000h. */
static struct x86_paging long_mode(void)
{
    memset(&memory, 0, sizeof(memory));
    updates = 0;
    put8(0x1000, 0x2000 | ALL);
    put8(0x2000, 0x3000 | ALL);
    put8(0x3000, 0x4000 | ALL);
    put8(0x4000, 0x12345000 | ALL);
    return (struct x86_paging){
        .cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_WP,
        .cr3 = 0x1000,
        .cr4 = X86_CR4_PAE,
        .efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE,
        .physical_bits = 46,
        .gigabyte_pages = true,
    };
}

/* PAE: directory at 2000h, table at 3000h. */
static struct x86_paging pae(void)
{
    struct x86_paging p = long_mode();

    put8(0x2000, 0x3000 | ALL);
    put8(0x3000, 0x12345000 | ALL);
    p.efer = X86_EFER_NXE;
    p.pdpte[0] = 0x2000 | P;
    return p;
}

/* 32-bit: directory at 1000h, table at 2000h. */
static struct x86_paging legacy(void)
{
    struct x86_paging p = long_mode();

    memset(&memory, 0, sizeof(memory));
    put4(0x1000, 0x2000 | ALL);
    put4(0x2000, 0x12345000 | ALL);
    p.efer = 0;
    p.cr4 = X86_CR4_PSE;
    return p;
}

static uint32_t walk(const struct x86_paging *p, uint64_t linear, unsigned access, bool user,
                     struct x86_walk *out)
{
    return x86_walk(p, &walk_memory, linear, access, user, false, out);
}

#define READ        X86_ACCESS_READ
#define WRITE       X86_ACCESS_WRITE
#define EXECUTE     X86_ACCESS_EXECUTE
#define FAULT(code) (X86_WALK_FAULT | (code))

static void expect(const struct x86_paging *p, uint64_t linear, unsigned access, bool user,
                   uint32_t expected)
{
    struct x86_walk out;
    uint32_t result = walk(p, linear, access, user, &out);

    if (result != expected)
        fail_msg("linear 0x%llx access %u user %d: got 0x%x, expected 0x%x",
                 (unsigned long long)linear, access, user, result, expected);
}

static void without_paging_linear_is_physical(void **state)
{
    struct x86_paging p = long_mode();
    struct x86_walk out;

    (void)state;
    p.cr0 = X86_CR0_PE;
    assert_int_equal(walk(&p, 0x100fee00123, WRITE, true, &out), 0);
    assert_int_equal(out.gpa, 0xfee00123);
    assert_int_equal(out.page_size, 4096);
    assert_true(out.can_read && out.can_write && out.can_execute && out.dirty);
}

static void page_sizes_of_4_level(void **state)
{
    struct x86_paging p = long_mode();
    struct x86_walk out;

    (void)state;
    put8(0x2008, 0x40000000 | ALL | PS | 0x1000); /* 1 GiB, PAT bit set */
    put8(0x3008, 0x80200000 | ALL | PS | 0x1000); /* 2 MiB */
    assert_int_equal(walk(&p, 0xabc, READ, false, &out), 0);
    assert_int_equal(out.gpa, 0x12345abc);
    assert_int_equal(out.page_size, 0x1000);
    assert_int_equal(walk(&p, 0x40000000 + 0x3456789, READ, false, &out), 0);
    assert_int_equal(out.gpa, 0x40000000 + 0x3456789);
    assert_int_equal(out.page_size, 0x40000000);
    assert_int_equal(walk(&p, 0x200000 + 0x1ffff, READ, false, &out), 0);
    assert_int_equal(out.gpa, 0x80200000 + 0x1ffff);
    assert_int_equal(out.page_size, 0x200000);
    p.gigabyte_pages = false;
    expect(&p, 0x40000000, READ, false, FAULT(X86_PF_P | X86_PF_RSVD));
}

static void a_and_d_are_set_where_the_walk_went(void **state)
{
    struct x86_paging p = long_mode();
    struct x86_walk out;

    (void)state;
    assert_int_equal(walk(&p, 0, READ, true, &out), 0);
    assert_int_equal(get8(0x1000) & (A | D), A);
    assert_int_equal(get8(0x4000) & (A | D), A);
    assert_int_equal(updates, 4);
    assert_false(out.dirty);
    assert_false(out.can_write); /* the first write must walk again */
    assert_int_equal(walk(&p, 0, WRITE, true, &out), 0);
    assert_int_equal(get8(0x4000) & (A | D), A | D);
    assert_int_equal(get8(0x3000) & (A | D), A);
    assert_int_equal(updates, 5);
    assert_true(out.dirty && out.can_write);
}

static void a_fault_leaves_the_leaf_alone(void **state)
{
    struct x86_paging p = long_mode();

    (void)state;
    put8(0x4000, 0x12345000 | P | U);
    expect(&p, 0, WRITE, true, FAULT(X86_PF_P | X86_PF_W | X86_PF_U));
    assert_int_equal(get8(0x4000), 0x12345000 | P | U);
    assert_int_equal(get8(0x3000) & A, A);
    put8(0x3000, 0x4000 | ALL | 1ull << 46);
    put8(0x2000, 0x3000 | ALL);
    expect(&p, 0, READ, false, FAULT(X86_PF_P | X86_PF_RSVD));
    assert_int_equal(get8(0x3000) & A, 0);
    assert_int_equal(get8(0x2000) & A, A);
}

static void probing_changes_nothing(void **state)
{
    struct x86_paging p = long_mode();
    struct oracle_memory before;
    struct x86_walk out;

    (void)state;
    before = memory;
    assert_int_equal(x86_walk(&p, &walk_memory, 0, WRITE, true, true, &out), 0);
    assert_memory_equal(&before, &memory, sizeof(memory));
    assert_int_equal(updates, 0);
    assert_false(out.dirty || out.can_write);
}

static void a_fault_leaves_the_result_alone(void **state)
{
    struct x86_paging p = long_mode();
    struct x86_walk out = {.gpa = 0x5a5a, .key = 7};

    (void)state;
    put8(0x4000, 0);
    assert_int_equal(walk(&p, 0, READ, false, &out), FAULT(0));
    assert_int_equal(out.gpa, 0x5a5a);
    assert_int_equal(out.key, 7);
}

static void error_code_tells_fetches_only_with_nx_or_smep(void **state)
{
    struct x86_paging p = long_mode();

    (void)state;
    put8(0x4000, 0);
    expect(&p, 0, EXECUTE, true, FAULT(X86_PF_U | X86_PF_I));
    p.efer &= ~(uint64_t)X86_EFER_NXE;
    expect(&p, 0, EXECUTE, true, FAULT(X86_PF_U));
    p.cr4 |= X86_CR4_SMEP;
    expect(&p, 0, EXECUTE, true, FAULT(X86_PF_U | X86_PF_I));
    p = legacy();
    put4(0x2000, 0);
    p.efer = X86_EFER_NXE; /* without PAE it says nothing */
    expect(&p, 0, EXECUTE, false, FAULT(0));
}

static void xd_is_reserved_without_nxe(void **state)
{
    struct x86_paging p = long_mode();

    (void)state;
    put8(0x3000, 0x4000 | ALL | XD);
    expect(&p, 0, READ, true, 0);
    expect(&p, 0, EXECUTE, true, FAULT(X86_PF_P | X86_PF_U | X86_PF_I));
    p.efer &= ~(uint64_t)X86_EFER_NXE;
    expect(&p, 0, READ, true, FAULT(X86_PF_P | X86_PF_RSVD | X86_PF_U));
}

static void wp_binds_the_supervisor(void **state)
{
    struct x86_paging p = long_mode();

    (void)state;
    put8(0x2000, 0x3000 | P | U);
    expect(&p, 0, WRITE, false, FAULT(X86_PF_P | X86_PF_W));
    p.cr0 &= ~(uint64_t)X86_CR0_WP;
    expect(&p, 0, WRITE, false, 0);
    expect(&p, 0, WRITE, true, FAULT(X86_PF_P | X86_PF_W | X86_PF_U));
}

static void smep_and_smap_guard_user_pages(void **state)
{
    struct x86_paging p = long_mode();

    (void)state;
    p.cr4 |= X86_CR4_SMEP | X86_CR4_SMAP;
    expect(&p, 0, EXECUTE, false, FAULT(X86_PF_P | X86_PF_I));
    expect(&p, 0, EXECUTE, true, 0);
    expect(&p, 0, READ, false, FAULT(X86_PF_P));
    expect(&p, 0, WRITE, false, FAULT(X86_PF_P | X86_PF_W));
    expect(&p, 0, READ, true, 0);
    p.rflags = X86_FLAG_AC;
    expect(&p, 0, READ, false, 0);
    expect(&p, 0, READ | X86_ACCESS_SUPERVISOR, true, FAULT(X86_PF_P));
    expect(&p, 0, EXECUTE, false, FAULT(X86_PF_P | X86_PF_I));
}

static void implicit_supervisor_accesses_ignore_cpl(void **state)
{
    struct x86_paging p = long_mode();

    (void)state;
    put8(0x4000, 0x12345000 | P | W);
    expect(&p, 0, READ, true, FAULT(X86_PF_P | X86_PF_U));
    expect(&p, 0, READ | X86_ACCESS_SUPERVISOR, true, 0);
    expect(&p, 0, WRITE | X86_ACCESS_SUPERVISOR, true, 0);
}

static void protection_keys_of_user_pages(void **state)
{
    struct x86_paging p = long_mode();
    struct x86_walk out;

    (void)state;
    put8(0x4000, 0x12345000 | ALL | 5ull << 59);
    p.cr4 |= X86_CR4_PKE;
    p.pkru = 2u << 10; /* key 5: no writes */
    assert_int_equal(walk(&p, 0, READ, true, &out), 0);
    assert_int_equal(out.key, 5);
    expect(&p, 0, WRITE, true, FAULT(X86_PF_P | X86_PF_W | X86_PF_U | X86_PF_PK));
    expect(&p, 0, WRITE, false, FAULT(X86_PF_P | X86_PF_W | X86_PF_PK));
    p.cr0 &= ~(uint64_t)X86_CR0_WP;
    expect(&p, 0, WRITE, false, 0);
    p.pkru = 1u << 10; /* key 5: no access */
    expect(&p, 0, READ, false, FAULT(X86_PF_P | X86_PF_PK));
    expect(&p, 0, EXECUTE, true, 0);
    put8(0x4000, 0x12345000 | P | W | 5ull << 59);
    expect(&p, 0, READ, false, 0); /* not a user page */
    p.efer &= ~(uint64_t)X86_EFER_NXE;
    p.cr4 &= ~(uint64_t)X86_CR4_PKE;
    expect(&p, 0, READ, false, 0); /* the bits are ignored */
}

static void protection_keys_of_supervisor_pages(void **state)
{
    struct x86_paging p = long_mode();
    struct x86_walk out;

    (void)state;
    put8(0x4000, 0x12345000 | P | W | 5ull << 59);
    p.cr4 |= X86_CR4_PKS;
    p.pkrs = 2u << 10; /* key 5: no writes */
    assert_int_equal(walk(&p, 0, READ, false, &out), 0);
    assert_int_equal(out.key, 5);
    expect(&p, 0, WRITE, false, FAULT(X86_PF_P | X86_PF_W | X86_PF_PK));
    expect(&p, 0, WRITE | X86_ACCESS_SUPERVISOR, true, FAULT(X86_PF_P | X86_PF_W | X86_PF_PK));
    p.cr0 &= ~(uint64_t)X86_CR0_WP;
    expect(&p, 0, WRITE, false, 0);
    p.pkrs = 1u << 10; /* key 5: no access */
    expect(&p, 0, READ, false, FAULT(X86_PF_P | X86_PF_PK));
    expect(&p, 0, EXECUTE, false, 0);
    put8(0x4000, 0x12345000 | ALL | 5ull << 59);
    expect(&p, 0, READ, false, 0); /* a user page */
    put8(0x4000, 0x12345000 | P | W | 5ull << 59);
    p.cr4 &= ~(uint64_t)X86_CR4_PKS;
    expect(&p, 0, READ, false, 0);
}

static void reserved_bits_of_4_level(void **state)
{
    static const struct {
        uint64_t gpa, bits;
    } cases[] = {
        {0x1000, PS},
        {0x1000, 1ull << 46},
        {0x2000, 1ull << 51},
        {0x3000, 1ull << 47},
        {0x4000, 1ull << 46},
        {0x2000, PS | 0x2000},
        {0x2000, PS | 1ull << 29},
        {0x3000, PS | 0x2000},
        {0x3000, PS | 1ull << 20},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct x86_paging p = long_mode();

        put8(cases[i].gpa, get8(cases[i].gpa) | cases[i].bits);
        expect(&p, 0, READ, true, FAULT(X86_PF_P | X86_PF_RSVD | X86_PF_U));
    }
}

static void ignored_bits_of_4_level(void **state)
{
    struct x86_paging p = long_mode();

    (void)state;
    for (uint64_t gpa = 0x1000; gpa <= 0x4000; gpa += 0x1000)
        put8(gpa, get8(gpa) | 0x7ffull << 52 | 0xe00 | (gpa == 0x4000 ? PS : 0));
    expect(&p, 0, WRITE, true, 0);
}

static void pae_walk_uses_the_registers(void **state)
{
    struct x86_paging p = pae();
    struct x86_walk out;

    (void)state;
    assert_int_equal(walk(&p, 0x100000abc, WRITE, true, &out), 0); /* cut to 32 bits */
    assert_int_equal(out.gpa, 0x12345abc);
    expect(&p, 0x40000000, READ, true, FAULT(X86_PF_U));
    put8(0x3000, 0x12345000 | ALL | 1ull << 52); /* ignored in 4-level, reserved here */
    expect(&p, 0, READ, true, FAULT(X86_PF_P | X86_PF_RSVD | X86_PF_U));
    put8(0x2008, 0x7fe00000 | ALL | PS | G);
    assert_int_equal(walk(&p, 0x200123, READ, true, &out), 0);
    assert_int_equal(out.gpa, 0x7fe00123);
    assert_int_equal(out.page_size, 0x200000);
    assert_false(out.global); /* CR4.PGE is clear */
    p.cr4 |= X86_CR4_PGE;
    assert_int_equal(walk(&p, 0x200123, READ, true, &out), 0);
    assert_true(out.global);
}

static void legacy_walk_and_its_neighbours(void **state)
{
    struct x86_paging p = legacy();
    struct x86_walk out;

    (void)state;
    put4(0x2004, 0x00007000 | P);
    assert_int_equal(walk(&p, 0x123, WRITE, true, &out), 0);
    assert_int_equal(out.gpa, 0x12345123);
    assert_int_equal(get4(0x2000), 0x12345000 | ALL | A | D);
    assert_int_equal(get4(0x2004), 0x00007000 | P); /* the other half of the 8 bytes */
    assert_int_equal(walk(&p, 0x1fff, READ, false, &out), 0);
    assert_int_equal(out.gpa, 0x7fff);
    assert_int_equal(get4(0x2004), 0x00007000 | P | A);
    assert_int_equal(get4(0x2000), 0x12345000 | ALL | A | D);
}

static void pse36_pages(void **state)
{
    struct x86_paging p = legacy();
    struct x86_walk out;

    (void)state;
    put4(0x1004, 0x00c00000 | 0x5au << 13 | ALL | PS | 0x1000);
    assert_int_equal(walk(&p, 0x400000 + 0x3fffff, READ, true, &out), 0);
    assert_int_equal(out.gpa, 0x5a00c00000 + 0x3fffff);
    assert_int_equal(out.page_size, 0x400000);
    p.physical_bits = 36;
    expect(&p, 0x400000, READ, true, FAULT(X86_PF_P | X86_PF_RSVD | X86_PF_U));
    put4(0x1004, 0x00c00000 | 0xau << 13 | ALL | PS);
    expect(&p, 0x400000, READ, true, 0);
    put4(0x1004, 0x00c00000 | 1u << 21 | ALL | PS);
    p.physical_bits = 46;
    expect(&p, 0x400000, READ, true, FAULT(X86_PF_P | X86_PF_RSVD | X86_PF_U));
    p.cr4 = 0; /* PS is ignored: a page table at c20... that is not RAM reads as ones */
    assert_int_equal(walk(&p, 0x400000, READ, true, &out), 0);
    assert_int_equal(out.gpa, 0xfffff000);
}

static void tables_outside_ram_read_as_ones(void **state)
{
    struct x86_paging p = long_mode();

    (void)state;
    p.cr3 = 0x7ff000;
    expect(&p, 0, READ, false, FAULT(X86_PF_P | X86_PF_RSVD));
    assert_int_equal(updates, 0);
}

static void pdptes_are_checked_when_loaded(void **state)
{
    static const uint64_t bad[] = {2, 4, 0x20, 0x40, 0x80, 0x100, 1ull << 46, 1ull << 63};
    uint64_t pdpte[4] = {9, 9, 9, 9};

    (void)state;
    memset(&memory, 0, sizeof(memory));
    put8(0x1020, 0x2000 | P | 0x18 | 0xe00);
    put8(0x1028, 0x7fffffffffffffe); /* not present: anything goes */
    assert_true(x86_load_pdptes(&walk_memory, 0xfff01020 & 0x1fff, 46, pdpte));
    assert_int_equal(pdpte[0], 0x2000 | P | 0x18 | 0xe00);
    assert_int_equal(pdpte[2], 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        put8(0x1038, 0x2000 | P | bad[i]);
        pdpte[0] = 9;
        assert_false(x86_load_pdptes(&walk_memory, 0x1020, 46, pdpte));
        assert_int_equal(pdpte[0], 9);
    }
}

/* ---- random page tables against the oracle ---- */

static uint64_t seed = 0x9e3779b97f4a7c15ull;

static uint64_t random64(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static bool one_in(unsigned n)
{
    return random64() % n == 0;
}

static uint64_t random_entry(void)
{
    uint64_t entry = (random64() & 0x7000) | (random64() & 0x1e7) | P;

    if (one_in(8))
        entry ^= P;
    if (!one_in(4))
        entry |= U | W;
    if (!one_in(3))
        entry &= ~(uint64_t)PS;
    if (one_in(4))
        entry |= XD;
    if (one_in(8))
        entry |= 1ull << (random64() % 64);
    if (one_in(4))
        entry |= random64() & (15ull << 59);
    return entry;
}

static void random_paging(struct x86_paging *p)
{
    static const uint32_t cr4_bits[] = {X86_CR4_PSE, X86_CR4_PGE, X86_CR4_SMEP, X86_CR4_SMAP,
                                        X86_CR4_PKE, X86_CR4_PKS, X86_CR4_PAE};

    memset(p, 0, sizeof(*p));
    p->cr0 = X86_CR0_PE | X86_CR0_PG | (one_in(2) ? X86_CR0_WP : 0);
    for (unsigned i = 0; i < 7; i++)
        if (one_in(2))
            p->cr4 |= cr4_bits[i];
    p->cr3 = random64() & 0x7018;
    if (one_in(2))
        p->efer |= X86_EFER_NXE;
    if ((p->cr4 & X86_CR4_PAE) && !one_in(3))
        p->efer |= X86_EFER_LMA | X86_EFER_LME;
    p->rflags = one_in(2) ? X86_FLAG_AC : 0;
    p->pkru = (uint32_t)random64();
    p->pkrs = (uint32_t)random64();
    p->physical_bits = (uint8_t)(36 + random64() % 17);
    p->gigabyte_pages = one_in(2);
    for (unsigned i = 0; i < 4; i++)
        p->pdpte[i] = (random64() & 0x7000) | !one_in(8);
}

static void random_tables(const struct x86_paging *p)
{
    for (uint64_t gpa = 0; gpa < ORACLE_MEMORY_SIZE; gpa += 8) {
        uint64_t entry = random_entry();

        if (!(p->cr4 & X86_CR4_PAE))
            entry = (uint32_t)entry | random_entry() << 32;
        put8(gpa, entry);
    }
}

static void random_walks_agree_with_the_oracle(void **state)
{
    static struct oracle_memory copy;
    unsigned mapped = 0, faults = 0;

    (void)state;
    for (unsigned round = 0; round < 2000; round++) {
        struct x86_walk_cache cache = {0};
        struct x86_paging p;
        uint64_t linear = 0;

        random_paging(&p);
        random_tables(&p);
        p.cache = one_in(2) ? &cache : NULL;
        copy = memory;
        for (unsigned i = 0; i < 100; i++) {
            struct x86_walk out = {0}, expected = {0};
            unsigned access = (unsigned)(random64() % 3) | (one_in(4) ? X86_ACCESS_SUPERVISOR : 0);
            bool user = one_in(2), probe = one_in(4);
            uint32_t got, want;

            if (one_in(2)) /* not by the same page table as the one before */
                linear = random64() & (one_in(2) ? 0xffffffff : 0x7fffffffffff);
            else
                linear = (linear & ~0x1fffffull) | (random64() & 0x1fffff);
            got = x86_walk(&p, &walk_memory, linear, access, user, probe, &out);
            want = oracle_walk(&p, &copy, linear, access, user, probe, &expected);
            if (got != want || !oracle_same(&out, &expected))
                fail_msg("round %u: linear 0x%llx access %u user %d: 0x%x, expected 0x%x", round,
                         (unsigned long long)linear, access, user, got, want);
            got ? faults++ : mapped++;
        }
        assert_memory_equal(&copy, &memory, sizeof(memory));
    }
    assert_true(mapped > 20000 && faults > 20000); /* the generator reaches both */
}

/* ---- other processors ---- */

#define RACE_ROUNDS 100000u

/* What a guest's other processor does to the same entry: count in its ignored bits, clear A and D.
 */
static void *other_processor(void *opaque)
{
    uint64_t *entry = opaque;

    for (unsigned i = 0; i < RACE_ROUNDS; i++) {
        __atomic_fetch_add(entry, 1ull << 52, __ATOMIC_SEQ_CST);
        if (i % 4 == 0)
            __atomic_fetch_and(entry, ~(uint64_t)(A | D), __ATOMIC_SEQ_CST);
    }
    return NULL;
}

static void flags_are_set_without_losing_other_writes(void **state)
{
    struct x86_paging p = long_mode();
    uint64_t *entry = (uint64_t *)(memory.bytes + 0x4000);
    struct x86_walk out;
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, other_processor, entry), 0);
    for (unsigned i = 0; i < RACE_ROUNDS; i++) {
        assert_int_equal(walk(&p, 0, WRITE, true, &out), 0);
        assert_int_equal(out.gpa, 0x12345000);
    }
    pthread_join(thread, NULL);
    assert_int_equal(*entry >> 52, RACE_ROUNDS & 0xfff);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_paging_linear_is_physical),
        cmocka_unit_test(page_sizes_of_4_level),
        cmocka_unit_test(a_and_d_are_set_where_the_walk_went),
        cmocka_unit_test(a_fault_leaves_the_leaf_alone),
        cmocka_unit_test(probing_changes_nothing),
        cmocka_unit_test(a_fault_leaves_the_result_alone),
        cmocka_unit_test(error_code_tells_fetches_only_with_nx_or_smep),
        cmocka_unit_test(xd_is_reserved_without_nxe),
        cmocka_unit_test(wp_binds_the_supervisor),
        cmocka_unit_test(smep_and_smap_guard_user_pages),
        cmocka_unit_test(implicit_supervisor_accesses_ignore_cpl),
        cmocka_unit_test(protection_keys_of_user_pages),
        cmocka_unit_test(protection_keys_of_supervisor_pages),
        cmocka_unit_test(reserved_bits_of_4_level),
        cmocka_unit_test(ignored_bits_of_4_level),
        cmocka_unit_test(pae_walk_uses_the_registers),
        cmocka_unit_test(legacy_walk_and_its_neighbours),
        cmocka_unit_test(pse36_pages),
        cmocka_unit_test(tables_outside_ram_read_as_ones),
        cmocka_unit_test(pdptes_are_checked_when_loaded),
        cmocka_unit_test(random_walks_agree_with_the_oracle),
        cmocka_unit_test(flags_are_set_without_losing_other_writes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
