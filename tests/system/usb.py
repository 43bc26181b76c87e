#!/usr/bin/env python3
"""usb.py TRAPEZE - Debian's kernel drives the USB controller, and a stick comes and goes

The generic kernel's own modules find a tablet, a keyboard and a mouse. A stick is plugged in: a file that the host has put on it is
read, another is written. It is pulled out, plugged in again, and what was written is there, on the host, too. Files are in an archive (tar)
that begins with the disk, so that no file system is needed. Skipped (status 77) without the generic kernel.
"""
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time

import boot

LIMIT_S = 600
FOLDER = os.path.join(boot.CACHE, "generic")
STICK_BYTES = 16 << 20
OLD = b"from the host\n" * 5000
NEW = "".join(f"{n}\n" for n in range(1, 50001)).encode()
# Each after those that it needs.
MODULES = """crct10dif_common crc-t10dif crct10dif_generic crc64 crc64_rocksoft_generic crc64-rocksoft t10-pi scsi_common
 scsi_mod sd_mod usb-common usbcore xhci-hcd xhci-pci hid hid-generic usbhid evdev usb-storage""".split()
SHELL = """for m in $(cat /modules/list); do insmod /modules/$m.ko || echo no module $m; done
PS1='rea''dy> ' exec sh
"""


def find_modules():
    found = {}
    for folder, _, names in os.walk(FOLDER):
        found.update({name[:-3]: os.path.join(folder, name) for name in names if name.endswith(".ko")})
    return {name: found[name] for name in MODULES if name in found}


def write_ramdisk(path):
    """An archive (cpio, newc) that goes over the guest's own."""
    files = [("modules", 0o40755, b"")]
    for name, source in find_modules().items():
        with open(source, "rb") as file:
            files.append((f"modules/{name}.ko", 0o100644, file.read()))
    files.append(("modules/list", 0o100644, " ".join(find_modules()).encode()))
    files.append(("usb", 0o100755, (boot.GUEST_BEGIN + SHELL).encode()))
    files.append(("TRAILER!!!", 0, b""))
    with open(path, "wb") as out:
        for number, (name, mode, data) in enumerate(files):
            fields = (number + 1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
            out.write(b"070701" + b"".join(b"%08x" % field for field in fields))
            for part in (name.encode() + b"\0", data):
                out.write(part)
                out.write(b"\0" * (-out.tell() % 4))


def write_stick(path):
    with open(path, "wb") as file:
        file.truncate(STICK_BYTES)
    with open(path, "r+b") as file, tarfile.open(fileobj=file, mode="w") as tar:
        entry = tarfile.TarInfo("old")
        entry.size = len(OLD)
        tar.addfile(entry, io.BytesIO(OLD))


class Machine:
    def __init__(self, trapeze, folder):
        self.trapeze = trapeze
        self.socket = os.path.join(folder, "vm.sock")
        ramdisk = os.path.join(folder, "modules.cpio")
        write_ramdisk(ramdisk)
        self.deadline = time.monotonic() + LIMIT_S
        self.console = boot.Console(
            [trapeze, "run", "--kernel", os.path.join(FOLDER, "vmlinuz"), "--monitor", self.socket, "--hotplug", "1"]
            + ["--initrd", os.path.join(FOLDER, "initramfs.cpio"), "--initrd", ramdisk, "--usb", "on"]
            + ["--device", "usb-mouse", "--append", "console=ttyS0 quiet rdinit=/usb"],
            interactive=True,
        )

    def expect(self, pattern):
        if not self.console.wait_for(pattern, self.deadline):
            boot.fail(self.console, f"'{pattern}' did not appear within {LIMIT_S} s")

    def shell(self, command, pattern):
        """Type a command; what it prints, up to the next prompt, has to match."""
        self.console.write(command + "\r")
        self.expect(pattern + r"[^>]*ready> ")

    def device(self, *words):
        done = subprocess.run([self.trapeze, "device", *words], capture_output=True)
        if done.returncode:
            boot.fail(self.console, f"device {' '.join(words)}: {done.stderr.decode()}")

    def wait(self, test):
        self.shell(f"for n in $(seq 300); do if {test}; then echo it-'is'; break; fi; sleep 0.2; done", "it-is")

    def plug(self, stick):
        self.device("add", self.socket, "--disk", f"{stick},if=usb,serial=STICK-1")
        self.wait("test -b /dev/sda")


def main():
    if not os.path.exists(os.path.join(FOLDER, "vmlinuz")) or len(find_modules()) < 15:
        print(f"usb: {FOLDER} is not there; run tools/guest.sh generic")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        stick = os.path.join(folder, "stick.img")
        write_stick(stick)
        machine = Machine(sys.argv[1], folder)
        machine.expect("ready> ")
        machine.wait("test $(cat /sys/bus/usb/devices/*/product | grep -c ^USB) = 3")
        machine.shell("cat /sys/bus/usb/devices/*/product | sort", r"USB keyboard\s+USB mouse\s+USB tablet")
        machine.shell("cat /sys/bus/usb/devices/1-*/speed | sort | uniq -c", r"\s3 12\s")
        machine.wait("test $(grep -c 'Name=.Trapeze USB' /proc/bus/input/devices) = 3")
        machine.shell("grep -A 12 'USB tablet' /proc/bus/input/devices", r"B: ABS=3\s")
        machine.plug(stick)
        machine.shell("cat /sys/bus/usb/devices/2-1/serial /sys/bus/usb/devices/2-1/speed", r"STICK-1\s+5000\s")
        machine.shell("cat /sys/block/sda/removable", r"\s1\s")
        machine.shell("tar xf /dev/sda -C /root && wc -c </root/old", rf"\s{len(OLD)}\s")
        machine.shell("seq 50000 >/root/new && tar cf /dev/sda -C /root new && sync && echo writ'ten'", "written")
        machine.device("remove", machine.socket, "usb-storage")
        machine.wait("! test -e /dev/sda")
        with tarfile.open(stick) as tar:
            if tar.extractfile("new").read() != NEW:
                boot.fail(machine.console, "what the guest wrote is not on the stick")
        machine.plug(stick)
        machine.shell("tar tf /dev/sda", r"\snew\s")
        machine.console.write("poweroff -f\r")
        machine.expect(boot.OFF)
        if machine.console.finish(machine.deadline) != 0:
            boot.fail(machine.console, "it did not end well")
        boot.check_console(machine.console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
