/*
 * resets.S - a boot sector that resets the machine in each of its ways, COUNT times, and leaves
 *
 * The count is in CMOS RAM, which a reset leaves as it is. Each start says so on COM1, as a letter
 * behind "start". The end is the debug-exit port with 3, so the status is 7.
 */
    .code16
    .text
    .globl _start
_start:
    cli
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %ss
    mov $0x7c00, %sp
    mov $0x60, %al
    out %al, $0x70
    in $0x71, %al
    inc %al
    out %al, $0x71
    mov %al, %bl
    mov $text, %si
    mov $0x3f8, %dx
1:  lodsb
    test %al, %al
    jz 2f
    out %al, %dx
    jmp 1b
2:  mov %bl, %al
    add $'@', %al
    out %al, %dx
    mov $'\n', %al
    out %al, %dx
    cmp $COUNT, %bl
    ja leave
    and $3, %bl
    jz triple_fault
    dec %bl
    jz keyboard
    dec %bl
    jz port92
    mov $0xcf9, %dx /* reset control, which is ACPI's reset register, too */
    mov $2, %al
    out %al, %dx
    mov $6, %al
    out %al, %dx
    jmp stand
keyboard:
    mov $0xfe, %al
    out %al, $0x64
    jmp stand
port92:
    in $0x92, %al
    and $0xfe, %al
    out %al, $0x92
    or $1, %al
    out %al, $0x92
    jmp stand
triple_fault:
    lidt no_table
    int3
stand:
    hlt
    jmp stand
leave:
    mov $3, %al
    out %al, $0xf4
    jmp stand

no_table:
    .word 0
    .long 0
text:
    .asciz "start "

    .org 510
    .word 0xaa55
