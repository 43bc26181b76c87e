/*
 * gdb_data.c - the debugger reads and writes registers and memory
 *
 * Addresses are linear ones of the thread that was chosen with Hg, translated without side
 * effects; "monitor phys on" makes them guest-physical.
 */
#include "control/gdb_session.h"

#include <errno.h>
#include <string.h>

#include "control/gdb_registers.h"

#define MAX_READ_BYTES (GDB_PACKET_BYTES / 2 - 16)

/* ---- registers ---- */

/* While the processors are parked, registers are in vcpu->state; the engine's translate and
 * debug look at its own copy. */
void gdb_registers_written(const struct gdbstub *stub, struct vcpu *vcpu)
{
    if (gdb_engine(stub)->set_state)
        gdb_engine(stub)->set_state(vcpu);
}

void packet_read_registers(struct gdbstub *stub, const char *text, size_t size)
{
    struct vcpu *vcpu = gdb_vcpu(stub);

    for (unsigned i = 0; i < gdb_register_count(); i++) {
        uint8_t value[GDB_MAX_REGISTER_BYTES];

        gdb_register_read(vcpu, i, value);
        gdb_put_hex(&stub->reply, value, gdb_register_size(i));
    }
}

/* Values may end early. What cannot be written keeps its value, and the reply says so. */
void packet_write_registers(struct gdbstub *stub, const char *text, size_t size)
{
    struct vcpu *vcpu = gdb_vcpu(stub);
    bool refused = false;

    for (unsigned i = 0; i < gdb_register_count() && *text; i++) {
        uint8_t value[GDB_MAX_REGISTER_BYTES];

        if (!gdb_get_bytes(&text, value, gdb_register_size(i))) {
            gdb_reply_error(stub, EINVAL);
            return;
        }
        refused |= !gdb_register_write(vcpu, i, value);
    }
    gdb_registers_written(stub, vcpu);
    if (refused)
        gdb_reply_error(stub, EPERM);
    else
        gdb_reply_text(stub, "OK");
}

static bool get_register_number(const char **text, unsigned *out_number)
{
    uint64_t number;

    if (!gdb_get_hex(text, &number) || number >= gdb_register_count())
        return false;
    *out_number = (unsigned)number;
    return true;
}

void packet_read_register(struct gdbstub *stub, const char *text, size_t size)
{
    struct vcpu *vcpu = gdb_vcpu(stub);
    uint8_t value[GDB_MAX_REGISTER_BYTES];
    unsigned number;

    if (!get_register_number(&text, &number)) {
        gdb_reply_error(stub, EINVAL);
        return;
    }
    gdb_register_read(vcpu, number, value);
    gdb_put_hex(&stub->reply, value, gdb_register_size(number));
}

void packet_write_register(struct gdbstub *stub, const char *text, size_t size)
{
    struct vcpu *vcpu = gdb_vcpu(stub);
    uint8_t value[GDB_MAX_REGISTER_BYTES];
    unsigned number;

    if (!get_register_number(&text, &number) || !gdb_get_char(&text, '=') ||
        !gdb_get_bytes(&text, value, gdb_register_size(number))) {
        gdb_reply_error(stub, EINVAL);
        return;
    }
    if (!gdb_register_write(vcpu, number, value)) {
        gdb_reply_error(stub, EPERM);
        return;
    }
    gdb_registers_written(stub, vcpu);
    gdb_reply_text(stub, "OK");
}

/* ---- memory ---- */

static bool to_physical(const struct gdbstub *stub, uint64_t address, uint64_t *out_gpa)
{
    const struct engine_ops *engine = gdb_engine(stub);

    if (stub->physical || !engine->translate) {
        *out_gpa = address;
        return true;
    }
    return engine->translate(gdb_vcpu(stub), address, out_gpa);
}

/* Bytes from address to the end of its page, at most size. */
static size_t within_page(uint64_t address, size_t size)
{
    size_t rest = GUEST_PAGE_SIZE - (size_t)(address & (GUEST_PAGE_SIZE - 1));

    return size < rest ? size : rest;
}

/* Returns how many bytes could be read. */
static size_t read_guest(const struct gdbstub *stub, uint64_t address, uint8_t *out, size_t size)
{
    size_t done = 0;

    while (done < size) {
        size_t part = within_page(address + done, size - done);
        uint64_t gpa;

        if (!to_physical(stub, address + done, &gpa) ||
            memory_read(machine_memory(stub->machine), gpa, out + done, part))
            break;
        done += part;
    }
    return done;
}

static bool write_guest(const struct gdbstub *stub, uint64_t address, const uint8_t *data,
                        size_t size)
{
    for (size_t done = 0; done < size;) {
        size_t part = within_page(address + done, size - done);
        uint64_t gpa;

        if (!to_physical(stub, address + done, &gpa) ||
            memory_write(machine_memory(stub->machine), gpa, data + done, part))
            return false;
        done += part;
    }
    return true;
}

bool gdb_get_range(const char **text, uint64_t *out_address, uint64_t *out_size)
{
    return gdb_get_hex(text, out_address) && gdb_get_char(text, ',') && gdb_get_hex(text, out_size);
}

void packet_read_memory(struct gdbstub *stub, const char *text, size_t size)
{
    static uint8_t bytes[MAX_READ_BYTES];
    uint64_t address, length;
    size_t done;

    if (!gdb_get_range(&text, &address, &length)) {
        gdb_reply_error(stub, EINVAL);
        return;
    }
    if (length > sizeof(bytes))
        length = sizeof(bytes);
    done = read_guest(stub, address, bytes, length);
    if (done == 0 && length > 0)
        gdb_reply_error(stub, EFAULT);
    else
        gdb_put_hex(&stub->reply, bytes, done);
}

static void reply_written(struct gdbstub *stub, uint64_t address, const uint8_t *data, size_t size)
{
    if (write_guest(stub, address, data, size))
        gdb_reply_text(stub, "OK");
    else
        gdb_reply_error(stub, EFAULT);
}

void packet_write_memory(struct gdbstub *stub, const char *text, size_t size)
{
    static uint8_t bytes[GDB_PACKET_BYTES / 2];
    uint64_t address, length;

    if (!gdb_get_range(&text, &address, &length) || !gdb_get_char(&text, ':') ||
        length > sizeof(bytes) || !gdb_get_bytes(&text, bytes, length)) {
        gdb_reply_error(stub, EINVAL);
        return;
    }
    reply_written(stub, address, bytes, length);
}

void packet_write_binary(struct gdbstub *stub, const char *text, size_t size)
{
    const char *end = text + size;
    uint64_t address, length;

    if (!gdb_get_range(&text, &address, &length) || !gdb_get_char(&text, ':') ||
        length != (uint64_t)(end - text)) {
        gdb_reply_error(stub, EINVAL);
        return;
    }
    reply_written(stub, address, (const uint8_t *)text, length);
}
