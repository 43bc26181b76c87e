#!/bin/sh
# format.sh - clang-format over all C sources but the benchmark guest; with --check only name the files that differ
set -eu

cd "$(dirname "$0")/.."
if [ "${1:-}" != --check ]; then
    git ls-files -z '*.c' '*.h' ':!bench/guest' | xargs -0 clang-format -i
    exit 0
fi
status=0
for file in $(git ls-files '*.c' '*.h' ':!bench/guest'); do
    if ! clang-format --dry-run --Werror "$file" 2>/dev/null; then
        echo "$file is not formatted; run 'make format'"
        status=1
    fi
done
exit $status
