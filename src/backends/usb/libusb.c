/*
 * libusb.c - the host's USB devices by libusb
 *
 * Theory of operation. Devices come as open files of /dev/bus/usb (find.c); libusb looks for none
 * itself, starts no thread and opens nothing, so that it works in the sandbox, but it has to be
 * made ready before (usb_host_prepare). Its descriptors, and one for each device, are watched by
 * the main loop, where transfers end. What has to wait for the device (its reset, configurations)
 * is done by a thread that each device has.
 *
 * A device that is unplugged makes libusb give up its descriptor; that is told when libusb has
 * returned.
 *
 * Threads: as the header says; run_change() on the device's thread.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include <libusb.h>

#include "backends/usb/internal.h"
#include "base/bytes.h"
#include "base/log.h"
#include "host/loop.h"
#include "host/work.h"
#include "trapeze/device.h"

#define DESCRIPTOR_MAX 65536u /* bytes, of all configurations */
#define DEVICE_BYTES   18u
#define INTERFACES     32u
#define CLOSE_ROUNDS   20u /* of CLOSE_WAIT_US, for transfers that were cancelled */
#define CLOSE_WAIT_US  100000

struct device_of_host {
    struct usb_host host;
    struct device_of_host *next;
    libusb_device_handle *handle;
    int fd;
    uint8_t *descriptors;
    unsigned in_flight;       /* transfers */
    bool is_lost, was_told;   /* it was unplugged; gone() was called */
    uint32_t claimed;         /* interfaces, a bit each; the thread's while there is a change */
    uint32_t is_alternate;    /* the same: those with another setting than 0 */
    struct work_pool *thread; /* one */
    struct work work;
    struct usb_host_change *change; /* NULL: none is under way */
};

/* Of a transfer; libusb's memory and ours. */
struct flight {
    struct device_of_host *h;
    struct usb_host_transfer *transfer;
    struct libusb_transfer *lib;
    struct flight *next;
};

struct watch {
    struct watch *next;
    struct loop_fd *handler;
    int fd;
};

static struct {
    struct loop *loop; /* NULL: usb_host_prepare() was not called */
    libusb_context *context;
    struct error why; /* there is no context */
    struct watch *watches;
    struct device_of_host *devices;
    struct flight *flights;
} lib;

static struct device_of_host *device_of(struct usb_host *host)
{
    return container_of(host, struct device_of_host, host);
}

/* ---- the main loop ---- */

static void tell_who_is_gone(void)
{
    for (struct device_of_host *h = lib.devices; h; h = h->next)
        if (h->is_lost && !h->was_told && h->host.gone) {
            h->was_told = true;
            h->host.gone(h->host.opaque);
        }
}

static void handle_events(long wait_us)
{
    struct timeval wait = {.tv_usec = wait_us};

    libusb_handle_events_timeout_completed(lib.context, &wait, NULL);
}

static void on_ready(void *opaque, unsigned events)
{
    (void)opaque;
    (void)events;
    handle_events(0);
    tell_who_is_gone();
}

/* libusb has one more descriptor. */
static void LIBUSB_CALL add_watch(int fd, short events, void *opaque)
{
    struct watch *watch = calloc(1, sizeof(*watch));
    struct error err = {0};
    unsigned wanted = (events & POLLIN ? LOOP_READ : 0) | (events & POLLOUT ? LOOP_WRITE : 0);

    (void)opaque;
    if (watch)
        watch->handler = loop_add_fd(lib.loop, fd, wanted, on_ready, NULL, &err);
    if (!watch || !watch->handler) {
        log_error("USB devices of the host do not answer: %s", watch ? err.text : "out of memory");
        free(watch);
        return;
    }
    watch->fd = fd;
    watch->next = lib.watches;
    lib.watches = watch;
}

/* And here one less, which may be a device's that was unplugged. */
static void LIBUSB_CALL remove_watch(int fd, void *opaque)
{
    struct watch **link = &lib.watches, *watch;

    (void)opaque;
    for (struct device_of_host *h = lib.devices; h; h = h->next)
        h->is_lost |= h->fd == fd;
    while (*link && (*link)->fd != fd)
        link = &(*link)->next;
    watch = *link;
    if (!watch)
        return;
    *link = watch->next;
    loop_remove_fd(watch->handler);
    free(watch);
}

static void watch_all(void)
{
    const struct libusb_pollfd **fds = libusb_get_pollfds(lib.context);

    for (size_t n = 0; fds && fds[n]; n++)
        add_watch(fds[n]->fd, fds[n]->events, NULL);
    libusb_free_pollfds(fds);
    libusb_set_pollfd_notifiers(lib.context, add_watch, remove_watch, NULL);
}

void usb_host_prepare(struct loop *loop)
{
    int code;

    if (lib.loop)
        return;
    lib.loop = loop;
    code = libusb_set_option(NULL, LIBUSB_OPTION_NO_DEVICE_DISCOVERY);
    code = code ? code : libusb_init(&lib.context);
    if (!code)
        watch_all();
    else
        error_set(&lib.why, ENODEV, "libusb finds no USB on this host: %s", libusb_strerror(code));
}

void usb_host_finish(void)
{
    if (lib.context) {
        libusb_exit(lib.context);
        lib.context = NULL;
    }
    while (lib.watches)
        remove_watch(lib.watches->fd, NULL);
    error_clear(&lib.why);
    lib.loop = NULL;
}

/* ---- transfers ---- */

static enum usb_host_result result_of(enum libusb_transfer_status status)
{
    switch (status) {
    case LIBUSB_TRANSFER_COMPLETED:
        return USB_HOST_DONE;
    case LIBUSB_TRANSFER_STALL:
        return USB_HOST_STALLED;
    case LIBUSB_TRANSFER_OVERFLOW:
        return USB_HOST_TOO_MUCH;
    case LIBUSB_TRANSFER_CANCELLED:
        return USB_HOST_CANCELLED;
    case LIBUSB_TRANSFER_NO_DEVICE:
        return USB_HOST_GONE;
    default:
        return USB_HOST_FAILED;
    }
}

static void forget(struct flight *flight)
{
    struct flight **link = &lib.flights;

    while (*link != flight)
        link = &(*link)->next;
    *link = flight->next;
    libusb_free_transfer(flight->lib);
    free(flight);
}

static void LIBUSB_CALL transfer_ended(struct libusb_transfer *done)
{
    struct flight *flight = done->user_data;
    struct usb_host_transfer *transfer = flight->transfer;

    transfer->result = result_of(done->status);
    transfer->moved_bytes = done->actual_length > 0 ? (size_t)done->actual_length : 0;
    flight->h->is_lost |= transfer->result == USB_HOST_GONE;
    flight->h->in_flight--;
    forget(flight);
    transfer->done(transfer);
}

static void fill(struct libusb_transfer *to, const struct device_of_host *h,
                 const struct usb_host_transfer *from)
{
    to->dev_handle = h->handle;
    to->endpoint = from->endpoint;
    to->type = from->type;
    to->buffer = from->data;
    to->length = (int)from->size_bytes;
    to->callback = transfer_ended;
}

static int submit(struct usb_host *host, struct usb_host_transfer *transfer)
{
    struct device_of_host *h = device_of(host);
    struct flight *flight = calloc(1, sizeof(*flight));
    int code = LIBUSB_ERROR_NO_MEM;

    if (flight)
        flight->lib = libusb_alloc_transfer(0);
    if (flight && flight->lib) {
        fill(flight->lib, h, transfer);
        flight->lib->user_data = flight;
        flight->h = h;
        flight->transfer = transfer;
        code = libusb_submit_transfer(flight->lib);
    }
    if (!code) {
        flight->next = lib.flights;
        lib.flights = flight;
        h->in_flight++;
        return 0;
    }
    if (flight)
        libusb_free_transfer(flight->lib);
    free(flight);
    return code == LIBUSB_ERROR_NO_DEVICE ? -ENODEV : code == LIBUSB_ERROR_NO_MEM ? -ENOMEM : -EIO;
}

static void cancel(struct usb_host *host, struct usb_host_transfer *transfer)
{
    (void)host;
    for (struct flight *flight = lib.flights; flight; flight = flight->next)
        if (flight->transfer == transfer)
            libusb_cancel_transfer(flight->lib);
}

/* ---- interfaces ---- */

static uint32_t interfaces_of(struct device_of_host *h)
{
    struct libusb_config_descriptor *config;
    uint32_t interfaces = 0;

    if (libusb_get_active_config_descriptor(libusb_get_device(h->handle), &config))
        return 0;
    for (unsigned n = 0; n < config->bNumInterfaces; n++)
        if (config->interface[n].num_altsetting &&
            config->interface[n].altsetting->bInterfaceNumber < INTERFACES)
            interfaces |= 1u << config->interface[n].altsetting->bInterfaceNumber;
    libusb_free_config_descriptor(config);
    return interfaces;
}

/* From the host's drivers. *out_number: the one that could not be had. A code of libusb's. */
static int claim_all(struct device_of_host *h, unsigned *out_number)
{
    uint32_t interfaces = interfaces_of(h);

    for (unsigned n = 0; n < INTERFACES; n++) {
        int code = interfaces >> n & 1 ? libusb_claim_interface(h->handle, (int)n) : 0;

        if (code) {
            *out_number = n;
            return code;
        }
        h->claimed |= interfaces & 1u << n;
    }
    return 0;
}

/* to_drivers: the host's get them. */
static void release_all(struct device_of_host *h, bool to_drivers)
{
    libusb_set_auto_detach_kernel_driver(h->handle, to_drivers);
    for (unsigned n = 0; n < INTERFACES; n++)
        if (h->claimed >> n & 1)
            libusb_release_interface(h->handle, (int)n);
    libusb_set_auto_detach_kernel_driver(h->handle, 1);
    h->claimed = h->is_alternate = 0;
}

/* ---- changes: on the device's thread ---- */

static int set_interface(struct device_of_host *h, unsigned number, unsigned setting)
{
    int code = libusb_set_interface_alt_setting(h->handle, (int)number, (int)setting);

    if (!code && number < INTERFACES)
        h->is_alternate = (h->is_alternate & ~(1u << number)) | (setting ? 1u << number : 0);
    return code;
}

/* The configuration that it has: what a new choice of it would do. */
static int begin_anew(struct device_of_host *h, const struct usb_host_change *change)
{
    int code = 0;

    for (unsigned n = 0; n < INTERFACES && !code; n++)
        if (h->is_alternate >> n & 1)
            code = set_interface(h, n, 0);
    for (unsigned n = 0; n < 32 && !code; n++)
        if (change->halted[n / 16] >> n % 16 & 1)
            code = libusb_clear_halt(h->handle, (uint8_t)(n % 16 | (n / 16 ? 0x80 : 0)));
    return code;
}

static int set_configuration(struct device_of_host *h, const struct usb_host_change *change)
{
    unsigned number;
    int code;

    if (change->value == h->host.configuration)
        return begin_anew(h, change);
    release_all(h, false);
    code = libusb_set_configuration(h->handle, change->value);
    return claim_all(h, &number) ? LIBUSB_ERROR_BUSY : code;
}

static int reset(struct device_of_host *h)
{
    h->is_alternate = 0;
    return libusb_reset_device(h->handle);
}

static void run_change(struct work *work)
{
    struct device_of_host *h = container_of(work, struct device_of_host, work);
    struct usb_host_change *change = h->change;
    int code = 0;

    switch (change->kind) {
    case USB_HOST_RESET:
        code = reset(h);
        break;
    case USB_HOST_CONFIGURATION:
        code = set_configuration(h, change);
        break;
    case USB_HOST_INTERFACE:
        code = set_interface(h, change->index, change->value);
        break;
    case USB_HOST_CLEAR_HALT:
        code = libusb_clear_halt(h->handle, change->index);
        break;
    }
    change->result = !code                            ? USB_HOST_DONE
                     : code == LIBUSB_ERROR_PIPE      ? USB_HOST_STALLED
                     : code == LIBUSB_ERROR_NO_DEVICE ? USB_HOST_GONE
                                                      : USB_HOST_FAILED;
    /* It came back as another one, or somebody else has an interface. */
    if (change->kind == USB_HOST_RESET && code == LIBUSB_ERROR_NOT_FOUND)
        change->result = USB_HOST_GONE;
}

/* On the main loop again. */
static void change_ended(struct work *work)
{
    struct device_of_host *h = container_of(work, struct device_of_host, work);
    struct usb_host_change *change = h->change;

    h->change = NULL;
    if (change->kind == USB_HOST_CONFIGURATION && change->result == USB_HOST_DONE)
        h->host.configuration = change->value;
    h->is_lost |= change->result == USB_HOST_GONE;
    change->done(change);
    tell_who_is_gone();
}

static void change(struct usb_host *host, struct usb_host_change *change)
{
    struct device_of_host *h = device_of(host);

    h->change = change;
    h->work = (struct work){.run = run_change, .done = change_ended};
    work_submit(h->thread, &h->work);
}

/* ---- opening and closing ---- */

static struct flight *flight_of(const struct device_of_host *h)
{
    struct flight *flight = lib.flights;

    while (flight && flight->h != h)
        flight = flight->next;
    return flight;
}

/* Transfers that the host's controller does not give back end unseen. */
static void wait_for_all(struct device_of_host *h)
{
    for (struct flight *flight = lib.flights; flight; flight = flight->next)
        if (flight->h == h)
            libusb_cancel_transfer(flight->lib);
    for (unsigned n = 0; h->in_flight && n < CLOSE_ROUNDS; n++)
        handle_events(CLOSE_WAIT_US);
    if (h->in_flight)
        log_warn("%s: %u transfers do not end", h->host.name, h->in_flight);
    while (h->change)
        work_wait(h->thread);
}

static void close_device(struct usb_host *host)
{
    struct device_of_host *h = device_of(host), **link = &lib.devices;

    host->gone = NULL;
    if (h->handle) {
        wait_for_all(h);
        release_all(h, true);
    }
    while (*link && *link != h)
        link = &(*link)->next;
    if (*link)
        *link = h->next;
    libusb_close(h->handle);
    while (flight_of(h))
        forget(flight_of(h));
    close(h->fd);
    work_pool_free(h->thread);
    free(h->descriptors);
    free(h);
}

static const struct usb_host_ops ops = {
    .submit = submit,
    .cancel = cancel,
    .change = change,
    .close = close_device,
};

static int read_descriptors(struct device_of_host *h, struct error *err)
{
    ssize_t size;

    h->descriptors = calloc(1, DESCRIPTOR_MAX);
    if (!h->descriptors)
        return error_set(err, ENOMEM, "out of memory");
    size = pread(h->fd, h->descriptors, DESCRIPTOR_MAX, 0);
    if (size < (ssize_t)DEVICE_BYTES)
        return error_set(err, EIO, "it cannot be read: %s", size < 0 ? strerror(errno) : "no data");
    h->host.descriptors = h->descriptors;
    h->host.descriptor_bytes = (size_t)size;
    return 0;
}

static unsigned speed_of(int speed)
{
    return speed == LIBUSB_SPEED_LOW    ? 1
           : speed == LIBUSB_SPEED_FULL ? 12
           : speed == LIBUSB_SPEED_HIGH ? 480
                                        : 5000;
}

static int set_up(struct device_of_host *h, struct error *err)
{
    int code, configuration = 0;
    unsigned number = 0;

    if (read_descriptors(h, err))
        return -EIO;
    code = libusb_wrap_sys_device(lib.context, h->fd, &h->handle);
    if (code)
        return error_set(err, EIO, "libusb does not take it: %s", libusb_strerror(code));
    h->host.speed_mbps = speed_of(libusb_get_device_speed(libusb_get_device(h->handle)));
    libusb_set_auto_detach_kernel_driver(h->handle, 1);
    libusb_get_configuration(h->handle, &configuration);
    h->host.configuration = (uint8_t)configuration;
    code = claim_all(h, &number);
    if (code)
        return error_set(err, EBUSY, "its interface %u %s: %s", number,
                         code == LIBUSB_ERROR_BUSY ? "is used by another program" : "cannot be had",
                         libusb_strerror(code));
    h->thread = work_pool_new(lib.loop, 1, err);
    return h->thread ? 0 : -ENOMEM;
}

struct usb_host *usb_host_wrap(struct loop *loop, int fd, const struct usb_host_place *place,
                               struct error *err)
{
    struct device_of_host *h = calloc(1, sizeof(*h));

    usb_host_prepare(loop);
    if (!h || !lib.context) {
        error_set(err, h ? lib.why.code : ENOMEM, "%s", h ? lib.why.text : "out of memory");
        free(h);
        close(fd);
        return NULL;
    }
    h->host.ops = &ops;
    h->fd = fd;
    h->next = lib.devices;
    lib.devices = h;
    snprintf(h->host.name, sizeof(h->host.name), "%u.%u%s%s", place->bus, place->address,
             *place->name ? ", " : "", place->name);
    if (!set_up(h, err))
        return &h->host;
    error_prefix(err, "the host's USB device %s: ", h->host.name);
    close_device(&h->host);
    return NULL;
}
