/*
 * internal.h - what the character backends share
 *
 * A backend is a struct chardev_kind in the table of chardev.c: its settings are a
 * property table over the instance, whose first member is struct chardev.
 */
#ifndef BACKENDS_CHAR_INTERNAL_H
#define BACKENDS_CHAR_INTERNAL_H

#include "host/loop.h"
#include "trapeze/chardev.h"
#include "trapeze/property.h"

struct chardev_kind {
    struct chardev_ops ops;
    size_t instance_size;
    const struct property *properties; /* may be NULL */
    /* Start up; on failure ops.free is called (which may find it half-built). */
    int (*open)(struct chardev *chardev, struct loop *loop, struct error *err);
};

extern const struct chardev_kind chardev_file, chardev_null, chardev_pty, chardev_ring,
    chardev_socket, chardev_stdio;

/* ---- bytes on their way to a file descriptor that may be slow (output.c) ---- */

#define CHAR_OUTPUT_SIZE 65536u

enum char_output_mode {
    CHAR_OUTPUT_PLAIN,    /* write() never waits long: files and the like */
    CHAR_OUTPUT_NONBLOCK, /* the descriptor says EAGAIN */
    CHAR_OUTPUT_SOCKET,   /* send(MSG_DONTWAIT) */
    CHAR_OUTPUT_CAREFUL,  /* a blocking pipe: write little, and only after poll() */
};

/* Tell that there is room again after put() took less than it was given. */
typedef void char_output_room_fn(void *opaque);

struct char_output {
    int fd;
    enum char_output_mode mode;
    bool owns_fd;
    bool starved; /* somebody waits for room */
    bool broken;  /* the other end is gone: everything is dropped */
    bool flush_due;
    struct loop_fd *writer;
    struct loop_fd *flusher;
    int timer_fd;
    char_output_room_fn *room;
    void *opaque;
    size_t head, count;
    uint8_t *data; /* CHAR_OUTPUT_SIZE bytes */
};

/*
 * fd < 0: nothing is open yet, bytes are dropped. The mode follows from what fd is; a
 * terminal or pipe is opened once more so that non-blocking mode does not reach
 * other holders of the same descriptor. owns_fd: closed by char_output_done.
 */
int char_output_init(struct char_output *output, struct loop *loop, int fd, bool owns_fd,
                     char_output_room_fn *room, void *opaque, struct error *err);
/* Write out what is left, as long as the reader makes progress; then release. */
void char_output_done(struct char_output *output);
/* Take up to size_bytes; less only when the buffer is full. */
size_t char_output_put(struct char_output *output, const uint8_t *data, size_t size_bytes);

/* ---- bytes on their way to the front end (input.c) ---- */

#define CHAR_INPUT_SIZE 4096u

/* A buffer between a descriptor and the front end's room. */
struct char_input {
    struct chardev *chardev;
    size_t head, count;
    uint8_t data[CHAR_INPUT_SIZE];
};

void char_input_push(struct char_input *input);              /* deliver what fits */
bool char_input_add(struct char_input *input, uint8_t byte); /* false: full */
size_t char_input_room(const struct char_input *input);

#endif
