#!/bin/bash
# kernel_bpf.sh: the kernel's own tests of its BPF compiler, with and without blinded constants;
# filters of sockets; programs of bpftrace, which are called from changed code

tests() { # tests HARDEN OPTION
    echo "$1" >/proc/sys/net/core/bpf_jit_harden
    dmesg -C
    modprobe test_bpf "${2:-test_range=0,2000}" || fail test_bpf
    dmesg | grep -E 'Summary|FAIL' >&2
    dmesg | grep -q 'test_bpf: Summary: [0-9]* PASSED, 0 FAILED' || fail "test_bpf says otherwise"
    modprobe -r test_bpf
}
part tests tests 0
part tests-hardened tests 2 test_range=0,400
echo 0 >/proc/sys/net/core/bpf_jit_harden
part filters python3 /work/bpf_filters.py

start_load
mount -t debugfs debug /sys/kernel/debug
mount -t tracefs trace /sys/kernel/tracing
trace() { # trace NAME PROGRAM: something is counted
    part "$1" timeout 300 bpftrace -e "$2 interval:s:2 { exit(); }" >/tmp/out 2>/tmp/err
    cat /tmp/out /tmp/err >&2
    grep -qE '^@.*: [1-9]' /tmp/out || fail "$1 counted nothing"
}
trace kprobe 'kprobe:vfs_read { @[comm] = count(); }'
trace kretprobe 'kretprobe:vfs_write { @ = sum(retval); @n = count(); }'
trace kfunc 'kfunc:vfs_read { @[comm] = count(); } kretfunc:vfs_read { @r = hist(retval); }'
trace tracepoint 'tracepoint:sched:sched_switch { @[args->next_comm] = count(); }'
trace syscalls 'tracepoint:raw_syscalls:sys_enter { @[args->id] = count(); }'
trace profile 'profile:hz:99 { @[kstack(3)] = count(); }'
trace uprobe 'uprobe:/usr/lib/x86_64-linux-gnu/libc.so.6:malloc { @ = hist(arg0); @n = count(); }'
stop_load
