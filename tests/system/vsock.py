#!/usr/bin/env python3
"""vsock.py TRAPEZE CASE - sockets between a guest and the host

The guest is tools/guest.sh's cloud kernel with the modules of its package and vsock_guest.c. Clients on the host have
megabytes echoed by the guest, several at a time; the guest has some echoed by the host, and is refused where nobody
listens. Skipped (status 77) without the guest or a compiler.
"""
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
import time

import boot
import net

CASES = {
    "vsock": [],
    "vsock-smp2": ["--cpus", "2"],
    "vsock-interpreter": ["--engine", "interpreter"],
}
BYTES = 2_000_000
CLIENTS = 8
MODULES = net.VIRTIO_PCI + " net/vmw_vsock/vsock net/vmw_vsock/vmw_vsock_virtio_transport_common net/vmw_vsock/vmw_vsock_virtio_transport"
INIT = net.INIT_START + """\
for module in MODULES; do insmod /modules/$module.ko || echo "vsock: no $module"; done
/vsock echo 7000 &
head -c 2000000 /dev/urandom >/tmp/file
/vsock send 5000 </tmp/file >/tmp/copy
cmp /tmp/file /tmp/copy && echo "vsock: the host's echo is right"
/vsock send 5001 </dev/null || echo "vsock: refused"
read -r line
poweroff -f
"""


def listen(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    return listener


def echo_once(listener):
    """Slower than the guest at first."""
    peer = listener.accept()[0]
    time.sleep(1)
    while True:
        data = peer.recv(65536)
        if not data:
            break
        peer.sendall(data)
    peer.shutdown(socket.SHUT_WR)
    peer.close()


def connect(path, port):
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(300)
    peer.connect(path)
    peer.sendall(b"CONNECT %d\n" % port)
    return peer


def read_line(peer):
    line = b""
    while not line.endswith(b"\n"):
        byte = peer.recv(1)
        if not byte:
            break
        line += byte
    return line


def have_echoed(path, results):
    data = os.urandom(BYTES // CLIENTS)
    peer = connect(path, 7000)
    if not re.fullmatch(rb"OK \d+\n", read_line(peer)):
        return
    sender = threading.Thread(target=lambda: (peer.sendall(data), peer.shutdown(socket.SHUT_WR)), daemon=True)
    sender.start()
    back = b""
    while True:
        part = peer.recv(65536)
        if not part:
            break
        back += part
    results.append(back == data)


def main():
    trapeze, name = sys.argv[1:]
    if not shutil.which("gcc"):
        print("vsock: gcc is not there")
        return 77
    deadline = time.monotonic() + 600
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/the vm, one"
        command = boot.command_for(trapeze, boot.case("cloud", "", [], append="quiet rdinit=/net-init"))
        command = net.with_program(command, folder, "vsock", ["-O1"], "cloud", MODULES, INIT)
        server = threading.Thread(target=echo_once, args=(listen(f"{path}_5000"),), daemon=True)
        server.start()
        console = boot.Console([*command, "--vsock", f"42,{path}", *CASES[name]], interactive=True)

        def expect(pattern):
            if not console.wait_for(pattern, deadline):
                boot.fail(console, f"'{pattern}' did not appear")

        expect("vsock: the host's echo is right")
        expect("connect: Connection reset by peer\\s+vsock: refused")
        results = []
        clients = [threading.Thread(target=have_echoed, args=(path, results)) for _ in range(CLIENTS)]
        started = time.monotonic()
        for client in clients:
            client.start()
        while any(client.is_alive() for client in clients) and time.monotonic() < deadline:
            console.read(time.monotonic() + 0.1)
        if results != [True] * CLIENTS:
            boot.fail(console, f"the guest's echo: {results}")
        print(f"{name}: {CLIENTS} clients, {BYTES} bytes there and back in {time.monotonic() - started:.1f} s")
        if read_line(connect(path, 7001)) != b"":
            boot.fail(console, "somebody listens on port 7001")
        console.write("\n")
        expect(boot.OFF)
        if console.finish(deadline) != 0:
            boot.fail(console, "it does not end")
        boot.check_console(console)
        if os.path.exists(path):
            boot.fail(console, "the socket is left")
    return 0


if __name__ == "__main__":
    sys.exit(main())
