/*
 * test_interpreter.c - which bytes a block of decoded instructions depends on
 *
 * Real-mode code in a machine without devices; the test writes memory as a device would.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "host/loop.h"
#include "trapeze/engine.h"
#include "trapeze/machine.h"
#include "x86/cpu.h"

#define RAM_BYTES MACHINE_MIN_RAM_BYTES
#define SECONDS   20 /* for a run that should end at once */

static struct loop *loop;
static struct machine *machine;
static struct memory *memory;
static struct region ram;
static struct vcpu *vcpu;
static const struct engine_ops *engine;

static int set_up(void **state)
{
    struct machine_config config = {.ram_bytes = RAM_BYTES, .counted = true};
    struct error err = {0};

    (void)state;
    loop = config.loop = loop_new(&err);
    engine = config.engine = engine_find("interpreter");
    machine = machine_new(&config, &err);
    assert_non_null(machine);
    memory = machine_memory(machine);
    ram = (struct region){
        .name = "ram", .kind = REGION_RAM, .size_bytes = RAM_BYTES, .hva = memory_ram_hva(memory)};
    machine_lock(machine);
    assert_int_equal(memory_map(memory, &ram, &err), 0);
    machine_unlock(machine);
    vcpu = machine_vcpu(machine, 0);
    alarm(SECONDS);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    alarm(0);
    machine_free(machine);
    loop_free(loop);
    return 0;
}

static void put(uint64_t gpa, const char *bytes, size_t size)
{
    assert_int_equal(memory_write(memory, gpa, bytes, size), 0);
}

#define PUT(gpa, bytes) put(gpa, bytes, sizeof(bytes) - 1)

/* Run from linear address code until something halts; the linear address behind the HLT. */
static uint64_t run_at(uint64_t code)
{
    struct vcpu_exit exit = {.reason = EXIT_BUDGET};

    x86_state_reset(&vcpu->state, false);
    vcpu->state.instructions = 0;
    vcpu->state.seg[X86_CS].base = (code - 0x100) & ~0xfull;
    vcpu->state.seg[X86_CS].selector = (uint16_t)(vcpu->state.seg[X86_CS].base >> 4);
    vcpu->state.rip = code - vcpu->state.seg[X86_CS].base;
    vcpu->state.gpr[X86_RSP] = 0x8000;
    engine->set_state(vcpu);
    engine->run(vcpu, 1000, &exit);
    engine->get_state(vcpu);
    assert_int_equal(exit.reason, EXIT_HALT);
    assert_true(vcpu->state.instructions < 10);
    return vcpu->state.seg[X86_CS].base + vcpu->state.rip;
}

/*
 * LOCK on a register form is undefined, on a memory form it is not. The handler of #UD
 * makes the one the other, by a write to its last byte, and tries again.
 */
static void run_repaired(uint16_t code)
{
    uint16_t last = code + 2;

    PUT(4 * X86_UD, "\x00\x06\x00\x00");
    PUT(0x600, "\xc6\x06\x00\x00\x07\xcf"); /* mov byte [0], 7; iret */
    put(0x602, (const char *)&last, 2);
    put(code, "\xf0\xfe\xc0\xf4", 4); /* lock inc al, then lock inc byte [bx]; hlt */
    assert_int_equal(run_at(code), code + 4);
}

static void an_undefined_instruction_depends_on_all_its_bytes(void **state)
{
    (void)state;
    run_repaired(0x103e); /* writes are noticed by 64 bytes */
}

static void an_undefined_instruction_may_cross_a_page(void **state)
{
    (void)state;
    run_repaired(0x1ffe);
}

/* Behind the RAM everything reads as FF, which is undefined as an instruction. */
static void an_instruction_may_run_out_of_the_ram(void **state)
{
    (void)state;
    PUT(4 * X86_UD, "\x00\x06\x00\x00");
    PUT(0x600, "\xf4");
    PUT(RAM_BYTES - 1, "\xb0"); /* mov al, imm8 */
    assert_int_equal(run_at(RAM_BYTES - 1), 0x601);
    assert_int_equal(vcpu->state.gpr[X86_RAX], 0xff);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_undefined_instruction_depends_on_all_its_bytes),
        TEST(an_undefined_instruction_may_cross_a_page),
        TEST(an_instruction_may_run_out_of_the_ram),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
