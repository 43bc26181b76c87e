/*
 * test_pc.c - the board: what is where, what is wired to what, what a reset restores
 *
 * The null engine stands in for the processor.
 */
#include "pc_rig.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/acpi_pm.h"
#include "devices/floppy/floppy.h"
#include "devices/hpet.h"
#include "machine/pc_layout.h"
#include "trapeze/device.h"
#include "x86/bits.h"

static void memory_is_where_the_layout_says(void **state)
{
    struct pc_rig *f = *state;
    struct memory *memory;
    uint8_t byte = 0x5a;

    pc_start(f, 4096 * MIB, 1);
    memory = machine_memory(f->machine);
    assert_int_equal(memory_write(memory, 0, &byte, 1), 0);
    assert_int_equal(memory_write(memory, 0x9ffff, &byte, 1), 0);
    assert_int_not_equal(memory_write(memory, 0xa0000, &byte, 1), 0);
    assert_int_equal(memory_write(memory, 0xfffff, &byte, 1), 0);
    assert_int_equal(memory_write(memory, 0x100000, &byte, 1), 0);
    assert_int_equal(memory_write(memory, PC_LOW_RAM_MAX - 1, &byte, 1), 0);
    assert_int_not_equal(memory_write(memory, PC_LOW_RAM_MAX, &byte, 1), 0);
    assert_int_equal(memory_write(memory, PC_HIGH_RAM, &byte, 1), 0);
    assert_int_equal(memory_write(memory, 5120 * MIB - 1, &byte, 1), 0);
    assert_int_not_equal(memory_write(memory, 5120 * MIB, &byte, 1), 0);
}

static void one_mib_of_memory_is_enough(void **state)
{
    struct pc_rig *f = *state;

    pc_start(f, MIB, 1);
    assert_int_equal(pc_peek(f, 0xff000, 1), 0);
    assert_int_equal(pc_peek(f, 0x100000, 1), 0xff);
}

static void a_direct_start_sets_the_registers(void **state)
{
    struct pc_rig *f = *state;
    const struct x86_state *s;

    pc_make_kernel(f);
    pc_start(f, 64 * MIB, 2);
    s = &machine_vcpu(f->machine, 0)->state;
    assert_int_equal(s->rip, 0x200020);
    assert_int_equal(s->gpr[X86_RAX], 0x2badb002);
    assert_int_equal(s->cr0 & (X86_CR0_PE | X86_CR0_PG), X86_CR0_PE);
    assert_int_equal(s->seg[X86_CS].limit, UINT32_MAX);
    assert_int_equal(s->seg[X86_CS].attributes, 0xc09b);
    assert_int_equal(s->seg[X86_SS].attributes, 0xc093);
    assert_int_equal(pc_peek(f, s->gdtr.base + s->seg[X86_CS].selector, 8), 0x00cf9b000000ffffull);
    assert_int_equal(machine_vcpu(f->machine, 1)->state.activity, X86_WAIT_FOR_SIPI);
}

static void memory_types_are_the_same_on_all_processors(void **state)
{
    struct pc_rig *f = *state;

    pc_make_kernel(f);
    pc_start(f, 64 * MIB, 4);
    for (unsigned i = 0; i < 4; i++) {
        const struct x86_msrs *msr = &machine_vcpu(f->machine, i)->state.msr;

        assert_int_equal(msr->mtrr_def_type, 0xc06);
        assert_int_equal(msr->mtrr_base[0], 0xc0000000);
        assert_int_equal(msr->mtrr_mask[0] & 0xffffffff, 0xc0000800);
        assert_int_equal(msr->mtrr_fixed[2], 0);
    }
}

static void a_reset_restores_kernel_tables_and_bss(void **state)
{
    struct pc_rig *f = *state;
    static const uint8_t junk[8192] = {[0 ... 8191] = 0xee};
    struct memory *memory;

    pc_make_kernel(f);
    pc_start(f, 64 * MIB, 1);
    memory = machine_memory(f->machine);
    memory_write(memory, 0x200000, junk, sizeof(junk));
    memory_write(memory, PC_ACPI_GPA, junk, sizeof(junk));
    machine_vcpu(f->machine, 0)->state.rip = 0;
    machine_reset(f->machine);
    assert_int_equal(pc_peek(f, 0x200000, 4), 0x1badb002);
    assert_int_equal(pc_peek(f, 0x201000, 8), 0);
    assert_int_equal(pc_peek(f, PC_ACPI_GPA, 8), 0x2052545020445352ull); /* "RSD PTR " */
    assert_int_equal(machine_vcpu(f->machine, 0)->state.rip, 0x200020);
}

static void tables_are_found_by_searching(void **state)
{
    struct pc_rig *f = *state;
    unsigned rsdp = 0, sm = 0, sm3 = 0;

    pc_make_kernel(f);
    pc_start(f, 64 * MIB, 1);
    for (uint64_t gpa = 0xe0000; gpa < 0x100000; gpa += 16) {
        rsdp += pc_peek(f, gpa, 8) == 0x2052545020445352ull;
        sm += gpa >= 0xf0000 && pc_peek(f, gpa, 4) == 0x5f4d535f;
        sm3 += gpa >= 0xf0000 && pc_peek(f, gpa, 5) == 0x5f334d535full;
    }
    assert_int_equal(rsdp, 1);
    assert_int_equal(sm, 1);
    assert_int_equal(sm3, 1);
    assert_int_equal(pc_peek(f, 0x413, 2), 639);
    assert_int_equal(pc_peek(f, 0x40e, 2) << 4, PC_CONVENTIONAL_END);
}

static void a_rom_ends_at_four_gib_and_shows_below_one_mib(void **state)
{
    struct pc_rig *f = *state;
    static uint8_t rom[256 * 1024];
    uint8_t byte = 1;

    for (size_t i = 0; i < sizeof(rom); i += 4)
        put_le32(rom + i, (uint32_t)i);
    pc_write_file(f, rom, sizeof(rom));
    f->config.firmware = f->path;
    pc_start(f, 64 * MIB, 1);
    assert_int_equal(pc_peek(f, 0xfffc0000, 4), 0);
    assert_int_equal(pc_peek(f, 0xfffffffc, 4), sizeof(rom) - 4);
    assert_int_equal(pc_peek(f, 0xe0000, 4), sizeof(rom) - 0x20000);
    assert_int_equal(pc_peek(f, 0xffffc, 4), sizeof(rom) - 4);
    assert_int_not_equal(memory_write(machine_memory(f->machine), 0xf0000, &byte, 1), 0);
    assert_int_equal(machine_vcpu(f->machine, 0)->state.rip, 0xfff0);
}

static void shadow_ram_is_what_the_pam_registers_say(void **state)
{
    struct pc_rig *f = *state;
    struct memory *memory;
    uint8_t byte = 0x5a;

    pc_start_rom(f, 64 * MIB);
    memory = machine_memory(f->machine);
    assert_int_equal(bus_memory_read(f->machine, 0xc8000, 1), 0xff); /* nobody is there */
    assert_int_equal(pc_peek(f, 0xf0000, 1), 0x77);
    pc_write_host(f, 0x90, 0x30, 1); /* 0xf0000: RAM */
    pc_write_host(f, 0x93, 0x03, 1); /* 0xd0000 */
    assert_int_equal(pc_peek(f, 0xf0000, 1), 0);
    assert_int_equal(memory_write(memory, 0xf0000, &byte, 1), 0);
    assert_int_equal(memory_write(memory, 0xd3fff, &byte, 1), 0);
    assert_int_equal(pc_peek(f, 0xf0000, 1), 0x5a);
    assert_int_equal(pc_peek(f, 0xd3fff, 1), 0x5a);
    assert_int_equal(bus_memory_read(f->machine, 0xd4000, 1), 0xff);
    assert_int_equal(pc_peek(f, 0xeffff, 1), 0x77);
    assert_int_equal(pc_peek(f, 0xffff0000, 1), 0x77);
    pc_write_host(f, 0x90, 0x10, 1); /* to read only */
    byte = 1;
    memory_write(memory, 0xf0000, &byte, 1);
    assert_int_equal(pc_peek(f, 0xf0000, 1), 0x5a);
    pc_write_host(f, 0x90, 0x20, 1); /* to write only: the ROM */
    assert_int_equal(pc_peek(f, 0xf0000, 1), 0x77);
    pc_write_host(f, 0x90, 0x30, 1);
    assert_int_equal(pc_peek(f, 0xf0000, 1), 0x5a);
    machine_reset(f->machine);
    assert_int_equal(pc_peek(f, 0xf0000, 1), 0x77);
    assert_int_equal(bus_memory_read(f->machine, 0xd3fff, 1), 0xff);
}

/* ---- what firmware does with the table loader ---- */

struct rom_file {
    char name[56];
    uint8_t bytes[0x8000];
    size_t size_bytes;
    unsigned key;
    uint64_t gpa; /* where it was "allocated" */
};

static uint32_t read_be32(struct pc_rig *f)
{
    uint32_t value = 0;

    for (unsigned n = 0; n < 4; n++)
        value = value << 8 | bus_port_read(f->machine, 0x511, 1);
    return value;
}

static void read_rom_file(struct pc_rig *f, struct rom_file *file, const char *name)
{
    uint32_t count;

    bus_port_write(f->machine, 0x510, 0x19, 2);
    count = read_be32(f);
    memset(file, 0, sizeof(*file));
    for (uint32_t n = 0; n < count; n++) {
        uint32_t size = read_be32(f), selector = read_be32(f) >> 16;

        for (unsigned k = 0; k < 56; k++)
            file->name[k] = (char)bus_port_read(f->machine, 0x511, 1);
        if (strcmp(file->name, name) == 0) {
            file->key = selector;
            file->size_bytes = size;
        }
    }
    assert_int_not_equal(file->key, 0);
    assert_true(file->size_bytes <= sizeof(file->bytes));
    strcpy(file->name, name);
    bus_port_write(f->machine, 0x510, file->key, 2);
    for (size_t n = 0; n < file->size_bytes; n++)
        file->bytes[n] = (uint8_t)bus_port_read(f->machine, 0x511, 1);
}

/* A CD drive without a CD. */
static void add_cd(struct pc_rig *f, struct device *controller, uint32_t boot_index)
{
    struct device *cd = device_new(f->machine, device_class_find("ata-cd"), NULL, &f->err);

    assert_non_null(cd);
    cd->boot_index = boot_index;
    if (device_set_pointer(cd, "controller", controller, &f->err) || device_attach(cd, &f->err))
        fail_msg("%s", f->err.text);
}

/* By DMA: the request is big-endian, as its address is. */
static void write_rom_file(struct pc_rig *f, const char *name, const uint8_t *data, size_t size)
{
    static struct rom_file file;
    struct memory *memory = machine_memory(f->machine);
    uint8_t request[16] = {0};

    read_rom_file(f, &file, name);
    put_be32(request, file.key << 16 | 0x18); /* select, write */
    put_be32(request + 4, (uint32_t)size);
    put_be32(request + 12, 0x2000);
    memory_write(memory, 0x2000, data, size);
    memory_write(memory, 0x1000, request, sizeof(request));
    bus_port_write(f->machine, 0x518, __builtin_bswap32(0x1000), 4);
    assert_int_equal(pc_peek(f, 0x1000, 4), 0);
}

/* ---- System Management Mode ---- */

#define TSEG (63 * MIB) /* of 64 */

static const struct region *seen_at(struct pc_rig *f, uint64_t gpa)
{
    const struct flat_view *view = memory_view_get(machine_memory(f->machine));
    const struct region *region = flat_view_find(view, gpa)->region;

    memory_view_put(machine_memory(f->machine), view);
    return region;
}

/* Processors in SMM see it; devices do not even then. */
static void smram_is_for_processors(void **state)
{
    struct pc_rig *f = *state;
    uint8_t byte = 0x5a;

    f->config.smm = true;
    pc_start_rom(f, 64 * MIB);
    memory_write(machine_memory(f->machine), TSEG, &byte, 1);
    pc_write_host(f, 0x9e, 0x01, 1);
    assert_int_equal(pc_peek(f, TSEG, 1), 0x5a); /* not without G_SMRAME */
    pc_write_host(f, 0x9d, 0x08, 1);
    assert_int_equal(seen_at(f, TSEG)->kind, REGION_DEVICE);
    assert_int_equal(pc_peek(f, TSEG, 1), 0xff);
    assert_int_equal(bus_memory_read(f->machine, TSEG, 1), 0xff);
    vcpu_raise_smi(machine_vcpu(f->machine, 0));
    loop_once(f->loop, 3600 * NANOSECONDS_PER_SECOND); /* which waits for nothing else */
    assert_true(machine_in_smm(f->machine));
    assert_int_equal(seen_at(f, TSEG)->kind, REGION_RAM);
    assert_int_equal(*seen_at(f, TSEG)->hva, 0x5a);
    assert_int_equal(seen_at(f, 0xa0000)->kind, REGION_RAM);
    assert_int_equal(pc_peek(f, TSEG, 1), 0xff);
    assert_null(memory_pin(machine_memory(f->machine), TSEG, 1));
    assert_int_not_equal(memory_write(machine_memory(f->machine), TSEG, &byte, 1), 0);
    machine_reset(f->machine);
    assert_false(machine_in_smm(f->machine));
    assert_int_equal(pc_peek(f, TSEG, 1), 0x5a);
}

/* What firmware asked for is state. */
static void smi_features_are_agreed(void **state)
{
    static struct rom_file answer;
    struct pc_rig *f = *state;
    struct state_buffer saved = {0};
    struct device *board;
    uint8_t asked[8] = {3}; /* one more than there is */

    f->config.smm = true;
    pc_start_rom(f, 64 * MIB);
    board = machine_find_device(f->machine, "pc");
    read_rom_file(f, &answer, "etc/smi/supported-features");
    assert_int_equal(get_le64(answer.bytes), 1);
    write_rom_file(f, "etc/smi/requested-features", asked, sizeof(asked));
    read_rom_file(f, &answer, "etc/smi/features-ok");
    assert_int_equal(answer.bytes[0], 0);
    asked[0] = 1;
    write_rom_file(f, "etc/smi/requested-features", asked, sizeof(asked));
    read_rom_file(f, &answer, "etc/smi/features-ok");
    assert_int_equal(answer.bytes[0], 1);
    assert_int_equal(state_save(&board->class->state, board, &saved, &f->err), 0);
    asked[0] = 2;
    write_rom_file(f, "etc/smi/requested-features", asked, sizeof(asked));
    assert_int_equal(state_load(&board->class->state, board, saved.data, saved.size_bytes, &f->err),
                     0);
    read_rom_file(f, &answer, "etc/smi/requested-features");
    assert_int_equal(get_le64(answer.bytes), 1);
    free(saved.data);
}

static struct device *add_controller(struct pc_rig *f, const char *class_name)
{
    struct device *dev = device_new(f->machine, device_class_find(class_name), NULL, &f->err);

    assert_non_null(dev);
    if (device_attach(dev, &f->err))
        fail_msg("%s", f->err.text);
    pc_wire_added(f->machine, dev);
    return dev;
}

static void firmware_is_told_where_to_look(void **state)
{
    static struct rom_file order;
    struct pc_rig *f = *state;
    struct device *ahci, *ide;

    if (pc_build_rig(f, 16 * MIB, 1))
        fail_msg("%s", f->err.text);
    ahci = add_controller(f, "ahci");
    ide = add_controller(f, "pci-ide");
    add_cd(f, ahci, 7);
    add_cd(f, ahci, 7);
    add_cd(f, ide, 3);
    add_cd(f, ide, 0);
    assert_int_equal(pc_set_boot_order(f->machine, &f->err), 0);
    assert_int_equal(machine_start(f->machine, &f->err), 0);
    read_rom_file(f, &order, "bootorder");
    assert_string_equal((const char *)order.bytes, "/pci@i0cf8/ide@1/drive@0/disk@0\n"
                                                   "/pci@i0cf8/pci8086,2922@1f,2/drive@0/disk@0\n"
                                                   "/pci@i0cf8/pci8086,2922@1f,2/drive@1/disk@0");
    assert_int_equal(order.size_bytes, strlen((const char *)order.bytes) + 1);
}

static struct rom_file files[2];

static struct rom_file *rom_file(const uint8_t *name)
{
    for (unsigned n = 0; n < 2; n++)
        if (strcmp(files[n].name, (const char *)name) == 0)
            return &files[n];
    fail_msg("no file '%s'", (const char *)name);
    return NULL;
}

static void run_command(const uint8_t *c)
{
    struct rom_file *file = rom_file(c + 4);

    if (get_le32(c) == 2) {
        uint32_t offset = get_le32(c + 116);
        uint64_t gpa = rom_file(c + 60)->gpa;

        assert_true(offset + c[120] <= file->size_bytes);
        if (c[120] == 8)
            put_le64(file->bytes + offset, get_le64(file->bytes + offset) + gpa);
        else
            put_le32(file->bytes + offset, get_le32(file->bytes + offset) + (uint32_t)gpa);
    } else if (get_le32(c) == 3) {
        uint32_t offset = get_le32(c + 60), first = get_le32(c + 64), size = get_le32(c + 68);
        uint8_t sum = 0;

        assert_true(first + size <= file->size_bytes && offset < file->size_bytes);
        for (uint32_t n = 0; n < size; n++)
            sum = (uint8_t)(sum + file->bytes[first + n]);
        file->bytes[offset] = (uint8_t)(file->bytes[offset] - sum);
    }
}

static bool sums_to_zero(const uint8_t *bytes, size_t size_bytes)
{
    uint8_t sum = 0;

    while (size_bytes--)
        sum = (uint8_t)(sum + *bytes++);
    return sum == 0;
}

/* The table at an address that a root table has. */
static const uint8_t *table_at(uint64_t gpa)
{
    assert_true(gpa >= files[1].gpa && gpa < files[1].gpa + files[1].size_bytes);
    return files[1].bytes + (gpa - files[1].gpa);
}

/* What firmware copies: the old entry point, and structures as long as it says. */
static void firmware_is_given_smbios(void **state)
{
    struct pc_rig *f = *state;

    pc_start_rom(f, 512 * MIB);
    read_rom_file(f, &files[0], "etc/smbios/smbios-anchor");
    read_rom_file(f, &files[1], "etc/smbios/smbios-tables");
    assert_int_equal(files[0].size_bytes, 31);
    assert_memory_equal(files[0].bytes, "_SM_", 4);
    assert_true(sums_to_zero(files[0].bytes, 31));
    assert_int_equal(get_le16(files[0].bytes + 22), files[1].size_bytes);
    assert_int_equal(files[1].bytes[0], 0); /* the BIOS */
    assert_int_equal(files[1].bytes[files[1].size_bytes - 6], 127);
    read_rom_file(f, &files[0], "etc/reserved-memory-end");
    assert_int_equal(get_le64(files[0].bytes), 0x100000000);
}

static void firmware_puts_the_tables_in_place(void **state)
{
    static struct rom_file script;
    struct pc_rig *f = *state;
    const uint8_t *xsdt, *mcfg = NULL;

    pc_start_rom(f, 4096 * MIB);
    pc_write_host(f, 0x64, 0, 4);
    pc_write_host(f, 0x60, 0xb0000001, 4); /* as SeaBIOS does */
    read_rom_file(f, &script, "etc/table-loader");
    read_rom_file(f, &files[0], "etc/acpi/rsdp");
    read_rom_file(f, &files[1], "etc/acpi/tables");
    files[0].gpa = 0xf5000;
    files[1].gpa = 0x7fff0040;
    assert_int_equal(script.size_bytes % 128, 0);
    for (size_t n = 0; n < script.size_bytes; n += 128)
        run_command(script.bytes + n);
    assert_memory_equal(files[0].bytes, "RSD PTR ", 8);
    assert_true(sums_to_zero(files[0].bytes, 20));
    assert_true(sums_to_zero(files[0].bytes, 36));
    assert_memory_equal(table_at(get_le32(files[0].bytes + 16)), "RSDT", 4);
    xsdt = table_at(get_le64(files[0].bytes + 24));
    assert_memory_equal(xsdt, "XSDT", 4);
    assert_true(sums_to_zero(xsdt, get_le32(xsdt + 4)));
    for (uint32_t n = 36; n < get_le32(xsdt + 4); n += 8) {
        const uint8_t *table = table_at(get_le64(xsdt + n));

        assert_true(sums_to_zero(table, get_le32(table + 4)));
        if (memcmp(table, "MCFG", 4) == 0)
            mcfg = table;
        if (memcmp(table, "FACP", 4) == 0)
            assert_memory_equal(table_at(get_le64(table + 140)), "DSDT", 4);
    }
    assert_non_null(mcfg);
    assert_int_equal(get_le64(mcfg + 44), 0xb0000000);
    /* RAM ends below what SeaBIOS takes for the ECAM. */
    assert_int_not_equal(bus_memory_read(f->machine, 0xb0000000, 4), UINT32_MAX);
}

static void a_small_rom_shows_as_far_as_it_goes(void **state)
{
    struct pc_rig *f = *state;
    static uint8_t rom[64 * 1024];

    memset(rom, 0x77, sizeof(rom));
    pc_write_file(f, rom, sizeof(rom));
    f->config.firmware = f->path;
    pc_start(f, 64 * MIB, 1);
    assert_int_equal(pc_peek(f, 0xeffff, 1), 0);
    assert_int_equal(pc_peek(f, 0xf0000, 1), 0x77);
    assert_int_equal(pc_peek(f, 0xfffeffff, 1), 0xff);
    assert_int_equal(pc_peek(f, 0xffff0000, 1), 0x77);
}

static void expect_refusal(struct pc_rig *f, int code, const char *says)
{
    assert_int_equal(pc_build_rig(f, 64 * MIB, 1), -code);
    if (!strstr(f->err.text, says))
        fail_msg("'%s' does not say '%s'", f->err.text, says);
}

static void a_rom_that_is_cut_short_is_refused(void **state)
{
    struct pc_rig *f = *state;

    pc_write_file(f, (const uint8_t *)"x", 1);
    f->config.firmware = f->path;
    expect_refusal(f, ENOEXEC, "4 KiB");
}

static void a_kernel_that_is_not_there_is_named(void **state)
{
    struct pc_rig *f = *state;

    f->config.kernel = "/nowhere/vmlinuz";
    expect_refusal(f, ENOENT, "kernel '/nowhere/vmlinuz'");
}

static void a_directory_is_no_kernel(void **state)
{
    struct pc_rig *f = *state;

    f->config.kernel = "/tmp";
    expect_refusal(f, EINVAL, "not a regular file");
}

static void an_initrd_that_is_not_there_is_named(void **state)
{
    struct pc_rig *f = *state;
    static const char *const initrds[] = {"/nowhere/initrd with arguments"};

    pc_make_kernel(f);
    f->config.initrds = initrds;
    f->config.initrd_count = 1;
    expect_refusal(f, ENOENT, "initrd '/nowhere/initrd");
}

static void options_that_do_not_go_together_are_refused(void **state)
{
    struct pc_rig *f = *state;

    pc_make_kernel(f);
    f->config.firmware = f->path;
    expect_refusal(f, EINVAL, "one of --kernel and --firmware");
}

static void a_command_line_needs_a_kernel(void **state)
{
    struct pc_rig *f = *state;

    f->config.append = "quiet";
    expect_refusal(f, EINVAL, "needs a kernel");
}

static uint32_t ioapic_read(struct pc_rig *f, uint32_t index)
{
    bus_memory_write(f->machine, PC_IOAPIC, index, 4);
    return (uint32_t)bus_memory_read(f->machine, PC_IOAPIC + 0x10, 4);
}

static void the_io_apic_has_24_pins(void **state)
{
    struct pc_rig *f = *state;

    pc_start(f, 64 * MIB, 1);
    assert_int_equal(ioapic_read(f, 1) >> 16 & 0xff, 23);
    assert_int_equal(ioapic_read(f, 0) >> 24, PC_IOAPIC_ID);
}

static void the_hpet_and_its_table_agree(void **state)
{
    struct pc_rig *f = *state;

    pc_start(f, 64 * MIB, 1);
    assert_int_equal(bus_memory_read(f->machine, PC_HPET, 4), HPET_HARDWARE_ID);
}

static void serial_ports_interrupt_on_their_own_lines(void **state)
{
    struct pc_rig *f = *state;
    static const struct {
        uint16_t port;
        unsigned irq;
    } ports[] = {{0x3f8, 4}, {0x2f8, 3}};

    pc_start(f, 64 * MIB, 1);
    pc_init_pics(f);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(pc_pic_requests(f) & 1u << ports[i].irq, 0);
        bus_port_write(f->machine, ports[i].port + 4, 0x0b, 1); /* DTR, RTS, OUT2 */
        bus_port_write(f->machine, ports[i].port + 1, 0x02, 1); /* transmitter empty */
        assert_int_equal(pc_pic_requests(f) & 1u << ports[i].irq, 1u << ports[i].irq);
    }
}

static void an_added_device_reaches_the_isa_interrupts(void **state)
{
    struct pc_rig *f = *state;
    struct device *dev;

    pc_start(f, 2 * MIB, 1);
    dev = device_new(f->machine, device_class_find("pc-testdev"), NULL, &f->err);
    assert_non_null(dev);
    assert_int_equal(device_attach(dev, &f->err), 0);
    pc_wire_added(f->machine, dev);
    pc_init_pics(f);
    for (unsigned irq = 5; irq < 16; irq += 5) {
        assert_int_equal(pc_pic_requests(f) & 1u << irq, 0);
        bus_port_write(f->machine, (uint16_t)(0x2000 + irq), 1, 1);
        assert_int_equal(pc_pic_requests(f) & 1u << irq, 1u << irq);
    }
}

static void floppy_drives_are_noted_in_cmos(void **state)
{
    struct pc_rig *f = *state;

    f->config.has_floppy = true;
    pc_start(f, 2 * MIB, 1);
    for (unsigned n = 0; n < 2; n++) {
        struct device *dev = device_new(f->machine, &floppy_drive_class, NULL, &f->err);

        device_set_pointer(dev, "controller", machine_find_device(f->machine, "floppy"), &f->err);
        device_set(dev, "type", n ? "1.2M" : "1.44M", &f->err);
        assert_int_equal(device_attach(dev, &f->err), 0);
        pc_wire_added(f->machine, dev);
    }
    bus_port_write(f->machine, 0x70, 0x10, 1);
    assert_int_equal(bus_port_read(f->machine, 0x71, 1), 0x42);
    bus_port_write(f->machine, 0x70, 0x14, 1);
    assert_int_equal(bus_port_read(f->machine, 0x71, 1), 0x41);
    pc_init_pics(f);
    bus_port_write(f->machine, 0x3f2, 0x0c, 1);
    clocks_set_counted_ns(machine_clocks(f->machine), 1000000);
    clocks_run_counted(machine_clocks(f->machine));
    assert_int_equal(pc_pic_requests(f) & 1u << 6, 1u << 6);
}

static void multiboot_finds_the_timer_as_the_bios_leaves_it(void **state)
{
    struct pc_rig *f = *state;

    pc_make_kernel(f);
    pc_start(f, 64 * MIB, 1);
    assert_int_equal(bus_port_read(f->machine, 0x21, 1), 0xfa);
    assert_int_equal(bus_port_read(f->machine, 0xa1, 1), 0xff);
    bus_port_write(f->machine, 0x43, 0xe2, 1); /* status of channel 0 */
    assert_int_equal(bus_port_read(f->machine, 0x40, 1) & 0x3f, 0x36);
    assert_int_equal(pc_peek(f, 8 * 4, 4), 0xf000fea5);
    assert_int_equal(pc_peek(f, 0x1c * 4, 4), 0xf000ff53);
    assert_int_equal(pc_peek(f, 0xffea5, 1), 0x50);
    assert_int_equal(pc_peek(f, 0xfff53, 1), 0xcf);
}

static void the_power_button_raises_the_sci(void **state)
{
    struct pc_rig *f = *state;

    pc_start(f, 64 * MIB, 1);
    pc_init_pics(f);
    bus_port_write(f->machine, ACPI_SMI_COMMAND_PORT, ACPI_ENABLE_VALUE, 1);
    bus_port_write(f->machine, ACPI_PM1_EVENT_PORT + 2, 0x100, 2);
    assert_int_equal(pc_pic_requests(f) & 1u << ACPI_SCI_IRQ, 0);
    machine_lock(f->machine);
    pc_press_power_button(f->machine);
    machine_unlock(f->machine);
    assert_int_equal(pc_pic_requests(f) & 1u << ACPI_SCI_IRQ, 1u << ACPI_SCI_IRQ);
}

static void soft_off_stops_with_status_0(void **state)
{
    struct pc_rig *f = *state;

    pc_start(f, 64 * MIB, 1);
    bus_port_write(f->machine, ACPI_PM1_CONTROL_PORT, ACPI_SLEEP_TYPE_S5 << 10 | 1 << 13, 2);
    assert_int_equal(machine_main(f->machine), 0);
    assert_int_equal(machine_stop_reason(f->machine), STOP_GUEST_POWEROFF);
}

static void debug_exit_stops_with_an_odd_status(void **state)
{
    struct pc_rig *f = *state;

    pc_start(f, 64 * MIB, 1);
    bus_port_write(f->machine, 0xf4, 21, 1);
    assert_int_equal(machine_main(f->machine), 43);
    assert_int_equal(machine_stop_reason(f->machine), STOP_GUEST_EXIT);
}

static void configuration_space_is_reached_both_ways(void **state)
{
    struct pc_rig *f = *state;
    uint32_t id;

    pc_start(f, 64 * MIB, 1);
    bus_port_write(f->machine, 0xcf8, 0x80000000, 4);
    id = bus_port_read(f->machine, 0xcfc, 4);
    assert_int_not_equal(id, UINT32_MAX);
    assert_int_equal(bus_memory_read(f->machine, PC_ECAM, 4), id);
    /* An empty slot. */
    assert_int_equal(bus_memory_read(f->machine, PC_ECAM + (30 << 15), 4), UINT32_MAX);
}

static void no_two_devices_share_an_id(void **state)
{
    struct pc_rig *f = *state;

    pc_start(f, 64 * MIB, 2);
    for (struct device *a = machine_first_device(f->machine); a; a = a->next)
        for (struct device *b = a->next; b; b = b->next)
            assert_string_not_equal(a->id, b->id);
    assert_non_null(machine_find_device(f->machine, "com1"));
    assert_non_null(machine_find_device(f->machine, "com2"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, pc_set_up, pc_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(memory_is_where_the_layout_says),
        TEST(one_mib_of_memory_is_enough),
        TEST(a_direct_start_sets_the_registers),
        TEST(memory_types_are_the_same_on_all_processors),
        TEST(a_reset_restores_kernel_tables_and_bss),
        TEST(tables_are_found_by_searching),
        TEST(a_rom_ends_at_four_gib_and_shows_below_one_mib),
        TEST(shadow_ram_is_what_the_pam_registers_say),
        TEST(smram_is_for_processors),
        TEST(smi_features_are_agreed),
        TEST(firmware_is_given_smbios),
        TEST(firmware_puts_the_tables_in_place),
        TEST(a_small_rom_shows_as_far_as_it_goes),
        TEST(a_rom_that_is_cut_short_is_refused),
        TEST(a_kernel_that_is_not_there_is_named),
        TEST(a_directory_is_no_kernel),
        TEST(an_initrd_that_is_not_there_is_named),
        TEST(options_that_do_not_go_together_are_refused),
        TEST(a_command_line_needs_a_kernel),
        TEST(the_io_apic_has_24_pins),
        TEST(the_hpet_and_its_table_agree),
        TEST(serial_ports_interrupt_on_their_own_lines),
        TEST(an_added_device_reaches_the_isa_interrupts),
        TEST(floppy_drives_are_noted_in_cmos),
        TEST(multiboot_finds_the_timer_as_the_bios_leaves_it),
        TEST(the_power_button_raises_the_sci),
        TEST(soft_off_stops_with_status_0),
        TEST(firmware_is_told_where_to_look),
        TEST(debug_exit_stops_with_an_odd_status),
        TEST(configuration_space_is_reached_both_ways),
        TEST(no_two_devices_share_an_id),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
