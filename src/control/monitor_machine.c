/*
 * monitor_machine.c - commands that look at a machine, and run and end it
 *
 * Registers can only be read while the processors are parked. A command that needs that
 * pauses a running machine for as long as it takes; such pauses are not reported as events.
 */
#include "control/monitor_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "host/host.h"
#include "machine/pc.h"
#include "trapeze/block.h"
#include "trapeze/device.h"
#include "trapeze/engine.h"
#include "trapeze/machine.h"
#include "trapeze/net.h"
#include "x86/features.h"

#define MAX_MEMORY_READ_BYTES 65536

static bool is_pausing_briefly;

bool monitor_is_pausing_briefly(void)
{
    return is_pausing_briefly;
}

/* Park the processors; returns what unpark() needs. */
static bool park(struct machine *machine)
{
    if (machine_get_state(machine) != MACHINE_RUNNING)
        return false;
    is_pausing_briefly = true;
    machine_pause(machine);
    return true;
}

static void unpark(struct machine *machine, bool parked)
{
    if (parked)
        machine_resume(machine);
    is_pausing_briefly = false;
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
        call_set(call, "state", vcpu_json(call->machine, index));
        return 0;
    }
    dev = machine_find_device(call->machine, name);
    if (!dev)
        return no_such_device(call->machine, name, err);
    call_set(call, "state", device_json(dev));
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
    call_set(call, "state", all);
}

/* ---- commands ---- */

int monitor_run_status(struct call *call, struct error *err)
{
    struct machine *machine = call->machine;
    const struct machine_config *config = machine_config(machine);

    (void)err;
    call_set(call, "name", monitor_string(config->name ? config->name : "vm"));
    call_set(call, "state", json_string(machine_state_name(machine_get_state(machine))));
    if (pc_is_asleep(machine))
        call_set(call, "asleep", json_true());
    if (machine_pause_reason(machine))
        call_set(call, "pause_reason", monitor_string(machine_pause_reason(machine)));
    call_set(call, "engine", json_string(config->engine->name));
    call_set(call, "cpu_model", monitor_string(config->cpu_model));
    call_set(call, "cpus", json_integer(machine_vcpu_count(machine)));
    call_set(call, "memory_bytes", json_integer((json_int_t)config->ram_bytes));
    call_set(call, "counted", json_boolean(config->counted));
    call_set(call, "virtual_ns",
             json_integer((json_int_t)clock_now_ns(machine_clocks(machine), CLOCK_ID_VIRTUAL)));
    if (call->client && json_object_size(call->client->monitor->viewers))
        call_set(call, "viewers", json_incref(call->client->monitor->viewers));
    if (machine_get_state(machine) == MACHINE_STOPPED) {
        call_set(call, "stop_reason", json_string(stop_reason_name(machine_stop_reason(machine))));
        call_set(call, "status", json_integer(machine_stop_status(machine)));
    }
    return 0;
}

static void add_disk(json_t *list, const char *id, const struct block *drive)
{
    struct block_counts counts = block_counts(drive);

    json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:I, s:I}", "device", id, "reads",
                                          (json_int_t)counts.reads, "read_bytes",
                                          (json_int_t)counts.read_bytes, "writes",
                                          (json_int_t)counts.writes, "written_bytes",
                                          (json_int_t)counts.written_bytes));
}

static void add_network(json_t *list, const char *id, const struct net *network)
{
    struct net_counts counts = net_counts(network);

    json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:I, s:I}", "device", id, "sent_frames",
                                          (json_int_t)counts.sent_frames, "sent_bytes",
                                          (json_int_t)counts.sent_bytes, "received_frames",
                                          (json_int_t)counts.received_frames, "received_bytes",
                                          (json_int_t)counts.received_bytes));
}

/* Of all devices with a "drive" or a "network", which are what these properties are in any class.
 */
int monitor_run_statistics(struct call *call, struct error *err)
{
    json_t *disks = json_array(), *networks = json_array();

    (void)err;
    for (struct device *dev = machine_first_device(call->machine); dev; dev = dev->next) {
        const struct block *drive = device_pointer(dev, "drive");
        const struct net *network = device_pointer(dev, "network");

        if (drive)
            add_disk(disks, dev->id, drive);
        if (network)
            add_network(networks, dev->id, network);
    }
    call_set(call, "host_ns", json_integer((json_int_t)host_monotonic_ns()));
    call_set(call, "cpu_ns", json_integer((json_int_t)host_cpu_ns()));
    call_set(call, "host_bytes",
             json_integer((json_int_t)memory_used_bytes(machine_memory(call->machine))));
    call_set(call, "disks", disks);
    call_set(call, "networks", networks);
    return 0;
}

int monitor_run_pause(struct call *call, struct error *err)
{
    if (call_expect_alive(call, err))
        return -ESHUTDOWN;
    if (machine_get_state(call->machine) == MACHINE_RUNNING)
        machine_pause(call->machine);
    return 0;
}

int monitor_run_resume(struct call *call, struct error *err)
{
    if (call_expect_alive(call, err))
        return -ESHUTDOWN;
    if (machine_get_state(call->machine) == MACHINE_PAUSED)
        machine_resume(call->machine);
    return 0;
}

int monitor_run_stop(struct call *call, struct error *err)
{
    uint64_t status = call_number(call, "status", 0);

    if (status > 255)
        return error_set(err, ERANGE, "an exit status is 0 to 255");
    machine_request_stop(call->machine, STOP_HOST, (int)status);
    return 0;
}

int monitor_run_reset(struct call *call, struct error *err)
{
    if (call_expect_alive(call, err))
        return -ESHUTDOWN;
    machine_request_reset(call->machine);
    return 0;
}

int monitor_run_powerdown(struct call *call, struct error *err)
{
    if (call_expect_alive(call, err))
        return -ESHUTDOWN;
    pc_press_power_button(call->machine);
    return 0;
}

int monitor_run_sleep(struct call *call, struct error *err)
{
    if (call_expect_alive(call, err))
        return -ESHUTDOWN;
    pc_press_sleep_button(call->machine);
    return 0;
}

int monitor_run_wake(struct call *call, struct error *err)
{
    if (call_expect_alive(call, err))
        return -ESHUTDOWN;
    if (!pc_is_asleep(call->machine))
        return error_set(err, EINVAL,
                         "the guest is not suspended to RAM; 'powerdown' presses the power button, "
                         "which ends other kinds of sleep");
    pc_wake(call->machine);
    return 0;
}

int monitor_run_inspect(struct call *call, struct error *err)
{
    const char *name = call_text(call, "device");
    bool parked = park(call->machine);
    int result = 0;

    if (name)
        result = inspect_one(call, name, err);
    else
        inspect_all(call);
    unpark(call->machine, parked);
    return result;
}

int monitor_run_devices(struct call *call, struct error *err)
{
    json_t *list = json_array();

    (void)err;
    for (struct device *dev = machine_first_device(call->machine); dev; dev = dev->next)
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:b}", "id", dev->id, "device",
                                              dev->class->name, "summary", dev->class->summary,
                                              "attached", dev->attached));
    call_set(call, "devices", list);
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

int monitor_run_memory_read(struct call *call, struct error *err)
{
    static uint8_t bytes[MAX_MEMORY_READ_BYTES];
    uint64_t gpa = call_number(call, "gpa", 0), size = call_number(call, "size", 16);

    if (size == 0 || size > sizeof(bytes))
        return error_set(err, ERANGE, "size can be 1 to %zu bytes", sizeof(bytes));
    if (memory_read(machine_memory(call->machine), gpa, bytes, size))
        return error_set(err, EFAULT, "0x%llx to 0x%llx is not all RAM or ROM",
                         (unsigned long long)gpa, (unsigned long long)(gpa + size - 1));
    call_set(call, "gpa", monitor_hex(gpa));
    call_set(call, "data", hex_bytes(bytes, size));
    return 0;
}

static int check_cpu(const struct call *call, unsigned *out_index, struct error *err)
{
    uint64_t index = call_number(call, "cpu", 0);

    if (index >= machine_vcpu_count(call->machine))
        return error_set(err, ERANGE, "there are %u processors, counted from 0",
                         machine_vcpu_count(call->machine));
    *out_index = (unsigned)index;
    return 0;
}

int monitor_run_translate(struct call *call, struct error *err)
{
    const struct engine_ops *engine = machine_config(call->machine)->engine;
    uint64_t gva = call_number(call, "gva", 0), gpa = 0;
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
    call_set(call, "gpa", monitor_hex(gpa));
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
    call_set(call, name,
             json_sprintf("0x%04x base 0x%llx limit 0x%x attributes 0x%04x", segment->selector,
                          (unsigned long long)segment->base, segment->limit, segment->attributes));
}

static void set_registers(struct call *call, const struct x86_state *state)
{
    call_set(call, "rip", monitor_hex(state->rip));
    call_set(call, "rflags", monitor_hex(state->rflags));
    for (unsigned i = 0; i < X86_GPR_COUNT; i++)
        call_set(call, gpr_names[i], monitor_hex(state->gpr[i]));
    for (unsigned i = 0; i < X86_SEGMENT_COUNT; i++)
        set_segment(call, segment_names[i], &state->seg[i]);
    set_segment(call, "ldtr", &state->ldtr);
    set_segment(call, "tr", &state->tr);
    call_set(call, "cr0", monitor_hex(state->cr0));
    call_set(call, "cr2", monitor_hex(state->cr2));
    call_set(call, "cr3", monitor_hex(state->cr3));
    call_set(call, "cr4", monitor_hex(state->cr4));
    call_set(call, "efer", monitor_hex(state->msr.efer));
    call_set(call, "activity",
             json_string(state->activity < X86_ACTIVITY_COUNT ? activity_names[state->activity]
                                                              : "unknown"));
    call_set(call, "instructions", json_integer((json_int_t)state->instructions));
}

int monitor_run_registers(struct call *call, struct error *err)
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

int monitor_run_trace(struct call *call, struct error *err)
{
    return trace_enable(call_text(call, "events"), err);
}
