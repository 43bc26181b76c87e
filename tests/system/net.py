#!/usr/bin/env python3
"""net.py TRAPEZE CASE - Debian's drivers of network cards, on a user network

The guest (tools/guest.sh, with the modules of its package) gets an address by DHCP, fetches a file
from a server on the host and serves one through a published port; both are compared. Then it answers
many small requests. CASES has the card and the options; with passt its process is the network. Skipped
(status 77) without the guest or passt.
"""
import glob
import hashlib
import http.server
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import boot

# Properties of the card, options; other than the cloud kernel, and what goes to its command line.
CASES = {
    "user": ("virtio", []),
    "user-smp2": ("virtio", ["--cpus", "2"]),
    "user-interpreter": ("virtio", ["--engine", "interpreter"]),
    "user-legacy": ("virtio,transitional=on", [], "cloud", " net.legacy"),
    "user-mptable": ("virtio", ["--cpus", "2", "--no-reboot"], "generic", " acpi=off pci=nomsi"),
    "user-mmio": ("virtio-mmio", ["--cpus", "2"]),
    "passt": ("virtio", []),
    "e1000": ("e1000", [], "generic"),
    "e1000-interpreter": ("e1000", ["--engine", "interpreter"], "generic"),
}
SIZE = 16 << 20
REQUESTS = 50
VIRTIO = (
    "drivers/virtio/virtio_ring drivers/virtio/virtio drivers/virtio/virtio_pci_modern_dev"
    " drivers/virtio/virtio_pci_legacy_dev drivers/virtio/virtio_pci drivers/virtio/virtio_mmio"
    " net/core/failover drivers/net/net_failover drivers/net/virtio_net"
)
E1000 = "drivers/net/ethernet/intel/e1000/e1000"
BEGIN = boot.GUEST_BEGIN + """parameter() { [ "$1" = virtio_pci ] && grep -q net.legacy /proc/cmdline && echo force_legacy=1; }
for module in MODULES; do insmod /modules/$module.ko $(parameter $module) || echo "net: no $module"; done
ip link set lo up
ip link set eth0 up
"""
INIT = BEGIN + """
printf '#!/bin/sh\\n[ "$1" = bound ] || exit 0\\nifconfig $interface $ip netmask $subnet\\n' >/udhcpc
printf 'route add default gw $router\\necho "nameserver $dns" >/etc/resolv.conf\\n' >>/udhcpc
chmod +x /udhcpc
mkdir -p /etc /www
udhcpc -i eth0 -s /udhcpc -n -q
ip address show dev eth0
echo "net: address $(ip -4 -o address show dev eth0 | sed 's/.*inet \\([0-9.]*\\).*/\\1/')"
fetch() { wget -q -O "$1" "http://10.0.2.2:$port/$2"; }
port=$(sed -n 's/.*net\\.port=\\([0-9]*\\).*/\\1/p' /proc/cmdline)
fetch /www/file file && echo "net: fetched $(sha256sum </www/file)"
httpd -p 80 -h /www && echo "net: serving"
nc -l -p 81
echo "net: done, processors $(nproc), $(grep -c 'IO-APIC.*virtio' /proc/interrupts) pins"
grep -q acpi=off /proc/cmdline && reboot -f
poweroff -f
"""


# What /net-init of a guest begins with.
INIT_START = """#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
exec </dev/console >/dev/console 2>&1
"""
VIRTIO_PCI = (
    "drivers/virtio/virtio_ring drivers/virtio/virtio drivers/virtio/virtio_pci_modern_dev"
    " drivers/virtio/virtio_pci_legacy_dev drivers/virtio/virtio_pci"
)


def entry(name, mode, data):
    """One file of an initramfs, in the format newc."""
    fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08x" % f for f in fields) + name.encode() + b"\0"
    head += b"\0" * (-len(head) % 4)
    return head + data + b"\0" * (-len(data) % 4)


def make_initramfs(target, guest, modules, init):
    """The modules and /net-init, to be put behind the guest's own initramfs."""
    folder = glob.glob(os.path.join(boot.CACHE, guest, "linux-image-*", "lib", "modules", "*", "kernel"))
    if not folder:
        print(f"net: the kernel's modules are not there; run tools/guest.sh {guest}")
        sys.exit(77)
    names = " ".join(os.path.basename(m) for m in modules.split())
    with open(target, "wb") as out:
        out.write(entry("net-init", 0o100755, init.replace("MODULES", names).encode()))
        out.write(entry("modules", 0o40755, b""))
        for module in modules.split():
            with open(os.path.join(folder[0], module + ".ko"), "rb") as file:
                out.write(entry(f"modules/{os.path.basename(module)}.ko", 0o100644, file.read()))
        out.write(entry("TRAILER!!!", 0, b""))


def with_program(command, folder, program, options, guest, modules, init):
    """command starts the guest with /net-init, modules, and /program, built from program_guest.c with options."""
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), f"{program}_guest.c")
    subprocess.run(["gcc", "-static", *options, "-o", f"{folder}/guest", source], check=True)
    make_initramfs(f"{folder}/net.cpio", guest, modules, init)
    with open(f"{folder}/program.cpio", "wb") as out, open(f"{folder}/guest", "rb") as file:
        out.write(entry(program, 0o100755, file.read()))
        out.write(entry("TRAILER!!!", 0, b""))
    at = command.index("--initrd") + 1
    return [*command[:at], f"{command[at]},{folder}/net.cpio,{folder}/program.cpio", *command[at + 1 :]]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve(data):
    """A server on the host; returns its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def get(port, name):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{name}", timeout=120) as answer:
        return answer.read()


def start_passt(folder, ports):
    """passt with the addresses of a user network, the ports published; returns its process and what --net takes."""
    if not shutil.which("passt"):
        print("net: passt is not there")
        sys.exit(77)
    path = f"{folder}/passt"
    addresses = ["-4", "-a", "10.0.2.15", "-n", "24", "-g", "10.0.2.2", "-D", "none"]
    command = ["passt", "-f", "-q", "-s", path, *addresses, *([] if os.getuid() else ["--runas", "0"])]
    for host, guest in ports:
        command += ["-t", f"127.0.0.1/{host}:{guest}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not os.path.exists(path) and process.poll() is None:
        time.sleep(0.01)
    return process, f"socket,connect={path}"


def main():
    trapeze, name = sys.argv[1:]
    deadline = time.monotonic() + 600
    data = os.urandom(SIZE)
    digest = hashlib.sha256(data).hexdigest()
    web, end = free_port(), free_port()
    model, options, *more = CASES[name]
    guest, append = more + ["cloud", ""][len(more) :]
    modules = E1000 if model == "e1000" else VIRTIO
    with tempfile.TemporaryDirectory() as folder:
        make_initramfs(f"{folder}/net.cpio", guest, modules, INIT)
        row = boot.case(guest, "", [], append=f"rdinit=/net-init net.port={serve(data)}{append}")
        command = boot.command_for(trapeze, row)
        at = command.index("--initrd") + 1
        command[at] += f",{folder}/net.cpio"
        if name == "passt":
            peer, network = start_passt(folder, [(web, 80), (end, 81)])
            command += ["--net", network]
        else:
            peer = None
            command += ["--net", f"user,model={model}", "--publish", f"{web}:80", "--publish", f"{end}:81"]
        console = boot.Console(command + options)
        for pattern in (r"net: address 10\.0\.2\.15", f"net: fetched {digest}", "net: serving"):
            if not console.wait_for(pattern, deadline):
                boot.fail(console, f"'{pattern}' did not appear")
        if get(web, "file") != data:
            boot.fail(console, "what it serves is not what it fetched")
        start = time.monotonic()
        for _ in range(REQUESTS):
            try:
                get(web, "none")
            except urllib.error.HTTPError as error:
                if error.code != 404:
                    boot.fail(console, f"a request ends with {error}")
        print(f"{name}: {REQUESTS / (time.monotonic() - start):.0f} requests a second")
        with socket.create_connection(("127.0.0.1", end)):
            pass
        if console.finish(deadline) != 0:
            boot.fail(console, "it does not end")
        if name == "user-mptable" and "done, processors 2, 1 pins" not in console.text:
            boot.fail(console, "expected two processors and a pin of the I/O APIC")
        boot.check_console(console)
        if peer:
            peer.terminate()
            peer.wait()


if __name__ == "__main__":
    main()
