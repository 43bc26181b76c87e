/*
 * process.c - a process of our own that does one thing for the machine's; unix sockets
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "host/host.h"

/* Nothing is left of whoever started it but standard error and the socket. Returns that. */
static int leave_all(int socket)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC), kept = fcntl(socket, F_DUPFD_CLOEXEC, 3);

    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    close_range(3, (unsigned)kept - 1, 0);
    close_range((unsigned)kept + 1, ~0u, 0);
    return kept;
}

int host_process_start(const char *name, void (*run)(int socket, void *opaque), void *opaque,
                       int *out_socket, struct error *err)
{
    pid_t parent = getpid(), child;
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
        return error_set(err, errno, "socketpair: %s", strerror(errno));
    child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        prctl(PR_SET_NAME, name);
        run(leave_all(ends[1]), opaque);
        _exit(0);
    }
    close(ends[1]);
    if (child < 0) {
        close(ends[0]);
        return error_set(err, errno, "fork: %s", strerror(errno));
    }
    *out_socket = ends[0];
    return child;
}

ptrdiff_t host_receive(int socket, void *out, size_t size, bool waits, int *out_fd)
{
    struct iovec data = {out, size};
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = CMSG_LEN(sizeof(int))}; /* for no second one */
    ssize_t received = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | (waits ? 0 : MSG_DONTWAIT));
    const struct cmsghdr *header = received > 0 ? CMSG_FIRSTHDR(&message) : NULL;

    *out_fd = -1;
    if (header && header->cmsg_type == SCM_RIGHTS)
        memcpy(out_fd, CMSG_DATA(header), sizeof(*out_fd));
    return received;
}

ptrdiff_t host_send(int socket, const void *data, size_t size, int fd)
{
    struct iovec bytes = {(void *)(uintptr_t)data, size};
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.room = {0}};
    struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1};

    if (fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof(control);
        control.header = (struct cmsghdr){
            .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
        memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
    }
    return sendmsg(socket, &message, MSG_NOSIGNAL);
}

static void remove_stale(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct stat status;

    if (fd < 0)
        return;
    if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 &&
        errno == ECONNREFUSED && !lstat(address->sun_path, &status) && S_ISSOCK(status.st_mode))
        unlink(address->sun_path);
    close(fd);
}

int host_listen(const char *path, unsigned backlog, bool is_private, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd;

    if (strlen(path) >= sizeof(address.sun_path))
        return error_set(err, ENAMETOOLONG, "path '%s' is longer than %zu bytes", path,
                         sizeof(address.sun_path) - 1);
    strcpy(address.sun_path, path);
    remove_stale(&address);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_set(err, errno, "socket: %s", strerror(errno));
    if (is_private)
        fchmod(fd, 0600); /* Linux gives the mode to the file that bind makes */
    if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 &&
        listen(fd, (int)backlog) == 0)
        return fd;
    error_set(err, errno, "%s: %s", path, strerror(errno));
    close(fd);
    return -EINVAL;
}
