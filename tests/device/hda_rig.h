/*
 * hda_rig.h - a machine with a sound card, for its tests and fuzz target
 */
#ifndef TESTS_DEVICE_HDA_RIG_H
#define TESTS_DEVICE_HDA_RIG_H

#include "base/bytes.h"
#include "device_test.h"
#include "devices/devices.h"
#include "devices/hda/hda.h"

#define HDA_ECAM         0xe0000000ull
#define HDA_BAR          0xc0400000ull
#define HDA_SLOT         3u

/* Where things are in RAM. */
#define HDA_RIG_CORB     0x10000u
#define HDA_RIG_RIRB     0x11000u
#define HDA_RIG_POSITION 0x12000u
#define HDA_RIG_LIST     0x13000u
#define HDA_RIG_BUFFER   0x20000u

static inline uint64_t hda_config_gpa(unsigned offset)
{
    return HDA_ECAM + (HDA_SLOT << 15) + offset;
}

/* Returns the card; the machine is not started yet. */
static inline struct device *hda_rig_add(struct device_test *t, struct audio *audio)
{
    struct device *card;

    device_test_add(t, &pci_host_class, "ecam=0xe0000000");
    card = device_test_create(t, &hda_class, "addr=3");
    device_set_pointer(card, "audio", audio, NULL);
    device_test_attach(card);
    return card;
}

/* BAR and bus master, out of reset, both rings. */
static inline void hda_rig_begin(struct device_test *t)
{
    test_write(t, hda_config_gpa(PCI_BAR0), HDA_BAR, 4);
    test_write(t, hda_config_gpa(PCI_COMMAND), PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
    test_write(t, HDA_BAR + 0x08, 0x001, 4);
    test_write(t, HDA_BAR + 0x40, HDA_RIG_CORB, 4);
    test_write(t, HDA_BAR + 0x50, HDA_RIG_RIRB, 4);
    test_write(t, HDA_BAR + 0x5a, 1, 2);
    test_write(t, HDA_BAR + 0x5c, 3, 1);
    test_write(t, HDA_BAR + 0x4c, 2, 1);
}

static inline uint64_t hda_rig_sd(unsigned stream)
{
    return HDA_BAR + 0x80 + 0x20 * stream;
}

/* entries of size bytes one after the other, interrupts at the end of each; 48 kHz unless format.
 */
static inline void hda_rig_stream(struct device_test *t, unsigned stream, unsigned entries,
                                  uint32_t size_bytes, uint16_t format)
{
    uint64_t sd = hda_rig_sd(stream);

    for (unsigned n = 0; n < entries; n++) {
        uint8_t *entry = t->ram.hva + HDA_RIG_LIST + 0x100 * stream + 16 * n;

        put_le64(entry, HDA_RIG_BUFFER + n * size_bytes);
        put_le32(entry + 8, size_bytes);
        put_le32(entry + 12, 1);
    }
    test_write(t, sd + 0x08, entries * size_bytes, 4);
    test_write(t, sd + 0x0c, entries - 1, 2);
    test_write(t, sd + 0x12, format, 2);
    test_write(t, sd + 0x18, HDA_RIG_LIST + 0x100 * stream, 4);
    test_write(t, sd + 0x1c, 0, 4);
}

#endif
