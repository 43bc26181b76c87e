#!/usr/bin/env python3
"""modes.py TRAPEZE [ENGINE] - pictures in VGA modes: what a boot sector (modes.S) draws is what is seen, pixel by pixel

Mode 13h (256 colours, 320x200) and mode 12h (four planes, 640x480), set by SeaBIOS's int 10h, as "trapeze screenshot" has
them, a viewer of VNC of our own, and gvnccapture, if it is there.
"""
import os
import shutil
import subprocess
import sys
import tempfile
import time

import boot
import capture
import screen
import vnc

LIMIT_S = 120
HERE = os.path.dirname(os.path.abspath(__file__))
# Which colours the 16 of a planar mode are: the attribute controller's palette as a BIOS sets it.
PALETTE = (0, 1, 2, 3, 4, 5, 0x14, 7, *range(0x38, 0x40))
MODES = {"13": (320, 200, 256, range(256)), "12": (640, 480, 16, PALETTE)}


def make_disk(folder):
    disk, linked = os.path.join(folder, "disk.img"), os.path.join(folder, "modes.o")
    subprocess.run(["as", "--32", "-o", linked, os.path.join(HERE, "modes.S")], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext=0x7c00", "--oformat=binary", "-o", disk, linked], check=True)
    with open(disk, "r+b") as image:
        image.truncate(1 << 20)
    return disk


def picture_rows(width, height, count, palette):
    """As modes.S draws, in rows of 3 bytes a pixel."""

    def colour(n):
        return bytes(v << 2 | v >> 4 for v in (n & 63, n >> 2, 63 - (n & 63)))

    colours = [colour(n) for n in palette]
    return [b"".join(colours[((x * y // 16 + x) ^ y) % count] for x in range(width)) for y in range(height)]


def compare(console, who, picture, rows):
    if [bytes(row) for row in picture.rows] != rows:
        boot.fail(console, f"{who} shows another picture, of {picture.width}x{picture.height}")


def main():
    if not os.path.exists("/usr/share/seabios/bios-256k.bin") or not shutil.which("ld"):
        print("modes: SeaBIOS or binutils are not there")
        return 77
    trapeze, *engine = sys.argv[1:]
    deadline = time.monotonic() + LIMIT_S
    with tempfile.TemporaryDirectory() as folder:
        options = ["--display", "vnc", "--disk", make_disk(folder), *(["--engine", *engine] if engine else [])]
        console, shown = screen.start(trapeze, folder, "modes", options, deadline)
        port = capture.port_of(console, deadline)
        viewer = vnc.Viewer(("127.0.0.1", port), vnc.ZRLE)
        for mode, shape in MODES.items():
            if not console.wait_for(f"mode {mode}", deadline):
                boot.fail(console, f"mode {mode} is not reached")
            rows = picture_rows(*shape)
            compare(console, "the screenshot", shown.picture(f"mode-{mode}"), rows)
            viewer.settle(0.3)
            compare(console, "a viewer", viewer, rows)
            if capture.is_there():
                compare(console, "gvnccapture", capture.capture(port, folder, f"mode-{mode}"), rows)
            subprocess.run([trapeze, "key", shown.socket, "enter"], check=True)
        status = console.finish(deadline)
        if status != 7:
            boot.fail(console, f"the status is {status}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
