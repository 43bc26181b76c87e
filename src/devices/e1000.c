/*
 * e1000.c - Intel 82540EM, a gigabit network card that nearly every system drives
 *
 * After Intel's PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual. Here:
 * the registers (e1000_registers.def), interrupts and their moderation, statistics, resets.
 *
 * Theory of operation. Causes gather in ICR; the pin is up while one of them is let through by IMS.
 * Before it goes up again ITR's interval has to pass. Receive and transmit causes may be held back
 * for RDTR/RADV and TIDV/TADV. Registers are in memory, and behind a window of ports for drivers
 * of real mode.
 *
 * Left out: fibre, wake-up, management (those registers store), MSI, the packet buffer's memory.
 *
 * Threads: machine lock held. Guest memory: DMA, in e1000_frames.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/devices.h"
#include "devices/e1000_internal.h"
#include "trapeze/machine.h"

#define REGISTER_SPACE  0x20000u
#define PORTS           64u
#define PORT_ADDRESS    0u
#define PORT_DATA       4u
#define PCI_ETHERNET    0x020000u

#define CTRL_RST        (1u << 26)
#define STATUS_SETTINGS 0x0281u /* full duplex, 1000 Mb/s, detected as such */
#define STATUS_LINK     0x0002u
#define INTERRUPTS      0x0001ffffu
#define RDTR_FLUSH      (1u << 31)
#define RAH_VALID       (1u << 31)
#define DELAY_NS        1024u
#define THROTTLE_NS     256u
#define FIRST_STATISTIC 0x4000u

/* ---- interrupts ---- */

static void update_interrupt(struct e1000 *s)
{
    bool wanted = s->icr & s->ims;

    if (wanted && !s->function.intx_level) {
        if (timer_is_armed(&s->throttle))
            return;
        if (s->itr)
            timer_arm(&s->throttle, device_now_ns(&s->function.dev) + s->itr * THROTTLE_NS);
    }
    if (wanted != s->function.intx_level)
        pci_set_intx(&s->function, wanted);
}

void e1000_raise(struct e1000 *s, uint32_t causes)
{
    s->icr |= causes;
    update_interrupt(s);
}

void e1000_delay(struct e1000 *s, struct timer *timer, uint64_t *limit_ns, uint32_t delay,
                 uint32_t most)
{
    uint64_t now_ns = device_now_ns(&s->function.dev), due_ns = now_ns + delay * DELAY_NS;

    if (!timer_is_armed(timer))
        *limit_ns = most ? now_ns + most * DELAY_NS : CLOCK_NEVER;
    timer_arm(timer, due_ns < *limit_ns ? due_ns : *limit_ns);
}

static void throttle_ends(void *opaque)
{
    update_interrupt(opaque);
}

static void receive_delay_ends(void *opaque)
{
    e1000_raise(opaque, E1000_RXT0);
}

static void transmit_delay_ends(void *opaque)
{
    e1000_raise(opaque, E1000_TXDW);
}

static void transmit_more(void *opaque)
{
    e1000_transmit(opaque);
}

/* ---- statistics ---- */

void e1000_count(struct e1000 *s, unsigned statistic, uint64_t count)
{
    uint32_t *value = &s->statistics[statistic];

    *value = count > UINT32_MAX - *value ? UINT32_MAX : *value + (uint32_t)count;
}

void e1000_count_long(struct e1000 *s, unsigned statistic, uint64_t count)
{
    uint32_t *low = &s->statistics[statistic], *high = low + 1;
    uint64_t value = *low | (uint64_t)*high << 32;

    value = count > UINT64_MAX - value ? UINT64_MAX : value + count;
    *low = (uint32_t)value;
    *high = (uint32_t)(value >> 32);
}

unsigned e1000_size_class(unsigned first, size_t size_bytes)
{
    static const uint16_t most[5] = {64, 127, 255, 511, 1023};
    unsigned n = 0;

    while (n < 5 && size_bytes > most[n])
        n++;
    return first + n;
}

/* Reading clears; of those of 64 bits reading the upper half does, both. */
static uint32_t read_statistic(struct e1000 *s, unsigned n)
{
    static const uint8_t lower[] = {E1000_GORC, E1000_GOTC, E1000_TORC, E1000_TOTC};
    uint32_t value = s->statistics[n];

    for (unsigned k = 0; k < sizeof(lower); k++) {
        if (n == lower[k])
            return value;
        if (n == lower[k] + 1u)
            s->statistics[n - 1] = 0;
    }
    s->statistics[n] = 0;
    return value;
}

/* ---- registers ---- */

static void reset_registers(struct e1000 *s);

static void write_ctrl(struct e1000 *s, uint32_t value)
{
    if (!(value & CTRL_RST))
        return;
    reset_registers(s);
    update_interrupt(s);
}

static uint32_t read_status(struct e1000 *s)
{
    return STATUS_SETTINGS | (e1000_has_link(s) ? STATUS_LINK : 0);
}

static uint32_t read_zero(struct e1000 *s)
{
    (void)s;
    return 0;
}

static uint32_t read_icr(struct e1000 *s)
{
    uint32_t causes = s->icr;

    s->icr = 0;
    update_interrupt(s);
    return causes;
}

static void write_icr(struct e1000 *s, uint32_t value)
{
    s->icr &= ~value;
    update_interrupt(s);
}

static void write_ics(struct e1000 *s, uint32_t value)
{
    e1000_raise(s, value & INTERRUPTS);
}

static void write_ims(struct e1000 *s, uint32_t value)
{
    s->ims |= value & INTERRUPTS;
    update_interrupt(s);
}

static void write_imc(struct e1000 *s, uint32_t value)
{
    s->ims &= ~value;
    update_interrupt(s);
}

static void write_rctl(struct e1000 *s, uint32_t value)
{
    (void)value;
    net_accept(s->network);
}

static void write_tctl(struct e1000 *s, uint32_t value)
{
    (void)value;
    e1000_transmit(s);
}

static void write_rdt(struct e1000 *s, uint32_t value)
{
    (void)value;
    net_accept(s->network);
}

static void write_tdt(struct e1000 *s, uint32_t value)
{
    (void)value;
    e1000_transmit(s);
}

static void write_rdtr(struct e1000 *s, uint32_t value)
{
    if (!(value & RDTR_FLUSH) || !timer_is_armed(&s->receive_delay))
        return;
    timer_cancel(&s->receive_delay);
    e1000_raise(s, E1000_RXT0);
}

struct e1000_register {
    uint32_t offset, count; /* doublewords */
    uint32_t reset, writable;
    size_t field; /* in struct e1000 */
    uint32_t (*read)(struct e1000 *s);
    void (*write)(struct e1000 *s, uint32_t value);
};

static const struct e1000_register registers[] = {
#define E1000_REGISTER(name, offset, reset, writable, read, write)                                 \
    {offset, 1, reset, writable, offsetof(struct e1000, name), read, write},
#define E1000_REGISTERS(name, offset, count, writable)                                             \
    {offset, count, 0, writable, offsetof(struct e1000, name), NULL, NULL},
#include "devices/e1000_registers.def"
#undef E1000_REGISTER
#undef E1000_REGISTERS
};
#define REGISTER_COUNT (sizeof(registers) / sizeof(registers[0]))

/* The one that is at the offset, or NULL. */
static const struct e1000_register *find_register(uint64_t offset)
{
    size_t low = 0, high = REGISTER_COUNT;

    while (high - low > 1) {
        size_t middle = (low + high) / 2;

        if (registers[middle].offset <= offset)
            low = middle;
        else
            high = middle;
    }
    return offset - registers[low].offset < 4ull * registers[low].count ? &registers[low] : NULL;
}

static uint32_t *value_of(struct e1000 *s, const struct e1000_register *r)
{
    return (uint32_t *)((char *)s + r->field);
}

static uint64_t registers_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct e1000 *s = e1000_of(dev);
    const struct e1000_register *r = find_register(offset);

    (void)size;
    if (!r)
        return 0;
    if (r->offset == FIRST_STATISTIC)
        return read_statistic(s, (unsigned)(offset - FIRST_STATISTIC) / 4);
    return r->read ? r->read(s) : value_of(s, r)[(offset - r->offset) / 4];
}

static void registers_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct e1000 *s = e1000_of(dev);
    const struct e1000_register *r = find_register(offset);
    uint32_t *at;

    (void)size;
    if (!r)
        return;
    at = value_of(s, r) + (offset - r->offset) / 4;
    *at = (*at & ~r->writable) | ((uint32_t)value & r->writable);
    if (r->write)
        r->write(s, (uint32_t)value);
}

static const struct region_ops registers_ops = {
    .name = "e1000",
    .read = registers_read,
    .write = registers_write,
    .min_size = 4,
    .max_size = 4,
};

static uint64_t ports_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct e1000 *s = e1000_of(dev);

    if (offset == PORT_ADDRESS)
        return s->io_address;
    return offset == PORT_DATA ? registers_read(dev, s->io_address & ~3u, size) : 0;
}

static void ports_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct e1000 *s = e1000_of(dev);

    if (offset == PORT_ADDRESS)
        s->io_address = (uint32_t)value & (REGISTER_SPACE - 1);
    else if (offset == PORT_DATA)
        registers_write(dev, s->io_address & ~3u, value, size);
}

static const struct region_ops ports_ops = {
    .name = "e1000-ports",
    .read = ports_read,
    .write = ports_write,
    .min_size = 4,
    .max_size = 4,
};

/* ---- the network's calls ---- */

static unsigned takes(void *opaque)
{
    (void)opaque;
    return 0;
}

static bool receive(void *opaque, const struct net_frame *frame)
{
    return e1000_receive(opaque, frame);
}

static void received(void *opaque)
{
    struct e1000 *s = opaque;

    if (s->has_received && s->rdtr)
        e1000_delay(s, &s->receive_delay, &s->receive_limit_ns, s->rdtr, s->radv);
    e1000_raise(s, s->has_received && !s->rdtr ? E1000_RXT0 : 0);
    s->has_received = false;
}

static void can_send(void *opaque)
{
    e1000_transmit(opaque);
}

static void link_changed(void *opaque, bool up)
{
    (void)up;
    e1000_raise(opaque, E1000_LSC);
}

/* ---- lifecycle ---- */

/* CTRL.RST: all but the EEPROM, the PHY and configuration space. */
static void reset_registers(struct e1000 *s)
{
    const uint16_t *mac = s->eeprom.words;

    for (size_t n = 0; n < REGISTER_COUNT; n++)
        for (uint32_t k = 0; k < registers[n].count; k++)
            value_of(s, &registers[n])[k] = registers[n].reset;
    s->ra[0] = mac[0] | (uint32_t)mac[1] << 16;
    s->ra[1] = mac[2] | RAH_VALID;
    memset(&s->checksums, 0, sizeof(s->checksums));
    memset(&s->segments, 0, sizeof(s->segments));
    s->frame_has_begun = s->has_received = false;
    timer_cancel(&s->throttle);
    timer_cancel(&s->receive_delay);
    timer_cancel(&s->transmit_delay);
    timer_cancel(&s->transmit_more);
}

static const struct pci_function_desc description = {
    .vendor_id = 0x8086,
    .device_id = E1000_DEVICE_ID,
    .subsystem_vendor_id = 0x8086,
    .subsystem_id = 0x001e,
    .class_code = PCI_ETHERNET,
    .revision = 2,
    .interrupt_pin = 1,
    .bar = {[0] = {.kind = PCI_BAR_MEMORY32, .size_bytes = REGISTER_SPACE, .ops = &registers_ops},
            [1] = {.kind = PCI_BAR_IO, .size_bytes = PORTS, .ops = &ports_ops}},
};

static int e1000_attach(struct device *dev, struct error *err)
{
    struct e1000 *s = e1000_of(dev);
    struct clocks *clocks = device_clocks(dev);
    uint8_t mac[NET_MAC_BYTES];

    timer_init(&s->throttle, clocks, CLOCK_ID_VIRTUAL, throttle_ends, s);
    timer_init(&s->receive_delay, clocks, CLOCK_ID_VIRTUAL, receive_delay_ends, s);
    timer_init(&s->transmit_delay, clocks, CLOCK_ID_VIRTUAL, transmit_delay_ends, s);
    timer_init(&s->transmit_more, clocks, CLOCK_ID_VIRTUAL, transmit_more, s);
    if (net_check_card(dev->id, s->network, s->mac, mac, err))
        return -EINVAL;
    e1000_make_eeprom(s, mac);
    s->frontend = (struct net_frontend){.takes = takes,
                                        .receive = receive,
                                        .received = received,
                                        .can_send = can_send,
                                        .link_changed = link_changed,
                                        .opaque = s};
    net_connect(s->network, &s->frontend);
    return pci_attach(&s->function, &description, err);
}

static void e1000_detach(struct device *dev)
{
    struct e1000 *s = e1000_of(dev);

    if (s->frontend.opaque)
        net_connect(s->network, NULL);
    timer_done(&s->throttle);
    timer_done(&s->receive_delay);
    timer_done(&s->transmit_delay);
    timer_done(&s->transmit_more);
    free(s->backend.data);
    pci_detach(&s->function);
}

static void e1000_reset(struct device *dev)
{
    struct e1000 *s = e1000_of(dev);
    struct e1000_eeprom *e = &s->eeprom;

    e->selected = e->clock = e->output = e->can_write = false;
    e->bits = e->bits_out = 0;
    e->command = 0;
    s->io_address = 0;
    e1000_reset_phy(s);
    reset_registers(s);
}

static void e1000_quiesce(struct device *dev)
{
    e1000_of(dev)->is_paused = true;
}

static void e1000_resume(struct device *dev)
{
    struct e1000 *s = e1000_of(dev);

    s->is_paused = false;
    net_accept(s->network);
    e1000_transmit(s);
}

static bool has_begun_frame(const void *object)
{
    return ((const struct e1000 *)object)->frame_has_begun;
}

static int e1000_before_save(void *object, struct error *err)
{
    struct e1000 *s = object;

    s->backend.size_bytes = 0;
    return net_save(s->network, &s->backend, err);
}

static int e1000_after_load(void *object, struct error *err)
{
    struct e1000 *s = object;
    int result = pci_after_load(&s->function, err);

    return result ? result : net_load(s->network, &s->backend, err);
}

static const struct property e1000_properties[] = {
    PCI_PROPERTIES(struct e1000, function),
    PROPERTY_POINTER(struct e1000, network, "network"),
    PROPERTY_STRING(struct e1000, mac, "52:54:00:12:34:56", "address of the card"),
    PROPERTY_END,
};

static const struct state_field eeprom_state[] = {
    STATE_U16S(struct e1000_eeprom, words),
    STATE_BOOL(struct e1000_eeprom, selected),
    STATE_BOOL(struct e1000_eeprom, clock),
    STATE_BOOL(struct e1000_eeprom, output),
    STATE_BOOL(struct e1000_eeprom, can_write),
    STATE_U8_MAX(struct e1000_eeprom, bits, 25),
    STATE_U32(struct e1000_eeprom, command),
    STATE_U8_MAX(struct e1000_eeprom, bits_out, 16),
    STATE_U8_MAX(struct e1000_eeprom, next, E1000_EEPROM_WORDS - 1),
    STATE_U16(struct e1000_eeprom, word),
    STATE_END,
};

static const struct state_field e1000_state[] = {
    PCI_STATE(struct e1000, function),
#define E1000_REGISTER(name, offset, reset, writable, read, write) STATE_U32(struct e1000, name),
#define E1000_REGISTERS(name, offset, count, writable)             STATE_U32S(struct e1000, name),
#include "devices/e1000_registers.def"
#undef E1000_REGISTER
#undef E1000_REGISTERS
    STATE_U32_MAX(struct e1000, io_address, REGISTER_SPACE - 1),
    STATE_U16S(struct e1000, phy),
    STATE_STRUCT(struct e1000, eeprom, eeprom_state),
    STATE_TIMER(struct e1000, throttle),
    STATE_TIMER(struct e1000, receive_delay),
    STATE_TIMER(struct e1000, transmit_delay),
    STATE_U64(struct e1000, receive_limit_ns),
    STATE_U64(struct e1000, transmit_limit_ns),
    STATE_STRUCT(struct e1000, checksums, e1000_context_state),
    STATE_STRUCT(struct e1000, segments, e1000_context_state),
    STATE_BOOL(struct e1000, frame_has_begun),
    STATE_BLOB(struct e1000, backend, NET_MAX_STATE),
    STATE_END,
};

static const struct state_field frame_state[] = {
    STATE_BYTES(struct e1000, frame),
    STATE_U32_MAX(struct e1000, frame_bytes, NET_MAX_FRAME_BYTES - E1000_TAG_BYTES),
    STATE_BOOL(struct e1000, frame_is_too_long),
    STATE_BOOL(struct e1000, frame_is_segmented),
    STATE_BOOL(struct e1000, frame_is_tagged),
    STATE_U8(struct e1000, frame_options),
    STATE_U16(struct e1000, frame_tag),
    STATE_END,
};

static const struct state_group e1000_groups[] = {
    {"frame", has_begun_frame, frame_state},
    {NULL, NULL, NULL},
};

const struct device_class e1000_class = {
    .name = "e1000",
    .summary = "Intel 82540EM network card",
    .bus = BUS_PCI,
    .instance_size = sizeof(struct e1000),
    .properties = e1000_properties,
    .pci = &description,
    .attach = e1000_attach,
    .reset = e1000_reset,
    .quiesce = e1000_quiesce,
    .resume = e1000_resume,
    .detach = e1000_detach,
    .state = {.version = 1,
              .oldest = 1,
              .fields = e1000_state,
              .groups = e1000_groups,
              .before_save = e1000_before_save,
              .after_load = e1000_after_load},
};
