#!/bin/bash
# workload.sh SCRIPT [ARGUMENT...]: run a workload, which has these functions

exec 3>&1

# Run a command as one part: its time is told, and its status if it fails: part NAME COMMAND...
part() {
    local name=$1 start=$EPOCHREALTIME status line
    shift
    "$@"
    status=$?
    line="@time $name $(awk "BEGIN { printf \"%.2f\", $EPOCHREALTIME - $start }")"
    echo "$line" >&3
    echo "$line" >&2
    [ $status = 0 ] || {
        echo "$name: status $status" >&3
        failed=1
    }
}

# A digest of a file or of standard input: digest NAME [FILE]
digest() {
    echo "$1 $(sha256sum <"${2:-/dev/stdin}" | cut -c1-16)"
}

# Something is wrong: fail WORD...
fail() {
    echo "FAIL: $*" >&3
    failed=1
}

# Work for all processors while the kernel changes itself, until stop_load. What it computes is always the same.
load_files() {
    while [ ! -e /tmp/stop ]; do
        for _ in 1 2 3 4 5 6 7 8; do
            /bin/true | cat
        done
        dd if=/dev/zero of="/tmp/file$1" bs=4k count=100 2>/dev/null
    done
}
load_sums() {
    local expected
    expected=$(seq 3000 | sha256sum)
    while [ ! -e /tmp/stop ]; do
        [ "$(seq 3000 | sha256sum)" = "$expected" ] || touch /tmp/wrong
    done
}
start_load() {
    local n
    for n in $(seq "$(nproc)"); do
        load_files "$n" &
    done
    load_sums &
}
stop_load() {
    touch /tmp/stop
    wait
    [ ! -e /tmp/wrong ] || fail "the load computed something wrong"
}

failed=0
trap 'exit $failed' EXIT

script=$1
shift
# shellcheck disable=SC1090 # a workload
. "$script"
