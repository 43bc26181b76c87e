/*
 * controller.c - Intel HD Audio controller (ICH6, 8086:2668): registers, commands, interrupts
 *
 * HD Audio 1.0a, chapters 3 and 4: four input and four output streams, CORB and RIRB of 256
 * entries, immediate commands, position buffer, MSI. One codec (codec.c) at address 0.
 *
 * Left out: stream synchronisation and striping bits are kept and have no effect; FIFO errors do
 * not occur; power management.
 *
 * Theory of operation. Registers are doublewords with a mask of the bits that the guest can write
 * and one of those that it clears with ones; what a write causes is done afterwards. Commands of
 * the CORB are executed at once, and their responses are in memory when the write has ended. The
 * interrupt line is a function of the registers.
 *
 * Threads: machine lock. Guest memory: CORB, RIRB, position buffer, buffer lists and buffers, while
 * the function is a bus master.
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/devices.h"
#include "devices/hda/hda.h"

#define BAR_BYTES       0x4000u
#define ALIASES         0x2000u /* registers are there once more, read only */

#define GCAP            0x4401u     /* streams, 64-bit addresses */
#define GCTL_RUNS       0x01u       /* CRST */
#define CODEC_PRESENT   0x00010000u /* in HDA_WAKE: STATESTS */
#define GIE             0x80000000u
#define CIE             0x40000000u
#define RING_ENTRIES    256u
#define RING_SIZES      0x00420000u /* only that */
#define CORB_RUNS       0x02u
#define CORB_RESET      0x80000000u /* in HDA_CORBPTR */
#define RIRB_INTERRUPTS 0x01u
#define RIRB_RUNS       0x02u
#define RIRB_RESPONSE   0x0100u /* RIRBSTS in HDA_RIRBCTL */
#define RIRB_RESET      0x8000u /* in HDA_RIRBPTR */
#define IMMEDIATE_BUSY  0x01u
#define IMMEDIATE_VALID 0x02u
#define WALL_MHZ        24u
#define SD_RESET        0x01u

static struct hda *hda_of(struct device *dev)
{
    return container_of(pci_function_of(dev), struct hda, function);
}

/* ---- what a guest can write ---- */

struct mask {
    uint32_t writable, clearable;
};

static const struct mask global_masks[HDA_STREAM0] = {
    [HDA_GCTL] = {0x103, 0},
    [HDA_WAKE] = {0x7fff, 0x7fff0000},
    [HDA_GSTS] = {0, 0x2},
    [HDA_INTCTL] = {0xc00000ff, 0},
    [HDA_SSYNC] = {0xff, 0},
    [HDA_CORBBASE] = {0xffffff80, 0},
    [HDA_CORBBASE + 1] = {0xffffffff, 0},
    [HDA_CORBPTR] = {0x800000ff, 0},
    [HDA_CORBCTL] = {0x3, 0x100},
    [HDA_RIRBBASE] = {0xffffff80, 0},
    [HDA_RIRBBASE + 1] = {0xffffffff, 0},
    [HDA_RIRBPTR] = {0x00ff0000, 0},
    [HDA_RIRBCTL] = {0x7, 0x500},
    [HDA_ICOI] = {0xffffffff, 0},
    [HDA_ICIS] = {IMMEDIATE_BUSY, IMMEDIATE_VALID},
    [HDA_DPBASE] = {0xffffff81, 0},
    [HDA_DPBASE + 1] = {0xffffffff, 0},
};

static const struct mask stream_masks[HDA_STREAM_WORDS] = {
    [HDA_SD_CTL] = {0x00ff001f, HDA_SD_COMPLETE | HDA_SD_FIFO | HDA_SD_ERROR},
    [HDA_SD_CBL] = {0xffffffff, 0},
    [HDA_SD_LVI] = {0xff, 0},
    [HDA_SD_FORMAT] = {0x7f7f0000, 0},
    [HDA_SD_BDL] = {0xffffff80, 0},
    [HDA_SD_BDL + 1] = {0xffffffff, 0},
};

static struct mask mask_of(unsigned reg)
{
    return reg < HDA_STREAM0 ? global_masks[reg]
                             : stream_masks[(reg - HDA_STREAM0) % HDA_STREAM_WORDS];
}

/* ---- interrupts ---- */

static uint32_t interrupt_status(const struct hda *s)
{
    const uint32_t *regs = s->regs;
    uint32_t status = 0;

    for (unsigned n = 0; n < HDA_STREAMS; n++) {
        uint32_t control = regs[HDA_STREAM0 + n * HDA_STREAM_WORDS + HDA_SD_CTL];

        /* Each status bit is 24 bits above its enable bit. */
        if (control >> 24 & control & (HDA_SD_IOCE | HDA_SD_FEIE | HDA_SD_DEIE))
            status |= 1u << n;
    }
    if ((regs[HDA_RIRBCTL] & RIRB_RESPONSE && regs[HDA_RIRBCTL] & RIRB_INTERRUPTS) ||
        regs[HDA_WAKE] >> 16 & regs[HDA_WAKE] & 0x7fff)
        status |= CIE;
    if (status & regs[HDA_INTCTL])
        status |= GIE;
    return status;
}

void hda_update_line(struct hda *s)
{
    bool level = interrupt_status(s) & s->regs[HDA_INTCTL] & GIE;

    if (pci_uses_messages(&s->function)) {
        if (level && !s->function.intx_level)
            pci_notify(&s->function, 0);
    }
    pci_set_intx(&s->function, level);
}

/* ---- commands ---- */

/* Response and codec address, behind the one before. */
static void respond(struct hda *s, uint32_t response)
{
    uint32_t *pointer = &s->regs[HDA_RIRBPTR];
    uint64_t base = (uint64_t)s->regs[HDA_RIRBBASE + 1] << 32 | s->regs[HDA_RIRBBASE];
    unsigned at = ((*pointer & 0xff) + 1) % RING_ENTRIES;
    uint8_t bytes[8] = {0};

    put_le32(bytes, response);
    memory_write(device_memory(&s->function.dev), base + at * 8u, bytes, sizeof(bytes));
    *pointer = (*pointer & ~0xffu) | at;
    s->responses++;
}

static void run_corb(struct hda *s)
{
    uint32_t *pointers = &s->regs[HDA_CORBPTR];
    uint64_t base = (uint64_t)s->regs[HDA_CORBBASE + 1] << 32 | s->regs[HDA_CORBBASE];

    if (!(s->regs[HDA_CORBCTL] & CORB_RUNS) || *pointers & CORB_RESET ||
        !pci_is_master(&s->function))
        return;
    while ((*pointers >> 16 & 0xff) != (*pointers & 0xff)) {
        unsigned at = ((*pointers >> 16 & 0xff) + 1) % RING_ENTRIES;
        uint8_t bytes[4] = {0};
        uint32_t verb, response;

        memory_read(device_memory(&s->function.dev), base + at * 4u, bytes, sizeof(bytes));
        verb = get_le32(bytes);
        *pointers = (*pointers & ~0x00ff0000u) | at << 16;
        if (verb >> 28) /* no codec there */
            continue;
        response = hda_codec_execute(s, verb);
        if (s->regs[HDA_RIRBCTL] & RIRB_RUNS)
            respond(s, response);
    }
    if (s->responses) /* enough of them, or there are no more commands */
        s->regs[HDA_RIRBCTL] |= RIRB_RESPONSE;
    s->responses = 0;
}

static void run_immediate(struct hda *s)
{
    uint32_t verb = s->regs[HDA_ICOI];

    if (!(s->regs[HDA_ICIS] & IMMEDIATE_BUSY))
        return;
    s->regs[HDA_ICIS] &= ~IMMEDIATE_BUSY;
    if (verb >> 28) /* no codec there */
        return;
    s->regs[HDA_ICII] = hda_codec_execute(s, verb);
    s->regs[HDA_ICIS] |= IMMEDIATE_VALID;
}

/* ---- reset ---- */

/* STATESTS is kept: it is of the resume well (3.3.9). */
static void reset_controller(struct hda *s)
{
    uint32_t wake = s->regs[HDA_WAKE] & 0x7fff0000;

    for (unsigned n = 0; n < HDA_STREAMS; n++)
        hda_reset_stream(s, n);
    memset(s->regs, 0, sizeof(s->regs));
    s->regs[HDA_GCAP] = GCAP | 1u << 24; /* version 1.0 */
    s->regs[HDA_PAYLOAD] = 0x001d003c;
    s->regs[HDA_WAKE] = wake;
    s->regs[HDA_CORBCTL] = s->regs[HDA_RIRBCTL] = RING_SIZES;
    for (unsigned n = 0; n < HDA_STREAMS; n++)
        hda_sd(s, n)[HDA_SD_FORMAT] = 0xff; /* bytes of FIFO */
    s->responses = 0;
    s->reset_ns = 0;
    timer_cancel(&s->timer);
}

static void leave_reset(struct hda *s)
{
    s->regs[HDA_WAKE] |= CODEC_PRESENT;
    s->reset_ns = device_now_ns(&s->function.dev);
    hda_codec_reset(s);
}

/* ---- registers ---- */

static uint32_t read_register(struct hda *s, unsigned reg)
{
    switch (reg) {
    case HDA_INTSTS:
        return interrupt_status(s);
    case HDA_WALCLK:
        return s->regs[HDA_GCTL] & GCTL_RUNS
                   ? (uint32_t)((device_now_ns(&s->function.dev) - s->reset_ns) * WALL_MHZ / 1000)
                   : 0;
    default:
        return s->regs[reg];
    }
}

static void stream_control_written(struct hda *s, unsigned stream, uint32_t old)
{
    uint32_t *sd = hda_sd(s, stream);

    if (sd[HDA_SD_CTL] & SD_RESET) {
        hda_reset_stream(s, stream);
        sd[HDA_SD_CTL] = SD_RESET;
        sd[HDA_SD_FORMAT] = 0xff;
    } else if (sd[HDA_SD_CTL] & ~old & HDA_SD_RUN) {
        hda_start_stream(s, stream);
    } else if (old & ~sd[HDA_SD_CTL] & HDA_SD_RUN) {
        hda_stop_stream(s, stream);
    }
}

static void written(struct hda *s, unsigned reg, uint32_t old)
{
    if (reg >= HDA_STREAM0) {
        if ((reg - HDA_STREAM0) % HDA_STREAM_WORDS == HDA_SD_CTL)
            stream_control_written(s, (reg - HDA_STREAM0) / HDA_STREAM_WORDS, old);
        return;
    }
    switch (reg) {
    case HDA_GCTL:
        if (old & ~s->regs[reg] & GCTL_RUNS)
            reset_controller(s);
        else if (s->regs[reg] & ~old & GCTL_RUNS)
            leave_reset(s);
        if (s->regs[reg] & 0x2) { /* flush: done at once */
            s->regs[reg] &= ~0x2u;
            s->regs[HDA_GSTS] |= 0x2;
        }
        break;
    case HDA_CORBPTR:
        if (s->regs[reg] & CORB_RESET)
            s->regs[reg] &= 0xff | CORB_RESET;
        run_corb(s);
        break;
    case HDA_CORBCTL:
    case HDA_RIRBCTL:
        run_corb(s);
        break;
    case HDA_ICIS:
        run_immediate(s);
        break;
    default:
        break;
    }
}

/* Any size: the part of a doubleword that it is. */
static uint64_t hda_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct hda *s = hda_of(dev);
    uint32_t value;

    if (offset >= ALIASES)
        offset -= ALIASES;
    if (offset / 4 >= HDA_REGISTERS)
        return 0;
    hda_run_streams(s);
    value = read_register(s, (unsigned)offset / 4);
    return value >> offset % 4 * 8 & (size == 4 ? UINT32_MAX : (1u << 8 * size) - 1);
}

static void hda_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct hda *s = hda_of(dev);
    unsigned reg = (unsigned)(offset / 4), shift = offset % 4 * 8;
    uint32_t bits = (size == 4 ? UINT32_MAX : (1u << 8 * size) - 1) << shift, old;
    uint32_t word = (uint32_t)value << shift & bits;
    struct mask mask;

    if (reg >= HDA_REGISTERS || (reg != HDA_GCTL && !(s->regs[HDA_GCTL] & GCTL_RUNS)))
        return;
    hda_run_streams(s);
    mask = mask_of(reg);
    old = s->regs[reg];
    s->regs[reg] = (old & ~(mask.writable & bits)) | (word & mask.writable);
    s->regs[reg] &= ~(word & mask.clearable);
    if (reg == HDA_RIRBPTR && word & RIRB_RESET)
        s->regs[reg] &= ~0xffu;
    written(s, reg, old);
    hda_run_streams(s);
}

static const struct region_ops hda_ops = {
    .name = "hda",
    .read = hda_read,
    .write = hda_write,
    .min_size = 1,
    .max_size = 4,
};

/* ---- class ---- */

static void fire(void *opaque)
{
    hda_run_streams(opaque);
}

static const struct pci_function_desc hda_desc = {
    .vendor_id = 0x8086,
    .device_id = 0x2668,
    .subsystem_vendor_id = 0x8086,
    .subsystem_id = 0x2668,
    .class_code = 0x040300,
    .revision = 1,
    .interrupt_pin = 1,
    .bar = {{.kind = PCI_BAR_MEMORY32, .size_bytes = BAR_BYTES, .ops = &hda_ops}},
    .msi_vectors = 1,
};

static int hda_attach(struct device *dev, struct error *err)
{
    struct hda *s = hda_of(dev);

    timer_init(&s->timer, device_clocks(dev), CLOCK_ID_VIRTUAL, fire, s);
    return pci_attach(&s->function, &hda_desc, err);
}

static void hda_detach(struct device *dev)
{
    struct hda *s = hda_of(dev);

    for (unsigned n = 0; n < HDA_STREAMS; n++)
        audio_stop(&s->streams[n].voice);
    timer_done(&s->timer);
    pci_detach(&s->function);
}

static void hda_reset(struct device *dev)
{
    struct hda *s = hda_of(dev);

    s->regs[HDA_WAKE] = 0;
    reset_controller(s);
    hda_codec_reset(s);
}

/* What cannot be written is as after a reset. */
static int hda_after_load(void *object, struct error *err)
{
    struct hda *s = object;

    for (unsigned n = 0; n < HDA_CONVERTERS; n++)
        for (unsigned side = 0; side < 2; side++)
            if ((s->converters[n].gain[side] & 0x7f) > 0x4a)
                return error_set(err, EINVAL, "there is no such gain");
    if (hda_check_streams(s, err))
        return -EINVAL;
    s->function.intx_level = interrupt_status(s) & s->regs[HDA_INTCTL] & GIE;
    return pci_after_load(&s->function, err);
}

static const struct property hda_properties[] = {
    PCI_PROPERTIES(struct hda, function),
    PROPERTY_POINTER(struct hda, audio, "where it sounds"),
    PROPERTY_END,
};

static const struct state_field stream_state[] = {
    STATE_U8(struct hda_stream, entry),
    STATE_U32(struct hda_stream, entry_at),
    STATE_U64(struct hda_stream, start_ns),
    STATE_U64(struct hda_stream, done),
    STATE_END,
};

static const struct state_field converter_state[] = {
    STATE_U16(struct hda_converter, format),
    STATE_U8(struct hda_converter, stream),
    STATE_U8S(struct hda_converter, gain),
    STATE_U8_MAX(struct hda_converter, power, 3),
    STATE_END,
};

static const struct state_field hda_state[] = {
    PCI_STATE(struct hda, function),
    STATE_U32S(struct hda, regs),
    STATE_STRUCTS(struct hda, streams, stream_state),
    STATE_U16(struct hda, responses),
    STATE_U64(struct hda, reset_ns),
    STATE_STRUCTS(struct hda, converters, converter_state),
    STATE_BYTES(struct hda, pin_control),
    STATE_U8_MAX(struct hda, group_power, 3),
    STATE_TIMER(struct hda, timer),
    STATE_END,
};

const struct device_class hda_class = {
    .name = "hda",
    .summary = "Intel HD Audio: a sound card with line out and line in",
    .bus = BUS_PCI,
    .instance_size = sizeof(struct hda),
    .properties = hda_properties,
    .attach = hda_attach,
    .reset = hda_reset,
    .detach = hda_detach,
    .state = {.version = 1, .oldest = 1, .fields = hda_state, .after_load = hda_after_load},
};
