/*
 * virtio_driver.h - a guest's virtio driver, for device tests and fuzzers
 *
 * Finds a virtio device on the PCI bus of a device_test machine, agrees on features, sets up split
 * and packed queues in RAM, adds chains and waits for them. It does everything through
 * configuration space, BARs and RAM, as a guest would.
 *
 *     struct virtio_driver d;
 *     struct driver_queue q;
 *     virtio_driver_find(&d, t, 3);                       // slot 3
 *     virtio_driver_negotiate(&d, VIRTIO_F_VERSION_1);
 *     driver_queue_set_up(&q, &d, 0, 64);
 *     virtio_driver_start(&d);
 *     driver_queue_add(&q, buffers, 3);
 *     driver_queue_kick(&q);
 *     driver_queue_wait(&q, &id, &length);
 *
 * What fails ends the process with a message, unless it is said otherwise.
 */
#ifndef TESTS_DEVICE_VIRTIO_DRIVER_H
#define TESTS_DEVICE_VIRTIO_DRIVER_H

#include "device_test.h"
#include "devices/virtio/virtio.h"
#include "trapeze/pci.h"

#define DRIVER_ECAM            0xe0000000ull
#define DRIVER_MEMORY          0x10000u /* where virtio_driver_alloc() begins */
#define DRIVER_MSI_GPA         0xfee00000u
#define DRIVER_MAX_SIZE        256u
#define DRIVER_LEGACY_PORT     0xc000u

/* struct virtio_pci_common_cfg */
#define COMMON_OFFERED_SELECT  0x00
#define COMMON_OFFERED         0x04
#define COMMON_ACCEPTED_SELECT 0x08
#define COMMON_ACCEPTED        0x0c
#define COMMON_CONFIG_VECTOR   0x10
#define COMMON_QUEUE_COUNT     0x12
#define COMMON_STATUS          0x14
#define COMMON_GENERATION      0x15
#define COMMON_QUEUE_SELECT    0x16
#define COMMON_QUEUE_SIZE      0x18
#define COMMON_QUEUE_VECTOR    0x1a
#define COMMON_QUEUE_ENABLE    0x1c
#define COMMON_QUEUE_NOTIFY    0x1e
#define COMMON_DESCRIPTORS     0x20
#define COMMON_DRIVER          0x28
#define COMMON_DEVICE          0x30

/* Descriptor flags. */
#define DRIVER_NEXT            0x1u
#define DRIVER_WRITE           0x2u
#define DRIVER_INDIRECT        0x4u
#define DRIVER_AVAIL           0x80u
#define DRIVER_USED            0x8000u

struct virtio_driver {
    struct device_test *t;
    unsigned slot;
    uint64_t mmio; /* GPA of its registers if it is not on PCI; then there are no messages */
    uint16_t port; /* of its legacy registers, if the driver is an old one; else 0 */
    uint64_t common, isr, config, notify, msix_table; /* GPAs */
    unsigned notify_multiplier, window;               /* of cfg_type 5: where its capability is */
    unsigned msix;                                    /* where its capability is */
    uint64_t features;                                /* agreed on */
    uint64_t next_gpa;                                /* free memory */
};

/* Give the function's BARs addresses, switch it on, find its structures. */
void virtio_driver_find(struct virtio_driver *d, struct device_test *t, unsigned slot);
/* One without PCI, whose registers are there. */
void virtio_driver_find_mmio(struct virtio_driver *d, struct device_test *t, uint64_t gpa);
/* As an old driver does, which uses ports and allows no bus mastering. Queues have one size. */
void virtio_driver_find_legacy(struct virtio_driver *d, struct device_test *t, unsigned slot);
uint64_t virtio_driver_alloc(struct virtio_driver *d, uint64_t size_bytes, uint64_t alignment);

uint32_t driver_config_read(struct virtio_driver *d, unsigned offset, unsigned size);
void driver_config_write(struct virtio_driver *d, unsigned offset, uint32_t value, unsigned size);
/* Registers, as the common configuration of PCI has them. */
uint64_t driver_read(struct virtio_driver *d, unsigned offset, unsigned size);
void driver_write(struct virtio_driver *d, unsigned offset, uint64_t value, unsigned size);
uint8_t driver_status(struct virtio_driver *d);
/* A message for each vector, whose data is its number, and MSI-X on. */
void virtio_driver_use_msix(struct virtio_driver *d);
void driver_mask_vector(struct virtio_driver *d, unsigned vector, bool masked);

uint64_t virtio_driver_offered(struct virtio_driver *d);
/* Reset, ACKNOWLEDGE, DRIVER, accept, FEATURES_OK. False if that is refused. */
bool virtio_driver_negotiate(struct virtio_driver *d, uint64_t features);
void virtio_driver_start(struct virtio_driver *d); /* DRIVER_OK */
/* It does nothing more until it is reset. */
bool driver_is_broken(struct virtio_driver *d);

struct driver_buffer {
    uint64_t gpa;
    uint32_t size_bytes;
    bool write; /* by the device */
};

struct driver_queue {
    struct virtio_driver *driver;
    unsigned index, size;
    bool packed;
    uint64_t descriptors, driver_area, device_area; /* GPAs */
    unsigned free;                                  /* descriptors */
    uint16_t next_avail, last_used; /* split: they run freely; packed: in the ring */
    bool avail_wrap, used_wrap;
    uint16_t lengths[DRIVER_MAX_SIZE]; /* of the chain with this id, in descriptors; 0: none */
    bool taken[DRIVER_MAX_SIZE];       /* split: descriptors */
};

/* Memory for it, its registers, vector index + 1, enabled. */
void driver_queue_set_up(struct driver_queue *q, struct virtio_driver *d, unsigned index,
                         unsigned size);
/* Agree on features, set up queues 0 to count - 1 of that size, start. */
void virtio_driver_begin(struct virtio_driver *d, uint64_t features, struct driver_queue *queues,
                         unsigned count, unsigned size);
/* Its parts are where q says. */
void driver_queue_enable(struct driver_queue *q);
/* The chain's id. There must be room. Not seen by the device before driver_queue_publish. */
uint16_t driver_queue_add(struct driver_queue *q, const struct driver_buffer *buffers,
                          unsigned count);
/* The same in an indirect table, which takes one descriptor. */
uint16_t driver_queue_add_indirect(struct driver_queue *q, const struct driver_buffer *buffers,
                                   unsigned count);
void driver_queue_kick(struct driver_queue *q);
/* Take one chain that the device has used, if there is one. */
bool driver_queue_take(struct driver_queue *q, uint16_t *out_id, uint32_t *out_length);
/* The same, and let the loop run until there is one; 10 s at most. */
void driver_queue_wait(struct driver_queue *q, uint16_t *out_id, uint32_t *out_length);

/* Raw descriptors, for malformed ones. last: id of a packed ring, next of a split one. */
void driver_put_descriptor(struct virtio_driver *d, uint64_t gpa, bool packed, uint64_t address,
                           uint32_t size_bytes, unsigned flags, unsigned last);
/* Split: put head into the available ring. */
void driver_queue_publish(struct driver_queue *q, unsigned head);

/* When the device shall interrupt: split: at the used index; packed: at offset and wrap. */
void driver_queue_set_used_event(struct driver_queue *q, unsigned at, bool wrap);
uint16_t driver_queue_avail_event(struct driver_queue *q); /* split */

#endif
