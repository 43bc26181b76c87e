/*
 * test_gdbstub.c - packets, registers and the debugger's protocol on a machine that counts
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "control/gdb_packet.h"
#include "control/gdb_registers.h"
#include "control/gdbstub.h"
#include "control_test.h"
#include "x86/bits.h"

/* ---- packets ---- */

static enum gdb_input feed(struct gdb_receiver *receiver, const char *bytes, size_t size)
{
    enum gdb_input last = GDB_NOTHING;

    for (size_t i = 0; i < size; i++)
        last = gdb_receive(receiver, (uint8_t)bytes[i]);
    return last;
}

static void frames_survive_a_round_trip(void **state)
{
    static struct gdb_receiver receiver;
    static struct gdb_reply reply;
    static uint8_t frame[GDB_FRAME_BYTES];
    size_t size;

    for (unsigned i = 0; i < 256; i++)
        gdb_put_bytes(&reply, &(uint8_t){(uint8_t)i}, 1);
    size = gdb_frame(&reply, frame);
    assert_int_equal(feed(&receiver, (char *)frame, size), GDB_PACKET);
    assert_int_equal(receiver.size, 256);
    assert_memory_equal(receiver.data, reply.data, 256);
}

static void damaged_packets_are_told_apart(void **state)
{
    static struct gdb_receiver receiver;
    static char big[GDB_PACKET_BYTES + 2];

    assert_int_equal(feed(&receiver, "$g#67", 5), GDB_PACKET);
    assert_int_equal(feed(&receiver, "$g#68", 5), GDB_DAMAGED);
    assert_int_equal(feed(&receiver, "$g#zz", 5), GDB_DAMAGED);
    assert_int_equal(feed(&receiver, "$g}#e4", 6), GDB_DAMAGED); /* nothing after the escape */
    assert_int_equal(feed(&receiver, "\003", 1), GDB_INTERRUPT);
    assert_int_equal(feed(&receiver, "xx+", 3), GDB_ACK);
    assert_int_equal(feed(&receiver, "-", 1), GDB_NAK);
    feed(&receiver, "$", 1);
    memset(big, 0, sizeof(big));
    feed(&receiver, big, sizeof(big));
    assert_int_equal(feed(&receiver, "#00", 3), GDB_DAMAGED); /* the sum is right, but too long */
    assert_int_equal(feed(&receiver, "$g#67", 5), GDB_PACKET);
}

static void replies_never_overflow(void **state)
{
    static struct gdb_reply reply;
    static uint8_t bytes[GDB_PACKET_BYTES];

    gdb_put_bytes(&reply, bytes, sizeof(bytes));
    assert_false(reply.overflow);
    gdb_put(&reply, "x");
    assert_true(reply.overflow);
    assert_int_equal(reply.size, GDB_PACKET_BYTES);
}

static void numbers_have_at_most_sixteen_digits(void **state)
{
    const char *text = "ffffffffffffffff,", *long_text = "10000000000000000", *none = ",1";
    uint64_t value = 7;

    assert_true(gdb_get_hex(&text, &value));
    assert_true(value == UINT64_MAX && *text == ',');
    assert_false(gdb_get_hex(&long_text, &value));
    assert_false(gdb_get_hex(&none, &value));
    assert_true(value == UINT64_MAX);
}

/* ---- registers ---- */

static void target_description_names_every_register_once(void **state)
{
    const char *xml = gdb_target_xml();
    unsigned count = 0;

    for (const char *at = xml; (at = strstr(at, "<reg ")); at++)
        count++;
    assert_int_equal(count, gdb_register_count());
    for (unsigned i = 0; i < gdb_register_count(); i++) {
        char entry[96];

        snprintf(entry, sizeof(entry), "<reg name=\"%s\" bitsize=\"%zu\"", gdb_register_name(i),
                 8 * gdb_register_size(i));
        assert_non_null(strstr(xml, entry));
    }
    /* GDB knows the core registers by number too. */
    assert_string_equal(gdb_register_name(0), "rax");
    assert_string_equal(gdb_register_name(16), "rip");
    assert_string_equal(gdb_register_name(24), "st0");
    assert_string_equal(gdb_register_name(40), "xmm0");
    assert_string_equal(gdb_register_name(56), "mxcsr");
}

static unsigned number_of(const char *name)
{
    for (unsigned i = 0; i < gdb_register_count(); i++)
        if (strcmp(gdb_register_name(i), name) == 0)
            return i;
    fail_msg("no register %s", name);
    return 0;
}

static bool write_u64(struct vcpu *vcpu, const char *name, uint64_t value)
{
    uint8_t bytes[GDB_MAX_REGISTER_BYTES] = {0};

    for (unsigned i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    return gdb_register_write(vcpu, number_of(name), bytes);
}

static uint64_t read_u64(const struct vcpu *vcpu, const char *name)
{
    uint8_t bytes[GDB_MAX_REGISTER_BYTES] = {0};
    uint64_t value = 0;

    gdb_register_read(vcpu, number_of(name), bytes);
    for (unsigned i = 0; i < 8; i++)
        value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

static void refused_writes_change_nothing(void **state)
{
    static struct vcpu vcpu, before;

    memset(&vcpu, 0, sizeof(vcpu));
    vcpu.state.cr0 = X86_CR0_PE;
    vcpu.state.seg[X86_CS].selector = 0x10;
    before = vcpu;
    assert_false(write_u64(&vcpu, "rip", 0x0001000000000000));
    assert_false(write_u64(&vcpu, "cs", 0x18));
    assert_false(write_u64(&vcpu, "cr0", 0x80000011));
    assert_false(write_u64(&vcpu, "efer", 0x500));
    assert_false(write_u64(&vcpu, "fs_base", 1ull << 63));
    assert_false(write_u64(&vcpu, "cr8", 3));
    assert_memory_equal(&vcpu, &before, sizeof(vcpu));
    assert_true(write_u64(&vcpu, "cs", 0x10)); /* what it is already */
    assert_true(write_u64(&vcpu, "cr0", X86_CR0_PE));
}

static void accepted_writes_read_back(void **state)
{
    static struct vcpu vcpu;

    memset(&vcpu, 0, sizeof(vcpu));
    assert_true(write_u64(&vcpu, "rbx", 0x1122334455667788));
    assert_true(vcpu.state.gpr[X86_RBX] == 0x1122334455667788);
    assert_true(write_u64(&vcpu, "cs", 0xf000)); /* real mode: the base follows */
    assert_true(vcpu.state.seg[X86_CS].base == 0xf0000);
    assert_true(write_u64(&vcpu, "eflags", 0xffffffff));
    assert_int_equal(vcpu.state.rflags, 0x3d7fd5); /* without VM and reserved bits */
    assert_true(write_u64(&vcpu, "gs_base", 0xffff888000000000));
    assert_true(read_u64(&vcpu, "gs_base") == 0xffff888000000000);
    assert_true(write_u64(&vcpu, "mxcsr", 0xffffffff));
    assert_int_equal(vcpu.state.fpu.mxcsr, 0xffff);
}

static void x87_tags_are_computed_from_the_values(void **state)
{
    static struct vcpu vcpu;
    struct x86_fpu *fpu = &vcpu.state.fpu;

    memset(&vcpu, 0, sizeof(vcpu));
    fpu->fsw = 6 << 11; /* TOP = 6: ST(0) is physical register 6, ST(1) is 7 */
    fpu->ftw = 0xc0;
    memcpy(fpu->st[0], "\0\0\0\0\0\0\0\x80\xff\x3f", 10); /* 1.0: valid; ST(1) is zero */
    assert_int_equal(read_u64(&vcpu, "ftag"), 0x4fff);
    assert_true(write_u64(&vcpu, "ftag", 0xffff));
    assert_int_equal(fpu->ftw, 0);
}

/* ---- the protocol ---- */

struct fixture {
    struct counting_machine m;
    struct gdbstub *stub;
    int fd;
    struct gdb_receiver receiver;
};

static void open_fixture(struct fixture *f, unsigned vcpu_count)
{
    struct error err = {0};
    int pair[2];

    memset(f, 0, sizeof(*f));
    log_threshold = LOG_ERROR;
    counting_machine_open(&f->m, vcpu_count, false);
    f->stub = gdbstub_new(f->m.machine, NULL, &err);
    assert_non_null(f->stub);
    assert_int_equal(machine_start(f->m.machine, &err), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    machine_lock(f->m.machine);
    gdbstub_connect(f->stub, pair[0]);
    machine_unlock(f->m.machine);
    f->fd = pair[1];
}

static void close_fixture(struct fixture *f)
{
    counting_machine_settle(&f->m);
    machine_free(f->m.machine);
    gdbstub_free(f->stub);
    loop_free(f->m.loop);
    if (f->fd >= 0)
        close(f->fd);
}

static void send_bytes(struct fixture *f, const void *bytes, size_t size)
{
    assert_int_equal(send(f->fd, bytes, size, MSG_NOSIGNAL), size);
}

static void send_packet(struct fixture *f, const char *text)
{
    static struct gdb_reply packet;
    static uint8_t frame[GDB_FRAME_BYTES];

    packet.size = 0;
    gdb_put_bytes(&packet, text, strlen(text));
    send_bytes(f, frame, gdb_frame(&packet, frame));
}

/* The next packet's data; acknowledges and is acknowledged. */
static const char *receive(struct fixture *f)
{
    for (;;) {
        uint8_t byte;
        enum gdb_input input;

        counting_machine_wait_readable(&f->m, f->fd);
        if (read(f->fd, &byte, 1) != 1)
            fail_msg("the stub hung up");
        input = gdb_receive(&f->receiver, byte);
        assert_int_not_equal(input, GDB_DAMAGED);
        if (input == GDB_PACKET) {
            send(f->fd, "+", 1, MSG_NOSIGNAL); /* who has said goodbye does not listen */
            return (const char *)f->receiver.data;
        }
    }
}

static const char *ask(struct fixture *f, const char *text)
{
    send_packet(f, text);
    return receive(f);
}

#define expect(f, packet, reply) assert_string_equal(ask(f, packet), reply)

static uint64_t rip_of(struct fixture *f, unsigned index)
{
    return machine_vcpu(f->m.machine, index)->state.rip;
}

static void the_machine_stands_still_while_a_debugger_looks(void **state)
{
    struct fixture f;
    uint64_t rip;

    open_fixture(&f, 1);
    assert_int_equal(machine_get_state(f.m.machine), MACHINE_PAUSED);
    rip = rip_of(&f, 0);
    expect(&f, "?", "T05thread:1;");
    counting_machine_settle(&f.m);
    assert_true(rip_of(&f, 0) == rip);
    close(f.fd);
    f.fd = -1;
    counting_machine_settle(&f.m);
    assert_int_equal(machine_get_state(f.m.machine), MACHINE_RUNNING);
    close_fixture(&f);
}

static void a_second_debugger_is_turned_away(void **state)
{
    struct fixture f;
    int pair[2];
    char byte;

    open_fixture(&f, 1);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    machine_lock(f.m.machine);
    gdbstub_connect(f.stub, pair[0]);
    machine_unlock(f.m.machine);
    assert_int_equal(read(pair[1], &byte, 1), 0);
    close(pair[1]);
    expect(&f, "qC", "QC1");
    close_fixture(&f);
}

static void queries_describe_the_target(void **state)
{
    struct fixture f;
    char xml[65536] = "";
    size_t size = 0;
    const char *reply;

    open_fixture(&f, 3);
    assert_non_null(
        strstr(ask(&f, "qSupported:swbreak+;hwbreak+;vContSupported+"), "qXfer:features:read+"));
    expect(&f, "qfThreadInfo", "m1,2,3");
    expect(&f, "qsThreadInfo", "l");
    expect(&f, "qThreadExtraInfo,2", "63707531205b72756e6e696e675d"); /* cpu1 [running] */
    expect(&f, "qThreadExtraInfo,4", "E03");
    expect(&f, "vMustReplyEmpty", "");
    expect(&f, "qTStatus", "");
    expect(&f, "vCont?", "vCont;c;C;s;S");
    expect(&f, "T3", "OK");
    expect(&f, "T4", "E03");
    do {
        char packet[64];

        snprintf(packet, sizeof(packet), "qXfer:features:read:target.xml:%zx,ffb", size);
        reply = ask(&f, packet);
        memcpy(xml + size, reply + 1, f.receiver.size - 1);
        size += f.receiver.size - 1;
    } while (reply[0] == 'm');
    assert_string_equal(xml, gdb_target_xml());
    expect(&f, "qXfer:features:read:target.xml:fffff,100", "l");
    expect(&f, "qXfer:features:read:other.xml:0,100", "E00");
    close_fixture(&f);
}

static void registers_by_thread(void **state)
{
    struct fixture f;
    size_t size = 0;

    open_fixture(&f, 2);
    expect(&f, "P0=8877665544332211", "OK");
    expect(&f, "p0", "8877665544332211");
    assert_true(machine_vcpu(f.m.machine, 0)->state.gpr[X86_RAX] == 0x1122334455667788);
    expect(&f, "Hg2", "OK");
    expect(&f, "p0", "0000000000000000");
    expect(&f, "P0=0100000000000000", "OK");
    expect(&f, "Hg0", "OK"); /* any: stays */
    expect(&f, "p0", "0100000000000000");
    expect(&f, "Hg3", "E03");
    expect(&f, "p1000", "E16");
    expect(&f, "P0=zz", "E16");
    for (unsigned i = 0; i < gdb_register_count(); i++)
        size += 2 * gdb_register_size(i);
    assert_int_equal(strlen(ask(&f, "g")), size);
    close_fixture(&f);
}

static void all_registers_written_back_change_nothing(void **state)
{
    struct fixture f;
    struct x86_state before;
    char packet[GDB_PACKET_BYTES];

    open_fixture(&f, 1);
    before = machine_vcpu(f.m.machine, 0)->state;
    snprintf(packet, sizeof(packet), "G%s", ask(&f, "g"));
    expect(&f, packet, "OK");
    assert_memory_equal(&machine_vcpu(f.m.machine, 0)->state, &before, sizeof(before));
    close_fixture(&f);
}

static void a_written_register_is_what_the_processor_goes_on_with(void **state)
{
    struct fixture f;

    open_fixture(&f, 1);
    expect(&f, "P10=0000100000000000", "OK"); /* rip = 0x100000 */
    expect(&f, "vCont;s:1", "T05thread:1;");
    assert_true(rip_of(&f, 0) == 0x100001);
    expect(&f, "s200000", "T05thread:1;");
    assert_true(rip_of(&f, 0) == 0x200001);
    close_fixture(&f);
}

static void memory_by_linear_and_physical_address(void **state)
{
    struct fixture f;

    open_fixture(&f, 1);
    expect(&f, "M3ffe,4:01020304", "OK"); /* across a page end */
    expect(&f, "m3ffe,4", "01020304");
    expect(&f, "X4ffe,2:ab", "OK");
    expect(&f, "m4ffe,4", "6162"); /* the rest is not mapped */
    expect(&f, "m5000,4", "E0e");
    expect(&f, "M5000,1:00", "E0e");
    expect(&f, "m3fffff,1", "E0e"); /* mapped, but there is no RAM */
    expect(&f, "qqemu.PhyMemMode", "0");
    expect(&f, "Qqemu.PhyMemMode:1", "OK");
    expect(&f, "m5000,2", "0000");
    expect(&f, "m3ffe", "E16");
    expect(&f, "M3ffe,4:0102", "E16");
    expect(&f, "X3ffe,4:ab", "E16");
    expect(&f, "m0,0", "");
    close_fixture(&f);
}

static void breakpoints_stop_before_their_instruction(void **state)
{
    struct fixture f;

    open_fixture(&f, 1);
    ask(&f, "qSupported:swbreak+;hwbreak+");
    expect(&f, "P10=0000100000000000", "OK");
    expect(&f, "Z0,100010,1", "OK");
    expect(&f, "Z1,100020,1", "OK");
    expect(&f, "c", "T05thread:1;swbreak:;");
    assert_true(rip_of(&f, 0) == 0x100010);
    expect(&f, "z0,100010,1", "OK");
    expect(&f, "c", "T05thread:1;hwbreak:;");
    assert_true(rip_of(&f, 0) == 0x100020);
    expect(&f, "z0,100010,1", "E02");
    expect(&f, "Z5,100,1", "E16");
    expect(&f, "Z2,100,0", "E16");
    close_fixture(&f);
}

static void watchpoints_name_their_kind_and_address(void **state)
{
    struct fixture f;

    open_fixture(&f, 1);
    expect(&f, "P10=0100100000000000", "OK");
    expect(&f, "Z3,100100040,8", "OK"); /* reads only: the counter writes */
    expect(&f, "Z2,100100080,8", "OK");
    expect(&f, "c", "T05thread:1;watch:100100080;");
    assert_true(rip_of(&f, 0) == 0x100081);
    expect(&f, "Z4,1001000c4,4", "OK");
    expect(&f, "c", "T05thread:1;awatch:1001000c4;");
    close_fixture(&f);
}

static void only_chosen_threads_run(void **state)
{
    struct fixture f;
    uint64_t other;

    open_fixture(&f, 2);
    other = rip_of(&f, 0);
    expect(&f, "Hg2", "OK");
    expect(&f, "P10=0000100000000000", "OK");
    expect(&f, "vCont;s:2", "T05thread:2;");
    assert_true(rip_of(&f, 1) == 0x100001);
    assert_true(rip_of(&f, 0) == other);
    expect(&f, "vCont;s:2;c", "T05thread:2;");
    assert_true(rip_of(&f, 1) == 0x100002);
    expect(&f, "vCont", "E16"); /* nobody would run */
    expect(&f, "vCont;x", "E16");
    expect(&f, "vCont;c:9", "E16");
    close_fixture(&f);
}

static void control_c_stops(void **state)
{
    struct fixture f;
    uint64_t rip;

    open_fixture(&f, 2);
    rip = rip_of(&f, 1);
    send_packet(&f, "vCont;c");
    counting_machine_settle(&f.m);
    assert_int_equal(machine_get_state(f.m.machine), MACHINE_RUNNING);
    expect(&f, "g", "E10"); /* busy */
    send_bytes(&f, "\003", 1);
    assert_string_equal(receive(&f), "T02thread:1;");
    assert_true(rip_of(&f, 1) > rip);
    close_fixture(&f);
}

static void nobody_else_resumes_under_the_debugger(void **state)
{
    struct fixture f;

    open_fixture(&f, 1);
    machine_resume(f.m.machine);
    counting_machine_settle(&f.m);
    assert_int_equal(machine_get_state(f.m.machine), MACHINE_PAUSED);
    close_fixture(&f);
}

static void detach_takes_the_breakpoints_out(void **state)
{
    struct fixture f;
    uint64_t rip;

    open_fixture(&f, 1);
    rip = rip_of(&f, 0);
    expect(&f, "P10=0000100000000000", "OK");
    expect(&f, "Z0,100010,1", "OK");
    expect(&f, "D", "OK");
    counting_machine_settle(&f.m);
    machine_pause(f.m.machine);
    assert_true(rip_of(&f, 0) > 0x100010 && rip_of(&f, 0) != rip);
    close_fixture(&f);
}

static void the_end_of_the_machine_is_reported(void **state)
{
    struct fixture f;

    open_fixture(&f, 1);
    send_packet(&f, "c");
    counting_machine_settle(&f.m);
    machine_request_stop(f.m.machine, STOP_GUEST_EXIT, 7);
    assert_string_equal(receive(&f), "W07");
    close_fixture(&f);
}

static void kill_ends_the_machine(void **state)
{
    struct fixture f;

    open_fixture(&f, 1);
    send_packet(&f, "k");
    counting_machine_settle(&f.m);
    assert_int_equal(machine_get_state(f.m.machine), MACHINE_STOPPED);
    close_fixture(&f);
}

static void monitor_commands_print_text(void **state)
{
    struct fixture f;
    char output[65536] = "";

    open_fixture(&f, 1);
    send_packet(&f, "qRcmd,737461747573"); /* status */
    for (const char *reply = receive(&f); reply[0] == 'O' && reply[1] != 'K'; reply = receive(&f)) {
        const char *hex = reply + 1;
        size_t size = strlen(hex) / 2, length = strlen(output);

        assert_true(gdb_get_bytes(&hex, output + length, size));
        output[length + size] = '\0';
    }
    assert_non_null(strstr(output, "state: paused\n"));
    assert_non_null(strstr(output, "engine: counting\n"));
    expect(&f, "qRcmd,7", "E16");
    close_fixture(&f);
}

static void without_acknowledges(void **state)
{
    struct fixture f;
    char bytes[64] = "";

    open_fixture(&f, 1);
    expect(&f, "QStartNoAckMode", "OK");
    send_bytes(&f, "$qC#b4$qC#00$qC#b4", 18);
    counting_machine_settle(&f.m);
    assert_int_equal(read(f.fd, bytes, sizeof(bytes)), 14);
    assert_string_equal(bytes, "$QC1#c5$QC1#c5");
    close_fixture(&f);
}

static void a_nak_repeats_the_last_packet(void **state)
{
    struct fixture f;
    char bytes[64] = "";

    open_fixture(&f, 1);
    expect(&f, "qC", "QC1");
    send_bytes(&f, "-$g#00", 6);
    counting_machine_settle(&f.m);
    assert_int_equal(read(f.fd, bytes, sizeof(bytes)), 8);
    assert_string_equal(bytes, "$QC1#c5-");
    close_fixture(&f);
}

static void a_debugger_by_tcp(void **state)
{
    struct counting_machine m;
    struct gdbstub *stub;
    struct error err = {0};

    counting_machine_open(&m, 1, false);
    stub = gdbstub_new(m.machine, "localhost:0", &err);
    assert_non_null(stub);
    assert_int_not_equal(gdbstub_port(stub), 0);
    assert_null(gdbstub_new(m.machine, "unix:/nonesuch/x", &err));
    assert_int_not_equal(err.code, 0);
    machine_free(m.machine);
    gdbstub_free(stub);
    loop_free(m.loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_survive_a_round_trip),
        cmocka_unit_test(damaged_packets_are_told_apart),
        cmocka_unit_test(replies_never_overflow),
        cmocka_unit_test(numbers_have_at_most_sixteen_digits),
        cmocka_unit_test(target_description_names_every_register_once),
        cmocka_unit_test(refused_writes_change_nothing),
        cmocka_unit_test(accepted_writes_read_back),
        cmocka_unit_test(x87_tags_are_computed_from_the_values),
        cmocka_unit_test(the_machine_stands_still_while_a_debugger_looks),
        cmocka_unit_test(a_second_debugger_is_turned_away),
        cmocka_unit_test(queries_describe_the_target),
        cmocka_unit_test(registers_by_thread),
        cmocka_unit_test(all_registers_written_back_change_nothing),
        cmocka_unit_test(a_written_register_is_what_the_processor_goes_on_with),
        cmocka_unit_test(memory_by_linear_and_physical_address),
        cmocka_unit_test(breakpoints_stop_before_their_instruction),
        cmocka_unit_test(watchpoints_name_their_kind_and_address),
        cmocka_unit_test(only_chosen_threads_run),
        cmocka_unit_test(control_c_stops),
        cmocka_unit_test(nobody_else_resumes_under_the_debugger),
        cmocka_unit_test(detach_takes_the_breakpoints_out),
        cmocka_unit_test(the_end_of_the_machine_is_reported),
        cmocka_unit_test(kill_ends_the_machine),
        cmocka_unit_test(monitor_commands_print_text),
        cmocka_unit_test(without_acknowledges),
        cmocka_unit_test(a_nak_repeats_the_last_packet),
        cmocka_unit_test(a_debugger_by_tcp),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
