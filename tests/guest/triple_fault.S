/*
 * triple_fault.S - a fault while the double fault is delivered resets the machine
 */
#include "runtime.inc"
main:
    CHECK "before the triple fault", $1, $1
    movb $0x0e, idt32 + 8 * 13 + 5
    movb $0x0e, idt32 + 8 * 8 + 5
    mov $0xfff8, %eax
    mov %eax, %fs
    CHECK "the triple fault went on", $1, $0
    jmp finish32
