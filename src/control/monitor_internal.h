/*
 * monitor_internal.h - what the files of the monitor share
 *
 * monitor.c: clients and what they are told by itself. monitor_requests.c: the table of commands,
 * and requests as JSON and as words. The commands: monitor_machine.c, monitor_plug.c,
 * monitor_screen.c.
 */
#ifndef CONTROL_MONITOR_INTERNAL_H
#define CONTROL_MONITOR_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "backends/display/window.h"
#include "control/monitor.h"
#include "host/given.h"
#include "trapeze/machine.h"

struct device;

#define MONITOR_MAX_ARGUMENTS 4

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
    struct stream_server *server, *other_server;
    struct monitor_client *clients;
    unsigned client_count;
    const struct monitor_hotplug *hotplug; /* NULL: nothing can be plugged */
    void *hotplug_opaque;
    bool balloon_has_news; /* clients will be told */
    bool sleep_has_news;   /* likewise */
    bool told_asleep;      /* what clients were told last, as the next */
    enum machine_state told_state;
    struct tray *trays;
    struct typist *typist;  /* NULL: nothing was typed yet */
    struct windows windows; /* that clients brought */
    json_t *viewers;        /* monitor_set_viewers() */
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
    struct argument arguments[MONITOR_MAX_ARGUMENTS + 1];
    int (*run)(struct call *call, struct error *err);
};

/* ---- monitor_values.c ---- */

/* Text from anywhere, cut at the first byte that is not UTF-8 (an error text may be cut inside a
 * character). A new reference. */
json_t *monitor_string(const char *text);
json_t *monitor_hex(uint64_t value);
/* A number, or text like "0x7c00" and "64K", since JSON numbers end at 2^53. -EINVAL. */
int monitor_number(const json_t *value, uint64_t *out_value, struct error *err);
/* A member of the reply; takes the reference. */
void call_set(struct call *call, const char *name, json_t *value);
/* An argument, which was checked already. NULL, false, initial: it is absent. */
const char *call_text(const struct call *call, const char *name);
bool call_flag(const struct call *call, const char *name);
uint64_t call_number(const struct call *call, const char *name, uint64_t initial);
/* -ESHUTDOWN: the machine is stopped. */
int call_expect_alive(struct call *call, struct error *err);

/* ---- monitor_requests.c ---- */

/* The reply to a line, for the caller to release; call->request is set meanwhile. */
json_t *monitor_answer_line(struct call *call, const char *line, size_t length);

/* ---- commands: what the table in monitor_requests.c leads to ---- */

/* A command pauses the machine for a moment, which is no event. Main loop's thread. */
bool monitor_is_pausing_briefly(void);
/* How much memory the guest has, for the reply and for events. */
void monitor_set_balloon(json_t *object, struct machine *machine, struct device *balloon);
int monitor_run_status(struct call *call, struct error *err);
int monitor_run_pause(struct call *call, struct error *err);
int monitor_run_resume(struct call *call, struct error *err);
int monitor_run_stop(struct call *call, struct error *err);
int monitor_run_reset(struct call *call, struct error *err);
int monitor_run_powerdown(struct call *call, struct error *err);
int monitor_run_sleep(struct call *call, struct error *err);
int monitor_run_wake(struct call *call, struct error *err);
int monitor_run_statistics(struct call *call, struct error *err);
int monitor_run_inspect(struct call *call, struct error *err);
int monitor_run_devices(struct call *call, struct error *err);
int monitor_run_memory_read(struct call *call, struct error *err);
int monitor_run_translate(struct call *call, struct error *err);
int monitor_run_registers(struct call *call, struct error *err);
int monitor_run_trace(struct call *call, struct error *err);
int monitor_run_give(struct call *call, struct error *err);
int monitor_run_device_add(struct call *call, struct error *err);
int monitor_run_device_remove(struct call *call, struct error *err);
int monitor_run_media(struct call *call, struct error *err);
int monitor_run_balloon(struct call *call, struct error *err);
int monitor_run_screenshot(struct call *call, struct error *err);
int monitor_run_type(struct call *call, struct error *err);
int monitor_run_key(struct call *call, struct error *err);
int monitor_run_window(struct call *call, struct error *err);
int monitor_run_click(struct call *call, struct error *err);

#endif
