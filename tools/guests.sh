#!/bin/sh
# guests.sh - get every guest that the system tests boot
#
# The Debian disk wants more of the host than the kernels do (mounts or user namespaces, a chroot): without it
# the tests debian-* are skipped.
set -eu

here=$(dirname "$0")
for guest in cloud vmlinux generic i386 secure cds fio; do
    "$here/guest.sh" "$guest"
done
"$here/guest.sh" debian || echo "guests: there is no Debian disk; the tests debian-* will be skipped" >&2
