/*
 * run_boot.c - in which order firmware looks for a system: --boot and bootindex=N
 *
 * Devices with a bootindex come first. The others follow kind by kind: disks, CDs, floppies,
 * networks, unless
 * --boot says otherwise.
 */
#include "cli/run.h"

#include <errno.h>
#include <string.h>

#include "machine/pc.h"
#include "trapeze/device.h"
#include "trapeze/machine.h"

#define MAX_INDEX   0xffffu
#define KIND_INDEX  0x10000u /* of the first device that has no bootindex */
#define KIND_FACTOR 0x1000u

static const struct {
    const char *name, *summary;
} kinds[RUN_BOOT_KINDS] = {
    [RUN_BOOT_DISK] = {"disk", "disks, in the order in which they are given"},
    [RUN_BOOT_CD] = {"cdrom", "CDs"},
    [RUN_BOOT_FLOPPY] = {"floppy", "floppy disks"},
    [RUN_BOOT_NETWORK] = {"network", "network cards"},
};

void run_boot_choices(cli_put_choice *put, void *opaque)
{
    for (unsigned n = 0; n < RUN_BOOT_KINDS; n++)
        put(opaque, kinds[n].name, kinds[n].summary);
}

int run_set_boot_index(struct device *dev, enum run_boot_kind kind, const char *text,
                       struct error *err)
{
    uint64_t index;

    dev->boot_index = KIND_INDEX + kind;
    if (!text)
        return 0;
    if (property_parse_u64(text, MAX_INDEX - 1, &index, err)) {
        error_prefix(err, "bootindex: ");
        return -EINVAL;
    }
    dev->boot_index = (uint32_t)index + 1;
    return 0;
}

/* Ranks of kinds; -EINVAL for a word that is none. */
static int parse_order(const char *order, unsigned ranks[RUN_BOOT_KINDS], struct error *err)
{
    unsigned next = 0;

    for (unsigned n = 0; n < RUN_BOOT_KINDS; n++)
        ranks[n] = RUN_BOOT_KINDS + n;
    while (order && *order) {
        size_t length = strcspn(order, ",");
        char word[32];
        unsigned kind = 0;

        snprintf(word, sizeof(word), "%.*s", (int)length, order);
        if (cli_check_choice("kind of device to boot from", word, run_boot_choices, err))
            return -EINVAL;
        while (strcmp(kinds[kind].name, word))
            kind++;
        ranks[kind] = next++;
        order += length + (order[length] == ',');
    }
    return 0;
}

int run_check_boot(const char *order, struct error *err)
{
    unsigned ranks[RUN_BOOT_KINDS];

    return parse_order(order, ranks, err);
}

int run_set_boot_order(struct machine *machine, const char *order, struct error *err)
{
    unsigned ranks[RUN_BOOT_KINDS];

    if (parse_order(order, ranks, err))
        return -EINVAL;
    for (struct device *dev = machine_first_device(machine); dev; dev = dev->next)
        if (dev->boot_index >= KIND_INDEX)
            dev->boot_index = KIND_INDEX + ranks[dev->boot_index - KIND_INDEX] * KIND_FACTOR;
    return pc_set_boot_order(machine, err);
}
