/*
 * interrupts.S - 8259 pair, I/O APIC, local APIC in both modes, shadows, NMI, HLT
 *
 * Intel 8259A data sheet (231468), 82093AA data sheet (290566), SDM vol. 3, chapter 11 (APIC) and
 * 6.7, 6.8 (NMI, masking). Sources that the test controls: IRQ 0 by the initial level of the
 * PIT's output, 1 and 12 by the keyboard controller's "write output buffer", 4 by the UART's
 * empty transmitter, 8 by the RTC. Every interrupt is appended to seen, a byte each.
 */
#include "runtime.inc"
#define IOAPIC 0xfec00000
#define APIC_ID 0x20
#define TPR 0x80
#define PPR 0xa0
#define EOI 0xb0
#define LDR 0xd0
#define DFR 0xe0
#define SVR 0xf0
#define ISR 0x100
#define TMR 0x180
#define IRR 0x200
#define ESR 0x280
#define ICR 0x300
#define LVT_TIMER 0x320
#define LINT0 0x350
#define LINT1 0x360
#define NO_EOI 0
#define PIC_EOI 1
#define APIC_EOI 2
#define X2APIC_EOI 3

    .macro OUTB port:req, value:req
    mov $\value, %al
    .if \port < 0x100
    out %al, $\port
    .else
    mov $\port, %dx
    out %al, %dx
    .endif
    .endm
    /* Let interrupts in for a while; then what came since the last time. */
    .macro SEEN name:req, want:req
    call let_in
    CHECK "\name", seen, $\want
    movl $0, seen
    .endm
    .macro PIC_SEES name:req, port:req, command:req, want:req
    OUTB \port, \command
    in $\port, %al
    movzbl %al, %eax
    CHECK "\name", %eax, $\want
    .endm
    /* A bit of ISR, IRR or TMR. */
    .macro APIC_BIT name:req, register:req, vector:req, want:req
    mov APIC + \register + \vector / 32 * 16, %eax
    shr $\vector % 32, %eax
    and $1, %eax
    CHECK "\name", %eax, $\want
    .endm
    .macro SELF vector:req
    .if bits == 64
    movl $0x44000 | \vector, ICR(%r15) /* disp32 is signed */
    .else
    movl $0x44000 | \vector, APIC + ICR
    .endif
    .endm
    /* Pin \pin of the I/O APIC; number of its entry's lower half is 10H + 2 * pin. */
    .macro PIN pin:req, high:req, low:req
    movl $0x11 + 2 * \pin, IOAPIC
    movl $\high, IOAPIC + 0x10
    movl $0x10 + 2 * \pin, IOAPIC
    movl $\low, IOAPIC + 0x10
    .endm
    .macro PIN_IS name:req, pin:req, mask:req, want:req
    movl $0x10 + 2 * \pin, IOAPIC
    mov IOAPIC + 0x10, %eax
    and $\mask, %eax
    CHECK "\name", %eax, $\want
    .endm
    .macro EOI_BY how:req
    movl $\how, eoi
    .endm
    .macro HOOK vector:req, function:req
    movl $\function, hooks + 4 * \vector
    .endm

main:
    mov $0x20, %ecx
1:
    movl $note, hooks(,%ecx,4)
    inc %ecx
    cmp $0x100, %ecx
    jb 1b
    movl $0x1ff, APIC + SVR
    movl $0x700, APIC + LINT0 /* ExtINT */
    movl $0x400, APIC + LINT1
    call keyboard_on
    call pics_on

    /* ---- 8259 ---- */
    in $0x21, %al
    movzbl %al, %eax
    CHECK "ICW1 clears the masks", %eax, $0
    OUTB 0x21, 0xff
    OUTB 0xa1, 0xff
    in $0x21, %al
    movzbl %al, %eax
    CHECK "masks read back", %eax, $0xff
    call lower_keyboard
    call raise_keyboard
    SEEN "a masked input does nothing", 0
    PIC_SEES "but it requests", 0x20, 0x0a, 2
    OUTB 0x21, 0xf8
    OUTB 0xa1, 0xee
    SEEN "unmasked: IRQ 1 is base + 1", 0x21
    PIC_SEES "in service", 0x20, 0x0b, 2
    PIC_SEES "an edge that was acknowledged requests no more", 0x20, 0x0a, 0
    SEEN "in service: not again", 0
    call raise_rtc
    SEEN "a lower priority waits", 0
    PIC_SEES "it requests through the cascade", 0x20, 0x0a, 4
    PIC_SEES "and at the slave", 0xa0, 0x0a, 1
    call raise_timer
    SEEN "a higher priority comes through", 0x20
    PIC_SEES "two are in service", 0x20, 0x0b, 3
    OUTB 0x20, 0x20
    PIC_SEES "EOI ends the higher", 0x20, 0x0b, 2
    SEEN "the lower still waits", 0
    OUTB 0x20, 0x20
    SEEN "EOI lets the lower in", 0x28
    PIC_SEES "in service at the master", 0x20, 0x0b, 4
    PIC_SEES "in service at the slave", 0xa0, 0x0b, 1
    OUTB 0x20, 0x20
    call lower_keyboard
    call raise_mouse
    SEEN "the slave keeps what is lower than its own", 0
    OUTB 0xa0, 0x20
    SEEN "EOI at the slave lets it in", 0x2c
    call raise_timer
    SEEN "IRQ 0 during IRQ 12", 0x20
    PIC_SEES "both in service", 0x20, 0x0b, 5
    OUTB 0x20, 0x62
    PIC_SEES "a specific EOI ends the one it names", 0x20, 0x0b, 1
    OUTB 0x20, 0x60
    PIC_SEES "and another", 0x20, 0x0b, 0
    OUTB 0xa0, 0x64
    PIC_SEES "specific EOI at the slave", 0xa0, 0x0b, 0
    call lower_keyboard

    EOI_BY PIC_EOI
    call raise_rtc
    call raise_mouse
    call raise_timer
    SEEN "pending together: by priority", 0x20282c
    call lower_keyboard
    call raise_keyboard
    call raise_rtc
    call raise_timer
    SEEN "pending together, with IRQ 1", 0x202128
    call lower_keyboard
    EOI_BY NO_EOI

    /* without service */
    OUTB 0x20, 0x0c
    in $0x20, %al
    and $0x80, %eax
    CHECK "poll: nothing", %eax, $0
    call raise_keyboard
    OUTB 0x20, 0x0c
    in $0x20, %al
    and $0x87, %eax
    CHECK "poll: IRQ 1", %eax, $0x81
    SEEN "a polled interrupt was acknowledged", 0
    PIC_SEES "poll: in service", 0x20, 0x0b, 2
    OUTB 0x21, 0xfa /* IRQ 1 masked */
    OUTB 0x20, 0x68
    call raise_rtc
    SEEN "special mask mode: a masked one in service holds nothing up", 0x28
    OUTB 0x20, 0x48
    OUTB 0x20, 0x62
    OUTB 0xa0, 0x20
    OUTB 0x20, 0x61
    PIC_SEES "all ended", 0x20, 0x0b, 0
    call lower_keyboard
    OUTB 0x21, 0xf8
    OUTB 0x20, 0xc1 /* IRQ 1 is lowest, IRQ 2 highest */
    call raise_keyboard
    call raise_rtc
    call raise_timer
    SEEN "rotated: the cascade is highest", 0x28
    OUTB 0xa0, 0x20
    OUTB 0x20, 0x20
    SEEN "rotated: then IRQ 0", 0x20
    OUTB 0x20, 0x20
    SEEN "rotated: IRQ 1 comes last", 0x21
    OUTB 0x20, 0xa0 /* EOI; what was in service becomes lowest */
    call raise_timer
    call lower_keyboard
    call raise_keyboard
    SEEN "rotation on EOI: IRQ 1 is after IRQ 0", 0x20
    OUTB 0x20, 0x20
    SEEN "rotation on EOI: IRQ 1", 0x21
    OUTB 0x20, 0x20
    OUTB 0x20, 0xc7
    call lower_keyboard

    /* automatic EOI; a base whose low bits do not count */
    OUTB 0x20, 0x11
    OUTB 0x21, 0x37
    OUTB 0x21, 4
    OUTB 0x21, 3
    OUTB 0x21, 0xf8
    call raise_keyboard
    SEEN "automatic EOI: IRQ 1 at another base", 0x31
    PIC_SEES "automatic EOI: nothing in service", 0x20, 0x0b, 0
    call lower_keyboard
    call pics_on
    OUTB 0x21, 0xf8
    OUTB 0xa1, 0xee

    /* edge and level */
    OUTB 0x4d0, 0xff
    in %dx, %al
    movzbl %al, %eax
    CHECK "ELCR: IRQ 0 to 2 are edges", %eax, $0xf8
    OUTB 0x4d1, 0xff
    in %dx, %al
    movzbl %al, %eax
    CHECK "ELCR: IRQ 8 and 13 are edges", %eax, $0xde
    OUTB 0x4d1, 0
    OUTB 0x4d0, 0
    OUTB 0x21, 0xe8
    call raise_uart
    call let_in
    OUTB 0x20, 0x20
    call let_in
    call lower_uart
    SEEN "IRQ 4 by edge: once", 0x24
    OUTB 0x4d0, 0x10
    call raise_uart
    call let_in
    OUTB 0x20, 0x20
    call let_in
    call lower_uart
    OUTB 0x20, 0x20
    SEEN "IRQ 4 by level: again after the EOI, until it falls", 0x2424
    call raise_uart
    call lower_uart
    SEEN "IRQ 4 by level: not when it fell before", 0
    OUTB 0x4d0, 0
    OUTB 0x21, 0xf8

    /* ---- IF, shadows, HLT ---- */
    EOI_BY PIC_EOI
    call raise_timer
    sti
    nop
shadow_end:
    nop
    cli
    CHECK "STI: one more instruction runs", last_ip, $shadow_end
    call raise_timer
    sti
    cli
    nop
    CHECK "STI, CLI lets nothing in", seen, $0x20
    sti
    nop
    cli
    OUTB 0x20, 0x0a
    call nothing
    call nothing
    movl $0, seen
    call raise_timer
    sti
    call nothing /* whose code has run before */
    cli
    CHECK "STI, CALL: at the called function", last_ip, $nothing
    call raise_timer
    push $0x202
    popf
popf_end:
    nop
    cli
    CHECK "POPF with IF: at once", last_ip, $popf_end
    call raise_timer
    push $0x202
    push $CODE32
    push $iret_end
    iret
iret_end:
    nop
    cli
    CHECK "IRET with IF: at once", last_ip, $iret_end
    call raise_timer
    sti
    hlt
hlt_end:
    cli
    CHECK "STI, HLT with an interrupt pending: it ends the HLT", last_ip, $hlt_end
    movl $0, seen
    OUTB 0x43, 0x30
    OUTB 0x40, 0x00
    OUTB 0x40, 0x20 /* 7 ms */
    sti
    hlt
hlt_wait_end:
    cli
    CHECK "HLT waits for an interrupt", seen, $0x20
    CHECK "and goes on behind it", last_ip, $hlt_wait_end
    movl $0, seen
    EOI_BY NO_EOI

    /* ---- ExtINT ---- */
    movl $0x10700, APIC + LINT0
    call raise_timer
    SEEN "LINT0 masked: the 8259 is not heard", 0
    movl $0xff, APIC + TPR
    movl $0x700, APIC + LINT0
    SEEN "LINT0 as ExtINT: the 8259's vector, whatever the TPR", 0x20
    movl $0, APIC + TPR
    APIC_BIT "ExtINT is not in service in the APIC", ISR, 0x20, 0
    OUTB 0x20, 0x20
    OUTB 0x21, 0xff
    OUTB 0xa1, 0xff
    movl $0x10700, APIC + LINT0

    /* ---- local APIC ---- */
    SELF 0x50
    APIC_BIT "a self-IPI requests", IRR, 0x50, 1
    APIC_BIT "and is not in service before it is taken", ISR, 0x50, 0
    SEEN "self-IPI", 0x50
    APIC_BIT "then it is in service", ISR, 0x50, 1
    APIC_BIT "and requests no more", IRR, 0x50, 0
    APIC_BIT "an IPI is an edge", TMR, 0x50, 0
    mov APIC + PPR, %eax
    CHECK "PPR is the class in service", %eax, $0x50
    SELF 0x51
    SEEN "the same class waits", 0
    SELF 0x4f
    SEEN "a lower class waits", 0
    SELF 0x60
    SEEN "a higher class comes through", 0x60
    movl $0, APIC + EOI
    APIC_BIT "EOI ends the higher", ISR, 0x60, 0
    APIC_BIT "EOI leaves the lower", ISR, 0x50, 1
    EOI_BY APIC_EOI
    movl $0, APIC + EOI
    SEEN "the others follow by priority", 0x514f
    SELF 0x50
    SELF 0x50
    SELF 0xf0
    SELF 0x31
    SEEN "pending together: by priority, each once", 0xf05031
    movl $0x80, APIC + TPR
    SELF 0x8f
    SEEN "TPR: its class waits", 0
    mov APIC + PPR, %eax
    CHECK "TPR shows in the PPR", %eax, $0x80
    SELF 0x90
    SEEN "TPR: a higher class comes through", 0x90
    movl $0x7f, APIC + TPR
    SEEN "TPR lowered", 0x8f
    movl $0, APIC + TPR
    /* destinations */
    mov APIC + APIC_ID, %eax
    CHECK "APIC identifier", %eax, $0
    movl $0, APIC + ICR + 0x10
    movl $0x4052, APIC + ICR
    SEEN "physical destination", 0x52
    movl $0x5000000, APIC + ICR + 0x10
    movl $0x4053, APIC + ICR
    SEEN "physical destination of nobody", 0
    movl $0xff000000, APIC + ICR + 0x10
    movl $0x4054, APIC + ICR
    SEEN "physical broadcast", 0x54
    movl $0xffffffff, APIC + DFR
    movl $0x04000000, APIC + LDR
    movl $0x06000000, APIC + ICR + 0x10
    movl $0x4855, APIC + ICR
    SEEN "logical destination, flat", 0x55
    movl $0x02000000, APIC + ICR + 0x10
    movl $0x4856, APIC + ICR
    SEEN "logical destination, flat, of nobody", 0
    movl $0x0fffffff, APIC + DFR
    movl $0x31000000, APIC + LDR
    movl $0x33000000, APIC + ICR + 0x10
    movl $0x4857, APIC + ICR
    SEEN "logical destination, cluster", 0x57
    movl $0x21000000, APIC + ICR + 0x10
    movl $0x4858, APIC + ICR
    SEEN "logical destination, another cluster", 0
    movl $0xffffffff, APIC + DFR
    movl $0x84059, APIC + ICR
    SEEN "all including self", 0x59
    movl $0xc405a, APIC + ICR
    SEEN "all but self", 0
    movl $0, APIC + ESR
    movl $0, APIC + ESR
    SELF 5
    movl $0, APIC + ESR
    mov APIC + ESR, %eax
    and $0x60, %eax
    setnz %al
    movzbl %al, %eax
    CHECK "ESR: an illegal vector", %eax, $1
    movl $0, APIC + ESR
    mov APIC + ESR, %eax
    CHECK "ESR: a write shows what is new", %eax, $0
    /* software disable */
    movl $0x20035, APIC + LVT_TIMER
    movl $0xff, APIC + SVR
    mov APIC + LVT_TIMER, %eax
    CHECK "software-disabled: the LVT is masked", %eax, $0x30035
    movl $0x35, APIC + LVT_TIMER
    mov APIC + LVT_TIMER, %eax
    CHECK "software-disabled: the LVT cannot be unmasked", %eax, $0x10035
    SELF 0x5b
    SEEN "software-disabled: no IPI", 0
    movl $0x1ff, APIC + SVR
    SEEN "it was not kept", 0
    mov APIC + LVT_TIMER, %eax
    CHECK "enabled: the LVT stays masked", %eax, $0x10035
    /* through LINT0 as a fixed interrupt: the 8259's output is an input like any other */
    OUTB 0x21, 0xfd
    movl $0x62, APIC + LINT0
    call raise_keyboard
    SEEN "LINT0 as fixed", 0x62
    movl $0x10700, APIC + LINT0
    OUTB 0x20, 0x0c
    in $0x20, %al
    OUTB 0x20, 0x20
    OUTB 0x21, 0xff
    call lower_keyboard

    /* ---- NMI ---- */
    HOOK 2, nmi_plain
    movl $0, APIC + ICR + 0x10
    movl $0x4400, APIC + ICR
    call settle /* an IPI takes its time */
    CHECK "NMI comes with IF clear", nmi_count, $1
    movl $0, nmi_count
    HOOK 2, nmi_nested
    movl $0x4400, APIC + ICR
    call settle
    CHECK "NMIs during an NMI are one, after its IRET", nmi_count, $2
    CHECK "NMI is blocked until IRET", nmi_depth_most, $1
    movl $0, nmi_count
    movl $0, nmi_depth_most
    HOOK 2, nmi_iret
    movl $0x4400, APIC + ICR
    call settle
    CHECK "an IRET inside the handler lets the next NMI in: count", nmi_count, $2
    CHECK "an IRET inside the handler lets the next NMI in: depth", nmi_depth_most, $2
    movl $0, seen
    HOOK 2, nmi_plain
    movl $0, nmi_count

    /* ---- I/O APIC ---- */
    movl $1, IOAPIC
    mov IOAPIC + 0x10, %eax
    and $0xff0000, %eax
    CHECK "I/O APIC: 24 pins", %eax, $0x170000
    PIN_IS "a pin is masked after reset", 5, 0x10000, 0x10000
    PIN 1, 0, 0x61
    call raise_keyboard
    SEEN "an edge", 0x61
    SEEN "an edge comes once", 0
    call lower_keyboard
    call raise_keyboard
    SEEN "another edge", 0x61
    call lower_keyboard
    APIC_BIT "an edge: TMR", TMR, 0x61, 0
    PIN 1, 0, 0x10061
    call raise_keyboard
    PIN 1, 0, 0x61
    SEEN "an edge at a masked pin is lost", 0
    call lower_keyboard
    PIN 1, 0x5000000, 0x61
    call raise_keyboard
    SEEN "destination of nobody", 0
    call lower_keyboard
    movl $0x02000000, APIC + LDR
    PIN 1, 0x02000000, 0x861
    call raise_keyboard
    SEEN "logical destination", 0x61
    call lower_keyboard
    PIN 1, 0, 0x161
    call raise_keyboard
    SEEN "lowest priority", 0x61
    call lower_keyboard
    PIN 1, 0, 0x400
    call raise_keyboard
    call settle
    CHECK "NMI from a pin", nmi_count, $1
    call lower_keyboard
    PIN 1, 0, 0x10000
    /* level */
    EOI_BY NO_EOI
    PIN 4, 0, 0x8064
    call raise_uart
    call let_in
    call let_in
    call take_pin_4
    call lower_uart
    SEEN "level: once until the EOI", 0x64
    CHECK "level: remote IRR", pin_4, $0x4000
    APIC_BIT "level: TMR", TMR, 0x64, 1
    movl $0, APIC + EOI
    PIN_IS "EOI clears remote IRR", 4, 0x4000, 0
    SEEN "level: nothing after it fell", 0
    call raise_uart
    call let_in
    movl $0, APIC + EOI
    call let_in
    call lower_uart
    movl $0, APIC + EOI
    SEEN "level: again after the EOI while it is high", 0x6464
    PIN 4, 0, 0x18064
    call raise_uart
    call let_in
    mov seen, %esi
    PIN 4, 0, 0x8064
    call let_in
    call lower_uart
    CHECK "level, masked: nothing", %esi, $0
    SEEN "level, unmasked while it is high", 0x64
    movl $0, APIC + EOI
    PIN 4, 0, 0x10000
    EOI_BY APIC_EOI
    /* HLT with IF clear: the timer as NMI */
    movl $0, nmi_count
    PIN 2, 0, 0x400
    OUTB 0x43, 0x30
    OUTB 0x40, 0x00
    OUTB 0x40, 0x20
    hlt
    CHECK "an NMI ends HLT with IF clear", nmi_count, $1
    PIN 2, 0, 0x10000

    /* ---- x2APIC mode ---- */
    SET_MSR 0x1b, 0, 0xfee00d00
    EOI_BY X2APIC_EOI
    mov $0x802, %ecx
    rdmsr
    CHECK "x2APIC: identifier", %eax, $0
    mov $0x80d, %ecx
    rdmsr
    CHECK "x2APIC: logical identifier", %eax, $1
    SET_MSR 0x83f, 0, 0x71
    mov $0x823, %ecx
    rdmsr
    CHECK "x2APIC: SELF IPI requests", %eax, $(1<<17)
    SEEN "x2APIC: SELF IPI", 0x71
    SET_MSR 0x830, 0, 0x44072
    SEEN "x2APIC: ICR to self", 0x72
    SET_MSR 0x830, 0, 0x4073
    SEEN "x2APIC: ICR, physical", 0x73
    SET_MSR 0x830, 5, 0x4074
    SEEN "x2APIC: ICR, physical, nobody", 0
    SET_MSR 0x830, 1, 0x4875
    SEEN "x2APIC: ICR, logical", 0x75
    SET_MSR 0x830, 0x10001, 0x4876
    SEEN "x2APIC: ICR, logical, another cluster", 0
    SET_MSR 0x830, 0xffffffff, 0x4077
    SEEN "x2APIC: ICR, broadcast", 0x77
    SET_MSR 0x808, 0, 0x70
    SET_MSR 0x83f, 0, 0x78
    SEEN "x2APIC: TPR", 0
    mov $0x80a, %ecx
    rdmsr
    CHECK "x2APIC: PPR", %eax, $0x70
    SET_MSR 0x808, 0, 0
    SEEN "x2APIC: TPR lowered", 0x78
    SET_MSR 0x1b, 0, 0xfee00100
    SET_MSR 0x1b, 0, 0xfee00900
    movl $0x1ff, APIC + SVR
    EOI_BY APIC_EOI

    /* ---- CR8 ---- */
    call enter_long
    BITS64
    mov $APIC, %r15d
    mov $0x20, %ecx
1:
    movl $note64, hooks(,%rcx,4)
    inc %ecx
    cmp $0x100, %ecx
    jb 1b
    mov $9, %eax
    mov %rax, %cr8
    mov TPR(%r15), %eax
    CHECK "CR8 is the TPR's upper half", %rax, $0x90
    movl $0x7f, TPR(%r15)
    mov %cr8, %rax
    CHECK "the TPR's upper half is CR8", %rax, $7
    mov $9, %eax
    mov %rax, %cr8
    SELF 0x9f
    SELF 0xa0
    sti
    nop
    nop
    CHECK "CR8: a higher class comes through, its own waits", seen, $0xa0
    mov $8, %eax
    mov %rax, %cr8
cr8_end:
    nop
    cli
    CHECK "CR8 lowered: the other follows", seen, $0xa09f
    CHECK "CR8 lowered: at once", last_ip, $cr8_end
    mov $15, %eax
    mov %rax, %cr8
    movl $0, seen
    SELF 0xff
    sti
    nop
    nop
    cli
    CHECK "CR8 of 15 keeps everything out", seen, $0
    xor %eax, %eax
    mov %rax, %cr8
    jmp finish64

note64:
    shll $8, seen
    or %eax, seen
    mov 16(%rbx), %rax
    mov %eax, last_ip
    movl $0, EOI(%r15)
    ret

    BITS32
note:
    shll $8, seen
    or %eax, seen
    mov 8(%ebx), %edx
    mov %edx, last_ip
    cmpl $PIC_EOI, eoi
    je 1f
    cmpl $APIC_EOI, eoi
    je 2f
    cmpl $X2APIC_EOI, eoi
    je 3f
    ret
1:
    cmp $0x28, %eax
    mov $0x20, %al
    jb 4f
    out %al, $0xa0
4:
    out %al, $0x20
    ret
2:
    movl $0, APIC + EOI
    ret
3:
    SET_MSR 0x80b, 0, 0
    ret

nmi_plain:
    incl nmi_count
    ret
    .macro NMI_ENTER
    incl nmi_count
    incl nmi_depth
    mov nmi_depth, %eax
    cmp nmi_depth_most, %eax
    jbe 7781f
    mov %eax, nmi_depth_most
7781:
    .endm
nmi_nested:
    NMI_ENTER
    cmpl $1, nmi_count
    jne 1f
    movl $0x4400, APIC + ICR
    movl $0x4400, APIC + ICR
    call settle
1:
    decl nmi_depth
    ret
nmi_iret:
    NMI_ENTER
    cmpl $1, nmi_count
    jne 1f
    movl $0x4400, APIC + ICR
    call settle
    int $0x90
    call settle
1:
    decl nmi_depth
    ret

let_in:
    sti
    call settle
    cli
    ret
nothing:
    ret
settle:
    mov $2000, %ecx
1:
    pause
    loop 1b
    ret
take_pin_4: /* without printing: the UART is the source */
    movl $0x10 + 2 * 4, IOAPIC
    mov IOAPIC + 0x10, %eax
    and $0x4000, %eax
    mov %eax, pin_4
    ret

pics_on:
    OUTB 0x20, 0x11
    OUTB 0x21, 0x20
    OUTB 0x21, 0x04
    OUTB 0x21, 0x01
    OUTB 0xa0, 0x11
    OUTB 0xa1, 0x28
    OUTB 0xa1, 0x02
    OUTB 0xa1, 0x01
    ret

/* Mode 0 makes the output low, mode 2 high. */
raise_timer:
    OUTB 0x43, 0x30
    OUTB 0x43, 0x34
    ret

keyboard_ready:
    in $0x64, %al
    test $2, %al
    jnz keyboard_ready
    ret
keyboard_on:
    call lower_keyboard
    call keyboard_ready
    OUTB 0x64, 0x60
    call keyboard_ready
    OUTB 0x60, 0x03 /* both interrupts */
    ret
raise_keyboard:
    call keyboard_ready
    OUTB 0x64, 0xd2
    call keyboard_ready
    OUTB 0x60, 0x1e
    ret
raise_mouse:
    call keyboard_ready
    OUTB 0x64, 0xd3
    call keyboard_ready
    OUTB 0x60, 0x08
    ret
lower_keyboard:
    in $0x60, %al
    in $0x64, %al
    test $1, %al
    jnz lower_keyboard
    ret

raise_uart:
    OUTB 0x3fc, 0x08
    OUTB 0x3f9, 0x02
    ret
lower_uart:
    OUTB 0x3f9, 0
    ret

/* An edge of IRQ 8: the periodic flag, then its interrupt is enabled until the slave has it. */
raise_rtc:
    OUTB 0x70, 0x0c
    in $0x71, %al
    OUTB 0x70, 0x0b
    OUTB 0x71, 0x42
1:
    OUTB 0xa0, 0x0a
    in $0xa0, %al
    test $1, %al
    jz 1b
    OUTB 0x70, 0x0b
    OUTB 0x71, 0x02
    OUTB 0x70, 0x0c
    in $0x71, %al
    ret

    .data
    .align 8
seen: .quad 0
last_ip: .quad 0
eoi: .quad 0
nmi_count: .long 0
nmi_depth: .long 0
nmi_depth_most: .long 0
pin_4: .long 0
    .text
