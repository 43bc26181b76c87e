/*
 * gates.S - segment limits, expand-down segments, call gates with a change of ring, task switches
 */
#include "runtime.inc"
    .macro DESCRIPTOR index:req, low:req, high:req
    movl $\low, gdt + SPARE + 8 * \index
    movl $\high, gdt + SPARE + 8 * \index + 4
    .endm
    .macro LOAD_FS index:req
    mov $SPARE + 8 * \index, %eax
    mov %eax, %fs
    .endm

main:
    DESCRIPTOR 0, 0x00000fff, 0x00409310 /* data, base 0x100000, limit 0xfff */
    LOAD_FS 0
    TRY "mov %fs:0xffc, %eax"
    CHECK_NO_FAULT "limit: the last doubleword"
    TRY "mov %fs:0xffd, %eax"
    CHECK_FAULT "limit: one byte beyond is #GP(0)", 13, 0
    TRY "mov %fs:0xffffffff, %eax"
    CHECK_FAULT "limit: a wrap of the offset is #GP(0)", 13, 0
    DESCRIPTOR 0, 0x00000fff, 0x00409710 /* expand down, 32 bits */
    LOAD_FS 0
    TRY "mov %fs:0xfff, %al"
    CHECK_FAULT "expand-down: the limit itself is outside", 13, 0
    TRY "mov %fs:0x1000, %al"
    CHECK_NO_FAULT "expand-down: from limit + 1"
    DESCRIPTOR 0, 0x00000fff, 0x00009710 /* expand down, 16 bits */
    LOAD_FS 0
    TRY "mov %fs:0xffff, %al"
    CHECK_NO_FAULT "expand-down of 16 bits: up to 0xffff"
    TRY "mov %fs:0x10000, %al"
    CHECK_FAULT "expand-down of 16 bits: not beyond 0xffff", 13, 0
    DESCRIPTOR 0, 0x0000ffff, 0x00cf9100 /* read-only */
    LOAD_FS 0
    TRY "mov %al, %fs:0x200000"
    CHECK_FAULT "a write to a read-only segment is #GP(0)", 13, 0

    /* The next instruction already sees a segment that was flat before, and one that is again. */
    mov $0xffffe, %ebx
    DESCRIPTOR 0, 0x00000fff, 0x00409300 /* data, base 0, limit 0xfff */
    TRY "mov %es:2(%ebx), %eax"
    CHECK_NO_FAULT "ES is flat: far beyond the later limit"
    mov $SPARE, %ecx
    TRY "mov %ecx, %es; mov %es:2(%ebx), %eax"
    CHECK_FAULT "MOV ES: its limit holds for the next instruction", 13, 0
    mov $DATA, %edx
    mov $SPARE, %ecx
    TRY "mov %ecx, %es; mov %edx, %es; mov %es:2(%ebx), %eax"
    CHECK_NO_FAULT "MOV ES: the next instruction sees the flat segment again"
    mov $SPARE, %ecx
    TRY "push %ecx; pop %es; mov %es:2(%ebx), %eax"
    CHECK_FAULT "POP ES: its limit holds for the next instruction", 13, 0
    mov $DATA, %edx
    mov %edx, %es
    movl $stack_top + 0xfff, %eax
    shr $12, %eax
    mov %ax, gdt + SPARE
    movl $0x00c09300, gdt + SPARE + 4 /* base 0, the limit ends behind the stack */
    mov $0xffffe, %ebp
    mov $SPARE, %ecx
    TRY "mov %ecx, %ss; nop; mov %ss:0x7ffffffe, %eax"
    CHECK_FAULT "MOV SS: beyond its limit is #SS(0)", 12, 0
    TRY "mov 0xfffffffe, %eax"
    CHECK_FAULT "a flat segment ends at 4 GiB: #GP(0) across it", 13, 0
    TRY "mov 0xfffffffe, %ax"
    CHECK_NO_FAULT "a flat segment reaches up to 4 GiB"

    /* call gate to ring 0 with two parameters; EBX sees CS, ECX the first parameter */
    mov $gate_target, %eax
    mov %ax, gdt + SPARE + 8
    movw $CODE32, gdt + SPARE + 10
    movw $0xec02, gdt + SPARE + 12
    shr $16, %eax
    mov %ax, gdt + SPARE + 14
    TRY_USER32 user_gate
    CHECK_FAULT "call gate: ring 3 comes back", USER_EXIT, 0
    CHECK "call gate: the target runs at ring 0", seen_cs, $CODE32
    CHECK "call gate: parameters are copied", seen_parameter, $0x11112222
    CHECK "call gate: the stack is the TSS's", seen_sp, $(interrupt_stack_top-24)
    CHECK "call gate: the old SS is on it", seen_ss, $USER_DATA
    CHECK "call gate: RET n drops the parameters on both stacks", fault_sp, $user_stack_top
    movw $0x8c02, gdt + SPARE + 12
    TRY_USER32 user_gate
    CHECK_FAULT "call gate of DPL 0 from ring 3 is #GP(selector)", 13, (SPARE+8)
    movw $0x6c02, gdt + SPARE + 12
    TRY "lcall $0x70, $0"
    CHECK_FAULT "call gate not present is #NP(selector)", 11, (SPARE+8)

    /* tasks */
    mov $task, %eax
    DESCRIPTOR 2, 0x00000067, 0x00008900
    mov $SPARE + 16, %ebx
    call set_base
    TRY "lcall $0x78, $0"
    CHECK_NO_FAULT "CALL to a task and IRET back"
    CHECK "task: it ran with its EAX", task_eax, $0x12345678
    CHECK "task: the back link is the caller", task, $TSS32
    CHECK "task: NT is set in it", task_nt, $0x4000
    mov %cr0, %eax
    and $8, %eax
    CHECK "task switch sets TS", %eax, $8
    clts
    str %eax
    CHECK "task: TR is the old one again", %eax, $TSS32
    movzbl gdt + SPARE + 16 + 5, %eax
    CHECK "task: IRET clears its busy bit", %eax, $0x89
    TRY "ljmp $0x50, $0"
    CHECK_FAULT "JMP to the busy task is #GP(selector)", 13, TSS32
    movw $0, idt32 + 8 * 0x90
    movw $SPARE + 16, idt32 + 8 * 0x90 + 2
    movw $0x8500, idt32 + 8 * 0x90 + 4
    movl $0, task_eax
    TRY "int $0x90"
    CHECK_NO_FAULT "INT through a task gate and IRET back"
    CHECK "task gate: the task went on behind its IRET", task_eax, $0x12345679
    jmp finish32

gate_target:
    mov %cs, %eax
    mov %eax, seen_cs
    mov 8(%esp), %eax
    mov %eax, seen_parameter
    mov %esp, seen_sp
    mov 20(%esp), %eax
    mov %eax, seen_ss
    lret $8
user_gate:
    push $0x33334444
    push $0x11112222
    lcall $0x73, $0
    int $USER_EXIT

task_start:
    mov %eax, task_eax
    pushf
    pop %ecx
    and $0x4000, %ecx
    mov %ecx, task_nt
    inc %eax
    iret
    jmp task_start

    .data
    .align 8
seen_cs: .long 0
seen_parameter: .long 0
seen_sp: .long 0
seen_ss: .long 0
task_eax: .long 0
task_nt: .long 0
    .align 128
task:
    .long 0, interrupt_stack_top, DATA, 0, 0, 0, 0
    .long 0, task_start, 2
    .long 0x12345678, 0, 0, 0, ist1_top, 0, 0, 0
    .long DATA, CODE32, DATA, DATA, DATA, DATA
    .long 0
    .word 0, 0x68
    .text
