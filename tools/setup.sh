#!/bin/sh
# setup.sh - install the Debian packages that are missing: setup.sh [GROUP...]
#
# Groups are build (compile and run the demo), check (all tests) and bench (compare with
# others); without arguments all of them. Says which packages and why each; silent when nothing is missing. Uses sudo
# unless run by root. TRAPEZE_SETUP=print only prints what is missing.
set -eu

# group, package, what it is for
packages='
build gcc             compile the emulator
build libc6-dev       C library headers
build make            the front of the build
build meson           describe the build
build ninja-build     run the build
build pkgconf         find libraries
build libzydis-dev    decode guest instructions
build libjansson-dev  read and write JSON
build zlib1g-dev      checksum and compress saved state
build libzstd-dev     read qcow2 images that are compressed with it
build libslirp-dev    user networking
build libnbd-dev      disks of NBD servers
build liburing-dev    read and write disks by io_uring
build libgnutls28-dev  encrypt VNC
build nettle-dev      check passwords of VNC
build libsdl2-dev     show machines in windows
build libusb-1.0-0-dev  give guests USB devices of the host
build libxkbcommon-dev  type on keyboards of other layouts
build libncurses-dev  show text modes on the terminal
build libarchive-dev  make disks for cloud-init
build libmicrohttpd-dev  serve the web page
build cpio            pack the initramfs of the test guests
build xz-utils        unpack Debian packages
check git             list the sources
check clang           second compiler, sanitizers and fuzzers
check lld             link what sanitizers make larger, in a third of the time
check libcapstone-dev  second decoder, which the fuzzed one is compared with
check libclang-rt-14-dev  run-time of the sanitizers and of libFuzzer
check clang-format    check the layout of the sources
check libcmocka-dev   unit tests
check acpica-tools    check the ACPI tables that the machine shows
check nasm            assemble the guest tests
check binutils        link the guest tests
check xvfb            an X server without a screen
check xdotool         type and point at windows
check x11-apps        take pictures of them
check xclip           and their clipboard
check openbox         give them their places
check desktop-file-utils  check the desktop entry
check tmux            a terminal that tests can read
check shellcheck      check the shell scripts
check python3         drive the system tests
check mmdebstrap      make a Debian disk
check dosfstools      make its EFI partition
check mtools          fill it
check fdisk           divide the disk
check grub-common     make its boot loaders
check grub-pc-bin     the one for a BIOS
check grub-efi-amd64-bin  the one for UEFI
check xorriso         make CDs
check seabios         start it
check ipxe-qemu       start from the network
check iperf3          measure networks
check passt           a network by another process
check ovmf            start it by UEFI
check openssh-client  log in to a guest
check nbdkit          NBD servers with errors
check qemu-utils      compare images with those of QEMU
check gvncviewer      take pictures by a viewer of VNC that is not ours
check novnc           show the screen in the web page
check node-xterm      show the console in it
check chromium        look at it
check chromium-driver  click and type in it
check lz4             unpack a kernel to test the PVH entry
bench python3         run the benchmarks and print the table
bench qemu-system-x86 the emulator to compare with
'
groups=${*:-build check bench}

missing=$(printf '%s\n' "$packages" | while read -r group package why; do
    case " $groups " in *" $group "*) ;; *) continue ;; esac
    [ -n "$package" ] || continue
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || printf '%-20s%s\n' "$package" "$why"
done | sort -u)

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
