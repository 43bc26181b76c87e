/*
 * run_usb.c - trapeze run --usb: a controller, and what people type and point with
 */
#include <errno.h>
#include <string.h>

#include "cli/run.h"
#include "devices/usb/usb.h"
#include "trapeze/device.h"
#include "trapeze/machine.h"

void run_usb_choices(cli_put_choice *put, void *opaque)
{
    put(opaque, "on", "an xHCI controller with a tablet and a keyboard");
    put(opaque, "off", "none, but for what --device and --disk ask for");
}

bool run_is_usb(const char *class_name)
{
    return strncmp(class_name, "usb-", 4) == 0;
}

int run_need_usb(struct machine *machine, struct error *err)
{
    struct device *dev;

    if (usb_find_controller(machine))
        return 0;
    dev = device_new(machine, device_class_find("xhci"), NULL, err);
    return dev ? device_attach(dev, err) : -ENOMEM;
}

int run_add_usb(struct machine *machine, struct error *err)
{
    return run_add_device(machine, "usb-tablet", err) || run_add_device(machine, "usb-kbd", err)
               ? -EINVAL
               : 0;
}
