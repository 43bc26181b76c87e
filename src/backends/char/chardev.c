/*
 * chardev.c - the kinds of character backend, and the calls between them and devices
 *
 * Threads: machine lock held; opening and freeing on the main loop's thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/char/internal.h"

static const struct chardev_kind *const kinds[] = {
    &chardev_file, &chardev_null, &chardev_pty, &chardev_ring, &chardev_socket, &chardev_stdio,
};
#define KIND_COUNT (sizeof(kinds) / sizeof(kinds[0]))

const char *chardev_kind_name(unsigned index)
{
    return index < KIND_COUNT ? kinds[index]->ops.name : NULL;
}

const char *chardev_kind_summary(unsigned index)
{
    return index < KIND_COUNT ? kinds[index]->ops.summary : NULL;
}

/* ---- opening ---- */

static const struct chardev_kind *find_kind(const char *name, size_t length)
{
    for (size_t i = 0; i < KIND_COUNT; i++)
        if (strlen(kinds[i]->ops.name) == length && !memcmp(kinds[i]->ops.name, name, length))
            return kinds[i];
    return NULL;
}

static void no_such_kind(const char *description, size_t length, struct error *err)
{
    const char *names[KIND_COUNT + 1] = {NULL};
    char name[32] = "";
    const char *nearest;

    for (size_t i = 0; i < KIND_COUNT; i++)
        names[i] = kinds[i]->ops.name;
    if (length < sizeof(name))
        memcpy(name, description, length);
    nearest = nearest_word(name, names);
    error_set(err, ENOENT, "there is no character backend '%.*s'; %s%s%s", (int)length, description,
              nearest ? "did you mean '" : "known are file, null, pty, ring, socket and stdio",
              nearest ? nearest : "", nearest ? "'?" : "");
}

/* Everything that both the front and the back end may rely on, before the kind's own open. */
static struct chardev *instantiate(const struct chardev_kind *kind, const char *settings,
                                   struct error *err)
{
    struct chardev *chardev = calloc(1, kind->instance_size);

    if (!chardev) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    chardev->ops = &kind->ops;
    chardev->connected = true;
    if (properties_init(kind->properties, chardev, err) ||
        (*settings && properties_parse(kind->properties, chardev, settings, err))) {
        properties_done(kind->properties, chardev);
        free(chardev);
        return NULL;
    }
    return chardev;
}

static const struct chardev_kind *kind_of(const struct chardev *chardev)
{
    return (const struct chardev_kind *)((const char *)chardev->ops -
                                         offsetof(struct chardev_kind, ops));
}

struct chardev *chardev_open(struct loop *loop, const char *description, struct error *err)
{
    size_t length = strcspn(description, ":");
    const struct chardev_kind *kind = find_kind(description, length);
    struct chardev *chardev;

    if (!kind) {
        no_such_kind(description, length, err);
        return NULL;
    }
    chardev = instantiate(kind, description[length] ? description + length + 1 : "", err);
    if (chardev && kind->open && kind->open(chardev, loop, err)) {
        chardev_free(chardev);
        chardev = NULL;
    }
    if (!chardev)
        error_prefix(err, "%s: ", kind->ops.name);
    return chardev;
}

void chardev_free(struct chardev *chardev)
{
    if (!chardev)
        return;
    chardev->frontend = NULL;
    if (chardev->ops->free)
        chardev->ops->free(chardev);
    properties_done(kind_of(chardev)->properties, chardev);
    free(chardev);
}

void chardev_set_console(struct chardev *chardev, const struct chardev_console *console)
{
    chardev->console = console;
}

void chardev_set_tap(struct chardev *chardev, const struct chardev_tap *tap)
{
    chardev->tap = tap;
}

/* ---- front end to backend ---- */

void chardev_connect(struct chardev *chardev, const struct chardev_frontend *frontend)
{
    chardev->frontend = frontend;
    if (frontend)
        chardev_accept_input(chardev);
}

size_t chardev_send(struct chardev *chardev, const uint8_t *data, size_t size_bytes)
{
    size_t taken = chardev ? chardev->ops->send(chardev, data, size_bytes) : size_bytes;

    if (chardev && chardev->tap && taken)
        chardev->tap->sent(chardev->tap->opaque, data, taken);
    return taken;
}

void chardev_accept_input(struct chardev *chardev)
{
    if (chardev && chardev->ops->accept_input)
        chardev->ops->accept_input(chardev);
    if (chardev && chardev->tap)
        chardev->tap->accept_input(chardev->tap->opaque);
}

void chardev_set_open(struct chardev *chardev, bool is_open)
{
    if (chardev->ops->opened)
        chardev->ops->opened(chardev, is_open);
}

bool chardev_window(struct chardev *chardev, uint16_t *out_columns, uint16_t *out_rows)
{
    return chardev && chardev->ops->window && chardev->ops->window(chardev, out_columns, out_rows);
}

/* ---- backend to front end ---- */

size_t chardev_room(struct chardev *chardev)
{
    const struct chardev_frontend *frontend = chardev->frontend;

    return frontend && frontend->can_receive ? frontend->can_receive(frontend->opaque) : 0;
}

void chardev_deliver(struct chardev *chardev, const uint8_t *data, size_t size_bytes)
{
    const struct chardev_frontend *frontend = chardev->frontend;

    if (frontend && frontend->receive && size_bytes)
        frontend->receive(frontend->opaque, data, size_bytes);
}

void chardev_deliver_break(struct chardev *chardev)
{
    const struct chardev_frontend *frontend = chardev->frontend;

    if (frontend && frontend->receive_break)
        frontend->receive_break(frontend->opaque);
}

void chardev_notify_resized(struct chardev *chardev)
{
    const struct chardev_frontend *frontend = chardev->frontend;

    if (frontend && frontend->resized)
        frontend->resized(frontend->opaque);
}

void chardev_notify_can_send(struct chardev *chardev)
{
    const struct chardev_frontend *frontend = chardev->frontend;

    if (frontend && frontend->can_send)
        frontend->can_send(frontend->opaque);
}

void chardev_set_connected(struct chardev *chardev, bool connected)
{
    const struct chardev_frontend *frontend = chardev->frontend;

    if (chardev->connected == connected)
        return;
    chardev->connected = connected;
    if (frontend && frontend->hang_up)
        frontend->hang_up(frontend->opaque, connected);
}
