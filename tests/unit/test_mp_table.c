/*
 * test_mp_table.c - the MP table can be walked, and says what the board wires
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "machine/mp_table.h"
#include "trapeze/pci.h"

#define BASE   0xf1000ull
#define HEADER 16u
#define FIRST  (HEADER + 44)

struct table {
    struct pc_layout layout;
    uint8_t bytes[MP_TABLE_MAX_BYTES];
    size_t size_bytes;
};

static void build(struct table *t, unsigned vcpu_count)
{
    struct error err = {0};

    pc_layout_init(&t->layout, 512ull << 20, vcpu_count);
    assert_int_equal(
        mp_table_build(&t->layout, BASE, t->bytes, sizeof(t->bytes), &t->size_bytes, &err), 0);
}

/* The next entry of a type behind at, or NULL. */
static const uint8_t *next(const struct table *t, const uint8_t *at, unsigned type)
{
    do
        at = at ? at + (at[0] ? 8 : 20) : t->bytes + FIRST;
    while (at < t->bytes + t->size_bytes && at[0] != type);
    return at < t->bytes + t->size_bytes ? at : NULL;
}

/* The pin of the I/O APIC for a source, with its flags above. */
static unsigned pin_of(const struct table *t, unsigned bus, unsigned source)
{
    for (const uint8_t *p = next(t, NULL, 3); p; p = next(t, p, 3))
        if (p[4] == bus && p[5] == source)
            return p[7] | (unsigned)get_le16(p + 2) << 8;
    return 0xffffff;
}

static void sums_and_lengths_are_right(void **state)
{
    static struct table t;
    unsigned entries = 0;

    (void)state;
    build(&t, 2);
    assert_memory_equal(t.bytes, "_MP_", 4);
    assert_int_equal(get_le32(t.bytes + 4), BASE + HEADER);
    assert_int_equal(sum_complement(t.bytes, 16), 0);
    assert_memory_equal(t.bytes + HEADER, "PCMP", 4);
    assert_int_equal(get_le16(t.bytes + HEADER + 4), t.size_bytes - HEADER);
    assert_int_equal(sum_complement(t.bytes + HEADER, t.size_bytes - HEADER), 0);
    for (unsigned type = 0; type <= 4; type++)
        for (const uint8_t *p = next(&t, NULL, type); p; p = next(&t, p, type))
            entries++;
    assert_int_equal(entries, get_le16(t.bytes + HEADER + 34));
}

static void every_processor_is_there_once(void **state)
{
    static struct table t;

    (void)state;
    for (unsigned count = 1; count <= 16; count++) {
        const uint8_t *p = NULL;

        build(&t, count);
        for (unsigned n = 0; n < count; n++) {
            p = next(&t, p, 0);
            assert_non_null(p);
            assert_int_equal(p[1], n);
            assert_int_equal(p[3], n ? 1 : 3); /* enabled; the first one boots */
        }
        assert_null(next(&t, p, 0));
    }
}

static void interrupts_are_wired_as_the_board_is(void **state)
{
    static struct table t;

    (void)state;
    build(&t, 1);
    assert_memory_equal(next(&t, NULL, 1) + 2, "PCI   ", 6);
    assert_memory_equal(next(&t, next(&t, NULL, 1), 1) + 2, "ISA   ", 6);
    assert_int_equal(pin_of(&t, 1, PC_IRQ_PIT), PC_GSI_PIT);
    assert_int_equal(pin_of(&t, 1, PC_IRQ_COM1), PC_IRQ_COM1);
    assert_int_equal(pin_of(&t, 1, 2), 0xffffff);     /* the cascade */
    assert_int_equal(pin_of(&t, 1, 10), 10 | 0x0d00); /* active-high level */
    for (unsigned slot = 0; slot < PCI_SLOTS; slot++)
        for (unsigned pin = 1; pin <= 4; pin++)
            assert_int_equal(pin_of(&t, 0, slot << 2 | (pin - 1)),
                             PC_GSI_PCI + pci_pirq(slot, pin));
}

static void too_small_a_buffer_is_refused(void **state)
{
    static struct table t;
    static uint8_t small[MP_TABLE_MAX_BYTES];

    (void)state;
    build(&t, 16);
    for (size_t capacity = 0; capacity < t.size_bytes; capacity++) {
        struct error err = {0};
        size_t used = 1;

        memset(small, 0xa5, sizeof(small));
        assert_int_not_equal(mp_table_build(&t.layout, BASE, small, capacity, &used, &err), 0);
        assert_int_equal(used, 1);
        assert_int_equal(small[capacity], 0xa5);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_and_lengths_are_right),
        cmocka_unit_test(every_processor_is_there_once),
        cmocka_unit_test(interrupts_are_wired_as_the_board_is),
        cmocka_unit_test(too_small_a_buffer_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
