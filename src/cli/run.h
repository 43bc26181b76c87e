/*
 * run.h - what the files of trapeze run share
 */
#ifndef CLI_RUN_H
#define CLI_RUN_H

#include "backends/display/window.h"
#include "cli/cli.h"
#include "machine/pc.h"

struct audio;
struct block;
struct chardev;
struct chardev_console;
struct curses;
struct device;
struct loop;
struct machine;
struct monitor;
struct net;
struct share;
struct vnc;
struct vsock;
struct web;

/* ---- run_values.c: choices are for cli_option.choices ---- */

void run_stats_choices(cli_put_choice *put, void *opaque);
void run_sandbox_choices(cli_put_choice *put, void *opaque);
void run_balloon_choices(cli_put_choice *put, void *opaque);
void run_console_choices(cli_put_choice *put, void *opaque);
void run_smm_choices(cli_put_choice *put, void *opaque);
void run_entry_choices(cli_put_choice *put, void *opaque);
void run_chardev_choices(cli_put_choice *put, void *opaque);
enum pc_entry run_parse_entry(const char *text);
void run_set_log_level(const char *name);
/* "now", "@SECONDS" or "2024-01-31T12:00:00" (UTC) to nanoseconds since 1970; 0 is now. */
int run_parse_rtc(const char *text, uint64_t *out_wall_ns, struct error *err);
/* "123e4567-e89b-12d3-a456-426614174000" */
int run_parse_uuid(const char *text, uint8_t out[16], struct error *err);

/* ---- run_engine.c ---- */

/* "auto": the first that can run here; the note says what was passed over. NULL with err. */
const struct engine_ops *run_choose_engine(const char *name, bool counted, char *note,
                                           size_t note_size, struct error *err);
/* What the processors counted, on standard error; form "text" or "json". They do not run. */
void run_print_stats(struct machine *machine, const char *form);

/* ---- run_device.c ---- */

/* The class that a device's description begins with; NULL with err. */
const struct device_class *run_find_class(const char *text, struct error *err);
int run_add_device(struct machine *machine, const char *text, struct error *err);
/* On a USB port of a running machine, until device_free(). NULL with err. */
struct device *run_plug_usb(struct machine *machine, const char *text, struct error *err);
/* As run_hand_over_disk(). *out_text: what the machine is to be told; the caller's to free. */
int run_hand_over_device(const char *text, char **out_text, struct error *err);
/* One of them ends with ",help": its properties were printed. */
bool run_answer_device_help(const struct cli_texts *devices);
/* Take "NAME=VALUE" out of a property list, in place; key is "NAME=". VALUE's copy in out, or NULL.
 */
const char *run_take_property(char *properties, const char *key, char out[32]);
/* The same, of any length. */
const char *run_take_text(char *properties, const char *key, char *out, size_t out_size);

/* -EINVAL: there is no such character backend. */
int run_check_chardev(const char *text, struct error *err);

/* ---- run_console.c ---- */

#define RUN_MAX_SERIAL_PORTS 14

struct run_serial_ports {
    struct chardev *chardevs[RUN_MAX_SERIAL_PORTS];
    size_t count;
};

void run_clipboard_choices(cli_put_choice *put, void *opaque);
/* Words of --port, "NAME=unix:PATH" or "NAME=BACKEND"; and the agent's port. */
int run_add_serial_ports(struct run_serial_ports *ports, struct machine *machine,
                         const struct cli_texts *texts, bool has_clipboard, struct error *err);
int run_check_serial_port(const char *text, struct error *err); /* -EINVAL: it is none */
void run_free_serial_ports(struct run_serial_ports *ports);
/* The terminal hvc0. */
int run_add_console(struct machine *machine, struct chardev *console, struct error *err);

/* ---- run_media.c ---- */

#define RUN_MAX_DISKS    26
#define RUN_MAX_CDS      8
#define RUN_MAX_FLOPPIES 2

/* What the machine starts from. The first five are set by the caller. */
struct run_media {
    const char *kernel, *firmware; /* given, then chosen; firmware: a file */
    const char *firmware_name;     /* as --firmware has it; NULL: none */
    bool smm;                      /* the firmware needs System Management Mode */
    const struct cli_texts *disk_texts, *cd_texts, *floppy_texts;
    bool snapshot;               /* no disk is written to */
    const struct run_seed *seed; /* NULL: none */
    /* IMAGE, --disk, --cdrom, --floppy, the seed */
    struct block *disks[RUN_MAX_DISKS + RUN_MAX_CDS + RUN_MAX_FLOPPIES + 2];
    char *image_disk;                  /* IMAGE as --disk has it, if it is one */
    bool image_is_cd, image_is_floppy; /* it is one for --cdrom, --floppy */
    struct block *variables;
    const char *variables_file; /* what they are at first; NULL: the firmware has none */
};

/* IMAGE (NULL: none) is a kernel, a disk or a CD; a disk without a kernel takes firmware. */
int run_choose_media(struct run_media *media, const char *image, struct error *err);
/* UEFI's variables are kept in the file path (NULL: nowhere), which is made when it is not there.
 */
int run_open_variables(struct run_media *media, struct loop *loop, const char *path,
                       struct error *err);
/* Is there a floppy drive? */
bool run_has_floppy(const struct run_media *media);
/* Open all disks, CDs and floppies, IMAGE first and the seed last, and plug them in. */
int run_add_disks(struct run_media *media, struct machine *machine, struct error *err);
/* Does a disk connect to its server again while the machine runs? */
bool run_media_connects(const struct run_media *media);
/* Does the kernel execute requests of a disk? */
bool run_media_submits(const struct run_media *media);
/* Open what a machine would for a disk, a CD or a floppy, for host_record() (host/given.h), and
 * close it. */
int run_hand_over_disk(const char *text, struct error *err);
int run_hand_over_cd(const char *text, struct error *err);
int run_hand_over_floppy(const char *text, struct error *err);
/*
 * Attach one while the machine runs, at a place on the PCI bus. NULL with err. *out_disk is where
 * its block device is kept; who takes the disk out frees that, and sets it to NULL.
 */
struct device *run_plug_disk(struct run_media *media, struct machine *machine, const char *text,
                             const char *place, struct block ***out_disk, struct error *err);
/* As ata_cd_change() or floppy_change(), with an image as in --cdrom or --floppy; NULL: none. */
int run_change_medium(struct run_media *media, struct device *drive, const char *text,
                      bool by_force, bool *out_asked, struct error *err);
void run_free_media(struct run_media *media); /* also if nothing was chosen */
void run_firmware_choices(cli_put_choice *put, void *opaque);

/* ---- run_boot.c ---- */

/* What is left alone has its place from "bootindex=N", or from the order of kinds. */
enum run_boot_kind {
    RUN_BOOT_DISK,
    RUN_BOOT_CD,
    RUN_BOOT_FLOPPY,
    RUN_BOOT_NETWORK,
    RUN_BOOT_KINDS
};

/* text NULL: not given. -EINVAL: it is no number. */
int run_set_boot_index(struct device *dev, enum run_boot_kind kind, const char *text,
                       struct error *err);
/* Words of --boot, "cdrom,disk"; what is not named comes last. NULL: the usual order. */
int run_set_boot_order(struct machine *machine, const char *order, struct error *err);
int run_check_boot(const char *order, struct error *err); /* -EINVAL: there is no such kind */
void run_boot_choices(cli_put_choice *put, void *opaque);

/* ---- run_display.c ---- */

void run_vga_choices(cli_put_choice *put, void *opaque);
void run_display_choices(cli_put_choice *put, void *opaque);
/* vga is "std[,P=VALUE]...", "virtio[,P=VALUE]..." or "none"; NULL: not given, then there is one if
 * is_default. */
int run_check_vga(const char *vga, struct error *err); /* -EINVAL: no such card */
/* Is there one, also by --device? */
bool run_has_vga(const char *vga, const struct cli_texts *devices, bool is_default);
int run_add_vga(struct machine *machine, const char *vga, struct error *err);

/* Who looks at the screen, of one kind each; NULL: nobody. */
struct run_displays {
    struct vnc *vnc;
    struct curses *curses;
    struct windows windows;
    int window_socket;   /* of the one that was started; -1: none */
    char vnc_place[192]; /* as viewers of VNC take it; empty: none */
};

/* Words of --display: "none", "vnc[=ADDRESS][,P=VALUE]...", "sdl", "curses". -EINVAL: no such
 * display. */
int run_check_displays(const struct cli_texts *displays, struct error *err);
bool run_has_display(const struct cli_texts *displays); /* anything but none */
/* Can nobody on other hosts reach it? An address of stream_listen(). */
bool run_is_loopback(const char *address);
bool run_has_curses(const struct cli_texts *displays); /* it has the terminal */
/* Programs of their own, before there are threads. name is the machine's. */
int run_start_displays(struct run_displays *out, const struct cli_texts *displays, const char *name,
                       struct error *err);
bool run_has_pointer(const struct cli_texts *displays); /* somebody may point at the screen */
/* console hears that the person at the terminal wants to leave. */
int run_open_displays(struct run_displays *out, struct machine *machine,
                      const struct cli_texts *displays, const struct chardev_console *console,
                      struct error *err);
void run_free_displays(struct run_displays *displays); /* before the machine */

/* ---- run_window.c ---- */

/* This process shows a machine's window from here on; returns only if it cannot. */
int run_become_window(int socket, const char *name, bool may_end, struct error *err);
/* A process that does so, whose closing ends the machine. Returns its socket. */
int run_start_window(const char *name, struct error *err);
/* A socket to the program that plays sound (trapeze-sound), for audio_open(). -errno. */
int run_start_player(struct error *err);

/* ---- run_usb.c ---- */

void run_layout_choices(cli_put_choice *put, void *opaque); /* some of them */
void run_usb_choices(cli_put_choice *put, void *opaque);
/* Does a device of this class sit on USB? */
bool run_is_usb(const char *class_name);
/* What has to be there before devices: --usb as it was written; xHCI can come later. */
int run_add_usb_controllers(struct machine *machine, const char *name, struct error *err);
/* There is a controller, or one of xHCI is added. */
int run_need_usb(struct machine *machine, struct error *err);
/* A tablet and a keyboard. */
int run_add_usb(struct machine *machine, struct error *err);

/* ---- run_audio.c ---- */

void run_audio_choices(cli_put_choice *put, void *opaque);
/* For audio_free(), behind the machine. NULL with err. */
struct audio *run_open_audio(const char *text, struct error *err);
/* A sound card. */
int run_add_sound(struct machine *machine, struct audio *audio, struct error *err);

/* ---- run_seed.c ---- */

/* What cloud-init in the guest is told. */
struct run_seed {
    const char *user_data;            /* a file; NULL: nothing */
    const char *host_name;            /* NULL: the guest chooses */
    const struct cli_texts *ssh_keys; /* files of public keys */
};

/* A descriptor of the disk that tells it, a raw image; the caller closes it. -errno with err. */
int run_make_seed(const struct run_seed *seed, struct error *err);

#define RUN_USER_BYTES 33u
/*
 * Whom cloud-init makes: whom user-data names, or the one that the system is known for which the
 * name of its disk (FILE[,P=V]..., or NULL) has in it. "": nobody knows.
 */
void run_find_user(const struct run_seed *seed, const char *disk, char out[RUN_USER_BYTES]);

/* ---- run_net.c ---- */

#define RUN_MAX_NETS 8

struct run_networks {
    struct net *nets[RUN_MAX_NETS];
    size_t count;
    /* Set by the caller. */
    bool wants_ssh;                /* a port of the host leads to the guest's 22 */
    char ssh_user[RUN_USER_BYTES]; /* who logs in there; "": not known */
    bool reads_files;              /* while the machine runs */
};

struct run_network_options {
    const char *name; /* the machine's */
    const struct cli_texts *net, *publish;
    bool is_default; /* without --net there is user networking, if it is possible */
    bool boots;      /* there is nothing else to start from: cards get their boot ROM */
    uint64_t seed;   /* what the cards' addresses are made of */
};

/* Cards of --net with their backends, and ports of --publish. */
int run_add_networks(struct run_networks *networks, struct machine *machine,
                     const struct run_network_options *options, struct error *err);
/* Does a machine with these options get a user network? is_default as above. */
bool run_default_network(const struct cli_texts *net, const struct cli_texts *publish,
                         bool is_default);
/* As those of disks. */
int run_hand_over_network(const char *text, struct error *err);
struct device *run_plug_card(struct run_networks *networks, struct machine *machine,
                             const char *text, const struct run_network_options *options,
                             const char *place, struct net ***out_net, struct error *err);
/* User networks that come when no file can be opened any more use the name servers of now. */
void run_know_name_servers(struct loop *loop);
bool run_networks_connect(const struct run_networks *networks);
void run_free_networks(struct run_networks *networks);
void run_net_choices(cli_put_choice *put, void *opaque);
/* -EINVAL: no such kind. */
int run_check_net(const char *text, struct error *err);

/* ---- run_share.c ---- */

#define RUN_MAX_SHARES 16

struct run_shares {
    struct share *shares[RUN_MAX_SHARES];
    size_t count;
};

/* Start the servers of --share, before there are threads. */
int run_open_shares(struct run_shares *shares, const struct cli_texts *texts, bool sandboxed,
                    struct error *err);
/* Plug them in. */
int run_add_shares(struct run_shares *shares, struct machine *machine, struct error *err);
void run_free_shares(struct run_shares *shares);

/* ---- run_web.c ---- */

#define RUN_WEB_ANYWHERE "auto" /* a port of this host that is free */
bool run_is_web_address(const char *word);
int run_check_web(const char *text, struct error *err);
/* text is --web's; NULL: none, and nothing is done. *out is for web_free(). */
int run_open_web(struct web **out, struct machine *machine, struct monitor *monitor,
                 struct chardev *console, const char *text, struct error *err);

/* ---- run_vsock.c ---- */

/* text is "CID,PATH"; NULL: none, and nothing is done. -EINVAL: it is no such thing. */
int run_check_vsock(const char *text, struct error *err);
/* Before there are threads. *out is for vsock_free(). */
int run_open_vsock(struct vsock **out, const char *text, bool sandboxed, struct error *err);
int run_add_vsock(struct vsock *vsock, struct machine *machine, const char *text,
                  struct error *err);

/* ---- run_hotplug.c ---- */

#define RUN_MAX_PORTS 16

struct run_plug;

/* Cards that come and go while the machine runs; all but plugs is set by the caller. */
struct run_hotplug {
    struct machine *machine;
    struct run_media *media;
    struct run_networks *networks;
    struct run_network_options cards; /* name and seed */
    struct monitor *monitor;
    struct run_plug *plugs;
    bool is_allowed; /* --hotplug: the sandbox lets it open files */
};

/* Does --disk TEXT ask for a stick? It needs no slot. */
bool run_is_stick(const char *text);
/* Root ports with a slot each. */
int run_add_ports(struct machine *machine, unsigned count, struct error *err);
/* Let the monitor plug. */
void run_offer_hotplug(struct run_hotplug *hotplug);
void run_free_hotplug(struct run_hotplug *hotplug);

#endif
