/*
 * test_smbios.c - the SMBIOS tables can be walked from both entry points
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "machine/smbios.h"

#define MIB  (1ull << 20)
#define BASE 0xf0000ull

struct tables {
    struct pc_layout layout;
    uint8_t bytes[SMBIOS_TABLES_MAX_BYTES];
    size_t size_bytes;
};

static void build(struct tables *t, uint64_t ram_bytes, unsigned vcpu_count)
{
    struct error err = {0};

    pc_layout_init(&t->layout, ram_bytes, vcpu_count);
    assert_int_equal(
        smbios_build(&t->layout, BASE, t->bytes, sizeof(t->bytes), &t->size_bytes, &err), 0);
}

static unsigned sum(const uint8_t *p, size_t size_bytes)
{
    uint8_t total = 0;

    while (size_bytes--)
        total = (uint8_t)(total + *p++);
    return total;
}

/* Skip the strings of a structure; *out_count is how many there are. */
static const uint8_t *behind_strings(const uint8_t *p, const uint8_t *end, unsigned *out_count)
{
    unsigned count = 0;

    if (*p == 0)
        p++;
    while (p < end && *p) {
        p += strlen((const char *)p) + 1;
        count++;
    }
    *out_count = count;
    return p + 1;
}

static void entry_points_sum_to_zero(void **state)
{
    static struct tables t;

    build(&t, 512 * MIB, 1);
    assert_memory_equal(t.bytes, "_SM3_", 5);
    assert_int_equal(sum(t.bytes, t.bytes[6]), 0);
    assert_memory_equal(t.bytes + 32, "_SM_", 4);
    assert_int_equal(sum(t.bytes + 32, t.bytes[32 + 5]), 0);
    assert_memory_equal(t.bytes + 48, "_DMI_", 5);
    assert_int_equal(sum(t.bytes + 48, 15), 0);
    assert_int_equal(get_le64(t.bytes + 16), get_le32(t.bytes + 32 + 24));
}

static void structures_fill_the_table_exactly(void **state)
{
    static struct tables t;
    const uint8_t *p, *end;
    unsigned count = 0, strings;

    build(&t, 8192 * MIB, 16);
    p = t.bytes + (get_le64(t.bytes + 16) - BASE);
    end = p + get_le32(t.bytes + 12);
    assert_ptr_equal(end, t.bytes + t.size_bytes);
    for (;;) {
        uint8_t type = p[0];

        assert_true(p < end);
        p = behind_strings(p + p[1], end, &strings);
        count++;
        if (type == 127)
            break;
    }
    assert_ptr_equal(p, end);
    assert_int_equal(count, get_le16(t.bytes + 32 + 28));
}

static const uint8_t *find(const struct tables *t, uint8_t type, unsigned number)
{
    const uint8_t *p = t->bytes + (get_le64(t->bytes + 16) - BASE);
    unsigned strings;

    while (p[0] != 127) {
        if (p[0] == type && number-- == 0)
            return p;
        p = behind_strings(p + p[1], t->bytes + t->size_bytes, &strings);
    }
    return NULL;
}

static void string_numbers_exist(void **state)
{
    static struct tables t;
    unsigned strings;
    const uint8_t *system;

    build(&t, 512 * MIB, 1);
    system = find(&t, 1, 0);
    assert_non_null(system);
    behind_strings(system + system[1], t.bytes + t.size_bytes, &strings);
    assert_int_equal(strings, 3);
    assert_string_equal((const char *)system + system[1], "Trapeze");
}

static void the_machine_can_have_an_identity(void **state)
{
    static const uint8_t uuid[16] = {0x12, 0x3e, 0x45, 0x67, 0xe8, 0x9b, 0x12, 0xd3,
                                     0xa4, 0x56, 0x42, 0x66, 0x14, 0x17, 0x40, 0x00};
    static const uint8_t none[16];
    static struct tables t;
    struct error err = {0};
    const uint8_t *system, *end;
    unsigned strings;

    (void)state;
    build(&t, 512 * MIB, 1);
    assert_memory_equal(find(&t, 1, 0) + 8, none, 16);
    assert_int_equal(find(&t, 1, 0)[7], 0);
    t.layout.identity = (struct pc_identity){.has_uuid = true, .serial_number = "ds=nocloud"};
    memcpy(t.layout.identity.uuid, uuid, 16);
    assert_int_equal(smbios_build(&t.layout, BASE, t.bytes, sizeof(t.bytes), &t.size_bytes, &err),
                     0);
    system = find(&t, 1, 0);
    assert_memory_equal(system + 8, "\x67\x45\x3e\x12\x9b\xe8\xd3\x12\xa4\x56\x42\x66\x14\x17\x40",
                        16);
    end = behind_strings(system + system[1], t.bytes + t.size_bytes, &strings);
    assert_int_equal(strings, 4);
    assert_int_equal(system[7], 4);
    assert_string_equal((const char *)end - 12, "ds=nocloud");
}

static void memory_above_four_gib_has_its_own_range(void **state)
{
    static struct tables t;

    build(&t, 4096 * MIB, 1);
    assert_int_equal(get_le64(find(&t, 19, 0) + 23), PC_LOW_RAM_MAX - 1);
    assert_int_equal(get_le64(find(&t, 19, 1) + 15), 4096 * MIB);
    assert_int_equal(get_le64(find(&t, 19, 1) + 23), 5120 * MIB - 1);
    assert_int_equal(get_le16(find(&t, 17, 0) + 12), 4096);
    build(&t, 512 * MIB, 1);
    assert_null(find(&t, 19, 1));
}

static void memory_beyond_32_gib_uses_the_extended_size(void **state)
{
    static struct tables t;

    build(&t, 65536 * MIB, 1);
    assert_int_equal(get_le16(find(&t, 17, 0) + 12), 0x7fff);
    assert_int_equal(get_le32(find(&t, 17, 0) + 28), 65536);
}

static void too_small_a_buffer_is_refused_at_every_size(void **state)
{
    static struct tables t;
    static uint8_t small[SMBIOS_TABLES_MAX_BYTES];

    build(&t, 8192 * MIB, 4);
    for (size_t capacity = 0; capacity < t.size_bytes; capacity++) {
        struct error err = {0};
        size_t used = 1;

        memset(small, 0xa5, sizeof(small));
        assert_int_not_equal(smbios_build(&t.layout, BASE, small, capacity, &used, &err), 0);
        assert_int_equal(small[capacity], 0xa5);
        assert_int_equal(used, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entry_points_sum_to_zero),
        cmocka_unit_test(structures_fill_the_table_exactly),
        cmocka_unit_test(string_numbers_exist),
        cmocka_unit_test(the_machine_can_have_an_identity),
        cmocka_unit_test(memory_above_four_gib_has_its_own_range),
        cmocka_unit_test(memory_beyond_32_gib_uses_the_extended_size),
        cmocka_unit_test(too_small_a_buffer_is_refused_at_every_size),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
