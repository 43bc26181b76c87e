/*
 * bits.h - names of the architecture's bits (SDM vol. 3, chapters 2 and 4; vol. 4)
 */
#ifndef X86_BITS_H
#define X86_BITS_H

#include <stdint.h>

#define X86_FLAG_CF                 0x00000001u
#define X86_FLAG_FIXED              0x00000002u
#define X86_FLAG_PF                 0x00000004u
#define X86_FLAG_AF                 0x00000010u
#define X86_FLAG_ZF                 0x00000040u
#define X86_FLAG_SF                 0x00000080u
#define X86_FLAG_TF                 0x00000100u
#define X86_FLAG_IF                 0x00000200u
#define X86_FLAG_DF                 0x00000400u
#define X86_FLAG_OF                 0x00000800u
#define X86_FLAG_IOPL               0x00003000u
#define X86_FLAG_NT                 0x00004000u
#define X86_FLAG_RF                 0x00010000u
#define X86_FLAG_VM                 0x00020000u
#define X86_FLAG_AC                 0x00040000u
#define X86_FLAG_VIF                0x00080000u
#define X86_FLAG_VIP                0x00100000u
#define X86_FLAG_ID                 0x00200000u
#define X86_FLAGS_STATUS            0x000008d5u /* OF SF ZF AF PF CF */

#define X86_CR0_PE                  0x00000001u
#define X86_CR0_MP                  0x00000002u
#define X86_CR0_EM                  0x00000004u
#define X86_CR0_TS                  0x00000008u
#define X86_CR0_ET                  0x00000010u
#define X86_CR0_NE                  0x00000020u
#define X86_CR0_WP                  0x00010000u
#define X86_CR0_AM                  0x00040000u
#define X86_CR0_NW                  0x20000000u
#define X86_CR0_CD                  0x40000000u
#define X86_CR0_PG                  0x80000000u

#define X86_CR3_PCID                0xfffu /* with CR4.PCIDE */

#define X86_CR4_VME                 0x00000001u
#define X86_CR4_PVI                 0x00000002u
#define X86_CR4_TSD                 0x00000004u
#define X86_CR4_DE                  0x00000008u
#define X86_CR4_PSE                 0x00000010u
#define X86_CR4_PAE                 0x00000020u
#define X86_CR4_MCE                 0x00000040u
#define X86_CR4_PGE                 0x00000080u
#define X86_CR4_PCE                 0x00000100u
#define X86_CR4_OSFXSR              0x00000200u
#define X86_CR4_OSXMMEXCPT          0x00000400u
#define X86_CR4_UMIP                0x00000800u
#define X86_CR4_LA57                0x00001000u
#define X86_CR4_FSGSBASE            0x00010000u
#define X86_CR4_PCIDE               0x00020000u
#define X86_CR4_OSXSAVE             0x00040000u
#define X86_CR4_SMEP                0x00100000u
#define X86_CR4_SMAP                0x00200000u
#define X86_CR4_PKE                 0x00400000u
#define X86_CR4_PKS                 0x01000000u

#define X86_EFER_SCE                0x0001u
#define X86_EFER_LME                0x0100u
#define X86_EFER_LMA                0x0400u
#define X86_EFER_NXE                0x0800u

/* Page-fault error code (SDM vol. 3, 4.7). */
#define X86_PF_P                    0x01u
#define X86_PF_W                    0x02u
#define X86_PF_U                    0x04u
#define X86_PF_RSVD                 0x08u
#define X86_PF_I                    0x10u
#define X86_PF_PK                   0x20u

/* DR6, DR7 */
#define X86_DR6_FIXED               0xffff0ff0u
#define X86_DR6_WRITABLE            0x0000e00fu
#define X86_DR6_BD                  0x2000u
#define X86_DR6_BS                  0x4000u
#define X86_DR6_BT                  0x8000u
#define X86_DR7_FIXED               0x0400u
#define X86_DR7_WRITABLE            0xffff23ffu
#define X86_DR7_GD                  0x2000u

#define X86_XCR0_X87                0x01u
#define X86_XCR0_SSE                0x02u
#define X86_XCR0_AVX                0x04u
#define X86_XCR0_OPMASK             0x20u
#define X86_XCR0_ZMM_HI256          0x40u
#define X86_XCR0_HI16_ZMM           0x80u
#define X86_XCR0_PKRU               0x200u

#define X86_XCR0_AVX512             (X86_XCR0_OPMASK | X86_XCR0_ZMM_HI256 | X86_XCR0_HI16_ZMM)

#define X86_MXCSR_MASK              0x0000ffffu /* bits that exist; the others fault when set */
#define X86_MXCSR_INITIAL           0x1f80u

#define X86_APIC_BASE_ENABLE        0x800u
#define X86_MISC_ENABLE_LIMIT_CPUID (1ull << 22)
#define X86_MISC_ENABLE_XD_DISABLE  (1ull << 34)

#define X86_MSR_TSC                 0x10u
#define X86_MSR_APIC_BASE           0x1bu
#define X86_MSR_TSC_DEADLINE        0x6e0u

#endif
