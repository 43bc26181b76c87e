/*
 * bus.c - port and memory dispatch, access splitting
 *
 * A device states the sizes it takes. An access that does not fit, is not aligned, or
 * crosses into another range is cut into the largest naturally aligned pieces; a
 * piece smaller than a device takes is cut out of (or merged into) an aligned access
 * of the smallest size. Nobody answers at unclaimed addresses: reads float high.
 *
 * Threads: any; takes the machine lock unless the caller has it.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "machine/machine_internal.h"

#define A20_BIT (1ull << 20)

struct bus *bus_new(void)
{
    return calloc(1, sizeof(struct bus));
}

static uint64_t ones(unsigned size_bytes)
{
    return size_bytes >= 8 ? UINT64_MAX : (1ull << 8 * size_bytes) - 1;
}

/* ---- one device ---- */

static unsigned op_min(const struct region_ops *ops)
{
    return ops->min_size ? ops->min_size : 1;
}

static unsigned op_max(const struct region_ops *ops)
{
    return ops->max_size ? ops->max_size : 4;
}

/* Bytes of the next access within [offset, offset+size): a power of two, aligned, at most max. */
static unsigned aligned_piece(uint64_t offset, unsigned size_bytes, unsigned max)
{
    unsigned piece = max;

    while (piece > size_bytes || offset % piece)
        piece /= 2;
    return piece;
}

struct target {
    const struct region_ops *ops;
    struct device *dev;
    uint64_t size_bytes; /* of the region or claim */
};

static uint64_t call_read(const struct target *target, uint64_t offset, unsigned size)
{
    if (!target->ops->read || offset + size > target->size_bytes)
        return ones(size);
    return target->ops->read(target->dev, offset, size) & ones(size);
}

static void call_write(const struct target *target, uint64_t offset, uint64_t value, unsigned size)
{
    if (target->ops->write && offset + size <= target->size_bytes)
        target->ops->write(target->dev, offset, value & ones(size), size);
}

/* A read of fewer bytes than the device takes: out of an aligned one. *size_bytes may shrink. */
static uint64_t read_within(const struct target *target, uint64_t offset, unsigned *size_bytes)
{
    unsigned min = op_min(target->ops), shift = (unsigned)(offset % min);

    if (*size_bytes > min - shift)
        *size_bytes = min - shift;
    return call_read(target, offset - shift, min) >> 8 * shift & ones(*size_bytes);
}

static void write_within(const struct target *target, uint64_t offset, uint64_t value,
                         unsigned *size_bytes)
{
    unsigned min = op_min(target->ops), shift = (unsigned)(offset % min);
    uint64_t mask, whole;

    if (*size_bytes > min - shift)
        *size_bytes = min - shift;
    mask = ones(*size_bytes) << 8 * shift;
    whole = call_read(target, offset - shift, min) & ~mask;
    call_write(target, offset - shift, whole | (value << 8 * shift & mask), min);
}

static uint64_t target_read(const struct target *target, uint64_t offset, unsigned size_bytes)
{
    uint64_t value = 0;
    unsigned done = 0;

    while (done < size_bytes) {
        unsigned piece = aligned_piece(offset + done, size_bytes - done, op_max(target->ops));
        uint64_t part;

        if (piece < op_min(target->ops)) {
            piece = size_bytes - done;
            part = read_within(target, offset + done, &piece);
        } else {
            part = call_read(target, offset + done, piece);
        }
        value |= part << 8 * done;
        done += piece;
    }
    return value;
}

static void target_write(const struct target *target, uint64_t offset, uint64_t value,
                         unsigned size_bytes)
{
    unsigned done = 0;

    while (done < size_bytes) {
        unsigned piece = aligned_piece(offset + done, size_bytes - done, op_max(target->ops));

        if (piece < op_min(target->ops)) {
            piece = size_bytes - done;
            write_within(target, offset + done, value >> 8 * done, &piece);
        } else {
            call_write(target, offset + done, value >> 8 * done, piece);
        }
        done += piece;
    }
}

/* ---- ports ---- */

int bus_claim_ports(struct machine *machine, struct port_claim *claim, struct error *err)
{
    struct port_claim **ports = machine->bus->ports;

    if (!claim->count || claim->first + claim->count > PORT_COUNT)
        return error_set(err, EINVAL, "ports 0x%x and %u more are not I/O ports", claim->first,
                         claim->count);
    for (uint32_t i = 0; i < claim->count; i++)
        if (ports[claim->first + i])
            return error_set(err, EBUSY, "port 0x%x belongs to '%s' already", claim->first + i,
                             ports[claim->first + i]->dev->id);
    for (uint32_t i = 0; i < claim->count; i++)
        ports[claim->first + i] = claim;
    return 0;
}

void bus_release_ports(struct machine *machine, struct port_claim *claim)
{
    for (uint32_t i = 0; i < claim->count; i++)
        if (machine->bus->ports[claim->first + i] == claim)
            machine->bus->ports[claim->first + i] = NULL;
}

static void unclaimed_port(struct bus *bus, uint32_t port, const char *what)
{
    bus->unclaimed_ports++;
    if (port >= PORT_COUNT || bus->port_logged[port / 8] >> port % 8 & 1)
        return;
    bus->port_logged[port / 8] |= (uint8_t)(1u << port % 8);
    log_message(LOG_GUEST, "%s of port 0x%x, where nothing is", what, port);
}

/* How many of size_bytes ports from port on belong to one device, or to none (*out_claim NULL). */
static unsigned port_piece(const struct bus *bus, uint32_t port, unsigned size_bytes,
                           const struct port_claim **out_claim)
{
    unsigned piece = 1;

    if (port >= PORT_COUNT) { /* behind the last port */
        *out_claim = NULL;
        return size_bytes;
    }
    *out_claim = bus->ports[port];
    while (piece < size_bytes && port + piece < PORT_COUNT &&
           bus->ports[port + piece] == *out_claim)
        piece++;
    return piece;
}

static struct target port_target(const struct port_claim *claim)
{
    return (struct target){.ops = claim->ops, .dev = claim->dev, .size_bytes = claim->count};
}

uint32_t bus_port_read(struct machine *machine, uint16_t port, unsigned size_bytes)
{
    bool locked = machine_lock_if(machine);
    uint64_t value = 0;
    unsigned done = 0;

    assert(size_bytes >= 1 && size_bytes <= 4);
    while (done < size_bytes) {
        const struct port_claim *claim;
        unsigned piece = port_piece(machine->bus, port + done, size_bytes - done, &claim);
        uint64_t part = ones(piece);

        if (claim) {
            struct target target = port_target(claim);

            part = target_read(&target, port + done - claim->first, piece);
        } else {
            unclaimed_port(machine->bus, port + done, "read");
        }
        value |= part << 8 * done;
        done += piece;
    }
    machine_unlock_if(machine, locked);
    trace(PORT_READ, port, size_bytes, value);
    return (uint32_t)value;
}

void bus_port_write(struct machine *machine, uint16_t port, uint32_t value, unsigned size_bytes)
{
    bool locked = machine_lock_if(machine);
    unsigned done = 0;

    assert(size_bytes >= 1 && size_bytes <= 4);
    trace(PORT_WRITE, port, size_bytes, value);
    while (done < size_bytes) {
        const struct port_claim *claim;
        unsigned piece = port_piece(machine->bus, port + done, size_bytes - done, &claim);

        if (claim) {
            struct target target = port_target(claim);

            target_write(&target, port + done - claim->first, value >> 8 * done, piece);
        } else {
            unclaimed_port(machine->bus, port + done, "write");
        }
        done += piece;
    }
    machine_unlock_if(machine, locked);
}

/* ---- memory ---- */

static void unclaimed_memory(struct bus *bus, uint64_t gpa, const char *what)
{
    bus->unclaimed_memory++;
    if (bus->memory_logged_count == UNCLAIMED_LOG_MAX)
        return;
    for (unsigned i = 0; i < bus->memory_logged_count; i++)
        if (bus->memory_logged[i] == gpa)
            return;
    bus->memory_logged[bus->memory_logged_count++] = gpa;
    log_message(LOG_GUEST, "%s of address 0x%" PRIx64 ", where nothing is", what, gpa);
}

/*
 * The A20 gate sits between the processors and everything else. While it is closed, the bytes on
 * both sides of a MiB border are not neighbours: *size_bytes shrinks to what comes before it.
 */
static uint64_t gated(const struct machine *machine, uint64_t gpa, unsigned *size_bytes)
{
    uint64_t left = A20_BIT - gpa % A20_BIT;

    if (machine_a20(machine))
        return gpa;
    if (*size_bytes > left)
        *size_bytes = (unsigned)left;
    return gpa & ~A20_BIT;
}

/*
 * What answers at gpa, for how many of size_bytes. The view is given back at once: regions
 * of devices go away under the machine lock only, which is held, and RAM never does.
 */
static struct flat_range find_range(struct machine *machine, uint64_t gpa, unsigned *size_bytes)
{
    const struct flat_view *view = memory_view_get(machine->memory);
    const struct flat_range *found = flat_view_find(view, gpa);
    struct flat_range range = {0};
    unsigned piece = 1;

    if (found) {
        uint64_t left = found->gpa + found->size_bytes - gpa;

        range = *found;
        if (*size_bytes > left)
            *size_bytes = (unsigned)left;
    } else {
        while (piece < *size_bytes && !flat_view_find(view, gpa + piece))
            piece++;
        *size_bytes = piece;
    }
    memory_view_put(machine->memory, view);
    return range;
}

static struct target region_target(const struct region *region)
{
    return (struct target){
        .ops = region->ops, .dev = region->dev, .size_bytes = region->size_bytes};
}

static uint64_t range_read(struct machine *machine, const struct flat_range *range, uint64_t gpa,
                           unsigned size_bytes)
{
    uint64_t value = 0;

    if (!range->region) {
        unclaimed_memory(machine->bus, gpa, "read");
        return ones(size_bytes);
    }
    if (range->region->kind == REGION_DEVICE) {
        struct target target = region_target(range->region);

        return target_read(&target, range->offset + (gpa - range->gpa), size_bytes);
    }
    memory_read(machine->memory, gpa, &value, size_bytes);
    return value;
}

static void range_write(struct machine *machine, const struct flat_range *range, uint64_t gpa,
                        uint64_t value, unsigned size_bytes)
{
    if (!range->region) {
        unclaimed_memory(machine->bus, gpa, "write");
    } else if (range->region->kind == REGION_DEVICE) {
        struct target target = region_target(range->region);

        target_write(&target, range->offset + (gpa - range->gpa), value, size_bytes);
    } else {
        memory_write(machine->memory, gpa, &value, size_bytes); /* ROM ignores it */
    }
}

uint64_t bus_memory_read(struct machine *machine, uint64_t gpa, unsigned size_bytes)
{
    bool locked = machine_lock_if(machine);
    uint64_t value = 0;
    unsigned done = 0;

    assert(size_bytes >= 1 && size_bytes <= 8);
    while (done < size_bytes) {
        unsigned piece = size_bytes - done;
        uint64_t at = gated(machine, gpa + done, &piece);
        struct flat_range range = find_range(machine, at, &piece);

        value |= range_read(machine, &range, at, piece) << 8 * done;
        done += piece;
    }
    machine_unlock_if(machine, locked);
    trace(MMIO_READ, gpa, size_bytes, value);
    return value;
}

void bus_memory_write(struct machine *machine, uint64_t gpa, uint64_t value, unsigned size_bytes)
{
    bool locked = machine_lock_if(machine);
    unsigned done = 0;

    assert(size_bytes >= 1 && size_bytes <= 8);
    trace(MMIO_WRITE, gpa, size_bytes, value);
    while (done < size_bytes) {
        unsigned piece = size_bytes - done;
        uint64_t at = gated(machine, gpa + done, &piece);
        struct flat_range range = find_range(machine, at, &piece);

        range_write(machine, &range, at, value >> 8 * done, piece);
        done += piece;
    }
    machine_unlock_if(machine, locked);
}
