/*
 * run_defaults.c - what the options of trapeze run leave open
 */
#include "cli/run_options.h"

#include <string.h>

#include "cli/run.h"

static bool is_on(const char *text, bool otherwise)
{
    return text ? strcmp(text, "on") == 0 : otherwise;
}

/* Who starts a kernel directly asks for a screen, as nothing sets it up. */
static bool vga_is_default(const struct run_options *options, const struct run_media *media)
{
    return !media->kernel || run_has_display(&options->display) || options->web;
}

bool run_wants_screen(const struct run_options *options, const struct run_media *media)
{
    return run_has_vga(options->vga, &options->device, vga_is_default(options, media));
}

bool run_wants_vga(const struct run_options *options, const struct run_media *media)
{
    static const struct cli_texts none = {0};

    if (!options->vga && run_has_vga(NULL, &options->device, false))
        return false;
    return run_has_vga(options->vga, &none, vga_is_default(options, media));
}

/* A guest that boots from a disk has a driver; what starts a kernel of its own asks for one. */
bool run_wants_balloon(const struct run_options *options, const struct run_media *media)
{
    for (size_t i = 0; !options->balloon && i < options->device.count; i++)
        if (strncmp(options->device.items[i], "virtio-balloon", 14) == 0)
            return false;
    return is_on(options->balloon, !media->kernel);
}

/* Whoever looks at the screen types, points and copies, too; a terminal has only keys. */
static bool is_used(const struct run_options *options)
{
    return run_has_pointer(&options->display) || options->web;
}

bool run_wants_usb(const struct run_options *options)
{
    return options->usb ? strcmp(options->usb, "off") != 0 : is_used(options);
}

bool run_wants_clipboard(const struct run_options *options)
{
    return is_on(options->clipboard, is_used(options));
}

bool run_wants_smm(const struct run_options *options, const struct run_media *media)
{
    return strcmp(options->smm, "auto") == 0 ? media->smm : is_on(options->smm, false);
}
