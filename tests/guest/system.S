/*
 * system.S - system instructions that have run before, when what they depend on is another
 *
 * SDM vol. 2. An engine may have made code of its own for RDFSBASE, RDPKRU, MOV of control
 * registers and the like, and may go on behind MOV to CR3, INVLPG, WRMSR, IRET without a look at
 * anything else: each stands in one place here, is executed often, and then once more where the
 * instruction itself, or the one behind it, is to do something else.
 */
#include "runtime.inc"
#define TIMES 100
#define IPI 0x50
#define X2APIC_SELF 0x83f
#define X2APIC_TPR 0x808
#define X2APIC_EOI 0x80b
#define X2APIC_ICR 0x830
    .set WINDOW, 0x40000000

    /* Call code often with these registers. */
    .macro OFTEN code:req, rax=$0, rcx=$0
    mov $TIMES, %ebp
1:
    mov \rax, %rax
    mov \rcx, %rcx
    call \code
    dec %ebp
    jnz 1b
    .endm

main:
    call enter_long
    BITS64
    CR4 0x410080, 0 /* PKE, FSGSBASE, PGE */
    mov $-1, %r10 /* so that upper halves are seen */
    mov $-1, %r13

    /* ---- FS and GS ---- */
    movabs $0x123456789a, %r14
    OFTEN bases, %r14
    CHECK "RDFSBASE, low", %rsi, $0x3456789a
    shr $32, %rsi
    CHECK "RDFSBASE, high", %rsi, $0x12
    CHECK "RDGSBASE of 32 bits", %r10, $0x3456789a
    shr $32, %r10
    CHECK "RDGSBASE of 32 bits clears the upper half", %r10, $0
    CHECK "WRGSBASE of 32 bits, RDGSBASE of 64", %r13, $0x3456789a
    shr $32, %r13
    CHECK "WRGSBASE of 32 bits clears the upper half", %r13, $0
    CHECK "FS and GS: the flags stay", %rdi, $0x8d7
    movabs $0x800000000000, %rax
    TRY "call bases"
    CHECK_FAULT "WRFSBASE of an address that is not canonical", 13, 0
    CHECK "WRFSBASE of an address that is not canonical: there", fault_ip, $wrfsbase_here
    rdfsbase %rax
    CHECK "WRFSBASE that is refused changes nothing", %rax, $0x3456789a
    movabs $0xffff800000000000, %rax
    TRY "call bases"
    CHECK_NO_FAULT "WRFSBASE of the lowest address of the upper half"
    CR4 0, 0x10000
    TRY "call bases"
    CHECK_FAULT "WRFSBASE without CR4.FSGSBASE", 6, 0
    TRY "call only_reads"
    CHECK_FAULT "RDFSBASE without CR4.FSGSBASE", 6, 0
    CR4 0x10000, 0

    /* ---- PKRU ---- */
    mov $0x55555550, %eax
    xor %ecx, %ecx
    xor %edx, %edx
    wrpkru
    OFTEN pkru, $-1
    CHECK "RDPKRU", %rax, $0x55555550
    CHECK "RDPKRU: RDX is 0", %rdx, $0
    CHECK "RDPKRU leaves the flags alone", %rdi, $0x8d7
    mov $1, %ecx
    TRY "call pkru"
    CHECK_FAULT "RDPKRU with ECX 1", 13, 0
    movabs $0x100000000, %rcx
    TRY "call pkru"
    CHECK_NO_FAULT "RDPKRU with ECX 0"
    CR4 0, 0x400000
    xor %ecx, %ecx
    TRY "call pkru"
    CHECK_FAULT "RDPKRU without CR4.PKE", 6, 0

    /* ---- control registers ---- */
    mov $0x12345678, %eax
    mov %rax, %cr2
    OFTEN control
    CHECK "MOV from CR2", %r10, $0x12345678
    CHECK "MOV from CR3", %rsi, $pml4
    and $0x10000, %ebx
    CHECK "MOV from CR4", %rbx, $0x10000
    CHECK "MOV from CR0", %rax, $(0x80010011-0x100000000)
    TRY_USER64 user_control
    CHECK_FAULT "MOV from CR2 at ring 3", 13, 0

    /* CR0.TS for what stands behind */
    mov %cr0, %r14
    OFTEN set_cr0, %r14
    mov %r14, %rax
    or $8, %rax
    TRY "call set_cr0"
    CHECK_FAULT "behind MOV to CR0: TS", 7, 0
    CHECK "behind MOV to CR0: there", fault_ip, $behind_cr0
    mov %r14, %rax
    TRY "call set_cr0"
    CHECK_NO_FAULT "behind MOV to CR0: no TS"

    /* CR4.SMAP for what stands behind */
    orb $4, pd
    mov %cr4, %r14
    OFTEN set_cr4, %r14
    mov $7, %eax
    xor %ecx, %ecx
    cpuid
    bt $20, %ebx
    jnc 1f
    andb $~4, pd /* the kernel's page */
    movl $frame_a + 7, window_pt
    movl $window_pt + 7, window_pd
    movl $window_pd + 7, pdpt + 8
    mov %cr3, %rax
    mov %rax, %cr3
    mov %r14, %rax
    or $0x200000, %rax
    TRY "call set_cr4"
    CHECK_NO_FAULT "behind MOV to CR4: SMAP, which STAC lifts"
    stac
    mov $0x40002, %ebx
    OFTEN return_and_read
    mov $2, %ebx
    TRY "call return_and_read"
    CHECK_FAULT "IRET to the next instruction without AC: SMAP", 14, 1
    mov %r14, %cr4
    push $2
    popf
1:

    /* ---- the page that is run becomes another one ---- */
    mov $pml4, %esi
    mov $other_pml4, %edi
    mov $512, %ecx
    rep movsq
    mov $pdpt, %esi
    mov $other_pdpt, %edi
    mov $512, %ecx
    rep movsq
    movl $other_pdpt + 7, other_pml4
    movl $window_pd + 7, pdpt + 8
    movl $window_pt + 7, window_pd
    movl $frame_a + 7, window_pt
    movl $other_pd + 7, other_pdpt + 8
    movl $other_pt + 7, other_pd
    movl $frame_b + 7, other_pt
    mov $2, %ebx
    .irp letter, a, b
    mov $moving, %esi
    mov $frame_\letter, %edi
    mov $moving_end - moving, %ecx
    rep movsb
    movb $0x\letter, frame_\letter + MOVING_VALUE
    movb $0x\letter, frame_\letter + INVALIDATING_VALUE
    .endr
    mov $pml4, %eax
    mov %rax, %cr3
    mov $TIMES, %ebp
    xor %edi, %edi
    xor %r12d, %r12d
1:
    mov $pml4, %eax
    mov $WINDOW, %ebx
    call *%rbx /* the same again */
    lea (%rdi, %rcx), %edi
    mov $other_pml4, %eax
    call *%rbx
    lea (%r12, %rcx), %r12d
    mov $pml4, %eax
    mov %rax, %cr3
    dec %ebp
    jnz 1b
    CHECK "behind MOV to CR3 with the same mapping", %rdi, $(TIMES*10)
    CHECK "behind MOV to CR3 with another", %r12, $(TIMES*11)
    mov $TIMES, %ebp
    xor %edi, %edi
    xor %r12d, %r12d
    mov $WINDOW + invalidating - moving, %ebx
2:
    mov $frame_a + 7, %edx
    call *%rbx
    lea (%rdi, %rcx), %edi
    mov $frame_b + 7, %edx
    call *%rbx
    lea (%r12, %rcx), %r12d
    mov $frame_a + 7, %edx
    call *%rbx
    dec %ebp
    jnz 2b
    CHECK "behind INVLPG with the same mapping", %rdi, $(TIMES*10)
    CHECK "behind INVLPG with another", %r12, $(TIMES*11)

    /* ---- what is pending comes right behind ---- */
    movl $interrupted, hooks + 4 * IPI
    movl $nmi, hooks + 4 * 2
    SET_MSR 0x1b, 0, 0xfee00d00 /* x2APIC */
    SET_MSR 0x80f, 0, 0x1ff
    mov $X2APIC_TPR, %ecx
    xor %edx, %edx
    OFTEN write_msr, $0, $X2APIC_TPR
    CHECK "WRMSR: no interrupt", interrupts, $0
    CHECK "WRMSR leaves the flags alone", %rdi, $0x8d7
    OFTEN write_msr, $IPI, $X2APIC_SELF
    CHECK "WRMSR that interrupts itself, with IF 0", interrupts, $0
    sti
    nop
    CHECK "and then STI", interrupts, $1
    OFTEN write_msr, $IPI, $X2APIC_SELF
    CHECK "WRMSR that interrupts itself", interrupts, $(TIMES+1)
    CHECK "WRMSR that interrupts itself: right behind", last_ip, $behind_wrmsr
    cli
    movl $0, interrupts
    mov $TIMES, %ebp
3:
    mov $2, %ebx
    call return
    mov $IPI, %eax
    mov $X2APIC_SELF, %ecx
    call write_msr
    mov $0x202, %ebx
    call return
    cli
    dec %ebp
    jnz 3b
    CHECK "IRET to the next instruction with IF", interrupts, $TIMES
    CHECK "IRET to the next instruction with IF: before that", last_ip, $behind_iret
    mov $0xad7, %ebx
    call return
    CHECK "IRET to the next instruction: flags", %rdi, $0xad7
    cli
    mov $0x102, %ebx
    TRY "call return"
    CHECK_FAULT "IRET to the next instruction with TF", 1, 0
    CHECK "IRET to the next instruction with TF: behind that", fault_ip, $behind_iret + 1
    mov %dr6, %rax
    and $0xffff0ff0, %eax
    mov %rax, %dr6
    mov $TIMES, %ebp
    movl $0, interrupts
4:
    movl $0, nmis
    mov $0x4400, %eax
    xor %edx, %edx
    mov $X2APIC_ICR, %ecx
    wrmsr
    dec %ebp
    jnz 4b
    CHECK "a second NMI behind the IRET of the first", interrupts, $(2*TIMES)

    /* ---- IRET of ring 0, and events: what is not as usual ---- */
    .macro BACK ip=back_here, cs=CODE64, flags=2, sp=back_stack, ss=DATA, high=0
    movq $\ss, back_frame + 32
    movq $\sp, back_frame + 24
    movq $\flags, back_frame + 16
    movq $\cs, back_frame + 8
    movq $\ip, back_frame
    movl $\high, back_frame + 4
    TRY "mov $back_frame, %rsp; jmp back"
    .endm
    .macro BACK_FAULTS name:req, vector:req, error:req
    CHECK_FAULT "IRET, \name", \vector, \error
    CHECK "IRET, \name: there", fault_ip, $back
    BACK
    CHECK_FAULT "IRET as before", 6, 0
    .endm
    .macro DESCRIPTOR high:req
    movl $0x0000ffff, gdt + SPARE
    movl $\high, gdt + SPARE + 4
    .endm
    orb $4, pd
    mov %cr3, %rax
    mov %rax, %cr3
    mov $TIMES, %r12d
1:
    BACK
    dec %r12d
    jnz 1b
    CHECK_FAULT "IRET at ring 0 and an exception", 6, 0
    CHECK "IRET at ring 0 and an exception: where", fault_ip, $back_here
    CHECK "IRET at ring 0 and an exception: RSP", fault_sp, $back_stack
    CHECK "IRET at ring 0 and an exception: SS", fault_ss, $DATA
    mov fault_frame, %rax
    and $15, %eax
    CHECK "the frame of an exception is aligned", %rax, $8
    BACK sp=(back_stack-4)
    mov fault_frame, %rax
    and $15, %eax
    CHECK "the frame of an exception is aligned at another RSP", %rax, $8
    CHECK "and holds RSP", fault_sp, $(back_stack-4)
    mov $TIMES, %r12d
2:
    BACK cs=USER_CODE64, ss=USER_DATA
    dec %r12d
    jnz 2b
    CHECK_FAULT "IRET to ring 3 and an exception", 6, 0
    CHECK "IRET to ring 3 and an exception: CS", fault_cs, $USER_CODE64
    CHECK "IRET to ring 3 and an exception: SS", fault_ss, $USER_DATA
    mov %ds, %eax
    CHECK "IRET to ring 3 takes DS away", %rax, $0
    mov $DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    BACK flags=0x2aad7
    CHECK "IRET: flags", fault_flags, $0x12ad7
    BACK flags=0x383ad7, cs=USER_CODE64, ss=USER_DATA
    CHECK "IRET: IOPL, VIF, VIP, ID", fault_flags, $0x393ad7
    BACK ip=0x1000, high=0x8000
    BACK_FAULTS "to an address that is not canonical", 13, 0
    BACK ss=(DATA+3)
    BACK_FAULTS "SS of another RPL", 13, DATA
    BACK ss=USER_DATA
    BACK_FAULTS "SS of ring 3", 13, (USER_DATA-3)
    BACK ss=CODE64
    BACK_FAULTS "SS that is code", 13, CODE64
    DESCRIPTOR 0x00cf9100
    BACK ss=SPARE
    BACK_FAULTS "SS that is read-only", 13, SPARE
    DESCRIPTOR 0x00cf1300
    BACK ss=SPARE
    BACK_FAULTS "SS that is not present", 12, SPARE
    BACK cs=0
    BACK_FAULTS "a null CS", 13, 0
    mov gdt + CODE64, %rax
    mov %rax, gdt
    BACK cs=0
    BACK_FAULTS "a null CS, whatever the GDT begins with", 13, 0
    movq $0, gdt
    BACK cs=(CODE64+4)
    BACK_FAULTS "CS of an LDT that there is not", 13, (CODE64+4)
    BACK cs=0x7f8
    BACK_FAULTS "CS beyond the GDT", 13, 0x7f8
    BACK cs=(USER_CODE64-3)
    BACK_FAULTS "CS of ring 3 with RPL 0", 13, (USER_CODE64-3)
    BACK cs=DATA
    BACK_FAULTS "CS that is data", 13, DATA
    DESCRIPTOR 0x00ef9b00
    BACK cs=SPARE
    BACK_FAULTS "CS with L and D", 13, SPARE
    DESCRIPTOR 0x00af1b00
    BACK cs=SPARE
    BACK_FAULTS "CS that is not present", 11, SPARE
    DESCRIPTOR 0x00af9a00
    BACK cs=SPARE
    CHECK "IRET sets A in CS", gdt + SPARE + 4, $0x00af9b00
    DESCRIPTOR 0x00cf9200
    BACK ss=SPARE
    CHECK "IRET sets A in SS", gdt + SPARE + 4, $0x00cf9300
    DESCRIPTOR 0x00af9f00
    BACK cs=(SPARE+3), ss=USER_DATA
    CHECK "IRET to ring 3 in conforming code", fault_cs, $(SPARE+3)
    mov $DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    BACK cs=CODE32, ip=back_code32
    CHECK "IRET to 32-bit code", fault_ip, $(back_code32+2)
    BACK ss=0
    CHECK "IRET to a null SS", fault_ss, $0
    BACK cs=CODE32, ip=0x1000, high=1
    BACK_FAULTS "to 32-bit code beyond its limit", 13, 0
    push $0x4002
    popf
    TRY "mov $back_frame, %rsp; jmp back"
    BACK_FAULTS "with NT", 13, 0
    movl $frame_a + 7, window_pt + 8
    mov $WINDOW, %eax
    invlpg (%rax)
    mov $WINDOW + 0x1000, %eax
    invlpg (%rax)
    BACK
    mov $back_frame, %esi
    mov $WINDOW + 0xff0, %edi
    mov $10, %ecx
    rep movsl
    movq $2, frame_b /* no part of it */
    movq $back_stack - 64, frame_b + 8
    movq $DATA, frame_b + 16
    TRY "mov $WINDOW + 0xff0, %esp; jmp back"
    CHECK "IRET of a frame in two pages", fault_ip, $back_here
    CHECK "IRET of a frame in two pages: RSP", fault_sp, $back_stack
    movl $0, window_pt + 8
    mov $WINDOW + 0x1000, %eax
    invlpg (%rax)
    TRY "mov $WINDOW + 0xff0, %esp; jmp back"
    CHECK_FAULT "IRET of a frame of which the second page is not there", 14, 0

    movw $14 * 16 - 1, idt64_pointer
    lidt idt64_pointer
    TRY "mov WINDOW + 0x1000, %eax"
    CHECK_FAULT "a page fault beyond the IDT: a double fault", 8, 0
    movw $14 * 16 + 15, idt64_pointer
    lidt idt64_pointer
    TRY "int $0x30"
    CHECK_FAULT "INT beyond the IDT", 13, 0x30*8+2
    movw $256 * 16 - 1, idt64_pointer
    lidt idt64_pointer
    movb $0x0e, idt64 + 6 * 16 + 5
    BACK
    CHECK_FAULT "a gate that is not present", 11, 6*8+3
    movb $0x8c, idt64 + 6 * 16 + 5
    BACK
    CHECK_FAULT "a call gate in the IDT", 13, 6*8+3
    movb $0x8e, idt64 + 6 * 16 + 5
    movl $0x8000, idt64 + 6 * 16 + 8
    BACK
    CHECK_FAULT "a gate to an address that is not canonical", 13, 1
    movl $0, idt64 + 6 * 16 + 8
    movw $DATA, idt64 + 6 * 16 + 2
    BACK
    CHECK_FAULT "a gate to data", 13, (DATA+1)
    movw $CODE32, idt64 + 6 * 16 + 2
    BACK
    CHECK_FAULT "a gate to 32-bit code", 13, (CODE32+1)
    movw $CODE64, idt64 + 6 * 16 + 2
    movb $1, idt64 + 6 * 16 + 4
    BACK
    mov fault_frame, %rax
    sub $ist1_top - 64, %eax
    CHECK "a gate with an IST", %rax, $8
    BACK cs=USER_CODE64, ss=USER_DATA
    mov fault_frame, %rax
    sub $ist1_top - 64, %eax
    CHECK "a gate with an IST from ring 3", %rax, $8
    mov $DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    movw $0x20, gdt + TSS64
    movb $0x89, gdt + TSS64 + 5
    mov $TSS64, %eax
    ltr %ax
    BACK
    CHECK_FAULT "a gate with an IST beyond the TSS", 10, (TSS64+1)
    movw $0x67, gdt + TSS64
    movb $0x89, gdt + TSS64 + 5
    mov $TSS64, %eax
    ltr %ax
    movb $0, idt64 + 6 * 16 + 4
    TRY_USER64 user_int
    CHECK_FAULT "INT of ring 3 through a gate of ring 0", 13, 0x81*8+2
    mov $DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    BACK flags=0x202
    CHECK "an interrupt gate: IF was set", fault_flags, $0x10202
    movl $trap_gate, hooks + 4 * 6
    movb $0x8f, idt64 + 6 * 16 + 5
    BACK flags=0x202
    CHECK "a trap gate leaves IF", seen_if, $0x200
    movb $0x8e, idt64 + 6 * 16 + 5
    BACK flags=0x202
    CHECK "an interrupt gate clears it", seen_if, $0
    movl $0, hooks + 4 * 6
    cli
    movb $1, idt64 + 14 * 16 + 4 /* a stack for the page fault */
    movl $frame_a + 5, window_pt + 8
    mov $WINDOW + 0x1000, %eax
    invlpg (%rax)
    mov WINDOW + 0x1000, %eax
    BACK sp=(WINDOW+0x1800)
    CHECK_FAULT "an exception whose stack is read-only", 14, 3
    CHECK "an exception whose stack is read-only: there", fault_ip, $back_here
    movb $0, idt64 + 14 * 16 + 4
    jmp finish64

    .balign 64
bases:
    push $0x8d7
    popf
wrfsbase_here:
    wrfsbase %rax
    mov %rax, %r11
    wrgsbase %r11d
only_reads:
    rdfsbase %rsi
    rdgsbase %r10d
    rdgsbase %r13
    pushf
    pop %rdi
    ret
pkru:
    mov $-1, %rdx
    push $0x8d7
    popf
    rdpkru
    pushf
    pop %rdi
    ret
control:
    mov %cr2, %r10
    mov %cr3, %rsi
    mov %cr4, %rbx
    mov %cr0, %rax
    ret
set_cr0:
    mov %rax, %cr0
behind_cr0:
    movaps %xmm0, %xmm1
    clts
    ret
set_cr4:
    mov %rax, %cr4
    bt $21, %eax
    jnc 5f
    stac
5:
    mov WINDOW, %ecx
    ret
write_msr:
    pushf
    orl $0x8d5, (%rsp)
    popf
    wrmsr
behind_wrmsr:
    pushf
    pop %rdi
    ret
    /* To the next instruction with flags EBX, which come back in RDI. */
return:
    mov %rsp, %rsi
    push $DATA
    push %rsi
    push %rbx
    push $CODE64
    push $behind_iret
    iretq
behind_iret:
    nop
    pushf
    pop %rdi
    ret
return_and_read:
    mov %rsp, %rsi
    push $DATA
    push %rsi
    push %rbx
    push $CODE64
    push $1f
    iretq
1:
    mov WINDOW, %ecx
    ret
user_control: mov %cr2, %r10
user_int: int $0x81
    .balign 64
    /* These run at WINDOW. */
moving:
    mov %rax, %cr3
moving_value: mov $0, %ecx
    ret
invalidating:
    mov %edx, window_pt
    invlpg WINDOW
invalidating_value: mov $0, %ecx
    ret
moving_end:
    .set MOVING_VALUE, moving_value - moving + 1
    .set INVALIDATING_VALUE, invalidating_value - moving + 1

    .balign 64
back: iretq
back_here: ud2
    BITS32
back_code32:
    .byte 0x40, 0x90 /* INC %eax, NOP; in 64-bit code one instruction */
    ud2
    BITS64
trap_gate: /* behind UD2 it goes on */
    pushf
    pop %rsi
    and $0x200, %esi
    mov %esi, seen_if
    mov resume_ip, %eax
    mov %rax, 16(%rbx)
    ret

interrupted:
    incl interrupts
    mov 16(%rbx), %rax
    mov %rax, last_ip
    xor %eax, %eax
    xor %edx, %edx
    mov $X2APIC_EOI, %ecx
    wrmsr
    ret
    /* The first sends another. */
nmi:
    incl interrupts
    incl nmis
    cmpl $1, nmis
    jne 6f
    mov $0x4400, %eax
    xor %edx, %edx
    mov $X2APIC_ICR, %ecx
    wrmsr
6:
    ret
    BITS32

    .data
    .balign 8
interrupts: .quad 0
nmis: .quad 0
last_ip: .quad 0
seen_if: .quad 0
    .balign 64
    .space 256 /* faults of IRET */
back_frame: .quad 0, 0, 0, 0, 0
    .bss
    .balign 4096
window_pd: .space 4096
window_pt: .space 4096
other_pml4: .space 4096
other_pdpt: .space 4096
other_pd: .space 4096
other_pt: .space 4096
frame_a: .space 4096
frame_b: .space 4096
    .space 1024
back_stack:
    .space 64
    .text
