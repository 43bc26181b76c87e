/*
 * pc_rig.h - a whole board for tests, with the null engine in the processor's place
 */
#ifndef TESTS_PC_RIG_H
#define TESTS_PC_RIG_H

#include "cmocka_all.h"
#include "host/loop.h"
#include "machine/pc.h"
#include "trapeze/machine.h"

#define MIB 0x100000ull

struct pc_rig {
    struct loop *loop;
    struct machine *machine;
    struct pc_config config;
    struct error err;
    char path[32]; /* of the kernel or ROM */
};

/* cmocka's functions; *state is a rig whose config can be filled in. */
int pc_set_up(void **state);
int pc_tear_down(void **state);

/* A temporary file, whose name is f->path. */
void pc_write_file(struct pc_rig *f, const uint8_t *data, size_t size_bytes);
/* To be started: a multiboot kernel of 4 KiB at 2 MiB that begins at 0x200020. */
void pc_make_kernel(struct pc_rig *f);

/* pc_build()'s result. */
int pc_build_rig(struct pc_rig *f, uint64_t ram_bytes, unsigned vcpu_count);
void pc_start(struct pc_rig *f, uint64_t ram_bytes, unsigned vcpu_count);
/* With a ROM of 256 KiB of 0x77. */
void pc_start_rom(struct pc_rig *f, uint64_t ram_bytes);

/* Guest-physical memory, 1 to 8 bytes. */
uint64_t pc_peek(struct pc_rig *f, uint64_t gpa, size_t size_bytes);
/* Registers of the host bridge. */
void pc_write_host(struct pc_rig *f, unsigned offset, uint32_t value, unsigned size);

/* Set up the 8259 pair, all masked. */
void pc_init_pics(struct pc_rig *f);
/* Which of its requests are up (OCW3: read IRR). */
unsigned pc_pic_requests(struct pc_rig *f);

#endif
