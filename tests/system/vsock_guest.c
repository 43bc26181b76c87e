/*
 * vsock_guest.c - what vsock.py runs in a guest
 *
 * "echo PORT": whoever connects reads what he writes, until he ends it. "send PORT": standard input
 * goes to the host's port, and what comes back to standard output.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* Until the end of from. */
static void copy(int from, int to)
{
    static char data[65536];
    ssize_t size, done;

    while ((size = read(from, data, sizeof(data))) > 0)
        for (ssize_t at = 0; at < size; at += done)
            if ((done = write(to, data + at, (size_t)(size - at))) <= 0)
                fail("write");
    if (size < 0)
        fail("read");
}

static void echo(int fd, struct sockaddr_vm *address)
{
    if (bind(fd, (struct sockaddr *)address, sizeof(*address)) || listen(fd, 16))
        fail("listen");
    printf("vsock: echo is ready\n");
    fflush(stdout);
    for (;;) {
        int peer = accept(fd, NULL, NULL);

        if (peer < 0)
            fail("accept");
        if (fork() == 0) {
            copy(peer, peer);
            exit(0);
        }
        close(peer);
    }
}

static void send_all(int fd, struct sockaddr_vm *address)
{
    address->svm_cid = VMADDR_CID_HOST;
    if (connect(fd, (struct sockaddr *)address, sizeof(*address)))
        fail("connect");
    if (fork() == 0) {
        copy(STDIN_FILENO, fd);
        shutdown(fd, SHUT_WR);
        exit(0);
    }
    copy(fd, STDOUT_FILENO);
}

int main(int count, char **words)
{
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
    struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY};

    if (count != 3 || fd < 0)
        fail("socket");
    address.svm_port = (unsigned)strtoul(words[2], NULL, 0);
    if (strcmp(words[1], "echo") == 0)
        echo(fd, &address);
    send_all(fd, &address);
    return 0;
}
