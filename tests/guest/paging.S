/*
 * paging.S - every paging format, each with the same matrix of permissions and accessed/dirty bits
 *
 * A window at WINDOW is one page of the format under test; low memory is mapped
 * one to one for everybody. ACCESS tries one access and compares the fault, CR2, and the A and D bits.
 */
#include "runtime.inc"
    .set WINDOW, 0x40000000
#define FRAME 0x800000 /* what the window shows; 4 MiB aligned */

    .macro DO_sup_read
    TRY "mov WINDOW + 0x10, %eax"
    .endm
    .macro DO_sup_write
    TRY "mov %ebx, WINDOW + 0x10"
    .endm
    .macro DO_sup_cmpxchg
    mov $0x7fffffff, %eax
    TRY "lock cmpxchg %ebx, WINDOW + 0x10"
    .endm
    .macro DO_usr code:req
    .if bits == 64
    TRY_USER64 \code
    .else
    TRY_USER32 \code
    .endif
    .endm
    .macro DO_usr_read
    DO_usr usr_read
    .endm
    .macro DO_usr_write
    DO_usr usr_write
    .endm
    .macro DO_usr_fetch
    DO_usr WINDOW + 0x10
    .endm
    .macro DO_sup_fetch
    mov $WINDOW + 0x10, %eax
    .if bits == 64
    TRY "jmp *%rax"
    .else
    TRY "jmp *%eax"
    .endif
    .endm
    /* The leaf at leaf becomes flags; CR3 is loaded again. Then one access. */
    .macro ACCESS name:req, flags:req, how:req, want:req, after:req
    mov leaf, %edi
    mov $\flags, %eax
    or frame, %eax
    or leaf_extra, %eax
    mov %eax, (%edi)
    mov leaf_high, %eax
    .if bits == 64
    mov %eax, 4(%rdi)
    mov %cr3, %rax
    mov %rax, %cr3
    .else
    test %eax, %eax
    js 7772f
    mov %eax, 4(%edi)
7772:
    mov %cr3, %eax
    mov %eax, %cr3
    .endif
    movl $0, fault_cr2
    DO_\how
    CHECK "\name", fault, $\want
    .if (\want) != -1 && (\want) != USER_EXIT << 16
    CHECK "\name: CR2", fault_cr2, $WINDOW + 0x10
    .endif
    mov leaf, %edi
    mov (%edi), %eax
    and $0x60, %eax
    .if bits == 64
    CHECK "\name: A and D", %rax, $\after
    .else
    CHECK "\name: A and D", %eax, $\after
    .endif
    .endm
    .macro CR0_WP value:req
    .if bits == 64
    mov %cr0, %rax
    .else
    mov %cr0, %eax
    .endif
    and $~0x10000, %eax
    or $\value << 16, %eax
    .if bits == 64
    mov %rax, %cr0
    .else
    mov %eax, %cr0
    .endif
    .endm
#define PF(e) (14 << 16 | (e))
#define USER_OK (USER_EXIT << 16)
    /* bits of a leaf: 1 P, 2 R/W, 4 U/S, 0x20 A, 0x40 D */
    .macro MATRIX f:req
    ACCESS "\f not present, supervisor read", 6, sup_read, PF(0), 0
    ACCESS "\f not present, supervisor write", 6, sup_write, PF(2), 0
    ACCESS "\f not present, user read", 6, usr_read, PF(4), 0
    ACCESS "\f not present, user write", 6, usr_write, PF(6), 0
    ACCESS "\f supervisor page, supervisor read", 3, sup_read, -1, 0x20
    ACCESS "\f supervisor page, supervisor write", 3, sup_write, -1, 0x60
    ACCESS "\f supervisor page, user read", 3, usr_read, PF(5), 0
    ACCESS "\f supervisor page, user write", 3, usr_write, PF(7), 0
    ACCESS "\f user page, supervisor read", 7, sup_read, -1, 0x20
    ACCESS "\f user page, supervisor write", 7, sup_write, -1, 0x60
    ACCESS "\f user page, user read", 7, usr_read, USER_OK, 0x20
    ACCESS "\f user page, user write", 7, usr_write, USER_OK, 0x60
    ACCESS "\f read-only user page, user write", 5, usr_write, PF(7), 0
    ACCESS "\f read-only user page, user read", 5, usr_read, USER_OK, 0x20
    ACCESS "\f read-only page without WP, supervisor write", 1, sup_write, -1, 0x60
    CR0_WP 1
    ACCESS "\f read-only page with WP, supervisor write", 1, sup_write, PF(3), 0
    ACCESS "\f read-only user page with WP, supervisor write", 5, sup_write, PF(3), 0
    ACCESS "\f read-only page with WP, locked compare that fails", 1, sup_cmpxchg, PF(3), 0
    CR0_WP 0
    ACCESS "\f page, locked compare that fails is a write", 3, sup_cmpxchg, -1, 0x60
    ACCESS "\f accessed and dirty stay set", 0x63, sup_read, -1, 0x60
    .endm

    .macro SET_CR4 value:req
    mov $\value, %eax
    mov %eax, %cr4
    .endm
    .macro PAGING value:req
    mov %cr0, %eax
    .if \value
    or $0x80000000, %eax
    .else
    and $0x7fffffff, %eax
    .endif
    mov %eax, %cr0
    .endm

main:
    movl $0, FRAME + 0x10
    movl $0, WINDOW_none
    TRY "mov WINDOW_none, %eax"
    CHECK_NO_FAULT "no paging: linear is physical"

    /* 32-bit: 4 KiB pages, then 4 MiB ones */
    movl $table32 + 7, dir32
    call fill_pt32
    movl $window_table + 7, dir32 + WINDOW / 0x400000 * 4
    movl $dir32, %eax
    mov %eax, %cr3
    movl $window_table, leaf
    movl $0, leaf_extra
    movl $-1, leaf_high
    SET_CR4 0
    PAGING 1
    MATRIX "32-bit 4K"
    andl $~4, dir32 + WINDOW / 0x400000 * 4
    ACCESS "32-bit: a supervisor directory entry wins, user read", 7, usr_read, PF(5), 0
    orl $4, dir32 + WINDOW / 0x400000 * 4
    andl $~2, dir32 + WINDOW / 0x400000 * 4
    ACCESS "32-bit: a read-only directory entry wins, user write", 7, usr_write, PF(7), 0
    orl $2, dir32 + WINDOW / 0x400000 * 4
    movl $dir32 + WINDOW / 0x400000 * 4, leaf
    movl $0x80, leaf_extra
    SET_CR4 0x10
    MATRIX "PSE 4M"
    ACCESS "PSE 4M: bit 21 is reserved", 0x200007, sup_read, PF(9), 0
    ACCESS "PSE 4M: bit 21 is reserved, user write", 0x200007, usr_write, PF(15), 0
    PAGING 0

    /* PAE */
    SET_CR4 0x20
    mov $pae_pdpt, %eax
    movl $pae_pd + 1, (%eax)
    movl $pae_window_pd + 1, 8(%eax)
    mov %eax, %cr3
    movl $0xe7, pae_pd
    movl $0x2000e7, pae_pd + 8
    movl $0x4000e7, pae_pd + 16
    movl $0x6000e7, pae_pd + 24
    movl $FRAME + 0xe7, pae_pd + 32
    movl $window_table + 7, pae_window_pd
    movl $0, window_table + 4
    movl $window_table, leaf
    movl $0, leaf_extra
    movl $0, leaf_high
    PAGING 1
    MATRIX "PAE 4K"
    SET_MSR 0xc0000080, 0, 0
    movl $0x40000000, leaf_high
    ACCESS "PAE: bit 62 is reserved", 7, sup_read, PF(9), 0
    movl $0, leaf_high
    movl $pae_window_pd, leaf
    movl $0x80, leaf_extra
    MATRIX "PAE 2M"
    ACCESS "PAE 2M: bit 13 is reserved", 0x2007, usr_read, PF(13), 0
    PAGING 0
    orl $2, pae_pdpt + 8
    TRY "PAGING 1"
    CHECK_FAULT "PAE: a reserved bit of a PDPTE is #GP when paging starts", 13, 0
    andl $~2, pae_pdpt + 8

    call enter_long
    BITS64
    CR0_WP 0
    movl $window_long_pd + 7, pdpt + 8
    movl $window_table + 7, window_long_pd
    movl $0, window_table + 4
    movl $window_table, leaf
    movl $0, leaf_extra
    movl $0, leaf_high
    MATRIX "4-level 4K"
    movl $0x80000000, leaf_high
    ACCESS "NX off: bit 63 is reserved", 7, sup_read, PF(9), 0
    SET_MSR 0xc0000080, 0, 0x900
    movb $0xcd, FRAME + 0x10 /* int USER_EXIT */
    movb $USER_EXIT, FRAME + 0x11
    ACCESS "NX: supervisor fetch", 3, sup_fetch, PF(0x11), 0
    ACCESS "NX: user fetch", 7, usr_fetch, PF(0x15), 0
    ACCESS "NX: a read is fine", 7, usr_read, USER_OK, 0x20
    ACCESS "NX: fetch from a page not present", 6, usr_fetch, PF(0x14), 0
    movl $0, leaf_high
    ACCESS "no NX bit: user fetch", 7, usr_fetch, USER_OK, 0x20
    ACCESS "user fetch from a supervisor page", 3, usr_fetch, PF(0x15), 0
    ACCESS "without SMEP: supervisor fetch from a user page", 7, sup_fetch, USER_OK, 0x20
    /* SMEP, SMAP: for a while the code, stack and data of this test are the supervisor's */
    andb $~4, pd
    mov $0x100620, %eax
    mov %rax, %cr4
    ACCESS "SMEP: supervisor fetch from a user page", 7, sup_fetch, PF(0x11), 0
    ACCESS "SMEP: supervisor fetch from a supervisor page", 3, sup_fetch, USER_OK, 0x20
    mov $0x200620, %eax
    mov %rax, %cr4
    ACCESS "SMAP: supervisor read of a user page", 7, sup_read, PF(1), 0
    ACCESS "SMAP: supervisor write of a user page", 7, sup_write, PF(3), 0
    ACCESS "SMAP: supervisor page", 3, sup_write, -1, 0x60
    stac
    ACCESS "SMAP with AC: supervisor write of a user page", 7, sup_write, -1, 0x60
    clac
    ACCESS "SMAP after CLAC: supervisor write of a user page", 7, sup_write, PF(3), 0
    mov $0x620, %eax
    mov %rax, %cr4
    orb $4, pd
    movl $window_long_pd, leaf
    movl $0x80, leaf_extra
    MATRIX "4-level 2M"
    ACCESS "4-level 2M: bit 13 is reserved", 0x2007, usr_read, PF(13), 0

    /* 1 GiB pages: the window is physical memory from 0 on */
    mov $0x80000001, %eax
    cpuid
    and $0x4000000, %edx
    CHECK "CPUID has 1 GiB pages", %rdx, $0x4000000
    mov $pdpt + 8, %eax
    mov %eax, leaf
    movl $0, frame
    MATRIX "4-level 1G"
    ACCESS "4-level 1G: bit 13 is reserved", 0x2007, sup_read, PF(9), 0
    ACCESS "4-level 1G: bit 21 is reserved", 0x200007, usr_write, PF(15), 0
    ACCESS "4-level 1G: bit 29 is reserved", 0x20000007, usr_read, PF(13), 0
    ACCESS "4-level 1G: bit 12 is the PAT's", 0x1007, usr_read, USER_OK, 0x20
    movl $0x80000, leaf_high
    ACCESS "4-level 1G: bit 51 is reserved", 7, sup_write, PF(11), 0
    movl $0x7ff00000, leaf_high
    ACCESS "4-level 1G: bits 52 to 62 are ignored", 7, sup_read, -1, 0x20
    movw $USER_EXIT << 8 | 0xcd, 0x10 /* int USER_EXIT */
    movl $0x80000000, leaf_high
    ACCESS "4-level 1G: NX, supervisor fetch", 3, sup_fetch, PF(0x11), 0
    ACCESS "4-level 1G: NX, user fetch", 7, usr_fetch, PF(0x15), 0
    movl $0, leaf_high
    ACCESS "4-level 1G: user fetch", 7, usr_fetch, USER_OK, 0x20
    ACCESS "4-level 1G: user fetch from a supervisor page", 3, usr_fetch, PF(0x15), 0
    andb $~4, pd
    mov $0x300620, %eax
    mov %rax, %cr4
    ACCESS "4-level 1G: SMEP", 7, sup_fetch, PF(0x11), 0
    ACCESS "4-level 1G: SMAP", 7, sup_write, PF(3), 0
    stac
    ACCESS "4-level 1G: SMAP with AC", 7, sup_write, -1, 0x60
    ACCESS "4-level 1G: AC does not lift SMEP", 7, sup_fetch, PF(0x11), 0
    clac
    mov $0x620, %eax
    mov %rax, %cr4
    orb $4, pd
    /* Far into the page: the translation takes 30 bits from the address. */
    movl $7 | 0x80, pdpt + 8
    mov %cr3, %rax
    mov %rax, %cr3
    movl $0x13579bdf, FRAME + 0x1234
    mov WINDOW + FRAME + 0x1234, %eax
    CHECK "4-level 1G: 30 bits of offset, read", %rax, $0x13579bdf
    movl $0x2468ace0, WINDOW + FRAME + 0x3ffc
    CHECK "4-level 1G: 30 bits of offset, write", FRAME + 0x3ffc, $0x2468ace0
    movl $0x600df00d, WINDOW + FRAME + 0x1ffe /* crosses 4 KiB: not a border here */
    CHECK "4-level 1G: an access across 4 KiB", FRAME + 0x1ffe, $0x600df00d
    jmp finish64

usr_read:
    mov $WINDOW + 0x10, %ecx
    mov (%rcx), %edx
    int $USER_EXIT
usr_write:
    mov $WINDOW + 0x10, %ecx
    mov %edx, (%rcx)
    int $USER_EXIT
    BITS32

    .data
    .align 8
leaf: .long 0
frame: .long FRAME
leaf_extra: .long 0
leaf_high: .long 0
WINDOW_none: .long 0
    .bss
    .align 4096
dir32: .space 4096
table32: .space 4096
window_table: .space 4096
pae_pdpt: .space 4096
pae_pd: .space 4096
pae_window_pd: .space 4096
window_long_pd: .space 4096
    .text
fill_pt32:
    mov $table32, %edi
    mov $7, %eax
    mov $1024, %ecx
1:
    mov %eax, (%edi)
    add $4096, %eax
    add $4, %edi
    loop 1b
    ret
