/*
 * slow_call.S - call a slow path and keep every register but rax
 *
 * Used by the SLOW_CALL macro of interpreter.h from handlers that have no stack frame. The
 * vector registers are declared as clobbered there. A fault inside leaves by longjmp.
 */
#if defined(__x86_64__)
        .macro  keep target
        .globl  \target\()_keep
        .type   \target\()_keep, @function
\target\()_keep:
        pushq   %rbp
        movq    %rsp, %rbp
        pushq   %rcx
        pushq   %rdx
        pushq   %rsi
        pushq   %rdi
        pushq   %r8
        pushq   %r9
        pushq   %r10
        pushq   %r11
        andq    $-16, %rsp
        call    \target
        leaq    -64(%rbp), %rsp
        popq    %r11
        popq    %r10
        popq    %r9
        popq    %r8
        popq    %rdi
        popq    %rsi
        popq    %rdx
        popq    %rcx
        popq    %rbp
        ret
        .size   \target\()_keep, . - \target\()_keep
        .endm

        .text
        keep    interp_ea_limited
        keep    interp_load_slow
        keep    interp_load_for_write
        keep    interp_store_slow
#endif
        .section .note.GNU-stack, "", @progbits
