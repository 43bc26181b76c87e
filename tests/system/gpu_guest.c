/*
 * gpu_guest.c - a program in a guest that shows pictures by the kernel's interface to graphics
 * cards
 *
 * It reads commands, a line each, and answers with a line:
 *
 *     modes              "modes: 1024x768 800x600 ...", the best one first
 *     show W H SEED      a picture in a mode of this size: "shown"
 *     cursor X Y SEED    a cursor of 64x64 pixels with its hot spot at 5, 7: "pointed"
 *     storm W H SECONDS  draw and show all of the screen anew as often as it goes: "drew N frames"
 *     flip W H SECONDS   the same with two pictures in turns
 *
 * Constants and structures are those of Linux's drm.h and drm_mode.h.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct mode {
    uint32_t clock;
    uint16_t h[5], v[5]; /* displayed, start of sync, end of sync, total, skew or scan */
    uint32_t refresh, flags, type;
    char name[32];
};

struct resources {
    uint64_t fbs, crtcs, connectors, encoders;
    uint32_t fb_count, crtc_count, connector_count, encoder_count;
    uint32_t min_width, max_width, min_height, max_height;
};

struct connector {
    uint64_t encoders, modes, props, values;
    uint32_t mode_count, prop_count, encoder_count;
    uint32_t encoder, id, type, type_id, connection, mm_width, mm_height, subpixel, pad;
};

struct crtc {
    uint64_t connectors;
    uint32_t connector_count, id, fb, x, y, gamma, has_mode;
    struct mode mode;
};

struct dumb {
    uint32_t height, width, bpp, flags, handle, pitch;
    uint64_t size;
};

struct map {
    uint32_t handle, pad;
    uint64_t offset;
};

struct frame_buffer {
    uint32_t id, width, height, pitch, bpp, depth, handle;
};

struct dirty {
    uint32_t fb, flags, colour, clip_count;
    uint64_t clips;
};

struct cursor {
    uint32_t flags, crtc, x, y, width, height, handle;
    int32_t hot_x, hot_y;
};

#define IOCTL_RESOURCES _IOWR('d', 0xa0, struct resources)
#define IOCTL_SET_CRTC  _IOWR('d', 0xa2, struct crtc)
#define IOCTL_CONNECTOR _IOWR('d', 0xa7, struct connector)
#define IOCTL_ADD_FB    _IOWR('d', 0xae, struct frame_buffer)
#define IOCTL_DIRTY     _IOWR('d', 0xb1, struct dirty)
#define IOCTL_DUMB      _IOWR('d', 0xb2, struct dumb)
#define IOCTL_MAP       _IOWR('d', 0xb3, struct map)
#define IOCTL_CURSOR    _IOWR('d', 0xbb, struct cursor)

struct picture {
    uint32_t width, height, stride, handle, fb; /* stride: pixels */
    uint32_t *pixels;
};

static int card;
static uint32_t crtc_id, connector_id, mode_count;
static struct mode modes[64];

static void call(unsigned long request, void *argument, const char *what)
{
    if (ioctl(card, request, argument) == 0)
        return;
    perror(what);
    exit(1);
}

static void find_modes(void)
{
    uint32_t crtcs[4], connectors[4], encoders[4];
    struct resources r = {.crtcs = (uintptr_t)crtcs,
                          .connectors = (uintptr_t)connectors,
                          .crtc_count = 4,
                          .connector_count = 4};
    struct connector c = {.encoders = (uintptr_t)encoders, .modes = (uintptr_t)modes};

    r.encoders = (uintptr_t)encoders;
    r.encoder_count = 4;
    call(IOCTL_RESOURCES, &r, "resources");
    crtc_id = crtcs[0];
    connector_id = connectors[0];
    c.id = connector_id;
    call(IOCTL_CONNECTOR, &c, "connector"); /* none yet: it looks at the monitor again */
    c.prop_count = 0;
    c.mode_count = c.mode_count < 64 ? c.mode_count : 64;
    c.encoder_count = 4;
    call(IOCTL_CONNECTOR, &c, "modes");
    mode_count = c.mode_count < 64 ? c.mode_count : 64;
}

static struct picture new_picture(uint32_t width, uint32_t height, uint32_t depth)
{
    struct dumb dumb = {.width = width, .height = height, .bpp = 32};
    struct map map = {0};
    struct frame_buffer fb = {.width = width, .height = height, .bpp = 32, .depth = depth};
    void *pixels;

    call(IOCTL_DUMB, &dumb, "dumb");
    map.handle = fb.handle = dumb.handle;
    fb.pitch = dumb.pitch;
    call(IOCTL_MAP, &map, "map");
    pixels = mmap(NULL, dumb.size, PROT_READ | PROT_WRITE, MAP_SHARED, card, (off_t)map.offset);
    if (pixels == MAP_FAILED)
        exit(1);
    if (depth)
        call(IOCTL_ADD_FB, &fb, "frame buffer");
    return (struct picture){width, height, dumb.pitch / 4, dumb.handle, fb.id, pixels};
}

static void show(const struct picture *p)
{
    struct crtc crtc = {.connectors = (uintptr_t)&connector_id,
                        .connector_count = 1,
                        .id = crtc_id,
                        .fb = p->fb,
                        .has_mode = 1};

    find_modes();
    for (uint32_t n = 0; n < mode_count && !crtc.mode.clock; n++)
        if (modes[n].h[0] == p->width && modes[n].v[0] == p->height)
            crtc.mode = modes[n];
    call(IOCTL_SET_CRTC, &crtc, "set mode");
}

static void tell_dirty(const struct picture *p)
{
    struct dirty dirty = {.fb = p->fb};

    ioctl(card, IOCTL_DIRTY, &dirty); /* cards whose memory is seen know it not */
}

/* Red is x, green y, blue their sum, each with the seed. */
static void draw(const struct picture *p, uint32_t seed)
{
    for (uint32_t y = 0; y < p->height; y++) {
        uint32_t *row = p->pixels + (size_t)y * p->stride;

        for (uint32_t x = 0; x < p->width; x++)
            row[x] = ((x ^ seed) & 0xff) << 16 | ((y + seed) & 0xff) << 8 | ((x + y + seed) & 0xff);
    }
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void storm(uint32_t width, uint32_t height, double seconds, int count)
{
    struct picture pictures[2];
    unsigned frames = 0;
    double end;

    for (int n = 0; n < count; n++)
        pictures[n] = new_picture(width, height, 24);
    show(&pictures[0]);
    for (end = now() + seconds; now() < end; frames++) {
        const struct picture *p = &pictures[count == 2 ? frames & 1 : 0];

        draw(p, frames);
        if (count == 2)
            show(p);
        tell_dirty(p);
    }
    printf("drew %u frames\n", frames);
}

static void point(uint32_t x, uint32_t y, uint32_t seed)
{
    struct picture p = new_picture(64, 64, 0);
    struct cursor c = {.flags = 3,
                       .crtc = crtc_id,
                       .x = x,
                       .y = y,
                       .width = 64,
                       .height = 64,
                       .handle = p.handle,
                       .hot_x = 5,
                       .hot_y = 7};

    draw(&p, seed);
    for (uint32_t n = 0; n < 64 * 32; n++)
        p.pixels[n] |= 0xff000000; /* the lower half is not seen */
    call(IOCTL_CURSOR, &c, "cursor");
    puts("pointed");
}

int main(void)
{
    uint32_t a, b, c;
    char line[128];

    card = open("/dev/dri/card0", O_RDWR);
    if (card < 0)
        return 1;
    setlinebuf(stdout);
    find_modes();
    puts("gpu: ready");
    while (fgets(line, sizeof(line), stdin)) {
        if (sscanf(line, "show %u %u %u", &a, &b, &c) == 3) {
            struct picture p = new_picture(a, b, 24);

            show(&p); /* which clears the memory of some cards */
            draw(&p, c);
            tell_dirty(&p);
            puts("shown");
        } else if (sscanf(line, "cursor %u %u %u", &a, &b, &c) == 3) {
            point(a, b, c);
        } else if (sscanf(line, "storm %u %u %u", &a, &b, &c) == 3) {
            storm(a, b, c, 1);
        } else if (sscanf(line, "flip %u %u %u", &a, &b, &c) == 3) {
            storm(a, b, c, 2);
        } else if (!strncmp(line, "modes", 5)) {
            find_modes();
            printf("modes:");
            for (uint32_t n = 0; n < mode_count; n++)
                printf(" %ux%u", modes[n].h[0], modes[n].v[0]);
            puts(".");
        }
    }
    return 0;
}
