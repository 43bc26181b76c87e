/*
 * gpu.c - the virtio graphics card: commands, and cards without a VGA
 *
 * The specification, 5.7. One monitor. Left out: 3D, blobs, UUIDs.
 *
 * Theory of operation. A command is done when it is taken; a fence has nothing to wait for. The
 * guest makes resources, fills them from its RAM, has one shown and says which parts of it are new;
 * viewers are told of those when they next ask (gpu_screen.c).
 *
 * Guest memory: DMA from and to what chains name, and from the backing of resources.
 */
#include "devices/virtio/gpu.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/devices.h"
#include "devices/vga/edid.h"
#include "devices/virtio/transport.h"
#include "trapeze/machine.h"

#define ID_GPU           16
#define F_EDID           (1ull << 1)
#define CHAINS_PER_KICK  64u
#define BYTES_PER_KICK   (32u << 20)

#define HEAD_BYTES       24u /* type, flags, fence, context, ring */
#define FLAG_FENCE       0x1u
#define REQUEST_MAX      56u
#define AREA_BYTES       16u
#define SCANOUTS_MAX     16u /* places in the list of monitors */
#define INFO_BYTES       (HEAD_BYTES + SCANOUTS_MAX * (AREA_BYTES + 8))
#define EDID_OFFSET      (HEAD_BYTES + 8)
#define EDID_REPLY_BYTES (EDID_OFFSET + 1024)

enum queue_number { CONTROL, CURSOR, QUEUE_COUNT };

enum config_field {
    CONFIG_EVENTS = 0,
    CONFIG_EVENTS_CLEAR = 4,
    CONFIG_SCANOUTS = 8,
    CONFIG_BYTES = 16,
};

enum command_type {
    GET_DISPLAY_INFO = 0x100,
    RESOURCE_CREATE_2D,
    RESOURCE_UNREF,
    SET_SCANOUT,
    RESOURCE_FLUSH,
    TRANSFER_TO_HOST_2D,
    RESOURCE_ATTACH_BACKING,
    RESOURCE_DETACH_BACKING,
    GET_EDID = 0x10a,
    UPDATE_CURSOR = 0x300,
    MOVE_CURSOR,
};

enum response_type { OK_NODATA = 0x1100, OK_DISPLAY_INFO = 0x1101, OK_EDID = 0x1104 };

/* A command under way. */
struct call {
    uint8_t request[REQUEST_MAX];
    uint8_t response[EDID_REPLY_BYTES];
    uint32_t response_bytes;
    enum response_type type; /* if all goes well */
};

static uint32_t word(const struct call *call, unsigned offset)
{
    return get_le32(call->request + offset);
}

static struct gpu_area area_at(const struct call *call, unsigned offset)
{
    return (struct gpu_area){word(call, offset), word(call, offset + 4), word(call, offset + 8),
                             word(call, offset + 12)};
}

/* ---- commands: they return 0 or an enum gpu_error ---- */

static uint32_t get_display_info(struct gpu *g, struct call *call)
{
    uint8_t *monitor = call->response + HEAD_BYTES;

    call->type = OK_DISPLAY_INFO;
    call->response_bytes = INFO_BYTES;
    put_le32(monitor + 8, g->width);
    put_le32(monitor + 12, g->height);
    put_le32(monitor + AREA_BYTES, 1); /* is on */
    return 0;
}

static uint32_t get_edid(struct gpu *g, struct call *call)
{
    if (word(call, 24))
        return GPU_ERROR_SCANOUT;
    call->type = OK_EDID;
    call->response_bytes = EDID_REPLY_BYTES;
    put_le32(call->response + HEAD_BYTES, EDID_BYTES);
    edid_build(call->response + EDID_OFFSET, g->width < EDID_MAX_SIZE ? g->width : EDID_MAX_SIZE,
               g->height < EDID_MAX_SIZE ? g->height : EDID_MAX_SIZE);
    return 0;
}

static uint32_t create(struct gpu *g, struct call *call)
{
    return gpu_create(g, word(call, 24), word(call, 28), word(call, 32), word(call, 36));
}

static void show_nothing(struct gpu *g)
{
    g->shown_id = 0;
    g->shown = (struct gpu_area){0};
    g->damage.height = 0;
    g->changed = true;
}

static uint32_t unref(struct gpu *g, struct call *call)
{
    struct gpu_resource *r = gpu_find(g, word(call, 24));

    if (!r)
        return GPU_ERROR_RESOURCE;
    if (r->id == g->shown_id)
        show_nothing(g);
    gpu_destroy(g, r);
    return 0;
}

static uint32_t set_scanout(struct gpu *g, struct call *call)
{
    struct gpu_area area = area_at(call, 24);
    uint32_t id = word(call, 44);
    const struct gpu_resource *r = gpu_find(g, id);

    if (word(call, 40))
        return GPU_ERROR_SCANOUT;
    if (!id) {
        show_nothing(g);
        return 0;
    }
    if (!r)
        return GPU_ERROR_RESOURCE;
    if (!gpu_contains(r, &area))
        return GPU_ERROR_PARAMETER;
    g->shown_id = id;
    g->shown = area;
    g->changed = true;
    g->damage.height = 0;
    return 0;
}

static uint32_t flush(struct gpu *g, struct call *call)
{
    struct gpu_area area = area_at(call, 24);
    const struct gpu_resource *r = gpu_find(g, word(call, 40));

    if (!r)
        return GPU_ERROR_RESOURCE;
    if (!gpu_contains(r, &area))
        return GPU_ERROR_PARAMETER;
    gpu_flush(g, r, &area);
    return 0;
}

static uint32_t transfer(struct gpu *g, struct call *call)
{
    struct gpu_area area = area_at(call, 24);
    struct gpu_resource *r = gpu_find(g, word(call, 48));

    if (!r)
        return GPU_ERROR_RESOURCE;
    if (!gpu_contains(r, &area))
        return GPU_ERROR_PARAMETER;
    return gpu_fill(g, r, &area, get_le64(call->request + 40));
}

static uint32_t attach_backing(struct gpu *g, struct call *call)
{
    struct gpu_resource *r = gpu_find(g, word(call, 24));

    return r ? gpu_attach(g, r, &g->chain, 32, word(call, 28)) : GPU_ERROR_RESOURCE;
}

static uint32_t detach_backing(struct gpu *g, struct call *call)
{
    struct gpu_resource *r = gpu_find(g, word(call, 24));

    if (!r)
        return GPU_ERROR_RESOURCE;
    gpu_detach(g, r);
    return 0;
}

static uint32_t move_cursor(struct gpu *g, struct call *call)
{
    if (word(call, 24))
        return GPU_ERROR_SCANOUT;
    g->cursor_x = word(call, 28);
    g->cursor_y = word(call, 32);
    screen_move_cursor(g->screen, (int32_t)g->cursor_x, (int32_t)g->cursor_y);
    return 0;
}

static uint32_t update_cursor(struct gpu *g, struct call *call)
{
    if (word(call, 24))
        return GPU_ERROR_SCANOUT;
    if (word(call, 40) && !gpu_find(g, word(call, 40)))
        return GPU_ERROR_RESOURCE;
    g->cursor_id = word(call, 40);
    g->cursor_hot_x = word(call, 44);
    g->cursor_hot_y = word(call, 48);
    gpu_show_cursor(g);
    return move_cursor(g, call);
}

static const struct command {
    enum command_type type;
    enum queue_number queue;
    unsigned request_bytes;
    uint32_t (*run)(struct gpu *g, struct call *call);
} commands[] = {
    {GET_DISPLAY_INFO, CONTROL, 24, get_display_info},
    {RESOURCE_CREATE_2D, CONTROL, 40, create},
    {RESOURCE_UNREF, CONTROL, 32, unref},
    {SET_SCANOUT, CONTROL, 48, set_scanout},
    {RESOURCE_FLUSH, CONTROL, 48, flush},
    {TRANSFER_TO_HOST_2D, CONTROL, 56, transfer},
    {RESOURCE_ATTACH_BACKING, CONTROL, 32, attach_backing},
    {RESOURCE_DETACH_BACKING, CONTROL, 32, detach_backing},
    {GET_EDID, CONTROL, 32, get_edid},
    {UPDATE_CURSOR, CURSOR, 56, update_cursor},
    {MOVE_CURSOR, CURSOR, 56, move_cursor},
};

/* ---- queues ---- */

static uint32_t run(struct gpu *g, struct call *call, size_t request_bytes, unsigned queue)
{
    uint32_t type = word(call, 0);

    for (size_t n = 0; n < sizeof(commands) / sizeof(commands[0]); n++)
        if (commands[n].type == type && commands[n].queue == queue)
            return request_bytes < commands[n].request_bytes ? GPU_ERROR_PARAMETER
                                                             : commands[n].run(g, call);
    return GPU_ERROR_UNSPECIFIED;
}

/* Returns how many bytes of the chain were written. */
static size_t answer(struct gpu *g, unsigned queue)
{
    struct call call = {.response_bytes = HEAD_BYTES, .type = OK_NODATA};
    size_t size = virtio_chain_read(&g->chain, 0, call.request, sizeof(call.request));
    uint32_t error = run(g, &call, size, queue), flags = word(&call, 4) & FLAG_FENCE;

    if (error)
        call.response_bytes = HEAD_BYTES;
    put_le32(call.response, error ? error : call.type);
    put_le32(call.response + 4, flags);
    if (flags)
        memcpy(call.response + 8, call.request + 8, 12); /* fence, context */
    return virtio_chain_write(&g->chain, 0, call.response, call.response_bytes);
}

static void gpu_kick(struct virtio_device *virtio, struct virtqueue *queue)
{
    struct gpu *g = container_of(virtio, struct gpu, virtio);
    unsigned chains = 0;

    if (g->is_paused)
        return;
    g->copied_bytes = 0;
    while (chains < CHAINS_PER_KICK && g->copied_bytes < BYTES_PER_KICK &&
           virtqueue_pop(queue, &g->chain)) {
        virtqueue_push(queue, &g->chain, answer(g, (unsigned)(queue - virtio->queues)));
        chains++;
    }
    virtqueue_notify(queue);
    if (chains == CHAINS_PER_KICK || g->copied_bytes >= BYTES_PER_KICK)
        virtio_kick_later(virtio); /* others want the lock, too */
}

static void gpu_read_config(struct virtio_device *virtio, unsigned offset, uint8_t *out,
                            unsigned size)
{
    const struct gpu *g = container_of(virtio, struct gpu, virtio);
    uint8_t c[CONFIG_BYTES] = {0};

    put_le32(c + CONFIG_EVENTS, g->events);
    put_le32(c + CONFIG_SCANOUTS, 1);
    memcpy(out, c + offset, size);
}

static void gpu_write_config(struct virtio_device *virtio, unsigned offset, const uint8_t *data,
                             unsigned size)
{
    struct gpu *g = container_of(virtio, struct gpu, virtio);

    if (offset == CONFIG_EVENTS_CLEAR && size == 4)
        g->events &= ~get_le32(data);
}

/* The monitor stays as it is. */
static void gpu_forget(struct virtio_device *virtio)
{
    struct gpu *g = container_of(virtio, struct gpu, virtio);

    gpu_forget_all(g);
    show_nothing(g);
    g->events = 0;
    g->cursor_id = g->cursor_hot_x = g->cursor_hot_y = g->cursor_x = g->cursor_y = 0;
    gpu_show_cursor(g);
}

static const struct virtio_ops gpu_ops = {
    .id = ID_GPU,
    .config_bytes = CONFIG_BYTES,
    .read_config = gpu_read_config,
    .write_config = gpu_write_config,
    .kick = gpu_kick,
    .reset = gpu_forget,
};

/* ---- lifecycle ---- */

int gpu_begin(struct gpu *g, struct device *dev, struct screen *screen, uint32_t width,
              uint32_t height, uint64_t block_bytes, struct error *err)
{
    uint64_t offset;

    g->virtio = (struct virtio_device){.ops = &gpu_ops,
                                       .transport = virtio_transport_of(dev),
                                       .dev = dev,
                                       .offered = F_EDID,
                                       .queue_count = QUEUE_COUNT};
    g->screen = screen;
    g->width = width;
    g->height = height;
    g->block = memory_add_block(device_memory(dev), block_bytes, &offset, err);
    if (!g->block)
        return -ENOSPC;
    g->page_count = (uint32_t)((block_bytes + GUEST_PAGE_SIZE - 1) / GUEST_PAGE_SIZE);
    g->taken = calloc(g->page_count, 1);
    if (!g->taken)
        return error_set(err, ENOMEM, "out of memory");
    virtio_init(&g->virtio);
    return 0;
}

void gpu_end(struct gpu *g)
{
    free(g->taken);
}

void gpu_quiesce(struct gpu *g)
{
    g->is_paused = true;
}

void gpu_resume(struct gpu *g)
{
    g->is_paused = false;
    virtio_kick_later(&g->virtio);
}

int gpu_after_load(struct gpu *g, struct error *err)
{
    const struct gpu_resource *r;

    if (gpu_check_resources(g, err))
        return -EINVAL;
    r = gpu_find(g, g->shown_id);
    if (g->shown_id && (!r || !gpu_contains(r, &g->shown)))
        return error_set(err, EINVAL, "%s: what is shown is not there", g->virtio.dev->id);
    g->changed = true;
    g->damage.height = 0;
    gpu_show_cursor(g);
    screen_move_cursor(g->screen, (int32_t)g->cursor_x, (int32_t)g->cursor_y);
    return virtio_transport_after_load(g->virtio.dev, err);
}

static const struct state_field resource_state[] = {
    STATE_U32(struct gpu_resource, id),
    STATE_U32(struct gpu_resource, format),
    STATE_U32(struct gpu_resource, width),
    STATE_U32(struct gpu_resource, height),
    STATE_U32(struct gpu_resource, first_page),
    STATE_U32(struct gpu_resource, backing_page),
    STATE_U32_MAX(struct gpu_resource, piece_count, GPU_MAX_PIECES),
    STATE_END,
};

static const struct state_field area_state[] = {
    STATE_U32(struct gpu_area, x),
    STATE_U32(struct gpu_area, y),
    STATE_U32(struct gpu_area, width),
    STATE_U32(struct gpu_area, height),
    STATE_END,
};

const struct state_field gpu_state[] = {
    VIRTIO_STATE(struct gpu, virtio),
    STATE_U32(struct gpu, events),
    STATE_U32_MAX(struct gpu, width, SCREEN_MAX_SIZE),
    STATE_U32_MAX(struct gpu, height, SCREEN_MAX_SIZE),
    STATE_STRUCTS(struct gpu, resources, resource_state),
    STATE_U32(struct gpu, shown_id),
    STATE_STRUCT(struct gpu, shown, area_state),
    STATE_U32(struct gpu, cursor_id),
    STATE_U32(struct gpu, cursor_hot_x),
    STATE_U32(struct gpu, cursor_hot_y),
    STATE_U32(struct gpu, cursor_x),
    STATE_U32(struct gpu, cursor_y),
    STATE_END,
};

/* ---- cards without a VGA ---- */

struct virtio_gpu {
    VIRTIO_TRANSPORT;
    struct gpu gpu;
    struct screen screen;

    /* Configuration. */
    uint16_t xres, yres;
    uint64_t max_hostmem;
};

static struct virtio_gpu *card_of(struct device *dev)
{
    return container_of(dev, struct virtio_gpu, dev);
}

static void watched(void *opaque, bool on)
{
    (void)on;
    ((struct virtio_gpu *)opaque)->gpu.changed = true;
}

static void refresh(void *opaque)
{
    struct gpu *g = &((struct virtio_gpu *)opaque)->gpu;

    if (g->shown_id)
        gpu_draw(g);
    else if (g->changed)
        g->changed = screen_clear(g->screen, g->width, g->height) != 0;
}

static void want_size(void *opaque, uint32_t width, uint32_t height)
{
    gpu_want_size(&((struct virtio_gpu *)opaque)->gpu, width, height);
}

static const struct screen_source_ops card_screen = {
    .watched = watched, .refresh = refresh, .want_size = want_size};

static int card_attach(struct device *dev, struct error *err)
{
    struct virtio_gpu *s = card_of(dev);
    int result;

    if (!s->xres || !s->yres || s->xres > EDID_MAX_SIZE || s->yres > EDID_MAX_SIZE)
        return error_set(err, EINVAL, "a monitor has up to %ux%u pixels", EDID_MAX_SIZE,
                         EDID_MAX_SIZE);
    screen_init(&s->screen, dev->machine, dev->id, &card_screen, s);
    result = gpu_begin(&s->gpu, dev, &s->screen, s->xres, s->yres, s->max_hostmem, err);
    return result ? result : virtio_transport_attach(dev, &s->gpu.virtio, GPU_CLASS_DISPLAY, err);
}

static void card_detach(struct device *dev)
{
    struct virtio_gpu *s = card_of(dev);

    screen_done(&s->screen);
    virtio_transport_detach(dev);
    gpu_end(&s->gpu);
}

static void card_reset(struct device *dev)
{
    virtio_transport_reset(dev);
}

static void card_quiesce(struct device *dev)
{
    gpu_quiesce(&card_of(dev)->gpu);
}

static void card_resume(struct device *dev)
{
    gpu_resume(&card_of(dev)->gpu);
}

static int card_after_load(void *object, struct error *err)
{
    return gpu_after_load(&card_of(object)->gpu, err);
}

#define CARD_PROPERTIES                                                                            \
    PROPERTY_U16(struct virtio_gpu, xres, 1024, "width that the monitor likes best, pixels"),      \
        PROPERTY_U16(struct virtio_gpu, yres, 768, "height that the monitor likes best, pixels"),  \
        PROPERTY_U64(struct virtio_gpu, max_hostmem, GPU_DEFAULT_BLOCK, GPU_BLOCK_HELP),           \
        PROPERTY_END

#define CARD_STATE STATE_STRUCT(struct virtio_gpu, gpu, gpu_state), STATE_END

VIRTIO_TABLES(card, struct virtio_gpu, CARD_PROPERTIES, CARD_STATE);

#define CARD_CALLS                                                                                 \
    .instance_size = sizeof(struct virtio_gpu), .attach = card_attach, .reset = card_reset,        \
    .reset_done = virtio_transport_reset_done, .detach = card_detach, .quiesce = card_quiesce,     \
    .resume = card_resume

const struct device_class virtio_gpu_class = {
    .name = "virtio-gpu",
    .summary = "virtio graphics card on PCI, without a VGA",
    .bus = BUS_PCI,
    .properties = card_properties,
    .state = {.version = 1, .oldest = 1, .fields = card_state, .after_load = card_after_load},
    CARD_CALLS,
};

const struct device_class virtio_gpu_mmio_class = {
    .name = "virtio-gpu-mmio",
    .summary = "virtio graphics card without PCI",
    .bus = BUS_PLATFORM,
    .properties = card_mmio_properties,
    .state = {.version = 1, .oldest = 1, .fields = card_mmio_state, .after_load = card_after_load},
    CARD_CALLS,
};
