#!/bin/sh
# guest.sh - get a test guest into the cache: guest.sh [cloud|generic|i386|vmlinux|initramfs|debian|desktop|installer|secure|cds|fio]
#
# cloud, generic  Debian's amd64 kernels linux-image-cloud-amd64 and linux-image-amd64
# i386            Debian's linux-image-686-pae
# initramfs       only the initramfs (64-bit; i386 brings its own)
#
# vmlinux         the kernel of cloud, unpacked to an ELF file
#
# cds             what CDs are made of: Debian's memtest86+, ipxe, isolinux and syslinux-common
#
# debian          a disk with Debian, as "trapeze image build debian" makes it; TRAPEZE is the program
#
# desktop         the same with X, openbox and the browser Dillo
#
# installer       Debian's installer for text screens, as a folder to start from by PXE: pxelinux.0 and what it loads
#
# secure          Debian's signed shim and GRUB for UEFI (no kernel: the folder holds shimx64.efi, grubx64.efi)
#
# fio             fio with the libraries that it needs, as an initramfs to put behind that of a kernel
#
# Packages are downloaded and unpacked below TRAPEZE_CACHE (default ~/.cache/trapeze),
# never installed. Prints the folder, which then holds vmlinuz and initramfs.cpio.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${TRAPEZE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/trapeze}
kind=${1:-cloud}

say() {
    echo "guest: $*" >&2
}
fail() {
    say "$*"
    exit 1
}

# What each kind is made of: the meta package and the architecture.
case $kind in
cloud | vmlinux) meta=linux-image-cloud-amd64 arch=amd64 ;;
generic) meta=linux-image-amd64 arch=amd64 ;;
i386) meta=linux-image-686-pae arch=i386 ;;
initramfs | installer | secure | cds | fio) meta='' arch=amd64 ;;
debian) options='' ;;
desktop) options='--no-cloud-init -p xserver-xorg-core,xserver-xorg-input-libinput,xinit,openbox,dillo,fonts-dejavu-core,spice-vdagent,xclip' ;;
*) fail "'$kind' is not a guest; there are cloud, generic, i386, vmlinux, initramfs, debian, desktop, installer, secure, cds, fio" ;;
esac

# The disk goes with the script that made it.
if [ "$kind" = debian ] || [ "$kind" = desktop ]; then
    folder=$cache/$kind
    made_by=$(cksum <"$here/../share/image/debian.sh")$options
    mkdir -p "$folder"
    if [ ! -f "$folder/disk.qcow2" ] || [ "$(cat "$folder/made-by" 2>/dev/null)" != "$made_by" ]; then
        say "making a Debian disk (some minutes)"
        # shellcheck disable=SC2086 # one word an option
        "${TRAPEZE:-$here/../build/trapeze}" image build debian "$folder/new.qcow2" --force --password trapeze $options >&2
        mv "$folder/new.qcow2" "$folder/disk.qcow2"
        echo "$made_by" >"$folder/made-by"
    fi
    echo "$folder"
    exit 0
fi

[ "$arch" = i386 ] && machine=-m32 || machine=-m64

mkdir -p "$cache"
work=$(mktemp -d "$cache/work.XXXXXX")
trap 'rm -rf "$work"' EXIT

# apt with lists of its own, so that neither root nor a foreign architecture
# has to be set up on the host. The host's sources and keys are used.
private_apt() {
    program=$1
    shift
    mkdir -p "$cache/apt/$arch/lists/partial" "$cache/apt/$arch/archives/partial"
    : >>"$cache/apt/$arch/status"
    set -- -o APT::Architecture="$arch" -o APT::Architectures::="$arch" \
        -o Dir::State="$cache/apt/$arch" -o Dir::State::Lists="$cache/apt/$arch/lists" \
        -o Dir::State::status="$cache/apt/$arch/status" \
        -o Dir::Cache="$cache/apt/$arch" "$@"
    if [ "$(id -u)" = 0 ]; then
        set -- -o APT::Sandbox::User=root "$@"
    fi
    "$program" -q "$@"
}

# The host's own lists where they know the package, else private ones.
apt_for() {
    if [ "$arch" = "$(dpkg --print-architecture)" ] &&
        apt-cache show "$1" 2>/dev/null | grep -q '^Package:'; then
        echo host
        return
    fi
    if [ ! -f "$cache/apt/$arch/updated" ] && [ ! -f "$work/updated" ]; then
        say "reading the package lists for $arch"
        # One list that fails (a mirror in the middle of an update) may not matter.
        if private_apt apt-get update >"$work/log" 2>&1; then
            : >"$cache/apt/$arch/updated"
        else
            grep '^E:' "$work/log" >&2
            say "apt-get update had errors; going on with the lists there are"
        fi
        : >"$work/updated"
    fi
    echo private
}

depends_of() {
    if [ "$1" = host ]; then
        apt-cache depends "$2"
    else
        private_apt apt-cache depends "$2"
    fi
}

# Download packages: download host|private PACKAGE...
download() {
    apt=$1
    shift
    if [ "$apt" = host ]; then
        set -- apt-get -q download "$@"
        [ "$(id -u)" != 0 ] || set -- "$@" -o APT::Sandbox::User=root
    else
        set -- private_apt apt-get download "$@"
    fi
    (cd "$work" && "$@") >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        fail "downloading with '$*' failed"
    }
}

# Download a package and unpack it into a folder of the cache: unpack PACKAGE FOLDER
unpack() {
    [ -d "$2" ] && return
    from=$(apt_for "$1")
    say "downloading $1 ($arch)"
    download "$from" "$1"
    mkdir -p "$work/root"
    dpkg-deb -x "$work"/"$1"_*.deb "$work/root"
    mkdir -p "$(dirname "$2")"
    mv "$work/root" "$2"
    rm -f "$work"/*.deb
}

if [ "$kind" = secure ]; then
    folder=$cache/secure
    unpack shim-signed "$folder/shim-signed"
    unpack grub-efi-amd64-signed "$folder/grub-efi-amd64-signed"
    cp "$folder/shim-signed/usr/lib/shim/shimx64.efi.signed" "$folder/shimx64.efi"
    cp "$folder/grub-efi-amd64-signed/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed" "$folder/grubx64.efi"
    echo "$folder"
    exit 0
fi

make_initramfs() {
    target=$cache/base-$arch/initramfs.cpio
    unpack busybox-static "$cache/base-$arch/busybox-static"
    if [ -f "$target" ] &&
        [ -z "$(find "$here"/guest* -newer "$target")" ]; then
        return
    fi
    root=$work/initramfs
    mkdir -p "$root/bin" "$root/dev" "$root/proc" "$root/sys" "$root/tmp" "$root/root"
    cp "$cache/base-$arch/busybox-static/bin/busybox" "$root/bin/busybox"
    ln -s busybox "$root/bin/sh"
    cp "$here/guest-init.sh" "$root/init"
    gcc "$machine" -nostdlib -static -Wl,--build-id=none -s -o "$root/bin/debug-exit" \
        "$here/guest-exit.S"
    chmod 755 "$root/init" "$root/bin/"*
    find "$root" -exec touch -h -d @0 {} +
    (cd "$root" && find . | LC_ALL=C sort | cpio --quiet --reproducible -o -H newc -R 0:0) \
        >"$work/initramfs.cpio"
    mv "$work/initramfs.cpio" "$target"
}

if [ "$kind" = cds ]; then
    for package in memtest86+ ipxe isolinux syslinux-common; do
        unpack "$package" "$cache/cds/$package"
    done
    echo "$cache/cds"
    exit 0
fi

if [ "$kind" = installer ]; then
    folder=$cache/installer package=debian-installer-12-netboot-amd64
    if [ ! -d "$folder" ]; then
        from=$(apt_for $package)
        say "downloading $package"
        download "$from" $package
        mkdir "$work/text"
        dpkg-deb --fsys-tarfile "$work"/${package}_*.deb |
            tar -x -C "$work/text" --strip-components=8 ./usr/lib/debian-installer/images/12/amd64/text
        mv "$work/text" "$folder"
    fi
    echo "$folder"
    exit 0
fi

# Of all packages below fio's only those with libraries, and of these only what its program loads.
if [ "$kind" = fio ]; then
    folder=$cache/fio
    if [ ! -f "$folder/fio.cpio" ]; then
        from=$(apt_for fio)
        set -- apt-get -s -o Dir::State::status=/dev/null install --no-install-recommends fio
        [ "$from" = host ] || set -- private_apt "$@"
        say "downloading fio and its libraries"
        # shellcheck disable=SC2046 # one word a package
        download "$from" $("$@" | awk '/^Inst (fio|zlib1g|lib)/ && !/perl|python/ {print $2}')
        for package in "$work"/*.deb; do
            dpkg-deb -x "$package" "$work/all"
        done
        libraries=$work/all/lib/x86_64-linux-gnu:$work/all/usr/lib/x86_64-linux-gnu
        mkdir -p "$work/fio/bin" "$work/fio/lib64" "$work/fio/lib/x86_64-linux-gnu" "$folder"
        cp "$work/all/usr/bin/fio" "$work/fio/bin/"
        cp -L "$work/all/lib64/ld-linux-x86-64.so.2" "$work/fio/lib64/"
        "$work/fio/lib64/ld-linux-x86-64.so.2" --library-path "$libraries:$work/all/usr/lib/x86_64-linux-gnu/ceph" \
            --list "$work/fio/bin/fio" | awk '$2 == "=>" {print $3}' |
            xargs cp -L -t "$work/fio/lib/x86_64-linux-gnu/"
        (cd "$work/fio" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$work/fio.cpio"
        mv "$work/fio.cpio" "$folder/"
    fi
    echo "$folder"
    exit 0
fi

make_initramfs
if [ -z "$meta" ]; then
    echo "$cache/base-$arch"
    exit 0
fi

folder=$cache/$kind
[ "$kind" != vmlinux ] || folder=$cache/cloud
if [ ! -f "$folder/vmlinuz" ]; then
    from=$(apt_for "$meta")
    package=$(depends_of "$from" "$meta" | awk '$1 == "Depends:" && $2 ~ /^linux-image-[0-9]/ {print $2; exit}')
    [ -n "$package" ] || fail "$meta names no kernel package"
    unpack "$package" "$folder/$package"
    cp "$folder/$package/boot/vmlinuz-"* "$folder/vmlinuz"
fi
if [ "$kind" = vmlinux ] && [ ! -f "$folder/vmlinux" ]; then
    python3 "$here/unpack_kernel.py" "$folder/vmlinuz" "$work/vmlinux"
    mv "$work/vmlinux" "$folder/vmlinux"
fi
ln -sf "../base-$arch/initramfs.cpio" "$folder/initramfs.cpio"
echo "$folder"
