/*
 * native.c - runs instances on the host's own CPU, in a child process
 *
 * The child never runs test code "from" anywhere: it sits in a signal handler, writes the
 * instance's registers into the signal frame and returns into the code under test. That ends in
 * INT3 or a fault, so the next signal frame holds the outcome (general registers, and x87 to
 * AVX-512 in the frame's XSAVE area), and the handler prepares the next instance in the same frame.
 * The frame's CS decides whether it runs as 32-bit code.
 */
#include "instance.h"

#include <asm/ldt.h>
#include <cpuid.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

unsigned host_vector_bytes = 16;
bool host_has_opmask;
bool host_has_ldt;

/* Offsets in the standard XSAVE format (CPUID leaf 0xd). */
static struct {
    unsigned ymm, opmask, zmm_high, zmm_upper16;
    uint64_t components;
} layout;

static struct {
    volatile uint32_t next, count;
    volatile uint32_t finished;
} * control;
static struct instance *instances;
static pid_t child;
static int wake[2], done[2];

static void find_layout(void)
{
    unsigned a, b, c, d;
    uint32_t low, high;

    __cpuid_count(1, 0, a, b, c, d);
    if (!(c >> 27 & 1))
        return;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    layout.components = low | (uint64_t)high << 32;
    if (layout.components >> 2 & 1) {
        __cpuid_count(0xd, 2, a, layout.ymm, c, d);
        host_vector_bytes = 32;
    }
    if ((layout.components >> 5 & 7) == 7) {
        __cpuid_count(0xd, 5, a, layout.opmask, c, d);
        __cpuid_count(0xd, 6, a, layout.zmm_high, c, d);
        __cpuid_count(0xd, 7, a, layout.zmm_upper16, c, d);
        host_vector_bytes = 64;
        host_has_opmask = true;
    }
}

/* ---- signal frame <-> registers ---- */

static const int gpr_slot[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                 REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                 REG_R12, REG_R13, REG_R14, REG_R15};

static void load_vectors(uint8_t *x, const struct registers *r)
{
    uint64_t present = layout.components & 0xe7;

    memcpy(x + 512, &present, 8); /* XSTATE_BV */
    for (unsigned n = 0; n < 16; n++) {
        memcpy(x + 160 + 16 * n, r->zmm[n], 16);
        if (layout.ymm)
            memcpy(x + layout.ymm + 16 * n, r->zmm[n] + 16, 16);
        if (layout.zmm_high) {
            memcpy(x + layout.zmm_high + 32 * n, r->zmm[n] + 32, 32);
            memcpy(x + layout.zmm_upper16 + 64 * n, r->zmm[16 + n], 64);
        }
    }
    if (layout.opmask)
        memcpy(x + layout.opmask, r->k, 64);
}

static void store_vectors(const uint8_t *x, struct registers *r)
{
    uint64_t present = 7;

    if (layout.components)
        memcpy(&present, x + 512, 8);
    memset(r->zmm, 0, sizeof(r->zmm));
    memset(r->k, 0, sizeof(r->k));
    for (unsigned n = 0; n < 16; n++) {
        if (present & 2)
            memcpy(r->zmm[n], x + 160 + 16 * n, 16);
        if (present & 4)
            memcpy(r->zmm[n] + 16, x + layout.ymm + 16 * n, 16);
        if (present & 0x40)
            memcpy(r->zmm[n] + 32, x + layout.zmm_high + 32 * n, 32);
        if (present & 0x80)
            memcpy(r->zmm[16 + n], x + layout.zmm_upper16 + 64 * n, 64);
    }
    if (present & 0x20)
        memcpy(r->k, x + layout.opmask, 64);
}

static void load_frame(ucontext_t *u, const struct registers *r)
{
    uint8_t *x = (uint8_t *)u->uc_mcontext.fpregs;

    for (unsigned n = 0; n < 16; n++)
        u->uc_mcontext.gregs[gpr_slot[n]] = (greg_t)r->gpr[n];
    u->uc_mcontext.gregs[REG_RIP] = (greg_t)r->rip;
    u->uc_mcontext.gregs[REG_EFL] = (greg_t)r->rflags;
    if (code_size == X86_CODE_32)
        u->uc_mcontext.gregs[REG_CSGSFS] = (u->uc_mcontext.gregs[REG_CSGSFS] & ~0xffffll) | CS_32;
    memset(x, 0, 32);
    memcpy(x, &r->fcw, 2);
    memcpy(x + 2, &r->fsw, 2);
    x[4] = r->ftw;
    memcpy(x + 24, &r->mxcsr, 4);
    memset(x + 32, 0, 128);
    for (unsigned n = 0; n < 8; n++)
        memcpy(x + 32 + 16 * n, r->st[n], 10);
    load_vectors(x, r);
}

static void store_frame(const ucontext_t *u, struct registers *r)
{
    const uint8_t *x = (const uint8_t *)u->uc_mcontext.fpregs;
    uint64_t present = 3;

    for (unsigned n = 0; n < 16; n++)
        r->gpr[n] = (uint64_t)u->uc_mcontext.gregs[gpr_slot[n]];
    r->rip = (uint64_t)u->uc_mcontext.gregs[REG_RIP];
    r->rflags = (uint64_t)u->uc_mcontext.gregs[REG_EFL];
    memcpy(&r->mxcsr, x + 24, 4);
    if (layout.components)
        memcpy(&present, x + 512, 8);
    memset(r->st, 0, sizeof(r->st));
    if (present & 1) {
        memcpy(&r->fcw, x, 2);
        memcpy(&r->fsw, x + 2, 2);
        r->ftw = x[4];
        for (unsigned n = 0; n < 8; n++)
            memcpy(r->st[n], x + 32 + 16 * n, 10);
    } else { /* x87 in its initial state is not written */
        r->fcw = 0x37f;
        r->fsw = 0;
        r->ftw = 0;
    }
    store_vectors(x, r);
}

/* ---- child ---- */

static void wait_for_work(void)
{
    char byte;

    control->finished = 1;
    if (write(done[1], "", 1) != 1 || read(wake[0], &byte, 1) != 1)
        _exit(0);
    control->finished = 0;
}

static uint8_t code_pages[CODE_SIZE]; /* as they are before an instance */

static void prepare(ucontext_t *u)
{
    struct instance *t;

    while (control->next >= control->count)
        wait_for_work();
    t = &instances[control->next];
    memset((void *)DATA_BASE, 0, DATA_SIZE);
    memcpy((void *)(DATA_BASE + WINDOW_A), t->window_a, WINDOW_SIZE);
    memcpy((void *)(DATA_BASE + WINDOW_B), t->window_b, WINDOW_SIZE);
    memcpy(code_pages + (t->code_rip - CODE_BASE), t->code, t->code_size);
    memcpy((void *)CODE_BASE, code_pages, CODE_SIZE); /* another may have written over it */
    load_frame(u, &t->before);
}

static void on_signal(int number, siginfo_t *info, void *context)
{
    ucontext_t *u = context;
    static bool running;

    (void)number;
    (void)info;
    if (running) {
        struct instance *t = &instances[control->next];
        struct outcome *o = &t->native;

        store_frame(u, &o->regs);
        memcpy(o->window_a, (void *)(DATA_BASE + WINDOW_A), WINDOW_SIZE);
        memcpy(o->window_b, (void *)(DATA_BASE + WINDOW_B), WINDOW_SIZE);
        o->vector = (uint32_t)u->uc_mcontext.gregs[REG_TRAPNO];
        o->error = (uint32_t)u->uc_mcontext.gregs[REG_ERR];
        o->cr2 = o->vector == 14 ? (uint64_t)u->uc_mcontext.gregs[REG_CR2] : 0;
        control->next++;
    }
    running = true;
    prepare(u);
}

static void map_at(uint64_t address, size_t size, int protection)
{
    if (mmap((void *)address, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
        MAP_FAILED) {
        perror("differential: cannot map the test pages");
        _exit(2);
    }
}

/* Only the data segments of 32-bit code; 64-bit code does not look at them. */
static void load_segments_32(void)
{
    __asm__ volatile("mov %0, %%ds; mov %0, %%es" : : "r"(DS_32));
    if (host_has_ldt)
        __asm__ volatile("mov %0, %%gs" : : "r"(GS_LDT));
}

static void child_main(void)
{
    static const int signals[] = {SIGTRAP, SIGSEGV, SIGILL, SIGFPE, SIGBUS};
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    stack_t stack = {.ss_size = 1 << 16};

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    map_at(CODE_BASE, CODE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC);
    map_at(DATA_BASE, DATA_SIZE, PROT_READ | PROT_WRITE);
    stack.ss_sp =
        mmap(NULL, stack.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    sigaltstack(&stack, NULL);
    sigfillset(&action.sa_mask);
    for (unsigned n = 0; n < sizeof(signals) / sizeof(signals[0]); n++)
        sigaction(signals[n], &action, NULL);
    if (code_size == X86_CODE_32)
        load_segments_32();
    __asm__ volatile("int3");
    _exit(3);
}

static void spawn(void)
{
    char byte;

    if (pipe(wake) || pipe(done)) {
        perror("differential: pipe");
        exit(2);
    }
    child = fork();
    if (child == 0) {
        close(wake[1]);
        close(done[0]);
        child_main();
    }
    close(wake[0]);
    close(done[1]);
    if (read(done[0], &byte, 1) != 1) {
        fprintf(stderr, "differential: the native child did not start\n");
        exit(2);
    }
}

/* The child inherits it. */
static void make_ldt(void)
{
    struct user_desc data = {
        .base_addr = (unsigned)DATA_BASE, .limit = DATA_SIZE - 1, .seg_32bit = 1, .useable = 1};

    host_has_ldt = syscall(SYS_modify_ldt, 1, &data, sizeof(data)) == 0;
}

struct instance *native_start(unsigned count)
{
    find_layout();
    if (code_size == X86_CODE_32)
        make_ldt();
    instances = mmap(NULL, sizeof(*instances) * count, PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    control = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (instances == MAP_FAILED || control == MAP_FAILED) {
        perror("differential: mmap");
        exit(2);
    }
    spawn();
    return instances;
}

bool native_run(unsigned count)
{
    char byte;

    control->next = 0;
    control->count = count;
    if (write(wake[1], "", 1) != 1)
        return false;
    if (read(done[0], &byte, 1) == 1)
        return true;
    /* The child died: report where, and start another. */
    fprintf(stderr, "differential: the native child died at instance %u of %u\n", control->next,
            count);
    native_stop();
    spawn();
    return false;
}

void native_stop(void)
{
    if (child <= 0)
        return;
    close(wake[1]);
    close(done[0]);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    child = 0;
}
