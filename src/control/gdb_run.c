/*
 * gdb_run.c - the debugger lets processors run and step, and hears why they stopped
 */
#include "control/gdb_session.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

void gdb_set_running(struct gdbstub *stub, bool running)
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

void gdb_note_stop(struct gdbstub *stub, unsigned index, unsigned signal, const char *reason)
{
    stub->stop_thread = stub->thread = index;
    snprintf(stub->stop_reply, sizeof(stub->stop_reply), "T%02xthread:%x;%s", signal, index + 1,
             reason);
}

void gdb_report_stop(struct gdbstub *stub, unsigned index, unsigned signal, const char *reason)
{
    gdb_set_running(stub, false);
    let_all_run(stub);
    for (unsigned i = 0; i < MACHINE_MAX_VCPUS; i++)
        stub->requests[i].step = false;
    gdb_apply_points(stub);
    gdb_note_stop(stub, index, signal, reason);
    gdb_send_text(stub, stub->stop_reply);
}

void gdb_debug_exit(void *opaque, struct vcpu *vcpu, const struct vcpu_exit *exit)
{
    struct gdbstub *stub = opaque;
    char reason[64] = "";

    if (!stub->attached) {
        gdb_set_running(stub, true);
        return;
    }
    if (exit->debug.cause == DEBUG_BREAKPOINT)
        snprintf(reason, sizeof(reason), "%s", gdb_breakpoint_reason(stub, &vcpu->state));
    else if (exit->debug.cause != DEBUG_STEP)
        gdb_watch_reason(stub, exit, reason, sizeof(reason));
    gdb_report_stop(stub, vcpu->index, GDB_SIGNAL_TRAP, reason);
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
    if (going == 0 || machine_get_state(stub->machine) == MACHINE_STOPPED || gdb_apply_points(stub))
        return false;
    for (unsigned i = 0; i < count; i++)
        machine_hold_vcpu(stub->machine, i, actions[i] == ACTION_NONE);
    gdb_set_running(stub, true);
    return true;
}

/* ---- packets ---- */

static void go_or_report(struct gdbstub *stub, const enum action actions[MACHINE_MAX_VCPUS])
{
    if (!go(stub, actions))
        gdb_reply_error(stub, EINVAL);
}

/* "c [address]", "s [address]" for the current thread; the others continue. */
static void go_from(struct gdbstub *stub, const char *text, enum action action)
{
    enum action actions[MACHINE_MAX_VCPUS];
    struct vcpu *vcpu = gdb_vcpu(stub);
    uint64_t address;

    if (gdb_get_hex(&text, &address)) {
        vcpu->state.rip = address;
        gdb_registers_written(stub, vcpu);
    }
    for (unsigned i = 0; i < MACHINE_MAX_VCPUS; i++)
        actions[i] = i == stub->thread ? action : ACTION_CONTINUE;
    go_or_report(stub, actions);
}

void packet_continue(struct gdbstub *stub, const char *text, size_t size)
{
    go_from(stub, text, ACTION_CONTINUE);
}

void packet_step(struct gdbstub *stub, const char *text, size_t size)
{
    go_from(stub, text, ACTION_STEP);
}

/* "C signal[;address]": signals mean nothing to a machine. */
void packet_continue_signal(struct gdbstub *stub, const char *text, size_t size)
{
    go_from(stub, strchr(text, ';') ? strchr(text, ';') + 1 : "", ACTION_CONTINUE);
}

void packet_step_signal(struct gdbstub *stub, const char *text, size_t size)
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

void packet_vcont(struct gdbstub *stub, const char *text, size_t size)
{
    enum action actions[MACHINE_MAX_VCPUS] = {ACTION_NONE}, action;

    while (gdb_get_char(&text, ';')) {
        unsigned index = 0;
        bool all = true;

        if (!get_action(&text, &action) ||
            (gdb_get_char(&text, ':') && !gdb_get_thread(stub, &text, &index, &all))) {
            gdb_reply_error(stub, EINVAL);
            return;
        }
        assign_action(stub, actions, action, index, all);
    }
    go_or_report(stub, actions);
}

void packet_vcont_query(struct gdbstub *stub, const char *text, size_t size)
{
    gdb_reply_text(stub, "vCont;c;C;s;S");
}

void gdb_let_go(struct gdbstub *stub)
{
    if (!stub->attached || machine_get_state(stub->machine) == MACHINE_STOPPED)
        return;
    gdb_set_running(stub, false);
    gdb_clear_debug(stub);
    let_all_run(stub);
    gdb_set_running(stub, true);
    stub->attached = false;
    log_info("gdb: the debugger is gone, the machine goes on");
}

void packet_detach(struct gdbstub *stub, const char *text, size_t size)
{
    gdb_let_go(stub);
    gdb_reply_text(stub, "OK");
}

void packet_kill(struct gdbstub *stub, const char *text, size_t size)
{
    log_info("gdb: the debugger ended the machine");
    machine_request_stop(stub->machine, STOP_HOST, 0);
}

void packet_vkill(struct gdbstub *stub, const char *text, size_t size)
{
    packet_kill(stub, text, size);
    gdb_reply_text(stub, "OK");
}
