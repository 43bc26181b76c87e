/*
 * console.c - virtio console: a terminal of the guest (hvc0), or named ports
 *
 * The specification, 5.3. A device is one of the two: a console, which knows the size of the host's
 * window, or ports, which are announced by messages over two control queues. A console that were a
 * port would be told its size by the message RESIZE, in which some Linux have columns first, as the
 * specification has it, and others rows. From the configuration they all read the same, but
 * only when they are told that it has changed, which they are while they write their first bytes.
 *
 * Nothing is held: what the backend does not take stays in the ring, with a count of what it has
 * taken, and buffers for what arrives are taken when it does. Messages to the guest are bits of
 * each port until there are buffers.
 *
 * Threads: machine lock held. Guest memory: DMA from and to what chains name.
 */
#include "devices/virtio/console.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/devices.h"
#include "devices/virtio/transport.h"
#include "trapeze/chardev.h"
#include "trapeze/machine.h"

#define ID_CONSOLE              3
#define PCI_CLASS_COMMUNICATION 0x078000

#define F_SIZE                  (1ull << 0)
#define F_MULTIPORT             (1ull << 1)
#define F_EMERG_WRITE           (1ull << 2)

#define PART_BYTES              4096u      /* of a chain, handed on at a time */
#define BYTES_PER_KICK          (1u << 20) /* of a port */
#define CHAINS_PER_KICK         64u
#define SIZE_NEWS               8u /* a driver is not ready for the first, perhaps */

enum config_field {
    CONFIG_COLUMNS = 0,
    CONFIG_ROWS = 2,
    CONFIG_PORTS = 4,
    CONFIG_EMERGENCY = 8,
    CONFIG_BYTES = 12,
};

/* Port 0 has the first two, port n from 1 on has 2 + 2 * n and the next. */
enum queue_number { RECEIVE, TRANSMIT, CONTROL_RECEIVE, CONTROL_TRANSMIT, QUEUES_OF_PORT };

enum event {
    EVENT_DEVICE_READY = 0,
    EVENT_PORT_ADD = 1,
    EVENT_PORT_READY = 3,
    EVENT_PORT_OPEN = 6,
    EVENT_PORT_NAME = 7,
};
#define MESSAGE_BYTES 8u /* port, event, value */

/* Messages that wait; the lowest is sent first. */
enum { SAY_ADD = 0x1, SAY_NAME = 0x2, SAY_OPEN = 0x4, SAY_ALL = 0x7 };

struct console_port {
    /* Configuration. */
    struct virtio_console *console;
    unsigned id;
    char name[VIRTIO_CONSOLE_MAX_NAME + 1];
    struct chardev *chardev; /* NULL: none */
    struct chardev_frontend frontend;

    /* Guest-visible state. */
    bool is_ready, is_open; /* as the guest says */
    bool is_connected;      /* as the guest was told */
    uint8_t messages;       /* SAY_... */
    uint32_t sent_bytes;    /* of the first chain that it transmits */
};

struct virtio_console {
    VIRTIO_TRANSPORT;
    struct virtio_device virtio;

    /* Configuration. */
    struct chardev *chardev; /* property: of the console */
    unsigned port_count;     /* named ones, which are ports[1] and on */

    /* Guest-visible state. */
    uint16_t columns, rows; /* 0: nobody knows */
    uint8_t news_left;      /* so often the size is told without having changed */
    struct console_port ports[1 + VIRTIO_CONSOLE_MAX_PORTS];

    bool is_paused;
    /* Too big for the stack. Backends answer while they are sent something. */
    struct virtio_chain out_chain, in_chain;
};

static struct virtio_console *console_of(struct device *dev)
{
    return container_of(dev, struct virtio_console, dev);
}

static struct virtqueue *queue_of(struct console_port *port, enum queue_number which)
{
    unsigned first = port->id ? QUEUES_OF_PORT + 2 * (port->id - 1) : 0;

    return &port->console->virtio.queues[first + which];
}

/* NULL: there is no such. */
static struct console_port *find_port(struct virtio_console *s, uint32_t id)
{
    return id && id <= s->port_count ? &s->ports[id] : NULL;
}

/* ---- to the guest ---- */

static size_t can_receive(void *opaque)
{
    struct console_port *port = opaque;
    struct virtio_console *s = port->console;
    struct virtqueue *queue = queue_of(port, RECEIVE);

    if (s->is_paused || (port->id && !port->is_open) || !virtqueue_pop(queue, &s->in_chain))
        return 0;
    virtqueue_unpop(queue, s->in_chain.descriptors);
    if (!s->in_chain.in_bytes)
        virtio_break(&s->virtio, "a buffer without room");
    return (size_t)s->in_chain.in_bytes;
}

static void receive(void *opaque, const uint8_t *data, size_t size)
{
    struct console_port *port = opaque;
    struct virtio_console *s = port->console;
    struct virtqueue *queue = queue_of(port, RECEIVE);

    while (size && virtqueue_pop(queue, &s->in_chain)) {
        size_t written = virtio_chain_write(&s->in_chain, 0, data, size);

        virtqueue_push(queue, &s->in_chain, written);
        data += written;
        size -= written;
    }
    virtqueue_notify(queue);
}

/* ---- from the guest ---- */

/* Hand the chain on from sent_bytes on. False: not all of it was taken, or it was enough. */
static bool send_chain(struct console_port *port, size_t *left)
{
    const struct virtio_chain *chain = &port->console->out_chain;
    uint8_t data[PART_BYTES];

    while (*left) {
        size_t size = *left < sizeof(data) ? *left : sizeof(data), taken;

        size = virtio_chain_read(chain, port->sent_bytes, data, size);
        if (!size)
            return true;
        taken = chardev_send(port->chardev, data, size);
        port->sent_bytes += (uint32_t)taken;
        *left -= taken;
        if (taken < size)
            return false;
    }
    return false;
}

static void tell_size(struct virtio_console *s)
{
    if (virtio_is_running(&s->virtio))
        s->virtio.transport->notify_config(&s->virtio);
}

static void tell_again(struct virtio_console *s)
{
    if (s->news_left && s->columns) {
        s->news_left--;
        tell_size(s);
    }
}

static void transmit(struct console_port *port)
{
    struct virtio_console *s = port->console;
    struct virtqueue *queue = queue_of(port, TRANSMIT);
    size_t left = BYTES_PER_KICK;
    unsigned chains = 0;

    while (chains < CHAINS_PER_KICK && virtqueue_pop(queue, &s->out_chain)) {
        if (s->out_chain.out_bytes > UINT32_MAX) {
            virtio_break(&s->virtio, "more than 4 GiB to write at once");
            return;
        }
        if (!send_chain(port, &left)) {
            virtqueue_unpop(queue, s->out_chain.descriptors);
            break;
        }
        port->sent_bytes = 0;
        virtqueue_push(queue, &s->out_chain, 0);
        chains++;
    }
    virtqueue_notify(queue);
    if (chains && !port->id)
        tell_again(s);
    if (!left || chains == CHAINS_PER_KICK)
        virtio_kick_later(&s->virtio); /* others want the lock, too */
}

static void can_send(void *opaque)
{
    struct console_port *port = opaque;

    if (!port->console->is_paused)
        transmit(port);
}

/* ---- messages ---- */

static unsigned make_message(const struct console_port *port, uint8_t what,
                             uint8_t out[MESSAGE_BYTES + VIRTIO_CONSOLE_MAX_NAME])
{
    unsigned length = what == SAY_NAME ? (unsigned)strlen(port->name) : 0;

    put_le32(out, port->id);
    put_le16(out + 4, what == SAY_ADD    ? EVENT_PORT_ADD
                      : what == SAY_NAME ? EVENT_PORT_NAME
                                         : EVENT_PORT_OPEN);
    put_le16(out + 6, what == SAY_OPEN ? port->chardev->connected : 1);
    memcpy(out + MESSAGE_BYTES, port->name, length);
    return MESSAGE_BYTES + length;
}

/* False: there is no buffer for it. */
static bool say(struct console_port *port, uint8_t what)
{
    struct virtio_console *s = port->console;
    struct virtqueue *queue = &s->virtio.queues[CONTROL_RECEIVE];
    uint8_t message[MESSAGE_BYTES + VIRTIO_CONSOLE_MAX_NAME];
    unsigned size = make_message(port, what, message);

    if (!virtqueue_pop(queue, &s->in_chain))
        return false;
    if (s->in_chain.in_bytes < size) {
        virtio_break(&s->virtio, "no room for a message");
        return false;
    }
    virtio_chain_write(&s->in_chain, 0, message, size);
    virtqueue_push(queue, &s->in_chain, size);
    if (what == SAY_OPEN)
        port->is_connected = port->chardev->connected;
    return true;
}

static void say_all(struct virtio_console *s)
{
    for (unsigned id = 1; id <= s->port_count; id++) {
        struct console_port *port = &s->ports[id];

        while (port->messages && say(port, port->messages & -port->messages))
            port->messages &= port->messages - 1;
    }
    virtqueue_notify(&s->virtio.queues[CONTROL_RECEIVE]);
}

static void set_open(struct console_port *port, bool is_open)
{
    if (port->is_open == is_open)
        return;
    port->is_open = is_open;
    chardev_set_open(port->chardev, is_open);
}

static void hear(struct virtio_console *s, const uint8_t message[MESSAGE_BYTES])
{
    struct console_port *port = find_port(s, get_le32(message));
    uint16_t event = get_le16(message + 4), value = get_le16(message + 6);

    if (event == EVENT_DEVICE_READY && value)
        for (unsigned id = 1; id <= s->port_count; id++)
            s->ports[id].messages = SAY_ADD;
    if (event == EVENT_PORT_READY && port && value) {
        port->is_ready = true;
        port->is_connected = false;
        port->messages |= SAY_NAME | (port->chardev->connected ? SAY_OPEN : 0);
    }
    if (event == EVENT_PORT_OPEN && port)
        set_open(port, value);
}

static void hear_all(struct virtio_console *s)
{
    struct virtqueue *queue = &s->virtio.queues[CONTROL_TRANSMIT];
    uint8_t message[MESSAGE_BYTES];
    unsigned chains = 0;

    while (chains < CHAINS_PER_KICK && virtqueue_pop(queue, &s->out_chain)) {
        if (virtio_chain_read(&s->out_chain, 0, message, sizeof(message)) != sizeof(message)) {
            virtio_break(&s->virtio, "a message that is too short");
            return;
        }
        hear(s, message);
        virtqueue_push(queue, &s->out_chain, 0);
        chains++;
    }
    virtqueue_notify(queue);
    say_all(s);
    if (chains == CHAINS_PER_KICK)
        virtio_kick_later(&s->virtio);
}

/* Who listens at the other end of a port has come or gone. */
static void hang_up(void *opaque, bool connected)
{
    struct console_port *port = opaque;

    (void)connected;
    if (!port->is_ready)
        return;
    port->messages |= SAY_OPEN;
    if (!port->console->is_paused)
        say_all(port->console);
}

/* ---- the window ---- */

static void update_window(struct virtio_console *s)
{
    uint16_t columns = 0, rows = 0;

    chardev_window(s->chardev, &columns, &rows);
    if (columns == s->columns && rows == s->rows)
        return;
    s->columns = columns;
    s->rows = rows;
    tell_size(s);
}

static void resized(void *opaque)
{
    struct console_port *port = opaque;

    if (!port->console->is_paused)
        update_window(port->console);
}

/* ---- the device's calls ---- */

static void console_kick(struct virtio_device *virtio, struct virtqueue *queue)
{
    struct virtio_console *s = container_of(virtio, struct virtio_console, virtio);
    unsigned number = (unsigned)(queue - virtio->queues);
    struct console_port *port = &s->ports[number < QUEUES_OF_PORT ? 0 : number / 2 - 1];

    if (s->is_paused || (number >= CONTROL_RECEIVE && !virtio_has(virtio, F_MULTIPORT)))
        return;
    if (number == CONTROL_RECEIVE) {
        say_all(s);
    } else if (number == CONTROL_TRANSMIT) {
        hear_all(s);
        for (unsigned id = 1; id <= s->port_count; id++) /* it may have been opened */
            chardev_accept_input(s->ports[id].chardev);
    } else if (number % 2) {
        transmit(port);
    } else {
        chardev_accept_input(port->chardev);
    }
}

static void console_forget(struct virtio_device *virtio)
{
    struct virtio_console *s = container_of(virtio, struct virtio_console, virtio);

    s->news_left = SIZE_NEWS;
    for (unsigned id = 0; id <= s->port_count; id++) {
        struct console_port *port = &s->ports[id];

        set_open(port, false);
        port->is_ready = port->is_connected = false;
        port->messages = 0;
        port->sent_bytes = 0;
    }
}

static void console_read_config(struct virtio_device *virtio, unsigned offset, uint8_t *out,
                                unsigned size)
{
    const struct virtio_console *s = container_of(virtio, struct virtio_console, virtio);
    uint8_t c[CONFIG_BYTES] = {0};

    put_le16(c + CONFIG_COLUMNS, s->columns);
    put_le16(c + CONFIG_ROWS, s->rows);
    put_le32(c + CONFIG_PORTS, s->port_count + 1);
    memcpy(out, c + offset, size);
}

/* A character of a driver that has nothing else yet. */
static void console_write_config(struct virtio_device *virtio, unsigned offset, const uint8_t *data,
                                 unsigned size)
{
    struct virtio_console *s = container_of(virtio, struct virtio_console, virtio);

    (void)size;
    if (offset == CONFIG_EMERGENCY)
        chardev_send(s->chardev, data, 1);
}

static const struct virtio_ops console_ops = {
    .id = ID_CONSOLE,
    .config_bytes = CONFIG_BYTES,
    .read_config = console_read_config,
    .write_config = console_write_config,
    .kick = console_kick,
    .reset = console_forget,
};

/* ---- lifecycle ---- */

static void connect_port(struct virtio_console *s, unsigned id)
{
    struct console_port *port = &s->ports[id];

    port->console = s;
    port->id = id;
    port->frontend = (struct chardev_frontend){.can_receive = can_receive,
                                               .receive = receive,
                                               .can_send = can_send,
                                               .hang_up = hang_up,
                                               .resized = resized,
                                               .opaque = port};
    if (port->chardev)
        chardev_connect(port->chardev, &port->frontend);
}

int virtio_console_add_port(struct device *dev, const char *name, struct chardev *chardev,
                            struct error *err)
{
    struct virtio_console *s = console_of(dev);

    if (s->port_count == VIRTIO_CONSOLE_MAX_PORTS)
        return error_set(err, ENOSPC, "there can be up to %d ports", VIRTIO_CONSOLE_MAX_PORTS);
    if (!*name || strlen(name) > VIRTIO_CONSOLE_MAX_NAME)
        return error_set(err, EINVAL, "the name of a port has 1 to %u characters",
                         VIRTIO_CONSOLE_MAX_NAME);
    for (unsigned id = 1; id <= s->port_count; id++)
        if (strcmp(s->ports[id].name, name) == 0)
            return error_set(err, EEXIST, "another port has the name '%s'", name);
    s->port_count++;
    strcpy(s->ports[s->port_count].name, name);
    s->ports[s->port_count].chardev = chardev;
    return 0;
}

static int console_attach(struct device *dev, struct error *err)
{
    struct virtio_console *s = console_of(dev);

    if (s->chardev && s->port_count)
        return error_set(err, EINVAL, "%s: it has a console or ports, not both", dev->id);
    s->virtio = (struct virtio_device){
        .ops = &console_ops,
        .transport = virtio_transport_of(dev),
        .dev = dev,
        .offered = s->port_count ? F_MULTIPORT : F_SIZE | F_EMERG_WRITE,
        .queue_count = s->port_count ? QUEUES_OF_PORT + 2 * s->port_count : 2,
    };
    virtio_init(&s->virtio);
    s->ports[0].chardev = s->chardev;
    for (unsigned id = 0; id <= s->port_count; id++)
        connect_port(s, id);
    update_window(s);
    return virtio_transport_attach(dev, &s->virtio, PCI_CLASS_COMMUNICATION, err);
}

static void console_detach(struct device *dev)
{
    struct virtio_console *s = console_of(dev);

    for (unsigned id = 0; id <= s->port_count; id++)
        if (s->ports[id].chardev)
            chardev_connect(s->ports[id].chardev, NULL);
    virtio_transport_detach(dev);
}

static void console_reset(struct device *dev)
{
    virtio_transport_reset(dev);
}

static void console_quiesce(struct device *dev)
{
    console_of(dev)->is_paused = true;
}

static void console_resume(struct device *dev)
{
    struct virtio_console *s = console_of(dev);

    s->is_paused = false;
    update_window(s);
    for (unsigned id = 1; id <= s->port_count; id++) /* it may be another host */
        if (s->ports[id].is_ready && s->ports[id].is_connected != s->ports[id].chardev->connected)
            s->ports[id].messages |= SAY_OPEN;
    virtio_kick_later(&s->virtio);
}

static int console_after_load(void *object, struct error *err)
{
    return virtio_transport_after_load(object, err);
}

static const struct state_field port_state[] = {
    STATE_BOOL(struct console_port, is_ready),
    STATE_BOOL(struct console_port, is_open),
    STATE_BOOL(struct console_port, is_connected),
    STATE_U8_MAX(struct console_port, messages, SAY_ALL),
    STATE_U32(struct console_port, sent_bytes),
    STATE_END,
};

#define CONSOLE_PROPERTIES PROPERTY_POINTER(struct virtio_console, chardev, "console"), PROPERTY_END

#define CONSOLE_STATE                                                                              \
    VIRTIO_STATE(struct virtio_console, virtio), STATE_U16(struct virtio_console, columns),        \
        STATE_U16(struct virtio_console, rows),                                                    \
        STATE_U8_MAX(struct virtio_console, news_left, SIZE_NEWS),                                 \
        STATE_STRUCTS(struct virtio_console, ports, port_state), STATE_END

VIRTIO_TABLES(console, struct virtio_console, CONSOLE_PROPERTIES, CONSOLE_STATE);

#define CONSOLE_CALLS                                                                              \
    .instance_size = sizeof(struct virtio_console), .attach = console_attach,                      \
    .reset = console_reset, .reset_done = virtio_transport_reset_done, .detach = console_detach,   \
    .quiesce = console_quiesce, .resume = console_resume

const struct device_class virtio_console_class = {
    .name = "virtio-console",
    .summary = "virtio console or named ports on PCI",
    .bus = BUS_PCI,
    .properties = console_properties,
    .state = {.version = 1, .oldest = 1, .fields = console_state, .after_load = console_after_load},
    CONSOLE_CALLS,
};

const struct device_class virtio_console_mmio_class = {
    .name = "virtio-console-mmio",
    .summary = "virtio console or named ports without PCI",
    .bus = BUS_PLATFORM,
    .properties = console_mmio_properties,
    .state = {.version = 1,
              .oldest = 1,
              .fields = console_mmio_state,
              .after_load = console_after_load},
    CONSOLE_CALLS,
};
