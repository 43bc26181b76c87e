/*
 * codec.c - the codec of the HD Audio controller: one line out, one line in
 *
 * HD Audio 1.0a, chapter 7. Nodes: 0 the root, 1 the audio function group, 2 a converter to analog
 * with a volume, which leads to pin 3; 4 a converter from analog with a volume, which pin 5 leads
 * to. Samples have 16 bits at 8 to 96 kHz. Left out: unsolicited responses, as nobody plugs
 * anything.
 */
#include "devices/hda/hda.h"

#define VENDOR_ID   0x12090010u
#define REVISION_ID 0x00100101u

enum { ROOT, GROUP, DAC, LINE_OUT, ADC, LINE_IN, NODES };

/* Parameters (7.3.4). */
enum {
    PARAM_VENDOR = 0x00,
    PARAM_REVISION = 0x02,
    PARAM_NODES = 0x04,
    PARAM_GROUP_TYPE = 0x05,
    PARAM_WIDGET = 0x09,
    PARAM_RATES = 0x0a,
    PARAM_FORMATS = 0x0b,
    PARAM_PIN = 0x0c,
    PARAM_AMP_IN = 0x0d,
    PARAM_CONNECTIONS = 0x0e,
    PARAM_POWER = 0x0f,
    PARAM_AMP_OUT = 0x12,
};

#define RATES        0x000201ffu /* 16 bits; 8 to 96 kHz */
#define PCM          0x00000001u
#define POWER_STATES 0x00000009u /* D0, D3 */
/* 0x4a is 0 dB, the highest; a step is 1 dB; it can be muted. */
#define AMP          0x80034a4au
#define GAIN_0_DB    0x4au
#define GAIN_BITS    0x7fu
#define MUTE         0x80u

struct parameter {
    uint8_t node, number;
    uint32_t value;
};

static const struct parameter parameters[] = {
    {ROOT, PARAM_VENDOR, VENDOR_ID},
    {ROOT, PARAM_REVISION, REVISION_ID},
    {ROOT, PARAM_NODES, 0x00010001},
    {GROUP, PARAM_NODES, 0x00020004},
    {GROUP, PARAM_GROUP_TYPE, 0x01},
    {GROUP, PARAM_RATES, RATES},
    {GROUP, PARAM_FORMATS, PCM},
    {GROUP, PARAM_POWER, POWER_STATES},
    {DAC, PARAM_WIDGET, 0x0000041d}, /* power, own formats and amplifier, stereo */
    {DAC, PARAM_RATES, RATES},
    {DAC, PARAM_FORMATS, PCM},
    {DAC, PARAM_AMP_OUT, AMP},
    {DAC, PARAM_POWER, POWER_STATES},
    {LINE_OUT, PARAM_WIDGET, 0x00400101},
    {LINE_OUT, PARAM_PIN, 0x10},
    {LINE_OUT, PARAM_CONNECTIONS, 1},
    {ADC, PARAM_WIDGET, 0x0010051b},
    {ADC, PARAM_RATES, RATES},
    {ADC, PARAM_FORMATS, PCM},
    {ADC, PARAM_AMP_IN, AMP},
    {ADC, PARAM_CONNECTIONS, 1},
    {ADC, PARAM_POWER, POWER_STATES},
    {LINE_IN, PARAM_WIDGET, 0x00400001},
    {LINE_IN, PARAM_PIN, 0x20},
};

static uint32_t parameter(unsigned node, unsigned number)
{
    for (size_t n = 0; n < sizeof(parameters) / sizeof(parameters[0]); n++)
        if (parameters[n].node == node && parameters[n].number == number)
            return parameters[n].value;
    return 0;
}

/* What a jack is for (7.3.3.31). */
static uint32_t configuration(unsigned node)
{
    if (node == LINE_OUT)
        return 0x01014010; /* line out, green, at the back */
    return node == LINE_IN ? 0x01813020 : 0;
}

static struct hda_converter *converter(struct hda *s, unsigned node)
{
    if (node == DAC)
        return &s->converters[HDA_DAC];
    return node == ADC ? &s->converters[HDA_ADC] : NULL;
}

static uint8_t *pin_control(struct hda *s, unsigned node)
{
    if (node == LINE_OUT)
        return &s->pin_control[HDA_DAC];
    return node == LINE_IN ? &s->pin_control[HDA_ADC] : NULL;
}

/* ---- verbs with 16 bits of payload ---- */

static void set_gain(struct hda *s, unsigned node, unsigned payload)
{
    struct hda_converter *c = converter(s, node);

    if (!c || !(payload & (node == DAC ? 0x8000 : 0x4000)))
        return;
    for (unsigned n = 0; n < 2; n++) {
        uint8_t gain = payload & GAIN_BITS;

        if (payload & (n ? 0x1000 : 0x2000))
            c->gain[n] = (uint8_t)((gain > GAIN_0_DB ? GAIN_0_DB : gain) | (payload & MUTE));
    }
}

static uint32_t get_gain(struct hda *s, unsigned node, unsigned payload)
{
    const struct hda_converter *c = converter(s, node);

    if (!c || !(payload & 0x8000) != (node != DAC))
        return 0;
    return c->gain[!(payload & 0x2000)];
}

/* ---- verbs with 8 bits ---- */

static uint32_t get(struct hda *s, unsigned node, unsigned verb, unsigned payload)
{
    const struct hda_converter *c = converter(s, node);
    const uint8_t *pin = pin_control(s, node);
    unsigned power;

    switch (verb) {
    case 0xf00:
        return parameter(node, payload);
    case 0xf02: /* connection list */
        return node == LINE_OUT && !payload ? DAC : node == ADC && !payload ? LINE_IN : 0;
    case 0xf05:
        power = c ? c->power : node == GROUP ? s->group_power : 0;
        return power << 4 | power;
    case 0xf06:
        return c ? c->stream : 0;
    case 0xf07:
        return pin ? *pin : 0;
    case 0xf09: /* something is plugged in */
        return pin ? 0x80000000u : 0;
    case 0xf1c:
        return configuration(node);
    case 0xf20:
        return node == GROUP ? VENDOR_ID : 0;
    default:
        return 0;
    }
}

static void set(struct hda *s, unsigned node, unsigned verb, unsigned payload)
{
    struct hda_converter *c = converter(s, node);
    uint8_t *pin = pin_control(s, node);

    switch (verb) {
    case 0x705:
        if (c)
            c->power = payload & 3;
        else if (node == GROUP)
            s->group_power = payload & 3;
        break;
    case 0x706:
        if (c)
            c->stream = (uint8_t)payload;
        break;
    case 0x707:
        if (pin)
            *pin = payload & 0xe0;
        break;
    case 0x7ff:
        if (node == GROUP)
            hda_codec_reset(s);
        break;
    default:
        break;
    }
}

uint32_t hda_codec_execute(struct hda *s, uint32_t verb)
{
    unsigned node = verb >> 20 & 0x7f, payload = verb & 0xffff;
    struct hda_converter *c = converter(s, node);

    switch (verb >> 16 & 0xf) {
    case 0x2:
        if (c)
            c->format = (uint16_t)payload;
        return 0;
    case 0x3:
        set_gain(s, node, payload);
        return 0;
    case 0xa:
        return c ? c->format : 0;
    case 0xb:
        return get_gain(s, node, payload);
    case 0x7:
        set(s, node, verb >> 8 & 0xfff, verb & 0xff);
        return 0;
    case 0xf:
        return get(s, node, verb >> 8 & 0xfff, verb & 0xff);
    default:
        return 0;
    }
}

void hda_codec_reset(struct hda *s)
{
    for (unsigned n = 0; n < HDA_CONVERTERS; n++) {
        s->converters[n] = (struct hda_converter){.format = 0x0031, .gain = {GAIN_0_DB, GAIN_0_DB}};
        s->pin_control[n] = 0;
    }
    s->group_power = 0;
}
