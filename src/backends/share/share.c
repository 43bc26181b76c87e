/*
 * share.c - the machine's side of a share: a process to be started, requests to be handed over
 *
 * What the process answers is not trusted: it may be the guest's by now.
 */
#include "trapeze/share.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backends/share/process.h"
#include "base/bytes.h"
#include "base/log.h"
#include "base/pieces.h"
#include "host/host.h"
#include "host/loop.h"
#include "trapeze/memory.h"

#define LITTLE_NS 50000 /* share_wait_a_little() */

struct share {
    /* properties */
    char *folder, *tag;
    bool readonly;

    int socket;
    bool has_ended; /* the process, or what it says makes no sense */
    pid_t process;
    struct loop_fd *handler;
    struct memory *memory;
    struct share_request *requests[SHARE_MAX_REQUESTS]; /* handed over, by slot */
    struct share_request *waiting, **last_waiting;      /* while the socket is full */
    unsigned under_way;                                 /* in both */
    bool has_messages;                                  /* since the last share_forget() */
    struct share_packet packet;
};

const struct property share_properties[] = {
    PROPERTY_STRING(struct share, folder, NULL, "the folder"),
    PROPERTY_STRING(struct share, tag, NULL, "by which the guest mounts it, up to 32 characters"),
    PROPERTY_BOOL(struct share, readonly, false, "the guest changes nothing"),
    PROPERTY_END,
};

/* ---- answers ---- */

static void finish(struct share *share, struct share_request *request, int64_t answer_bytes)
{
    share->under_way--;
    request->done(request, answer_bytes);
}

/* Everything ends, and nothing is begun any more. */
static void give_up(struct share *share)
{
    struct share_request *request;

    share->has_ended = true;
    log_error("share %s: its server has ended; the guest's requests fail from now on", share->tag);
    loop_set_events(share->handler, 0);
    for (unsigned n = 0; n < SHARE_MAX_REQUESTS; n++) {
        request = share->requests[n];
        share->requests[n] = NULL;
        if (request)
            finish(share, request, -EIO);
    }
    while ((request = share->waiting)) {
        share->waiting = request->next;
        finish(share, request, -EIO);
    }
    share->last_waiting = &share->waiting;
}

static uint64_t bytes_for_answer(const struct share_request *request)
{
    return request->in_count ? pieces_bytes(request->pieces + request->out_count, request->in_count)
                             : 0;
}

static void take_answer(struct share *share, const struct share_answer *answer)
{
    struct share_request *request =
        answer->slot < SHARE_MAX_REQUESTS ? share->requests[answer->slot] : NULL;

    if (!request || answer->bytes > bytes_for_answer(request)) {
        give_up(share);
        return;
    }
    share->requests[answer->slot] = NULL;
    finish(share, request, answer->bytes);
}

/* All that have come. */
static void take_answers(struct share *share)
{
    while (!share->has_ended) {
        struct share_answer answer;
        ssize_t size = recv(share->socket, &answer, sizeof(answer), MSG_DONTWAIT);

        if (size < 0 && errno == EAGAIN)
            return;
        if (size == sizeof(answer))
            take_answer(share, &answer);
        else
            give_up(share);
    }
}

/* ---- requests ---- */

static int find_slot(const struct share *share)
{
    for (unsigned n = 0; n < SHARE_MAX_REQUESTS; n++)
        if (!share->requests[n])
            return (int)n;
    return -1;
}

/* False: not now. */
static bool hand_over(struct share *share, struct share_request *request)
{
    struct share_packet *packet = &share->packet;
    unsigned pieces = request->out_count + request->in_count;
    int slot = find_slot(share);

    if (slot < 0)
        return false;
    *packet = (struct share_packet){.kind = SHARE_MESSAGE,
                                    .slot = (uint32_t)slot,
                                    .out_count = request->out_count,
                                    .in_count = request->in_count};
    for (unsigned n = 0; n < pieces; n++) {
        packet->pieces[n].offset =
            (uint64_t)((uint8_t *)request->pieces[n].data - memory_ram_hva(share->memory));
        packet->pieces[n].size_bytes = request->pieces[n].size_bytes;
    }
    if (send(share->socket, packet, share_packet_bytes(pieces), MSG_DONTWAIT | MSG_NOSIGNAL) < 0 &&
        errno == EAGAIN)
        return false;
    share->requests[slot] = request; /* if the process has ended, the loop will see that */
    return true;
}

static void hand_over_waiting(struct share *share)
{
    while (share->waiting) {
        struct share_request *request = share->waiting, *next = request->next;

        if (!hand_over(share, request))
            break;
        share->waiting = next;
        if (!next)
            share->last_waiting = &share->waiting;
    }
    loop_set_events(share->handler, LOOP_READ | (share->waiting ? LOOP_WRITE : 0));
}

static void on_socket(void *opaque, unsigned events)
{
    struct share *share = opaque;

    (void)events;
    take_answers(share);
    if (share->waiting)
        hand_over_waiting(share);
}

/* What a display shows is memory, too, but not the server's. */
static bool is_in_ram(const struct share *share, const struct share_request *request)
{
    const uint8_t *ram = memory_ram_hva(share->memory);
    uint64_t bytes = memory_ram_size_bytes(share->memory);

    for (unsigned n = 0; n < request->out_count + request->in_count; n++) {
        const struct io_piece *piece = &request->pieces[n];

        if (!range_fits((uint64_t)((uint8_t *)piece->data - ram), piece->size_bytes, bytes))
            return false;
    }
    return true;
}

void share_submit(struct share *share, struct share_request *request)
{
    share->under_way++;
    share->has_messages = true;
    if (share->has_ended || !is_in_ram(share, request)) {
        finish(share, request, -EIO);
        return;
    }
    request->next = NULL;
    if (!share->waiting && hand_over(share, request))
        return;
    *share->last_waiting = request;
    share->last_waiting = &request->next;
    loop_set_events(share->handler, LOOP_READ | LOOP_WRITE);
}

void share_drain(struct share *share)
{
    while (share->under_way) {
        struct pollfd ready = {.fd = share->socket,
                               .events = (short)(POLLIN | (share->waiting ? POLLOUT : 0))};

        poll(&ready, 1, -1);
        on_socket(share, 0);
    }
}

void share_wait_a_little(struct share *share)
{
    struct pollfd ready = {.fd = share->socket, .events = POLLIN};
    struct timespec most = {.tv_nsec = LITTLE_NS};

    if (share->under_way && !share->has_ended && ppoll(&ready, 1, &most, NULL) > 0)
        on_socket(share, 0);
}

static void forgotten(struct share_request *request, int64_t answer_bytes)
{
    (void)request;
    (void)answer_bytes;
}

void share_forget(struct share *share)
{
    struct share_request request = {.done = forgotten};
    struct share_packet packet = {.kind = SHARE_FORGET};

    if (!share->has_messages || share->has_ended)
        return;
    share->has_messages = false;
    share->requests[0] = &request;
    share->under_way++;
    send(share->socket, &packet, share_packet_bytes(0), MSG_NOSIGNAL);
    share_drain(share); /* which notices if it has ended */
}

/* ---- state ---- */

/* What comes next; -EPIPE: nothing any more. */
static int receive(struct share *share, void *out, size_t size, size_t at_least, size_t *out_bytes)
{
    ssize_t got = recv(share->socket, out, size, 0);

    if (got < (ssize_t)at_least || !got) {
        give_up(share);
        return -EPIPE;
    }
    *out_bytes = (size_t)got;
    return 0;
}

static int ask(struct share *share, enum share_kind kind, size_t size_bytes)
{
    struct share_packet packet = {.kind = kind, .out_count = kind == SHARE_LOAD};
    size_t size = share_packet_bytes(packet.out_count);

    packet.pieces[0].size_bytes = size_bytes;
    if (send(share->socket, &packet, size, MSG_NOSIGNAL) == (ssize_t)size)
        return 0;
    give_up(share);
    return -EPIPE;
}

static int save(struct share *share, struct state_buffer *out)
{
    struct share_answer answer;
    size_t size;

    if (ask(share, SHARE_SAVE, 0) || receive(share, &answer, sizeof(answer), sizeof(answer), &size))
        return -EPIPE;
    if (answer.bytes == SHARE_FAILED)
        return -ENOMEM;
    while (out->size_bytes < answer.bytes) {
        size_t left = answer.bytes - out->size_bytes;
        uint8_t *to = answer.bytes <= SHARE_MAX_STATE ? state_buffer_add(out, left) : NULL;

        if (!to || receive(share, to, left, 1, &size)) {
            if (!share->has_ended)
                give_up(share);
            return -EPIPE;
        }
        out->size_bytes -= left - size;
    }
    return 0;
}

int share_save(struct share *share, struct state_buffer *out, struct error *err)
{
    int result;

    share_drain(share);
    result = share->has_messages && !share->has_ended ? save(share, out) : 0;
    return result ? error_set(err, -result, "share %s: what is open cannot be saved: %s",
                              share->tag, strerror(-result))
                  : 0;
}

int share_load(struct share *share, const struct state_buffer *saved, struct error *err)
{
    struct share_answer answer = {0};
    size_t size;

    share_drain(share);
    share_forget(share);
    if (!saved->size_bytes || share->has_ended)
        return 0;
    share->has_messages = true;
    if (ask(share, SHARE_LOAD, saved->size_bytes))
        return error_set(err, EPIPE, "share %s: its server has ended", share->tag);
    for (size_t at = 0; at < saved->size_bytes; at += SHARE_CHUNK) {
        size_t left = saved->size_bytes - at;

        send(share->socket, saved->data + at, left < SHARE_CHUNK ? left : SHARE_CHUNK,
             MSG_NOSIGNAL); /* if it has ended there is no answer */
    }
    if (receive(share, &answer, sizeof(answer), sizeof(answer), &size))
        return error_set(err, EPIPE, "share %s: its server has ended", share->tag);
    return answer.bytes ? error_set(err, EINVAL, "share %s: it cannot have open what is saved: %s",
                                    share->tag, strerror((int)answer.bytes))
                        : 0;
}

/* ---- lifecycle ---- */

static int parse(struct share *share, const char *description, const char *tag, struct error *err)
{
    size_t size = strlen(description) + sizeof("folder=");
    char *text = malloc(size);
    int status;

    if (!text || properties_init(share_properties, share, err)) {
        free(text);
        return error_set(err, ENOMEM, "out of memory");
    }
    snprintf(text, size, "folder=%s", description);
    status = properties_parse(share_properties, share, text, err);
    free(text);
    if (!status && (!share->folder || !*share->folder))
        status = error_set(err, EINVAL, "which folder? Give DIR[,PROPERTY=VALUE]...");
    if (!status && !share->tag && !(share->tag = strdup(tag)))
        status = error_set(err, ENOMEM, "out of memory");
    if (!status && (!*share->tag || strlen(share->tag) > SHARE_MAX_TAG))
        status =
            error_set(err, EINVAL, "tag=%s: it has 1 to %u characters", share->tag, SHARE_MAX_TAG);
    return status;
}

struct start {
    const struct share *share;
    bool sandboxed;
};

static void run(int socket, void *opaque)
{
    const struct start *start = opaque;

    share_process(socket, start->share->folder, start->share->readonly, start->sandboxed);
}

static int start(struct share *share, bool sandboxed, struct error *err)
{
    struct start start = {share, sandboxed};

    share->process = host_process_start("share", run, &start, &share->socket, err);
    return share->process < 0 ? share->process : 0;
}

static int read_greeting(struct share *share, bool sandboxed, struct error *err)
{
    struct share_greeting greeting;

    if (recv(share->socket, &greeting, sizeof(greeting), 0) != sizeof(greeting))
        return error_set(err, EPIPE, "its server has ended");
    if (greeting.err.code)
        return error_set(err, greeting.err.code, "%s", greeting.err.text);
    if (sandboxed && !greeting.confinement)
        log_warn(
            "share %s: the kernel lets its server have neither Landlock nor a namespace of its "
            "own; what keeps it to the folder is its own care",
            share->tag);
    log_debug("share %s: Landlock %s, namespace %s", share->tag,
              greeting.confinement & HOST_CONFINE_FOLDER ? "yes" : "no",
              greeting.confinement & HOST_CONFINE_NAMESPACE ? "yes" : "no");
    return 0;
}

struct share *share_open(const char *description, const char *tag, bool sandboxed,
                         struct error *err)
{
    struct share *share = calloc(1, sizeof(*share));

    if (!share) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    share->socket = -1;
    share->last_waiting = &share->waiting;
    if (parse(share, description, tag, err) || start(share, sandboxed, err) ||
        read_greeting(share, sandboxed, err)) {
        share_free(share);
        return NULL;
    }
    return share;
}

void share_free(struct share *share)
{
    if (!share)
        return;
    loop_remove_fd(share->handler);
    if (share->socket >= 0)
        close(share->socket);
    if (share->process > 0)
        waitpid(share->process, NULL, 0);
    properties_done(share_properties, share);
    free(share);
}

const char *share_tag(const struct share *share)
{
    return share->tag;
}

static int send_ram(struct share *share, struct error *err)
{
    struct share_packet packet = {.kind = SHARE_RAM, .out_count = 1};

    packet.pieces[0].size_bytes = memory_ram_size_bytes(share->memory);
    if (host_send(share->socket, &packet, share_packet_bytes(1), memory_ram_fd(share->memory)) < 0)
        return error_set(err, errno, "share %s: its server has ended: %s", share->tag,
                         strerror(errno));
    return 0;
}

int share_connect(struct share *share, struct loop *loop, struct memory *memory, struct error *err)
{
    share->memory = memory;
    if (send_ram(share, err))
        return -EPIPE;
    share->handler = loop_add_fd(loop, share->socket, LOOP_READ, on_socket, share, err);
    return share->handler ? 0 : -ENOMEM;
}
