/*
 * null.c - an engine without a processor
 *
 * The machine has its memory, devices and clocks, but nobody executes anything:
 * device tests and fuzzers drive the bus themselves. With counted time nothing
 * passes unless a test says so.
 */
#include "trapeze/engine.h"

static int null_probe(struct error *err)
{
    return 0;
}

static void null_run(struct vcpu *vcpu, uint64_t budget, struct vcpu_exit *exit)
{
    *exit = (struct vcpu_exit){.reason = EXIT_FAILED,
                               .failure = "the null engine has no processor to run"};
}

const struct engine_ops null_engine = {
    .name = "null",
    .summary = "no processor: devices only, for tests",
    .counts_instructions = true,
    .runs_on_vcpu_thread = false,
    .probe = null_probe,
    .run = null_run,
};
