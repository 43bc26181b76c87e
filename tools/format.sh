#!/bin/sh
# format.sh - clang-format over all C sources but the benchmark guest; with --check only say where they differ
set -eu

cd "$(dirname "$0")/.."
if [ "${1:-}" != --check ]; then
    git ls-files -z '*.c' '*.h' ':!bench/guest' | xargs -0 clang-format -i
    exit 0
fi
if ! git ls-files -z '*.c' '*.h' ':!bench/guest' | xargs -0 clang-format --dry-run --Werror; then
    echo "the files above are not formatted; run 'make format'"
    exit 1
fi
