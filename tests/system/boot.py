#!/usr/bin/env python3
"""boot.py TRAPEZE CASE - boot a real kernel and watch its console

Each case is a row of CASES: which guest, which options, which script its /init
runs (tools/guest-init.sh), what must appear on the console in this order, and
the exit status. The guests come from tools/guest.sh; without them the test is
skipped (status 77).
"""
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
CACHE = os.environ.get("TRAPEZE_CACHE") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "trapeze"
)
INIT = r"guest: init reached after [\d.]+ s"
OFF = r"reboot: Power down"
# How a first process of a test begins.
GUEST_BEGIN = """#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
"""


def case(guest, script, expect, options=(), append="", status=0, kernel="vmlinuz", limit_s=600):
    return {
        "guest": guest,
        "script": script,
        "expect": expect,
        "options": list(options),
        "append": append,
        "status": status,
        "kernel": kernel,
        "limit_s": limit_s,
    }


DEMO = [INIT, r"Linux .* x86_64 GNU/Linux", r"processor\s+: 0", r"Mem:\s+\d+", OFF]

CASES = {
    "cloud": case("cloud", "demo", DEMO, ["-m", "512M"]),
    "cloud-smp2": case("cloud", "smp", [INIT, "^2\r", "processors are done", OFF], ["--cpus", "2"]),
    "cloud-smp4": case("cloud", "smp", [INIT, "^4\r", "processors are done", OFF], ["--cpus", "4"]),
    "interpreter": case("cloud", "demo", DEMO, ["--engine", "interpreter"]),
    "interpreter-smp2": case(
        "cloud", "smp", [INIT, "^2\r", "processors are done", OFF], ["--engine", "interpreter", "--cpus", "2"]
    ),
    "cloud-small-cache": case(
        "cloud", "smp", [INIT, "^2\r", "processors are done", OFF], ["--cpus", "2", "--code-cache", "4M"]
    ),
    "cloud-128m": case("cloud", "demo", DEMO, ["-m", "128M"]),
    "cloud-4g": case("cloud", "demo", [r"0x0*13fffffff\] usable"] + DEMO, ["-m", "4G"]),
    "cloud-32-bit-entry": case("cloud", "demo", DEMO, ["--kernel-entry", "32"]),
    "pvh": case("cloud", "demo", DEMO, kernel="vmlinux"),
    "generic": case("generic", "demo", DEMO),
    "i386": case("i386", "demo", [INIT, r"Linux .* i686 GNU/Linux", r"Mem:\s+\d+", OFF]),
    "reboot": case("cloud", "reboot", [INIT, "guest: rebooting", INIT], status=None),
    **{
        f"reboot-{way}": case("cloud", "reboot", [INIT, "guest: rebooting", INIT], append=f"reboot={way}", status=None)
        for way in ("acpi", "kbd", "pci", "triple")
    },
    "no-reboot": case("cloud", "reboot", [INIT, "guest: rebooting"], ["--no-reboot"]),
    "status": case("cloud", "fail", [INIT, r"\+ false"], status=3),
    "terminate": case("cloud", "idle", [INIT, "guest: idle"], status=None),
}

# Lines of a kernel that is not at ease with the machine.
BAD = re.compile(
    r"(BUG:|WARNING:|Oops|Kernel panic|unable to handle|general protection|soft lockup"
    r"|hard LOCKUP|rcu_\w+ (?:self-)?detected stall|\[Firmware (?:Bug|Warn)|ACPI (?:BIOS )?Error"
    r"|clocksource: .* unstable|timer doesn't work|spurious interrupt)"
)


class Console:
    """What a child process prints, with waiting for patterns."""

    def __init__(self, command, interactive=False):
        self.text = ""
        self.seen = 0
        self.master = None
        if interactive:
            self.master, slave = pty.openpty()
            self.child = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave)
            os.close(slave)
            self.fd = self.master
        else:
            self.child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            self.fd = self.child.stdout.fileno()

    def read(self, deadline):
        """Read a little more; False at the end or when it is too late."""
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self.fd], [], [], left)[0]:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # a terminal whose other end is closed
            return False
        self.text += data.decode("utf-8", "replace")
        return bool(data)

    def wait_for(self, pattern, deadline):
        matcher = re.compile(pattern, re.M)
        while True:
            match = matcher.search(self.text, self.seen)
            if match:
                self.seen = match.end()
                return True
            if not self.read(deadline):
                return False

    def write(self, text):
        os.write(self.master, text.encode())

    def finish(self, deadline):
        """The exit status, None when it does not end."""
        while self.read(deadline):
            pass
        try:
            return self.child.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return None

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        try:
            return self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            return None


def fail(console, why):
    print(console.text)
    print(f"boot: {why}")
    if console.child.poll() is None:
        console.child.kill()
    sys.exit(1)


def command_for(trapeze, row):
    folder = os.path.join(CACHE, row["guest"])
    kernel = os.path.join(folder, row["kernel"])
    initrd = os.path.join(folder, "initramfs.cpio")
    if not (os.path.exists(kernel) and os.path.exists(initrd)):
        print(f"boot: {kernel} is not there; run tools/guests.sh")
        sys.exit(77)
    append = f"console=ttyS0 {row['append']}"
    if row["script"]:
        append += f" trapeze.script={row['script']}"
    return [trapeze, "run", "--kernel", kernel, "--initrd", initrd, "--append", append] + row[
        "options"
    ]


def check_console(console):
    bad = BAD.search(console.text)
    if bad:
        fail(console, f"the kernel complains: {bad.group(0)}")


def run_case(trapeze, name):
    row = CASES[name]
    deadline = time.monotonic() + row["limit_s"]
    console = Console(command_for(trapeze, row))
    for pattern in row["expect"]:
        if not console.wait_for(pattern, deadline):
            fail(console, f"'{pattern}' did not appear within {row['limit_s']} s")
    if row["status"] is None:
        status = console.stop()
        if status is None:
            fail(console, "it does not end on SIGTERM")
    else:
        status = console.finish(deadline)
        if status != row["status"]:
            fail(console, f"the exit status is {status}, not {row['status']}")
    check_console(console)
    report(name, console)


def run_shell(trapeze, name):
    """A shell on a terminal: type, read, leave."""
    row = case("cloud", "", [])
    deadline = time.monotonic() + row["limit_s"]
    console = Console(command_for(trapeze, row), interactive=True)
    steps = [
        (r"# ", "echo $((6 * 7)) is the answer\n"),
        (r"42 is the answer\r", "tty\n"),
        (r"/dev/ttyS0\r", "sleep 1000\n"),
        (r"sleep 1000\r", "\x03"),
        (r"# ", "echo still $((1 + 1))\n"),
        (r"still 2\r", "exit\n"),
        (OFF, ""),
    ]
    for pattern, answer in steps:
        if not console.wait_for(pattern, deadline):
            fail(console, f"'{pattern}' did not appear")
        if answer == "\x03":
            time.sleep(1)  # let the command start: the test is about interrupting it
        if answer:
            console.write(answer)
    status = console.finish(deadline)
    if status != 0:
        fail(console, f"the exit status is {status}, not 0")
    check_console(console)
    report(name, console)


def report(name, console):
    match = re.search(r"init reached after ([\d.]+) s", console.text)
    print(f"{name}: init after {match.group(1) if match else '?'} s of the guest's time")


def main():
    trapeze, name = sys.argv[1:]
    if name == "shell":
        run_shell(trapeze, name)
    else:
        run_case(trapeze, name)


if __name__ == "__main__":
    main()
