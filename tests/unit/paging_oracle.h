/*
 * paging_oracle.h - the page walk a second time, written as a loop over a table
 *
 * For test_paging and fuzz_paging. Slow and plain, after the tables of SDM vol. 3,
 * chapter 4, and without a line of src/x86/paging.c: formats are data here. It works on its
 * own copy of the page tables and sets A and D in it, so that a test can compare memory too.
 */
#ifndef PAGING_ORACLE_H
#define PAGING_ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "x86/paging.h"

#define ORACLE_MEMORY_SIZE 0x8000u /* guest-physical memory from 0 */

struct oracle_memory {
    uint8_t bytes[ORACLE_MEMORY_SIZE] __attribute__((aligned(4096)));
};

struct oracle_level {
    unsigned shift; /* of the index in the linear address */
    unsigned index_bits;
    bool may_map; /* PS makes it a page */
};

struct oracle_format {
    unsigned entry_bytes;
    unsigned level_count;
    struct oracle_level levels[4];
};

static const struct oracle_format oracle_32bit = {4, 2, {{22, 10, true}, {12, 10, false}}};
static const struct oracle_format oracle_pae = {8, 2, {{21, 9, true}, {12, 9, false}}};
static const struct oracle_format oracle_4level = {
    8, 4, {{39, 9, false}, {30, 9, true}, {21, 9, true}, {12, 9, false}}};

static uint64_t oracle_bits(unsigned high, unsigned low)
{
    return (high == 63 ? UINT64_MAX : (1ull << (high + 1)) - 1) & ~((1ull << low) - 1);
}

static uint64_t oracle_load(const struct oracle_memory *m, uint64_t gpa, unsigned size)
{
    uint64_t value = 0;

    if (gpa > ORACLE_MEMORY_SIZE - size)
        return size == 4 ? UINT32_MAX : UINT64_MAX;
    memcpy(&value, m->bytes + gpa, size);
    return value;
}

static void oracle_set(struct oracle_memory *m, uint64_t gpa, uint64_t flags)
{
    if (gpa < ORACLE_MEMORY_SIZE)
        m->bytes[gpa] |= (uint8_t)flags; /* A and D are in the first byte */
}

/* Reserved bits of an entry; maps: it maps a page. */
static uint64_t oracle_reserved(const struct x86_paging *p, const struct oracle_format *f,
                                unsigned level, bool maps)
{
    unsigned shift = f->levels[level].shift, m = p->physical_bits;
    bool leaf_level = level + 1 == f->level_count;
    uint64_t reserved = 0;

    if (f == &oracle_32bit) {
        if (!maps || leaf_level)
            return 0;
        return oracle_bits(21, m > 40 ? 40 - 19 : m - 19);
    }
    if (m < 52)
        reserved |= oracle_bits(51, m);
    if (!(p->efer & X86_EFER_NXE))
        reserved |= 1ull << 63;
    if (f == &oracle_pae)
        reserved |= oracle_bits(62, 52);
    if (maps && !leaf_level)
        reserved |= oracle_bits(shift - 1, 13);
    if (!maps && !leaf_level && f == &oracle_4level &&
        (shift == 39 || (shift == 30 && !p->gigabyte_pages)))
        reserved |= 0x80;
    return reserved;
}

static bool oracle_may_map(const struct x86_paging *p, const struct oracle_format *f,
                           unsigned level)
{
    if (!f->levels[level].may_map)
        return false;
    if (f == &oracle_32bit)
        return p->cr4 & X86_CR4_PSE;
    return f->levels[level].shift != 30 || p->gigabyte_pages;
}

struct oracle_access {
    unsigned kind;
    bool user, implicit, probe;
};

/* Would the rights of a whole path allow a kind of access? key_fault: the protection key forbids.
 */
static bool oracle_allows(const struct x86_paging *p, const struct oracle_access *a, unsigned kind,
                          const struct x86_walk *w, bool *key_fault)
{
    bool keys = (p->cr4 & (w->user ? X86_CR4_PKE : X86_CR4_PKS)) && (p->efer & X86_EFER_LMA);
    uint32_t pkr = w->user ? p->pkru : p->pkrs;
    bool wp = p->cr0 & X86_CR0_WP;
    bool ad = pkr >> (w->key * 2) & 1, wd = pkr >> (w->key * 2 + 1) & 1;

    *key_fault = keys && kind != X86_ACCESS_EXECUTE &&
                 (ad || (wd && kind == X86_ACCESS_WRITE && (a->user || wp)));
    if (*key_fault)
        return false;
    if (a->user && !w->user)
        return false;
    if (kind == X86_ACCESS_EXECUTE)
        return w->executable && !(!a->user && w->user && (p->cr4 & X86_CR4_SMEP));
    if (!a->user && w->user && (p->cr4 & X86_CR4_SMAP) &&
        (a->implicit || !(p->rflags & X86_FLAG_AC)))
        return false;
    return kind == X86_ACCESS_READ || w->writable || (!a->user && !wp);
}

static uint32_t oracle_fault(const struct x86_paging *p, const struct oracle_access *a,
                             uint32_t extra)
{
    uint32_t code = X86_WALK_FAULT | extra;

    if (a->kind == X86_ACCESS_WRITE)
        code |= X86_PF_W;
    if (a->user)
        code |= X86_PF_U;
    if (a->kind == X86_ACCESS_EXECUTE &&
        ((p->cr4 & X86_CR4_SMEP) || ((p->cr4 & X86_CR4_PAE) && (p->efer & X86_EFER_NXE))))
        code |= X86_PF_I;
    return code;
}

static uint32_t oracle_leaf(const struct x86_paging *p, const struct oracle_access *a,
                            struct oracle_memory *m, uint64_t gpa, uint64_t entry,
                            struct x86_walk *w)
{
    bool write = a->kind == X86_ACCESS_WRITE, key_fault, ignored;
    uint64_t flags = write ? 0x60 : 0x20;

    if (!oracle_allows(p, a, a->kind, w, &key_fault))
        return oracle_fault(p, a, X86_PF_P | (key_fault ? X86_PF_PK : 0));
    if (!a->probe)
        oracle_set(m, gpa, flags);
    w->dirty = (entry & 0x40) || (write && !a->probe);
    w->can_read = oracle_allows(p, a, X86_ACCESS_READ, w, &ignored);
    w->can_write = oracle_allows(p, a, X86_ACCESS_WRITE, w, &ignored) && w->dirty;
    w->can_execute = oracle_allows(p, a, X86_ACCESS_EXECUTE, w, &ignored);
    return 0;
}

static uint64_t oracle_page(const struct oracle_format *f, unsigned level, uint64_t entry)
{
    uint64_t page = entry & oracle_bits(f == &oracle_32bit ? 31 : 51, f->levels[level].shift);

    if (f == &oracle_32bit && level == 0)
        page |= (entry >> 13 & 0xff) << 32;
    return page;
}

static uint32_t oracle_walk(const struct x86_paging *p, struct oracle_memory *m, uint64_t linear,
                            unsigned access, bool user, bool probe, struct x86_walk *out)
{
    const struct oracle_format *f = !(p->cr4 & X86_CR4_PAE)  ? &oracle_32bit
                                    : p->efer & X86_EFER_LMA ? &oracle_4level
                                                             : &oracle_pae;
    bool implicit = access & X86_ACCESS_SUPERVISOR;
    struct oracle_access a = {access & X86_ACCESS_KIND, user && !implicit, implicit, probe};
    struct x86_walk w = {.user = true, .writable = true, .executable = true};
    uint64_t table = p->cr3 & (f == &oracle_32bit ? 0xfffff000 : oracle_bits(51, 12));

    if (!(p->cr0 & X86_CR0_PG)) {
        *out = (struct x86_walk){
            (uint32_t)linear, 4096, true, true, true, false, true, 0, true, true, true};
        return 0;
    }
    if (f != &oracle_4level)
        linear = (uint32_t)linear;
    if (f == &oracle_pae) {
        if (!(p->pdpte[linear >> 30] & 1))
            return oracle_fault(p, &a, 0);
        table = p->pdpte[linear >> 30] & oracle_bits(51, 12);
    }
    for (unsigned level = 0;; level++) {
        const struct oracle_level *l = &f->levels[level];
        uint64_t index = linear >> l->shift & ((1u << l->index_bits) - 1);
        uint64_t gpa = table + index * f->entry_bytes;
        uint64_t entry = oracle_load(m, gpa, f->entry_bytes);
        bool maps = level + 1 == f->level_count || ((entry & 0x80) && oracle_may_map(p, f, level));

        if (!(entry & 1))
            return oracle_fault(p, &a, 0);
        if (entry & oracle_reserved(p, f, level, maps))
            return oracle_fault(p, &a, X86_PF_P | X86_PF_RSVD);
        w.writable = w.writable && (entry & 2);
        w.user = w.user && (entry & 4);
        if (f != &oracle_32bit && (p->efer & X86_EFER_NXE) && entry >> 63)
            w.executable = false;
        if (maps) {
            uint32_t result;

            w.page_size = 1ull << l->shift;
            w.gpa = oracle_page(f, level, entry) + (linear & (w.page_size - 1));
            w.global = (entry & 0x100) && (p->cr4 & X86_CR4_PGE);
            if (f == &oracle_4level && (p->cr4 & (w.user ? X86_CR4_PKE : X86_CR4_PKS)))
                w.key = entry >> 59 & 15;
            result = oracle_leaf(p, &a, m, gpa, entry, &w);
            if (!result)
                *out = w;
            return result;
        }
        if (!probe)
            oracle_set(m, gpa, 0x20);
        table = entry & (f == &oracle_32bit ? 0xfffff000 : oracle_bits(51, 12));
    }
}

/* struct x86_walk_memory over an oracle_memory. */
static void *oracle_entry(void *opaque, uint64_t gpa)
{
    struct oracle_memory *m = opaque;

    return gpa <= ORACLE_MEMORY_SIZE - 8 ? m->bytes + gpa : NULL;
}

static bool oracle_same(const struct x86_walk *a, const struct x86_walk *b)
{
    return a->gpa == b->gpa && a->page_size == b->page_size && a->user == b->user &&
           a->writable == b->writable && a->executable == b->executable && a->global == b->global &&
           a->dirty == b->dirty && a->key == b->key && a->can_read == b->can_read &&
           a->can_write == b->can_write && a->can_execute == b->can_execute;
}

#endif
