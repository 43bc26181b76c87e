/*
 * fuzz_paging.c - page tables of a hostile guest: no crash, and the same answer as the oracle
 *
 * Input: the registers, then a list of accesses (first byte of the rest: how many), then the
 * contents of the guest's memory, repeated as often as it takes to fill it.
 */
#include <stdlib.h>

#include "../tests/unit/paging_oracle.h"

struct input {
    uint64_t cr0, cr3, cr4, efer, rflags;
    uint64_t pdpte[4];
    uint32_t pkru, pkrs;
    uint8_t physical_bits;
    uint8_t gigabyte_pages;
    uint8_t access_count;
};

struct access {
    uint64_t linear;
    uint8_t kind, flags;
};

static struct oracle_memory memory, copy;

static void updated(void *opaque, uint64_t gpa)
{
    (void)opaque;
    if (gpa >= ORACLE_MEMORY_SIZE)
        abort();
}

static void fill(struct x86_paging *p, const struct input *in)
{
    p->cr0 = in->cr0;
    p->cr3 = in->cr3 & 0x7fff;
    p->cr4 = in->cr4;
    p->efer = in->efer;
    if (!(p->cr4 & X86_CR4_PAE))
        p->efer &= ~(uint64_t)X86_EFER_LMA; /* as control.c sees to */
    p->rflags = in->rflags;
    for (unsigned i = 0; i < 4; i++)
        p->pdpte[i] = in->pdpte[i] & 0x7001;
    p->pkru = in->pkru;
    p->pkrs = in->pkrs;
    p->physical_bits = (uint8_t)(36 + in->physical_bits % 17);
    p->gigabyte_pages = in->gigabyte_pages & 1;
}

static void try(const struct x86_paging *p, const struct access *a)
{
    static const struct x86_walk_memory walk_memory = {oracle_entry, updated, &memory};
    struct x86_walk out = {0}, expected = {0};
    unsigned access = a->kind % 3 | (a->flags & X86_ACCESS_SUPERVISOR);
    uint32_t got, want;

    got = x86_walk(p, &walk_memory, a->linear, access, a->flags & 1, a->flags & 2, &out);
    want = oracle_walk(p, &copy, a->linear, access, a->flags & 1, a->flags & 2, &expected);
    if (got != want || !oracle_same(&out, &expected))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *accesses;
    struct x86_paging p = {0};
    struct input in;
    uint64_t pdpte[4];

    if (size < sizeof(in))
        return 0;
    memcpy(&in, data, sizeof(in));
    data += sizeof(in);
    size -= sizeof(in);
    in.access_count %= 16;
    if (size < in.access_count * sizeof(struct access) + 1)
        return 0;
    accesses = data;
    data += in.access_count * sizeof(struct access);
    size -= in.access_count * sizeof(struct access);
    for (size_t at = 0; at < ORACLE_MEMORY_SIZE; at++)
        memory.bytes[at] = data[at % size];
    copy = memory;
    fill(&p, &in);
    for (unsigned i = 0; i < in.access_count; i++) {
        struct access a;

        memcpy(&a, accesses + i * sizeof(a), sizeof(a));
        try(&p, &a);
    }
    if (memcmp(&copy, &memory, sizeof(memory)))
        abort();
    x86_load_pdptes(&(struct x86_walk_memory){oracle_entry, updated, &memory}, in.cr3,
                    p.physical_bits, pdpte);
    return 0;
}
