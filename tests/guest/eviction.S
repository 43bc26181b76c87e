/*
 * eviction.S - more code than the smallest code cache holds
 *
 * PIECES functions jump to each other all over a memory of code, and call one that they have in
 * common. Chains of them begin anywhere and are as long as ECX says; each is run twice or more.
 * What they work out is compared with the same by a loop. Between chains code is written.
 * Meanwhile two more processors run chains of pieces of their own, which nobody writes, in
 * 32-bit mode. counts.py looks at --stats.
 */
#include "runtime.inc"

#define PIECES 8192 /* a power of 2 */
#define SHIFT  6    /* bytes of each, as a power of 2 */
#define MEMORY 0x400000
#define MEMORY_OF_OTHERS 0x800000
#define CHAINS 50
#define OTHERS 2

#define OF_FIRST(label) (MEMORY + label - piece)

    /* EDX = the piece behind EDX in a chain: all come before one comes again. */
    .macro NEXT
    lea 3(%rdx,%rdx,4), %edx
    and $PIECES - 1, %edx
    .endm

main:
    mov $MEMORY, %ebp
    mov $common, %eax
    call write_pieces
    mov $common, %esi
    mov $MEMORY_OF_OTHERS - (common_end - common), %edi
    mov %edi, %eax
    mov $common_end - common, %ecx
    rep movsb
    mov $MEMORY_OF_OTHERS, %ebp
    call write_pieces
    START_OTHERS other
1:
    pause
    cmpl $OTHERS, started
    jne 1b
    call enter_long
    BITS64
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
3:
    pause
    cmpl $CHAINS, chains_of_others
    jb 3b
    movl $1, is_over
4:
    pause
    cmpl $OTHERS, ended
    jne 4b
    mov wrong_of_others, %eax
    CHECK "results of the other processors", %rax, $0
    jmp finish64

    .code32
/* All pieces at EBP; they call what is at EAX. */
write_pieces:
    mov %eax, callee
    xor %ebx, %ebx
1:
    mov %ebx, %edx
    shl $SHIFT, %edx
    lea (%ebp,%edx), %edi
    mov $piece, %esi
    mov $piece_end - piece, %ecx
    rep movsb
    add %ebp, %edx
    mov %ebx, piece_number - piece(%edx)
    mov callee, %eax
    call displacement
    mov %eax, piece_call - piece(%edx)
    lea 3(%ebx,%ebx,4), %eax
    and $PIECES - 1, %eax
    shl $SHIFT, %eax
    lea piece_call - piece_jump(%ebp,%eax), %eax
    call displacement
    mov %eax, piece_jump - piece(%edx)
    inc %ebx
    cmp $PIECES, %ebx
    jb 1b
    ret
/* EAX less the end of the call of the piece at EDX. */
displacement:
    sub $piece_call + 4 - piece, %eax
    sub %edx, %eax
    ret

/* The other processors: chains until the first has run all of its own. */
other:
    mov $1, %ebp
    lock xadd %ebp, started
    imul $1024, %ebp, %esp
    lea other_stacks + 1024(%esp), %esp
1:
    imul $0x9e3779b1, %ebp, %ebx
    movzbl %bl, %esi
    inc %esi
    shr $8, %ebx
    and $PIECES - 1, %ebx
    mov %esi, %ecx
    mov %ebx, %eax
    shl $SHIFT, %eax
    add $MEMORY_OF_OTHERS, %eax
    mov %eax, %edi
    xor %eax, %eax
    call *%edi
    xor %edi, %edi
2:
    rol $3, %edi
    add %ebx, %edi
    lea 3(%ebx,%ebx,4), %ebx
    and $PIECES - 1, %ebx
    dec %esi
    jnz 2b
    cmp %edi, %eax
    je 3f
    lock incl wrong_of_others
3:
    lock incl chains_of_others
    add $OTHERS, %ebp
    cmpl $0, is_over
    je 1b
    lock incl ended
4:
    hlt
    jmp 4b

    BITS64
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
common_end:

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

    .bss
    .balign 4
callee: .long 0
started: .long 0
ended: .long 0
is_over: .long 0
wrong_of_others: .long 0
chains_of_others: .long 0
other_stacks: .space OTHERS * 1024
