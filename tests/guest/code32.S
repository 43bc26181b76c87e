/*
 * code32.S - 32-bit code: what 64-bit code has not, addresses that wrap at 4 GiB, the stack, precise
 * page faults, code that changes, segments, and the same bytes as code of 64 bits
 *
 * Everything is done several times: an engine may treat code in another way when it comes again.
 */
#include "runtime.inc"
#define PASSES 4
    .set UNMAPPED, 0xffffd000 /* the last page and the one before it are there */
    .set LAST_PAGE, 0xfffff000
    .set SCRATCH, 0x200000

    .macro DESCRIPTOR index:req, low:req, high:req
    movl $\low, gdt + SPARE + 8 * \index
    movl $\high, gdt + SPARE + 8 * \index + 4
    .endm

    /* The code at shared, called directly and through a register. */
    .macro SHARED name:req, result:req, pointer:req, want:req
    mov $0, %eax
    mov $100, %ecx
    call shared
    CHECK "\name", \result, $\want
    mov $shared, %edx
    mov $0, %eax
    mov $100, %ecx
    call *\pointer
    CHECK "\name, called through a register", \result, $\want
    .endm
    /* An instruction of ring 3 that pushes where there is no page. */
    .macro NO_STACK name:req, code:req
    TRY_USER32 \code
    CHECK_FAULT "\name with a stack that is not there", 14, 6
    CHECK "\name: ESP has not changed", fault_sp, $(UNMAPPED + 0x100)
    CHECK "\name: the address is that of what is pushed first", fault_cr2, $(UNMAPPED + 0xfc)
    .endm

main:
    call enter_pae
    movl $PASSES, passes
1:
    call forms
    call stack
    call wrap
    call faults
    call changes
    call segments
    decl passes
    jnz 1b
    call ring1
    mov %cr0, %eax
    and $0x7fffffff, %eax
    mov %eax, %cr0
    call enter_long
    BITS64
    movl $PASSES, passes
2:
    SHARED "64-bit code: INC RAX", %rax, %rdx, 100
    movabs $0x123456789abcdef0, %rbx
    mov $SCRATCH, %ecx
    mov %rbx, (%rcx)
    or %rcx, %rbx
    shr $32, %rbx
    shl $32, %rbx
    or %rcx, %rbx /* something above bit 31 */
    movabs $0x1234567800000000, %rbp
    lea stack_top(%rbp), %rsp
    ljmp *to_compatibility
back_in_64:
    mov $stack_top, %esp
    decl passes
    jnz 2b
    jmp finish64
    BITS32
compatibility:
    mov (%ebx), %eax
    mov 4(%ebx), %edx
    push %eax
    push (%ebx)
    pop %ecx
    pop %esi
    CHECK "compatibility mode: addresses have 32 bits", %edx, $0x12345678
    CHECK "compatibility mode: so has the stack pointer", %ecx, $0x9abcdef0
    CHECK "compatibility mode: what was pushed", %esi, $0x9abcdef0
    lea stack_top(%ebp), %eax
    CHECK "compatibility mode: LEA", %eax, $stack_top
    mov $1, %eax
    bts %eax, (%ebx)
    cld
    mov $2, %ecx
    mov %ebx, %edi
    mov $0x11111111, %eax
    rep stosl
    CHECK "compatibility mode: REP STOS", 4(%ebx), $0x11111111
    SHARED "the same bytes in 32-bit code: DEC, INC", %eax, %edx, 0
    ljmp *to_64

/* In 64-bit code INC RAX, else DEC EAX and INC EAX; ECX times. */
shared:
    .byte 0x48, 0xff, 0xc0
    .byte 0xff, 0xc9 /* dec %ecx */
    jnz shared
    ret

/* 4 GiB one to one, 2 MiB pages; then 4 KiB pages at the end. */
enter_pae:
    call fill_tables
    mov $pdpt, %edi
    mov $4, %ecx
1:
    andb $0xf9, (%edi)
    add $8, %edi
    loop 1b
    movl $high_table + 7, pd + 8 * 2047
    movl $last_page + 7, high_table + 8 * 511
    movl $last_page + 4096 + 7, high_table + 8 * 510
    mov %cr4, %eax
    or $0x20, %eax
    mov %eax, %cr4
    mov $pdpt, %eax
    mov %eax, %cr3
    mov %cr0, %eax
    or $0x80010000, %eax
    mov %eax, %cr0
    ret

forms:
    xor %eax, %eax
    stc
    inc %eax
    CHECK_FLAG "INC keeps CF", c, 1
    mov $0x80000000, %esi
    clc
    dec %esi
    CHECK_FLAG "DEC: overflow", o, 1
    mov $0x80000000, %esi
    clc
    dec %esi
    CHECK_FLAG "DEC keeps CF", c, 0
    CHECK "DEC: the result", %esi, $0x7fffffff
    mov $0x1234ffff, %edi
    inc %di
    CHECK_FLAG "INC of 16 bits: ZF", z, 1
    CHECK "INC of 16 bits", %edi, $0x12340000
    mov %esp, %edx
    inc %esp
    inc %esp
    dec %esp
    sub %esp, %edx
    dec %esp
    CHECK "INC and DEC of ESP", %edx, $-1
    mov $0x80, %al
    .byte 0x82, 0xc0, 0x80 /* add $0x80, %al */
    CHECK_FLAG "opcode 82 is 80", c, 1
    mov $0x89abcdef, %eax
    mov %eax, SCRATCH /* A3 */
    xor %eax, %eax
    mov SCRATCH + 1, %al /* A0 */
    CHECK "MOV AL from an address", %eax, $0xcd
    mov $0x77, %al
    mov %al, SCRATCH + 3 /* A2 */
    mov SCRATCH, %eax /* A1 */
    CHECK "MOV to and from an address", %eax, $0x77abcdef
    mov SCRATCH, %ax
    mov $0x12345678, %ebx
    mov %bh, %cl
    mov %cl, %bl
    CHECK "AH to BH are registers", %ebx, $0x12345656
    mov $0x7fffffff, %eax
    add $1, %eax
    pushf
    pop %edx
    and $0x8d5, %edx
    CHECK "ADD: status flags as PUSHF has them", %edx, $0x894
    mov $0x12345678, %eax
    mov $0x9abcdef0, %ecx
    mul %ecx
    CHECK "MUL: high", %edx, $0x0b00ea4e
    CHECK "MUL: low", %eax, $0x242d2080
    div %ecx
    CHECK "DIV", %eax, $0x12345678
    mov $0x0105, %eax
    aad
    CHECK "AAD", %eax, $15
    ret

stack:
    mov %esp, %ebp
    push $-2
    CHECK "PUSH of a small constant", (%esp), $-2
    movl $0x55aa55aa, SCRATCH
    push SCRATCH
    push %esp
    pop %eax
    add $8, %eax
    sub %ebp, %eax
    CHECK "PUSH ESP pushes what it was", %eax, $0
    pop %ecx
    pop %edx
    CHECK "PUSH and POP of memory", %ecx, $0x55aa55aa
    CHECK "POP", %edx, $-2
    pushal
    pop %edi
    pop %esi
    add $24, %esp
    enter $16, $0
    movl $7, -16(%ebp)
    mov %esp, %eax
    sub %ebp, %eax
    leave
    CHECK "ENTER", %eax, $-16
    mov %esp, %eax
    sub %ebp, %eax
    CHECK "LEAVE", %eax, $0
    push $0x1111
    push $0x2222
    call 1f
    mov %esp, %ecx
    sub %ebp, %ecx
    CHECK "RET n drops parameters", %ecx, $0
    CHECK "they were there", %eax, $0x3333
    movl $1f, SCRATCH
    push $1
    push $2
    call *SCRATCH
    CHECK "CALL through memory", %eax, $3
    mov $2f, %eax
    jmp *%eax
1:
    mov 4(%esp), %eax
    add 8(%esp), %eax
    ret $8
2:
    mov %esp, %ecx
    sub %ebp, %ecx
    CHECK "the stack is where it was", %ecx, $0
    mov $20000, %ecx
    xor %esi, %esi
3:
    call 4f
    inc %esi /* one byte */
    dec %ecx
    jnz 3b
    CHECK "RET to where CALL was not, now and then", %esi, $(20000 - 20000 / 16)
    ret
4:
    test $15, %cl
    jnz 5f
    incl (%esp)
5:
    ret

wrap:
    movl $0x11111111, 0x10
    movl $0x22222222, 0x14
    movl $0x33333333, LAST_PAGE + 0xff8
    movl $0x44444444, LAST_PAGE + 0xffc
    mov $0xfffffff0, %ebx
    mov 0x20(%ebx), %eax
    add 0x24(%ebx), %eax
    add $0x20, %ebx
    add (%ebx), %eax
    CHECK "base + displacement beyond 4 GiB", %eax, $0x44444444
    CHECK "ADD wraps the base", %ebx, $0x10
    mov -0x18(%ebx), %ecx
    sub $0x14, %ebx
    add (%ebx), %ecx
    CHECK "base - displacement below 0", %ecx, $0x77777777
    mov $-1, %ecx
    mov $0x18, %ebx
    mov (%ebx,%ecx,4), %eax
    CHECK "a negative index", %eax, $0x22222222
    mov -0x1c(%ebx,%ecx,4), %eax
    CHECK "a negative index, below 0", %eax, $0x33333333
    mov $0x40000004, %ecx
    mov (,%ecx,4), %eax
    CHECK "index * 4 beyond 4 GiB", %eax, $0x11111111
    lea 0x20(%ecx,%ecx,4), %eax
    CHECK "LEA wraps", %eax, $0x40000034
    mov $-32, %eax
    xor %ebx, %ebx
    movl $0x44444444, LAST_PAGE + 0xffc
    bts %eax, (%ebx)
    CHECK "BTS: the bit is below address 0", LAST_PAGE + 0xffc, $0x44444445
    mov $32 * 4, %eax
    sub $16, %eax
    mov $0xfffffff4, %ebx
    btr %eax, 4(%ebx)
    btr %eax, 0x18(%ebx)
    CHECK_FLAG "BTR: the bit is above 4 GiB", c, 0
    mov $0xfffffffc, %ebx
    mov $32 * 5, %eax
    lock btr %eax, (%ebx)
    CHECK_FLAG "LOCK BTR: the bit is above 4 GiB", c, 1
    CHECK "LOCK BTR: it is cleared", 0x10, $0x11111110
    mov %esp, %edx
    mov $8, %esp
    push $1
    push $2
    push $3
    pop %eax
    pop %ecx
    mov %esp, %esi
    mov %edx, %esp
    CHECK "the stack pointer wraps: POP", %eax, $3
    CHECK "the stack pointer wraps", %esi, $4
    CHECK "what was pushed below 0", LAST_PAGE + 0xffc, $3
    cld
    mov $0xfffffff0, %edi
    mov $4, %ecx
    mov $0x66666666, %eax
    rep stosl
    CHECK "REP STOS up to 4 GiB", %edi, $0
    CHECK "REP STOS: the last doubleword", LAST_PAGE + 0xffc, $0x66666666
    mov $0xfffffff8, %edi
    mov $0xfffffff0, %esi
    mov $4, %ecx
    movl $0x5a5a5a5a, LAST_PAGE + 0xff0
    rep movsl
    CHECK "REP MOVS beyond 4 GiB", %edi, $8
    CHECK "REP MOVS: the doubleword at 0", 0, $0x5a5a5a5a
    TRY "mov LAST_PAGE + 0xffd, %eax"
    CHECK_FAULT "an operand beyond the end of DS is #GP(0)", 13, 0
    mov $LAST_PAGE + 0xffd, %ebp
    TRY "mov (%ebp), %eax"
    CHECK_FAULT "an operand beyond the end of SS is #SS(0)", 12, 0
    ret

faults:
    mov $UNMAPPED, %ebx
    mov $0x1234, %edx
    TRY "1: xchg %edx, 0x10(%ebx)"
    mov $1b, %esi
    CHECK_FAULT "page fault of a read and write", 14, 2
    CHECK "its address", fault_cr2, $(UNMAPPED + 0x10)
    CHECK "its instruction", fault_ip, %esi
    CHECK "its register", %edx, $0x1234
    mov $UNMAPPED + 0xffe, %ebx
    mov $5, %edx
    TRY "inc %edx; movl %edx, (%ebx)"
    CHECK_FAULT "page fault of a write over two pages", 14, 2
    CHECK "the first page", fault_cr2, $(UNMAPPED + 0xffe)
    CHECK "what came before is done", %edx, $6
    mov $UNMAPPED - 2, %ebx
    movl $last_page + 7, high_table + 8 * 508
    invlpg (%ebx)
    TRY "mov (%ebx), %eax"
    CHECK_FAULT "page fault of a read over two pages", 14, 0
    CHECK "the second page", fault_cr2, $UNMAPPED
    NO_STACK "PUSH", user_push
    NO_STACK "PUSHA", user_pusha
    NO_STACK "CALL", user_call
    mov $user_call_itself, %esi
    CHECK "CALL: EIP is that of CALL", fault_ip, %esi
    TRY_USER32 user_leave
    CHECK_FAULT "LEAVE with a frame that is not there", 14, 4
    CHECK "LEAVE: ESP has not changed", fault_sp, $user_stack_top
    TRY_USER32 user_pop
    CHECK_FAULT "POP from the last page, then beyond it", USER_EXIT, 0
    CHECK "POP: ESP wraps", fault_sp, $0
    TRY_USER32 user_cli
    CHECK_FAULT "CLI in ring 3", 13, 0
    mov $DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    ret
user_push:
    mov $UNMAPPED + 0x100, %esp
    push %eax
user_pusha:
    mov $UNMAPPED + 0x100, %esp
    pusha
    ud2
user_call:
    mov $UNMAPPED + 0x100, %esp
user_call_itself:
    call user_push
user_leave:
    mov $UNMAPPED, %ebp
    leave
user_pop:
    mov $LAST_PAGE + 0xffc, %esp
    pop %eax
    int $USER_EXIT
user_cli:
    call cli_and_return
    int $USER_EXIT
cli_and_return:
    cli
    ret

changes:
    mov $3, %ecx
    xor %edx, %edx
1:
    mov %ecx, patched + 1
    jmp patched /* the same block, or another */
patched:
    mov $0, %eax
    add %eax, %edx
    dec %ecx
    jnz 1b
    CHECK "code that is changed before each turn", %edx, $6
    movl $0x11, next_patched + 1
    movl $0x22, next_patched + 1
next_patched:
    mov $0, %eax
    CHECK "the next instruction is changed", %eax, $0x22
    movb $0x40, changing /* inc %eax */
    call changing
    CHECK "a routine before the change", %eax, $0x23
    movb $0x48, changing /* dec %eax */
    call changing
    CHECK "a routine behind the change", %eax, $0x22
    ret
changing:
    nop
    ret

segments:
    DESCRIPTOR 0, 0x00000fff, 0x00409320 /* base 0x200000, limit 0xfff */
    DESCRIPTOR 1, 0x0010ffff, 0x00cf9320 /* base 0x200010, limit 4 GiB */
    DESCRIPTOR 2, 0x0000ffff, 0x008f9300 /* base 0, limit 4 GiB, stack of 16 bits */
    mov $SPARE, %eax
    mov %eax, %fs
    mov $SPARE + 8, %eax
    mov %eax, %gs
    movl $0, SCRATCH + 0xffc
    mov $10, %ecx
    mov $0xff0, %ebx
1:
    incl %fs:0xffc
    mov %fs:0xc(%ebx), %eax
    add %eax, %gs:0
    loop 1b
    CHECK "FS with a base", SCRATCH + 0xffc, $10
    TRY "mov %fs:0xffd, %eax"
    CHECK_FAULT "FS: beyond the limit", 13, 0
    mov $0xffd, %ebx
    TRY "mov %fs:(%ebx), %eax"
    CHECK_FAULT "FS: beyond the limit by a register", 13, 0
    movl $0x99, SCRATCH + 0xc
    mov $-1, %ebx
    mov %gs:-3(%ebx), %eax
    CHECK "GS: an offset just below 4 GiB wraps with the base", %eax, $0x99
    TRY "mov %gs:-2(%ebx), %eax"
    CHECK_FAULT "GS: over the end of the offsets", 13, 0
    movl $0x7fff, SCRATCH + 0x14
    mov $1, %eax
    bts %eax, %gs:4
    CHECK "BT with GS", %gs:4, $0x7fff
    TRY "mov %eax, %cs:SCRATCH"
    CHECK_FAULT "a write to CS", 13, 0
    mov %cs:SCRATCH + 0xc, %eax
    CHECK "a read of CS", %eax, $0x99
    xor %eax, %eax
    mov %eax, %fs
    TRY "mov %fs:0, %eax"
    CHECK_FAULT "FS with a null selector", 13, 0
    mov %esp, %edx
    mov $0x208004, %esp
    mov $SPARE + 16, %eax
    mov %eax, %ss
    push $0x1234
    mov %esp, %ecx
    mov $DATA, %eax
    mov %eax, %ss
    mov %edx, %esp
    CHECK "a stack of 16 bits: ESP keeps its upper half", %ecx, $0x208000
    CHECK "a stack of 16 bits: where PUSH writes", 0x8000, $0x1234
    ret

/* CLI in ring 1 with IOPL 0, after the same code ran in ring 0. */
ring1:
    DESCRIPTOR 3, 0x0000ffff, 0x00cfbb00 /* code of ring 1 */
    DESCRIPTOR 4, 0x0000ffff, 0x00cfb300 /* data of ring 1 */
    call cli_and_return
    call cli_and_return
    TRY "jmp enter_ring1"
    CHECK_FAULT "CLI in ring 1", 13, 0
    mov $cli_and_return, %eax
    CHECK "CLI in ring 1: where", fault_ip, %eax
    ret
enter_ring1:
    push $SPARE + 32 + 1
    push $user_stack_top
    push $2
    push $SPARE + 24 + 1
    push $in_ring1
    iret
in_ring1:
    mov $SPARE + 32 + 1, %eax
    mov %eax, %ds
    mov %eax, %es
    call cli_and_return
    int $USER_EXIT

    .data
passes: .long 0
to_compatibility: .long compatibility, CODE32
to_64: .long back_in_64, CODE64

    .bss
    .align 4096
high_table: .space 4096
last_page: .space 2 * 4096
