/*
 * monitor_plug.c - commands for what comes and goes while a machine runs: devices, CDs and
 * floppies, memory
 */
#include "control/monitor_internal.h"

#include <errno.h>
#include <string.h>

#include "control/stream.h"
#include "devices/virtio/balloon.h"
#include "trapeze/machine.h"

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
int monitor_run_give(struct call *call, struct error *err)
{
    int fd = call->client ? stream_take_file(call->client->stream) : -1, result;

    if (fd < 0)
        return error_set(err, EBADF, "no descriptor came with it (SCM_RIGHTS)");
    result = host_given_add(&call->client->given, call_text(call, "name"),
                            (unsigned)call_number(call, "flags", 0), fd);
    return result ? error_set(err, -result, "%s", strerror(-result)) : 0;
}

/* What was given to the client's command has been opened; the rest goes. */
static void end_use(struct monitor_client *client)
{
    host_use(NULL);
    host_given_done(&client->given);
}

int monitor_run_device_add(struct call *call, struct error *err)
{
    struct monitor *monitor = plugger(call, err);
    static const char *const names[] = {"disk", "net", "device"}; /* by enum monitor_plug */
    const char *text = NULL, *id;
    enum monitor_plug what = MONITOR_PLUG_DISK;
    unsigned count = 0;
    int result;

    if (!monitor || call_expect_alive(call, err))
        return -ENOTSUP;
    for (unsigned n = 0; n < 3; n++)
        if (call_text(call, names[n])) {
            text = call_text(call, names[n]);
            what = (enum monitor_plug)n;
            count++;
        }
    if (count != 1)
        return error_set(err, EINVAL, "device-add needs one of 'disk', 'net' and 'device'");
    host_use(&call->client->given);
    result = monitor->hotplug->add(monitor->hotplug_opaque, what, text, &id, err);
    end_use(call->client);
    if (!result)
        call_set(call, "device", monitor_string(id));
    return result;
}

int monitor_run_device_remove(struct call *call, struct error *err)
{
    struct monitor *monitor = plugger(call, err);

    if (!monitor || call_expect_alive(call, err))
        return -ENOTSUP;
    return monitor->hotplug->remove(monitor->hotplug_opaque, call_text(call, "device"),
                                    call_flag(call, "force"), err);
}

/* Of both media commands: media-eject has no file. */
int monitor_run_media(struct call *call, struct error *err)
{
    struct monitor *monitor = plugger(call, err);
    const char *id;
    bool asked = false;
    int result;

    if (!monitor || call_expect_alive(call, err))
        return -ENOTSUP;
    host_use(&call->client->given);
    result = monitor->hotplug->change(monitor->hotplug_opaque, call_text(call, "device"),
                                      call_text(call, "file"), call_flag(call, "force"), &id,
                                      &asked, err);
    end_use(call->client);
    if (!result) {
        call_set(call, "device", monitor_string(id));
        call_set(call, "asked", json_boolean(asked));
    }
    return result;
}

static void add_statistic(void *opaque, const char *name, uint64_t value)
{
    json_object_set_new(opaque, name, json_integer((json_int_t)value));
}

void monitor_set_balloon(json_t *object, struct machine *machine, struct device *balloon)
{
    json_t *statistics = json_object();

    json_object_set_new(object, "memory_bytes", json_integer((json_int_t)balloon_memory(balloon)));
    json_object_set_new(object, "target_bytes", json_integer((json_int_t)balloon_target(balloon)));
    json_object_set_new(object, "host_bytes",
                        json_integer((json_int_t)memory_used_bytes(machine_memory(machine))));
    balloon_statistics(balloon, add_statistic, statistics);
    json_object_set_new(object, "statistics", statistics);
}

int monitor_run_balloon(struct call *call, struct error *err)
{
    struct device *balloon = balloon_find(call->machine);
    uint64_t ram = machine_config(call->machine)->ram_bytes, size = call_number(call, "size", ram);

    if (!balloon)
        return error_set(err, ENODEV, "the machine has no balloon; run it with --balloon on");
    if (call_expect_alive(call, err))
        return -ESHUTDOWN;
    if (size < MACHINE_MIN_RAM_BYTES || size > ram)
        return error_set(err, ERANGE, "size can be 1M to %lluM, which is all that there is",
                         (unsigned long long)(ram >> 20));
    if (json_object_get(call->request, "size"))
        balloon_set_target(balloon, size);
    call_set(call, "asked", json_boolean(balloon_ask(balloon)));
    monitor_set_balloon(call->reply, call->machine, balloon);
    return 0;
}
