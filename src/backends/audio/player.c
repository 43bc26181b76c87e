/*
 * player.c - sound to a program that plays it, over a unix socket of whole packets
 *
 * It is not waited for: what it has no room for is lost. When it has ended, so has the sound.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/audio/internal.h"
#include "base/log.h"
#include "host/host.h"

#define OPEN_LIMIT_MS 10000

struct audio_sink {
    int socket; /* -1: nobody is there any more */
};

static int wait_for_hello(int socket, struct error *err)
{
    struct pollfd ready = {.fd = socket, .events = POLLIN};
    char text[256] = "";
    ptrdiff_t size = 0;
    int fd = -1;

    if (poll(&ready, 1, OPEN_LIMIT_MS) > 0)
        size = host_receive(socket, text, sizeof(text) - 1, false, &fd);
    if (fd >= 0)
        close(fd);
    if (size > 0 && !text[0])
        return 0;
    return error_set(err, EIO, "%s", size > 0 ? text : "the program that plays does not answer");
}

struct audio_sink *audio_player_open(int socket, struct error *err)
{
    struct audio_sink *s = wait_for_hello(socket, err) ? NULL : malloc(sizeof(*s));

    if (!s) {
        close(socket);
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    fcntl(socket, F_SETFL, O_NONBLOCK);
    s->socket = socket;
    return s;
}

static void player_write(struct audio_sink *s, const int16_t *samples, size_t frames)
{
    if (s->socket < 0 || host_send(s->socket, samples, frames * AUDIO_FRAME_BYTES, -1) >= 0 ||
        errno == EAGAIN || errno == ENOBUFS)
        return;
    log_warn("what played the sound is gone: %s", strerror(errno));
    close(s->socket);
    s->socket = -1;
}

static void player_close(struct audio_sink *s)
{
    if (s->socket >= 0)
        close(s->socket);
    free(s);
}

const struct audio_kind audio_player = {
    .name = "sdl",
    .summary = "the host's own devices",
    .write = player_write,
    .close = player_close,
};
