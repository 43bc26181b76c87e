/*
 * run_hotplug.c - disks, network cards and CDs that come and go while the machine runs
 *
 * A card goes into the slot of an empty root port. To take it out the guest is asked, by the slot's
 * button; when it has switched the slot off, the card and its backend go, on the main loop. By
 * force they go at once. A stick, or another device on a USB port, needs no slot, and goes at once
 * in any case.
 */
#include "cli/run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "control/monitor.h"
#include "devices/ata/ata.h"
#include "devices/floppy/floppy.h"
#include "devices/pcie_port.h"
#include "devices/usb/usb.h"
#include "host/loop.h"
#include "trapeze/block.h"
#include "trapeze/machine.h"
#include "trapeze/net.h"
#include "trapeze/pci.h"

#define FIRST_PORT_SLOT 0x1cu /* where chipsets have them */
#define PORTS_PER_SLOT  8u

struct run_plug {
    struct run_hotplug *hotplug;
    struct device *dev;
    struct block **disk; /* where it is kept, or NULL */
    struct net **net;
    bool is_usb;  /* it sits on a USB port */
    bool leaving; /* take_out() will be called */
    struct run_plug *next;
};

/* ---- slots ---- */

static int add_port(struct machine *machine, unsigned n, unsigned count, struct error *err)
{
    const struct device_class *class = device_class_find("pcie-port");
    unsigned function = n % PORTS_PER_SLOT;
    char id[16], place[16];
    struct device *dev;

    snprintf(id, sizeof(id), "slot%u", n + 1);
    snprintf(place, sizeof(place), "%x.%u", FIRST_PORT_SLOT + n / PORTS_PER_SLOT, function);
    dev = device_new(machine, class, id, err);
    if (!dev || device_set(dev, "addr", place, err) || device_set_u64(dev, "number", n + 1, err) ||
        device_set_u64(dev, "pin", function % 4 + 1, err) ||
        device_set(dev, "multifunction", function == 0 && n + 1 < count ? "on" : "off", err))
        return -EINVAL;
    return device_attach(dev, err);
}

int run_add_ports(struct machine *machine, unsigned count, struct error *err)
{
    for (unsigned n = 0; n < count; n++)
        if (add_port(machine, n, count, err))
            return -EINVAL;
    return 0;
}

/* ---- plugging ---- */

static struct device *plug_device(struct run_plug *plug, enum monitor_plug what, const char *text,
                                  const char *place, struct error *err)
{
    struct run_hotplug *hotplug = plug->hotplug;

    switch (what) {
    case MONITOR_PLUG_DISK:
        return run_plug_disk(hotplug->media, hotplug->machine, text, place, &plug->disk, err);
    case MONITOR_PLUG_NET:
        return run_plug_card(hotplug->networks, hotplug->machine, text, &hotplug->cards, place,
                             &plug->net, err);
    default:
        return run_plug_usb(hotplug->machine, text, err);
    }
}

static int plug_in(void *opaque, enum monitor_plug what, const char *text, const char **out_id,
                   struct error *err)
{
    struct run_hotplug *hotplug = opaque;
    bool is_stick = what == MONITOR_PLUG_DISK && run_is_stick(text);
    bool is_usb = is_stick || what == MONITOR_PLUG_DEVICE;
    struct device *port = is_usb ? NULL : pcie_port_find_empty(hotplug->machine);
    struct run_plug *plug;
    char place[40];

    if (is_usb ? is_stick && !hotplug->is_allowed : !port)
        return error_set(err, ENOSPC, "there is no empty slot; 'trapeze run --hotplug N' has N");
    if (is_usb && !usb_find_controller(hotplug->machine))
        return error_set(err, ENODEV,
                         "there is no USB controller; 'trapeze run --device xhci' has one");
    plug = calloc(1, sizeof(*plug));
    if (!plug)
        return error_set(err, ENOMEM, "out of memory");
    snprintf(place, sizeof(place), "%s/", port ? port->id : "");
    plug->hotplug = hotplug;
    plug->is_usb = is_usb;
    plug->dev = plug_device(plug, what, text, place, err);
    if (!plug->dev) {
        free(plug);
        return -EINVAL;
    }
    if (!is_usb)
        pci_power_on(pci_function_of(plug->dev));
    plug->next = hotplug->plugs;
    hotplug->plugs = plug;
    *out_id = plug->dev->id;
    return 0;
}

/* On the main loop. */
static void take_out(void *opaque)
{
    struct run_plug *plug = opaque, **link = &plug->hotplug->plugs;
    char id[sizeof(plug->dev->id)];

    while (*link != plug)
        link = &(*link)->next;
    *link = plug->next;
    snprintf(id, sizeof(id), "%s", plug->dev->id);
    device_free(plug->dev);
    if (plug->disk) {
        block_free(*plug->disk);
        *plug->disk = NULL;
    }
    if (plug->net) {
        net_free(*plug->net);
        *plug->net = NULL;
    }
    monitor_device_removed(plug->hotplug->monitor, id);
    free(plug);
}

/* The slot has no power any more. */
static void slot_is_off(void *opaque)
{
    struct run_plug *plug = opaque;

    plug->leaving = loop_defer(machine_loop(plug->hotplug->machine), take_out, plug) == 0;
    if (!plug->leaving)
        log_error("%s stays in its slot: out of memory", plug->dev->id);
}

static int plug_out(void *opaque, const char *id, bool by_force, struct error *err)
{
    struct run_hotplug *hotplug = opaque;
    struct run_plug *plug = hotplug->plugs;

    while (plug && strcmp(plug->dev->id, id))
        plug = plug->next;
    if (!plug)
        return error_set(err, ENOENT, "'%s' is not in a slot: only what was added can be removed",
                         id);
    if (plug->leaving)
        return error_set(err, EBUSY, "'%s' is being taken out", id);
    if (!by_force && !plug->is_usb)
        return pcie_port_press_button(pcie_port_of(pci_function_of(plug->dev)), slot_is_off, plug,
                                      err);
    take_out(plug);
    return 0;
}

/* ---- CDs and floppies ---- */

/* NULL with err. id NULL: the only one. */
static struct device *find_drive(struct machine *machine, const char *id, struct error *err)
{
    struct device *found = NULL;

    for (struct device *dev = machine_first_device(machine); dev; dev = dev->next) {
        if ((dev->class != &ata_cd_class && dev->class != &floppy_drive_class) ||
            (id && strcmp(dev->id, id)))
            continue;
        if (found) {
            error_set(err, EINVAL, "there are several drives: which? '%s', '%s'...", found->id,
                      dev->id);
            return NULL;
        }
        found = dev;
    }
    if (!found && id)
        error_set(err, ENOENT, "there is no CD or floppy drive '%s'", id);
    else if (!found)
        error_set(err, ENODEV,
                  "the machine has no CD drive; run it with --cdrom FILE, or none (or --floppy)");
    return found;
}

static int change(void *opaque, const char *id, const char *text, bool by_force,
                  const char **out_id, bool *out_asked, struct error *err)
{
    const struct run_hotplug *hotplug = opaque;
    struct device *drive = find_drive(hotplug->machine, id, err);

    if (!drive)
        return -ENODEV;
    *out_id = drive->id;
    return run_change_medium(hotplug->media, drive, text, by_force, out_asked, err);
}

static const struct monitor_hotplug calls = {.add = plug_in, .remove = plug_out, .change = change};

void run_offer_hotplug(struct run_hotplug *hotplug)
{
    monitor_set_hotplug(hotplug->monitor, &calls, hotplug);
}

/* Devices went with the machine, backends go with the others. */
void run_free_hotplug(struct run_hotplug *hotplug)
{
    while (hotplug->plugs) {
        struct run_plug *plug = hotplug->plugs;

        hotplug->plugs = plug->next;
        free(plug);
    }
}
