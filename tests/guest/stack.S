/*
 * stack.S - RSP within runs of PUSH, POP and what moves it by a constant
 *
 * An engine that translates need not move RSP at each of them. Whatever sees RSP on the way (an
 * operand, an address, a branch, an access that takes long, a fault) has to see the right one.
 * SLOW is an access that is never quick, because it lies in two pages.
 */
#include "runtime.inc"
#define MEMORY 0x200000
#define SPLIT 0x200ffc       /* 8 bytes from here lie in two pages */
#define STACK 0x310000
#define NOWHERE 0x8000000000 /* not mapped */

    /*
     * Run text with R15 = 0 and 1. Both times EAX is to be want, and EBX, how far RSP was moved
     * downwards from what it was, down.
     */
    .macro MOVES name:req, down:req, want:req, text:req
    mov $7700f, %ebp
    call run_twice
    CHECK "\name", %rax, $\want
    CHECK "\name: RSP", %rbx, $\down
    jmp 7701f
    .balign 64
7700:
    \text
    jmp *%r14
7701:
    .endm

main:
    mov %esp, %ebp
    push $5
    push $6
    mov 4(%esp), %ecx
    lea -8(%esp), %esp
    add $12, %esp
    pop %edx
    CHECK "32-bit code: an operand", %ecx, $5
    CHECK "32-bit code: a pop", %edx, $5
    sub %esp, %ebp
    CHECK "32-bit code: RSP", %ebp, $0

    call enter_long
    BITS64
    mov $SPLIT, %edi
    mov $MEMORY, %esi

    MOVES "operands", 16, 0x715, \
        "push $7; push $8; mov 8(%rsp), %eax; shl $8, %eax; push $0x10; add (%rsp), %eax; pop %rcx; \
        push $5; pop %rcx; add %ecx, %eax"
    MOVES "an index", 24, 9, "mov $2, %ecx; push $9; push $8; push $7; mov (%rsp, %rcx, 8), %eax"
    MOVES "a store", 8, 0x55, "push $1; push $2; movl $0x55, 8(%rsp); pop %rax; mov (%rsp), %eax"
    MOVES "RSP is copied", 16, 16, \
        "mov %rsp, %rdx; push $1; push $2; mov %rdx, %rax; sub %rsp, %rax; lea (%rsp), %rcx; \
        cmp %rcx, %rsp; je 1f; xor %eax, %eax; 1:"
    MOVES "RSP is pushed", 24, 16, \
        "mov %rsp, %rax; push $1; push $2; push %rsp; sub (%rsp), %rax"
    MOVES "RSP is popped", 8, 0x66, \
        "lea -8(%rsp), %rdx; push $0x66; push $1; push %rdx; pop %rsp; mov (%rsp), %eax"
    MOVES "a push of memory", 24, 3, "push $3; push $4; push 8(%rsp); mov (%rsp), %eax"
    MOVES "LEAVE", 0, 0x77, \
        "push $0x77; mov %rsp, %rcx; push %rbp; mov %rsp, %rbp; push $1; push $2; leave; \
        cmp %rcx, %rsp; pop %rax; je 1f; xor %eax, %eax; 1:"
    MOVES "flags are pushed and popped", 8, 1, \
        "push $2; stc; pushf; clc; popf; setc %al; movzbl %al, %eax"

    MOVES "moves with flags that are dead", 72, 2, \
        "sub $64, %rsp; push $1; add $8, %rsp; push $2; mov (%rsp), %eax; test %eax, %eax"
    MOVES "what is pushed behind a move", 80, 2, \
        "sub $64, %rsp; push $2; push $3; mov (%rsp), %eax; test %eax, %eax; jmp 1f; 1: mov 8(%rsp), %eax"
    MOVES "with flags that are of use", 32, 1, \
        "push $1; mov %rsp, %rdx; neg %rdx; lea -24(%rsp), %rsp; mov %rsp, %rcx; xor %eax, %eax; \
        push $1; add $8, %rsp; setnz %al; cmp %rsp, %rcx; je 1f; xor %eax, %eax; 1:"
    MOVES "carry behind a move", 0, 0, \
        "push $1; mov $0, %eax; push $2; stc; add $16, %rsp; adc $0, %eax"
    MOVES "far moves", 0x9008, 4, \
        "sub $0x7000, %rsp; push $4; sub $0x2000, %rsp; mov 0x2000(%rsp), %eax; test %eax, %eax"
    MOVES "and back", 0, 4, \
        "push $4; sub $0x7000, %rsp; sub $0x3000, %rsp; mov 0xa000(%rsp), %eax; \
        lea 0x7000(%rsp), %rsp; add $0x3008, %rsp; test %eax, %eax"

    MOVES "a slow access", 16, 0x132, \
        "push $1; push $2; movq $3, (%rdi); mov (%rdi), %rax; push $0x30; pop %rcx; add %ecx, %eax; \
        add $0xff, %eax"
    MOVES "a slow access among pops", 8, 0x321, \
        "push $1; push $0x20; push $0x300; mov $0, %ebx; pop %rax; addq $0, (%rdi); pop %rcx; \
        addq $0, (%rdi); add %ecx, %eax; push (%rsp); addq $0, (%rdi); add (%rsp), %eax; pop %rcx"
    MOVES "a slow access with vector registers", 8, 0x44, \
        "movq $0x44, (%rdi); pxor %xmm1, %xmm1; push $1; push $2; movups (%rdi), %xmm1; \
        pop %rcx; movq %xmm1, %rax"
    MOVES "a slow push of memory", 24, 0x45, \
        "movq $0x45, (%rdi); push $1; push $2; push (%rdi); mov (%rsp), %rax"
    MOVES "vector registers come into use", 16, 0x46, \
        "push $0x46; push $2; movq 8(%rsp), %xmm2; movq %xmm2, %rax"
    MOVES "accesses that do not share a page", 16, 0x111, \
        "movl $0x100, -8(%rdi); movl $0x11, 4(%rdi); push $1; push $2; mov -8(%rdi), %eax; \
        add 4(%rdi), %eax"
    MOVES "an instruction that is the interpreter's", 8, 6, \
        "push $6; push $7; sldt %ax; pop %rcx; mov (%rsp), %eax"
    MOVES "and one with an address", 16, 0xfff8, \
        "push $6; push $7; lea 8(%rsp), %r10w; pop %rcx; push %rcx; movzwl %r10w, %eax"
    MOVES "a division", 8, 5, "push $6; push $7; xor %edx, %edx; mov $35, %eax; divl (%rsp); pop %rcx"
    MOVES "a string instruction", 16, 6, \
        "push $6; push $7; push %rdi; push %rsi; lea 24(%rsp), %rsi; mov $0x200000, %edi; movsl; \
        pop %rsi; pop %rdi; mov 0x200000, %eax"

    MOVES "a branch out of the run", 24, 1, "push $1; push $2; test %esi, %esi; jnz out_of_the_run"
    MOVES "a branch that is not taken", 16, 2, "push $1; push $2; test %esi, %esi; jz out_of_the_run; mov (%rsp), %eax"
    MOVES "a way around a push", 16, 3, \
        "push $3; test %esi, %esi; jz 1f; push $4; 1: push $5; pop %rcx; mov 8(%rsp), %eax"
    MOVES "a way on which more is pushed", 8, 8, \
        "push $3; mov %rsp, %rbx; test %r15d, %r15d; jz 1f; push $4; 1: push $5; mov %rbx, %rax; \
        sub %rsp, %rax; mov %rbx, %rsp; neg %r15; lea (%rax, %r15, 8), %rax; neg %r15"
    MOVES "a jump by register", 16, 1, "push $1; push $2; mov $1f, %eax; jmp *%rax; ud2; 1: mov 8(%rsp), %eax"
    MOVES "a call by register", 16, 8, "push $1; push $2; mov $calls, %eax; call *%rax"
    MOVES "a call", 16, 8, "push $1; push $2; call calls"
    MOVES "a call by memory", 24, 8, "push $calls; push $1; call *8(%rsp); push $3"
    MOVES "RET by a push", 8, 1, "push $1; push $1f; ret; ud2; 1: mov (%rsp), %eax"
    MOVES "a jump by the stack", 16, 1, "push $1; push $1f; jmp *(%rsp); ud2; 1: mov 8(%rsp), %eax"
    MOVES "turns of a loop", 8, 60, \
        "push $1; mov $20, %ecx; xor %eax, %eax; 1: push $3; add (%rsi), %ebx; mov (%rsp), %edx; pop %r8; \
        add %edx, %eax; dec %ecx; jnz 1b"

    /* A fault shows RSP as it was before the instruction. */
    mov $NOWHERE, %r8
    mov %rsp, %rbp
    TRY "push $1; push $2; mov (%r8), %eax; push $3"
    CHECK_FAULT "a fault among pushes", 14, 0
    sub fault_sp, %rbp
    CHECK "and RSP", %rbp, $16
    mov %rsp, %rbp
    TRY "push $1; push $2; pop %rax; push (%r8)"
    sub fault_sp, %rbp
    CHECK "a fault of a push of memory, RSP", %rbp, $8
    mov %rsp, %rbp
    TRY "push $1; sub $48, %rsp; push $2; xor %eax, %eax; div %eax; pop %rax"
    CHECK_FAULT "a division by 0", 0, 0
    sub fault_sp, %rbp
    CHECK "a division by 0, RSP", %rbp, $64
    mov %rsp, %rbp
    TRY "push $1; push %r8; shlq $20, (%rsp); ret"
    CHECK_FAULT "RET to an address that is not canonical", 13, 0
    sub fault_sp, %rbp
    CHECK "RET to an address that is not canonical, RSP", %rbp, $16
    mov %rsp, %rbp
    TRY "push $1; mov %r8, %rax; shl $20, %rax; call *%rax"
    CHECK_FAULT "a call of such an address", 13, 0
    sub fault_sp, %rbp
    CHECK "a call of such an address, RSP", %rbp, $8
    jmp finish64

run_twice: /* RBP: the text; it has a stack of its own */
    pop %r13
    mov %rbp, %r12
    mov %rsp, save
    xor %r15d, %r15d
1:
    mov $STACK, %esp
    mov $2f, %r14d
    jmp *%r12
2:
    mov $STACK, %ebx
    sub %rsp, %rbx
    mov save, %rsp
    xchg %rax, first
    xchg %rbx, first + 8
    dec %r15d
    jz 3f
    mov $1, %r15d
    jmp 1b
3:
    cmp %rax, first /* the same both times? */
    jne 4f
    cmp %rbx, first + 8
    je 5f
4:
    mov $-1, %rax
5:
    jmp *%r13
out_of_the_run:
    push $3
    mov 16(%rsp), %eax
    jmp *%r14
calls:
    push $8
    pop %rax
    ret

    .bss
    .balign 8
save: .skip 8
first: .skip 16
    .text
    BITS32
