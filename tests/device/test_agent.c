/*
 * test_agent.c - the clipboard's way into the guest, with the test as the agent that runs there
 */
#include "cmocka_all.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "device_test.h"
#include "devices/agent.h"
#include "trapeze/chardev.h"
#include "trapeze/clipboard.h"

#define CHUNK_MAX 2048u

enum { CLIPBOARD = 4, CAPABILITIES = 6, GRAB = 7, REQUEST = 8, RELEASE = 9, MAX_CLIPBOARD = 14 };
enum { BY_DEMAND = 1 << 5, SELECTIONS = 1 << 6, CRLF = 1 << 9, CAN_MAX = 1 << 10 };

struct fixture {
    struct device_test *t;
    struct device *dev;
    struct chardev *chardev;
    struct clipboard *clipboard;
    struct clipboard_peer viewer;
    unsigned told; /* so often the viewer */

    /* What came, and where the test is in it. */
    size_t room, size, at;
    uint8_t data[4u << 20];
};

static struct fixture *f;

/* ---- the port ---- */

static size_t can_receive(void *opaque)
{
    (void)opaque;
    return f->room;
}

static void receive(void *opaque, const uint8_t *data, size_t size)
{
    (void)opaque;
    assert_true(size <= f->room && f->size + size <= sizeof(f->data));
    memcpy(f->data + f->size, data, size);
    f->size += size;
    f->room -= size;
}

static const struct chardev_frontend port = {.can_receive = can_receive, .receive = receive};

static void viewer_told(void *opaque)
{
    (void)opaque;
    f->told++;
}

static const struct clipboard_ops viewer_ops = {.changed = viewer_told};

static int set_up(void **state)
{
    (void)state;
    f = calloc(1, sizeof(*f));
    f->t = device_test_new(0);
    f->dev = device_test_add(f->t, &agent_class, NULL);
    device_test_start(f->t);
    f->chardev = agent_chardev(f->dev);
    f->clipboard = machine_clipboard(f->t->machine);
    f->room = sizeof(f->data);
    f->viewer.ops = &viewer_ops;
    machine_lock(f->t->machine);
    chardev_connect(f->chardev, &port);
    clipboard_join(f->clipboard, &f->viewer);
    machine_unlock(f->t->machine);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    device_test_free(f->t);
    free(f);
    return 0;
}

/* ---- the agent ---- */

static void open_port(bool is_open)
{
    machine_lock(f->t->machine);
    chardev_set_open(f->chardev, is_open);
    machine_unlock(f->t->machine);
}

static void give_room(size_t room)
{
    f->room = room;
    machine_lock(f->t->machine);
    chardev_accept_input(f->chardev);
    machine_unlock(f->t->machine);
}

static void send_bytes(const void *data, size_t size)
{
    machine_lock(f->t->machine);
    assert_int_equal(chardev_send(f->chardev, data, size), size);
    machine_unlock(f->t->machine);
}

static void send_chunk(uint32_t to, const void *data, size_t size)
{
    uint8_t head[8];

    put_le32(head, to);
    put_le32(head + 4, (uint32_t)size);
    send_bytes(head, sizeof(head));
    send_bytes(data, size);
}

/* In chunks of part bytes. */
static void send_parts(uint32_t kind, const void *data, size_t size, size_t part)
{
    uint8_t *message = calloc(1, 20 + size);

    put_le32(message, 1);
    put_le32(message + 4, kind);
    put_le32(message + 16, (uint32_t)size);
    if (size)
        memcpy(message + 20, data, size);
    for (size_t at = 0; at < 20 + size; at += part)
        send_chunk(1, message + at, 20 + size - at < part ? 20 + size - at : part);
    free(message);
}

static void send_message(uint32_t kind, const void *data, size_t size)
{
    send_parts(kind, data, size, CHUNK_MAX);
}

/* Words, little-endian. */
static void send_words(uint32_t kind, const uint32_t *words, size_t count)
{
    uint8_t bytes[64];

    for (size_t n = 0; n < count; n++)
        put_le32(bytes + 4 * n, words[n]);
    send_message(kind, bytes, 4 * count);
}
#define SEND(kind, ...)                                                                            \
    send_words(kind, (const uint32_t[]){__VA_ARGS__},                                              \
               sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

/* The next message, its chunks put together; free() it. */
static uint8_t *next(uint32_t kind, size_t *out_size)
{
    uint8_t *message = malloc(sizeof(f->data));
    size_t have = 0;

    while (have < 20 || have < 20 + get_le32(message + 16)) {
        uint32_t size;

        assert_true(f->at + 8 <= f->size);
        assert_int_equal(get_le32(f->data + f->at), 1);
        size = get_le32(f->data + f->at + 4);
        assert_true(size && size <= CHUNK_MAX && f->at + 8 + size <= f->size);
        memcpy(message + have, f->data + f->at + 8, size);
        f->at += 8 + size;
        have += size;
    }
    assert_int_equal(get_le32(message), 1);
    assert_int_equal(get_le32(message + 4), kind);
    *out_size = have - 20;
    memmove(message, message + 20, have - 20);
    return message;
}

static void expect_bytes(uint32_t kind, const void *data, size_t size)
{
    size_t has;
    uint8_t *message = next(kind, &has);

    assert_int_equal(has, size);
    assert_memory_equal(message, data, size);
    free(message);
}

static void expect_words(uint32_t kind, const uint32_t *words, size_t count)
{
    uint8_t bytes[64];

    for (size_t n = 0; n < count; n++)
        put_le32(bytes + 4 * n, words[n]);
    expect_bytes(kind, bytes, 4 * count);
}
#define EXPECT(kind, ...)                                                                          \
    expect_words(kind, (const uint32_t[]){__VA_ARGS__},                                            \
                 sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

static void expect_silence(void)
{
    assert_int_equal(f->at, f->size);
}

static void begin(uint32_t capabilities)
{
    open_port(true);
    SEND(CAPABILITIES, 1, capabilities);
    EXPECT(CAPABILITIES, 0, BY_DEMAND | SELECTIONS);
}

static void copy(const char *text, size_t size)
{
    machine_lock(f->t->machine);
    assert_int_equal(clipboard_copy(f->clipboard, &f->viewer, text, size), 0);
    machine_unlock(f->t->machine);
}

static void expect_clipboard(const char *text)
{
    size_t size;
    const char *has = clipboard_text(f->clipboard, &size);

    assert_non_null(has);
    assert_int_equal(size, strlen(text));
    assert_memory_equal(has, text, size);
}

/* ---- the tests ---- */

static void nobody_is_told_before_an_agent_runs(void **state)
{
    (void)state;
    copy("early", 5);
    expect_silence();
    open_port(true);
    expect_silence();
    SEND(CAPABILITIES, 1, BY_DEMAND | SELECTIONS | CAN_MAX);
    EXPECT(CAPABILITIES, 0, BY_DEMAND | SELECTIONS);
    EXPECT(MAX_CLIPBOARD, CLIPBOARD_MAX);
    EXPECT(GRAB, 0, 1);
    expect_silence();
    open_port(false);
    copy("late", 4);
    expect_silence();
}

static void what_viewers_copy_is_there_when_it_is_asked_for(void **state)
{
    (void)state;
    begin(BY_DEMAND | SELECTIONS);
    copy("one\ntwo", 7);
    EXPECT(GRAB, 0, 1);
    expect_silence();
    SEND(REQUEST, 1, 1); /* another selection */
    SEND(REQUEST, 0, 2); /* a picture */
    expect_silence();
    SEND(REQUEST, 0, 1);
    expect_bytes(CLIPBOARD, "\0\0\0\0\1\0\0\0one\ntwo", 15);
    SEND(REQUEST, 0, 1);
    expect_bytes(CLIPBOARD, "\0\0\0\0\1\0\0\0one\ntwo", 15);
    expect_silence();
}

static void there_may_be_nothing(void **state)
{
    (void)state;
    begin(BY_DEMAND | SELECTIONS);
    SEND(REQUEST, 0, 1);
    EXPECT(CLIPBOARD, 0, 0);
}

static void an_old_agent_has_one_selection(void **state)
{
    (void)state;
    begin(BY_DEMAND);
    copy("x", 1);
    EXPECT(GRAB, 1);
    SEND(REQUEST, 1);
    expect_bytes(CLIPBOARD, "\1\0\0\0x", 5);
    SEND(GRAB, 2, 1);
    EXPECT(REQUEST, 1);
    send_message(CLIPBOARD, "\1\0\0\0y", 5);
    expect_clipboard("y");
}

static void what_the_guest_copies_is_told(void **state)
{
    (void)state;
    begin(BY_DEMAND | SELECTIONS);
    SEND(GRAB, 1, 1); /* another selection */
    SEND(GRAB, 0, 2); /* a picture alone */
    expect_silence();
    SEND(GRAB, 0, 2, 1);
    EXPECT(REQUEST, 0, 1);
    device_test_round_trip(f->t, f->dev);
    send_message(CLIPBOARD, "\0\0\0\0\1\0\0\0from within", 19);
    expect_clipboard("from within");
    assert_int_equal(f->told, 1);
    expect_silence(); /* its own text is not offered to it */
    send_message(CLIPBOARD, "\0\0\0\0\1\0\0\0not asked for", 21);
    expect_clipboard("from within");
    SEND(RELEASE, 0);
    expect_clipboard("from within");
}

static void the_last_copy_is_the_one(void **state)
{
    (void)state;
    begin(BY_DEMAND | SELECTIONS);
    SEND(GRAB, 0, 1);
    EXPECT(REQUEST, 0, 1);
    copy("newer", 5);
    EXPECT(GRAB, 0, 1);
    send_message(CLIPBOARD, "\0\0\0\0\1\0\0\0older", 13);
    expect_clipboard("newer");
    f->room = 0;
    copy("on its way", 10);
    SEND(GRAB, 0, 1); /* while nobody is told of that */
    give_room(1000);
    EXPECT(GRAB, 0, 1); /* it was made before */
    EXPECT(REQUEST, 0, 1);
    expect_silence();
}

static void lines_end_as_the_guest_has_them(void **state)
{
    (void)state;
    begin(BY_DEMAND | SELECTIONS | CRLF);
    copy("a\n\nb", 4);
    EXPECT(GRAB, 0, 1);
    SEND(REQUEST, 0, 1);
    expect_bytes(CLIPBOARD, "\0\0\0\0\1\0\0\0a\r\n\r\nb", 14);
    SEND(GRAB, 0, 1);
    EXPECT(REQUEST, 0, 1);
    send_message(CLIPBOARD, "\0\0\0\0\1\0\0\0\r\na\rb\r\n\r", 16);
    expect_clipboard("\na\rb\n\r");
}

static void long_texts_go_in_chunks(void **state)
{
    uint8_t *text = malloc(8 + CLIPBOARD_MAX + 100);
    size_t size;

    (void)state;
    for (size_t n = 0; n < CLIPBOARD_MAX + 100; n++)
        text[8 + n] = (uint8_t)('a' + n % 23);
    memcpy(text, "\0\0\0\0\1\0\0\0", 8);
    begin(BY_DEMAND | SELECTIONS);
    copy((char *)text + 8, CLIPBOARD_MAX);
    EXPECT(GRAB, 0, 1);
    f->room = 10000;
    SEND(REQUEST, 0, 1);
    assert_int_equal(f->room, 0);
    device_test_round_trip(f->t, f->dev);
    give_room(100);
    give_room(2 * CLIPBOARD_MAX);
    expect_bytes(CLIPBOARD, text, 8 + CLIPBOARD_MAX);

    copy("x", 1);
    EXPECT(GRAB, 0, 1);
    SEND(GRAB, 0, 1);
    EXPECT(REQUEST, 0, 1);
    send_parts(CLIPBOARD, text, 8 + CLIPBOARD_MAX, 7); /* heads are cut, too */
    clipboard_text(f->clipboard, &size);
    assert_int_equal(size, CLIPBOARD_MAX);
    assert_memory_equal(clipboard_text(f->clipboard, &size), text + 8, size);

    SEND(GRAB, 0, 1);
    EXPECT(REQUEST, 0, 1);
    send_message(CLIPBOARD, text, 8 + CLIPBOARD_MAX + 1); /* too long */
    clipboard_text(f->clipboard, &size);
    assert_int_equal(size, CLIPBOARD_MAX);
    send_message(CLIPBOARD, text, 8 + CLIPBOARD_MAX + 100); /* it is not even kept */
    give_room(2 * CLIPBOARD_MAX);
    SEND(REQUEST, 0, 1);
    expect_bytes(CLIPBOARD, text, 8 + CLIPBOARD_MAX);
    free(text);
}

static void a_message_is_saved_half_way(void **state)
{
    static const uint8_t start[] = {1, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0,  0,
                                    0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 'x'};

    (void)state;
    begin(BY_DEMAND | SELECTIONS);
    SEND(GRAB, 0, 1);
    EXPECT(REQUEST, 0, 1);
    for (size_t n = 0; n < sizeof(start); n++) {
        uint8_t chunk[9] = {1, 0, 0, 0, 1, 0, 0, 0, start[n]};

        send_bytes(chunk, 5);
        device_test_round_trip(f->t, f->dev);
        send_bytes(chunk + 5, 4);
        device_test_round_trip(f->t, f->dev);
    }
    expect_clipboard("x");
}

static void others_are_passed_over(void **state)
{
    uint8_t head[20] = {1, 0, 0, 0, 5};

    (void)state;
    begin(BY_DEMAND | SELECTIONS);
    send_chunk(2, "for the server", 14);
    SEND(GRAB);
    SEND(REQUEST, 0);
    SEND(CAPABILITIES, 1);
    send_message(200, "unknown", 7);
    put_le32(head + 16, 0xffffffff);
    send_chunk(1, head, sizeof(head));
    put_le32(head, 7); /* another protocol */
    send_chunk(1, head, sizeof(head));
    expect_silence();
    open_port(false); /* what was left of it is forgotten */
    begin(BY_DEMAND | SELECTIONS);
    expect_silence();
}

static void states_that_cannot_be_are_refused(void **state)
{
    static const char *const names[] = {"out_done", "message_left"};

    (void)state;
    begin(BY_DEMAND | SELECTIONS);
    send_chunk(1, "\1\0\0\0\4\0\0\0\0\0\0\0\0\0\0\0\100\0\0\0half", 24);
    for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++) {
        struct state_buffer saved = {0};
        struct error err = {0};
        uint8_t *field;

        assert_int_equal(state_save(&agent_class.state, f->dev, &saved, &err), 0);
        field = memmem(saved.data, saved.size_bytes, names[n], strlen(names[n]));
        assert_non_null(field);
        saved.data[(size_t)(field - saved.data) + strlen(names[n]) + 8] ^= 1; /* its lowest byte */
        assert_int_not_equal(
            state_load(&agent_class.state, f->dev, saved.data, saved.size_bytes, &err), 0);
        free(saved.data);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nobody_is_told_before_an_agent_runs),
        TEST(what_viewers_copy_is_there_when_it_is_asked_for),
        TEST(there_may_be_nothing),
        TEST(an_old_agent_has_one_selection),
        TEST(what_the_guest_copies_is_told),
        TEST(the_last_copy_is_the_one),
        TEST(lines_end_as_the_guest_has_them),
        TEST(long_texts_go_in_chunks),
        TEST(a_message_is_saved_half_way),
        TEST(others_are_passed_over),
        TEST(states_that_cannot_be_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
