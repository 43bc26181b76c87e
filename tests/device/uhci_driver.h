/*
 * uhci_driver.h - a guest's UHCI driver, for the device test and the fuzz target
 *
 * Finds the controller on the PCI bus of a device_test machine, starts it with one queue that all
 * frames lead to, and moves data by it. Everything goes through configuration space, I/O ports and
 * RAM, as a guest would.
 */
#ifndef TESTS_DEVICE_UHCI_DRIVER_H
#define TESTS_DEVICE_UHCI_DRIVER_H

#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "device_test.h"
#include "devices/usb/uhci.h"
#include "trapeze/pci.h"
#include "usb_driver.h"

#define UHCI_ECAM      0xe0000000ull
#define UHCI_SLOT      3u
#define UHCI_IO        0xc000u

/* Where things are in RAM. */
#define UHCI_LIST      0x10000u
#define UHCI_QUEUE     0x11000u /* the one that all frames lead to; others behind it, 16 bytes each */
#define UHCI_TDS       0x20000u /* 32 bytes each */
#define UHCI_DATA      0x80000u
#define UHCI_SETUP     0x7f000u /* the packet that begins a control transfer */

#define UHCI_END       1u
#define UHCI_QH        2u
#define UHCI_DEPTH     4u
#define UHCI_ACTIVE    (1u << 23)
#define UHCI_IOC       (1u << 24)
#define UHCI_SPD       (1u << 29)
#define UHCI_TRIES     (3u << 27)
#define UHCI_TD_ERRORS 0x007e0000u
#ifndef UHCI_FRAMES_AT_MOST /* that a transfer is waited for */
#define UHCI_FRAMES_AT_MOST 2000u
#endif

enum uhci_port_io {
    UHCI_IO_COMMAND = UHCI_IO,
    UHCI_IO_STATUS = UHCI_IO + 2,
    UHCI_IO_INTERRUPTS = UHCI_IO + 4,
    UHCI_IO_FRAME = UHCI_IO + 6,
    UHCI_IO_LIST = UHCI_IO + 8,
    UHCI_IO_SOF = UHCI_IO + 12,
    UHCI_IO_PORT = UHCI_IO + 16, /* two bytes each */
};

struct uhci_driver {
    struct device_test *t;
    unsigned tds; /* of the transfer that is being put together */
};

static inline uint64_t uhci_config_gpa(unsigned offset)
{
    return UHCI_ECAM + (UHCI_SLOT << 15) + offset;
}

static inline uint8_t *uhci_ram(struct uhci_driver *d, uint32_t gpa)
{
    return d->t->ram.hva + gpa;
}

static inline void uhci_put_queue(struct uhci_driver *d, uint32_t gpa, uint32_t link, uint32_t td)
{
    put_le32(uhci_ram(d, gpa), link);
    put_le32(uhci_ram(d, gpa) + 4, td);
}

/* All frames begin with that link. */
static inline void uhci_fill_list(struct uhci_driver *d, uint32_t link)
{
    for (unsigned n = 0; n < 1024; n++)
        put_le32(uhci_ram(d, UHCI_LIST) + 4 * n, link);
}

static inline void uhci_wait(struct uhci_driver *d, unsigned frames)
{
    device_test_advance_ns(d->t, frames * USB_FRAME_NS);
}

/* Its BAR has an address, it decodes it and is bus master; it is reset and runs. */
static inline void uhci_driver_start(struct uhci_driver *d, struct device_test *t)
{
    *d = (struct uhci_driver){.t = t};
    test_write(t, uhci_config_gpa(0x20), UHCI_IO, 4);
    test_write(t, uhci_config_gpa(PCI_COMMAND), PCI_COMMAND_IO | PCI_COMMAND_MASTER, 2);
    test_write(t, uhci_config_gpa(0xc0), 0x2000, 2);
    test_outw(t, UHCI_IO_COMMAND, UHCI_CMD_RESET);
    uhci_put_queue(d, UHCI_QUEUE, UHCI_END, UHCI_END);
    uhci_fill_list(d, UHCI_QUEUE | UHCI_QH);
    test_outl(t, UHCI_IO_LIST, UHCI_LIST);
    test_outw(t, UHCI_IO_FRAME, 0);
    test_outw(t, UHCI_IO_INTERRUPTS, 0xf);
    test_outw(t, UHCI_IO_COMMAND, UHCI_CMD_RUN | 0x40);
    uhci_wait(d, 1);
}

/* port: from 1 on. */
static inline uint16_t uhci_port(struct uhci_driver *d, unsigned port)
{
    return test_inw(d->t, (uint16_t)(UHCI_IO_PORT + 2 * (port - 1)));
}

static inline void uhci_set_port(struct uhci_driver *d, unsigned port, uint16_t value)
{
    test_outw(d->t, (uint16_t)(UHCI_IO_PORT + 2 * (port - 1)), value);
}

static inline void uhci_reset_port(struct uhci_driver *d, unsigned port)
{
    uhci_set_port(d, port, UHCI_PORT_RESET);
    uhci_wait(d, 10);
    uhci_set_port(d, port, 0);
    uhci_set_port(d, port, UHCI_PORT_ENABLED | UHCI_PORT_CHANGE | UHCI_PORT_OFF);
}

static inline uint32_t uhci_td(unsigned n)
{
    return UHCI_TDS + 32 * n;
}

static inline uint32_t uhci_td_status(struct uhci_driver *d, unsigned n)
{
    return get_le32(uhci_ram(d, uhci_td(n)) + 4);
}

/* One more, which the one before leads to. flags: of its status. */
static inline void uhci_add(struct uhci_driver *d, enum usb_pid pid, uint8_t address,
                            uint8_t endpoint, uint32_t gpa, unsigned size, uint32_t flags)
{
    uint8_t *td = uhci_ram(d, uhci_td(d->tds));

    if (d->tds)
        put_le32(td - 32, uhci_td(d->tds) | UHCI_DEPTH);
    put_le32(td, UHCI_END);
    put_le32(td + 4, UHCI_ACTIVE | UHCI_TRIES | flags);
    put_le32(td + 8, pid | (uint32_t)address << 8 | (uint32_t)endpoint << 15 | (size - 1) << 21);
    put_le32(td + 12, gpa);
    d->tds++;
}

/* What was put together is the queue's work. */
static inline void uhci_submit(struct uhci_driver *d)
{
    uhci_put_queue(d, UHCI_QUEUE, UHCI_END, uhci_td(0));
    d->tds = 0;
}

/* Until the queue is empty or one of the TDs has failed. False: it is still waiting. */
static inline bool uhci_finish(struct uhci_driver *d)
{
    for (unsigned n = 0; n < UHCI_FRAMES_AT_MOST; n++) {
        uint32_t element = get_le32(uhci_ram(d, UHCI_QUEUE) + 4);

        if (element & UHCI_END || !(get_le32(uhci_ram(d, element & ~15u) + 4) & UHCI_ACTIVE))
            return true;
        uhci_wait(d, 1);
        device_test_loop(d->t);
        if (n > 10) /* a disk takes its time */
            usleep(100);
    }
    return false;
}

/* Bytes that a TD has moved. */
static inline unsigned uhci_moved(uint32_t status)
{
    return (status + 1) & 0x7ff;
}

/*
 * Move data by packets of that size. The bytes; *out_errors: of the TD that ended it, or
 * UHCI_ACTIVE.
 */
static inline unsigned uhci_move(struct uhci_driver *d, enum usb_pid pid, uint8_t address,
                                 uint8_t endpoint, uint32_t gpa, unsigned size, unsigned packet,
                                 uint32_t *out_errors)
{
    unsigned total = 0, count = 0;

    for (unsigned at = 0; at < size; at += packet, count++)
        uhci_add(d, pid, address, endpoint, gpa + at, packet < size - at ? packet : size - at,
                 UHCI_SPD);
    uhci_submit(d);
    uhci_finish(d);
    *out_errors = 0;
    for (unsigned n = 0; n < count && !*out_errors; n++) {
        uint32_t status = uhci_td_status(d, n);

        *out_errors = status & (UHCI_TD_ERRORS | UHCI_ACTIVE);
        if (status & (UHCI_TD_ERRORS | UHCI_ACTIVE))
            break;
        total += uhci_moved(status);
        if (uhci_moved(status) < packet)
            break;
    }
    return total;
}

/* A control transfer by packets of 8 bytes, its data at UHCI_DATA. Errors as of uhci_move(). */
static inline uint32_t uhci_control(struct uhci_driver *d, uint8_t address, uint64_t setup,
                                    unsigned *out_bytes)
{
    unsigned length = (unsigned)(setup >> 48), moved = 0;
    enum usb_pid pid = setup & USB_IN ? USB_PID_IN : USB_PID_OUT;
    uint32_t errors;

    put_le64(uhci_ram(d, UHCI_SETUP), setup);
    uhci_move(d, USB_PID_SETUP, address, 0, UHCI_SETUP, 8, 8, &errors);
    if (!errors && length)
        moved = uhci_move(d, pid, address, 0, UHCI_DATA, length, 8, &errors);
    if (errors)
        return errors;
    uhci_add(d, pid == USB_PID_IN && length ? USB_PID_OUT : USB_PID_IN, address, 0, 0, 0, UHCI_IOC);
    uhci_submit(d);
    uhci_finish(d);
    if (out_bytes)
        *out_bytes = moved;
    return uhci_td_status(d, 0) & (UHCI_TD_ERRORS | UHCI_ACTIVE);
}

/* The device on a port is reset, gets that address, and its configuration is chosen. */
static inline bool uhci_open(struct uhci_driver *d, unsigned port, uint8_t address)
{
    uhci_reset_port(d, port);
    return !uhci_control(d, 0, usb_driver_setup(0, 5, address, 0, 0), NULL) &&
           !uhci_control(d, address, usb_driver_setup(0, 9, 1, 0, 0), NULL);
}

/* ---- the bulk-only transport, of an opened stick ---- */

/* One command with its data at UHCI_DATA + 0x1000. The status of its CSW; 0xff: there was none. */
static inline unsigned uhci_scsi(struct uhci_driver *d, uint8_t address, const uint8_t *cdb,
                                 unsigned cdb_bytes, uint32_t length, bool is_in)
{
    uint8_t *cbw = uhci_ram(d, UHCI_DATA);
    const uint8_t *csw = cbw + 0x40;
    uint32_t errors;

    usb_driver_put_cbw(cbw, cdb, cdb_bytes, length, is_in);
    uhci_move(d, USB_PID_OUT, address, 2, UHCI_DATA, USB_CBW_BYTES, 64, &errors);
    if (!errors && length)
        uhci_move(d, is_in ? USB_PID_IN : USB_PID_OUT, address, is_in ? 1 : 2, UHCI_DATA + 0x1000,
                  length, 64, &errors);
    if (!errors)
        uhci_move(d, USB_PID_IN, address, 1, UHCI_DATA + 0x40, USB_CSW_BYTES, 64, &errors);
    return errors ? 0xff : usb_driver_csw_status(csw);
}

#endif
