/*
 * joins.S - branches to an instruction a little further on: what the ways that meet there have in common
 *
 * An engine that translates runs of instructions knows what addresses are made of, that an access is
 * in order, which flags are of use. Behind a branch it must not know what holds on one way only. BOTH
 * runs its text with ESI = 0 and RBX = A, so that "jnz 1f" goes straight on, then with ESI = 1 and
 * RBX = B. No vector register is in use where the text begins, and its result is EAX.
 */
#include "runtime.inc"
#define A 0x200000 /* 32-bit words 0xa00, 0xa01, ... */
#define B 0x300000 /* 0xb00, 0xb01, ... */
#define C 0x400000 /* in RDI: 0xc00, 0xc01, ... */
#define D 0x500000 /* in R8: 0xd00, 0xd01, ... */

    .macro BOTH name:req, straight:req, other:req, text:req
    mov $7700f, %ebp
    call both
    CHECK "\name: straight on", %r14, $\straight
    CHECK "\name: the other way", %r15, $\other
    jmp 7701f
    .balign 64
7700:
    \text
    ret
7701:
    .endm

main:
    call enter_long
    BITS64
    .irp page, A, B, C, D
    mov $\page, %edi
    mov $0xa00 + (\page - A) / 0x1000, %eax
    mov $0x100, %ecx
1:
    stosl
    inc %eax
    dec %ecx
    jnz 1b
    .endr
    mov $C, %edi
    mov $D, %r8d

    /* ---- registers that addresses are made of ---- */
    BOTH "a base that is moved", 0xa10, 0xb00, \
        "mov (%rbx), %edx; test %esi, %esi; jnz 1f; add $64, %rbx; 1: mov (%rbx), %eax"
    BOTH "a base that is replaced", 0xc01, 0xb01, \
        "mov (%rbx), %edx; mov (%rdi), %edx; test %esi, %esi; jnz 1f; mov %rdi, %rbx; 1: mov 4(%rbx), %eax"
    BOTH "an index that is moved", 0xa05, 0xb02, \
        "mov $2, %ecx; mov (%rbx, %rcx, 4), %edx; test %esi, %esi; jnz 1f; add $3, %rcx; 1: mov (%rbx, %rcx, 4), %eax"
    BOTH "a stack that is moved", 5, 6, \
        "push $5; push $6; test %esi, %esi; jnz 1f; add $8, %rsp; 1: mov (%rsp), %eax; lea 8(%rsp, %rsi, 8), %rsp"

    /* ---- look-ups ---- */
    BOTH "accesses that begin on one way", 0xa02, 0xb02, \
        "test %esi, %esi; jnz 1f; mov (%rbx), %eax; mov 4(%rbx), %ecx; 1: mov 8(%rbx), %eax; mov 12(%rbx), %edx; xor %edx, %edx"
    BOTH "flags that are dead on one way only", 0x10a03, 0x10b03, \
        "test %esi, %esi; jnz 1f; cmp %esi, %ebx; 1: mov 12(%rbx), %eax; mov 4(%rbx), %edx; \
        setnz %dl; movzbl %dl, %edx; shl $16, %edx; or %edx, %eax"
    BOTH "pointers in other registers", 0x230f, 0x240f, \
        "mov (%rbx), %eax; mov 4(%rbx), %eax; mov (%rdi), %ecx; mov 4(%rdi), %ecx; mov (%r8), %edx; mov 4(%r8), %edx; \
        mov 8(%rbx), %eax; test %esi, %esi; jnz 1f; mov 8(%rdi), %ecx; add 12(%rdi), %ecx; mov 8(%r8), %edx; \
        add 12(%r8), %edx; 1: mov 16(%r8), %edx; mov 20(%rdi), %ecx; mov 24(%rbx), %eax; add %ecx, %eax; add %edx, %eax"

    /* ---- flags ---- */
    BOTH "flags that an access puts aside", 0, 1, \
        "mov $6, %eax; sub %esi, %eax; cmp $5, %eax; jz 1f; movslq %ebx, %rdx; mov (%rdx), %edx; 1: setc %cl; setz %al; \
        movzbl %al, %eax; movzbl %cl, %ecx; shl $8, %ecx; or %ecx, %eax"
    BOTH "flags that only the other way reads", 8, 7, \
        "mov %esi, %ecx; neg %ecx; clc; mov (%rbx), %edx; inc %ecx; jz 1f; stc; 1: mov $0, %eax; adc $7, %eax"

    /* ---- vector registers ---- */
    BOTH "vector registers are first used on one way", 0x705, 0x305, \
        "test %esi, %esi; jnz 1f; paddd %xmm1, %xmm0; 1: paddd %xmm2, %xmm1; xor %eax, %eax; call look; \
        movd %xmm0, %ecx; movd %xmm1, %eax; shl $8, %ecx; or %ecx, %eax"
    BOTH "vector registers are first used where ways meet", 0x105, 0x105, \
        "test %esi, %esi; jnz 1f; cmp %esi, %ebx; 1: paddd %xmm2, %xmm1; seta %al; call look; \
        movzbl %al, %ecx; movd %xmm1, %eax; shl $8, %ecx; or %ecx, %eax"

    /* ---- loops, whose turns an engine may lay one behind the other ---- */
    BOTH "a loop with a shortcut", 0x18000, 0xd800, \
        "mov $24, %ecx; xor %eax, %eax; jmp 3f; .balign 64; 3: mov (%rbx), %edx; test %esi, %ecx; jnz 1f; \
        add $0x1000, %eax; 1: add %edx, %eax; sub $0xa00, %eax; dec %ecx; jnz 3b"
    BOTH "a loop with two", 0x16961e, 0x16a51e, \
        "mov $30, %ecx; xor %eax, %eax; jmp 3f; .balign 64; 3: test $1, %ecx; jnz 1f; add (%rbx), %eax; \
        test $2, %ecx; jnz 2f; 1: add $0x10000, %eax; 2: inc %eax; dec %ecx; jnz 3b"
    jmp finish64

    /* R14, R15 = results of the text at RBP. */
both:
    mov $A, %ebx
    xor %esi, %esi
    call one_way
    mov %eax, %r14d
    mov $B, %ebx
    mov $1, %esi
    call one_way
    mov %eax, %r15d
    ret
one_way:
    movd three, %xmm0
    movd four, %xmm1
    movd one, %xmm2
    call look
    jmp *%rbp
    /* All vector registers are looked at. */
look:
    push %rax
    push %rbx
    push %rcx
    push %rdx
    xor %eax, %eax
    cpuid
    pop %rdx
    pop %rcx
    pop %rbx
    pop %rax
    ret
    .balign 64
one: .long 1
three: .long 3
four: .long 4
    BITS32
