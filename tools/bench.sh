#!/bin/sh
# bench.sh - benchmark every engine: ratios to the processor itself, and QEMU's beside them
#
# BENCH_REPS (1) repetitions, BENCH_VMMS ("native trapeze
# trapeze-interpreter qemu-tcg") what to measure; results go
# to bench/results, the table to standard output. See bench/README.md.
set -eu

cd "$(dirname "$0")/.."
export BENCH_BUILD="${BENCH_BUILD:-$PWD/bench/build}"
[ -s "$BENCH_BUILD/initrd" ] || bench/build-guest.sh "$BENCH_BUILD" >&2

stamp=$(date +%Y%m%d-%H%M%S)
files=
for vmm in ${BENCH_VMMS:-native trapeze trapeze-interpreter qemu-tcg}; do
    file=bench/results/$stamp-$vmm.jsonl
    mkdir -p bench/results
    bench/run.sh -r "${BENCH_REPS:-1}" -o "$file" "$vmm" || echo "bench: $vmm had failures" >&2
    files="$files $file"
done
# shellcheck disable=SC2086 # one word a file
bench/table.py $files
