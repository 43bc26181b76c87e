/*
 * branch.c - Jcc, JMP, CALL, RET, LOOP, JrCXZ, far transfers, INT, IRET, SYSCALL, SYSENTER
 *
 * A direct branch whose target is in the same page is linked to the target's block
 * once that is known; everything else goes through the jump table (interpreter.h). Near
 * branches check their target before they change anything (SDM vol. 2, JMP: #GP(0)).
 */
#include "engine/interpreter/build.h"
#include "engine/interpreter/flags.h"
#include "engine/interpreter/stack.h"
#include "x86/features.h"
#include "x86/segments.h"

#define BYTES (i->extra & 15u)

/* Near branch: the target as the operand size cuts it (64-bit mode always has 64 bits). */
static inline uint64_t cut_target(const struct icpu *c, const struct op *i, uint64_t rip)
{
    if (likely(c->code_size == X86_CODE_64))
        return rip;
    return BYTES == 2 ? (uint16_t)rip : (uint32_t)rip;
}

static inline void check_target(struct icpu *c, const struct op *i, uint64_t rip)
{
    if (likely(c->code_size == X86_CODE_64)) {
        if (unlikely(!x86_is_canonical(rip)))
            interp_raise_code(c, i, X86_GP, 0);
    } else if (unlikely(rip > c->cpu.s.seg[X86_CS].limit)) {
        interp_raise_code(c, i, X86_GP, 0);
    }
}

/* Relative branches: disp is the target's offset from the page's first byte. */
static inline uint64_t relative_target(const struct icpu *c, const struct op *i)
{
    return cut_target(c, i, c->page_rip + (uint64_t)i->disp);
}

const struct op *interp_branch(struct icpu *c, const struct op *i)
{
    uint64_t rip = relative_target(c, i);

    check_target(c, i, rip);
    if ((uint64_t)i->disp < 0x1000)
        return blocks_link(c, i, rip);
    GOTO(c, jump_to(c, rip));
}

#define TAKE(c, i)                                                                                 \
    do {                                                                                           \
        if (likely((i)->link))                                                                     \
            GOTO(c, (i)->link);                                                                    \
        return interp_branch(c, i);                                                                \
    } while (0)

/* ---- Jcc ---- */

#define JCC(cc)                                                                                    \
    static const struct op *op_jcc_##cc(struct icpu *c, const struct op *i)                        \
    {                                                                                              \
        if (condition(c, cc)) {                                                                    \
            c->budget += (uint64_t)i->imm;                                                         \
            TAKE(c, i);                                                                            \
        }                                                                                          \
        NEXT(c, i);                                                                                \
    }
/* clang-format off */
JCC(0) JCC(1) JCC(2) JCC(3) JCC(4) JCC(5) JCC(6) JCC(7)
JCC(8) JCC(9) JCC(10) JCC(11) JCC(12) JCC(13) JCC(14) JCC(15)
    /* clang-format on */
    static op_fn *const jcc[16] = {op_jcc_0,  op_jcc_1,  op_jcc_2,  op_jcc_3, op_jcc_4,  op_jcc_5,
                                   op_jcc_6,  op_jcc_7,  op_jcc_8,  op_jcc_9, op_jcc_10, op_jcc_11,
                                   op_jcc_12, op_jcc_13, op_jcc_14, op_jcc_15};

static uint64_t count_register(const struct icpu *c, const struct op *i)
{
    return reg_get(c, REG_OFFSET(X86_RCX), i->address_size);
}

static const struct op *op_jrcxz(struct icpu *c, const struct op *i)
{
    if (count_register(c, i) == 0)
        TAKE(c, i);
    NEXT(c, i);
}

/* imm: 0 LOOPNE, 1 LOOPE, 2 LOOP */
static const struct op *op_loop(struct icpu *c, const struct op *i)
{
    uint64_t count = count_register(c, i) - 1;
    bool taken = i->address_size == 8   ? count != 0
                 : i->address_size == 4 ? (uint32_t)count != 0
                                        : (uint16_t)count != 0;

    if (i->imm < 2)
        taken = taken && flag_zf(c) == (bool)i->imm;
    if (taken)
        check_target(c, i, relative_target(c, i));
    reg_set(c, REG_OFFSET(X86_RCX), count, i->address_size);
    if (taken)
        TAKE(c, i);
    NEXT(c, i);
}

/* ---- JMP, CALL, RET near ---- */

static const struct op *op_jmp(struct icpu *c, const struct op *i)
{
    TAKE(c, i);
}
static const struct op *op_jmp_far_page64(struct icpu *c, const struct op *i)
{
    uint64_t rip = c->page_rip + (uint64_t)i->disp;

    check_target(c, i, rip);
    GOTO(c, jump_to(c, rip));
}
static const struct op *op_jmp_r64(struct icpu *c, const struct op *i)
{
    uint64_t rip = REG(c, i->src, uint64_t);

    check_target(c, i, rip);
    GOTO(c, jump_to(c, rip));
}
static const struct op *op_jmp_m64(struct icpu *c, const struct op *i)
{
    uint64_t rip = load64(c, i, ea(c, i, 8, X86_ACCESS_READ));

    check_target(c, i, rip);
    GOTO(c, jump_to(c, rip));
}
static const struct op *op_jmp_r(struct icpu *c, const struct op *i)
{
    uint64_t rip = reg_get(c, i->src, BYTES);

    check_target(c, i, rip);
    GOTO(c, jump_to(c, rip));
}
static const struct op *op_jmp_m(struct icpu *c, const struct op *i)
{
    uint64_t rip = load_sized(c, i, ea(c, i, BYTES, X86_ACCESS_READ), BYTES);

    check_target(c, i, rip);
    GOTO(c, jump_to(c, rip));
}

static inline void push64(struct icpu *c, const struct op *i, uint64_t value)
{
    uint64_t *rsp = stack_pointer(c);

    store64(c, i, *rsp - 8, value);
    *rsp -= 8;
}

static const struct op *op_call64(struct icpu *c, const struct op *i)
{
    uint64_t rip = c->page_rip + (uint64_t)i->disp;

    check_target(c, i, rip);
    push64(c, i, c->page_rip + i->page_offset + i->length);
    if (likely(i->link))
        GOTO(c, i->link);
    if ((uint64_t)i->disp < 0x1000)
        return blocks_link(c, i, rip);
    GOTO(c, jump_to(c, rip));
}
static const struct op *op_call_r64(struct icpu *c, const struct op *i)
{
    uint64_t rip = REG(c, i->src, uint64_t);

    check_target(c, i, rip);
    push64(c, i, c->page_rip + i->page_offset + i->length);
    GOTO(c, jump_to(c, rip));
}
static const struct op *op_call_m64(struct icpu *c, const struct op *i)
{
    uint64_t rip = load64(c, i, ea(c, i, 8, X86_ACCESS_READ));

    check_target(c, i, rip);
    push64(c, i, c->page_rip + i->page_offset + i->length);
    GOTO(c, jump_to(c, rip));
}
static const struct op *op_ret64(struct icpu *c, const struct op *i)
{
    uint64_t *rsp = stack_pointer(c), rip = load64(c, i, *rsp);

    check_target(c, i, rip);
    *rsp += 8 + (uint64_t)i->imm;
    GOTO(c, jump_to(c, rip));
}

static const struct op *call_any(struct icpu *c, const struct op *i, uint64_t rip)
{
    check_target(c, i, rip);
    stack_push(c, i, op_next_rip(c, i), BYTES);
    GOTO(c, jump_to(c, rip));
}
static const struct op *op_call(struct icpu *c, const struct op *i)
{
    return call_any(c, i, relative_target(c, i));
}
static const struct op *op_call_r(struct icpu *c, const struct op *i)
{
    return call_any(c, i, reg_get(c, i->src, BYTES));
}
static const struct op *op_call_m(struct icpu *c, const struct op *i)
{
    return call_any(c, i, load_sized(c, i, ea(c, i, BYTES, X86_ACCESS_READ), BYTES));
}
static const struct op *op_ret(struct icpu *c, const struct op *i)
{
    uint64_t rip = stack_peek(c, i, 0, BYTES);

    check_target(c, i, rip);
    stack_move(c, BYTES + i->imm);
    GOTO(c, jump_to(c, rip));
}

/* ---- far transfers and privilege changes: all by x86/, then through the run loop ---- */

static const struct op *op_jmp_ptr(struct icpu *c, const struct op *i)
{
    interp_sync(c, i);
    x86_far_jump(&c->cpu, (uint16_t)i->disp, (uint64_t)i->imm, BYTES, op_next_rip(c, i));
    return interp_resume(c);
}
static const struct op *op_call_ptr(struct icpu *c, const struct op *i)
{
    interp_sync(c, i);
    x86_far_call(&c->cpu, (uint16_t)i->disp, (uint64_t)i->imm, BYTES, op_next_rip(c, i));
    return interp_resume(c);
}

static uint64_t load_far_pointer(struct icpu *c, const struct op *i, uint16_t *out_selector)
{
    uint64_t linear = ea(c, i, BYTES + 2, X86_ACCESS_READ);
    uint64_t offset = load_sized(c, i, linear, BYTES);

    *out_selector = load16(c, i, linear + BYTES);
    return offset;
}
static const struct op *op_jmp_far_m(struct icpu *c, const struct op *i)
{
    uint16_t selector;
    uint64_t offset = load_far_pointer(c, i, &selector);

    interp_sync(c, i);
    x86_far_jump(&c->cpu, selector, offset, BYTES, op_next_rip(c, i));
    return interp_resume(c);
}
static const struct op *op_call_far_m(struct icpu *c, const struct op *i)
{
    uint16_t selector;
    uint64_t offset = load_far_pointer(c, i, &selector);

    interp_sync(c, i);
    x86_far_call(&c->cpu, selector, offset, BYTES, op_next_rip(c, i));
    return interp_resume(c);
}
static const struct op *op_ret_far(struct icpu *c, const struct op *i)
{
    interp_sync(c, i);
    x86_far_return(&c->cpu, BYTES, (uint16_t)i->imm);
    return interp_resume(c);
}

/* RF from the image holds back an instruction breakpoint once; without any it is of no effect. */
static const struct op *op_iret(struct icpu *c, const struct op *i)
{
    interp_sync(c, i);
    x86_iret(&c->cpu, BYTES, op_next_rip(c, i));
    if (c->breakpoints)
        c->keep_rf = true;
    else
        c->cpu.s.rflags &= ~(uint64_t)X86_FLAG_RF;
    return interp_resume(c);
}

static const struct op *op_syscall(struct icpu *c, const struct op *i)
{
    interp_sync(c, i);
    c->trap_needs_tf = true;
    x86_syscall(&c->cpu, op_next_rip(c, i));
    return interp_resume(c);
}
static const struct op *op_sysret(struct icpu *c, const struct op *i)
{
    interp_sync(c, i);
    x86_sysret(&c->cpu, BYTES);
    return interp_resume(c);
}
static const struct op *op_sysenter(struct icpu *c, const struct op *i)
{
    interp_sync(c, i);
    x86_sysenter(&c->cpu);
    return interp_resume(c);
}
static const struct op *op_sysexit(struct icpu *c, const struct op *i)
{
    interp_sync(c, i);
    x86_sysexit(&c->cpu, BYTES);
    return interp_resume(c);
}

/* INT n, INT3, INT1, INTO: imm is the vector, disp the kind of event. */
static const struct op *op_int(struct icpu *c, const struct op *i)
{
    struct x86_event event = {.vector = (uint8_t)i->imm,
                              .kind = (enum x86_event_kind)i->disp,
                              .return_rip = op_next_rip(c, i)};

    interp_sync(c, i);
    c->trap_needs_tf = true;
    interp_merge_debug_traps(c, &event);
    x86_deliver(&c->cpu, &event);
    return interp_resume(c);
}
static const struct op *op_into(struct icpu *c, const struct op *i)
{
    if (flag_of(c))
        return op_int(c, i);
    NEXT(c, i);
}

/* ---- building ---- */

static bool build_relative(struct builder *w, const struct insn *insn, struct op *op, op_fn *run)
{
    op->disp = (int64_t)w->page_offset + insn->info.length + operand(insn, 0)->imm.value.s;
    op->extra = insn->info.operand_width / 8;
    op->address_size = insn->info.address_width / 8;
    op->run = run;
    return true;
}

static bool build_jcc(struct builder *w, const struct insn *insn, struct op *op)
{
    unsigned cc = insn->info.opcode & 15;

    w->notes->is_jcc = true;
    w->notes->leaves = true;
    w->notes->condition = (uint8_t)cc;
    return build_relative(w, insn, op, jcc[cc]);
}

/* Near indirect: register or memory, 64-bit or legacy. */
static bool build_indirect(struct builder *w, const struct insn *insn, struct op *op, op_fn *r64,
                           op_fn *m64, op_fn *r, op_fn *m)
{
    bool wide = w->code_size == X86_CODE_64;

    op->extra = wide ? 8 : insn->info.operand_width / 8;
    if (is_mem(insn, 0)) { /* the stack is a hidden memory operand of CALL */
        build_memory(w, insn, operand(insn, 0), op);
        op->run = wide ? m64 : m;
        return true;
    }
    op->src = reg_offset(operand(insn, 0)->reg.value);
    op->run = wide ? r64 : r;
    return true;
}

static bool build_far(struct builder *w, const struct insn *insn, struct op *op, op_fn *ptr,
                      op_fn *mem)
{
    op->extra = insn->info.operand_width / 8;
    if (operand(insn, 0)->type == ZYDIS_OPERAND_TYPE_POINTER) {
        op->imm = operand(insn, 0)->ptr.offset;
        op->disp = operand(insn, 0)->ptr.segment;
        if (op->extra == 2)
            op->imm &= 0xffff;
        op->run = ptr;
        return true;
    }
    build_memory_any(w, insn, op);
    op->run = mem;
    return true;
}

static bool build_jump(struct builder *w, const struct insn *insn, struct op *op)
{
    w->ends = true;
    if (insn->info.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        return build_far(w, insn, op, op_jmp_ptr, op_jmp_far_m);
    if (!is_imm(insn, 0))
        return build_indirect(w, insn, op, op_jmp_r64, op_jmp_m64, op_jmp_r, op_jmp_m);
    build_relative(w, insn, op, op_jmp);
    if (w->code_size == X86_CODE_64 && (uint64_t)op->disp >= 0x1000)
        op->run = op_jmp_far_page64;
    return true;
}

static bool build_call(struct builder *w, const struct insn *insn, struct op *op)
{
    w->ends = true;
    if (insn->info.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        return build_far(w, insn, op, op_call_ptr, op_call_far_m);
    if (!is_imm(insn, 0))
        return build_indirect(w, insn, op, op_call_r64, op_call_m64, op_call_r, op_call_m);
    build_relative(w, insn, op, w->code_size == X86_CODE_64 ? op_call64 : op_call);
    op->seg = X86_SS;
    return true;
}

static bool build_ret(struct builder *w, const struct insn *insn, struct op *op)
{
    bool far = insn->info.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;

    w->ends = true;
    op->seg = X86_SS;
    op->imm = is_imm(insn, 0) ? (uint16_t)operand(insn, 0)->imm.value.u : 0;
    op->extra = insn->info.operand_width / 8;
    if (far)
        op->run = op_ret_far;
    else
        op->run = w->code_size == X86_CODE_64 ? op_ret64 : op_ret;
    if (!far && w->code_size == X86_CODE_64)
        op->extra = 8;
    return true;
}

static bool build_ending(struct builder *w, const struct insn *insn, struct op *op, op_fn *run)
{
    w->ends = true;
    op->extra = insn->info.operand_width / 8;
    op->run = run;
    return true;
}

static bool build_int(struct builder *w, const struct insn *insn, struct op *op, uint8_t vector,
                      enum x86_event_kind kind)
{
    op->imm = vector;
    op->disp = kind;
    build_ending(w, insn, op, op_int);
    if (insn->info.mnemonic == ZYDIS_MNEMONIC_INTO)
        op->run = op_into;
    return true;
}

static bool build_loop(struct builder *w, const struct insn *insn, struct op *op, int64_t kind)
{
    w->ends = true;
    build_relative(w, insn, op, op_loop);
    op->imm = kind;
    return true;
}

bool build_branch(struct builder *w, const struct insn *insn, struct op *op)
{
    switch (insn->info.mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
        return build_jump(w, insn, op);
    case ZYDIS_MNEMONIC_CALL:
        return build_call(w, insn, op);
    case ZYDIS_MNEMONIC_RET:
        return build_ret(w, insn, op);
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ:
        w->ends = true;
        return build_relative(w, insn, op, op_jrcxz);
    case ZYDIS_MNEMONIC_LOOPNE:
        return build_loop(w, insn, op, 0);
    case ZYDIS_MNEMONIC_LOOPE:
        return build_loop(w, insn, op, 1);
    case ZYDIS_MNEMONIC_LOOP:
        return build_loop(w, insn, op, 2);
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_IRETQ:
        return build_ending(w, insn, op, op_iret);
    case ZYDIS_MNEMONIC_SYSCALL:
        return build_ending(w, insn, op, op_syscall);
    case ZYDIS_MNEMONIC_SYSRET:
        build_ending(w, insn, op, op_sysret);
        op->extra = insn->info.attributes & ZYDIS_ATTRIB_HAS_REX && insn->info.raw.rex.W ? 8 : 4;
        return true;
    case ZYDIS_MNEMONIC_SYSENTER:
        return build_ending(w, insn, op, op_sysenter);
    case ZYDIS_MNEMONIC_SYSEXIT:
        build_ending(w, insn, op, op_sysexit);
        op->extra = insn->info.attributes & ZYDIS_ATTRIB_HAS_REX && insn->info.raw.rex.W ? 8 : 4;
        return true;
    case ZYDIS_MNEMONIC_INT:
        return build_int(w, insn, op, (uint8_t)operand(insn, 0)->imm.value.u, X86_EVENT_SOFTWARE);
    case ZYDIS_MNEMONIC_INT3:
        return build_int(w, insn, op, X86_BP, X86_EVENT_INT3);
    case ZYDIS_MNEMONIC_INT1:
        return build_int(w, insn, op, X86_DB, X86_EVENT_INT1);
    case ZYDIS_MNEMONIC_INTO:
        return build_int(w, insn, op, X86_OF, X86_EVENT_INT3);
    default:
        break;
    }
    if (insn->info.meta.category == ZYDIS_CATEGORY_COND_BR)
        return build_jcc(w, insn, op);
    return false;
}
