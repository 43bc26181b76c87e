/*
 * aml.h - write ACPI machine language (AML) from builder calls
 *
 * After ACPI 6.4, chapter 20 (AML) and 6.4 (resource descriptors). Only what
 * a table that is generated once needs: named objects, devices, packages,
 * resources; methods of a few terms.
 *
 * The writer fills a buffer of the caller. Running over its end sets overflow and writes
 * nothing more, so that only the end has to be checked. Names are absolute
 * ("\\_SB_") or single segments of four characters.
 */
#ifndef MACHINE_AML_H
#define MACHINE_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct aml {
    uint8_t *data;
    size_t size_bytes;
    size_t capacity_bytes;
    bool overflow;
};

void aml_byte(struct aml *aml, uint8_t value);
void aml_bytes(struct aml *aml, const void *data, size_t size_bytes);

/* Data: integers take their shortest form. */
void aml_integer(struct aml *aml, uint64_t value);
void aml_string(struct aml *aml, const char *text);
/* A compressed EISA id such as "PNP0501" (ACPI 6.4, 19.3.4). */
void aml_eisa_id(struct aml *aml, const char *id);

/* Name (NAME, ...): the data object comes next. */
void aml_name(struct aml *aml, const char *name);
void aml_name_integer(struct aml *aml, const char *name, uint64_t value);
void aml_name_eisa_id(struct aml *aml, const char *name, const char *id);
void aml_name_string(struct aml *aml, const char *name, const char *text);
/* An integer that takes two bytes, whatever it is. */
void aml_name_byte(struct aml *aml, const char *name, uint8_t value);

/* Blocks: what is written up to the matching aml_end is inside. Each returns what aml_end takes. */
size_t aml_begin_scope(struct aml *aml, const char *name);
size_t aml_begin_device(struct aml *aml, const char *name);
size_t aml_begin_package(struct aml *aml, uint8_t element_count);
void aml_end(struct aml *aml, size_t block);

/*
 * Methods: terms are written in prefix order, as AML has them. The comment shows the
 * operands that follow; a target comes last and is one of ARG, LOCAL or a name.
 */
enum aml_term {
    AML_LOCAL0 = 0x60,
    AML_ARG0 = 0x68,
    AML_ARG1,
    AML_ARG2,
    AML_ARG3,
    AML_STORE = 0x70, /* value target */
    AML_AND = 0x7b,   /* value value target */
    AML_OR = 0x7d,    /* value value target */
    AML_NOT = 0x92,   /* value */
    AML_EQUAL = 0x93, /* value value */
    AML_RETURN = 0xa4 /* value */
};
void aml_term(struct aml *aml, enum aml_term term);
void aml_name_term(struct aml *aml, const char *name); /* the object of that name */
/* A buffer with the bytes of a UUID such as "33db4d5b-1ff7-401c-9657-7441c03dd766" (19.6.142). */
void aml_uuid(struct aml *aml, const char *uuid);
/* CreateDWordField: name is the doubleword at offset_bytes of a buffer. */
void aml_dword_field(struct aml *aml, enum aml_term buffer, unsigned offset_bytes,
                     const char *name);
/* Ended with aml_end. Methods are serialized; the condition of an If comes next, an Else after it.
 */
size_t aml_begin_method(struct aml *aml, const char *name, unsigned argument_count);
size_t aml_begin_if(struct aml *aml);
size_t aml_begin_else(struct aml *aml);

/* A buffer of resource descriptors, ended with the end tag and its length. */
struct aml_resources {
    size_t package, size;
};
struct aml_resources aml_begin_resources(struct aml *aml);
void aml_end_resources(struct aml *aml, struct aml_resources resources);

void aml_io(struct aml *aml, uint16_t port, uint8_t count);
void aml_irq(struct aml *aml, unsigned irq);     /* ISA: edge, active high */
void aml_dma(struct aml *aml, uint8_t channels); /* ISA: a bit each; bytes, compatible timing */
/* Global system interrupt: level-triggered, active high, shared. */
void aml_interrupt(struct aml *aml, uint32_t gsi);
void aml_memory32(struct aml *aml, uint32_t gpa, uint32_t size_bytes, bool writable);
/* Windows that a bridge passes on. The end is included. */
void aml_bus_window(struct aml *aml, uint16_t first, uint16_t last);
void aml_io_window(struct aml *aml, uint16_t first, uint16_t last);
void aml_memory_window(struct aml *aml, uint32_t first, uint32_t last, bool cacheable);
void aml_memory_window64(struct aml *aml, uint64_t first, uint64_t last);

#endif
