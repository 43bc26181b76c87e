/*
 * monitor.h - commands to a running machine, as JSON lines over a socket
 *
 * Request: {"command":"inspect","device":"pit"}; reply: {"ok":true,...} or
 * {"ok":false,"error":"..."}. A member "id" of any kind comes back in the reply. The
 * protocol is described in docs/design/control.md. Main loop's thread, machine lock held.
 */
#ifndef CONTROL_MONITOR_H
#define CONTROL_MONITOR_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "trapeze/error.h"

struct machine;
struct monitor;
struct window_calls;

/* Longer lines are refused. */
#define MONITOR_MAX_LINE_BYTES 65536
#define MONITOR_MAX_CLIENTS    16

/* Listen on a unix socket (or another address of stream_listen; NULL: nowhere). The machine has its
 * devices. Free after the machine, before its loop. */
struct monitor *monitor_new(struct machine *machine, const char *address, struct error *err);
void monitor_free(struct monitor *monitor); /* NULL is fine */

/*
 * What the commands that plug call; without it they say that nothing can be plugged. *out_id is the
 * device's. remove() only asks the guest, unless by_force. change() puts an image into a CD or
 * floppy drive (id NULL: the only one); text NULL leaves it empty. Is the tray locked it only asks
 * the guest
 * (*out_asked), unless by_force. What add() and change() open may have been given (host/given.h).
 */
enum monitor_plug { MONITOR_PLUG_DISK, MONITOR_PLUG_NET, MONITOR_PLUG_DEVICE };
struct monitor_hotplug {
    int (*add)(void *opaque, enum monitor_plug what, const char *text, const char **out_id,
               struct error *err);
    int (*remove)(void *opaque, const char *id, bool by_force, struct error *err);
    int (*change)(void *opaque, const char *id, const char *text, bool by_force,
                  const char **out_id, bool *out_asked, struct error *err);
};
void monitor_set_hotplug(struct monitor *monitor, const struct monitor_hotplug *calls,
                         void *opaque);
/* A device has gone: clients that want events are told. */
void monitor_device_removed(struct monitor *monitor, const char *id);

/* Where viewers find the screen, for the status: of VNC "HOST::PORT" or a path, and the URL of the
 * page. NULL: nowhere. Copied. */
void monitor_set_viewers(struct monitor *monitor, const char *vnc, const char *web);

/* Listen on another unix socket, too. */
int monitor_listen(struct monitor *monitor, const char *path, struct error *err);

/* What windows ask of a machine, which is opaque. */
extern const struct window_calls monitor_window_calls;

/* Serve the client at the other end of a connected socket; fd is taken over. */
void monitor_connect(struct monitor *monitor, int fd);

/* Do one request and return the reply, which the caller owns. NULL only without memory. */
json_t *monitor_execute(struct machine *machine, const json_t *request);
/* The same from and to text: one line without its newline; the reply is freed with free(). */
char *monitor_execute_line(struct machine *machine, const char *line, size_t length);

/* Cut a line into at most so many words, which point into it; returns how many. Any thread. */
#define MONITOR_MAX_WORDS 16
size_t monitor_split_words(char *line, const char *words[MONITOR_MAX_WORDS]);

/*
 * Make a request from words as a person types them: "memory-read gpa=0x7c00 size=16",
 * "inspect pit". Checks names and types against the command table, so mistakes are found
 * before anything is sent. Returns a new reference, or NULL. Any thread.
 */
json_t *monitor_parse_words(const char *const *words, size_t count, struct error *err);

/* Print a reply for people: "name: value" lines, nested ones indented; "ok" and "id" left out. */
void monitor_print_reply(FILE *out, const json_t *reply);

/* The command table, for help and completion. */
typedef void monitor_put_command(void *opaque, const char *name, const char *summary);
void monitor_list_commands(monitor_put_command *put, void *opaque);

#endif
