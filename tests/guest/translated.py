#!/usr/bin/env python3
"""translated.py TRAPEZE GUEST - what GUEST executes often is translated

Reads the counts of instructions that were left to the interpreter, from --stats.
"""
import re
import subprocess
import sys

OFTEN = 4000


def main():
    trapeze, guest = sys.argv[1:]
    command = [trapeze, "run", "--engine", "translator", "--kernel", guest, "--debugcon", "null", "--stats"]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50)
    counts = re.findall(r"^vcpu 0 +(\d+)  interpreted (\S+)$", run.stderr, re.M)
    often = [name for count, name in counts if int(count) >= OFTEN]
    print(run.stdout, run.stderr)
    good = run.returncode == 1 and counts and not often and "not ok" not in run.stdout
    print("ok" if good else "not ok", "left to the interpreter:", often or "nothing that is frequent")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
