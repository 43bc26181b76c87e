/*
 * xhci_driver.h - a guest's xHCI driver, for the device test and the fuzz target
 *
 * Finds the controller on the PCI bus of a device_test machine, starts it, addresses devices, and
 * moves data. Everything goes through configuration space, the BAR and RAM, as a guest would.
 */
#ifndef TESTS_DEVICE_XHCI_DRIVER_H
#define TESTS_DEVICE_XHCI_DRIVER_H

#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "device_test.h"
#include "devices/usb/xhci.h"
#include "trapeze/pci.h"
#include "usb_driver.h"

#define XHCI_ECAM         0xe0000000ull
#define XHCI_SLOT         3u
#define XHCI_BAR          0xc0400000ull

/* Where things are in RAM. */
#define XHCI_DCBAA        0x10000u
#define XHCI_COMMANDS     0x11000u
#define XHCI_TABLE        0x12000u
#define XHCI_EVENTS       0x13000u
#define XHCI_INPUT        0x14000u
#define XHCI_OUTPUT       0x20000u /* 0x1000 for each slot */
#define XHCI_RINGS        0x30000u /* of endpoints: 0x400 each, 16 a slot */
#define XHCI_DATA_AREA    0x80000u
#define XHCI_RING_TRBS    64u
#define XHCI_EVENT_TRBS   64u
#define XHCI_DRIVER_SLOTS 4u

#define XHCI_OP           (XHCI_BAR + 0x40)
#define XHCI_PORTSC(port) (XHCI_BAR + 0x440 + 0x10 * ((port)-1))
#define XHCI_IR           (XHCI_BAR + 0x1020)
#define XHCI_DOORBELL(n)  (XHCI_BAR + 0x2000 + 4 * (n))

struct xhci_driver_ring {
    uint64_t gpa;
    unsigned at;
    bool cycle;
};

struct xhci_event {
    uint64_t parameter;
    uint32_t status, control;
};

struct xhci_driver {
    struct device_test *t;
    struct xhci_driver_ring commands, endpoints[XHCI_DRIVER_SLOTS + 1][32];
    unsigned event;
    bool event_cycle;
};

static inline unsigned xhci_event_type(const struct xhci_event *e)
{
    return e->control >> 10 & 0x3f;
}

static inline unsigned xhci_event_code(const struct xhci_event *e)
{
    return e->status >> 24;
}

static inline uint64_t xhci_config_gpa(unsigned offset)
{
    return XHCI_ECAM + (XHCI_SLOT << 15) + offset;
}

static inline void xhci_put(struct xhci_driver *d, uint64_t gpa, uint64_t parameter,
                            uint32_t status, uint32_t control)
{
    uint8_t *trb = d->t->ram.hva + gpa;

    put_le64(trb, parameter);
    put_le32(trb + 8, status);
    put_le32(trb + 12, control);
}

/* The last place of a ring is the link to its begin. Where the TRB is. */
static inline uint64_t xhci_add(struct xhci_driver *d, struct xhci_driver_ring *r,
                                uint64_t parameter, uint32_t status, uint32_t control)
{
    uint64_t gpa = r->gpa + 16 * r->at;

    xhci_put(d, gpa, parameter, status, control | r->cycle);
    if (++r->at == XHCI_RING_TRBS - 1) {
        xhci_put(d, r->gpa + 16 * r->at, r->gpa, 0,
                 XHCI_LINK << 10 | XHCI_TRB_TOGGLE | (control & XHCI_TRB_CHAIN) | r->cycle);
        r->at = 0;
        r->cycle = !r->cycle;
    }
    return gpa;
}

static inline void xhci_init_ring(struct xhci_driver *d, struct xhci_driver_ring *r, uint64_t gpa)
{
    memset(d->t->ram.hva + gpa, 0, 16 * XHCI_RING_TRBS);
    *r = (struct xhci_driver_ring){.gpa = gpa, .cycle = true};
}

/* Its BAR has an address, it decodes it and is bus master; it is reset and runs. */
static inline void xhci_driver_start(struct xhci_driver *d, struct device_test *t)
{
    *d = (struct xhci_driver){.t = t, .event_cycle = true};
    memset(t->ram.hva + XHCI_DCBAA, 0, XHCI_DATA_AREA - XHCI_DCBAA);
    test_write(t, xhci_config_gpa(PCI_BAR0), XHCI_BAR, 4);
    test_write(t, xhci_config_gpa(PCI_BAR0 + 4), 0, 4);
    test_write(t, xhci_config_gpa(PCI_COMMAND), PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
    test_write(t, XHCI_OP, 0, 4);
    test_write(t, XHCI_OP, XHCI_CMD_RESET, 4);
    xhci_init_ring(d, &d->commands, XHCI_COMMANDS);
    for (unsigned n = 1; n <= XHCI_DRIVER_SLOTS; n++)
        put_le64(t->ram.hva + XHCI_DCBAA + 8 * n, XHCI_OUTPUT + 0x1000 * n);
    put_le64(t->ram.hva + XHCI_TABLE, XHCI_EVENTS);
    put_le32(t->ram.hva + XHCI_TABLE + 8, XHCI_EVENT_TRBS);
    test_write(t, XHCI_OP + 0x38, XHCI_DRIVER_SLOTS, 4);
    test_write(t, XHCI_OP + 0x30, XHCI_DCBAA, 8);
    test_write(t, XHCI_OP + 0x18, XHCI_COMMANDS | 1, 8);
    test_write(t, XHCI_IR + 0x08, 1, 4);
    test_write(t, XHCI_IR + 0x18, XHCI_EVENTS, 8);
    test_write(t, XHCI_IR + 0x10, XHCI_TABLE, 8);
    test_write(t, XHCI_IR + 0x04, 0, 4);
    test_write(t, XHCI_IR, 2, 4);
    test_write(t, XHCI_OP, XHCI_CMD_RUN | XHCI_CMD_INTE, 4);
}

/* Take the next event, and tell the controller. */
static inline bool xhci_take(struct xhci_driver *d, struct xhci_event *out)
{
    const uint8_t *trb = d->t->ram.hva + XHCI_EVENTS + 16 * d->event;

    *out = (struct xhci_event){get_le64(trb), get_le32(trb + 8), get_le32(trb + 12)};
    if ((out->control & 1) != d->event_cycle)
        return false;
    d->event = (d->event + 1) % XHCI_EVENT_TRBS;
    if (!d->event)
        d->event_cycle = !d->event_cycle;
    test_write(d->t, XHCI_IR + 0x18, (XHCI_EVENTS + 16 * d->event) | XHCI_ERDP_BUSY, 8);
    return true;
}

/* The next event of that type, others are dropped; the loop runs meanwhile. False after 2 s. */
static inline bool xhci_wait(struct xhci_driver *d, unsigned type, struct xhci_event *out)
{
    for (unsigned n = 0; n < 20000; n++) {
        while (xhci_take(d, out))
            if (xhci_event_type(out) == type)
                return true;
        device_test_loop(d->t);
        usleep(n < 100 ? 0 : 100);
    }
    return false;
}

/* Its completion code; 0: there was no event. */
static inline unsigned xhci_command(struct xhci_driver *d, uint64_t parameter, uint32_t control,
                                    unsigned *out_slot)
{
    struct xhci_event event;

    xhci_add(d, &d->commands, parameter, 0, control);
    test_write(d->t, XHCI_DOORBELL(0), 0, 4);
    if (!xhci_wait(d, XHCI_COMMAND_EVENT, &event))
        return 0;
    if (out_slot)
        *out_slot = event.control >> 24;
    return xhci_event_code(&event);
}

static inline void xhci_put_input(struct xhci_driver *d, unsigned dci, uint32_t a, uint32_t b,
                                  uint64_t ring)
{
    uint8_t *context = d->t->ram.hva + XHCI_INPUT + 32 * (dci + 1);

    memset(context, 0, 32);
    put_le32(context, a);
    put_le32(context + 4, b);
    put_le64(context + 8, ring);
}

static inline void xhci_begin_input(struct xhci_driver *d, uint32_t drop, uint32_t add)
{
    memset(d->t->ram.hva + XHCI_INPUT, 0, 33 * 32);
    put_le32(d->t->ram.hva + XHCI_INPUT, drop);
    put_le32(d->t->ram.hva + XHCI_INPUT + 4, add);
}

static inline uint64_t xhci_init_endpoint(struct xhci_driver *d, unsigned slot, unsigned dci)
{
    struct xhci_driver_ring *r = &d->endpoints[slot][dci];

    xhci_init_ring(d, r, XHCI_RINGS + (slot * 16 + dci % 16) * 0x400);
    return r->gpa | 1;
}

/* Enable a slot, address the device, behind hubs if there is a route. The slot; 0: no. */
static inline unsigned xhci_address(struct xhci_driver *d, unsigned port, uint32_t route)
{
    unsigned slot = 0;

    if (xhci_command(d, 0, XHCI_ENABLE_SLOT << 10, &slot) != XHCI_SUCCESS)
        return 0;
    xhci_begin_input(d, 0, 3);
    xhci_put_input(d, 0, 1u << 27 | route, port << 16, 0);
    xhci_put_input(d, 1, 0, 8u << 16 | 4u << 3, xhci_init_endpoint(d, slot, 1));
    if (xhci_command(d, XHCI_INPUT, XHCI_ADDRESS_DEVICE << 10 | slot << 24, NULL) != XHCI_SUCCESS)
        return 0;
    return slot;
}

/* The same, when the port was reset. */
static inline unsigned xhci_open(struct xhci_driver *d, unsigned port)
{
    test_write(d->t, XHCI_PORTSC(port), 0x210, 4);
    return xhci_address(d, port, 0);
}

/* type: bulk out 2, interrupt out 3, bulk in 6, interrupt in 7. The completion code. */
static inline unsigned xhci_configure(struct xhci_driver *d, unsigned slot, unsigned dci,
                                      unsigned type)
{
    xhci_begin_input(d, 0, 1u | 1u << dci);
    xhci_put_input(d, 0, dci << 27, 0, 0);
    xhci_put_input(d, dci, 0, 512u << 16 | type << 3, xhci_init_endpoint(d, slot, dci));
    return xhci_command(d, XHCI_INPUT, XHCI_CONFIGURE_ENDPOINT << 10 | slot << 24, NULL);
}

static inline void xhci_ring(struct xhci_driver *d, unsigned slot, unsigned dci)
{
    test_write(d->t, XHCI_DOORBELL(slot), dci, 4);
}

/* The completion code of a transfer, 0: there was none. *out_left: bytes that were not moved. */
static inline unsigned xhci_finish(struct xhci_driver *d, uint32_t *out_left)
{
    struct xhci_event event;

    if (!xhci_wait(d, XHCI_TRANSFER_EVENT, &event))
        return 0;
    if (out_left)
        *out_left = event.status & 0xffffff;
    return xhci_event_code(&event);
}

static inline void xhci_add_normal(struct xhci_driver *d, unsigned slot, unsigned dci, uint64_t gpa,
                                   uint32_t size)
{
    xhci_add(d, &d->endpoints[slot][dci], gpa, size,
             XHCI_NORMAL << 10 | XHCI_TRB_IOC | XHCI_TRB_ISP);
    xhci_ring(d, slot, dci);
}

static inline unsigned xhci_move(struct xhci_driver *d, unsigned slot, unsigned dci, uint64_t gpa,
                                 uint32_t size, uint32_t *out_left)
{
    xhci_add_normal(d, slot, dci, gpa, size);
    return xhci_finish(d, out_left);
}

/* A control transfer; setup as the eight bytes are, little endian. Only the last stage is told. */
static inline unsigned xhci_control(struct xhci_driver *d, unsigned slot, uint64_t setup,
                                    uint64_t gpa)
{
    struct xhci_driver_ring *r = &d->endpoints[slot][1];
    uint32_t length = (uint32_t)(setup >> 48);
    bool is_in = setup & USB_IN;

    xhci_add(d, r, setup, 8,
             XHCI_SETUP << 10 | XHCI_TRB_IDT | (length ? (is_in ? 3u : 2u) << 16 : 0));
    if (length)
        xhci_add(d, r, gpa, length, XHCI_DATA << 10 | (is_in ? XHCI_TRB_IN : 0));
    xhci_add(d, r, 0, 0, XHCI_STATUS << 10 | XHCI_TRB_IOC | (is_in && length ? 0 : XHCI_TRB_IN));
    xhci_ring(d, slot, 1);
    return xhci_finish(d, NULL);
}

/* Configuration 1. */
static inline unsigned xhci_choose(struct xhci_driver *d, unsigned slot)
{
    return xhci_control(d, slot, usb_driver_setup(0, 9, 1, 0, 0), 0);
}

/* ---- the bulk-only transport; endpoints 3 (in) and 4 (out) are configured ---- */

static inline void xhci_send_cbw(struct xhci_driver *d, unsigned slot, const uint8_t *cdb,
                                 unsigned cdb_bytes, uint32_t length, bool is_in)
{
    uint8_t *cbw = d->t->ram.hva + XHCI_DATA_AREA;

    usb_driver_put_cbw(cbw, cdb, cdb_bytes, length, is_in);
    xhci_add_normal(d, slot, 4, XHCI_DATA_AREA, USB_CBW_BYTES);
}

/* One command with its data at gpa. The status of its CSW; 0xff: there was none. */
static inline unsigned xhci_scsi(struct xhci_driver *d, unsigned slot, const uint8_t *cdb,
                                 unsigned cdb_bytes, uint64_t gpa, uint32_t length, bool is_in,
                                 uint32_t *out_residue)
{
    const uint8_t *csw = d->t->ram.hva + XHCI_DATA_AREA + 0x40;

    xhci_send_cbw(d, slot, cdb, cdb_bytes, length, is_in);
    if (xhci_finish(d, NULL) != XHCI_SUCCESS)
        return 0xff;
    if (length && xhci_move(d, slot, is_in ? 3 : 4, gpa, length, NULL) != XHCI_SUCCESS)
        return 0xff;
    if (xhci_move(d, slot, 3, XHCI_DATA_AREA + 0x40, USB_CSW_BYTES, NULL) != XHCI_SUCCESS)
        return 0xff;
    if (out_residue)
        *out_residue = get_le32(csw + 8);
    return usb_driver_csw_status(csw);
}

/* A stick on that port, ready for xhci_scsi(). 0: it did not work. */
static inline unsigned xhci_open_stick(struct xhci_driver *d, unsigned port)
{
    unsigned slot = xhci_open(d, port);

    if (!slot || xhci_choose(d, slot) != XHCI_SUCCESS ||
        xhci_configure(d, slot, 3, 6) != XHCI_SUCCESS ||
        xhci_configure(d, slot, 4, 2) != XHCI_SUCCESS)
        return 0;
    return slot;
}

#endif
