/*
 * run_check.c - values of options, before anything is opened
 */
#include "cli/run_options.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/run.h"
#include "machine/pc_layout.h"
#include "trapeze/audio.h"
#include "trapeze/machine.h"
#include "x86/features.h"

/* What the RTC starts from in counted mode unless told: 2024-01-01 00:00:00 UTC. */
#define COUNTED_WALL_START_S 1704067200ull

int run_wall_start(const struct run_options *options, uint64_t *out_wall_ns, struct error *err)
{
    if (options->rtc)
        return run_parse_rtc(options->rtc, out_wall_ns, err);
    *out_wall_ns = options->counted ? COUNTED_WALL_START_S * NANOSECONDS_PER_SECOND : 0;
    return 0;
}

static int check_cpu(const struct run_options *options, struct error *err)
{
    struct cpu_model model;
    struct error why = {0};

    if (cpu_model_parse(options->cpu, (unsigned)options->cpus, &model, &why) != -EINVAL)
        return 0; /* that this host cannot give it is not a mistake of writing */
    return error_set(err, EINVAL, "--cpu: %s", why.text);
}

int run_check_chardev(const char *text, struct error *err)
{
    char kind[32];

    snprintf(kind, sizeof(kind), "%.*s", (int)strcspn(text, ":"), text);
    return cli_check_choice("character backend", kind, run_chardev_choices, err);
}

static int check_values(const struct run_options *options, struct error *err)
{
    uint64_t wall_ns;
    uint8_t uuid[16];

    if (options->uuid && run_parse_uuid(options->uuid, uuid, err))
        return -EINVAL;
    if (options->serial_number && strlen(options->serial_number) > PC_SERIAL_NUMBER_MAX)
        return error_set(err, EINVAL, "--serial-number has up to %d characters",
                         PC_SERIAL_NUMBER_MAX);
    if (options->counted && options->cpus > 1)
        return error_set(err, EINVAL, "--counted works with one processor, not with --cpus %u",
                         (unsigned)options->cpus);
    if (options->digest && !options->counted)
        return error_set(err, EINVAL, "--digest wants --counted: other runs do not repeat");
    for (size_t i = 0; i < options->serial.count; i++)
        if (run_check_chardev(options->serial.items[i], err))
            return -EINVAL;
    if (run_check_chardev(options->debugcon, err) || check_cpu(options, err))
        return -EINVAL;
    return run_wall_start(options, &wall_ns, err);
}

int run_check_options(const struct run_options *options, bool has_image, struct error *err)
{
    if (options->serial.count > PC_SERIAL_COUNT)
        return error_set(err, EINVAL, "there are %d serial ports, and --serial is given %zu times",
                         PC_SERIAL_COUNT, options->serial.count);
    if (options->disk.count > RUN_MAX_DISKS)
        return error_set(err, E2BIG, "%zu disks are too many; up to %d can be given",
                         options->disk.count, RUN_MAX_DISKS);
    if (options->cdrom.count > RUN_MAX_CDS)
        return error_set(err, E2BIG, "%zu CDs are too many; up to %d can be given",
                         options->cdrom.count, RUN_MAX_CDS);
    if (options->floppy.count > RUN_MAX_FLOPPIES)
        return error_set(err, E2BIG, "there are two floppy drives, and --floppy is given %zu times",
                         options->floppy.count);
    if (!options->kernel && !options->firmware && !options->disk.count && !options->cdrom.count &&
        !options->floppy.count && !has_image)
        return error_set(err, EINVAL,
                         "nothing to run: give a disk (trapeze run debian.img), a kernel (trapeze "
                         "run vmlinuz --append ...) or --firmware FILE");
    for (size_t i = 0; i < options->device.count; i++)
        if (!run_find_class(options->device.items[i], err))
            return -EINVAL;
    if (run_check_vga(options->vga, err)) {
        error_prefix(err, "--vga: ");
        return -EINVAL;
    }
    if (run_check_displays(&options->display, err)) {
        error_prefix(err, "--display: ");
        return -EINVAL;
    }
    if (run_check_web(options->web, err))
        return -EINVAL;
    if (options->audio && audio_check(options->audio, err)) {
        error_prefix(err, "--audio: ");
        return -EINVAL;
    }
    if (run_check_boot(options->boot, err)) {
        error_prefix(err, "--boot: ");
        return -EINVAL;
    }
    if (run_check_vsock(options->vsock, err)) {
        error_prefix(err, "--vsock %s: ", options->vsock);
        return -EINVAL;
    }
    for (size_t i = 0; i < options->port.count; i++)
        if (run_check_serial_port(options->port.items[i], err)) {
            error_prefix(err, "--port %s: ", options->port.items[i]);
            return -EINVAL;
        }
    for (size_t i = 0; i < options->net.count; i++)
        if (run_check_net(options->net.items[i], err))
            return -EINVAL;
    return check_values(options, err);
}
