#!/bin/bash
# kernel_storage.sh: file systems on loop devices, encrypted and redundant ones, written by fio and verified

modprobe -a loop dm-crypt raid456 btrfs xfs ext4
for n in 0 1 2 3; do
    truncate -s 320M /tmp/disk$n
    losetup /dev/loop$n /tmp/disk$n || exit 1
done
mkdir -p /mnt
verify() { # writes with a checksum in each block, and reads them back
    fio --name=verify --directory=/mnt --size=60M --rw=randwrite --bs=4k-64k --verify=crc32c --verify_fatal=1 \
        --do_verify=1 --ioengine=psync --numjobs="$(nproc)" --end_fsync=1 >&2
}
copy() {
    cp -a /usr/lib/python3 /usr/bin /mnt/ && sync && echo 3 >/proc/sys/vm/drop_caches &&
        diff -r /usr/bin /mnt/bin && diff -r /usr/lib/python3 /mnt/python3
}
check() { # check NAME DEVICE MAKE CHECK
    # shellcheck disable=SC2086 # commands with options
    part "$1-make" $3 "$2" >&2
    mount "$2" /mnt || fail "$1: mount"
    part "$1-verify" verify
    part "$1-copy" copy
    umount /mnt
    # shellcheck disable=SC2086
    part "$1-check" $4 "$2" >&2
}
check ext4 /dev/loop0 'mkfs.ext4 -q -F' 'e2fsck -f -n'
check xfs /dev/loop0 'mkfs.xfs -q -f' 'xfs_repair -n'
check btrfs /dev/loop0 'mkfs.btrfs -q -f' 'btrfs check -q'
mkfs.btrfs -q -f -d raid1 -m raid1 /dev/loop0 /dev/loop1 >&2
mount -o compress=zstd /dev/loop0 /mnt
part btrfs-raid1-copy copy
dd if=/dev/urandom of=/tmp/disk1 bs=1M seek=60 count=100 conv=notrunc 2>/dev/null
echo 3 >/proc/sys/vm/drop_caches
part btrfs-scrub btrfs scrub start -B /mnt >&2
part btrfs-compare diff -r /usr/bin /mnt/bin
umount /mnt
wipefs -qa /dev/loop0 /dev/loop1
echo secret | cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 /dev/loop0 - >&2 || fail luks
echo secret | cryptsetup open /dev/loop0 secret - || fail luks
check luks-ext4 /dev/mapper/secret 'mkfs.ext4 -q -F' 'e2fsck -f -n'
cryptsetup close secret
wipefs -qa /dev/loop0
raid6() {
    mdadm -q --create /dev/md0 --run --assume-clean --level=6 --raid-devices=4 /dev/loop[0-3] >&2 &&
        mkfs.ext4 -q -F /dev/md0 && mount /dev/md0 /mnt && copy || return 1
    mdadm -q /dev/md0 --fail /dev/loop1 --fail /dev/loop2 >&2
    echo 3 >/proc/sys/vm/drop_caches
    diff -r /usr/bin /mnt/bin || return 1
    mdadm -q /dev/md0 --remove /dev/loop1 --remove /dev/loop2 >&2
    mdadm -q --zero-superblock /dev/loop1 /dev/loop2
    mdadm -q /dev/md0 --add /dev/loop1 --add /dev/loop2 >&2
    mdadm -q --wait /dev/md0
    mdadm -q /dev/md0 --fail /dev/loop0 --fail /dev/loop3 >&2
    echo 3 >/proc/sys/vm/drop_caches
    diff -r /usr/bin /mnt/bin
}
part raid6 raid6
