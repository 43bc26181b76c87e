#!/bin/bash
# random_c.sh: programs of random arithmetic, at several levels of optimisation

for seed in 1 2; do
    part "make-$seed" perl /work/random_c.pl $seed 500 >random.c
    for level in -O0 -O1 -O2 "-O3 -march=x86-64-v3" "-O2 -mfpmath=387"; do
        name=$(echo "$seed$level" | tr -d ' =')
        # shellcheck disable=SC2086 # options are words
        part "build$name" gcc $level -w -o random random.c -lm
        part "run$name" ./random >output
        digest "$name" output
    done
done
