#!/bin/sh
# check.sh - build every variant and run every test; the last line is "N passed, N failed"
#
# One line a step; a step that fails prints its output. The exit status is 0 only
# when nothing failed. With words as arguments, only the steps whose names begin with one of
# them: check.sh gcc address.
set -u

cd "$(dirname "$0")/.." || exit 1
jobs=${TRAPEZE_JOBS:-2}
# What build.sh and the steps share; a value from outside would choose the wrong compiler.
unset CC CC_LD CFLAGS LDFLAGS
# A finding of the undefined-behaviour sanitizer fails the test, as those of the others do.
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1

work=$(mktemp -d)
guests='' # the process that gets them
trap '[ -z "$guests" ] || kill "$guests"; rm -rf "$work"' EXIT
passed=0
failed=0
wanted="$*"
thread='' address='' system='' # which tests can be run

# Is a step asked for?
want() {
    [ -n "$wanted" ] || return 0
    for word in $wanted; do
        case $1 in "$word"*) return 0 ;; esac
    done
    return 1
}

# Report one step: report NAME PASSED FAILED SECONDS; its output is in $work/out.
report() {
    passed=$((passed + $2))
    failed=$((failed + $3))
    if [ "$3" = 0 ]; then
        printf 'ok    %-28s %5d passed  %4d s\n' "$1" "$2" "$4"
    else
        printf 'FAIL  %-28s %5d passed, %d failed  %4d s\n' "$1" "$2" "$3" "$4"
        tail -n 200 "$work/out" | sed 's/^/      /'
    fi
}

# A step that is one test: step NAME COMMAND...
step() {
    name=$1
    shift
    want "$name" || return 0
    start=$(date +%s)
    if "$@" >"$work/out" 2>&1; then
        report "$name" 1 0 $(($(date +%s) - start))
    else
        report "$name" 0 1 $(($(date +%s) - start))
        return 1
    fi
}

# The tests of some suites in a build folder: tests NAME FOLDER SUITE..., without those of a
# suite that has a - before its name. Under a sanitizer they have five times as long.
tests() {
    name=$1 folder=$2
    shift 2
    want "$name" || return 0
    start=$(date +%s)
    case $folder in build-gcc) times=1 ;; *) times=5 ;; esac
    suites=
    for suite in "$@"; do
        case $suite in
        -*) suites="$suites --no-suite ${suite#-}" ;;
        *) suites="$suites --suite $suite" ;;
        esac
    done
    # shellcheck disable=SC2086 # options are words
    meson test -C "$folder" --no-rebuild --num-processes "$jobs" \
        --timeout-multiplier "$times" $suites >"$work/log" 2>&1
    counts=$(python3 tools/count_tests.py "$folder/meson-logs/testlog.json" "$work/out") ||
        { cp "$work/log" "$work/out" && counts="0 1"; }
    rm -f "$folder/meson-logs/testlog.json"
    # shellcheck disable=SC2086 # two words
    report "$name" $counts $(($(date +%s) - start))
}

# Suites that a build folder has, of those named.
suites_in() {
    folder=$1
    shift
    all=$(meson test -C "$folder" --list 2>/dev/null)
    for suite in "$@"; do
        case $all in *":$suite "* | *":$suite+"* | *"+$suite "*) echo "$suite" ;; esac
    done
}

headers() {
    status=0
    for header in $(git ls-files '*.h'); do
        echo "#include \"$header\"" |
            gcc -std=gnu11 -D_GNU_SOURCE -fsyntax-only -Wall -Werror -I. -Iinclude -Isrc \
                -Itests/device -x c - || {
            echo "$header does not stand alone"
            status=1
        }
    done
    return $status
}

# Wait for the guests; its seconds are those that they took longer than the builds beside them.
get_guests() {
    wait "$guests"
    status=$?
    guests=''
    cat "$work/guests"
    return $status
}

step format tools/format.sh --check
# shellcheck disable=SC2046 # file names without spaces
step shellcheck shellcheck $(git ls-files '*.sh') .ci/run
step headers headers

if step "gcc build" tools/build.sh build-gcc -Dwerror=true; then
    # shellcheck disable=SC2046 # one word a suite
    tests "gcc tests" build-gcc $(suites_in build-gcc unit device state guest differential control cli)
fi
# The guests come by one process that often waits for the network: while others compile, not while they test.
if want system; then
    TRAPEZE=build-gcc/trapeze tools/guests.sh >"$work/guests" 2>&1 &
    guests=$!
fi
CC=clang CC_LD=lld step "thread build" tools/build.sh build-thread -Dwerror=true \
    -Dbuildtype=debugoptimized -Db_sanitize=thread -Db_lundef=false && thread=built
# The coverage that fuzz targets want costs the tests less than a build of their own.
CC=clang CC_LD=lld step "address build" tools/build.sh build-fuzz -Dwerror=true -Dfuzz=true \
    -Db_sanitize=address,undefined -Db_lundef=false && address=built
if want system && step "system guests" get_guests; then
    system=ready
fi
if [ "$thread" ]; then
    # shellcheck disable=SC2046 # one word a suite
    tests "thread tests" build-thread $(suites_in build-thread unit guest control) -one-thread
fi
if [ "$address" ]; then
    # A quarter of the random instructions that gcc's build compares: fuzz_host_stub looks for more.
    # shellcheck disable=SC2046 # one word a suite
    HOST_STUB_INSTANCES=5000 tests "address tests" build-fuzz $(suites_in build-fuzz unit device state guest control)
    tests "address fuzz" build-fuzz fuzz
fi
# A kernel on two vCPUs: races between them, and with the main loop.
if want "thread boot" && step "thread guest" tools/guest.sh cloud; then
    step "thread boot" python3 tests/system/boot.py build-thread/trapeze cloud-smp2
fi
if [ "$system" ]; then
    tests "system tests" build-gcc system
fi

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
