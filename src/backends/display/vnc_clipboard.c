/*
 * vnc_clipboard.c - text that a viewer of VNC copies, and what others have copied (RFC
 * 6143, 7.5.6, 7.6.4)
 *
 * The protocol's own messages have Latin-1. The extension ("Extended Clipboard" of The RFB
 * Protocol) has UTF-8, says that there is something new, and sends it to who asks. Messages to the
 * viewer are bits until there is room for them, so that one who does not read has one text waiting,
 * not all.
 */
#include <stdlib.h>
#include <string.h>

#include "backends/display/vnc_internal.h"
#include "base/bytes.h"
#include "trapeze/machine.h"

#define FORMAT_TEXT    (1u << 0)
#define ACTION_CAPS    (1u << 24)
#define ACTION_REQUEST (1u << 25)
#define ACTION_PEEK    (1u << 26)
#define ACTION_NOTIFY  (1u << 27)
#define ACTION_PROVIDE (1u << 28)
#define EXTRA_BYTES    1024u /* of a message, beyond its text */

enum { SAY_CAPS = 1, SAY_REQUEST = 2, SAY_NOTIFY = 4, SAY_PROVIDE = 8, SAY_TEXT = 16 };

static struct clipboard *clipboard_of(const struct vnc_client *client)
{
    return machine_clipboard(client->vnc->machine);
}

/* ---- characters ---- */

/* Returns how many bytes of UTF-8 there are; out may be NULL, else there is room. */
static size_t from_latin1(const uint8_t *text, size_t size, char *out)
{
    size_t length = 0;

    for (size_t n = 0; n < size; n++) {
        uint8_t c = text[n];

        if (out && c < 0x80) {
            out[length] = (char)c;
        } else if (out) {
            out[length] = (char)(0xc0 | c >> 6);
            out[length + 1] = (char)(0x80 | (c & 0x3f));
        }
        length += c < 0x80 ? 1 : 2;
    }
    return length;
}

/* In place; others are question marks. */
static size_t to_latin1(uint8_t *text, size_t size)
{
    size_t length = 0;

    for (size_t n = 0; n < size; length++) {
        uint8_t c = text[n++];
        bool is_known = c < 0x80 || ((c == 0xc2 || c == 0xc3) && n < size);

        if (is_known && c >= 0x80)
            c = (uint8_t)(c << 6 | (text[n] & 0x3f));
        while (n < size && (text[n] & 0xc0) == 0x80)
            n++;
        text[length] = is_known ? c : '?';
    }
    return length;
}

/* ---- to the viewer ---- */

/* length is negative in messages of the extension. */
static void put_head(struct vnc_client *client, int32_t length)
{
    const uint8_t head[4] = {3};

    vnc_client_send(client, head, sizeof(head));
    vnc_client_send_be32(client, (uint32_t)length);
}

static void put_text(struct vnc_client *client, const char *text, size_t size)
{
    size_t place = client->out.end;

    put_head(client, 0);
    vnc_client_send(client, text, size);
    if (client->out.failed)
        return;
    size = to_latin1(client->out.bytes + place + 8, size);
    put_be32(client->out.bytes + place + 4, (uint32_t)size);
    client->out.end = place + 8 + size;
}

static void put_action(struct vnc_client *client, uint32_t action)
{
    put_head(client, -4);
    vnc_client_send_be32(client, action | FORMAT_TEXT);
}

/* What we can do, and how long a text may be. */
static void put_caps(struct vnc_client *client)
{
    put_head(client, -8);
    vnc_client_send_be32(client, FORMAT_TEXT | ACTION_CAPS | ACTION_REQUEST | ACTION_PEEK |
                                     ACTION_NOTIFY | ACTION_PROVIDE);
    vnc_client_send_be32(client, CLIPBOARD_MAX);
}

/* A length and the text with its lines ended by two characters, and a zero, packed. */
static uint8_t *unpacked_text(const char *text, size_t size, size_t *out_size)
{
    uint8_t *bytes = malloc(4 + 2 * size + 1);
    size_t length = 4;

    for (size_t n = 0; bytes && n < size; n++) {
        if (text[n] == '\n')
            bytes[length++] = '\r';
        bytes[length++] = (uint8_t)text[n];
    }
    if (!bytes)
        return NULL;
    bytes[length++] = '\0';
    put_be32(bytes, (uint32_t)(length - 4));
    *out_size = length;
    return bytes;
}

static void put_packed(struct vnc_client *client, const char *text, size_t size)
{
    size_t plain_size, place = client->out.end;
    uint8_t *plain = unpacked_text(text, size, &plain_size), *to;
    uLongf packed_size;

    if (!plain)
        return;
    put_action(client, ACTION_PROVIDE);
    packed_size = compressBound(plain_size);
    to = vnc_buffer_add(&client->out, packed_size);
    if (to && compress(to, &packed_size, plain, plain_size) == Z_OK) {
        client->out.end = place + 12 + packed_size;
        put_be32(client->out.bytes + place + 4, 0u - (uint32_t)(packed_size + 4));
    }
    free(plain);
}

void vnc_client_tell_clipboard(struct vnc_client *client)
{
    unsigned say = client->clipboard_says;
    size_t size;
    const char *text = clipboard_text(clipboard_of(client), &size);

    if (!say || !vnc_client_looks(client) || client->is_encoding || vnc_client_queued(client))
        return;
    client->clipboard_says = 0;
    if (say & SAY_CAPS)
        put_caps(client);
    if (say & SAY_REQUEST)
        put_action(client, ACTION_REQUEST);
    if (say & SAY_NOTIFY)
        put_action(client, ACTION_NOTIFY);
    if (say & SAY_PROVIDE && text)
        put_packed(client, text, size);
    if (say & SAY_TEXT && text)
        put_text(client, text, size);
}

static void on_changed(void *opaque)
{
    struct vnc_client *client = opaque;

    client->clipboard_says |= client->takes_clipboard ? SAY_NOTIFY : SAY_TEXT;
    vnc_wake(client->vnc);
}

/* ---- from the viewer ---- */

/* Lines end in one character; a zero at the end is none of the text. */
static size_t without_returns(char *text, size_t size)
{
    size_t length = 0;

    if (size && !text[size - 1])
        size--;
    for (size_t n = 0; n < size; n++)
        if (text[n] != '\r' || n + 1 == size || text[n + 1] != '\n')
            text[length++] = text[n];
    return length;
}

/* Nothing comes of what is too long or cannot be unpacked. */
static void take_packed(struct vnc_client *client, const uint8_t *bytes, size_t size)
{
    z_stream zlib = {.next_in = (uint8_t *)bytes, .avail_in = (unsigned)size};
    uint8_t head[4] = {0};
    char *text = NULL;
    size_t length;

    if (inflateInit(&zlib) != Z_OK)
        return;
    zlib.next_out = head;
    zlib.avail_out = sizeof(head);
    inflate(&zlib, Z_SYNC_FLUSH);
    length = get_be32(head);
    if (!zlib.avail_out && length && length <= 2 * CLIPBOARD_MAX)
        text = malloc(length);
    if (text) {
        zlib.next_out = (uint8_t *)text;
        zlib.avail_out = (unsigned)length;
        inflate(&zlib, Z_SYNC_FLUSH);
        if (!zlib.avail_out)
            clipboard_copy(clipboard_of(client), &client->clipboard, text,
                           without_returns(text, length));
    }
    inflateEnd(&zlib);
    free(text);
}

static void take_action(struct vnc_client *client, const uint8_t *bytes, size_t size)
{
    uint32_t flags;

    if (size < 4)
        return;
    flags = get_be32(bytes);
    if (flags & ACTION_CAPS || !(flags & FORMAT_TEXT))
        return; /* that it knows the extension it has said before */
    if (flags & ACTION_REQUEST)
        client->clipboard_says |= SAY_PROVIDE;
    if (flags & ACTION_PEEK)
        client->clipboard_says |= SAY_NOTIFY;
    if (flags & ACTION_NOTIFY)
        client->clipboard_says |= SAY_REQUEST;
    if (flags & ACTION_PROVIDE)
        take_packed(client, bytes + 4, size - 4);
}

static void take_latin1(struct vnc_client *client, const uint8_t *bytes, size_t size)
{
    size_t length = from_latin1(bytes, size, NULL);
    char *text = malloc(length + 1);

    if (!text)
        return;
    from_latin1(bytes, size, text);
    clipboard_copy(clipboard_of(client), &client->clipboard, text, length);
    free(text);
}

void vnc_client_expect_text(struct vnc_client *client, int32_t length)
{
    uint32_t size = length < 0 ? 0u - (uint32_t)length : (uint32_t)length;

    client->text_is_extended = length < 0;
    if (size > CLIPBOARD_MAX + EXTRA_BYTES)
        client->skip_bytes = size;
    else
        client->text_left = size;
}

void vnc_client_take_text(struct vnc_client *client, const uint8_t *bytes, size_t size)
{
    struct vnc_buffer *text = &client->text;

    vnc_buffer_put(text, bytes, size);
    client->text_left -= (uint32_t)size;
    if (client->text_left)
        return;
    if (text->failed)
        client->is_over = true;
    else if (client->text_is_extended && client->takes_clipboard)
        take_action(client, text->bytes, text->end);
    else if (!client->text_is_extended)
        take_latin1(client, text->bytes, text->end);
    vnc_buffer_free(text);
}

/* ---- coming and going ---- */

void vnc_client_join_clipboard(struct vnc_client *client)
{
    static const struct clipboard_ops ops = {.changed = on_changed};

    client->clipboard = (struct clipboard_peer){.ops = &ops, .opaque = client};
    clipboard_join(clipboard_of(client), &client->clipboard);
}

void vnc_client_extend_clipboard(struct vnc_client *client)
{
    client->takes_clipboard = true;
    if (!client->has_told_caps)
        client->clipboard_says |= SAY_CAPS;
    client->has_told_caps = true;
}

void vnc_client_leave_clipboard(struct vnc_client *client)
{
    clipboard_leave(clipboard_of(client), &client->clipboard);
}
