#!/bin/bash
# code_changes.sh: a program that changes its own code, and that of its other threads

part build gcc -O2 -w -pthread -o code_changes /work/code_changes.c
for turn in 1 2; do
    part "run-$turn" ./code_changes
done
