/*
 * guest-exit.S - "debug-exit N" in the test guests: write N to port 0xf4
 *
 * Ends the machine with status N * 2 + 1. N is one digit. Needs root (iopl), no
 * C library; assembled for x86-64 and i386.
 */
#ifdef __x86_64__
#define AX rax
#define SP rsp
#define WORD 8
#else
#define AX eax
#define SP esp
#define WORD 4
#endif

    .intel_syntax noprefix
    .globl _start
_start:
    mov AX, [SP + 2 * WORD]     /* argv[1] */
    test AX, AX
    jz 1f
    movzx ebp, byte ptr [AX]
    sub ebp, '0'
1:
#ifdef __x86_64__
    mov edi, 3
    mov eax, 172                /* iopl(3) */
    syscall
#else
    mov ebx, 3
    mov eax, 110
    int 0x80
#endif
    mov eax, ebp
    out 0xf4, al
#ifdef __x86_64__
    mov edi, 1
    mov eax, 60                 /* still here: exit(1) */
    syscall
#else
    mov ebx, 1
    mov eax, 1
    int 0x80
#endif
    .section .note.GNU-stack, "", @progbits
