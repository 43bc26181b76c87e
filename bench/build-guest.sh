#!/bin/bash
# Builds the guest: an unmodified Debian cloud kernel and an initramfs whose
# /init is the benchmark program. Needs gcc, cpio, apt-get, dpkg, python3.
#
#   build-guest.sh [outdir]
#
# Leaves in outdir (default: build/ next to this script, or $BENCH_BUILD):
#   vmlinuz    the kernel as packaged (bzImage)
#   vmlinux    the same, unpacked (ELF with a PVH entry), for VMMs that take it
#   initrd     uncompressed cpio
#   root/      what is in the initrd; root/init and root/bin/busybox run on the host too
#   bench.iso  BIOS-bootable CD with the same kernel and initrd (if grub-mkrescue is there)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${1:-${BENCH_BUILD:-$here/build}}
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$out"

# --- kernel -----------------------------------------------------------------
if [ ! -s vmlinuz ] || [ ! -d kpkg ]; then
	pkg=${BENCH_KERNEL_PKG:-$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)}
	rm -rf kpkg && mkdir kpkg
	(cd kpkg && apt-get download "$pkg" && dpkg -x ./*.deb x)
	cp kpkg/x/boot/vmlinuz-* vmlinuz
	printf '%s\n' kpkg/*.deb | sed 's|.*/||' > kernel-package.txt
fi
if [ ! -s vmlinux ]; then
	# The payload of the bzImage is an LZ4 (legacy frame) ELF; unpack it with lz4 or python.
	python3 "$here/unpack-kernel.py" vmlinuz vmlinux || { rm -f vmlinux; echo "note: could not unpack vmlinux" >&2; }
fi

# --- programs -----------------------------------------------------------------
mkdir -p obj root/{bin,lib/modules,dev,proc,sys,tmp}
CC=${CC:-gcc}
$CC -O2 -Wall -Wextra -c "$here/guest/cpu.c" -o obj/cpu.o
$CC -O3 -Wall -Wextra -c "$here/guest/fp.c" -o obj/fp.o
$CC -O2 -Wall -Wextra -c "$here/guest/os.c" -o obj/os.o
$CC -O2 -Wall -Wextra -c "$here/guest/vb.c" -o obj/vb.o
$CC -static -o root/init obj/{cpu,fp,os,vb}.o -lm
strip root/init

# --- busybox --------------------------------------------------------------------
if [ ! -x root/bin/busybox ]; then
	rm -rf bbpkg && mkdir bbpkg
	(cd bbpkg && apt-get download busybox-static && dpkg -x ./*.deb x)
	cp bbpkg/x/bin/busybox root/bin/busybox 2>/dev/null || cp bbpkg/x/usr/bin/busybox root/bin/busybox
	printf '%s\n' bbpkg/*.deb | sed 's|.*/||' > busybox-package.txt
	rm -rf bbpkg
fi

# --- kernel modules for the disk ----------------------------------------------
for m in virtio virtio_ring virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_mmio virtio_blk; do
	f=$(find kpkg/x/lib/modules -name "$m.ko" | head -1)
	[ -n "$f" ] && cp "$f" root/lib/modules/
done

find root -exec touch -h -d @1700000000 {} +
(cd root && find . | LC_ALL=C sort | cpio --quiet -o -H newc --reproducible -R 0:0) > initrd

# --- CD image for VMMs that boot only through a BIOS ------------------------------
# The command line on the CD is fixed, so run.sh rebuilds it for each list; see iso.sh.
ls -l vmlinuz vmlinux initrd root/init root/bin/busybox
