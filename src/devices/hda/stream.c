/*
 * stream.c - streams of the HD Audio controller: the guest's buffers at the speed of the samples
 *
 * Theory of operation. How many frames a running stream has moved follows from the time since it
 * began. A timer moves what is due at the end of each entry of the buffer list, where the guest may
 * want an interrupt, and at least every PART_NS. A stream of which more than LATE_NS is due has
 * been forgotten by the host: its clock goes on from there, so that it plays on without a gap in
 * its data, and does not race through buffers that the guest had no time to fill.
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/hda/hda.h"

#define PART_NS      10000000u
#define LATE_NS      50000000u
#define LEAST_NS     100000u /* between two looks at the streams */
#define BUFFER_BYTES 4096u
#define ENTRY_BYTES  16u
#define ENTRIES_MAX  256u /* at a time: a whole list */
#define ENTRY_IOC    1u
#define CHANNELS_MAX 16u
#define GAIN_0_DB    0x4au

struct format {
    uint32_t rate_hz;
    unsigned channels, frame_bytes;
    bool is_16_bit;
};

/* HD Audio 1.0a, 3.7.1. */
static struct format format_of(const uint32_t *sd)
{
    static const uint8_t sample_bytes[8] = {1, 2, 4, 4, 4, 4, 4, 4};
    unsigned format = sd[HDA_SD_FORMAT] >> 16;
    uint32_t base = format & 0x4000 ? 44100 : 48000;
    unsigned channels = (format & 0xf) + 1;

    uint32_t rate = base * ((format >> 11 & 7) + 1) / ((format >> 8 & 7) + 1);
    return (struct format){.rate_hz = rate < AUDIO_MAX_HZ ? rate : AUDIO_MAX_HZ,
                           .channels = channels,
                           .frame_bytes = channels * sample_bytes[format >> 4 & 7],
                           .is_16_bit = (format >> 4 & 7) == 1};
}

static uint64_t frames_at(uint64_t ns, uint32_t rate_hz)
{
    return (uint64_t)((unsigned __int128)ns * rate_hz / NANOSECONDS_PER_SECOND);
}

/* The first nanosecond at which frames_at() says so. */
static uint64_t frames_ns(uint64_t frames, uint32_t rate_hz)
{
    return (uint64_t)(((unsigned __int128)frames * NANOSECONDS_PER_SECOND + rate_hz - 1) / rate_hz);
}

static uint64_t now(struct hda *s)
{
    return device_now_ns(&s->function.dev);
}

/* ---- the buffer list ---- */

struct entry {
    uint64_t gpa;
    uint32_t size_bytes;
    bool interrupts;
};

static struct entry read_entry(struct hda *s, unsigned stream)
{
    const uint32_t *sd = hda_sd(s, stream);
    uint64_t list = (uint64_t)sd[HDA_SD_BDL + 1] << 32 | sd[HDA_SD_BDL];
    uint8_t bytes[ENTRY_BYTES] = {0};

    memory_read(device_memory(&s->function.dev), list + s->streams[stream].entry * ENTRY_BYTES,
                bytes, sizeof(bytes));
    return (struct entry){.gpa = get_le64(bytes),
                          .size_bytes = get_le32(bytes + 8),
                          .interrupts = bytes[12] & ENTRY_IOC};
}

static void next_entry(struct hda *s, unsigned stream, const struct entry *entry)
{
    struct hda_stream *st = &s->streams[stream];
    uint32_t *sd = hda_sd(s, stream);

    st->entry_at = 0;
    if (st->entry >= (sd[HDA_SD_LVI] & 0xff)) {
        st->entry = 0;
        sd[HDA_SD_LPIB] = 0;
    } else {
        st->entry++;
    }
    if (entry->interrupts)
        sd[HDA_SD_CTL] |= HDA_SD_COMPLETE;
}

/* Up to size_bytes between the guest's buffers and bytes; fewer, if the entries are tiny. */
static uint32_t move_bytes(struct hda *s, unsigned stream, uint8_t *bytes, uint32_t size_bytes)
{
    struct memory *memory = device_memory(&s->function.dev);
    struct hda_stream *st = &s->streams[stream];
    uint32_t moved = 0;

    for (unsigned n = 0; n < ENTRIES_MAX && moved < size_bytes; n++) {
        struct entry entry = read_entry(s, stream);
        uint32_t left = entry.size_bytes > st->entry_at ? entry.size_bytes - st->entry_at : 0;
        uint32_t part = left < size_bytes - moved ? left : size_bytes - moved;

        if (hda_is_output(stream))
            memory_read(memory, entry.gpa + st->entry_at, bytes + moved, part);
        else
            memory_write(memory, entry.gpa + st->entry_at, bytes + moved, part);
        moved += part;
        st->entry_at += part;
        hda_sd(s, stream)[HDA_SD_LPIB] += part;
        if (part == left)
            next_entry(s, stream, &entry);
    }
    return moved;
}

/* ---- samples ---- */

/* Thousandths of what a volume of the codec leaves. */
static int32_t gain_of(uint8_t gain)
{
    /* 1000 * 10^(-n/20) */
    static const uint16_t decibels[20] = {1000, 891, 794, 708, 631, 562, 501, 447, 398, 355,
                                          316,  282, 251, 224, 200, 178, 158, 141, 126, 112};
    unsigned down = GAIN_0_DB - (gain & 0x7f);
    int32_t value = gain & 0x80 ? 0 : decibels[down % 20];

    for (; down >= 20; down -= 20)
        value /= 10;
    return value;
}

/* Is it the stream that the line out plays? */
static bool is_heard(const struct hda *s, unsigned stream)
{
    const struct hda_converter *dac = &s->converters[HDA_DAC];
    uint32_t tag = s->regs[HDA_STREAM0 + stream * HDA_STREAM_WORDS + HDA_SD_CTL] >> 20 & 0xf;

    return hda_is_output(stream) && tag && tag == dac->stream >> 4 && !dac->power &&
           s->pin_control[HDA_DAC] & 0x40;
}

static void play(struct hda *s, unsigned stream, const uint8_t *bytes, size_t frames,
                 const struct format *format)
{
    const struct hda_converter *dac = &s->converters[HDA_DAC];
    bool is_heard_now = format->is_16_bit && is_heard(s, stream);
    unsigned right = format->channels > 1 ? 2 : 0;
    int16_t samples[2 * BUFFER_BYTES];

    for (size_t n = 0; n < frames; n++) {
        const uint8_t *frame = bytes + n * format->frame_bytes;
        int32_t left_sample = is_heard_now ? (int16_t)get_le16(frame) : 0;
        int32_t right_sample = is_heard_now ? (int16_t)get_le16(frame + right) : 0;

        samples[2 * n] = (int16_t)(left_sample * gain_of(dac->gain[0]) / 1000);
        samples[2 * n + 1] = (int16_t)(right_sample * gain_of(dac->gain[1]) / 1000);
    }
    audio_put(&s->streams[stream].voice, samples, frames);
}

/* False: the buffer list is of no use. */
static bool move_frames(struct hda *s, unsigned stream, uint64_t frames,
                        const struct format *format)
{
    uint8_t bytes[BUFFER_BYTES] = {0}; /* nobody speaks into the line in */

    while (frames) {
        uint32_t part = BUFFER_BYTES / format->frame_bytes;
        uint32_t size;

        if (part > frames)
            part = (uint32_t)frames;
        size = part * format->frame_bytes;
        if (move_bytes(s, stream, bytes, size) < size)
            return false;
        if (hda_is_output(stream))
            play(s, stream, bytes, part, format);
        s->streams[stream].done += part;
        frames -= part;
    }
    return true;
}

/* ---- time ---- */

static void report_position(struct hda *s, unsigned stream)
{
    uint64_t base = (uint64_t)s->regs[HDA_DPBASE + 1] << 32 | (s->regs[HDA_DPBASE] & ~0x7fu);
    uint8_t bytes[4];

    if (!(s->regs[HDA_DPBASE] & 1))
        return;
    put_le32(bytes, hda_sd(s, stream)[HDA_SD_LPIB]);
    memory_write(device_memory(&s->function.dev), base + stream * 8u, bytes, sizeof(bytes));
}

/* Move what is due. Returns when something is due again. */
static uint64_t run_stream(struct hda *s, unsigned stream, uint64_t now_ns)
{
    struct hda_stream *st = &s->streams[stream];
    uint32_t *sd = hda_sd(s, stream);
    struct format format = format_of(sd);
    uint64_t played_ns = frames_ns(st->done, format.rate_hz), due, next;
    struct entry entry;

    if (now_ns < st->start_ns)
        st->start_ns = now_ns;
    if (now_ns - st->start_ns > played_ns && now_ns - st->start_ns - played_ns > LATE_NS) {
        st->start_ns = now_ns - LATE_NS;
        st->done = 0;
    }
    due = frames_at(now_ns - st->start_ns, format.rate_hz);
    if (due > st->done && !move_frames(s, stream, due - st->done, &format)) {
        sd[HDA_SD_CTL] = (sd[HDA_SD_CTL] & ~HDA_SD_RUN) | HDA_SD_ERROR;
        hda_stop_stream(s, stream);
        return CLOCK_NEVER;
    }
    report_position(s, stream);
    entry = read_entry(s, stream);
    next = entry.size_bytes > st->entry_at ? entry.size_bytes - st->entry_at : 0;
    next = st->start_ns + frames_ns(st->done + (next + format.frame_bytes - 1) / format.frame_bytes,
                                    format.rate_hz);
    return next < now_ns + PART_NS ? next : now_ns + PART_NS;
}

void hda_run_streams(struct hda *s)
{
    uint64_t now_ns = now(s), next_ns = CLOCK_NEVER;

    for (unsigned n = 0; n < HDA_STREAMS; n++) {
        uint64_t stream_ns;

        if (!(hda_sd(s, n)[HDA_SD_CTL] & HDA_SD_RUN))
            continue;
        stream_ns = pci_is_master(&s->function) ? run_stream(s, n, now_ns) : now_ns + PART_NS;
        if (stream_ns < next_ns)
            next_ns = stream_ns;
    }
    if (next_ns < now_ns + LEAST_NS)
        next_ns = now_ns + LEAST_NS;
    timer_arm(&s->timer, next_ns);
    hda_update_line(s);
}

void hda_start_stream(struct hda *s, unsigned stream)
{
    struct hda_stream *st = &s->streams[stream];
    struct format format = format_of(hda_sd(s, stream));

    st->start_ns = now(s);
    st->done = 0;
    hda_sd(s, stream)[HDA_SD_CTL] |= HDA_SD_READY;
    if (hda_is_output(stream))
        audio_start(s->audio, &st->voice, format.rate_hz, 2);
}

void hda_stop_stream(struct hda *s, unsigned stream)
{
    hda_sd(s, stream)[HDA_SD_CTL] &= ~HDA_SD_READY;
    audio_stop(&s->streams[stream].voice);
}

void hda_reset_stream(struct hda *s, unsigned stream)
{
    struct hda_stream *st = &s->streams[stream];

    audio_stop(&st->voice);
    st->entry = 0;
    st->entry_at = 0;
    st->start_ns = st->done = 0;
    memset(hda_sd(s, stream), 0, HDA_STREAM_WORDS * sizeof(uint32_t));
}

int hda_check_streams(struct hda *s, struct error *err)
{
    for (unsigned n = 0; n < HDA_STREAMS; n++) {
        struct hda_stream *st = &s->streams[n];
        bool runs = hda_sd(s, n)[HDA_SD_CTL] & HDA_SD_RUN;

        /* Hundreds of years in frames, so that sums stay in range. */
        if (st->done > UINT64_MAX / NANOSECONDS_PER_SECOND)
            return error_set(err, EINVAL, "stream %u has moved too much", n);
        audio_stop(&st->voice);
        if (runs && hda_is_output(n))
            audio_start(s->audio, &st->voice, format_of(hda_sd(s, n)).rate_hz, 2);
    }
    return 0;
}
