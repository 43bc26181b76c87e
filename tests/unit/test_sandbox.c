/*
 * test_sandbox.c - what a process in the sandbox can and cannot do
 *
 * Each attempt is made by a child of its own. Skipped under sanitizers, where there is no sandbox.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "host/file.h"
#include "host/given.h"
#include "host/host.h"
#include "host/loop.h"
#include "trapeze/block.h"

#define PATH "/tmp/trapeze-sandbox-test"

enum end { WORKED, FAILED, STOPPED };

struct attempt {
    const char *what;
    int (*try)(void); /* 0 or -1 and errno */
    enum end end;
    int code; /* of FAILED */
    unsigned rights;
    void (*prepare)(void); /* before the sandbox */
};

static int try_execute(void)
{
    return execl("/bin/true", "true", (char *)NULL);
}
static int try_trace(void)
{
    return (int)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}
static int try_create(void)
{
    return open(PATH "-new", O_WRONLY | O_CREAT, 0600) < 0 ? -1 : 0;
}
static int try_open(void)
{
    return open("/etc/passwd", O_RDONLY) < 0 ? -1 : 0;
}
static int try_socket(void)
{
    return socket(AF_INET, SOCK_STREAM, 0) < 0 ? -1 : 0;
}
static int try_local_socket(void)
{
    return socket(AF_UNIX, SOCK_STREAM, 0) < 0 ? -1 : 0;
}
static int try_pair(void)
{
    int pair[2];

    return socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
}
static int try_bind(void)
{
    return bind(0, (const struct sockaddr *)"", 0);
}
static int try_connect(void)
{
    struct sockaddr_in nobody = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    nobody.sin_port = htons(9);
    return connect(fd, (const struct sockaddr *)&nobody, sizeof(nobody));
}
static int try_write(void)
{
    return open(PATH, O_WRONLY) < 0 ? -1 : 0;
}
static int try_fork(void)
{
    pid_t child = fork();

    if (child == 0)
        _exit(0);
    return child < 0 ? -1 : 0;
}
static int try_map_executable(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED
               ? -1
               : 0;
}
static int try_make_executable(void)
{
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return page == MAP_FAILED ? 0 : mprotect(page, 4096, PROT_READ | PROT_EXEC);
}
static int try_signal_parent(void)
{
    return kill(1, 0);
}
static int try_signal_self(void)
{
    return kill(getpid(), SIGCONT);
}
static int try_type(void)
{
    return ioctl(STDIN_FILENO, TIOCSTI, "x");
}
static int try_rename(void)
{
    return rename(PATH, PATH "-new");
}
static int try_remove(void)
{
    return unlink(PATH);
}
static int try_drop_filter(void)
{
    return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}
static int try_ring(void)
{
    char parameters[256] = "";

    return syscall(SYS_io_uring_setup, 8, parameters) < 0 ? -1 : 0;
}
static int try_submit(void)
{
    return (int)syscall(SYS_io_uring_enter, -1, 0, 0, 0, NULL, 0);
}
/* What is handed over. */
static struct host_given given;
static const char *const disks[] = {PATH ",snapshot=on", PATH};

static struct block *open_disk(const char *text)
{
    struct error err = {0};
    struct block *disk = block_open(loop_new(&err), text, &err);

    errno = err.code;
    return disk;
}
static void open_disks(void)
{
    if (pwrite(open(PATH, O_WRONLY), "", 1, 4095) != 1)
        _exit(101);
    for (size_t n = 0; n < 2; n++) {
        host_record(&given);
        block_free(open_disk(disks[n]));
        host_record(NULL);
    }
}
static int try_given_disks(void)
{
    for (size_t n = 0; n < 2; n++) {
        struct block *disk;

        host_use(&given);
        disk = open_disk(disks[n]);
        host_use(NULL);
        if (!disk)
            return -1;
        block_free(disk);
    }
    return (int)given.count;
}
static int try_disk(void)
{
    struct block *disk = open_disk(PATH);

    block_free(disk);
    return disk ? 0 : -1;
}
/* Of a server, in ways that want more than a connection; nothing is there. */
static int try_server_by_name(void)
{
    return open_disk("nbd://user@localhost:1/x") ? 0 : -1;
}
static int try_server_by_address(void)
{
    return open_disk("nbd://[::1]:1/x") ? 0 : errno == EACCES ? -1 : 0;
}
static int try_server_with_tls(void)
{
    return open_disk("nbds://127.0.0.1:1/x") ? 0 : -1;
}
static int try_local_server(void)
{
    return open_disk("nbd+unix:///x?socket=/none") ? 0 : -1;
}
static int try_ring_disk(void)
{
    struct error err = {0};
    struct loop *loop = loop_new(&err);
    struct block *disk;
    bool has_ring;

    host_use(&given);
    disk = open_disk(disks[0]);
    if (!disk)
        return -1;
    has_ring = block_has_ring(disk);
    block_free(disk);
    errno = EEXIST;
    return has_ring || block_open(loop, PATH ",aio=io_uring", &err) ? -1 : 0;
}
/* By its name, though the flags say that there is none. */
static int try_look(void)
{
    struct stat st;

    return (int)syscall(SYS_newfstatat, AT_FDCWD, "/etc/passwd", &st, AT_EMPTY_PATH);
}
static int try_look_closer(void)
{
    struct statx st;

    return statx(AT_FDCWD, "/etc/passwd", AT_EMPTY_PATH, STATX_ALL, &st);
}
static int try_look_at_what_is_open(void)
{
    struct stat st;

    return host_fstat(STDERR_FILENO, &st) || !S_ISFIFO(st.st_mode) ? -1 : 0;
}
static int try_memory(void)
{
    void *memory = malloc(64u << 20);

    memory = realloc(memory, 128u << 20);
    free(memory);
    return memory ? 0 : -1;
}
static void *make_file(void *opaque)
{
    *(int *)opaque = try_create() ? errno : 0;
    return NULL;
}
/* Threads can start, and are no better off. */
static int try_in_thread(void)
{
    pthread_t thread;
    int code = 0;

    if (pthread_create(&thread, NULL, make_file, &code))
        return 0;
    pthread_join(thread, NULL);
    errno = code;
    return code ? -1 : 0;
}

static const struct attempt attempts[] = {
    {"execute a program", try_execute, STOPPED, 0, HOST_MAY_REMOVE},
    {"trace", try_trace, STOPPED, 0, HOST_MAY_REMOVE},
    {"open a new file for writing", try_create, FAILED, EACCES, HOST_MAY_REMOVE},
    {"open a file for reading", try_open, FAILED, EACCES, HOST_MAY_REMOVE},
    {"open one in a new thread", try_in_thread, FAILED, EACCES, HOST_MAY_REMOVE},
    {"make a socket", try_socket, STOPPED, 0, HOST_MAY_REMOVE},
    {"make a socket where that is allowed", try_socket, WORKED, 0, HOST_MAY_CONNECT},
    {"connect where that is allowed", try_connect, WORKED, 0, HOST_MAY_CONNECT},
    {"make a local socket", try_local_socket, FAILED, EPERM, HOST_MAY_CONNECT},
    {"make a pair of sockets", try_pair, STOPPED, 0, HOST_MAY_CONNECT},
    {"make a pair of sockets where that is allowed", try_pair, WORKED, 0, HOST_MAY_PAIR},
    {"give a socket a name", try_bind, STOPPED, 0, HOST_MAY_CONNECT},
    {"open a file where only connecting is allowed", try_open, FAILED, EACCES, HOST_MAY_CONNECT},
    {"open a file for reading where that is allowed", try_open, WORKED, 0, HOST_MAY_READ},
    {"open a file for writing there", try_write, FAILED, EPERM, HOST_MAY_READ},
    {"open a new file there", try_create, FAILED, EPERM, HOST_MAY_READ},
    {"open a file for writing where connecting is allowed", try_write, FAILED, EACCES,
     HOST_MAY_CONNECT},
    {"open a new file there", try_create, FAILED, EACCES, HOST_MAY_CONNECT},
    {"remove a file there", try_remove, STOPPED, 0, HOST_MAY_CONNECT},
    {"execute a program there", try_execute, STOPPED, 0, HOST_MAY_CONNECT},
    {"fork", try_fork, FAILED, EPERM, HOST_MAY_REMOVE},
    {"map executable memory", try_map_executable, FAILED, EPERM, HOST_MAY_REMOVE},
    {"make memory executable", try_make_executable, FAILED, EPERM, HOST_MAY_REMOVE},
    {"signal another process", try_signal_parent, FAILED, EPERM, HOST_MAY_REMOVE},
    {"signal itself", try_signal_self, WORKED, 0, 0},
    {"type into the terminal", try_type, FAILED, EPERM, HOST_MAY_REMOVE},
    {"rename a file", try_rename, STOPPED, 0, HOST_MAY_REMOVE},
    {"remove a file", try_remove, STOPPED, 0, 0},
    {"remove a file where that is allowed", try_remove, WORKED, 0, HOST_MAY_REMOVE},
    {"change what the process is", try_drop_filter, FAILED, EPERM, HOST_MAY_REMOVE},
    {"make a ring", try_ring, FAILED, EPERM, HOST_MAY_SUBMIT},
    {"open a disk", try_disk, FAILED, EACCES, 0},
    {"open a disk where connecting is allowed", try_disk, FAILED, EACCES, HOST_MAY_CONNECT},
    {"use disks that are handed over", try_given_disks, WORKED, 0, 0, open_disks},
    {"use one without a ring", try_ring_disk, WORKED, 0, 0, open_disks},
    {"open a disk of a server by its name", try_server_by_name, FAILED, EACCES, HOST_MAY_CONNECT},
    {"open one by its address", try_server_by_address, WORKED, 0, HOST_MAY_CONNECT},
    {"open one with TLS", try_server_with_tls, FAILED, EACCES, HOST_MAY_CONNECT},
    {"open one of a local server", try_local_server, FAILED, EACCES, HOST_MAY_CONNECT},
    {"submit to a ring", try_submit, STOPPED, 0, 0},
    {"submit to a ring where that is allowed", try_submit, FAILED, EBADF, HOST_MAY_SUBMIT},
    {"look at a file", try_look, FAILED, EACCES, HOST_MAY_REMOVE},
    {"look at a file closer", try_look_closer, FAILED, EACCES, HOST_MAY_CONNECT},
    {"look at what is open", try_look_at_what_is_open, WORKED, 0, 0},
    {"use much memory", try_memory, WORKED, 0, 0},
};

/* In a child; never returns. Its standard error is a pipe. */
static void attempt_it(const struct attempt *a, int fd)
{
    struct error err = {0};

    dup2(fd, STDERR_FILENO);
    if (a->prepare)
        a->prepare();
    if (host_sandbox(a->rights, &err))
        _exit(100);
    errno = 0;
    _exit(a->try() == 0 ? 0 : errno);
}

static void check_attempt(const struct attempt *a)
{
    char text[512] = "";
    int fds[2], status = 0;
    pid_t child;
    ssize_t length;

    assert_int_equal(close(open(PATH, O_WRONLY | O_CREAT, 0600)), 0);
    assert_int_equal(pipe(fds), 0);
    child = fork();
    if (child == 0)
        attempt_it(a, fds[1]);
    close(fds[1]);
    length = read(fds[0], text, sizeof(text) - 1);
    close(fds[0]);
    assert_true(length >= 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    print_message("%s: status %x %s\n", a->what, (unsigned)status, text);
    if (a->end == STOPPED) {
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
        assert_non_null(strstr(text, "the sandbox stopped system call"));
    } else {
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), a->end == WORKED ? 0 : a->code);
    }
    unlink(PATH);
    assert_int_not_equal(access(PATH "-new", F_OK), 0);
}

/* False under sanitizers; a kernel without seccomp says so. */
static bool there_is_a_sandbox(void)
{
    struct error err = {0};
    int status = 0;
    pid_t child = fork();

    if (child == 0) {
        int status_fd = open("/proc/self/status", O_RDONLY); /* no longer possible in it */
        char text[8192] = "";

        if (host_sandbox(0, &err))
            _exit(2);
        if (read(status_fd, text, sizeof(text) - 1) < 0)
            _exit(3);
        _exit(strstr(text, "Seccomp:\t2") ? 0 : 1);
    }
    waitpid(child, &status, 0);
    return status == 0;
}

/* Bits of what is not as it should be. */
static int try_as_dialer(void)
{
    struct error err = {0};
    int wrong = 0, fd;

    if (host_dial_sandbox(&err))
        return 100;
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    wrong |= fd < 0 ? 1 : 0;
    close(fd);
    wrong |= socket(AF_INET, SOCK_STREAM, 0) >= 0 || errno != EPERM ? 2 : 0;
    wrong |= open("/dev/null", O_RDONLY) >= 0 || errno != EACCES ? 4 : 0;
    if (!wrong)
        kill(getppid(), 0); /* ends it */
    return wrong;
}

static void a_process_that_dials_does_no_more(void **state)
{
    int status = 0;
    pid_t child;

    (void)state;
    if (!there_is_a_sandbox())
        skip();
    child = fork();
    if (child == 0) {
        dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
        _exit(try_as_dialer());
    }
    waitpid(child, &status, 0);
    assert_int_equal(status, SIGABRT); /* by the last, which nothing there does */
}

static void sandbox_allows_what_a_machine_needs_and_no_more(void **state)
{
    (void)state;
    if (!there_is_a_sandbox())
        skip();
    for (size_t n = 0; n < sizeof(attempts) / sizeof(attempts[0]); n++)
        check_attempt(&attempts[n]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_process_that_dials_does_no_more),
        cmocka_unit_test(sandbox_allows_what_a_machine_needs_and_no_more),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
