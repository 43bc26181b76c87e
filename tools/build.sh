#!/bin/sh
# build.sh - compile into a folder: build.sh FOLDER [meson setup options]
#
# Silent when nothing had to be done. CC chooses the compiler.
set -eu

cd "$(dirname "$0")/.."
folder=$1
shift

log=$(mktemp)
trap 'rm -f "$log"' EXIT
if [ ! -f "$folder/build.ninja" ]; then
    rm -rf "$folder"
    if ! meson setup "$folder" "$@" >"$log" 2>&1; then
        cat "$log" >&2
        exit 1
    fi
fi
if ! ninja --quiet -C "$folder" -j "${TRAPEZE_JOBS:-2}" >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
fi
