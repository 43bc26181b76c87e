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
 *             stop reply: a processor left its engine with EXIT_DEBUG (gdb_debug_exit), the
 *             user pressed Ctrl-C, or the machine ended.
 *
 * When a debugger connects, the machine is paused; when it goes, with or without detaching, its
 * breakpoints go and the machine continues. While the stub is stopped nobody else can
 * resume the machine: it is paused again at once. A pause by somebody else while the stub is
 * running is not reported: the guest just takes longer.
 *
 * This file has the connection and the table of packets; what they do is in gdb_points.c,
 * gdb_data.c, gdb_run.c, gdb_queries.c and gdb_monitor.c.
 */
#include "control/gdb_session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "control/stream.h"
#include "host/loop.h"

const struct engine_ops *gdb_engine(const struct gdbstub *stub)
{
    return machine_config(stub->machine)->engine;
}

struct vcpu *gdb_vcpu(const struct gdbstub *stub)
{
    return machine_vcpu(stub->machine, stub->thread);
}

/* ---- sending ---- */

void gdb_send_frame(struct gdbstub *stub)
{
    stub->frame_size = gdb_frame(&stub->reply, stub->frame);
    stream_send(stub->stream, stub->frame, stub->frame_size);
}

void gdb_reply_text(struct gdbstub *stub, const char *text)
{
    stub->reply.size = 0;
    gdb_put(&stub->reply, "%s", text);
}

void gdb_reply_error(struct gdbstub *stub, int error)
{
    stub->reply.size = 0;
    gdb_put(&stub->reply, "E%02x", error & 0xff);
}

void gdb_send_text(struct gdbstub *stub, const char *text)
{
    gdb_reply_text(stub, text);
    gdb_send_frame(stub);
    stub->reply.size = 0;
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
        gdb_reply_error(stub, EBUSY);
    } else if (packet) {
        size_t length = strlen(packet->name);

        packet->handle(stub, text + length, stub->receiver.size - length);
        if (answers_later(stub, packet->handle))
            return;
    }
    gdb_send_frame(stub);
}

/* ---- the connection ---- */

static void interrupt(struct gdbstub *stub)
{
    if (stub->attached && stub->running && machine_get_state(stub->machine) != MACHINE_STOPPED)
        gdb_report_stop(stub, stub->stop_thread, GDB_SIGNAL_INT, "");
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
    gdb_let_go(stub);
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
    gdb_set_running(stub, false);
    gdb_note_stop(stub, 0, GDB_SIGNAL_TRAP, "");
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
        gdb_set_running(stub, false);
}

static void report_exit(struct gdbstub *stub)
{
    char text[16];

    snprintf(text, sizeof(text), "W%02x", machine_stop_status(stub->machine) & 0xff);
    if (stub->running)
        gdb_send_text(stub, text);
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
    machine_set_debugger(machine, gdb_debug_exit, stub);
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
