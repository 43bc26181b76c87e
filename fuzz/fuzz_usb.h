/*
 * fuzz_usb.h - what the targets of USB controllers share
 */
#ifndef FUZZ_FUZZ_USB_H
#define FUZZ_FUZZ_USB_H

#include "devices/devices.h"
#include "fuzz_device.h"
#include "trapeze/input.h"

/* Plugged in as its properties say. */
static inline struct device *fuzz_add_stick(struct device_test *t, struct block *disk,
                                            const char *properties)
{
    struct device *stick = device_test_create(t, &usb_storage_class, properties);
    struct error err = {0};

    FUZZ_CLAIM(device_set_pointer(stick, "drive", disk, &err) == 0);
    device_test_attach(stick);
    return stick;
}

/* Somebody presses a key or a button, or moves the mouse. */
static inline void fuzz_use_input(struct fuzz_input *in, struct device_test *t, uint8_t what)
{
    struct input *input = machine_input(t->machine);
    uint8_t value = (uint8_t)fuzz_take(in, 1);

    if (what & 0x80)
        FUZZ_LOCKED(t, input_key(input, value, what & 0x40));
    else if (what & 0x40)
        FUZZ_LOCKED(t, input_buttons(input, value & 0x1f));
    else
        FUZZ_LOCKED(t, input_pointer_moved(input, (int8_t)value * 9, value));
}

#endif
