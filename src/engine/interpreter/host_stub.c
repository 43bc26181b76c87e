/*
 * host_stub.c - the stubs of one vCPU: where they are and which there are
 *
 * Equal plans share a stub. The area is bounded: when it or the table is full,
 * all stubs go at once and the caller drops the ops that use them.
 */
#include "engine/interpreter/host_stub.h"

#include <errno.h>
#include <stdlib.h>

#include "base/hash.h"

#define STUB_BUFFER_BYTES 128

static uint8_t model_vector_bytes(const struct cpu_model *model)
{
    if (model->xcr0 & X86_XCR0_ZMM_HI256)
        return 64;
    return model->xcr0 & X86_XCR0_AVX ? 32 : 16;
}

/* The op behind the one that a body is run for, when it is to come back to C. */
static const struct op *return_to_c(struct icpu *c, const struct op *i)
{
    (void)c;
    return i;
}

int host_stubs_new(struct icpu *c, struct error *err)
{
    struct host_stubs *s = calloc(1, sizeof(*s));

    c->stubs = s;
    c->stub_buffer = aligned_alloc(64, STUB_BUFFER_BYTES);
    if (s)
        s->stubs = calloc(STUB_MAX, sizeof(*s->stubs));
    if (!s || !s->stubs || !c->stub_buffer) {
        host_stubs_free(c);
        return error_set(err, ENOMEM, "no memory for the host stubs of a virtual CPU");
    }
    if (host_code_new(&s->code, STUB_AREA_BYTES, NULL, err) < 0 ||
        host_code_guard(&s->code, host_stub_trap, err) < 0) {
        host_stubs_free(c);
        return err ? -err->code : -ENOMEM;
    }
    memset(c->stub_buffer, 0, STUB_BUFFER_BYTES);
    s->return_ops[1].run = return_to_c;
    c->vector_bytes = model_vector_bytes(c->cpu.model);
    c->x87_loaded = false;
    host_stub_refresh(c);
    return 0;
}

void host_stubs_free(struct icpu *c)
{
    struct host_stubs *s = c->stubs;

    free(c->stub_buffer);
    c->stub_buffer = NULL;
    c->stubs = NULL;
    if (!s)
        return;
    if (s->code.write) {
        host_code_unguard(&s->code);
        host_code_free(&s->code);
    }
    free(s->stubs);
    free(s);
}

/* ---- finding and making ---- */

static struct host_stub **hash_slot(struct host_stubs *s, const struct stub_plan *plan)
{
    uint64_t hash = hash_add(HASH_START, plan, sizeof(*plan));

    return &s->hash[(hash ^ hash >> 32) % STUB_HASH_SIZE];
}

static void empty(struct host_stubs *s)
{
    memset(s->hash, 0, sizeof(s->hash));
    s->count = 0;
    s->used_bytes = 0;
}

static struct host_stub *make(struct host_stubs *s, const struct stub_plan *plan)
{
    struct host_stub **slot = hash_slot(s, plan);
    struct host_stub *stub = &s->stubs[s->count++];
    const uint8_t *execute = s->code.execute + s->used_bytes;
    size_t body, size = host_stub_emit(plan, s->code.write + s->used_bytes, &body);

    *stub = (struct host_stub){
        .body = (stub_fn *)(uintptr_t)(execute + body),
        .entry = plan->memory_bytes ? NULL : (op_fn *)(uintptr_t)execute,
        .next = *slot,
        .plan = *plan,
    };
    *slot = stub;
    s->used_bytes = (s->used_bytes + size + 15) & ~(size_t)15;
    return stub;
}

static struct host_stub *find_or_make(struct host_stubs *s, const struct stub_plan *plan,
                                      bool *out_flush)
{
    for (struct host_stub *stub = *hash_slot(s, plan); stub; stub = stub->next)
        if (!memcmp(&stub->plan, plan, sizeof(*plan)))
            return stub;
    if (s->count == STUB_MAX || s->used_bytes + STUB_CODE_MAX > STUB_AREA_BYTES) {
        empty(s);
        *out_flush = true;
    }
    return make(s, plan);
}

bool host_stub_build(struct icpu *c, const struct insn *insn, struct op *op, bool *out_flush)
{
    const struct host_stub *stub;
    struct stub_plan plan;

    if (fpu_build(c, insn, op) || vector_move_build(c, insn, op) ||
        vector_memory_build(c, insn, op))
        return true;
    if (!host_stub_plan(c, insn, &plan))
        return false;
    stub = find_or_make(c->stubs, &plan, out_flush);
    host_stub_fill_op(stub, op);
    return true;
}
