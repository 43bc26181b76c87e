/*
 * test_code_pages.c - decoded code is dropped by writes through any address of its page
 *
 * The interpreter runs a real-mode program on the test's own thread, all steps in one run(): a
 * new run() with new registers would drop everything decoded. The first 64 KiB of RAM are seen
 * at 0 and, in most tests, at HIGH too. Each round of the program asks port 0x80 what to store
 * through HIGH and 0x81 what through 0 into the operand of CODE's instruction (0: nothing), calls
 * CODE at 0 and at HIGH, and tells ports 0x82 and 0x83 what it loaded. A step can also act
 * as a device does, when port 0x80 is read.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "host/loop.h"
#include "trapeze/device.h"
#include "trapeze/engine.h"
#include "trapeze/machine.h"

#define HIGH         0x20000u
#define WINDOW_BYTES 0x10000u
#define OTHER_OFFSET 0x40000u /* in the RAM file */
#define CODE         0x1000u
#define PROGRAM      0x4000u

static const uint8_t code[] = {0xb0, 1, 0xcb}; /* MOV AL, 1; RETF */

static const uint8_t program[] = {
    0xe4, 0x80,                   /* IN AL, 0x80 */
    0x84, 0xc0, 0x74, 0x03,       /* TEST AL, AL; JZ +3 */
    0xa2, 0x01, 0x10,             /* MOV DS:[CODE + 1], AL; DS at HIGH */
    0xe4, 0x81,                   /* IN AL, 0x81 */
    0x84, 0xc0, 0x74, 0x04,       /* TEST AL, AL; JZ +4 */
    0x26, 0xa2, 0x01, 0x10,       /* MOV ES:[CODE + 1], AL; ES at 0 */
    0x9a, 0x00, 0x10, 0x00, 0x00, /* CALL 0:CODE */
    0xe6, 0x82,                   /* OUT 0x82, AL */
    0x9a, 0x00, 0x10, 0x00, 0x20, /* CALL HIGH:CODE */
    0xe6, 0x83,                   /* OUT 0x83, AL */
    0xeb, 0xdd,                   /* JMP PROGRAM */
};

struct step {
    uint8_t store_high, store_low; /* by the vCPU */
    void (*act)(void);             /* by a device */
    uint8_t low, high;             /* what the two calls give */
};

static struct loop *loop;
static struct machine *machine;
static struct memory *memory;
static struct vcpu *vcpu;
static const struct engine_ops *engine;
static struct region low, high, alias, other;
static const struct step *steps;
static unsigned step_count, step;
static uint8_t seen[16][2];

/* ---- the device ---- */

static uint64_t script_read(struct device *dev, uint64_t offset, unsigned size)
{
    if (offset == 0 && steps[step].act)
        steps[step].act();
    return offset == 0 ? steps[step].store_high : steps[step].store_low;
}

static void script_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    seen[step][offset - 2] = (uint8_t)value;
    if (offset == 3 && ++step == step_count) {
        step--;
        vcpu_raise(vcpu, VCPU_EVENT_KICK);
    }
}

static const struct region_ops script_ops = {
    .name = "script", .read = script_read, .write = script_write, .max_size = 1};

static int script_attach(struct device *dev, struct error *err)
{
    return device_map_ports(dev, 0x80, 4, &script_ops, err);
}

static const struct device_class script_class = {
    .name = "script",
    .summary = "what the test does meanwhile",
    .instance_size = sizeof(struct device),
    .attach = script_attach,
};

/* ---- the machine ---- */

static struct region window(const char *name, uint64_t gpa, uint64_t ram_offset)
{
    return (struct region){
        .name = name,
        .kind = REGION_RAM,
        .gpa = gpa,
        .size_bytes = WINDOW_BYTES,
        .hva = memory_ram_hva(memory) + ram_offset,
        .ram_offset = ram_offset,
    };
}

static void map(struct region *region)
{
    struct error err = {0};

    assert_int_equal(memory_map(memory, region, &err), 0);
}

static int set_up(void **state)
{
    struct error err = {0};
    struct machine_config config = {.ram_bytes = 1ull << 20};
    struct device *dev;

    engine = engine_find("interpreter");
    loop = loop_new(&err);
    config.engine = engine;
    config.loop = loop;
    machine = machine_new(&config, &err);
    assert_non_null(machine);
    memory = machine_memory(machine);
    vcpu = machine_vcpu(machine, 0);
    dev = device_new(machine, &script_class, NULL, &err);
    assert_non_null(dev);
    assert_int_equal(device_attach(dev, &err), 0);
    low = window("low", 0, 0);
    high = window("high", HIGH, 0);
    other = window("other", HIGH, OTHER_OFFSET);
    alias = (struct region){.name = "alias",
                            .kind = REGION_ALIAS,
                            .gpa = HIGH,
                            .size_bytes = WINDOW_BYTES,
                            .target = &low};
    machine_lock(machine);
    map(&low);
    machine_unlock(machine);
    memcpy(memory_ram_hva(memory) + CODE, code, sizeof(code));
    memcpy(memory_ram_hva(memory) + PROGRAM, program, sizeof(program));
    memcpy(memory_ram_hva(memory) + OTHER_OFFSET + CODE, (uint8_t[]){0xb0, 7, 0xcb}, 3);
    return 0;
}

static int tear_down(void **state)
{
    machine_free(machine);
    loop_free(loop);
    return 0;
}

static void run(const struct step *list, unsigned count, struct region *second)
{
    struct x86_state *s = &vcpu->state;
    struct vcpu_exit exit = {0};

    machine_lock(machine);
    map(second);
    machine_unlock(machine);
    steps = list;
    step_count = count;
    step = 0;
    memset(seen, 0, sizeof(seen));
    x86_state_reset(s, false);
    s->seg[X86_CS].base = s->seg[X86_CS].selector = 0;
    s->seg[X86_DS].base = HIGH;
    s->seg[X86_DS].selector = HIGH >> 4;
    s->gpr[X86_RSP] = 0x8000;
    s->rip = PROGRAM;
    engine->set_state(vcpu);
    engine->run(vcpu, UINT64_MAX, &exit);
    assert_int_equal(exit.reason, EXIT_KICKED);
    for (unsigned n = 0; n < count; n++)
        if (seen[n][0] != list[n].low || seen[n][1] != list[n].high)
            fail_msg("step %u: %u and %u, not %u and %u", n, seen[n][0], seen[n][1], list[n].low,
                     list[n].high);
}

/* ---- writes ---- */

static void device_writes(uint64_t gpa, uint8_t value)
{
    memory_write(memory, gpa, &value, 1);
}
static void device_writes_high(void)
{
    device_writes(HIGH + CODE + 1, 5);
}
static void device_writes_low(void)
{
    device_writes(CODE + 1, 6);
}

/* The first two stores come before the page has code, so the TLB knows it for writing. */
static const struct step writes[] = {
    {.store_high = 2, .low = 2, .high = 2},
    {.store_high = 3, .low = 3, .high = 3},
    {.store_low = 4, .low = 4, .high = 4},
    {.act = device_writes_high, .low = 5, .high = 5},
    {.act = device_writes_low, .low = 6, .high = 6},
    {.low = 6, .high = 6},
};

static void two_regions_of_one_page_share_its_code(void **state)
{
    run(writes, sizeof(writes) / sizeof(writes[0]), &high);
}

static void an_alias_shares_its_targets_code(void **state)
{
    run(writes, sizeof(writes) / sizeof(writes[0]), &alias);
}

/* ---- other maps ---- */

static void show_other(void)
{
    memory_map(memory, &other, NULL); /* mapped later: wins */
}
static void hide_other(void)
{
    memory_unmap(memory, &other);
}

static void other_memory_at_an_address_has_other_code(void **state)
{
    static const struct step list[] = {
        {.low = 1, .high = 1},
        {.act = show_other, .low = 1, .high = 7},
        {.low = 1, .high = 7},
        {.act = hide_other, .low = 1, .high = 1},
    };

    run(list, sizeof(list) / sizeof(list[0]), &high);
}

static void unpin_after_a_change(void)
{
    uint8_t *bytes = memory_pin(memory, HIGH + CODE, sizeof(code));

    show_other();
    bytes[1] = 8;
    memory_unpin(memory, bytes, sizeof(code));
}

static void an_unpin_finds_the_page_after_the_map_changed(void **state)
{
    static const struct step list[] = {
        {.low = 1, .high = 1},
        {.act = unpin_after_a_change, .low = 8, .high = 7},
    };

    run(list, sizeof(list) / sizeof(list[0]), &high);
}

/* ---- watched pages ---- */

/* Stores twice to page 3 of HIGH what port 0x80 gives, if that is not 0, and tells port 0x83. */
static const uint8_t storer[] = {
    0xe4, 0x80,             /* IN AL, 0x80 */
    0x84, 0xc0, 0x74, 0x06, /* TEST AL, AL; JZ +6 */
    0xa2, 0x00, 0x30,       /* MOV DS:[0x3000], AL */
    0xa2, 0x00, 0x30,       /* the same, now by the TLB */
    0xe6, 0x83,             /* OUT 0x83, AL */
    0xeb, 0xf0,             /* JMP PROGRAM */
};
static uint64_t block_offset, fetched[16];

static void fetch_written(void)
{
    memory_watch_fetch(memory, block_offset, WINDOW_BYTES, &fetched[step]);
}

static const struct step watched_steps[] = {
    {.store_high = 2, .high = 2},
    {.act = fetch_written},
    {.act = fetch_written}, /* once more: a vCPU might have gone on writing */
    {.act = fetch_written, .store_high = 5, .high = 5},
    {.act = fetch_written, .store_high = 6, .high = 6},
    {.act = fetch_written},
    {.act = fetch_written},
    {.act = fetch_written},
};

static void stores_to_watched_pages_are_seen(void **state)
{
    static const bool expected[] = {false, true, true, false, true, true, true, false};
    uint8_t *hva = memory_add_block(memory, WINDOW_BYTES, &block_offset, NULL);
    struct region block = {.name = "block",
                           .kind = REGION_RAM,
                           .gpa = HIGH,
                           .size_bytes = WINDOW_BYTES,
                           .hva = hva,
                           .ram_offset = block_offset};

    assert_non_null(hva);
    memcpy(memory_ram_hva(memory) + PROGRAM, storer, sizeof(storer));
    memory_watch_start(memory, block_offset, WINDOW_BYTES);
    for (unsigned n = 0; n < 2; n++) /* all pages, at first */
        assert_true(memory_watch_fetch(memory, block_offset, WINDOW_BYTES, &fetched[0]));
    assert_false(memory_watch_fetch(memory, block_offset, WINDOW_BYTES, &fetched[0]));
    run(watched_steps, sizeof(watched_steps) / sizeof(watched_steps[0]), &block);
    for (unsigned n = 0; n < sizeof(expected) / sizeof(expected[0]); n++)
        assert_int_equal(fetched[n], expected[n] ? 1u << 3 : 0);
    assert_int_equal(hva[0x3000], 6);
    machine_lock(machine);
    memory_unmap(memory, &block);
    machine_unlock(machine);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(two_regions_of_one_page_share_its_code, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_alias_shares_its_targets_code, set_up, tear_down),
        cmocka_unit_test_setup_teardown(other_memory_at_an_address_has_other_code, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(an_unpin_finds_the_page_after_the_map_changed, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(stores_to_watched_pages_are_seen, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
