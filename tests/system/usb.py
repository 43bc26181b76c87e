#!/usr/bin/env python3
"""usb.py TRAPEZE KIND - Debian's kernel drives the USB controller of that kind, and a stick comes and goes

The generic kernel's own modules find a tablet, a keyboard and a mouse. A stick is plugged in: a file that the host has put on it is
read, another is written. It is pulled out, plugged in again, and what was written is there, on the host, too. Files are in an archive (tar)
that begins with the disk, so that no file system is needed. Kinds are of --usb. Skipped (status 77) without the generic kernel.
"""
import io
import os
import sys
import tarfile
import tempfile

import boot
import modules

STICK_BYTES = 16 << 20
OLD = b"from the host\n" * 5000
NEW = "".join(f"{n}\n" for n in range(1, 50001)).encode()
# What people's devices and a stick are found as, in Mbit/s: on the controller, behind a hub.
SPEEDS = {"xhci": (12, 5000, 480), "ehci": (12, 480, 480), "uhci": (12, 12, 12)}
# Each after those that it needs.
MODULES = """crct10dif_common crc-t10dif crct10dif_generic crc64 crc64_rocksoft_generic crc64-rocksoft t10-pi scsi_common
 scsi_mod sd_mod usb-common usbcore xhci-hcd xhci-pci ehci-hcd ehci-pci uhci-hcd hid hid-generic usbhid evdev usb-storage""".split()


def write_stick(path):
    with open(path, "wb") as file:
        file.truncate(STICK_BYTES)
    with open(path, "r+b") as file, tarfile.open(fileobj=file, mode="w") as tar:
        entry = tarfile.TarInfo("old")
        entry.size = len(OLD)
        tar.addfile(entry, io.BytesIO(OLD))


class Machine(modules.Machine):
    def __init__(self, trapeze, folder, kind):
        options = ["--hotplug", "1", "--usb", kind, "--device", "usb-mouse"]
        super().__init__(trapeze, folder, MODULES, options)

    def plug(self, stick, *properties):
        self.client("device", "add", self.socket, "--disk", ",".join([stick, "if=usb", "serial=STICK-1", *properties]))
        self.wait("test -b /dev/sda")


def type_keys(machine):
    """What is typed comes from a USB keyboard; the events of all are collected."""
    machine.shell("for e in /dev/input/event*; do cat $e >>/tmp/keys & done; sleep 0.5", "")
    machine.client("type", machine.socket, "hello")
    machine.shell("sleep 0.5; test -s /tmp/keys && echo ty'ped'; rm /tmp/keys; kill $(jobs -p)", "typed")


def use_hub(machine, stick, speed):
    """Hubs, a keyboard and a stick behind them, come and go."""
    machine.client("device", "add", machine.socket, "--device", "usb-hub")
    machine.client("device", "add", machine.socket, "--device", "usb-hub,bus=usb-hub,port=8")
    machine.wait("test $(cat /sys/bus/usb/devices/*/product | grep -c 'USB hub') = 2")
    machine.client("device", "add", machine.socket, "--device", "usb-kbd,bus=usb-hub-2")
    machine.wait("test $(grep -c 'Name=.Trapeze USB' /proc/bus/input/devices) = 4")
    machine.shell("cat /sys/bus/usb/devices/*.8.1/product", "USB keyboard")
    machine.client("device", "add", machine.socket, "--device", "usb-mouse,bus=usb-hub")
    machine.wait("test $(grep -c 'Name=.Trapeze USB' /proc/bus/input/devices) = 5")
    machine.plug(stick, "bus=usb-hub-2")
    machine.shell("cat /sys/bus/usb/devices/*.8.2/speed", rf"\s{speed}\s")
    machine.shell("tar tf /dev/sda", r"\snew\s")
    type_keys(machine)
    machine.client("device", "remove", machine.socket, "usb-kbd-2")
    machine.wait("test $(grep -c 'Name=.Trapeze USB' /proc/bus/input/devices) = 4")
    machine.client("device", "remove", machine.socket, "usb-hub")  # with all that is on it
    machine.wait("test $(grep -c 'Name=.Trapeze USB' /proc/bus/input/devices) = 3 && ! test -e /dev/sda")


def main():
    kind = sys.argv[2]
    if not modules.can_run("usb", MODULES, 15):
        return 77
    slow, fast, behind_hub = SPEEDS[kind]
    with tempfile.TemporaryDirectory() as folder:
        stick = os.path.join(folder, "stick.img")
        write_stick(stick)
        machine = Machine(sys.argv[1], folder, kind)
        machine.expect("ready> ")
        machine.wait("test $(cat /sys/bus/usb/devices/*/product | grep -c ^USB) = 3")
        machine.shell("cat /sys/bus/usb/devices/*/product | sort", r"USB keyboard\s+USB mouse\s+USB tablet")
        machine.shell("cat /sys/bus/usb/devices/[0-9]*-[0-9]/speed | sort | uniq -c", rf"\s3 {slow}\s")
        machine.wait("test $(grep -c 'Name=.Trapeze USB' /proc/bus/input/devices) = 3")
        machine.shell("grep -A 12 'USB tablet' /proc/bus/input/devices", r"B: ABS=3\s")
        machine.plug(stick)
        machine.shell("cd /sys/bus/usb/devices; for d in *-*; do echo $(cat $d/serial $d/speed); done; cd /", rf"STICK-1 {fast}\s")
        type_keys(machine)
        machine.shell("cat /sys/block/sda/removable", r"\s1\s")
        machine.shell("tar xf /dev/sda -C /root && wc -c </root/old", rf"\s{len(OLD)}\s")
        machine.shell("seq 50000 >/root/new && tar cf /dev/sda -C /root new && sync && echo writ'ten'", "written")
        machine.client("device", "remove", machine.socket, "usb-storage")
        machine.wait("! test -e /dev/sda")
        with tarfile.open(stick) as tar:
            if tar.extractfile("new").read() != NEW:
                boot.fail(machine.console, "what the guest wrote is not on the stick")
        machine.plug(stick)
        machine.shell("tar tf /dev/sda", r"\snew\s")
        machine.client("device", "remove", machine.socket, "usb-storage")
        machine.wait("! test -e /dev/sda")
        use_hub(machine, stick, behind_hub)
        machine.power_off()
    return 0


if __name__ == "__main__":
    sys.exit(main())
