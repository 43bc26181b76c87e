/*
 * host_stub_rig.h - vector and x87 instructions run twice: as they are, and as the guest's
 *
 * Guest memory is a few pages whose linear addresses are their host addresses, so that
 * an instruction of 64-bit code can be run twice from the same state: as it is, by a thunk
 * that loads and stores all registers, and through host_stub_build(). Everything the guest can see
 * is compared, faults included.
 */
#ifndef TESTS_UNIT_HOST_STUB_RIG_H
#define TESTS_UNIT_HOST_STUB_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/interpreter/host_stub.h"

#define RIG_BYTES (4 * 4096u) /* of guest memory, with nothing around it */

extern struct rig {
    uint8_t *guest;
    struct icpu *cpu;
    struct cpu_model model;
    bool has_avx, has_avx512;
    bool tlb_hits;    /* fill the TLB, so that handlers find operands by themselves */
    struct op ops[2]; /* the instruction, and what stops behind it */
    char text[128];   /* of the last instruction that was disassembled */
} rig;

/* cmocka's group functions. */
int rig_set_up(void **state);
int rig_tear_down(void **state);
/* cmocka puts its own handlers of signals in the way for each test: false puts ours back. */
void rig_move_signals(bool save);

uint64_t rig_random64(void);
unsigned rig_below(unsigned n);
/* Registers and memory; masked: all exceptions of x87 and SSE are. */
void rig_random_state(bool masked);
void rig_reset_tlb(void);
void rig_fill_tlb(uint64_t linear);
void rig_put16(uint8_t *at, unsigned value);

const struct op *rig_stop(struct icpu *c, const struct op *i);
/* Offset in struct icpu of a general register; of zero for any other. */
uint16_t rig_gpr_offset(ZydisRegister reg);
/* Fill ops. False: not an instruction for stubs. */
bool rig_build(const struct insn *insn);
/* Runs ops; returns the vector raised or -1. */
int rig_run_guest(void);
/* Run ops and direct, bytes of 64-bit code that mean the same, and compare. */
void rig_run_both(const struct insn *insn, const uint8_t *direct, size_t direct_length);
void rig_fail_insn(const struct insn *insn, const char *what, unsigned n);

#endif
