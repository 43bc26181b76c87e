/*
 * usb_boot.S - a boot sector that looks at its whole stick through the BIOS
 *
 * Every sector behind this one begins with its number. They are read by AT_ONCE, and the last is
 * written, with its number inverted. The end is the debug-exit port with 3, so the status is 7, or
 * with what went wrong: BIOS errors, 0x7f for another number.
 */
    .code16
    .text
    .globl _start
_start:
    cli
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x7c00, %sp
    sti
    mov %dl, drive

next:
    mov $0x42, %ah
    call bios
    mov $0x8000, %si
    mov $AT_ONCE, %cx
1:  mov sector, %ax
    cmp %ax, (%si)
    mov $0x7f, %al
    jne leave
    incw sector
    add $512, %si
    loop 1b
    cmpw $SECTORS, sector
    jb next

    decw sector
    notw 0x8000 + AT_ONCE * 512 - 512
    movw $0x8000 + AT_ONCE * 512 - 512, buffer
    movw $1, count
    mov $0x4300, %ax
    call bios
    mov $3, %al
leave:
    out %al, $0xf4
1:  hlt
    jmp 1b

/* AH: the function. */
bios:
    mov $packet, %si
    mov drive, %dl
    int $0x13
    mov %ah, %al
    jc leave
    ret

drive:
    .byte 0
packet:
    .word 16
count:
    .word AT_ONCE
buffer:
    .word 0x8000, 0
sector:
    .quad 1
    .org 510
    .word 0xaa55
