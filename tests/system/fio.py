#!/usr/bin/env python3
"""fio.py TRAPEZE CASE - fio writes a disk of each controller and verifies what it reads back

The guest is the generic kernel with the controller's driver and Debian's fio (tools/guest.sh generic and fio). Past the
kernel's cache and 16 requests deep it writes blocks with checksums, at random and in order, of one size and of many, and
reads them back; then the host compares the image with what the guest reads. A second disk is written through, and the first
after it: Linux says so of both. CASES is a controller each; with "-interpreter" less is written. Skipped (status 77) without the guest.
"""
import hashlib
import os
import re
import subprocess
import sys
import tempfile

import boot
import net

PCI = (
    "drivers/virtio/virtio_ring drivers/virtio/virtio drivers/virtio/virtio_pci_modern_dev"
    " drivers/virtio/virtio_pci_legacy_dev drivers/virtio/virtio_pci"
)
SCSI = "lib/crc64 lib/crc64-rocksoft crypto/crct10dif_common lib/crc-t10dif block/t10-pi drivers/scsi/scsi_common drivers/scsi/scsi_mod"
ATA = f"{SCSI} drivers/scsi/sd_mod drivers/ata/libata"
# The modules, and what else the command line has.
CASES = {
    "virtio": (f"{PCI} drivers/block/virtio_blk",),
    "virtio-mmio": (
        "drivers/virtio/virtio_ring drivers/virtio/virtio drivers/virtio/virtio_mmio drivers/block/virtio_blk",
    ),
    "nvme": (f"{SCSI} drivers/nvme/host/nvme-core drivers/nvme/host/nvme",),
    "scsi": (f"{SCSI} {PCI} drivers/scsi/sd_mod drivers/scsi/virtio_scsi",),
    "ahci": (f"{ATA} drivers/ata/libahci drivers/ata/ahci",),
    "ide": (f"{ATA} drivers/ata/ata_piix",),
    "ide-pio": (f"{ATA} drivers/ata/ata_piix", " libata.dma=0"),
}
MIB = 64
THROUGH = 2048  # sectors
JOBS = """[global]
ioengine=libaio
direct=1
iodepth=16
verify=crc32c
verify_fatal=1
gtod_reduce=1
[random]
rw=randwrite
bs=4k
size={quarter}m
[sequence]
stonewall
rw=write
bs=128k
offset={quarter}m
size={quarter}m
[sizes]
stonewall
rw=randrw
bssplit=512/20:4k/30:12k/20:64k/20:256k/10
offset={half}m
offset_increment={quarter}m
size={quarter}m
numjobs=2
verify_backlog=64
"""
INIT = boot.GUEST_BEGIN + """for module in MODULES; do
    insmod /modules/$module.ko $(sed -n "s/.* $module[.]\\([^ ]*\\).*/\\1/p" /proc/cmdline) || echo "fio: no $module"
done
disk_of() { grep -lx "$1" /sys/block/*/size | sed 's,/size,,;s,.*/,,'; }
for n in $(seq 100); do test "$(disk_of SECTORS)" -a "$(disk_of THROUGH)" && break; sleep 0.1; done
disk=$(disk_of SECTORS)
caches() {
    for n in $disk $(disk_of THROUGH); do sed 's/^/fio: cache /' /sys/block/$n/queue/write_cache; done
}
caches
cat >/jobs <<'END'
JOBS
END
sed 's/^/fio: by /' /sys/class/ata_device/dev1.0/xfer_mode 2>/dev/null
fio --eta=never --filename=/dev/$disk /jobs && echo "fio: verified"
sync
echo "fio: sum $(dd if=/dev/$disk bs=1M iflag=direct 2>/dev/null | sha256sum | cut -d ' ' -f 1)"
for n in /sys/block/$disk/cache_type /sys/block/$disk/device/scsi_disk/*/cache_type; do
    test -e $n && echo "write through" >$n && caches
done
poweroff -f
"""


def main():
    trapeze, name = sys.argv[1:]
    slow = name.endswith("-interpreter")
    case = name.removesuffix("-interpreter")
    modules, *append = CASES[case]
    tools = os.path.join(boot.CACHE, "fio", "fio.cpio")
    if not os.path.exists(tools):
        print(f"fio: {tools} is not there; run tools/guest.sh fio")
        return 77
    mib = MIB // 8 if slow else MIB
    init = INIT.replace("JOBS", JOBS.format(quarter=mib // 4, half=mib // 2))
    init = init.replace("SECTORS", str(mib << 11)).replace("THROUGH", str(THROUGH))
    with tempfile.TemporaryDirectory() as folder:
        net.make_initramfs(f"{folder}/modules.cpio", "generic", modules, init)
        disk = os.path.join(folder, "disk.img")
        through = os.path.join(folder, "through.img")
        for path, size in (disk, mib << 20), (through, THROUGH * 512):
            with open(path, "wb") as image:
                image.truncate(size)
        command = boot.command_for(trapeze, boot.case("generic", "", [], append="quiet rdinit=/net-init" + "".join(append)))
        command[command.index("--initrd") + 1] += f",{tools},{folder}/modules.cpio"
        command += ["-m", "1G", "--net", "none"]
        for path in disk, f"{through},cache=writethrough":
            command += ["--disk", f"{path},if={case.removesuffix('-pio')}"]
        command += ["--engine", "interpreter"] if slow else ["--cpus", "2"]
        text = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600, check=False
        ).stdout.decode("utf-8", "replace")
        print(text)
        with open(disk, "rb") as image:
            digest = hashlib.file_digest(image, "sha256").hexdigest()
    wrong = boot.BAD.search(text) or re.search("I/O error|fio: no |exception Emask|frozen|timed? ?out|resetting", text)
    if case == "ide-pio" and "fio: by XFER_PIO" not in text:
        wrong = ["the disk's driver does without PIO"]
    caches = re.findall("fio: cache write (through|back)", text)
    if caches != ["back", "through"] + ([] if case == "nvme" else ["through"] * 2):
        wrong = [f"the disks' caches are {caches}"]
    if wrong or "fio: verified" not in text or f"fio: sum {digest}" not in text:
        print(f"fio: {wrong[0] if wrong else f'not verified, or another disk than {digest}'}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
