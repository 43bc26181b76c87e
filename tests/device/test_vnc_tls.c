/*
 * test_vnc_tls.c - viewers of VNC that encrypt: with a password, a wrong one, and without
 * (VeNCrypt)
 *
 * Nothing is tested by a build without GnuTLS.
 */
#include "vnc_rig.h"

#ifdef HAVE_GNUTLS

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define X509_NONE 260u
#define X509_VNC  261u

static char cert_path[] = "/tmp/trapeze-cert-XXXXXX", key_path[] = "/tmp/trapeze-key-XXXXXX",
            password_path[] = "/tmp/trapeze-password-XXXXXX";
static gnutls_session_t session;
static gnutls_certificate_credentials_t credentials;

/* ---- a certificate ---- */

static void write_file(char *path, const void *data, size_t size)
{
    int file = mkstemp(path);

    assert_true(file >= 0);
    assert_int_equal(write(file, data, size), size);
    close(file);
}

static int make_files(void **state)
{
    gnutls_x509_privkey_t secret;
    gnutls_x509_crt_t cert;
    gnutls_datum_t pem;

    (void)state;
    gnutls_x509_privkey_init(&secret);
    gnutls_x509_crt_init(&cert);
    assert_int_equal(gnutls_x509_privkey_generate(secret, GNUTLS_PK_ECDSA,
                                                  GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1),
                                                  0),
                     0);
    gnutls_x509_crt_set_version(cert, 3);
    gnutls_x509_crt_set_serial(cert, "\1", 1);
    gnutls_x509_crt_set_activation_time(cert, time(NULL) - 3600);
    gnutls_x509_crt_set_expiration_time(cert, time(NULL) + 3600);
    gnutls_x509_crt_set_dn(cert, "CN=test", NULL);
    gnutls_x509_crt_set_key(cert, secret);
    assert_int_equal(gnutls_x509_crt_sign2(cert, cert, secret, GNUTLS_DIG_SHA256, 0), 0);
    gnutls_x509_crt_export2(cert, GNUTLS_X509_FMT_PEM, &pem);
    write_file(cert_path, pem.data, pem.size);
    gnutls_free(pem.data);
    gnutls_x509_privkey_export2(secret, GNUTLS_X509_FMT_PEM, &pem);
    write_file(key_path, pem.data, pem.size);
    gnutls_free(pem.data);
    gnutls_x509_crt_deinit(cert);
    gnutls_x509_privkey_deinit(secret);
    write_file(password_path, "secret\n", 7);
    gnutls_certificate_allocate_credentials(&credentials);
    return 0;
}

static int remove_files(void **state)
{
    (void)state;
    unlink(cert_path);
    unlink(key_path);
    unlink(password_path);
    gnutls_certificate_free_credentials(credentials);
    return 0;
}

/* ---- the far end ---- */

static void open_encrypted(bool with_password)
{
    open_server(&(struct vnc_config){.address = "",
                                     .tls_cert = cert_path,
                                     .tls_key = key_path,
                                     .password_file = with_password ? password_path : NULL});
    expect("\1\23", 2);
}

static void start_tls(uint32_t subtype)
{
    uint8_t bytes[4];
    int code;

    put_be32(bytes, subtype);
    say("\23", 1);
    expect("\0\2", 2);
    say("\0\2", 2);
    expect("\0\1", 2);
    expect(bytes, 4);
    say(bytes, 4);
    expect("\1", 1);
    gnutls_init(&session, GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL);
    gnutls_set_default_priority(session);
    gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials);
    gnutls_transport_set_int(session, fd);
    for (unsigned n = 0; n < 1000; n++) {
        code = gnutls_handshake(session);
        if (code == GNUTLS_E_SUCCESS || gnutls_error_is_fatal(code))
            break;
        loop_once(t->loop, 1000000);
    }
    assert_int_equal(code, GNUTLS_E_SUCCESS);
}

static void say_tls(const void *bytes, size_t size)
{
    assert_int_equal(gnutls_record_send(session, bytes, size), size);
    let_run();
}

/* Returns how many come before the other side hangs up, or time is over. */
static size_t hear_tls(uint8_t *out, size_t size)
{
    size_t done = 0;

    for (unsigned n = 0; n < 3000 && done < size; n++) {
        ssize_t got = gnutls_record_recv(session, out + done, size - done);

        if (got > 0)
            done += (size_t)got;
        else if (got == 0 || gnutls_error_is_fatal((int)got))
            break;
        else
            loop_once(t->loop, 1000000);
    }
    return done;
}

static void expect_tls(const void *bytes, size_t size)
{
    uint8_t got[64];

    assert_int_equal(hear_tls(got, size), size);
    assert_memory_equal(got, bytes, size);
}

static void see_a_picture(void)
{
    static uint8_t bytes[16 + WIDTH * HEIGHT * 4];
    uint8_t ask[10] = {3, 0, 0, 0, 0, 0, 0, WIDTH, 0, HEIGHT};

    say_tls("\1", 1);
    assert_int_equal(hear_tls(bytes, 24), 24);
    assert_int_equal(get_be16(bytes), WIDTH);
    assert_int_equal(hear_tls(bytes, get_be32(bytes + 20)), get_be32(bytes + 20));
    say_tls(ask, sizeof(ask));
    assert_int_equal(hear_tls(bytes, sizeof(bytes)), sizeof(bytes));
    for (uint32_t n = 0; n < WIDTH * HEIGHT; n++)
        assert_int_equal(get_le32(bytes + 16 + 4 * n), few_colours(n % WIDTH, n / WIDTH));
}

static void answer_challenge(const char password[VNC_PASSWORD_MAX])
{
    uint8_t challenge[VNC_CHALLENGE], answer[VNC_CHALLENGE];

    assert_int_equal(hear_tls(challenge, sizeof(challenge)), sizeof(challenge));
    vnc_password_answer((const uint8_t *)password, challenge, answer);
    say_tls(answer, sizeof(answer));
}

/* ---- tests ---- */

static int end(void **state)
{
    if (session)
        gnutls_deinit(session);
    session = NULL;
    return tear_down(state);
}

static void a_viewer_without_a_password_sees_the_picture(void **state)
{
    (void)state;
    open_encrypted(false);
    start_tls(X509_NONE);
    expect_tls("\0\0\0\0", 4);
    see_a_picture();
}

static void a_viewer_with_the_password_sees_the_picture(void **state)
{
    (void)state;
    open_encrypted(true);
    start_tls(X509_VNC);
    answer_challenge("secret\0");
    expect_tls("\0\0\0\0", 4);
    see_a_picture();
}

static void a_viewer_with_a_wrong_password_does_not(void **state)
{
    uint8_t why[64];

    (void)state;
    open_encrypted(true);
    start_tls(X509_VNC);
    answer_challenge("secreT\0");
    expect_tls("\0\0\0\1\0\0\0\25the password is wrong", 29);
    assert_int_equal(hear_tls(why, sizeof(why)), 0);
    assert_false(is_watched);
}

static void a_viewer_that_does_not_encrypt_is_sent_away(void **state)
{
    (void)state;
    open_encrypted(false);
    say("\1", 1);
    assert_true(has_hung_up());
}

static void another_subtype_is_refused(void **state)
{
    (void)state;
    open_encrypted(true);
    say("\23", 1);
    expect("\0\2", 2);
    say("\0\2", 2);
    expect("\0\1\0\0\1\5", 6);
    say("\0\0\1\4", 4); /* without the password */
    assert_true(has_hung_up());
}

static void bytes_that_are_no_tls_end_it(void **state)
{
    (void)state;
    open_encrypted(false);
    say("\23", 1);
    expect("\0\2", 2);
    say("\0\2", 2);
    expect("\0\1\0\0\1\4", 6);
    say("\0\0\1\4", 4);
    expect("\1", 1);
    say("\1\0\0\0\0\0\0\0\0\0\0\0", 12);
    assert_true(has_hung_up());
    assert_false(is_watched);
}

#define TEST_TLS(name) cmocka_unit_test_setup_teardown(name, set_up, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_TLS(a_viewer_without_a_password_sees_the_picture),
        TEST_TLS(a_viewer_with_the_password_sees_the_picture),
        TEST_TLS(a_viewer_with_a_wrong_password_does_not),
        TEST_TLS(a_viewer_that_does_not_encrypt_is_sent_away),
        TEST_TLS(another_subtype_is_refused),
        TEST_TLS(bytes_that_are_no_tls_end_it),
    };

    return cmocka_run_group_tests(tests, make_files, remove_files);
}

#else

int main(void)
{
    return 77; /* skipped */
}

#endif
