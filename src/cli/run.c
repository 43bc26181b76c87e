/*
 * run.c - trapeze run: one machine, one process
 *
 * Turns the options into a machine in the order in which the parts need each other:
 * loop, character devices, machine, board, devices, debugger, monitor. Then
 * runs the main loop until the machine stops, and takes all down in reverse.
 *
 * SIGINT, SIGTERM and SIGHUP are read from a signalfd on the main loop, so that the machine is
 * taken down (and the terminal restored) like after any other stop. While the terminal is raw,
 * Ctrl-C is a byte for the guest and no signal. Under nohup SIGHUP stays ignored.
 */
#include "cli/run.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "backends/display/layout.h"
#include "base/hash.h"
#include "base/log.h"
#include "cli/machines.h"
#include "control/digest.h"
#include "control/gdbstub.h"
#include "control/monitor.h"
#include "control/web.h"
#include "host/host.h"
#include "host/loop.h"
#include "machine/pc.h"
#include "machine/pc_layout.h"
#include "trapeze/audio.h"
#include "trapeze/chardev.h"
#include "trapeze/device.h"
#include "trapeze/input.h"
#include "trapeze/machine.h"
#include "trapeze/vsock.h"
#include "x86/features.h"

/* What the RTC starts from in counted mode unless told: 2024-01-01 00:00:00 UTC. */
#define COUNTED_WALL_START_S 1704067200ull

#define MAX_SERIAL           PC_SERIAL_COUNT
#define MAX_INITRDS          64

static const char default_name[] = "vm";

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

struct run {
    struct run_options options;
    struct cli_texts operands;
    struct cli_texts config_words; /* of --config */
    struct cli_texts initrds;      /* --initrd split at commas; point into initrd_text */
    struct cli_texts initrd_copies;

    struct loop *loop;
    struct machine *machine;
    struct chardev *serial[MAX_SERIAL], *debug_console, *virtio_console;
    struct audio *audio;
    struct key_layout *layout; /* NULL: of a US keyboard */
    struct run_serial_ports serial_ports;
    struct run_media media;
    struct run_seed seed;
    struct run_networks networks;
    uint64_t card_seed;
    struct run_shares shares;
    struct vsock *vsock;
    struct run_hotplug hotplug;
    struct chardev_console console; /* what the terminal's escape key does */
    char monitor_hint[160];
    char engine_note[512]; /* why --engine auto passed others over */
    struct monitor *monitor;
    struct run_displays displays;
    struct web *web;
    struct gdbstub *gdbstub;
    struct digest *digest, *pause_at;
    struct loop_fd *signal_handler;
    int signal_fd;
    sigset_t old_signals;
};

/* ---- values of single options ---- */

static bool is_debug_address(const char *word)
{
    const char *colon = strrchr(word, ':');
    const char *port = colon ? colon + 1 : word;

    if (strncmp(word, "unix:", 5) == 0)
        return true;
    return *port && port[strspn(port, "0123456789")] == '\0';
}

static bool is_stats_form(const char *word)
{
    return strcmp(word, "text") == 0 || strcmp(word, "json") == 0;
}

static int wall_start(const struct run_options *options, uint64_t *out_wall_ns, struct error *err)
{
    if (options->rtc)
        return run_parse_rtc(options->rtc, out_wall_ns, err);
    *out_wall_ns = options->counted ? COUNTED_WALL_START_S * NANOSECONDS_PER_SECOND : 0;
    return 0;
}

static const struct engine_ops *choose_engine(struct run *run, struct error *err)
{
    return run_choose_engine(run->options.engine, run->options.counted, run->engine_note,
                             sizeof(run->engine_note), err);
}

/* "a,b" in every --initrd gives two files; a doubled comma stands for a comma. */
static int split_initrd(struct run *run, const char *text, struct error *err)
{
    char *copy = strdup(text), *to = copy, *item = copy;

    if (!copy || cli_texts_add(&run->initrd_copies, copy, err)) {
        free(copy);
        return error_set(err, ENOMEM, "out of memory");
    }
    for (const char *from = text;; from++) {
        if (*from == ',' && from[1] == ',') {
            *to++ = *from++;
        } else if (*from == ',' || *from == '\0') {
            *to++ = '\0';
            if (*item && cli_texts_add(&run->initrds, item, err))
                return -ENOMEM;
            item = to;
            if (*from == '\0')
                return 0;
        } else {
            *to++ = *from;
        }
    }
}

static int split_initrds(struct run *run, struct error *err)
{
    for (size_t i = 0; i < run->options.initrd.count; i++)
        if (split_initrd(run, run->options.initrd.items[i], err))
            return -ENOMEM;
    if (run->initrds.count > MAX_INITRDS)
        return error_set(err, E2BIG, "%zu initial RAM disks are too many; up to %d can be given",
                         run->initrds.count, MAX_INITRDS);
    return 0;
}

/* ---- devices of the command line ---- */

/* A guest that boots from a disk has a driver; what starts a kernel of its own asks for one. */
static bool wants_balloon(const struct run *run)
{
    const struct run_options *options = &run->options;

    if (options->balloon)
        return strcmp(options->balloon, "on") == 0;
    for (size_t i = 0; i < options->device.count; i++)
        if (strncmp(options->device.items[i], "virtio-balloon", 14) == 0)
            return false;
    return !run->media.kernel;
}

/* Who starts a kernel directly asks for a screen, as nothing sets it up. */
static bool vga_is_default(const struct run *run)
{
    return !run->media.kernel || run_has_display(&run->options.display) || run->options.web;
}

/* --vga, and no card of --device. */
static bool wants_vga(const struct run *run)
{
    static const struct cli_texts none = {0};

    if (!run->options.vga && run_has_vga(NULL, &run->options.device, false))
        return false;
    return run_has_vga(run->options.vga, &none, vga_is_default(run));
}

/* Whoever looks at the screen types, points and copies, too; a terminal has only keys. */
static bool is_used(const struct run *run)
{
    return run_has_pointer(&run->options.display) || run->options.web;
}

static bool wants_usb(const struct run *run)
{
    return run->options.usb ? strcmp(run->options.usb, "on") == 0 : is_used(run);
}

static bool wants_clipboard(const struct run *run)
{
    return run->options.clipboard ? strcmp(run->options.clipboard, "on") == 0 : is_used(run);
}

static int add_devices(struct run *run, struct error *err)
{
    if (run->virtio_console && run_add_console(run->machine, run->virtio_console, err))
        return -EINVAL;
    if (run_add_serial_ports(&run->serial_ports, run->machine, &run->options.port,
                             wants_clipboard(run), err))
        return -EINVAL;
    if (wants_balloon(run) && run_add_device(run->machine, "virtio-balloon", err))
        return -EINVAL;
    if (run->options.rng && run_add_device(run->machine, "virtio-rng", err))
        return -EINVAL;
    for (size_t i = 0; i < run->options.device.count; i++)
        if (run_add_device(run->machine, run->options.device.items[i], err))
            return -EINVAL;
    if (wants_usb(run) && run_add_usb(run->machine, err))
        return -EINVAL;
    if (run->audio && run_add_sound(run->machine, run->audio, err))
        return -EINVAL;
    return wants_vga(run) ? run_add_vga(run->machine, run->options.vga, err) : 0;
}

/* ---- networks ---- */

/*
 * What the cards' addresses are made of. The same for the same machine: of its name and its disks.
 * One without disks does not remember them, so each start is another machine, unless it has a UUID
 * or is to repeat.
 */
static uint64_t machine_seed(const struct run *run)
{
    const struct run_options *options = &run->options;
    bool has_disk = (run->media.image_disk && !run->media.image_is_cd) || options->disk.count;
    uint64_t seed = hash_add(HASH_START, options->name, strlen(options->name)), chance;

    if (run->media.image_disk)
        seed = hash_add(seed, run->media.image_disk, strlen(run->media.image_disk));
    for (size_t i = 0; i < options->disk.count; i++)
        seed = hash_add(seed, options->disk.items[i], strlen(options->disk.items[i]));
    if (has_disk || options->counted)
        return seed;
    if (options->uuid)
        return hash_add(seed, options->uuid, strlen(options->uuid));
    host_random(&chance, sizeof(chance));
    return seed ^ chance;
}

static int add_networks(struct run *run, struct error *err)
{
    const struct run_options *options = &run->options;
    const struct run_network_options networks = {
        .name = options->name,
        .net = &options->net,
        .publish = &options->publish,
        .is_default = !run->media.kernel,
        .boots = !run->media.kernel && !run->media.image_disk && !options->disk.count,
        .seed = run->card_seed,
    };

    run_find_user(&run->seed,
                  run->media.image_disk || !options->disk.count ? run->media.image_disk
                                                                : options->disk.items[0],
                  run->networks.ssh_user);
    return run_add_networks(&run->networks, run->machine, &networks, err);
}

static int add_ports(struct run *run, struct error *err)
{
    return run_add_ports(run->machine, (unsigned)run->options.hotplug, err);
}

static void offer_hotplug(struct run *run)
{
    run->hotplug =
        (struct run_hotplug){.machine = run->machine,
                             .media = &run->media,
                             .networks = &run->networks,
                             .cards = {.name = run->options.name, .seed = run->card_seed},
                             .monitor = run->monitor,
                             .is_allowed = run->options.hotplug > 0};
    run_offer_hotplug(&run->hotplug);
}

/* ---- character devices ---- */

static bool has_virtio_console(const struct run_options *options)
{
    return strcmp(options->console, "virtio") == 0;
}

/* What is not given: COM1 is on the terminal unless another console is; the rest is null. */
static const char *serial_text(const struct run_options *options, unsigned index)
{
    if (index < options->serial.count)
        return options->serial.items[index];
    if (index == 0 && options->serial.count == 0 && !has_virtio_console(options) &&
        !run_has_curses(&options->display) && strncmp(options->debugcon, "stdio", 5) != 0)
        return "stdio";
    return "null";
}

static struct chardev *open_chardev(struct run *run, const char *option, const char *text,
                                    struct error *err)
{
    struct chardev *chardev = chardev_open(run->loop, text, err);

    if (!chardev)
        error_prefix(err, "--%s %s: ", option, text);
    else
        chardev_set_console(chardev, &run->console);
    return chardev;
}

static void quit(void *opaque)
{
    machine_request_stop(((struct run *)opaque)->machine, STOP_HOST, 0);
}

static void set_up_console(struct run *run)
{
    run->console = (struct chardev_console){.quit = quit, .opaque = run};
    if (!run->options.monitor)
        return;
    snprintf(run->monitor_hint, sizeof(run->monitor_hint),
             "From another terminal: trapeze monitor %s help", run->options.monitor);
    run->console.monitor_hint = run->monitor_hint;
}

static int open_chardevs(struct run *run, struct error *err)
{
    set_up_console(run);
    for (unsigned i = 0; i < MAX_SERIAL; i++) {
        run->serial[i] = open_chardev(run, "serial", serial_text(&run->options, i), err);
        if (!run->serial[i])
            return -EINVAL;
    }
    if (has_virtio_console(&run->options)) {
        run->virtio_console = open_chardev(run, "console", "stdio", err);
        if (!run->virtio_console)
            return -EINVAL;
    }
    run->debug_console = open_chardev(run, "debugcon", run->options.debugcon, err);
    return run->debug_console ? 0 : -EINVAL;
}

/* ---- signals ---- */

static void read_signal(void *opaque, unsigned events)
{
    struct run *run = opaque;
    struct signalfd_siginfo info;

    (void)events;
    if (read(run->signal_fd, &info, sizeof(info)) != sizeof(info))
        return;
    if (info.ssi_signo == SIGWINCH) {
        if (run->virtio_console)
            chardev_notify_resized(run->virtio_console);
        return;
    }
    log_info("stopping: SIG%s", sigabbrev_np((int)info.ssi_signo));
    pthread_sigmask(SIG_SETMASK, &run->old_signals, NULL); /* another one ends the process */
    machine_request_stop(run->machine, STOP_HOST, 128 + (int)info.ssi_signo);
}

/* Before any thread starts, so that all of them inherit the mask. */
static int block_signals(struct run *run, struct error *err)
{
    struct sigaction hang_up;
    sigset_t signals;

    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* an image beyond the limit of a file's size is an I/O error */
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGWINCH);
    if (sigaction(SIGHUP, NULL, &hang_up) == 0 && hang_up.sa_handler != SIG_IGN)
        sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, &run->old_signals);
    run->signal_fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
    if (run->signal_fd < 0)
        return error_set(err, errno, "signalfd: %s", strerror(errno));
    return 0;
}

static int watch_signals(struct run *run, struct error *err)
{
    run->signal_handler = loop_add_fd(run->loop, run->signal_fd, LOOP_READ, read_signal, run, err);
    return run->signal_handler ? 0 : -ENOMEM;
}

/* ---- the machine ---- */

static bool wants_seed(const struct run_options *options)
{
    return options->cloud_init || options->ssh_key.count;
}

static int choose_media(struct run *run, struct error *err)
{
    const struct run_options *options = &run->options;

    run->seed = (struct run_seed){.user_data = options->cloud_init,
                                  .host_name = options->name == default_name ? NULL : options->name,
                                  .ssh_keys = &options->ssh_key};
    run->networks.wants_ssh = options->ssh_key.count > 0;
    run->media = (struct run_media){.kernel = options->kernel,
                                    .firmware = options->firmware,
                                    .disk_texts = &options->disk,
                                    .cd_texts = &options->cdrom,
                                    .floppy_texts = &options->floppy,
                                    .snapshot = options->snapshot,
                                    .seed = wants_seed(options) ? &run->seed : NULL};
    return run_choose_media(&run->media, run->operands.count ? run->operands.items[0] : NULL, err);
}

static int new_machine(struct run *run, struct error *err)
{
    const struct run_options *options = &run->options;
    struct machine_config config = {
        .name = options->name,
        .ram_bytes = options->memory_bytes,
        .vcpu_count = (unsigned)options->cpus,
        .cpu_model = options->cpu,
        .counted = options->counted,
        .no_reboot = options->no_reboot,
        .code_cache_bytes = options->code_cache_bytes,
        .listing = options->listing,
        .perf_map = options->perf_map,
        .stats = options->stats != NULL,
        .start_paused = options->paused,
        .loop = run->loop,
    };

    config.engine = choose_engine(run, err);
    if (!config.engine || wall_start(options, &config.wall_start_ns, err))
        return -EINVAL;
    run->machine = machine_new(&config, err);
    if (!run->machine)
        return -EINVAL;
    input_set_layout(machine_input(run->machine), run->layout);
    return 0;
}

static bool wants_smm(const struct run *run)
{
    const char *smm = run->options.smm;

    return strcmp(smm, "auto") == 0 ? run->media.smm : strcmp(smm, "on") == 0;
}

static int build_board(struct run *run, struct error *err)
{
    uint8_t uuid[16];
    struct pc_config config = {
        .debug_console = run->debug_console,
        .audio = run->audio,
        .kernel = run->media.kernel,
        .kernel_entry = run_parse_entry(run->options.kernel_entry),
        .append = run->options.append,
        .initrds = run->initrds.items,
        .initrd_count = run->initrds.count,
        .firmware = run->media.firmware,
        .variables = run->media.variables,
        .variables_file = run->media.variables_file,
        .smm = wants_smm(run),
        .has_vga = run_has_vga(run->options.vga, &run->options.device, vga_is_default(run)),
        .has_floppy = run_has_floppy(&run->media),
        .serial_number = run->options.serial_number,
    };

    if (run->options.uuid) {
        if (run_parse_uuid(run->options.uuid, uuid, err))
            return -EINVAL;
        config.uuid = uuid;
    }
    memcpy(config.serial, run->serial, sizeof(config.serial));
    return pc_build(run->machine, &config, err);
}

/* The machine runs without, too, as another one of this name may do already. */
static void listen_by_name(struct run *run)
{
    char path[MACHINE_PATH_BYTES];
    struct error err = {0};

    if (machines_path(run->options.name, path, &err) || monitor_listen(run->monitor, path, &err))
        log_warn("the machine cannot be reached by its name: %s", err.text);
}

static int open_control(struct run *run, struct error *err)
{
    bool has_name = run->options.name != default_name;

    if (run->options.monitor || run->options.web || has_name) {
        run->monitor = monitor_new(run->machine, run->options.monitor, err);
        if (!run->monitor) {
            if (run->options.monitor)
                error_prefix(err, "--monitor %s: ", run->options.monitor);
            return -EINVAL;
        }
        offer_hotplug(run);
    }
    if (has_name)
        listen_by_name(run);
    if (run->options.gdb) {
        run->gdbstub = gdbstub_new(run->machine, run->options.gdb, err);
        if (!run->gdbstub) {
            error_prefix(err, "--gdb %s: ", run->options.gdb);
            return -EINVAL;
        }
    }
    return 0;
}

static int set_timers(struct run *run, struct error *err)
{
    const struct run_options *options = &run->options;

    if (options->digest) {
        run->digest = digest_new(run->machine, options->digest, options->digest_from, err);
        if (!run->digest)
            return -ENOMEM;
    }
    if (options->pause_at) {
        run->pause_at = digest_pause_at(run->machine, options->pause_at, err);
        if (!run->pause_at)
            return -ENOMEM;
    }
    return 0;
}

static int set_up_logs(const struct run_options *options, struct error *err)
{
    run_set_log_level(options->log_level);
    if (options->trace_file && trace_open(options->trace_file, err)) {
        error_prefix(err, "--trace-file: ");
        return -EINVAL;
    }
    if (options->trace && trace_enable(options->trace, err)) {
        error_prefix(err, "--trace: ");
        return -EINVAL;
    }
    return 0;
}

/* Are there sockets or links that go when the machine does? */
static bool has_names(const struct run_options *options)
{
    bool has = options->monitor || options->name != default_name || options->gdb ||
               run_has_display(&options->display) || strchr(options->debugcon, '=') ||
               options->port.count || options->vsock;

    for (size_t i = 0; i < options->serial.count; i++)
        has |= strchr(options->serial.items[i], '=') != NULL;
    for (size_t i = 0; i < options->net.count; i++)
        has |= strstr(options->net.items[i], "listen=") != NULL;
    return has;
}

static bool is_sandboxed(const struct run_options *options)
{
    return strcmp(options->sandbox, "off") != 0;
}

/* A user network that comes later needs its rights now. */
static bool is_pluggable(const struct run_options *options)
{
    return options->hotplug && (options->monitor || options->name != default_name);
}

static int drop_rights(const struct run *run, struct error *err)
{
    unsigned rights =
        (has_names(&run->options) ? HOST_MAY_REMOVE : 0) |
        (run_networks_connect(&run->networks) ? HOST_MAY_CONNECT : 0) |
        (run->networks.reads_files ? HOST_MAY_READ : 0) |
        (is_pluggable(&run->options) ? HOST_MAY_CONNECT : 0) |
        (run_media_connects(&run->media) ? HOST_MAY_CONNECT | HOST_MAY_CONNECT_LOCAL | HOST_MAY_READ
                                         : 0) |
        (run_media_submits(&run->media) ? HOST_MAY_SUBMIT : 0) | (run->web ? HOST_MAY_PAIR : 0);

    return is_sandboxed(&run->options) ? host_sandbox(rights, err) : 0;
}

static int start(struct run *run, struct error *err)
{
    if (block_signals(run, err) ||
        run_open_shares(&run->shares, &run->options.share, is_sandboxed(&run->options), err) ||
        run_open_vsock(&run->vsock, run->options.vsock, is_sandboxed(&run->options), err) ||
        run_start_displays(&run->displays, &run->options.display, run->options.name, err))
        return -EINVAL;
    run->card_seed = machine_seed(run);
    run->loop = loop_new(err);
    if (!run->loop || watch_signals(run, err) || new_machine(run, err) || open_chardevs(run, err))
        return -EINVAL;
    if (run->options.audio && !(run->audio = run_open_audio(run->options.audio, err)))
        return -EINVAL;
    if (run_open_variables(&run->media, run->loop, run->options.nvram, err) ||
        build_board(run, err) || add_ports(run, err) ||
        run_add_disks(&run->media, run->machine, err) || add_networks(run, err) ||
        run_add_shares(&run->shares, run->machine, err) ||
        run_add_vsock(run->vsock, run->machine, run->options.vsock, err) || add_devices(run, err) ||
        run_set_boot_order(run->machine, run->options.boot, err) || open_control(run, err) ||
        set_timers(run, err))
        return -EINVAL;
    if (run_open_displays(&run->displays, run->machine, &run->options.display, &run->console,
                          err) ||
        run_open_web(&run->web, run->machine, run->monitor,
                     run->virtio_console ? run->virtio_console : run->serial[0], run->options.web,
                     err))
        return -EINVAL;
    if (run->monitor)
        monitor_set_viewers(run->monitor, run->displays.vnc ? run->displays.vnc_place : NULL,
                            run->web ? web_url(run->web) : NULL);
    log_info("engine %s%s", machine_config(run->machine)->engine->name, run->engine_note);
    if (is_pluggable(&run->options))
        run_know_name_servers(run->loop);
    if (drop_rights(run, err))
        return -EPERM;
    return machine_start(run->machine, err);
}

static void take_down(struct run *run)
{
    digest_free(run->digest);
    digest_free(run->pause_at);
    run_free_displays(&run->displays);
    web_free(run->web);
    machine_free(run->machine);
    gdbstub_free(run->gdbstub);
    monitor_free(run->monitor);
    for (unsigned i = 0; i < MAX_SERIAL; i++)
        chardev_free(run->serial[i]);
    audio_free(run->audio);
    key_layout_free(run->layout);
    chardev_free(run->debug_console);
    chardev_free(run->virtio_console);
    run_free_serial_ports(&run->serial_ports);
    run_free_hotplug(&run->hotplug);
    run_free_media(&run->media);
    run_free_networks(&run->networks);
    run_free_shares(&run->shares);
    vsock_free(run->vsock);
    loop_remove_fd(run->signal_handler);
    if (run->loop)
        loop_free(run->loop);
    if (run->signal_fd >= 0) {
        close(run->signal_fd);
        pthread_sigmask(SIG_SETMASK, &run->old_signals, NULL);
    }
    for (size_t i = 0; i < run->initrd_copies.count; i++)
        free((char *)run->initrd_copies.items[i]);
    cli_texts_free(&run->initrd_copies);
    cli_texts_free(&run->initrds);
    for (size_t i = 0; i < run->config_words.count; i++)
        free((char *)run->config_words.items[i]);
    cli_texts_free(&run->config_words);
    cli_texts_free(&run->operands);
    cli_options_free(cli_run_options, &run->options);
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
    return wall_start(options, &wall_ns, err);
}

/* What only the command line can get wrong: exit status 2. */
static int check_options(struct run *run, struct error *err)
{
    const struct run_options *options = &run->options;

    if (options->serial.count > MAX_SERIAL)
        return error_set(err, EINVAL, "there are %d serial ports, and --serial is given %zu times",
                         MAX_SERIAL, options->serial.count);
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
        !options->floppy.count && !run->operands.count)
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
    if (key_layout_open(options->keyboard_layout, &run->layout, err)) {
        error_prefix(err, "--keyboard-layout: ");
        return -EINVAL;
    }
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

/* What would be run, with what was chosen for what was left open. */
static int print_config(struct run *run, struct error *err)
{
    struct run_options *options = &run->options;
    const struct engine_ops *engine = choose_engine(run, err);

    if (!engine)
        return -ENOTSUP;
    options->engine = engine->name;
    options->firmware = run->media.firmware_name;
    options->balloon = wants_balloon(run) ? "on" : "off";
    options->usb = wants_usb(run) ? "on" : "off";
    options->clipboard = wants_clipboard(run) ? "on" : "off";
    if (!options->vga)
        options->vga = wants_vga(run) ? "std" : "none";
    if (run_default_network(&options->net, &options->publish, !run->media.kernel) &&
        cli_texts_add(&options->net, "user", err))
        return -ENOMEM;
    return cli_config_print(stdout, cli_run_options, options,
                            run->operands.count ? run->operands.items[0] : NULL, err);
}

static int run_machine(struct run *run, const struct cli_verb *verb)
{
    struct error err = {0};
    int status;

    if (run_answer_device_help(&run->options.device))
        return CLI_DONE;
    if (check_options(run, &err) || set_up_logs(&run->options, &err))
        return cli_misused(verb, &err);
    if (choose_media(run, &err) || split_initrds(run, &err))
        return cli_failed(verb, &err);
    if (run->options.dry_run)
        return print_config(run, &err) ? cli_failed(verb, &err) : CLI_DONE;
    if (start(run, &err))
        return cli_failed(verb, &err);
    status = machine_main(run->machine);
    if (run->options.stats)
        run_print_stats(run->machine, run->options.stats);
    log_debug("stopped: %s, status %d", stop_reason_name(machine_stop_reason(run->machine)),
              status);
    return status;
}

/* Once more, with the words of --config in front. */
static int parse_with_config(struct run *run, const struct cli_verb *verb, char **words,
                             struct error *err)
{
    struct cli_texts all = {0};
    int result = cli_config_read(run->options.config, verb->options, run->operands.count > 0,
                                 &run->config_words, err);

    for (size_t i = 0; !result && i < run->config_words.count; i++)
        result = cli_texts_add(&all, run->config_words.items[i], err);
    for (char **word = words; !result && *word; word++)
        result = cli_texts_add(&all, *word, err);
    if (!result)
        result = cli_texts_add(&all, NULL, err);
    if (!result) {
        cli_texts_free(&run->operands);
        cli_options_free(verb->options, &run->options);
        result = cli_parse(verb, &run->options, (char **)all.items, &run->operands, err);
    }
    cli_texts_free(&all);
    return result;
}

int cli_run_run(const struct cli_verb *verb, char **words)
{
    struct run run = {.signal_fd = -1, .displays.window_socket = -1};
    struct error err = {0};
    int parsed = cli_parse(verb, &run.options, words, &run.operands, &err);
    int status;

    if (parsed == 0 && run.options.config)
        parsed = parse_with_config(&run, verb, words, &err);
    if (parsed == 0)
        status = run_machine(&run, verb);
    else
        status = parsed == CLI_ANSWERED ? CLI_DONE : cli_misused(verb, &err);
    take_down(&run);
    return status;
}

#define AT(field) .offset = offsetof(struct run_options, field)

const struct cli_option cli_run_options[] = {
    {"What to run", .kind = CLI_HEADING},
    {"kernel", 'k', CLI_TEXT, AT(kernel), "FILE", .file = true,
     .help =
         "start this kernel: a Linux bzImage, an ELF file with a PVH note, or a multiboot file"},
    {"initrd", 'i', CLI_TEXTS, AT(initrd), "FILE[,FILE]...", .file = true,
     .help = "initial RAM disks for Linux (put one behind the other) or modules for multiboot and "
             "PVH; ',,' stands for a comma; may be repeated"},
    {"append", 'a', CLI_TEXT, AT(append), "TEXT", .help = "command line of the kernel"},
    {"kernel-entry", 0, CLI_TEXT, AT(kernel_entry), "32|64", .initial = "auto",
     .choices = run_entry_choices, .only_choices = true, .help = "how a Linux bzImage is entered"},
    {"firmware", 'f', CLI_TEXT, AT(firmware), "bios|uefi|uefi-secure|FILE", .file = true,
     .choices = run_firmware_choices,
     .help = "what is entered at reset: SeaBIOS, OVMF, OVMF with Secure Boot, or a ROM image that "
             "ends at 4 GiB (default: "
             "bios if there is a disk, a CD or a floppy and no kernel)"},
    {"nvram", 0, CLI_TEXT, AT(nvram), "FILE", .file = true,
     .help = "keep UEFI's variables there; made if it is not there yet (default: they are "
             "forgotten)"},

    {"The machine", .kind = CLI_HEADING},
    {"smm", 0, CLI_TEXT, AT(smm), "on|off", .initial = "auto", .choices = run_smm_choices,
     .only_choices = true,
     .help = "System Management Mode; auto: if --firmware is one that needs it"},
    {"config", 0, CLI_TEXT, AT(config), "FILE", .file = true, .is_no_config = true,
     .help = "take options from this JSON file, as --dry-run prints it; those of the command line "
             "win, or are added"},
    {"dry-run", .kind = CLI_FLAG, AT(dry_run), .is_no_config = true,
     .help = "print the machine as JSON, with what was chosen for it, and run nothing"},
    {"name", 'n', CLI_TEXT, AT(name), "NAME", .initial = default_name,
     .help =
         "name of the machine, by which 'trapeze list', 'trapeze open NAME' and all that take a "
         "SOCKET find it while it runs"},
    {"memory", 'm', CLI_SIZE, AT(memory_bytes), "SIZE", .initial = "512M", .min = 1ull << 20,
     .max = 1ull << 39, .help = "RAM; K, M, G or T may follow the number, and M is assumed"},
    {"cpus", 'c', CLI_NUMBER, AT(cpus), "N", .initial = "1", .min = 1, .max = MACHINE_MAX_VCPUS,
     .help = "processors, up to 16"},
    {"cpu", 0, CLI_TEXT, AT(cpu), "MODEL[,+F,-F]", .initial = "max", .choices = cli_cpu_choices,
     .help = "processor model, with features added or taken away"},
    {"engine", 'e', CLI_TEXT, AT(engine), "NAME", .initial = "auto", .choices = cli_engine_choices,
     .only_choices = true, .help = "what executes instructions"},
    {"rng", .kind = CLI_FLAG, AT(rng),
     .help = "random bytes of the host for the guest: a virtio entropy device"},
    {"balloon", 0, CLI_TEXT, AT(balloon), "on|off", .choices = run_balloon_choices,
     .only_choices = true,
     .help = "a virtio memory balloon: what the guest frees goes back to the host, and 'trapeze "
             "balloon' can take more (default: on if the guest boots from firmware, else off; "
             "--device virtio-balloon is one with properties)"},
    {"device", 'd', CLI_TEXTS, AT(device), "NAME[,P=VALUE]...", .choices = cli_device_choices,
     .help = "add a device, with properties; 'NAME,help' lists these; may be repeated"},
    {"disk", 'D', CLI_TEXTS, AT(disk), "FILE[,P=VALUE]...", .file = true,
     .help =
         "a disk: an image, a block device or the URI of an NBD server; if=virtio, nvme, ahci, "
         "ide, scsi, usb (or "
         "virtio-mmio: without PCI) is how the guest sees it, transitional=on lets old virtio "
         "drivers use it, serial=TEXT its number, bootindex=N its place before all that have a "
         "higher one, or none, when firmware looks for a system, format=raw, qcow2... "
         "what FILE is (default: found out), "
         "readonly=on leaves FILE as it is, snapshot=on forgets what is written, discard=off "
         "keeps room that the guest gives back, lock=off shares FILE, aio=threads reads it without "
         "io_uring, cache=none goes past the host's page cache, writethrough makes each write "
         "safe, unsafe ignores flushes: a host that stops destroys the disk, throttle.iops=N and "
         "bps=N (and iops_rd, iops_wr, bps_rd, bps_wr) bound requests and bytes a second; ',,' "
         "stands for a comma; may be repeated"},
    {"cdrom", 0, CLI_TEXTS, AT(cdrom), "FILE[,P=VALUE]...", .file = true,
     .help = "a CD or DVD in a drive: an ISO image, or none ('trapeze media insert' puts one in); "
             "if=ahci or ide is how the guest sees the drive, "
             "serial=TEXT and bootindex=N as those of a disk; ',,' stands for a comma; may be "
             "repeated"},
    {"floppy", 0, CLI_TEXTS, AT(floppy), "FILE[,P=VALUE]...", .file = true,
     .help = "a floppy drive with a disk: an image of 160K to 2.88M, or none ('trapeze media "
             "insert' puts one in); type=360K, 720K, 1.2M, 1.44M or 2.88M is the drive (default: "
             "as the disk wants it), readonly=on protects the disk, bootindex=N, snapshot=on and "
             "format= as those of a disk; ',,' stands for a comma; two can be given"},
    {"boot", 'b', CLI_TEXT, AT(boot), "KIND[,KIND]...", .choices = run_boot_choices,
     .help = "where firmware looks for a system, in this order (default: "
             "disk,cdrom,floppy,network; what "
             "is not named comes last)"},
    {"snapshot", .kind = CLI_FLAG, AT(snapshot),
     .help = "write to no disk image: changes go to nameless files in $TMPDIR (or /var/tmp), and "
             "are gone at the end"},
    {"net", 'N', CLI_TEXTS, AT(net), "KIND[,P=VALUE]...", .choices = run_net_choices,
     .help =
         "a network card and what it is connected to; model=virtio, virtio-mmio (without PCI) "
         "or e1000 is what the guest sees, transitional=on lets old virtio drivers use it, "
         "mac=ADDRESS its address (default: made of the machine's name and disks; without disks "
         "or --uuid a new one at each start), queues=N and mtu=N more of "
         "a virtio card, romfile=FILE "
         "its boot ROM (default: iPXE of the package ipxe-qemu if there is nothing else to "
         "start from); tftp=FOLDER,bootfile=NAME of user is what a card boots; vlan=N or "
         "trunk=LIST of "
         "switch=NAME is the port, see 'trapeze help switch run' (default: user "
         "if the guest boots from firmware and libslirp was there when trapeze was built, else "
         "none); may be repeated"},
    {"hotplug", 0, CLI_NUMBER, AT(hotplug), "N", .initial = "0", .max = RUN_MAX_PORTS,
     .help =
         "slots for disks and network cards that come and go while the machine runs ('trapeze "
         "device add', which needs --monitor), up to 16. The sandbox then lets the machine make "
         "connections, as with a user network"},
    {"publish", 'p', CLI_TEXTS, AT(publish), "[HOST:]PORT:GUESTPORT[/udp]",
     .help = "lead a port of the host to the guest, on the first network, which is user; HOST is "
             "127.0.0.1 unless said; may be repeated"},
    {"cloud-init", 0, CLI_TEXT, AT(cloud_init), "FILE", .file = true,
     .help =
         "user data for cloud-init in the guest (#cloud-config ..., or a script), on a disk that "
         "is made for it (NoCloud); --name is the guest's host name"},
    {"ssh-key", 0, CLI_TEXTS, AT(ssh_key), "FILE", .file = true,
     .help = "public keys that may log in, as cloud-init in the guest is told; a port of the host "
             "leads to its SSH server (the first that is free from 2222 on, unless --publish says "
             "otherwise); may be repeated"},
    {"share", 0, CLI_TEXTS, AT(share), "DIR[,P=VALUE]...", .file = true,
     .help =
         "let the guest mount this folder of the host: mount -t 9p -o "
         "trans=virtio,version=9p2000.L,msize=512000 TAG /mnt; tag=NAME is its TAG (default: "
         "share, then share2 and so on), readonly=on leaves the folder as it is; what the guest "
         "makes belongs to who runs trapeze; ',,' stands for a comma; may be repeated"},
    {"vsock", 0, CLI_TEXT, AT(vsock), "CID,PATH",
     .help =
         "virtio sockets (AF_VSOCK) between programs of the guest, whose address is CID (3 or "
         "more), and of the host: who connects to the unix socket PATH and writes 'CONNECT PORT' "
         "and a newline reaches the guest's port; what the guest connects to at CID 2 is "
         "PATH_PORT"},
    {"rtc", 0, CLI_TEXT, AT(rtc), "TIME",
     .help = "time of day at the start: now, 2024-01-31T12:00:00 (UTC) or @SECONDS since 1970 "
             "(default: now; 2024-01-01T00:00:00 with --counted)"},
    {"uuid", 0, CLI_TEXT, AT(uuid), "UUID",
     .help = "what the machine tells the guest as its own (SMBIOS; default: nothing)"},
    {"serial-number", 0, CLI_TEXT, AT(serial_number), "TEXT",
     .help = "the same for its serial number, up to 63 characters"},
    {"counted", 0, CLI_FLAG, AT(counted),
     .help = "guest time is the number of executed instructions, one nanosecond each, so that two "
             "runs are identical; one processor only"},
    {"stats", 0, CLI_OPTIONAL, AT(stats), "text|json", .implied = "text", .takes = is_stats_form,
     .choices = run_stats_choices, .only_choices = true,
     .help = "print what the engine has counted and where its time went, at the end, to standard "
             "error"},
    {"code-cache", 0, CLI_SIZE, AT(code_cache_bytes), "SIZE", .min = 2ull << 20,
     .max = 1536ull << 20,
     .help = "memory for translated code (default: an eighth of RAM, but 160M to 640M; twice that "
             "with several processors)"},
    {"listing", 0, CLI_TEXT, AT(listing), "FILE", .file = true,
     .help = "write each translated block there: guest instructions, and the host's under them"},
    {"perf-map", 0, CLI_FLAG, AT(perf_map),
     .help = "name translated code for perf, in /tmp/perf-PID.map"},
    {"no-reboot", 0, CLI_FLAG, AT(no_reboot),
     .help = "end instead of resetting; a triple fault ends with status 1"},

    {"Consoles", .kind = CLI_HEADING},
    {"console", 0, CLI_TEXT, AT(console), "serial|virtio", .initial = "serial",
     .choices = run_console_choices, .only_choices = true,
     .help = "what has the terminal: the first serial port, or a virtio console, which knows the "
             "size of the window (Linux: console=hvc0); COM1 is null then unless --serial says "
             "otherwise"},
    {"serial", 's', CLI_TEXTS, AT(serial), "BACKEND", .choices = run_chardev_choices,
     .help = "where the serial ports lead, COM1 then COM2: stdio, null, file:path=F, "
             "socket:path=F and others (default: stdio, then null)"},
    {"port", 0, CLI_TEXTS, AT(port), "NAME=unix:PATH",
     .help = "a port of a virtio console, which programs in the guest find by its name "
             "(/dev/virtio-ports/NAME), on a Unix socket or another BACKEND of --serial; the QEMU "
             "guest agent's is org.qemu.guest_agent.0; may be repeated"},
    {"debugcon", 0, CLI_TEXT, AT(debugcon), "BACKEND", .initial = "null",
     .choices = run_chardev_choices,
     .help = "where the debug console at ports 0xe9 and 0x402 leads; with stdio, COM1 is null "
             "unless --serial says otherwise"},

    {"Screen", .kind = CLI_HEADING},
    {"vga", 0, CLI_TEXT, AT(vga), "std|virtio|none[,P=VALUE]...", .choices = run_vga_choices,
     .help =
         "the graphics card: std is a VGA with linear modes up to 32 bits a pixel, memory=N its "
         "MiB, xres=N and yres=N what its monitor likes best; virtio is the same, and a "
         "virtio-gpu, which systems with its driver use, with the cursor drawn by viewers and the "
         "screen as large as they like (default: std if the guest boots from firmware, else none; "
         "--device virtio-gpu is a second one)"},
    {"display", 0, CLI_TEXTS, AT(display), "none|vnc[=ADDRESS][,P=VALUE]...|sdl|curses",
     .choices = run_display_choices,
     .help = "who looks at the screen: vnc lets viewers of VNC connect to ADDRESS, [HOST:]PORT or "
             "unix:PATH (default: the first port of 127.0.0.1 from 5900 on that is free), "
             "password=FILE asks for the first line of FILE, tls-cert=FILE and tls-key=FILE "
             "encrypt; sdl is a window (Ctrl-Alt-F: full screen, Ctrl-Alt-G: keep the keyboard and "
             "pointer, or let go, Ctrl-Alt-U: the guest's own size; closing it asks the guest to "
             "power off, and ends it the second time); curses shows text modes on this terminal, "
             "which COM1 then has not, and Ctrl-A is its escape key (Ctrl-A x leaves, Ctrl-A h "
             "tells more); may be repeated (default: none)"},
    {"web", 0, CLI_OPTIONAL, AT(web), "[HOST:]PORT", .implied = RUN_WEB_ANYWHERE,
     .takes = run_is_web_address,
     .help = "serve a page there (default: the first port of 127.0.0.1 from 8080 on that is free) "
             "with the screen, the console, buttons and statistics; its address, with a secret, is "
             "printed to standard error. The packages novnc and node-xterm have the screen and the "
             "terminal"},
    {"audio", 0, CLI_TEXT, AT(audio), "null|sdl|wav=FILE", .choices = run_audio_choices,
     .help = "a sound card (Intel HD Audio), and where it and the PC speaker are heard: sdl is the "
             "host's own devices, wav=FILE is a file for players, in which the time is left out "
             "when nothing sounds (default: no card, and the speaker is silent)"},
    {"usb", 0, CLI_TEXT, AT(usb), "on|off", .choices = run_usb_choices, .only_choices = true,
     .help =
         "a USB controller (xHCI) with a tablet, which follows the host's pointer, and a keyboard "
         "(default: on if somebody looks at the screen, else off; --device usb-tablet, usb-kbd, "
         "usb-mouse and usb-hub are single ones, --disk FILE,if=usb is a stick)"},
    {"keyboard-layout", 0, CLI_TEXT, AT(keyboard_layout), "LAYOUT[:VARIANT]", .initial = "us",
     .choices = run_layout_choices,
     .help = "what is on the keys of the guest's keyboard, as the guest has been told, for who "
             "types characters: 'trapeze type', viewers of VNC, the terminal of --display curses; "
             "named as in X (default: us)"},
    {"clipboard", 0, CLI_TEXT, AT(clipboard), "on|off", .choices = run_clipboard_choices,
     .only_choices = true,
     .help = "what is copied in the guest is there for those who look at the screen, and the other "
             "way round, as text; the guest needs the package spice-vdagent (default: on if "
             "somebody looks at the screen, else off)"},

    {"Control", .kind = CLI_HEADING},
    {"monitor", 'M', CLI_TEXT, AT(monitor), "SOCKET", .file = true,
     .help = "listen on this unix socket for 'trapeze monitor' and 'trapeze inspect'"},
    {"gdb", 'g', CLI_OPTIONAL, AT(gdb), "ADDRESS", .implied = "localhost:1234",
     .takes = is_debug_address,
     .help = "listen for gdb on [HOST:]PORT or unix:PATH (default: localhost:1234)"},
    {"paused", 'S', CLI_FLAG, AT(paused),
     .help = "stand still before the first instruction, until gdb or the monitor lets go"},
    {"pause-at", 0, CLI_NUMBER, AT(pause_at), "NS", .initial = "0", .max = UINT64_MAX,
     .help = "pause when guest time is this; with --counted at that very instruction"},

    {"sandbox", 0, CLI_TEXT, AT(sandbox), "on|off", .initial = "on", .choices = run_sandbox_choices,
     .only_choices = true,
     .help = "give up what a running machine does not need of the kernel: opening files, starting "
             "programs, connecting, making memory executable"},

    {"Messages", .kind = CLI_HEADING},
    {"log-level", 'l', CLI_TEXT, AT(log_level), "LEVEL", .initial = "info",
     .choices = cli_log_level_choices, .only_choices = true,
     .help = "how much is said on standard error"},
    {"trace", 't', CLI_TEXT, AT(trace), "EVENTS", .choices = cli_trace_choices,
     .help = "trace events by name or pattern, separated by commas; -NAME switches off: "
             "'port_*,timer_fire,-port_read'"},
    {"trace-file", 0, CLI_TEXT, AT(trace_file), "FILE", .file = true,
     .help = "write traces to FILE instead of standard error"},
    {"digest", 0, CLI_NUMBER, AT(digest), "NS", .initial = "0", .max = UINT64_MAX,
     .help = "with --counted: every NS of guest time there are the events cpu_digest and "
             "machine_digest to trace, which tell whether two runs are the same"},
    {"digest-from", 0, CLI_NUMBER, AT(digest_from), "NS", .initial = "0", .max = UINT64_MAX,
     .help = "guest time of the first digest"},
    {.kind = CLI_END},
};
