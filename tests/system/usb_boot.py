#!/usr/bin/env python3
"""usb_boot.py TRAPEZE - SeaBIOS starts a boot sector (usb_boot.S) from a stick on each kind of controller, which looks at all of it

Once the stick is on a hub. A disk that is not the first in the order (bootindex) is there, too. Kinds are of --usb.
"""
import os
import shutil
import subprocess
import sys
import tempfile
import time

import boot

SECTORS = 1 + 64 * 32  # the first is the boot sector; fewer are no cylinder
AT_ONCE = 32
LIMIT_S = 60
HERE = os.path.dirname(os.path.abspath(__file__))


def make_stick(folder):
    stick, linked = os.path.join(folder, "stick.img"), os.path.join(folder, "usb_boot.o")
    sizes = [f"--defsym=SECTORS={SECTORS}", f"--defsym=AT_ONCE={AT_ONCE}"]
    subprocess.run(["as", "--32", *sizes, "-o", linked, os.path.join(HERE, "usb_boot.S")], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext=0x7c00", "--oformat=binary", "-o", stick, linked], check=True)
    with open(stick, "ab") as image:
        for number in range(1, SECTORS):
            image.write(number.to_bytes(2, "little").ljust(512, b"\0"))
    return stick


def start(trapeze, kind, folder, hub=(), place=""):
    stick, other = make_stick(folder), os.path.join(folder, "other.img")
    with open(other, "wb") as image:
        image.truncate(1 << 20)
    options = ["--net", "none", "--usb", kind, *hub, "--disk", other, "--disk", f"{stick},if=usb,bootindex=0{place}"]
    console = boot.Console([trapeze, "run", *options])
    status = console.finish(time.monotonic() + LIMIT_S)
    with open(stick, "rb") as image:
        image.seek(512 * (SECTORS - 1))
        last = int.from_bytes(image.read(2), "little")
    if status != 7 or last != (SECTORS - 1) ^ 0xffff:
        boot.fail(console, f"{kind}: the status is {status}, the last sector begins with {last:#x}")


def main():
    if not os.path.exists("/usr/share/seabios/bios-256k.bin") or not shutil.which("ld"):
        print("usb_boot: SeaBIOS or binutils are not there")
        return 77
    for kind in ("xhci", "ehci", "uhci"):
        with tempfile.TemporaryDirectory() as folder:
            start(sys.argv[1], kind, folder)
    with tempfile.TemporaryDirectory() as folder:
        start(sys.argv[1], "xhci", folder, ["--device", "usb-hub"], ",bus=usb-hub")
    return 0


if __name__ == "__main__":
    sys.exit(main())
