#!/usr/bin/env python3
"""image.py TRAPEZE CASE - trapeze image beside qemu-img: what one makes the other reads

Skipped (status 77) without qemu-img and qemu-io.
"""
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import uuid

KIB, MIB = 1 << 10, 1 << 20


def run(*words, status=0):
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != status:
        print("image:", *words, f"ended with {done.returncode}", done.stdout, done.stderr, sep="\n")
        sys.exit(1)
    return done.stdout if done.stdout else done.stderr


class Tools:
    def __init__(self, trapeze, folder):
        self.trapeze = trapeze
        self.folder = folder

    def path(self, name):
        return os.path.join(self.folder, name)

    def ours(self, *words, status=0):
        return run(self.trapeze, "image", *words, status=status)

    def theirs(self, *words, status=0):
        return run("qemu-img", *words, status=status)

    def write(self, image, *commands):
        words = [word for command in commands for word in ("-c", command)]
        run("qemu-io", *words, image)

    def write_random(self, image, seed, size, count=40, discard=True):
        """The same for the same seed, but for what was discarded."""
        dice = random.Random(seed)
        commands = []
        for _ in range(count):
            length = dice.choice([512, 4096, 5 * 512, 65536, 200 * KIB])
            at = dice.randrange(0, (size - length) // 512 + 1) * 512
            kind = dice.randrange(8)
            commands.append(
                f"write -z {at} {length}" if kind == 0 else
                f"discard {at} {length}" if kind == 1 and discard else
                f"write -P {dice.randrange(1, 256)} {at} {length}")
        self.write(image, *commands)

    def same(self, a, b):
        """As disks, and both without errors; both checks count the same."""
        self.theirs("compare", a, b)
        for image in (a, b):
            if '"qcow2"' in self.theirs("info", "--output=json", image):
                self.same_check(image)

    def same_check(self, image, status=0):
        ours = json.loads(self.ours("check", "--json", image, status=1 if status == 2 else 0))
        theirs = json.loads(self.theirs("check", "--output=json", image, status=status))
        for name in ("corruptions", "leaks", "allocated-clusters", "compressed-clusters",
                     "total-clusters", "image-end-offset"):
            if ours.get(name, 0) != theirs.get(name, 0):
                print(f"image: {image}: {name}", ours, theirs, sep="\n")
                sys.exit(1)


OPTIONS = [
    "compat=1.1",
    "compat=0.10",
    "cluster_size=512",
    "cluster_size=2M",
    "refcount_bits=1",
    "refcount_bits=2,cluster_size=512",
    "refcount_bits=8",
    "refcount_bits=32,cluster_size=4K",
    "refcount_bits=64",
    "lazy_refcounts=on",
    "preallocation=metadata",
]


def case_convert(tools):
    """Images of every kind, there and back."""
    for seed, options in enumerate(OPTIONS):
        size = 6 * MIB + 1024 * seed
        image, raw, back = tools.path("a.qcow2"), tools.path("a.raw"), tools.path("b.qcow2")
        tools.theirs("create", "-q", "-f", "qcow2", "-o", options, image, str(size))
        tools.write_random(image, seed, size)
        tools.ours("convert", "-O", "raw", "--force", image, raw)
        tools.same(image, raw)
        ours = "version=2" if seed % 3 == 1 else f"cluster_size={512 << seed}"
        tools.ours("convert", "--force", "-o", ours, image, back)
        tools.same(image, back)
        if "preallocation" not in options:
            tools.ours("convert", "--force", "-o", ours, raw, back)
            tools.same(image, back)


def case_compress(tools):
    raw, image = tools.path("a.raw"), tools.path("a.qcow2")
    tools.ours("create", "-f", "raw", raw, "20M")
    tools.write_random(raw, 1, 20 * MIB, 100)
    for method in "zlib", "zstd":
        for cluster in "512", "64K", "2M":
            tools.ours("convert", "-c", "--force", "-o", f"compression={method},cluster_size={cluster}",
                       raw, image)
            tools.same(image, raw)
            tools.theirs("convert", "-c", "-O", "qcow2", "-o",
                         f"compression_type={method},cluster_size={cluster}", raw, image)
            tools.ours("convert", "--force", "-O", "raw", image, tools.path("b.raw"))
            tools.same(image, tools.path("b.raw"))


def case_info(tools):
    for seed, options in enumerate(OPTIONS):
        image = tools.path("a.qcow2")
        tools.theirs("create", "-q", "-f", "qcow2", "-o", options, image, f"{seed + 1}M")
        ours = json.loads(tools.ours("info", "--json", image))
        theirs = json.loads(tools.theirs("info", "--output=json", image))
        for name in "filename", "format", "virtual-size", "cluster-size", "dirty-flag":
            assert ours[name] == theirs[name], (name, ours, theirs)
        for name in "compat", "compression-type", "refcount-bits", "corrupt":
            a, b = ours["format-specific"]["data"], theirs["format-specific"]["data"]
            assert a[name] == b.get(name, a[name]), (name, ours, theirs)


def make_chain(tools, size, options):
    base, middle, top = (tools.path(name) for name in ("base.raw", "middle.qcow2", "top.qcow2"))
    for path in base, middle, top:
        if os.path.exists(path):
            os.unlink(path)
    tools.ours("create", "-f", "raw", base, str(2 * MIB + 512))
    tools.write_random(base, 1, 2 * MIB + 512)
    tools.ours("create", "-b", "base.raw", "-F", "raw", "-o", options, middle, str(size))
    tools.write_random(middle, 2, size)
    tools.ours("create", "-b", "middle.qcow2", top)
    tools.write_random(top, 3, size)
    return base, middle, top


def case_backing(tools):
    """Chains that we make, in all that is done to them."""
    for options in "version=3", "version=2,cluster_size=4K", "cluster_size=512":
        size = 5 * MIB + 512
        base, middle, top = make_chain(tools, size, options)
        flat, other = tools.path("flat.raw"), tools.path("other.qcow2")
        tools.ours("convert", "--force", "-O", "raw", top, flat)
        tools.same(top, flat)
        shutil.copy(middle, other)
        tools.write_random(other, 4, size)
        tools.ours("rebase", "-b", "other.qcow2", top)
        tools.same(top, flat)
        tools.ours("rebase", "-u", "-b", other, "-F", "qcow2", top)
        tools.same(top, flat)
        tools.ours("commit", top)
        tools.same(other, flat)
        tools.same(top, flat)
        tools.ours("commit", other)  # the raw file grows
        tools.same(base, flat)
        tools.ours("rebase", "-b", "", other)
        os.unlink(base)
        tools.same(other, flat)


def case_resize(tools):
    size = 4 * MIB
    image, raw = tools.path("a.qcow2"), tools.path("a.raw")
    for cluster in "512", "64K":
        tools.ours("create", "--force", "-o", f"cluster_size={cluster}", image, str(size))
        tools.ours("create", "--force", "-f", "raw", raw, str(size))
        for path in image, raw:
            tools.write_random(path, 5, size, discard=False)
            tools.ours("resize", path, "+100M")
            tools.ours("resize", path, "3M", status=1)
            tools.ours("resize", "--shrink", path, "3585K")
            tools.ours("resize", path, "+1M")
        tools.same(image, raw)


def case_snapshots(tools):
    """What QEMU keeps within an image stays as it is while we write to that image."""
    size = 4 * MIB
    image, top, before = tools.path("a.qcow2"), tools.path("top.qcow2"), tools.path("before.raw")
    for options in "cluster_size=512", "cluster_size=64K,refcount_bits=2":
        tools.theirs("create", "-q", "-f", "qcow2", "-o", options, image, str(size))
        tools.write_random(image, 6, size)
        tools.theirs("convert", "-O", "raw", image, before)
        tools.theirs("snapshot", "-c", "old", image)
        tools.same_check(image)
        tools.ours("create", "--force", "-b", "a.qcow2", top)
        tools.write_random(top, 7, size)
        tools.ours("commit", top)
        tools.same(top, image)
        tools.theirs("convert", "-O", "raw", "-l", "old", image, tools.path("old.raw"))
        tools.same(before, tools.path("old.raw"))
        tools.theirs("snapshot", "-a", "old", image)
        tools.same(before, image)


# qemu-img's format and options, and our format if it is not found out.
FOREIGN = [
    ("vmdk", "", ""),
    ("vmdk", "subformat=streamOptimized", ""),
    ("vmdk", "subformat=monolithicFlat", ""),
    ("vmdk", "subformat=twoGbMaxExtentSparse", ""),
    ("vmdk", "subformat=twoGbMaxExtentFlat", ""),
    ("vmdk", "zeroed_grain=on", ""),
    ("vdi", "", ""),
    ("vdi", "static=on", ""),
    ("vhdx", "block_size=1M", ""),
    ("vhdx", "subformat=fixed", ""),
    ("vhdx", "block_size=256M", ""),
    ("vpc", "force_size=on", ""),
    ("vpc", "force_size=on,subformat=fixed", "vpc"),
]


def case_foreign(tools):
    """Formats that are only read."""
    raw, back, top = tools.path("a.raw"), tools.path("b.raw"), tools.path("top.qcow2")
    for seed, (form, options, ours) in enumerate(FOREIGN):
        size = 9 * MIB + 512 * seed
        image = tools.path(f"{seed}.image")
        with open(raw, "wb") as file:
            file.truncate(size)
        tools.write_random(raw, seed, size)
        tools.theirs("convert", "-f", "raw", "-O", form, *(["-o", options] if options else []), raw, image)
        words = ["-f", ours] if ours else []
        info = json.loads(tools.ours("info", "--json", *words, image))
        assert info["format"] == form and info["virtual-size"] == size, info
        tools.ours("convert", *words, "--force", "-O", "raw", image, back)
        with open(raw, "rb") as a, open(back, "rb") as b:
            assert a.read() == b.read(), (form, options)
        check = json.loads(tools.ours("check", "--json", *words, image))
        assert check["corruptions"] == 0 and check["format"] == form, check
        tools.ours("create", "--force", "-b", image, "-F", form, top)
        tools.write(top, "write -P 77 4096 8192")
        tools.ours("convert", "--force", "-O", "raw", top, back)
        tools.theirs("compare", "-F", "raw", top, back)
        if form != "vhdx" and options in ("", "zeroed_grain=on", "force_size=on"):
            with open(image, "r+b") as file:  # what its tables lead to is gone
                file.truncate(os.path.getsize(image) // 3)
            tools.ours("check", *words, image, status=1)


def crc32c(data):
    value = 0xffffffff
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82f63b78 if value & 1 else 0)
    return value ^ 0xffffffff


def guid(text):
    return uuid.UUID(text).bytes_le


def make_difference(parent, child):
    """A VHDX image over another, of one block of 1 MiB or more, which qemu-img does not make: child is a
    dynamic image whose first block becomes one of which odd sectors are its own."""
    with open(parent, "rb") as file:
        headers = file.read(0x21000)
    newest = max(0x10000, 0x20000, key=lambda at: struct.unpack_from("<Q", headers, at + 8))
    linkage = "{" + str(uuid.UUID(bytes_le=headers[newest + 32:newest + 48])) + "}"
    with open(child, "r+b") as file:
        file.seek(0x30000)
        regions = file.read(0x10000)
        at = {regions[n:n + 16]: int.from_bytes(regions[n + 16:n + 24], "little") for n in range(16, 80, 32)}
        bat = at[guid("2DC27766-F623-4200-9D64-115E9BFD4A08")]
        metadata = at[guid("8B7CA206-4790-4B9A-B8FE-575F050F886E")]
        file.seek(metadata)
        table = bytearray(file.read(0x10000))
        count = int.from_bytes(table[10:12], "little")
        items = {bytes(table[n:n + 16]): int.from_bytes(table[n + 16:n + 20], "little")
                 for n in range(32, 32 + 32 * count, 32)}
        parameters = items[guid("CAA16737-FA36-4D43-B3B6-33F0AA44E76B")]
        file.seek(metadata + parameters)
        block = int.from_bytes(file.read(4), "little")
        file.write((2).to_bytes(4, "little"))
        texts = [text.encode("utf-16-le") for text in
                 ("parent_linkage", linkage, "relative_path", ".\\" + os.path.basename(parent))]
        locator = guid("B04AEFB7-D19E-4A81-B789-25B8E9445913") + struct.pack("<HH", 0, 2)
        ends = [44 + sum(map(len, texts[:n])) for n in range(4)]
        for n in 0, 2:
            locator += struct.pack("<IIHH", ends[n], ends[n + 1], len(texts[n]), len(texts[n + 1]))
        locator += b"".join(texts)
        file.seek(metadata + 0x20000)
        file.write(locator)
        table[32 + 32 * count:64 + 32 * count] = guid("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C") + struct.pack(
            "<IIII", 0x20000, len(locator), 4, 0)
        table[10:12] = (count + 1).to_bytes(2, "little")
        file.seek(metadata)
        file.write(table)
        file.seek(0, os.SEEK_END)
        bitmap = (file.tell() + MIB - 1) // MIB * MIB
        file.seek(bitmap)
        file.write(b"\xaa" * MIB)
        file.seek(bat)
        first = int.from_bytes(file.read(8), "little")
        assert first & 7 == 6, first
        file.seek(bat)
        file.write((first ^ 1).to_bytes(8, "little"))
        file.seek(bat + 8 * ((1 << 32) // block))
        file.write((bitmap | 6).to_bytes(8, "little"))
    return block


def case_difference(tools):
    """A VHDX image over another."""
    parent, child, back = tools.path("parent.vhdx"), tools.path("child.vhdx"), tools.path("b.raw")
    for path, value in (parent, 0x11), (child, 0x22):
        tools.theirs("create", "-q", "-f", "vhdx", "-o", "block_size=1M,block_state_zero=off", path, "8M")
        tools.write(path, f"write -P {value} 0 1M", *(["write -P 51 3M 1M"] if path == parent else []))
    block = make_difference(parent, child)
    tools.ours("convert", "-O", "raw", child, back)
    with open(back, "rb") as file:
        data = file.read()
    sectors = [b"\x11" * 512, b"\x22" * 512] * (block // 1024)
    assert data[:block] == b"".join(sectors), "the block that is there in part"
    assert data[3 * MIB:4 * MIB] == b"\x33" * MIB and data[block:2 * block] == bytes(block), "the parent's"
    tools.write(parent, "write -P 1 0 512")
    assert "written to" in tools.ours("convert", "--force", child, back, status=1)
    os.unlink(parent)
    assert "parent.vhdx" in tools.ours("convert", "--force", child, back, status=1)
    tools.ours("info", child)
    tools.theirs("create", "-q", "-f", "vhdx", parent, "8M")
    for at in 0x10000, 0x20000:  # a log to be played back
        damage(parent, at + 48, b"\1" * 16)
    assert "neither of its headers" in tools.ours("info", parent, status=1)
    for at in 0x10000, 0x20000:
        damage(parent, at + 4, bytes(4))
        with open(parent, "rb") as file:
            damage(parent, at + 4, crc32c(file.read()[at:at + 4096]).to_bytes(4, "little"))
    assert "played back" in tools.ours("info", parent, status=1)


def damage(path, at, data):
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


def field(path, at, size):
    with open(path, "rb") as file:
        file.seek(at)
        return int.from_bytes(file.read(size), "big")


def case_check(tools):
    """Damage is counted as QEMU counts it, and gone after a repair."""
    image, raw = tools.path("a.qcow2"), tools.path("a.raw")
    for bits in 1, 16, 64:
        for kind in "leak", "free", "many":
            tools.theirs("create", "-q", "-f", "qcow2", "-o", f"cluster_size=4K,refcount_bits={bits}",
                         image, "4M")
            tools.write_random(image, 8, 4 * MIB)
            tools.theirs("convert", "-O", "raw", image, raw)
            block = field(image, field(image, 48, 8), 8)
            if kind == "leak":  # counted behind what is used
                last = os.path.getsize(image) // 4096 + 16
                damage(image, last * 4096 + 4095, b"\0")
                damage(image, block + last * bits // 8, b"\1" * max(1, bits // 8))
                if bits > 1:
                    damage(image, block + last * bits // 8, (1).to_bytes(bits // 8, "big"))
            elif kind == "free":  # used and not counted
                damage(image, block + 8 * bits // 8, b"\0" * max(1, bits // 8))
            else:
                damage(image, block, b"\0" * 4096)
            tools.same_check(image, status=3 if kind == "leak" else 2)
            tools.ours("check", "--repair", image)
            tools.same(image, raw)


def case_refused(tools):
    image = tools.path("a.qcow2")
    tools.ours("create", image, "1M")
    assert "--force" in tools.ours("create", image, "1M", status=1)
    tools.theirs("create", "-q", "-f", "qcow2", "-o", "extended_l2=on", image, "1M")
    assert "extended L2" in tools.ours("convert", image, tools.path("b"), status=1)
    tools.theirs("create", "-q", "-f", "qcow2", "-o", f"data_file={tools.path('d')}", image, "1M")
    assert "external data file" in tools.ours("convert", image, tools.path("b"), status=1)
    tools.theirs("create", "-q", "-f", "vmdk", tools.path("a.vmdk"), "1M")
    assert "only read" in tools.ours("resize", tools.path("a.vmdk"), "2M", status=1)
    assert "only read" in tools.ours("create", "-f", "vdi", tools.path("b"), "1M", status=1)
    tools.theirs("create", "-q", "-f", "vmdk", "-b", tools.path("a.vmdk"), "-F", "vmdk", tools.path("c.vmdk"))
    assert "a difference" in tools.ours("convert", tools.path("c.vmdk"), tools.path("b"), status=1)
    with open(tools.path("d.vmdk"), "w") as file:
        file.write('# Disk DescriptorFile\nRW 8 FLAT "../../etc/passwd" 0\n')
    assert "in its own folder" in tools.ours("convert", tools.path("d.vmdk"), tools.path("b"), status=1)
    tools.ours("create", "--force", image, "1M")
    tools.ours("rebase", "-u", "-b", "a.qcow2", "-F", "qcow2", image)
    assert "its own backing file" in tools.ours("convert", image, tools.path("b"), status=1)
    tools.ours("rebase", "-u", "-b", "nbd:localhost:1", image)
    assert "'nbd' is not supported" in tools.ours("convert", image, tools.path("b"), status=1)
    assert not os.path.exists(tools.path("b"))


CASES = {name[len("case_"):]: case for name, case in list(globals().items())
         if name.startswith("case_")}


def main():
    trapeze, name = sys.argv[1:]
    if not shutil.which("qemu-img") or not shutil.which("qemu-io"):
        print("image: qemu-utils are not installed")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        CASES[name](Tools(trapeze, folder))


main()
