/*
 * gdb_queries.c - what the debugger asks about the stub and its threads
 */
#include "control/gdb_session.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/gdb_registers.h"

void packet_stop_reason(struct gdbstub *stub, const char *text, size_t size)
{
    gdb_reply_text(stub, stub->stop_reply);
}

bool gdb_get_thread(const struct gdbstub *stub, const char **text, unsigned *out_index,
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

void packet_set_thread(struct gdbstub *stub, const char *text, size_t size)
{
    bool all, general = gdb_get_char(&text, 'g');
    unsigned index;

    if (!general && !gdb_get_char(&text, 'c')) {
        gdb_reply_error(stub, EINVAL);
        return;
    }
    if (!gdb_get_thread(stub, &text, &index, &all)) {
        gdb_reply_error(stub, ESRCH);
        return;
    }
    if (general && !all)
        stub->thread = index;
    gdb_reply_text(stub, "OK");
}

void packet_thread_alive(struct gdbstub *stub, const char *text, size_t size)
{
    unsigned index;
    bool all;

    if (gdb_get_thread(stub, &text, &index, &all) && !all)
        gdb_reply_text(stub, "OK");
    else
        gdb_reply_error(stub, ESRCH);
}

void packet_supported(struct gdbstub *stub, const char *text, size_t size)
{
    stub->reports_swbreak = strstr(text, "swbreak+") != NULL;
    stub->reports_hwbreak = strstr(text, "hwbreak+") != NULL;
    gdb_put(&stub->reply,
            "PacketSize=%x;qXfer:features:read+;QStartNoAckMode+;vContSupported+;swbreak+;"
            "hwbreak+",
            GDB_PACKET_BYTES);
}

void packet_no_ack(struct gdbstub *stub, const char *text, size_t size)
{
    stub->no_ack_next = true;
    gdb_reply_text(stub, "OK");
}

void packet_current_thread(struct gdbstub *stub, const char *text, size_t size)
{
    gdb_put(&stub->reply, "QC%x", stub->thread + 1);
}

void packet_first_threads(struct gdbstub *stub, const char *text, size_t size)
{
    for (unsigned i = 0; i < machine_vcpu_count(stub->machine); i++)
        gdb_put(&stub->reply, "%c%x", i ? ',' : 'm', i + 1);
}

void packet_next_threads(struct gdbstub *stub, const char *text, size_t size)
{
    gdb_reply_text(stub, "l");
}

void packet_thread_info(struct gdbstub *stub, const char *text, size_t size)
{
    static const char *const activities[X86_ACTIVITY_COUNT] = {
        [X86_ACTIVE] = "running",
        [X86_HALTED] = "halted",
        [X86_WAIT_FOR_SIPI] = "waiting for start-up",
        [X86_SHUTDOWN] = "shut down",
        [X86_RESUMING] = "leaving system management mode",
    };
    char info[64];
    struct vcpu *vcpu;
    unsigned index;
    bool all;

    if (!gdb_get_thread(stub, &text, &index, &all) || all) {
        gdb_reply_error(stub, ESRCH);
        return;
    }
    vcpu = machine_vcpu(stub->machine, index);
    snprintf(info, sizeof(info), "cpu%u [%s]", index,
             vcpu->state.activity < X86_ACTIVITY_COUNT ? activities[vcpu->state.activity] : "?");
    gdb_put_hex(&stub->reply, info, strlen(info));
}

void packet_features(struct gdbstub *stub, const char *text, size_t size)
{
    const char *xml = gdb_target_xml();
    uint64_t offset, length, total = strlen(xml);

    if (!gdb_get_word(&text, "target.xml:") || !gdb_get_range(&text, &offset, &length)) {
        gdb_reply_text(stub, "E00");
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

void packet_attached(struct gdbstub *stub, const char *text, size_t size)
{
    gdb_reply_text(stub, "1");
}

void packet_physical_query(struct gdbstub *stub, const char *text, size_t size)
{
    gdb_reply_text(stub, stub->physical ? "1" : "0");
}

void packet_physical_set(struct gdbstub *stub, const char *text, size_t size)
{
    stub->physical = *text == '1';
    gdb_reply_text(stub, "OK");
}
