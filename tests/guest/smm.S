/*
 * smm.S - System Management Mode: SMIs, what a handler finds, RSM, SMRAM and its locks
 *
 * SDM vol. 3, chapter 32; APM vol. 2, table 10-1 for the save area; Intel 82Q35 MCH, 5.1.32 to 5.1.34;
 * ICH9, 13.8.1.1 and 13.8.3. Two processors, --smm on. Each handler is the code at handler, which
 * counts, records, and does what orders says: bits, cleared by the processor that does it.
 */
#include "runtime.inc"
    .set APM, 0xb2
    .set SMI_EN, 0x630
#define UD 6
#define ORDER_MOVE 1      /* SMBASE becomes new_base */
#define ORDER_CHANGE 2    /* RBX in the area becomes 0x600df00d */
#define ORDER_NMI 4       /* to itself */
#define ORDER_AGAIN 8     /* one more SMI */
#define ORDER_AWAKE 16    /* do not go back to HLT */
#define ORDER_PEEK 32     /* read what is at peek */

    .macro PCI_ADDRESS address:req
    mov $\address, %eax
    mov $0xcf8, %edx
    out %eax, %dx
    mov $0xcfc + (\address & 3), %edx
    .endm
    .macro PCI_SET8 address:req, value:req
    PCI_ADDRESS \address
    mov $\value, %al
    out %al, %dx
    .endm
    .macro PCI_GET8 address:req
    PCI_ADDRESS \address
    in %dx, %al
    movzbl %al, %eax
    .endm
    .set SMRAM, 0x8000009d
    .set ESMRAMC, 0x8000009e
    .set PMCON, 0x8000f8a0

    /* An SMI to all by the command port, with something to find in the area. */
    .macro SMI
    mov $0xb, %eax
    out %al, $APM
7780:
    mov $7780b, %ecx
    .endm
    .macro PUT_HANDLER base:req
    mov $\base + 0x8000, %edi
    call put_handler
    .endm
    .macro SMI_TO cpu:req
    movl $\cpu << 24, APIC + 0x310
    movl $0x4200, APIC + 0x300
    call pause_long
    .endm

main:
    movl $note_nmi, hooks + 4 * 2
    movl $wake, hooks + 4 * 0x50
    START_OTHERS other
    call pause_long
    CHECK "a second processor", started, $1
    TRY "rsm"
    CHECK_FAULT "RSM outside SMM", UD, 0
    PUT_HANDLER 0x30000

    SMI
    CHECK "the command port without SMI_EN", smis, $0
    mov $SMI_EN, %edx
    in %dx, %eax
    CHECK "SMI_EN after reset", %eax, $0
    mov $0x21, %eax
    out %eax, %dx

    /* One by one they move, as they begin with the same area. */
    PUT_HANDLER 0x40000
    movl $0x40000, new_base
    movl $ORDER_MOVE, orders
    mov $0x77, %ebx
    SMI_TO 0
    CHECK "SMI by the APIC", smis, $1
    CHECK "the handler has no protection and no paging", seen_protection, $0
    CHECK "the area's revision", seen_revision, $0x00020064
    CHECK "the area's SMBASE", seen_smbase, $0x30000
    CHECK "the area's RBX", seen_rbx, $0x77
    CHECK "RBX comes back", %ebx, $0x77
    PUT_HANDLER 0x50000
    movl $0x50000, new_base
    movl $ORDER_MOVE, orders + 4
    SMI_TO 1
    CHECK "SMI to the other one, which is halted", smis + 4, $1
    CHECK "and halts on", woken, $0
    movl $0x01000000, APIC + 0x310
    movl $0x4050, APIC + 0x300
    call pause_long
    CHECK "until an interrupt", woken, $1
    movl $ORDER_AWAKE, orders + 4
    SMI_TO 1
    CHECK "if the handler clears auto-halt restart it is awake", woken, $2

    /* By the command port, to both. */
    SMI
    CHECK "SMI by the command port", smis, $2
    CHECK "it comes behind the OUT", seen_rip, %ecx
    CHECK "SMBASE was moved", seen_smbase, $0x40000
    CHECK "the area's RAX", seen_rax, $0xb
    call pause_long
    CHECK "to the other one, too", smis + 4, $3
    movl $ORDER_CHANGE, orders
    SMI
    CHECK "RSM takes what the handler wrote", %ebx, $0x600df00d
    movl $ORDER_NMI, orders
    SMI
    CHECK "no NMI in the handler", nmis_inside, $0
    CHECK "but behind RSM", nmis, $1
    movl $ORDER_AGAIN, orders
    mov smis, %esi
    SMI
    sub smis, %esi
    neg %esi
    CHECK "an SMI in the handler waits for RSM", %esi, $2
    CHECK "and comes before another instruction", seen_rip, %ecx

    /* The lock of SMIs. */
    PCI_SET8 PMCON, 0x10
    PCI_SET8 PMCON, 0
    PCI_GET8 PMCON
    CHECK "SMI_LOCK stays", %eax, $0x10
    mov $SMI_EN, %edx
    xor %eax, %eax
    out %eax, %dx
    in %dx, %eax
    CHECK "and keeps GBL_SMI_EN", %eax, $1
    mov $0x20, %eax
    out %eax, %dx
    mov smis, %esi
    SMI
    sub smis, %esi
    CHECK "SMIs still come", %esi, $-1

    /* SMRAM at 640 KiB. */
    PCI_SET8 SMRAM, 0x48 /* D_OPEN, G_SMRAME */
    PUT_HANDLER 0xa0000
    PCI_SET8 SMRAM, 0x08
    CHECK "SMRAM is closed", 0xa8000, $-1
    movl $0xa0000, new_base
    movl $ORDER_MOVE, orders
    SMI
    mov smis, %esi
    SMI
    sub smis, %esi
    CHECK "a handler in SMRAM", %esi, $-1
    CHECK "with its area there", seen_smbase, $0xa0000
    CHECK "SMRAM is closed behind it", 0xa8000, $-1

    /* The top of RAM. */
    .set TSEG, 0x3f00000
    movl $0x5ec2e7, TSEG
    PCI_SET8 ESMRAMC, 1
    CHECK "TSEG is closed", TSEG, $-1
    movl $0, TSEG
    movl $TSEG, peek
    movl $ORDER_PEEK, orders
    SMI
    CHECK "the handler sees it, and no write from outside", peeked, $0x5ec2e7
    CHECK "TSEG is closed behind it", TSEG, $-1
    CHECK "below it is RAM", TSEG-4, $0
    PCI_SET8 SMRAM, 0x58 /* D_OPEN, D_LCK */
    CHECK "locked, it cannot be opened", 0xa8000, $-1
    PCI_SET8 SMRAM, 0x40
    PCI_GET8 SMRAM
    CHECK "the lock stays", %eax, $0x1a
    PCI_SET8 ESMRAMC, 0
    PCI_GET8 ESMRAMC
    CHECK "and keeps TSEG", %eax, $0x39
    CHECK "which is closed", TSEG, $-1

    /* From 64-bit mode. */
    call enter_long
    BITS64
    mov $0x123456789abcdef0, %r15
    mov $0x1111111111111111, %rbx
    mov %rsp, %rbp
    SMI
    CHECK "SMI in 64-bit mode: the area's EFER", seen_efer, $0x500
    cmp %rsp, %rbp
    CHECK_FLAG "RSP comes back", z, 1
    mov $0x123456789abcdef0, %rax
    cmp %rax, %r15
    CHECK_FLAG "R15 comes back", z, 1
    mov %cr0, %rax
    bt $31, %rax
    CHECK_FLAG "and paging", c, 1
    jmp finish64

    BITS32
other:
    lidt idt32_pointer
    mov $other_stack_top, %esp
    movl $0x1ff, APIC + 0xf0
    lock incl started
1:
    sti
    hlt
    lock incl woken
    jmp 1b
wake:
    movl $0, APIC + 0xb0
    ret
note_nmi:
    incl nmis
    ret
pause_long:
    mov $400000, %ecx
1:
    pause
    loop 1b
    ret
put_handler:
    mov $handler, %esi
    mov $handler_end - handler, %ecx
    rep movsb
    ret

/* DS is flat; ESI is four times the number of the processor. */
handler:
    .code16
    addr32 movl APIC + 0x20, %esi
    shr $22, %esi
    lock incl %ds:smis(%esi)
    mov %cr0, %eax
    and $0x80000001, %eax
    addr32 movl %eax, seen_protection
    test %esi, %esi
    jnz 1f
    movl %cs:0xfefc, %eax
    addr32 movl %eax, seen_revision
    movl %cs:0xff00, %eax
    addr32 movl %eax, seen_smbase
    movl %cs:0xfed0, %eax
    addr32 movl %eax, seen_efer
    movl %cs:0xff78, %eax
    addr32 movl %eax, seen_rip
    movl %cs:0xfff8, %eax
    addr32 movl %eax, seen_rax
    movl %cs:0xffe0, %eax
    addr32 movl %eax, seen_rbx
1:
    xor %ebx, %ebx
    xchg %ds:orders(%esi), %ebx
    test $ORDER_MOVE, %bl
    jz 1f
    addr32 movl new_base, %eax
    movl %eax, %cs:0xff00
1:
    test $ORDER_CHANGE, %bl
    jz 1f
    movl $0x600df00d, %cs:0xffe0
1:
    test $ORDER_NMI, %bl
    jz 1f
    addr32 movl $0x44400, APIC + 0x300
    mov $100000, %ecx
2:
    pause
    addr32 loop 2b
    addr32 movl nmis, %eax
    addr32 movl %eax, nmis_inside
1:
    test $ORDER_AGAIN, %bl
    jz 1f
    out %al, $APM
1:
    test $ORDER_AWAKE, %bl
    jz 1f
    movb $0, %cs:0xfec9
1:
    test $ORDER_PEEK, %bl
    jz 1f
    addr32 movl peek, %eax
    movl %ds:(%eax), %eax
    addr32 movl %eax, peeked
1:
    rsm
handler_end:
    BITS32

    .data
    .align 4
smis: .long 0, 0
orders: .long 0, 0
new_base: .long 0
peek: .long 0
peeked: .long 0
started: .long 0
woken: .long 0
nmis: .long 0
nmis_inside: .long -1
seen_protection: .long -1
seen_revision: .long 0
seen_smbase: .long 0
seen_efer: .long -1
seen_rip: .long 0
seen_rax: .long 0
seen_rbx: .long 0
    .bss
    .align 16
    .skip 4096
other_stack_top:
