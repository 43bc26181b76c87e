/*
 * popf.S - POPF of 64-bit code: which flags it loads at which privilege, and what comes behind it
 *
 * SDM vol. 2, POPF (table 4-21), and vol. 3, 6.8.1 and 17.3.1.4. In 64-bit mode of ring 0 all flags
 * but VM, RF, VIF and VIP are loaded; RF is cleared.
 */
#include "runtime.inc"
#define IPI_VECTOR 0x50

    /* POPF of an image at chosen IOPL, from ring 3, and the flags behind it. */
    .macro AT_USER name:req, before:req, image:req, want:req
    movq $USER_DATA, frame + 32
    movq $user_stack_top, frame + 24
    movq $\before, frame + 16
    movq $USER_CODE64, frame + 8
    movq $user_popf, frame
    movq $\image, image
    TRY "mov $frame, %rsp; iretq"
    CHECK_FAULT "\name: comes back", USER_EXIT, 0
    CHECK "\name", seen, $\want
    .endm
    /* The same at ring 0, with interrupts off before and behind. */
    .macro LOADS name:req, image:req, want:req
    push $\image
    popfq
    pushfq
    pop %rbx
    push $2
    popfq
    CHECK "\name", %rbx, $\want
    .endm

main:
    call enter_long
    BITS64
    LOADS "nothing but bit 1", 0, 2
    LOADS "status flags", 0x8d5, 0x8d7
    LOADS "CF alone", 1, 3
    LOADS "OF alone", 0x800, 0x802
    LOADS "reserved bits are 0, bit 1 is 1", 0x802a, 2
    LOADS "DF", 0x400, 0x402
    LOADS "NT and IOPL", 0x7000, 0x7002
    LOADS "ID", 0x200000, 0x200002
    LOADS "VM is not loaded", 0x20000, 2
    LOADS "RF, VIF and VIP are not loaded", 0x190000, 2
    LOADS "AC is loaded", 0x40000, 0x40002
    LOADS "IF with nothing pending", 0x202, 0x202

    /* What was there goes away; conditions behind it are of the new flags. */
    stc
    push $2
    popfq
    CHECK_FLAG "CF went away", c, 0
    xor %ecx, %ecx
    push $0x801
    popfq
    CHECK_FLAG "OF is seen by SETcc", o, 1
    push $0x85
    popfq
    adc $0, %rcx
    CHECK "CF is seen by ADC", %rcx, $1
    push $0x11111111
    movabs $0x7fffffff00000000, %rax
    or %rax, (%rsp)
    andq $~0x100, (%rsp)
    popfq
    pushfq
    pop %rbx
    push $2
    popfq
    CHECK "the upper half is ignored, low", %rbx, $0x1013
    shr $32, %rbx
    CHECK "the upper half is ignored, high", %rbx, $0

    /* RSP, and a stack that is not there. */
    mov %rsp, %rbp
    push $2
    popfq
    sub %rsp, %rbp
    CHECK "RSP is 8 more", %rbp, $0
    movb $1, idt64 + 16 * 12 + 4 /* IST1 */
    movb $1, idt64 + 16 * 14 + 4
    movabs $0x0000800000000000, %rbx
    TRY "mov %rbx, %rsp; popf_at: popfq"
    CHECK_FAULT "a stack that is not canonical is #SS(0)", 12, 0
    CHECK "#SS is at the POPF", fault_ip, $popf_at
    movabs $0x200000000000, %rbx
    TRY "mov %rbx, %rsp; popf_at_2: popfq"
    CHECK_FAULT "a stack that is not mapped is #PF", 14, 0
    CHECK "#PF is at the POPF", fault_ip, $popf_at_2
    TRY ".byte 0xf0; popfq"
    CHECK_FAULT "LOCK POPF is #UD", 6, 0

    /* TF traps behind the next instruction; one that clears it traps no more. */
    TRY "push $0x102; popfq; nop; trap_here: nop"
    CHECK_FAULT "TF traps", 1, 0
    CHECK "TF traps behind the next instruction", fault_ip, $trap_here
    push $2
    popfq
    TRY "push $2; push $0x102; popfq; popfq; trap_here_2: nop"
    CHECK_FAULT "POPF that clears TF is trapped itself", 1, 0
    CHECK "that trap is behind it", fault_ip, $trap_here_2

    /* An interrupt that is pending comes at once: there is no shadow behind POPF. */
    movl $note, hooks + 4 * IPI_VECTOR
    mov $APIC, %r14d
    movl $0x1ff, 0xf0(%r14)
    mov $3, %r12d
1:
    movl $0x00044000 + IPI_VECTOR, 0x300(%r14) /* to itself */
    push $0x202
    popfq
behind:
    cli
    CHECK "an interrupt came", seen, $behind
    movq $0, seen
    movl $0x00044000 + IPI_VECTOR, 0x300(%r14)
    push $2
    popfq
    nop
    CHECK "none without IF", seen, $0
    push $0x202
    sti
    popfq
behind_2:
    cli
    CHECK "behind STI it comes behind POPF", seen, $behind_2
    movq $0, seen
    dec %r12d
    jnz 1b

    AT_USER "ring 3, IOPL 0: neither IF nor IOPL", 2, 0x3ed7, 0xcd7
    AT_USER "ring 3, IOPL 0: IF stays", 0x202, 2, 0x202
    AT_USER "ring 3, IOPL 3: IF, but not IOPL", 0x3002, 0x202, 0x3202
    AT_USER "ring 3, IOPL 3: IF goes", 0x3202, 2, 0x3002
    AT_USER "ring 3: NT, AC, ID", 2, 0x244000, 0x244002
    jmp finish64

user_popf:
    push image
    popfq
    pushfq
    pop seen
    push $2
    popfq
    int $USER_EXIT

note:
    mov 16(%rbx), %rax
    mov %rax, seen
    mov $APIC, %ecx
    movl $0, 0xb0(%rcx)
    ret

    .data
    .align 16
frame: .quad 0, 0, 0, 0, 0
image: .quad 0
seen: .quad 0
    .text
