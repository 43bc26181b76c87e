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
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=280)
    evictions = sum(int(n) for n in re.findall(r"^vcpu \d +(\d+)  evictions of an eighth of it$", run.stderr, re.M))
    print(run.stdout, run.stderr)
    good = "done" in run.stdout.split("\n") and "not ok" not in run.stdout
    return 0 if good and evictions >= EVICTIONS else 1


if __name__ == "__main__":
    sys.exit(main())
