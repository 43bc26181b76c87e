#!/bin/busybox sh
# shellcheck shell=dash
# guest-init.sh - /init of the test guests
#
# With trapeze.script=demo on the kernel command line: show the machine and
# switch it off. Otherwise: a shell on the console, and off when it ends.
# A failing script ends with status 3 through the debug-exit port (1 * 2 + 1).

PATH=/bin
export PATH HOME=/root TERM=linux
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1

run() {
    echo "+ $*"
    "$@" || status=1
}

script_demo() {
    run uname -a
    run cat /proc/cpuinfo
    run free
}

# One word each that a test can wait for, then what it asks.
script_reboot() {
    echo "guest: rebooting"
    reboot -f
}

script_idle() {
    echo "guest: idle"
    while :; do sleep 3600; done
}

# Every processor computes; none may get stuck.
script_smp() {
    run grep -c ^processor /proc/cpuinfo
    for cpu in $(seq "$(grep -c ^processor /proc/cpuinfo)"); do
        taskset -c $((cpu - 1)) sh -c 'seq 2000 | sha256sum' &
    done
    wait
    echo "guest: processors are done"
}

script_fail() {
    run false
}

script_dmesg() {
    run dmesg
}

status=0
script=$(sed -n 's/.*trapeze\.script=\([a-z]*\).*/\1/p' /proc/cmdline)
echo "guest: init reached after $(cut -d ' ' -f 1 /proc/uptime) s"
case $script in
demo | reboot | idle | smp | fail | dmesg) "script_$script" ;;
*)
    echo "Type 'exit' to switch this machine off."
    cd /root && setsid cttyhack sh
    ;;
esac
[ "$status" = 0 ] || debug-exit "$status"
poweroff -f
