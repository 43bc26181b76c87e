/*
 * run_options.h - what the command line of trapeze run says, and what it leaves open
 */
#ifndef CLI_RUN_OPTIONS_H
#define CLI_RUN_OPTIONS_H

#include "cli/cli.h"

struct run_media;

/* Filled in by cli_parse() from cli_run_options; NULL and 0: not given, or as the table has it. */
struct run_options {
    const char *name, *kernel, *kernel_entry, *append, *firmware;
    const char *engine, *cpu, *debugcon, *monitor, *gdb;
    const char *rtc, *trace, *trace_file, *log_level;
    struct cli_texts initrd, serial, device, disk, cdrom, floppy, net, publish, ssh_key, share,
        port, display;
    uint64_t memory_bytes, cpus, code_cache_bytes, pause_at, digest, digest_from, hotplug;
    bool rng, paused, counted, no_reboot, perf_map, snapshot, dry_run;
    const char *listing, *stats, *sandbox, *smm, *nvram, *cloud_init, *config, *boot;
    const char *uuid, *serial_number, *balloon, *console, *vsock, *vga, *usb, *web, *audio,
        *clipboard, *keyboard_layout;
};

/* Was the machine given a name? */
bool run_has_name(const struct run_options *options);

/* ---- run_check.c ---- */

/* What only the command line can get wrong: exit status 2. has_image: it names what to run. */
int run_check_options(const struct run_options *options, bool has_image, struct error *err);
/* The RTC at the start, in ns since 1970; 0: now. */
int run_wall_start(const struct run_options *options, uint64_t *out_wall_ns, struct error *err);

/* ---- run_defaults.c: as an option says, or by what is run and who looks at it ---- */

bool run_wants_balloon(const struct run_options *options, const struct run_media *media);
/* There is a graphics card, by --vga or --device. */
bool run_wants_screen(const struct run_options *options, const struct run_media *media);
/* --vga, and no card of --device. */
bool run_wants_vga(const struct run_options *options, const struct run_media *media);
bool run_wants_usb(const struct run_options *options);
bool run_wants_clipboard(const struct run_options *options);
bool run_wants_smm(const struct run_options *options, const struct run_media *media);

#endif
