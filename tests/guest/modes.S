/*
 * modes.S - real, protected 16 and 32 bits, PAE, long and compatibility mode, and back to real
 *
 * The 16-bit part runs from a copy at LOW, below 1 MiB.
 */
#include "runtime.inc"
#define LOW 0x8000
#define AT(label) (label - low_start + LOW)

main:
    mov $low_start, %esi
    mov $LOW, %edi
    mov $low_end - low_start, %ecx
    rep movsb
    mov $DATA16, %ebx
    ljmp $CODE16, $AT(protected16)

back_in_32:
    mov $DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov %eax, %fs
    mov $stack_top, %esp
    lidt idt32_pointer
    CHECK "16-bit protected mode: operands of 16 bits", AT(seen_width), $2
    CHECK "16-bit protected mode: data through FS", AT(seen_protected), $0x1234
    CHECK "real mode: PE reads as 0", AT(seen_msw), $0
    CHECK "real mode: a segment's base is 16 times the selector", AT(seen_real), $0x5678
    CHECK "real mode: the limit loaded in protected mode stays (unreal)", AT(seen_unreal), $0x1badb002
    CHECK "real mode: INT takes CS:IP from the vector table", AT(seen_int), $0xabcd
    CHECK "real mode: IRQ 0 ends HLT and counts ticks, as the BIOS leaves it", AT(seen_ticks), $2
    CHECK "real mode: beyond the limit is #GP", AT(seen_gp), $13
    mov %cr0, %eax
    and $1, %eax
    CHECK "protected mode again", %eax, $1

    /* PAE paging in 32-bit mode */
    call fill_tables
    mov $pdpt, %edi
    andb $0xf9, (%edi) /* R/W and U/S are reserved here */
    andb $0xf9, 8(%edi)
    andb $0xf9, 16(%edi)
    andb $0xf9, 24(%edi)
    mov %cr4, %eax
    or $0x20, %eax
    mov %eax, %cr4
    mov $pdpt, %eax
    mov %eax, %cr3
    mov %cr0, %eax
    or $0x80000000, %eax
    mov %eax, %cr0
    CHECK "PAE paging is on", _start_word, $0x11223344
    SET_MSR 0xc0000080, 0, 0
    TRY "SET_MSR 0xc0000080, 0, 0x100"
    CHECK_FAULT "EFER.LME cannot change while paging", 13, 0
    mov %cr0, %eax
    and $0x7fffffff, %eax
    mov %eax, %cr0
    SET_MSR 0xc0000080, 0, 0x100
    mov %cr4, %eax
    and $~0x20, %eax
    mov %eax, %cr4
    mov %cr0, %eax
    or $0x80000000, %eax
    TRY "mov %eax, %cr0"
    CHECK_FAULT "PG with LME and without PAE is #GP", 13, 0
    call enter_long
    BITS64
    mov $0xc0000080, %ecx
    rdmsr
    CHECK "long mode: LMA and LME", %rax, $0x500
    mov $0x123456789abcdef0, %rax
    shr $36, %rax
    CHECK "long mode: registers of 64 bits", %rax, $0x1234567
    mov $-1, %rax
    mov $5, %eax
    shr $32, %rax
    CHECK "long mode: a 32-bit result clears the upper half", %rax, $0
    mov %cr4, %rax
    and $~0x20, %rax
    TRY "mov %rax, %cr4"
    CHECK_FAULT "long mode: PAE cannot be cleared", 13, 0
    mov %cr0, %rax
    and $0x7fffffff, %eax
    TRY "mov %rax, %cr0"
    CHECK_FAULT "64-bit code cannot clear PG", 13, 0
    mov $0x800000000000, %rax
    TRY "mov (%rax), %al"
    CHECK_FAULT "a non-canonical address is #GP", 13, 0
    mov $0x800000000000, %rbp
    TRY "mov (%rbp), %al"
    CHECK_FAULT "a non-canonical address by RBP is #SS", 12, 0
    TRY ".byte 0x06"
    CHECK_FAULT "PUSH ES is #UD in 64-bit mode", 6, 0
    TRY ".byte 0xd4, 10"
    CHECK_FAULT "AAM is #UD in 64-bit mode", 6, 0
    ljmp *to_compatibility
    BITS32
compatibility:
    xor %eax, %eax
    dec %eax /* 48 is REX.W in 64-bit mode */
    CHECK "compatibility mode: 48 is DEC", %eax, $-1
    mov $0x100, %eax
    aam
    CHECK "compatibility mode: AAM", %eax, $0
    mov %cr0, %eax
    and $0x7fffffff, %eax
    mov %eax, %cr0
    mov $0xc0000080, %ecx
    rdmsr
    CHECK "leaving long mode: LMA is clear, LME stays", %eax, $0x100
    xor %eax, %eax
    wrmsr
    mov %cr4, %eax
    and $~0x20, %eax
    mov %eax, %cr4
    lidt idt32_pointer
    TRY "ud2"
    CHECK_FAULT "32-bit gates work again", 6, 0
    jmp finish32

    .data
_start_word: .long 0x11223344
to_compatibility: .long compatibility, CODE32

    .section .low, "awx", @progbits
low_start:
    .code16
protected16:
    mov %sp, %cx
    push %ax
    sub %sp, %cx
    add $2, %sp
    mov %ebx, %eax
    movw %ax, %fs
    movzwl %cx, %ecx
    mov %ecx, %fs:AT(seen_width)
    movl $0x1234, %fs:AT(seen_protected)
    mov %ax, %ds /* 16-bit limit, as real mode wants it */
    mov %ax, %ss
    mov $0x7000, %esp
    lidtl AT(real_idt)
    mov %cr0, %eax
    and $~1, %eax
    mov %eax, %cr0
    ljmp $0, $AT(real)
real:
    /* ES still holds the flat 4 GiB segment */
    mov $multiboot_header, %esi
    mov %es:(%esi), %edx
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %ss
    mov %edx, AT(seen_unreal)
    smsw %ax
    and $1, %eax
    mov %eax, AT(seen_msw)
    mov $0x1000, %ax
    mov %ax, %gs
    movl $0x5678, %gs:0x20
    mov $0x0ffe, %ax
    mov %ax, %gs
    mov %gs:0x40, %eax
    mov %eax, AT(seen_real)
    movw $AT(handler60), 0x60 * 4
    movw $0, 0x60 * 4 + 2
    movw $AT(handler13), 13 * 4
    movw $0, 13 * 4 + 2
    int $0x60

    /* the timer runs, and INT 8 and INT 1Ch have handlers */
    mov $0xfa, %al
    out %al, $0x21
    mov 0x46c, %ecx
    sti
    hlt
    hlt
    cli
    mov $0xff, %al
    out %al, $0x21
    mov 0x46c, %eax
    sub %ecx, %eax
    mov %eax, AT(seen_ticks)
    int $0x77
    mov $0xffff, %bx
    mov (%bx), %ax
real_after_gp:
    lgdtl AT(low_gdt)
    mov %cr0, %eax
    or $1, %eax
    mov %eax, %cr0
    ljmpl $CODE32, $back_in_32
handler60:
    movl $0xabcd, AT(seen_int)
    iret
handler13:
    movl $13, AT(seen_gp)
    mov %sp, %bx
    movw $AT(real_after_gp), (%bx)
    iret
    .align 8
low_gdt:
    .word gdt_end - gdt - 1
    .long gdt
    .align 8
real_idt:
    .word 0x3ff
    .long 0
    .align 8
seen_width: .long 0
seen_protected: .long 0
seen_msw: .long 0xffff
seen_real: .long 0
seen_unreal: .long 0
seen_int: .long 0
seen_gp: .long 0
seen_ticks: .long 0
low_end:
