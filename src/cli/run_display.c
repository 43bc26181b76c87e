/*
 * run_display.c - trapeze run --vga and --display: the graphics card, and who looks at its screen
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/run.h"
#include "trapeze/device.h"
#include "trapeze/machine.h"

/* From the package seabios. Without it only UEFI and drivers of systems use the card. */
static const char vga_rom[] = "/usr/share/seabios/vgabios-stdvga.bin";

void run_vga_choices(cli_put_choice *put, void *opaque)
{
    put(opaque, "std", "VGA with linear modes (1234:1111)");
    put(opaque, "none", "no graphics card");
}

void run_display_choices(cli_put_choice *put, void *opaque)
{
    put(opaque, "none", "nobody; 'trapeze screenshot' takes pictures");
}

static bool is_card(const char *vga)
{
    return strncmp(vga, "std", 3) == 0 && (vga[3] == '\0' || vga[3] == ',');
}

int run_check_vga(const char *vga, struct error *err)
{
    char kind[32];

    if (!vga || is_card(vga))
        return 0;
    snprintf(kind, sizeof(kind), "%.*s", (int)strcspn(vga, ","), vga);
    return cli_check_choice("graphics card", kind, run_vga_choices, err);
}

bool run_has_vga(const char *vga, const struct cli_texts *devices, bool is_default)
{
    for (size_t i = 0; i < devices->count; i++)
        if (strncmp(devices->items[i], "vga", 3) == 0 && strchr(",", devices->items[i][3]))
            return true;
    return vga ? is_card(vga) : is_default;
}

int run_add_vga(struct machine *machine, const char *vga, struct error *err)
{
    const struct device_class *class = device_class_find("vga");
    const char *properties = vga ? vga + strcspn(vga, ",") : "";
    struct device *dev = device_new(machine, class, NULL, err);
    int result = dev ? 0 : -ENOMEM;

    if (!result && !access(vga_rom, R_OK))
        result = device_set(dev, "romfile", vga_rom, err);
    if (!result && *properties)
        result = properties_parse(class->properties, dev, properties + 1, err);
    if (!result)
        result = device_attach(dev, err);
    if (result)
        error_prefix(err, "--vga: ");
    return result;
}
