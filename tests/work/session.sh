#!/bin/bash
# session.sh LIMIT WORKLOAD [ARGUMENT...]: run one workload for at most LIMIT seconds. Its output is
# followed by "@end STATUS SECONDS". The same in a guest and on the host.
export PATH=/usr/sbin:/usr/bin:/work LANG=C.UTF-8 HOME=/root TERM=dumb PYTHONHASHSEED=0
limit=$1
script=/work/$2
shift 2
ip link set lo up
mkdir -p /tmp/work
cd /tmp/work || exit 1
start=$EPOCHREALTIME
timeout -k 10 "$limit" bash /work/workload.sh "$script" "$@" </dev/null >/tmp/output
status=$?
end=$EPOCHREALTIME
cat /tmp/output
echo "@end $status $(awk "BEGIN { printf \"%.2f\", $end - $start }")"
