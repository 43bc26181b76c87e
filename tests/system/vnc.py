#!/usr/bin/env python3
"""vnc.py TRAPEZE - viewers of VNC see GRUB's menu of a CD, and press keys in it

Viewers at once, by ZRLE, Tight and Raw, in different formats of pixels; what they see is what
"trapeze screenshot" shows. Then the screen is idle, and what that costs is measured. Skipped (status 77) without what the CD is made of.
"""
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
import zlib

import boot
import cd
import screen

CUT_TEXT = 3
RAW, TIGHT, ZRLE, DESKTOP_SIZE, CURSOR, SCAN_CODES, ANY_SIZE = 0, 7, 16, -223, -239, -258, -308
DOWN, UP, SHIFT, ESCAPE = 0xFF54, 0xFF52, 0xFFE1, 0xFF1B
LIMIT_S = 300
IDLE_S = 5
IDLE_SHARE = 0.03


class Viewer:
    """RFB 3.8 without a password. The picture is kept as rows of 3 bytes a pixel."""

    def __init__(self, address, encoding, pixel_format=None, more=()):
        self.socket = socket.create_connection(address) if isinstance(address, tuple) else None
        if not self.socket:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(address)
        self.socket.settimeout(60)
        self.inflate = zlib.decompressobj()
        self.tight_streams = [zlib.decompressobj() for _ in range(3)]
        self.updates, self.has_scan_codes = 0, False
        self.cursor, self.size_answer, self.copied = None, None, None
        assert self.read(12) == b"RFB 003.008\n"
        self.socket.sendall(b"RFB 003.008\n")
        types = self.read(self.read(1)[0])
        assert types == b"\1", types
        self.socket.sendall(b"\1")
        assert self.read(4) == b"\0\0\0\0"
        self.socket.sendall(b"\1")
        width, height = struct.unpack(">HH", self.read(4))
        self.format = self.read(16)
        self.name = self.read(struct.unpack(">I", self.read(4))[0]).decode()
        if pixel_format:
            self.format = pixel_format
            self.socket.sendall(b"\0\0\0\0" + pixel_format)
        self.set_size(width, height)
        encodings = [encoding, DESKTOP_SIZE, SCAN_CODES, 0x7FFFFFFF, *more]
        self.socket.sendall(struct.pack(f">BxH{len(encodings)}i", 2, len(encodings), *encodings))
        self.ask(False)

    def read(self, size):
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            assert more, "the server has hung up"
            data += more
        return data

    def set_size(self, width, height):
        self.width, self.height = width, height
        self.rows = [bytearray(3 * width) for _ in range(height)]

    def ask(self, incremental=True):
        self.socket.sendall(struct.pack(">BBHHHH", 3, incremental, 0, 0, self.width, self.height))

    def unpack(self, data, compact):
        """Pixels to 3 bytes each: of 32 bits as they come, or of 16 (big endian, 5-6-5)."""
        if self.format[0] == 32:
            size = 3 if compact else 4
            out = bytearray(len(data) // size * 3)
            out[0::3], out[1::3], out[2::3] = data[2::size], data[1::size], data[0::size]
            return bytes(out)
        out = bytearray()
        for (value,) in struct.iter_unpack(">H", data):
            out += bytes([value >> 11 << 3, (value >> 5 & 63) << 2, (value & 31) << 3])
        return bytes(out)

    def put(self, x, y, width, height, pixels):
        for n in range(height):
            self.rows[y + n][3 * x : 3 * (x + width)] = pixels[3 * width * n : 3 * width * (n + 1)]

    def zrle(self, left, top, width, height):
        data = self.inflate.decompress(self.read(struct.unpack(">I", self.read(4))[0]))
        at, size = 0, 3 if self.format[0] == 32 else self.format[0] // 8
        for y in range(0, height, 64):
            for x in range(0, width, 64):
                w, h = min(64, width - x), min(64, height - y)
                kind = data[at]
                at += 1
                assert kind <= 16, kind
                colours = self.unpack(data[at : at + size * (kind or w * h)], True)
                at += size * (kind or w * h)
                if kind == 0:
                    pixels = colours
                elif kind == 1:
                    pixels = colours * (w * h)
                else:
                    bits, pixels = 1 if kind == 2 else 2 if kind <= 4 else 4, bytearray()
                    stride = (w * bits + 7) // 8
                    for row in range(h):
                        packed = int.from_bytes(data[at : at + stride], "big")
                        at += stride
                        for column in range(w):
                            index = packed >> (8 * stride - bits * (column + 1)) & ((1 << bits) - 1)
                            pixels += colours[3 * index : 3 * index + 3]
                self.put(left + x, top + y, w, h, pixels)
        assert at == len(data), (at, len(data))

    def tight_data(self, stream, size):
        length, shift = 0, 0
        while shift < 21:
            byte = self.read(1)[0]
            length |= (byte & (0x7F if shift < 14 else 0xFF)) << shift
            shift += 7 if byte & 0x80 else 21
        data = self.tight_streams[stream].decompress(self.read(length))
        assert len(data) == size, (len(data), size)
        return data

    def tight(self, left, top, width, height):
        """Of 32 bits a pixel."""
        control = self.read(1)[0]
        if control == 0x80:
            pixels = self.read(3) * (width * height)
        elif control & 0x40:
            assert self.read(1) == b"\1"
            count = self.read(1)[0] + 1
            palette = self.read(3 * count)
            colours = [palette[3 * n : 3 * n + 3] for n in range(count)]
            stride = (width + 7) // 8 if count == 2 else width
            data = self.tight_data(control >> 4 & 3, stride * height)
            if count == 2:
                rows = [data[stride * y : stride * (y + 1)] for y in range(height)]
                data = [row[x // 8] >> (7 - x % 8) & 1 for row in rows for x in range(width)]
            pixels = b"".join([colours[n] for n in data])
        else:
            pixels = self.tight_data(control >> 4, 3 * width * height)
        self.put(left, top, width, height, pixels)

    def update(self):
        """Wait for one, and ask for the next; or for a text that was copied."""
        kind, count = struct.unpack(">BxH", self.read(4))
        if kind == CUT_TEXT:
            self.copied = self.read(struct.unpack(">I", self.read(4))[0]).decode("latin-1")
            return
        assert kind == 0, kind
        for _ in range(count):
            x, y, width, height, encoding = struct.unpack(">HHHHi", self.read(12))
            if encoding == DESKTOP_SIZE:
                self.set_size(width, height)
            elif encoding == SCAN_CODES:
                self.has_scan_codes = True
            elif encoding == ANY_SIZE:
                self.read(4 + 16 * self.read(1)[0] - 1)
                if x == 1:
                    self.size_answer = y
                if (width, height) != (self.width, self.height):
                    self.set_size(width, height)
            elif encoding == CURSOR:
                pixels, mask = self.read(4 * width * height), self.read((width + 7) // 8 * height)
                self.cursor = (width, height, x, y, pixels, mask)
            elif encoding == ZRLE:
                self.zrle(x, y, width, height)
            elif encoding == TIGHT:
                self.tight(x, y, width, height)
            else:
                assert encoding == RAW, encoding
                pixels = self.read(width * height * self.format[0] // 8)
                self.put(x, y, width, height, self.unpack(pixels, False))
        self.updates += 1
        self.ask()

    def wish(self, width, height):
        self.socket.sendall(struct.pack(">BxHHBxIHHHHI", 251, width, height, 1, 0, 0, 0, width, height, 0))

    def copy(self, text):
        data = text.encode("latin-1")
        self.socket.sendall(struct.pack(">BxxxI", 6, len(data)) + data)

    def settle(self, quiet_s=1.0):
        """Take updates until there have been none for a while."""
        while True:
            self.socket.settimeout(quiet_s)
            try:
                self.socket.recv(1, socket.MSG_PEEK)
            except TimeoutError:
                return
            finally:
                self.socket.settimeout(60)
            self.update()

    def key(self, keysym):
        for down in (1, 0):
            self.socket.sendall(struct.pack(">BBxxI", 4, down, keysym))
        self.settle(0.05)  # who does not read is not read from

    def type(self, text):
        """As on a keyboard that has '?' beside '0', with Shift; small letters without."""
        for character in text:
            shift = character == "?" or character.isupper()
            if shift:
                self.socket.sendall(struct.pack(">BBxxI", 4, 1, SHIFT))
            self.key(ord(character))
            if shift:
                self.socket.sendall(struct.pack(">BBxxI", 4, 0, SHIFT))

    def matches(self, picture):
        """Is it a PNG file's picture? Up to the bits that the format has."""
        bits = (0xF8, 0xFC, 0xF8) if self.format[0] == 16 else (0xFF, 0xFF, 0xFF)
        if (self.width, self.height) != (picture.width, picture.height):
            return False
        ours, theirs = b"".join(self.rows), b"".join(picture.rows)
        near = 8 if self.format[0] == 16 else 0
        return all(
            abs((a & b) - (c & b)) <= near
            for n, b in enumerate(bits)
            for a, c in zip(ours[n::3], theirs[n::3])
        )


R5G6B5 = bytes([16, 16, 1, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0, 0, 0, 0])


def used_s(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle_share(console, viewers):
    """What the whole process takes of a core while nothing changes, and viewers wait for that."""
    pid, start, used = console.child.pid, time.monotonic(), used_s(console.child.pid)
    for viewer in viewers:
        viewer.settle(IDLE_S)  # takes no update
    time.sleep(max(0, start + IDLE_S - time.monotonic()))
    return (used_s(pid) - used) / (time.monotonic() - start)


def see(trapeze, folder):
    iso, deadline = cd.make_cd("grub", folder), time.monotonic() + LIMIT_S
    path = os.path.join(folder, "vnc.sock")
    console, shown = screen.start(trapeze, folder, "menu", ["--display", f"vnc=unix:{path}", "--cdrom", iso], deadline)
    if not console.wait_for(cd.MENU_READS, deadline):
        boot.fail(console, "there is no menu")
    first = Viewer(path, ZRLE)
    first.key(DOWN)  # the menu waits from now on
    first.key(UP)
    shown.wait_for_text("memory test")
    second, third = Viewer(path, RAW, R5G6B5), Viewer(path, TIGHT)
    for viewer in (first, second, third):
        viewer.settle()
        if not viewer.has_scan_codes or viewer.name != "vm":
            boot.fail(console, f"the server says {viewer.name}, {viewer.has_scan_codes}")
        if not viewer.matches(shown.picture("vnc-menu")):
            boot.fail(console, f"viewers see another picture of {viewer.width}x{viewer.height}")
    monitor = [trapeze, "monitor", shown.socket]
    subprocess.run([*monitor, "pause"], check=True, stdout=subprocess.DEVNULL)  # GRUB waits busily
    third.socket.close()
    share = idle_share(console, [first, second])
    subprocess.run([*monitor, "resume"], check=True, stdout=subprocess.DEVNULL)
    print(f"idle: {100 * share:.1f} % of a core with two viewers")
    if share > IDLE_SHARE:
        boot.fail(console, "an idle screen costs too much")
    second.type("c")  # GRUB's command line
    shown.wait_for_text("grub>")
    second.type("echo Where?/0")
    shown.wait_for_text(re.escape("grub> echo Where?/0"))
    second.key(ESCAPE)  # the menu again, where no cursor blinks
    shown.wait_for_text("memory test")
    for viewer in (first, second):
        viewer.settle()
        if not viewer.matches(shown.picture("vnc-again")):
            boot.fail(console, "viewers see another picture than the menu")
    if console.stop() is None:
        boot.fail(console, "it does not end on SIGTERM")


def main():
    with tempfile.TemporaryDirectory() as folder:
        see(sys.argv[1], folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
