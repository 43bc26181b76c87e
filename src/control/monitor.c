/*
 * monitor.c - commands to a running machine, as JSON lines over a socket: clients, and events
 *
 * Theory of operation. Commands are a table with typed arguments; checking, help and
 * the command line client walk it. A request is one line of JSON, answered by one line, in
 * order. Whoever can open the socket owns the machine, so the socket is for its owner only,
 * but a client must still not be able to harm the process: lines have a largest length, the
 * rest of a longer one is skipped; input is checked by the JSON parser (UTF-8, depth, types)
 * and by the table; output that a client does not read stops its input (stream.c).
 */
#include "control/monitor_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/display/typist.h"
#include "base/log.h"
#include "control/stream.h"
#include "devices/ata/ata.h"
#include "devices/virtio/balloon.h"
#include "host/loop.h"
#include "machine/pc.h"
#include "trapeze/device.h"
#include "trapeze/machine.h"

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
    reply = monitor_answer_line(&call, client->line, client->length);
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

static void tell_of_sleep(void *opaque)
{
    struct monitor *monitor = opaque;
    bool asleep = pc_is_asleep(monitor->machine);
    json_t *event = json_pack("{s:s, s:b}", "event", "sleep", "asleep", asleep);

    monitor->sleep_has_news = false;
    if (event && asleep != monitor->told_asleep)
        broadcast(monitor, event);
    monitor->told_asleep = asleep;
    json_decref(event);
}

static void tell_of_state(struct monitor *monitor, enum machine_state state)
{
    struct machine *machine = monitor->machine;
    json_t *event;

    event = json_pack("{s:s, s:s}", "event", "state", "state", machine_state_name(state));
    if (event && state == MACHINE_STOPPED) {
        json_object_set_new(event, "reason",
                            json_string(stop_reason_name(machine_stop_reason(machine))));
        json_object_set_new(event, "status", json_integer(machine_stop_status(machine)));
    }
    if (event && state == MACHINE_PAUSED && machine_pause_reason(machine))
        json_object_set_new(event, "reason", monitor_string(machine_pause_reason(machine)));
    if (event)
        broadcast(monitor, event);
    json_decref(event);
}

/* A reset, a sleep or a wake is no change of state. */
static void on_machine_state(void *opaque, struct machine *machine, enum machine_state state)
{
    struct monitor *monitor = opaque;

    if (pc_is_asleep(machine) != monitor->told_asleep && !monitor->sleep_has_news)
        monitor->sleep_has_news = loop_defer(machine_loop(machine), tell_of_sleep, monitor) == 0;
    if (monitor_is_pausing_briefly() || state == monitor->told_state)
        return;
    monitor->told_state = state;
    if (monitor->clients)
        tell_of_state(monitor, state);
}

static void tell_of_balloon(void *opaque)
{
    struct monitor *monitor = opaque;
    json_t *event;

    monitor->balloon_has_news = false;
    event = json_pack("{s:s}", "event", "balloon");
    if (event) {
        monitor_set_balloon(event, monitor->machine, balloon_find(monitor->machine));
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
    monitor->told_state = machine_get_state(machine);
    monitor->windows =
        (struct windows){.machine = machine, .calls = &monitor_window_calls, .opaque = machine};
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

void monitor_set_viewers(struct monitor *monitor, const char *vnc, const char *web)
{
    json_decref(monitor->viewers);
    monitor->viewers = json_pack("{s:o*, s:o*}", "vnc", vnc ? monitor_string(vnc) : NULL, "web",
                                 web ? monitor_string(web) : NULL);
}

int monitor_listen(struct monitor *monitor, const char *path, struct error *err)
{
    monitor->other_server =
        stream_listen(machine_loop(monitor->machine), path, on_client, monitor, err);
    return monitor->other_server ? 0 : -err->code;
}

void monitor_free(struct monitor *monitor)
{
    if (!monitor)
        return;
    stream_server_free(monitor->server);
    stream_server_free(monitor->other_server);
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
    windows_done(&monitor->windows);
    typist_free(monitor->typist);
    json_decref(monitor->viewers);
    free(monitor);
}
