/*
 * paging_cache.S - what must not be remembered of page tables: INVLPG, CR3, PCIDs, INVPCID
 *
 * SDM vol. 3, 4.10. Processors may always forget a translation, so only the other way is tested:
 * after a change and what makes it known, no old translation is used. Also accessed and dirty
 * bits in all levels (4.8), and implicit supervisor accesses under SMAP (4.6.1).
 *
 * WINDOW shows 4 KiB pages through window_pt, or one large page of window_pd or of the PDPT.
 */
#include "runtime.inc"
    .set WINDOW, 0x40000000
#define BIG_A 0x800000 /* two frames of 2 MiB */
#define BIG_B 0xa00000

    .macro RELOAD
    mov %cr3, %rax
    mov %rax, %cr3
    .endm
    /* The first page of the window becomes frame with flags. */
    .macro MAP frame:req, flags:req
    movl $\frame + \flags, window_pt
    movl $0, window_pt + 4
    .endm
    .macro SEE name:req, want:req
    mov WINDOW, %eax
    CHECK "\name", %rax, $\want
    .endm
    .macro RUN name:req, want:req
    mov $WINDOW + 0x100, %eax
    call *%rax
    CHECK "\name", %rax, $\want
    .endm
    .macro FORGET type:req, pcid:req, address:req
    movq $\pcid, descriptor
    movabs $\address, %rax
    mov %rax, descriptor + 8
    mov $\type, %edx
    invpcid descriptor, %rdx
    .endm
    .macro FORGET_REFUSED name:req, type:req, pcid:req, address:req
    movq $\pcid, descriptor
    movabs $\address, %rax
    mov %rax, descriptor + 8
    movabs $\type, %rdx
    TRY "invpcid descriptor, %rdx"
    CHECK_FAULT "\name", 13, 0
    .endm

main:
    call enter_long
    BITS64
    movl $0xa, frame_a
    movl $0xb, frame_b
    movl $0xc, frame_c
    movabs $0xc300000000b8, %rax /* mov $0, %eax; ret */
    .irp letter, a, b, c
    mov %rax, frame_\letter + 0x100
    movb $0x\letter, frame_\letter + 0x101
    .endr
    movl $window_pd + 7, pdpt + 8
    movl $window_pt + 7, window_pd

    /* ---- accessed and dirty ---- */
    MAP frame_a, 7
    RELOAD
    andl $~0x60, pml4
    andl $~0x60, pdpt + 8
    SEE "a page of 4 KiB", 0xa
    mov pml4, %eax
    and $0x60, %eax
    CHECK "a read sets A in the PML4E", %rax, $0x20
    mov pdpt + 8, %eax
    and $0x60, %eax
    CHECK "a read sets A in the PDPTE", %rax, $0x20
    mov window_pd, %eax
    and $0x60, %eax
    CHECK "a read sets A in the PDE", %rax, $0x20
    mov window_pt, %eax
    and $0x60, %eax
    CHECK "a read sets A in the PTE", %rax, $0x20
    movl $0xa, WINDOW
    mov window_pt, %eax
    and $0x60, %eax
    CHECK "a write after a read sets D", %rax, $0x60
    mov window_pd, %eax
    and $0x60, %eax
    CHECK "a write sets no D in the PDE", %rax, $0x20
    andl $~0x60, window_pt
    mov $WINDOW, %eax
    invlpg (%rax)
    SEE "after INVLPG", 0xa
    mov window_pt, %eax
    and $0x60, %eax
    CHECK "A that was cleared is set again after INVLPG", %rax, $0x20
    andl $~0x60, window_pt
    mov $WINDOW, %eax
    invlpg (%rax)
    TRY "lock cmpxchg %ecx, WINDOW"
    mov window_pt, %eax
    and $0x60, %eax
    CHECK "D that was cleared is set again by a locked compare", %rax, $0x60

    /* ---- reserved bits above the leaf ---- */
    movl $0x80000, window_pd + 4
    RELOAD
    TRY "mov WINDOW, %eax"
    CHECK_FAULT "PDE: bit 51 is reserved", 14, 9
    movl $0, window_pd + 4
    movl $0x80000, pdpt + 12
    RELOAD
    TRY "mov %eax, WINDOW"
    CHECK_FAULT "PDPTE: bit 51 is reserved", 14, 11
    movl $0, pdpt + 12
    movl $window_pd + 0x87, pml4 + 8
    RELOAD
    movabs $0x8000000000, %rsi
    TRY "mov (%rsi), %eax"
    CHECK_FAULT "PML4E: PS is reserved", 14, 9
    movl $0, pml4 + 8
    orb $0x80, window_pt /* PAT here, not a size */
    RELOAD
    SEE "PTE: bit 7 is no size", 0xa

    /* ---- what makes a change known ---- */
    MAP frame_a, 7
    RELOAD
    SEE "frame A", 0xa
    MAP frame_b, 7
    mov $WINDOW + 0x123, %eax
    invlpg (%rax)
    SEE "INVLPG anywhere in the page", 0xb
    MAP frame_c, 7
    RELOAD
    SEE "MOV to CR3", 0xc
    MAP frame_a, 7
    mov %cr0, %rax
    mov %rax, %rbx
    and $~0x10000, %eax
    mov %rax, %cr0
    mov %rbx, %cr0
    RELOAD
    SEE "MOV to CR3 again", 0xa
    MAP frame_a, 5
    mov $WINDOW, %eax
    invlpg (%rax)
    TRY "movl $1, WINDOW"
    CHECK_FAULT "a page that became read-only", 14, 3
    MAP frame_a, 7
    TRY "movl $0xa, WINDOW"
    CHECK_NO_FAULT "writable again after a fault, without INVLPG"
    MAP frame_a, 6
    mov $WINDOW, %eax
    invlpg (%rax)
    TRY "mov WINDOW, %eax"
    CHECK_FAULT "a page that went away", 14, 0
    MAP frame_b, 7
    TRY "mov WINDOW, %eax"
    CHECK_NO_FAULT "a page that came needs no INVLPG"
    SEE "a page that came", 0xb
    movl $frame_c + 7, window_pt + 8
    mov WINDOW + 0x1000, %eax
    movl $frame_a + 7, window_pt + 8
    MAP frame_c, 7
    mov $WINDOW + 0x1000, %eax
    invlpg (%rax)
    mov WINDOW + 0x1000, %eax
    CHECK "INVLPG of the second page", %rax, $0xa
    mov $WINDOW, %eax
    invlpg (%rax)
    SEE "INVLPG of the first page", 0xc

    /* global pages */
    CR4 0x80, 0
    MAP frame_a, 0x107
    mov $WINDOW, %eax
    invlpg (%rax)
    SEE "a global page", 0xa
    MAP frame_b, 0x107
    mov $WINDOW, %eax
    invlpg (%rax)
    SEE "a global page: INVLPG", 0xb
    MAP frame_c, 0x107
    CR4 0, 0x80
    SEE "a global page: CR4.PGE is cleared", 0xc
    MAP frame_a, 0x107
    CR4 0x80, 0
    SEE "a global page: CR4.PGE is set", 0xa
    CR4 0, 0x80

    /* the same of code that has run */
    RUN "code: CR4.PGE is cleared", 0xa
    MAP frame_b, 7
    RELOAD
    RUN "code: MOV to CR3", 0xb
    CR4 0x80, 0
    MAP frame_c, 0x107
    mov $WINDOW, %eax
    invlpg (%rax)
    RUN "code: INVLPG, now global", 0xc
    MAP frame_a, 0x107
    mov $WINDOW, %eax
    invlpg (%rax)
    RUN "global code: INVLPG", 0xa
    MAP frame_a, 7
    mov $WINDOW, %eax
    invlpg (%rax)
    RUN "global code: INVLPG, not global any more", 0xa
    MAP frame_c, 7
    RELOAD
    RUN "code that was global: MOV to CR3", 0xc
    MAP frame_b, 0x107
    mov $WINDOW, %eax
    invlpg (%rax)
    RUN "code that was not global: INVLPG", 0xb
    MAP frame_a, 0x107
    CR4 0, 0x80
    RUN "global code: CR4.PGE is cleared", 0xa

    /* large pages: one INVLPG is for the whole page, however it is kept (4.10.4.1) */
    movl $0x2a, BIG_A + 0x1000
    movl $0x2b, BIG_B + 0x1000
    movl $0x3a, BIG_A + 0x1ff000
    movl $0x3b, BIG_B + 0x1ff000
    movl $BIG_A + 0x87, window_pd
    mov $WINDOW, %eax
    invlpg (%rax)
    mov WINDOW, %eax
    mov WINDOW + 0x1000, %eax
    mov WINDOW + 0x1ff000, %ebx
    CHECK "2M: second 4 KiB", %rax, $0x2a
    CHECK "2M: last 4 KiB", %rbx, $0x3a
    movl $BIG_B + 0x87, window_pd
    mov $WINDOW, %eax
    invlpg (%rax)
    mov WINDOW + 0x1000, %eax
    mov WINDOW + 0x1ff000, %ebx
    CHECK "2M: INVLPG of the first 4 KiB is for the second", %rax, $0x2b
    CHECK "2M: INVLPG of the first 4 KiB is for the last", %rbx, $0x3b
    mov $WINDOW + 0x1ff000, %ecx
    movl $BIG_A + 0x87, window_pd
    invlpg 0xff8(%rcx)
    mov WINDOW + 0x1000, %eax
    mov WINDOW + 0x1ff000, %ebx
    CHECK "2M: INVLPG of the last 4 KiB is for the second", %rax, $0x2a
    CHECK "2M: INVLPG of the last 4 KiB is for the last", %rbx, $0x3a
    movl $window_pt + 7, window_pd
    MAP frame_a, 7
    movl $frame_b + 7, window_pt + 8
    invlpg (%rcx)
    SEE "2M split: the first page", 0xa
    mov WINDOW + 0x1000, %eax
    CHECK "2M split: the second page", %rax, $0xb
    movl $0x87, pdpt + 8
    mov $WINDOW, %eax
    invlpg (%rax)
    mov WINDOW + BIG_A + 0x1000, %eax
    mov WINDOW + BIG_B + 0x1000, %ebx
    CHECK "1G: one address", %rax, $0x2a
    CHECK "1G: another", %rbx, $0x2b
    movl $window_pd + 7, pdpt + 8
    movl $BIG_B + 0x87, window_pd + 8 * (BIG_A / 0x200000)
    movl $BIG_A + 0x87, window_pd + 8 * (BIG_B / 0x200000)
    mov $WINDOW, %eax
    invlpg (%rax)
    mov WINDOW + BIG_A + 0x1000, %eax
    mov WINDOW + BIG_B + 0x1000, %ebx
    CHECK "1G split: INVLPG of the start is for one address", %rax, $0x2b
    CHECK "1G split: INVLPG of the start is for another", %rbx, $0x2a
    MAP frame_a, 7

    /* ---- PCIDs ---- */
    mov $1, %eax
    cpuid
    bt $17, %ecx
    jnc no_pcid
    mov $pml4, %esi /* a second set of tables, whose window starts with frame B */
    mov $pml4_two, %edi
    mov $4096, %ecx
    rep movsb
    mov $pdpt, %esi
    mov $pdpt_two, %edi
    mov $4096, %ecx
    rep movsb
    movl $pdpt_two + 7, pml4_two
    movl $pd_two + 7, pdpt_two + 8
    movl $pt_two + 7, pd_two
    movl $frame_b + 7, pt_two
    CR4 0x20000, 0
    mov %cr3, %rax
    CHECK "PCIDE: CR3 is as before", %rax, $pml4
    mov $pml4 + 1, %eax
    mov %rax, %cr3
    mov %cr3, %rax
    CHECK "PCID 1 reads back", %rax, $(pml4+1)
    SEE "PCID 1", 0xa
    mov $pml4_two + 0xfff, %eax
    mov %rax, %cr3
    SEE "PCID FFFH", 0xb
    mov $pml4 + 1, %eax
    bts $63, %rax
    mov %rax, %cr3
    mov %cr3, %rax
    shr $32, %rax
    CHECK "CR3: bit 63 does not read back", %rax, $0
    SEE "PCID 1 again, nothing forgotten", 0xa
    mov $pml4_two + 0xfff, %eax
    bts $63, %rax
    mov %rax, %cr3
    SEE "PCID FFFH again, nothing forgotten", 0xb

    /* Each type of INVPCID, for the current PCID and for the other one. */
    .macro OTHER_PCID /* PCID 1, nothing forgotten */
    mov $pml4 + 1, %eax
    bts $63, %rax
    mov %rax, %cr3
    .endm
    .macro THIS_PCID
    mov $pml4_two + 0xfff, %eax
    bts $63, %rax
    mov %rax, %cr3
    .endm
    RUN "code: PCID FFFH", 0xb
    OTHER_PCID
    RUN "code: PCID 1", 0xa
    THIS_PCID
    RUN "code: PCID FFFH again, nothing forgotten", 0xb
    OTHER_PCID
    RUN "code: PCID 1 again, nothing forgotten", 0xa
    movl $frame_c + 7, pt_two
    mov $pml4_two + 0xfff, %eax
    mov %rax, %cr3
    RUN "code: bit 63 of CR3 is clear", 0xc
    .macro CHANGE_OTHER frame:req /* of the PCID that is not current */
    OTHER_PCID
    movl $\frame + 7, pt_two
    .endm
    CHANGE_OTHER frame_a
    FORGET 1, 0xfff, 0
    THIS_PCID
    RUN "code: INVPCID 1 of another PCID", 0xa
    CHANGE_OTHER frame_b
    FORGET 0, 0xfff, WINDOW
    THIS_PCID
    RUN "code: INVPCID 0 of another PCID", 0xb
    CHANGE_OTHER frame_c
    FORGET 3, 0, 0
    THIS_PCID
    RUN "code: INVPCID 3", 0xc
    CHANGE_OTHER frame_a
    FORGET 2, 0, 0
    THIS_PCID
    RUN "code: INVPCID 2", 0xa
    CHANGE_OTHER frame_b
    CR4 0x80, 0
    THIS_PCID
    RUN "code: CR4.PGE has changed", 0xb
    CHANGE_OTHER frame_c
    CR4 0, 0x80
    THIS_PCID
    RUN "code: CR4.PGE has changed again", 0xc
    MAP frame_b, 7
    movl $frame_a + 7, pt_two
    mov $WINDOW, %eax
    invlpg (%rax)
    RUN "code: INVLPG under a PCID", 0xa
    OTHER_PCID
    mov $WINDOW, %eax
    invlpg (%rax)
    RUN "code: INVLPG under another PCID", 0xb
    MAP frame_a, 7
    mov $WINDOW, %eax
    invlpg (%rax)
    THIS_PCID
    movl $frame_c + 7, pt_two
    FORGET 0, 0xfff, WINDOW
    SEE "INVPCID 0: this PCID", 0xc
    MAP frame_c, 7
    FORGET 0, 1, WINDOW
    OTHER_PCID
    SEE "INVPCID 0: another PCID", 0xc
    THIS_PCID
    SEE "INVPCID 0: back", 0xc
    movl $frame_a + 7, pt_two
    FORGET 1, 0xfff, 0
    SEE "INVPCID 1: this PCID", 0xa
    MAP frame_a, 7
    FORGET 1, 1, 0
    OTHER_PCID
    SEE "INVPCID 1: another PCID", 0xa
    THIS_PCID
    movl $frame_b + 7, pt_two
    MAP frame_b, 7
    FORGET 3, 0, 0
    SEE "INVPCID 3: this PCID", 0xb
    OTHER_PCID
    SEE "INVPCID 3: another PCID", 0xb
    THIS_PCID
    CR4 0x80, 0
    movl $frame_a + 0x107, pt_two
    MAP frame_a, 0x107
    FORGET 2, 0, 0
    SEE "a global page under a PCID", 0xa
    movl $frame_c + 0x107, pt_two
    MAP frame_c, 0x107
    FORGET 2, 0, 0
    SEE "INVPCID 2: global pages of this PCID", 0xc
    OTHER_PCID
    SEE "INVPCID 2: another PCID", 0xc
    MAP frame_b, 0x107
    FORGET 0, 1, WINDOW
    /* a global translation need not go with type 0: INVLPG is for it */
    mov $WINDOW, %eax
    invlpg (%rax)
    SEE "INVLPG of a global page under a PCID", 0xb
    CR4 0, 0x80
    MAP frame_a, 7
    mov $pml4 + 1, %eax /* bit 63 clear: forget this PCID's */
    mov %rax, %cr3
    SEE "MOV to CR3 with bit 63 clear", 0xa
    mov $pml4, %eax
    mov %rax, %cr3
    MAP frame_c, 7
    CR4 0, 0x20000
    SEE "CR4.PCIDE is cleared", 0xc
    CR4 0x20000, 0

    /* ---- entries that lead to page tables ---- */
    mov $window_pt + 8, %esi
    mov $pt_alternative + 8, %edi
    mov $15, %ecx
1:
    movl $frame_a + 7, (%rsi)
    movl $frame_b + 7, (%rdi)
    add $8, %rsi
    add $8, %rdi
    loop 1b
    movl $frame_c + 7, pt_two + 8
    /* The window's page table becomes another one after it was used for another page. */
    .macro CHANGE_TABLE cr3=$pml4, flags=7
    movl $window_pt + 7, window_pd
    mov \cr3, %eax
    mov %rax, %cr3
    SEE_PAGE "as it was", 1, 0xa
    movl $pt_alternative + \flags, window_pd
    .endm
    .macro SEE_PAGE name:req, page:req, want:req
    mov WINDOW + \page * 0x1000, %eax
    CHECK "another page table: \name", %rax, $\want
    .endm
    CHANGE_TABLE
    mov $WINDOW + 0x9000, %eax
    invlpg (%rax)
    SEE_PAGE "INVLPG of any page", 2, 0xb
    CHANGE_TABLE
    FORGET 1, 0, 0
    SEE_PAGE "INVPCID 1", 3, 0xb
    CHANGE_TABLE
    mov $pml4, %eax
    mov %rax, %cr3
    SEE_PAGE "MOV to CR3", 4, 0xb
    CHANGE_TABLE
    CR4 0x80, 0
    CR4 0, 0x80
    SEE_PAGE "MOV to CR4", 5, 0xb
    CHANGE_TABLE $pml4+1
    THIS_PCID
    SEE_PAGE "of another PCID", 1, 0xc
    FORGET 1, 1, 0
    OTHER_PCID
    SEE_PAGE "INVPCID 1 of another PCID", 6, 0xb
    CHANGE_TABLE $pml4+1
    THIS_PCID
    FORGET 0, 1, WINDOW + 0x7000
    OTHER_PCID
    SEE_PAGE "INVPCID 0 of another PCID", 7, 0xb
    CHANGE_TABLE $pml4+1
    THIS_PCID
    FORGET 3, 0, 0
    OTHER_PCID
    SEE_PAGE "INVPCID 3", 8, 0xb
    CHANGE_TABLE $pml4+1
    THIS_PCID
    mov $pml4 + 1, %eax
    mov %rax, %cr3
    SEE_PAGE "MOV to CR3 of another PCID", 9, 0xb
    CHANGE_TABLE $pml4, 5
    mov $pml4, %eax
    mov %rax, %cr3
    SEE_PAGE "read-only", 2, 0xb
    TRY "movl $0xb, WINDOW + 0x3000"
    CHECK_FAULT "another page table: behind an entry without W", 14, 3
    movl $window_pt + 7, window_pd
    mov $window_pt + 8, %edi
    mov $15 * 8, %ecx
    xor %eax, %eax
    rep stosb
    mov $pml4, %eax
    mov %rax, %cr3

    FORGET_REFUSED "INVPCID: type 4", 4, 0, 0
    FORGET_REFUSED "INVPCID: a type of more than 32 bits", 0x100000001, 0, 0
    FORGET_REFUSED "INVPCID: bit 12 of the PCID", 1, 0x1000, 0
    FORGET_REFUSED "INVPCID: reserved bits count in type 2 too", 2, 0x1000, 0
    FORGET_REFUSED "INVPCID 0: a non-canonical address", 0, 1, 0x800000000000
    FORGET 1, 1, 0x800000000000
    FORGET 2, 0xfff, 0x800000000000
    TRY_USER64 user_invpcid
    CHECK_FAULT "INVPCID at ring 3 is #GP(0)", 13, 0
    mov $2, %edx
    TRY "invpcid WINDOW + 0x5000, %rdx"
    CHECK_FAULT "INVPCID: its descriptor is read", 14, 0
    CR4 0, 0x20000
    FORGET_REFUSED "INVPCID 0 with a PCID but without PCIDE", 0, 1, 0
    FORGET_REFUSED "INVPCID 1 with a PCID but without PCIDE", 1, 1, 0
    MAP frame_a, 7
    FORGET 0, 0, WINDOW
    SEE "INVPCID 0 without PCIDE", 0xa
    MAP frame_b, 7
    FORGET 1, 0, 0
    SEE "INVPCID 1 without PCIDE", 0xb
    MAP frame_c, 7
    FORGET 3, 0, 0
    SEE "INVPCID 3 without PCIDE", 0xc
no_pcid:

    /* ---- debug registers, and code that ran before ---- */
    mov $warm_data, %eax
    mov %rax, %dr0
    mov $warm_here, %eax
    mov %rax, %dr1
1:
    xor %eax, %eax
    mov %rax, %dr7
    TRY "call warm"
    CHECK_NO_FAULT "no breakpoint"
    mov $0x000d0402, %eax /* DR0: 4 bytes, write; G0 */
    mov %rax, %dr7
    TRY "call warm"
    CHECK_FAULT "data breakpoint: #DB", 1, 0
    CHECK "data breakpoint: behind the write", fault_ip, $warm_next
    mov $0x00000408, %eax /* DR1: execution; G1 */
    mov %rax, %dr7
    TRY "call warm"
    CHECK_FAULT "breakpoint: #DB", 1, 0
    CHECK "breakpoint: before the instruction", fault_ip, $warm_here
    mov $0x000d0402, %eax /* at once from one to the other */
    mov %rax, %dr7
    TRY "call warm"
    CHECK_FAULT "data breakpoint behind a breakpoint: #DB", 1, 0
    CHECK "data breakpoint behind a breakpoint: behind the write", fault_ip, $warm_next
    xor %eax, %eax
    mov %rax, %dr7
    mov %rax, %dr6
    decl warm_rounds
    jnz 1b
    TRY "call warm"
    mov $0x00000408, %eax /* at once from none to a breakpoint, and back */
    mov %rax, %dr7
    TRY "call warm"
    CHECK_FAULT "a breakpoint in code that ran: #DB", 1, 0
    CHECK "a breakpoint in code that ran: before the instruction", fault_ip, $warm_here
    mov $warm_next, %ebx
    mov %rbx, %dr1
    TRY "call warm"
    CHECK_FAULT "a breakpoint that moved: #DB", 1, 0
    CHECK "a breakpoint that moved: before the instruction", fault_ip, $warm_next
    xor %eax, %eax
    mov %rax, %dr7
    mov %rax, %dr6
    TRY "call warm"
    CHECK_NO_FAULT "a breakpoint that is gone"
    jmp warm_end
warm:
    movl $1, warm_data
warm_next:
    add $1, %ecx
warm_here:
    add $2, %ecx
    ret
    .data
    .balign 4
warm_data: .long 0
warm_rounds: .long 3
    .text
warm_end:

    /* ---- implicit supervisor accesses: an LDT in the window ---- */
    movl $0x0000ffff, frame_a + 8 /* a data segment for ring 3 */
    movl $0x00cff300, frame_a + 12
    movl $(WINDOW << 16 & 0xffffffff) | 0xf, gdt + SPARE
    movl $(WINDOW & 0xff000000) | 0x8200, gdt + SPARE + 4
    movl $0, gdt + SPARE + 8
    movl $0, gdt + SPARE + 12
    mov $SPARE, %eax
    lldt %ax
    MAP frame_a, 3
    RELOAD
    mov $0xf, %eax
    TRY "mov %eax, %fs"
    CHECK_NO_FAULT "an LDT in a supervisor page"
    TRY_USER64 user_load_fs
    CHECK_FAULT "an LDT in a supervisor page, from ring 3", USER_EXIT, 0
    andb $~4, pd /* what this runs in becomes the supervisor's */
    MAP frame_a, 7
    RELOAD
    CR4 0x200000, 0
    xor %eax, %eax
    mov %eax, %fs
    mov $0xf, %eax
    TRY "mov %eax, %fs"
    CHECK_FAULT "SMAP: an LDT in a user page", 14, 1
    CHECK "SMAP: an LDT in a user page, CR2", fault_cr2, $(WINDOW+8)
    stac
    mov $0xf, %eax
    TRY "mov %eax, %fs"
    CHECK_FAULT "SMAP: AC does not count for implicit accesses", 14, 1
    clac
    stac
    TRY "mov WINDOW, %eax"
    CHECK_NO_FAULT "SMAP: AC lifts it"
    pushf
    pop %rax
    and $0x40000, %eax
    CHECK "STAC sets AC", %rax, $0x40000
    clac
    MAP frame_a, 3
    RELOAD
    mov $0xf, %eax
    TRY "mov %eax, %fs"
    CHECK_NO_FAULT "SMAP: an LDT in a supervisor page"
    CR4 0, 0x200000
    orb $4, pd
    RELOAD
    TRY_USER64 user_stac
    CHECK_FAULT "STAC at ring 3 is #UD", 6, 0
    jmp finish64

user_invpcid: invpcid descriptor, %rdx
user_load_fs:
    mov $0xf, %eax
    mov %eax, %fs
    int $USER_EXIT
user_stac: stac
    BITS32

    .data
    .align 16
descriptor: .quad 0, 0
    .bss
    .align 4096
window_pd: .space 4096
window_pt: .space 4096
pml4_two: .space 4096
pdpt_two: .space 4096
pt_alternative: .space 4096
pd_two: .space 4096
pt_two: .space 4096
frame_a: .space 4096
frame_b: .space 4096
frame_c: .space 4096
    .text
