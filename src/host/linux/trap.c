/*
 * trap.c - CPU exceptions of generated code, by way of signals
 *
 * The handlers of SIGILL, SIGFPE, SIGSEGV and SIGBUS are installed once and stay. They look up
 * the faulting instruction among the guarded areas and rewrite the interrupted
 * registers; what is not ours goes to whoever had the signal before. The table is
 * read in the handler without a lock: a slot's start is written last and cleared first.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <ucontext.h>

#include "host/host.h"

#define MAX_GUARDS 64

struct guard {
    _Atomic uintptr_t start; /* 0: free; 1: being filled */
    _Atomic uintptr_t size;
    _Atomic uintptr_t handler;
};

static struct guard guards[MAX_GUARDS];
static const int signals[] = {SIGILL, SIGFPE, SIGSEGV, SIGBUS};
#define SIGNAL_COUNT (sizeof(signals) / sizeof(signals[0]))
static struct sigaction previous[SIGNAL_COUNT];
static void (*_Atomic before_crash)(void);

#define VECTOR_MF 16

static enum host_trap trap_of(int signal, greg_t vector)
{
    switch (signal) {
    case SIGILL:
        return HOST_TRAP_UNDEFINED;
    case SIGFPE:
        return vector == VECTOR_MF ? HOST_TRAP_X87 : HOST_TRAP_SIMD;
    default:
        return HOST_TRAP_PROTECTION;
    }
}

static const struct guard *find(uintptr_t pc)
{
    for (unsigned n = 0; n < MAX_GUARDS; n++) {
        /* pairs with the release in host_code_guard */
        uintptr_t start = atomic_load_explicit(&guards[n].start, memory_order_acquire);

        if (start > 1 && pc - start < atomic_load_explicit(&guards[n].size, memory_order_relaxed))
            return &guards[n];
    }
    return NULL;
}

void host_on_crash(void (*fn)(void))
{
    atomic_store(&before_crash, fn);
}

/* Nobody else wants it, so it ends the process. */
static void crash(int signal, const siginfo_t *info, const struct sigaction *before)
{
    void (*fn)(void) = before->sa_handler == SIG_DFL ? atomic_load(&before_crash) : NULL;

    if (fn)
        fn();
    sigaction(signal, before, NULL); /* the instruction faults again and meets that */
    if (info->si_code <= 0)
        raise(signal); /* it was sent, and there is no such instruction */
}

static void pass_on(int signal, siginfo_t *info, void *context)
{
    for (size_t n = 0; n < SIGNAL_COUNT; n++) {
        const struct sigaction *before = &previous[n];

        if (signals[n] != signal)
            continue;
        if (before->sa_flags & SA_SIGINFO)
            before->sa_sigaction(signal, info, context);
        else if (before->sa_handler != SIG_DFL && before->sa_handler != SIG_IGN)
            before->sa_handler(signal);
        else
            crash(signal, info, before);
    }
}

#if defined(__x86_64__)
static void on_signal(int signal, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const struct guard *g = find((uintptr_t)registers[REG_RIP]);

    /* A signal that was sent (si_code <= 0) is not an exception of the instruction. */
    if (!g || info->si_code <= 0) {
        pass_on(signal, info, context);
        return;
    }
    /* rdi and rsi stay; the stack is as after a call, by the guard's contract. */
    registers[REG_RDX] = trap_of(signal, registers[REG_TRAPNO]);
    registers[REG_RIP] = (greg_t)atomic_load_explicit(&g->handler, memory_order_relaxed);
}
#else
#error "rewriting of interrupted registers is written for x86-64 only"
#endif

static void install(void)
{
    struct sigaction action = {.sa_flags = SA_SIGINFO | SA_ONSTACK};

    action.sa_sigaction = on_signal;
    sigemptyset(&action.sa_mask);
    for (size_t n = 0; n < SIGNAL_COUNT; n++)
        sigaction(signals[n], &action, &previous[n]);
}

int host_code_guard(const struct host_code *code,
                    void (*handler)(void *first, void *second, enum host_trap trap),
                    struct error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    uintptr_t none;

    pthread_once(&once, install);
    for (unsigned n = 0; n < MAX_GUARDS; n++) {
        none = 0;
        if (!atomic_compare_exchange_strong(&guards[n].start, &none, 1))
            continue;
        atomic_store_explicit(&guards[n].size, code->size_bytes, memory_order_relaxed);
        atomic_store_explicit(&guards[n].handler, (uintptr_t)handler, memory_order_relaxed);
        /* pairs with the acquire in find */
        atomic_store_explicit(&guards[n].start, (uintptr_t)code->execute, memory_order_release);
        return 0;
    }
    return error_set(err, ENOSPC, "too many areas of generated code (the limit is %d)", MAX_GUARDS);
}

void host_code_unguard(const struct host_code *code)
{
    for (unsigned n = 0; n < MAX_GUARDS; n++) {
        uintptr_t start = (uintptr_t)code->execute;

        if (atomic_compare_exchange_strong(&guards[n].start, &start, 0))
            return;
    }
}
