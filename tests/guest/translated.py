#!/usr/bin/env python3
"""translated.py TRAPEZE GUEST - what GUEST executes often is translated

Reads the counts of instructions that were left to the interpreter, from --stats, where times are, too.
"""
import json
import subprocess
import sys

OFTEN = 4000


def main():
    trapeze, guest = sys.argv[1:]
    command = [trapeze, "run", "--engine", "translator", "--kernel", guest, "--debugcon", "null", "--stats=json"]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50)
    counts = json.loads(run.stderr.splitlines()[-1])["vcpus"][0]
    often = [name for name, count in counts.items() if name.startswith(("interpreted ", "slow access by ")) and count >= OFTEN]
    print(run.stdout, run.stderr)
    timed = counts["us in generated code"] and counts["us translating"] and counts["exits: kicked"]
    good = run.returncode == 1 and timed and not often and "not ok" not in run.stdout
    print("ok" if good else "not ok", "left to the interpreter:", often or "nothing that is frequent")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
