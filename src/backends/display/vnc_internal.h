/*
 * vnc_internal.h - what the files of the VNC server share
 */
#ifndef BACKENDS_DISPLAY_VNC_INTERNAL_H
#define BACKENDS_DISPLAY_VNC_INTERNAL_H

#include <sys/types.h>
#include <zlib.h>

#include "backends/display/vnc.h"
#include "host/work.h"
#include "trapeze/clipboard.h"
#include "trapeze/clock.h"
#include "trapeze/display.h"

struct vnc_client;
struct vnc_tls;
struct vnc_tls_session;

#define VNC_PASSWORD_MAX  8u /* what the protocol uses of it */
#define VNC_CHALLENGE     16u
#define VNC_NAME_MAX      64u
#define VNC_TILE_WIDTH    64u
#define VNC_TILE_HEIGHT   16u
#define VNC_UPDATE_PIXELS (4u << 20) /* of one update; what is left goes with the next one */

struct vnc {
    struct machine *machine;
    struct stream_server *server;
    struct work_pool *pool;
    struct vnc_tls *tls; /* NULL: not encrypted */
    uint8_t password[VNC_PASSWORD_MAX];
    bool has_password;
    char name[VNC_NAME_MAX];

    struct screen *screen; /* NULL: it has gone */
    struct screen_viewer viewer;
    bool is_watching;
    struct screen_surface surface;
    struct screen_cursor *cursor; /* NULL: there never was one */
    uint64_t cursor_number;       /* counts changes */
    struct timer refresh;
    uint64_t refreshed_ns; /* when it was last done, by the host's clock */
    unsigned quiet;        /* refreshes without a change */
    struct vnc_client *clients;
    unsigned client_count;
};

/* ---- vnc.c ---- */

/* A viewer waits for an update: look at the screen when it is time. */
void vnc_want_refresh(struct vnc *vnc);
/* Somebody has something to say to a viewer: soon, on the main loop. */
void vnc_wake(struct vnc *vnc);
/* Somebody pressed or moved something. vnc_want_refresh() follows. */
void vnc_expect_change(struct vnc *vnc);
/* Somebody looks. -ENOMEM. */
int vnc_watch(struct vnc *vnc, struct error *err);
/* Nobody does, perhaps. */
void vnc_unwatch(struct vnc *vnc);

/* ---- vnc_encode.c: on any thread ---- */

struct vnc_format {
    uint8_t bytes; /* of a pixel: 1, 2 or 4 */
    bool is_big_endian;
    uint8_t compact; /* bytes of a compressed pixel: bytes, or 3 of 4 */
    uint8_t skip;    /* of these, left out at the low end */
    bool is_rgb;     /* Tight sends three bytes of a pixel: red, green, blue */
    uint32_t red[256], green[256], blue[256];
};

#define VNC_FORMAT_BYTES 16u /* as the protocol has it */
/* False: it is none, or has a colour map. */
bool vnc_format_set(struct vnc_format *format, const uint8_t text[VNC_FORMAT_BYTES]);
/* 32 bits a pixel, as the screen's pixels are. */
extern const uint8_t vnc_format_default[VNC_FORMAT_BYTES];

struct vnc_buffer {
    uint8_t *bytes;
    size_t start, end, capacity;
    bool failed; /* there was no memory */
};
/* Room for size more; NULL: there is no memory. What is written there counts at once. */
uint8_t *vnc_buffer_add(struct vnc_buffer *buffer, size_t size);
void vnc_buffer_put(struct vnc_buffer *buffer, const void *bytes, size_t size);
void vnc_buffer_free(struct vnc_buffer *buffer);

enum vnc_encoding { VNC_RAW = 0, VNC_TIGHT = 7, VNC_ZRLE = 16 };

/* The first three are Tight's, with its numbers. */
enum vnc_stream {
    VNC_STREAM_PIXELS,
    VNC_STREAM_BITS,
    VNC_STREAM_INDICES,
    VNC_STREAM_ZRLE,
    VNC_STREAM_COUNT
};
#define VNC_LEVEL_DEFAULT 1 /* of zlib */
#define VNC_TIGHT_PIXELS  65536u
#define VNC_TIGHT_WIDTH   2048u

/* An update on its way. The pixels of all rectangles, one behind the other. */
struct vnc_job {
    struct work work;
    struct vnc_client *client;
    enum vnc_encoding encoding;
    struct vnc_format format;
    int level; /* of zlib; 0 to 9 */
    struct {
        z_stream zlib;
        bool is_open;
        int level;
    } streams[VNC_STREAM_COUNT];
    uint8_t *scratch; /* Tight's, for pixels of a rectangle; NULL: there was none yet */
    struct screen_rect *rects;
    size_t rect_count, rect_capacity;
    uint32_t *pixels;
    size_t pixel_count, pixel_capacity;
    struct vnc_buffer out;
};
void vnc_encode(struct vnc_job *job);
/* A pixel in the viewer's format; returns what is behind it. */
uint8_t *vnc_put_pixel(const struct vnc_format *format, uint8_t *to, uint32_t pixel);
/* Append bytes that a stream makes of these. all: the viewer has to be able to unpack all. */
void vnc_pack(struct vnc_job *job, unsigned stream, const uint8_t *bytes, size_t size, bool all);
void vnc_job_free(struct vnc_job *job);

/* ---- vnc_tight.c: likewise ---- */

/* Of up to VNC_TIGHT_PIXELS, VNC_TIGHT_WIDTH wide at most; job->scratch is there. */
void vnc_encode_tight(struct vnc_job *job, const struct screen_rect *rect, const uint32_t *pixels);

/* ---- vnc_tls.c ---- */

struct vnc_tls *vnc_tls_new(const char *cert, const char *key, struct error *err);
void vnc_tls_free(struct vnc_tls *tls);
struct vnc_tls_session *vnc_tls_start(struct vnc_tls *tls, int fd); /* NULL: no memory */
void vnc_tls_end(struct vnc_tls_session *session);                  /* NULL is fine */
/* 1: done; 0: not yet, as *out_writes says; -1: it failed. */
int vnc_tls_handshake(struct vnc_tls_session *session, bool *out_writes);
/* As recv() and send(), with errno. */
ssize_t vnc_tls_read(struct vnc_tls_session *session, void *out, size_t size);
ssize_t vnc_tls_write(struct vnc_tls_session *session, const void *bytes, size_t size);
bool vnc_tls_has_more(struct vnc_tls_session *session); /* that the socket has no more */
/* The answer of one who knows the password. False: it cannot be told (built without). */
bool vnc_password_answer(const uint8_t password[VNC_PASSWORD_MAX],
                         const uint8_t challenge[VNC_CHALLENGE], uint8_t out[VNC_CHALLENGE]);
extern const bool vnc_has_password_support;

/* ---- a viewer ---- */

enum vnc_state {
    VNC_STATE_VERSION,
    VNC_STATE_SECURITY,
    VNC_STATE_CRYPT_VERSION,
    VNC_STATE_CRYPT_SUBTYPE,
    VNC_STATE_TLS,
    VNC_STATE_PASSWORD,
    VNC_STATE_INIT,
    VNC_STATE_NORMAL,
    VNC_STATE_WRONG, /* a wrong password, which it will hear of */
};

/* Of pseudo-encodings. */
enum {
    VNC_PSEUDO_DESKTOP_SIZE = -223,
    VNC_PSEUDO_CURSOR = -239,
    VNC_PSEUDO_LEVEL_0 = -256, /* of compression, to -247 */
    VNC_PSEUDO_POINTER_CHANGE = -257,
    VNC_PSEUDO_SCAN_CODES = -258,
    VNC_PSEUDO_ANY_SIZE = -308,             /* ExtendedDesktopSize */
    VNC_PSEUDO_CLIPBOARD = -0x3f5e1a31 - 1, /* C0A1E5CEh */
};

/* As the protocol has them. */
enum vnc_size_answer { VNC_SIZE_NONE = -1, VNC_SIZE_PROHIBITED = 1, VNC_SIZE_FORWARDED = 4 };

#define VNC_IN_BYTES 512u
#define VNC_MAX_HELD 32u

/* A key that is down, by the character that it was pressed for. */
struct vnc_held {
    uint32_t keysym;
    uint8_t usage; /* 0: free */
};

struct vnc_client {
    struct vnc *vnc;
    struct vnc_client *next;
    int fd;
    struct loop_fd *handler;
    struct vnc_tls_session *tls; /* NULL: not encrypted, yet */
    struct timer deadline;
    enum vnc_state state;
    bool is_over, is_closed;
    unsigned minor; /* of the protocol's version: 3, 7 or 8 */
    uint8_t challenge[VNC_CHALLENGE];

    uint8_t in[VNC_IN_BYTES];
    size_t in_size;
    uint32_t skip_bytes, encodings_left, text_left;
    struct vnc_buffer out;

    struct vnc_format format;
    enum vnc_encoding encoding;
    int level; /* of zlib */
    bool has_encoding, takes_size, takes_cursor, takes_pointer_change, takes_scan_codes;
    bool takes_any_size, takes_clipboard;
    bool has_told_scan_codes, has_told_size, told_relative;
    enum vnc_size_answer size_answer; /* to its wish for a size */

    struct clipboard_peer clipboard;
    unsigned clipboard_says; /* which messages wait; vnc_clipboard.c's */
    struct vnc_buffer text;  /* what it copies, so far */
    bool text_is_extended, has_told_caps;

    uint32_t width, height, columns, rows;
    uint8_t *tiles; /* changed, since they were sent */
    bool has_changes, wants_update;
    uint64_t cursor_number;
    struct vnc_job job;
    bool is_encoding;

    /* What packing the pixels of large updates costs, and sending them: see vnc_update.c. */
    uint64_t started_ns, packed_ns; /* of the last: by the host's clock; 0: it is sent */
    uint64_t pixel_ps;              /* to pack one, when it last was packed */
    unsigned plain_updates;         /* which are not to be packed */

    struct vnc_held held[VNC_MAX_HELD];
    uint8_t down[32];
    unsigned buttons;
};

/* ---- vnc_client.c ---- */

void vnc_client_new(struct vnc *vnc, int fd);
void vnc_client_free(struct vnc_client *client);
bool vnc_client_looks(const struct vnc_client *client); /* it is beyond the handshake */
/* After everything that may have changed something: send what it waits for. Frees one that is over.
 */
void vnc_client_settle(struct vnc_client *client);
size_t vnc_client_queued(const struct vnc_client *client); /* bytes that wait to be sent */
void vnc_client_send(struct vnc_client *client, const void *bytes, size_t size);
void vnc_client_send_be32(struct vnc_client *client, uint32_t value);
void vnc_client_flush(struct vnc_client *client);

/* ---- vnc_handshake.c ---- */

/* What comes before VNC_STATE_NORMAL: takes a whole message, and returns its size; 0: not all of it
 * is there. */
size_t vnc_client_take_handshake(struct vnc_client *client);
void vnc_client_shake_hands(struct vnc_client *client); /* in VNC_STATE_TLS */
void vnc_client_tell_wrong(struct vnc_client *client);  /* of its password */

/* ---- vnc_message.c ---- */

/* The same of what comes in VNC_STATE_NORMAL. */
size_t vnc_client_take_message(struct vnc_client *client);

/* ---- vnc_clipboard.c ---- */

void vnc_client_join_clipboard(struct vnc_client *client);
void vnc_client_leave_clipboard(struct vnc_client *client);
void vnc_client_extend_clipboard(struct vnc_client *client); /* it knows the extension */
/* A message of so many bytes begins, of the extension if it is negative. */
void vnc_client_expect_text(struct vnc_client *client, int32_t length);
/* Up to text_left bytes of it. */
void vnc_client_take_text(struct vnc_client *client, const uint8_t *bytes, size_t size);
/* What waits, if there is room. */
void vnc_client_tell_clipboard(struct vnc_client *client);

/* ---- vnc_input.c ---- */

/* The keyboard's key; no effect if it is as it was. */
void vnc_client_press(struct vnc_client *client, uint8_t usage, bool pressed);
void vnc_client_key(struct vnc_client *client, uint32_t keysym, bool pressed);
void vnc_client_point(struct vnc_client *client, unsigned mask, uint32_t x, uint32_t y);
void vnc_client_release(struct vnc_client *client); /* all keys and buttons */

/* ---- vnc_update.c ---- */

/* False: there is no memory. */
bool vnc_client_set_size(struct vnc_client *client, uint32_t width, uint32_t height);
void vnc_client_resized(struct vnc_client *client);
void vnc_client_changed(struct vnc_client *client, const struct screen_rect *rect);
void vnc_client_is_sent(struct vnc_client *client);     /* nothing is queued any more */
bool vnc_client_waits(const struct vnc_client *client); /* for an update that it has room for */
void vnc_client_update(struct vnc_client *client);      /* if it waits and there is something */
void vnc_client_init_job(struct vnc_client *client);

#endif
