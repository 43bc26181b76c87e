#!/usr/bin/env python3
"""sound.py TRAPEZE - Linux plays tones of known frequency and length, which are in the file of --audio wav=FILE

By its driver of Intel HD Audio (at two rates) and by the PC speaker; and it records silence. The generic kernel and its own modules.
Skipped (status 77) without these or a compiler that links statically.
"""
import array
import os
import statistics
import subprocess
import sys
import tempfile
import wave

import boot
import modules

HERE = os.path.dirname(os.path.abspath(__file__))
MODULES = """evdev pcspkr soundcore snd snd-timer snd-pcm snd-hwdep snd-hda-core snd-intel-sdw-acpi snd-intel-dspcfg snd-hda-codec
 ledtrig-audio snd-hda-codec-generic snd-hda-intel""".split()
HZ = 48000
# Rate, frequency, milliseconds; then the speaker's.
TONES = [(48000, 440, 2000), (44100, 1000, 1000)]
BEEP = (880, 1000)


def build_program(folder):
    program = os.path.join(folder, "sound")
    command = ["gcc", "-O1", "-static", "-o", program, os.path.join(HERE, "sound_guest.c"), "-lm"]
    return program if subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0 else None


def sounds(path):
    with wave.open(path) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (HZ, 2, 2):
            raise ValueError("another format")
        return measure(array.array("h", file.readframes(file.getnframes()))[::2])


def frequency(rises):
    """Of the periods between rises; those that are far from what is usual lie where a busy host leaves something out."""
    periods = [after - before for before, after in zip(rises, rises[1:])]
    usual = statistics.median(periods) if periods else HZ
    periods = [period for period in periods if abs(period - usual) < usual / 8] or [HZ]
    return HZ / statistics.mean(periods)


def measure(samples):
    """Frequency and milliseconds of each sound, which are apart by 20 ms of silence or more."""
    found, start, last, rises = [], None, 0, []
    for at, value in enumerate(samples):
        if abs(value) > 1000:
            if start is None:
                start, rises = at, []
            last = at
        if value > 0 and samples[at - 1] <= 0:
            rises.append(at)
        if start is not None and (at - last > HZ // 50 or at == len(samples) - 1):
            found.append((frequency(rises), (last - start) * 1000 / HZ))
            start = None
    return found


def main():
    if not modules.can_run("sound", MODULES, 10):
        return 77
    with tempfile.TemporaryDirectory() as folder:
        program, sound = build_program(folder), os.path.join(folder, "sound.wav")
        if not program:
            print("sound: no static program can be built")
            return 77
        with open(program, "rb") as file:
            files = [("sound", 0o100755, file.read())]
        machine = modules.Machine(sys.argv[1], folder, MODULES, ["--audio", f"wav={sound}", "--cpus", "2"], files)
        machine.expect("ready> ")
        machine.wait("test -e /dev/snd/pcmC0D0p")
        for rate, hz, length in TONES:
            machine.shell(f"/sound tone {rate} {hz} {length}", f"played {rate * length // 1000} frames, 0 underruns")
        machine.shell("/sound record 500", r"recorded \d+ frames, 0 loud")
        machine.shell(f"/sound beep {BEEP[0]} {BEEP[1]}", "beeped at PC Speaker")
        machine.power_off()
        heard, wanted = sounds(sound), [tone[1:] for tone in TONES] + [BEEP]
        for (hz, length), (wanted_hz, wanted_length) in zip(heard, wanted):
            # The speaker's length is that of the guest's sleep.
            if abs(hz - wanted_hz) > wanted_hz / 100 or not -20 < length - wanted_length < 60:
                boot.fail(machine.console, f"{hz:.1f} Hz for {length:.0f} ms, not {wanted_hz} for {wanted_length}")
        if len(heard) != len(wanted):
            boot.fail(machine.console, f"{len(heard)} sounds: {heard}")
        print("sound:", ", ".join(f"{hz:.1f} Hz for {length:.0f} ms" for hz, length in heard))
    return 0


if __name__ == "__main__":
    sys.exit(main())
