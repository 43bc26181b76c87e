/*
 * fuzz_hda.c - random registers, lists and times at the HD Audio controller
 *
 * Claims: the interrupt line is what INTSTS and INTCTL say; the state survives a round trip; after
 * a reset the codec answers, whatever was before.
 */
#include "fuzz_device.h"
#include "hda_rig.h"

struct rig {
    struct device_test *t;
    struct audio *audio;
    struct device *card;
    struct fuzz_saved saved[2];
};

static struct rig *rig(void)
{
    static struct rig r;

    if (!r.t) {
        r.audio = audio_open("null", -1, NULL);
        r.t = device_test_new(1 << 20);
        r.card = hda_rig_add(r.t, r.audio);
        r.saved[0].dev = r.card;
    }
    fuzz_begin(r.t, r.saved);
    hda_rig_begin(r.t);
    return &r;
}

static void take_command(struct rig *r, struct fuzz_input *in)
{
    unsigned at = ((unsigned)test_read(r->t, HDA_BAR + 0x48, 2) + 1) & 0xff;

    put_le32(r->t->ram.hva + HDA_RIG_CORB + 4 * at, (uint32_t)fuzz_take(in, 4));
    test_write(r->t, HDA_BAR + 0x48, at, 2);
}

static void take_stream(struct rig *r, struct fuzz_input *in)
{
    unsigned what = (unsigned)fuzz_take(in, 1), stream = what & 7;
    uint32_t size = (uint32_t)fuzz_take(in, 2);

    hda_rig_stream(r->t, stream, (what >> 3 & 3) + 1, size, (uint16_t)fuzz_take(in, 2));
    test_write(r->t, hda_rig_sd(stream), 0x100000 | (what & 0x80 ? 0x1e : 0x06), 3);
}

static void step(struct rig *r, struct fuzz_input *in)
{
    static const uint8_t sizes[] = {1, 2, 4, 4};
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    unsigned size = sizes[what >> 3 & 3];
    uint64_t gpa = HDA_BAR;

    switch (what & 7) {
    case 0:
        take_command(r, in);
        break;
    case 1:
        take_stream(r, in);
        break;
    case 2:
    case 3:
        gpa += fuzz_take(in, 2) % (what & 0x80 ? HDA_REGISTERS * 4 : 0x4000) / size * size;
        test_write(r->t, gpa, fuzz_take(in, size), size);
        break;
    case 4:
        test_read(r->t, gpa + fuzz_take(in, 2) % 0x4000 / size * size, size);
        break;
    case 5:
        device_test_advance_ns(r->t, fuzz_take_ns(in, 18));
        break;
    case 6: /* an entry of a list, wherever it leads */
        put_le64(r->t->ram.hva + HDA_RIG_LIST + (what >> 3) * 0x40u, fuzz_take(in, 4));
        put_le32(r->t->ram.hva + HDA_RIG_LIST + (what >> 3) * 0x40u + 8,
                 (uint32_t)fuzz_take(in, 3));
        break;
    default:
        if (what < 0xf0) {
            test_write(r->t, hda_config_gpa(PCI_COMMAND), what >> 3, 2);
            test_write(r->t, hda_config_gpa(PCI_BAR0), HDA_BAR, 4);
            break;
        }
        FUZZ_LOCKED(r->t, fuzz_load_state(in, r->card));
        in->left = 0;
        break;
    }
}

static void check_line(struct rig *r)
{
    const struct pci_function *function = pci_function_of(r->card);
    uint32_t control = (uint32_t)test_read(r->t, HDA_BAR + 0x20, 4);
    uint32_t status = (uint32_t)test_read(r->t, HDA_BAR + 0x24, 4);

    if (function->bars[0].mapped && function->bars[0].gpa == HDA_BAR)
        FUZZ_CLAIM(function->intx_level == !!(status & control & 0x80000000u));
}

static void check_mended(struct rig *r)
{
    device_test_reset(r->t);
    hda_rig_begin(r->t);
    put_le32(r->t->ram.hva + HDA_RIG_CORB + 4, 0xf0000);
    test_write(r->t, HDA_BAR + 0x48, 1, 2);
    FUZZ_CLAIM(get_le32(r->t->ram.hva + HDA_RIG_RIRB + 8) == 0x12090010);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct rig *r = rig();

    while (in.left) {
        step(r, &in);
        check_line(r);
    }
    device_test_round_trip(r->t, r->card);
    check_mended(r);
    return 0;
}
