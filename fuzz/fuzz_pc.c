/*
 * fuzz_pc.c - a hostile guest in a whole PC
 *
 * The board with System Management Mode, a ROM and a flash, and a device of most kinds. Each input
 * finds BARs in place and SMRAM locked or not, as firmware leaves them. Steps are accesses to
 * ports, registers and RAM, configuration cycles, what a disk's DMA moves from and to any address,
 * time, SMIs, and the main loop. Claims: no device sees TSEG, no processor outside SMM sees SMRAM,
 * and what is in locked SMRAM stays as it is; states survive a round trip; after a reset devices
 * are as they were after power-on, but for what they keep.
 */
#include "base/bytes.h"
#include "base/log.h"
#include "devices/devices.h"
#include "devices/pci_host.h"
#include "fuzz_device.h"
#include "machine/machine_internal.h"
#include "machine/pc.h"
#include "machine/pc_layout.h"
#include "x86/smm.h"

#include "ata_driver.h"

#define RAM_BYTES   (4u << 20)
#define TSEG        (3u << 20)
#define TSEG_BYTES  (1u << 20)
#define SMRAM_BYTES (PC_VGA_END - PC_EBDA_END)
#define SAVE_AREA   (TSEG + X86_SMM_AREA_OFFSET)
#define CANARY      0x5a
#define DISK_BYTES  (64u << 10)
#define ROM_BYTES   (64u << 10)
#define FLASH_BYTES (64u << 10)
#define MAX_BARS    64u
#define MAX_DEVICES 64u
#define FIRST_GPA   0xc1000000u /* of BARs; one for each MiB */
#define FIRST_PORT  0x2000u
#define HOST_ECAM   0x60u /* registers of the host bridge */
#define HOST_SMRAM  0x9du
#define MASTER      0x0007u /* I/O, memory, bus master */

struct bar {
    uint8_t address, offset;
    bool is_io;
    uint32_t size_bytes;
};

struct rig {
    struct device_test *t;
    struct bar bars[MAX_BARS];
    unsigned bar_count;
    int peers[2]; /* of networks */
    struct net *nets[2];
    struct state_buffer power_on[MAX_DEVICES]; /* of each device */
    bool locked;                               /* SMRAM has the canary, and nobody may change it */
};

/* ---- the machine ---- */

static int memory_file(size_t size_bytes, char path[64])
{
    int fd = memfd_create("rom", MFD_CLOEXEC);

    FUZZ_CLAIM(fd >= 0 && ftruncate(fd, (off_t)size_bytes) == 0);
    snprintf(path, 64, "/proc/self/fd/%d", fd);
    return fd;
}

static void new_machine(struct rig *r)
{
    struct machine_config config = {.name = "fuzz",
                                    .ram_bytes = RAM_BYTES,
                                    .vcpu_count = 1,
                                    .engine = engine_find("null"),
                                    .counted = true,
                                    .wall_start_ns = 1704067200000000000ull};
    char rom[64], variables[64];
    struct pc_config pc = {.firmware = rom, .variables_file = variables, .smm = true};
    struct error err = {0};

    log_threshold = LOG_ERROR;
    memory_file(ROM_BYTES, rom);
    memory_file(FLASH_BYTES, variables);
    r->t = calloc(1, sizeof(*r->t));
    r->t->loop = config.loop = loop_new(&err);
    r->t->machine = machine_new(&config, &err);
    if (pc_build(r->t->machine, &pc, &err)) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    r->t->ram.hva = memory_ram_hva(machine_memory(r->t->machine));
    r->t->ram.size_bytes = RAM_BYTES;
}

static struct device *add(struct rig *r, const struct device_class *class, const char *properties,
                          const char *name, void *pointer)
{
    struct device *dev = device_test_create(r->t, class, properties);
    struct error err = {0};

    FUZZ_CLAIM(!name || device_set_pointer(dev, name, pointer, &err) == 0);
    return dev;
}

static void add_drive(struct rig *r, const struct device_class *class, struct device *controller)
{
    struct error err = {0};
    struct device *dev = add(r, class, NULL, "drive", fuzz_disk(r->t->loop, DISK_BYTES));

    FUZZ_CLAIM(device_set_pointer(dev, "controller", controller, &err) == 0);
    device_test_attach(dev);
}

static void add_devices(struct rig *r)
{
    static const struct device_class *const disks[] = {&nvme_class, &virtio_blk_class,
                                                       &virtio_scsi_class, &virtio_blk_mmio_class};
    static const struct device_class *const cards[] = {&e1000_class, &virtio_net_class};
    struct device *ahci = device_test_add(r->t, &ahci_class, NULL);
    struct device *ide = device_test_add(r->t, &pci_ide_class, NULL);

    pc_wire_added(r->t->machine, ide);
    add_drive(r, &ata_disk_class, ahci);
    add_drive(r, &ata_cd_class, ahci);
    add_drive(r, &ata_disk_class, ide);
    for (unsigned n = 0; n < 4; n++)
        device_test_attach(add(r, disks[n], NULL, "drive", fuzz_disk(r->t->loop, DISK_BYTES)));
    for (unsigned n = 0; n < 2; n++) {
        r->nets[n] = fuzz_network(r->t->loop, &r->peers[n]);
        device_test_attach(add(r, cards[n], NULL, "network", r->nets[n]));
    }
    device_test_add(r->t, &virtio_balloon_class, NULL);
    device_test_add(r->t, &pcie_port_class, NULL);
    device_test_add(r->t, &pci_bridge_class, NULL);
    device_test_add(r->t, &virtio_rng_class, "addr=pci-bridge/1");
}

static uint32_t config_read(struct rig *r, unsigned address, unsigned offset, unsigned size)
{
    test_outl(r->t, 0xcf8, 0x80000000u | address << 8 | (offset & 0xfc));
    return bus_port_read(r->t->machine, (uint16_t)(0xcfc + (offset & 3)), size);
}

static void config_write(struct rig *r, unsigned address, unsigned offset, uint32_t value,
                         unsigned size)
{
    test_outl(r->t, 0xcf8, 0x80000000u | address << 8 | (offset & 0xfc));
    bus_port_write(r->t->machine, (uint16_t)(0xcfc + (offset & 3)), value, size);
}

static bool is_there(struct rig *r, unsigned address)
{
    return config_read(r, address, PCI_VENDOR_ID, 2) != 0xffff;
}

static void find_bars(struct rig *r, unsigned address)
{
    bool is_bridge = config_read(r, address, PCI_HEADER_TYPE, 1) & 1;

    for (unsigned n = 0; n < (is_bridge ? 2 : 6) && r->bar_count < MAX_BARS; n++) {
        unsigned offset = PCI_BAR0 + 4 * n;
        uint32_t mask;

        config_write(r, address, offset, UINT32_MAX, 4);
        mask = config_read(r, address, offset, 4);
        if (!mask)
            continue;
        r->bars[r->bar_count++] = (struct bar){
            .address = (uint8_t)address,
            .offset = (uint8_t)offset,
            .is_io = mask & 1,
            .size_bytes = ~(mask & (mask & 1 ? ~3u : ~15u)) + 1,
        };
        n += (mask & 7) == 4; /* 64 bits */
    }
}

static uint32_t base_of(const struct bar *bar, unsigned number)
{
    return bar->is_io ? FIRST_PORT + number * 0x100 : FIRST_GPA + (number << 20);
}

/* ---- what firmware does ---- */

static void lock_smram(struct rig *r)
{
    memset(r->t->ram.hva + PC_EBDA_END, CANARY, SMRAM_BYTES);
    memset(r->t->ram.hva + TSEG, CANARY, TSEG_BYTES);
    machine_vcpu(r->t->machine, 0)->state.msr.smbase = TSEG;
    config_write(r, 0, HOST_SMRAM + 1, PCI_ESMRAMC_TSEG, 1);
    config_write(r, 0, HOST_SMRAM, PCI_SMRAM_ENABLE | PCI_SMRAM_LOCK, 1);
}

static void be_firmware(struct rig *r)
{
    config_write(r, 0, HOST_ECAM, PC_ECAM | 1, 4);
    for (unsigned n = 0; n < r->bar_count; n++) {
        config_write(r, r->bars[n].address, r->bars[n].offset, base_of(&r->bars[n], n), 4);
        config_write(r, r->bars[n].address, PCI_COMMAND, MASTER, 2);
    }
    ahci_find(r->t);
    ahci_start(r->t, 0);
    ahci_start(r->t, 1);
    if (r->locked)
        lock_smram(r);
}

/* ---- claims ---- */

static void check_view(struct rig *r)
{
    struct memory *memory = machine_memory(r->t->machine);
    uint8_t smram = (uint8_t)pci_config_read(machine_pci_bus(r->t->machine), 0, HOST_SMRAM, 1);
    uint8_t esmramc =
        (uint8_t)pci_config_read(machine_pci_bus(r->t->machine), 0, HOST_SMRAM + 1, 1);
    bool has_tseg = smram & PCI_SMRAM_ENABLE && esmramc & PCI_ESMRAMC_TSEG && !(esmramc & 6);
    const struct flat_range *low, *tseg;
    const struct flat_view *view;

    r->locked &= (smram & PCI_SMRAM_LOCK) != 0; /* a reset has opened it */
    FUZZ_LOCKED(r->t, FUZZ_CLAIM(!has_tseg || !memory_pin(memory, TSEG, 1)));
    if (machine_in_smm(r->t->machine))
        return;
    view = memory_view_get(memory);
    low = flat_view_find(view, PC_EBDA_END);
    tseg = flat_view_find(view, TSEG);
    FUZZ_CLAIM(smram & PCI_SMRAM_OPEN || !low || low->region->kind != REGION_RAM);
    FUZZ_CLAIM(!has_tseg || tseg->region->kind != REGION_RAM);
    memory_view_put(memory, view);
}

static void check_canary(const uint8_t *data, uint64_t size_bytes)
{
    FUZZ_CLAIM(data[0] == CANARY && !memcmp(data, data + 1, size_bytes - 1));
}

/* All but where a processor keeps its registers. */
static void check_smram(struct rig *r)
{
    const uint8_t *ram = r->t->ram.hva;

    check_canary(ram + PC_EBDA_END, SMRAM_BYTES);
    check_canary(ram + TSEG, X86_SMM_AREA_OFFSET);
    check_canary(ram + SAVE_AREA + X86_SMM_AREA_BYTES,
                 TSEG_BYTES - X86_SMM_AREA_OFFSET - X86_SMM_AREA_BYTES);
}

static void quiesce(struct rig *r)
{
    for (struct device *dev = machine_first_device(r->t->machine); dev; dev = dev->next)
        if (dev->class->quiesce)
            fuzz_pause(r->t, dev);
}

/* CMOS memory and the flash are kept. */
static bool is_kept(const struct device *dev)
{
    return dev->class == &rtc_class || dev->class == &pflash_class;
}

static void print_text(void *opaque, const char *text)
{
    (void)opaque;
    fputs(text, stderr);
}

/* The first time it is noted how they are. */
static void check_power_on(struct rig *r)
{
    unsigned n = 0;

    for (struct device *dev = machine_first_device(r->t->machine); dev; dev = dev->next, n++) {
        struct state_buffer now = {0}, *then = &r->power_on[n];
        struct error err = {0};

        FUZZ_CLAIM(n < MAX_DEVICES);
        if (!dev->class->state.version || is_kept(dev))
            continue;
        FUZZ_CLAIM(state_save(&dev->class->state, dev, &now, &err) == 0);
        if (!then->data) {
            *then = now;
            continue;
        }
        if (now.size_bytes != then->size_bytes || memcmp(now.data, then->data, now.size_bytes)) {
            fprintf(stderr, "%s is not as it was after power-on\n", dev->id);
            state_print_json(&dev->class->state, dev, print_text, NULL);
            abort();
        }
        free(now.data);
    }
}

/* ---- steps ---- */

static uint16_t take_port(struct fuzz_input *in)
{
    static const uint16_t places[16] = {0x00,  0x20,  0x40,  0x60,  0x70,  0xa0,  0xb2,  0x170,
                                        0x1f0, 0x3f0, 0x4d0, 0x510, 0x600, 0xcf8, 0xcf8, 0x376};
    uint8_t what = (uint8_t)fuzz_take(in, 1);

    switch (what >> 6) {
    case 0:
        return (uint16_t)fuzz_take(in, 2);
    case 1:
        return (uint16_t)(FIRST_PORT + (what & 0x3f) * 0x100 + fuzz_take(in, 1));
    default:
        return (uint16_t)(places[what & 15] + (what >> 4 & 1) * 8 + (fuzz_take(in, 1) & 7));
    }
}

/* A register of a BAR or of the board, SMRAM, RAM, or anything. */
static uint64_t take_gpa(struct rig *r, struct fuzz_input *in)
{
    static const uint64_t places[16] = {PC_EBDA_END, PC_EBDA_END + 0x10000,
                                        TSEG,        TSEG + 0xfff00,
                                        PC_LAPIC,    PC_IOAPIC,
                                        PC_HPET,     PC_VIRTIO,
                                        PC_ECAM,     0xe0000,
                                        0xfffe0000,  0xffff0000,
                                        0x10000,     0x11000,
                                        0x1000000u,  PC_HIGH_RAM};
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    uint16_t offset = (uint16_t)fuzz_take(in, 2);
    const struct bar *bar;

    if (what >= 0xe0)
        return fuzz_take(in, 8);
    if (what >= 0x80)
        return places[what & 15] + offset;
    if (what >= 0x60)
        return (uint64_t)(what & 0x1f) << 17 | offset;
    bar = &r->bars[what % r->bar_count];
    return base_of(bar, what % r->bar_count) + (offset & (bar->size_bytes - 1));
}

static void access_port(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    unsigned size = 1u << (what & 3) % 3;
    uint16_t port = take_port(in);

    if (what & 4)
        bus_port_read(r->t->machine, port, size);
    else
        bus_port_write(r->t->machine, port, (uint32_t)fuzz_take(in, size), size);
}

/* A processor in SMM may do what it likes to SMRAM; here it is one that leaves it alone. */
static void access_memory(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    unsigned size = 1u << (what & 3);
    uint64_t gpa = take_gpa(r, in);

    if (what & 4)
        bus_memory_read(r->t->machine, gpa, size);
    else if (!machine_in_smm(r->t->machine) || !r->locked)
        bus_memory_write(r->t->machine, gpa, fuzz_take(in, size), size);
}

static void configure(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    unsigned size = 1u << (what & 3) % 3, number = (unsigned)fuzz_take(in, 1);
    unsigned offset = (unsigned)fuzz_take(in, 1) & ~(size - 1);
    unsigned address = number & 0x80 ? r->bars[number % r->bar_count].address : number & 0x7f;

    if (what & 4)
        config_read(r, address, offset, size);
    else
        config_write(r, address, offset, (uint32_t)fuzz_take(in, size), size);
}

static void move_by_dma(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    struct driver_command c = {
        .command = what & 1 ? 0x35 : 0x25, .device = ATA_LBA, .is_out = what & 1, .pieces = 2};

    if (machine_in_smm(r->t->machine) && r->locked)
        return; /* the driver writes its tables as a processor */
    c.lba = fuzz_take(in, 1) % 64;
    for (unsigned n = 0; n < 2; n++) {
        c.piece[n].gpa = take_gpa(r, in) & ~1ull;
        c.piece[n].size_bytes = 512u << (fuzz_take(in, 1) & 3);
        c.count = (uint16_t)(c.count + c.piece[n].size_bytes / 512);
    }
    ahci_put(r->t, 0, 0, &c);
    ahci_issue(r->t, 0, 1, false);
}

/* RSM, as an engine has it. */
static void leave_smm(struct rig *r)
{
    struct vcpu *vcpu = machine_vcpu(r->t->machine, 0);

    if (!vcpu->state.smm.active)
        return;
    vcpu->state.activity = X86_RESUMING;
    machine_request_smm(r->t->machine);
}

static void run_loop(struct rig *r)
{
    uint8_t frames[4096];

    device_test_loop(r->t);
    for (unsigned n = 0; n < 2; n++)
        while (recv(r->peers[n], frames, sizeof(frames), MSG_DONTWAIT) > 0)
            ;
}

static void round_trip(struct rig *r, uint8_t which)
{
    struct device *dev = machine_first_device(r->t->machine);

    while (dev->next && which--)
        dev = dev->next;
    quiesce(r);
    if (dev->class->state.version)
        device_test_round_trip(r->t, dev);
}

/* False: the machine was switched off. */
static bool step(struct rig *r, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);

    switch (what & 15) {
    case 0:
    case 1:
    case 2:
    case 3:
        access_port(r, in, what >> 4);
        break;
    case 4:
    case 5:
    case 6:
    case 7:
        access_memory(r, in, what >> 4);
        break;
    case 8:
    case 9:
        configure(r, in, what >> 4);
        break;
    case 10:
    case 11:
        move_by_dma(r, in, what >> 4);
        break;
    case 12:
        device_test_advance_ns(r->t, fuzz_take_ns(in, 24));
        break;
    case 13:
        leave_smm(r);
        run_loop(r);
        break;
    case 14:
        if (what >> 4 == 0)
            round_trip(r, (uint8_t)fuzz_take(in, 1));
        else
            quiesce(r);
        break;
    default:
        run_loop(r);
        break;
    }
    return !atomic_load(&r->t->machine->stop_requested);
}

static void switch_on_again(struct rig *r)
{
    struct machine *machine = r->t->machine;

    atomic_store(&machine->stop_requested, false);
    atomic_store(&machine->stop_claimed, false);
    machine_release(machine, HOLD_STOP);
}

static struct rig *rig(void)
{
    static struct rig r;

    if (!r.t) {
        new_machine(&r);
        add_devices(&r);
        device_test_start(r.t);
        for (unsigned address = 0; address < 256; address++)
            if (is_there(&r, address))
                find_bars(&r, address);
    }
    quiesce(&r);
    fuzz_go_to_start(r.t);
    run_loop(&r);
    memset(r.t->ram.hva, 0, RAM_BYTES);
    return &r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct rig *r = rig();

    check_power_on(r);
    r->locked = fuzz_take(&in, 1) & 1;
    be_firmware(r);
    while (in.left && step(r, &in))
        check_view(r);
    if (r->locked)
        check_smram(r);
    switch_on_again(r);
    return 0;
}
