/*
 * ehci_driver.h - a guest's EHCI driver, for the device test and the fuzz target
 *
 * Finds the controller on the PCI bus of a device_test machine, starts it with a circle of two
 * queues, of which the second does all the work, and an empty periodic list. Everything goes
 * through configuration space, registers and RAM, as a guest would.
 */
#ifndef TESTS_DEVICE_EHCI_DRIVER_H
#define TESTS_DEVICE_EHCI_DRIVER_H

#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "device_test.h"
#include "devices/usb/ehci.h"
#include "trapeze/pci.h"
#include "usb_driver.h"

#define EHCI_ECAM       0xe0000000ull
#define EHCI_SLOT       3u
#define EHCI_FUNCTION   7u
#define EHCI_MMIO       0xf0000000ull

/* Where things are in RAM. */
#define EHCI_LIST       0x100000u
#define EHCI_HEAD       0x101000u /* of the circle; its queue is never active */
#define EHCI_QUEUE      0x101040u /* the one that works; others behind it, 64 bytes each */
#define EHCI_TDS        0x102000u /* 64 bytes each */
#define EHCI_SETUP      0x104000u /* the packet that begins a control transfer */
#define EHCI_DATA       0x110000u

#define EHCI_END        1u
#define EHCI_QH         2u
#define EHCI_ACTIVE     0x80u
#define EHCI_HALTED     0x40u
#define EHCI_BUFFER     0x20u
#define EHCI_BABBLE     0x10u
#define EHCI_TIMEOUT    0x08u
#define EHCI_TD_STATUS  0xf8u
#define EHCI_IOC        0x8000u
#define EHCI_TRIES      (3u << 10)
#define EHCI_TOGGLE     0x80000000u

/* Of a queue's second word: speed, who says the toggle, head of the circle. */
#define EHCI_FULL_SPEED 0u
#define EHCI_LOW_SPEED  (1u << 12)
#define EHCI_HIGH_SPEED (2u << 12)
#define EHCI_TD_TOGGLE  0x4000u
#define EHCI_IS_HEAD    0x8000u
#define EHCI_MULTIPLE   0x40000000u /* of the third: one packet in a microframe */
#ifndef EHCI_FRAMES_AT_MOST         /* that a transfer is waited for */
#define EHCI_FRAMES_AT_MOST 2000u
#endif

enum ehci_pid { EHCI_OUT, EHCI_IN, EHCI_SETUP_PID };

enum ehci_mmio {
    EHCI_REG_COMMAND = 0x20,
    EHCI_REG_STATUS = 0x24,
    EHCI_REG_INTERRUPTS = 0x28,
    EHCI_REG_FRAME = 0x2c,
    EHCI_REG_PERIODIC = 0x34,
    EHCI_REG_ASYNC = 0x38,
    EHCI_REG_CONFIGURED = 0x60,
    EHCI_REG_PORT = 0x64, /* four bytes each */
};

struct ehci_driver {
    struct device_test *t;
    unsigned tds;        /* of the transfer that is being put together */
    uint32_t speed, hub; /* words of queues: of whom is spoken to; 0: on a port of the controller */
};

static inline uint64_t ehci_config_gpa(unsigned offset)
{
    return EHCI_ECAM + (EHCI_SLOT << 15 | EHCI_FUNCTION << 12) + offset;
}

static inline uint8_t *ehci_ram(struct ehci_driver *d, uint32_t gpa)
{
    return d->t->ram.hva + gpa;
}

static inline uint32_t ehci_reg(struct ehci_driver *d, unsigned offset)
{
    return (uint32_t)test_read(d->t, EHCI_MMIO + offset, 4);
}

static inline void ehci_set(struct ehci_driver *d, unsigned offset, uint32_t value)
{
    test_write(d->t, EHCI_MMIO + offset, value, 4);
}

static inline void ehci_wait(struct ehci_driver *d, unsigned frames)
{
    device_test_advance_ns(d->t, frames * USB_FRAME_NS);
}

/* A queue that begins with that transfer descriptor. */
static inline void ehci_put_queue(struct ehci_driver *d, uint32_t gpa, uint32_t link,
                                  uint32_t endpoint, uint32_t hub, uint32_t td)
{
    uint8_t *queue = ehci_ram(d, gpa);

    memset(queue, 0, 48);
    put_le32(queue, link);
    put_le32(queue + 4, endpoint);
    put_le32(queue + 8, hub);
    put_le32(queue + 16, td);
    put_le32(queue + 20, EHCI_END);
}

static inline void ehci_fill_list(struct ehci_driver *d, uint32_t link)
{
    for (unsigned n = 0; n < 1024; n++)
        put_le32(ehci_ram(d, EHCI_LIST) + 4 * n, link);
}

/* Both schedules, as after every start. */
static inline void ehci_put_lists(struct ehci_driver *d)
{
    ehci_fill_list(d, EHCI_END);
    ehci_put_queue(d, EHCI_HEAD, EHCI_QUEUE | EHCI_QH, EHCI_IS_HEAD | EHCI_HIGH_SPEED,
                   EHCI_MULTIPLE, EHCI_END);
    put_le32(ehci_ram(d, EHCI_HEAD) + 24, EHCI_HALTED);
    ehci_put_queue(d, EHCI_QUEUE, EHCI_HEAD | EHCI_QH, EHCI_HIGH_SPEED, EHCI_MULTIPLE, EHCI_END);
}

/* Its BAR has an address, it decodes it and is bus master. */
static inline void ehci_driver_map(struct ehci_driver *d, struct device_test *t)
{
    *d = (struct ehci_driver){.t = t};
    test_write(t, ehci_config_gpa(0x10), EHCI_MMIO, 4);
    test_write(t, ehci_config_gpa(PCI_COMMAND), PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
}

/* It is reset, runs both schedules, and has all ports. */
static inline void ehci_driver_start(struct ehci_driver *d, struct device_test *t)
{
    ehci_driver_map(d, t);
    ehci_set(d, EHCI_REG_COMMAND, EHCI_CMD_RESET);
    ehci_put_lists(d);
    ehci_set(d, EHCI_REG_PERIODIC, EHCI_LIST);
    ehci_set(d, EHCI_REG_ASYNC, EHCI_HEAD);
    ehci_set(d, EHCI_REG_INTERRUPTS, EHCI_STS_KEPT & ~EHCI_STS_ROLLOVER);
    ehci_set(d, EHCI_REG_COMMAND, EHCI_CMD_RUN | EHCI_CMD_PERIODIC | EHCI_CMD_ASYNC | 0x80000);
    ehci_set(d, EHCI_REG_CONFIGURED, 1);
    ehci_wait(d, 1);
}

/* port: from 1 on. */
static inline uint32_t ehci_port(struct ehci_driver *d, unsigned port)
{
    return ehci_reg(d, EHCI_REG_PORT + 4 * (port - 1));
}

static inline void ehci_set_port(struct ehci_driver *d, unsigned port, uint32_t value)
{
    ehci_set(d, EHCI_REG_PORT + 4 * (port - 1), value | EHCI_PORT_POWER);
}

static inline void ehci_reset_port(struct ehci_driver *d, unsigned port)
{
    ehci_set_port(d, port, EHCI_PORT_RESET | EHCI_PORT_CHANGE | EHCI_PORT_OFF);
    ehci_wait(d, 50);
    ehci_set_port(d, port, 0);
}

static inline uint32_t ehci_td(unsigned n)
{
    return EHCI_TDS + 64 * n;
}

static inline uint32_t ehci_td_token(struct ehci_driver *d, unsigned n)
{
    return get_le32(ehci_ram(d, ehci_td(n)) + 8);
}

static inline unsigned ehci_left(uint32_t token)
{
    return token >> 16 & 0x7fff;
}

/* One more, which the one before leads to. flags: of its token. */
static inline void ehci_add(struct ehci_driver *d, enum ehci_pid pid, uint32_t gpa, unsigned size,
                            uint32_t flags)
{
    uint8_t *td = ehci_ram(d, ehci_td(d->tds));

    if (d->tds)
        put_le32(td - 64, ehci_td(d->tds));
    put_le32(td, EHCI_END);
    put_le32(td + 4, EHCI_END);
    put_le32(td + 8, EHCI_ACTIVE | EHCI_TRIES | (uint32_t)pid << 8 | size << 16 | flags);
    put_le32(td + 12, gpa);
    for (unsigned n = 1; n < 5; n++)
        put_le32(td + 12 + 4 * n, (gpa & ~0xfffu) + 0x1000 * n);
    d->tds++;
}

/* What was put together is the queue's work. more: of the queue's second word. */
static inline void ehci_submit(struct ehci_driver *d, uint8_t address, uint8_t endpoint,
                               unsigned packet, uint32_t more)
{
    ehci_put_queue(d, EHCI_QUEUE, EHCI_HEAD | EHCI_QH,
                   address | (uint32_t)endpoint << 8 | (uint32_t)packet << 16 | more |
                       (d->hub ? d->speed : EHCI_HIGH_SPEED),
                   EHCI_MULTIPLE | d->hub, ehci_td(0));
    d->tds = 0;
}

/* Until the last has been done, or the queue has halted. False: it is still waiting. */
static inline bool ehci_finish(struct ehci_driver *d, unsigned count)
{
    for (unsigned n = 0; n < EHCI_FRAMES_AT_MOST; n++) {
        uint32_t overlay = get_le32(ehci_ram(d, EHCI_QUEUE) + 24);

        if (overlay & EHCI_HALTED || !(ehci_td_token(d, count - 1) & EHCI_ACTIVE))
            return true;
        ehci_wait(d, 1);
        device_test_loop(d->t);
        if (n > 10) /* a disk takes its time */
            usleep(100);
    }
    return false;
}

/* What has ended one of them, in its token; 0: all are done. */
static inline uint32_t ehci_errors(struct ehci_driver *d, unsigned count)
{
    for (unsigned n = 0; n < count; n++)
        if (ehci_td_token(d, n) & EHCI_TD_STATUS)
            return ehci_td_token(d, n) & EHCI_TD_STATUS;
    return 0;
}

/* Move data by descriptors of up to 16 KiB. Errors, or EHCI_ACTIVE. */
static inline uint32_t ehci_move(struct ehci_driver *d, enum ehci_pid pid, uint8_t address,
                                 uint8_t endpoint, uint32_t gpa, unsigned size)
{
    unsigned count = 0;

    for (unsigned at = 0; at < size; at += 0x4000, count++)
        ehci_add(d, pid, gpa + at, size - at < 0x4000 ? size - at : 0x4000, 0);
    ehci_submit(d, address, endpoint, 512, 0);
    ehci_finish(d, count);
    return ehci_errors(d, count);
}

/* A control transfer, its data at EHCI_DATA; what is short goes on with the status stage. */
static inline uint32_t ehci_control(struct ehci_driver *d, uint8_t address, uint64_t setup,
                                    unsigned *out_bytes)
{
    unsigned length = (unsigned)(setup >> 48), count = length ? 3 : 2;
    bool is_in = setup & USB_IN;
    uint32_t errors;

    put_le64(ehci_ram(d, EHCI_SETUP), setup);
    ehci_add(d, EHCI_SETUP_PID, EHCI_SETUP, 8, 0);
    if (length)
        ehci_add(d, is_in ? EHCI_IN : EHCI_OUT, EHCI_DATA, length, EHCI_TOGGLE);
    ehci_add(d, is_in && length ? EHCI_OUT : EHCI_IN, 0, 0, EHCI_TOGGLE | EHCI_IOC);
    if (length)
        put_le32(ehci_ram(d, ehci_td(1)) + 4, ehci_td(2));
    ehci_submit(d, address, 0, 64, EHCI_TD_TOGGLE);
    ehci_finish(d, count);
    errors = ehci_errors(d, count);
    if (out_bytes && !errors)
        *out_bytes = length ? length - ehci_left(ehci_td_token(d, 1)) : 0;
    return errors;
}

/* The device on a port is reset, gets that address, and its configuration is chosen. */
static inline bool ehci_open(struct ehci_driver *d, unsigned port, uint8_t address)
{
    ehci_reset_port(d, port);
    return !ehci_control(d, 0, usb_driver_setup(0, 5, address, 0, 0), NULL) &&
           !ehci_control(d, address, usb_driver_setup(0, 9, 1, 0, 0), NULL);
}

/* From now on somebody is spoken to whom the translator of a hub reaches; hub 0: nobody such. */
static inline void ehci_behind(struct ehci_driver *d, uint8_t hub, unsigned port, uint32_t speed)
{
    d->speed = speed;
    d->hub = (uint32_t)hub << 16 | (uint32_t)port << 23;
}

/* ---- the bulk-only transport, of an opened stick ---- */

/* One command with its data at EHCI_DATA + 0x1000. The status of its CSW; 0xff: there was none. */
static inline unsigned ehci_scsi(struct ehci_driver *d, uint8_t address, const uint8_t *cdb,
                                 unsigned cdb_bytes, uint32_t length, bool is_in)
{
    uint8_t *cbw = ehci_ram(d, EHCI_DATA);
    const uint8_t *csw = cbw + 0x40;
    uint32_t errors;

    usb_driver_put_cbw(cbw, cdb, cdb_bytes, length, is_in);
    errors = ehci_move(d, EHCI_OUT, address, 2, EHCI_DATA, USB_CBW_BYTES);
    if (!errors && length)
        errors = ehci_move(d, is_in ? EHCI_IN : EHCI_OUT, address, is_in ? 1 : 2,
                           EHCI_DATA + 0x1000, length);
    if (!errors)
        errors = ehci_move(d, EHCI_IN, address, 1, EHCI_DATA + 0x40, USB_CSW_BYTES);
    return errors ? 0xff : usb_driver_csw_status(csw);
}

#endif
