/*
 * syscall.S - SYSENTER, SYSEXIT, SYSCALL, SYSRET, SWAPGS, and the instructions for FS and GS bases
 *
 * As Intel's processors do them (SDM vol. 2, and vol. 3, 5.8.7 and 5.8.8). Some of it differs on
 * AMD's: SYSCALL outside 64-bit mode, and at which privilege SYSRET to a non-canonical RIP faults.
 */
#include "runtime.inc"
#define EFER 0xc0000080
#define STAR 0xc0000081
#define LSTAR 0xc0000082
#define FMASK 0xc0000084
#define FS_BASE 0xc0000100
#define GS_BASE 0xc0000101
#define KERNEL_GS_BASE 0xc0000102
#define SYSENTER_CS 0x174
#define SYSENTER_ESP 0x175
#define SYSENTER_EIP 0x176

    /* Enter ring 3 with chosen flags. */
    .macro ENTER_USER cs:req, code:req, flags:req, data=USER_DATA
    .if bits == 64
    movq $USER_DATA, frame + 32
    movq $user_stack_top, frame + 24
    movq $\flags, frame + 16
    movq $\cs, frame + 8
    movq $\code, frame
    TRY "mov $frame, %rsp; iretq"
    .else
    TRY "push $\data; push $user_stack_top; push $\flags; push $\cs; push $\code; iret"
    .endif
    .endm
    .macro HIGH_HALF name:req, of:req, want:req
    mov \of + 4, %eax
    CHECK "\name", %rax, $\want
    .endm
    /* What an entry point saw. */
    .macro ENTRY name:req, cs:req, ss:req, sp:req, flags:req
    CHECK_NO_FAULT "\name: no fault"
    CHECK "\name: CS", seen_cs, $\cs
    CHECK "\name: SS", seen_ss, $\ss
    CHECK "\name: RSP", seen_sp, $\sp
    CHECK "\name: flags", seen_flags, $\flags
    .endm
    /* Ring 3 ran at least one instruction and came back by INT. */
    .macro USER name:req, cs:req, ss:req, sp:req, flags:req
    CHECK_FAULT "\name: the next instruction runs", USER_EXIT, 0
    CHECK "\name: CS", fault_cs, $\cs
    CHECK "\name: SS", fault_ss, $\ss
    CHECK "\name: RSP", fault_sp, $\sp
    CHECK "\name: flags", fault_flags, $\flags
    .endm

main:
    /* ---- 32-bit protected mode ---- */
    SET_MSR EFER, 0, 1
    TRY "syscall"
    CHECK_FAULT "SYSCALL in protected mode is #UD", 6, 0
    TRY "sysret"
    CHECK_FAULT "SYSRET in protected mode is #UD", 6, 0
    TRY ".byte 0x0f, 0x01, 0xf8"
    CHECK_FAULT "SWAPGS in protected mode is #UD", 6, 0
    TRY ".byte 0xf3, 0x0f, 0xae, 0xc0"
    CHECK_FAULT "RDFSBASE in protected mode is #UD", 6, 0

    SET_MSR SYSENTER_CS, 0, 0
    SET_MSR SYSENTER_ESP, 0, sysenter_stack
    SET_MSR SYSENTER_EIP, 0, entry32
    TRY "sysenter"
    CHECK_FAULT "SYSENTER with CS 0 is #GP(0)", 13, 0
    TRY "sysexit"
    CHECK_FAULT "SYSEXIT with CS 0 is #GP(0)", 13, 0
    TRY_USER32 user_sysenter32
    CHECK_FAULT "SYSENTER with CS 0 at ring 3 is #GP(0)", 13, 0
    CHECK "SYSENTER with CS 0: the fault is at ring 3", fault_cs, $USER_CODE32
    SET_MSR SYSENTER_CS, 0, 3
    TRY "sysenter"
    CHECK_FAULT "SYSENTER with CS 3 is #GP(0): RPL does not count", 13, 0
    SET_MSR SYSENTER_CS, 0, CODE32
    ENTER_USER USER_CODE32, user_sysenter32, 0x247
    ENTRY "32-bit SYSENTER", CODE32, DATA, sysenter_stack, 0x47
    SET_MSR SYSENTER_CS, 0, (CODE32 + 3)
    ENTER_USER USER_CODE32, user_sysenter32, 0x202
    CHECK "SYSENTER: RPL of the MSR is ignored", seen_cs, $CODE32
    SET_MSR SYSENTER_CS, 0, CODE32
    TRY "sysenter"
    CHECK_NO_FAULT "SYSENTER at ring 0"
    TRY_USER32 user_sysexit32
    CHECK_FAULT "SYSEXIT at ring 3 is #GP(0)", 13, 0
    mov $user_exit32, %edx
    mov $user_stack_top - 16, %ecx
    TRY "push $0x93; popf; sysexit"
    USER "32-bit SYSEXIT", 0x1b, 0x23, (user_stack_top - 16), 0x93
    CHECK "32-bit SYSEXIT: EIP is EDX", fault_ip, $user_exit32_end

    /* ---- 64-bit mode ---- */
    call enter_long
    BITS64
    TRY "syscall"
    CHECK_FAULT "SYSCALL without EFER.SCE is #UD", 6, 0
    TRY "sysretq"
    CHECK_FAULT "SYSRET without EFER.SCE is #UD", 6, 0
    TRY_USER64 user_syscall
    CHECK_FAULT "SYSCALL without EFER.SCE at ring 3 is #UD", 6, 0
    SET_MSR EFER, 0, 0x101
    SET_MSR STAR, 0x00280018, 0
    SET_MSR LSTAR, 0, entry64
    SET_MSR FMASK, 0, 0
    TRY "push $0x8d7; popf; syscall; syscall_next: nop"
    CHECK_NO_FAULT "SYSCALL at ring 0"
    CHECK "SYSCALL: CS is STAR's", seen_cs, $CODE64
    CHECK "SYSCALL: SS is 8 more", seen_ss, $0x20
    CHECK "SYSCALL leaves RSP alone", seen_sp, resume_sp
    CHECK "SYSCALL with a mask of 0 leaves the flags alone", seen_flags, $0x8d7
    CHECK "SYSCALL: RCX is the next RIP", seen_rcx, $syscall_next
    HIGH_HALF "SYSCALL: RCX has 64 bits", seen_rcx, 0
    CHECK "SYSCALL: R11 is RFLAGS", seen_r11, $0x8d7
    SET_MSR FMASK, 0, 0x40701
    ENTER_USER USER_CODE64, user_syscall, 0x40ed7
    ENTRY "SYSCALL with a mask", CODE64, 0x20, user_stack_top, 0x8d6
    CHECK "SYSCALL: R11 is RFLAGS before the mask", seen_r11, $0x40ed7
    CHECK "SYSCALL at ring 3: RCX is the next RIP", seen_rcx, $user_syscall_next
    SET_MSR FMASK, 0, 0xffffffff
    ENTER_USER USER_CODE64, user_syscall, 0x40ad7
    CHECK "SYSCALL: a mask of all bits leaves bit 1", seen_flags, $2
    SET_MSR STAR, 0x0028001b, 0
    ENTER_USER USER_CODE64, user_syscall, 0x202
    CHECK "SYSCALL: CS ignores RPL in STAR", seen_cs, $CODE64
    SET_MSR STAR, 0x00280018, 0
    TRY ".byte 0xf0; syscall"
    CHECK_FAULT "LOCK SYSCALL is #UD", 6, 0
    ENTER_USER USER_CODE32, user_syscall, 0x202
    CHECK_FAULT "SYSCALL in compatibility mode is #UD", 6, 0
    CHECK "SYSCALL in compatibility mode: the fault is at ring 3", fault_cs, $USER_CODE32
    ENTER_USER USER_CODE32, user_sysret, 0x202
    CHECK_FAULT "SYSRET in compatibility mode is #UD", 6, 0

    ENTER_USER USER_CODE64, user_sysret, 0x202
    CHECK_FAULT "SYSRET at ring 3 is #GP(0)", 13, 0
    mov $user_exit64, %ecx
    mov $0x202, %r11d
    TRY "mov $user_stack_top - 64, %esp; sysretq"
    USER "SYSRET to 64 bits", USER_CODE64, USER_DATA, (user_stack_top - 64), 0x202
    CHECK "SYSRET to 64 bits: RIP is RCX", fault_ip, $user_exit64_end
    mov $user_exit64, %ecx
    mov $0xfffffffffffffeff, %r11
    TRY "mov $user_stack_top - 64, %esp; sysretq"
    CHECK "SYSRET: R11 without RF, VM and reserved bits", fault_flags, $0x3c7ed7
    mov $user_exit64, %ecx
    xor %r11d, %r11d
    TRY "mov $user_stack_top - 64, %esp; sysretq"
    CHECK "SYSRET: bit 1 of the flags is set", fault_flags, $2
    SET_MSR STAR, 0x002b0018, 0
    mov $user_exit64, %ecx
    TRY "mov $user_stack_top - 64, %esp; sysretq"
    CHECK "SYSRET: RPL 3 in STAR changes nothing, CS", fault_cs, $USER_CODE64
    CHECK "SYSRET: RPL 3 in STAR changes nothing, SS", fault_ss, $USER_DATA
    movabs $0xabcdef0100000000 + user_exit_any, %rcx
    mov $0x202, %r11d
    TRY "mov $user_stack_top - 64, %esp; sysretl"
    USER "SYSRET to 32 bits", USER_CODE32, USER_DATA, (user_stack_top - 64), 0x202
    CHECK "SYSRET to 32 bits: EIP is ECX", fault_ip, $user_exit_any_end
    CHECK "SYSRET to 32 bits: in 32-bit code", %rsi, $0
    mov $user_exit_any, %ecx
    TRY "mov $user_stack_top - 64, %esp; sysretq"
    CHECK "SYSRET to 64 bits: in 64-bit code", %rsi, $user_exit_any_int
    movabs $0x0000800000000000, %rcx
    mov %rsp, saved
    TRY "sysret_at: sysretq"
    CHECK_FAULT "SYSRET to a non-canonical RIP is #GP(0)", 13, 0
    CHECK "SYSRET to a non-canonical RIP: the fault is at ring 0", fault_cs, $CODE64
    CHECK "SYSRET to a non-canonical RIP: and at the SYSRET", fault_ip, $sysret_at

    /* SYSENTER and SYSEXIT with IA-32e mode active */
    SET_MSR SYSENTER_CS, 0, 0
    TRY "sysenter"
    CHECK_FAULT "64-bit SYSENTER with CS 0 is #GP(0)", 13, 0
    TRY "sysexitq"
    CHECK_FAULT "64-bit SYSEXIT with CS 0 is #GP(0)", 13, 0
    SET_MSR SYSENTER_CS, 0, CODE64
    SET_MSR SYSENTER_ESP, 0xffffffff, 0x81234560
    SET_MSR SYSENTER_EIP, 0, entry64
    movl $1, no_stack
    ENTER_USER USER_CODE64, user_sysenter64, 0x246
    CHECK_NO_FAULT "64-bit SYSENTER"
    CHECK "64-bit SYSENTER: RSP", seen_sp, $(0x81234560-0x100000000)
    HIGH_HALF "64-bit SYSENTER: RSP has 64 bits", seen_sp, -1
    CHECK "64-bit SYSENTER: CS", seen_cs, $CODE64
    CHECK "64-bit SYSENTER: SS", seen_ss, $0x20
    SET_MSR SYSENTER_ESP, 0, sysenter_stack
    movl $0, no_stack
    ENTER_USER USER_CODE64, user_sysenter64, 0x247
    ENTRY "64-bit SYSENTER", CODE64, 0x20, sysenter_stack, 0x47
    ENTER_USER USER_CODE32, user_sysenter32, 0x203
    ENTRY "SYSENTER from compatibility mode", CODE64, 0x20, sysenter_stack, 3
    ENTER_USER USER_CODE64, user_sysexit64, 0x202
    CHECK_FAULT "64-bit SYSEXIT at ring 3 is #GP(0)", 13, 0
    mov $user_exit_any, %edx
    mov $user_stack_top - 32, %ecx
    TRY "push $0x93; popf; sysexitq"
    USER "SYSEXIT to 64 bits", 0x3b, 0x43, (user_stack_top - 32), 0x93
    CHECK "SYSEXIT to 64 bits: RIP is RDX", fault_ip, $user_exit_any_end
    CHECK "SYSEXIT to 64 bits: in 64-bit code", %rsi, $user_exit_any_int
    movabs $0x1234567800000000 + user_exit_any, %rdx
    movabs $0x8765432100000000 + user_stack_top - 32, %rcx
    TRY "push $0x93; popf; sysexitl"
    USER "SYSEXIT to 32 bits", 0x2b, 0x33, (user_stack_top - 32), 0x93
    CHECK "SYSEXIT to 32 bits: EIP is EDX", fault_ip, $user_exit_any_end
    CHECK "SYSEXIT to 32 bits: in 32-bit code", %rsi, $0
    movabs $0x0000800000000000, %rdx
    mov $user_stack_top, %ecx
    TRY "sysexitq"
    CHECK_FAULT "64-bit SYSEXIT with a non-canonical RDX is #GP(0)", 13, 0
    CHECK "64-bit SYSEXIT: that fault is at ring 0", fault_cs, $CODE64
    mov $user_exit64, %edx
    movabs $0x8000000000000000, %rcx
    TRY "sysexitq"
    CHECK_FAULT "64-bit SYSEXIT with a non-canonical RCX is #GP(0)", 13, 0

    /* SWAPGS */
    SET_MSR GS_BASE, 0xffff8000, 0x11111000
    SET_MSR KERNEL_GS_BASE, 0, words
    movl $0x600d, words + 8
    swapgs
    mov %gs:8, %eax
    CHECK "SWAPGS: GS is what was in KERNEL_GS_BASE", %rax, $0x600d
    mov $GS_BASE, %ecx
    rdmsr
    CHECK "SWAPGS: GS_BASE", %rax, $words
    mov $KERNEL_GS_BASE, %ecx
    rdmsr
    CHECK "SWAPGS: KERNEL_GS_BASE, low", %rax, $0x11111000
    CHECK "SWAPGS: KERNEL_GS_BASE, high", %rdx, $-0x8000
    swapgs
    mov $GS_BASE, %ecx
    rdmsr
    CHECK "SWAPGS twice: GS_BASE", %rdx, $-0x8000
    TRY_USER64 user_swapgs
    CHECK_FAULT "SWAPGS at ring 3 is #GP(0)", 13, 0
    ENTER_USER USER_CODE32, user_swapgs, 2
    CHECK_FAULT "SWAPGS in compatibility mode is #UD", 6, 0
    TRY ".byte 0xf0; swapgs"
    CHECK_FAULT "LOCK SWAPGS is #UD", 6, 0

    /* RDFSBASE and the like */
    SET_MSR FS_BASE, 0x1234, 0x56789abc
    TRY "rdfsbase %rbx"
    CHECK_FAULT "RDFSBASE without CR4.FSGSBASE is #UD", 6, 0
    TRY "rdgsbase %rbx"
    CHECK_FAULT "RDGSBASE without CR4.FSGSBASE is #UD", 6, 0
    TRY "wrfsbase %rbx"
    CHECK_FAULT "WRFSBASE without CR4.FSGSBASE is #UD", 6, 0
    TRY "wrgsbase %rbx"
    CHECK_FAULT "WRGSBASE without CR4.FSGSBASE is #UD", 6, 0
    mov %cr4, %rax
    or $0x10000, %eax
    mov %rax, %cr4
    rdfsbase %rbx
    CHECK "RDFSBASE, low", %rbx, $0x56789abc
    shr $32, %rbx
    CHECK "RDFSBASE, high", %rbx, $0x1234
    mov $-1, %rbx
    rdfsbase %ebx
    CHECK "RDFSBASE of 32 bits", %rbx, $0x56789abc
    shr $32, %rbx
    CHECK "RDFSBASE of 32 bits clears the upper half", %rbx, $0
    movabs $0xfffff00012340000, %rbx
    wrgsbase %rbx
    mov $GS_BASE, %ecx
    rdmsr
    CHECK "WRGSBASE, low", %rax, $0x12340000
    CHECK "WRGSBASE, high", %rdx, $-0x1000
    movabs $0xffffffff00000000 + words, %rbx
    wrfsbase %ebx
    mov $FS_BASE, %ecx
    rdmsr
    CHECK "WRFSBASE of 32 bits, low", %rax, $words
    CHECK "WRFSBASE of 32 bits clears the upper half", %rdx, $0
    mov %fs:8, %eax
    CHECK "WRFSBASE: FS is there", %rax, $0x600d
    movabs $0x0000800000000000, %rbx
    TRY "wrfsbase %rbx"
    CHECK_FAULT "WRFSBASE of a non-canonical address is #GP(0)", 13, 0
    movabs $0xffff7fffffffffff, %rbx
    TRY "wrgsbase %rbx"
    CHECK_FAULT "WRGSBASE of a non-canonical address is #GP(0)", 13, 0
    rdfsbase %rbx
    CHECK "a refused WRFSBASE changes nothing", %rbx, $words
    TRY_USER64 user_wrfsbase
    CHECK_FAULT "WRFSBASE at ring 3", USER_EXIT, 0
    CHECK "WRFSBASE at ring 3: RDFSBASE", %rsi, $0x7654321
    ENTER_USER USER_CODE32, user_rdfsbase, 2
    CHECK_FAULT "RDFSBASE in compatibility mode is #UD", 6, 0
    TRY ".byte 0xf0; rdfsbase %rbx"
    CHECK_FAULT "LOCK RDFSBASE is #UD", 6, 0
    movabs $0x7fff00001000, %rbx
    wrgsbase %rbx
    mov $DATA, %eax
    mov %eax, %gs
    rdgsbase %rbx
    CHECK "a load of GS replaces the whole base", %rbx, $0
    jmp finish64

    /* Where SYSCALL and 64-bit SYSENTER go. */
entry64:
    mov %rcx, seen_rcx
    mov %r11, seen_r11
    mov %rsp, seen_sp
    mov %cs, seen_cs
    mov %ss, seen_ss
    mov no_stack, %ecx /* without a change of flags */
    jrcxz 1f
    jmp 2f
1:
    pushf
    pop seen_flags
    push $2
    popf
2:
    mov %cr0, %rax /* only at ring 0 */
    movslq resume_sp, %rsp
    mov resume_ip, %eax
    jmp *%rax

user_syscall: syscall
user_syscall_next:
    int $USER_EXIT
user_sysret: sysretl
user_sysenter64: sysenter
user_sysexit64:
    mov $user_exit64, %edx
    mov $user_stack_top, %ecx
    sysexitq
user_exit64: int $USER_EXIT
user_exit64_end:
    /* LEA 0(%rip), %esi in 64-bit code, LEA 0, %esi in 32-bit code; flags stay. */
user_exit_any:
    .byte 0x8d, 0x35, 0, 0, 0, 0
user_exit_any_int:
    int $USER_EXIT
user_exit_any_end:
user_swapgs: swapgs
user_rdfsbase: rdfsbase %eax
user_wrfsbase:
    mov $0x7654321, %ebx
    wrfsbase %rbx
    rdfsbase %rsi
    int $USER_EXIT

    BITS32
entry32:
    mov $DATA, %eax /* IRET to ring 3 took them away */
    mov %eax, %ds
    mov %eax, %es
    mov %esp, seen_sp
    mov %cs, seen_cs
    mov %ss, seen_ss
    pushf
    pop seen_flags
    mov %cr0, %eax
    mov resume_sp, %esp
    jmp *resume_ip
user_sysenter32: sysenter
user_sysexit32:
    mov $user_exit32, %edx
    mov $user_stack_top, %ecx
    sysexit
user_exit32: int $USER_EXIT
user_exit32_end:

    .data
    .align 16
seen_rcx: .quad 0
seen_r11: .quad 0
seen_sp: .quad 0
seen_flags: .quad 0
seen_cs: .quad 0
seen_ss: .quad 0
saved: .quad 0
no_stack: .quad 0
words: .quad 0, 0
frame: .quad 0, 0, 0, 0, 0
    .bss
    .align 16
    .space 512
sysenter_stack:
    .space 16
    .text
