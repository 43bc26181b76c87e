/*
 * raw.c - files: raw images, and what other formats are in
 *
 * A regular file or a block device. A file may be sparse: what is discarded or zeroed becomes a
 * hole where the file system can. The last part of a sector of a raw image cannot be reached.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "backends/block/direct.h"
#include "backends/block/internal.h"
#include "host/given.h"
#include "host/host.h"
#include "host/ring.h"

static_assert(sizeof(struct io_piece) == sizeof(struct iovec) &&
                  offsetof(struct io_piece, data) == offsetof(struct iovec, iov_base) &&
                  offsetof(struct io_piece, size_bytes) == offsetof(struct iovec, iov_len),
              "pieces are handed to the system");

#define ZERO_BYTES  (256u << 10) /* written at once where the file system makes no holes */

#define SLOW_NS     300000u
#define SLOW_FOR_NS 100000000u

/* What is done about small requests where they are submitted. */
enum attempt { ATTEMPT_NOWAIT, ATTEMPT_TIMED, ATTEMPT_NEVER };

struct raw {
    struct block_node node;
    int fd;
    bool is_direct; /* with what direct says */
    struct direct direct;
    bool is_volatile;
    bool is_in_ram;    /* its file system */
    struct ring *ring; /* NULL: none */
    bool ring_writes;
    _Atomic enum attempt read_attempt, write_attempt;
    _Atomic uint64_t slow_until_ns; /* on the monotonic clock: writing made its caller wait */
    _Atomic bool no_punch;          /* the system makes no holes; it is not asked again */
    _Atomic int flush_error;        /* of the first flush that failed */
};

static const struct block_node_ops raw_ops;

static struct raw *raw_of(struct block_node *node)
{
    return (struct raw *)node;
}

/* ---- opening ---- */

static int lock_image(int fd, bool read_only, struct error *err)
{
    struct flock lock = {.l_type = read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};

    if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
        return 0;
    if (errno == EAGAIN || errno == EACCES)
        return error_set(
            err, EBUSY,
            "somebody else has it open%s; two machines that write to one image destroy it",
            read_only ? " for writing" : "");
    return error_set(err, errno, "cannot lock it: %s", strerror(errno));
}

/* Before it is opened, which may wait or have effects where it is something else. */
static int check_kind(const char *file, bool create, struct error *err)
{
    struct stat kind;

    if (host_stat(file, &kind))
        return create && errno == ENOENT ? 0 : error_set(err, errno, "%s", strerror(errno));
    if (!S_ISREG(kind.st_mode) && !S_ISBLK(kind.st_mode))
        return error_set(err, EINVAL, "it is neither a file nor a block device");
    return 0;
}

static int raw_length(struct block_node *node, uint64_t *out_bytes)
{
    off_t end = lseek(raw_of(node)->fd, 0, SEEK_END);

    *out_bytes = end < 0 ? 0 : (uint64_t)end;
    return end < 0 ? -errno : 0;
}

static int find_size(struct raw *raw, struct error *err)
{
    struct statfs statfs;
    uint64_t length;

    if (raw_length(&raw->node, &length))
        return error_set(err, errno, "%s", strerror(errno));
    raw->is_in_ram = fstatfs(raw->fd, &statfs) == 0 && statfs.f_type == TMPFS_MAGIC;
    raw->node.size_bytes = length & ~(uint64_t)(BLOCK_SECTOR_BYTES - 1);
    return 0;
}

static void raw_close(struct block_node *node)
{
    struct raw *raw = raw_of(node);

    if (raw->is_direct)
        direct_done(&raw->direct);
    if (raw->fd >= 0)
        close(raw->fd);
    free(raw);
}

static int open_file(struct raw *raw, const struct block_options *options, bool create,
                     struct error *err)
{
    int flags = (options->readonly ? O_RDONLY : O_RDWR) | (create ? O_CREAT : 0) |
                (options->is_direct ? O_DIRECT : 0);

    raw->fd = options->is_nameless ? host_open_nameless(options->file)
                                   : host_open(options->file, flags, 0666);
    if (raw->fd >= 0) {
        raw->is_direct = options->is_direct;
        if (raw->is_direct)
            direct_init(&raw->direct, raw->fd);
        return 0;
    }
    if (errno == EINVAL && options->is_direct)
        return error_set(err, errno,
                         "its file system cannot be read and written past the page cache, "
                         "which cache=none and directsync want");
    return error_set(err, errno, "%s%s", strerror(errno),
                     (errno == EACCES || errno == EROFS) && !options->readonly && !create
                         ? "; readonly=on opens it for reading"
                         : "");
}

/* The file is emptied when it is locked. */
static int empty_file(struct raw *raw, struct error *err)
{
    if (ftruncate(raw->fd, 0) == 0 || errno == EINVAL) /* a device stays as long as it is */
        return 0;
    return error_set(err, errno, "cannot empty it: %s", strerror(errno));
}

struct block_node *block_file_open(const struct block_options *options, bool create,
                                   struct error *err)
{
    struct raw *raw;

    if (block_is_uri(options->file))
        return block_uri_open(options, err);
    raw = calloc(1, sizeof(*raw));
    if (!raw) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    raw->node.ops = &raw_ops;
    raw->node.read_only = options->readonly;
    raw->node.can_discard = options->discard;
    raw->is_volatile = options->is_volatile;
    raw->ring = options->ring;
    raw->ring_writes = options->ring_writes;
    raw->fd = -1;
    if (!(!options->is_nameless && check_kind(options->file, create, err)) &&
        !open_file(raw, options, create, err) &&
        !(options->lock && lock_image(raw->fd, options->readonly, err)) &&
        !(create && empty_file(raw, err)) && !find_size(raw, err))
        return &raw->node;
    error_prefix(err, "'%s': ", options->file);
    raw_close(&raw->node);
    return NULL;
}

/* To write its last block would make it longer. */
static int check_end(struct block_node *file, const struct block_options *options,
                     struct error *err)
{
    uint64_t length;

    if (file->ops != &raw_ops || !raw_of(file)->is_direct || options->readonly ||
        raw_length(file, &length) || length % raw_of(file)->direct.block_bytes == 0)
        return 0;
    return error_set(
        err, EINVAL,
        "'%s': its length is no multiple of the %u bytes that its disk writes at once, "
        "so it cannot be written with cache=none or directsync",
        options->file, raw_of(file)->direct.block_bytes);
}

static struct block_node *raw_open(struct block_node *file, const struct block_options *options,
                                   const struct block_chain *chain, struct error *err)
{
    if (file->size_bytes && !check_end(file, options, err))
        return file;
    if (!file->size_bytes)
        error_set(err, EINVAL, "'%s': it is empty: a disk has one sector of 512 bytes at least",
                  options->file);
    block_node_close(file);
    return NULL;
}

/* ---- reading and writing ---- */

/* pieces from byte skip on, as far as they fit into out. Returns how many. */
static unsigned slice(const struct block_request *request, size_t skip, struct iovec *out,
                      unsigned max)
{
    unsigned count = 0;

    for (unsigned n = 0; n < request->piece_count && count < max; n++) {
        size_t size = request->pieces[n].size_bytes;

        if (skip >= size) {
            skip -= size;
            continue;
        }
        out[count++] = (struct iovec){(char *)request->pieces[n].data + skip, size - skip};
        skip = 0;
    }
    return count;
}

static ssize_t transfer(struct raw *raw, const struct block_request *request, size_t done,
                        int flags)
{
    struct iovec iov[64];
    unsigned count = slice(request, done, iov, sizeof(iov) / sizeof(iov[0]));
    off_t offset = (off_t)(request->offset + done);

    return request->op == BLOCK_READ ? preadv2(raw->fd, iov, (int)count, offset, flags)
                                     : pwritev2(raw->fd, iov, (int)count, offset, flags);
}

/*
 * A raw image that was cut short behind our back reads as an error, not as zeros; but a file that
 * another format is in may end anywhere.
 */
static int move_all(struct raw *raw, const struct block_request *request, size_t done)
{
    while (done < request->size_bytes) {
        ssize_t size = transfer(raw, request, done, 0);

        if (size < 0 && errno == EINTR)
            continue;
        if (size < 0)
            return -errno;
        done += (size_t)size;
        if (size && !(raw->is_direct && size % raw->direct.block_bytes))
            continue;
        if (done < request->size_bytes && (request->op == BLOCK_WRITE || !raw->node.is_container))
            return -EIO;
        block_fill(NULL, request, done, request->size_bytes - done);
        return 0;
    }
    return 0;
}

static int move(struct raw *raw, const struct block_request *request)
{
    int result;

    if (!raw->is_direct)
        return move_all(raw, request, 0);
    if (!direct_fits(&raw->direct, request))
        return direct_copy(&raw->direct, raw->fd, request, raw->node.is_container);
    if (request->op == BLOCK_READ)
        return move_all(raw, request, 0);
    direct_enter(&raw->direct, true);
    result = move_all(raw, request, 0);
    direct_leave(&raw->direct);
    return result;
}

/* ---- without waiting ---- */

/*
 * Where the system cannot promise not to wait: into its cache, as long as that is quick. A disk
 * that cannot keep up makes writers wait, and then others shall.
 */
static ssize_t transfer_timed(struct raw *raw, const struct block_request *request)
{
    uint64_t start = host_monotonic_ns();
    ssize_t size;

    if (start < atomic_load_explicit(&raw->slow_until_ns, memory_order_relaxed))
        return 0;
    size = transfer(raw, request, 0, 0);
    if (host_monotonic_ns() - start > SLOW_NS)
        atomic_store_explicit(&raw->slow_until_ns, start + SLOW_FOR_NS, memory_order_relaxed);
    return size;
}

/* A request that is in the ring. */
struct in_ring {
    struct raw *raw;
    bool is_write;
    struct block_later *later;
    uint64_t size_bytes;
};

/* What did not end well is executed once more, which says what is wrong. */
void block_file_ring_done(void *opaque, int result)
{
    struct in_ring *r = opaque;
    struct block_later *later = r->later;
    int status = result >= 0 && (uint64_t)result == r->size_bytes ? 0 : -EAGAIN;

    if (r->is_write)
        direct_leave(&r->raw->direct);
    free(r);
    later->end(later, status);
}

static int submit(struct raw *raw, const struct block_request *request, struct block_later *later)
{
    struct iovec iov[64];
    unsigned count = slice(request, 0, iov, sizeof(iov) / sizeof(iov[0]));
    struct in_ring *r = malloc(sizeof(*r));

    if (!r)
        return -EAGAIN;
    *r = (struct in_ring){.raw = raw,
                          .is_write = request->op == BLOCK_WRITE,
                          .later = later,
                          .size_bytes = request->size_bytes};
    if (ring_submit(raw->ring, raw->fd, r->is_write, iov, count, request->offset, 0, r) == 0)
        return -EINPROGRESS;
    free(r);
    return -EAGAIN;
}

static int try_now(struct raw *raw, const struct block_request *request)
{
    _Atomic enum attempt *attempt =
        request->op == BLOCK_READ ? &raw->read_attempt : &raw->write_attempt;
    ssize_t size = 0;

    switch (atomic_load_explicit(attempt, memory_order_relaxed)) {
    case ATTEMPT_NOWAIT:
        size = transfer(raw, request, 0, RWF_NOWAIT);
        if (size < 0 && errno == EOPNOTSUPP) /* waiting to read is the rule, but from RAM */
            atomic_store_explicit(attempt,
                                  request->op == BLOCK_WRITE || raw->is_in_ram ? ATTEMPT_TIMED
                                                                               : ATTEMPT_NEVER,
                                  memory_order_relaxed);
        break;
    case ATTEMPT_TIMED:
        size = transfer_timed(raw, request);
        break;
    default:
        break;
    }
    return size == (ssize_t)request->size_bytes ? 0 : -EAGAIN;
}

static int try_direct(struct raw *raw, const struct block_request *request,
                      struct block_later *later)
{
    bool is_write = request->op == BLOCK_WRITE;
    int status;

    if (!later || !raw->ring || (is_write && !raw->ring_writes) ||
        request->piece_count > BLOCK_MAX_PIECES || !direct_fits(&raw->direct, request) ||
        (is_write && !direct_enter(&raw->direct, false)))
        return -EAGAIN;
    status = submit(raw, request, later);
    if (is_write && status != -EINPROGRESS)
        direct_leave(&raw->direct);
    return status;
}

/* Writes go to the cache, where few file systems let the ring do what a worker would not. */
static int raw_try(struct block_node *node, const struct block_request *request,
                   struct block_later *later)
{
    struct raw *raw = raw_of(node);
    int status;

    if (raw->is_direct)
        return try_direct(raw, request, later);
    status = try_now(raw, request);
    if (status == -EAGAIN && later && raw->ring && request->op == BLOCK_READ)
        status = submit(raw, request, later);
    return status;
}

/* ---- all operations ---- */

static int write_zeros(struct raw *raw, uint64_t offset, uint64_t size_bytes)
{
    static _Alignas(4096) uint8_t zeros[ZERO_BYTES];
    int result = 0;

    for (uint64_t part; size_bytes && !result; offset += part, size_bytes -= part) {
        struct io_piece piece = {zeros, size_bytes < sizeof(zeros) ? size_bytes : sizeof(zeros)};
        const struct block_request request = {.op = BLOCK_WRITE,
                                              .offset = offset,
                                              .size_bytes = piece.size_bytes,
                                              .pieces = &piece,
                                              .piece_count = 1};

        part = piece.size_bytes;
        result = move(raw, &request);
    }
    return result;
}

/* A hole, which reads as zeros. -EOPNOTSUPP where there are none. */
static int punch(struct raw *raw, const struct block_request *request)
{
    int result;

    if (atomic_load_explicit(&raw->no_punch, memory_order_relaxed))
        return -EOPNOTSUPP;
    if (raw->is_direct)
        direct_enter(&raw->direct, true);
    result = fallocate(raw->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)request->offset,
                       (off_t)request->size_bytes);
    if (raw->is_direct)
        direct_leave(&raw->direct);
    if (!result)
        return 0;
    if (errno == EOPNOTSUPP || errno == ENODEV || errno == ENOSYS)
        atomic_store_explicit(&raw->no_punch, true, memory_order_relaxed);
    return -EOPNOTSUPP;
}

/*
 * The system reports once that writing back failed, and drops what it could not write. So no later
 * flush can say that what was written before it is there.
 */
static int flush(struct raw *raw)
{
    int status = atomic_load(&raw->flush_error);

    if (!status && !raw->is_volatile && fdatasync(raw->fd)) {
        status = -errno;
        atomic_store(&raw->flush_error, status);
    }
    return status;
}

static int raw_execute(struct block_node *node, const struct block_request *request)
{
    struct raw *raw = raw_of(node);

    switch (request->op) {
    case BLOCK_READ:
    case BLOCK_WRITE:
        return move(raw, request);
    case BLOCK_FLUSH:
        return flush(raw);
    case BLOCK_DISCARD:
        if (request->size_bytes && node->can_discard)
            punch(raw, request);
        return 0;
    default:
        if (request->size_bytes && (!node->can_discard || punch(raw, request)))
            return write_zeros(raw, request->offset, request->size_bytes);
        return 0;
    }
}

static int raw_map(struct block_node *node, uint64_t offset, uint64_t size_bytes,
                   struct block_extent *out_extent)
{
    int fd = raw_of(node)->fd;
    off_t data = lseek(fd, (off_t)offset, SEEK_DATA), end;

    *out_extent = (struct block_extent){.size_bytes = size_bytes};
    if (data < 0) {
        out_extent->is_zero = errno == ENXIO;
        return errno == ENXIO || errno == EINVAL ? 0 : -errno;
    }
    out_extent->is_zero = (uint64_t)data > offset;
    end = out_extent->is_zero ? data : lseek(fd, (off_t)offset, SEEK_HOLE);
    if (end >= 0 && (uint64_t)end > offset && (uint64_t)end - offset < size_bytes)
        out_extent->size_bytes = (uint64_t)end - offset;
    return 0;
}

static int raw_set_length(struct block_node *node, uint64_t size_bytes)
{
    if (ftruncate(raw_of(node)->fd, (off_t)size_bytes))
        return -errno;
    node->size_bytes = size_bytes & ~(uint64_t)(BLOCK_SECTOR_BYTES - 1);
    return 0;
}

static const struct block_node_ops raw_ops = {
    .name = "raw",
    .close = raw_close,
    .execute = raw_execute,
    .try_execute = raw_try,
    .map = raw_map,
    .length = raw_length,
    .set_length = raw_set_length,
};

const struct block_format block_raw = {
    .name = "raw",
    .summary = "the bytes of the disk, one after the other",
    .open = raw_open,
};
