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
    .macro CR4 set:req, clear:req
    mov %cr4, %rax
    and $~\clear, %rax
    or $\set, %rax
    mov %rax, %cr4
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
    .text
