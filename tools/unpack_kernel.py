#!/usr/bin/env python3
"""unpack_kernel.py BZIMAGE OUT - get the ELF vmlinux out of a Linux bzImage

The setup header says where the compressed payload is (boot.rst, payload_offset);
gzip, bzip2, lzma and xz are unpacked here, zstd and lz4 by their programs.
"""
import bz2
import lzma
import struct
import subprocess
import sys
import zlib

UNPACKERS = [
    (b"\x1f\x8b", lambda data: zlib.decompressobj(31).decompress(data)),
    (b"BZh", lambda data: bz2.BZ2Decompressor().decompress(data)),
    (b"\xfd7zXZ", lambda data: lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(data)),
    (b"\x5d\0\0", lambda data: lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(data)),
    (b"\x28\xb5\x2f\xfd", lambda data: program(["zstd", "-dc"], data)),
    (b"\x02\x21\x4c\x18", lambda data: program(["lz4", "-dc"], data)),
]


def program(command, data):
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=False).stdout


def main():
    source, target = sys.argv[1:]
    with open(source, "rb") as file:
        kernel = file.read()
    if kernel[0x202:0x206] != b"HdrS":
        sys.exit(f"{source}: not a Linux bzImage")
    sectors = kernel[0x1F1] or 4
    offset, length = struct.unpack_from("<II", kernel, 0x248)
    payload = kernel[(sectors + 1) * 512 + offset :][:length]
    for magic, unpack in UNPACKERS:
        if payload.startswith(magic):
            break
    else:
        sys.exit(f"{source}: unknown compression {payload[:8].hex()}")
    elf = unpack(payload)
    if not elf.startswith(b"\x7fELF"):
        sys.exit(f"{source}: what was unpacked is not an ELF file")
    with open(target, "wb") as file:
        file.write(elf)


if __name__ == "__main__":
    main()
