/*
 * software_interrupts.S - INT n, INT3 and INT1 of 64-bit code, and IRETQ back
 *
 * SDM vol. 2, INT n and IRET; vol. 3, 6.12 and 6.14: what the gate allows, the frame, the stack, and
 * the flags on both ways, from rings 0 and 3.
 */
#include "runtime.inc"
    .set VECTOR, 0x70
    /* For what stands in quotes. */
    .set kernel_data, DATA
    .set kernel_code, CODE64
    .set user_data, USER_DATA
    .set user_code, USER_CODE64
#define GATE (idt64 + 16 * VECTOR)
#define INTERRUPT_GATE 0x8e
#define TRAP_GATE 0x8f
#define DPL3 0x60

    /* Run code at ring 3 with these flags. */
    .macro AT_USER code:req, flags:req
    movq $USER_DATA, frame + 32
    movq $user_stack_top, frame + 24
    movq $\flags, frame + 16
    movq $USER_CODE64, frame + 8
    movq $\code, frame
    TRY "mov $frame, %rsp; iretq"
    .endm
    /* The frame and the flags that note found, in the handler that was entered. */
    .macro SEEN name:req, ip:req, cs:req, flags:req, ss:req, now:req
    CHECK "\name: RIP", seen, $\ip
    CHECK "\name: CS", seen + 8, $\cs
    CHECK "\name: RFLAGS", seen + 16, $\flags
    CHECK "\name: SS", seen + 32, $\ss
    CHECK "\name: flags in the handler", now_flags, $\now
    .endm

main:
    call enter_long
    BITS64
    /* Vectors 3 and VECTOR lead to note, which goes back by IRETQ. */
    mov $note, %eax
    mov %ax, GATE
    mov %ax, idt64 + 16 * 3
    mov %ax, idt64 + 16 * 1
    shr $16, %eax
    mov %ax, GATE + 6
    mov %ax, idt64 + 16 * 3 + 6
    mov %ax, idt64 + 16 * 1 + 6

    /* Ring 0: neither stack nor privilege change; RSP is aligned. */
    mov %rsp, %rbp
    sub $8, %rsp
    push $0x4cd7 /* with NT, which IRETQ would fault on if it stayed; IF */
    orl $0x200, (%rsp)
    popfq
    int $VECTOR
back_1:
    pushfq
    pop %rbx
    push $2
    popfq
    add $8, %rsp
    SEEN "INT at ring 0", back_1, CODE64, 0x4ed7, DATA, 0xcd7
    CHECK "IRETQ loads the flags, NT too", %rbx, $0x4ed7
    CHECK "RSP is what it was", %rsp, %rbp
    mov seen + 24, %rax
    add $8, %rax
    CHECK "RSP in the frame", %rax, %rbp
    mov seen_sp, %rax
    and $15, %eax
    CHECK "the frame is aligned", %rax, $8
    movb $TRAP_GATE, GATE + 5
    push $0x202
    popfq
    int $VECTOR
    cli
    CHECK "a trap gate leaves IF alone", now_flags, $0x202
    int3
back_2:
    SEEN "INT3 at ring 0", back_2, CODE64, 2, DATA, 2
    .byte 0xf1
back_3:
    SEEN "INT1 at ring 0", back_3, CODE64, 2, DATA, 2
    movb $1, GATE + 4
    int $VECTOR
    mov seen_sp, %rax
    CHECK "IST", %rax, $(ist1_top - 40)
    movb $0, GATE + 4

    /* Ring 3: DPL of the gate counts for INT n and INT3, not for INT1. */
    movb $INTERRUPT_GATE, GATE + 5
    AT_USER user_int, 2
    CHECK_FAULT "INT at ring 3 with DPL 0 is #GP(vector)", 13, (8*VECTOR+2)
    CHECK "that is at the INT", fault_ip, $user_int
    CHECK "that is at ring 3", fault_cs, $USER_CODE64
    AT_USER user_int3, 2
    CHECK_FAULT "INT3 at ring 3 with DPL 0 is #GP(vector)", 13, 26
    movb $INTERRUPT_GATE + DPL3, GATE + 5
    movb $INTERRUPT_GATE + DPL3, idt64 + 16 * 3 + 5
    AT_USER user_int, 0x40ed7
    CHECK_FAULT "INT at ring 3 comes back", USER_EXIT, 0
    SEEN "INT at ring 3", user_int_end, USER_CODE64, 0x40ed7, USER_DATA, 0x40cd7
    CHECK "INT at ring 3: RSP in the frame", seen + 24, $user_stack_top
    CHECK "INT at ring 3: the stack is the TSS's", seen_sp, $(interrupt_stack_top - 40)
    CHECK "INT at ring 3: SS is null", seen_ss, $0
    CHECK "INT at ring 3: RSP is what it was", fault_sp, $user_stack_top
    CHECK "INT at ring 3: SS is what it was", fault_ss, $USER_DATA
    CHECK "INT at ring 3: flags are what they were", fault_flags, $0x40ed7
    AT_USER user_int3, 2
    SEEN "INT3 at ring 3", user_int3_end, USER_CODE64, 2, USER_DATA, 2
    AT_USER user_int1, 2
    SEEN "INT1 at ring 3 with DPL 0", user_int1_end, USER_CODE64, 2, USER_DATA, 2
    AT_USER user_int, 0x102
    CHECK_FAULT "TF at ring 3: the trap is in the frame's code", USER_EXIT, 0

    /* Gates that are not good. */
    movb $INTERRUPT_GATE + DPL3 - 0x80, GATE + 5
    TRY "int $VECTOR"
    CHECK_FAULT "a gate that is not present is #NP(vector)", 11, (8*VECTOR+2)
    AT_USER user_int, 2
    CHECK_FAULT "likewise at ring 3", 11, (8*VECTOR+2)
    movb $INTERRUPT_GATE - 0x80, GATE + 5
    AT_USER user_int, 2
    CHECK_FAULT "DPL comes first", 13, (8*VECTOR+2)
    movb $0x8c + DPL3, GATE + 5
    TRY "int $VECTOR"
    CHECK_FAULT "a call gate is #GP(vector)", 13, (8*VECTOR+2)
    movb $INTERRUPT_GATE + DPL3, GATE + 5
    movw $USER_CODE64, GATE + 2
    TRY "int $VECTOR"
    CHECK_FAULT "a handler at ring 3 from ring 0 is #GP(selector)", 13, (USER_CODE64 - 3)
    movw $CODE32, GATE + 2
    TRY "int $VECTOR"
    CHECK_FAULT "a 32-bit handler is #GP(selector)", 13, CODE32
    movw $0, GATE + 2
    TRY "int $VECTOR"
    CHECK_FAULT "a null handler is #GP(0)", 13, 0
    movw $CODE64, GATE + 2
    movl $0x8000, GATE + 8
    TRY "int $VECTOR"
    CHECK_FAULT "a handler that is not canonical is #GP(0)", 13, 0
    movl $0, GATE + 8
    movw $16 * VECTOR + 14, short_idt
    movl $idt64, short_idt + 2
    lidt short_idt
    TRY "int $VECTOR"
    CHECK_FAULT "a vector beyond the IDT is #GP(vector)", 13, (8*VECTOR+2)
    lidt idt64_pointer

    /* What IRETQ refuses. */
    TRY "push $kernel_data; push %rsp; push $2; push $user_code; push $user_int; iretq"
    CHECK_FAULT "IRETQ to ring 3 with SS of ring 0 is #GP(SS)", 13, DATA
    TRY "push $user_data; push %rsp; push $2; push $kernel_code; push $back_1; iretq"
    CHECK_FAULT "IRETQ to ring 0 with SS of ring 3 is #GP(SS)", 13, (USER_DATA - 3)
    TRY "push $kernel_data; push %rsp; push $2; push $kernel_data; push $back_1; iretq"
    CHECK_FAULT "IRETQ to a data segment is #GP(CS)", 13, DATA
    TRY "push $kernel_data; push %rsp; push $2; push $0; push $back_1; iretq"
    CHECK_FAULT "IRETQ to a null segment is #GP(0)", 13, 0
    mov $0x8000, %eax
    shl $32, %rax
    TRY "push $kernel_data; push %rsp; push $2; push $kernel_code; push %rax; iretq"
    CHECK_FAULT "IRETQ to what is not canonical is #GP(0)", 13, 0
    push $0x4002
    popfq
    TRY "push $kernel_data; push %rsp; push $2; push $kernel_code; push $back_1; iretq"
    CHECK_FAULT "IRETQ with NT in long mode is #GP(0)", 13, 0
    TRY "mov %rsp, %rbp; push $0; push %rbp; push $2; push $kernel_code; push $iret_end; iretq; iret_end: nop"
    CHECK_NO_FAULT "IRETQ to ring 0 with a null SS"
    mov %ss, %eax
    CHECK "it is null then", %rax, $0
    mov $DATA, %eax
    mov %eax, %ss
    jmp finish64

user_int: int $VECTOR
user_int_end:
    int $USER_EXIT
user_int3: int3
user_int3_end:
    int $USER_EXIT
user_int1: .byte 0xf1
user_int1_end:
    int $USER_EXIT

note:
    mov %rsp, seen_sp
    push %rax
    push %rcx
    pushfq
    pop now_flags
    .set n, 0
    .rept 5
    mov 16 + 8 * n(%rsp), %rax
    mov %rax, seen + 8 * n
    .set n, n + 1
    .endr
    mov %ss, %eax
    mov %eax, seen_ss
    pop %rcx
    pop %rax
    iretq

    .data
    .align 16
frame: .quad 0, 0, 0, 0, 0
seen: .quad 0, 0, 0, 0, 0
seen_sp: .quad 0
seen_ss: .quad 0
now_flags: .quad 0
short_idt: .quad 0, 0
    .text
