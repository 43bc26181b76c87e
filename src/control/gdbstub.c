/*
 * gdbstub.c - a debugger for the guest, by GDB's remote protocol
 *
 * After the GDB manual, appendix E. All-stop mode; each processor is a thread (cpu0 is
 * thread 1). Left out: non-stop mode, reverse execution, tracepoints, files, the
 * 32-bit target description.
 *
 * Theory of operation. The stub is either stopped or running.
 *
 *   stopped   the machine is paused. Every command is answered at once.
 *   running   after c, s, vCont. Only Ctrl-C, detach and kill are obeyed. It ends with a
 *             stop reply: a processor left its engine with EXIT_DEBUG (on_debug_exit), the
 *             user pressed Ctrl-C, or the machine ended.
 *
 * When a debugger connects, the machine is paused; when it goes, with or without detaching, its
 * breakpoints go and the machine continues. While the stub is stopped nobody else can
 * resume the machine: it is paused again at once. A pause by somebody else while the stub is
 * running is not reported: the guest just takes longer.
 *
 * Breakpoints and watchpoints, "software" and "hardware" alike, are linear addresses that
 * the engine compares (engine_ops.debug); guest memory is not changed, so all are
 * invisible to the guest and their number is bounded by MAX_POINTS only. A breakpoint stops before
 * its instruction, each time: debuggers take it out to step over it.
 *
 * Addresses are linear ones of the thread that was chosen with Hg, translated without side
 * effects; "monitor phys on" makes them guest-physical.
 */
#include "control/gdbstub.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "control/gdb_packet.h"
#include "control/gdb_registers.h"
#include "control/monitor.h"
#include "control/stream.h"
#include "host/loop.h"
#include "trapeze/engine.h"
#include "trapeze/machine.h"

#define MAX_POINTS         256
#define MAX_ENGINE_POINTS  (2 * MAX_POINTS) /* an access watchpoint is a read and a write one */
#define MAX_READ_BYTES     (GDB_PACKET_BYTES / 2 - 16)
#define MAX_MONITOR_WORDS  16
#define OUTPUT_CHUNK_BYTES 4096

#define SIGNAL_INT         2
#define SIGNAL_TRAP        5

/* Types of the Z packet. */
enum point_type { POINT_SOFTWARE, POINT_HARDWARE, POINT_WRITE, POINT_READ, POINT_ACCESS };

struct point {
    enum point_type type;
    uint64_t gva, size_bytes;
};

struct gdbstub {
    struct machine *machine;
    struct stream_server *server;
    struct stream *stream; /* NULL: no debugger is connected */

    struct gdb_receiver receiver;
    struct gdb_reply reply;
    uint8_t frame[GDB_FRAME_BYTES]; /* what was sent last, for a NAK */
    size_t frame_size;
    bool no_ack;
    bool no_ack_next; /* after the acknowledge of the reply to QStartNoAckMode */

    bool attached; /* connected, and not detached */
    bool running;
    bool changing_state; /* this file calls machine_pause or machine_resume */
    unsigned thread;     /* index of the vCPU for g, m and so on (Hg) */
    unsigned stop_thread;
    char stop_reply[96];
    bool reports_swbreak; /* the debugger understands these stop reasons */
    bool reports_hwbreak;
    bool physical; /* addresses are guest-physical */

    struct point points[MAX_POINTS];
    unsigned point_count;
    struct debug_point engine_points[MAX_ENGINE_POINTS];
    unsigned engine_point_count;
    struct debug_request requests[MACHINE_MAX_VCPUS];
};

static const struct engine_ops *engine_of(const struct gdbstub *stub)
{
    return machine_config(stub->machine)->engine;
}

static struct vcpu *vcpu_of(const struct gdbstub *stub)
{
    return machine_vcpu(stub->machine, stub->thread);
}

/* ---- sending ---- */

static void send_frame(struct gdbstub *stub)
{
    stub->frame_size = gdb_frame(&stub->reply, stub->frame);
    stream_send(stub->stream, stub->frame, stub->frame_size);
}

static void reply_text(struct gdbstub *stub, const char *text)
{
    stub->reply.size = 0;
    gdb_put(&stub->reply, "%s", text);
}

static void reply_error(struct gdbstub *stub, int error)
{
    stub->reply.size = 0;
    gdb_put(&stub->reply, "E%02x", error & 0xff);
}

/* A packet that is not an answer to one, or before the answer. */
static void send_text(struct gdbstub *stub, const char *text)
{
    reply_text(stub, text);
    send_frame(stub);
    stub->reply.size = 0;
}

/* ---- breakpoints and watchpoints ---- */

static void add_engine_point(struct gdbstub *stub, const struct point *point, enum debug_cause kind)
{
    stub->engine_points[stub->engine_point_count++] =
        (struct debug_point){.kind = kind, .gva = point->gva, .size_bytes = point->size_bytes};
}

static void list_engine_points(struct gdbstub *stub)
{
    stub->engine_point_count = 0;
    for (unsigned i = 0; i < stub->point_count; i++) {
        const struct point *point = &stub->points[i];

        if (point->type == POINT_SOFTWARE || point->type == POINT_HARDWARE)
            add_engine_point(stub, point, DEBUG_BREAKPOINT);
        if (point->type == POINT_WRITE || point->type == POINT_ACCESS)
            add_engine_point(stub, point, DEBUG_WATCH_WRITE);
        if (point->type == POINT_READ || point->type == POINT_ACCESS)
            add_engine_point(stub, point, DEBUG_WATCH_READ);
    }
}

static int request_debug(struct gdbstub *stub, unsigned index, struct error *err)
{
    struct debug_request *request = &stub->requests[index];
    const struct engine_ops *engine = engine_of(stub);
    bool wanted = request->step || stub->engine_point_count;

    request->points = stub->engine_points;
    request->point_count = stub->engine_point_count;
    if (!engine->debug)
        return wanted ? error_set(err, ENOTSUP, "engine %s has no breakpoints", engine->name) : 0;
    return engine->debug(machine_vcpu(stub->machine, index), wanted ? request : NULL, err);
}

/* Tell the engine about all points. Processors are parked. */
static int apply_points(struct gdbstub *stub)
{
    struct error err = {0};

    list_engine_points(stub);
    for (unsigned i = 0; i < machine_vcpu_count(stub->machine); i++)
        if (request_debug(stub, i, &err)) {
            log_warn("gdb: %s", err.text);
            return -err.code;
        }
    return 0;
}

static void clear_debug(struct gdbstub *stub)
{
    stub->point_count = 0;
    for (unsigned i = 0; i < MACHINE_MAX_VCPUS; i++)
        stub->requests[i].step = false;
    apply_points(stub);
}

static int find_point(const struct gdbstub *stub, const struct point *wanted)
{
    for (unsigned i = 0; i < stub->point_count; i++) {
        const struct point *point = &stub->points[i];

        if (point->type == wanted->type && point->gva == wanted->gva &&
            point->size_bytes == wanted->size_bytes)
            return (int)i;
    }
    return -1;
}

static int insert_point(struct gdbstub *stub, const struct point *point)
{
    int result;

    if (find_point(stub, point) >= 0)
        return 0;
    if (stub->point_count == MAX_POINTS)
        return -ENOSPC;
    stub->points[stub->point_count++] = *point;
    result = apply_points(stub);
    if (result) {
        stub->point_count--;
        apply_points(stub);
    }
    return result;
}

static int remove_point(struct gdbstub *stub, const struct point *point)
{
    int index = find_point(stub, point);

    if (index < 0)
        return -ENOENT;
    stub->points[index] = stub->points[--stub->point_count];
    return apply_points(stub);
}

/* ---- running and stopping ---- */

static void set_running(struct gdbstub *stub, bool running)
{
    enum machine_state state = machine_get_state(stub->machine);

    stub->changing_state = true;
    stub->running = running;
    if (running && state == MACHINE_PAUSED)
        machine_resume(stub->machine);
    else if (!running && state == MACHINE_RUNNING)
        machine_pause(stub->machine);
    stub->changing_state = false;
}

static void let_all_run(struct gdbstub *stub)
{
    for (unsigned i = 0; i < machine_vcpu_count(stub->machine); i++)
        machine_hold_vcpu(stub->machine, i, false);
}

static void note_stop(struct gdbstub *stub, unsigned index, unsigned signal, const char *reason)
{
    stub->stop_thread = stub->thread = index;
    snprintf(stub->stop_reply, sizeof(stub->stop_reply), "T%02xthread:%x;%s", signal, index + 1,
             reason);
}

/* The processors are parked: report why, if the debugger waits for that. */
static void report_stop(struct gdbstub *stub, unsigned index, unsigned signal, const char *reason)
{
    set_running(stub, false);
    let_all_run(stub);
    for (unsigned i = 0; i < MACHINE_MAX_VCPUS; i++)
        stub->requests[i].step = false;
    apply_points(stub);
    note_stop(stub, index, signal, reason);
    send_text(stub, stub->stop_reply);
}

/* "swbreak:;" where the debugger knows the word. */
static const char *breakpoint_reason(const struct gdbstub *stub, const struct x86_state *state)
{
    uint64_t linear = state->seg[X86_CS].base + state->rip; /* the base is 0 in 64-bit mode */

    for (unsigned i = 0; i < stub->point_count; i++) {
        const struct point *point = &stub->points[i];

        if (point->gva != state->rip && point->gva != linear)
            continue;
        if (point->type == POINT_SOFTWARE && stub->reports_swbreak)
            return "swbreak:;";
        if (point->type == POINT_HARDWARE && stub->reports_hwbreak)
            return "hwbreak:;";
    }
    return "";
}

/* Which watchpoint the engine means: it says where, the debugger wants to hear its kind. */
static void watch_reason(const struct gdbstub *stub, const struct vcpu_exit *exit, char *reason,
                         size_t size)
{
    static const char *const words[] = {
        [POINT_WRITE] = "watch", [POINT_READ] = "rwatch", [POINT_ACCESS] = "awatch"};
    enum point_type plain = exit->debug.cause == DEBUG_WATCH_READ ? POINT_READ : POINT_WRITE;

    for (unsigned i = 0; i < stub->point_count; i++) {
        const struct point *point = &stub->points[i];

        if ((point->type == plain || point->type == POINT_ACCESS) &&
            exit->debug.gva - point->gva < point->size_bytes) {
            snprintf(reason, size, "%s:%" PRIx64 ";", words[point->type], exit->debug.gva);
            return;
        }
    }
    snprintf(reason, size, "%s:%" PRIx64 ";", words[plain], exit->debug.gva);
}

static void on_debug_exit(void *opaque, struct vcpu *vcpu, const struct vcpu_exit *exit)
{
    struct gdbstub *stub = opaque;
    char reason[64] = "";

    if (!stub->attached) {
        set_running(stub, true);
        return;
    }
    if (exit->debug.cause == DEBUG_BREAKPOINT)
        snprintf(reason, sizeof(reason), "%s", breakpoint_reason(stub, &vcpu->state));
    else if (exit->debug.cause != DEBUG_STEP)
        watch_reason(stub, exit, reason, sizeof(reason));
    report_stop(stub, vcpu->index, SIGNAL_TRAP, reason);
}

/* What one processor is to do next. */
enum action { ACTION_NONE, ACTION_CONTINUE, ACTION_STEP };

/* Set the processors going. Returns false (and stays stopped) if nothing would run. */
static bool go(struct gdbstub *stub, const enum action actions[MACHINE_MAX_VCPUS])
{
    unsigned count = machine_vcpu_count(stub->machine), going = 0;

    for (unsigned i = 0; i < count; i++) {
        stub->requests[i].step = actions[i] == ACTION_STEP;
        going += actions[i] != ACTION_NONE;
    }
    if (going == 0 || machine_get_state(stub->machine) == MACHINE_STOPPED || apply_points(stub))
        return false;
    for (unsigned i = 0; i < count; i++)
        machine_hold_vcpu(stub->machine, i, actions[i] == ACTION_NONE);
    set_running(stub, true);
    return true;
}

/* ---- packets: state ---- */

/* Handlers get the text behind the packet's name and leave the answer in stub->reply. */
typedef void packet_fn(struct gdbstub *stub, const char *text, size_t size);

static void packet_stop_reason(struct gdbstub *stub, const char *text, size_t size)
{
    reply_text(stub, stub->stop_reply);
}

/* Thread ids are hexadecimal; 0 is any and -1 all, for both of which *out_all is set. */
static bool get_thread(const struct gdbstub *stub, const char **text, unsigned *out_index,
                       bool *out_all)
{
    uint64_t id;

    *out_all = gdb_get_word(text, "-1");
    if (*out_all)
        return true;
    if (!gdb_get_hex(text, &id) || id > machine_vcpu_count(stub->machine))
        return false;
    *out_all = id == 0;
    *out_index = id ? (unsigned)id - 1 : 0;
    return true;
}

static void packet_set_thread(struct gdbstub *stub, const char *text, size_t size)
{
    bool all, general = gdb_get_char(&text, 'g');
    unsigned index;

    if (!general && !gdb_get_char(&text, 'c')) {
        reply_error(stub, EINVAL);
        return;
    }
    if (!get_thread(stub, &text, &index, &all)) {
        reply_error(stub, ESRCH);
        return;
    }
    if (general && !all)
        stub->thread = index;
    reply_text(stub, "OK");
}

static void packet_thread_alive(struct gdbstub *stub, const char *text, size_t size)
{
    unsigned index;
    bool all;

    if (get_thread(stub, &text, &index, &all) && !all)
        reply_text(stub, "OK");
    else
        reply_error(stub, ESRCH);
}

/* ---- packets: registers ---- */

/* While the processors are parked, registers are in vcpu->state; the engine's translate and
 * debug look at its own copy. */
static void registers_written(const struct gdbstub *stub, struct vcpu *vcpu)
{
    if (engine_of(stub)->set_state)
        engine_of(stub)->set_state(vcpu);
}

static void packet_read_registers(struct gdbstub *stub, const char *text, size_t size)
{
    struct vcpu *vcpu = vcpu_of(stub);

    for (unsigned i = 0; i < gdb_register_count(); i++) {
        uint8_t value[GDB_MAX_REGISTER_BYTES];

        gdb_register_read(vcpu, i, value);
        gdb_put_hex(&stub->reply, value, gdb_register_size(i));
    }
}

/* Values may end early. What cannot be written keeps its value, and the reply says so. */
static void packet_write_registers(struct gdbstub *stub, const char *text, size_t size)
{
    struct vcpu *vcpu = vcpu_of(stub);
    bool refused = false;

    for (unsigned i = 0; i < gdb_register_count() && *text; i++) {
        uint8_t value[GDB_MAX_REGISTER_BYTES];

        if (!gdb_get_bytes(&text, value, gdb_register_size(i))) {
            reply_error(stub, EINVAL);
            return;
        }
        refused |= !gdb_register_write(vcpu, i, value);
    }
    registers_written(stub, vcpu);
    if (refused)
        reply_error(stub, EPERM);
    else
        reply_text(stub, "OK");
}

static bool get_register_number(const char **text, unsigned *out_number)
{
    uint64_t number;

    if (!gdb_get_hex(text, &number) || number >= gdb_register_count())
        return false;
    *out_number = (unsigned)number;
    return true;
}

static void packet_read_register(struct gdbstub *stub, const char *text, size_t size)
{
    struct vcpu *vcpu = vcpu_of(stub);
    uint8_t value[GDB_MAX_REGISTER_BYTES];
    unsigned number;

    if (!get_register_number(&text, &number)) {
        reply_error(stub, EINVAL);
        return;
    }
    gdb_register_read(vcpu, number, value);
    gdb_put_hex(&stub->reply, value, gdb_register_size(number));
}

static void packet_write_register(struct gdbstub *stub, const char *text, size_t size)
{
    struct vcpu *vcpu = vcpu_of(stub);
    uint8_t value[GDB_MAX_REGISTER_BYTES];
    unsigned number;

    if (!get_register_number(&text, &number) || !gdb_get_char(&text, '=') ||
        !gdb_get_bytes(&text, value, gdb_register_size(number))) {
        reply_error(stub, EINVAL);
        return;
    }
    if (!gdb_register_write(vcpu, number, value)) {
        reply_error(stub, EPERM);
        return;
    }
    registers_written(stub, vcpu);
    reply_text(stub, "OK");
}

/* ---- packets: memory ---- */

static bool to_physical(const struct gdbstub *stub, uint64_t address, uint64_t *out_gpa)
{
    const struct engine_ops *engine = engine_of(stub);

    if (stub->physical || !engine->translate) {
        *out_gpa = address;
        return true;
    }
    return engine->translate(vcpu_of(stub), address, out_gpa);
}

/* Bytes from address to the end of its page, at most size. */
static size_t within_page(uint64_t address, size_t size)
{
    size_t rest = GUEST_PAGE_SIZE - (size_t)(address & (GUEST_PAGE_SIZE - 1));

    return size < rest ? size : rest;
}

/* Returns how many bytes could be read. */
static size_t read_guest(const struct gdbstub *stub, uint64_t address, uint8_t *out, size_t size)
{
    size_t done = 0;

    while (done < size) {
        size_t part = within_page(address + done, size - done);
        uint64_t gpa;

        if (!to_physical(stub, address + done, &gpa) ||
            memory_read(machine_memory(stub->machine), gpa, out + done, part))
            break;
        done += part;
    }
    return done;
}

static bool write_guest(const struct gdbstub *stub, uint64_t address, const uint8_t *data,
                        size_t size)
{
    for (size_t done = 0; done < size;) {
        size_t part = within_page(address + done, size - done);
        uint64_t gpa;

        if (!to_physical(stub, address + done, &gpa) ||
            memory_write(machine_memory(stub->machine), gpa, data + done, part))
            return false;
        done += part;
    }
    return true;
}

/* "address,length" */
static bool get_range(const char **text, uint64_t *out_address, uint64_t *out_size)
{
    return gdb_get_hex(text, out_address) && gdb_get_char(text, ',') && gdb_get_hex(text, out_size);
}

static void packet_read_memory(struct gdbstub *stub, const char *text, size_t size)
{
    static uint8_t bytes[MAX_READ_BYTES];
    uint64_t address, length;
    size_t done;

    if (!get_range(&text, &address, &length)) {
        reply_error(stub, EINVAL);
        return;
    }
    if (length > sizeof(bytes))
        length = sizeof(bytes);
    done = read_guest(stub, address, bytes, length);
    if (done == 0 && length > 0)
        reply_error(stub, EFAULT);
    else
        gdb_put_hex(&stub->reply, bytes, done);
}

static void reply_written(struct gdbstub *stub, uint64_t address, const uint8_t *data, size_t size)
{
    if (write_guest(stub, address, data, size))
        reply_text(stub, "OK");
    else
        reply_error(stub, EFAULT);
}

static void packet_write_memory(struct gdbstub *stub, const char *text, size_t size)
{
    static uint8_t bytes[GDB_PACKET_BYTES / 2];
    uint64_t address, length;

    if (!get_range(&text, &address, &length) || !gdb_get_char(&text, ':') ||
        length > sizeof(bytes) || !gdb_get_bytes(&text, bytes, length)) {
        reply_error(stub, EINVAL);
        return;
    }
    reply_written(stub, address, bytes, length);
}

static void packet_write_binary(struct gdbstub *stub, const char *text, size_t size)
{
    const char *end = text + size;
    uint64_t address, length;

    if (!get_range(&text, &address, &length) || !gdb_get_char(&text, ':') ||
        length != (uint64_t)(end - text)) {
        reply_error(stub, EINVAL);
        return;
    }
    reply_written(stub, address, (const uint8_t *)text, length);
}

/* ---- packets: breakpoints ---- */

static bool get_point(const char *text, struct point *point)
{
    uint64_t type;

    if (!gdb_get_hex(&text, &type) || type > POINT_ACCESS || !gdb_get_char(&text, ',') ||
        !get_range(&text, &point->gva, &point->size_bytes))
        return false;
    point->type = (enum point_type)type;
    if (point->type == POINT_SOFTWARE || point->type == POINT_HARDWARE)
        point->size_bytes = 1;
    return point->size_bytes > 0 && point->size_bytes <= GUEST_PAGE_SIZE;
}

static void change_point(struct gdbstub *stub, const char *text,
                         int (*change)(struct gdbstub *stub, const struct point *point))
{
    struct point point;
    int result;

    if (!engine_of(stub)->debug)
        return; /* an empty reply: not supported */
    result = get_point(text, &point) ? change(stub, &point) : -EINVAL;
    if (result)
        reply_error(stub, -result);
    else
        reply_text(stub, "OK");
}

static void packet_insert_point(struct gdbstub *stub, const char *text, size_t size)
{
    change_point(stub, text, insert_point);
}

static void packet_remove_point(struct gdbstub *stub, const char *text, size_t size)
{
    change_point(stub, text, remove_point);
}

/* ---- packets: running ---- */

static void go_or_report(struct gdbstub *stub, const enum action actions[MACHINE_MAX_VCPUS])
{
    if (!go(stub, actions))
        reply_error(stub, EINVAL);
}

/* "c [address]", "s [address]" for the current thread; the others continue. */
static void go_from(struct gdbstub *stub, const char *text, enum action action)
{
    enum action actions[MACHINE_MAX_VCPUS];
    struct vcpu *vcpu = vcpu_of(stub);
    uint64_t address;

    if (gdb_get_hex(&text, &address)) {
        vcpu->state.rip = address;
        registers_written(stub, vcpu);
    }
    for (unsigned i = 0; i < MACHINE_MAX_VCPUS; i++)
        actions[i] = i == stub->thread ? action : ACTION_CONTINUE;
    go_or_report(stub, actions);
}

static void packet_continue(struct gdbstub *stub, const char *text, size_t size)
{
    go_from(stub, text, ACTION_CONTINUE);
}

static void packet_step(struct gdbstub *stub, const char *text, size_t size)
{
    go_from(stub, text, ACTION_STEP);
}

/* "C signal[;address]": signals mean nothing to a machine. */
static void packet_continue_signal(struct gdbstub *stub, const char *text, size_t size)
{
    go_from(stub, strchr(text, ';') ? strchr(text, ';') + 1 : "", ACTION_CONTINUE);
}

static void packet_step_signal(struct gdbstub *stub, const char *text, size_t size)
{
    go_from(stub, strchr(text, ';') ? strchr(text, ';') + 1 : "", ACTION_STEP);
}

/* "c", "s", "C05" or "S05" */
static bool get_action(const char **text, enum action *out_action)
{
    char letter = **text;
    uint64_t signal;

    if (letter == '\0' || !strchr("csCS", letter))
        return false;
    (*text)++;
    if ((letter == 'C' || letter == 'S') && !gdb_get_hex(text, &signal))
        return false;
    *out_action = letter == 'c' || letter == 'C' ? ACTION_CONTINUE : ACTION_STEP;
    return true;
}

/* The leftmost action that names a thread is its own. */
static void assign_action(const struct gdbstub *stub, enum action actions[MACHINE_MAX_VCPUS],
                          enum action action, unsigned index, bool all)
{
    for (unsigned i = 0; i < machine_vcpu_count(stub->machine); i++)
        if (actions[i] == ACTION_NONE && (all || i == index))
            actions[i] = action;
}

static void packet_vcont(struct gdbstub *stub, const char *text, size_t size)
{
    enum action actions[MACHINE_MAX_VCPUS] = {ACTION_NONE}, action;

    while (gdb_get_char(&text, ';')) {
        unsigned index = 0;
        bool all = true;

        if (!get_action(&text, &action) ||
            (gdb_get_char(&text, ':') && !get_thread(stub, &text, &index, &all))) {
            reply_error(stub, EINVAL);
            return;
        }
        assign_action(stub, actions, action, index, all);
    }
    go_or_report(stub, actions);
}

static void packet_vcont_query(struct gdbstub *stub, const char *text, size_t size)
{
    reply_text(stub, "vCont;c;C;s;S");
}

/* Take everything back that was asked of the machine, and let it run. */
static void let_go(struct gdbstub *stub)
{
    if (!stub->attached || machine_get_state(stub->machine) == MACHINE_STOPPED)
        return;
    set_running(stub, false);
    clear_debug(stub);
    let_all_run(stub);
    set_running(stub, true);
    stub->attached = false;
    log_info("gdb: the debugger is gone, the machine goes on");
}

static void packet_detach(struct gdbstub *stub, const char *text, size_t size)
{
    let_go(stub);
    reply_text(stub, "OK");
}

static void packet_kill(struct gdbstub *stub, const char *text, size_t size)
{
    log_info("gdb: the debugger ended the machine");
    machine_request_stop(stub->machine, STOP_HOST, 0);
}

static void packet_vkill(struct gdbstub *stub, const char *text, size_t size)
{
    packet_kill(stub, text, size);
    reply_text(stub, "OK");
}

/* ---- packets: queries ---- */

static void packet_supported(struct gdbstub *stub, const char *text, size_t size)
{
    stub->reports_swbreak = strstr(text, "swbreak+") != NULL;
    stub->reports_hwbreak = strstr(text, "hwbreak+") != NULL;
    gdb_put(&stub->reply,
            "PacketSize=%x;qXfer:features:read+;QStartNoAckMode+;vContSupported+;swbreak+;"
            "hwbreak+",
            GDB_PACKET_BYTES);
}

static void packet_no_ack(struct gdbstub *stub, const char *text, size_t size)
{
    stub->no_ack_next = true;
    reply_text(stub, "OK");
}

static void packet_current_thread(struct gdbstub *stub, const char *text, size_t size)
{
    gdb_put(&stub->reply, "QC%x", stub->thread + 1);
}

static void packet_first_threads(struct gdbstub *stub, const char *text, size_t size)
{
    for (unsigned i = 0; i < machine_vcpu_count(stub->machine); i++)
        gdb_put(&stub->reply, "%c%x", i ? ',' : 'm', i + 1);
}

static void packet_next_threads(struct gdbstub *stub, const char *text, size_t size)
{
    reply_text(stub, "l");
}

static void packet_thread_info(struct gdbstub *stub, const char *text, size_t size)
{
    static const char *const activities[X86_ACTIVITY_COUNT] = {
        [X86_ACTIVE] = "running",
        [X86_HALTED] = "halted",
        [X86_WAIT_FOR_SIPI] = "waiting for start-up",
        [X86_SHUTDOWN] = "shut down",
    };
    char info[64];
    struct vcpu *vcpu;
    unsigned index;
    bool all;

    if (!get_thread(stub, &text, &index, &all) || all) {
        reply_error(stub, ESRCH);
        return;
    }
    vcpu = machine_vcpu(stub->machine, index);
    snprintf(info, sizeof(info), "cpu%u [%s]", index,
             vcpu->state.activity < X86_ACTIVITY_COUNT ? activities[vcpu->state.activity] : "?");
    gdb_put_hex(&stub->reply, info, strlen(info));
}

static void packet_features(struct gdbstub *stub, const char *text, size_t size)
{
    const char *xml = gdb_target_xml();
    uint64_t offset, length, total = strlen(xml);

    if (!gdb_get_word(&text, "target.xml:") || !get_range(&text, &offset, &length)) {
        reply_text(stub, "E00");
        return;
    }
    if (offset > total)
        offset = total;
    if (length > GDB_PACKET_BYTES / 2)
        length = GDB_PACKET_BYTES / 2;
    if (length > total - offset)
        length = total - offset;
    gdb_put(&stub->reply, "%c", offset + length < total ? 'm' : 'l');
    gdb_put_bytes(&stub->reply, xml + offset, length);
}

static void packet_attached(struct gdbstub *stub, const char *text, size_t size)
{
    reply_text(stub, "1");
}

static void packet_physical_query(struct gdbstub *stub, const char *text, size_t size)
{
    reply_text(stub, stub->physical ? "1" : "0");
}

static void packet_physical_set(struct gdbstub *stub, const char *text, size_t size)
{
    stub->physical = *text == '1';
    reply_text(stub, "OK");
}

/* ---- packets: monitor ---- */

/* Output of "monitor ..." goes ahead of the reply, in pieces. */
static void send_output(struct gdbstub *stub, const char *text, size_t size)
{
    for (size_t done = 0; done < size;) {
        size_t part = size - done < OUTPUT_CHUNK_BYTES ? size - done : OUTPUT_CHUNK_BYTES;

        stub->reply.size = 0;
        gdb_put(&stub->reply, "O");
        gdb_put_hex(&stub->reply, text + done, part);
        send_frame(stub);
        done += part;
    }
    stub->reply.size = 0;
}

static void send_output_line(struct gdbstub *stub, const char *text)
{
    char line[ERROR_TEXT_SIZE + 2];
    int length = snprintf(line, sizeof(line), "%s\n", text);

    send_output(stub, line, (size_t)length);
}

static void monitor_phys(struct gdbstub *stub, const char *value)
{
    if (value && strcmp(value, "on") == 0)
        stub->physical = true;
    else if (value && strcmp(value, "off") == 0)
        stub->physical = false;
    else if (value)
        send_output_line(stub, "phys can be on or off");
    send_output_line(stub, stub->physical ? "addresses are guest-physical"
                                          : "addresses are linear, of the current thread");
}

static void print_command(void *opaque, const char *name, const char *summary)
{
    char line[160];

    snprintf(line, sizeof(line), "%-12s %s", name, summary);
    send_output_line(opaque, line);
}

static void monitor_help(struct gdbstub *stub)
{
    print_command(stub, "phys", "see guest-physical memory: phys on, phys off");
    monitor_list_commands(print_command, stub);
}

static void monitor_words(struct gdbstub *stub, const char *const *words, size_t count)
{
    struct error err = {0};
    json_t *request = monitor_parse_words(words, count, &err);
    json_t *answer = request ? monitor_execute(stub->machine, request) : NULL;
    char *text = NULL;
    size_t size = 0;
    FILE *out = answer ? open_memstream(&text, &size) : NULL;

    if (out) {
        monitor_print_reply(out, answer);
        fclose(out);
        send_output(stub, text, size);
        free(text);
    } else {
        send_output_line(stub, err.code ? err.text : "out of memory");
    }
    json_decref(answer);
    json_decref(request);
}

static size_t split_words(char *line, const char **words)
{
    size_t count = 0;

    for (char *rest = line, *word; count < MAX_MONITOR_WORDS && (word = strsep(&rest, " \t\r\n"));)
        if (*word)
            words[count++] = word;
    return count;
}

static void monitor_line(struct gdbstub *stub, char *line)
{
    const char *words[MAX_MONITOR_WORDS + 1] = {NULL};
    size_t count = split_words(line, words);

    if (count == 0 || strcmp(words[0], "help") == 0)
        monitor_help(stub);
    else if (strcmp(words[0], "phys") == 0)
        monitor_phys(stub, words[1]);
    else if (strcmp(words[0], "resume") == 0 || strcmp(words[0], "pause") == 0)
        send_output_line(stub, "use the debugger's own continue and interrupt");
    else
        monitor_words(stub, words, count);
}

static void packet_monitor(struct gdbstub *stub, const char *text, size_t size)
{
    static char line[GDB_PACKET_BYTES / 2 + 1];
    size_t length = strlen(text) / 2;

    if (length >= sizeof(line) || !gdb_get_bytes(&text, line, length) || *text) {
        reply_error(stub, EINVAL);
        return;
    }
    line[length] = '\0';
    monitor_line(stub, line);
    reply_text(stub, "OK");
}

/* ---- the table of packets ---- */

struct packet {
    const char *name;
    packet_fn *handle;
    bool while_running; /* allowed then too */
    bool whole;         /* nothing may follow the name, so that "qC" is not "qCRC" */
};

/* The first entry that a packet begins with is taken. What is missing gets an empty reply. */
static const struct packet packets[] = {
    {"?", packet_stop_reason, .whole = true},
    {"c", packet_continue},
    {"C", packet_continue_signal},
    {"D", packet_detach, .while_running = true},
    {"g", packet_read_registers, .whole = true},
    {"G", packet_write_registers},
    {"H", packet_set_thread},
    {"k", packet_kill, .while_running = true},
    {"m", packet_read_memory},
    {"M", packet_write_memory},
    {"p", packet_read_register},
    {"P", packet_write_register},
    {"s", packet_step},
    {"S", packet_step_signal},
    {"T", packet_thread_alive},
    {"X", packet_write_binary},
    {"z", packet_remove_point},
    {"Z", packet_insert_point},
    {"qAttached", packet_attached},
    {"qC", packet_current_thread, .whole = true},
    {"qfThreadInfo", packet_first_threads, .whole = true},
    {"qqemu.PhyMemMode", packet_physical_query, .whole = true},
    {"Qqemu.PhyMemMode:", packet_physical_set},
    {"qRcmd,", packet_monitor},
    {"qsThreadInfo", packet_next_threads, .whole = true},
    {"QStartNoAckMode", packet_no_ack, .while_running = true, .whole = true},
    {"qSupported", packet_supported, .while_running = true},
    {"qThreadExtraInfo,", packet_thread_info},
    {"qXfer:features:read:", packet_features},
    {"vCont?", packet_vcont_query, .whole = true},
    {"vCont", packet_vcont},
    {"vKill;", packet_vkill, .while_running = true},
};

static const struct packet *find_packet(const char *text)
{
    for (size_t i = 0; i < sizeof(packets) / sizeof(packets[0]); i++) {
        size_t length = strlen(packets[i].name);

        if (strncmp(text, packets[i].name, length) == 0 &&
            !(packets[i].whole && text[length] != '\0'))
            return &packets[i];
    }
    return NULL;
}

/* Packets that are answered by a stop reply later, or not at all. */
static bool answers_later(const struct gdbstub *stub, packet_fn *handle)
{
    return handle == packet_kill || (stub->running && stub->reply.size == 0);
}

static void handle_packet(struct gdbstub *stub)
{
    const char *text = (const char *)stub->receiver.data;
    const struct packet *packet = find_packet(text);

    stub->reply.size = 0;
    stub->reply.overflow = false;
    if (packet && (stub->running || !stub->attached) && !packet->while_running) {
        reply_error(stub, EBUSY);
    } else if (packet) {
        size_t length = strlen(packet->name);

        packet->handle(stub, text + length, stub->receiver.size - length);
        if (answers_later(stub, packet->handle))
            return;
    }
    send_frame(stub);
}

/* ---- the connection ---- */

static void interrupt(struct gdbstub *stub)
{
    if (stub->attached && stub->running && machine_get_state(stub->machine) != MACHINE_STOPPED)
        report_stop(stub, stub->stop_thread, SIGNAL_INT, "");
}

static void acknowledge(struct gdbstub *stub, char sign)
{
    if (!stub->no_ack)
        stream_send(stub->stream, &sign, 1);
}

static void receive_byte(struct gdbstub *stub, uint8_t byte)
{
    switch (gdb_receive(&stub->receiver, byte)) {
    case GDB_PACKET:
        acknowledge(stub, '+');
        handle_packet(stub);
        break;
    case GDB_DAMAGED:
        acknowledge(stub, '-');
        break;
    case GDB_INTERRUPT:
        interrupt(stub);
        break;
    case GDB_NAK:
        if (!stub->no_ack)
            stream_send(stub->stream, stub->frame, stub->frame_size);
        break;
    case GDB_ACK:
        stub->no_ack |= stub->no_ack_next;
        stub->no_ack_next = false;
        break;
    case GDB_NOTHING:
        break;
    }
}

static void on_receive(void *opaque, const uint8_t *data, size_t size_bytes)
{
    for (size_t i = 0; i < size_bytes; i++)
        receive_byte(opaque, data[i]);
}

static void on_closed(void *opaque)
{
    struct gdbstub *stub = opaque;

    stream_free(stub->stream);
    stub->stream = NULL;
    let_go(stub);
    stub->attached = false;
}

static const struct stream_events stream_events = {
    .receive = on_receive,
    .closed = on_closed,
};

static void reset_connection(struct gdbstub *stub)
{
    stub->receiver = (struct gdb_receiver){.state = GDB_IDLE};
    stub->frame_size = 0;
    stub->no_ack = stub->no_ack_next = false;
    stub->reports_swbreak = stub->reports_hwbreak = false;
    stub->physical = false;
}

void gdbstub_connect(struct gdbstub *stub, int fd)
{
    struct error err = {0};

    if (stub->stream) {
        log_warn("gdb: a second debugger was turned away");
        close(fd);
        return;
    }
    stub->stream = stream_new(machine_loop(stub->machine), fd, &stream_events, stub, &err);
    if (!stub->stream) {
        log_warn("gdb: %s", err.text);
        return;
    }
    reset_connection(stub);
    stub->attached = true;
    set_running(stub, false);
    note_stop(stub, 0, SIGNAL_TRAP, "");
    log_info("gdb: a debugger is connected, the machine is stopped");
}

static void on_accept(void *opaque, int fd)
{
    gdbstub_connect(opaque, fd);
}

/* Somebody else let the machine go while the debugger looks at it. */
static void pause_again(void *opaque)
{
    struct gdbstub *stub = opaque;

    if (stub->attached && !stub->running)
        set_running(stub, false);
}

static void report_exit(struct gdbstub *stub)
{
    char text[16];

    snprintf(text, sizeof(text), "W%02x", machine_stop_status(stub->machine) & 0xff);
    if (stub->running)
        send_text(stub, text);
    stub->running = false;
    stream_finish(stub->stream);
}

static void on_machine_state(void *opaque, struct machine *machine, enum machine_state state)
{
    struct gdbstub *stub = opaque;

    if (!stub->attached || stub->changing_state)
        return;
    if (state == MACHINE_STOPPED) {
        report_exit(stub);
    } else if (state == MACHINE_RUNNING && !stub->running) {
        log_warn("gdb: the machine stays stopped until the debugger continues or detaches");
        loop_defer(machine_loop(machine), pause_again, stub);
    }
}

struct gdbstub *gdbstub_new(struct machine *machine, const char *address, struct error *err)
{
    struct gdbstub *stub = calloc(1, sizeof(*stub));

    if (!stub) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    stub->machine = machine;
    stub->running = true;
    if (address)
        stub->server = stream_listen(machine_loop(machine), address, on_accept, stub, err);
    if ((address && !stub->server) || machine_observe(machine, on_machine_state, stub)) {
        error_set(err, ENOMEM, "out of memory");
        gdbstub_free(stub);
        return NULL;
    }
    machine_set_debugger(machine, on_debug_exit, stub);
    return stub;
}

void gdbstub_free(struct gdbstub *stub)
{
    if (!stub)
        return;
    stream_free(stub->stream);
    stream_server_free(stub->server);
    free(stub);
}

unsigned gdbstub_port(const struct gdbstub *stub)
{
    return stub->server ? stream_server_port(stub->server) : 0;
}
