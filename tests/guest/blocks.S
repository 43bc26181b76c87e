/*
 * blocks.S - runs of instructions that are unusual for an engine that translates
 *
 * Code for rare cases takes room: a block with the most instructions, three rare cases each, is
 * longer than any other. Vector registers are in use in all of them.
 */
#include "runtime.inc"
#define DATA_PAGES 0x200000

    .macro TERNLOG register:req
    vpternlogd $0xff, %zmm\register, %zmm\register, %zmm\register
    .endm

main:
    call enter_long
    BITS64
    mov $DATA_PAGES, %ebx
    mov %rbx, %dr0
    mov $0x000b0402, %eax /* DR0: 8 bytes, read and write; G0 */
    mov %rax, %dr7
    TRY "mov (%rbx), %rax; watched_load: mov %rbx, %rcx; nop"
    CHECK "watchpoint: behind the first of two moves", fault_ip, $watched_load
    mov $DATA_PAGES, %ebx
    TRY "cmp %rcx, (%rbx); watched_compare: je 1f; 1: nop"
    CHECK "watchpoint: between a comparison and its branch", fault_ip, $watched_compare
    xor %eax, %eax
    mov %rax, %dr7
    mov $2, %r15d /* the second time what TRY itself accesses is in the TLB */
7:
    TRY "movabs 0xd20304007cdfa800, %al; movabs %eax, 0x5ad39fa891e85102"
    CHECK_FAULT "constant addresses more than 2^63 apart", 13, 0
    mov $fault, %ebx
    TRY "mov (%rbx), %eax; sub $0x7fffffff, %rbx; lea -0x7fffffff(%rbx), %rbx; mov -2(%rbx), %eax"
    CHECK_FAULT "a register plus 2^32", 14, 0
    dec %r15d
    jnz 7b
    mov $7, %eax
    xor %ecx, %ecx
    cpuid
    bt $16, %ebx
    jnc 9f /* no AVX-512 */
    mov %cr4, %rax
    or $0x40600, %eax /* OSXSAVE, OSFXSR, OSXMMEXCPT */
    mov %rax, %cr4
    xor %ecx, %ecx
    xor %edx, %edx
    mov $0xe7, %eax
    xsetbv
    mov $DATA_PAGES, %rbx
    xor %ecx, %ecx
1:
    movl $1, (%rbx, %rcx)
    add $0x108, %ecx
    cmp $32 * 0x108, %ecx
    jb 1b
    mov $1000, %eax
    xor %edx, %edx
    jmp 2f
    .balign 4096
2: /* 64 instructions in a page */
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    TERNLOG \n
    .endr
    .irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    TERNLOG \n
    .endr
    .set offset, 0
    .rept 32
    idivl offset(%rbx) /* EDX:EAX = 1000 each time */
    .set offset, offset + 0x108
    .endr
    CHECK "quotient", %rax, $1000
    vmovd %xmm31, %eax
    CHECK "a vector register", %rax, $-1
    vmovd %xmm0, %eax
    CHECK "another vector register", %rax, $-1
9:
    /* A loop, which may be unrolled, of instructions with even more rare cases */
    mov $DATA_PAGES, %rbx
    mov %rbx, %rsi
    mov %rbx, %rdi
    movl $0, (%rbx)
    mov $100, %eax
    xor %ecx, %ecx
    .balign 1024
3:
    incl (%rbx)
    .rept 14
    rep movsb
    .endr
    dec %eax
    jnz 3b
    CHECK "turns of a loop", (%rbx), $100
    xor %eax, %eax
    CHECK "end", %rax, $0
    jmp finish64
    BITS32
