#!/usr/bin/env python3
"""gpu.py TRAPEZE CASE - pictures that Linux's own drivers put on the screen

The generic kernel with the driver of the card and gpu_guest.c, which shows pictures in several resolutions: "trapeze
screenshot" has them pixel by pixel. "viewer": one of VNC sees them, too, draws the cursor, and wishes a size, which the
driver then likes best. "storm": how many whole screens a second reach a viewer. Skipped (status 77) without the guest or a compiler.
"""
import os
import re
import shutil
import sys
import tempfile
import time

import boot
import net
import screen
import vnc

DRM = net.VIRTIO_PCI + " drivers/gpu/drm/drm drivers/gpu/drm/drm_kms_helper"
VIRTIO = DRM + " drivers/virtio/virtio_dma_buf drivers/gpu/drm/drm_shmem_helper drivers/gpu/drm/virtio/virtio-gpu"
BOCHS = DRM + (
    " drivers/gpu/drm/ttm/ttm drivers/gpu/drm/drm_ttm_helper drivers/gpu/drm/drm_vram_helper drivers/gpu/drm/tiny/bochs"
)
# Options, and modules.
CASES = {
    "std": (["--vga", "std"], BOCHS),
    "virtio": (["--vga", "virtio"], VIRTIO),
    "virtio-alone": (["--device", "virtio-gpu"], VIRTIO),
    "virtio-interpreter": (["--vga", "virtio", "--engine", "interpreter"], VIRTIO),
    "viewer": (["--vga", "virtio"], VIRTIO),
    "storm": (["--vga", "virtio"], VIRTIO),
}
SIZES = ((640, 480), (1920, 1080), (800, 600), (1024, 768))
INIT = net.INIT_START + """\
for module in MODULES; do insmod /modules/$module.ko || echo "gpu: no $module"; done
stty -echo
/gpu
poweroff -f
"""
LIMIT_S = 300
STORM_S = 5


def picture_rows(width, height, seed):
    """As gpu_guest.c draws, in rows of 3 bytes a pixel."""
    red = bytes((x ^ seed) & 0xFF for x in range(width))
    blue = bytes(n & 0xFF for n in range(width + height + seed))
    rows = []
    for y in range(height):
        row = bytearray(3 * width)
        row[0::3], row[1::3] = red, bytes([(y + seed) & 0xFF]) * width
        row[2::3] = blue[y + seed : y + seed + width]
        rows.append(bytes(row))
    return rows


class Guest:
    """A machine whose guest shows what it is told to."""

    def __init__(self, trapeze, folder, name, options=()):
        extra, modules = CASES[name]
        command = boot.command_for(trapeze, boot.case("generic", "", [], append="quiet rdinit=/net-init"))
        command = net.with_program(command, folder, "gpu", ["-O2"], "generic", modules, INIT)
        self.socket, self.deadline = os.path.join(folder, "vm.sock"), time.monotonic() + LIMIT_S
        self.console = boot.Console([*command, "--monitor", self.socket, *extra, *options], interactive=True)
        self.screen = screen.Screen(trapeze, self.console, self.socket, self.deadline)
        self.expect("gpu: ready")

    def expect(self, pattern):
        if not self.console.wait_for(pattern, self.deadline):
            boot.fail(self.console, f"'{pattern}' did not appear")
        return self.console.text

    def do(self, command, pattern):
        self.console.write(command + "\n")
        return re.findall(pattern, self.expect(pattern))[-1]

    def show(self, width, height, seed):
        self.do(f"show {width} {height} {seed}", "shown\r")
        return picture_rows(width, height, seed)

    def power_off(self):
        self.console.write("\x04")
        self.expect(boot.OFF)
        if self.console.finish(self.deadline) != 0:
            boot.fail(self.console, "its status is not 0")
        boot.check_console(self.console)


def see_modes(trapeze, folder, name):
    guest = Guest(trapeze, folder, name)
    if not guest.do("modes", r"modes: (.*)\.\r").startswith("1024x768 "):
        boot.fail(guest.console, "the monitor likes another mode best")
    for seed, (width, height) in enumerate(SIZES):
        rows = guest.show(width, height, 1000 * seed)
        if guest.screen.picture(f"{name}-{width}x{height}").rows != rows:
            boot.fail(guest.console, f"the picture of {width}x{height} is another one")
    guest.power_off()


def see_viewer(trapeze, folder, name):
    address = os.path.join(folder, "vnc.sock")
    guest = Guest(trapeze, folder, name, ["--display", f"vnc=unix:{address}"])
    viewer = vnc.Viewer(address, vnc.TIGHT, more=(vnc.CURSOR, vnc.ANY_SIZE))
    rows = guest.show(800, 600, 3)
    guest.do("cursor 10 20 9", "pointed\r")
    while [bytes(row) for row in viewer.rows] != rows or not viewer.cursor:
        viewer.update()
    width, height, hot_x, hot_y, pixels, mask = viewer.cursor
    drawn = b"".join(bytes(row[:192]) for row in picture_rows(64, 64, 9))
    if (width, height, hot_x, hot_y) != (64, 64, 5, 7) or mask != b"\xff" * 256 + bytes(256):
        boot.fail(guest.console, f"a cursor of {width}x{height} with its hot spot at {hot_x}, {hot_y}")
    if any(pixels[n::4] != drawn[2 - n :: 3] for n in range(3)):
        boot.fail(guest.console, "the cursor has other pixels")
    viewer.wish(1200, 700)
    while viewer.size_answer is None:
        viewer.update()
    modes = guest.do("modes", r"modes: (.*)\.\r")
    if viewer.size_answer != 4 or not modes.startswith("1200x700 "):
        boot.fail(guest.console, f"the viewer's wish came to {viewer.size_answer} and {modes}")
    rows = guest.show(1200, 700, 4)
    while [bytes(row) for row in viewer.rows] != rows:
        viewer.update()
    if guest.screen.picture("viewer").rows != rows:
        boot.fail(guest.console, "the screenshot is another one than the viewer's")
    guest.power_off()


class Counter(vnc.Viewer):
    """Counts pixels, and does not look at them."""

    pixels = 0

    def put(self, x, y, width, height, pixels):
        self.pixels += width * height

    def unpack(self, data, compact):
        return b""


def count_frames(trapeze, folder, name):
    address = os.path.join(folder, "vnc.sock")
    guest = Guest(trapeze, folder, name, ["--display", f"vnc=unix:{address}"])
    for encoding in (vnc.RAW, vnc.ZRLE, vnc.TIGHT):
        viewer = Counter(address, encoding)
        guest.console.write(f"storm 1024 768 {STORM_S + 2}\n")
        time.sleep(1)
        start, pixels = time.monotonic(), viewer.pixels
        while time.monotonic() < start + STORM_S:
            viewer.update()
        rate = (viewer.pixels - pixels) / (1024 * 768) / (time.monotonic() - start)
        viewer.socket.close()
        drawn = int(guest.do("modes", r"drew (\d+) frames\r[^.]*modes: .*\.\r")) / (STORM_S + 2)
        print(f"storm: {rate:.1f} of {drawn:.0f} frames of 1024x768 a second reach the viewer by encoding {encoding}")
        if rate < 25:
            boot.fail(guest.console, "these are less than 25")
    guest.power_off()


def main():
    trapeze, name = sys.argv[1:]
    if not shutil.which("gcc"):
        print("gpu: gcc is not there")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        {"viewer": see_viewer, "storm": count_frames}.get(name, see_modes)(trapeze, folder, name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
