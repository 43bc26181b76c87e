#!/usr/bin/env python3
"""debian.py TRAPEZE CASE - Debian from power-on to its login prompt, and off again

The disk is what "trapeze image build debian" makes; tools/guest.sh debian keeps one in the cache. Firmware starts
GRUB, GRUB the kernel. Somebody logs in on the serial console, looks at disk and network, installs nothing, and
switches off. The disk stays as it is (snapshot=on). CASES has the options. Skipped (status 77) without the disk.
"""
import os
import sys
import time

import boot

CASES = {
    "bios": ([], "SeaBIOS"),
    "bios-smp2": (["--cpus", "2"], "SeaBIOS"),
    "uefi": (["--firmware", "uefi"], "BdsDxe: starting"),
}
DISK = os.path.join(boot.CACHE, "debian", "disk.qcow2")
PASSWORD = "trapeze"
STEPS = (
    ("login: ", "root"),
    ("Password: ", PASSWORD),
    (r"root@debian:~# ", "PS1='rea''dy> '"),
    (r"ready> ", "findmnt -no SOURCE,FSTYPE /"),
    (r"/dev/vda3\s+ext4[^>]*ready> ", "/lib/systemd/systemd-networkd-wait-online --timeout=60; ip -4 -o address"),
    (r"inet 10\.0\.2\.15/24[^>]*ready> ", "dd if=/dev/urandom of=/test bs=1M count=8 status=none; sync; sha256sum </test"),
    (r"[0-9a-f]{64} [^>]*ready> ", "poweroff"),
)
LIMIT_S = 600


def main():
    trapeze, name = sys.argv[1:]
    options, firmware = CASES[name]
    if not os.path.exists(DISK):
        print(f"debian: {DISK} is not there; run tools/guest.sh debian")
        return 77
    deadline = time.monotonic() + LIMIT_S
    command = [trapeze, "run", "-m", "1G", "--disk", f"{DISK},snapshot=on", "--net", "user", *options]
    console = boot.Console(command, interactive=True)
    for pattern, answer in ((firmware, None), ("GRUB", None), *STEPS, (boot.OFF, None)):
        if not console.wait_for(pattern, deadline):
            boot.fail(console, f"'{pattern}' did not appear within {LIMIT_S} s")
        if answer:
            console.write(answer + "\r")
    status = console.finish(deadline)
    if status != 0:
        boot.fail(console, f"the status is {status}")
    boot.check_console(console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
