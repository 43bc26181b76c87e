#!/bin/bash
# kernel_probes.sh: kprobes, kretprobes and uprobes of a kernel under load; what they count is right

start_load
mount -t tracefs trace /sys/kernel/tracing
cd /sys/kernel/tracing || exit 1

kprobes() { # breakpoints, jumps (optimised probes) and ftrace's call, at the start and in the middle
    for _ in $(seq 8); do
        for probe in "p:k1 vfs_read \$arg1 \$arg3" "r:k2 vfs_write \$retval" 'p:k3 kmem_cache_alloc' \
            'p:k4 do_sys_openat2+5'; do
            echo "$probe" >>kprobe_events || return 1
        done
        echo 1 >events/kprobes/enable || return 1
        cat /proc/uptime >/dev/null
        sleep 0.05
        echo 0 >events/kprobes/enable
        echo >kprobe_events
    done
}
part kprobes kprobes
many() {
    grep -E ' [tT] (vfs|ksys|tcp|skb|page|do)_[a-z_0-9]*$' /proc/kallsyms | awk '{print "p:m" NR " " $3}' |
        head -n 100 >/tmp/probes
    while read -r probe; do
        echo "$probe" >>kprobe_events 2>/dev/null
    done </tmp/probes
    for _ in $(seq 2); do
        echo 1 >events/kprobes/enable
        sleep 0.3
        echo 0 >events/kprobes/enable
    done
    echo "$(wc -l <kprobe_profile) probes" >&2
    echo >kprobe_events
}
part many many
cat >/tmp/work/calls.c <<'END'
#include <stdio.h>
#include <stdlib.h>
__attribute__((noinline)) int counted(int n) { __asm__ volatile(""); return n * 3 + 1; }
__attribute__((noinline)) int pushes(int n) { int a[4] = {n, n + 1}; __asm__ volatile("" : : "r"(a) : "memory", "rbx");
    return a[n & 1]; }
int main(int c, char **v)
{
    unsigned x = 1;
    for (int i = 0, n = atoi(v[1]); i < n; i++) x = x * 31 + counted(i) + pushes(i);
    printf("%u\n", x);
}
END
gcc -O1 -w -no-pie -o /tmp/work/calls /tmp/work/calls.c || exit 1
expected=$(/tmp/work/calls 2000)
uprobes() {
    local base counted pushes
    for name in counted pushes; do # addresses of a program at 0x400000
        declare "$name=$(nm /tmp/work/calls | awk -v n=$name '$3 == n {print "0x" $1}')"
    done
    base=0x400000
    for _ in $(seq 4); do
        echo "p:u1 /tmp/work/calls:$((counted - base))" >uprobe_events
        echo "r:u2 /tmp/work/calls:$((counted - base)) \$retval" >>uprobe_events
        echo "p:u3 /tmp/work/calls:$((pushes - base))" >>uprobe_events
        echo 1 >events/uprobes/enable || return 1
        [ "$(/tmp/work/calls 2000)" = "$expected" ] || fail "the probed program computed something wrong"
        echo 0 >events/uprobes/enable
        for name in u1 u2 u3; do
            hits=$(awk -v n=$name '$2 == n {print $3}' uprobe_profile)
            [ "$hits" = 2000 ] || fail "$name: $hits hits"
        done
        echo >uprobe_events
        [ "$(/tmp/work/calls 2000)" = "$expected" ] || fail "the program computed something wrong"
    done
}
part uprobes uprobes
# A probe comes and goes while the program runs on another processor.
running() {
    /tmp/work/calls 5000000 >/tmp/work/long &
    while kill -0 $! 2>/dev/null; do
        echo "p:u1 /tmp/work/calls:$(($(nm /tmp/work/calls | awk '$3 == "counted" {print "0x" $1}') - 0x400000))" \
            >uprobe_events
        echo 1 >events/uprobes/enable
        sleep 0.02
        echo 0 >events/uprobes/enable
        echo >uprobe_events
        sleep 0.1
    done
    [ "$(cat /tmp/work/long)" = "$(/tmp/work/calls 5000000)" ] || fail "the program computed something wrong"
}
part running running
stop_load
