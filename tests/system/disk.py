#!/usr/bin/env python3
"""disk.py TRAPEZE CASE - a guest makes a file system on a disk, the host checks it, the guest reads it

The guest is tools/guest.sh's cloud kernel with its virtio modules. The first boot makes a file system, fills it,
gives room back and switches off; e2fsck, debugfs and a checksum of the image look at what it left. The
second boot reads all of it, past its cache too. Some cases have a disk with errors that pause the machine: each pause is
answered by a resume. One has its disk on an NBD server that is killed again and again, and once stays away while the
machine is paused and resumed. Without the guest the test is skipped (status 77).
"""
import glob
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

from boot import BAD, CACHE, GUEST_BEGIN

CASES = {
    "disk": {"options": [], "mib": 16, "numbers": 200000, "files": 300},
    "disk-smp2": {"options": ["--cpus", "2"], "mib": 16, "numbers": 200000, "files": 300},
    "disk-mmio": {
        "options": ["--cpus", "2"],
        "mib": 16,
        "numbers": 200000,
        "files": 300,
        "disk": ",if=virtio-mmio",
    },
    "disk-legacy": {
        "options": ["--cpus", "2"],
        "mib": 16,
        "numbers": 200000,
        "files": 300,
        "disk": ",transitional=on",
        "append": " disk.legacy",
    },
    "disk-mptable": {
        "options": ["--cpus", "2", "--no-reboot"],
        "mib": 16,
        "numbers": 200000,
        "files": 300,
        "append": " acpi=off pci=nomsi",
        "guest": "generic",  # the cloud kernel knows no MP table
    },
    "disk-interpreter": {"options": ["--engine", "interpreter"], "mib": 4, "numbers": 5000, "files": 20},
    "disk-direct": {"options": ["--cpus", "2"], "mib": 16, "numbers": 200000, "files": 300, "disk": ",cache=none"},
    "disk-nbd": {"options": ["--cpus", "2"], "mib": 16, "numbers": 200000, "files": 300, "kills": 5},
    "disk-full": {
        "options": ["--cpus", "2"], "mib": 16, "numbers": 200000, "files": 300, "pauses": 1,
        "disk": ",werror=pause,rerror=pause,"
                  "fault=write:10:9:enospc+flush:2:2:enospc+zero:1:1:enospc+discard:1:1+read:20:3",
    },
}
LIMIT_S = 300
MODULES = [
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci",
    "drivers/virtio/virtio_mmio",
    "drivers/block/virtio_blk",
]
# What the cloud kernel has built in.
GENERIC_MODULES = ["lib/crc16", "crypto/crc32c_generic", "fs/mbcache", "fs/jbd2/jbd2", "fs/ext4/ext4"]

INIT = GUEST_BEGIN + """value() { sed -n "s/.*disk\\.$1=\\([a-z0-9]*\\).*/\\1/p" /proc/cmdline; }
write() {
    mke2fs -q /dev/vda && mount -t ext4 -o discard /dev/vda /mnt && cd /mnt || return
    seq "$(value numbers)" >numbers
    dd if=/dev/urandom of=random bs=64k count=16 2>/dev/null
    mkdir tree
    for n in $(seq "$(value files)"); do echo "file $n" >"tree/$n"; done
    sync
    rm tree/*7
    find . -type f ! -name sums -exec sha256sum {} + >/tmp/sums
    mv /tmp/sums sums
    fstrim -v .
    cd / && umount /mnt
}
look() {
    mount -t ext4 -o ro /dev/vda /mnt && cd /mnt && sha256sum -c sums >/tmp/log || cat /tmp/log
    echo "disk: $(wc -l <sums) files"
    cd / && umount /mnt
}
for module in /modules/*; do
    parameter=
    case $module in *virtio_pci.ko) grep -q disk.legacy /proc/cmdline && parameter=force_legacy=1 ;; esac
    insmod "$module" $parameter || echo "disk: no $module"
done
grep -q disk.legacy /proc/cmdline && echo "disk: device $(cat /sys/bus/pci/drivers/virtio-pci/*/device)" &&
    echo "disk: features $(cut -c 33 /sys/bus/virtio/devices/virtio0/features)"
echo "disk: serial $(cat /sys/block/vda/serial), queues $(ls /sys/block/vda/mq | wc -l)"
"$(value phase)" && echo "disk: $(value phase) is done"
echo "disk: sum $(dd if=/dev/vda bs=1M iflag=direct 2>/dev/null | sha256sum | cut -d ' ' -f 1)"
echo "disk: processors $(nproc), $(grep -c 'IO-APIC.*virtio' /proc/interrupts) pins"
grep -q acpi=off /proc/cmdline && reboot -f
poweroff -f
"""


def fail(why, text=""):
    print(f"{text}\ndisk: {why}")
    sys.exit(1)


def make_overlay(folder, guest):
    """The modules and the script, as an archive behind the guest's own."""
    root = os.path.join(folder, "root")
    os.makedirs(os.path.join(root, "modules"))
    os.makedirs(os.path.join(root, "mnt"))
    names = MODULES + (GENERIC_MODULES if guest == "generic" else [])
    for place, name in enumerate(names):
        found = glob.glob(f"{CACHE}/{guest}/linux-image-*/lib/modules/*/kernel/{name}.ko")
        if not found:
            print(f"disk: {name}.ko is not there; run tools/guests.sh")
            sys.exit(77)
        shutil.copy(found[0], os.path.join(root, "modules", f"{place:02}-{os.path.basename(name)}.ko"))
    with open(os.path.join(root, "disk-init"), "w") as script:
        script.write(INIT)
    os.chmod(os.path.join(root, "disk-init"), 0o755)
    overlay = os.path.join(folder, "overlay.cpio")
    with open(overlay, "wb") as out:
        subprocess.run(
            "find . | cpio --quiet -o -H newc -R 0:0", shell=True, cwd=root, stdout=out, check=True
        )
    return overlay


class Server:
    """qemu-nbd of an image, killed and started again while the guest works."""

    def __init__(self, trapeze, image, kills):
        self.trapeze, self.image, self.kills = trapeze, image, kills
        self.socket = image + ".nbd"
        self.uri = f"nbd+unix:///?socket={self.socket}"
        self.killed = 0
        self.start()

    def start(self):
        if os.path.exists(self.socket):
            os.unlink(self.socket)
        self.process = subprocess.Popen(
            ["qemu-nbd", "-t", "-f", "raw", "-e", "4", "--discard=unmap", "-k", self.socket, self.image]
        )
        while not os.path.exists(self.socket):
            time.sleep(0.02)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.killed += 1

    def monitor(self, monitor, *words):
        command = [self.trapeze, "monitor", monitor, *words, "--json"]
        return json.loads(subprocess.run(command, capture_output=True, check=True).stdout or "{}")

    def trouble(self, child, monitor):
        """Beside the guest, until it ends."""
        while child.poll() is None:
            time.sleep(0.3 if self.killed < self.kills else 2)
            if self.killed >= self.kills or child.poll() is not None:
                continue
            self.kill()
            time.sleep(0.5)
            if self.killed == 2 and child.poll() is None:
                self.monitor(monitor, "pause")  # with requests that no server answers
                assert self.monitor(monitor, "status")["state"] == "paused"
                self.monitor(monitor, "resume")
            self.start()

    def end(self):
        self.process.terminate()
        self.process.wait()


def resume_always(child, path, pauses):
    """Wait for the events of a machine that errors pause, look at its status, resume it."""
    client = socket.socket(socket.AF_UNIX)
    while pauses and child.poll() is None and client.connect_ex(path):
        time.sleep(0.02)
    if not pauses or child.poll() is not None:
        return
    lines = client.makefile("rw")

    def ask(**request):
        print(json.dumps(request), file=lines, flush=True)

    ask(command="events", on=True)
    ask(command="status")
    for answer in map(json.loads, lines):
        if answer.get("state") == "paused" and "event" in answer:
            ask(command="status", id=answer["reason"])
        elif answer.get("id") and answer["pause_reason"] == answer["id"]:
            ask(command="resume")


def boot(trapeze, row, overlay, disk, phase):
    """What the guest prints, which ends by itself."""
    guest = os.path.join(CACHE, row.get("guest", "cloud"))
    append = f"console=ttyS0 quiet rdinit=/disk-init disk.phase={phase}"
    append += f" disk.numbers={row['numbers']} disk.files={row['files']}"
    append += row.get("append", "")
    command = [trapeze, "run", "--kernel", f"{guest}/vmlinuz", "--append", append]
    command += ["--initrd", f"{guest}/initramfs.cpio,{overlay}", "-m", "256M"]
    server = Server(trapeze, disk, row["kills"]) if row.get("kills") else None
    file = server.uri if server else disk
    command += ["--disk", f"{file.replace(',', ',,')},serial=disk-7" + row.get("disk", "")] + row["options"]
    command += ["--monitor", disk + ".sock"]
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    resumer = threading.Thread(target=resume_always, args=(child, disk + ".sock", row.get("pauses", 0)))
    resumer.start()
    if server:
        server.trouble(child, disk + ".sock")
        server.end()
    text = child.communicate(timeout=LIMIT_S)[0].decode("utf-8", "replace").replace("\r", "")
    resumer.join()
    bad = BAD.search(text) or re.search(r"I/O error|EXT4-fs error|disk: no ", text)
    if server and server.killed < (1 if phase == "look" else 2):  # as many as the guest's time allows
        fail(f"the server was killed {server.killed} times", text)
    if child.returncode or bad:
        fail(f"status {child.returncode}, {bad and bad.group(0)}", text)
    pauses = len(re.findall(r"trapeze: error: disk .*; the machine is paused", text))
    if pauses < row.get("pauses", 0):
        fail(f"it was paused {pauses} times", text)
    if f"disk: {phase} is done" not in text or "serial disk-7" not in text:
        fail(f"'{phase}' did not end well", text)
    with open(disk, "rb") as image:
        digest = hashlib.file_digest(image, "sha256").hexdigest()
    if f"disk: sum {digest}" not in text:
        fail(f"the guest read another disk than {digest}", text)
    return text


def check_image(disk, row):
    check = subprocess.run(["e2fsck", "-fn", disk], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if check.returncode:
        fail(f"e2fsck: {check.returncode}", check.stdout.decode())
    numbers = subprocess.run(["debugfs", "-R", "cat /numbers", disk], capture_output=True).stdout
    if numbers != "".join(f"{n}\n" for n in range(1, row["numbers"] + 1)).encode():
        fail("what debugfs reads is not what the guest wrote")


def main():
    trapeze, name = sys.argv[1:]
    row = CASES[name]
    guest = row.get("guest", "cloud")
    if not os.path.exists(f"{CACHE}/{guest}/vmlinuz") or not shutil.which("debugfs"):
        print("disk: the guest or debugfs is not there; run tools/guests.sh")
        sys.exit(77)
    if row.get("kills") and not shutil.which("qemu-nbd"):
        print("disk: qemu-nbd is not installed")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        overlay = make_overlay(folder, guest)
        disk = os.path.join(folder, "disk.img" if row.get("kills") else "a=disk,if=none.img")  # an unpleasant name
        with open(disk, "wb") as image:
            image.truncate(row["mib"] << 20)
        text = boot(trapeze, row, overlay, disk, "write")
        check_image(disk, row)
        used = os.stat(disk).st_blocks * 512
        if used > row["mib"] << 19:
            fail(f"{used} bytes of a sparse image are used", text)
        text = boot(trapeze, row, overlay, disk, "look")
    if "acpi=off" in row.get("append", "") and "processors 2, 1 pins" not in text:
        fail("expected two processors and a pin of the I/O APIC", text)
    if "legacy" in row.get("append", "") and ("device 0x1001" not in text or "features 0" not in text):
        fail("an old driver was not at work", text)
    queues = 2 if "2" in row["options"] else 1
    files = row["files"] - sum(str(n).endswith("7") for n in range(1, row["files"] + 1)) + 2
    if f"disk: {files} files" not in text or f"queues {queues}" not in text:
        fail(f"expected {files} files, {queues} queues", text)


if __name__ == "__main__":
    main()
