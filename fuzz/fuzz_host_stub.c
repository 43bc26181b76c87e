/*
 * fuzz_host_stub.c - what of a guest's vector or x87 instruction the host may execute
 *
 * Input: code size and vector width, then the instruction's bytes. Nothing is executed, so
 * the processor has all features. Claims about a plan, by decoding its bytes anew:
 * - it is the same instruction, and one that neither branches nor is privileged;
 * - it accesses no memory but the planned operand, at rdx or rcx, of the planned size;
 * - it changes no register but those that the stub saves to the guest, or that are live;
 * - the stub's code fits, and contains the instruction.
 */
#include <stdlib.h>

#include "engine/interpreter/host_stub.h"
#include "fuzz_device.h"

static struct icpu *cpu;
static struct cpu_model model;

static int gpr_of(ZydisRegister reg)
{
    ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);

    return whole >= ZYDIS_REGISTER_RAX && whole <= ZYDIS_REGISTER_R15 ? whole - ZYDIS_REGISTER_RAX
                                                                      : -1;
}

/* A register that the stub does not transfer, since the host's own is the guest's. */
static bool is_live(ZydisRegister reg)
{
    ZydisRegisterClass class = ZydisRegisterGetClass(reg);

    return class == ZYDIS_REGCLASS_X87 || class == ZYDIS_REGCLASS_MMX ||
           reg == ZYDIS_REGISTER_X87CONTROL || reg == ZYDIS_REGISTER_X87STATUS ||
           reg == ZYDIS_REGISTER_X87TAG || reg == ZYDIS_REGISTER_MXCSR;
}

static void check_gpr(const struct stub_plan *plan, unsigned n, bool written)
{
    bool is_gpr = n == X86_RAX && plan->gpr != STUB_NO_GPR;

    FUZZ_CLAIM(n <= X86_RDX);
    if (written)
        FUZZ_CLAIM((is_gpr && plan->gpr_write) || (plan->implicit_write >> n & 1));
    else
        FUZZ_CLAIM(is_gpr || ((plan->implicit_read | plan->implicit_write) >> n & 1));
}

static void check_register(const struct stub_plan *plan, const struct insn_operand *o)
{
    ZydisRegister reg = o->reg.value;
    bool written = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    int n;

    if ((n = vector_number(reg)) >= 0) {
        FUZZ_CLAIM((written ? plan->vector_write : plan->vector_read) >> n & 1);
    } else if ((n = mask_number(reg)) >= 0) {
        FUZZ_CLAIM((written ? plan->k_write : plan->k_read) >> n & 1);
    } else if ((n = gpr_of(reg)) >= 0) {
        check_gpr(plan, (unsigned)n, written);
    } else if (ZydisRegisterGetClass(reg) == ZYDIS_REGCLASS_FLAGS) {
        FUZZ_CLAIM(!written || plan->flags_write);
    } else {
        FUZZ_CLAIM(is_live(reg));
    }
}

static void check_memory(const struct stub_plan *plan, const struct insn_operand *o)
{
    int base = gpr_of(o->mem.base);

    FUZZ_CLAIM(o->mem.type == ZYDIS_MEMOP_TYPE_MEM && o->size == plan->memory_bytes * 8);
    FUZZ_CLAIM(base == (plan->implicit_read & 1 << X86_RDX ? X86_RCX : X86_RDX));
    FUZZ_CLAIM(o->mem.index == ZYDIS_REGISTER_NONE && o->mem.disp.value == 0);
    FUZZ_CLAIM(o->mem.segment == ZYDIS_REGISTER_DS);
    if (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
        FUZZ_CLAIM(plan->is_store);
    else
        FUZZ_CLAIM(!plan->is_store);
}

static bool is_harmless(const struct insn_info *info)
{
    return info->meta.branch_type == ZYDIS_BRANCH_TYPE_NONE &&
           info->meta.category != ZYDIS_CATEGORY_SYSTEM &&
           info->meta.category != ZYDIS_CATEGORY_IO &&
           info->meta.category != ZYDIS_CATEGORY_INTERRUPT &&
           info->meta.category != ZYDIS_CATEGORY_SYSCALL &&
           !(info->attributes & ZYDIS_ATTRIB_IS_PRIVILEGED);
}

static void check_instruction(const struct insn *guest, const struct stub_plan *plan)
{
    struct insn host;
    bool memory = false;

    FUZZ_CLAIM(plan->length && plan->length <= X86_MAX_INSN_BYTES);
    FUZZ_CLAIM(x86_decode(X86_CODE_64, false, plan->bytes, plan->length, &host) == DECODE_OK);
    FUZZ_CLAIM(host.info.length == plan->length && host.info.mnemonic == guest->info.mnemonic);
    FUZZ_CLAIM(is_harmless(&host.info));
    for (unsigned n = 0; n < host.info.operand_count; n++) {
        const struct insn_operand *o = &host.operands[n];

        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER)
            check_register(plan, o);
        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        check_memory(plan, o);
        memory = true;
    }
    FUZZ_CLAIM(memory == (plan->memory_bytes != 0));
}

static void check_elements(const struct stub_plan *plan)
{
    FUZZ_CLAIM(plan->memory_bytes <= 64);
    FUZZ_CLAIM(!plan->align_mask || plan->align_mask == plan->memory_bytes - 1);
    if (plan->mask == MASK_NONE)
        return;
    FUZZ_CLAIM(plan->element_bytes && plan->mask_count && plan->mask_count <= 64);
    FUZZ_CLAIM(plan->memory_bytes % plan->element_bytes == 0);
    FUZZ_CLAIM(plan->mask_register < (plan->mask == MASK_VECTOR ? 32 : 8));
}

static void check_code(const struct stub_plan *plan)
{
    uint8_t *code = malloc(STUB_CODE_MAX);
    size_t body, size = host_stub_emit(plan, code, &body);

    FUZZ_CLAIM(size <= STUB_CODE_MAX && body < size);
    FUZZ_CLAIM(memmem(code + body, size - body, plan->bytes, plan->length));
    free(code);
}

static void build(void)
{
    cpu = aligned_alloc(64, (sizeof(*cpu) + 63) / 64 * 64);
    memset(cpu, 0, sizeof(*cpu));
    FUZZ_CLAIM(!cpu_model_parse("x86-64", 1, &model, NULL));
    memset(model.features, 0xff, sizeof(model.features));
    cpu->cpu.model = &model;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    uint8_t what = (uint8_t)fuzz_take(&in, 1);
    enum x86_code_size code_size = (enum x86_code_size)(what % X86_CODE_SIZE_COUNT);
    struct stub_plan plan;
    struct insn insn;

    if (!cpu)
        build();
    cpu->vector_bytes = (uint8_t)(16 << (what >> 4) % 3);
    if (x86_decode(code_size, false, in.data, in.left, &insn) != DECODE_OK ||
        !host_stub_plan(cpu, &insn, &plan))
        return 0;
    check_instruction(&insn, &plan);
    check_elements(&plan);
    check_code(&plan);
    return 0;
}
