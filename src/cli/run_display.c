/*
 * run_display.c - trapeze run --vga and --display: the graphics card, and who looks at its screen
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/display/curses.h"
#include "backends/display/vnc.h"
#include "base/log.h"
#include "cli/run.h"
#include "control/monitor.h"
#include "trapeze/device.h"
#include "trapeze/machine.h"
#include "trapeze/property.h"

/* ROMs are from the package seabios. Without one only UEFI and drivers of systems use the card. */
static const struct card {
    const char *name, *class_name, *rom;
} cards[] = {
    {"std", "vga", "/usr/share/seabios/vgabios-stdvga.bin"},
    {"virtio", "virtio-vga", "/usr/share/seabios/vgabios-virtio.bin"},
};
#define CARD_COUNT (sizeof(cards) / sizeof(cards[0]))

void run_vga_choices(cli_put_choice *put, void *opaque)
{
    put(opaque, "std", "VGA with linear modes (1234:1111)");
    put(opaque, "virtio", "the same, and virtio-gpu for systems that have its driver");
    put(opaque, "none", "no graphics card");
}

void run_layout_choices(cli_put_choice *put, void *opaque)
{
    static const struct {
        const char *name, *summary;
    } layouts[] = {
        {"us", "US"},
        {"gb", "United Kingdom"},
        {"de", "German"},
        {"ch", "Swiss German"},
        {"ch:fr", "Swiss French"},
        {"fr", "French"},
        {"be", "Belgian"},
        {"es", "Spanish"},
        {"latam", "Latin American"},
        {"it", "Italian"},
        {"pt", "Portuguese"},
        {"br", "Brazilian"},
        {"dk", "Danish"},
        {"no", "Norwegian"},
        {"se", "Swedish"},
        {"fi", "Finnish"},
        {"nl", "Dutch"},
        {"pl", "Polish"},
        {"cz", "Czech"},
        {"hu", "Hungarian"},
        {"tr", "Turkish"},
        {"ru", "Russian"},
        {"ua", "Ukrainian"},
        {"gr", "Greek"},
        {"us:intl", "US with dead keys"},
        {"us:dvorak", "Dvorak"},
    };

    for (size_t n = 0; n < sizeof(layouts) / sizeof(layouts[0]); n++)
        put(opaque, layouts[n].name, layouts[n].summary);
}

void run_display_choices(cli_put_choice *put, void *opaque)
{
    put(opaque, "none", "nobody; 'trapeze screenshot' takes pictures");
    put(opaque, "vnc", "viewers of VNC, on the first free port of this host from 5900 on");
    put(opaque, "sdl", "a window on this desktop");
#ifdef HAVE_CURSES
    put(opaque, "curses", "this terminal, for text modes and the keyboard");
#endif
}

struct display_options {
    char *password, *tls_cert, *tls_key;
};

static const struct property vnc_properties[] = {
    PROPERTY_STRING(struct display_options, password, NULL, "file whose first line is it"),
    PROPERTY_STRING(struct display_options, tls_cert, NULL, "PEM file of the certificate"),
    PROPERTY_STRING(struct display_options, tls_key, NULL, "PEM file of its key"),
    PROPERTY_END,
};

/* "vnc[=ADDRESS][,P=VALUE]..." in its parts; false: it is none. */
static bool split_vnc(const char *display, char address[160], const char **out_properties)
{
    size_t size = strcspn(display, ",");

    if (strncmp(display, "vnc", 3) || !strchr("=,", display[3]))
        return false;
    address[0] = '\0';
    if (display[3] == '=')
        snprintf(address, 160, "%.*s", (int)(size - 4), display + 4);
    *out_properties = display[size] ? display + size + 1 : "";
    return true;
}

static int check_display(const char *display, struct error *err)
{
    struct display_options options = {0};
    const char *properties;
    char address[160], kind[32];
    int result;

    if (!split_vnc(display, address, &properties)) {
        snprintf(kind, sizeof(kind), "%.*s", (int)strcspn(display, ",="), display);
#ifndef HAVE_CURSES
        if (strcmp(kind, "curses") == 0)
            return error_set(err, ENOTSUP, "this trapeze was built without ncurses");
#endif
        result = cli_check_choice("display", kind, run_display_choices, err);
        if (!result && strcmp(display, kind))
            result = error_set(err, EINVAL, "%s has no properties", kind);
        return result;
    }
    result = *properties ? properties_parse(vnc_properties, &options, properties, err) : 0;
    properties_done(vnc_properties, &options);
    if (!result && display[3] == '=' && !address[0])
        result = error_set(err, EINVAL, "give [HOST:]PORT or unix:PATH behind 'vnc='");
    return result;
}

static size_t kind_length(const char *display)
{
    return strcspn(display, ",=");
}

int run_check_displays(const struct cli_texts *displays, struct error *err)
{
    for (size_t i = 0; i < displays->count; i++) {
        const char *display = displays->items[i];

        if (check_display(display, err))
            return -EINVAL;
        for (size_t n = 0; n < i; n++)
            if (kind_length(displays->items[n]) == kind_length(display) &&
                !strncmp(displays->items[n], display, kind_length(display)))
                return error_set(err, EINVAL, "%.*s is given twice", (int)kind_length(display),
                                 display);
    }
    return 0;
}

bool run_has_display(const struct cli_texts *displays)
{
    for (size_t i = 0; i < displays->count; i++)
        if (strcmp(displays->items[i], "none") != 0)
            return true;
    return false;
}

static bool has_kind(const struct cli_texts *displays, const char *kind)
{
    for (size_t i = 0; i < displays->count; i++)
        if (strcmp(displays->items[i], kind) == 0)
            return true;
    return false;
}

bool run_has_curses(const struct cli_texts *displays)
{
    return has_kind(displays, "curses");
}

bool run_has_pointer(const struct cli_texts *displays)
{
    for (size_t i = 0; i < displays->count; i++)
        if (strcmp(displays->items[i], "none") != 0 && strcmp(displays->items[i], "curses") != 0)
            return true;
    return false;
}

bool run_is_loopback(const char *address)
{
    static const char *const hosts[] = {"127.", "localhost:", "[::1]:", "::1:", "unix:", "/"};

    if (!strchr(address, ':'))
        return true; /* stream_listen's default, or a path */
    for (size_t n = 0; n < sizeof(hosts) / sizeof(hosts[0]); n++)
        if (strncmp(address, hosts[n], strlen(hosts[n])) == 0)
            return true;
    return false;
}

/* As viewers take it. */
static void write_place(const struct vnc *vnc, const char *address, char *out, size_t size)
{
    const char *colon = strrchr(address, ':');

    if (!vnc_port(vnc))
        snprintf(out, size, "%s", strncmp(address, "unix:", 5) ? address : address + 5);
    else
        snprintf(out, size, "%.*s::%u", colon ? (int)(colon - address) : 9,
                 colon ? address : "127.0.0.1", vnc_port(vnc));
}

static int open_vnc(struct run_displays *out, struct machine *machine, const char *display,
                    struct error *err)
{
    struct display_options options = {0};
    const char *properties;
    char address[160];
    int result;

    if (!split_vnc(display, address, &properties))
        return 0;
    result = *properties ? properties_parse(vnc_properties, &options, properties, err) : 0;
    if (!result) {
        out->vnc = vnc_new(machine,
                           &(struct vnc_config){.address = address[0] ? address : NULL,
                                                .password_file = options.password,
                                                .tls_cert = options.tls_cert,
                                                .tls_key = options.tls_key},
                           err);
        result = out->vnc ? 0 : -EINVAL;
    }
    if (!result) {
        write_place(out->vnc, address, out->vnc_place, sizeof(out->vnc_place));
        log_info("screen: VNC; 'vncviewer %s' shows it", out->vnc_place);
        if (!options.password && !run_is_loopback(address))
            log_warn("whoever reaches %s can use the machine: password=FILE asks for one", address);
    }
    properties_done(vnc_properties, &options);
    return result;
}

static int open_curses(struct curses **out, struct machine *machine, const char *display,
                       const struct chardev_console *console, struct error *err)
{
#ifdef HAVE_CURSES
    if (strcmp(display, "curses") != 0)
        return 0;
    *out = curses_new(machine, console, err);
    return *out ? 0 : -EINVAL;
#else
    return 0; /* run_check_displays() has refused it */
#endif
}

static int open_window(struct run_displays *displays, struct machine *machine, struct error *err)
{
    int socket = displays->window_socket;

    displays->window_socket = -1;
    displays->windows =
        (struct windows){.machine = machine, .calls = &monitor_window_calls, .opaque = machine};
    return windows_add(&displays->windows, socket, err) || windows_wait(&displays->windows, err)
               ? -EIO
               : 0;
}

int run_start_displays(struct run_displays *out, const struct cli_texts *displays, const char *name,
                       struct error *err)
{
    if (!has_kind(displays, "sdl"))
        return 0;
    out->window_socket = run_start_window(name, err);
    return out->window_socket < 0 ? -EIO : 0;
}

int run_open_displays(struct run_displays *out, struct machine *machine,
                      const struct cli_texts *displays, const struct chardev_console *console,
                      struct error *err)
{
    for (size_t i = 0; i < displays->count; i++) {
        const char *display = displays->items[i];

        if (open_vnc(out, machine, display, err) ||
            open_curses(&out->curses, machine, display, console, err) ||
            (strcmp(display, "sdl") == 0 && open_window(out, machine, err))) {
            error_prefix(err, "--display %s: ", display);
            return -EINVAL;
        }
    }
    return 0;
}

void run_free_displays(struct run_displays *displays)
{
#ifdef HAVE_CURSES
    curses_free(displays->curses);
#endif
    windows_done(&displays->windows);
    vnc_free(displays->vnc);
    if (displays->window_socket >= 0)
        close(displays->window_socket);
}

/* Is text name, or name and properties? */
static bool is_named(const char *text, const char *name)
{
    size_t length = strlen(name);

    return strncmp(text, name, length) == 0 && (text[length] == '\0' || text[length] == ',');
}

/* NULL: vga is none of them. */
static const struct card *find_card(const char *vga)
{
    for (size_t n = 0; n < CARD_COUNT; n++)
        if (is_named(vga, cards[n].name))
            return &cards[n];
    return NULL;
}

int run_check_vga(const char *vga, struct error *err)
{
    char kind[32];

    if (!vga || find_card(vga))
        return 0;
    snprintf(kind, sizeof(kind), "%.*s", (int)strcspn(vga, ","), vga);
    return cli_check_choice("graphics card", kind, run_vga_choices, err);
}

bool run_has_vga(const char *vga, const struct cli_texts *devices, bool is_default)
{
    for (size_t i = 0; i < devices->count; i++)
        for (size_t n = 0; n < CARD_COUNT; n++)
            if (is_named(devices->items[i], cards[n].class_name))
                return true;
    return vga ? find_card(vga) != NULL : is_default;
}

int run_add_vga(struct machine *machine, const char *vga, struct error *err)
{
    const struct card *card = vga ? find_card(vga) : &cards[0];
    const struct device_class *class = device_class_find(card->class_name);
    const char *properties = vga ? vga + strcspn(vga, ",") : "";
    struct device *dev = device_new(machine, class, NULL, err);
    int result = dev ? 0 : -ENOMEM;

    if (!result && !access(card->rom, R_OK))
        result = device_set(dev, "romfile", card->rom, err);
    if (!result && *properties)
        result = properties_parse(class->properties, dev, properties + 1, err);
    if (!result)
        result = device_attach(dev, err);
    if (result)
        error_prefix(err, "--vga: ");
    return result;
}
