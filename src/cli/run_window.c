/*
 * run_window.c - programs of their own: for a machine's screen in a window, and for its sound
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/display/window.h"
#include "cli/run.h"
#include "cli/version.h"
#include "host/host.h"

/* Beside this program, or where it is installed. */
static int find_program(const char *name, char out[PATH_MAX], struct error *err)
{
    ssize_t size = readlink("/proc/self/exe", out, PATH_MAX - strlen(name) - 2);
    char *slash;

    out[size < 0 ? 0 : size] = '\0';
    slash = strrchr(out, '/');
    if (slash) {
        strcpy(slash + 1, name);
        if (access(out, X_OK) == 0)
            return 0;
    }
    snprintf(out, PATH_MAX, "%s/%s", TRAPEZE_LIBEXECDIR, name);
    if (access(out, X_OK) == 0)
        return 0;
    return error_set(err, ENOENT, "%s: %s; has trapeze been built with SDL?", out, strerror(errno));
}

/* more: its words behind the socket, NULL at the end. */
static int become(const char *name, int socket, const char *const more[2], struct error *err)
{
    char program[PATH_MAX], number[16];
    sigset_t none;

    if (find_program(name, program, err))
        return -ENOENT;
    snprintf(number, sizeof(number), "%d", socket);
    fcntl(socket, F_SETFD, 0); /* not closed */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execl(program, program, number, more[0], more[1], NULL);
    return error_set(err, errno, "%s: %s", program, strerror(errno));
}

int run_become_window(int socket, const char *name, bool may_end, struct error *err)
{
    return become("trapeze-window", socket, (const char *[2]){name, may_end ? "end" : "leave"},
                  err);
}

/* In a process of its own. */
static void run_program(int socket, void *opaque)
{
    struct {
        uint32_t kind;
        char text[WINDOW_TEXT_BYTES - sizeof(uint32_t)];
    } packet = {.kind = WINDOW_FAILED};
    struct error err = {0};

    run_become_window(socket, opaque, true, &err);
    snprintf(packet.text, sizeof(packet.text), "%.200s", err.text);
    host_send(socket, &packet, sizeof(packet.kind) + strlen(packet.text), -1);
}

int run_start_window(const char *name, struct error *err)
{
    int socket,
        process = host_process_start("window", run_program, (void *)(uintptr_t)name, &socket, err);

    return process < 0 ? process : socket;
}

/* In a process of its own. */
static void run_player(int socket, void *opaque)
{
    struct error err = {0};

    (void)opaque;
    become("trapeze-sound", socket, (const char *[2]){NULL}, &err);
    host_send(socket, err.text, strlen(err.text), -1);
}

int run_start_player(struct error *err)
{
    int socket, process = host_process_start("sound", run_player, NULL, &socket, err);

    return process < 0 ? process : socket;
}
