#!/usr/bin/env python3
"""media.py TRAPEZE INTERFACE - CDs are changed in the drive of a running Debian

By "trapeze media" to a machine that is sandboxed and without slots. Debian locks each CD: it is asked for it, and its udev
opens the tray, or by force; or the guest ejects it before. Skipped (status 77) without the Debian disk or xorriso.
"""
import os
import shutil
import subprocess
import sys
import tempfile

import boot
import hotplug
from debian import DISK, LOGIN

# What eject(1) does: udev has locked the drive.
EJECT = "perl -e 'sysopen(F, \"/dev/sr0\", 2048) && ioctl(F, 0x5329, 0) && ioctl(F, 0x5309, 0) && print \"ejec\", \"ted\\n\"'"
# Mounting does, too; but if that is what learns that the disc is another, Linux takes the refusal for success.
LOCK = "perl -e 'sysopen(F, \"/dev/sr0\", 2048) && ioctl(F, 0x5329, 1) && print \"loc\", \"ked\\n\"'"
LOCKED = "has locked the drive, and was asked"


def make_cd(folder, name):
    tree, image = os.path.join(folder, name), os.path.join(folder, f"{name}.iso")
    os.mkdir(tree)
    with open(os.path.join(tree, "which"), "w", encoding="ascii") as file:
        file.write(f"this is {name}\n")
    command = ["xorriso", "-as", "mkisofs", "-quiet", "-V", name, "-o", image, tree]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return image


def main():
    trapeze, interface = sys.argv[1:]
    if not os.path.exists(DISK) or not shutil.which("xorriso"):
        print("media: the Debian disk (tools/guest.sh debian) or xorriso is not there")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        one, two = make_cd(folder, "one"), make_cd(folder, "two")
        machine = hotplug.Machine(trapeze, folder, ["--cdrom", f"{one},if={interface}"])

        def media(verb, *words, said="", status=0):
            text = machine.client("media", verb, *words, status=status)
            if said not in text or (not said and "guest" in text):
                boot.fail(machine.console, f"media {verb}: no '{said}' in {text}")

        def is_in(name):
            machine.shell(hotplug.wait_loop("mount -r /dev/sr0 /mnt 2>/dev/null"), "it-is")
            machine.shell("cat /mnt/which", f"this is {name}")

        for pattern, answer in LOGIN:
            machine.expect(pattern)
            machine.console.write(answer + "\r")
        machine.expect("ready> ")
        is_in("one")
        media("insert", two, said=LOCKED)
        machine.shell("umount /mnt; echo go'ne'", "gone")
        is_in("two")
        media("eject", "--force")
        machine.shell("umount /mnt; mount -r /dev/sr0 /mnt || echo no-o'ne'", "no medium found[^>]*no-one")
        media("insert", one, "ata-cd")
        is_in("one")
        machine.shell(f"umount /mnt; {EJECT}", "ejected")
        packed = os.path.join(folder, "two,packed.qcow2")
        subprocess.run([trapeze, "image", "convert", "-f", "raw", "-O", "qcow2", two, packed], check=True)
        media("insert", packed.replace(",", ",,"))
        is_in("two")
        machine.shell(f"umount /mnt; {EJECT}", "ejected")
        machine.shell(hotplug.wait_loop("mount -r /dev/sr0 /mnt 2>/dev/null"), "it-is")  # which closes the tray
        machine.shell(LOCK, "locked")
        media("eject", said=LOCKED)
        media("insert", "nbd://127.0.0.1:1/two", said="only a file", status=1)
        media("insert", os.path.join(folder, "three.iso"), said="No such file", status=1)
        media("eject", "nvme", said="no CD or floppy drive 'nvme'", status=1)
        machine.power_off()
    return 0


if __name__ == "__main__":
    sys.exit(main())
