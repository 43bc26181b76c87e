/*
 * near.S - what must not be remembered of the pages where the stack of user code is, and what FS
 * leads to: changed page tables, lost rights, another base
 *
 * SHOWN, SHOWN + 4096 and SHOWN + 8192 are the user's pages; the kernel changes what they show.
 */
#include "runtime.inc"

#define SHOWN  0x600000
#define MIDDLE (SHOWN + 0x1000)
#define TURNS  64 /* so that blocks follow branches */

    .macro MAP page:req, frame:req, flags:req
    movl $\frame + \flags, window_pt + 8 * \page
    mov $SHOWN + 4096 * \page, %eax
    invlpg (%rax)
    .endm
    .macro FS_BASE address:req
    SET_MSR 0xc0000100, 0, \address
    .endm

main:
    call enter_long
    BITS64
    movl $window_pt + 7, pd + 8 * (SHOWN >> 21)
    MAP 0, frame_a, 7
    MAP 1, frame_b, 7
    MAP 2, frame_c, 7
    movl $0xa, frame_a + 0x28
    movl $0xb, frame_b + 0x28
    FS_BASE SHOWN

    TRY_USER64 user_stack
    CHECK_FAULT "a stack over the end of a page", USER_EXIT, 0
    CHECK "what was pushed came back", %rbp, $(TURNS * 0x333)

    /* The page shows another frame. */
    mov $0xaaaa, %eax
    mov %rax, frame_b + 0x800
    mov $0xdddd, %eax
    mov %rax, frame_d + 0x800
    TRY_USER64 user_reads
    CHECK "the first frame", %rbp, $0xaaaa
    MAP 1, frame_d, 7
    TRY_USER64 user_reads
    CHECK "INVLPG", %rbp, $0xdddd
    movl $frame_b + 7, window_pt + 8
    mov %cr3, %rax
    mov %rax, %cr3
    TRY_USER64 user_reads
    CHECK "MOV to CR3", %rbp, $0xaaaa

    /* It may be read only, and not even that. */
    TRY_USER64 user_writes
    CHECK_FAULT "a page that may be written", USER_EXIT, 0
    MAP 1, frame_b, 5
    TRY_USER64 user_reads
    CHECK "a page that may be read", %rbp, $0x1234
    TRY_USER64 user_writes
    CHECK_FAULT "a page that may be read only", 14, 7
    CHECK "nothing was written", frame_b + 0x7f8, $0
    MAP 1, frame_b, 3
    TRY_USER64 user_reads
    CHECK_FAULT "the kernel's page", 14, 5
    MAP 1, frame_b, 6
    TRY_USER64 user_reads
    CHECK_FAULT "no page", 14, 4
    MAP 1, frame_b, 7

    /* FS */
    TRY_USER64 user_fs
    CHECK "FS", %rbp, $0xa
    FS_BASE MIDDLE
    TRY_USER64 user_fs
    CHECK "FS with another base", %rbp, $0xb
    MAP 1, frame_a, 7
    TRY_USER64 user_fs
    CHECK "FS, and INVLPG", %rbp, $0xa
    FS_BASE (SHOWN - 0x28)
    movl $0x6e6e6e, frame_a
    TRY_USER64 user_fs
    CHECK "FS before the first page", %rbp, $0x6e6e6e
    jmp finish64

user_stack:
    mov $MIDDLE + 0x20, %rsp /* each turn reaches into both pages */
    mov $TURNS, %ebx
    xor %ebp, %ebp
1:  mov $0x111, %esi
    mov $0x222, %edi
    push %rsi
    push %rdi
    call 2f
    add %rcx, %rbp
    pop %rdi
    pop %rsi
    dec %ebx
    jnz 1b
    int $USER_EXIT
2:  push %rsi
    sub $0x40, %rsp
    mov %rdi, 0x3c(%rsp) /* in both */
    mov %rsi, (%rsp)
    mov 0x3c(%rsp), %rcx
    add (%rsp), %rcx
    movl $0, 0x3c(%rsp)
    add $0x40, %rsp
    pop %rsi
    ret

user_reads:
    mov $MIDDLE + 0x800, %rsp
    mov $TURNS, %ebx
1:  mov (%rsp), %rbp
    dec %ebx
    jnz 1b
    int $USER_EXIT
user_writes:
    mov $MIDDLE + 0x800, %rsp
    movl $0x1234, %eax
    mov (%rsp), %rcx
    mov %rax, (%rsp)
    movq $0, -8(%rsp)
    int $USER_EXIT
user_fs:
    mov $TURNS, %ebx
1:  mov %fs:0x28, %ebp
    dec %ebx
    jnz 1b
    int $USER_EXIT
    BITS32

    .bss
    .balign 4096
window_pt: .space 4096
frame_a: .space 4096
frame_b: .space 4096
frame_c: .space 4096
frame_d: .space 4096
