#!/usr/bin/env python3
"""gpu.py TRAPEZE CASE - pictures that Linux's own drivers put on the screen

The generic kernel with the driver of the card and gpu_guest.c, which shows pictures in several resolutions: "trapeze
screenshot" has them pixel by pixel. Skipped (status 77) without the guest or a compiler.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

import boot
import net
import screen

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
}
SIZES = ((640, 480), (1920, 1080), (800, 600), (1024, 768))
INIT = net.INIT_START + """\
for module in MODULES; do insmod /modules/$module.ko || echo "gpu: no $module"; done
stty -echo
/gpu
poweroff -f
"""
LIMIT_S = 300


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
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "gpu_guest.c")
        subprocess.run(["gcc", "-static", "-O2", "-o", f"{folder}/guest", source], check=True)
        net.make_initramfs(f"{folder}/net.cpio", "generic", modules, INIT)
        with open(f"{folder}/program.cpio", "wb") as out, open(f"{folder}/guest", "rb") as program:
            out.write(net.entry("gpu", 0o100755, program.read()))
            out.write(net.entry("TRAILER!!!", 0, b""))
        command = boot.command_for(trapeze, boot.case("generic", "", [], append="quiet rdinit=/net-init"))
        command[command.index("--initrd") + 1] += f",{folder}/net.cpio,{folder}/program.cpio"
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


def main():
    trapeze, name = sys.argv[1:]
    if not shutil.which("gcc"):
        print("gpu: gcc is not there")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        see_modes(trapeze, folder, name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
