/*
 * fuzz_chardev.c - descriptions of character backends, the ring, and the buffers of both directions
 *
 * The first byte chooses what is tried. Nothing outside the process is touched: of the
 * backends only null and ring are opened, of the others only the settings are parsed; output
 * goes to a socket or pipe of our own. Claims:
 * - a refused description leaves an error text and no memory;
 * - what the ring and the buffers take comes out in order and complete;
 * - who was told that there is no more room is told when there is, and not before.
 */
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backends/char/internal.h"
#include "base/log.h"
#include "fuzz_device.h"

static struct loop *loop;

/* ---- descriptions ---- */

static const struct chardev_kind *const kinds[] = {
    &chardev_file, &chardev_null, &chardev_pty, &chardev_ring, &chardev_socket, &chardev_stdio,
};

static void check_error(int ret, const struct error *err)
{
    FUZZ_CLAIM(!ret == !err->code);
    FUZZ_CLAIM(!ret || (err->text[0] && memchr(err->text, 0, sizeof(err->text))));
}

/* What chardev_open does but for opening. */
static void parse_settings(const struct chardev_kind *kind, const char *settings)
{
    struct chardev *chardev = calloc(1, kind->instance_size);
    struct error err = {0};

    FUZZ_CLAIM(properties_init(kind->properties, chardev, &err) == 0);
    check_error(properties_parse(kind->properties, chardev, settings, &err), &err);
    properties_done(kind->properties, chardev);
    free(chardev);
}

static void open_backend(const char *description)
{
    struct error err = {0};
    struct chardev *chardev = chardev_open(loop, description, &err);
    uint8_t byte = 1;

    check_error(chardev ? 0 : -1, &err);
    if (chardev)
        FUZZ_CLAIM(chardev_send(chardev, &byte, 1) == 1);
    chardev_free(chardev);
}

static void fuzz_description(struct fuzz_input *in)
{
    char text[256] = "";
    size_t length = in->left < sizeof(text) ? in->left : sizeof(text) - 1, name;

    memcpy(text, in->data, length);
    name = strcspn(text, ":");
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (kinds[i] == &chardev_ring || kinds[i] == &chardev_null ||
            strlen(kinds[i]->ops.name) != name || memcmp(text, kinds[i]->ops.name, name) != 0)
            continue;
        parse_settings(kinds[i], text[name] ? text + name + 1 : "");
        return;
    }
    open_backend(text);
}

/* ---- the ring ---- */

#define RING_MAX_BYTES 64

struct ring_rig {
    struct chardev *chardev;
    size_t size, count, room; /* room: of the front end, for input */
    bool overwrite, waiting, lost;
    uint8_t next_out, next_in, next_typed, next_received;
    unsigned again; /* bytes that the front end sends when it is told to go on */
};

static void ring_put_out(struct ring_rig *r, size_t count)
{
    uint8_t data[2 * RING_MAX_BYTES];
    size_t free_bytes = r->size - r->count, sent;

    for (size_t i = 0; i < count; i++)
        data[i] = (uint8_t)(r->next_out + i);
    sent = chardev_send(r->chardev, data, count);
    FUZZ_CLAIM(sent == (r->overwrite || count <= free_bytes ? count : free_bytes));
    r->waiting |= sent < count;
    r->next_out = (uint8_t)(r->next_out + sent);
    r->count += sent;
    if (r->count <= r->size)
        return;
    r->next_in = (uint8_t)(r->next_in + (r->count - r->size)); /* the oldest are gone */
    r->count = r->size;
}

static void ring_can_send(void *opaque)
{
    struct ring_rig *r = opaque;

    FUZZ_CLAIM(r->waiting);
    r->waiting = false;
    ring_put_out(r, r->again);
}

static size_t ring_can_receive(void *opaque)
{
    return ((struct ring_rig *)opaque)->room;
}

static void ring_receive(void *opaque, const uint8_t *data, size_t size_bytes)
{
    struct ring_rig *r = opaque;

    FUZZ_CLAIM(size_bytes && size_bytes <= r->room);
    r->room -= size_bytes;
    for (size_t i = 0; i < size_bytes; i++)
        FUZZ_CLAIM(data[i] == r->next_received++);
}

static void ring_take_out(struct ring_rig *r, size_t count)
{
    uint8_t got[2 * RING_MAX_BYTES];
    size_t expected = count < r->count ? count : r->count;
    size_t taken;

    /* Before the call: the front end may send more from within. */
    r->count -= expected;
    taken = chardev_ring_take(r->chardev, got, count);
    FUZZ_CLAIM(taken == expected && (!taken || !r->waiting || r->count == r->size));
    for (size_t i = 0; i < taken; i++)
        FUZZ_CLAIM(got[i] == r->next_in++);
}

static void ring_type(struct ring_rig *r, size_t count)
{
    uint8_t data[2 * RING_MAX_BYTES];
    size_t expected = count < r->room ? count : r->room;

    for (size_t i = 0; i < count; i++)
        data[i] = (uint8_t)(r->next_typed + i);
    FUZZ_CLAIM(chardev_ring_put(r->chardev, data, count) == expected);
    r->next_typed = (uint8_t)(r->next_typed + expected);
}

static void fuzz_ring(struct fuzz_input *in)
{
    struct ring_rig r = {.size = 1 + fuzz_take(in, 1) % RING_MAX_BYTES,
                         .overwrite = fuzz_take(in, 1) & 1};
    struct chardev_frontend frontend = {.can_receive = ring_can_receive,
                                        .receive = ring_receive,
                                        .can_send = ring_can_send,
                                        .opaque = &r};
    char description[64];

    snprintf(description, sizeof(description), "ring:size=%zu,overwrite=%s", r.size,
             r.overwrite ? "on" : "off");
    r.chardev = chardev_open(loop, description, NULL);
    FUZZ_CLAIM(r.chardev);
    chardev_connect(r.chardev, &frontend);
    while (in->left) {
        uint8_t what = (uint8_t)fuzz_take(in, 1);
        size_t count = what >> 2;

        switch (what & 3) {
        case 0:
            ring_put_out(&r, 2 * count);
            break;
        case 1:
            ring_take_out(&r, count);
            break;
        case 2:
            ring_type(&r, count);
            break;
        default:
            r.room = count;
            r.again = r.overwrite ? 0 : (unsigned)fuzz_take(in, 1) % RING_MAX_BYTES;
            break;
        }
    }
    chardev_free(r.chardev);
}

/* ---- the buffer for input ---- */

struct input_rig {
    struct char_input buffer;
    struct chardev *chardev;
    size_t room, waiting;
    uint8_t next_in, next_out;
    bool again; /* the front end asks for more while it receives */
};

static size_t input_can_receive(void *opaque)
{
    return ((struct input_rig *)opaque)->room;
}

static void input_receive(void *opaque, const uint8_t *data, size_t size_bytes)
{
    struct input_rig *r = opaque;

    FUZZ_CLAIM(size_bytes && size_bytes <= r->room && size_bytes <= r->waiting);
    r->room -= size_bytes;
    r->waiting -= size_bytes;
    for (size_t i = 0; i < size_bytes; i++)
        FUZZ_CLAIM(data[i] == r->next_out++);
    if (r->again)
        char_input_push(&r->buffer);
}

static void input_add(struct input_rig *r, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        bool fits = r->waiting < CHAR_INPUT_SIZE;

        FUZZ_CLAIM(char_input_add(&r->buffer, r->next_in) == fits);
        r->next_in = (uint8_t)(r->next_in + fits);
        r->waiting += fits;
    }
}

static void fuzz_input(struct fuzz_input *in)
{
    static struct input_rig r;
    struct chardev_frontend frontend = {
        .can_receive = input_can_receive, .receive = input_receive, .opaque = &r};

    memset(&r, 0, sizeof(r));
    r.buffer.chardev = chardev_open(loop, "null", NULL);
    chardev_connect(r.buffer.chardev, &frontend);
    while (in->left) {
        uint8_t what = (uint8_t)fuzz_take(in, 1);
        size_t count = what & 2 ? (what >> 2) * 64u : what >> 2;

        if (what & 1) {
            input_add(&r, count);
        } else {
            r.room = count;
            r.again = what & 4;
            char_input_push(&r.buffer);
            FUZZ_CLAIM(!r.room || !r.waiting);
        }
        FUZZ_CLAIM(char_input_room(&r.buffer) == CHAR_INPUT_SIZE - r.waiting);
    }
    chardev_free(r.buffer.chardev);
}

/* ---- the buffer for output ---- */

struct output_rig {
    struct char_output buffer;
    int peer; /* the reader's end, -1 once it is closed */
    bool waiting;
    uint32_t sent, received; /* position in a sequence of bytes */
    size_t again;
};

/* Bytes of which no two places look alike; sometimes the end of a line. */
static uint8_t sequence(uint32_t position)
{
    return (uint8_t)(position * 7 + (position >> 8));
}

static void output_put(struct output_rig *r, size_t count)
{
    static uint8_t data[2 * CHAR_OUTPUT_SIZE];
    size_t taken;

    for (size_t i = 0; i < count; i++)
        data[i] = sequence(r->sent + (uint32_t)i);
    taken = char_output_put(&r->buffer, data, count);
    FUZZ_CLAIM(taken <= count);
    r->waiting = (r->waiting || taken < count) && !r->buffer.broken; /* then all is taken */
    r->sent += (uint32_t)taken;
}

static void output_room(void *opaque)
{
    struct output_rig *r = opaque;

    FUZZ_CLAIM(r->waiting || r->buffer.broken);
    r->waiting = false;
    output_put(r, r->again);
}

static void output_read(struct output_rig *r, size_t count)
{
    static uint8_t data[2 * CHAR_OUTPUT_SIZE];
    ssize_t got = r->peer < 0 ? 0 : read(r->peer, data, count);

    for (ssize_t i = 0; i < got; i++)
        FUZZ_CLAIM(data[i] == sequence(r->received++));
    FUZZ_CLAIM(r->received <= r->sent);
}

static void output_hang_up(struct output_rig *r)
{
    if (r->peer >= 0)
        close(r->peer);
    r->peer = -1;
}

/* A reader that is behind by a few kilobytes makes the writer wait. */
static void output_open(struct output_rig *r, unsigned kind)
{
    int pair[2], size = 4096;

    if (kind & 1) {
        FUZZ_CLAIM(!pipe2(pair, O_CLOEXEC));
        fcntl(pair[1], F_SETPIPE_SZ, size);
    } else {
        FUZZ_CLAIM(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
        setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    }
    fcntl(pair[0], F_SETFL, O_NONBLOCK);
    if (kind & 2)
        fcntl(pair[1], F_SETFL, O_NONBLOCK);
    r->peer = pair[0];
    FUZZ_CLAIM(!char_output_init(&r->buffer, loop, pair[1], true, output_room, r, NULL));
}

/* The reader reads everything: then nobody may be left waiting. */
static void output_finish(struct output_rig *r)
{
    bool gone = r->peer < 0;

    r->again = 0;
    do {
        output_read(r, CHAR_OUTPUT_SIZE);
        loop_once(loop, 0);
    } while (r->buffer.count > PIPE_BUF / 4 && !r->buffer.broken);
    output_read(r, CHAR_OUTPUT_SIZE);
    loop_once(loop, 0);
    if (r->waiting)
        loop_once(loop, 20000000); /* at the latest when the delayed flush is due */
    FUZZ_CLAIM(!r->waiting);
    char_output_done(&r->buffer);
    for (unsigned i = 0; i < 3; i++)
        output_read(r, 2 * CHAR_OUTPUT_SIZE);
    FUZZ_CLAIM(gone || r->received == r->sent);
    output_hang_up(r);
}

static void fuzz_output(struct fuzz_input *in)
{
    struct output_rig r = {.peer = -1};

    output_open(&r, (unsigned)fuzz_take(in, 1));
    for (unsigned steps = 0; in->left && steps < 100; steps++) {
        uint8_t what = (uint8_t)fuzz_take(in, 1);
        size_t count = (size_t)(what >> 3) << 12 >> (what & 4 ? 9 : 0);

        switch (what & 3) {
        case 0:
            output_put(&r, count);
            break;
        case 1:
            output_read(&r, count);
            break;
        case 2:
            loop_once(loop, 0);
            break;
        default:
            if (what == 0xff)
                output_hang_up(&r);
            r.again = count;
            break;
        }
    }
    output_finish(&r);
}

static void fuzz_nowhere(struct fuzz_input *in)
{
    struct char_output buffer;
    uint8_t byte = (uint8_t)fuzz_take(in, 1);

    FUZZ_CLAIM(!char_output_init(&buffer, loop, -1, false, NULL, NULL, NULL));
    FUZZ_CLAIM(char_output_put(&buffer, &byte, 1) == 1);
    char_output_done(&buffer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const parts[])(struct fuzz_input *) = {
        fuzz_description, fuzz_ring, fuzz_input, fuzz_output, fuzz_nowhere,
    };
    struct fuzz_input in = {data, size};

    if (!loop) {
        log_threshold = LOG_ERROR;
        signal(SIGPIPE, SIG_IGN);
        loop = loop_new(NULL);
    }
    parts[fuzz_take(&in, 1) % (sizeof(parts) / sizeof(parts[0]))](&in);
    return 0;
}
