/*
 * load_elf.c - ELF executables for the PVH and multiboot loaders
 *
 * After the System V ABI, "Object files" and "Program loading", 32- and 64-bit
 * little-endian for x86. Segments are loaded at their physical addresses. Left
 * out: relocation (shared objects), sections and symbols.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "machine/loaders.h"

enum {
    ELF_CLASS_32 = 1,
    ELF_CLASS_64 = 2,
    ELF_DATA_LITTLE = 1,
    ELF_TYPE_EXEC = 2,
    ELF_MACHINE_386 = 3,
    ELF_MACHINE_X86_64 = 62,
    ELF_SEGMENT_LOAD = 1,
    ELF_SEGMENT_NOTE = 4,
    XEN_NOTE_PHYS32_ENTRY = 18,
};

/* What the two classes have at different places. */
struct elf_class_layout {
    size_t header_size, entry, phoff, phentsize, phnum;
    size_t segment_size, offset, paddr, filesz, memsz, align;
    bool wide; /* addresses of 8 bytes */
};

static const struct elf_class_layout layout_32 = {
    .header_size = 52,
    .entry = 24,
    .phoff = 28,
    .phentsize = 42,
    .phnum = 44,
    .segment_size = 32,
    .offset = 4,
    .paddr = 12,
    .filesz = 16,
    .memsz = 20,
    .align = 28,
};

static const struct elf_class_layout layout_64 = {
    .header_size = 64,
    .entry = 24,
    .phoff = 32,
    .phentsize = 54,
    .phnum = 56,
    .segment_size = 56,
    .offset = 8,
    .paddr = 24,
    .filesz = 32,
    .memsz = 40,
    .align = 48,
    .wide = true,
};

struct elf_segment {
    uint32_t type;
    uint64_t offset, paddr, filesz, memsz, align;
};

struct elf {
    const struct boot_file *file;
    const struct elf_class_layout *layout;
    uint64_t phoff;
    unsigned phentsize, phnum;
};

static uint64_t get_word(const struct elf_class_layout *layout, const uint8_t *p)
{
    return layout->wide ? get_le64(p) : get_le32(p);
}

bool elf_recognise(const struct boot_file *file)
{
    return file->size_bytes >= 4 && memcmp(file->data, "\177ELF", 4) == 0;
}

static int elf_check_ident(const struct boot_file *file, struct error *err)
{
    const uint8_t *p = file->data;
    unsigned machine;

    if (file->size_bytes < layout_32.header_size)
        return error_set(err, ENOEXEC, "it is cut short: the ELF header is incomplete");
    if ((p[4] != ELF_CLASS_32 && p[4] != ELF_CLASS_64) || p[5] != ELF_DATA_LITTLE)
        return error_set(err, ENOEXEC, "it is an ELF file for another kind of processor");
    machine = get_le16(p + 18);
    if (machine != ELF_MACHINE_386 && machine != ELF_MACHINE_X86_64)
        return error_set(err, ENOEXEC,
                         "it is an ELF file for another processor (machine %u, not x86)", machine);
    if (get_le16(p + 16) != ELF_TYPE_EXEC)
        return error_set(err, ENOEXEC,
                         "it is an ELF object or shared library, not an executable kernel");
    return 0;
}

static int elf_open(struct elf *elf, const struct boot_file *file, struct error *err)
{
    const struct elf_class_layout *layout;
    const uint8_t *p = file->data;
    int status = elf_check_ident(file, err);

    if (status)
        return status;
    layout = p[4] == ELF_CLASS_64 ? &layout_64 : &layout_32;
    if (file->size_bytes < layout->header_size)
        return error_set(err, ENOEXEC, "it is cut short: the ELF header is incomplete");
    *elf = (struct elf){
        .file = file,
        .layout = layout,
        .phoff = get_word(layout, p + layout->phoff),
        .phentsize = get_le16(p + layout->phentsize),
        .phnum = get_le16(p + layout->phnum),
    };
    if (elf->phnum == 0 || elf->phentsize < layout->segment_size)
        return error_set(err, ENOEXEC, "it is an ELF file without program headers");
    if (!range_fits(elf->phoff, (uint64_t)elf->phnum * elf->phentsize, file->size_bytes))
        return error_set(err, ENOEXEC, "it is cut short: the ELF program headers are missing");
    return 0;
}

static struct elf_segment elf_segment(const struct elf *elf, unsigned index)
{
    const struct elf_class_layout *layout = elf->layout;
    const uint8_t *p = elf->file->data + elf->phoff + (uint64_t)index * elf->phentsize;

    return (struct elf_segment){
        .type = get_le32(p),
        .offset = get_word(layout, p + layout->offset),
        .paddr = get_word(layout, p + layout->paddr),
        .filesz = get_word(layout, p + layout->filesz),
        .memsz = get_word(layout, p + layout->memsz),
        .align = get_word(layout, p + layout->align),
    };
}

/* One note: owner "Xen" and the type of the 32-bit physical entry point. */
static void read_note(struct elf_info *info, uint32_t type, const uint8_t *name, uint32_t name_size,
                      const uint8_t *desc, uint32_t desc_size)
{
    if (type != XEN_NOTE_PHYS32_ENTRY || name_size != 4 || memcmp(name, "Xen", 4) != 0)
        return;
    if (desc_size != 4 && desc_size != 8)
        return;
    info->has_pvh_entry = true;
    info->pvh_entry = desc_size == 8 ? get_le64(desc) : get_le32(desc);
}

static void read_notes(const struct elf *elf, const struct elf_segment *segment,
                       struct elf_info *info)
{
    uint64_t alignment = segment->align == 8 ? 8 : 4;
    const uint8_t *p;
    uint64_t at = 0;

    if (!range_fits(segment->offset, segment->filesz, elf->file->size_bytes))
        return;
    p = elf->file->data + segment->offset;
    while (range_fits(at, 12, segment->filesz)) {
        uint32_t name_size = get_le32(p + at);
        uint32_t desc_size = get_le32(p + at + 4);
        uint32_t type = get_le32(p + at + 8);
        uint64_t name = at + 12;
        uint64_t desc = align_up(name + name_size, alignment);

        if (!range_fits(desc, desc_size, segment->filesz))
            return;
        read_note(info, type, p + name, name_size, p + desc, desc_size);
        at = align_up(desc + desc_size, alignment);
    }
}

static int read_info(const struct elf *elf, struct elf_info *out_info, struct error *err)
{
    struct elf_info info = {
        .is_64bit = elf->layout->wide,
        .entry = get_word(elf->layout, elf->file->data + elf->layout->entry),
    };
    bool has_load = false;

    for (unsigned i = 0; i < elf->phnum; i++) {
        struct elf_segment segment = elf_segment(elf, i);

        has_load = has_load || segment.type == ELF_SEGMENT_LOAD;
        if (segment.type == ELF_SEGMENT_NOTE)
            read_notes(elf, &segment, &info);
    }
    if (!has_load)
        return error_set(err, ENOEXEC, "it is an ELF file with nothing to load");
    *out_info = info;
    return 0;
}

int elf_read(const struct boot_file *file, struct elf_info *out_info, struct error *err)
{
    struct elf elf;
    int status = elf_open(&elf, file, err);

    return status ? status : read_info(&elf, out_info, err);
}

static int load_segment(struct boot_image *image, const struct elf *elf,
                        const struct elf_segment *segment, struct error *err)
{
    if (segment->filesz > segment->memsz)
        return error_set(err, ENOEXEC,
                         "it is damaged: an ELF segment is longer in the file (%" PRIu64
                         " bytes) than in memory (%" PRIu64 ")",
                         segment->filesz, segment->memsz);
    if (!range_fits(segment->offset, segment->filesz, elf->file->size_bytes))
        return error_set(err, ENOEXEC,
                         "it is cut short: %zu bytes long, but a segment needs it up to %" PRIu64
                         " bytes from 0x%" PRIx64,
                         elf->file->size_bytes, segment->filesz, segment->offset);
    return boot_image_add(image, "kernel", segment->paddr, elf->file->data + segment->offset,
                          (size_t)segment->filesz, segment->memsz, err);
}

int elf_load(struct boot_image *image, const struct boot_file *file, struct elf_info *out_info,
             struct error *err)
{
    struct elf elf = {.phnum = 0};
    struct elf_info info = {.end_gpa = 0};
    int status = elf_open(&elf, file, err);

    if (status == 0)
        status = read_info(&elf, &info, err);
    for (unsigned i = 0; i < elf.phnum && status == 0; i++) {
        struct elf_segment segment = elf_segment(&elf, i);

        if (segment.type != ELF_SEGMENT_LOAD || segment.memsz == 0)
            continue;
        status = load_segment(image, &elf, &segment, err);
        if (status == 0 && segment.paddr + segment.memsz > info.end_gpa)
            info.end_gpa = segment.paddr + segment.memsz;
    }
    if (status == 0)
        *out_info = info;
    return status;
}
