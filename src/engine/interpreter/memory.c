/*
 * memory.c - how the interpreter reaches guest memory: the software TLB
 *
 * Theory of operation. A TLB entry gives a host address for a linear page that may
 * be read (or written) without asking. Everything else misses on purpose and comes
 * here: first touches, page crossings, device memory, pages that hold decoded code
 * (writes), watched pages, and all of it while alignment checks are on.
 *
 * Each privilege has a table of its own, so changing privilege flushes nothing:
 * kernel, user, kernel with SMAP lifted (EFLAGS.AC), and "slow", which stays empty.
 *
 * A page walk reads page tables through the flat view that the vCPU holds while it
 * runs (SDM vol. 3, chapter 4; src/x86/paging.c).
 */
#include "engine/interpreter/interpreter.h"
#include "engine/interpreter/meter.h"
#include "engine/interpreter/tlb.h"

#include <stdatomic.h>

#include "trapeze/machine.h"
#include "x86/control.h"

/* Where one access within one page goes. */
struct place {
    uint64_t gpa;
    uint8_t *host; /* NULL: device or nothing */
    const struct flat_range *range;
    struct x86_walk walk;
};

/* ---- guest-physical ---- */

static const struct flat_range *find_range(struct icpu *c, uint64_t gpa)
{
    const struct flat_range *r = c->last_range;

    if (r && gpa - r->gpa < r->size_bytes)
        return r;
    r = flat_view_find(c->view, gpa);
    if (r && r->region->kind != REGION_DEVICE)
        c->last_range = r;
    return r;
}

static uint8_t *range_host(const struct flat_range *r, uint64_t gpa)
{
    return r && r->region->hva ? r->region->hva + r->offset + (gpa - r->gpa) : NULL;
}

static uint64_t apply_a20(const struct icpu *c, uint64_t gpa)
{
    return likely(atomic_load_explicit(c->a20, memory_order_relaxed)) ? gpa : gpa & ~(1ull << 20);
}

static void *walk_entry(void *opaque, uint64_t gpa)
{
    struct icpu *c = opaque;
    const struct flat_range *r = find_range(c, apply_a20(c, gpa));

    return r && r->region->kind == REGION_RAM ? range_host(r, apply_a20(c, gpa)) : NULL;
}

static uint64_t ram_offset_of(const struct flat_range *r, uint64_t gpa)
{
    return r->region->ram_offset + r->offset + (gpa - r->gpa);
}

static void mark_dirty(const struct icpu *c, uint64_t ram_offset, size_t size)
{
    const struct interpreter *t = c->interpreter;

    if (atomic_load_explicit(&t->dirty_tracking, memory_order_relaxed) ||
        ram_offset >= t->ram_bytes)
        memory_dirty_mark(t->memory, ram_offset, size);
}

/* A or D was set in a page table: that is a write like any other. */
static void walk_updated(void *opaque, uint64_t gpa)
{
    struct icpu *c = opaque;
    const struct flat_range *r = find_range(c, apply_a20(c, gpa));
    struct code_page *page;

    if (!r)
        return;
    page = code_page_at(c->interpreter, r, gpa);
    if (page)
        code_page_written(c, page, gpa & 0xff8, 8);
    mark_dirty(c, ram_offset_of(r, gpa), 8);
}

const struct x86_walk_memory interp_walk_memory = {.entry = walk_entry, .updated = walk_updated};

/* ---- the local APIC's page ---- */

static bool is_apic_page(const struct icpu *c, uint64_t gpa)
{
    const struct vcpu *v = c->vcpu;

    return v->apic_ops && ((v->apic_ops->base(v->apic) ^ gpa) & 0x000ffffffffff000ull) == 0;
}

/* Globally enabled and not in x2APIC mode (SDM vol. 3, 11.12.1) */
static bool is_own_apic(const struct icpu *c, uint64_t gpa)
{
    return is_apic_page(c, gpa) && (c->vcpu->apic_ops->base(c->vcpu->apic) & 0xc00) == 0x800;
}

/* ---- translation ---- */

static noreturn void page_fault(struct icpu *c, const struct op *i, uint64_t linear, uint32_t code)
{
    if (i)
        interp_sync(c, i);
    c->cpu.s.cr2 = linear;
    x86_raise_code(&c->cpu, X86_PF, code);
}

/* #SS(0) for stack accesses, #GP(0) for the others (SDM vol. 1, 3.3.7.1). */
static noreturn void bad_address(struct icpu *c, const struct op *i)
{
    if (i)
        interp_raise_code(c, i, i->seg == X86_SS ? X86_SS_FAULT : X86_GP, 0);
    x86_raise_code(&c->cpu, X86_GP, 0);
}

static bool is_watched(const struct icpu *c, uint64_t linear)
{
    if (!c->watching)
        return false;
    for (unsigned n = 0; n < 4; n++)
        if ((c->cpu.s.dr7 >> (2 * n) & 3) && (c->cpu.s.dr7 >> (16 + 4 * n) & 1) &&
            (c->cpu.s.dr[n] ^ linear) < 0x1000)
            return true;
    for (unsigned n = 0; c->debug && n < c->debug->point_count; n++) {
        const struct debug_point *p = &c->debug->points[n];

        if (p->kind != DEBUG_BREAKPOINT && p->gva < (linear | 0xfff) + 1 &&
            p->gva + p->size_bytes > (linear & ~0xfffull))
            return true;
    }
    return false;
}

/* Where no code is decoded. Pairs with code_page_claim, which closes the guard first. */
static bool may_write(struct code_page *page)
{
    if (!atomic_load_explicit(&page->may_be_written, memory_order_relaxed))
        atomic_store_explicit(&page->may_be_written, 1, memory_order_seq_cst);
    return atomic_load_explicit(&page->guard, memory_order_seq_cst) == GUARD_OPEN;
}

/* Nobody has to hear of each of them. */
static bool writes_are_free(const struct icpu *c, const struct place *p)
{
    const struct interpreter *t = c->interpreter;
    uint64_t ram_offset = ram_offset_of(p->range, p->gpa);

    return !atomic_load_explicit(&t->dirty_tracking, memory_order_relaxed) &&
           (ram_offset < t->ram_bytes || memory_watch_allows(t->memory, ram_offset));
}

static void fill(struct icpu *c, struct tlb_entry *tlb, uint64_t linear, const struct place *p)
{
    unsigned slot = tlb_index(linear), kind = (unsigned)(tlb - c->tlbs[0]) / TLB_SIZE;
    struct tlb_entry *e = &tlb[slot];
    uint64_t page = linear & GUEST_PAGE_MASK;
    struct code_page *code;
    uint64_t list;

    if (!p->host || tlb == c->tlbs[TLB_SLOW] || is_watched(c, page))
        return;
    meter_count(c, METER_TLB_FILLS);
    code = code_page_at(c->interpreter, p->range, p->gpa);
    list = (uint64_t)TLB_IN_LIST << p->walk.global;
    if (!(e->ram & list)) {
        struct tlb_filled *filled = &c->tlb_filled[p->walk.global][kind];

        filled->slots[filled->count++] = (uint16_t)slot;
    }
    if (p->walk.user)
        c->tlb_keys |= (uint16_t)(1u << p->walk.key);
    e->addend = (uintptr_t)p->host - linear;
    e->ram = tlb_ram(c, code) | (e->ram & (TLB_IN_LIST | TLB_IN_LIST << 1)) | list |
             (p->walk.global ? TLB_GLOBAL : 0);
    if (p->walk.page_size > GUEST_PAGE_SIZE) {
        e->ram |= TLB_LARGE;
        tlb_note_large_page(c, linear, p->walk.page_size);
    }
    e->read = p->walk.can_read ? page : tlb_never(slot);
    e->write = p->walk.can_write && p->range->region->kind == REGION_RAM && code &&
                       may_write(code) && !(c->block && block_is_from(c->block, code)) &&
                       writes_are_free(c, p)
                   ? page
                   : tlb_never(slot);
    if (e->write != page && e->read == page && p->walk.can_write && code &&
        p->range->region->kind == REGION_RAM)
        e->ram |= TLB_GUARDED;
}

/* Ranges that end inside a page cannot be entered into the TLB as a whole. */
static bool range_covers_page(const struct flat_range *r, uint64_t gpa)
{
    uint64_t page = gpa & GUEST_PAGE_MASK;

    return r->gpa <= page && r->gpa + r->size_bytes - page >= GUEST_PAGE_SIZE;
}

static void refresh_paging(struct icpu *c, bool smap_open)
{
    c->paging.rflags = smap_open ? X86_FLAG_AC : 0;
    c->paging.cr3 = c->cpu.s.cr3;
    c->paging.pkru = c->cpu.s.fpu.pkru;
}

/* Translate one access that does not cross a page; raises #PF. */
static void translate(struct icpu *c, const struct op *i, uint64_t linear, unsigned access,
                      struct place *out)
{
    bool implicit = access & X86_ACCESS_SUPERVISOR;
    bool user = c->cpu.cpl == 3 && !implicit;
    uint32_t fault;
    bool smap_open = !user && !implicit && (c->cpu.s.rflags & X86_FLAG_AC);
    struct tlb_entry *tlb = c->tlb;
    enum meter_part before;

    if (implicit && c->cpu.cpl == 3)
        tlb = c->tlbs[TLB_KERNEL];
    else if (implicit && c->tlb_kind == TLB_KERNEL_SMAP_OPEN)
        tlb = c->tlbs[TLB_KERNEL];
    refresh_paging(c, smap_open);
    before = meter_to(c, METER_WALKS);
    fault = x86_walk(&c->paging, &c->walk_memory, linear, access, user, false, &out->walk);
    meter_to(c, before);
    if (unlikely(fault))
        page_fault(c, i, linear, fault & ~X86_WALK_FAULT);
    out->gpa = apply_a20(c, out->walk.gpa);
    out->range = find_range(c, out->gpa);
    out->host = range_host(out->range, out->gpa);
    if (unlikely(is_apic_page(c, out->gpa))) { /* in front of what else is there, while it is on */
        if (is_own_apic(c, out->gpa))
            out->host = NULL;
    } else if (out->range && range_covers_page(out->range, out->gpa)) {
        fill(c, tlb, linear, out);
    }
}

/* ---- devices and the local APIC ---- */

static uint64_t device_read(struct icpu *c, const struct op *i, uint64_t gpa, unsigned size)
{
    enum meter_part before;
    uint64_t value;

    interp_sync_clock(c, i);
    meter_count(c, is_own_apic(c, gpa) ? METER_APIC_ACCESSES : METER_DEVICE_ACCESSES);
    before = meter_to(c, METER_DEVICES);
    if (is_own_apic(c, gpa)) {
        value = c->vcpu->apic_ops->mmio_read(c->vcpu->apic, gpa & 0xfff, size);
    } else {
        code_pages_leave(c);
        value = bus_memory_read(c->interpreter->machine, gpa, size);
        code_pages_enter(c);
    }
    meter_to(c, before);
    return value;
}

static void device_write(struct icpu *c, const struct op *i, uint64_t gpa, uint64_t value,
                         unsigned size)
{
    enum meter_part before;

    interp_sync_clock(c, i);
    meter_count(c, is_own_apic(c, gpa) ? METER_APIC_ACCESSES : METER_DEVICE_ACCESSES);
    before = meter_to(c, METER_DEVICES);
    if (is_own_apic(c, gpa)) {
        c->vcpu->apic_ops->mmio_write(c->vcpu->apic, gpa & 0xfff, value, size);
    } else {
        code_pages_leave(c);
        bus_memory_write(c->interpreter->machine, gpa, value, size);
        code_pages_enter(c);
    }
    meter_to(c, before);
}

/* ---- accesses within one page ---- */

static uint64_t truncate(uint64_t value, unsigned size)
{
    return size == 8 ? value : value & ((1ull << (8 * size)) - 1);
}

static uint64_t read_place(struct icpu *c, const struct op *i, const struct place *p, unsigned size)
{
    uint64_t value = 0;

    if (likely(p->host)) {
        switch (size) { /* one access each, so that other vCPUs see and leave no torn values */
        case 1:
            return ram_load8(p->host);
        case 2:
            return ram_load16(p->host);
        case 4:
            return ram_load32(p->host);
        case 8:
            return ram_load64(p->host);
        default:
            ram_copy(&value, p->host, size);
            return value;
        }
    }
    return truncate(device_read(c, i, p->gpa, size), size);
}

static void host_was_written(struct icpu *c, struct code_page *page, uint64_t ram_offset,
                             size_t size)
{
    if (page)
        code_page_written(c, page, ram_offset & 0xfff, size);
    mark_dirty(c, ram_offset, size);
}

static void ram_was_written(struct icpu *c, const struct place *p, size_t size)
{
    host_was_written(c, code_page_at(c->interpreter, p->range, p->gpa),
                     ram_offset_of(p->range, p->gpa), size);
}

static void write_host(uint8_t *host, const void *data, size_t size)
{
    switch (size) { /* as in read_place */
    case 2:
        ram_copy(host, data, 2);
        break;
    case 4:
        ram_copy(host, data, 4);
        break;
    case 8:
        ram_copy(host, data, 8);
        break;
    default:
        ram_copy(host, data, size);
    }
}

static void write_ram(struct icpu *c, const struct place *p, const void *data, size_t size)
{
    write_host(p->host, data, size);
    ram_was_written(c, p, size);
}

static void write_place(struct icpu *c, const struct op *i, const struct place *p, uint64_t value,
                        unsigned size)
{
    if (likely(p->host)) {
        if (p->range->region->kind == REGION_RAM)
            write_ram(c, p, &value, size); /* little-endian host */
        return;                            /* ROM ignores writes */
    }
    device_write(c, i, p->gpa, value, size);
}

/* ---- debug watchpoints (SDM vol. 3, 17.2.4) ---- */

static void watch_guest(struct icpu *c, uint64_t linear, size_t size, bool write)
{
    struct x86_state *s = &c->cpu.s;
    static const uint8_t lengths[4] = {1, 2, 8, 4};

    for (unsigned n = 0; n < 4; n++) {
        unsigned type = s->dr7 >> (16 + 4 * n) & 3, length = lengths[s->dr7 >> (18 + 4 * n) & 3];
        uint64_t start = s->dr[n] & ~(uint64_t)(length - 1);

        if (!(s->dr7 >> (2 * n) & 3) || !(type == 3 || (type == 1 && write)))
            continue;
        if (linear < start + length && start < linear + size) {
            s->pending.debug_traps |= 1u << n;
            atomic_store(&c->attention, ATTENTION_EVENT);
        }
    }
}

static void watch_debugger(struct icpu *c, uint64_t linear, size_t size, bool write)
{
    for (unsigned n = 0; n < c->debug->point_count; n++) {
        const struct debug_point *p = &c->debug->points[n];

        if (p->kind != (write ? DEBUG_WATCH_WRITE : DEBUG_WATCH_READ))
            continue;
        if (linear < p->gva + p->size_bytes && p->gva < linear + size) {
            c->debug_hit = true;
            c->debug_exit = (struct vcpu_exit){.reason = EXIT_DEBUG,
                                               .debug = {.cause = p->kind, .gva = p->gva}};
            atomic_store(&c->attention, ATTENTION_EVENT);
        }
    }
}

static void watch(struct icpu *c, const struct op *i, uint64_t linear, size_t size, bool write)
{
    meter_count(c, METER_WATCHED);
    watch_guest(c, linear, size, write);
    if (c->debug)
        watch_debugger(c, linear, size, write);
    /* The trap comes after this instruction: go on through the run loop. */
    if (i && atomic_load_explicit(&c->attention, memory_order_relaxed))
        block_cut(c, i);
}

/* ---- slow paths ---- */

static void check_access(struct icpu *c, const struct op *i, uint64_t linear, unsigned size)
{
    c->insn = i;
    if (unlikely(!x86_is_canonical(linear) || !x86_is_canonical(linear + size - 1)))
        bad_address(c, i);
    if (unlikely(c->tlb_kind == TLB_SLOW && i && (linear & (size - 1)))) {
        interp_sync(c, i);
        x86_raise_code(&c->cpu, X86_AC, 0);
    }
}

static bool crosses_page(uint64_t linear, size_t size)
{
    return (linear & 0xfff) + size > 0x1000;
}

/* Linear addresses wrap at 4 GiB outside 64-bit mode. */
static uint64_t second_page(const struct icpu *c, uint64_t linear)
{
    uint64_t next = (linear & GUEST_PAGE_MASK) + 0x1000;

    return c->code_size == X86_CODE_64 ? next : next & 0xffffffff;
}

static uint64_t load(struct icpu *c, const struct op *i, uint64_t linear, unsigned size,
                     unsigned access)
{
    struct place p, q;
    unsigned first = 0x1000 - (linear & 0xfff);

    if (likely(!crosses_page(linear, size))) {
        translate(c, i, linear, access, &p);
        return read_place(c, i, &p, size);
    }
    meter_count(c, METER_CROSSING);
    translate(c, i, linear, access, &p);
    translate(c, i, second_page(c, linear), access, &q);
    return read_place(c, i, &p, first) | read_place(c, i, &q, size - first) << (8 * first);
}

/* A page that may be written and is in the TLB, but for reading only, so that writes come here. */
static bool store_guarded(struct icpu *c, uint64_t linear, uint64_t value, unsigned size)
{
    const struct tlb_entry *e = tlb_slot(c, linear);
    struct code_page *page;

    if (!(e->ram & TLB_GUARDED) || (linear ^ e->read) > 0x1000 - size)
        return false;
    page = &c->interpreter->code_pages[e->ram >> 12];
    if (atomic_load_explicit(&page->guard, memory_order_relaxed) == GUARD_OPEN)
        return false;
    meter_count(c, METER_GUARDED);
    write_host((uint8_t *)(linear + e->addend), &value, size); /* little-endian host */
    host_was_written(c, page, (e->ram & GUEST_PAGE_MASK) | (linear & 0xfff), size);
    return true;
}

static void store(struct icpu *c, const struct op *i, uint64_t linear, uint64_t value,
                  unsigned size, unsigned access)
{
    struct place p, q;
    unsigned first = 0x1000 - (linear & 0xfff);

    if (access == X86_ACCESS_WRITE && store_guarded(c, linear, value, size))
        return;
    if (likely(!crosses_page(linear, size))) {
        translate(c, i, linear, access, &p);
        write_place(c, i, &p, value, size);
        return;
    }
    meter_count(c, METER_CROSSING);
    translate(c, i, linear, access, &p);
    translate(c, i, second_page(c, linear), access, &q);
    write_place(c, i, &p, truncate(value, first), first);
    write_place(c, i, &q, truncate(value >> (8 * first), size - first), size - first);
}

uint64_t interp_load_slow(struct icpu *c, const struct op *i, uint64_t linear, unsigned size)
{
    uint64_t value;

    check_access(c, i, linear, size);
    value = load(c, i, linear, size, X86_ACCESS_READ);
    if (unlikely(c->watching))
        watch(c, i, linear, size, false);
    return value;
}

void interp_store_slow(struct icpu *c, const struct op *i, uint64_t linear, uint64_t value,
                       unsigned size)
{
    check_access(c, i, linear, size);
    store(c, i, linear, value, size, X86_ACCESS_WRITE);
    if (unlikely(c->watching))
        watch(c, i, linear, size, true);
}

uint64_t interp_load_for_write(struct icpu *c, const struct op *i, uint64_t linear, unsigned size)
{
    uint64_t value;

    check_access(c, i, linear, size);
    value = load(c, i, linear, size, X86_ACCESS_WRITE);
    if (unlikely(c->watching))
        watch(c, i, linear, size, false);
    return value;
}

/* Compare and exchange in RAM, atomic for every vCPU, also those that go through their TLB. */
static bool exchange_ram(void *host, uint64_t expected, uint64_t value, unsigned size)
{
    uint8_t seen8 = (uint8_t)expected;
    uint16_t seen16 = (uint16_t)expected;
    uint32_t seen32 = (uint32_t)expected;

    switch (size) {
    case 1:
        return ram_atomic_swap8(host, &seen8, (uint8_t)value);
    case 2:
        return ram_atomic_swap16(host, &seen16, (uint16_t)value);
    case 4:
        return ram_atomic_swap32(host, &seen32, (uint32_t)value);
    default:
        return ram_atomic_swap64(host, &expected, value);
    }
}

/* Devices, ROM and operands that cross a page: other accesses of this kind are kept out. */
static bool exchange_split(struct icpu *c, const struct op *i, uint64_t linear, uint64_t expected,
                           uint64_t value, unsigned size)
{
    bool equal;

    host_mutex_lock(&c->interpreter->split_lock);
    equal = load(c, i, linear, size, X86_ACCESS_WRITE) == expected;
    if (equal)
        store(c, i, linear, value, size, X86_ACCESS_WRITE);
    host_mutex_unlock(&c->interpreter->split_lock);
    return equal;
}

/* The access was probed by interp_load_for_write, so nothing faults here. */
bool interp_compare_exchange(struct icpu *c, const struct op *i, uint64_t linear, uint64_t expected,
                             uint64_t value, unsigned size)
{
    struct place p = {0};
    bool equal;

    if (likely(!crosses_page(linear, size)))
        translate(c, i, linear, X86_ACCESS_WRITE, &p);
    if (likely(p.host) && p.range->region->kind == REGION_RAM) {
        equal = exchange_ram(p.host, expected, value, size);
        if (equal)
            ram_was_written(c, &p, size);
    } else {
        equal = exchange_split(c, i, linear, expected, value, size);
    }
    if (unlikely(c->watching) && equal)
        watch(c, i, linear, size, true);
    return equal;
}

void interp_probe_write(struct icpu *c, const struct op *i, uint64_t linear, size_t size)
{
    struct place p;

    check_access(c, i, linear, 1);
    translate(c, i, linear, X86_ACCESS_WRITE, &p);
    for (uint64_t next = second_page(c, linear); crosses_page(linear, size);
         next = second_page(c, next)) {
        size -= 0x1000 - (linear & 0xfff);
        linear = next;
        translate(c, i, linear, X86_ACCESS_WRITE, &p);
    }
}

static size_t bytes_in_page(uint64_t linear, size_t size)
{
    size_t room = 0x1000 - (linear & 0xfff);

    return size < room ? size : room;
}

void interp_load_bytes(struct icpu *c, const struct op *i, uint64_t linear, void *out, size_t size)
{
    struct place p;

    while (size) {
        size_t part = bytes_in_page(linear, size);
        const struct tlb_entry *e = tlb_slot(c, linear);

        if (likely((linear ^ e->read) < 0x1000)) {
            ram_copy(out, (const void *)(linear + e->addend), part);
        } else {
            check_access(c, i, linear, 1);
            translate(c, i, linear, X86_ACCESS_READ, &p);
            if (p.host)
                ram_copy(out, p.host, part);
            else
                for (size_t n = 0; n < part; n += 8)
                    memcpy((char *)out + n,
                           &(uint64_t){device_read(c, i, p.gpa + n,
                                                   part - n < 8 ? (unsigned)(part - n) : 8)},
                           part - n < 8 ? part - n : 8);
            if (unlikely(c->watching))
                watch(c, i, linear, part, false);
        }
        out = (char *)out + part;
        linear = c->code_size == X86_CODE_64 ? linear + part : (linear + part) & 0xffffffff;
        size -= part;
    }
}

void interp_store_bytes(struct icpu *c, const struct op *i, uint64_t linear, const void *data,
                        size_t size)
{
    struct place p;

    if (crosses_page(linear, size))
        interp_probe_write(c, i, linear, size);
    while (size) {
        size_t part = bytes_in_page(linear, size);
        void *host = rmw_pointer(c, linear, 1);

        if (likely(host)) {
            ram_copy(host, data, part);
        } else {
            check_access(c, i, linear, 1);
            translate(c, i, linear, X86_ACCESS_WRITE, &p);
            if (p.host) {
                if (p.range->region->kind == REGION_RAM)
                    write_ram(c, &p, data, part);
            } else {
                for (size_t n = 0; n < part; n += 8) {
                    uint64_t value = 0;
                    unsigned bytes = part - n < 8 ? (unsigned)(part - n) : 8;

                    memcpy(&value, (const char *)data + n, bytes);
                    device_write(c, i, p.gpa + n, value, bytes);
                }
            }
            if (unlikely(c->watching))
                watch(c, i, linear, part, true);
        }
        data = (const char *)data + part;
        linear = c->code_size == X86_CODE_64 ? linear + part : (linear + part) & 0xffffffff;
        size -= part;
    }
}

/* ---- for the shared x86 code (cpu.h) ---- */

/* The entry for an access by code in x86/, which may have another privilege than the CPL. */
static const struct tlb_entry *ops_entry(struct icpu *c, uint64_t linear, unsigned access)
{
    struct tlb_entry *tlb = c->tlb;

    if ((access & X86_ACCESS_SUPERVISOR) && (c->cpu.cpl == 3 || c->tlb_kind != TLB_KERNEL))
        tlb = c->tlbs[TLB_KERNEL];
    return &tlb[tlb_index(linear)];
}

uint64_t interp_ops_read(struct x86_cpu *cpu, uint64_t linear, unsigned size, unsigned access)
{
    struct icpu *c = icpu_of(cpu);
    const struct tlb_entry *e = ops_entry(c, linear, access);

    if (likely(size == 8) && likely((linear ^ e->read) <= 0x1000u - 8) &&
        (access & X86_ACCESS_KIND) == X86_ACCESS_READ)
        return ram_load64((const void *)(linear + e->addend));
    if (unlikely(!x86_is_canonical(linear)))
        x86_raise_code(cpu, X86_GP, 0);
    return load(c, NULL, linear, size, access);
}

void interp_ops_write(struct x86_cpu *cpu, uint64_t linear, uint64_t value, unsigned size,
                      unsigned access)
{
    struct icpu *c = icpu_of(cpu);
    const struct tlb_entry *e = ops_entry(c, linear, access);

    if (likely(size == 8) && likely((linear ^ e->write) <= 0x1000u - 8)) {
        ram_store64((void *)(linear + e->addend), value);
        return;
    }
    if (unlikely(!x86_is_canonical(linear)))
        x86_raise_code(cpu, X86_GP, 0);
    store(c, NULL, linear, value, size, access | X86_ACCESS_WRITE);
}

uint8_t *interp_ops_page(struct x86_cpu *cpu, uint64_t linear, unsigned access)
{
    const struct tlb_entry *e = ops_entry(icpu_of(cpu), linear, access);
    uint64_t page = linear & GUEST_PAGE_MASK;
    uint64_t tag = (access & X86_ACCESS_KIND) == X86_ACCESS_WRITE ? e->write : e->read;

    return tag == page ? (uint8_t *)(page + e->addend) : NULL;
}

uint8_t interp_ops_set_bits(struct x86_cpu *cpu, uint64_t linear, uint8_t bits, unsigned access)
{
    struct icpu *c = icpu_of(cpu);
    struct place p;
    uint8_t old;

    if (unlikely(!x86_is_canonical(linear)))
        x86_raise_code(cpu, X86_GP, 0);
    translate(c, NULL, linear, access | X86_ACCESS_WRITE, &p);
    if (p.host && p.range->region->kind == REGION_RAM) {
        old = ram_atomic_or8(p.host, bits);
        ram_was_written(c, &p, 1);
        return old;
    }
    old = (uint8_t)load(c, NULL, linear, 1, access & ~(unsigned)X86_ACCESS_KIND);
    store(c, NULL, linear, old | bits, 1, access | X86_ACCESS_WRITE);
    return old;
}

void interp_ops_probe_write(struct x86_cpu *cpu, uint64_t linear, unsigned size, unsigned access)
{
    struct icpu *c = icpu_of(cpu);
    struct place p;

    if (unlikely(!x86_is_canonical(linear)))
        x86_raise_code(cpu, X86_GP, 0);
    translate(c, NULL, linear, access | X86_ACCESS_WRITE, &p);
    if (crosses_page(linear, size))
        translate(c, NULL, second_page(c, linear), access | X86_ACCESS_WRITE, &p);
}

/* ---- instruction fetch ---- */

static struct fetch_entry *fetch_slot(struct icpu *c, uint64_t linear)
{
    return &c->fetches[(linear >> 12) & (FETCH_SIZE - 1)];
}

/* Fill the slot of linear's page, or return the page fault's code | X86_WALK_FAULT. */
static uint32_t fill_fetch(struct icpu *c, uint64_t linear)
{
    struct fetch_entry *f = fetch_slot(c, linear);
    const struct flat_range *r;
    enum meter_part before;
    struct x86_walk walk;
    uint32_t fault;

    refresh_paging(c, false);
    before = meter_to(c, METER_WALKS);
    fault = x86_walk(&c->paging, &c->walk_memory, linear, X86_ACCESS_EXECUTE, c->cpu.cpl == 3,
                     false, &walk);
    meter_to(c, before);
    if (unlikely(fault))
        return fault;
    f->gpa = apply_a20(c, walk.gpa) & GUEST_PAGE_MASK;
    r = find_range(c, f->gpa);
    f->host = r && range_covers_page(r, f->gpa) ? range_host(r, f->gpa) : NULL;
    f->page = f->host ? code_page_at(c->interpreter, r, f->gpa) : NULL;
    f->global = walk.global;
    if (!walk.global)
        bitmap_set(c->local_fetches, (unsigned)(f - c->fetches));
    f->key = jump_key(c, linear & GUEST_PAGE_MASK);
    return 0;
}

const struct fetch_entry *interp_fetch(struct icpu *c, uint64_t linear)
{
    struct fetch_entry *f = fetch_slot(c, linear);
    uint32_t fault;

    if (likely(f->key == jump_key(c, linear & GUEST_PAGE_MASK)))
        return f;
    fault = fill_fetch(c, linear);
    if (likely(!fault))
        return f;
    flags_materialize(c);
    c->cpu.s.cr2 = linear;
    x86_raise_code(&c->cpu, X86_PF, fault & ~X86_WALK_FAULT);
}

const struct fetch_entry *interp_fetch_if_there(struct icpu *c, uint64_t linear)
{
    struct fetch_entry *f = fetch_slot(c, linear);

    return f->key == jump_key(c, linear & GUEST_PAGE_MASK) || !fill_fetch(c, linear) ? f : NULL;
}

bool interp_translate(struct icpu *c, uint64_t linear, uint64_t *out_gpa)
{
    struct x86_walk_memory memory = interp_walk_memory;
    struct x86_walk walk;

    memory.opaque = c;
    refresh_paging(c, true);
    if (x86_walk(&c->paging, &memory, linear, X86_ACCESS_READ, false, true, &walk))
        return false;
    *out_gpa = walk.gpa;
    return true;
}

/* ---- segmentation: 16- and 32-bit code, and FS, GS (SDM vol. 3, 5.3) ---- */

static bool limit_allows(const struct x86_segment *seg, uint64_t offset, unsigned size)
{
    uint64_t last = offset + size - 1;

    if ((seg->attributes & (X86_SEG_CODE | X86_SEG_DOWN)) == X86_SEG_DOWN) {
        uint64_t top = seg->attributes & X86_SEG_DB ? 0xffffffff : 0xffff;

        return offset > seg->limit && last <= top;
    }
    return last <= seg->limit;
}

static bool rights_allow(const struct x86_cpu *cpu, const struct x86_segment *seg, bool write)
{
    unsigned a = seg->attributes;

    if (!x86_in_protected_mode(cpu) || x86_in_v86_mode(cpu))
        return true;
    if (!(a & X86_SEG_P))
        return false; /* null selector */
    if (a & X86_SEG_CODE)
        return !write && (a & X86_SEG_READABLE);
    return !write || (a & X86_SEG_WRITABLE);
}

uint64_t interp_ea_limited(struct icpu *c, const struct op *i, unsigned size, unsigned access)
{
    return interp_ea_offset(c, i, ea_raw(c, i), size, access);
}

uint64_t interp_ea_offset(struct icpu *c, const struct op *i, uint64_t offset, unsigned size,
                          unsigned access)
{
    const struct x86_segment *seg = &c->cpu.s.seg[i->seg];

    if (i->address_size == 4)
        offset = (uint32_t)offset;
    else if (i->address_size == 2)
        offset = (uint16_t)offset;
    if (c->code_size == X86_CODE_64)
        return offset + (i->seg >= X86_FS ? seg->base : 0);
    return interp_segment_linear(c, i, i->seg, offset, size, access);
}

uint64_t interp_segment_linear(struct icpu *c, const struct op *i, unsigned index, uint64_t offset,
                               unsigned size, unsigned access)
{
    const struct x86_segment *seg = &c->cpu.s.seg[index];

    if (unlikely(!limit_allows(seg, offset, size) ||
                 !rights_allow(&c->cpu, seg, access & X86_ACCESS_WRITE)))
        interp_raise_code(c, i, index == X86_SS ? X86_SS_FAULT : X86_GP, 0);
    return (uint32_t)(seg->base + offset);
}
