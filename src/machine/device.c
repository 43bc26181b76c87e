/*
 * device.c - instances of device classes: creation, properties, what they claim
 *
 * All functions take the machine lock unless the caller holds it.
 */
#include "trapeze/device.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "machine/machine_internal.h"

#define DEVICE_REGION_PRIORITY 1

/* One claim: ports or a memory region. */
struct device_resource {
    bool is_region;
    struct port_claim claim;
    struct region region;
    struct device_resource *next;
};

struct device_resources {
    struct device_resource *first;
};

struct clocks *device_clocks(struct device *dev)
{
    return machine_clocks(dev->machine);
}

struct memory *device_memory(struct device *dev)
{
    return machine_memory(dev->machine);
}

uint64_t device_now_ns(struct device *dev)
{
    return clock_now_ns(device_clocks(dev), CLOCK_ID_VIRTUAL);
}

struct device *machine_first_device(struct machine *machine)
{
    return machine->devices;
}

struct device *machine_find_device(struct machine *machine, const char *id)
{
    for (struct device *dev = machine->devices; dev; dev = dev->next)
        if (strcmp(dev->id, id) == 0)
            return dev;
    return NULL;
}

/* ---- creation ---- */

static int choose_id(struct device *dev, const char *id, struct error *err)
{
    const char *base = id ? id : dev->class->name;

    if (strlen(base) >= sizeof(dev->id) - 4)
        return error_set(err, EINVAL, "device name '%s' is too long", base);
    snprintf(dev->id, sizeof(dev->id), "%s", base);
    if (id && machine_find_device(dev->machine, id))
        return error_set(err, EEXIST, "there is a device '%s' already", id);
    for (unsigned number = 2; machine_find_device(dev->machine, dev->id); number++) {
        if (number > 999)
            return error_set(err, ENOSPC, "there are too many devices '%s'", base);
        snprintf(dev->id, sizeof(dev->id), "%.27s-%u", base, number);
    }
    return 0;
}

static void link_device(struct device *dev)
{
    *dev->machine->last_device = dev;
    dev->machine->last_device = &dev->next;
}

static void unlink_device(struct device *dev)
{
    struct machine *machine = dev->machine;
    struct device **link = &machine->devices;

    while (*link && *link != dev)
        link = &(*link)->next;
    if (!*link)
        return;
    *link = dev->next;
    if (machine->last_device == &dev->next)
        machine->last_device = link;
}

static void free_instance(struct device *dev)
{
    properties_done(dev->class->properties, dev);
    free(dev->resources);
    free(dev);
}

struct device *device_new(struct machine *machine, const struct device_class *class, const char *id,
                          struct error *err)
{
    struct device *dev = calloc(1, class->instance_size);
    bool locked;
    int ret;

    if (!dev) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    dev->class = class;
    dev->machine = machine;
    dev->resources = calloc(1, sizeof(*dev->resources));
    locked = machine_lock_if(machine);
    ret = dev->resources ? properties_init(class->properties, dev, err)
                         : error_set(err, ENOMEM, "out of memory");
    if (!ret)
        ret = choose_id(dev, id, err);
    if (ret) {
        free_instance(dev);
        dev = NULL;
    } else {
        link_device(dev);
    }
    machine_unlock_if(machine, locked);
    return dev;
}

int device_set(struct device *dev, const char *property, const char *value, struct error *err)
{
    int ret;

    if (dev->attached)
        ret = error_set(err, EBUSY, "'%s' cannot be changed once it is attached", property);
    else
        ret = property_set(dev->class->properties, dev, property, value, err);
    if (ret)
        error_prefix(err, "device '%s': ", dev->id);
    return ret;
}

/* NULL: the class has none of that name. */
static void **find_pointer(struct device *dev, const char *property)
{
    const struct property *at = dev->class->properties;

    while (at && at->type &&
           !(at->type == PROPERTY_TYPE_POINTER && strcmp(at->name, property) == 0))
        at++;
    return at && at->type ? (void **)((char *)dev + at->offset) : NULL;
}

int device_set_pointer(struct device *dev, const char *property, void *pointer, struct error *err)
{
    void **at = find_pointer(dev, property);

    if (!at)
        return error_set(err, ENOENT, "device '%s' has no pointer '%s'", dev->id, property);
    if (dev->attached)
        return error_set(err, EBUSY, "device '%s': '%s' cannot be changed once it is attached",
                         dev->id, property);
    *at = pointer;
    return 0;
}

void *device_pointer(struct device *dev, const char *property)
{
    void **at = find_pointer(dev, property);

    return at ? *at : NULL;
}

int device_set_u64(struct device *dev, const char *property, uint64_t value, struct error *err)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRIu64, value);
    return device_set(dev, property, text, err);
}

/* ---- attach and detach ---- */

static void release_resources(struct device *dev)
{
    struct memory *memory = device_memory(dev);

    memory_begin(memory);
    for (struct device_resource *at = dev->resources->first; at; at = at->next) {
        if (at->is_region)
            memory_unmap(memory, &at->region);
        else
            bus_release_ports(dev->machine, &at->claim);
    }
    /* The old view must not outlive the regions it shows. */
    if (memory_commit(memory, NULL))
        abort();
    while (dev->resources->first) {
        struct device_resource *resource = dev->resources->first;

        dev->resources->first = resource->next;
        free(resource);
    }
}

static void detach(struct device *dev)
{
    if (dev->class->detach)
        dev->class->detach(dev);
    release_resources(dev);
    dev->attached = false;
}

int device_attach(struct device *dev, struct error *err)
{
    bool locked = machine_lock_if(dev->machine);
    int ret = 0;

    if (dev->attached)
        ret = error_set(err, EBUSY, "it is attached already");
    else if (dev->class->attach)
        ret = dev->class->attach(dev, err);
    if (ret && !dev->attached)
        detach(dev);
    else
        dev->attached = true;
    machine_unlock_if(dev->machine, locked);
    if (ret)
        error_prefix(err, "device '%s': ", dev->id);
    return ret;
}

void device_free(struct device *dev)
{
    bool locked;

    if (!dev)
        return;
    locked = machine_lock_if(dev->machine);
    if (dev->attached)
        detach(dev);
    unlink_device(dev);
    machine_unlock_if(dev->machine, locked);
    free_instance(dev);
}

struct irq_line *device_output(struct device *dev, const char *name, unsigned index)
{
    for (const struct device_output *output = dev->class->outputs; output && output->name; output++)
        if (strcmp(output->name, name) == 0 && index < output->count)
            return (struct irq_line *)((char *)dev + output->offset) + index;
    return NULL;
}

/* ---- claims ---- */

static struct device_resource *add_resource(struct device *dev, struct error *err)
{
    struct device_resource *resource = calloc(1, sizeof(*resource));

    if (!resource)
        error_set(err, ENOMEM, "out of memory");
    return resource;
}

/* Keep the claim if it succeeded. */
static int keep_resource(struct device *dev, struct device_resource *resource, int ret)
{
    if (ret) {
        free(resource);
        return ret;
    }
    resource->next = dev->resources->first;
    dev->resources->first = resource;
    return 0;
}

int device_map_ports(struct device *dev, uint16_t port, uint16_t count,
                     const struct region_ops *ops, struct error *err)
{
    struct device_resource *resource = add_resource(dev, err);
    bool locked;
    int ret;

    if (!resource)
        return -ENOMEM;
    resource->claim = (struct port_claim){.first = port, .count = count, .ops = ops, .dev = dev};
    locked = machine_lock_if(dev->machine);
    ret = keep_resource(dev, resource, bus_claim_ports(dev->machine, &resource->claim, err));
    machine_unlock_if(dev->machine, locked);
    return ret;
}

void device_unmap_ports(struct device *dev, uint16_t port, uint16_t count)
{
    bool locked = machine_lock_if(dev->machine);
    struct device_resource **link = &dev->resources->first, *found;

    while (*link &&
           ((*link)->is_region || (*link)->claim.first != port || (*link)->claim.count != count))
        link = &(*link)->next;
    found = *link;
    if (found) {
        bus_release_ports(dev->machine, &found->claim);
        *link = found->next;
        free(found);
    }
    machine_unlock_if(dev->machine, locked);
}

/* A device whose registers the range would hide or be hidden by. */
static const struct device *who_has(struct machine *machine, uint64_t gpa, uint64_t size_bytes)
{
    for (struct device *dev = machine->devices; dev; dev = dev->next) {
        for (struct device_resource *at = dev->resources->first; at; at = at->next) {
            const struct region *region = &at->region;

            if (at->is_region && gpa < region->gpa + region->size_bytes &&
                region->gpa < gpa + size_bytes)
                return dev;
        }
    }
    return NULL;
}

static int map_region(struct device *dev, struct region *region, struct error *err)
{
    const struct device *other;

    if (region->gpa + region->size_bytes < region->gpa)
        return error_set(err, EINVAL, "addresses 0x%" PRIx64 " and on are not memory", region->gpa);
    other = who_has(dev->machine, region->gpa, region->size_bytes);
    if (other)
        return error_set(err, EBUSY, "addresses 0x%" PRIx64 "-0x%" PRIx64 " belong to '%s' already",
                         region->gpa, region->gpa + region->size_bytes - 1, other->id);
    return memory_map(device_memory(dev), region, err);
}

int device_map_memory(struct device *dev, uint64_t gpa, uint64_t size_bytes,
                      const struct region_ops *ops, struct error *err)
{
    struct device_resource *resource = add_resource(dev, err);
    bool locked;
    int ret;

    if (!resource)
        return -ENOMEM;
    resource->is_region = true;
    resource->region = (struct region){
        .name = ops->name ? ops->name : dev->id,
        .kind = REGION_DEVICE,
        .gpa = gpa,
        .size_bytes = size_bytes,
        .priority = DEVICE_REGION_PRIORITY,
        .ops = ops,
        .dev = dev,
    };
    locked = machine_lock_if(dev->machine);
    ret = keep_resource(dev, resource, map_region(dev, &resource->region, err));
    machine_unlock_if(dev->machine, locked);
    return ret;
}
