/*
 * keys.S - protection keys of user pages (PKRU) and of supervisor pages (PKRS): SDM vol. 3, 4.6.2
 *
 * WINDOW shows one page of 4 KiB, with key 5 in its entry.
 */
#include "runtime.inc"
    .set WINDOW, 0x40000000
    .set AD, 1 << 10 /* of key 5 */
    .set WD, 2 << 10
#define USER 7
#define SUPERVISOR 3
#define PF(error) (14 << 16 | (error))

    /* The page gets these rights, and its translation is forgotten. */
    .macro MAP rights:req
    movl $frame + \rights, window_pt
    movl $5 << 27, window_pt + 4
    invlpg WINDOW
    .endm
    .macro PKRU value:req
    mov $\value, %eax
    xor %ecx, %ecx
    xor %edx, %edx
    wrpkru
    .endm
    .macro PKRS value:req
    mov $\value, %eax
    mov $0x6e1, %ecx
    xor %edx, %edx
    wrmsr
    .endm
    .macro WP_OFF
    mov %cr0, %rax
    and $~0x10000, %eax
    mov %rax, %cr0
    .endm
    .macro WP_ON
    mov %cr0, %rax
    or $0x10000, %eax
    mov %rax, %cr0
    .endm
    /* An access twice: by a page walk, and by what the engine remembers. */
    .macro READ name:req, want:req
    TRY "mov WINDOW, %edx"
    CHECK "\name: read", fault, $\want
    TRY "mov WINDOW, %edx"
    CHECK "\name: read again", fault, $\want
    .endm
    .macro WRITE name:req, want:req
    TRY "mov %edx, WINDOW + 8"
    CHECK "\name: write", fault, $\want
    TRY "mov %edx, WINDOW + 8"
    CHECK "\name: write again", fault, $\want
    .endm
    .macro FETCH name:req
    TRY "mov $WINDOW + 4, %eax; call *%rax"
    CHECK_NO_FAULT "\name: fetch"
    .endm

main:
    call enter_long
    BITS64
    movl $window_pd + 7, pdpt + 8
    movl $window_pt + 7, window_pd
    movb $0xc3, frame + 4
    mov $7, %eax
    xor %ecx, %ecx
    cpuid
    mov %ecx, %r12d
    shr $31, %ecx
    CHECK "CPUID: PKS", %rcx, $1
    shr $3, %r12d
    and $1, %r12d
    CHECK "CPUID: PKU", %r12, $1
    WP_ON

    /* ---- user pages ---- */
    MAP USER
    TRY "PKRU 0"
    CHECK_FAULT "WRPKRU without CR4.PKE is #UD", 6, 0
    CR4 0x400000, 0
    READ "PKRU of zeros", -1
    WRITE "PKRU of zeros", -1
    PKRU AD
    READ "AD of a user page", PF(0x21)
    WRITE "AD of a user page", PF(0x23)
    FETCH "AD of a user page"
    PKRU WD
    READ "WD of a user page", -1
    WRITE "WD of a user page", PF(0x23)
    TRY_USER64 user_write
    CHECK "WD of a user page: write at ring 3", fault, $PF(0x27)
    WP_OFF
    WRITE "WD without WP", -1
    TRY_USER64 user_write
    CHECK "WD without WP: write at ring 3", fault, $PF(0x27)
    WP_ON
    PKRU AD << 2
    READ "AD of another key", -1
    MAP SUPERVISOR
    PKRU AD
    READ "PKRU and a supervisor page", -1
    WRITE "PKRU and a supervisor page", -1
    PKRU 0

    /* ---- supervisor pages ---- */
    PKRS AD
    READ "PKRS without CR4.PKS", -1
    CR4 0x1000000, 0
    READ "AD of a supervisor page", PF(0x21)
    WRITE "AD of a supervisor page", PF(0x23)
    FETCH "AD of a supervisor page"
    PKRS 0
    READ "PKRS of zeros", -1
    WRITE "PKRS of zeros", -1
    PKRS WD
    READ "WD of a supervisor page", -1
    WRITE "WD of a supervisor page", PF(0x23)
    WP_OFF
    WRITE "WD of a supervisor page without WP", -1
    WP_ON
    WRITE "WD of a supervisor page with WP again", PF(0x23)
    PKRS AD << 2
    WRITE "AD of another supervisor key", -1
    MAP USER
    PKRS AD
    READ "PKRS and a user page", -1
    WRITE "PKRS and a user page", -1
    MAP SUPERVISOR
    READ "AD again", PF(0x21)
    CR4 0, 0x1000000
    READ "CR4.PKS off again", -1
    jmp finish64

user_write:
    mov $WINDOW + 8, %eax
    mov %edx, (%rax)
    int $USER_EXIT
    BITS32

    .bss
    .align 4096
window_pd: .space 4096
window_pt: .space 4096
frame: .space 4096
