/*
 * fuzz_tables.c - ACPI, SMBIOS and MP tables for any machine, into buffers of any size
 *
 * Input: RAM in MiB (4 bytes), processors (1), where (1), bytes in the buffer (2). Claims: nothing
 * is written outside the buffer; the tables are there as a whole or refused with ENOSPC; the
 * documented largest size is enough; every pointer leads to a table whose sum is zero.
 */
#include <errno.h>

#include "base/bytes.h"
#include "fuzz_device.h"
#include "machine/acpi.h"
#include "machine/mp_table.h"
#include "machine/smbios.h"

typedef int build_fn(const struct pc_layout *layout, uint64_t base_gpa, uint8_t *buffer,
                     size_t capacity_bytes, size_t *out_size_bytes, struct error *err);

/* What was built; exactly as long as what is used, so that a look behind it is found. */
struct tables {
    uint64_t gpa;
    size_t size_bytes;
    uint8_t *bytes;
};

static uint8_t sum(const uint8_t *p, size_t size_bytes)
{
    uint8_t total = 0;

    while (size_bytes--)
        total = (uint8_t)(total + *p++);
    return total;
}

static const uint8_t *at(const struct tables *t, uint64_t gpa, size_t size_bytes)
{
    FUZZ_CLAIM(gpa >= t->gpa && range_fits(gpa - t->gpa, size_bytes, t->size_bytes));
    return t->bytes + (gpa - t->gpa);
}

static bool build(build_fn *fn, const struct pc_layout *layout, struct tables *t, size_t capacity,
                  size_t most)
{
    struct error err = {0};
    int ret;

    t->bytes = malloc(capacity);
    t->size_bytes = 0;
    ret = fn(layout, t->gpa, t->bytes, capacity, &t->size_bytes, &err);
    FUZZ_CLAIM(ret == 0 || (ret == -ENOSPC && err.code == ENOSPC && capacity < most));
    FUZZ_CLAIM(ret || t->size_bytes <= capacity);
    if (ret == 0)
        t->bytes = realloc(t->bytes, t->size_bytes);
    return ret == 0;
}

/* ---- ACPI ---- */

static const uint8_t *acpi_table(const struct tables *t, uint64_t gpa, const char *signature)
{
    const uint8_t *table = at(t, gpa, 36);
    uint32_t length = get_le32(table + 4);

    FUZZ_CLAIM(length >= 36 && !sum(at(t, gpa, length), length));
    FUZZ_CLAIM(!signature || !memcmp(table, signature, 4));
    return table;
}

static void check_madt(const uint8_t *madt, unsigned vcpu_count)
{
    const uint8_t *p = madt + 44, *end = madt + get_le32(madt + 4);
    unsigned processors = 0;

    while (p < end) {
        FUZZ_CLAIM(end - p >= 2 && p[1] >= 2 && p[1] <= end - p);
        processors += p[0] == 0 || p[0] == 9;
        p += p[1];
    }
    FUZZ_CLAIM(processors == vcpu_count);
}

static void check_acpi(const struct tables *t, const struct pc_layout *layout)
{
    const uint8_t *rsdp = at(t, t->gpa, 36);
    const uint8_t *rsdt = acpi_table(t, get_le32(rsdp + 16), "RSDT");
    const uint8_t *xsdt = acpi_table(t, get_le64(rsdp + 24), "XSDT");
    unsigned count = (get_le32(xsdt + 4) - 36) / 8;

    FUZZ_CLAIM(!sum(rsdp, 20) && !sum(rsdp, 36));
    FUZZ_CLAIM((get_le32(rsdt + 4) - 36) / 4 == count);
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *table = acpi_table(t, get_le64(xsdt + 36 + 8 * i), NULL);

        FUZZ_CLAIM(get_le32(rsdt + 36 + 4 * i) == get_le64(xsdt + 36 + 8 * i));
        if (!memcmp(table, "APIC", 4))
            check_madt(table, layout->vcpu_count);
        if (!memcmp(table, "FACP", 4))
            acpi_table(t, get_le32(table + 40), "DSDT");
    }
}

/* ---- SMBIOS ---- */

static void check_smbios(const struct tables *t)
{
    const uint8_t *entry3 = at(t, t->gpa, 24), *entry2 = at(t, t->gpa + 32, 31);
    uint64_t gpa = get_le64(entry3 + 16);
    size_t size = get_le16(entry2 + 22), offset = 0, largest = 0;
    unsigned count = 0;

    FUZZ_CLAIM(!sum(entry3, entry3[6]) && !sum(entry2, entry2[5]) && !sum(entry2 + 16, 15));
    FUZZ_CLAIM(gpa == get_le32(entry2 + 24) && size <= get_le32(entry3 + 12));
    while (offset < size) {
        const uint8_t *p = at(t, gpa + offset, 4);
        size_t length = p[1];

        FUZZ_CLAIM(length >= 4);
        at(t, gpa + offset, length + 2);
        while (p[length] || p[length + 1]) {
            length++;
            at(t, gpa + offset, length + 2);
        }
        length += 2;
        largest = length > largest ? length : largest;
        offset += length;
        count++;
    }
    FUZZ_CLAIM(offset == size && count == get_le16(entry2 + 28));
    FUZZ_CLAIM(largest == get_le16(entry2 + 8));
}

/* ---- MP ---- */

static void check_mp(const struct tables *t, unsigned vcpu_count)
{
    const uint8_t *pointer = at(t, t->gpa, 16);
    uint64_t gpa = get_le32(pointer + 4);
    const uint8_t *header = at(t, gpa, 44);
    size_t size = get_le16(header + 4), offset = 44;
    unsigned processors = 0;

    FUZZ_CLAIM(!sum(pointer, 16) && !sum(at(t, gpa, size), size));
    for (unsigned n = get_le16(header + 34); n; n--) {
        const uint8_t *p = at(t, gpa + offset, 8);

        FUZZ_CLAIM(p[0] <= 4);
        processors += p[0] == 0;
        offset += p[0] == 0 ? 20 : 8;
    }
    FUZZ_CLAIM(offset == size && processors == vcpu_count);
}

static int build_acpi(const struct pc_layout *layout, uint64_t base_gpa, uint8_t *buffer,
                      size_t capacity_bytes, size_t *out_size_bytes, struct error *err)
{
    struct acpi_fixups fixups = {.count = 0};

    return acpi_build(layout, base_gpa, buffer, capacity_bytes, out_size_bytes, &fixups, err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    uint64_t ram_mib = 1 + fuzz_take(&in, 4) % (1 << 20); /* up to 1 TiB */
    unsigned vcpus = 1 + (unsigned)fuzz_take(&in, 1) % 16, where = (unsigned)fuzz_take(&in, 1);
    size_t capacity = 1 + fuzz_take(&in, 2) % ACPI_TABLES_MAX_BYTES;
    struct pc_layout layout;
    struct tables t = {.gpa = PC_ACPI_GPA + 64ull * where};

    pc_layout_init(&layout, ram_mib << 20, vcpus);
    if (build(build_acpi, &layout, &t, capacity, ACPI_TABLES_MAX_BYTES))
        check_acpi(&t, &layout);
    free(t.bytes);
    t.gpa = PC_SMBIOS_GPA + 16ull * where;
    if (build(smbios_build, &layout, &t, capacity, SMBIOS_TABLES_MAX_BYTES))
        check_smbios(&t);
    free(t.bytes);
    if (build(mp_table_build, &layout, &t, capacity, MP_TABLE_MAX_BYTES))
        check_mp(&t, vcpus);
    free(t.bytes);
    return 0;
}
