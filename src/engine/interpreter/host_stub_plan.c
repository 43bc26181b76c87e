/*
 * host_stub_plan.c - from a guest's instruction to the one that the host executes
 *
 * The rewritten instruction differs from the guest's in this: prefixes that only
 * concern addresses are gone, the memory operand is [rdx] ([rcx] where the
 * instruction reads rdx), a general register is rax, and what 16- and 32-bit code encodes
 * differently (SDM vol. 2, 2.3.5 and 2.7.1: no high registers, VEX.W ignored) is made explicit.
 *
 * The guest chooses these bytes and we execute them, so the result is decoded again and must
 * mean exactly what is planned; otherwise there is no stub and the guest gets #UD.
 */
#include "engine/interpreter/host_stub.h"

#define HOST_RCX 1u
#define HOST_RDX 2u

/* ---- operands ---- */

static bool is_evex(const struct insn *insn)
{
    return insn->info.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
}

static bool is_read(const struct insn_operand *o)
{
    return o->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
}

static bool is_written(const struct insn_operand *o)
{
    return o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
}

static unsigned vector_width(ZydisRegister reg)
{
    return reg >= ZYDIS_REGISTER_ZMM0 ? 64 : reg >= ZYDIS_REGISTER_YMM0 ? 32 : 16;
}

/* Partial and conditional writes need the old contents: SSE keeps what it does not write. */
static void plan_vector(const struct insn *insn, const struct insn_operand *o, unsigned n,
                        struct stub_plan *plan)
{
    if (is_read(o) || plan->legacy || is_evex(insn) ||
        (o->actions & ZYDIS_OPERAND_ACTION_CONDWRITE))
        plan->vector_read |= 1u << n;
    if (is_written(o))
        plan->vector_write |= 1u << n;
    if (!plan->legacy && vector_width(o->reg.value) > plan->load_bytes)
        plan->load_bytes = (uint8_t)vector_width(o->reg.value);
}

/* Number of a 16-, 32- or 64-bit general register, or -1. */
static int gpr_number(ZydisRegister reg)
{
    if (reg >= ZYDIS_REGISTER_AX && reg <= ZYDIS_REGISTER_R15W)
        return reg - ZYDIS_REGISTER_AX;
    if (reg >= ZYDIS_REGISTER_EAX && reg <= ZYDIS_REGISTER_R15D)
        return reg - ZYDIS_REGISTER_EAX;
    if (reg >= ZYDIS_REGISTER_RAX && reg <= ZYDIS_REGISTER_R15)
        return reg - ZYDIS_REGISTER_RAX;
    return -1;
}

static bool is_modrm_operand(const struct insn_operand *o)
{
    return o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG ||
           o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM;
}

static bool plan_gpr(const struct insn_operand *o, unsigned n, struct stub_plan *plan)
{
    if (is_modrm_operand(o)) {
        if (plan->gpr != STUB_NO_GPR || o->size < 32)
            return false;
        plan->gpr = (uint8_t)n;
        plan->gpr_read = is_read(o);
        plan->gpr_write = is_written(o);
        return true;
    }
    if (n > X86_RDX)
        return false;
    if (is_read(o))
        plan->implicit_read |= (uint8_t)(1u << n);
    if (is_written(o)) {
        plan->implicit_write |= (uint8_t)(1u << n);
        plan->implicit_word = o->size == 16;
    }
    return true;
}

static bool is_flags(ZydisRegister reg)
{
    return reg == ZYDIS_REGISTER_FLAGS || reg == ZYDIS_REGISTER_EFLAGS ||
           reg == ZYDIS_REGISTER_RFLAGS;
}

/* x87 and MMX registers are in the host's own while stubs run: nothing to transfer. */
static bool is_live(ZydisRegister reg)
{
    return (reg >= ZYDIS_REGISTER_ST0 && reg <= ZYDIS_REGISTER_ST7) ||
           (reg >= ZYDIS_REGISTER_MM0 && reg <= ZYDIS_REGISTER_MM7) ||
           reg == ZYDIS_REGISTER_X87CONTROL || reg == ZYDIS_REGISTER_X87STATUS ||
           reg == ZYDIS_REGISTER_X87TAG || reg == ZYDIS_REGISTER_MXCSR;
}

static bool plan_register(const struct insn *insn, const struct insn_operand *o,
                          struct stub_plan *plan)
{
    ZydisRegister reg = o->reg.value;
    int n;

    if (o->attributes & ZYDIS_OATTRIB_IS_MULTISOURCE4)
        return false;
    if ((n = vector_number(reg)) >= 0) {
        plan_vector(insn, o, (unsigned)n, plan);
        return true;
    }
    if ((n = mask_number(reg)) >= 0) {
        plan->k_read |= (uint8_t)(1u << n);
        if (is_written(o))
            plan->k_write |= (uint8_t)(1u << n);
        return true;
    }
    if ((n = gpr_number(reg)) >= 0)
        return plan_gpr(o, (unsigned)n, plan);
    if (is_flags(reg)) {
        plan->flags_read |= is_read(o);
        plan->flags_write |= is_written(o);
        return true;
    }
    return is_live(reg);
}

/* ---- memory operand ---- */

/* SDM vol. 2, 2.4: the legacy instructions of types 2 and 4 that do not need alignment. */
static bool is_unaligned_exception(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_PCMPISTRM:
        return true;
    default:
        return false;
    }
}

bool host_stub_needs_alignment(const struct insn *insn, unsigned bytes)
{
    if (bytes < 16)
        return false;
    switch (insn->info.meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_SSE1:
    case ZYDIS_EXCEPTION_CLASS_AVX1:
    case ZYDIS_EXCEPTION_CLASS_E1:
    case ZYDIS_EXCEPTION_CLASS_E1NF:
        return true;
    case ZYDIS_EXCEPTION_CLASS_SSE2:
    case ZYDIS_EXCEPTION_CLASS_SSE4:
        return !is_unaligned_exception(insn->info.mnemonic);
    default:
        return insn->info.mnemonic == ZYDIS_MNEMONIC_CVTPD2PI ||
               insn->info.mnemonic == ZYDIS_MNEMONIC_CVTTPD2PI;
    }
}

/* Elements of the operation for which one memory element is broadcast, by enum ZydisBroadcastMode.
 */
static const uint8_t broadcast_count[ZYDIS_BROADCAST_MODE_MAX_VALUE + 1] = {
    [ZYDIS_BROADCAST_MODE_1_TO_2] = 2,   [ZYDIS_BROADCAST_MODE_1_TO_4] = 4,
    [ZYDIS_BROADCAST_MODE_1_TO_8] = 8,   [ZYDIS_BROADCAST_MODE_1_TO_16] = 16,
    [ZYDIS_BROADCAST_MODE_1_TO_32] = 32, [ZYDIS_BROADCAST_MODE_1_TO_64] = 64,
    [ZYDIS_BROADCAST_MODE_2_TO_4] = 4,   [ZYDIS_BROADCAST_MODE_2_TO_8] = 8,
    [ZYDIS_BROADCAST_MODE_2_TO_16] = 16, [ZYDIS_BROADCAST_MODE_4_TO_8] = 8,
    [ZYDIS_BROADCAST_MODE_4_TO_16] = 16, [ZYDIS_BROADCAST_MODE_8_TO_16] = 16,
};

/* SDM vol. 2, 2.8: types with "NF" read the whole operand whatever the mask says. */
static bool suppresses_faults(const struct insn *insn)
{
    switch (insn->info.mnemonic) { /* E4NF in the manual, not so in the decoder's tables */
    case ZYDIS_MNEMONIC_VGF2P8AFFINEQB:
    case ZYDIS_MNEMONIC_VGF2P8AFFINEINVQB:
    case ZYDIS_MNEMONIC_VDBPSADBW:
    case ZYDIS_MNEMONIC_VCVTNE2PS2BF16:
        return false;
    default:
        break;
    }
    switch (insn->info.meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_E1NF:
    case ZYDIS_EXCEPTION_CLASS_E2NF:
    case ZYDIS_EXCEPTION_CLASS_E3NF:
    case ZYDIS_EXCEPTION_CLASS_E4NF:
    case ZYDIS_EXCEPTION_CLASS_E5NF:
    case ZYDIS_EXCEPTION_CLASS_E6NF:
    case ZYDIS_EXCEPTION_CLASS_E9NF:
    case ZYDIS_EXCEPTION_CLASS_E10NF:
    case ZYDIS_EXCEPTION_CLASS_E11NF:
        return false;
    default:
        return true;
    }
}

static bool is_compress_or_expand(const struct insn *insn)
{
    return insn->info.meta.category == ZYDIS_CATEGORY_COMPRESS ||
           insn->info.meta.category == ZYDIS_CATEGORY_EXPAND ||
           (insn->info.mnemonic >= ZYDIS_MNEMONIC_VPCOMPRESSB &&
            insn->info.mnemonic <= ZYDIS_MNEMONIC_VPCOMPRESSW) ||
           (insn->info.mnemonic >= ZYDIS_MNEMONIC_VPEXPANDB &&
            insn->info.mnemonic <= ZYDIS_MNEMONIC_VPEXPANDW);
}

static bool is_vector_masked(ZydisMnemonic mnemonic)
{
    return mnemonic == ZYDIS_MNEMONIC_VMASKMOVPS || mnemonic == ZYDIS_MNEMONIC_VMASKMOVPD ||
           mnemonic == ZYDIS_MNEMONIC_VPMASKMOVD || mnemonic == ZYDIS_MNEMONIC_VPMASKMOVQ;
}

/* A dot product has several memory elements for each bit of the mask: they count as one. */
static void plan_elements(const struct insn *insn, const struct insn_operand *mem,
                          struct stub_plan *plan)
{
    const struct insn_operand *dst = &insn->operands[0];
    unsigned broadcast = broadcast_count[insn->info.avx.broadcast.mode];
    unsigned count = mem->element_count;

    if (!broadcast && vector_number(dst->reg.value) >= 0 && dst->element_count < count)
        count = dst->element_count;
    plan->element_bytes = (uint8_t)(plan->memory_bytes / count);
    plan->mask_count = (uint8_t)(broadcast ? broadcast : count);
}

static void plan_mask(const struct insn *insn, const struct insn_operand *mem,
                      struct stub_plan *plan)
{
    plan_elements(insn, mem, plan);
    if (is_vector_masked(insn->info.mnemonic)) {
        plan->mask = MASK_VECTOR;
        plan->mask_register = (uint8_t)vector_number(insn->operands[1].reg.value);
    } else if (is_evex(insn) && insn->info.avx.mask.reg > ZYDIS_REGISTER_K0 &&
               insn->info.avx.mask.reg <= ZYDIS_REGISTER_K7 &&
               (plan->is_store || suppresses_faults(insn))) {
        plan->mask = is_compress_or_expand(insn) ? MASK_COMPRESSED : MASK_K;
        plan->mask_register = (uint8_t)mask_number(insn->info.avx.mask.reg);
        plan->faults_whole = !suppresses_faults(insn);
    } else {
        plan->element_bytes = plan->mask_count = 0;
    }
}

static bool plan_memory(const struct insn *insn, const struct insn_operand *o,
                        struct stub_plan *plan)
{
    unsigned bytes = o->size / 8u;

    if (plan->memory_bytes || o->mem.type != ZYDIS_MEMOP_TYPE_MEM || !is_modrm_operand(o) ||
        !bytes || bytes > 64)
        return false;
    plan->memory_bytes = (uint8_t)bytes;
    plan->is_store = is_written(o);
    if (plan->is_store && (o->actions & ZYDIS_OPERAND_ACTION_READ))
        return false;
    if (host_stub_needs_alignment(insn, bytes))
        plan->align_mask = (uint8_t)(bytes - 1);
    plan_mask(insn, o, plan);
    return true;
}

static bool plan_operands(const struct insn *insn, struct stub_plan *plan)
{
    for (unsigned n = 0; n < insn->info.operand_count; n++) {
        const struct insn_operand *o = &insn->operands[n];

        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && !plan_register(insn, o, plan))
            return false;
        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && !plan_memory(insn, o, plan))
            return false;
        if (o->type == ZYDIS_OPERAND_TYPE_POINTER)
            return false;
    }
    return true;
}

/* ---- the instruction's bytes ---- */

static void put(struct stub_plan *plan, unsigned byte)
{
    plan->bytes[plan->length++] = (uint8_t)byte;
}

static bool is_gpr_in(const struct insn *insn, ZydisOperandEncoding encoding)
{
    for (unsigned n = 0; n < insn->info.operand_count; n++)
        if (insn->operands[n].encoding == encoding &&
            insn->operands[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            gpr_number(insn->operands[n].reg.value) >= 0)
            return true;
    return false;
}

static unsigned memory_register(const struct stub_plan *plan)
{
    return plan->implicit_read & 1u << X86_RDX ? HOST_RCX : HOST_RDX;
}

static unsigned rewritten_modrm(const struct insn *insn, const struct stub_plan *plan)
{
    unsigned mod = insn->info.raw.modrm.mod, reg = insn->info.raw.modrm.reg,
             rm = insn->info.raw.modrm.rm;

    if (is_gpr_in(insn, ZYDIS_OPERAND_ENCODING_MODRM_REG))
        reg = 0;
    if (plan->memory_bytes) {
        mod = 0;
        rm = memory_register(plan);
    } else if (is_gpr_in(insn, ZYDIS_OPERAND_ENCODING_MODRM_RM)) {
        rm = 0;
    }
    return mod << 6 | reg << 3 | rm;
}

/* Does rm name a vector register, so that its extension bits count? */
static bool keeps_rm(const struct insn *insn, const struct stub_plan *plan)
{
    return !plan->memory_bytes && !is_gpr_in(insn, ZYDIS_OPERAND_ENCODING_MODRM_RM);
}

static bool keeps_reg(const struct insn *insn)
{
    return !is_gpr_in(insn, ZYDIS_OPERAND_ENCODING_MODRM_REG);
}

static bool is_64bit(const struct insn *insn)
{
    return insn->info.machine_mode == ZYDIS_MACHINE_MODE_LONG_64;
}

static void put_legacy(const struct insn *insn, struct stub_plan *plan)
{
    unsigned rex = 0;

    if (insn->info.raw.mandatory_prefix)
        put(plan, insn->info.raw.mandatory_prefix);
    if (is_64bit(insn) && (insn->info.attributes & ZYDIS_ATTRIB_HAS_REX)) {
        rex |= insn->info.raw.rex.W << 3;
        rex |= keeps_reg(insn) ? insn->info.raw.rex.R << 2 : 0;
        rex |= keeps_rm(insn, plan) ? insn->info.raw.rex.B : 0;
    }
    if (rex)
        put(plan, 0x40 | rex);
    if (insn->info.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
        put(plan, 0x0f);
    if (insn->info.opcode_map == ZYDIS_OPCODE_MAP_0F38)
        put(plan, 0x38);
    if (insn->info.opcode_map == ZYDIS_OPCODE_MAP_0F3A)
        put(plan, 0x3a);
}

bool host_stub_w_is_width(const struct insn *insn)
{
    switch (insn->info.mnemonic) {
    case ZYDIS_MNEMONIC_KMOVD:
    case ZYDIS_MNEMONIC_VPBROADCASTD:
        return is_gpr_in(insn, ZYDIS_OPERAND_ENCODING_MODRM_RM) ||
               is_gpr_in(insn, ZYDIS_OPERAND_ENCODING_MODRM_REG);
    case ZYDIS_MNEMONIC_VMOVD:
    case ZYDIS_MNEMONIC_VPEXTRB:
    case ZYDIS_MNEMONIC_VPEXTRW:
    case ZYDIS_MNEMONIC_VPEXTRD:
    case ZYDIS_MNEMONIC_VPINSRB:
    case ZYDIS_MNEMONIC_VPINSRW:
    case ZYDIS_MNEMONIC_VPINSRD:
    case ZYDIS_MNEMONIC_VEXTRACTPS:
    case ZYDIS_MNEMONIC_VCVTSI2SS:
    case ZYDIS_MNEMONIC_VCVTSI2SD:
    case ZYDIS_MNEMONIC_VCVTUSI2SS:
    case ZYDIS_MNEMONIC_VCVTUSI2SD:
    case ZYDIS_MNEMONIC_VCVTSS2SI:
    case ZYDIS_MNEMONIC_VCVTSD2SI:
    case ZYDIS_MNEMONIC_VCVTTSS2SI:
    case ZYDIS_MNEMONIC_VCVTTSD2SI:
    case ZYDIS_MNEMONIC_VCVTSS2USI:
    case ZYDIS_MNEMONIC_VCVTSD2USI:
    case ZYDIS_MNEMONIC_VCVTTSS2USI:
    case ZYDIS_MNEMONIC_VCVTTSD2USI:
    case ZYDIS_MNEMONIC_VPCMPESTRI:
    case ZYDIS_MNEMONIC_VPCMPESTRM:
        return true;
    default:
        return false;
    }
}

/* Extension bits are stored inverted: set means register 0-7. */
#define INVERTED_R  0x80u
#define INVERTED_X  0x40u
#define INVERTED_B  0x20u
#define INVERTED_R2 0x10u /* EVEX */
#define VVVV_HIGH   0x40u
#define VEX_W       0x80u
#define EVEX_V2     0x08u

static unsigned rewritten_extensions(const struct insn *insn, const struct stub_plan *plan,
                                     unsigned bits, unsigned mask)
{
    if (!is_64bit(insn))
        return bits | mask;
    if (!keeps_reg(insn))
        bits |= mask & (INVERTED_R | INVERTED_R2);
    if (!keeps_rm(insn, plan))
        bits |= INVERTED_X | INVERTED_B;
    return bits;
}

static unsigned rewritten_w(const struct insn *insn, unsigned byte)
{
    if (is_64bit(insn))
        return byte;
    byte |= VVVV_HIGH;
    return host_stub_w_is_width(insn) ? byte & ~VEX_W : byte;
}

static void put_vex(const struct insn *insn, struct stub_plan *plan)
{
    const uint8_t *vex = insn->bytes + insn->info.raw.vex.offset;
    unsigned first, second;

    if (insn->info.raw.vex.size == 2) {
        first = (vex[1] & INVERTED_R) | INVERTED_X | INVERTED_B | 1;
        second = vex[1] & 0x7f;
    } else {
        first = vex[1];
        second = vex[2];
    }
    put(plan, 0xc4);
    put(plan, rewritten_extensions(insn, plan, first, INVERTED_R | INVERTED_X | INVERTED_B));
    put(plan, rewritten_w(insn, second));
}

static void put_evex(const struct insn *insn, struct stub_plan *plan)
{
    const uint8_t *evex = insn->bytes + insn->info.raw.evex.offset;

    put(plan, 0x62);
    put(plan, rewritten_extensions(insn, plan, evex[1],
                                   INVERTED_R | INVERTED_X | INVERTED_B | INVERTED_R2));
    put(plan, rewritten_w(insn, evex[2]));
    put(plan, is_64bit(insn) ? evex[3] : evex[3] | EVEX_V2);
}

static void put_immediate(const struct insn *insn, struct stub_plan *plan)
{
    unsigned first = insn->info.raw.imm[0].offset;

    if (!insn->info.raw.imm[0].size)
        return;
    for (unsigned n = first; n < insn->info.length; n++) {
        bool is_register = false;

        for (unsigned k = 0; k < insn->info.operand_count; k++)
            is_register |= insn->operands[k].encoding == ZYDIS_OPERAND_ENCODING_IS4;
        put(plan, is_register && !is_64bit(insn) ? insn->bytes[n] & 0x7f : insn->bytes[n]);
    }
}

static bool put_instruction(const struct insn *insn, struct stub_plan *plan)
{
    switch (insn->info.encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_LEGACY:
        put_legacy(insn, plan);
        break;
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
        put_vex(insn, plan);
        break;
    case ZYDIS_INSTRUCTION_ENCODING_EVEX:
        put_evex(insn, plan);
        break;
    default:
        return false;
    }
    put(plan, insn->info.opcode);
    if (insn->info.attributes & ZYDIS_ATTRIB_HAS_MODRM)
        put(plan, rewritten_modrm(insn, plan));
    put_immediate(insn, plan);
    return true;
}

/* ---- proof that the rewritten bytes mean what is planned ---- */

static bool same_operand(const struct stub_plan *plan, const struct insn_operand *guest,
                         const struct insn_operand *host)
{
    if (guest->type != host->type)
        return false;
    if (guest->type == ZYDIS_OPERAND_TYPE_MEMORY)
        return host->size == guest->size && host->mem.index == ZYDIS_REGISTER_NONE &&
               (host->mem.segment == ZYDIS_REGISTER_DS) && host->mem.disp.value == 0 &&
               host->mem.base == ZYDIS_REGISTER_RAX + memory_register(plan);
    if (guest->type == ZYDIS_OPERAND_TYPE_REGISTER && is_modrm_operand(guest) &&
        gpr_number(guest->reg.value) >= 0)
        return gpr_number(host->reg.value) == 0 && host->size == guest->size;
    if (guest->type == ZYDIS_OPERAND_TYPE_REGISTER)
        return guest->reg.value == host->reg.value;
    return guest->imm.value.u == host->imm.value.u;
}

static bool is_faithful(const struct insn *insn, const struct stub_plan *plan)
{
    struct insn host;

    if (x86_decode(X86_CODE_64, false, plan->bytes, plan->length, &host) != DECODE_OK ||
        host.info.length != plan->length || host.info.mnemonic != insn->info.mnemonic ||
        host.info.encoding != insn->info.encoding ||
        host.info.operand_count_visible != insn->info.operand_count_visible)
        return false;
    for (unsigned n = 0; n < insn->info.operand_count_visible; n++)
        if (!same_operand(plan, &insn->operands[n], &host.operands[n]))
            return false;
    return true;
}

/* ---- the plan ---- */

/* x87 instructions that neither look at pending exceptions nor count as "last instruction". */
static bool is_x87_control(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_FNCLEX:
    case ZYDIS_MNEMONIC_FNSTCW:
    case ZYDIS_MNEMONIC_FNSTSW:
    case ZYDIS_MNEMONIC_FENI8087_NOP:
    case ZYDIS_MNEMONIC_FDISI8087_NOP:
    case ZYDIS_MNEMONIC_FSETPM287_NOP:
        return true;
    default:
        return false;
    }
}

static void plan_x87(const struct insn *insn, struct stub_plan *plan)
{
    if (insn->info.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT) {
        /* Whether it looks at pending exceptions is left to the host. */
        plan->no_wait = insn->info.mnemonic == ZYDIS_MNEMONIC_CVTPI2PS &&
                        insn->operands[1].type == ZYDIS_OPERAND_TYPE_MEMORY;
        return;
    }
    plan->no_wait = is_x87_control(insn->info.mnemonic);
    plan->sets_pointers = !plan->no_wait;
    plan->fop =
        plan->no_wait
            ? 0
            : (uint16_t)((insn->info.opcode & 7) << 8 | insn->bytes[insn->info.raw.modrm.offset]);
}

bool host_stub_plan(const struct icpu *c, const struct insn *insn, struct stub_plan *plan)
{
    memset(plan, 0, sizeof(*plan));
    plan->gpr = STUB_NO_GPR;
    if (!host_stub_isa(c->cpu.model, insn, &plan->needs, &plan->is_mmx))
        return false;
    plan->legacy = insn->info.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY;
    plan->load_bytes = is_evex(insn) ? 64 : 16;
    plan->store_bytes = plan->legacy ? 16 : c->vector_bytes;
    plan_x87(insn, plan);
    return plan_operands(insn, plan) && put_instruction(insn, plan) && is_faithful(insn, plan);
}
