/*
 * internal.h - what the files of the host's USB devices share
 */
#ifndef BACKENDS_USB_INTERNAL_H
#define BACKENDS_USB_INTERNAL_H

#include "trapeze/usb_host.h"

/* Where one is, and what it says of itself. */
struct usb_host_place {
    unsigned bus, address;
    unsigned vendor, product; /* known only if it was looked up */
    char port[32];            /* "1-2.3"; "": not known */
    char name[80];
};

/* ---- libusb.c ---- */

/* fd is taken over, also on failure. */
struct usb_host *usb_host_wrap(struct loop *loop, int fd, const struct usb_host_place *place,
                               struct error *err);

#endif
