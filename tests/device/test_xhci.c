/*
 * test_xhci.c - the xHCI controller and the devices on it, driven by a guest's driver
 */
#include "cmocka_all.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "devices/devices.h"
#include "disk_test.h"
#include "trapeze/block.h"
#include "trapeze/input.h"
#include "xhci_driver.h"

#define RAM_BYTES     (4u << 20)
#define DISK_BYTES    (2u << 20)
#define DATA          (XHCI_DATA_AREA + 0x1000)
#define STICK_PORT    1u
#define KEYBOARD_PORT 5u
#define TABLET_PORT   6u
#define MOUSE_PORT    7u

static struct {
    struct device_test *t;
    struct device *host, *xhci, *stick, *keyboard, *tablet, *mouse;
    struct test_irq intx;
    struct block *disk;
    char path[64];
    struct xhci_driver d;
} f;

static void add_stick(void)
{
    struct error err = {0};

    f.stick = device_test_create(f.t, &usb_storage_class, "serial=S1");
    assert_int_equal(device_set_pointer(f.stick, "drive", f.disk, &err), 0);
    device_test_attach(f.stick);
}

static void make_machine(const char *disk_options)
{
    char description[128];
    struct error err = {0};
    int fd;

    memset(&f, 0, sizeof(f));
    strcpy(f.path, "/tmp/test-xhci-XXXXXX");
    f.t = device_test_new(RAM_BYTES);
    fd = mkstemp(f.path);
    assert_true(fd >= 0 && ftruncate(fd, DISK_BYTES) == 0);
    close(fd);
    disk_write_image(f.path, DISK_BYTES, 5);
    snprintf(description, sizeof(description), "%s%s", f.path, disk_options);
    f.disk = block_open(f.t->loop, description, &err);
    assert_non_null(f.disk);
    f.host = device_test_add(f.t, &pci_host_class, "ecam=0xe0000000");
    f.xhci = device_test_add(f.t, &xhci_class, "addr=3");
    add_stick();
    f.keyboard = device_test_add(f.t, &usb_kbd_class, NULL);
    f.tablet = device_test_add(f.t, &usb_tablet_class, NULL);
    f.mouse = device_test_add(f.t, &usb_mouse_class, NULL);
    test_irq_connect(&f.intx, device_output(f.host, "pirq", pci_pirq(XHCI_SLOT, 1)));
    device_test_start(f.t);
    xhci_driver_start(&f.d, f.t);
}

static int set_up(void **state)
{
    (void)state;
    make_machine("");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    device_test_free_with_disk(f.t, f.disk, f.path);
    return 0;
}

static uint8_t *ram(uint64_t gpa)
{
    return f.t->ram.hva + gpa;
}

static uint32_t portsc(unsigned port)
{
    return (uint32_t)test_read(f.t, XHCI_PORTSC(port), 4);
}

static struct input *input(void)
{
    return machine_input(f.t->machine);
}

/* ---- the controller ---- */

static void registers_tell_what_there_is(void **state)
{
    (void)state;
    assert_int_equal(test_read(f.t, XHCI_BAR, 1), 0x40);
    assert_int_equal(test_read(f.t, XHCI_BAR + 2, 2), 0x0110);
    assert_int_equal(test_read(f.t, XHCI_BAR + 4, 4), 0x0c000420);
    assert_int_equal(test_read(f.t, xhci_config_gpa(8), 4), 0x0c033001);
    assert_int_equal(test_read(f.t, XHCI_BAR + 0x500, 4), 0x03000402);
    assert_int_equal(test_read(f.t, XHCI_BAR + 0x508, 4), 0x0401);
    assert_int_equal(test_read(f.t, XHCI_BAR + 0x518, 4), 0x0805);
    assert_int_equal(test_read(f.t, XHCI_OP + 8, 4), 1);
    assert_int_equal(test_read(f.t, XHCI_OP + 0x18, 8), 0);
    assert_int_equal(test_read(f.t, XHCI_OP + 0x30, 8), XHCI_DCBAA);
    device_test_advance_ns(f.t, 1000000);
    assert_int_equal(test_read(f.t, XHCI_BAR + 0x1000, 4), 8);
}

static void ports_change_and_tell(void **state)
{
    struct xhci_event event;
    unsigned seen = 0;

    (void)state;
    assert_int_equal(portsc(STICK_PORT), 0x00021203);    /* enabled, U0, Super Speed */
    assert_int_equal(portsc(KEYBOARD_PORT), 0x000206e1); /* polling */
    assert_int_equal(portsc(12), 0x2a0);
    while (xhci_take(&f.d, &event)) {
        assert_int_equal(xhci_event_type(&event), XHCI_PORT_EVENT);
        seen |= 1u << (event.parameter >> 24);
    }
    assert_int_equal(seen, 1u << 1 | 1u << 5 | 1u << 6 | 1u << 7);
    test_write(f.t, XHCI_PORTSC(KEYBOARD_PORT), 0x210, 4);
    assert_false(xhci_take(&f.d, &event)); /* the first change was not cleared */
    assert_int_equal(portsc(KEYBOARD_PORT), 0x00220603);
    test_write(f.t, XHCI_PORTSC(KEYBOARD_PORT), 0x00220200, 4);
    assert_int_equal(portsc(KEYBOARD_PORT), 0x00000603);
    test_write(f.t, XHCI_PORTSC(KEYBOARD_PORT), 0x210, 4);
    assert_true(xhci_take(&f.d, &event));
    test_write(f.t, XHCI_PORTSC(KEYBOARD_PORT), 0x202, 4); /* off */
    assert_int_equal(portsc(KEYBOARD_PORT) & 2, 0);
    test_write(f.t, XHCI_PORTSC(12), 0x210, 4);
    assert_int_equal(portsc(12), 0x2a0);
    test_write(f.t, XHCI_PORTSC(STICK_PORT), 0x202, 4);
    assert_int_equal(portsc(STICK_PORT) & 0x1ff, 0x80); /* disabled, and seen no more */
    device_test_round_trip(f.t, f.xhci);
    test_write(f.t, XHCI_PORTSC(STICK_PORT), 0x210, 4);
    assert_int_equal(portsc(STICK_PORT) & 0x1fff, 0x1203);
    device_test_round_trip(f.t, f.xhci);
}

static void slots_are_enabled_addressed_and_disabled(void **state)
{
    unsigned slot;

    (void)state;
    for (unsigned n = 1; n <= XHCI_DRIVER_SLOTS; n++) {
        assert_int_equal(xhci_command(&f.d, 0, XHCI_ENABLE_SLOT << 10, &slot), XHCI_SUCCESS);
        assert_int_equal(slot, n);
    }
    assert_int_equal(xhci_command(&f.d, 0, XHCI_ENABLE_SLOT << 10, &slot), XHCI_NO_SLOTS);
    assert_int_equal(xhci_command(&f.d, 0, XHCI_DISABLE_SLOT << 10 | 2u << 24, NULL), XHCI_SUCCESS);
    assert_int_equal(xhci_command(&f.d, 0, XHCI_DISABLE_SLOT << 10 | 2u << 24, NULL),
                     XHCI_SLOT_NOT_ENABLED);
    slot = xhci_open(&f.d, KEYBOARD_PORT);
    assert_int_equal(slot, 2);
    assert_int_equal(get_le32(ram(XHCI_OUTPUT + 0x2000 + 12)), 2u << 27 | 2); /* addressed */
    assert_int_equal(get_le32(ram(XHCI_OUTPUT + 0x2020)), XHCI_EP_RUNNING);
    assert_int_equal(xhci_configure(&f.d, slot, 3, 7), XHCI_SUCCESS);
    assert_int_equal(get_le32(ram(XHCI_OUTPUT + 0x2000 + 12)), 3u << 27 | 2); /* configured */
    assert_int_equal(
        xhci_command(&f.d, 0, XHCI_CONFIGURE_ENDPOINT << 10 | 2u << 24 | XHCI_TRB_BSR, NULL),
        XHCI_SUCCESS);
    assert_int_equal(get_le32(ram(XHCI_OUTPUT + 0x2060)) & 7, XHCI_EP_DISABLED);
    assert_int_equal(xhci_command(&f.d, 0, XHCI_RESET_DEVICE << 10 | 2u << 24, NULL), XHCI_SUCCESS);
    assert_int_equal(get_le32(ram(XHCI_OUTPUT + 0x2000 + 12)), 1u << 27); /* default */
    assert_int_equal(xhci_command(&f.d, 0, XHCI_NO_OP_COMMAND << 10, NULL), XHCI_SUCCESS);
    assert_int_equal(xhci_command(&f.d, 0, 50u << 10, NULL), XHCI_TRB_ERROR);
}

static void what_cannot_be_is_refused(void **state)
{
    unsigned slot = xhci_open(&f.d, KEYBOARD_PORT);
    unsigned address = XHCI_ADDRESS_DEVICE << 10;

    (void)state;
    assert_int_equal(slot, 1);
    assert_int_equal(xhci_configure(&f.d, slot, 3, 5), XHCI_PARAMETER_ERROR); /* isochronous */
    assert_int_equal(xhci_configure(&f.d, slot, 3, 2), XHCI_PARAMETER_ERROR); /* out, where in is */
    assert_int_equal(xhci_command(&f.d, XHCI_INPUT, address | 1u << 24, NULL), XHCI_CONTEXT_STATE);
    assert_int_equal(xhci_command(&f.d, RAM_BYTES, XHCI_CONFIGURE_ENDPOINT << 10 | 1u << 24, NULL),
                     XHCI_TRB_ERROR);
    assert_int_equal(xhci_command(&f.d, 0, XHCI_STOP_ENDPOINT << 10 | 3u << 16 | 1u << 24, NULL),
                     XHCI_ENDPOINT_NOT_ENABLED);
    assert_int_equal(xhci_command(&f.d, 0, XHCI_RESET_ENDPOINT << 10 | 1u << 16 | 1u << 24, NULL),
                     XHCI_CONTEXT_STATE);
    assert_int_equal(xhci_open(&f.d, 12), 0); /* nothing is there */
    assert_int_equal(xhci_open(&f.d, 13), 0);
}

static void events_interrupt(void **state)
{
    struct xhci_event event;

    (void)state;
    assert_true(f.intx.level);
    while (xhci_take(&f.d, &event))
        ;
    assert_int_equal(test_read(f.t, XHCI_IR, 4), 3);
    test_write(f.t, XHCI_IR, 3, 4);
    assert_false(f.intx.level);
    test_write(f.t, XHCI_IR + 4, 4000, 4); /* 1 ms between interrupts */
    assert_int_equal(xhci_command(&f.d, 0, XHCI_NO_OP_COMMAND << 10, NULL), XHCI_SUCCESS);
    assert_true(f.intx.level);
    test_write(f.t, XHCI_IR, 3, 4);
    assert_int_equal(xhci_command(&f.d, 0, XHCI_NO_OP_COMMAND << 10, NULL), XHCI_SUCCESS);
    assert_false(f.intx.level);
    device_test_advance_ns(f.t, 1000001);
    assert_true(f.intx.level);
}

static void a_full_event_ring_waits_for_its_reader(void **state)
{
    struct xhci_event event;
    unsigned count = 0;

    (void)state;
    while (xhci_take(&f.d, &event))
        ;
    for (unsigned n = 0; n < 200; n++) {
        xhci_add(&f.d, &f.d.commands, 0, 0, XHCI_NO_OP_COMMAND << 10);
        if (n % 50 == 49) { /* the ring of commands is shorter */
            test_write(f.t, XHCI_DOORBELL(0), 0, 4);
            while (xhci_take(&f.d, &event)) {
                assert_int_equal(xhci_event_code(&event), XHCI_SUCCESS);
                count++;
            }
        }
    }
    assert_int_equal(count, 200);
    for (unsigned n = 0; n < 62; n++)
        xhci_add(&f.d, &f.d.commands, 0, 0, XHCI_NO_OP_COMMAND << 10);
    test_write(f.t, XHCI_DOORBELL(0), 0, 4);
    for (count = 0; xhci_take(&f.d, &event); count++)
        assert_int_equal(xhci_event_code(&event), XHCI_SUCCESS);
    assert_int_equal(count, 62);
}

static void links_that_lead_nowhere_end_it(void **state)
{
    (void)state;
    xhci_put(&f.d, XHCI_COMMANDS, XHCI_COMMANDS, 0, XHCI_LINK << 10 | 1);
    test_write(f.t, XHCI_DOORBELL(0), 0, 4);
    assert_int_equal(test_read(f.t, XHCI_OP + 4, 4) & 5, 5); /* host system error, halted */
    xhci_driver_start(&f.d, f.t);
    assert_int_equal(xhci_command(&f.d, 0, XHCI_NO_OP_COMMAND << 10, NULL), XHCI_SUCCESS);
}

/* ---- control transfers ---- */

static void descriptors_are_read(void **state)
{
    unsigned slot = xhci_open(&f.d, STICK_PORT);
    uint8_t *data = ram(DATA);

    (void)state;
    assert_int_equal(xhci_control(&f.d, slot, usb_driver_setup(0x80, 6, 0x100, 0, 18), DATA),
                     XHCI_SUCCESS);
    assert_int_equal(data[0], 18);
    assert_int_equal(get_le16(data + 2), 0x300);
    assert_int_equal(xhci_control(&f.d, slot, usb_driver_setup(0x80, 6, 0x200, 0, 255), DATA),
                     XHCI_SUCCESS);
    assert_int_equal(get_le16(data + 2), 9 + 9 + 2 * 13);
    assert_int_equal(xhci_control(&f.d, slot, usb_driver_setup(0x80, 6, 0x303, 0x409, 255), DATA),
                     XHCI_SUCCESS);
    assert_memory_equal(data, "\6\3S\0001\0", 6);
    assert_int_equal(xhci_control(&f.d, slot, usb_driver_setup(0x80, 6, 0xf00, 0, 64), DATA),
                     XHCI_SUCCESS);
    assert_int_equal(get_le16(data + 2), 22);
    assert_int_equal(xhci_choose(&f.d, slot), XHCI_SUCCESS);
    assert_int_equal(xhci_control(&f.d, slot, usb_driver_setup(0x80, 8, 0, 0, 1), DATA),
                     XHCI_SUCCESS);
    assert_int_equal(data[0], 1);
}

static void what_a_device_does_not_know_stalls(void **state)
{
    unsigned slot = xhci_open(&f.d, KEYBOARD_PORT);
    unsigned endpoint = 1u << 16 | slot << 24;

    (void)state;
    assert_int_equal(xhci_control(&f.d, slot, usb_driver_setup(0x80, 6, 0x600, 0, 10), DATA),
                     XHCI_STALL);
    assert_int_equal(get_le32(ram(XHCI_OUTPUT + 0x1020)) & 7, XHCI_EP_HALTED);
    assert_int_equal(xhci_command(&f.d, 0, XHCI_RESET_ENDPOINT << 10 | endpoint, NULL),
                     XHCI_SUCCESS);
    assert_int_equal(xhci_command(&f.d, xhci_init_endpoint(&f.d, slot, 1),
                                  XHCI_SET_DEQUEUE << 10 | endpoint, NULL),
                     XHCI_SUCCESS);
    assert_int_equal(xhci_control(&f.d, slot, usb_driver_setup(0x80, 6, 0x100, 0, 8), DATA),
                     XHCI_SUCCESS);
    /* a data stage that the request does not have */
    xhci_add(&f.d, &f.d.endpoints[slot][1], usb_driver_setup(0x80, 6, 0x100, 0, 8), 8,
             XHCI_SETUP << 10 | XHCI_TRB_IDT);
    xhci_add(&f.d, &f.d.endpoints[slot][1], DATA, 8, XHCI_DATA << 10);
    xhci_ring(&f.d, slot, 1);
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_TRB_ERROR);
}

/* ---- people's devices ---- */

static unsigned choose_hid(unsigned slot)
{
    assert_int_not_equal(slot, 0);
    assert_int_equal(xhci_choose(&f.d, slot), XHCI_SUCCESS);
    assert_int_equal(xhci_configure(&f.d, slot, 3, 7), XHCI_SUCCESS);
    return slot;
}

static unsigned open_hid(unsigned port)
{
    return choose_hid(xhci_open(&f.d, port));
}

/* The next report, of which there must be one. */
static const uint8_t *report(unsigned slot, unsigned size)
{
    uint32_t left = 8;

    assert_int_not_equal(xhci_move(&f.d, slot, 3, DATA, 8, &left), 0);
    assert_int_equal(8 - left, size);
    return ram(DATA);
}

static void keys_become_reports(void **state)
{
    unsigned slot = open_hid(KEYBOARD_PORT);
    struct xhci_event event;

    (void)state;
    xhci_add_normal(&f.d, slot, 3, DATA, 8); /* waits */
    assert_false(xhci_take(&f.d, &event));
    input_key(input(), 0xe1, true);
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_SUCCESS);
    assert_memory_equal(ram(DATA), "\2\0\0\0\0\0\0\0", 8);
    input_key(input(), 4, true);
    input_key(input(), 4, false);
    input_key(input(), 0xe1, false);
    assert_memory_equal(report(slot, 8), "\2\0\4\0\0\0\0\0", 8);
    assert_memory_equal(report(slot, 8), "\2\0\0\0\0\0\0\0", 8);
    device_test_round_trip(f.t, f.keyboard);
    assert_memory_equal(report(slot, 8), "\0\0\0\0\0\0\0\0", 8);
    for (unsigned usage = 4; usage < 11; usage++)
        input_key(input(), (uint8_t)usage, true);
    for (unsigned n = 0; n < 6; n++)
        report(slot, 8);
    assert_memory_equal(report(slot, 8), "\0\0\1\1\1\1\1\1", 8);
    ram(DATA)[0] = 2;
    assert_int_equal(xhci_control(&f.d, slot, usb_driver_setup(0x21, 9, 0x200, 0, 1), DATA),
                     XHCI_SUCCESS);
    assert_int_equal(input_leds(input()), INPUT_LED_CAPS);
}

static void too_many_keys_are_not_stuck(void **state)
{
    unsigned slot = open_hid(KEYBOARD_PORT);
    struct xhci_event event;

    (void)state;
    xhci_add_normal(&f.d, slot, 3, DATA, 8);
    for (unsigned n = 0; n < 101; n++)
        input_key(input(), 4, n % 2 == 0);
    input_key(input(), 4, false);
    input_key(input(), 5, true);
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_SUCCESS);
    assert_memory_equal(report(slot, 8), "\0\0\5\0\0\0\0\0", 8);
    xhci_add_normal(&f.d, slot, 3, DATA, 8);
    assert_false(xhci_take(&f.d, &event));
}

static void an_idle_keyboard_repeats_its_report(void **state)
{
    unsigned slot = open_hid(KEYBOARD_PORT);
    struct xhci_event event;

    (void)state;
    assert_int_equal(xhci_control(&f.d, slot, usb_driver_setup(0x21, 10, 0x500, 0, 0), 0),
                     XHCI_SUCCESS);
    xhci_add_normal(&f.d, slot, 3, DATA, 8);
    device_test_advance_ns(f.t, 19000000);
    assert_false(xhci_take(&f.d, &event));
    device_test_advance_ns(f.t, 2000000);
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_SUCCESS);
}

static void the_tablet_goes_where_the_pointer_is(void **state)
{
    unsigned slot = open_hid(TABLET_PORT);

    (void)state;
    assert_false(input_has_absolute(input()));
    xhci_add_normal(&f.d, slot, 3, DATA, 8);
    assert_true(input_has_absolute(input()));
    input_pointer_at(input(), 1023, 0, 1024, 768);
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_SHORT_PACKET);
    assert_memory_equal(ram(DATA), "\0\377\177\0\0\0\0", 7);
    input_buttons(input(), INPUT_BUTTON_LEFT);
    input_buttons(input(), 0);
    input_wheel(input(), -2, 0);
    assert_memory_equal(report(slot, 7), "\1\377\177\0\0\0\0", 7);
    device_test_round_trip(f.t, f.tablet);
    assert_memory_equal(report(slot, 7), "\0\377\177\0\0\376\0", 7);
    /* the driver takes its transfer back: the pointer is somebody else's */
    xhci_add_normal(&f.d, slot, 3, DATA, 8);
    assert_int_equal(xhci_command(&f.d, 0, XHCI_STOP_ENDPOINT << 10 | 3u << 16 | slot << 24, NULL),
                     XHCI_SUCCESS);
    assert_false(input_has_absolute(input()));
}

static void the_mouse_moves_in_steps(void **state)
{
    unsigned slot = open_hid(MOUSE_PORT);

    (void)state;
    xhci_add_normal(&f.d, slot, 3, DATA, 8);
    input_pointer_moved(input(), 300, -5);
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_SHORT_PACKET);
    assert_memory_equal(ram(DATA), "\0\177\373\0\0", 5);
    assert_memory_equal(report(slot, 5), "\0\177\0\0\0", 5);
    assert_int_equal(xhci_control(&f.d, slot, usb_driver_setup(0x21, 11, 0, 0, 0), 0),
                     XHCI_SUCCESS);
    device_test_round_trip(f.t, f.mouse);
    assert_memory_equal(report(slot, 3), "\0\56\0", 3);
}

static void a_suspended_device_wakes_the_host(void **state)
{
    unsigned slot = open_hid(KEYBOARD_PORT);
    struct xhci_event event;

    (void)state;
    xhci_add_normal(&f.d, slot, 3, DATA, 8);
    assert_int_equal(xhci_control(&f.d, slot, usb_driver_setup(0, 3, 1, 0, 0), 0), XHCI_SUCCESS);
    test_write(f.t, XHCI_PORTSC(KEYBOARD_PORT), 0x00220200, 4);
    test_write(f.t, XHCI_PORTSC(KEYBOARD_PORT), 0x00010260, 4); /* U3 */
    while (xhci_take(&f.d, &event))
        ;
    input_key(input(), 4, true);
    assert_true(xhci_wait(&f.d, XHCI_PORT_EVENT, &event));
    assert_int_equal(portsc(KEYBOARD_PORT), 0x004007e3);        /* resume, a change of the link */
    test_write(f.t, XHCI_PORTSC(KEYBOARD_PORT), 0x00010200, 4); /* U0 */
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_SUCCESS);
    assert_int_equal(ram(DATA)[2], 4);
}

/* ---- the stick ---- */

static const uint8_t read_10[10] = {0x28, 0, 0, 0, 0, 16, 0, 0, 8, 0};
static const uint8_t write_10[10] = {0x2a, 0, 0, 0, 0, 32, 0, 0, 8, 0};

/* It says once that it has power now. */
static unsigned open_stick(void)
{
    static const uint8_t test_unit_ready[6] = {0};
    unsigned slot = xhci_open_stick(&f.d, STICK_PORT);

    assert_int_not_equal(slot, 0);
    assert_int_equal(xhci_scsi(&f.d, slot, test_unit_ready, 6, 0, 0, false, NULL), 1);
    assert_int_equal(xhci_scsi(&f.d, slot, test_unit_ready, 6, 0, 0, false, NULL), 0);
    return slot;
}

static void sectors_are_read_and_written(void **state)
{
    uint8_t sectors[4096];
    unsigned slot = open_stick();
    uint32_t residue;

    (void)state;
    assert_int_equal(xhci_scsi(&f.d, slot, read_10, 10, DATA, 4096, true, &residue), 0);
    assert_int_equal(residue, 0);
    disk_read_image(f.path, 16 * 512, sectors, sizeof(sectors));
    assert_memory_equal(ram(DATA), sectors, sizeof(sectors));
    memset(ram(DATA), 0x5a, 4096);
    assert_int_equal(xhci_scsi(&f.d, slot, write_10, 10, DATA, 4096, false, NULL), 0);
    assert_true(disk_image_is(f.path, 32 * 512, 0x5a, 4096));
}

static void a_command_that_failed_is_state(void **state)
{
    struct xhci_event event;
    unsigned slot;

    make_machine(",werror=pause,fault=write:1:2");
    block_set_pause(f.disk, disk_pause_for, f.t->machine);
    slot = open_stick();
    memset(ram(DATA), 0x5a, 4096);
    xhci_send_cbw(&f.d, slot, write_10, 10, 4096, false);
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_SUCCESS);
    assert_int_equal(xhci_move(&f.d, slot, 4, DATA, 4096, NULL), XHCI_SUCCESS);
    xhci_add_normal(&f.d, slot, 3, XHCI_DATA_AREA + 0x40, 13);
    for (unsigned turn = 0; turn < 2; turn++) {
        disk_wait_for_pause(f.t);
        assert_false(xhci_take(&f.d, &event));
        device_test_round_trip(f.t, f.stick);
        machine_resume(f.t->machine);
    }
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_SUCCESS);
    assert_int_equal(ram(XHCI_DATA_AREA)[0x40 + 12], 0);
    assert_true(disk_image_is(f.path, 32 * 512, 0x5a, 4096));
    tear_down(state);
}

static void data_may_come_in_several_transfers(void **state)
{
    unsigned slot = open_stick();
    uint8_t sectors[4096];

    (void)state;
    xhci_send_cbw(&f.d, slot, read_10, 10, 4096, true);
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_SUCCESS);
    assert_int_equal(xhci_move(&f.d, slot, 3, DATA, 1024, NULL), XHCI_SUCCESS);
    machine_lock(f.t->machine);
    f.stick->class->quiesce(f.stick);
    machine_unlock(f.t->machine);
    device_test_round_trip(f.t, f.stick);
    /* one of three pieces, whose last is too long */
    xhci_add(&f.d, &f.d.endpoints[slot][3], DATA + 1024, 1024, XHCI_NORMAL << 10 | XHCI_TRB_CHAIN);
    xhci_add(&f.d, &f.d.endpoints[slot][3], DATA + 2048, 1024, XHCI_NORMAL << 10 | XHCI_TRB_CHAIN);
    xhci_add_normal(&f.d, slot, 3, DATA + 3072, 1024);
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_SUCCESS);
    assert_int_equal(xhci_move(&f.d, slot, 3, XHCI_DATA_AREA, 64, NULL), XHCI_SHORT_PACKET);
    disk_read_image(f.path, 16 * 512, sectors, sizeof(sectors));
    assert_memory_equal(ram(DATA), sectors, sizeof(sectors));
}

static void commands_that_fail_keep_their_sense(void **state)
{
    static const uint8_t beyond[10] = {0x28, 0, 0xff, 0, 0, 0, 0, 0, 1, 0};
    static const uint8_t sense[6] = {0x03, 0, 0, 0, 18, 0};
    static const uint8_t inquiry[6] = {0x12, 0, 0, 0, 36, 0};
    unsigned slot = open_stick();
    uint32_t residue;

    (void)state;
    assert_int_equal(xhci_scsi(&f.d, slot, beyond, 10, DATA, 512, true, &residue), 1);
    assert_int_equal(residue, 512);
    assert_int_equal(xhci_scsi(&f.d, slot, sense, 6, DATA, 18, true, NULL), 0);
    assert_int_equal(ram(DATA)[2], 5);
    assert_int_equal(ram(DATA)[12], 0x21);
    assert_int_equal(xhci_scsi(&f.d, slot, inquiry, 6, DATA, 64, true, &residue), 0);
    assert_int_equal(residue, 64 - 36);
    assert_int_equal(ram(DATA)[1], 0x80); /* removable */
    /* less room than the command has data, more than a command can move */
    assert_int_equal(xhci_scsi(&f.d, slot, read_10, 10, DATA, 512, true, NULL), 2);
    xhci_send_cbw(&f.d, slot, read_10, 10, 0xffffffff, false);
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_SUCCESS);
    assert_int_equal(xhci_move(&f.d, slot, 4, DATA, 0x10000, NULL), XHCI_SUCCESS);
    assert_int_equal(xhci_control(&f.d, slot, usb_driver_setup(0x21, 0xff, 0, 0, 0), 0),
                     XHCI_SUCCESS);
    assert_int_equal(xhci_scsi(&f.d, slot, inquiry, 6, DATA, 36, true, NULL), 0);
}

static void what_is_no_command_wedges_it(void **state)
{
    static const uint8_t inquiry[6] = {0x12, 0, 0, 0, 36, 0};
    unsigned slot = open_stick();

    (void)state;
    assert_int_equal(xhci_move(&f.d, slot, 4, DATA, 31, NULL), XHCI_STALL);
    assert_int_equal(xhci_move(&f.d, slot, 3, DATA, 13, NULL), XHCI_STALL);
    assert_int_equal(xhci_control(&f.d, slot, usb_driver_setup(0x21, 0xff, 0, 0, 0), 0),
                     XHCI_SUCCESS);
    for (unsigned dci = 3; dci <= 4; dci++) {
        unsigned endpoint = dci << 16 | slot << 24;

        assert_int_equal(xhci_command(&f.d, 0, XHCI_RESET_ENDPOINT << 10 | endpoint, NULL),
                         XHCI_SUCCESS);
        assert_int_equal(xhci_command(&f.d, xhci_init_endpoint(&f.d, slot, dci),
                                      XHCI_SET_DEQUEUE << 10 | endpoint, NULL),
                         XHCI_SUCCESS);
        assert_int_equal(
            xhci_control(&f.d, slot, usb_driver_setup(2, 1, 0, dci == 3 ? 0x81 : 0x02, 0), 0),
            XHCI_SUCCESS);
    }
    assert_int_equal(xhci_scsi(&f.d, slot, inquiry, 6, DATA, 36, true, NULL), 0);
}

static void a_stick_goes_and_comes_back(void **state)
{
    unsigned slot = open_stick();
    struct xhci_event event;

    (void)state;
    test_write(f.t, XHCI_PORTSC(STICK_PORT), 0x00220200, 4);
    device_free(f.stick);
    assert_true(xhci_wait(&f.d, XHCI_PORT_EVENT, &event));
    assert_int_equal(portsc(STICK_PORT), 0x000202a0);
    assert_int_equal(xhci_move(&f.d, slot, 4, DATA, 31, NULL), XHCI_TRANSACTION_ERROR);
    assert_int_equal(xhci_command(&f.d, 0, XHCI_DISABLE_SLOT << 10 | slot << 24, NULL),
                     XHCI_SUCCESS);
    test_write(f.t, XHCI_PORTSC(STICK_PORT), 0x00220200, 4);
    add_stick();
    assert_true(xhci_wait(&f.d, XHCI_PORT_EVENT, &event));
    assert_int_equal(portsc(STICK_PORT), 0x00021203);
    open_stick();
}

static void memory_that_is_not_there_is_an_error(void **state)
{
    unsigned slot = open_stick();

    (void)state;
    assert_int_equal(xhci_move(&f.d, slot, 4, RAM_BYTES - 8, 31, NULL), XHCI_TRB_ERROR);
    assert_int_equal(get_le32(ram(XHCI_OUTPUT + 0x1080)) & 7, XHCI_EP_ERROR);
}

/* ---- the hub ---- */

#define HUB_PORT  8u
#define POWER     8u
#define RESET     4u
#define C_CONNECT 16u
#define C_RESET   20u

static void set_port(unsigned slot, bool on, unsigned feature, unsigned port)
{
    uint64_t setup = usb_driver_setup(0x23, on ? 3 : 1, (uint16_t)feature, (uint16_t)port, 0);

    assert_int_equal(xhci_control(&f.d, slot, setup, 0), XHCI_SUCCESS);
}

/* Status, and changes in the upper half. */
static uint32_t port_status(unsigned slot, unsigned port)
{
    assert_int_equal(
        xhci_control(&f.d, slot, usb_driver_setup(0xa3, 0, 0, (uint16_t)port, 4), DATA),
        XHCI_SUCCESS);
    return get_le32(ram(DATA));
}

static void open_port(unsigned slot, unsigned port)
{
    set_port(slot, true, POWER, port);
    set_port(slot, false, C_CONNECT, port);
    set_port(slot, true, RESET, port);
    set_port(slot, false, C_RESET, port);
}

static void hubs_lead_to_what_is_behind_them(void **state)
{
    struct device *hub = device_test_add(f.t, &usb_hub_class, NULL), *inner, *mouse, *keyboard;
    unsigned outer_slot, mouse_slot, inner_slot, keyboard_slot;

    (void)state;
    inner = device_test_add(f.t, &usb_hub_class, "bus=usb-hub,port=1");
    mouse = device_test_add(f.t, &usb_mouse_class, "bus=usb-hub,port=3");
    keyboard = device_test_add(f.t, &usb_kbd_class, "bus=usb-hub-2,port=2");
    outer_slot = open_hid(HUB_PORT);
    assert_int_equal(xhci_control(&f.d, outer_slot, usb_driver_setup(0xa0, 6, 0x2900, 0, 15), DATA),
                     XHCI_SUCCESS);
    assert_memory_equal(ram(DATA), "\13\51\10\11\0", 5);
    assert_int_equal(port_status(outer_slot, 3), 0);
    set_port(outer_slot, true, POWER, 1);
    set_port(outer_slot, true, POWER, 3);
    assert_memory_equal(report(outer_slot, 2), "\12\0", 2);
    assert_int_equal(port_status(outer_slot, 1), 0x10501); /* High Speed */
    assert_int_equal(port_status(outer_slot, 3), 0x10101);
    set_port(outer_slot, true, RESET, 3);
    assert_int_equal(port_status(outer_slot, 3), 0x110103);
    set_port(outer_slot, false, C_RESET, 3);
    set_port(outer_slot, false, C_CONNECT, 3);
    assert_int_equal(port_status(outer_slot, 3), 0x103);
    mouse_slot = choose_hid(xhci_address(&f.d, HUB_PORT, 3));
    open_port(outer_slot, 1);
    inner_slot = choose_hid(xhci_address(&f.d, HUB_PORT, 1));
    open_port(inner_slot, 2);
    keyboard_slot = choose_hid(xhci_address(&f.d, HUB_PORT, 0x21));

    xhci_add_normal(&f.d, keyboard_slot, 3, DATA, 8);
    xhci_ring(&f.d, keyboard_slot, 3);
    xhci_add_normal(&f.d, mouse_slot, 3, DATA + 16, 8);
    xhci_ring(&f.d, mouse_slot, 3);
    input_key(input(), 4, true);
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_SUCCESS);
    assert_int_equal(ram(DATA)[2], 4);
    input_pointer_moved(input(), 5, 6);
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_SHORT_PACKET);
    assert_memory_equal(ram(DATA + 16), "\0\5\6", 3);

    device_test_round_trip(f.t, hub);
    device_test_round_trip(f.t, inner);
    device_test_round_trip(f.t, f.xhci);
    input_key(input(), 4, false);
    assert_memory_equal(report(keyboard_slot, 8), "\0\0\0", 3);

    device_free(mouse);
    assert_int_equal(port_status(outer_slot, 3), 0x10100);
    assert_memory_equal(report(outer_slot, 2), "\10\0", 2);
    assert_int_equal(xhci_move(&f.d, mouse_slot, 3, DATA, 8, NULL), XHCI_TRANSACTION_ERROR);
    device_free(inner); /* and nobody is behind it any more */
    assert_int_equal(xhci_move(&f.d, keyboard_slot, 3, DATA, 8, NULL), XHCI_TRANSACTION_ERROR);
    device_free(keyboard);
}

static void a_port_that_is_not_enabled_leads_nowhere(void **state)
{
    unsigned slot;

    (void)state;
    device_test_add(f.t, &usb_hub_class, NULL);
    device_test_add(f.t, &usb_mouse_class, "bus=usb-hub,port=3");
    slot = open_hid(HUB_PORT);
    assert_int_equal(xhci_address(&f.d, HUB_PORT, 3), 0); /* no power */
    set_port(slot, true, POWER, 3);
    assert_int_equal(xhci_address(&f.d, HUB_PORT, 3), 0); /* no reset */
    assert_int_equal(xhci_control(&f.d, slot, usb_driver_setup(0xa3, 0, 0, 9, 4), DATA),
                     XHCI_STALL);
}

static void a_suspended_device_behind_a_hub_wakes_its_port(void **state)
{
    unsigned slot, mouse_slot;

    (void)state;
    device_test_add(f.t, &usb_hub_class, NULL);
    device_test_add(f.t, &usb_mouse_class, "bus=usb-hub,port=3");
    slot = open_hid(HUB_PORT);
    open_port(slot, 3);
    mouse_slot = choose_hid(xhci_address(&f.d, HUB_PORT, 3));
    assert_int_equal(xhci_control(&f.d, mouse_slot, usb_driver_setup(0, 3, 1, 0, 0), 0),
                     XHCI_SUCCESS);
    xhci_add_normal(&f.d, mouse_slot, 3, DATA, 8);
    xhci_ring(&f.d, mouse_slot, 3);
    set_port(slot, true, 2, 3);
    assert_int_equal(port_status(slot, 3), 0x107);
    input_pointer_moved(input(), 1, 0);
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_SHORT_PACKET);
    assert_int_equal(port_status(slot, 3), 0x40103);
}

static void a_hub_is_saved_with_what_is_on_it(void **state)
{
    struct device *hub = device_test_add(f.t, &usb_hub_class, NULL), *mouse;
    struct state_buffer saved = {0};
    struct error err = {0};
    unsigned slot;

    (void)state;
    mouse = device_test_add(f.t, &usb_mouse_class, "bus=usb-hub");
    slot = open_hid(HUB_PORT);
    open_port(slot, 1);
    assert_int_equal(state_save(&usb_hub_class.state, hub, &saved, &err), 0);
    device_free(mouse);
    assert_int_equal(state_load(&usb_hub_class.state, hub, saved.data, saved.size_bytes, &err),
                     -EINVAL);
    free(saved.data);
}

static void a_stick_on_a_hub_is_slower(void **state)
{
    unsigned hub_slot, slot;

    (void)state;
    device_test_add(f.t, &usb_hub_class, NULL);
    device_free(f.stick);
    f.stick = device_test_create(f.t, &usb_storage_class, "bus=usb-hub");
    assert_int_equal(device_set_pointer(f.stick, "drive", f.disk, &(struct error){0}), 0);
    device_test_attach(f.stick);
    hub_slot = open_hid(HUB_PORT);
    open_port(hub_slot, 1);
    slot = xhci_address(&f.d, HUB_PORT, 1);
    assert_int_equal(xhci_control(&f.d, slot, usb_driver_setup(0x80, 6, 0x200, 0, 255), DATA),
                     XHCI_SUCCESS);
    assert_int_equal(get_le16(ram(DATA + 2)), 9 + 9 + 2 * 7);
    assert_int_equal(get_le16(ram(DATA + 18 + 4)), 512);
}

static void hubs_are_five_deep_at_most(void **state)
{
    struct device *dev;
    struct error err = {0};
    char bus[32];

    (void)state;
    device_test_add(f.t, &usb_hub_class, NULL);
    for (unsigned n = 1; n < 5; n++) {
        snprintf(bus, sizeof(bus), n > 1 ? "bus=usb-hub-%u" : "bus=usb-hub", n);
        device_test_add(f.t, &usb_hub_class, bus);
    }
    dev = device_test_create(f.t, &usb_hub_class, "bus=usb-hub-5");
    assert_int_equal(device_attach(dev, &err), -ENODEV);
    device_test_add(f.t, &usb_mouse_class, "bus=usb-hub-5");
}

/* ---- state ---- */

static void state_survives(void **state)
{
    unsigned slot = open_stick();
    struct xhci_event event;
    uint32_t port;

    (void)state;
    while (xhci_take(&f.d, &event))
        ;
    port = portsc(STICK_PORT);
    device_test_round_trip(f.t, f.stick);
    device_test_round_trip(f.t, f.xhci);
    assert_int_equal(portsc(STICK_PORT), port);
    assert_int_equal(xhci_scsi(&f.d, slot, read_10, 10, DATA, 4096, true, NULL), 0);
}

static void what_is_saved_has_its_devices(void **state)
{
    struct state_buffer saved = {0};
    struct error err = {0};

    (void)state;
    assert_int_equal(state_save(&f.xhci->class->state, f.xhci, &saved, &err), 0);
    device_free(f.mouse);
    assert_int_equal(state_load(&f.xhci->class->state, f.xhci, saved.data, saved.size_bytes, &err),
                     -EINVAL);
    free(saved.data);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(registers_tell_what_there_is),
        TEST(ports_change_and_tell),
        TEST(slots_are_enabled_addressed_and_disabled),
        TEST(what_cannot_be_is_refused),
        TEST(events_interrupt),
        TEST(a_full_event_ring_waits_for_its_reader),
        TEST(links_that_lead_nowhere_end_it),
        TEST(descriptors_are_read),
        TEST(what_a_device_does_not_know_stalls),
        TEST(keys_become_reports),
        TEST(too_many_keys_are_not_stuck),
        TEST(an_idle_keyboard_repeats_its_report),
        TEST(the_tablet_goes_where_the_pointer_is),
        TEST(the_mouse_moves_in_steps),
        TEST(a_suspended_device_wakes_the_host),
        TEST(sectors_are_read_and_written),
        cmocka_unit_test(a_command_that_failed_is_state),
        TEST(data_may_come_in_several_transfers),
        TEST(commands_that_fail_keep_their_sense),
        TEST(what_is_no_command_wedges_it),
        TEST(a_stick_goes_and_comes_back),
        TEST(memory_that_is_not_there_is_an_error),
        TEST(hubs_lead_to_what_is_behind_them),
        TEST(a_port_that_is_not_enabled_leads_nowhere),
        TEST(a_suspended_device_behind_a_hub_wakes_its_port),
        TEST(a_hub_is_saved_with_what_is_on_it),
        TEST(a_stick_on_a_hub_is_slower),
        TEST(hubs_are_five_deep_at_most),
        TEST(state_survives),
        TEST(what_is_saved_has_its_devices),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
