/*
 * descriptors.c - standard descriptors of USB devices, made from their descriptions
 *
 * USB 2.0, 9.6; USB 3.2, 9.6. One configuration with one interface.
 */
#include <string.h>

#include "base/bytes.h"
#include "devices/usb/usb.h"

enum descriptor_type {
    TYPE_DEVICE = 1,
    TYPE_CONFIGURATION = 2,
    TYPE_STRING = 3,
    TYPE_INTERFACE = 4,
    TYPE_ENDPOINT = 5,
    TYPE_BOS = 15,
    TYPE_CAPABILITY = 16,
    TYPE_COMPANION = 48,
};

enum string_index { STRING_MAKER = 1, STRING_NAME = 2, STRING_SERIAL = 3 };

#define ALWAYS_ONE 0x80u /* of a configuration's attributes */
#define HAS_POWER  0x40u
#define CAN_WAKE   0x20u
#define ENGLISH    0x0409u
#define ALL_SPEEDS 0x000eu /* full, high, super */

unsigned usb_control_packet_bytes(const struct usb_description *d)
{
    if (d->control_packet)
        return d->control_packet;
    return d->speed == USB_SUPER ? 512 : d->speed == USB_HIGH ? 64 : 8;
}

static size_t put_device(const struct usb_description *d, uint8_t *out)
{
    bool is_super = d->speed == USB_SUPER;

    out[0] = 18;
    out[1] = TYPE_DEVICE;
    put_le16(out + 2, is_super ? 0x0300 : 0x0200);
    out[4] = d->device_class;
    out[6] = d->device_protocol;
    out[7] = is_super ? 9 /* an exponent */ : (uint8_t)usb_control_packet_bytes(d);
    put_le16(out + 8, d->vendor);
    put_le16(out + 10, d->product);
    put_le16(out + 12, d->release);
    out[14] = STRING_MAKER;
    out[15] = STRING_NAME;
    out[16] = STRING_SERIAL;
    out[17] = 1; /* configuration */
    return 18;
}

static size_t put_endpoint(const struct usb_description *d,
                           const struct usb_endpoint_description *endpoint, uint8_t *out)
{
    out[0] = 7;
    out[1] = TYPE_ENDPOINT;
    out[2] = endpoint->address;
    out[3] = endpoint->type;
    put_le16(out + 4, endpoint->max_packet);
    out[6] = endpoint->interval;
    if (d->speed != USB_SUPER)
        return 7;
    out[7] = 6;
    out[8] = TYPE_COMPANION;
    out[9] = endpoint->burst;
    return 13;
}

static size_t put_configuration(const struct usb_description *d, uint8_t *out)
{
    uint8_t *interface = out + 9;
    size_t size = 18;

    out[0] = 9;
    out[1] = TYPE_CONFIGURATION;
    out[4] = 1; /* interface */
    out[5] = 1; /* its number */
    out[7] = (uint8_t)(ALWAYS_ONE | (d->has_power ? HAS_POWER : 0) | (d->can_wake ? CAN_WAKE : 0));
    out[8] = d->power;
    interface[0] = 9;
    interface[1] = TYPE_INTERFACE;
    interface[4] = d->endpoint_count;
    interface[5] = d->class;
    interface[6] = d->subclass;
    interface[7] = d->protocol;
    if (d->extra_bytes)
        memcpy(out + size, d->extra, d->extra_bytes);
    size += d->extra_bytes;
    for (unsigned n = 0; n < d->endpoint_count; n++)
        size += put_endpoint(d, &d->endpoints[n], out + size);
    put_le16(out + 2, (uint16_t)size);
    return size;
}

/* What a device of Super Speed has to say about its other speeds. */
static size_t put_bos(const struct usb_description *d, uint8_t *out)
{
    uint8_t *usb2 = out + 5, *super = usb2 + 7;

    if (d->speed != USB_SUPER)
        return 0;
    out[0] = 5;
    out[1] = TYPE_BOS;
    put_le16(out + 2, 22);
    out[4] = 2;
    usb2[0] = 7;
    usb2[1] = TYPE_CAPABILITY;
    usb2[2] = 2; /* USB 2.0 extension; no link power management */
    super[0] = 10;
    super[1] = TYPE_CAPABILITY;
    super[2] = 3; /* Super Speed */
    put_le16(super + 4, ALL_SPEEDS);
    super[6] = 3; /* the lowest speed with all functions is the last */
    return 22;
}

static size_t put_string(const struct usb_device *usb, uint8_t index, uint8_t *out)
{
    const char *text;
    size_t size = 2;

    switch (index) {
    case 0:
        text = "";
        put_le16(out + size, ENGLISH);
        size += 2;
        break;
    case STRING_MAKER:
        text = usb->description->maker;
        break;
    case STRING_NAME:
        text = usb->description->name;
        break;
    case STRING_SERIAL:
        text = usb->serial;
        break;
    default:
        return 0;
    }
    for (; *text && size < 254; text++, size += 2)
        put_le16(out + size, (uint8_t)*text);
    out[0] = (uint8_t)size;
    out[1] = TYPE_STRING;
    return size;
}

size_t usb_descriptor(const struct usb_device *usb, uint8_t type, uint8_t index, uint8_t *out)
{
    memset(out, 0, USB_CONTROL_BYTES);
    switch (type) {
    case TYPE_DEVICE:
        return index ? 0 : put_device(usb->description, out);
    case TYPE_CONFIGURATION:
        return index ? 0 : put_configuration(usb->description, out);
    case TYPE_STRING:
        return put_string(usb, index, out);
    case TYPE_BOS:
        return put_bos(usb->description, out);
    default:
        return 0;
    }
}
