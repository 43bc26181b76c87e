/*
 * gdb_session.h - the gdb stub's own: what its files share (gdbstub.c says how it works)
 *
 * Everything runs on the main loop's thread, and, unless it says otherwise, with the processors
 * parked.
 */
#ifndef CONTROL_GDB_SESSION_H
#define CONTROL_GDB_SESSION_H

#include "control/gdb_packet.h"
#include "control/gdbstub.h"
#include "trapeze/engine.h"
#include "trapeze/machine.h"

#define GDB_MAX_POINTS 256
#define GDB_MAX_ENGINE_POINTS                                                                      \
    (2 * GDB_MAX_POINTS) /* an access watchpoint is two of the engine's                            \
                          */

#define GDB_SIGNAL_INT  2
#define GDB_SIGNAL_TRAP 5

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
    bool changing_state; /* gdb_set_running calls machine_pause or machine_resume */
    unsigned thread;     /* index of the vCPU for g, m and so on (Hg) */
    unsigned stop_thread;
    char stop_reply[96];
    bool reports_swbreak; /* the debugger understands these stop reasons */
    bool reports_hwbreak;
    bool physical; /* addresses are guest-physical */

    struct point points[GDB_MAX_POINTS];
    unsigned point_count;
    struct debug_point engine_points[GDB_MAX_ENGINE_POINTS];
    unsigned engine_point_count;
    struct debug_request requests[MACHINE_MAX_VCPUS];
};

/* Handlers get the text behind the packet's name and leave the answer in stub->reply. */
typedef void packet_fn(struct gdbstub *stub, const char *text, size_t size);

/* ---- gdbstub.c ---- */

const struct engine_ops *gdb_engine(const struct gdbstub *stub);
/* The current thread's. */
struct vcpu *gdb_vcpu(const struct gdbstub *stub);
/* Make the reply this text or "Eerror"; an errno value. */
void gdb_reply_text(struct gdbstub *stub, const char *text);
void gdb_reply_error(struct gdbstub *stub, int error);
/* Send the reply as it is. */
void gdb_send_frame(struct gdbstub *stub);
/* A packet that is not an answer to one, or before the answer. */
void gdb_send_text(struct gdbstub *stub, const char *text);

/* ---- gdb_points.c ---- */

/* Tell the engine about all points and steps. 0 or -errno, with a warning. */
int gdb_apply_points(struct gdbstub *stub);
/* Forget all points and steps. */
void gdb_clear_debug(struct gdbstub *stub);
/* "swbreak:;" where the debugger knows the word, else "". */
const char *gdb_breakpoint_reason(const struct gdbstub *stub, const struct x86_state *state);
/* Which watchpoint the engine means: it says where, the debugger wants to hear its kind. */
void gdb_watch_reason(const struct gdbstub *stub, const struct vcpu_exit *exit, char *reason,
                      size_t size);
packet_fn packet_insert_point, packet_remove_point;

/* ---- gdb_data.c ---- */

/* vcpu->state was changed. */
void gdb_registers_written(const struct gdbstub *stub, struct vcpu *vcpu);
/* Parse "address,length". */
bool gdb_get_range(const char **text, uint64_t *out_address, uint64_t *out_size);
packet_fn packet_read_registers, packet_write_registers, packet_read_register;
packet_fn packet_write_register, packet_read_memory, packet_write_memory, packet_write_binary;

/* ---- gdb_run.c ---- */

/* Pause or resume the machine for the debugger. Processors may run. */
void gdb_set_running(struct gdbstub *stub, bool running);
/* What "?" answers from now on. reason: "word:value;" or "". */
void gdb_note_stop(struct gdbstub *stub, unsigned index, unsigned signal, const char *reason);
/* Stop all processors, and tell the debugger why, which waits for it. Processors may run. */
void gdb_report_stop(struct gdbstub *stub, unsigned index, unsigned signal, const char *reason);
/* A processor left its engine with EXIT_DEBUG: machine_set_debugger's function. */
void gdb_debug_exit(void *opaque, struct vcpu *vcpu, const struct vcpu_exit *exit);
/* Take everything back that was asked of the machine, and let it run. Processors may run. */
void gdb_let_go(struct gdbstub *stub);
packet_fn packet_continue, packet_step, packet_continue_signal, packet_step_signal;
packet_fn packet_vcont, packet_vcont_query, packet_detach, packet_kill, packet_vkill;

/* ---- gdb_queries.c ---- */

/* Thread ids are hexadecimal; 0 is any and -1 all, for both of which *out_all is set. */
bool gdb_get_thread(const struct gdbstub *stub, const char **text, unsigned *out_index,
                    bool *out_all);
packet_fn packet_stop_reason, packet_set_thread, packet_thread_alive, packet_supported;
packet_fn packet_no_ack, packet_current_thread, packet_first_threads, packet_next_threads;
packet_fn packet_thread_info, packet_features, packet_attached, packet_physical_query;
packet_fn packet_physical_set;

/* ---- gdb_monitor.c ---- */

packet_fn packet_monitor;

#endif
