/*
 * test_monitor.c - the monitor's commands and its socket, with well-behaved and hostile clients
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/base64.h"
#include "base/log.h"
#include "control/monitor.h"
#include "control/stream.h"
#include "control_test.h"
#include "devices/devices.h"
#include "host/given.h"
#include "host/host.h"
#include "trapeze/block.h"
#include "trapeze/device.h"
#include "trapeze/display.h"
#include "trapeze/input.h"

/* ---- a device to look at ---- */

struct lamp {
    struct device dev;
    uint8_t brightness;
    uint64_t big;
};

static int lamp_attach(struct device *dev, struct error *err)
{
    return 0;
}

static void lamp_reset(struct device *dev)
{
    struct lamp *lamp = container_of(dev, struct lamp, dev);

    lamp->brightness = 42;
    lamp->big = UINT64_MAX;
}

static const struct state_field lamp_state[] = {
    STATE_U8(struct lamp, brightness),
    STATE_U64(struct lamp, big),
    STATE_END,
};

static const struct device_class lamp_class = {
    .name = "lamp",
    .summary = "shines",
    .instance_size = sizeof(struct lamp),
    .attach = lamp_attach,
    .reset = lamp_reset,
    .state = {.version = 1, .oldest = 1, .fields = lamp_state},
};

struct fixture {
    struct counting_machine m;
    struct monitor *monitor;
    char path[64];
};

static void open_fixture(struct fixture *f, unsigned vcpu_count)
{
    struct error err = {0};
    struct device *lamp;

    memset(f, 0, sizeof(*f));
    log_threshold = LOG_ERROR;
    snprintf(f->path, sizeof(f->path), "/tmp/test-monitor-%d.sock", (int)getpid());
    counting_machine_open(&f->m, vcpu_count, false);
    lamp = device_new(f->m.machine, &lamp_class, NULL, &err);
    assert_non_null(lamp);
    assert_int_equal(device_attach(lamp, &err), 0);
    f->monitor = monitor_new(f->m.machine, f->path, &err);
    if (!f->monitor)
        fail_msg("%s", err.text);
    assert_int_equal(machine_start(f->m.machine, &err), 0);
}

static void close_fixture(struct fixture *f)
{
    machine_free(f->m.machine);
    monitor_free(f->monitor);
    loop_free(f->m.loop);
    assert_int_equal(access(f->path, F_OK), -1);
}

/* ---- commands, without the socket ---- */

static json_t *execute(struct fixture *f, const char *request)
{
    char *text;
    json_t *reply;

    machine_lock(f->m.machine);
    text = monitor_execute_line(f->m.machine, request, strlen(request));
    machine_unlock(f->m.machine);
    reply = json_loads(text, 0, NULL);
    if (!reply)
        fail_msg("not JSON: %s", text);
    free(text);
    return reply;
}

static void expect(struct fixture *f, const char *request, const char *expected)
{
    json_t *reply = execute(f, request);
    char *text = json_dumps(reply, JSON_COMPACT);

    assert_string_equal(text, expected);
    free(text);
    json_decref(reply);
}

static void expect_error(struct fixture *f, const char *request, const char *error)
{
    json_t *reply = execute(f, request);

    assert_true(json_is_false(json_object_get(reply, "ok")));
    assert_string_equal(json_string_value(json_object_get(reply, "error")), error);
    json_decref(reply);
}

static void status_says_what_the_machine_does(void **state)
{
    struct fixture f;
    json_t *reply;

    open_fixture(&f, 2);
    reply = execute(&f, "{\"command\":\"status\",\"id\":[1,\"x\"]}");
    assert_true(json_is_true(json_object_get(reply, "ok")));
    assert_string_equal(json_string_value(json_object_get(reply, "state")), "running");
    assert_string_equal(json_string_value(json_object_get(reply, "engine")), "counting");
    assert_int_equal(json_integer_value(json_object_get(reply, "cpus")), 2);
    assert_int_equal(json_integer_value(json_object_get(reply, "memory_bytes")), COUNTER_RAM_BYTES);
    assert_int_equal(json_array_size(json_object_get(reply, "id")), 2);
    json_decref(reply);
    close_fixture(&f);
}

static void pause_and_resume(void **state)
{
    struct fixture f;

    open_fixture(&f, 1);
    expect(&f, "{\"command\":\"pause\"}", "{\"ok\":true}");
    assert_int_equal(machine_get_state(f.m.machine), MACHINE_PAUSED);
    expect(&f, "{\"command\":\"pause\"}", "{\"ok\":true}"); /* again does no harm */
    expect(&f, "{\"command\":\"resume\"}", "{\"ok\":true}");
    assert_int_equal(machine_get_state(f.m.machine), MACHINE_RUNNING);
    close_fixture(&f);
}

static void reset_puts_the_registers_back(void **state)
{
    struct fixture f;

    open_fixture(&f, 1);
    expect(&f, "{\"command\":\"pause\"}", "{\"ok\":true}");
    machine_vcpu(f.m.machine, 0)->state.rip = 0x123456;
    expect(&f, "{\"command\":\"reset\"}", "{\"ok\":true}");
    counting_machine_settle(&f.m);
    assert_int_equal(machine_vcpu(f.m.machine, 0)->state.rip, 0x1000);
    close_fixture(&f);
}

/* The disk is read by a device that has nothing else. */
struct reader {
    struct device dev;
    struct block *drive;
};

static int reader_attach(struct device *dev, struct error *err)
{
    return 0;
}

static const struct property reader_properties[] = {
    PROPERTY_POINTER(struct reader, drive, "disk"),
    PROPERTY_END,
};

static const struct device_class reader_class = {
    .name = "reader",
    .summary = "reads",
    .instance_size = sizeof(struct reader),
    .properties = reader_properties,
    .attach = reader_attach,
};

static void count_down(struct block_request *request, int status)
{
    (void)status;
    request->op = BLOCK_FLUSH; /* that it has ended */
}

static void submit(struct block *drive, enum block_op op, uint64_t offset)
{
    uint8_t bytes[512] = {0};
    struct io_piece piece = {bytes, sizeof(bytes)};
    struct block_request request = {.op = op,
                                    .offset = offset,
                                    .size_bytes = sizeof(bytes),
                                    .pieces = &piece,
                                    .piece_count = 1,
                                    .done = count_down};

    block_submit(drive, &request);
    block_drain(drive);
    assert_int_equal(request.op, BLOCK_FLUSH);
}

static void statistics_count_what_worked(void **state)
{
    static const char disks[] = "[{\"device\":\"reader\",\"reads\":2,\"read_bytes\":1024,"
                                "\"writes\":1,\"written_bytes\":512}]";
    char path[] = "/tmp/test-monitor-disk.XXXXXX", text[80], *got;
    int fd = mkstemp(path);
    struct error err = {0};
    struct fixture f;
    struct block *drive;
    struct device *dev;
    json_t *reply;

    (void)state;
    assert_int_equal(ftruncate(fd, 4096), 0);
    close(fd);
    open_fixture(&f, 1);
    snprintf(text, sizeof(text), "%s,format=raw", path);
    drive = block_open(f.m.loop, text, &err);
    assert_non_null(drive);
    dev = device_new(f.m.machine, &reader_class, NULL, &err);
    assert_int_equal(device_set_pointer(dev, "drive", drive, &err), 0);
    assert_null(device_pointer(dev, "network"));
    machine_lock(f.m.machine);
    submit(drive, BLOCK_READ, 0);
    submit(drive, BLOCK_READ, 512);
    submit(drive, BLOCK_WRITE, 0);
    submit(drive, BLOCK_READ, 4096); /* behind the end */
    machine_unlock(f.m.machine);
    reply = execute(&f, "{\"command\":\"statistics\"}");
    got = json_dumps(json_object_get(reply, "disks"), JSON_COMPACT);
    assert_string_equal(got, disks);
    assert_true(json_integer_value(json_object_get(reply, "cpu_ns")) > 0);
    assert_int_equal(json_array_size(json_object_get(reply, "networks")), 0);
    free(got);
    json_decref(reply);
    block_free(drive);
    close_fixture(&f);
    unlink(path);
}

static void stop_gives_the_exit_status(void **state)
{
    struct fixture f;

    open_fixture(&f, 1);
    expect_error(&f, "{\"command\":\"stop\",\"status\":256}", "an exit status is 0 to 255");
    expect(&f, "{\"command\":\"stop\",\"status\":9}", "{\"ok\":true}");
    assert_int_equal(machine_main(f.m.machine), 9);
    expect_error(&f, "{\"command\":\"resume\"}", "the machine is stopped");
    close_fixture(&f);
}

static void inspect_prints_state_tables(void **state)
{
    struct fixture f;
    json_t *reply, *all;

    open_fixture(&f, 2);
    expect(&f, "{\"command\":\"inspect\",\"device\":\"lamp\"}",
           "{\"ok\":true,\"state\":{\"brightness\":42,\"big\":\"0xffffffffffffffff\"}}");
    assert_int_equal(machine_get_state(f.m.machine), MACHINE_RUNNING);
    reply = execute(&f, "{\"command\":\"inspect\"}");
    all = json_object_get(reply, "state");
    assert_non_null(json_object_get(json_object_get(all, "cpu1"), "rip"));
    assert_non_null(json_object_get(all, "lamp"));
    json_decref(reply);
    expect_error(&f, "{\"command\":\"inspect\",\"device\":\"lmap\"}",
                 "there is no device 'lmap'; did you mean 'lamp'?");
    expect_error(&f, "{\"command\":\"inspect\",\"device\":\"cpu2\"}",
                 "there is no device 'cpu2'; did you mean 'cpu0'?");
    close_fixture(&f);
}

/* A screen with a line of text, or a red pixel. */
struct sign {
    struct screen screen;
    bool is_text;
};

static void sign_watched(void *opaque, bool on)
{
    (void)opaque, (void)on;
}

static void sign_refresh(void *opaque)
{
    screen_row(&((struct sign *)opaque)->screen, 0)[0] = 0xff0000;
}

static bool sign_text(void *opaque, struct screen_text *out)
{
    static const char words[6] = "A\xc4\xdb  ";

    if (!((struct sign *)opaque)->is_text)
        return false;
    *out = (struct screen_text){.columns = 5, .rows = 1, .has_cursor = true, .cursor_column = 3};
    out->cells = calloc(5, sizeof(*out->cells));
    for (unsigned n = 0; n < 5; n++)
        out->cells[n].code = (uint8_t)words[n];
    return true;
}

static const struct screen_source_ops sign_ops = {
    .watched = sign_watched, .refresh = sign_refresh, .text = sign_text};

static void screenshots_are_png_files_or_lines(void **state)
{
    struct fixture f;
    struct sign sign = {.is_text = true};
    json_t *reply;
    uint8_t *png;
    size_t size;

    open_fixture(&f, 1);
    expect_error(&f, "{\"command\":\"screenshot\"}",
                 "the machine has no screen; run it with --vga std");
    screen_init(&sign.screen, f.m.machine, "sign", &sign_ops, &sign);
    expect(&f, "{\"command\":\"screenshot\",\"text\":true}",
           "{\"ok\":true,\"device\":\"sign\",\"columns\":5,\"rows\":1,"
           "\"cursor\":{\"column\":3,\"row\":0},\"lines\":[\"A\u2500\u2588\"]}");
    sign.is_text = false;
    expect_error(&f, "{\"command\":\"screenshot\",\"text\":true}",
                 "the screen is in a graphics mode: it has no characters");
    expect_error(&f, "{\"command\":\"screenshot\",\"screen\":1}", "the machine has no such screen");
    reply = execute(&f, "{\"command\":\"screenshot\"}");
    png = base64_decode(json_string_value(json_object_get(reply, "png")), &size);
    assert_non_null(png);
    assert_true(size > 50);
    assert_memory_equal(png, "\x89PNG", 4);
    free(png);
    json_decref(reply);
    screen_done(&sign.screen);
    close_fixture(&f);
}

static void base64_is_text_of_bytes(void **state)
{
    static const char *const texts[] = {"",         "Zg==",     "Zm8=",    "Zm9v",
                                        "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"};

    for (size_t n = 0; n < 7; n++) {
        size_t size;
        char *text = base64_encode((const uint8_t *)"foobar", n);
        uint8_t *data = base64_decode(texts[n], &size);

        assert_string_equal(text, texts[n]);
        assert_int_equal(size, n);
        assert_memory_equal(data, "foobar", n);
        free(text);
        free(data);
    }
    for (size_t n = 0; n < 3; n++) {
        static const char *const wrong[] = {"Zg=", "Z*==", "====Zg=="};
        size_t size;

        assert_null(base64_decode(wrong[n], &size));
    }
}

static void memory_is_read_in_hex(void **state)
{
    struct fixture f;

    open_fixture(&f, 1);
    memory_write(machine_memory(f.m.machine), 0x7c00, "\x55\xaa\x01", 3);
    expect(&f, "{\"command\":\"memory-read\",\"gpa\":\"0x7c00\",\"size\":3}",
           "{\"ok\":true,\"gpa\":\"0x7c00\",\"data\":\"55aa01\"}");
    expect_error(&f, "{\"command\":\"memory-read\",\"gpa\":31744,\"size\":65537}",
                 "size can be 1 to 65536 bytes");
    expect_error(&f, "{\"command\":\"memory-read\",\"gpa\":\"0xfffffffffffffff0\",\"size\":32}",
                 "0xfffffffffffffff0 to 0xf is not all RAM or ROM");
    expect_error(&f, "{\"command\":\"memory-read\"}",
                 "memory-read needs 'gpa': guest-physical address");
    expect_error(&f, "{\"command\":\"memory-read\",\"gpa\":-1}",
                 "gpa: must be a number that is not negative, or text like \"0x7c00\" or \"64K\"");
    close_fixture(&f);
}

static void translate_and_registers(void **state)
{
    struct fixture f;
    json_t *reply;

    open_fixture(&f, 2);
    expect(&f, "{\"command\":\"translate\",\"gva\":\"0x6123\"}",
           "{\"ok\":true,\"gpa\":\"0x6123\"}");
    expect_error(&f, "{\"command\":\"translate\",\"gva\":\"0x5123\",\"cpu\":1}",
                 "0x5123 is not mapped on cpu1");
    expect_error(&f, "{\"command\":\"registers\",\"cpu\":2}",
                 "there are 2 processors, counted from 0");
    expect(&f, "{\"command\":\"pause\"}", "{\"ok\":true}");
    machine_vcpu(f.m.machine, 1)->state.gpr[X86_R15] = 0xdead;
    reply = execute(&f, "{\"command\":\"registers\",\"cpu\":1}");
    assert_string_equal(json_string_value(json_object_get(reply, "r15")), "0xdead");
    json_decref(reply);
    close_fixture(&f);
}

static void mistakes_teach(void **state)
{
    struct fixture f;

    open_fixture(&f, 1);
    expect_error(&f, "{\"command\":\"stauts\"}",
                 "there is no command 'stauts'; did you mean 'status'?");
    expect_error(&f, "{\"command\":\"inspect\",\"devcie\":\"x\"}",
                 "inspect has no argument 'devcie'; did you mean 'device'?");
    expect_error(&f, "{\"command\":\"inspect\",\"device\":1}", "device: must be text");
    expect_error(&f, "{\"command\":\"events\",\"on\":1}", "on: must be true or false");
    expect_error(&f, "[]", "a request is an object with a command: {\"command\":\"status\"}");
    expect_error(&f, "{}", "a request is an object with a command: {\"command\":\"status\"}");
    expect_error(&f, "{\"command\":7}",
                 "a request is an object with a command: {\"command\":\"status\"}");
    close_fixture(&f);
}

static void help_lists_every_command(void **state)
{
    struct fixture f;
    json_t *reply, *list, *entry;
    size_t i;

    open_fixture(&f, 1);
    reply = execute(&f, "{\"command\":\"help\"}");
    list = json_object_get(reply, "commands");
    assert_true(json_array_size(list) >= 12);
    json_array_foreach(list, i, entry)
    {
        assert_true(strlen(json_string_value(json_object_get(entry, "summary"))) > 5);
    }
    json_decref(reply);
    close_fixture(&f);
}

static void words_become_requests(void **state)
{
    static const char *const good[] = {"memory-read", "0x10", "size=4K"};
    static const char *const flag[] = {"events", "on"};
    static const char *const bad[] = {"memory-read", "gap=1"};
    static const char *const many[] = {"inspect", "a", "b"};
    static const char *const number[] = {"memory-read", "ten"};
    struct error err = {0};
    json_t *request = monitor_parse_words(good, 3, &err);
    char *text = json_dumps(request, JSON_COMPACT);

    assert_string_equal(text, "{\"command\":\"memory-read\",\"gpa\":\"0x10\",\"size\":\"4K\"}");
    free(text);
    json_decref(request);
    request = monitor_parse_words(flag, 2, &err);
    assert_true(json_is_true(json_object_get(request, "on")));
    json_decref(request);
    assert_null(monitor_parse_words(bad, 2, &err));
    assert_string_equal(err.text, "memory-read has no argument 'gap'; did you mean 'gpa'?");
    error_clear(&err);
    assert_null(monitor_parse_words(many, 3, &err));
    error_clear(&err);
    assert_null(monitor_parse_words(number, 2, &err));
    error_clear(&err);
    assert_null(monitor_parse_words(good, 1, &err)); /* gpa is missing */
    error_clear(&err);
    assert_null(monitor_parse_words(NULL, 0, &err));
}

static void replies_print_for_people(void **state)
{
    json_t *reply = json_pack("{s:b,s:i,s:s,s:{s:b,s:[i,i]},s:[{s:i}],s:{}}", "ok", 1, "id", 3,
                              "name", "vm", "inner", "on", 0, "list", 1, 2, "all", "x", 5, "empty");
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    monitor_print_reply(out, reply);
    fclose(out);
    assert_string_equal(text, "name: vm\ninner:\n  on: false\n  list:\n    - 1\n    - 2\n"
                              "all:\n  -\n    x: 5\nempty: {}\n");
    free(text);
    json_decref(reply);
}

/* ---- the socket ---- */

static int connect_client(struct fixture *f)
{
    struct error err = {0};
    int fd = stream_connect(f->path, &err);

    if (fd < 0)
        fail_msg("%s", err.text);
    counting_machine_settle(&f->m);
    return fd;
}

static void send_text(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* The next line, without its newline. */
static const char *read_line(struct fixture *f, int fd)
{
    static char line[1 << 20];
    size_t size = 0;

    do {
        counting_machine_wait_readable(&f->m, fd);
        if (read(fd, line + size, 1) != 1)
            fail_msg("the monitor hung up after '%.*s'", (int)size, line);
    } while (line[size++] != '\n' && size < sizeof(line));
    line[size - 1] = '\0';
    return line;
}

static bool hung_up(struct fixture *f, int fd)
{
    char byte;

    counting_machine_wait_readable(&f->m, fd);
    return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

static void the_socket_is_for_its_owner_only(void **state)
{
    struct fixture f;
    struct stat st;

    open_fixture(&f, 1);
    assert_int_equal(stat(f.path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    close_fixture(&f);
}

/* One with a full queue is not waited for. */
static void a_socket_in_use_is_left_alone(void **state)
{
    struct fixture f;
    struct error err = {0};

    open_fixture(&f, 1);
    for (unsigned n = 0; n < 300; n++) { /* nobody accepts */
        assert_null(monitor_new(f.m.machine, f.path, &err));
        assert_non_null(strstr(err.text, "listens on this socket already"));
    }
    assert_int_equal(access(f.path, F_OK), 0);
    close_fixture(&f);
}

static void several_clients_are_answered_in_order(void **state)
{
    struct fixture f;
    int a, b;

    open_fixture(&f, 1);
    a = connect_client(&f);
    b = connect_client(&f);
    send_text(a, "{\"command\":\"pause\",\"id\":1}\r\n\n{\"command\":\"resume\",\"id\":2}\n");
    send_text(b, "{\"command\":\"pau");
    assert_string_equal(read_line(&f, a), "{\"ok\":true,\"id\":1}");
    assert_string_equal(read_line(&f, a), "{\"ok\":true,\"id\":2}");
    send_text(b, "se\",\"id\":3}\n");
    assert_string_equal(read_line(&f, b), "{\"ok\":true,\"id\":3}");
    close(a);
    send_text(b, "{\"command\":\"quit\"}\n");
    assert_string_equal(read_line(&f, b), "{\"ok\":true}");
    assert_true(hung_up(&f, b));
    close(b);
    close_fixture(&f);
}

static void events_are_for_those_who_ask(void **state)
{
    struct fixture f;
    int asks, other;

    open_fixture(&f, 1);
    asks = connect_client(&f);
    other = connect_client(&f);
    send_text(asks, "{\"command\":\"events\",\"on\":true}\n");
    assert_string_equal(read_line(&f, asks), "{\"ok\":true}");
    send_text(other, "{\"command\":\"registers\"}\n"); /* a short pause nobody hears of */
    read_line(&f, other);
    send_text(other, "{\"command\":\"pause\"}\n");
    assert_string_equal(read_line(&f, other), "{\"ok\":true}");
    assert_string_equal(read_line(&f, asks), "{\"event\":\"state\",\"state\":\"paused\"}");
    send_text(other, "{\"command\":\"stop\",\"status\":3}\n");
    assert_string_equal(read_line(&f, asks),
                        "{\"event\":\"state\",\"state\":\"stopped\",\"reason\":\"host\","
                        "\"status\":3}");
    close(asks);
    close(other);
    close_fixture(&f);
}

static char added[64], removed[64], changed[64];

static int add_one(void *opaque, enum monitor_plug what, const char *text, const char **out_id,
                   struct error *err)
{
    assert_ptr_equal(opaque, added);
    if (strcmp(text, "bad") == 0)
        return error_set(err, EINVAL, "it is bad");
    snprintf(added, sizeof(added), "%s %s",
             what == MONITOR_PLUG_DISK  ? "disk"
             : what == MONITOR_PLUG_NET ? "net"
                                        : "device",
             text);
    *out_id = "new-one";
    return 0;
}

static int remove_one(void *opaque, const char *id, bool by_force, struct error *err)
{
    (void)opaque, (void)err;
    snprintf(removed, sizeof(removed), "%s%s", id, by_force ? " by force" : "");
    return 0;
}

static void expect_answer(struct fixture *f, int fd, const char *request, const char *answer)
{
    send_text(fd, request);
    send_text(fd, "\n");
    if (!strstr(read_line(f, fd), answer))
        fail_msg("%s: no '%s'", request, answer);
}

static void viewers_are_told_of(void **state)
{
    struct fixture f;
    int fd;

    open_fixture(&f, 1);
    fd = connect_client(&f);
    send_text(fd, "{\"command\":\"status\"}\n");
    assert_null(strstr(read_line(&f, fd), "viewers"));
    monitor_set_viewers(f.monitor, "127.0.0.1::5900", NULL);
    expect_answer(&f, fd, "{\"command\":\"status\"}", "\"viewers\":{\"vnc\":\"127.0.0.1::5900\"}");
    monitor_set_viewers(f.monitor, NULL, "http://localhost/#1");
    expect_answer(&f, fd, "{\"command\":\"status\"}",
                  "\"viewers\":{\"web\":\"http://localhost/#1\"}");
    close(fd);
    close_fixture(&f);
}

/* The letter that the image begins with. */
static int change_one(void *opaque, const char *id, const char *text, bool by_force,
                      const char **out_id, bool *out_asked, struct error *err)
{
    int fd = text ? host_open(text, O_RDONLY, 0) : -1;
    char first = '-';

    (void)opaque;
    if (text && fd < 0)
        return error_set(err, errno, "%s: %s", text, strerror(errno));
    if (text) {
        assert_int_equal(pread(fd, &first, 1, 0), 1);
        close(fd);
    }
    snprintf(changed, sizeof(changed), "%s %s %c%s", id ? id : "any", text ? text : "none", first,
             by_force ? " by force" : "");
    *out_id = "cd";
    *out_asked = !by_force;
    return 0;
}

static int letter_file(char letter)
{
    int fd = memfd_create("letter", 0);

    assert_int_equal(write(fd, &letter, 1), 1);
    return fd;
}

/* The copy is closed by who got it. */
static void send_letter(int fd, char letter, const char *text)
{
    int file = letter_file(letter);

    assert_int_equal(host_send(fd, text, strlen(text), file), strlen(text));
    close(file);
}

static unsigned open_files(void)
{
    unsigned count = 0;

    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void media_are_given(void **state)
{
    static const struct monitor_hotplug calls = {.change = change_one};
    struct fixture f;
    unsigned before;
    int fd;

    (void)state;
    open_fixture(&f, 1);
    fd = connect_client(&f);
    before = open_files();
    expect_answer(&f, fd, "{\"command\":\"media-eject\"}", "socket only");
    monitor_set_hotplug(f.monitor, &calls, NULL);
    expect_answer(&f, fd, "{\"command\":\"give\",\"name\":\"/a\"}", "SCM_RIGHTS");
    send_letter(fd, 'x', "{\"command\":\"give\",\"name\":\"/x\"}\n");
    read_line(&f, fd);
    send_letter(fd, 'w', "{\"command\":\"give\",\"name\":\"/a\",\"flags\":1}\n");
    read_line(&f, fd);
    send_letter(fd, 'a', "{\"command\":");
    send_text(fd, "\"give\",\"name\":\"/a\"}\n");
    assert_string_equal(read_line(&f, fd), "{\"ok\":true}");
    assert_int_equal(open_files(), before + 3);
    expect_answer(&f, fd, "{\"command\":\"media-insert\"}", "needs 'file'");
    send_text(fd, "{\"command\":\"media-insert\",\"file\":\"/a\"}\n");
    assert_string_equal(read_line(&f, fd), "{\"ok\":true,\"device\":\"cd\",\"asked\":true}");
    assert_string_equal(changed, "any /a a");
    assert_int_equal(open_files(), before); /* what was not used is closed */
    expect_answer(&f, fd, "{\"command\":\"media-insert\",\"file\":\"/x\"}", "No such file");
    expect_answer(&f, fd, "{\"command\":\"media-eject\",\"device\":\"x\",\"force\":true}",
                  "\"asked\":false");
    assert_string_equal(changed, "x none - by force");
    send_letter(fd, 'd', "{\"command\":\"give\",\"name\":\"/d\"}\n"); /* goes with the client */
    read_line(&f, fd);
    send_letter(fd, 'd', "{\"command\":\"status\"}\n"); /* and so does this */
    read_line(&f, fd);
    assert_int_equal(open_files(), before + 2);
    close(fd);
    counting_machine_settle(&f.m);
    assert_int_equal(open_files(), before - 2); /* both ends of the connection */
    close_fixture(&f);
}

static void only_so_many_descriptors_wait(void **state)
{
    struct fixture f;
    unsigned before;
    int fd;

    (void)state;
    open_fixture(&f, 1);
    fd = connect_client(&f);
    before = open_files();
    for (unsigned n = 0; n < STREAM_MAX_FILES + 2; n++)
        send_letter(fd, 'a', "\n");
    expect_answer(&f, fd, "{\"command\":\"status\"}", "ok");
    assert_int_equal(open_files(), before + STREAM_MAX_FILES);
    for (unsigned n = 0; n < HOST_MAX_GIVEN; n++)
        expect_answer(&f, fd, "{\"command\":\"give\",\"name\":\"/a\"}", "ok\":true");
    send_letter(fd, 'a', "{\"command\":\"give\",\"name\":\"/a\"}\n");
    if (!strstr(read_line(&f, fd), "too long"))
        fail_msg("too many are kept");
    assert_int_equal(open_files(), before + HOST_MAX_GIVEN);
    close(fd);
    close_fixture(&f);
}

/* ---- keys ---- */

static char typed[256];

static void key_arrived(void *opaque, uint8_t usage, bool pressed)
{
    size_t length = strlen(typed);

    (void)opaque;
    snprintf(typed + length, sizeof(typed) - length, "%c%02x", pressed ? '+' : '-', usage);
}

static const struct input_device_ops keyboard_ops = {.key = key_arrived};

static void texts_and_chords_are_typed(void **state)
{
    struct input_device keyboard = {.ops = &keyboard_ops};
    struct fixture f;
    int fd;

    (void)state;
    typed[0] = '\0';
    open_fixture(&f, 1);
    input_add(machine_input(f.m.machine), &keyboard);
    expect_error(&f, "{\"command\":\"type\",\"text\":\"a\"}",
                 "only a client of the socket can type");
    fd = connect_client(&f);
    expect_answer(&f, fd, "{\"command\":\"type\",\"text\":\"a{entr}\"}", "did you mean 'enter'?");
    expect_answer(&f, fd, "{\"command\":\"type\",\"text\":\"\\u00e4\"}",
                  "no character of the guest's keyboard");
    expect_answer(&f, fd, "{\"command\":\"type\",\"text\":\"aB{{{esc}\"}", "\"milliseconds\":120");
    expect_answer(&f, fd, "{\"command\":\"key\",\"keys\":\"ctrl-c\"}", "\"milliseconds\":");
    for (unsigned n = 0; n < 1000 && !strstr(typed, "-e0"); n++)
        loop_once(f.m.loop, 10000000);
    assert_string_equal(typed, "+04-04+e1+05-05-e1+e1+2f-2f-e1+29-29+e0+06-06-e0");
    close(fd);
    close_fixture(&f);
}

static void devices_come_and_go(void **state)
{
    static const struct monitor_hotplug calls = {.add = add_one, .remove = remove_one};
    struct fixture f;
    int fd;

    open_fixture(&f, 1);
    fd = connect_client(&f);
    expect_answer(&f, fd, "{\"command\":\"device-add\",\"disk\":\"a\"}", "socket only");
    monitor_set_hotplug(f.monitor, &calls, added);
    expect_answer(&f, fd, "{\"command\":\"device-add\",\"disk\":\"a.img\"}", "new-one");
    assert_string_equal(added, "disk a.img");
    expect_answer(&f, fd, "{\"command\":\"device-add\",\"net\":\"user\"}", "new-one");
    assert_string_equal(added, "net user");
    expect_answer(&f, fd, "{\"command\":\"device-add\",\"net\":\"bad\"}", "it is bad");
    expect_answer(&f, fd, "{\"command\":\"device-add\"}", "one of");
    expect_answer(&f, fd, "{\"command\":\"device-add\",\"net\":\"a\",\"disk\":\"b\"}", "one of");
    expect_answer(&f, fd, "{\"command\":\"device-remove\",\"device\":\"x\"}", "\"ok\":true");
    assert_string_equal(removed, "x");
    expect_answer(&f, fd, "{\"command\":\"device-remove\",\"device\":\"x\",\"force\":true}",
                  "\"ok\":true");
    assert_string_equal(removed, "x by force");
    expect_answer(&f, fd, "{\"command\":\"events\",\"on\":true}", "\"ok\":true");
    machine_lock(f.m.machine);
    monitor_device_removed(f.monitor, "x");
    machine_unlock(f.m.machine);
    assert_string_equal(read_line(&f, fd), "{\"event\":\"device-removed\",\"device\":\"x\"}");
    close(fd);
    close_fixture(&f);
}

static void a_balloon_has_a_target(void **state)
{
    struct fixture f;
    struct error err = {0};
    struct device *bus;
    int fd;

    open_fixture(&f, 1);
    expect_error(&f, "{\"command\":\"balloon\"}",
                 "the machine has no balloon; run it with --balloon on");
    close_fixture(&f);
    memset(&f, 0, sizeof(f));
    snprintf(f.path, sizeof(f.path), "/tmp/test-monitor-%d.sock", (int)getpid());
    counting_machine_open(&f.m, 1, false);
    bus = device_new(f.m.machine, &virtio_mmio_bus_class, NULL, &err);
    assert_int_equal(device_set(bus, "gpa", "0xfec10000", &err), 0);
    assert_int_equal(device_attach(bus, &err), 0);
    assert_int_equal(
        device_attach(device_new(f.m.machine, &virtio_balloon_mmio_class, NULL, &err), &err), 0);
    f.monitor = monitor_new(f.m.machine, f.path, &err);
    assert_non_null(f.monitor);
    assert_int_equal(machine_start(f.m.machine, &err), 0);
    fd = connect_client(&f);
    expect_answer(&f, fd, "{\"command\":\"balloon\"}", "\"asked\":false");
    expect_answer(&f, fd, "{\"command\":\"balloon\",\"size\":\"2M\"}", "\"target_bytes\":2097152");
    expect_answer(&f, fd, "{\"command\":\"balloon\",\"size\":\"1K\"}", "size can be 1M to");
    expect_answer(&f, fd, "{\"command\":\"balloon\",\"size\":\"1T\"}", "size can be 1M to");
    expect_answer(&f, fd, "{\"command\":\"events\",\"on\":true}", "\"ok\":true");
    bus_memory_write(f.m.machine, 0xfec10104, 1, 4); /* the guest has given one page */
    assert_non_null(strstr(read_line(&f, fd), "{\"event\":\"balloon\",\"memory_bytes\":"));
    close(fd);
    close_fixture(&f);
}

static void bad_bytes_get_an_error_and_the_next_line_works(void **state)
{
    static const char *const lines[] = {
        "hello", "{\"command\":\"\xff\xfe\"}", "{\"command\":", "\"x\"", "{\"a\":1,\"a\":2}",
    };
    struct fixture f;
    int fd;

    open_fixture(&f, 1);
    fd = connect_client(&f);
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        send_text(fd, lines[i]);
        send_text(fd, "\n");
        assert_memory_equal(read_line(&f, fd), "{\"ok\":false,\"error\":", 20);
    }
    assert_int_equal(send(fd, "\0\0\n", 3, 0), 3);
    assert_memory_equal(read_line(&f, fd), "{\"ok\":false,\"error\":", 20);
    send_text(fd, "{\"command\":\"quit\"}\n");
    assert_string_equal(read_line(&f, fd), "{\"ok\":true}");
    close(fd);
    close_fixture(&f);
}

static void a_line_without_end_is_refused_once(void **state)
{
    struct fixture f;
    char *junk = malloc(1 << 16);
    int fd;

    open_fixture(&f, 1);
    fd = connect_client(&f);
    memset(junk, 'x', 1 << 16);
    for (unsigned i = 0; i < 10; i++) {
        for (size_t sent = 0; sent < 1 << 16;) {
            ssize_t n = send(fd, junk + sent, (1 << 16) - sent, MSG_DONTWAIT);

            sent += n > 0 ? (size_t)n : 0;
            counting_machine_settle(&f.m);
        }
    }
    send_text(fd, "\n{\"command\":\"quit\"}\n");
    assert_string_equal(read_line(&f, fd),
                        "{\"ok\":false,\"error\":\"the line is longer than 65536 bytes; it is "
                        "ignored\"}");
    assert_string_equal(read_line(&f, fd), "{\"ok\":true}");
    free(junk);
    close(fd);
    close_fixture(&f);
}

static void a_client_that_never_reads_is_not_read_from(void **state)
{
    static const char request[] = "{\"command\":\"memory-read\",\"gpa\":0,\"size\":65536}\n";
    struct fixture f;
    int fd, other;
    unsigned sent = 0;

    open_fixture(&f, 1);
    fd = connect_client(&f);
    while (sent < 20000 && send(fd, request, strlen(request), MSG_DONTWAIT) > 0) {
        sent++;
        if (sent % 64 == 0)
            counting_machine_settle(&f.m);
    }
    assert_in_range(sent, 1, 19999); /* the socket is full: the monitor has stopped reading */
    other = connect_client(&f);
    send_text(other, "{\"command\":\"quit\"}\n");
    assert_string_equal(read_line(&f, other), "{\"ok\":true}");
    close(fd);
    close(other);
    counting_machine_settle(&f.m);
    close_fixture(&f);
}

static void too_many_clients_are_told_so(void **state)
{
    struct fixture f;
    int fds[MONITOR_MAX_CLIENTS], extra;

    open_fixture(&f, 1);
    for (unsigned i = 0; i < MONITOR_MAX_CLIENTS; i++)
        fds[i] = connect_client(&f);
    extra = connect_client(&f);
    assert_string_equal(read_line(&f, extra), "{\"ok\":false,\"error\":\"too many clients\"}");
    assert_true(hung_up(&f, extra));
    close(extra);
    for (unsigned i = 0; i < MONITOR_MAX_CLIENTS; i++)
        close(fds[i]);
    counting_machine_settle(&f.m);
    extra = connect_client(&f);
    send_text(extra, "{\"command\":\"quit\"}\n");
    assert_string_equal(read_line(&f, extra), "{\"ok\":true}");
    close(extra);
    close_fixture(&f);
}

static void leave_dead_socket(const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
    assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
    close(fd);
}

static void a_dead_socket_is_replaced_a_live_one_is_not(void **state)
{
    struct stream_server *server;
    struct fixture f;
    struct error err = {0};
    char path[80];
    FILE *file;

    open_fixture(&f, 1);
    assert_null(stream_listen(f.m.loop, f.path, NULL, NULL, &err));
    assert_string_equal(
        err.text, "something listens on this socket already: another process, or another option");
    counting_machine_settle(&f.m);
    error_clear(&err);
    snprintf(path, sizeof(path), "%s.file", f.path);
    file = fopen(path, "w");
    fclose(file);
    assert_null(stream_listen(f.m.loop, path, NULL, NULL, &err));
    assert_int_equal(access(path, F_OK), 0); /* and is still there */
    unlink(path);
    leave_dead_socket(path);
    server = stream_listen(f.m.loop, path, NULL, NULL, NULL);
    assert_non_null(server);
    stream_server_free(server);
    assert_int_equal(access(path, F_OK), -1);
    close_fixture(&f);
}

static void addresses_that_cannot_be(void **state)
{
    struct error err = {0};
    char path[300];

    memset(path, 'x', sizeof(path));
    path[0] = '/';
    path[sizeof(path) - 1] = '\0';
    assert_true(stream_connect(path, &err) < 0);
    error_clear(&err);
    assert_true(stream_connect("unix:", &err) < 0);
    error_clear(&err);
    assert_true(stream_connect("localhost:99999999", &err) < 0);
    assert_int_not_equal(err.code, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_says_what_the_machine_does),
        cmocka_unit_test(pause_and_resume),
        cmocka_unit_test(reset_puts_the_registers_back),
        cmocka_unit_test(stop_gives_the_exit_status),
        cmocka_unit_test(statistics_count_what_worked),
        cmocka_unit_test(inspect_prints_state_tables),
        cmocka_unit_test(screenshots_are_png_files_or_lines),
        cmocka_unit_test(texts_and_chords_are_typed),
        cmocka_unit_test(base64_is_text_of_bytes),
        cmocka_unit_test(memory_is_read_in_hex),
        cmocka_unit_test(translate_and_registers),
        cmocka_unit_test(mistakes_teach),
        cmocka_unit_test(help_lists_every_command),
        cmocka_unit_test(words_become_requests),
        cmocka_unit_test(replies_print_for_people),
        cmocka_unit_test(the_socket_is_for_its_owner_only),
        cmocka_unit_test(a_socket_in_use_is_left_alone),
        cmocka_unit_test(viewers_are_told_of),
        cmocka_unit_test(several_clients_are_answered_in_order),
        cmocka_unit_test(events_are_for_those_who_ask),
        cmocka_unit_test(devices_come_and_go),
        cmocka_unit_test(media_are_given),
        cmocka_unit_test(only_so_many_descriptors_wait),
        cmocka_unit_test(a_balloon_has_a_target),
        cmocka_unit_test(bad_bytes_get_an_error_and_the_next_line_works),
        cmocka_unit_test(a_line_without_end_is_refused_once),
        cmocka_unit_test(a_client_that_never_reads_is_not_read_from),
        cmocka_unit_test(too_many_clients_are_told_so),
        cmocka_unit_test(a_dead_socket_is_replaced_a_live_one_is_not),
        cmocka_unit_test(addresses_that_cannot_be),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
