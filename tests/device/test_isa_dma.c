/*
 * test_isa_dma.c - the DMA controllers, with a device of the test on a channel
 */
#include "cmocka_all.h"

#include <string.h>

#include "device_test.h"
#include "devices/isa_dma.h"

#define MEMORY 0x20000u

static struct {
    struct device_test *t;
    struct device *dma;
    unsigned channel, calls;
    bool to_memory, is_end;
    size_t want, moved;
    uint8_t data[256];
} f;

static void ready(void *opaque)
{
    (void)opaque;
    f.calls++;
    f.moved = isa_dma_move(f.dma, f.channel, f.data, f.want, f.to_memory, &f.is_end);
}

static int set_up(void **state)
{
    struct error err = {0};

    (void)state;
    memset(&f, 0, sizeof(f));
    f.t = device_test_new(1 << 20);
    f.dma = device_test_add(f.t, &isa_dma_class, NULL);
    for (unsigned n = 0; n < ISA_DMA_CHANNELS; n++)
        assert_int_equal(isa_dma_connect(f.dma, n, ready, NULL, &err), 0);
    device_test_start(f.t);
    for (unsigned n = 0; n < sizeof(f.data); n++)
        f.data[n] = (uint8_t)(n + 1);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    device_test_free(f.t);
    return 0;
}

static uint8_t *ram(uint32_t gpa)
{
    return f.t->ram.hva + gpa;
}

/* address: bytes or words within the page; count: transfers less one. */
static void program(unsigned channel, uint8_t mode, uint8_t page, uint16_t address, uint16_t count)
{
    static const uint16_t pages[] = {0x87, 0x83, 0x81, 0x82, 0, 0x8b, 0x89, 0x8a};
    uint16_t base = channel < 4 ? 0 : 0xc0, step = channel < 4 ? 1 : 2, n = channel & 3;

    f.channel = channel;
    test_outb(f.t, (uint16_t)(base + 10 * step), 4 | n);
    test_outb(f.t, (uint16_t)(base + 12 * step), 0);
    test_outb(f.t, (uint16_t)(base + 11 * step), (uint8_t)(mode | n));
    test_outb(f.t, (uint16_t)(base + 2 * n * step), (uint8_t)address);
    test_outb(f.t, (uint16_t)(base + 2 * n * step), (uint8_t)(address >> 8));
    test_outb(f.t, (uint16_t)(base + (2 * n + 1) * step), (uint8_t)count);
    test_outb(f.t, (uint16_t)(base + (2 * n + 1) * step), (uint8_t)(count >> 8));
    test_outb(f.t, pages[channel], page);
    test_outb(f.t, (uint16_t)(base + 10 * step), (uint8_t)n);
}

static void request(size_t want, bool to_memory)
{
    f.want = want;
    f.to_memory = to_memory;
    machine_lock(f.t->machine);
    isa_dma_request(f.dma, f.channel, true);
    isa_dma_request(f.dma, f.channel, false);
    machine_unlock(f.t->machine);
}

static unsigned read_pair(uint16_t port, uint16_t clear)
{
    unsigned low;

    test_outb(f.t, clear, 0);
    low = test_inb(f.t, port);
    return low | (unsigned)test_inb(f.t, port) << 8;
}

static void bytes_move_both_ways(void **state)
{
    (void)state;
    program(2, 0x44, 2, 0x0100, 99);
    request(40, true);
    assert_int_equal(f.moved, 40);
    assert_false(f.is_end);
    assert_memory_equal(ram(MEMORY + 0x100), f.data, 40);
    assert_int_equal(*ram(MEMORY + 0x100 + 40), 0);
    assert_int_equal(read_pair(4, 0xc), 0x100 + 40);
    assert_int_equal(read_pair(5, 0xc), 59);
    assert_int_equal(test_inb(f.t, 8), 0);
    request(200, true);
    assert_int_equal(f.moved, 60);
    assert_true(f.is_end);
    assert_int_equal(*ram(MEMORY + 0x100 + 99), 60);
    assert_int_equal(*ram(MEMORY + 0x100 + 100), 0);
    assert_int_equal(test_inb(f.t, 8), 0x04);
    assert_int_equal(test_inb(f.t, 8), 0); /* once read it is gone */
    assert_int_equal(read_pair(5, 0xc), 0xffff);
    request(1, true); /* masked by the terminal count */
    assert_int_equal(f.calls, 2);

    program(2, 0x48, 2, 0x0100, 3);
    memset(ram(MEMORY + 0x100), 0x77, 4);
    request(8, false);
    assert_int_equal(f.moved, 4);
    assert_int_equal(f.data[3], 0x77);
    assert_int_equal(f.data[4], 5);
}

static void words_move_within_128_kib(void **state)
{
    (void)state;
    program(5, 0x44, 3, 0xffff, 1); /* bit 0 of the page is not used */
    request(5, true);
    assert_int_equal(f.moved, 4);
    assert_true(f.is_end);
    assert_memory_equal(ram(0x3fffe), f.data, 2);
    assert_memory_equal(ram(0x20000), f.data + 2, 2); /* around */
    assert_int_equal(test_inb(f.t, 0xd0), 0x02);
}

static void addresses_wrap_within_64_kib(void **state)
{
    (void)state;
    program(1, 0x44, 2, 0xfffe, 3);
    request(4, true);
    assert_memory_equal(ram(0x2fffe), f.data, 2);
    assert_memory_equal(ram(0x20000), f.data + 2, 2);
    assert_int_equal(*ram(0x30000), 0);
}

static void it_counts_down(void **state)
{
    (void)state;
    program(2, 0x64, 2, 0x0010, 3);
    request(4, true);
    for (unsigned n = 0; n < 4; n++)
        assert_int_equal(*ram(MEMORY + 0x10 - n), n + 1);
    assert_int_equal(read_pair(4, 0xc), 0x000c);
}

static void it_begins_again_by_itself(void **state)
{
    (void)state;
    program(3, 0x54, 2, 0x0200, 7);
    request(6, true);
    request(8, true);
    assert_int_equal(f.moved, 2);
    assert_true(f.is_end);
    assert_int_equal(read_pair(6, 0xc), 0x0200);
    assert_int_equal(read_pair(7, 0xc), 7);
    request(8, true);
    assert_int_equal(f.moved, 8); /* not masked */
}

static void verifying_and_the_wrong_way_move_nothing(void **state)
{
    (void)state;
    program(2, 0x40, 2, 0, 15);
    request(16, true);
    assert_int_equal(f.moved, 16);
    assert_true(f.is_end);
    assert_int_equal(*ram(MEMORY), 0);
    program(2, 0x48, 2, 0, 15);
    request(16, true);
    assert_int_equal(f.moved, 16);
    assert_int_equal(*ram(MEMORY), 0);
}

static void what_waits_moves_when_it_may(void **state)
{
    (void)state;
    program(2, 0x44, 2, 0, 3);
    test_outb(f.t, 0x0a, 6);
    f.want = 4;
    f.to_memory = true;
    machine_lock(f.t->machine);
    isa_dma_request(f.dma, 2, true);
    machine_unlock(f.t->machine);
    assert_int_equal(f.calls, 0);
    assert_int_equal(test_inb(f.t, 0x08), 0x40); /* it asks */
    test_outb(f.t, 0x08, 4);                     /* disabled */
    test_outb(f.t, 0x0a, 2);
    assert_int_equal(f.calls, 0);
    test_outb(f.t, 0x08, 0);
    assert_int_equal(f.calls, 1);
    assert_true(f.is_end);
}

static void the_cascade_carries_the_first_controller(void **state)
{
    (void)state;
    program(2, 0x44, 2, 0, 3);
    test_outb(f.t, 0xda, 0); /* master clear masks channel 4, too */
    f.moved = 99;
    request(4, true);
    assert_int_equal(f.moved, 99);
    test_outb(f.t, 0xd6, 0xc0);
    test_outb(f.t, 0xd4, 0);
    request(4, true);
    assert_int_equal(f.moved, 4);
}

static void masks_and_clears(void **state)
{
    (void)state;
    assert_int_equal(test_inb(f.t, 0x0f), 0xff);
    test_outb(f.t, 0x0f, 0x0a);
    assert_int_equal(test_inb(f.t, 0x0f), 0xfa);
    test_outb(f.t, 0x0e, 0);
    assert_int_equal(test_inb(f.t, 0x0f), 0xf0);
    test_outb(f.t, 0x09, 4 | 1);
    assert_int_equal(test_inb(f.t, 0x08), 0x20);
    test_outb(f.t, 0x0d, 0);
    assert_int_equal(test_inb(f.t, 0x08), 0);
    assert_int_equal(test_inb(f.t, 0x0f), 0xff);
    test_outb(f.t, 0x80, 0x5a); /* a page register that no channel has */
    assert_int_equal(test_inb(f.t, 0x80), 0x5a);
}

static void the_flip_flop_is_of_a_controller(void **state)
{
    (void)state;
    test_outb(f.t, 0x0c, 0);
    test_outb(f.t, 0x00, 0x34);
    test_outb(f.t, 0x03, 0x12); /* the high byte of another register */
    test_outb(f.t, 0x00, 0x78);
    assert_int_equal(read_pair(0x00, 0x0c), 0x78);
    assert_int_equal(read_pair(0x03, 0x0c), 0x1200);
}

static void state_is_kept(void **state)
{
    (void)state;
    program(2, 0x54, 2, 0x1234, 0x5678);
    test_outb(f.t, 0x89, 0x12);
    device_test_round_trip(f.t, f.dma);
    assert_int_equal(read_pair(4, 0xc), 0x1234);
    assert_int_equal(test_inb(f.t, 0x89), 0x12);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bytes_move_both_ways),
        TEST(words_move_within_128_kib),
        TEST(addresses_wrap_within_64_kib),
        TEST(it_counts_down),
        TEST(it_begins_again_by_itself),
        TEST(verifying_and_the_wrong_way_move_nothing),
        TEST(what_waits_moves_when_it_may),
        TEST(the_cascade_carries_the_first_controller),
        TEST(masks_and_clears),
        TEST(the_flip_flop_is_of_a_controller),
        TEST(state_is_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
