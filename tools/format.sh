#!/bin/sh
# format.sh - clang-format over all C sources; with --check only report
set -eu

cd "$(dirname "$0")/.."
if [ "${1:-}" = --check ]; then
    git ls-files -z '*.c' '*.h' | xargs -0 clang-format --dry-run --Werror
else
    git ls-files -z '*.c' '*.h' | xargs -0 clang-format -i
fi
