/*
 * device.h - what a device is, and what it may call
 *
 * A device class is a table: names, properties, entry points and state. An
 * instance is a structure whose first member is struct device. Lifecycle:
 *
 *   device_new -> set properties -> attach -> reset ⇄ (run, quiesce, resume) -> detach
 *
 * All entry points run with the machine lock held unless a class says otherwise
 * in its own comment. A device includes trapeze/ headers and base/ only.
 */
#ifndef TRAPEZE_DEVICE_H
#define TRAPEZE_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trapeze/clock.h"
#include "trapeze/error.h"
#include "trapeze/irq.h"
#include "trapeze/memory.h"
#include "trapeze/property.h"
#include "trapeze/state.h"

#define container_of(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

struct device;
struct machine;
struct pci_function_desc;

enum device_bus { BUS_PLATFORM, BUS_PCI };

/* One or more interrupt lines that a device drives; the board connects them by name. */
struct device_output {
    const char *name; /* NULL ends a table */
    size_t offset;    /* of the first struct irq_line in the instance */
    size_t count;
};

#define DEVICE_OUTPUT(st, f)                                                                       \
    {                                                                                              \
        .name = #f, .offset = offsetof(st, f), .count = 1                                          \
    }
#define DEVICE_OUTPUTS(st, f)                                                                      \
    {                                                                                              \
        .name = #f, .offset = offsetof(st, f),                                                     \
        .count = sizeof(((st *)0)->f) / sizeof(struct irq_line)                                    \
    }
#define DEVICE_OUTPUT_END                                                                          \
    {                                                                                              \
        .name = NULL                                                                               \
    }

struct device_class {
    const char *name;    /* as in --device NAME; lower case with dashes */
    const char *summary; /* one line, no full stop */
    enum device_bus bus;
    size_t instance_size;
    const struct property *properties;
    const struct device_output *outputs; /* may be NULL */
    const struct pci_function_desc *pci; /* BUS_PCI only: ids, BARs, capabilities */

    /* Map regions and ports, initialise timers. On failure detach is called to undo. */
    int (*attach)(struct device *dev, struct error *err);
    /* Step 1 of a reset: set own state to power-on values. Touch nothing else. */
    void (*reset)(struct device *dev);
    /* Step 2: every device is in its reset state; lines and memory may be touched. */
    void (*reset_done)(struct device *dev);
    void (*quiesce)(struct device *dev); /* pause: finish or park what is in flight */
    void (*resume)(struct device *dev);
    void (*detach)(struct device *dev);
    /* Where firmware finds it, as an Open Firmware path; NULL: it is nothing to boot from. */
    void (*boot_path)(struct device *dev, char *out, size_t size);

    struct state_table state;
};

struct device {
    const struct device_class *class;
    struct machine *machine;
    char id[32]; /* unique in the machine; the class name, numbered if there are more */
    bool attached;
    struct device *next; /* in the machine's list, in order of creation */
    uint32_t boot_index; /* firmware starts the lowest first; 0: it is not asked to */

    struct device_resources *resources; /* regions and port ranges, released at detach */
};

/*
 * Allocate an instance with default properties and link it into the machine.
 * id may be NULL. Owned by the machine from then on.
 */
struct device *device_new(struct machine *machine, const struct device_class *class, const char *id,
                          struct error *err);

/* Set one property from text, before attach. -ENOENT names the nearest valid one. */
int device_set(struct device *dev, const char *property, const char *value, struct error *err);
int device_set_u64(struct device *dev, const char *property, uint64_t value, struct error *err);

/* Set a PROPERTY_TYPE_POINTER (a chardev, a peer device), before attach. Borrowed. */
int device_set_pointer(struct device *dev, const char *property, void *pointer, struct error *err);

/* What was set so; NULL: nothing, or the class has no such property. */
void *device_pointer(struct device *dev, const char *property);

/* An interrupt output by name ("irq"), index 0 for a single one; NULL if there is none such. */
struct irq_line *device_output(struct device *dev, const char *name, unsigned index);

/* Call the class's attach. On failure the device is detached again, and stays listed. */
int device_attach(struct device *dev, struct error *err);

/*
 * Detach it if it is attached, and free it: at the end of the machine, or when a card is taken out.
 * NULL is fine. Not from within the device's own calls.
 */
void device_free(struct device *dev);

/* Claim I/O ports [port, port+count). -EBUSY says who has them. offset in ops is from port. */
int device_map_ports(struct device *dev, uint16_t port, uint16_t count,
                     const struct region_ops *ops, struct error *err);
/* Give back what device_map_ports claimed with the same port and count; else no effect. */
void device_unmap_ports(struct device *dev, uint16_t port, uint16_t count);
/* Claim a range of guest-physical addresses, priority 1. */
int device_map_memory(struct device *dev, uint64_t gpa, uint64_t size_bytes,
                      const struct region_ops *ops, struct error *err);

/* Shorthands on dev->machine. */
struct clocks *device_clocks(struct device *dev);
struct memory *device_memory(struct device *dev);
uint64_t device_now_ns(struct device *dev); /* virtual clock */

/* The table of device classes (device_list.c), ends with NULL. */
extern const struct device_class *const device_classes[];
const struct device_class *device_class_find(const char *name);

#endif
