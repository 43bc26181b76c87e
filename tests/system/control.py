#!/usr/bin/env python3
"""control.py TRAPEZE CASE - signals, monitor and gdb on a small guest (counter.S)

Skipped (status 77) without the assembler or, for the case gdb, without gdb.
"""
import atexit
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TIMEOUT_S = 60


def check(condition, what, *shown):
    if condition:
        return
    print(f"control: {what}", *shown, sep="\n")
    sys.exit(1)


def skip(why):
    print(f"control: {why}")
    sys.exit(77)


class Guest:
    """counter.S, assembled; its symbols."""

    def __init__(self, folder):
        if not shutil.which("as") or not shutil.which("ld"):
            skip("binutils are not installed")
        self.path = os.path.join(folder, "counter.elf")
        source = os.path.join(HERE, "counter.S")
        subprocess.run(["as", "--32", "-o", self.path + ".o", source], check=True)
        subprocess.run(
            ["ld", "-m", "elf_i386", "-Ttext", "0x200000", "-o", self.path, self.path + ".o"],
            check=True,
        )
        listing = subprocess.run(["nm", self.path], check=True, capture_output=True, text=True)
        self.at = {name: int(value, 16) for value, _, name in map(str.split, listing.stdout.splitlines())}


class Machine:
    """A trapeze run of the guest, with a monitor."""

    def __init__(self, trapeze, folder, *options, serial=True):
        self.trapeze = trapeze
        self.socket = os.path.join(folder, "vm.sock")
        guest = Guest(folder)
        self.at = guest.at
        self.kernel = guest.path
        command = [trapeze, "run", guest.path, "-m", "16M", "--monitor", self.socket]
        command += ["--serial", "null"] if serial else []
        self.child = subprocess.Popen(command + list(options), stdin=subprocess.DEVNULL)
        atexit.register(self.child.kill)
        self.wait_for(self.answers, "the monitor's answer")

    def answers(self):
        command = [self.trapeze, "monitor", self.socket, "status"]
        return subprocess.run(command, capture_output=True).returncode == 0

    def wait_for(self, condition, what):
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            check(self.child.poll() is None, f"the machine ended ({self.child.poll()})")
            check(time.monotonic() < deadline, f"{what} did not come")
            time.sleep(0.02)

    def monitor(self, *words, status=0):
        answer = subprocess.run(
            [self.trapeze, "monitor", self.socket, *words, "--json"], capture_output=True, text=True
        )
        check(answer.returncode == status, f"monitor {words}: {answer.returncode}", answer.stderr)
        return json.loads(answer.stdout) if answer.stdout else None

    def counter(self):
        data = self.monitor("memory-read", hex(self.at["counter"]), "size=4")["data"]
        return int.from_bytes(bytes.fromhex(data), "little")

    def end(self, expected):
        status = self.child.wait(TIMEOUT_S)
        check(status == expected, f"the exit status is {status}, not {expected}")
        check(not os.path.exists(self.socket), "the socket was left behind")


def case_monitor(trapeze, folder):
    machine = Machine(trapeze, folder)
    machine.wait_for(lambda: machine.counter() > 1000, "a counting guest")
    check(machine.monitor("status")["state"] == "running", "not running")
    machine.monitor("pause")
    before = machine.counter()
    time.sleep(0.1)
    check(machine.counter() == before, "it counts while paused")
    registers = machine.monitor("registers")
    rip = int(registers["rip"], 16)
    check(machine.at["_start"] <= rip < machine.at["_start"] + 64, "rip", registers)
    gpa = machine.monitor("translate", hex(machine.at["counter"]))["gpa"]
    check(int(gpa, 16) == machine.at["counter"], "translate", gpa)
    machine.monitor("resume")
    machine.wait_for(lambda: machine.counter() > before, "more counting")
    machine.monitor("pause")
    machine.monitor("reset")
    machine.wait_for(lambda: machine.counter() <= before, "a reset")
    check(machine.monitor("status")["state"] == "paused", "reset resumed the machine")
    machine.monitor("resume")
    machine.monitor("inspect", "cpu1", status=1)
    names = {device["id"] for device in machine.monitor("devices")["devices"]}
    for name in sorted(names):
        state = machine.monitor("inspect", name)["state"]
        check(isinstance(state, dict), f"no state of {name}")
    machine.monitor("stop", "9")
    machine.end(9)


def case_changed(trapeze, folder):
    """The kernel is read again at a reset, and has to be what it was."""
    machine = Machine(trapeze, folder)
    machine.wait_for(lambda: machine.counter() > 0, "a counting guest")
    os.utime(machine.kernel, (5, 5))
    machine.monitor("reset")
    machine.end(1)


def case_inspect(trapeze, folder):
    machine = Machine(trapeze, folder, "--cpus", "2")
    text = subprocess.run(
        [trapeze, "inspect", machine.socket], capture_output=True, text=True, check=True
    ).stdout
    for pattern in (r"^  cpu0:$", r"^  cpu1:$", r"^    rip: ", r"^  com1:$"):
        check(re.search(pattern, text, re.M), f"no {pattern}", text)
    machine.child.send_signal(signal.SIGTERM)
    machine.end(128 + signal.SIGTERM)


def case_interrupt(trapeze, folder):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    machine = Machine(trapeze, folder, "--paused")
    machine.child.send_signal(signal.SIGHUP)
    check(machine.counter() == 0, "it ran before the first instruction")
    check(machine.monitor("status")["state"] == "paused", "not paused")
    machine.child.send_signal(signal.SIGINT)
    machine.end(128 + signal.SIGINT)


def gdb(machine, port, *commands):
    words = ["gdb", "-nx", "-batch", "-ex", "set pagination off", "-ex", f"target remote {port}"]
    for command in commands:
        words += ["-ex", command]
    try:
        run = subprocess.run(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired as late:
        check(False, "gdb hangs", late.stdout)
    return run.stdout


def expect(text, *patterns):
    at = 0
    for pattern in patterns:
        found = re.compile(pattern, re.M).search(text, at)
        check(found, f"'{pattern}' does not come", text)
        at = found.end()


def case_gdb(trapeze, folder):
    if not shutil.which("gdb"):
        skip("gdb is not installed")
    port = os.path.join(folder, "gdb.sock")
    machine = Machine(trapeze, folder, "--gdb", "unix:" + port, "--paused", "--cpus", "2")
    visit, counter, leave = (machine.at[name] for name in ("visit", "counter", "leave"))
    text = gdb(
        machine,
        port,
        "info threads",
        "info registers rip cr0 efer",
        f"break *{visit:#x}",
        "continue",
        f"x/1dw {counter:#x}",
        "continue",
        f"x/1dw {counter:#x}",
        "delete",
        f"watch *(int *){counter:#x}",
        "continue",
        "delete",
        f"hbreak *{visit:#x}",
        "continue",
        "stepi",
        "info registers rbx rip",
        "monitor status",
        f"tbreak *{visit:#x}",
        "detach",
    )
    expect(
        text,
        r"\* 1 +Thread 1 \(cpu0 \[running\]\)",
        r"  2 +Thread 2 \(cpu1 \[waiting for start-up\]\)",
        rf"rip +{machine.at['_start']:#x}",
        r"cr0 .*\[ PE .*\]",
        rf"hit Breakpoint 1, 0x0*{visit:x}",
        rf"{counter:#x}:\s+1$",
        rf"hit Breakpoint 1, 0x0*{visit:x}",
        rf"{counter:#x}:\s+2$",
        r"hit Hardware watchpoint 2",
        r"Old value = 2\s+New value = 3",
        rf"hit Breakpoint 3, 0x0*{visit:x}",
        r"rbx +0x3 ",
        rf"rip +{visit + 6:#x}",
        r"state: paused",
        r"detached",
    )
    machine.wait_for(lambda: machine.counter() > 1000, "counting after detach")
    text = gdb(
        machine,
        port,
        "info registers rip",
        f"set var *(int *){leave:#x} = 5",
        f"break *{machine.at['leave_now']:#x}",
        "continue",
        "p $eax",
        "continue",
    )
    expect(text, rf"hit Breakpoint 1, 0x0*{machine.at['leave_now']:x}", r"= 5", r"exited with code 013")
    machine.end(11)


def seccomp(pid):
    """Of each thread."""
    tasks = os.listdir(f"/proc/{pid}/task")
    return {re.search(r"^Seccomp:\s*(\d)", open(f"/proc/{pid}/task/{t}/status").read(), re.M)[1] for t in tasks}


def case_sandbox(trapeze, folder):
    """All threads are in it, unless it is not wanted; backends work in it and clean up behind them."""
    if re.search(b"__[at]san_init", open(trapeze, "rb").read()):
        skip("there is no sandbox under sanitizers")
    link, path = (os.path.join(folder, name) for name in ("pty", "serial.sock"))
    machine = Machine(trapeze, folder, "--cpus", "2", "--serial", f"pty:link={link}", "--serial",
                      f"socket:path={path}", serial=False)
    check(seccomp(machine.child.pid) == {"2"}, "not all threads are in the sandbox", seccomp(machine.child.pid))
    for _ in range(2):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.send(b"x")
        client = os.open(link, os.O_RDWR | os.O_NOCTTY)
        os.write(client, b"x")
        os.close(client)
        check(machine.monitor("status") is not None, "the monitor does not answer")
    machine.monitor("stop")
    check(machine.child.wait(TIMEOUT_S) == 0, "the machine did not end well", machine.child.returncode)
    check(os.listdir(folder).count("serial.sock") == 0 and not os.path.lexists(link), "names were left behind",
          os.listdir(folder))
    machine = Machine(trapeze, folder, "--sandbox", "off")
    check(seccomp(machine.child.pid) == {"0"}, "there is a sandbox, although it is off")


def case_addresses(trapeze, folder):
    """A card's address is the same at each start, if the machine has a disk or a UUID; else it is another one."""
    disk = os.path.join(folder, "disk.img")
    with open(disk, "wb") as image:
        image.truncate(1 << 20)

    def address(*options):
        listener = os.path.join(folder, "net.sock")
        machine = Machine(trapeze, folder, "--net", f"socket,listen={listener},model=e1000", *options)
        receive = machine.monitor("inspect", "e1000")["state"]["ra"][:2]
        machine.monitor("stop")
        machine.end(0)
        return receive

    check(address() != address(), "two machines have one address")
    for options in ("--disk", disk), ("--uuid", "e0a5bd1e-7b3c-4b3f-9a52-5f2f0b0f7a11"), ("--counted",):
        first = address(*options)
        check(first == address(*options), f"{options}: another address")
        check(first != address(*options, "--name", "other"), f"{options}: two names have one address")


def case_plug(trapeze, folder):
    """What is plugged in is opened by who plugs it in: the machine in its sandbox opens nothing."""
    if re.search(b"__[at]san_init", open(trapeze, "rb").read()):
        skip("there is no sandbox under sanitizers")
    disk, overlay, peer, capture = (os.path.join(folder, name) for name in ("disk.img", "over.qcow2", "net", "pcap"))
    with open(disk, "wb") as image:
        image.truncate(8 << 20)
    subprocess.run([trapeze, "image", "create", "-b", disk, "-F", "raw", overlay], check=True, capture_output=True)
    machine = Machine(trapeze, folder, "--net", "none", "--hotplug", "5")

    def add(*words):
        command = [trapeze, "device", "add", machine.socket, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)

    for words in (
        ("--disk", f"{overlay},if=nvme"),
        ("--disk", f"{disk},snapshot=on,serial=1"),
        ("--net", f"socket,listen={peer},model=e1000,capture={capture}"),
    ):
        done = add(*words)
        check(done.returncode == 0, f"{words} was not added", done.stderr)
    check("somebody else has it open" in add("--disk", overlay).stderr, "a disk in use was added")
    for words, error in (
        (("--net", f"user,romfile={folder}/none"), "romfile: cannot open: No such file"),
        (("--net", f"user,tftp={folder}"), "read no files"),
        (("--disk", "nbd://localhost/x"), "look up no name"),
        (("--disk", "nbds://127.0.0.1/x"), "read no certificates"),
        (("--disk", f"nbd+unix:///x?socket={folder}/nbd"), "connect to no unix socket"),
    ):
        done = add(*words)
        check(done.returncode == 1 and error in done.stderr, f"{words} was added", done.stderr)
    rom = os.path.join(folder, "card.rom")
    with open(rom, "wb") as file:
        file.write(b"\x55\xaa\x02".ljust(1024, b"\0"))
    done = add("--net", f"user,romfile={rom}")
    check(done.returncode == 0, "a card with a ROM was not added", done.stderr)
    answer = machine.monitor("device-add", f"disk={disk},snapshot=on", status=1)
    check("Permission denied" in answer["error"], "the machine opens files by itself", answer)
    machine.monitor("give", "name=x", status=1)
    machine.monitor("stop")
    machine.end(0)
    check(os.path.exists(capture) and not os.path.exists(peer), "a capture is missing, or a socket is left")


def case_sockets(trapeze, folder):
    """One path for two servers is an error at once."""
    path = os.path.join(folder, "vm.sock")
    command = [trapeze, "run", Guest(folder).path, "-m", "16M", "--serial", "null", "--monitor", path]
    for other in ("--display", f"vnc=unix:{path}"), ("--gdb", f"unix:{path}"):
        done = subprocess.run([*command, *other], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        check(done.returncode == 1 and "listens on this socket already" in done.stderr, f"{other} works", done.stderr)
        check(not os.path.exists(path), "the socket was left behind")


CASES = {
    "addresses": case_addresses,
    "changed": case_changed,
    "gdb": case_gdb,
    "inspect": case_inspect,
    "interrupt": case_interrupt,
    "monitor": case_monitor,
    "plug": case_plug,
    "sandbox": case_sandbox,
    "sockets": case_sockets,
}


def main():
    trapeze, name = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        CASES[name](trapeze, folder)
    print(f"control: {name}: passed")


if __name__ == "__main__":
    main()
