/*
 * counter.S - a guest for tests of the debugger and the monitor (multiboot, 32-bit)
 *
 * Counts in memory for ever, one call of visit a round. When somebody sets leave, it writes
 * that to the debug-exit port.
 */
    .code32
    .text
    .align 4
    .long 0x1badb002, 0, -0x1badb002
    .globl _start, visit, leave_now, counter, leave
_start:
    mov $stack_top, %esp
again:
    incl counter
    call visit
    mov leave, %eax
    test %eax, %eax
    jz again
leave_now:
    out %al, $0xf4
    jmp leave_now
visit:
    mov counter, %ebx
    ret

    .bss
    .align 16
counter:
    .long 0
leave:
    .long 0
    .space 256
stack_top:
    .section .note.GNU-stack, "", @progbits
