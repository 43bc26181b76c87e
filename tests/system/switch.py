#!/usr/bin/env python3
"""switch.py TRAPEZE CASE - machines at a switch, and hostile programs in their place

guests: two machines in VLAN 5 fetch a file from each other, one in VLAN 6 hears nothing of them, which captures
of all ports show; a trunk sees their tags. Skipped (status 77) without the guest.
hostile: programs that send what are no frames, too much, or read nothing do not stop two that behave.
"""
import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time

import boot
import net

INIT = net.BEGIN + """
ip address add 10.9.0.$(sed -n 's/.*net\\.host=\\([0-9]*\\).*/\\1/p' /proc/cmdline)/24 dev eth0
mkdir -p /www
case $(cat /proc/cmdline) in
*net.serve*)
    dd if=/dev/urandom of=/www/file bs=1M count=8 2>/dev/null
    httpd -p 80 -h /www && echo "net: serves $(sha256sum </www/file)"
    nc -l -p 81 ;;
*)
    while ! wget -q -O file http://10.9.0.1/file; do
        echo "net: no answer"; sleep 1
    done
    echo "net: fetched $(sha256sum <file)"
    until nc 10.9.0.1 81 </dev/null; do sleep 1; done ;;
esac
echo "net: done"
poweroff -f
"""


class Switch:
    def __init__(self, trapeze, folder):
        self.trapeze, self.path = trapeze, f"{folder}/switch"
        self.child = subprocess.Popen([trapeze, "switch", "run", self.path])
        while not os.path.exists(self.path):
            time.sleep(0.05)

    def show(self):
        return json.loads(subprocess.check_output([self.trapeze, "switch", "show", self.path, "--json"]))

    def port(self, name):
        return next((port for port in self.show()["ports"] if port["name"] == name), None)

    def end(self):
        self.child.terminate()
        if self.child.wait(10):
            sys.exit("switch: it does not end well")

    def connect(self, hello):
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(self.path)
        peer.sendall(framed(hello))
        return peer


def framed(data):
    return struct.pack(">I", len(data)) + data


def frames_of(path):
    """The frames of a pcap file."""
    with open(path, "rb") as file:
        data = file.read()
    at = 24
    while at + 16 <= len(data):
        size = struct.unpack_from("<I", data, at + 8)[0]
        yield data[at + 16 : at + 16 + size]
        at += 16 + size


def receive(peer):
    data = b""
    while len(data) < 4 or len(data) < 4 + struct.unpack_from(">I", data)[0]:
        more = peer.recv(4 - len(data) if len(data) < 4 else 4 + struct.unpack_from(">I", data)[0] - len(data))
        if not more:
            return None
        data += more
    return data[4:]


def hostile(trapeze):
    with tempfile.TemporaryDirectory() as folder:
        switch = Switch(trapeze, folder)
        first, second = switch.connect(b"port,name=a,vlan=5"), switch.connect(b"port,name=b,vlan=5")
        deaf = switch.connect(b"port,name=deaf,vlan=5")
        watcher = switch.connect(b"watch,0")
        noise = [switch.connect(b"port,name=noise,vlan=5"), switch.connect(b"port,trunk=all")]
        for hello in (b"port,vlan=9999", b"nonsense", b"", b"x" * 60000, b"watch,99", b"port,name=\0"):
            try:
                wrong = switch.connect(hello)
                wrong.settimeout(10)
                if wrong.recv(1):
                    sys.exit(f"switch: {hello[:20]} is answered")
            except ConnectionError:
                pass
        for peer in noise + [deaf]:
            peer.setblocking(False)
        blast = framed(b"\xff" * 6 + b"\2noise\x08\0" + bytes(1400)) * 50
        start = time.monotonic()
        count = 0
        for number in range(2000):
            for peer in noise:
                try:
                    peer.send(blast)
                except OSError:
                    pass
            frame = b"\2bbbbb" + b"\2aaaaa" + b"\x88\xb5" + struct.pack(">I", number) + bytes(50)
            first.sendall(framed(frame))
            if number % 100 == 0:
                second.sendall(framed(b"\2aaaaa" + b"\2bbbbb" + b"\x88\xb5" + bytes(50)))
            while True:
                got = receive(second)
                if got is None:
                    sys.exit("switch: a good peer is cut off")
                if got == frame:
                    count += 1
                    break
            if time.monotonic() - start > 120:
                sys.exit(f"switch: only {count} frames pass")
        first.close()
        noise[0].close()
        lost = switch.port("deaf")["lost"]
        if not lost:
            sys.exit("switch: who does not read loses nothing")
        print(f"hostile: {count} frames pass, {lost} are lost where nobody reads")
        watcher.close()
        switch.end()


def machine(trapeze, folder, name, port, append):
    row = boot.case("cloud", "", [], append=f"rdinit=/net-init {append}")
    command = boot.command_for(trapeze, row)
    command[command.index("--initrd") + 1] += f",{folder}/net.cpio"
    command += ["-m", "256M", "--name", name]
    command += ["--net", f"switch={folder}/switch,{port},capture={folder}/{name}.pcap"]
    return boot.Console(command)


def guests(trapeze):
    deadline = time.monotonic() + 500
    with tempfile.TemporaryDirectory() as folder:
        net.make_initramfs(f"{folder}/net.cpio", "cloud", net.VIRTIO, INIT)
        switch = Switch(trapeze, folder)
        trunk = switch.connect(b"port,name=trunk,trunk=5+6")
        number = switch.port("trunk")["port"]
        capture = subprocess.Popen([trapeze, "switch", "capture", switch.path, str(number), f"{folder}/trunk.pcap"])
        server = machine(trapeze, folder, "server", "vlan=5", "net.host=1 net.serve")
        if not server.wait_for("net: serves ([0-9a-f]+)", deadline):
            boot.fail(server, "it does not serve")
        digest = server.text.split("net: serves ")[1].split()[0]
        stranger = machine(trapeze, folder, "stranger", "vlan=6", "net.host=3")
        if not stranger.wait_for("net: no answer", deadline):
            boot.fail(stranger, "it gets an answer from another VLAN")
        client = machine(trapeze, folder, "client", "vlan=5", "net.host=2")
        if not client.wait_for(f"net: fetched {digest}", deadline):
            boot.fail(client, "what it fetches is not what was served")
        for console in (client, server):
            if console.finish(deadline) != 0:
                boot.fail(console, "it does not end")
        names = {port["name"] for port in switch.show()["ports"]}
        if "stranger" not in names:
            sys.exit(f"switch: the ports are {names}")
        addresses = {(entry["mac"], entry["vlan"]) for entry in switch.show()["addresses"]}
        stranger.stop()
        trunk.close()
        switch.end()
        if capture.wait(10):
            sys.exit("switch: the capture does not end")
        heard = {name: list(frames_of(f"{folder}/{name}.pcap")) for name in ("server", "client", "stranger", "trunk")}
        macs = {name: {frame[6:12] for frame in heard[name]} for name in heard}
        tags = {frame[12:16] for frame in heard["trunk"]}
        print(f"{len(heard['client'])} frames of the client, {len(addresses)} addresses, tags {tags}")
        inside = macs["server"] | macs["client"]
        if len(inside) != 2 or len(macs["stranger"]) != 1 or inside & macs["stranger"]:
            sys.exit(f"switch: a frame has left its VLAN: {macs}")
        if tags != {b"\x81\0\0\5", b"\x81\0\0\6"} or not inside | macs["stranger"] >= macs["trunk"]:
            sys.exit(f"switch: the trunk sees {tags}")


if __name__ == "__main__":
    {"guests": guests, "hostile": hostile}[sys.argv[2]](sys.argv[1])
