/*
 * translated.S - instructions that must not be left to the interpreter, each executed 5000 times;
 * translated.py looks at what --stats says of them.
 */
#include "runtime.inc"

#define TIMES 5000

    .macro REPEATED text:vararg
    mov $TIMES, %ecx
1:  \text
    dec %ecx
    jnz 1b
    .endm

main:
    call enter_long
    BITS64
    mov %cr4, %rax
    or $0x600, %rax /* CR4.OSFXSR, OSXMMEXCPT */
    mov %rax, %cr4
    lea scratch, %rbx
    REPEATED movsd (%rbx), %xmm0
    REPEATED movsd %xmm0, %xmm1
    REPEATED movsd %xmm1, 8(%rbx)
    CHECK "movsd of SSE2", 8(%rbx), scratch
    jmp finish64
    BITS32

    .data
    .align 16
scratch: .quad 0x123456789abcdef0, 0
