/*
 * attributes.c - answers to messages about what files are: modes, times, extended attributes
 *
 * Owners are the host's, as they are, and are not changed. Set-user-id and set-group-id bits never
 * reach the host. Of extended attributes there are those of users; the others mean something to
 * the host's kernel.
 */
#include "backends/share/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/pieces.h"

#define GETATTR_BASIC  0x7ffull
#define SET_MODE       0x1u
#define SET_SIZE       0x8u
#define SET_ATIME      0x10u
#define SET_MTIME      0x20u
#define SET_ATIME_TO   0x80u
#define SET_MTIME_TO   0x100u
#define MODE_BITS      01777u
#define FS_MAGIC       0x01021997u /* V9FS_MAGIC */
#define ATTRIBUTE_NAME "user."
#define GUEST_CREATE   1u /* XATTR_CREATE */
#define GUEST_REPLACE  2u

/* ---- Tgetattr, Tstatfs ---- */

static uint64_t guest_device(dev_t device)
{
    uint64_t low = minor(device), high = major(device);

    return (low & 0xff) | high << 8 | (low & ~0xffull) << 12; /* new_encode_dev() */
}

static void put_time(struct share_call *call, const struct timespec *time)
{
    share_put64(call, (uint64_t)time->tv_sec);
    share_put64(call, (uint64_t)time->tv_nsec);
}

/* A size at which the guest reads and writes whole messages. */
static uint64_t good_block_bytes(const struct share_call *call, uint64_t block_bytes)
{
    uint64_t most = call->server->message_bytes - 24; /* the header of Twrite */

    if (!block_bytes || block_bytes > most)
        return most;
    return most / block_bytes * block_bytes;
}

int share_answer_getattr(struct share_call *call)
{
    static const struct timespec unknown;
    struct stat st;

    if (fstat(call->fids[0]->node->fd, &st))
        return -errno;
    share_put64(call, GETATTR_BASIC);
    share_put_qid(call, &st);
    share_put32(call, st.st_mode);
    share_put32(call, st.st_uid);
    share_put32(call, st.st_gid);
    share_put64(call, st.st_nlink);
    share_put64(call, guest_device(st.st_rdev));
    share_put64(call, (uint64_t)st.st_size);
    share_put64(call, good_block_bytes(call, (uint64_t)st.st_blksize));
    share_put64(call, (uint64_t)st.st_blocks);
    put_time(call, &st.st_atim);
    put_time(call, &st.st_mtim);
    put_time(call, &st.st_ctim);
    put_time(call, &unknown); /* of birth */
    share_put64(call, 0);     /* generation */
    share_put64(call, 0);     /* version of the data */
    return 0;
}

int share_answer_statfs(struct share_call *call)
{
    struct statfs fs;

    if (fstatfs(call->fids[0]->node->fd, &fs))
        return -errno;
    share_put32(call, FS_MAGIC);
    share_put32(call, (uint32_t)fs.f_bsize);
    share_put64(call, fs.f_blocks);
    share_put64(call, fs.f_bfree);
    share_put64(call, fs.f_bavail);
    share_put64(call, fs.f_files);
    share_put64(call, fs.f_ffree);
    share_put64(call, (uint32_t)fs.f_fsid.__val[0] | (uint64_t)(uint32_t)fs.f_fsid.__val[1] << 32);
    share_put32(call, (uint32_t)fs.f_namelen);
    return 0;
}

/* ---- Tsetattr ---- */

static int set_mode(struct share_call *call, const struct share_node *node, uint64_t mode)
{
    if (S_ISLNK(node->type))
        return -EOPNOTSUPP;
    return fchmodat(call->server->proc_fd, share_node_path(node).text, (mode_t)(mode & MODE_BITS),
                    0)
               ? -errno
               : 0;
}

static int set_size(struct share_call *call, const struct share_node *node, uint64_t size)
{
    int fd, status = 0;

    if (size > INT64_MAX || !S_ISREG(node->type))
        return -EINVAL;
    if (node->kind == NODE_OPEN && ftruncate(node->fd, (off_t)size) == 0)
        return 0;
    fd = share_node_open(call->server, node, O_WRONLY); /* that one was for reading, perhaps */
    if (fd < 0)
        return fd;
    if (ftruncate(fd, (off_t)size))
        status = -errno;
    close(fd);
    return status;
}

static int take_time(uint64_t valid, uint32_t which, uint32_t given, const uint64_t *from,
                     struct timespec *out)
{
    *out = (struct timespec){.tv_nsec = valid & which ? UTIME_NOW : UTIME_OMIT};
    if (!(valid & which) || !(valid & given))
        return 0;
    if (from[1] >= 1000000000)
        return -EINVAL;
    *out = (struct timespec){.tv_sec = (time_t)from[0], .tv_nsec = (long)from[1]};
    return 0;
}

static int set_times(struct share_call *call, const struct share_node *node, uint64_t valid)
{
    struct timespec times[2];

    if (take_time(valid, SET_ATIME, SET_ATIME_TO, call->numbers + 5, &times[0]) ||
        take_time(valid, SET_MTIME, SET_MTIME_TO, call->numbers + 7, &times[1]))
        return -EINVAL;
    return utimensat(call->server->proc_fd, share_node_path(node).text, times, 0) ? -errno : 0;
}

/* what, valid, mode, user, group, size, atime, mtime */
int share_answer_setattr(struct share_call *call)
{
    const struct share_node *node = call->fids[0]->node;
    uint64_t valid = call->numbers[0];
    int status = node->fd < 0 ? -EBADF : 0;

    if (!status && valid & SET_MODE)
        status = set_mode(call, node, call->numbers[1]);
    if (!status && valid & SET_SIZE)
        status = set_size(call, node, call->numbers[4]);
    if (!status && valid & (SET_ATIME | SET_MTIME))
        status = set_times(call, node, valid);
    return status;
}

/* ---- Txattrwalk, Txattrcreate ---- */

static bool is_attribute(const char *name)
{
    return strncmp(name, ATTRIBUTE_NAME, strlen(ATTRIBUTE_NAME)) == 0;
}

/* Only the names of users' attributes stay. */
static ssize_t filter_names(char *names, ssize_t size)
{
    ssize_t kept = 0;

    for (ssize_t at = 0, next; at < size; at = next) {
        next = at + (ssize_t)strlen(names + at) + 1;
        if (!is_attribute(names + at))
            continue;
        memmove(names + kept, names + at, (size_t)(next - at));
        kept += next - at;
    }
    return kept;
}

/* Into the server's room. Its bytes or -errno. */
static ssize_t load_value(struct share_call *call, const struct share_node *node, const char *name)
{
    char *room = (char *)call->server->room;
    int fd = share_node_open(call->server, node, O_RDONLY);
    ssize_t size;

    if (fd < 0)
        return -EOPNOTSUPP; /* neither a file nor a folder */
    size = *name ? fgetxattr(fd, name, room, SHARE_ROOM) : flistxattr(fd, room, SHARE_ROOM);
    if (size < 0)
        size = -errno;
    else if (!*name)
        size = filter_names(room, size);
    close(fd);
    return size;
}

/* what, new fid, name; no name: the list of names */
int share_answer_xattrwalk(struct share_call *call)
{
    struct share_node *of = call->fids[0]->node, *node;
    uint32_t number = (uint32_t)call->numbers[0];
    const char *name = call->texts[0];
    ssize_t size;

    if (of->fd < 0)
        return -EBADF;
    if (share_find_fid(call->server, number))
        return -EINVAL;
    if (*name && !is_attribute(name))
        return -EOPNOTSUPP;
    size = load_value(call, of, name);
    if (size < 0)
        return (int)size;
    node = share_node_new(NODE_ATTRIBUTE, -1, 0, of, name);
    if (node)
        node->value = malloc((size_t)size + 1);
    if (!node || !node->value) {
        share_node_put(node);
        return -ENOMEM;
    }
    memcpy(node->value, call->server->room, (size_t)size);
    node->value_bytes = (size_t)size;
    share_put64(call, (uint64_t)size);
    return share_set_fid(call->server, number, node);
}

/* what, name, size, flags: the fid takes the value, and sets it when it goes */
int share_answer_xattrcreate(struct share_call *call)
{
    struct share_node *of = call->fids[0]->node, *node;
    uint64_t size = call->numbers[0], flags = call->numbers[1];

    if (of->kind != NODE_PATH)
        return -EBADF;
    if (!is_attribute(call->texts[0]))
        return -EOPNOTSUPP;
    if (size > SHARE_ROOM)
        return -E2BIG;
    if (flags & ~(uint64_t)(GUEST_CREATE | GUEST_REPLACE))
        return -EINVAL;
    node = share_node_new(NODE_NEW_VALUE, -1, 0, of, call->texts[0]);
    if (node)
        node->value = malloc(size + 1);
    if (!node || !node->value) {
        share_node_put(node);
        return -ENOMEM;
    }
    node->value_bytes = size;
    node->flags =
        (flags & GUEST_CREATE ? XATTR_CREATE : 0) | (flags & GUEST_REPLACE ? XATTR_REPLACE : 0);
    return share_set_fid(call->server, call->fids[0]->number, node);
}

int share_read_value(struct share_call *call, const struct share_node *node)
{
    uint64_t head = SHARE_MIN_MESSAGE + 4, offset = call->numbers[0], size = call->numbers[1];

    if (offset > node->value_bytes || call->answer_limit < head)
        return -EINVAL;
    size = size < node->value_bytes - offset ? size : node->value_bytes - offset;
    size = size < call->answer_limit - head ? size : call->answer_limit - head;
    pieces_write(call->in, call->in_count, head, node->value + offset, size);
    share_put32(call, (uint32_t)size);
    call->direct_bytes = size;
    return 0;
}

int share_write_value(struct share_call *call, struct share_node *node)
{
    uint64_t offset = call->numbers[0], size = call->numbers[1];

    if (offset != node->filled || size > node->value_bytes - offset)
        return -ENOSPC;
    pieces_read(call->out, call->out_count, call->data_at, node->value + offset, size);
    node->filled += size;
    share_put32(call, (uint32_t)size);
    return 0;
}

/* An empty one is removed: that is how a guest asks for it. */
int share_set_value(const struct share_server *server, const struct share_node *node)
{
    int fd, status;

    if (node->filled != node->value_bytes)
        return -EINVAL;
    fd = share_node_open(server, node->parent, O_RDONLY);
    if (fd < 0)
        return -EOPNOTSUPP;
    if (node->value_bytes)
        status = fsetxattr(fd, node->name, node->value, node->value_bytes, node->flags);
    else
        status = fremovexattr(fd, node->name);
    status = status ? -errno : 0;
    close(fd);
    return status;
}
