#!/usr/bin/env python3
"""resets.py TRAPEZE - SeaBIOS starts a boot sector (resets.S) again after each of 20 resets, of four kinds"""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

import boot

COUNT = 20
LIMIT_S = 180
HERE = os.path.dirname(os.path.abspath(__file__))


def make_disk(folder):
    disk, linked = os.path.join(folder, "disk.img"), os.path.join(folder, "resets.o")
    source = os.path.join(HERE, "resets.S")
    subprocess.run(["as", "--32", f"--defsym=COUNT={COUNT}", "-o", linked, source], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext=0x7c00", "--oformat=binary", "-o", disk, linked], check=True)
    with open(disk, "r+b") as image:
        image.truncate(1 << 20)
    return disk


def main():
    if not os.path.exists("/usr/share/seabios/bios-256k.bin") or not shutil.which("ld"):
        print("resets: SeaBIOS or binutils are not there")
        return 77
    deadline = time.monotonic() + LIMIT_S
    with tempfile.TemporaryDirectory() as folder:
        console = boot.Console([sys.argv[1], "run", "--net", "none", "--cpus", "2", "--disk", make_disk(folder)])
        status = console.finish(deadline)
    starts = re.findall(r"start (.)", console.text)
    if status != 7 or starts != [chr(ord("A") + n) for n in range(COUNT + 1)]:
        boot.fail(console, f"the status is {status}, it started as {starts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
