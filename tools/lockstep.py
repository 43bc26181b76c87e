#!/usr/bin/env python3
"""lockstep.py TRAPEZE [--guest NAME] [--every NS] [--engines A,B] [--expect TEXT] -- RUN-OPTION...

Two engines, one guest: runs the same counted guest side by side and compares everything that is
traced: device accesses, exceptions and interrupts, and every NS of guest time (an instruction each)
all registers, device states and RAM. At the first difference it looks for the shortest run that
shows it, and prints both states and the instructions in front of it.
See docs/design/lockstep.md. Status 0: no difference; 1: one; 77: there is no such guest.
"""
import argparse
import json
import mmap
import os
import re
import subprocess
import sys
import tempfile
import time

CACHE = os.environ.get("TRAPEZE_CACHE") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "trapeze"
)
DIGESTS = "cpu_digest,machine_digest"
EVENTS = "*"  # what the whole run traces
SEARCH_POINTS = 16  # digests of a run that narrows the search
NEAR = 2048  # closer together than this, digests would change how blocks run: one each run
BEFORE = 80  # instructions that are shown


class Run:
    """One engine's run; lines() is its trace."""

    def __init__(self, trapeze, engine, options, extra):
        reader, writer = os.pipe()
        command = [trapeze, "run", "--engine", engine, "--counted", *options, *extra]
        command += ["--trace-file", f"/dev/fd/{writer}", "--log-level", "error"]
        self.console = tempfile.TemporaryFile()
        self.child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self.console, stderr=subprocess.STDOUT, pass_fds=[writer]
        )
        os.close(writer)
        self.trace = os.fdopen(reader, "r", buffering=1 << 16)

    def lines(self):
        for line in self.trace:
            yield line.rstrip("\n")
        self.child.wait()
        yield f"the end: status {self.child.returncode}"

    def text(self):
        self.console.seek(0)
        return self.console.read().decode(errors="replace")

    def end(self):
        self.child.kill()
        self.child.wait()
        self.trace.close()


class Lockstep:
    def __init__(self, trapeze, engines, options):
        self.trapeze, self.engines, self.options = trapeze, engines, options

    def compare(self, events, every, start, limit=None):
        """(time of the last equal digest, the two lines that differ or None, lines compared, console)."""
        extra = ["--trace", events, "--digest", str(every), "--digest-from", str(start)]
        runs = [Run(self.trapeze, engine, self.options, extra) for engine in self.engines]
        equal, lines, digests = 0, 0, 0
        try:
            for pair in zip(runs[0].lines(), runs[1].lines()):
                if pair[0] != pair[1]:
                    return equal, pair, lines, ""
                lines += 1
                if pair[0].startswith("machine_digest"):
                    equal = digest_time(pair[0])
                    digests += 1
                    if digests == limit:
                        return equal, None, lines, ""
            return equal, None, lines, runs[0].text()
        finally:
            for run in runs:
                run.end()

    def differs_at(self, ns):
        return self.compare(DIGESTS, 2**62, ns, limit=1)[1] is not None

    def narrow(self, low, high):
        """Digests are equal at low and differ at high: the same of two times next to each other."""
        while high - low > 1:
            print(f"lockstep: equal at {low} ns, different at {high} ns", flush=True)
            if high - low > NEAR * SEARCH_POINTS:
                every = (high - low) // SEARCH_POINTS
                equal, pair, _, _ = self.compare(DIGESTS, every, low, limit=SEARCH_POINTS)
                if pair:
                    low, high = equal, equal + every
                else:  # it hides from digests in between
                    low = max(low, equal)
            else:
                middle = (low + high) // 2
                if self.differs_at(middle):
                    high = middle
                else:
                    low = middle
        return low, high


def digest_time(line):
    return int(re.search(r" at (\d+) ns", line)[1])


class Paused:
    """A run that stands still at a time."""

    def __init__(self, trapeze, engine, options, ns, folder):
        self.trapeze, self.socket = trapeze, os.path.join(folder, engine + ".sock")
        command = [trapeze, "run", "--engine", engine, "--counted", *options]
        command += ["--pause-at", str(ns), "--monitor", self.socket, "--log-level", "error"]
        self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while (self.monitor("status") or {}).get("state") != "paused":
            if self.child.poll() is not None:
                sys.exit(f"lockstep: {engine} ended before {ns} ns")
            time.sleep(0.1)

    def monitor(self, *words):
        answer = subprocess.run(
            [self.trapeze, "monitor", self.socket, *words, "--json"], capture_output=True, text=True, check=False
        )
        return json.loads(answer.stdout) if answer.returncode == 0 else None

    def state(self):
        return self.monitor("inspect")["state"]

    def ram(self):
        """The RAM file, mapped."""
        folder = f"/proc/{self.child.pid}/fd"
        for name in os.listdir(folder):
            if "memfd:trapeze-ram" in os.readlink(os.path.join(folder, name)):
                with open(os.path.join(folder, name), "rb") as file:
                    return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        sys.exit("lockstep: no RAM file")

    def code(self, rip):
        gpa = (self.monitor("translate", hex(rip)) or {}).get("gpa")
        answer = self.monitor("memory-read", gpa, "size=16") if gpa else None
        return bytes.fromhex(answer["data"]) if answer else b""

    def end(self):
        self.child.kill()
        self.child.wait()


def flatten(state, path=""):
    if isinstance(state, dict):
        for name, value in state.items():
            yield from flatten(value, f"{path}.{name}" if path else name)
    elif isinstance(state, list):
        for index, value in enumerate(state):
            yield from flatten(value, f"{path}[{index}]")
    else:
        yield path, state


def print_states(engines, paused):
    first, second = (dict(flatten(one.state())) for one in paused)
    print(f"lockstep: state that differs: {engines[0]}, {engines[1]}")
    for name in first:
        if first[name] != second.get(name):
            print(f"  {name}: {first[name]}  {second.get(name)}")
    print("lockstep: main registers")
    for name in ["rip", "rflags", *(f"gpr[{n}]" for n in range(16))]:
        print(f"  {name}: {first.get('cpu0.' + name)}  {second.get('cpu0.' + name)}")


def print_ram(engines, paused):
    rams = [one.ram() for one in paused]
    print(f"lockstep: RAM that differs, at most 32 words: {engines[0]}, {engines[1]}")
    shown = 0
    for page in range(0, len(rams[0]), 4096):
        a, b = (ram[page : page + 4096] for ram in rams)
        for at in range(0, 4096 if a != b else 0, 8):
            if a[at : at + 8] != b[at : at + 8] and shown < 32:
                x, y = (int.from_bytes(text[at : at + 8], "little") for text in (a, b))
                print(f"  {page + at:#x}: {x:016x}  {y:016x}")
                shown += 1


def disassemble(code, rip):
    """One instruction, by objdump where there is one; else its bytes."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(code)
        file.flush()
        command = ["objdump", "-D", "-b", "binary", "-m", "i386:x86-64", f"--adjust-vma={rip:#x}", file.name]
        try:
            text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        except FileNotFoundError:
            return code.hex()
    found = re.search(r"^\s*[0-9a-f]+:\t(.*)", text, re.M)
    return found[1].replace("\t", " ") if found else code.hex()


def print_instructions(lockstep, paused, ns):
    """By the first engine, one digest an instruction."""
    start = max(1, ns - BEFORE)
    extra = ["--trace", "cpu_digest,cpu_event", "--digest", "1", "--digest-from", str(start)]
    run = Run(lockstep.trapeze, lockstep.engines[0], lockstep.options, extra)
    print(f"lockstep: instructions from {start} ns, by {lockstep.engines[0]}")
    last = None
    for line in run.lines():
        if last and line.startswith("cpu_event"):
            print(f"  {line}; the handler's first instruction is not shown")
        if line.startswith("cpu_event"):
            continue
        found = re.search(r"at (\d+) ns rip 0x([0-9a-f]+)", line)
        if not found or int(found[1]) > ns:
            break
        rip = int(found[2], 16)
        if rip != last:
            print(f"  {found[1]} {rip:16x}  {disassemble(paused.code(rip), rip)}")
        last = rip
    run.end()


def report(lockstep, low, high):
    print(f"lockstep: the same at {low} ns, not at {high} ns")
    with tempfile.TemporaryDirectory() as folder:
        paused = [
            Paused(lockstep.trapeze, engine, lockstep.options, high, folder) for engine in lockstep.engines
        ]
        try:
            print_states(lockstep.engines, paused)
            print_ram(lockstep.engines, paused)
            print_instructions(lockstep, paused[0], high)
        finally:
            for one in paused:
                one.end()


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("trapeze")
    parser.add_argument("--guest", help="a kernel and initramfs of tools/guests.sh: cloud, generic, i386")
    parser.add_argument("--every", type=int, default=5000000)
    parser.add_argument("--from", type=int, default=1, dest="start")
    parser.add_argument("--engines", default="interpreter,translator")
    parser.add_argument("--expect", default="", help="text that the guest has to print")
    words = sys.argv[1:]
    split = words.index("--") if "--" in words else len(words)
    arguments = parser.parse_args(words[:split])
    arguments.options = words[split + 1 :]
    if arguments.guest:
        folder = os.path.join(CACHE, arguments.guest)
        for option, name in (("--kernel", "vmlinuz"), ("--initrd", "initramfs.cpio")):
            arguments.options += [option, os.path.join(folder, name)]
            if not os.path.exists(os.path.join(folder, name)):
                print(f"lockstep: {os.path.join(folder, name)} is not there; run tools/guests.sh")
                sys.exit(77)
    return arguments


def main():
    arguments = parse()
    lockstep = Lockstep(arguments.trapeze, arguments.engines.split(","), arguments.options)
    equal, pair, lines, console = lockstep.compare(EVENTS, arguments.every, arguments.start)
    if not pair:
        if arguments.expect not in console:
            print(console)
            sys.exit(f"lockstep: the guest did not print '{arguments.expect}'")
        print(f"lockstep: {lines} lines of trace are the same; the last digest is of {equal} ns")
        return
    print(f"lockstep: after {lines} lines and the digest of {equal} ns\n  {pair[0]}\n  {pair[1]}", flush=True)
    high = equal + arguments.every
    if not lockstep.differs_at(high):
        sys.exit("lockstep: this goes away when digests are taken at other times")
    report(lockstep, *lockstep.narrow(max(1, equal), high))
    sys.exit(1)


main()
