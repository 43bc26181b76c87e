#!/usr/bin/env python3
"""share.py TRAPEZE CASE - a guest works in a folder of the host

The guest is tools/guest.sh's generic kernel (Debian's cloud kernel has no 9P) with the modules of its package. It
reads what the host has put there, changes modes, moves, links and removes files, writes a large one, and tries to
leave the folder; then the host looks at what is there. A second share is read only. Skipped (status 77) without the
guest.
"""
import glob
import hashlib
import os
import stat
import sys
import tempfile
import time

import boot
import net

CASES = {
    "share": [],
    "share-smp2": ["--cpus", "2"],
    "share-interpreter": ["--engine", "interpreter"],
}
SIZE = 24 << 20
FILES = 100
MODULES = (
    "drivers/virtio/virtio_ring drivers/virtio/virtio drivers/virtio/virtio_pci_modern_dev"
    " drivers/virtio/virtio_pci_legacy_dev drivers/virtio/virtio_pci fs/netfs/netfs fs/fscache/fscache net/9p/9pnet"
    " net/9p/9pnet_virtio fs/9p/9p"
)
INIT = boot.GUEST_BEGIN + """mount -t tmpfs tmp /tmp
for module in MODULES; do insmod /modules/$module.ko || echo "share: no $module"; done
mkdir -p /mnt /ro
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 things /mnt && echo "share: mounted"
mount -t 9p -o trans=virtio,version=9p2000.L share2 /ro && echo "share: mounted read only"
cd /mnt
check() { "$@" || echo "share: wrong: $*"; }
refuse() { "$@" 2>/tmp/error && echo "share: wrongly done: $*"; }
echo "share: large $(sha256sum <large)"
check [ "$(ls many | wc -l)" = FILES ]
check [ "$(cat many/* | sort -n | tail -n 1)" = FILES ]
check cp large copy
echo "share: copy $(sha256sum <copy)"
check mkdir -p a/b/c
check mv many/7 a/b/seven
check ln a/b/seven a/hard
check ln -s b/seven a/soft
check [ "$(cat a/soft a/hard)" = "7
7" ]
check [ "$(stat -c %h a/hard)" = 2 ]
check chmod 4750 a/hard
check chown 12:34 a/hard
check touch -d "2001-02-03 04:05:06" a/b/c
check mkfifo pipe
echo through >pipe & check [ "$(cat pipe)" = through ]
check rm many/8
check rmdir a/b/c
refuse rmdir a
refuse mknod null c 1 3
check truncate -s 12345 short
(exec 3>open; rm open; echo gone >&3)
echo "share: out $(cat out)"
check ln -s /etc/passwd mine
check [ "$(cat up/marker)" = guest ]
check [ ! -e up/secret ]
check [ "$(cat /ro/file)" = fixed ]
refuse touch /ro/new
refuse rm /ro/file
refuse sh -c "echo x >/ro/file"
tar cf /tmp/many.tar many && mkdir unpacked && check tar xf /tmp/many.tar -C unpacked
check diff -r many unpacked/many
sync
cd /
check umount /mnt
echo "share: done"
poweroff -f
"""


def make_initramfs(target):
    """The modules, the script, and what the guest has where links lead."""
    folder = glob.glob(os.path.join(boot.CACHE, "generic", "linux-image-*", "lib", "modules", "*", "kernel"))
    if not folder:
        print("share: the generic kernel's modules are not there; run tools/guest.sh generic")
        sys.exit(77)
    init = INIT.replace("MODULES", " ".join(os.path.basename(m) for m in MODULES.split()))
    with open(target, "wb") as out:
        out.write(net.entry("share-init", 0o100755, init.replace("FILES", str(FILES)).encode()))
        out.write(net.entry("modules", 0o40755, b""))
        out.write(net.entry("marker", 0o100644, b"guest\n"))
        for module in MODULES.split():
            with open(os.path.join(folder[0], module + ".ko"), "rb") as file:
                out.write(net.entry(f"modules/{os.path.basename(module)}.ko", 0o100644, file.read()))
        out.write(net.entry("TRAILER!!!", 0, b""))


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def check_folder(console, things, large):
    """What the guest has left."""
    def check(condition, what):
        if not condition:
            boot.fail(console, f"on the host: {what}")

    check(read(f"{things}/copy") == large, "the copy is another file")
    check(read(f"{things}/a/b/seven") == b"7\n" and os.path.samefile(f"{things}/a/b/seven", f"{things}/a/hard"),
          "a moved and linked file")
    check(os.readlink(f"{things}/a/soft") == "b/seven", "a symbolic link")
    mode = os.stat(f"{things}/a/hard")
    check(stat.S_IMODE(mode.st_mode) == 0o750, f"mode {mode.st_mode:o}: no rights of users on the host")
    check(mode.st_uid == os.geteuid(), "an owner")
    check(stat.S_ISFIFO(os.stat(f"{things}/pipe").st_mode), "a pipe")
    check(not os.path.lexists(f"{things}/null"), "a device")
    check(os.stat(f"{things}/short").st_size == 12345, "a size")
    check(not os.path.exists(f"{things}/open") and not os.path.exists(f"{things}/a/b/c"), "what was removed is there")
    check(sorted(os.listdir(f"{things}/many")) == sorted(os.listdir(f"{things}/unpacked/many")), "an archive")
    check(os.path.getmtime(f"{things}/short") > time.time() - 3600, "a time")


def main():
    trapeze, name = sys.argv[1:]
    deadline = time.monotonic() + 600
    large = os.urandom(SIZE)
    digest = hashlib.sha256(large).hexdigest()
    with tempfile.TemporaryDirectory() as folder:
        things, fixed = f"{folder}/the things, all", f"{folder}/fixed"
        os.makedirs(f"{things}/many")
        os.mkdir(fixed)
        write(f"{things}/large", large)
        write(f"{folder}/secret", b"host\n")
        write(f"{fixed}/file", b"fixed\n")
        for n in range(1, FILES + 1):
            write(f"{things}/many/{n}", b"%d\n" % n)
        os.symlink("../marker", f"{things}/out")  # the guest's own, beside /mnt
        os.symlink("..", f"{things}/up")
        make_initramfs(f"{folder}/share.cpio")
        row = boot.case("generic", "", [], append="quiet rdinit=/share-init")
        command = boot.command_for(trapeze, row)
        command[command.index("--initrd") + 1] += f",{folder}/share.cpio"
        command += ["--share", things.replace(",", ",,") + ",tag=things", "--share", f"{fixed},readonly=on"]
        console = boot.Console(command + CASES[name])
        patterns = ("share: mounted", "share: mounted read only", f"share: large {digest}", f"share: copy {digest}")
        for pattern in (*patterns, "share: out guest", "share: done"):
            if not console.wait_for(pattern, deadline):
                boot.fail(console, f"'{pattern}' did not appear")
        if console.finish(deadline) != 0:
            boot.fail(console, "it does not end")
        if "share: wrong" in console.text or "share: no" in console.text:
            boot.fail(console, "something is wrong")
        boot.check_console(console)
        check_folder(console, things, large)
        if os.listdir(fixed) != ["file"] or read(f"{fixed}/file") != b"fixed\n":
            boot.fail(console, "the read-only share has changed")


if __name__ == "__main__":
    main()
