/*
 * vectors.S - vector registers over instructions and branches of all widths
 *
 * An engine may keep some of them, or parts of them, elsewhere while the code uses no others. LOOK
 * is an instruction at which all are looked at; NEXT begins another run of instructions.
 */
#include "runtime.inc"

    .macro LOOK
    push %rbx
    xor %eax, %eax
    cpuid
    pop %rbx
    .endm
    .macro NEXT
    jmp 7720f
    .balign 64
7720:
    .endm
    /* The low and another lane of a register, by the instruction that takes the lane out. */
    .macro CHECK_LANES name:req, low:req, extract:req, other:req, want_low:req, want_other:req
    movd \low, %eax
    CHECK "\name, low", %rax, $\want_low
    \extract \other, %xmm15
    movd %xmm15, %eax
    CHECK "\name, high", %rax, $\want_other
    .endm

main:
    call enter_long
    BITS64
    mov %cr4, %rax
    or $0x600, %eax /* OSFXSR, OSXMMEXCPT */
    mov %rax, %cr4
    mov $1, %eax
    cpuid
    test $1 << 28, %ecx
    jz sse /* no AVX */
    mov %cr4, %rax
    or $0x40000, %eax /* OSXSAVE */
    mov %rax, %cr4
    xor %ecx, %ecx
    xor %edx, %edx
    mov $7, %eax
    xsetbv

    .set n, 1
    .irp register, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14
    vbroadcastss numbers + 4 * n, %ymm\register
    .set n, n + 1
    .endr
    LOOK
    paddd %xmm1, %xmm0
    NEXT
    CHECK_LANES "ymm0 behind paddd", %xmm0, vextractf128, "$1, %ymm0", 0x03030303, 0x01010101
    LOOK
    paddd %xmm1, %xmm14
    LOOK
    paddd %xmm1, %xmm14
    NEXT
    CHECK_LANES "ymm14 behind two", %xmm14, vextractf128, "$1, %ymm14", 0x13131313, 0x0f0f0f0f
    paddd %xmm4, %xmm3
    NEXT
    vpaddd %ymm3, %ymm5, %ymm5
    LOOK
    CHECK_LANES "ymm5 of a changed ymm3", %xmm5, vextractf128, "$1, %ymm5", 0x0f0f0f0f, 0x0a0a0a0a
    vpaddd %xmm1, %xmm0, %xmm2
    LOOK
    CHECK_LANES "ymm2 of 16 bytes", %xmm2, vextractf128, "$1, %ymm2", 0x05050505, 0

    /* A fault in the middle */
    mov $0x100000000, %rbx
    TRY "paddd %xmm1, %xmm6; vpaddd %ymm1, %ymm7, %ymm7; vpaddd (%rbx), %ymm8, %ymm8"
    CHECK_FAULT "no page", 14, 0
    CHECK_LANES "ymm6 before a fault", %xmm6, vextractf128, "$1, %ymm6", 0x09090909, 0x07070707
    CHECK_LANES "ymm7 before a fault", %xmm7, vextractf128, "$1, %ymm7", 0x0a0a0a0a, 0x0a0a0a0a
    CHECK_LANES "ymm8 of a fault", %xmm8, vextractf128, "$1, %ymm8", 0x09090909, 0x09090909
    TRY "paddd %xmm1, %xmm9; ud2"
    CHECK_FAULT "ud2", 6, 0
    CHECK_LANES "ymm9 before ud2", %xmm9, vextractf128, "$1, %ymm9", 0x0c0c0c0c, 0x0a0a0a0a

    mov $7, %eax
    xor %ecx, %ecx
    cpuid
    bt $16, %ebx
    jnc 1f /* no AVX-512 */
    xor %ecx, %ecx
    xor %edx, %edx
    mov $0xe7, %eax
    xsetbv
    vpbroadcastd numbers + 16, %zmm10
    vpbroadcastd numbers + 20, %zmm16
    vpbroadcastd numbers + 24, %zmm31
    mov $0x5555, %eax
    kmovd %eax, %k1
    kmovd %eax, %k7
    NEXT
    paddd %xmm1, %xmm10
    LOOK
    paddd %xmm1, %xmm10
    NEXT
    knotw %k7, %k7
    vpaddd %zmm31, %zmm16, %zmm16{%k1}
    LOOK
    CHECK_LANES "zmm10", %xmm10, vextracti32x4, "$3, %zmm10", 0x08080808, 0x04040404
    LOOK
    vmovdqa32 %zmm16, %zmm11
    CHECK_LANES "zmm16", %xmm11, vextracti32x4, "$3, %zmm16", 0x0b0b0b0b, 0x0b0b0b0b
    vpsrlq $32, %zmm16, %zmm11
    CHECK_LANES "zmm16, odd", %xmm11, vextracti32x4, "$3, %zmm11", 0x05050505, 0x05050505
    kmovd %k7, %eax
    CHECK "k7", %rax, $0xaaaa
    vmovdqa32 %ymm31, %ymm12
    NEXT
    vzeroupper
    LOOK
    CHECK_LANES "zmm10 behind vzeroupper", %xmm10, vextracti32x4, "$1, %zmm10", 0x08080808, 0
    CHECK_LANES "ymm12 behind vzeroupper", %xmm12, vextracti32x4, "$3, %zmm31", 0x06060606, 0x06060606
1:
    vzeroupper
    NEXT
    CHECK_LANES "ymm0 behind vzeroupper", %xmm0, vextractf128, "$1, %ymm0", 0x03030303, 0
sse:
    movd numbers + 4, %xmm0
    LOOK
    movd %xmm0, %eax
    CHECK "xmm0", %rax, $0x01010101
    jmp finish64

    .balign 64
numbers:
    .set n, 0
    .rept 16
    .long n * 0x01010101
    .set n, n + 1
    .endr
    BITS32
