#!/usr/bin/env python3
"""speaker.py TRAPEZE BACKEND - a boot sector (speaker.S) beeps; the tone is in the file, or what SDL plays

BACKEND is wav, or sdl: SDL's own driver "disk" then writes what it plays into a file. Skipped (status 77) without SeaBIOS or SDL.
"""
import array
import os
import shutil
import subprocess
import sys
import tempfile
import time

import boot
import sound

LIMIT_S = 60
HERE = os.path.dirname(os.path.abspath(__file__))
BEEP = (880, 500)


def make_disk(folder):
    disk, linked = os.path.join(folder, "disk.img"), os.path.join(folder, "speaker.o")
    subprocess.run(["as", "--32", "-o", linked, os.path.join(HERE, "speaker.S")], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext=0x7c00", "--oformat=binary", "-o", disk, linked], check=True)
    with open(disk, "r+b") as image:
        image.truncate(1440 << 10)
    return disk


def main():
    trapeze, backend = sys.argv[1:]
    if not os.path.exists("/usr/share/seabios/bios-256k.bin") or not shutil.which("ld"):
        print("speaker: SeaBIOS or binutils are not there")
        return 77
    if backend == "sdl" and not os.path.exists(os.path.join(os.path.dirname(trapeze), "trapeze-sound")):
        print("speaker: trapeze has been built without SDL")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        heard = os.path.join(folder, "heard")
        os.environ.update(SDL_AUDIODRIVER="disk", SDL_DISKAUDIOFILE=heard)
        audio = "sdl" if backend == "sdl" else f"wav={heard}"
        console = boot.Console([trapeze, "run", "--net", "none", "--floppy", make_disk(folder), "--audio", audio])
        status = console.finish(time.monotonic() + LIMIT_S)
        if status != 7:
            boot.fail(console, f"the status is {status}")
        if backend == "sdl":
            samples = array.array("h")
            with open(heard, "rb") as file:
                samples.frombytes(file.read() [: os.path.getsize(heard) // 4 * 4])
            found = sound.measure(samples[::2])
        else:
            found = sound.sounds(heard)
        # A busy host plays in pieces, and the BIOS waits for ticks, which such a host may keep from it.
        is_tone = all(abs(hz - BEEP[0]) < 30 for hz, _ in found)
        if not is_tone or not 0.8 < sum(length for _, length in found) / BEEP[1] < 4:
            boot.fail(console, f"not {BEEP[0]} Hz for {BEEP[1]} ms, but {found}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
