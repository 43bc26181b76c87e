/*
 * fuzz_fw_cfg.c - random selections, reads and DMA descriptors at the firmware configuration
 *
 * Claims: read-only items keep their contents; the owner of a writable item is told of ranges
 * inside it only; the state survives a round trip.
 */
#include "devices/fw_cfg.h"
#include "fuzz_device.h"

#define RAM       (1u << 20)
#define FILE_SIZE 100

static void on_written(void *opaque, size_t offset, size_t size_bytes)
{
    (void)opaque;
    FUZZ_CLAIM(offset <= FILE_SIZE && size_bytes <= FILE_SIZE - offset);
}

static const struct fw_cfg_item_ops writable = {.written = on_written};

/* A descriptor somewhere in RAM, mostly with plausible fields, and the address that starts it. */
static void dma(struct device_test *t, struct fuzz_input *in)
{
    uint8_t shape = (uint8_t)fuzz_take(in, 1), desc[16] = {0};
    uint32_t gpa = (uint32_t)fuzz_take(in, shape & 1 ? 4 : 2);

    desc[1] = (uint8_t)(shape & 2 ? 0x20 + (shape >> 6) : fuzz_take(in, 1));
    desc[3] = (uint8_t)fuzz_take(in, 1);
    for (unsigned i = shape & 4 ? 4 : 7; i < 8; i++)
        desc[i] = (uint8_t)fuzz_take(in, 1);
    for (unsigned i = shape & 8 ? 8 : 13; i < 16; i++)
        desc[i] = (uint8_t)fuzz_take(in, 1);
    memory_write(machine_memory(t->machine), gpa, desc, sizeof(desc));
    test_outl(t, 0x514, shape & 16 ? (uint32_t)fuzz_take(in, 4) : 0);
    test_outl(t, 0x518, __builtin_bswap32(gpa));
}

static void step(struct device_test *t, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    uint16_t port = (uint16_t)(0x510 + (what >> 3) % 12);

    switch (what & 7) {
    case 0:
        test_outw(t, 0x510, (uint16_t)fuzz_take(in, 2));
        break;
    case 1:
    case 2:
        test_inb(t, 0x511);
        break;
    case 3:
        test_inl(t, port);
        break;
    case 4:
        test_outl(t, port, (uint32_t)fuzz_take(in, 4));
        break;
    case 5:
        test_outb(t, port, (uint8_t)fuzz_take(in, 1));
        break;
    default:
        dma(t, in);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    static const uint8_t contents[FILE_SIZE] = "contents";
    static struct device_test *t; /* one for all inputs: building it takes longer than an input */
    static struct device *dev;
    static uint8_t *first;

    if (!t) {
        t = device_test_new(RAM);
        dev = device_test_add(t, &fw_cfg_class, NULL);
        fw_cfg_add_file(dev, "first", contents, FILE_SIZE, NULL, NULL, &first, NULL);
        fw_cfg_add_file(dev, "second", contents, FILE_SIZE, &writable, NULL, NULL, NULL);
        device_test_start(t);
    }
    device_test_reset(t);
    while (in.left) {
        if (*in.data == 0xfe) {
            fuzz_take(&in, 1);
            FUZZ_LOCKED(t, fuzz_load_state(&in, dev));
        }
        step(t, &in);
        FUZZ_CLAIM(!memcmp(first, contents, FILE_SIZE));
    }
    device_test_round_trip(t, dev);
    return 0;
}
