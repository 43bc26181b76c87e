#!/usr/bin/env python3
"""power.py TRAPEZE CUTS [debian] - power cuts while a guest writes: nothing that it was told to be safe is lost

The disk is a qcow2 overlay over an image with an ext4 file system. A guest (the kernel and the modules of disk.py)
appends records to files, syncs, and then says its number on the serial console. At a random moment the VMM is
killed. Then trapeze image check must find no corruption, e2fsck after it has played the journal back no
error, and all records that were said to be safe must be there. The next round goes on with the same disk.
With "debian" it is Debian's own disk that it starts from by firmware, and trees of files come and go meanwhile.
Without the guest the test is skipped (status 77).
"""
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

import boot
import debian
import disk
from boot import CACHE, Console

LIMIT_S = 300
INIT = boot.GUEST_BEGIN + """for module in /modules/*; do insmod "$module"; done
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

WORK = (
    "mkdir -p records; (while cp -a /usr/lib/python3 copy; do rm -r copy; done) & n=0; while n=$((n + 1)); do"
    ' echo "record {0} $n $(head -c 3000 /dev/urandom | md5sum)" >records/{0}-$n; sync; echo "safe {0} $n"; done'
)


def fail(why, text=""):
    print(f"{text}\npower: {why}")
    sys.exit(1)


def run(*words, statuses=(0,)):
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode not in statuses:
        fail(f"{words}: status {done.returncode}", done.stdout + done.stderr)
    return done.stdout


def start_kernel(trapeze, overlay, image, number):
    """A guest with INIT, whose records are in the root of the file system that is the disk."""
    guest = os.path.join(CACHE, "cloud")
    append = f"console=ttyS0 quiet rdinit=/disk-init power.round={number}"
    command = [trapeze, "run", "--kernel", f"{guest}/vmlinuz", "--append", append, "-m", "256M"]
    return Console(command + ["--initrd", f"{guest}/initramfs.cpio,{overlay}", "--disk", image])


def start_debian(trapeze, image, number):
    """Debian from its own disk, with somebody who types WORK."""
    console = Console([trapeze, "run", "-m", "1G", "--net", "none", "--disk", image], interactive=True)
    for pattern, answer in (*debian.LOGIN, ("ready> ", WORK.format(number))):
        if not console.wait_for(pattern, time.monotonic() + LIMIT_S):
            boot.fail(console, f"'{pattern}' did not appear")
        console.write(answer + "\r")
    return console


def write_until_cut(console, number, records, delay_s):
    """Kill the VMM delay_s after the guest has said the last of records to be safe. How many it said."""
    done = console.wait_for(rf"safe {number} {records}\s", time.monotonic() + LIMIT_S)
    time.sleep(delay_s)
    console.child.kill()
    console.finish(time.monotonic() + LIMIT_S)
    if not done or "no file system" in console.text:
        fail(f"the guest did not say that {records} records are safe", console.text)
    return int(re.findall(rf"safe {number} (\d+)\s", console.text)[-1])


def check(trapeze, image, folder, records, safe):
    """The image, the last of its file systems, and the records of all rounds, in a folder of that."""
    raw, system, files = (os.path.join(folder, name) for name in ("disk.raw", "system.raw", "files"))
    run(trapeze, "image", "check", image)
    run(trapeze, "image", "convert", "--force", "-O", "raw", image, raw)
    table = subprocess.run(["sfdisk", "-J", raw], capture_output=True, check=False).stdout
    mib = json.loads(table)["partitiontable"]["partitions"][-1]["start"] >> 11 if table else 0
    run("dd", f"if={raw}", f"of={system}", f"skip={mib}", "bs=1M", "conv=sparse")
    run("e2fsck", "-p", system, statuses=(0, 1))  # what a boot does
    run("e2fsck", "-fn", system)
    shutil.rmtree(files, ignore_errors=True)
    os.mkdir(files)
    run("debugfs", "-R", f"rdump {records} {files}", system)
    for number, count in safe.items():
        for record in range(1, count + 1):
            path = os.path.join(files, os.path.basename(records), f"{number}-{record}")
            content = open(path).read() if os.path.exists(path) else "nothing"
            if not re.fullmatch(rf"record {number} {record} [0-9a-f]{{32}}  -\n", content):
                fail(f"record {record} of round {number} was safe and is: {content}")


def main():
    trapeze, cuts, system = sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["debian"]
    if not os.path.exists(debian.DISK if system else f"{CACHE}/cloud/vmlinuz") or not shutil.which("debugfs"):
        print("power: the guest or debugfs is not there; run tools/guests.sh")
        sys.exit(77)
    dice = random.Random(cuts)
    with tempfile.TemporaryDirectory() as folder:
        image = os.path.join(folder, "top.qcow2")
        if system:
            run(trapeze, "image", "create", "-b", debian.DISK, "-F", "qcow2", image)
        else:
            disk.INIT = INIT
            overlay = disk.make_overlay(folder, "cloud")
            base = os.path.join(folder, "base.raw")
            with open(base, "wb") as file:
                file.truncate(64 << 20)
            run("mke2fs", "-q", "-t", "ext4", base)
            run(trapeze, "image", "create", "-b", "base.raw", "-F", "raw", image)
        safe = {}
        for number in range(1, cuts + 1):
            guest = start_debian(trapeze, image, number) if system else start_kernel(trapeze, overlay, image, number)
            safe[number] = write_until_cut(guest, number, dice.randrange(5, 60), dice.uniform(0, 0.1))
            check(trapeze, image, folder, "/root/records" if system else "/", safe)
            print(f"power: cut {number}, {safe[number]} records", flush=True)
        print(f"power: {cuts} cuts, {sum(safe.values())} records")


main()
