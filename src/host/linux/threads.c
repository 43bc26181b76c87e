/*
 * threads.c - locks, conditions and threads on pthreads
 *
 * New threads block every signal that is not caused by their own instructions, so
 * that SIGINT and the like arrive on the main thread.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host/host.h"

#if defined(__x86_64__)
#include <asm/hwcap2.h>
#include <asm/prctl.h>
#endif

#define SIGNAL_STACK_BYTES 16384 /* beyond what the kernel puts there */

static_assert(sizeof(pthread_mutex_t) <= sizeof(struct host_mutex), "host_mutex is too small");
static_assert(sizeof(pthread_cond_t) <= sizeof(struct host_cond), "host_cond is too small");

static pthread_mutex_t *native_mutex(struct host_mutex *mutex)
{
    return (pthread_mutex_t *)mutex->opaque;
}

static pthread_cond_t *native_cond(struct host_cond *cond)
{
    return (pthread_cond_t *)cond->opaque;
}

/* These calls fail only on misuse. */
static void must(int code, const char *what)
{
    if (!code)
        return;
    fprintf(stderr, "trapeze: %s: %s\n", what, strerror(code));
    abort();
}

void host_mutex_init(struct host_mutex *mutex)
{
    must(pthread_mutex_init(native_mutex(mutex), NULL), "mutex init");
}

void host_mutex_done(struct host_mutex *mutex)
{
    must(pthread_mutex_destroy(native_mutex(mutex)), "mutex destroy");
}

void host_mutex_lock(struct host_mutex *mutex)
{
    must(pthread_mutex_lock(native_mutex(mutex)), "mutex lock");
}

bool host_mutex_try_lock(struct host_mutex *mutex)
{
    int code = pthread_mutex_trylock(native_mutex(mutex));

    if (code == EBUSY)
        return false;
    must(code, "mutex trylock");
    return true;
}

void host_mutex_unlock(struct host_mutex *mutex)
{
    must(pthread_mutex_unlock(native_mutex(mutex)), "mutex unlock");
}

void host_cond_init(struct host_cond *cond)
{
    pthread_condattr_t attributes;

    must(pthread_condattr_init(&attributes), "condition attributes");
    must(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC), "condition clock");
    must(pthread_cond_init(native_cond(cond), &attributes), "condition init");
    pthread_condattr_destroy(&attributes);
}

void host_cond_done(struct host_cond *cond)
{
    must(pthread_cond_destroy(native_cond(cond)), "condition destroy");
}

void host_cond_wait(struct host_cond *cond, struct host_mutex *mutex)
{
    must(pthread_cond_wait(native_cond(cond), native_mutex(mutex)), "condition wait");
}

bool host_cond_wait_until(struct host_cond *cond, struct host_mutex *mutex, uint64_t deadline_ns)
{
    struct timespec deadline = {
        .tv_sec = (time_t)(deadline_ns / 1000000000u),
        .tv_nsec = (long)(deadline_ns % 1000000000u),
    };
    int code = pthread_cond_timedwait(native_cond(cond), native_mutex(mutex), &deadline);

    if (code != ETIMEDOUT)
        must(code, "condition timed wait");
    return code != ETIMEDOUT;
}

void host_cond_broadcast(struct host_cond *cond)
{
    must(pthread_cond_broadcast(native_cond(cond)), "condition broadcast");
}

#if defined(__x86_64__)
void host_set_gs_base(uintptr_t base)
{
    if (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE)
        __asm__ volatile("wrgsbase %0" : : "r"(base) : "memory");
    else if (syscall(SYS_arch_prctl, ARCH_SET_GS, base))
        must(errno, "GS base");
}
#else
void host_set_gs_base(uintptr_t base)
{
    (void)base;
}
#endif

struct host_thread {
    pthread_t id;
    char name[16];
    void (*fn)(void *opaque);
    void *opaque;
};

/*
 * While generated code runs the stack pointer is the guest's: what handles a fault (SA_ONSTACK)
 * needs a stack of its own. No memory for one: then such a fault just ends the process.
 */
static void run_with_signal_stack(struct host_thread *thread)
{
    stack_t stack = {.ss_size = (size_t)sysconf(_SC_SIGSTKSZ) + SIGNAL_STACK_BYTES}, before;

    stack.ss_sp = malloc(stack.ss_size);
    if (stack.ss_sp)
        sigaltstack(&stack, &before);
    thread->fn(thread->opaque);
    if (stack.ss_sp)
        sigaltstack(&before, NULL);
    free(stack.ss_sp);
}

static void *thread_main(void *opaque)
{
    struct host_thread *thread = opaque;

    pthread_setname_np(pthread_self(), thread->name);
    run_with_signal_stack(thread);
    return NULL;
}

static void signals_to_block(sigset_t *set)
{
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};

    sigfillset(set);
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
        sigdelset(set, own[i]);
}

struct host_thread *host_thread_start(const char *name, void (*fn)(void *opaque), void *opaque,
                                      struct error *err)
{
    struct host_thread *thread = calloc(1, sizeof(*thread));
    sigset_t blocked, before;
    int code;

    if (!thread) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    snprintf(thread->name, sizeof(thread->name), "%s", name);
    thread->fn = fn;
    thread->opaque = opaque;
    signals_to_block(&blocked);
    pthread_sigmask(SIG_BLOCK, &blocked, &before);
    code = pthread_create(&thread->id, NULL, thread_main, thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code) {
        error_set(err, code, "cannot start thread '%s': %s", name, strerror(code));
        free(thread);
        return NULL;
    }
    return thread;
}

void host_thread_join(struct host_thread *thread)
{
    if (!thread)
        return;
    must(pthread_join(thread->id, NULL), "thread join");
    free(thread);
}

uint64_t host_thread_self(void)
{
    return (uint64_t)pthread_self();
}
