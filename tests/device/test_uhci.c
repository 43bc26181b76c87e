/*
 * test_uhci.c - the UHCI controller and the devices on it, driven by a guest's driver
 */
#include "cmocka_all.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "devices/devices.h"
#include "disk_test.h"
#include "trapeze/block.h"
#include "trapeze/input.h"
#include "uhci_driver.h"

#define RAM_BYTES     (4u << 20)
#define DISK_BYTES    (2u << 20)
#define DATA          (UHCI_DATA + 0x1000)
#define KEYBOARD_PORT 1u
#define STICK_PORT    2u
#define KEYBOARD      5u /* addresses */
#define STICK         6u
#define BEHIND_HUB    7u

/* What a driver sees. */
#define STALLED       (1u << 22)
#define BABBLE        (1u << 20)
#define NAK           (1u << 19)
#define TIMEOUT       (1u << 18)

static struct {
    struct device_test *t;
    struct device *host, *uhci, *stick, *keyboard;
    struct test_irq intx;
    struct block *disk;
    char path[64];
    struct uhci_driver d;
} f;

static void add_stick(void)
{
    struct error err = {0};

    f.stick = device_test_create(f.t, &usb_storage_class, "serial=S1");
    assert_int_equal(device_set_pointer(f.stick, "drive", f.disk, &err), 0);
    device_test_attach(f.stick);
}

static int set_up(void **state)
{
    struct error err = {0};
    int fd;

    (void)state;
    memset(&f, 0, sizeof(f));
    strcpy(f.path, "/tmp/test-uhci-XXXXXX");
    f.t = device_test_new(RAM_BYTES);
    fd = mkstemp(f.path);
    assert_true(fd >= 0 && ftruncate(fd, DISK_BYTES) == 0);
    close(fd);
    disk_write_image(f.path, DISK_BYTES, 5);
    f.disk = block_open(f.t->loop, f.path, &err);
    assert_non_null(f.disk);
    f.host = device_test_add(f.t, &pci_host_class, "ecam=0xe0000000");
    f.uhci = device_test_add(f.t, &uhci_class, "addr=3");
    f.keyboard = device_test_add(f.t, &usb_kbd_class, NULL);
    add_stick();
    test_irq_connect(&f.intx, device_output(f.host, "pirq", pci_pirq(UHCI_SLOT, 1)));
    device_test_start(f.t);
    uhci_driver_start(&f.d, f.t);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    device_test_free_with_disk(f.t, f.disk, f.path);
    return 0;
}

static uint8_t *ram(uint32_t gpa)
{
    return uhci_ram(&f.d, gpa);
}

static uint16_t status(void)
{
    return test_inw(f.t, UHCI_IO_STATUS);
}

static struct input *input(void)
{
    return machine_input(f.t->machine);
}

static void type(uint8_t usage, bool pressed)
{
    machine_lock(f.t->machine);
    input_key(input(), usage, pressed);
    machine_unlock(f.t->machine);
}

static void clear_status(void)
{
    test_outw(f.t, UHCI_IO_STATUS, 0x1f);
}

/* One packet that stays the queue's work; it is put there and not waited for. */
static void begin(enum usb_pid pid, uint8_t address, uint8_t endpoint, unsigned size,
                  uint32_t flags)
{
    uhci_add(&f.d, pid, address, endpoint, DATA, size, flags);
    uhci_submit(&f.d);
}

static uint32_t element(void)
{
    return get_le32(ram(UHCI_QUEUE) + 4);
}

/* ---- the controller ---- */

static void registers_tell_what_there_is(void **state)
{
    (void)state;
    assert_int_equal(test_read(f.t, uhci_config_gpa(0), 4), 0x70208086);
    assert_int_equal(test_read(f.t, uhci_config_gpa(8), 4), 0x0c030001);
    assert_int_equal(test_read(f.t, uhci_config_gpa(0x60), 1), 0x10);
    assert_int_equal(test_inw(f.t, UHCI_IO_COMMAND), 0x41);
    assert_int_equal(status(), 0);
    assert_int_equal(test_inl(f.t, UHCI_IO_LIST), UHCI_LIST);
    assert_int_equal(test_inb(f.t, UHCI_IO_SOF), 64);
    test_outb(f.t, UHCI_IO_SOF, 0xc2);
    assert_int_equal(test_inb(f.t, UHCI_IO_SOF), 0x42);
    test_outb(f.t, UHCI_IO_COMMAND, 0); /* words only */
    assert_int_equal(test_inw(f.t, UHCI_IO_COMMAND), 0x41);
    assert_int_equal(test_inl(f.t, UHCI_IO_PORT), 0x00930093); /* full speed, and they have come */
    assert_int_equal(test_inw(f.t, UHCI_IO_PORT + 4), 0);      /* no more than two */
}

static void frames_are_counted_while_it_runs(void **state)
{
    uint16_t before = test_inw(f.t, UHCI_IO_FRAME);

    (void)state;
    uhci_wait(&f.d, 100);
    assert_int_equal(test_inw(f.t, UHCI_IO_FRAME), before + 100);
    test_outw(f.t, UHCI_IO_FRAME, 7); /* not while it runs */
    assert_int_equal(test_inw(f.t, UHCI_IO_FRAME), before + 100);
    test_outw(f.t, UHCI_IO_COMMAND, 0);
    assert_int_equal(status(), UHCI_STS_HALTED);
    before = test_inw(f.t, UHCI_IO_FRAME);
    uhci_wait(&f.d, 100);
    assert_int_equal(test_inw(f.t, UHCI_IO_FRAME), before);
    test_outw(f.t, UHCI_IO_FRAME, 0x7fe);
    test_outw(f.t, UHCI_IO_COMMAND, UHCI_CMD_RUN);
    assert_int_equal(status(), 0);
    uhci_wait(&f.d, 5);
    assert_int_equal(test_inw(f.t, UHCI_IO_FRAME), 3);
}

/* One frame has work: that whose number is its place in the list. */
static void each_frame_has_its_place_in_the_list(void **state)
{
    (void)state;
    uhci_open(&f.d, KEYBOARD_PORT, KEYBOARD);
    uhci_fill_list(&f.d, UHCI_END);
    test_outw(f.t, UHCI_IO_COMMAND, 0);
    test_outw(f.t, UHCI_IO_FRAME, 0x400); /* of 11 bits the lower 10 count */
    put_le64(ram(UHCI_SETUP), usb_driver_setup(0x80, 6, 0x100, 0, 18));
    uhci_add(&f.d, USB_PID_SETUP, KEYBOARD, 0, UHCI_SETUP, 8, 0);
    put_le32(ram(UHCI_LIST + 4 * 200), uhci_td(0)); /* a TD without a queue */
    f.d.tds = 0;
    test_outw(f.t, UHCI_IO_COMMAND, UHCI_CMD_RUN);
    uhci_wait(&f.d, 190); /* it became lazy meanwhile */
    assert_true(uhci_td_status(&f.d, 0) & UHCI_ACTIVE);
    uhci_wait(&f.d, 20);
    assert_int_equal(uhci_td_status(&f.d, 0) & (UHCI_ACTIVE | UHCI_TD_ERRORS), 0);
    assert_int_equal(uhci_moved(uhci_td_status(&f.d, 0)), 8);
}

static void an_idle_controller_is_lazy_and_a_halted_one_does_nothing(void **state)
{
    struct uhci *s = uhci_of(f.uhci);

    (void)state;
    uhci_wait(&f.d, 100);
    assert_int_equal(s->frames.idle, 32);
    begin(USB_PID_IN, 1, 0, 8, 0); /* nobody is there */
    uhci_wait(&f.d, 8);            /* so late can it be */
    assert_true(uhci_td_status(&f.d, 0) & TIMEOUT);
    test_outw(f.t, UHCI_IO_COMMAND, 0);
    assert_false(timer_is_armed(&s->frames.timer));
    test_outw(f.t, UHCI_IO_COMMAND, UHCI_CMD_RUN);
    test_write(f.t, uhci_config_gpa(PCI_COMMAND), PCI_COMMAND_IO, 2); /* no master */
    begin(USB_PID_IN, 1, 0, 8, 0);
    uhci_wait(&f.d, 20);
    assert_true(uhci_td_status(&f.d, 0) & UHCI_ACTIVE);
}

static void a_port_is_reset_enabled_and_switched_off(void **state)
{
    (void)state;
    uhci_set_port(&f.d, STICK_PORT, UHCI_PORT_CHANGE);
    assert_int_equal(uhci_port(&f.d, STICK_PORT), 0x0091);
    uhci_set_port(&f.d, STICK_PORT, UHCI_PORT_RESET);
    assert_int_equal(uhci_port(&f.d, STICK_PORT), 0x0291);
    uhci_set_port(&f.d, STICK_PORT, UHCI_PORT_RESET | UHCI_PORT_ENABLED); /* not during it */
    assert_int_equal(uhci_port(&f.d, STICK_PORT), 0x0291);
    uhci_set_port(&f.d, STICK_PORT, 0);
    uhci_set_port(&f.d, STICK_PORT, UHCI_PORT_ENABLED);
    assert_int_equal(uhci_port(&f.d, STICK_PORT), 0x0095);
    device_test_round_trip(f.t, f.uhci);
    assert_int_equal(uhci_port(&f.d, STICK_PORT), 0x0095);
    device_free(f.stick);
    assert_int_equal(uhci_port(&f.d, STICK_PORT), 0x008a); /* gone, and off by that */
    uhci_set_port(&f.d, STICK_PORT, UHCI_PORT_ENABLED | UHCI_PORT_CHANGE | UHCI_PORT_OFF);
    assert_int_equal(uhci_port(&f.d, STICK_PORT), 0x0080);
    add_stick();
    assert_int_equal(uhci_port(&f.d, STICK_PORT), 0x0093);
    assert_true(uhci_open(&f.d, STICK_PORT, STICK));
    test_outw(f.t, UHCI_IO_COMMAND, UHCI_CMD_GRESET);
    assert_int_equal(uhci_port(&f.d, STICK_PORT), 0x0093);
    assert_int_equal(usb_device_of(f.stick)->address, 0);
    assert_int_equal(status(), UHCI_STS_HALTED);
}

static void devices_describe_themselves(void **state)
{
    unsigned size;

    (void)state;
    uhci_reset_port(&f.d, STICK_PORT);
    assert_int_equal(uhci_control(&f.d, 0, usb_driver_setup(0x80, 6, 0x100, 0, 64), &size), 0);
    assert_int_equal(size, 18);
    assert_int_equal(get_le32(ram(UHCI_DATA)), 0x02000112);
    assert_int_equal(ram(UHCI_DATA)[7], 8);
    assert_int_equal(uhci_control(&f.d, 0, usb_driver_setup(0, 5, STICK, 0, 0), NULL), 0);
    assert_int_equal(uhci_control(&f.d, STICK, usb_driver_setup(0x80, 6, 0x200, 0, 255), &size), 0);
    assert_int_equal(size, 32);
    assert_int_equal(get_le16(ram(UHCI_DATA) + 18 + 4), 64); /* packets of full speed */
    assert_int_equal(uhci_control(&f.d, STICK, usb_driver_setup(0x80, 6, 0x302, 0x409, 255), &size),
                     0);
    assert_int_equal(size, 2 + 2 * strlen("USB stick"));
    assert_int_equal(uhci_control(&f.d, STICK, usb_driver_setup(0x80, 6, 0x100, 0, 8), &size), 0);
    assert_int_equal(size, 8);
    assert_int_equal(uhci_control(&f.d, 0, usb_driver_setup(0x80, 8, 0, 0, 1), NULL),
                     TIMEOUT | STALLED);
}

/* ---- transfers ---- */

static void nobody_is_tried_three_times(void **state)
{
    (void)state;
    begin(USB_PID_IN, 9, 1, 8, UHCI_IOC);
    uhci_wait(&f.d, 1);
    assert_int_equal(uhci_td_status(&f.d, 0) >> 16, 0x1184); /* two more */
    uhci_wait(&f.d, 1);
    assert_int_equal(uhci_td_status(&f.d, 0) >> 16, 0x0984);
    assert_int_equal(status(), 0);
    uhci_wait(&f.d, 1);
    assert_int_equal(uhci_td_status(&f.d, 0) >> 16, 0x0144);
    assert_int_equal(status(), UHCI_STS_INT | UHCI_STS_ERROR);
    assert_true(f.intx.level);
    test_outw(f.t, UHCI_IO_INTERRUPTS, 0xb); /* not for ends of transfers */
    assert_true(f.intx.level);
    test_outw(f.t, UHCI_IO_STATUS, UHCI_STS_ERROR);
    assert_false(f.intx.level);
    test_outw(f.t, UHCI_IO_INTERRUPTS, 0xf);
    assert_true(f.intx.level);
    test_write(f.t, uhci_config_gpa(0xc0), 0, 2); /* not to the PCI line */
    assert_false(f.intx.level);
    test_write(f.t, uhci_config_gpa(0xc0), 0x2000, 2);
    device_test_round_trip(f.t, f.uhci);
    assert_true(f.intx.level);
    test_outw(f.t, UHCI_IO_STATUS, UHCI_STS_INT);
    assert_false(f.intx.level);
    assert_int_equal(element(), uhci_td(0)); /* the queue stays there */
}

/* The second TD of four is short: the queue stops there, and the third is as it was. */
static void a_short_packet_ends_the_queue(void **state)
{
    (void)state;
    assert_true(uhci_open(&f.d, STICK_PORT, STICK));
    clear_status();
    put_le64(ram(UHCI_SETUP), usb_driver_setup(0x80, 6, 0x100, 0, 18));
    uhci_add(&f.d, USB_PID_SETUP, STICK, 0, UHCI_SETUP, 8, 0);
    for (unsigned n = 0; n < 4; n++)
        uhci_add(&f.d, USB_PID_IN, STICK, 0, DATA + 8 * n, 8, UHCI_SPD);
    uhci_submit(&f.d);
    uhci_wait(&f.d, 2);
    assert_int_equal(element(), uhci_td(3) | UHCI_DEPTH);
    assert_int_equal(uhci_moved(uhci_td_status(&f.d, 3)), 2);
    assert_true(uhci_td_status(&f.d, 4) & UHCI_ACTIVE);
    assert_int_equal(status(), UHCI_STS_INT);
    assert_true(f.intx.level);
    test_outw(f.t, UHCI_IO_INTERRUPTS, 7); /* not for short packets */
    assert_false(f.intx.level);
    device_test_round_trip(f.t, f.stick); /* in the middle of a control transfer */
    uhci_add(&f.d, USB_PID_OUT, STICK, 0, 0, 0, UHCI_IOC);
    uhci_submit(&f.d);
    uhci_wait(&f.d, 1);
    assert_int_equal(uhci_td_status(&f.d, 0) & (UHCI_ACTIVE | UHCI_TD_ERRORS), 0);
    assert_true(f.intx.level);
}

/* Without the flag a short packet is like any other, and one that asks for more ends by a stall. */
static void stalls_and_babble_are_told(void **state)
{
    uint32_t errors;

    (void)state;
    assert_true(uhci_open(&f.d, KEYBOARD_PORT, KEYBOARD));
    assert_int_equal(uhci_control(&f.d, KEYBOARD, usb_driver_setup(0x80, 6, 0x5500, 0, 8), NULL),
                     STALLED);
    assert_int_equal(status(), UHCI_STS_INT | UHCI_STS_ERROR);
    clear_status();
    assert_int_equal(uhci_control(&f.d, KEYBOARD, usb_driver_setup(0, 9, 7, 0, 0), NULL), STALLED);
    uhci_move(&f.d, USB_PID_OUT, KEYBOARD, 3, DATA, 8, 8, &errors); /* no such endpoint */
    assert_int_equal(errors, STALLED);
    begin(USB_PID_IN, KEYBOARD, 1, 4, 0); /* too small for a report */
    uhci_wait(&f.d, 1);
    assert_true(uhci_td_status(&f.d, 0) & NAK);
    type(0x04, true);
    uhci_wait(&f.d, 1);
    assert_int_equal(uhci_td_status(&f.d, 0) & (UHCI_TD_ERRORS | UHCI_ACTIVE),
                     STALLED | BABBLE | NAK);
}

static void breadth_is_one_packet_a_queue(void **state)
{
    (void)state;
    assert_true(uhci_open(&f.d, STICK_PORT, STICK));
    put_le64(ram(UHCI_SETUP), usb_driver_setup(0x80, 6, 0x100, 0, 18));
    uhci_add(&f.d, USB_PID_SETUP, STICK, 0, UHCI_SETUP, 8, 0);
    for (unsigned n = 0; n < 3; n++)
        uhci_add(&f.d, USB_PID_IN, STICK, 0, DATA + 8 * n, 8, 0);
    for (unsigned n = 0; n < 3; n++)
        put_le32(ram(uhci_td(n)), uhci_td(n + 1)); /* not depth first */
    uhci_submit(&f.d);
    for (unsigned n = 1; n < 4; n++) {
        uhci_wait(&f.d, 1);
        assert_int_equal(element(), uhci_td(n));
    }
    uhci_wait(&f.d, 1);
    assert_int_equal(element(), UHCI_END);
    assert_int_equal(get_le16(ram(DATA) + 8), USB_VENDOR_STORAGE);
}

/* The queue leads back to itself, as drivers do it: all is done in one frame. */
static void a_loop_uses_the_rest_of_the_frame(void **state)
{
    (void)state;
    assert_true(uhci_open(&f.d, STICK_PORT, STICK));
    put_le64(ram(UHCI_SETUP), usb_driver_setup(0x80, 6, 0x100, 0, 18));
    uhci_add(&f.d, USB_PID_SETUP, STICK, 0, UHCI_SETUP, 8, 0);
    for (unsigned n = 0; n < 3; n++)
        uhci_add(&f.d, USB_PID_IN, STICK, 0, DATA + 8 * n, 8, 0);
    for (unsigned n = 0; n < 3; n++)
        put_le32(ram(uhci_td(n)), uhci_td(n + 1));
    uhci_put_queue(&f.d, UHCI_QUEUE + 16, UHCI_QUEUE | UHCI_QH, UHCI_END);
    uhci_put_queue(&f.d, UHCI_QUEUE, (UHCI_QUEUE + 16) | UHCI_QH, uhci_td(0));
    uhci_wait(&f.d, 1);
    assert_int_equal(element(), UHCI_END);
    assert_int_equal(uhci_moved(uhci_td_status(&f.d, 3)), 2);
}

/* A queue in a queue, TDs that lead to themselves, queues that do. */
static void hostile_loops_end_with_the_frame(void **state)
{
    (void)state;
    assert_true(uhci_open(&f.d, KEYBOARD_PORT, KEYBOARD));
    uhci_put_queue(&f.d, UHCI_QUEUE + 16, UHCI_QUEUE | UHCI_QH, UHCI_END);
    uhci_put_queue(&f.d, UHCI_QUEUE, UHCI_END, (UHCI_QUEUE + 16) | UHCI_QH);
    uhci_wait(&f.d, 10);
    uhci_add(&f.d, USB_PID_IN, KEYBOARD, 1, DATA, 8, 0);
    put_le32(ram(uhci_td(0)), uhci_td(0) | UHCI_DEPTH);
    uhci_submit(&f.d);
    type(0x04, true);
    uhci_wait(&f.d, 10); /* after the report it is not active any more */
    assert_int_equal(ram(DATA)[2], 0x04);
    uhci_fill_list(&f.d, uhci_td(0));
    uhci_wait(&f.d, 10);
    for (unsigned n = 0; n < 2000; n++) /* a chain without end that asks for nothing */
        uhci_put_queue(&f.d, 0x200000 + 16 * n, (0x200000 + 16 * ((n + 1) % 2000)) | UHCI_QH,
                       UHCI_END);
    uhci_fill_list(&f.d, 0x200000 | UHCI_QH);
    uhci_wait(&f.d, 10);
    assert_int_equal(status() & UHCI_STS_HALTED, 0);
}

static void what_makes_no_sense_halts_it(void **state)
{
    (void)state;
    uhci_add(&f.d, 0x55, 1, 1, DATA, 8, 0);
    uhci_submit(&f.d);
    uhci_wait(&f.d, 1);
    assert_int_equal(status(), UHCI_STS_HALTED | UHCI_STS_PROCESS);
    assert_int_equal(test_inw(f.t, UHCI_IO_COMMAND) & UHCI_CMD_RUN, 0);
    assert_true(f.intx.level);
    device_test_round_trip(f.t, f.uhci);
    uhci_driver_start(&f.d, f.t);
    assert_int_equal(status(), 0);
    begin(USB_PID_OUT, 1, 1, 1281, 0); /* longer than a frame */
    uhci_wait(&f.d, 1);
    assert_int_equal(status(), UHCI_STS_HALTED | UHCI_STS_PROCESS);
    uhci_driver_start(&f.d, f.t);
    uhci_fill_list(&f.d, RAM_BYTES | UHCI_QH);
    uhci_wait(&f.d, 1);
    assert_int_equal(status(), UHCI_STS_HALTED | UHCI_STS_SYSTEM);
    uhci_driver_start(&f.d, f.t);
    assert_true(uhci_open(&f.d, KEYBOARD_PORT, KEYBOARD));
    clear_status();
    uhci_add(&f.d, USB_PID_IN, KEYBOARD, 1, RAM_BYTES - 4, 8, 0);
    uhci_submit(&f.d);
    uhci_wait(&f.d, 1);
    assert_int_equal(status(), UHCI_STS_HALTED | UHCI_STS_SYSTEM);
    uhci_driver_start(&f.d, f.t);
    assert_true(uhci_open(&f.d, KEYBOARD_PORT, KEYBOARD));
}

/* ---- devices ---- */

static void keys_arrive_and_wake_it(void **state)
{
    struct uhci *s = uhci_of(f.uhci);

    (void)state;
    assert_true(uhci_open(&f.d, KEYBOARD_PORT, KEYBOARD));
    begin(USB_PID_IN, KEYBOARD, 1, 8, UHCI_IOC);
    uhci_wait(&f.d, 100);
    assert_int_equal(uhci_td_status(&f.d, 0) & (UHCI_ACTIVE | UHCI_TD_ERRORS), UHCI_ACTIVE | NAK);
    assert_int_equal(s->frames.idle, 32);
    device_test_round_trip(f.t, f.uhci);
    device_test_round_trip(f.t, f.keyboard);
    type(0x05, true);
    assert_int_equal(s->frames.idle, 0);
    uhci_wait(&f.d, 1);
    assert_int_equal(uhci_td_status(&f.d, 0) & (UHCI_ACTIVE | UHCI_TD_ERRORS), 0);
    assert_int_equal(uhci_moved(uhci_td_status(&f.d, 0)), 8);
    assert_int_equal(ram(DATA)[2], 0x05);
    assert_true(f.intx.level);
    assert_true(usb_is_asked(usb_device_of(f.keyboard)));
    uhci_wait(&f.d, 1500); /* the driver asks no more, so keys are for others */
    assert_false(usb_is_asked(usb_device_of(f.keyboard)));
    begin(USB_PID_IN, KEYBOARD, 1, 8, 0);
    uhci_wait(&f.d, 10);
    assert_true(usb_is_asked(usb_device_of(f.keyboard)));
}

static void a_suspended_port_wakes_the_host(void **state)
{
    (void)state;
    assert_true(uhci_open(&f.d, KEYBOARD_PORT, KEYBOARD));
    begin(USB_PID_IN, KEYBOARD, 1, 8, 0);
    uhci_wait(&f.d, 2);
    assert_int_equal(uhci_control(&f.d, KEYBOARD, usb_driver_setup(0, 3, 1, 0, 0), NULL), 0);
    begin(USB_PID_IN, KEYBOARD, 1, 8, 0);
    uhci_wait(&f.d, 2);
    uhci_set_port(&f.d, KEYBOARD_PORT, UHCI_PORT_ENABLED | UHCI_PORT_SUSPEND);
    assert_int_equal(uhci_port(&f.d, KEYBOARD_PORT), 0x1095);
    uhci_put_queue(&f.d, UHCI_QUEUE, UHCI_END, UHCI_END);
    clear_status();
    type(0x06, true);
    assert_int_equal(uhci_port(&f.d, KEYBOARD_PORT), 0x10d5);
    assert_int_equal(status(), UHCI_STS_RESUME);
    assert_true(f.intx.level);
    device_test_round_trip(f.t, f.uhci);
    uhci_set_port(&f.d, KEYBOARD_PORT, UHCI_PORT_ENABLED | UHCI_PORT_SUSPEND); /* it ends */
    assert_int_equal(uhci_port(&f.d, KEYBOARD_PORT), 0x0095);
    begin(USB_PID_IN, KEYBOARD, 1, 8, 0);
    uhci_wait(&f.d, 1);
    assert_int_equal(ram(DATA)[2], 0x06);
}

static void a_suspended_bus_sees_what_comes(void **state)
{
    (void)state;
    assert_true(uhci_open(&f.d, KEYBOARD_PORT, KEYBOARD));
    test_outw(f.t, UHCI_IO_COMMAND, UHCI_CMD_SUSPEND);
    clear_status();
    type(0x06, true); /* it was not allowed to wake */
    assert_int_equal(status(), UHCI_STS_HALTED);
    device_free(f.stick);
    assert_int_equal(status(), UHCI_STS_HALTED | UHCI_STS_RESUME);
    assert_int_equal(test_inw(f.t, UHCI_IO_COMMAND), UHCI_CMD_SUSPEND | UHCI_CMD_RESUME);
    assert_true(f.intx.level);
}

/* A hub whose changes nobody has read does not sleep. */
static void a_hub_with_changes_wakes_the_bus(void **state)
{
    (void)state;
    device_free(f.stick);
    device_test_add(f.t, &usb_hub_class, NULL);
    device_test_add(f.t, &usb_mouse_class, "bus=usb-hub,port=3");
    assert_true(uhci_open(&f.d, STICK_PORT, STICK));
    assert_int_equal(uhci_control(&f.d, STICK, usb_driver_setup(0, 3, 1, 0, 0), NULL),
                     0); /* it may */
    clear_status();
    test_outw(f.t, UHCI_IO_COMMAND, UHCI_CMD_RUN | UHCI_CMD_SUSPEND);
    assert_int_equal(status(), 0);
    test_outw(f.t, UHCI_IO_COMMAND, UHCI_CMD_RUN);
    assert_int_equal(uhci_control(&f.d, STICK, usb_driver_setup(0x23, 3, 8, 3, 0), NULL), 0);
    clear_status();
    test_outw(f.t, UHCI_IO_COMMAND, UHCI_CMD_RUN | UHCI_CMD_SUSPEND);
    assert_int_equal(status(), UHCI_STS_RESUME);
    test_outw(f.t, UHCI_IO_COMMAND, UHCI_CMD_RUN);
    clear_status();
    uhci_set_port(&f.d, STICK_PORT, UHCI_PORT_ENABLED | UHCI_PORT_SUSPEND);
    assert_int_equal(uhci_port(&f.d, STICK_PORT), 0x10d5);
    assert_int_equal(status(), UHCI_STS_RESUME);
}

static void a_stick_is_read_and_written(void **state)
{
    static const uint8_t read10[10] = {0x28, 0, 0, 0, 0, 8, 0, 0, 8};
    static const uint8_t write10[10] = {0x2a, 0, 0, 0, 0, 16, 0, 0, 2};
    static const uint8_t inquiry[6] = {0x12, 0, 0, 0, 36};
    uint8_t expected[8192];

    (void)state;
    assert_true(uhci_open(&f.d, STICK_PORT, STICK));
    assert_int_equal(uhci_scsi(&f.d, STICK, inquiry, 6, 36, true), 0);
    assert_int_equal(ram(DATA)[1], 0x80);                                /* removable */
    assert_int_equal(uhci_scsi(&f.d, STICK, read10, 10, 4096, true), 1); /* it has just come */
    assert_int_equal(uhci_scsi(&f.d, STICK, read10, 10, 4096, true), 0);
    disk_fill(expected, sizeof(expected), 5);
    assert_memory_equal(ram(DATA), expected + 4096, 4096);
    memset(ram(DATA), 0xa5, 1024);
    assert_int_equal(uhci_scsi(&f.d, STICK, write10, 10, 1024, false), 0);
    memset(ram(DATA), 0, 1024);
    assert_int_equal(
        uhci_scsi(&f.d, STICK, (uint8_t[10]){0x28, 0, 0, 0, 0, 16, 0, 0, 2}, 10, 1024, true), 0);
    assert_int_equal(ram(DATA)[1023], 0xa5);
}

static void a_hub_is_one_of_full_speed(void **state)
{
    struct device *hub, *mouse;
    struct error err = {0};

    (void)state;
    device_free(f.stick);
    hub = device_test_add(f.t, &usb_hub_class, NULL);
    mouse = device_test_add(f.t, &usb_mouse_class, "bus=usb-hub,port=3");
    f.stick = device_test_create(f.t, &usb_storage_class, "bus=usb-hub,port=4");
    assert_int_equal(device_set_pointer(f.stick, "drive", f.disk, &err), 0);
    device_test_attach(f.stick);
    assert_true(uhci_open(&f.d, STICK_PORT, STICK));
    for (unsigned port = 3; port <= 4; port++) {
        assert_int_equal(uhci_control(&f.d, STICK, usb_driver_setup(0x23, 3, 8, port, 0), NULL), 0);
        assert_int_equal(uhci_control(&f.d, STICK, usb_driver_setup(0xa3, 0, 0, port, 4), NULL), 0);
        assert_int_equal(get_le32(ram(UHCI_DATA)), 0x00010101); /* not high speed */
    }
    assert_int_equal(uhci_control(&f.d, 0, usb_driver_setup(0x80, 8, 0, 0, 1), NULL),
                     TIMEOUT | STALLED);
    assert_int_equal(uhci_control(&f.d, STICK, usb_driver_setup(0x23, 3, 4, 3, 0), NULL), 0);
    assert_int_equal(uhci_control(&f.d, 0, usb_driver_setup(0, 5, BEHIND_HUB, 0, 0), NULL), 0);
    assert_int_equal(uhci_control(&f.d, BEHIND_HUB, usb_driver_setup(0, 9, 1, 0, 0), NULL), 0);
    begin(USB_PID_IN, STICK, 1, 2, 0); /* ports that have changed */
    uhci_wait(&f.d, 1);
    assert_int_equal(ram(DATA)[0], 1 << 3 | 1 << 4);
    begin(USB_PID_IN, BEHIND_HUB, 1, 8, 0);
    uhci_wait(&f.d, 50);
    machine_lock(f.t->machine);
    input_buttons(input(), 1);
    machine_unlock(f.t->machine);
    uhci_wait(&f.d, 1);
    assert_int_equal(uhci_moved(uhci_td_status(&f.d, 0)), 5);
    assert_int_equal(ram(DATA)[0], 1);
    device_test_round_trip(f.t, hub);
    device_test_round_trip(f.t, mouse);
    device_free(mouse);
    assert_int_equal(uhci_control(&f.d, BEHIND_HUB, usb_driver_setup(0x80, 8, 0, 0, 1), NULL),
                     TIMEOUT | STALLED);
}

/* Requests with data for the device, and setups that come in the middle of others. */
static void control_transfers_are_put_together(void **state)
{
    struct usb_device *usb = usb_device_of(f.keyboard);

    (void)state;
    assert_true(uhci_open(&f.d, KEYBOARD_PORT, KEYBOARD));
    ram(UHCI_DATA)[0] = 0x02;
    assert_int_equal(uhci_control(&f.d, KEYBOARD, usb_driver_setup(0x21, 9, 0x200, 0, 1), NULL), 0);
    put_le64(ram(UHCI_SETUP), usb_driver_setup(0x21, 9, 0x200, 0, 20));
    uhci_add(&f.d, USB_PID_SETUP, KEYBOARD, 0, UHCI_SETUP, 8, 0);
    uhci_add(&f.d, USB_PID_OUT, KEYBOARD, 0, UHCI_DATA, 8, 0);
    uhci_submit(&f.d);
    uhci_wait(&f.d, 1);
    assert_int_equal(usb->request.done, 8);
    device_test_round_trip(f.t, f.keyboard);
    assert_int_equal(usb->request.done, 8);
    begin(USB_PID_IN, KEYBOARD, 0, 0, 0); /* its status, too early */
    uhci_wait(&f.d, 1);
    assert_true(uhci_td_status(&f.d, 0) & STALLED);
    begin(USB_PID_OUT, KEYBOARD, 0, 8, 0);
    uhci_wait(&f.d, 1);
    assert_true(uhci_td_status(&f.d, 0) & STALLED);
    begin(USB_PID_SETUP, KEYBOARD, 0, 7, 0);
    uhci_wait(&f.d, 1);
    assert_true(uhci_td_status(&f.d, 0) & STALLED);
    begin(USB_PID_SETUP, KEYBOARD, 1, 8, 0);
    uhci_wait(&f.d, 1);
    assert_true(uhci_td_status(&f.d, 0) & STALLED);
    assert_int_equal(uhci_control(&f.d, KEYBOARD, usb_driver_setup(0x80, 8, 0, 0, 1), NULL), 0);
    assert_int_equal(ram(UHCI_DATA)[0], 1);
}

static void states_that_cannot_be_are_refused(void **state)
{
    struct uhci *s = uhci_of(f.uhci);
    struct state_buffer saved = {0};
    struct error err = {0};

    (void)state;
    machine_lock(f.t->machine);
    s->status |= UHCI_STS_HALTED; /* and runs */
    assert_int_equal(state_save(&uhci_class.state, f.uhci, &saved, &err), 0);
    s->status &= (uint16_t)~UHCI_STS_HALTED;
    assert_int_equal(state_load(&uhci_class.state, f.uhci, saved.data, saved.size_bytes, &err),
                     -EINVAL);
    machine_unlock(f.t->machine);
    free(saved.data);
    assert_int_equal(status(), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(registers_tell_what_there_is),
        TEST(frames_are_counted_while_it_runs),
        TEST(each_frame_has_its_place_in_the_list),
        TEST(an_idle_controller_is_lazy_and_a_halted_one_does_nothing),
        TEST(a_port_is_reset_enabled_and_switched_off),
        TEST(devices_describe_themselves),
        TEST(nobody_is_tried_three_times),
        TEST(a_short_packet_ends_the_queue),
        TEST(stalls_and_babble_are_told),
        TEST(breadth_is_one_packet_a_queue),
        TEST(a_loop_uses_the_rest_of_the_frame),
        TEST(hostile_loops_end_with_the_frame),
        TEST(what_makes_no_sense_halts_it),
        TEST(keys_arrive_and_wake_it),
        TEST(a_suspended_port_wakes_the_host),
        TEST(a_suspended_bus_sees_what_comes),
        TEST(a_hub_with_changes_wakes_the_bus),
        TEST(a_stick_is_read_and_written),
        TEST(a_hub_is_one_of_full_speed),
        TEST(control_transfers_are_put_together),
        TEST(states_that_cannot_be_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
