/*
 * vnc_tls.c - encrypted viewers (GnuTLS), and passwords (Nettle)
 *
 * Files are read before the process is confined.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/display/vnc_internal.h"

#ifdef HAVE_GNUTLS

#include <gnutls/gnutls.h>
#include <nettle/des.h>

const bool vnc_has_password_support = true;

struct vnc_tls {
    gnutls_certificate_credentials_t credentials;
    gnutls_priority_t priorities;
};

struct vnc_tls_session {
    gnutls_session_t session;
};

struct vnc_tls *vnc_tls_new(const char *cert, const char *key, struct error *err)
{
    struct vnc_tls *tls = calloc(1, sizeof(*tls));
    int code =
        tls ? gnutls_certificate_allocate_credentials(&tls->credentials) : GNUTLS_E_MEMORY_ERROR;

    if (!code)
        code =
            gnutls_certificate_set_x509_key_file(tls->credentials, cert, key, GNUTLS_X509_FMT_PEM);
    if (!code)
        code = gnutls_priority_init(&tls->priorities, NULL, NULL);
    if (!code)
        return tls;
    error_set(err, EINVAL, "%s, %s: %s", cert, key, gnutls_strerror(code));
    vnc_tls_free(tls);
    return NULL;
}

void vnc_tls_free(struct vnc_tls *tls)
{
    if (!tls)
        return;
    if (tls->priorities)
        gnutls_priority_deinit(tls->priorities);
    if (tls->credentials)
        gnutls_certificate_free_credentials(tls->credentials);
    free(tls);
}

struct vnc_tls_session *vnc_tls_start(struct vnc_tls *tls, int fd)
{
    struct vnc_tls_session *session = calloc(1, sizeof(*session));

    if (!session ||
        gnutls_init(&session->session, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL)) {
        free(session);
        return NULL;
    }
    gnutls_priority_set(session->session, tls->priorities);
    gnutls_credentials_set(session->session, GNUTLS_CRD_CERTIFICATE, tls->credentials);
    gnutls_transport_set_int(session->session, fd);
    return session;
}

void vnc_tls_end(struct vnc_tls_session *session)
{
    if (!session)
        return;
    gnutls_deinit(session->session);
    free(session);
}

int vnc_tls_handshake(struct vnc_tls_session *session, bool *out_writes)
{
    int code = gnutls_handshake(session->session);

    *out_writes = gnutls_record_get_direction(session->session) == 1;
    if (code == GNUTLS_E_SUCCESS)
        return 1;
    return gnutls_error_is_fatal(code) ? -1 : 0;
}

static ssize_t result_of(ssize_t n)
{
    if (n >= 0)
        return n;
    errno = n == GNUTLS_E_AGAIN || !gnutls_error_is_fatal((int)n) ? EAGAIN : EIO;
    return -1;
}

ssize_t vnc_tls_read(struct vnc_tls_session *session, void *out, size_t size)
{
    return result_of(gnutls_record_recv(session->session, out, size));
}

/* One that was put off has to be asked for with the same bytes again, as callers do. */
ssize_t vnc_tls_write(struct vnc_tls_session *session, const void *bytes, size_t size)
{
    return result_of(gnutls_record_send(session->session, bytes, size));
}

bool vnc_tls_has_more(struct vnc_tls_session *session)
{
    return gnutls_record_check_pending(session->session) > 0;
}

/* DES, with the bits of each of the key's bytes the wrong way round. */
bool vnc_password_answer(const uint8_t password[VNC_PASSWORD_MAX],
                         const uint8_t challenge[VNC_CHALLENGE], uint8_t out[VNC_CHALLENGE])
{
    struct des_ctx des;
    uint8_t key[DES_KEY_SIZE] = {0};

    for (unsigned n = 0; n < DES_KEY_SIZE; n++)
        for (unsigned bit = 0; bit < 8; bit++)
            key[n] = (uint8_t)(key[n] << 1 | (password[n] >> bit & 1));
    des_set_key(&des, key); /* which complains of weak ones, and uses them */
    des_encrypt(&des, VNC_CHALLENGE, out, challenge);
    return true;
}

#else

const bool vnc_has_password_support = false;

struct vnc_tls *vnc_tls_new(const char *cert, const char *key, struct error *err)
{
    (void)cert;
    (void)key;
    error_set(err, ENOTSUP, "this trapeze was built without GnuTLS, which encrypts");
    return NULL;
}

void vnc_tls_free(struct vnc_tls *tls)
{
    (void)tls;
}

struct vnc_tls_session *vnc_tls_start(struct vnc_tls *tls, int fd)
{
    (void)tls;
    (void)fd;
    return NULL;
}

void vnc_tls_end(struct vnc_tls_session *session)
{
    (void)session;
}

int vnc_tls_handshake(struct vnc_tls_session *session, bool *out_writes)
{
    (void)session;
    *out_writes = false;
    return -1;
}

ssize_t vnc_tls_read(struct vnc_tls_session *session, void *out, size_t size)
{
    (void)session;
    (void)out;
    (void)size;
    return 0;
}

ssize_t vnc_tls_write(struct vnc_tls_session *session, const void *bytes, size_t size)
{
    (void)session;
    (void)bytes;
    (void)size;
    return 0;
}

bool vnc_tls_has_more(struct vnc_tls_session *session)
{
    (void)session;
    return false;
}

bool vnc_password_answer(const uint8_t password[VNC_PASSWORD_MAX],
                         const uint8_t challenge[VNC_CHALLENGE], uint8_t out[VNC_CHALLENGE])
{
    (void)password;
    (void)challenge;
    (void)out;
    return false;
}

#endif
