#!/usr/bin/env python3
"""eviction.py TRAPEZE GUEST - a small code cache is emptied part by part; see eviction.S"""
import re
import subprocess
import sys

EVICTIONS = 1000


def main():
    trapeze, guest = sys.argv[1:]
    command = [trapeze, "run", "--engine", "translator", "--code-cache", "2M", "--cpus", "3", "--kernel", guest]
    command += ["--debugcon", "null", "--stats"]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50)
    counts = {name: int(count) for count, name in re.findall(r"^vcpu 0 +(\d+)  (.*)$", run.stderr, re.M)}
    print(run.stdout, run.stderr)
    good = "done" in run.stdout.split("\n") and "not ok" not in run.stdout
    good = good and counts["evictions of an eighth of it"] >= EVICTIONS
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
