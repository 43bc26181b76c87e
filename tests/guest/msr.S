/*
 * msr.S - which values model-specific registers, control registers and XCR0 take
 *
 * BITS tries a write with each one of 64 bits inverted and collects the ones that are #GP, so one
 * check covers all bits of a register (SDM vol. 4, table 2-2; vol. 3, 2.5, 9.8.5, 10.4.4, 11.11).
 */
#include "runtime.inc"
#define EFER 0xc0000080
#define TSC 0x10
#define TSC_ADJUST 0x3b
#define APIC_BASE 0x1b
#define MISC_ENABLE 0x1a0
#define PAT 0x277

    .macro LOAD index:req, high:req, low:req
    mov $\index, %ecx
    mov $\high, %edx
    mov $\low, %eax
    .endm
    /* WRMSR of EDX:EAX is #GP(0). */
    .macro REFUSED name:req, number:req, high:req, low:req
    LOAD \number, \high, \low
    TRY "wrmsr"
    CHECK_FAULT "\name", 13, 0
    .endm
    .macro READ_REFUSED name:req, number:req
    mov $\number, %ecx
    TRY "rdmsr"
    CHECK_FAULT "\name", 13, 0
    .endm
    .macro TAKEN name:req, number:req, high:req, low:req
    LOAD \number, \high, \low
    TRY "wrmsr"
    CHECK_NO_FAULT "\name"
    rdmsr
    CHECK "\name: reads back, low", %rax, $\low
    CHECK "\name: reads back, high", %rdx, $\high
    .endm
    /* Bits whose inversion in this value is refused. */
    .macro BITS name:req, number:req, high:req, low:req, refused_high:req, refused_low:req
    LOAD \number, \high, \low
    call try_bits
    CHECK "\name: bits 0 to 31", %r14, $\refused_low
    shr $32, %r14
    CHECK "\name: bits 32 to 63", %r14, \refused_high
    .endm
    /* MOV to a control or debug register of what code leaves in RBX is #GP(0). */
    .macro MOV_REFUSED name:req, register:req, code:req
    \code
    TRY "mov %rbx, %\register"
    CHECK_FAULT "\name is #GP(0)", 13, 0
    .endm
    .macro USER name:req, code:req, vector=13
    TRY_USER64 \code
    CHECK_FAULT "\name", \vector, 0
    .endm
    .macro CPUID_BIT name:req, leaf:req, register:req, bit:req, want:req
    mov $\leaf, %eax
    cpuid
    bt $\bit, %\register
    CHECK_FLAG "\name", c, \want
    .endm
    .macro XCR_REFUSED name:req, index:req, high:req, low:req
    LOAD \index, \high, \low
    TRY "xsetbv"
    CHECK_FAULT "\name", 13, 0
    .endm

main:
    /* ---- before long mode ---- */
    mov $dir32, %edi
    mov $0x83, %eax
    mov $1024, %ecx
1:
    mov %eax, (%edi)
    add $0x400000, %eax
    add $4, %edi
    loop 1b
    mov $0x10, %eax /* PSE */
    mov %eax, %cr4
    mov $dir32, %eax
    mov %eax, %cr3
    mov %cr0, %eax
    or $0x80000000, %eax
    mov %eax, %cr0
    mov $EFER, %ecx
    xor %edx, %edx
    mov $0x100, %eax
    TRY "wrmsr"
    CHECK_FAULT "setting EFER.LME while paging is #GP(0)", 13, 0
    mov $0x20010, %eax
    TRY "mov %eax, %cr4"
    CHECK_FAULT "CR4.PCIDE outside IA-32e mode is #GP(0)", 13, 0
    mov %cr0, %eax
    and $0x7fffffff, %eax
    mov %eax, %cr0
    SET_MSR EFER, 0, 0x100
    mov %cr0, %eax
    or $0x80000000, %eax
    TRY "mov %eax, %cr0"
    CHECK_FAULT "paging with LME and without PAE is #GP(0)", 13, 0
    SET_MSR EFER, 0, 0
    mov $EFER, %ecx
    rdmsr
    CHECK "EFER.LME can be cleared without paging", %eax, $0
    SET_MSR EFER, 0, 0x400
    rdmsr
    CHECK "EFER.LMA cannot be written", %eax, $0

    call enter_long
    BITS64
    mov $0x80000008, %eax
    cpuid
    movzbl %al, %ecx
    sub $32, %ecx
    mov $-1, %eax
    shl %cl, %eax
    mov %eax, above_width

    /* ---- EFER ---- */
    BITS "EFER", EFER, 0, 0x500, $-1, (0xfffff3fe-0x100000000)
    mov $EFER, %ecx
    rdmsr
    CHECK "EFER is as before", %rax, $0x500
    mov $EFER, %ecx
    xor %edx, %edx
    mov $0x100, %eax
    TRY "wrmsr"
    CHECK_NO_FAULT "EFER.LMA written as 0"
    rdmsr
    CHECK "EFER.LMA stays", %rax, $0x500
    movabs $0xffffffffc0000080, %rcx
    mov $-1, %rax
    mov $-1, %rdx
    TRY "rdmsr"
    CHECK_NO_FAULT "RDMSR looks at ECX only"
    shr $32, %rax
    shr $32, %rdx
    or %rax, %rdx
    CHECK "RDMSR clears the upper halves of RAX and RDX", %rdx, $0

    /* ---- addresses ---- */
    BITS "LSTAR", 0xc0000082, 0, 0, $(-0x8000), 0
    BITS "LSTAR, upper half", 0xc0000082, -1, 0, $(-0x8000), 0
    .irp number, 0xc0000083, 0xc0000100, 0xc0000101, 0xc0000102, 0x175, 0x176
    BITS "CSTAR, FS_BASE, GS_BASE, KERNEL_GS_BASE, SYSENTER_ESP or _EIP: \number", \number, 0, 0, $(-0x8000), 0
    .endr
    BITS "STAR", 0xc0000081, 0, 0, $0, 0
    TAKEN "LSTAR", 0xc0000082, -0x8000, 0x12345678
    TAKEN "STAR", 0xc0000081, 0x230010, 0x7fffffff
    BITS "TSC_AUX", 0xc0000103, 0, 0, $-1, 0
    SET_MSR 0xc0000103, 0, 0x1234567
    rdtscp
    CHECK "RDTSCP: ECX is TSC_AUX", %rcx, $0x1234567

    /* ---- memory types ---- */
    xor %r13d, %r13d
    xor %r14d, %r14d
    movabs $0x0007040600070406, %r15
1:  /* each entry of the PAT with each value of a byte */
    mov %r13d, %ecx
    shr $8, %ecx
    shl $3, %ecx
    movzbl %r13b, %ebx
    shl %cl, %rbx
    mov $0xff, %esi
    shl %cl, %rsi
    not %rsi
    mov %r15, %rax
    and %rsi, %rax
    or %rbx, %rax
    mov %rax, %rdx
    shr $32, %rdx
    mov $PAT, %ecx
    TRY "wrmsr"
    cmpl $-1, fault
    jne 2f
    inc %r14d
2:
    inc %r13d
    cmp $2048, %r13d
    jb 1b
    CHECK "PAT: six types in eight entries", %r14, $48
    TAKEN "PAT", PAT, 0x00070406, 0x01050406
    REFUSED "PAT: type 2", PAT, 0x00070406, 0x00070402
    REFUSED "PAT: type 3 in the last entry", PAT, 0x03070406, 0x00070406
    REFUSED "PAT: type 8", PAT, 0x00080406, 0x00070406
    mov $1, %eax
    cpuid
    bt $12, %edx
    jnc no_mtrrs
    mov $0xfe, %ecx
    rdmsr
    movzbl %al, %r12d
    REFUSED "MTRRCAP cannot be written", 0xfe, 0, 0x508
    lea 0x200(%r12,%r12), %ecx
    TRY "rdmsr"
    CHECK_FAULT "no variable MTRR behind VCNT", 13, 0
    lea 0x1ff(%r12,%r12), %ecx
    TRY "rdmsr"
    CHECK_NO_FAULT "the last variable MTRR"
    BITS "MTRR_DEF_TYPE", 0x2ff, 0, 0xc06, $-1, (0xfffff3fd-0x100000000)
    BITS "MTRR_PHYSBASE0", 0x200, 0, 6, above_width, 0xffd
    BITS "MTRR_PHYSMASK0", 0x201, 0, 0, above_width, 0x7ff
    BITS "MTRR_FIX64K", 0x250, 0x06060606, 0x06060606, $(0xfdfdfdfd-0x100000000), (0xfdfdfdfd-0x100000000)
    BITS "MTRR_FIX4K", 0x26f, 0x06060606, 0x06060606, $(0xfdfdfdfd-0x100000000), (0xfdfdfdfd-0x100000000)
    READ_REFUSED "no MTRR at 251H", 0x251
no_mtrrs:

    /* ---- MISC_ENABLE ---- */
    mov $MISC_ENABLE, %ecx
    rdmsr
    mov %eax, %r12d
    mov %edx, %r13d
    TRY "wrmsr"
    CHECK_NO_FAULT "MISC_ENABLE: its own value"
    or $2, %eax
    TRY "wrmsr"
    CHECK_FAULT "MISC_ENABLE: reserved bit 1", 13, 0
    mov $MISC_ENABLE, %ecx
    mov %r12d, %eax
    mov %r13d, %edx
    or $4, %edx
    TRY "wrmsr"
    CHECK_NO_FAULT "MISC_ENABLE: XD bit disable"
    CPUID_BIT "XD bit disable: CPUID has no NX", 0x80000001, edx, 20, 0
    REFUSED "XD bit disable: EFER.NXE", EFER, 0, 0xd00
    mov $MISC_ENABLE, %ecx
    mov %r12d, %eax
    mov %r13d, %edx
    wrmsr
    CPUID_BIT "XD bit enabled again", 0x80000001, edx, 20, 1

    /* ---- time stamp counter ---- */
    call read_tsc
    mov %rax, %rbx
    call read_tsc
    cmp %rbx, %rax
    setb %al
    movzbl %al, %eax
    CHECK "TSC does not go back", %rax, $0
    mov $TSC_ADJUST, %ecx
    call read_msr
    mov %rax, %r12
    call read_tsc
    mov %rax, %r13
    movabs $0x123400000000, %rdx /* TSC := TSC + that */
    add %rdx, %rax
    mov $TSC, %ecx
    call write_msr
    call read_tsc
    sub %r13, %rax
    shr $32, %rax
    CHECK "a write of TSC moves it", %rax, $0x1234
    mov $TSC_ADJUST, %ecx
    call read_msr
    sub %r12, %rax
    movabs $0x0000123400000000, %rdx
    sub %rax, %rdx /* what passed between the reading and the writing */
    shr $32, %rdx
    CHECK "TSC_ADJUST moves along", %rdx, $0
    mov $TSC_ADJUST, %ecx
    mov %r12, %rax
    call write_msr
    call read_tsc
    sub %r13, %rax
    shr $32, %rax
    CHECK "a write of TSC_ADJUST moves TSC back", %rax, $0
    mov $TSC_ADJUST, %ecx
    mov %r12, %rax
    movabs $0x100000000000, %rdx
    sub %rdx, %rax
    call write_msr
    call read_tsc
    sub %r13, %rax
    sar $32, %rax
    CHECK "TSC_ADJUST may make TSC smaller", %rax, $-0x1000
    mov $TSC_ADJUST, %ecx
    mov %r12, %rax
    call write_msr
    mov %cr4, %rax
    or $4, %eax
    mov %rax, %cr4
    USER "CR4.TSD: RDTSC at ring 3 is #GP(0)", user_rdtsc
    USER "CR4.TSD: RDTSCP at ring 3 is #GP(0)", user_rdtscp
    TRY "rdtsc"
    CHECK_NO_FAULT "CR4.TSD: RDTSC at ring 0"
    mov %cr4, %rax
    and $~4, %eax
    mov %rax, %cr4
    USER "RDTSC at ring 3", user_rdtsc, USER_EXIT

    /* ---- what is not there, or read-only, or for ring 0 ---- */
    READ_REFUSED "RDMSR of an unknown number", 0x12345678
    REFUSED "WRMSR of an unknown number", 0x12345678, 0, 0
    READ_REFUSED "RDMSR of AMD's HWCR", 0xc0010015
    READ_REFUSED "RDMSR of a VMX register without VMX", 0x480
    READ_REFUSED "RDMSR of PRED_CMD, which is write-only", 0x49
    REFUSED "PRED_CMD: a reserved bit", 0x49, 0, 2
    REFUSED "ARCH_CAPABILITIES is read-only", 0x10a, 0, 0
    REFUSED "MCG_CAP is read-only", 0x179, 0, 0
    REFUSED "MC0_CTL: neither zeros nor ones", 0x400, 0, 1
    REFUSED "MC0_STATUS: not zero", 0x401, 0, 1
    TAKEN "PKRS", 0x6e1, 0, 0x12345678
    REFUSED "PKRS: the upper half", 0x6e1, 1, 0
    TAKEN "PKRS of zeros", 0x6e1, 0, 0
    REFUSED "XSS: no supervisor state", 0xda0, 0, 1
    USER "RDMSR at ring 3 is #GP(0)", user_rdmsr
    USER "WRMSR at ring 3 is #GP(0)", user_wrmsr
    TRY ".byte 0xf0; rdmsr"
    CHECK_FAULT "LOCK RDMSR is #UD", 6, 0

    /* ---- control registers ---- */
    mov %cr0, %rax
    mov %rax, %r12
    and $~0x10, %eax /* ET */
    mov %rax, %cr0
    mov %cr0, %rax
    CHECK "CR0.ET cannot be cleared", %rax, %r12
    mov %r12, %rax
    or $0x1ffaffc0, %eax
    TRY "mov %rax, %cr0"
    CHECK_NO_FAULT "CR0: reserved bits of the lower half are ignored"
    mov %cr0, %rax
    CHECK "CR0: and read as 0", %rax, %r12
    MOV_REFUSED "CR0: bit 32", cr0, "mov %r12, %rbx; bts $32, %rbx"
    MOV_REFUSED "CR0: bit 63", cr0, "mov %r12, %rbx; bts $63, %rbx"
    MOV_REFUSED "CR0: clearing PG in 64-bit mode", cr0, "mov %r12, %rbx; btr $31, %rbx"
    MOV_REFUSED "CR0: clearing PE while paging", cr0, "mov %r12, %rbx; btr $0, %rbx"
    MOV_REFUSED "CR0: NW without CD", cr0, "mov %r12, %rbx; bts $29, %rbx"
    mov %r12, %rbx
    or $0x60000000, %ebx
    mov %ebx, %ebx
    TRY "mov %rbx, %cr0"
    CHECK_NO_FAULT "CR0: NW with CD"
    mov %r12, %cr0
    mov %cr0, %rax
    and $~0xffff, %eax
    or $0x3a, %eax
    TRY "lmsw %ax"
    CHECK_NO_FAULT "LMSW without PE"
    mov %cr0, %rax
    and $0xf, %eax
    CHECK "LMSW cannot clear PE; it sets MP, EM, TS", %rax, $0xb
    mov %r12, %cr0

    mov %cr4, %r12
    xor %r14d, %r14d
    xor %r13d, %r13d
1:
    cmp $20, %r13d /* not SMEP, SMAP: this runs in user pages */
    je 3f
    cmp $21, %r13d
    je 3f
    mov %r12, %rbx
    btc %r13, %rbx
    TRY "mov %rbx, %cr4"
    cmpl $13 << 16, fault
    jne 3f
    bts %r13, %r14
3:
    mov %r12, %cr4
    inc %r13d
    cmp $64, %r13d
    jb 1b
    CHECK "CR4: PAE in long mode and what does not exist is #GP(0)", %r14, $(0xfe88f020-0x100000000)
    shr $32, %r14
    CHECK "CR4: the upper half is #GP(0)", %r14, $-1
    mov %cr3, %r13
    lea 0x18(%r13), %rax
    mov %rax, %cr3
    MOV_REFUSED "CR4.PCIDE with CR3[11:0] not 0", cr4, "mov %r12, %rbx; bts $17, %rbx"
    mov %r13, %cr3
    MOV_REFUSED "CR3: bit 63 without PCIDE", cr3, "mov %r13, %rbx; bts $63, %rbx"
    mov $0x80000008, %eax
    cpuid
    movzbl %al, %eax
    MOV_REFUSED "CR3: a bit above the physical address width", cr3, "mov %r13, %rbx; bts %rax, %rbx"
    MOV_REFUSED "CR8: 16", cr8, "mov $16, %ebx"
    MOV_REFUSED "CR8: bit 63", cr8, "xor %ebx, %ebx; bts $63, %rbx"
    mov $9, %eax
    mov %rax, %cr8
    mov %cr8, %rbx
    CHECK "CR8 reads back", %rbx, $9
    xor %eax, %eax
    mov %rax, %cr8
    .irp n, 1, 5, 6, 7, 9, 15
    TRY "mov %cr\n, %rax"
    CHECK_FAULT "CR\n does not exist", 6, 0
    .endr
    USER "MOV from CR0 at ring 3 is #GP(0)", user_read_cr0
    USER "MOV from CR8 at ring 3 is #GP(0)", user_read_cr8
    USER "CLTS at ring 3 is #GP(0)", user_clts
    MOV_REFUSED "DR7: bit 32", db7, "movabs $0x100000400, %rbx"
    MOV_REFUSED "DR6: bit 32", db6, "movabs $0x1ffff0ff0, %rbx"

    /* ---- XCR0 ---- */
    xor %ecx, %ecx
    TRY "xgetbv"
    CHECK_FAULT "XGETBV without CR4.OSXSAVE is #UD", 6, 0
    TRY "xsetbv"
    CHECK_FAULT "XSETBV without CR4.OSXSAVE is #UD", 6, 0
    CPUID_BIT "CPUID: no OSXSAVE without CR4.OSXSAVE", 1, ecx, 27, 0
    mov %r12, %rax
    bts $18, %rax
    mov %rax, %cr4
    CPUID_BIT "CPUID: OSXSAVE with CR4.OSXSAVE", 1, ecx, 27, 1
    xor %ecx, %ecx
    xgetbv
    CHECK "XCR0 is 1 after reset", %rax, $1
    XCR_REFUSED "XSETBV: x87 must be on", 0, 0, 0
    XCR_REFUSED "XSETBV: x87 must be on, also with SSE", 0, 0, 2
    XCR_REFUSED "XSETBV: AVX needs SSE", 0, 0, 5
    XCR_REFUSED "XSETBV: AVX-512 needs all its bits", 0, 0, 0x27
    XCR_REFUSED "XSETBV: AVX-512 needs AVX", 0, 0, 0xe3
    XCR_REFUSED "XSETBV: BNDREGS without BNDCSR", 0, 0, 0xb
    XCR_REFUSED "XSETBV: bit 63", 0, 0x80000000, 3
    XCR_REFUSED "XSETBV: XCR1 does not exist", 1, 0, 1
    XCR_REFUSED "XSETBV: XCR2 does not exist", 2, 0, 1
    mov $2, %ecx
    TRY "xgetbv"
    CHECK_FAULT "XGETBV: XCR2 is #GP(0)", 13, 0
    mov $0xd, %eax
    xor %ecx, %ecx
    cpuid
    mov %eax, %r13d /* supported bits */
    xor %ecx, %ecx
    xor %edx, %edx
    mov $3, %eax
    TRY "xsetbv"
    CHECK_NO_FAULT "XSETBV: x87 and SSE"
    xgetbv
    CHECK "XGETBV gives it back", %rax, $3
    xor %edx, %edx
    mov %r13d, %eax
    TRY "xsetbv"
    CHECK_NO_FAULT "XSETBV: all that CPUID lists"
    xgetbv
    CHECK "XGETBV: all that CPUID lists", %rax, %r13
    mov %r13d, %eax
    not %eax
    bsf %eax, %ecx
    mov %r13d, %eax
    bts %ecx, %eax
    xor %ecx, %ecx
    xor %edx, %edx
    TRY "xsetbv"
    CHECK_FAULT "XSETBV: the lowest bit that CPUID does not list", 13, 0
    USER "XSETBV at ring 3 is #GP(0)", user_xsetbv
    USER "XGETBV at ring 3", user_xgetbv, USER_EXIT
    mov %r12, %cr4

    /* ---- APIC_BASE ---- */
    mov $APIC_BASE, %ecx
    rdmsr
    CHECK "APIC_BASE: enabled, bootstrap processor", %rax, $(0xfee00900-0x100000000)
    REFUSED "APIC_BASE: bit 0", APIC_BASE, 0, 0xfee00901
    REFUSED "APIC_BASE: bit 7", APIC_BASE, 0, 0xfee00980
    REFUSED "APIC_BASE: bit 9", APIC_BASE, 0, 0xfee00b00
    REFUSED "APIC_BASE: bit 63", APIC_BASE, 0x80000000, 0xfee00900
    REFUSED "APIC_BASE: x2APIC mode without enable", APIC_BASE, 0, 0xfee00500
    READ_REFUSED "x2APIC register in xAPIC mode", 0x802
    REFUSED "x2APIC register in xAPIC mode, write", 0x808, 0, 0
    TAKEN "APIC_BASE: x2APIC mode", APIC_BASE, 0, 0xfee00d00-0x100000000
    REFUSED "APIC_BASE: from x2APIC mode to xAPIC mode", APIC_BASE, 0, 0xfee00900
    mov $0x802, %ecx
    TRY "rdmsr"
    CHECK_NO_FAULT "x2APIC: the identifier"
    READ_REFUSED "x2APIC: DFR does not exist", 0x80e
    READ_REFUSED "x2APIC: ICR has no upper half of its own", 0x831
    READ_REFUSED "x2APIC: EOI is write-only", 0x80b
    READ_REFUSED "x2APIC: a reserved register", 0x8ff
    REFUSED "x2APIC: the identifier is read-only", 0x802, 0, 0
    REFUSED "x2APIC: EOI of 1", 0x80b, 0, 1
    REFUSED "x2APIC: TPR with bit 8", 0x808, 0, 0x100
    REFUSED "x2APIC: upper half of the TPR", 0x808, 1, 0
    TAKEN "APIC_BASE: disabled", APIC_BASE, 0, 0xfee00100-0x100000000
    CPUID_BIT "CPUID: no APIC while it is disabled", 1, edx, 9, 0
    REFUSED "APIC_BASE: from disabled to x2APIC mode", APIC_BASE, 0, 0xfee00d00
    TAKEN "APIC_BASE: xAPIC mode again", APIC_BASE, 0, 0xfee00900-0x100000000
    jmp finish64

/* EDX:EAX with each bit inverted into MSR ECX: R14 has those that are #GP(0). Puts the value back. */
try_bits:
    shl $32, %rdx
    mov %eax, %eax
    or %rdx, %rax
    mov %rax, %r15
    xor %r13d, %r13d
    xor %r14d, %r14d
1:
    mov %r15, %rax
    btc %r13, %rax
    mov %rax, %rdx
    shr $32, %rdx
    mov %ecx, %r12d
    TRY "wrmsr"
    mov %r12d, %ecx
    cmpl $13 << 16, fault
    jne 2f
    bts %r13, %r14
2:
    mov %r15, %rax
    call write_msr
    inc %r13d
    cmp $64, %r13d
    jb 1b
    ret
read_tsc:
    rdtsc
    jmp 1f
read_msr:
    rdmsr
1:
    shl $32, %rdx
    or %rdx, %rax
    ret
write_msr:
    mov %rax, %rdx
    shr $32, %rdx
    wrmsr
    ret

user_rdtsc:
    rdtsc
    int $USER_EXIT
user_rdtscp:
    rdtscp
    int $USER_EXIT
user_rdmsr:
    mov $TSC, %ecx
    rdmsr
user_wrmsr:
    mov $EFER, %ecx
    wrmsr
user_read_cr0: mov %cr0, %rax
user_read_cr8: mov %cr8, %rax
user_clts: clts
user_xsetbv:
    xor %ecx, %ecx
    xor %edx, %edx
    mov $3, %eax
    xsetbv
user_xgetbv:
    xor %ecx, %ecx
    xgetbv
    int $USER_EXIT
    BITS32

    .data
    .align 8
above_width: .quad 0
    .bss
    .align 4096
dir32: .space 4096
    .text
