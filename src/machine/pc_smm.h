/*
 * pc_smm.h - System Management Mode on the PC board
 */
#ifndef MACHINE_PC_SMM_H
#define MACHINE_PC_SMM_H

#include "trapeze/device.h"
#include "trapeze/memory.h"

/* Wired by the board, which sets the first six. */
struct pc_smm {
    struct device *board, *host, *isa, *acpi_pm, *fw_cfg;
    uint64_t low_ram_bytes;

    struct region low, low_open;     /* at 640 KiB: for processors, for all */
    struct region tseg, tseg_closed; /* the top of RAM: for processors, and in front of it */
    uint8_t smram, esmramc;          /* as the host bridge has them */
    bool inside;
    uint64_t requested_features; /* guest-visible state: what the guest wrote to fw_cfg */
    uint8_t *requested, *agreed; /* fw_cfg's copies; NULL: there is no SMM */
};

extern const struct state_field pc_smm_state[];

/*
 * SMIs by the command port to all processors, SMRAM at 640 KiB and at the top of RAM below 4 GiB,
 * and what firmware asks fw_cfg. Before machine_start; the structure stays until pc_smm_done.
 */
int pc_smm_wire(struct pc_smm *smm, struct error *err);
void pc_smm_done(struct pc_smm *smm); /* also if it was not wired */
void pc_smm_loaded(struct pc_smm *smm);

#endif
