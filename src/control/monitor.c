/*
 * monitor.c - commands to a running machine, as JSON lines over a socket
 *
 * Theory of operation. Commands are a table with typed arguments; checking, help and
 * the command line client walk it. A request is one line of JSON, answered by one line, in
 * order. Whoever can open the socket owns the machine, so the socket is for its owner only,
 * but a client must still not be able to harm the process: lines have a largest length, the
 * rest of a longer one is skipped; input is checked by the JSON parser (UTF-8, depth, types)
 * and by the table; output that a client does not read stops its input (stream.c).
 *
 * Registers can only be read while the processors are parked. A command that needs that
 * pauses a running machine for as long as it takes; such pauses are not reported as events.
 */
#include "control/monitor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/display/typist.h"
#include "base/base64.h"
#include "base/log.h"
#include "control/stream.h"
#include "devices/ata/ata.h"
#include "devices/virtio/balloon.h"
#include "host/given.h"
#include "host/loop.h"
#include "machine/pc.h"
#include "trapeze/device.h"
#include "trapeze/display.h"
#include "trapeze/engine.h"
#include "trapeze/input.h"
#include "trapeze/machine.h"
#include "trapeze/property.h"
#include "x86/features.h"

#define MAX_MEMORY_READ_BYTES 65536
#define MAX_PNG_BYTES         (STREAM_MAX_QUEUED_BYTES / 4 * 3 - 4096) /* as base64 */
#define MAX_ARGUMENTS         4

enum argument_type { ARGUMENT_TEXT, ARGUMENT_NUMBER, ARGUMENT_FLAG };

struct argument {
    const char *name; /* NULL ends the list */
    enum argument_type type;
    bool required;
    const char *help;
};

struct monitor_client {
    struct monitor *monitor;
    struct stream *stream;
    char *line; /* what came of the current line */
    size_t length;
    bool skipping; /* the line was too long: wait for its end */
    bool wants_events;
    struct host_given given; /* by "give" */
    struct monitor_client *next;
};

/* A CD drive's. */
struct tray {
    struct monitor *monitor;
    struct device *drive;
    bool has_news; /* clients will be told */
    struct tray *next;
};

struct monitor {
    struct machine *machine;
    struct stream_server *server;
    struct monitor_client *clients;
    unsigned client_count;
    const struct monitor_hotplug *hotplug; /* NULL: nothing can be plugged */
    void *hotplug_opaque;
    bool balloon_has_news; /* clients will be told */
    struct tray *trays;
    struct typist *typist; /* NULL: nothing was typed yet */
};

/* One command being carried out. */
struct call {
    struct machine *machine;
    struct monitor_client *client; /* NULL: not from the socket */
    const json_t *request;         /* checked against the command's arguments */
    json_t *reply;                 /* an object to add members to */
    bool quit;
};

struct command {
    const char *name;
    const char *summary;
    struct argument arguments[MAX_ARGUMENTS + 1];
    int (*run)(struct call *call, struct error *err);
};

static const struct command commands[];

/* Set while this file pauses a machine for a moment. Main loop's thread only. */
static bool pausing_briefly;

/* ---- values ---- */

/* Text from anywhere, cut at the first byte that is not UTF-8 (an error text may be cut inside
 * a character). */
static json_t *safe_string(const char *text)
{
    json_t *string = json_string(text);

    for (size_t length = strlen(text); !string && length > 0; length--)
        string = json_stringn(text, length - 1);
    return string;
}

static json_t *hex_string(uint64_t value)
{
    return json_sprintf("0x%llx", (unsigned long long)value);
}

static void set(struct call *call, const char *name, json_t *value)
{
    json_object_set_new(call->reply, name, value);
}

static const char *get_text(const struct call *call, const char *name)
{
    return json_string_value(json_object_get(call->request, name));
}

static bool get_flag(const struct call *call, const char *name)
{
    return json_is_true(json_object_get(call->request, name));
}

/* A number, or text like "0x7c00" and "64K", since JSON numbers end at 2^53. */
static int number_of(const json_t *value, uint64_t *out_value, struct error *err)
{
    if (json_is_string(value))
        return property_parse_u64(json_string_value(value), UINT64_MAX, out_value, err);
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return error_set(err, EINVAL,
                         "must be a number that is not negative, or text like "
                         "\"0x7c00\" or \"64K\"");
    *out_value = (uint64_t)json_integer_value(value);
    return 0;
}

/* The argument was checked already; absent ones give the default. */
static uint64_t get_number(const struct call *call, const char *name, uint64_t initial)
{
    const json_t *value = json_object_get(call->request, name);
    uint64_t number = initial;

    if (value)
        number_of(value, &number, NULL);
    return number;
}

/* Park the processors; returns what unpark() needs. */
static bool park(struct machine *machine)
{
    if (machine_get_state(machine) != MACHINE_RUNNING)
        return false;
    pausing_briefly = true;
    machine_pause(machine);
    return true;
}

static void unpark(struct machine *machine, bool parked)
{
    if (parked)
        machine_resume(machine);
    pausing_briefly = false;
}

/* ---- state of devices and processors ---- */

struct text {
    char *data;
    size_t size, capacity;
};

static void text_put(void *opaque, const char *more)
{
    struct text *text = opaque;
    size_t length = strlen(more);

    if (text->size + length + 1 > text->capacity) {
        size_t capacity = (text->size + length + 1) * 2;
        char *data = realloc(text->data, capacity);

        if (!data)
            return;
        text->data = data;
        text->capacity = capacity;
    }
    memcpy(text->data + text->size, more, length + 1);
    text->size += length;
}

static json_t *state_json(const struct state_table *table, void *object)
{
    struct text text = {0};
    json_error_t where;
    json_t *json = NULL;

    if (table->version == 0)
        return json_object();
    state_print_json(table, object, text_put, &text);
    if (text.data)
        json = json_loadb(text.data, text.size, 0, &where);
    if (text.data && !json)
        log_warn("state table does not print as JSON: %s", where.text);
    free(text.data);
    return json ? json : json_null();
}

static json_t *vcpu_json(struct machine *machine, unsigned index)
{
    return state_json(&x86_state_table, &machine_vcpu(machine, index)->state);
}

static json_t *device_json(struct device *dev)
{
    return state_json(&dev->class->state, dev);
}

/* "cpu3" of a machine with at least four processors. */
static bool find_cpu(const struct machine *machine, const char *name, unsigned *out_index)
{
    for (unsigned i = 0; i < machine_vcpu_count(machine); i++) {
        char id[16];

        snprintf(id, sizeof(id), "cpu%u", i);
        if (strcmp(id, name) == 0) {
            *out_index = i;
            return true;
        }
    }
    return false;
}

static int no_such_device(struct machine *machine, const char *name, struct error *err)
{
    const char *names[256], *nearest;
    size_t count = 0;

    for (struct device *dev = machine_first_device(machine); dev && count < 254; dev = dev->next)
        names[count++] = dev->id;
    names[count++] = "cpu0";
    names[count] = NULL;
    nearest = nearest_word(name, names);
    if (nearest)
        return error_set(err, ENOENT, "there is no device '%s'; did you mean '%s'?", name, nearest);
    return error_set(err, ENOENT, "there is no device '%s'; the command 'devices' lists them",
                     name);
}

static int inspect_one(struct call *call, const char *name, struct error *err)
{
    struct device *dev;
    unsigned index = 0;

    if (find_cpu(call->machine, name, &index)) {
        set(call, "state", vcpu_json(call->machine, index));
        return 0;
    }
    dev = machine_find_device(call->machine, name);
    if (!dev)
        return no_such_device(call->machine, name, err);
    set(call, "state", device_json(dev));
    return 0;
}

static void inspect_all(struct call *call)
{
    json_t *all = json_object();

    for (unsigned i = 0; i < machine_vcpu_count(call->machine); i++) {
        char id[16];

        snprintf(id, sizeof(id), "cpu%u", i);
        json_object_set_new(all, id, vcpu_json(call->machine, i));
    }
    for (struct device *dev = machine_first_device(call->machine); dev; dev = dev->next)
        json_object_set_new(all, dev->id, device_json(dev));
    set(call, "state", all);
}

/* ---- commands ---- */

static int run_status(struct call *call, struct error *err)
{
    struct machine *machine = call->machine;
    const struct machine_config *config = machine_config(machine);

    (void)err;
    set(call, "name", safe_string(config->name ? config->name : "vm"));
    set(call, "state", json_string(machine_state_name(machine_get_state(machine))));
    if (machine_pause_reason(machine))
        set(call, "pause_reason", safe_string(machine_pause_reason(machine)));
    set(call, "engine", json_string(config->engine->name));
    set(call, "cpu_model", safe_string(config->cpu_model));
    set(call, "cpus", json_integer(machine_vcpu_count(machine)));
    set(call, "memory_bytes", json_integer((json_int_t)config->ram_bytes));
    set(call, "counted", json_boolean(config->counted));
    set(call, "virtual_ns",
        json_integer((json_int_t)clock_now_ns(machine_clocks(machine), CLOCK_ID_VIRTUAL)));
    if (machine_get_state(machine) == MACHINE_STOPPED) {
        set(call, "stop_reason", json_string(stop_reason_name(machine_stop_reason(machine))));
        set(call, "status", json_integer(machine_stop_status(machine)));
    }
    return 0;
}

static int expect_alive(struct call *call, struct error *err)
{
    if (machine_get_state(call->machine) != MACHINE_STOPPED)
        return 0;
    return error_set(err, ESHUTDOWN, "the machine is stopped");
}

static int run_pause(struct call *call, struct error *err)
{
    if (expect_alive(call, err))
        return -ESHUTDOWN;
    if (machine_get_state(call->machine) == MACHINE_RUNNING)
        machine_pause(call->machine);
    return 0;
}

static int run_resume(struct call *call, struct error *err)
{
    if (expect_alive(call, err))
        return -ESHUTDOWN;
    if (machine_get_state(call->machine) == MACHINE_PAUSED)
        machine_resume(call->machine);
    return 0;
}

static int run_stop(struct call *call, struct error *err)
{
    uint64_t status = get_number(call, "status", 0);

    if (status > 255)
        return error_set(err, ERANGE, "an exit status is 0 to 255");
    machine_request_stop(call->machine, STOP_HOST, (int)status);
    return 0;
}

static int run_reset(struct call *call, struct error *err)
{
    if (expect_alive(call, err))
        return -ESHUTDOWN;
    machine_request_reset(call->machine);
    return 0;
}

static int run_powerdown(struct call *call, struct error *err)
{
    if (expect_alive(call, err))
        return -ESHUTDOWN;
    pc_press_power_button(call->machine);
    return 0;
}

static int run_inspect(struct call *call, struct error *err)
{
    const char *name = get_text(call, "device");
    bool parked = park(call->machine);
    int result = 0;

    if (name)
        result = inspect_one(call, name, err);
    else
        inspect_all(call);
    unpark(call->machine, parked);
    return result;
}

static int run_devices(struct call *call, struct error *err)
{
    json_t *list = json_array();

    (void)err;
    for (struct device *dev = machine_first_device(call->machine); dev; dev = dev->next)
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:b}", "id", dev->id, "device",
                                              dev->class->name, "summary", dev->class->summary,
                                              "attached", dev->attached));
    set(call, "devices", list);
    return 0;
}

static json_t *hex_bytes(const uint8_t *bytes, size_t size)
{
    char *text = malloc(size * 2 + 1);
    json_t *string;

    if (!text)
        return NULL;
    for (size_t i = 0; i < size; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    string = json_stringn(text, size * 2);
    free(text);
    return string;
}

static int run_memory_read(struct call *call, struct error *err)
{
    static uint8_t bytes[MAX_MEMORY_READ_BYTES];
    uint64_t gpa = get_number(call, "gpa", 0), size = get_number(call, "size", 16);

    if (size == 0 || size > sizeof(bytes))
        return error_set(err, ERANGE, "size can be 1 to %zu bytes", sizeof(bytes));
    if (memory_read(machine_memory(call->machine), gpa, bytes, size))
        return error_set(err, EFAULT, "0x%llx to 0x%llx is not all RAM or ROM",
                         (unsigned long long)gpa, (unsigned long long)(gpa + size - 1));
    set(call, "gpa", hex_string(gpa));
    set(call, "data", hex_bytes(bytes, size));
    return 0;
}

static int check_cpu(const struct call *call, unsigned *out_index, struct error *err)
{
    uint64_t index = get_number(call, "cpu", 0);

    if (index >= machine_vcpu_count(call->machine))
        return error_set(err, ERANGE, "there are %u processors, counted from 0",
                         machine_vcpu_count(call->machine));
    *out_index = (unsigned)index;
    return 0;
}

static int run_translate(struct call *call, struct error *err)
{
    const struct engine_ops *engine = machine_config(call->machine)->engine;
    uint64_t gva = get_number(call, "gva", 0), gpa = 0;
    unsigned index = 0;
    bool parked, found;

    if (check_cpu(call, &index, err))
        return -ERANGE;
    if (!engine->translate)
        return error_set(err, ENOTSUP, "engine %s cannot translate addresses", engine->name);
    parked = park(call->machine);
    found = engine->translate(machine_vcpu(call->machine, index), gva, &gpa);
    unpark(call->machine, parked);
    if (!found)
        return error_set(err, EFAULT, "0x%llx is not mapped on cpu%u", (unsigned long long)gva,
                         index);
    set(call, "gpa", hex_string(gpa));
    return 0;
}

static const char *const gpr_names[X86_GPR_COUNT] = {
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
    "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15",
};
static const char *const segment_names[X86_SEGMENT_COUNT] = {"es", "cs", "ss", "ds", "fs", "gs"};
static const char *const activity_names[X86_ACTIVITY_COUNT] = {
    [X86_ACTIVE] = "active",     [X86_HALTED] = "halted",     [X86_WAIT_FOR_SIPI] = "wait-for-sipi",
    [X86_SHUTDOWN] = "shutdown", [X86_RESUMING] = "resuming",
};

static void set_segment(struct call *call, const char *name, const struct x86_segment *segment)
{
    set(call, name,
        json_sprintf("0x%04x base 0x%llx limit 0x%x attributes 0x%04x", segment->selector,
                     (unsigned long long)segment->base, segment->limit, segment->attributes));
}

static void set_registers(struct call *call, const struct x86_state *state)
{
    set(call, "rip", hex_string(state->rip));
    set(call, "rflags", hex_string(state->rflags));
    for (unsigned i = 0; i < X86_GPR_COUNT; i++)
        set(call, gpr_names[i], hex_string(state->gpr[i]));
    for (unsigned i = 0; i < X86_SEGMENT_COUNT; i++)
        set_segment(call, segment_names[i], &state->seg[i]);
    set_segment(call, "ldtr", &state->ldtr);
    set_segment(call, "tr", &state->tr);
    set(call, "cr0", hex_string(state->cr0));
    set(call, "cr2", hex_string(state->cr2));
    set(call, "cr3", hex_string(state->cr3));
    set(call, "cr4", hex_string(state->cr4));
    set(call, "efer", hex_string(state->msr.efer));
    set(call, "activity",
        json_string(state->activity < X86_ACTIVITY_COUNT ? activity_names[state->activity]
                                                         : "unknown"));
    set(call, "instructions", json_integer((json_int_t)state->instructions));
}

static int run_registers(struct call *call, struct error *err)
{
    unsigned index = 0;
    bool parked;

    if (check_cpu(call, &index, err))
        return -ERANGE;
    parked = park(call->machine);
    set_registers(call, &machine_vcpu(call->machine, index)->state);
    unpark(call->machine, parked);
    return 0;
}

static int run_trace(struct call *call, struct error *err)
{
    return trace_enable(get_text(call, "events"), err);
}

static int run_events(struct call *call, struct error *err)
{
    if (!call->client)
        return error_set(err, ENOTSUP, "events go to clients of the monitor socket only");
    call->client->wants_events = get_flag(call, "on");
    return 0;
}

/* NULL: not from a monitor's socket, or of a machine that cannot. */
static struct monitor *plugger(struct call *call, struct error *err)
{
    struct monitor *monitor = call->client ? call->client->monitor : NULL;

    if (monitor && monitor->hotplug)
        return monitor;
    error_set(err, ENOTSUP, "devices come and go by the monitor's socket only");
    return NULL;
}

/* What the machine may not open itself, for the next command that opens. */
static int run_give(struct call *call, struct error *err)
{
    int fd = call->client ? stream_take_file(call->client->stream) : -1, result;

    if (fd < 0)
        return error_set(err, EBADF, "no descriptor came with it (SCM_RIGHTS)");
    result = host_given_add(&call->client->given, get_text(call, "name"),
                            (unsigned)get_number(call, "flags", 0), fd);
    return result ? error_set(err, -result, "%s", strerror(-result)) : 0;
}

/* What was given to the client's command has been opened; the rest goes. */
static void end_use(struct monitor_client *client)
{
    host_use(NULL);
    host_given_done(&client->given);
}

static int run_device_add(struct call *call, struct error *err)
{
    struct monitor *monitor = plugger(call, err);
    const char *disk = get_text(call, "disk"), *net = get_text(call, "net"), *id;
    int result;

    if (!monitor || expect_alive(call, err))
        return -ENOTSUP;
    if (!disk == !net)
        return error_set(err, EINVAL, "device-add needs one of 'disk' and 'net'");
    host_use(&call->client->given);
    result =
        monitor->hotplug->add(monitor->hotplug_opaque, disk != NULL, disk ? disk : net, &id, err);
    end_use(call->client);
    if (!result)
        set(call, "device", safe_string(id));
    return result;
}

static int run_device_remove(struct call *call, struct error *err)
{
    struct monitor *monitor = plugger(call, err);

    if (!monitor || expect_alive(call, err))
        return -ENOTSUP;
    return monitor->hotplug->remove(monitor->hotplug_opaque, get_text(call, "device"),
                                    get_flag(call, "force"), err);
}

/* Of both media commands: media-eject has no file. */
static int run_media(struct call *call, struct error *err)
{
    struct monitor *monitor = plugger(call, err);
    const char *id;
    bool asked = false;
    int result;

    if (!monitor || expect_alive(call, err))
        return -ENOTSUP;
    host_use(&call->client->given);
    result =
        monitor->hotplug->change(monitor->hotplug_opaque, get_text(call, "device"),
                                 get_text(call, "file"), get_flag(call, "force"), &id, &asked, err);
    end_use(call->client);
    if (!result) {
        set(call, "device", safe_string(id));
        set(call, "asked", json_boolean(asked));
    }
    return result;
}

static void add_statistic(void *opaque, const char *name, uint64_t value)
{
    json_object_set_new(opaque, name, json_integer((json_int_t)value));
}

static void set_balloon(json_t *object, struct machine *machine, struct device *balloon)
{
    json_t *statistics = json_object();

    json_object_set_new(object, "memory_bytes", json_integer((json_int_t)balloon_memory(balloon)));
    json_object_set_new(object, "target_bytes", json_integer((json_int_t)balloon_target(balloon)));
    json_object_set_new(object, "host_bytes",
                        json_integer((json_int_t)memory_used_bytes(machine_memory(machine))));
    balloon_statistics(balloon, add_statistic, statistics);
    json_object_set_new(object, "statistics", statistics);
}

static int run_balloon(struct call *call, struct error *err)
{
    struct device *balloon = balloon_find(call->machine);
    uint64_t ram = machine_config(call->machine)->ram_bytes, size = get_number(call, "size", ram);

    if (!balloon)
        return error_set(err, ENODEV, "the machine has no balloon; run it with --balloon on");
    if (expect_alive(call, err))
        return -ESHUTDOWN;
    if (size < MACHINE_MIN_RAM_BYTES || size > ram)
        return error_set(err, ERANGE, "size can be 1M to %lluM, which is all that there is",
                         (unsigned long long)(ram >> 20));
    if (json_object_get(call->request, "size"))
        balloon_set_target(balloon, size);
    set(call, "asked", json_boolean(balloon_ask(balloon)));
    set_balloon(call->reply, call->machine, balloon);
    return 0;
}

/* ---- screenshots ---- */

static size_t put_utf8(char *to, uint16_t c)
{
    if (c < 0x80) {
        to[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        to[0] = (char)(0xc0 | c >> 6);
        to[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    to[0] = (char)(0xe0 | c >> 12);
    to[1] = (char)(0x80 | (c >> 6 & 0x3f));
    to[2] = (char)(0x80 | (c & 0x3f));
    return 3;
}

/* A row's characters; spaces at its end are left out. */
static json_t *row_json(const struct screen_cell *cells, uint32_t columns)
{
    char *text = malloc(3 * (size_t)columns + 1);
    size_t size = 0;
    json_t *json;

    while (columns && (cells[columns - 1].code & 0xff) <= ' ' &&
           screen_code_to_unicode(cells[columns - 1].code) == ' ')
        columns--;
    for (uint32_t n = 0; text && n < columns; n++)
        size += put_utf8(text + size, screen_code_to_unicode(cells[n].code));
    json = text ? json_stringn(text, size) : NULL;
    free(text);
    return json;
}

static int set_screen_text(struct call *call, struct screen *screen, struct error *err)
{
    struct screen_text text;
    json_t *lines = json_array();

    if (!screen_text(screen, &text)) {
        json_decref(lines);
        return error_set(err, ENOTSUP, "the screen is in a graphics mode: it has no characters");
    }
    for (uint32_t row = 0; row < text.rows; row++)
        json_array_append_new(lines,
                              row_json(text.cells + (size_t)row * text.columns, text.columns));
    set(call, "columns", json_integer(text.columns));
    set(call, "rows", json_integer(text.rows));
    if (text.has_cursor)
        set(call, "cursor",
            json_pack("{s:i, s:i}", "column", (int)text.cursor_column, "row",
                      (int)text.cursor_row));
    set(call, "lines", lines);
    screen_text_done(&text);
    return 0;
}

static int set_screen_png(struct call *call, struct screen *screen, struct error *err)
{
    uint8_t *png;
    char *text;
    size_t size;

    if (screen_png(screen, &png, &size, err))
        return -ENOMEM;
    text = size < MAX_PNG_BYTES ? base64_encode(png, size) : NULL;
    free(png);
    if (!text)
        return error_set(err, EFBIG, "the picture has %zu bytes, which are too many", size);
    set(call, "png", json_string(text));
    free(text);
    return 0;
}

static int run_screenshot(struct call *call, struct error *err)
{
    uint64_t number = get_number(call, "screen", 0);
    struct screen *screen = number < UINT32_MAX
                                ? display_screen(machine_display(call->machine), (unsigned)number)
                                : NULL;

    if (!screen)
        return error_set(err, ENODEV, "the machine has no %sscreen%s", number ? "such " : "",
                         number ? "" : "; run it with --vga std");
    set(call, "device", safe_string(screen_name(screen)));
    if (get_flag(call, "text"))
        return set_screen_text(call, screen, err);
    return set_screen_png(call, screen, err);
}

/* ---- keys and clicks ---- */

static struct typist *get_typist(struct call *call, struct error *err)
{
    struct monitor *monitor = call->client ? call->client->monitor : NULL;

    if (!monitor) {
        error_set(err, ENOTSUP, "only a client of the socket can type");
        return NULL;
    }
    if (!monitor->typist && !expect_alive(call, err))
        monitor->typist = typist_new(call->machine, err);
    return monitor->typist;
}

/* When it will be done. */
static int set_typing_time(struct call *call, const struct typist *typist, int result)
{
    if (!result)
        set(call, "milliseconds", json_integer((json_int_t)(typist_left_ns(typist) / 1000000)));
    return result;
}

static int run_type(struct call *call, struct error *err)
{
    struct typist *typist = get_typist(call, err);

    if (!typist)
        return -ENOTSUP;
    return set_typing_time(call, typist, typist_type(typist, get_text(call, "text"), err));
}

static int run_key(struct call *call, struct error *err)
{
    struct typist *typist = get_typist(call, err);

    if (!typist)
        return -ENOTSUP;
    return set_typing_time(call, typist, typist_press(typist, get_text(call, "keys"), err));
}

static int parse_button(const char *name, unsigned *out, struct error *err)
{
    static const char *const names[] = {"left", "right", "middle", NULL};
    static const unsigned buttons[] = {INPUT_BUTTON_LEFT, INPUT_BUTTON_RIGHT, INPUT_BUTTON_MIDDLE};

    for (unsigned n = 0; names[n]; n++)
        if (!name || strcmp(names[n], name) == 0) {
            *out = buttons[n];
            return 0;
        }
    return error_set(err, EINVAL, "there is no button '%.32s'; they are left, right and middle",
                     name);
}

static int run_click(struct call *call, struct error *err)
{
    struct typist *typist = get_typist(call, err);
    uint64_t x = get_number(call, "x", 0), y = get_number(call, "y", 0);
    unsigned button = 0;

    if (!typist || parse_button(get_text(call, "button"), &button, err))
        return -EINVAL;
    set(call, "absolute", json_boolean(input_has_absolute(machine_input(call->machine))));
    return set_typing_time(call, typist,
                           typist_click(typist, x < UINT32_MAX ? (uint32_t)x : UINT32_MAX,
                                        y < UINT32_MAX ? (uint32_t)y : UINT32_MAX, button, err));
}

static const char *const type_names[] = {
    [ARGUMENT_TEXT] = "text", [ARGUMENT_NUMBER] = "number", [ARGUMENT_FLAG] = "boolean"};

static json_t *command_json(const struct command *command)
{
    json_t *arguments = json_array();

    for (const struct argument *a = command->arguments; a->name; a++)
        json_array_append_new(arguments, json_pack("{s:s, s:s, s:b, s:s}", "name", a->name, "type",
                                                   type_names[a->type], "required", a->required,
                                                   "help", a->help));
    return json_pack("{s:s, s:s, s:o}", "command", command->name, "summary", command->summary,
                     "arguments", arguments);
}

static int run_help(struct call *call, struct error *err)
{
    json_t *list = json_array();

    (void)err;
    for (const struct command *command = commands; command->name; command++)
        json_array_append_new(list, command_json(command));
    set(call, "commands", list);
    return 0;
}

static int run_quit(struct call *call, struct error *err)
{
    (void)err;
    call->quit = true;
    return 0;
}

#define CPU_ARGUMENT                                                                               \
    {                                                                                              \
        "cpu", ARGUMENT_NUMBER, false, "index of the processor, 0 if left out"                     \
    }

#define DRIVE_ARGUMENT                                                                             \
    {                                                                                              \
        "device", ARGUMENT_TEXT, false, "id of the drive; can be left out if there is one"         \
    }
#define FORCE_MEDIA_ARGUMENT                                                                       \
    {                                                                                              \
        "force", ARGUMENT_FLAG, false, "also if the guest has locked it"                           \
    }

static const struct command commands[] = {
    {"status", "what the machine is and does", .run = run_status},
    {"pause", "stop guest time and all processors", .run = run_pause},
    {"resume", "let a paused machine go on", .run = run_resume},
    {"stop",
     "end the machine now, as if power failed",
     {{"status", ARGUMENT_NUMBER, false, "exit status of the process, 0 if left out"}},
     .run = run_stop},
    {"reset", "reset processors and devices", .run = run_reset},
    {"powerdown", "press the power button for a moment; the guest decides", .run = run_powerdown},
    {"devices", "list the machine's devices", .run = run_devices},
    {"inspect",
     "print the guest-visible state of a device or processor, or of all",
     {{"device", ARGUMENT_TEXT, false, "id of a device, or cpu0, cpu1 and so on"}},
     .run = run_inspect},
    {"registers", "print a processor's main registers", {CPU_ARGUMENT}, .run = run_registers},
    {"memory-read",
     "read guest-physical memory",
     {{"gpa", ARGUMENT_NUMBER, true, "guest-physical address"},
      {"size", ARGUMENT_NUMBER, false, "bytes, up to 64K; 16 if left out"}},
     .run = run_memory_read},
    {"translate",
     "translate a linear to a guest-physical address",
     {{"gva", ARGUMENT_NUMBER, true, "linear address"}, CPU_ARGUMENT},
     .run = run_translate},
    {"trace",
     "switch trace events on or off",
     {{"events", ARGUMENT_TEXT, true, "names or patterns separated by commas, -NAME for off"}},
     .run = run_trace},
    {"give",
     "hand over an open descriptor, for the next device-add or media-insert",
     {{"name", ARGUMENT_TEXT, true, "what it was opened by"},
      {"flags", ARGUMENT_NUMBER, false, "how it was opened"}},
     .run = run_give},
    {"device-add",
     "put a disk or a network card into an empty slot",
     {{"disk", ARGUMENT_TEXT, false, "as with 'trapeze run --disk'"},
      {"net", ARGUMENT_TEXT, false, "as with 'trapeze run --net'"}},
     .run = run_device_add},
    {"device-remove",
     "ask the guest to let go of a device that was added, and take it out then",
     {{"device", ARGUMENT_TEXT, true, "id of the device"},
      {"force", ARGUMENT_FLAG, false, "take it out at once, without asking"}},
     .run = run_device_remove},
    {"media-insert",
     "put a CD into a drive in place of what is there, or ask the guest to unlock it first",
     {{"file", ARGUMENT_TEXT, true,
       "the image, as with 'trapeze run --cdrom', without what is the drive's"},
      DRIVE_ARGUMENT,
      FORCE_MEDIA_ARGUMENT},
     .run = run_media},
    {"media-eject",
     "take the CD out of a drive, or ask the guest to unlock it first",
     {DRIVE_ARGUMENT, FORCE_MEDIA_ARGUMENT},
     .run = run_media},
    {"balloon",
     "tell or change how much of its memory the guest has, and ask it for new statistics",
     {{"size", ARGUMENT_NUMBER, false, "bytes that it shall be left with"}},
     .run = run_balloon},
    {"screenshot",
     "the screen as a PNG file in base64, or a text mode's characters",
     {{"screen", ARGUMENT_NUMBER, false, "which one, 0 if left out"},
      {"text", ARGUMENT_FLAG, false, "characters"}},
     .run = run_screenshot},
    {"type",
     "type a text on the guest's keyboard, which is a US one",
     {{"text", ARGUMENT_TEXT, true, "{enter}, {ctrl-c} are keys, {{ is a brace"}},
     .run = run_type},
    {"key",
     "press keys together",
     {{"keys", ARGUMENT_TEXT, true, "names, as in ctrl-alt-del"}},
     .run = run_key},
    {"click",
     "press a button of the pointer at a pixel of the screen",
     {{"x", ARGUMENT_NUMBER, true, "pixels from the left"},
      {"y", ARGUMENT_NUMBER, true, "pixels from the top"},
      {"button", ARGUMENT_TEXT, false, "left, right or middle; left if left out"}},
     .run = run_click},
    {"events",
     "send this client a line when the machine changes its state",
     {{"on", ARGUMENT_FLAG, true, "true or false"}},
     .run = run_events},
    {"help", "list the commands", .run = run_help},
    {"quit", "end the connection", .run = run_quit},
    {NULL},
};

/* ---- requests ---- */

static const struct command *find_command(const char *name, struct error *err)
{
    const char *names[sizeof(commands) / sizeof(commands[0])] = {0}, *nearest;
    size_t count = 0;

    for (const struct command *command = commands; command->name; command++) {
        if (strcmp(command->name, name) == 0)
            return command;
        names[count++] = command->name;
    }
    nearest = nearest_word(name, names);
    if (nearest)
        error_set(err, ENOENT, "there is no command '%.64s'; did you mean '%s'?", name, nearest);
    else
        error_set(err, ENOENT, "there is no command '%.64s'; 'help' lists them", name);
    return NULL;
}

static const struct argument *find_argument(const struct command *command, const char *name,
                                            struct error *err)
{
    const char *names[MAX_ARGUMENTS + 1] = {0}, *nearest;
    size_t count = 0;

    for (const struct argument *a = command->arguments; a->name; a++) {
        if (strcmp(a->name, name) == 0)
            return a;
        names[count++] = a->name;
    }
    nearest = nearest_word(name, names);
    if (nearest)
        error_set(err, EINVAL, "%s has no argument '%.64s'; did you mean '%s'?", command->name,
                  name, nearest);
    else
        error_set(err, EINVAL, "%s has no argument '%.64s'", command->name, name);
    return NULL;
}

static int check_type(const struct argument *argument, const json_t *value, struct error *err)
{
    uint64_t number;
    int result = 0;

    if (argument->type == ARGUMENT_TEXT && !json_is_string(value))
        result = error_set(err, EINVAL, "must be text");
    else if (argument->type == ARGUMENT_FLAG && !json_is_boolean(value))
        result = error_set(err, EINVAL, "must be true or false");
    else if (argument->type == ARGUMENT_NUMBER)
        result = number_of(value, &number, err);
    if (result)
        error_prefix(err, "%s: ", argument->name);
    return result;
}

static int check_request(const struct command *command, const json_t *request, struct error *err)
{
    const struct argument *argument;
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)request, name, value)
    {
        if (strcmp(name, "command") == 0 || strcmp(name, "id") == 0)
            continue;
        argument = find_argument(command, name, err);
        if (!argument || check_type(argument, value, err))
            return -EINVAL;
    }
    for (argument = command->arguments; argument->name; argument++)
        if (argument->required && !json_object_get(request, argument->name))
            return error_set(err, EINVAL, "%s needs '%s': %s", command->name, argument->name,
                             argument->help);
    return 0;
}

static int carry_out(struct call *call, struct error *err)
{
    const json_t *name = json_object_get(call->request, "command");
    const struct command *command;

    if (!json_is_object(call->request) || !json_is_string(name))
        return error_set(err, EINVAL,
                         "a request is an object with a command: {\"command\":\"status\"}");
    command = find_command(json_string_value(name), err);
    if (!command || check_request(command, call->request, err))
        return -EINVAL;
    return command->run(call, err);
}

static json_t *error_reply(const char *text)
{
    return json_pack("{s:b, s:o}", "ok", 0, "error", safe_string(text));
}

/* Carry out call->request and return the whole reply. */
static json_t *answer(struct call *call)
{
    struct error err = {0};
    json_t *id = json_object_get(call->request, "id"), *reply;

    call->reply = json_pack("{s:b}", "ok", 1);
    if (!call->reply)
        return NULL;
    reply = call->reply;
    if (carry_out(call, &err)) {
        json_decref(reply);
        reply = error_reply(err.text);
    }
    if (reply && id)
        json_object_set(reply, "id", id);
    return reply;
}

json_t *monitor_execute(struct machine *machine, const json_t *request)
{
    struct call call = {.machine = machine, .request = request};

    return answer(&call);
}

static json_t *answer_line(struct call *call, const char *line, size_t length)
{
    json_error_t where;
    json_t *request = json_loadb(line, length, JSON_REJECT_DUPLICATES, &where), *reply;
    char text[JSON_ERROR_TEXT_LENGTH + 32];

    if (!request) {
        snprintf(text, sizeof(text), "not JSON: %s", where.text);
        return error_reply(text);
    }
    call->request = request;
    reply = answer(call);
    json_decref(request);
    return reply;
}

char *monitor_execute_line(struct machine *machine, const char *line, size_t length)
{
    struct call call = {.machine = machine};
    json_t *reply = answer_line(&call, line, length);
    char *text = reply ? json_dumps(reply, JSON_COMPACT) : NULL;

    json_decref(reply);
    return text;
}

/* ---- clients ---- */

static void client_send(struct monitor_client *client, const json_t *message)
{
    char *text = message ? json_dumps(message, JSON_COMPACT) : NULL;

    if (text) {
        stream_send(client->stream, text, strlen(text));
        stream_send(client->stream, "\n", 1);
    } else {
        stream_finish(client->stream);
    }
    free(text);
}

static void client_line(struct monitor_client *client)
{
    struct call call = {.machine = client->monitor->machine, .client = client};
    json_t *reply;

    while (client->length && client->line[client->length - 1] == '\r')
        client->length--;
    if (client->length == 0)
        return;
    reply = answer_line(&call, client->line, client->length);
    client_send(client, reply);
    json_decref(reply);
    if (call.quit)
        stream_finish(client->stream);
}

static void client_too_long(struct monitor_client *client)
{
    json_t *reply = json_pack("{s:b, s:s}", "ok", 0, "error",
                              "the line is longer than 65536 bytes; it is ignored");

    client_send(client, reply);
    json_decref(reply);
    client->skipping = true;
    client->length = 0;
}

static void client_receive(void *opaque, const uint8_t *data, size_t size_bytes)
{
    struct monitor_client *client = opaque;

    for (size_t i = 0; i < size_bytes; i++) {
        if (data[i] == '\n') {
            if (!client->skipping)
                client_line(client);
            client->skipping = false;
            client->length = 0;
        } else if (client->skipping) {
            continue;
        } else if (client->length == MONITOR_MAX_LINE_BYTES) {
            client_too_long(client);
        } else {
            client->line[client->length++] = (char)data[i];
        }
    }
}

static void client_free(struct monitor_client *client)
{
    stream_free(client->stream);
    host_given_done(&client->given);
    free(client->line);
    free(client);
}

static void client_closed(void *opaque)
{
    struct monitor_client *client = opaque;
    struct monitor_client **link = &client->monitor->clients;

    while (*link != client)
        link = &(*link)->next;
    *link = client->next;
    client->monitor->client_count--;
    client_free(client);
}

static const struct stream_events client_events = {
    .receive = client_receive,
    .closed = client_closed,
};

/* A client that cannot be served is told so and dropped. */
static void refuse(int fd)
{
    static const char text[] = "{\"ok\":false,\"error\":\"too many clients\"}\n";

    if (write(fd, text, sizeof(text) - 1) < 0)
        log_debug("monitor: %s", strerror(errno));
    close(fd);
}

void monitor_connect(struct monitor *monitor, int fd)
{
    struct monitor_client *client;
    struct error err = {0};

    if (monitor->client_count == MONITOR_MAX_CLIENTS) {
        refuse(fd);
        return;
    }
    client = calloc(1, sizeof(*client));
    if (client)
        client->line = malloc(MONITOR_MAX_LINE_BYTES);
    if (!client || !client->line) {
        free(client);
        refuse(fd);
        return;
    }
    client->monitor = monitor;
    client->stream = stream_new(machine_loop(monitor->machine), fd, &client_events, client, &err);
    if (!client->stream) {
        log_warn("monitor: %s", err.text);
        client_free(client);
        return;
    }
    client->next = monitor->clients;
    monitor->clients = client;
    monitor->client_count++;
}

static void on_client(void *opaque, int fd)
{
    monitor_connect(opaque, fd);
}

/* ---- events ---- */

static void broadcast(struct monitor *monitor, const json_t *event)
{
    for (struct monitor_client *client = monitor->clients; client; client = client->next)
        if (client->wants_events)
            client_send(client, event);
}

static void on_machine_state(void *opaque, struct machine *machine, enum machine_state state)
{
    struct monitor *monitor = opaque;
    json_t *event;

    if (pausing_briefly || !monitor->clients)
        return;
    event = json_pack("{s:s, s:s}", "event", "state", "state", machine_state_name(state));
    if (event && state == MACHINE_STOPPED) {
        json_object_set_new(event, "reason",
                            json_string(stop_reason_name(machine_stop_reason(machine))));
        json_object_set_new(event, "status", json_integer(machine_stop_status(machine)));
    }
    if (event && state == MACHINE_PAUSED && machine_pause_reason(machine))
        json_object_set_new(event, "reason", safe_string(machine_pause_reason(machine)));
    if (event)
        broadcast(monitor, event);
    json_decref(event);
}

static void tell_of_balloon(void *opaque)
{
    struct monitor *monitor = opaque;
    json_t *event;

    monitor->balloon_has_news = false;
    event = json_pack("{s:s}", "event", "balloon");
    if (event) {
        set_balloon(event, monitor->machine, balloon_find(monitor->machine));
        broadcast(monitor, event);
    }
    json_decref(event);
}

/* On any thread: the loop tells clients. */
static void on_balloon(void *opaque)
{
    struct monitor *monitor = opaque;

    if (!monitor->balloon_has_news && monitor->clients)
        monitor->balloon_has_news =
            loop_defer(machine_loop(monitor->machine), tell_of_balloon, monitor) == 0;
}

static void tell_of_tray(void *opaque)
{
    struct tray *tray = opaque;
    json_t *event = json_pack("{s:s, s:s, s:b}", "event", "tray", "device", tray->drive->id, "open",
                              ata_cd_is_open(tray->drive));

    tray->has_news = false;
    if (event)
        broadcast(tray->monitor, event);
    json_decref(event);
}

/* On any thread. */
static void on_tray(void *opaque)
{
    struct tray *tray = opaque;

    if (!tray->has_news && tray->monitor->clients)
        tray->has_news = loop_defer(machine_loop(tray->monitor->machine), tell_of_tray, tray) == 0;
}

static int watch_trays(struct monitor *monitor)
{
    struct device *dev = machine_first_device(monitor->machine);

    for (; dev; dev = dev->next) {
        struct tray *tray = dev->class == &ata_cd_class ? malloc(sizeof(*tray)) : NULL;

        if (!tray && dev->class == &ata_cd_class)
            return -ENOMEM;
        if (!tray)
            continue;
        *tray = (struct tray){.monitor = monitor, .drive = dev, .next = monitor->trays};
        monitor->trays = tray;
        ata_cd_observe(dev, on_tray, tray);
    }
    return 0;
}

void monitor_set_hotplug(struct monitor *monitor, const struct monitor_hotplug *calls, void *opaque)
{
    monitor->hotplug = calls;
    monitor->hotplug_opaque = opaque;
}

void monitor_device_removed(struct monitor *monitor, const char *id)
{
    json_t *event = json_pack("{s:s, s:s}", "event", "device-removed", "device", id);

    if (event)
        broadcast(monitor, event);
    json_decref(event);
}

struct monitor *monitor_new(struct machine *machine, const char *address, struct error *err)
{
    struct monitor *monitor = calloc(1, sizeof(*monitor));

    if (!monitor) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    monitor->machine = machine;
    if (address)
        monitor->server = stream_listen(machine_loop(machine), address, on_client, monitor, err);
    if ((address && !monitor->server) || machine_observe(machine, on_machine_state, monitor) ||
        watch_trays(monitor)) {
        error_set(err, ENOMEM, "out of memory");
        monitor_free(monitor);
        return NULL;
    }
    if (balloon_find(machine))
        balloon_observe(balloon_find(machine), on_balloon, monitor);
    return monitor;
}

void monitor_free(struct monitor *monitor)
{
    if (!monitor)
        return;
    stream_server_free(monitor->server);
    while (monitor->clients) {
        struct monitor_client *client = monitor->clients;

        monitor->clients = client->next;
        client_free(client);
    }
    while (monitor->trays) {
        struct tray *tray = monitor->trays;

        monitor->trays = tray->next;
        free(tray);
    }
    typist_free(monitor->typist);
    free(monitor);
}

/* ---- for people ---- */

static json_t *value_from_text(const struct argument *argument, const char *text, struct error *err)
{
    uint64_t number;

    if (argument->type == ARGUMENT_TEXT)
        return safe_string(text);
    if (argument->type == ARGUMENT_FLAG) {
        if (strcmp(text, "on") == 0 || strcmp(text, "true") == 0)
            return json_true();
        if (strcmp(text, "off") == 0 || strcmp(text, "false") == 0)
            return json_false();
        error_set(err, EINVAL, "%s: must be on or off", argument->name);
        return NULL;
    }
    if (property_parse_u64(text, UINT64_MAX, &number, err)) {
        error_prefix(err, "%s: ", argument->name);
        return NULL;
    }
    return safe_string(text);
}

/* "name=value", or the value of the next argument in the table's order. */
static int add_word(json_t *request, const struct command *command, unsigned position,
                    const char *word, struct error *err)
{
    const char *equals = strchr(word, '=');
    const struct argument *argument = &command->arguments[position];
    char name[64];
    json_t *value;

    if (equals) {
        snprintf(name, sizeof(name), "%.*s", (int)(equals - word), word);
        argument = find_argument(command, name, err);
        if (!argument)
            return -EINVAL;
        word = equals + 1;
    } else if (position >= MAX_ARGUMENTS || !argument->name) {
        return error_set(err, EINVAL, "%s: one argument too many: '%s'", command->name, word);
    }
    value = value_from_text(argument, word, err);
    return value ? json_object_set_new(request, argument->name, value) : -EINVAL;
}

size_t monitor_split_words(char *line, const char *words[MONITOR_MAX_WORDS])
{
    size_t count = 0;

    for (char *rest = line, *word; count < MONITOR_MAX_WORDS && (word = strsep(&rest, " \t\r\n"));)
        if (*word)
            words[count++] = word;
    return count;
}

json_t *monitor_parse_words(const char *const *words, size_t count, struct error *err)
{
    const struct command *command = count ? find_command(words[0], err) : NULL;
    json_t *request;

    if (!command) {
        error_set(err, EINVAL, "no command; 'help' lists them");
        return NULL;
    }
    request = json_pack("{s:s}", "command", command->name);
    for (size_t i = 1; request && i < count; i++)
        if (add_word(request, command, (unsigned)i - 1, words[i], err)) {
            json_decref(request);
            return NULL;
        }
    if (request && check_request(command, request, err)) {
        json_decref(request);
        return NULL;
    }
    return request;
}

static void print_value(FILE *out, const char *name, const json_t *value, int indent);

static void print_members(FILE *out, const json_t *value, int indent)
{
    const char *name;
    json_t *member;
    size_t i;

    if (json_is_object(value))
        json_object_foreach((json_t *)value, name, member) print_value(out, name, member, indent);
    else
        json_array_foreach(value, i, member) print_value(out, "-", member, indent);
}

static bool is_nested(const json_t *value)
{
    return json_is_object(value) || json_is_array(value);
}

static void print_value(FILE *out, const char *name, const json_t *value, int indent)
{
    char *text;

    if (is_nested(value) && json_object_size(value) + json_array_size(value) > 0) {
        fprintf(out, "%*s%s%s\n", indent, "", name, *name == '-' ? "" : ":");
        print_members(out, value, indent + 2);
        return;
    }
    text = json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY);
    fprintf(out, "%*s%s%s %s\n", indent, "", name, *name == '-' ? "" : ":",
            text                       ? text
            : json_string_value(value) ? json_string_value(value)
                                       : "");
    free(text);
}

void monitor_print_reply(FILE *out, const json_t *reply)
{
    const char *name;
    json_t *member;

    json_object_foreach((json_t *)reply, name, member)
    {
        if (strcmp(name, "ok") != 0 && strcmp(name, "id") != 0)
            print_value(out, name, member, 0);
    }
}

void monitor_list_commands(monitor_put_command *put, void *opaque)
{
    for (const struct command *command = commands; command->name; command++)
        put(opaque, command->name, command->summary);
}
