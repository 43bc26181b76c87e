#!/usr/bin/env python3
"""hotplug.py TRAPEZE - a disk and a network card come and go while Debian runs

Slots of PCI Express (--hotplug), driven by Linux's own driver. A file system is made on the disk that was plugged in, and
looked at on the host after the disk was taken out; the card gets an address by DHCP. What is pulled out by force is gone, too.
Skipped (status 77) without the Debian disk.
"""
import os
import re
import struct
import subprocess
import sys
import tempfile
import time

import boot
from debian import DISK, PASSWORD

LIMIT_S = 600


class Machine:
    def __init__(self, trapeze, folder, options):
        self.trapeze = trapeze
        self.socket = os.path.join(folder, "vm.sock")
        command = [trapeze, "run", "-m", "1G", "--net", "none", "--monitor", self.socket, *options]
        command += ["--disk", f"{DISK},snapshot=on"]
        self.deadline = time.monotonic() + LIMIT_S
        self.console = boot.Console(command, interactive=True)

    def expect(self, pattern):
        if not self.console.wait_for(pattern, self.deadline):
            boot.fail(self.console, f"'{pattern}' did not appear within {LIMIT_S} s")

    def shell(self, command, pattern):
        """Type a command; what it prints, up to the next prompt, has to match."""
        self.console.write(command + "\r")
        self.expect(pattern + r"[^>]*ready> ")

    def client(self, group, verb, *words, status=0):
        """trapeze GROUP VERB, while the console goes on being read."""
        child = subprocess.Popen(
            [self.trapeze, group, verb, self.socket, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        while child.poll() is None and time.monotonic() < self.deadline:
            self.console.read(min(time.monotonic() + 0.2, self.deadline))
        text = child.stdout.read().decode()
        if child.poll() != status:
            boot.fail(self.console, f"{group} {verb} {' '.join(words)}: status {child.poll()}, {text}")
        return text

    def device(self, *words, status=0):
        return self.client("device", *words, status=status)

    def power_off(self):
        self.console.write("poweroff\r")
        self.expect(boot.OFF)
        status = self.console.finish(self.deadline)
        if status != 0:
            boot.fail(self.console, f"the status is {status}")
        boot.check_console(self.console)


def wait_loop(test):
    """A shell loop of up to two minutes until a test is true; says so."""
    return f"for n in $(seq 600); do if {test}; then echo it-'is'; break; fi; sleep 0.2; done"


def plug_disk(machine, folder, interface, node, serial, name):
    image = os.path.join(folder, f"{interface}, disk.img")
    with open(image, "wb") as file:
        file.truncate(64 << 20)
    text = machine.device("add", "--disk", f"{image.replace(',', ',,')},if={interface},serial=plug-{interface}")
    if name not in text:
        boot.fail(machine.console, f"the device is {text}, not {name}")
    machine.shell(wait_loop(f"test -b {node}"), "it-is")
    machine.shell(f"cat -v {serial}", f"plug-{interface}")
    machine.shell(f"mke2fs -q {node} && mount {node} /mnt && seq 50000 >/mnt/numbers && umount /mnt && echo do'ne'", "done")
    return image


def check_disk(machine, image):
    numbers = subprocess.run(["debugfs", "-R", "cat /numbers", image], capture_output=True).stdout
    if numbers != "".join(f"{n}\n" for n in range(1, 50001)).encode():
        boot.fail(machine.console, f"{image}: what was written is not there")


def main():
    trapeze = sys.argv[1]
    if not os.path.exists(DISK):
        print(f"hotplug: {DISK} is not there; run tools/guest.sh debian")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(trapeze, folder, ["--hotplug", "3"])
        for pattern, answer in (("login: ", "root"), ("Password: ", PASSWORD), (r"root@debian:~# ", "PS1='rea''dy> '")):
            machine.expect(pattern)
            machine.console.write(answer + "\r")
        machine.expect("ready> ")
        images = [
            plug_disk(machine, folder, "nvme", "/dev/nvme0n1", "/sys/block/nvme0n1/device/serial", "nvme"),
            plug_disk(machine, folder, "scsi", "/dev/sda", "/sys/block/sda/device/vpd_pg80", "virtio-scsi"),
        ]
        rom = os.path.join(folder, "card.rom")
        with open(rom, "wb") as file:  # one image of 1024 bytes, with its PCI data structure
            file.write(struct.pack("<HB21xH2x4s6xH4xH3xB", 0xAA55, 2, 28, b"PCIR", 24, 2, 0x80).ljust(1024, b"\0"))
        machine.device("add", "--net", f"user,mac=52:54:00:00:00:77,romfile={rom}")
        machine.shell(wait_loop("ip -o link | grep -q 00:00:77"), "it-is")
        card = "$(ip -o link | sed -n 's/.*: \\(e[^:]*\\):.*00:00:77.*/\\1/p')"
        machine.shell(f"ip link set {card} up; " + wait_loop(f"ip -4 -o address show {card} | grep -q 10.0.2"), "it-is")
        slot = f"/sys/class/net/{card}/device/.."
        machine.shell(f"echo 1 >{slot}/rom && od -An -tx1 -N3 {slot}/rom", "55 aa 02")
        text = machine.device("add", "--net", "user", status=1)
        if not re.search("no empty slot", text):
            boot.fail(machine.console, f"a fourth device: {text}")
        machine.device("remove", "virtio-scsi")
        machine.shell(wait_loop("! test -e /dev/sda"), "it-is")
        machine.device("remove", "virtio-net")
        machine.shell(wait_loop("! ip -o link | grep -q 00:00:77"), "it-is")
        machine.device("remove", "nvme", "--force")
        machine.shell(wait_loop("! test -e /dev/nvme0"), "it-is")
        machine.device("remove", "nvme", status=1)
        for image in images:
            check_disk(machine, image)
        overlay = os.path.join(folder, "overlay.qcow2")  # the slot is free again, and so is the image
        subprocess.run([trapeze, "image", "create", "-f", "qcow2", "-b", images[0], "-F", "raw", overlay], check=True)
        machine.device("add", "--disk", overlay)
        machine.shell(wait_loop("test -b /dev/vdb"), "it-is")
        machine.shell("mount /dev/vdb /mnt && tail -n 1 /mnt/numbers; umount /mnt", "50000")
        machine.power_off()
    return 0


if __name__ == "__main__":
    sys.exit(main())
