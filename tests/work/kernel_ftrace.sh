#!/bin/bash
# kernel_ftrace.sh: tracing of all functions of a kernel under load, switched on and off, and of some of them

start_load
mount -t tracefs trace /sys/kernel/tracing
cd /sys/kernel/tracing || exit 1
echo 256 >buffer_size_kb

tracers() { # tracers TIMES SECONDS
    for _ in $(seq "$1"); do
        for tracer in function function_graph nop; do
            echo $tracer >current_tracer || fail $tracer
            sleep "$2"
        done
    done
}
part tracers tracers 3 0.2
part tracers-fast tracers 2 0
content() {
    echo function >current_tracer
    sleep 1
    echo 0 >tracing_on
    [ "$(head -n 3000 trace | grep -vc '^#')" -gt 500 ] || fail "the trace is empty"
    echo nop >current_tracer
    echo 1 >tracing_on
}
part content content
filters() {
    for _ in $(seq 2); do
        for filter in '*lock*' 'vfs_*' 'do_*' ''; do
            echo "$filter" >set_ftrace_filter
            echo function >current_tracer
            echo nop >current_tracer
        done
    done
}
part filters filters
profile() {
    for _ in $(seq 3); do
        echo 1 >function_profile_enabled
        sleep 0.2
        echo 0 >function_profile_enabled
    done
    [ "$(head -n 40 trace_stat/function0 | wc -l)" -gt 20 ] || fail "the profile is empty"
}
[ ! -e function_profile_enabled ] || part profile profile
stacks() {
    for _ in $(seq 3); do
        echo 1 >/proc/sys/kernel/stack_tracer_enabled
        sleep 0.1
        echo 0 >/proc/sys/kernel/stack_tracer_enabled
    done
}
part stacks stacks
latency() {
    for tracer in wakeup wakeup_rt hwlat osnoise timerlat; do
        grep -qw $tracer available_tracers || continue
        echo $tracer >current_tracer
        sleep 0.3
        echo nop >current_tracer
    done
}
part latency latency
stop_load
