#!/bin/bash
# python.sh PROGRAM MODULE...: modules of Python's own tests, under python3 or pypy3

python=$1
shift
run() { # without what needs a compiler, and a device that hosts have and guests not
    timeout 1800 "$python" -m test -u none -i '*test_find_library_with_*' -i '*VSOCK*' "$1" >log 2>&1 && return
    cat log >&2
    grep -aE '^(FAIL|ERROR): ' log | sort -u
    return 1
}
for module in "$@"; do
    part "$module" run "$module"
done
