/*
 * masked.S - code that runs while an interrupt waits for IF
 *
 * SDM vol. 3, 6.8.1. Firmware leaves the timer running, so what it starts (a boot loader, a kernel
 * that unpacks itself) runs so for seconds: meson.build has how often the translator may have left its
 * code meanwhile.
 */
#include "runtime.inc"
#define SVR 0xf0
#define EOI 0xb0
#define ICR 0x300
#define VECTOR 0x55
#define TIMES 200000

main:
    movl $taken, hooks + 4 * VECTOR
    movl $0x1ff, APIC + SVR
    movl $0x44000 + VECTOR, APIC + ICR /* to itself */
    xor %edx, %edx
    mov $TIMES, %ecx
1:  test $1, %cl
    jz 2f
    call odd
    jmp 3f
2:  mov $even, %eax
    call *%eax
3:  dec %ecx
    jnz 1b
    CHECK "all of it was executed", %edx, $(TIMES / 2 * 3)
    CHECK "nothing was interrupted", count, $0
    sti
    nop
    cli
    CHECK "until interrupts were enabled", count, $1
    jmp finish32

odd:
    add $1, %edx
    ret
even:
    add $2, %edx
    ret

taken:
    incl count
    movl $0, APIC + EOI
    ret

    .data
count: .long 0
    .text
