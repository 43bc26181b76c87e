/*
 * translated.S - instructions that must not be left to the interpreter, each executed 5000 times;
 * translated.py looks at what --stats says of them.
 */
#include "runtime.inc"

#define TIMES 5000

main:
    call enter_long
    BITS64
    mov %cr4, %rax
    or $0x600, %rax /* CR4.OSFXSR, OSXMMEXCPT */
    mov %rax, %cr4
    fninit
    lea scratch, %rbx
    REPEAT TIMES, "movsd (%rbx), %xmm0"
    REPEAT TIMES, "movsd %xmm0, %xmm1"
    REPEAT TIMES, "movsd %xmm1, 8(%rbx)"
    .irp insn, "addsd (%rbx), %xmm2", "cvtsi2sd %rcx, %xmm2", "cvttsd2si %xmm2, %rax", "ucomisd %xmm0, %xmm1"
    REPEAT TIMES, "\insn"
    .endr
    .irp insn, "pxor %xmm3, %xmm3", "movdqu (%rbx), %xmm4", "movaps %xmm4, (%rbx)", "pshufd $1, %xmm4, %xmm5"
    REPEAT TIMES, "\insn"
    .endr
    .irp insn, "movq %xmm4, %rax", "movq %rax, %xmm5", "movd %xmm4, %eax", "cmpltsd %xmm0, %xmm1"
    REPEAT TIMES, "\insn"
    .endr
    .irp insn, "cmovz %rcx, %rax", "setnz %al", "imul %rcx, %rax", "mul %rax", "bsf %rcx, %rax", "bt $3, %rcx"
    REPEAT TIMES, "\insn"
    .endr
    .irp insn, "lock xadd %rax, 16(%rbx)", "lock cmpxchg %rax, 16(%rbx)", "xchg %rax, 16(%rbx)", "shld $3, %rax, %rdx"
    REPEAT TIMES, "\insn"
    .endr
    .irp insn, "movzbl (%rbx), %eax", "movslq (%rbx), %rax", "bswap %eax", "popcnt %rcx, %rax", "movnti %rax, 16(%rbx)"
    REPEAT TIMES, "\insn"
    .endr
    .irp insn, "pushq 16(%rbx); popq %rax", "pushfq; pop %rax", "call 2f; jmp 3f; 2: ret; 3:", "fld1; fstp %st"
    REPEAT TIMES, "\insn"
    .endr
    .irp insn, "adcx %rax, %rdx", "adox 16(%rbx), %rdx", "mulx %rdx, %rax, %rdx", "mulx (%rbx), %r10, %r11", "andn (%rbx), %r12, %r13", "mov %ah, 16(%rbx)", "xadd %dh, 16(%rbx)"
    REPEAT TIMES, "\insn"
    .endr
    lea 64(%rbx), %rsi
    lea 128(%rbx), %rdi
    .irp insn, "lodsb; dec %rsi", "stosq; sub $8, %rdi", "movsl; sub $4, %rsi; sub $4, %rdi", "scasw; sub $2, %rdi"
    REPEAT TIMES, "\insn"
    .endr
    .irp insn, "cmpsq; sub $8, %rsi; sub $8, %rdi", "cld", "std; cld", "pause", "mov %ds, %eax", "mov %cs, %ax"
    REPEAT TIMES, "\insn"
    .endr
    .irp insn, "repe cmpsb", "repne scasl", "rep movsw", "rep stosb"
    REPEAT TIMES, "mov %ecx, %edx; mov $4, %ecx; mov %rbx, %rsi; lea 128(%rbx), %rdi; \insn; mov %edx, %ecx"
    .endr
    .irp insn, "rep movsw", "rep stosb" /* over the end of a page */
    REPEAT TIMES, "mov %ecx, %edx; mov $4, %ecx; mov %rbx, %rsi; mov $scratch + 0xffe, %rdi; \insn; mov %edx, %ecx"
    .endr
    fldpi /* loads the registers */
    .irp insn, "stmxcsr 16(%rbx)", "ldmxcsr 16(%rbx)", "fnstcw 16(%rbx)", "fldcw 16(%rbx)", "fwait", "fnstsw %ax"
    REPEAT TIMES, "\insn"
    .endr
    .irp insn, "jrcxz 2f; 2:", "jecxz 2f; 2:", "inc %ecx; loop 2f; 2:", "inc %rcx; loope 2f; 2:", "inc %ecx; loopne 2f; 2:"
    REPEAT TIMES, "\insn"
    .endr
    mov %cr4, %rax
    or $0x410000, %rax /* PKE, FSGSBASE */
    mov %rax, %cr4
    .irp insn, "rdfsbase %rax; wrfsbase %rax", "rdgsbase %r10d; wrgsbase %r10", "mov %cr2, %rax", "mov %cr4, %r11"
    REPEAT TIMES, "\insn"
    .endr
    REPEAT TIMES, "mov %ecx, %esi; xor %ecx, %ecx; rdpkru; mov %esi, %ecx"
    movsd scratch, %xmm1
    movsd %xmm1, 8(%rbx)
    CHECK "movsd of SSE2", 8(%rbx), scratch
    SET_MSR 0xc0000080, 0, 0x101 /* EFER.SCE */
    SET_MSR 0xc0000081, 0x00280018, 0
    SET_MSR 0xc0000082, 0, system_call
    SET_MSR 0xc0000084, 0, 0
    TRY_USER64 user_calls
    CHECK_FAULT "system calls", USER_EXIT, 0
    jmp finish64
system_call: sysretq
user_calls:
    mov $TIMES, %ebx
4:
    syscall
    dec %ebx
    jnz 4b
    int $USER_EXIT
    BITS32

    .data
    .balign 4096 /* away from code */
scratch: .quad 0x123456789abcdef0, 0, 0
    .zero 0x1100
