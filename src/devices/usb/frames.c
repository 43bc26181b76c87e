/*
 * frames.c - the clock of frames that UHCI and EHCI controllers live by
 */
#include "devices/usb/frames.h"

#define IDLE_FRAMES 32u /* with nothing to do, until it is time to be lazy */
#define LAZY_FRAMES 8u  /* that are run together then, if the controller does not say */
#define LATE_FRAMES 16u /* more are lost */

/* The begin of the next frame, or of the last of some that wait for each other. */
static void arm(struct usb_frames *frames)
{
    uint64_t at_ns = frames->begins_ns;
    uint64_t step_ns = (frames->pace ? frames->pace : LAZY_FRAMES) * USB_FRAME_NS;

    if (frames->idle >= IDLE_FRAMES)
        at_ns = (at_ns + step_ns - 1) / step_ns * step_ns;
    timer_arm(&frames->timer, at_ns);
}

/* How many frames have begun and were not run. */
static uint64_t due(const struct usb_frames *frames)
{
    uint64_t now_ns = device_now_ns(frames->controller);

    return now_ns < frames->begins_ns ? 0 : (now_ns - frames->begins_ns) / USB_FRAME_NS + 1;
}

static void skip(struct usb_frames *frames, uint64_t count)
{
    frames->number += (uint32_t)count;
    frames->begins_ns += count * USB_FRAME_NS;
}

static void run_due(struct usb_frames *frames)
{
    uint64_t count = due(frames);

    if (count > LATE_FRAMES) {
        skip(frames, count - LATE_FRAMES);
        count = LATE_FRAMES;
    }
    for (; count && timer_is_armed(&frames->timer); count--) {
        if (frames->run(frames->controller))
            frames->idle = 0;
        else if (frames->idle < IDLE_FRAMES)
            frames->idle++;
        skip(frames, 1);
    }
}

static void fire(void *opaque)
{
    struct usb_frames *frames = opaque;

    arm(frames);
    run_due(frames);
    if (timer_is_armed(&frames->timer))
        arm(frames);
}

void usb_frames_init(struct usb_frames *frames, struct device *controller,
                     bool (*run)(struct device *controller))
{
    frames->controller = controller;
    frames->run = run;
    timer_init(&frames->timer, device_clocks(controller), CLOCK_ID_VIRTUAL, fire, frames);
}

void usb_frames_start(struct usb_frames *frames)
{
    frames->begins_ns = device_now_ns(frames->controller) / USB_FRAME_NS * USB_FRAME_NS;
    frames->idle = 0;
    arm(frames);
}

void usb_frames_finish(struct usb_frames *frames)
{
    if (timer_is_armed(&frames->timer))
        run_due(frames);
    timer_cancel(&frames->timer);
}

void usb_frames_stop(struct usb_frames *frames)
{
    timer_cancel(&frames->timer);
}

void usb_frames_wake(struct usb_frames *frames)
{
    frames->idle = 0;
    if (timer_is_armed(&frames->timer))
        arm(frames);
}

uint32_t usb_frames_now(const struct usb_frames *frames, uint64_t *out_ns)
{
    uint64_t now_ns = device_now_ns(frames->controller), begun = due(frames);

    *out_ns = 0;
    if (!timer_is_armed(&frames->timer))
        return frames->number;
    *out_ns = (now_ns + USB_FRAME_NS - frames->begins_ns) % USB_FRAME_NS;
    return frames->number + (uint32_t)begun - 1;
}

const struct state_field usb_frames_state[] = {
    STATE_TIMER(struct usb_frames, timer),
    STATE_U64(struct usb_frames, begins_ns),
    STATE_U32(struct usb_frames, number),
    STATE_U8_MAX(struct usb_frames, idle, IDLE_FRAMES),
    STATE_END,
};
