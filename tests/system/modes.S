/*
 * modes.S - a boot sector that draws in mode 13h and in mode 12h, the planar one of 640x480 pixels
 *
 * Pixel x, y has the colour (x * y / 16 + x) ^ y, as far as the mode has bits for it; colours are what
 * this sets in the DAC: red n, green n / 4, blue 63 - n, of 6 bits each. In the planar mode the left
 * half is drawn by write mode 2, a bit of all bytes at a time, the right one by write mode 0, a plane at
 * a time. COM1 says the mode's number, and a key leads on. The end is the
 * debug-exit port with 3, so the status is 7.
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
    sti
    cld
    mov $0xa000, %ax
    mov %ax, %es

    mov $0x13, %ax
    call set_mode
    xor %di, %di
    xor %bp, %bp /* y */
1:  xor %si, %si /* x */
2:  call colour
    stosb
    inc %si
    cmp $320, %si
    jb 2b
    inc %bp
    cmp $200, %bp
    jb 1b
    mov $'3', %bl
    call show

    mov $0x12, %ax
    call set_mode
    mov $0x3ce, %dx
    mov $0x0205, %ax /* write mode 2: of each byte one pixel */
    out %ax, %dx
    mov $0x8008, %ax /* the bit mask */
    xor %bx, %bx
left:
    mov $0x3ce, %dx
    out %ax, %dx
    push %ax
    xor %di, %di
    xor %bp, %bp
1:  mov %bx, %si
2:  call colour
    mov %es:(%di), %ah /* the latches */
    stosb
    add $8, %si
    cmp $320, %si
    jb 2b
    add $40, %di
    inc %bp
    cmp $480, %bp
    jb 1b
    pop %ax
    inc %bx
    shr $1, %ah
    jnz left

    mov $0x3ce, %dx
    mov $0x0005, %ax
    out %ax, %dx
    mov $0xff08, %ax
    out %ax, %dx
    mov $0x0102, %ax /* the map mask */
right:
    mov $0x3c4, %dx
    out %ax, %dx
    mov %ah, %cl
    push %ax
    mov $40, %di
    xor %bp, %bp
1:  mov $320, %si
2:  mov $1, %bh /* which comes out when 8 pixels are in */
3:  call colour
    test %cl, %al
    jz 4f
    stc
4:  rcl $1, %bh
    inc %si
    jnc 3b
    mov %bh, %al
    stosb
    cmp $640, %si
    jb 2b
    add $40, %di
    inc %bp
    cmp $480, %bp
    jb 1b
    pop %ax
    shl $1, %ah
    cmp $0x10, %ah
    jb right
    mov $'2', %bl
    call show
    mov $3, %al
    out %al, $0xf4
5:  hlt
    jmp 5b

/* The colour in AL of pixel SI, BP. Changes AX and DX. */
colour:
    mov %si, %ax
    mul %bp
    shr $4, %ax
    add %si, %ax
    xor %bp, %ax
    ret

/* Mode AL, and its colours. */
set_mode:
    int $0x10
    mov $0x3c8, %dx
    xor %ax, %ax
    out %al, %dx
    inc %dx
1:  mov %ah, %al
    and $63, %al
    out %al, %dx
    mov %al, %bl
    mov %ah, %al
    shr $2, %al
    out %al, %dx
    mov $63, %al
    sub %bl, %al
    out %al, %dx
    inc %ah
    jnz 1b
    ret

/* Say "mode 1" and what is in BL, and wait. */
show:
    mov $text, %si
    mov $0x3f8, %dx
1:  lodsb
    test %al, %al
    jz 2f
    out %al, %dx
    jmp 1b
2:  mov %bl, %al
    out %al, %dx
    mov $'\n', %al
    out %al, %dx
    xor %ax, %ax
    int $0x16
    ret

text:
    .asciz "mode 1"

    .org 510
    .word 0xaa55
