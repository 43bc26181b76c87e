/*
 * identify.c - what the controller and its namespace say of themselves
 *
 * The specification, 5.15. One namespace, 1, of 512-byte sectors without metadata.
 */
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "devices/nvme/nvme.h"

#define PAGE_BYTES              4096u

/* What to identify (CNS). */
#define CNS_NAMESPACE           0x00u
#define CNS_CONTROLLER          0x01u
#define CNS_ACTIVE_NAMESPACES   0x02u
#define CNS_DESCRIPTORS         0x03u

#define LOG_PAGE_OFFSETS        0x4u
#define COMMANDS                0x1du /* Compare, Dataset Management, Write Zeroes, Save and Select */
#define WRITE_CACHE             0x1u
#define FLUSHES_ALL             0x6u /* Flush is for all namespaces, too */
#define FIRMWARE_SLOTS          0x3u /* one, read-only */
#define SGL_SUPPORT             0x1u /* any alignment */
#define CONTROLLER_IO           1u
#define WARNING_K               343u
#define CRITICAL_K              353u
#define HAS_PREFERRED_SIZES     0x10u /* NSFEAT: what follows NVMCAP */
#define PREFERRED_SECTORS       8u    /* pages of the host's cache */
#define ATTRIBUTE_WRITE_PROTECT 0x1u
#define SECTOR_POWER            9u
#define DESCRIPTOR_EUI64        1u

static void put_text(uint8_t *field, size_t size, const char *text)
{
    memset(field, ' ', size);
    memcpy(field, text, strnlen(text, size));
}

/* The same for the same serial number, behind a locally administered prefix. */
uint64_t nvme_eui64(const struct nvme *s)
{
    const char *serial = nvme_serial(s);
    uint64_t hash = hash_add(HASH_START, serial, strlen(serial));

    return 0x525400ull << 40 | (hash & 0xffffffffffull);
}

static void identify_controller(const struct nvme *s, uint8_t *c)
{
    put_le16(c, NVME_VENDOR_ID);
    put_le16(c + 2, NVME_SUBSYSTEM_ID);
    put_text(c + 4, NVME_SERIAL_BYTES, nvme_serial(s));
    put_text(c + 24, 40, "Trapeze NVMe disk");
    put_text(c + 64, 8, "1.0");
    c[73] = 0x00, c[74] = 0x54, c[75] = 0x52; /* IEEE OUI */
    c[77] = NVME_MDTS;
    put_le32(c + 80, NVME_VERSION);
    c[111] = CONTROLLER_IO;
    c[258] = 3; /* Abort commands at once, minus 1 */
    c[259] = NVME_MAX_EVENTS - 1;
    c[260] = FIRMWARE_SLOTS;
    c[261] = LOG_PAGE_OFFSETS;
    c[262] = NVME_ERROR_LOG - 1;
    put_le16(c + 266, WARNING_K);
    put_le16(c + 268, CRITICAL_K);
    c[512] = 0x66; /* queue entries of 64 and 16 bytes */
    c[513] = 0x44;
    put_le32(c + 516, 1); /* namespaces */
    put_le16(c + 520, COMMANDS);
    c[525] = FLUSHES_ALL | (nvme_has_write_cache(s) ? WRITE_CACHE : 0);
    put_le32(c + 536, SGL_SUPPORT);
    snprintf((char *)c + 768, 256, "nqn.2014-08.org.nvmexpress:%04x%04x%s:trapeze", NVME_VENDOR_ID,
             NVME_SUBSYSTEM_ID, nvme_serial(s));
    put_le16(c + 2048, 2500); /* power state 0: at most 25 W */
}

static void identify_namespace(const struct nvme *s, uint8_t *n)
{
    uint64_t sectors = block_size_bytes(s->drive) / BLOCK_SECTOR_BYTES;

    put_le64(n, sectors);
    put_le64(n + 8, sectors);
    put_le64(n + 16, sectors);
    n[24] = HAS_PREFERRED_SIZES;
    put_le64(n + 48, block_size_bytes(s->drive)); /* of 16 bytes */
    for (unsigned at = 64; at <= 72; at += 2)     /* write, deallocate: granularity, alignment */
        put_le16(n + at, PREFERRED_SECTORS - 1);
    n[99] = block_is_read_only(s->drive) ? ATTRIBUTE_WRITE_PROTECT : 0;
    put_be64(n + 120, nvme_eui64(s));
    put_le32(n + 128, SECTOR_POWER << 16);
}

static void identify_descriptors(const struct nvme *s, uint8_t *d)
{
    d[0] = DESCRIPTOR_EUI64;
    d[1] = 8;
    put_be64(d + 4, nvme_eui64(s));
}

static uint16_t fill(const struct nvme_request *r, uint8_t *page)
{
    uint32_t nsid = r->command.nsid;

    switch (r->command.dword[10] & 0xff) {
    case CNS_NAMESPACE:
        if (nsid != 1)
            return NVME_INVALID_NAMESPACE;
        identify_namespace(r->s, page);
        return NVME_OK;
    case CNS_CONTROLLER:
        identify_controller(r->s, page);
        return NVME_OK;
    case CNS_ACTIVE_NAMESPACES: /* those above nsid */
        if (nsid >= NVME_ALL_NAMESPACES - 1)
            return NVME_INVALID_NAMESPACE;
        put_le32(page, nsid < 1 ? 1 : 0);
        return NVME_OK;
    case CNS_DESCRIPTORS:
        if (nsid != 1)
            return NVME_INVALID_NAMESPACE;
        identify_descriptors(r->s, page);
        return NVME_OK;
    default:
        return NVME_INVALID_FIELD;
    }
}

uint16_t nvme_identify(struct nvme_request *r)
{
    uint8_t page[PAGE_BYTES] = {0};
    uint16_t status = fill(r, page);

    if (!status)
        status = nvme_map_data(r, sizeof(page));
    if (!status)
        nvme_copy_to_guest(r, page, sizeof(page));
    return status;
}
