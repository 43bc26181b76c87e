/*
 * translator.h - what the parts of the translator share
 *
 * Theory of operation. The translator is a second way to run blocks of 64 and 32-bit code on the
 * interpreter's vCPU (struct icpu): memory, exceptions, events and modes are the interpreter's. It
 * turns a run of guest instructions into host code once. Most instructions are copied with other
 * register numbers; a memory operand is looked up in the interpreter's TLB inline. What it does not
 * translate, and every access that the TLB does not answer at once, is done by the
 * interpreter's op for that instruction, called from generated code (translator_step).
 *
 * Registers in generated code: guest registers are in the host's of the same name, RSP too, so
 * that nothing is ever pushed; but guest R10, R11 and R13 stay in memory (cpu.s.gpr), and the
 * host's are scratch. The six status flags are in the host's flags. Vector registers are in memory
 * (cpu.s.fpu) until code uses them, and then in the host's until generated code is left or calls
 * the interpreter (enum vector_level).
 *
 * A block belongs to a page (struct tr_page): a linear page, the guest-physical page behind
 * it, the privilege and the code size. Its code has up to four entries, each going on in the next:
 *   indirect  TR_S0 = RIP: is it this block's? reached through a jump table
 *   cross     is this page still what the linear page is mapped to? (one word of current[])
 *   checked   does anything ask for attention?
 *   direct    jumps within the page, forward
 * each twice: with the status flags in the host's, and saved in translator.flags. Where the block
 * does not read the flags it is entered with, the two are the same.
 *
 * All vCPUs share the code (struct tr_cache), which does not name one (struct emit). Blocks are
 * made and linked under a lock, run without, and are dropped while others may be in them: their
 * places are used again when every vCPU has been outside (translator.inside).
 */
#ifndef ENGINE_TRANSLATOR_TRANSLATOR_H
#define ENGINE_TRANSLATOR_TRANSLATOR_H

#include "engine/interpreter/interpreter.h"
#include "engine/translator/emit_x86_64.h"

/* Scratch registers; the guest's of these names are in memory. */
#define TR_S0            R11 /* the address of an access; the target of an indirect branch */
#define TR_S1            R10
#define TR_S2            R13
#define TR_SCRATCH_COUNT 3u
static inline bool is_spilled(int guest)
{
    return guest == TR_S0 || guest == TR_S1 || guest == TR_S2;
}

/*
 * Bytes for generated code and what belongs to it, unless they are configured, and at most. Half of
 * it is code, which lies below 2 GiB.
 */
#define TR_CACHE_SMALL    (160u << 20)
#define TR_CACHE_LARGE    (640u << 20)
#define TR_CACHE_MOST     (1536u << 20)
#define TR_MAX_VCPUS      16u
#define TR_JUMP_SIZE      65536u /* jump table: by the low 16 bits of RIP */
#define TR_PAGE_IDS       65536u
#define TR_REGIONS        8u /* of the code cache: the oldest is emptied for new blocks */
#define TR_BLOCK_HASH     65536u
#define TR_PAGE_HASH      4096u
#define TR_RECENT         1024u /* blocks found lately, by RIP */
#define TR_CHANGES        32u
#define TR_SPACES         8u /* address spaces that are set aside, with so many pages each */
#define TR_SPACE_PAGES    32u
#define TR_MAX_INSNS      128u
#define TR_MAX_BLOCK_CODE 65536u /* bytes of host code, at most: see blocks.S */
#define TR_MAX_BLOCK_DATA 32768u

/* What is in the cache's data, in a number that fits into an instruction: its place there / 8; or
 * 0.
 */
typedef uint32_t tr_ref;

/* An instruction that generated code may leave, or call the interpreter for. Few ever do. */
struct tr_site {
    tr_ref block;
    tr_ref copy;      /* tr_copy; or 0: it is in the source of the block */
    uint16_t offset;  /* there */
    uint8_t charged;  /* counted mode: what the block took from the budget for it and behind */
    int8_t undo_rsp;  /* indirect branches: what takes back their change of RSP */
    bool is_fallback; /* always executed by the interpreter */
    bool ends;        /* likewise, at the end of a block, which goes on behind it */
    bool is_last;     /* OP_IS_LAST */
};

/* The instruction of a site. */
struct tr_copy {
    uint64_t rip;
    uint8_t bytes[16];
};

/*
 * The interpreter's version of a site's instruction, which comes back to generated code. It is made
 * when it is needed, and may be forgotten at any time but while it is executed.
 */
struct tr_op {
    struct op op;
    op_fn *end; /* run of the op behind it, of which there is no more */
    uint64_t page_rip, next_rip;
    uint16_t mnemonic; /* ZydisMnemonic */
    uint8_t charged;   /* as in the site */
    bool is_fallback, ends;
};
#define TR_OPS 32768u

struct tr_page {
    struct tr_page *hash_next; /* or, of no use, in free_pages */
    tr_ref parts;              /* of blocks that come from here, but dropped ones */
    uint64_t rip, gpa;         /* of the first byte */
    struct tr_page *code_next; /* of the same code page, nearly */
    struct code_page *page;
    uint32_t generation; /* of page, up to which its changes are known here */
    uint32_t id;         /* below TR_PAGE_IDS, not 0 */
    uint32_t uses;       /* parts of blocks, also of dropped ones */
    enum tlb_kind kind;
    unsigned mode; /* tr_mode() */
    uint8_t built; /* as translator.built when its blocks were made */
};

/* Code of other privilege or size is other code: it has pages and a jump table of its own. */
#define TR_MODE_COUNT (2u * TLB_KIND_COUNT)
static inline unsigned tr_mode(enum tlb_kind kind, bool is_32bit)
{
    return 2u * kind + is_32bit;
}

struct tr_link;
struct tr_listing;

enum tr_entry { TR_INDIRECT, TR_CROSS, TR_CHECKED, TR_DIRECT, TR_ENTRY_COUNT };

/* What of a page a block was translated from. */
struct tr_part {
    uint64_t chunks;
    tr_ref next, previous; /* in the page's list, unless the block was dropped */
    tr_ref block;
    uint32_t page_id;
};
#define TR_MAX_PARTS 3u

/* How a block is made. Where a check of its groups fails, it goes on in one of a later style. */
enum tr_style {
    TR_QUICK,     /* ends at every branch that is always taken */
    TR_FOLLOWING, /* goes on where it leads; counts as TR_QUICK once it is made */
    TR_TAIL,      /* one turn of a loop, for where a check for several turns failed */
    TR_PLAIN,     /* no access shares a look-up */
};

/* The bytes that a block of one piece was made from, for when they are written. */
#define TR_MAX_LIVE 4u
struct tr_source {
    uint8_t patches; /* how often they were written, but for immediates in vain */
    uint8_t live_count;
    struct {
        uint16_t at;
        uint8_t size;    /* bytes */
    } live[TR_MAX_LIVE]; /* immediates that are read each time, in the order they stand in */
    uint16_t size;
    uint8_t bytes[];
};
#define TR_PATCHES 3u /* until a block checks itself instead */

struct tr_block {
    tr_ref incoming; /* links */
    tr_ref hash_next, region_next;
    tr_ref links;                        /* link_count of them, one after the other */
    tr_ref source;                       /* tr_source, or 0 */
    uint32_t entries[2][TR_ENTRY_COUNT]; /* execute view; [1]: the flags are saved */
    struct tr_page *page;                /* it begins in */
    uint64_t rip;
    uint16_t link_count;
    uint8_t part_count;
    uint8_t style; /* enum tr_style, but TR_FOLLOWING */
    bool crosses;  /* its only instruction runs into the page of parts[1] */
    /* Nothing leads here. Any thread reads it, and before it relies on nothing having led here
     * since, looks again. */
    _Atomic bool dropped;
    bool follows;       /* branches */
    bool checks_itself; /* compares its bytes each time: writes to them are of no concern */
    struct tr_part parts[];
};

/* A direct branch out of a block; until it is linked, it leads to its own stub. */
struct tr_link {
    tr_ref next;    /* into the same block; and the link or block that leads here by its first */
    tr_ref before;  /* member, 0 while it is not linked */
    tr_ref block;   /* it is in */
    uint32_t rel32; /* offset in the code */
    uint32_t stub;  /* execute view */
    uint8_t to;     /* enum tr_style of the target */
    bool saved;     /* the flags are, where it branches */
    uint8_t heat;   /* how often it has to be taken before its block is made anew; 0: not at all */
};
static_assert(sizeof(struct tr_link) % 8 == 0, "they follow each other, and have refs");
#define TR_HEAT 16u

/* What the blocks of a part of the code cache are in, and next to it their data. */
struct tr_region {
    tr_ref blocks;
    size_t code_bytes, data_bytes; /* used; not of the region that is being filled */
};

struct tr_stats {
    uint64_t blocks, instructions, fallback_instructions, pages_changed, evictions;
    uint64_t revived, self_checking;
    uint64_t enters, links, waits;
    uint64_t interpreted[INTERP_REASON_COUNT],
        budget;                /* instructions; icpu.budget when last looked */
    enum interp_reason reason; /* since then */
    /* Steps by mnemonic: instructions that are not translated, and memory accesses that missed. */
    uint64_t fallbacks[ZYDIS_MNEMONIC_MAX_VALUE + 1], slow[ZYDIS_MNEMONIC_MAX_VALUE + 1];
};

/*
 * Which vector registers are in the host's registers, those in memory being of no value. Vector
 * instructions need a level, and raise a lower one; steps and exits let it sink to none.
 */
enum vector_level {
    VECTORS_NONE,
    VECTORS_SSE,    /* the low 16 bytes of registers 0-15 */
    VECTORS_AVX,    /* registers 0-15 at the model's width */
    VECTORS_AVX512, /* all 32, and the opmasks */
    VECTOR_LEVELS
};

/* The pages that were current when another PCID was switched to. */
struct tr_space {
    bool is_set;
    uint16_t pcid;
    unsigned count;
    struct {
        uint32_t id;
        uint64_t rip;
    } pages[TR_SPACE_PAGES];
};

/* A page that was current on a vCPU since blocks were last forgotten there. */
struct tr_seen {
    uint32_t hash_next;       /* ids; or 0 */
    uint32_t current_next[2]; /* that may be current: [1] mapped globally, [0] not */
    uint8_t listed;           /* bit n: in the list of current_next[n]; TR_IN_HASH */
    bool global;              /* the mapping was, when it was looked at */
};
#define TR_IN_HASH 4u

#define TR_STARTS  8

/*
 * The code cache, which all vCPUs share. All of it is used under lock, but what is said to be
 * otherwise, and but blocks, sites, sources and links that a vCPU knows of while it is inside
 * (translator.inside): they are where they are until it has been outside.
 */
struct tr_cache {
    struct host_mutex lock; /* interpreter.code_lock may be taken under it */
    bool is_shared;         /* there are several vCPUs */
    unsigned vcpu_count;    /* of vcpus; does not change while one runs */
    struct translator *vcpus[TR_MAX_VCPUS];

    struct host_code code;
    struct emit emit;     /* where the next block goes */
    uint8_t *first_block; /* behind the thunks, write view */
    bool host_has_adx;
    /* Thunks (execute view), which do not change. exit: TR_S0 = RIP. exit_link: and TR_S1 =
     * tr_link. exit_indirect: and TR_S2 = tr_site of the branch. step: TR_S2 = tr_site, and TR_S0 =
     * back. _saved: the flags are in flags, not in the host's. step, raise_vectors and
     * load_vectors go on at back; the latter two keep general registers, and load_vectors, which is
     * for level none, flags as well. */
    const uint8_t *enter; /* int (const uint8_t *code) */
    const uint8_t *exit, *exit_saved, *exit_link, *exit_link_saved, *exit_indirect,
        *exit_indirect_saved, *step, *step_saved;
    const uint8_t *raise_vectors[VECTOR_LEVELS], *load_vectors[VECTOR_LEVELS];
    /* TR_S2 is vcpu_address() of a near page, which becomes that of TR_S0 if the TLB has it; goes
     * on at back, and keeps TR_S0. */
    const uint8_t *find_near;

    uint8_t *data, *data_at; /* blocks, links: reserved, touched as they fill; the next ones */
    size_t data_bytes;
    struct tr_region regions[TR_REGIONS];
    unsigned region;               /* that is being filled */
    _Atomic uint32_t evictions;    /* of regions */
    unsigned starts;               /* as blocks_start_again */
    _Atomic uint32_t links_made;   /* see cache_see */
    bool has_jumps[TR_MODE_COUNT]; /* the vCPUs' jump tables of a mode are used */
    struct tr_page *pages; /* TR_PAGE_IDS; from 1 to below page_end; some may be in free_pages */
    struct tr_page *free_pages;
    unsigned page_end, pages_left;
    struct tr_page *page_hash[TR_PAGE_HASH]; /* by linear address */
    struct tr_page *code_hash[TR_PAGE_HASH]; /* by code page */
    tr_ref block_hash[TR_BLOCK_HASH];
    /* By their place in block_hash: blocks that follow branches, and those that must not, because
     * what they had followed to was written. */
    uint64_t hot[TR_BLOCK_HASH / 64], tame[TR_BLOCK_HASH / 64];

    /* Code that was written since it was last looked at, under interpreter.code_lock. More than
     * fits: look at all pages. */
    struct {
        struct code_page *page;
        uint64_t chunks;
    } changes[TR_CHANGES];
    unsigned change_count;
    _Atomic uint8_t is_stale; /* there are some; falls when their blocks have been dropped */

    struct tr_builder *builder;
    struct tr_listing *listing; /* NULL: none is wanted */
};

/*
 * Behind generated code: what is reached through links that other vCPUs made can be read. x86 shows
 * their stores in order; this says so to the compiler, and to who looks for races.
 */
static inline void cache_see(const struct tr_cache *cache)
{
    (void)atomic_load_explicit(&cache->links_made, memory_order_acquire);
}

/* What is a vCPU's own. Only its thread uses it, but what is said to be otherwise. */
struct translator {
    /* What generated code touches. */
    uint32_t vector_level; /* enum vector_level; none outside generated code */
    uint16_t flags;        /* status flags as LAHF has them in the high byte, OF in the low one */
    uint64_t host_rsp;     /* the host's stack pointer while generated code runs */
    uint64_t back;         /* where the thunk that it jumped to goes on */
    uint64_t target;       /* of an indirect call, while the return address is pushed */
    uint64_t part;         /* elements of a string instruction: to be done next, then left */
    uint64_t pointers[16]; /* of the running block's groups (groups.c) */
    /* How generated code was left: by this unlinked branch, or tr_site of an indirect one, or 0. */
    tr_ref link, site;
    uint64_t styled_rip; /* where a group's check failed, so that a block of a later style comes */
    enum tr_style style; /* next: this one; or no RIP */
    struct icpu *c;
    /* By id: ~rip if this page is what its linear page is mapped to, else 0. */
    uint64_t current[TR_PAGE_IDS];

    struct tr_cache *cache;
    uintptr_t distance; /* from the first vCPU, and of the views of the code from one another */
    /* Odd while the vCPU is inside: in generated code, or about to use what it knows of it. Who
     * waits for it to change reads it. */
    _Atomic uint32_t inside;
    bool has_lock;      /* of the cache */
    uint32_t evictions; /* as the cache's, when blocks were last forgotten here */

    struct tr_seen *seen;             /* TR_PAGE_IDS */
    uint32_t maybe_current[2];        /* lists by current_next */
    uint32_t seen_hash[TR_PAGE_HASH]; /* by linear address */
    struct tr_space spaces[TR_SPACES];
    unsigned next_space; /* to be replaced */
    struct tr_block *recent[TR_RECENT];

    /* What the blocks of current pages were made for, of what is not in their mode: fpu_blocked and
     * CR4.SMAP. A step that changes it leaves. */
    uint8_t built;
    struct tr_stats stats;
    tr_ref op_sites[TR_OPS]; /* whose op is in ops, or 0 */
    struct tr_op *ops;       /* TR_OPS */
    /* As entries; those of a mode once the cache has_jumps. Generated code reads them; who holds
     * the lock of the cache may write them, too. */
    const uint8_t *_Atomic jumps[2][TR_MODE_COUNT][TR_JUMP_SIZE];
};

/* Where the translator's part of a vCPU is behind struct icpu, and where its view of the code is.
 */
#define TR_PLACE      ((sizeof(struct icpu) + 63) & ~(size_t)63)
#define TR_CODE_PLACE ((TR_PLACE + sizeof(struct translator) + 0xfff) & ~(size_t)0xfff)

/* ---- run.c ---- */

/* 0, or -errno with the reason why generated code cannot run here. */
int translator_probe(struct error *err);
/* Bytes of code in the cache of such a machine. */
size_t translator_code_bytes(const struct machine *machine);
/*
 * Sets c->translator. c is at the start of TR_CODE_PLACE zeroed bytes, and behind these is room for
 * a view of the code. The first vCPU's are below 2 GiB; it makes the code cache
 * (interpreter.cache).
 */
int translator_new(struct icpu *c, struct error *err);
void translator_free(struct icpu *c);
void translator_cache_free(struct tr_cache *cache); /* behind all vCPUs; or NULL */
/* Before the vCPU runs code on a thread where another one may have. */
void translator_enter_thread(const struct icpu *c);
/* A fault led out of translator_run(), perhaps. */
void translator_unwound(struct icpu *c);
extern const struct engine_ops translator_engine; /* interpreter/run.c: it shares the vCPU */
/* Can the next block be run by translator_run()? */
bool translator_can_run(const struct icpu *c);
/* Take note of what the interpreter has executed by itself, and why it will from here on. */
void translator_note_interpreted(struct icpu *c);
/* Run blocks until something has to be attended to. Faults longjmp as the interpreter's. */
void translator_run(struct icpu *c);
/* engine_ops.stats */
void translator_stats(struct translator *t,
                      void (*put)(void *opaque, const char *name, uint64_t count), void *opaque);

/* ---- blocks.c ---- */

/*
 * These chunks of a page with decoded code were written. Any thread; code_lock is held. The caller
 * asks for every vCPU's attention.
 */
void translator_page_changed(struct tr_cache *cache, struct code_page *page, uint64_t chunks);

/* Memory beside the block that is being made, as long as it lives. */
void *translator_data(struct tr_cache *cache, size_t bytes);
static inline void *tr_at(const struct tr_cache *cache, tr_ref ref)
{
    return cache->data + 8 * (size_t)ref;
}
static inline struct tr_block *tr_block_at(const struct tr_cache *cache, tr_ref ref)
{
    return ref ? tr_at(cache, ref) : NULL;
}
static inline tr_ref tr_ref_to(const struct tr_cache *cache, const void *data)
{
    return (tr_ref)((size_t)((const uint8_t *)data - cache->data) / 8);
}
/* The jump tables of a mode are there. */
void translator_make_jumps(struct tr_cache *cache, unsigned mode);
/* May a block follow branches once it is hot? */
bool translator_may_follow(const struct tr_cache *cache, const struct tr_page *page, uint64_t rip);

/* ---- access.c ---- */

/* The site's op; the vCPU is in the mode of its block. */
const struct tr_op *translator_site_op(struct translator *t, tr_ref site);
/* The interpreter's ops have to be made again. */
void translator_forget_ops(struct translator *t);

/* ---- pages.c ---- */

/* Linear addresses may be mapped to other pages; but for global_too only those not mapped globally.
 */
void translator_forget_mappings(struct translator *t, bool global_too);
/*
 * Before and after a switch of PCIDs that forgets mappings: those of the old one are set aside, and
 * those of the new one are brought back, if they are to be kept.
 */
void translator_set_aside(struct translator *t, uint16_t pcid);
void translator_bring_back(struct translator *t, uint16_t pcid, bool keep);
void translator_forget_spaces(struct translator *t);
/* This one may be. */
void translator_forget_page(struct translator *t, uint64_t linear);
/* All in the same GiB (in_same_gigabyte()) may be. */
void translator_forget_gigabyte(struct translator *t, uint64_t linear);
/* The page at the linear address page_rip, which f says where to find; it is current now. */
struct tr_page *translator_page(struct translator *t, const struct fetch_entry *f,
                                uint64_t page_rip);

/* ---- translate.c ---- */

struct tr_builder *translator_builder_new(struct tr_cache *cache);
void translator_builder_free(struct tr_builder *b);
/*
 * Translate the block at rip, which f (of interp_fetch) says where to find; it is entered into
 * page. before is the source of one that was there, or NULL. NULL if the interpreter has to run
 * the first instruction.
 */
struct tr_block *translate_block(struct translator *t, struct tr_page *page,
                                 const struct fetch_entry *f, uint64_t rip, enum tr_style style,
                                 const struct tr_source *before);

/* ---- source.c ---- */

/* Is the block's source at host what it was made from, perhaps apart from live immediates? */
bool source_is_at(const struct tr_source *s, const uint8_t *host, bool but_live);

/* What the op's handler goes on with. */
static inline const struct op *tr_op_end(const struct tr_op *op)
{
    return (const struct op *)&op->end;
}

/* ---- thunks.c ---- */

/* The code by which generated code is entered and left, at the start of the cache. */
void translator_make_thunks(struct translator *t);
/* Flags between the host's and translator.flags; both use TR_S1 and keep the other registers. */
void emit_save_flags(struct translator *t, struct emit *e);
void emit_restore_flags(struct translator *t, struct emit *e);
/* A field of the TLB entry that TR_S1 leads to, which is this one's in the first entry. */
static inline struct host_mem mem_tlb(const struct emit *e, const void *field)
{
    return mem_by_gs(TR_S1, NO_REG, 0, vcpu_address(e, field));
}
/* TR_S1 = tlb_index(address) * sizeof(struct tlb_entry); other is lost. */
void emit_hash(struct emit *e, unsigned address, unsigned other);
/* Called by the thunks: 0 to go on in generated code, 1 to leave it. */
int translator_step(struct icpu *c, tr_ref site);

/* ---- rewrite.c ---- */

/* How the operands of a copied instruction are placed. */
struct rewrite {
    int reg, rm, vvvv; /* host numbers of general registers in these fields; NO_REG: as it is */
    bool memory;       /* the memory operand is [base + index + disp]; index may be NO_REG */
    bool no_high_byte; /* none of these is AH, CH, DH or BH, although the guest's is */
    int base, index;
    int32_t disp;
};
/* MOV between AL, AX, EAX or RAX and memory at a constant address: it has no ModRM. */
static inline bool is_moffs(const struct insn *insn)
{
    return insn->info.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && insn->info.opcode >= 0xa0 &&
           insn->info.opcode <= 0xa3;
}
/* Copy insn with other operands. False if it cannot be encoded. At most 15 bytes. */
bool rewrite_insn(struct emit *e, const struct insn *insn, const struct rewrite *r);

#endif
