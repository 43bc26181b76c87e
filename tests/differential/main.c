/*
 * main.c - the differential tester: the same instructions on the host's CPU and through an engine
 *
 *   differential [-n COUNT] [-s SEED] [-m MNEMONIC] [-e ENGINE] [-b 32] [-k] [-1 SEED]
 *
 * SEED is the first of COUNT seeds in a row: ranges that overlap repeat instances. -b 32 runs
 * 32-bit code (compatibility mode); -k goes on after differences and sums them up by
 * instruction; -1 runs one seed and prints it. Exit status 0 if there was no difference.
 */
#include "instance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum x86_code_size code_size = X86_CODE_64;

#define BATCH     256u
#define MAX_SHOWN 40u

struct totals {
    unsigned long run, different, completed, faulted;
};

/* Differences by the first instruction's name, for the summary of -k. */
static unsigned by_mnemonic[ZYDIS_MNEMONIC_MAX_VALUE + 1];

static void count_difference(const struct instance *t)
{
    struct insn insn;

    if (x86_decode(code_size, false, t->code, t->code_size, &insn) == DECODE_OK)
        by_mnemonic[insn.info.mnemonic]++;
}

static void run_batch(struct instance *batch, unsigned count, struct totals *totals,
                      bool keep_going)
{
    if (!native_run(count)) {
        totals->different++;
        return;
    }
    for (unsigned n = 0; n < count; n++) {
        struct instance *t = &batch[n];

        guest_run(t);
        totals->run++;
        totals->completed += t->native.vector == 3;
        totals->faulted += t->native.vector != 3;
        if (!compare_instance(t, keep_going && totals->different >= MAX_SHOWN)) {
            totals->different++;
            count_difference(t);
        }
    }
}

static void print_summary(void)
{
    for (unsigned n = 0; n <= ZYDIS_MNEMONIC_MAX_VALUE; n++)
        if (by_mnemonic[n])
            printf("  %6u  %s\n", by_mnemonic[n], ZydisMnemonicGetString((ZydisMnemonic)n));
}

int main(int argc, char **argv)
{
    unsigned long count = 20000, seed = 1;
    const char *mnemonic = NULL, *engine = "interpreter";
    bool keep_going = false;
    struct totals totals = {0};
    struct instance *batch;
    int option;

    while ((option = getopt(argc, argv, "n:s:m:e:b:k1:")) != -1)
        switch (option) {
        case 'n':
            count = strtoul(optarg, NULL, 0);
            break;
        case 's': /* "time": another one every run, printed so that it can be repeated */
            seed = strcmp(optarg, "time") == 0 ? (unsigned long)time(NULL) * 1000
                                               : strtoul(optarg, NULL, 0);
            printf("first seed %lu\n", seed);
            break;
        case 'm':
            mnemonic = optarg;
            break;
        case 'e':
            engine = optarg;
            break;
        case 'b':
            code_size = strcmp(optarg, "32") == 0 ? X86_CODE_32 : X86_CODE_64;
            break;
        case 'k':
            keep_going = true;
            break;
        case '1':
            seed = strtoul(optarg, NULL, 0);
            count = 1;
            break;
        default:
            return 2;
        }
    batch = native_start(BATCH);
    if (!generate_init(mnemonic)) {
        fprintf(stderr, "differential: no instruction is called '%s'\n", mnemonic ? mnemonic : "");
        return 2;
    }
    if (!guest_start(engine))
        return 1;
    dead_flags_may_differ = strcmp(engine, "translator") == 0;
    while (totals.run < count && (keep_going || totals.different < 10)) {
        unsigned n = count - totals.run < BATCH ? (unsigned)(count - totals.run) : BATCH;

        for (unsigned k = 0; k < n; k++)
            generate_instance(&batch[k], seed + totals.run + k);
        run_batch(batch, n, &totals, keep_going);
    }
    print_summary();
    generate_report();
    printf("%lu instances (%lu ran to the end, %lu faulted), %lu differ\n", totals.run,
           totals.completed, totals.faulted, totals.different);
    native_stop();
    guest_stop();
    return totals.different ? 1 : 0;
}
