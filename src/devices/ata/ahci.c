/*
 * ahci.c - AHCI controller of an ICH9-like chipset: 6 ports
 *
 * Serial ATA AHCI 1.3.1 ("the specification"), and Serial ATA 2.6 for frames (FISes).
 *
 * Theory of operation. A guest puts command headers and tables into memory and sets their bits in
 * PxCI. port_run() takes them one after the other: it copies the header and the frame in, hands the
 * command to the drive, and gives it the memory of the table's scatter list. A command that is not
 * queued leaves PxCI when it has ended, with a frame in the receive area; nothing else is started
 * meanwhile. A queued one leaves PxCI at once, and PxSACT when it has ended, with a set device bits
 * frame that may be shared by many. An error halts the port until the guest stops and starts it.
 *
 * Commands whose data the host has in its cache end inside the guest's write to PxCI. Interrupts
 * are looked at when the whole of PxCI was.
 *
 * Left out: port multipliers, command completion coalescing, enclosures, power management of links,
 * notifications. Frames that only mark the progress of a command are not written to memory.
 *
 * Threads: machine lock held. Guest memory: command lists, tables, receive areas; data by drives.
 */
#include "devices/ata/ahci.h"

#include <string.h>

#include "base/bytes.h"
#include "base/guest_ram.h"
#include "base/log.h"
#include "devices/devices.h"
#include "trapeze/pci.h"

#define PORTS          6u
#define SLOTS          32u
#define PORT_REGISTERS 0x100u
#define PORT_BYTES     0x80u
#define BAR_BYTES      0x1000u

/* ---- registers (3.1, 3.3) ---- */

enum hba_register {
    HBA_CAP = 0x00,
    HBA_GHC = 0x04,
    HBA_IS = 0x08,
    HBA_PI = 0x0c,
    HBA_VS = 0x10,
};

/* 64-bit, queued commands, AHCI only, 3 Gbit/s, CLO; slots and ports less one. */
#define CAP       (1u << 31 | 1u << 30 | 1u << 24 | 2u << 20 | 1u << 18 | (SLOTS - 1) << 8 | (PORTS - 1))
#define VERSION   0x00010301u
#define GHC_RESET 0x1u
#define GHC_IE    0x2u
#define GHC_AE    0x80000000u

enum port_register {
    PORT_CLB = 0x00,
    PORT_CLBU = 0x04,
    PORT_FB = 0x08,
    PORT_FBU = 0x0c,
    PORT_IS = 0x10,
    PORT_IE = 0x14,
    PORT_CMD = 0x18,
    PORT_TFD = 0x20,
    PORT_SIG = 0x24,
    PORT_SSTS = 0x28,
    PORT_SCTL = 0x2c,
    PORT_SERR = 0x30,
    PORT_SACT = 0x34,
    PORT_CI = 0x38,
};

#define IS_DHRS        0x1u /* a frame of each kind with its interrupt bit */
#define IS_PSS         0x2u
#define IS_SDBS        0x8u
#define IS_PCS         0x40u /* as SERR says */
#define IS_OFS         (1u << 24)
#define IS_IFS         (1u << 27)
#define IS_HBFS        (1u << 29)
#define IS_TFES        (1u << 30)
#define IE_MASK        0x7dc0007fu

#define CMD_ST         0x1u
#define CMD_SUD        0x2u
#define CMD_POD        0x4u
#define CMD_CLO        0x8u
#define CMD_FRE        0x10u
#define CMD_CCS        0x1f00u
#define CMD_CCS_SHIFT  8
#define CMD_FR         0x4000u
#define CMD_CR         0x8000u
#define CMD_WRITABLE   (CMD_ST | CMD_FRE | 0x0f000000u)
#define CMD_INITIAL    (CMD_SUD | CMD_POD)

#define SCTL_MASK      0xfffu
#define SCTL_DET       0xfu
#define DET_NONE       0u
#define DET_RESET      1u
#define DET_OFF        4u
#define SSTS_OFF       4u
#define SSTS_UP        0x123u /* active, 3 Gbit/s, there and talking */
#define SERR_EXCHANGED (1u << 26)

#define TFD_NONE       0x7fu
#define SIG_NONE       0xffffffffu

/* ---- structures in memory (4.2) ---- */

#define HEADER_BYTES   32u
#define HEADER_LENGTH  0x1fu
#define HEADER_ATAPI   0x20u
#define TABLE_BYTES    0x80u /* before its scatter list */
#define TABLE_PACKET   0x40u
#define PRD_BYTES      16u
#define PRD_COUNT      0x3fffffu

#define AREA_PIO_SETUP 0x20u
#define AREA_D2H       0x40u
#define AREA_SDB       0x58u

#define FIS_H2D        0x27u
#define FIS_D2H        0x34u
#define FIS_PIO_SETUP  0x5fu
#define FIS_SDB        0xa1u
#define FIS_INTERRUPT  0x40u
#define FIS_COMMAND    0x80u /* of H2D: else it only changes the control register */
#define FIS_PORT       0x0fu
#define H2D_BYTES      20u
#define D2H_BYTES      20u
#define SDB_BYTES      8u

struct ahci;

struct ahci_port {
    struct ahci *ahci; /* configuration */
    struct ata_port *ata;

    /* Guest-visible state. */
    uint64_t list, area; /* GPAs */
    uint32_t is, ie, cmd, tfd, sig, sctl, serr, sact, ci;
    bool halted;          /* by an error, until the guest stops it */
    bool signature_waits; /* for the receive area */

    /* Not state: nothing is under way when the machine is paused. */
    bool running;           /* in port_run() */
    bool is_busy;           /* with a command that is not queued */
    unsigned slot;          /* of that */
    uint32_t in_flight;     /* queued commands */
    uint32_t ended;         /* of these, and the guest was not told yet */
    uint64_t table, header; /* of the command that is being started: GPAs */
    uint32_t table_entries;
};

struct ahci {
    struct pci_function function;

    struct ata_bus bus; /* configuration */
    struct ata_port places[PORTS];

    /* Guest-visible state, beside configuration space. */
    struct ahci_port ports[PORTS];
    uint32_t ghc, is;
};

static struct ahci *ahci_of(struct device *dev)
{
    return container_of(dev, struct ahci, function.dev);
}

static struct ahci_port *port_of(const struct ata_drive *d)
{
    return &ahci_of(d->controller)->ports[d->port - ahci_of(d->controller)->places];
}

static struct ata_drive *drive_of(const struct ahci_port *p)
{
    return p->ata->drive;
}

static struct memory *memory_of(const struct ahci_port *p)
{
    return device_memory(&p->ahci->function.dev);
}

/* ---- interrupts (10.7) ---- */

static uint32_t port_is(const struct ahci_port *p)
{
    return p->is | (p->serr & SERR_EXCHANGED ? IS_PCS : 0);
}

/* was_enabled: before this change. A message is sent for each port that begins to ask. */
static void update_interrupts(struct ahci *s, bool was_enabled)
{
    uint32_t before = was_enabled ? s->is : 0;

    for (unsigned n = 0; n < PORTS; n++)
        if (port_is(&s->ports[n]) & s->ports[n].ie)
            s->is |= 1u << n;
    pci_set_intx(&s->function, s->is && s->ghc & GHC_IE);
    if (s->ghc & GHC_IE && s->is & ~before && pci_uses_messages(&s->function))
        pci_notify(&s->function, 0);
}

static void update(struct ahci *s)
{
    update_interrupts(s, s->ghc & GHC_IE);
}

/* ---- errors ---- */

static void halt(struct ahci_port *p, uint32_t why)
{
    p->is |= why;
    p->halted = true;
}

/* What the guest named is not RAM. */
static void halt_fatal(struct ahci_port *p, const char *what)
{
    log_guest("%s: port %u: %s is not in RAM", p->ahci->function.dev.id,
              (unsigned)(p - p->ahci->ports), what);
    halt(p, IS_HBFS);
}

/* ---- frames to the guest ---- */

static void post(struct ahci_port *p, unsigned offset, const uint8_t *fis, size_t size)
{
    uint8_t *ram;

    if (!(p->cmd & CMD_FRE))
        return;
    ram = memory_pin(memory_of(p), p->area + offset, size);
    if (!ram) {
        halt_fatal(p, "the receive area");
        return;
    }
    ram_copy(ram, fis, size);
    memory_unpin(memory_of(p), ram, size);
}

static void fill_frame(uint8_t *fis, const struct ata_taskfile *tf, uint8_t type, bool interrupt)
{
    fis[0] = type;
    fis[1] = interrupt ? FIS_INTERRUPT : 0;
    fis[2] = tf->status;
    fis[3] = tf->error;
    memcpy(fis + 4, tf->lba, 3);
    fis[7] = tf->device;
    memcpy(fis + 8, tf->lba + 3, 3);
    fis[12] = tf->count[0];
    fis[13] = tf->count[1];
}

static void set_tfd(struct ahci_port *p, uint8_t status, uint8_t error)
{
    p->tfd = status | (uint32_t)error << 8;
}

static void post_d2h(struct ahci_port *p, bool interrupt)
{
    const struct ata_taskfile *tf = &drive_of(p)->tf;
    uint8_t fis[D2H_BYTES] = {0};

    fill_frame(fis, tf, FIS_D2H, interrupt);
    set_tfd(p, tf->status, tf->error);
    post(p, AREA_D2H, fis, sizeof(fis));
    if (interrupt)
        p->is |= IS_DHRS;
}

/* The last one of a PIO command to the host: its ending status is the command's. */
static void post_pio_setup(struct ahci_port *p, uint64_t bytes)
{
    const struct ata_taskfile *tf = &drive_of(p)->tf;
    uint8_t fis[D2H_BYTES] = {0};

    fill_frame(fis, tf, FIS_PIO_SETUP, true);
    fis[1] |= 0x20; /* to the host */
    fis[2] |= ATA_DRQ;
    fis[15] = tf->status;
    put_le16(fis + 16, (uint16_t)bytes);
    set_tfd(p, tf->status, tf->error);
    post(p, AREA_PIO_SETUP, fis, sizeof(fis));
    p->is |= IS_PSS;
}

static void post_sdb(struct ahci_port *p, uint32_t ended)
{
    uint8_t fis[SDB_BYTES] = {FIS_SDB, FIS_INTERRUPT, p->tfd & 0x77, (uint8_t)(p->tfd >> 8)};

    put_le32(fis + 4, ended);
    post(p, AREA_SDB, fis, sizeof(fis));
    p->sact &= ~ended;
    p->is |= IS_SDBS;
}

/* The first frame after a reset. */
static void post_signature(struct ahci_port *p)
{
    const struct ata_taskfile *tf = &drive_of(p)->tf;

    p->signature_waits = !(p->cmd & CMD_FRE);
    p->sig = tf->count[0] | (uint32_t)tf->lba[0] << 8 | (uint32_t)tf->lba[1] << 16 |
             (uint32_t)tf->lba[2] << 24;
    post_d2h(p, false);
}

/* ---- data ---- */

/* The first bytes of the scatter list. False: not all of them are RAM. */
static bool fill_list(struct ahci_port *p, struct dma_list *list, uint64_t bytes)
{
    uint64_t gpa = p->table + TABLE_BYTES;

    dma_list_clear(list);
    for (uint32_t n = 0; n < p->table_entries && list->size_bytes < bytes; n++, gpa += PRD_BYTES) {
        uint64_t left = bytes - list->size_bytes, size;
        const uint8_t *ram = memory_pin(memory_of(p), gpa, PRD_BYTES);
        uint8_t entry[PRD_BYTES];

        if (!ram)
            return false;
        ram_copy(entry, ram, sizeof(entry));
        size = (get_le32(entry + 12) & PRD_COUNT) + 1ull;
        if (!dma_list_add(list, memory_of(p), get_le64(entry), size < left ? size : left))
            return false;
    }
    return true;
}

static void host_move(struct ata_drive *d)
{
    struct ahci_port *p = port_of(d);
    uint64_t bytes = ata_transfer_bytes(d);

    if (!fill_list(p, &d->request.list, bytes)) {
        halt_fatal(p, "a buffer");
        return;
    }
    if (d->request.list.size_bytes < bytes)
        p->is |= IS_OFS;
    ata_move(d);
}

/* ---- ends of commands ---- */

static void port_run(struct ahci_port *p);

static void write_byte_count(struct ahci_port *p, uint64_t bytes)
{
    uint8_t *ram = memory_pin(memory_of(p), p->header + 4, 4);

    if (!ram)
        return;
    ram_store32(ram, (uint32_t)bytes);
    memory_unpin(memory_of(p), ram, 4);
}

static bool is_pio_in(const struct ata_drive *d)
{
    const struct ata_transfer *t = &d->transfer;

    return (t->is_media || t->filled) && !t->is_dma && !t->is_out && d->tf.command != ATA_PACKET &&
           !(d->tf.status & ATA_ERR);
}

static void host_interrupt(struct ata_drive *d)
{
    struct ahci_port *p = port_of(d);

    if (!p->is_busy)
        return;
    p->is_busy = false;
    write_byte_count(p, d->request.moved_bytes);
    if (is_pio_in(d))
        post_pio_setup(p, d->request.moved_bytes);
    else
        post_d2h(p, true);
    if (d->tf.status & ATA_ERR)
        halt(p, IS_TFES);
    else
        p->ci &= ~(1u << p->slot);
    port_run(p);
}

static void queued_failed(struct ahci_port *p, struct ata_request *r, uint8_t error)
{
    if (p->halted) /* one error is told */
        return;
    ata_queue_failed(drive_of(p), r, error);
    set_tfd(p, ATA_DRDY | ATA_DSC | ATA_ERR, error);
    post_sdb(p, 0);
    halt(p, IS_TFES);
}

static void host_queued_ended(struct ata_drive *d, struct ata_request *r, uint8_t error)
{
    struct ahci_port *p = port_of(d);
    uint32_t bit = 1u << (r - d->queued);

    p->in_flight &= ~bit;
    if (error)
        queued_failed(p, r, error);
    else if (!p->halted)
        p->ended |= bit;
    port_run(p);
}

/*
 * The command goes back to PxCI, from where it is started anew when the machine is resumed: nobody
 * has seen that it has left. One that is not queued will be the first.
 */
static void host_postponed(struct ata_drive *d, struct ata_request *r)
{
    struct ahci_port *p = port_of(d);

    if (r != &d->request) {
        uint32_t bit = 1u << (r - d->queued);

        p->in_flight &= ~bit;
        if (!p->halted) /* else nobody is told how it ends */
            p->ci |= bit;
    } else if (p->is_busy) {
        p->is_busy = false;
        p->cmd = (p->cmd & ~CMD_CCS) | (p->slot + SLOTS - 1) % SLOTS << CMD_CCS_SHIFT;
        d->tf.status = ATA_DRDY | ATA_DSC;
        set_tfd(p, d->tf.status, 0);
    }
}

static const struct ata_host_ops host_ops = {
    .move = host_move,
    .interrupt = host_interrupt,
    .queued_ended = host_queued_ended,
    .postponed = host_postponed,
};

/* ---- beginnings of commands ---- */

static void read_frame(struct ata_taskfile *tf, const uint8_t *fis)
{
    *tf = (struct ata_taskfile){
        .command = fis[2],
        .features = {fis[3], fis[11]},
        .lba = {fis[4], fis[5], fis[6], fis[8], fis[9], fis[10]},
        .device = fis[7],
        .count = {fis[12], fis[13]},
        .control = fis[15],
        .status = ATA_BSY,
    };
}

static void start_queued(struct ahci_port *p, unsigned slot, const uint8_t *fis)
{
    struct ata_drive *d = drive_of(p);
    struct ata_request *r = &d->queued[slot];
    uint64_t bytes = 0;
    uint8_t error;

    read_frame(&r->tf, fis);
    p->ci &= ~(1u << slot);
    error = ata_queue(d, r, &bytes);
    if (!error && (r->tf.count[0] >> 3 != slot || !(p->sact >> slot & 1)))
        error = ATA_ABRT;
    if (error) {
        queued_failed(p, r, error);
        return;
    }
    if (!fill_list(p, &r->list, bytes)) {
        halt_fatal(p, "a buffer");
        return;
    }
    if (r->list.size_bytes < bytes) {
        p->is |= IS_OFS;
        queued_failed(p, r, ATA_ABRT);
        return;
    }
    p->in_flight |= 1u << slot;
    set_tfd(p, ATA_DRDY | ATA_DSC, 0);
    ata_move_queued(d, r);
}

static void start_command(struct ahci_port *p, unsigned slot, const uint8_t *fis,
                          const uint8_t *packet)
{
    struct ata_drive *d = drive_of(p);

    read_frame(&d->tf, fis);
    memcpy(d->packet, packet, sizeof(d->packet));
    d->request.moved_bytes = 0;
    p->slot = slot;
    p->is_busy = true;
    set_tfd(p, ATA_BSY | ATA_DRDY, 0);
    ata_execute(d);
    if (fis[2] == ATA_DEVICE_RESET && d->is_cd) /* it ends without an interrupt */
        host_interrupt(d);
}

/* A frame of the control register: soft reset is set, then cleared. */
static void start_control(struct ahci_port *p, unsigned slot, const uint8_t *fis)
{
    struct ata_drive *d = drive_of(p);
    bool was_reset = d->tf.control & ATA_SRST;

    p->ci &= ~(1u << slot);
    d->tf.control = fis[15];
    if (was_reset && !(fis[15] & ATA_SRST)) {
        ata_reset(d);
        post_signature(p);
    }
}

static bool is_queued(const uint8_t *fis)
{
    return fis[2] == ATA_READ_FPDMA || fis[2] == ATA_WRITE_FPDMA;
}

/* False: it has to wait for queued commands to end. */
static bool start_slot(struct ahci_port *p, unsigned slot)
{
    uint8_t header[16], table[TABLE_BYTES];
    const uint8_t *ram;

    p->header = p->list + slot * HEADER_BYTES;
    ram = memory_pin(memory_of(p), p->header, HEADER_BYTES);
    if (!ram) {
        halt_fatal(p, "a command header");
        return true;
    }
    ram_copy(header, ram, sizeof(header));
    p->table = get_le64(header + 8) & ~(uint64_t)(TABLE_BYTES - 1);
    p->table_entries = get_le16(header + 2);
    ram = memory_pin(memory_of(p), p->table, TABLE_BYTES);
    if (!ram) {
        halt_fatal(p, "a command table");
        return true;
    }
    ram_copy(table, ram, sizeof(table));
    if (p->in_flight && !(table[1] & FIS_COMMAND && is_queued(table)))
        return false;
    p->cmd = (p->cmd & ~CMD_CCS) | slot << CMD_CCS_SHIFT;
    if (table[0] != FIS_H2D || table[1] & FIS_PORT || (header[0] & HEADER_LENGTH) < H2D_BYTES / 4)
        halt(p, IS_IFS); /* the drive does not know such a frame */
    else if (!(table[1] & FIS_COMMAND))
        start_control(p, slot, table);
    else if (is_queued(table))
        start_queued(p, slot, table);
    else
        start_command(p, slot, table, table + TABLE_PACKET);
    return true;
}

static bool link_is_up(const struct ahci_port *p)
{
    return drive_of(p) && (p->sctl & SCTL_DET) == DET_NONE;
}

static bool can_start(const struct ahci_port *p)
{
    return p->cmd & CMD_ST && p->ci && !p->halted && !p->is_busy && link_is_up(p) &&
           !(p->tfd & (ATA_BSY | ATA_DRQ)) && pci_is_master(&p->ahci->function);
}

/* In turn, from the one behind the last. */
static unsigned next_slot(const struct ahci_port *p)
{
    unsigned first = ((p->cmd & CMD_CCS) >> CMD_CCS_SHIFT) + 1;

    for (unsigned n = 0; n < SLOTS; n++)
        if (p->ci >> ((first + n) % SLOTS) & 1)
            return (first + n) % SLOTS;
    return 0;
}

/* Start what can be started, and tell the guest what has ended. */
static void port_run(struct ahci_port *p)
{
    if (p->running)
        return;
    p->running = true;
    while (can_start(p) && start_slot(p, next_slot(p)))
        ;
    p->running = false;
    if (p->ended && !p->halted)
        post_sdb(p, p->ended);
    p->ended = 0;
    update(p->ahci);
}

/* ---- stop and reset ---- */

/* What is under way ends first. */
static void port_stop(struct ahci_port *p)
{
    p->cmd &= ~(CMD_ST | CMD_CR);
    if (drive_of(p))
        ata_drain(drive_of(p));
    p->cmd &= ~CMD_CCS;
    p->ci = p->sact = 0;
    p->halted = false;
    p->is_busy = false;
}

/* A new drive is on the line, or none. */
static void port_connect(struct ahci_port *p)
{
    p->signature_waits = false;
    p->tfd = TFD_NONE;
    p->sig = SIG_NONE;
    if (!link_is_up(p))
        return;
    ata_reset(drive_of(p));
    p->serr |= SERR_EXCHANGED;
    post_signature(p);
}

static void port_reset(struct ahci_port *p)
{
    port_stop(p);
    p->list = p->area = 0;
    p->is = p->ie = p->sctl = p->serr = 0;
    p->cmd = CMD_INITIAL;
}

static void hba_reset(struct ahci *s)
{
    s->ghc = GHC_AE;
    s->is = 0;
    for (unsigned n = 0; n < PORTS; n++)
        port_reset(&s->ports[n]);
}

static void connect_all(struct ahci *s)
{
    for (unsigned n = 0; n < PORTS; n++)
        port_connect(&s->ports[n]);
    update(s);
}

/* ---- register accesses ---- */

static uint32_t port_read(const struct ahci_port *p, unsigned offset)
{
    switch (offset) {
    case PORT_CLB:
        return (uint32_t)p->list;
    case PORT_CLBU:
        return (uint32_t)(p->list >> 32);
    case PORT_FB:
        return (uint32_t)p->area;
    case PORT_FBU:
        return (uint32_t)(p->area >> 32);
    case PORT_IS:
        return port_is(p);
    case PORT_IE:
        return p->ie;
    case PORT_CMD:
        return p->cmd;
    case PORT_TFD:
        return p->tfd;
    case PORT_SIG:
        return p->sig;
    case PORT_SSTS:
        return link_is_up(p) ? SSTS_UP : (p->sctl & SCTL_DET) == DET_OFF ? SSTS_OFF : 0;
    case PORT_SCTL:
        return p->sctl;
    case PORT_SERR:
        return p->serr;
    case PORT_SACT:
        return p->sact;
    case PORT_CI:
        return p->ci;
    default:
        return 0;
    }
}

static void set_low(uint64_t *gpa, uint32_t value)
{
    *gpa = (*gpa & ~(uint64_t)UINT32_MAX) | value;
}

static void set_high(uint64_t *gpa, uint32_t value)
{
    *gpa = (*gpa & UINT32_MAX) | (uint64_t)value << 32;
}

static void write_cmd(struct ahci_port *p, uint32_t value)
{
    uint32_t before = p->cmd;

    if (before & CMD_ST && !(value & CMD_ST))
        port_stop(p);
    p->cmd = (p->cmd & ~(CMD_WRITABLE | CMD_FR | CMD_CR)) | (value & CMD_WRITABLE);
    p->cmd |= (value & CMD_ST ? CMD_CR : 0) | (value & CMD_FRE ? CMD_FR : 0);
    if (value & CMD_CLO && !(value & CMD_ST))
        p->tfd &= ~(uint32_t)(ATA_BSY | ATA_DRQ);
    if (value & CMD_FRE && p->signature_waits && drive_of(p))
        post_signature(p);
    port_run(p);
}

/* COMRESET lasts while DET is 1; when it becomes 0 the drive shows itself. */
static void write_sctl(struct ahci_port *p, uint32_t value)
{
    uint32_t before = p->sctl & SCTL_DET, det = value & SCTL_DET;

    p->sctl = value & SCTL_MASK;
    if (det == before)
        return;
    if (det != DET_NONE)
        port_stop(p);
    port_connect(p);
    update(p->ahci);
}

/* Bits are set only while the port runs. */
static void write_ci(struct ahci_port *p, uint32_t value)
{
    if (!(p->cmd & CMD_ST))
        return;
    p->ci |= value;
    port_run(p);
}

static void port_write(struct ahci_port *p, unsigned offset, uint32_t value)
{
    switch (offset) {
    case PORT_CLB:
        set_low(&p->list, value & ~0x3ffu);
        break;
    case PORT_CLBU:
        set_high(&p->list, value);
        break;
    case PORT_FB:
        set_low(&p->area, value & ~0xffu);
        break;
    case PORT_FBU:
        set_high(&p->area, value);
        break;
    case PORT_IS:
        p->is &= ~value;
        update(p->ahci);
        break;
    case PORT_IE:
        p->ie = value & IE_MASK;
        update(p->ahci);
        break;
    case PORT_CMD:
        write_cmd(p, value);
        break;
    case PORT_SCTL:
        write_sctl(p, value);
        break;
    case PORT_SERR:
        p->serr &= ~value;
        update(p->ahci);
        break;
    case PORT_SACT:
        if (p->cmd & CMD_ST)
            p->sact |= value;
        break;
    case PORT_CI:
        write_ci(p, value);
        break;
    default:
        break;
    }
}

static uint64_t ahci_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct ahci *s = ahci_of(dev);

    (void)size;
    if (offset >= PORT_REGISTERS + PORTS * PORT_BYTES)
        return 0;
    if (offset >= PORT_REGISTERS)
        return port_read(&s->ports[(offset - PORT_REGISTERS) / PORT_BYTES], offset % PORT_BYTES);
    switch (offset) {
    case HBA_CAP:
        return CAP;
    case HBA_GHC:
        return s->ghc;
    case HBA_IS:
        return s->is;
    case HBA_PI:
        return (1u << PORTS) - 1;
    case HBA_VS:
        return VERSION;
    default:
        return 0;
    }
}

static void write_ghc(struct ahci *s, uint32_t value)
{
    bool was_enabled = s->ghc & GHC_IE;

    if (value & GHC_RESET) {
        hba_reset(s);
        connect_all(s);
        return;
    }
    s->ghc = GHC_AE | (value & GHC_IE);
    update_interrupts(s, was_enabled);
}

static void ahci_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct ahci *s = ahci_of(dev);

    (void)size;
    if (offset >= PORT_REGISTERS + PORTS * PORT_BYTES)
        return;
    if (offset >= PORT_REGISTERS) {
        port_write(&s->ports[(offset - PORT_REGISTERS) / PORT_BYTES], offset % PORT_BYTES,
                   (uint32_t)value);
    } else if (offset == HBA_GHC) {
        write_ghc(s, (uint32_t)value);
    } else if (offset == HBA_IS) {
        s->is &= ~(uint32_t)value;
        update(s);
    }
}

static const struct region_ops ahci_ops = {
    .name = "ahci",
    .read = ahci_read,
    .write = ahci_write,
    .min_size = 4,
    .max_size = 4,
};

/* ---- lifecycle ---- */

#define CONFIG_MAP 0x90 /* how the ports are shown, and which are on (ICH9, 15.1.30) */
#define MAP_AHCI   0x40u
#define SLOT       "1f.2"
#define ADDRESS    (0x1fu << 3 | 2)

/* Commands may have waited for bus mastering. */
static void ahci_config_written(struct pci_function *function, unsigned offset, unsigned size)
{
    struct ahci *s = ahci_of(&function->dev);

    if (offset > PCI_COMMAND + 1 || offset + size <= PCI_COMMAND)
        return;
    for (unsigned n = 0; n < PORTS; n++)
        port_run(&s->ports[n]);
}

static const struct pci_function_desc ahci_desc = {
    .vendor_id = 0x8086,
    .device_id = 0x2922,
    .revision = 2,
    .subsystem_vendor_id = 0x1af4,
    .subsystem_id = 0x1100,
    .class_code = 0x010601,
    .interrupt_pin = 1,
    .bar = {[5] = {.kind = PCI_BAR_MEMORY32, .size_bytes = BAR_BYTES, .ops = &ahci_ops}},
    .msi_vectors = 1,
    .config_written = ahci_config_written,
};

/* The first one is where the chipset has it. */
static int ahci_attach(struct device *dev, struct error *err)
{
    struct ahci *s = ahci_of(dev);
    struct pci_function_desc desc = ahci_desc;
    const struct pci_bus *bus = s->function.bus ? s->function.bus : machine_pci_bus(dev->machine);
    int status;

    for (unsigned n = 0; n < PORTS; n++) {
        s->places[n] = (struct ata_port){.controller = dev, .number = (uint8_t)n};
        s->ports[n].ahci = s;
        s->ports[n].ata = &s->places[n];
    }
    s->bus = (struct ata_bus){
        .ops = &host_ops, .ports = s->places, .count = PORTS, .is_serial = true, .is_queued = true};
    if (!s->function.addr && bus && !bus->functions[ADDRESS])
        desc.place = SLOT;
    status = pci_attach(&s->function, &desc, err);
    if (status)
        return status;
    s->function.initial[CONFIG_MAP] = MAP_AHCI;
    pci_put16(s->function.writable + CONFIG_MAP + 2, (1u << PORTS) - 1);
    return 0;
}

static void ahci_detach(struct device *dev)
{
    pci_detach(&ahci_of(dev)->function);
}

static void ahci_reset(struct device *dev)
{
    hba_reset(ahci_of(dev));
}

/* Drives have been reset too. */
static void ahci_reset_done(struct device *dev)
{
    connect_all(ahci_of(dev));
}

static void ahci_resume(struct device *dev)
{
    for (unsigned n = 0; n < PORTS; n++)
        port_run(&ahci_of(dev)->ports[n]);
}

static int ahci_after_load(void *object, struct error *err)
{
    struct ahci *s = object;
    int status = pci_after_load(&s->function, err);

    for (unsigned n = 0; n < PORTS; n++)
        s->ports[n].cmd =
            (s->ports[n].cmd & (CMD_WRITABLE | CMD_FR | CMD_CR | CMD_CCS)) | CMD_INITIAL;
    return status;
}

struct ata_bus *ahci_bus(struct device *controller)
{
    return &ahci_of(controller)->bus;
}

static void ahci_boot_path(struct device *dev, char *out, size_t size)
{
    pci_boot_path(&ahci_of(dev)->function, "pci8086,2922", "", out, size);
}

static const struct property ahci_properties[] = {
    PCI_PROPERTIES(struct ahci, function),
    PROPERTY_END,
};

static const struct state_field port_state[] = {
    STATE_U64(struct ahci_port, list),
    STATE_U64(struct ahci_port, area),
    STATE_U32(struct ahci_port, is),
    STATE_U32(struct ahci_port, ie),
    STATE_U32(struct ahci_port, cmd),
    STATE_U32_MAX(struct ahci_port, tfd, UINT16_MAX),
    STATE_U32(struct ahci_port, sig),
    STATE_U32_MAX(struct ahci_port, sctl, SCTL_MASK),
    STATE_U32(struct ahci_port, serr),
    STATE_U32(struct ahci_port, sact),
    STATE_U32(struct ahci_port, ci),
    STATE_BOOL(struct ahci_port, halted),
    STATE_BOOL(struct ahci_port, signature_waits),
    STATE_END,
};

static const struct state_field ahci_state[] = {
    PCI_STATE(struct ahci, function),
    STATE_STRUCTS(struct ahci, ports, port_state),
    STATE_U32(struct ahci, ghc),
    STATE_U32_MAX(struct ahci, is, (1u << PORTS) - 1),
    STATE_END,
};

const struct device_class ahci_class = {
    .name = "ahci",
    .summary = "AHCI controller for serial ATA drives, on PCI",
    .bus = BUS_PCI,
    .instance_size = sizeof(struct ahci),
    .properties = ahci_properties,
    .pci = &ahci_desc,
    .attach = ahci_attach,
    .reset = ahci_reset,
    .reset_done = ahci_reset_done,
    .detach = ahci_detach,
    .resume = ahci_resume,
    .boot_path = ahci_boot_path,
    .state = {.version = 1, .oldest = 1, .fields = ahci_state, .after_load = ahci_after_load},
};
