#!/bin/sh
# build_guest.sh SOURCE OUT - assemble a guest test: an ELF of 64 bits, turned into one of 32
set -e
gcc -c -m64 -o "$2.o" "$1"
ld -m elf_x86_64 -static -N --build-id=none --no-warn-rwx-segments -z noexecstack \
    --section-start=.multiboot=0x100000 -Ttext=0x100100 -o "$2.64" "$2.o"
objcopy -O elf32-i386 "$2.64" "$2"
rm -f "$2.o" "$2.64"
