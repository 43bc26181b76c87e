/*
 * gpu.h - the virtio graphics card, whatever it sits on: what its files share
 *
 * The specification, 5.7, without 3D. Resources are pictures that the guest makes and fills, one
 * of which is shown. Their pixels are in a block of memory behind the RAM, so that they are
 * saved with it; so are the lists of pieces of RAM that they are filled from.
 *
 * Threads: machine lock held.
 */
#ifndef DEVICES_VIRTIO_GPU_H
#define DEVICES_VIRTIO_GPU_H

#include "devices/virtio/virtio.h"
#include "trapeze/display.h"

#define GPU_CLASS_VGA     0x030000u
#define GPU_CLASS_DISPLAY 0x038000u
#define GPU_MAX_RESOURCES 256u
#define GPU_MAX_PIECES    65536u /* of a resource's backing */
#define GPU_PIXEL_BYTES   4u     /* in all formats */

/* What errors are called in responses (5.7.6.7); success is 0 here. */
enum gpu_error {
    GPU_ERROR_UNSPECIFIED = 0x1200,
    GPU_ERROR_MEMORY = 0x1201,
    GPU_ERROR_SCANOUT = 0x1202,
    GPU_ERROR_RESOURCE = 0x1203,
    GPU_ERROR_PARAMETER = 0x1205,
};

struct gpu_resource {
    uint32_t id; /* as the guest calls it; 0: there is none */
    uint32_t format, width, height;
    uint32_t first_page;   /* of its pixels, in the block */
    uint32_t backing_page; /* of its list of pieces, in the block */
    uint32_t piece_count;  /* 0: no backing */
};

struct gpu_area {
    uint32_t x, y, width, height;
};

struct gpu {
    struct virtio_device virtio;

    /* Configuration. */
    struct screen *screen;
    uint8_t *block;
    uint32_t page_count; /* of the block */

    /* Guest-visible state. */
    uint32_t events;
    uint32_t width, height; /* what the monitor likes best */
    struct gpu_resource resources[GPU_MAX_RESOURCES];
    uint32_t shown_id; /* resource; 0: none */
    struct gpu_area shown;
    uint32_t cursor_id, cursor_hot_x, cursor_hot_y, cursor_x, cursor_y;

    /* Rebuilt on load. */
    uint8_t *taken; /* a byte for each page of the block */

    /* What was drawn. */
    bool changed;              /* all has to be */
    struct screen_rect damage; /* of the screen; height 0: none */

    bool is_paused;
    uint64_t copied_bytes; /* in this kick */
    struct virtio_chain chain;
};

/* ---- gpu.c ---- */

/*
 * Its memory of block_bytes, and g->virtio for virtio_init's callers; the monitor likes width x
 * height best. The screen is initialised by then.
 */
int gpu_begin(struct gpu *g, struct device *dev, struct screen *screen, uint32_t width,
              uint32_t height, uint64_t block_bytes, struct error *err);
/* After it has left its bus. */
void gpu_end(struct gpu *g);
void gpu_quiesce(struct gpu *g);
void gpu_resume(struct gpu *g);
int gpu_after_load(struct gpu *g, struct error *err);
#define GPU_DEFAULT_BLOCK (128ull << 20)
#define GPU_BLOCK_HELP    "memory for the guest's pictures, in bytes"
extern const struct state_field gpu_state[];

/* ---- gpu_resource.c: they return 0 or an enum gpu_error ---- */

/* NULL: there is none. */
struct gpu_resource *gpu_find(struct gpu *g, uint32_t id);
const uint8_t *gpu_pixels(const struct gpu *g, const struct gpu_resource *r);
uint32_t gpu_create(struct gpu *g, uint32_t id, uint32_t format, uint32_t width, uint32_t height);
void gpu_destroy(struct gpu *g, struct gpu_resource *r);
void gpu_forget_all(struct gpu *g);
/* From count entries of 16 bytes at offset of what the guest wrote. */
uint32_t gpu_attach(struct gpu *g, struct gpu_resource *r, const struct virtio_chain *chain,
                    uint64_t offset, uint32_t count);
void gpu_detach(struct gpu *g, struct gpu_resource *r);
/* Fill an area from the backing, from its byte offset on. */
uint32_t gpu_fill(struct gpu *g, struct gpu_resource *r, const struct gpu_area *area,
                  uint64_t offset);
bool gpu_contains(const struct gpu_resource *r, const struct gpu_area *area);
/* After a state was loaded: -EINVAL for resources that cannot be. */
int gpu_check_resources(struct gpu *g, struct error *err);

/* ---- gpu_screen.c ---- */

/* Is a format one that is drawn? */
bool gpu_knows_format(uint32_t format);
/* The guest says that these pixels of the resource are to be seen. */
void gpu_flush(struct gpu *g, const struct gpu_resource *r, const struct gpu_area *area);
void gpu_show_cursor(struct gpu *g);
/* In the screen's refresh(), while a resource is shown. */
void gpu_draw(struct gpu *g);
/* In the screen's want_size(). */
void gpu_want_size(struct gpu *g, uint32_t width, uint32_t height);

#endif
