/*
 * eviction.S - more code than the smallest code cache holds
 *
 * PIECES functions jump to each other all over a memory of code, and call one that they have in
 * common. Chains of them begin anywhere and are as long as ECX says; each is run twice or more.
 * What they work out is compared with the same by a loop. Between chains code is written.
 * eviction.py looks at --stats.
 */
#include "runtime.inc"

#define PIECES 8192 /* a power of 2 */
#define SHIFT  6    /* bytes of each, as a power of 2 */
#define MEMORY 0x400000
#define CHAINS 150

#define OF_FIRST(label) (MEMORY + label - piece)

    /* EDX = the piece behind EDX in a chain: all come before one comes again. */
    .macro NEXT
    lea 3(%rdx,%rdx,4), %edx
    and $PIECES - 1, %edx
    .endm

main:
    call enter_long
    BITS64
    call write_pieces
    xor %r15d, %r15d /* how many results were wrong */
    xor %ebp, %ebp
1:
    imul $0x9e3779b1, %ebp, %ebx
    movzbl %bl, %esi /* pieces of the chain */
    inc %esi
    shr $8, %ebx
    and $PIECES - 1, %ebx /* the first one */
    mov $PIECES, %eax
    test $63, %ebp
    cmovz %eax, %esi
    mov $2, %edi /* times that it runs: or often enough for calls to be followed */
    mov $20, %eax
    test $7, %ebp
    cmovz %eax, %edi
2:
    call run_chain
    dec %edi
    jnz 2b
    /* The common function and the first piece are others from here on. */
    addl $0x01010101, common_number
    shl $SHIFT, %ebx
    incl OF_FIRST(piece_number)(%rbx)
    inc %ebp
    cmp $CHAINS, %ebp
    jb 1b
    CHECK "results of chains", %r15, $0
    jmp finish64

write_pieces:
    xor %ebx, %ebx
1:
    mov %ebx, %edi
    shl $SHIFT, %edi
    lea MEMORY(%rdi), %r8
    mov %r8, %rdi
    mov $piece, %esi
    mov $piece_end - piece, %ecx
    rep movsb
    mov %ebx, piece_number - piece(%r8)
    mov $common, %eax
    lea piece_call + 4 - piece(%r8), %rsi
    sub %esi, %eax
    mov %eax, -4(%rsi)
    mov %ebx, %edx
    NEXT
    shl $SHIFT, %edx
    lea MEMORY(%rdx), %eax
    lea piece_jump + 4 - piece(%r8), %rsi
    sub %esi, %eax
    mov %eax, -4(%rsi)
    inc %ebx
    cmp $PIECES, %ebx
    jb 1b
    ret

/* The chain of ESI pieces from EBX on; R15 counts if the result is wrong. */
run_chain:
    mov %esi, %ecx
    mov %ebx, %eax
    shl $SHIFT, %eax
    lea MEMORY(%rax), %r9
    xor %eax, %eax
    call *%r9
    mov %esi, %ecx
    mov %ebx, %edx
    xor %r9d, %r9d
1:
    mov %edx, %r8d
    shl $SHIFT, %r8d
    rol $3, %r9d
    add common_number, %r9d
    add OF_FIRST(piece_number)(%r8), %r9d
    NEXT
    dec %ecx
    jnz 1b
    cmp %r9d, %eax
    setne %al
    movzbl %al, %eax
    add %eax, %r15d
    ret

    .section .common_code, "awx", @progbits
    .balign 4096
common:
    rol $3, %eax
    .byte 0x05 /* add, to EAX */
common_number:
    .long 0
    ret

/* What all pieces begin as; the numbers are written. */
piece:
    .byte 0xe8 /* call common */
piece_call:
    .long 0
    .byte 0x05 /* add, to EAX */
piece_number:
    .long 0
    dec %ecx
    jz 1f
    .byte 0xe9 /* jmp */
piece_jump:
    .long 0
1:
    ret
piece_end:
