/*
 * shadow.S - no interrupt between STI, or a load of SS, and the next instruction
 *
 * SDM vol. 2, STI; vol. 3, 6.8.3. A second processor sends interrupts without end, so that they
 * come at every point of a loop of the first one. An engine that looks for interrupts at the wrong
 * moment shows RIPs that may not be seen; "sti; hlt" would then sleep through an interrupt.
 */
#include "runtime.inc"
    .set ROUNDS, 1000
#define IPI_VECTOR 0x50

main:
    movl $note, hooks + 4 * IPI_VECTOR
    START_OTHERS other
    call enter_long
    BITS64
    mov $DATA, %eax
2:
    sti
after_sti:
    nop
    mov %eax, %ss
after_ss:
    nop
    cli
    cmpl $ROUNDS, got
    jb 2b
    cmpl $ROUNDS, got
    setae %al
    movzbl %al, %eax
    CHECK "interrupts came", %rax, $1
    CHECK "none between STI and the next instruction", seen_sti, $0
    CHECK "none between MOV SS and the next instruction", seen_ss, $0

    /* The same where the next instruction accesses memory near that of a later one, over the end of
     * a page, in code that is new each time. */
    mov $straddled, %rbx
3:
    incb 4f + 1
4:
    mov $1, %al
    sti
after_sti_2:
    mov -8(%rbx), %ecx
    mov (%rbx), %ecx
    mov $DATA, %eax
    mov %eax, %ss
after_ss_2:
    mov -16(%rbx), %ecx
    mov 8(%rbx), %ecx
    cli
    cmpl $2 * ROUNDS, got
    jb 3b
    CHECK "none between STI and an access", seen_sti, $0
    CHECK "none between MOV SS and an access", seen_ss, $0
    jmp finish64

    .macro COUNT_IF_AT address:req, counter:req
    cmpq $\address, 16(%rbx)
    jne 1f
    incl \counter
1:
    .endm
note:
    COUNT_IF_AT after_sti, seen_sti
    COUNT_IF_AT after_sti_2, seen_sti
    COUNT_IF_AT after_ss, seen_ss
    COUNT_IF_AT after_ss_2, seen_ss
    mov $APIC + 0xb0, %ecx
    movl $0, (%rcx)
    incl got
    ret
    BITS32

/* The second processor: the next interrupt as soon as the one before has come. */
other:
    movl $0x1ff, APIC + 0xf0
    movl $0, APIC + 0x310
    mov $1, %ebx
1:
    movl $0x4000 + IPI_VECTOR, APIC + 0x300
2:
    pause
    cmp %ebx, got
    jb 2b
    inc %ebx
    mov %ebx, %ecx /* a little later each time */
    and $63, %ecx
    inc %ecx
3:
    loop 3b
    cmp $2 * ROUNDS, %ebx
    jbe 1b
4:
    cli
    hlt
    jmp 4b

    .data
    .align 64
got: .long 0
    .align 64
seen_sti: .long 0
seen_ss: .long 0
    .balign 4096
    .skip 4096
straddled:
    .skip 64
