/*
 * vnc_message.c - what a viewer of VNC says when it is in (RFC 6143, 7.5)
 */
#include "backends/display/keys.h"
#include "backends/display/vnc_internal.h"
#include "base/bytes.h"

static size_t take_format(struct vnc_client *client)
{
    if (client->in_size < 20)
        return 0;
    client->is_over = !vnc_format_set(&client->format, client->in + 4);
    client->cursor_number = 0; /* it is sent again */
    return 20;
}

static size_t take_encodings(struct vnc_client *client)
{
    if (client->in_size < 4)
        return 0;
    client->encodings_left = get_be16(client->in + 2);
    client->encoding = VNC_RAW;
    client->level = VNC_LEVEL_DEFAULT;
    client->has_encoding = client->takes_size = client->takes_cursor = false;
    client->takes_pointer_change = client->takes_scan_codes = client->takes_any_size = false;
    client->takes_clipboard = false;
    return 4;
}

/* The first that is known is the one that it likes best. */
static size_t take_encoding(struct vnc_client *client)
{
    int32_t encoding = (int32_t)get_be32(client->in);

    if (client->in_size < 4)
        return 0;
    client->encodings_left--;
    if ((encoding == VNC_RAW || encoding == VNC_TIGHT || encoding == VNC_ZRLE) &&
        !client->has_encoding) {
        client->encoding = (enum vnc_encoding)encoding;
        client->has_encoding = true;
    }
    if (encoding >= VNC_PSEUDO_LEVEL_0 && encoding <= VNC_PSEUDO_LEVEL_0 + 9)
        client->level = encoding - VNC_PSEUDO_LEVEL_0;
    client->takes_size |= encoding == VNC_PSEUDO_DESKTOP_SIZE;
    client->takes_cursor |= encoding == VNC_PSEUDO_CURSOR;
    client->takes_pointer_change |= encoding == VNC_PSEUDO_POINTER_CHANGE;
    client->takes_scan_codes |= encoding == VNC_PSEUDO_SCAN_CODES;
    client->takes_any_size |= encoding == VNC_PSEUDO_ANY_SIZE;
    if (encoding == VNC_PSEUDO_CLIPBOARD)
        vnc_client_extend_clipboard(client);
    return 4;
}

static size_t take_request(struct vnc_client *client)
{
    struct screen_rect rect = {get_be16(client->in + 2), get_be16(client->in + 4),
                               get_be16(client->in + 6), get_be16(client->in + 8)};

    if (client->in_size < 10)
        return 0;
    if (!client->in[1] && rect.width && rect.height)
        vnc_client_changed(client, &rect);
    client->wants_update = true;
    return 10;
}

static size_t take_key(struct vnc_client *client)
{
    if (client->in_size < 8)
        return 0;
    vnc_client_key(client, get_be32(client->in + 4), client->in[1] != 0);
    return 8;
}

static size_t take_pointer(struct vnc_client *client)
{
    if (client->in_size < 6)
        return 0;
    vnc_client_point(client, client->in[1], get_be16(client->in + 2), get_be16(client->in + 4));
    return 6;
}

static size_t take_cut_text(struct vnc_client *client)
{
    if (client->in_size < 8)
        return 0;
    vnc_client_expect_text(client, (int32_t)get_be32(client->in + 4));
    return 8;
}

/* There is one screen, so what it wants of others behind the head does not matter. */
static size_t take_size(struct vnc_client *client)
{
    struct screen *screen = client->vnc->screen;
    bool can;

    if (client->in_size < 8)
        return 0;
    can = screen && screen_want_size(screen, get_be16(client->in + 2), get_be16(client->in + 4));
    client->size_answer = can ? VNC_SIZE_FORWARDED : VNC_SIZE_PROHIBITED;
    client->skip_bytes = 16u * client->in[6];
    return 8;
}

static size_t take_scan_code(struct vnc_client *client)
{
    uint8_t usage;

    if (client->in_size < 12)
        return 0;
    client->is_over = client->in[1] != 0;
    usage = key_of_scan_code(get_be32(client->in + 8));
    if (usage)
        vnc_client_press(client, usage, get_be16(client->in + 2) != 0);
    return 12;
}

size_t vnc_client_take_message(struct vnc_client *client)
{
    if (client->encodings_left)
        return take_encoding(client);
    if (client->in[0] >= 4)
        vnc_expect_change(client->vnc); /* keys and the pointer */
    switch (client->in[0]) {
    case 0:
        return take_format(client);
    case 2:
        return take_encodings(client);
    case 3:
        return take_request(client);
    case 4:
        return take_key(client);
    case 5:
        return take_pointer(client);
    case 6:
        return take_cut_text(client);
    case 251:
        return take_size(client);
    case 255:
        return take_scan_code(client);
    default:
        client->is_over = true;
        return 1;
    }
}
