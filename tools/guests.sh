#!/bin/sh
# guests.sh - get every guest that the system tests boot
set -eu

for guest in cloud vmlinux generic i386 debian; do
    "$(dirname "$0")/guest.sh" "$guest"
done
