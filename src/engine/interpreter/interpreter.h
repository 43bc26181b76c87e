/*
 * interpreter.h - what the parts of the interpreter share
 *
 * Theory of operation. Guest code is decoded once into blocks: arrays of struct op,
 * each with a pointer to the function that executes it. A block ends at a branch,
 * at the end of the page, or at an instruction that may change how code is fetched.
 * Blocks are private to a vCPU, keyed by guest-physical address and code mode, and
 * dropped when the page's generation changes (blocks.c).
 *
 * Handlers are direct-threaded: each ends in NEXT(c, i), a tail call of the next
 * op's handler. Without optimisation, or under a sanitizer, NEXT returns the next
 * op to a small loop instead; the handlers are the same source either way.
 *
 * RIP is not kept up to date: an op knows its offset in the page, and
 * c->page_rip is the RIP of the page's first byte. cpu.s.rip is computed when
 * somebody needs it (interp_sync). Arithmetic flags are lazy (flags.h).
 *
 * Faults: memory helpers and interp_raise() do not return; they longjmp to the run
 * loop. So a handler does everything that can fault before it changes state.
 */
#ifndef ENGINE_INTERPRETER_INTERPRETER_H
#define ENGINE_INTERPRETER_INTERPRETER_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdnoreturn.h>
#include <string.h>

#include "base/guest_ram.h"
#include "host/host.h"
#include "trapeze/engine.h"
#include "x86/cpu.h"
#include "x86/decode.h"
#include "x86/paging.h"

struct block;
struct icpu;
struct code_page;
struct interpreter;
struct op;
struct translator;

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* Executes one op; returns the op to go on with, or NULL to return to the run loop. */
typedef const struct op *op_fn(struct icpu *c, const struct op *i);

/* How an op's effective address is computed. */
enum ea_kind {
    EA_BASE,    /* 64-bit flat: [base + disp] */
    EA_INDEX,   /* 64-bit flat: [base + index << scale + disp] */
    EA_FLAT32,  /* 32-bit addressing where DS, ES and SS are flat (MODE_FLAT_DATA) */
    EA_SEGMENT, /* 64-bit flat, plus the base of FS or GS */
    EA_LIMITED, /* other 16- and 32-bit addressing: base and limit of the segment, wrap-around */
    EA_KIND_COUNT,
};

/*
 * One decoded instruction. Register operands are byte offsets into struct icpu,
 * so that AH is RAX's offset + 1 and "no register" is the offset of zero.
 */
struct op {
    op_fn *run;
    union {
        int64_t imm;
        const void *aux; /* handler-specific data (host stubs) */
    };
    const struct op *link; /* branches: first op of the target block, once known */
    int64_t disp;
    uint16_t dst, src;    /* register operands */
    uint16_t base, index; /* of the memory operand */
    uint16_t page_offset; /* of the instruction's first byte */
    uint8_t length;       /* bytes */
    uint8_t scale;        /* 0-3: shift of the index */
    uint8_t seg;          /* enum x86_segment_index of the memory operand */
    uint8_t ea;           /* enum ea_kind */
    uint8_t address_size; /* 2, 4 or 8 bytes */
    uint8_t extra;        /* handler-specific */
};

/* In counted mode blocks longer than what is left of the budget are stepped through. */
#define BLOCK_STEP_BUDGET 64u
#define PAUSES_TO_YIELD   64u

/* Bit of extra: the op is the last of its block, so an interrupt shadow needs a step of its own. */
#define OP_IS_LAST        0x80u

/* Why no block is entered. */
enum attention {
    ATTENTION_EVENT = 1, /* somebody wants something; a repeated string instruction stops too */
    ATTENTION_STEP = 2, /* only one instruction is to run: its branch must not go on into a block */
};

/* Software TLB: one entry per hashed page and privilege kind. */
struct tlb_entry {
    uint64_t
        read; /* page's linear address if readable without asking, else TLB_NEVER of its slot */
    uint64_t write;
    uintptr_t addend; /* host address - linear address */
    uint64_t ram;     /* which code_page, << 12; low bits: TLB_GLOBAL and so on */
};

#define TLB_BITS      14
#define TLB_SIZE      (1u << TLB_BITS)
#define TLB_GLOBAL    1u
#define TLB_LARGE     2u  /* a part of a page of 2 MiB, 4 MiB or 1 GiB */
#define TLB_IN_LIST   4u  /* its slot is in tlb_filled[0]; twice that: in tlb_filled[1] */
#define TLB_GUARDED   16u /* may be written, if somebody looks whether code is hit */

/*
 * Where in linear memory large pages were seen, by hashed 2 MiB and 1 GiB (tlb.c). The upper
 * half of the address space has bits of its own: an operating system maps RAM by large pages there,
 * and INVLPG is mostly for small pages of programs.
 */
#define LARGE_2M_BITS 13
#define LARGE_1G_BITS 10
struct large_pages {
    uint64_t of_2m[(1u << LARGE_2M_BITS) / 64];
    uint64_t of_1g[(1u << LARGE_1G_BITS) / 64];
};

static inline bool in_same_gigabyte(uint64_t a, uint64_t b)
{
    return (a ^ b) >> 30 == 0;
}

/*
 * A page that user code in the translator asks for again and again. A copy of what the TLB has, and
 * forgotten whenever an entry there becomes invalid.
 */
struct near_page {
    uint64_t read, write; /* as in struct tlb_entry; icpu.no_page if it is not there */
    uintptr_t addend;
};
#define NEAR_PAGES 32u

/* Which privilege an access has; each has its own TLB. */
enum tlb_kind { TLB_KERNEL, TLB_USER, TLB_KERNEL_SMAP_OPEN, TLB_SLOW, TLB_KIND_COUNT };

enum cc_kind {
    CC_RFLAGS, /* the status flags are in s.rflags */
    CC_ADD,    /* ADD, ADC: from cc_result, cc_a, cc_b */
    CC_SUB,    /* SUB, SBB, CMP, NEG */
    CC_LOGIC,  /* AND, OR, XOR, TEST: CF = OF = AF = 0 */
    CC_INC,    /* as ADD with b = 1, but CF is in cc_carry */
    CC_DEC,
    CC_SHIFT, /* ZF SF PF from cc_result, CF and OF as bits in cc_a, AF = 0 */
};

/*
 * Where a branch target's block is. key is the target's RIP with the mode mixed in
 * (jump_key), so a lookup also proves that mode and privilege are those of the block.
 */
struct jump_entry {
    uint64_t key;
    const struct op *first;
};
#define JUMP_BITS 11
#define JUMP_SIZE (1u << JUMP_BITS)

/* Instruction fetch: a code page's linear address and mode to where it is. */
struct fetch_entry {
    uint64_t key; /* jump_key of the page's first byte; FETCH_NONE if unused */
    uint64_t gpa;
    const uint8_t *host; /* NULL: not RAM or ROM */
    struct code_page *page;
    bool global;
};
#define FETCH_BITS 7
#define FETCH_SIZE (1u << FETCH_BITS)
#define FETCH_NONE 1u /* never a key: pages are aligned */

/* Whether a page may be in TLBs for fast writing (code_pages.c). */
enum code_page_guard {
    GUARD_OPEN,    /* it may */
    GUARD_CLOSING, /* no new entries; somebody is waiting for the old ones to go */
    GUARD_CLOSED,  /* it is in none: every write looks at chunks */
};

/*
 * One page of RAM or ROM that may hold decoded code; shared by all vCPUs. A
 * chunk is 64 bytes; its bit is set while some block was decoded from it. Writers
 * write first and look at chunks afterwards, decoders set their bits first and
 * compare the bytes afterwards, so one of the two sees the other (both seq_cst).
 * All but reading is done under the interpreter's code_lock.
 */
struct code_page {
    _Atomic uint64_t chunks;
    _Atomic uint32_t generation;    /* blocks of another generation are stale */
    _Atomic uint8_t guard;          /* enum code_page_guard */
    _Atomic uint8_t may_be_written; /* a TLB entry has let writes through, at some time */
    _Atomic uint8_t patience; /* writes until the page is opened; 0: no code was overwritten */
};

struct interpreter {
    struct machine *machine;
    struct memory *memory;
    uint64_t ram_bytes;           /* of memory; behind these pages may be watched */
    struct code_page *code_pages; /* by RAM file page */
    uint64_t code_page_count;
    struct host_mutex code_lock; /* code_pages; held for moments, nothing is locked under it */
    struct icpu *cpus[16];
    _Atomic unsigned cpu_count;
    size_t cpu_bytes;             /* of a vCPU: struct icpu is the first of it */
    size_t cpu_code_bytes;        /* behind these: the vCPU's view of translated code; or 0 */
    bool translates;              /* vCPUs have a translator */
    struct tr_cache *cache;       /* what they translate; or NULL */
    struct host_mutex split_lock; /* locked accesses that cross pages or hit devices */
    _Atomic bool dirty_tracking;
};

/* What the last STI or MOV SS, not at the end of its block, asked for; the translator clears it. */
enum inner_shadow { INNER_SHADOW_NONE, INNER_SHADOW_STI, INNER_SHADOW_MOV_SS };

/* Why the interpreter executes an instruction that is in no translated block. */
enum interp_reason {
    INTERP_REAL_MODE, /* or virtual-8086 */
    INTERP_16BIT,
    INTERP_NOT_FLAT, /* 32-bit code */
    INTERP_ALONE,    /* single-step, interrupt shadow, code outside RAM and ROM */
    INTERP_OTHER,    /* counted, a debugger, rings 1 and 2; there is no translator */
    INTERP_REASON_COUNT
};

struct icpu {
    struct x86_cpu cpu; /* first; cpu.s.gpr at offset 0 */

    uint64_t zero; /* the register of a missing base or index: always 0 */

    /* Lazy flags; operands and result sign-extended to 64 bits from the operand size. */
    uint64_t cc_result, cc_a, cc_b;
    uint32_t cc_kind, cc_carry;

    uint64_t page_rip; /* RIP of the first byte of the current code page */
    uint64_t cs_base;  /* 0 in 64-bit mode */
    uint64_t jump_tag; /* mode_key, placed for jump_key() */
    const struct block *block;

    struct tlb_entry *tlb;      /* of the current privilege: tlbs[tlb_kind] */
    uint64_t budget;            /* instructions that may still be retired in this run() */
    _Atomic uint32_t attention; /* enum attention: something to look at before the next block */

    const struct op *insn; /* the op that is executing, for whoever has to find RIP; may be NULL */
    uint64_t stack_mask;   /* bits of RSP that address the stack */
    uint64_t rip_mask;     /* bits of RIP in the current code segment */
    /* 32-bit code may read and write FS and GS below these offsets without asking; the translator.
     */
    uint64_t fs_reach, gs_reach;

    uint64_t budget_start; /* budget at the time when s.instructions was last brought up to date */
    /* A step of the translator: what its block took from the budget for this op and behind it. */
    const struct op *charged_op;
    unsigned charged;                  /* 0: nothing, or no such step */
    jmp_buf unwind;                    /* faults longjmp here */
    const struct flat_view *view;      /* held while in run() */
    const struct flat_view *seen_view; /* the one the TLB was filled from; compared, not used */
    _Atomic uint8_t new_view;          /* the memory map changed */
    struct x86_walk_memory walk_memory;
    const _Atomic bool *a20;             /* the machine's gate */
    const struct flat_range *last_range; /* of view: where the last page walk found RAM */

    struct interpreter *interpreter;
    struct vcpu *vcpu;
    struct host_stubs *stubs; /* host_stub.c */
    uint8_t *stub_buffer;     /* 64-byte aligned operand buffer of host stubs, 128 bytes */
    bool x87_loaded;          /* the guest's x87 state is in the host's FPU (host_stub.c) */
    uint64_t vector_index; /* element of VSIB's index: the op's index register (vector_memory.c) */
    uint8_t fpu_blocked;   /* classes of instructions that cannot just run (host_stub.h) */
    struct meter *meter;   /* --stats (meter.h), or NULL */
    uint32_t pauses_left;  /* PAUSEs before one yields the host's processor */
    uint8_t vector_bytes;  /* width of the vector registers of this CPU model: 16, 32 or 64 */

    bool stepping;        /* one instruction at a time; nothing may be linked */
    bool alone;           /* after this instruction the run loop is next */
    bool shadow;          /* the instruction before asked that no interrupt comes before the next */
    uint8_t inner_shadow; /* the same in the middle of a block (enum inner_shadow) */
    bool counted;         /* virtual time is the instruction count */
    _Atomic uint8_t in_run; /* reading guest memory through the TLB: see code_pages.c */
    /* Another vCPU wants our write tags of this page (struct code_page) dropped; or of all. */
    _Atomic uintptr_t drop_writes;
    const struct debug_request *debug; /* NULL without a debugger */
    uint64_t skip_breakpoint_rip;      /* the debugger was told of this breakpoint already */
    bool debug_hit;
    bool breakpoints;   /* instruction breakpoints of the guest or the debugger are set */
    bool must_step;     /* the next instruction runs alone */
    bool trap_needs_tf; /* INT n, SYSCALL: no single-step trap if it cleared TF */
    bool keep_rf;       /* IRET set RF for the next instruction */
    bool new_budget;    /* counted mode: a timer may have changed */
    bool flush_all;     /* blocks must be built again */
    bool flush_blocks;  /* host stubs were emptied while a block was built */
    struct vcpu_exit debug_exit;

    enum x86_code_size code_size;
    enum tlb_kind tlb_kind;
    unsigned mode_key; /* what, besides the address, decides how bytes decode */
    bool watching;     /* data watchpoints of the guest (DR7) or the debugger are set */
    struct block_cache *blocks;
    struct decode_cache *decode_cache;
    struct translator *translator; /* NULL: every block is interpreted */
    struct x86_walk_cache walk_cache;
    struct x86_paging paging; /* registers for the page walk, refreshed on change */
    struct jump_entry jumps[JUMP_SIZE];
    bool jumps_filled; /* some entry was set since the last flush */
    struct fetch_entry fetches[FETCH_SIZE];
    uint64_t local_fetches[FETCH_SIZE / 64];  /* by slot: those that may not be mapped globally */
    struct tlb_entry *tlb_of[TLB_KIND_COUNT]; /* tlbs, for generated code */
    struct tlb_entry tlbs[TLB_KIND_COUNT][TLB_SIZE];
    struct near_page near[NEAR_PAGES];
    uint8_t near_used; /* some of them were set */
    uint64_t no_page;  /* tag that answers nothing; a secret (tlb.c) */
    struct large_pages large_pages;
    /* Slots that a flush has to look at: [0] had a mapping that was not global, [1] a global one.
     */
    struct tlb_filled {
        unsigned count;
        uint16_t slots[TLB_SIZE];
    } tlb_filled[2][TLB_KIND_COUNT];
    uint32_t tlb_epoch; /* advances when entries become invalid */
    uint16_t tlb_keys;  /* bit n: there may be an entry of a user page with protection key n */
};

#define REG_OFFSET(n)        ((uint16_t)(offsetof(struct icpu, cpu.s.gpr) + 8u * (n)))
#define REG(c, offset, type) (*(type *)((char *)(c) + (offset)))

static inline struct icpu *icpu_of(struct x86_cpu *cpu)
{
    return (struct icpu *)cpu;
}

/* ---- threading ---- */

/* Clang does not say by a macro that a sanitizer keeps a frame for each call. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define INTERPRETER_NO_TAIL_CALLS
#endif
#endif

#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) &&    \
    !defined(INTERPRETER_NO_TAIL_CALLS)
#define INTERPRETER_TAIL_CALLS
#define GOTO(c, next)                                                                              \
    do {                                                                                           \
        const struct op *next_ = (next);                                                           \
        return next_->run((c), next_);                                                             \
    } while (0)
#else
#define GOTO(c, next) return (next)
#endif
#define NEXT(c, i) GOTO(c, (i) + 1)

/* ---- faults ---- */

/* Bring s.rip to op i and s.rflags up to date: for everything in x86/ that looks at them. */
void interp_sync(struct icpu *c, const struct op *i);
/* Raise a fault of op i. */
noreturn void interp_raise(struct icpu *c, const struct op *i, uint8_t vector);
noreturn void interp_raise_code(struct icpu *c, const struct op *i, uint8_t vector, uint32_t code);

/* RIP of op i and of the instruction after it. */
static inline uint64_t op_rip(const struct icpu *c, const struct op *i)
{
    return (c->page_rip + i->page_offset) & c->rip_mask;
}
static inline uint64_t op_next_rip(const struct icpu *c, const struct op *i)
{
    return (c->page_rip + i->page_offset + i->length) & c->rip_mask;
}
/* Guest instructions retired since power-on, before op i. */
uint64_t interp_instructions(const struct icpu *c, const struct op *i);
/*
 * Counted mode: bring virtual time up to op i before something looks at it. An instruction that
 * does so runs alone, so that what it causes comes right behind it, however blocks are cut: in a
 * block this does not return, but has the run loop step the instruction.
 */
void interp_sync_clock(struct icpu *c, const struct op *i);
/* Recompute what is derived from registers (enum x86_changed). */
void interp_changed(struct icpu *c, unsigned what);

/* ---- memory (memory.c) ---- */

/* Linear address of op i's memory operand of size bytes; checks segment limits and rights. */
uint64_t interp_ea_limited(struct icpu *c, const struct op *i, unsigned size, unsigned access);

static inline uint64_t ea_raw(const struct icpu *c, const struct op *i)
{
    return REG(c, i->base, const uint64_t) + (REG(c, i->index, const uint64_t) << i->scale) +
           (uint64_t)i->disp;
}

/* Hashed, so that arrays a power of two apart do not share slots. */
static inline unsigned tlb_index(uint64_t linear)
{
    return (unsigned)(linear >> 12 ^ linear >> 24) & (TLB_SIZE - 1);
}
static inline struct tlb_entry *tlb_slot(struct icpu *c, uint64_t linear)
{
    return &c->tlb[tlb_index(linear)];
}

/* The same for an offset that the handler computed (XLAT, BT): address size and segment from i. */
uint64_t interp_ea_offset(struct icpu *c, const struct op *i, uint64_t offset, unsigned size,
                          unsigned access);
uint64_t interp_segment_linear(struct icpu *c, const struct op *i, unsigned index, uint64_t offset,
                               unsigned size, unsigned access);

/* The functions of struct x86_cpu_ops that concern memory. */
uint64_t interp_ops_read(struct x86_cpu *cpu, uint64_t linear, unsigned size, unsigned access);
void interp_ops_write(struct x86_cpu *cpu, uint64_t linear, uint64_t value, unsigned size,
                      unsigned access);
uint8_t interp_ops_set_bits(struct x86_cpu *cpu, uint64_t linear, uint8_t bits, unsigned access);
void interp_ops_probe_write(struct x86_cpu *cpu, uint64_t linear, unsigned size, unsigned access);
uint8_t *interp_ops_page(struct x86_cpu *cpu, uint64_t linear, unsigned access);

/* Miss, page crossing, MMIO, watchpoint, alignment check. Values are zero-extended. */
uint64_t interp_load_slow(struct icpu *c, const struct op *i, uint64_t linear, unsigned size);
void interp_store_slow(struct icpu *c, const struct op *i, uint64_t linear, uint64_t value,
                       unsigned size);

/* Load with the rights and faults of a write. */
uint64_t interp_load_for_write(struct icpu *c, const struct op *i, uint64_t linear, unsigned size);

/*
 * Handlers call the slow paths through these. On x86-64 they go through a thunk that keeps
 * all registers (slow_call.S), so that a handler needs no stack frame for the sake of its rare
 * miss: measured, frames cost the load and store handlers a third of their time.
 */
#if defined(__x86_64__) && defined(__OPTIMIZE__)
#define SLOW_CALL(thunk, ...)                                                                      \
    __asm__ volatile("lea -128(%%rsp), %%rsp\n\tcall " thunk "\n\tlea 128(%%rsp), %%rsp"           \
                     : "=a"(result_)                                                               \
                     : __VA_ARGS__                                                                 \
                     : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",     \
                       "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",        \
                       "xmm15")
static inline uint64_t slow_load(struct icpu *c, const struct op *i, uint64_t linear, unsigned size)
{
    uint64_t result_;

    SLOW_CALL("interp_load_slow_keep", "D"(c), "S"(i), "d"(linear), "c"(size));
    return result_;
}
static inline uint64_t slow_load_for_write(struct icpu *c, const struct op *i, uint64_t linear,
                                           unsigned size)
{
    uint64_t result_;

    SLOW_CALL("interp_load_for_write_keep", "D"(c), "S"(i), "d"(linear), "c"(size));
    return result_;
}
static inline void slow_store(struct icpu *c, const struct op *i, uint64_t linear, uint64_t value,
                              unsigned size)
{
    register uint64_t r8 __asm__("r8") = size;
    uint64_t result_;

    SLOW_CALL("interp_store_slow_keep", "D"(c), "S"(i), "d"(linear), "c"(value), "r"(r8));
    (void)result_;
}
static inline uint64_t slow_ea(struct icpu *c, const struct op *i, unsigned size, unsigned access)
{
    uint64_t result_;

    SLOW_CALL("interp_ea_limited_keep", "D"(c), "S"(i), "d"(size), "c"(access));
    return result_;
}
#else
#define slow_ea             interp_ea_limited
#define slow_load           interp_load_slow
#define slow_load_for_write interp_load_for_write
#define slow_store          interp_store_slow
#endif

#define FLAT32_END (1ull << 32)

/* access is X86_ACCESS_READ or _WRITE. Non-canonical addresses fault when they are used. */
static inline uint64_t ea(struct icpu *c, const struct op *i, unsigned size, unsigned access)
{
    if (likely(i->ea <= EA_INDEX))
        return ea_raw(c, i);
    if (likely(i->ea == EA_FLAT32)) {
        uint32_t linear = (uint32_t)ea_raw(c, i);

        if (likely(linear <= FLAT32_END - size)) /* else the limit is broken */
            return linear;
    } else if (likely(i->ea == EA_SEGMENT)) {
        return ea_raw(c, i) + c->cpu.s.seg[i->seg].base;
    }
    return slow_ea(c, i, size, access);
}

#define DEFINE_LOAD_STORE(bits)                                                                    \
    static inline uint##bits##_t load##bits(struct icpu *c, const struct op *i, uint64_t linear)   \
    {                                                                                              \
        const struct tlb_entry *e = tlb_slot(c, linear);                                           \
        if (likely((linear ^ e->read) <= 0x1000u - bits / 8)) {                                    \
            return ram_load##bits((const void *)(linear + e->addend));                             \
        }                                                                                          \
        return (uint##bits##_t)slow_load(c, i, linear, bits / 8);                                  \
    }                                                                                              \
    static inline void store##bits(struct icpu *c, const struct op *i, uint64_t linear,            \
                                   uint##bits##_t value)                                           \
    {                                                                                              \
        const struct tlb_entry *e = tlb_slot(c, linear);                                           \
        if (likely((linear ^ e->write) <= 0x1000u - bits / 8))                                     \
            ram_store##bits((void *)(linear + e->addend), value);                                  \
        else                                                                                       \
            slow_store(c, i, linear, value, bits / 8);                                             \
    }
DEFINE_LOAD_STORE(8)
DEFINE_LOAD_STORE(16)
DEFINE_LOAD_STORE(32)
DEFINE_LOAD_STORE(64)

/*
 * Any number of bytes (operands of SIMD instructions, XSAVE areas). A store that
 * would fault anywhere faults before the first byte is written.
 */
void interp_load_bytes(struct icpu *c, const struct op *i, uint64_t linear, void *out, size_t size);
void interp_store_bytes(struct icpu *c, const struct op *i, uint64_t linear, const void *data,
                        size_t size);
/* Raise what a write would raise. */
void interp_probe_write(struct icpu *c, const struct op *i, uint64_t linear, size_t size);

/*
 * Host pointer for a read-modify-write of size bytes, or NULL: then use interp_load_for_write
 * and interp_store_slow (page crossing, MMIO, code, watchpoints).
 */
static inline void *rmw_pointer(struct icpu *c, uint64_t linear, unsigned size)
{
    const struct tlb_entry *e = tlb_slot(c, linear);

    return likely((linear ^ e->write) <= 0x1000u - size) ? (void *)(linear + e->addend) : NULL;
}

/*
 * Locked accesses that rmw_pointer has no pointer for: store value if memory still holds
 * expected. Atomic in RAM within a page; else only with respect to other such accesses.
 */
bool interp_compare_exchange(struct icpu *c, const struct op *i, uint64_t linear, uint64_t expected,
                             uint64_t value, unsigned size);

void interp_empty_tlb(struct icpu *c); /* at the start; also makes all entries valid */
void interp_flush_tlb(struct icpu *c, bool global_too);
/* Another PCID is switched to, whose mappings are to be kept as this one's: but those in the TLB.
 */
void interp_leave_space(struct icpu *c);
void interp_flush_tlb_page(struct icpu *c, uint64_t linear);
void interp_flush_jumps(struct icpu *c);
void interp_drop_write_tags(struct icpu *c);
void interp_drop_write_tags_of(struct icpu *c, const struct code_page *page);
/* PKRU was another value. */
void interp_pkru_changed(struct icpu *c, uint32_t before);
extern const struct x86_walk_memory interp_walk_memory;
/* Where the code byte at linear is; raises the fetch's #PF with s.rip as the faulting RIP. */
const struct fetch_entry *interp_fetch(struct icpu *c, uint64_t linear);
/* The same ahead of time, as a processor may; NULL instead of a fault. */
const struct fetch_entry *interp_fetch_if_there(struct icpu *c, uint64_t linear);
/* Linear to guest-physical for the debugger. */
bool interp_translate(struct icpu *c, uint64_t linear, uint64_t *out_gpa);

/* ---- code pages (code_pages.c) ---- */

struct code_page *code_page_at(const struct interpreter *t, const struct flat_range *range,
                               uint64_t gpa);
/* Bytes [offset, offset + size) of the page were written: drop blocks decoded from them. */
void code_page_written(struct icpu *c, struct code_page *page, unsigned offset, size_t size);
/* Blocks are about to be used that were decoded from these chunks: returns after no vCPU can write
 * unseen. */
void code_page_claim(struct icpu *c, struct code_page *page, uint64_t chunks);
void code_pages_memory_written(struct interpreter *t, uint64_t ram_offset, uint64_t size);
/* Between entering run() and leaving it, a vCPU answers requests of code_page_claim here. */
void code_pages_answer(struct icpu *c);
/* Ask every vCPU to drop its write tags; and have all done so, or will before they go on? */
void code_pages_ask_all(struct interpreter *t);
bool code_pages_all_answered(const struct interpreter *t);
void code_pages_enter(struct icpu *c);
void code_pages_leave(struct icpu *c);

static inline uint64_t chunk_mask(unsigned offset, size_t size)
{
    unsigned first = offset / 64, last = (unsigned)(offset + size - 1) / 64;

    return (~0ull << first) & (~0ull >> (63 - last));
}

/* ---- blocks (blocks.c) ---- */

/* A run of decoded instructions. ops[0] is the header (no instruction), then count of them. */
struct block {
    struct block *next; /* in the hash chain */
    uint64_t gpa;
    struct code_page *page, *second_page; /* NULL: not cacheable, or does not cross */
    uint64_t second_gpa;
    uint32_t generation, second_generation;
    uint32_t mode_key;
    uint16_t count;
    uint16_t op_count; /* header and end included */
    struct op ops[];
};

/* Was it decoded from bytes of this page? */
static inline bool block_is_from(const struct block *b, const struct code_page *page)
{
    return b->page == page || b->second_page == page;
}

static inline struct block *block_of(const struct op *header)
{
    return (struct block *)((char *)header - offsetof(struct block, ops));
}

struct block_cache *blocks_new(struct error *err);
void blocks_free(struct block_cache *cache);
void blocks_flush(struct icpu *c);
/* Is an instruction breakpoint set at this offset of some page? Blocks end and begin there. */
bool blocks_has_breakpoint(const struct icpu *c, unsigned page_offset);
/* The block at RIP (whose page is the current one afterwards); decodes it if need be. */
const struct op *blocks_lookup(struct icpu *c, uint64_t rip);
/* Decode the one instruction at RIP for stepping; returned once, not cached. */
const struct op *blocks_single(struct icpu *c, uint64_t rip);
/*
 * The op of one decoded instruction, not in any block. out_ends: no instruction may follow it in a
 * block; out_not_last: one should. Other blocks and ops may be flushed.
 */
void blocks_build_op(struct icpu *c, const struct insn *insn, unsigned page_offset, struct op *op,
                     bool *out_ends, bool *out_not_last);
/* How many instructions of the current block were completed before op i. */
unsigned block_instructions_before(const struct block *block, const struct op *i);
/* The rest of the current block may be stale: go on through a lookup after op i. */
void block_cut(struct icpu *c, const struct op *i);
/* Was it cut behind i, so that what follows is looked up again, after what asks for attention? */
bool block_is_cut(const struct op *i);

/* Only these bits of mode_key exist, so that jump_key is collision-free for canonical RIPs. */
enum mode_bits {
    MODE_CODE_SIZE = 3, /* enum x86_code_size */
    MODE_USER = 4,
    MODE_REAL = 8,  /* real or virtual-8086 mode */
    MODE_FLAT = 16, /* 64-bit code, or 32-bit code with base 0 and limit 4 GiB */
    /* DS, ES and SS are present and writable with base 0 and limit 4 GiB and the stack pointer has
     * 32 bits, or it is 64-bit code */
    MODE_FLAT_DATA = 32,
};
/* Above the address bits of a canonical RIP, below the sign: of 4 and 5-level paging. */
#define MODE_SHIFT 57

static inline uint64_t jump_key(const struct icpu *c, uint64_t rip)
{
    return rip ^ c->jump_tag;
}
static inline struct jump_entry *jump_slot(struct icpu *c, uint64_t rip)
{
    return &c->jumps[(rip ^ rip >> JUMP_BITS) & (JUMP_SIZE - 1)];
}

/* Branch to RIP, which is canonical and within the CS limit: the first op there. */
static inline const struct op *jump_to(struct icpu *c, uint64_t rip)
{
    const struct jump_entry *e = jump_slot(c, rip);

    if (likely(e->key == jump_key(c, rip))) {
        c->page_rip = rip - e->first->page_offset;
        return e->first;
    }
    return blocks_lookup(c, rip);
}

/* Branch by op i to a target in the same page whose RIP is rip: linked once known. */
const struct op *blocks_link(struct icpu *c, const struct op *i, uint64_t rip);

/* The taken way of branch op i (linked or not): target from i, see branch.c. */
const struct op *interp_branch(struct icpu *c, const struct op *i);

/* Op i does not run (yet): give back what was taken from the budget for it and behind. */
void interp_refund_from(struct icpu *c, const struct op *i);
/* Leave the run loop with RIP at op i (which runs again), or behind it. */
const struct op *interp_leave_at(struct icpu *c, const struct op *i);
const struct op *interp_leave_after(struct icpu *c, const struct op *i);
/* Does the next instruction have to run alone (single-step, interrupt shadow, ...)? */
bool interp_needs_step(const struct icpu *c);
enum interp_reason interp_reason(const struct icpu *c);
/* After an instruction that changed mode, RIP or caches: s.rip is where to go on. */
const struct op *interp_resume(struct icpu *c);

/* ---- flags (flags.c) ---- */

/* Compute the status flags into s.rflags and set CC_RFLAGS. */
void flags_materialize(struct icpu *c);

/* EFLAGS was written as a whole (POPF); old is its value before. */
const struct op *interp_flags_written(struct icpu *c, const struct op *i, uint64_t old);
void interp_merge_debug_traps(struct icpu *c, const struct x86_event *event);
/* STI, MOV SS, POP SS: the next instruction runs before anything comes between. */
const struct op *interp_shadow(struct icpu *c, const struct op *i, bool mov_ss);
/*
 * The op to go on with after op i, which loaded a data segment. mode_key: as it was before; if it
 * changed, what follows in the block was decoded for another mode.
 */
const struct op *interp_segment_loaded(struct icpu *c, const struct op *i, unsigned seg,
                                       unsigned mode_key);

/* ---- host stubs (host_stub.c): x87, MMX, SSE, AVX, AVX-512, AES, SHA, ... ---- */

/* Sets c->stubs, c->stub_buffer and the rest of what is private to stubs; c->cpu.model is set. */
int host_stubs_new(struct icpu *c, struct error *err);
void host_stubs_free(struct icpu *c); /* a half-built c is fine */
/*
 * Complete op (run, aux, ...) for a SIMD or x87 instruction. The caller has filled in the memory
 * operand (base, index, scale, disp, seg, ea), page_offset and length. Returns false if the
 * instruction is not one that stubs execute (or not in the CPU model): the caller makes it #UD.
 * *out_flush is set when the stub area was full and had to be emptied: every
 * decoded block with stubs must be dropped.
 */
bool host_stub_build(struct icpu *c, const struct insn *insn, struct op *op, bool *out_flush);
/* X86_CHANGED_FPU: CR0, CR4, XCR0 or s.fpu may have changed. Calls nothing that faults. */
void host_stub_refresh(struct icpu *c);
/* run() begins and ends: guest MXCSR in the host's register in between; x87 moved lazily. */
void host_fpu_enter(struct icpu *c);
void host_fpu_leave(struct icpu *c);
/*
 * Before and after code in x86/ (XSAVE, FXRSTOR, get_state) that works on s.fpu. to_state leaves
 * s.fpu complete; from_state is needed only if s.fpu was changed. Both also work outside run().
 */
void host_fpu_to_state(struct icpu *c);
void host_fpu_from_state(struct icpu *c);

#endif
