/*
 * fuzz_agent.c - a hostile agent in the guest, and viewers that copy
 *
 * Steps are messages whose words mean something, bytes as they are, room for what comes back, texts
 * that viewers copy, ports that are opened and closed, and saved states. Claims: what comes
 * back are whole chunks of an agent's size; states survive a round trip; an agent that begins anew
 * is answered.
 */
#include "base/bytes.h"
#include "devices/agent.h"
#include "fuzz_device.h"
#include "trapeze/chardev.h"
#include "trapeze/clipboard.h"

static struct rig {
    struct device_test *t;
    struct device *dev;
    struct chardev *chardev;
    struct clipboard_peer viewer;

    size_t room, chunk_left, chunks;
    uint8_t head[8], have;
} r;

/* ---- the port ---- */

static size_t can_receive(void *opaque)
{
    (void)opaque;
    return r.room;
}

static void receive(void *opaque, const uint8_t *data, size_t size)
{
    (void)opaque;
    FUZZ_CLAIM(size && size <= r.room);
    r.room -= size;
    for (; size; size--, data++) {
        if (r.chunk_left) {
            r.chunk_left--;
            continue;
        }
        r.head[r.have++] = *data;
        if (r.have < sizeof(r.head))
            continue;
        r.have = 0;
        r.chunks++;
        r.chunk_left = get_le32(r.head + 4);
        FUZZ_CLAIM(get_le32(r.head) == 1 && r.chunk_left && r.chunk_left <= 2048);
    }
}

static const struct chardev_frontend port = {.can_receive = can_receive, .receive = receive};

static void viewer_told(void *opaque)
{
    size_t size;

    (void)opaque;
    FUZZ_CLAIM(clipboard_text(machine_clipboard(r.t->machine), &size) && size <= CLIPBOARD_MAX);
}

static const struct clipboard_ops viewer_ops = {.changed = viewer_told};

/* ---- steps ---- */

static void send_message(struct fuzz_input *in, uint32_t kind)
{
    uint8_t bytes[8 + 20 + 64] = {1, 0, 0, 0};
    uint32_t size = (uint32_t)(4 * (fuzz_take(in, 1) % 17)), told = size;

    if (size == 64)
        told = (uint32_t)fuzz_take(in, 4); /* longer than what follows, or shorter */
    put_le32(bytes + 4, 20 + size);
    put_le32(bytes + 8, 1);
    put_le32(bytes + 12, kind);
    put_le32(bytes + 24, told);
    for (uint32_t at = 0; at < size; at += 4)
        put_le32(bytes + 28 + at, (uint32_t)fuzz_take(in, 1) & (at ? 0xff : 0x7));
    chardev_send(r.chardev, bytes, 28 + size);
}

static void send_bytes(struct fuzz_input *in)
{
    uint8_t bytes[64];
    size_t size = fuzz_take(in, 1) % sizeof(bytes);

    for (size_t n = 0; n < size; n++)
        bytes[n] = (uint8_t)fuzz_take(in, 1);
    chardev_send(r.chardev, bytes, size);
}

/* Long texts are made of short ones. */
static void copy(struct fuzz_input *in)
{
    size_t size = fuzz_take(in, 1) << fuzz_take(in, 1) % 12;
    char part = (char)fuzz_take(in, 1), *text = malloc(size + 1);

    memset(text, part & 1 ? '\n' : part, size);
    clipboard_copy(machine_clipboard(r.t->machine), &r.viewer, text, size);
    free(text);
}

static void open_port(bool is_open)
{
    if (!is_open) { /* the rest of a chunk does not come any more */
        r.chunk_left = r.have = 0;
    }
    chardev_set_open(r.chardev, is_open);
}

static void locked_step(struct fuzz_input *in, uint8_t what)
{
    static const uint32_t kinds[] = {4, 6, 7, 8, 9, 14, 4, 6};

    switch (what % 6) {
    case 0:
    case 1:
        send_message(in, kinds[what >> 5]);
        break;
    case 2:
        send_bytes(in);
        break;
    case 3:
        r.room += fuzz_take(in, 2);
        chardev_accept_input(r.chardev);
        break;
    case 4:
        copy(in);
        break;
    default:
        open_port(false);
        open_port(what & 0x10);
        break;
    }
}

/* An agent comes, and asks. */
static void check_mended(void)
{
    static const uint8_t ask[36] = {1, 0, 0, 0, 28, 0, 0, 0, 1, 0, 0, 0, 6, 0, 0,  0, 0, 0,
                                    0, 0, 0, 0, 0,  0, 8, 0, 0, 0, 1, 0, 0, 0, 96, 0, 0, 0};

    open_port(false);
    open_port(true);
    r.room = 4096;
    r.chunks = 0;
    chardev_send(r.chardev, ask, sizeof(ask));
    FUZZ_CLAIM(r.chunks > 0 && !r.chunk_left && !r.have);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};

    if (!r.t) {
        r.t = device_test_new(0);
        r.dev = device_test_add(r.t, &agent_class, NULL);
        r.chardev = agent_chardev(r.dev);
        r.viewer.ops = &viewer_ops;
        device_test_start(r.t);
        FUZZ_LOCKED(r.t, chardev_connect(r.chardev, &port));
        FUZZ_LOCKED(r.t, clipboard_join(machine_clipboard(r.t->machine), &r.viewer));
    }
    device_test_reset(r.t);
    r.room = r.chunk_left = r.have = 0;
    FUZZ_LOCKED(r.t, open_port(true));
    while (in.left) {
        uint8_t what = (uint8_t)fuzz_take(&in, 1);

        if (what >= 0xf8)
            device_test_round_trip(r.t, r.dev);
        else
            FUZZ_LOCKED(r.t, locked_step(&in, what));
    }
    FUZZ_LOCKED(r.t, check_mended());
    return 0;
}
