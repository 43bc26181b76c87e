#!/usr/bin/env python3
"""debian.py TRAPEZE CASE [REBOOTS] - Debian from power-on to its login prompt, and off again

The disk is what "trapeze image build debian" makes; tools/guest.sh debian keeps one in the cache. Firmware starts
GRUB, GRUB the kernel. Somebody logs in on the serial console, looks at disk and network, installs nothing, reboots
as often as the case says, and switches off. The disk stays as it is (snapshot=on). CASES has the options; "-interpreter"
behind one is the other engine. "cloud-init" logs in over SSH instead, with a key that cloud-init was given, installs a
package from a server on the host, and is still there after a reboot. Skipped (status 77) without the disk.
"""
import hashlib
import http.server
import os
import re
import subprocess
import sys
import tempfile
import threading
import time

import boot

# Options, what the firmware prints, how the guest sees the disk, and what Linux calls its third partition.
CASES = {
    "bios": ([], "SeaBIOS", "virtio", "vda3"),
    "bios-ahci": (["--cpus", "2"], "SeaBIOS", "ahci", "sda3"),
    "bios-ide": ([], "SeaBIOS", "ide", "sda3"),
    "bios-nvme": (["--cpus", "2"], "SeaBIOS", "nvme", "nvme0n1p3"),
    "bios-scsi": (["--cpus", "2"], "SeaBIOS", "scsi", "sda3"),
    "uefi": (["--firmware", "uefi"], "BdsDxe: starting", "virtio", "vda3"),
    "uefi-ahci": (["--firmware", "uefi"], "BdsDxe: starting", "ahci", "sda3"),
    "uefi-ide": (["--firmware", "uefi"], "BdsDxe: starting", "ide", "sda3"),
    "uefi-nvme": (["--firmware", "uefi"], "BdsDxe: starting", "nvme", "nvme0n1p3"),
    "uefi-scsi": (["--firmware", "uefi"], "BdsDxe: starting", "scsi", "sda3"),
    "reboot": (["--cpus", "2"], "SeaBIOS", "ahci", "sda3"),
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
REBOOTS = {"reboot": 1, "reboot-uefi": 1}
LIMIT_S = 600


def make_archive(folder):
    """A Debian archive with one small package, that has a program and a number of bytes."""
    root, payload = os.path.join(folder, "package"), os.urandom(1 << 20)
    control = "Package: little\nVersion: 1.0\nArchitecture: all\nMaintainer: Nobody <nobody@localhost>\nDescription: little\n"
    for name, mode, content in (
        ("DEBIAN/control", 0o644, control.encode()),
        ("DEBIAN/postinst", 0o755, b"#!/bin/sh\nsha256sum /usr/share/little/data >/usr/share/little/sum\n"),
        ("usr/bin/little", 0o755, b"#!/bin/sh\ncut -c -64 /usr/share/little/sum\n"),
        ("usr/share/little/data", 0o644, payload),
    ):
        os.makedirs(os.path.dirname(os.path.join(root, name)), exist_ok=True)
        with open(os.path.join(root, name), "wb") as file:
            file.write(content)
        os.chmod(os.path.join(root, name), mode)
    os.mkdir(os.path.join(folder, "archive"))
    package = os.path.join(folder, "archive", "little.deb")
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", root, package], check=True, stdout=subprocess.DEVNULL)
    with open(package, "rb") as file:
        data = file.read()
    with open(os.path.join(folder, "archive", "Packages"), "w", encoding="ascii") as file:
        file.write(f"{control}Filename: ./little.deb\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n")
    return os.path.join(folder, "archive"), hashlib.sha256(payload).hexdigest()


def serve(folder):
    """A web server of a folder; its port."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=folder)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def cloud_init(trapeze, folder):
    """A name, a key and a command by cloud-init; in by SSH as its user, who may install, restart and switch off."""
    key, user_data = os.path.join(folder, "key"), os.path.join(folder, "user-data")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    with open(user_data, "w", encoding="ascii") as file:
        file.write("#cloud-config\nruncmd:\n - echo seed $(hostname) do''ne >/dev/ttyS0\n")
    archive, digest = make_archive(folder)
    deadline = time.monotonic() + LIMIT_S
    command = [trapeze, "run", "-m", "1G", "--snapshot", "--name", "web1", "--cloud-init", user_data, "--ssh-key"]
    console = boot.Console([*command, f"{key}.pub", DISK])

    def expect(pattern, why):
        if not console.wait_for(pattern, deadline):
            boot.fail(console, why)

    def ssh(script, *expected):
        """What somebody does who has logged in; the last words have to be these."""
        options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        command = ["ssh", "-p", port, "-i", key, *options, "debian@127.0.0.1", script]
        while True:
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
            if done.stdout or time.monotonic() > deadline:
                break
            time.sleep(0.5)  # its server is about to start
        if done.stdout.split()[-len(expected) :] != list(expected):
            boot.fail(console, f"ssh gave {done.stdout!r} and {done.stderr!r}")

    expect(r"ssh -p (\d+) USER@127\.0\.0\.1", "no port leads to the guest's SSH server")
    port = re.search(r"ssh -p (\d+)", console.text).group(1)
    expect(r"seed web1 done", "cloud-init did not run its command")
    source = f"deb [trusted=yes] http://10.0.2.2:{serve(archive)} ./"
    install = f"echo '{source}' | sudo tee /etc/apt/sources.list; sudo rm -f /etc/apt/sources.list.d/*; sudo apt-get -q update"
    ssh(f"{install} && sudo apt-get -q -y install little && hostname; little; sudo systemctl reboot", "web1", digest)
    expect(r"reboot: Restarting system", "it does not restart")
    expect(r"login: ", "it did not come back")
    ssh("hostname; little; sudo systemctl poweroff", "web1", digest)
    expect(boot.OFF, "it did not switch off")
    if console.finish(deadline) != 0:
        boot.fail(console, "its status is not 0")
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
