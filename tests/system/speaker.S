/*
 * speaker.S - a boot sector that beeps by the PC speaker: 880 Hz for half a second, and ends 1.5 s later
 *
 * The end is the debug-exit port with 3, so the status is 7.
 */
    .code16
    .text
    .globl _start
_start:
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %ss
    mov $0x7c00, %sp
    mov $0xb6, %al
    out %al, $0x43
    mov $1193182 / 880, %ax
    out %al, $0x42
    mov %ah, %al
    out %al, $0x42
    in $0x61, %al
    or $3, %al
    out %al, $0x61
    mov $500000 >> 16, %cx
    mov $500000 & 0xffff, %dx
    call wait
    in $0x61, %al
    and $0xfc, %al
    out %al, $0x61
    mov $1500000 >> 16, %cx
    mov $1500000 & 0xffff, %dx
    call wait
    mov $3, %al
    out %al, $0xf4
1:  hlt
    jmp 1b

/* CX:DX microseconds */
wait:
    mov $0x86, %ah
    int $0x15
    ret

    .org 510
    .word 0xaa55
