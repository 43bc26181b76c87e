/*
 * find.c - which of the host's USB devices is meant, and its file
 *
 * The kernel has a folder for each device in /sys/bus/usb/devices, and a file in /dev/bus/usb that
 * its owner may drive it by.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/usb/internal.h"
#include "host/given.h"

#define FOLDER     "/sys/bus/usb/devices"
#define CLASS_HUB  9u
#define LIST_BYTES 400u /* of a message, about what there is */

/* ---- what is asked for ---- */

struct wanted {
    bool has_product, has_address;
    unsigned vendor, product, bus, address;
    const char *port; /* "": any */
};

static int parse(const char *product, const char *at, struct wanted *out, struct error *err)
{
    int length = -1;

    *out = (struct wanted){.has_product = *product, .port = strchr(at, '-') ? at : ""};
    if (*product && (sscanf(product, "%4x:%4x%n", &out->vendor, &out->product, &length) != 2 ||
                     product[length]))
        return error_set(err, EINVAL, "'%s' is no VENDOR:PRODUCT, as lsusb shows them: 46f4:0001",
                         product);
    if (!*at || *out->port)
        return 0;
    length = -1;
    if (sscanf(at, "%3u.%3u%n", &out->bus, &out->address, &length) != 2 || at[length])
        return error_set(err, EINVAL, "'%s' is no place: BUS.ADDRESS (1.4) or BUS-PORT (1-2)", at);
    out->has_address = true;
    return 0;
}

static bool fits(const struct wanted *wanted, const struct usb_host_place *place)
{
    return (!wanted->has_product ||
            (wanted->vendor == place->vendor && wanted->product == place->product)) &&
           (!wanted->has_address ||
            (wanted->bus == place->bus && wanted->address == place->address)) &&
           (!*wanted->port || strcmp(wanted->port, place->port) == 0);
}

/* ---- what there is ---- */

/* One line. False: it has no such. */
static bool read_text(const char *port, const char *attribute, char *out, size_t size)
{
    char path[sizeof(FOLDER) + 320];
    FILE *file;
    bool found;

    snprintf(path, sizeof(path), FOLDER "/%s/%s", port, attribute);
    file = fopen(path, "re");
    found = file && fgets(out, (int)size, file);
    if (file)
        fclose(file);
    if (found)
        out[strcspn(out, "\n")] = '\0';
    return found;
}

static bool read_number(const char *port, const char *attribute, int base, unsigned *out)
{
    char text[32];

    if (!read_text(port, attribute, text, sizeof(text)))
        return false;
    *out = (unsigned)strtoul(text, NULL, base);
    return true;
}

/* False: that is an interface, or a hub, which guests do not get. */
static bool read_place(const char *port, struct usb_host_place *out)
{
    unsigned class;
    char maker[40] = "", name[40] = "";

    *out = (struct usb_host_place){.bus = 0};
    if (strchr(port, ':') || strlen(port) >= sizeof(out->port) ||
        !read_number(port, "bDeviceClass", 16, &class) || class == CLASS_HUB ||
        !read_number(port, "busnum", 10, &out->bus) ||
        !read_number(port, "devnum", 10, &out->address) ||
        !read_number(port, "idVendor", 16, &out->vendor) ||
        !read_number(port, "idProduct", 16, &out->product))
        return false;
    strcpy(out->port, port);
    read_text(port, "manufacturer", maker, sizeof(maker));
    read_text(port, "product", name, sizeof(name));
    snprintf(out->name, sizeof(out->name), "%s%s%s", maker, *maker && *name ? " " : "", name);
    return true;
}

static void add_to_list(char *list, const struct usb_host_place *place)
{
    size_t length = strlen(list);

    snprintf(list + length, LIST_BYTES - length, "%sid=%04x:%04x,at=%s (%s)", length ? "; " : "",
             place->vendor, place->product, place->port, *place->name ? place->name : "no name");
}

/* The one that fits. -errno with err, which lists those that could have been meant. */
static int find(const struct wanted *wanted, struct usb_host_place *out, struct error *err)
{
    DIR *folder = opendir(FOLDER);
    int code = errno;
    char all[LIST_BYTES] = "", fitting[LIST_BYTES] = "";
    struct usb_host_place place;
    const struct dirent *entry;
    unsigned count = 0;

    while (folder && (entry = readdir(folder))) {
        if (entry->d_name[0] == '.' || !read_place(entry->d_name, &place))
            continue;
        add_to_list(all, &place);
        if (!fits(wanted, &place))
            continue;
        add_to_list(fitting, &place);
        *out = place;
        count++;
    }
    if (folder)
        closedir(folder);
    if (count == 1)
        return 0;
    if (count)
        return error_set(err, ENOTUNIQ, "several devices of the host are meant: %s", fitting);
    if (*all)
        return error_set(err, ENODEV, "the host has no such USB device, but %s", all);
    if (folder)
        return error_set(err, ENODEV, "the host has no USB devices");
    return error_set(err, code, "the host's USB devices cannot be looked up in " FOLDER ": %s",
                     strerror(code));
}

/* ---- its file ---- */

static int cannot_open(const char *path, const struct usb_host_place *place, int code,
                       struct error *err)
{
    if (code != EACCES && code != EPERM)
        return error_set(err, code, "%s: %s", path, strerror(code));
    return error_set(err, code,
                     "%s: %s; 'sudo setfacl -m u:$USER:rw %s' allows it until the device is pulled "
                     "out, and for good a file in /etc/udev/rules.d with 'SUBSYSTEM==\"usb\", "
                     "ATTR{idVendor}==\"%04x\", ATTR{idProduct}==\"%04x\", TAG+=\"uaccess\"'",
                     path, strerror(code), path, place->vendor, place->product);
}

/* Its descriptor, or -errno. A place that says where leaves nothing to be looked up. */
static int open_device(const char *product, const char *at, struct usb_host_place *out,
                       struct error *err)
{
    struct wanted wanted;
    char path[40];
    int fd;

    if (parse(product, at, &wanted, err))
        return -EINVAL;
    *out = (struct usb_host_place){.bus = wanted.bus, .address = wanted.address};
    snprintf(path, sizeof(path), "/dev/bus/usb/%03u/%03u", wanted.bus, wanted.address);
    fd = wanted.has_address ? host_take_given(path, O_RDWR) : -1;
    if (fd >= 0)
        return fd;
    if (find(&wanted, out, err))
        return -ENODEV;
    snprintf(path, sizeof(path), "/dev/bus/usb/%03u/%03u", out->bus, out->address);
    fd = host_open(path, O_RDWR, 0);
    return fd >= 0 ? fd : cannot_open(path, out, errno, err);
}

int usb_host_hand_over(const char *product, const char *at, char *out_at, size_t out_size,
                       struct error *err)
{
    struct usb_host_place place;
    int fd = open_device(product, at, &place, err);

    if (fd < 0)
        return fd;
    close(fd);
    snprintf(out_at, out_size, "%u.%u", place.bus, place.address);
    return 0;
}

#ifdef HAVE_LIBUSB

struct usb_host *usb_host_open(struct loop *loop, const char *product, const char *at,
                               struct error *err)
{
    struct usb_host_place place;
    int fd = open_device(product, at, &place, err);

    return fd < 0 ? NULL : usb_host_wrap(loop, fd, &place, err);
}

#else

void usb_host_prepare(struct loop *loop)
{
    (void)loop;
}

void usb_host_finish(void)
{
}

struct usb_host *usb_host_open(struct loop *loop, const char *product, const char *at,
                               struct error *err)
{
    (void)loop;
    (void)product;
    (void)at;
    error_set(err, ENOTSUP,
              "this trapeze was built without libusb; install libusb-1.0-0-dev and build it again");
    return NULL;
}

#endif
