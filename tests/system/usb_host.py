#!/usr/bin/env python3
"""usb_host.py TRAPEZE - a machine in a machine gets a USB device of its host

The outer machine has a stick and a keyboard, and runs this very trapeze, with the libraries that it needs, whose guest gets both: Debian's
kernel hears keys, reads a file from the stick and writes another. The stick is pulled out, and plugged in again: the outer machine hands it to the inner one, which
is in its sandbox. When that has ended the outer kernel has its stick back. Skipped (status 77) without the generic kernel, or where
trapeze was built without libusb.
"""
import os
import re
import subprocess
import sys
import tarfile
import tempfile

import boot
import modules
import usb

MEMORY = "1536M"
INNER = "/inner/lib/ld-linux-x86-64.so.2 --library-path /inner/lib /inner/trapeze"
START = f"{INNER} run --kernel /inner/vmlinuz --initrd /inner/initramfs.cpio --initrd /inner/modules.cpio -m 256M " \
        "--append 'console=ttyS0 quiet rdinit=/shell' --monitor /tmp/vm.sock --device usb-host,id=46f4:0001 --device usb-host,at=1-2"
AS_USER = "start-stop-daemon -S -c user -x " + START.replace(" ", " -- ", 1)
# What waits in the outer machine until the stick has gone and come.
GIVE = f"""#!/bin/busybox sh
has_stick() {{ grep -q 46f4 /sys/bus/usb/devices/*/idVendor 2>/dev/null; }}
while has_stick; do sleep 1; done
until has_stick; do sleep 1; done
sleep 1
{INNER} device add /tmp/vm.sock --device usb-host,id=46f4:0001 >/tmp/given 2>&1
"""


def read(path):
    with open(path, "rb") as file:
        return file.read()


def inner_files(trapeze, folder):
    """Of the outer machine's RAM disk; None: this trapeze knows no devices of the host."""
    linked = subprocess.run(["ldd", trapeze], capture_output=True, text=True, check=True).stdout
    if "libusb-1.0" not in linked:
        return None
    stripped = os.path.join(folder, "trapeze")
    subprocess.run(["strip", "-o", stripped, trapeze], check=True)
    ramdisk = os.path.join(folder, "inner.cpio")
    modules.write_ramdisk(ramdisk, usb.MODULES)
    entries = [("inner", 0o40755, b""), ("inner/lib", 0o40755, b""), ("inner/trapeze", 0o100755, read(stripped)),
               ("inner/vmlinuz", 0o100644, read(modules.path_of("vmlinuz"))),
               ("inner/initramfs.cpio", 0o100644, read(modules.path_of("initramfs.cpio"))),
               ("inner/modules.cpio", 0o100644, read(ramdisk)), ("inner/give", 0o100755, GIVE.encode())]
    for path in re.findall(r"(/\S+) \(0x", linked):
        entries.append((f"inner/lib/{os.path.basename(path)}", 0o100755, read(path)))
    return entries


def plug(machine, stick, serial):
    machine.client("device", "add", machine.socket, "--disk", f"{stick},if=usb,serial={serial}")


def refuse(machine, which, why, command=START):
    machine.shell(f"{command.split(' --device')[0]} --device usb-host,{which} 2>&1 | tr -d '\\r\\n'; echo", why)


def check_stick(machine):
    machine.wait("test -b /dev/sda")
    machine.shell("cat /sys/bus/usb/devices/*/product | sort", r"USB stick")


def main():
    if not modules.can_run("usb_host", usb.MODULES, 15):
        return 77
    with tempfile.TemporaryDirectory() as folder:
        files = inner_files(sys.argv[1], folder)
        if not files:
            print("usb_host: trapeze was built without libusb")
            return 77
        stick = os.path.join(folder, "stick.img")
        usb.write_stick(stick)
        options = ["--hotplug", "1", "-m", MEMORY, "--usb", "on"]
        machine = modules.Machine(sys.argv[1], folder, usb.MODULES, options, files)
        machine.expect("ready> ")
        plug(machine, stick, "STICK-1")
        machine.wait("test -b /dev/sda")
        refuse(machine, "id=1234:5678", r"no such USB device, but .*id=46f4:0001,at=\S+ \(Trapeze USB stick\)")
        refuse(machine, "at=", r"several devices of the host are meant: \S.*; ")
        machine.shell("mkdir -p /etc; echo user:x:1000:1000::/:/bin/sh >/etc/passwd; echo ma'de'", "made")
        refuse(machine, "id=46f4:0001", r"Permission denied; 'sudo setfacl", AS_USER)
        machine.shell("/inner/give & mkdir -p /tmp; echo be'gun'", "begun")
        machine.console.write(START + "\r")
        machine.expect(r"engine \w+[^>]*ready> ")
        check_stick(machine)
        machine.shell("cat /sys/bus/usb/devices/*/serial", "STICK-1")
        usb.type_keys(machine)
        machine.shell("tar xf /dev/sda -C /root && wc -c </root/old", rf"\s{len(usb.OLD)}\s")
        machine.shell("seq 50000 >/root/new && tar cf /dev/sda -C /root new && sync && echo writ'ten'", "written")
        machine.client("device", "remove", machine.socket, "usb-storage")
        machine.wait("! test -e /dev/sda")
        with tarfile.open(stick) as tar:
            if tar.extractfile("new").read() != usb.NEW:
                boot.fail(machine.console, "what the innermost guest wrote is not on the stick")
        plug(machine, stick, "STICK-2")
        check_stick(machine)
        machine.shell("cat /sys/bus/usb/devices/*/serial", "STICK-2")
        machine.shell("tar tf /dev/sda", r"\snew\s")
        machine.console.write("poweroff -f\r")
        machine.expect(rf"{boot.OFF}[^>]*ready> ")  # the outer shell's
        machine.shell("echo sta'tus' $?", r"status 0\s")
        machine.shell("cat /tmp/given", "usb-host")
        machine.wait("test -b /dev/sda")
        machine.shell("tar tf /dev/sda", r"\snew\s")
        machine.power_off()
    return 0


if __name__ == "__main__":
    sys.exit(main())
