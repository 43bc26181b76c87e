/*
 * node.c - files and folders that fids stand for
 *
 * A node holds an O_PATH descriptor, found by one step down from another's, never through a
 * symbolic link. It is opened by its own entry in /proc/self/fd, so that nobody can put something
 * else in its place meanwhile.
 */
#include "backends/share/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct share_node *share_node_new(enum node_kind kind, int fd, mode_t type,
                                  struct share_node *parent, const char *name)
{
    struct share_node *node = calloc(1, sizeof(*node));
    char *copy = name ? strdup(name) : NULL;

    if (!node || (name && !copy)) {
        free(node);
        free(copy);
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    *node = (struct share_node){.kind = kind,
                                .references = 1,
                                .fd = fd,
                                .type = type,
                                .parent = parent ? share_node_get(parent) : NULL,
                                .name = copy};
    return node;
}

struct share_node *share_node_new_open(int fd, int flags, mode_t type, struct share_node *parent,
                                       const char *name)
{
    struct share_node *node = share_node_new(NODE_OPEN, fd, type, parent, name);

    if (node)
        node->flags = flags & SHARE_OPEN_FLAGS;
    return node;
}

struct share_node *share_node_get(struct share_node *node)
{
    node->references++;
    return node;
}

void share_node_put(struct share_node *node)
{
    while (node && --node->references == 0) {
        struct share_node *parent = node->parent;

        if (node->fd >= 0)
            close(node->fd);
        free(node->name);
        free(node->value);
        free(node);
        node = parent;
    }
}

int share_node_step(struct share_node *folder, const char *name, struct share_node **out_node,
                    struct stat *out_stat)
{
    int fd = openat(folder->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    int code;

    if (fd < 0)
        return -errno;
    if (fstat(fd, out_stat)) {
        code = errno;
        close(fd);
        return -code;
    }
    *out_node = share_node_new(NODE_PATH, fd, out_stat->st_mode & S_IFMT, folder, name);
    return *out_node ? 0 : -ENOMEM;
}

struct share_path share_node_path(const struct share_node *node)
{
    struct share_path path;

    snprintf(path.text, sizeof(path.text), "%d", node->fd);
    return path;
}

int share_node_open(const struct share_server *server, const struct share_node *node, int flags)
{
    int fd;

    if (S_ISLNK(node->type))
        return -ELOOP;
    if (!S_ISREG(node->type) && !S_ISDIR(node->type))
        return -ENXIO; /* the guest's kernel has pipes, sockets and devices of its own */
    fd = openat(server->proc_fd, share_node_path(node).text,
                flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}
