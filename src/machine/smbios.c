/*
 * smbios.c - the SMBIOS tables of the PC board
 *
 * After DSP0134 (System Management BIOS) 3.4: entry points 5.2.1 and 5.2.2, and
 * structure types 0 (BIOS), 1 (system), 3 (chassis), 4 (processor), 16 (memory
 * array), 17 (memory device), 19 (mapped address), 32 (boot), 127 (end). One
 * socket holds all vCPUs. Left out: serial numbers but the system's, and asset tags, which say "not
 * specified".
 */
#include "machine/smbios.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"

enum {
    ENTRY3_BYTES = 24,

    TYPE_BIOS = 0,
    TYPE_SYSTEM = 1,
    TYPE_CHASSIS = 3,
    TYPE_PROCESSOR = 4,
    TYPE_MEMORY_ARRAY = 16,
    TYPE_MEMORY_DEVICE = 17,
    TYPE_MAPPED_ADDRESS = 19,
    TYPE_BOOT = 32,
    TYPE_END = 127,

    BYTE_UNKNOWN = 2, /* in most enumerations */
    STATE_SAFE = 3,
    SIZE_EXTENDED = 0x7fff, /* the size in MiB is in another field */
};

/* Handles: the structure's type in the upper byte, its number in the lower. */
#define HANDLE(type, n) ((uint16_t)((type) << 8 | (n)))
#define HANDLE_NONE     0xfffe

struct smbios_writer {
    uint8_t *data;
    size_t used, capacity;
    bool overflow;
    unsigned count;      /* of structures */
    size_t largest;      /* structure with its strings */
    size_t structure;    /* offset of the one being written */
    unsigned strings;    /* in it */
    uint8_t scratch[64]; /* written to after an overflow, never read */
};

static uint8_t *take(struct smbios_writer *w, size_t size_bytes)
{
    uint8_t *p = w->data + w->used;

    if (!range_fits(w->used, size_bytes, w->capacity) || w->overflow) {
        w->overflow = true;
        return w->scratch;
    }
    memset(p, 0, size_bytes);
    w->used += size_bytes;
    return p;
}

/* The formatted area; strings follow, then end_structure(). */
static uint8_t *begin_structure(struct smbios_writer *w, uint8_t type, uint8_t size_bytes,
                                uint16_t handle)
{
    uint8_t *p;

    w->structure = w->used;
    w->strings = 0;
    p = take(w, size_bytes);
    p[0] = type;
    p[1] = size_bytes;
    put_le16(p + 2, handle);
    return p;
}

/* Append a string to the structure; returns its number. */
static uint8_t add_string(struct smbios_writer *w, const char *text)
{
    size_t bytes = strlen(text) + 1;

    memcpy(take(w, bytes), text, bytes);
    return (uint8_t)++w->strings;
}

static void end_structure(struct smbios_writer *w)
{
    size_t bytes;

    take(w, w->strings ? 1 : 2); /* an empty string ends the set; an empty set is two zeros */
    bytes = w->used - w->structure;
    w->largest = bytes > w->largest ? bytes : w->largest;
    w->count++;
}

static void write_bios(struct smbios_writer *w)
{
    uint8_t *p = begin_structure(w, TYPE_BIOS, 26, HANDLE(TYPE_BIOS, 0));

    p[4] = add_string(w, "Trapeze");
    p[5] = add_string(w, "0.1");
    put_le16(p + 6, (uint16_t)(PC_FIRMWARE_LOW >> 4)); /* start segment */
    p[8] = add_string(w, "01/01/2026");
    p[9] = 1;                    /* ROM size: 64 KiB times one more */
    put_le64(p + 10, 1ull << 3); /* no further characteristics */
    p[18] = 1;                   /* ACPI */
    p[19] = 1 << 4;              /* a virtual machine */
    p[20] = 0xff;                /* releases of BIOS and controller: none */
    p[21] = 0xff;
    p[22] = 0xff;
    p[23] = 0xff;
    end_structure(w);
}

/* 7.2.1: the first three fields are little-endian. */
static void put_uuid(uint8_t *p, const uint8_t uuid[16])
{
    put_le32(p, get_be32(uuid));
    put_le16(p + 4, get_be16(uuid + 4));
    put_le16(p + 6, get_be16(uuid + 6));
    memcpy(p + 8, uuid + 8, 8);
}

static void write_system(struct smbios_writer *w, const struct pc_identity *identity)
{
    uint8_t *p = begin_structure(w, TYPE_SYSTEM, 27, HANDLE(TYPE_SYSTEM, 0));

    p[4] = add_string(w, "Trapeze");
    p[5] = add_string(w, "Trapeze PC");
    p[6] = add_string(w, "1");
    if (identity->serial_number[0])
        p[7] = add_string(w, identity->serial_number);
    if (identity->has_uuid)
        put_uuid(p + 8, identity->uuid);
    p[24] = 6; /* woken by the power switch */
    end_structure(w);
}

static void write_chassis(struct smbios_writer *w)
{
    uint8_t *p = begin_structure(w, TYPE_CHASSIS, 22, HANDLE(TYPE_CHASSIS, 0));

    p[4] = add_string(w, "Trapeze");
    p[5] = 1; /* type: other */
    p[9] = STATE_SAFE;
    p[10] = STATE_SAFE;
    p[11] = STATE_SAFE;
    p[12] = BYTE_UNKNOWN;
    end_structure(w);
}

static void write_processor(struct smbios_writer *w, unsigned vcpu_count)
{
    uint8_t *p = begin_structure(w, TYPE_PROCESSOR, 48, HANDLE(TYPE_PROCESSOR, 0));

    p[4] = add_string(w, "CPU 0");
    p[5] = 3; /* central processor */
    p[6] = 1; /* family: other */
    p[7] = add_string(w, "Trapeze");
    p[16] = add_string(w, "Trapeze virtual CPU");
    p[24] = 0x41;             /* populated and enabled */
    p[25] = 1;                /* upgrade: other */
    put_le16(p + 26, 0xffff); /* no cache structures */
    put_le16(p + 28, 0xffff);
    put_le16(p + 30, 0xffff);
    p[35] = (uint8_t)vcpu_count; /* cores, enabled ones, threads */
    p[36] = (uint8_t)vcpu_count;
    p[37] = (uint8_t)vcpu_count;
    put_le16(p + 38, 1 << 2 | (vcpu_count > 1 ? 1 << 3 : 0)); /* 64-bit, multi-core */
    put_le16(p + 40, 1);
    put_le16(p + 42, (uint16_t)vcpu_count);
    put_le16(p + 44, (uint16_t)vcpu_count);
    put_le16(p + 46, (uint16_t)vcpu_count);
    end_structure(w);
}

static void write_memory_array(struct smbios_writer *w, uint64_t ram_bytes)
{
    uint8_t *p = begin_structure(w, TYPE_MEMORY_ARRAY, 23, HANDLE(TYPE_MEMORY_ARRAY, 0));
    uint64_t kib = ram_bytes >> 10;

    p[4] = 1; /* location: other */
    p[5] = 3; /* system memory */
    p[6] = 3; /* no error correction */
    put_le32(p + 7, kib < 0x80000000u ? (uint32_t)kib : 0x80000000u);
    put_le16(p + 11, HANDLE_NONE);
    put_le16(p + 13, 1); /* devices */
    put_le64(p + 15, kib < 0x80000000u ? 0 : ram_bytes);
    end_structure(w);
}

static void write_memory_device(struct smbios_writer *w, uint64_t ram_bytes)
{
    uint8_t *p = begin_structure(w, TYPE_MEMORY_DEVICE, 40, HANDLE(TYPE_MEMORY_DEVICE, 0));
    uint32_t mib = (uint32_t)(ram_bytes >> 20);

    put_le16(p + 4, HANDLE(TYPE_MEMORY_ARRAY, 0));
    put_le16(p + 6, HANDLE_NONE);
    put_le16(p + 8, 0xffff); /* widths unknown */
    put_le16(p + 10, 0xffff);
    put_le16(p + 12, mib < SIZE_EXTENDED ? (uint16_t)mib : SIZE_EXTENDED);
    p[14] = 9; /* DIMM */
    p[16] = add_string(w, "DIMM 0");
    p[18] = 7;                /* RAM */
    put_le16(p + 19, 1 << 1); /* detail: other */
    p[23] = add_string(w, "Trapeze");
    put_le32(p + 28, mib < SIZE_EXTENDED ? 0 : mib);
    end_structure(w);
}

static void write_mapped_address(struct smbios_writer *w, unsigned number, uint64_t gpa,
                                 uint64_t size_bytes)
{
    uint8_t *p;

    if (size_bytes == 0)
        return;
    p = begin_structure(w, TYPE_MAPPED_ADDRESS, 31, HANDLE(TYPE_MAPPED_ADDRESS, number));
    put_le32(p + 4, 0xffffffff); /* the 64-bit fields count */
    put_le32(p + 8, 0xffffffff);
    put_le16(p + 12, HANDLE(TYPE_MEMORY_ARRAY, 0));
    p[14] = 1; /* devices in one row */
    put_le64(p + 15, gpa);
    put_le64(p + 23, gpa + size_bytes - 1);
    end_structure(w);
}

static void write_structures(struct smbios_writer *w, const struct pc_layout *layout)
{
    uint64_t ram_bytes = layout->low_ram_bytes + layout->high_ram_bytes;

    write_bios(w);
    write_system(w, &layout->identity);
    write_chassis(w);
    write_processor(w, layout->vcpu_count);
    write_memory_array(w, ram_bytes);
    write_memory_device(w, ram_bytes);
    write_mapped_address(w, 0, 0, layout->low_ram_bytes);
    write_mapped_address(w, 1, PC_HIGH_RAM, layout->high_ram_bytes);
    begin_structure(w, TYPE_BOOT, 11, HANDLE(TYPE_BOOT, 0)); /* status: no errors */
    end_structure(w);
    begin_structure(w, TYPE_END, 4, HANDLE(TYPE_END, 0));
    end_structure(w);
}

static void write_entry3(uint8_t *p, uint64_t table_gpa, size_t table_bytes)
{
    memcpy(p, "_SM3_", 5);
    p[6] = ENTRY3_BYTES;
    p[7] = 3;
    p[8] = 4;
    p[10] = 1; /* entry point revision */
    put_le32(p + 12, (uint32_t)table_bytes);
    put_le64(p + 16, table_gpa);
    p[5] = sum_complement(p, ENTRY3_BYTES);
}

static void write_entry2(uint8_t *p, const struct smbios_writer *w, uint64_t table_gpa,
                         size_t table_bytes)
{
    memcpy(p, "_SM_", 4);
    p[5] = SMBIOS_ENTRY2_BYTES;
    p[6] = 2;
    p[7] = 8;
    put_le16(p + 8, (uint16_t)w->largest);
    memcpy(p + 16, "_DMI_", 5);
    put_le16(p + 22, (uint16_t)table_bytes);
    put_le32(p + 24, (uint32_t)table_gpa);
    put_le16(p + 28, (uint16_t)w->count);
    p[30] = 0x28; /* 2.8 in BCD */
    p[21] = sum_complement(p + 16, 15);
    p[4] = sum_complement(p, SMBIOS_ENTRY2_BYTES);
}

int smbios_build(const struct pc_layout *layout, uint64_t base_gpa, uint8_t *buffer,
                 size_t capacity_bytes, size_t *out_size_bytes, struct error *err)
{
    struct smbios_writer w = {.data = buffer, .capacity = capacity_bytes};
    size_t table_bytes;

    take(&w, SMBIOS_STRUCTURES_OFFSET);
    write_structures(&w, layout);
    if (w.overflow)
        return error_set(err, ENOSPC, "the SMBIOS tables do not fit into %zu bytes",
                         capacity_bytes);
    table_bytes = w.used - SMBIOS_STRUCTURES_OFFSET;
    write_entry3(buffer, base_gpa + SMBIOS_STRUCTURES_OFFSET, table_bytes);
    write_entry2(buffer + SMBIOS_ENTRY2_OFFSET, &w, base_gpa + SMBIOS_STRUCTURES_OFFSET,
                 table_bytes);
    *out_size_bytes = w.used;
    return 0;
}
