/*
 * test_usb_host.c - a USB device of the host, which a guest drives by xHCI and UHCI
 */
#include "cmocka_all.h"

#include <stdio.h>

#include "ehci_driver.h"
#include "uhci_driver.h"
#include "usb_host_rig.h"
#include "xhci_driver.h"

#define RAM_BYTES  (4u << 20)
#define DATA       (XHCI_DATA_AREA + 0x1000)
#define PORT       5u /* the first of USB 2 */
#define SLOT       1u
#define DCI_BULK   3u /* in; out is 4 */
#define DCI_OUT    4u
#define DCI_EVENTS 7u /* interrupts, in */
#define DCI_OTHER  9u /* in, of the other setting */

static struct {
    struct device_test *t;
    struct device *xhci, *dev;
    struct fake_host host;
    struct xhci_driver d;
} f;

static void make_machine(unsigned speed_mbps, const uint8_t *descriptors, size_t size)
{
    f.t = device_test_new(RAM_BYTES);
    device_test_add(f.t, &pci_host_class, "ecam=0xe0000000");
    f.xhci = device_test_add(f.t, &xhci_class, "addr=3");
    fake_init(&f.host, f.t, speed_mbps, descriptors, size);
    f.dev = fake_add(&f.host);
    device_test_start(f.t);
    xhci_driver_start(&f.d, f.t);
}

static int set_up(void **state)
{
    (void)state;
    make_machine(480, fake_descriptors, sizeof(fake_descriptors));
    return 0;
}

static int tear_down(void **state)
{
    unsigned closes = f.host.closes;

    (void)state;
    device_test_free(f.t);
    assert_int_equal(f.host.closes, 1);
    (void)closes;
    return 0;
}

static uint8_t *ram(uint64_t gpa)
{
    return f.t->ram.hva + gpa;
}

static uint32_t portsc(void)
{
    return (uint32_t)test_read(f.t, XHCI_PORTSC(PORT), 4);
}

static void turn(void)
{
    for (unsigned n = 0; n < 4; n++)
        device_test_loop(f.t);
}

/* Configured, with the endpoints of its first setting. */
static void open_device(void)
{
    assert_int_equal(xhci_open(&f.d, PORT), SLOT);
    assert_int_equal(xhci_choose(&f.d, SLOT), XHCI_SUCCESS);
    assert_int_equal(xhci_configure(&f.d, SLOT, DCI_BULK, 6), XHCI_SUCCESS);
    assert_int_equal(xhci_configure(&f.d, SLOT, DCI_OUT, 2), XHCI_SUCCESS);
    assert_int_equal(xhci_configure(&f.d, SLOT, DCI_EVENTS, 7), XHCI_SUCCESS);
}

static unsigned request(uint8_t type, uint8_t number, uint16_t value, uint16_t index)
{
    return xhci_control(&f.d, SLOT, usb_driver_setup(type, number, value, index, 0), 0);
}

static unsigned command(unsigned type, unsigned dci)
{
    return xhci_command(&f.d, 0, type << 10 | dci << 16 | SLOT << 24, NULL);
}

/* As a driver does after a stall: the ring goes on behind what failed. */
static void set_dequeue(unsigned dci)
{
    const struct xhci_driver_ring *r = &f.d.endpoints[SLOT][dci];

    assert_int_equal(xhci_command(&f.d, (r->gpa + 16 * r->at) | r->cycle,
                                  XHCI_SET_DEQUEUE << 10 | dci << 16 | SLOT << 24, NULL),
                     XHCI_SUCCESS);
}

static void nothing_happens(void)
{
    struct xhci_event event;

    turn();
    while (xhci_take(&f.d, &event))
        assert_int_not_equal(xhci_event_type(&event), XHCI_TRANSFER_EVENT);
}

/* ---- requests ---- */

static void what_it_says_of_itself_reaches_the_guest(void **state)
{
    (void)state;
    assert_int_equal(portsc() & 0x3c00, 3u << 10); /* High Speed */
    assert_int_equal(xhci_open(&f.d, PORT), SLOT);
    assert_int_equal(xhci_control(&f.d, SLOT, usb_driver_setup(0x80, 6, 0x100, 0, 18), DATA),
                     XHCI_SUCCESS);
    assert_memory_equal(ram(DATA), fake_descriptors, 18);
    assert_int_equal(xhci_control(&f.d, SLOT, usb_driver_setup(0x80, 6, 0x200, 0, 255), DATA),
                     XHCI_SUCCESS);
    assert_memory_equal(ram(DATA), fake_descriptors + 18, sizeof(fake_descriptors) - 18);
    assert_int_equal(f.host.last.kind, USB_HOST_RESET); /* the host had used it */
    assert_int_equal(f.host.changes, 1);
}

static void configurations_are_chosen_by_the_host(void **state)
{
    (void)state;
    assert_int_equal(xhci_open(&f.d, PORT), SLOT);
    assert_int_equal(request(0, 9, 3, 0), XHCI_STALL); /* it has none such */
    assert_int_equal(f.host.changes, 1);
    assert_int_equal(command(XHCI_RESET_ENDPOINT, 1), XHCI_SUCCESS);
    set_dequeue(1);
    assert_int_equal(request(0, 9, 2, 0), XHCI_SUCCESS);
    assert_int_equal(f.host.last.kind, USB_HOST_CONFIGURATION);
    assert_int_equal(f.host.last.value, 2);
    assert_int_equal(xhci_control(&f.d, SLOT, usb_driver_setup(0x80, 8, 0, 0, 1), DATA),
                     XHCI_SUCCESS);
    assert_int_equal(*ram(DATA), 2);
    assert_int_equal(xhci_configure(&f.d, SLOT, 10, 2), XHCI_SUCCESS); /* out, 5 */
    xhci_add_normal(&f.d, SLOT, 10, DATA, 3);
    assert_true(fake_end_next(&f.host, 0x05, USB_HOST_DONE, NULL, 3));
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_SUCCESS);
    assert_int_equal(request(0, 9, 0, 0), XHCI_SUCCESS);
    assert_int_equal(f.host.last.value, 2); /* that is not for the host */
}

static void vendors_requests_go_both_ways(void **state)
{
    (void)state;
    open_device();
    memcpy(ram(DATA), "question", 8);
    assert_int_equal(xhci_control(&f.d, SLOT, usb_driver_setup(0x40, 7, 8, 9, 8), DATA),
                     XHCI_SUCCESS);
    assert_memory_equal(f.host.data, "question", 8);
    assert_int_equal(get_le64(f.host.setup), usb_driver_setup(0x40, 7, 8, 9, 8));
    memcpy(f.host.data, "an answer", 9);
    assert_int_equal(xhci_control(&f.d, SLOT, usb_driver_setup(0xc0, 7, 8, 9, 9), DATA),
                     XHCI_SUCCESS);
    assert_memory_equal(ram(DATA), "an answer", 9);
    f.host.answer = USB_HOST_STALLED;
    assert_int_equal(xhci_control(&f.d, SLOT, usb_driver_setup(0xc0, 7, 8, 9, 9), DATA),
                     XHCI_STALL);
}

static void a_request_waits_for_its_answer(void **state)
{
    (void)state;
    open_device();
    f.host.is_silent = true;
    xhci_add(&f.d, &f.d.endpoints[SLOT][1], usb_driver_setup(0x40, 1, 2, 3, 0), 8,
             XHCI_SETUP << 10 | XHCI_TRB_IDT);
    xhci_add(&f.d, &f.d.endpoints[SLOT][1], 0, 0, XHCI_STATUS << 10 | XHCI_TRB_IOC | XHCI_TRB_IN);
    xhci_ring(&f.d, SLOT, 1);
    nothing_happens();
    xhci_ring(&f.d, SLOT, 1); /* it is not sent again */
    nothing_happens();
    assert_true(fake_end_next(&f.host, 0, USB_HOST_DONE, NULL, 0));
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_SUCCESS);
    assert_int_equal(fake_find(&f.host, 0), FAKE_TRANSFERS);
}

static void a_request_that_is_taken_back_is_forgotten(void **state)
{
    struct xhci_event event;

    (void)state;
    open_device();
    f.host.is_silent = true;
    xhci_add(&f.d, &f.d.endpoints[SLOT][1], usb_driver_setup(0xc0, 1, 2, 3, 4), 8,
             XHCI_SETUP << 10 | XHCI_TRB_IDT | 3u << 16);
    xhci_add(&f.d, &f.d.endpoints[SLOT][1], DATA, 4, XHCI_DATA << 10 | XHCI_TRB_IN);
    xhci_add(&f.d, &f.d.endpoints[SLOT][1], 0, 0, XHCI_STATUS << 10 | XHCI_TRB_IOC);
    xhci_ring(&f.d, SLOT, 1);
    assert_int_equal(command(XHCI_STOP_ENDPOINT, 1), XHCI_SUCCESS);
    set_dequeue(1);
    while (xhci_take(&f.d, &event))
        ;
    turn();
    assert_int_equal(fake_find(&f.host, 0), FAKE_TRANSFERS);
    f.host.is_silent = false;
    memcpy(f.host.data, "new", 4);
    assert_int_equal(xhci_control(&f.d, SLOT, usb_driver_setup(0xc0, 1, 2, 3, 4), DATA),
                     XHCI_SUCCESS);
    assert_memory_equal(ram(DATA), "new", 4);
}

/* ---- data ---- */

static void bulk_data_goes_out(void **state)
{
    unsigned n;

    (void)state;
    open_device();
    memcpy(ram(DATA), "to the device", 13);
    xhci_add_normal(&f.d, SLOT, DCI_OUT, DATA, 13);
    n = fake_find(&f.host, 0x02);
    assert_int_not_equal(n, FAKE_TRANSFERS);
    assert_int_equal(f.host.transfers[n]->type, 2);
    assert_int_equal(f.host.transfers[n]->size_bytes, 13);
    assert_memory_equal(f.host.transfers[n]->data, "to the device", 13);
    nothing_happens();
    fake_end(&f.host, n, USB_HOST_DONE, NULL, 13);
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_SUCCESS);
    assert_int_equal(fake_find(&f.host, 0x02), FAKE_TRANSFERS); /* once */
    xhci_add_normal(&f.d, SLOT, DCI_OUT, DATA, 0);
    assert_true(fake_end_next(&f.host, 0x02, USB_HOST_DONE, NULL, 0));
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_SUCCESS);
}

static void bulk_data_comes_in(void **state)
{
    uint32_t left;

    (void)state;
    open_device();
    xhci_add_normal(&f.d, SLOT, DCI_BULK, DATA, 512);
    xhci_add_normal(&f.d, SLOT, DCI_BULK, DATA + 512, 512);
    assert_true(fake_end_next(&f.host, 0x81, USB_HOST_DONE, "short", 5));
    assert_int_equal(xhci_finish(&f.d, &left), XHCI_SHORT_PACKET);
    assert_int_equal(left, 507);
    assert_memory_equal(ram(DATA), "short", 5);
    assert_true(fake_end_next(&f.host, 0x81, USB_HOST_DONE, NULL, 512));
    assert_int_equal(xhci_finish(&f.d, &left), XHCI_SUCCESS);
}

static void interrupts_come_when_there_is_something(void **state)
{
    unsigned n;

    (void)state;
    open_device();
    xhci_add_normal(&f.d, SLOT, DCI_EVENTS, DATA, 8);
    nothing_happens();
    n = fake_find(&f.host, 0x83);
    assert_int_not_equal(n, FAKE_TRANSFERS);
    assert_int_equal(f.host.transfers[n]->type, 3);
    fake_end(&f.host, n, USB_HOST_DONE, "pressed", 8);
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_SUCCESS);
    assert_memory_equal(ram(DATA), "pressed", 8);
}

static void a_stall_halts_until_it_is_cleared(void **state)
{
    (void)state;
    open_device();
    xhci_add_normal(&f.d, SLOT, DCI_BULK, DATA, 64);
    assert_true(fake_end_next(&f.host, 0x81, USB_HOST_STALLED, NULL, 0));
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_STALL);
    assert_int_equal(command(XHCI_RESET_ENDPOINT, DCI_BULK), XHCI_SUCCESS);
    set_dequeue(DCI_BULK);
    xhci_add_normal(&f.d, SLOT, DCI_BULK, DATA, 64);
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_STALL); /* the device still is */
    assert_int_equal(command(XHCI_RESET_ENDPOINT, DCI_BULK), XHCI_SUCCESS);
    set_dequeue(DCI_BULK);
    assert_int_equal(request(2, 1, 0, 0x81), XHCI_SUCCESS);
    assert_int_equal(f.host.last.kind, USB_HOST_CLEAR_HALT);
    assert_int_equal(f.host.last.index, 0x81);
    xhci_add_normal(&f.d, SLOT, DCI_BULK, DATA, 64);
    assert_true(fake_end_next(&f.host, 0x81, USB_HOST_DONE, NULL, 64));
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_SUCCESS);
}

static void what_goes_wrong_is_told(void **state)
{
    (void)state;
    open_device();
    xhci_add_normal(&f.d, SLOT, DCI_BULK, DATA, 64);
    assert_true(fake_end_next(&f.host, 0x81, USB_HOST_TOO_MUCH, NULL, 64));
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_BABBLE);
    xhci_add_normal(&f.d, SLOT, DCI_OUT, DATA, 64);
    assert_true(fake_end_next(&f.host, 0x02, USB_HOST_FAILED, NULL, 10));
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_STALL);
    f.host.submit_code = -EIO;
    assert_int_equal(xhci_move(&f.d, SLOT, DCI_EVENTS, DATA, 8, NULL), XHCI_STALL);
}

static void what_has_come_in_is_kept_when_the_endpoint_stops(void **state)
{
    struct xhci_event event;
    uint32_t left;

    (void)state;
    open_device();
    xhci_add_normal(&f.d, SLOT, DCI_BULK, DATA, 64);
    xhci_add(&f.d, &f.d.commands, 0, 0, XHCI_STOP_ENDPOINT << 10 | DCI_BULK << 16 | SLOT << 24);
    test_write(f.t, XHCI_DOORBELL(0), 0, 4);
    assert_true(fake_end_next(&f.host, 0x81, USB_HOST_CANCELLED, "half", 4));
    assert_true(xhci_wait(&f.d, XHCI_COMMAND_EVENT, &event));
    turn();
    while (xhci_take(&f.d, &event))
        ;
    xhci_ring(&f.d, SLOT, DCI_BULK);
    assert_int_equal(xhci_finish(&f.d, &left), XHCI_SHORT_PACKET);
    assert_int_equal(left, 60);
    assert_memory_equal(ram(DATA), "half", 4);
}

static void one_that_was_stopped_begins_anew(void **state)
{
    struct xhci_event event;

    (void)state;
    open_device();
    xhci_add_normal(&f.d, SLOT, DCI_OUT, DATA, 64);
    assert_int_equal(command(XHCI_STOP_ENDPOINT, DCI_OUT), XHCI_SUCCESS);
    turn();
    assert_int_equal(fake_find(&f.host, 0x02), FAKE_TRANSFERS);
    while (xhci_take(&f.d, &event))
        ;
    xhci_ring(&f.d, SLOT, DCI_OUT);
    assert_true(fake_end_next(&f.host, 0x02, USB_HOST_DONE, NULL, 64));
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_SUCCESS);
}

static void more_than_it_can_move_is_refused(void **state)
{
    struct xhci_driver_ring *r;

    (void)state;
    open_device();
    r = &f.d.endpoints[SLOT][DCI_BULK];
    for (unsigned n = 0; n < 33; n++)
        xhci_add(&f.d, r, DATA, 0x1ffff, XHCI_NORMAL << 10 | (n < 32 ? XHCI_TRB_CHAIN : 0));
    xhci_ring(&f.d, SLOT, DCI_BULK);
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_STALL);
    assert_int_equal(fake_find(&f.host, 0x81), FAKE_TRANSFERS);
}

/* ---- changes ---- */

static void settings_of_interfaces_have_their_endpoints(void **state)
{
    (void)state;
    open_device();
    assert_int_equal(request(1, 11, 2, 0), XHCI_STALL); /* there is no such setting */
    assert_int_equal(command(XHCI_RESET_ENDPOINT, 1), XHCI_SUCCESS);
    set_dequeue(1);
    assert_int_equal(f.host.last.kind, USB_HOST_CONFIGURATION);
    xhci_add_normal(&f.d, SLOT, DCI_EVENTS, DATA, 8);
    assert_int_equal(request(1, 11, 1, 0), XHCI_SUCCESS);
    assert_int_equal(f.host.last.kind, USB_HOST_INTERFACE);
    assert_int_equal(f.host.last.index, 0);
    assert_int_equal(f.host.last.value, 1);
    assert_int_equal(fake_find(&f.host, 0x83), FAKE_TRANSFERS);
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_STALL); /* that has gone */
    assert_int_equal(xhci_configure(&f.d, SLOT, DCI_OTHER, 6), XHCI_SUCCESS);
    xhci_add_normal(&f.d, SLOT, DCI_OTHER, DATA, 8);
    assert_true(fake_end_next(&f.host, 0x84, USB_HOST_DONE, "another", 8));
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_SUCCESS);
    assert_int_equal(request(1, 11, 1, 1), XHCI_SUCCESS); /* sound */
    assert_int_equal(xhci_configure(&f.d, SLOT, 13, 5), XHCI_PARAMETER_ERROR);
}

static void a_change_waits_for_transfers_and_holds_new_ones(void **state)
{
    (void)state;
    open_device();
    xhci_add_normal(&f.d, SLOT, DCI_BULK, DATA, 64);
    f.host.is_silent = true;
    xhci_add(&f.d, &f.d.endpoints[SLOT][1], usb_driver_setup(1, 11, 0, 0, 0), 8,
             XHCI_SETUP << 10 | XHCI_TRB_IDT);
    xhci_add(&f.d, &f.d.endpoints[SLOT][1], 0, 0, XHCI_STATUS << 10 | XHCI_TRB_IOC | XHCI_TRB_IN);
    xhci_ring(&f.d, SLOT, 1);
    assert_null(f.host.change); /* the transfer is there yet */
    turn();
    assert_non_null(f.host.change);
    assert_int_equal(fake_find(&f.host, 0x81), FAKE_TRANSFERS);
    xhci_ring(&f.d, SLOT, DCI_BULK);
    nothing_happens();
    assert_int_equal(fake_find(&f.host, 0x81), FAKE_TRANSFERS);
    fake_end_change(&f.host, USB_HOST_DONE);
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_SUCCESS);
    assert_true(fake_end_next(&f.host, 0x81, USB_HOST_DONE, NULL, 64));
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_SUCCESS);
    f.host.is_silent = false;
    f.host.change_answer = USB_HOST_STALLED;
    assert_int_equal(request(1, 11, 0, 0), XHCI_STALL);
}

static void it_is_reset_when_it_was_used(void **state)
{
    (void)state;
    open_device();
    assert_int_equal(f.host.changes, 2);
    xhci_add_normal(&f.d, SLOT, DCI_BULK, DATA, 64);
    f.host.is_silent = true;
    test_write(f.t, XHCI_PORTSC(PORT), 0x210, 4);
    turn();
    assert_int_equal(f.host.changes, 3);
    assert_int_equal(f.host.last.kind, USB_HOST_RESET);
    test_write(f.t, XHCI_PORTSC(PORT), 0x210, 4); /* once more, while the first goes on */
    turn();
    fake_end_change(&f.host, USB_HOST_DONE);
    f.host.is_silent = false;
    turn();
    assert_int_equal(f.host.changes, 3);
    test_write(f.t, XHCI_PORTSC(PORT), 0x210, 4);
    turn();
    assert_int_equal(f.host.changes, 3);
    xhci_driver_start(&f.d, f.t); /* a driver that is new */
    open_device();
    assert_int_equal(f.host.changes, 4);
    assert_int_equal(f.host.last.kind, USB_HOST_CONFIGURATION);
}

static void a_reset_comes_behind_the_change_before(void **state)
{
    (void)state;
    open_device();
    f.host.is_silent = true;
    xhci_add(&f.d, &f.d.endpoints[SLOT][1], usb_driver_setup(0, 9, 2, 0, 0), 8,
             XHCI_SETUP << 10 | XHCI_TRB_IDT);
    xhci_add(&f.d, &f.d.endpoints[SLOT][1], 0, 0, XHCI_STATUS << 10 | XHCI_TRB_IOC | XHCI_TRB_IN);
    xhci_ring(&f.d, SLOT, 1);
    assert_int_equal(f.host.last.kind, USB_HOST_CONFIGURATION);
    test_write(f.t, XHCI_PORTSC(PORT), 0x210, 4);
    assert_int_equal(f.host.last.kind, USB_HOST_CONFIGURATION);
    fake_end_change(&f.host, USB_HOST_DONE);
    assert_int_equal(f.host.last.kind, USB_HOST_RESET);
    assert_int_equal(((struct usb_device *)f.dev)->configuration, 0);
    f.host.is_silent = false;
    turn();
}

/* ---- lifecycle ---- */

static void it_leaves_when_it_is_pulled_out(void **state)
{
    (void)state;
    open_device();
    xhci_add_normal(&f.d, SLOT, DCI_BULK, DATA, 64);
    assert_true(fake_end_next(&f.host, 0x81, USB_HOST_GONE, NULL, 0));
    assert_int_equal(portsc() & 1, 1);
    fake_unplug(&f.host);
    assert_int_equal(portsc() & 3, 0);
    xhci_ring(&f.d, SLOT, DCI_BULK);
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_TRANSACTION_ERROR);
    device_test_reset(f.t);
}

static void what_comes_in_a_pause_is_told_afterwards(void **state)
{
    (void)state;
    open_device();
    xhci_add_normal(&f.d, SLOT, DCI_EVENTS, DATA, 8);
    machine_lock(f.t->machine);
    usb_host_class.quiesce(f.dev);
    machine_unlock(f.t->machine);
    assert_true(fake_end_next(&f.host, 0x83, USB_HOST_DONE, "pressed", 8));
    nothing_happens();
    machine_lock(f.t->machine);
    usb_host_class.resume(f.dev);
    machine_unlock(f.t->machine);
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_SUCCESS);
    machine_lock(f.t->machine);
    usb_host_class.quiesce(f.dev);
    machine_unlock(f.t->machine);
    fake_unplug(&f.host);
    assert_int_equal(portsc() & 1, 1);
    machine_lock(f.t->machine);
    usb_host_class.resume(f.dev);
    machine_unlock(f.t->machine);
    assert_int_equal(portsc() & 1, 0);
}

static void its_state_is_neither_saved_nor_loaded(void **state)
{
    struct state_buffer buffer = {0};
    struct error err = {0};

    (void)state;
    assert_int_equal(state_save(&usb_host_class.state, f.dev, &buffer, &err), -ENOTSUP);
    assert_non_null(strstr(err.text, "1.2, a fake"));
    assert_int_equal(buffer.size_bytes, 0);
    free(buffer.data);
}

static void one_that_is_too_fast_is_refused(void **state)
{
    struct device_test *t = device_test_new(RAM_BYTES);
    struct fake_host host;
    struct error err = {0};
    struct device *dev;

    (void)state;
    device_test_add(t, &pci_host_class, "ecam=0xe0000000");
    device_test_add(t, &uhci_class, "addr=3");
    fake_init(&host, t, 480, fake_descriptors, sizeof(fake_descriptors));
    dev = device_test_create(t, &usb_host_class, NULL);
    assert_int_equal(device_set_pointer(dev, "host", &host.host, &err), 0);
    assert_int_not_equal(device_attach(dev, &err), 0);
    assert_non_null(strstr(err.text, "fast"));
    assert_int_equal(host.closes, 1);
    device_test_free(t);
}

static void super_speed_has_its_port(void **state)
{
    (void)state;
    make_machine(5000, fake_descriptors, sizeof(fake_descriptors));
    assert_int_equal(test_read(f.t, XHCI_PORTSC(1), 4) & 0x3c03, 4u << 10 | 3);
    device_test_free(f.t);
    assert_int_equal(f.host.closes, 1);
}

/* ---- devices that lie ---- */

static void opens_without_endpoints(const uint8_t *descriptors, size_t size)
{
    make_machine(480, descriptors, size);
    assert_int_equal(((struct usb_device *)f.dev)->description->endpoint_count, 0);
    assert_int_equal(xhci_open(&f.d, PORT), SLOT);
    device_test_free(f.t);
}

static void descriptors_that_make_no_sense_are_not_there(void **state)
{
    static const uint8_t twice[] = {
        18, 1, 0,    2, 0,  0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 9,    2, 0xff, 0xff, 1,
        1,  0, 0x80, 0,                  /* longer than all */
        9,  4, 40,   0, 1,  0, 0, 0,  0, /* a number that there cannot be */
        7,  5, 0x81, 2, 64, 0, 0, 9,  4, 0, 0, 9, 0, 0, 0, 0, 6, 5, 0x82, 2, 64,   0, /* too short
                                                                                       */
        7,  5, 0x80, 2, 64, 0, 0, /* endpoint 0 */
        7,  5, 0x83, 0, 64, 0, 0, /* of control */
        7,  5, 0x84, 1, 64, 0, 0, /* isochronous */
        7,  5, 0x85, 2, 0,  0, 0, /* of no bytes */
        7,  5, 0xf6, 2, 64, 0, 0, /* 0x86 with bits that mean nothing */
        7,  5, 0x86, 3, 8,  0, 0, /* again */
        7,  5, 0x07, 2, 64, 0,    /* cut */
    };
    static const uint8_t endless[] = {
        18, 1, 0, 2, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 9, 2, 0, 0, 1, 1, 0, 0x80, 0, 0, 4,
    };

    (void)state;
    opens_without_endpoints(twice, 0);
    opens_without_endpoints(twice, 17);
    opens_without_endpoints(twice, 20);
    opens_without_endpoints(endless, sizeof(endless));
    make_machine(480, twice, sizeof(twice));
    assert_int_equal(((struct usb_device *)f.dev)->description->endpoint_count, 1);
    assert_int_equal(((struct usb_device *)f.dev)->description->endpoints[0].address, 0x86);
    assert_int_equal(((struct usb_device *)f.dev)->description->endpoints[0].type, 2);
    device_test_free(f.t);
}

static void lengths_that_are_too_long_are_cut(void **state)
{
    (void)state;
    open_device();
    memset(ram(DATA), 0, 128);
    xhci_add_normal(&f.d, SLOT, DCI_BULK, DATA, 64);
    assert_true(fake_end_next(&f.host, 0x81, USB_HOST_DONE, NULL, 100000));
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_SUCCESS);
    xhci_add_normal(&f.d, SLOT, DCI_OUT, DATA, 64);
    assert_true(fake_end_next(&f.host, 0x02, USB_HOST_DONE, NULL, 100000));
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_SUCCESS);
    f.host.is_silent = true;
    xhci_add(&f.d, &f.d.endpoints[SLOT][1], usb_driver_setup(0xc0, 1, 2, 3, 0xffff), 8,
             XHCI_SETUP << 10 | XHCI_TRB_IDT | 3u << 16);
    xhci_add(&f.d, &f.d.endpoints[SLOT][1], DATA, 0xffff, XHCI_DATA << 10 | XHCI_TRB_IN);
    xhci_add(&f.d, &f.d.endpoints[SLOT][1], 0, 0, XHCI_STATUS << 10 | XHCI_TRB_IOC);
    xhci_ring(&f.d, SLOT, 1);
    assert_true(fake_end_next(&f.host, 0, USB_HOST_DONE, NULL, 100000));
    assert_int_equal(xhci_finish(&f.d, NULL), XHCI_SUCCESS);
}

/* ---- by packets ---- */

static void uhci_drives_it_too(void **state)
{
    struct device_test *t = device_test_new(RAM_BYTES);
    struct fake_host host;
    struct uhci_driver d;
    uint32_t errors;
    unsigned size;

    (void)state;
    device_test_add(t, &pci_host_class, "ecam=0xe0000000");
    device_test_add(t, &uhci_class, "addr=3");
    fake_init(&host, t, 12, fake_descriptors, sizeof(fake_descriptors));
    fake_add(&host);
    device_test_start(t);
    uhci_driver_start(&d, t);
    uhci_reset_port(&d, 1);
    put_le64(uhci_ram(&d, UHCI_SETUP), usb_driver_setup(0x80, 6, 0x200, 0, 105));
    uhci_move(&d, USB_PID_SETUP, 0, 0, UHCI_SETUP, 8, 8, &errors);
    assert_int_equal(errors, 0);
    size = uhci_move(&d, USB_PID_IN, 0, 0, UHCI_DATA, 105, 64, &errors); /* its packets' size */
    assert_int_equal(errors, 0);
    assert_int_equal(size, sizeof(fake_descriptors) - 18);
    assert_memory_equal(uhci_ram(&d, UHCI_DATA), fake_descriptors + 18, size);
    uhci_add(&d, USB_PID_OUT, 0, 0, 0, 0, UHCI_IOC);
    uhci_submit(&d);
    assert_true(uhci_finish(&d));
    assert_true(uhci_open(&d, 1, 7)); /* its configuration is a change */
    memcpy(host.data, "by packets", 10);
    assert_int_equal(uhci_control(&d, 7, usb_driver_setup(0xc0, 1, 0, 0, 8), &size), 0);
    assert_memory_equal(uhci_ram(&d, UHCI_DATA), "by packe", 8);
    uhci_add(&d, USB_PID_IN, 7, 1, UHCI_DATA, 64, UHCI_SPD);
    uhci_submit(&d);
    uhci_wait(&d, 4);
    assert_true(fake_end_next(&host, 0x81, USB_HOST_DONE, "data", 4));
    assert_true(uhci_finish(&d));
    assert_int_equal(uhci_moved(uhci_td_status(&d, 0)), 4);
    assert_memory_equal(uhci_ram(&d, UHCI_DATA), "data", 4);
    host.answer = USB_HOST_STALLED;
    assert_true(uhci_control(&d, 7, usb_driver_setup(0xc0, 1, 0, 0, 8), &size) != 0);
    device_test_free(t);
}

static void ehci_has_ports_for_it(void **state)
{
    struct device_test *t = device_test_new(RAM_BYTES);
    struct fake_host host;
    struct uhci_driver d;
    struct ehci_driver e;
    unsigned size;

    (void)state;
    device_test_add(t, &pci_host_class, "ecam=0xe0000000");
    device_test_add(t, &uhci_class, "addr=3.0");
    device_test_add(t, &ehci_class, "addr=3.7");
    fake_init(&host, t, 480, fake_descriptors, sizeof(fake_descriptors));
    fake_add(&host);
    device_test_start(t);
    uhci_driver_start(&d, t);
    uhci_reset_port(&d, 1);
    assert_int_not_equal(uhci_control(&d, 0, usb_driver_setup(0x80, 6, 0x100, 0, 18), NULL), 0);
    assert_int_equal(host.requests, 0); /* it is the companion's now */
    test_outw(t, UHCI_IO_COMMAND, 0);
    ehci_driver_start(&e, t);
    ehci_reset_port(&e, 1);
    assert_int_equal(ehci_control(&e, 0, usb_driver_setup(0x80, 6, 0x100, 0, 18), &size), 0);
    assert_int_equal(size, 18);
    assert_memory_equal(ehci_ram(&e, EHCI_DATA), fake_descriptors, 18);
    fake_unplug(&host);
    device_test_free(t);
    assert_int_equal(host.closes, 1);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(what_it_says_of_itself_reaches_the_guest),
        CASE(configurations_are_chosen_by_the_host),
        CASE(vendors_requests_go_both_ways),
        CASE(a_request_waits_for_its_answer),
        CASE(a_request_that_is_taken_back_is_forgotten),
        CASE(bulk_data_goes_out),
        CASE(bulk_data_comes_in),
        CASE(interrupts_come_when_there_is_something),
        CASE(a_stall_halts_until_it_is_cleared),
        CASE(what_goes_wrong_is_told),
        CASE(what_has_come_in_is_kept_when_the_endpoint_stops),
        CASE(one_that_was_stopped_begins_anew),
        CASE(more_than_it_can_move_is_refused),
        CASE(settings_of_interfaces_have_their_endpoints),
        CASE(a_change_waits_for_transfers_and_holds_new_ones),
        CASE(it_is_reset_when_it_was_used),
        CASE(a_reset_comes_behind_the_change_before),
        CASE(it_leaves_when_it_is_pulled_out),
        CASE(what_comes_in_a_pause_is_told_afterwards),
        CASE(its_state_is_neither_saved_nor_loaded),
        CASE(lengths_that_are_too_long_are_cut),
        cmocka_unit_test(one_that_is_too_fast_is_refused),
        cmocka_unit_test(super_speed_has_its_port),
        cmocka_unit_test(descriptors_that_make_no_sense_are_not_there),
        cmocka_unit_test(uhci_drives_it_too),
        cmocka_unit_test(ehci_has_ports_for_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
