/*
 * pci.h - PCI functions as descriptions, and the bus they sit on
 *
 * A PCI device is a class with bus = BUS_PCI whose instance begins with struct
 * pci_function. Its attach calls pci_attach() with a description (class->pci, or
 * a changed copy when properties decide); from that the core builds configuration
 * space, decodes BARs, and runs MSI and MSI-X. Its detach calls pci_detach(), its
 * properties begin with PCI_PROPERTIES, its state with PCI_STATE, and its after_load
 * calls pci_after_load(). Reset of configuration space is the bus's work.
 *
 * PCI Local Bus Specification 3.0; PCI Express Base 5.0 for ECAM. All calls are made
 * with the machine lock held, except pci_notify, which any thread may call that
 * holds the machine lock or is the only user of the function's vectors.
 */
#ifndef TRAPEZE_PCI_H
#define TRAPEZE_PCI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trapeze/device.h"
#include "trapeze/error.h"
#include "trapeze/irq.h"
#include "trapeze/memory.h"

#define PCI_CONFIG_BYTES 256 /* reads above give all ones: no extended capabilities yet */
#define PCI_SLOTS        32
#define PCI_FUNCTIONS    256 /* of a bus: slot * 8 + function */
#define PCI_BARS         6
#define PCI_ROM          6 /* the expansion ROM's place in tables, behind the BARs */
#define PCI_ROM_MAX      (16u << 20)
#define PCI_PIRQS        8 /* interrupt lines of the root bus */
#define PCI_MSI_MAX      32
#define PCI_MSIX_MAX     128

/* Offsets in the header of type 0; those of bridges are in pci_bridge_register. */
enum pci_register {
    PCI_VENDOR_ID = 0x00,
    PCI_DEVICE_ID = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION = 0x08,
    PCI_CLASS = 0x09, /* three bytes */
    PCI_CACHE_LINE = 0x0c,
    PCI_LATENCY = 0x0d,
    PCI_HEADER_TYPE = 0x0e,
    PCI_BAR0 = 0x10,
    PCI_SUBSYSTEM_VENDOR_ID = 0x2c,
    PCI_SUBSYSTEM_ID = 0x2e,
    PCI_ROM_ADDRESS = 0x30,
    PCI_CAPABILITIES = 0x34,
    PCI_INTERRUPT_LINE = 0x3c,
    PCI_INTERRUPT_PIN = 0x3d,
    PCI_HEADER_END = 0x40,
};

/* Where the header of type 1, of bridges, differs. */
enum pci_bridge_register {
    PCI_PRIMARY_BUS = 0x18,
    PCI_SECONDARY_BUS = 0x19,
    PCI_SUBORDINATE_BUS = 0x1a,
    PCI_SECONDARY_LATENCY = 0x1b,
    PCI_IO_BASE = 0x1c,
    PCI_IO_LIMIT = 0x1d,
    PCI_SECONDARY_STATUS = 0x1e,
    PCI_MEMORY_BASE = 0x20,
    PCI_MEMORY_LIMIT = 0x22,
    PCI_PREFETCH_BASE = 0x24,
    PCI_PREFETCH_LIMIT = 0x26,
    PCI_PREFETCH_BASE_HIGH = 0x28,
    PCI_PREFETCH_LIMIT_HIGH = 0x2c,
    PCI_BRIDGE_CONTROL = 0x3e,
};
#define PCI_BRIDGE_RESET        0x0040u /* of the secondary bus */

#define PCI_COMMAND_IO          0x0001u
#define PCI_COMMAND_MEMORY      0x0002u
#define PCI_COMMAND_MASTER      0x0004u
#define PCI_COMMAND_PARITY      0x0040u
#define PCI_COMMAND_SERR        0x0100u
#define PCI_COMMAND_NO_INTX     0x0400u

#define PCI_STATUS_INTERRUPT    0x0008u
#define PCI_STATUS_CAPABILITIES 0x0010u

enum pci_capability_id {
    PCI_CAP_MSI = 0x05,
    PCI_CAP_VENDOR = 0x09,
    PCI_CAP_EXPRESS = 0x10,
    PCI_CAP_MSIX = 0x11,
};

/* Offsets in the capability of PCI Express, and some of what is there. */
enum pci_express_register {
    PCI_EXPRESS_FLAGS = 0x02,
    PCI_EXPRESS_DEVICE = 0x04,
    PCI_EXPRESS_DEVICE_CONTROL = 0x08,
    PCI_EXPRESS_LINK = 0x0c,
    PCI_EXPRESS_LINK_CONTROL = 0x10,
    PCI_EXPRESS_LINK_STATUS = 0x12,
    PCI_EXPRESS_SLOT = 0x14,
    PCI_EXPRESS_SLOT_CONTROL = 0x18,
    PCI_EXPRESS_SLOT_STATUS = 0x1a,
    PCI_EXPRESS_ROOT_CONTROL = 0x1c,
    PCI_EXPRESS_BYTES = 0x3c,
};
#define PCI_EXPRESS_ERRORS 0x8000u /* of the device: reported by role */
#define PCI_EXPRESS_LANE   0x0011u /* of a link: one lane, 2.5 GT/s */

struct pci_function;

enum pci_bar_kind { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEMORY32, PCI_BAR_MEMORY64, PCI_BAR_ROM };

/* A 64-bit BAR takes the slot behind it too, which must be PCI_BAR_NONE. */
struct pci_bar_desc {
    enum pci_bar_kind kind;
    bool prefetchable;
    uint64_t size_bytes;          /* a power of two; I/O 4 to 256, memory 16 to 1 TiB */
    const struct region_ops *ops; /* NULL: reads as 0 (or RAM, see pci_set_bar_ram) */
};

/* A capability with fixed size; MSI and MSI-X have their own fields below. */
struct pci_capability_desc {
    uint8_t id;
    uint8_t size_bytes;      /* with the two bytes of id and next pointer */
    const uint8_t *contents; /* size_bytes - 2 bytes, from offset 2 on; copied */
    const uint8_t *writable; /* as many bytes: bits the guest can change; NULL: none */
};

struct pci_function_desc {
    const char *place; /* where it has to sit, as property addr says it; NULL: addr decides */
    uint16_t vendor_id, device_id;
    uint16_t subsystem_vendor_id, subsystem_id;
    uint32_t class_code; /* 0xBBSSPP: base class, sub-class, programming interface */
    uint8_t revision;
    uint8_t interrupt_pin;     /* 0 none, 1 INTA to 4 INTD */
    bool multifunction;        /* function 0 of several */
    struct pci_bus *secondary; /* a bridge: the bus behind it, which is the caller's; else NULL */

    struct pci_bar_desc bar[PCI_BARS + 1]; /* the last is made of the property romfile */

    const struct pci_capability_desc *capabilities; /* in the order of the list */
    unsigned capability_count;

    uint8_t msi_vectors;        /* 0: no MSI; else 1, 2, 4, 8, 16 or 32; 64-bit, with masks */
    uint16_t msix_vectors;      /* 0: no MSI-X; else 1 to PCI_MSIX_MAX */
    uint8_t msix_bar;           /* a memory BAR that holds both tables; may have own ops as well */
    uint32_t msix_table_offset; /* multiples of 8; best a page of their own */
    uint32_t msix_pba_offset;

    /* Before bytes of device-specific configuration space (from 0x40 on) are read. May be NULL. */
    void (*config_read)(struct pci_function *function, unsigned offset, unsigned size);
    /* After a write to any part of configuration space has been done. May be NULL. */
    void (*config_written)(struct pci_function *function, unsigned offset, unsigned size);
    /* MSI-X or MSI was switched on or off, or a vector's mask changed. May be NULL. */
    void (*vectors_changed)(struct pci_function *function);
};

/* ---- the bus ---- */

/*
 * A bus; embedded in the host bridge, or in the bridge that leads to it. Of the root bus only:
 * pirq, pirq_count and router.
 */
struct pci_bus {
    struct machine *machine;
    struct pci_function *functions[PCI_FUNCTIONS];
    struct pci_function *bridge; /* whose secondary bus it is; NULL: the root bus */
    unsigned slots;              /* PCI_SLOTS, or 1 behind a port of PCI Express */
    bool is_express;             /* functions get a capability of PCI Express */
    bool is_dark;                /* nothing on it answers: its slot has no power */
    /* Functions have come or gone. May be NULL. */
    void (*occupied)(struct pci_bus *bus);
    struct irq_line *pirq;          /* PCI_PIRQS outputs of the host bridge */
    uint16_t pirq_count[PCI_PIRQS]; /* how many functions hold the line up; rebuilt on load */
    /* Told when a line's level may have changed: the ISA bridge's routing. May be NULL. */
    void (*router)(void *opaque, unsigned pirq, bool level);
    void *router_opaque;
};

/* pirq: of the root bus; NULL for others. */
void pci_bus_init(struct pci_bus *bus, struct machine *machine, struct irq_line *pirq);
/* By what "addr" says before its slash: a bridge's device id. NULL: there is none such. */
struct pci_bus *pci_bus_find(struct machine *machine, const char *bridge_id);

/* The bus of the machine's host bridge, or NULL while there is none. */
struct pci_bus *machine_pci_bus(struct machine *machine);

/* Which line INTx of a slot is wired to; pin 1 is INTA. What the DSDT's _PRT has to say. */
static inline unsigned pci_pirq(unsigned slot, unsigned pin)
{
    return (slot + pin - 1) % PCI_PIRQS;
}

/* Configuration cycles; address is bus << 8 | slot << 3 | function. size is 1, 2 or 4, aligned. */
uint32_t pci_config_read(struct pci_bus *bus, unsigned address, unsigned offset, unsigned size);
void pci_config_write(struct pci_bus *bus, unsigned address, unsigned offset, uint32_t value,
                      unsigned size);

/* For the host bridge's two reset steps: all functions on the bus and behind its bridges. */
void pci_bus_reset(struct pci_bus *bus);
void pci_bus_reset_done(struct pci_bus *bus);
/* Reset all functions on the bus and their devices, at any time. */
void pci_bus_reset_devices(struct pci_bus *bus);
/* is_dark has changed. */
void pci_bus_update(struct pci_bus *bus);
/* Is any function on it? */
bool pci_bus_is_occupied(const struct pci_bus *bus);

/* ---- a function ---- */

struct pci_bar {
    uint64_t gpa; /* where it is mapped now; a port for I/O; PCI_BAR_UNMAPPED */
    bool mapped;
    struct region region;
};

struct pci_msix_entry {
    uint32_t address_low, address_high, data, control;
};

struct pci_function {
    struct device dev;

    /* Configuration. */
    char *addr;    /* property: "[BRIDGE/]SLOT[.FUNCTION]" in hexadecimal; NULL: first free slot */
    char *romfile; /* property: what its expansion ROM holds; NULL: it has none */
    struct pci_bus *bus; /* property; NULL: the machine's */
    struct pci_function_desc desc;
    uint8_t slot, number;                /* number: of the function in its slot */
    uint8_t msi_offset, msix_offset;     /* of the capabilities, 0 = none */
    uint16_t config_used;                /* end of the last capability */
    uint8_t initial[PCI_CONFIG_BYTES];   /* value after reset */
    uint8_t writable[PCI_CONFIG_BYTES];  /* bits the guest can write */
    uint8_t clearable[PCI_CONFIG_BYTES]; /* bits that writing 1 clears */

    /* Guest-visible state. */
    uint8_t config[PCI_CONFIG_BYTES];
    bool intx_level; /* what the device asks for; the wire depends on the command register */
    struct pci_msix_entry msix_table[PCI_MSIX_MAX];
    uint32_t msix_pending[PCI_MSIX_MAX / 32];

    /* Rebuilt on load. */
    bool wire_level; /* what the bus's line gets from this function */
    struct pci_bar bars[PCI_BARS + 1];
    struct region msix_table_region, msix_pba_region;
};

static inline struct pci_function *pci_function_of(struct device *dev)
{
    return container_of(dev, struct pci_function, dev);
}

/* First entries of a PCI class's property table; f is its struct pci_function member. */
#define PCI_PROPERTIES(st, f)                                                                      \
    {.name = "addr",                                                                               \
     .type = PROPERTY_TYPE_STRING,                                                                 \
     .offset = offsetof(st, f.addr),                                                               \
     .help = "place, [BRIDGE/]SLOT[.FUNCTION] in hexadecimal (default: first free)"},              \
        {.name = "romfile",                                                                        \
         .type = PROPERTY_TYPE_STRING,                                                             \
         .offset = offsetof(st, f.romfile),                                                        \
         .help = "file with the expansion ROM, which firmware runs (default: none)"},              \
    {                                                                                              \
        .name = "bus", .type = PROPERTY_TYPE_POINTER, .offset = offsetof(st, f.bus),               \
        .help = "bus to sit on (default: the machine's)"                                           \
    }

/* First entry of a PCI class's state fields. */
extern const struct state_field pci_function_state[];
#define PCI_STATE(st, f) STATE_STRUCT(st, f, pci_function_state)

/*
 * Put the function on its bus. desc is copied (what it points to is not). -EBUSY when the
 * place is taken, -EINVAL for a description that breaks the rules above.
 */
int pci_attach(struct pci_function *function, const struct pci_function_desc *desc,
               struct error *err);
/* A device that was attached while the machine ran is as after power-on. */
void pci_power_on(struct pci_function *function);
/* Unmap everything and leave the bus. Also after a pci_attach that failed or never was. */
void pci_detach(struct pci_function *function);
int pci_after_load(struct pci_function *function, struct error *err);

/*
 * Before pci_attach: show RAM in a memory BAR instead of registers; hva and ram_offset come from
 * memory_add_block and hold at least the BAR's size.
 */
void pci_set_bar_ram(struct pci_function *function, unsigned bar, uint8_t *hva,
                     uint64_t ram_offset);

/* Level of the function's INTx. No effect on the wire while MSI or MSI-X is on. */
void pci_set_intx(struct pci_function *function, bool level);

/*
 * Send vector number as MSI-X or MSI, whichever the guest has switched on; kept pending while
 * masked. Nothing happens with both off or a number that is too big: use pci_set_intx then.
 */
void pci_notify(struct pci_function *function, unsigned vector);
bool pci_uses_messages(const struct pci_function *function); /* MSI or MSI-X is on */

/* May the function read and write guest memory (bus master enable)? */
bool pci_is_master(const struct pci_function *function);

/* For device_class.boot_path: the function as a node of that name ("ide"), and what is behind it.
 */
void pci_boot_path(const struct pci_function *function, const char *node, const char *behind,
                   char *out, size_t size);

/* Offset of the n-th capability of desc.capabilities in configuration space. */
unsigned pci_capability_offset(const struct pci_function *function, unsigned index);

/* Little-endian numbers in configuration space, and its reset value and write mask. */
uint16_t pci_get16(const uint8_t *bytes);
uint32_t pci_get32(const uint8_t *bytes);
void pci_put16(uint8_t *bytes, uint16_t value);
void pci_put32(uint8_t *bytes, uint32_t value);

#endif
