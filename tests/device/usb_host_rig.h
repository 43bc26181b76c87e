/*
 * usb_host_rig.h - a device of the host that is not there, for the device test and the fuzz target
 *
 * Requests for descriptors are answered from a table, others by what the test says, changes at
 * once, all from the main loop. Data waits until the test ends it.
 */
#ifndef TESTS_DEVICE_USB_HOST_RIG_H
#define TESTS_DEVICE_USB_HOST_RIG_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "device_test.h"
#include "devices/devices.h"
#include "trapeze/usb_host.h"

#define FAKE_TRANSFERS 64u

struct fake_host {
    struct usb_host host;
    struct device_test *t;
    struct usb_host_transfer *transfers[FAKE_TRANSFERS]; /* that are under way, NULL between */
    bool is_cancelled[FAKE_TRANSFERS];
    struct usb_host_change *change; /* the same */

    /* What it does. */
    int submit_code; /* is given back, and nothing is submitted */
    enum usb_host_result answer, change_answer;
    bool is_silent; /* nothing is answered by itself */

    /* What it has seen. */
    uint8_t setup[8]; /* the last request that was sent */
    uint8_t data[64]; /* with it */
    struct usb_host_change last;
    unsigned requests, changes, closes;
};

/* High Speed. Two configurations; interface 1 has a setting with an isochronous endpoint. */
static const uint8_t fake_descriptors[] = {
    18,   1,    0x00, 0x02, 0,    0,    0, 64,   0x34,
    0x12, 0x78, 0x56, 0x00, 0x01, 1,    2, 3,    2,  /* device */
    9,    2,    80,   0,    2,    1,    0, 0x80, 50, /* one */
    9,    4,    0,    0,    3,    0xff, 0, 0,    0,  /* 0 */
    7,    5,    0x81, 2,    0x00, 0x02, 0,           /* bulk in */
    7,    5,    0x02, 2,    0x00, 0x02, 0,           /* bulk out */
    7,    5,    0x83, 3,    0x40, 0x00, 4,           /* interrupt */
    9,    4,    0,    1,    1,    0xff, 0, 0,    0,  /* 0, other */
    7,    5,    0x84, 2,    0x00, 0x02, 0,           /* bulk in */
    9,    4,    1,    0,    0,    0xff, 0, 0,    0,  /* 1 */
    9,    4,    1,    1,    1,    0xff, 0, 0,    0,  /* 1, other */
    7,    5,    0x86, 1,    0x00, 0x02, 1,           /* iso in */
    9,    2,    25,   0,    1,    2,    0, 0x80, 50, /* two */
    9,    4,    0,    0,    1,    0xff, 0, 0,    0,  /* 0 */
    7,    5,    0x05, 2,    0x00, 0x02, 0,           /* bulk out */
};

static inline struct fake_host *fake_of(struct usb_host *host)
{
    return container_of(host, struct fake_host, host);
}

/* Under way with that endpoint; FAKE_TRANSFERS: none. */
static inline unsigned fake_find(const struct fake_host *f, uint8_t endpoint)
{
    unsigned n = 0;

    while (n < FAKE_TRANSFERS && !(f->transfers[n] && f->transfers[n]->endpoint == endpoint))
        n++;
    return n;
}

/* data NULL: it is left as it is. As its driver is called, with the lock held. */
static inline void fake_end(struct fake_host *f, unsigned n, enum usb_host_result result,
                            const void *data, size_t size)
{
    struct usb_host_transfer *transfer = f->transfers[n];

    if (data)
        memcpy(transfer->data + (transfer->endpoint ? 0 : 8), data, size);
    transfer->result = result;
    transfer->moved_bytes = size;
    f->transfers[n] = NULL;
    f->is_cancelled[n] = false;
    machine_lock(f->t->machine);
    transfer->done(transfer);
    machine_unlock(f->t->machine);
}

/* The next one of that endpoint; false: there is none. */
static inline bool fake_end_next(struct fake_host *f, uint8_t endpoint, enum usb_host_result result,
                                 const void *data, size_t size)
{
    unsigned n = fake_find(f, endpoint);

    if (n < FAKE_TRANSFERS)
        fake_end(f, n, result, data, size);
    return n < FAKE_TRANSFERS;
}

static inline void fake_end_change(struct fake_host *f, enum usb_host_result result)
{
    struct usb_host_change *change = f->change;

    f->change = NULL;
    change->result = result;
    if (change->kind == USB_HOST_CONFIGURATION && result == USB_HOST_DONE)
        f->host.configuration = change->value;
    machine_lock(f->t->machine);
    change->done(change);
    machine_unlock(f->t->machine);
}

/* The device's answer to a request: descriptors, or what it was sent last. */
static inline void fake_answer(struct fake_host *f, unsigned n)
{
    const struct usb_host_transfer *transfer = f->transfers[n];
    size_t room = transfer->size_bytes - 8, size;

    memcpy(f->setup, transfer->data, 8);
    f->requests++;
    if (f->setup[0] == 0x80 && f->setup[1] == 6 && f->setup[3] <= 2) {
        size_t skip = f->setup[3] == 2 ? 18 : 0;

        size = f->setup[3] == 2 ? f->host.descriptor_bytes - skip : 18;
        fake_end(f, n, USB_HOST_DONE, f->host.descriptors + skip, size < room ? size : room);
    } else if (f->setup[0] & 0x80) {
        size = room < sizeof(f->data) ? room : sizeof(f->data);
        fake_end(f, n, f->answer, f->answer == USB_HOST_DONE ? f->data : NULL,
                 f->answer == USB_HOST_DONE ? size : 0);
    } else {
        memcpy(f->data, transfer->data + 8, room < sizeof(f->data) ? room : sizeof(f->data));
        fake_end(f, n, f->answer, NULL, room);
    }
}

/* On the main loop, whose lock those above take themselves. */
static inline void fake_work(void *opaque)
{
    struct fake_host *f = opaque;

    machine_unlock(f->t->machine);
    for (unsigned n = 0; n < FAKE_TRANSFERS; n++) {
        if (f->transfers[n] && f->is_cancelled[n])
            fake_end(f, n, USB_HOST_CANCELLED, NULL, 0);
        else if (f->transfers[n] && !f->transfers[n]->endpoint && !f->is_silent)
            fake_answer(f, n);
    }
    if (f->change && !f->is_silent)
        fake_end_change(f, f->change_answer);
    machine_lock(f->t->machine);
}

static inline int fake_submit(struct usb_host *host, struct usb_host_transfer *transfer)
{
    struct fake_host *f = fake_of(host);
    unsigned n = 0;

    while (n < FAKE_TRANSFERS && f->transfers[n])
        n++;
    if (n == FAKE_TRANSFERS)
        abort(); /* there is one for each endpoint */
    if (f->submit_code)
        return f->submit_code;
    f->transfers[n] = transfer;
    loop_defer(f->t->loop, fake_work, f);
    return 0;
}

static inline void fake_cancel(struct usb_host *host, struct usb_host_transfer *transfer)
{
    struct fake_host *f = fake_of(host);

    for (unsigned n = 0; n < FAKE_TRANSFERS; n++)
        f->is_cancelled[n] |= f->transfers[n] == transfer;
    loop_defer(f->t->loop, fake_work, f);
}

static inline void fake_change(struct usb_host *host, struct usb_host_change *change)
{
    struct fake_host *f = fake_of(host);

    if (f->change)
        abort(); /* one at a time */
    f->change = change;
    f->last = *change;
    f->changes++;
    loop_defer(f->t->loop, fake_work, f);
}

/* With the lock held, unless the machine is at its end. */
static inline void fake_close(struct usb_host *host)
{
    struct fake_host *f = fake_of(host);

    loop_undefer(f->t->loop, f);
    for (unsigned n = 0; n < FAKE_TRANSFERS; n++)
        if (f->transfers[n]) {
            f->transfers[n]->result = USB_HOST_CANCELLED;
            f->transfers[n]->moved_bytes = 0;
            f->transfers[n]->done(f->transfers[n]);
            f->transfers[n] = NULL;
        }
    if (f->change) {
        f->change->result = USB_HOST_DONE;
        f->change->done(f->change);
        f->change = NULL;
    }
    f->closes++;
}

static inline void fake_init(struct fake_host *f, struct device_test *t, unsigned speed_mbps,
                             const uint8_t *descriptors, size_t size)
{
    static const struct usb_host_ops ops = {fake_submit, fake_cancel, fake_change, fake_close};

    *f = (struct fake_host){.host = {.ops = &ops,
                                     .name = "1.2, a fake",
                                     .speed_mbps = speed_mbps,
                                     .configuration = 1,
                                     .descriptors = descriptors,
                                     .descriptor_bytes = size},
                            .t = t};
}

static inline struct device *fake_add(struct fake_host *f)
{
    struct device *dev = device_test_create(f->t, &usb_host_class, NULL);
    struct error err = {0};

    if (device_set_pointer(dev, "host", &f->host, &err))
        abort();
    device_test_attach(dev);
    return dev;
}

static inline void fake_unplug(struct fake_host *f)
{
    machine_lock(f->t->machine);
    f->host.gone(f->host.opaque);
    machine_unlock(f->t->machine);
}

#endif
