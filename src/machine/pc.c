/*
 * pc.c - the PC board
 *
 * Reads from top to bottom like a wiring list: memory, interrupt controllers,
 * timers, ports, PCI. Addresses are in pc_layout.h and, where a device has fixed
 * ones, in its own header.
 *
 * The board is itself a device, so that it lives exactly as long as the machine
 * and after all others: it owns the RAM regions, the ISA interrupt wires and
 * the boot image. It has no state that a guest can see.
 */
#include "machine/pc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/acpi_pm.h"
#include "devices/apic.h"
#include "devices/floppy/floppy.h"
#include "devices/fw_cfg.h"
#include "devices/hpet.h"
#include "devices/ioapic.h"
#include "devices/pci_host.h"
#include "devices/pflash.h"
#include "devices/pic.h"
#include "devices/pit.h"
#include "devices/rtc.h"
#include "devices/virtio/transport_mmio.h"
#include "host/file.h"
#include "machine/firmware.h"
#include "machine/pc_layout.h"
#include "machine/pc_smm.h"
#include "machine/shadow.h"
#include "machine/smbios.h"
#include "machine/table_loader.h"
#include "trapeze/block.h"
#include "trapeze/device.h"
#include "trapeze/input.h"
#include "trapeze/irq.h"
#include "trapeze/pci.h"
#include "x86/features.h"

#define ISA_IRQ_COUNT     16
#define COM1_PORT         0x3f8

#define CMOS_FLOPPY_TYPES 0x10
#define CMOS_EQUIPMENT    0x14
#define CMOS_HAS_FLOPPY   0x01

struct pc_board {
    struct device dev;

    struct pc_layout layout;
    struct region ram_conventional; /* 0 to 640 KiB */
    struct region ram_bios;         /* 768 KiB to 1 MiB: tables, or shadowed by the ROM's alias */
    struct region ram_low;          /* 1 MiB to the hole */
    struct region ram_high;         /* from 4 GiB */
    struct firmware_rom rom;
    struct shadow shadow;
    struct table_loader tables;
    struct boot_image image;
    struct isa_irqs isa;
    struct device *acpi_pm, *fw_cfg, *pci_host, *pci_isa, *rtc;
    struct pc_smm smm;

    /* While building. */
    const struct pc_config *config;
    int status; /* first failure; then nothing more is done */
    struct error *err;
};

/* ---- a small vocabulary, so that the list below is a list ---- */

static struct device *plug(struct pc_board *pc, const char *class_name, const char *id)
{
    const struct device_class *class = device_class_find(class_name);
    struct device *dev;

    if (pc->status)
        return NULL;
    if (!class) {
        pc->status = error_set(pc->err, ENOENT, "there is no device class '%s'", class_name);
        return NULL;
    }
    dev = device_new(pc->dev.machine, class, id, pc->err);
    if (!dev)
        pc->status = -ENOMEM;
    return dev;
}

static void set(struct pc_board *pc, struct device *dev, const char *property, uint64_t value)
{
    if (!pc->status)
        pc->status = device_set_u64(dev, property, value, pc->err);
}

static void set_pointer(struct pc_board *pc, struct device *dev, const char *property,
                        void *pointer)
{
    if (!pc->status)
        pc->status = device_set_pointer(dev, property, pointer, pc->err);
}

static void power(struct pc_board *pc, struct device *dev)
{
    if (!pc->status)
        pc->status = device_attach(dev, pc->err);
}

static void wire(struct pc_board *pc, struct irq_line *line, irq_sink_fn *sink, void *opaque,
                 unsigned number)
{
    if (pc->status)
        return;
    if (line)
        irq_connect(line, sink, opaque, number);
    else
        pc->status = error_set(pc->err, ENOENT, "an interrupt output is missing");
}

/* A device's named output to an ISA interrupt. */
static void wire_isa(struct pc_board *pc, struct device *dev, const char *output, unsigned irq)
{
    if (!pc->status)
        wire(pc, device_output(dev, output, 0), isa_irq_sink, &pc->isa, irq);
}

/* ---- the wiring list ---- */

static void map_ram(struct pc_board *pc, struct region *region, const char *name, uint64_t gpa,
                    uint64_t size_bytes, uint64_t ram_offset)
{
    struct memory *memory = device_memory(&pc->dev);

    *region = (struct region){
        .name = name,
        .kind = REGION_RAM,
        .gpa = gpa,
        .size_bytes = size_bytes,
        .hva = memory_ram_hva(memory) + ram_offset,
        .ram_offset = ram_offset,
    };
    if (!pc->status && size_bytes)
        pc->status = memory_map(memory, region, pc->err);
}

/* Bytes at 640-768 KiB of the RAM file stay unused: that is the VGA's window. */
static void wire_memory(struct pc_board *pc)
{
    const struct pc_layout *layout = &pc->layout;

    map_ram(pc, &pc->ram_conventional, "RAM below 640 KiB", 0, PC_EBDA_END, 0);
    map_ram(pc, &pc->ram_bios, "RAM of the BIOS area", PC_VGA_END, PC_BIOS_END - PC_VGA_END,
            PC_VGA_END);
    map_ram(pc, &pc->ram_low, "RAM below 4 GiB", PC_BIOS_END, layout->low_ram_bytes - PC_BIOS_END,
            PC_BIOS_END);
    map_ram(pc, &pc->ram_high, "RAM above 4 GiB", PC_HIGH_RAM, layout->high_ram_bytes,
            layout->low_ram_bytes);
}

static void wire_interrupt_controllers(struct pc_board *pc)
{
    struct machine *machine = pc->dev.machine;
    struct device *dev;

    for (unsigned i = 0; i < machine_vcpu_count(machine); i++) {
        dev = plug(pc, "apic", NULL);
        set(pc, dev, "vcpu", i);
        power(pc, dev);
    }

    dev = plug(pc, "ioapic", NULL);
    set(pc, dev, "gpa", PC_IOAPIC);
    set(pc, dev, "apic_id", PC_IOAPIC_ID);
    power(pc, dev);
    pc->isa.ioapic = dev;

    dev = plug(pc, "pic", NULL);
    power(pc, dev);
    pc->isa.pic = dev;
    if (!pc->status)
        wire(pc, pic_output(dev), apic_intr_sink, machine, 0);
}

/* How much RAM there is, where old systems and firmware look: low byte first. */
static void note_ram(struct pc_board *pc, struct device *rtc)
{
    const struct pc_layout *layout = &pc->layout;
    const struct {
        uint8_t index, bytes;
        uint64_t value;
    } notes[] = {
        {0x15, 2, 640},                                  /* KiB from 0 */
        {0x17, 2, (layout->low_ram_bytes >> 10) - 1024}, /* KiB from 1 MiB */
        {0x30, 2, (layout->low_ram_bytes >> 10) - 1024}, /* the same */
        {0x34, 2,
         layout->low_ram_bytes < 16u << 20 /* 64 KiB from 16 MiB */
             ? 0
             : (layout->low_ram_bytes - (16u << 20)) >> 16},
        {0x5b, 3, layout->high_ram_bytes >> 16}, /* 64 KiB from 4 GiB */
    };

    for (size_t i = 0; i < sizeof(notes) / sizeof(notes[0]); i++) {
        uint64_t max = (1ull << 8 * notes[i].bytes) - 1;
        uint64_t value = notes[i].value < max ? notes[i].value : max;

        for (unsigned n = 0; n < notes[i].bytes; n++)
            rtc_set_cmos(rtc, notes[i].index + n, (uint8_t)(value >> 8 * n));
    }
}

/* Channel 0 of the PIT and the RTC pass through the HPET, which can take their place. */
static void wire_timers(struct pc_board *pc)
{
    struct device *hpet, *dev;

    hpet = plug(pc, "hpet", NULL);
    set(pc, hpet, "gpa", PC_HPET);
    power(pc, hpet);
    if (!pc->status)
        hpet_connect(hpet, isa_irq_sink, &pc->isa, ioapic_sink, pc->isa.ioapic);

    dev = plug(pc, "pit", NULL);
    set_pointer(pc, dev, "audio", pc->config->audio);
    power(pc, dev);
    if (!pc->status)
        wire(pc, pit_output(dev), hpet_sink, hpet, PC_IRQ_PIT);

    dev = plug(pc, "rtc", NULL);
    power(pc, dev);
    if (!pc->status)
        wire(pc, rtc_output(dev), hpet_sink, hpet, PC_IRQ_RTC);
    pc->rtc = dev;
    if (!pc->status)
        note_ram(pc, dev);
}

static void wire_serial(struct pc_board *pc, unsigned number, uint16_t port, unsigned irq)
{
    struct device *dev = plug(pc, "uart16550", number ? "com2" : "com1");

    set(pc, dev, "port", port);
    set_pointer(pc, dev, "chardev", pc->config->serial[number]);
    power(pc, dev);
    wire_isa(pc, dev, "irq", irq);
}

static void wire_dma(struct pc_board *pc)
{
    struct device *dma = plug(pc, "isa-dma", NULL), *floppy;

    power(pc, dma);
    if (!pc->config->has_floppy)
        return;
    floppy = plug(pc, "floppy", NULL);
    set_pointer(pc, floppy, "dma", dma);
    power(pc, floppy);
    wire_isa(pc, floppy, "irq", PC_IRQ_FLOPPY);
}

static void wire_debug_console(struct pc_board *pc)
{
    struct device *dev = plug(pc, "debug-console", NULL);

    set_pointer(pc, dev, "chardev", pc->config->debug_console);
    power(pc, dev);
}

/* What firmware and guests can ask about the machine (QEMU's docs/specs/fw_cfg). */
static void wire_fw_cfg(struct pc_board *pc)
{
    struct device *dev = plug(pc, "fw-cfg", NULL);
    const struct pc_layout *layout = &pc->layout;
    uint8_t e820[PC_E820_MAX * 20], ram[8], window[8];

    power(pc, dev);
    pc->fw_cfg = dev;
    put_le64(ram, layout->low_ram_bytes + layout->high_ram_bytes);
    for (size_t i = 0; i < layout->e820_count; i++) {
        put_le64(e820 + i * 20, layout->e820[i].gpa);
        put_le64(e820 + i * 20 + 8, layout->e820[i].size_bytes);
        put_le32(e820 + i * 20 + 16, layout->e820[i].type);
    }
    if (!pc->status)
        pc->status = fw_cfg_add_item(dev, FW_CFG_RAM_SIZE, ram, sizeof(ram), pc->err);
    if (!pc->status)
        pc->status = fw_cfg_add_u16(dev, FW_CFG_NB_CPUS, (uint16_t)layout->vcpu_count, pc->err);
    if (!pc->status)
        pc->status = fw_cfg_add_u16(dev, FW_CFG_MAX_CPUS, (uint16_t)layout->vcpu_count, pc->err);
    if (!pc->status)
        pc->status = fw_cfg_add_file(dev, "etc/e820", e820, layout->e820_count * 20, NULL, NULL,
                                     NULL, pc->err);
    put_le64(window, pc_high_window(layout));
    if (!pc->status) /* where firmware begins with 64-bit BARs, as the DSDT says */
        pc->status = fw_cfg_add_file(dev, "etc/reserved-memory-end", window, sizeof(window), NULL,
                                     NULL, NULL, pc->err);
}

static void wire_ports(struct pc_board *pc)
{
    struct device *dev;

    dev = plug(pc, "i8042", NULL);
    power(pc, dev);
    wire_isa(pc, dev, "keyboard_irq", PC_IRQ_KEYBOARD);
    wire_isa(pc, dev, "mouse_irq", PC_IRQ_MOUSE);

    power(pc, plug(pc, "port92", NULL));

    wire_dma(pc);

    wire_serial(pc, 0, COM1_PORT, PC_IRQ_COM1);
    wire_serial(pc, 1, 0x2f8, PC_IRQ_COM2);

    dev = plug(pc, "debug-exit", NULL);
    set(pc, dev, "port", 0xf4);
    power(pc, dev);

    wire_debug_console(pc);

    wire_fw_cfg(pc);
}

static bool wake_by_key(void *opaque)
{
    struct pc_board *pc = opaque;
    bool slept = acpi_pm_is_asleep(pc->acpi_pm);

    acpi_pm_wake(pc->acpi_pm);
    return slept;
}

static void wire_power_management(struct pc_board *pc)
{
    pc->acpi_pm = plug(pc, "acpi-pm", NULL);
    power(pc, pc->acpi_pm);
    wire_isa(pc, pc->acpi_pm, "sci", ACPI_SCI_IRQ);
    if (pc->status)
        return;
    wire(pc, device_output(pc->rtc, "alarm", 0), acpi_pm_alarm_sink, pc->acpi_pm, 0);
    input_set_wake(machine_input(pc->dev.machine), wake_by_key, pc);
}

/* PCI lines go to the I/O APIC, and where the ISA bridge's registers say to the 8259 pair. */
static void wire_pci(struct pc_board *pc)
{
    struct device *host = plug(pc, "pci-host", NULL), *isa;

    pc->pci_host = host;
    set(pc, host, "ecam", PC_ECAM);
    power(pc, host);
    for (unsigned i = 0; i < PCI_PIRQS && !pc->status; i++)
        wire(pc, device_output(host, "pirq", i), ioapic_sink, pc->isa.ioapic, PC_GSI_PCI + i);

    isa = pc->pci_isa = plug(pc, "pci-isa", NULL);
    power(pc, isa);
    for (unsigned i = 0; i < ISA_IRQ_COUNT && !pc->status; i++)
        wire(pc, device_output(isa, "isa", i), pic_sink, pc->isa.pic, i);
}

_Static_assert(VIRTIO_MMIO_PLACES == PC_VIRTIO_PLACES && VIRTIO_MMIO_LINES == PC_VIRTIO_LINES &&
                   VIRTIO_MMIO_BYTES == PC_VIRTIO_SIZE,
               "the tables say what the bus has");

static void wire_virtio(struct pc_board *pc)
{
    struct device *bus = plug(pc, "virtio-mmio-bus", NULL);

    set(pc, bus, "gpa", PC_VIRTIO);
    power(pc, bus);
    for (unsigned i = 0; i < PC_VIRTIO_LINES && !pc->status; i++)
        wire(pc, device_output(bus, "irq", i), isa_irq_sink, &pc->isa, pc_virtio_irqs[i]);
}

/* ---- what runs on it ---- */

static void start_image(void *opaque, struct machine *machine)
{
    struct pc_board *pc = opaque;

    pc->layout.virtio_taken = virtio_mmio_taken(machine);
    firmware_start_image(&pc->image, machine);
}

static void update_shadow(void *opaque, const uint8_t pam[PCI_HOST_PAM_BYTES])
{
    struct pc_board *pc = opaque;

    shadow_update(&pc->shadow, &pc->dev, &pc->ram_bios, pam);
}

static int wire_smm(struct pc_board *pc)
{
    pc->smm = (struct pc_smm){
        .board = &pc->dev,
        .host = pc->pci_host,
        .isa = pc->pci_isa,
        .acpi_pm = pc->acpi_pm,
        .fw_cfg = pc->fw_cfg,
        .low_ram_bytes = pc->layout.low_ram_bytes,
    };
    return pc_smm_wire(&pc->smm, pc->err);
}

/* The flash with UEFI's variables ends where the ROM begins. */
static int insert_variables(struct pc_board *pc)
{
    const struct pc_config *config = pc->config;
    struct device *dev = plug(pc, "pflash", NULL);
    uint64_t size_bytes = config->variables ? block_size_bytes(config->variables) : 0;
    uint8_t *data = NULL;
    size_t read_bytes;

    if (!pc->status && config->variables)
        set_pointer(pc, dev, "drive", config->variables);
    else if (!pc->status)
        pc->status =
            host_file_read(config->variables_file, PC_FIRMWARE_MAX, &data, &read_bytes, pc->err);
    if (!pc->status && data) {
        size_bytes = read_bytes;
        pc->status = pflash_set_contents(dev, data, read_bytes, pc->err);
    }
    free(data);
    if (pc->rom.region.gpa < size_bytes)
        return error_set(pc->err, EFBIG, "UEFI's variables leave no room below 4 GiB");
    set(pc, dev, "gpa", pc->rom.region.gpa - size_bytes);
    if (!pc->status)
        pc->status = device_set(dev, "secure", config->smm ? "on" : "off", pc->err);
    power(pc, dev);
    if (pc->status)
        error_prefix(pc->err, "UEFI variables: ");
    return pc->status;
}

/* SeaBIOS and OVMF take the old entry point, and put in where they have the structures. */
static int add_smbios(struct pc_board *pc)
{
    static uint8_t tables[SMBIOS_TABLES_MAX_BYTES];
    size_t size_bytes;
    int status = smbios_build(&pc->layout, 0, tables, sizeof(tables), &size_bytes, pc->err);

    if (status == 0)
        status =
            fw_cfg_add_file(pc->fw_cfg, "etc/smbios/smbios-anchor", tables + SMBIOS_ENTRY2_OFFSET,
                            SMBIOS_ENTRY2_BYTES, NULL, NULL, NULL, pc->err);
    if (status == 0)
        status = fw_cfg_add_file(pc->fw_cfg, "etc/smbios/smbios-tables",
                                 tables + SMBIOS_STRUCTURES_OFFSET,
                                 size_bytes - SMBIOS_STRUCTURES_OFFSET, NULL, NULL, NULL, pc->err);
    if (status == 0 && pc->layout.identity.has_uuid)
        status = fw_cfg_add_item(pc->fw_cfg, FW_CFG_UUID, pc->layout.identity.uuid,
                                 sizeof(pc->layout.identity.uuid), pc->err);
    return status;
}

/* A ROM, and what it asks fw_cfg for. */
static int insert_firmware(struct pc_board *pc)
{
    static const uint8_t console_port[2] = {COM1_PORT & 0xff, COM1_PORT >> 8};
    /* A byte a state: bit 7 if it can be entered, and what goes into SLP_TYP. */
    static const uint8_t sleep_states[6] = {
        [0] = 0x80, [3] = 0x80 | ACPI_SLEEP_TYPE_S3, [5] = 0x80 | ACPI_SLEEP_TYPE_S5};
    int status = firmware_map_rom(&pc->rom, device_memory(&pc->dev), pc->config->firmware, pc->err);

    pc->tables = (struct table_loader){.layout = &pc->layout, .pci_host = pc->pci_host};
    if (status == 0)
        status = table_loader_add(&pc->tables, pc->fw_cfg, pc->err);
    if (status == 0)
        status = add_smbios(pc);
    if (status == 0) /* SeaBIOS: text goes there, and to the screen if there is one */
        status = fw_cfg_add_file(pc->fw_cfg, "etc/sercon-port", console_port, sizeof(console_port),
                                 NULL, NULL, NULL, pc->err);
    if (status == 0)
        status = fw_cfg_add_file(pc->fw_cfg, "etc/system-states", sleep_states,
                                 sizeof(sleep_states), NULL, NULL, NULL, pc->err);
    pci_host_set_shadow(pc->pci_host, update_shadow, pc);
    if (status == 0 && (pc->config->variables || pc->config->variables_file))
        status = insert_variables(pc);
    return status;
}

static int insert_software(struct pc_board *pc)
{
    const struct pc_config *config = pc->config;
    int status;

    if (config->firmware && config->kernel)
        return error_set(pc->err, EINVAL,
                         "a kernel cannot be handed to firmware yet; give one of --kernel and "
                         "--firmware");
    if (!config->kernel && (config->initrd_count || config->append))
        return error_set(
            pc->err, EINVAL,
            "an initrd or a kernel command line needs a kernel; give it with --kernel");
    if (config->firmware)
        return insert_firmware(pc);
    if (!config->kernel)
        return 0;
    status = firmware_build_image(&pc->image, config, pc->err);
    if (status == 0)
        machine_set_boot(pc->dev.machine, start_image, pc);
    return status;
}

/* ---- the board as a device ---- */

static struct pc_board *pc_of(struct device *dev)
{
    return container_of(dev, struct pc_board, dev);
}

static void pc_detach(struct device *dev)
{
    struct pc_board *pc = pc_of(dev);
    struct memory *memory = device_memory(dev);

    machine_set_boot(dev->machine, NULL, NULL);
    input_set_wake(machine_input(dev->machine), NULL, NULL);
    pc_smm_done(&pc->smm);
    shadow_unmap(&pc->shadow, memory);
    firmware_unmap_rom(&pc->rom, memory);
    memory_unmap(memory, &pc->ram_high);
    memory_unmap(memory, &pc->ram_low);
    memory_unmap(memory, &pc->ram_bios);
    memory_unmap(memory, &pc->ram_conventional);
    boot_image_done(&pc->image);
}

static int set_identity(struct pc_identity *identity, const struct pc_config *config,
                        struct error *err)
{
    const char *number = config->serial_number ? config->serial_number : "";

    if (strlen(number) > PC_SERIAL_NUMBER_MAX)
        return error_set(err, EINVAL, "a serial number has up to %d characters",
                         PC_SERIAL_NUMBER_MAX);
    strcpy(identity->serial_number, number);
    identity->has_uuid = config->uuid != NULL;
    if (config->uuid)
        memcpy(identity->uuid, config->uuid, sizeof(identity->uuid));
    return 0;
}

static int pc_attach(struct device *dev, struct error *err)
{
    struct pc_board *pc = pc_of(dev);
    const struct machine_config *config = machine_config(dev->machine);

    (pc->config->firmware ? pc_layout_init_for_firmware : pc_layout_init)(
        &pc->layout, config->ram_bytes, machine_vcpu_count(dev->machine));
    pc->layout.physical_bits = machine_vcpu(dev->machine, 0)->model->physical_bits;
    pc->layout.has_vga = pc->config->has_vga;
    pc->layout.has_floppy = pc->config->has_floppy;
    boot_image_init(&pc->image, &pc->layout);
    pc->err = err;
    pc->status = set_identity(&pc->layout.identity, pc->config, err);
    wire_memory(pc);
    return pc->status;
}

static int pc_after_load(void *object, struct error *err)
{
    struct pc_board *pc = object;

    (void)err;
    pc_smm_loaded(&pc->smm);
    return 0;
}

static const struct state_field pc_state[] = {
    STATE_STRUCT(struct pc_board, smm, pc_smm_state),
    STATE_END,
};

static const struct device_class pc_class = {
    .name = "pc",
    .summary = "the board: memory and wires",
    .bus = BUS_PLATFORM,
    .instance_size = sizeof(struct pc_board),
    .attach = pc_attach,
    .detach = pc_detach,
    .state = {.version = 1, .oldest = 1, .fields = pc_state, .after_load = pc_after_load},
};

static int wire_everything(struct pc_board *pc)
{
    wire_interrupt_controllers(pc);
    wire_timers(pc);
    wire_ports(pc);
    wire_power_management(pc);
    wire_pci(pc);
    wire_virtio(pc);
    if (!pc->status && pc->config->smm)
        pc->status = wire_smm(pc);
    return pc->status ? pc->status : insert_software(pc);
}

int pc_build(struct machine *machine, const struct pc_config *config, struct error *err)
{
    struct device *dev = device_new(machine, &pc_class, NULL, err);
    struct pc_board *pc;
    int status;

    if (!dev)
        return -ENOMEM;
    pc = pc_of(dev);
    pc->config = config;
    pc->err = err;
    status = device_attach(dev, err);
    if (status)
        return status;
    machine_lock(machine);
    status = wire_everything(pc);
    machine_unlock(machine);
    pc->config = NULL;
    pc->err = NULL;
    return status;
}

/* NULL if the machine has no such board. */
static struct pc_board *board_of(struct machine *machine)
{
    struct device *dev = machine_find_device(machine, pc_class.name);

    return dev && dev->class == &pc_class ? pc_of(dev) : NULL;
}

/* As firmware and old systems look for them: the equipment byte, and what the drives are for. */
static void note_floppy(struct pc_board *pc)
{
    struct device *dev = machine_first_device(pc->dev.machine);
    uint8_t types = 0;
    unsigned count = 0;

    for (; dev && count < FLOPPY_DRIVES; dev = dev->next)
        if (dev->class == &floppy_drive_class && dev->attached)
            types |= (uint8_t)(floppy_type(dev) << (count++ ? 0 : 4));
    rtc_set_cmos(pc->rtc, CMOS_FLOPPY_TYPES, types);
    rtc_set_cmos(pc->rtc, CMOS_EQUIPMENT, (uint8_t)(CMOS_HAS_FLOPPY | (count - 1) << 6));
}

void pc_wire_added(struct machine *machine, struct device *dev)
{
    struct pc_board *pc = board_of(machine);
    struct irq_line *line;

    for (unsigned i = 0; pc && i < ISA_IRQ_COUNT && (line = device_output(dev, "isa", i)); i++)
        irq_connect(line, isa_irq_sink, &pc->isa, i);
    for (unsigned i = 0; pc && (line = device_output(dev, "ide", i)); i++)
        irq_connect(line, isa_irq_sink, &pc->isa, PC_IRQ_IDE + i);
    if (pc && dev->class == &floppy_drive_class)
        note_floppy(pc);
}

/* The device behind last (NULL: the first one); those with equal indices as they were added. */
static struct device *next_to_boot(struct machine *machine, const struct device *last)
{
    struct device *found = NULL;
    bool is_behind = !last; /* in the machine's list */

    for (struct device *dev = machine_first_device(machine); dev; dev = dev->next) {
        bool is_later = !last || dev->boot_index > last->boot_index ||
                        (dev->boot_index == last->boot_index && is_behind);

        if (dev->boot_index && dev->class->boot_path && is_later &&
            (!found || dev->boot_index < found->boot_index))
            found = dev;
        is_behind |= dev == last;
    }
    return found;
}

int pc_set_boot_order(struct machine *machine, struct error *err)
{
    struct pc_board *pc = board_of(machine);
    char order[4096], path[128];
    size_t used = 0;

    for (struct device *dev = next_to_boot(machine, NULL); dev; dev = next_to_boot(machine, dev)) {
        dev->class->boot_path(dev, path, sizeof(path));
        if (used + strlen(path) + 1 >= sizeof(order))
            break;
        used +=
            (size_t)snprintf(order + used, sizeof(order) - used, "%s%s", used ? "\n" : "", path);
    }
    if (!used || !pc || !pc->fw_cfg)
        return 0;
    return fw_cfg_add_file(pc->fw_cfg, "bootorder", order, used + 1, NULL, NULL, NULL, err);
}

/* NULL if there is no power management. */
static struct device *power_management_of(struct machine *machine)
{
    struct pc_board *pc = board_of(machine);

    return pc ? pc->acpi_pm : NULL;
}

void pc_press_power_button(struct machine *machine)
{
    struct device *pm = power_management_of(machine);

    if (pm)
        acpi_pm_press_power_button(pm);
}

void pc_press_sleep_button(struct machine *machine)
{
    struct device *pm = power_management_of(machine);

    if (pm)
        acpi_pm_press_sleep_button(pm);
}

bool pc_is_asleep(struct machine *machine)
{
    struct device *pm = power_management_of(machine);

    return pm && acpi_pm_is_asleep(pm);
}

void pc_wake(struct machine *machine)
{
    struct device *pm = power_management_of(machine);

    if (pm)
        acpi_pm_wake(pm);
}
