/*
 * floppy_rig.h - a machine with a floppy controller and two drives, for its tests and fuzz target
 */
#ifndef TESTS_DEVICE_FLOPPY_RIG_H
#define TESTS_DEVICE_FLOPPY_RIG_H

#include "device_test.h"
#include "devices/floppy/floppy.h"
#include "devices/isa_dma.h"

#define FLOPPY_DMA_MEMORY 0x30000u

struct floppy_rig {
    struct device_test *t;
    struct device *dma, *controller, *drives[FLOPPY_DRIVES];
    struct test_irq irq;
};

/* disks: NULL is an empty drive. */
static inline void floppy_rig_make(struct floppy_rig *r, struct device_test *t,
                                   struct block *const disks[FLOPPY_DRIVES])
{
    r->t = t;
    r->dma = device_test_add(t, &isa_dma_class, NULL);
    r->controller = device_test_create(t, &floppy_class, NULL);
    device_set_pointer(r->controller, "dma", r->dma, NULL);
    device_test_attach(r->controller);
    test_irq_connect(&r->irq, device_output(r->controller, "irq", 0));
    for (unsigned n = 0; n < FLOPPY_DRIVES; n++) {
        r->drives[n] = device_test_create(t, &floppy_drive_class, NULL);
        device_set_pointer(r->drives[n], "controller", r->controller, NULL);
        device_set_pointer(r->drives[n], "drive", disks[n], NULL);
        device_test_attach(r->drives[n]);
    }
}

/* Channel 2 for size_bytes at FLOPPY_DMA_MEMORY. */
static inline void floppy_rig_dma(struct device_test *t, bool to_memory, unsigned size_bytes)
{
    test_outb(t, 0x0a, 6);
    test_outb(t, 0x0c, 0);
    test_outb(t, 0x0b, to_memory ? 0x46 : 0x4a);
    test_outb(t, 0x04, 0);
    test_outb(t, 0x04, 0);
    test_outb(t, 0x05, (uint8_t)(size_bytes - 1));
    test_outb(t, 0x05, (uint8_t)((size_bytes - 1) >> 8));
    test_outb(t, 0x81, FLOPPY_DMA_MEMORY >> 16);
    test_outb(t, 0x0a, 2);
}

#endif
