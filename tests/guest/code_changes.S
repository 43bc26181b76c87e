/*
 * code_changes.S - code that changes while it runs: its own, by another name, by other processors
 *
 * SDM vol. 3, 8.1.3 (handling self- and cross-modifying code) and 11.6 (self-modifying code).
 * Values that are written are of 32 bits and grow, so that a reader knows a late one. What other
 * processors do ends by the time stamp counter and not by a count: on a busy host a handover
 * between processors may take as long as a time slice.
 */
#include "runtime.inc"
    .set OTHERS, 2
#define PHASE_TICKS 250000000 /* a quarter of a second of a 1 GHz counter */
#define WINDOW 0x40000000     /* linear pages for page_one, page_two */

    /* Instructions that mean the same in both modes. */
    .macro SELF mode:req
    xor %ecx, %ecx
    movb $2, 7781f + 1
7781:
    mov $1, %ecx
    CHECK_ECX "\mode: a store to the next instruction", 2
    mov $3, %eax
    xor %ecx, %ecx
    lock addb %al, 7782f + 1
7782:
    mov $1, %ecx
    CHECK_ECX "\mode: a locked addition to the next instruction", 4
    mov $0x77, %eax
    xchg %eax, 7783f + 1
7783:
    mov $1, %ecx
    CHECK_ECX "\mode: XCHG with the next instruction", 0x77
    mov $1, %eax
    mov $0x78, %edx
    lock cmpxchg %edx, 7784f + 1
7784:
    mov $1, %ecx
    CHECK_ECX "\mode: CMPXCHG of the next instruction", 0x78
    movl $0x79, scratch
    movd scratch, %xmm0
    movd %xmm0, 7785f + 1
7785:
    mov $1, %ecx
    CHECK_ECX "\mode: an SSE store to the next instruction", 0x79
    fninit
    fildl scratch
    fistpl 7786f + 1
7786:
    mov $1, %ecx
    CHECK_ECX "\mode: an x87 store to the next instruction", 0x79
    movl $0x7a, scratch
    mov $scratch, %esi
    mov $7787f + 1, %edi
    mov $4, %ecx
    rep movsb
7787:
    mov $1, %ecx
    CHECK_ECX "\mode: REP MOVSB over the next instruction", 0x7a
    mov $0x7b7b7b7b, %eax
    mov $7788f + 1, %edi
    mov $1, %ecx
    rep stosl
7788:
    mov $1, %ecx
    CHECK_ECX "\mode: REP STOSL over the next instruction", 0x7b7b7b7b
    movb $2, 7789f + 1
    nop
    nop
    jmp 7789f
7789:
    mov $1, %ecx
    CHECK_ECX "\mode: a store, then a jump", 2
    /* A changed opcode: INC becomes DEC. */
    mov $10, %ecx
    xorb $8, 7790f + 1
7790:
    .byte 0xff, 0xc1 /* INC ECX */
    CHECK_ECX "\mode: another opcode", 9
    /* One instruction with a new operand each time around a loop. */
    xor %ecx, %ecx
    mov $1000, %edx
7791:
    mov %edx, 7792f + 2
7792:
    add $0x11111111, %ecx
    dec %edx
    jnz 7791b
    CHECK_ECX "\mode: a loop that changes itself 1000 times", 500500
    /* An instruction that crosses a page, changed in the second page. */
    movl $0x12345678, crossing + 1
    call crossing
    mov %eax, %ecx
    CHECK_ECX "\mode: an instruction that crosses a page", 0x12345678
    xor %ecx, %ecx
    mov $1000, %edx
7793:
    mov %dl, crossing + 4 /* the last byte of the immediate */
    call crossing
    shr $24, %eax
    add %eax, %ecx
    dec %edx
    jnz 7793b
    CHECK_ECX "\mode: its second page changes 1000 times", (3 * (255 * 128) + 232 * 233 / 2)
    xor %ecx, %ecx
    mov $1000, %edx
7794:
    mov %dl, crossing + 1 /* still in the first page */
    call crossing
    movzbl %al, %eax
    add %eax, %ecx
    dec %edx
    jnz 7794b
    CHECK_ECX "\mode: its first page changes 1000 times", (3 * (255 * 128) + 232 * 233 / 2)
    /* Data beside code: in the same 64 bytes, and in the same page. */
    movl $0, beside_near
    movl $0, beside_far
    mov $2000, %edx
7795:
    call beside
    dec %edx
    jnz 7795b
    mov beside_near, %ecx
    CHECK_ECX "\mode: data in the same line as code", 2000
    mov beside_far, %ecx
    CHECK_ECX "\mode: data in the same page as code", 2000
    .endm
    .macro CHECK_ECX name:req, want:req
    .if bits == 64
    CHECK "\name", %rcx, $\want
    .else
    CHECK "\name", %ecx, $\want
    .endif
    .endm

main:
    mov %cr0, %eax
    or $0x20, %eax /* NE */
    mov %eax, %cr0
    mov %cr4, %eax
    or $0x600, %eax /* OSFXSR, OSXMMEXCPT */
    mov %eax, %cr4
    SELF "32-bit"
    /* Return addresses that are code. */
    mov %esp, %esi
    mov $7781f + 5, %esp
    push $0x55
7781:
    mov $1, %ecx
    mov %esi, %esp
    CHECK "32-bit: PUSH over the next instruction", %ecx, $0x55

    START_OTHERS other
2:
    pause
    cmpl $OTHERS, started
    jne 2b

    call enter_long
    BITS64
    mov $1, %eax
    mov %eax, in_long_mode
    SELF "64-bit"
    call aliases
    call flag_phase
    call call_phase
    call trap_phase
    call beside_phase
    jmp finish64

/* ---- one physical page under several linear addresses ---- */

aliases:
    movl $window_pd + 7, pdpt + 8
    movl $window_pt + 7, window_pd
    movl $page_one + 7, window_pt       /* WINDOW + 0 */
    movl $page_one + 7, window_pt + 8   /* WINDOW + 0x1000 */
    movl $page_two + 7, window_pt + 16  /* WINDOW + 0x2000 */
    mov %cr3, %rax
    mov %rax, %cr3
    mov $page_code, %esi
    mov $page_one, %edi
    mov $page_code_end - page_code, %ecx
    rep movsb
    mov $page_code, %esi
    mov $page_two, %edi
    mov $page_code_end - page_code, %ecx
    rep movsb
    movl $2, page_two + (alias_value - page_code) + 1

    mov $WINDOW + alias_value - page_code, %ebx
    mov $WINDOW + 0x1000 + alias_value - page_code, %ebp
    call *%rbx
    CHECK "aliases: by the first address", %rax, $1
    call *%rbp
    CHECK "aliases: by the second", %rax, $1
    movl $10, page_one + (alias_value - page_code) + 1
    call *%rbx
    CHECK "aliases: written by a third, seen by the first", %rax, $10
    call *%rbp
    CHECK "aliases: written by a third, seen by the second", %rax, $10
    movl $11, 1(%rbx)
    call *%rbp
    CHECK "aliases: written by the first, seen by the second", %rax, $11
    movl $12, 1(%rbp)
    call *%rbx
    CHECK "aliases: written by the second, seen by the first", %rax, $12
    xor %ecx, %ecx
    mov $1000, %edx
1:
    mov %edx, 1(%rbp)
    call *%rbx
    add %eax, %ecx
    dec %edx
    jnz 1b
    CHECK "aliases: 1000 changes", %rcx, $500500
    mov $WINDOW + alias_where - page_code, %eax
    call *%rax
    CHECK "aliases: RIP by the first address", %rax, $(WINDOW+alias_rip-page_code)
    mov $WINDOW + 0x1000 + alias_where - page_code, %eax
    call *%rax
    CHECK "aliases: RIP by the second address", %rax, $(WINDOW+0x1000+alias_rip-page_code)
    mov $WINDOW + alias_next - page_code, %eax
    call *%rax
    CHECK "aliases: a jump lands in the other alias", %rax, $(WINDOW+0x1000+alias_rip-page_code)
    mov $WINDOW + alias_self - page_code, %eax
    call *%rax
    CHECK "aliases: code changes itself by another address", %rax, $0x44

    /* Another page under the same address. */
    call *%rbx
    movl $page_two + 7, window_pt
    mov $WINDOW, %eax
    invlpg (%rax)
    call *%rbx
    CHECK "another page under an address: INVLPG", %rax, $2
    movl $page_one + 7, window_pt
    mov %cr3, %rax
    mov %rax, %cr3
    call *%rbx
    CHECK "another page under an address: MOV to CR3", %rax, $1
    /* An instruction that crosses into a page that is exchanged, called by code of the first. */
    movb $0xb8, page_one + 0xffe /* mov $imm32, %eax, then three bytes in the next page */
    movb $0x21, page_one + 0xfff
    movl $0xc3000000, page_one
    movl $0xc3000005, page_two
    movl $page_two + 7, window_pt
    mov %cr3, %rax
    mov %rax, %cr3
    mov $WINDOW + 0x1000 + alias_loop - page_code, %ebx
    call *%rbx
    call *%rbx
    CHECK "an instruction across two pages", %rax, $0x00000521
    movl $page_one + 7, window_pt + 16
    mov $WINDOW + 0x2000, %eax
    invlpg (%rax)
    call *%rbx
    CHECK "its second page is exchanged", %rax, $0x21
    movl $0xc3000006, page_one
    call *%rbx
    CHECK "its second page is written", %rax, $0x621
    xor %ebp, %ebp
    mov $1000, %edx
1:
    mov %dl, page_one
    call *%rbx
    movzbl %ah, %eax
    add %eax, %ebp
    dec %edx
    jnz 1b
    CHECK "its second page is written 1000 times", %rbp, $(3 * (255 * 128) + 232 * 233 / 2)
    ret

    /* Copied to the start of page_one and page_two; nothing in it is relative to its outside. */
    .balign 64
page_code:
    .fill 16, 1, 0x90
alias_value:
    mov $1, %eax
    ret
alias_next:
    jmp alias_where + 0x1000
alias_where:
    lea (%rip), %rax
alias_rip:
    ret
alias_self: /* the 1000h address writes what follows here, at the 0 one */
    movl $0x44, WINDOW + 0x1001 + (alias_changed - page_code)
alias_changed:
    mov $0x43, %eax
    ret
alias_loop: /* twice, so that the jump is linked if it may be */
    mov $2, %ecx
2:
    call page_code + 0xffe
    dec %ecx
    jnz 2b
    ret
page_code_end:

/* ---- the other processors ---- */

    /* Time is up: CF clear. Destroys RAX, RDX. */
time_left:
    rdtsc
    shl $32, %rdx
    or %rdx, %rax
    cmp deadline, %rax
    ret
    /* Phase \number begins. */
    .macro BEGIN number:req
    movl $0, finished
    movl $0, stop
    movl $0, errors
    call time_left
    add $PHASE_TICKS, %rax
    mov %rax, deadline
    movl $\number, phase
    .endm
    .macro END
    movl $1, stop
7781:
    pause
    cmpl $OTHERS, finished
    jne 7781b
    .endm
    /* \value as 1 if it is not 0 */
    .macro CHECK_SOME name:req, value:req
    cmpl $0, \value
    setne %al
    movzbl %al, %eax
    CHECK "\name", %rax, $1
    .endm

/*
 * The algorithm of the SDM: change, then set a flag; the others wait for the flag, execute a
 * serializing instruction, and run into what was changed without a branch.
 */
flag_phase:
    BEGIN 1
    xor %r12d, %r12d
1:
    inc %r12d
    mov %r12d, flag_site + 1
    mov %r12d, lgdt_site + 1
    mov %r12d, flag
2:
    pause
    cmp %r12d, acknowledged + 4
    jne 2b
    cmp %r12d, acknowledged + 8
    jne 2b
    call time_left
    jb 1b
    END
    CHECK_SOME "changed code and a flag: rounds", flag
    CHECK "changed code behind a flag and a serializing instruction is new", errors, $0
    ret
flag_other:
    mov $1, %r12d
1:
    pause
    cmpl $0, stop
    jne 9f
    cmp %r12d, flag
    jb 1b
    xor %eax, %eax
    cpuid
flag_site:
    mov $0, %eax
    cmp %r12d, %eax
    je 2f
    lock incl errors
2:
    lgdt gdt_pointer
lgdt_site:
    mov $0, %eax
    cmp %r12d, %eax
    je 3f
    lock incl errors
3:
    mov %r12d, acknowledged(,%rbp,4)
    inc %r12d
    jmp 1b
9:
    ret

/* Aligned stores of eight bytes over two functions; nobody waits for anybody. */
call_phase:
    BEGIN 2
    mov $0x100, %r12d
    movabs $0x9090c300000000b8, %r13 /* mov $0, %eax; ret */
1:
    inc %r12d
    mov %r12, %rax
    shl $8, %rax
    or %r13, %rax
    mov %rax, call_one
    mov %rax, call_two
    mov %r12d, published
    test $15, %r12b
    jnz 1b
    cmp $0xfffff0, %r12d
    jae 2f
    call time_left
    jb 1b
2:
    END
    CHECK_SOME "atomic changes: calls", calls
    CHECK "atomic changes: a call is never older than what was published before it", errors, $0
    call call_one
    cmp %r12d, %eax
    setne %cl
    movzbl %cl, %ecx
    CHECK "atomic changes: the last one is there", %rcx, $0
    ret
call_other:
    call call_once
    cmpl $0, stop
    je call_other
call_once:
    mov published, %r12d
    xor %eax, %eax
    cpuid
    call call_one
    cmp %r12d, %eax
    jae 1f
    lock incl errors
1:
    call call_two
    cmp %r12d, %eax
    jae 2f
    lock incl errors
2:
    lock incl calls
    ret

/* A function is changed behind an INT3, which comes first and goes last. */
trap_phase:
    movl $trap_hook, hooks + 3 * 4
    BEGIN 3
    mov $0x01010101, %r12d
1:
    movb $0xcc, trap_target
    call both_serialized
    add $0x01010101, %r12d
    mov %r12d, trap_target + 1
    call both_serialized
    movb $0xb8, trap_target
    call both_serialized
    incl trap_rounds
    cmp $0x7f7f7f7f, %r12d
    jne 2f
    mov $0x01010101, %r12d
2:
    call time_left
    jb 1b
    END
    movl $0, hooks + 3 * 4
    CHECK_SOME "changes behind INT3: rounds", trap_rounds
    CHECK_SOME "changes behind INT3: some calls met it", traps
    CHECK "changes behind INT3: no call saw half a change", errors, $0
    ret
both_serialized: /* each of the others begins another round, and so serializes */
    mov rounds + 4, %eax
    mov rounds + 8, %ecx
1:
    pause
    mov rounds + 4, %edx
    sub %eax, %edx
    cmp $2, %edx
    jb 1b
2:
    pause
    mov rounds + 8, %edx
    sub %ecx, %edx
    cmp $2, %edx
    jb 2b
    ret
trap_hook:
    lock incl traps
    addq $4, 16(%rbx) /* over the rest of the instruction */
    ret
trap_other:
    xor %eax, %eax
    cpuid
    incl rounds(,%rbp,4)
    mov $0x7e7e7e7e, %eax
    call trap_target
    mov %eax, %ecx /* four equal bytes */
    rol $8, %ecx
    cmp %eax, %ecx
    je 1f
    lock incl errors
1:
    cmpl $0, stop
    je trap_other
    /* the writer may still wait in both_serialized: it sets stop outside of it only */
    ret

/* Both call a function that counts beside its own code, and count by themselves. */
beside_phase:
    movl $0, beside_shared
    movl $0, counted
    BEGIN 4
    xor %r12d, %r12d
1:
    call beside_all
    inc %r12d
    call time_left
    jb 1b
    lock add %r12d, counted
    END
    CHECK_SOME "counting beside code: calls", counted
    mov counted, %eax
    sub beside_shared, %eax
    CHECK "counting beside code that all processors run", %rax, $0
    ret
beside_other:
    xor %r12d, %r12d
1:
    call beside_all
    inc %r12d
    cmpl $0, stop
    je 1b
    lock add %r12d, counted
    ret

    BITS32
other:
    mov $1, %ebp
    lock xadd %ebp, numbers
    mov %ebp, %ebx
    shl $12, %ebx
    lea other_stacks(%ebx), %esp
    lock incl started
1:
    pause
    cmpl $0, in_long_mode
    je 1b
    mov $0x620, %eax
    mov %eax, %cr4
    mov $pml4, %eax
    mov %eax, %cr3
    SET_MSR 0xc0000080, 0, 0x100
    mov $0x80010011, %eax
    mov %eax, %cr0
    ljmp $CODE64, $2f
    BITS64
2:
    lidt idt64_pointer
    mov %esp, %esp
    .macro OTHER_PHASE number:req, function:req
7781:
    pause
    cmpl $\number, phase
    jne 7781b
    call \function
    lock incl finished
    .endm
    OTHER_PHASE 1, flag_other
    OTHER_PHASE 2, call_other
    OTHER_PHASE 3, trap_other
    OTHER_PHASE 4, beside_other
3:
    cli
    hlt
    jmp 3b

    /* The same bytes in both modes. */
    .balign 4096
    .fill 4096 - 3, 1, 0x90
crossing:
    mov $0x11111111, %eax
    ret
    .balign 64
beside_near: .long 0
beside:
    mov beside_near_address, %eax
    incl (%rax)
    mov beside_far_address, %eax
    incl (%rax)
    ret
    .balign 64
beside_all:
    lock incl beside_shared
    ret
beside_shared: .long 0
    .balign 64
call_one: .quad 0x9090c300000000b8
    .balign 64
call_two: .quad 0x9090c300000000b8
    .balign 64
trap_target:
    mov $0x01010101, %eax
    ret
    .balign 1024
beside_far: .long 0
    .balign 4096
    BITS32

    .data
    .align 64
beside_near_address: .long beside_near
beside_far_address: .long beside_far
deadline: .quad 0
started: .long 0
numbers: .long 1
in_long_mode: .long 0
phase: .long 0
stop: .long 0
finished: .long 0
errors: .long 0
flag: .long 0
published: .long 0
calls: .long 0
traps: .long 0
trap_rounds: .long 0
counted: .long 0
scratch: .long 0
acknowledged: .long 0, 0, 0
rounds: .long 0, 0, 0
    .bss
    .align 4096
window_pd: .space 4096
window_pt: .space 4096
page_one: .space 4096
page_two: .space 4096
other_stacks: .space (OTHERS + 2) * 4096
