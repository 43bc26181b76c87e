/*
 * controller.c - the floppy controller as a device: registers, phases of commands, interrupts
 *
 * After Intel's 82077AA data sheet (290166), in AT mode: ports 0x3f0-0x3f5 and 0x3f7, interrupt and
 * DMA request through the gate in the digital output register. Commands are in command.c.
 *
 * Left out: scan commands, which answer as invalid; 128-byte to 16-KiB sectors and FM recording, of
 * which no disk here has any; tape drives, power-down; motors, which need no time and are not asked
 * for. Time is what drivers have to see: seeks and resets end SETTLE_NS later, so that a driver
 * that begins to wait after the last byte of a command is still in time.
 *
 * Theory of operation. A command is collected byte by byte, executed, and leaves its results in a
 * list that the guest reads. MSR is made of that. Two kinds of interrupts exist: of a result
 * phase, which ends when its first byte is read, and of seeks and resets, which SENSE INTERRUPT
 * STATUS asks for. A disk's request is never under way while the machine is paused: the stage of
 * the command says what to begin again.
 *
 * Threads: machine lock. Guest memory: through the DMA channel only.
 */
#include <errno.h>

#include "devices/floppy/floppy.h"

#define SETTLE_NS      500000u

#define REG_SRA        0
#define REG_SRB        1
#define REG_DOR        2
#define REG_TDR        3
#define REG_MSR        4 /* written: data rate select */
#define REG_FIFO       5

#define DOR_SELECT     0x03u
#define DOR_RUNS       0x04u /* 0: reset */

#define MSR_BUSY       0x10u
#define MSR_NON_DMA    0x20u
#define MSR_TO_CPU     0x40u
#define MSR_READY      0x80u

#define DSR_RESET      0x80u
#define DSR_RATE       0x03u
#define DSR_POWER_ON   0x02u /* 250 kbit/s */

#define DIR_CHANGED    0x80u
#define CONFIG_NO_POLL 0x10u
#define RESET_STATUS   0xc0u /* ready changed, as polling finds after a reset */

/* ---- interrupts ---- */

void floppy_interrupt(struct floppy_controller *s, bool level)
{
    s->interrupt = level;
    irq_set(&s->irq, level && s->dor & FLOPPY_DOR_GATE);
}

static bool runs(const struct floppy_controller *s)
{
    return s->dor & DOR_RUNS;
}

/* Seeks have ended, or drives were polled after a reset. */
static void settled(void *opaque)
{
    struct floppy_controller *s = opaque;

    for (unsigned n = 0; n < 4; n++)
        s->seek_ended[n] |= s->seeking >> n & 1;
    floppy_interrupt(s, true);
}

static void settle(struct floppy_controller *s)
{
    timer_arm(&s->timer, device_now_ns(&s->dev) + SETTLE_NS);
}

/* ---- reset ---- */

/* All but what LOCK keeps and the registers. */
static void stop(struct floppy_controller *s)
{
    floppy_forget(s);
    s->phase = FLOPPY_COMMAND;
    s->param_count = s->result_count = s->result_at = 0;
    s->seeking = s->reset_senses = 0;
    for (unsigned n = 0; n < 4; n++) {
        s->seek_ended[n] = false;
        s->cylinder[n] = 0;
    }
    floppy_reset_commands(s, false);
    timer_cancel(&s->timer);
    floppy_interrupt(s, false);
}

/* The reset has gone: drives are polled. */
static void wake(struct floppy_controller *s)
{
    if (s->config & CONFIG_NO_POLL)
        return;
    s->reset_senses = 4;
    settle(s);
}

/* ---- commands ---- */

static unsigned command_code(const struct floppy_controller *s)
{
    return s->command & 0x1f;
}

/* SENSE INTERRUPT STATUS; without an interrupt it is invalid. */
static void sense_interrupt(struct floppy_controller *s)
{
    s->result_count = 2;
    if (s->reset_senses && !timer_is_armed(&s->timer)) {
        unsigned n = 4u - s->reset_senses--;

        s->results[0] = (uint8_t)(RESET_STATUS | n);
        s->results[1] = s->cylinder[n];
        floppy_interrupt(s, false);
        return;
    }
    floppy_interrupt(s, false);
    for (unsigned n = 0; n < 4; n++) {
        if (!s->seek_ended[n])
            continue;
        s->seek_ended[n] = false;
        s->seeking &= (uint8_t) ~(1u << n);
        s->results[0] = s->seek_status[n];
        s->results[1] = s->cylinder[n];
        for (n++; n < 4; n++)
            if (s->seek_ended[n])
                floppy_interrupt(s, true);
        return;
    }
    s->results[0] = 0x80;
    s->result_count = 1;
}

static void command_complete(struct floppy_controller *s)
{
    uint8_t seeking = s->seeking;

    if (command_code(s) == 0x08)
        sense_interrupt(s);
    else
        floppy_execute(s);
    if (s->seeking & ~seeking)
        settle(s);
    if (s->phase == FLOPPY_COMMAND)
        floppy_begin_results(s);
}

static void take_byte(struct floppy_controller *s, uint8_t value)
{
    if (!s->param_count)
        s->command = value;
    else
        s->params[s->param_count - 1] = value;
    s->result_count = 0;
    if (s->param_count++ >= floppy_param_count(s->command))
        command_complete(s);
}

static uint8_t give_result(struct floppy_controller *s)
{
    uint8_t value = s->results[s->result_at++];

    if (s->result_at == 1 && command_code(s) != 0x08)
        floppy_interrupt(s, false);
    if (s->result_at == s->result_count) {
        s->result_count = s->result_at = 0;
        s->phase = FLOPPY_COMMAND;
    }
    return value;
}

/* ---- ports ---- */

/* The guest moves data itself, and there is some. */
static bool is_offering(const struct floppy_controller *s)
{
    return s->phase == FLOPPY_EXECUTING && s->stage == FLOPPY_MOVING && !floppy_uses_dma(s);
}

static uint8_t main_status(const struct floppy_controller *s)
{
    uint8_t value = s->seeking;

    if (!runs(s))
        return 0;
    if (s->phase == FLOPPY_RESULT)
        return value | MSR_READY | MSR_TO_CPU | MSR_BUSY;
    if (is_offering(s))
        return value | MSR_READY | MSR_NON_DMA | MSR_BUSY | (floppy_is_write(s) ? 0 : MSR_TO_CPU);
    if (s->phase == FLOPPY_EXECUTING)
        return value | MSR_BUSY | (floppy_uses_dma(s) ? 0 : MSR_NON_DMA);
    return value | MSR_READY | (s->param_count ? MSR_BUSY : 0);
}

static uint8_t read_fifo(struct floppy_controller *s)
{
    if (!runs(s))
        return 0;
    if (s->phase == FLOPPY_RESULT)
        return give_result(s);
    return is_offering(s) && !floppy_is_write(s) ? floppy_take_byte(s) : 0;
}

static void write_fifo(struct floppy_controller *s, uint8_t value)
{
    if (!runs(s))
        return;
    if (s->phase == FLOPPY_COMMAND)
        take_byte(s, value);
    else if (is_offering(s) && floppy_is_write(s))
        floppy_give_byte(s, value);
}

static void write_dor(struct floppy_controller *s, uint8_t value)
{
    bool ran = runs(s);

    s->dor = value;
    if (ran && !runs(s))
        stop(s);
    else if (!ran && runs(s))
        wake(s);
    floppy_interrupt(s, s->interrupt);
    floppy_offer(s);
}

/* Bit 7 resets, and lets go by itself. */
static void write_dsr(struct floppy_controller *s, uint8_t value)
{
    s->dsr = value & (uint8_t)~DSR_RESET;
    if (!(value & DSR_RESET) || !runs(s))
        return;
    stop(s);
    wake(s);
}

static uint64_t floppy_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct floppy_controller *s = floppy_of(dev);

    (void)size;
    switch (offset) {
    case REG_DOR:
        return s->dor;
    case REG_TDR:
        return s->tdr | 0xfc;
    case REG_MSR:
        return main_status(s);
    case REG_FIFO:
        return read_fifo(s);
    default:
        return 0xff; /* PS/2's status registers */
    }
}

static void floppy_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct floppy_controller *s = floppy_of(dev);

    (void)size;
    switch (offset) {
    case REG_DOR:
        write_dor(s, (uint8_t)value);
        break;
    case REG_TDR:
        s->tdr = value & 3;
        break;
    case REG_MSR:
        write_dsr(s, (uint8_t)value);
        break;
    case REG_FIFO:
        write_fifo(s, (uint8_t)value);
        break;
    default:
        break;
    }
}

/* Digital input: has the disk of the selected drive been changed? */
static uint64_t floppy_read_dir(struct device *dev, uint64_t offset, unsigned size)
{
    const struct floppy_controller *s = floppy_of(dev);
    unsigned unit = s->dor & DOR_SELECT;

    (void)offset;
    (void)size;
    return unit < FLOPPY_DRIVES && s->drives[unit] && s->drives[unit]->changed ? DIR_CHANGED : 0;
}

/* Configuration control: the data rate once more. */
static void floppy_write_ccr(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct floppy_controller *s = floppy_of(dev);

    (void)offset;
    (void)size;
    s->dsr = (uint8_t)((s->dsr & ~DSR_RATE) | (value & DSR_RATE));
}

static const struct region_ops floppy_ports = {
    .name = "floppy",
    .read = floppy_read,
    .write = floppy_write,
    .min_size = 1,
    .max_size = 1,
};

static const struct region_ops floppy_change_port = {
    .name = "floppy-change",
    .read = floppy_read_dir,
    .write = floppy_write_ccr,
    .min_size = 1,
    .max_size = 1,
};

/* ---- drives ---- */

int floppy_connect(struct device *controller, struct floppy_drive *drive, struct error *err)
{
    struct floppy_controller *s = floppy_of(controller);

    for (uint8_t n = 0; n < FLOPPY_DRIVES; n++)
        if (!s->drives[n]) {
            s->drives[n] = drive;
            drive->unit = n;
            return 0;
        }
    return error_set(err, ENOSPC, "%s: two floppy drives are there already", drive->dev.id);
}

void floppy_disconnect(struct device *controller, struct floppy_drive *drive)
{
    struct floppy_controller *s = floppy_of(controller);

    if (s->drives[drive->unit] != drive)
        return;
    floppy_forget(s);
    s->drives[drive->unit] = NULL;
}

bool floppy_is_full(const struct device *controller)
{
    const struct floppy_controller *s =
        container_of(controller, const struct floppy_controller, dev);

    return s->drives[0] && s->drives[1];
}

void floppy_disk_goes(struct device *controller, struct floppy_drive *drive)
{
    struct floppy_controller *s = floppy_of(controller);

    if (s->stage == FLOPPY_IDLE || (s->params[0] & DOR_SELECT) != drive->unit)
        return;
    floppy_forget(s);
    floppy_fail(s, 0x01, 0); /* its marks are missing */
}

/* ---- class ---- */

static int floppy_attach(struct device *dev, struct error *err)
{
    struct floppy_controller *s = floppy_of(dev);
    int status;

    timer_init(&s->timer, device_clocks(dev), CLOCK_ID_VIRTUAL, settled, s);
    if (!s->dma)
        return error_set(err, EINVAL, "%s: it has no DMA; use --floppy FILE", dev->id);
    status = isa_dma_connect(s->dma, FLOPPY_DMA_CHANNEL, floppy_dma_ready, s, err);
    if (!status)
        status = device_map_ports(dev, 0x3f0, 6, &floppy_ports, err);
    if (!status)
        status = device_map_ports(dev, 0x3f7, 1, &floppy_change_port, err);
    return status;
}

static void floppy_detach(struct device *dev)
{
    struct floppy_controller *s = floppy_of(dev);

    floppy_forget(s);
    timer_done(&s->timer);
}

static void floppy_reset(struct device *dev)
{
    struct floppy_controller *s = floppy_of(dev);

    floppy_forget(s);
    s->dor = s->tdr = 0;
    s->dsr = DSR_POWER_ON;
    s->phase = FLOPPY_COMMAND;
    s->command = s->param_count = s->result_count = s->result_at = 0;
    s->seeking = s->reset_senses = 0;
    for (unsigned n = 0; n < 4; n++) {
        s->cylinder[n] = s->seek_status[n] = 0;
        s->seek_ended[n] = false;
    }
    s->interrupt = false;
    floppy_reset_commands(s, true);
    timer_cancel(&s->timer);
}

static void floppy_reset_done(struct device *dev)
{
    irq_set(&floppy_of(dev)->irq, false);
}

static void floppy_resumed(struct device *dev)
{
    floppy_resume(floppy_of(dev));
}

static int floppy_after_load(void *object, struct error *err)
{
    const struct floppy_controller *s = object;
    const struct floppy_drive *drive =
        (s->params[0] & DOR_SELECT) < FLOPPY_DRIVES ? s->drives[s->params[0] & DOR_SELECT] : NULL;
    bool executes = s->phase == FLOPPY_EXECUTING;

    if (executes != (s->stage != FLOPPY_IDLE) || (executes && !(drive && drive->drive)))
        return error_set(err, EINVAL, "it does what it cannot do");
    if (s->phase == FLOPPY_COMMAND && s->param_count &&
        s->param_count > floppy_param_count(s->command))
        return error_set(err, EINVAL, "a command has more bytes than it can have");
    if (s->result_at > s->result_count || (s->phase == FLOPPY_RESULT) != (s->result_count > 0) ||
        (s->phase == FLOPPY_RESULT && s->result_at == s->result_count))
        return error_set(err, EINVAL, "there are no such results");
    return executes ? floppy_check_transfer(s, err) : 0;
}

static const struct property floppy_properties[] = {
    PROPERTY_POINTER(struct floppy_controller, dma, "DMA controllers"),
    PROPERTY_END,
};

static const struct state_field floppy_state[] = {
    STATE_U8(struct floppy_controller, dor),
    STATE_U8_MAX(struct floppy_controller, tdr, 3),
    STATE_U8_MAX(struct floppy_controller, dsr, 0x7f),
    STATE_U8_MAX(struct floppy_controller, phase, FLOPPY_PHASES - 1),
    STATE_U8(struct floppy_controller, command),
    STATE_BYTES(struct floppy_controller, params),
    STATE_U8_MAX(struct floppy_controller, param_count, FLOPPY_MAX_PARAMS + 1),
    STATE_BYTES(struct floppy_controller, results),
    STATE_U8_MAX(struct floppy_controller, result_count, FLOPPY_MAX_RESULTS),
    STATE_U8_MAX(struct floppy_controller, result_at, FLOPPY_MAX_RESULTS),
    STATE_U8(struct floppy_controller, step_and_unload),
    STATE_U8(struct floppy_controller, load_and_mode),
    STATE_U8(struct floppy_controller, config),
    STATE_U8(struct floppy_controller, precompensation),
    STATE_U8(struct floppy_controller, perpendicular),
    STATE_BOOL(struct floppy_controller, locked),
    STATE_BYTES(struct floppy_controller, cylinder),
    STATE_U8_MAX(struct floppy_controller, seeking, 15),
    STATE_BYTES(struct floppy_controller, seek_status),
    STATE_BOOLS(struct floppy_controller, seek_ended),
    STATE_U8_MAX(struct floppy_controller, reset_senses, 4),
    STATE_BOOL(struct floppy_controller, interrupt),
    STATE_LINE(struct floppy_controller, irq),
    STATE_TIMER(struct floppy_controller, timer),
    STATE_U8_MAX(struct floppy_controller, stage, FLOPPY_STAGES - 1),
    STATE_BYTES(struct floppy_controller, id),
    STATE_U8_MAX(struct floppy_controller, head, 1),
    STATE_BOOL(struct floppy_controller, ended),
    STATE_BOOL(struct floppy_controller, one_by_one),
    STATE_U8(struct floppy_controller, st1),
    STATE_U8(struct floppy_controller, st2),
    STATE_U16_MAX(struct floppy_controller, filled, FLOPPY_TRACK_BYTES),
    STATE_U16_MAX(struct floppy_controller, moved, FLOPPY_TRACK_BYTES),
    STATE_END,
};

static bool needs_buffer(const void *object)
{
    const struct floppy_controller *s = object;

    return s->stage != FLOPPY_IDLE;
}

static const struct state_field buffer_state[] = {
    STATE_BYTES(struct floppy_controller, buffer),
    STATE_END,
};

static const struct state_group floppy_groups[] = {
    {.name = "data", .needed = needs_buffer, .fields = buffer_state},
    {.name = NULL},
};

static const struct device_output floppy_outputs[] = {
    DEVICE_OUTPUT(struct floppy_controller, irq),
    DEVICE_OUTPUT_END,
};

const struct device_class floppy_class = {
    .name = "floppy",
    .summary = "floppy controller (82077AA)",
    .bus = BUS_PLATFORM,
    .instance_size = sizeof(struct floppy_controller),
    .properties = floppy_properties,
    .outputs = floppy_outputs,
    .attach = floppy_attach,
    .reset = floppy_reset,
    .reset_done = floppy_reset_done,
    .resume = floppy_resumed,
    .detach = floppy_detach,
    .state = {.version = 1,
              .oldest = 1,
              .fields = floppy_state,
              .groups = floppy_groups,
              .after_load = floppy_after_load},
};
