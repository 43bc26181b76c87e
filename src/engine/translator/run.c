/*
 * run.c - the translator engine: the way into generated code, steps out of it, statistics
 */
#include "engine/translator/cache.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <Zydis/Zydis.h>

#include "engine/interpreter/flags.h"
#include "engine/interpreter/meter.h"
#include "engine/translator/builder.h"
#include "trapeze/machine.h"

#define NO_RIP      (1ull << 63) /* not canonical */
#define PAGES_BYTES (TR_PAGE_IDS * sizeof(struct tr_page))
#define OPS_BYTES   (TR_OPS * sizeof(struct tr_op))
#define SEEN_BYTES  (TR_PAGE_IDS * sizeof(struct tr_seen))

/* ---- flags: generated code's word and EFLAGS ---- */

static void flags_from_word(struct icpu *c, unsigned word)
{
    uint64_t flags = (word >> 8 & 0xd5) | (word & 1 ? X86_FLAG_OF : 0);

    c->cpu.s.rflags = (c->cpu.s.rflags & ~(uint64_t)X86_FLAGS_STATUS) | flags;
    c->cc_kind = CC_RFLAGS;
}

static uint16_t flags_to_word(struct icpu *c)
{
    flags_materialize(c);
    return (uint16_t)((c->cpu.s.rflags & 0xd5) << 8 | 0x200 | !!(c->cpu.s.rflags & X86_FLAG_OF));
}

/* What translation relies on: translator.built. FPU_X87 is no part of it. */
static uint8_t built_for(const struct icpu *c)
{
    return (c->fpu_blocked & FPU_ALL_SIMD) | !!(c->cpu.s.cr4 & X86_CR4_SMAP);
}

/* ---- steps ---- */

/* Rings 1 and 2 have ring 0's TLB, but not its rights. */
bool translator_can_run(const struct icpu *c)
{
    const unsigned flat = MODE_FLAT | MODE_FLAT_DATA;

    return (c->mode_key & flat) == flat && (c->cpu.cpl == 0 || c->cpu.cpl == 3) &&
           !c->breakpoints && !c->debug;
}

/*
 * Would attend() take something? An interrupt that could not be taken when it was announced does
 * not ask for attention again: IRET, POPF and the like have to be followed by a look. One that
 * still cannot is no reason to leave: code that runs with interrupts disabled while one waits (what
 * firmware starts, for seconds) would never be linked.
 */
static bool has_event(const struct icpu *c)
{
    const struct x86_state *s = &c->cpu.s;
    uint32_t events = atomic_load_explicit(&c->vcpu->events, memory_order_relaxed);

    if (!(s->rflags & X86_FLAG_IF))
        events &= ~(uint32_t)VCPU_EVENT_INTERRUPT;
    if (s->smm.active)
        events &= ~(uint32_t)(VCPU_EVENT_INIT | VCPU_EVENT_SMI);
    return events || (s->pending.nmi_pending && !s->pending.nmi_blocked);
}

static bool may_go_on(const struct icpu *c)
{
    return !atomic_load_explicit(&c->attention, memory_order_relaxed) && !interp_needs_step(c) &&
           !has_event(c) && c->cpu.s.activity == X86_ACTIVE && translator_can_run(c);
}

/* A change leads through refresh(). */
static bool is_as_built(const struct translator *t)
{
    return built_for(t->c) == t->built;
}

int translator_step(struct icpu *c, tr_ref site)
{
    struct translator *t = c->translator;
    const struct tr_op *op = translator_site_op(t, site);
    const struct op *i = &op->op;
    const struct tlb_entry *tlb = c->tlb;
    uint32_t epoch = c->tlb_epoch;
    unsigned mode_key = c->mode_key;

    meter_to(c, op->is_fallback ? METER_STEPS : METER_SLOW);
    (op->is_fallback ? t->stats.fallbacks : t->stats.slow)[op->mnemonic]++;
    flags_from_word(c, t->flags);
    c->page_rip = op->page_rip;
    c->inner_shadow = INNER_SHADOW_NONE;
    c->charged_op = i;
    c->charged = op->charged;
    do
        i = i->run(c, i);
    while (i && i != tr_op_end(op));
    c->insn = NULL;
    if (!i) {
        interp_refund_from(c, tr_op_end(op)); /* if the op did not */
        if (!op->ends || c->cpu.s.rip != op->next_rip || c->mode_key != mode_key || c->tlb != tlb ||
            !is_as_built(t) || !may_go_on(c))
            return 1;
        t->flags = flags_to_word(c); /* MOV to CR3 and the like: on behind it */
        meter_to(c, METER_GENERATED);
        return 0;
    }
    if (atomic_load_explicit(&c->attention, memory_order_relaxed) || c->tlb != tlb ||
        !is_as_built(t) || c->tlb_epoch != epoch) {
        c->cpu.s.rip = op->next_rip;
        interp_refund_from(c, i);
        if (c->inner_shadow) { /* what asks for attention waits for one more instruction */
            c->shadow = true;
            c->cpu.s.pending.shadow_is_mov_ss = c->inner_shadow == INNER_SHADOW_MOV_SS;
        }
        return 1;
    }
    c->charged = 0;
    t->flags = flags_to_word(c);
    meter_to(c, METER_GENERATED);
    return 0;
}

/* ---- the way in and out ---- */

/* The target of an indirect branch is not canonical: as if the branch had not been executed. */
static void undo_branch(struct translator *t)
{
    struct icpu *c = t->c;
    struct tr_site *site = tr_at(t->cache, t->site);
    const struct tr_op *op = translator_site_op(t, t->site);

    t->site = 0;
    c->cpu.s.gpr[X86_RSP] += (uint64_t)(int64_t)site->undo_rsp;
    c->page_rip = op->page_rip;
    c->charged_op = &op->op;
    c->charged = op->charged ? 1 : 0; /* what is behind it was given back */
    op->op.run(c, &op->op);           /* raises #GP(0) */
}

static void refresh(struct translator *t)
{
    struct icpu *c = t->c;

    if (unlikely(!is_as_built(t))) {
        translator_forget_mappings(t, true);
        t->built = built_for(c);
        blocks_start_again(t);
    }
    if (unlikely(atomic_load(&t->cache->is_stale)))
        take_changes(t);
}

static int enter(const struct translator *t, uintptr_t code)
{
    int (*fn)(uintptr_t) = (int (*)(uintptr_t))((uintptr_t)t->cache->enter + t->distance);

    return fn(code + t->distance);
}

void translator_run(struct icpu *c)
{
    struct translator *t = c->translator;

    c->stepping = true;
    c->block = NULL;
    t->link = 0;
    t->site = 0;
    cache_enter(t);
    do {
        struct tr_block *b;
        bool left; /* at a branch, not by a step */

        if (unlikely(c->budget < TR_MAX_INSNS)) {
            c->must_step = true;
            break;
        }
        refresh(t);
        b = find_block(t, t->styled_rip == c->cpu.s.rip ? t->style : TR_QUICK);
        if (unlikely(!b)) {
            c->must_step = true;
            break;
        }
        t->flags = flags_to_word(c);
        t->stats.enters++;
        meter_to(c, METER_GENERATED);
        left = enter(t, b->entries[0][TR_DIRECT]) == 0;
        cache_see(t->cache);
        meter_to(c, METER_LOOP);
        if (left) {
            flags_from_word(c, t->flags);
            t->style = t->link ? ((struct tr_link *)tr_at(t->cache, t->link))->to : TR_QUICK;
            t->styled_rip = t->style != TR_QUICK ? c->cpu.s.rip : NO_RIP;
            if (unlikely(t->site && !x86_is_canonical(c->cpu.s.rip)))
                undo_branch(t);
        } else {
            t->link = 0;
            t->site = 0;
        }
    } while (may_go_on(c));
    cache_leave(t);
    c->stepping = false;
}

/* ---- statistics ---- */

void translator_note_interpreted(struct icpu *c)
{
    struct tr_stats *s = &c->translator->stats;

    s->interpreted[s->reason] += s->budget - c->budget;
    s->budget = c->budget;
    s->reason = interp_reason(c);
}

#define STATS_SHOWN 24 /* instructions of each kind */

/* The most frequent instructions of a table, as "prefix NAME". */
static void put_mnemonics(const uint64_t counts[ZYDIS_MNEMONIC_MAX_VALUE + 1], const char *prefix,
                          void (*put)(void *opaque, const char *name, uint64_t count), void *opaque)
{
    uint64_t below = UINT64_MAX;
    unsigned shown = 0;

    while (shown < STATS_SHOWN) {
        uint64_t most = 0;

        for (unsigned n = 0; n <= ZYDIS_MNEMONIC_MAX_VALUE; n++)
            if (counts[n] < below && counts[n] > most)
                most = counts[n];
        if (!most)
            return;
        for (unsigned n = 0; n <= ZYDIS_MNEMONIC_MAX_VALUE; n++)
            if (counts[n] == most && shown < STATS_SHOWN) {
                char name[64];

                snprintf(name, sizeof(name), "%s %s", prefix,
                         ZydisMnemonicGetString((ZydisMnemonic)n));
                put(opaque, name, most);
                shown++;
            }
        below = most;
    }
}

void translator_stats(struct translator *t,
                      void (*put)(void *opaque, const char *name, uint64_t count), void *opaque)
{
    const struct tr_stats *s = &t->stats;
    const struct tr_region used =
        t == t->cache->vcpus[0] ? memory_used(t->cache) : (struct tr_region){0};
    const struct {
        const char *name;
        uint64_t count;
    } counts[] = {
        {"blocks translated", s->blocks},
        {"instructions translated", s->instructions},
        {"instructions left to the interpreter", s->fallback_instructions},
        {"changes of code", s->pages_changed},
        {"blocks brought back as their code was", s->revived},
        {"blocks that check their code", s->self_checking},
        {"evictions of an eighth of it", s->evictions},
        {"times that the cache began anew", t == t->cache->vcpus[0] ? t->cache->starts : 0},
        {"entries into generated code", s->enters},
        {"branches linked", s->links},
        {"waits for another vCPU in the code cache", s->waits},
        {"bytes of code", used.code_bytes},
        {"bytes of data", used.data_bytes},
        {"instructions interpreted: real or virtual-8086 mode", s->interpreted[INTERP_REAL_MODE]},
        {"instructions interpreted: 16-bit code", s->interpreted[INTERP_16BIT]},
        {"instructions interpreted: segments that are not flat", s->interpreted[INTERP_NOT_FLAT]},
        {"instructions interpreted: one at a time", s->interpreted[INTERP_ALONE]},
        {"instructions interpreted: other reasons", s->interpreted[INTERP_OTHER]},
    };

    for (unsigned n = 0; n < sizeof(counts) / sizeof(counts[0]); n++)
        put(opaque, counts[n].name, counts[n].count);
    put_mnemonics(s->fallbacks, "interpreted", put, opaque);
    put_mnemonics(s->slow, "slow access by", put, opaque);
}

/* ---- life ---- */

#if defined(__x86_64__)
#include <cpuid.h>

#define CPUID_80000001_ECX_LZCNT (1u << 5)

/* What is copied must mean the same here: older processors execute LZCNT as BSR. */
static bool host_is_v3(void)
{
    unsigned eax, ebx, ecx, edx;

    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2") && __get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) &&
           (ecx & CPUID_80000001_ECX_LZCNT);
}
#else
static bool host_is_v3(void)
{
    return false;
}
#endif

int translator_probe(struct error *err)
{
    if (host_is_v3())
        return 0;
    return error_set(err, ENOTSUP, "the translator makes code for x86-64-v3 processors");
}

/* Pages appear when they are touched. NULL: no room. */
static void *reserve(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

/* A compiler is at work in several 100 MiB, which a small machine should not cost; several vCPUs
 * may be at work on different things. */
static size_t cache_size(const struct machine *machine)
{
    const struct machine_config *config = machine_config(machine);
    size_t wanted = config->code_cache_bytes;

    if (!wanted) {
        wanted = config->ram_bytes / 8;
        wanted = wanted < TR_CACHE_SMALL   ? TR_CACHE_SMALL
                 : wanted > TR_CACHE_LARGE ? TR_CACHE_LARGE
                                           : wanted;
        if (machine_vcpu_count(machine) > 1)
            wanted *= 2;
    }
    return wanted < TR_CACHE_MOST ? wanted : TR_CACHE_MOST;
}

void translator_cache_free(struct tr_cache *cache)
{
    if (!cache)
        return;
    listing_close(cache);
    translator_builder_free(cache->builder);
    host_code_free(&cache->code);
    if (cache->data)
        munmap(cache->data, cache->data_bytes);
    if (cache->pages)
        munmap(cache->pages, PAGES_BYTES);
    host_mutex_done(&cache->lock);
    free(cache);
}

size_t translator_code_bytes(const struct machine *machine)
{
    return (cache_size(machine) / 2 + 0xfff) & ~(size_t)0xfff;
}

/* For the first vCPU. */
static int cache_new(struct translator *t, struct error *err)
{
    const struct machine *machine = t->c->interpreter->machine;
    struct tr_cache *cache = calloc(1, sizeof(*cache));
    size_t bytes = translator_code_bytes(machine);

    if (!cache)
        return error_set(err, ENOMEM, "no memory for the code cache");
    host_mutex_init(&cache->lock);
    t->cache = t->c->interpreter->cache = cache;
    cache->is_shared = machine_vcpu_count(machine) > 1;
    cache->host_has_adx = x86_host_has(X86_FEATURE_ADX);
    cache->builder = translator_builder_new(cache);
    cache->data_bytes = bytes;
    cache->data = reserve(cache->data_bytes);
    if (cache->data)
        madvise(cache->data, cache->data_bytes, MADV_HUGEPAGE);
    cache->pages = reserve(PAGES_BYTES);
    if (!cache->builder || !cache->data || !cache->pages ||
        host_code_new(&cache->code, bytes, (uint8_t *)t->c + TR_CODE_PLACE, err))
        return error_set(err, ENOMEM, "no memory for the code cache");
    if (listing_open(cache, machine_config(machine), err))
        return -EIO;
    cache->emit = (struct emit){.at = cache->code.write,
                                .execute = cache->code.execute - cache->code.write,
                                .is_shared = cache->is_shared};
    translator_make_thunks(t);
    start_filling(cache);
    return 0;
}

int translator_new(struct icpu *c, struct error *err)
{
    struct translator *t = (struct translator *)((uint8_t *)c + TR_PLACE);
    int result;

    c->translator = t;
    t->c = c;
    t->cache = c->interpreter->cache;
    t->ops = reserve(OPS_BYTES);
    t->seen = reserve(SEEN_BYTES);
    if (!t->ops || !t->seen) {
        translator_free(c);
        return error_set(err, ENOMEM, "no memory for the translator of a virtual CPU");
    }
    if (t->cache) {
        t->distance = (uintptr_t)t - (uintptr_t)t->cache->vcpus[0];
        result = host_code_view(&t->cache->code, (uint8_t *)c + TR_CODE_PLACE, err);
    } else {
        result = cache_new(t, err);
    }
    if (result) {
        translator_free(c);
        return result;
    }
    assert(t->cache->vcpu_count < TR_MAX_VCPUS);
    t->cache->vcpus[t->cache->vcpu_count++] = t;
    return 0;
}

void translator_free(struct icpu *c)
{
    struct translator *t = c->translator;

    if (!t)
        return;
    if (t->ops)
        munmap(t->ops, OPS_BYTES);
    if (t->seen)
        munmap(t->seen, SEEN_BYTES);
    c->translator = NULL;
}

void translator_enter_thread(const struct icpu *c)
{
    const struct translator *t = c->translator;

    if (t->cache->is_shared)
        host_set_gs_base(t->distance);
}
