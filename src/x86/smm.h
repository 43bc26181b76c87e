/*
 * smm.h - System Management Mode: what a processor saves and loads
 *
 * SDM vol. 3, chapter 32; the area has AMD's layout for 64-bit processors (APM vol. 2, table
 * 10-1), which is what firmware of virtual machines knows.
 */
#ifndef X86_SMM_H
#define X86_SMM_H

#include <stdbool.h>
#include <stdint.h>

#include "trapeze/x86_state.h"

#define X86_SMM_AREA_OFFSET 0xfe00u /* from SMBASE */
#define X86_SMM_AREA_BYTES  0x200u

/* May an SMI be taken now, between two instructions? */
bool x86_smm_can_enter(const struct x86_state *state);
/* Take an SMI: write the area and become what the handler starts with. */
void x86_smm_enter(struct x86_state *state, uint8_t area[X86_SMM_AREA_BYTES]);
/*
 * RSM: become what the area says, which the handler may have changed. What no processor can be
 * is a shutdown (SDM vol. 3, 32.5).
 */
void x86_smm_leave(struct x86_state *state, const uint8_t area[X86_SMM_AREA_BYTES]);

#endif
