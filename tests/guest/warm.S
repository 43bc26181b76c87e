/*
 * warm.S - SYSCALL, SYSRET and RDTSC that have run before, when something else is changed
 *
 * SDM vol. 2. An engine may have made code of its own for them, out of what was true then: each of
 * them stands in one place here and is executed often, before and after each change.
 */
#include "runtime.inc"
#define EFER 0xc0000080
#define STAR 0xc0000081
#define LSTAR 0xc0000082
#define FMASK 0xc0000084
#define TSC 0x10
#define TSC_ADJUST 0x3b
#define TSC_AUX 0xc0000103
#define IPI 0x50
#define TIMES 20
    .set APIC, 0xfee00000
    .set USER, 0x400000 /* the page of ring 3, where the kernel is not */

    /* TIMES system calls; action is where the kernel does something else before it returns. */
    .macro CALLS flags=0x202, action=plain, code=user_calls
    movl $0, calls
    movl $\action, kernel_action
    mov $\flags, %edx
    mov $USER + \code - user_code, %ecx
    TRY "jmp go_to_user"
    .endm
    .macro ALL_CALLS name:req, flags=0x202, action=plain
    CALLS \flags, \action
    CHECK_FAULT "\name", USER_EXIT, 0
    CHECK "\name: how many", calls, $TIMES
    .endm
    .macro MORE_AND_LESS_TSD name:req
    mov $USER + user_rdtsc - user_code, %ecx
    mov $0x202, %edx
    TRY "jmp go_to_user"
    CHECK_FAULT "\name", USER_EXIT, 0
    CR4 4, 0
    mov $USER + user_rdtsc - user_code, %ecx
    mov $0x202, %edx
    TRY "jmp go_to_user"
    CHECK_FAULT "\name: #GP(0) at ring 3 with CR4.TSD", 13, 0
    TRY "call time"
    CHECK_NO_FAULT "\name: not at ring 0"
    CR4 0, 4
    .endm

main:
    call enter_long
    BITS64
    call time /* early, when an engine knows little about clocks */
    mov %rax, %rbx
    mov $TIMES, %ecx
1:
    mov %rcx, %rsi
    call time
    mov %rsi, %rcx
    loop 1b
    cmp %rbx, %rax
    seta %al
    movzbl %al, %eax
    CHECK "the TSC goes from the start", %rax, $1
    movl $interrupted, hooks + 4 * IPI
    mov $user_code, %esi
    mov $USER, %edi
    mov $user_code_end - user_code, %ecx
    rep movsb
    mov $APIC, %r15
    movl $0x1ff, 0xf0(%r15)
    SET_MSR EFER, 0, 0x101
    SET_MSR STAR, 0x00280018, 0
    SET_MSR LSTAR, 0, entry
    SET_MSR FMASK, 0, 0x200

    /* ---- SYSCALL and SYSRET ---- */
    ALL_CALLS "system calls"
    CHECK "system calls: CS at ring 3", seen_user_cs, $USER_CODE64
    ALL_CALLS "system calls again"
    CHECK "SYSCALL: CS", seen_cs, $CODE64
    CHECK "SYSCALL: SS", seen_ss, $0x20
    CHECK "SYSCALL: masked flags", seen_flags, $2
    CHECK "SYSCALL: R11", seen_r11, $0x202
    CHECK "SYSRET: SS", fault_ss, $USER_DATA

    ALL_CALLS "all flags", 0x380ed7
    CHECK "SYSCALL: all flags but IF", seen_flags, $0x380cd7
    CHECK "SYSCALL: R11 with all flags", seen_r11, $0x380ed7
    CHECK "SYSRET: all flags", fault_flags, $0x380ed7
    ALL_CALLS "AC as well", 0x3c0ed7
    CHECK "SYSCALL: AC as well", seen_flags, $0x3c0cd7
    CHECK "SYSRET: AC as well", fault_flags, $0x3c0ed7
    SET_MSR FMASK, 0, 0x1a95
    ALL_CALLS "another mask", 0x380ed7
    CHECK "SYSCALL: another mask", seen_flags, $0x380442
    SET_MSR FMASK, 0, 0xffffffff
    ALL_CALLS "a full mask", 0x380ed7
    CHECK "SYSCALL: bit 1 stays", seen_flags, $2
    SET_MSR FMASK, 0, 0x200

    CALLS code=user_privileged
    CHECK_FAULT "behind SYSRET: no rights of ring 0", 13, 0
    CHECK "behind SYSRET: CPL", fault_cs, $USER_CODE64

    SET_MSR LSTAR, 0, other_entry
    ALL_CALLS "LSTAR has changed"
    CHECK "LSTAR has changed: where the calls went", other_calls, $TIMES
    SET_MSR LSTAR, 0, entry

    mov gdt + USER_DATA - 3, %rax /* the same descriptors elsewhere */
    mov %rax, gdt + SPARE
    mov gdt + USER_CODE64 - 3, %rax
    mov %rax, gdt + SPARE + 8
    mov gdt + CODE64, %rax
    mov %rax, gdt + SPARE + 16
    mov gdt + DATA, %rax
    mov %rax, gdt + SPARE + 24
    SET_MSR STAR, ((SPARE - 8) << 16 | SPARE + 16), 0
    ALL_CALLS "STAR has changed"
    CHECK "STAR has changed: SYSCALL's CS", seen_cs, $(SPARE+16)
    CHECK "STAR has changed: SYSCALL's SS", seen_ss, $(SPARE+24)
    CHECK "STAR has changed: SYSRET's CS", seen_user_cs, $(SPARE+8+3)
    CHECK "STAR has changed: SYSRET's SS", fault_ss, $(SPARE+3)
    SET_MSR STAR, 0x002b001b, 0
    ALL_CALLS "RPL in STAR"
    CHECK "RPL in STAR: SYSCALL's CS", seen_cs, $CODE64
    CHECK "RPL in STAR: SYSRET's CS", seen_user_cs, $USER_CODE64
    SET_MSR STAR, 0x00280018, 0

    CALLS action=no_sce
    CHECK_FAULT "SYSRET without EFER.SCE is #UD", 6, 0
    CHECK "SYSRET without EFER.SCE: at ring 0", fault_cs, $CODE64
    CHECK "SYSRET without EFER.SCE: there", fault_ip, $sysret_here
    CALLS
    CHECK_FAULT "SYSCALL without EFER.SCE is #UD", 6, 0
    CHECK "SYSCALL without EFER.SCE: none was made", calls, $0
    SET_MSR EFER, 0, 0x101
    CALLS action=bad_rip
    CHECK_FAULT "SYSRET to a RIP that is not canonical is #GP(0)", 13, 0
    CHECK "SYSRET to a RIP that is not canonical: at ring 0", fault_cs, $CODE64
    CHECK "SYSRET to a RIP that is not canonical: there", fault_ip, $sysret_here
    ALL_CALLS "system calls after faults"

    CALLS action=set_tf
    CHECK_FAULT "SYSRET with TF: #DB", 1, 0
    CHECK "SYSRET with TF: behind the next instruction", fault_ip, $(USER+user_stepped-user_code)
    CALLS 0x302, code=user_again
    CHECK_FAULT "SYSCALL with TF: #DB", 1, 0
    CHECK "SYSCALL with TF: behind it", fault_ip, $entry
    mov %dr6, %rax
    and $0xffff0ff0, %eax
    mov %rax, %dr6

    ALL_CALLS "an interrupt is pending at SYSRET", action=send
    CHECK "an interrupt is pending at SYSRET: taken", interrupts, $TIMES
    CHECK "an interrupt is pending at SYSRET: before an instruction", last_ip, $(USER+user_returned-user_code)
    movl $0, interrupts
    ALL_CALLS "interrupts stay off", 2, send
    CHECK "interrupts stay off: none is taken", interrupts, $0
    ALL_CALLS "interrupts come back", 0x202
    CHECK "interrupts come back: one is taken", interrupts, $1

    mov %cr0, %rax
    or $0x40000, %eax /* AM */
    mov %rax, %cr0
    CALLS action=set_ac, code=user_unaligned
    CHECK_FAULT "SYSRET with AC: #AC", 17, 0
    CALLS 0x40202, code=user_unaligned
    CHECK_FAULT "SYSRET with AC of SYSCALL: #AC", 17, 0
    CALLS code=user_unaligned
    CHECK_FAULT "SYSRET without AC", USER_EXIT, 0
    mov %cr0, %rax
    and $~0x40000, %eax
    mov %rax, %cr0

    andb $~4, pd /* the kernel's page */
    mov %cr3, %rax
    mov %rax, %cr3
    CALLS code=user_curious
    CHECK_FAULT "behind SYSRET: a page of ring 0", 14, 5
    mov $7, %eax
    mov $0, %ecx
    cpuid
    bt $20, %ebx
    jnc 9f
    CR4 0x200000, 0
    .rept 2
    ALL_CALLS "SMAP: AC lifts it", 0x40202, action=read_user
    SET_MSR FMASK, 0, 0x40200
    CALLS 0x40202, action=read_user
    CHECK_FAULT "SMAP: a mask with AC", 14, 1
    CHECK "SMAP: a mask with AC, at ring 0", fault_cs, $CODE64
    SET_MSR FMASK, 0, 0x200
    CALLS action=read_user
    CHECK_FAULT "SMAP: without AC", 14, 1
    .endr
    CR4 0, 0x200000
9:
    orb $4, pd
    mov %cr3, %rax
    mov %rax, %cr3

    /* ---- RDTSC and RDTSCP ---- */
    mov $1000, %ebx
    xor %ebp, %ebp
    call time
    mov %rax, %rsi
1:
    call time
    cmp %rsi, %rax
    adc $0, %ebp
    mov %rax, %rsi
    rdtscp
    shl $32, %rdx
    or %rdx, %rax
    cmp %rsi, %rax
    adc $0, %ebp
    mov %rax, %rsi
    dec %ebx
    jnz 1b
    CHECK "the TSC does not go back", %rbp, $0
    .irp register, TSC, TSC_ADJUST
    mov $3, %ebx
2:
    call time
    mov %rax, %rsi
    mov $\register, %ecx
    rdmsr
    add $0x100, %edx /* 2^40 more */
    wrmsr
    call time
    sub %rsi, %rax
    shr $36, %rax /* 64 s */
    CHECK "the TSC is moved forward", %rax, $16
    mov $\register, %ecx
    rdmsr
    sub $0x100, %edx
    wrmsr
    call time
    sub %rsi, %rax
    shr $36, %rax
    CHECK "the TSC is moved back", %rax, $0
    dec %ebx
    jnz 2b
    .endr
    SET_MSR TSC_AUX, 0, 0x12345678
    call processor
    CHECK "RDTSCP: ECX is TSC_AUX", %rcx, $0x12345678
    SET_MSR TSC_AUX, 0, 0x07654321
    call processor
    CHECK "RDTSCP: ECX is TSC_AUX as it is now", %rcx, $0x07654321
    mov $-1, %rax
    mov $-1, %rcx
    mov $-1, %rdx
    mov $0x1234, %ebx
    call time_halves
    shr $32, %rax
    shr $32, %rdx
    or %edx, %eax
    CHECK "RDTSC: the upper halves are zero", %rax, $0
    CHECK "RDTSC: RCX stays", %rcx, $-1
    .rept 2
    MORE_AND_LESS_TSD "RDTSC"
    .endr
    push $0x8d7
    popf
    call time_halves
    pushf
    pop %rax
    push $2
    popf
    CHECK "RDTSC leaves the flags alone", %rax, $0x8d7

    /* A deadline of the APIC's timer is reached no earlier than the TSC says. */
    movl $0x40000 | IPI, 0x320(%r15)
    mov $20, %ebx
3:
    movl $0, interrupts
    call time
    lea 300000(%rax), %rsi
    mov %esi, %eax
    mov %rsi, %rdx
    shr $32, %rdx
    mov $0x6e0, %ecx
    wrmsr
    sti
4:
    pause
    cmpl $0, interrupts
    je 4b
    cli
    call time
    cmp %rsi, %rax
    setb %al
    or %al, early
    dec %ebx
    jnz 3b
    CHECK "TSC deadlines are not early", early, $0
    jmp finish64

time: /* RAX */
    rdtsc
    shl $32, %rdx
    or %rdx, %rax
    ret
time_halves:
    rdtsc
    ret
processor:
    rdtscp
    ret

/* To ring 3 at RCX with flags EDX. */
go_to_user:
    push $USER_DATA
    push $user_stack_top
    push %rdx
    push $USER_CODE64
    push %rcx
    iretq

other_entry:
    incl other_calls
entry:
    mov %rsp, %r14
    mov $interrupt_stack_top - 256, %esp
    pushf
    pop seen_flags
    mov %r14, %rsp
    incl calls
    mov %r11, seen_r11
    mov %cs, seen_cs
    mov %ss, seen_ss
    mov %cr0, %rax
    mov kernel_action, %eax
    jmp *%rax
plain:
sysret_here:
    sysretq
no_sce:
    mov %rcx, %r14
    SET_MSR EFER, 0, 0x100
    mov %r14, %rcx
    jmp plain
bad_rip:
    movabs $0x800000000000, %rcx
    jmp plain
set_tf:
    or $0x100, %r11
    jmp plain
set_ac:
    or $0x40000, %r11
    jmp plain
send:
    movl $0x44000 | IPI, 0x300(%r15)
5:
    testl $0x10000, 0x200 + IPI / 32 * 16(%r15) /* requested */
    jz 5b
    jmp plain
read_user:
    mov USER, %eax
    jmp plain

interrupted:
    incl interrupts
    mov 16(%rbx), %rax
    mov %rax, last_ip
    movl $0, 0xb0(%r15)
    ret

user_code:
user_calls:
    mov $TIMES, %ebx
user_again:
    syscall
user_returned:
    mov %cs, %r10d
user_stepped:
    lea -1(%rbx), %ebx /* flags stay */
    mov %ebx, %ecx
    jrcxz 1f
    jmp user_again
1:
    mov %r10d, %eax
    mov %eax, USER + user_cs - user_code
    int $USER_EXIT
user_privileged:
    mov $TIMES, %ebx
2:
    syscall
    dec %ebx
    jnz 2b
    mov %cr0, %rax
user_unaligned:
    mov $TIMES, %ebx
3:
    syscall
    dec %ebx
    jnz 3b
    mov USER + 1, %eax
    int $USER_EXIT
user_curious:
    mov $TIMES, %ebx
4:
    syscall
    dec %ebx
    jnz 4b
    mov calls, %eax
user_rdtsc:
    mov $TIMES, %ebx
5:
    rdtsc
    rdtscp
    dec %ebx
    jnz 5b
    int $USER_EXIT
user_cs: .quad 0
user_code_end:
    .set seen_user_cs, USER + user_cs - user_code
    BITS32

    .data
    .align 16
calls: .quad 0
other_calls: .quad 0
kernel_action: .quad 0
seen_r11: .quad 0
seen_cs: .quad 0
seen_ss: .quad 0
seen_flags: .quad 0
interrupts: .quad 0
last_ip: .quad 0
early: .quad 0
    .text
