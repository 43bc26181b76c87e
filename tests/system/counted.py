#!/usr/bin/env python3
"""counted.py TRAPEZE - runs in counted mode are identical to the instruction, on every engine

Boots the cloud kernel on two engines with --counted and every trace event on, and compares
the console and the whole trace: each device access, timer, exception and interrupt
(with RIP), and the virtual time at which the machine stopped. Then boots once more with a
different command line, which must be seen, so that the comparison means something.
Without the guest (tools/guest.sh) the test is skipped (status 77).
"""
import hashlib
import os
import subprocess
import sys
import threading

CACHE = os.environ.get("TRAPEZE_CACHE") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "trapeze"
)
GUEST = os.path.join(CACHE, "cloud")
KERNEL = os.path.join(GUEST, "vmlinuz")
INITRD = os.path.join(GUEST, "initramfs.cpio")
LIMIT_S = 240


class Trace(threading.Thread):
    """Reads a trace from a pipe; keeps its hash, length and end."""

    def __init__(self, fd):
        super().__init__()
        self.file = os.fdopen(fd, "rb")
        self.hash = hashlib.sha256()
        self.lines = 0
        self.end = b""

    def run(self):
        while block := self.file.read(1 << 20):
            self.hash.update(block)
            self.lines += block.count(b"\n")
            self.end = (self.end + block)[-400:]
        self.file.close()


def boot(trapeze, engine, append):
    """(console, trace hash, trace lines, end of the trace) of one run."""
    reader, writer = os.pipe()
    trace = Trace(reader)
    trace.start()
    command = [trapeze, "run", "--counted", "-m", "256M", "--kernel", KERNEL, "--initrd", INITRD]
    command += ["--engine", engine, "--append", "console=ttyS0 trapeze.script=demo" + append]
    command += ["--trace", "*", "--trace-file", f"/dev/fd/{writer}"]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[writer],
        timeout=LIMIT_S,
        check=False,
    )
    os.close(writer)
    trace.join()
    if done.returncode != 0 or b"Power down" not in done.stdout:
        sys.stdout.buffer.write(done.stdout + done.stderr)
        sys.exit(f"counted: the guest ended with status {done.returncode}")
    return done.stdout, trace.hash.hexdigest(), trace.lines, trace.end.decode(errors="replace")


def main():
    if not (os.path.exists(KERNEL) and os.path.exists(INITRD)):
        print(f"counted: {KERNEL} is not there; run tools/guest.sh")
        sys.exit(77)
    runs = (("translator", ""), ("interpreter", ""), ("translator", " quiet"))
    first, second, other = (boot(sys.argv[1], *run) for run in runs)
    print(f"counted: {first[2]} trace events; the end of the first run:\n{first[3]}")
    if first[2] < 100000 or "machine_state: state 3 at" not in first[3]:
        sys.exit("counted: the trace is not whole")
    if first[0] != second[0]:
        sys.exit("counted: the consoles of two engines differ")
    if first[1] != second[1]:
        sys.exit(f"counted: the traces differ; the end of the second run:\n{second[3]}")
    if other[1] == first[1]:
        sys.exit("counted: another command line gave the same trace")


main()
