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
#include "cli/run_options.h"
#include "control/digest.h"
#include "control/gdbstub.h"
#include "control/monitor.h"
#include "control/web.h"
#include "devices/usb/usb.h"
#include "host/host.h"
#include "host/loop.h"
#include "machine/pc.h"
#include "trapeze/audio.h"
#include "trapeze/chardev.h"
#include "trapeze/device.h"
#include "trapeze/input.h"
#include "trapeze/machine.h"
#include "trapeze/usb_host.h"
#include "trapeze/vsock.h"

#define MAX_INITRDS 64

struct run {
    struct run_options options;
    struct cli_texts operands;
    struct cli_texts config_words; /* of --config */
    struct cli_texts initrds;      /* --initrd split at commas; point into initrd_text */
    struct cli_texts initrd_copies;

    struct loop *loop;
    struct machine *machine;
    struct chardev *serial[PC_SERIAL_COUNT], *debug_console, *virtio_console;
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

static bool is_hub(const char *text)
{
    return strcmp(text, "usb-hub") == 0 || strncmp(text, "usb-hub,", strlen("usb-hub,")) == 0;
}

/* --device: hubs come before disks, which may be on them. */
static int add_named_devices(struct run *run, bool hubs, struct error *err)
{
    for (size_t i = 0; i < run->options.device.count; i++) {
        const char *text = run->options.device.items[i];

        if (is_hub(text) == hubs && run_add_device(run->machine, text, err))
            return -EINVAL;
    }
    return 0;
}

static int add_devices(struct run *run, struct error *err)
{
    if (run->virtio_console && run_add_console(run->machine, run->virtio_console, err))
        return -EINVAL;
    if (run_add_serial_ports(&run->serial_ports, run->machine, &run->options.port,
                             run_wants_clipboard(&run->options), err))
        return -EINVAL;
    if (run_wants_balloon(&run->options, &run->media) &&
        run_add_device(run->machine, "virtio-balloon", err))
        return -EINVAL;
    if (run->options.rng && run_add_device(run->machine, "virtio-rng", err))
        return -EINVAL;
    if (add_named_devices(run, false, err))
        return -EINVAL;
    if (run_wants_usb(&run->options) && run_add_usb(run->machine, err))
        return -EINVAL;
    if (run->audio && run_add_sound(run->machine, run->audio, err))
        return -EINVAL;
    return run_wants_vga(&run->options, &run->media)
               ? run_add_vga(run->machine, run->options.vga, err)
               : 0;
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

static void press_power_button(void *opaque)
{
    pc_press_power_button(((struct run *)opaque)->machine);
}

static void set_up_console(struct run *run)
{
    run->console = (struct chardev_console){
        .quit = quit, .press_power_button = press_power_button, .opaque = run};
    if (!run->options.monitor)
        return;
    snprintf(run->monitor_hint, sizeof(run->monitor_hint),
             "From another terminal: trapeze monitor %s help", run->options.monitor);
    run->console.monitor_hint = run->monitor_hint;
}

static int open_chardevs(struct run *run, struct error *err)
{
    set_up_console(run);
    for (unsigned i = 0; i < PC_SERIAL_COUNT; i++) {
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
                                  .host_name = run_has_name(options) ? options->name : NULL,
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
    if (!config.engine || run_wall_start(options, &config.wall_start_ns, err))
        return -EINVAL;
    run->machine = machine_new(&config, err);
    if (!run->machine)
        return -EINVAL;
    input_set_layout(machine_input(run->machine), run->layout);
    return 0;
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
        .smm = run_wants_smm(&run->options, &run->media),
        .has_vga = run_wants_screen(&run->options, &run->media),
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
    bool has_name = run_has_name(&run->options);

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
    bool has = options->monitor || run_has_name(options) || options->gdb ||
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
    return options->hotplug && (options->monitor || run_has_name(options));
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
        (run->options.usb && run_add_usb_controllers(run->machine, run->options.usb, err)) ||
        add_named_devices(run, true, err) || run_add_disks(&run->media, run->machine, err) ||
        add_networks(run, err) || run_add_shares(&run->shares, run->machine, err) ||
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
    if (run->monitor && usb_find_controller(run->machine))
        usb_host_prepare(run->loop);
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
    usb_host_finish();
    gdbstub_free(run->gdbstub);
    monitor_free(run->monitor);
    for (unsigned i = 0; i < PC_SERIAL_COUNT; i++)
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

static int open_layout(struct run *run, struct error *err)
{
    if (!key_layout_open(run->options.keyboard_layout, &run->layout, err))
        return 0;
    error_prefix(err, "--keyboard-layout: ");
    return -EINVAL;
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
    options->balloon = run_wants_balloon(&run->options, &run->media) ? "on" : "off";
    if (!options->usb)
        options->usb = run_wants_usb(&run->options) ? "on" : "off";
    options->clipboard = run_wants_clipboard(&run->options) ? "on" : "off";
    if (!options->vga)
        options->vga = run_wants_vga(&run->options, &run->media) ? "std" : "none";
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
    if (run_check_options(&run->options, run->operands.count > 0, &err) || open_layout(run, &err) ||
        set_up_logs(&run->options, &err))
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
