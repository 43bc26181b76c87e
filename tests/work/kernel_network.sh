#!/bin/bash
# kernel_network.sh: a bridge and virtual links between name spaces, filters with address translation, iperf3

modprobe -a veth bridge nf_tables nft_chain_nat nft_masq nft_ct nft_counter tcp_bbr sch_netem 2>/dev/null
ip link add b0 type bridge
ip link set b0 up
ip addr add 10.0.0.254/24 dev b0
for n in 1 2; do
    ip netns add n$n
    ip link add v$n type veth peer name e0 netns n$n
    ip link set v$n master b0 up
    ip -n n$n addr add 10.0.0.$n/24 dev e0
    ip -n n$n link set e0 up
    ip -n n$n link set lo up
done
ip netns exec n2 iperf3 -s -D
ip netns exec n2 python3 -m http.server 8000 --directory /usr/bin >&2 &
sleep 3
transfer() {
    ip netns exec n1 iperf3 -c 10.0.0.2 -t 3 "$@" >&2
}
part tcp transfer
part tcp-reverse transfer -R
part tcp-parallel transfer -P 4
part tcp-bbr transfer -C bbr
part udp transfer -u -b 100M
nft -f - <<'END' || fail nft
table ip nat {
    chain out { type nat hook postrouting priority 100; ip daddr 10.0.0.2 masquerade; }
}
table inet rules {
    set ports { type inet_service; elements = { 5201, 8000 } }
    chain in { type filter hook input priority 0; tcp dport @ports counter accept; ct state established accept; }
    chain forward { type filter hook forward priority 0; ct state invalid drop; meta l4proto { tcp, udp } counter; }
}
END
part tcp-filtered transfer
fetch() {
    for name in bash perl python3; do
        ip netns exec n1 python3 -c "
import urllib.request
open('/tmp/got', 'wb').write(urllib.request.urlopen('http://10.0.0.2:8000/$name').read())" || return 1
        cmp /tmp/got /usr/bin/$name || return 1
    done
}
part fetch fetch
tc qdisc add dev v2 root netem delay 2ms loss 1% reorder 2% duplicate 1% corrupt 0.1% 2>/dev/null
part fetch-disturbed fetch
kill %1
pkill iperf3
ip netns del n1
ip netns del n2
