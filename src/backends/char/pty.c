/*
 * pty.c - a pseudo terminal of its own, for a terminal program to open
 *
 * "pty[:link=NAME]" makes a symbolic link to the terminal, whose own name is only
 * known once it is there (it is logged). While nobody has it open, output is dropped and the
 * device sees its modem lines off; a timer looks for somebody four times a second, because
 * a hang-up is a state that cannot be waited out.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <termios.h>
#include <unistd.h>

#include "backends/char/internal.h"
#include "base/log.h"

#define READ_BYTES    256
#define LOOK_EVERY_NS 250000000

struct pty_backend {
    struct chardev chardev;
    char *link; /* property */
    bool linked;
    int master_fd, timer_fd;
    struct loop_fd *reader, *looker;
    struct char_output output; /* on a second descriptor of the master side */
    struct char_input input;
};

static struct pty_backend *pty_of(struct chardev *chardev)
{
    return (struct pty_backend *)chardev;
}

static void update_reading(struct pty_backend *p)
{
    bool wanted = p->chardev.connected && char_input_room(&p->input) >= READ_BYTES;

    loop_set_events(p->reader, wanted ? LOOP_READ : 0);
}

static void pty_hung_up(struct pty_backend *p)
{
    p->output.head = p->output.count = 0;
    p->input.head = p->input.count = 0;
    tcflush(p->master_fd, TCIOFLUSH);
    chardev_set_connected(&p->chardev, false);
    update_reading(p);
    chardev_notify_can_send(&p->chardev);
}

static void read_master(void *opaque, unsigned events)
{
    struct pty_backend *p = opaque;
    uint8_t data[READ_BYTES];
    ssize_t size = read(p->master_fd, data, sizeof(data));

    (void)events;
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (size <= 0) {
        pty_hung_up(p);
        return;
    }
    for (ssize_t i = 0; i < size; i++)
        char_input_add(&p->input, data[i]);
    char_input_push(&p->input);
    update_reading(p);
}

static bool somebody_is_there(const struct pty_backend *p)
{
    struct pollfd state = {.fd = p->master_fd, .events = POLLOUT};

    return poll(&state, 1, 0) >= 0 && !(state.revents & POLLHUP);
}

static void look(void *opaque, unsigned events)
{
    struct pty_backend *p = opaque;
    uint64_t expirations;
    bool present;

    (void)events;
    if (read(p->timer_fd, &expirations, sizeof(expirations)) < 0)
        return;
    present = somebody_is_there(p);
    if (present && !p->chardev.connected) {
        chardev_set_connected(&p->chardev, true);
        update_reading(p);
    } else if (!present && p->chardev.connected) {
        pty_hung_up(p);
    }
}

static size_t pty_send(struct chardev *chardev, const uint8_t *data, size_t size_bytes)
{
    struct pty_backend *p = pty_of(chardev);

    return chardev->connected ? char_output_put(&p->output, data, size_bytes) : size_bytes;
}

static void pty_accept_input(struct chardev *chardev)
{
    struct pty_backend *p = pty_of(chardev);

    char_input_push(&p->input);
    update_reading(p);
}

static void pty_room(void *opaque)
{
    chardev_notify_can_send(opaque);
}

/* ---- lifecycle ---- */

/* Raw, so that the terminal does not echo and translate before a program sets it up. */
static void make_raw(const char *name)
{
    int fd = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    struct termios mode;

    if (fd < 0)
        return;
    if (!tcgetattr(fd, &mode)) {
        cfmakeraw(&mode);
        tcsetattr(fd, TCSANOW, &mode);
    }
    close(fd);
}

static int open_master(struct pty_backend *p, struct error *err)
{
    char name[64];

    p->master_fd = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (p->master_fd < 0 || grantpt(p->master_fd) || unlockpt(p->master_fd) ||
        ptsname_r(p->master_fd, name, sizeof(name)))
        return error_set(err, errno, "no pseudo terminal: %s", strerror(errno));
    make_raw(name);
    if (p->link && symlink(name, p->link))
        return error_set(err, errno, "link '%s': %s", p->link, strerror(errno));
    p->linked = p->link != NULL;
    log_info("pseudo terminal %s", name);
    return 0;
}

static int start_looking(struct pty_backend *p, struct loop *loop, struct error *err)
{
    struct itimerspec period = {.it_value.tv_nsec = LOOK_EVERY_NS,
                                .it_interval.tv_nsec = LOOK_EVERY_NS};

    p->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (p->timer_fd < 0 || timerfd_settime(p->timer_fd, 0, &period, NULL))
        return error_set(err, errno, "timerfd: %s", strerror(errno));
    p->looker = loop_add_fd(loop, p->timer_fd, LOOP_READ, look, p, err);
    return p->looker ? 0 : -ENOMEM;
}

static int pty_open(struct chardev *chardev, struct loop *loop, struct error *err)
{
    struct pty_backend *p = pty_of(chardev);
    int fd, rc;

    chardev->connected = false;
    p->master_fd = p->timer_fd = p->output.fd = p->output.timer_fd = -1;
    p->input.chardev = chardev;
    rc = open_master(p, err);
    if (rc)
        return rc;
    fd = fcntl(p->master_fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return error_set(err, errno, "dup: %s", strerror(errno));
    rc = char_output_init(&p->output, loop, fd, true, pty_room, chardev, err);
    if (rc)
        return rc;
    p->reader = loop_add_fd(loop, p->master_fd, 0, read_master, p, err);
    return p->reader ? start_looking(p, loop, err) : -ENOMEM;
}

static void pty_free(struct chardev *chardev)
{
    struct pty_backend *p = pty_of(chardev);

    loop_remove_fd(p->reader);
    loop_remove_fd(p->looker);
    p->output.broken |= !chardev->connected;
    char_output_done(&p->output);
    if (p->timer_fd >= 0)
        close(p->timer_fd);
    if (p->master_fd >= 0)
        close(p->master_fd);
    if (p->linked)
        unlink(p->link);
}

static const struct property pty_properties[] = {
    PROPERTY_STRING(struct pty_backend, link, NULL, "symbolic link to make to the terminal"),
    PROPERTY_END,
};

const struct chardev_kind chardev_pty = {
    .ops =
        {
            .name = "pty",
            .summary = "a pseudo terminal that a terminal program can open",
            .send = pty_send,
            .accept_input = pty_accept_input,
            .free = pty_free,
        },
    .instance_size = sizeof(struct pty_backend),
    .properties = pty_properties,
    .open = pty_open,
};
