/*
 * files.c - answers to messages about files: found, opened, made, read, written
 */
#include "backends/share/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/pieces.h"

#define QID_BYTES         13u
#define ENTRY_BYTES       (QID_BYTES + 8 + 1 + 2) /* of Rreaddir, and the name */
#define COUNT_BYTES       4u                      /* in front of data */

/* Linux's numbers of open flags, as the guest has them; those that are not here are its own. */
#define GUEST_ACCESS      03u
#define GUEST_CREATE_ONLY 0200u
#define GUEST_TRUNCATE    01000u
#define GUEST_DATA_SYNC   010000u
#define GUEST_SYNC        04010000u

static bool is_file(const struct share_node *node)
{
    return node->kind == NODE_PATH || node->kind == NODE_OPEN;
}

/* ---- Twalk ---- */

/* A walk that comes halfway says so, and the new fid is none. */
int share_answer_walk(struct share_call *call)
{
    struct share_fid *from = call->fids[0];
    uint32_t number = (uint32_t)call->numbers[0];
    struct share_node *node;
    unsigned done = 0;

    if (!is_file(from->node))
        return -EBADF;
    if (number != from->number && share_find_fid(call->server, number))
        return -EINVAL;
    node = share_node_get(from->node);
    share_put16(call, 0);
    for (; done < call->name_count; done++) {
        struct share_node *next;
        struct stat st;
        int status = share_node_step(node, call->names[done], &next, &st);

        if (status && !done) {
            share_node_put(node);
            return status;
        }
        if (status)
            break;
        share_node_put(node);
        node = next;
        share_put_qid(call, &st);
    }
    put_le16(call->server->answer + SHARE_MIN_MESSAGE, (uint16_t)done);
    if (done == call->name_count)
        return share_set_fid(call->server, number, node);
    share_node_put(node);
    return 0;
}

/* ---- Tlopen, Tlcreate ---- */

static int host_flags(uint64_t guest)
{
    static const int access[] = {O_RDONLY, O_WRONLY, O_RDWR};
    int flags;

    if ((guest & GUEST_ACCESS) == GUEST_ACCESS)
        return -EINVAL;
    flags = access[guest & GUEST_ACCESS];
    if (guest & GUEST_TRUNCATE)
        flags |= O_TRUNC;
    if ((guest & GUEST_SYNC) == GUEST_SYNC)
        flags |= O_SYNC;
    else if (guest & GUEST_DATA_SYNC)
        flags |= O_DSYNC;
    return flags;
}

/* The fid is an open file from now on. */
static int set_open(struct share_call *call, int fd, int flags, struct share_node *parent,
                    const char *name)
{
    struct share_node *node;
    struct stat st;

    if (fstat(fd, &st)) {
        int code = errno;

        close(fd);
        return -code;
    }
    node = share_node_new_open(fd, flags, st.st_mode & S_IFMT, parent, name);
    if (!node)
        return -ENOMEM;
    share_put_qid(call, &st);
    share_put32(call, 0); /* as much at once as a message holds */
    return share_set_fid(call->server, call->fids[0]->number, node);
}

int share_answer_lopen(struct share_call *call)
{
    struct share_node *node = call->fids[0]->node;
    int flags = host_flags(call->numbers[0]), fd;

    if (flags < 0 || node->kind != NODE_PATH)
        return -EINVAL;
    if (call->server->read_only && flags & (O_ACCMODE | O_TRUNC))
        return -EROFS;
    fd = share_node_open(call->server, node, flags);
    return fd < 0 ? fd : set_open(call, fd, flags, node->parent, node->name);
}

/* One that is there may be a link or a pipe: it is looked at before it is opened. */
static int open_existing(struct share_call *call, struct share_node *folder, const char *name,
                         int flags)
{
    struct share_node *node;
    struct stat st;
    int fd = share_node_step(folder, name, &node, &st);

    if (fd)
        return fd;
    fd = share_node_open(call->server, node, flags);
    share_node_put(node);
    return fd;
}

/* folder, name, flags, mode, group */
int share_answer_lcreate(struct share_call *call)
{
    struct share_node *folder = call->fids[0]->node;
    const char *name = call->texts[0];
    uint64_t wanted = call->numbers[0];
    int flags = host_flags(wanted), fd;

    if (flags < 0 || folder->kind != NODE_PATH)
        return -EINVAL;
    fd = openat(folder->fd, name,
                flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
                (mode_t)(call->numbers[1] & 01777));
    if (fd < 0)
        fd = -errno;
    if (fd == -EEXIST && !(wanted & GUEST_CREATE_ONLY))
        fd = open_existing(call, folder, name, flags);
    return fd < 0 ? fd : set_open(call, fd, flags, folder, name);
}

/* ---- Tread, Twrite, Tfsync ---- */

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Of data in an answer, of which the guest wants this much. */
static uint64_t room_for_data(const struct share_call *call, uint64_t wanted)
{
    uint32_t head = SHARE_MIN_MESSAGE + COUNT_BYTES;

    return call->answer_limit < head ? 0 : smaller(wanted, call->answer_limit - head);
}

int share_answer_read(struct share_call *call)
{
    const struct share_node *node = call->fids[0]->node;
    struct io_piece pieces[SHARE_MAX_PIECES];
    unsigned count;
    ssize_t size;

    if (node->kind == NODE_ATTRIBUTE)
        return share_read_value(call, node);
    if (node->kind != NODE_OPEN)
        return -EBADF;
    if (call->numbers[0] > INT64_MAX)
        return -EINVAL;
    count = pieces_part(call->in, call->in_count, SHARE_MIN_MESSAGE + COUNT_BYTES,
                        room_for_data(call, call->numbers[1]), pieces);
    size = preadv(node->fd, (const struct iovec *)pieces, (int)count, (off_t)call->numbers[0]);
    if (size < 0)
        return -errno;
    share_put32(call, (uint32_t)size);
    call->direct_bytes = (size_t)size;
    return 0;
}

int share_answer_write(struct share_call *call)
{
    struct share_node *node = call->fids[0]->node;
    struct io_piece pieces[SHARE_MAX_PIECES];
    unsigned count;
    ssize_t size;

    if (call->numbers[1] > call->data_bytes || call->numbers[0] > INT64_MAX)
        return -EINVAL;
    if (node->kind == NODE_NEW_VALUE)
        return share_write_value(call, node);
    if (node->kind != NODE_OPEN)
        return -EBADF;
    count = pieces_part(call->out, call->out_count, call->data_at, call->numbers[1], pieces);
    size = pwritev(node->fd, (const struct iovec *)pieces, (int)count, (off_t)call->numbers[0]);
    if (size < 0)
        return -errno;
    share_put32(call, (uint32_t)size);
    return 0;
}

int share_answer_fsync(struct share_call *call)
{
    const struct share_node *node = call->fids[0]->node;

    if (node->kind != NODE_OPEN)
        return -EBADF;
    return (call->numbers[0] ? fdatasync(node->fd) : fsync(node->fd)) ? -errno : 0;
}

/* ---- Treaddir ---- */

/* What it is beyond its name and number the guest asks when it wants to know. */
static void put_entry(struct share_call *call, const struct dirent64 *entry, uint64_t inode)
{
    struct stat st = {.st_dev = call->server->device,
                      .st_ino = inode,
                      .st_mode = entry->d_type == DT_UNKNOWN ? S_IFREG : DTTOIF(entry->d_type)};

    share_put_qid(call, &st);
    share_put64(call, (uint64_t)entry->d_off);
    share_put8(call, entry->d_type);
    share_put_text(call, entry->d_name, strlen(entry->d_name));
}

static bool is_root(const struct share_node *node)
{
    return !node->parent;
}

/* Entries of room, as many as fit. Nothing fits: the guest has asked for too little. */
static int put_entries(struct share_call *call, size_t size, uint64_t limit)
{
    const struct share_node *node = call->fids[0]->node;
    size_t at = 0;
    struct stat own;

    if (fstat(node->fd, &own))
        return -errno;
    while (at < size) {
        const struct dirent64 *entry = (const struct dirent64 *)(call->server->room + at);
        bool is_up = is_root(node) && strcmp(entry->d_name, "..") == 0;

        if (call->answer_bytes + ENTRY_BYTES + strlen(entry->d_name) > limit)
            return at ? 0 : -EINVAL;
        put_entry(call, entry, is_up ? own.st_ino : entry->d_ino);
        at += entry->d_reclen;
    }
    return 0;
}

int share_answer_readdir(struct share_call *call)
{
    const struct share_node *node = call->fids[0]->node;
    uint64_t head = SHARE_MIN_MESSAGE + COUNT_BYTES;
    uint64_t limit = head + room_for_data(call, call->numbers[1]);
    ssize_t size;
    int status;

    if (node->kind != NODE_OPEN || !S_ISDIR(node->type))
        return -EBADF;
    if (lseek(node->fd, (off_t)call->numbers[0], SEEK_SET) < 0)
        return -errno;
    size = getdents64(node->fd, call->server->room,
                      (size_t)smaller(sizeof(call->server->room), limit + 512));
    if (size < 0)
        return -errno;
    share_put32(call, 0);
    status = put_entries(call, (size_t)size, smaller(limit, SHARE_ROOM));
    put_le32(call->server->answer + SHARE_MIN_MESSAGE, (uint32_t)(call->answer_bytes - head));
    return status;
}
