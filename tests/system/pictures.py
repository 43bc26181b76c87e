#!/usr/bin/env python3
"""pictures.py TRAPEZE CASE - the screens of systems, seen in three ways that have the same pixels

"trapeze screenshot"; gvnccapture, a viewer of VNC that others have written; and the page of the machine in
Chromium. The machine is paused meanwhile, so that nothing blinks. Texts are read before, where a text mode has them.
CASES has what is started and done. Pictures stay in the folder SCREEN_PICTURES, if it is set. Skipped (status 77) without gvnccapture,
Chromium and the guests.
"""
import base64
import os
import re
import subprocess
import sys
import tempfile
import time

import boot
import browser
import capture
import cd
import debian
import screen
import web

LIMIT_S = 500
INSTALLER = os.path.join(boot.CACHE, "installer")
BAR_Y, BAR_X = 186, range(200, 510)  # within the selected line of the installer's menu, behind its word
IPXE = "/usr/lib/ipxe/qemu/efi-virtio.rom"


class Shown:
    """A machine whose screen is looked at."""

    def __init__(self, trapeze, folder, page, name, options):
        self.folder, self.page, self.name, self.deadline = folder, page, name, time.monotonic() + LIMIT_S
        path = os.path.join(folder, "vm.sock")
        command = [trapeze, "run", "--monitor", path, "--display", "vnc", "--web", "127.0.0.1:0", *options]
        self.console = boot.Console(command, interactive=True)
        self.screen = screen.Screen(trapeze, self.console, path, self.deadline)
        self.expect(r"web page: http://\S+ ?")
        self.port = int(re.findall(r"vncviewer 127\.0\.0\.1::(\d+)", self.console.text)[0])
        page.open(re.findall(r"web page: (http://\S+)", self.console.text)[0])

    def fail(self, why):
        boot.fail(self.console, why)

    def expect(self, pattern):
        if not self.console.wait_for(pattern, self.deadline):
            self.fail(f"'{pattern}' did not appear")

    def do(self, verb, *arguments):
        subprocess.run([self.screen.trapeze, verb, self.screen.socket, *arguments], check=True, stdout=subprocess.DEVNULL)

    def look(self, what, width, height, colours):
        """It has this size, so many colours at least, and all see the same."""
        name = f"{self.name}-{what}"
        self.do("monitor", "pause")
        picture = self.screen.picture(name)
        found = (picture.width, picture.height, len(picture.colours()))
        if found[:2] != (width, height) or found[2] < colours:
            self.fail(f"{what}: {found[0]}x{found[1]} pixels of {found[2]} colours")
        if capture.capture(self.port, self.folder, name).rows != picture.rows:
            self.fail(f"{what}: gvnccapture sees another picture")
        pixels = b"".join(picture.rows)

        def is_same():
            seen = self.page.run(web.PIXELS, web.CANVAS)
            return seen and seen[:2] == [width, height] and base64.b64decode(seen[2]) == pixels

        self.page.wait(is_same, time.monotonic() + 30, f"{what}: the page shows another picture")
        self.do("monitor", "resume")
        print(f"{name}: {width}x{height}, {found[2]} colours, three times the same")
        return picture

    def settle(self, quiet_s, is_there):
        """Wait for a picture that is what is looked for, and stays for a while."""
        last, since = None, 0
        while time.monotonic() < self.deadline:
            picture, now = self.screen.picture("last"), time.monotonic()
            if last is None or picture.rows != last.rows:
                last, since = picture, now
            elif now - since >= quiet_s and is_there(picture):
                return picture
            time.sleep(0.5)
        return self.fail("the screen does not come to rest with what is looked for")

    def end(self):
        if self.console.stop() is None:
            self.fail("it does not end on SIGTERM")


def see_bios(shown):
    shown.screen.wait_for_text(r"SeaBIOS \(version [\s\S]*No bootable device")
    shown.look("text", 720, 400, 2)


def see_grub(shown):
    shown.expect(cd.MENU_READS)
    shown.do("key", "down")  # the menu waits from now on
    shown.do("key", "up")
    shown.screen.wait_for_text(r"GNU GRUB[\s\S]*memory test[\s\S]*command-line")
    shown.look("menu", 720, 400, 2)


def see_memtest(shown):
    """Its first pass takes 2 minutes of the guest's time: for the last test memory has to fade."""
    shown.screen.wait_for_text(r"Memtest86\+[\s\S]*Pass: +[1-9]")
    picture = shown.look("pass", 720, 400, 4)
    text = shown.screen.wait_for_text("")
    if not re.search(r"Pass: +[1-9]\d* +Errors: 0\b", text) or b"\0\xaa\0" not in picture.colours():
        shown.fail(f"memtest86+ says {text}")


def see_freedos(shown):
    """The prompt, behind what a command has answered."""
    shown.screen.wait_for_text(r"A:\\>\s*$")
    shown.do("type", "ver{enter}")
    shown.screen.wait_for_text(r"A:\\>ver\s+FreeCom version [\s\S]*A:\\>\s*$")
    shown.look("prompt", 720, 400, 2)


def see_menu(shown):
    """PXELINUX draws one."""
    menu = shown.settle(1, lambda picture: len(picture.colours()) > 1000)
    shown.look("menu", 640, 480, 1000)
    if len(set(menu.rows[BAR_Y][3 * x : 3 * x + 3] for x in BAR_X)) != 1:
        shown.fail("no line of the menu is selected")


def see_installer(shown):
    """The first dialog, and the one behind it."""
    see_menu(shown)
    shown.do("type", "{tab} vga=normal fb=false nomodeset{enter}")  # a text mode
    shown.screen.wait_for_text(r"Select a language[\s\S]* C  [\s\S]*English")
    shown.look("language", 720, 400, 4)
    shown.do("type", "{home}{enter}")
    shown.screen.wait_for_text(r"Select your location[\s\S]*continent or region")
    shown.look("location", 720, 400, 4)


def see_drawn_installer(shown):
    """The same where the kernel draws the characters: a grey window with red words on a blue screen."""
    see_menu(shown)
    shown.do("key", "enter")

    def is_dialog(picture):
        pixels = b"".join(picture.rows)
        blue, grey = (pixels.count(colour) * 3 / len(pixels) for colour in (b"\0\0\xaa", b"\xaa\xaa\xaa"))
        return blue > 0.02 and grey > 0.3 and b"\xaa\0\0" in picture.colours()

    first = shown.settle(2, is_dialog)
    shown.look("language", 1024, 768, 4)
    shown.do("type", "{home}{enter}")
    shown.settle(2, lambda picture: is_dialog(picture) and picture.rows != first.rows)
    shown.look("location", 1024, 768, 4)


def see_console(shown):
    for pattern, answer in debian.LOGIN:
        shown.expect(pattern)
        shown.console.write(answer + "\r")
    shown.expect(screen.PROMPT)
    shown.console.write(f"{screen.STILL}; cat /sys/class/graphics/fb0/virtual_size\r")
    shown.expect(r"1024,768\r")
    shown.look("text", 1024, 768, 3)
    shown.console.write("poweroff\r")
    shown.expect(boot.OFF)


# Options, with the CD or what else has to be there, and what is done.
PXE = ["--firmware", "bios", "--net", f"user,tftp={INSTALLER},bootfile=pxelinux.0"]
DISK = ["--net", "none", "--disk", f"{debian.DISK},snapshot=on"]
MEMTEST = os.path.join(cd.CDS, "memtest86+/usr/lib/memtest86+/memtest86+x64.iso")
FREEDOS = os.path.join(boot.CACHE, "freedos", "disk.img")  # a floppy; not in Debian, so it is put there by hand
CASES = {
    "freedos": (["-m", "32M", "--net", "none", "--floppy", FREEDOS + ",snapshot=on"], (FREEDOS,), see_freedos),
    "bios": (["-m", "256M", "--firmware", "bios", "--net", "none"], (), see_bios),
    "grub": (["-m", "256M", "--net", "none", "--cdrom", "{grub}"], (), see_grub),
    "memtest": (["-m", "24M", "--net", "none", "--cdrom", MEMTEST], (MEMTEST,), see_memtest),
    "installer": ([*PXE, "-m", "1G"], (INSTALLER, IPXE), see_installer),
    "installer-drawn": ([*PXE, "-m", "1G"], (INSTALLER, IPXE), see_drawn_installer),
    "console-std": ([*DISK, "-m", "1G", "--vga", "std"], (debian.DISK,), see_console),
    "console-virtio": ([*DISK, "-m", "1G", "--vga", "virtio"], (debian.DISK,), see_console),
}


def main():
    trapeze, name = sys.argv[1:]
    options, needs, see = CASES[name]
    missing = [path for path in ("/usr/share/seabios/bios-256k.bin", *needs) if not os.path.exists(path)]
    if missing:
        web.skip(f"{missing[0]} is not there; tools/guest.sh gets cds, debian and installer")
    if not capture.is_there() or not browser.is_there():
        web.skip("install gvncviewer, chromium and chromium-driver")
    for package, file in web.PACKAGES.items():
        if not os.path.exists(f"/usr/share/{file}"):
            web.skip(f"install {package}")
    with tempfile.TemporaryDirectory() as folder:
        options = [cd.make_cd("grub", folder) if option == "{grub}" else option for option in options]
        page = browser.Browser(os.path.join(folder, "profile"))
        try:
            shown = Shown(trapeze, folder, page, name, options)
            see(shown)
            shown.end()
        finally:
            page.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
