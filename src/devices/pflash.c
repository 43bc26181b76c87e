/*
 * pflash.c - NOR flash with the Intel command set: UEFI's variable store
 *
 * After the Common Flash Interface (JESD68.01) and the Intel StrataFlash data sheet, one chip with
 * 8-bit commands: read array, identifier, CFI query and status; program a byte; program a buffer;
 * erase a block. Programming clears bits, erasing sets them. Both take no time.
 *
 * Contents are in memory, and on the drive if there is one: a change is written there before
 * the guest goes on, in whole sectors.
 *
 * Left out: locking, suspending, one-time programmable registers.
 *
 * Threads: machine lock held. Guest memory: not touched.
 */
#include "devices/pflash.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "devices/devices.h"
#include "trapeze/block.h"
#include "trapeze/machine.h"

#define ERASE_BYTES  4096u
#define BUFFER_BYTES 64u
#define MAX_BYTES    (16u << 20)

enum command {
    CMD_PROGRAM_OLD = 0x10,
    CMD_ERASE = 0x20,
    CMD_PROGRAM = 0x40,
    CMD_CLEAR_STATUS = 0x50,
    CMD_READ_STATUS = 0x70,
    CMD_READ_ID = 0x90,
    CMD_QUERY = 0x98,
    CMD_CONFIRM = 0xd0,
    CMD_PROGRAM_BUFFER = 0xe8,
    CMD_READ_ARRAY = 0xff,
};

/* What the next write is. */
enum state { STATE_COMMAND, STATE_PROGRAM, STATE_ERASE, STATE_COUNT, STATE_DATA, STATE_CONFIRM };

#define STATUS_READY 0x80u
#define STATUS_ERROR 0x30u /* erase and program: a wrong sequence */

struct pflash {
    struct device dev;

    /* Configuration. */
    uint64_t gpa;        /* property */
    struct block *drive; /* property, may be NULL */
    bool secure;         /* property */
    uint32_t size_bytes;

    /* Guest-visible state, beside the contents. */
    uint8_t mode; /* a read command: what reads show */
    uint8_t state, status;
    uint32_t first, count,
        left; /* of a buffer: where it begins, how many bytes, how many to come */
    uint8_t buffer[BUFFER_BYTES];

    uint8_t *contents; /* guest-visible: in the RAM file, behind the RAM, and so saved with it */
    uint64_t ram_offset;
    bool failed; /* to write; said once */
};

static struct pflash *pflash_of(struct device *dev)
{
    return container_of(dev, struct pflash, dev);
}

/* ---- the drive ---- */

struct transfer {
    struct block_request request;
    struct io_piece piece;
    int status;
};

static void transfer_done(struct block_request *request, int status)
{
    container_of(request, struct transfer, request)->status = status;
}

static int transfer(struct pflash *s, enum block_op op, uint64_t offset, uint64_t size_bytes)
{
    struct transfer t = {.piece = {s->contents + offset, size_bytes}};

    t.request = (struct block_request){.op = op,
                                       .offset = offset,
                                       .size_bytes = size_bytes,
                                       .pieces = &t.piece,
                                       .piece_count = 1,
                                       .done = transfer_done};
    block_submit(s->drive, &t.request);
    block_drain(s->drive);
    return t.status;
}

static void store(struct pflash *s, uint32_t offset, uint32_t size_bytes)
{
    uint64_t first = align_down(offset, BLOCK_SECTOR_BYTES);
    uint64_t end = align_up((uint64_t)offset + size_bytes, BLOCK_SECTOR_BYTES);
    int status;

    memory_dirty_mark(device_memory(&s->dev), s->ram_offset + offset, size_bytes);
    if (!s->drive || block_is_read_only(s->drive))
        return;
    status = transfer(s, BLOCK_WRITE, first, end - first);
    if (status && !s->failed)
        log_error("%s: variables cannot be stored: %s", s->dev.id, strerror(-status));
    s->failed = status != 0;
}

/* ---- commands ---- */

static void program(struct pflash *s, uint32_t offset, const uint8_t *data, uint32_t size_bytes)
{
    for (uint32_t n = 0; n < size_bytes; n++)
        s->contents[offset + n] &= data[n];
    store(s, offset, size_bytes);
    s->status |= STATUS_READY;
}

static void erase(struct pflash *s, uint32_t offset)
{
    uint32_t first = (uint32_t)align_down(offset, ERASE_BYTES);

    memset(s->contents + first, 0xff, ERASE_BYTES);
    store(s, first, ERASE_BYTES);
    s->status |= STATUS_READY;
}

static void fail(struct pflash *s)
{
    s->status |= STATUS_READY | STATUS_ERROR;
    s->first = s->count = s->left = 0;
    s->state = STATE_COMMAND;
    s->mode = CMD_READ_STATUS;
}

static void take_command(struct pflash *s, uint8_t command)
{
    switch (command) {
    case CMD_PROGRAM:
    case CMD_PROGRAM_OLD:
        s->state = STATE_PROGRAM;
        break;
    case CMD_ERASE:
        s->state = STATE_ERASE;
        break;
    case CMD_PROGRAM_BUFFER:
        s->state = STATE_COUNT;
        s->status |= STATUS_READY; /* a buffer is free */
        break;
    case CMD_CLEAR_STATUS:
        s->status = 0;
        s->mode = CMD_READ_ARRAY;
        return;
    case CMD_READ_STATUS:
    case CMD_READ_ID:
    case CMD_QUERY:
        s->mode = command;
        return;
    default: /* and what is not known */
        s->mode = CMD_READ_ARRAY;
        return;
    }
    s->mode = CMD_READ_STATUS;
}

/* The first byte says where; the buffer does not leave its block. */
static void take_data(struct pflash *s, uint32_t offset, uint8_t value)
{
    if (s->left == s->count)
        s->first = offset;
    if (offset < s->first || offset - s->first >= s->count ||
        (s->first ^ (s->first + s->count - 1)) / ERASE_BYTES) {
        fail(s);
        return;
    }
    s->buffer[offset - s->first] = value;
    if (--s->left == 0)
        s->state = STATE_CONFIRM;
}

static void write_byte(struct pflash *s, uint32_t offset, uint8_t value)
{
    switch (s->state) {
    case STATE_PROGRAM:
        program(s, offset, &value, 1);
        s->state = STATE_COMMAND;
        break;
    case STATE_ERASE:
        if (value == CMD_CONFIRM)
            erase(s, offset);
        else
            fail(s);
        s->state = STATE_COMMAND;
        break;
    case STATE_COUNT:
        s->count = s->left = (uint32_t)value + 1;
        memset(s->buffer, 0xff, sizeof(s->buffer));
        s->state = STATE_DATA;
        if (s->count > BUFFER_BYTES)
            fail(s);
        break;
    case STATE_DATA:
        take_data(s, offset, value);
        break;
    case STATE_CONFIRM:
        if (value == CMD_CONFIRM)
            program(s, s->first, s->buffer, s->count);
        else
            fail(s);
        s->state = STATE_COMMAND;
        break;
    default:
        take_command(s, value);
    }
}

/* ---- reads ---- */

/* CFI query: one erase region of 4 KiB blocks, the Intel command set. */
static uint8_t query_byte(const struct pflash *s, uint32_t at)
{
    uint32_t blocks = s->size_bytes / ERASE_BYTES;

    switch (at) {
    case 0x10:
        return 'Q';
    case 0x11:
        return 'R';
    case 0x12:
        return 'Y';
    case 0x13: /* command set: Intel */
    case 0x2c: /* erase regions */
        return 1;
    case 0x15: /* extended table */
        return 0x31;
    case 0x27: /* size, as a power of two */
        return (uint8_t)(32 - __builtin_clz(s->size_bytes - 1));
    case 0x2a: /* buffer, as a power of two */
        return (uint8_t)__builtin_ctz(BUFFER_BYTES);
    case 0x2d:
        return (uint8_t)(blocks - 1);
    case 0x2e:
        return (uint8_t)((blocks - 1) >> 8);
    case 0x2f:
        return (uint8_t)(ERASE_BYTES >> 8);
    default:
        return 0;
    }
}

static uint8_t read_byte(const struct pflash *s, uint32_t offset)
{
    switch (s->mode) {
    case CMD_READ_STATUS:
        return s->status;
    case CMD_READ_ID:
        return offset % 4 == 0 ? 0x89 : offset % 4 == 1 ? 0x18 : 0; /* Intel, 128 Mbit */
    case CMD_QUERY:
        return query_byte(s, offset % 0x100);
    default:
        return s->contents[offset];
    }
}

static uint64_t pflash_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct pflash *s = pflash_of(dev);
    uint64_t value = 0;

    for (unsigned n = 0; n < size; n++)
        value |= (uint64_t)read_byte(s, (uint32_t)offset + n) << 8 * n;
    return value;
}

static void pflash_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct pflash *s = pflash_of(dev);

    if (s->secure && !machine_in_smm(dev->machine))
        return;
    if (size > 1 && s->state == STATE_PROGRAM) {
        uint8_t bytes[8];

        put_le64(bytes, value);
        program(s, (uint32_t)offset, bytes, size);
        s->state = STATE_COMMAND;
        return;
    }
    if (s->state != STATE_DATA)
        size = 1; /* a command is a byte */
    for (unsigned n = 0; n < size && (n == 0 || s->state == STATE_DATA); n++)
        write_byte(s, (uint32_t)offset + n, (uint8_t)(value >> 8 * n));
}

static const struct region_ops pflash_ops = {
    .name = "pflash", .read = pflash_read, .write = pflash_write, .min_size = 1, .max_size = 8};

/* ---- lifecycle ---- */

int pflash_set_contents(struct device *dev, const uint8_t *data, size_t size_bytes,
                        struct error *err)
{
    struct pflash *s = pflash_of(dev);

    if (!size_bytes || size_bytes % ERASE_BYTES || size_bytes > MAX_BYTES)
        return error_set(err, EINVAL,
                         "a flash of %zu bytes: it has whole blocks of %u bytes, up to %u MiB",
                         size_bytes, ERASE_BYTES, MAX_BYTES >> 20);
    s->contents = memory_add_block(device_memory(dev), size_bytes, &s->ram_offset, err);
    if (!s->contents)
        return -ENOMEM;
    if (data)
        memcpy(s->contents, data, size_bytes);
    s->size_bytes = (uint32_t)size_bytes;
    return 0;
}

static int load_drive(struct pflash *s, struct error *err)
{
    int status = pflash_set_contents(&s->dev, NULL, block_size_bytes(s->drive), err);

    if (status)
        return status;
    status = transfer(s, BLOCK_READ, 0, s->size_bytes);
    return status ? error_set(err, -status, "variables cannot be read: %s", strerror(-status)) : 0;
}

static int pflash_attach(struct device *dev, struct error *err)
{
    struct pflash *s = pflash_of(dev);
    int status = s->drive ? load_drive(s, err) : 0;

    if (status)
        return status;
    if (!s->contents)
        return error_set(err, EINVAL, "a flash without contents");
    if (!s->gpa)
        s->gpa = 0x100000000ull - s->size_bytes;
    return device_map_memory(dev, s->gpa, s->size_bytes, &pflash_ops, err);
}

static void pflash_reset(struct device *dev)
{
    struct pflash *s = pflash_of(dev);

    s->mode = CMD_READ_ARRAY;
    s->state = STATE_COMMAND;
    s->status = STATUS_READY;
    s->first = s->count = s->left = 0;
    memset(s->buffer, 0xff, sizeof(s->buffer));
}

static int pflash_after_load(void *object, struct error *err)
{
    const struct pflash *s = object;

    if (s->left > s->count || s->first >= s->size_bytes || s->count > s->size_bytes - s->first)
        return error_set(err, EINVAL, "%s: a buffer that is not in the flash", s->dev.id);
    return 0;
}

static const struct property pflash_properties[] = {
    PROPERTY_U64(struct pflash, gpa, 0, "address; 0: it ends at 4 GiB"),
    PROPERTY_POINTER(struct pflash, drive, "where its contents are kept"),
    PROPERTY_BOOL(struct pflash, secure, false,
                  "commands are taken from System Management Mode only"),
    PROPERTY_END,
};

static const struct state_field pflash_state[] = {
    STATE_U8(struct pflash, mode),
    STATE_U8_MAX(struct pflash, state, STATE_CONFIRM),
    STATE_U8(struct pflash, status),
    STATE_U32_MAX(struct pflash, first, MAX_BYTES - 1),
    STATE_U32_MAX(struct pflash, count, BUFFER_BYTES),
    STATE_U32_MAX(struct pflash, left, BUFFER_BYTES),
    STATE_BYTES(struct pflash, buffer),
    STATE_END,
};

const struct device_class pflash_class = {
    .name = "pflash",
    .summary = "NOR flash: UEFI's variables",
    .bus = BUS_PLATFORM,
    .instance_size = sizeof(struct pflash),
    .properties = pflash_properties,
    .attach = pflash_attach,
    .reset = pflash_reset,
    .state = {.version = 1, .oldest = 1, .fields = pflash_state, .after_load = pflash_after_load},
};
