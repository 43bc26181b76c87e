#!/bin/bash
# /init of a guest of guest_work.py: init.sh LIMIT WORKLOAD [ARGUMENT...]; results go to the second serial port
export PATH=/usr/sbin:/usr/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t tmpfs run /run
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
ln -s /proc/self/fd /dev/fd
exec </dev/null >/dev/console 2>&1
stty raw -echo </dev/ttyS1
bash /work/session.sh "$@" >/dev/ttyS1
echo o >/proc/sysrq-trigger
sleep 60
