#!/usr/bin/env python3
"""patches.py TRAPEZE GUEST - blocks whose immediates are patched check themselves; see patches.S

The runtime enables SSE, so what ran before is not kept, either: a single vCPU's cache begins anew.
"""
import re
import subprocess
import sys

CHECKING = 55
CHANGES = 1000
BLOCKS = 1500


def main():
    trapeze, guest = sys.argv[1:]
    command = [trapeze, "run", "--engine", "translator", "--kernel", guest, "--debugcon", "null", "--stats"]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50)
    counts = {name: int(count) for count, name in re.findall(r"^vcpu 0 +(\d+)  (.*)$", run.stderr, re.M)}
    print(run.stdout, run.stderr)
    good = "done" in run.stdout.split("\n") and "not ok" not in run.stdout
    good = good and counts["blocks that check their code"] >= CHECKING
    good = good and counts["changes of code"] <= CHANGES and counts["blocks translated"] <= BLOCKS
    good = good and counts["times that the cache began anew"] > 0
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
