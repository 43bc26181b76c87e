/*
 * apic_bus.c - messages between interrupt controllers: IPIs, MSIs, local interrupt pins
 *
 * After the Intel SDM vol. 3, 11.6 (issuing interprocessor interrupts), 11.11 (message
 * signalled interrupts) and 11.5.1 (LINT0, LINT1).
 *
 * A sender works out the receivers from their IDs, LDR, DFR, base and PPR, which are atomics for
 * that, with no APIC locked; then it locks one receiver after the other. Hardware gives
 * no stronger order either.
 */
#include "base/log.h"
#include "devices/apic_internal.h"

/* ---- messages ---- */

/* xAPIC logical destination: SDM vol. 3, 11.6.2.2. */
static bool apic_matches_logical(uint32_t dfr, uint32_t logical_id, uint32_t destination)
{
    if (destination > 0xff)
        return false;
    if (dfr >> 28 == 0xf) /* flat */
        return destination & logical_id;
    return (destination >> 4 == logical_id >> 4 || destination >> 4 == 0xf) &&
           (destination & logical_id & 0xf);
}

static bool apic_is_addressed(struct apic *s, const struct apic_message *message)
{
    uint32_t destination = message->destination;
    uint32_t ldr = atomic_load_explicit(&s->ldr, memory_order_relaxed);

    if (!apic_is_enabled(s))
        return false;
    if (destination == (message->wide ? UINT32_MAX : 0xff))
        return true;
    if (!message->logical)
        return destination == atomic_load_explicit(&s->id, memory_order_relaxed);
    if (apic_is_x2apic(s))
        return destination >> 16 == ldr >> 16 && (destination & ldr & 0xffff);
    return apic_matches_logical(atomic_load_explicit(&s->dfr, memory_order_relaxed), ldr >> 24,
                                destination);
}

static void apic_take_init_locked(struct apic *s)
{
    apic_reset_locked(s);
    timer_arm(&s->timer, CLOCK_NEVER);
    s->wait_for_sipi = !(apic_base_now(s) & APIC_BASE_BSP);
    apic_update_locked(s);
    vcpu_take(s->vcpu, VCPU_EVENT_SIPI);
    vcpu_raise(s->vcpu, VCPU_EVENT_INIT);
}

static bool apic_take_sipi_locked(struct apic *s, uint8_t vector)
{
    if (!s->wait_for_sipi)
        return false;
    s->wait_for_sipi = false;
    atomic_store(&s->vcpu->sipi_vector, vector);
    vcpu_raise(s->vcpu, VCPU_EVENT_SIPI);
    return true;
}

static bool apic_take_locked(struct apic *s, uint8_t delivery, uint8_t vector, bool level)
{
    switch (delivery) {
    case APIC_FIXED:
    case APIC_LOWEST:
        return apic_accept_locked(s, vector, level);
    case APIC_SMI:
        vcpu_raise_smi(s->vcpu);
        return true;
    case APIC_NMI:
        vcpu_raise_nmi(s->vcpu);
        return true;
    case APIC_INIT:
        apic_take_init_locked(s);
        return true;
    case APIC_SIPI:
        return apic_take_sipi_locked(s, vector);
    case APIC_EXTINT:
        s->extint_latched = true;
        apic_update_locked(s);
        return true;
    default:
        return false;
    }
}

/* Of the receivers, the one with the lowest priority; between equals the vector decides. */
static uint32_t apic_arbitrate(struct machine *machine, uint32_t receivers, uint8_t vector)
{
    uint32_t lowest = UINT32_MAX, equals = 0;

    for (uint32_t rest = receivers; rest; rest &= rest - 1) {
        unsigned i = (unsigned)__builtin_ctz(rest);
        struct apic *s = apic_of_vcpu(machine, i);
        uint32_t ppr = atomic_load_explicit(&s->ppr, memory_order_relaxed) >> 4;

        if (!apic_is_software_enabled(s) || ppr > lowest)
            continue;
        equals = (ppr < lowest ? 0 : equals) | 1u << i;
        lowest = ppr;
    }
    if (!equals)
        return 0;
    for (unsigned skip = vector % (unsigned)__builtin_popcount(equals); skip; skip--)
        equals &= equals - 1;
    return equals & -equals;
}

static unsigned apic_deliver_to(struct machine *machine, uint32_t receivers,
                                const struct apic_message *message)
{
    unsigned taken = 0;

    if (message->delivery == APIC_LOWEST || message->redirect)
        receivers = apic_arbitrate(machine, receivers, message->vector);
    for (; receivers; receivers &= receivers - 1) {
        struct apic *s = apic_of_vcpu(machine, (unsigned)__builtin_ctz(receivers));

        host_mutex_lock(&s->lock);
        taken += apic_is_enabled(s) &&
                 apic_take_locked(s, message->delivery, message->vector, message->level);
        host_mutex_unlock(&s->lock);
    }
    return taken;
}

static uint32_t apic_receivers(struct machine *machine, const struct apic_message *message)
{
    unsigned count = machine_vcpu_count(machine);
    uint32_t receivers = 0;

    for (unsigned i = 0; i < count; i++) {
        struct apic *s = apic_of_vcpu(machine, i);

        if (s && apic_is_addressed(s, message))
            receivers |= 1u << i;
    }
    return receivers;
}

bool apic_is_waiting(struct machine *machine, const struct apic_message *message)
{
    bool waiting = false;

    for (uint32_t rest = apic_receivers(machine, message); rest; rest &= rest - 1) {
        struct apic *s = apic_of_vcpu(machine, (unsigned)__builtin_ctz(rest));

        host_mutex_lock(&s->lock);
        waiting |= apic_is_enabled(s) && map_test(s->irr, message->vector);
        host_mutex_unlock(&s->lock);
    }
    return waiting;
}

unsigned apic_deliver(struct machine *machine, const struct apic_message *message)
{
    return apic_deliver_to(machine, apic_receivers(machine, message), message);
}

/* SDM vol. 3, 11.11: the address holds the destination, the data the rest. */
void apic_msi_sink(void *machine, uint64_t address, uint32_t data)
{
    struct apic_message message = {
        .destination = address >> 12 & 0xff,
        .redirect = address & 8,
        .logical = address & 4,
        .delivery = data >> 8 & 7,
        .level = data & 0x8000,
        .vector = (uint8_t)data,
    };

    /* A level-triggered deassert message takes nothing back from an edge-like IRR. */
    if (message.level && !(data & 0x4000))
        return;
    trace(APIC_MSI, address, data);
    apic_deliver(machine, &message);
}

/* ---- local interrupt pins ---- */

/* A pin of an enabled APIC is asserted (rises: just now); act by its LVT entry. */
void apic_pin_locked(struct apic *s, unsigned pin, bool rises)
{
    uint32_t *entry = &s->lvt[LVT_LINT0 + pin];
    uint8_t delivery = *entry >> 8 & 7;
    bool level = (*entry & LVT_LEVEL) && delivery == APIC_FIXED;

    if ((*entry & LVT_MASKED) || delivery == APIC_EXTINT || delivery == APIC_LOWEST ||
        delivery == APIC_SIPI)
        return;
    if (level ? *entry & LVT_REMOTE_IRR : !rises)
        return;
    if (apic_take_locked(s, delivery, (uint8_t)*entry, level) && level)
        *entry |= LVT_REMOTE_IRR;
}

static void apic_set_pin(struct apic *s, unsigned pin, bool level)
{
    host_mutex_lock(&s->lock);
    bool rises = level && !s->lint[pin];

    s->lint[pin] = level;
    if (apic_is_enabled(s)) {
        if (level)
            apic_pin_locked(s, pin, rises);
    } else if (pin == 1 && rises) {
        vcpu_raise_nmi(s->vcpu);
    }
    apic_update_locked(s);
    host_mutex_unlock(&s->lock);
}

static void apic_set_pins(struct machine *machine, unsigned pin, bool level)
{
    unsigned count = machine_vcpu_count(machine);

    for (unsigned i = 0; i < count; i++) {
        struct apic *s = apic_of_vcpu(machine, i);

        if (s)
            apic_set_pin(s, pin, level);
    }
}

void apic_intr_sink(void *machine, unsigned number, bool level)
{
    apic_set_pins(machine, 0, level);
}

void apic_nmi_sink(void *machine, unsigned number, bool level)
{
    apic_set_pins(machine, 1, level);
}

/* ---- interprocessor interrupts ---- */

static void apic_send_error(struct apic *s)
{
    host_mutex_lock(&s->lock);
    apic_error_locked(s, ESR_SEND_ILLEGAL);
    host_mutex_unlock(&s->lock);
}

void apic_send(struct apic *s, uint32_t command, uint32_t destination, bool wide)
{
    struct machine *machine = s->dev.machine;
    uint32_t self = 1u << s->vcpu_index;
    struct apic_message message = {
        .destination = destination,
        .wide = wide,
        .logical = command & ICR_LOGICAL,
        .delivery = command >> 8 & 7,
        .vector = (uint8_t)command,
    };
    enum apic_shorthand shorthand = command >> ICR_SHORTHAND_SHIFT & 3;

    trace(APIC_IPI, s->vcpu->index, command, destination);
    if (message.delivery <= APIC_LOWEST && message.vector < FIRST_VECTOR) {
        apic_send_error(s);
        return;
    }
    /* INIT level deassert only synchronises arbitration IDs, which do not exist any more. */
    if (message.delivery == APIC_INIT && (command & (ICR_LEVEL | ICR_ASSERT)) == ICR_LEVEL)
        return;
    if (shorthand != TO_DESTINATION && shorthand != TO_SELF) {
        message.wide = false;
        message.logical = false;
        message.destination = 0xff;
    }
    uint32_t receivers = shorthand == TO_SELF ? self : apic_receivers(machine, &message);
    if (shorthand == TO_OTHERS)
        receivers &= ~self;
    apic_deliver_to(machine, receivers, &message);
}
