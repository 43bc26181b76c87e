#!/usr/bin/env python3
"""cd.py TRAPEZE CASE - systems that start from a CD: GRUB, memtest86+, isolinux, iPXE

The CDs are made here, with grub-mkrescue and xorriso, of what tools/guest.sh cds has in the cache; or come from there.
All text is on the serial console: SeaBIOS leads a BIOS's there. CASES has the options. Skipped (status 77) without these.
"""
import glob
import os
import shutil
import subprocess
import sys
import tempfile
import time

import boot

CDS = os.path.join(boot.CACHE, "cds")
MEMTEST = os.path.join(CDS, "memtest86+/boot/memtest86+x64.bin")
MENU = """serial --unit=0 --speed=115200
terminal_input serial console
terminal_output serial console
set timeout=5
menuentry "memory test" { linux /boot/memtest console=ttyS0,115200 }
"""
ISOLINUX = """serial 0 115200
prompt 1
timeout 30
default memtest
label memtest
  linux /boot/memtest
  append console=ttyS0,115200
"""
MEMTEST_RUNS = r"Memtest86\+[\s\S]*Testing"
MENU_READS = "executed automatically in"  # GRUB throws away what is typed before
DRIVE = ["--net", "none", "--cdrom"]
CASES = {
    "grub": ("grub", ["--net", "none"], [MENU_READS, ("c", "grub> "), ("ls\r", r"\(cd0?\)|\(cd")]),
    "grub-ide": ("grub", DRIVE, [MENU_READS, ("c", "grub> ")], ",if=ide"),
    "grub-uefi": ("grub", ["--firmware", "uefi", *DRIVE], [MENU_READS, ("c", "grub> ")]),
    "ipxe": ("ipxe", ["--net", "user", "--cdrom"], ["iPXE initialising", r"net0: 10\.0\.2\.15"]),
    "isolinux": ("isolinux", DRIVE, ["ISOLINUX", ("\r", MEMTEST_RUNS)]),
    "memtest": ("grub", DRIVE, [MENU_READS, ("\r", MEMTEST_RUNS)]),
    # Disks come first, but an empty one does not start; then what is asked for first does.
    "order": ("grub", ["--disk", "{disk}", *DRIVE], ["Booting from Hard Disk", "Booting from DVD/CD", "GRUB"]),
    "order-boot": ("grub", ["--boot", "cdrom", "--disk", "{disk}", *DRIVE], ["Booting from DVD/CD", "GRUB"]),
    "order-index": ("grub", ["--disk", "{disk}", *DRIVE], ["Booting from DVD/CD", "GRUB"], ",bootindex=0"),
}
LIMIT_S = 300


def skip(why):
    print(f"cd: {why}")
    sys.exit(77)


def make_tree(folder, files):
    for name, contents in files.items():
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.exists(contents):
            shutil.copy(contents, path)
        else:
            with open(path, "w") as out:
                out.write(contents)


def find(name):
    found = glob.glob(f"{CDS}/**/{name}", recursive=True)
    if not found:
        skip(f"{name} is not there; run tools/guest.sh cds")
    return found[0]


def make(command):
    if not shutil.which(command[0]) or not shutil.which("xorriso"):
        skip(f"{command[0]} or xorriso is not there")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def make_cd(kind, folder):
    iso, tree = os.path.join(folder, "cd.iso"), os.path.join(folder, "tree")
    if kind == "ipxe":
        return find("ipxe.iso")
    if kind == "grub":
        make_tree(tree, {"boot/memtest": find("memtest86+x64.bin"), "boot/grub/grub.cfg": MENU})
        make(["grub-mkrescue", "-o", iso, tree])
        return iso
    make_tree(
        tree,
        {
            "boot/memtest": find("memtest86+x64.bin"),
            "isolinux/isolinux.bin": find("isolinux.bin"),
            "isolinux/ldlinux.c32": find("bios/ldlinux.c32"),
            "isolinux/isolinux.cfg": ISOLINUX,
        },
    )
    options = ["-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat", "-no-emul-boot", "-boot-load-size", "4"]
    make(["xorriso", "-as", "mkisofs", "-o", iso, *options, "-boot-info-table", tree])
    return iso


def main():
    trapeze, name = sys.argv[1:]
    kind, options, steps, *more = CASES[name]
    with tempfile.TemporaryDirectory() as folder:
        iso = make_cd(kind, folder)
        disk = os.path.join(folder, "disk.img")
        with open(disk, "wb") as image:
            image.truncate(8 << 20)
        options = [option.format(disk=disk) for option in options]
        console = boot.Console([trapeze, "run", *options, iso + "".join(more)], interactive=True)
        deadline = time.monotonic() + LIMIT_S
        for step in steps:
            answer, pattern = step if isinstance(step, tuple) else (None, step)
            if answer:
                console.write(answer)
            if not console.wait_for(pattern, deadline):
                boot.fail(console, f"'{pattern}' did not appear within {LIMIT_S} s")
        if name.startswith("order-") and "Hard Disk" in console.text:
            boot.fail(console, "the disk came first")
        if console.stop() is None:
            boot.fail(console, "it does not end on SIGTERM")
    return 0


if __name__ == "__main__":
    sys.exit(main())
