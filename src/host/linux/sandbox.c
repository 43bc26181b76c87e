/*
 * sandbox.c - which system calls are left to a process whose machine runs
 *
 * Theory of operation. A seccomp filter (seccomp(2)) for all threads, those to come as well.
 * rules[] is the whole policy: a call that is listed is allowed, if its argument is as the rule
 * says; one whose argument is not gets an error, as do a few that libraries try and can do without
 * (refused[]). Any other call ends the process with a message: nothing here makes it, so it is a
 * mistake in this table, or somebody else's code runs. Nothing can be opened, executed, connected
 * or traced any more, and no memory becomes executable: what the machine needs of these was done
 * before.
 *
 * Speculation is left as it is (SECCOMP_FILTER_FLAG_SPEC_ALLOW): older kernels would forbid
 * speculative store bypass to a process with a filter, which is what translated code lives by.
 */
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/if_tun.h>
#include <linux/seccomp.h>
#include <linux/usbdevice_fs.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "host/host.h"

#ifdef __NR_arch_prctl
#include <asm/prctl.h>
#endif

/* Sanitizers' own threads and reports need more than a machine. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#define SANITIZED true
#endif
#endif
#ifndef SANITIZED
#define SANITIZED false
#endif

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

static unsigned own_rights = UINT_MAX;

bool host_may(unsigned rights)
{
    return !(rights & ~own_rights);
}

/* (arguments[argument] & mask) == value, in the low 32 bits; several rules of one call: any. */
struct rule {
    uint32_t call, argument, mask, value;
};
#define ALL UINT32_MAX
#define CALL_IF(name, argument, mask, value)                                                       \
    {                                                                                              \
        __NR_##name, argument, mask, value                                                         \
    }
#define CALL(name) CALL_IF(name, 0, 0, 0)
#define THREAD     (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD)
#define OWN        0u /* value: this process's id */

/* Rules of one call stand together; frequent ones first. */
static const struct rule rules[] = {
    CALL(futex), CALL(read), CALL(write), CALL(sched_yield), CALL(epoll_pwait),
#ifdef __NR_epoll_pwait2
    CALL(epoll_pwait2),
#endif
    CALL(timerfd_settime),
#ifdef __NR_epoll_wait
    CALL(epoll_wait), CALL(poll),
#endif
#ifdef __NR_dup2
    CALL(dup2), /* standard error, when a terminal is given back */
#endif
    CALL(clock_nanosleep), CALL(clock_gettime), CALL(madvise),

    /* memory, none of which will be executed */
    CALL_IF(mmap, 2, PROT_EXEC, 0), CALL_IF(mprotect, 2, PROT_EXEC, 0), CALL(munmap), CALL(mremap),
    CALL(brk),

    /* what is open */
    CALL(readv), CALL(writev), CALL(pread64), CALL(pwrite64), CALL(preadv2), CALL(pwritev2),
    CALL(fallocate), CALL(lseek), CALL(close), CALL(dup), CALL(dup3), CALL(fsync), CALL(fdatasync),
    CALL(fstat), CALL(fstatfs), CALL(ftruncate), CALL_IF(fcntl, 1, ALL, F_GETFL),
    CALL_IF(fcntl, 1, ALL, F_SETFL), CALL_IF(fcntl, 1, ALL, F_DUPFD_CLOEXEC),
    CALL_IF(fcntl, 1, ALL, F_OFD_SETLK), CALL_IF(ioctl, 1, ALL, TCGETS),
    CALL_IF(ioctl, 1, ALL, TCSETS), CALL_IF(ioctl, 1, ALL, TCSETSW),
    CALL_IF(ioctl, 1, ALL, TCSETSF), CALL_IF(ioctl, 1, ALL, TIOCGPGRP),
    CALL_IF(ioctl, 1, ALL, TIOCGWINSZ), CALL_IF(ioctl, 1, ALL, FIONREAD),
    CALL_IF(ioctl, 1, ALL, FIONBIO), CALL_IF(ioctl, 1, ALL, TUNSETIFF),
    CALL_IF(ioctl, 1, ALL, TUNSETVNETHDRSZ), CALL_IF(ioctl, 1, ALL, TUNSETOFFLOAD),
    /* ... USB devices of the host ... */
    CALL_IF(ioctl, 1, ALL, USBDEVFS_SUBMITURB), CALL_IF(ioctl, 1, ALL, USBDEVFS_REAPURBNDELAY),
    CALL_IF(ioctl, 1, ALL, USBDEVFS_DISCARDURB), CALL_IF(ioctl, 1, ALL, USBDEVFS_CONTROL),
    CALL_IF(ioctl, 1, ALL, USBDEVFS_CLEAR_HALT), CALL_IF(ioctl, 1, ALL, USBDEVFS_RESET),
    CALL_IF(ioctl, 1, ALL, USBDEVFS_SETINTERFACE),
    CALL_IF(ioctl, 1, ALL, USBDEVFS_SETCONFIGURATION),
    CALL_IF(ioctl, 1, ALL, USBDEVFS_CLAIMINTERFACE),
    CALL_IF(ioctl, 1, ALL, USBDEVFS_RELEASEINTERFACE),
    CALL_IF(ioctl, 1, ALL, USBDEVFS_DISCONNECT_CLAIM), CALL_IF(ioctl, 1, ALL, USBDEVFS_GETDRIVER),
    CALL_IF(ioctl, 1, ALL, USBDEVFS_IOCTL), /* to their drivers, and away from them */
    CALL_IF(ioctl, 1, ALL, USBDEVFS_CONNECTINFO), CALL_IF(ioctl, 1, ALL, USBDEVFS_GET_CAPABILITIES),
    CALL_IF(ioctl, 1, ALL, USBDEVFS_GET_SPEED), CALL(ppoll), CALL(epoll_ctl), CALL(epoll_create1),
    CALL(eventfd2), CALL(timerfd_create), CALL(timerfd_gettime), CALL(accept4), CALL(sendto),
    CALL(sendmsg), CALL(recvfrom), CALL(recvmsg), CALL(shutdown), CALL(getsockopt),
    CALL(setsockopt), CALL(getsockname), CALL(getpeername),

    /* threads and signals of this process */
    CALL_IF(clone, 0, THREAD, THREAD), CALL(set_robust_list),
#ifdef __NR_rseq
    CALL(rseq),
#endif
#ifdef __NR_arch_prctl
    CALL_IF(arch_prctl, 0, ALL, ARCH_SET_GS),
#endif
    CALL_IF(prctl, 0, ALL, PR_SET_NAME), CALL(exit), CALL(exit_group), CALL(rt_sigaction),
    CALL(rt_sigprocmask), CALL(rt_sigreturn), CALL(sigaltstack), CALL(restart_syscall),
    CALL_IF(tgkill, 0, ALL, OWN), CALL_IF(kill, 0, ALL, OWN), CALL(gettid), CALL(getpid),
    CALL(getppid), CALL(getpgid),
#ifdef __NR_getpgrp
    CALL(getpgrp),
#endif
    CALL(sched_getaffinity), CALL(membarrier), CALL(getrandom), CALL(nanosleep), CALL(clock_getres),
    CALL(gettimeofday), CALL(sysinfo), CALL(wait4), /* the servers of shares */
};

/* Where the machine has names in the file system that go with it. */
static const struct rule removing[] = {
#ifdef __NR_unlink
    CALL(unlink),
#endif
    CALL(unlinkat),
};

/* Where the guest's connections are sockets of this process. stat() tells whether the host has
 * other name servers now. */
static const struct rule connecting[] = {
    CALL_IF(socket, 0, ALL, AF_INET),
    CALL_IF(socket, 0, ALL, AF_INET6),
    CALL(connect),
    CALL(sendmmsg), /* questions to name servers */
    CALL(accept),
    CALL(newfstatat),
#ifdef __NR_stat
    CALL(stat),
#endif
};

/* Instead of its rules of socket(): by unix sockets too. */
static const struct rule connecting_locally[] = {
    CALL_IF(socket, 0, ALL, AF_UNIX),
    CALL_IF(socket, 0, ALL, AF_INET),
    CALL_IF(socket, 0, ALL, AF_INET6),
};

/* Rings are restricted to their files before (ring.c); there can be no new ones. */
static const struct rule submitting[] = {
    CALL(io_uring_enter),
};

/* Viewers of the web page, whom this process leads to itself. */
static const struct rule pairing[] = {
    CALL_IF(socketpair, 0, ALL, AF_UNIX),
};

static const struct rule reading[] = {
    CALL_IF(openat, 2, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY),
#ifdef __NR_open
    CALL_IF(open, 1, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY),
#endif
};

/* A process that serves the files of a share: they are found and changed by descriptors of it. */
static const struct rule serving[] = {
    CALL(recvmsg),
    CALL(sendto),
    CALL(newfstatat),
    CALL(fstat),
    CALL(openat),
    CALL(close),
    CALL(preadv),
    CALL(pwritev),
    CALL(getdents64),
    CALL(lseek),
    CALL(readlinkat),
    CALL(fstatfs),
    CALL(mkdirat),
    CALL(mknodat),
    CALL(symlinkat),
    CALL(linkat),
    CALL(renameat),
#ifdef __NR_renameat2
    CALL(renameat2),
#endif
    CALL(unlinkat),
    CALL(fchmodat),
    CALL(utimensat),
    CALL(ftruncate),
    CALL(fsync),
    CALL(fdatasync),
    CALL(fgetxattr),
    CALL(flistxattr),
    CALL(fsetxattr),
    CALL(fremovexattr),
    CALL_IF(mmap, 2, PROT_EXEC, 0),
    CALL(munmap),
    CALL(mremap),
    CALL(brk),
    CALL(madvise),
    CALL(write),
    CALL(exit_group),
    CALL(rt_sigprocmask),
    CALL(rt_sigaction),
    CALL(rt_sigreturn),
    CALL_IF(tgkill, 0, ALL, OWN),
    CALL(gettid),
    CALL(getpid),
    CALL(futex),
};

/* A process that connects to unix sockets and hands them on. */
static const struct rule dialing[] = {
    CALL(recvfrom),
    CALL_IF(socket, 0, ALL, AF_UNIX),
    CALL(connect),
    CALL(sendmsg),
    CALL(close),
    CALL(write),
    CALL(exit_group),
    CALL(rt_sigprocmask),
    CALL(rt_sigreturn),
    CALL(rt_sigaction),
    CALL_IF(tgkill, 0, ALL, OWN),
    CALL(gettid),
    CALL(getpid),
};

/* What libraries try; they go on without. */
static const struct {
    uint32_t call, code;
} refused[] = {
    {__NR_clone3, ENOSYS},     /* its flags cannot be looked at: clone is next */
    {__NR_newfstatat, EACCES}, /* nor can the name, empty or not; host_fstat() takes none */
    {__NR_statx, EACCES},      {__NR_openat, EACCES},
#ifdef __NR_open
    {__NR_open, EACCES},       {__NR_stat, EACCES},          {__NR_access, EACCES},
    {__NR_readlink, EACCES},
#endif
    {__NR_faccessat, EACCES},  {__NR_readlinkat, EACCES},    {__NR_getcwd, EACCES},
    {__NR_prlimit64, EPERM},   {__NR_io_uring_setup, EPERM}, /* disks that are plugged in go without
                                                              */
};

#if defined(ARCHITECTURE)

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
/* Five instructions a rule at most, and one to refuse; two for each refused call. */
#define PROGRAM_MAX                                                                                \
    (8 +                                                                                           \
     6 * (COUNT(rules) + COUNT(removing) + COUNT(connecting) + COUNT(connecting_locally) +         \
          COUNT(reading) + COUNT(submitting) + COUNT(pairing)) +                                   \
     2 * COUNT(refused))

struct program {
    struct sock_filter code[PROGRAM_MAX];
    unsigned short length;
};

static void put(struct program *p, uint16_t code, uint32_t k, uint8_t if_true, uint8_t if_false)
{
    p->code[p->length++] = (struct sock_filter){code, if_true, if_false, k};
}

static void put_load(struct program *p, size_t offset)
{
    put(p, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

static void put_result(struct program *p, uint32_t result)
{
    put(p, BPF_RET | BPF_K, result, 0, 0);
}

/* The call's number is loaded, before and behind. */
static void put_rules(struct program *p, const struct rule *list, size_t count)
{
    for (size_t n = 0; n < count;) {
        uint32_t call = list[n].call;
        unsigned short skip;

        if (!list[n].mask) {
            put(p, BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1);
            put_result(p, SECCOMP_RET_ALLOW);
            n++;
            continue;
        }
        skip = p->length;
        put(p, BPF_JMP | BPF_JEQ | BPF_K, call, 0, 0);
        for (; n < count && list[n].call == call; n++) {
            uint32_t own = call == __NR_kill || call == __NR_tgkill;

            put_load(p, offsetof(struct seccomp_data, args) + 8 * list[n].argument);
            put(p, BPF_ALU | BPF_AND | BPF_K, list[n].mask, 0, 0);
            put(p, BPF_JMP | BPF_JEQ | BPF_K, own ? (uint32_t)getpid() : list[n].value, 0, 1);
            put_result(p, SECCOMP_RET_ALLOW);
        }
        put_result(p, SECCOMP_RET_ERRNO | EPERM);
        p->code[skip].jf = (uint8_t)(p->length - skip - 1);
    }
}

struct rule_list {
    const struct rule *rules;
    size_t count;
};

/* Of lists that have a call each, the first is asked: it refuses what it does not allow of it. */
static void make_program(struct program *p, const struct rule_list *lists, size_t count)
{
    put_load(p, offsetof(struct seccomp_data, arch));
    put(p, BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0);
    put_result(p, SECCOMP_RET_KILL_PROCESS);
    put_load(p, offsetof(struct seccomp_data, nr));
    for (size_t n = 0; n < count; n++)
        put_rules(p, lists[n].rules, lists[n].count);
    for (size_t n = 0; n < COUNT(refused); n++) {
        put(p, BPF_JMP | BPF_JEQ | BPF_K, refused[n].call, 0, 1);
        put_result(p, SECCOMP_RET_ERRNO | refused[n].code);
    }
    put_result(p, SECCOMP_RET_TRAP);
}

/* In the thread that made the call. */
static void on_forbidden(int signal, siginfo_t *info, void *context)
{
    char text[200];
    int length;

    (void)signal;
    (void)context;
    length =
        snprintf(text, sizeof(text),
                 "trapeze: the sandbox stopped system call %d at %p. This is a bug, or the guest "
                 "has broken out; please report it. '--sandbox off' runs without.\n",
                 info->si_syscall, info->si_call_addr);
    if (write(STDERR_FILENO, text, (size_t)length) < 0)
        _exit(1);
    abort(); /* whose handler gives the terminal back */
}

static int enter(const struct rule_list *lists, size_t count, struct error *err)
{
    struct sigaction action = {.sa_flags = SA_SIGINFO | SA_ONSTACK};
    struct program p = {.length = 0};
    struct sock_fprog program = {.filter = p.code};

    if (SANITIZED)
        return 0;
    make_program(&p, lists, count);
    program.len = p.length;
    action.sa_sigaction = on_forbidden;
    sigaction(SIGSYS, &action, NULL);
    errno = EPERM; /* if it says which thread is in the way, and no error */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
        syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER,
                SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program) == 0)
        return 0;
    return error_set(err, errno,
                     "the kernel lets this process have no sandbox (seccomp: %s); "
                     "'--sandbox off' runs without",
                     strerror(errno));
}

#define LIST(rules)                                                                                \
    (struct rule_list)                                                                             \
    {                                                                                              \
        rules, COUNT(rules)                                                                        \
    }

int host_sandbox(unsigned rights, struct error *err)
{
    struct rule_list lists[7];
    size_t count = 0;
    int result;

    if (rights & HOST_MAY_CONNECT_LOCAL)
        lists[count++] = LIST(connecting_locally);
    if (rights & HOST_MAY_CONNECT)
        lists[count++] = LIST(connecting);
    if (rights & HOST_MAY_READ)
        lists[count++] = LIST(reading);
    if (rights & HOST_MAY_SUBMIT)
        lists[count++] = LIST(submitting);
    if (rights & HOST_MAY_PAIR)
        lists[count++] = LIST(pairing);
    if (rights & HOST_MAY_REMOVE)
        lists[count++] = LIST(removing);
    lists[count++] = LIST(rules);
    result = enter(lists, count, err);
    if (!result)
        own_rights = rights;
    return result;
}

int host_serve_sandbox(struct error *err)
{
    return enter(&LIST(serving), 1, err);
}

int host_dial_sandbox(struct error *err)
{
    return enter(&LIST(dialing), 1, err);
}

#else

int host_sandbox(unsigned rights, struct error *err)
{
    (void)rights;
    return error_set(err, ENOTSUP,
                     "there is no sandbox for this processor; '--sandbox off' runs without");
}

int host_serve_sandbox(struct error *err)
{
    return host_sandbox(0, err);
}

int host_dial_sandbox(struct error *err)
{
    return host_sandbox(0, err);
}

#endif
