/*
 * file.c - output into a file, input from another one
 *
 * "file:path=OUT[,append=on][,input=IN]". Named pipes and character devices work too.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "backends/char/internal.h"

struct file_backend {
    struct chardev chardev;
    char *path, *input; /* properties */
    bool append;
    struct char_output output;
    struct char_input pending;
    int input_fd;
    struct loop_fd *reader;
};

static struct file_backend *file_of(struct chardev *chardev)
{
    return (struct file_backend *)chardev;
}

static size_t file_send(struct chardev *chardev, const uint8_t *data, size_t size_bytes)
{
    return char_output_put(&file_of(chardev)->output, data, size_bytes);
}

static void file_room(void *opaque)
{
    chardev_notify_can_send(opaque);
}

/* ---- input ---- */

static void file_end_input(struct file_backend *file)
{
    loop_remove_fd(file->reader);
    file->reader = NULL;
}

static void file_read(void *opaque, unsigned events)
{
    struct file_backend *file = opaque;
    uint8_t data[256];
    ssize_t size;

    (void)events;
    size = read(file->input_fd, data, sizeof(data));
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (size <= 0) {
        file_end_input(file);
        return;
    }
    for (ssize_t i = 0; i < size; i++)
        char_input_add(&file->pending, data[i]);
    char_input_push(&file->pending);
    if (file->reader && char_input_room(&file->pending) < sizeof(data))
        loop_set_events(file->reader, 0);
}

static void file_accept_input(struct chardev *chardev)
{
    struct file_backend *file = file_of(chardev);

    char_input_push(&file->pending);
    if (file->reader && char_input_room(&file->pending) >= 256)
        loop_set_events(file->reader, LOOP_READ);
}

static int file_open_input(struct file_backend *file, struct loop *loop, struct error *err)
{
    file->input_fd = open(file->input, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (file->input_fd < 0)
        return error_set(err, errno, "%s: %s", file->input, strerror(errno));
    file->reader = loop_add_fd(loop, file->input_fd, LOOP_READ, file_read, file, err);
    return file->reader ? 0 : -ENOMEM;
}

/* ---- lifecycle ---- */

static int file_open(struct chardev *chardev, struct loop *loop, struct error *err)
{
    struct file_backend *file = file_of(chardev);
    int flags = O_WRONLY | O_CREAT | O_NOCTTY | O_CLOEXEC | (file->append ? O_APPEND : O_TRUNC);
    int fd, rc;

    file->input_fd = -1;
    file->output.fd = -1;
    file->output.timer_fd = -1;
    file->pending.chardev = chardev;
    if (!file->path || !*file->path)
        return error_set(err, EINVAL, "give the output file with path=");
    fd = open(file->path, flags, 0666);
    if (fd < 0)
        return error_set(err, errno, "%s: %s", file->path, strerror(errno));
    rc = char_output_init(&file->output, loop, fd, true, file_room, chardev, err);
    if (!rc && file->input)
        rc = file_open_input(file, loop, err);
    return rc;
}

static void file_free(struct chardev *chardev)
{
    struct file_backend *file = file_of(chardev);

    file_end_input(file);
    if (file->input_fd >= 0)
        close(file->input_fd);
    char_output_done(&file->output);
}

static const struct property file_properties[] = {
    PROPERTY_STRING(struct file_backend, path, NULL, "file that output is written to"),
    PROPERTY_BOOL(struct file_backend, append, false, "keep what the file holds already"),
    PROPERTY_STRING(struct file_backend, input, NULL, "file that input is read from"),
    PROPERTY_END,
};

const struct chardev_kind chardev_file = {
    .ops =
        {
            .name = "file",
            .summary = "output into a file, input from another one",
            .send = file_send,
            .accept_input = file_accept_input,
            .free = file_free,
        },
    .instance_size = sizeof(struct file_backend),
    .properties = file_properties,
    .open = file_open,
};
