#!/bin/sh
# fuzz.sh - run fuzz targets: fuzz.sh [TARGET SECONDS]
#
# Without arguments: build all targets and run each for FUZZ_SECONDS (600). An input that takes FUZZ_TIMEOUT
# seconds (20) is a finding: more where the host may stop processes. New inputs go to
# build-fuzz/corpus/NAME and start the next run; fuzz/corpus/NAME holds what is in the tree.
# A finding is left in build-fuzz/findings and printed.
set -eu

cd "$(dirname "$0")/.."

run() {
    name=${1##*/fuzz_}
    mkdir -p "build-fuzz/corpus/$name" build-fuzz/findings
    set -- "$1" "$2" "build-fuzz/corpus/$name"
    [ ! -d "fuzz/corpus/$name" ] || set -- "$@" "fuzz/corpus/$name"
    target=$1 seconds=$2
    shift 2
    "$target" -max_total_time="$seconds" -timeout="${FUZZ_TIMEOUT:-20}" -rss_limit_mb=4096 -verbosity=0 \
        -print_final_stats=1 -close_fd_mask=1 \
        -artifact_prefix="build-fuzz/findings/$name-" "$@"
}

if [ $# = 2 ]; then
    run "$@"
    exit 0
fi
CC=clang tools/build.sh build-fuzz -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false
status=0
for target in $(find build-fuzz/fuzz -maxdepth 1 -type f -name 'fuzz_*' | sort); do
    echo "== ${target##*/fuzz_}"
    run "$target" "${FUZZ_SECONDS:-600}" || status=1
done
exit $status
