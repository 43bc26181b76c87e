/*
 * features.c - Get Features and Set Features
 *
 * The specification, 5.13 and 5.21. A feature is a row of a table: what it is, what is allowed, its
 * default. Nothing is saved over resets. Coalescing of interrupts may be asked for and is not done,
 * as the specification allows: requests of one doorbell have one interrupt anyway.
 */
#include "devices/nvme/nvme.h"

#define SELECT_CURRENT      0u
#define SELECT_DEFAULT      1u
#define SELECT_SAVED        2u
#define SELECT_CAPABILITIES 3u
#define CAN_NAMESPACE       0x2u
#define CAN_CHANGE          0x4u
#define SAVE                0x80000000u

#define NO_LIMIT            0x7u /* of commands in one burst */
#define OVER                0u   /* THSEL */
#define UNDER               1u
#define ALL_SENSORS         0xfu
#define TEMPERATURE_EVENTS  0x2u /* in async_events, and of the critical warning */
#define SMART_EVENTS        0x1fu
#define EVENT_TEMPERATURE   1u
#define TIME_LIMIT          0xffffu /* of error recovery */

struct feature {
    uint8_t id;
    bool is_namespace;
    /* dword 11 says which one, of some. */
    uint16_t (*get)(const struct nvme *s, uint32_t which, uint32_t *out);
    uint16_t (*set)(struct nvme *s, uint32_t value);
};

uint8_t nvme_critical_warning(const struct nvme *s)
{
    return NVME_TEMPERATURE_K >= s->features.over_k || NVME_TEMPERATURE_K <= s->features.under_k
               ? TEMPERATURE_EVENTS
               : 0;
}

bool nvme_has_write_cache(const struct nvme *s)
{
    return s->drive && !block_is_write_through(s->drive);
}

void nvme_reset_features(struct nvme *s)
{
    s->features = (struct nvme_features){
        .arbitration = NO_LIMIT,
        .over_k = 343, /* what identify.c says is too warm */
        .write_cache = nvme_has_write_cache(s),
    };
}

static uint16_t get_arbitration(const struct nvme *s, uint32_t which, uint32_t *out)
{
    (void)which;
    *out = s->features.arbitration;
    return NVME_OK;
}

static uint16_t set_arbitration(struct nvme *s, uint32_t value)
{
    s->features.arbitration = value & 0xffffff07u;
    return NVME_OK;
}

static uint16_t get_power(const struct nvme *s, uint32_t which, uint32_t *out)
{
    (void)s, (void)which;
    *out = 0;
    return NVME_OK;
}

/* There is one state. */
static uint16_t set_power(struct nvme *s, uint32_t value)
{
    (void)s;
    return value & 0x1f ? NVME_INVALID_FIELD : NVME_OK;
}

/* Of the composite temperature only. */
static bool is_threshold(uint32_t value, bool all)
{
    unsigned sensor = value >> 16 & 0xf, side = value >> 20 & 3;

    return side <= UNDER && (!sensor || (all && sensor == ALL_SENSORS));
}

static uint16_t get_temperature(const struct nvme *s, uint32_t which, uint32_t *out)
{
    if (!is_threshold(which, false))
        return NVME_INVALID_FIELD;
    *out = (which >> 20 & 3) == OVER ? s->features.over_k : s->features.under_k;
    return NVME_OK;
}

static uint16_t set_temperature(struct nvme *s, uint32_t value)
{
    uint8_t before = nvme_critical_warning(s);

    if (!is_threshold(value, true))
        return NVME_INVALID_FIELD;
    if ((value >> 20 & 3) == OVER)
        s->features.over_k = (uint16_t)value;
    else
        s->features.under_k = (uint16_t)value;
    if (nvme_critical_warning(s) & ~before & s->features.async_events)
        nvme_raise_event(s, NVME_EVENT_SMART, EVENT_TEMPERATURE);
    return NVME_OK;
}

static uint16_t get_error_recovery(const struct nvme *s, uint32_t which, uint32_t *out)
{
    (void)which;
    *out = s->features.error_recovery;
    return NVME_OK;
}

static uint16_t set_error_recovery(struct nvme *s, uint32_t value)
{
    if (value & ~TIME_LIMIT) /* reading deallocated blocks is no error */
        return NVME_INVALID_FIELD;
    s->features.error_recovery = value;
    return NVME_OK;
}

static uint16_t get_write_cache(const struct nvme *s, uint32_t which, uint32_t *out)
{
    (void)which;
    *out = s->features.write_cache;
    return nvme_has_write_cache(s) ? NVME_OK : NVME_INVALID_FIELD;
}

static uint16_t set_write_cache(struct nvme *s, uint32_t value)
{
    if (!nvme_has_write_cache(s))
        return NVME_INVALID_FIELD;
    s->features.write_cache = value & 1;
    return NVME_OK;
}

static uint16_t get_queues(const struct nvme *s, uint32_t which, uint32_t *out)
{
    (void)which;
    *out = (s->queue_count - 2) * 0x10001u; /* without the admin queue, minus 1 */
    return NVME_OK;
}

static uint16_t set_queues(struct nvme *s, uint32_t value)
{
    for (unsigned n = 1; n < s->queue_count; n++)
        if (s->sq[n].valid || s->cq[n].valid)
            return NVME_SEQUENCE_ERROR;
    return (value & 0xffff) == 0xffff || value >> 16 == 0xffff ? NVME_INVALID_FIELD : NVME_OK;
}

static uint16_t get_coalescing(const struct nvme *s, uint32_t which, uint32_t *out)
{
    (void)which;
    *out = s->features.coalescing;
    return NVME_OK;
}

static uint16_t set_coalescing(struct nvme *s, uint32_t value)
{
    s->features.coalescing = value & 0xffff;
    return NVME_OK;
}

static uint16_t get_vector(const struct nvme *s, uint32_t which, uint32_t *out)
{
    unsigned vector = which & 0xffff;

    if (vector >= s->queue_count)
        return NVME_INVALID_FIELD;
    *out = vector | (uint32_t)s->features.no_coalescing[vector] << 16;
    return NVME_OK;
}

static uint16_t set_vector(struct nvme *s, uint32_t value)
{
    unsigned vector = value & 0xffff;

    if (vector >= s->queue_count)
        return NVME_INVALID_FIELD;
    s->features.no_coalescing[vector] = value >> 16 & 1;
    return NVME_OK;
}

static uint16_t get_atomicity(const struct nvme *s, uint32_t which, uint32_t *out)
{
    (void)which;
    *out = s->features.write_atomicity;
    return NVME_OK;
}

static uint16_t set_atomicity(struct nvme *s, uint32_t value)
{
    s->features.write_atomicity = value & 1;
    return NVME_OK;
}

static uint16_t get_async_events(const struct nvme *s, uint32_t which, uint32_t *out)
{
    (void)which;
    *out = s->features.async_events;
    return NVME_OK;
}

static uint16_t set_async_events(struct nvme *s, uint32_t value)
{
    s->features.async_events = value & SMART_EVENTS;
    return NVME_OK;
}

static const struct feature features[] = {
    {0x01, false, get_arbitration, set_arbitration},
    {0x02, false, get_power, set_power},
    {0x04, false, get_temperature, set_temperature},
    {0x05, true, get_error_recovery, set_error_recovery},
    {0x06, false, get_write_cache, set_write_cache},
    {0x07, false, get_queues, set_queues},
    {0x08, false, get_coalescing, set_coalescing},
    {0x09, false, get_vector, set_vector},
    {0x0a, false, get_atomicity, set_atomicity},
    {0x0b, false, get_async_events, set_async_events},
};

static const struct feature *find_feature(const struct nvme_request *r)
{
    for (unsigned n = 0; n < sizeof(features) / sizeof(features[0]); n++)
        if (features[n].id == (r->command.dword[10] & 0xff))
            return &features[n];
    return NULL;
}

/* The default is what a controller after a reset says. */
static uint16_t get_default(const struct feature *feature, const struct nvme *s, uint32_t which,
                            uint32_t *out)
{
    struct nvme fresh = {.drive = s->drive, .queue_count = s->queue_count};

    nvme_reset_features(&fresh);
    return feature->get(&fresh, which, out);
}

uint16_t nvme_get_features(struct nvme_request *r)
{
    const struct feature *feature = find_feature(r);

    if (!feature)
        return NVME_INVALID_FIELD;
    if (feature->is_namespace && r->command.nsid != 1)
        return NVME_INVALID_NAMESPACE;
    switch (r->command.dword[10] >> 8 & 7) {
    case SELECT_CURRENT:
        return feature->get(r->s, r->command.dword[11], &r->result);
    case SELECT_DEFAULT:
    case SELECT_SAVED: /* which is the default of what cannot be saved */
        return get_default(feature, r->s, r->command.dword[11], &r->result);
    case SELECT_CAPABILITIES:
        r->result = CAN_CHANGE | (feature->is_namespace ? CAN_NAMESPACE : 0);
        return NVME_OK;
    default:
        return NVME_INVALID_FIELD;
    }
}

uint16_t nvme_set_features(struct nvme_request *r)
{
    const struct feature *feature = find_feature(r);
    uint32_t nsid = r->command.nsid;
    uint16_t status;

    if (!feature)
        return NVME_INVALID_FIELD;
    if (r->command.dword[10] & SAVE)
        return NVME_NOT_SAVEABLE;
    if (feature->is_namespace && nsid != 1 && nsid != NVME_ALL_NAMESPACES)
        return NVME_INVALID_NAMESPACE;
    if (!feature->is_namespace && nsid && nsid != NVME_ALL_NAMESPACES)
        return NVME_NOT_NS_SPECIFIC;
    status = feature->set(r->s, r->command.dword[11]);
    if (!status && feature->set == set_queues)
        feature->get(r->s, 0, &r->result); /* how many there are */
    return status;
}
