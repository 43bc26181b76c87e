/*
 * e1000_phy.c - the EEPROM and the PHY of the 82540EM
 *
 * The EEPROM is a 93C46, 64 words of 16 bits, by hand through EECD (Microwire: start bit, two bits
 * of command, six of address, data) or by EERD (the manual's 5.3, 13.4.3, 13.4.4). What the guest
 * writes stays until the machine ends. Of the PHY, an 88E1000, there are the registers of IEEE
 * 802.3 clause 22 and the status that drivers read. The link negotiates 1000 Mb/s, full duplex, in
 * no time.
 *
 * Threads: machine lock held. Guest memory: not touched.
 */
#include <string.h>

#include "devices/e1000_internal.h"

#define EECD_CLOCK         0x001u
#define EECD_SELECT        0x002u
#define EECD_IN            0x004u /* to the EEPROM */
#define EECD_OUT           0x008u
#define EECD_REQUEST       0x040u
#define EECD_GRANT         0x080u
#define EECD_PRESENT       0x100u

#define EERD_START         0x01u
#define EERD_DONE          0x10u

#define COMMAND_BITS       9u /* with the start bit */
#define WRITE_BITS         (COMMAND_BITS + 16u)
#define EEPROM_SUM         0xbabau

#define MDIC_WRITE         (1u << 26)
#define MDIC_READ          (2u << 26)
#define MDIC_OPERATION     (3u << 26)
#define MDIC_READY         (1u << 28)
#define MDIC_INTERRUPT     (1u << 29)
#define MDIC_ERROR         (1u << 30)
#define PHY_ADDRESS        1u

#define CONTROL_RESET      0x8000u
#define CONTROL_LOOPBACK   0x4000u
#define CONTROL_POWER_DOWN 0x0800u
#define CONTROL_RESTART    0x0200u
#define STATUS_LINK        0x0024u /* and negotiation is complete */
#define SPECIFIC_LINK      0x0400u

enum phy_register {
    PHY_CONTROL = 0,
    PHY_STATUS = 1,
    PHY_ID1 = 2,
    PHY_ID2 = 3,
    PHY_ADVERTISED = 4,
    PHY_PARTNER = 5,
    PHY_EXPANSION = 6,
    PHY_NEXT_PAGE = 7,
    PHY_GIGABIT_CONTROL = 9,
    PHY_GIGABIT_STATUS = 10,
    PHY_EXTENDED_STATUS = 15,
    PHY_SPECIFIC_CONTROL = 16,
    PHY_SPECIFIC_STATUS = 17,
    PHY_INTERRUPTS = 18,
    PHY_EXTENDED_CONTROL = 20,
    PHY_RECEIVE_ERRORS = 21,
    PHY_PAGE = 29,
    PHY_PAGED = 30,
};

static const struct {
    uint16_t reset, writable;
} phy_registers[E1000_PHY_REGISTERS] = {
    [PHY_CONTROL] = {0x1140, 0x7dc0},
    [PHY_STATUS] = {0x7949, 0},
    [PHY_ID1] = {0x0141, 0},
    [PHY_ID2] = {0x0c20, 0},
    [PHY_ADVERTISED] = {0x0de1, 0xffff},
    [PHY_PARTNER] = {0x45e1, 0},
    [PHY_EXPANSION] = {0x0001, 0},
    [PHY_NEXT_PAGE] = {0x2001, 0xffff},
    [PHY_GIGABIT_CONTROL] = {0x0e00, 0xff00},
    [PHY_GIGABIT_STATUS] = {0x3c00, 0},
    [PHY_EXTENDED_STATUS] = {0x3000, 0},
    [PHY_SPECIFIC_CONTROL] = {0x0360, 0xffff},
    [PHY_SPECIFIC_STATUS] = {0xa808, 0},
    [PHY_INTERRUPTS] = {0, 0xffff},
    [PHY_EXTENDED_CONTROL] = {0x0d60, 0xffff},
    [PHY_PAGE] = {0, 0xffff},
    [PHY_PAGED] = {0, 0xffff},
};

/* ---- EEPROM ---- */

void e1000_make_eeprom(struct e1000 *s, const uint8_t mac[NET_MAC_BYTES])
{
    uint16_t *words = s->eeprom.words, sum = 0;

    for (unsigned n = 0; n < 3; n++)
        words[n] = (uint16_t)(mac[2 * n] | mac[2 * n + 1] << 8);
    words[0x0a] = 0x4003; /* valid; the ids below are loaded */
    words[0x0b] = 0x001e;
    words[0x0c] = 0x8086;
    words[0x0d] = E1000_DEVICE_ID;
    words[0x0e] = 0x8086;
    for (unsigned n = 0; n < E1000_EEPROM_WORDS - 1; n++)
        sum = (uint16_t)(sum + words[n]);
    words[E1000_EEPROM_WORDS - 1] = (uint16_t)(EEPROM_SUM - sum);
}

/* What is written is programmed when the chip is no longer selected. */
static void deselect(struct e1000_eeprom *e)
{
    unsigned operation = e->command >> 16 >> 6 & 3, address = e->command >> 16 & 0x3f;

    if (e->bits == WRITE_BITS && operation == 1 && e->can_write)
        e->words[address] = (uint16_t)e->command;
    operation = e->command >> 6 & 3;
    address = e->command & 0x3f;
    if (e->bits == COMMAND_BITS && operation == 3 && e->can_write)
        e->words[address] = 0xffff;
    if (e->bits == COMMAND_BITS && operation == 0 && (address >> 4 == 3 || address >> 4 == 0))
        e->can_write = address >> 4 == 3;
    e->bits = e->bits_out = 0;
    e->command = 0;
    e->output = true; /* ready */
}

static void clock_out(struct e1000_eeprom *e)
{
    e->bits_out--;
    e->output = e->word >> e->bits_out & 1;
    if (e->bits_out)
        return;
    e->word = e->words[e->next]; /* the next one follows */
    e->next = (e->next + 1) % E1000_EEPROM_WORDS;
    e->bits_out = 16;
}

static void clock_in(struct e1000_eeprom *e, bool bit)
{
    if (e->bits == WRITE_BITS || (!e->bits && !bit))
        return;
    e->command = e->command << 1 | bit;
    e->bits++;
    if (e->bits != COMMAND_BITS || (e->command >> 6 & 3) != 2)
        return;
    e->word = e->words[e->command & 0x3f];
    e->next = (uint8_t)((e->command + 1) & 0x3f);
    e->bits_out = 16;
    e->output = false;
}

uint32_t e1000_read_eecd(struct e1000 *s)
{
    return s->eecd | EECD_PRESENT | (s->eecd & EECD_REQUEST ? EECD_GRANT : 0) |
           (s->eeprom.output ? EECD_OUT : 0);
}

void e1000_write_eecd(struct e1000 *s, uint32_t value)
{
    struct e1000_eeprom *e = &s->eeprom;
    bool rises = value & EECD_CLOCK && !e->clock;

    e->clock = value & EECD_CLOCK;
    if (e->selected && !(value & EECD_SELECT))
        deselect(e);
    e->selected = value & EECD_SELECT;
    if (!e->selected || !rises)
        return;
    if (e->bits_out)
        clock_out(e);
    else
        clock_in(e, value & EECD_IN);
}

void e1000_write_eerd(struct e1000 *s, uint32_t value)
{
    uint32_t address = value >> 8 & 0xff;

    if (value & EERD_START)
        s->eerd = (uint32_t)s->eeprom.words[address % E1000_EEPROM_WORDS] << 16 | address << 8 |
                  EERD_DONE;
}

/* ---- PHY ---- */

void e1000_reset_phy(struct e1000 *s)
{
    for (unsigned n = 0; n < E1000_PHY_REGISTERS; n++)
        s->phy[n] = phy_registers[n].reset;
}

bool e1000_has_link(const struct e1000 *s)
{
    return net_is_up(s->network) && !(s->phy[PHY_CONTROL] & CONTROL_POWER_DOWN);
}

bool e1000_loops_back(const struct e1000 *s)
{
    return s->phy[PHY_CONTROL] & CONTROL_LOOPBACK;
}

static uint16_t read_phy(const struct e1000 *s, unsigned number)
{
    uint16_t value = s->phy[number];

    if (number == PHY_STATUS && e1000_has_link(s))
        value |= STATUS_LINK;
    if (number == PHY_SPECIFIC_STATUS && e1000_has_link(s))
        value |= SPECIFIC_LINK;
    return value;
}

static void write_phy(struct e1000 *s, unsigned number, uint16_t value)
{
    uint16_t writable = phy_registers[number].writable;
    bool had_link = e1000_has_link(s);

    s->phy[number] = (uint16_t)((s->phy[number] & ~writable) | (value & writable));
    if (number != PHY_CONTROL)
        return;
    if (value & CONTROL_RESET)
        e1000_reset_phy(s);
    if (had_link != e1000_has_link(s) || value & CONTROL_RESTART)
        e1000_raise(s, E1000_LSC);
}

void e1000_write_mdic(struct e1000 *s, uint32_t value)
{
    unsigned number = value >> 16 & 31;

    s->mdic = (value & ~(MDIC_ERROR | 0xffffu)) | MDIC_READY;
    if ((value >> 21 & 31) != PHY_ADDRESS) {
        s->mdic |= MDIC_ERROR;
    } else if ((value & MDIC_OPERATION) == MDIC_READ) {
        s->mdic |= read_phy(s, number);
    } else if ((value & MDIC_OPERATION) == MDIC_WRITE) {
        s->mdic |= value & 0xffffu;
        write_phy(s, number, (uint16_t)value);
    }
    if (value & MDIC_INTERRUPT)
        e1000_raise(s, E1000_MDAC);
}
