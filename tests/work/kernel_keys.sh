#!/bin/bash
# kernel_keys.sh: static keys and static calls of a kernel under load, switched on and off

start_load
mount -t debugfs debug /sys/kernel/debug
mount -t tracefs trace /sys/kernel/tracing
cd /sys/kernel/debug || exit 1

switch() { # switch FILE ON OFF TIMES
    for _ in $(seq "$4"); do
        echo "$2" >"$1" && echo "$3" >"$1" || return 1
    done
}
part schedstats switch /proc/sys/kernel/sched_schedstats 1 0 60
part delayacct switch /proc/sys/kernel/task_delayacct 1 0 60
part bpf-stats switch /proc/sys/kernel/bpf_stats_enabled 1 0 60
for feature in GENTLE_FAIR_SLEEPERS NEXT_BUDDY WAKEUP_PREEMPTION TTWU_QUEUE RT_PUSH_IPI; do
    part "$feature" switch sched/features NO_$feature $feature 20
done
preemption() {
    for _ in $(seq 3); do
        for mode in none voluntary full; do
            echo $mode >sched/preempt && grep -q "($mode)" sched/preempt || return 1
        done
    done
}
part preemption preemption
part dynamic-debug switch dynamic_debug/control 'module tcp +p' 'module tcp -p' 50
part dynamic-debug-files switch dynamic_debug/control 'file drivers/net/* +p' 'file drivers/net/* -p' 50
for group in sched syscalls irq kmem timer; do
    part "events-$group" switch /sys/kernel/tracing/events/$group/enable 1 0 10
done
keys() {
    for _ in $(seq 10); do
        modprobe test_static_keys && modprobe -r test_static_keys test_static_key_base || return 1
    done
}
part test_static_keys keys
stop_load
