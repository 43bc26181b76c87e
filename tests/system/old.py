#!/usr/bin/env python3
"""old.py TRAPEZE CASE - a 32-bit kernel that knows the 8259 pair only starts from an IDE disk or CD, by GRUB

Without ACPI and APICs. It reads a second IDE disk and a floppy, and all its interrupts come from the 8259 pair. The i386 kernel
and its own modules. Skipped (status 77) without these or grub-mkrescue.
"""
import hashlib
import os
import re
import shutil
import sys
import tempfile

import boot
import cd
import modules

MODULES = """crct10dif_common crc-t10dif crct10dif_generic crc64 crc64_rocksoft_generic crc64-rocksoft t10-pi scsi_common scsi_mod sd_mod
 cdrom sr_mod libata ata_piix floppy""".split()
MENU = """serial --unit=0 --speed=115200
terminal_output serial
set timeout=0
menuentry "Linux" {
  linux /boot/vmlinuz console=ttyS0 quiet rdinit=/shell noapic nolapic noacpi acpi=off
  initrd /boot/initramfs /boot/modules
}
"""
# What the system comes from, and where it finds the other disk.
CASES = {"disk": ("--disk", "/dev/sdb"), "cd": ("--cdrom", "/dev/sda")}


def make_system(folder):
    image, tree = os.path.join(folder, "system.img"), os.path.join(folder, "tree")
    ramdisk = os.path.join(folder, "modules.cpio")
    modules.write_ramdisk(ramdisk, MODULES, guest="i386")
    files = {"vmlinuz": "vmlinuz", "initramfs": "initramfs.cpio"}
    files = {f"boot/{name}": modules.path_of(source, "i386") for name, source in files.items()}
    cd.make_tree(tree, {**files, "boot/modules": ramdisk, "boot/grub/grub.cfg": MENU})
    cd.make(["grub-mkrescue", "-o", image, tree])  # which can be a disk, too
    return image


def make_data(folder, name, size):
    path, data = os.path.join(folder, name), b"".join(hashlib.sha512(b"%d" % n).digest() for n in range(size // 64))
    with open(path, "wb") as file:
        file.write(data)
    return path, hashlib.md5(data).hexdigest()


def main():
    trapeze, name = sys.argv[1:]
    option, device = CASES[name]
    if not modules.can_run("old", MODULES, 10, "i386"):
        return 77
    if not shutil.which("grub-mkrescue"):
        print("old: grub-mkrescue is not there")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        system = make_system(folder)
        disk, disk_sum = make_data(folder, "data.img", 8 << 20)
        floppy, floppy_sum = make_data(folder, "floppy.img", 1440 << 10)
        options = [option, f"{system},if=ide", "--disk", f"{disk},if=ide", "--floppy", floppy, "--net", "none"]
        machine = modules.Machine(trapeze, folder, None, [*options, "--boot", "cdrom,disk"])
        machine.expect("ready> ")
        machine.shell("uname -m", "i686")
        machine.wait(f"test -b {device}")
        machine.shell(f"md5sum <{device}", disk_sum)
        machine.shell("md5sum </dev/fd0", floppy_sum)
        machine.shell(f"seq 10000 >{device} && sync && echo writ'ten'", "written")
        machine.shell("cat /proc/interrupts", r"XT-PIC\s+timer[\s\S]*XT-PIC\s+floppy[\s\S]*XT-PIC\s+ata_piix")
        if re.search(r"IO-APIC|PCI-MSI", machine.console.text):
            boot.fail(machine.console, "an interrupt does not come from the 8259 pair")
        machine.shell("halt -f &", "")
        machine.expect("reboot: System halted")
        if machine.console.stop() is None:
            boot.fail(machine.console, "it does not end on SIGTERM")
        with open(disk, "rb") as file:
            if file.read(8) != b"1\n2\n3\n4\n":
                boot.fail(machine.console, "what the guest wrote is not on the disk")
    return 0


if __name__ == "__main__":
    sys.exit(main())
