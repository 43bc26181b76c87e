#!/bin/sh
# debian.sh - make a bootable Debian disk: trapeze image build debian FILE
#
# A GPT disk that starts by BIOS and by UEFI: a partition for GRUB's core, one for EFI programs, one with the system.
# Packages come from Debian's archive by mmdebstrap: as root, or in a user namespace without any rights. Nothing is
# mounted and no loop device is used: file systems are made with their contents.
#
# Settings by environment, as src/cli/image_build.c gives them: FILE, SIZE_MIB, SUITE, MIRROR, HOST_NAME, PASSWORD (of
# root; empty: none), SSH_KEY (a file; empty: none), PACKAGES (more of them, by commas), CLOUD_INIT (yes or no).
set -eu

: "${FILE:?}" "${SIZE_MIB:=4096}" "${SUITE:=bookworm}" "${MIRROR:=}" "${HOST_NAME:=debian}"
: "${PASSWORD:=}" "${SSH_KEY:=}" "${PACKAGES:=}" "${CLOUD_INIT:=yes}"
PATH=$PATH:/usr/sbin:/sbin

esp_mib=64
root_at_mib=$((2 + esp_mib)) # behind GRUB's core, which is in the second MiB, and the EFI partition
root_mib=$((SIZE_MIB - root_at_mib - 1))
core_sector=2048

fail() {
    echo "$*" >&2
    exit 1
}

# ---- what it needs ----

missing=
need() { # FILE-OR-PROGRAM PACKAGE
    command -v "$1" >/dev/null || [ -e "$1" ] || missing="$missing $2"
}
need mmdebstrap mmdebstrap
need mke2fs e2fsprogs
need mkfs.vfat dosfstools
need mcopy mtools
need sfdisk fdisk
need grub-mkimage grub-common
need /usr/lib/grub/i386-pc/boot.img grub-pc-bin
need /usr/lib/grub/x86_64-efi/moddep.lst grub-efi-amd64-bin
[ "$(id -u)" = 0 ] || need newuidmap uidmap # a user namespace with many users
[ -z "$missing" ] || fail "some programs are not here; install them: apt-get install$missing"
[ "$root_mib" -ge 1024 ] || fail "a disk of $SIZE_MIB MiB is too small for Debian: it wants 1100 MiB at least"
[ -z "$SSH_KEY" ] || [ -r "$SSH_KEY" ] || fail "--ssh-key '$SSH_KEY': it cannot be read"

work=$(mktemp -d "${TMPDIR:-/tmp}/trapeze-image.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP
chmod 1777 "$work" # another user's, in a user namespace
uuid=$(cat /proc/sys/kernel/random/uuid)
esp_id=$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')

# ---- the system ----

include=linux-image-amd64,systemd-sysv,systemd-resolved,systemd-timesyncd,udev,dbus,libpam-systemd,init,login,passwd
include=$include,e2fsprogs,fdisk,kmod,initramfs-tools,zstd,openssh-server,iproute2,iputils-ping,procps,less,nano,ca-certificates
[ "$CLOUD_INIT" = no ] || include=$include,cloud-init,cloud-guest-utils,netplan.io,sudo
[ -z "$PACKAGES" ] || include=$include,$PACKAGES
[ -z "$SSH_KEY" ] || cp "$SSH_KEY" "$work/key"
chmod -R a+rX "$work"

# Run by mmdebstrap with the new system's root as $1.
cat >"$work/customize" <<EOF
#!/bin/sh
set -eu
root=\$1
echo '$HOST_NAME' >"\$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 %s\n::1 localhost ip6-localhost\n' '$HOST_NAME' >"\$root/etc/hosts"
echo 'UUID=$uuid / ext4 errors=remount-ro,x-systemd.growfs 0 1' >"\$root/etc/fstab"
: >"\$root/etc/machine-id"
rm -f "\$root"/etc/ssh/ssh_host_*_key*
cat >"\$root/etc/systemd/system/ssh-keys.service" <<'UNIT'
[Unit]
Description=Host keys of this machine
Before=ssh.service
ConditionFileNotEmpty=!/etc/ssh/ssh_host_ed25519_key
[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A
[Install]
WantedBy=multi-user.target
UNIT
chroot "\$root" systemctl --quiet enable ssh-keys.service systemd-networkd.service systemd-resolved.service
ln -sf ../run/systemd/resolve/stub-resolv.conf "\$root/etc/resolv.conf"
# cloud-init's own network goes before this one. Without a seed it does not run.
printf '[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n' >"\$root/etc/systemd/network/80-dhcp.network"
if [ '$CLOUD_INIT' != no ]; then
    echo 'datasource_list: [ NoCloud, ConfigDrive ]' >"\$root/etc/cloud/cloud.cfg.d/90-trapeze.cfg"
    echo 'disable_root: false' >>"\$root/etc/cloud/cloud.cfg.d/90-trapeze.cfg"
fi
[ ! -f '$work/key' ] || { install -d -m 700 "\$root/root/.ssh"; install -m 600 '$work/key' "\$root/root/.ssh/authorized_keys"; }
[ ! -f '$work/password' ] || { printf 'root:'; cat '$work/password'; } | chroot "\$root" chpasswd
[ -f '$work/password' ] || chroot "\$root" passwd --quiet --lock root
mkdir -p "\$root/boot/grub/i386-pc" "\$root/boot/efi"
cp /usr/lib/grub/i386-pc/*.mod /usr/lib/grub/i386-pc/*.lst "\$root/boot/grub/i386-pc/"
cat >"\$root/boot/grub/grub.cfg" <<'GRUB'
serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
set timeout=1
menuentry "Debian" {
    linux /vmlinuz root=UUID=$uuid ro console=tty0 console=ttyS0,115200
    initrd /initrd.img
}
menuentry "Debian, to mend it" {
    linux /vmlinuz root=UUID=$uuid ro single console=tty0 console=ttyS0,115200
    initrd /initrd.img
}
GRUB
rm -rf "\$root"/var/cache/apt/archives/*.deb "\$root"/var/lib/apt/lists/*_*
EOF
chmod 755 "$work/customize"
if [ -n "$PASSWORD" ]; then
    (umask 022 && printf '%s\n' "$PASSWORD" >"$work/password")
fi

echo "fetching and installing packages (some minutes)"
mmdebstrap --quiet --variant=minbase --format=tar --include="$include" \
    --aptopt='Acquire::Retries "3"' --dpkgopt=path-exclude=/usr/share/man/* \
    --customize-hook="$work/customize \"\$1\"" "$SUITE" "$work/root.tar" ${MIRROR:+"$MIRROR"} ||
    fail "mmdebstrap could not make the system"

# ---- the disk ----

echo "writing $FILE"
cat >"$work/populate" <<EOF
set -eu
mkdir '$work/root'
tar -C '$work/root' --numeric-owner -xpf '$work/root.tar' --exclude='./dev/*'
mke2fs -q -t ext4 -L system -U '$uuid' -E root_owner=0:0 -d '$work/root' '$work/root.img' ${root_mib}M
chmod 644 '$work/root.img'
rm -rf '$work/root'
EOF
if [ "$(id -u)" = 0 ]; then
    sh "$work/populate"
else
    mmdebstrap --unshare-helper sh "$work/populate" # files of many owners
fi >/dev/null
rm "$work/root.tar"
truncate -s "${SIZE_MIB}M" "$work/disk.img"
printf 'label: gpt\nstart=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649\nstart=4096, size=%s, type=U\nstart=%s, size=%s, type=L\n' \
    $((esp_mib * 2048)) $((root_at_mib * 2048)) $((root_mib * 2048)) |
    sfdisk --quiet --no-reread --no-tell-kernel "$work/disk.img"
dd if="$work/root.img" of="$work/disk.img" bs=1M seek=$root_at_mib conv=notrunc,sparse status=none
rm "$work/root.img"

modules="part_gpt part_msdos ext2 fat search search_fs_uuid configfile normal linux serial echo test ls"
# shellcheck disable=SC2016 # GRUB's variables
printf 'search.fs_uuid %s root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n' "$uuid" >"$work/efi.cfg"
# shellcheck disable=SC2086
grub-mkimage -O x86_64-efi -o "$work/bootx64.efi" -c "$work/efi.cfg" -p /EFI/debian $modules
truncate -s "${esp_mib}M" "$work/esp.img"
mkfs.vfat -F 32 -i "$esp_id" "$work/esp.img" >/dev/null
mmd -i "$work/esp.img" ::/EFI ::/EFI/BOOT
mcopy -i "$work/esp.img" "$work/bootx64.efi" ::/EFI/BOOT/BOOTX64.EFI
dd if="$work/esp.img" of="$work/disk.img" bs=1M seek=2 conv=notrunc,sparse status=none

# GRUB for a BIOS: its first sector knows where the core begins, and the core's first how long it is.
# shellcheck disable=SC2016
printf 'search.fs_uuid %s root\nset prefix=($root)/boot/grub\n' "$uuid" >"$work/bios.cfg"
# shellcheck disable=SC2086
grub-mkimage -O i386-pc -o "$work/core.img" -c "$work/bios.cfg" -p /boot/grub biosdisk $modules
sectors=$((($(stat -c %s "$work/core.img") + 511) / 512))
[ "$sectors" -le 2048 ] || fail "GRUB's core is larger than its partition"

put() { # FILE OFFSET BYTES VALUE, little-endian
    octal='' value=$4 n=0
    while [ $n -lt "$3" ]; do
        octal="$octal\\0$(printf %o $((value & 255)))"
        value=$((value >> 8)) n=$((n + 1))
    done
    printf '%b' "$octal" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
cp /usr/lib/grub/i386-pc/boot.img "$work/boot.img"
chmod u+w "$work/boot.img"
put "$work/boot.img" 92 8 $core_sector
put "$work/boot.img" 102 2 37008 # two NOPs: the BIOS's drive number is right
put "$work/core.img" 500 8 $((core_sector + 1))
put "$work/core.img" 508 2 $((sectors - 1))
dd if="$work/boot.img" of="$work/disk.img" bs=440 count=1 conv=notrunc status=none
dd if="$work/core.img" of="$work/disk.img" bs=512 seek=$core_sector conv=notrunc status=none

# The format goes by the name, as with "image convert".
case $FILE in
*.qcow2) "${TRAPEZE:?}" image convert -O qcow2 "$work/disk.img" "$FILE" ;;
*) cp --sparse=always "$work/disk.img" "$FILE" ;;
esac
echo "done: trapeze run $FILE"
