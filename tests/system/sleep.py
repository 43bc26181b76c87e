#!/usr/bin/env python3
"""sleep.py TRAPEZE CASE - Linux is suspended, and goes on

kernel: one that is started directly, with two processors. To idle, which the alarm of its clock ends; to RAM, from
which the alarm, "wake", the power button and a key wake it. counted: the same in counted mode. bios, uefi: Debian, which
has to find its disk and network again; the power button wakes it from idle, and "sleep" lets its systemd suspend it.
secure: OVMF with SMM and Secure Boot. Skipped (status 77) without the guests of tools/guests.sh.
"""
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time

import boot
import debian
import secure

LIMIT_S = 400
GENERIC = os.path.join(boot.CACHE, "generic")
KERNEL = ["-k", f"{GENERIC}/vmlinuz", "-i", f"{GENERIC}/initramfs.cpio", "-a", "console=ttyS0"]
DEBIAN = ["-m", "1G", "--net", "user", "--disk", f"{debian.DISK},snapshot=on", "--cpus", "2"]
ALARM = "echo +2 >/sys/class/rtc/rtc0/wakealarm; "
# What a system says behind each sleep: that it has all processors, and what else it has.
CASES = {
    "kernel": ([*KERNEL, "--cpus", "2"], "2"),
    "counted": ([*KERNEL, "--counted"], "1"),
    "bios": (DEBIAN, "2"),
    "uefi": ([*DEBIAN, "--firmware", "uefi"], "2"),
    "secure": (["-m", "1G", "--net", "none", "--firmware", "uefi-secure", "--cpus", "2"], "2"),
}


class Guest:
    """A system with a shell on its console, and a monitor."""

    def __init__(self, trapeze, options, folder):
        self.trapeze, self.monitor = trapeze, os.path.join(folder, "monitor")
        self.deadline = time.monotonic() + LIMIT_S
        command = [trapeze, "run", "--no-reboot", "--monitor", self.monitor, *options]
        self.console = boot.Console(command, interactive=True)

    def expect(self, pattern):
        if not self.console.wait_for(pattern, self.deadline):
            boot.fail(self.console, f"'{pattern}' did not appear within {LIMIT_S} s")

    def type(self, text):
        self.console.write(text + "\r")

    def ask(self, *words):
        done = subprocess.run([self.trapeze, *words], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            boot.fail(self.console, f"{words}: {done.stderr}")
        return done.stdout

    def wait_until_asleep(self):
        while "asleep: true" not in self.ask("monitor", self.monitor, "status"):
            if time.monotonic() > self.deadline:
                boot.fail(self.console, "it does not fall asleep")
            time.sleep(0.1)

    def hear_of_sleep(self):
        """A client that is told. The function that comes back waits for the next: is the guest asleep?"""
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(60)
        client.connect(self.monitor)
        client.sendall(b'{"command":"events","on":true}\n')
        lines = client.makefile("r")
        assert json.loads(next(lines))["ok"]
        return lambda: json.loads(next(lines)).get("asleep")

    def is_well(self, cpus, checks=""):
        """All there is works: processors, and what checks looks at, which ends with "well"."""
        self.type(f"{checks or 'echo we'}ll; grep -c ^processor /proc/cpuinfo")
        self.expect(rf"well\s[^>]*^{cpus}\s")


def sleep_and_wake(guest, cpus, checks=""):
    """By its clock, and by each way from outside."""
    mem = "echo mem >/sys/power/state; echo aw''ake $?"
    guest.type(ALARM + mem)
    guest.expect(r"ACPI: PM: Waking up from system sleep state S3[^#>]*awake 0\s")
    guest.is_well(cpus, checks)
    is_asleep = guest.hear_of_sleep()
    for way in (["monitor", guest.monitor, "wake"], ["monitor", guest.monitor, "powerdown"], ["key", guest.monitor, "a"]):
        guest.type(mem)
        guest.wait_until_asleep()
        if is_asleep() is not True:
            boot.fail(guest.console, "the monitor does not tell that it sleeps")
        guest.ask(*way)
        if is_asleep() is not False:
            boot.fail(guest.console, "the monitor does not tell that it is awake")
        guest.expect(r"Waking up from system sleep state S3[^#>]*awake 0\s")
        guest.is_well(cpus, checks)


def freeze(guest, cpus, wake):
    """Suspended to idle; 1 s is until it idles."""
    guest.type("echo freeze >/sys/power/state; echo aw''ake $?")
    guest.expect(r"suspend entry \(s2idle\)[^#>]*Suspending console")
    time.sleep(1)
    wake()
    guest.expect(r"awake 0\s")
    guest.is_well(cpus)


def run_debian(guest, cpus):
    for pattern, answer in debian.LOGIN:
        guest.expect(pattern)
        guest.type(answer)
    guest.expect("ready> ")
    guest.type("sha256sum /boot/vmlinuz*; /lib/systemd/systemd-networkd-wait-online --timeout=60; echo on''line")
    guest.expect(r"([0-9a-f]{64}) ")
    digest = re.findall(r"([0-9a-f]{64}) ", guest.console.text)[-1]
    guest.expect("online")
    read = "echo 3 >/proc/sys/vm/drop_caches; sha256sum /boot/vmlinuz* | grep -o '^....'"
    web = "(exec 3<>/dev/tcp/10.0.2.2/%d) && echo we" % guest.port
    sleep_and_wake(guest, cpus, f"{read}; echo {digest[:4]} wanted; {web}")
    freeze(guest, cpus, lambda: guest.ask("monitor", guest.monitor, "powerdown"))
    guest.ask("monitor", guest.monitor, "sleep")
    guest.wait_until_asleep()
    guest.ask("monitor", guest.monitor, "wake")
    guest.expect("PM: suspend exit")
    guest.type("")
    guest.is_well(cpus)


def main():
    trapeze, name = sys.argv[1:]
    options, cpus = CASES[name]
    needed = {"bios": debian.DISK, "uefi": debian.DISK, "secure": f"{secure.FOLDER}/shimx64.efi"}
    path = needed.get(name, f"{GENERIC}/vmlinuz")
    if not os.path.exists(path):
        print(f"sleep: {path} is not there; run tools/guests.sh")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        if name == "secure":
            options = [*options, "--disk", secure.make_disk(folder, "signed", GENERIC, "")]
        guest = Guest(trapeze, options, folder)
        if name in ("bios", "uefi"):
            guest.port = debian.serve(folder)
            run_debian(guest, cpus)
        else:
            guest.expect("# ")
            guest.type(ALARM)
            freeze(guest, cpus, lambda: None)
            sleep_and_wake(guest, cpus)
        guest.type("poweroff -f")
        guest.expect(boot.OFF)
        status = guest.console.finish(guest.deadline)
        if status != 0:
            boot.fail(guest.console, f"the status is {status}")
        boot.check_console(guest.console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
