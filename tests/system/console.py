#!/usr/bin/env python3
"""console.py TRAPEZE CASE - a virtio console and its named ports

"console": tools/guest.sh's cloud kernel with the modules of its package has a shell on hvc0, which knows how large the
window is, and two named ports on sockets of the host. Megabytes go through one of them in both directions, at each end
slower than at the other. "console-login": Debian's login on hvc0. Skipped (status 77) without the guest.
"""
import fcntl
import hashlib
import os
import re
import select
import signal
import socket
import struct
import sys
import tempfile
import termios
import threading
import time

import boot
import net
from debian import DISK, LOGIN, PASSWORD

CASES = {
    "console": [],
    "console-smp2": ["--cpus", "2"],
    "console-interpreter": ["--engine", "interpreter"],
}
BYTES = 3_000_000
MODULES = net.VIRTIO_PCI + " drivers/char/virtio_console"
INIT = net.INIT_START + """\
for module in MODULES; do insmod /modules/$module.ko || echo "console: no $module" >/dev/console; done
for n in 1 2 3 4 5; do [ -e /dev/hvc0 ] || sleep 1; done
for n in 1 2 3 4 5; do [ "$(cat /sys/class/virtio-ports/*p2/name)" ] || sleep 1; done
for port in /sys/class/virtio-ports/*; do
    [ -s $port/name ] && ln -s /dev/${port##*/} /tmp/$(cat $port/name)
done
exec setsid sh -c 'exec </dev/hvc0 >/dev/hvc0 2>&1; stty -echo; echo "console: $(tty) is ready"
while read -r command; do eval "$command"; done; echo "console: it ends"; poweroff -f'
"""


def set_window(console, columns, rows):
    fcntl.ioctl(console.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    if console.child.poll() is None:
        os.kill(console.child.pid, signal.SIGWINCH)


class Dialog:
    def __init__(self, command, limit_s):
        self.console = boot.Console(command, interactive=True)
        self.deadline = time.monotonic() + limit_s

    def expect(self, pattern):
        if not self.console.wait_for(pattern, self.deadline):
            boot.fail(self.console, f"'{pattern}' did not appear")

    def type(self, text, pattern):
        self.console.write(text + "\n")
        self.expect(pattern)

    def finish(self):
        if self.console.finish(self.deadline) != 0:
            boot.fail(self.console, "it does not end")
        boot.check_console(self.console)


def send_all(peer, data):
    """On a thread: the guest is slower."""
    thread = threading.Thread(target=peer.sendall, args=(data,), daemon=True)
    thread.start()
    return thread


def check_port(dialog, path):
    data = os.urandom(BYTES)
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(path)
    sender = send_all(peer, data)
    time.sleep(0.5)
    if not sender.is_alive():
        boot.fail(dialog.console, f"{BYTES} bytes have gone to a port that nobody has opened")
    dialog.type(f"(sleep 1; head -c {BYTES}) </tmp/org.test.first | sha256sum", hashlib.sha256(data).hexdigest())
    sender.join(10)
    dialog.console.write(f"head -c {BYTES} /dev/urandom >/tmp/file; cat /tmp/file >/tmp/org.test.first; sha256sum /tmp/file; echo sent\n")
    time.sleep(2)
    if "sent\r" in dialog.console.text:
        boot.fail(dialog.console, f"{BYTES} bytes have gone where nobody reads")
    digest, left = hashlib.sha256(), BYTES
    peer.settimeout(60)
    while left:
        part = peer.recv(min(left, 65536))
        if not part:
            boot.fail(dialog.console, f"the port was closed, {left} bytes too early")
        digest.update(part)
        left -= len(part)
    dialog.expect(digest.hexdigest())
    peer.close()
    peer = socket.socket(socket.AF_UNIX)  # the next client is another session
    peer.connect(path)
    dialog.type("echo hello >/tmp/org.test.first", "")
    if peer.recv(6) != b"hello\n":
        boot.fail(dialog.console, "a second client is not greeted")
    peer.close()


def run_case(trapeze, name):
    with tempfile.TemporaryDirectory() as folder:
        net.make_initramfs(f"{folder}/console.cpio", "cloud", MODULES, INIT)
        command = boot.command_for(trapeze, boot.case("cloud", "", [], append="quiet rdinit=/net-init"))
        command[command.index("--initrd") + 1] += f",{folder}/console.cpio"
        command += ["--console", "virtio", "--serial", f"file:path={folder}/serial"]
        command += ["--port", f"org.test.first=unix:{folder}/the first, one"]
        command += ["--port", f"org.test.second=socket:path={folder}/second"]
        dialog = Dialog(command + CASES[name], 600)
        set_window(dialog.console, 100, 37)
        dialog.expect("console: /dev/hvc0 is ready")
        dialog.type("stty size", "37 100")
        set_window(dialog.console, 132, 43)
        time.sleep(1)
        dialog.type("stty size; echo $((6 * 7)) is the answer", r"43 132\s+42 is the answer")
        dialog.type("ls /tmp | cat", r"org.test.first\s+org.test.second")
        check_port(dialog, f"{folder}/the first, one")
        dialog.type("head -c 5 /tmp/org.test.second; echo", "") # nobody is there: it ends
        dialog.console.write("\x01x")
        dialog.finish()
        if os.listdir(folder) != ["serial"] and sorted(os.listdir(folder)) != ["console.cpio", "serial"]:
            boot.fail(dialog.console, f"sockets are left: {os.listdir(folder)}")


def start_getty(dialog, path, agent_path):
    """
    Debian has a login on hvc0 if console=hvc0 says so; here somebody on the first serial port starts it, and
    reads the agent's port, which has a peer before that: without one reading ends at once.
    """
    peer, agent = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    peer.connect(path)
    while not os.path.exists(agent_path) and time.monotonic() < dialog.deadline:
        dialog.console.read(time.monotonic() + 0.1)
    agent.connect(agent_path)
    peer.setblocking(False)
    text = ""
    for pattern, answer in (*LOGIN, ("ready> ", "systemctl start serial-getty@hvc0; cat /dev/virtio-ports/*agent*")):
        while not re.search(pattern, text):
            if time.monotonic() > dialog.deadline:
                boot.fail(dialog.console, f"on the serial port '{pattern}' did not appear: {text}")
            dialog.console.read(time.monotonic() + 0.1)
            if select.select([peer], [], [], 0)[0]:
                text += peer.recv(65536).decode("utf-8", "replace")
        peer.setblocking(True)
        peer.sendall(answer.encode() + b"\r")
        text = ""
    return peer, agent


def log_in(trapeze):
    if not os.path.exists(DISK):
        print(f"console: {DISK} is not there; run tools/guest.sh debian")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        command = [trapeze, "run", "-m", "1G", "--console", "virtio", "--serial", f"socket:path={folder}/serial,wait=on"]
        command += ["--port", f"org.qemu.guest_agent.0=unix:{folder}/agent", "--net", "none", "--disk", f"{DISK},snapshot=on"]
        dialog = Dialog(command, 600)
        dialog.expect("waiting for a client")
        serial, agent = start_getty(dialog, f"{folder}/serial", f"{folder}/agent")
        dialog.expect("debian login: ")
        dialog.type("root", "Password: ")
        dialog.type(PASSWORD, "root@debian:~# ")
        dialog.type("tty; echo $((6 * 7)) is the answer", r"/dev/hvc0\s+42 is the answer")
        agent.sendall(b"hello agent\n")
        if b"hello agent" not in read_until(serial, b"hello agent"):
            boot.fail(dialog.console, "the agent's port is not there")
        dialog.console.write("poweroff\n")
        dialog.finish()


def read_until(peer, end):
    text = b""
    peer.settimeout(60)
    while end not in text:
        part = peer.recv(4096)
        if not part:
            break
        text += part
    return text


if __name__ == "__main__":
    if sys.argv[2] == "console-login":
        log_in(sys.argv[1])
    else:
        run_case(*sys.argv[1:])
