#!/usr/bin/env python3
"""floppy_kernel.py TRAPEZE - Linux's floppy driver reads, writes and formats, and sees that a disk is changed

The generic kernel and its own modules, two drives. Skipped (status 77) without the generic kernel.
"""
import hashlib
import os
import subprocess
import sys
import tempfile

import boot
import modules

MODULES = ["floppy"]
SIZE = 1440 << 10
# struct floppy_struct and format_descr of linux/fd.h by ioctl: FDFMTBEG, FDFMTTRK of track 5, side 1, FDFMTEND.
FORMAT = r"""#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <linux/fd.h>
int main(void)
{
    struct format_descr track = {.device = 0, .head = 1, .track = 5};
    int fd = open("/dev/fd0", O_RDWR | O_NDELAY | O_EXCL);
    int begin = ioctl(fd, FDFMTBEG), one = ioctl(fd, FDFMTTRK, &track), end = ioctl(fd, FDFMTEND);
    printf("formatted %d %d %d\n", begin, one, end);
    return 0;
}
"""


def pattern(seed, size=SIZE):
    return b"".join(b"%08x%08x" % (seed, n) for n in range(size // 16))


def build_program(folder):
    """The tool that formats; None without a compiler that links statically."""
    source, program = os.path.join(folder, "format.c"), os.path.join(folder, "format")
    with open(source, "w", encoding="ascii") as file:
        file.write(FORMAT)
    built = subprocess.run(["gcc", "-static", "-o", program, source], stderr=subprocess.DEVNULL)
    return program if built.returncode == 0 else None


def main():
    if not modules.can_run("floppy", MODULES):
        return 77
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("a.img", "b.img", "c.img")]
        for seed, path in enumerate(paths):
            with open(path, "wb") as file:
                file.write(pattern(seed, SIZE if seed != 1 else 720 << 10))
        program, files = build_program(folder), []
        if program:
            with open(program, "rb") as file:
                files = [("format", 0o100755, file.read())]
        options = ["--floppy", paths[0], "--floppy", f"{paths[1]},readonly=on"]
        machine = modules.Machine(sys.argv[1], folder, MODULES, options, files)
        machine.expect("ready> ")
        machine.shell("md5sum </dev/fd0; md5sum </dev/fd1", r"[0-9a-f]{32}")
        sums = [hashlib.md5(pattern(0)).hexdigest(), hashlib.md5(pattern(1, 720 << 10)).hexdigest()]
        for wanted in sums:
            if wanted not in machine.console.text:
                boot.fail(machine.console, f"no disk has the sum {wanted}")
        machine.shell("dd if=/dev/zero of=/dev/fd1 bs=512 count=1 || echo pro'tected'", "protected")
        machine.shell("seq 20000 | dd of=/dev/fd0 bs=4096 seek=100 conv=notrunc && sync && echo writ'ten'", "written")
        if program:
            machine.shell("/format", "formatted 0 0 0")
        machine.client("media", "insert", machine.socket, paths[2], "floppy-drive")
        machine.shell("md5sum </dev/fd0", hashlib.md5(pattern(2)).hexdigest())
        machine.client("media", "eject", machine.socket, "floppy-drive")
        machine.shell("md5sum </dev/fd0 || echo no-o'ne'", "no-one")
        with open(paths[0], "rb") as file:
            image = file.read()
        text = "".join(f"{n}\n" for n in range(1, 20001)).encode()
        if image[409600 : 409600 + len(text)] != text:
            boot.fail(machine.console, "what the guest wrote is not on the disk")
        track = 11 * 18 * 512
        if program and image[track : track + 18 * 512] != b"\xf6" * (18 * 512):
            boot.fail(machine.console, "the track that was formatted is not empty")
        machine.power_off()
    return 0


if __name__ == "__main__":
    sys.exit(main())
