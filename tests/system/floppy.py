#!/usr/bin/env python3
"""floppy.py TRAPEZE SIZE - SeaBIOS starts a boot sector (floppy.S) from a floppy disk, which looks at all of it

SIZE is in KiB. The disk is not the only one: --boot says that it is first. The other starts first without that, from a
controller for each size.
"""
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time

import boot

LIMIT_S = 120
HERE = os.path.dirname(os.path.abspath(__file__))
SIZES = {
    "360": (40, 2, 9, "ahci"),
    "720": (80, 2, 9, "ide"),
    "1200": (80, 2, 15, "nvme"),
    "1440": (80, 2, 18, "virtio"),
    "2880": (80, 2, 36, "scsi"),
}


def build(folder, tracks, heads, sectors):
    disk, linked = os.path.join(folder, "disk.img"), os.path.join(folder, "floppy.o")
    symbols = [f"--defsym={n}={v}" for n, v in (("TRACKS", tracks), ("HEADS", heads), ("SECTORS", sectors))]
    source = os.path.join(HERE, "floppy.S")
    subprocess.run(["as", "--32", *symbols, "-o", linked, source], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext=0x7c00", "--oformat=binary", "-o", disk, linked], check=True)
    with open(disk, "ab") as image:
        for number in range(1, tracks * heads * sectors):
            image.write(struct.pack("<HH", number, 0) * 128)
    return disk


def main():
    trapeze, size = sys.argv[1:]
    if not os.path.exists("/usr/share/seabios/bios-256k.bin") or not shutil.which("ld"):
        print("floppy: SeaBIOS or binutils are not there")
        return 77
    tracks, heads, sectors, interface = SIZES[size]
    deadline = time.monotonic() + LIMIT_S
    with tempfile.TemporaryDirectory() as folder:
        disk, other = build(folder, tracks, heads, sectors), os.path.join(folder, "other.img")
        with open(other, "wb") as image:
            image.write(b"\xb0\x01\xe6\xf4\xf4\xeb\xfd".ljust(510, b"\0") + b"\x55\xaa")  # ends with status 3
            image.truncate(1 << 20)
        words = ["--net", "none", "--disk", f"{other},if={interface}", "--floppy", disk]
        console = boot.Console([trapeze, "run", *words])
        if console.finish(deadline) != 3:
            boot.fail(console, "the disk does not come first")
        console = boot.Console([trapeze, "run", *words, "--boot", "floppy"])
        status = console.finish(deadline)
        if status != 7 or "floppy started" not in console.text:
            boot.fail(console, f"the status is {status}")
        with open(disk, "rb") as image:
            image.seek((tracks * heads * sectors - 1) * 512)
            last = struct.unpack("<H", image.read(2))[0]
        if last != 0xFFFF ^ (tracks * heads * sectors - 1):
            boot.fail(console, f"the last sector begins with {last:#x}")
        console = boot.Console([trapeze, "run", "--net", "none", f"{disk}"])  # IMAGE is known by its size
        if console.finish(deadline) != 0xFF:  # the last sector is not what it was
            boot.fail(console, "the disk alone does not start, or is what it was")
    return 0


if __name__ == "__main__":
    sys.exit(main())
