#!/bin/sh
# demo.sh - boot Debian's cloud kernel in Trapeze
#
# With a terminal on stdin: a shell in the guest. Without: the guest shows its
# processor and memory and switches itself off. Exits with the guest's status.
set -eu

cd "$(dirname "$0")/.."
guest=$(tools/guest.sh cloud)
append="console=ttyS0"
[ -t 0 ] || append="$append trapeze.script=demo"
exec build/trapeze run --kernel "$guest/vmlinuz" --initrd "$guest/initramfs.cpio" \
    --append "$append" "$@"
