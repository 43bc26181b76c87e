/*
 * invlpg.S - INVLPG of pages that are not used
 *
 * SDM vol. 3, 4.10.4.1: it is for one page, however large. RAM is mapped by pages of 2 MiB here, and
 * the addresses have the same low bits as this code's. What is not in their page is used on without
 * another walk of the page tables: meson.build has the counts.
 */
#include "runtime.inc"
#define TIMES 20000

main:
    call enter_long
    BITS64
    mov $0x200000000, %rbx
    lea main(%rip), %rax
    add %rax, %rbx
    xor %edx, %edx
    mov $TIMES, %ecx
1:  invlpg (%rbx)
    incl seen
    add seen, %edx
    dec %ecx
    jnz 1b
    CHECK "what is in other pages stays", seen, $TIMES
    CHECK "and is read as it was written", %rdx, $200010000
    jmp finish64

    .bss
    .balign 4096 /* no code is there */
seen: .skip 4096
    .text
