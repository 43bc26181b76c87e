/*
 * test_virtio_9p.c - the virtio 9P device, driven by a guest's driver; its share is a real process
 */
#include "cmocka_all.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "devices/devices.h"
#include "devices/virtio/transport_pci.h"
#include "trapeze/share.h"
#include "virtio_driver.h"

#define SLOT      3
#define RAM_BYTES (4u << 20)
#define V1        VIRTIO_F_VERSION_1
#define MESSAGE   0x100000u /* GPA */
#define ANSWER    0x180000u

static const uint8_t version[] = "\x15\0\0\0\x64\1\0\0\0\x10\0\x08\0009P2000.L";
static const uint8_t attach[] = "\x1b\0\0\0\x68\2\0\0\0\0\0\xff\xff\xff\xff\4\0root\0\0\0\0\0\0";
static const uint8_t getattr[] = "\x13\0\0\0\x18\3\0\0\0\0\0\xff\7\0\0\0\0\0\0";

static struct {
    char folder[64];
    struct device_test *t;
    struct device *dev;
    struct share *share;
    struct virtio_driver d;
    struct driver_queue q;
} f;

static int set_up(void **state)
{
    struct error err = {0};

    (void)state;
    memset(&f, 0, sizeof(f));
    strcpy(f.folder, "/tmp/trapeze-9p-XXXXXX");
    assert_non_null(mkdtemp(f.folder));
    f.share = share_open(f.folder, "things", true, &err);
    assert_non_null(f.share);
    f.t = device_test_new(RAM_BYTES);
    device_test_add(f.t, &pci_host_class, "ecam=0xe0000000");
    f.dev = device_test_create(f.t, &virtio_9p_class, "addr=3");
    assert_int_equal(device_set_pointer(f.dev, "share", f.share, &err), 0);
    device_test_attach(f.dev);
    device_test_start(f.t);
    virtio_driver_find(&f.d, f.t, SLOT);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    machine_free(f.t->machine);
    f.t->machine = NULL;
    share_free(f.share);
    device_test_free(f.t);
    rmdir(f.folder);
    return 0;
}

static void start(uint64_t features)
{
    virtio_driver_begin(&f.d, V1 | features, &f.q, 1, 16);
    assert_int_equal(driver_status(&f.d), 0x0f);
}

static void put_message(const uint8_t *message, uint32_t size, unsigned tag)
{
    struct driver_buffer buffers[3] = {{MESSAGE + tag * 256, 7, false},
                                       {MESSAGE + tag * 256 + 7, size - 7, false},
                                       {ANSWER + tag * 256, 200, true}};

    memcpy(f.t->ram.hva + MESSAGE + tag * 256, message, size);
    driver_queue_add(&f.q, buffers, 3);
}

/* The answer's type; its contents are at ANSWER. */
static unsigned ask(const uint8_t *message, uint32_t size)
{
    unsigned tag = message[5];
    uint16_t id;
    uint32_t length;

    put_message(message, size, tag);
    driver_queue_kick(&f.q);
    driver_queue_wait(&f.q, &id, &length);
    assert_int_equal(test_read(f.t, ANSWER + tag * 256, 4), length);
    assert_int_equal(test_read(f.t, ANSWER + tag * 256 + 5, 2), tag);
    return (unsigned)test_read(f.t, ANSWER + tag * 256 + 4, 1);
}
#define ASK(message) ask(message, sizeof(message) - 1)

static void configuration_has_the_tag(void **state)
{
    (void)state;
    assert_true(virtio_driver_offered(&f.d) & 1);
    start(1);
    assert_int_equal(test_read(f.t, f.d.config, 2), 6);
    assert_int_equal(test_read(f.t, f.d.config + 2, 2), 't' | 'h' << 8);
}

static void messages_are_answered_on(uint64_t rings)
{
    start(1 | rings);
    assert_int_equal(ASK(version), 101);
    assert_int_equal(ASK(attach), 105);
    assert_int_equal(ASK(getattr), 25);
    assert_int_equal(test_read(f.t, ANSWER + 3 * 256 + 7 + 8 + 13, 4), S_IFDIR | 0700);
    device_test_round_trip(f.t, f.dev);
}

static void messages_are_answered(void **state)
{
    (void)state;
    messages_are_answered_on(0);
}

static void messages_are_answered_on_packed_rings(void **state)
{
    (void)state;
    messages_are_answered_on(VIRTIO_F_RING_PACKED | VIRTIO_F_EVENT_IDX);
}

static void fids_are_state(void **state)
{
    const struct state_table *table = &f.dev->class->state;
    struct state_buffer saved = {0};
    struct error err = {0};
    uint8_t *at;

    (void)state;
    start(1);
    assert_int_equal(ASK(version), 101);
    assert_int_equal(ASK(attach), 105);
    device_test_round_trip(f.t, f.dev);
    assert_int_equal(ASK(getattr), 25);
    assert_int_equal(state_save(table, f.dev, &saved, &err), 0);
    at = memmem(saved.data, saved.size_bytes, "\x04open", 5);
    assert_non_null(at);
    at[5 + 8 + 4 + 4] = 9; /* behind its head, the session, and the fid's number: no such kind */
    assert_int_equal(state_load(table, f.dev, saved.data, saved.size_bytes, &err), -EINVAL);
    assert_non_null(strstr(err.text, "it cannot have open what is saved"));
    assert_int_equal(ASK(getattr), 25); /* nothing has changed */
    free(saved.data);
}

static void a_reset_forgets_fids(void **state)
{
    (void)state;
    start(1);
    assert_int_equal(ASK(version), 101);
    assert_int_equal(ASK(attach), 105);
    start(1);
    assert_int_equal(ASK(getattr), 7);
    assert_int_equal(test_read(f.t, ANSWER + 3 * 256 + 7, 4), EPROTO);
}

static void a_reset_waits_for_what_is_under_way(void **state)
{
    (void)state;
    start(1);
    assert_int_equal(ASK(version), 101);
    put_message(attach, sizeof(attach) - 1, 2);
    put_message(getattr, sizeof(getattr) - 1, 3);
    driver_queue_kick(&f.q);
    start(1);
    assert_int_equal(ASK(version), 101);
    assert_int_equal(ASK(attach), 105);
}

static void a_chain_without_room_breaks_the_device(void **state)
{
    struct driver_buffer buffers[2] = {{MESSAGE, 7, false}, {ANSWER, 10, true}};

    (void)state;
    start(1);
    driver_queue_add(&f.q, buffers, 2);
    driver_queue_kick(&f.q);
    assert_true(driver_is_broken(&f.d));
    start(1);
    assert_int_equal(ASK(version), 101);
}

/* The guest has broken it, or the host has no memory. */
static void without_a_server_messages_are_errors(void **state)
{
    FILE *children;
    char path[64];
    int process = 0;

    (void)state;
    start(1);
    assert_int_equal(ASK(version), 101);
    snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
    children = fopen(path, "r");
    if (!children)
        skip();
    assert_int_equal(fscanf(children, "%d", &process), 1);
    fclose(children);
    assert_int_equal(kill(process, SIGKILL), 0);
    assert_int_equal(ASK(attach), 7);
    assert_int_equal(test_read(f.t, ANSWER + 2 * 256 + 7, 4), EIO);
    assert_int_equal(ASK(attach), 7);
    device_test_reset(f.t);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(configuration_has_the_tag),
        TEST(messages_are_answered),
        TEST(messages_are_answered_on_packed_rings),
        TEST(fids_are_state),
        TEST(a_reset_forgets_fids),
        TEST(a_reset_waits_for_what_is_under_way),
        TEST(a_chain_without_room_breaks_the_device),
        TEST(without_a_server_messages_are_errors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
