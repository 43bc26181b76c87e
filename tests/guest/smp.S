/*
 * smp.S - INIT and SIPI start three more processors; then locked increments from all four
 *
 * The others start in real mode at START and run with the boot processor's GDT.
 */
#include "runtime.inc"
    .set CPUS, 4
    .set ROUNDS, 20000
#define START 0x8000
#define APIC 0xfee00000

main:
    mov $low_start, %esi
    mov $START, %edi
    mov $low_end - low_start, %ecx
    rep movsb
    movl $0x1ff, APIC + 0xf0
    movl $0x000c4500, APIC + 0x300 /* INIT to all but this one */
    call pause_long
    movl $0x000c4600 + (START >> 12), APIC + 0x300 /* SIPI */
    mov $2000000000, %ecx
1:
    pause
    cmpl $(CPUS-1), started
    je 2f
    dec %ecx
    jnz 1b
2:
    CHECK "INIT and SIPI start three processors", started, $(CPUS-1)
    CHECK "each has an APIC identifier of its own", identifiers, $0xe
    movl $0x000c4600 + (START >> 12), APIC + 0x300
    call pause_long
    CHECK "SIPI to a running processor does nothing", started, $(CPUS-1)
    movl $1, go
    call count
3:
    pause
    cmpl $CPUS, finished
    jne 3b
    CHECK "LOCK INC from four processors", locked, $(CPUS*ROUNDS)
    CHECK "LOCK XADD from four processors", added, $(CPUS*ROUNDS)
    CHECK "LOCK CMPXCHG loops from four processors", exchanged, $(CPUS*ROUNDS)
    CHECK "a lock of XCHG guards a plain increment", guarded, $(CPUS*ROUNDS)
    jmp finish32

pause_long:
    mov $200000, %ecx
1:
    pause
    loop 1b
    ret

count:
    mov $ROUNDS, %ecx
1:
    lock incl locked
    mov $1, %eax
    lock xadd %eax, added
2:
    mov exchanged, %eax
    lea 1(%eax), %edx
    lock cmpxchg %edx, exchanged
    jne 2b
3:
    mov $1, %eax
    xchg %eax, guard
    test %eax, %eax
    jz 4f
    pause
    jmp 3b
4:
    incl guarded
    movl $0, guard
    loop 1b
    lock incl finished
    ret

other:
    mov $DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $1, %ebx
    lock xadd %ebx, stacks
    shl $10, %ebx
    lea other_stacks + 1024(%ebx), %esp
    mov APIC + 0x20, %ecx
    shr $24, %ecx
    mov $1, %eax
    shl %cl, %eax
    lock or %eax, identifiers
    lock incl started
1:
    pause
    cmpl $1, go
    jne 1b
    call count
2:
    cli
    hlt
    jmp 2b

    .data
    .align 64
started: .long 0
stacks: .long 0
identifiers: .long 0
go: .long 0
finished: .long 0
locked: .long 0
added: .long 0
exchanged: .long 0
guard: .long 0
guarded: .long 0
    .bss
other_stacks: .space 16 * 1024
    .section .low, "awx", @progbits
low_start:
    .code16
    cli
    lgdtl %cs:low_gdt - low_start
    mov %cr0, %eax
    or $1, %eax
    mov %eax, %cr0
    ljmpl $CODE32, $other
    .align 8
low_gdt:
    .word gdt_end - gdt - 1
    .long gdt
low_end:
