/*
 * floppy.S - a boot sector that looks at its whole floppy disk through the BIOS
 *
 * Every sector behind this one begins with its number. All tracks are read, side by side; the last
 * sector is written, with its number inverted. The end is the debug-exit port with 3, so the
 * status is 7, or with what went wrong: BIOS errors.
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
    mov $text, %si
    mov $0x3f8, %dx
1:  lodsb
    test %al, %al
    jz 2f
    out %al, %dx
    jmp 1b
2:  movw $1, number
    mov $2, %cl /* this sector is known */
    xor %bp, %bp /* track * heads + side */

next_side:
    mov $SECTORS + 1, %al
    sub %cl, %al
    mov %al, count
    mov $0x02, %ah
    call bios
    mov $0x8000, %si
1:  mov number, %ax
    cmp %ax, (%si)
    jne wrong
    incw number
    add $512, %si
    decb count
    jnz 1b
    inc %bp
    mov $1, %cl
    cmp $TRACKS * HEADS, %bp
    jb next_side

    dec %bp
    notw 0x8000 + SECTORS * 512 - 512
    movw $0x8000 + SECTORS * 512 - 512, buffer
    mov $SECTORS, %cl
    mov $0x0301, %ax
    call bios
    mov $3, %al
    jmp leave

/* AX: function and sectors; CL: first sector, BP: track and side. */
bios:
    mov %ax, %di
    mov %bp, %ax
    mov $HEADS, %bl
    div %bl
    mov %al, %ch
    mov %ah, %dh
    mov drive, %dl
    mov buffer, %bx
    mov %di, %ax
    int $0x13
    jc failed
    ret
failed:
    mov %ah, %al
    jmp leave
wrong:
    mov $0x7f, %al
leave:
    out %al, $0xf4
1:  hlt
    jmp 1b

buffer:
    .word 0x8000
number:
    .word 0
drive:
    .byte 0
count:
    .byte 0
text:
    .asciz "floppy started\n"

    .org 510
    .word 0xaa55
