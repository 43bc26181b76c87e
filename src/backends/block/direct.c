/*
 * direct.c - reading and writing past the host's page cache (O_DIRECT)
 */
#include "backends/block/direct.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/pieces.h"

#define LARGEST_BYTES 4096u        /* no disk wants more */
#define USUAL_BYTES   512u         /* what most take */
#define BUFFER_BYTES  (256u << 10) /* copied at once; whole blocks */

/* Where the kernel does not say (before 6.1), or must not be asked (the sandbox): it is tried. */
static bool takes_usual_blocks(int fd)
{
    static _Alignas(LARGEST_BYTES) uint8_t block[2 * USUAL_BYTES];

    return pread(fd, block + USUAL_BYTES, USUAL_BYTES, USUAL_BYTES) >= 0;
}

void direct_init(struct direct *direct, int fd)
{
    struct statx what;

    *direct = (struct direct){0};
    pthread_mutex_init(&direct->lock, NULL);
    pthread_cond_init(&direct->changed, NULL);
#ifdef STATX_DIOALIGN
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &what) == 0 &&
        what.stx_mask & STATX_DIOALIGN && what.stx_dio_offset_align) {
        direct->block_bytes = what.stx_dio_offset_align;
        direct->memory_bytes = what.stx_dio_mem_align;
        return;
    }
#endif
    direct->block_bytes = direct->memory_bytes =
        takes_usual_blocks(fd) ? USUAL_BYTES : LARGEST_BYTES;
}

void direct_done(struct direct *direct)
{
    pthread_cond_destroy(&direct->changed);
    pthread_mutex_destroy(&direct->lock);
}

static bool is_aligned(uint64_t value, uint32_t alignment)
{
    return (value & (alignment - 1)) == 0;
}

static bool is_whole(const struct direct *direct, const struct block_request *request)
{
    return is_aligned(request->offset | request->size_bytes, direct->block_bytes);
}

bool direct_fits(const struct direct *direct, const struct block_request *request)
{
    if (!is_whole(direct, request))
        return false;
    for (unsigned n = 0; n < request->piece_count; n++)
        if (!is_aligned((uintptr_t)request->pieces[n].data, direct->memory_bytes) ||
            !is_aligned(request->pieces[n].size_bytes, direct->block_bytes))
            return false;
    return true;
}

/* ---- who writes ---- */

bool direct_enter(struct direct *direct, bool may_wait)
{
    bool is_free;

    pthread_mutex_lock(&direct->lock);
    while (may_wait && (direct->is_alone || direct->waiting))
        pthread_cond_wait(&direct->changed, &direct->lock);
    is_free = !direct->is_alone && !direct->waiting;
    direct->writers += is_free;
    pthread_mutex_unlock(&direct->lock);
    return is_free;
}

void direct_leave(struct direct *direct)
{
    pthread_mutex_lock(&direct->lock);
    if (--direct->writers == 0)
        pthread_cond_broadcast(&direct->changed);
    pthread_mutex_unlock(&direct->lock);
}

static void enter_alone(struct direct *direct)
{
    pthread_mutex_lock(&direct->lock);
    direct->waiting++;
    while (direct->is_alone || direct->writers)
        pthread_cond_wait(&direct->changed, &direct->lock);
    direct->waiting--;
    direct->is_alone = true;
    pthread_mutex_unlock(&direct->lock);
}

static void leave_alone(struct direct *direct)
{
    pthread_mutex_lock(&direct->lock);
    direct->is_alone = false;
    pthread_cond_broadcast(&direct->changed);
    pthread_mutex_unlock(&direct->lock);
}

/* ---- by way of a buffer ---- */

/* Whole blocks. Bytes to the end of the file at most, or -errno. */
static ssize_t move(const struct direct *direct, int fd, bool is_write, uint8_t *data, size_t size,
                    uint64_t offset)
{
    size_t done = 0;

    while (done < size) {
        ssize_t part = is_write ? pwrite(fd, data + done, size - done, (off_t)(offset + done))
                                : pread(fd, data + done, size - done, (off_t)(offset + done));

        if (part < 0 && errno == EINTR)
            continue;
        if (part < 0)
            return -errno;
        done += (size_t)part;
        if (part == 0 || !is_aligned((uint64_t)part, direct->block_bytes))
            break;
    }
    return (ssize_t)done;
}

/* Blocks of the file from start on; some of them begin or end outside of the request. */
struct window {
    uint64_t start, size_bytes;
    uint64_t skip;       /* of the request */
    uint64_t lead;       /* before the request */
    uint64_t used_bytes; /* of the request */
};

static struct window window_at(const struct direct *direct, const struct block_request *request,
                               uint64_t done)
{
    uint64_t offset = request->offset + done, end = request->offset + request->size_bytes;
    struct window w = {.start = align_down(offset, direct->block_bytes), .skip = done};

    w.size_bytes = align_up(end, direct->block_bytes) - w.start;
    if (w.size_bytes > BUFFER_BYTES)
        w.size_bytes = BUFFER_BYTES;
    w.lead = offset - w.start;
    w.used_bytes = w.start + w.size_bytes < end ? w.start + w.size_bytes - offset : end - offset;
    return w;
}

static int read_window(const struct direct *direct, int fd, const struct block_request *request,
                       const struct window *w, uint8_t *buffer, bool is_container)
{
    ssize_t size = move(direct, fd, false, buffer, w->size_bytes, w->start);

    if (size < 0)
        return (int)size;
    if ((uint64_t)size < w->lead + w->used_bytes && !is_container)
        return -EIO;
    memset(buffer + size, 0, w->size_bytes - (size_t)size);
    pieces_write(request->pieces, request->piece_count, w->skip, buffer + w->lead, w->used_bytes);
    return 0;
}

/* A block that is written in part. */
static int read_block(const struct direct *direct, int fd, uint64_t offset, uint8_t *buffer)
{
    ssize_t size = move(direct, fd, false, buffer, direct->block_bytes, offset);

    if (size < 0)
        return (int)size;
    memset(buffer + size, 0, direct->block_bytes - (size_t)size);
    return 0;
}

static int write_window(const struct direct *direct, int fd, const struct block_request *request,
                        const struct window *w, uint8_t *buffer)
{
    uint64_t last = w->size_bytes - direct->block_bytes;
    bool has_tail = w->lead + w->used_bytes < w->size_bytes;
    int result = w->lead ? read_block(direct, fd, w->start, buffer) : 0;
    ssize_t size;

    if (!result && has_tail && !(w->lead && last == 0))
        result = read_block(direct, fd, w->start + last, buffer + last);
    if (result)
        return result;
    pieces_read(request->pieces, request->piece_count, w->skip, buffer + w->lead, w->used_bytes);
    size = move(direct, fd, true, buffer, w->size_bytes, w->start);
    if (size < 0)
        return (int)size;
    return (uint64_t)size == w->size_bytes ? 0 : -EIO;
}

static int copy_all(const struct direct *direct, int fd, const struct block_request *request,
                    bool is_container)
{
    uint8_t *buffer = NULL;
    int result = -posix_memalign((void **)&buffer, LARGEST_BYTES, BUFFER_BYTES);
    struct window w;

    for (uint64_t done = 0; done < request->size_bytes && !result; done += w.used_bytes) {
        w = window_at(direct, request, done);
        result = request->op == BLOCK_READ
                     ? read_window(direct, fd, request, &w, buffer, is_container)
                     : write_window(direct, fd, request, &w, buffer);
    }
    free(buffer);
    return result;
}

int direct_copy(struct direct *direct, int fd, const struct block_request *request,
                bool is_container)
{
    int result;

    if (request->op == BLOCK_READ)
        return copy_all(direct, fd, request, is_container);
    if (is_whole(direct, request)) {
        direct_enter(direct, true);
        result = copy_all(direct, fd, request, is_container);
        direct_leave(direct);
        return result;
    }
    enter_alone(direct);
    result = copy_all(direct, fd, request, is_container);
    leave_alone(direct);
    return result;
}
