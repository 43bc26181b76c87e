/*
 * vnc_client.c - one viewer of VNC: the protocol (RFC 6143), its input, its updates
 *
 * Theory of operation. What comes is put into a buffer of a few hundred bytes and taken out in
 * whole messages; lists and texts of any length are passed by piece by piece. A viewer who
 * does not read is not read from. Nothing frees a viewer while its bytes are being looked at:
 * is_over says that it is to go.
 *
 * What changed on the screen is a byte for each tile. An update takes neighbouring tiles together,
 * copies their pixels, and has them packed by another thread; one is on its way at a time.
 *
 * Viewers say which characters were typed (keysyms), in any layout of their own. Those that are on
 * a US keyboard are typed as there, with Shift pressed or let go of if it has to be. Where a viewer
 * knows scan codes (QEMU's extension), the guest gets the key itself.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backends/display/keys.h"
#include "backends/display/vnc_internal.h"
#include "base/bytes.h"
#include "base/log.h"
#include "host/host.h"
#include "host/loop.h"
#include "trapeze/input.h"
#include "trapeze/machine.h"

#define HANDSHAKE_NS    (10 * NANOSECONDS_PER_SECOND)
#define WRONG_NS        NANOSECONDS_PER_SECOND /* what a wrong password costs */
#define IN_BYTES        512u
#define OUT_HIGH_BYTES  (64u << 10) /* with more to send nothing is read */
#define OUT_KEPT_BYTES  (1u << 20)
#define MAX_RECTS       1000u
#define MAX_HELD        32u
#define KEYSYM_ALTGR    0xfe03u
#define KEYSYM_MODE     0xff7eu
#define SECURITY_NONE   1u
#define SECURITY_VNC    2u
#define SECURITY_CRYPT  19u
#define CRYPT_X509_NONE 260u
#define CRYPT_X509_VNC  261u

enum state {
    STATE_VERSION,
    STATE_SECURITY,
    STATE_CRYPT_VERSION,
    STATE_CRYPT_SUBTYPE,
    STATE_TLS,
    STATE_PASSWORD,
    STATE_INIT,
    STATE_NORMAL,
    STATE_WRONG, /* a wrong password, which it will hear of */
};

enum {
    ENCODING_DESKTOP_SIZE = -223,
    ENCODING_CURSOR = -239,
    ENCODING_POINTER_CHANGE = -257,
    ENCODING_SCAN_CODES = -258,
};

struct held {
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
    enum state state;
    bool is_over, is_closed;
    unsigned minor; /* of the protocol's version: 3, 7 or 8 */
    uint8_t challenge[VNC_CHALLENGE];

    uint8_t in[IN_BYTES];
    size_t in_size;
    uint32_t skip_bytes, encodings_left;
    struct vnc_buffer out;

    struct vnc_format format;
    enum vnc_encoding encoding;
    bool has_encoding, takes_size, takes_cursor, takes_pointer_change, takes_scan_codes;
    bool has_told_scan_codes, told_relative;

    uint32_t width, height, columns, rows;
    uint8_t *tiles; /* changed, since they were sent */
    bool has_changes, wants_update;
    uint64_t cursor_number;
    struct vnc_job job;
    bool is_encoding;

    struct held held[MAX_HELD];
    uint8_t down[32];
    unsigned buttons;
};

static struct input *input_of(const struct vnc_client *client)
{
    return machine_input(client->vnc->machine);
}

static size_t queued(const struct vnc_client *client)
{
    return client->out.end - client->out.start;
}

struct vnc_client *vnc_client_next(const struct vnc_client *client)
{
    return client->next;
}

bool vnc_client_looks(const struct vnc_client *client)
{
    return client->state == STATE_NORMAL && !client->is_closed;
}

bool vnc_client_encodes(const struct vnc_client *client)
{
    return client->is_encoding;
}

/* For an update, which it has room for. */
static bool waits(const struct vnc_client *client)
{
    return vnc_client_looks(client) && client->wants_update && !client->is_encoding &&
           !queued(client);
}

/* ---- keys and pointer ---- */

static bool is_down(const struct vnc_client *client, uint8_t usage)
{
    return client->down[usage / 8] >> usage % 8 & 1;
}

static void press(struct vnc_client *client, uint8_t usage, bool pressed)
{
    uint8_t bit = (uint8_t)(1u << usage % 8);

    if (is_down(client, usage) == pressed)
        return; /* the guest's keyboard repeats by itself */
    client->down[usage / 8] ^= bit;
    input_key(input_of(client), usage, pressed);
}

static void release_all(struct vnc_client *client)
{
    for (unsigned usage = 0; usage < 256; usage++)
        press(client, (uint8_t)usage, false);
    memset(client->held, 0, sizeof(client->held));
    if (client->buttons)
        input_buttons(input_of(client), 0);
    client->buttons = 0;
}

/* A shortcut: the viewer's keys are meant as they are. */
static bool has_command_key(const struct vnc_client *client)
{
    return client->down[0xe0 / 8] & ~(1u << KEY_LEFT_SHIFT % 8 | 1u << KEY_RIGHT_SHIFT % 8);
}

static void press_stroke(struct vnc_client *client, const struct key_stroke *stroke)
{
    bool left = is_down(client, KEY_LEFT_SHIFT), right = is_down(client, KEY_RIGHT_SHIFT);
    bool caps = input_leds(input_of(client)) & INPUT_LED_CAPS;
    bool shift = stroke->shift == KEY_SHIFT_DOWN ||
                 stroke->shift == (caps ? KEY_SHIFT_LOWER : KEY_SHIFT_UPPER);

    if (stroke->shift == KEY_SHIFT_ANY || has_command_key(client) || shift == (left || right)) {
        press(client, stroke->usage, true);
        return;
    }
    press(client, KEY_LEFT_SHIFT, shift);
    press(client, KEY_RIGHT_SHIFT, false);
    press(client, stroke->usage, true);
    press(client, KEY_LEFT_SHIFT, left);
    press(client, KEY_RIGHT_SHIFT, right);
}

static struct held *find_held(struct vnc_client *client, uint32_t keysym)
{
    for (struct held *held = client->held; held < client->held + MAX_HELD; held++)
        if (held->usage && held->keysym == keysym)
            return held;
    return NULL;
}

static void hold(struct vnc_client *client, uint32_t keysym, uint8_t usage)
{
    for (struct held *held = client->held; held < client->held + MAX_HELD; held++)
        if (!held->usage) {
            *held = (struct held){keysym, usage};
            return;
        }
}

static void key_event(struct vnc_client *client, uint32_t keysym, bool pressed)
{
    struct held *held = find_held(client, keysym);
    struct key_stroke stroke;

    if (keysym == KEYSYM_ALTGR || keysym == KEYSYM_MODE)
        return; /* it chose the character, which comes */
    if (held && !pressed) {
        press(client, held->usage, false);
        held->usage = 0;
    } else if (!held && key_of_keysym(keysym, &stroke)) {
        if (!pressed) {
            press(client, stroke.usage, false);
            return;
        }
        press_stroke(client, &stroke);
        hold(client, keysym, stroke.usage);
    }
}

static unsigned map_buttons(unsigned mask)
{
    return (mask & 1 ? INPUT_BUTTON_LEFT : 0) | (mask & 2 ? INPUT_BUTTON_MIDDLE : 0) |
           (mask & 4 ? INPUT_BUTTON_RIGHT : 0) | (mask & 0x80 ? INPUT_BUTTON_SIDE : 0);
}

static void pointer_event(struct vnc_client *client, unsigned mask, uint32_t x, uint32_t y)
{
    struct input *input = input_of(client);
    unsigned pressed = mask & ~client->buttons;

    if (client->told_relative)
        input_pointer_moved(input, (int32_t)x - 0x7fff, (int32_t)y - 0x7fff);
    else
        input_pointer_at(input, x < client->width ? x : client->width - 1,
                         y < client->height ? y : client->height - 1, client->width,
                         client->height);
    if (map_buttons(mask) != map_buttons(client->buttons))
        input_buttons(input, map_buttons(mask));
    if (pressed & 0x18)
        input_wheel(input, pressed & 8 ? 1 : -1, 0);
    if (pressed & 0x60)
        input_wheel(input, 0, pressed & 0x40 ? 1 : -1);
    client->buttons = mask;
}

/* ---- what changed ---- */

static bool set_size(struct vnc_client *client, uint32_t width, uint32_t height)
{
    uint32_t columns = (width + VNC_TILE_WIDTH - 1) / VNC_TILE_WIDTH;
    uint32_t rows = (height + VNC_TILE_HEIGHT - 1) / VNC_TILE_HEIGHT;
    uint8_t *tiles = realloc(client->tiles, (size_t)columns * rows);

    if (!tiles)
        return false;
    client->tiles = tiles;
    client->columns = columns;
    client->rows = rows;
    client->width = width;
    client->height = height;
    client->has_changes = true;
    memset(tiles, 1, (size_t)columns * rows);
    return true;
}

void vnc_client_changed(struct vnc_client *client, const struct screen_rect *rect)
{
    uint32_t right = (rect->x + rect->width - 1) / VNC_TILE_WIDTH;
    uint32_t bottom = (rect->y + rect->height - 1) / VNC_TILE_HEIGHT;

    for (uint32_t row = rect->y / VNC_TILE_HEIGHT; row <= bottom && row < client->rows; row++)
        for (uint32_t column = rect->x / VNC_TILE_WIDTH;
             column <= right && column < client->columns; column++)
            client->tiles[(size_t)row * client->columns + column] = 1;
    client->has_changes |= client->rows > 0;
}

void vnc_client_resized(struct vnc_client *client)
{
    if (client->tiles)
        memset(client->tiles, 1, (size_t)client->columns * client->rows);
    client->has_changes = true;
}

/* ---- updates ---- */

static void put_rect(struct vnc_buffer *out, const struct screen_rect *rect, int32_t encoding)
{
    uint8_t head[12];

    put_be16(head, rect->x);
    put_be16(head + 2, rect->y);
    put_be16(head + 4, rect->width);
    put_be16(head + 6, rect->height);
    put_be32(head + 8, (uint32_t)encoding);
    vnc_buffer_put(out, head, sizeof(head));
}

/* Pixels, then a bit for each of those that are seen; rows begin at bytes. */
static void put_cursor(struct vnc_buffer *out, const struct vnc_format *format,
                       const struct screen_cursor *cursor)
{
    const struct screen_rect rect = {cursor->hot_x, cursor->hot_y, cursor->width, cursor->height};
    uint32_t mask_stride = (cursor->width + 7) / 8;
    uint8_t *to, *mask;

    put_rect(out, &rect, ENCODING_CURSOR);
    to = vnc_buffer_add(out, (size_t)cursor->width * cursor->height * format->bytes +
                                 (size_t)mask_stride * cursor->height);
    if (!to)
        return;
    mask = to + (size_t)cursor->width * cursor->height * format->bytes;
    memset(mask, 0, (size_t)mask_stride * cursor->height);
    for (uint32_t y = 0; y < cursor->height; y++)
        for (uint32_t x = 0; x < cursor->width; x++) {
            uint32_t pixel = cursor->pixels[(size_t)y * cursor->width + x];

            to = vnc_put_pixel(format, to, pixel);
            if (pixel >> 31)
                mask[(size_t)y * mask_stride + x / 8] |= (uint8_t)(0x80 >> x % 8);
        }
}

/* What is no pixels. Returns how many rectangles it makes. */
static unsigned put_news(struct vnc_client *client, struct vnc_buffer *out)
{
    const struct screen_rect none = {0};
    bool relative = !input_has_absolute(input_of(client));
    unsigned count = 0;

    if (client->takes_scan_codes && !client->has_told_scan_codes) {
        put_rect(out, &none, ENCODING_SCAN_CODES);
        client->has_told_scan_codes = true;
        count++;
    }
    if (client->takes_pointer_change && client->told_relative != relative) {
        const struct screen_rect kind = {!relative, 0, client->width, client->height};

        put_rect(out, &kind, ENCODING_POINTER_CHANGE);
        client->told_relative = relative;
        count++;
    }
    if (client->takes_cursor && client->vnc->cursor &&
        client->cursor_number != client->vnc->cursor_number) {
        put_cursor(out, &client->format, client->vnc->cursor);
        client->cursor_number = client->vnc->cursor_number;
        count++;
    }
    return count;
}

/* Room for one more, and for its pixels. */
static bool reserve(struct vnc_job *job, size_t pixels)
{
    if (job->rect_count == job->rect_capacity) {
        size_t capacity = job->rect_capacity * 2 + 16;
        struct screen_rect *grown = realloc(job->rects, capacity * sizeof(*grown));

        if (!grown)
            return false;
        job->rects = grown;
        job->rect_capacity = capacity;
    }
    if (job->pixel_count + pixels > job->pixel_capacity) {
        size_t capacity = job->pixel_count + pixels;
        uint32_t *grown;

        capacity += capacity / 2;
        grown = realloc(job->pixels, capacity * sizeof(*grown));
        if (!grown)
            return false;
        job->pixels = grown;
        job->pixel_capacity = capacity;
    }
    return true;
}

static void add_rect(struct vnc_client *client, uint32_t column, uint32_t row, uint32_t count,
                     uint32_t rows)
{
    const struct screen_surface *surface = &client->vnc->surface;
    uint32_t x = column * VNC_TILE_WIDTH, y = row * VNC_TILE_HEIGHT;
    uint32_t right = client->width < surface->width ? client->width : surface->width;
    uint32_t bottom = client->height < surface->height ? client->height : surface->height;
    struct vnc_job *job = &client->job;
    struct screen_rect rect = {x, y, count * VNC_TILE_WIDTH, rows * VNC_TILE_HEIGHT};

    if (x >= right || y >= bottom)
        return; /* a viewer that keeps its size, of a screen that is smaller now */
    rect.width = rect.width < right - x ? rect.width : right - x;
    rect.height = rect.height < bottom - y ? rect.height : bottom - y;
    if (!reserve(job, (size_t)rect.width * rect.height)) {
        client->is_over = true;
        return;
    }
    job->rects[job->rect_count++] = rect;
    for (uint32_t n = 0; n < rect.height; n++) {
        memcpy(job->pixels + job->pixel_count,
               surface->pixels + (size_t)(y + n) * surface->stride + x,
               rect.width * sizeof(uint32_t));
        job->pixel_count += rect.width;
    }
}

static bool all_are(const uint8_t *tiles, uint32_t count)
{
    return memchr(tiles, 0, count) == NULL;
}

/* The tiles that changed, as few rectangles: to the right as far as it goes, then down. */
static void collect(struct vnc_client *client)
{
    for (uint32_t row = 0; row < client->rows; row++)
        for (uint32_t column = 0; column < client->columns; column++) {
            uint8_t *tile = client->tiles + (size_t)row * client->columns + column;
            uint32_t count = 0, rows = 1;

            if (!*tile)
                continue;
            if (client->job.rect_count == MAX_RECTS || client->job.pixel_count >= VNC_UPDATE_PIXELS)
                return; /* the next update has the rest */
            while (column + count < client->columns && tile[count])
                count++;
            while (row + rows < client->rows &&
                   (size_t)rows * VNC_TILE_HEIGHT * count * VNC_TILE_WIDTH < VNC_UPDATE_PIXELS &&
                   all_are(tile + (size_t)rows * client->columns, count))
                rows++;
            for (uint32_t n = 0; n < rows; n++)
                memset(tile + (size_t)n * client->columns, 0, count);
            add_rect(client, column, row, count, rows);
            column += count - 1;
        }
    client->has_changes = false;
}

static void flush(struct vnc_client *client);

static void run_job(struct work *work)
{
    vnc_encode((struct vnc_job *)work);
}

static void job_done(struct work *work)
{
    struct vnc_job *job = (struct vnc_job *)work;
    struct vnc_client *client = job->client;
    struct vnc_buffer sent = client->out;

    client->is_encoding = false;
    client->out = job->out;
    job->out = sent;
    job->out.start = job->out.end = 0;
    client->is_over |= client->out.failed;
    if (client->is_closed)
        vnc_client_free(client);
    else
        vnc_client_settle(client);
}

static void send_new_size(struct vnc_client *client)
{
    const struct screen_surface *surface = &client->vnc->surface;
    const uint8_t head[4] = {0, 0, 0, 1};
    struct screen_rect all = {0, 0, surface->width, surface->height};

    client->is_over |= !set_size(client, surface->width, surface->height);
    client->wants_update = false;
    vnc_buffer_put(&client->out, head, sizeof(head));
    put_rect(&client->out, &all, ENCODING_DESKTOP_SIZE);
    flush(client);
}

static void update(struct vnc_client *client)
{
    const struct screen_surface *surface = &client->vnc->surface;
    struct vnc_job *job = &client->job;
    uint8_t head[4] = {0};
    unsigned news;

    if (!waits(client) || client->is_over || !surface->pixels)
        return;
    if (client->takes_size &&
        (surface->width != client->width || surface->height != client->height)) {
        send_new_size(client);
        return;
    }
    job->out.start = job->out.end = 0;
    vnc_buffer_put(&job->out, head, sizeof(head));
    news = put_news(client, &job->out);
    job->rect_count = job->pixel_count = 0;
    if (client->has_changes)
        collect(client);
    if ((!news && !job->rect_count) || client->is_over || job->out.failed)
        return;
    put_be16(job->out.bytes + 2, (uint32_t)(news + job->rect_count));
    job->encoding = client->encoding;
    job->format = client->format;
    client->wants_update = false;
    client->is_encoding = true;
    work_submit(client->vnc->pool, &job->work);
}

/* ---- the end ---- */

void vnc_client_free(struct vnc_client *client)
{
    struct vnc_client **link = &client->vnc->clients;

    while (*link != client)
        link = &(*link)->next;
    *link = client->next;
    client->vnc->client_count--;
    vnc_tls_end(client->tls);
    loop_remove_fd(client->handler);
    if (client->fd >= 0)
        close(client->fd);
    timer_done(&client->deadline);
    vnc_job_free(&client->job);
    vnc_buffer_free(&client->out);
    free(client->tiles);
    free(client);
}

/* An update that is on its way ends before it is freed. */
static void end(struct vnc_client *client)
{
    struct vnc *vnc = client->vnc;

    log_debug("vnc: a viewer has gone");
    release_all(client);
    client->is_closed = true;
    vnc_tls_end(client->tls);
    client->tls = NULL;
    loop_remove_fd(client->handler);
    client->handler = NULL;
    close(client->fd);
    client->fd = -1;
    timer_cancel(&client->deadline);
    if (!client->is_encoding)
        vnc_client_free(client);
    vnc_unwatch(vnc);
}

/* ---- sending ---- */

static void flush(struct vnc_client *client)
{
    struct vnc_buffer *out = &client->out;

    client->is_over |= out->failed;
    while (queued(client) && !client->is_over) {
        ssize_t n = client->tls
                        ? vnc_tls_write(client->tls, out->bytes + out->start, queued(client))
                        : send(client->fd, out->bytes + out->start, queued(client), MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            client->is_over = errno != EAGAIN && errno != EWOULDBLOCK;
            return;
        }
        out->start += (size_t)n;
    }
    if (out->capacity > OUT_KEPT_BYTES)
        vnc_buffer_free(out);
    out->start = out->end = 0;
}

static void send_bytes(struct vnc_client *client, const void *bytes, size_t size)
{
    vnc_buffer_put(&client->out, bytes, size);
}

static void send_be32(struct vnc_client *client, uint32_t value)
{
    uint8_t bytes[4];

    put_be32(bytes, value);
    send_bytes(client, bytes, sizeof(bytes));
}

/* ---- the handshake: each takes a whole message, and returns its size; 0: not all is there ---- */

static void start_password(struct vnc_client *client)
{
    host_random(client->challenge, sizeof(client->challenge));
    send_bytes(client, client->challenge, sizeof(client->challenge));
    client->state = STATE_PASSWORD;
}

static void let_in(struct vnc_client *client, bool had_password)
{
    if (had_password || client->minor >= 8)
        send_be32(client, 0);
    client->state = STATE_INIT;
}

static void start_security(struct vnc_client *client, unsigned type)
{
    if (type == SECURITY_CRYPT) {
        send_bytes(client, "\0\2", 2);
        client->state = STATE_CRYPT_VERSION;
    } else if (type == SECURITY_VNC) {
        start_password(client);
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
        send_be32(client, types[1]);
        start_security(client, types[1]);
    } else {
        send_bytes(client, types, sizeof(types));
        client->state = STATE_SECURITY;
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
    send_bytes(client, "\0\1", 2); /* fine; one subtype */
    send_be32(client, crypt_subtype(client->vnc));
    client->state = STATE_CRYPT_SUBTYPE;
    return 2;
}

static size_t take_crypt_subtype(struct vnc_client *client)
{
    if (client->in_size < 4)
        return 0;
    client->is_over = get_be32(client->in) != crypt_subtype(client->vnc) || client->in_size > 4;
    send_bytes(client, "\1", 1);
    flush(client);
    if (queued(client) || client->is_over) {
        client->is_over = true;
        return 4;
    }
    client->tls = vnc_tls_start(client->vnc->tls, client->fd);
    client->is_over = !client->tls;
    client->state = STATE_TLS;
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
    client->state = STATE_WRONG;
    timer_arm(&client->deadline, clock_now_ns(client->deadline.clocks, CLOCK_ID_HOST) + WRONG_NS);
    return VNC_CHALLENGE;
}

static void tell_wrong(struct vnc_client *client)
{
    static const char why[] = "the password is wrong";

    log_warn("vnc: a viewer had a wrong password");
    send_be32(client, 1);
    if (client->minor >= 8) {
        send_be32(client, sizeof(why) - 1);
        send_bytes(client, why, sizeof(why) - 1);
    }
    flush(client);
}

/* Whether it wants to be the only one is not asked: all can look. */
static size_t take_init(struct vnc_client *client)
{
    struct vnc *vnc = client->vnc;
    struct error err = {0};
    uint8_t head[4];

    client->is_over =
        vnc_watch(vnc, &err) || !set_size(client, vnc->surface.width, vnc->surface.height);
    if (client->is_over) {
        log_warn("vnc: %s", err.code ? err.text : "out of memory");
        return 1;
    }
    client->state = STATE_NORMAL;
    timer_cancel(&client->deadline);
    put_be16(head, client->width);
    put_be16(head + 2, client->height);
    send_bytes(client, head, sizeof(head));
    send_bytes(client, vnc_format_default, VNC_FORMAT_BYTES);
    send_be32(client, (uint32_t)strlen(vnc->name));
    send_bytes(client, vnc->name, strlen(vnc->name));
    log_debug("vnc: a viewer looks");
    return 1;
}

/* ---- messages of a viewer ---- */

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
    client->has_encoding = client->takes_size = client->takes_cursor = false;
    client->takes_pointer_change = client->takes_scan_codes = false;
    return 4;
}

/* The first that is known is the one that it likes best. */
static size_t take_encoding(struct vnc_client *client)
{
    int32_t encoding = (int32_t)get_be32(client->in);

    if (client->in_size < 4)
        return 0;
    client->encodings_left--;
    if ((encoding == VNC_RAW || encoding == VNC_ZRLE) && !client->has_encoding) {
        client->encoding = (enum vnc_encoding)encoding;
        client->has_encoding = true;
    }
    client->takes_size |= encoding == ENCODING_DESKTOP_SIZE;
    client->takes_cursor |= encoding == ENCODING_CURSOR;
    client->takes_pointer_change |= encoding == ENCODING_POINTER_CHANGE;
    client->takes_scan_codes |= encoding == ENCODING_SCAN_CODES;
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
    key_event(client, get_be32(client->in + 4), client->in[1] != 0);
    return 8;
}

static size_t take_pointer(struct vnc_client *client)
{
    if (client->in_size < 6)
        return 0;
    pointer_event(client, client->in[1], get_be16(client->in + 2), get_be16(client->in + 4));
    return 6;
}

/* There is nobody in the guest to give it to. The longer form has a negative length. */
static size_t take_cut_text(struct vnc_client *client)
{
    uint32_t length = get_be32(client->in + 4);

    if (client->in_size < 8)
        return 0;
    client->skip_bytes = length >> 31 ? 0u - length : length;
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
        press(client, usage, get_be16(client->in + 2) != 0);
    return 12;
}

static size_t take_message(struct vnc_client *client)
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
    case 255:
        return take_scan_code(client);
    default:
        client->is_over = true;
        return 1;
    }
}

static size_t take(struct vnc_client *client)
{
    switch (client->state) {
    case STATE_VERSION:
        return take_version(client);
    case STATE_SECURITY:
        return take_security(client);
    case STATE_CRYPT_VERSION:
        return take_crypt_version(client);
    case STATE_CRYPT_SUBTYPE:
        return take_crypt_subtype(client);
    case STATE_PASSWORD:
        return take_password(client);
    case STATE_INIT:
        return take_init(client);
    case STATE_NORMAL:
        return take_message(client);
    case STATE_TLS:
    case STATE_WRONG:
        break;
    }
    return 0;
}

/* ---- receiving ---- */

static void drop(struct vnc_client *client, size_t size)
{
    client->in_size -= size;
    memmove(client->in, client->in + size, client->in_size);
}

static void take_all(struct vnc_client *client)
{
    while (client->in_size && !client->is_over) {
        size_t size;

        if (client->skip_bytes) {
            size = client->in_size < client->skip_bytes ? client->in_size : client->skip_bytes;
            client->skip_bytes -= (uint32_t)size;
        } else {
            size = take(client);
        }
        if (!size)
            return;
        drop(client, size);
    }
}

static void receive(struct vnc_client *client)
{
    do {
        uint8_t *to = client->in + client->in_size;
        size_t room = sizeof(client->in) - client->in_size;
        ssize_t n =
            client->tls ? vnc_tls_read(client->tls, to, room) : recv(client->fd, to, room, 0);

        if (n < 0) {
            client->is_over |= errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR;
            return;
        }
        client->is_over |= n == 0;
        client->in_size += (size_t)n;
        take_all(client);
    } while (client->tls && client->state != STATE_TLS && client->state != STATE_WRONG &&
             !client->is_over && vnc_tls_has_more(client->tls));
}

static void shake_hands(struct vnc_client *client)
{
    bool writes;
    int done = vnc_tls_handshake(client->tls, &writes);

    loop_set_events(client->handler, writes ? LOOP_WRITE : LOOP_READ);
    if (done < 0)
        client->is_over = true;
    if (done <= 0)
        return;
    if (client->vnc->has_password)
        start_password(client);
    else
        let_in(client, false);
}

void vnc_client_settle(struct vnc_client *client)
{
    if (client->is_closed)
        return;
    if (client->state != STATE_TLS)
        flush(client);
    update(client);
    if (client->is_over) {
        end(client);
        return;
    }
    if (waits(client))
        vnc_want_refresh(client->vnc);
    if (client->state != STATE_TLS)
        loop_set_events(
            client->handler,
            (queued(client) < OUT_HIGH_BYTES && client->state != STATE_WRONG ? LOOP_READ : 0) |
                (queued(client) ? LOOP_WRITE : 0));
}

static void on_ready(void *opaque, unsigned events)
{
    struct vnc_client *client = opaque;

    if (client->state == STATE_TLS)
        shake_hands(client);
    else if (client->state == STATE_WRONG)
        client->is_over = events & LOOP_HANGUP; /* nothing else is waited for */
    else if (events & (LOOP_READ | LOOP_HANGUP))
        receive(client);
    vnc_client_settle(client);
}

static void on_deadline(void *opaque)
{
    struct vnc_client *client = opaque;

    if (client->state == STATE_WRONG)
        tell_wrong(client);
    end(client);
}

void vnc_client_new(struct vnc *vnc, int fd)
{
    struct vnc_client *client = calloc(1, sizeof(*client));
    struct error err = {0};

    if (client)
        client->handler =
            loop_add_fd(machine_loop(vnc->machine), fd, LOOP_READ, on_ready, client, &err);
    if (!client || !client->handler) {
        free(client);
        close(fd);
        return;
    }
    client->vnc = vnc;
    client->fd = fd;
    client->next = vnc->clients;
    vnc->clients = client;
    vnc->client_count++;
    client->job.client = client;
    client->job.work = (struct work){.run = run_job, .done = job_done};
    vnc_format_set(&client->format, vnc_format_default);
    timer_init(&client->deadline, machine_clocks(vnc->machine), CLOCK_ID_HOST, on_deadline, client);
    timer_arm(&client->deadline,
              clock_now_ns(client->deadline.clocks, CLOCK_ID_HOST) + HANDSHAKE_NS);
    send_bytes(client, "RFB 003.008\n", 12);
    vnc_client_settle(client);
}
