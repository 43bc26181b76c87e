#!/usr/bin/env python3
"""counts.py TRAPEZE GUEST [OPTION...] -- [NAME>=COUNT | NAME<=COUNT]... - what the translator counted

Runs GUEST by the translator with --stats; it has to say "done" and never "not ok". NAME is a line of
the statistics, and its count the sum of all vCPUs'.
"""
import json
import re
import subprocess
import sys


def main():
    trapeze, guest, *options = sys.argv[1:]
    options, conditions = options[:options.index("--")], options[options.index("--") + 1:]
    command = [trapeze, "run", "--engine", "translator", "--kernel", guest, "--debugcon", "null", "--stats=json"]
    run = subprocess.run(command + options, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    print(run.stdout, run.stderr)
    vcpus = json.loads(run.stderr.splitlines()[-1])["vcpus"]
    good = "done" in run.stdout.split("\n") and "not ok" not in run.stdout
    for name, relation, limit in (re.fullmatch("(.*)([<>])=(.*)", c).groups() for c in conditions):
        count = sum(vcpu[name] for vcpu in vcpus)
        holds = count <= int(limit) if relation == "<" else count >= int(limit)
        print("ok" if holds else "not ok", f"{name}: {count}, which has to be {relation}= {limit}")
        good = good and holds
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
