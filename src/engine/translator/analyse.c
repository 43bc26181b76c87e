/*
 * analyse.c - what an instruction needs of the translator
 *
 * Only what is listed here is translated; everything else is left to the interpreter's op.
 */
#include "engine/translator/builder.h"

#include "trapeze/clock.h"
#include "trapeze/machine.h"
#include "x86/control.h"
#include "x86/features.h"

/* Instructions whose operands are general registers, immediates and one memory operand. */
static const uint16_t copied[] = {
    ZYDIS_MNEMONIC_ADC,    ZYDIS_MNEMONIC_ADD,       ZYDIS_MNEMONIC_AND,
    ZYDIS_MNEMONIC_ANDN,   ZYDIS_MNEMONIC_BEXTR,     ZYDIS_MNEMONIC_BLSI,
    ZYDIS_MNEMONIC_BLSMSK, ZYDIS_MNEMONIC_BLSR,      ZYDIS_MNEMONIC_BSF,
    ZYDIS_MNEMONIC_BSR,    ZYDIS_MNEMONIC_BSWAP,     ZYDIS_MNEMONIC_BT,
    ZYDIS_MNEMONIC_BTC,    ZYDIS_MNEMONIC_BTR,       ZYDIS_MNEMONIC_BTS,
    ZYDIS_MNEMONIC_BZHI,   ZYDIS_MNEMONIC_CBW,       ZYDIS_MNEMONIC_CDQ,
    ZYDIS_MNEMONIC_CDQE,   ZYDIS_MNEMONIC_CLC,       ZYDIS_MNEMONIC_CMC,
    ZYDIS_MNEMONIC_CMOVB,  ZYDIS_MNEMONIC_CMOVBE,    ZYDIS_MNEMONIC_CMOVL,
    ZYDIS_MNEMONIC_CMOVLE, ZYDIS_MNEMONIC_CMOVNB,    ZYDIS_MNEMONIC_CMOVNBE,
    ZYDIS_MNEMONIC_CMOVNL, ZYDIS_MNEMONIC_CMOVNLE,   ZYDIS_MNEMONIC_CMOVNO,
    ZYDIS_MNEMONIC_CMOVNP, ZYDIS_MNEMONIC_CMOVNS,    ZYDIS_MNEMONIC_CMOVNZ,
    ZYDIS_MNEMONIC_CMOVO,  ZYDIS_MNEMONIC_CMOVP,     ZYDIS_MNEMONIC_CMOVS,
    ZYDIS_MNEMONIC_CMOVZ,  ZYDIS_MNEMONIC_CMP,       ZYDIS_MNEMONIC_CMPXCHG,
    ZYDIS_MNEMONIC_CQO,    ZYDIS_MNEMONIC_CRC32,     ZYDIS_MNEMONIC_CWD,
    ZYDIS_MNEMONIC_CWDE,   ZYDIS_MNEMONIC_DEC,       ZYDIS_MNEMONIC_IMUL,
    ZYDIS_MNEMONIC_INC,    ZYDIS_MNEMONIC_LAHF,      ZYDIS_MNEMONIC_LFENCE,
    ZYDIS_MNEMONIC_LZCNT,  ZYDIS_MNEMONIC_MFENCE,    ZYDIS_MNEMONIC_MOV,
    ZYDIS_MNEMONIC_MOVBE,  ZYDIS_MNEMONIC_MOVNTI,    ZYDIS_MNEMONIC_MOVSX,
    ZYDIS_MNEMONIC_MOVSXD, ZYDIS_MNEMONIC_MOVZX,     ZYDIS_MNEMONIC_MUL,
    ZYDIS_MNEMONIC_MULX,   ZYDIS_MNEMONIC_NEG,       ZYDIS_MNEMONIC_NOT,
    ZYDIS_MNEMONIC_OR,     ZYDIS_MNEMONIC_PDEP,      ZYDIS_MNEMONIC_PEXT,
    ZYDIS_MNEMONIC_POPCNT, ZYDIS_MNEMONIC_RCL,       ZYDIS_MNEMONIC_RCR,
    ZYDIS_MNEMONIC_ROL,    ZYDIS_MNEMONIC_ROR,       ZYDIS_MNEMONIC_RORX,
    ZYDIS_MNEMONIC_SAHF,   ZYDIS_MNEMONIC_SAR,       ZYDIS_MNEMONIC_SARX,
    ZYDIS_MNEMONIC_SBB,    ZYDIS_MNEMONIC_SETB,      ZYDIS_MNEMONIC_SETBE,
    ZYDIS_MNEMONIC_SETL,   ZYDIS_MNEMONIC_SETLE,     ZYDIS_MNEMONIC_SETNB,
    ZYDIS_MNEMONIC_SETNBE, ZYDIS_MNEMONIC_SETNL,     ZYDIS_MNEMONIC_SETNLE,
    ZYDIS_MNEMONIC_SETNO,  ZYDIS_MNEMONIC_SETNP,     ZYDIS_MNEMONIC_SETNS,
    ZYDIS_MNEMONIC_SETNZ,  ZYDIS_MNEMONIC_SETO,      ZYDIS_MNEMONIC_SETP,
    ZYDIS_MNEMONIC_SETS,   ZYDIS_MNEMONIC_SETZ,      ZYDIS_MNEMONIC_SFENCE,
    ZYDIS_MNEMONIC_SHL,    ZYDIS_MNEMONIC_SHLD,      ZYDIS_MNEMONIC_SHLX,
    ZYDIS_MNEMONIC_SHR,    ZYDIS_MNEMONIC_SHRD,      ZYDIS_MNEMONIC_SHRX,
    ZYDIS_MNEMONIC_STC,    ZYDIS_MNEMONIC_SUB,       ZYDIS_MNEMONIC_TEST,
    ZYDIS_MNEMONIC_TZCNT,  ZYDIS_MNEMONIC_XADD,      ZYDIS_MNEMONIC_XCHG,
    ZYDIS_MNEMONIC_XOR,    ZYDIS_MNEMONIC_CMPXCHG8B, ZYDIS_MNEMONIC_CMPXCHG16B,
    ZYDIS_MNEMONIC_ADCX,   ZYDIS_MNEMONIC_ADOX,
};

static bool is_copied(ZydisMnemonic mnemonic)
{
    static bool table[ZYDIS_MNEMONIC_MAX_VALUE + 1];
    static bool filled;

    if (!filled) {
        for (unsigned n = 0; n < sizeof(copied) / sizeof(copied[0]); n++)
            table[copied[n]] = true;
        filled = true; /* by several threads at once: they write the same */
    }
    return table[mnemonic];
}

/* Of the 80386 but CMOVcc, and not with segment, control or debug registers. */
bool is_plain_insn(const struct insn *insn, bool *ends)
{
    const struct insn_info *info = &insn->info;
    unsigned opcode = info->opcode;

    *ends = false;
    if (info->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
        return false;
    if (info->opcode_map == ZYDIS_OPCODE_MAP_0F) {
        if ((opcode & 0xf0) == 0x80) /* Jcc */
            return info->raw.prefix_count == 0;
        return (opcode & 0xf0) == 0x40 || (opcode & 0xf0) == 0x90 || opcode == 0xaf ||
               (opcode & 0xf6) == 0xb6; /* CMOVcc, SETcc, IMUL, MOVZX, MOVSX */
    }
    if (info->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
        return false;
    if (opcode < 0x40)
        return (opcode & 7) < 6; /* ALU */
    switch (opcode) {
    case 0x63: /* MOVSXD */
        return info->mnemonic == ZYDIS_MNEMONIC_MOVSXD;
    case 0x68: /* PUSH */
    case 0x69: /* IMUL */
    case 0x6a:
    case 0x6b:
    case 0x80: /* ALU */
    case 0x81:
    case 0x83:
    case 0x84: /* TEST */
    case 0x85:
    case 0x88: /* MOV */
    case 0x89:
    case 0x8a:
    case 0x8b:
    case 0x8d: /* LEA */
    case 0xa8: /* TEST */
    case 0xa9:
    case 0xc0: /* shifts */
    case 0xc1:
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3:
        return true;
    case 0xc6: /* MOV, XABORT, XBEGIN */
    case 0xc7:
        return info->mnemonic == ZYDIS_MNEMONIC_MOV;
    case 0xf6: /* TEST, NOT, NEG, MUL, IMUL; DIV, IDIV */
    case 0xf7:
        return info->raw.modrm.reg < 6;
    case 0xc3: /* RET */
    case 0xe8: /* CALL */
    case 0xe9: /* JMP */
    case 0xeb:
        *ends = true;
        return info->raw.prefix_count == 0;
    default:
        if ((opcode & 0xf0) == 0x70) /* Jcc */
            return info->raw.prefix_count == 0;
        return (opcode & 0xf0) == 0x50 || (opcode & 0xf0) == 0xb0; /* PUSH, POP, MOV */
    }
}

static bool is_flags_register(ZydisRegister reg)
{
    return reg == ZYDIS_REGISTER_FLAGS || reg == ZYDIS_REGISTER_EFLAGS ||
           reg == ZYDIS_REGISTER_RFLAGS;
}

static bool in_field(const struct insn_operand *o)
{
    return o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG ||
           o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM ||
           o->encoding == ZYDIS_OPERAND_ENCODING_OPCODE ||
           o->encoding == ZYDIS_OPERAND_ENCODING_NDSNDD;
}

/*
 * Without BMI1 the guest's TZCNT is BSF, and LZCNT likewise BSR; what the model has not is #UD.
 * ADCX is what the host may lack.
 */
static bool means_another(const struct tr_builder *b, const struct insn *insn)
{
    const struct cpu_model *model = b->t->c->cpu.model;

    if (insn->info.mnemonic == ZYDIS_MNEMONIC_ADCX || insn->info.mnemonic == ZYDIS_MNEMONIC_ADOX)
        return !b->cache->host_has_adx;
    return (insn->info.mnemonic == ZYDIS_MNEMONIC_TZCNT &&
            !cpu_model_has(model, X86_FEATURE_BMI1)) ||
           (insn->info.mnemonic == ZYDIS_MNEMONIC_LZCNT &&
            !cpu_model_has(model, X86_FEATURE_LZCNT));
}

/* Only general registers that are where the host's instruction looks for them. */
static bool operands_are_plain(const struct insn *insn)
{
    for (unsigned n = 0; n < insn->info.operand_count; n++) {
        const struct insn_operand *o = &insn->operands[n];
        int guest;

        if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
            continue;
        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
            if (o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN ||
                o->mem.type != ZYDIS_MEMOP_TYPE_MEM)
                return false;
            continue;
        }
        if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
            return false;
        if (is_flags_register(o->reg.value))
            continue;
        guest = gpr_of(o->reg.value);
        if (guest == NO_REG || (!in_field(o) && (guest == RSP || is_spilled(guest))))
            return false;
    }
    return true;
}

static const struct insn_operand *memory_operand(const struct insn *insn)
{
    for (unsigned n = 0; n < insn->info.operand_count_visible; n++)
        if (insn->operands[n].type == ZYDIS_OPERAND_TYPE_MEMORY)
            return &insn->operands[n];
    return NULL;
}

/* Does its segment have a base other than 0? */
static bool has_base(const struct insn_operand *m)
{
    return m->mem.segment == ZYDIS_REGISTER_FS || m->mem.segment == ZYDIS_REGISTER_GS;
}

/* ---- kinds ---- */

/* As a mask, K0 stands for none. */
static bool uses_k0(const struct insn *insn)
{
    for (unsigned n = 0; n < insn->info.operand_count; n++) {
        const struct insn_operand *o = &insn->operands[n];

        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && o->reg.value == ZYDIS_REGISTER_K0 &&
            o->encoding != ZYDIS_OPERAND_ENCODING_MASK)
            return true;
    }
    return false;
}

static bool is_vector_insn(const struct tr_builder *b, struct tr_insn *ti)
{
    const struct icpu *c = b->t->c;
    const struct insn *insn = &ti->insn;
    struct stub_plan *plan = &ti->plan;
    struct op scratch = ti->built;

    for (unsigned n = 0; n < insn->info.operand_count; n++) {
        const struct insn_operand *o = &insn->operands[n];

        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY &&
            (o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN ||
             o->mem.type != ZYDIS_MEMOP_TYPE_MEM))
            return false;
        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && !in_field(o) &&
            (is_spilled(gpr_of(o->reg.value)) || gpr_of(o->reg.value) == RSP))
            return false;
    }
    if (fpu_build(b->t->c, insn, &scratch)) /* control words are C's work */
        return false;
    if (b->is_32bit && (insn->info.mnemonic == ZYDIS_MNEMONIC_VZEROUPPER ||
                        insn->info.mnemonic == ZYDIS_MNEMONIC_VZEROALL))
        return false; /* of eight registers only */
    if (!host_stub_plan(c, insn, plan) || plan->is_mmx)
        return false;
    if (plan->needs & FPU_X87)
        return plan->needs == FPU_X87 && (!plan->memory_bytes || ti->memory);
    if (plan->needs & c->fpu_blocked)
        return false;
    if (!uses_k0(insn))
        plan->k_read &= (uint8_t)~1u;
    return !plan->memory_bytes || ti->memory;
}

/* Instructions on control words, where nothing forbids them. */
static enum tr_kind control_word_kind(const struct tr_builder *b, const struct insn *insn)
{
    enum tr_kind kind;
    uint8_t needs;
    bool is_mmx;

    switch (insn->info.mnemonic) {
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
        kind = TR_LDMXCSR;
        break;
    case ZYDIS_MNEMONIC_STMXCSR:
    case ZYDIS_MNEMONIC_VSTMXCSR:
        kind = TR_STMXCSR;
        break;
    case ZYDIS_MNEMONIC_FLDCW:
        kind = TR_FLDCW;
        break;
    case ZYDIS_MNEMONIC_FWAIT:
        kind = TR_FWAIT;
        break;
    default:
        return TR_FALLBACK;
    }
    if (!host_stub_isa(b->t->c->cpu.model, insn, &needs, &is_mmx) ||
        (needs & ~FPU_X87 & b->t->c->fpu_blocked))
        return TR_FALLBACK;
    return kind;
}

static enum tr_kind branch_kind(const struct insn *insn)
{
    bool direct =
        insn->info.operand_count_visible && insn->operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;

    switch (insn->info.meta.category) {
    case ZYDIS_CATEGORY_COND_BR:
        switch (insn->info.mnemonic) {
        case ZYDIS_MNEMONIC_JCXZ:
            return TR_FALLBACK;
        case ZYDIS_MNEMONIC_JRCXZ:
        case ZYDIS_MNEMONIC_JECXZ:
        case ZYDIS_MNEMONIC_LOOP:
        case ZYDIS_MNEMONIC_LOOPE:
        case ZYDIS_MNEMONIC_LOOPNE:
            return insn->info.address_width >= 32 ? TR_LOOP : TR_FALLBACK;
        default:
            return TR_JCC;
        }
    case ZYDIS_CATEGORY_UNCOND_BR:
        if (insn->info.mnemonic != ZYDIS_MNEMONIC_JMP ||
            insn->info.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
            return TR_FALLBACK;
        return direct ? TR_JMP : TR_JMP_INDIRECT;
    case ZYDIS_CATEGORY_CALL:
        if (insn->info.mnemonic != ZYDIS_MNEMONIC_CALL ||
            insn->info.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
            return TR_FALLBACK;
        return direct ? TR_CALL : TR_CALL_INDIRECT;
    case ZYDIS_CATEGORY_RET:
        if (insn->info.mnemonic != ZYDIS_MNEMONIC_RET ||
            insn->info.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
            return TR_FALLBACK;
        return TR_RET;
    default:
        return TR_FALLBACK;
    }
}

static bool is_branch(const struct insn *insn)
{
    return insn->info.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE ||
           insn->info.meta.category == ZYDIS_CATEGORY_RET ||
           insn->info.meta.category == ZYDIS_CATEGORY_CALL;
}

static bool is_kernel(const struct tr_builder *b)
{
    return b->page->kind == TLB_KERNEL || b->page->kind == TLB_KERNEL_SMAP_OPEN;
}

/* Of what ends a block and is no branch: SYSCALL and SYSRET between rings 3 and 0, and POPF. */
static enum tr_kind ending_kind(const struct tr_builder *b, const struct insn *insn)
{
    bool from_user = b->page->kind == TLB_USER;
    bool is_call = insn->info.mnemonic == ZYDIS_MNEMONIC_SYSCALL;
    bool is_return = insn->info.mnemonic == ZYDIS_MNEMONIC_SYSRET && insn->info.raw.rex.W;

    if (b->is_32bit || b->t->c->counted)
        return TR_FALLBACK;
    if (is_call && from_user)
        return TR_SYSCALL;
    if (!is_kernel(b))
        return TR_FALLBACK;
    if (insn->info.mnemonic == ZYDIS_MNEMONIC_POPFQ)
        return TR_POPF;
    return is_return ? TR_SYSRET : TR_FALLBACK;
}

static bool is_gpr_or_immediate(const struct insn_operand *o)
{
    return o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ||
           (o->type == ZYDIS_OPERAND_TYPE_REGISTER && gpr_of(o->reg.value) != NO_REG);
}

/* Is the TSC virtual time by a line? */
static bool has_time_line(const struct tr_builder *b)
{
    const struct icpu *c = b->t->c;

    return clocks_line(machine_clocks(c->interpreter->machine)) &&
           x86_tsc_hz(c->cpu.model) == NANOSECONDS_PER_SECOND;
}

/* A string instruction by flat addresses. */
static bool is_plain_string(const struct tr_builder *b, const struct insn *insn)
{
    return insn->info.address_width == 8 * b->word &&
           !(insn->info.attributes & (ZYDIS_ATTRIB_HAS_SEGMENT_FS | ZYDIS_ATTRIB_HAS_SEGMENT_GS |
                                      ZYDIS_ATTRIB_HAS_SEGMENT_CS));
}

static enum tr_kind string_kind(const struct tr_builder *b, const struct insn *insn)
{
    const ZydisInstructionAttributes repeats =
        ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE;

    if (!is_plain_string(b, insn))
        return TR_FALLBACK;
    if (!(insn->info.attributes & repeats))
        return TR_STRING;
    return string_of(insn) == STRING_LODS ? TR_FALLBACK : TR_REP;
}

/* Is the memory operand one that 32-bit code may reach through flat segments, or FS and GS? */
static bool is_plain_memory32(const struct insn *insn, const struct insn_operand *m)
{
    return insn->info.address_width == 32 && m->mem.segment != ZYDIS_REGISTER_CS;
}

/* MOV of a segment register to a general one. */
static bool is_selector_move(const struct insn *insn)
{
    return insn->info.mnemonic == ZYDIS_MNEMONIC_MOV &&
           insn->operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
           gpr_of(insn->operands[0].reg.value) != NO_REG &&
           insn->operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
           insn->operands[1].reg.value >= ZYDIS_REGISTER_ES &&
           insn->operands[1].reg.value <= ZYDIS_REGISTER_GS;
}

/* MOV of CR0, CR2, CR3 or CR4, which have no side to them, to a general register. */
static bool is_control_read(const struct insn *insn)
{
    const struct insn_operand *from = &insn->operands[1];

    return insn->info.mnemonic == ZYDIS_MNEMONIC_MOV && from->type == ZYDIS_OPERAND_TYPE_REGISTER &&
           from->reg.value >= ZYDIS_REGISTER_CR0 && from->reg.value <= ZYDIS_REGISTER_CR4 &&
           from->reg.value != ZYDIS_REGISTER_CR1;
}

static enum tr_kind kind_of(const struct tr_builder *b, struct tr_insn *ti)
{
    const struct insn *insn = &ti->insn;
    bool wide = insn->info.operand_width == 8 * b->word;
    bool nothing = insn->info.mnemonic == ZYDIS_MNEMONIC_NOP;

    if (b->is_32bit && ti->memory && !nothing && !is_plain_memory32(insn, ti->memory))
        return TR_FALLBACK;
    if (is_branch(insn)) {
        enum tr_kind kind = branch_kind(insn);

        if ((kind == TR_JMP_INDIRECT || kind == TR_CALL_INDIRECT) && !ti->memory &&
            gpr_of(insn->operands[0].reg.value) == RSP)
            return TR_FALLBACK;
        return wide || ((kind == TR_JCC || kind == TR_LOOP) && !b->is_32bit) ? kind : TR_FALLBACK;
    }
    if (insn->info.meta.category == ZYDIS_CATEGORY_STRINGOP)
        return string_kind(b, insn);
    switch (insn->info.mnemonic) {
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_ENDBR64:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHW:
        return TR_NOTHING;
    case ZYDIS_MNEMONIC_LEA:
        return TR_LEA;
    case ZYDIS_MNEMONIC_PUSH:
        return wide && (ti->memory || is_gpr_or_immediate(&insn->operands[0])) ? TR_PUSH
                                                                               : TR_FALLBACK;
    case ZYDIS_MNEMONIC_PUSHFQ:
    case ZYDIS_MNEMONIC_PUSHFD:
        return TR_PUSHF;
    case ZYDIS_MNEMONIC_SWAPGS:
        return is_kernel(b) ? TR_SWAPGS : TR_FALLBACK;
    case ZYDIS_MNEMONIC_CLI:
        return is_kernel(b) ? TR_CLI : TR_FALLBACK;
    case ZYDIS_MNEMONIC_STI:
        return is_kernel(b) ? TR_STI : TR_FALLBACK;
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
        return has_time_line(b) ? TR_RDTSC : TR_FALLBACK;
    case ZYDIS_MNEMONIC_RDFSBASE:
    case ZYDIS_MNEMONIC_RDGSBASE:
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE:
        return !b->is_32bit && cpu_model_has(b->t->c->cpu.model, X86_FEATURE_FSGSBASE)
                   ? TR_FSGSBASE
                   : TR_FALLBACK;
    case ZYDIS_MNEMONIC_RDPKRU:
        return cpu_model_has(b->t->c->cpu.model, X86_FEATURE_PKU) ? TR_RDPKRU : TR_FALLBACK;
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_CLAC:
        return is_kernel(b) ? TR_SET_AC : TR_FALLBACK;
    case ZYDIS_MNEMONIC_CLD:
    case ZYDIS_MNEMONIC_STD:
        return TR_SET_DF;
    case ZYDIS_MNEMONIC_PAUSE:
        return insn->info.raw.rex.B ? TR_FALLBACK : TR_PAUSE;
    case ZYDIS_MNEMONIC_POP:
        return wide && is_gpr_or_immediate(&insn->operands[0]) ? TR_POP : TR_FALLBACK;
    case ZYDIS_MNEMONIC_LEAVE:
        return wide ? TR_LEAVE : TR_FALLBACK;
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
        return insn->info.operand_width >= 32 && operands_are_plain(insn) ? TR_DIV : TR_FALLBACK;
    default:
        break;
    }
    if (is_selector_move(insn))
        return TR_SELECTOR;
    if (is_control_read(insn))
        return is_kernel(b) ? TR_READ_CR : TR_FALLBACK;
    if (is_copied(insn->info.mnemonic)) {
        bool bit_string =
            insn->info.mnemonic == ZYDIS_MNEMONIC_BT || insn->info.mnemonic == ZYDIS_MNEMONIC_BTS ||
            insn->info.mnemonic == ZYDIS_MNEMONIC_BTR || insn->info.mnemonic == ZYDIS_MNEMONIC_BTC;

        if (!operands_are_plain(insn) || means_another(b, insn) ||
            (ti->memory && !(insn->info.attributes & ZYDIS_ATTRIB_HAS_MODRM) && !is_moffs(insn)))
            return TR_FALLBACK;
        if (ti->memory && bit_string && insn->operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER)
            return insn->info.operand_width >= 32 && !(b->is_32bit && has_base(ti->memory))
                       ? TR_BITS
                       : TR_FALLBACK;
        return TR_COPY;
    }
    if (!is_vector_insn(b, ti))
        return control_word_kind(b, insn);
    return ti->plan.needs & FPU_X87 ? TR_X87 : TR_VECTOR;
}

/* Are all registers that it names the host's of the same name? */
static bool is_verbatim(const struct tr_builder *b, const struct tr_insn *ti)
{
    if (b->is_32bit || (ti->kind == TR_COPY ? ti->memory != NULL : ti->kind != TR_LEA))
        return false;
    for (unsigned n = 0; n < ti->insn.info.operand_count; n++) {
        const struct insn_operand *o = &ti->insn.operands[n];
        int guest = o->type == ZYDIS_OPERAND_TYPE_REGISTER ? gpr_of(o->reg.value) : NO_REG;

        if (is_spilled(guest))
            return false;
    }
    if (ti->memory) {
        int base = gpr_of(ti->memory->mem.base), index = gpr_of(ti->memory->mem.index);

        return base != NO_REG && !is_spilled(base) && !is_spilled(index);
    }
    return true;
}

/* ---- flags ---- */

/* Shifts and rotates leave the flags alone if the count is 0. */
static bool kills_conditionally(const struct insn *insn)
{
    unsigned count = insn->info.operand_count_visible;
    const struct insn_operand *last = &insn->operands[count ? count - 1 : 0];

    switch (insn->info.mnemonic) {
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
        return last->type != ZYDIS_OPERAND_TYPE_IMMEDIATE ||
               !(last->imm.value.u & (insn->info.operand_width == 64 ? 63 : 31));
    default:
        return false;
    }
}

static void flags_of(struct tr_insn *ti)
{
    const ZydisAccessedFlags *f = ti->insn.info.cpu_flags;

    ti->flags_used = ti->flags_killed = 0;
    if (ti->kind == TR_FALLBACK || ti->kind == TR_PUSHF || ti->kind == TR_SYSCALL) {
        ti->flags_used = STATUS_FLAGS;
        return;
    }
    if (ti->kind == TR_READ_CR)
        return; /* the manuals call them undefined behind it */
    if (ti->kind == TR_SYSRET || ti->kind == TR_POPF) {
        ti->flags_killed = STATUS_FLAGS;
        return;
    }
    if (!f)
        return;
    ti->flags_used = f->tested & STATUS_FLAGS;
    if (ti->kind != TR_REP && !kills_conditionally(&ti->insn))
        ti->flags_killed = (f->modified | f->set_0 | f->set_1 | f->undefined) & STATUS_FLAGS;
}

/* Does each make of processor leave other values in the flags that the manuals call undefined? */
static bool flags_vary(const struct insn *insn)
{
    switch (insn->info.mnemonic) {
    case ZYDIS_MNEMONIC_BEXTR:
    case ZYDIS_MNEMONIC_BSF:
    case ZYDIS_MNEMONIC_BSR:
    case ZYDIS_MNEMONIC_IMUL:
    case ZYDIS_MNEMONIC_LZCNT:
    case ZYDIS_MNEMONIC_MUL:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SHRD:
    case ZYDIS_MNEMONIC_TZCNT:
        return true;
    default:
        return false;
    }
}

/* Is the block never left at this instruction? */
static bool stays(const struct tr_insn *ti)
{
    return ti->kind == TR_NOTHING || ti->kind == TR_LEA ||
           ((ti->kind == TR_COPY || ti->kind == TR_VECTOR) && !ti->memory);
}

/*
 * A counted run is the same on every host and with every engine, in the frames of interrupts and
 * faults too: all flags are kept everywhere, and what is undefined is the interpreter's as soon as
 * something could see it.
 */
static void analyse_counted_flags(struct tr_builder *b)
{
    unsigned seen = STATUS_FLAGS;

    for (unsigned n = b->count; n-- > 0;) {
        struct tr_insn *ti = &b->insns[n];

        if (flags_vary(&ti->insn) && (ti->insn.info.cpu_flags->undefined & seen)) {
            ti->kind = TR_FALLBACK;
            ti->flags_used = STATUS_FLAGS;
            ti->flags_killed = 0;
        }
        seen = stays(ti) ? (seen & ~(unsigned)ti->flags_killed) | ti->flags_used : STATUS_FLAGS;
        ti->flags_live = true;
    }
}

void find_joins(struct tr_builder *b)
{
    for (unsigned n = 0; n < b->count; n++)
        b->insns[n].join = b->insns[n].joined_from = NO_INSN;
    if (b->t->c->counted)
        return; /* how many instructions run would be known only there */
    for (unsigned n = 0; n < b->count; n++) {
        struct tr_insn *ti = &b->insns[n];
        unsigned k = n + 1;

        if (ti->kind != TR_JCC)
            continue;
        while (k < b->count && b->insns[k].rip != ti->target && !b->insns[k].enters)
            k++; /* a way may not lead around the check of a page */
        if (k == b->count || b->insns[k].rip != ti->target)
            continue;
        ti->join = (uint16_t)k;
        if (b->insns[k].joined_from == NO_INSN)
            b->insns[k].joined_from = (uint16_t)n;
    }
}

/*
 * A flag that is overwritten before it is read is dead, even if an instruction in between
 * faults: the handler's frame then shows another value of it than the processor's.
 */
void analyse_flags(struct tr_builder *b)
{
    unsigned live = STATUS_FLAGS, live_at[TR_MAX_INSNS];

    if (b->t->c->counted) {
        analyse_counted_flags(b);
        return;
    }
    for (unsigned n = b->count; n-- > 0;) {
        struct tr_insn *ti = &b->insns[n];

        if (ti->kind == TR_JCC && ti->join != NO_INSN)
            live |= live_at[ti->join];
        else if (ti->kind >= TR_JCC &&
                 (!ti->followed || ti->kind == TR_RET)) /* who knows its target */
            live = STATUS_FLAGS;
        live = (live & ~(unsigned)ti->flags_killed) | ti->flags_used;
        if (ti->enters) /* its page may be another one by then, with other code */
            live = STATUS_FLAGS;
        live_at[n] = live;
        ti->flags_live = live != 0;
    }
}

void analyse_insn(struct tr_builder *b, struct tr_insn *ti)
{
    ti->memory = memory_operand(&ti->insn);
    ti->inverted = false;
    ti->kind = ti->ends && !is_branch(&ti->insn) ? ending_kind(b, &ti->insn) : kind_of(b, ti);
    if (ti->kind == TR_JCC || ti->kind == TR_LOOP || ti->kind == TR_JMP || ti->kind == TR_CALL)
        ti->target =
            word_of(b, ti->rip + ti->insn.info.length + (uint64_t)ti->insn.info.raw.imm[0].value.s);
    ti->verbatim = is_verbatim(b, ti);
    if (ti->kind >= TR_JMP || ti->kind == TR_SET_AC)
        ti->ends = true;
    flags_of(ti);
}
