/*
 * host_descriptors.c - what the descriptors of a device of the host say
 *
 * USB 2.0, 9.6. They are one after the other: the device's, then each configuration's with all of
 * its interfaces' and endpoints'.
 */
#include "base/bytes.h"
#include "devices/usb/host.h"
#include "trapeze/usb_host.h"

#define DEVICE_BYTES        18u
#define CONFIGURATION_BYTES 9u
#define INTERFACE_BYTES     9u
#define ENDPOINT_BYTES      7u

enum descriptor_type { TYPE_CONFIGURATION = 2, TYPE_INTERFACE = 4, TYPE_ENDPOINT = 5 };
enum endpoint_type { ENDPOINT_CONTROL = 0, ENDPOINT_ISOCHRONOUS = 1 };

#define PACKET_MASK 0x7ffu

struct bytes {
    const uint8_t *at;
    size_t left;
};

/* The next descriptor, which is whole; NULL: there is no such. */
static const uint8_t *next(struct bytes *bytes)
{
    const uint8_t *found = bytes->at;

    if (bytes->left < 2 || found[0] < 2 || found[0] > bytes->left)
        return NULL;
    bytes->at += found[0];
    bytes->left -= found[0];
    return found;
}

static bool is_a(const uint8_t *descriptor, enum descriptor_type type, size_t size)
{
    return descriptor[1] == type && descriptor[0] >= size;
}

/* Those of a configuration, behind its own. False: there is none with that value. */
static bool find_configuration(const struct host_settings *settings, uint8_t value,
                               struct bytes *out)
{
    struct bytes all = {settings->descriptors, settings->size_bytes};
    const uint8_t *d = next(&all); /* the device's */

    while (value && d && (d = next(&all))) {
        size_t total, rest;

        if (!is_a(d, TYPE_CONFIGURATION, CONFIGURATION_BYTES))
            continue;
        total = get_le16(d + 2);
        rest = total > d[0] ? total - d[0] : 0;
        rest = rest < all.left ? rest : all.left;
        if (d[5] == value) {
            *out = (struct bytes){all.at, rest};
            return true;
        }
        all.at += rest;
        all.left -= rest;
    }
    return false;
}

bool host_has_configuration(const struct host_settings *settings, uint8_t value)
{
    struct bytes bytes;

    return find_configuration(settings, value, &bytes);
}

bool host_has_alternate(const struct host_settings *settings, uint8_t interface, uint8_t alternate)
{
    struct bytes bytes;
    const uint8_t *d;

    if (interface >= HOST_INTERFACES ||
        !find_configuration(settings, settings->configuration, &bytes))
        return false;
    while ((d = next(&bytes)))
        if (is_a(d, TYPE_INTERFACE, INTERFACE_BYTES) && d[2] == interface && d[3] == alternate)
            return true;
    return false;
}

static bool has_address(const struct usb_description *description, uint8_t address)
{
    for (unsigned n = 0; n < description->endpoint_count; n++)
        if (description->endpoints[n].address == address)
            return true;
    return false;
}

static void add_endpoint(struct usb_description *out, const uint8_t *d)
{
    struct usb_endpoint_description endpoint = {
        .address = d[2] & 0x8f,
        .type = d[3] & 3,
        .max_packet = get_le16(d + 4) & PACKET_MASK,
        .interval = d[6],
    };

    if (!(endpoint.address & 0xf) || endpoint.type == ENDPOINT_CONTROL ||
        endpoint.type == ENDPOINT_ISOCHRONOUS || !endpoint.max_packet ||
        has_address(out, endpoint.address) || out->endpoint_count == USB_MAX_ENDPOINTS)
        return;
    out->endpoints[out->endpoint_count++] = endpoint;
}

void host_describe_endpoints(const struct host_settings *settings, struct usb_description *out)
{
    bool is_set = false; /* the interface has that setting */
    struct bytes bytes;
    const uint8_t *d;

    out->endpoint_count = 0;
    if (!find_configuration(settings, settings->configuration, &bytes))
        return;
    while ((d = next(&bytes)))
        if (is_a(d, TYPE_INTERFACE, INTERFACE_BYTES))
            is_set = d[2] < HOST_INTERFACES && settings->alternates[d[2]] == d[3];
        else if (is_a(d, TYPE_ENDPOINT, ENDPOINT_BYTES) && is_set)
            add_endpoint(out, d);
}

unsigned host_count_isochronous(const struct host_settings *settings)
{
    struct bytes bytes;
    const uint8_t *d;
    unsigned count = 0;

    if (!find_configuration(settings, settings->configuration, &bytes))
        return 0;
    while ((d = next(&bytes)))
        if (is_a(d, TYPE_ENDPOINT, ENDPOINT_BYTES) && (d[3] & 3) == ENDPOINT_ISOCHRONOUS)
            count++;
    return count;
}

void host_endpoints_of(const struct host_settings *settings, uint8_t interface, uint16_t out[2])
{
    bool is_of = false;
    struct bytes bytes;
    const uint8_t *d;

    out[0] = out[1] = 0;
    if (!find_configuration(settings, settings->configuration, &bytes))
        return;
    while ((d = next(&bytes))) {
        if (is_a(d, TYPE_INTERFACE, INTERFACE_BYTES))
            is_of = d[2] == interface;
        else if (is_a(d, TYPE_ENDPOINT, ENDPOINT_BYTES) && is_of)
            out[d[2] >> 7] = (uint16_t)(out[d[2] >> 7] | 1u << (d[2] & 0xf));
    }
}

static enum usb_speed speed_of(unsigned mbps)
{
    return mbps >= 5000 ? USB_SUPER : mbps >= 480 ? USB_HIGH : mbps >= 12 ? USB_FULL : USB_LOW;
}

void host_describe_device(const struct usb_host *host, struct usb_description *out)
{
    const uint8_t *d = host->descriptors;

    *out = (struct usb_description){.speed = speed_of(host->speed_mbps)};
    if (host->descriptor_bytes < DEVICE_BYTES)
        return;
    out->vendor = get_le16(d + 8);
    out->product = get_le16(d + 10);
    if (out->speed == USB_FULL && d[7] >= 8 && d[7] <= 64) /* the others have one size */
        out->control_packet = d[7];
}
