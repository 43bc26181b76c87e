/*
 * test_acpi.c - the ACPI tables hold together, and the ACPI compiler reads them
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "machine/acpi.h"
#include "machine/aml.h"

#define MIB  (1ull << 20)
#define BASE 0xe0000ull

struct tables {
    struct pc_layout layout;
    uint8_t bytes[ACPI_TABLES_MAX_BYTES];
    size_t size_bytes;
};

static void build(struct tables *t, uint64_t ram_bytes, unsigned vcpu_count)
{
    struct error err = {0};

    pc_layout_init(&t->layout, ram_bytes, vcpu_count);
    assert_int_equal(
        acpi_build(&t->layout, BASE, t->bytes, sizeof(t->bytes), &t->size_bytes, NULL, &err), 0);
}

static unsigned sum(const uint8_t *p, size_t size_bytes)
{
    uint8_t total = 0;

    while (size_bytes--)
        total = (uint8_t)(total + *p++);
    return total;
}

static const uint8_t *at(const struct tables *t, uint64_t gpa)
{
    assert_true(gpa >= BASE && gpa < BASE + t->size_bytes);
    return t->bytes + (gpa - BASE);
}

/* The table with a signature, found as a guest does: RSDP, XSDT. */
static const uint8_t *find(const struct tables *t, const char *signature)
{
    const uint8_t *xsdt = at(t, get_le64(t->bytes + 24));

    for (uint32_t i = 36; i < get_le32(xsdt + 4); i += 8) {
        const uint8_t *table = at(t, get_le64(xsdt + i));

        if (memcmp(table, signature, 4) == 0)
            return table;
    }
    return NULL;
}

static void rsdp_has_both_checksums(void **state)
{
    static struct tables t;

    build(&t, 512 * MIB, 1);
    assert_memory_equal(t.bytes, "RSD PTR ", 8);
    assert_int_equal(t.bytes[15], 2);
    assert_int_equal(sum(t.bytes, 20), 0);
    assert_int_equal(sum(t.bytes, 36), 0);
}

static void every_table_is_listed_twice_and_sums_to_zero(void **state)
{
    static struct tables t;
    const uint8_t *rsdt, *xsdt;
    uint32_t count;

    build(&t, 4096 * MIB, 16);
    rsdt = at(&t, get_le32(t.bytes + 16));
    xsdt = at(&t, get_le64(t.bytes + 24));
    count = (get_le32(rsdt + 4) - 36) / 4;
    assert_int_equal(count, (get_le32(xsdt + 4) - 36) / 8);
    assert_int_equal(sum(rsdt, get_le32(rsdt + 4)), 0);
    assert_int_equal(sum(xsdt, get_le32(xsdt + 4)), 0);
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *table = at(&t, get_le64(xsdt + 36 + i * 8));

        assert_int_equal(get_le32(rsdt + 36 + i * 4), get_le64(xsdt + 36 + i * 8));
        assert_int_equal(sum(table, get_le32(table + 4)), 0);
    }
}

static void fadt_points_to_facs_and_dsdt(void **state)
{
    static struct tables t;
    const uint8_t *fadt, *facs, *dsdt;

    build(&t, 512 * MIB, 1);
    fadt = find(&t, "FACP");
    assert_non_null(fadt);
    assert_int_equal(get_le32(fadt + 4), 276);
    facs = at(&t, get_le32(fadt + 36));
    assert_memory_equal(facs, "FACS", 4);
    assert_int_equal((BASE + (uint64_t)(facs - t.bytes)) % 64, 0);
    dsdt = at(&t, get_le64(fadt + 140));
    assert_memory_equal(dsdt, "DSDT", 4);
    assert_int_equal(get_le32(fadt + 40), get_le64(fadt + 140));
    assert_int_equal(sum(dsdt, get_le32(dsdt + 4)), 0);
}

static void madt_lists_every_processor_once(void **state)
{
    static struct tables t;

    for (unsigned count = 1; count <= 16; count++) {
        const uint8_t *madt, *p, *end;
        unsigned seen = 0;

        build(&t, 512 * MIB, count);
        madt = find(&t, "APIC");
        assert_non_null(madt);
        end = madt + get_le32(madt + 4);
        for (p = madt + 44; p < end; p += p[1]) {
            assert_true(p[1] >= 2);
            if (p[0] != 0)
                continue;
            assert_int_equal(p[3], seen);
            seen++;
        }
        assert_ptr_equal(p, end);
        assert_int_equal(seen, count);
    }
}

static void mcfg_and_memory_map_agree(void **state)
{
    static struct tables t;
    const uint8_t *mcfg;
    bool reserved = false;

    build(&t, 8192 * MIB, 2);
    mcfg = find(&t, "MCFG");
    assert_non_null(mcfg);
    for (size_t i = 0; i < t.layout.e820_count; i++)
        reserved = reserved || (t.layout.e820[i].type == E820_RESERVED &&
                                t.layout.e820[i].gpa == get_le64(mcfg + 44) &&
                                t.layout.e820[i].size_bytes == 256 * MIB);
    assert_true(reserved);
}

static void too_small_a_buffer_is_refused_at_every_size(void **state)
{
    static struct tables t;
    static uint8_t small[ACPI_TABLES_MAX_BYTES];

    build(&t, 512 * MIB, 4);
    for (size_t capacity = 0; capacity < t.size_bytes; capacity++) {
        struct error err = {0};
        size_t used = 1;

        memset(small, 0xa5, sizeof(small));
        assert_int_not_equal(acpi_build(&t.layout, BASE, small, capacity, &used, NULL, &err), 0);
        assert_int_equal(used, 1);
        assert_int_equal(small[capacity], 0xa5);
    }
}

static const uint8_t *dsdt_of(const struct tables *t)
{
    return at(t, get_le64(find(t, "FACP") + 140));
}

static unsigned count_in_dsdt(const struct tables *t, const char *bytes, size_t size_bytes)
{
    const uint8_t *dsdt = dsdt_of(t), *end = dsdt + get_le32(dsdt + 4);
    unsigned count = 0;

    while ((dsdt = memmem(dsdt, (size_t)(end - dsdt), bytes, size_bytes))) {
        count++;
        dsdt += size_bytes;
    }
    return count;
}

static void places_of_virtio_devices_are_present_when_they_are_taken(void **state)
{
    static struct tables t;
    size_t size_bytes;

    build(&t, 512 * MIB, 1);
    size_bytes = t.size_bytes;
    assert_int_equal(count_in_dsdt(&t, "\x2a\x10\x00", 3), 1); /* DMA channel 4 */
    assert_int_equal(count_in_dsdt(&t, "FDC0", 4), 0);
    t.layout.has_floppy = true;
    assert_int_equal(
        acpi_build(&t.layout, BASE, t.bytes, sizeof(t.bytes), &t.size_bytes, NULL, NULL), 0);
    assert_int_equal(count_in_dsdt(&t, "FDC0", 4), 1);
    assert_int_equal(count_in_dsdt(&t, "\x2a\x04\x00", 3), 1);
    t.layout.has_floppy = false;
    assert_int_equal(count_in_dsdt(&t, "LNRO0005", 9), PC_VIRTIO_PLACES);
    assert_int_equal(count_in_dsdt(&t, "_STA\x0a\x00", 6), PC_VIRTIO_PLACES);
    t.layout.virtio_taken = 0x205;
    assert_int_equal(
        acpi_build(&t.layout, BASE, t.bytes, sizeof(t.bytes), &t.size_bytes, NULL, NULL), 0);
    assert_int_equal(t.size_bytes, size_bytes);
    assert_int_equal(count_in_dsdt(&t, "_STA\x0a\x0f", 6), 3);
    assert_int_equal(count_in_dsdt(&t, "_STA\x0a\x00", 6), PC_VIRTIO_PLACES - 3);
}

static void the_high_window_goes_from_ram_to_the_end_of_addresses(void **state)
{
    static const struct {
        uint64_t ram_mib;
        unsigned bits;
        uint64_t first, end;
    } rows[] = {
        {512, 46, 4ull << 30, 1ull << 46},     {3072, 39, 4ull << 30, 1ull << 39},
        {3073, 40, 5ull << 30, 1ull << 40},    {8192, 36, 9ull << 30, 64ull << 30},
        {65536, 36, 65ull << 30, 66ull << 30}, /* RAM to the end: a window nobody reaches */
    };
    static struct tables t;

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const uint8_t *dsdt, *window;

        build(&t, rows[i].ram_mib * MIB, 1);
        t.layout.physical_bits = rows[i].bits;
        assert_int_equal(
            acpi_build(&t.layout, BASE, t.bytes, sizeof(t.bytes), &t.size_bytes, NULL, NULL), 0);
        dsdt = dsdt_of(&t);
        window = memmem(dsdt, get_le32(dsdt + 4), "\x8a\x2b\x00\x00\x0c", 5);
        assert_non_null(window);
        assert_int_equal(get_le64(window + 14), rows[i].first);
        assert_int_equal(get_le64(window + 22), rows[i].end - 1);
        assert_int_equal(get_le64(window + 38), rows[i].end - rows[i].first);
    }
}

static void eisa_ids_are_compressed_as_the_specification_shows(void **state)
{
    uint8_t bytes[8];
    struct aml aml = {.data = bytes, .capacity_bytes = sizeof(bytes)};

    aml_eisa_id(&aml, "PNP0C09");
    assert_int_equal(aml.size_bytes, 5);
    assert_memory_equal(bytes, "\x0c\x41\xd0\x0c\x09", 5);
}

static void write_file(const char *path, const uint8_t *data, size_t size_bytes)
{
    FILE *file = fopen(path, "wb");

    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size_bytes, file), size_bytes);
    fclose(file);
}

/* Disassemble a table, then compile the result again: 0 errors, 0 warnings. */
static void check_with_iasl(const char *folder, const uint8_t *table)
{
    char command[512], path[256];

    snprintf(path, sizeof(path), "%s/%.4s.dat", folder, (const char *)table);
    write_file(path, table, get_le32(table + 4));
    snprintf(command, sizeof(command),
             "cd %s && iasl -d %.4s.dat >%.4s.log 2>&1 && ! grep -iE 'error|warn|invalid' %.4s.dsl"
             " && iasl %.4s.dsl >>%.4s.log 2>&1 && grep -q ' 0 Errors, 0 Warnings' %.4s.log"
             " || { cat %.4s.log; false; }",
             folder, (const char *)table, (const char *)table, (const char *)table,
             (const char *)table, (const char *)table, (const char *)table, (const char *)table);
    assert_int_equal(system(command), 0);
}

static void the_acpi_compiler_accepts_all_tables(void **state)
{
    static const char *const signatures[] = {"FACP", "APIC", "HPET", "MCFG", "WAET"};
    static struct tables t;
    char folder[] = "/tmp/trapeze-acpi-XXXXXX", command[64];

    if (system("command -v iasl >/dev/null") != 0)
        skip();
    assert_non_null(mkdtemp(folder));
    build(&t, 4096 * MIB, 4);
    for (size_t i = 0; i < sizeof(signatures) / sizeof(signatures[0]); i++)
        check_with_iasl(folder, find(&t, signatures[i]));
    check_with_iasl(folder, at(&t, get_le64(find(&t, "FACP") + 140)));
    snprintf(command, sizeof(command), "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

#define PCIE_UUID  "(5B 4D DB 33 F7 1F 1C 40 96 57 74 41 C0 3D D7 66)"
#define OTHER_UUID "(5B 4D DB 33 F7 1F 1C 40 96 57 74 41 C0 3D D7 67)"

/* Run _OSC in ACPICA; the answer's first and third doubleword as acpiexec dumps them. */
static void ask_osc(const char *folder, const char *uuid, unsigned revision, const char *asked,
                    const char *expected)
{
    char command[512];

    snprintf(command, sizeof(command),
             "cd %s && acpiexec -b 'execute \\_SB.PCI0._OSC %s %u 3 (%s)' DSDT.dat >osc.log 2>&1;"
             " grep -q '0000: %s' osc.log || { cat osc.log; false; }",
             folder, uuid, revision, asked, expected);
    assert_int_equal(system(command), 0);
}

static void osc_grants_what_exists(void **state)
{
    static struct tables t;
    char folder[] = "/tmp/trapeze-acpi-XXXXXX", command[64], path[64];
    const uint8_t *dsdt;

    if (system("command -v acpiexec >/dev/null") != 0)
        skip();
    assert_non_null(mkdtemp(folder));
    build(&t, 512 * MIB, 1);
    dsdt = at(&t, get_le64(find(&t, "FACP") + 140));
    snprintf(path, sizeof(path), "%s/DSDT.dat", folder);
    write_file(path, dsdt, get_le32(dsdt + 4));
    /* all that exists; more than that is masked (bit 4), and a query is answered the same */
    ask_osc(folder, PCIE_UUID, 1, "00 00 00 00 1F 00 00 00 1F 00 00 00",
            "00 00 00 00 1F 00 00 00 1F 00 00 00");
    ask_osc(folder, PCIE_UUID, 1, "01 00 00 00 1F 00 00 00 BF 00 00 00",
            "11 00 00 00 1F 00 00 00 1F 00 00 00");
    ask_osc(folder, PCIE_UUID, 1, "00 00 00 00 1F 00 00 00 04 00 00 00",
            "00 00 00 00 1F 00 00 00 04 00 00 00");
    ask_osc(folder, PCIE_UUID, 2, "00 00 00 00 1F 00 00 00 10 00 00 00",
            "08 00 00 00 1F 00 00 00 10 00 00 00");
    ask_osc(folder, OTHER_UUID, 1, "00 00 00 00 1F 00 00 00 BF 00 00 00",
            "04 00 00 00 1F 00 00 00 BF 00 00 00");
    snprintf(command, sizeof(command), "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rsdp_has_both_checksums),
        cmocka_unit_test(every_table_is_listed_twice_and_sums_to_zero),
        cmocka_unit_test(fadt_points_to_facs_and_dsdt),
        cmocka_unit_test(madt_lists_every_processor_once),
        cmocka_unit_test(mcfg_and_memory_map_agree),
        cmocka_unit_test(too_small_a_buffer_is_refused_at_every_size),
        cmocka_unit_test(places_of_virtio_devices_are_present_when_they_are_taken),
        cmocka_unit_test(the_high_window_goes_from_ram_to_the_end_of_addresses),
        cmocka_unit_test(eisa_ids_are_compressed_as_the_specification_shows),
        cmocka_unit_test(the_acpi_compiler_accepts_all_tables),
        cmocka_unit_test(osc_grants_what_exists),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
