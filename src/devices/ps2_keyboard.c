/*
 * ps2_keyboard.c - PS/2 keyboard with 102 keys
 *
 * IBM PS/2 Hardware Interface Technical Reference, "Keyboards (101- and 102-key)": all
 * commands, scan code sets 1, 2 and 3, typematic repeat. Keys are named by their usage in the
 * keyboard page of the USB HID Usage Tables.
 *
 * Sets 1 and 2 are one table: set 1 is set 2 seen through the 8042's translation.
 *
 * Left out: the extra shift codes that a real keyboard puts around the cursor keys while
 * Num Lock or Shift is on.
 *
 * Threads: machine lock. Guest memory: not touched.
 */
#include <string.h>

#include "devices/ps2.h"
#include "devices/ps2_internal.h"

#define BUFFER_SIZE       16 /* of the keyboard; replies come on top */
#define ID_1              0xab
#define ID_2              0x83
#define BREAK             0xf0
#define EXTENDED          0x100 /* in the table of set 2: 0xe0 goes before the code */
#define TYPEMATIC_DEFAULT 0x2b  /* 500 ms, 10.9 characters a second */

enum keyboard_command {
    COMMAND_LEDS = 0xed,
    COMMAND_ECHO = 0xee,
    COMMAND_SET = 0xf0,
    COMMAND_IDENTIFY = 0xf2,
    COMMAND_TYPEMATIC = 0xf3,
    COMMAND_ENABLE = 0xf4,
    COMMAND_DISABLE = 0xf5,
    COMMAND_DEFAULTS = 0xf6,
    COMMAND_ALL_TYPEMATIC = 0xf7,
    COMMAND_ALL_MAKE_BREAK = 0xf8,
    COMMAND_ALL_MAKE = 0xf9,
    COMMAND_ALL_TYPEMATIC_BREAK = 0xfa,
    COMMAND_KEY_TYPEMATIC = 0xfb,
    COMMAND_KEY_MAKE_BREAK = 0xfc,
    COMMAND_KEY_MAKE = 0xfd,
    COMMAND_RESEND = 0xfe,
    COMMAND_RESET = 0xff,
};

enum usage {
    USAGE_PRINT_SCREEN = 0x46,
    USAGE_PAUSE = 0x48,
    USAGE_LEFT_CONTROL = 0xe0,
    USAGE_LEFT_SHIFT = 0xe1,
    USAGE_LEFT_ALT = 0xe2,
    USAGE_RIGHT_CONTROL = 0xe4,
    USAGE_RIGHT_SHIFT = 0xe5,
    USAGE_RIGHT_ALT = 0xe6,
    USAGE_RIGHT_GUI = 0xe7,
};

/* Scan codes of one key; 0 where the set has none. Print Screen and Pause are sequences. */
struct key_codes {
    uint16_t set2;
    uint8_t set3;
};

static const struct key_codes keys[PS2_USAGES] = {
    [0x04] = {0x1c, 0x1c},            /* A */
    [0x05] = {0x32, 0x32},            /* B */
    [0x06] = {0x21, 0x21},            /* C */
    [0x07] = {0x23, 0x23},            /* D */
    [0x08] = {0x24, 0x24},            /* E */
    [0x09] = {0x2b, 0x2b},            /* F */
    [0x0a] = {0x34, 0x34},            /* G */
    [0x0b] = {0x33, 0x33},            /* H */
    [0x0c] = {0x43, 0x43},            /* I */
    [0x0d] = {0x3b, 0x3b},            /* J */
    [0x0e] = {0x42, 0x42},            /* K */
    [0x0f] = {0x4b, 0x4b},            /* L */
    [0x10] = {0x3a, 0x3a},            /* M */
    [0x11] = {0x31, 0x31},            /* N */
    [0x12] = {0x44, 0x44},            /* O */
    [0x13] = {0x4d, 0x4d},            /* P */
    [0x14] = {0x15, 0x15},            /* Q */
    [0x15] = {0x2d, 0x2d},            /* R */
    [0x16] = {0x1b, 0x1b},            /* S */
    [0x17] = {0x2c, 0x2c},            /* T */
    [0x18] = {0x3c, 0x3c},            /* U */
    [0x19] = {0x2a, 0x2a},            /* V */
    [0x1a] = {0x1d, 0x1d},            /* W */
    [0x1b] = {0x22, 0x22},            /* X */
    [0x1c] = {0x35, 0x35},            /* Y */
    [0x1d] = {0x1a, 0x1a},            /* Z */
    [0x1e] = {0x16, 0x16},            /* 1 */
    [0x1f] = {0x1e, 0x1e},            /* 2 */
    [0x20] = {0x26, 0x26},            /* 3 */
    [0x21] = {0x25, 0x25},            /* 4 */
    [0x22] = {0x2e, 0x2e},            /* 5 */
    [0x23] = {0x36, 0x36},            /* 6 */
    [0x24] = {0x3d, 0x3d},            /* 7 */
    [0x25] = {0x3e, 0x3e},            /* 8 */
    [0x26] = {0x46, 0x46},            /* 9 */
    [0x27] = {0x45, 0x45},            /* 0 */
    [0x28] = {0x5a, 0x5a},            /* Enter */
    [0x29] = {0x76, 0x08},            /* Escape */
    [0x2a] = {0x66, 0x66},            /* Backspace */
    [0x2b] = {0x0d, 0x0d},            /* Tab */
    [0x2c] = {0x29, 0x29},            /* Space */
    [0x2d] = {0x4e, 0x4e},            /* - */
    [0x2e] = {0x55, 0x55},            /* = */
    [0x2f] = {0x54, 0x54},            /* [ */
    [0x30] = {0x5b, 0x5b},            /* ] */
    [0x31] = {0x5d, 0x5c},            /* \ */
    [0x32] = {0x5d, 0x53},            /* # beside Enter */
    [0x33] = {0x4c, 0x4c},            /* ; */
    [0x34] = {0x52, 0x52},            /* ' */
    [0x35] = {0x0e, 0x0e},            /* ` */
    [0x36] = {0x41, 0x41},            /* , */
    [0x37] = {0x49, 0x49},            /* . */
    [0x38] = {0x4a, 0x4a},            /* / */
    [0x39] = {0x58, 0x14},            /* Caps Lock */
    [0x3a] = {0x05, 0x07},            /* F1 */
    [0x3b] = {0x06, 0x0f},            /* F2 */
    [0x3c] = {0x04, 0x17},            /* F3 */
    [0x3d] = {0x0c, 0x1f},            /* F4 */
    [0x3e] = {0x03, 0x27},            /* F5 */
    [0x3f] = {0x0b, 0x2f},            /* F6 */
    [0x40] = {0x83, 0x37},            /* F7 */
    [0x41] = {0x0a, 0x3f},            /* F8 */
    [0x42] = {0x01, 0x47},            /* F9 */
    [0x43] = {0x09, 0x4f},            /* F10 */
    [0x44] = {0x78, 0x56},            /* F11 */
    [0x45] = {0x07, 0x5e},            /* F12 */
    [0x46] = {0, 0x57},               /* Print Screen */
    [0x47] = {0x7e, 0x5f},            /* Scroll Lock */
    [0x48] = {0, 0x62},               /* Pause */
    [0x49] = {EXTENDED | 0x70, 0x67}, /* Insert */
    [0x4a] = {EXTENDED | 0x6c, 0x6e}, /* Home */
    [0x4b] = {EXTENDED | 0x7d, 0x6f}, /* Page Up */
    [0x4c] = {EXTENDED | 0x71, 0x64}, /* Delete */
    [0x4d] = {EXTENDED | 0x69, 0x65}, /* End */
    [0x4e] = {EXTENDED | 0x7a, 0x6d}, /* Page Down */
    [0x4f] = {EXTENDED | 0x74, 0x6a}, /* Right */
    [0x50] = {EXTENDED | 0x6b, 0x61}, /* Left */
    [0x51] = {EXTENDED | 0x72, 0x60}, /* Down */
    [0x52] = {EXTENDED | 0x75, 0x63}, /* Up */
    [0x53] = {0x77, 0x76},            /* Num Lock */
    [0x54] = {EXTENDED | 0x4a, 0x77}, /* keypad / */
    [0x55] = {0x7c, 0x7e},            /* keypad * */
    [0x56] = {0x7b, 0x84},            /* keypad - */
    [0x57] = {0x79, 0x7c},            /* keypad + */
    [0x58] = {EXTENDED | 0x5a, 0x79}, /* keypad Enter */
    [0x59] = {0x69, 0x69},            /* keypad 1 */
    [0x5a] = {0x72, 0x72},            /* keypad 2 */
    [0x5b] = {0x7a, 0x7a},            /* keypad 3 */
    [0x5c] = {0x6b, 0x6b},            /* keypad 4 */
    [0x5d] = {0x73, 0x73},            /* keypad 5 */
    [0x5e] = {0x74, 0x74},            /* keypad 6 */
    [0x5f] = {0x6c, 0x6c},            /* keypad 7 */
    [0x60] = {0x75, 0x75},            /* keypad 8 */
    [0x61] = {0x7d, 0x7d},            /* keypad 9 */
    [0x62] = {0x70, 0x70},            /* keypad 0 */
    [0x63] = {0x71, 0x71},            /* keypad . */
    [0x64] = {0x61, 0x13},            /* between left Shift and Z */
    [0x65] = {EXTENDED | 0x2f, 0x8d}, /* Menu */
    [0x66] = {EXTENDED | 0x37, 0},    /* Power */
    [0x67] = {0x0f, 0},               /* keypad = */
    [0x68] = {0x08, 0},               /* F13 */
    [0x69] = {0x10, 0},               /* F14 */
    [0x6a] = {0x18, 0},               /* F15 */
    [0x6b] = {0x20, 0},               /* F16 */
    [0x6c] = {0x28, 0},               /* F17 */
    [0x6d] = {0x30, 0},               /* F18 */
    [0x6e] = {0x38, 0},               /* F19 */
    [0x6f] = {0x40, 0},               /* F20 */
    [0x70] = {0x48, 0},               /* F21 */
    [0x71] = {0x50, 0},               /* F22 */
    [0x72] = {0x57, 0},               /* F23 */
    [0x73] = {0x5f, 0},               /* F24 */
    [0x85] = {0x6d, 0},               /* keypad , */
    [0x87] = {0x51, 0x51},            /* Ro */
    [0x88] = {0x13, 0x87},            /* Kana */
    [0x89] = {0x6a, 0x5d},            /* Yen */
    [0x8a] = {0x64, 0x86},            /* Henkan */
    [0x8b] = {0x67, 0x85},            /* Muhenkan */
    [0xe0] = {0x14, 0x11},            /* left Control */
    [0xe1] = {0x12, 0x12},            /* left Shift */
    [0xe2] = {0x11, 0x19},            /* left Alt */
    [0xe3] = {EXTENDED | 0x1f, 0x8b}, /* left GUI */
    [0xe4] = {EXTENDED | 0x14, 0x58}, /* right Control */
    [0xe5] = {0x59, 0x59},            /* right Shift */
    [0xe6] = {EXTENDED | 0x11, 0x39}, /* right Alt */
    [0xe7] = {EXTENDED | 0x27, 0x8c}, /* right GUI */
};

/* Set 3 after power-on: keys that send a break code, and keys that do not repeat. */
static const uint8_t set3_break_usages[] = {
    0x39, USAGE_LEFT_CONTROL, USAGE_LEFT_SHIFT, USAGE_LEFT_ALT, USAGE_RIGHT_SHIFT,
};
static const uint8_t set3_make_usages[] = {
    /* F1 to F12, Print Screen, Scroll Lock, Pause */
    0x3a,
    0x3b,
    0x3c,
    0x3d,
    0x3e,
    0x3f,
    0x40,
    0x41,
    0x42,
    0x43,
    0x44,
    0x45,
    0x46,
    0x47,
    0x48,
    /* Escape, Insert, Home, Page Up, End, Page Down */
    0x29,
    0x49,
    0x4a,
    0x4b,
    0x4d,
    0x4e,
    /* the keypad but for "+" */
    0x53,
    0x54,
    0x55,
    0x56,
    0x58,
    0x59,
    0x5a,
    0x5b,
    0x5c,
    0x5d,
    0x5e,
    0x5f,
    0x60,
    0x61,
    0x62,
    0x63,
    /* right Control, right Alt, GUI, Menu */
    USAGE_RIGHT_CONTROL,
    USAGE_RIGHT_ALT,
    0xe3,
    USAGE_RIGHT_GUI,
    0x65,
};

static const uint8_t translation[0x80] = {
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59,
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b,
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d,
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f,
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61,
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76,
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f,
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
};

uint8_t ps2_translate(uint8_t code)
{
    if (code < sizeof(translation))
        return translation[code];
    return code == 0x83 ? 0x41 : code == 0x84 ? 0x54 : code;
}

/* ---- queues ---- */

void ps2_queue_clear(struct ps2_queue *queue)
{
    queue->head = 0;
    queue->count = 0;
}

unsigned ps2_queue_room(const struct ps2_queue *queue)
{
    return PS2_QUEUE_SIZE - queue->count;
}

bool ps2_queue_put(struct ps2_queue *queue, uint8_t byte)
{
    if (!ps2_queue_room(queue))
        return false;
    queue->data[(queue->head + queue->count) % PS2_QUEUE_SIZE] = byte;
    queue->count++;
    return true;
}

uint8_t ps2_queue_get(struct ps2_queue *queue)
{
    uint8_t byte = queue->data[queue->head];

    queue->head = (queue->head + 1) % PS2_QUEUE_SIZE;
    queue->count--;
    return byte;
}

bool ps2_port_has(const struct ps2_port *port)
{
    return port->replies.count || port->data.count;
}

uint8_t ps2_port_get(struct ps2_port *port)
{
    uint8_t byte = ps2_queue_get(port->replies.count ? &port->replies : &port->data);

    if (byte != PS2_RESEND)
        port->last = byte;
    return byte;
}

void ps2_reply(struct ps2_port *port, uint8_t byte)
{
    ps2_queue_put(&port->replies, byte);
}

/* ---- sets of keys ---- */

static bool set_has(const uint8_t *set, unsigned number)
{
    return set[number / 8] >> number % 8 & 1;
}

static void set_put(uint8_t *set, unsigned number, bool on)
{
    uint8_t bit = (uint8_t)(1u << number % 8);

    set[number / 8] = (uint8_t)(on ? set[number / 8] | bit : set[number / 8] & ~bit);
}

static void keyboard_default_types(struct ps2_keyboard *k)
{
    memset(k->repeats, 0xff, sizeof(k->repeats));
    memset(k->breaks, 0, sizeof(k->breaks));
    for (unsigned i = 0; i < sizeof(set3_break_usages); i++) {
        set_put(k->breaks, keys[set3_break_usages[i]].set3, true);
        set_put(k->repeats, keys[set3_break_usages[i]].set3, false);
    }
    for (unsigned i = 0; i < sizeof(set3_make_usages); i++)
        set_put(k->repeats, keys[set3_make_usages[i]].set3, false);
}

static void keyboard_all_types(struct ps2_keyboard *k, bool repeats, bool breaks)
{
    memset(k->repeats, repeats ? 0xff : 0, sizeof(k->repeats));
    memset(k->breaks, breaks ? 0xff : 0, sizeof(k->breaks));
}

/* ---- scan codes ---- */

/* What one key event sends; the longest is Pause with its eight bytes. */
struct scan_sequence {
    uint8_t bytes[8];
    unsigned count;
};

static void sequence_add(struct scan_sequence *sequence, uint16_t code, bool pressed)
{
    if (code & EXTENDED)
        sequence->bytes[sequence->count++] = 0xe0;
    if (!pressed)
        sequence->bytes[sequence->count++] = BREAK;
    sequence->bytes[sequence->count++] = (uint8_t)code;
}

static bool keyboard_holds(const struct ps2_keyboard *k, uint8_t left, uint8_t right)
{
    return set_has(k->down, left) || set_has(k->down, right);
}

/* Alone it comes with a shift code; with Alt it is SysRq (reference, "Key 124"). */
static void sequence_print_screen(const struct ps2_keyboard *k, struct scan_sequence *sequence,
                                  bool pressed)
{
    bool plain = !keyboard_holds(k, USAGE_LEFT_CONTROL, USAGE_RIGHT_CONTROL) &&
                 !keyboard_holds(k, USAGE_LEFT_SHIFT, USAGE_RIGHT_SHIFT);

    if (keyboard_holds(k, USAGE_LEFT_ALT, USAGE_RIGHT_ALT)) {
        sequence_add(sequence, 0x84, pressed);
        return;
    }
    if (plain && pressed)
        sequence_add(sequence, EXTENDED | 0x12, true);
    sequence_add(sequence, EXTENDED | 0x7c, pressed);
    if (plain && !pressed)
        sequence_add(sequence, EXTENDED | 0x12, false);
}

/* Make and break together when pressed, nothing when released ("Key 126"). */
static void sequence_pause(const struct ps2_keyboard *k, struct scan_sequence *sequence,
                           bool pressed)
{
    static const uint8_t plain[] = {0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77};

    if (!pressed)
        return;
    if (keyboard_holds(k, USAGE_LEFT_CONTROL, USAGE_RIGHT_CONTROL)) {
        sequence_add(sequence, EXTENDED | 0x7e, true);
        sequence_add(sequence, EXTENDED | 0x7e, false);
    } else {
        memcpy(sequence->bytes, plain, sizeof(plain));
        sequence->count = sizeof(plain);
    }
}

/* Set 1 from set 2: codes are translated, and a break prefix turns into bit 7. */
static void sequence_translate(struct scan_sequence *sequence)
{
    unsigned count = 0;
    uint8_t high = 0;

    for (unsigned i = 0; i < sequence->count; i++) {
        uint8_t byte = sequence->bytes[i];

        if (byte == BREAK) {
            high = 0x80;
        } else {
            sequence->bytes[count++] = ps2_translate(byte) | high;
            high = 0;
        }
    }
    sequence->count = count;
}

static void sequence_set3(const struct ps2_keyboard *k, struct scan_sequence *sequence,
                          uint8_t usage, bool pressed)
{
    uint8_t code = keys[usage].set3;

    if (code && (pressed || set_has(k->breaks, code)))
        sequence_add(sequence, code, pressed);
}

static struct scan_sequence keyboard_sequence(const struct ps2_keyboard *k, uint8_t usage,
                                              bool pressed)
{
    struct scan_sequence sequence = {.count = 0};

    if (k->set == 3) {
        sequence_set3(k, &sequence, usage, pressed);
        return sequence;
    }
    if (usage == USAGE_PRINT_SCREEN)
        sequence_print_screen(k, &sequence, pressed);
    else if (usage == USAGE_PAUSE)
        sequence_pause(k, &sequence, pressed);
    else if (keys[usage].set2)
        sequence_add(&sequence, keys[usage].set2, pressed);
    if (k->set == 1)
        sequence_translate(&sequence);
    return sequence;
}

/* A sequence that does not fit becomes one overrun code. */
static void keyboard_send(struct ps2_keyboard *k, uint8_t usage, bool pressed)
{
    struct scan_sequence sequence = keyboard_sequence(k, usage, pressed);

    if (!k->scanning || !sequence.count)
        return;
    if (k->port.data.count + sequence.count <= BUFFER_SIZE)
        for (unsigned i = 0; i < sequence.count; i++)
            ps2_queue_put(&k->port.data, sequence.bytes[i]);
    else if (k->port.data.count <= BUFFER_SIZE)
        while (k->port.data.count <= BUFFER_SIZE)
            ps2_queue_put(&k->port.data, k->set == 1 ? 0xff : 0x00);
    k->wake(k->opaque);
}

/* ---- typematic repeat ---- */

/* Delay (1 + D) * 250 ms; period (8 + A) * 2^B / 240 s, from the byte 0DDBBAAA. */
static uint64_t keyboard_delay_ns(const struct ps2_keyboard *k)
{
    return (1ull + (k->rate >> 5 & 3)) * 250000000ull;
}

static uint64_t keyboard_period_ns(const struct ps2_keyboard *k)
{
    return ((8ull + (k->rate & 7)) << (k->rate >> 3 & 3)) * NANOSECONDS_PER_SECOND / 240;
}

static void keyboard_repeat(void *opaque)
{
    struct ps2_keyboard *k = opaque;

    if (!k->repeat_usage)
        return;
    timer_arm(&k->repeat, clock_now_ns(k->repeat.clocks, CLOCK_ID_VIRTUAL) + keyboard_period_ns(k));
    if (!k->port.data.count)
        keyboard_send(k, k->repeat_usage, true);
}

static bool keyboard_key_repeats(const struct ps2_keyboard *k, uint8_t usage)
{
    return usage != USAGE_PAUSE && (k->set != 3 || set_has(k->repeats, keys[usage].set3));
}

static void keyboard_stop_repeat(struct ps2_keyboard *k)
{
    k->repeat_usage = 0;
    timer_cancel(&k->repeat);
}

void ps2_keyboard_key(struct ps2_keyboard *k, uint8_t usage, bool pressed)
{
    if (set_has(k->down, usage) == pressed || (!keys[usage].set2 && !keys[usage].set3))
        return;
    set_put(k->down, usage, pressed);
    if (pressed || k->repeat_usage == usage)
        keyboard_stop_repeat(k);
    if (pressed && k->scanning && keyboard_key_repeats(k, usage)) {
        k->repeat_usage = usage;
        timer_arm(&k->repeat,
                  clock_now_ns(k->repeat.clocks, CLOCK_ID_VIRTUAL) + keyboard_delay_ns(k));
    }
    keyboard_send(k, usage, pressed);
}

/* ---- commands ---- */

static void keyboard_defaults(struct ps2_keyboard *k)
{
    k->rate = TYPEMATIC_DEFAULT;
    keyboard_default_types(k);
    keyboard_stop_repeat(k);
    ps2_queue_clear(&k->port.data);
}

static void keyboard_full_reset(struct ps2_keyboard *k)
{
    k->set = 2;
    k->leds = 0;
    k->scanning = true;
    k->port.command = 0;
    keyboard_defaults(k);
}

static void keyboard_identify(struct ps2_keyboard *k)
{
    ps2_reply(&k->port, ID_1);
    ps2_reply(&k->port, ID_2);
}

/* Byte 0 asks for the set in use. */
static void keyboard_choose_set(struct ps2_keyboard *k, uint8_t set)
{
    if (set > 3) {
        ps2_reply(&k->port, PS2_RESEND);
        return;
    }
    ps2_reply(&k->port, PS2_ACK);
    if (set == 0) {
        ps2_reply(&k->port, k->set);
        return;
    }
    k->set = set;
    ps2_queue_clear(&k->port.data);
}

/* Commands 0xfb to 0xfd take scan codes of set 3 until another command comes. */
static void keyboard_key_type(struct ps2_keyboard *k, uint8_t command, uint8_t code)
{
    set_put(k->repeats, code, command == COMMAND_KEY_TYPEMATIC);
    set_put(k->breaks, code, command == COMMAND_KEY_MAKE_BREAK);
    ps2_reply(&k->port, PS2_ACK);
    k->port.command = command;
}

static void keyboard_argument(struct ps2_keyboard *k, uint8_t command, uint8_t value)
{
    switch (command) {
    case COMMAND_LEDS:
        k->leds = value & 7;
        ps2_reply(&k->port, PS2_ACK);
        break;
    case COMMAND_SET:
        keyboard_choose_set(k, value);
        break;
    case COMMAND_TYPEMATIC:
        k->rate = value & 0x7f;
        ps2_reply(&k->port, PS2_ACK);
        break;
    default:
        keyboard_key_type(k, command, value);
        break;
    }
}

static bool keyboard_command_takes_argument(uint8_t command)
{
    return command == COMMAND_LEDS || command == COMMAND_SET || command == COMMAND_TYPEMATIC ||
           (command >= COMMAND_KEY_TYPEMATIC && command <= COMMAND_KEY_MAKE);
}

static void keyboard_acknowledged(struct ps2_keyboard *k, uint8_t command)
{
    switch (command) {
    case COMMAND_IDENTIFY:
        keyboard_identify(k);
        break;
    case COMMAND_ENABLE:
        ps2_queue_clear(&k->port.data);
        k->scanning = true;
        break;
    case COMMAND_DISABLE:
        keyboard_defaults(k);
        k->scanning = false;
        break;
    case COMMAND_DEFAULTS:
        keyboard_defaults(k);
        break;
    case COMMAND_ALL_TYPEMATIC:
    case COMMAND_ALL_MAKE_BREAK:
    case COMMAND_ALL_MAKE:
    case COMMAND_ALL_TYPEMATIC_BREAK:
        keyboard_all_types(
            k, command == COMMAND_ALL_TYPEMATIC || command == COMMAND_ALL_TYPEMATIC_BREAK,
            command == COMMAND_ALL_MAKE_BREAK || command == COMMAND_ALL_TYPEMATIC_BREAK);
        break;
    case COMMAND_RESET:
        keyboard_full_reset(k);
        ps2_reply(&k->port, PS2_SELF_TEST_PASSED);
        break;
    default:
        break;
    }
}

static void keyboard_command(struct ps2_keyboard *k, uint8_t command)
{
    if (command == COMMAND_ECHO) {
        ps2_reply(&k->port, COMMAND_ECHO);
    } else if (command == COMMAND_RESEND) {
        ps2_reply(&k->port, k->port.last);
    } else if (command < COMMAND_LEDS || command == 0xef || command == 0xf1) {
        ps2_reply(&k->port, PS2_RESEND);
    } else {
        ps2_reply(&k->port, PS2_ACK);
        if (keyboard_command_takes_argument(command))
            k->port.command = command;
        else
            keyboard_acknowledged(k, command);
    }
}

/*
 * A new command cuts the reply to the last one short. In the place of an argument, bytes from
 * 0xed on are a new command.
 */
void ps2_keyboard_write(struct ps2_keyboard *k, uint8_t byte)
{
    uint8_t command = k->port.command;

    k->port.command = 0;
    ps2_queue_clear(&k->port.replies);
    if (command && byte < COMMAND_LEDS)
        keyboard_argument(k, command, byte);
    else
        keyboard_command(k, byte);
    k->wake(k->opaque);
}

/* ---- lifecycle ---- */

void ps2_keyboard_init(struct ps2_keyboard *k, struct clocks *clocks, ps2_wake_fn *wake,
                       void *opaque)
{
    k->wake = wake;
    k->opaque = opaque;
    timer_init(&k->repeat, clocks, CLOCK_ID_VIRTUAL, keyboard_repeat, k);
}

void ps2_keyboard_done(struct ps2_keyboard *k)
{
    timer_done(&k->repeat);
}

void ps2_keyboard_reset(struct ps2_keyboard *k)
{
    memset(&k->port, 0, sizeof(k->port));
    memset(k->down, 0, sizeof(k->down));
    keyboard_full_reset(k);
}

static const struct state_field ps2_queue_state[] = {
    STATE_BYTES(struct ps2_queue, data),
    STATE_U8_MAX(struct ps2_queue, head, PS2_QUEUE_SIZE - 1),
    STATE_U8_MAX(struct ps2_queue, count, PS2_QUEUE_SIZE),
    STATE_END,
};

const struct state_field ps2_port_state[] = {
    STATE_STRUCT(struct ps2_port, replies, ps2_queue_state),
    STATE_STRUCT(struct ps2_port, data, ps2_queue_state),
    STATE_U8(struct ps2_port, last),
    STATE_U8(struct ps2_port, command),
    STATE_END,
};

const struct state_field ps2_keyboard_state[] = {
    STATE_STRUCT(struct ps2_keyboard, port, ps2_port_state),
    STATE_U8_MAX(struct ps2_keyboard, set, 3),
    STATE_U8_MAX(struct ps2_keyboard, leds, 7),
    STATE_U8_MAX(struct ps2_keyboard, rate, 0x7f),
    STATE_BOOL(struct ps2_keyboard, scanning),
    STATE_U8(struct ps2_keyboard, repeat_usage),
    STATE_BYTES(struct ps2_keyboard, down),
    STATE_BYTES(struct ps2_keyboard, repeats),
    STATE_BYTES(struct ps2_keyboard, breaks),
    STATE_TIMER(struct ps2_keyboard, repeat),
    STATE_END,
};
