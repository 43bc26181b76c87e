/*
 * device_test.c - a machine without a processor, for device tests and fuzzers
 */
#include "device_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "trapeze/block.h"

static void must(bool ok, const char *what, const struct error *err)
{
    if (ok)
        return;
    fprintf(stderr, "device test: %s: %s\n", what, err && err->code ? err->text : "failed");
    abort();
}

static void msi_sink(void *opaque, uint64_t address, uint32_t data)
{
    struct device_test *t = opaque;

    t->msi_address = address;
    t->msi_data = data;
    t->msi_count++;
}

static void map_ram(struct device_test *t)
{
    struct memory *memory = machine_memory(t->machine);
    struct error err = {0};

    t->ram = (struct region){
        .name = "ram",
        .kind = REGION_RAM,
        .size_bytes = memory_ram_size_bytes(memory),
        .hva = memory_ram_hva(memory),
    };
    machine_lock(t->machine);
    must(memory_map(memory, &t->ram, &err) == 0, "ram", &err);
    machine_unlock(t->machine);
}

struct device_test *device_test_new_smp(uint64_t ram_bytes, unsigned vcpu_count)
{
    struct device_test *t = calloc(1, sizeof(*t));
    struct error err = {0};
    struct machine_config config = {
        .name = "test",
        .ram_bytes = ram_bytes ? ram_bytes : MACHINE_MIN_RAM_BYTES,
        .vcpu_count = vcpu_count,
        .engine = engine_find("null"),
        .counted = true,
    };

    must(t != NULL, "memory", NULL);
    t->loop = loop_new(&err);
    must(t->loop != NULL, "loop", &err);
    config.loop = t->loop;
    t->machine = machine_new(&config, &err);
    must(t->machine != NULL, "machine", &err);
    machine_set_msi_sink(t->machine, msi_sink, t);
    map_ram(t);
    return t;
}

struct device_test *device_test_new(uint64_t ram_bytes)
{
    return device_test_new_smp(ram_bytes, 1);
}

void device_test_free(struct device_test *t)
{
    if (!t)
        return;
    machine_free(t->machine);
    loop_free(t->loop);
    free(t);
}

void device_test_free_with_disk(struct device_test *t, struct block *disk, const char *path)
{
    machine_free(t->machine);
    t->machine = NULL;
    block_free(disk);
    device_test_free(t);
    unlink(path);
}

struct device *device_test_create(struct device_test *t, const struct device_class *class,
                                  const char *properties)
{
    struct error err = {0};
    struct device *dev = device_new(t->machine, class, NULL, &err);

    must(dev != NULL, class->name, &err);
    if (properties)
        must(properties_parse(class->properties, dev, properties, &err) == 0, class->name, &err);
    return dev;
}

void device_test_attach(struct device *dev)
{
    struct error err = {0};

    must(device_attach(dev, &err) == 0, "attach", &err);
}

struct device *device_test_add(struct device_test *t, const struct device_class *class,
                               const char *properties)
{
    struct device *dev = device_test_create(t, class, properties);

    device_test_attach(dev);
    return dev;
}

void device_test_start(struct device_test *t)
{
    struct error err = {0};

    must(machine_start(t->machine, &err) == 0, "start", &err);
}

void device_test_reset(struct device_test *t)
{
    machine_reset(t->machine);
}

uint64_t device_test_now_ns(struct device_test *t)
{
    return clock_now_ns(machine_clocks(t->machine), CLOCK_ID_VIRTUAL);
}

void device_test_advance_ns(struct device_test *t, uint64_t ns)
{
    struct clocks *clocks = machine_clocks(t->machine);
    uint64_t target = device_test_now_ns(t) + ns;

    machine_lock(t->machine);
    while (clocks_next_counted_ns(clocks) <= target) {
        clocks_skip_counted_to(clocks, clocks_next_counted_ns(clocks));
        clocks_run_counted(clocks);
    }
    clocks_skip_counted_to(clocks, target);
    machine_unlock(t->machine);
}

void device_test_starve_ns(struct device_test *t, uint64_t ns)
{
    struct clocks *clocks = machine_clocks(t->machine);

    machine_lock(t->machine);
    clocks_skip_counted_to(clocks, device_test_now_ns(t) + ns);
    clocks_run_counted(clocks);
    machine_unlock(t->machine);
}

void device_test_loop(struct device_test *t)
{
    loop_once(t->loop, 0);
}

uint8_t test_inb(struct device_test *t, uint16_t port)
{
    return (uint8_t)bus_port_read(t->machine, port, 1);
}

uint16_t test_inw(struct device_test *t, uint16_t port)
{
    return (uint16_t)bus_port_read(t->machine, port, 2);
}

uint32_t test_inl(struct device_test *t, uint16_t port)
{
    return bus_port_read(t->machine, port, 4);
}

void test_outb(struct device_test *t, uint16_t port, uint8_t value)
{
    bus_port_write(t->machine, port, value, 1);
}

void test_outw(struct device_test *t, uint16_t port, uint16_t value)
{
    bus_port_write(t->machine, port, value, 2);
}

void test_outl(struct device_test *t, uint16_t port, uint32_t value)
{
    bus_port_write(t->machine, port, value, 4);
}

uint64_t test_read(struct device_test *t, uint64_t gpa, unsigned size_bytes)
{
    return bus_memory_read(t->machine, gpa, size_bytes);
}

void test_write(struct device_test *t, uint64_t gpa, uint64_t value, unsigned size_bytes)
{
    bus_memory_write(t->machine, gpa, value, size_bytes);
}

void test_irq_sink(void *opaque, unsigned number, bool level)
{
    struct test_irq *irq = opaque;

    irq->calls++;
    irq->rises += level && !irq->level;
    irq->falls += !level && irq->level;
    irq->level = level;
}

void test_irq_connect(struct test_irq *irq, struct irq_line *line)
{
    must(line != NULL, "no such interrupt line", NULL);
    memset(irq, 0, sizeof(*irq));
    irq_connect(line, test_irq_sink, irq, 0);
}

void device_test_round_trip(struct device_test *t, struct device *dev)
{
    const struct state_table *table = &dev->class->state;
    struct state_buffer before = {0}, after = {0};
    struct error err = {0};

    must(state_save(table, dev, &before, &err) == 0, "save", &err);
    if (dev->class->reset)
        dev->class->reset(dev);
    must(state_load(table, dev, before.data, before.size_bytes, &err) == 0, "load", &err);
    must(state_save(table, dev, &after, &err) == 0, "second save", &err);
    must(before.size_bytes == after.size_bytes &&
             memcmp(before.data, after.data, before.size_bytes) == 0,
         "state differs after load", NULL);
    free(before.data);
    free(after.data);
}
