/*
 * pic.c - the pair of 8259A interrupt controllers of a PC
 *
 * After Intel's 8259A data sheet (231468), with the edge/level control registers (ELCR, ports
 * 0x4d0 and 0x4d1) of Intel's PIIX and ICH. Modelled: initialisation (ICW1-ICW4), masks, fully
 * nested and special fully nested mode, specific and non-specific EOI, automatic EOI,
 * both rotations, special mask mode, polling, spurious interrupts, the cascade.
 *
 * Left out: the 8080 mode and buffered mode (ICW4 bits 0, 2 and 3 have no effect); ICW3
 * (a PC's wiring is fixed); ICW1's level bit, which chip sets with an ELCR ignore.
 *
 * Theory of operation. An input with its ELCR bit clear latches a request at its rising edge,
 * and keeps it until it is acknowledged even if the line falls again; so a pulse is one
 * interrupt. An input with the bit set requests as long as it is high. The slave's INT is input
 * 2 of the master. If the requesting input is gone when the processor acknowledges, the
 * answer is input 7 of that chip, and no in-service bit is set.
 *
 * Threads: acknowledge comes from vCPU threads and inputs from anywhere, so the pair
 * has its own lock, held while the output line is set (order: machine, PIC, local APIC).
 */
#include "devices/pic.h"

#include <string.h>

#include "base/log.h"
#include "host/host.h"
#include "trapeze/machine.h"

#define CASCADE             2u
#define CASCADE_BIT         (1u << CASCADE)

#define ICW1_INIT           0x10u
#define ICW1_SINGLE         0x02u
#define ICW1_NEED_ICW4      0x01u
#define ICW4_AUTO_EOI       0x02u
#define ICW4_SPECIAL_NESTED 0x10u
#define OCW3_SELECT         0x08u
#define OCW3_POLL           0x04u

#define TIMER_BIT           0x01u /* IRQ0 */
#define LOST_TICKS_MAX      1000u

/* Which byte of the initialisation comes next at the odd port. */
enum pic_step { PIC_READY, PIC_ICW2, PIC_ICW3, PIC_ICW4, PIC_STEP_COUNT };

struct pic_chip {
    /* guest-visible state */
    uint8_t lines;   /* levels of the inputs */
    uint8_t irr;     /* requests */
    uint8_t isr;     /* in service */
    uint8_t imr;     /* masks */
    uint8_t elcr;    /* level-triggered inputs */
    uint8_t base;    /* vector of input 0 */
    uint8_t highest; /* input with the highest priority */
    uint8_t step;    /* enum pic_step */
    bool single, need_icw4, auto_eoi, special_nested, special_mask;
    bool rotate_on_auto_eoi;
    bool read_isr; /* the even port shows ISR instead of IRR */
    bool poll;     /* the next read is an acknowledge */
};

struct pic {
    struct device dev;
    struct host_mutex lock;

    /* guest-visible state */
    struct pic_chip chip[2]; /* master, slave */
    uint16_t lost_ticks;     /* of IRQ0 */
    struct irq_line intr;
};

static struct pic *pic_of(struct device *dev)
{
    return container_of(dev, struct pic, dev);
}

/* ---- priorities ---- */

/* The input of highest priority in a set that is not empty, as a distance from chip->highest. */
static unsigned pic_first(const struct pic_chip *chip, uint8_t set)
{
    unsigned rotated = ((unsigned)set | (unsigned)set << 8) >> chip->highest;

    return (unsigned)__builtin_ctz(rotated);
}

static unsigned pic_input(const struct pic_chip *chip, unsigned distance)
{
    return (chip->highest + distance) & 7;
}

/* A slave that is in service may interrupt again: the master does not lock it out. */
static bool pic_nests(const struct pic_chip *chip, bool master, unsigned input)
{
    return master && chip->special_nested && input == CASCADE;
}

/* The input that the chip requests an interrupt for, or -1. */
static int pic_request(const struct pic_chip *chip, bool master)
{
    uint8_t requests = chip->irr & (uint8_t)~chip->imr;
    uint8_t serving = chip->special_mask ? chip->isr & (uint8_t)~chip->imr : chip->isr;

    if (!requests || chip->step != PIC_READY)
        return -1;
    unsigned distance = pic_first(chip, requests);
    unsigned input = pic_input(chip, distance);
    if (serving) {
        unsigned current = pic_first(chip, serving);

        if (current < distance || (current == distance && !pic_nests(chip, master, input)))
            return -1;
    }
    return (int)input;
}

/* ---- inputs and output; lock held ---- */

static void pic_chip_set(struct pic_chip *chip, unsigned input, bool level)
{
    uint8_t bit = (uint8_t)(1u << input);
    bool rises = level && !(chip->lines & bit);

    if (level)
        chip->lines |= bit;
    else
        chip->lines &= (uint8_t)~bit;
    if (chip->elcr & bit)
        chip->irr = (chip->irr & (uint8_t)~bit) | (chip->lines & bit);
    else if (rises)
        chip->irr |= bit;
}

/*
 * A rising edge whose predecessor has not been acknowledged is lost on a real 8259, too, but there
 * a processor is not kept from its interrupts by other work. Ticks of the timer are made up for.
 */
static void pic_note_tick_locked(struct pic *s)
{
    const struct pic_chip *master = &s->chip[0];

    if (!((master->lines | master->elcr | master->imr) & TIMER_BIT) && (master->irr & TIMER_BIT) &&
        s->lost_ticks < LOST_TICKS_MAX)
        s->lost_ticks++;
}

/* IRQ0 was acknowledged, or it is masked and nobody waits for it. */
static void pic_make_up_locked(struct pic *s)
{
    struct pic_chip *master = &s->chip[0];

    if (((master->imr | master->elcr) & TIMER_BIT) || master->step != PIC_READY) {
        s->lost_ticks = 0;
    } else if (s->lost_ticks && !(master->irr & TIMER_BIT)) {
        s->lost_ticks--;
        master->irr |= TIMER_BIT;
    }
}

static void pic_update_locked(struct pic *s)
{
    pic_make_up_locked(s);
    pic_chip_set(&s->chip[0], CASCADE, pic_request(&s->chip[1], false) >= 0);
    bool intr = pic_request(&s->chip[0], true) >= 0;
    if (intr != s->intr.level)
        irq_set(&s->intr, intr);
}

void pic_sink(void *pic, unsigned number, bool level)
{
    struct pic *s = pic_of(pic);

    if (number >= 16 || number == CASCADE)
        return;
    host_mutex_lock(&s->lock);
    if (number == 0 && level)
        pic_note_tick_locked(s);
    pic_chip_set(&s->chip[number / 8], number % 8, level);
    pic_update_locked(s);
    host_mutex_unlock(&s->lock);
}

struct irq_line *pic_output(struct device *pic)
{
    return &pic_of(pic)->intr;
}

/* ---- acknowledge ---- */

static void pic_chip_acknowledge(struct pic_chip *chip, unsigned input)
{
    uint8_t bit = (uint8_t)(1u << input);

    if (!(chip->elcr & bit))
        chip->irr &= (uint8_t)~bit;
    if (!chip->auto_eoi)
        chip->isr |= bit;
    else if (chip->rotate_on_auto_eoi)
        chip->highest = (input + 1) & 7;
}

/* INTA for one chip: its input, or 7 if the request has gone. */
static unsigned pic_take(struct pic_chip *chip, bool master)
{
    int input = pic_request(chip, master);

    if (input < 0)
        return 7;
    pic_chip_acknowledge(chip, (unsigned)input);
    return (unsigned)input;
}

static uint8_t pic_vector_locked(struct pic *s)
{
    struct pic_chip *master = &s->chip[0], *slave = &s->chip[1];
    unsigned input = pic_take(master, true);

    if (input != CASCADE || master->single)
        return (uint8_t)(master->base | input);
    unsigned slave_input = pic_take(slave, false);
    /* INT falls with the acknowledge: what the slave requests next is a new edge. */
    master->lines &= (uint8_t)~CASCADE_BIT;
    return (uint8_t)(slave->base | slave_input);
}

static int pic_acknowledge(void *opaque)
{
    struct pic *s = opaque;

    host_mutex_lock(&s->lock);
    uint8_t vector = pic_vector_locked(s);
    pic_update_locked(s);
    host_mutex_unlock(&s->lock);
    trace(PIC_ACK, vector);
    return vector;
}

/* ---- commands; lock held ---- */

/* ICW1: clears masks, the edge detectors and whatever ICW4 may set; lines and ELCR stay. */
static void pic_icw1(struct pic_chip *chip, uint8_t value)
{
    chip->irr = chip->lines & chip->elcr;
    chip->isr = 0;
    chip->imr = 0;
    chip->highest = 0;
    chip->step = PIC_ICW2;
    chip->single = value & ICW1_SINGLE;
    chip->need_icw4 = value & ICW1_NEED_ICW4;
    chip->auto_eoi = false;
    chip->special_nested = false;
    chip->special_mask = false;
    chip->rotate_on_auto_eoi = false;
    chip->read_isr = false;
    chip->poll = false;
}

static void pic_finish(struct pic_chip *chip, uint8_t bit, bool rotate)
{
    unsigned input;

    if (!bit)
        return;
    input = (unsigned)__builtin_ctz(bit);
    chip->isr &= (uint8_t)~bit;
    if (rotate)
        chip->highest = (input + 1) & 7;
}

/* What a non-specific EOI ends: the highest in service, without masked ones in special mask mode.
 */
static uint8_t pic_serving_bit(const struct pic_chip *chip)
{
    uint8_t serving = chip->special_mask ? chip->isr & (uint8_t)~chip->imr : chip->isr;

    if (!serving)
        return 0;
    return (uint8_t)(1u << pic_input(chip, pic_first(chip, serving)));
}

static void pic_ocw2(struct pic_chip *chip, uint8_t value)
{
    uint8_t named = (uint8_t)(1u << (value & 7));

    switch (value >> 5) {
    case 0: /* rotate in automatic EOI mode: clear */
        chip->rotate_on_auto_eoi = false;
        break;
    case 4:
        chip->rotate_on_auto_eoi = true;
        break;
    case 1: /* non-specific EOI; 5: and rotate */
    case 5:
        pic_finish(chip, pic_serving_bit(chip), value >> 5 == 5);
        break;
    case 3: /* specific EOI; 7: and rotate */
    case 7:
        pic_finish(chip, named, value >> 5 == 7);
        break;
    case 6: /* set priority: the named input becomes the lowest */
        chip->highest = (value + 1) & 7;
        break;
    default: /* 2: no operation */
        break;
    }
}

static void pic_ocw3(struct pic_chip *chip, uint8_t value)
{
    if (value & OCW3_POLL)
        chip->poll = true;
    if (value & 0x02)
        chip->read_isr = value & 0x01;
    if (value & 0x40)
        chip->special_mask = value & 0x20;
}

static void pic_write_even(struct pic_chip *chip, uint8_t value)
{
    if (value & ICW1_INIT)
        pic_icw1(chip, value);
    else if (value & OCW3_SELECT)
        pic_ocw3(chip, value);
    else
        pic_ocw2(chip, value);
}

static void pic_icw4(struct pic_chip *chip, uint8_t value)
{
    chip->auto_eoi = value & ICW4_AUTO_EOI;
    chip->special_nested = value & ICW4_SPECIAL_NESTED;
    chip->step = PIC_READY;
}

static void pic_write_odd(struct pic_chip *chip, uint8_t value)
{
    uint8_t after_icw3 = chip->need_icw4 ? PIC_ICW4 : PIC_READY;

    switch ((enum pic_step)chip->step) {
    case PIC_ICW2:
        chip->base = value & 0xf8;
        chip->step = chip->single ? after_icw3 : PIC_ICW3;
        break;
    case PIC_ICW3:
        chip->step = after_icw3;
        break;
    case PIC_ICW4:
        pic_icw4(chip, value);
        break;
    default:
        chip->imr = value;
        break;
    }
}

/* The read after a poll command: bit 7 says whether there was a request. */
static uint8_t pic_poll(struct pic_chip *chip, bool master)
{
    int input = pic_request(chip, master);

    chip->poll = false;
    if (input < 0)
        return 0;
    pic_chip_acknowledge(chip, (unsigned)input);
    return (uint8_t)(0x80 | input);
}

/* ---- ports ---- */

static uint64_t pic_read(struct pic *s, unsigned number, uint64_t offset)
{
    struct pic_chip *chip = &s->chip[number];
    uint8_t value;

    host_mutex_lock(&s->lock);
    if (chip->poll) {
        value = pic_poll(chip, number == 0);
        pic_update_locked(s);
    } else if (offset) {
        value = chip->imr;
    } else {
        value = chip->read_isr ? chip->isr : chip->irr;
    }
    host_mutex_unlock(&s->lock);
    return value;
}

static void pic_write(struct pic *s, unsigned number, uint64_t offset, uint8_t value)
{
    host_mutex_lock(&s->lock);
    if (offset)
        pic_write_odd(&s->chip[number], value);
    else
        pic_write_even(&s->chip[number], value);
    pic_update_locked(s);
    host_mutex_unlock(&s->lock);
}

static uint64_t pic_master_read(struct device *dev, uint64_t offset, unsigned size)
{
    return pic_read(pic_of(dev), 0, offset);
}

static void pic_master_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    pic_write(pic_of(dev), 0, offset, (uint8_t)value);
}

static uint64_t pic_slave_read(struct device *dev, uint64_t offset, unsigned size)
{
    return pic_read(pic_of(dev), 1, offset);
}

static void pic_slave_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    pic_write(pic_of(dev), 1, offset, (uint8_t)value);
}

static uint64_t pic_elcr_read(struct device *dev, uint64_t offset, unsigned size)
{
    return pic_of(dev)->chip[offset & 1].elcr;
}

static void pic_elcr_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    /* The timer, keyboard, cascade, clock and coprocessor inputs are always edge-triggered. */
    static const uint8_t writable[2] = {0xf8, 0xde};
    struct pic *s = pic_of(dev);
    struct pic_chip *chip = &s->chip[offset & 1];

    host_mutex_lock(&s->lock);
    chip->elcr = (uint8_t)value & writable[offset & 1];
    chip->irr = (chip->irr & (uint8_t)~chip->elcr) | (chip->lines & chip->elcr);
    pic_update_locked(s);
    host_mutex_unlock(&s->lock);
}

static const struct region_ops pic_master_ports = {
    .name = "pic-master",
    .read = pic_master_read,
    .write = pic_master_write,
    .min_size = 1,
    .max_size = 1,
};

static const struct region_ops pic_slave_ports = {
    .name = "pic-slave",
    .read = pic_slave_read,
    .write = pic_slave_write,
    .min_size = 1,
    .max_size = 1,
};

static const struct region_ops pic_elcr_ports = {
    .name = "pic-elcr",
    .read = pic_elcr_read,
    .write = pic_elcr_write,
    .min_size = 1,
    .max_size = 1,
};

/* ---- class ---- */

static int pic_attach(struct device *dev, struct error *err)
{
    struct pic *s = pic_of(dev);
    int status;

    host_mutex_init(&s->lock);
    status = device_map_ports(dev, 0x20, 2, &pic_master_ports, err);
    if (!status)
        status = device_map_ports(dev, 0xa0, 2, &pic_slave_ports, err);
    if (!status)
        status = device_map_ports(dev, 0x4d0, 2, &pic_elcr_ports, err);
    if (!status)
        machine_set_pic(dev->machine, pic_acknowledge, s);
    return status;
}

static void pic_detach(struct device *dev)
{
    machine_set_pic(dev->machine, NULL, NULL);
    host_mutex_done(&pic_of(dev)->lock);
}

/* Power-on: nothing is requested before the guest has initialised the chips. */
static void pic_reset(struct device *dev)
{
    struct pic *s = pic_of(dev);

    host_mutex_lock(&s->lock);
    for (unsigned i = 0; i < 2; i++)
        s->chip[i] = (struct pic_chip){.imr = 0xff, .base = i ? 0x70 : 0x08};
    s->lost_ticks = 0;
    host_mutex_unlock(&s->lock);
}

static void pic_reset_done(struct device *dev)
{
    struct pic *s = pic_of(dev);

    host_mutex_lock(&s->lock);
    irq_set(&s->intr, false);
    host_mutex_unlock(&s->lock);
}

static const struct state_field pic_chip_state[] = {
    STATE_U8(struct pic_chip, lines),
    STATE_U8(struct pic_chip, irr),
    STATE_U8(struct pic_chip, isr),
    STATE_U8(struct pic_chip, imr),
    STATE_U8(struct pic_chip, elcr),
    STATE_U8(struct pic_chip, base),
    STATE_U8_MAX(struct pic_chip, highest, 7),
    STATE_U8_MAX(struct pic_chip, step, PIC_STEP_COUNT - 1),
    STATE_BOOL(struct pic_chip, single),
    STATE_BOOL(struct pic_chip, need_icw4),
    STATE_BOOL(struct pic_chip, auto_eoi),
    STATE_BOOL(struct pic_chip, special_nested),
    STATE_BOOL(struct pic_chip, special_mask),
    STATE_BOOL(struct pic_chip, rotate_on_auto_eoi),
    STATE_BOOL(struct pic_chip, read_isr),
    STATE_BOOL(struct pic_chip, poll),
    STATE_END,
};

static const struct state_field pic_state[] = {
    STATE_STRUCTS(struct pic, chip, pic_chip_state),
    STATE_U16(struct pic, lost_ticks),
    STATE_LINE(struct pic, intr),
    STATE_END,
};

static const struct device_output pic_outputs[] = {
    DEVICE_OUTPUT(struct pic, intr),
    DEVICE_OUTPUT_END,
};

const struct device_class pic_class = {
    .name = "pic",
    .summary = "pair of 8259A interrupt controllers",
    .bus = BUS_PLATFORM,
    .instance_size = sizeof(struct pic),
    .outputs = pic_outputs,
    .attach = pic_attach,
    .reset = pic_reset,
    .reset_done = pic_reset_done,
    .detach = pic_detach,
    .state = {.version = 1, .oldest = 1, .fields = pic_state},
};
