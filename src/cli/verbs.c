/*
 * verbs.c - the table of verbs, and the way into one
 */
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

#include "cli/machines.h"

static const struct cli_example run_examples[] = {
    {"trapeze run --kernel vmlinuz --initrd initrd.img --append console=ttyS0",
     "boot a Linux kernel with the first serial port on this terminal"},
    {"trapeze run vmlinux --cpus 4 -m 2G --monitor vm.sock",
     "four processors, 2 GiB, and a socket that 'trapeze monitor' talks to"},
    {"trapeze run vmlinuz --gdb --paused",
     "wait for 'gdb -ex \"target remote :1234\"' before the first instruction"},
    {"trapeze run test.elf --counted --serial null --debugcon stdio",
     "a repeatable run whose output comes from the debug console"},
    {"trapeze run debian.qcow2 -m 1G --web", "screen, console and buttons in the browser"},
    {NULL},
};

static const struct cli_example open_examples[] = {
    {"trapeze run debian.qcow2 --name debian --usb on &", "a machine that nobody looks at"},
    {"trapeze open debian", "look at it"},
    {NULL},
};

static const struct cli_example monitor_examples[] = {
    {"trapeze monitor vm.sock status", "one command"},
    {"trapeze monitor vm.sock memory-read gpa=0x7c00 size=512", "arguments by name"},
    {"trapeze monitor vm.sock inspect pit", "the first argument's name can be left out"},
    {"trapeze monitor vm.sock", "commands from standard input, one a line"},
    {NULL},
};

static const struct cli_example device_add_examples[] = {
    {"trapeze run debian.qcow2 --hotplug 4 --monitor vm.sock", "a machine with slots"},
    {"trapeze device add vm.sock --disk data.qcow2", "a disk"},
    {"trapeze device remove vm.sock virtio-blk-2", "and without it again"},
    {NULL},
};

static const struct cli_example media_insert_examples[] = {
    {"trapeze run debian.qcow2 --cdrom first.iso --monitor vm.sock", "a machine with a CD"},
    {"trapeze media insert vm.sock second.iso", "another one in its place"},
    {"trapeze media eject vm.sock", "and none"},
    {NULL},
};

static const struct cli_example balloon_examples[] = {
    {"trapeze balloon vm.sock", "how much memory the guest has and uses"},
    {"trapeze balloon vm.sock 512M", "leave it 512 MiB"},
    {NULL},
};

static const struct cli_example screenshot_examples[] = {
    {"trapeze screenshot vm.sock screen.png", "a picture"},
    {"trapeze screenshot vm.sock --text", "what a text mode says"},
    {NULL},
};

static const struct cli_example type_examples[] = {
    {"trapeze type vm.sock 'root{enter}'", "log in"},
    {"trapeze type vm.sock '{ctrl-c}ls -l | more{enter}'", "keys in between"},
    {NULL},
};

static const struct cli_example key_examples[] = {
    {"trapeze key vm.sock ctrl-alt-del", "three keys together"},
    {NULL},
};

static const struct cli_example inspect_examples[] = {
    {"trapeze inspect vm.sock", "everything"},
    {"trapeze inspect vm.sock cpu0 --json", "one processor's registers as JSON"},
    {NULL},
};

static const struct cli_example image_build_examples[] = {
    {"trapeze image build debian debian.qcow2 --ssh-key ~/.ssh/id_ed25519.pub",
     "a disk to log in to"},
    {"trapeze run debian.qcow2 --publish 2222:22", "and how: ssh -p 2222 root@localhost"},
    {NULL},
};

static const struct cli_example image_create_examples[] = {
    {"trapeze image create disk.qcow2 20G", "a disk of 20 GiB that takes room as it is written"},
    {"trapeze image create -b debian.qcow2 mine.qcow2", "changes to an image that stays as it is"},
    {NULL},
};

static const struct cli_example image_convert_examples[] = {
    {"trapeze image convert -c disk.raw disk.qcow2", "a raw image becomes a compressed one"},
    {"trapeze image convert -O raw disk.qcow2 /dev/sdx --force", "onto a real disk"},
    {NULL},
};

static const struct cli_example switch_examples[] = {
    {"trapeze switch run lab &", "a switch by the name of lab"},
    {"trapeze run web.qcow2 --net switch=lab,vlan=5", "a machine in VLAN 5"},
    {"trapeze run router.qcow2 --net switch=lab,trunk=5+7", "one that sees tags of two VLANs"},
    {"trapeze switch show lab", "who is there"},
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
        .name = "image build",
        .summary = "make a bootable disk from a distribution's packages",
        .operands = "SYSTEM FILE",
        .description =
            "SYSTEM is 'debian'. The disk starts by BIOS and by UEFI, has its console on the "
            "first serial port and on the screen, takes an address by DHCP, and lets "
            "ssh in. FILE becomes a qcow2 image if its name ends so, else a raw one. "
            "Needs no root where user namespaces are allowed, and a few of Debian's "
            "programs, which it names if they are not there.",
        .options = cli_image_build_options,
        .min_operands = 2,
        .max_operands = 2,
        .operand_choices = cli_image_build_choices,
        .operand_file = true,
        .examples = image_build_examples,
        .run = cli_image_build_run,
    },
    {
        .name = "image create",
        .summary = "make a disk image",
        .operands = "FILE [SIZE]",
        .description = "SIZE is in bytes, or with a suffix K, M, G or T. With a backing file it "
                       "can be left out, and is that file's.",
        .options = cli_image_create_options,
        .min_operands = 1,
        .max_operands = 2,
        .operand_file = true,
        .examples = image_create_examples,
        .run = cli_image_create_run,
    },
    {
        .name = "image info",
        .summary = "say what an image is",
        .operands = "IMAGE",
        .description = "Prints format and sizes, and for qcow2 what its header says. A machine "
                       "may be using the image.",
        .options = cli_image_info_options,
        .min_operands = 1,
        .max_operands = 1,
        .operand_file = true,
        .run = cli_image_info_run,
    },
    {
        .name = "image convert",
        .summary = "copy a disk into a new image of any format",
        .operands = "IMAGE FILE",
        .description = "The new image has all that the disk has, with what is in backing files. "
                       "What is zero takes no room.",
        .options = cli_image_convert_options,
        .min_operands = 2,
        .max_operands = 2,
        .operand_file = true,
        .examples = image_convert_examples,
        .run = cli_image_convert_run,
    },
    {
        .name = "image check",
        .summary = "look for errors in a qcow2 image",
        .operands = "IMAGE",
        .description = "Compares what the image uses with what it counts. Clusters that are "
                       "counted and not used are lost room: a crash may leave such, and they do "
                       "no harm. The status is 1 if there are other errors that were not repaired.",
        .options = cli_image_check_options,
        .min_operands = 1,
        .max_operands = 1,
        .operand_file = true,
        .run = cli_image_check_run,
    },
    {
        .name = "image resize",
        .summary = "make a disk larger or smaller",
        .operands = "IMAGE [+|-]SIZE",
        .description = "SIZE is in bytes, or with a suffix K, M, G or T; with + or - by that much. "
                       "Partitions and file systems in it are not changed. After -- a size may "
                       "begin with -.",
        .options = cli_image_resize_options,
        .min_operands = 2,
        .max_operands = 2,
        .operand_file = true,
        .run = cli_image_resize_run,
    },
    {
        .name = "image commit",
        .summary = "move what is in an image into its backing file",
        .operands = "IMAGE",
        .description = "Other images over the same backing file are destroyed by this.",
        .options = cli_image_commit_options,
        .min_operands = 1,
        .max_operands = 1,
        .operand_file = true,
        .run = cli_image_commit_run,
    },
    {
        .name = "image rebase",
        .summary = "put an image on another backing file",
        .operands = "IMAGE",
        .description = "The disk stays the same: where the two backing files differ, what was "
                       "seen becomes part of the image. With an empty name the image then stands "
                       "alone.",
        .options = cli_image_rebase_options,
        .min_operands = 1,
        .max_operands = 1,
        .operand_file = true,
        .run = cli_image_rebase_run,
    },
    {
        .name = "switch run",
        .summary = "run an Ethernet switch with VLANs between machines",
        .operands = "NAME|PATH",
        .description =
            "Machines of the same user connect to it with '--net switch=NAME', as access ports "
            "(vlan=N) or as trunks (trunk=all or a list like 1+5-9). Each wants a --name of its "
            "own: "
            "cards' addresses are made of it. The switch learns addresses; no frame leaves its "
            "VLAN. NAME is a socket in $XDG_RUNTIME_DIR (or /tmp); a PATH has a '/'. Runs until "
            "SIGINT "
            "or SIGTERM.",
        .options = cli_no_options,
        .min_operands = 1,
        .max_operands = 1,
        .operand_file = true,
        .examples = switch_examples,
        .run = cli_switch_run_run,
    },
    {
        .name = "switch show",
        .summary = "list a switch's ports and learned addresses",
        .operands = "NAME|PATH",
        .description = "Frames are counted: received, sent, refused by the rules of VLANs, and "
                       "lost because the port did not take them.",
        .options = cli_switch_show_options,
        .min_operands = 1,
        .max_operands = 1,
        .operand_file = true,
        .run = cli_switch_show_run,
    },
    {
        .name = "switch capture",
        .summary = "write what passes a port of a switch to a file",
        .operands = "NAME|PATH PORT FILE",
        .description = "PORT is a number of 'trapeze switch show'. FILE is in the format pcap, "
                       "for tcpdump and wireshark. Runs until it is interrupted, or the switch "
                       "ends.",
        .options = cli_no_options,
        .min_operands = 3,
        .max_operands = 3,
        .operand_file = true,
        .run = cli_switch_capture_run,
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
        .name = "list",
        .summary = "list the machines that run",
        .description = "Lists the machines of this user that were started with --name.",
        .options = cli_client_options,
        .run = cli_list_run,
    },
    {
        .name = "open",
        .summary = "show a running machine's screen in a window",
        .operands = "SOCKET|NAME",
        .description =
            "Opens a window on this desktop, with keyboard and pointer, and ends when that is "
            "closed; the machine goes on, and there can be several windows. Ctrl-Alt-F is full "
            "screen, Ctrl-Alt-G keeps the keyboard and the pointer in the window or lets go, "
            "Ctrl-Alt-U gives it the size of the guest's screen. The machine runs with --name NAME "
            "or --monitor SOCKET and a graphics card.",
        .options = cli_no_options,
        .min_operands = 1,
        .max_operands = 1,
        .operand_choices = machines_choices,
        .operand_file = true,
        .examples = open_examples,
        .run = cli_open_run,
    },
    {
        .name = "monitor",
        .summary = "send a command to a running machine",
        .operands = "SOCKET|NAME [COMMAND [NAME=VALUE]...]",
        .description =
            "Talks to a machine that runs with --name NAME or --monitor SOCKET. COMMAND is one of "
            "the "
            "monitor's commands; 'help' lists them with their arguments. Without COMMAND, "
            "commands are read from standard input, one a line. Answers are JSON, one a line.",
        .options = cli_client_options,
        .min_operands = 1,
        .max_operands = 16,
        .operand_choices = machines_choices,
        .operand_file = true,
        .examples = monitor_examples,
        .run = cli_monitor_run,
    },
    {
        .name = "device add",
        .summary = "put a disk, card or USB device into a running machine",
        .operands = "SOCKET|NAME",
        .description =
            "The machine runs with --name NAME or --monitor SOCKET and --hotplug N. "
            "Prints the id of "
            "the device, which 'trapeze device remove' takes. A USB stick "
            "(--disk FILE,if=usb) or another USB device (--device usb-mouse, or one of the host: "
            "--device usb-host,id=VENDOR:PRODUCT) needs no slot, "
            "but a USB controller, and goes at once.",
        .options = cli_device_add_options,
        .min_operands = 1,
        .max_operands = 1,
        .operand_choices = machines_choices,
        .operand_file = true,
        .examples = device_add_examples,
        .run = cli_device_add_run,
    },
    {
        .name = "device remove",
        .summary = "take out what was added",
        .operands = "SOCKET|NAME DEVICE",
        .description = "Asks the guest to let go of the device, and waits until it is gone: a few "
                       "seconds, as systems let one change one's mind. With --force it goes at "
                       "once, and what the guest had not written is lost to it.",
        .options = cli_device_remove_options,
        .min_operands = 2,
        .max_operands = 2,
        .operand_choices = machines_choices,
        .operand_file = true,
        .run = cli_device_remove_run,
    },
    {
        .name = "media insert",
        .summary = "put another CD or floppy into a running machine's drive",
        .operands = "SOCKET|NAME FILE[,P=VALUE]... [DRIVE]",
        .description =
            "FILE is an ISO image, as with 'trapeze run --cdrom', or a floppy's, as "
            "with --floppy; ',,' stands for a comma. DRIVE is the id of the drive, as 'trapeze "
            "monitor SOCKET devices' lists it, and can be left out if there is one. A guest "
            "that has locked the drive, as systems do while they have a CD mounted, is "
            "asked to open it, and the CD goes in when it has; with --force at once. "
            "The machine runs with --name NAME or --monitor SOCKET and --cdrom or --floppy, "
            "which may be 'none'.",
        .options = cli_media_options,
        .min_operands = 2,
        .max_operands = 3,
        .operand_choices = machines_choices,
        .operand_file = true,
        .examples = media_insert_examples,
        .run = cli_media_insert_run,
    },
    {
        .name = "media eject",
        .summary = "take the CD or floppy out of a running machine's drive",
        .operands = "SOCKET|NAME [DRIVE]",
        .description =
            "A CD drive's tray stays open. A guest that has locked the drive is asked to open "
            "it, and may do so or not; with --force the CD goes at once.",
        .options = cli_media_options,
        .min_operands = 1,
        .max_operands = 2,
        .operand_choices = machines_choices,
        .operand_file = true,
        .run = cli_media_eject_run,
    },
    {
        .name = "balloon",
        .summary = "tell or change how much memory a running machine's guest has",
        .operands = "SOCKET|NAME [SIZE]",
        .description =
            "With SIZE, in bytes or with a suffix K, M, G or T, the guest is asked to give the "
            "rest of its memory back to the host, or may have it again: that takes a moment, and "
            "a guest may not have so much to give. Prints what it has (memory_bytes), what it "
            "shall have (target_bytes), what its memory takes of the host's now (host_bytes), and "
            "its own statistics. The machine runs with --name NAME or --monitor SOCKET and a "
            "balloon.",
        .options = cli_client_options,
        .min_operands = 1,
        .max_operands = 2,
        .operand_choices = machines_choices,
        .operand_file = true,
        .examples = balloon_examples,
        .run = cli_balloon_run,
    },
    {
        .name = "screenshot",
        .summary = "take a picture of a running machine's screen",
        .operands = "SOCKET|NAME [FILE]",
        .description =
            "Writes a PNG file ('-': to standard output), or with --text prints the characters of "
            "a text mode. The machine runs with --name NAME or --monitor SOCKET and a graphics "
            "card.",
        .options = cli_screenshot_options,
        .min_operands = 1,
        .max_operands = 2,
        .operand_choices = machines_choices,
        .operand_file = true,
        .examples = screenshot_examples,
        .run = cli_screenshot_run,
    },
    {
        .name = "type",
        .summary = "type a text on a running machine's keyboard",
        .operands = "SOCKET|NAME TEXT",
        .description =
            "Types TEXT as on the guest's keyboard (trapeze run --keyboard-layout), and ends when "
            "that is done. {enter}, {f10} or "
            "{ctrl-c} "
            "in it are keys, as 'trapeze key' names them, and {{ is a brace. The machine runs with "
            "--name NAME or --monitor SOCKET.",
        .options = cli_no_options,
        .min_operands = 2,
        .max_operands = 2,
        .operand_choices = machines_choices,
        .operand_file = true,
        .examples = type_examples,
        .run = cli_type_run,
    },
    {
        .name = "key",
        .summary = "press keys together on a running machine's keyboard",
        .operands = "SOCKET|NAME KEY[-KEY]...",
        .description =
            "Keys are a to z, 0 to 9, f1 to f12, enter, esc, tab, space, backspace, del, insert, "
            "home, end, pageup, pagedown, up, down, left, right, print, pause, ctrl, shift, alt, "
            "altgr, super, menu, rightctrl, rightshift, capslock, numlock, minus, equal, comma, "
            "period, slash and so on, and kp0 to kp9 and kpenter on the keypad. The machine runs "
            "with --name NAME or --monitor SOCKET.",
        .options = cli_no_options,
        .min_operands = 2,
        .max_operands = 2,
        .operand_choices = machines_choices,
        .operand_file = true,
        .examples = key_examples,
        .run = cli_key_run,
    },
    {
        .name = "click",
        .summary = "press a button of a running machine's pointer",
        .operands = "SOCKET|NAME X Y [left|right|middle]",
        .description =
            "Moves the pointer to a pixel of the screen, counted from 0, and presses a button "
            "there. A PS/2 mouse only knows movement: it is moved to the corner first, and where "
            "it "
            "ends up depends on the guest. The machine runs with --name NAME or --monitor SOCKET "
            "and a graphics "
            "card.",
        .options = cli_no_options,
        .min_operands = 3,
        .max_operands = 4,
        .operand_choices = machines_choices,
        .operand_file = true,
        .run = cli_click_run,
    },
    {
        .name = "inspect",
        .summary = "print the state of a running machine's devices and processors",
        .operands = "SOCKET|NAME [DEVICE]",
        .description = "Prints every guest-visible field of DEVICE (a device's id, or cpu0, cpu1 "
                       "and so on), or of all. The machine stands still for the moment it takes.",
        .options = cli_client_options,
        .min_operands = 1,
        .max_operands = 2,
        .operand_choices = machines_choices,
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
        .max_operands = 2,
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

/* Two words first, so that one that is another's beginning can be a verb too. */
const struct cli_verb *cli_verb_find(char *const *words, size_t *out_count)
{
    char name[64] = "";

    for (size_t count = words[0] && words[1] ? 2 : 1; words[0] && count; count--) {
        snprintf(name, sizeof(name), "%s%s%s", words[0], count > 1 ? " " : "",
                 count > 1 ? words[1] : "");
        *out_count = count;
        for (const struct cli_verb *verb = cli_verbs; verb->name; verb++)
            if (strcmp(verb->name, name) == 0)
                return verb;
    }
    return NULL;
}

bool cli_is_in_group(const struct cli_verb *verb, const char *word)
{
    size_t length = strlen(word);

    return strncmp(verb->name, word, length) == 0 && verb->name[length] == ' ';
}

int cli_no_verb(char *const *words, struct error *err)
{
    char name[64];
    bool is_group = false;

    for (const struct cli_verb *verb = cli_verbs; verb->name; verb++)
        is_group |= cli_is_in_group(verb, words[0]);
    snprintf(name, sizeof(name), "%s%s%s", words[0], is_group && words[1] ? " " : "",
             is_group && words[1] ? words[1] : "");
    return cli_check_choice("verb", name, cli_verb_choices, err);
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
    char *words[3] = {NULL};
    size_t count;

    if (!argv[0] || !argv[1]) {
        cli_print_overview(stderr);
        return CLI_MISUSED;
    }
    words[0] = (char *)(uintptr_t)verb_name(argv[1]);
    words[1] = argv[2];
    verb = cli_verb_find(words, &count);
    if (verb)
        return verb->run(verb, argv + 1 + count);
    if (!words[1] && cli_print_group(stderr, words[0]))
        return CLI_MISUSED;
    cli_no_verb(words, &err);
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
