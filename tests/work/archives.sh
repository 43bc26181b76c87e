#!/bin/bash
# archives.sh: compression with each program and back, of generated text and of program code

perl -e 'my $s = 1; for (1 .. 400000) { $s = ($s * 1103515245 + 12345) & 0x7fffffff;
    print qw(of the and interrupt descriptor table page fault)[$s >> 8 & 7],
        $s & 0x10000 ? " " : sprintf "%x\n", $s; }' >data
cat /usr/lib/x86_64-linux-gnu/libc.so.6 /usr/bin/bash >>data
round_trip() {
    "$@" -c data >packed && "$1" -dc packed | cmp - data
}
for command in "gzip -n1" "gzip -n9" "bzip2 -9" "xz -1" "xz -6 -T2" "zstd -q -3" "zstd -q -15 -T2"; do
    name=$(echo "$command" | tr -d ' ')
    # shellcheck disable=SC2086 # options are words
    part "$name" round_trip $command
    digest "$name" <packed
done
