/*
 * ps2_mouse.c - PS/2 mouse with wheel and five buttons
 *
 * IBM PS/2 Hardware Interface Technical Reference, "Mouse": stream, remote and wrap mode, sample
 * rate, resolution, scaling, status; and the two extensions that are switched on by
 * three sample rates in a row: 200, 100, 80 for the wheel (id 3, "IntelliMouse") and 200,
 * 200, 80 for two more buttons (id 4, "IntelliMouse Explorer").
 *
 * Theory of operation. Movement is summed up. In stream mode a report goes out when there is
 * something new, the last one has been read, and one sample period has passed; what
 * does not fit into a report stays for the next. A change of buttons ends a sum at once, so
 * that a quick click is two reports.
 *
 * Threads: machine lock. Guest memory: not touched.
 */
#include <string.h>

#include "devices/ps2.h"
#include "devices/ps2_internal.h"

enum mouse_command {
    COMMAND_SCALING_1_1 = 0xe6,
    COMMAND_SCALING_2_1 = 0xe7,
    COMMAND_RESOLUTION = 0xe8,
    COMMAND_STATUS = 0xe9,
    COMMAND_STREAM = 0xea,
    COMMAND_READ = 0xeb,
    COMMAND_UNWRAP = 0xec,
    COMMAND_WRAP = 0xee,
    COMMAND_REMOTE = 0xf0,
    COMMAND_IDENTIFY = 0xf2,
    COMMAND_RATE = 0xf3,
    COMMAND_ENABLE = 0xf4,
    COMMAND_DISABLE = 0xf5,
    COMMAND_DEFAULTS = 0xf6,
    COMMAND_RESEND = 0xfe,
    COMMAND_RESET = 0xff,
};

#define ID_PLAIN           0
#define ID_WHEEL           3
#define ID_FIVE_BUTTONS    4

#define DEFAULT_RATE       100
#define DEFAULT_RESOLUTION 2

#define REPORT_ALWAYS_ONE  0x08u
#define REPORT_X_SIGN      0x10u
#define REPORT_Y_SIGN      0x20u

#define STATUS_SCALING     0x10u
#define STATUS_REPORTING   0x20u
#define STATUS_REMOTE      0x40u

/* ---- reports ---- */

static int clamp(int value, int min, int max)
{
    return value < min ? min : value > max ? max : value;
}

/* Take up to limit counts from a sum. */
static int mouse_take(uint32_t *sum, int min, int max)
{
    int counts = clamp((int32_t)*sum, min, max);

    *sum -= (uint32_t)counts;
    return counts;
}

/* Scaling 2:1 (reference, "Set Scaling 2 to 1"): small movements become smaller steps. */
static int mouse_scale(const struct ps2_mouse *m, int counts)
{
    static const uint8_t small[6] = {0, 1, 1, 3, 6, 9};
    int size = counts < 0 ? -counts : counts;

    if (!m->scaling_2_1 || m->remote)
        return counts;
    size = size < 6 ? small[size] : clamp(2 * size, 0, 255);
    return counts < 0 ? -size : size;
}

static bool mouse_has_news(const struct ps2_mouse *m)
{
    return m->dx || m->dy || (m->id != ID_PLAIN && m->dz) || m->buttons != m->reported_buttons;
}

/* The fourth byte: eight bits of wheel, or four and two buttons. */
static uint8_t mouse_fourth_byte(struct ps2_mouse *m)
{
    if (m->id == ID_WHEEL)
        return (uint8_t)mouse_take(&m->dz, -127, 127);
    return (uint8_t)((mouse_take(&m->dz, -8, 7) & 0x0f) |
                     (m->buttons & INPUT_BUTTON_SIDE ? 0x10 : 0) |
                     (m->buttons & INPUT_BUTTON_EXTRA ? 0x20 : 0));
}

static void mouse_put_report(struct ps2_mouse *m, struct ps2_queue *queue)
{
    int dx = mouse_scale(m, mouse_take(&m->dx, -255, 255));
    int dy = mouse_scale(m, mouse_take(&m->dy, -255, 255));

    ps2_queue_put(queue, (uint8_t)(REPORT_ALWAYS_ONE | (m->buttons & 7) |
                                   (dx < 0 ? REPORT_X_SIGN : 0) | (dy < 0 ? REPORT_Y_SIGN : 0)));
    ps2_queue_put(queue, (uint8_t)dx);
    ps2_queue_put(queue, (uint8_t)dy);
    if (m->id != ID_PLAIN)
        ps2_queue_put(queue, mouse_fourth_byte(m));
    m->reported_buttons = m->buttons;
}

static bool mouse_is_streaming(const struct ps2_mouse *m)
{
    return m->reporting && !m->remote && !m->wrap;
}

static void mouse_report_now(struct ps2_mouse *m)
{
    unsigned rate = m->rate ? m->rate : DEFAULT_RATE;

    timer_arm(&m->sample,
              clock_now_ns(m->sample.clocks, CLOCK_ID_VIRTUAL) + NANOSECONDS_PER_SECOND / rate);
    mouse_put_report(m, &m->port.data);
    m->wake(m->opaque);
}

static void mouse_try_report(struct ps2_mouse *m)
{
    if (mouse_is_streaming(m) && mouse_has_news(m) && !timer_is_armed(&m->sample) &&
        !m->port.data.count)
        mouse_report_now(m);
}

static void mouse_sampled(void *opaque)
{
    mouse_try_report(opaque);
}

void ps2_mouse_drained(struct ps2_mouse *m)
{
    mouse_try_report(m);
}

static void mouse_add(uint32_t *sum, int counts)
{
    int64_t total = (int64_t)(int32_t)*sum + counts;

    if (total > PS2_MOUSE_MAX)
        total = PS2_MOUSE_MAX;
    if (total < -PS2_MOUSE_MAX)
        total = -PS2_MOUSE_MAX;
    *sum = (uint32_t)(int32_t)total;
}

void ps2_mouse_move(struct ps2_mouse *m, int dx, int dy, int dz)
{
    mouse_add(&m->dx, dx);
    mouse_add(&m->dy, dy);
    mouse_add(&m->dz, dz);
    mouse_try_report(m);
}

/* A change that was not reported yet goes out first, whatever the sample rate says. */
void ps2_mouse_set_buttons(struct ps2_mouse *m, unsigned buttons)
{
    if (buttons == m->buttons)
        return;
    if (mouse_is_streaming(m) && m->buttons != m->reported_buttons &&
        ps2_queue_room(&m->port.data) >= 4)
        mouse_report_now(m);
    m->buttons = buttons & 0x1f;
    mouse_try_report(m);
}

/* ---- commands ---- */

static void mouse_forget_movement(struct ps2_mouse *m)
{
    m->dx = m->dy = m->dz = 0;
    ps2_queue_clear(&m->port.data);
    timer_cancel(&m->sample);
}

static void mouse_defaults(struct ps2_mouse *m)
{
    m->rate = DEFAULT_RATE;
    m->resolution = DEFAULT_RESOLUTION;
    m->scaling_2_1 = m->remote = m->wrap = m->reporting = false;
    mouse_forget_movement(m);
}

static void mouse_full_reset(struct ps2_mouse *m)
{
    m->id = ID_PLAIN;
    m->knock[0] = m->knock[1] = 0;
    m->port.command = 0;
    mouse_defaults(m);
}

/* The buttons' order differs from the reports': right is bit 0, middle bit 1, left bit 2. */
static void mouse_reply_status(struct ps2_mouse *m)
{
    uint8_t status = (m->buttons & INPUT_BUTTON_RIGHT ? 1 : 0) |
                     (m->buttons & INPUT_BUTTON_MIDDLE ? 2 : 0) |
                     (m->buttons & INPUT_BUTTON_LEFT ? 4 : 0);

    status |= (m->scaling_2_1 ? STATUS_SCALING : 0) | (m->reporting ? STATUS_REPORTING : 0) |
              (m->remote ? STATUS_REMOTE : 0);
    ps2_reply(&m->port, status);
    ps2_reply(&m->port, m->resolution);
    ps2_reply(&m->port, m->rate);
}

/* Three rates in a row are the knock on the door of the extensions. */
static void mouse_set_rate(struct ps2_mouse *m, uint8_t rate)
{
    if (m->knock[0] == 200 && m->knock[1] == 100 && rate == 80)
        m->id = ID_WHEEL;
    else if (m->knock[0] == 200 && m->knock[1] == 200 && rate == 80)
        m->id = ID_FIVE_BUTTONS;
    m->knock[0] = m->knock[1];
    m->knock[1] = rate;
    m->rate = rate;
}

static void mouse_argument(struct ps2_mouse *m, uint8_t command, uint8_t value)
{
    bool valid = command == COMMAND_RATE ? value >= 10 && value <= 200 : value <= 3;

    if (!valid) {
        ps2_reply(&m->port, PS2_RESEND);
        return;
    }
    if (command == COMMAND_RATE)
        mouse_set_rate(m, value);
    else
        m->resolution = value;
    ps2_reply(&m->port, PS2_ACK);
}

static void mouse_enter_mode(struct ps2_mouse *m, bool remote)
{
    m->remote = remote;
    mouse_forget_movement(m);
}

static void mouse_acknowledged(struct ps2_mouse *m, uint8_t command)
{
    switch (command) {
    case COMMAND_SCALING_1_1:
    case COMMAND_SCALING_2_1:
        m->scaling_2_1 = command == COMMAND_SCALING_2_1;
        break;
    case COMMAND_STATUS:
        mouse_reply_status(m);
        break;
    case COMMAND_STREAM:
    case COMMAND_REMOTE:
        mouse_enter_mode(m, command == COMMAND_REMOTE);
        break;
    case COMMAND_READ:
        mouse_put_report(m, &m->port.replies);
        break;
    case COMMAND_WRAP:
        m->wrap = true;
        break;
    case COMMAND_IDENTIFY:
        ps2_reply(&m->port, m->id);
        break;
    case COMMAND_ENABLE:
    case COMMAND_DISABLE:
        m->reporting = command == COMMAND_ENABLE;
        mouse_forget_movement(m);
        break;
    case COMMAND_DEFAULTS:
        mouse_defaults(m);
        break;
    case COMMAND_RESET:
        mouse_full_reset(m);
        ps2_reply(&m->port, PS2_SELF_TEST_PASSED);
        ps2_reply(&m->port, m->id);
        break;
    default:
        break;
    }
}

static bool mouse_knows(uint8_t command)
{
    return command >= COMMAND_SCALING_1_1 && command != 0xed && command != 0xef &&
           command != 0xf1 && (command <= COMMAND_DEFAULTS || command == COMMAND_RESET);
}

static void mouse_command(struct ps2_mouse *m, uint8_t command)
{
    if (command == COMMAND_RESEND) {
        ps2_reply(&m->port, m->port.last);
    } else if (!mouse_knows(command)) {
        ps2_reply(&m->port, PS2_RESEND);
    } else {
        ps2_reply(&m->port, PS2_ACK);
        if (command == COMMAND_RATE || command == COMMAND_RESOLUTION)
            m->port.command = command;
        else
            mouse_acknowledged(m, command);
    }
}

/* In wrap mode everything comes back, but for the two commands that end it. */
static void mouse_wrapped(struct ps2_mouse *m, uint8_t byte)
{
    if (byte == COMMAND_RESET) {
        mouse_command(m, byte);
    } else if (byte == COMMAND_UNWRAP) {
        m->wrap = false;
        ps2_reply(&m->port, PS2_ACK);
    } else {
        ps2_reply(&m->port, byte);
    }
}

void ps2_mouse_write(struct ps2_mouse *m, uint8_t byte)
{
    uint8_t command = m->port.command;

    m->port.command = 0;
    ps2_queue_clear(&m->port.replies);
    if (m->wrap)
        mouse_wrapped(m, byte);
    else if (command)
        mouse_argument(m, command, byte);
    else
        mouse_command(m, byte);
    m->wake(m->opaque);
}

/* ---- lifecycle ---- */

void ps2_mouse_init(struct ps2_mouse *m, struct clocks *clocks, ps2_wake_fn *wake, void *opaque)
{
    m->wake = wake;
    m->opaque = opaque;
    timer_init(&m->sample, clocks, CLOCK_ID_VIRTUAL, mouse_sampled, m);
}

void ps2_mouse_done(struct ps2_mouse *m)
{
    timer_done(&m->sample);
}

void ps2_mouse_reset(struct ps2_mouse *m)
{
    memset(&m->port, 0, sizeof(m->port));
    m->buttons = m->reported_buttons = 0;
    mouse_full_reset(m);
}

const struct state_field ps2_mouse_state[] = {
    STATE_STRUCT(struct ps2_mouse, port, ps2_port_state),
    STATE_U8_MAX(struct ps2_mouse, id, ID_FIVE_BUTTONS),
    STATE_U8(struct ps2_mouse, rate),
    STATE_U8_MAX(struct ps2_mouse, resolution, 3),
    STATE_BOOL(struct ps2_mouse, scaling_2_1),
    STATE_BOOL(struct ps2_mouse, remote),
    STATE_BOOL(struct ps2_mouse, wrap),
    STATE_BOOL(struct ps2_mouse, reporting),
    STATE_BYTES(struct ps2_mouse, knock),
    STATE_U8_MAX(struct ps2_mouse, buttons, 0x1f),
    STATE_U8_MAX(struct ps2_mouse, reported_buttons, 0x1f),
    STATE_U32(struct ps2_mouse, dx),
    STATE_U32(struct ps2_mouse, dy),
    STATE_U32(struct ps2_mouse, dz),
    STATE_TIMER(struct ps2_mouse, sample),
    STATE_END,
};
