/*
 * test_chardev.c - character backends: back-pressure, sockets, terminals, the escape key
 *
 * Backends on standard input and output run in a child process, with pipes or a pseudo
 * terminal at its ends.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "backends/char/internal.h"
#include "host/loop.h"
#include "trapeze/chardev.h"

#define MS        1000000ull
#define CONTROL_A "\x01"

/* ---- a front end that keeps what it gets ---- */

struct front {
    struct chardev_frontend ops;
    size_t room;
    char got[512];
    size_t length;
    unsigned breaks, can_sends, ups, downs;
};

static size_t front_room(void *opaque)
{
    return ((struct front *)opaque)->room;
}

static void front_receive(void *opaque, const uint8_t *data, size_t size_bytes)
{
    struct front *front = opaque;

    assert_true(size_bytes <= front->room && front->length + size_bytes < sizeof(front->got));
    memcpy(front->got + front->length, data, size_bytes);
    front->length += size_bytes;
    front->room -= size_bytes;
}

static void front_can_send(void *opaque)
{
    ((struct front *)opaque)->can_sends++;
}

static void front_hang_up(void *opaque, bool connected)
{
    if (connected)
        ((struct front *)opaque)->ups++;
    else
        ((struct front *)opaque)->downs++;
}

static void front_break(void *opaque)
{
    ((struct front *)opaque)->breaks++;
}

static struct front *front_new(size_t room)
{
    static struct front front;

    front = (struct front){
        .ops = {.can_receive = front_room,
                .receive = front_receive,
                .can_send = front_can_send,
                .hang_up = front_hang_up,
                .receive_break = front_break,
                .opaque = &front},
        .room = room,
    };
    return &front;
}

/* ---- a scratch folder and a loop ---- */

static struct loop *loop;
static char folder[] = "/tmp/test_chardev.XXXXXX";

static int set_up_group(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down_group(void **state)
{
    (void)state;
    return rmdir(folder);
}

static int set_up(void **state)
{
    (void)state;
    loop = loop_new(NULL);
    return loop ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    loop_free(loop);
    return 0;
}

static const char *in_folder(const char *name)
{
    static char paths[4][64];
    static unsigned turn;
    char *path = paths[turn++ % 4];

    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

static void run_loop(unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++)
        loop_once(loop, 5 * MS);
}

static size_t send_text(struct chardev *chardev, const char *text)
{
    return chardev_send(chardev, (const uint8_t *)text, strlen(text));
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void expect_file(const char *path, const char *text)
{
    char got[256];
    FILE *file = fopen(path, "r");
    size_t length;

    assert_non_null(file);
    length = fread(got, 1, sizeof(got) - 1, file);
    fclose(file);
    got[length] = 0;
    assert_string_equal(got, text);
}

/* ---- opening ---- */

static void wrong_descriptions_are_explained(void **state)
{
    struct error err = {0};

    (void)state;
    assert_null(chardev_open(loop, "socke:path=x", &err));
    assert_non_null(strstr(err.text, "socket"));
    error_clear(&err);
    assert_null(chardev_open(loop, "ring:siez=4", &err));
    assert_non_null(strstr(err.text, "size"));
    error_clear(&err);
    assert_null(chardev_open(loop, "file", &err));
    assert_non_null(strstr(err.text, "path="));
    error_clear(&err);
    assert_null(chardev_open(loop, "file:path=/nowhere/at/all", &err));
    assert_int_equal(err.code, ENOENT);
    assert_null(chardev_open(loop, "ring:size=0", NULL));
    assert_null(chardev_open(loop, "", NULL));
    assert_null(chardev_open(loop, "socket:path=", NULL));
}

static void kinds_are_listed(void **state)
{
    unsigned count = 0;

    (void)state;
    while (chardev_kind_name(count)) {
        assert_non_null(chardev_kind_summary(count));
        count++;
    }
    assert_int_equal(count, 6);
    assert_null(chardev_kind_summary(count));
}

static void null_swallows_everything(void **state)
{
    struct chardev *chardev = chardev_open(loop, "null", NULL);

    (void)state;
    assert_int_equal(send_text(chardev, "hello"), 5);
    assert_int_equal(chardev_send(NULL, (const uint8_t *)"x", 1), 1);
    chardev_accept_input(NULL);
    chardev_free(chardev);
    chardev_free(NULL);
}

/* ---- ring ---- */

static void a_full_ring_takes_no_more(void **state)
{
    struct chardev *chardev = chardev_open(loop, "ring:size=4", NULL);
    struct front *front = front_new(2);
    char got[8] = "";

    (void)state;
    chardev_connect(chardev, &front->ops);
    assert_int_equal(send_text(chardev, "abcdef"), 4);
    assert_int_equal(send_text(chardev, "ef"), 0);
    assert_int_equal(front->can_sends, 0);
    assert_int_equal(chardev_ring_take(chardev, (uint8_t *)got, 3), 3);
    assert_int_equal(front->can_sends, 1);
    assert_int_equal(send_text(chardev, "ef"), 2);
    assert_int_equal(chardev_ring_take(chardev, (uint8_t *)got, 8), 3);
    assert_memory_equal(got, "def", 3);
    assert_int_equal(chardev_ring_put(chardev, (const uint8_t *)"xyz", 3), 2);
    assert_memory_equal(front->got, "xy", 2);
    chardev_free(chardev);
}

static void an_overwriting_ring_keeps_the_end(void **state)
{
    struct chardev *chardev = chardev_open(loop, "ring:size=4,overwrite=on", NULL);
    char got[8] = "";

    (void)state;
    assert_int_equal(send_text(chardev, "abcdef"), 6);
    assert_int_equal(chardev_ring_take(chardev, (uint8_t *)got, 8), 4);
    assert_string_equal(got, "cdef");
    chardev_free(chardev);
}

/* ---- tap ---- */

struct listener {
    char heard[16];
    unsigned rooms;
};

static void listener_sent(void *opaque, const uint8_t *data, size_t size_bytes)
{
    struct listener *listener = opaque;

    assert_true(strlen(listener->heard) + size_bytes < sizeof(listener->heard));
    memcpy(listener->heard + strlen(listener->heard), data, size_bytes);
}

static void listener_accept_input(void *opaque)
{
    ((struct listener *)opaque)->rooms++;
}

static void a_tap_hears_what_was_taken_and_types(void **state)
{
    struct chardev *chardev = chardev_open(loop, "ring:size=4", NULL);
    struct front *front = front_new(3);
    struct listener listener = {""};
    const struct chardev_tap tap = {listener_sent, listener_accept_input, &listener};

    (void)state;
    chardev_connect(chardev, &front->ops);
    chardev_set_tap(chardev, &tap);
    assert_int_equal(send_text(chardev, "abcdef"), 4);
    assert_int_equal(send_text(chardev, "ef"), 0);
    assert_string_equal(listener.heard, "abcd");
    chardev_deliver(chardev, (const uint8_t *)"xyz", chardev_room(chardev));
    assert_int_equal(chardev_room(chardev), 0);
    front->room = 2;
    chardev_accept_input(chardev);
    assert_int_equal(listener.rooms, 1);
    assert_string_equal(front->got, "xyz");
    chardev_set_tap(chardev, NULL);
    chardev_accept_input(chardev);
    assert_int_equal(listener.rooms, 1);
    chardev_free(chardev);
}

/* ---- file ---- */

static struct chardev *open_with(const char *format, const char *path, const char *path2)
{
    char text[200];

    snprintf(text, sizeof(text), format, path, path2);
    return chardev_open(loop, text, NULL);
}

static void files_take_output_and_give_input(void **state)
{
    const char *out = in_folder("out"), *in = in_folder("in");
    struct front *front = front_new(3);
    struct chardev *chardev;

    (void)state;
    write_file(in, "typed");
    chardev = open_with("file:path=%s,input=%s", out, in);
    assert_non_null(chardev);
    chardev_connect(chardev, &front->ops);
    send_text(chardev, "line\nrest");
    run_loop(3);
    assert_string_equal(front->got, "typ");
    front->room = 10;
    chardev_accept_input(chardev);
    run_loop(3);
    assert_string_equal(front->got, "typed");
    expect_file(out, "line\nrest"); /* the rest after two milliseconds */
    chardev_free(chardev);
    chardev = open_with("file:path=%s,append=on", out, NULL);
    send_text(chardev, "!");
    chardev_free(chardev);
    expect_file(out, "line\nrest!");
    chardev_free(open_with("file:path=%s", out, NULL));
    expect_file(out, "");
    unlink(out);
    unlink(in);
}

/* epoll knows nothing of plain files, so a sleeping loop must be told by other means. */
static void *want_input_later(void *opaque)
{
    usleep(50000);
    loop_set_events(opaque, LOOP_READ);
    return NULL;
}

static void count_call(void *opaque, unsigned events)
{
    *(unsigned *)opaque += events == LOOP_READ;
}

static void plain_files_wake_a_sleeping_loop(void **state)
{
    const char *path = in_folder("plain");
    struct loop_fd *handler;
    unsigned calls = 0;
    pthread_t thread;
    int fd;

    (void)state;
    write_file(path, "text");
    fd = open(path, O_RDONLY);
    handler = loop_add_fd(loop, fd, LOOP_READ, count_call, &calls, NULL);
    assert_non_null(handler);
    loop_set_events(handler, 0);
    run_loop(1);
    calls = 0;
    alarm(30); /* a loop that sleeps on ends the test */
    pthread_create(&thread, NULL, want_input_later, handler);
    loop_once(loop, UINT64_MAX);
    loop_once(loop, 0);
    alarm(0);
    pthread_join(thread, NULL);
    assert_true(calls > 0);
    loop_remove_fd(handler);
    close(fd);
    unlink(path);
}

/* ---- a slow pipe ---- */

/* 200 KB of numbered lines through a pipe that is read in fits and starts. */
static void a_slow_reader_loses_nothing(void **state)
{
    const char *fifo = in_folder("fifo");
    unsigned sent = 0, lines = 20000, received = 0, number;
    struct front *front = front_new(0);
    size_t queued = 0, position = 0;
    struct chardev *chardev;
    char line[16] = "";
    FILE *reader;
    int fd;

    (void)state;
    assert_int_equal(mkfifo(fifo, 0600), 0);
    fd = open(fifo, O_RDONLY | O_NONBLOCK);
    chardev = open_with("file:path=%s", fifo, NULL);
    assert_non_null(chardev);
    chardev_connect(chardev, &front->ops);
    reader = fdopen(fd, "r");
    fcntl(fd, F_SETFL, 0);
    while (received < lines) {
        while (sent < lines) {
            if (position == queued) {
                queued = (size_t)snprintf(line, sizeof(line), "%09u\n", sent);
                position = 0;
            }
            position += chardev_send(chardev, (uint8_t *)line + position, queued - position);
            if (position < queued)
                break; /* full: wait for can_send */
            sent++;
        }
        for (unsigned i = 0; i < 100 && received < lines; i++, received++) {
            assert_int_equal(fscanf(reader, "%u", &number), 1);
            assert_int_equal(number, received);
        }
        run_loop(1);
    }
    assert_true(front->can_sends > 0);
    fclose(reader);
    assert_int_equal(send_text(chardev, "nobody reads this\n"), 18);
    chardev_free(chardev);
    unlink(fifo);
}

/*
 * The buffer is full up to a few bytes when the reader empties the pipe: what is sent then finds
 * room as soon as the buffer is written out, and no event will ever say so.
 */
static void a_sender_is_not_left_waiting(void **state)
{
    static uint8_t data[4096];
    const char *fifo = in_folder("fifo");
    struct front *front = front_new(0);
    struct chardev *chardev;
    size_t left;
    int fd;

    (void)state;
    assert_int_equal(mkfifo(fifo, 0600), 0);
    fd = open(fifo, O_RDONLY | O_NONBLOCK);
    chardev = open_with("file:path=%s", fifo, NULL);
    chardev_connect(chardev, &front->ops);
    left = (size_t)fcntl(fd, F_GETPIPE_SZ) + CHAR_OUTPUT_SIZE - sizeof(data) / 2;
    for (size_t piece; left; left -= piece) {
        piece = left < sizeof(data) ? left : sizeof(data);
        assert_int_equal(chardev_send(chardev, data, piece), piece);
    }
    while (read(fd, data, sizeof(data)) > 0)
        ;
    if (chardev_send(chardev, data, sizeof(data)) < sizeof(data)) {
        run_loop(3);
        assert_true(front->can_sends > 0);
    }
    close(fd);
    chardev_free(chardev);
    unlink(fifo);
}

/* ---- socket ---- */

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void expect_from(int fd, const char *text)
{
    char got[256] = "";
    size_t length = 0;
    struct pollfd ready = {.fd = fd, .events = POLLIN};

    for (unsigned i = 0; i < 100 && length < strlen(text); i++) {
        run_loop(1);
        if (poll(&ready, 1, 1) > 0) {
            ssize_t more = read(fd, got + length, sizeof(got) - 1 - length);

            if (more <= 0)
                break;
            length += (size_t)more;
        }
    }
    assert_string_equal(got, text);
}

static void one_client_after_the_other(void **state)
{
    const char *path = in_folder("socket");
    struct chardev *chardev = open_with("socket:path=%s", path, NULL);
    struct front *front = front_new(4);
    int first, second;

    (void)state;
    assert_non_null(chardev);
    assert_false(chardev->connected);
    chardev_connect(chardev, &front->ops);
    assert_int_equal(send_text(chardev, "nobody"), 6);
    first = connect_to(path);
    second = connect_to(path);
    run_loop(2);
    assert_int_equal(front->ups, 1);
    assert_int_equal(write(first, "to guest", 8), 8);
    run_loop(2);
    assert_int_equal(front->length, 4);
    front->room = 100;
    chardev_accept_input(chardev);
    assert_string_equal(front->got, "to guest");
    send_text(chardev, "hello\n");
    expect_from(first, "hello\n");
    close(first);
    run_loop(4);
    assert_int_equal(front->downs, 1);
    assert_int_equal(front->ups, 2);
    send_text(chardev, "last words"); /* written out when the chardev is freed */
    chardev_free(chardev);
    expect_from(second, "last words");
    close(second);
    assert_int_equal(access(path, F_OK), -1);
}

static void stale_sockets_are_replaced_but_files_are_not(void **state)
{
    const char *path = in_folder("stale");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct chardev *chardev;

    (void)state;
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    chardev = open_with("socket:path=%s", path, NULL);
    assert_non_null(chardev);
    assert_null(open_with("socket:path=%s", path, NULL)); /* in use */
    chardev_free(chardev);
    write_file(path, "precious");
    assert_null(open_with("socket:path=%s", path, NULL));
    expect_file(path, "precious");
    unlink(path);
}

static void too_long_paths_are_refused(void **state)
{
    char path[160];
    struct error err = {0};

    (void)state;
    memset(path, 'p', sizeof(path) - 1);
    memcpy(path, "socket:path=", 12);
    path[sizeof(path) - 1] = 0;
    assert_null(chardev_open(loop, path, &err));
    assert_int_equal(err.code, ENAMETOOLONG);
}

/* ---- pty ---- */

static void a_pty_is_dropped_until_somebody_is_there(void **state)
{
    const char *link = in_folder("pty");
    struct chardev *chardev = open_with("pty:link=%s", link, NULL);
    struct front *front = front_new(100);
    int fd;

    (void)state;
    if (!chardev) {
        skip(); /* no /dev/ptmx */
        return;
    }
    chardev_connect(chardev, &front->ops);
    assert_int_equal(send_text(chardev, "nobody\n"), 7);
    fd = open(link, O_RDWR | O_NOCTTY);
    assert_true(fd >= 0);
    for (unsigned i = 0; i < 300 && !front->ups; i++)
        run_loop(1);
    assert_int_equal(front->ups, 1);
    send_text(chardev, "hello\n");
    expect_from(fd, "hello\n");
    assert_int_equal(write(fd, "key", 3), 3);
    for (unsigned i = 0; i < 100 && front->length < 3; i++)
        run_loop(1);
    assert_string_equal(front->got, "key");
    close(fd);
    for (unsigned i = 0; i < 300 && !front->downs; i++)
        run_loop(1);
    assert_int_equal(front->downs, 1);
    chardev_free(chardev);
    assert_int_equal(access(link, F_OK), -1);
}

/* ---- stdio, in a child ---- */

static bool quit_asked;

static unsigned presses;

static void on_power(void *opaque)
{
    (void)opaque;
    presses++;
}

static void on_quit(void *opaque)
{
    (void)opaque;
    quit_asked = true;
}

/* Echo what arrives, "<BREAK>" for a break, "<POWER>" for the power button, until "q" or the escape
 * key's x. Returns the status. */
static int echo_child(const char *description)
{
    struct chardev_console console = {
        .quit = on_quit, .press_power_button = on_power, .monitor_hint = "use the force"};
    struct front *front = front_new(100);
    struct chardev *chardev;
    bool done = false;
    unsigned breaks = 0;

    loop = loop_new(NULL);
    chardev = chardev_open(loop, description, NULL);
    if (!chardev)
        return 99;
    chardev_set_console(chardev, &console);
    chardev_connect(chardev, &front->ops);
    send_text(chardev, "ready\n");
    for (unsigned i = 0; i < 1000 && !done && !quit_asked; i++) {
        loop_once(loop, 5 * MS);
        for (; breaks < front->breaks; breaks++)
            send_text(chardev, "<BREAK>");
        for (; presses; presses--)
            send_text(chardev, "<POWER>");
        done = memchr(front->got, 'q', front->length) != NULL;
        chardev_send(chardev, (uint8_t *)front->got, front->length);
        front->length = 0;
        front->room = 100;
        chardev_accept_input(chardev);
    }
    chardev_free(chardev);
    loop_free(loop);
    return done ? 7 : quit_asked ? 8 : 9;
}

static int status_of(pid_t child)
{
    int status;

    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* Read until text has come, a hang-up, or 10 seconds. */
static bool wait_for(int fd, const char *text, char *got, size_t size)
{
    size_t length = strlen(got);
    struct pollfd ready = {.fd = fd, .events = POLLIN};

    while (!strstr(got, text) && poll(&ready, 1, 10000) > 0) {
        ssize_t more = read(fd, got + length, size - 1 - length);

        if (more <= 0)
            break;
        length += (size_t)more;
        got[length] = 0;
    }
    return strstr(got, text) != NULL;
}

static pid_t start_on_pipes(int *out_to, int *out_from, const char *description)
{
    int to[2], from[2];
    pid_t child;

    assert_int_equal(pipe(to), 0);
    assert_int_equal(pipe(from), 0);
    child = fork();
    if (!child) {
        dup2(to[0], STDIN_FILENO);
        dup2(from[1], STDOUT_FILENO);
        close(to[1]);
        close(from[0]);
        _exit(echo_child(description));
    }
    close(to[0]);
    close(from[1]);
    *out_to = to[1];
    *out_from = from[0];
    return child;
}

static void pipes_pass_every_byte(void **state)
{
    int to, from;
    char got[256] = "";
    pid_t child = start_on_pipes(&to, &from, "stdio");

    (void)state;
    assert_true(wait_for(from, "ready\n", got, sizeof(got)));
    assert_int_equal(write(to, "a" CONTROL_A "xq", 4), 4); /* no escape key here */
    assert_true(wait_for(from, "q", got, sizeof(got)));
    assert_string_equal(got, "ready\na" CONTROL_A "xq");
    assert_int_equal(status_of(child), 7);
    close(to);
    close(from);
}

static void the_end_of_input_is_harmless(void **state)
{
    int to, from;
    char got[256] = "";
    pid_t child = start_on_pipes(&to, &from, "stdio");

    (void)state;
    close(to);
    assert_true(wait_for(from, "ready\n", got, sizeof(got)));
    usleep(50000);
    assert_int_equal(waitpid(child, NULL, WNOHANG), 0);
    kill(child, SIGTERM);
    assert_int_equal(status_of(child), 1000 + SIGTERM);
    close(from);
}

/* The pipe's own mode must stay blocking: others hold the same file description. */
static void standard_output_is_left_as_it_was(void **state)
{
    int to, from[2];
    char got[64] = "";
    int in[2];
    pid_t child;

    (void)state;
    assert_int_equal(pipe(from), 0);
    assert_int_equal(pipe(in), 0);
    to = in[1];
    child = fork();
    if (!child) {
        dup2(in[0], STDIN_FILENO);
        dup2(from[1], STDOUT_FILENO);
        _exit(echo_child("stdio"));
    }
    assert_true(wait_for(from[0], "ready\n", got, sizeof(got)));
    assert_int_equal(fcntl(from[1], F_GETFL) & O_NONBLOCK, 0);
    assert_int_equal(write(to, "q", 1), 1);
    assert_int_equal(status_of(child), 7);
    close(in[0]);
    close(in[1]);
    close(from[0]);
    close(from[1]);
}

static const int deadly[] = {SIGTERM, SIGHUP, SIGQUIT, SIGBUS};

struct terminal {
    int master;
    pid_t child;
    char got[2048];
};

/* A child with a pseudo terminal as its controlling terminal; false if there is none to have. */
static bool start_on_terminal(struct terminal *terminal, const char *description)
{
    char name[64];

    memset(terminal, 0, sizeof(*terminal));
    terminal->master = posix_openpt(O_RDWR | O_NOCTTY);
    if (terminal->master < 0 || grantpt(terminal->master) || unlockpt(terminal->master) ||
        ptsname_r(terminal->master, name, sizeof(name)))
        return false;
    terminal->child = fork();
    if (!terminal->child) {
        int fd;

        for (unsigned i = 0; i < sizeof(deadly) / sizeof(deadly[0]); i++)
            signal(deadly[i], SIG_DFL); /* cmocka, nohup and shells change some */
        setsid();
        fd = open(name, O_RDWR);
        ioctl(fd, TIOCSCTTY, 0);
        dup2(fd, STDIN_FILENO);
        dup2(fd, STDOUT_FILENO);
        _exit(echo_child(description));
    }
    assert_true(wait_for(terminal->master, "ready\r\n", terminal->got, sizeof(terminal->got)));
    return true;
}

static void type(struct terminal *terminal, const char *text)
{
    assert_int_equal(write(terminal->master, text, strlen(text)), strlen(text));
}

static bool shows(struct terminal *terminal, const char *text)
{
    return wait_for(terminal->master, text, terminal->got, sizeof(terminal->got));
}

static bool is_raw(struct terminal *terminal)
{
    struct termios mode;

    assert_int_equal(tcgetattr(terminal->master, &mode), 0);
    return !(mode.c_lflag & (ICANON | ECHO | ISIG));
}

#define NEEDS_TERMINAL(t, description)                                                             \
    do {                                                                                           \
        if (!start_on_terminal(t, description)) {                                                  \
            skip();                                                                                \
            return;                                                                                \
        }                                                                                          \
    } while (0)

static void keys_pass_and_the_escape_key_acts(void **state)
{
    struct terminal t;

    (void)state;
    NEEDS_TERMINAL(&t, "stdio");
    assert_true(is_raw(&t));
    type(&t, "ab\x03"); /* Ctrl-C is for the guest */
    assert_true(shows(&t, "ab\x03"));
    type(&t, CONTROL_A "h");
    assert_true(shows(&t, "Ctrl-A x"));
    type(&t, CONTROL_A "b");
    assert_true(shows(&t, "<BREAK>"));
    type(&t, CONTROL_A "p");
    assert_true(shows(&t, "<POWER>"));
    type(&t, CONTROL_A "c");
    assert_true(shows(&t, "use the force"));
    type(&t, "[" CONTROL_A CONTROL_A "]");
    assert_true(shows(&t, "[" CONTROL_A "]"));
    type(&t, "(" CONTROL_A "z)"); /* not a command */
    assert_true(shows(&t, "()"));
    type(&t, CONTROL_A "x");
    assert_int_equal(status_of(t.child), 8);
    assert_false(is_raw(&t));
    close(t.master);
}

static void the_escape_key_can_be_switched_off(void **state)
{
    struct terminal t;

    (void)state;
    NEEDS_TERMINAL(&t, "stdio:escape=off");
    type(&t, "[" CONTROL_A "x]");
    assert_true(shows(&t, "[" CONTROL_A "x]"));
    type(&t, "q");
    assert_int_equal(status_of(t.child), 7);
    close(t.master);
}

static void a_deadly_signal_leaves_the_terminal_in_order(void **state)
{
    struct terminal t;

    (void)state;
    for (unsigned i = 0; i < sizeof(deadly) / sizeof(deadly[0]); i++) {
        NEEDS_TERMINAL(&t, "stdio");
        assert_true(is_raw(&t));
        kill(t.child, deadly[i]);
        assert_int_equal(status_of(t.child), 1000 + deadly[i]);
        assert_false(is_raw(&t));
        close(t.master);
    }
}

static void a_stop_gives_the_terminal_back_for_a_while(void **state)
{
    struct terminal t;
    int status;

    (void)state;
    NEEDS_TERMINAL(&t, "stdio");
    kill(t.child, SIGTSTP);
    /* An orphaned process group ignores SIGTSTP, and the child leads its own session. */
    usleep(50000);
    if (waitpid(t.child, &status, WUNTRACED | WNOHANG) == t.child)
        assert_false(is_raw(&t));
    kill(t.child, SIGCONT);
    for (unsigned i = 0; i < 1000 && !is_raw(&t); i++)
        usleep(10000);
    assert_true(is_raw(&t));
    type(&t, "back");
    assert_true(shows(&t, "back"));
    type(&t, "q");
    assert_int_equal(status_of(t.child), 7);
    close(t.master);
}

static void there_is_one_standard_output(void **state)
{
    struct error err = {0};
    int to, from[2], in[2];
    pid_t child;

    (void)state;
    assert_int_equal(pipe(from), 0);
    assert_int_equal(pipe(in), 0);
    to = in[1];
    child = fork();
    if (!child) {
        struct chardev *first;
        bool refused, again;

        dup2(in[0], STDIN_FILENO);
        dup2(from[1], STDOUT_FILENO);
        first = chardev_open(loop, "stdio", NULL);
        refused = !chardev_open(loop, "stdio", &err) && err.code == EBUSY;
        chardev_free(first);
        first = chardev_open(loop, "stdio", NULL);
        again = first != NULL;
        chardev_free(first);
        _exit(first && refused && again ? 0 : 1);
    }
    assert_int_equal(status_of(child), 0);
    close(to);
    close(in[0]);
    close(from[0]);
    close(from[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(wrong_descriptions_are_explained),
        TEST(kinds_are_listed),
        TEST(null_swallows_everything),
        TEST(a_full_ring_takes_no_more),
        TEST(an_overwriting_ring_keeps_the_end),
        TEST(a_tap_hears_what_was_taken_and_types),
        TEST(files_take_output_and_give_input),
        TEST(plain_files_wake_a_sleeping_loop),
        TEST(a_slow_reader_loses_nothing),
        TEST(a_sender_is_not_left_waiting),
        TEST(one_client_after_the_other),
        TEST(stale_sockets_are_replaced_but_files_are_not),
        TEST(too_long_paths_are_refused),
        TEST(a_pty_is_dropped_until_somebody_is_there),
        TEST(pipes_pass_every_byte),
        TEST(the_end_of_input_is_harmless),
        TEST(standard_output_is_left_as_it_was),
        TEST(keys_pass_and_the_escape_key_acts),
        TEST(the_escape_key_can_be_switched_off),
        TEST(a_deadly_signal_leaves_the_terminal_in_order),
        TEST(a_stop_gives_the_terminal_back_for_a_while),
        TEST(there_is_one_standard_output),
    };

    return cmocka_run_group_tests(tests, set_up_group, tear_down_group);
}
