/*
 * test_virtio_gpu.c - the virtio graphics card, driven by a guest's driver
 */
#include "cmocka_all.h"

#include "base/bytes.h"
#include "devices/devices.h"
#include "devices/virtio/gpu.h"
#include "virtio_driver.h"

#define SLOT             3
#define RAM              (4u << 20)
#define PAGE             4096u
#define REQUEST          0x80000u
#define RESPONSE         0x90000u
#define RESPONSE_BYTES   1056u
#define PICTURE          0x200000u
#define F_EDID           (1ull << 1)

#define GET_DISPLAY_INFO 0x100u
#define CREATE           0x101u
#define UNREF            0x102u
#define SET_SCANOUT      0x103u
#define FLUSH            0x104u
#define TRANSFER         0x105u
#define ATTACH           0x106u
#define DETACH           0x107u
#define GET_EDID         0x10au
#define UPDATE_CURSOR    0x300u
#define MOVE_CURSOR      0x301u
#define OK               0x1100u
#define BGRX             2u

struct fixture {
    struct device_test *t;
    struct device *card;
    struct virtio_driver d;
    struct driver_queue q[2];
    struct screen *screen;
    struct screen_viewer viewer;
    struct screen_surface surface;
    struct screen_rect rect; /* the last that changed */
    unsigned changes, moves;
    struct screen_cursor cursor;
    int32_t cursor_x, cursor_y;
};

static struct fixture f;

/* ---- a viewer ---- */

static void on_resized(void *opaque, const struct screen_surface *surface)
{
    (void)opaque;
    f.surface = *surface;
}

static void on_changed(void *opaque, const struct screen_rect *rect)
{
    (void)opaque;
    f.rect = *rect;
    f.changes++;
}

static void on_cursor_changed(void *opaque, const struct screen_cursor *cursor)
{
    (void)opaque;
    f.cursor = *cursor;
}

static void on_cursor_moved(void *opaque, int32_t x, int32_t y)
{
    (void)opaque;
    f.cursor_x = x;
    f.cursor_y = y;
}

static const struct screen_viewer_ops viewer_ops = {.resized = on_resized,
                                                    .changed = on_changed,
                                                    .cursor_changed = on_cursor_changed,
                                                    .cursor_moved = on_cursor_moved};

static void look(void)
{
    f.changes = 0;
    screen_refresh(f.screen);
}

static uint32_t pixel(uint32_t x, uint32_t y)
{
    return f.surface.pixels[(size_t)y * f.surface.stride + x];
}

/* ---- a driver ---- */

static void open_fixture(const struct device_class *class, const char *properties)
{
    f = (struct fixture){.t = device_test_new(RAM)};
    device_test_add(f.t, &pci_host_class, "ecam=0xe0000000");
    f.card = device_test_add(f.t, class, properties);
    device_test_start(f.t);
    f.screen = display_screen(machine_display(f.t->machine), 0);
    f.viewer = (struct screen_viewer){.ops = &viewer_ops};
    assert_int_equal(screen_attach(f.screen, &f.viewer, NULL), 0);
    virtio_driver_find(&f.d, f.t, SLOT);
    virtio_driver_begin(&f.d, VIRTIO_F_VERSION_1 | F_EDID, f.q, 2, 64);
}

static int set_up(void **state)
{
    (void)state;
    open_fixture(&virtio_gpu_class, "addr=3,max-hostmem=1M");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    device_test_free(f.t);
    return 0;
}

static uint8_t *ram(uint64_t gpa)
{
    return f.t->ram.hva + gpa;
}

/* A command of words behind the head; what the device answers. */
static uint32_t send_words(unsigned queue, uint32_t type, const uint32_t *words, unsigned count)
{
    struct driver_buffer buffers[] = {{REQUEST, 24 + 4 * count, false},
                                      {RESPONSE, RESPONSE_BYTES, true}};
    uint16_t id;
    uint32_t length = 0;

    memset(ram(REQUEST), 0, 24);
    memset(ram(RESPONSE), 0xaa, RESPONSE_BYTES);
    put_le32(ram(REQUEST), type);
    for (unsigned n = 0; n < count; n++)
        put_le32(ram(REQUEST + 24 + 4 * n), words[n]);
    driver_queue_add(&f.q[queue], buffers, 2);
    driver_queue_kick(&f.q[queue]);
    assert_true(driver_queue_take(&f.q[queue], &id, &length));
    assert_true(length >= 24);
    return get_le32(ram(RESPONSE));
}

#define SEND(type, ...)                                                                            \
    send_words(0, type, (const uint32_t[]){__VA_ARGS__},                                           \
               sizeof((const uint32_t[]){__VA_ARGS__}) / 4)
#define SEND_CURSOR(type, ...)                                                                     \
    send_words(1, type, (const uint32_t[]){__VA_ARGS__},                                           \
               sizeof((const uint32_t[]){__VA_ARGS__}) / 4)

static uint32_t colour(uint32_t x, uint32_t y)
{
    return (x * 0x30507 + y * 0x1030b + 0x123) & 0xffffff;
}

/* In the guest's memory, as BGRX with something in X. */
static void paint(uint64_t gpa, uint32_t width, uint32_t height)
{
    for (uint32_t y = 0; y < height; y++)
        for (uint32_t x = 0; x < width; x++)
            put_le32(ram(gpa + 4 * ((size_t)y * width + x)), colour(x, y) | 0x5a000000);
}

/* Resource 1 with its backing in one piece, filled and shown. */
static void show(uint32_t width, uint32_t height)
{
    paint(PICTURE, width, height);
    assert_int_equal(SEND(CREATE, 1, BGRX, width, height), OK);
    assert_int_equal(SEND(ATTACH, 1, 1, PICTURE, 0, 4 * width * height, 0), OK);
    assert_int_equal(SEND(TRANSFER, 0, 0, width, height, 0, 0, 1, 0), OK);
    assert_int_equal(SEND(SET_SCANOUT, 0, 0, width, height, 0, 1), OK);
    assert_int_equal(SEND(FLUSH, 0, 0, width, height, 1, 0), OK);
}

static void expect_picture(uint32_t left, uint32_t top, uint32_t width, uint32_t height)
{
    look();
    assert_int_equal(f.surface.width, width);
    assert_int_equal(f.surface.height, height);
    for (uint32_t y = 0; y < height; y++)
        for (uint32_t x = 0; x < width; x++)
            assert_int_equal(pixel(x, y), colour(left + x, top + y));
}

/* ---- pictures ---- */

static void a_resource_is_shown(void **state)
{
    (void)state;
    look();
    assert_int_equal(f.surface.width, 1024);
    assert_int_equal(f.surface.height, 768);
    assert_int_equal(pixel(5, 5), 0);
    show(320, 200);
    expect_picture(0, 0, 320, 200);
    look();
    assert_int_equal(f.changes, 0);
    assert_int_equal(SEND(SET_SCANOUT, 10, 20, 100, 50, 0, 1), OK);
    expect_picture(10, 20, 100, 50);
    assert_int_equal(SEND(SET_SCANOUT, 0, 0, 0, 0, 0, 0), OK);
    look();
    assert_int_equal(f.surface.width, 1024);
    assert_int_equal(pixel(5, 5), 0);
}

static void what_is_flushed_and_differs_is_told(void **state)
{
    uint32_t before;

    (void)state;
    show(64, 64);
    look();
    before = pixel(7, 9);
    put_le32(ram(PICTURE + 4 * (64 * 9 + 7)), 0xffffff);
    assert_int_equal(SEND(TRANSFER, 0, 0, 64, 64, 0, 0, 1, 0), OK);
    look();
    assert_int_equal(pixel(7, 9), before); /* not flushed */
    assert_int_equal(SEND(FLUSH, 0, 8, 64, 4, 1, 0), OK);
    look();
    assert_int_equal(f.changes, 1);
    assert_int_equal(f.rect.x, 7);
    assert_int_equal(f.rect.y, 9);
    assert_int_equal(f.rect.width, 1);
    assert_int_equal(f.rect.height, 1);
    assert_int_equal(pixel(7, 9), 0xffffff);
    assert_int_equal(SEND(FLUSH, 0, 0, 64, 64, 1, 0), OK);
    look();
    assert_int_equal(f.changes, 0);
}

static void an_area_is_filled_from_an_offset(void **state)
{
    (void)state;
    show(64, 64);
    look();
    memset(ram(PICTURE), 0x11, 4 * 64 * 64);
    assert_int_equal(SEND(TRANSFER, 8, 16, 4, 2, 4 * (16 * 64 + 8), 0, 1, 0), OK);
    assert_int_equal(SEND(FLUSH, 0, 0, 64, 64, 1, 0), OK);
    look();
    assert_int_equal(f.rect.x, 8);
    assert_int_equal(f.rect.y, 16);
    assert_int_equal(f.rect.width, 4);
    assert_int_equal(f.rect.height, 2);
    assert_int_equal(pixel(8, 16), 0x111111);
    assert_int_equal(pixel(11, 17), 0x111111);
}

/* Pages in any order, of which pieces begin and end anywhere. */
static void a_backing_has_pieces(void **state)
{
    const uint32_t sizes[] = {1000, 4096, 24, 8192, 3072};
    uint32_t words[2 + 4 * 5] = {1, 5};
    uint64_t at = PICTURE, place = 0x300000;

    (void)state;
    paint(PICTURE, 64, 64);
    for (unsigned n = 0; n < 5; n++) {
        place -= sizes[n];
        memcpy(ram(place), ram(at), sizes[n]);
        at += sizes[n];
        words[2 + 4 * n] = (uint32_t)place;
        words[2 + 4 * n + 2] = sizes[n];
    }
    assert_int_equal(SEND(CREATE, 1, BGRX, 64, 64), OK);
    assert_int_equal(send_words(0, ATTACH, words, 22), OK);
    memset(ram(PICTURE), 0, 4 * 64 * 64);
    assert_int_equal(SEND(TRANSFER, 0, 0, 64, 64, 0, 0, 1, 0), OK);
    assert_int_equal(SEND(SET_SCANOUT, 0, 0, 64, 64, 0, 1), OK);
    expect_picture(0, 0, 64, 64);
    assert_int_equal(SEND(TRANSFER, 1, 1, 62, 62, 4 * 65, 0, 1, 0), OK);
    assert_int_equal(SEND(FLUSH, 0, 0, 64, 64, 1, 0), OK);
    expect_picture(0, 0, 64, 64);
}

static void formats_are_orders_of_bytes(void **state)
{
    static const struct {
        uint32_t format;
        uint8_t bytes[4];
    } formats[] = {
        {1, {0x33, 0x22, 0x11, 0x7f}},   {2, {0x33, 0x22, 0x11, 0x7f}},
        {3, {0x7f, 0x11, 0x22, 0x33}},   {4, {0x7f, 0x11, 0x22, 0x33}},
        {67, {0x11, 0x22, 0x33, 0x7f}},  {68, {0x7f, 0x33, 0x22, 0x11}},
        {121, {0x7f, 0x33, 0x22, 0x11}}, {134, {0x11, 0x22, 0x33, 0x7f}},
    };

    (void)state;
    for (unsigned n = 0; n < sizeof(formats) / sizeof(formats[0]); n++) {
        for (unsigned at = 0; at < 4 * 16; at++)
            *ram(PICTURE + at) = formats[n].bytes[at % 4];
        assert_int_equal(SEND(CREATE, 1, formats[n].format, 4, 4), OK);
        assert_int_equal(SEND(ATTACH, 1, 1, PICTURE, 0, 64, 0), OK);
        assert_int_equal(SEND(TRANSFER, 0, 0, 4, 4, 0, 0, 1, 0), OK);
        assert_int_equal(SEND(SET_SCANOUT, 0, 0, 4, 4, 0, 1), OK);
        look();
        assert_int_equal(pixel(3, 3), 0x112233);
        assert_int_equal(SEND_CURSOR(UPDATE_CURSOR, 0, 0, 0, 0, 1, 0, 0, 0), OK);
        assert_int_equal(f.cursor.pixels[3], 0x7f112233);
        assert_int_equal(SEND(UNREF, 1, 0), OK);
    }
}

static void a_resource_that_goes_is_shown_no_more(void **state)
{
    uint64_t before = memory_used_bytes(machine_memory(f.t->machine)), with;

    (void)state;
    memset(ram(PICTURE), 1, 4 * 128 * 128);
    before = memory_used_bytes(machine_memory(f.t->machine));
    show(128, 128);
    with = memory_used_bytes(machine_memory(f.t->machine));
    assert_true(with >= before + 4 * 128 * 128);
    assert_int_equal(SEND(UNREF, 1, 0), OK);
    look();
    assert_int_equal(f.surface.width, 1024);
    assert_true(memory_used_bytes(machine_memory(f.t->machine)) <= with - 4 * 128 * 128);
    assert_int_equal(SEND(CREATE, 1, BGRX, 128, 128), OK); /* which is black */
    assert_int_equal(SEND(SET_SCANOUT, 0, 0, 128, 128, 0, 1), OK);
    look();
    assert_int_equal(pixel(64, 64), 0);
}

/* ---- errors ---- */

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    show(64, 64);
    assert_int_equal(SEND(CREATE, 0, BGRX, 8, 8), GPU_ERROR_RESOURCE);
    assert_int_equal(SEND(CREATE, 1, BGRX, 8, 8), GPU_ERROR_RESOURCE);
    assert_int_equal(SEND(CREATE, 2, 5, 8, 8), GPU_ERROR_PARAMETER);
    assert_int_equal(SEND(CREATE, 2, BGRX, 0, 8), GPU_ERROR_PARAMETER);
    assert_int_equal(SEND(CREATE, 2, BGRX, 8, 16385), GPU_ERROR_PARAMETER);
    assert_int_equal(SEND(UNREF, 2, 0), GPU_ERROR_RESOURCE);
    assert_int_equal(SEND(SET_SCANOUT, 0, 0, 64, 64, 1, 1), GPU_ERROR_SCANOUT);
    assert_int_equal(SEND(SET_SCANOUT, 0, 0, 64, 64, 0, 2), GPU_ERROR_RESOURCE);
    assert_int_equal(SEND(SET_SCANOUT, 1, 0, 64, 64, 0, 1), GPU_ERROR_PARAMETER);
    assert_int_equal(SEND(SET_SCANOUT, 0, ~0u, 64, 2, 0, 1), GPU_ERROR_PARAMETER);
    assert_int_equal(SEND(FLUSH, 0, 0, 65, 64, 1, 0), GPU_ERROR_PARAMETER);
    assert_int_equal(SEND(FLUSH, 0, 0, 0, 64, 1, 0), GPU_ERROR_PARAMETER);
    assert_int_equal(SEND(FLUSH, 0, 0, 64, 64, 9, 0), GPU_ERROR_RESOURCE);
    assert_int_equal(SEND(TRANSFER, 0, 63, 64, 2, 0, 0, 1, 0), GPU_ERROR_PARAMETER);
    assert_int_equal(SEND(TRANSFER, 0, 0, 64, 64, ~0u, ~0u, 1, 0), GPU_ERROR_PARAMETER);
    assert_int_equal(SEND(TRANSFER, 0, 0, 64, 64, 0, 0, 2, 0), GPU_ERROR_RESOURCE);
    assert_int_equal(SEND(ATTACH, 1, 1, PICTURE, 0, 64, 0), GPU_ERROR_UNSPECIFIED);
    assert_int_equal(SEND(ATTACH, 2, 1, PICTURE, 0, 64, 0), GPU_ERROR_RESOURCE);
    assert_int_equal(SEND(DETACH, 1, 0), OK);
    assert_int_equal(SEND(DETACH, 2, 0), GPU_ERROR_RESOURCE);
    assert_int_equal(SEND(TRANSFER, 0, 0, 64, 64, 0, 0, 1, 0), GPU_ERROR_UNSPECIFIED);
    assert_int_equal(SEND(ATTACH, 1, 0), GPU_ERROR_PARAMETER);
    assert_int_equal(SEND(ATTACH, 1, 2, PICTURE, 0, 64, 0), GPU_ERROR_PARAMETER);
    assert_int_equal(SEND(ATTACH, 1, ~0u, PICTURE, 0, 64, 0), GPU_ERROR_PARAMETER);
    assert_int_equal(SEND(ATTACH, 1, 1, 0xc0000000, 0, 64 * 64 * 4, 0), OK);
    assert_int_equal(SEND(TRANSFER, 0, 0, 64, 64, 0, 0, 1, 0), GPU_ERROR_PARAMETER);
    assert_int_equal(SEND(CREATE, 3), GPU_ERROR_PARAMETER);
    assert_int_equal(SEND(0x777, 0), GPU_ERROR_UNSPECIFIED);
    assert_int_equal(SEND(MOVE_CURSOR, 0, 1, 1, 0, 0, 0, 0, 0), GPU_ERROR_UNSPECIFIED);
    assert_int_equal(SEND(GET_EDID, 1, 0), GPU_ERROR_SCANOUT);
    assert_int_equal(SEND_CURSOR(UPDATE_CURSOR, 0, 0, 0, 0, 7, 0, 0, 0), GPU_ERROR_RESOURCE);
    expect_picture(0, 0, 64, 64);
}

static void memory_is_limited(void **state)
{
    unsigned count = 0;
    uint32_t result;

    (void)state;
    assert_int_equal(SEND(CREATE, 1, BGRX, 1024, 257), GPU_ERROR_MEMORY);
    assert_int_equal(SEND(CREATE, 1, BGRX, 1024, 256), OK); /* 1 MiB */
    assert_int_equal(SEND(CREATE, 2, BGRX, 1, 1), GPU_ERROR_MEMORY);
    assert_int_equal(SEND(ATTACH, 1, 1, PICTURE, 0, 64, 0), GPU_ERROR_MEMORY);
    assert_int_equal(SEND(UNREF, 1, 0), OK);
    do
        result = SEND(CREATE, ++count, BGRX, 1, 1);
    while (result == OK);
    assert_int_equal(result, GPU_ERROR_MEMORY);
    assert_int_equal(count, GPU_MAX_RESOURCES + 1);
    assert_int_equal(SEND(UNREF, 9, 0), OK); /* the gap is found */
    assert_int_equal(SEND(CREATE, 1000, BGRX, 32, 32), OK);
}

/* ---- monitor and cursor ---- */

static void the_monitor_is_described(void **state)
{
    const uint8_t *edid = ram(RESPONSE + 32);
    uint8_t sum = 0;

    (void)state;
    assert_int_equal(driver_config_read(&f.d, 0, 4), 0x10501af4);
    assert_int_equal(test_read(f.t, f.d.config + 8, 4), 1);
    assert_int_equal(SEND(GET_DISPLAY_INFO, 0), 0x1101);
    assert_int_equal(get_le32(ram(RESPONSE + 24 + 8)), 1024);
    assert_int_equal(get_le32(ram(RESPONSE + 24 + 12)), 768);
    assert_int_equal(get_le32(ram(RESPONSE + 24 + 16)), 1);
    assert_int_equal(get_le32(ram(RESPONSE + 48 + 16)), 0);
    assert_int_equal(SEND(GET_EDID, 0, 0), 0x1104);
    assert_int_equal(get_le32(ram(RESPONSE + 24)), 128);
    for (unsigned n = 0; n < 128; n++)
        sum = (uint8_t)(sum + edid[n]);
    assert_int_equal(sum, 0);
    assert_int_equal(edid[54 + 2] | (edid[54 + 4] & 0xf0) << 4, 1024);
}

static void a_viewer_wants_another_size(void **state)
{
    unsigned messages;

    (void)state;
    virtio_driver_use_msix(&f.d);
    driver_write(&f.d, COMMON_CONFIG_VECTOR, 0, 2);
    messages = f.t->msi_count;
    assert_false(screen_want_size(f.screen, 0, 600));
    assert_true(screen_want_size(f.screen, 800, 600));
    assert_int_equal(f.t->msi_count, messages + 1);
    assert_true(screen_want_size(f.screen, 800, 600));
    assert_int_equal(f.t->msi_count, messages + 1);
    assert_int_equal(test_read(f.t, f.d.config, 4), 1);
    device_test_round_trip(f.t, f.card);
    test_write(f.t, f.d.config + 4, 1, 4);
    assert_int_equal(test_read(f.t, f.d.config, 4), 0);
    assert_int_equal(SEND(GET_DISPLAY_INFO, 0), 0x1101);
    assert_int_equal(get_le32(ram(RESPONSE + 24 + 8)), 800);
    assert_int_equal(get_le32(ram(RESPONSE + 24 + 12)), 600);
}

static void the_cursor_is_the_viewers(void **state)
{
    (void)state;
    paint(PICTURE, 64, 64);
    assert_int_equal(SEND(CREATE, 2, 1, 64, 64), OK);
    assert_int_equal(SEND(ATTACH, 2, 1, PICTURE, 0, 4 * 64 * 64, 0), OK);
    assert_int_equal(SEND(TRANSFER, 0, 0, 64, 64, 0, 0, 2, 0), OK);
    assert_int_equal(SEND_CURSOR(UPDATE_CURSOR, 0, 100, 50, 0, 2, 3, 99, 0), OK);
    assert_int_equal(f.cursor.width, 64);
    assert_int_equal(f.cursor.hot_x, 3);
    assert_int_equal(f.cursor.hot_y, 63);
    assert_int_equal(f.cursor.pixels[64 * 5 + 4], 0x5a000000 | colour(4, 5));
    assert_int_equal(f.cursor_x, 100);
    assert_int_equal(f.cursor_y, 50);
    assert_int_equal(SEND_CURSOR(MOVE_CURSOR, 0, (uint32_t)-5, 7, 0, 0, 0, 0, 0), OK);
    assert_int_equal(f.cursor_x, -5);
    assert_int_equal(f.cursor.width, 64);
    assert_int_equal(SEND_CURSOR(UPDATE_CURSOR, 0, 1, 1, 0, 0, 0, 0, 0), OK);
    assert_int_equal(f.cursor.width, 0);
}

/* ---- queues and states ---- */

static void a_fence_is_given_back(void **state)
{
    struct driver_buffer buffers[] = {{REQUEST, 24, false}, {RESPONSE, 408, true}};
    uint16_t id;
    uint32_t length;

    (void)state;
    memset(ram(REQUEST), 0, 24);
    put_le32(ram(REQUEST), GET_DISPLAY_INFO);
    put_le32(ram(REQUEST + 4), 1);
    put_le64(ram(REQUEST + 8), 0x123456789a);
    driver_queue_add(&f.q[0], buffers, 2);
    driver_queue_kick(&f.q[0]);
    assert_true(driver_queue_take(&f.q[0], &id, &length));
    assert_int_equal(length, 408);
    assert_int_equal(get_le32(ram(RESPONSE + 4)), 1);
    assert_int_equal(get_le64(ram(RESPONSE + 8)), 0x123456789a);
}

static void a_command_without_room_for_an_answer_is_done(void **state)
{
    struct driver_buffer request = {REQUEST, 56, false};
    uint16_t id;
    uint32_t length = 1;

    (void)state;
    memset(ram(REQUEST), 0, 56);
    put_le32(ram(REQUEST), MOVE_CURSOR);
    put_le32(ram(REQUEST + 28), 77);
    driver_queue_add(&f.q[1], &request, 1);
    driver_queue_kick(&f.q[1]);
    assert_true(driver_queue_take(&f.q[1], &id, &length));
    assert_int_equal(length, 0);
    assert_int_equal(f.cursor_x, 77);
}

static void a_state_has_resources_and_what_is_shown(void **state)
{
    (void)state;
    show(64, 64);
    look();
    device_test_round_trip(f.t, f.card);
    expect_picture(0, 0, 64, 64);
    assert_int_equal(f.changes, 0);
    memset(ram(PICTURE), 0x22, 4 * 64 * 64);
    assert_int_equal(SEND(TRANSFER, 0, 0, 64, 64, 0, 0, 1, 0), OK); /* its backing, too */
    assert_int_equal(SEND(FLUSH, 0, 0, 64, 64, 1, 0), OK);
    look();
    assert_int_equal(pixel(63, 63), 0x222222);
    device_test_reset(f.t);
    look();
    assert_int_equal(f.surface.width, 1024);
}

static void changes_are_known_to_the_dirty_bitmap(void **state)
{
    struct memory *memory = machine_memory(f.t->machine);
    uint8_t bits[64] = {0};
    bool found = false;

    (void)state;
    show(64, 64);
    assert_int_equal(memory_dirty_start(memory, NULL), 0);
    assert_int_equal(SEND(TRANSFER, 0, 0, 64, 64, 0, 0, 1, 0), OK);
    memory_dirty_fetch(memory, RAM / PAGE, 512, bits);
    for (unsigned n = 0; n < sizeof(bits); n++)
        found |= bits[n] != 0;
    assert_true(found);
}

static void a_pause_puts_commands_off(void **state)
{
    struct driver_buffer request = {REQUEST, 40, false};
    uint16_t id;
    uint32_t length;

    (void)state;
    f.card->class->quiesce(f.card);
    memset(ram(REQUEST), 0, 40);
    put_le32(ram(REQUEST), CREATE);
    driver_queue_add(&f.q[0], &request, 1);
    driver_queue_kick(&f.q[0]);
    assert_false(driver_queue_take(&f.q[0], &id, &length));
    f.card->class->resume(f.card);
    device_test_advance_ns(f.t, 1);
    assert_true(driver_queue_take(&f.q[0], &id, &length));
}

/* ---- other kinds of card ---- */

static void it_is_a_vga_until_a_driver_shows_something(void **state)
{
    (void)state;
    device_test_free(f.t);
    open_fixture(&virtio_vga_class, "addr=3,xres=800,yres=600");
    assert_int_equal(driver_config_read(&f.d, 8, 4) >> 8, 0x030000);
    test_outw(f.t, 0x1ce, 1); /* 640x480 with 32 bits a pixel */
    test_outw(f.t, 0x1d0, 640);
    test_outw(f.t, 0x1ce, 2);
    test_outw(f.t, 0x1d0, 480);
    test_outw(f.t, 0x1ce, 3);
    test_outw(f.t, 0x1d0, 32);
    test_outw(f.t, 0x1ce, 4);
    test_outw(f.t, 0x1d0, 0x41);
    test_inb(f.t, 0x3da);
    test_outb(f.t, 0x3c0, 0x20);
    test_write(f.t, driver_config_read(&f.d, 0x10, 4) & ~15u, 0x445566, 4);
    look();
    assert_int_equal(f.surface.width, 640);
    assert_int_equal(pixel(0, 0), 0x445566);
    show(64, 64);
    expect_picture(0, 0, 64, 64);
    device_test_round_trip(f.t, f.card);
    expect_picture(0, 0, 64, 64);
    assert_int_equal(SEND(GET_DISPLAY_INFO, 0), 0x1101);
    assert_int_equal(get_le32(ram(RESPONSE + 24 + 8)), 800);
    driver_write(&f.d, COMMON_STATUS, 0, 1); /* the driver goes */
    look();
    assert_int_equal(f.surface.width, 640);
    assert_int_equal(pixel(0, 0), 0x445566);
}

static void without_pci_it_is_the_same(void **state)
{
    (void)state;
    device_test_free(f.t);
    f = (struct fixture){.t = device_test_new(RAM)};
    device_test_add(f.t, &virtio_mmio_bus_class, "gpa=0xfec10000");
    f.card = device_test_add(f.t, &virtio_gpu_mmio_class, NULL);
    device_test_start(f.t);
    f.screen = display_screen(machine_display(f.t->machine), 0);
    f.viewer = (struct screen_viewer){.ops = &viewer_ops};
    assert_int_equal(screen_attach(f.screen, &f.viewer, NULL), 0);
    virtio_driver_find_mmio(&f.d, f.t, 0xfec10000);
    virtio_driver_begin(&f.d, VIRTIO_F_VERSION_1, f.q, 2, 64);
    show(64, 64);
    expect_picture(0, 0, 64, 64);
    device_test_round_trip(f.t, f.card);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_resource_is_shown),
        TEST(what_is_flushed_and_differs_is_told),
        TEST(an_area_is_filled_from_an_offset),
        TEST(a_backing_has_pieces),
        TEST(formats_are_orders_of_bytes),
        TEST(a_resource_that_goes_is_shown_no_more),
        TEST(what_cannot_be_is_refused),
        TEST(memory_is_limited),
        TEST(the_monitor_is_described),
        TEST(a_viewer_wants_another_size),
        TEST(the_cursor_is_the_viewers),
        TEST(a_fence_is_given_back),
        TEST(a_command_without_room_for_an_answer_is_done),
        TEST(a_state_has_resources_and_what_is_shown),
        TEST(changes_are_known_to_the_dirty_bitmap),
        TEST(a_pause_puts_commands_off),
        TEST(it_is_a_vga_until_a_driver_shows_something),
        TEST(without_pci_it_is_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
