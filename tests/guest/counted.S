/*
 * counted.S - instruction-counted time: run with --counted
 *
 * An instruction takes a nanosecond, and the TSC and the local APIC's timer count nanoseconds. What
 * an instruction causes comes right behind it. Everything is done three times, so that an engine
 * that translates has linked its blocks.
 */
#include "runtime.inc"
#define EOI 0xb0
#define SVR 0xf0
#define ICR 0x300
#define LVT_TIMER 0x320
#define TIMER_COUNT 0x380
#define TIMER_DIVIDE 0x3e0
#define IPI_VECTOR 0x40

    /* instructions: how many code executes */
    .macro COUNT name:req, instructions:req, code:req
    mov $3, %r8d
8880:
    rdtsc
    mov %eax, %r9d
    \code
    rdtsc
    sub %r9d, %eax
    CHECK "\name", %rax, $(\instructions + 2)
    dec %r8d
    jnz 8880b
    .endm

    /* The same often enough for calls to be followed; the last 5 times, which R8D says, late ones. */
    .macro COUNT_HOT name:req, usual:req, late:req, code:req
    mov $60, %r8d
    movl $0, wrong
8880:
    rdtsc
    mov %eax, %r9d
    \code
    rdtsc
    sub %r9d, %eax
    mov $\usual + 2, %edx
    mov $\late + 2, %ecx
    cmp $5, %r8d
    cmovbe %ecx, %edx
    cmp %eax, %edx
    je 8881f
    incl wrong
8881:
    dec %r8d
    jnz 8880b
    CHECK "\name", wrong, $0
    .endm

    /* Gate of vector to handler; changes RAX. */
    .macro GATE vector:req, handler:req
    mov $\handler, %eax
    mov %ax, idt64 + 16 * \vector
    shr $16, %eax
    mov %ax, idt64 + 16 * \vector + 6
    .endm

    /* flags: those of mask behind code */
    .macro FLAGS name:req, mask:req, flags:req, code:req
    \code
    mov %r10, scratch /* a place where the block may be left */
    pushf
    pop %rax
    and $\mask, %eax
    CHECK "\name", %rax, $\flags
    .endm

main:
    call enter_long
    BITS64
    mov $APIC, %r15d
    movl $0x1ff, SVR(%r15)
    movl $0xb, TIMER_DIVIDE(%r15)
    movl $IPI_VECTOR, LVT_TIMER(%r15)
    GATE 0, divide_error
    GATE IPI_VECTOR, interrupt

    COUNT "NOPs", 100, ".rept 100; nop; .endr"
    COUNT "a branch that is taken", 2, "stc; jc 1f; .rept 9; nop; .endr; 1:"
    COUNT "a branch that is not", 11, "clc; jc 1f; .rept 9; nop; .endr; 1:"
    COUNT "a loop", 301, "mov $100, %ecx; 1: incl scratch; dec %ecx; jnz 1b"
    COUNT "a loop with a way out", 201, "mov $100, %ecx; 1: cmp $51, %ecx; je 2f; dec %ecx; jnz 1b; 2: nop; nop"
    COUNT "a vector loop", 122, "mov $30, %ecx; pxor %xmm0, %xmm0; 1: paddd scratch, %xmm0; movaps %xmm0, scratch + 16; dec %ecx; jnz 1b"
    COUNT "call and return", 3, "call one; jmp 1f; 1:"
    COUNT "an indirect call", 4, "mov $one, %ecx; call *%rcx; nop"
    COUNT "a repeated string instruction", 4, "mov $64, %ecx; mov $scratch, %edi; xor %eax, %eax; rep stosb"
    COUNT "LOOP", 8, "mov $7, %ecx; 1: loop 1b"
    COUNT "JRCXZ in a block", 2, "xor %ecx, %ecx; jrcxz 1f; nop; nop; 1:"
    COUNT "an instruction that faults does not count", 12, "xor %ecx, %ecx; stc; nop; div %ecx; nop; nop; nop"
    COUNT "code whose second page is looked up again", 6, "call reload"
    COUNT "random numbers", 2, "rdrand %eax; rdrand %ecx"

    /* ---- in blocks that go on where calls lead ---- */
    COUNT_HOT "a call", 5, 5, "call nested; nop"
    COUNT_HOT "a return that leads elsewhere", 4, 7, "call turns_away; back_again:"
    GATE 13, bad_return
    movabs $0x0000800000000000, %r14
    COUNT_HOT "a return to what is not canonical", 5, 8, "call goes_wrong; nop; behind_bad_return:"
    COUNT_HOT "a fault in what is called", 8, 14, "mov $1, %ecx; xor %edx, %edx; call divides; nop"
    COUNT_HOT "a conditional branch out of what is called", 7, 5, "call branches; nop"

    /* ---- flags ---- */
    FLAGS "SHL clears AF", 0x10, 0, "mov $0xf, %eax; add $1, %eax; shl $4, %eax"
    FLAGS "IMUL: SF of the result", 0x90, 0x80, "mov $-3, %eax; imul $5, %eax"
    FLAGS "BSF keeps all but ZF", 0x8d5, 0x95, "mov $8, %ecx; mov $0x80, %eax; sub $0x81, %eax; bsf %ecx, %edx"
    xor %ecx, %ecx
    stc
    div %ecx
    mov fault_flags, %eax
    and $0x8d5, %eax
    CHECK "flags at an instruction that faults", %rax, $0x45 /* XOR's and CF */

    /* ---- events ---- */
    sti
    mov $3, %r8d
1:
    xor %ecx, %ecx
    movl $0x44000 | IPI_VECTOR, ICR(%r15)
    .rept 20
    inc %ecx
    .endr
    CHECK "an interrupt to oneself comes at once", interrupt_ecx, $0
    dec %r8d
    jnz 1b

    .irp count, 1, 10, 63, 100
    mov $3, %r8d
1:
    xor %ecx, %ecx
    movl $\count, TIMER_COUNT(%r15)
    .rept 130
    inc %ecx
    .endr
    CHECK "a timer of \count ns", interrupt_ecx, $(\count - 1)
    dec %r8d
    jnz 1b
    .endr

    mov $3, %r8d
1:
    xor %ecx, %ecx
    mov $scratch, %esi
    movl $1000, TIMER_COUNT(%r15)
2:
    mov (%rsi), %eax
    inc %ecx
    cmp $600, %ecx
    jb 2b
    CHECK "a timer in a loop", interrupt_ecx, $250
    dec %r8d
    jnz 1b
    jmp finish64

one:
    ret

nested:
    call one
    ret
turns_away: /* usually to behind the call */
    cmp $5, %r8d
    ja 1f
    movq $elsewhere, (%rsp)
1:
    ret
elsewhere:
    nop
    jmp back_again
goes_wrong:
    cmp $5, %r8d
    ja 1f
    mov %r14, (%rsp)
1:
    ret
bad_return: /* goes on behind the call */
    add $8, %rsp
    movq $behind_bad_return, (%rsp)
    addq $8, 24(%rsp)
    iretq
divides:
    cmp $5, %r8d
    ja 1f
    xor %ecx, %ecx
1:
    div %ecx
    ret
branches:
    cmp $5, %r8d
    jbe 1f
    nop
    nop
1:
    ret

    .balign 4096
reload:
    mov %cr3, %rax
    mov %rax, %cr3
    jmp crossing
    .space 4094 - (. - reload)
crossing:
    mov $7, %ecx /* the second page begins in it */
    ret

divide_error: /* the divisor is ECX: two bytes; keeps all registers */
    push %rax
    mov 24(%rsp), %rax
    mov %rax, fault_flags
    pop %rax
    addq $2, (%rsp)
    iretq

interrupt:
    mov %ecx, interrupt_ecx
    movl $0, EOI(%r15)
    iretq

    .bss
    .align 64
scratch: .space 64
interrupt_ecx: .quad 0
wrong: .quad 0
