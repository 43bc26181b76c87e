"""modules.py - a Debian kernel with some of its own modules and a shell, for tests of devices that it drives

The generic kernel, unless another guest is named. Skipped by can_run() without it (tools/guest.sh GUEST).
"""
import os
import subprocess
import time

import boot

LIMIT_S = 600
SHELL = """for m in $(cat /modules/list); do insmod /modules/$m.ko $(cat /modules/$m.options 2>/dev/null) || echo no module $m; done
PS1='rea''dy> ' exec sh
"""


def path_of(name, guest="generic"):
    return os.path.join(boot.CACHE, guest, name)


def find(names, guest="generic"):
    found = {}
    for folder, _, files in os.walk(path_of("", guest)):
        found.update({name[:-3]: os.path.join(folder, name) for name in files if name.endswith(".ko")})
    return {name: found[name] for name in names if name in found}


def can_run(test, names, least=None, guest="generic"):
    """least: how many there have to be; what is part of the kernel itself is no module."""
    if os.path.exists(path_of("vmlinuz", guest)) and len(find(names, guest)) >= (least or len(names)):
        return True
    print(f"{test}: {path_of('', guest)} is not there; run tools/guest.sh {guest}")
    return False


def write_ramdisk(path, names, files=(), guest="generic"):
    """An archive (cpio, newc) that goes over the guest's own. files: name, mode and bytes."""
    found = find(names, guest)
    entries = [("modules", 0o40755, b"")]
    for name, source in found.items():
        with open(source, "rb") as file:
            entries.append((f"modules/{name}.ko", 0o100644, file.read()))
    entries.append(("modules/list", 0o100644, " ".join(found).encode()))
    entries.append(("shell", 0o100755, (boot.GUEST_BEGIN + SHELL).encode()))
    entries += [*files, ("TRAILER!!!", 0, b"")]
    with open(path, "wb") as out:
        for number, (name, mode, data) in enumerate(entries):
            fields = (number + 1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
            out.write(b"070701" + b"".join(b"%08x" % field for field in fields))
            for part in (name.encode() + b"\0", data):
                out.write(part)
                out.write(b"\0" * (-out.tell() % 4))


class Machine:
    """names: modules, each after those that it needs; None: options say what starts."""

    def __init__(self, trapeze, folder, names, options, files=()):
        self.trapeze = trapeze
        self.socket = os.path.join(folder, "vm.sock")
        self.deadline = time.monotonic() + LIMIT_S
        command = [trapeze, "run", "--monitor", self.socket, *options]
        if names is not None:
            ramdisk = os.path.join(folder, "modules.cpio")
            write_ramdisk(ramdisk, names, files)
            command += ["--kernel", path_of("vmlinuz"), "--append", "console=ttyS0 quiet rdinit=/shell"]
            command += ["--initrd", path_of("initramfs.cpio"), "--initrd", ramdisk]
        self.console = boot.Console(command, interactive=True)

    def expect(self, pattern):
        if not self.console.wait_for(pattern, self.deadline):
            boot.fail(self.console, f"'{pattern}' did not appear within {LIMIT_S} s")

    def shell(self, command, pattern):
        """Type a command; what it prints, up to the next prompt, has to match."""
        self.console.write(command + "\r")
        self.expect(pattern + r"[^>]*ready> ")

    def client(self, *words):
        done = subprocess.run([self.trapeze, *words], capture_output=True)
        if done.returncode:
            boot.fail(self.console, f"{' '.join(words)}: {done.stderr.decode()}")

    def wait(self, test):
        self.shell(f"for n in $(seq 300); do if {test}; then echo it-'is'; break; fi; sleep 0.2; done", "it-is")

    def power_off(self):
        self.console.write("poweroff -f\r")
        self.expect(boot.OFF)
        if self.console.finish(self.deadline) != 0:
            boot.fail(self.console, "it did not end well")
        boot.check_console(self.console)
