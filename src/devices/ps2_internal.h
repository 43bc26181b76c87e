/*
 * ps2_internal.h - what the i8042 controller, its keyboard and its mouse know of each other
 *
 * The two devices put bytes into queues; the controller fetches them when its output
 * buffer is free and the device's clock is not held.
 */
#ifndef DEVICES_PS2_INTERNAL_H
#define DEVICES_PS2_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "trapeze/device.h"

#define PS2_QUEUE_SIZE       32
#define PS2_USAGES           256

#define PS2_ACK              0xfa
#define PS2_SELF_TEST_PASSED 0xaa
#define PS2_RESEND           0xfe

struct ps2_queue {
    uint8_t data[PS2_QUEUE_SIZE];
    uint8_t head, count;
};

void ps2_queue_clear(struct ps2_queue *queue);
unsigned ps2_queue_room(const struct ps2_queue *queue);
bool ps2_queue_put(struct ps2_queue *queue, uint8_t byte); /* false: full, dropped */
uint8_t ps2_queue_get(struct ps2_queue *queue);            /* only if count > 0 */

/* What both devices have: replies to commands go before data. */
struct ps2_port {
    struct ps2_queue replies, data;
    uint8_t last;    /* for "resend" */
    uint8_t command; /* that waits for its argument; 0: none */
};

/* The controller is told that there may be something to fetch. */
typedef void ps2_wake_fn(void *opaque);

struct ps2_keyboard {
    struct ps2_port port;
    uint8_t set;  /* scan code set 1 to 3 */
    uint8_t leds; /* enum input_led */
    uint8_t rate; /* argument of "set typematic": delay in bits 5-6, rate in bits 0-4 */
    bool scanning;
    uint8_t repeat_usage; /* the key that repeats; 0: none */
    uint8_t down[PS2_USAGES / 8];
    /* Set 3 only, by scan code: does the key repeat, does it send a break code? */
    uint8_t repeats[32], breaks[32];
    struct timer repeat;

    ps2_wake_fn *wake;
    void *opaque;
};

struct ps2_mouse {
    struct ps2_port port;
    uint8_t id;   /* 0: three bytes; 3: with wheel; 4: with wheel and five buttons */
    uint8_t rate; /* reports a second */
    uint8_t resolution;
    bool scaling_2_1, remote, wrap, reporting;
    uint8_t knock[2]; /* the last two sample rates, for the switch to ids 3 and 4 */
    uint8_t buttons, reported_buttons; /* enum input_button */
    uint32_t dx, dy, dz; /* not reported yet; two's complement, within +-PS2_MOUSE_MAX */
    struct timer sample; /* armed: no new report before it fires */

    ps2_wake_fn *wake;
    void *opaque;
};

#define PS2_MOUSE_MAX 4095

uint8_t ps2_port_get(struct ps2_port *port); /* only if it has something */
bool ps2_port_has(const struct ps2_port *port);
void ps2_reply(struct ps2_port *port, uint8_t byte);

/* The 8042's table from set 2 to set 1; codes without an entry stay what they are. */
uint8_t ps2_translate(uint8_t code);

void ps2_keyboard_init(struct ps2_keyboard *keyboard, struct clocks *clocks, ps2_wake_fn *wake,
                       void *opaque);
void ps2_keyboard_done(struct ps2_keyboard *keyboard);
void ps2_keyboard_reset(struct ps2_keyboard *keyboard); /* power-on, without the 0xaa */
void ps2_keyboard_write(struct ps2_keyboard *keyboard, uint8_t byte);
void ps2_keyboard_key(struct ps2_keyboard *keyboard, uint8_t usage, bool pressed);
extern const struct state_field ps2_keyboard_state[];

void ps2_mouse_init(struct ps2_mouse *mouse, struct clocks *clocks, ps2_wake_fn *wake,
                    void *opaque);
void ps2_mouse_done(struct ps2_mouse *mouse);
void ps2_mouse_reset(struct ps2_mouse *mouse);
void ps2_mouse_write(struct ps2_mouse *mouse, uint8_t byte);
void ps2_mouse_move(struct ps2_mouse *mouse, int dx, int dy, int dz);
void ps2_mouse_set_buttons(struct ps2_mouse *mouse, unsigned buttons);
/* The queue was emptied: movement that waited may go out. */
void ps2_mouse_drained(struct ps2_mouse *mouse);
extern const struct state_field ps2_mouse_state[];

extern const struct state_field ps2_port_state[];

#endif
