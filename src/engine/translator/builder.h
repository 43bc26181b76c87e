/*
 * builder.h - a block while it is being translated
 */
#ifndef ENGINE_TRANSLATOR_BUILDER_H
#define ENGINE_TRANSLATOR_BUILDER_H

#include "engine/interpreter/host_stub.h"
#include "engine/translator/translator.h"

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
    TR_DIV,
    TR_JCC,
    TR_JMP,
    TR_CALL,
    TR_JMP_INDIRECT,
    TR_CALL_INDIRECT,
    TR_RET,
};

struct tr_insn {
    struct insn insn;
    struct stub_plan plan; /* of TR_VECTOR */
    struct op built;       /* the interpreter's op */
    struct tr_op *op;      /* a copy that stays; NULL until insn_op() is asked for it */
    uint64_t rip;
    enum tr_kind kind;
    const ZydisDecodedOperand *memory; /* explicit operand that is accessed, or NULL */
    uint64_t target;                   /* of direct branches */
    uint16_t flags_used, flags_killed;
    bool flags_live; /* some status flag is read at or behind this instruction */
    bool ends;       /* the block ends behind it */
};

/* How many bytes of each vector register the host has (0: none), and are newer than memory. */
struct vector_state {
    uint8_t valid[32], dirty[32];
};

/* Code out of line: what leads to it, and what it does. */
enum cold_kind {
    COLD_STEP,   /* interpreter's op, then back to resume */
    COLD_EXIT,   /* leave at rip */
    COLD_BRANCH, /* write vector registers back, then a link to rip */
    COLD_LINK,   /* the stub of a link */
    COLD_LOOP,   /* load what the loop expects in vector registers, then to its start */
};

struct cold {
    enum cold_kind kind;
    uint8_t *rel32;
    const uint8_t *resume;
    const struct tr_op *op;
    struct tr_link *link;
    uint64_t rip;
    bool flags_saved;
    struct vector_state before, after;
};

#define TR_MAX_COLD 512u

struct tr_builder {
    struct translator *t;
    struct emit *e;
    struct tr_page *page;
    struct tr_block *block;
    struct tr_insn insns[TR_MAX_INSNS];
    unsigned count;
    struct cold cold[TR_MAX_COLD];
    unsigned cold_count;
    uint64_t end_rip;       /* behind the last instruction */
    struct tr_page *second; /* the page that the only instruction runs into, or NULL */
    bool flags_saved;       /* the status flags are in t->flags, the host's are of no value */

    struct vector_state vectors;
    bool vector_loop;           /* jumps to its own start keep vector registers */
    struct vector_state at_hot; /* what they find there */
    const uint8_t *hot;
};

#define STATUS_FLAGS 0x8d5u

/* ---- analyse.c ---- */

/* Fill in everything but insn, built and rip. */
void analyse_insn(struct tr_builder *b, struct tr_insn *ti);
/* Work backwards through the block. */
void analyse_flags(struct tr_builder *b);
/* Number of a general register of any width, or NO_REG; high bytes are those of their register. */
int gpr_of(ZydisRegister reg);
/* AH, CH, DH, BH: numbers 4-7 in an instruction without REX. */
static inline bool is_high_byte(ZydisRegister reg)
{
    return reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH;
}
static inline bool is_spilled(int guest)
{
    return guest >= 10 && guest <= 13;
}
static inline unsigned host_of(int guest)
{
    return guest == RSP ? TR_RSP : (unsigned)guest;
}

/* ---- access.c ---- */

/* The instruction's op for generated code; made when it is needed. */
struct tr_op *insn_op(struct tr_builder *b, struct tr_insn *ti);
struct cold *cold_new(struct tr_builder *b, enum cold_kind kind, uint8_t *rel32);
/* The guest register's value in a host register: its own, or scratch, which it is loaded into. */
unsigned guest_value(struct tr_builder *b, int guest, unsigned scratch);
/* Where a spilled register is. */
struct host_mem guest_slot(struct tr_builder *b, int guest);
/* R11 = linear address of the operand. */
void emit_ea(struct tr_builder *b, const struct tr_insn *ti);
/* The same into any register, without access (LEA). */
void emit_lea_operand(struct tr_builder *b, const struct tr_insn *ti, unsigned to, bool wide);
/*
 * [R11 + R13] = host memory of size bytes at linear R11, or off to the interpreter's op. R11 is
 * kept. align_mask: bits of the address that must be zero. finish_access() says where to go on.
 */
/* The status flags are in t->flags afterwards, and checks may change the host's. */
void flags_save(struct tr_builder *b);
/* The status flags are in the host's flags afterwards. */
void flags_to_host(struct tr_builder *b);
/* Before an instruction that may read or write flags itself. */
void flags_for(struct tr_builder *b, const struct tr_insn *ti);
struct cold *emit_check(struct tr_builder *b, struct tr_insn *ti, unsigned size, bool write,
                        unsigned align_mask);
void finish_access(struct tr_builder *b, struct cold *cold);

/* ---- vectors.c ---- */

bool emit_vector(struct tr_builder *b, struct tr_insn *ti);
bool emit_x87(struct tr_builder *b, struct tr_insn *ti);
/* Memory is up to date afterwards. */
void vectors_write_back(struct tr_builder *b, const struct vector_state *state);
void vectors_load(struct tr_builder *b, const struct vector_state *wanted,
                  const struct vector_state *have);
bool vectors_any_dirty(const struct vector_state *state);
/* Does the block jump to its own start, with vector registers? Then what at_hot has to be. */
void vectors_plan_loop(struct tr_builder *b);

#endif
