#!/usr/bin/env python3
"""count_tests.py TESTLOG OUT - count tests in meson's testlog.json

A cmocka program counts as as many tests as it ran; any other program as one. A
program that fails without naming a failed test counts as one failure; a skipped
test counts as neither. Prints "PASSED FAILED" and writes the output of what failed
to OUT.
"""
import json
import re
import sys

PASSED = re.compile(r"^\[ +OK \] ", re.M)
SKIPPED = re.compile(r"^\[  SKIPPED \] ", re.M)
GOOD = ("OK", "EXPECTEDFAIL", "SKIP")


def count(run):
    output = run.get("stdout", "") + run.get("stderr", "")
    passed = len(PASSED.findall(output))
    skipped = len(SKIPPED.findall(output))
    names = {line for line in re.findall(r"^\[  (?:FAILED|ERROR) +\] (\w+)$", output, re.M)}
    failed = len(names)
    good = run["result"] in GOOD
    if not good:
        failed = max(failed, 1)
    elif passed + skipped == 0 and run["result"] != "SKIP":
        passed = 1
    return passed, failed


def main():
    log, out = sys.argv[1:]
    passed = failed = 0
    with open(log, encoding="utf-8") as file, open(out, "w", encoding="utf-8") as report:
        for line in file:
            run = json.loads(line)
            more_passed, more_failed = count(run)
            passed += more_passed
            failed += more_failed
            if more_failed:
                report.write(f"{run['name']}: {run['result']}, status {run['returncode']}\n")
                report.write(run.get("stdout", "") + run.get("stderr", ""))
    print(passed, failed)


if __name__ == "__main__":
    main()
