#!/usr/bin/env python3
"""run.py TRAPEZE GUEST ENDING [OPTION...] - run a guest test and judge its console

ENDING is "done": every line is "ok ...", then "done", and the debug-exit port is given 0; or
"reset": every line is "ok ..." and the machine resets by itself, without "done".
"""
import subprocess
import sys


def main():
    trapeze, guest, ending, *options = sys.argv[1:]
    command = [trapeze, "run", "--kernel", guest, "--debugcon", "null", "-m", "64M", "--no-reboot", *options]
    run = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    lines = run.stdout.split("\n")
    print(run.stdout, run.stderr, f"status {run.returncode}", sep="")
    good = [line for line in lines if line.startswith("ok ")]
    bad = [line for line in lines if line and not line.startswith("ok ") and line != "done"]
    done = "done" in lines
    return 0 if good and not bad and done == (ending == "done") and run.returncode == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
