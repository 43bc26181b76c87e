/*
 * instance.h - one test of the differential tester: code, registers and memory before and after
 *
 * The same instance runs natively in a child process (native.c) and through an engine
 * (guest.c); both fill in a struct outcome, and compare.c says where they differ.
 *
 * Layout, the same linear addresses on both sides:
 *
 *   CODE_BASE   two pages of code, then nothing mapped
 *   DATA_BASE   two pages of data, then nothing mapped; operands and stack point into these
 */
#ifndef DIFFERENTIAL_INSTANCE_H
#define DIFFERENTIAL_INSTANCE_H

#include <stdbool.h>
#include <stdint.h>

#include "x86/decode.h"

#define CODE_BASE   0x10000000ull
#define CODE_SIZE   0x2000u
#define DATA_BASE   0x20000000ull
#define DATA_SIZE   0x2000u
#define MAX_CODE    64u /* bytes of one instance, INT3 at the end included */
#define MAX_INSNS   4u

/* In 32-bit code: GS holds the data pages, or nothing if the host gives us no descriptor. */
#define CS_32       0x23u
#define DS_32       0x2bu
#define GS_LDT      0x07u

/* Only this part of the data pages is filled and compared: around the page boundary and the end. */
#define WINDOW_SIZE 512u
#define WINDOW_A    (0x1000u - WINDOW_SIZE / 2)
#define WINDOW_B    (DATA_SIZE - WINDOW_SIZE)

struct registers {
    uint64_t gpr[16];
    uint64_t rip, rflags;
    uint32_t mxcsr;
    uint16_t fcw, fsw;
    uint8_t ftw; /* abridged */
    uint8_t st[8][16];
    uint8_t zmm[32][64];
    uint64_t k[8];
};

struct outcome {
    struct registers regs;
    uint8_t window_a[WINDOW_SIZE], window_b[WINDOW_SIZE];
    uint32_t vector; /* 3: ran to the INT3 */
    uint32_t error;
    uint64_t cr2;
};

struct instance {
    uint64_t seed; /* gives registers and memory */
    uint8_t code[MAX_CODE];
    uint32_t code_size;
    uint64_t code_rip;
    uint32_t undefined_flags; /* not compared */
    uint32_t insn_count;
    bool exceptions_unmasked; /* MXCSR and FCW raise */
    struct registers before;
    uint8_t window_a[WINDOW_SIZE], window_b[WINDOW_SIZE];
    struct outcome native, guest;
    bool wrote_itself; /* in the guest */
};

/* Vector state that this host has: width of a vector register in bytes, and opmask registers. */
extern unsigned host_vector_bytes;
extern bool host_has_opmask;

/* Of all instances: X86_CODE_64, or X86_CODE_32, which is compatibility mode. */
extern enum x86_code_size code_size;
extern bool host_has_ldt;

/* generate.c: build the table of instruction forms, then instances from it. */
unsigned generate_init(const char *only_mnemonic);
void generate_instance(struct instance *t, uint64_t seed);
const char *generate_form_name(unsigned form);
void generate_count(const struct instance *t);
void generate_report(void);

/* native.c: a child process that runs instances in shared memory. */
struct instance *native_start(unsigned count);
bool native_run(unsigned count); /* the first count instances; false if the child died */
void native_stop(void);

/* guest.c: the same through an engine. */
bool guest_start(const char *engine);
void guest_run(struct instance *t);
void guest_stop(void);

/* compare.c: prints differences; true if there are none. */
extern bool dead_flags_may_differ; /* in the frame of a fault: true for the translator */
bool compare_instance(const struct instance *t, bool quiet);

#endif
