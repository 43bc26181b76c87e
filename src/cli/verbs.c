/*
 * verbs.c - the table of verbs, and the way into one
 */
#include "cli/cli.h"

#include <string.h>

static const struct cli_example run_examples[] = {
    {"trapeze run --kernel vmlinuz --initrd initrd.img --append console=ttyS0",
     "boot a Linux kernel with the first serial port on this terminal"},
    {"trapeze run vmlinux --cpus 4 -m 2G --monitor vm.sock",
     "four processors, 2 GiB, and a socket that 'trapeze monitor' talks to"},
    {"trapeze run vmlinuz --gdb --paused",
     "wait for 'gdb -ex \"target remote :1234\"' before the first instruction"},
    {"trapeze run test.elf --counted --serial null --debugcon stdio",
     "a repeatable run whose output comes from the debug console"},
    {NULL},
};

static const struct cli_example monitor_examples[] = {
    {"trapeze monitor vm.sock status", "one command"},
    {"trapeze monitor vm.sock memory-read gpa=0x7c00 size=512", "arguments by name"},
    {"trapeze monitor vm.sock inspect pit", "the first argument's name can be left out"},
    {"trapeze monitor vm.sock", "commands from standard input, one a line"},
    {NULL},
};

static const struct cli_example inspect_examples[] = {
    {"trapeze inspect vm.sock", "everything"},
    {"trapeze inspect vm.sock cpu0 --json", "one processor's registers as JSON"},
    {NULL},
};

static const struct cli_example devices_examples[] = {
    {"trapeze devices", "the list"},
    {"trapeze devices rtc", "the properties of one"},
    {NULL},
};

const struct cli_verb cli_verbs[] = {
    {
        .name = "run",
        .summary = "run a virtual machine in this process",
        .operands = "[IMAGE]",
        .description =
            "Builds a PC and runs it until the guest powers off, resets with --no-reboot, ends "
            "its run through the debug exit port, or the process gets SIGINT or SIGTERM. IMAGE is "
            "what the machine starts from: a disk, which its own boot loader starts, or a kernel, "
            "as "
            "with --kernel.\n\n"
            "The first serial port is on the terminal, in raw mode: Ctrl-C goes to the guest, and "
            "Ctrl-A is the escape key (Ctrl-A h tells what it can do). The exit status is the "
            "guest's.",
        .options = cli_run_options,
        .max_operands = 1,
        .operand_file = true,
        .examples = run_examples,
        .run = cli_run_run,
    },
    {
        .name = "engines",
        .summary = "list the ways to run a processor, and which work here",
        .description = "Lists the engines in the order in which '--engine auto' tries them. "
                       "For one that cannot run on this host a sentence says why.",
        .options = cli_list_options,
        .run = cli_engines_run,
    },
    {
        .name = "devices",
        .summary = "list the devices, or one device's properties",
        .operands = "[DEVICE]",
        .description = "Lists the device classes that '--device' accepts. With DEVICE, lists its "
                       "properties: name, type, default and meaning.",
        .options = cli_list_options,
        .max_operands = 1,
        .operand_choices = cli_device_choices,
        .examples = devices_examples,
        .run = cli_devices_run,
    },
    {
        .name = "cpus",
        .summary = "list the processor models",
        .description = "Lists the models that '--cpu' accepts. Features can be added to or taken "
                       "from a model: --cpu x86-64-v3,+sha,-avx2. For a model that this host "
                       "cannot give a sentence says why.",
        .options = cli_list_options,
        .run = cli_cpus_run,
    },
    {
        .name = "traces",
        .summary = "list the trace events",
        .description = "Lists the events that '--trace' accepts, by name or with * for any part "
                       "of a name.",
        .options = cli_list_options,
        .run = cli_traces_run,
    },
    {
        .name = "monitor",
        .summary = "send a command to a running machine",
        .operands = "SOCKET [COMMAND [NAME=VALUE]...]",
        .description =
            "Talks to the socket of 'trapeze run --monitor SOCKET'. COMMAND is one of the "
            "monitor's commands; 'help' lists them with their arguments. Without COMMAND, "
            "commands are read from standard input, one a line. Answers are JSON, one a line.",
        .options = cli_client_options,
        .min_operands = 1,
        .max_operands = 16,
        .operand_file = true,
        .examples = monitor_examples,
        .run = cli_monitor_run,
    },
    {
        .name = "inspect",
        .summary = "print the state of a running machine's devices and processors",
        .operands = "SOCKET [DEVICE]",
        .description = "Prints every guest-visible field of DEVICE (a device's id, or cpu0, cpu1 "
                       "and so on), or of all. The machine stands still for the moment it takes.",
        .options = cli_client_options,
        .min_operands = 1,
        .max_operands = 2,
        .operand_file = true,
        .examples = inspect_examples,
        .run = cli_inspect_run,
    },
    {
        .name = "completion",
        .summary = "print a completion script for a shell",
        .operands = "SHELL",
        .description = "Prints the script for bash, zsh or fish. For bash, put "
                       "'source <(trapeze completion bash)' into ~/.bashrc.",
        .options = cli_completion_options,
        .max_operands = 1,
        .operand_choices = cli_shell_choices,
        .run = cli_completion_run,
    },
    {
        .name = "help",
        .summary = "explain a verb",
        .operands = "[VERB]",
        .description = "Without VERB, lists the verbs.",
        .options = cli_help_options,
        .max_operands = 1,
        .operand_choices = cli_verb_choices,
        .run = cli_help_run,
    },
    {
        .name = "version",
        .summary = "print the version",
        .description = "Prints the version of this program.",
        .options = cli_no_options,
        .run = cli_version_run,
    },
    {NULL},
};

const struct cli_verb *cli_verb_find(const char *name)
{
    for (const struct cli_verb *verb = cli_verbs; verb->name; verb++)
        if (strcmp(verb->name, name) == 0)
            return verb;
    return NULL;
}

void cli_verb_choices(cli_put_choice *put, void *opaque)
{
    for (const struct cli_verb *verb = cli_verbs; verb->name; verb++)
        put(opaque, verb->name, verb->summary);
}

/* "trapeze --help" and the like, which people type before they know the verbs. */
static const char *verb_name(const char *word)
{
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        return "help";
    if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0)
        return "version";
    return word;
}

static int run_verb(char **argv)
{
    const struct cli_verb *verb;
    struct error err = {0};
    const char *name;

    if (!argv[0] || !argv[1]) {
        cli_print_overview(stderr);
        return CLI_MISUSED;
    }
    name = verb_name(argv[1]);
    verb = cli_verb_find(name);
    if (verb)
        return verb->run(verb, argv + 2);
    cli_check_choice("verb", name, cli_verb_choices, &err);
    fprintf(stderr, "trapeze: %s\nTry 'trapeze help'.\n", err.text);
    return CLI_MISUSED;
}

int cli_main(char **argv)
{
    int status = run_verb(argv);

    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    perror("trapeze: writing to standard output");
    return status == CLI_DONE ? CLI_FAILED : status;
}
