#!/usr/bin/env python3
"""listing.py TRAPEZE GUEST - the translator's listing, perf map and counts are written

GUEST is a guest test with 64-bit code that ends by itself.
"""
import os
import re
import subprocess
import sys
import tempfile


def main():
    trapeze, guest = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        listing = os.path.join(folder, "listing")
        command = [trapeze, "run", "--engine", "translator", "--kernel", guest, "--debugcon", "null",
                   "--stats", "--perf-map", "--listing", listing]
        run = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
        _, talk = run.communicate(timeout=50)
        text = open(listing).read()
        perf_map = f"/tmp/perf-{run.pid}.map"
        names = open(perf_map).read()
        os.unlink(perf_map)
    checks = {
        "a block with guest and host code": re.search(
            r"^block [0-9a-f]+ at [0-9a-f]+, kernel\n(        .*\n)+    [0-9a-f]+  \w.*\n        [0-9a-f]+  \w",
            text, re.M),
        "perf map": re.fullmatch(r"([0-9a-f]+ [0-9a-f]+ guest_[0-9a-f]+(_tail|_plain)?\n)+", names),
        "counts": re.search(r"^vcpu 0 +[1-9]\d*  blocks translated$", talk, re.M),
        "status": run.returncode == 1,
    }
    for name, good in checks.items():
        print("ok" if good else "not ok", name)
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
