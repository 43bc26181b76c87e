#!/bin/bash
# kernel_modules.sh: modules loaded into a kernel under load, and unloaded, again and again

start_load
modules='dummy loop crc32_generic xor raid6_pq btrfs ext4 xfs f2fs tun veth bridge bonding vxlan wireguard nf_tables
 nf_conntrack nft_chain_nat ip_tables kvm dm-mod dm-crypt dm-raid md-mod raid456 tcp_bbr twofish-x86_64
 camellia-aesni-avx2 sha512_ssse3 aesni_intel ghash_clmulni_intel serpent-avx2 sctp 9p cifs nfs nbd null_blk zram
 squashfs overlay fuse isofs vfat snd-dummy test_user_copy'
rounds() {
    for _ in 1 2; do
        for module in $modules; do
            modprobe "$module" || echo "$module does not load" >&2
        done
        echo "$(wc -l </proc/modules) modules" >&2
        for _ in 1 2 3 4 5; do # those that others need go later
            awk '$3 == 0 {print $1}' /proc/modules | xargs -n 1 rmmod 2>/dev/null
        done
    done
    echo "$(wc -l </proc/modules) modules are left" >&2
}
part rounds rounds
again() {
    for _ in $(seq 20); do
        modprobe "$1" && rmmod "$1" || return 1 # what it needs stays
    done
}
for module in dummy veth null_blk ext4; do
    part "$module" again $module
done
stop_load
