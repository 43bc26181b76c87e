/*
 * test_virtio_console.c - the virtio console and its ports, driven by a guest's driver
 */
#include "cmocka_all.h"

#include <errno.h>
#include <stdio.h>

#include "base/bytes.h"
#include "devices/devices.h"
#include "devices/virtio/console.h"
#include "trapeze/chardev.h"
#include "virtio_driver.h"

#define SLOT        3
#define RAM         (2u << 20)
#define DATA        0x80000u
#define ROOM        0xa0000u /* for what arrives */

#define F_SIZE      (1ull << 0)
#define F_MULTIPORT (1ull << 1)
#define F_EMERGENCY (1ull << 2)

/* ---- a backend ---- */

struct fake {
    struct chardev chardev;
    size_t room; /* of what the guest sends */
    uint8_t sent[1 << 16];
    size_t sent_size;
    uint8_t input[1 << 12];
    size_t input_size;
    uint16_t columns, rows;
};

static struct fake *fake_of(struct chardev *chardev)
{
    return container_of(chardev, struct fake, chardev);
}

static size_t fake_send(struct chardev *chardev, const uint8_t *data, size_t size)
{
    struct fake *fake = fake_of(chardev);
    size_t taken = size < fake->room ? size : fake->room;

    memcpy(fake->sent + fake->sent_size, data, taken);
    fake->sent_size += taken;
    fake->room -= taken;
    return taken;
}

static void fake_accept_input(struct chardev *chardev)
{
    struct fake *fake = fake_of(chardev);
    size_t size;

    while (fake->input_size && (size = chardev_room(chardev))) {
        uint8_t data[1 << 12];

        size = size < fake->input_size ? size : fake->input_size;
        memcpy(data, fake->input, size);
        fake->input_size -= size;
        memmove(fake->input, fake->input + size, fake->input_size);
        chardev_deliver(chardev, data, size);
    }
}

static bool fake_window(struct chardev *chardev, uint16_t *out_columns, uint16_t *out_rows)
{
    *out_columns = fake_of(chardev)->columns;
    *out_rows = fake_of(chardev)->rows;
    return true;
}

static const struct chardev_ops fake_ops = {
    .name = "fake", .send = fake_send, .accept_input = fake_accept_input, .window = fake_window};

/* ---- the machine ---- */

struct fixture {
    struct device_test *t;
    struct device *console;
    struct virtio_driver d;
    struct driver_queue q[8];
    struct fake fake[2];
};

static struct fixture f;

static void create(const struct device_class *class, const char *properties)
{
    f.console = device_test_create(f.t, class, properties);
    for (unsigned n = 0; n < 2; n++)
        f.fake[n] = (struct fake){
            .chardev = {.ops = &fake_ops, .connected = true}, .room = 1 << 16, .columns = 80};
}

static void start_driver(uint64_t features, unsigned queues)
{
    virtio_driver_begin(&f.d, features, f.q, queues, 16);
}

static int open_console(void **state)
{
    (void)state;
    f = (struct fixture){.t = device_test_new(RAM)};
    device_test_add(f.t, &pci_host_class, "ecam=0xe0000000");
    create(&virtio_console_class, "addr=3");
    device_set_pointer(f.console, "chardev", &f.fake[0].chardev, NULL);
    device_test_attach(f.console);
    device_test_start(f.t);
    virtio_driver_find(&f.d, f.t, SLOT);
    start_driver(VIRTIO_F_VERSION_1 | F_SIZE, 2);
    return 0;
}

static int open_ports(void **state)
{
    (void)state;
    f = (struct fixture){.t = device_test_new(RAM)};
    device_test_add(f.t, &pci_host_class, "ecam=0xe0000000");
    create(&virtio_console_class, "addr=3");
    virtio_console_add_port(f.console, "first", &f.fake[0].chardev, NULL);
    virtio_console_add_port(f.console, "second", &f.fake[1].chardev, NULL);
    device_test_attach(f.console);
    device_test_start(f.t);
    virtio_driver_find(&f.d, f.t, SLOT);
    start_driver(VIRTIO_F_VERSION_1 | F_MULTIPORT, 8);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    device_test_free(f.t);
    return 0;
}

static uint8_t *ram(uint64_t gpa)
{
    return f.t->ram.hva + gpa;
}

static void add(unsigned queue, uint64_t gpa, uint32_t size, bool write)
{
    struct driver_buffer buffer = {gpa, size, write};

    driver_queue_add(&f.q[queue], &buffer, 1);
    driver_queue_kick(&f.q[queue]);
}

/* Bytes of the next chain that was given back; -1: none was. */
static int taken(unsigned queue)
{
    uint16_t id;
    uint32_t length;

    return driver_queue_take(&f.q[queue], &id, &length) ? (int)length : -1;
}

static void type(unsigned port, const char *text)
{
    struct fake *fake = &f.fake[port];

    memcpy(fake->input + fake->input_size, text, strlen(text));
    fake->input_size += strlen(text);
    fake_accept_input(&fake->chardev);
}

static void print(unsigned queue, const char *text)
{
    memcpy(ram(DATA), text, strlen(text));
    add(queue, DATA, (uint32_t)strlen(text), false);
}

static void print_and_take(const char *text)
{
    print(1, text);
    assert_int_equal(taken(1), 0);
}

/* ---- a console ---- */

static void bytes_go_both_ways(void **state)
{
    (void)state;
    print(1, "login: ");
    assert_int_equal(taken(1), 0);
    assert_memory_equal(f.fake[0].sent, "login: ", 7);
    add(0, ROOM, 64, true);
    type(0, "root\r");
    assert_int_equal(taken(0), 5);
    assert_memory_equal(ram(ROOM), "root\r", 5);
    assert_int_equal(taken(0), -1);
}

static void what_there_is_no_buffer_for_waits(void **state)
{
    (void)state;
    type(0, "abcdef");
    assert_int_equal(f.fake[0].input_size, 6);
    add(0, ROOM, 4, true);
    assert_int_equal(taken(0), 4);
    assert_int_equal(f.fake[0].input_size, 2);
    device_test_round_trip(f.t, f.console);
    add(0, ROOM + 16, 4, true);
    assert_int_equal(taken(0), 2);
    assert_memory_equal(ram(ROOM + 16), "ef", 2);
}

static void what_the_backend_does_not_take_waits(void **state)
{
    (void)state;
    f.fake[0].room = 5;
    print(1, "0123456789");
    memcpy(ram(DATA + 64), "abc", 3);
    add(1, DATA + 64, 3, false);
    assert_int_equal(taken(1), -1);
    assert_int_equal(f.fake[0].sent_size, 5);
    device_test_round_trip(f.t, f.console); /* the five are not sent again */
    f.fake[0].room = 6;
    machine_lock(f.t->machine);
    chardev_notify_can_send(&f.fake[0].chardev);
    machine_unlock(f.t->machine);
    assert_int_equal(taken(1), 0);
    assert_int_equal(taken(1), -1);
    f.fake[0].room = 100;
    machine_lock(f.t->machine);
    chardev_notify_can_send(&f.fake[0].chardev);
    machine_unlock(f.t->machine);
    assert_int_equal(taken(1), 0);
    assert_int_equal(f.fake[0].sent_size, 13);
    assert_memory_equal(f.fake[0].sent, "0123456789abc", 13);
}

static void a_chain_that_shrinks_is_done(void **state)
{
    (void)state;
    f.fake[0].room = 5;
    print(1, "0123456789");
    put_le32(ram(f.q[1].descriptors + 8), 3); /* less than was sent of it */
    f.fake[0].room = 100;
    driver_queue_kick(&f.q[1]);
    assert_int_equal(taken(1), 0);
    assert_int_equal(f.fake[0].sent_size, 5);
    assert_false(driver_is_broken(&f.d));
}

static void much_is_done_in_turns(void **state)
{
    struct driver_buffer buffers[8];

    (void)state;
    f.fake[0].room = 0;
    f.fake[0].chardev.ops = &(const struct chardev_ops){.send = fake_send};
    for (unsigned n = 0; n < 8; n++)
        buffers[n] = (struct driver_buffer){0, RAM, false};
    driver_queue_add(&f.q[1], buffers, 8);
    for (unsigned n = 0; n < 100 && taken(1) < 0; n++) {
        f.fake[0].room = 1 << 16; /* 16 MiB, of which the backend takes 64 KiB at a time */
        f.fake[0].sent_size = 0;
        driver_queue_kick(&f.q[1]);
        assert_int_equal(f.fake[0].room, 0);
    }
    assert_false(driver_is_broken(&f.d));
}

static void a_buffer_without_room_is_refused(void **state)
{
    (void)state;
    add(0, ROOM, 0, true);
    type(0, "x");
    assert_true(driver_is_broken(&f.d));
}

static void the_window_is_configuration(void **state)
{
    unsigned messages;

    (void)state;
    assert_int_equal(virtio_driver_offered(&f.d) & 7, F_SIZE | F_EMERGENCY);
    assert_int_equal(test_read(f.t, f.d.config, 4), 80);
    virtio_driver_use_msix(&f.d);
    driver_write(&f.d, COMMON_CONFIG_VECTOR, 0, 2);
    messages = f.t->msi_count;
    f.fake[0].columns = 132;
    f.fake[0].rows = 43;
    machine_lock(f.t->machine);
    chardev_notify_resized(&f.fake[0].chardev);
    chardev_notify_resized(&f.fake[0].chardev);
    machine_unlock(f.t->machine);
    assert_int_equal(f.t->msi_count, messages + 1);
    assert_int_equal(test_read(f.t, f.d.config, 4), 43 << 16 | 132);
    for (unsigned n = 0; n < 10; n++) /* Linux looks only when it is told */
        print_and_take("x");
    assert_int_equal(f.t->msi_count, messages + 9 + 10);
    f.console->class->quiesce(f.console);
    f.fake[0].rows = 50;
    machine_lock(f.t->machine);
    chardev_notify_resized(&f.fake[0].chardev);
    machine_unlock(f.t->machine);
    assert_int_equal(test_read(f.t, f.d.config + 2, 2), 43);
    f.console->class->resume(f.console);
    assert_int_equal(test_read(f.t, f.d.config + 2, 2), 50);
    device_test_round_trip(f.t, f.console);
}

static void a_driver_in_need_writes_one_character(void **state)
{
    (void)state;
    device_test_reset(f.t);
    virtio_driver_find(&f.d, f.t, SLOT);
    test_write(f.t, f.d.config + 8, '!', 4);
    assert_int_equal(f.fake[0].sent_size, 1);
    assert_int_equal(f.fake[0].sent[0], '!');
}

static void a_pause_puts_both_ways_off(void **state)
{
    (void)state;
    f.console->class->quiesce(f.console);
    print(1, "x");
    add(0, ROOM, 8, true);
    type(0, "y");
    assert_int_equal(taken(0), -1);
    assert_int_equal(taken(1), -1);
    device_test_round_trip(f.t, f.console);
    f.console->class->resume(f.console);
    device_test_advance_ns(f.t, 1);
    assert_int_equal(taken(0), 1);
    assert_int_equal(taken(1), 0);
}

/* ---- ports ---- */

static void tell(uint32_t port, uint16_t event, uint16_t value)
{
    put_le32(ram(DATA), port);
    put_le16(ram(DATA + 4), event);
    put_le16(ram(DATA + 6), value);
    add(3, DATA, 8, false);
    assert_int_equal(taken(3), 0);
}

static void expect_message(uint32_t port, uint16_t event, uint16_t value, const char *name)
{
    memset(ram(ROOM), 0xee, 128);
    add(2, ROOM, 128, true);
    assert_int_equal(taken(2), 8 + strlen(name));
    assert_int_equal(get_le32(ram(ROOM)), port);
    assert_int_equal(get_le16(ram(ROOM + 4)), event);
    assert_int_equal(get_le16(ram(ROOM + 6)), value);
    assert_memory_equal(ram(ROOM + 8), name, strlen(name));
}

/* There is nothing to say; the buffer stays. */
static void expect_silence(void)
{
    add(2, ROOM, 128, true);
    assert_int_equal(taken(2), -1);
}

static void announce(void)
{
    tell(~0u, 0, 1);
    expect_message(1, 1, 1, "");
    device_test_round_trip(f.t, f.console);
    expect_message(2, 1, 1, "");
    tell(1, 3, 1);
    tell(2, 3, 1);
    expect_message(1, 7, 1, "first");
    expect_message(1, 6, 1, "");
    expect_message(2, 7, 1, "second");
    expect_message(2, 6, 1, "");
}

static void ports_are_announced(void **state)
{
    (void)state;
    assert_int_equal(virtio_driver_offered(&f.d) & 7, F_MULTIPORT);
    assert_int_equal(driver_read(&f.d, COMMON_QUEUE_COUNT, 2), 8);
    assert_int_equal(test_read(f.t, f.d.config + 4, 4), 3);
    f.fake[1].chardev.connected = false;
    tell(~0u, 0, 1);
    expect_message(1, 1, 1, "");
    expect_message(2, 1, 1, "");
    tell(2, 3, 1);
    expect_message(2, 7, 1, "second"); /* nobody is at the other end */
    tell(7, 3, 1);                     /* there is none such */
    tell(0, 3, 1);
    expect_silence();
}

static void ports_are_opened_at_both_ends(void **state)
{
    (void)state;
    announce();
    type(1, "early");
    add(6, ROOM, 16, true);
    assert_int_equal(taken(6), -1); /* no program has opened it */
    tell(2, 6, 1);
    assert_int_equal(taken(6), 5);
    tell(2, 6, 0);
    type(1, "late");
    add(6, ROOM, 16, true);
    assert_int_equal(taken(6), -1);
    print(5, "to the first");
    assert_memory_equal(f.fake[0].sent, "to the first", 12);
    print(7, "to the second");
    assert_memory_equal(f.fake[1].sent, "to the second", 13);
    machine_lock(f.t->machine);
    chardev_set_connected(&f.fake[0].chardev, false);
    machine_unlock(f.t->machine);
    expect_message(1, 6, 0, "");
    device_test_round_trip(f.t, f.console);
    f.console->class->quiesce(f.console);
    machine_lock(f.t->machine);
    chardev_set_connected(&f.fake[0].chardev, true);
    machine_unlock(f.t->machine);
    f.console->class->resume(f.console);
    device_test_advance_ns(f.t, 1);
    expect_message(1, 6, 1, "");
}

/* As the guest's agent is, and a socket whose other end is gone. */
static size_t answer_send(struct chardev *chardev, const uint8_t *data, size_t size)
{
    fake_send(chardev, data, size);
    if (chardev_room(chardev))
        chardev_deliver(chardev, (const uint8_t *)"answer", 6);
    chardev_set_connected(chardev, false);
    return size;
}

static void backends_answer_at_once(void **state)
{
    static const struct chardev_ops ops = {.name = "answer", .send = answer_send};

    (void)state;
    announce();
    tell(1, 6, 1);
    f.fake[0].chardev.ops = &ops;
    for (unsigned n = 0; n < 3; n++) /* so that chains of the two queues have other numbers */
        add(4, ROOM + 16 * n, 16, true);
    memset(ram(ROOM + 64), 0xee, 64);
    add(2, ROOM + 64, 64, true);
    for (unsigned n = 0; n < 3; n++) {
        uint16_t id;
        uint32_t length;

        print(5, "question");
        assert_true(driver_queue_take(&f.q[5], &id, &length));
        assert_int_equal(id, 0); /* the transmitted one */
        assert_int_equal(taken(4), 6);
        assert_memory_equal(ram(ROOM + 16 * n), "answer", 6);
    }
    assert_int_equal(taken(2), 8);
    assert_int_equal(get_le16(ram(ROOM + 64 + 4)), 6);
    assert_memory_equal(f.fake[0].sent, "questionquestionquestion", 24);
    assert_false(driver_is_broken(&f.d));
}

static void messages_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    add(3, DATA, 7, false);
    assert_true(driver_is_broken(&f.d));
}

static void a_message_needs_room(void **state)
{
    (void)state;
    tell(~0u, 0, 1);
    add(2, ROOM, 7, true);
    assert_true(driver_is_broken(&f.d));
    device_test_reset(f.t);
    virtio_driver_find(&f.d, f.t, SLOT);
    start_driver(VIRTIO_F_VERSION_1 | F_MULTIPORT, 8);
    expect_silence(); /* it begins anew */
}

static void ports_have_names_of_their_own(void **state)
{
    char name[80];

    (void)state;
    memset(name, 'x', sizeof(name));
    name[65] = '\0';
    create(&virtio_console_class, NULL);
    assert_int_equal(virtio_console_add_port(f.console, "", &f.fake[0].chardev, NULL), -EINVAL);
    assert_int_equal(virtio_console_add_port(f.console, name, &f.fake[0].chardev, NULL), -EINVAL);
    for (unsigned n = 0; n < VIRTIO_CONSOLE_MAX_PORTS; n++) {
        snprintf(name, sizeof(name), "p%u", n);
        assert_int_equal(virtio_console_add_port(f.console, name, &f.fake[0].chardev, NULL), 0);
        assert_true(virtio_console_add_port(f.console, name, &f.fake[0].chardev, NULL) < 0);
    }
    assert_int_equal(virtio_console_add_port(f.console, "p", &f.fake[0].chardev, NULL), -ENOSPC);
    device_set_pointer(f.console, "chardev", &f.fake[1].chardev, NULL);
    assert_int_equal(device_attach(f.console, NULL), -EINVAL); /* a console, or ports */
}

/* ---- other transports ---- */

static void an_old_driver_has_a_console(void **state)
{
    (void)state;
    f = (struct fixture){.t = device_test_new(RAM)};
    device_test_add(f.t, &pci_host_class, "ecam=0xe0000000");
    create(&virtio_console_class, "addr=3,transitional=on");
    device_set_pointer(f.console, "chardev", &f.fake[0].chardev, NULL);
    device_test_attach(f.console);
    device_test_start(f.t);
    virtio_driver_find_legacy(&f.d, f.t, SLOT);
    virtio_driver_begin(&f.d, F_SIZE, f.q, 2, 256);
    bytes_go_both_ways(state);
}

static void without_pci_it_is_the_same(void **state)
{
    (void)state;
    f = (struct fixture){.t = device_test_new(RAM)};
    device_test_add(f.t, &virtio_mmio_bus_class, "gpa=0xfec10000");
    create(&virtio_console_mmio_class, NULL);
    device_set_pointer(f.console, "chardev", &f.fake[0].chardev, NULL);
    device_test_attach(f.console);
    device_test_start(f.t);
    virtio_driver_find_mmio(&f.d, f.t, 0xfec10000);
    start_driver(VIRTIO_F_VERSION_1 | F_SIZE, 2);
    bytes_go_both_ways(state);
    device_test_round_trip(f.t, f.console);
}

#define TEST(name, set_up) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bytes_go_both_ways, open_console),
        TEST(what_there_is_no_buffer_for_waits, open_console),
        TEST(what_the_backend_does_not_take_waits, open_console),
        TEST(a_chain_that_shrinks_is_done, open_console),
        TEST(much_is_done_in_turns, open_console),
        TEST(a_buffer_without_room_is_refused, open_console),
        TEST(the_window_is_configuration, open_console),
        TEST(a_driver_in_need_writes_one_character, open_console),
        TEST(a_pause_puts_both_ways_off, open_console),
        TEST(ports_are_announced, open_ports),
        TEST(ports_are_opened_at_both_ends, open_ports),
        TEST(backends_answer_at_once, open_ports),
        TEST(messages_that_make_no_sense_are_refused, open_ports),
        TEST(a_message_needs_room, open_ports),
        TEST(ports_have_names_of_their_own, open_ports),
        TEST(an_old_driver_has_a_console, NULL),
        TEST(without_pci_it_is_the_same, NULL),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
