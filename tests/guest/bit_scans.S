/*
 * bit_scans.S - TZCNT and LZCNT of a processor without them are BSF and BSR with a prefix that
 * is ignored (SDM vol. 2, TZCNT, LZCNT). To be run with such a processor model, x86-64-v2.
 */
#include "runtime.inc"

    .macro SCANS mode:req, a:req, d:req
    mov $0x00ffff00, %ecx
    lzcnt %ecx, %eax
    CHECK "\mode: LZCNT is BSR", \a, $23
    tzcnt %ecx, %eax
    CHECK "\mode: TZCNT is BSF", \a, $8
    movl $0x00ffff00, scratch
    lzcnt scratch, %eax
    CHECK "\mode: LZCNT of memory is BSR", \a, $23
    mov $7, %eax
    xor %edx, %edx
    xor %ecx, %ecx
    tzcnt %ecx, %eax
    setz %dl
    CHECK "\mode: TZCNT of 0 sets ZF", \d, $1
    .endm

main:
    SCANS "32 bits", %eax, %edx
    call enter_long
    BITS64
    SCANS "64 bits", %rax, %rdx
    jmp finish64
    BITS32

    .data
    .align 8
scratch: .long 0
