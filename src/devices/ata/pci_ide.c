/*
 * pci_ide.c - IDE controller of a PIIX3-like chipset: two channels with two drives each
 *
 * ATA/ATAPI-6 for the registers and how drives share a cable; the Programming Interface for Bus
 * Master IDE Controllers 1.0 for DMA; Intel 82371FB/SB for configuration space. Compatibility mode:
 * ports 1f0h and 3f6h with IRQ 14, 170h and 376h with IRQ 15.
 *
 * Theory of operation. What the guest writes into the task file goes to both drives of a channel;
 * the selected one executes commands and answers. Its INTRQ is the channel's interrupt line unless
 * nIEN is set. A command with DMA waits for the bus master to be started, which hands it the memory
 * of the descriptor table. A table that is too short stops the bus master, and leaves the drive
 * waiting until it is reset, as on hardware.
 *
 * Left out: native mode, timings (the registers only store), and switching channels off.
 *
 * Threads: machine lock held. Guest memory: descriptor tables; data by drives.
 */
#include "devices/ata/pci_ide.h"

#include <string.h>

#include "base/bytes.h"
#include "base/guest_ram.h"
#include "devices/devices.h"
#include "trapeze/irq.h"
#include "trapeze/pci.h"

#define CHANNELS      2u
#define UNITS         2u /* drives of a channel */
#define COMMAND_PORTS 8u
#define BAR_BYTES     16u
#define NO_DRIVE      0x7fu /* bit 7 of the cable is pulled down, so that nobody seems busy */
#define DEVICE_FIXED  0xa0u

enum ide_register {
    REG_DATA = 0,
    REG_ERROR = 1, /* features when written */
    REG_COUNT = 2,
    REG_LBA_LOW = 3,
    REG_LBA_MID = 4,
    REG_LBA_HIGH = 5,
    REG_DEVICE = 6,
    REG_STATUS = 7, /* command when written */
};

enum bm_register { BM_COMMAND = 0, BM_STATUS = 2, BM_TABLE = 4 };

#define BM_START     0x01u
#define BM_TO_MEMORY 0x08u
#define BM_ACTIVE    0x01u
#define BM_ERROR     0x02u
#define BM_INTERRUPT 0x04u
#define BM_CAPABLE   0x60u /* of DMA, device 0 and 1: firmware says so */

#define PRD_BYTES    8u
#define PRD_LAST     0x80000000u
#define PRD_MAX      (65536u / PRD_BYTES) /* a table is within 64 KiB */

static const struct {
    uint16_t command, control;
} ports[CHANNELS] = {{0x1f0, 0x3f6}, {0x170, 0x376}};

struct ide_channel {
    struct ata_port *units; /* configuration */

    /* Guest-visible state. */
    uint8_t device, control; /* registers, as they were written */
    uint8_t bm_command, bm_status;
    uint32_t bm_table;
    bool whole_table; /* is moved */
};

struct pci_ide {
    struct pci_function function;

    struct ata_bus bus; /* configuration */
    struct ata_port places[CHANNELS * UNITS];

    /* Guest-visible state, beside configuration space. */
    struct ide_channel channels[CHANNELS];
    struct irq_line ide[CHANNELS];
};

static struct pci_ide *ide_of(struct device *dev)
{
    return container_of(dev, struct pci_ide, function.dev);
}

static struct ata_drive *unit(const struct ide_channel *c, unsigned number)
{
    return c->units[number].drive;
}

static struct ata_drive *selected(const struct ide_channel *c)
{
    return unit(c, c->device & ATA_DEVICE_1 ? 1 : 0);
}

/* Whose registers are seen: device 0 answers for a device 1 that is not there. */
static struct ata_drive *answering(const struct ide_channel *c)
{
    return selected(c) ? selected(c) : unit(c, 0) ? unit(c, 0) : unit(c, 1);
}

/* ---- interrupts ---- */

static void update_line(struct pci_ide *s, struct ide_channel *c)
{
    struct irq_line *line = &s->ide[c - s->channels];
    bool level = selected(c) && selected(c)->intrq && !(c->control & ATA_NIEN);

    if (level == line->level)
        return;
    if (level)
        c->bm_status |= BM_INTERRUPT;
    irq_set(line, level);
}

static struct ide_channel *channel_of(const struct ata_drive *d)
{
    return &ide_of(d->controller)->channels[d->port->number];
}

static void host_interrupt(struct ata_drive *d)
{
    struct ide_channel *c = channel_of(d);

    if (d->transfer.is_dma && c->whole_table)
        c->bm_status &= (uint8_t)~BM_ACTIVE;
    c->whole_table = false;
    d->intrq = true;
    update_line(ide_of(d->controller), c);
}

/* ---- the bus master ---- */

/* False: the table, or what it names, is not RAM. */
static bool fill_list(struct pci_ide *s, struct ide_channel *c, struct dma_list *list,
                      uint64_t bytes)
{
    struct memory *memory = device_memory(&s->function.dev);
    uint64_t gpa = c->bm_table;
    bool is_last = false;

    dma_list_clear(list);
    c->whole_table = false;
    for (unsigned n = 0; n < PRD_MAX && !is_last && list->size_bytes < bytes;
         n++, gpa += PRD_BYTES) {
        uint64_t left = bytes - list->size_bytes;
        const uint8_t *ram = memory_pin(memory, gpa, PRD_BYTES);
        uint8_t entry[PRD_BYTES];
        uint32_t size;

        if (!ram)
            return false;
        ram_copy(entry, ram, sizeof(entry));
        size = get_le16(entry + 4) & 0xfffeu;
        size = size ? size : 65536;
        is_last = get_le32(entry + 4) & PRD_LAST;
        c->whole_table = is_last && size <= left;
        if (!dma_list_add(list, memory, get_le32(entry) & ~1u, size < left ? size : left))
            return false;
    }
    return true;
}

/* When both the drive (NULL: there is none) and the bus master are ready. */
static void move(struct pci_ide *s, struct ide_channel *c, struct ata_drive *d)
{
    uint64_t bytes;

    if (!d || d->phase != ATA_PHASE_LIST || !(c->bm_status & BM_ACTIVE) ||
        !pci_is_master(&s->function) || d->transfer.is_out == !!(c->bm_command & BM_TO_MEMORY))
        return;
    bytes = ata_transfer_bytes(d);
    if (!fill_list(s, c, &d->request.list, bytes))
        c->bm_status = (uint8_t)((c->bm_status & ~BM_ACTIVE) | BM_ERROR);
    else if (d->request.list.size_bytes < bytes)
        c->bm_status &= (uint8_t)~BM_ACTIVE;
    else
        ata_move(d);
}

static void host_move(struct ata_drive *d)
{
    move(ide_of(d->controller), channel_of(d), d);
}

static const struct ata_host_ops host_ops = {
    .move = host_move,
    .interrupt = host_interrupt,
    .has_data_register = true,
};

/* What is under way ends first. */
static void stop(struct ide_channel *c)
{
    for (unsigned n = 0; n < UNITS; n++)
        if (unit(c, n))
            ata_drain(unit(c, n));
    c->bm_status &= (uint8_t)~BM_ACTIVE;
}

static void write_bm_command(struct pci_ide *s, struct ide_channel *c, uint8_t value)
{
    uint8_t before = c->bm_command;

    c->bm_command = value & (BM_START | BM_TO_MEMORY);
    if (before & BM_START && !(value & BM_START)) {
        stop(c);
    } else if (!(before & BM_START) && value & BM_START) {
        c->bm_status |= BM_ACTIVE;
        move(s, c, selected(c));
    }
}

static uint8_t bm_read(const struct ide_channel *c, unsigned reg)
{
    switch (reg) {
    case BM_COMMAND:
        return c->bm_command;
    case BM_STATUS:
        return c->bm_status;
    case BM_TABLE:
    case BM_TABLE + 1:
    case BM_TABLE + 2:
    case BM_TABLE + 3:
        return (uint8_t)(c->bm_table >> 8 * (reg - BM_TABLE));
    default:
        return 0;
    }
}

static void bm_write(struct pci_ide *s, struct ide_channel *c, unsigned reg, uint8_t value)
{
    unsigned shift = 8 * (reg & 3);

    if (reg == BM_COMMAND)
        write_bm_command(s, c, value);
    else if (reg == BM_STATUS)
        c->bm_status = (uint8_t)((c->bm_status & (BM_ACTIVE | BM_ERROR | BM_INTERRUPT) &
                                  ~(value & (BM_ERROR | BM_INTERRUPT))) |
                                 (value & BM_CAPABLE));
    else if (reg >= BM_TABLE)
        c->bm_table = ((c->bm_table & ~(0xffu << shift)) | (uint32_t)value << shift) & ~3u;
}

static uint64_t bar_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct pci_ide *s = ide_of(dev);
    uint64_t value = 0;

    for (unsigned n = 0; n < size; n++)
        value |= (uint64_t)bm_read(&s->channels[(offset + n) / 8], (offset + n) % 8) << 8 * n;
    return value;
}

static void bar_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct pci_ide *s = ide_of(dev);

    for (unsigned n = 0; n < size; n++)
        bm_write(s, &s->channels[(offset + n) / 8], (offset + n) % 8, (uint8_t)(value >> 8 * n));
}

static const struct region_ops bar_ops = {
    .name = "pci-ide",
    .read = bar_read,
    .write = bar_write,
    .min_size = 1,
    .max_size = 4,
};

/* ---- task files ---- */

static uint8_t read_status(const struct ide_channel *c)
{
    const struct ata_drive *d = selected(c);

    if (!answering(c))
        return NO_DRIVE;
    if (!d)
        return 0;
    return c->control & ATA_SRST ? ATA_BSY : d->tf.status;
}

static uint8_t read_register(struct pci_ide *s, struct ide_channel *c, unsigned reg)
{
    const struct ata_drive *d = answering(c);
    unsigned before = c->control & ATA_HOB ? 1 : 0;
    uint8_t status;

    if (!d)
        return NO_DRIVE;
    switch (reg) {
    case REG_ERROR:
        return d->tf.error;
    case REG_COUNT:
        return d->tf.count[before];
    case REG_LBA_LOW:
    case REG_LBA_MID:
    case REG_LBA_HIGH:
        return d->tf.lba[reg - REG_LBA_LOW + 3 * before];
    case REG_DEVICE:
        return (uint8_t)((d->tf.device & ~ATA_DEVICE_1) | (c->device & ATA_DEVICE_1) |
                         DEVICE_FIXED);
    default:
        status = read_status(c);
        if (selected(c)) {
            selected(c)->intrq = false;
            update_line(s, c);
        }
        return status;
    }
}

/* Both devices execute it; device 0 tells the guest. */
static void diagnose(struct ide_channel *c)
{
    c->device = 0;
    for (unsigned n = UNITS; n--;)
        if (unit(c, n)) {
            ata_drain(unit(c, n));
            unit(c, n)->tf.command = ATA_DIAGNOSTIC;
            ata_execute(unit(c, n));
        }
    if (unit(c, 1))
        unit(c, 1)->intrq = false;
}

/* A drive that is busy takes none but DEVICE RESET. */
static void write_command(struct pci_ide *s, struct ide_channel *c, uint8_t command)
{
    struct ata_drive *d = selected(c);

    if (!d)
        return;
    if (d->tf.status & (ATA_BSY | ATA_DRQ) && !(command == ATA_DEVICE_RESET && d->is_cd))
        return;
    d->intrq = false;
    update_line(s, c);
    if (command == ATA_DIAGNOSTIC) {
        diagnose(c);
        update_line(s, c);
        return;
    }
    d->tf.command = command;
    ata_execute(d);
}

static void shift_in(uint8_t *now, uint8_t *before, uint8_t value)
{
    *before = *now;
    *now = value;
}

static void write_taskfile(struct ata_taskfile *tf, unsigned reg, uint8_t value)
{
    switch (reg) {
    case REG_ERROR:
        shift_in(&tf->features[0], &tf->features[1], value);
        break;
    case REG_COUNT:
        shift_in(&tf->count[0], &tf->count[1], value);
        break;
    case REG_DEVICE:
        tf->device = value;
        break;
    default:
        shift_in(&tf->lba[reg - REG_LBA_LOW], &tf->lba[reg - REG_LBA_LOW + 3], value);
    }
}

static void write_register(struct pci_ide *s, struct ide_channel *c, unsigned reg, uint8_t value)
{
    if (c->control & ATA_SRST) /* nobody listens */
        return;
    c->control &= (uint8_t)~ATA_HOB;
    if (reg == REG_STATUS) {
        write_command(s, c, value);
        return;
    }
    for (unsigned n = 0; n < UNITS; n++)
        if (unit(c, n))
            write_taskfile(&unit(c, n)->tf, reg, value);
    if (reg == REG_DEVICE) {
        c->device = value;
        update_line(s, c);
    }
}

static uint64_t command_read(struct pci_ide *s, struct ide_channel *c, uint64_t offset,
                             unsigned size)
{
    uint64_t value = 0;

    if (offset == REG_DATA)
        return selected(c) ? ata_read_data(selected(c), size) : UINT32_MAX;
    for (unsigned n = 0; n < size; n++)
        value |= (uint64_t)read_register(s, c, (unsigned)offset + n) << 8 * n;
    return value;
}

static void command_write(struct pci_ide *s, struct ide_channel *c, uint64_t offset, uint64_t value,
                          unsigned size)
{
    if (offset == REG_DATA) {
        if (selected(c))
            ata_write_data(selected(c), (uint32_t)value, size);
        return;
    }
    for (unsigned n = 0; n < size; n++)
        write_register(s, c, (unsigned)offset + n, (uint8_t)(value >> 8 * n));
}

/* Soft reset lasts while its bit is set. */
static void control_write(struct pci_ide *s, struct ide_channel *c, uint8_t value)
{
    bool was_reset = c->control & ATA_SRST;

    c->control = value & (ATA_NIEN | ATA_SRST | ATA_HOB);
    if (value & ATA_SRST && !was_reset) {
        stop(c);
        c->device = 0;
        for (unsigned n = 0; n < UNITS; n++)
            if (unit(c, n))
                ata_reset(unit(c, n));
    }
    update_line(s, c);
}

/* Which channel a function of region_ops belongs to is all that they differ in. */
#define CHANNEL_FUNCTIONS(n)                                                                       \
    static uint64_t command_read_##n(struct device *dev, uint64_t offset, unsigned size)           \
    {                                                                                              \
        return command_read(ide_of(dev), &ide_of(dev)->channels[n], offset, size);                 \
    }                                                                                              \
    static void command_write_##n(struct device *dev, uint64_t offset, uint64_t value,             \
                                  unsigned size)                                                   \
    {                                                                                              \
        command_write(ide_of(dev), &ide_of(dev)->channels[n], offset, value, size);                \
    }                                                                                              \
    static uint64_t control_read_##n(struct device *dev, uint64_t offset, unsigned size)           \
    {                                                                                              \
        (void)offset, (void)size;                                                                  \
        return read_status(&ide_of(dev)->channels[n]);                                             \
    }                                                                                              \
    static void control_write_##n(struct device *dev, uint64_t offset, uint64_t value,             \
                                  unsigned size)                                                   \
    {                                                                                              \
        (void)offset, (void)size;                                                                  \
        control_write(ide_of(dev), &ide_of(dev)->channels[n], (uint8_t)value);                     \
    }
CHANNEL_FUNCTIONS(0)
CHANNEL_FUNCTIONS(1)

#define COMMAND_OPS(n)                                                                             \
    {                                                                                              \
        .name = "ide-command", .read = command_read_##n, .write = command_write_##n,               \
        .min_size = 1, .max_size = 4                                                               \
    }
#define CONTROL_OPS(n)                                                                             \
    {                                                                                              \
        .name = "ide-control", .read = control_read_##n, .write = control_write_##n,               \
        .min_size = 1, .max_size = 1                                                               \
    }
static const struct region_ops command_ops[CHANNELS] = {COMMAND_OPS(0), COMMAND_OPS(1)};
static const struct region_ops control_ops[CHANNELS] = {CONTROL_OPS(0), CONTROL_OPS(1)};

/* ---- lifecycle ---- */

#define CONFIG_TIMING       0x40 /* 16 bits for each channel */
#define CONFIG_SLAVE_TIMING 0x44
#define TIMING_DECODE       0x80 /* in the upper byte: the channel's ports are decoded */

/* Drives may have waited for bus mastering. */
static void ide_config_written(struct pci_function *function, unsigned offset, unsigned size)
{
    struct pci_ide *s = ide_of(&function->dev);

    if (offset > PCI_COMMAND + 1 || offset + size <= PCI_COMMAND)
        return;
    for (unsigned n = 0; n < CHANNELS; n++)
        move(s, &s->channels[n], selected(&s->channels[n]));
}

static const struct pci_function_desc ide_desc = {
    .vendor_id = 0x8086,
    .device_id = 0x7010,
    .subsystem_vendor_id = 0x1af4,
    .subsystem_id = 0x1100,
    .class_code = 0x010180, /* compatibility mode, bus master */
    .bar = {[4] = {.kind = PCI_BAR_IO, .size_bytes = BAR_BYTES, .ops = &bar_ops}},
    .config_written = ide_config_written,
};

/* The channels are switched on, as firmware leaves them: there may be none. */
static void build_registers(struct pci_function *function)
{
    for (unsigned n = 0; n < CHANNELS; n++) {
        function->initial[CONFIG_TIMING + 2 * n + 1] = TIMING_DECODE;
        pci_put16(function->writable + CONFIG_TIMING + 2 * n, 0xffff);
    }
    function->writable[CONFIG_SLAVE_TIMING] = 0xff;
}

static int ide_attach(struct device *dev, struct error *err)
{
    struct pci_ide *s = ide_of(dev);
    int status;

    for (unsigned n = 0; n < CHANNELS * UNITS; n++)
        s->places[n] = (struct ata_port){
            .controller = dev, .number = (uint8_t)(n / UNITS), .unit = (uint8_t)(n % UNITS)};
    for (unsigned n = 0; n < CHANNELS; n++)
        s->channels[n].units = &s->places[n * UNITS];
    s->bus = (struct ata_bus){.ops = &host_ops, .ports = s->places, .count = CHANNELS * UNITS};
    status = pci_attach(&s->function, &ide_desc, err);
    if (status)
        return status;
    build_registers(&s->function);
    for (unsigned n = 0; n < CHANNELS && !status; n++) {
        status = device_map_ports(dev, ports[n].command, COMMAND_PORTS, &command_ops[n], err);
        if (!status)
            status = device_map_ports(dev, ports[n].control, 1, &control_ops[n], err);
    }
    return status;
}

static void ide_detach(struct device *dev)
{
    pci_detach(&ide_of(dev)->function);
}

static void ide_reset(struct device *dev)
{
    struct pci_ide *s = ide_of(dev);

    for (unsigned n = 0; n < CHANNELS; n++) {
        struct ide_channel *c = &s->channels[n];

        stop(c);
        c->device = c->control = c->bm_command = c->bm_status = 0;
        c->bm_table = 0;
        c->whole_table = false;
    }
}

static void ide_reset_done(struct device *dev)
{
    struct pci_ide *s = ide_of(dev);

    for (unsigned n = 0; n < CHANNELS; n++)
        update_line(s, &s->channels[n]);
}

static int ide_after_load(void *object, struct error *err)
{
    return pci_after_load(&((struct pci_ide *)object)->function, err);
}

struct ata_bus *pci_ide_bus(struct device *controller)
{
    return &ide_of(controller)->bus;
}

static void ide_boot_path(struct device *dev, char *out, size_t size)
{
    pci_boot_path(&ide_of(dev)->function, "ide", "", out, size);
}

static const struct property ide_properties[] = {
    PCI_PROPERTIES(struct pci_ide, function),
    PROPERTY_END,
};

static const struct device_output ide_outputs[] = {
    DEVICE_OUTPUTS(struct pci_ide, ide),
    DEVICE_OUTPUT_END,
};

static const struct state_field channel_state[] = {
    STATE_U8(struct ide_channel, device),
    STATE_U8(struct ide_channel, control),
    STATE_U8_MAX(struct ide_channel, bm_command, BM_START | BM_TO_MEMORY),
    STATE_U8_MAX(struct ide_channel, bm_status, BM_CAPABLE | BM_INTERRUPT | BM_ERROR | BM_ACTIVE),
    STATE_U32(struct ide_channel, bm_table),
    STATE_BOOL(struct ide_channel, whole_table),
    STATE_END,
};

static const struct state_field line_state[] = {
    STATE_BOOL(struct irq_line, level),
    STATE_END,
};

static const struct state_field ide_state[] = {
    PCI_STATE(struct pci_ide, function),
    STATE_STRUCTS(struct pci_ide, channels, channel_state),
    STATE_STRUCTS(struct pci_ide, ide, line_state),
    STATE_END,
};

const struct device_class pci_ide_class = {
    .name = "pci-ide",
    .summary = "IDE controller with two channels, on PCI",
    .bus = BUS_PCI,
    .instance_size = sizeof(struct pci_ide),
    .properties = ide_properties,
    .outputs = ide_outputs,
    .pci = &ide_desc,
    .attach = ide_attach,
    .reset = ide_reset,
    .reset_done = ide_reset_done,
    .detach = ide_detach,
    .boot_path = ide_boot_path,
    .state = {.version = 1, .oldest = 1, .fields = ide_state, .after_load = ide_after_load},
};
