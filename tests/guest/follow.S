/*
 * follow.S - calls and jumps that are taken often enough for an engine to go on through them
 *
 * Each loop runs TIMES turns. What a call leads to, and what RET leads back to, changes in between.
 */
#include "runtime.inc"

#define TIMES  200
#define WINDOW 0x40000000 /* a linear page that is page_one or page_two */

    /* ECX counts down; EDI adds up what text leaves in EAX. */
    .macro LOOP turns:req, text:req
    xor %edi, %edi
    REPEAT \turns, "\text; add %eax, %edi"
    .endm

main:
    call enter_long
    BITS64
    movl $window_pd + 7, pdpt + 8
    movl $window_pt + 7, window_pd
    movl $page_one + 7, window_pt
    movb $1, page_one + 1 /* mov $1, %eax */
    movb $2, page_two + 1

    LOOP TIMES, "call near_one"
    CHECK "a call in the page", %rdi, $TIMES
    LOOP TIMES, "call far_three"
    CHECK "a call of another page", %rdi, $3*TIMES
    mov %rsp, %rbp
    LOOP TIMES, "push $7; call takes_argument"
    CHECK "RET takes an argument", %rdi, $7*TIMES
    sub %rsp, %rbp
    CHECK "and leaves the stack as it was", %rbp, $0
    LOOP TIMES, "mov $10, %edx; call sum"
    CHECK "recursion", %rdi, $55*TIMES

    /* RET goes elsewhere in some turns. */
    LOOP TIMES, "call astray; sub $5, %eax; 2: nop"
    CHECK "a return address that is changed", %rdi, $100*TIMES/4+(100-5)*TIMES*3/4
    /* The flags pass through a call and back, also where RET goes astray. */
    xor %edx, %edx
    LOOP TIMES, "stc; call keeps_flags; adc $0, %edx; clc; call keeps_flags; adc $0, %edx; mov %edx, %eax"
    CHECK "flags of a call and a return", %rdx, $TIMES
    xor %edx, %edx
    LOOP TIMES, "stc; call astray_with_flags; nop; adc $0, %edx; xor %eax, %eax"
    CHECK "flags of a return that went astray", %rdx, $TIMES

    /* A jump goes on in another page, and back. */
    LOOP TIMES, "jmp far_jump; back: nop"
    CHECK "jumps to another page and back", %rdi, $9*TIMES

    /* Another page comes to be where the call leads. */
    LOOP TIMES, "call 0x40000000"
    CHECK "a call of the window", %rdi, $TIMES
    movl $page_two + 7, window_pt
    invlpg WINDOW
    LOOP TIMES, "call 0x40000000"
    CHECK "the page is another one, after INVLPG", %rdi, $2*TIMES
    movl $page_one + 7, window_pt
    mov %cr3, %rax
    mov %rax, %cr3
    LOOP TIMES, "call 0x40000000"
    CHECK "after a write of CR3", %rdi, $TIMES
    /* There is a way around the first call in a run that has two. */
    mov $TIMES, %ecx
    call around
    CHECK "a way around a call", %rdi, $TIMES
    movl $page_two + 7, window_pt
    invlpg WINDOW
    mov $2, %ecx
    call around
    CHECK "the page is another one on the way around", %rdi, $2*2
    movl $page_one + 7, window_pt
    invlpg WINDOW
    /* It changes while the call is under way. */
    LOOP TIMES, "call switch_window; call 0x40000000"
    CHECK "it changes in every turn", %rdi, $TIMES*3/2
    /* Its code changes. */
    movl $page_one + 7, window_pt
    invlpg WINDOW
    LOOP TIMES, "movb %cl, page_one + 1; call 0x40000000"
    CHECK "its code changes in every turn", %rdi, $TIMES*(TIMES+1)/2
    /* There is no page: the fault comes at the first instruction behind the call. */
    movb $1, page_one + 1
    LOOP TIMES, "call 0x40000000"
    movl $0, window_pt
    invlpg WINDOW
    mov %rsp, %rbp
    TRY "call 0x40000000"
    CHECK_FAULT "no page behind a call", 14, 0
    CHECK "and RIP is there", fault_ip, $WINDOW
    mov %rbp, %rsp

    /*
     * The flags pass through a branch into code that has taken the place of code which does not
     * care for them: 64 KiB further on, or in the same page.
     */
    mov %rbp, %rsp
    movl $page_kills + 7, window_pt
    movl $page_adds + 7, window_pt + 8 * 16
    mov $WINDOW, %ebx
    lea 0x10000(%rbx), %rdx
    LOOP TIMES, "call *%rbx; xor %eax, %eax; stc; call *%rdx"
    CHECK "flags of an indirect call, 64 KiB on", %rdi, $TIMES
    call *%rbx /* page_kills is the first */
    LOOP TIMES, "xorl $0x1000, window_pt; invlpg 0x40000000; xor %eax, %eax; call *%rbx"
    CHECK "flags of an indirect call, to another page", %rdi, $TIMES/2
    xorl $0x1000, window_pt
    LOOP TIMES, "xorl $0x1000, window_pt; invlpg 0x40000000; xor %eax, %eax; call 0x40000000"
    CHECK "flags of a call, to another page", %rdi, $TIMES/2

    /*
     * Branches that are seldom taken, to a page that is another one the second time. At some of them
     * an access came while the flags were of use, whose register was not known before.
     */
    mov $0x1000, %esi
    movl $page_one + 7, window_pt
    invlpg WINDOW
    .irp way, branches, jumps_with_flags, returns, returns_with_flags
    mov $4, %ecx
    call \way
    CHECK "\way to the window", %rdi, $4
    movl $page_two + 7, window_pt
    invlpg WINDOW
    mov $4, %ecx
    call \way
    CHECK "\way to another page", %rdi, $8
    movl $page_one + 7, window_pt
    invlpg WINDOW
    .endr
    movl $page_before + 7, window_pt + 8 * 32
    movl $page_one + 7, window_pt + 8 * 33
    mov $4, %ecx
    call runs_over
    CHECK "running into the next page", %rdi, $4
    movl $page_two + 7, window_pt + 8 * 33
    invlpg WINDOW + 0x21000
    mov $4, %ecx
    call runs_over
    CHECK "running into another next page", %rdi, $8
    /* From one place to two that are 64 KiB apart, so that both have the same place in a table. */
    movl $page_two + 7, window_pt + 8 * 16
    invlpg WINDOW + 0x10000
    .irp way, calls, calls_with_flags
    mov $8, %ecx
    call \way
    CHECK "\way 64 KiB apart", %rdi, $4*1+4*2
    .endr
    LOOP TIMES, "call astray_unasked; sub $5, %eax; 2: nop"
    CHECK "a return address that is changed without flags", %rdi, $100*TIMES/4+(100-5)*TIMES*3/4
    jmp finish64

    .macro TURNS text:req
    xor %edi, %edi
1:
    \text
2:
    add %eax, %edi
    dec %ecx
    jnz 1b
    ret
    .endm
branches:
    TURNS "push $2f; xor %edx, %edx; jz 0x40000000"
jumps_with_flags:
    TURNS "push $2f; stc; movzwl %si, %edx; mov (%rdx), %r8d; jmp 0x40000000"
returns:
    TURNS "push $2f; push %rbx; xor %edx, %edx; ret"
returns_with_flags:
    TURNS "push $2f; stc; movzwl %si, %edx; mov (%rdx), %r8d; push %rbx; ret"
runs_over:
    TURNS "push $2f; lea 0x20000 + 4096 - 7(%rbx), %rdx; jmp *%rdx"
calls:
    TURNS "xor $0x10000, %ebx; call *%rbx"
calls_with_flags:
    TURNS "xor $0x10000, %ebx; stc; movzwl %si, %edx; mov (%rdx), %r8d; call *%rbx"
astray_unasked: /* as astray, but it has no look at the flags */
    movzbl skips(%rcx), %edx
    mov (%rsp), %rax
    lea (%rax, %rdx), %rax
    mov %rax, (%rsp)
    mov $100, %eax
    ret
skips: /* by ECX */
    .rept TIMES / 4
    .byte 3, 0, 0, 0
    .endr
    .byte 3

near_one:
    mov $1, %eax
    ret
takes_argument:
    mov 8(%rsp), %eax
    ret $8
sum: /* EAX = 1 + 2 + ... + EDX */
    test %edx, %edx
    jz 1f
    push %rdx
    dec %edx
    call sum
    pop %rdx
    add %edx, %eax
    ret
1:
    xor %eax, %eax
    ret
astray: /* EAX = 100; every fourth turn it skips the instruction behind the call */
    mov $100, %eax
    test $3, %ecx
    jnz 1f
    addq $3, (%rsp)
1:
    ret
keeps_flags:
    lea 1(%rdx), %eax
    ret
astray_with_flags:
    push %rax
    mov 8(%rsp), %rax
    lea 1(%rax), %rax
    mov %rax, 8(%rsp)
    pop %rax
    ret
around: /* ECX turns; EDI = the sum of what the last call of each returns */
    xor %edi, %edi
1:
    test $1, %cl
    jnz 2f
    call 0x40000000
2:
    call 0x40000000
    add %eax, %edi
    dec %ecx
    jnz 1b
    ret
switch_window:
    xorl $0x1000, window_pt /* page_one, page_two */
    invlpg WINDOW
    ret
    BITS32

    .section .text.far, "ax", @progbits
    .balign 4096
    BITS64
far_three:
    call far_one
    add $2, %eax
    ret
far_one:
    mov $1, %eax
    ret
far_jump:
    mov $9, %eax
    jmp back
    BITS32

    .data
    .balign 8192
page_one:
    .byte 0xb8, 1, 0, 0, 0, 0xc3 /* mov $1, %eax; ret */
    .balign 4096
page_two:
    .byte 0xb8, 2, 0, 0, 0, 0xc3
    .balign 8192
page_kills:
    .byte 0x31, 0xc0, 0xff, 0xc0, 0xc3 /* xor %eax, %eax; inc %eax; ret */
    .balign 4096
page_adds:
    .byte 0x83, 0xd0, 0, 0xc3 /* adc $0, %eax; ret */
    .balign 4096
page_before:
    .skip 4096 - 7
    .byte 0xf9, 0x0f, 0xb7, 0xd6, 0x44, 0x8b, 0x02 /* stc; movzwl %si, %edx; mov (%rdx), %r8d */
window_pd: .fill 512, 8, 0
window_pt: .fill 512, 8, 0
