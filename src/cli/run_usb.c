/*
 * run_usb.c - trapeze run --usb: controllers, and what people type and point with
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/run.h"
#include "devices/usb/usb.h"
#include "trapeze/device.h"
#include "trapeze/machine.h"
#include "trapeze/pci.h"

/* Functions of one slot: some of USB 1.1 from 0 on. */
static const struct usb_kind {
    const char *name, *summary;
    unsigned uhci_count;
    bool has_ehci; /* as the last function */
} kinds[] = {
    {"on", "an xHCI controller with a tablet and a keyboard", 0, false},
    {"xhci", "the same", 0, false},
    {"ehci", "an EHCI controller (USB 2, six ports) with them, and UHCI companions", 3, true},
    {"uhci", "UHCI controllers (USB 1.1, six ports) with them, for old systems", 3, false},
};
#define LAST_FUNCTION 7u
#define KINDS         (sizeof(kinds) / sizeof(kinds[0]))

void run_usb_choices(cli_put_choice *put, void *opaque)
{
    for (size_t n = 0; n < KINDS; n++)
        put(opaque, kinds[n].name, kinds[n].summary);
    put(opaque, "off", "none, but for what --device and --disk ask for");
}

bool run_is_usb(const char *class_name)
{
    return strncmp(class_name, "usb-", 4) == 0;
}

/* addr NULL: the first free slot. NULL with err. */
static struct device *add_controller(struct machine *machine, const char *class_name,
                                     const char *addr, struct error *err)
{
    struct device *dev = device_new(machine, device_class_find(class_name), NULL, err);

    if (dev && !(addr && device_set(dev, "addr", addr, err)) && !device_attach(dev, err))
        return dev;
    device_free(dev);
    return NULL;
}

/* One more function in the slot of another, or in a slot of its own if that is NULL. */
static struct device *add_function(struct machine *machine, const char *class_name,
                                   struct device *first, unsigned number, struct error *err)
{
    char addr[16];

    if (!first)
        return add_controller(machine, class_name, NULL, err);
    snprintf(addr, sizeof(addr), "%x.%x", pci_function_of(first)->slot, number);
    return add_controller(machine, class_name, addr, err);
}

int run_add_usb_controllers(struct machine *machine, const char *name, struct error *err)
{
    const struct usb_kind *kind = kinds;
    struct device *first = NULL;

    while (kind < kinds + KINDS && strcmp(kind->name, name) != 0)
        kind++;
    if (kind == kinds + KINDS)
        return 0;
    for (unsigned n = 0; n < kind->uhci_count; n++) {
        struct device *dev = add_function(machine, "uhci", first, n, err);

        if (!dev)
            return -EINVAL;
        first = first ? first : dev;
    }
    return kind->has_ehci && !add_function(machine, "ehci", first, LAST_FUNCTION, err) ? -EINVAL
                                                                                       : 0;
}

int run_need_usb(struct machine *machine, struct error *err)
{
    if (usb_find_controller(machine))
        return 0;
    return add_controller(machine, "xhci", NULL, err) ? 0 : -EINVAL;
}

int run_add_usb(struct machine *machine, struct error *err)
{
    return run_add_device(machine, "usb-tablet", err) || run_add_device(machine, "usb-kbd", err)
               ? -EINVAL
               : 0;
}
