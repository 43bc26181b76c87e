#!/usr/bin/env python3
"""screen.py TRAPEZE CASE - what firmware, GRUB and Linux show on the screen

Pictures are taken with "trapeze screenshot" while a machine runs: SeaBIOS's and GRUB's text as characters and in
pixels, Debian's console on its own frame buffer, whose bytes, as the guest reads them, are those of the picture.
CASES has the options; pictures stay in the folder SCREEN_PICTURES, if it is set. Skipped (status 77) without the disk.
"""
import hashlib
import os
import re
import struct
import subprocess
import sys
import tempfile
import time
import zlib

import boot
import cd
import debian

# Options, and what the firmware and GRUB are to be found by in a text mode (None: they draw).
CASES = {
    "bios": ([], r"SeaBIOS \(version "),
    "uefi": (["--firmware", "uefi"], None),
    "virtio": (["--vga", "virtio"], r"SeaBIOS \(version "),
    "uefi-virtio": (["--firmware", "uefi", "--vga", "virtio"], None),
}
PROMPT = "ready> "
LIMIT_S = 600
# Text and colours, and nothing blinks.
STILL = "(printf '\\033[?25l\\033[2J\\033[H\\033[1;33;44m a screen \\033[0m\\n'; dmesg | head -40) >/dev/tty1; sleep 1"
SIZE = "cat /sys/class/graphics/fb0/virtual_size /sys/class/graphics/fb0/bits_per_pixel | tr '\\n' ,; echo size"


def unfilter(kind, row, above, size):
    """A row of so many bytes a pixel as it was before PNG's filter, below the row above (zeroes if there is none)."""
    if kind == 1:
        for n in range(size, len(row)):
            row[n] = (row[n] + row[n - size]) & 0xFF
    elif kind == 2:
        for n, up in enumerate(above):
            row[n] = (row[n] + up) & 0xFF
    elif kind == 3:
        for n, up in enumerate(above):
            row[n] = (row[n] + ((row[n - size] if n >= size else 0) + up) // 2) & 0xFF
    elif kind == 4:
        for n, up in enumerate(above):
            left, corner = (row[n - size], above[n - size]) if n >= size else (0, 0)
            guess = left + up - corner
            best = min((abs(guess - left), 0, left), (abs(guess - up), 1, up), (abs(guess - corner), 2, corner))
            row[n] = (row[n] + best[2]) & 0xFF
    else:
        assert kind == 0, kind


class Picture:
    """A PNG file of RGB or RGBA, 8 bits each, that is not interlaced. The picture is kept as rows of 3 bytes a pixel."""

    def __init__(self, data):
        assert data[:8] == b"\x89PNG\r\n\x1a\n", "not a PNG file"
        at, packed = 8, b""
        while at < len(data):
            size, name = struct.unpack(">I4s", data[at : at + 8])
            body = data[at + 8 : at + 8 + size]
            assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(name + body)
            if name == b"IHDR":
                self.width, self.height = struct.unpack(">II", body[:8])
                pixel = {b"\x08\2\0\0\0": 3, b"\x08\6\0\0\0": 4}[body[8:]]
            elif name == b"IDAT":
                packed += body
            at += 12 + size
        data, stride, above = zlib.decompress(packed), pixel * self.width, bytes(pixel * self.width)
        assert len(data) == (stride + 1) * self.height
        self.rows = []
        for at in range(0, len(data), stride + 1):
            row = bytearray(data[at + 1 : at + 1 + stride])
            unfilter(data[at], row, above, pixel)
            above = bytes(row)
            if pixel == 4:
                del row[3::4]
            self.rows.append(bytes(row))

    def frame_buffer(self):
        """The same as a frame buffer of 32 bits a pixel."""
        out = bytearray(4 * self.width * self.height)
        pixels = b"".join(self.rows)
        out[0::4], out[1::4], out[2::4] = pixels[2::3], pixels[1::3], pixels[0::3]
        return bytes(out)

    def colours(self):
        pixels = b"".join(self.rows)
        return {pixels[n : n + 3] for n in range(0, len(pixels), 3)}


class Screen:
    def __init__(self, trapeze, console, socket, deadline):
        self.trapeze, self.console, self.socket, self.deadline = trapeze, console, socket, deadline

    def run(self, *arguments):
        return subprocess.run(
            [self.trapeze, "screenshot", self.socket, *arguments], capture_output=True, timeout=60, check=False
        )

    def picture(self, name):
        done = self.run("-")
        if done.returncode:
            boot.fail(self.console, f"no picture: {done.stderr.decode()}")
        if os.environ.get("SCREEN_PICTURES"):
            with open(os.path.join(os.environ["SCREEN_PICTURES"], f"{name}.png"), "wb") as file:
                file.write(done.stdout)
        return Picture(done.stdout)

    def wait_for_text(self, pattern):
        while True:
            text = self.run("--text").stdout.decode()
            if re.search(pattern, text):
                return text
            if time.monotonic() > self.deadline:
                boot.fail(self.console, f"'{pattern}' is not on the screen, but: {text}")
            time.sleep(0.05)


def start(trapeze, folder, what, options, deadline):
    socket = os.path.join(folder, f"{what}.sock")
    command = [trapeze, "run", "-m", "1G", "--net", "none", "--monitor", socket, *options]
    console = boot.Console(command, interactive=True)
    while not os.path.exists(socket):
        if console.child.poll() is not None:
            console.wait_for(r"\Z.", deadline)  # all that it has said
            boot.fail(console, f"no machine: status {console.child.returncode}")
        time.sleep(0.05)
    return console, Screen(trapeze, console, socket, deadline)


def see_grub(trapeze, folder, name):
    """A menu from a CD, which waits for a key."""
    options, firmware = CASES[name]
    iso, deadline = cd.make_cd("grub", folder), time.monotonic() + LIMIT_S
    console, screen = start(trapeze, folder, "grub", [*options, "--cdrom", iso], deadline)
    if firmware:
        screen.wait_for_text(firmware)
        screen.picture(f"{name}-firmware")
    if not console.wait_for(cd.MENU_READS, deadline):
        boot.fail(console, "there is no menu")
    console.write("\x1b[B\x1b[A")  # the menu waits from now on
    if firmware:
        text = screen.wait_for_text(r"memory test[\s\S]*command-line")
        if "GNU GRUB" not in text or "\u2500\u2500\u2500" not in text:
            boot.fail(console, f"GRUB's menu has no frame: {text}")
    time.sleep(1)  # until all is drawn
    picture = screen.picture(f"{name}-grub")
    if firmware and (picture.width, picture.height) != (720, 400):
        boot.fail(console, f"a text mode of {picture.width}x{picture.height} pixels")
    if len(picture.colours()) < 2:
        boot.fail(console, "the screen is empty")
    if console.stop() is None:
        boot.fail(console, "it does not end on SIGTERM")


def see_linux(trapeze, folder, name):
    """The console's frame buffer, by its driver, and the picture are the same bytes."""
    options, _ = CASES[name]
    deadline = time.monotonic() + LIMIT_S
    options = [*options, "--disk", f"{debian.DISK},snapshot=on"]
    console, screen = start(trapeze, folder, "linux", options, deadline)

    def expect(pattern):
        if not console.wait_for(pattern, deadline):
            boot.fail(console, f"'{pattern}' did not appear")

    def do(words, pattern):
        console.write(words + "\r")
        expect(pattern)
        return console.text

    for pattern, answer in debian.LOGIN:
        expect(pattern)
        console.write(answer + "\r")
    expect(PROMPT)
    do("echo 0 >/sys/class/graphics/fbcon/cursor_blink; " + STILL, PROMPT)
    size = re.findall(r"(\d+),(\d+),(\d+),size", do(SIZE, r"\d,size"))[-1]
    picture = screen.picture(f"{name}-linux")
    if size != (str(picture.width), str(picture.height), "32") or size[:2] != ("1024", "768"):
        boot.fail(console, f"the frame buffer is {size}, the picture {picture.width}x{picture.height}")
    if len(picture.colours()) < 3:
        boot.fail(console, "the words on the screen are not there")
    do(f"head -c {4 * 1024 * 768} /dev/fb0 | sha256sum", r"[0-9a-f]{64}")
    if hashlib.sha256(picture.frame_buffer()).hexdigest() not in console.text:
        boot.fail(console, "the picture is not what is in the frame buffer")
    do("cat /proc/fb; poweroff", boot.OFF)
    if console.finish(deadline) != 0:
        boot.fail(console, "its status is not 0")


def main():
    trapeze, name = sys.argv[1:]
    if not os.path.exists(debian.DISK):
        print(f"screen: {debian.DISK} is not there; run tools/guest.sh debian")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        see_grub(trapeze, folder, name)
        see_linux(trapeze, folder, name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
