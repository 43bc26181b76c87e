#!/usr/bin/env python3
"""debian.py TRAPEZE CASE [REBOOTS] - Debian from power-on to its login prompt, and off again

The disk is what "trapeze image build debian" makes; tools/guest.sh debian keeps one in the cache. Firmware starts
GRUB, GRUB the kernel. Somebody logs in on the serial console, looks at disk and network, installs nothing, reboots
as often as the case says, and switches off. The disk stays as it is (snapshot=on). CASES has the options; "-interpreter"
behind one is the other engine. "cloud-init" logs in over SSH instead, with a key that cloud-init was given. Skipped (status 77) without the disk.
"""
import os
import re
import subprocess
import sys
import tempfile
import time

import boot

# Options, what the firmware prints, how the guest sees the disk, and what Linux calls its third partition.
CASES = {
    "bios": ([], "SeaBIOS", "virtio", "vda3"),
    "bios-smp2": (["--cpus", "2"], "SeaBIOS", "virtio", "vda3"),
    "bios-ahci": (["--cpus", "2"], "SeaBIOS", "ahci", "sda3"),
    "bios-ide": ([], "SeaBIOS", "ide", "sda3"),
    "bios-nvme": (["--cpus", "2"], "SeaBIOS", "nvme", "nvme0n1p3"),
    "bios-scsi": (["--cpus", "2"], "SeaBIOS", "scsi", "sda3"),
    "uefi": (["--firmware", "uefi"], "BdsDxe: starting", "virtio", "vda3"),
    "uefi-ahci": (["--firmware", "uefi"], "BdsDxe: starting", "ahci", "sda3"),
    "uefi-ide": (["--firmware", "uefi"], "BdsDxe: starting", "ide", "sda3"),
    "uefi-nvme": (["--firmware", "uefi"], "BdsDxe: starting", "nvme", "nvme0n1p3"),
    "uefi-scsi": (["--firmware", "uefi"], "BdsDxe: starting", "scsi", "sda3"),
    "reboot": (["--cpus", "2"], "SeaBIOS", "virtio", "vda3"),
    "reboot-uefi": (["--firmware", "uefi"], "BdsDxe: starting", "virtio", "vda3"),
}
DISK = os.path.join(boot.CACHE, "debian", "disk.qcow2")
PASSWORD = "trapeze"
LOGIN = (
    ("login: ", "root"),
    ("Password: ", PASSWORD),
    (r"root@debian:~# ", "PS1='rea''dy> '"),
)
SETTINGS = "cat /etc/initramfs-tools/initramfs.conf /proc/cmdline"
LOOK = (
    # The kernel is the package's, with an initrd for any machine, and finds its root by UUID.
    (r"ready> ", "cd /; grep vmlinuz /var/lib/dpkg/info/linux-image-$(uname -r).md5sums | md5sum -c; " + SETTINGS),
    (r"boot/vmlinuz-[\d.-]+-amd64: OK\s[^>]*MODULES=most\s[^>]*root=UUID=", None),
    (r"ready> ", "findmnt -no SOURCE,FSTYPE /"),
    (r"/dev/PARTITION\s+ext4[^>]*ready> ", "/lib/systemd/systemd-networkd-wait-online --timeout=60; ip -4 -o address"),
    (r"inet 10\.0\.2\.15/24[^>]*ready> ", "dmesg | grep -c 'BAR.*: assigned'"),
    # Linux leaves BARs where firmware has put them.
    (r"\r0\r[^>]*ready> ", "dd if=/dev/urandom of=/test bs=1M count=8 status=none; sync; sha256sum </test"),
    (r"[0-9a-f]{64} ", None),
)
REBOOTS = {"reboot": 2, "reboot-uefi": 1}
LIMIT_S = 600


def cloud_init(trapeze, folder):
    """A name, a key and a command by cloud-init; in by SSH as its user, who may switch off."""
    key, user_data = os.path.join(folder, "key"), os.path.join(folder, "user-data")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    with open(user_data, "w", encoding="ascii") as file:
        file.write("#cloud-config\nruncmd:\n - echo seed $(hostname) do''ne >/dev/ttyS0\n")
    deadline = time.monotonic() + LIMIT_S
    command = [trapeze, "run", "-m", "1G", "--snapshot", "--name", "web1", "--cloud-init", user_data, "--ssh-key"]
    console = boot.Console([*command, f"{key}.pub", DISK])
    if not console.wait_for(r"ssh -p (\d+) USER@127\.0\.0\.1", deadline):
        boot.fail(console, "no port leads to the guest's SSH server")
    port = re.search(r"ssh -p (\d+)", console.text).group(1)
    if not console.wait_for(r"seed web1 done", deadline):
        boot.fail(console, "cloud-init did not run its command")
    ssh = ["ssh", "-p", port, "-i", key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    done = subprocess.run(
        [*ssh, "debian@127.0.0.1", "hostname; sudo systemctl poweroff"], capture_output=True, text=True, timeout=120, check=False
    )
    if done.stdout.split() != ["web1"]:
        boot.fail(console, f"ssh gave {done.stdout!r} and {done.stderr!r}")
    if not console.wait_for(boot.OFF, deadline) or console.finish(deadline) != 0:
        boot.fail(console, "it did not switch off")
    boot.check_console(console)
    return 0


def main():
    trapeze, name = sys.argv[1:3]
    if not os.path.exists(DISK):
        print(f"debian: {DISK} is not there; run tools/guest.sh debian")
        return 77
    if name == "cloud-init":
        with tempfile.TemporaryDirectory() as folder:
            return cloud_init(trapeze, folder)
    options, firmware, interface, partition = CASES[name.removesuffix("-interpreter")]
    reboots = int(sys.argv[3]) if len(sys.argv) > 3 else REBOOTS.get(name, 0)
    limit_s = LIMIT_S * (1 + reboots // 5)
    if name.endswith("-interpreter"):
        options, limit_s = [*options, "--engine", "interpreter"], 3 * limit_s
    deadline = time.monotonic() + limit_s
    command = [trapeze, "run", "-m", "1G", "--net", "user", *options]
    command += ["--disk", f"{DISK},snapshot=on,if={interface}"]
    console = boot.Console(command, interactive=True)
    start = ((firmware, None), ("GRUB", None), *LOGIN)
    again = (("ready> ", "reboot"), ("reboot: Restarting system", None), *start)
    for pattern, answer in (*start, *LOOK, *again * reboots, ("ready> ", "poweroff"), (boot.OFF, None)):
        if not console.wait_for(pattern.replace("PARTITION", partition), deadline):
            boot.fail(console, f"'{pattern}' did not appear within {limit_s} s")
        if answer:
            console.write(answer + "\r")
    status = console.finish(deadline)
    if status != 0:
        boot.fail(console, f"the status is {status}")
    boot.check_console(console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
