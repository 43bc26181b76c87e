/*
 * folders.c - answers to messages that change what folders hold
 */
#include "backends/share/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define GUEST_REMOVE_FOLDER 0x200u
#define MODE_BITS           01777u /* no file of the host's changes the user who runs it */

/* What was made, for the answer. */
static int put_new(struct share_call *call, const struct share_node *folder, const char *name)
{
    struct stat st;

    if (fstatat(folder->fd, name, &st, AT_SYMLINK_NOFOLLOW))
        return -errno;
    share_put_qid(call, &st);
    return 0;
}

/* folder, name, mode, group */
int share_answer_mkdir(struct share_call *call)
{
    const struct share_node *folder = call->fids[0]->node;

    if (mkdirat(folder->fd, call->texts[0], (mode_t)(call->numbers[0] & MODE_BITS)))
        return -errno;
    return put_new(call, folder, call->texts[0]);
}

/* folder, name, mode, major, minor, group: no devices, which would be the host's */
int share_answer_mknod(struct share_call *call)
{
    const struct share_node *folder = call->fids[0]->node;
    mode_t mode = (mode_t)(call->numbers[0] & (S_IFMT | MODE_BITS));

    if (!S_ISREG(mode) && !S_ISFIFO(mode) && !S_ISSOCK(mode))
        return -EPERM;
    if (mknodat(folder->fd, call->texts[0], mode, 0))
        return -errno;
    return put_new(call, folder, call->texts[0]);
}

/* folder, name, target, group */
int share_answer_symlink(struct share_call *call)
{
    const struct share_node *folder = call->fids[0]->node;

    if (symlinkat(call->texts[1], folder->fd, call->texts[0]))
        return -errno;
    return put_new(call, folder, call->texts[0]);
}

int share_answer_readlink(struct share_call *call)
{
    char target[PATH_MAX];
    ssize_t size;

    if (!S_ISLNK(call->fids[0]->node->type))
        return -EINVAL;
    size = readlinkat(call->fids[0]->node->fd, "", target, sizeof(target));
    if (size < 0)
        return -errno;
    share_put_text(call, target, (size_t)size);
    return 0;
}

/* folder, what, name */
int share_answer_link(struct share_call *call)
{
    const struct share_node *node = call->fids[1]->node;

    return linkat(call->server->proc_fd, share_node_path(node).text, call->fids[0]->node->fd,
                  call->texts[0], AT_SYMLINK_FOLLOW)
               ? -errno
               : 0;
}

/* Is it still what was found under its name? */
static int check_place(const struct share_node *node)
{
    struct stat now, found;

    if (node->kind == NODE_LOST)
        return -ESTALE;
    if (node->kind == NODE_ATTRIBUTE || node->kind == NODE_NEW_VALUE)
        return -EBADF;
    if (!node->parent)
        return -EBUSY;
    if (fstat(node->fd, &found) || fstatat(node->parent->fd, node->name, &now, AT_SYMLINK_NOFOLLOW))
        return -errno;
    return found.st_ino == now.st_ino && found.st_dev == now.st_dev ? 0 : -ENOENT;
}

/* what, folder, name */
int share_answer_rename(struct share_call *call)
{
    const struct share_node *node = call->fids[0]->node;
    int status = check_place(node);

    if (status)
        return status;
    return renameat(node->parent->fd, node->name, call->fids[1]->node->fd, call->texts[0]) ? -errno
                                                                                           : 0;
}

/* folder, name, folder, name */
int share_answer_renameat(struct share_call *call)
{
    return renameat(call->fids[0]->node->fd, call->texts[0], call->fids[1]->node->fd,
                    call->texts[1])
               ? -errno
               : 0;
}

int share_answer_unlinkat(struct share_call *call)
{
    int flags = call->numbers[0] & GUEST_REMOVE_FOLDER ? AT_REMOVEDIR : 0;

    return unlinkat(call->fids[0]->node->fd, call->texts[0], flags) ? -errno : 0;
}

/* The fid goes, whether the file does or not. */
int share_answer_remove(struct share_call *call)
{
    const struct share_node *node = call->fids[0]->node;
    int status = check_place(node);

    if (!status && unlinkat(node->parent->fd, node->name, S_ISDIR(node->type) ? AT_REMOVEDIR : 0))
        status = -errno;
    share_drop_fid(call->server, call->fids[0]);
    return status;
}
