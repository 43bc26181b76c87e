/*
 * smp.S - INIT and SIPI start three more processors; locked increments from all four; then IPIs
 *
 * The others run with the boot processor's GDT.
 */
#include "runtime.inc"
    .set CPUS, 4
    .set ROUNDS, 20000
#define IOAPIC 0xfec00000
#define IPI_VECTOR 0x50

    /* After some instructions: the processors that got the interrupt, a bit each. */
    .macro IPI name:req, want:req, code:req
    movl $0, got
    movl $0, got_count
    \code
    mov $\want, %edx
    call wait_got
    CHECK "\name", got, $\want
    .endm

main:
    movl $note, hooks + 4 * IPI_VECTOR
    movl $note_nmi, hooks + 4 * 2
    START_OTHERS other
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
    movl $0x000c4600 + (LOW_CODE >> 12), APIC + 0x300
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

    /* They halt now with interrupts on; LDR is 1 << identifier. */
    IPI "IPI to one, physical", 4, "movl $0x02000000, APIC + 0x310; movl $0x4050, APIC + 0x300"
    IPI "IPI to two, logical", 0xa, "movl $0x0a000000, APIC + 0x310; movl $0x4850, APIC + 0x300"
    IPI "IPI to all but self", 0xe, "movl $0xc4050, APIC + 0x300"
    CHECK "IPI to all but self: one each", got_count, $3
    IPI "NMI to one", 8, "movl $0x03000000, APIC + 0x310; movl $0x4400, APIC + 0x300"
    IPI "two NMIs to one", 8, "movl $0x4400, APIC + 0x300; movl $0x4400, APIC + 0x300"
    CHECK "two NMIs to one: the second waits for the first", got_count, $2
    movl $0, got
    movl $0, got_count
    movl $0x0e000000, APIC + 0x310
    movl $0x4950, APIC + 0x300 /* lowest priority */
    call wait_count
    CHECK "IPI with lowest priority: to one", got_count, $1
    mov $0x30, %al /* the output of the PIT goes low, and high for pin 2 of the I/O APIC */
    out %al, $0x43
    movl $0x15, IOAPIC
    movl $0x02000000, IOAPIC + 0x10
    movl $0x14, IOAPIC
    movl $IPI_VECTOR, IOAPIC + 0x10
    IPI "I/O APIC to one", 4, "mov $0x34, %al; out %al, $0x43"
    movl $0x15, IOAPIC
    movl $0x0c000000, IOAPIC + 0x10
    movl $0x14, IOAPIC
    movl $IPI_VECTOR | 0x800, IOAPIC + 0x10
    mov $0x30, %al
    out %al, $0x43
    IPI "I/O APIC to two, logical", 0xc, "mov $0x34, %al; out %al, $0x43"
    jmp finish32

/* Until got is EDX, and a little longer. */
wait_got:
    mov $100000000, %ecx
1:
    pause
    cmp %edx, got
    je pause_long
    loop 1b
    ret
wait_count:
    mov $100000000, %ecx
1:
    pause
    cmpl $0, got_count
    jne pause_long
    loop 1b
    ret
note_nmi:
    call note_self
    ret
note:
    call note_self
    movl $0, APIC + 0xb0
    ret
note_self:
    mov APIC + 0x20, %ecx
    shr $24, %ecx
    mov $1, %eax
    shl %cl, %eax
    lock or %eax, got
    lock incl got_count
    ret

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
    mov $1, %ebx
    lock xadd %ebx, stacks
    shl $10, %ebx
    lea other_stacks + 1024(%ebx), %esp
    mov APIC + 0x20, %ecx
    shr $24, %ecx
    mov $1, %eax
    shl %cl, %eax
    lock or %eax, identifiers
    lidt idt32_pointer
    movl $0x1ff, APIC + 0xf0
    shl $24, %eax
    mov %eax, APIC + 0xd0
    lock incl started
1:
    pause
    cmpl $1, go
    jne 1b
    call count
    sti
2:
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
    .align 64
got: .long 0
got_count: .long 0
    .bss
other_stacks: .space 16 * 1024
