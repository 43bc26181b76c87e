/*
 * timers.S - PIT, HPET, RTC, ACPI PM timer, APIC timer: counts, rates and interrupts
 *
 * Intel 8254 data sheet (231164), IA-PC HPET Specification 1.0a, MC146818A data sheet, ACPI 6.4,
 * 4.8.2.1, SDM vol. 3, 11.5.4. Rates are compared with the time stamp counter. The host may let a
 * processor stand still at any place, so a clock is read between two readings of the counter that
 * are close together, intervals are not bounded from above, and of interrupts that may be
 * merged only few are asked for.
 */
#include "runtime.inc"
#define IOAPIC 0xfec00000
#define HPET 0xfed00000
#define PM_TIMER 0x608
#define EOI 0xb0
#define SVR 0xf0
#define LVT_TIMER 0x320
#define LINT0 0x350
#define INITIAL 0x380
#define CURRENT 0x390
#define DIVIDE 0x3e0
#define PIT_VECTOR 0x20
#define RTC_VECTOR 0x28
#define PIN_VECTOR 0x60
#define RTC_PIN_VECTOR 0x61
#define APIC_VECTOR 0x70
#define MILLISECOND 1000000 /* of the time stamp counter, roughly: only for waiting */

    .macro OUTB port:req, value:req
    mov $\value, %al
    .if \port < 0x100
    out %al, $\port
    .else
    mov $\port, %dx
    out %al, %dx
    .endif
    .endm
    .macro COUNTED vector:req
    movl $0, counts + 4 * \vector
    .endm
    /* At least n interrupts come, in whatever time. */
    .macro COMES name:req, vector:req, n:req
    mov $counts + 4 * \vector, %edi
    mov $\n, %esi
    call wait_for
    CHECK "\name", %rax, $1
    .endm
    /* No further one in three milliseconds; what is on its way may still come. */
    .macro SILENT name:req, vector:req
    call wait_100us
    mov counts + 4 * \vector, %r14d
    call wait_3ms
    CHECK "\name", counts+4*\vector, %r14
    .endm
    .macro LOAD_PIT channel:req, value:req
    OUTB 0x40 + \channel, (\value)&255
    OUTB 0x40 + \channel, (\value)>>8
    .endm
    /* The clock of a function that returns 32 bits in EAX, of which mask count, runs at hz. */
    .macro RATE name:req, function:req, mask:req, hz:req
    mov $\function, %r8d
    mov $\mask, %r9d
    mov $\hz, %r10d
    call check_rate
    CHECK "\name", %rax, $1
    .endm
    .macro PIN pin:req, low:req
    mov $IOAPIC, %ebx
    movl $0x11 + 2 * \pin, (%rbx)
    movl $0, 0x10(%rbx)
    movl $0x10 + 2 * \pin, (%rbx)
    movl $\low, 0x10(%rbx)
    .endm
    .macro IS_SET name:req, condition:req
    set\condition %al
    movzbl %al, %eax
    CHECK "\name", %rax, $1
    .endm
    /* The handler of IRQ 8 uses the index register too. */
    .macro RTC_READ register:req
    pushf
    cli
    OUTB 0x70, \register
    in $0x71, %al
    popf
    .endm
    .macro RTC_WRITE register:req, value:req
    pushf
    cli
    OUTB 0x70, \register
    OUTB 0x71, \value
    popf
    .endm

main:
    call enter_long
    BITS64
    mov $APIC, %r15d
    mov $0x20, %ecx
1:
    movl $note, hooks(,%rcx,4)
    inc %ecx
    cmp $0x100, %ecx
    jb 1b
    movl $note_pic, hooks + 4 * PIT_VECTOR
    movl $note_rtc, hooks + 4 * RTC_VECTOR
    movl $note_rtc, hooks + 4 * RTC_PIN_VECTOR
    movl $0x1ff, SVR(%r15)
    movl $0x700, LINT0(%r15) /* ExtINT */
    OUTB 0x20, 0x11
    OUTB 0x21, 0x20
    OUTB 0x21, 4
    OUTB 0x21, 1
    OUTB 0xa0, 0x11
    OUTB 0xa1, 0x28
    OUTB 0xa1, 2
    OUTB 0xa1, 1
    OUTB 0x21, 0xff
    OUTB 0xa1, 0xff
    call calibrate

    /* ---- PIT: counts ---- */
    OUTB 0x43, 0x34
    LOAD_PIT 0, 0
    RATE "PIT, mode 2, against TSC", read_pit, 0xffff, 1193182
    OUTB 0x43, 0xe2
    in $0x40, %al
    and $0x3f, %eax
    CHECK "read back: status", %rax, $0x34
    OUTB 0x43, 0x34
    LOAD_PIT 0, 1000
    xor %r12d, %r12d
    mov $200, %r13d
1:
    call wait_100us
    call read_pit
    dec %eax
    cmp $1000, %eax
    adc $0, %r12d
    dec %r13d
    jnz 1b
    CHECK "mode 2: the count is between 1 and N", %r12, $200
    OUTB 0x43, 0x34
    LOAD_PIT 0, 0
    OUTB 0x43, 0x00
    call wait_3ms
    OUTB 0x43, 0x00
    call read_pit_bytes
    mov %eax, %r12d
    call read_pit
    sub %eax, %r12d
    and $0xffff, %r12d
    cmp $2500, %r12d
    IS_SET "a latched count stays, also behind a second latch", a
    OUTB 0x43, 0xd2 /* read back: count only */
    call wait_3ms
    call read_pit_bytes
    mov %eax, %r12d
    call read_pit
    sub %eax, %r12d
    and $0xffff, %r12d
    cmp $2500, %r12d
    IS_SET "read back latches the count", a
    OUTB 0x43, 0xc2 /* status and count */
    in $0x40, %al
    and $0x3f, %eax
    CHECK "read back of both: status first", %rax, $0x34
    call read_pit_bytes
    OUTB 0x43, 0x14 /* low byte only */
    OUTB 0x40, 100
    call wait_100us
    OUTB 0x43, 0xe2
    in $0x40, %al
    and $0x3f, %eax
    CHECK "status: low byte, mode 2", %rax, $0x14

    /* ---- PIT: interrupts ---- */
    sti
    OUTB 0x43, 0x30
    call pic_irq0_only
    COUNTED PIT_VECTOR
    SILENT "mode 0: nothing before a count", PIT_VECTOR
1:
    call read_tsc
    mov %rax, %r13
    COUNTED PIT_VECTOR
    LOAD_PIT 0, 60000 /* 50 ms */
    OUTB 0x43, 0xe2
    in $0x40, %al
    mov %eax, %r12d
    call read_tsc
    sub %r13, %rax
    cmp $20 * MILLISECOND, %rax /* the host stood still: nothing was shown */
    ja 1b
    COMES "mode 0: IRQ 0", PIT_VECTOR, 1
    test $0x80, %r12b
    IS_SET "mode 0: the output is low meanwhile", z
    OUTB 0x43, 0xe2
    in $0x40, %al
    test $0x80, %al
    IS_SET "mode 0: the output is high afterwards", nz
    SILENT "mode 0: once", PIT_VECTOR
    call read_pit
    mov %eax, %r12d
    call wait_100us
    call read_pit
    cmp %eax, %r12d
    IS_SET "mode 0: the count goes on", ne
    OUTB 0x43, 0x34
    LOAD_PIT 0, 1193
    COMES "mode 2: IRQ 0 again and again", PIT_VECTOR, 5
    OUTB 0x43, 0x36
    LOAD_PIT 0, 1193
    COUNTED PIT_VECTOR
    COMES "mode 3: IRQ 0 again and again", PIT_VECTOR, 5
    OUTB 0x21, 0xff
    movl $0x10700, LINT0(%r15)
    PIN 2, PIN_VECTOR
    COUNTED PIN_VECTOR
    COMES "IRQ 0 is pin 2 of the I/O APIC", PIN_VECTOR, 5
    OUTB 0x43, 0x30
    COUNTED PIN_VECTOR
    LOAD_PIT 0, 2000
    COMES "mode 0 by the I/O APIC", PIN_VECTOR, 1
    SILENT "mode 0 by the I/O APIC: once", PIN_VECTOR
    PIN 2, 0x10000

    /* ---- channel 2 and port 61h ---- */
    OUTB 0x61, 0
    OUTB 0x43, 0xb0
    LOAD_PIT 2, 500
    call wait_3ms
    in $0x61, %al
    test $0x20, %al
    IS_SET "channel 2, mode 0: gate low, it does not count", z
    OUTB 0x61, 1
    call wait_3ms
    in $0x61, %al
    test $0x20, %al
    IS_SET "channel 2, mode 0: gate high, it does", nz
    and $0x0f, %eax
    CHECK "port 61h: bits 0 to 3 read back", %rax, $1
    OUTB 0x61, 0
    OUTB 0x43, 0xb2 /* mode 1 */
    LOAD_PIT 2, 60000
    in $0x61, %al
    test $0x20, %al
    IS_SET "channel 2, mode 1: high before the gate rises", nz
1:
    call read_tsc
    mov %rax, %r13
    OUTB 0x61, 0
    OUTB 0x61, 1 /* each rise starts it anew */
    call wait_100us
    in $0x61, %al
    mov %eax, %r12d
    call read_tsc
    sub %r13, %rax
    cmp $20 * MILLISECOND, %rax
    ja 1b
    test $0x20, %r12b
    IS_SET "channel 2, mode 1: low after it", z
    mov $20, %r12d
1:
    call wait_3ms
    dec %r12d
    jnz 1b
    in $0x61, %al
    test $0x20, %al
    IS_SET "channel 2, mode 1: high in the end", nz
    OUTB 0x43, 0xb6 /* mode 3 */
    LOAD_PIT 2, 2000
    mov $0x20, %r12d
    call port61_toggles
    CHECK "channel 2, mode 3: both levels are seen", %rax, $1
    mov $0x10, %r12d
    call port61_toggles
    CHECK "port 61h: the refresh bit toggles", %rax, $1
    OUTB 0x61, 0

    /* ---- ACPI PM timer ---- */
    RATE "PM timer against TSC", read_pm_timer, 0xffffff, 3579545

    /* ---- HPET ---- */
    mov $HPET, %ebp
    mov 4(%rbp), %eax
    mov %eax, %r12d
    dec %eax
    cmp $100000000, %eax
    IS_SET "HPET: a period of up to 100 ns", b
    movl $0, 0x10(%rbp)
    movl $0x12345678, 0xf0(%rbp)
    movl $1, 0xf4(%rbp)
    call wait_100us
    mov 0xf0(%rbp), %eax
    CHECK "HPET: a halted counter keeps what is written", %rax, $0x12345678
    movl $0, 0xf0(%rbp)
    movl $0, 0xf4(%rbp)
    movl $1, 0x10(%rbp)
    movabs $1000000000000000, %rax
    xor %edx, %edx
    div %r12
    mov %rax, %r10
    mov $read_hpet, %r8d
    mov $-1, %r9d
    call check_rate
    CHECK "HPET against TSC", %rax, $1
    /* timer 0, to the highest pin that it can go to */
    mov 0x104(%rbp), %eax
    bsr %eax, %r12d
    IS_SET "HPET: timer 0 has a pin", nz
    mov %r12d, %eax
    shl $9, %eax
    mov %eax, %r13d
    mov %eax, 0x100(%rbp)
    mov 0x100(%rbp), %eax
    and $0x3e00, %eax
    CHECK "HPET: the pin reads back", %rax, %r13
    mov $IOAPIC, %ebx
    lea 0x11(%r12,%r12), %eax
    mov %eax, (%rbx)
    movl $0, 0x10(%rbx)
    dec %eax
    mov %eax, (%rbx)
    movl $PIN_VECTOR, 0x10(%rbx)
    COUNTED PIN_VECTOR
    movabs $50000000000000, %rax /* 50 ms: the host may stand still before the comparator is written */
    mov 4(%rbp), %ecx
    xor %edx, %edx
    div %rcx
    mov %eax, %r12d
    call hpet_arm
    movl $0, 0x10c(%rbp)
    or $4, %r13d
    mov %r13d, 0x100(%rbp)
    COMES "HPET: one-shot", PIN_VECTOR, 1
    SILENT "HPET: one-shot, once", PIN_VECTOR
    mov 0x20(%rbp), %eax
    and $1, %eax
    CHECK "HPET: no status for an edge", %rax, $0
    mov 0x100(%rbp), %eax
    test $0x10, %al
    jz 2f
    mov %r13d, %eax
    or $0x48, %eax /* periodic, and the next write sets the comparator */
    mov %eax, 0x100(%rbp)
    call hpet_arm
    mov %r12d, %eax
    mov $50, %ecx
    xor %edx, %edx
    div %ecx
    mov %eax, 0x108(%rbp) /* the period: 1 ms */
    COUNTED PIN_VECTOR
    COMES "HPET: periodic", PIN_VECTOR, 5
2:
    movl $0, 0x100(%rbp)
    call wait_100us /* for the last one on its way */
    mov $IOAPIC, %ebx
    mov %r13d, %eax
    shr $9, %eax
    lea 0x10(%rax,%rax), %eax
    mov %eax, (%rbx)
    movl $PIN_VECTOR | 0x8000, 0x10(%rbx)
    movl $note_hpet, hooks + 4 * PIN_VECTOR
    movl $1, 0x20(%rbp)
    COUNTED PIN_VECTOR
    call hpet_arm
    mov %r13d, %eax
    or $2, %eax /* level */
    mov %eax, 0x100(%rbp)
    COMES "HPET: level", PIN_VECTOR, 1
    CHECK "HPET: level: the status bit", hpet_status, $1
    SILENT "HPET: level: its write of 1 ends it", PIN_VECTOR
    movl $note, hooks + 4 * PIN_VECTOR
    movl $0, 0x100(%rbp)
    movl $0x10000, 0x10(%rbx)
    /* legacy replacement: timer 0 is IRQ 0, and the PIT is not */
    mov (%rbp), %eax
    test $0x8000, %eax
    jz 3f
    movl $3, 0x10(%rbp)
    PIN 2, PIN_VECTOR
    OUTB 0x43, 0x34
    LOAD_PIT 0, 1193
    COUNTED PIN_VECTOR
    SILENT "HPET: legacy replacement cuts the PIT off", PIN_VECTOR
    call hpet_arm
    movl $4, 0x100(%rbp)
    COMES "HPET: legacy replacement, timer 0 is pin 2", PIN_VECTOR, 1
    movl $1, 0x10(%rbp)
    COUNTED PIN_VECTOR
    COMES "HPET: without it the PIT is back", PIN_VECTOR, 3
    OUTB 0x43, 0x30
    PIN 2, 0x10000
3:
    movl $0, 0x10(%rbp)

    /* ---- RTC ---- */
    RTC_READ 0x0d
    and $0x80, %eax
    CHECK "RTC: valid RAM and time", %rax, $0x80
    RTC_WRITE 0x0a, 0x26 /* 1024 Hz */
    RTC_WRITE 0x0b, 0x02
    RTC_READ 0x0c
    PIN 8, RTC_PIN_VECTOR
    call wait_3ms
    RTC_READ 0x0c
    and $0xc0, %eax
    CHECK "RTC: the periodic flag without an interrupt", %rax, $0x40
    CHECK "RTC: no interrupt that is not enabled", counts+4*RTC_PIN_VECTOR, $0
    RTC_WRITE 0x0b, 0x42
    COMES "RTC: periodic interrupts", RTC_PIN_VECTOR, 5
    mov rtc_c, %eax
    and $0xc0, %eax
    CHECK "RTC: register C has IRQF and PF", %rax, $0xc0
    movl $note, hooks + 4 * RTC_PIN_VECTOR /* does not read register C */
    COUNTED RTC_PIN_VECTOR
    COMES "RTC: one more that is not answered", RTC_PIN_VECTOR, 1
    SILENT "RTC: no more until register C is read", RTC_PIN_VECTOR
    movl $note_rtc, hooks + 4 * RTC_PIN_VECTOR
    RTC_READ 0x0c
    COUNTED RTC_PIN_VECTOR
    COMES "RTC: reading register C lets it go on", RTC_PIN_VECTOR, 3
    RTC_WRITE 0x0b, 0x02
    RTC_READ 0x0c
    RTC_READ 0x0c
    and $0x80, %eax
    CHECK "RTC: reading register C clears it", %rax, $0
    PIN 8, 0x10000
    movl $0x700, LINT0(%r15)
    OUTB 0x21, 0xfb
    OUTB 0xa1, 0xfe
    COUNTED RTC_VECTOR
    RTC_WRITE 0x0b, 0x42
    COMES "RTC: IRQ 8 by the 8259s", RTC_VECTOR, 3
    /* alarm in any second, and the update */
    RTC_WRITE 1, 0xff
    RTC_WRITE 3, 0xff
    RTC_WRITE 5, 0xff
    RTC_WRITE 0x0b, 0x32
    RTC_READ 0x0c
    COUNTED RTC_VECTOR
    COMES "RTC: update and alarm interrupt", RTC_VECTOR, 1
    mov rtc_c, %eax
    and $0xb0, %eax
    CHECK "RTC: register C has IRQF, AF and UF", %rax, $0xb0
    mov rtc_tsc, %r12
    COMES "RTC: and another", RTC_VECTOR, 2
    mov rtc_tsc, %rax
    sub %r12, %rax
    imul $10, %rax
    xor %edx, %edx
    divq tsc_hz
    cmp $5, %rax /* the handlers' times: nothing exact */
    IS_SET "RTC: about a second later", ae
    RTC_WRITE 0x0b, 0x02
    RTC_READ 0x0c
    OUTB 0x21, 0xff
    OUTB 0xa1, 0xff
    movl $0x10700, LINT0(%r15)

    /* ---- APIC timer ---- */
    movl $0x10000 | APIC_VECTOR, LVT_TIMER(%r15)
    movl $0xb, DIVIDE(%r15)
    movl $-1, INITIAL(%r15)
    mov $0x15, %eax
    cpuid
    mov %ecx, %r10d
    mov $read_apic_timer, %r8d
    mov $-1, %r9d
    call check_rate
    CHECK "APIC timer by 1 runs at the crystal's rate of CPUID 15H", %rax, $1
    movl $3, DIVIDE(%r15) /* by 16 */
    shr $4, %r10d
    call check_rate
    CHECK "APIC timer by 16", %rax, $1
    mov INITIAL(%r15), %eax
    CHECK "APIC timer: the initial count reads back", %rax, $-1
    movl $0xb, DIVIDE(%r15)
    movl $1000, INITIAL(%r15)
    call wait_100us
    mov CURRENT(%r15), %eax
    CHECK "APIC timer, masked one-shot: it ends at 0", %rax, $0
    movl $APIC_VECTOR, LVT_TIMER(%r15)
    SILENT "APIC timer: an end while masked is lost", APIC_VECTOR
    COUNTED APIC_VECTOR
    movl $100000, INITIAL(%r15)
    COMES "APIC timer: one-shot", APIC_VECTOR, 1
    SILENT "APIC timer: one-shot, once", APIC_VECTOR
    movl $20000000, INITIAL(%r15)
    movl $0, INITIAL(%r15)
    mov CURRENT(%r15), %eax
    CHECK "APIC timer: an initial count of 0 stops it", %rax, $0
    movl $0x20000 | APIC_VECTOR, LVT_TIMER(%r15)
    COUNTED APIC_VECTOR
    movl $100000, INITIAL(%r15)
    COMES "APIC timer: periodic", APIC_VECTOR, 5
    xor %r12d, %r12d
    mov $1000, %ecx
1:
    mov CURRENT(%r15), %eax
    dec %eax
    cmp $100000, %eax
    adc $-1, %r12d
    loop 1b
    CHECK "APIC timer: periodic, the count is between 1 and the initial one", %r12, $0
    movl $0, INITIAL(%r15)
    SILENT "APIC timer: periodic, stopped", APIC_VECTOR
    /* TSC deadline */
    mov $1, %eax
    cpuid
    bt $24, %ecx
    jnc 9f
    movl $20000000, INITIAL(%r15)
    movl $0x40000 | APIC_VECTOR, LVT_TIMER(%r15)
    mov CURRENT(%r15), %eax
    CHECK "TSC deadline: the current count is 0", %rax, $0
    movl $1000, INITIAL(%r15)
    COUNTED APIC_VECTOR
    SILENT "TSC deadline: a write of the initial count is ignored", APIC_VECTOR
    call deadline_in_1ms
    COMES "TSC deadline: an interrupt", APIC_VECTOR, 1
    mov note_tsc, %rax
    cmp deadline, %rax
    IS_SET "TSC deadline: not before", ae
    call read_deadline
    CHECK "TSC deadline: it reads 0 afterwards", %rax, $0
    SILENT "TSC deadline: once", APIC_VECTOR
    COUNTED APIC_VECTOR
    mov $1, %eax
    xor %edx, %edx
    mov $0x6e0, %ecx
    wrmsr
    COMES "TSC deadline in the past: at once", APIC_VECTOR, 1
1:
    mov $20 * MILLISECOND, %r12d
    call deadline_in
    call read_deadline
    mov %rax, %r13
    xor %eax, %eax
    xor %edx, %edx
    mov $0x6e0, %ecx
    wrmsr
    call read_tsc
    cmp deadline, %rax
    jae 1b
    cmp deadline, %r13
    IS_SET "TSC deadline: it reads back", e
    call read_deadline
    CHECK "TSC deadline: 0 disarms it", %rax, $0
    COUNTED APIC_VECTOR
    mov $10, %r12d
1:
    call wait_3ms
    dec %r12d
    jnz 1b
    CHECK "TSC deadline: a disarmed one does not come", counts+4*APIC_VECTOR, $0
    movabs $1000000000000, %r12
    call deadline_in
    movl $APIC_VECTOR, LVT_TIMER(%r15)
    movl $0x40000 | APIC_VECTOR, LVT_TIMER(%r15)
    call read_deadline
    CHECK "TSC deadline: a change of mode disarms it", %rax, $0
    movabs $1000000000000, %r12
    call deadline_in
    mov $0x3b, %ecx /* TSC_ADJUST */
    rdmsr
    add $0x1000, %edx
    wrmsr
    COMES "TSC deadline: it comes when the counter is moved over it", APIC_VECTOR, 1
    movl $0x10000, LVT_TIMER(%r15)
9:
    cli
    jmp finish64

/* ---- interrupts ---- */

note:
    lock incl counts(,%rax,4)
    rdtsc
    mov %eax, note_tsc
    mov %edx, note_tsc + 4
    mov $APIC + EOI, %ecx
    movl $0, (%rcx)
    ret
note_pic:
    lock incl counts(,%rax,4)
    mov $0x20, %al
    out %al, $0x20
    ret
note_rtc:
    lock incl counts(,%rax,4)
    mov %eax, %ecx
    OUTB 0x70, 0x0c
    in $0x71, %al
    movzbl %al, %eax
    mov %eax, rtc_c
    rdtsc
    mov %eax, rtc_tsc
    mov %edx, rtc_tsc + 4
    cmp $RTC_VECTOR, %ecx
    je 1f
    mov $APIC + EOI, %ecx
    movl $0, (%rcx)
    ret
1:
    mov $0x20, %al
    out %al, $0xa0
    out %al, $0x20
    ret
note_hpet:
    lock incl counts(,%rax,4)
    mov $HPET, %ecx
    mov 0x20(%rcx), %eax
    mov %eax, hpet_status
    movl $1, 0x20(%rcx)
    mov $APIC + EOI, %ecx
    movl $0, (%rcx)
    ret
pic_irq0_only:
    OUTB 0x21, 0xfe
    ret

/* ---- clocks ---- */

read_pit:
    OUTB 0x43, 0
read_pit_bytes:
    in $0x40, %al
    movzbl %al, %edx
    in $0x40, %al
    movzbl %al, %eax
    shl $8, %eax
    or %edx, %eax
    ret
read_pm_timer:
    mov $PM_TIMER, %edx
    in %dx, %eax
    ret
read_hpet:
    mov 0xf0(%rbp), %eax
    ret
read_apic_timer:
    mov CURRENT(%r15), %eax
    ret
read_tsc:
    rdtsc
    shl $32, %rdx
    or %rdx, %rax
    ret
hpet_arm: /* timer 0, R12D ticks from now */
    mov 0xf0(%rbp), %eax
    add %r12d, %eax
    mov %eax, 0x108(%rbp)
    ret

/*
 * The clock of function R8 at some time: EAX, and the time: RSI. The readings of the counter
 * around it are no more than 0.1 ms apart.
 */
sample:
    call read_tsc
    mov %rax, %rsi
    call *%r8
    mov %eax, %edi
    call read_tsc
    sub %rsi, %rax
    cmp $MILLISECOND / 10, %rax
    ja sample
    mov %edi, %eax
    ret

/* Calibrate TSC by the PM timer; CPUID 15H must say the same. */
calibrate:
    mov $read_pm_timer, %r8d
    mov $0xffffff, %r9d
    call measure
    imul $3579545, %rsi, %rax
    xor %edx, %edx
    div %r12
    mov %rax, tsc_hz
    mov $0x15, %eax
    cpuid
    test %ecx, %ecx
    jz 1f
    mov %eax, %esi
    mov %ebx, %eax
    imul %rcx, %rax
    xor %edx, %edx
    div %rsi
    mov tsc_hz, %rcx
    mov %rax, tsc_hz
    imul $100, %rcx, %rcx
    xchg %rax, %rcx
    xor %edx, %edx
    div %rcx
    sub $97, %eax
    cmp $7, %eax
    IS_SET "TSC runs at the rate of CPUID 15H, by the PM timer", b
1:
    ret
/* Ticks of the clock in RSI's ticks of TSC: R12, modulo mask R9; it may count either way. */
measure:
    call sample
    mov %eax, %r12d
    mov %rsi, %r13
    lea 25 * MILLISECOND(%rsi), %r11
1:
    pause
    call read_tsc
    cmp %r11, %rax
    jb 1b
    call sample
    sub %r13, %rsi
    sub %r12d, %eax
    mov %eax, %r12d
    and %r9d, %r12d
    neg %eax
    and %r9d, %eax
    cmp %eax, %r12d
    jb 2f
    mov %eax, %r12d
2:
    ret
/* RAX: is the rate R10 Hz, give or take 3%? Tried again for hosts that stand still for a wrap. */
check_rate:
    mov $10, %r14d
1:
    call measure
    mov %rsi, %rax
    mul %r10 /* expected ticks * tsc_hz */
    divq tsc_hz
    mov %rax, %rcx
    sub %r12, %rax
    jae 2f
    neg %rax
2:
    imul $33, %rax, %rax
    cmp %rcx, %rax
    mov $1, %eax
    jbe 3f
    dec %r14d
    jnz 1b
    xor %eax, %eax
3:
    ret

wait_100us:
    mov $MILLISECOND / 10, %ecx
    jmp 1f
wait_3ms:
    mov $3 * MILLISECOND, %ecx
1:
    call read_tsc
    lea (%rax,%rcx), %rcx
2:
    pause
    call read_tsc
    cmp %rcx, %rax
    jb 2b
    ret
/* Until the count at RDI is at least ESI: RAX 1; 0 after five seconds. */
wait_for:
    call read_tsc
    movabs $5000 * MILLISECOND, %rcx
    add %rax, %rcx
1:
    mov $1, %eax
    cmp %esi, (%rdi)
    jae 2f
    pause
    call read_tsc
    cmp %rcx, %rax
    jb 1b
    xor %eax, %eax
2:
    ret
/* Are both levels of bit R12B of port 61h seen? */
port61_toggles:
    call read_tsc
    lea 2000 * MILLISECOND(%rax), %rcx
    xor %esi, %esi
1:
    in $0x61, %al
    test %r12b, %al
    jz 2f
    or $1, %esi
    jmp 3f
2:
    or $2, %esi
3:
    cmp $3, %esi
    mov $1, %eax
    je 4f
    call read_tsc
    cmp %rcx, %rax
    jb 1b
    xor %eax, %eax
4:
    ret

deadline_in_1ms:
    mov $MILLISECOND, %r12d
deadline_in:
    call read_tsc
    add %r12, %rax
    mov %rax, deadline
    mov %rax, %rdx
    shr $32, %rdx
    mov $0x6e0, %ecx
    wrmsr
    ret
read_deadline:
    mov $0x6e0, %ecx
    rdmsr
    shl $32, %rdx
    or %rdx, %rax
    ret
    BITS32

    .data
    .align 8
tsc_hz: .quad 0
rtc_tsc: .quad 0
note_tsc: .quad 0
deadline: .quad 0
rtc_c: .quad 0
hpet_status: .quad 0
counts: .fill 256, 4, 0
    .text
