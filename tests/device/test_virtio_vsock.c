/*
 * test_virtio_vsock.c - virtio sockets, between a guest's driver and unix sockets of the host
 */
#include "cmocka_all.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "devices/devices.h"
#include "trapeze/vsock.h"
#include "virtio_driver.h"

#define SLOT  3
#define RAM   (2u << 20)
#define DATA  0x80000u
#define ROOM  0xa0000u
#define CID   42u
#define PORT  7000u /* of the guest */
#define HPORT 5000u /* of the host */

enum { REQUEST = 1, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST };

struct packet {
    unsigned operation;
    uint32_t host_port, guest_port, size, flags, buffer, forwarded;
    const uint8_t *data;
};

struct fixture {
    char path[64];
    struct device_test *t;
    struct vsock *host;
    struct device *dev;
    struct virtio_driver d;
    struct driver_queue q[3];
    uint32_t buffer, forwarded; /* the guest's credit, put into each packet */
    unsigned rooms;
};

static struct fixture f;

static void start_driver(void)
{
    virtio_driver_begin(&f.d, VIRTIO_F_VERSION_1 | 1, f.q, 3, 256);
    f.buffer = 1 << 16;
    f.forwarded = 0;
}

static void open_host(void)
{
    struct error err = {0};

    f = (struct fixture){.t = device_test_new(RAM)};
    snprintf(f.path, sizeof(f.path), "/tmp/test-vsock-%d", (int)getpid());
    f.host = vsock_open(f.path, false, &err);
    if (!f.host || vsock_start(f.host, f.t->loop, &err))
        fail_msg("%s", err.text);
}

static void attach(const struct device_class *class, const char *properties)
{
    f.dev = device_test_create(f.t, class, properties);
    assert_int_equal(device_set_pointer(f.dev, "host", f.host, NULL), 0);
    device_test_attach(f.dev);
    device_test_start(f.t);
}

static int set_up(void **state)
{
    (void)state;
    open_host();
    device_test_add(f.t, &pci_host_class, "ecam=0xe0000000");
    attach(&virtio_vsock_class, "addr=3,cid=42");
    virtio_driver_find(&f.d, f.t, SLOT);
    start_driver();
    return 0;
}

static int tear_down(void **state)
{
    char path[80];

    (void)state;
    machine_free(f.t->machine);
    vsock_free(f.host);
    loop_free(f.t->loop);
    free(f.t);
    snprintf(path, sizeof(path), "%s_%u", f.path, HPORT);
    unlink(path);
    return 0;
}

static uint8_t *ram(uint64_t gpa)
{
    return f.t->ram.hva + gpa;
}

/* ---- the host ---- */

static int unix_socket(const char *path, bool listens)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(address.sun_path, path);
    if (listens)
        assert_true(!bind(fd, (struct sockaddr *)&address, sizeof(address)) && !listen(fd, 8));
    else
        assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static int listen_on_host(void)
{
    char path[80];

    snprintf(path, sizeof(path), "%s_%u", f.path, HPORT);
    return unix_socket(path, true);
}

static void settle(void)
{
    for (unsigned n = 0; n < 20; n++)
        device_test_loop(f.t);
}

static void write_text(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    settle();
}

/* What there is to read, as text; "" at the end, NULL: nothing. */
static const char *read_text(int fd)
{
    static char text[256];
    ssize_t size;

    settle();
    size = recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT);
    if (size < 0)
        return NULL;
    text[size] = '\0';
    return text;
}

/* ---- the guest ---- */

static void send_raw(const uint8_t header[44], const void *data, uint32_t size)
{
    struct driver_buffer buffers[] = {{DATA, 44, false}, {DATA + 64, size, false}};
    uint16_t id;
    uint32_t length;

    memcpy(ram(DATA), header, 44);
    if (size)
        memcpy(ram(DATA + 64), data, size);
    driver_queue_add(&f.q[1], buffers, size ? 2 : 1);
    driver_queue_kick(&f.q[1]);
    settle();
    assert_true(driver_is_broken(&f.d) || driver_queue_take(&f.q[1], &id, &length));
}

static void make_header(uint8_t h[44], unsigned operation, uint32_t host_port, uint32_t guest_port,
                        uint32_t size, uint32_t flags)
{
    memset(h, 0, 44);
    put_le64(h, CID);
    put_le64(h + 8, 2);
    put_le32(h + 16, guest_port);
    put_le32(h + 20, host_port);
    put_le32(h + 24, size);
    put_le16(h + 28, 1);
    put_le16(h + 30, (uint16_t)operation);
    put_le32(h + 32, flags);
    put_le32(h + 36, f.buffer);
    put_le32(h + 40, f.forwarded);
}

static void say(unsigned operation, uint32_t host_port, uint32_t guest_port, const char *data,
                uint32_t flags)
{
    uint8_t header[44];

    make_header(header, operation, host_port, guest_port, (uint32_t)strlen(data), flags);
    send_raw(header, data, (uint32_t)strlen(data));
}

/* Give a buffer and take what comes; operation 0: nothing has come (the buffer stays). */
static struct packet wait_in(uint32_t room, unsigned limit_ms)
{
    struct driver_buffer buffer = {ROOM, room, true};
    struct packet p = {0};
    uint16_t id;
    uint32_t length;

    if (!f.rooms) {
        driver_queue_add(&f.q[0], &buffer, 1);
        driver_queue_kick(&f.q[0]);
        f.rooms = 1;
    }
    for (unsigned n = 0; n < 10 * limit_ms && f.rooms; n++) {
        settle();
        f.rooms = driver_queue_take(&f.q[0], &id, &length) ? 0 : 1;
        if (f.rooms && n > 20)
            usleep(100);
    }
    if (f.rooms)
        return p;
    p = (struct packet){.operation = get_le16(ram(ROOM + 30)),
                        .host_port = get_le32(ram(ROOM + 16)),
                        .guest_port = get_le32(ram(ROOM + 20)),
                        .size = get_le32(ram(ROOM + 24)),
                        .flags = get_le32(ram(ROOM + 32)),
                        .buffer = get_le32(ram(ROOM + 36)),
                        .forwarded = get_le32(ram(ROOM + 40)),
                        .data = ram(ROOM + 44)};
    assert_int_equal(get_le64(ram(ROOM)), 2);
    assert_int_equal(get_le64(ram(ROOM + 8)), CID);
    assert_int_equal(get_le16(ram(ROOM + 28)), 1);
    assert_int_equal(length, 44 + p.size);
    return p;
}

static struct packet hear_in(uint32_t room)
{
    return wait_in(room, 10000);
}

static struct packet hear(void)
{
    return hear_in(4096);
}

static void hear_nothing(void)
{
    assert_int_equal(wait_in(4096, 5).operation, 0);
}

/* A connection that the host began. */
static int connect_to_guest(uint32_t *out_host_port)
{
    char answer[32];
    struct packet p;
    int fd = unix_socket(f.path, false);

    write_text(fd, "CONNECT 7000\n");
    p = hear();
    assert_int_equal(p.operation, REQUEST);
    assert_int_equal(p.guest_port, PORT);
    assert_int_equal(p.buffer, 65536);
    say(RESPONSE, p.host_port, PORT, "", 0);
    snprintf(answer, sizeof(answer), "OK %u\n", p.host_port);
    assert_string_equal(read_text(fd), answer);
    *out_host_port = p.host_port;
    return fd;
}

/* One that the guest began. */
static int connect_to_host(int listener)
{
    int fd;

    say(REQUEST, HPORT, PORT, "", 0);
    assert_int_equal(hear().operation, RESPONSE);
    fd = accept(listener, NULL, NULL);
    assert_true(fd >= 0);
    return fd;
}

/* ---- tests ---- */

static void the_host_connects(void **state)
{
    uint32_t port;
    int fd = connect_to_guest(&port);
    struct packet p;

    (void)state;
    assert_int_equal(test_read(f.t, f.d.config, 8), CID);
    write_text(fd, "hello");
    p = hear();
    assert_int_equal(p.operation, RW);
    assert_int_equal(p.size, 5);
    assert_memory_equal(p.data, "hello", 5);
    say(RW, port, PORT, "hi there", 0);
    assert_string_equal(read_text(fd), "hi there");
    close(fd); /* both ways */
    p = hear();
    assert_int_equal(p.operation, SHUTDOWN);
    assert_int_equal(p.flags, 3);
    say(RST, port, PORT, "", 0);
    hear_nothing();
    say(RW, port, PORT, "x", 0); /* it has gone */
    assert_int_equal(hear().operation, RST);
}

static void what_is_behind_the_line_is_the_guests(void **state)
{
    int fd = unix_socket(f.path, false);
    struct packet p;

    (void)state;
    write_text(fd, "CONN");
    write_text(fd, "ECT 7000\nearly");
    p = hear();
    assert_int_equal(p.operation, REQUEST);
    hear_nothing(); /* nobody has answered */
    say(RESPONSE, p.host_port, PORT, "", 0);
    p = hear();
    assert_int_equal(p.size, 5);
    assert_memory_equal(p.data, "early", 5);
    close(fd);
}

static void a_guest_that_does_not_listen_refuses(void **state)
{
    int fd = unix_socket(f.path, false);
    struct packet p;

    (void)state;
    write_text(fd, "CONNECT 7000\n");
    p = hear();
    say(RST, p.host_port, PORT, "", 0);
    assert_string_equal(read_text(fd), "");
    close(fd);
}

static void lines_with_mistakes_are_refused(void **state)
{
    static const char *const lines[] = {"CONNECT\n",
                                        "CONNECT x\n",
                                        "CONNECT -1\n",
                                        "connect 1\n",
                                        "CONNECT 4294967296\n",
                                        "\n",
                                        "CONNECT 1 2\n",
                                        "CONNECT 00000000000000000000000000000000000001"};

    (void)state;
    for (unsigned n = 0; n < sizeof(lines) / sizeof(lines[0]); n++) {
        int fd = unix_socket(f.path, false);
        char byte;

        write_text(fd, lines[n]);
        assert_true(recv(fd, &byte, 1, MSG_DONTWAIT) == 0 || errno == ECONNRESET);
        close(fd);
    }
    hear_nothing();
}

static void the_guest_connects(void **state)
{
    int listener = listen_on_host(), fd = connect_to_host(listener);
    struct packet p;

    (void)state;
    say(RW, HPORT, PORT, "to the host", 0);
    assert_string_equal(read_text(fd), "to the host");
    write_text(fd, "to the guest");
    p = hear();
    assert_memory_equal(p.data, "to the guest", 12);
    assert_int_equal(p.forwarded, 11);
    say(REQUEST, HPORT, PORT, "", 0); /* there is one */
    assert_int_equal(hear().operation, RST);
    assert_string_equal(read_text(fd), "");
    close(fd);
    close(listener);
}

static void nobody_listens_on_the_host(void **state)
{
    struct packet p;

    (void)state;
    say(REQUEST, HPORT + 1, PORT, "", 0);
    p = hear();
    assert_int_equal(p.operation, RST);
    assert_int_equal(p.host_port, HPORT + 1);
    assert_int_equal(p.guest_port, PORT);
}

static void half_a_connection_ends(void **state)
{
    int listener = listen_on_host(), fd = connect_to_host(listener);
    struct packet p;

    (void)state;
    say(RW, HPORT, PORT, "last", 0);
    say(SHUTDOWN, HPORT, PORT, "", 2); /* it sends no more */
    assert_string_equal(read_text(fd), "last");
    assert_string_equal(read_text(fd), "");
    write_text(fd, "answer");
    p = hear();
    assert_memory_equal(p.data, "answer", 6);
    shutdown(fd, SHUT_WR);
    p = hear();
    assert_int_equal(p.operation, SHUTDOWN);
    assert_int_equal(p.flags, 3);
    say(SHUTDOWN, HPORT, PORT, "", 3);
    assert_int_equal(hear().operation, RST);
    close(fd);

    fd = connect_to_host(listener);
    shutdown(fd, SHUT_WR); /* the host first */
    p = hear();
    assert_int_equal(p.operation, SHUTDOWN);
    assert_int_equal(p.flags, 2);
    say(RW, HPORT, PORT, "still", 0);
    assert_string_equal(read_text(fd), "still");
    say(SHUTDOWN, HPORT, PORT, "", 3);
    assert_string_equal(read_text(fd), "");
    assert_int_equal(hear().operation, RST);
    close(fd);
    close(listener);
}

static void the_guest_gets_no_more_than_it_has_room_for(void **state)
{
    int listener = listen_on_host(), fd;
    struct packet p;

    (void)state;
    f.buffer = 10;
    fd = connect_to_host(listener);
    write_text(fd, "0123456789abcdefghij");
    p = hear_in(44 + 6);
    assert_int_equal(p.size, 6);
    p = hear();
    assert_int_equal(p.size, 4);
    assert_memory_equal(p.data, "6789", 4);
    assert_int_equal(hear().operation, CREDIT_REQUEST);
    hear_nothing();
    f.forwarded = 3;
    say(CREDIT_UPDATE, HPORT, PORT, "", 0);
    p = hear();
    assert_int_equal(p.size, 3);
    assert_memory_equal(p.data, "abc", 3);
    f.forwarded = 20; /* more than was sent: the rest fits */
    f.buffer = 100;
    say(CREDIT_UPDATE, HPORT, PORT, "", 0);
    assert_int_equal(hear().operation, CREDIT_REQUEST); /* of before */
    f.forwarded = 13;
    say(CREDIT_UPDATE, HPORT, PORT, "", 0);
    p = hear();
    assert_int_equal(p.size, 7);
    close(fd);
    close(listener);
}

static void the_host_takes_its_time(void **state)
{
    int listener = listen_on_host(), fd = connect_to_host(listener), size = 4096;
    static char part[4097], all[1 << 20];
    unsigned sent = 0, got = 0, updates = 0;
    struct packet p = {0};

    (void)state;
    memset(part, 'x', 4096);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    while (sent - p.forwarded + 4096 <= 65536 && sent < sizeof(all)) {
        say(RW, HPORT, PORT, part, 0);
        sent += 4096;
        if (sent - p.forwarded + 4096 > 65536) {
            struct packet next = wait_in(4096, 5);

            if (next.operation != CREDIT_UPDATE)
                break;
            p = next;
            updates++;
        }
    }
    assert_true(sent >= 65536); /* as much as there is credit for */
    for (unsigned n = 0; n < 1000 && got < sent; n++) {
        ssize_t read = recv(fd, all, sizeof(all), MSG_DONTWAIT);

        got += read > 0 ? (unsigned)read : 0;
        settle();
    }
    assert_int_equal(got, sent);
    say(CREDIT_REQUEST, HPORT, PORT, "", 0);
    while (p.forwarded != sent) {
        p = hear();
        assert_int_equal(p.operation, CREDIT_UPDATE);
        assert_int_equal(p.buffer, 65536);
    }
    close(fd);
    close(listener);
}

static void more_than_the_credit_is_refused(void **state)
{
    int listener = listen_on_host(), fd = connect_to_host(listener);
    static char part[16385];
    struct packet p = {0};
    unsigned n = 0;

    (void)state;
    memset(part, 'x', 16384);
    while (p.operation != RST && n++ < 100) {
        say(RW, HPORT, PORT, part, 0);
        p = n % 4 ? p : wait_in(4096, 5);
    }
    assert_int_equal(p.operation, RST);
    close(fd);
    close(listener);
}

static void packets_that_make_no_sense_are_answered(void **state)
{
    uint8_t header[44];

    (void)state;
    say(RW, 1, 2, "x", 0);
    assert_int_equal(hear().operation, RST);
    say(RST, 1, 2, "", 0); /* no answer to an answer */
    hear_nothing();
    make_header(header, REQUEST, HPORT, PORT, 0, 0);
    put_le16(header + 28, 2); /* a type that was not agreed on */
    send_raw(header, NULL, 0);
    assert_int_equal(hear().operation, RST);
    make_header(header, REQUEST, HPORT, PORT, 0, 0);
    put_le64(header + 8, 3); /* not us */
    send_raw(header, NULL, 0);
    assert_int_equal(hear().operation, RST);
    make_header(header, RW, HPORT, PORT, 100, 0);
    send_raw(header, "x", 1);
    assert_true(driver_is_broken(&f.d));
}

static void resets_are_bounded(void **state)
{
    struct driver_buffer buffer = {DATA, 44, false};
    unsigned answers = 0;

    (void)state;
    make_header(ram(DATA), RW, 1, 2, 0, 0);
    for (unsigned n = 0; n < 100; n++)
        driver_queue_add(&f.q[1], &buffer, 1);
    driver_queue_kick(&f.q[1]);
    for (unsigned n = 0; n < 100; n++) {
        device_test_advance_ns(f.t, 1);
        answers += wait_in(4096, 5).operation == RST;
    }
    assert_int_equal(answers, 100);
}

static void connections_are_bounded(void **state)
{
    struct driver_buffer buffer = {DATA, 44, false};
    uint32_t length;
    uint16_t id;

    (void)state;
    for (unsigned n = 0; n < VSOCK_MAX_STREAMS; n++) {
        make_header(ram(DATA), REQUEST, HPORT, 100 + n, 0, 0);
        driver_queue_add(&f.q[1], &buffer, 1);
        driver_queue_kick(&f.q[1]);
        assert_true(driver_queue_take(&f.q[1], &id, &length));
    }
    say(REQUEST, HPORT, 99, "", 0);
    assert_int_equal(hear().operation, RST);
}

static void a_load_ends_all(void **state)
{
    struct driver_buffer buffer = {ROOM + 8192, 4, true};
    uint32_t port, length;
    uint16_t id;
    int fd = connect_to_guest(&port);
    char byte;

    (void)state;
    driver_queue_add(&f.q[2], &buffer, 1);
    driver_queue_kick(&f.q[2]);
    assert_false(driver_queue_take(&f.q[2], &id, &length));
    f.dev->class->quiesce(f.dev);
    write_text(fd, "late");
    device_test_round_trip(f.t, f.dev);
    device_test_round_trip(f.t, f.dev);
    f.dev->class->resume(f.dev);
    device_test_advance_ns(f.t, 1);
    assert_true(driver_queue_take(&f.q[2], &id, &length));
    assert_int_equal(get_le32(ram(ROOM + 8192)), 0);
    assert_true(recv(fd, &byte, 1, MSG_DONTWAIT) == 0 || errno == ECONNRESET);
    say(RW, port, PORT, "x", 0);
    assert_int_equal(hear().operation, RST);
    close(fd);
}

static void without_pci_it_is_the_same(void **state)
{
    (void)state;
    open_host();
    device_test_add(f.t, &virtio_mmio_bus_class, "gpa=0xfec10000");
    attach(&virtio_vsock_mmio_class, "cid=42");
    virtio_driver_find_mmio(&f.d, f.t, 0xfec10000);
    start_driver();
    the_host_connects(state);
    device_test_round_trip(f.t, f.dev);
}

static void its_address_is_checked(void **state)
{
    static const char *const wrong[] = {"cid=2", "cid=0xffffffff", "cid=0x100000003"};
    struct error err = {0};

    (void)state;
    for (unsigned n = 0; n < 3; n++) {
        struct device *dev = device_test_create(f.t, &virtio_vsock_class, wrong[n]);

        device_set_pointer(dev, "host", f.host, NULL);
        assert_int_equal(device_attach(dev, &err), -EINVAL);
    }
    assert_int_equal(device_attach(device_test_create(f.t, &virtio_vsock_class, NULL), &err),
                     -EINVAL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_host_connects),
        TEST(what_is_behind_the_line_is_the_guests),
        TEST(a_guest_that_does_not_listen_refuses),
        TEST(lines_with_mistakes_are_refused),
        TEST(the_guest_connects),
        TEST(nobody_listens_on_the_host),
        TEST(half_a_connection_ends),
        TEST(the_guest_gets_no_more_than_it_has_room_for),
        TEST(the_host_takes_its_time),
        TEST(more_than_the_credit_is_refused),
        TEST(packets_that_make_no_sense_are_answered),
        TEST(resets_are_bounded),
        TEST(connections_are_bounded),
        TEST(a_load_ends_all),
        TEST(its_address_is_checked),
        cmocka_unit_test_setup_teardown(without_pci_it_is_the_same, NULL, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
