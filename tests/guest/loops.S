/*
 * loops.S - LOOP, LOOPE, LOOPNE, JRCXZ and JECXZ: counts, flags before and behind them, far targets
 *
 * Each runs twice, so that what was linked meanwhile is used.
 */
#include "runtime.inc"

    .macro LOOPS mode:req
    .rept 2
    /* Flags live across: CF is set once, and kept by every turn. */
    mov $1000, %ecx
    xor %eax, %eax
    xor %edx, %edx
    stc
1:  lea 1(%eax), %eax
    loop 1b
    adc $0, %edx
    CHECK_ECX "\mode: LOOP, the count behind", 0
    CHECK_EAX "\mode: LOOP, turns", 1000
    CHECK_EDX "\mode: LOOP keeps CF", 1

    mov $3, %ecx
    xor %eax, %eax
1:  inc %eax
    cmp $2, %eax
    loopne 1b /* left by ZF */
    CHECK_ECX "\mode: LOOPNE, ZF ends it", 1
    mov $2, %ecx
    xor %eax, %eax
1:  inc %eax
    cmp $5, %eax
    loopne 1b /* left by the count */
    CHECK_EAX "\mode: LOOPNE, the count ends it", 2

    mov $10, %ecx
    mov $words, %esi
1:  lodsl
    cmp $7, %eax
    loope 1b
    CHECK_EAX "\mode: LOOPE, the first other word", 8
    CHECK_ECX "\mode: LOOPE, the count", 6

    /* Flags that a look-up saved are what LOOPE sees. */
    mov $5, %ecx
    xor %eax, %eax
1:  cmp %eax, %eax
    mov words, %edx
    mov %edx, words
    loope 1b
    CHECK_ECX "\mode: LOOPE behind a store", 0

    xor %ecx, %ecx
    xor %eax, %eax
    stc
    jecxz 1f
    inc %eax
1:  adc $0, %eax
    CHECK_EAX "\mode: JECXZ taken keeps CF", 1
    mov $1, %ecx
    xor %eax, %eax
    jecxz 1f
    inc %eax
1:  CHECK_EAX "\mode: JECXZ not taken", 1
    .endr
    .endm

    .macro CHECK_ECX name:req, want:req
    mov %ecx, found
    CHECK "\name", found, $\want
    .endm
    .macro CHECK_EDX name:req, want:req
    mov %edx, found
    CHECK "\name", found, $\want
    .endm
    .macro CHECK_EAX name:req, want:req
    mov %eax, found
    CHECK "\name", found, $\want
    .endm

main:
    LOOPS "32-bit"
    /* CX, which only code with 16-bit addresses counts */
    mov $0x10002, %ecx
1:  .byte 0x67
    loop 1b
    CHECK_ECX "32-bit: LOOP of CX", 0x10000
    call enter_long
    BITS64
    LOOPS "64-bit"
    mov $0x100000000, %rcx
    xor %eax, %eax
    jecxz 1f
    inc %eax
1:  CHECK_EAX "JECXZ looks at 32 bits", 0
    xor %eax, %eax
    jrcxz 1f
    inc %eax
1:  CHECK_EAX "JRCXZ looks at 64 bits", 1
    mov $0x100000002, %rcx
    xor %eax, %eax
1:  inc %eax
    .byte 0x67
    loop 1b
    CHECK_EAX "LOOP of ECX", 2
    CHECK "LOOP of ECX clears the upper half", %rcx, $0

    /* String instructions at the end of a page, downwards, and of a width */
    mov $pages + 0xffe, %esi
    mov $pages + 0x1ffd, %edi
    movl $0x44332211, (%rsi)
    cmp %eax, %eax
    movsl
    setz %al
    movzx %al, %eax
    CHECK_EAX "MOVS keeps ZF", 1
    mov -4(%rdi), %eax
    CHECK_EAX "MOVS over two pages", 0x44332211
    std
    lea -4(%rsi), %rsi
    mov $-1, %rax
    lodsw
    cld
    CHECK "LODS downwards: two bytes", %rax, $-0xddef
    mov %esi, %eax
    sub $pages, %eax
    CHECK_EAX "LODS downwards: the index", 0xffc
    mov $pages + 0xffe, %esi
    mov $pages + 0xfff, %edi
    cmpsb
    sbb %eax, %eax
    CHECK_EAX "CMPS: the first is below", -1
    mov $0x22, %eax
    mov $pages + 0xfff, %edi
    scasb
    setz %al
    movzx %al, %eax
    CHECK_EAX "SCAS: equal", 1
    mov %edi, %eax
    sub $pages, %eax
    CHECK_EAX "SCAS: the index", 0x1000
    jmp finish64
    BITS32

    .data
    .balign 4096 /* away from code */
words: .long 7, 7, 7, 8, 7, 7, 7, 7, 7, 7
found: .long 0
    .balign 4096
pages: .zero 0x3000
