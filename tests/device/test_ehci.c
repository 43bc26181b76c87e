/*
 * test_ehci.c - the EHCI controller, its companions, and the devices on them, driven by a guest's
 * drivers
 */
#include "cmocka_all.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "devices/devices.h"
#include "disk_test.h"
#include "ehci_driver.h"
#include "trapeze/block.h"
#include "trapeze/input.h"
#include "uhci_driver.h"

#define RAM_BYTES     (4u << 20)
#define DISK_BYTES    (2u << 20)
#define DATA          (EHCI_DATA + 0x1000)
#define KEYBOARD_PORT 1u
#define STICK_PORT    2u
#define KEYBOARD      5u /* addresses */
#define STICK         6u
#define HUB           7u
#define LINE_J        EHCI_PORT_LINE_J
#define HERE          (EHCI_PORT_CONNECTED | EHCI_PORT_POWER)

static struct {
    struct device_test *t;
    struct device *host, *uhci, *ehci, *stick, *keyboard;
    struct test_irq intx;
    struct block *disk;
    char path[64];
    struct ehci_driver d;
    struct uhci_driver u; /* of the first companion */
} f;

static void add_stick(const char *properties)
{
    struct error err = {0};

    f.stick = device_test_create(f.t, &usb_storage_class, properties);
    assert_int_equal(device_set_pointer(f.stick, "drive", f.disk, &err), 0);
    device_test_attach(f.stick);
}

static void build(bool has_companions)
{
    struct error err = {0};
    int fd;

    memset(&f, 0, sizeof(f));
    strcpy(f.path, "/tmp/test-ehci-XXXXXX");
    f.t = device_test_new(RAM_BYTES);
    fd = mkstemp(f.path);
    assert_true(fd >= 0 && ftruncate(fd, DISK_BYTES) == 0);
    close(fd);
    disk_write_image(f.path, DISK_BYTES, 5);
    f.disk = block_open(f.t->loop, f.path, &err);
    assert_non_null(f.disk);
    f.host = device_test_add(f.t, &pci_host_class, "ecam=0xe0000000");
    if (has_companions) {
        f.uhci = device_test_add(f.t, &uhci_class, "addr=3");
        device_test_add(f.t, &uhci_class, "addr=3.1");
    }
    f.ehci = device_test_add(f.t, &ehci_class, "addr=3.7");
    test_irq_connect(&f.intx, device_output(f.host, "pirq", pci_pirq(EHCI_SLOT, 4)));
}

static int set_up(void **state)
{
    (void)state;
    build(true);
    f.keyboard = device_test_add(f.t, &usb_kbd_class, NULL);
    add_stick("serial=S1");
    device_test_start(f.t);
    ehci_driver_start(&f.d, f.t);
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
    return ehci_ram(&f.d, gpa);
}

/* What is set and stays so until it is cleared. */
static uint32_t status(void)
{
    return ehci_reg(&f.d, EHCI_REG_STATUS) & EHCI_STS_KEPT;
}

static void clear_status(void)
{
    ehci_set(&f.d, EHCI_REG_STATUS, EHCI_STS_KEPT);
}

static void type(uint8_t usage, bool pressed)
{
    machine_lock(f.t->machine);
    input_key(machine_input(f.t->machine), usage, pressed);
    machine_unlock(f.t->machine);
}

/* One descriptor that is the queue's work; it is put there and not waited for. */
static void begin(enum ehci_pid pid, uint8_t address, uint8_t endpoint, unsigned size,
                  uint32_t flags)
{
    ehci_add(&f.d, pid, DATA, size, flags);
    ehci_submit(&f.d, address, endpoint, 512, 0);
}

static uint32_t overlay(void)
{
    return get_le32(ram(EHCI_QUEUE) + 24);
}

static void start_companion(void)
{
    uhci_driver_start(&f.u, f.t);
}

/* ---- the controller ---- */

static void registers_tell_what_there_is(void **state)
{
    (void)state;
    assert_int_equal(test_read(f.t, ehci_config_gpa(0), 4), 0x293a8086);
    assert_int_equal(test_read(f.t, ehci_config_gpa(8), 4), 0x0c032003);
    assert_int_equal(test_read(f.t, ehci_config_gpa(0x60), 2), 0x2020);
    test_write(f.t, ehci_config_gpa(0x61), 0xff, 1);
    assert_int_equal(test_read(f.t, ehci_config_gpa(0x61), 1), 0x3f);
    assert_int_equal(test_read(f.t, EHCI_MMIO, 1), 0x20);
    assert_int_equal(test_read(f.t, EHCI_MMIO + 2, 2), 0x0100);
    assert_int_equal(ehci_reg(&f.d, 4), 0x2206); /* six ports, two companions with two each */
    assert_int_equal(ehci_reg(&f.d, 8), 0x0002);
    assert_int_equal(ehci_reg(&f.d, EHCI_REG_COMMAND), 0x80031);
    assert_int_equal(ehci_reg(&f.d, EHCI_REG_STATUS), 0xc000 | EHCI_STS_PORT);
    ehci_set(&f.d, EHCI_REG_COMMAND, 0x80010);
    assert_int_equal(ehci_reg(&f.d, EHCI_REG_STATUS), 0x1000 | EHCI_STS_PORT);
    ehci_set(&f.d, EHCI_REG_PERIODIC, 0x123456ff);
    ehci_set(&f.d, EHCI_REG_ASYNC, 0x123456ff);
    assert_int_equal(ehci_reg(&f.d, EHCI_REG_PERIODIC), 0x12345000);
    assert_int_equal(ehci_reg(&f.d, EHCI_REG_ASYNC), 0x123456e0);
    ehci_set(&f.d, EHCI_REG_INTERRUPTS, 0xffffffff);
    assert_int_equal(ehci_reg(&f.d, EHCI_REG_INTERRUPTS), 0x3f);
    assert_int_equal(ehci_reg(&f.d, 0x30), 0);         /* no addresses of 64 bits */
    assert_int_equal(ehci_reg(&f.d, 0x64 + 4 * 6), 0); /* no more ports */
    assert_int_equal(ehci_port(&f.d, 6), EHCI_PORT_POWER);
    device_test_round_trip(f.t, f.ehci);
    ehci_set(&f.d, EHCI_REG_COMMAND, EHCI_CMD_RESET);
    assert_int_equal(ehci_reg(&f.d, EHCI_REG_COMMAND), 0x80000);
    assert_int_equal(ehci_reg(&f.d, EHCI_REG_STATUS), 0x1000);
    assert_int_equal(ehci_reg(&f.d, EHCI_REG_CONFIGURED), 0);
    assert_false(f.intx.level);
}

static void frames_are_counted_and_the_list_begins_again(void **state)
{
    uint32_t before = ehci_reg(&f.d, EHCI_REG_FRAME);

    (void)state;
    device_test_advance_ns(f.t, 10 * USB_FRAME_NS + USB_FRAME_NS / 2);
    assert_int_equal(ehci_reg(&f.d, EHCI_REG_FRAME), before + 84);
    ehci_set(&f.d, EHCI_REG_FRAME, 7); /* not while it runs */
    assert_int_equal(ehci_reg(&f.d, EHCI_REG_FRAME), before + 84);
    ehci_set(&f.d, EHCI_REG_COMMAND, 0);
    ehci_set(&f.d, EHCI_REG_FRAME, 0x3ff0);
    clear_status();
    ehci_set(&f.d, EHCI_REG_INTERRUPTS, EHCI_STS_ROLLOVER);
    ehci_set(&f.d, EHCI_REG_COMMAND, EHCI_CMD_RUN);
    ehci_wait(&f.d, 1);
    assert_int_equal(status(), 0);
    ehci_wait(&f.d, 5);
    assert_int_equal(ehci_reg(&f.d, EHCI_REG_FRAME) & ~7u, 0x20);
    assert_int_equal(status(), EHCI_STS_ROLLOVER);
    assert_true(f.intx.level);
    clear_status();
    assert_false(f.intx.level);
    ehci_set(&f.d, EHCI_REG_COMMAND, EHCI_CMD_RUN | 2u << 2); /* a list of 256 */
    ehci_wait(&f.d, 240);
    assert_int_equal(status(), 0);
    ehci_wait(&f.d, 24);
    assert_int_equal(status(), EHCI_STS_ROLLOVER);
    clear_status();
    device_test_starve_ns(f.t, 300 * USB_FRAME_NS); /* frames are lost */
    assert_int_equal(status(), EHCI_STS_ROLLOVER);
}

/* Without a schedule it costs next to nothing, and is there at once when one is switched on. */
static void without_schedules_frames_are_only_counted(void **state)
{
    struct ehci *s = ehci_of(f.ehci);

    (void)state;
    ehci_set(&f.d, EHCI_REG_COMMAND, EHCI_CMD_RUN);
    ehci_wait(&f.d, 1000);
    assert_int_equal(s->frames.pace, 256);
    device_test_round_trip(f.t, f.ehci);
    assert_int_equal(s->frames.pace, 256);
    begin(EHCI_IN, 9, 1, 8, 0); /* nobody is there */
    ehci_set(&f.d, EHCI_REG_COMMAND, EHCI_CMD_RUN | EHCI_CMD_ASYNC);
    ehci_wait(&f.d, 1);
    assert_int_equal(s->frames.pace, 0);
    assert_true(overlay() & EHCI_TIMEOUT);
    ehci_set(&f.d, EHCI_REG_COMMAND, 0);
    assert_false(timer_is_armed(&s->frames.timer));
    test_write(f.t, ehci_config_gpa(PCI_COMMAND), PCI_COMMAND_MEMORY, 2); /* no master */
    ehci_set(&f.d, EHCI_REG_COMMAND, EHCI_CMD_RUN | EHCI_CMD_ASYNC);
    begin(EHCI_IN, 9, 1, 8, 0);
    ehci_wait(&f.d, 20);
    assert_int_equal(overlay(), 0);
}

/* ---- ports ---- */

static void ports_are_the_companions_until_it_is_configured(void **state)
{
    (void)state;
    start_companion();
    assert_int_equal(uhci_port(&f.u, KEYBOARD_PORT), 0x0080);
    assert_int_equal(ehci_port(&f.d, KEYBOARD_PORT), HERE | EHCI_PORT_CHANGE | LINE_J);
    ehci_set(&f.d, EHCI_REG_CONFIGURED, 0);
    assert_int_equal(ehci_port(&f.d, KEYBOARD_PORT),
                     EHCI_PORT_POWER | EHCI_PORT_COMPANION | EHCI_PORT_CHANGE);
    assert_int_equal(uhci_port(&f.u, KEYBOARD_PORT), 0x0093);
    assert_int_equal(uhci_port(&f.u, STICK_PORT), 0x0093);
    ehci_set_port(&f.d, STICK_PORT, 0); /* that is not asked */
    assert_true(ehci_port(&f.d, STICK_PORT) & EHCI_PORT_COMPANION);
    assert_true(uhci_open(&f.u, STICK_PORT, STICK));       /* of full speed */
    assert_int_equal(ehci_port(&f.d, 5), EHCI_PORT_POWER); /* it has no companion */
    clear_status();
    ehci_set(&f.d, EHCI_REG_CONFIGURED, 1);
    assert_int_equal(status(), EHCI_STS_PORT);
    assert_true(f.intx.level);
    assert_int_equal(usb_device_of(f.stick)->address, 0);
    assert_int_equal(uhci_port(&f.u, STICK_PORT), 0x008a);
    assert_true(ehci_open(&f.d, STICK_PORT, STICK));
    ehci_set(&f.d, EHCI_REG_COMMAND, EHCI_CMD_RESET); /* the companions have them again */
    assert_true(uhci_open(&f.u, STICK_PORT, STICK));
    assert_true(uhci_open(&f.u, KEYBOARD_PORT, KEYBOARD));
}

static void what_is_not_of_high_speed_goes_to_the_companion(void **state)
{
    (void)state;
    start_companion();
    ehci_reset_port(&f.d, KEYBOARD_PORT);
    assert_int_equal(ehci_port(&f.d, KEYBOARD_PORT), HERE | LINE_J); /* not enabled */
    clear_status();
    ehci_set_port(&f.d, KEYBOARD_PORT, EHCI_PORT_COMPANION);
    assert_int_equal(ehci_port(&f.d, KEYBOARD_PORT),
                     EHCI_PORT_POWER | EHCI_PORT_COMPANION | EHCI_PORT_CHANGE);
    assert_int_equal(status(), EHCI_STS_PORT);
    assert_true(uhci_open(&f.u, KEYBOARD_PORT, KEYBOARD));
    uhci_add(&f.u, USB_PID_IN, KEYBOARD, 1, UHCI_DATA, 8, 0);
    uhci_submit(&f.u);
    uhci_wait(&f.u, 1);
    type(0x04, true);
    uhci_wait(&f.u, 1);
    assert_int_equal(uhci_ram(&f.u, UHCI_DATA)[2], 0x04);
    device_free(f.keyboard); /* and the port comes back */
    assert_int_equal(uhci_port(&f.u, KEYBOARD_PORT), 0x008a);
    assert_int_equal(ehci_port(&f.d, KEYBOARD_PORT) & EHCI_PORT_COMPANION, 0);
    f.keyboard = device_test_add(f.t, &usb_kbd_class, NULL);
    assert_true(ehci_port(&f.d, KEYBOARD_PORT) & EHCI_PORT_CONNECTED);
    ehci_set_port(&f.d, KEYBOARD_PORT, EHCI_PORT_COMPANION);
    ehci_set_port(&f.d, KEYBOARD_PORT, 0); /* software wants it back */
    assert_true(ehci_port(&f.d, KEYBOARD_PORT) & EHCI_PORT_CONNECTED);
    ehci_set_port(&f.d, 6, EHCI_PORT_COMPANION); /* there is none */
    assert_int_equal(ehci_port(&f.d, 6), EHCI_PORT_POWER);
}

/* Who has a port is state; the device is where it was. */
static void owners_are_saved(void **state)
{
    (void)state;
    ehci_set_port(&f.d, KEYBOARD_PORT, EHCI_PORT_COMPANION);
    device_test_round_trip(f.t, f.ehci);
    assert_ptr_equal(usb_device_of(f.keyboard)->port->controller, f.uhci);
    assert_ptr_equal(usb_device_of(f.stick)->port->controller, f.ehci);
    assert_int_equal(usb_device_of(f.stick)->description->speed, USB_HIGH);
}

static void a_port_is_reset_suspended_and_switched_off(void **state)
{
    (void)state;
    ehci_set_port(&f.d, STICK_PORT, EHCI_PORT_CHANGE);
    assert_int_equal(ehci_port(&f.d, STICK_PORT), HERE | LINE_J);
    ehci_set_port(&f.d, STICK_PORT, EHCI_PORT_ENABLED); /* that takes a reset */
    assert_int_equal(ehci_port(&f.d, STICK_PORT), HERE | LINE_J);
    ehci_set_port(&f.d, STICK_PORT, EHCI_PORT_RESET);
    assert_int_equal(ehci_port(&f.d, STICK_PORT), HERE | LINE_J | EHCI_PORT_RESET);
    ehci_set_port(&f.d, STICK_PORT, 0);
    assert_int_equal(ehci_port(&f.d, STICK_PORT), HERE | EHCI_PORT_ENABLED);
    ehci_set_port(&f.d, STICK_PORT, EHCI_PORT_ENABLED | EHCI_PORT_SUSPEND);
    assert_int_equal(ehci_port(&f.d, STICK_PORT), HERE | EHCI_PORT_ENABLED | EHCI_PORT_SUSPEND);
    ehci_set_port(&f.d, STICK_PORT, EHCI_PORT_ENABLED); /* only a resume ends it */
    assert_int_equal(ehci_port(&f.d, STICK_PORT), HERE | EHCI_PORT_ENABLED | EHCI_PORT_SUSPEND);
    ehci_set_port(&f.d, STICK_PORT, EHCI_PORT_ENABLED | EHCI_PORT_RESUME);
    assert_int_equal(ehci_port(&f.d, STICK_PORT),
                     HERE | EHCI_PORT_ENABLED | EHCI_PORT_SUSPEND | EHCI_PORT_RESUME);
    device_test_round_trip(f.t, f.ehci);
    ehci_set_port(&f.d, STICK_PORT, EHCI_PORT_ENABLED);
    assert_int_equal(ehci_port(&f.d, STICK_PORT), HERE | EHCI_PORT_ENABLED);
    clear_status();
    device_free(f.stick);
    assert_int_equal(status(), EHCI_STS_PORT);
    assert_int_equal(ehci_port(&f.d, STICK_PORT),
                     EHCI_PORT_POWER | EHCI_PORT_CHANGE | EHCI_PORT_OFF);
    ehci_set_port(&f.d, STICK_PORT, EHCI_PORT_CHANGE | EHCI_PORT_OFF | EHCI_PORT_WAKE);
    assert_int_equal(ehci_port(&f.d, STICK_PORT), EHCI_PORT_POWER | EHCI_PORT_WAKE);
    add_stick(NULL);
    assert_true(ehci_open(&f.d, STICK_PORT, STICK));
    ehci_set_port(&f.d, STICK_PORT, 0);
    assert_int_equal(ehci_port(&f.d, STICK_PORT), HERE | LINE_J);
    assert_int_equal(ehci_control(&f.d, STICK, usb_driver_setup(0x80, 8, 0, 0, 1), NULL),
                     EHCI_HALTED | EHCI_TIMEOUT);
}

static void without_companions_there_is_only_high_speed(void **state)
{
    struct device *keyboard;
    struct error err = {0};

    tear_down(state);
    build(false);
    add_stick(NULL);
    device_test_start(f.t);
    ehci_driver_start(&f.d, f.t);
    assert_int_equal(ehci_reg(&f.d, 4), 0x0006);
    ehci_set_port(&f.d, 1, EHCI_PORT_COMPANION);
    assert_true(ehci_open(&f.d, 1, STICK));
    keyboard = device_test_create(f.t, &usb_kbd_class, NULL);
    machine_lock(f.t->machine);
    assert_int_equal(device_attach(keyboard, &err), -ENODEV);
    machine_unlock(f.t->machine);
    device_free(keyboard);
}

/* In a slot with two EHCI controllers the first has all companions. */
static void a_companion_is_that_of_one(void **state)
{
    struct device *other = device_test_add(f.t, &ehci_class, "addr=3.6");

    (void)state;
    assert_int_equal(ehci_of(other)->companions, 0);
    assert_int_equal(ehci_of(f.ehci)->companions, 2);
    start_companion();
    ehci_set_port(&f.d, STICK_PORT, EHCI_PORT_COMPANION);
    assert_true(uhci_open(&f.u, STICK_PORT, STICK));
}

/* ---- transfers ---- */

static void devices_describe_themselves(void **state)
{
    unsigned size;

    (void)state;
    ehci_reset_port(&f.d, STICK_PORT);
    clear_status();
    assert_int_equal(ehci_control(&f.d, 0, usb_driver_setup(0x80, 6, 0x100, 0, 64), &size), 0);
    assert_int_equal(size, 18); /* it was short, and the status stage came next */
    assert_int_equal(get_le32(ram(EHCI_DATA)), 0x02000112);
    assert_int_equal(ram(EHCI_DATA)[7], 64);
    assert_int_equal(status(), EHCI_STS_INT);
    assert_true(f.intx.level);
    assert_int_equal(ehci_control(&f.d, 0, usb_driver_setup(0, 5, STICK, 0, 0), NULL), 0);
    assert_int_equal(ehci_control(&f.d, STICK, usb_driver_setup(0x80, 6, 0x200, 0, 255), &size), 0);
    assert_int_equal(size, 32);
    assert_int_equal(get_le16(ram(EHCI_DATA) + 18 + 4), 512); /* packets of high speed */
    assert_int_equal(ehci_control(&f.d, 0, usb_driver_setup(0x80, 8, 0, 0, 1), NULL),
                     EHCI_HALTED | EHCI_TIMEOUT);
}

static void nobody_is_tried_three_times(void **state)
{
    (void)state;
    clear_status();
    begin(EHCI_IN, 9, 1, 8, EHCI_IOC);
    for (unsigned tries = 2; tries; tries--) {
        ehci_wait(&f.d, 1);
        assert_int_equal(overlay() & 0xcff, EHCI_ACTIVE | EHCI_TIMEOUT | tries << 10);
        assert_int_equal(status(), 0);
        assert_int_equal(ehci_td_token(&f.d, 0) & 0xff, EHCI_ACTIVE);
    }
    ehci_wait(&f.d, 1);
    assert_int_equal(overlay() & 0xcff, EHCI_HALTED | EHCI_TIMEOUT);
    assert_int_equal(ehci_td_token(&f.d, 0), overlay());
    assert_int_equal(status(), EHCI_STS_INT | EHCI_STS_ERROR);
    assert_true(f.intx.level);
    ehci_set(&f.d, EHCI_REG_STATUS, EHCI_STS_ERROR);
    assert_true(f.intx.level);
    ehci_set(&f.d, EHCI_REG_INTERRUPTS, 0x3e);
    assert_false(f.intx.level);
    begin(EHCI_IN, 9, 1, 8, 0);
    put_le32(ram(ehci_td(0)) + 8, EHCI_ACTIVE | EHCI_IN << 8); /* for ever */
    ehci_wait(&f.d, 50);
    assert_int_equal(overlay(), EHCI_ACTIVE | EHCI_TIMEOUT | EHCI_IN << 8);
    begin(3, 9, 1, 8, 0); /* no such packet */
    ehci_wait(&f.d, 20);
    assert_int_equal(overlay() & 0xff, EHCI_HALTED | EHCI_TIMEOUT);
}

static void stalls_babble_and_bad_buffers_halt_the_queue(void **state)
{
    (void)state;
    assert_true(ehci_open(&f.d, STICK_PORT, STICK));
    clear_status();
    assert_int_equal(ehci_control(&f.d, STICK, usb_driver_setup(0x80, 6, 0x5500, 0, 8), NULL),
                     EHCI_HALTED);
    assert_int_equal(status(), EHCI_STS_ERROR);
    assert_int_equal(overlay() & 0xc00, 0xc00);        /* that was no lack of answers */
    ehci_add(&f.d, EHCI_OUT, DATA + 0xff0, 0x4011, 0); /* one byte more than five pages */
    ehci_submit(&f.d, STICK, 2, 512, 0);
    ehci_wait(&f.d, 9);
    assert_int_equal(overlay() & 0xff, EHCI_HALTED | EHCI_BUFFER);
    ehci_add(&f.d, EHCI_OUT, DATA, 31, 5u << 12); /* begins behind the last page */
    ehci_submit(&f.d, STICK, 2, 512, 0);
    ehci_wait(&f.d, 9);
    assert_int_equal(overlay() & 0xff, EHCI_HALTED | EHCI_BUFFER);
    memset(ram(DATA), 0, 31); /* a command that makes no sense */
    assert_int_equal(ehci_move(&f.d, EHCI_OUT, STICK, 2, DATA, 31), EHCI_HALTED);
    assert_int_equal(ehci_move(&f.d, EHCI_IN, STICK, 1, DATA, 13), EHCI_HALTED);
}

/* Where the overlay is after a transfer: bytes, page, place, and the next packet's toggle. */
static void a_transfer_is_written_back(void **state)
{
    static const uint8_t read10[10] = {0x28, 0, 0, 0, 0, 0, 0, 0, 20};

    (void)state;
    assert_true(ehci_open(&f.d, STICK_PORT, STICK));
    assert_int_equal(ehci_scsi(&f.d, STICK, read10, 10, 512, true), 1); /* it has just come */
    memset(ram(EHCI_DATA), 0, 31);
    put_le32(ram(EHCI_DATA), 0x43425355);
    put_le32(ram(EHCI_DATA) + 8, 10240);
    ram(EHCI_DATA)[12] = 0x80;
    ram(EHCI_DATA)[14] = 10;
    memcpy(ram(EHCI_DATA) + 15, read10, 10);
    assert_int_equal(ehci_move(&f.d, EHCI_OUT, STICK, 2, EHCI_DATA, 31), 0);
    assert_int_equal(overlay() >> 31, 1); /* one packet */
    ehci_add(&f.d, EHCI_IN, DATA + 0x400, 10240, EHCI_TOGGLE);
    ehci_add(&f.d, EHCI_IN, DATA + 0x8000, 13, EHCI_IOC); /* with the toggle as it comes */
    ehci_submit(&f.d, STICK, 1, 512, 0);
    put_le32(ram(EHCI_QUEUE) + 24, EHCI_TOGGLE);
    assert_true(ehci_finish(&f.d, 2));
    assert_int_equal(ehci_td_token(&f.d, 0), 0xc00 | EHCI_IN << 8 | 2u << 12 | EHCI_TOGGLE);
    assert_int_equal(ehci_td_token(&f.d, 1), 0xc00 | EHCI_IN << 8 | EHCI_IOC);
    assert_int_equal(overlay(), ehci_td_token(&f.d, 1));
    assert_int_equal(get_le32(ram(EHCI_QUEUE) + 12), ehci_td(1));
    assert_int_equal(get_le32(ram(EHCI_QUEUE) + 28), DATA + 0x8000 + 13);
    assert_int_equal(get_le32(ram(DATA + 0x8000)), 0x53425355);
    device_test_round_trip(f.t, f.stick);
}

static void a_stick_is_read_and_written(void **state)
{
    static const uint8_t read10[10] = {0x28, 0, 0, 0, 0, 8, 0, 0, 128};
    static const uint8_t write10[10] = {0x2a, 0, 0, 0, 0, 16, 0, 0, 64};
    static const uint8_t inquiry[6] = {0x12, 0, 0, 0, 36};
    uint8_t *expected = malloc(DISK_BYTES);

    (void)state;
    assert_true(ehci_open(&f.d, STICK_PORT, STICK));
    assert_int_equal(ehci_scsi(&f.d, STICK, inquiry, 6, 36, true), 0);
    assert_int_equal(ram(DATA)[1], 0x80);                                 /* removable */
    assert_int_equal(ehci_scsi(&f.d, STICK, read10, 10, 65536, true), 1); /* it has just come */
    assert_int_equal(ehci_scsi(&f.d, STICK, read10, 10, 65536, true), 0);
    disk_fill(expected, DISK_BYTES, 5);
    assert_memory_equal(ram(DATA), expected + 4096, 65536);
    memset(ram(DATA), 0xa5, 32768);
    assert_int_equal(ehci_scsi(&f.d, STICK, write10, 10, 32768, false), 0);
    memset(ram(DATA), 0, 32768);
    assert_int_equal(
        ehci_scsi(&f.d, STICK, (uint8_t[10]){0x28, 0, 0, 0, 0, 16, 0, 0, 64}, 10, 32768, true), 0);
    assert_int_equal(ram(DATA)[0], 0xa5);
    assert_int_equal(ram(DATA)[32767], 0xa5);
    free(expected);
}

/* The count is in the overlay; at zero the queue waits for the next frame. */
static void answers_that_say_not_yet_are_counted(void **state)
{
    uint32_t idle;

    (void)state;
    assert_true(ehci_open(&f.d, STICK_PORT, STICK));
    begin(EHCI_IN, STICK, 1, 13, 0);
    put_le32(ram(EHCI_QUEUE) + 4, get_le32(ram(EHCI_QUEUE) + 4) | 4u << 28);
    clear_status();
    ehci_wait(&f.d, 1);
    assert_int_equal(get_le32(ram(EHCI_QUEUE) + 20), EHCI_END | 3u << 1);
    assert_int_equal(overlay() & 0xcff, EHCI_ACTIVE | 0xc00); /* that costs no tries */
    put_le32(ram(EHCI_QUEUE) + 20, EHCI_END);
    ehci_wait(&f.d, 1); /* it is loaded again */
    assert_int_equal(get_le32(ram(EHCI_QUEUE) + 20), EHCI_END | 3u << 1);
    begin(EHCI_IN, STICK, 1, 13, 0); /* without a count */
    ehci_wait(&f.d, 50);
    idle = get_le32(ram(EHCI_QUEUE) + 20);
    assert_int_equal(idle, EHCI_END);
    assert_int_equal(status(), 0);
}

static void a_doorbell_is_answered(void **state)
{
    (void)state;
    clear_status();
    ehci_set(&f.d, EHCI_REG_COMMAND, 0x80031 | EHCI_CMD_DOORBELL);
    assert_true(ehci_reg(&f.d, EHCI_REG_COMMAND) & EHCI_CMD_DOORBELL);
    ehci_set(&f.d, EHCI_REG_COMMAND, 0x80031); /* it cannot be taken back */
    device_test_round_trip(f.t, f.ehci);
    assert_true(ehci_reg(&f.d, EHCI_REG_COMMAND) & EHCI_CMD_DOORBELL);
    ehci_wait(&f.d, 1);
    assert_int_equal(ehci_reg(&f.d, EHCI_REG_COMMAND), 0x80031);
    assert_int_equal(status(), EHCI_STS_ADVANCED);
    assert_true(f.intx.level);
    assert_int_equal(ehci_reg(&f.d, EHCI_REG_ASYNC), EHCI_HEAD);
}

/* ---- hubs, and the periodic list ---- */

static struct device *add_hub(void)
{
    struct device *hub;

    device_free(f.stick);
    hub = device_test_add(f.t, &usb_hub_class, "port=2");
    f.stick = NULL;
    assert_true(ehci_open(&f.d, STICK_PORT, HUB));
    return hub;
}

static void power(unsigned port)
{
    assert_int_equal(ehci_control(&f.d, HUB, usb_driver_setup(0x23, 3, 8, (uint16_t)port, 0), NULL),
                     0);
}

/* A device on a port of the hub gets an address. */
static void open_behind(unsigned port, uint32_t speed, uint8_t address)
{
    power(port);
    assert_int_equal(ehci_control(&f.d, HUB, usb_driver_setup(0x23, 3, 4, (uint16_t)port, 0), NULL),
                     0);
    ehci_behind(&f.d, HUB, port, speed);
    assert_int_equal(ehci_control(&f.d, 0, usb_driver_setup(0, 5, address, 0, 0), NULL), 0);
    assert_int_equal(ehci_control(&f.d, address, usb_driver_setup(0, 9, 1, 0, 0), NULL), 0);
}

/* An interrupt transfer, which the list leads to through what is passed over. */
static void each_frame_has_its_place_in_the_list(void **state)
{
    uint32_t queue = EHCI_QUEUE + 64;

    (void)state;
    add_hub();
    device_test_add(f.t, &usb_mouse_class, "bus=usb-hub,port=3");
    power(3);
    clear_status();
    ehci_add(&f.d, EHCI_IN, DATA, 2, EHCI_IOC);
    f.d.tds = 0;
    ehci_put_queue(&f.d, queue, EHCI_END, HUB | 1u << 8 | 2u << 16 | EHCI_HIGH_SPEED, EHCI_MULTIPLE,
                   ehci_td(0)); /* in no microframe */
    put_le32(ram(EHCI_DATA + 0x800), queue | EHCI_QH);
    put_le32(ram(EHCI_DATA + 0x840), (EHCI_DATA + 0x800) | 4); /* split isochronous */
    ehci_set(&f.d, EHCI_REG_COMMAND, 0);
    ehci_set(&f.d, EHCI_REG_FRAME, 0);
    put_le32(ram(EHCI_LIST + 4 * 200), (EHCI_DATA + 0x840) | 0); /* isochronous */
    ehci_set(&f.d, EHCI_REG_COMMAND, 0x80011);
    ehci_wait(&f.d, 210);
    assert_int_equal(ehci_td_token(&f.d, 0) & 0xff, EHCI_ACTIVE);
    put_le32(ram(queue) + 8, EHCI_MULTIPLE | 1);
    ehci_wait(&f.d, 980);
    assert_int_equal(ehci_td_token(&f.d, 0) & 0xff, EHCI_ACTIVE);
    ehci_wait(&f.d, 50);
    assert_int_equal(ehci_td_token(&f.d, 0) & 0xff, 0);
    assert_int_equal(get_le16(ram(DATA)), 1 << 3);
    assert_true(status() & EHCI_STS_INT);
}

static void slow_devices_are_reached_through_the_hub(void **state)
{
    struct device *hub, *mouse;

    (void)state;
    hub = add_hub();
    mouse = device_test_add(f.t, &usb_mouse_class, "bus=usb-hub,port=3");
    add_stick("bus=usb-hub,port=4");
    power(3);
    assert_int_equal(ehci_control(&f.d, HUB, usb_driver_setup(0xa3, 0, 0, 3, 4), NULL), 0);
    assert_int_equal(get_le32(ram(EHCI_DATA)), 0x00010101); /* full speed */
    open_behind(3, EHCI_FULL_SPEED, KEYBOARD);
    begin(EHCI_IN, KEYBOARD, 1, 5, 0);
    ehci_wait(&f.d, 50);
    assert_int_equal(ehci_td_token(&f.d, 0) & 0xff, EHCI_ACTIVE);
    machine_lock(f.t->machine);
    input_buttons(machine_input(f.t->machine), 1);
    machine_unlock(f.t->machine);
    ehci_wait(&f.d, 1);
    assert_int_equal(ehci_td_token(&f.d, 0) & 0xff, 0);
    assert_int_equal(ram(DATA)[0], 1);
    ehci_behind(&f.d, HUB, 4, EHCI_FULL_SPEED); /* that is not where it is */
    assert_int_equal(ehci_control(&f.d, KEYBOARD, usb_driver_setup(0x80, 8, 0, 0, 1), NULL),
                     EHCI_HALTED | EHCI_TIMEOUT);
    ehci_behind(&f.d, 0, 0, 0);
    assert_int_equal(ehci_control(&f.d, KEYBOARD, usb_driver_setup(0x80, 8, 0, 0, 1), NULL),
                     EHCI_HALTED | EHCI_TIMEOUT);
    power(4);
    assert_int_equal(ehci_control(&f.d, HUB, usb_driver_setup(0x23, 3, 4, 4, 0), NULL), 0);
    assert_int_equal(ehci_control(&f.d, 0, usb_driver_setup(0, 5, STICK, 0, 0), NULL), 0);
    assert_int_equal(ehci_control(&f.d, STICK, usb_driver_setup(0x80, 6, 0x100, 0, 18), NULL), 0);
    assert_int_equal(ram(EHCI_DATA)[7], 64); /* high speed */
    device_test_round_trip(f.t, hub);
    device_test_round_trip(f.t, mouse);
}

/* What happens on a hub that sleeps, or had happened before it did, wakes the host. */
static void a_suspended_hub_wakes_the_host(void **state)
{
    struct device *mouse;

    (void)state;
    add_hub();
    power(3);
    ehci_set_port(&f.d, STICK_PORT, EHCI_PORT_ENABLED | EHCI_PORT_SUSPEND);
    clear_status();
    mouse = device_test_add(f.t, &usb_mouse_class, "bus=usb-hub,port=3");
    assert_int_equal(status(), 0); /* it may not */
    ehci_set_port(&f.d, STICK_PORT, EHCI_PORT_ENABLED | EHCI_PORT_RESUME);
    ehci_set_port(&f.d, STICK_PORT, EHCI_PORT_ENABLED);
    assert_int_equal(ehci_control(&f.d, HUB, usb_driver_setup(0, 3, 1, 0, 0), NULL), 0);
    clear_status();
    ehci_set_port(&f.d, STICK_PORT, EHCI_PORT_ENABLED | EHCI_PORT_SUSPEND);
    assert_int_equal(ehci_port(&f.d, STICK_PORT),
                     HERE | EHCI_PORT_ENABLED | EHCI_PORT_SUSPEND | EHCI_PORT_RESUME);
    assert_int_equal(status(), EHCI_STS_PORT);
    assert_true(f.intx.level);
    ehci_set_port(&f.d, STICK_PORT, EHCI_PORT_ENABLED);
    assert_int_equal(ehci_control(&f.d, HUB, usb_driver_setup(0x23, 1, 16, 3, 0), NULL), 0);
    clear_status();
    ehci_set_port(&f.d, STICK_PORT, EHCI_PORT_ENABLED | EHCI_PORT_SUSPEND);
    assert_int_equal(status(), 0);
    device_free(mouse);
    assert_int_equal(status(), EHCI_STS_PORT);
    assert_true(ehci_port(&f.d, STICK_PORT) & EHCI_PORT_RESUME);
}

/* ---- what a driver should not do ---- */

/* Queues and descriptors that lead to themselves, circles without a head. */
static void hostile_lists_end_with_the_frame(void **state)
{
    uint32_t chain = 0x200000;

    (void)state;
    ehci_put_queue(&f.d, EHCI_QUEUE, EHCI_QUEUE | EHCI_QH, EHCI_HIGH_SPEED, EHCI_MULTIPLE,
                   EHCI_END); /* not the head any more */
    ehci_wait(&f.d, 10);
    ehci_put_lists(&f.d);
    assert_true(ehci_open(&f.d, STICK_PORT, STICK));
    ehci_add(&f.d, EHCI_SETUP_PID, EHCI_SETUP, 8, 0);
    put_le32(ram(ehci_td(0)), ehci_td(0));
    ehci_submit(&f.d, STICK, 0, 64, 0);
    ehci_wait(&f.d, 10);
    assert_int_equal(overlay() & 0xff, 0);
    for (unsigned n = 0; n < 2000; n++)
        ehci_put_queue(&f.d, chain + 64 * n, (chain + 64 * ((n + 1) % 2000)) | EHCI_QH,
                       EHCI_IS_HEAD, EHCI_MULTIPLE | 0xff, EHCI_END);
    ehci_set(&f.d, EHCI_REG_ASYNC, chain);
    ehci_fill_list(&f.d, chain | EHCI_QH);
    ehci_wait(&f.d, 10);
    put_le32(ram(chain), chain | 6);
    ehci_fill_list(&f.d, chain | 6);
    ehci_wait(&f.d, 10);
    assert_int_equal(ehci_reg(&f.d, EHCI_REG_STATUS) & (EHCI_STS_HALTED | EHCI_STS_SYSTEM), 0);
}

static void what_is_not_in_memory_halts_it(void **state)
{
    (void)state;
    ehci_fill_list(&f.d, RAM_BYTES | EHCI_QH);
    ehci_wait(&f.d, 9);
    assert_int_equal(ehci_reg(&f.d, EHCI_REG_STATUS) & ~EHCI_STS_PORT,
                     EHCI_STS_HALTED | EHCI_STS_SYSTEM);
    assert_int_equal(ehci_reg(&f.d, EHCI_REG_COMMAND) & EHCI_CMD_RUN, 0);
    assert_true(f.intx.level);
    device_test_round_trip(f.t, f.ehci);
    ehci_driver_start(&f.d, f.t);
    ehci_put_queue(&f.d, EHCI_QUEUE, EHCI_HEAD | EHCI_QH, EHCI_HIGH_SPEED, EHCI_MULTIPLE,
                   RAM_BYTES);
    ehci_wait(&f.d, 9);
    assert_true(status() & EHCI_STS_SYSTEM);
    ehci_driver_start(&f.d, f.t);
    assert_true(ehci_open(&f.d, STICK_PORT, STICK));
    ehci_add(&f.d, EHCI_IN, RAM_BYTES - 4, 13, 0);
    ehci_submit(&f.d, STICK, 1, 512, 0);
    ehci_wait(&f.d, 9);
    assert_true(status() & EHCI_STS_SYSTEM);
    ehci_driver_start(&f.d, f.t);
    assert_true(ehci_open(&f.d, STICK_PORT, STICK));
}

static void states_that_cannot_be_are_refused(void **state)
{
    struct ehci *s = ehci_of(f.ehci);
    struct state_buffer saved = {0};
    struct error err = {0};

    (void)state;
    machine_lock(f.t->machine);
    s->command &= ~EHCI_CMD_RUN; /* while frames go on */
    assert_int_equal(state_save(&ehci_class.state, f.ehci, &saved, &err), 0);
    s->command |= EHCI_CMD_RUN;
    assert_int_equal(state_load(&ehci_class.state, f.ehci, saved.data, saved.size_bytes, &err),
                     -EINVAL);
    machine_unlock(f.t->machine);
    free(saved.data);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(registers_tell_what_there_is),
        TEST(frames_are_counted_and_the_list_begins_again),
        TEST(without_schedules_frames_are_only_counted),
        TEST(ports_are_the_companions_until_it_is_configured),
        TEST(what_is_not_of_high_speed_goes_to_the_companion),
        TEST(owners_are_saved),
        TEST(a_port_is_reset_suspended_and_switched_off),
        TEST(without_companions_there_is_only_high_speed),
        TEST(a_companion_is_that_of_one),
        TEST(devices_describe_themselves),
        TEST(nobody_is_tried_three_times),
        TEST(stalls_babble_and_bad_buffers_halt_the_queue),
        TEST(a_transfer_is_written_back),
        TEST(a_stick_is_read_and_written),
        TEST(answers_that_say_not_yet_are_counted),
        TEST(a_doorbell_is_answered),
        TEST(each_frame_has_its_place_in_the_list),
        TEST(slow_devices_are_reached_through_the_hub),
        TEST(a_suspended_hub_wakes_the_host),
        TEST(hostile_lists_end_with_the_frame),
        TEST(what_is_not_in_memory_halts_it),
        TEST(states_that_cannot_be_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
