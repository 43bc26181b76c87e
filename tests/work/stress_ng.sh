#!/bin/bash
# stress_ng.sh CLASS...: every stressor of these classes that can run here, one second each, verified

# Without those that need what is not there, take minutes whatever they are told, or bring a system down.
without='apparmor bad-ioctl bigheap bind-mount binderfs brk cgroup chroot clone cpu-online daemon dev enosys forkheavy
 fork-vm hdd iomix klog loop memhotplug mlockmany module munmap netlink-proc netlink-task nice numa oom-pipe
 opcode pagemove pci physpage procfs quota ramfs rawdev reboot resources rtc smi softlockup spawn swap sync-file
 sysbadaddr sysfs sysinval tun umount verity vm-segv watchdog xattr zombie'
run() {
    timeout -k 5 120 stress-ng --"$1" "$(nproc)" --verify -t 1 --oomable --temp-path /tmp/work >log 2>&1
    local status=$?
    case $status in
    0) return 0 ;;
    3 | 4) echo "$1 is skipped" >&2 ;; # no resources, or not here
    *)
        cat log >&2
        return $status
        ;;
    esac
}
for class in "$@"; do
    stress-ng --class "$class?" 2>&1 | sed 's/.*stressors: //' | tr ' ' '\n'
done | sort -u | grep -vxFf <(tr -s ' \n' '\n' <<<"$without") >stressors
while read -r name; do
    part "$name" run "$name" </dev/null
done <stressors
