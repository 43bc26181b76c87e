/*
 * smm.c - System Management Mode: what a processor saves and loads
 *
 * The machine does this while no processor runs (src/machine/smm.c). What the area has no place
 * for is kept in state->smm, out of the handler's reach.
 */
#include "x86/smm.h"

#include <string.h>

#include "base/bytes.h"
#include "x86/bits.h"

/* Offsets in the area. */
#define AREA_SEGMENTS  0x00 /* ES, CS, SS, DS, FS, GS */
#define AREA_GDTR      0x60
#define AREA_LDTR      0x70
#define AREA_IDTR      0x80
#define AREA_TR        0x90
#define AREA_HALTED    0xc9
#define AREA_EFER      0xd0
#define AREA_REVISION  0xfc
#define AREA_SMBASE    0x100
#define AREA_CR4       0x148
#define AREA_CR3       0x150
#define AREA_CR0       0x158
#define AREA_DR7       0x160
#define AREA_DR6       0x168
#define AREA_RFLAGS    0x170
#define AREA_RIP       0x178
#define AREA_RAX       0x1f8 /* the others below it */

#define SEGMENT_BYTES  16
#define REVISION       0x00020064u /* AMD64's layout; SMBASE can be moved */
#define HANDLER_OFFSET 0x8000u

bool x86_smm_can_enter(const struct x86_state *state)
{
    return !state->smm.active && !state->pending.exception &&
           (state->activity == X86_ACTIVE || state->activity == X86_HALTED);
}

static void put_segment(uint8_t *area, const struct x86_segment *seg)
{
    put_le16(area, seg->selector);
    put_le16(area + 2, seg->attributes);
    put_le32(area + 4, seg->limit);
    put_le64(area + 8, seg->base);
}

static struct x86_segment get_segment(const uint8_t *area)
{
    return (struct x86_segment){
        .selector = get_le16(area),
        .attributes = get_le16(area + 2),
        .limit = get_le32(area + 4),
        .base = get_le64(area + 8),
    };
}

static void put_table(uint8_t *area, const struct x86_table *table)
{
    put_le16(area + 4, table->limit);
    put_le64(area + 8, table->base);
}

static struct x86_table get_table(const uint8_t *area)
{
    return (struct x86_table){.limit = get_le16(area + 4), .base = get_le64(area + 8)};
}

static void save(const struct x86_state *s, uint8_t *area)
{
    for (unsigned i = 0; i < X86_SEGMENT_COUNT; i++)
        put_segment(area + AREA_SEGMENTS + i * SEGMENT_BYTES, &s->seg[i]);
    put_table(area + AREA_GDTR, &s->gdtr);
    put_segment(area + AREA_LDTR, &s->ldtr);
    put_table(area + AREA_IDTR, &s->idtr);
    put_segment(area + AREA_TR, &s->tr);
    area[AREA_HALTED] = s->activity == X86_HALTED;
    put_le64(area + AREA_EFER, s->msr.efer);
    put_le32(area + AREA_REVISION, REVISION);
    put_le32(area + AREA_SMBASE, (uint32_t)s->msr.smbase);
    put_le64(area + AREA_CR4, s->cr4);
    put_le64(area + AREA_CR3, s->cr3);
    put_le64(area + AREA_CR0, s->cr0);
    put_le64(area + AREA_DR7, s->dr7);
    put_le64(area + AREA_DR6, s->dr6);
    put_le64(area + AREA_RFLAGS, s->rflags);
    put_le64(area + AREA_RIP, s->rip);
    for (unsigned i = 0; i < X86_GPR_COUNT; i++)
        put_le64(area + AREA_RAX - 8 * i, s->gpr[i]);
}

/* What the handler finds (SDM vol. 3, table 32-4): real mode with segments of 4 GiB. */
static void start_handler(struct x86_state *s)
{
    static const struct x86_segment data = {
        .limit = UINT32_MAX,
        .attributes = X86_SEG_P | X86_SEG_S | X86_SEG_WRITABLE | X86_SEG_ACCESSED | X86_SEG_G,
    };

    for (unsigned i = 0; i < X86_SEGMENT_COUNT; i++)
        s->seg[i] = data;
    s->seg[X86_CS].base = s->msr.smbase;
    s->seg[X86_CS].selector = (uint16_t)(s->msr.smbase >> 4);
    s->rip = HANDLER_OFFSET;
    s->rflags = X86_FLAG_FIXED;
    s->cr0 &= ~(uint64_t)(X86_CR0_PE | X86_CR0_EM | X86_CR0_TS | X86_CR0_PG);
    s->cr4 = 0;
    s->msr.efer = 0;
    s->dr7 = X86_DR7_FIXED;
    s->activity = X86_ACTIVE;
}

void x86_smm_enter(struct x86_state *s, uint8_t area[X86_SMM_AREA_BYTES])
{
    struct x86_pending *pending = &s->pending;

    save(s, area);
    s->smm = (struct x86_smm){
        .active = true,
        .was_halted = s->activity == X86_HALTED,
        .nmi_blocked = pending->nmi_blocked,
        .interrupt_shadow = pending->interrupt_shadow,
        .shadow_is_mov_ss = pending->shadow_is_mov_ss,
        .debug_traps = pending->debug_traps,
    };
    memcpy(s->smm.pdpte, s->pdpte, sizeof(s->pdpte));
    pending->nmi_blocked = true;
    pending->interrupt_shadow = pending->shadow_is_mov_ss = false;
    pending->debug_traps = 0;
    start_handler(s);
}

static void load(struct x86_state *s, const uint8_t *area)
{
    for (unsigned i = 0; i < X86_SEGMENT_COUNT; i++)
        s->seg[i] = get_segment(area + AREA_SEGMENTS + i * SEGMENT_BYTES);
    s->gdtr = get_table(area + AREA_GDTR);
    s->ldtr = get_segment(area + AREA_LDTR);
    s->idtr = get_table(area + AREA_IDTR);
    s->tr = get_segment(area + AREA_TR);
    s->msr.efer = get_le64(area + AREA_EFER);
    s->msr.smbase = get_le32(area + AREA_SMBASE);
    s->cr4 = get_le64(area + AREA_CR4);
    s->cr3 = get_le64(area + AREA_CR3);
    s->cr0 = get_le64(area + AREA_CR0);
    s->dr7 = get_le64(area + AREA_DR7);
    s->dr6 = get_le64(area + AREA_DR6);
    s->rflags = get_le64(area + AREA_RFLAGS);
    s->rip = get_le64(area + AREA_RIP);
    for (unsigned i = 0; i < X86_GPR_COUNT; i++)
        s->gpr[i] = get_le64(area + AREA_RAX - 8 * i);
}

void x86_smm_leave(struct x86_state *s, const uint8_t area[X86_SMM_AREA_BYTES])
{
    struct x86_pending *pending = &s->pending;
    struct error err = {0};

    load(s, area);
    s->activity = s->smm.was_halted && (area[AREA_HALTED] & 1) ? X86_HALTED : X86_ACTIVE;
    pending->nmi_blocked = s->smm.nmi_blocked;
    pending->interrupt_shadow = s->smm.interrupt_shadow;
    pending->shadow_is_mov_ss = s->smm.shadow_is_mov_ss;
    pending->debug_traps = s->smm.debug_traps;
    memcpy(s->pdpte, s->smm.pdpte, sizeof(s->pdpte));
    s->smm = (struct x86_smm){0};
    if (x86_state_check(s, &err)) {
        x86_state_reset(s, true);
        s->activity = X86_SHUTDOWN;
    }
}
