/*
 * fw_cfg.c - firmware configuration: named blobs that firmware and kernels read
 *
 * The interface that SeaBIOS, OVMF and Linux (CONFIG_FW_CFG_SYSFS) expect, as QEMU's
 * docs/specs/fw_cfg.rst describes it: a selector at port 0x510, a data register at 0x511 that
 * gives one byte after the other, and DMA with a big-endian descriptor address at
 * ports 0x514-0x51b. Writing is possible by DMA only, and only to items that allow it.
 *
 * Theory of operation. A DMA descriptor is copied in, checked and carried out at once, then its
 * control word is written back: 0, or the error bit. Lengths are the guest's: what
 * lies behind an item's end reads as zeros, and a transfer ends with an error at the first
 * address that is not RAM, so the work is bounded by the size of the RAM.
 *
 * Left out: the memory-mapped variant of other boards, and contents written by the guest
 * as part of the state (their owners keep what matters).
 *
 * Threads: called with the machine lock held. Guest memory: read and written by DMA.
 */
#include "devices/fw_cfg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "trapeze/machine.h"

#define SELECTOR_PORT  0x510 /* and data at 0x511 */
#define DMA_PORT       0x514
#define DMA_PORT_COUNT 8

#define KEY_COUNT      (FW_CFG_FILE_FIRST + FW_CFG_FILE_MAX)
#define KEY_NONE       0xffff
#define KEY_MASK       0x3fff /* bit 14: write mode of old, bit 15: architecture's own items */

#define ID_TRADITIONAL 0x1
#define ID_DMA         0x2
#define DMA_SIGNATURE  0x51454d5520434647ull /* "QEMU CFG" */

#define DMA_ERROR      0x01u
#define DMA_READ       0x02u
#define DMA_SKIP       0x04u
#define DMA_SELECT     0x08u
#define DMA_WRITE      0x10u
#define DMA_CHUNK      4096u
#define DMA_DESC_SIZE  16

#define DIR_ENTRY_SIZE 64

struct fw_cfg_item {
    uint8_t *data; /* owned */
    size_t size_bytes;
    const struct fw_cfg_item_ops *ops;
    void *opaque;
};

struct fw_cfg {
    struct device dev;

    /* Configuration, by the board. */
    struct fw_cfg_item items[KEY_COUNT];
    char names[FW_CFG_FILE_MAX][FW_CFG_NAME_SIZE];
    unsigned file_count;

    /* Guest-visible state. */
    uint16_t key;
    uint32_t offset;        /* in the item */
    uint8_t dma_address[8]; /* big-endian, as written */
};

static struct fw_cfg *fw_cfg_of(struct device *dev)
{
    return container_of(dev, struct fw_cfg, dev);
}

/* ---- items ---- */

static int fw_cfg_set(struct fw_cfg *s, unsigned key, const void *data, size_t size_bytes,
                      struct error *err)
{
    struct fw_cfg_item *item = &s->items[key];
    uint8_t *copy;

    if (item->data)
        return error_set(err, EEXIST, "firmware configuration item 0x%x is there already", key);
    if (size_bytes > UINT32_MAX)
        return error_set(err, EFBIG, "firmware configuration item 0x%x is over 4 GiB", key);
    copy = malloc(size_bytes ? size_bytes : 1);
    if (!copy)
        return error_set(err, ENOMEM, "out of memory");
    if (size_bytes)
        memcpy(copy, data, size_bytes);
    *item = (struct fw_cfg_item){.data = copy, .size_bytes = size_bytes};
    return 0;
}

int fw_cfg_add_item(struct device *dev, uint16_t key, const void *data, size_t size_bytes,
                    struct error *err)
{
    if (key >= FW_CFG_FILE_FIRST || key == FW_CFG_FILE_DIR)
        return error_set(err, EINVAL, "firmware configuration key 0x%x is not for items", key);
    return fw_cfg_set(fw_cfg_of(dev), key, data, size_bytes, err);
}

int fw_cfg_add_u16(struct device *dev, uint16_t key, uint16_t value, struct error *err)
{
    uint8_t bytes[2];

    put_le16(bytes, value);
    return fw_cfg_add_item(dev, key, bytes, sizeof(bytes), err);
}

int fw_cfg_add_u32(struct device *dev, uint16_t key, uint32_t value, struct error *err)
{
    uint8_t bytes[4];

    put_le32(bytes, value);
    return fw_cfg_add_item(dev, key, bytes, sizeof(bytes), err);
}

/* Directory: count, then for each file size, key, two reserved bytes, name; big-endian. */
static int fw_cfg_build_directory(struct fw_cfg *s, struct error *err)
{
    size_t size_bytes = 4 + (size_t)s->file_count * DIR_ENTRY_SIZE;
    uint8_t *data = calloc(1, size_bytes);

    if (!data)
        return error_set(err, ENOMEM, "out of memory");
    put_be32(data, s->file_count);
    for (unsigned i = 0; i < s->file_count; i++) {
        uint8_t *entry = data + 4 + (size_t)i * DIR_ENTRY_SIZE;

        put_be32(entry, (uint32_t)s->items[FW_CFG_FILE_FIRST + i].size_bytes);
        put_be16(entry + 4, (uint16_t)(FW_CFG_FILE_FIRST + i));
        memcpy(entry + 8, s->names[i], FW_CFG_NAME_SIZE);
    }
    free(s->items[FW_CFG_FILE_DIR].data);
    s->items[FW_CFG_FILE_DIR] = (struct fw_cfg_item){.data = data, .size_bytes = size_bytes};
    return 0;
}

static int fw_cfg_check_name(const struct fw_cfg *s, const char *name, struct error *err)
{
    if (!*name || strlen(name) >= FW_CFG_NAME_SIZE)
        return error_set(err, EINVAL,
                         "firmware configuration file name '%s' must have 1 to %d "
                         "characters",
                         name, FW_CFG_NAME_SIZE - 1);
    for (unsigned i = 0; i < s->file_count; i++)
        if (!strcmp(s->names[i], name))
            return error_set(err, EEXIST, "firmware configuration file '%s' is there already",
                             name);
    if (s->file_count == FW_CFG_FILE_MAX)
        return error_set(err, ENOSPC, "there are %d firmware configuration files already",
                         FW_CFG_FILE_MAX);
    return 0;
}

int fw_cfg_add_file(struct device *dev, const char *name, const void *data, size_t size_bytes,
                    const struct fw_cfg_item_ops *ops, void *opaque, uint8_t **out_data,
                    struct error *err)
{
    struct fw_cfg *s = fw_cfg_of(dev);
    unsigned key = FW_CFG_FILE_FIRST + s->file_count;
    int rc = fw_cfg_check_name(s, name, err);

    if (!rc)
        rc = fw_cfg_set(s, key, data, size_bytes, err);
    if (rc)
        return rc;
    s->items[key].ops = ops;
    s->items[key].opaque = opaque;
    strcpy(s->names[s->file_count++], name);
    if (out_data)
        *out_data = s->items[key].data;
    return fw_cfg_build_directory(s, err);
}

/* ---- selecting and reading ---- */

/* The selected item; one without data if there is none such. */
static struct fw_cfg_item *fw_cfg_item(struct fw_cfg *s)
{
    static struct fw_cfg_item nothing;
    unsigned key = s->key & KEY_MASK;

    return s->key != KEY_NONE && !(s->key & 0x8000) && key < KEY_COUNT ? &s->items[key] : &nothing;
}

static void fw_cfg_select(struct fw_cfg *s, uint16_t key)
{
    const struct fw_cfg_item *item;

    s->key = key;
    s->offset = 0;
    item = fw_cfg_item(s);
    if (item->ops && item->ops->selected)
        item->ops->selected(item->opaque);
}

/* How many of size_bytes are left in the item from the offset on. */
static uint32_t fw_cfg_left(struct fw_cfg *s, uint32_t size_bytes)
{
    const struct fw_cfg_item *item = fw_cfg_item(s);
    size_t left = s->offset < item->size_bytes ? item->size_bytes - s->offset : 0;

    return left < size_bytes ? (uint32_t)left : size_bytes;
}

static void fw_cfg_advance(struct fw_cfg *s, uint32_t size_bytes)
{
    s->offset = size_bytes > UINT32_MAX - s->offset ? UINT32_MAX : s->offset + size_bytes;
}

static uint64_t selector_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct fw_cfg *s = fw_cfg_of(dev);
    uint8_t byte = 0;

    if (size != 1 || offset != 1)
        return 0;
    if (fw_cfg_left(s, 1)) {
        byte = fw_cfg_item(s)->data[s->offset];
        fw_cfg_advance(s, 1);
    }
    return byte;
}

/* Writing to the data register did something once and does not any more. */
static void selector_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    if (offset == 0 && size == 2)
        fw_cfg_select(fw_cfg_of(dev), (uint16_t)value);
    else
        log_guest("fw-cfg: write of %u bytes at port 0x%x ignored", size,
                  (unsigned)(SELECTOR_PORT + offset));
}

static const struct region_ops selector_ports = {
    .name = "fw-cfg",
    .read = selector_read,
    .write = selector_write,
    .min_size = 1,
    .max_size = 2,
};

/* ---- DMA ---- */

static int dma_fill_zero(struct fw_cfg *s, uint64_t gpa, uint32_t size_bytes)
{
    static const uint8_t zeros[DMA_CHUNK];

    while (size_bytes) {
        uint32_t piece = size_bytes < DMA_CHUNK ? size_bytes : DMA_CHUNK;
        int rc = memory_write(device_memory(&s->dev), gpa, zeros, piece);

        if (rc)
            return rc;
        gpa += piece;
        size_bytes -= piece;
    }
    return 0;
}

static int dma_read(struct fw_cfg *s, uint64_t gpa, uint32_t size_bytes)
{
    uint32_t left = fw_cfg_left(s, size_bytes);
    const struct fw_cfg_item *item = fw_cfg_item(s);
    int rc = 0;

    if (left)
        rc = memory_write(device_memory(&s->dev), gpa, item->data + s->offset, left);
    if (!rc)
        rc = dma_fill_zero(s, gpa + left, size_bytes - left);
    fw_cfg_advance(s, left);
    return rc;
}

static int dma_write(struct fw_cfg *s, uint64_t gpa, uint32_t size_bytes)
{
    const struct fw_cfg_item *item = fw_cfg_item(s);
    uint32_t offset = s->offset;
    int rc;

    if (!item->ops || !item->ops->written || !range_fits(offset, size_bytes, item->size_bytes))
        return -EACCES;
    rc = memory_read(device_memory(&s->dev), gpa, item->data + offset, size_bytes);
    fw_cfg_advance(s, size_bytes);
    item->ops->written(item->opaque, offset, size_bytes);
    return rc;
}

static int dma_carry_out(struct fw_cfg *s, uint32_t control, uint32_t size_bytes, uint64_t gpa)
{
    uint64_t end;

    if (control & DMA_SELECT)
        fw_cfg_select(s, (uint16_t)(control >> 16));
    if ((control & (DMA_READ | DMA_WRITE)) && !checked_add(gpa, size_bytes, &end))
        return -EFAULT;
    if (control & DMA_READ)
        return dma_read(s, gpa, size_bytes);
    if (control & DMA_WRITE)
        return dma_write(s, gpa, size_bytes);
    if (control & DMA_SKIP)
        fw_cfg_advance(s, size_bytes);
    return 0;
}

/* Descriptor: control, length, address; big-endian. Only the copy is used. */
static void dma_start(struct fw_cfg *s)
{
    struct memory *memory = device_memory(&s->dev);
    uint64_t gpa = get_be64(s->dma_address);
    uint8_t descriptor[DMA_DESC_SIZE], result[4];
    int rc;

    memset(s->dma_address, 0, sizeof(s->dma_address));
    if (memory_read(memory, gpa, descriptor, sizeof(descriptor))) {
        log_guest("fw-cfg: DMA descriptor at 0x%" PRIx64 " is not in RAM", gpa);
        put_be32(result, DMA_ERROR);
        memory_write(memory, gpa, result, sizeof(result));
        return;
    }
    rc = dma_carry_out(s, get_be32(descriptor), get_be32(descriptor + 4), get_be64(descriptor + 8));
    put_be32(result, rc ? DMA_ERROR : 0);
    memory_write(memory, gpa, result, sizeof(result));
}

static uint64_t dma_port_read(struct device *dev, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    (void)dev;
    for (unsigned i = 0; i < size; i++)
        value |= (DMA_SIGNATURE >> (56 - 8 * (offset + i)) & 0xff) << 8 * i;
    return value;
}

/* The address is complete, and the transfer begins, with its last byte. */
static void dma_port_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct fw_cfg *s = fw_cfg_of(dev);

    for (unsigned i = 0; i < size; i++)
        s->dma_address[offset + i] = (uint8_t)(value >> 8 * i);
    if (offset + size == DMA_PORT_COUNT)
        dma_start(s);
}

static const struct region_ops dma_ports = {
    .name = "fw-cfg-dma",
    .read = dma_port_read,
    .write = dma_port_write,
    .min_size = 1,
    .max_size = 4,
};

/* ---- lifecycle ---- */

static int fw_cfg_attach(struct device *dev, struct error *err)
{
    struct fw_cfg *s = fw_cfg_of(dev);
    int rc = fw_cfg_set(s, FW_CFG_SIGNATURE, "QEMU", 4, err);

    if (!rc)
        rc = fw_cfg_add_u32(dev, FW_CFG_ID, ID_TRADITIONAL | ID_DMA, err);
    if (!rc)
        rc = fw_cfg_build_directory(s, err);
    if (!rc)
        rc = device_map_ports(dev, SELECTOR_PORT, 2, &selector_ports, err);
    return rc ? rc : device_map_ports(dev, DMA_PORT, DMA_PORT_COUNT, &dma_ports, err);
}

static void fw_cfg_detach(struct device *dev)
{
    struct fw_cfg *s = fw_cfg_of(dev);

    for (unsigned i = 0; i < KEY_COUNT; i++)
        free(s->items[i].data);
    memset(s->items, 0, sizeof(s->items));
    s->file_count = 0;
}

static void fw_cfg_reset(struct device *dev)
{
    struct fw_cfg *s = fw_cfg_of(dev);

    s->key = KEY_NONE;
    s->offset = 0;
    memset(s->dma_address, 0, sizeof(s->dma_address));
}

static const struct state_field fw_cfg_state[] = {
    STATE_U16(struct fw_cfg, key),
    STATE_U32(struct fw_cfg, offset),
    STATE_BYTES(struct fw_cfg, dma_address),
    STATE_END,
};

const struct device_class fw_cfg_class = {
    .name = "fw-cfg",
    .summary = "firmware configuration: named blobs for firmware and kernels",
    .bus = BUS_PLATFORM,
    .instance_size = sizeof(struct fw_cfg),
    .attach = fw_cfg_attach,
    .reset = fw_cfg_reset,
    .detach = fw_cfg_detach,
    .state = {.version = 1, .oldest = 1, .fields = fw_cfg_state},
};
