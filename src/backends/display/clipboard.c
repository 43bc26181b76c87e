/*
 * clipboard.c - text that people copy, between viewers and the guest
 */
#include "trapeze/clipboard.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void clipboard_join(struct clipboard *clipboard, struct clipboard_peer *peer)
{
    peer->next = clipboard->peers;
    clipboard->peers = peer;
}

void clipboard_leave(struct clipboard *clipboard, struct clipboard_peer *peer)
{
    struct clipboard_peer **link = &clipboard->peers;

    while (*link && *link != peer)
        link = &(*link)->next;
    if (*link)
        *link = peer->next;
}

int clipboard_copy(struct clipboard *clipboard, const struct clipboard_peer *peer, const char *text,
                   size_t size)
{
    char *copy;

    if (size > CLIPBOARD_MAX)
        return -E2BIG;
    copy = malloc(size + 1);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, text, size);
    copy[size] = '\0';
    free(clipboard->text);
    clipboard->text = copy;
    clipboard->size = size;
    for (struct clipboard_peer *other = clipboard->peers; other; other = other->next)
        if (other != peer)
            other->ops->changed(other->opaque);
    return 0;
}

const char *clipboard_text(const struct clipboard *clipboard, size_t *out_size)
{
    *out_size = clipboard->size;
    return clipboard->text;
}

void clipboard_done(struct clipboard *clipboard)
{
    free(clipboard->text);
    *clipboard = (struct clipboard){0};
}
