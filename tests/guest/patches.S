/*
 * patches.S - code whose immediates are written again and again, each time before it runs
 *
 * Each instruction is compared with the one that has the same number in a register.
 * counts.py looks at --stats: the translator must not make it anew each time.
 */
#include "runtime.inc"

#define TIMES 300

    /* The next number: RSI, of \bytes bytes, sign-extended, goes to the end of the site's instruction. */
    .macro PATCH bytes:req
    imul $0x76543217, %ecx, %esi
    .if \bytes == 1
    movsbq %sil, %rsi
    mov %sil, 7790f - 1
    .elseif \bytes == 4
    movslq %esi, %rsi
    mov %esi, 7790f - 4
    .else
    imul %rsi, %rsi
    mov %rsi, 7790f - 8
    .endif
    .endm

    /* \op of the number and \to, which is a part of \whole; \from is RSI or ESI. */
    .macro LIVE op:req, from:req, to:req, whole:req, bytes:req, number:req
    xor %r15d, %r15d
    mov $TIMES, %ecx
7780:
    PATCH \bytes
    movabs $0x8123456789abcdef, \whole
    stc
    .ifc \op, movabs
    mov \from, \to
    .else
    \op \from, \to
    .endif
    pushfq
    pop %r8
    mov \whole, %r9
    movabs $0x8123456789abcdef, \whole
    stc
    call 7789f
    pushfq
    pop %r14
    cmp \whole, %r9
    jne 7781f
    cmp %r8, %r14
    je 7782f
7781:
    inc %r15d
7782:
    dec %ecx
    jnz 7780b
    CHECK "\op \to, \bytes bytes", %r15, $0
    .pushsection .sites, "awx", @progbits
    .balign 64
7789:
    \op $\number, \to
7790:
    ret
    .popsection
    .endm

main:
    call enter_long
    BITS64
    .irp op, add, or, adc, sbb, and, sub, xor, cmp
    LIVE \op, %rsi, %rax, %rax, 4, 0x11111111
    LIVE \op, %rsi, %r11, %r11, 4, 0x11111111
    LIVE \op, %esi, %edx, %rdx, 4, 0x11111111
    LIVE \op, %esi, %r10d, %r10, 1, 0x11
    LIVE \op, %rsi, %rbx, %rbx, 1, 0x11
    .endr
    LIVE test, %rsi, %r13, %r13, 4, 0x11111111
    LIVE test, %esi, %eax, %rax, 4, 0x11111111
    LIVE mov, %esi, %ebp, %rbp, 4, 0x11111111
    LIVE mov, %esi, %r10d, %r10, 4, 0x11111111
    LIVE mov, %rsi, %r13, %r13, 4, 0x11111111
    LIVE mov, %rsi, %rdi, %rdi, 4, 0x11111111
    LIVE movabs, %rsi, %rax, %rax, 8, 0x1111111111111111
    LIVE movabs, %rsi, %r11, %r11, 8, 0x1111111111111111

    /* Two immediates, only one of which changes; later the other, then an opcode. */
    mov $TIMES, %ecx
    xor %r15d, %r15d
1:
    mov %ecx, two_add + 1
    call two
    lea 1(%rcx), %edx
    sub %edx, %eax
    or %eax, %r15d
    dec %ecx
    jnz 1b
    movl $9, two + 1
    call two
    CHECK "an immediate that had not changed", %rax, $10
    mov $TIMES, %ecx
1:
    xorb $0x28, two_add /* ADD becomes SUB */
    mov %ecx, two_add + 1
    call two
    mov %ecx, %edx
    neg %edx
    test $1, %cl
    cmovnz %ecx, %edx
    add $9, %edx
    sub %edx, %eax
    or %eax, %r15d
    dec %ecx
    jnz 1b
    CHECK "two immediates and an opcode", %r15, $0

    /* Written by the same function, before and behind; its end is a loop's end. */
    mov $TIMES, %ecx
    xor %r15d, %r15d
1:
    mov %ecx, %esi
    call own
    lea 2(,%rcx,4), %edx
    sub %edx, %eax
    or %eax, %r15d
    dec %ecx
    jnz 1b
    CHECK "a function writes to itself", %r15, $0
    /* An instruction that the function itself changes each time, and its caller changes back. */
    mov $TIMES, %ecx
    xor %r15d, %r15d
1:
    mov %ecx, back + 1
    movb $0x05, back_add
    call back
    lea -5(%rcx), %edx
    sub %edx, %eax
    or %eax, %r15d
    dec %ecx
    jnz 1b
    CHECK "a function changes itself and is changed back", %r15, $0

    /* Bytes that are no immediate, and others behind the code. */
    mov $TIMES, %ecx
    xor %r15d, %r15d
1:
    mov %ecx, long_end - 4
    mov %ecx, behind
    lea 1(%rcx), %edx
    test $31, %cl
    jnz 2f
    incb long_lea + 3
2:
    movzbl long_lea + 3, %edi
    add %edi, %edx
    xor %edi, %edi
    call long
    sub %edx, %eax
    or %eax, %r15d
    dec %ecx
    jnz 1b
    CHECK "other bytes change now and then", %r15, $0

    /* Memory by three registers, before and behind an immediate. */
    mov $TIMES, %ecx
    xor %r15d, %r15d
    mov $numbers, %ebx
    mov $numbers + 4096, %ebp
    mov $numbers + 8192, %edi
    movq $1, (%rbx)
    movq $2, (%rbp)
    movq $4, (%rdi)
    movq $8, 8(%rbx)
    movq $16, 8(%rbp)
    movq $32, 8(%rdi)
1:
    mov %ecx, memory_end - 4
    call memory
    lea 63 + 63(%rcx), %edx
    sub %edx, %eax
    or %eax, %r15d
    dec %ecx
    jnz 1b
    CHECK "memory before and behind an immediate", %r15, $0
    jmp finish64
    .section .sites, "awx", @progbits
    .balign 64
two:
    mov $1, %eax
two_add:
    add $0x11111111, %eax
    ret
    .balign 64
own:
    mov $0, %eax
    mov %esi, own_first - 4
    mov $0, %edx
own_first:
    add %edx, %eax
    mov $3, %edi
own_loop:
    mov %esi, own_second - 4
    add $0x11111111, %eax
own_second:
    dec %edi
    jnz own_loop
    mov %edi, own_third - 4
    addl $2, own_count
    add $0x11111111, %eax
own_third:
    add $2, %eax
    ret
own_count: .long 0
    .balign 64
back:
    mov $0, %eax
    movb $0x2d, back_add /* SUB */
back_add:
    .byte 0x05
    .long 5
    ret
    .balign 64
long:
    mov %rdi, %rax
long_lea:
    lea 1(%rax), %rax
    lea 1(%rax), %rax
    lea (%rax,%rdi), %rax
    add $0x11111111, %eax
long_end:
    test %eax, %eax
    jnz 1f
behind:
    .long 0
    nop
1:
    ret
    .balign 64
memory:
    xor %eax, %eax
    add (%rbx), %rax
    add (%rbp), %rax
    add (%rdi), %rax
    add 8(%rbx), %rax
    add 8(%rbp), %rax
    add 8(%rdi), %rax
    add $0x11111111, %eax
memory_end:
    add (%rbx), %rax
    add (%rbp), %rax
    add (%rdi), %rax
    add 8(%rbx), %rax
    add 8(%rbp), %rax
    add 8(%rdi), %rax
    ret
    BITS32
    .bss
    .balign 4096
numbers: .space 3 * 4096
