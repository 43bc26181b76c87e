/*
 * test_loaders.c - kernels of every format, whole, damaged and misplaced
 *
 * The files are built here, field by field, so that each test changes one of them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "base/bytes.h"
#include "machine/loaders.h"

#define MIB          (1ull << 20)
#define KERNEL_BYTES 8192
#define CODE_BYTES   4096
#define CODE_OFFSET  (2 * 512)

struct fixture {
    struct pc_layout layout;
    struct boot_image image;
    uint8_t kernel[KERNEL_BYTES];
    struct boot_file modules[4];
    struct boot_request request;
    struct error err;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    if (!f)
        return -1;
    pc_layout_init(&f->layout, 64 * MIB, 1);
    boot_image_init(&f->image, &f->layout);
    f->request = (struct boot_request){
        .kernel = {.name = "kernel", .data = f->kernel, .size_bytes = CODE_OFFSET + CODE_BYTES},
        .modules = f->modules,
        .append = "",
        .rsdp_gpa = 0xe0000,
    };
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    boot_image_done(&f->image);
    free(f);
    return 0;
}

static void set_ram(struct fixture *f, uint64_t ram_bytes)
{
    pc_layout_init(&f->layout, ram_bytes, 1);
}

static int load(struct fixture *f)
{
    return load_kernel(&f->image, &f->request, &f->err);
}

static void add_module(struct fixture *f, const char *name, const void *data, size_t size_bytes)
{
    f->modules[f->request.module_count++] =
        (struct boot_file){.name = name, .data = data, .size_bytes = size_bytes};
}

/* The piece that covers gpa. */
static const struct boot_piece *piece_at(const struct fixture *f, uint64_t gpa)
{
    for (size_t i = 0; i < f->image.piece_count; i++) {
        const struct boot_piece *piece = &f->image.pieces[i];

        if (gpa >= piece->gpa && gpa - piece->gpa < piece->size_bytes)
            return piece;
    }
    fail_msg("nothing at 0x%llx", (unsigned long long)gpa);
    return NULL;
}

/* What guest memory would hold from gpa on, up to the piece's end. */
static const uint8_t *bytes_at(const struct fixture *f, uint64_t gpa)
{
    const struct boot_piece *piece = piece_at(f, gpa);

    assert_true(gpa - piece->gpa < piece->data_bytes);
    return piece->data + (gpa - piece->gpa);
}

static void expect_refusal(struct fixture *f, int code, const char *part_of_text)
{
    assert_int_equal(load(f), -code);
    if (!strstr(f->err.text, part_of_text))
        fail_msg("'%s' does not say '%s'", f->err.text, part_of_text);
}

/* ---- Linux ---- */

static void make_linux(struct fixture *f, unsigned version)
{
    uint8_t *k = f->kernel;

    k[0x1f1] = 1;                         /* setup sectors */
    put_le32(k + 0x1f4, CODE_BYTES / 16); /* syssize */
    put_le16(k + 0x1fe, 0xaa55);
    put_le16(k + 0x200, 0x66eb); /* jump over the header, to 0x268 */
    memcpy(k + 0x202, "HdrS", 4);
    put_le16(k + 0x206, (uint16_t)version);
    k[0x211] = 1;                    /* loaded high */
    put_le32(k + 0x22c, 0x7fffffff); /* initrd_addr_max */
    put_le16(k + 0x236, 1);          /* 64-bit entry */
    put_le32(k + 0x238, 2047);       /* command line */
    put_le64(k + 0x258, 16 * MIB);   /* preferred address */
    put_le32(k + 0x260, 32 * MIB);   /* init_size */
    memset(k + CODE_OFFSET, 0xc3, CODE_BYTES);
}

static void linux_is_entered_in_long_mode(void **state)
{
    struct fixture *f = *state;
    const struct boot_entry *entry = &f->image.entry;

    make_linux(f, 0x20f);
    f->request.append = "console=ttyS0";
    assert_int_equal(load(f), 0);
    assert_int_equal(entry->mode, BOOT_MODE_LONG);
    assert_int_equal(entry->rip, 16 * MIB + 0x200);
    assert_memory_equal(bytes_at(f, 16 * MIB), f->kernel + CODE_OFFSET, CODE_BYTES);
}

static void the_zero_page_says_where_everything_is(void **state)
{
    struct fixture *f = *state;
    const uint8_t *params;

    make_linux(f, 0x20f);
    f->request.append = "console=ttyS0";
    assert_int_equal(load(f), 0);
    params = bytes_at(f, f->image.entry.rsi);
    assert_memory_equal(params + 0x202, "HdrS", 4);
    assert_int_equal(params[0x210], 0xff);
    assert_int_equal(get_le32(params + 0x214), 16 * MIB);
    assert_int_equal(get_le64(params + 0x70), 0xe0000);
    assert_string_equal((const char *)bytes_at(f, get_le32(params + 0x228)), "console=ttyS0");
    assert_int_equal(params[0x1e8], f->layout.e820_count);
    for (size_t i = 0; i < f->layout.e820_count; i++) {
        assert_int_equal(get_le64(params + 0x2d0 + i * 20), f->layout.e820[i].gpa);
        assert_int_equal(get_le64(params + 0x2d8 + i * 20), f->layout.e820[i].size_bytes);
        assert_int_equal(get_le32(params + 0x2e0 + i * 20), f->layout.e820[i].type);
    }
}

static void page_tables_map_the_low_four_gib_one_to_one(void **state)
{
    struct fixture *f = *state;
    uint64_t cr3;

    make_linux(f, 0x20f);
    assert_int_equal(load(f), 0);
    cr3 = f->image.entry.cr3;
    for (uint64_t gva = 0; gva < 4096 * MIB; gva += 2 * MIB) {
        uint64_t pml4e = get_le64(bytes_at(f, cr3));
        uint64_t pdpte = get_le64(bytes_at(f, (pml4e & ~0xfffull) + (gva >> 30) * 8));
        uint64_t pde = get_le64(bytes_at(f, (pdpte & ~0xfffull) + (gva >> 21) % 512 * 8));

        assert_int_equal(pml4e & 0x83, 3);
        assert_int_equal(pdpte & 0x83, 3);
        assert_int_equal(pde, gva | 0x83);
    }
}

static void initrds_are_put_behind_each_other_on_four_bytes(void **state)
{
    struct fixture *f = *state;
    static const char first[] = "12345", second[] = "abcdefgh";
    const uint8_t *params;
    uint64_t gpa;

    make_linux(f, 0x20f);
    add_module(f, "a", first, 5);
    add_module(f, "b", second, 8);
    assert_int_equal(load(f), 0);
    params = bytes_at(f, f->image.entry.rsi);
    gpa = get_le32(params + 0x218);
    assert_int_equal(get_le32(params + 0x21c), 16);
    assert_int_equal(gpa, 64 * MIB - 4096);
    assert_memory_equal(bytes_at(f, gpa), "12345", 5);
    assert_int_equal(piece_at(f, gpa)->size_bytes, 8); /* three zeros */
    assert_memory_equal(bytes_at(f, gpa + 8), "abcdefgh", 8);
}

static void the_initrd_stays_below_the_kernels_limit(void **state)
{
    struct fixture *f = *state;

    make_linux(f, 0x20f);
    set_ram(f, 2048 * MIB);
    put_le32(f->kernel + 0x22c, 0x37ffffff);
    add_module(f, "a", "x", 1);
    assert_int_equal(load(f), 0);
    assert_int_equal(get_le32(bytes_at(f, f->image.entry.rsi) + 0x218), 0x38000000 - 4096);
}

static void an_old_kernel_is_entered_in_protected_mode(void **state)
{
    struct fixture *f = *state;

    make_linux(f, 0x206);
    f->kernel[0x201] = 0x3a; /* the header ends at 0x23c */
    assert_int_equal(load(f), 0);
    assert_int_equal(f->image.entry.mode, BOOT_MODE_PROTECTED);
    assert_int_equal(f->image.entry.rip, 1 * MIB);
    assert_int_equal(get_le64(bytes_at(f, f->image.entry.rsi) + 0x70), 0); /* no RSDP field yet */
}

static void the_32_bit_entry_can_be_asked_for(void **state)
{
    struct fixture *f = *state;

    make_linux(f, 0x20f);
    f->request.entry = PC_ENTRY_32;
    assert_int_equal(load(f), 0);
    assert_int_equal(f->image.entry.mode, BOOT_MODE_PROTECTED);
    assert_int_equal(f->image.entry.rip, 16 * MIB);
    assert_int_equal(f->image.entry.rbx, 0);
    assert_int_equal(get_le64(bytes_at(f, f->image.entry.gdt_gpa + 0x10)), 0x00cf9b000000ffffull);
}

static void a_64_bit_entry_that_is_not_there_is_refused(void **state)
{
    struct fixture *f = *state;

    make_linux(f, 0x20f);
    put_le16(f->kernel + 0x236, 0);
    f->request.entry = PC_ENTRY_64;
    expect_refusal(f, EINVAL, "64-bit entry");
}

static void a_linux_kernel_cut_anywhere_is_refused(void **state)
{
    struct fixture *f = *state;

    make_linux(f, 0x20f);
    for (size_t size = 0; size < CODE_OFFSET + CODE_BYTES; size++) {
        f->request.kernel.size_bytes = size;
        error_clear(&f->err);
        assert_int_equal(load(f), -ENOEXEC);
        assert_true(strlen(f->err.text) > 0);
    }
    f->request.kernel.size_bytes = CODE_OFFSET + CODE_BYTES - 1;
    error_clear(&f->err);
    expect_refusal(f, ENOEXEC, "cut short");
}

static void a_linux_kernel_too_big_for_the_memory_is_refused(void **state)
{
    struct fixture *f = *state;

    make_linux(f, 0x20f);
    set_ram(f, 47 * MIB);
    expect_refusal(f, ENOSPC, "give it more memory with -m");
    set_ram(f, 48 * MIB);
    error_clear(&f->err);
    assert_int_equal(load(f), 0);
}

static void an_address_that_wraps_around_is_refused(void **state)
{
    struct fixture *f = *state;

    make_linux(f, 0x20f);
    put_le64(f->kernel + 0x258, UINT64_MAX - 100);
    expect_refusal(f, ENOSPC, "memory");
}

static void an_initrd_that_does_not_fit_is_refused(void **state)
{
    struct fixture *f = *state;
    uint8_t *big = calloc(1, 17 * MIB);

    make_linux(f, 0x20f);
    add_module(f, "big", big, 17 * MIB);
    expect_refusal(f, ENOSPC, "initrd");
    free(big);
}

static void a_command_line_has_the_kernels_limit(void **state)
{
    struct fixture *f = *state;
    static char text[2049];

    make_linux(f, 0x20f);
    memset(text, 'x', 2047);
    f->request.append = text;
    assert_int_equal(load(f), 0);
    boot_image_done(&f->image);
    text[2047] = 'x';
    expect_refusal(f, EINVAL, "2048 characters");
}

static void old_protocols_and_zimages_are_refused(void **state)
{
    struct fixture *f = *state;

    make_linux(f, 0x205);
    expect_refusal(f, ENOEXEC, "2.05");
    make_linux(f, 0x20f);
    f->kernel[0x211] = 0;
    error_clear(&f->err);
    expect_refusal(f, ENOEXEC, "zImage");
}

/* ---- ELF ---- */

#define SEGMENT_OFFSET 0x1000
#define SEGMENT_BYTES  0x100

/* One loadable segment of 256 bytes, 512 in memory, at 1 MiB; one note. */
static void make_elf64(struct fixture *f)
{
    uint8_t *k = f->kernel, *ph = k + 64;

    memcpy(k, "\177ELF\2\1\1", 7);
    put_le16(k + 16, 2);
    put_le16(k + 18, 62);
    put_le64(k + 24, 0x100010); /* entry */
    put_le64(k + 32, 64);       /* program headers */
    put_le16(k + 54, 56);
    put_le16(k + 56, 2);
    put_le32(ph, 1);
    put_le64(ph + 8, SEGMENT_OFFSET);
    put_le64(ph + 16, 0xffffffff80100000ull); /* virtual */
    put_le64(ph + 24, 0x100000);
    put_le64(ph + 32, SEGMENT_BYTES);
    put_le64(ph + 40, 2 * SEGMENT_BYTES);
    ph += 56;
    put_le32(ph, 4);
    put_le64(ph + 8, 0x800);
    put_le64(ph + 32, 20);
    put_le64(ph + 48, 4);
    put_le32(k + 0x800, 4);
    put_le32(k + 0x804, 4);
    put_le32(k + 0x808, 18);
    memcpy(k + 0x80c, "Xen", 4);
    put_le32(k + 0x810, 0x100020);
    memset(k + SEGMENT_OFFSET, 0x90, SEGMENT_BYTES);
    f->request.kernel.size_bytes = SEGMENT_OFFSET + SEGMENT_BYTES;
}

static void make_elf32(struct fixture *f)
{
    uint8_t *k = f->kernel, *ph = k + 52;

    memcpy(k, "\177ELF\1\1\1", 7);
    put_le16(k + 16, 2);
    put_le16(k + 18, 3);
    put_le32(k + 24, 0x100010);
    put_le32(k + 28, 52);
    put_le16(k + 42, 32);
    put_le16(k + 44, 1);
    put_le32(ph, 1);
    put_le32(ph + 4, SEGMENT_OFFSET);
    put_le32(ph + 12, 0x100000);
    put_le32(ph + 16, SEGMENT_BYTES);
    put_le32(ph + 20, 2 * SEGMENT_BYTES);
    memset(k + SEGMENT_OFFSET, 0x90, SEGMENT_BYTES);
    f->request.kernel.size_bytes = SEGMENT_OFFSET + SEGMENT_BYTES;
}

static void a_pvh_kernel_gets_its_start_info(void **state)
{
    struct fixture *f = *state;
    const uint8_t *start, *module, *map;

    make_elf64(f);
    f->request.append = "quiet";
    add_module(f, "initrd arguments of it", "data", 4);
    assert_int_equal(load(f), 0);
    assert_int_equal(f->image.entry.mode, BOOT_MODE_PROTECTED);
    assert_int_equal(f->image.entry.rip, 0x100020);
    start = bytes_at(f, f->image.entry.rbx);
    assert_int_equal(get_le32(start), 0x336ec578);
    assert_int_equal(get_le32(start + 4), 1);
    assert_int_equal(get_le32(start + 12), 1);
    module = bytes_at(f, get_le64(start + 16));
    assert_memory_equal(bytes_at(f, get_le64(module)), "data", 4);
    assert_int_equal(get_le64(module + 8), 4);
    assert_string_equal((const char *)bytes_at(f, get_le64(module + 16)), "arguments of it");
    assert_string_equal((const char *)bytes_at(f, get_le64(start + 24)), "quiet");
    assert_int_equal(get_le64(start + 32), 0xe0000);
    map = bytes_at(f, get_le64(start + 40));
    assert_int_equal(get_le32(start + 48), f->layout.e820_count);
    assert_int_equal(get_le64(map + 24), f->layout.e820[1].gpa);
    assert_int_equal(get_le32(map + 24 + 16), f->layout.e820[1].type);
}

static void what_lies_behind_a_segments_file_bytes_is_zeroed(void **state)
{
    struct fixture *f = *state;

    make_elf64(f);
    assert_int_equal(load(f), 0);
    assert_int_equal(piece_at(f, 0x100000)->data_bytes, SEGMENT_BYTES);
    assert_int_equal(piece_at(f, 0x100000)->size_bytes, 2 * SEGMENT_BYTES);
    assert_false(piece_at(f, 0x100000)->reserved);
}

static void an_elf_file_without_an_entry_for_us_is_refused(void **state)
{
    struct fixture *f = *state;

    make_elf64(f);
    put_le32(f->kernel + 0x808, 17);
    expect_refusal(f, ENOEXEC, "CONFIG_PVH");
}

static void an_elf_kernel_cut_anywhere_is_refused(void **state)
{
    struct fixture *f = *state;

    make_elf64(f);
    for (size_t size = 0; size < SEGMENT_OFFSET + SEGMENT_BYTES; size++) {
        f->request.kernel.size_bytes = size;
        boot_image_done(&f->image);
        error_clear(&f->err);
        assert_int_equal(load(f), -ENOEXEC);
    }
}

static void damaged_elf_headers_are_refused(void **state)
{
    /* Offset, size in bytes and value of one field, and a word of the complaint. */
    static const struct {
        size_t offset, size_bytes;
        uint64_t value;
        int code;
        const char *says;
    } cases[] = {
        {18, 2, 183, ENOEXEC, "another processor"},
        {5, 1, 2, ENOEXEC, "another kind of processor"},
        {16, 2, 1, ENOEXEC, "object"},
        {56, 2, 0, ENOEXEC, "without program headers"},
        {54, 2, 16, ENOEXEC, "without program headers"},
        {32, 8, UINT64_MAX, ENOEXEC, "cut short"},
        {56, 2, 65535, ENOEXEC, "cut short"},
        {64 + 8, 8, UINT64_MAX, ENOEXEC, "cut short"},
        {64 + 32, 8, UINT64_MAX, ENOEXEC, "damaged"},
        {64 + 40, 8, UINT64_MAX, ENOSPC, "-m"},
        {64 + 40, 8, 1 << 30, ENOSPC, "-m"},
        {64 + 24, 8, UINT64_MAX - 0x80, ENOSPC, "-m"},
        {64 + 24, 8, 0xa0000, ENOSPC, "-m"},
        {0x810, 4, 0, 0, ""}, /* an entry at 0 is the kernel's affair */
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fixture *f = *state;
        uint8_t bytes[8];

        boot_image_done(&f->image);
        error_clear(&f->err);
        memset(f->kernel, 0, sizeof(f->kernel));
        make_elf64(f);
        put_le64(bytes, cases[i].value);
        memcpy(f->kernel + cases[i].offset, bytes, cases[i].size_bytes);
        if (cases[i].code)
            expect_refusal(f, cases[i].code, cases[i].says);
        else
            assert_int_equal(load(f), 0);
    }
}

static void a_note_that_lies_about_its_length_is_ignored(void **state)
{
    struct fixture *f = *state;

    make_elf64(f);
    put_le32(f->kernel + 0x800, UINT32_MAX);
    expect_refusal(f, ENOEXEC, "PVH");
    make_elf64(f);
    put_le32(f->kernel + 0x804, UINT32_MAX);
    error_clear(&f->err);
    expect_refusal(f, ENOEXEC, "PVH");
}

static void segments_that_overlap_are_refused(void **state)
{
    struct fixture *f = *state;
    uint8_t *second = f->kernel + 64 + 56;

    make_elf64(f);
    memcpy(second, f->kernel + 64, 56);
    put_le64(second + 24, 0x1001ff);
    f->request.kernel.size_bytes = SEGMENT_OFFSET + SEGMENT_BYTES;
    put_le32(f->kernel + 0x200, 0x1badb002); /* multiboot: the note's place is taken */
    put_le32(f->kernel + 0x208, (uint32_t)-0x1badb002);
    expect_refusal(f, EINVAL, "overlap");
}

/* ---- multiboot ---- */

static void add_multiboot_header(struct fixture *f, size_t offset, uint32_t flags)
{
    put_le32(f->kernel + offset, 0x1badb002);
    put_le32(f->kernel + offset + 4, flags);
    put_le32(f->kernel + offset + 8, (uint32_t) - (0x1badb002 + flags));
}

static void a_multiboot_elf_is_entered_with_magic_and_information(void **state)
{
    void (*const make[])(struct fixture * f) = {make_elf32, make_elf64};

    for (size_t i = 0; i < 2; i++) {
        struct fixture *f = *state;
        const uint8_t *info;

        boot_image_done(&f->image);
        memset(f->kernel, 0, sizeof(f->kernel));
        make[i](f);
        add_multiboot_header(f, 0x200, 3);
        f->request.append = "one two";
        assert_int_equal(load(f), 0);
        assert_int_equal(f->image.entry.mode, BOOT_MODE_PROTECTED);
        assert_int_equal(f->image.entry.rip, 0x100010);
        assert_int_equal(f->image.entry.rax, 0x2badb002);
        info = bytes_at(f, f->image.entry.rbx);
        assert_int_equal(get_le32(info), 1 << 0 | 1 << 2 | 1 << 6 | 1 << 9);
        assert_int_equal(get_le32(info + 4), 639);
        assert_int_equal(get_le32(info + 8), 63 * 1024);
        assert_string_equal((const char *)bytes_at(f, get_le32(info + 16)), "kernel one two");
        assert_string_equal((const char *)bytes_at(f, get_le32(info + 64)), "Trapeze");
        assert_int_equal(get_le32(info + 44), f->layout.e820_count * 24);
        assert_int_equal(get_le32(bytes_at(f, get_le32(info + 48))), 20);
    }
}

static void multiboot_modules_lie_on_pages_behind_the_kernel(void **state)
{
    struct fixture *f = *state;
    const uint8_t *info, *list;

    make_elf32(f);
    add_multiboot_header(f, 0x200, 0);
    add_module(f, "first with arguments", "1111", 4);
    add_module(f, "second", "22", 2);
    add_module(f, "empty", "", 0);
    assert_int_equal(load(f), 0);
    info = bytes_at(f, f->image.entry.rbx);
    assert_int_equal(get_le32(info + 20), 3);
    list = bytes_at(f, get_le32(info + 24));
    assert_int_equal(get_le32(list), 0x101000);
    assert_int_equal(get_le32(list + 4), 0x101004);
    assert_string_equal((const char *)bytes_at(f, get_le32(list + 8)), "first with arguments");
    assert_int_equal(get_le32(list + 16), 0x102000);
    assert_memory_equal(bytes_at(f, 0x102000), "22", 2);
    assert_int_equal(get_le32(list + 32), get_le32(list + 36));
}

static void a_flat_multiboot_file_is_placed_by_its_addresses(void **state)
{
    struct fixture *f = *state;

    add_multiboot_header(f, 0x40, 1 << 16);
    put_le32(f->kernel + 0x4c, 0x200040); /* header */
    put_le32(f->kernel + 0x50, 0x200000); /* load */
    put_le32(f->kernel + 0x54, 0x200800); /* load end */
    put_le32(f->kernel + 0x58, 0x201000); /* bss end */
    put_le32(f->kernel + 0x5c, 0x200060); /* entry */
    assert_int_equal(load(f), 0);
    assert_int_equal(f->image.entry.rip, 0x200060);
    assert_memory_equal(bytes_at(f, 0x200000), f->kernel, 0x800);
    assert_int_equal(piece_at(f, 0x200000)->data_bytes, 0x800);
    assert_int_equal(piece_at(f, 0x200000)->size_bytes, 0x1000);
}

static void damaged_multiboot_addresses_are_refused(void **state)
{
    static const struct {
        uint32_t header, load, load_end;
        int code;
    } cases[] = {
        {0x200000, 0x200040, 0, ENOEXEC},             /* header before the load address */
        {0x200041, 0x200000, 0, ENOEXEC},             /* starts before the file */
        {0x200040, 0x200000, 0x1fffff, ENOEXEC},      /* ends before it starts */
        {0x200040, 0x200000, 0x300000, ENOEXEC},      /* longer than the file */
        {0xfff00040, 0xfff00000, 0xfff00100, ENOSPC}, /* no RAM there */
        {0x000a0040, 0x000a0000, 0x000a0100, ENOSPC},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fixture *f = *state;

        boot_image_done(&f->image);
        error_clear(&f->err);
        add_multiboot_header(f, 0x40, 1 << 16);
        put_le32(f->kernel + 0x4c, cases[i].header);
        put_le32(f->kernel + 0x50, cases[i].load);
        put_le32(f->kernel + 0x54, cases[i].load_end);
        assert_int_equal(load(f), -cases[i].code);
    }
}

static void multiboot_wishes_that_cannot_be_met_are_refused(void **state)
{
    struct fixture *f = *state;

    make_elf32(f);
    add_multiboot_header(f, 0x200, 1 << 2);
    expect_refusal(f, ENOTSUP, "video");
    add_multiboot_header(f, 0x200, 1 << 5);
    error_clear(&f->err);
    expect_refusal(f, ENOTSUP, "unknown");
}

static void a_header_behind_the_first_8_kib_does_not_count(void **state)
{
    struct fixture *f = *state;
    uint8_t *big = calloc(1, 16384);

    put_le32(big + 8192 - 8, 0x1badb002);
    put_le32(big + 8192, (uint32_t)-0x1badb002);
    f->request.kernel.data = big;
    f->request.kernel.size_bytes = 16384;
    expect_refusal(f, ENOEXEC, "no kernel");
    free(big);
}

/* ---- anything else ---- */

static void files_of_the_wrong_kind_are_named(void **state)
{
    static const struct {
        const char *start;
        size_t size_bytes;
        const char *says;
    } cases[] = {
        {"\x1f\x8b\x08", 1000, "gzip"},
        {"070701", 1000, "--initrd"},
        {"", 10, "too short"},
        {"#!/bin/sh", 1000, "bzImage"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fixture *f = *state;

        error_clear(&f->err);
        memset(f->kernel, 0, sizeof(f->kernel));
        memcpy(f->kernel, cases[i].start, strlen(cases[i].start));
        f->request.kernel.size_bytes = cases[i].size_bytes;
        expect_refusal(f, ENOEXEC, cases[i].says);
    }
}

/* ---- the memory map ---- */

static void ram_above_three_gib_moves_above_four(void **state)
{
    struct pc_layout layout;
    uint64_t ram = 0, end = 0;

    pc_layout_init(&layout, 4096 * MIB, 1);
    for (size_t i = 0; i < layout.e820_count; i++) {
        assert_true(layout.e820[i].gpa >= end);
        end = layout.e820[i].gpa + layout.e820[i].size_bytes;
        if (layout.e820[i].type == E820_RAM)
            ram += layout.e820[i].size_bytes;
    }
    assert_int_equal(end, 5120 * MIB);
    assert_int_equal(layout.low_ram_bytes, 3072 * MIB);
    assert_int_equal(ram, 4096 * MIB - (MIB - PC_CONVENTIONAL_END));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(linux_is_entered_in_long_mode),
        TEST(the_zero_page_says_where_everything_is),
        TEST(page_tables_map_the_low_four_gib_one_to_one),
        TEST(initrds_are_put_behind_each_other_on_four_bytes),
        TEST(the_initrd_stays_below_the_kernels_limit),
        TEST(an_old_kernel_is_entered_in_protected_mode),
        TEST(the_32_bit_entry_can_be_asked_for),
        TEST(a_64_bit_entry_that_is_not_there_is_refused),
        TEST(a_linux_kernel_cut_anywhere_is_refused),
        TEST(a_linux_kernel_too_big_for_the_memory_is_refused),
        TEST(an_address_that_wraps_around_is_refused),
        TEST(an_initrd_that_does_not_fit_is_refused),
        TEST(a_command_line_has_the_kernels_limit),
        TEST(old_protocols_and_zimages_are_refused),
        TEST(a_pvh_kernel_gets_its_start_info),
        TEST(what_lies_behind_a_segments_file_bytes_is_zeroed),
        TEST(an_elf_file_without_an_entry_for_us_is_refused),
        TEST(an_elf_kernel_cut_anywhere_is_refused),
        TEST(damaged_elf_headers_are_refused),
        TEST(a_note_that_lies_about_its_length_is_ignored),
        TEST(segments_that_overlap_are_refused),
        TEST(a_multiboot_elf_is_entered_with_magic_and_information),
        TEST(multiboot_modules_lie_on_pages_behind_the_kernel),
        TEST(a_flat_multiboot_file_is_placed_by_its_addresses),
        TEST(damaged_multiboot_addresses_are_refused),
        TEST(multiboot_wishes_that_cannot_be_met_are_refused),
        TEST(a_header_behind_the_first_8_kib_does_not_count),
        TEST(files_of_the_wrong_kind_are_named),
        TEST(ram_above_three_gib_moves_above_four),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
