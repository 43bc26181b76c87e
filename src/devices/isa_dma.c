/*
 * isa_dma.c - two 8237A DMA controllers and the page registers, as in the PC AT
 *
 * After Intel's 8237A data sheet (231466) and the IBM PC AT Technical Reference: the second
 * controller moves words, its registers are two ports apart, and its channel 0 (channel 4) leads to
 * the first one. Channel n's page register gives the address bits above 15 (16 for words).
 *
 * Left out: memory-to-memory transfers, which the AT has no wires for; priorities, timing and
 * signal levels, which nobody sees because transfers take no time; requests by software are kept
 * and shown in the status, but there is no device that would move data for them.
 *
 * Theory of operation. A device asks (isa_dma_request) and moves its data (isa_dma_move) once the
 * channel is unmasked, its controller enabled and, for channels 0 to 3, the cascade open. Single,
 * block and demand mode then look alike. The cascade is open after a reset, as firmware leaves it,
 * for kernels that start without any.
 *
 * Threads: machine lock. Guest memory: what the guest set the channels up for; addresses wrap
 * within 64 KiB (words: 128 KiB), and what is no RAM reads as ones.
 */
#include "devices/isa_dma.h"

#include <errno.h>

#define CONTROLLERS     2u
#define CHANNELS        4u /* of a controller */
#define CASCADE         0u /* the second controller's channel that leads to the first */
#define PAGE_PORTS      16u

#define COMMAND_DISABLE 0x04u
#define MODE_VERIFY     0u /* bits 2 and 3 */
#define MODE_TO_MEMORY  1u
#define MODE_AUTO       0x10u
#define MODE_DOWN       0x20u
#define MODE_CASCADE    0xc0u

#define SELECT_CHANNEL  0x03u /* of the request, mask and mode registers */
#define SELECT_SET      0x04u

/* Registers behind the channels' addresses and counts. */
enum {
    REG_COMMAND = 8, /* read: status */
    REG_REQUEST,
    REG_SINGLE_MASK,
    REG_MODE,
    REG_CLEAR_FLIP_FLOP,
    REG_MASTER_CLEAR, /* read: temporary */
    REG_CLEAR_MASK,
    REG_ALL_MASKS,
};

struct dma_channel {
    uint16_t base_address, base_count, address, count; /* count: transfers less one */
    uint8_t mode;
};

struct dma_controller {
    struct dma_channel channel[CHANNELS];
    uint8_t command;
    uint8_t ended;    /* terminal count, a bit for each channel */
    uint8_t software; /* requests */
    uint8_t mask;
    bool flip_flop; /* the high byte comes next */
};

struct isa_dma {
    struct device dev;

    /* guest-visible state */
    struct dma_controller controller[CONTROLLERS];
    uint8_t page[PAGE_PORTS];
    bool wants[ISA_DMA_CHANNELS]; /* DREQ */

    struct {
        isa_dma_ready_fn *ready;
        void *opaque;
    } client[ISA_DMA_CHANNELS];
};

static struct isa_dma *dma_of(struct device *dev)
{
    return container_of(dev, struct isa_dma, dev);
}

/* ---- channels ---- */

static bool is_open(const struct dma_controller *c, unsigned channel)
{
    return !(c->command & COMMAND_DISABLE) && !(c->mask >> channel & 1);
}

static bool can_move(const struct isa_dma *s, unsigned number)
{
    const struct dma_controller *second = &s->controller[1];
    unsigned channel = number % CHANNELS;

    if (!is_open(&s->controller[number / CHANNELS], channel) ||
        s->controller[number / CHANNELS].channel[channel].mode >= MODE_CASCADE)
        return false;
    return number >= CHANNELS ||
           (is_open(second, CASCADE) && second->channel[CASCADE].mode >= MODE_CASCADE);
}

static void offer(struct isa_dma *s, unsigned number)
{
    if (s->wants[number] && can_move(s, number))
        s->client[number].ready(s->client[number].opaque);
}

/* After the guest has changed something. */
static void offer_all(struct isa_dma *s)
{
    for (unsigned n = 0; n < ISA_DMA_CHANNELS; n++)
        offer(s, n);
}

int isa_dma_connect(struct device *dma, unsigned channel, isa_dma_ready_fn *ready, void *opaque,
                    struct error *err)
{
    struct isa_dma *s = dma_of(dma);

    if (s->client[channel].ready)
        return error_set(err, EBUSY, "DMA channel %u is taken", channel);
    s->client[channel].ready = ready;
    s->client[channel].opaque = opaque;
    return 0;
}

void isa_dma_request(struct device *dma, unsigned channel, bool wants)
{
    struct isa_dma *s = dma_of(dma);

    s->wants[channel] = wants;
    offer(s, channel);
}

static uint64_t page_of(const struct isa_dma *s, unsigned number)
{
    /* The port of each channel's page register, from 0x80. */
    static const uint8_t ports[ISA_DMA_CHANNELS] = {0x7, 0x3, 0x1, 0x2, 0xf, 0xb, 0x9, 0xa};
    uint8_t page = s->page[ports[number]];

    return (uint64_t)(number < CHANNELS ? page : page & 0xfe) << 16;
}

/* Up to count transfers from the current address that lie in memory one behind the other. */
static uint32_t run_length(const struct dma_channel *c, uint32_t count)
{
    uint32_t to_wrap = 0x10000u - c->address;

    if (c->mode & MODE_DOWN)
        return 1;
    return count < to_wrap ? count : to_wrap;
}

static void move_run(struct isa_dma *s, unsigned number, uint8_t *data, size_t size_bytes,
                     bool to_memory)
{
    const struct dma_channel *c = &s->controller[number / CHANNELS].channel[number % CHANNELS];
    uint64_t gpa = page_of(s, number) + ((uint64_t)c->address << (number >= CHANNELS));
    unsigned type = c->mode >> 2 & 3;

    if (to_memory && type == MODE_TO_MEMORY)
        memory_write(device_memory(&s->dev), gpa, data, size_bytes);
    else if (!to_memory && type > MODE_TO_MEMORY)
        memory_read(device_memory(&s->dev), gpa, data, size_bytes);
}

/* Terminal count. */
static void end_channel(struct dma_controller *controller, unsigned channel)
{
    struct dma_channel *c = &controller->channel[channel];

    controller->ended |= (uint8_t)(1u << channel);
    controller->software &= (uint8_t) ~(1u << channel);
    if (c->mode & MODE_AUTO) {
        c->address = c->base_address;
        c->count = c->base_count;
    } else {
        controller->mask |= (uint8_t)(1u << channel);
    }
}

size_t isa_dma_move(struct device *dma, unsigned number, void *data, size_t size_bytes,
                    bool to_memory, bool *out_end)
{
    struct isa_dma *s = dma_of(dma);
    struct dma_controller *controller = &s->controller[number / CHANNELS];
    struct dma_channel *c = &controller->channel[number % CHANNELS];
    unsigned unit = number < CHANNELS ? 1 : 2;
    uint32_t all = c->count + 1u, moved = 0;

    *out_end = false;
    if (!can_move(s, number))
        return 0;
    if (all > size_bytes / unit)
        all = (uint32_t)(size_bytes / unit);
    while (moved < all) {
        uint32_t run = run_length(c, all - moved);

        move_run(s, number, (uint8_t *)data + moved * unit, run * unit, to_memory);
        c->address = (uint16_t)(c->mode & MODE_DOWN ? c->address - run : c->address + run);
        moved += run;
    }
    *out_end = moved > c->count;
    c->count = (uint16_t)(c->count - moved);
    if (*out_end)
        end_channel(controller, number % CHANNELS);
    return moved * unit;
}

/* ---- registers ---- */

static uint16_t with_byte(uint16_t old, bool high, uint8_t value)
{
    return (uint16_t)(high ? (old & 0x00ff) | value << 8 : (old & 0xff00) | value);
}

static void write_channel(struct dma_controller *controller, unsigned reg, uint8_t value)
{
    struct dma_channel *c = &controller->channel[reg / 2];
    bool high = controller->flip_flop;

    controller->flip_flop = !high;
    if (reg % 2) {
        c->base_count = with_byte(c->base_count, high, value);
        c->count = c->base_count;
    } else {
        c->base_address = with_byte(c->base_address, high, value);
        c->address = c->base_address;
    }
}

static uint8_t read_channel(struct dma_controller *controller, unsigned reg)
{
    const struct dma_channel *c = &controller->channel[reg / 2];
    uint16_t value = reg % 2 ? c->count : c->address;
    bool high = controller->flip_flop;

    controller->flip_flop = !high;
    return (uint8_t)(high ? value >> 8 : value);
}

static void clear(struct dma_controller *controller)
{
    controller->command = controller->ended = controller->software = 0;
    controller->flip_flop = false;
    controller->mask = (1u << CHANNELS) - 1;
}

static void set_bit(uint8_t *bits, uint8_t value)
{
    uint8_t bit = (uint8_t)(1u << (value & SELECT_CHANNEL));

    *bits = (uint8_t)(value & SELECT_SET ? *bits | bit : *bits & ~bit);
}

static void write_register(struct dma_controller *controller, unsigned reg, uint8_t value)
{
    switch (reg) {
    case REG_COMMAND:
        controller->command = value;
        break;
    case REG_REQUEST:
        set_bit(&controller->software, value);
        break;
    case REG_SINGLE_MASK:
        set_bit(&controller->mask, value);
        break;
    case REG_MODE:
        controller->channel[value & SELECT_CHANNEL].mode = value & (uint8_t)~SELECT_CHANNEL;
        break;
    case REG_CLEAR_FLIP_FLOP:
        controller->flip_flop = false;
        break;
    case REG_MASTER_CLEAR:
        clear(controller);
        break;
    case REG_CLEAR_MASK:
        controller->mask = 0;
        break;
    case REG_ALL_MASKS:
        controller->mask = value & ((1u << CHANNELS) - 1);
        break;
    default:
        write_channel(controller, reg, value);
        break;
    }
}

/* Terminal counts are forgotten when they were read. */
static uint8_t read_status(struct isa_dma *s, unsigned number)
{
    struct dma_controller *controller = &s->controller[number];
    uint8_t value = (uint8_t)(controller->software << 4 | controller->ended);

    for (unsigned n = 0; n < CHANNELS; n++)
        if (s->wants[number * CHANNELS + n])
            value |= (uint8_t)(0x10u << n);
    controller->ended = 0;
    return value;
}

static uint8_t read_register(struct isa_dma *s, unsigned number, unsigned reg)
{
    struct dma_controller *controller = &s->controller[number];

    if (reg < REG_COMMAND)
        return read_channel(controller, reg);
    if (reg == REG_COMMAND)
        return read_status(s, number);
    return reg == REG_ALL_MASKS ? controller->mask | 0xf0 : 0; /* 0: temporary register */
}

/* ---- ports ---- */

static uint64_t first_read(struct device *dev, uint64_t offset, unsigned size)
{
    (void)size;
    return read_register(dma_of(dev), 0, (unsigned)offset);
}

static void first_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    (void)size;
    write_register(&dma_of(dev)->controller[0], (unsigned)offset, (uint8_t)value);
    offer_all(dma_of(dev));
}

static uint64_t second_read(struct device *dev, uint64_t offset, unsigned size)
{
    (void)size;
    return read_register(dma_of(dev), 1, (unsigned)offset / 2);
}

static void second_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    (void)size;
    write_register(&dma_of(dev)->controller[1], (unsigned)offset / 2, (uint8_t)value);
    offer_all(dma_of(dev));
}

static uint64_t page_read(struct device *dev, uint64_t offset, unsigned size)
{
    (void)size;
    return dma_of(dev)->page[offset];
}

static void page_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    (void)size;
    dma_of(dev)->page[offset] = (uint8_t)value;
}

#define PORTS(n)                                                                                   \
    {                                                                                              \
        .name = "isa-dma-" #n, .read = n##_read, .write = n##_write, .min_size = 1, .max_size = 1  \
    }

static const struct region_ops first_ports = PORTS(first);
static const struct region_ops second_ports = PORTS(second);
static const struct region_ops page_ports = PORTS(page);

/* ---- class ---- */

static int dma_attach(struct device *dev, struct error *err)
{
    if (device_map_ports(dev, 0x00, 0x10, &first_ports, err) ||
        device_map_ports(dev, 0xc0, 0x20, &second_ports, err))
        return -EBUSY;
    return device_map_ports(dev, 0x80, PAGE_PORTS, &page_ports, err);
}

static void dma_reset(struct device *dev)
{
    struct isa_dma *s = dma_of(dev);

    for (unsigned n = 0; n < CONTROLLERS; n++) {
        s->controller[n] = (struct dma_controller){.command = 0};
        clear(&s->controller[n]);
    }
    s->controller[1].channel[CASCADE].mode = MODE_CASCADE;
    s->controller[1].mask &= (uint8_t) ~(1u << CASCADE);
    for (unsigned n = 0; n < PAGE_PORTS; n++)
        s->page[n] = 0;
    for (unsigned n = 0; n < ISA_DMA_CHANNELS; n++)
        s->wants[n] = false;
}

/* Only a device asks. */
static int dma_after_load(void *object, struct error *err)
{
    const struct isa_dma *s = object;

    for (unsigned n = 0; n < ISA_DMA_CHANNELS; n++)
        if (s->wants[n] && !s->client[n].ready)
            return error_set(err, EINVAL, "nobody is there to ask for DMA channel %u", n);
    return 0;
}

static const struct state_field channel_state[] = {
    STATE_U16(struct dma_channel, base_address), STATE_U16(struct dma_channel, base_count),
    STATE_U16(struct dma_channel, address),      STATE_U16(struct dma_channel, count),
    STATE_U8(struct dma_channel, mode),          STATE_END,
};

static const struct state_field controller_state[] = {
    STATE_STRUCTS(struct dma_controller, channel, channel_state),
    STATE_U8(struct dma_controller, command),
    STATE_U8_MAX(struct dma_controller, ended, 15),
    STATE_U8_MAX(struct dma_controller, software, 15),
    STATE_U8_MAX(struct dma_controller, mask, 15),
    STATE_BOOL(struct dma_controller, flip_flop),
    STATE_END,
};

static const struct state_field dma_state[] = {
    STATE_STRUCTS(struct isa_dma, controller, controller_state),
    STATE_BYTES(struct isa_dma, page),
    STATE_BOOLS(struct isa_dma, wants),
    STATE_END,
};

const struct device_class isa_dma_class = {
    .name = "isa-dma",
    .summary = "8237A DMA controllers of the PC AT",
    .bus = BUS_PLATFORM,
    .instance_size = sizeof(struct isa_dma),
    .attach = dma_attach,
    .reset = dma_reset,
    .state = {.version = 1, .oldest = 1, .fields = dma_state, .after_load = dma_after_load},
};
