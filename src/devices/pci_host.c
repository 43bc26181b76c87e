/*
 * pci_host.c - PCI host bridge and ISA bridge of a Q35-like PC
 *
 * Host bridge, 00:00.0, ids of Intel's 82G33/Q35 (8086:29c0): configuration mechanism #1
 * at ports 0xcf8-0xcff (PCI Local Bus 3.0, 3.2.2.3.2), the memory-mapped window (ECAM)
 * that its register PCIEXBAR places (Intel 3 Series Express Chipset, 5.1.17), and the
 * reset control register at port 0xcf9 (Intel ICH9, 13.7.5), which lives here
 * because it shares a doubleword with the configuration address.
 *
 * ISA bridge, 00:1f.0, ids of ICH9 (8086:2918): PMBASE, ACPI control and the PIRQ routing
 * registers 0x60-0x63 and 0x68-0x6b that lead the PCI lines to ISA interrupts for guests
 * without I/O APIC. The board connects the host bridge's outputs "pirq" to the I/O APIC
 * and the ISA bridge's outputs "isa" to the 8259 pair.
 *
 * Without firmware nobody programs PCIEXBAR and PMBASE, so their reset values are
 * properties: what firmware would have written. SMRAM, ESMRAMC and SMI_LOCK work on a machine with
 * System Management Mode, and only store without. Left out: D_CLS and H_SMRAME of these, all other
 * chipset registers, and special cycles.
 *
 * Threads: called with the machine lock held. Guest memory: not touched.
 */
#include "trapeze/pci.h"

#include <string.h>

#include "base/log.h"
#include "devices/acpi_pm.h"
#include "devices/devices.h"
#include "devices/pci_host.h"
#include "trapeze/machine.h"

#define CONFIG_ADDRESS_PORT 0xcf8
#define CONFIG_DATA_PORT    0xcfc
#define CONFIG_ENABLE       0x80000000u
#define CONFIG_ADDRESS_MASK 0x80fffffcu
#define RESET_OFFSET        1 /* from CONFIG_ADDRESS_PORT */
#define RESET_CPU           0x04u
#define RESET_MASK          0x0eu

#define PCIEXBAR            0x60 /* eight bytes */
#define PCIEXBAR_ENABLE     0x1u
#define PCIEXBAR_BASE       0xffc000000ull /* bits 26-35; the length masks the low ones */
#define HOST_PAM            0x90           /* shadow RAM of the BIOS area */
#define HOST_SMRAM          0x9d
#define HOST_ESMRAMC        0x9e
#define HOST_TSEG_MB        0x50 /* of virtual machines; as it is not there, what is written is read */
#define HOST_TSEG_BASE      0xac
#define ECAM_MIN_BYTES      (64ull << 20)

#define LPC_PMBASE          0x40
#define LPC_ACPI_CONTROL    0x44
#define LPC_PIRQ_AD         0x60
#define LPC_PIRQ_EH         0x68
#define LPC_PMCON           0xa0
#define LPC_SMI_LOCK        0x10u
#define PIRQ_NOT_ROUTED     0x80u
#define ISA_IRQS            16

struct pci_host {
    struct pci_function function; /* 00:00.0 itself */

    /* Configuration. */
    uint64_t ecam; /* property */
    struct pci_bus bus;
    pci_host_shadow_fn *shadow; /* may be NULL */
    pci_host_smram_fn *smram;   /* likewise */
    void *shadow_opaque, *smram_opaque;

    /* Guest-visible state, beside configuration space. */
    struct irq_line pirq[PCI_PIRQS];
    uint32_t config_address;
    uint8_t reset_control;

    /* Rebuilt on load. */
    struct region ecam_region;
    bool ecam_mapped;
};

static struct pci_host *pci_host_of(struct device *dev)
{
    return container_of(dev, struct pci_host, function.dev);
}

/* ---- configuration mechanism #1 ---- */

/* 0xcf8 is a doubleword; narrower accesses pass it by, but for the reset register at 0xcf9. */
static uint64_t address_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct pci_host *s = pci_host_of(dev);

    if (offset == 0 && size == 4)
        return s->config_address;
    if (offset == RESET_OFFSET && size == 1)
        return s->reset_control;
    return UINT32_MAX;
}

/* The reset happens when the CPU bit goes from 0 to 1, warm or cold alike. */
static void reset_write(struct pci_host *s, uint8_t value)
{
    bool reset = (value & RESET_CPU) && !(s->reset_control & RESET_CPU);

    s->reset_control = value & RESET_MASK;
    if (reset)
        machine_request_reset(s->function.dev.machine);
}

static void address_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct pci_host *s = pci_host_of(dev);

    if (offset == 0 && size == 4)
        s->config_address = (uint32_t)value & CONFIG_ADDRESS_MASK;
    else if (offset == RESET_OFFSET && size == 1)
        reset_write(s, (uint8_t)value);
}

static uint64_t data_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct pci_host *s = pci_host_of(dev);
    uint32_t address = s->config_address;

    if (!(address & CONFIG_ENABLE))
        return UINT32_MAX;
    return pci_config_read(&s->bus, address >> 8 & 0xffff, (address & 0xfc) + (unsigned)offset,
                           size);
}

static void data_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct pci_host *s = pci_host_of(dev);
    uint32_t address = s->config_address;

    if (address & CONFIG_ENABLE)
        pci_config_write(&s->bus, address >> 8 & 0xffff, (address & 0xfc) + (unsigned)offset,
                         (uint32_t)value, size);
}

static const struct region_ops address_ports = {
    .name = "pci-config-address",
    .read = address_read,
    .write = address_write,
    .min_size = 1,
    .max_size = 4,
};

static const struct region_ops data_ports = {
    .name = "pci-config-data",
    .read = data_read,
    .write = data_write,
    .min_size = 1,
    .max_size = 4,
};

/* ---- ECAM: 4 KiB for each function ---- */

static uint64_t ecam_read(struct device *dev, uint64_t offset, unsigned size)
{
    return pci_config_read(&pci_host_of(dev)->bus, (unsigned)(offset >> 12), offset & 0xfff, size);
}

static void ecam_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    pci_config_write(&pci_host_of(dev)->bus, (unsigned)(offset >> 12), offset & 0xfff,
                     (uint32_t)value, size);
}

static const struct region_ops ecam_ops = {
    .name = "pci-ecam",
    .read = ecam_read,
    .write = ecam_write,
    .min_size = 1,
    .max_size = 4,
};

/* Bits 1 and 2 of PCIEXBAR choose 256, 128 or 64 MiB; 3 is reserved. */
static uint64_t ecam_size_bytes(uint32_t low)
{
    static const uint64_t sizes[4] = {4 * ECAM_MIN_BYTES, 2 * ECAM_MIN_BYTES, ECAM_MIN_BYTES, 0};

    return sizes[low >> 1 & 3];
}

static void ecam_unmap(struct pci_host *s)
{
    if (s->ecam_mapped)
        memory_unmap(device_memory(&s->function.dev), &s->ecam_region);
    s->ecam_mapped = false;
}

static void ecam_map(struct pci_host *s, uint64_t gpa, uint64_t size_bytes)
{
    struct error err = {0};

    s->ecam_region = (struct region){
        .name = "pci-ecam",
        .kind = REGION_DEVICE,
        .gpa = gpa,
        .size_bytes = size_bytes,
        .priority = 1,
        .ops = &ecam_ops,
        .dev = &s->function.dev,
    };
    s->ecam_mapped = memory_map(device_memory(&s->function.dev), &s->ecam_region, &err) == 0;
    if (!s->ecam_mapped)
        log_guest("pci-host: ECAM cannot be at 0x%" PRIx64 ": %s", gpa, err.text);
}

static void ecam_update(struct pci_host *s)
{
    struct memory *memory = device_memory(&s->function.dev);
    const uint8_t *bar = s->function.config + PCIEXBAR;
    uint64_t size_bytes = ecam_size_bytes(pci_get32(bar));
    uint64_t base = (pci_get32(bar) | (uint64_t)pci_get32(bar + 4) << 32) & PCIEXBAR_BASE;
    bool wanted = (pci_get32(bar) & PCIEXBAR_ENABLE) && size_bytes;
    struct error err = {0};

    base &= ~(size_bytes - 1);
    if (wanted == s->ecam_mapped &&
        (!wanted || (s->ecam_region.gpa == base && s->ecam_region.size_bytes == size_bytes)))
        return;
    memory_begin(memory);
    ecam_unmap(s);
    if (wanted)
        ecam_map(s, base, size_bytes);
    if (memory_commit(memory, &err))
        log_error("pci-host: %s", err.text);
}

uint64_t pci_host_ecam(struct device *dev)
{
    const struct pci_host *s = pci_host_of(dev);

    return s->ecam_mapped ? s->ecam_region.gpa : 0;
}

/* ---- shadow RAM ---- */

static void shadow_update(struct pci_host *s)
{
    if (s->shadow)
        s->shadow(s->shadow_opaque, s->function.config + HOST_PAM);
}

void pci_host_set_shadow(struct device *dev, pci_host_shadow_fn *fn, void *opaque)
{
    struct pci_host *s = pci_host_of(dev);

    s->shadow = fn;
    s->shadow_opaque = opaque;
}

/* ---- SMRAM ---- */

static void smram_make_writable(struct pci_host *s, bool locked)
{
    s->function.writable[HOST_SMRAM] = locked ? 0 : 0x78;
    s->function.writable[HOST_ESMRAMC] = locked ? 0 : 0x07;
    pci_put32(s->function.writable + HOST_TSEG_BASE, locked ? 0 : 0xfff00000u);
}

/* D_LCK clears D_OPEN, and nothing can be changed from then on. */
static void smram_update(struct pci_host *s)
{
    uint8_t *smram = s->function.config + HOST_SMRAM;
    bool locked = *smram & PCI_SMRAM_LOCK;

    if (locked)
        *smram &= (uint8_t)~PCI_SMRAM_OPEN;
    smram_make_writable(s, locked);
    if (s->smram)
        s->smram(s->smram_opaque, *smram, s->function.config[HOST_ESMRAMC]);
}

void pci_host_set_smram(struct device *dev, pci_host_smram_fn *fn, void *opaque)
{
    struct pci_host *s = pci_host_of(dev);

    s->smram = fn;
    s->smram_opaque = opaque;
}

static void host_config_written(struct pci_function *function, unsigned offset, unsigned size)
{
    if (offset < PCIEXBAR + 8 && PCIEXBAR < offset + size)
        ecam_update(pci_host_of(&function->dev));
    if (offset < HOST_PAM + PCI_HOST_PAM_BYTES && HOST_PAM < offset + size)
        shadow_update(pci_host_of(&function->dev));
    if (offset <= HOST_ESMRAMC && HOST_SMRAM < offset + size)
        smram_update(pci_host_of(&function->dev));
}

/* ---- lifecycle of the host bridge ---- */

static const struct pci_function_desc host_desc = {
    .place = "0",
    .vendor_id = 0x8086,
    .device_id = 0x29c0,
    .subsystem_vendor_id = 0x1af4,
    .subsystem_id = 0x1100,
    .class_code = 0x060000,
    .config_written = host_config_written,
};

/* Registers of our own: reset values and what the guest can change. */
static void host_build_registers(struct pci_host *s)
{
    uint8_t *initial = s->function.initial, *writable = s->function.writable;
    uint64_t base = s->ecam & PCIEXBAR_BASE;

    pci_put32(initial + PCIEXBAR, (uint32_t)base | (s->ecam ? PCIEXBAR_ENABLE : 0));
    pci_put32(initial + PCIEXBAR + 4, (uint32_t)(base >> 32));
    pci_put32(writable + PCIEXBAR, (uint32_t)PCIEXBAR_BASE | 7);
    pci_put32(writable + PCIEXBAR + 4, (uint32_t)(PCIEXBAR_BASE >> 32));
    memset(writable + HOST_PAM, 0x33, PCI_HOST_PAM_BYTES);
    writable[HOST_PAM] = 0x30;
    initial[HOST_SMRAM] = 0x02;
    initial[HOST_ESMRAMC] = PCI_ESMRAMC_CACHES;
    pci_put16(writable + HOST_TSEG_MB, UINT16_MAX);
    smram_make_writable(s, false);
}

static int host_attach(struct device *dev, struct error *err)
{
    struct pci_host *s = pci_host_of(dev);
    int rc;

    pci_bus_init(&s->bus, dev->machine, s->pirq);
    s->function.bus = &s->bus;
    rc = pci_attach(&s->function, &host_desc, err);
    if (rc)
        return rc;
    host_build_registers(s);
    rc = device_map_ports(dev, CONFIG_ADDRESS_PORT, 4, &address_ports, err);
    return rc ? rc : device_map_ports(dev, CONFIG_DATA_PORT, 4, &data_ports, err);
}

static void host_detach(struct device *dev)
{
    struct pci_host *s = pci_host_of(dev);
    struct error err = {0};

    pci_detach(&s->function);
    memory_begin(device_memory(dev));
    ecam_unmap(s);
    if (memory_commit(device_memory(dev), &err))
        log_error("pci-host: %s", err.text);
}

/*
 * Shadow RAM stays as it is when the machine wakes: by what SeaBIOS left there it knows that it ran
 * before.
 */
static void host_reset(struct device *dev)
{
    struct pci_host *s = pci_host_of(dev);
    uint8_t *pam = s->function.config + HOST_PAM, kept[PCI_HOST_PAM_BYTES];

    s->config_address = 0;
    s->reset_control = 0;
    memcpy(kept, pam, sizeof(kept));
    pci_bus_reset(&s->bus);
    if (machine_is_waking(dev->machine))
        memcpy(pam, kept, sizeof(kept));
}

static void host_reset_done(struct device *dev)
{
    struct pci_host *s = pci_host_of(dev);

    pci_bus_reset_done(&s->bus);
    ecam_update(s);
    shadow_update(s);
    smram_update(s);
}

static int host_after_load(void *object, struct error *err)
{
    struct pci_host *s = object;
    int rc;

    smram_make_writable(s, false);
    rc = pci_after_load(&s->function, err);
    if (!rc) {
        ecam_update(s);
        shadow_update(s);
        smram_update(s);
    }
    return rc;
}

struct pci_bus *machine_pci_bus(struct machine *machine)
{
    for (struct device *dev = machine_first_device(machine); dev; dev = dev->next)
        if (dev->class == &pci_host_class && dev->attached)
            return &pci_host_of(dev)->bus;
    return NULL;
}

static const struct property host_properties[] = {
    PROPERTY_U64(struct pci_host, ecam, 0xe0000000, "address of the 256 MiB ECAM window; 0: off"),
    PROPERTY_END,
};

static const struct device_output host_outputs[] = {
    DEVICE_OUTPUTS(struct pci_host, pirq),
    DEVICE_OUTPUT_END,
};

static const struct state_field irq_line_state[] = {
    STATE_BOOL(struct irq_line, level),
    STATE_END,
};

static const struct state_field host_state[] = {
    PCI_STATE(struct pci_host, function),
    STATE_STRUCTS(struct pci_host, pirq, irq_line_state),
    STATE_U32(struct pci_host, config_address),
    STATE_U8_MAX(struct pci_host, reset_control, RESET_MASK),
    STATE_END,
};

const struct device_class pci_host_class = {
    .name = "pci-host",
    .summary = "PCI host bridge with configuration ports, ECAM and reset control",
    .bus = BUS_PLATFORM,
    .instance_size = sizeof(struct pci_host),
    .properties = host_properties,
    .outputs = host_outputs,
    .attach = host_attach,
    .reset = host_reset,
    .reset_done = host_reset_done,
    .detach = host_detach,
    .state = {.version = 1, .oldest = 1, .fields = host_state, .after_load = host_after_load},
};

/* ---- the ISA bridge ---- */

struct pci_isa {
    struct pci_function function;

    /* Guest-visible state, beside configuration space. */
    struct irq_line isa[ISA_IRQS]; /* only those that a PIRQ can be led to are ever raised */

    uint8_t pirq_levels; /* a bit per line; rebuilt on load from the bus */

    pci_isa_smi_lock_fn *smi_lock; /* may be NULL */
    void *smi_lock_opaque;
};

static struct pci_isa *pci_isa_of(struct device *dev)
{
    return container_of(dev, struct pci_isa, function.dev);
}

static unsigned pirq_register(unsigned pirq)
{
    return pirq < 4 ? LPC_PIRQ_AD + pirq : LPC_PIRQ_EH + pirq - 4;
}

/* IRQ 0, 1, 2, 8 and 13 belong to the board (ICH9, 13.1.17). */
static bool isa_can_be_routed(unsigned irq)
{
    return (0xdef8u >> irq) & 1;
}

static void isa_update(struct pci_isa *s)
{
    uint32_t levels = 0;

    for (unsigned pirq = 0; pirq < PCI_PIRQS; pirq++) {
        uint8_t route = s->function.config[pirq_register(pirq)];

        if ((s->pirq_levels >> pirq & 1) && !(route & PIRQ_NOT_ROUTED) &&
            isa_can_be_routed(route & 15))
            levels |= 1u << (route & 15);
    }
    for (unsigned irq = 0; irq < ISA_IRQS; irq++)
        if (s->isa[irq].level != (levels >> irq & 1))
            irq_set(&s->isa[irq], levels >> irq & 1);
}

static void isa_route(void *opaque, unsigned pirq, bool level)
{
    struct pci_isa *s = opaque;

    s->pirq_levels = (uint8_t)((s->pirq_levels & ~(1u << pirq)) | (unsigned)level << pirq);
    isa_update(s);
}

/* Set, the lock is set until a reset. */
static void smi_lock_update(struct pci_isa *s)
{
    bool locked = s->function.config[LPC_PMCON] & LPC_SMI_LOCK;

    s->function.writable[LPC_PMCON] = locked ? 0 : LPC_SMI_LOCK;
    if (s->smi_lock)
        s->smi_lock(s->smi_lock_opaque, locked);
}

void pci_isa_set_smi_lock(struct device *dev, pci_isa_smi_lock_fn *fn, void *opaque)
{
    struct pci_isa *s = pci_isa_of(dev);

    s->smi_lock = fn;
    s->smi_lock_opaque = opaque;
}

static void isa_config_written(struct pci_function *function, unsigned offset, unsigned size)
{
    if (offset <= LPC_PMCON && LPC_PMCON < offset + size)
        smi_lock_update(pci_isa_of(&function->dev));
    if (offset + size > LPC_PIRQ_AD && offset < LPC_PIRQ_EH + 4)
        isa_update(pci_isa_of(&function->dev));
}

static const struct pci_function_desc isa_desc = {
    .place = "1f",
    .vendor_id = 0x8086,
    .device_id = 0x2918,
    .revision = 2,
    .subsystem_vendor_id = 0x1af4,
    .subsystem_id = 0x1100,
    .class_code = 0x060100,
    .multifunction = true,
    .config_written = isa_config_written,
};

/* PMBASE can be written, as firmware expects, but the block stays where acpi_pm.c has it. */
static void isa_build_registers(struct pci_function *function)
{
    pci_put32(function->initial + LPC_PMBASE, ACPI_PM_BASE | 1);
    function->initial[LPC_ACPI_CONTROL] = 0x80; /* ACPI decoding on, SCI on IRQ 9 */
    for (unsigned pirq = 0; pirq < PCI_PIRQS; pirq++) {
        function->initial[pirq_register(pirq)] = PIRQ_NOT_ROUTED;
        function->writable[pirq_register(pirq)] = PIRQ_NOT_ROUTED | 0x0f;
    }
    function->writable[LPC_PMCON] = LPC_SMI_LOCK;
}

static int isa_attach(struct device *dev, struct error *err)
{
    struct pci_isa *s = pci_isa_of(dev);
    struct pci_function *function = &s->function;
    int rc;

    rc = pci_attach(function, &isa_desc, err);
    if (rc)
        return rc;
    isa_build_registers(function);
    function->bus->router = isa_route;
    function->bus->router_opaque = s;
    return 0;
}

static void isa_detach(struct device *dev)
{
    struct pci_isa *s = pci_isa_of(dev);

    if (s->function.bus && s->function.bus->router_opaque == s) {
        s->function.bus->router = NULL;
        s->function.bus->router_opaque = NULL;
    }
    pci_detach(&s->function);
}

static void isa_reset_done(struct device *dev)
{
    isa_update(pci_isa_of(dev));
    smi_lock_update(pci_isa_of(dev));
}

static int isa_after_load(void *object, struct error *err)
{
    struct pci_isa *s = object;
    int rc;

    s->function.writable[LPC_PMCON] = LPC_SMI_LOCK;
    rc = pci_after_load(&s->function, err);
    smi_lock_update(s);

    for (unsigned pirq = 0; pirq < PCI_PIRQS; pirq++)
        isa_route(s, pirq, s->function.bus->pirq_count[pirq] > 0);
    return rc;
}

static const struct device_output isa_outputs[] = {
    DEVICE_OUTPUTS(struct pci_isa, isa),
    DEVICE_OUTPUT_END,
};

static const struct state_field isa_state[] = {
    PCI_STATE(struct pci_isa, function),
    STATE_STRUCTS(struct pci_isa, isa, irq_line_state),
    STATE_END,
};

const struct device_class pci_isa_class = {
    .name = "pci-isa",
    .summary = "ISA bridge with the routing of PCI interrupts to the 8259 pair",
    .bus = BUS_PCI,
    .instance_size = sizeof(struct pci_isa),
    .pci = &isa_desc,
    .outputs = isa_outputs,
    .attach = isa_attach,
    .reset_done = isa_reset_done,
    .detach = isa_detach,
    .state = {.version = 1, .oldest = 1, .fields = isa_state, .after_load = isa_after_load},
};
