/*
 * frames.h - the clock of frames that UHCI and EHCI controllers live by, 1 ms each
 *
 * A driver of these controllers changes lists in memory and tells nobody, so each frame has its
 * own look at them. As long as something moves a frame is run when it begins. After some in which
 * nothing did, several are run together, late by up to 8 ms, so that an idle guest costs little;
 * a device that has something new (usb_frames_wake) or a register that is written ends that.
 * Frames of all controllers begin together. No frame is left out, unless the host was busy for
 * long.
 *
 * Machine lock held.
 */
#ifndef DEVICES_USB_FRAMES_H
#define DEVICES_USB_FRAMES_H

#include <stdbool.h>
#include <stdint.h>

#include "trapeze/clock.h"
#include "trapeze/device.h"

#define USB_FRAME_NS 1000000ull

struct usb_frames {
    /* Configuration. */
    struct device *controller;
    /* Run the frame frames->number. True: something has moved. It may call usb_frames_stop(). */
    bool (*run)(struct device *controller);
    uint32_t pace; /* frames that are run together when nothing moves; 0: a few; rebuilt on load */

    /* Guest-visible state. */
    struct timer timer; /* armed: the controller runs */
    uint64_t begins_ns; /* when the frame of that number begins or has begun; it was not run yet */
    uint32_t number;
    uint8_t idle; /* frames in a row in which nothing has moved, up to a limit */
};

void usb_frames_init(struct usb_frames *frames, struct device *controller,
                     bool (*run)(struct device *controller));
/* From number on; also while they run. */
void usb_frames_start(struct usb_frames *frames);
/* Frames that have begun are run before. */
void usb_frames_finish(struct usb_frames *frames);
/* At once; number is the next frame's. */
void usb_frames_stop(struct usb_frames *frames);
/* There may be something to do. */
void usb_frames_wake(struct usb_frames *frames);
/* The number of the frame that goes on now, and how much of it has passed. */
uint32_t usb_frames_now(const struct usb_frames *frames, uint64_t *out_ns);

extern const struct state_field usb_frames_state[];

#endif
