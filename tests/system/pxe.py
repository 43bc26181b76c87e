#!/usr/bin/env python3
"""pxe.py TRAPEZE CASE - boot from the network: SeaBIOS, iPXE on the card, TFTP of the user network

A script of iPXE's says which address it got; the case "kernel" goes on to start a Linux kernel with its
initramfs. Skipped (status 77) without SeaBIOS, iPXE or the guest.
"""
import os
import shutil
import sys
import tempfile
import time

import boot

ROM = "/usr/lib/ipxe/qemu/efi-{}.rom"
CASES = {"e1000": ("e1000", False), "kernel": ("e1000", True), "virtio": ("virtio", False)}
SCRIPT = """#!ipxe
echo pxe: ${net0/chip} has ${net0/ip} from ${next-server}
"""
KERNEL = """kernel vmlinuz console=ttyS0 trapeze.script=demo
initrd initramfs.cpio
boot
"""


def main():
    trapeze, name = sys.argv[1:]
    model, starts_kernel = CASES[name]
    deadline = time.monotonic() + 280
    needs = ["/usr/share/seabios/bios-256k.bin", ROM.format(model)]
    guest = [os.path.join(boot.CACHE, "cloud", file) for file in ("vmlinuz", "initramfs.cpio")]
    for file in needs + (guest if starts_kernel else []):
        if not os.path.exists(file):
            print(f"pxe: {file} is not there")
            sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/boot.ipxe", "w", encoding="ascii") as script:
            script.write(SCRIPT + (KERNEL if starts_kernel else ""))
        if starts_kernel:
            for file in guest:
                shutil.copy(file, folder)
        console = boot.Console(
            [trapeze, "run", "--firmware", "bios", "--net", f"user,model={model},tftp={folder},bootfile=boot.ipxe"]
        )
        chip = {"e1000": "82540em", "virtio": "virtio-net"}[model]
        if not console.wait_for(f"pxe: {chip} has 10.0.2.15 from 10.0.2.2", deadline):
            boot.fail(console, "it did not boot from the network")
        if not starts_kernel:
            console.stop()
        elif not console.wait_for(boot.INIT, deadline) or console.finish(deadline) != 0:
            boot.fail(console, "the kernel did not start and end")


if __name__ == "__main__":
    main()
