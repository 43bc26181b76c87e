#!/bin/bash
# 32-bit variant of the guest, for emulators without long mode (v86).
# Needs gcc -m32 and the i386 package lists (dpkg --add-architecture i386).
#   build-guest32.sh [outdir]      default: $BENCH_BUILD or build/, in 32/ below it
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${1:-${BENCH_BUILD:-$here/build}}/32
mkdir -p "$out"
cd "$out"
if [ ! -s vmlinuz ]; then
	pkg=$(apt-cache depends linux-image-686:i386 | sed -n 's/.*Depends: \(linux-image-[0-9][^:]*\).*/\1/p' | head -1)
	rm -rf kpkg && mkdir kpkg
	(cd kpkg && apt-get download "$pkg:i386" && dpkg -x ./*.deb x)
	cp kpkg/x/boot/vmlinuz-* vmlinuz
	printf '%s\n' kpkg/*.deb | sed 's|.*/||' > kernel-package.txt
	rm -rf kpkg
fi
mkdir -p obj root/{bin,dev,proc,sys,tmp}
if [ ! -x root/bin/busybox ]; then
	rm -rf bbpkg && mkdir bbpkg
	(cd bbpkg && apt-get download busybox-static:i386 && dpkg -x ./*.deb x)
	cp bbpkg/x/bin/busybox root/bin/busybox 2>/dev/null || cp bbpkg/x/usr/bin/busybox root/bin/busybox
	rm -rf bbpkg
fi
cc="gcc -m32 -msse2 -mfpmath=sse -Wall"
for f in cpu os vb; do $cc -O2 -c "$here/guest/$f.c" -o obj/$f.o; done
$cc -O3 -c "$here/guest/fp.c" -o obj/fp.o
$cc -static -o root/init obj/{cpu,fp,os,vb}.o -lm
strip root/init
find root -exec touch -h -d @1700000000 {} +
(cd root && find . | LC_ALL=C sort | cpio --quiet -o -H newc --reproducible -R 0:0) > initrd
ls -l vmlinuz initrd
