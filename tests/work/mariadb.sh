#!/bin/bash
# mariadb.sh TEST...: of MariaDB's own regression tests those of the suite "main", or SUITE.TEST

chown nobody /tmp/work
cd /usr/share/mysql/mysql-test || exit 1
tests=()
for test in "$@"; do
    [[ $test == *.* ]] || test=main.$test
    tests+=("$test")
done
setpriv --reuid=nobody --regid=nogroup --clear-groups ./mtr --vardir=/tmp/work/var --force --retry=0 --max-test-fail=0 \
    --parallel="$(nproc)" --testcase-timeout=30 --suite-timeout=600 --nowarnings "${tests[@]}" >/tmp/log 2>&1
status=$?
sed -nE 's/^([a-z0-9_.-]+)( .*)?\[ ([a-z]+) \].*/\1 \3/p' /tmp/log | sort
tail -n 60 /tmp/log >&2
[ $status = 0 ] || fail "mtr: status $status"
