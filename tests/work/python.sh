#!/bin/bash
# python.sh PROGRAM MODULE...: modules of Python's own tests, under python3 or pypy3

python=$1
shift
run() {
    timeout 1800 "$python" -m test -u none "$1" >log 2>&1 && return
    cat log >&2
    grep -aE '^(FAIL|ERROR): ' log | sort -u
    return 1
}
for module in "$@"; do
    part "$module" run "$module"
done
