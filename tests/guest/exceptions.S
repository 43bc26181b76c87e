/*
 * exceptions.S - vectors, error codes, priorities, double faults, single step, debug registers
 */
#include "runtime.inc"

main:
    TRY "ud_at: ud2"
    CHECK_FAULT "UD2 is #UD", 6, 0
    CHECK "a fault's IP is the instruction", fault_ip, $ud_at
    mov fault_flags, %eax
    and $0x10000, %eax
    CHECK "a fault's frame has RF", %eax, $0x10000
    xor %edx, %edx
    xor %ecx, %ecx
    TRY "div %ecx"
    CHECK_FAULT "division by zero is #DE", 0, 0
    TRY "int3"
    CHECK_FAULT "INT3 is #BP", 3, 0
    TRY "int3_at: int3; int3_next: nop"
    CHECK "a trap's IP is the next instruction", fault_ip, $int3_next
    mov $0x7fffffff, %eax
    add $1, %eax
    TRY "into"
    CHECK_FAULT "INTO with OF is #OF", 4, 0
    clc
    xor %eax, %eax
    TRY "into"
    CHECK_NO_FAULT "INTO without OF does nothing"
    movl $10, bound_pair
    movl $20, bound_pair + 4
    mov $21, %eax
    TRY "bound %eax, bound_pair"
    CHECK_FAULT "BOUND outside is #BR", 5, 0
    mov $20, %eax
    TRY "bound %eax, bound_pair"
    CHECK_NO_FAULT "BOUND inside"
    mov %cr0, %eax
    or $8, %eax
    mov %eax, %cr0
    TRY "fninit"
    CHECK_FAULT "x87 with TS is #NM", 7, 0
    clts
    TRY "int $0x81"
    CHECK_FAULT "INT n", 0x81, 0
    mov $0xfff8, %eax
    TRY "mov $0xfff8, %eax; mov %eax, %fs"
    CHECK_FAULT "selector outside the GDT: #GP(selector)", 13, 0xfff8
    TRY "mov $0x6f, %eax; mov %eax, %fs"
    CHECK_FAULT "selector in a null LDT: #GP(selector)", 13, 0x6c
    movl $0x0000ffff, gdt + SPARE
    movl $0x00cf1300, gdt + SPARE + 4
    TRY "mov $0x68, %eax; mov %eax, %fs"
    CHECK_FAULT "data segment not present: #NP(selector)", 11, 0x68
    TRY "mov $0x68, %eax; mov %eax, %ss"
    CHECK_FAULT "stack segment not present: #SS(selector)", 12, 0x68
    TRY "mov $0x2b, %eax; mov %eax, %ss"
    CHECK_FAULT "code segment in SS: #GP(selector)", 13, 0x28
    TRY "xor %eax, %eax; mov %eax, %ss"
    CHECK_FAULT "null SS: #GP(0)", 13, 0
    TRY "xor %eax, %eax; mov %eax, %fs; mov %fs:0, %eax"
    CHECK_FAULT "use of a null segment: #GP(0)", 13, 0
    movb $0x0e, idt32 + 8 * 0x82 + 5
    TRY "int $0x82"
    CHECK_FAULT "gate not present: #NP(vector * 8 + 2)", 11, (0x82 * 8 + 2)
    TRY_USER32 user_int
    CHECK_FAULT "ring 3 INT through a gate of ring 0: #GP(vector * 8 + 2)", 13, (0x81 * 8 + 2)
    TRY_USER32 user_hlt
    CHECK_FAULT "HLT at ring 3 is #GP(0)", 13, 0
    CHECK "ring 3: the frame has its CS", fault_cs, $USER_CODE32
    CHECK "ring 3: the frame has its SS", fault_ss, $USER_DATA
    CHECK "ring 3: the frame has its ESP", fault_sp, $user_stack_top
    TRY_USER32 user_cli
    CHECK_FAULT "CLI at ring 3 with IOPL 0 is #GP(0)", 13, 0
    TRY_USER32 user_in
    CHECK_FAULT "IN at ring 3 without a bitmap is #GP(0)", 13, 0
    TRY_USER32 user_ud
    CHECK_FAULT "UD2 at ring 3", 6, 0
    TRY ".rept 15; .byte 0x66; .endr; nop"
    CHECK_FAULT "an instruction of 16 bytes is #GP(0)", 13, 0
    TRY ".byte 0xf0, 0x90"
    CHECK_FAULT "LOCK NOP is #UD", 6, 0
    TRY ".byte 0xf0, 0x01, 0xd8"
    CHECK_FAULT "LOCK ADD to a register is #UD", 6, 0
    mov %cr0, %eax
    or $0x20000000, %eax
    and $~0x40000000, %eax
    TRY "mov %eax, %cr0"
    CHECK_FAULT "NW without CD is #GP(0)", 13, 0
    mov $0x80000000, %eax
    TRY "mov %eax, %cr0"
    CHECK_FAULT "PG without PE is #GP(0)", 13, 0
    mov $0x80000000, %eax
    TRY "mov %eax, %cr4"
    CHECK_FAULT "reserved bit of CR4 is #GP(0)", 13, 0
    TRY ".byte 0x0f, 0x20, 0xc8"
    CHECK_FAULT "MOV from CR1 is #UD", 6, 0

    /* alignment checks */
    mov %cr0, %eax
    or $0x40000, %eax
    mov %eax, %cr0
    TRY_USER32 user_align
    CHECK_FAULT "AC at ring 3: #AC(0)", 17, 0
    TRY "push $0x40002; popf; mov bound_pair + 1, %eax"
    CHECK_NO_FAULT "AC does nothing at ring 0"
    push $2
    popf

    /* double fault: #GP's gate is not present, so #NP comes while #GP is delivered */
    movb $0x0e, idt32 + 8 * 13 + 5
    TRY "mov $0xfff8, %eax; mov %eax, %fs"
    CHECK_FAULT "#NP while delivering #GP is #DF(0)", 8, 0
    movb $0x0e, idt32 + 8 * 3 + 5
    TRY "int3"
    CHECK_FAULT "#GP's gate is absent too, but #NP after INT3 is only #NP", 11, (3 * 8 + 2)
    movb $0x8e, idt32 + 8 * 3 + 5
    movb $0x8e, idt32 + 8 * 13 + 5

    /* single step */
    movl $db_hook, hooks + 4
    xor %esi, %esi
    push $0x102
    popf
    nop
    nop
    push $2
    popf
    movl $0, hooks + 4
    CHECK "TF: a #DB an instruction behind the POPF", db_count, $4
    CHECK "TF: DR6.BS", db_dr6, $0xffff4ff0
    movl $0, db_count
    movl $db_hook, hooks + 4
    mov $DATA, %ebx
    mov %ebx, %ecx
    push $0x102
    popf
    mov %ecx, %ss
    nop
    push $2
    popf
    movl $0, hooks + 4
    CHECK "TF: none directly behind MOV SS", db_count, $3

    movl $0, db_count
    movl $db_hook, hooks + 4
    push $0x102
    popf
    hlt /* without interrupts: nothing else ends it */
    push $2
    popf
    movl $0, hooks + 4
    CHECK "TF: a #DB ends HLT", db_count, $3

    /* over branches whose targets have run before, and after STI as well */
    mov $3, %esi
1:
    call stepped
    dec %esi
    jnz 1b
    movl $0, db_count
    movl $db_hook, hooks + 4
    push $0x102
    popf
    call stepped
    push $2
    popf
    movl $0, hooks + 4
    CHECK "TF: a #DB for each instruction of a function that ran before", db_count, $14
    TRY "push $0x102; popf; jmp step_target; nop; step_target: nop"
    CHECK_FAULT "TF: a #DB behind a jump", 1, 0
    CHECK "TF: a #DB behind a jump, at its target", fault_ip, $step_target
    TRY "push $0x102; popf; jmp step_target_2; nop; step_target_2: nop"
    CHECK "TF: a #DB behind a jump, at its target again", fault_ip, $step_target_2

    /* debug registers */
    xor %eax, %eax
    mov %eax, %dr6
    mov %dr6, %eax
    CHECK "DR6's fixed bits read as 1", %eax, $0xffff0ff0
    mov $watched, %eax
    mov %eax, %dr0
    mov $0x000d0402, %eax /* DR0: 4 bytes, write; G0 */
    mov %eax, %dr7
    TRY "movl $1, watched; watch_next: nop"
    CHECK_FAULT "watchpoint: a write is #DB", 1, 0
    CHECK "watchpoint: a trap, after the write", fault_ip, $watch_next
    CHECK "watchpoint: the write is done", watched, $1
    mov %dr6, %eax
    and $0xe00f, %eax
    CHECK "watchpoint: DR6.B0", %eax, $1
    TRY "movb $2, watched + 3"
    CHECK_FAULT "watchpoint: overlap at the end", 1, 0
    TRY "mov watched, %eax"
    CHECK_NO_FAULT "write watchpoint: not for a read"
    TRY "movb $2, watched + 4"
    CHECK_NO_FAULT "watchpoint: not behind the end"
    mov $0x000f0402, %eax
    mov %eax, %dr7
    TRY "mov watched, %eax"
    CHECK_FAULT "read/write watchpoint: a read", 1, 0
    TRY "movl $0x10, watched" /* DATA */
    TRY "mov watched, %ss; nop; watch_after_shadow: nop"
    CHECK "watchpoint at MOV SS: the #DB waits for the next instruction", fault_ip, $watch_after_shadow
    TRY "mov watched, %ss; nop; watch_after_shadow_2: nop"
    CHECK "watchpoint at MOV SS: again", fault_ip, $watch_after_shadow_2
    movl $db_hook, hooks + 4
    movl $0, db_count
    mov watched, %ss
    .byte 0xf1
    CHECK "watchpoint at MOV SS, then INT1: one #DB", db_count, $1
    mov db_dr6, %eax
    and $1, %eax
    CHECK "watchpoint at MOV SS, then INT1: DR6.B0", %eax, $1
    movl $0, db_count
    mov watched, %ss
    int $1
    CHECK "watchpoint at MOV SS, then INT 1: the interrupt and a #DB", db_count, $2
    movl $0, hooks + 4
    xor %eax, %eax
    mov %eax, %dr6
    mov $break_here, %eax
    mov %eax, %dr1
    mov $0x00000408, %eax
    mov %eax, %dr7
    xor %edx, %edx
    TRY "break_before: nop; break_here: mov $7, %edx; nop"
    CHECK_FAULT "breakpoint: #DB", 1, 0
    CHECK "breakpoint: a fault, before the instruction", fault_ip, $break_here
    mov fault_flags, %eax
    and $0x10000, %eax
    CHECK "breakpoint: RF in the frame is clear", %eax, $0
    push $0x10002
    push $CODE32
    push $rf_target
    mov $rf_target, %eax
    mov %eax, %dr1
    TRY "iret; rf_target: nop"
    CHECK_NO_FAULT "breakpoint: RF holds it off once"
    mov $0x2000, %eax
    or $0x400, %eax
    mov %eax, %dr7
    TRY "mov %dr0, %eax"
    CHECK_FAULT "general detect: #DB", 1, 0
    mov %dr6, %eax
    and $0x2000, %eax
    CHECK "general detect: DR6.BD", %eax, $0x2000
    mov %dr7, %eax
    and $0x2000, %eax
    CHECK "general detect: GD is cleared", %eax, $0
    mov $0x400, %eax
    mov %eax, %dr7
    mov %cr4, %eax
    or $8, %eax
    mov %eax, %cr4
    TRY "mov %dr4, %eax"
    CHECK_FAULT "CR4.DE: DR4 is #UD", 6, 0
    TRY ".byte 0xf1; icebp_next: nop"
    CHECK_FAULT "INT1 is #DB", 1, 0

    /* priorities */
    mov $0x80000000, %eax
    TRY_USER32 user_privileged
    CHECK_FAULT "MOV to CR0 at ring 3: #GP", 13, 0
    mov $priority_break, %eax
    mov %eax, %dr1
    mov $0x00000408, %eax
    mov %eax, %dr7
    TRY "priority_break: ud2"
    CHECK_FAULT "a breakpoint comes before #UD", 1, 0
    mov $0x400, %eax
    mov %eax, %dr7
    jmp finish32

db_hook:
    incl db_count
    mov %dr6, %eax
    mov %eax, db_dr6
    xor %eax, %eax
    mov %eax, %dr6
    ret

/* 11 instructions */
stepped:
    mov $2, %ecx
1:
    nop
    loop 1b
    jmp 2f
    nop
2:
    xor %eax, %eax
    jz 3f
    nop
3:
    call 4f
    ret
4:
    ret

user_int: int $0x81
user_hlt: hlt
user_cli: cli
user_in: in $0x21, %al
user_ud: ud2
user_align:
    push $0x40002
    popf
    mov bound_pair + 1, %eax
    int $USER_EXIT
user_privileged:
    mov %eax, %cr0

    .data
    .align 16
bound_pair: .long 0, 0
watched: .long 0, 0
db_count: .long 0
db_dr6: .long 0
    .text
