/*
 * agent.c - the clipboard of the guest's desktop, by the agent that runs in it
 *
 * SPICE's agent protocol (vd_agent.h of spice-protocol), whose programs distributions have as
 * spice-vdagent. This is the side of the client: what viewers copy is offered, and sent when a
 * program in the guest asks for it; what the guest offers is asked for at once, as viewers are told
 * texts. Text only; the other selections of X, pictures, files and the rest are ignored, and
 * are not among the capabilities that the agent is told.
 *
 * Theory of operation. A stream of chunks over a port of virtio-console; the chunks that concern
 * clients make a stream of messages. One message is on its way in, another out; what else is
 * to be said are bits. So a guest that sends without end, or takes nothing, costs no more
 * memory than two texts.
 *
 * Threads: machine lock held. Guest memory: not touched.
 */
#include "devices/agent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "trapeze/chardev.h"
#include "trapeze/clipboard.h"
#include "trapeze/device.h"
#include "trapeze/machine.h"

#define CHUNK_HEAD_BYTES   8u    /* port, bytes behind it */
#define CHUNK_BYTES        2048u /* more at once is not taken by agents */
#define CLIENT_PORT        1u
#define MESSAGE_HEAD_BYTES 20u /* protocol, kind, what it belongs to (8), bytes behind it */
#define PROTOCOL           1u
#define MESSAGE_MAX        (CLIPBOARD_MAX + 64u) /* bytes that are kept of one */
#define OUT_MAX            (3u * MESSAGE_MAX)    /* each line end may become two bytes; chunks */

enum kind {
    KIND_CLIPBOARD = 4,
    KIND_CAPABILITIES = 6,
    KIND_GRAB = 7,
    KIND_REQUEST = 8,
    KIND_MAX_CLIPBOARD = 14,
};

enum capability {
    CAN_BY_DEMAND = 1u << 5,
    CAN_SELECTIONS = 1u << 6, /* messages begin with one */
    HAS_CRLF = 1u << 9,       /* its lines end with both */
    CAN_MAX_CLIPBOARD = 1u << 10,
};
#define OWN_CAPABILITIES (CAN_BY_DEMAND | CAN_SELECTIONS)

enum { TYPE_NONE, TYPE_TEXT };
#define SELECTION_CLIPBOARD 0u

/* What is to be said; the lowest first. */
enum {
    SAY_CAPABILITIES = 0x1,
    SAY_MAX = 0x2,
    SAY_TEXT = 0x4, /* it was asked for */
    SAY_GRAB = 0x8,
    SAY_REQUEST = 0x10,
    SAY_ALL = 0x1f,
};

struct agent {
    struct device dev;
    struct chardev chardev;
    struct clipboard_peer peer;

    /* Guest-visible state. */
    bool is_open;          /* the agent runs */
    bool has_asked;        /* it is asked for its text, and nothing was copied since */
    uint8_t say;           /* SAY_... */
    uint32_t capabilities; /* the agent's, those with numbers below 32 */
    uint8_t chunk_head[CHUNK_HEAD_BYTES], message_head[MESSAGE_HEAD_BYTES];
    uint8_t chunk_have, message_have; /* bytes of these */
    uint32_t chunk_left, message_left;
    struct state_buffer in;  /* of the message, behind its head */
    struct state_buffer out; /* chunks on their way */
    uint32_t out_done;       /* bytes of them that the guest has */
};

static struct agent *agent_of(struct device *dev)
{
    return container_of(dev, struct agent, dev);
}

static struct agent *agent_of_chardev(struct chardev *chardev)
{
    return container_of(chardev, struct agent, chardev);
}

struct chardev *agent_chardev(struct device *dev)
{
    return &agent_of(dev)->chardev;
}

/* ---- to the guest ---- */

static void empty(struct state_buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct state_buffer){0};
}

static void put_bytes(struct state_buffer *buffer, const void *data, size_t size)
{
    uint8_t *to = size ? state_buffer_add(buffer, size) : NULL;

    if (to)
        memcpy(to, data, size);
}

static void put_u32(struct state_buffer *buffer, uint32_t value)
{
    uint8_t bytes[4];

    put_le32(bytes, value);
    put_bytes(buffer, bytes, sizeof(bytes));
}

static void put_selection(const struct agent *s, struct state_buffer *body)
{
    if (s->capabilities & CAN_SELECTIONS)
        put_u32(body, SELECTION_CLIPBOARD); /* and three bytes without a meaning */
}

/* As the guest's lines end. */
static void put_text(const struct agent *s, struct state_buffer *body, const char *text,
                     size_t size)
{
    while ((s->capabilities & HAS_CRLF) && size) {
        const char *end = memchr(text, '\n', size);
        size_t line = end ? (size_t)(end - text) : size;

        put_bytes(body, text, line);
        if (!end)
            return;
        put_bytes(body, "\r\n", 2);
        text += line + 1;
        size -= line + 1;
    }
    put_bytes(body, text, size);
}

static enum kind make_body(const struct agent *s, uint8_t what, struct state_buffer *body)
{
    size_t size;
    const char *text = clipboard_text(machine_clipboard(s->dev.machine), &size);

    switch (what) {
    case SAY_CAPABILITIES:
        put_u32(body, 0); /* it need not answer */
        put_u32(body, OWN_CAPABILITIES);
        return KIND_CAPABILITIES;
    case SAY_MAX:
        put_u32(body, CLIPBOARD_MAX);
        return KIND_MAX_CLIPBOARD;
    case SAY_TEXT:
        put_selection(s, body);
        put_u32(body, text ? TYPE_TEXT : TYPE_NONE);
        if (text)
            put_text(s, body, text, size);
        return KIND_CLIPBOARD;
    }
    put_selection(s, body);
    put_u32(body, TYPE_TEXT);
    return what == SAY_GRAB ? KIND_GRAB : KIND_REQUEST;
}

/* A message in chunks. If memory is out, it is not said. */
static void make_message(struct agent *s, uint8_t what)
{
    struct state_buffer body = {0}, message = {0};
    size_t chunks;

    put_u32(&message, PROTOCOL);
    put_u32(&message, make_body(s, what, &body));
    put_u32(&message, 0);
    put_u32(&message, 0);
    put_u32(&message, (uint32_t)body.size_bytes);
    put_bytes(&message, body.data, body.size_bytes);
    chunks = (message.size_bytes + CHUNK_BYTES - 1) / CHUNK_BYTES;
    for (size_t at = 0; at < message.size_bytes; at += CHUNK_BYTES) {
        size_t left = message.size_bytes - at, size = left < CHUNK_BYTES ? left : CHUNK_BYTES;

        put_u32(&s->out, CLIENT_PORT);
        put_u32(&s->out, (uint32_t)size);
        put_bytes(&s->out, message.data + at, size);
    }
    if (s->out.size_bytes != chunks * CHUNK_HEAD_BYTES + MESSAGE_HEAD_BYTES + body.size_bytes)
        empty(&s->out);
    free(message.data);
    free(body.data);
}

static bool has_more(struct agent *s)
{
    if (s->out_done == s->out.size_bytes) {
        empty(&s->out);
        s->out_done = 0;
    }
    if (!s->out.size_bytes && s->say) {
        uint8_t what = s->say & -s->say;

        s->say ^= what;
        make_message(s, what);
        if (what == SAY_REQUEST)
            s->has_asked = true;
    }
    return s->out.size_bytes > 0;
}

/* As far as there is room. */
static void speak(struct agent *s)
{
    size_t room;

    while (s->is_open && has_more(s) && (room = chardev_room(&s->chardev))) {
        size_t left = s->out.size_bytes - s->out_done, size = left < room ? left : room;

        s->out_done += (uint32_t)size;
        chardev_deliver(&s->chardev, s->out.data + s->out_done - size, size);
    }
}

/* A viewer has copied something. */
static void changed(void *opaque)
{
    struct agent *s = opaque;

    s->has_asked = false; /* what the guest would answer is older */
    s->say &= ~SAY_REQUEST;
    if (s->capabilities & CAN_BY_DEMAND)
        s->say |= SAY_GRAB;
    speak(s);
}

static const struct clipboard_ops peer_ops = {.changed = changed};

/* ---- from the guest ---- */

static void take_capabilities(struct agent *s, const uint8_t *data, size_t size)
{
    size_t text_size;

    if (size < 8)
        return;
    s->capabilities = get_le32(data + 4);
    s->say |= SAY_CAPABILITIES; /* whether it has asked for them or not */
    if (s->capabilities & CAN_MAX_CLIPBOARD)
        s->say |= SAY_MAX;
    if ((s->capabilities & CAN_BY_DEMAND) &&
        clipboard_text(machine_clipboard(s->dev.machine), &text_size))
        s->say |= SAY_GRAB;
}

/* Something was copied in the guest. */
static void take_grab(struct agent *s, const uint8_t *data, size_t size)
{
    for (; size >= 4; data += 4, size -= 4)
        if (get_le32(data) == TYPE_TEXT) {
            s->say = (s->say & ~SAY_GRAB) | SAY_REQUEST;
            return;
        }
}

static void take_request(struct agent *s, const uint8_t *data, size_t size)
{
    if (size >= 4 && get_le32(data) == TYPE_TEXT)
        s->say |= SAY_TEXT;
}

/* Lines end with LF for viewers. In place; returns the new size. */
static size_t drop_returns(char *text, size_t size)
{
    size_t kept = 0;

    for (size_t n = 0; n < size; n++)
        if (text[n] != '\r' || n + 1 == size || text[n + 1] != '\n')
            text[kept++] = text[n];
    return kept;
}

static void take_text(struct agent *s, uint8_t *data, size_t size)
{
    char *text;

    if (size < 4 || get_le32(data) != TYPE_TEXT || !s->has_asked)
        return;
    text = (char *)data + 4;
    size -= 4;
    if (s->capabilities & HAS_CRLF)
        size = drop_returns(text, size);
    s->has_asked = false;
    clipboard_copy(machine_clipboard(s->dev.machine), &s->peer, text, size);
}

static void take_message(struct agent *s)
{
    uint32_t kind = get_le32(s->message_head + 4);
    uint8_t *data = s->in.data;
    size_t size = s->in.size_bytes;

    if (kind == KIND_CAPABILITIES) {
        take_capabilities(s, data, size);
        return;
    }
    if (s->capabilities & CAN_SELECTIONS) {
        if (size < 4 || data[0] != SELECTION_CLIPBOARD)
            return;
        data += 4;
        size -= 4;
    }
    if (kind == KIND_GRAB)
        take_grab(s, data, size);
    else if (kind == KIND_REQUEST)
        take_request(s, data, size);
    else if (kind == KIND_CLIPBOARD)
        take_text(s, data, size);
}

/* One that nobody here reads, or that is too long, is not kept. */
static bool is_kept(const struct agent *s)
{
    static const uint32_t kept =
        1u << KIND_CLIPBOARD | 1u << KIND_CAPABILITIES | 1u << KIND_GRAB | 1u << KIND_REQUEST;
    uint32_t kind = get_le32(s->message_head + 4);

    return get_le32(s->message_head) == PROTOCOL && kind < 32 && kept >> kind & 1 &&
           get_le32(s->message_head + 16) <= MESSAGE_MAX;
}

/* The first bytes of size complete a head; returns how many were taken. */
static size_t fill_head(uint8_t *head, uint8_t *have, size_t head_size, const uint8_t *data,
                        size_t size)
{
    size_t wanted = head_size - *have, taken = size < wanted ? size : wanted;

    memcpy(head + *have, data, taken);
    *have = (uint8_t)(*have + taken);
    return taken;
}

/* Bytes of the stream of messages; returns how many were taken. */
static size_t take_part(struct agent *s, const uint8_t *data, size_t size)
{
    size_t taken;

    if (s->message_have < MESSAGE_HEAD_BYTES) {
        taken = fill_head(s->message_head, &s->message_have, MESSAGE_HEAD_BYTES, data, size);
        if (s->message_have < MESSAGE_HEAD_BYTES)
            return taken;
        s->message_left = get_le32(s->message_head + 16);
    } else {
        taken = size < s->message_left ? size : s->message_left;
        if (is_kept(s))
            put_bytes(&s->in, data, taken);
        s->message_left -= (uint32_t)taken;
    }
    if (!s->message_left) {
        if (is_kept(s) && s->in.size_bytes == get_le32(s->message_head + 16))
            take_message(s);
        empty(&s->in);
        s->message_have = 0;
    }
    return taken;
}

static size_t take_chunk(struct agent *s, const uint8_t *data, size_t size)
{
    size_t taken = size < s->chunk_left ? size : s->chunk_left;

    if (get_le32(s->chunk_head) == CLIENT_PORT)
        taken = take_part(s, data, taken);
    s->chunk_left -= (uint32_t)taken;
    return taken;
}

static size_t agent_send(struct chardev *chardev, const uint8_t *data, size_t size)
{
    struct agent *s = agent_of_chardev(chardev);

    for (size_t done = 0; done < size;) {
        if (s->chunk_left) {
            done += take_chunk(s, data + done, size - done);
        } else {
            done += fill_head(s->chunk_head, &s->chunk_have, CHUNK_HEAD_BYTES, data + done,
                              size - done);
            if (s->chunk_have == CHUNK_HEAD_BYTES) {
                s->chunk_left = get_le32(s->chunk_head + 4);
                s->chunk_have = 0;
            }
        }
    }
    speak(s);
    return size;
}

static void forget(struct agent *s)
{
    empty(&s->in);
    empty(&s->out);
    s->is_open = s->has_asked = false;
    s->say = s->chunk_have = s->message_have = 0;
    s->capabilities = s->chunk_left = s->message_left = s->out_done = 0;
    memset(s->chunk_head, 0, sizeof(s->chunk_head));
    memset(s->message_head, 0, sizeof(s->message_head));
}

/* The agent begins by telling what it can do. */
static void agent_opened(struct chardev *chardev, bool is_open)
{
    struct agent *s = agent_of_chardev(chardev);

    forget(s);
    s->is_open = is_open;
}

static void agent_accept_input(struct chardev *chardev)
{
    speak(agent_of_chardev(chardev));
}

static const struct chardev_ops chardev_ops = {.name = "agent",
                                               .send = agent_send,
                                               .accept_input = agent_accept_input,
                                               .opened = agent_opened};

/* ---- lifecycle ---- */

static int agent_attach(struct device *dev, struct error *err)
{
    struct agent *s = agent_of(dev);

    (void)err;
    s->chardev.ops = &chardev_ops;
    s->chardev.connected = true;
    s->peer = (struct clipboard_peer){.ops = &peer_ops, .opaque = s};
    clipboard_join(machine_clipboard(dev->machine), &s->peer);
    return 0;
}

static void agent_detach(struct device *dev)
{
    clipboard_leave(machine_clipboard(dev->machine), &agent_of(dev)->peer);
    forget(agent_of(dev));
}

static void agent_reset(struct device *dev)
{
    forget(agent_of(dev));
}

static int agent_after_load(void *object, struct error *err)
{
    struct agent *s = object;
    uint32_t whole = get_le32(s->message_head + 16);

    if (s->out_done > s->out.size_bytes)
        return error_set(err, EINVAL, "more has gone to the agent than there was");
    if (s->message_have == MESSAGE_HEAD_BYTES &&
        (!s->message_left || s->message_left > whole ||
         (is_kept(s) && s->in.size_bytes + s->message_left != whole)))
        return error_set(err, EINVAL, "a message of the agent has another length");
    return 0;
}

static const struct state_field agent_state[] = {
    STATE_BOOL(struct agent, is_open),
    STATE_BOOL(struct agent, has_asked),
    STATE_U8_MAX(struct agent, say, SAY_ALL),
    STATE_U32(struct agent, capabilities),
    STATE_BYTES(struct agent, chunk_head),
    STATE_BYTES(struct agent, message_head),
    STATE_U8_MAX(struct agent, chunk_have, CHUNK_HEAD_BYTES - 1),
    STATE_U8_MAX(struct agent, message_have, MESSAGE_HEAD_BYTES),
    STATE_U32(struct agent, chunk_left),
    STATE_U32(struct agent, message_left),
    STATE_BLOB(struct agent, in, MESSAGE_MAX),
    STATE_BLOB(struct agent, out, OUT_MAX),
    STATE_U32_MAX(struct agent, out_done, OUT_MAX),
    STATE_END,
};

const struct device_class agent_class = {
    .name = "agent",
    .summary = "the clipboard's way into the guest",
    .bus = BUS_PLATFORM,
    .instance_size = sizeof(struct agent),
    .attach = agent_attach,
    .reset = agent_reset,
    .detach = agent_detach,
    .state = {.version = 1, .oldest = 1, .fields = agent_state, .after_load = agent_after_load},
};
