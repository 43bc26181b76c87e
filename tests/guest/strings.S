/*
 * strings.S - repeated string instructions over several pages: counts, indices, flags and memory
 *
 * Each instruction runs in both directions, with operands at the end of a page, that overlap, and
 * before a page that is not there.
 */
#include "runtime.inc"

#define A      0x400000
#define B      0x410000
#define SIZE   0x3000
#define ABSENT 0x600000 /* nothing is mapped from here on */

    /* EDI and ESI from here, ECX elements of that direction; the rest is what becomes of them. */
    .macro RUN insn:req, di:req, si:req, count:req, direction=cld
    mov $\di, %rdi
    mov $\si, %rsi
    mov $\count, %rcx
    \direction
    \insn
    cld
    pushfq
    pop %rbx
    .endm
    .macro CHECK_INDICES name:req, di:req, si:req, count:req
    CHECK "\name: RDI", %rdi, $\di
    CHECK "\name: RSI", %rsi, $\si
    CHECK "\name: RCX", %rcx, $\count
    .endm
    .macro CHECK_ZF name:req, want:req
    shr $6, %ebx
    and $1, %ebx
    CHECK "\name: ZF", %rbx, $\want
    .endm

main:
    call enter_long
    BITS64
    /* The same in both: 0, 1, 2, ... and B is another copy of it. */
    xor %eax, %eax
1:  mov %al, A(%rax)
    mov %al, B(%rax)
    inc %eax
    cmp $SIZE, %eax
    jb 1b
    mov pd + 8 * (ABSENT >> 21), %eax
    mov %eax, entry
    call vanish
    .rept 2 /* so that everything is translated and in the TLB */

    movb $0x55, B + 0x2345
    RUN "repe cmpsb", B, A, SIZE
    CHECK_INDICES "REPE CMPSB", (B + 0x2346), (A + 0x2346), (SIZE - 0x2346)
    CHECK_ZF "REPE CMPSB", 0
    RUN "repe cmpsb", (B + SIZE - 1), (A + SIZE - 1), SIZE, std
    CHECK_INDICES "REPE CMPSB downwards", (B + 0x2344), (A + 0x2344), 0x2345
    RUN "repe cmpsq", (B + 8), (A + 8), (SIZE / 8 - 1)
    CHECK_INDICES "REPE CMPSQ", (B + 0x2348), (A + 0x2348), ((SIZE - 0x2348) / 8)
    RUN "repe cmpsl", (B + 3), (A + 3), 0x700
    CHECK_INDICES "REPE CMPSL over the ends of pages", (B + 3 + 0x1c00), (A + 3 + 0x1c00), 0
    CHECK_ZF "REPE CMPSL over the ends of pages", 1
    RUN "repne cmpsb", (B + 0x2340), (A + 0x1041), 0xc00
    CHECK_INDICES "REPNE CMPSB", (B + 0x2340 + 0xc00), (A + 0x1041 + 0xc00), 0
    movb $0x45, B + 0x2345

    mov $0xffffffff, %eax
    RUN "repne scasb", (A + 1), 0, 0xffffffff
    CHECK_INDICES "REPNE SCASB", (A + 0x100), 0, -0x100
    CHECK_ZF "REPNE SCASB", 1
    movw $0xa55a, A + 0x2fe0
    mov $0xa55a, %eax
    RUN "repne scasw", A, 0, 0x5000
    CHECK_INDICES "REPNE SCASW", (A + 0x2fe2), 0, (0x5000 - 0x17f1)
    movw $0xe1e0, A + 0x2fe0
    xor %eax, %eax
    RUN "repne scasl", (A + 0x1ffe), 0, 0x5000, std
    CHECK_INDICES "REPNE SCASL downwards", (A - 10), 0, (0x5000 - 0x802)
    mov $0x55, %eax
    RUN "cmp %eax, %eax; repne scasb", A, 0, 0
    CHECK_INDICES "no element", A, 0, 0
    CHECK_ZF "no element keeps the flags", 1

    RUN "rep movsb", (B + 0x10), (A + 0x123), 0x2100
    CHECK_INDICES "REP MOVSB", (B + 0x2110), (A + 0x2223), 0
    RUN "repe cmpsb", (B + 0x10), (A + 0x123), 0x2100
    CHECK_INDICES "REP MOVSB, what it moved", (B + 0x2110), (A + 0x2223), 0
    CHECK_ZF "REP MOVSB, what it moved", 1
    RUN "rep movsb", B, A, SIZE
    movl $0x04030201, B + 0xffe
    RUN "rep movsb", (B + 0x1002), (B + 0xffe), 0x100 /* repeats the four */
    CHECK "REP MOVSB, overlapping", (B + 0x1002 + 0xfc), $0x04030201
    RUN "rep movsw", (B + 0x1ffe), (B + 0x2002), 0x7f8, std /* likewise downwards */
    CHECK "REP MOVSW downwards, overlapping", (B + 0x1010), (B + 0x2000)
    RUN "rep movsb", (B + SIZE - 1), (A + SIZE - 1), SIZE, std
    CHECK_INDICES "REP MOVSB downwards", (B - 1), (A - 1), 0
    RUN "repe cmpsq", B, A, (SIZE / 8)
    CHECK_ZF "REP MOVSB downwards, what it moved", 1

    mov $0x1122334455667788, %rax
    RUN "rep stosq", (B + 0x2ffd), 0, 0x300, std
    CHECK_INDICES "REP STOSQ downwards", (B + 0x2ffd - 0x1800), 0, 0
    CHECK "REP STOSQ downwards, the lowest", (B + 0x2ffd - 0x17f8), $0x55667788
    CHECK "REP STOSQ downwards, what is below", (B + 0x2ffd - 0x17fc), $0x04030201
    RUN "rep movsb", B, A, SIZE

    /* Few elements over the ends of pages, one of them in both */
    RUN "rep movsb", (B + 0xf83), (A + 0x1fe7), 0x280
    CHECK_INDICES "REP MOVSB over ends", (B + 0xf83 + 0x280), (A + 0x1fe7 + 0x280), 0
    RUN "repe cmpsb", (B + 0xf83), (A + 0x1fe7), 0x280
    CHECK_ZF "REP MOVSB over ends, what it moved", 1
    RUN "rep movsq", (B + 0xffb), (A + 0xfe3), 0x201
    CHECK_INDICES "REP MOVSQ over ends", (B + 0xffb + 0x1008), (A + 0xfe3 + 0x1008), 0
    RUN "repe cmpsb", (B + 0xffb), (A + 0xfe3), 0x1008
    CHECK_ZF "REP MOVSQ over ends, what it moved", 1
    CHECK "REP MOVSQ over ends, what is behind", (B + 0x2003), $0x06050403
    mov $0x51b2c3d4, %eax
    RUN "rep stosl", (B + 0xffa), 0, 0x402
    CHECK_INDICES "REP STOSL over ends", (B + 0x2002), 0, 0
    CHECK "REP STOSL over ends, the first", (B + 0xffa), $0x51b2c3d4
    CHECK "REP STOSL over ends, between two", (B + 0xffe), $0x51b2c3d4
    CHECK "REP STOSL over ends, the last", (B + 0x1ffe), $0x51b2c3d4
    CHECK "REP STOSL over ends, what is behind", (B + 0x2002), $0x050403ea
    RUN "rep stosw", (B + 0xfff), 0, 0
    CHECK_INDICES "REP STOSW of none", (B + 0xfff), 0, 0
    RUN "rep movsb", B, A, SIZE

    /* A page that is not there: how far it came */
    RUN "rep movsb", (ABSENT - SIZE), A, SIZE
    mov $ABSENT - 0x1801, %rdi
    mov $A + SIZE - 0x1801, %rsi
    mov $SIZE, %ecx
    TRY "repe cmpsb"
    CHECK_FAULT "REPE CMPSB into nothing", 14, 0
    CHECK "REPE CMPSB into nothing: RDI", %rdi, $ABSENT
    CHECK "REPE CMPSB into nothing: RSI", %rsi, $(A + SIZE)
    mov $ABSENT - 0x1802, %rdi
    mov $SIZE, %ecx
    mov $0xf5f6, %eax
    TRY "repne scasw"
    CHECK_FAULT "REPNE SCASW into nothing", 14, 0
    CHECK "REPNE SCASW into nothing: RDI", %rdi, $ABSENT
    mov $ABSENT - 0x1804, %rdi
    mov $SIZE, %ecx
    TRY "rep stosl"
    CHECK_FAULT "REP STOSL into nothing", 14, 2
    CHECK "REP STOSL into nothing: RDI", %rdi, $ABSENT
    mov $ABSENT - 0x83, %rdi
    mov $0x180, %ecx
    TRY "rep stosb"
    CHECK_FAULT "REP STOSB of few into nothing", 14, 2
    CHECK "REP STOSB of few into nothing: RDI", %rdi, $ABSENT
    movabs $0x500000000 + ABSENT, %rdi
    mov $2, %ecx
    TRY "addr32 repne scasb"
    CHECK_FAULT "REPNE SCASB at EDI into nothing", 14, 0
    shr $32, %rdi
    CHECK "REPNE SCASB at EDI into nothing: RDI", %rdi, $5
    mov $2, %ecx
    movabs $0x500000000 + ABSENT, %rsi
    TRY "addr32 repe cmpsb"
    CHECK_FAULT "REPE CMPSB at ESI into nothing", 14, 0
    shr $32, %rsi
    CHECK "REPE CMPSB at ESI into nothing: RSI", %rsi, $5

    /* The handler maps it, and the instruction goes on. */
    movl $appear, hooks + 4 * 14
    mov $0x55aa, %eax
    RUN "rep stosw", (ABSENT - 0x1801), 0, SIZE
    CHECK_INDICES "REP STOSW goes on", (ABSENT - 0x1801 + 2 * SIZE), 0, 0
    call vanish
    RUN "repe cmpsw", (ABSENT - 0x1801), (ABSENT - 0x1801), SIZE
    CHECK_INDICES "REPE CMPSW goes on", (ABSENT - 0x1801 + 2 * SIZE), (ABSENT - 0x1801 + 2 * SIZE), 0
    CHECK_ZF "REPE CMPSW goes on", 1
    call vanish
    movw $1, (ABSENT - 0x1801 + 2 * SIZE - 2)
    call vanish
    mov $1, %eax
    RUN "repne scasw", (ABSENT - 0x1801), 0, -1
    CHECK_INDICES "REPNE SCASW goes on", (ABSENT - 0x1801 + 2 * SIZE), 0, (-1 - SIZE)
    call vanish
    movl $0, hooks + 4 * 14
    .endr

    /* RDI is another one behind it, which accesses that share a look-up have to know. */
    mov $A, %rdi
    mov $B, %rsi
    mov $0x1010, %ecx
    repe cmpsb
    mov (%rdi), %eax
    mov 4(%rdi), %edx
    CHECK "behind REPE CMPSB", %rax, $0x13121110
    CHECK "behind REPE CMPSB, the next", %rdx, $0x17161514
    jmp finish64

vanish:
    movl $0, pd + 8 * (ABSENT >> 21)
    invlpg ABSENT
    invlpg ABSENT + 0x1000
    ret
appear: /* a hook */
    mov entry, %eax
    mov %eax, pd + 8 * (ABSENT >> 21)
    ret
    BITS32

    .data
entry: .long 0
