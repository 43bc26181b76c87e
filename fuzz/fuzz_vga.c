/*
 * fuzz_vga.c - a hostile driver of the VGA, and somebody who looks at its screen
 *
 * Steps are ports, the window, VRAM, registers in memory, time, saved states, refreshes, text.
 * Claims: what changes is within the surface, and the surface is as it was told; states survive a
 * round trip; whatever happened, after a reset the screen is dark.
 */
#include "devices/devices.h"
#include "fuzz_device.h"
#include "trapeze/display.h"
#include "trapeze/pci.h"

#define ECAM      0xe0000000ull
#define SLOT      2
#define VRAM      0xc0000000u
#define REGISTERS 0xc2000000u
#define WINDOW    0xa0000u

static struct screen_surface surface;

static void saw_size(void *opaque, const struct screen_surface *now)
{
    (void)opaque;
    surface = *now;
}

static void saw_change(void *opaque, const struct screen_rect *rect)
{
    (void)opaque;
    FUZZ_CLAIM(rect->width && rect->x + rect->width <= surface.width);
    FUZZ_CLAIM(rect->height && rect->y + rect->height <= surface.height);
}

static const struct screen_viewer_ops viewer_ops = {.resized = saw_size, .changed = saw_change};
static struct screen_viewer viewer = {.ops = &viewer_ops};

static void configure(struct device_test *t)
{
    test_write(t, ECAM + (SLOT << 15) + PCI_BAR0, VRAM, 4);
    test_write(t, ECAM + (SLOT << 15) + PCI_BAR0 + 8, REGISTERS, 4);
    test_write(t, ECAM + (SLOT << 15) + PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY, 2);
}

static void access_port(struct device_test *t, struct fuzz_input *in, uint8_t what)
{
    static const uint16_t bases[4] = {0x3c0, 0x3d0, 0x3b0, 0x1ce};
    unsigned size = 1u << (what >> 5 & 3) % 3;
    uint16_t port = (uint16_t)(bases[what >> 3 & 3] + (fuzz_take(in, 1) & 0xf));

    if (what & 0x80)
        bus_port_read(t->machine, port, size);
    else
        bus_port_write(t->machine, port, (uint32_t)fuzz_take(in, size), size);
}

static void access_memory(struct device_test *t, struct fuzz_input *in, uint8_t what)
{
    static const uint32_t bases[4] = {WINDOW, WINDOW + 0x18000, VRAM, REGISTERS + 0x400};
    unsigned size = 1u << (what >> 5 & 3), base = what >> 3 & 3;
    uint64_t offset = fuzz_take(in, 2);

    if (base == 2)
        offset |= fuzz_take(in, 1) << 16;
    if (base == 3)
        offset &= 0x3ff;
    if (what & 0x80)
        test_read(t, bases[base] + offset, size);
    else
        test_write(t, bases[base] + offset, fuzz_take(in, size), size);
}

static void read_text(struct screen *screen)
{
    struct screen_text text;

    if (!screen_text(screen, &text))
        return;
    FUZZ_CLAIM(text.rows && text.columns);
    for (uint32_t n = 0; n < text.rows * text.columns; n++)
        FUZZ_CLAIM(text.cells[n].code < 512 && text.cells[n].foreground < 16 &&
                   text.cells[n].background < 16);
    screen_text_done(&text);
}

static void step(struct device_test *t, struct device *dev, struct screen *screen,
                 struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);

    switch (what & 7) {
    case 0:
    case 1:
    case 2:
        access_port(t, in, what);
        break;
    case 3:
    case 4:
        access_memory(t, in, what);
        break;
    case 5:
        if (what & 0x80)
            FUZZ_LOCKED(t, read_text(screen));
        else
            FUZZ_LOCKED(t, screen_refresh(screen));
        break;
    case 6:
        device_test_advance_ns(t, fuzz_take_ns(in, 24));
        break;
    default:
        if (what == 0xff)
            FUZZ_LOCKED(t, fuzz_load_state(in, dev));
        else if (what == 0xf7)
            FUZZ_LOCKED(t, screen_detach(screen, &viewer));
        else if (what == 0xef && !screen_is_watched(screen))
            FUZZ_LOCKED(t, screen_attach(screen, &viewer, NULL));
        break;
    }
}

static void expect_darkness(struct device_test *t, struct screen *screen)
{
    device_test_reset(t);
    FUZZ_LOCKED(t, screen_refresh(screen));
    for (uint32_t y = 0; y < surface.height; y++)
        for (uint32_t x = 0; x < surface.width; x++)
            FUZZ_CLAIM(surface.pixels[(size_t)y * surface.stride + x] == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    static struct device_test *t;
    static struct fuzz_saved saved[2];
    static struct screen *screen;

    if (!t) {
        t = device_test_new(0);
        device_test_add(t, &pci_host_class, "ecam=0xe0000000");
        saved[0].dev = device_test_add(t, &vga_class, "addr=2,memory=1");
        screen = display_screen(machine_display(t->machine), 0);
    }
    fuzz_begin(t, saved);
    configure(t);
    if (!screen_is_watched(screen))
        FUZZ_LOCKED(t, screen_attach(screen, &viewer, NULL));
    while (in.left)
        step(t, saved[0].dev, screen, &in);
    device_test_round_trip(t, saved[0].dev);
    if (!screen_is_watched(screen))
        FUZZ_LOCKED(t, screen_attach(screen, &viewer, NULL));
    expect_darkness(t, screen);
    return 0;
}
