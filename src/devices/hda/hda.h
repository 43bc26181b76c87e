/*
 * hda.h - an Intel HD Audio controller and its codec
 */
#ifndef DEVICES_HDA_HDA_H
#define DEVICES_HDA_HDA_H

#include <stdbool.h>
#include <stdint.h>

#include "trapeze/audio.h"
#include "trapeze/pci.h"

#define HDA_INPUTS    4u
#define HDA_OUTPUTS   4u
#define HDA_STREAMS   (HDA_INPUTS + HDA_OUTPUTS) /* inputs come first */
#define HDA_REGISTERS 96u                        /* doublewords: up to the last stream's */

/* Doublewords of the register file (HD Audio 1.0a, chapter 3). */
enum hda_register {
    HDA_GCAP = 0x00 / 4,
    HDA_PAYLOAD = 0x04 / 4,
    HDA_GCTL = 0x08 / 4,
    HDA_WAKE = 0x0c / 4, /* WAKEEN and STATESTS */
    HDA_GSTS = 0x10 / 4,
    HDA_INTCTL = 0x20 / 4,
    HDA_INTSTS = 0x24 / 4,
    HDA_WALCLK = 0x30 / 4,
    HDA_SSYNC = 0x38 / 4,
    HDA_CORBBASE = 0x40 / 4, /* and the upper half behind it, as all addresses */
    HDA_CORBPTR = 0x48 / 4,  /* CORBWP and CORBRP */
    HDA_CORBCTL = 0x4c / 4,  /* control, status, size */
    HDA_RIRBBASE = 0x50 / 4,
    HDA_RIRBPTR = 0x58 / 4, /* RIRBWP and RINTCNT */
    HDA_RIRBCTL = 0x5c / 4,
    HDA_ICOI = 0x60 / 4,
    HDA_ICII = 0x64 / 4,
    HDA_ICIS = 0x68 / 4,
    HDA_DPBASE = 0x70 / 4,
    HDA_STREAM0 = 0x80 / 4,
};

/* Of a stream, from HDA_STREAM0 + number * HDA_STREAM_WORDS on. */
enum hda_stream_register {
    HDA_SD_CTL, /* control, and status in the high byte */
    HDA_SD_LPIB,
    HDA_SD_CBL,
    HDA_SD_LVI,
    HDA_SD_FORMAT = 4, /* in the high half */
    HDA_SD_BDL = 6,
    HDA_STREAM_WORDS = 8,
};
#define HDA_SD_RUN      0x00000002u
#define HDA_SD_IOCE     0x00000004u
#define HDA_SD_FEIE     0x00000008u
#define HDA_SD_DEIE     0x00000010u
#define HDA_SD_COMPLETE 0x04000000u
#define HDA_SD_FIFO     0x08000000u
#define HDA_SD_ERROR    0x10000000u
#define HDA_SD_READY    0x20000000u

/* What a stream has moved. */
struct hda_stream {
    uint8_t entry;     /* of the buffer list */
    uint32_t entry_at; /* bytes of it */
    uint64_t start_ns; /* when it would have begun, had it never been late */
    uint64_t done;     /* frames since then */
    struct audio_voice voice;
};

/* A converter of the codec: one side of an analog path. */
struct hda_converter {
    uint16_t format;
    uint8_t stream;  /* its tag and first channel */
    uint8_t gain[2]; /* left and right; bit 7: muted */
    uint8_t power;
};

enum { HDA_DAC, HDA_ADC, HDA_CONVERTERS };

struct hda {
    struct pci_function function;

    struct audio *audio; /* property; NULL: nobody listens */

    /* Guest-visible state. */
    uint32_t regs[HDA_REGISTERS];
    struct hda_stream streams[HDA_STREAMS];
    uint16_t responses; /* since the last interrupt for them */
    uint64_t reset_ns;  /* the wall clock's zero */
    struct hda_converter converters[HDA_CONVERTERS];
    uint8_t pin_control[HDA_CONVERTERS];
    uint8_t group_power;
    struct timer timer;
};

static inline uint32_t *hda_sd(struct hda *s, unsigned stream)
{
    return &s->regs[HDA_STREAM0 + stream * HDA_STREAM_WORDS];
}

static inline bool hda_is_output(unsigned stream)
{
    return stream >= HDA_INPUTS;
}

/* controller.c: the interrupt line is as the registers say */
void hda_update_line(struct hda *s);
/* stream.c */
void hda_start_stream(struct hda *s, unsigned stream);
void hda_stop_stream(struct hda *s, unsigned stream);
void hda_reset_stream(struct hda *s, unsigned stream);
/* Move what is due of all streams, and be called again in time. */
void hda_run_streams(struct hda *s);
/* codec.c */
uint32_t hda_codec_execute(struct hda *s, uint32_t verb);
void hda_codec_reset(struct hda *s);
/* -EINVAL: no stream is like this. */
int hda_check_streams(struct hda *s, struct error *err);

#endif
