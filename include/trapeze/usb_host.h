/*
 * usb_host.h - a USB device of the host that a guest gets
 *
 * Who opens one has it: drivers of the host and other programs do not, until it is closed. It moves
 * data by transfers, and is changed by what a host controller's driver has to know of (its bus is
 * reset, a configuration, an interface's alternate setting, the end of a halt), which may take long
 * and goes on without the caller.
 *
 * Everything that a device says is its own affair: descriptors and lengths are not checked.
 *
 * All calls on the main loop's thread or with the machine lock held; what is called back, on the
 * main loop's thread with the lock held, and never from within submit(), cancel() or change().
 */
#ifndef TRAPEZE_USB_HOST_H
#define TRAPEZE_USB_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trapeze/error.h"

struct loop;
struct usb_host;

enum usb_host_result {
    USB_HOST_DONE,
    USB_HOST_STALLED,
    USB_HOST_TOO_MUCH, /* the device has sent more than there was room for */
    USB_HOST_FAILED,   /* no or no good answer */
    USB_HOST_CANCELLED,
    USB_HOST_GONE, /* gone() follows */
};

/* The caller's; the host's from submit() to done(). */
struct usb_host_transfer {
    uint8_t endpoint; /* its address; 0: control */
    uint8_t type;     /* as in endpoint descriptors: 0 control, 2 bulk, 3 interrupt */
    uint8_t *data;    /* of control transfers: the eight bytes of the request, then room or data */
    size_t size_bytes;
    void (*done)(struct usb_host_transfer *transfer);
    /* Set before done(). */
    enum usb_host_result result;
    size_t moved_bytes; /* without the request */
};

enum usb_host_change_kind {
    USB_HOST_RESET,         /* of its port; alternate settings are 0, no endpoint is halted */
    USB_HOST_CONFIGURATION, /* value; so are they */
    USB_HOST_INTERFACE,     /* interface index has alternate setting value */
    USB_HOST_CLEAR_HALT,    /* of the endpoint with address index */
};

/* As a transfer. One at a time, and no transfer of what it changes is under way. */
struct usb_host_change {
    enum usb_host_change_kind kind;
    uint8_t index, value;
    uint16_t halted[2]; /* of USB_HOST_CONFIGURATION: endpoints that are, a bit each: out, in */
    void (*done)(struct usb_host_change *change);
    enum usb_host_result result;
};

struct usb_host_ops {
    /* 0, or -errno: done() is not called. -ENODEV: gone() follows. */
    int (*submit)(struct usb_host *host, struct usb_host_transfer *transfer);
    /* done() follows soon. */
    void (*cancel)(struct usb_host *host, struct usb_host_transfer *transfer);
    void (*change)(struct usb_host *host, struct usb_host_change *change);
    /* Waits for what is under way, whose done() is called. The host's drivers have it again. */
    void (*close)(struct usb_host *host);
};

struct usb_host {
    const struct usb_host_ops *ops;
    char name[96];              /* for messages */
    unsigned speed_mbps;        /* 1 (it is 1.5), 12, 480 or 5000 */
    uint8_t configuration;      /* that it has; 0: none */
    const uint8_t *descriptors; /* the device's, and all of its configurations' */
    size_t descriptor_bytes;

    /* Set by who has opened it. */
    void (*gone)(void *opaque); /* it was unplugged; once */
    void *opaque;
};

/*
 * What can only be done while files may be opened, for usb_host_open() to work later: before
 * host_sandbox(). What does not work is said there.
 */
void usb_host_prepare(struct loop *loop);
/* At the end; no device is open. */
void usb_host_finish(void);

/*
 * product: "VENDOR:PRODUCT", "": any. at: "BUS.ADDRESS", "BUS-PORT[.PORT]...", "": the only one.
 * For ops->close(). NULL with err.
 */
struct usb_host *usb_host_open(struct loop *loop, const char *product, const char *at,
                               struct error *err);
/*
 * Open the device's file only, for host_record() (host/given.h). Its place, as BUS.ADDRESS, which
 * a process finds that can look at no other files.
 */
int usb_host_hand_over(const char *product, const char *at, char *out_at, size_t out_size,
                       struct error *err);

#endif
