#!/bin/bash
# Measures one VMM with the benchmark guest.
#
#   run.sh [options] VMM [-- extra arguments for the VMM]
#
# VMM: native | trapeze | trapeze-interpreter | qemu-tcg | qemu-tcg-q35 | qemu-tcg-microvm | qemu-tcg-plain |
#      qemu-kvm | qemu-kvm-microvm | uml | bochs | v86 | native32 (the base for v86) | custom
# Options:
#   -o FILE   results file, JSON lines, appended (default: results/VMM.jsonl next to this script)
#   -n N      processors in the guest (default 1)
#   -r N      repetitions (default 1)
#   -s X      scale factor for all benchmarks (default: the VMM's own)
#   -l LIST   one launch with this list instead of the plan, may be repeated
#             (names or groups: int fp simd mem call jit sys pf disk bb smp; NAME@X scales it)
#   -a ARGS   more kernel command line
#   -t S      time limit of one launch (default 170)
#   -c TEMPL  for custom: command with {kernel} {vmlinux} {initrd} {cmdline} {disk} {smp} {mem}
#   -x NAME   name to record instead of VMM
#
# Environment: BENCH_BUILD (where build-guest.sh put the guest), BENCH_LOCK (a file to
# flock around each launch), BENCH_NICE (niceness of the VMM), BENCH_MEM (guest MiB, 512),
# BENCH_CPU (host CPUs to pin the VMM to, or none; with one processor in the guest QEMU and
# UML are pinned to one CPU unless this says otherwise), QEMU (which qemu-system-x86_64),
# TRAPEZE (the program, default ../build/trapeze), TENGINE (its --engine), QCPU, QDRIVE, QKERNEL, QMACHINE, UML, BOCHS (see below), BENCH_DISK_DIR (default /dev/shm).
# shellcheck disable=SC2054 # commas in QEMU options
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=${BENCH_BUILD:-$here/build}
build=$(cd "$build" && pwd) || { echo "run build-guest.sh first" >&2; exit 2; }
out='' smp=1 reps=1 scale='' lists=() more='' limit=170 templ='' name=''
while getopts o:n:r:s:l:a:t:c:x: o; do
	case $o in
	o) out=$OPTARG ;; n) smp=$OPTARG ;; r) reps=$OPTARG ;; s) scale=$OPTARG ;; l) lists+=("$OPTARG") ;;
	a) more=$OPTARG ;; t) limit=$OPTARG ;; c) templ=$OPTARG ;; x) name=$OPTARG ;; *) exit 2 ;;
	esac
done
shift $((OPTIND - 1))
vmm=${1:?VMM}
shift
[ "${1:-}" = -- ] && shift
extra=("$@")
name=${name:-$vmm}
mem=${BENCH_MEM:-512}
QEMU=${QEMU:-qemu-system-x86_64}
mkdir -p "$here/results"
out=${out:-$here/results/$name.jsonl}
work=$(mktemp -d "${BENCH_DISK_DIR:-/dev/shm}/bench.XXXXXX")
trap 'rm -rf "$work"' EXIT
disk=$work/disk
truncate -s 256M "$disk"
# touch it so that every VMM sees the same, allocated file
dd if=/dev/zero of="$disk" bs=1M count=256 conv=notrunc status=none
log=${BENCH_LOG:-$build/$name.log}

khz() { # TSC kHz of this machine, for guests that cannot calibrate reliably
	python3 "$here/tsckhz.py"
}

# Plan: one launch per entry; groups keep a launch under the time limit.
plan=("none" "none" "none" "hold" "int,call" "fp,simd" "mem,jit" "sys" "pf" "disk" "bb.sha256sum,bb.gzip,bb.gunzip,bb.tar"
	"bb.awk,bb.awk_text,bb.sort_grep_sed" "bb.sh_pipes,bb.find_ls" "smp")
defscale=1
case $vmm in
qemu-tcg*) # sized so that a launch takes well under a minute
	plan=("none" "none" "none" "hold"
		"int.sha256@0.5,int.lz,int.sort,int.hash,int.interp@0.3,int.muldiv,call.virtual@0.5,call.fib"
		"fp.nbody@0.2,fp.matmul@0.1,fp.mandel@0.5,fp.x87@0.5,simd.libc_str@0.15,simd.libc_memcpy@0.3,simd.copy_sse2@0.3,simd.int_sse2@0.2"
		"mem.chase256k,mem.chase64m,mem.random64m@0.4,mem.triad@0.3,jit.wx@0.2,jit.rwx_patch@0.2,jit.cold@0.2"
		"sys.getppid,sys.rw1,sys.open@0.5,sys.clock,sys.signal@0.1,sys.pipe_switch@0.2,sys.nanosleep,sys.tcp_loopback@0.3"
		"pf.touch@0.5,pf.mprotect@0.3,pf.fork_exit@0.3,pf.fork_exec@0.4" "disk.seq_write,disk.seq_read,disk.rand4k_read@0.5,disk.rand4k_write@0.5"
		"bb.sha256sum@0.5,bb.gzip@0.5,bb.gunzip@0.5,bb.tar@0.4" "bb.awk@0.4,bb.awk_text@0.5,bb.sort_grep_sed@0.4" "bb.sh_pipes@0.3,bb.find_ls@0.5" "smp") ;;
uml) # system calls and faults cost it a hundred times more: less of them, or a launch takes minutes
	plan=("none" "none" "none" "hold" "int,call" "fp,simd" "mem,jit.wx@0.15,jit.rwx_patch,jit.cold"
		"sys.getppid@0.1,sys.rw1@0.1,sys.open@0.3,sys.clock@0.05,sys.signal@0.2,sys.pipe_switch@0.2,sys.nanosleep@0.5,sys.tcp_loopback"
		"pf.touch@0.3,pf.mprotect@0.15,pf.fork_exit@0.3,pf.fork_exec@0.3" "disk" "bb.sha256sum,bb.gzip,bb.gunzip,bb.tar@0.5"
		"bb.awk,bb.awk_text,bb.sort_grep_sed" "bb.sh_pipes@0.3,bb.find_ls@0.5" "smp") ;;
trapeze)
	plan=("none" "none" "none" "hold" "int@0.4,call@0.3" "fp@0.4,simd@0.3" "mem@0.3,jit@0.1"
		"sys@0.3,sys.nanosleep@1" "pf@0.3" "disk@0.5" "bb@0.3")
	[ "$smp" = 1 ] || plan+=("smp@0.3")
	limit=600 ;;
trapeze-interpreter) # sized for it
	plan=("none" "none" "none" "hold" "int@0.1,call@0.1" "fp@0.1,simd@0.05" "mem@0.1,jit@0.1"
		"sys@0.1,sys.nanosleep@1" "pf@0.1" "bb@0.1")
	[ "$smp" = 1 ] || plan+=("smp@0.2")
	limit=600 ;;
bochs) # a subset, scaled down
	plan=("none" "int.sha256,int.lz,int.sort@2,int.interp,int.muldiv@2,call.fib@3,call.virtual"
		"fp.nbody,fp.matmul@3,fp.mandel,simd.copy_sse2,simd.libc_memcpy,mem.chase256k,mem.random64m,jit.wx,jit.cold"
		"sys.getppid,sys.rw1,sys.open,sys.signal,sys.pipe_switch,pf.touch@2,pf.mprotect,pf.fork_exit,pf.fork_exec@2"
		"bb.sha256sum,bb.gzip,bb.awk,bb.awk_text,bb.sh_pipes@2")
	defscale=0.01
	limit=175 ;;
v86)
	plan=("none" "int.sha256,int.lz,int.sort@2,int.interp,call.fib@3,call.virtual,fp.nbody,fp.matmul@3,fp.mandel,simd.copy_sse2,simd.libc_memcpy"
		"mem.chase256k,mem.random64m,sys.getppid,sys.rw1,sys.open,sys.signal,sys.pipe_switch,pf.touch@2,pf.mprotect,pf.fork_exit,pf.fork_exec@2"
		"bb.sha256sum,bb.gzip,bb.awk,bb.awk_text,bb.sh_pipes@2")
	defscale=0.03
	limit=175 ;;
native32)
	plan=("int,call" "fp,simd" "mem" "sys" "pf" "bb.sha256sum,bb.gzip,bb.awk,bb.awk_text,bb.sh_pipes") ;;
esac
base="console=ttyS0 quiet panic=-1 random.trust_cpu=on mitigations=off"

# fills cmd[] for one launch; console= when the guest does not write to stdout
console=''
make_cmd() { # list scale
	local kargs="$base${more:+ $more} vb.list=$1 vb.scale=$2"
	console=''
	case $vmm in
	native)
		local cpus=0
		[ "$smp" = 1 ] && cpus=$lastcpu || cpus=0-$((smp - 1))
		mkdir -p "$work/t"
		cmd=(taskset -c "$cpus" "$build/root/init" -s "$2" -l "$1" -t "$work/t" -b "$build/root/bin/busybox" -d "$disk") ;;
	trapeze | trapeze-interpreter)
		engine=${TENGINE:-auto}
		[ "$vmm" = trapeze ] || engine=interpreter
		cmd=("${TRAPEZE:-$here/../build/trapeze}" run --engine "$engine" --kernel "$build/vmlinuz" --initrd "$build/initrd"
			-m "${mem}M" --cpus "$smp" --disk "$disk" --append "$kargs") ;;
	qemu-tcg | qemu-tcg-pc)
		cmd=("$QEMU" -accel tcg,thread=multi,tb-size=512 -machine pc,hpet=off,usb=off,vmport=off -cpu "${QCPU:-$tcgcpu}" -m "$mem" -smp "$smp"
			-nodefaults -no-user-config -display none -serial stdio -monitor none -no-reboot -bios "${QBIOS:-qboot.rom}"
			-kernel "$build/vmlinuz" -initrd "$build/initrd" -append "$kargs" "${qdisk[@]}" -device virtio-blk-pci,drive=d) ;;
	qemu-tcg-q35)
		cmd=("$QEMU" -accel tcg,thread=multi,tb-size=512 -machine q35,hpet=off,usb=off,vmport=off -cpu "${QCPU:-$tcgcpu}" -m "$mem" -smp "$smp"
			-nodefaults -no-user-config -display none -serial stdio -monitor none -no-reboot
			-kernel "$build/vmlinuz" -initrd "$build/initrd" -append "$kargs" "${qdisk[@]}" -device virtio-blk-pci,drive=d) ;;
	qemu-tcg-plain) # what one gets without tuning
		cmd=("$QEMU" -accel tcg -cpu max -m "$mem" -smp "$smp" -nographic -no-reboot
			-kernel "$build/vmlinuz" -initrd "$build/initrd" -append "$kargs" -drive "file=$disk,if=virtio,format=raw") ;;
	qemu-tcg-microvm)
		cmd=("$QEMU" -accel tcg,thread=multi,tb-size=512 -machine microvm,auto-kernel-cmdline=off -cpu "${QCPU:-$tcgcpu}" -m "$mem" -smp "$smp"
			-nodefaults -no-user-config -display none -serial stdio -monitor none -no-reboot
			-kernel "$build/${QKERNEL:-vmlinux}" -initrd "$build/initrd" -append "$kargs tsc=reliable tsc_early_khz=$(khz)" "${qdisk[@]}" -device virtio-blk-device,drive=d) ;;
	qemu-kvm)
		cmd=("$QEMU" -enable-kvm -machine "${QMACHINE:-q35}" -cpu "${QCPU:-host,-arch-capabilities}" -m "$mem" -smp "$smp"
			-nodefaults -no-user-config -display none -serial stdio -monitor none -no-reboot
			-kernel "$build/vmlinuz" -initrd "$build/initrd" -append "$kargs" "${qdisk[@]}" -device virtio-blk-pci,drive=d) ;;
	qemu-kvm-microvm)
		cmd=("$QEMU" -enable-kvm -machine microvm -cpu "${QCPU:-host,-arch-capabilities}" -m "$mem" -smp "$smp"
			-nodefaults -no-user-config -display none -serial stdio -monitor none -no-reboot
			-kernel "$build/vmlinux" -initrd "$build/initrd" -append "$kargs" "${qdisk[@]}" -device virtio-blk-device,drive=d) ;;
	uml)
		cmd=(env TMPDIR=/dev/shm "${UML:-linux.uml}" "initrd=$build/initrd" "mem=${mem}M" con=null con0=fd:0,fd:1 "ubd0=$disk"
			quiet panic=-1 "vb.list=$1" "vb.scale=$2") ;;
	bochs)
		console=$work/com1
		rm -f "$console"
		"$here/make-iso.sh" "$build" "$work/b.iso" "$kargs vb.off=port:0x8900:0x0:1" >>"$log" 2>&1
		"$here/bochsrc.sh" "$work" "$work/b.iso" "$mem" "$console" > "$work/bochsrc"
		# Debian builds the debugger in: it waits for "continue" first
		printf 'c\nq\n' > "$work/bochscmd"
		cmd=("${BOCHS:-bochs}" -q -f "$work/bochsrc")
		[ "${BOCHS_DEBUGGER:-1}" = 1 ] && cmd+=(-rc "$work/bochscmd") ;;
	native32)
		mkdir -p "$work/t"
		cmd=(taskset -c "$lastcpu" "$build/32/root/init" -s "$2" -l "$1" -t "$work/t" -b "$build/32/root/bin/busybox" -d "$disk") ;;
	v86) # 32-bit guest; V86_MODULE: node_modules/v86, V86_BIOS: directory with seabios.bin and vgabios.bin
		cmd=(node "$here/v86.mjs" "${V86_MODULE:-$build/node_modules/v86}" "${V86_BIOS:-$build/v86bios}" "$build/32/vmlinuz" "$build/32/initrd" "$mem" "$kargs") ;;
	custom)
		local t=$templ
		t=${t//\{kernel\}/$build/vmlinuz}; t=${t//\{vmlinux\}/$build/vmlinux}; t=${t//\{initrd\}/$build/initrd}
		t=${t//\{disk\}/$disk}; t=${t//\{smp\}/$smp}; t=${t//\{mem\}/$mem}
		t=${t//\{cmdline\}/\'$kargs\'}
		cmd=(sh -c "exec $t") ;;
	*) echo "unknown VMM $vmm" >&2; exit 2 ;;
	esac
	cmd+=("${extra[@]}")
	local pin=none
	if [ "$smp" = 1 ]; then
		# These hand every event from one thread or process to another; on one host CPU
		# that is several times faster than waking a second CPU.
		case $vmm in uml | qemu-tcg | qemu-tcg-q35 | qemu-tcg-microvm) pin=$lastcpu ;; esac
	fi
	pin=${BENCH_CPU:-$pin}
	[ "$pin" != none ] && [ "$vmm" != native ] && cmd=(taskset -c "$pin" "${cmd[@]}")
}

# What emulates fastest: no rep-movs string copies advertised, four-level paging, and none of
# the features whose checks end translation blocks. An AMD identity (max) keeps page table
# isolation off.
tcgcpu=max,-erms,-fsrm,-la57,-pcid,-smap,-smep,-umip
qdisk=(-drive "file=$disk,if=none,id=d,format=raw,${QDRIVE:-cache=none,aio=native}")
lastcpu=$(($(nproc) - 1))
rc=0
# One hold of the lock covers several launches, but is given up after a minute
held=0
if [ -n "${BENCH_LOCK:-}" ]; then
	exec 9>>"$BENCH_LOCK"
fi
lock() {
	[ -n "${BENCH_LOCK:-}" ] || return 0
	if [ "$held" != 0 ] && [ $((SECONDS - held)) -ge "${BENCH_HOLD:-60}" ]; then
		flock -u 9
		held=0
		sleep 0.3
	fi
	if [ "$held" = 0 ]; then
		flock 9
		held=$SECONDS
		[ "$held" = 0 ] && held=-1
	fi
}
for ((rep = 1; rep <= reps; rep++)); do
	for l in "${lists[@]:-${plan[@]}}"; do
		make_cmd "$l" "${scale:-$defscale}"
		lock
		python3 "$here/hostrun.py" --out "$out" --vmm "$name" --smp "$smp" --rep "$rep" --scale "${scale:-$defscale}" --list "$l" \
			--timeout "$limit" --log "$log" --nice "${BENCH_NICE:-0}" --mem "$mem" ${console:+--console "$console"} -- "${cmd[@]}" 9>&- || rc=1
	done
done
exit $rc
