/*
 * ps2.c - i8042 keyboard controller with its keyboard and mouse ports
 *
 * IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device
 * Controller": ports 0x60 and 0x64, controller commands, output port with A20 and reset.
 * The devices behind it are in ps2_keyboard.c and ps2_mouse.c.
 *
 * Theory of operation. The output buffer holds one byte; its origin decides which interrupt is
 * raised, and reading port 0x60 empties it. Answers of the controller itself enter it at
 * once; bytes from the devices follow a byte time after the last read, so that interrupt
 * handlers that are chained and all read port 0x60 get the same byte, as they rely on.
 *
 * Left out: the password commands (no password is ever installed), the diagnostic dump, the
 * input-port polling commands, parity and time-out errors.
 *
 * Threads: called with the machine lock held. Guest memory: not touched.
 */
#include "devices/ps2.h"

#include <string.h>

#include "devices/ps2_internal.h"
#include "trapeze/machine.h"

#define PORT_DATA           0x60
#define PORT_STATUS         0x64
#define BYTE_TIME_NS        250000 /* quicker than the 0.9 ms of 11 bits at 12.5 kHz */

#define STATUS_OUTPUT_FULL  0x01u
#define STATUS_SYSTEM       0x04u
#define STATUS_COMMAND      0x08u
#define STATUS_UNLOCKED     0x10u
#define STATUS_FROM_MOUSE   0x20u

#define CONFIG_KEYBOARD_IRQ 0x01u
#define CONFIG_MOUSE_IRQ    0x02u
#define CONFIG_SYSTEM       0x04u
#define CONFIG_NO_KEYBOARD  0x10u
#define CONFIG_NO_MOUSE     0x20u
#define CONFIG_TRANSLATE    0x40u
#define CONFIG_RESET        (CONFIG_KEYBOARD_IRQ | CONFIG_NO_MOUSE | CONFIG_TRANSLATE)

#define OUTPUT_NO_RESET     0x01u
#define OUTPUT_A20          0x02u
#define OUTPUT_KEYBOARD_IRQ 0x10u
#define OUTPUT_MOUSE_IRQ    0x20u
#define OUTPUT_LINES        0xc0u /* clock and data of the keyboard, idle */

#define INPUT_PORT          0xb0 /* not locked, no jumpers */
#define NO_PASSWORD         0xf1
#define SELF_TEST_OK        0x55
#define RAM_SIZE            32 /* byte 0 is the configuration */

enum controller_command {
    COMMAND_READ_RAM = 0x20,  /* to 0x3f */
    COMMAND_WRITE_RAM = 0x60, /* to 0x7f */
    COMMAND_TEST_PASSWORD = 0xa4,
    COMMAND_MOUSE_OFF = 0xa7,
    COMMAND_MOUSE_ON = 0xa8,
    COMMAND_TEST_MOUSE = 0xa9,
    COMMAND_SELF_TEST = 0xaa,
    COMMAND_TEST_KEYBOARD = 0xab,
    COMMAND_KEYBOARD_OFF = 0xad,
    COMMAND_KEYBOARD_ON = 0xae,
    COMMAND_READ_INPUT = 0xc0,
    COMMAND_READ_OUTPUT = 0xd0,
    COMMAND_WRITE_OUTPUT = 0xd1,
    COMMAND_AS_KEYBOARD = 0xd2,
    COMMAND_AS_MOUSE = 0xd3,
    COMMAND_TO_MOUSE = 0xd4,
    COMMAND_A20_OFF = 0xdd,
    COMMAND_A20_ON = 0xdf,
    COMMAND_READ_TEST = 0xe0,
    COMMAND_PULSE = 0xf0, /* to 0xff */
};

/* A byte on its way to port 0x60. */
struct controller_reply {
    uint8_t byte;
    bool from_mouse;
};

#define REPLIES 8

struct i8042 {
    struct device dev;

    /* Guest-visible state. */
    struct irq_line keyboard_irq, mouse_irq;
    uint8_t status; /* system and command bits; the others are derived */
    uint8_t ram[RAM_SIZE];
    uint8_t command; /* that waits for its data byte; 0: none */
    uint8_t output;  /* the byte in the output buffer, or the last one that was */
    bool output_full, output_from_mouse;
    bool break_prefix; /* translation: 0xf0 was seen */
    struct controller_reply replies[REPLIES];
    uint8_t reply_count;
    struct timer byte_time; /* armed: the devices are sending */
    struct ps2_keyboard keyboard;
    struct ps2_mouse mouse;

    struct input_device keys, pointer; /* in the machine's input */
};

static struct i8042 *i8042_of(struct device *dev)
{
    return container_of(dev, struct i8042, dev);
}

/* ---- output buffer ---- */

static void i8042_update_irq(struct i8042 *s)
{
    bool keyboard = s->output_full && !s->output_from_mouse && (s->ram[0] & CONFIG_KEYBOARD_IRQ);
    bool mouse = s->output_full && s->output_from_mouse && (s->ram[0] & CONFIG_MOUSE_IRQ);

    if (keyboard != s->keyboard_irq.level)
        irq_set(&s->keyboard_irq, keyboard);
    if (mouse != s->mouse_irq.level)
        irq_set(&s->mouse_irq, mouse);
}

static void i8042_set_output(struct i8042 *s, uint8_t byte, bool from_mouse)
{
    s->output = byte;
    s->output_full = true;
    s->output_from_mouse = from_mouse;
}

/* Set 2 to set 1: the break prefix 0xf0 becomes bit 7 of the code behind it. */
static void i8042_take_keyboard_byte(struct i8042 *s)
{
    uint8_t byte = ps2_port_get(&s->keyboard.port);

    if (!(s->ram[0] & CONFIG_TRANSLATE)) {
        i8042_set_output(s, byte, false);
    } else if (byte == 0xf0) {
        s->break_prefix = true;
    } else {
        i8042_set_output(s, ps2_translate(byte) | (s->break_prefix ? 0x80 : 0), false);
        s->break_prefix = false;
    }
}

static bool i8042_keyboard_has(const struct i8042 *s)
{
    return !(s->ram[0] & CONFIG_NO_KEYBOARD) && ps2_port_has(&s->keyboard.port);
}

static bool i8042_mouse_has(const struct i8042 *s)
{
    return !(s->ram[0] & CONFIG_NO_MOUSE) && ps2_port_has(&s->mouse.port);
}

static void i8042_take_device_byte(struct i8042 *s)
{
    while (!s->output_full && i8042_keyboard_has(s))
        i8042_take_keyboard_byte(s);
    if (!s->output_full && i8042_mouse_has(s)) {
        i8042_set_output(s, ps2_port_get(&s->mouse.port), true);
        if (!ps2_port_has(&s->mouse.port))
            ps2_mouse_drained(&s->mouse);
    }
}

/* Fill the output buffer if it is empty: own answers first, then the devices. */
static void i8042_fill(struct i8042 *s)
{
    if (!s->output_full && s->reply_count) {
        i8042_set_output(s, s->replies[0].byte, s->replies[0].from_mouse);
        s->reply_count--;
        memmove(&s->replies[0], &s->replies[1], s->reply_count * sizeof(s->replies[0]));
    }
    if (!s->output_full && !timer_is_armed(&s->byte_time))
        i8042_take_device_byte(s);
    i8042_update_irq(s);
}

static void i8042_wake(void *opaque)
{
    i8042_fill(opaque);
}

static void i8042_reply(struct i8042 *s, uint8_t byte, bool from_mouse)
{
    if (s->reply_count < REPLIES)
        s->replies[s->reply_count++] = (struct controller_reply){byte, from_mouse};
    i8042_fill(s);
}

static uint8_t i8042_read_data(struct i8042 *s)
{
    uint8_t byte = s->output;

    if (s->output_full) {
        s->output_full = false;
        i8042_update_irq(s);
        timer_arm(&s->byte_time, device_now_ns(&s->dev) + BYTE_TIME_NS);
        i8042_fill(s);
    }
    return byte;
}

static uint8_t i8042_read_status(const struct i8042 *s)
{
    uint8_t status = s->status | STATUS_UNLOCKED;

    if (s->output_full)
        status |= STATUS_OUTPUT_FULL | (s->output_from_mouse ? STATUS_FROM_MOUSE : 0);
    return status;
}

/* ---- output port ---- */

static uint8_t i8042_output_port(struct i8042 *s)
{
    uint8_t port = OUTPUT_NO_RESET | OUTPUT_LINES;

    if (machine_a20(s->dev.machine))
        port |= OUTPUT_A20;
    if (s->output_full)
        port |= s->output_from_mouse ? OUTPUT_MOUSE_IRQ : OUTPUT_KEYBOARD_IRQ;
    return port;
}

static void i8042_write_output_port(struct i8042 *s, uint8_t value)
{
    machine_set_a20(s->dev.machine, value & OUTPUT_A20);
    if (!(value & OUTPUT_NO_RESET))
        machine_request_reset(s->dev.machine);
}

/* ---- commands ---- */

static void i8042_write_ram(struct i8042 *s, unsigned index, uint8_t value)
{
    s->ram[index] = value;
    if (index == 0)
        s->status =
            (uint8_t)((s->status & ~STATUS_SYSTEM) | (value & CONFIG_SYSTEM ? STATUS_SYSTEM : 0));
    i8042_fill(s);
}

static void i8042_set_config(struct i8042 *s, uint8_t clear, uint8_t set)
{
    s->ram[0] = (uint8_t)((s->ram[0] & ~clear) | set);
    i8042_fill(s);
}

static void i8042_self_test(struct i8042 *s)
{
    s->output_full = false;
    s->reply_count = 0;
    s->break_prefix = false;
    s->status |= STATUS_SYSTEM;
    s->ram[0] |= CONFIG_SYSTEM;
    i8042_reply(s, SELF_TEST_OK, false);
}

/* Commands 0xf0-0xff pull the output port's low lines down for a moment where bits are 0. */
static void i8042_pulse(struct i8042 *s, uint8_t command)
{
    if (!(command & OUTPUT_NO_RESET))
        machine_request_reset(s->dev.machine);
}

static void i8042_simple_command(struct i8042 *s, uint8_t command)
{
    switch (command) {
    case COMMAND_TEST_PASSWORD:
        i8042_reply(s, NO_PASSWORD, false);
        break;
    case COMMAND_MOUSE_OFF:
        i8042_set_config(s, 0, CONFIG_NO_MOUSE);
        break;
    case COMMAND_MOUSE_ON:
        i8042_set_config(s, CONFIG_NO_MOUSE, 0);
        break;
    case COMMAND_KEYBOARD_OFF:
        i8042_set_config(s, 0, CONFIG_NO_KEYBOARD);
        break;
    case COMMAND_KEYBOARD_ON:
        i8042_set_config(s, CONFIG_NO_KEYBOARD, 0);
        break;
    case COMMAND_SELF_TEST:
        i8042_self_test(s);
        break;
    case COMMAND_TEST_MOUSE:
    case COMMAND_TEST_KEYBOARD:
    case COMMAND_READ_TEST:
        i8042_reply(s, 0, false);
        break;
    case COMMAND_READ_INPUT:
        i8042_reply(s, INPUT_PORT, false);
        break;
    case COMMAND_READ_OUTPUT:
        i8042_reply(s, i8042_output_port(s), false);
        break;
    case COMMAND_A20_OFF:
    case COMMAND_A20_ON:
        machine_set_a20(s->dev.machine, command == COMMAND_A20_ON);
        break;
    default:
        break;
    }
}

static bool command_takes_data(uint8_t command)
{
    return (command & 0xe0) == COMMAND_WRITE_RAM ||
           (command >= COMMAND_WRITE_OUTPUT && command <= COMMAND_TO_MOUSE);
}

static void i8042_write_command(struct i8042 *s, uint8_t command)
{
    s->status |= STATUS_COMMAND;
    s->command = command_takes_data(command) ? command : 0;
    if (s->command)
        return;
    if ((command & 0xe0) == COMMAND_READ_RAM)
        i8042_reply(s, s->ram[command & (RAM_SIZE - 1)], false);
    else if (command >= COMMAND_PULSE)
        i8042_pulse(s, command);
    else
        i8042_simple_command(s, command);
}

/* A byte to a device switches its port on. */
static void i8042_to_keyboard(struct i8042 *s, uint8_t byte)
{
    s->ram[0] &= (uint8_t)~CONFIG_NO_KEYBOARD;
    ps2_keyboard_write(&s->keyboard, byte);
}

static void i8042_to_mouse(struct i8042 *s, uint8_t byte)
{
    s->ram[0] &= (uint8_t)~CONFIG_NO_MOUSE;
    ps2_mouse_write(&s->mouse, byte);
}

static void i8042_write_data(struct i8042 *s, uint8_t byte)
{
    uint8_t command = s->command;

    s->status &= (uint8_t)~STATUS_COMMAND;
    s->command = 0;
    switch (command) {
    case 0:
        i8042_to_keyboard(s, byte);
        break;
    case COMMAND_WRITE_OUTPUT:
        i8042_write_output_port(s, byte);
        break;
    case COMMAND_AS_KEYBOARD:
    case COMMAND_AS_MOUSE:
        i8042_reply(s, byte, command == COMMAND_AS_MOUSE);
        break;
    case COMMAND_TO_MOUSE:
        i8042_to_mouse(s, byte);
        break;
    default:
        i8042_write_ram(s, command & (RAM_SIZE - 1), byte);
        break;
    }
}

/* ---- ports ---- */

static uint64_t i8042_data_port_read(struct device *dev, uint64_t offset, unsigned size)
{
    (void)offset, (void)size;
    return i8042_read_data(i8042_of(dev));
}

static void i8042_data_port_write(struct device *dev, uint64_t offset, uint64_t value,
                                  unsigned size)
{
    (void)offset, (void)size;
    i8042_write_data(i8042_of(dev), (uint8_t)value);
}

static uint64_t i8042_status_port_read(struct device *dev, uint64_t offset, unsigned size)
{
    (void)offset, (void)size;
    return i8042_read_status(i8042_of(dev));
}

static void i8042_status_port_write(struct device *dev, uint64_t offset, uint64_t value,
                                    unsigned size)
{
    (void)offset, (void)size;
    i8042_write_command(i8042_of(dev), (uint8_t)value);
}

static const struct region_ops data_port = {
    .name = "i8042-data",
    .read = i8042_data_port_read,
    .write = i8042_data_port_write,
    .min_size = 1,
    .max_size = 1,
};

static const struct region_ops status_port = {
    .name = "i8042-status",
    .read = i8042_status_port_read,
    .write = i8042_status_port_write,
    .min_size = 1,
    .max_size = 1,
};

/* ---- input from the host ---- */

void i8042_key(struct device *dev, uint8_t usage, bool pressed)
{
    ps2_keyboard_key(&i8042_of(dev)->keyboard, usage, pressed);
}

void i8042_release_keys(struct device *dev)
{
    for (unsigned usage = 0; usage < PS2_USAGES; usage++)
        i8042_key(dev, (uint8_t)usage, false);
}

unsigned i8042_leds(struct device *dev)
{
    return i8042_of(dev)->keyboard.leds;
}

void i8042_mouse_move(struct device *dev, int right, int up, int wheel)
{
    ps2_mouse_move(&i8042_of(dev)->mouse, right, up, wheel);
}

void i8042_mouse_buttons(struct device *dev, unsigned buttons)
{
    ps2_mouse_set_buttons(&i8042_of(dev)->mouse, buttons);
}

static void input_key_arrived(void *opaque, uint8_t usage, bool pressed)
{
    i8042_key(opaque, usage, pressed);
}

static unsigned input_leds_asked(void *opaque)
{
    return i8042_leds(opaque);
}

static bool mouse_is_listening(void *opaque)
{
    return i8042_of(opaque)->mouse.reporting;
}

static void input_moved(void *opaque, int32_t right, int32_t down)
{
    i8042_mouse_move(opaque, right, -down, 0);
}

static void input_buttons_changed(void *opaque, unsigned buttons)
{
    i8042_mouse_buttons(opaque, buttons);
}

static void input_wheel_turned(void *opaque, int32_t up, int32_t right)
{
    (void)right;
    i8042_mouse_move(opaque, 0, 0, -up);
}

static const struct input_device_ops keyboard_ops = {
    .key = input_key_arrived,
    .leds = input_leds_asked,
};

static const struct input_device_ops mouse_ops = {
    .is_listening = mouse_is_listening,
    .moved = input_moved,
    .buttons = input_buttons_changed,
    .wheel = input_wheel_turned,
};

/* ---- lifecycle ---- */

static int i8042_attach(struct device *dev, struct error *err)
{
    struct i8042 *s = i8042_of(dev);
    struct clocks *clocks = device_clocks(dev);
    int rc;

    timer_init(&s->byte_time, clocks, CLOCK_ID_VIRTUAL, i8042_wake, s);
    ps2_keyboard_init(&s->keyboard, clocks, i8042_wake, s);
    ps2_mouse_init(&s->mouse, clocks, i8042_wake, s);
    s->keys = (struct input_device){.ops = &keyboard_ops, .opaque = dev};
    s->pointer = (struct input_device){.ops = &mouse_ops, .opaque = dev};
    input_add(machine_input(dev->machine), &s->keys);
    input_add(machine_input(dev->machine), &s->pointer);
    rc = device_map_ports(dev, PORT_DATA, 1, &data_port, err);
    return rc ? rc : device_map_ports(dev, PORT_STATUS, 1, &status_port, err);
}

static void i8042_detach(struct device *dev)
{
    struct i8042 *s = i8042_of(dev);

    if (!s->byte_time.clocks)
        return;
    input_remove(machine_input(dev->machine), &s->pointer);
    input_remove(machine_input(dev->machine), &s->keys);
    timer_done(&s->byte_time);
    ps2_keyboard_done(&s->keyboard);
    ps2_mouse_done(&s->mouse);
}

static void i8042_reset(struct device *dev)
{
    struct i8042 *s = i8042_of(dev);

    s->status = s->command = s->output = 0;
    s->output_full = s->output_from_mouse = s->break_prefix = false;
    s->reply_count = 0;
    memset(s->replies, 0, sizeof(s->replies));
    memset(s->ram, 0, sizeof(s->ram));
    s->ram[0] = CONFIG_RESET;
    timer_cancel(&s->byte_time);
    ps2_keyboard_reset(&s->keyboard);
    ps2_mouse_reset(&s->mouse);
}

/* Both outputs of the A20 latch are high after a reset. */
static void i8042_reset_done(struct device *dev)
{
    struct i8042 *s = i8042_of(dev);

    machine_set_a20(dev->machine, true);
    irq_set(&s->keyboard_irq, false);
    irq_set(&s->mouse_irq, false);
}

static const struct device_output i8042_outputs[] = {
    DEVICE_OUTPUT(struct i8042, keyboard_irq),
    DEVICE_OUTPUT(struct i8042, mouse_irq),
    DEVICE_OUTPUT_END,
};

static const struct state_field reply_state[] = {
    STATE_U8(struct controller_reply, byte),
    STATE_BOOL(struct controller_reply, from_mouse),
    STATE_END,
};

static const struct state_field i8042_state[] = {
    STATE_LINE(struct i8042, keyboard_irq),
    STATE_LINE(struct i8042, mouse_irq),
    STATE_U8_MAX(struct i8042, status, STATUS_SYSTEM | STATUS_COMMAND),
    STATE_BYTES(struct i8042, ram),
    STATE_U8(struct i8042, command),
    STATE_U8(struct i8042, output),
    STATE_BOOL(struct i8042, output_full),
    STATE_BOOL(struct i8042, output_from_mouse),
    STATE_BOOL(struct i8042, break_prefix),
    STATE_STRUCTS(struct i8042, replies, reply_state),
    STATE_U8_MAX(struct i8042, reply_count, REPLIES),
    STATE_TIMER(struct i8042, byte_time),
    STATE_STRUCT(struct i8042, keyboard, ps2_keyboard_state),
    STATE_STRUCT(struct i8042, mouse, ps2_mouse_state),
    STATE_END,
};

const struct device_class i8042_class = {
    .name = "i8042",
    .summary = "keyboard controller with PS/2 keyboard and mouse",
    .bus = BUS_PLATFORM,
    .instance_size = sizeof(struct i8042),
    .outputs = i8042_outputs,
    .attach = i8042_attach,
    .reset = i8042_reset,
    .reset_done = i8042_reset_done,
    .detach = i8042_detach,
    .state = {.version = 1, .oldest = 1, .fields = i8042_state},
};
