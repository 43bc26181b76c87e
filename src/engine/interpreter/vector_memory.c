/*
 * vector_memory.c - vector instructions that access memory element by element
 *
 * Gathers and scatters, MASKMOVQ and MASKMOVDQU, and masked loads and stores where part of the
 * operand cannot be accessed (SDM vol. 2, 2.8, "fault suppression"): an element
 * whose mask bit is clear is not touched. VZEROUPPER and VZEROALL are here as well.
 *
 * Limit: a masked operand in 16- and 32-bit code must be within the segment as a whole.
 */
#include "engine/interpreter/host_stub.h"

static uint8_t *zmm(struct icpu *c, unsigned n)
{
    return c->cpu.s.fpu.zmm[n];
}

static void run_checks(struct icpu *c, const struct op *i, uint8_t needs)
{
    if (unlikely(c->fpu_blocked & needs))
        host_stub_check(c, i, needs, false);
}

/* ---- masked operands of stubs ---- */

static bool sign_of(const uint8_t *element, unsigned bytes)
{
    return element[bytes - 1] >> 7;
}

/* Bit n: memory element n is accessed. */
static uint64_t accessed_elements(struct icpu *c, const struct stub_plan *plan)
{
    unsigned count = plan->memory_bytes / plan->element_bytes;
    uint64_t mask = 0, bits;

    if (plan->mask == MASK_VECTOR) {
        for (unsigned n = 0; n < count; n++)
            mask |= (uint64_t)sign_of(zmm(c, plan->mask_register) + n * plan->element_bytes,
                                      plan->element_bytes)
                    << n;
        return mask;
    }
    bits = c->cpu.s.fpu.k[plan->mask_register];
    if (plan->mask_count < 64)
        bits &= (1ull << plan->mask_count) - 1;
    if (plan->mask == MASK_COMPRESSED) {
        unsigned used = (unsigned)__builtin_popcountll(bits);

        return used == 64 ? ~0ull : (1ull << used) - 1;
    }
    for (unsigned n = 0; n < plan->mask_count; n++) /* broadcast: several bits per element */
        mask |= (bits >> n & 1) << (n % count);
    return mask;
}

const struct op *vector_masked_operand(struct icpu *c, const struct op *i, uint64_t linear)
{
    const struct stub_plan *plan = &((const struct host_stub *)i->aux)->plan;
    unsigned bytes = plan->element_bytes, count = plan->memory_bytes / bytes;
    uint64_t mask = accessed_elements(c, plan);

    if (mask)
        host_stub_check_alignment(c, i, linear);
    if (plan->faults_whole)
        interp_probe_write(c, i, linear, plan->memory_bytes);
    memset(c->stub_buffer, 0, plan->memory_bytes);
    for (unsigned n = 0; n < count; n++) {
        if (!(mask >> n & 1))
            continue;
        if (plan->is_store)
            interp_probe_write(c, i, linear + n * bytes, bytes);
        else
            interp_load_bytes(c, i, linear + n * bytes, c->stub_buffer + n * bytes, bytes);
    }
    host_stub_call(c, i, c->stub_buffer);
    for (unsigned n = 0; plan->is_store && n < count; n++)
        if (mask >> n & 1)
            interp_store_bytes(c, i, linear + n * bytes, c->stub_buffer + n * bytes, bytes);
    NEXT(c, i);
}

/* ---- gathers and scatters ---- */

/* Kept in the op's imm; dst is the data register, src the register of indices. */
struct vsib {
    uint8_t needs;
    uint8_t element_bytes, index_bytes, count;
    uint8_t mask;       /* number of the mask register: vector (VEX) or opmask (EVEX) */
    uint8_t data_bytes; /* of the data register that are not cleared */
    bool is_evex;
};

static struct vsib vsib_of(const struct op *i)
{
    struct vsib v;

    static_assert(sizeof(v) <= sizeof(i->imm), "fits into an op");
    memcpy(&v, &i->imm, sizeof(v));
    return v;
}

/* The linear address of element n's memory. */
static uint64_t element_address(struct icpu *c, const struct op *i, const struct vsib *v,
                                unsigned n, unsigned access)
{
    const uint8_t *indices = &REG(c, i->src, const uint8_t);
    int64_t wide;
    int32_t narrow;

    if (v->index_bytes == 8) {
        memcpy(&wide, indices + 8 * n, sizeof(wide));
        c->vector_index = (uint64_t)wide;
    } else {
        memcpy(&narrow, indices + 4 * n, sizeof(narrow));
        c->vector_index = (uint64_t)(int64_t)narrow;
    }
    return ea(c, i, v->element_bytes, access);
}

static bool is_selected(struct icpu *c, const struct vsib *v, unsigned n)
{
    if (v->is_evex)
        return c->cpu.s.fpu.k[v->mask] >> n & 1;
    return sign_of(zmm(c, v->mask) + n * v->element_bytes, v->element_bytes);
}

/* Element n is done: should a later one fault, it is not done again. */
static void deselect(struct icpu *c, const struct vsib *v, unsigned n)
{
    if (v->is_evex)
        c->cpu.s.fpu.k[v->mask] &= ~(1ull << n);
    else
        memset(zmm(c, v->mask) + n * v->element_bytes, 0, v->element_bytes);
}

static const struct op *run_gather(struct icpu *c, const struct op *i)
{
    uint8_t *data = &REG(c, i->dst, uint8_t);
    struct vsib v = vsib_of(i);
    uint8_t element[8];

    run_checks(c, i, v.needs);
    for (unsigned n = 0; n < v.count; n++) {
        if (!is_selected(c, &v, n))
            continue;
        interp_load_bytes(c, i, element_address(c, i, &v, n, X86_ACCESS_READ), element,
                          v.element_bytes);
        memcpy(data + n * v.element_bytes, element, v.element_bytes);
        deselect(c, &v, n);
    }
    memset(data + v.data_bytes, 0, 64u - v.data_bytes);
    if (v.is_evex)
        c->cpu.s.fpu.k[v.mask] = 0;
    else
        memset(zmm(c, v.mask), 0, 64);
    NEXT(c, i);
}

static const struct op *run_scatter(struct icpu *c, const struct op *i)
{
    const uint8_t *data = &REG(c, i->dst, const uint8_t);
    struct vsib v = vsib_of(i);

    run_checks(c, i, v.needs);
    for (unsigned n = 0; n < v.count; n++) {
        if (!is_selected(c, &v, n))
            continue;
        interp_store_bytes(c, i, element_address(c, i, &v, n, X86_ACCESS_WRITE),
                           data + n * v.element_bytes, v.element_bytes);
        deselect(c, &v, n);
    }
    c->cpu.s.fpu.k[v.mask] = 0;
    NEXT(c, i);
}

/* The operand that is the VSIB memory; -1 if there is none. */
static int vsib_operand(const struct insn *insn)
{
    for (int n = 0; n < insn->info.operand_count_visible; n++)
        if (insn->operands[n].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            insn->operands[n].mem.type == ZYDIS_MEMOP_TYPE_VSIB)
            return n;
    return -1;
}

/* The vector or opmask register of visible operand n. */
static uint8_t register_of(const struct insn *insn, int n)
{
    ZydisRegister reg = insn->operands[n].reg.value;
    int number = vector_number(reg);

    return (uint8_t)(number >= 0 ? number : mask_number(reg));
}

static bool has_quadword_index(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_VGATHERQPS:
    case ZYDIS_MNEMONIC_VGATHERQPD:
    case ZYDIS_MNEMONIC_VPGATHERQD:
    case ZYDIS_MNEMONIC_VPGATHERQQ:
    case ZYDIS_MNEMONIC_VSCATTERQPS:
    case ZYDIS_MNEMONIC_VSCATTERQPD:
    case ZYDIS_MNEMONIC_VPSCATTERQD:
    case ZYDIS_MNEMONIC_VPSCATTERQQ:
        return true;
    default:
        return false;
    }
}

static bool build_vsib(const struct insn *insn, uint8_t needs, struct op *op)
{
    bool is_evex = insn->info.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
    int memory = vsib_operand(insn), scatter = memory == 0;
    /* Gather: data, mem, mask (VEX) or data, mask, mem (EVEX). Scatter: mem, mask, data. */
    int data = scatter ? 2 : 0, mask = is_evex ? 1 : 2;
    const struct insn_operand *o = &insn->operands[memory];
    struct vsib v = {.needs = needs, .is_evex = is_evex};
    unsigned larger;

    v.element_bytes = (uint8_t)(insn->operands[data].element_size / 8);
    v.index_bytes = has_quadword_index(insn->info.mnemonic) ? 8 : 4;
    larger = v.element_bytes > v.index_bytes ? v.element_bytes : v.index_bytes;
    v.count = (uint8_t)(insn->info.avx.vector_length / 8 / larger);
    v.data_bytes = (uint8_t)(v.count * v.element_bytes);
    v.mask = register_of(insn, mask);
    memcpy(&op->imm, &v, sizeof(v));
    op->dst = ZMM_OFFSET(register_of(insn, data));
    op->src = ZMM_OFFSET((unsigned)vector_number(o->mem.index));
    op->index = offsetof(struct icpu, vector_index);
    op->scale = (uint8_t)__builtin_ctz(o->mem.scale);
    if (op->ea == EA_BASE)
        op->ea = EA_INDEX;
    op->run = scatter ? run_scatter : run_gather;
    return true;
}

/* ---- MASKMOVDQU, MASKMOVQ ---- */

static void store_masked_bytes(struct icpu *c, const struct op *i, const uint8_t *data,
                               const uint8_t *mask, unsigned size)
{
    uint64_t linear = ea(c, i, size, X86_ACCESS_WRITE);

    for (unsigned n = 0; n < size; n++)
        if (mask[n] >> 7)
            interp_probe_write(c, i, linear + n, 1);
    for (unsigned n = 0; n < size; n++)
        if (mask[n] >> 7)
            interp_store_bytes(c, i, linear + n, data + n, 1);
}

static const struct op *run_maskmovdqu(struct icpu *c, const struct op *i)
{
    run_checks(c, i, i->extra);
    store_masked_bytes(c, i, &REG(c, i->dst, const uint8_t), &REG(c, i->src, const uint8_t), 16);
    NEXT(c, i);
}

/* dst and src are the numbers of MMX registers. */
static const struct op *run_maskmovq(struct icpu *c, const struct op *i)
{
    struct x86_fpu *fpu = &c->cpu.s.fpu;
    uint8_t mm[8][16];
    unsigned top;

    host_stub_check(c, i, FPU_X87, true);
    fpu_load_x87(c);
    fpu_check_pending(c, i);
    host_fpu_to_state(c);
    top = fpu->fsw >> 11 & 7;
    for (unsigned n = 0; n < 8; n++)
        memcpy(mm[n], fpu->st[(n - top) & 7], sizeof(mm[n]));
    store_masked_bytes(c, i, mm[i->dst], mm[i->src], 8);
    /* As every MMX instruction: TOP = 0, nothing empty (SDM vol. 1, 9.5.1). */
    memcpy(fpu->st, mm, sizeof(mm));
    fpu->fsw &= (uint16_t)~0x3800;
    fpu->ftw = 0xff;
    host_fpu_from_state(c);
    NEXT(c, i);
}

static bool build_maskmov(const struct insn *insn, uint8_t needs, struct op *op)
{
    ZydisRegister data = insn->operands[0].reg.value, mask = insn->operands[1].reg.value;

    op->extra = needs;
    if (insn->info.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ) {
        op->dst = (uint16_t)(data - ZYDIS_REGISTER_MM0);
        op->src = (uint16_t)(mask - ZYDIS_REGISTER_MM0);
        op->run = run_maskmovq;
        return true;
    }
    op->dst = ZMM_OFFSET((unsigned)vector_number(data));
    op->src = ZMM_OFFSET((unsigned)vector_number(mask));
    op->run = run_maskmovdqu;
    return true;
}

/* ---- VZEROUPPER, VZEROALL: dst is how many bytes stay, src how many registers there are ---- */

static const struct op *run_vzero(struct icpu *c, const struct op *i)
{
    run_checks(c, i, i->extra);
    for (unsigned n = 0; n < i->src; n++)
        memset(zmm(c, n) + i->dst, 0, 64u - i->dst);
    NEXT(c, i);
}

static bool build_vzero(const struct insn *insn, uint8_t needs, struct op *op)
{
    op->extra = needs;
    op->dst = insn->info.mnemonic == ZYDIS_MNEMONIC_VZEROUPPER ? 16 : 0;
    op->src = insn->info.machine_mode == ZYDIS_MACHINE_MODE_LONG_64 ? 16 : 8;
    op->run = run_vzero;
    return true;
}

bool vector_memory_build(struct icpu *c, const struct insn *insn, struct op *op)
{
    bool is_mmx;
    uint8_t needs;

    if (!host_stub_isa(c->cpu.model, insn, &needs, &is_mmx))
        return false;
    switch (insn->info.mnemonic) {
    case ZYDIS_MNEMONIC_VZEROUPPER:
    case ZYDIS_MNEMONIC_VZEROALL:
        return build_vzero(insn, needs, op);
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
        return build_maskmov(insn, needs, op);
    default:
        return vsib_operand(insn) >= 0 && build_vsib(insn, needs, op);
    }
}
