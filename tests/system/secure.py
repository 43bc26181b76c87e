#!/usr/bin/env python3
"""secure.py TRAPEZE CASE - Secure Boot: what is signed starts, what is not is refused

signed: Debian's shim starts Debian's GRUB, and that Debian's kernel, which says that Secure Boot is on.
unsigned: the same disk with a GRUB of which a byte was changed, which shim refuses; direct: with that GRUB in shim's
place, which OVMF refuses. Skipped (status 77) without tools/guest.sh secure and cloud, OVMF or mtools.
"""
import os
import shutil
import subprocess
import sys
import tempfile
import time

import boot

CASES = {
    "signed": (r"BdsDxe: starting", r"GRUB says hello", r"Secure boot enabled", boot.INIT, boot.OFF),
    "unsigned": (r"BdsDxe: starting", r"Verification failed|Security Violation|Access Denied"),
    "direct": (r"BdsDxe: failed to load [^\r\n]*Access Denied",),
}
FOLDER = os.path.join(boot.CACHE, "secure")
CLOUD = os.path.join(boot.CACHE, "cloud")
CONFIG = """echo "GRUB says hello"
linux /vmlinuz console=ttyS0 APPEND
initrd /initramfs.cpio
boot
"""
LIMIT_S = 300


def damaged(path, folder):
    """The same program with a byte of its code changed, which its signature does not cover any more."""
    with open(path, "rb") as file:
        data = bytearray(file.read())
    data[len(data) // 2] ^= 1
    target = os.path.join(folder, "damaged.efi")
    with open(target, "wb") as file:
        file.write(data)
    return target


def make_disk(folder, name, guest=CLOUD, append="trapeze.script=demo"):
    """A FAT file system without partitions, with the path that firmware starts and a guest's kernel."""
    disk, config = os.path.join(folder, "disk.img"), os.path.join(folder, "grub.cfg")
    shim, grub = os.path.join(FOLDER, "shimx64.efi"), os.path.join(FOLDER, "grubx64.efi")
    if name != "signed":
        grub = damaged(grub, folder)
    if name == "direct":
        shim = grub
    with open(disk, "wb") as image:
        image.truncate(64 << 20)
    with open(config, "w") as file:
        file.write(CONFIG.replace("APPEND", append))
    for command in (
        ["mformat", "-i", disk, "-F", "::"],
        ["mmd", "-i", disk, "::/EFI", "::/EFI/BOOT", "::/EFI/debian"],
        ["mcopy", "-i", disk, shim, "::/EFI/BOOT/BOOTX64.EFI"],
        ["mcopy", "-i", disk, grub, "::/EFI/BOOT/grubx64.efi"],
        ["mcopy", "-i", disk, config, "::/EFI/debian/grub.cfg"],
        ["mcopy", "-i", disk, f"{guest}/vmlinuz", "::/vmlinuz"],
        ["mcopy", "-i", disk, f"{guest}/initramfs.cpio", "::/initramfs.cpio"],
    ):
        subprocess.run(command, check=True)
    return disk


def main():
    trapeze, name = sys.argv[1:]
    needed = (f"{FOLDER}/shimx64.efi", f"{CLOUD}/vmlinuz", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd")
    missing = [path for path in needed if not os.path.exists(path)]
    if missing or not shutil.which("mformat"):
        print(f"secure: {missing or 'mtools'} not there; run tools/guests.sh")
        return 77
    deadline = time.monotonic() + LIMIT_S
    with tempfile.TemporaryDirectory() as folder:
        command = [trapeze, "run", "-m", "1G", "--firmware", "uefi-secure", "--net", "none"]
        console = boot.Console(command + ["--disk", make_disk(folder, name)], interactive=True)
        for pattern in CASES[name]:
            if not console.wait_for(pattern, deadline):
                boot.fail(console, f"'{pattern}' did not appear within {LIMIT_S} s")
        if name != "signed":
            if "GRUB says hello" in console.text or console.stop() is None:
                boot.fail(console, "it has started, or does not end")
            return 0
        status = console.finish(deadline)
        if status != 0:
            boot.fail(console, f"the status is {status}")
        boot.check_console(console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
