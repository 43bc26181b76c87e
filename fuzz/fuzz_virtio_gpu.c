/*
 * fuzz_virtio_gpu.c - a hostile driver of the virtio graphics card that is a VGA, too
 *
 * Steps are accesses to registers, configuration space, rings and descriptors, commands of both
 * queues, ports of the VGA, looks at the screen, wishes for its size, pauses and saved states.
 * Claims: states survive a round trip; rectangles are within the surface; a reset mends the card.
 */
#include "base/bytes.h"
#include "devices/devices.h"
#include "fuzz_virtio.h"
#include "trapeze/display.h"

#define DATA   0x80000u
#define REPLY  0x90000u
#define QUEUES 2u

struct rig {
    struct device_test *t;
    struct device *card;
    struct virtio_driver d;
    struct driver_queue q[QUEUES];
    struct screen *screen;
    struct screen_viewer viewer;
    struct screen_surface surface;
    bool looks;
};

static void on_resized(void *opaque, const struct screen_surface *surface)
{
    ((struct rig *)opaque)->surface = *surface;
}

static void on_changed(void *opaque, const struct screen_rect *rect)
{
    const struct screen_surface *surface = &((struct rig *)opaque)->surface;

    FUZZ_CLAIM(rect->width && rect->height && rect->x + rect->width <= surface->width &&
               rect->y + rect->height <= surface->height);
}

static void on_cursor(void *opaque, const struct screen_cursor *cursor)
{
    (void)opaque;
    FUZZ_CLAIM(
        cursor->width <= SCREEN_CURSOR_MAX && cursor->height <= SCREEN_CURSOR_MAX &&
        (!cursor->width || (cursor->hot_x < cursor->width && cursor->hot_y < cursor->height)));
}

static const struct screen_viewer_ops viewer_ops = {
    .resized = on_resized, .changed = on_changed, .cursor_changed = on_cursor};

/* Small numbers for the most part: sizes, places and names that fit together. */
static uint32_t take_number(struct fuzz_input *in)
{
    uint8_t value = (uint8_t)fuzz_take(in, 1);

    return value < 0xf0 ? value % 80u : value < 0xf8 ? value - 0xf0u : (uint32_t)fuzz_take(in, 4);
}

/* A format that there is, mostly. */
static uint32_t take_format(struct fuzz_input *in)
{
    static const uint32_t formats[8] = {1, 2, 3, 4, 67, 68, 121, 134};
    uint8_t value = (uint8_t)fuzz_take(in, 1);

    return value < 0xf0 ? formats[value % 8] : value;
}

static void send_command(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    static const uint16_t types[16] = {0x100, 0x101, 0x102, 0x103, 0x104, 0x105, 0x106, 0x107,
                                       0x10a, 0x300, 0x301, 0x108, 0x101, 0x105, 0x106, 0x200};
    struct driver_queue *q = &r->q[what >> 7];
    struct driver_buffer buffers[2] = {{DATA, 56, false}, {REPLY, 1056, true}};
    uint8_t *request = r->t->ram.hva + DATA;
    uint32_t type = types[fuzz_take(in, 1) % 16];

    memset(request, 0, 0x1000);
    put_le32(request, type);
    put_le32(request + 4, what >> 4 & 1);
    for (unsigned n = 0; n < 8; n++)
        put_le32(request + 24 + 4 * n, take_number(in));
    if (type == 0x101)
        put_le32(request + 28, take_format(in));
    if (type == 0x106) {
        unsigned count = get_le32(request + 28) % 8;

        put_le32(request + 28, count + (what & 0x20 ? take_number(in) : 0));
        for (unsigned n = 0; n < count; n++) {
            put_le64(request + 32 + 16 * n, take_gpa(in));
            put_le32(request + 40 + 16 * n, (uint32_t)fuzz_take(in, 2));
        }
        buffers[0].size_bytes = 32 + 16 * count;
    }
    if (what & 0x40)
        buffers[0].size_bytes = (uint32_t)fuzz_take(in, 1);
    if (q->driver && q->free >= 2)
        driver_queue_add(q, buffers, 1 + (fuzz_take(in, 1) & 1));
    notify_queue(r->t, q->index);
}

static void look(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    struct screen_text text;

    if (what & 0x80) {
        if (r->looks)
            screen_detach(r->screen, &r->viewer);
        r->looks = !r->looks && !screen_attach(r->screen, &r->viewer, NULL);
    } else if (what & 0x40) {
        screen_want_size(r->screen, take_number(in), take_number(in));
    } else if (what & 0x20) {
        if (screen_text(r->screen, &text))
            screen_text_done(&text);
    } else {
        screen_refresh(r->screen);
    }
}

static void access_vga(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    static const uint16_t ports[8] = {0x1ce, 0x1d0, 0x3c0, 0x3c2, 0x3c4, 0x3ce, 0x3d4, 0x3da};
    uint16_t port = ports[what >> 5];

    if (what & 0x10)
        bus_port_read(r->t->machine, port, 2);
    else
        bus_port_write(r->t->machine, port, (uint32_t)fuzz_take(in, 2), 2);
}

static void step(struct rig *r, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    unsigned kind = what % (6 + COMMON_STEPS);

    if (kind == 0)
        begin_queues(&r->d, r->t, r->q, QUEUES, (uint8_t)fuzz_take(in, 1), what & 0x80 ? 0 : 2);
    else if (kind <= 3)
        send_command(r, in, what);
    else if (kind == 4)
        FUZZ_LOCKED(r->t, look(r, in, what));
    else if (kind == 5)
        access_vga(r, in, what);
    else
        common_step(r->t, r->card, &r->d, &r->q[what >> 7], in, kind - 6, what);
}

static void check_mended(struct rig *r)
{
    uint8_t *ram = r->t->ram.hva;
    struct driver_buffer buffers[2] = {{DATA, 24, false}, {REPLY, 408, true}};
    uint16_t id;
    uint32_t length;

    begin_again(&r->d, r->t, &r->q[0]);
    memset(ram + DATA, 0, 24);
    put_le32(ram + DATA, 0x100);
    driver_queue_add(&r->q[0], buffers, 2);
    driver_queue_kick(&r->q[0]);
    FUZZ_CLAIM(driver_queue_take(&r->q[0], &id, &length));
    FUZZ_CLAIM(length == 408 && get_le32(ram + REPLY) == 0x1101);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rig r;
    struct fuzz_input in = {data, size};

    if (!r.t) {
        r.t = device_test_new(RAM_BYTES);
        device_test_add(r.t, &pci_host_class, "ecam=0xe0000000");
        r.card = device_test_add(r.t, &virtio_vga_class, "addr=3,max-hostmem=256K,memory=1");
        device_test_start(r.t);
        r.screen = display_screen(machine_display(r.t->machine), 0);
        r.viewer = (struct screen_viewer){.ops = &viewer_ops, .opaque = &r};
    }
    start_over(r.t, &r.d, r.q, sizeof(r.q));
    while (in.left)
        step(&r, &in);
    if (r.looks)
        FUZZ_LOCKED(r.t, screen_detach(r.screen, &r.viewer));
    r.looks = false;
    device_test_reset(r.t);
    check_mended(&r);
    return 0;
}
