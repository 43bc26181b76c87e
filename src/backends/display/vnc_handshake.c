/*
 * vnc_handshake.c - how a viewer of VNC comes in: versions, security, password (RFC 6143, 7.1
 * to 7.3)
 */
#include <stdio.h>
#include <string.h>

#include "backends/display/vnc_internal.h"
#include "base/bytes.h"
#include "base/log.h"
#include "host/host.h"
#include "host/loop.h"
#include "trapeze/machine.h"

#define WRONG_NS        NANOSECONDS_PER_SECOND /* what a wrong password costs */
#define SECURITY_NONE   1u
#define SECURITY_VNC    2u
#define SECURITY_CRYPT  19u
#define CRYPT_X509_NONE 260u
#define CRYPT_X509_VNC  261u

static void ask_password(struct vnc_client *client)
{
    host_random(client->challenge, sizeof(client->challenge));
    vnc_client_send(client, client->challenge, sizeof(client->challenge));
    client->state = VNC_STATE_PASSWORD;
}

static void let_in(struct vnc_client *client, bool had_password)
{
    if (had_password || client->minor >= 8)
        vnc_client_send_be32(client, 0);
    client->state = VNC_STATE_INIT;
}

static void start_security(struct vnc_client *client, unsigned type)
{
    if (type == SECURITY_CRYPT) {
        vnc_client_send(client, "\0\2", 2);
        client->state = VNC_STATE_CRYPT_VERSION;
    } else if (type == SECURITY_VNC) {
        ask_password(client);
    } else {
        let_in(client, false);
    }
}

static unsigned security_of(const struct vnc *vnc)
{
    return vnc->tls ? SECURITY_CRYPT : vnc->has_password ? SECURITY_VNC : SECURITY_NONE;
}

static size_t take_version(struct vnc_client *client)
{
    uint8_t types[2] = {1, (uint8_t)security_of(client->vnc)};
    unsigned minor;
    char text[13];

    if (client->in_size < 12)
        return 0;
    memcpy(text, client->in, 12);
    text[12] = '\0';
    if (memcmp(text, "RFB 003.", 8) || sscanf(text + 8, "%3u", &minor) != 1) {
        client->is_over = true;
        return 12;
    }
    client->minor = minor >= 8 ? 8 : minor == 7 ? 7 : 3;
    if (client->minor == 3) { /* which is told, and not asked; it knows no encryption */
        client->is_over = types[1] == SECURITY_CRYPT;
        vnc_client_send_be32(client, types[1]);
        start_security(client, types[1]);
    } else {
        vnc_client_send(client, types, sizeof(types));
        client->state = VNC_STATE_SECURITY;
    }
    return 12;
}

static size_t take_security(struct vnc_client *client)
{
    if (client->in[0] == security_of(client->vnc))
        start_security(client, client->in[0]);
    else
        client->is_over = true;
    return 1;
}

static uint32_t crypt_subtype(const struct vnc *vnc)
{
    return vnc->has_password ? CRYPT_X509_VNC : CRYPT_X509_NONE;
}

static size_t take_crypt_version(struct vnc_client *client)
{
    if (client->in_size < 2)
        return 0;
    client->is_over = client->in[0] != 0 || client->in[1] != 2;
    vnc_client_send(client, "\0\1", 2); /* fine; one subtype */
    vnc_client_send_be32(client, crypt_subtype(client->vnc));
    client->state = VNC_STATE_CRYPT_SUBTYPE;
    return 2;
}

static size_t take_crypt_subtype(struct vnc_client *client)
{
    if (client->in_size < 4)
        return 0;
    client->is_over = get_be32(client->in) != crypt_subtype(client->vnc) || client->in_size > 4;
    vnc_client_send(client, "\1", 1);
    vnc_client_flush(client);
    if (vnc_client_queued(client) || client->is_over) {
        client->is_over = true;
        return 4;
    }
    client->tls = vnc_tls_start(client->vnc->tls, client->fd);
    client->is_over = !client->tls;
    client->state = VNC_STATE_TLS;
    return 4;
}

static size_t take_password(struct vnc_client *client)
{
    uint8_t answer[VNC_CHALLENGE], differs = 0;

    if (client->in_size < VNC_CHALLENGE)
        return 0;
    if (!vnc_password_answer(client->vnc->password, client->challenge, answer))
        client->is_over = true;
    for (unsigned n = 0; n < VNC_CHALLENGE; n++)
        differs |= (uint8_t)(answer[n] ^ client->in[n]);
    if (!differs) {
        let_in(client, true);
        return VNC_CHALLENGE;
    }
    client->state = VNC_STATE_WRONG;
    timer_arm(&client->deadline, clock_now_ns(client->deadline.clocks, CLOCK_ID_HOST) + WRONG_NS);
    return VNC_CHALLENGE;
}

void vnc_client_tell_wrong(struct vnc_client *client)
{
    static const char why[] = "the password is wrong";

    log_warn("vnc: a viewer had a wrong password");
    vnc_client_send_be32(client, 1);
    if (client->minor >= 8) {
        vnc_client_send_be32(client, sizeof(why) - 1);
        vnc_client_send(client, why, sizeof(why) - 1);
    }
    vnc_client_flush(client);
}

/* Whether it wants to be the only one is not asked: all can look. */
static size_t take_init(struct vnc_client *client)
{
    struct vnc *vnc = client->vnc;
    struct error err = {0};
    uint8_t head[4];

    client->is_over = vnc_watch(vnc, &err) ||
                      !vnc_client_set_size(client, vnc->surface.width, vnc->surface.height);
    if (client->is_over) {
        log_warn("vnc: %s", err.code ? err.text : "out of memory");
        return 1;
    }
    client->state = VNC_STATE_NORMAL;
    vnc_client_join_clipboard(client);
    timer_cancel(&client->deadline);
    put_be16(head, client->width);
    put_be16(head + 2, client->height);
    vnc_client_send(client, head, sizeof(head));
    vnc_client_send(client, vnc_format_default, VNC_FORMAT_BYTES);
    vnc_client_send_be32(client, (uint32_t)strlen(vnc->name));
    vnc_client_send(client, vnc->name, strlen(vnc->name));
    log_debug("vnc: a viewer looks");
    return 1;
}

void vnc_client_shake_hands(struct vnc_client *client)
{
    bool writes;
    int done = vnc_tls_handshake(client->tls, &writes);

    loop_set_events(client->handler, writes ? LOOP_WRITE : LOOP_READ);
    if (done < 0)
        client->is_over = true;
    if (done <= 0)
        return;
    if (client->vnc->has_password)
        ask_password(client);
    else
        let_in(client, false);
}

size_t vnc_client_take_handshake(struct vnc_client *client)
{
    switch (client->state) {
    case VNC_STATE_VERSION:
        return take_version(client);
    case VNC_STATE_SECURITY:
        return take_security(client);
    case VNC_STATE_CRYPT_VERSION:
        return take_crypt_version(client);
    case VNC_STATE_CRYPT_SUBTYPE:
        return take_crypt_subtype(client);
    case VNC_STATE_PASSWORD:
        return take_password(client);
    case VNC_STATE_INIT:
        return take_init(client);
    default:
        return 0;
    }
}
