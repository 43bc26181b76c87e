#!/usr/bin/env python3
"""web.py TRAPEZE - the page of a machine, in Chromium: screen, console, buttons, two viewers

GRUB's menu of a CD is in the canvas as "trapeze screenshot" has it, and keys that are pressed there reach it. A
kernel's shell on the serial console reads what is typed into the terminal of one tab, and both tabs and the host's
terminal show it; the machine is paused, resumed and switched off by the buttons. Who has not the token stays out.
Skipped (status 77) without Chromium, noVNC, xterm.js or the guests.
"""
import base64
import glob
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import boot
import browser
import cd
import screen

LIMIT_S = 200
CANVAS = "#screen canvas"
# Red, green and blue of each pixel.
PIXELS = """
const canvas = document.querySelector(arguments[0]);
if (!canvas?.width) return null;
const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
let text = "";
for (let n = 0; n < data.length; n += 4)
  text += String.fromCharCode(data[n], data[n + 1], data[n + 2]);
return [canvas.width, canvas.height, btoa(text)];
"""
VALUE = "return document.querySelector(arguments[0]).value"
HEIGHT = "return document.querySelector(arguments[0])?.clientHeight ?? 0"
PACKAGES = {"novnc": "novnc/core/rfb.js", "node-xterm": "nodejs/xterm/lib/xterm.css"}
INIT = boot.GUEST_BEGIN + """insmod /evdev.ko
insmod /button.ko
acpid -d -c /acpi 2>/dev/null &
echo "web: ready"
setsid cttyhack sh
"""


def skip(why):
    print(f"web: {why}")
    sys.exit(77)


def start(trapeze, folder, options):
    """A machine with a page: the console, where the page is, and the machine's other screen."""
    path, deadline = os.path.join(folder, "vm.sock"), time.monotonic() + LIMIT_S
    command = [trapeze, "run", "--net", "none", "--web", "127.0.0.1:0", "--monitor", path, *options]
    console = boot.Console(command, interactive=True)
    if not console.wait_for(r"web page: (http://\S+)", deadline):
        boot.fail(console, "it says no address")
    url = re.findall(r"web page: (http://\S+)", console.text)[0]
    return console, url, screen.Screen(trapeze, console, path, deadline), deadline


def see_menu(trapeze, folder, page):
    iso = cd.make_cd("grub", folder)
    console, url, shown, deadline = start(trapeze, folder, ["-m", "256M", "--cdrom", iso])

    def is_same():
        seen = page.run(PIXELS, CANVAS)
        picture = shown.picture("web-menu")
        if not seen or seen[:2] != [picture.width, picture.height]:
            return False
        return base64.b64decode(seen[2]) == b"".join(picture.rows)

    page.open(url)
    if not console.wait_for(cd.MENU_READS, deadline):
        boot.fail(console, "there is no menu")
    page.click(CANVAS)
    page.press("{down}{up}")  # the menu waits from now on
    shown.wait_for_text("memory test")
    page.wait(is_same, deadline, "the canvas has not the picture of the screen")
    page.press("c")
    shown.wait_for_text("grub>")
    page.press("echo Where?/0")
    shown.wait_for_text(re.escape("grub> echo Where?/0"))
    here, there = page.tab(), page.new_tab()
    page.look_at(there)
    page.open(url)
    page.wait(is_same, deadline, "a second tab has not the picture of the screen")
    page.look_at(here)
    page.click("#clipboard summary")
    page.click("#clipboard-text")
    page.press(" # {copied")
    page.click("#type")
    shown.wait_for_text(re.escape("grub> echo Where?/0 # {copied"))
    page.look_at(there)
    page.wait(lambda: page.run(VALUE, "#clipboard-text") == " # {copied", deadline, "the clipboard is not shared")
    page.look_at(here)
    page.click("#clipboard summary")
    page.click(CANVAS)
    page.press("{escape}")
    shown.wait_for_text("memory test")
    page.wait(is_same, deadline, "the canvas has not the picture of the menu")
    page.click("#show-console")
    page.wait(lambda: page.run(HEIGHT, "#console .xterm") > 300, deadline, "there is no terminal on the other tab")
    page.click("#show-screen")
    page.wait(is_same, deadline, "the canvas is not as it was before the other tab")
    for button in ("#ctrl-alt-del", "#reset"):
        page.click(button)
        if button == "#reset":
            page.click("#question-yes")
        if not console.wait_for(cd.MENU_READS, deadline):
            boot.fail(console, f"it does not start again by {button}")
    page.click("#quit")
    page.click("#question-yes")
    if console.finish(deadline) != 0:
        boot.fail(console, "it does not end when that was confirmed")
    page.wait(lambda: page.text("#state") == "stopped", deadline, "the page does not know that the machine has ended")
    complaints = [line for line in page.log() if "Content Security" in line or "Refused" in line]
    assert not complaints, complaints


def make_overlay(folder):
    """The init, the driver of the button, and what it does, as an archive behind the guest's own."""
    root, overlay = os.path.join(folder, "root"), os.path.join(folder, "overlay.cpio")
    os.makedirs(os.path.join(root, "acpi/PWRF"))
    for name in ("acpi/button", "input/evdev"):
        found = glob.glob(f"{boot.CACHE}/cloud/linux-image-*/lib/modules/*/kernel/drivers/{name}.ko")
        if not found:
            skip(f"{name}.ko is not there; run tools/guests.sh")
        shutil.copy(found[0], root)
    for name, text in {"web-init": INIT, "acpi/PWRF/00000080": "#!/bin/sh\npoweroff -f\n"}.items():
        path = os.path.join(root, name)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        os.chmod(path, 0o755)
    with open(overlay, "wb") as out:
        subprocess.run("find . | cpio --quiet -o -H newc -R 0:0", shell=True, cwd=root, stdout=out, check=True)
    return overlay


def handshake(url, path, headers):
    """The status of a request for a WebSocket."""
    port = int(re.findall(r":(\d+)/", url)[0])
    lines = {
        "Host": f"127.0.0.1:{port}",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        **headers,
    }
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        client.sendall(f"GET {path} HTTP/1.1\r\n{text}\r\n".encode())
        return int(client.recv(4096).split()[1])


def use_console(trapeze, folder, page):
    guest = os.path.join(boot.CACHE, "cloud")
    options = ["--kernel", f"{guest}/vmlinuz", "--initrd", f"{guest}/initramfs.cpio,{make_overlay(folder)}"]
    append = "console=ttyS0 quiet rdinit=/web-init"
    console, url, _, deadline = start(trapeze, folder, [*options, "--append", append, "-m", "256M", "--vga", "none"])

    def reads(pattern):
        return lambda: re.search(pattern, page.text(".xterm-accessibility"))

    page.open(re.sub("#.*", "#" + "0" * 32, url))
    page.wait(lambda: "token" in page.text("#message"), deadline, "the page does not say that its token is wrong")
    page.open(url)
    if not console.wait_for("web: ready", deadline):
        boot.fail(console, "the guest does not start")
    page.wait(reads("web: ready"), deadline, "the terminal does not show what was said before")
    page.click("#console .xterm")
    page.press('echo "<$((6*7))>"{enter}')
    if not console.wait_for("<42>", deadline):
        boot.fail(console, "what was typed into the page did not reach the shell")
    page.wait(reads("<42>"), deadline, "the terminal does not show the answer")
    console.write('echo "[$((7*7))]"\r')  # both may type
    page.wait(reads(r"\[49\]"), deadline, "the terminal does not show what was typed on the host's")
    first, second = page.tab(), page.new_tab()
    page.look_at(second)
    page.open(url)
    page.wait(reads(r"<42>[\s\S]*\[49\]"), deadline, "a second viewer does not see the past")
    page.wait(lambda: page.text("#statistics").startswith("CPU"), deadline, "there are no statistics")
    page.click("#pause")
    page.look_at(first)
    page.wait(lambda: page.text("#state") == "paused", deadline, "the other tab does not know that it is paused")
    page.click("#pause")
    page.wait(lambda: page.text("#state") == "running", deadline, "it does not go on")
    token = url.split("#")[1]
    for path in ("/monitor", "/console"):
        assert handshake(url, path, {}) == 401
        wrong = "0" * len(token)
        assert handshake(url, path, {"Sec-WebSocket-Protocol": f"trapeze, token.{wrong}"}) == 403
        right = {"Sec-WebSocket-Protocol": f"trapeze, token.{token}"}
        assert handshake(url, path, {**right, "Origin": "http://evil.example"}) == 403
        assert handshake(url, path, {**right, "Host": "evil.example"}) == 403
        assert handshake(url, path, right) == 101
    page.click("#power")
    if console.finish(deadline) != 0 or "Power down" not in console.text:
        boot.fail(console, "the power button does not switch it off")
    page.wait(lambda: page.text("#state") == "stopped", deadline, "the page does not know that the machine has ended")


def main():
    if not browser.is_there():
        skip("there is no Chromium: install chromium and chromium-driver")
    for package, file in PACKAGES.items():
        if not os.path.exists(f"/usr/share/{file}"):
            skip(f"install {package}")
    with tempfile.TemporaryDirectory() as folder:
        page = browser.Browser(os.path.join(folder, "profile"))
        try:
            see_menu(sys.argv[1], folder, page)
            use_console(sys.argv[1], folder, page)
        finally:
            page.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
