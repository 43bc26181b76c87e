/*
 * firmware.c - what runs first: a ROM image, or a kernel put in place directly
 *
 * Memory types as PC firmware leaves them (SDM vol. 3, 12.11), BIOS data area after
 * the IBM PS/2 technical reference, virtual wire mode after the MultiProcessor
 * specification 1.4, 3.6.2.2. Interrupt vectors, the 8259 pair's masks and the timer after the IBM
 * PC AT technical reference. Left out: BIOS services, PCI resource assignment, and
 * handing a kernel to the firmware.
 */
#include "machine/firmware.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "devices/apic.h"
#include "host/file.h"
#include "machine/acpi.h"
#include "machine/loaders.h"
#include "machine/mp_table.h"
#include "machine/smbios.h"
#include "trapeze/device.h"
#include "x86/bits.h"
#include "x86/features.h"

#define FOUR_GIB         0x100000000ull
#define KERNEL_MAX_BYTES (1ull << 30)
#define MODULE_MAX_BYTES (4ull << 30)
#define MODULES_MAX      (BOOT_IMAGE_MAX_FILES - 1)

/* ---- ROM ---- */

static int check_rom(size_t size_bytes, struct error *err)
{
    if (size_bytes == 0 || size_bytes % GUEST_PAGE_SIZE)
        return error_set(err, ENOEXEC,
                         "it is %zu bytes long, and a ROM image has whole 4 KiB pages; is it cut "
                         "short?",
                         size_bytes);
    return 0;
}

static int map_rom(struct firmware_rom *rom, struct memory *memory, const uint8_t *data,
                   size_t size_bytes, struct error *err)
{
    uint64_t low_bytes = size_bytes < PC_FIRMWARE_LOW_SIZE ? size_bytes : PC_FIRMWARE_LOW_SIZE;
    uint64_t ram_offset;
    uint8_t *hva = memory_add_block(memory, size_bytes, &ram_offset, err);
    int status;

    if (!hva)
        return -ENOMEM;
    memcpy(hva, data, size_bytes);
    rom->region = (struct region){
        .name = "firmware",
        .kind = REGION_ROM,
        .gpa = FOUR_GIB - size_bytes,
        .size_bytes = size_bytes,
        .hva = hva,
        .ram_offset = ram_offset,
    };
    rom->low_alias = (struct region){
        .name = "firmware below 1 MiB",
        .kind = REGION_ALIAS,
        .gpa = PC_BIOS_END - low_bytes,
        .size_bytes = low_bytes,
        .priority = 1,
        .target = &rom->region,
        .target_offset = size_bytes - low_bytes,
    };
    status = memory_map(memory, &rom->region, err);
    return status ? status : memory_map(memory, &rom->low_alias, err);
}

int firmware_map_rom(struct firmware_rom *rom, struct memory *memory, const char *path,
                     struct error *err)
{
    uint8_t *data = NULL;
    size_t size_bytes;
    int status = host_file_read(path, PC_FIRMWARE_MAX, &data, &size_bytes, err);

    if (status == 0)
        status = check_rom(size_bytes, err);
    if (status == 0)
        status = map_rom(rom, memory, data, size_bytes, err);
    free(data);
    if (status)
        error_prefix(err, "firmware '%s': ", path);
    return status;
}

void firmware_unmap_rom(struct firmware_rom *rom, struct memory *memory)
{
    memory_unmap(memory, &rom->low_alias);
    memory_unmap(memory, &rom->region);
}

/* ---- the image of a direct start ---- */

/* The BIOS data area: what systems look at before they know better. */
static int add_bios_data(struct boot_image *image, struct error *err)
{
    uint8_t area[256] = {0};
    uint8_t ebda_kib = (uint8_t)((PC_EBDA_END - PC_CONVENTIONAL_END) >> 10);
    int status;

    put_le16(area + 0x00, 0x3f8); /* serial ports */
    put_le16(area + 0x02, 0x2f8);
    put_le16(area + 0x0e, (uint16_t)(PC_CONVENTIONAL_END >> 4)); /* EBDA segment */
    put_le16(area + 0x10, 1 << 1 | 1 << 2 | 2 << 9); /* FPU, PS/2 mouse, two serial ports */
    put_le16(area + 0x13, (uint16_t)(PC_CONVENTIONAL_END >> 10));
    status = boot_image_add_table(image, "BIOS data area", 0x400, area, sizeof(area), err);
    if (status)
        return status;
    return boot_image_add_table(image, "extended BIOS data area", PC_CONVENTIONAL_END, &ebda_kib, 1,
                                err);
}

/*
 * Interrupts for systems that go to real mode, which is all that is left of a BIOS here: IRQs are
 * acknowledged, IRQ 0 counts ticks and calls INT 1Ch, everything else returns at once.
 */
static const uint8_t on_timer[] = {
    0x50, 0x1e, 0xb8, 0x40, 0x00, /* push ax; push ds; mov ax, 0x40 */
    0x8e, 0xd8,                   /* mov ds, ax */
    0x66, 0xff, 0x06, 0x6c, 0x00, /* inc dword [0x6c]: ticks; midnight is left out */
    0xcd, 0x1c,                   /* int 0x1c */
    0xb0, 0x20, 0xe6, 0x20,       /* mov al, 0x20; out 0x20, al */
    0x1f, 0x58, 0xcf,             /* pop ds; pop ax; iret */
};
static const uint8_t on_master_irq[] = {
    0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf, /* push ax; EOI; pop ax; iret */
};
static const uint8_t on_slave_irq[] = {
    0x50, 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0x58, 0xcf,
};
static const uint8_t on_interrupt[] = {0xcf}; /* iret */

/* Where PCs have the handlers of INT 8 and of unused vectors; the others are anywhere between. */
#define BIOS_SEGMENT       0xf000u
#define ON_TIMER_OFFSET    0xfea5u
#define ON_MASTER_OFFSET   0xff00u
#define ON_SLAVE_OFFSET    0xff10u
#define ON_INTERRUPT       0xff53u
#define BIOS_MASTER_VECTOR 0x08u
#define BIOS_SLAVE_VECTOR  0x70u

static uint16_t handler_offset(unsigned vector)
{
    if (vector == BIOS_MASTER_VECTOR)
        return ON_TIMER_OFFSET;
    if (vector - BIOS_MASTER_VECTOR < 8)
        return ON_MASTER_OFFSET;
    return vector - BIOS_SLAVE_VECTOR < 8 ? ON_SLAVE_OFFSET : ON_INTERRUPT;
}

static int add_interrupts(struct boot_image *image, struct error *err)
{
    uint8_t code[ON_INTERRUPT + sizeof(on_interrupt) - ON_TIMER_OFFSET] = {0};
    uint8_t vectors[256 * 4];
    int status;

    memcpy(code, on_timer, sizeof(on_timer));
    memcpy(code + (ON_MASTER_OFFSET - ON_TIMER_OFFSET), on_master_irq, sizeof(on_master_irq));
    memcpy(code + (ON_SLAVE_OFFSET - ON_TIMER_OFFSET), on_slave_irq, sizeof(on_slave_irq));
    memcpy(code + (ON_INTERRUPT - ON_TIMER_OFFSET), on_interrupt, sizeof(on_interrupt));
    for (unsigned i = 0; i < 256; i++) {
        put_le16(vectors + 4 * i, handler_offset(i));
        put_le16(vectors + 4 * i + 2, BIOS_SEGMENT);
    }
    status = boot_image_add_table(image, "interrupt vectors", 0, vectors, sizeof(vectors), err);
    if (status)
        return status;
    return boot_image_add_table(image, "interrupt handlers", BIOS_SEGMENT * 16 + ON_TIMER_OFFSET,
                                code, sizeof(code), err);
}

static int add_tables(struct boot_image *image, struct error *err)
{
    static uint8_t buffer[ACPI_TABLES_MAX_BYTES];
    size_t size_bytes;
    int status =
        acpi_build(image->layout, PC_ACPI_GPA, buffer, sizeof(buffer), &size_bytes, NULL, err);

    if (status == 0)
        status = boot_image_add_table(image, "ACPI tables", PC_ACPI_GPA, buffer, size_bytes, err);
    if (status == 0)
        status = smbios_build(image->layout, PC_SMBIOS_GPA, buffer, SMBIOS_TABLES_MAX_BYTES,
                              &size_bytes, err);
    if (status == 0)
        status =
            boot_image_add_table(image, "SMBIOS tables", PC_SMBIOS_GPA, buffer, size_bytes, err);
    if (status == 0)
        status =
            mp_table_build(image->layout, PC_MP_GPA, buffer, MP_TABLE_MAX_BYTES, &size_bytes, err);
    if (status == 0)
        status = boot_image_add_table(image, "MP table", PC_MP_GPA, buffer, size_bytes, err);
    return status;
}

static int read_file(struct boot_image *image, const char *path, uint64_t max_bytes,
                     struct boot_file *out_file, struct error *err)
{
    const struct host_file *file;
    int status = boot_image_read(image, path, max_bytes, &file, err);

    if (status)
        return status;
    out_file->data = file->data;
    out_file->size_bytes = file->size_bytes;
    return 0;
}

/* "PATH ARGUMENTS": a file of the whole name wins. */
static int read_module(struct boot_image *image, const char *name, struct boot_file *out_file,
                       struct error *err)
{
    size_t path_bytes = strcspn(name, " ");
    struct error why = {0};
    char *path;
    int status = read_file(image, name, MODULE_MAX_BYTES, out_file, &why);

    out_file->name = name;
    if (status && name[path_bytes]) {
        path = strndup(name, path_bytes);
        if (!path)
            return error_set(err, ENOMEM, "no memory for a file name");
        error_clear(&why);
        status = read_file(image, path, MODULE_MAX_BYTES, out_file, &why);
        free(path);
    }
    if (status)
        return error_set(err, -status, "initrd '%s': %s", name, why.text);
    return 0;
}

static int read_kernel(struct boot_image *image, const char *path, struct boot_file *out_file,
                       struct error *err)
{
    int status = read_file(image, path, KERNEL_MAX_BYTES, out_file, err);

    out_file->name = path;
    if (status)
        error_prefix(err, "kernel '%s': ", path);
    return status;
}

static int add_kernel(struct boot_image *image, const struct pc_config *config, struct error *err)
{
    struct boot_file modules[MODULES_MAX];
    struct boot_request request = {
        .modules = modules,
        .module_count = config->initrd_count,
        .append = config->append ? config->append : "",
        .entry = config->kernel_entry,
        .rsdp_gpa = PC_ACPI_GPA,
    };
    int status = read_kernel(image, config->kernel, &request.kernel, err);

    if (status == 0 && config->initrd_count > MODULES_MAX)
        status = error_set(err, E2BIG, "there are %zu initrds; %d can be given",
                           config->initrd_count, MODULES_MAX);
    for (size_t i = 0; i < config->initrd_count && status == 0; i++)
        status = read_module(image, config->initrds[i], &modules[i], err);
    if (status)
        return status;
    status = load_kernel(image, &request, err);
    if (status)
        error_prefix(err, "kernel '%s': ", config->kernel);
    return status;
}

int firmware_build_image(struct boot_image *image, const struct pc_config *config,
                         struct error *err)
{
    int status = add_bios_data(image, err);

    if (status == 0)
        status = add_interrupts(image, err);
    if (status == 0)
        status = add_tables(image, err);
    return status ? status : add_kernel(image, config, err);
}

/* ---- every reset ---- */

static int place_zeros(struct memory *memory, uint64_t gpa, uint64_t size_bytes)
{
    static const uint8_t zeros[GUEST_PAGE_SIZE];
    int status = 0;

    while (size_bytes && status == 0) {
        size_t step = size_bytes < sizeof(zeros) ? (size_t)size_bytes : sizeof(zeros);

        status = memory_load(memory, gpa, zeros, step);
        gpa += step;
        size_bytes -= step;
    }
    return status;
}

static int place_image(struct boot_image *image, struct memory *memory, struct error *err)
{
    int status = boot_image_complete(image, err);

    for (size_t i = 0; i < image->piece_count && status == 0; i++) {
        const struct boot_piece *piece = &image->pieces[i];

        if (piece->reserved)
            continue;
        status = memory_load(memory, piece->gpa, piece->data, piece->data_bytes);
        if (status == 0)
            status = place_zeros(memory, piece->gpa + piece->data_bytes,
                                 piece->size_bytes - piece->data_bytes);
        if (status)
            error_set(err, -status, "its memory is gone");
    }
    boot_image_let_go(image);
    return status;
}

/* Devices were added since the image was built; the tables' size is the same. */
static int place_tables(const struct boot_image *image, struct memory *memory, struct error *err)
{
    static uint8_t buffer[ACPI_TABLES_MAX_BYTES];
    size_t size_bytes;
    int status =
        acpi_build(image->layout, PC_ACPI_GPA, buffer, sizeof(buffer), &size_bytes, NULL, NULL);

    if (!status)
        status = memory_load(memory, PC_ACPI_GPA, buffer, size_bytes);
    return status ? error_set(err, -status, "there is no room for the ACPI tables") : 0;
}

enum {
    MEMORY_TYPE_UC = 0,
    MEMORY_TYPE_WP = 5,
    MEMORY_TYPE_WB = 6,
    MTRR_ENABLE = 1 << 11,
    MTRR_FIXED_ENABLE = 1 << 10,
    MTRR_VALID = 1 << 11,
};

static uint64_t eight_times(uint8_t type)
{
    return type * 0x0101010101010101ull;
}

/* Write-back everywhere but in the VGA window, the ROM area and the hole below 4 GiB. */
static void set_memory_types(struct x86_msrs *msr, unsigned physical_bits)
{
    uint64_t hole_bytes = FOUR_GIB - PC_LOW_RAM_MAX;

    msr->mtrr_def_type = MTRR_ENABLE | MTRR_FIXED_ENABLE | MEMORY_TYPE_WB;
    msr->mtrr_fixed[0] = eight_times(MEMORY_TYPE_WB); /* 0-512 KiB */
    msr->mtrr_fixed[1] = eight_times(MEMORY_TYPE_WB); /* 512-640 KiB */
    msr->mtrr_fixed[2] = eight_times(MEMORY_TYPE_UC); /* 640-768 KiB */
    for (unsigned i = 3; i < X86_MTRR_FIXED_COUNT; i++)
        msr->mtrr_fixed[i] = eight_times(MEMORY_TYPE_WP);
    msr->mtrr_base[0] = PC_LOW_RAM_MAX | MEMORY_TYPE_UC;
    msr->mtrr_mask[0] = ((1ull << physical_bits) - hole_bytes) | MTRR_VALID;
}

static struct x86_segment flat_segment(uint16_t selector, unsigned attributes)
{
    return (struct x86_segment){
        .limit = UINT32_MAX,
        .selector = selector,
        .attributes = (uint16_t)(X86_SEG_P | X86_SEG_S | X86_SEG_G | X86_SEG_ACCESSED | attributes),
    };
}

static void set_segments(struct x86_state *state, bool long_mode)
{
    struct x86_segment data = flat_segment(BOOT_GDT_DATA, X86_SEG_WRITABLE | X86_SEG_DB);

    for (unsigned i = 0; i < X86_SEGMENT_COUNT; i++)
        state->seg[i] = data;
    state->seg[X86_CS] = flat_segment(BOOT_GDT_CODE, X86_SEG_CODE | X86_SEG_READABLE |
                                                         (long_mode ? X86_SEG_L : X86_SEG_DB));
    state->ldtr = (struct x86_segment){.selector = 0};
    state->tr = (struct x86_segment){
        .limit = 0x67, .selector = BOOT_GDT_TASK, .attributes = X86_SEG_P | 0xb, /* busy TSS */
    };
}

static void set_registers(struct x86_state *state, const struct boot_entry *entry)
{
    bool long_mode = entry->mode == BOOT_MODE_LONG;

    memset(state->gpr, 0, sizeof(state->gpr));
    state->gpr[X86_RAX] = entry->rax;
    state->gpr[X86_RBX] = entry->rbx;
    state->gpr[X86_RSI] = entry->rsi;
    state->rip = entry->rip;
    state->rflags = X86_FLAG_FIXED;
    set_segments(state, long_mode);
    state->gdtr = (struct x86_table){.base = entry->gdt_gpa, .limit = BOOT_GDT_BYTES - 1};
    state->idtr = (struct x86_table){.base = 0, .limit = 0};
    state->cr0 = X86_CR0_PE | X86_CR0_ET;
    if (!long_mode)
        return;
    state->cr0 |= X86_CR0_PG;
    state->cr3 = entry->cr3;
    state->cr4 = X86_CR4_PAE;
    state->msr.efer = X86_EFER_LME | X86_EFER_LMA;
}

/* Channel 0 of the PIT in mode 3 with the longest count; of the 8259s' inputs only it is let in. */
static void start_bios_timer(struct machine *machine)
{
    static const struct {
        uint16_t port;
        uint8_t value;
    } writes[] = {
        {0x20, 0x11},
        {0x21, BIOS_MASTER_VECTOR},
        {0x21, 1 << 2},
        {0x21, 1},
        {0x21, 0xfa},
        {0xa0, 0x11},
        {0xa1, BIOS_SLAVE_VECTOR},
        {0xa1, 2},
        {0xa1, 1},
        {0xa1, 0xff},
        {0x43, 0x36},
        {0x40, 0},
        {0x40, 0},
    };

    for (size_t i = 0; i < sizeof(writes) / sizeof(writes[0]); i++)
        bus_port_write(machine, writes[i].port, writes[i].value, 1);
}

/* The local APIC that belongs to the first processor. */
static struct device *boot_apic(struct machine *machine)
{
    struct device *dev = machine_first_device(machine);

    while (dev && dev->class != &apic_class)
        dev = dev->next;
    return dev;
}

/* Real mode at CS:IP, with the other registers as a reset leaves them (ACPI 6.4, 16.3.1). */
static void set_real_mode(struct x86_state *state, uint32_t gpa)
{
    state->seg[X86_CS].selector = (uint16_t)(gpa >> 4);
    state->seg[X86_CS].base = gpa & ~15u;
    state->rip = gpa & 15;
}

/* Where the system goes on after suspend to RAM. False: it did not say. */
static bool go_on(const struct boot_image *image, struct machine *machine)
{
    struct x86_state *state = &machine_vcpu(machine, 0)->state;
    struct boot_entry entry = {.mode = BOOT_MODE_PROTECTED, .gdt_gpa = image->entry.gdt_gpa};
    uint32_t gpa;

    switch (acpi_waking_vector(machine_memory(machine), PC_ACPI_GPA, &gpa)) {
    case ACPI_WAKE_REAL:
        set_real_mode(state, gpa);
        return true;
    case ACPI_WAKE_PROTECTED:
        entry.rip = gpa;
        set_registers(state, &entry);
        return true;
    default:
        log_guest("the FACS has no waking vector; the kernel starts from its beginning");
        return false;
    }
}

static void start_anew(struct boot_image *image, struct machine *machine)
{
    struct error err = {0};

    if (place_image(image, machine_memory(machine), &err) ||
        place_tables(image, machine_memory(machine), &err)) {
        log_error("the kernel could not be put in place again: %s", err.text);
        machine_request_stop(machine, STOP_ERROR, 1);
    }
    set_registers(&machine_vcpu(machine, 0)->state, &image->entry);
}

void firmware_start_image(struct boot_image *image, struct machine *machine)
{
    struct device *apic = boot_apic(machine);

    if (!machine_is_waking(machine) || !go_on(image, machine))
        start_anew(image, machine);
    for (unsigned i = 0; i < machine_vcpu_count(machine); i++) {
        struct vcpu *vcpu = machine_vcpu(machine, i);

        set_memory_types(&vcpu->state.msr, vcpu->model->physical_bits);
    }
    if (apic)
        apic_set_virtual_wire(apic);
    if (image->entry.bios_timer)
        start_bios_timer(machine);
}
