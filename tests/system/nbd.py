#!/usr/bin/env python3
"""nbd.py TRAPEZE CASE - trapeze image and servers of disks: qemu-nbd and nbdkit

Skipped (status 77) without them.
"""
import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

MIB = 1 << 20


def run(*words, status=0):
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    if done.returncode != status:
        print("nbd:", *words, f"ended with {done.returncode}", done.stdout, done.stderr, sep="\n")
        sys.exit(1)
    return done.stdout + done.stderr


class Server:
    def __init__(self, ready, *words):
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        atexit.register(self.process.kill)
        for _ in range(500):
            if ready():
                return
            assert self.process.poll() is None, words
            time.sleep(0.02)
        sys.exit(f"nbd: {words} does not answer")

    def end(self):
        self.process.terminate()
        self.process.wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def qemu_nbd(folder, image, *options):
    path = os.path.join(folder, "socket")
    if os.path.exists(path):
        os.unlink(path)
    server = Server(lambda: os.path.exists(path), "qemu-nbd", "-t", "-f", "raw", "-k", path, *options, image)
    return server, f"nbd+unix:///?socket={path}"


def nbdkit(folder, *words):
    port = free_port()
    return Server(lambda: answers(port), "nbdkit", "-f", "-i", "127.0.0.1", "-p", str(port), *words), port


def make_raw(path):
    """20 MiB with data in 3 of them."""
    with open(path, "wb") as file:
        file.truncate(20 * MIB)
        file.seek(MIB)
        file.write(os.urandom(2 * MIB))
        file.seek(19 * MIB)
        file.write(os.urandom(MIB))


def same(a, b):
    with open(a, "rb") as x, open(b, "rb") as y:
        assert x.read() == y.read(), (a, b)


def case_unix(trapeze, folder):
    """There and back, holes stay holes; qcow2 in what is served; read-only exports."""
    a, b, c = (os.path.join(folder, name) for name in "abc")
    make_raw(a)
    with open(b, "wb") as file:
        file.write(b"\x55" * 20 * MIB)
    server, uri = qemu_nbd(folder, a, "-r")
    assert "readonly=on" in run(trapeze, "image", "resize", uri, "+1M", status=1)
    run(trapeze, "image", "convert", "-O", "raw", uri, c)
    same(a, c)
    assert os.stat(c).st_blocks * 512 < 4 * MIB, "holes are data now"
    server.end()
    server, uri = qemu_nbd(folder, b, "--discard=unmap")
    run(trapeze, "image", "convert", "-O", "raw", "--force", a, uri)
    server.end()
    same(a, b)
    run(trapeze, "image", "convert", a, c + ".qcow2")
    server, uri = qemu_nbd(folder, c + ".qcow2")
    assert "format: qcow2" in run(trapeze, "image", "info", uri)
    run(trapeze, "image", "convert", "--force", "-O", "raw", uri, c)
    server.end()
    same(a, c)
    assert "socket" in run(trapeze, "image", "info", uri, status=1)


def case_tcp(trapeze, folder):
    """nbdkit by TCP, with and without TLS, with a server that cannot zero, and one that fails."""
    a, c, keys = (os.path.join(folder, name) for name in ("a", "c", "keys"))
    make_raw(a)
    server, port = nbdkit(folder, "file", a)
    run(trapeze, "image", "convert", "-O", "raw", f"nbd://localhost:{port}", c)
    server.end()
    same(a, c)
    with open(keys, "w") as file:
        file.write("someone:" + "5a" * 32 + "\n")
    server, port = nbdkit(folder, "--tls=require", f"--tls-psk={keys}", "file", a)
    uri = f"nbds://someone@localhost:{port}/?tls-psk-file={keys}"
    run(trapeze, "image", "convert", "--force", "-O", "raw", uri, c)
    same(a, c)
    run(trapeze, "image", "info", f"nbd://localhost:{port}", status=1)
    server.end()
    server, port = nbdkit(folder, "--filter=nozero", "memory", "20M")
    uri = f"nbd://localhost:{port}"
    run(trapeze, "image", "convert", "-O", "raw", "--force", a, uri)
    run(trapeze, "image", "convert", "--force", "-O", "raw", uri, c)
    server.end()
    same(a, c)
    server, port = nbdkit(folder, "--filter=error", "memory", "20M", "error-pread=ENOMEM", "error-pread-rate=100%")
    assert "Cannot allocate memory" in run(trapeze, "image", "convert", f"nbd://localhost:{port}", c + "2", status=1)
    server.end()


CASES = {"unix": case_unix, "tcp": case_tcp}


def main():
    trapeze, name = sys.argv[1:]
    for tool in "qemu-nbd", "nbdkit":
        if not shutil.which(tool):
            print(f"nbd: {tool} is not installed")
            sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        CASES[name](trapeze, folder)


main()
