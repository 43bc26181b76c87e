/*
 * gdb_points.c - the debugger's breakpoints and watchpoints
 *
 * "Software" and "hardware" ones alike are linear addresses that the engine compares
 * (engine_ops.debug); guest memory is not changed, so all are invisible to the guest and their
 * number is bounded by GDB_MAX_POINTS only. A breakpoint stops before its instruction, each time:
 * debuggers take it out to step over it.
 */
#include "control/gdb_session.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"

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
    const struct engine_ops *engine = gdb_engine(stub);
    bool wanted = request->step || stub->engine_point_count;

    request->points = stub->engine_points;
    request->point_count = stub->engine_point_count;
    if (!engine->debug)
        return wanted ? error_set(err, ENOTSUP, "engine %s has no breakpoints", engine->name) : 0;
    return engine->debug(machine_vcpu(stub->machine, index), wanted ? request : NULL, err);
}

int gdb_apply_points(struct gdbstub *stub)
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

void gdb_clear_debug(struct gdbstub *stub)
{
    stub->point_count = 0;
    for (unsigned i = 0; i < MACHINE_MAX_VCPUS; i++)
        stub->requests[i].step = false;
    gdb_apply_points(stub);
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
    if (stub->point_count == GDB_MAX_POINTS)
        return -ENOSPC;
    stub->points[stub->point_count++] = *point;
    result = gdb_apply_points(stub);
    if (result) {
        stub->point_count--;
        gdb_apply_points(stub);
    }
    return result;
}

static int remove_point(struct gdbstub *stub, const struct point *point)
{
    int index = find_point(stub, point);

    if (index < 0)
        return -ENOENT;
    stub->points[index] = stub->points[--stub->point_count];
    return gdb_apply_points(stub);
}

const char *gdb_breakpoint_reason(const struct gdbstub *stub, const struct x86_state *state)
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

void gdb_watch_reason(const struct gdbstub *stub, const struct vcpu_exit *exit, char *reason,
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

/* ---- packets ---- */

static bool get_point(const char *text, struct point *point)
{
    uint64_t type;

    if (!gdb_get_hex(&text, &type) || type > POINT_ACCESS || !gdb_get_char(&text, ',') ||
        !gdb_get_range(&text, &point->gva, &point->size_bytes))
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

    if (!gdb_engine(stub)->debug)
        return; /* an empty reply: not supported */
    result = get_point(text, &point) ? change(stub, &point) : -EINVAL;
    if (result)
        gdb_reply_error(stub, -result);
    else
        gdb_reply_text(stub, "OK");
}

void packet_insert_point(struct gdbstub *stub, const char *text, size_t size)
{
    change_point(stub, text, insert_point);
}

void packet_remove_point(struct gdbstub *stub, const char *text, size_t size)
{
    change_point(stub, text, remove_point);
}
