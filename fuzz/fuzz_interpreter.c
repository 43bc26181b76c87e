/*
 * fuzz_interpreter.c - any code in any mode, run twice: in blocks, and one instruction at a time
 *
 * Input: a header that chooses mode, flags and registers, then code. Handlers of exceptions
 * step over one byte, so that the code goes on. Time is counted, so two runs are alike.
 * Claims:
 * - both runs end in the same registers, the same memory, at the same instruction count;
 * - no run retires more instructions than its budget;
 * - pages that changed are in the dirty bitmap;
 * - the registers survive being loaded and fetched.
 * Not compared: runs that changed the paging registers, since stale translations may differ,
 * and runs that had to be ended, since faults without end retire nothing.
 */
#include <signal.h>
#include <sys/time.h>

#include "guest_fuzz.h"

#define BUDGET 120u

struct outcome {
    struct x86_state state;
    bool ended; /* by the watchdog */
    enum exit_reason reason;
    uint8_t dirty[PAGES / 8];
    uint8_t ram[RAM_BYTES]; /* of dirty pages only */
};

static struct guest guest;
static struct outcome blocks, steps;
static volatile sig_atomic_t running, ticks;

/* ---- running ---- */

/* Faults can go on for ever without retiring an instruction: after a while the run is kicked. */
static void on_tick(int number)
{
    (void)number;
    if (running && ++ticks > 3) {
        atomic_fetch_or(&guest.vcpu->events, VCPU_EVENT_KICK);
        guest.engine->kick(guest.vcpu);
    }
}

static uint64_t retired(void)
{
    return clock_now_ns(machine_clocks(guest.machine), CLOCK_ID_VIRTUAL);
}

static void set_time_to_zero(void)
{
    struct clocks *clocks = machine_clocks(guest.machine);

    clocks_pause(clocks);
    clocks_set_virtual_ns(clocks, 0);
    clocks_rebase_counted(clocks, 0);
    clocks_resume(clocks);
}

/* Up to `end` retired instructions, at most `piece` at a time. False: nothing more to run. */
static bool run_until(struct outcome *o, uint64_t end, uint64_t piece)
{
    struct vcpu_exit exit = {.reason = EXIT_BUDGET};

    while (retired() < end && exit.reason == EXIT_BUDGET) {
        uint64_t before = retired(), budget = end - before < piece ? end - before : piece;

        guest.engine->run(guest.vcpu, budget, &exit);
        FUZZ_CLAIM(retired() - before <= budget);
    }
    o->reason = exit.reason;
    o->ended |= exit.reason == EXIT_KICKED;
    return exit.reason == EXIT_BUDGET;
}

static void fetch_ram(struct outcome *o)
{
    guest_check_dirty(&guest);
    memcpy(o->dirty, guest.dirty, sizeof(o->dirty));
    for (unsigned page = 0; page < PAGES; page++)
        if (guest_is_dirty(&guest, page))
            memcpy(o->ram + page * GUEST_PAGE_SIZE, guest.ram + page * GUEST_PAGE_SIZE,
                   GUEST_PAGE_SIZE);
}

static void run(struct outcome *o, const struct x86_state *start, uint64_t piece, uint64_t nmi_at)
{
    guest_restore(&guest);
    set_time_to_zero();
    o->ended = false;
    guest_load(&guest, start);
    ticks = 0;
    running = 1;
    if (run_until(o, nmi_at, piece)) {
        atomic_fetch_or(&guest.vcpu->events, VCPU_EVENT_NMI);
        guest.engine->kick(guest.vcpu);
        run_until(o, BUDGET, piece);
    }
    running = 0;
    guest_fetch(&guest, &o->state);
    guest_check_reload(&guest);
    fetch_ram(o);
}

static bool same_paging(const struct x86_state *a, const struct x86_state *b)
{
    return a->cr3 == b->cr3 && ((a->cr0 ^ b->cr0) & (X86_CR0_PG | X86_CR0_WP | X86_CR0_PE)) == 0 &&
           a->cr4 == b->cr4 && a->msr.efer == b->msr.efer;
}

static void compare(void)
{
    const uint8_t *a = (const uint8_t *)&blocks.state, *b = (const uint8_t *)&steps.state;

    for (size_t i = 0; i < sizeof(struct x86_state); i++) {
        if (a[i] == b[i])
            continue;
        fprintf(stderr, "state differs at byte %zu: %02x in blocks, %02x in steps\n", i, a[i],
                b[i]);
        fprintf(stderr, "rip %llx/%llx instructions %llu/%llu exit %u/%u\n",
                (unsigned long long)blocks.state.rip, (unsigned long long)steps.state.rip,
                (unsigned long long)blocks.state.instructions,
                (unsigned long long)steps.state.instructions, blocks.reason, steps.reason);
        abort();
    }
    FUZZ_CLAIM(blocks.reason == steps.reason);
    for (unsigned page = 0; page < PAGES; page++) {
        uint32_t gpa = page * GUEST_PAGE_SIZE;

        if ((blocks.dirty[page / 8] | steps.dirty[page / 8]) >> page % 8 & 1)
            FUZZ_CLAIM(
                !memcmp(blocks.dirty[page / 8] >> page % 8 & 1 ? blocks.ram + gpa : pristine + gpa,
                        steps.dirty[page / 8] >> page % 8 & 1 ? steps.ram + gpa : pristine + gpa,
                        GUEST_PAGE_SIZE));
    }
}

/* ---- life ---- */

static void start(void)
{
    struct itimerval interval = {{0, 4000}, {0, 4000}};

    guest_start(&guest, "interpreter", true);
    build_tables();
    build_handlers();
    build_paging();
    signal(SIGVTALRM, on_tick);
    setitimer(ITIMER_VIRTUAL, &interval, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    static struct x86_state state;
    enum mode mode;
    uint64_t nmi_at;

    if (!guest.machine)
        start();
    mode = (enum mode)(fuzz_take(&in, 1) % MODE_COUNT);
    nmi_at = fuzz_take(&in, 1) * 2;
    put(GDT + CODE16, 0x00009b000000ffff, 8);
    put(GDT + TASK, 0x00008b0000000067ull | (uint64_t)(mode >= LONG0 ? TSS64 : TSS32) << 16, 8);
    build_state(&state, mode, guest.vcpu->model, &in);
    memset(pristine + CODE, 0x90, CODE_BYTES);
    memcpy(pristine + CODE, in.data, in.left < CODE_BYTES ? in.left : CODE_BYTES);
    run(&blocks, &state, UINT64_MAX, nmi_at < BUDGET ? nmi_at : BUDGET);
    run(&steps, &state, 1, nmi_at < BUDGET ? nmi_at : BUDGET);
    if (!blocks.ended && !steps.ended && same_paging(&state, &blocks.state) &&
        same_paging(&state, &steps.state))
        compare();
    return 0;
}
