/*
 * vnc_input.c - keys and pointer of a viewer of VNC
 *
 * Viewers say which characters were typed (keysyms), in any layout of their own. Those that are on
 * the guest's keyboard are typed as there, with Shift and AltGr pressed or let go of if they have
 * to be. Where a viewer knows scan codes (QEMU's extension), the guest gets the key itself.
 */
#include <string.h>

#include "backends/display/layout.h"
#include "backends/display/vnc_internal.h"
#include "trapeze/input.h"
#include "trapeze/machine.h"

#define KEYSYM_ALTGR 0xfe03u
#define KEYSYM_MODE  0xff7eu

static bool is_down(const struct vnc_client *client, uint8_t usage)
{
    return client->down[usage / 8] >> usage % 8 & 1;
}

void vnc_client_press(struct vnc_client *client, uint8_t usage, bool pressed)
{
    uint8_t bit = (uint8_t)(1u << usage % 8);

    if (is_down(client, usage) == pressed)
        return; /* the guest's keyboard repeats by itself */
    client->down[usage / 8] ^= bit;
    input_key(machine_input(client->vnc->machine), usage, pressed);
}

void vnc_client_release(struct vnc_client *client)
{
    for (unsigned usage = 0; usage < 256; usage++)
        vnc_client_press(client, (uint8_t)usage, false);
    memset(client->held, 0, sizeof(client->held));
    if (client->buttons)
        input_buttons(machine_input(client->vnc->machine), 0);
    client->buttons = 0;
}

/* A shortcut: the viewer's keys are meant as they are. */
static bool has_command_key(const struct vnc_client *client)
{
    return client->down[0xe0 / 8] & ~(1u << KEY_LEFT_SHIFT % 8 | 1u << KEY_RIGHT_SHIFT % 8);
}

static void press_stroke(struct vnc_client *client, const struct key_stroke *stroke)
{
    bool left = is_down(client, KEY_LEFT_SHIFT), right = is_down(client, KEY_RIGHT_SHIFT);
    bool caps = input_leds(machine_input(client->vnc->machine)) & INPUT_LED_CAPS;
    bool shift = stroke->shift == KEY_SHIFT_DOWN ||
                 stroke->shift == (caps ? KEY_SHIFT_LOWER : KEY_SHIFT_UPPER);

    if (has_command_key(client) ||
        ((stroke->shift == KEY_SHIFT_ANY || shift == (left || right)) && !stroke->altgr)) {
        vnc_client_press(client, stroke->usage, true);
        return;
    }
    vnc_client_press(client, KEY_LEFT_SHIFT, shift);
    vnc_client_press(client, KEY_RIGHT_SHIFT, false);
    vnc_client_press(client, KEY_ALTGR, stroke->altgr);
    vnc_client_press(client, stroke->usage, true);
    vnc_client_press(client, KEY_ALTGR, false);
    vnc_client_press(client, KEY_LEFT_SHIFT, left);
    vnc_client_press(client, KEY_RIGHT_SHIFT, right);
}

/* The last key is held as long as the viewer's. */
static void press_strokes(struct vnc_client *client, const struct key_stroke *strokes,
                          unsigned count)
{
    for (unsigned n = 0; n < count; n++) {
        press_stroke(client, &strokes[n]);
        if (n + 1 < count)
            vnc_client_press(client, strokes[n].usage, false);
    }
}

static struct vnc_held *find_held(struct vnc_client *client, uint32_t keysym)
{
    for (struct vnc_held *held = client->held; held < client->held + VNC_MAX_HELD; held++)
        if (held->usage && held->keysym == keysym)
            return held;
    return NULL;
}

static void hold(struct vnc_client *client, uint32_t keysym, uint8_t usage)
{
    for (struct vnc_held *held = client->held; held < client->held + VNC_MAX_HELD; held++)
        if (!held->usage) {
            *held = (struct vnc_held){keysym, usage};
            return;
        }
}

void vnc_client_key(struct vnc_client *client, uint32_t keysym, bool pressed)
{
    const struct key_layout *layout = input_layout(machine_input(client->vnc->machine));
    struct vnc_held *held = find_held(client, keysym);
    struct key_stroke strokes[KEYS_MAX_STROKES];
    unsigned count;

    if (keysym == KEYSYM_ALTGR || keysym == KEYSYM_MODE)
        return; /* it chose the character, which comes */
    if (held && !pressed) {
        vnc_client_press(client, held->usage, false);
        held->usage = 0;
    }
    if (held)
        return;
    count = keys_of_keysym(layout, keysym, strokes);
    if (count && !pressed) {
        vnc_client_press(client, strokes[count - 1].usage, false);
    } else if (count) {
        press_strokes(client, strokes, count);
        hold(client, keysym, strokes[count - 1].usage);
    }
}

static unsigned map_buttons(unsigned mask)
{
    return (mask & 1 ? INPUT_BUTTON_LEFT : 0) | (mask & 2 ? INPUT_BUTTON_MIDDLE : 0) |
           (mask & 4 ? INPUT_BUTTON_RIGHT : 0) | (mask & 0x80 ? INPUT_BUTTON_SIDE : 0);
}

void vnc_client_point(struct vnc_client *client, unsigned mask, uint32_t x, uint32_t y)
{
    struct input *input = machine_input(client->vnc->machine);
    unsigned pressed = mask & ~client->buttons;

    if (client->told_relative)
        input_pointer_moved(input, (int32_t)x - 0x7fff, (int32_t)y - 0x7fff);
    else
        input_pointer_at(input, x < client->width ? x : client->width - 1,
                         y < client->height ? y : client->height - 1, client->width,
                         client->height);
    if (map_buttons(mask) != map_buttons(client->buttons))
        input_buttons(input, map_buttons(mask));
    if (pressed & 0x18)
        input_wheel(input, pressed & 8 ? 1 : -1, 0);
    if (pressed & 0x60)
        input_wheel(input, 0, pressed & 0x40 ? 1 : -1);
    client->buttons = mask;
}
