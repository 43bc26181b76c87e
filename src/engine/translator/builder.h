/*
 * builder.h - a block while it is being translated
 */
#ifndef ENGINE_TRANSLATOR_BUILDER_H
#define ENGINE_TRANSLATOR_BUILDER_H

#include "engine/interpreter/host_stub.h"
#include "engine/translator/translator.h"

struct machine_config;

enum tr_kind {
    TR_FALLBACK, /* the interpreter's op */
    TR_COPY,     /* general registers, perhaps one memory operand */
    TR_VECTOR,   /* plan is valid; opmask instructions as well */
    TR_X87,      /* likewise */
    TR_NOTHING,  /* NOP, prefetch */
    TR_LEA,
    TR_PUSH,
    TR_POP,
    TR_LEAVE,
    TR_PUSHF,
    TR_BITS,     /* BT, BTS, BTR, BTC of a bit in memory beyond the operand */
    TR_STRING,   /* MOVS, STOS, LODS, SCAS, CMPS */
    TR_REP,      /* the same with REP, but LODS */
    TR_SELECTOR, /* MOV of a segment register to a general one */
    TR_SET_DF,   /* CLD, STD */
    TR_PAUSE,
    TR_LDMXCSR,
    TR_STMXCSR,
    TR_FLDCW,
    TR_FWAIT,
    TR_SWAPGS,
    TR_CLI,
    TR_STI,
    TR_SET_AC,   /* STAC, CLAC */
    TR_RDTSC,    /* RDTSCP as well */
    TR_READ_CR,  /* MOV of CR0, CR2, CR3, CR4 to a general register */
    TR_FSGSBASE, /* RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE */
    TR_RDPKRU,
    TR_POPF, /* in ring 0 of 64-bit code */
    TR_DIV,
    TR_JCC,
    TR_LOOP, /* LOOP, LOOPcc, JRCXZ, JECXZ */
    TR_JMP,
    TR_CALL,
    TR_JMP_INDIRECT,
    TR_CALL_INDIRECT,
    TR_RET,
    TR_SYSCALL, /* from ring 3 of 64-bit code */
    TR_SYSRET,  /* to it */
};

#define TR_MAX_GROUPS 16u
#define TR_MAX_DEPTH  4u /* calls within calls that are followed */
#define NO_GROUP      (-1)
#define NO_INSN       UINT16_MAX

/* A register's value: what symbol stands for (0: nothing) plus offset. */
struct symbolic {
    uint32_t symbol;
    int32_t offset;
};

/* One memory access of an instruction: base + index << scale + offset, in symbols. */
struct access {
    unsigned base, index;
    int64_t offset;
    unsigned size;
    uint8_t scale, align_mask; /* the address is a multiple of align_mask + 1, or it faults */
    bool write;
    bool is_operand; /* the explicit memory operand; else the stack */
    bool alone;      /* shares no look-up */
    int8_t group;    /* NO_GROUP: a look-up of its own */
};

/* Accesses that share a look-up; the same symbols, [low, high) in offsets. */
struct group {
    unsigned base, index;
    int64_t low, high;
    uint8_t scale, align_mask; /* of low, if the members are aligned as they have to be */
    bool write;
    unsigned place; /* the instruction before which it is checked */
    uint8_t *store; /* of its pointer, write view; NULL: there is none */
    bool reloaded;  /* from where it was stored */
};

struct tr_insn {
    struct insn insn;
    struct stub_plan plan; /* of TR_VECTOR */
    struct op built;       /* the interpreter's op, unless it is a plain instruction */
    struct tr_site *site;  /* NULL until insn_site() is asked for it */
    uint64_t rip;
    enum tr_kind kind;
    const struct insn_operand *memory; /* explicit operand that is accessed, or NULL */
    uint64_t target;                   /* of direct branches */
    bool is_last;                      /* OP_IS_LAST */
    bool verbatim;                     /* it means the same in generated code */
    bool inverted; /* TR_JCC: branches to target where the guest's instruction goes on */
    uint16_t join; /* TR_JCC: instruction behind it in this block that is its target, or NO_INSN */
    uint16_t joined_from; /* the first TR_JCC of which this is the target, or NO_INSN */
    uint8_t *rel32;       /* TR_JCC with join: and what held and level are where it branches */
    int8_t held[TR_SCRATCH_COUNT];
    enum vector_level level;
    uint16_t flags_used, flags_killed;
    bool flags_live;              /* some status flag is read at or behind this instruction */
    enum vector_level raise;      /* what to raise the level to before this instruction */
    bool ends;                    /* the block ends behind it */
    bool followed;                /* JMP, CALL or RET: the block goes on where it leads */
    uint64_t leads;               /* followed RET: to this address, unless it was changed */
    const struct tr_page *enters; /* another page, behind a followed branch; else NULL */
    struct access access[2];
    unsigned access_count;
    struct symbolic before[16]; /* general registers */
    const uint8_t *host;        /* where its code begins, write view */
};

/* What is looked up: size bytes at the linear address in the scratch register address. */
struct lookup {
    unsigned address;
    unsigned size;
    bool write;
    uint8_t align_mask;
    int near; /* number of the near page that it may be in, or NO_NEAR */
};
#define NO_NEAR (-1)

/* Code out of line: what leads to it, and what it does. */
enum cold_kind {
    COLD_STEP,  /* interpreter's op, then back to resume */
    COLD_EXIT,  /* leave at rip */
    COLD_GROUP, /* to the block at rip that checks less at once */
    COLD_LINK,  /* the stub of a link */
    COLD_MISS,  /* a RET that leads elsewhere: through the jump table */
    COLD_RAISE, /* raise the level of vector registers, then back to resume */
};

struct cold {
    enum cold_kind kind;
    uint8_t *rel32;
    const uint8_t *resume;
    const struct tr_site *site;
    struct tr_link *link;
    uint64_t rip;
    unsigned refund; /* given back to the budget: instructions that do not run */
    int32_t rsp_ahead, resume_rsp_ahead; /* as in tr_builder, where it starts and at resume */
    bool flags_saved;
    enum tr_style to;
    bool could_follow;       /* COLD_LINK: the block would go on there if it followed branches */
    enum vector_level level; /* of vector registers at resume */
    struct lookup lookup;    /* in a near page: */
    const uint8_t *hit;      /* where it goes on once that was found; or NULL */
};

#define TR_MAX_COLD 1024u

struct tr_builder {
    struct tr_cache *cache;
    struct translator *t; /* of the vCPU that translates */
    struct emit *e;
    struct tr_page *page;
    struct tr_block *block;
    struct tr_insn insns[TR_MAX_INSNS];
    unsigned count;
    bool is_32bit; /* code */
    unsigned word; /* bytes of addresses and of what CALL pushes: 8 or 4 */
    struct cold cold[TR_MAX_COLD];
    unsigned cold_count;
    const uint8_t *entry_exits[2]; /* out of line: by flags_saved, where its entries leave */
    uint64_t end_rip;              /* behind the last instruction */
    /* The pages that it comes from, and which of their chunks. */
    struct {
        struct tr_page *page;
        const uint8_t *host;
        uint64_t chunks;
    } parts[TR_MAX_PARTS];
    unsigned part_count;
    bool crosses;    /* the only instruction runs into parts[1] */
    bool may_follow; /* branches, when it is hot */
    unsigned followed_count, depth;
    uint64_t returns[TR_MAX_DEPTH]; /* of the calls that were followed */
    unsigned charged; /* counted mode: for the current instruction and behind; else 0 */
    bool flags_saved; /* the status flags are in t->flags, the host's are of no value */
    /* The guest's RSP - the host's: PUSH, POP and the like only change this (settle_rsp). */
    int32_t rsp_ahead;

    enum vector_level level; /* vector registers are at this level at least */
    enum tr_style style;
    bool unrolled;
    bool checks_itself;       /* and so ends where it may have written to itself */
    struct tr_source *source; /* what it will be compared with, or NULL */
    struct group groups[TR_MAX_GROUPS];
    unsigned group_count, symbol_count;
    int8_t held[TR_SCRATCH_COUNT]; /* by scratch_index(): whose pointer it has, or NO_GROUP */
};

#define STATUS_FLAGS 0x8d5u

/* An address as code of this size has it. */
static inline uint64_t word_of(const struct tr_builder *b, uint64_t address)
{
    return b->is_32bit ? (uint32_t)address : address;
}
static inline uint64_t next_rip(const struct tr_builder *b, const struct tr_insn *ti)
{
    return word_of(b, ti->rip + ti->insn.info.length);
}
/* Moves of word bytes, zero-extended. */
static inline void emit_load_word(const struct tr_builder *b, unsigned to, struct host_mem m)
{
    emit_rm(b->e, !b->is_32bit, 0x8b, to, m);
}
static inline void emit_mov_word(const struct tr_builder *b, unsigned to, unsigned from)
{
    emit_rr(b->e, !b->is_32bit, 0x8b, to, from);
}
static inline void emit_store_word(const struct tr_builder *b, struct host_mem m, unsigned from)
{
    emit_rm(b->e, !b->is_32bit, 0x89, from, m);
}
static inline void emit_lea_word(const struct tr_builder *b, unsigned to, struct host_mem m)
{
    emit_lea(b->e, !b->is_32bit, to, m);
}

/* String instructions, by their opcodes. */
enum string_insn {
    STRING_MOVS = 0xa4,
    STRING_CMPS = 0xa6,
    STRING_STOS = 0xaa,
    STRING_LODS = 0xac,
    STRING_SCAS = 0xae,
};
static inline enum string_insn string_of(const struct insn *insn)
{
    return (enum string_insn)(insn->info.opcode & 0xfe);
}

/* ---- analyse.c ---- */

/* Fill in everything but insn, built and rip. */
void analyse_insn(struct tr_builder *b, struct tr_insn *ti);
/* Branches to instructions behind them. */
void find_joins(struct tr_builder *b);
/* Work backwards through the block. */
void analyse_flags(struct tr_builder *b);
/*
 * Is ti an everyday instruction of every model, which neither ends a block by surprise nor needs a
 * host stub? So its op is not needed yet. Says whether it ends the block.
 */
bool is_plain_insn(const struct insn *insn, bool *ends);
/* Number of a general register of any width, or NO_REG; high bytes are those of their register. */
static_assert(ZYDIS_REGISTER_AH == ZYDIS_REGISTER_AL + 4 &&
                  ZYDIS_REGISTER_SPL == ZYDIS_REGISTER_AL + 8 &&
                  ZYDIS_REGISTER_AX == ZYDIS_REGISTER_AL + 20 &&
                  ZYDIS_REGISTER_RAX == ZYDIS_REGISTER_AX + 32,
              "gpr_of counts on it");
static inline int gpr_of(unsigned reg)
{
    unsigned n = reg - ZYDIS_REGISTER_AL;

    if (n >= 20 + 48)
        return NO_REG;
    return (int)(n >= 20 ? (n - 20) & 15 : n >= 4 ? n - 4 : n);
}
/* AH, CH, DH, BH: numbers 4-7 in an instruction without REX. */
static inline bool is_high_byte(ZydisRegister reg)
{
    return reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH;
}
static inline unsigned scratch_index(unsigned scratch)
{
    return scratch == TR_S0 ? 0 : scratch == TR_S1 ? 1 : 2;
}

/* ---- access.c ---- */

/* What generated code says that it is at ti. */
struct tr_site *insn_site(struct tr_builder *b, struct tr_insn *ti);
struct cold *cold_new(struct tr_builder *b, enum cold_kind kind, uint8_t *rel32);
/* The guest register's value in a host register: its own, or scratch, which it is loaded into. */
unsigned guest_value(struct tr_builder *b, int guest, unsigned scratch);
/* A scratch register, or each of them, is used for something else. */
static inline void scratch_lost(struct tr_builder *b, unsigned scratch)
{
    b->held[scratch_index(scratch)] = NO_GROUP;
}
static inline void all_scratch_lost(struct tr_builder *b)
{
    memset(b->held, NO_GROUP, sizeof(b->held));
}
/* RSP += bytes, by and by: flags and registers are kept. */
void move_rsp(struct tr_builder *b, int32_t bytes);
/* The guest's RSP is the host's afterwards; flags and other registers are kept. */
void settle_rsp(struct tr_builder *b);
/* Where a spilled register is. */
struct host_mem guest_slot(struct tr_builder *b, int guest);
/* The address of the memory operand, without its segment's base. */
void emit_lea_operand(struct tr_builder *b, const struct tr_insn *ti, unsigned to, bool wide);
/* Where an access finds its memory: [base + index + disp]. */
struct place {
    int base, index; /* index: or NO_REG */
    int32_t disp;
    struct cold *cold;    /* for finish_access(); NULL if there is no look-up */
    struct cold *segment; /* likewise of the check of FS or GS */
};
static inline void rewrite_at(struct rewrite *r, const struct place *p)
{
    r->base = p->base;
    r->index = p->index;
    r->disp = p->disp;
}
static inline struct host_mem place_mem(const struct place *p)
{
    return mem_index(p->base, p->index, 0, p->disp);
}
/*
 * The memory of access a of ti. What TR_S1 is needed for afterwards: registers and flags that are
 * not in the host's.
 */
struct place emit_access(struct tr_builder *b, struct tr_insn *ti, const struct access *a);
void finish_access(struct tr_builder *b, const struct place *p);
/*
 * Where what leads from l's address to host memory is, or off to the code that is put in *out_cold
 * (as COLD_STEP), also if the address is not aligned. The other scratch registers are lost; TR_S1
 * may be needed to reach the result.
 */
struct host_mem emit_find(struct tr_builder *b, struct tr_insn *ti, const struct lookup *l,
                          struct cold **out_cold);
/* TR_S2 = the result for TR_S0, in no near page. */
struct cold *emit_lookup(struct tr_builder *b, struct tr_insn *ti, unsigned size, bool write,
                         unsigned align_mask);
/* Out of line, for cold->lookup: find the page and go on at hit; or it was not found. */
void emit_find_near(struct tr_builder *b, const struct cold *cold);
/* Which near page the registers of an address lead to; NO_REG: none. */
int near_of(const struct tr_builder *b, int base, int index);
/* Before something that changes the host's flags. */
void guard_flags(struct tr_builder *b, const struct tr_insn *ti);
/* TR_S0 = linear address of the access. */
void emit_address_of(struct tr_builder *b, const struct tr_insn *ti, const struct access *a);
/* The same as emit_lookup for a constant address; TR_S0 is loaded with it. */
struct cold *emit_lookup_at(struct tr_builder *b, struct tr_insn *ti, uint64_t address,
                            unsigned size, bool write, unsigned align_mask);
/* cold goes on here. */
void finish_cold(struct tr_builder *b, struct cold *cold);
/* The status flags are in t->flags afterwards, and checks may change the host's. */
void flags_save(struct tr_builder *b);
/* The status flags are in the host's flags afterwards. */
void flags_to_host(struct tr_builder *b);
/* Before an instruction that may read or write flags itself. */
void flags_for(struct tr_builder *b, const struct tr_insn *ti);

/* ---- groups.c ---- */

/* Registers, accesses and groups of the whole block. */
void find_groups(struct tr_builder *b);
/* The checks that stand before ti. */
void emit_group_checks(struct tr_builder *b, struct tr_insn *ti);
/* Behind all instructions: pointers that are never read from memory need not be there. */
void drop_unused_stores(struct tr_builder *b);

/* ---- instructions.c ---- */

/* The group checks that stand before ti, and ti. */
void emit_insn(struct tr_builder *b, struct tr_insn *ti);
/* Off to the interpreter's op on this condition; finish_cold() says where it comes back. */
struct cold *step_if(struct tr_builder *b, struct tr_insn *ti, unsigned condition);
/* The memory of ti's access to the stack. */
struct place emit_stack_access(struct tr_builder *b, struct tr_insn *ti);
/* TR_S1 = the status flags of t->flags, as in EFLAGS; TR_S0 is lost. */
void emit_status_flags(struct tr_builder *b);

/* ---- system.c ---- */

/* Off to the interpreter's op if an event is pending. TR_S2 is lost. */
struct cold *step_if_event(struct tr_builder *b, struct tr_insn *ti);
bool emit_rdtsc(struct tr_builder *b, struct tr_insn *ti);
bool emit_read_cr(struct tr_builder *b, struct tr_insn *ti);
bool emit_fsgsbase(struct tr_builder *b, struct tr_insn *ti);
bool emit_rdpkru(struct tr_builder *b, struct tr_insn *ti);
bool emit_popf(struct tr_builder *b, struct tr_insn *ti);
bool emit_syscall(struct tr_builder *b, struct tr_insn *ti);
bool emit_sysret(struct tr_builder *b, struct tr_insn *ti);

/* Is it the block that comes first, not one for where a check of it failed? */
static inline bool is_main(const struct tr_builder *b)
{
    return b->style == TR_QUICK || b->style == TR_FOLLOWING;
}

/* ---- decode.c ---- */

/* The block comes from this page, too. False: there is no such code, or no more room. */
bool add_part(struct tr_builder *b, const struct fetch_entry *f, uint64_t page_rip);
/* Decode the block's instructions from rip on, which is in its first part. False to give up. */
bool decode_block(struct tr_builder *b, uint64_t rip);
/* Note the chunks of all parts, and let no write to them go unseen from here on. */
void claim_parts(struct tr_builder *b);
/* Are the instructions still what was decoded? */
bool parts_are_unchanged(const struct tr_builder *b);

/* ---- source.c ---- */

/* Note what the block is made from. before: of what was at its RIP until it was written. */
void find_source(struct tr_builder *b, const struct tr_source *before);
/* The block was decoded again and is shorter. */
void shorten_source(struct tr_builder *b);
/* A block that checks itself: leave it unless its bytes are what they were. */
void emit_source_check(struct tr_builder *b);
/* The immediate of ti is read each time it is executed: do it. False if ti is another one. */
bool emit_live(struct tr_builder *b, struct tr_insn *ti);

/* ---- translate.c ---- */

/* Leave the block at rip unless condition is false. */
void emit_exit_if(struct tr_builder *b, unsigned condition, uint64_t rip);
/* Leave the block at rip unless its page is still mapped to what it was. Changes the host's flags.
 */
void emit_page_exit(struct tr_builder *b, uint64_t rip);
/* Behind a branch to another page: is it still mapped to what ti was decoded from? */
void emit_page_check(struct tr_builder *b, struct tr_insn *ti);
/* A jump (condition < 0) or conditional branch to rip. */
void emit_branch(struct tr_builder *b, int condition, uint64_t rip);
/* The same by a jump that was written, and may be jumped over if it is conditional. */
void aim_branch(struct tr_builder *b, uint8_t *rel32, bool conditional, uint64_t rip);
/* To the address in TR_S0; ti is for a target that is not canonical. */
void emit_indirect(struct tr_builder *b, struct tr_insn *ti);
/* The same to code of another tr_mode(), whose jump tables there are. */
void emit_indirect_mode(struct tr_builder *b, struct tr_insn *ti, unsigned mode);
/* The same if that is not ti->leads. */
void emit_matched_return(struct tr_builder *b, struct tr_insn *ti);

/* A step for the site, which goes on there, or behind this if back is NULL. */
void emit_step(struct tr_builder *b, const struct tr_site *site, bool flags_saved,
               const uint8_t *back);
/* Run a thunk that goes on at translator.back: there, or behind this if back is NULL. TR_S1 is
 * lost. */
void emit_thunk(struct tr_builder *b, const uint8_t *thunk, const uint8_t *back);

/* ---- listing.c ---- */

/* Open the files that the machine's configuration asks for, if any. */
int listing_open(struct tr_cache *cache, const struct machine_config *config, struct error *err);
void listing_close(struct tr_cache *cache);
/* The block was written to [start, e->at); behind cold it is out of line. cache->listing is set. */
void listing_block(const struct tr_builder *b, const uint8_t *start, const uint8_t *cold);

/* ---- strings.c ---- */

bool emit_rep(struct tr_builder *b, struct tr_insn *ti);
bool emit_string(struct tr_builder *b, struct tr_insn *ti);

/* ---- vectors.c ---- */

bool emit_vector(struct tr_builder *b, struct tr_insn *ti);
bool emit_x87(struct tr_builder *b, struct tr_insn *ti);
bool emit_fldcw(struct tr_builder *b, struct tr_insn *ti);
bool emit_fwait(struct tr_builder *b, struct tr_insn *ti);
bool emit_ldmxcsr(struct tr_builder *b, struct tr_insn *ti);
bool emit_stmxcsr(struct tr_builder *b, struct tr_insn *ti);
/* Where the block's vector registers are to be raised, and to which level. */
void plan_vector_levels(struct tr_builder *b);
/* Raise their level if the plan says so before ti, or ti needs it. */
void emit_vector_level(struct tr_builder *b, struct tr_insn *ti);

#endif
