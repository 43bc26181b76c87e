/*
 * host.h - what the descriptors of a device of the host say
 *
 * The device is as hostile as it likes: lengths are checked, what makes no sense is not there.
 */
#ifndef DEVICES_USB_HOST_H
#define DEVICES_USB_HOST_H

#include "devices/usb/usb.h"

#define HOST_INTERFACES 32u

struct usb_host;

/* Those of a device, and the alternate setting that each interface has. */
struct host_settings {
    const uint8_t *descriptors;
    size_t size_bytes;
    uint8_t configuration; /* 0: none */
    uint8_t alternates[HOST_INTERFACES];
};

/* What controllers and messages have to know. */
void host_describe_device(const struct usb_host *host, struct usb_description *out);
bool host_has_configuration(const struct host_settings *settings, uint8_t value);
bool host_has_alternate(const struct host_settings *settings, uint8_t interface, uint8_t alternate);
/* The endpoints that the settings give: bulk and interrupt ones, USB_MAX_ENDPOINTS at most. */
void host_describe_endpoints(const struct host_settings *settings, struct usb_description *out);
/* How many there are in any setting of the configuration. */
unsigned host_count_isochronous(const struct host_settings *settings);
/* Those of an interface, in any setting, a bit each: out, in. */
void host_endpoints_of(const struct host_settings *settings, uint8_t interface, uint16_t out[2]);

#endif
