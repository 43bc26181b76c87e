/*
 * e1000_internal.h - what the files of the e1000 share: its registers, EEPROM and PHY, frames
 */
#ifndef DEVICES_E1000_INTERNAL_H
#define DEVICES_E1000_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "trapeze/net.h"
#include "trapeze/pci.h"

#define E1000_DEVICE_ID        0x100eu
#define E1000_EEPROM_WORDS     64u
#define E1000_PHY_REGISTERS    32u
#define E1000_DESCRIPTOR_BYTES 16u
#define E1000_TAG_BYTES        4u /* of a VLAN */

#define E1000_CTRL_VME         (1u << 30)

/* Causes of interrupts, in ICR, ICS, IMS and IMC. */
#define E1000_TXDW             (1u << 0) /* a transmit descriptor was written back */
#define E1000_TXQE             (1u << 1) /* nothing is left to transmit */
#define E1000_LSC              (1u << 2) /* the link has changed */
#define E1000_RXDMT0           (1u << 4) /* few receive descriptors are left */
#define E1000_RXT0             (1u << 7) /* frames were received */
#define E1000_MDAC             (1u << 9) /* the PHY has answered */
#define E1000_TXD_LOW          (1u << 15)
#define E1000_SRPD             (1u << 16) /* a small frame was received */

/* Counters: their offsets from 4000h, in registers. Those of 64 bits take two. */
enum e1000_statistic {
    E1000_PRC64 = 23, /* received frames by size: 64, 65-127, ... 1024 and more */
    E1000_GPRC = 29,  /* good frames received */
    E1000_BPRC = 30,  /* of them broadcast */
    E1000_MPRC = 31,
    E1000_GPTC = 32, /* good frames sent */
    E1000_GORC = 34,
    E1000_GOTC = 36,
    E1000_RNBC = 40, /* had to wait for a receive descriptor */
    E1000_ROC = 43,  /* too long */
    E1000_TORC = 48,
    E1000_TOTC = 50,
    E1000_TPR = 52,
    E1000_TPT = 53,
    E1000_PTC64 = 54,
    E1000_MPTC = 60,
    E1000_BPTC = 61,
    E1000_TSCTC = 62,  /* TCP segmentations done */
    E1000_TSCTFC = 63, /* and failed */
};

/* The Microwire EEPROM behind EECD: a 93C46. */
struct e1000_eeprom {
    uint16_t words[E1000_EEPROM_WORDS];
    bool selected, clock, output, can_write;
    uint8_t bits;     /* of the command that have come, from the start bit on */
    uint32_t command; /* they */
    uint8_t bits_out; /* of a word that is being read */
    uint8_t next;     /* word to be read behind it */
    uint16_t word;
};

/* Of a transmit context descriptor: where checksums begin, go and end. */
struct e1000_context {
    uint8_t ip_start, ip_offset, tcp_start, tcp_offset;
    uint16_t ip_end, tcp_end; /* the last byte; 0: of the frame */
    uint8_t header_bytes, command;
    uint16_t segment_bytes;
};

struct e1000 {
    struct pci_function function;

    /* Configuration. */
    struct net *network; /* property */
    char *mac;           /* property */
    struct net_frontend frontend;

    /* Guest-visible state. */
#define E1000_REGISTER(name, offset, reset, writable, read, write) uint32_t name;
#define E1000_REGISTERS(name, offset, count, writable)             uint32_t name[count];
#include "devices/e1000_registers.def"
#undef E1000_REGISTER
#undef E1000_REGISTERS
    uint32_t io_address; /* of the window of ports */
    uint16_t phy[E1000_PHY_REGISTERS];
    struct e1000_eeprom eeprom;
    struct timer throttle;                      /* armed: no new interrupt yet */
    struct timer receive_delay, transmit_delay; /* an interrupt is to come */
    uint64_t receive_limit_ns, transmit_limit_ns;
    struct e1000_context checksums, segments;
    /* A frame of which the last descriptor has not come, with room for a tag in front. */
    uint8_t frame[E1000_TAG_BYTES + NET_MAX_FRAME_BYTES];
    uint32_t frame_bytes;
    bool frame_has_begun, frame_is_too_long, frame_is_segmented, frame_is_tagged;
    uint8_t frame_options; /* POPTS */
    uint16_t frame_tag;

    struct state_buffer backend; /* net_save() */
    bool is_paused;
    bool has_received; /* since the guest was last told */
    struct timer transmit_more;
    uint8_t received[E1000_TAG_BYTES + NET_MAX_FRAME_BYTES];
};

static inline struct e1000 *e1000_of(struct device *dev)
{
    return container_of(dev, struct e1000, function.dev);
}

/* ---- e1000.c ---- */

void e1000_raise(struct e1000 *s, uint32_t causes);
void e1000_count(struct e1000 *s, unsigned statistic, uint64_t count);      /* stays at its limit */
void e1000_count_long(struct e1000 *s, unsigned statistic, uint64_t count); /* of 64 bits */
/* The counter for frames of that size, of those that begin with first. */
unsigned e1000_size_class(unsigned first, size_t size_bytes);
bool e1000_has_link(const struct e1000 *s);
/* A timer of so many units of 1.024 us, which is put off from limit_ns no more; 0: now. */
void e1000_delay(struct e1000 *s, struct timer *timer, uint64_t *limit_ns, uint32_t delay,
                 uint32_t most);

/* ---- e1000_phy.c: EEPROM and PHY ---- */

void e1000_make_eeprom(struct e1000 *s, const uint8_t mac[NET_MAC_BYTES]);
uint32_t e1000_read_eecd(struct e1000 *s);
void e1000_write_eecd(struct e1000 *s, uint32_t value);
void e1000_write_eerd(struct e1000 *s, uint32_t value);
void e1000_write_mdic(struct e1000 *s, uint32_t value);
void e1000_reset_phy(struct e1000 *s);
bool e1000_loops_back(const struct e1000 *s); /* what is sent is received */

/* ---- e1000_frames.c ---- */

void e1000_transmit(struct e1000 *s);
bool e1000_receive(struct e1000 *s, const struct net_frame *frame); /* false: no room */

extern const struct state_field e1000_context_state[];

#endif
