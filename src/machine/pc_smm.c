/*
 * pc_smm.c - System Management Mode on the PC board
 *
 * Intel 82Q35 MCH, 5.1.32 to 5.1.34: compatible SMRAM at 640 KiB, and TSEG, the top 1, 2 or 8 MiB
 * of RAM below 4 GiB. With T_EN nobody sees TSEG but processors in SMM; devices never do. The files
 * etc/smi/... of fw_cfg are those of QEMU (docs/specs/fw_cfg): bit 0 says that the command port's
 * SMI goes to all processors, as it does here in any case.
 */
#include "machine/pc_smm.h"

#include <string.h>

#include "base/bytes.h"
#include "base/log.h"
#include "devices/acpi_pm.h"
#include "devices/fw_cfg.h"
#include "devices/pci_host.h"
#include "machine/pc_layout.h"
#include "machine/shadow.h"
#include "trapeze/machine.h"

#define PRIORITY       3 /* in front of RAM and of what is at 640 KiB */
#define FEATURES       1u
#define FEATURES_BYTES 8u

static uint64_t tseg_bytes(uint8_t esmramc)
{
    static const uint64_t sizes[4] = {1u << 20, 2u << 20, 8u << 20, 0};

    return sizes[esmramc >> 1 & 3];
}

static struct region ram_at(struct pc_smm *smm, const char *name, uint64_t gpa, uint64_t size_bytes)
{
    return (struct region){
        .name = name,
        .kind = REGION_RAM,
        .gpa = gpa,
        .size_bytes = size_bytes,
        .priority = PRIORITY,
        .cpu_only = true,
        .hva = memory_ram_hva(device_memory(smm->board)) + gpa,
        .ram_offset = gpa,
    };
}

static void show_region(struct pc_smm *smm, struct region *region, bool show)
{
    struct memory *memory = device_memory(smm->board);
    struct error err = {0};

    if (region->mapped == show)
        return;
    if (!show)
        memory_unmap(memory, region);
    else if (memory_map(memory, region, &err))
        log_error("SMRAM: %s", err.text);
}

/* A region does not change while it is mapped: who reads memory may hold an old view. */
static void update(struct pc_smm *smm)
{
    struct memory *memory = device_memory(smm->board);
    bool enabled = smm->smram & PCI_SMRAM_ENABLE, open = smm->smram & PCI_SMRAM_OPEN;
    bool has_tseg = enabled && (smm->esmramc & PCI_ESMRAMC_TSEG) && smm->tseg.size_bytes;
    struct error err = {0};

    memory_begin(memory);
    show_region(smm, &smm->low_open, enabled && open);
    show_region(smm, &smm->low, enabled && !open && smm->inside);
    show_region(smm, &smm->tseg, has_tseg && smm->inside);
    show_region(smm, &smm->tseg_closed, has_tseg && !smm->inside);
    if (memory_commit(memory, &err))
        log_error("SMRAM: %s", err.text);
}

/* Where there is so little RAM that TSEG would be all of it there is none. */
static void place_tseg(struct pc_smm *smm)
{
    struct memory *memory = device_memory(smm->board);
    uint64_t size = tseg_bytes(smm->esmramc);

    if (size > smm->low_ram_bytes - PC_BIOS_END)
        size = 0;
    if (size == smm->tseg.size_bytes)
        return;
    memory_unmap(memory, &smm->tseg);
    memory_unmap(memory, &smm->tseg_closed);
    smm->tseg = ram_at(smm, "TSEG", smm->low_ram_bytes - size, size);
    smm->tseg_closed = (struct region){
        .name = "TSEG",
        .kind = REGION_DEVICE,
        .gpa = smm->tseg.gpa,
        .size_bytes = size,
        .priority = PRIORITY,
        .ops = &floating_ops,
        .dev = smm->board,
    };
}

static void registers_written(void *opaque, uint8_t smram, uint8_t esmramc)
{
    struct pc_smm *smm = opaque;

    if (smm->smram == smram && smm->esmramc == esmramc)
        return;
    smm->smram = smram;
    smm->esmramc = esmramc;
    place_tseg(smm);
    update(smm);
}

static void show(void *opaque, bool inside)
{
    struct pc_smm *smm = opaque;

    smm->inside = inside;
    update(smm);
}

static void smi_locked(void *opaque, bool locked)
{
    struct pc_smm *smm = opaque;

    acpi_pm_lock_smi(smm->acpi_pm, locked);
}

/* SMI# is one wire to all processors. */
static void raise_smi(void *opaque)
{
    struct pc_smm *smm = opaque;
    struct machine *machine = smm->board->machine;

    for (unsigned i = 0; i < machine_vcpu_count(machine); i++)
        vcpu_raise_smi(machine_vcpu(machine, i));
}

/* ---- what firmware asks ---- */

static void features_wanted(void *opaque, size_t offset, size_t size_bytes)
{
    struct pc_smm *smm = opaque;

    (void)offset, (void)size_bytes;
    smm->requested_features = get_le64(smm->requested);
}

/* The guest looks whether it may have what it wants. */
static void features_judged(void *opaque)
{
    struct pc_smm *smm = opaque;

    *smm->agreed = !(smm->requested_features & ~(uint64_t)FEATURES);
}

void pc_smm_loaded(struct pc_smm *smm)
{
    if (!smm->requested)
        return;
    put_le64(smm->requested, smm->requested_features);
    features_judged(smm);
}

const struct state_field pc_smm_state[] = {
    STATE_U64(struct pc_smm, requested_features),
    STATE_END,
};

static int add_features(struct pc_smm *smm, struct error *err)
{
    static const struct fw_cfg_item_ops wanted = {.written = features_wanted};
    static const struct fw_cfg_item_ops judged = {.selected = features_judged};
    uint8_t supported[FEATURES_BYTES], none[FEATURES_BYTES] = {0};
    int status;

    put_le64(supported, FEATURES);
    status = fw_cfg_add_file(smm->fw_cfg, "etc/smi/supported-features", supported, FEATURES_BYTES,
                             NULL, NULL, NULL, err);
    if (status == 0)
        status = fw_cfg_add_file(smm->fw_cfg, "etc/smi/requested-features", none, FEATURES_BYTES,
                                 &wanted, smm, &smm->requested, err);
    if (status == 0)
        status = fw_cfg_add_file(smm->fw_cfg, "etc/smi/features-ok", none, 1, &judged, smm,
                                 &smm->agreed, err);
    return status;
}

int pc_smm_wire(struct pc_smm *smm, struct error *err)
{
    smm->low = ram_at(smm, "SMRAM", PC_EBDA_END, PC_VGA_END - PC_EBDA_END);
    smm->low_open = smm->low;
    smm->low_open.cpu_only = false;
    acpi_pm_set_smi(smm->acpi_pm, raise_smi, smm);
    pci_isa_set_smi_lock(smm->isa, smi_locked, smm);
    pci_host_set_smram(smm->host, registers_written, smm);
    machine_set_smm(smm->board->machine, show, smm);
    return add_features(smm, err);
}

void pc_smm_done(struct pc_smm *smm)
{
    struct memory *memory;

    if (!smm->board)
        return;
    memory = device_memory(smm->board);
    machine_set_smm(smm->board->machine, NULL, NULL);
    memory_unmap(memory, &smm->low);
    memory_unmap(memory, &smm->low_open);
    memory_unmap(memory, &smm->tseg);
    memory_unmap(memory, &smm->tseg_closed);
}
