#!/usr/bin/env python3
"""window.py TRAPEZE - a machine in a window, on an X server without a screen

The window of "--display sdl" has the pixels that "trapeze screenshot" and a viewer of VNC have at the same time; what is typed
there reaches GRUB; full screen, scaling, the grab, the clipboard, closing; "trapeze list" and "trapeze open" by the machine's name.
Skipped (status 77) without Xvfb, xdotool, xwd, xclip, openbox or what the CD is made of.
"""
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time

import boot
import cd
import screen
import vnc

LIMIT_S = 240
NAME = f"window-test-{os.getpid()}"
TITLE = rf"^{NAME}.* - Trapeze$"


class Desktop:
    """An X server and a window manager."""

    def __init__(self, folder):
        self.deadline = time.monotonic() + LIMIT_S
        read, write = os.pipe()
        words = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x1024x24", "-nolisten", "tcp"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.processes = [subprocess.Popen(words, pass_fds=[write], **quiet)]
        os.close(write)
        with os.fdopen(read) as file:
            os.environ["DISPLAY"] = f":{file.readline().strip()}"
        os.environ.update(SDL_VIDEODRIVER="x11", HOME=folder)
        self.processes.append(subprocess.Popen(["openbox"], **quiet))
        self.wait("there is no window manager", lambda: self.tool("get_num_desktops"))
        time.sleep(1)  # a window that comes while it starts is not seen by it

    def close(self):
        for process in reversed(self.processes):
            process.terminate()
            process.wait()

    def tool(self, *words):
        done = subprocess.run(["xdotool", *map(str, words)], capture_output=True, timeout=60, check=False)
        return done.stdout.decode()

    def wait(self, what, test):
        while not (found := test()):
            assert time.monotonic() < self.deadline, what
            time.sleep(0.05)
        return found

    def windows(self):
        return [int(word) for word in self.tool("search", "--onlyvisible", "--name", TITLE).split()]

    def find(self, count=1):
        return self.wait(f"there are not {count} windows", lambda: (w := self.windows())[count - 1 :] and w)

    def title(self, window):
        return self.tool("getwindowname", window).strip()

    def expect_title(self, window, pattern):
        self.wait(f"the title is not '{pattern}'", lambda: re.search(pattern, self.title(window)))

    def size(self, window):
        return tuple(map(int, re.search(r"Geometry: (\d+)x(\d+)", self.tool("getwindowgeometry", window)).groups()))

    def expect_size(self, window, width, height):
        self.wait(f"the size is not {width}x{height}", lambda: self.size(window) == (width, height))

    def rows(self, window):
        """The window's pixels: rows of 3 bytes a pixel."""
        data = subprocess.run(["xwd", "-silent", "-id", str(window)], capture_output=True, check=True).stdout
        header = struct.unpack(">25I", data[:100])
        width, height, order, bits, stride = header[4], header[5], header[7], header[11], header[12]
        assert bits == 32 and order == 0, f"{bits} bits, order {order}"
        at, rows = header[0] + 12 * header[19], []
        for y in range(height):
            row = data[at + stride * y : at + stride * y + 4 * width]
            out = bytearray(3 * width)
            out[0::3], out[1::3], out[2::3] = row[2::4], row[1::4], row[0::4]
            rows.append(bytes(out))
        return rows


def still(shown):
    """A picture without a cursor that blinks: GRUB's menu, which waits."""
    shown.wait_for_text(r"\*memory test(?![\s\S]*automatically)")
    return shown.picture("window").rows


def share_clipboard(desktop, viewer, window):
    """What a viewer of VNC copies is on the desktop's clipboard, and the other way round."""
    words = ["xclip", "-selection", "clipboard"]
    viewer.socket.sendall(struct.pack(">B3xI", 6, 9) + b"from afar")
    desktop.wait(
        "there is nothing on the clipboard",
        lambda: subprocess.run([*words, "-o"], capture_output=True, check=False).stdout == b"from afar",
    )
    subprocess.run([*words, "-i"], input=b"from here", check=True, stdout=subprocess.DEVNULL)
    desktop.tool("windowactivate", "--sync", window)
    viewer.ask()
    while (kind := viewer.read(1)) != b"\3":  # updates come first
        assert kind == b"\0", f"message {kind}"
        for _ in range(struct.unpack(">xH", viewer.read(3))[0]):
            x, y, width, height, encoding = struct.unpack(">HHHHi", viewer.read(12))
            assert encoding == vnc.RAW, f"encoding {encoding}"
            viewer.put(x, y, width, height, viewer.unpack(viewer.read(4 * width * height), False))
    text = viewer.read(struct.unpack(">3xI", viewer.read(7))[0])
    assert text == b"from here", f"the viewer's clipboard has {text}"


def see(desktop, console, shown, path):
    (window,) = desktop.find()
    shown.wait_for_text(r"\*memory test[\s\S]*automatically")
    console.write("\x1b[B")  # the menu waits from now on
    desktop.tool("windowactivate", "--sync", window)
    desktop.tool("key", "Down")
    desktop.expect_size(window, 720, 400)
    desktop.wait("the window is not the picture", lambda: desktop.rows(window) == still(shown))
    rows = still(shown)
    viewer = vnc.Viewer(path, vnc.RAW)
    viewer.update()
    assert [bytes(row) for row in viewer.rows] == rows, "VNC shows something else"

    share_clipboard(desktop, viewer, window)

    desktop.tool("windowsize", window, 1280, 800)  # 1280 is 1.78 times 720, 800 twice 400: as large as fits
    desktop.expect_size(window, 1280, 800)
    desktop.tool("windowsize", window, 720, 800)
    desktop.expect_size(window, 720, 800)
    middle = [bytes(3 * 720)] * 200 + rows + [bytes(3 * 720)] * 200
    desktop.wait("it is not in the middle", lambda: desktop.rows(window) == middle)
    desktop.tool("key", "ctrl+alt+f")
    desktop.expect_size(window, 1280, 1024)
    desktop.tool("key", "ctrl+alt+f")
    desktop.expect_size(window, 720, 800)
    desktop.tool("key", "ctrl+alt+u")
    desktop.expect_size(window, 720, 400)
    desktop.tool("key", "ctrl+alt+g")
    desktop.expect_title(window, "Ctrl-Alt-G lets go")
    desktop.tool("key", "ctrl+alt+g")
    desktop.expect_title(window, rf"^{NAME} - ")
    return window


def use(desktop, shown, window):
    desktop.tool("key", "c")
    shown.wait_for_text("grub>")
    desktop.tool("type", "--delay", "60", 'echo "Hello {World} ~|/"')
    desktop.tool("key", "Return")
    shown.wait_for_text(r"\nHello \{World\} ~\|/")
    desktop.tool("key", "Escape")
    still(shown)
    subprocess.run([shown.trapeze, "monitor", NAME, "pause"], check=True, stdout=subprocess.DEVNULL)
    desktop.expect_title(window, "stands still")
    subprocess.run([shown.trapeze, "monitor", NAME, "resume"], check=True, stdout=subprocess.DEVNULL)


def open_another(desktop, shown, window, path):
    listed = json.loads(subprocess.run([shown.trapeze, "list", "--json"], capture_output=True, check=True).stdout)
    mine = [machine for machine in listed if machine["name"] == NAME]
    assert len(mine) == 1 and mine[0]["state"] == "running", f"listed are {listed}"
    assert mine[0]["viewers"]["vnc"] == path, f"listed are {listed}"
    bare = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "SDL_VIDEODRIVER")}
    done = subprocess.run([shown.trapeze, "open", NAME], env=bare, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1 and f"VNC on {path}" in done.stderr.decode(), f"without a desktop: {done}"
    other = subprocess.Popen([shown.trapeze, "open", NAME])
    (second,) = set(desktop.find(2)) - {window}
    rows = still(shown)
    desktop.wait("it shows something else", lambda: desktop.rows(second) == rows)
    desktop.tool("windowactivate", "--sync", second, "key", "alt+F4")
    assert (status := other.wait(20)) == 0, f"the other window's status is {status}"
    desktop.wait("the other window is still there", lambda: desktop.windows() == [window])  # what looks may see it go


def main():
    trapeze = sys.argv[1]
    for name in ["Xvfb", "xdotool", "xwd", "xclip", "openbox"]:
        if not shutil.which(name):
            print(f"window: {name} is not there")
            return 77
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        iso, path = cd.make_cd("grub", folder), os.path.join(folder, "vnc")
        desktop = Desktop(folder)
        console = None
        try:
            options = ["--name", NAME, "--cdrom", iso, "--display", "sdl", "--display", f"vnc=unix:{path}"]
            console, shown = screen.start(trapeze, folder, "window", options, desktop.deadline)
            window = see(desktop, console, shown, path)
            use(desktop, shown, window)
            open_another(desktop, shown, window, path)
            desktop.tool("windowactivate", "--sync", window, "key", "alt+F4")
            desktop.expect_title(window, "asked to power off")
            desktop.tool("key", "alt+F4")
            if console.finish(desktop.deadline) != 0:
                boot.fail(console, "its status is not 0")
            assert not os.listdir(os.path.join(folder, "trapeze")), "its socket is left"
        except AssertionError as error:
            boot.fail(console, str(error))
        finally:
            desktop.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
