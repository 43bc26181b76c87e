#!/usr/bin/env python3
"""power.py TRAPEZE CUTS - power cuts while a guest writes: nothing that it was told to be safe is lost

The disk is a qcow2 overlay over an image with an ext4 file system. A guest (the kernel and the modules of disk.py)
appends records to files, syncs, and then says its number on the serial console. At a random moment the VMM is
killed. Then trapeze image check must find no corruption, e2fsck after it has played the journal back no
error, and all records that were said to be safe must be there. The next round goes on with the same disk.
Without the guest the test is skipped (status 77).
"""
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import disk
from boot import CACHE

LIMIT_S = 120
INIT = """#!/bin/busybox sh
PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
for module in /modules/*; do insmod "$module"; done
modprobe -q ext4
mount -t ext4 /dev/vda /mnt || echo "power: no file system"
round=$(sed -n "s/.*power\\.round=\\([0-9]*\\).*/\\1/p" /proc/cmdline)
number=0
while true; do
    number=$((number + 1))
    echo "record $round $number $(head -c 3000 /dev/urandom | md5sum)" >"/mnt/$round-$number"
    dd if=/dev/urandom of=/mnt/churn bs=4k count=$((number % 50)) 2>/dev/null
    sync
    echo "safe $round $number"
done
"""


def fail(why, text=""):
    print(f"{text}\npower: {why}")
    sys.exit(1)


def run(*words, statuses=(0,)):
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode not in statuses:
        fail(f"{words}: status {done.returncode}", done.stdout + done.stderr)
    return done.stdout


def write_until_cut(trapeze, overlay, image, number, records, delay_s):
    """Boot; kill the VMM delay_s after the guest has said the last of records to be safe. How many it said."""
    guest = os.path.join(CACHE, "cloud")
    append = f"console=ttyS0 quiet rdinit=/disk-init power.round={number}"
    command = [trapeze, "run", "--kernel", f"{guest}/vmlinuz", "--append", append, "-m", "256M"]
    command += ["--initrd", f"{guest}/initramfs.cpio,{overlay}", "--disk", image]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             text=True, errors="replace")
    watchdog = threading.Timer(LIMIT_S, child.kill)
    watchdog.start()
    text, safe = "", 0
    for line in child.stdout:
        text += line
        found = re.search(rf"safe {number} (\d+)\s*$", line)
        safe = int(found[1]) if found else safe
        if safe == records:
            time.sleep(delay_s)
            child.kill()
            break
    text += child.stdout.read()
    watchdog.cancel()
    child.wait()
    last = re.findall(rf"safe {number} (\d+)\r?\n", text)
    if safe != records or "no file system" in text:
        fail(f"the guest said {safe} of {records} records", text)
    return int(last[-1])


def check(trapeze, image, folder, safe):
    """The image, its file system, and the records of all rounds."""
    raw = os.path.join(folder, "disk.raw")
    run(trapeze, "image", "check", image)
    run(trapeze, "image", "convert", "--force", "-O", "raw", image, raw)
    run("e2fsck", "-fy", "-E", "journal_only", raw, statuses=(0, 1))  # what a mount would do
    run("e2fsck", "-fn", raw)
    files = os.path.join(folder, "files")
    shutil.rmtree(files, ignore_errors=True)
    os.mkdir(files)
    run("debugfs", "-R", f"rdump / {files}", raw)
    for number, count in safe.items():
        for record in range(1, count + 1):
            path = os.path.join(files, f"{number}-{record}")
            content = open(path).read() if os.path.exists(path) else "nothing"
            if not re.fullmatch(rf"record {number} {record} [0-9a-f]{{32}}  -\n", content):
                fail(f"record {record} of round {number} was safe and is: {content}")


def main():
    trapeze, cuts = sys.argv[1], int(sys.argv[2])
    if not os.path.exists(f"{CACHE}/cloud/vmlinuz") or not shutil.which("debugfs"):
        print("power: the guest or debugfs is not there; run tools/guests.sh")
        sys.exit(77)
    dice = random.Random(cuts)
    with tempfile.TemporaryDirectory() as folder:
        disk.INIT = INIT
        overlay = disk.make_overlay(folder, "cloud")
        base, image = os.path.join(folder, "base.raw"), os.path.join(folder, "top.qcow2")
        with open(base, "wb") as file:
            file.truncate(64 << 20)
        run("mke2fs", "-q", "-t", "ext4", base)
        run(trapeze, "image", "create", "-b", "base.raw", "-F", "raw", image)
        safe = {}
        for number in range(1, cuts + 1):
            safe[number] = write_until_cut(trapeze, overlay, image, number, dice.randrange(5, 60), dice.uniform(0, 0.1))
            check(trapeze, image, folder, safe)
        print(f"power: {cuts} cuts, {sum(safe.values())} records")


main()
