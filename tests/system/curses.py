#!/usr/bin/env python3
"""curses.py TRAPEZE - a VGA's text modes in a terminal, which is tmux's

SeaBIOS and GRUB are read there, GRUB is typed to, the window gets smaller, graphics are told of; the terminal is as it
was when the machine ends by the escape key and by SIGSEGV. Skipped (status 77) without tmux or what the CD is made of.
"""
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import cd

LIMIT_S = 60
ENTRY = "memory test"


class Terminal:
    """A window of tmux with a shell, whose screen can be read."""

    def __init__(self, folder):
        self.socket = os.path.join(folder, "tmux")
        self.deadline = time.monotonic() + LIMIT_S
        self.do("-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", "env PS1='shell> ' sh")

    def do(self, *words):
        env = {**os.environ, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            ["tmux", "-u", "-S", self.socket, *words], capture_output=True, timeout=30, check=False, env=env
        )
        assert done.returncode == 0, f"tmux {words}: {done.stderr.decode()}"
        return done.stdout.decode()

    def read(self, *options):
        return self.do("capture-pane", "-p", *options)

    def expect(self, pattern, *options):
        while True:
            text = self.read(*options)
            if re.search(pattern, text):
                return text
            assert time.monotonic() < self.deadline, f"'{pattern}' is not there, but:\n{text}"
            time.sleep(0.02)

    def keys(self, *names):
        self.do("send-keys", *names)

    def type(self, text):
        self.do("send-keys", "-l", text)

    def expect_given_back(self, status):
        """The shell's screen, in its usual mode, with what was said meanwhile."""
        self.expect(rf": before\s[\s\S]*engine translator[\s\S]*status {status}\b")
        self.keys("stty -a | tr ' ;' '\\n\\n' | grep -x -E -e '-?(echo|icanon|isig|opost)' | xargs", "Enter")
        self.expect(r"\nisig icanon echo opost|\nopost isig icanon echo")
        self.keys("clear", "Enter")
        self.expect(r"\Ashell>\s*\Z")


def machine_of(terminal):
    """The process that the shell has started."""
    shell = terminal.do("display-message", "-p", "#{pane_pid}").strip()
    with open(f"/proc/{shell}/task/{shell}/children", encoding="ascii") as file:
        return int(file.read().split()[0])


def use(terminal, command):
    terminal.keys(": before", "Enter")
    terminal.type(command + "; echo status $?")
    terminal.keys("Enter")
    terminal.expect("trapeze: engine translator")  # what is said to standard error, for a moment
    terminal.expect(r"SeaBIOS \(version")
    terminal.expect(rf"┌─+┐\s+│\*{ENTRY}")
    colours = terminal.expect(rf"\*{ENTRY}", "-e")
    assert re.search(rf"\x1b\[[0-9;]*47m\*{ENTRY}", colours), f"no bar over the entry: {colours!r}"

    terminal.keys("c")
    terminal.expect("grub>")
    terminal.type('echo "Hello {World} ~|" A_z')
    terminal.keys("Enter")
    terminal.expect(r"\nHello \{World\} ~\| A_z")
    terminal.keys("Up", "Home", "DC", "DC", "DC", "DC", "DC")
    terminal.type("help ")
    terminal.expect(r'grub> help "Hello')
    terminal.keys("C-a", "C-a")  # to the beginning of the line
    terminal.type("X")
    terminal.expect(r'grub> Xhelp "Hello')

    terminal.keys("C-e", "C-u", "C-a", "h")
    terminal.expect("Ctrl-A x: ")
    terminal.do("resize-window", "-x", "60", "-y", "20")
    terminal.keys("x")
    text = terminal.expect("grub> x")
    assert len(text.split("\n")) <= 21, text
    terminal.do("resize-window", "-x", "100", "-y", "30")

    terminal.keys("BSpace")
    terminal.type("insmod vbe; videotest")
    terminal.keys("Enter")
    terminal.expect("The guest shows graphics")
    terminal.keys("Escape")
    terminal.expect("grub>")
    terminal.keys("Escape")
    terminal.expect(rf"\*{ENTRY}")
    terminal.keys("e")
    terminal.expect("Emacs-like")
    terminal.keys("F10")
    terminal.expect(r"Memtest86\+")


def main():
    trapeze = sys.argv[1]
    if not shutil.which("tmux"):
        print("curses: tmux is not there")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        iso, terminal = cd.make_cd("grub", folder), Terminal(folder)
        command = f"{trapeze} run -m 256M --net none --engine translator --cdrom {iso} --display curses"
        try:
            use(terminal, command)
            terminal.keys("C-a", "x")
            terminal.expect_given_back(0)
            use(terminal, command)
            os.kill(machine_of(terminal), signal.SIGSEGV)
            terminal.expect_given_back(128 + signal.SIGSEGV)
        finally:
            terminal.do("kill-server")
    return 0


if __name__ == "__main__":
    sys.exit(main())
