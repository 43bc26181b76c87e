#!/usr/bin/env python3
"""balloon.py TRAPEZE CASE - memory that a guest frees goes back to the host

The guest is tools/guest.sh's cloud kernel with the balloon's module of its package. It fills a file system in memory and
empties it, so that free pages are reported; then the host takes half of its memory and gives it back, while a program
and a file of the guest stay as they are. Measured is what the process has (RssShmem) and what 'trapeze balloon' says.
Skipped (status 77) without the guest.
"""
import json
import os
import re
import subprocess
import sys
import tempfile
import time

import boot
import net

CASES = {
    "balloon": [],
    "balloon-smp2": ["--cpus", "2"],
    "balloon-interpreter": ["--engine", "interpreter"],
    "balloon-legacy": ["--device", "virtio-balloon,transitional=on"],
    "balloon-mmio": ["--device", "virtio-balloon-mmio"],
}
MEMORY = 512
FILE = 200  # MiB
MIB = 1 << 20
INIT = net.INIT_START + """\
stty -echo
for module in MODULES; do
    parameter=
    case $module in virtio_pci) grep -q balloon.legacy /proc/cmdline && parameter=force_legacy=1 ;; esac
    insmod /modules/$module.ko $parameter || echo "balloon: no $module"
done
mkdir -p /mnt
mount -t tmpfs tmp /mnt
head -c 8000000 /dev/urandom >/mnt/keep
sha256sum /mnt/keep >/mnt/sum
echo "balloon: ready"
while read -r command; do eval "$command"; done
"""
MODULES = net.VIRTIO_PCI + " drivers/virtio/virtio_mmio drivers/virtio/virtio_balloon"


class Machine:
    def __init__(self, trapeze, folder, options):
        self.trapeze, self.socket = trapeze, f"{folder}/vm.sock"
        legacy = " balloon.legacy" if "virtio-balloon,transitional=on" in options else ""
        row = boot.case("cloud", "", [], append="quiet rdinit=/net-init" + legacy)
        command = boot.command_for(trapeze, row)
        net.make_initramfs(f"{folder}/balloon.cpio", "cloud", MODULES, INIT)
        command[command.index("--initrd") + 1] += f",{folder}/balloon.cpio"
        command += ["-m", f"{MEMORY}M", "--monitor", self.socket]
        if "--device" not in options:
            command += ["--balloon", "on"]
        self.deadline = time.monotonic() + 500
        self.console = boot.Console(command + options, interactive=True)
        self.expect("balloon: ready")

    def fail(self, why):
        boot.fail(self.console, why)

    def expect(self, pattern):
        if not self.console.wait_for(pattern, self.deadline):
            self.fail(f"'{pattern}' did not appear")

    def shell(self, command):
        self.console.write(command + "\n")

    def resident(self):
        """MiB of the guest's memory that the process has."""
        with open(f"/proc/{self.console.child.pid}/status", encoding="ascii") as file:
            return int(re.search(r"RssShmem:\s+(\d+) kB", file.read()).group(1)) / 1024

    def balloon(self, *words):
        text = subprocess.run([self.trapeze, "balloon", self.socket, *words, "--json"], capture_output=True, check=True)
        return json.loads(text.stdout)

    def wait_until(self, condition, what, seconds=60):
        end = time.monotonic() + seconds
        while not condition():
            self.console.read(time.monotonic() + 0.1)
            if time.monotonic() > end:
                self.fail(f"{what}: {self.resident():.0f} MiB, {self.balloon()}")


def main():
    trapeze, name = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(trapeze, folder, CASES[name])
        shell, expect, resident, balloon = machine.shell, machine.expect, machine.resident, machine.balloon

        before = resident()
        shell(f"dd if=/dev/zero of=/mnt/large bs=1M count={FILE}; echo balloon: filled")
        expect("balloon: filled")
        filled = resident()
        if filled < before + FILE * 0.7:
            machine.fail(f"{before:.0f} MiB became only {filled:.0f}")
        if not FILE * MIB < balloon()["host_bytes"] < filled * MIB:  # the engine has memory of this kind, too
            machine.fail(f"the monitor has another number than {filled:.0f}: {balloon()}")
        freed_at = time.monotonic()
        shell("rm /mnt/large; echo balloon: emptied")
        expect("balloon: emptied")
        machine.wait_until(lambda: resident() < filled - FILE * 0.8, "what was freed did not come back")
        print(f"{name}: {before:.0f} MiB, filled {filled:.0f}, freed {resident():.0f}"
              f" after {time.monotonic() - freed_at:.1f} s")

        statistics = balloon()["statistics"]
        if not MEMORY * 0.8 * MIB < statistics["total_bytes"] < MEMORY * MIB or not statistics["free_bytes"] > 200 * MIB:
            machine.fail(f"strange statistics: {statistics}")
        free = statistics["free_bytes"]
        if balloon("256M")["target_bytes"] != 256 * MIB:
            machine.fail("it has another target")
        machine.wait_until(lambda: balloon()["memory_bytes"] == 256 * MIB, "the balloon does not grow")
        after = balloon()["statistics"]["free_bytes"]
        if not 230 * MIB < free - after < 280 * MIB:
            machine.fail(f"{free >> 20} MiB became {after >> 20}")
        if balloon()["host_bytes"] > 256 * MIB:
            machine.fail(f"what was given is there: {balloon()}")
        shell("sha256sum -c /mnt/sum; echo $((6 * 7)) is the answer")
        expect("keep: OK")
        expect("42 is the answer")
        balloon(f"{MEMORY}M")
        machine.wait_until(lambda: balloon()["memory_bytes"] == MEMORY * MIB, "the balloon does not shrink")
        shell(f"dd if=/dev/zero of=/mnt/large bs=1M count={FILE}; sha256sum -c /mnt/sum")
        expect("keep: OK")
        shell("rmmod virtio_balloon; insmod /modules/virtio_balloon.ko && echo balloon: again")
        expect("balloon: again")
        shell("poweroff -f")
        expect(boot.OFF)
        if machine.console.finish(machine.deadline) != 0:
            machine.fail("it does not end")
        boot.check_console(machine.console)


if __name__ == "__main__":
    main()
