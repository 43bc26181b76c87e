#!/bin/sh
# setup.sh - install the Debian packages that this tree needs and that are missing
#
# Says which packages and why each; silent when nothing is missing. Uses sudo
# unless run by root. TRAPEZE_SETUP=print only prints what is missing.
set -eu

# package, then what it is for
packages='
gcc             compile the emulator
libc6-dev       C library headers
make            the front of the build
meson           describe the build
ninja-build     run the build
pkgconf         find libraries
libzydis-dev    decode guest instructions
libjansson-dev  read and write JSON
zlib1g-dev      checksum and compress saved state
cpio            pack the initramfs of the test guests
xz-utils        unpack Debian packages
clang           second compiler, sanitizers and fuzzers
libclang-rt-14-dev  run-time of the sanitizers and of libFuzzer
clang-format    check the layout of the sources
libcmocka-dev   unit tests
acpica-tools    check the ACPI tables that the machine shows
nasm            assemble the guest tests
binutils        link the guest tests
shellcheck      check the shell scripts
python3         drive the system tests
'

missing=$(printf '%s\n' "$packages" | while read -r package why; do
    [ -n "$package" ] || continue
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || printf '%-20s%s\n' "$package" "$why"
done)

[ -n "$missing" ] || exit 0

echo "Debian packages to install:"
printf '%s\n' "$missing" | sed 's/^/  /'
[ "${TRAPEZE_SETUP:-}" != print ] || exit 1

if ! command -v apt-get >/dev/null; then
    echo "setup: there is no apt-get here; install the packages above by hand" >&2
    exit 1
fi
as_root=
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "setup: run as root, or install sudo, to install the packages above" >&2
        exit 1
    fi
    as_root=sudo
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
quietly() {
    if ! $as_root env DEBIAN_FRONTEND=noninteractive "$@" >"$log" 2>&1; then
        cat "$log" >&2
        echo "setup: '$*' failed" >&2
        exit 1
    fi
}
quietly apt-get -q update
# shellcheck disable=SC2046 # one word a package
quietly apt-get -q -y --no-install-recommends install $(printf '%s\n' "$missing" | awk '{print $1}')
