/*
 * nbd.c - a disk on another machine or in another process, by the NBD protocol through libnbd
 *
 * Theory of operation. One thread has the connection. execute() puts a call into its queue and
 * waits until it is done; the thread sends what is in the queue, polls, and ends what the server
 * has answered. When the server goes away, what was sent and not answered goes back into the
 * queue, and the thread connects again and again; calls wait so long, but not longer than
 * reconnect=SECONDS. To send a call twice does no harm: each says the whole of what shall be.
 *
 * Who wants to stop the machine sets *impatient: then calls that wait for a server that is away,
 * or that has not answered for a while, fail at once.
 */
#include <errno.h>
#include <libnbd.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "backends/block/internal.h"
#include "base/bytes.h"
#include "base/log.h"
#include "host/host.h"

#define MAX_DATA     (8u << 20)   /* of a call */
#define MAX_RANGE    (1u << 30)   /* of TRIM, ZERO and BLOCK_STATUS */
#define ZEROS        (256u << 10) /* written where the server cannot zero */
#define RETRY_NS     250000000ull
#define LOOK_MS      100 /* while something may become overdue */
#define IMPATIENT_NS 3000000000ull
#define OPEN_NS      30000000000ull
#define GOODBYE_NS   1000000000ull

struct call {
    enum { CALL_READ, CALL_WRITE, CALL_FLUSH, CALL_TRIM, CALL_ZERO, CALL_STATUS } kind;
    uint64_t offset, size_bytes;
    void *data;                  /* READ, WRITE */
    struct block_extent *extent; /* STATUS */
    int64_t cookie;
    int status;
    bool done;
    struct call *next;
};

struct nbd {
    struct block_node node;
    char *uri;
    uint64_t patience_ns;
    _Atomic bool *impatient; /* may be NULL */
    uint64_t size_bytes;     /* of the export */
    bool can_flush, can_trim, can_zero, can_map;

    struct host_thread *thread;
    int event_fd; /* the queue has something, or it is to end */
    struct host_mutex lock;
    struct host_cond changed; /* a call is done */
    struct call *queue, **queue_end;
    bool ending;

    /* The thread's. */
    struct nbd_handle *handle; /* NULL: the server is away */
    bool is_ready;             /* what is behind handle is what we had */
    struct call *sent, **sent_end;
    uint64_t retry_ns, away_ns, impatient_ns; /* monotonic; when to connect, since when */
};

static struct nbd *nbd_of(struct block_node *node)
{
    return (struct nbd *)node;
}

/* ---- connecting ---- */

static struct nbd_handle *new_handle(void)
{
    struct nbd_handle *h = nbd_create();

    if (h && (nbd_set_uri_allow_local_file(h, true) ||
              nbd_add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION))) {
        nbd_close(h);
        return NULL;
    }
    return h;
}

/* The connection is gone, or of no use: what was sent is to be sent again, before what waits. */
static void lose(struct nbd *nbd, const char *why)
{
    if (nbd->is_ready) {
        log_warn("%s: %s; connecting again", nbd->uri, why);
        nbd->away_ns = host_monotonic_ns();
    }
    nbd_close(nbd->handle);
    nbd->handle = NULL;
    nbd->is_ready = false;
    nbd->retry_ns = host_monotonic_ns() + RETRY_NS;
    host_mutex_lock(&nbd->lock);
    *nbd->sent_end = nbd->queue;
    if (nbd->sent_end != &nbd->sent && !nbd->queue)
        nbd->queue_end = nbd->sent_end;
    nbd->queue = nbd->sent;
    host_mutex_unlock(&nbd->lock);
    nbd->sent = NULL;
    nbd->sent_end = &nbd->sent;
}

static void start_to_connect(struct nbd *nbd)
{
    if (host_monotonic_ns() < nbd->retry_ns)
        return;
    nbd->handle = new_handle();
    if (nbd->handle && nbd_aio_connect_uri(nbd->handle, nbd->uri))
        lose(nbd, nbd_get_error());
}

/* Is it the disk that it was? */
static void check_new(struct nbd *nbd)
{
    if (!nbd_aio_is_ready(nbd->handle))
        return;
    if (nbd_get_size(nbd->handle) != (int64_t)nbd->size_bytes ||
        (nbd_is_read_only(nbd->handle) && !nbd->node.read_only)) {
        log_error("%s: the server has another disk now", nbd->uri);
        lose(nbd, "it has another disk");
        return;
    }
    nbd->is_ready = true;
    log_warn("%s: connected again", nbd->uri);
}

/* ---- calls, on the thread ---- */

static int on_extent(void *opaque, const char *context, uint64_t offset, uint32_t *entries,
                     size_t count, int *error)
{
    struct call *call = opaque;
    uint64_t size = count >= 2 ? entries[0] : 0;

    if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) || offset != call->offset || !size)
        return 0;
    *call->extent =
        (struct block_extent){.size_bytes = size < call->size_bytes ? size : call->size_bytes,
                              .is_zero = entries[1] & LIBNBD_STATE_ZERO};
    return 0;
}

static int64_t send_call(struct nbd *nbd, struct call *call)
{
    struct nbd_handle *h = nbd->handle;
    uint32_t hole = nbd->node.can_discard ? 0 : LIBNBD_CMD_FLAG_NO_HOLE;

    switch (call->kind) {
    case CALL_READ:
        return nbd_aio_pread(h, call->data, call->size_bytes, call->offset, NBD_NULL_COMPLETION, 0);
    case CALL_WRITE:
        return nbd_aio_pwrite(h, call->data, call->size_bytes, call->offset, NBD_NULL_COMPLETION,
                              0);
    case CALL_FLUSH:
        return nbd_aio_flush(h, NBD_NULL_COMPLETION, 0);
    case CALL_TRIM:
        return nbd_aio_trim(h, call->size_bytes, call->offset, NBD_NULL_COMPLETION, 0);
    case CALL_ZERO:
        return nbd_aio_zero(h, call->size_bytes, call->offset, NBD_NULL_COMPLETION, hole);
    default:
        return nbd_aio_block_status(h, call->size_bytes, call->offset,
                                    (nbd_extent_callback){.callback = on_extent, .user_data = call},
                                    NBD_NULL_COMPLETION, LIBNBD_CMD_FLAG_REQ_ONE);
    }
}

static void end_call(struct nbd *nbd, struct call *call, int status)
{
    host_mutex_lock(&nbd->lock);
    call->status = status;
    call->done = true;
    host_cond_broadcast(&nbd->changed);
    host_mutex_unlock(&nbd->lock);
}

static struct call *take_call(struct nbd *nbd)
{
    struct call *call;

    host_mutex_lock(&nbd->lock);
    call = nbd->queue;
    if (call) {
        nbd->queue = call->next;
        if (!nbd->queue)
            nbd->queue_end = &nbd->queue;
    }
    host_mutex_unlock(&nbd->lock);
    return call;
}

static void send_all(struct nbd *nbd)
{
    struct call *call;

    while (nbd->is_ready && (call = take_call(nbd))) {
        call->cookie = send_call(nbd, call);
        if (call->cookie < 0 && nbd_aio_is_ready(nbd->handle)) {
            end_call(nbd, call, -nbd_get_errno()); /* it is not what the server takes */
            continue;
        }
        call->next = NULL;
        *nbd->sent_end = call;
        nbd->sent_end = &call->next;
        if (call->cookie < 0)
            lose(nbd, nbd_get_error());
    }
}

static bool is_lost(const struct nbd *nbd)
{
    return nbd_aio_is_dead(nbd->handle) || nbd_aio_is_closed(nbd->handle);
}

/* A server that is being shut down says so; another may follow. */
static bool is_going(int error)
{
    return error == ESHUTDOWN || error == ENOTCONN;
}

static void end_answered(struct nbd *nbd)
{
    struct call **link = &nbd->sent;
    bool going = false;

    while (*link) {
        struct call *call = *link;
        int result = nbd_aio_command_completed(nbd->handle, (uint64_t)call->cookie);
        int error = result < 0 ? nbd_get_errno() : 0;

        going |= is_going(error);
        if (!result || (error && (going || is_lost(nbd)))) {
            link = &call->next;
            continue;
        }
        *link = call->next;
        end_call(nbd, call, -error);
    }
    nbd->sent_end = link;
    if (going || is_lost(nbd))
        lose(nbd, is_lost(nbd) ? "the server is gone" : "the server is going");
}

/* ---- the thread ---- */

static bool is_ending(struct nbd *nbd)
{
    bool ending;

    host_mutex_lock(&nbd->lock);
    ending = nbd->ending;
    host_mutex_unlock(&nbd->lock);
    return ending;
}

/* Somebody wants to stop, and the server has not answered for a while, or is away. */
static void look_at_patience(struct nbd *nbd)
{
    bool impatient = nbd->impatient && atomic_load(nbd->impatient);
    uint64_t now = host_monotonic_ns();
    struct call *call;

    if (!impatient || !nbd->impatient_ns)
        nbd->impatient_ns = impatient ? now : 0;
    if (nbd->sent && impatient && now - nbd->impatient_ns > IMPATIENT_NS)
        lose(nbd, "the server does not answer");
    if (nbd->is_ready || (!impatient && now - nbd->away_ns < nbd->patience_ns))
        return;
    while ((call = take_call(nbd)))
        end_call(nbd, call, -ETIMEDOUT);
}

static void wait_for_events(struct nbd *nbd)
{
    struct pollfd fds[2] = {{.fd = nbd->event_fd, .events = POLLIN}, {.fd = -1}};
    unsigned direction = 0;
    uint64_t count;

    if (nbd->handle) {
        direction = nbd_aio_get_direction(nbd->handle);
        fds[1].fd = nbd_aio_get_fd(nbd->handle);
        fds[1].events = (short)((direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
                                (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
    }
    poll(fds, 2, nbd->is_ready && !nbd->sent ? -1 : LOOK_MS);
    if (fds[0].revents && read(nbd->event_fd, &count, sizeof(count)) < 0)
        log_debug("%s: no event", nbd->uri);
    if (fds[1].revents & POLLOUT)
        nbd_aio_notify_write(nbd->handle);
    else if (fds[1].revents)
        nbd_aio_notify_read(nbd->handle);
}

static void serve(void *opaque)
{
    struct nbd *nbd = opaque;

    while (!is_ending(nbd)) {
        if (!nbd->handle)
            start_to_connect(nbd);
        if (nbd->handle && is_lost(nbd))
            lose(nbd, "the server is gone");
        else if (nbd->handle && !nbd->is_ready)
            check_new(nbd);
        send_all(nbd);
        wait_for_events(nbd);
        if (nbd->is_ready)
            end_answered(nbd);
        look_at_patience(nbd);
    }
}

/* ---- calls, on other threads ---- */

static void wake(struct nbd *nbd)
{
    const uint64_t one = 1;

    if (write(nbd->event_fd, &one, sizeof(one)) < 0)
        log_debug("%s: cannot wake its thread", nbd->uri);
}

static int run_call(struct nbd *nbd, struct call *call)
{
    host_mutex_lock(&nbd->lock);
    call->next = NULL;
    *nbd->queue_end = call;
    nbd->queue_end = &call->next;
    wake(nbd);
    while (!call->done)
        host_cond_wait(&nbd->changed, &nbd->lock);
    host_mutex_unlock(&nbd->lock);
    return call->status;
}

/* What is in several pieces goes through a copy. */
static int run_part(struct nbd *nbd, const struct block_request *request, uint64_t skip,
                    uint64_t size_bytes)
{
    struct io_piece pieces[BLOCK_MAX_PIECES];
    bool is_read = request->op == BLOCK_READ;
    struct call call = {.kind = is_read ? CALL_READ : CALL_WRITE,
                        .offset = request->offset + skip,
                        .size_bytes = size_bytes};
    uint8_t *copy = NULL;
    uint64_t bytes;
    int status;

    if (block_slice(request, skip, size_bytes, pieces, &bytes) == 1) {
        call.data = pieces[0].data;
        return run_call(nbd, &call);
    }
    call.data = copy = malloc(size_bytes);
    if (!copy)
        return -ENOMEM;
    for (uint64_t at = 0; at < size_bytes && !is_read; at += bytes) {
        unsigned count = block_slice(request, skip + at, size_bytes - at, pieces, &bytes);

        for (unsigned n = 0, done = 0; n < count; done += (unsigned)pieces[n++].size_bytes)
            memcpy(copy + at + done, pieces[n].data, pieces[n].size_bytes);
    }
    status = run_call(nbd, &call);
    if (!status && is_read)
        block_fill(copy, request, skip, size_bytes);
    free(copy);
    return status;
}

static int move(struct nbd *nbd, const struct block_request *request)
{
    uint64_t end = nbd->size_bytes, there = request->size_bytes, part;
    int status = 0;

    if (request->offset >= end)
        there = 0;
    else if (there > end - request->offset)
        there = end - request->offset;
    if (request->op == BLOCK_WRITE && there < request->size_bytes)
        return -ENOSPC; /* of a format in it, which wants to grow */
    for (uint64_t at = 0; at < there && !status; at += part) {
        part = there - at < MAX_DATA ? there - at : MAX_DATA;
        status = run_part(nbd, request, at, part);
    }
    if (!status && there < request->size_bytes)
        block_fill(NULL, request, there, request->size_bytes - there);
    return status;
}

static int clear(struct nbd *nbd, int kind, const struct block_request *request)
{
    static uint8_t zeros[ZEROS];
    bool by_writing = kind == CALL_ZERO && !nbd->can_zero;
    uint64_t max = by_writing ? ZEROS : MAX_RANGE, part;
    int status = 0;

    for (uint64_t at = 0; at < request->size_bytes && !status; at += part) {
        uint64_t left = request->size_bytes - at;
        struct call call = {.kind = by_writing ? CALL_WRITE : kind, .data = zeros};

        part = left < max ? left : max;
        call.offset = request->offset + at;
        call.size_bytes = part;
        status = run_call(nbd, &call);
    }
    return status;
}

static int nbd_execute(struct block_node *node, const struct block_request *request)
{
    struct nbd *nbd = nbd_of(node);
    struct call flush = {.kind = CALL_FLUSH};

    switch (request->op) {
    case BLOCK_READ:
    case BLOCK_WRITE:
        return move(nbd, request);
    case BLOCK_FLUSH:
        return nbd->can_flush ? run_call(nbd, &flush) : 0;
    case BLOCK_DISCARD:
        return nbd->can_trim && node->can_discard ? clear(nbd, CALL_TRIM, request) : 0;
    default:
        return clear(nbd, CALL_ZERO, request);
    }
}

static int nbd_try(struct block_node *node, const struct block_request *request,
                   struct block_later *later)
{
    return -EAGAIN;
}

static int nbd_map(struct block_node *node, uint64_t offset, uint64_t size_bytes,
                   struct block_extent *out_extent)
{
    struct nbd *nbd = nbd_of(node);
    struct call call = {.kind = CALL_STATUS,
                        .offset = offset,
                        .size_bytes = size_bytes < MAX_RANGE ? size_bytes : MAX_RANGE,
                        .extent = out_extent};

    *out_extent = (struct block_extent){.size_bytes = size_bytes};
    return nbd->can_map ? run_call(nbd, &call) : 0;
}

static int nbd_length(struct block_node *node, uint64_t *out_bytes)
{
    *out_bytes = nbd_of(node)->size_bytes;
    return 0;
}

static int nbd_set_length(struct block_node *node, uint64_t size_bytes)
{
    return size_bytes == nbd_of(node)->size_bytes ? 0 : -ENOTSUP;
}

/* ---- opening and closing ---- */

/* A server need not go when it is told that we do. */
static void say_goodbye(const struct nbd *nbd)
{
    uint64_t end = host_monotonic_ns() + GOODBYE_NS;
    int result = nbd_aio_disconnect(nbd->handle, 0);

    while (result >= 0 && !is_lost(nbd) && host_monotonic_ns() < end)
        result = nbd_poll(nbd->handle, LOOK_MS);
}

static void close_nbd(struct block_node *node)
{
    struct nbd *nbd = nbd_of(node);

    host_mutex_lock(&nbd->lock);
    nbd->ending = true;
    host_mutex_unlock(&nbd->lock);
    if (nbd->event_fd >= 0)
        wake(nbd);
    host_thread_join(nbd->thread);
    if (nbd->handle && nbd_aio_is_ready(nbd->handle))
        say_goodbye(nbd);
    nbd_close(nbd->handle);
    if (nbd->event_fd >= 0)
        close(nbd->event_fd);
    host_mutex_done(&nbd->lock);
    host_cond_done(&nbd->changed);
    free(nbd->uri);
    free(nbd);
}

static const struct block_node_ops nbd_ops = {
    .name = "raw",
    .close = close_nbd,
    .execute = nbd_execute,
    .try_execute = nbd_try,
    .map = nbd_map,
    .length = nbd_length,
    .set_length = nbd_set_length,
};

static int look_at_export(struct nbd *nbd, const struct block_options *options, struct error *err)
{
    struct nbd_handle *h = nbd->handle;
    int64_t size = nbd_get_size(h), grain = nbd_get_block_size(h, LIBNBD_SIZE_MINIMUM);

    if (size < 0)
        return error_set(err, EIO, "%s", nbd_get_error());
    if (nbd_is_read_only(h) && !options->readonly)
        return error_set(err, EROFS, "the server lets it only be read; readonly=on opens it so");
    if (grain > BLOCK_SECTOR_BYTES)
        return error_set(err, ENOTSUP, "the server takes blocks of %lld bytes; 512 are wanted",
                         (long long)grain);
    nbd->size_bytes = (uint64_t)size;
    nbd->node.size_bytes = align_down(nbd->size_bytes, BLOCK_SECTOR_BYTES);
    nbd->node.read_only = options->readonly;
    nbd->node.can_discard = options->discard;
    nbd->can_flush = !options->is_volatile && nbd_can_flush(h) > 0;
    nbd->can_trim = nbd_can_trim(h) > 0;
    nbd->can_zero = nbd_can_zero(h) > 0;
    nbd->can_map = nbd_can_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0;
    return 0;
}

/* Nor need it say anything. */
static int connect_first(struct nbd *nbd, struct error *err)
{
    uint64_t end = host_monotonic_ns() + OPEN_NS;
    int result = nbd_aio_connect_uri(nbd->handle, nbd->uri);

    while (result >= 0 && !nbd_aio_is_ready(nbd->handle) && host_monotonic_ns() < end)
        result = nbd_poll(nbd->handle, LOOK_MS);
    if (result < 0)
        return error_set(err, nbd_get_errno() ? nbd_get_errno() : EIO, "%s", nbd_get_error());
    return nbd_aio_is_ready(nbd->handle)
               ? 0
               : error_set(err, ETIMEDOUT, "the server says nothing for %d s",
                           (int)(OPEN_NS / 1000000000u));
}

static int start(struct nbd *nbd, const struct block_options *options, struct error *err)
{
    nbd->handle = new_handle();
    if (!nbd->uri || !nbd->handle || nbd->event_fd < 0)
        return error_set(err, ENOMEM, "out of memory");
    if (connect_first(nbd, err))
        return -EIO;
    if (look_at_export(nbd, options, err))
        return -EINVAL;
    nbd->is_ready = true;
    nbd->thread = host_thread_start("nbd", serve, nbd, err);
    return nbd->thread ? 0 : -EAGAIN;
}

struct block_node *block_nbd_open(const struct block_options *options, struct error *err)
{
    struct nbd *nbd = calloc(1, sizeof(*nbd));

    if (!nbd) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    nbd->node.ops = &nbd_ops;
    nbd->uri = strdup(options->file);
    nbd->patience_ns = options->reconnect * 1000000000ull;
    nbd->impatient = options->impatient;
    nbd->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    nbd->queue_end = &nbd->queue;
    nbd->sent_end = &nbd->sent;
    host_mutex_init(&nbd->lock);
    host_cond_init(&nbd->changed);
    if (!start(nbd, options, err))
        return &nbd->node;
    error_prefix(err, "'%s': ", options->file);
    close_nbd(&nbd->node);
    return NULL;
}
