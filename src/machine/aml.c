/*
 * aml.c - write ACPI machine language (AML) from builder calls
 *
 * After ACPI 6.4, chapter 20 (AML) and 6.4 (resource descriptors). Package
 * lengths are always written in their three-byte form, which is valid for every
 * length and lets a block be closed without moving it.
 */
#include "machine/aml.h"

#include <string.h>

#include "base/bytes.h"

enum {
    AML_ZERO = 0x00,
    AML_ONE = 0x01,
    AML_NAME = 0x08,
    AML_BYTE = 0x0a,
    AML_WORD = 0x0b,
    AML_DWORD = 0x0c,
    AML_STRING = 0x0d,
    AML_QWORD = 0x0e,
    AML_SCOPE = 0x10,
    AML_BUFFER = 0x11,
    AML_PACKAGE = 0x12,
    AML_METHOD = 0x14,
    AML_EXTENDED = 0x5b,
    AML_DEVICE = 0x82, /* after AML_EXTENDED */
    AML_DWORD_FIELD = 0x8a,
    AML_IF = 0xa0,
    AML_ELSE = 0xa1,

    METHOD_SERIALIZED = 1 << 3,
    UUID_BYTES = 16,

    LENGTH_BYTES = 3,

    RESOURCE_IRQ = 0x22, /* two bytes follow */
    RESOURCE_IO = 0x47,
    RESOURCE_END = 0x79,
    RESOURCE_MEMORY32 = 0x86,
    RESOURCE_DWORD = 0x87,
    RESOURCE_WORD = 0x88,
    RESOURCE_INTERRUPT = 0x89,
    RESOURCE_QWORD = 0x8a,

    WINDOW_MEMORY = 0,
    WINDOW_IO = 1,
    WINDOW_BUS = 2,
    WINDOW_FIXED = 0x0c, /* minimum and maximum are fixed, positive decode, producer */
};

void aml_bytes(struct aml *aml, const void *data, size_t size_bytes)
{
    if (aml->overflow || size_bytes > aml->capacity_bytes - aml->size_bytes) {
        aml->overflow = true;
        return;
    }
    memcpy(aml->data + aml->size_bytes, data, size_bytes);
    aml->size_bytes += size_bytes;
}

void aml_byte(struct aml *aml, uint8_t value)
{
    aml_bytes(aml, &value, 1);
}

static void aml_word(struct aml *aml, uint16_t value)
{
    uint8_t bytes[2];

    put_le16(bytes, value);
    aml_bytes(aml, bytes, sizeof(bytes));
}

static void aml_dword(struct aml *aml, uint32_t value)
{
    uint8_t bytes[4];

    put_le32(bytes, value);
    aml_bytes(aml, bytes, sizeof(bytes));
}

static void aml_qword(struct aml *aml, uint64_t value)
{
    aml_dword(aml, (uint32_t)value);
    aml_dword(aml, (uint32_t)(value >> 32));
}

void aml_integer(struct aml *aml, uint64_t value)
{
    uint8_t bytes[8];

    put_le64(bytes, value);
    if (value == 0) {
        aml_byte(aml, AML_ZERO);
    } else if (value == 1) {
        aml_byte(aml, AML_ONE);
    } else {
        unsigned size = value <= UINT8_MAX    ? 1
                        : value <= UINT16_MAX ? 2
                        : value <= UINT32_MAX ? 4
                                              : 8;

        aml_byte(aml, size == 1   ? AML_BYTE
                      : size == 2 ? AML_WORD
                      : size == 4 ? AML_DWORD
                                  : AML_QWORD);
        aml_bytes(aml, bytes, size);
    }
}

void aml_string(struct aml *aml, const char *text)
{
    aml_byte(aml, AML_STRING);
    aml_bytes(aml, text, strlen(text) + 1);
}

static unsigned hex_digit(char c)
{
    return (unsigned)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
}

void aml_eisa_id(struct aml *aml, const char *id)
{
    uint8_t bytes[4];
    unsigned letters = (unsigned)((id[0] - 0x40) << 10 | (id[1] - 0x40) << 5 | (id[2] - 0x40));

    bytes[0] = (uint8_t)(letters >> 8);
    bytes[1] = (uint8_t)letters;
    bytes[2] = (uint8_t)(hex_digit(id[3]) << 4 | hex_digit(id[4]));
    bytes[3] = (uint8_t)(hex_digit(id[5]) << 4 | hex_digit(id[6]));
    aml_integer(aml, get_le32(bytes));
}

static void aml_name_string_of(struct aml *aml, const char *name)
{
    aml_bytes(aml, name, strlen(name));
}

void aml_name(struct aml *aml, const char *name)
{
    aml_byte(aml, AML_NAME);
    aml_name_string_of(aml, name);
}

void aml_name_integer(struct aml *aml, const char *name, uint64_t value)
{
    aml_name(aml, name);
    aml_integer(aml, value);
}

void aml_name_eisa_id(struct aml *aml, const char *name, const char *id)
{
    aml_name(aml, name);
    aml_eisa_id(aml, id);
}

void aml_name_string(struct aml *aml, const char *name, const char *text)
{
    aml_name(aml, name);
    aml_string(aml, text);
}

void aml_name_byte(struct aml *aml, const char *name, uint8_t value)
{
    aml_name(aml, name);
    aml_byte(aml, AML_BYTE);
    aml_byte(aml, value);
}

/* Leave room for the package length, which counts itself. */
static size_t begin(struct aml *aml)
{
    size_t block = aml->size_bytes;

    aml_bytes(aml, (uint8_t[LENGTH_BYTES]){0}, LENGTH_BYTES);
    return block;
}

void aml_end(struct aml *aml, size_t block)
{
    size_t length = aml->size_bytes - block;

    if (aml->overflow)
        return;
    /* Lead byte: bits 7-6 how many bytes follow, bits 3-0 the lowest bits (ACPI 6.4, 20.2.4). */
    aml->data[block] = (uint8_t)(2 << 6 | (length & 0xf));
    aml->data[block + 1] = (uint8_t)(length >> 4);
    aml->data[block + 2] = (uint8_t)(length >> 12);
}

size_t aml_begin_scope(struct aml *aml, const char *name)
{
    size_t block;

    aml_byte(aml, AML_SCOPE);
    block = begin(aml);
    aml_name_string_of(aml, name);
    return block;
}

size_t aml_begin_device(struct aml *aml, const char *name)
{
    size_t block;

    aml_byte(aml, AML_EXTENDED);
    aml_byte(aml, AML_DEVICE);
    block = begin(aml);
    aml_name_string_of(aml, name);
    return block;
}

size_t aml_begin_package(struct aml *aml, uint8_t element_count)
{
    size_t block;

    aml_byte(aml, AML_PACKAGE);
    block = begin(aml);
    aml_byte(aml, element_count);
    return block;
}

/* ---- methods ---- */

void aml_term(struct aml *aml, enum aml_term term)
{
    aml_byte(aml, (uint8_t)term);
}

void aml_name_term(struct aml *aml, const char *name)
{
    aml_name_string_of(aml, name);
}

void aml_uuid(struct aml *aml, const char *uuid)
{
    /* Where each byte of the buffer is in the text: the first three groups are little-endian. */
    static const uint8_t place[UUID_BYTES] = {6,  4,  2,  0,  11, 9,  16, 14,
                                              19, 21, 24, 26, 28, 30, 32, 34};
    size_t block;

    aml_byte(aml, AML_BUFFER);
    block = begin(aml);
    aml_integer(aml, UUID_BYTES);
    for (unsigned i = 0; i < UUID_BYTES; i++)
        aml_byte(aml, (uint8_t)(hex_digit(uuid[place[i]]) << 4 | hex_digit(uuid[place[i] + 1])));
    aml_end(aml, block);
}

void aml_dword_field(struct aml *aml, enum aml_term buffer, unsigned offset_bytes, const char *name)
{
    aml_byte(aml, AML_DWORD_FIELD);
    aml_term(aml, buffer);
    aml_integer(aml, offset_bytes);
    aml_name_string_of(aml, name);
}

size_t aml_begin_method(struct aml *aml, const char *name, unsigned argument_count)
{
    size_t block;

    aml_byte(aml, AML_METHOD);
    block = begin(aml);
    aml_name_string_of(aml, name);
    aml_byte(aml, (uint8_t)(argument_count | METHOD_SERIALIZED));
    return block;
}

size_t aml_begin_if(struct aml *aml)
{
    aml_byte(aml, AML_IF);
    return begin(aml);
}

size_t aml_begin_else(struct aml *aml)
{
    aml_byte(aml, AML_ELSE);
    return begin(aml);
}

/* ---- resources ---- */

struct aml_resources aml_begin_resources(struct aml *aml)
{
    struct aml_resources resources;

    aml_name(aml, "_CRS");
    aml_byte(aml, AML_BUFFER);
    resources.package = begin(aml);
    aml_byte(aml, AML_WORD);
    resources.size = aml->size_bytes;
    aml_word(aml, 0);
    return resources;
}

void aml_end_resources(struct aml *aml, struct aml_resources resources)
{
    aml_byte(aml, RESOURCE_END);
    aml_byte(aml, 0); /* checksum: 0 means "not computed" */
    if (!aml->overflow)
        put_le16(aml->data + resources.size, (uint16_t)(aml->size_bytes - resources.size - 2));
    aml_end(aml, resources.package);
}

void aml_io(struct aml *aml, uint16_t port, uint8_t count)
{
    aml_byte(aml, RESOURCE_IO);
    aml_byte(aml, 1); /* decodes 16 bits */
    aml_word(aml, port);
    aml_word(aml, port);
    aml_byte(aml, 1);
    aml_byte(aml, count);
}

void aml_irq(struct aml *aml, unsigned irq)
{
    aml_byte(aml, RESOURCE_IRQ);
    aml_word(aml, (uint16_t)(1u << irq));
}

void aml_dma(struct aml *aml, uint8_t channels)
{
    aml_byte(aml, 0x2a);
    aml_byte(aml, channels);
    aml_byte(aml, 0);
}

void aml_interrupt(struct aml *aml, uint32_t gsi)
{
    aml_byte(aml, RESOURCE_INTERRUPT);
    aml_word(aml, 6);
    aml_byte(aml, 1 << 0 | 1 << 3); /* consumer, shared */
    aml_byte(aml, 1);               /* how many */
    aml_dword(aml, gsi);
}

void aml_memory32(struct aml *aml, uint32_t gpa, uint32_t size_bytes, bool writable)
{
    aml_byte(aml, RESOURCE_MEMORY32);
    aml_word(aml, 9);
    aml_byte(aml, writable);
    aml_dword(aml, gpa);
    aml_dword(aml, size_bytes);
}

static void word_window(struct aml *aml, uint8_t type, uint8_t type_flags, uint16_t first,
                        uint16_t last)
{
    aml_byte(aml, RESOURCE_WORD);
    aml_word(aml, 13);
    aml_byte(aml, type);
    aml_byte(aml, WINDOW_FIXED);
    aml_byte(aml, type_flags);
    aml_word(aml, 0); /* granularity */
    aml_word(aml, first);
    aml_word(aml, last);
    aml_word(aml, 0); /* translation */
    aml_word(aml, (uint16_t)(last - first + 1));
}

void aml_bus_window(struct aml *aml, uint16_t first, uint16_t last)
{
    word_window(aml, WINDOW_BUS, 0, first, last);
}

void aml_io_window(struct aml *aml, uint16_t first, uint16_t last)
{
    word_window(aml, WINDOW_IO, 3, first, last); /* the whole range, ISA and not ISA */
}

void aml_memory_window(struct aml *aml, uint32_t first, uint32_t last, bool cacheable)
{
    aml_byte(aml, RESOURCE_DWORD);
    aml_word(aml, 23);
    aml_byte(aml, WINDOW_MEMORY);
    aml_byte(aml, WINDOW_FIXED);
    aml_byte(aml, (uint8_t)(1 | cacheable << 1)); /* read and write */
    aml_dword(aml, 0);                            /* granularity */
    aml_dword(aml, first);
    aml_dword(aml, last);
    aml_dword(aml, 0); /* translation */
    aml_dword(aml, last - first + 1);
}

void aml_memory_window64(struct aml *aml, uint64_t first, uint64_t last)
{
    aml_byte(aml, RESOURCE_QWORD);
    aml_word(aml, 43);
    aml_byte(aml, WINDOW_MEMORY);
    aml_byte(aml, WINDOW_FIXED);
    aml_byte(aml, 1);  /* read and write, not cacheable */
    aml_qword(aml, 0); /* granularity */
    aml_qword(aml, first);
    aml_qword(aml, last);
    aml_qword(aml, 0); /* translation */
    aml_qword(aml, last - first + 1);
}
