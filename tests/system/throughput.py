#!/usr/bin/env python3
"""throughput.py TRAPEZE CASE [--qemu] - what the network of Debian's cloud kernel carries, by iperf3

user: between the guest and the host, both ways. switch: from one guest to another. requests: small questions
and answers, one at a time. The host's own iperf3 is put into the guest. With --qemu the guest of "user" and
"requests" runs in QEMU's TCG: for docs/performance.md. Skipped (status 77) without the guest or iperf3.
"""
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

import boot
import net
import switch

PORT = 5201  # of iperf3, unless told
SECONDS = 5
REQUESTS = 2000
BEGIN = net.BEGIN + """
ip address add $(sed -n 's/.*net\\.address=\\([0-9.]*\\).*/\\1/p' /proc/cmdline)/24 dev eth0
peer=$(sed -n 's/.*net\\.peer=\\([0-9.]*\\).*/\\1/p' /proc/cmdline)
port=$(sed -n 's/.*net\\.port=\\([0-9]*\\).*/\\1/p' /proc/cmdline)
iperf() { /lib64/ld-linux-x86-64.so.2 --library-path /iperf /iperf/iperf3 "$@"; }
"""
INIT = {
    "user": BEGIN + f"""
iperf -c $peer -p $port -t {SECONDS} -f m | grep receiver | sed 's/^/net: out /'
iperf -c $peer -p $port -t {SECONDS} -f m -R | grep receiver | sed 's/^/net: in /'
echo "net: done"
poweroff -f
""",
    "requests": BEGIN + """
httpd -p 80 -h /iperf -f &
nc $peer $port >/dev/null
echo "net: done"
poweroff -f
""",
    "serve": BEGIN + f"""
iperf -s >/dev/null &
until grep -q ":{PORT:04X} " /proc/net/tcp /proc/net/tcp6; do sleep 0.1; done
echo "net: serves"
wait
""",
}
INIT["switch"] = INIT["user"].replace("-p $port ", "")


def make_initramfs(target, init):
    """With the host's iperf3 and its libraries behind it."""
    iperf = shutil.which("iperf3")
    if not iperf:
        print("throughput: there is no iperf3; install it")
        sys.exit(77)
    net.make_initramfs(target, "cloud", net.VIRTIO, init)
    libraries = re.findall(r"=> (/\S+)", subprocess.check_output(["ldd", iperf], text=True))
    with open(target, "ab") as out:
        for folder in ("iperf", "lib64", "tmp"):
            out.write(net.entry(folder, 0o40755, b""))
        for path in [iperf] + libraries:
            with open(path, "rb") as file:
                out.write(net.entry(f"iperf/{os.path.basename(path)}", 0o100755, file.read()))
        with open("/lib64/ld-linux-x86-64.so.2", "rb") as file:
            out.write(net.entry("lib64/ld-linux-x86-64.so.2", 0o100755, file.read()))
        out.write(net.entry("TRAILER!!!", 0, b""))


def qemu_command(folder, append, publish):
    cloud = os.path.join(boot.CACHE, "cloud")
    with open(f"{folder}/all.cpio", "wb") as out:
        for path in (f"{cloud}/initramfs.cpio", f"{folder}/net.cpio"):
            with open(path, "rb") as file:
                out.write(file.read())
    return [
        "qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", "512", "-nographic", "-no-reboot",
        "-kernel", f"{cloud}/vmlinuz", "-initrd", f"{folder}/all.cpio", "-append", f"console=ttyS0 {append}",
        "-netdev", "user,id=n" + "".join(f",hostfwd=tcp:127.0.0.1:{p.replace(':', '-:')}" for p in publish),
        "-device", "virtio-net-pci,netdev=n",
    ]  # fmt: skip


def trapeze_command(trapeze, folder, append, network, name, publish):
    row = boot.case("cloud", "", [], append=append)
    command = boot.command_for(trapeze, row)
    command[command.index("--initrd") + 1] += f",{folder}/net.cpio"
    command += ["--name", name, "--net", network]
    for port in publish:
        command += ["--publish", port]
    return command


def figure(console, what, deadline):
    if not console.wait_for(rf"net: {what} .* ([\d.]+) Mbits/sec", deadline):
        boot.fail(console, f"no figure of '{what}'")
    return float(re.findall(rf"net: {what} .* ([\d.]+) Mbits/sec", console.text)[-1]) / 8


def user(command):
    server = subprocess.Popen(["iperf3", "-s", "-p", str(command.port)], stdout=subprocess.DEVNULL)
    try:
        console = command(f"net.address=10.0.2.15 net.peer=10.0.2.2 net.port={command.port}", [])
        deadline = time.monotonic() + 300
        out, back = figure(console, "out", deadline), figure(console, "in", deadline)
        if console.finish(deadline) != 0:
            boot.fail(console, "it does not end")
        return f"to the host {out:.0f} MB/s, from the host {back:.0f} MB/s"
    finally:
        server.kill()


def ask(connection):
    connection.sendall(b"GET /none HTTP/1.0\r\n\r\n")
    while connection.recv(4096):
        pass


def requests(command):
    with socket.socket() as end:
        end.bind(("127.0.0.1", command.port))
        end.listen()
        web = net.free_port()
        console = command(f"net.address=10.0.2.15 net.peer=10.0.2.2 net.port={command.port}", [f"{web}:80"])
        threading.Thread(target=console.wait_for, args=("never", time.monotonic() + 300), daemon=True).start()
        guest = end.accept()[0]
        start = time.monotonic()
        for _ in range(REQUESTS):
            with socket.create_connection(("127.0.0.1", web)) as connection:
                ask(connection)
        took = time.monotonic() - start
        guest.close()
        console.child.wait(60)
    return f"{REQUESTS / took:.0f} requests/s"


class Command:
    """Starts the guest of a case."""

    def __init__(self, trapeze, folder, is_qemu):
        self.trapeze, self.folder, self.is_qemu = trapeze, folder, is_qemu
        self.port = net.free_port()

    def __call__(self, append, publish):
        append = f"rdinit=/net-init {append}"
        if self.is_qemu:
            return boot.Console(qemu_command(self.folder, append, publish))
        return boot.Console(trapeze_command(self.trapeze, self.folder, append, "user", "vm", publish))


def between(trapeze, folder):
    deadline = time.monotonic() + 300
    the_switch = switch.Switch(trapeze, folder)
    network = f"switch={folder}/switch"
    client = trapeze_command(
        trapeze, folder, "rdinit=/net-init net.address=10.9.0.2 net.peer=10.9.0.1", network, "client", []
    )
    os.rename(f"{folder}/net.cpio", f"{folder}/client.cpio")
    client = [word.replace("/net.cpio", "/client.cpio") for word in client]
    make_initramfs(f"{folder}/net.cpio", INIT["serve"])
    server = boot.Console(
        trapeze_command(trapeze, folder, "rdinit=/net-init net.address=10.9.0.1", network, "server", [])
    )
    if not server.wait_for("net: serves", deadline):
        boot.fail(server, "it does not serve")
    console = boot.Console(client)
    out, back = figure(console, "out", deadline), figure(console, "in", deadline)
    if console.finish(deadline) != 0:
        boot.fail(console, "it does not end")
    server.stop()
    the_switch.end()
    return f"from one guest to another {out:.0f} MB/s, back {back:.0f} MB/s"


def main():
    trapeze, name = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as folder:
        make_initramfs(f"{folder}/net.cpio", INIT[name])
        if name == "switch":
            result = between(trapeze, folder)
        else:
            result = {"user": user, "requests": requests}[name](Command(trapeze, folder, "--qemu" in sys.argv))
        print(f"{name}: {result}")


if __name__ == "__main__":
    main()
