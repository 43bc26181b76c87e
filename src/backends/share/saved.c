/*
 * saved.c - what a guest has open in a share, for the state of its machine
 *
 * A fid is its number, what it stands for, and the path of that from the folder. Loading walks the
 * path step by step, as the guest has walked it, and opens again what was open; so it reaches
 * nothing that a guest could not reach. What is not there any more, or is something else now, and
 * values of attributes, become lost nodes, whose messages end with ESTALE.
 *
 *     state = message_bytes:u32 records
 *     record = number:u32 kind:u8 type:u32 flags:u32 size:u16 path      (little-endian)
 */
#include "backends/share/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"

#define HEAD_BYTES   4u
#define RECORD_BYTES 15u
#define NODE_LISTS   1024u

/* ---- saving ---- */

/* The path as the kernel knows it, or -1: it has none, or a longer one. */
static ssize_t read_path(const struct share_server *server, const struct share_node *node,
                         char *out, size_t size)
{
    ssize_t length = readlinkat(server->proc_fd, share_node_path(node).text, out, size);

    return length >= 0 && (size_t)length < size ? length : -1;
}

static bool is_same(int fd, int other)
{
    struct stat a, b;

    return !fstat(fd, &a) && !fstat(other, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* Does path lead to node? What was removed has one that does not. */
static bool leads_to(const struct share_server *server, const char *path,
                     const struct share_node *node)
{
    struct share_node *at = share_node_get(server->root);
    const char *name = path;
    bool is_it;

    while (at && *name) {
        size_t length = strcspn(name, "/");
        struct share_node *next = NULL;
        char step[NAME_MAX + 1];
        struct stat st;

        if (length <= NAME_MAX) {
            memcpy(step, name, length);
            step[length] = '\0';
            if (share_node_step(at, step, &next, &st))
                next = NULL;
        }
        share_node_put(at);
        at = next;
        name += length + (name[length] == '/');
    }
    is_it = at && is_same(at->fd, node->fd);
    share_node_put(at);
    return is_it;
}

/* Its path from the folder, without a slash at the beginning. False: it is lost. */
static bool find_path(const struct share_server *server, const struct share_node *node,
                      char out[PATH_MAX])
{
    char root[PATH_MAX];
    ssize_t root_length = read_path(server, server->root, root, sizeof(root));
    ssize_t length = read_path(server, node, out, PATH_MAX);

    if (root_length < 0 || length < root_length || memcmp(out, root, (size_t)root_length) != 0)
        return false;
    memmove(out, out + root_length, (size_t)(length - root_length));
    out[length - root_length] = '\0';
    if (*out == '/')
        memmove(out, out + 1, strlen(out));
    return leads_to(server, out, node);
}

static int add_record(const struct share_server *server, const struct share_fid *fid,
                      struct state_buffer *out)
{
    const struct share_node *node = fid->node;
    char path[PATH_MAX] = "";
    bool is_found =
        (node->kind == NODE_PATH || node->kind == NODE_OPEN) && find_path(server, node, path);
    size_t size = is_found ? strlen(path) : 0;
    uint8_t *record = state_buffer_add(out, RECORD_BYTES + size);

    if (!record)
        return -ENOMEM;
    put_le32(record, fid->number);
    record[4] = (uint8_t)(is_found ? node->kind : NODE_LOST);
    put_le32(record + 5, node->type);
    put_le32(record + 9, is_found && node->kind == NODE_OPEN ? (uint32_t)node->flags : 0);
    put_le16(record + 13, (uint16_t)size);
    memcpy(record + RECORD_BYTES, path, size);
    return 0;
}

int share_server_save(const struct share_server *server, struct state_buffer *out)
{
    uint8_t *head = state_buffer_add(out, HEAD_BYTES);

    if (!head)
        return -ENOMEM;
    put_le32(head, server->message_bytes);
    for (unsigned n = 0; n < SHARE_FID_LISTS; n++)
        for (const struct share_fid *fid = server->fids[n]; fid; fid = fid->next)
            if (add_record(server, fid, out) || out->size_bytes > SHARE_MAX_STATE)
                return -ENOMEM;
    return 0;
}

/* ---- loading ---- */

/* Nodes that were found, so that fids share them as they did. */
struct found {
    struct share_node *node; /* one reference */
    struct found *next;
};

struct loader {
    struct share_server *server;
    struct found *lists[NODE_LISTS];
};

static unsigned list_of(const struct share_node *folder, const char *name)
{
    uint32_t hash = (uint32_t)folder->fd * 2654435761u;

    for (; *name; name++)
        hash = (hash ^ (uint8_t)*name) * 16777619u;
    return hash % NODE_LISTS;
}

/* Borrowed. NULL: there is none. */
static struct share_node *step(struct loader *loader, struct share_node *folder, const char *name)
{
    struct found **list = &loader->lists[list_of(folder, name)], *found = *list;
    struct stat st;

    while (found && (found->node->parent != folder || strcmp(found->node->name, name) != 0))
        found = found->next;
    if (found)
        return found->node;
    found = malloc(sizeof(*found));
    if (!found || share_node_step(folder, name, &found->node, &st)) {
        free(found);
        return NULL;
    }
    found->next = *list;
    *list = found;
    return found->node;
}

/* Borrowed. NULL: it is not there, or of another type; *out_bad: path is none. */
static struct share_node *walk(struct loader *loader, char *path, mode_t type, bool *out_bad)
{
    struct share_node *node = loader->server->root;

    while (path && *path) {
        const char *name = strsep(&path, "/");

        *out_bad |= !share_is_name(name);
        node = node && !*out_bad ? step(loader, node, name) : NULL;
    }
    *out_bad |= path != NULL && !*path && node != loader->server->root;
    return node && node->type == type ? node : NULL;
}

/* A reference to what the fid stands for; NULL: no memory. */
static struct share_node *open_again(struct loader *loader, struct share_node *at, unsigned kind,
                                     int flags)
{
    int fd;

    if (at && kind == NODE_PATH)
        return share_node_get(at);
    fd = at ? share_node_open(loader->server, at, flags) : -1;
    return fd < 0 ? share_node_new(NODE_LOST, -1, 0, NULL, NULL)
                  : share_node_new_open(fd, flags, at->type, at->parent, at->name);
}

static int load_record(struct loader *loader, const uint8_t *record, const uint8_t *path,
                       size_t size)
{
    struct share_server *server = loader->server;
    uint32_t number = get_le32(record), flags = get_le32(record + 9);
    unsigned kind = record[4];
    struct share_node *node = NULL;
    char text[PATH_MAX];
    bool is_bad = false;

    if (share_find_fid(server, number) || size >= sizeof(text) || memchr(path, '\0', size) ||
        (kind != NODE_PATH && kind != NODE_OPEN && kind != NODE_LOST) ||
        flags & ~(uint32_t)SHARE_OPEN_FLAGS || (flags & O_ACCMODE) == O_ACCMODE ||
        (server->read_only && flags & O_ACCMODE))
        return -EINVAL;
    memcpy(text, path, size);
    text[size] = '\0';
    if (kind != NODE_LOST)
        node = walk(loader, text, (mode_t)get_le32(record + 5), &is_bad);
    if (is_bad)
        return -EINVAL;
    node = open_again(loader, node, kind, (int)flags);
    return node ? share_set_fid(server, number, node) : -ENOMEM;
}

int share_server_load(struct share_server *server, const uint8_t *data, size_t size)
{
    struct loader loader = {.server = server};
    int status = size >= HEAD_BYTES && get_le32(data) <= SHARE_MAX_MESSAGE ? 0 : -EINVAL;
    size_t at = HEAD_BYTES;

    share_server_forget(server);
    if (!status)
        server->message_bytes = get_le32(data);
    while (!status && at < size) {
        size_t path = size - at >= RECORD_BYTES ? get_le16(data + at + 13) : size;

        status = path <= size - at - RECORD_BYTES && path < size
                     ? load_record(&loader, data + at, data + at + RECORD_BYTES, path)
                     : -EINVAL;
        at += RECORD_BYTES + path;
    }
    for (unsigned n = 0; n < NODE_LISTS; n++)
        while (loader.lists[n]) {
            struct found *found = loader.lists[n];

            loader.lists[n] = found->next;
            share_node_put(found->node);
            free(found);
        }
    if (status)
        share_server_forget(server);
    return status;
}
