/*
 * run_options.c - the options of trapeze run
 */
#include "cli/run_options.h"

#include <string.h>

#include "cli/run.h"
#include "trapeze/machine.h"

static const char default_name[] = "vm";

bool run_has_name(const struct run_options *options)
{
    return options->name != default_name;
}

static bool is_debug_address(const char *word)
{
    const char *colon = strrchr(word, ':');
    const char *port = colon ? colon + 1 : word;

    if (strncmp(word, "unix:", 5) == 0)
        return true;
    return *port && port[strspn(port, "0123456789")] == '\0';
}

static bool is_stats_form(const char *word)
{
    return strcmp(word, "text") == 0 || strcmp(word, "json") == 0;
}

#define AT(field) .offset = offsetof(struct run_options, field)

const struct cli_option cli_run_options[] = {
    {"What to run", .kind = CLI_HEADING},
    {"kernel", 'k', CLI_TEXT, AT(kernel), "FILE", .file = true,
     .help =
         "start this kernel: a Linux bzImage, an ELF file with a PVH note, or a multiboot file"},
    {"initrd", 'i', CLI_TEXTS, AT(initrd), "FILE[,FILE]...", .file = true,
     .help = "initial RAM disks for Linux (put one behind the other) or modules for multiboot and "
             "PVH; ',,' stands for a comma; may be repeated"},
    {"append", 'a', CLI_TEXT, AT(append), "TEXT", .help = "command line of the kernel"},
    {"kernel-entry", 0, CLI_TEXT, AT(kernel_entry), "32|64", .initial = "auto",
     .choices = run_entry_choices, .only_choices = true, .help = "how a Linux bzImage is entered"},
    {"firmware", 'f', CLI_TEXT, AT(firmware), "bios|uefi|uefi-secure|FILE", .file = true,
     .choices = run_firmware_choices,
     .help = "what is entered at reset: SeaBIOS, OVMF, OVMF with Secure Boot, or a ROM image that "
             "ends at 4 GiB (default: "
             "bios if there is a disk, a CD or a floppy and no kernel)"},
    {"nvram", 0, CLI_TEXT, AT(nvram), "FILE", .file = true,
     .help = "keep UEFI's variables there; made if it is not there yet (default: they are "
             "forgotten)"},

    {"The machine", .kind = CLI_HEADING},
    {"smm", 0, CLI_TEXT, AT(smm), "on|off", .initial = "auto", .choices = run_smm_choices,
     .only_choices = true,
     .help = "System Management Mode; auto: if --firmware is one that needs it"},
    {"config", 0, CLI_TEXT, AT(config), "FILE", .file = true, .is_no_config = true,
     .help = "take options from this JSON file, as --dry-run prints it; those of the command line "
             "win, or are added"},
    {"dry-run", .kind = CLI_FLAG, AT(dry_run), .is_no_config = true,
     .help = "print the machine as JSON, with what was chosen for it, and run nothing"},
    {"name", 'n', CLI_TEXT, AT(name), "NAME", .initial = default_name,
     .help =
         "name of the machine, by which 'trapeze list', 'trapeze open NAME' and all that take a "
         "SOCKET find it while it runs"},
    {"memory", 'm', CLI_SIZE, AT(memory_bytes), "SIZE", .initial = "512M", .min = 1ull << 20,
     .max = 1ull << 39, .help = "RAM; K, M, G or T may follow the number, and M is assumed"},
    {"cpus", 'c', CLI_NUMBER, AT(cpus), "N", .initial = "1", .min = 1, .max = MACHINE_MAX_VCPUS,
     .help = "processors, up to 16"},
    {"cpu", 0, CLI_TEXT, AT(cpu), "MODEL[,+F,-F]", .initial = "max", .choices = cli_cpu_choices,
     .help = "processor model, with features added or taken away"},
    {"engine", 'e', CLI_TEXT, AT(engine), "NAME", .initial = "auto", .choices = cli_engine_choices,
     .only_choices = true, .help = "what executes instructions"},
    {"rng", .kind = CLI_FLAG, AT(rng),
     .help = "random bytes of the host for the guest: a virtio entropy device"},
    {"balloon", 0, CLI_TEXT, AT(balloon), "on|off", .choices = run_balloon_choices,
     .only_choices = true,
     .help = "a virtio memory balloon: what the guest frees goes back to the host, and 'trapeze "
             "balloon' can take more (default: on if the guest boots from firmware, else off; "
             "--device virtio-balloon is one with properties)"},
    {"device", 'd', CLI_TEXTS, AT(device), "NAME[,P=VALUE]...", .choices = cli_device_choices,
     .help = "add a device, with properties; 'NAME,help' lists these; may be repeated"},
    {"disk", 'D', CLI_TEXTS, AT(disk), "FILE[,P=VALUE]...", .file = true,
     .help =
         "a disk: an image, a block device or the URI of an NBD server; if=virtio, nvme, ahci, "
         "ide, scsi, usb (or "
         "virtio-mmio: without PCI) is how the guest sees it, transitional=on lets old virtio "
         "drivers use it, serial=TEXT its number, bootindex=N its place before all that have a "
         "higher one, or none, when firmware looks for a system, format=raw, qcow2... "
         "what FILE is (default: found out), "
         "readonly=on leaves FILE as it is, snapshot=on forgets what is written, discard=off "
         "keeps room that the guest gives back, lock=off shares FILE, aio=threads reads it without "
         "io_uring, cache=none goes past the host's page cache, writethrough makes each write "
         "safe, unsafe ignores flushes: a host that stops destroys the disk, throttle.iops=N and "
         "bps=N (and iops_rd, iops_wr, bps_rd, bps_wr) bound requests and bytes a second; ',,' "
         "stands for a comma; may be repeated"},
    {"cdrom", 0, CLI_TEXTS, AT(cdrom), "FILE[,P=VALUE]...", .file = true,
     .help = "a CD or DVD in a drive: an ISO image, or none ('trapeze media insert' puts one in); "
             "if=ahci or ide is how the guest sees the drive, "
             "serial=TEXT and bootindex=N as those of a disk; ',,' stands for a comma; may be "
             "repeated"},
    {"floppy", 0, CLI_TEXTS, AT(floppy), "FILE[,P=VALUE]...", .file = true,
     .help = "a floppy drive with a disk: an image of 160K to 2.88M, or none ('trapeze media "
             "insert' puts one in); type=360K, 720K, 1.2M, 1.44M or 2.88M is the drive (default: "
             "as the disk wants it), readonly=on protects the disk, bootindex=N, snapshot=on and "
             "format= as those of a disk; ',,' stands for a comma; two can be given"},
    {"boot", 'b', CLI_TEXT, AT(boot), "KIND[,KIND]...", .choices = run_boot_choices,
     .help = "where firmware looks for a system, in this order (default: "
             "disk,cdrom,floppy,network; what "
             "is not named comes last)"},
    {"snapshot", .kind = CLI_FLAG, AT(snapshot),
     .help = "write to no disk image: changes go to nameless files in $TMPDIR (or /var/tmp), and "
             "are gone at the end"},
    {"net", 'N', CLI_TEXTS, AT(net), "KIND[,P=VALUE]...", .choices = run_net_choices,
     .help =
         "a network card and what it is connected to; model=virtio, virtio-mmio (without PCI) "
         "or e1000 is what the guest sees, transitional=on lets old virtio drivers use it, "
         "mac=ADDRESS its address (default: made of the machine's name and disks; without disks "
         "or --uuid a new one at each start), queues=N and mtu=N more of "
         "a virtio card, romfile=FILE "
         "its boot ROM (default: iPXE of the package ipxe-qemu if there is nothing else to "
         "start from); tftp=FOLDER,bootfile=NAME of user is what a card boots; vlan=N or "
         "trunk=LIST of "
         "switch=NAME is the port, see 'trapeze help switch run' (default: user "
         "if the guest boots from firmware and libslirp was there when trapeze was built, else "
         "none); may be repeated"},
    {"hotplug", 0, CLI_NUMBER, AT(hotplug), "N", .initial = "0", .max = RUN_MAX_PORTS,
     .help =
         "slots for disks and network cards that come and go while the machine runs ('trapeze "
         "device add', which needs --monitor), up to 16. The sandbox then lets the machine make "
         "connections, as with a user network"},
    {"publish", 'p', CLI_TEXTS, AT(publish), "[HOST:]PORT:GUESTPORT[/udp]",
     .help = "lead a port of the host to the guest, on the first network, which is user; HOST is "
             "127.0.0.1 unless said; may be repeated"},
    {"cloud-init", 0, CLI_TEXT, AT(cloud_init), "FILE", .file = true,
     .help =
         "user data for cloud-init in the guest (#cloud-config ..., or a script), on a disk that "
         "is made for it (NoCloud); --name is the guest's host name"},
    {"ssh-key", 0, CLI_TEXTS, AT(ssh_key), "FILE", .file = true,
     .help = "public keys that may log in, as cloud-init in the guest is told; a port of the host "
             "leads to its SSH server (the first that is free from 2222 on, unless --publish says "
             "otherwise); may be repeated"},
    {"share", 0, CLI_TEXTS, AT(share), "DIR[,P=VALUE]...", .file = true,
     .help =
         "let the guest mount this folder of the host: mount -t 9p -o "
         "trans=virtio,version=9p2000.L,msize=512000 TAG /mnt; tag=NAME is its TAG (default: "
         "share, then share2 and so on), readonly=on leaves the folder as it is; what the guest "
         "makes belongs to who runs trapeze; ',,' stands for a comma; may be repeated"},
    {"vsock", 0, CLI_TEXT, AT(vsock), "CID,PATH",
     .help =
         "virtio sockets (AF_VSOCK) between programs of the guest, whose address is CID (3 or "
         "more), and of the host: who connects to the unix socket PATH and writes 'CONNECT PORT' "
         "and a newline reaches the guest's port; what the guest connects to at CID 2 is "
         "PATH_PORT"},
    {"rtc", 0, CLI_TEXT, AT(rtc), "TIME",
     .help = "time of day at the start: now, 2024-01-31T12:00:00 (UTC) or @SECONDS since 1970 "
             "(default: now; 2024-01-01T00:00:00 with --counted)"},
    {"uuid", 0, CLI_TEXT, AT(uuid), "UUID",
     .help = "what the machine tells the guest as its own (SMBIOS; default: nothing)"},
    {"serial-number", 0, CLI_TEXT, AT(serial_number), "TEXT",
     .help = "the same for its serial number, up to 63 characters"},
    {"counted", 0, CLI_FLAG, AT(counted),
     .help = "guest time is the number of executed instructions, one nanosecond each, so that two "
             "runs are identical; one processor only"},
    {"stats", 0, CLI_OPTIONAL, AT(stats), "text|json", .implied = "text", .takes = is_stats_form,
     .choices = run_stats_choices, .only_choices = true,
     .help = "print what the engine has counted and where its time went, at the end, to standard "
             "error"},
    {"code-cache", 0, CLI_SIZE, AT(code_cache_bytes), "SIZE", .min = 2ull << 20,
     .max = 1536ull << 20,
     .help = "memory for translated code (default: an eighth of RAM, but 160M to 640M; twice that "
             "with several processors)"},
    {"listing", 0, CLI_TEXT, AT(listing), "FILE", .file = true,
     .help = "write each translated block there: guest instructions, and the host's under them"},
    {"perf-map", 0, CLI_FLAG, AT(perf_map),
     .help = "name translated code for perf, in /tmp/perf-PID.map"},
    {"no-reboot", 0, CLI_FLAG, AT(no_reboot),
     .help = "end instead of resetting; a triple fault ends with status 1"},

    {"Consoles", .kind = CLI_HEADING},
    {"console", 0, CLI_TEXT, AT(console), "serial|virtio", .initial = "serial",
     .choices = run_console_choices, .only_choices = true,
     .help = "what has the terminal: the first serial port, or a virtio console, which knows the "
             "size of the window (Linux: console=hvc0); COM1 is null then unless --serial says "
             "otherwise"},
    {"serial", 's', CLI_TEXTS, AT(serial), "BACKEND", .choices = run_chardev_choices,
     .help = "where the serial ports lead, COM1 then COM2: stdio, null, file:path=F, "
             "socket:path=F and others (default: stdio, then null)"},
    {"port", 0, CLI_TEXTS, AT(port), "NAME=unix:PATH",
     .help = "a port of a virtio console, which programs in the guest find by its name "
             "(/dev/virtio-ports/NAME), on a Unix socket or another BACKEND of --serial; the QEMU "
             "guest agent's is org.qemu.guest_agent.0; may be repeated"},
    {"debugcon", 0, CLI_TEXT, AT(debugcon), "BACKEND", .initial = "null",
     .choices = run_chardev_choices,
     .help = "where the debug console at ports 0xe9 and 0x402 leads; with stdio, COM1 is null "
             "unless --serial says otherwise"},

    {"Screen", .kind = CLI_HEADING},
    {"vga", 0, CLI_TEXT, AT(vga), "std|virtio|none[,P=VALUE]...", .choices = run_vga_choices,
     .help =
         "the graphics card: std is a VGA with linear modes up to 32 bits a pixel, memory=N its "
         "MiB, xres=N and yres=N what its monitor likes best; virtio is the same, and a "
         "virtio-gpu, which systems with its driver use, with the cursor drawn by viewers and the "
         "screen as large as they like (default: std if the guest boots from firmware, else none; "
         "--device virtio-gpu is a second one)"},
    {"display", 0, CLI_TEXTS, AT(display), "none|vnc[=ADDRESS][,P=VALUE]...|sdl|curses",
     .choices = run_display_choices,
     .help = "who looks at the screen: vnc lets viewers of VNC connect to ADDRESS, [HOST:]PORT or "
             "unix:PATH (default: the first port of 127.0.0.1 from 5900 on that is free), "
             "password=FILE asks for the first line of FILE, tls-cert=FILE and tls-key=FILE "
             "encrypt; sdl is a window (Ctrl-Alt-F: full screen, Ctrl-Alt-G: keep the keyboard and "
             "pointer, or let go, Ctrl-Alt-U: the guest's own size; closing it asks the guest to "
             "power off, and ends it the second time); curses shows text modes on this terminal, "
             "which COM1 then has not, and Ctrl-A is its escape key (Ctrl-A x leaves, Ctrl-A h "
             "tells more); may be repeated (default: none)"},
    {"web", 0, CLI_OPTIONAL, AT(web), "[HOST:]PORT", .implied = RUN_WEB_ANYWHERE,
     .takes = run_is_web_address,
     .help = "serve a page there (default: the first port of 127.0.0.1 from 8080 on that is free) "
             "with the screen, the console, buttons and statistics; its address, with a secret, is "
             "printed to standard error. The packages novnc and node-xterm have the screen and the "
             "terminal"},
    {"audio", 0, CLI_TEXT, AT(audio), "null|sdl|wav=FILE", .choices = run_audio_choices,
     .help = "a sound card (Intel HD Audio), and where it and the PC speaker are heard: sdl is the "
             "host's own devices, wav=FILE is a file for players, in which the time is left out "
             "when nothing sounds (default: no card, and the speaker is silent)"},
    {"usb", 0, CLI_TEXT, AT(usb), "on|off|xhci|ehci|uhci", .choices = run_usb_choices,
     .only_choices = true,
     .help =
         "a USB controller with a tablet, which follows the host's pointer, and a keyboard; on is "
         "xhci, ehci and uhci are for systems that do not know that "
         "(default: on if somebody looks at the screen, else off; --device usb-tablet, usb-kbd, "
         "usb-mouse and usb-hub are single ones, --disk FILE,if=usb is a stick, --device "
         "usb-host,id=VENDOR:PRODUCT or usb-host,at=BUS-PORT is a device of the host)"},
    {"keyboard-layout", 0, CLI_TEXT, AT(keyboard_layout), "LAYOUT[:VARIANT]", .initial = "us",
     .choices = run_layout_choices,
     .help = "what is on the keys of the guest's keyboard, as the guest has been told, for who "
             "types characters: 'trapeze type', viewers of VNC, the terminal of --display curses; "
             "named as in X (default: us)"},
    {"clipboard", 0, CLI_TEXT, AT(clipboard), "on|off", .choices = run_clipboard_choices,
     .only_choices = true,
     .help = "what is copied in the guest is there for those who look at the screen, and the other "
             "way round, as text; the guest needs the package spice-vdagent (default: on if "
             "somebody looks at the screen, else off)"},

    {"Control", .kind = CLI_HEADING},
    {"monitor", 'M', CLI_TEXT, AT(monitor), "SOCKET", .file = true,
     .help = "listen on this unix socket for 'trapeze monitor' and 'trapeze inspect'"},
    {"gdb", 'g', CLI_OPTIONAL, AT(gdb), "ADDRESS", .implied = "localhost:1234",
     .takes = is_debug_address,
     .help = "listen for gdb on [HOST:]PORT or unix:PATH (default: localhost:1234)"},
    {"paused", 'S', CLI_FLAG, AT(paused),
     .help = "stand still before the first instruction, until gdb or the monitor lets go"},
    {"pause-at", 0, CLI_NUMBER, AT(pause_at), "NS", .initial = "0", .max = UINT64_MAX,
     .help = "pause when guest time is this; with --counted at that very instruction"},

    {"sandbox", 0, CLI_TEXT, AT(sandbox), "on|off", .initial = "on", .choices = run_sandbox_choices,
     .only_choices = true,
     .help = "give up what a running machine does not need of the kernel: opening files, starting "
             "programs, connecting, making memory executable"},

    {"Messages", .kind = CLI_HEADING},
    {"log-level", 'l', CLI_TEXT, AT(log_level), "LEVEL", .initial = "info",
     .choices = cli_log_level_choices, .only_choices = true,
     .help = "how much is said on standard error"},
    {"trace", 't', CLI_TEXT, AT(trace), "EVENTS", .choices = cli_trace_choices,
     .help = "trace events by name or pattern, separated by commas; -NAME switches off: "
             "'port_*,timer_fire,-port_read'"},
    {"trace-file", 0, CLI_TEXT, AT(trace_file), "FILE", .file = true,
     .help = "write traces to FILE instead of standard error"},
    {"digest", 0, CLI_NUMBER, AT(digest), "NS", .initial = "0", .max = UINT64_MAX,
     .help = "with --counted: every NS of guest time there are the events cpu_digest and "
             "machine_digest to trace, which tell whether two runs are the same"},
    {"digest-from", 0, CLI_NUMBER, AT(digest_from), "NS", .initial = "0", .max = UINT64_MAX,
     .help = "guest time of the first digest"},
    {.kind = CLI_END},
};
