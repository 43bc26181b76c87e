/*
 * uhci_schedule.c - what a UHCI controller does in a frame
 *
 * The guide, chapter 3. An entry of the frame list leads to transfer descriptors (TDs), and to
 * queues of them (QHs); drivers close the end of the list to a loop, so that what is left of a
 * frame is used.
 *
 * Theory of operation. A frame goes along the links until they end, the frame is full, or all of a
 * loop was seen and nothing has moved. That is found by a mark at a link that was passed; it moves
 * on when something has happened, and at each power of two of links, so that it comes to lie on
 * the loop. A frame is full after FRAME_PACKETS packets, more than a cable has room for, or after
 * FRAME_LINKS links, which bounds what a hostile guest's lists cost.
 *
 * A NAK is written down once. Memory is never late, so there are no data buffer errors; what is
 * not RAM is an error of the host system, at which the controller halts.
 */
#include <stdatomic.h>

#include "base/bytes.h"
#include "devices/usb/uhci.h"

#define FRAMES         1024u /* entries of the list */
#define FRAME_PACKETS  128u
#define FRAME_LINKS    1024u

#define LINK_END       0x1u
#define LINK_QUEUE     0x2u
#define LINK_DEPTH     0x4u /* go on with the TD behind it */
#define LINK_MASK      0xfffffff0u

/* Of a TD (3.2): control and status, token. */
#define TD_ACTUAL      0x000007ffu
#define TD_ERRORS      0x007e0000u
#define TD_TIMEOUT     0x00040000u
#define TD_NAK         0x00080000u
#define TD_BABBLE      0x00100000u
#define TD_STALLED     0x00400000u
#define TD_ACTIVE      0x00800000u
#define TD_IOC         0x01000000u
#define TD_ISOCHRONOUS 0x02000000u
#define TD_TRIES_SHIFT 27
#define TD_SHORT       0x20000000u /* a packet that is short ends the queue's work */
#define TD_MAX_BYTES   1280u

struct td {
    uint32_t gpa, link, status, token, buffer;
};

enum td_end {
    TD_STAYS,  /* it is not done, or the queue waits at it */
    TD_DONE,   /* the queue goes on to the next */
    TD_FAILED, /* the controller halted */
};

struct walk {
    struct uhci *s;
    uint32_t mark;
    unsigned steps, links, packets; /* steps: from one link to the next, but in queues */
    bool moved, moved_since_mark;
    uint8_t causes; /* for the end of the frame */
};

static bool read_words(struct walk *w, uint32_t gpa, uint32_t *words, unsigned count)
{
    uint8_t bytes[16];

    if (memory_read(device_memory(&w->s->function.dev), gpa, bytes, 4 * count)) {
        uhci_fail(w->s, UHCI_STS_SYSTEM, "its schedule is not in memory");
        return false;
    }
    for (unsigned n = 0; n < count; n++)
        words[n] = get_le32(bytes + 4 * n);
    return true;
}

static void write_word(struct walk *w, uint32_t gpa, uint32_t value)
{
    uint8_t bytes[4];

    put_le32(bytes, value);
    memory_write(device_memory(&w->s->function.dev), gpa, bytes, sizeof(bytes));
}

/* ---- transfer descriptors ---- */

static void set_status(struct walk *w, struct td *td, uint32_t status)
{
    if (status != td->status)
        write_word(w, td->gpa + 4, status);
    w->moved |= (status & ~TD_NAK) != (td->status & ~TD_NAK);
    td->status = status;
}

/* It is over; errors: TD_STALLED and why. */
static void fail_td(struct walk *w, struct td *td, uint32_t errors)
{
    set_status(w, td, (td->status & ~TD_ACTIVE) | errors);
    w->s->status |= UHCI_STS_ERROR;
    if (td->status & TD_IOC)
        w->causes |= UHCI_CAUSE_DONE;
}

/* Nobody has answered. Without a number of tries there is no end to them. */
static void time_out(struct walk *w, struct td *td)
{
    unsigned tries = td->status >> TD_TRIES_SHIFT & 3;

    if (td->status & TD_ISOCHRONOUS) {
        fail_td(w, td, TD_TIMEOUT);
    } else if (tries == 1) {
        td->status &= ~(3u << TD_TRIES_SHIFT);
        fail_td(w, td, TD_TIMEOUT | TD_STALLED);
    } else {
        set_status(w, td, (td->status | TD_TIMEOUT) - (tries ? 1u << TD_TRIES_SHIFT : 0));
    }
}

static unsigned bytes_of(const struct td *td)
{
    return ((td->token >> 21) + 1) & TD_ACTUAL;
}

static enum td_end finish_td(struct walk *w, struct td *td, size_t moved_bytes)
{
    bool is_in = (td->token & 0xff) == USB_PID_IN, is_short = moved_bytes < bytes_of(td);

    set_status(w, td,
               (td->status & ~(TD_ACTIVE | TD_ERRORS | TD_ACTUAL)) |
                   (((uint32_t)moved_bytes - 1) & TD_ACTUAL));
    w->moved = true;
    if (td->status & TD_IOC)
        w->causes |= UHCI_CAUSE_DONE;
    if (!is_in || !is_short || !(td->status & TD_SHORT))
        return TD_DONE;
    w->causes |= UHCI_CAUSE_SHORT;
    return TD_STAYS;
}

/* Its packet, with an endpoint that is there. */
static enum td_end move_packet(struct walk *w, struct td *td, struct usb_device *usb)
{
    struct uhci *s = w->s;
    struct memory *memory = device_memory(&s->function.dev);
    enum usb_pid pid = td->token & 0xff;
    uint8_t number = td->token >> 15 & 0xf;
    struct usb_data data;
    enum usb_status status;

    dma_list_clear(&s->list);
    if (!dma_list_add(&s->list, memory, td->buffer, bytes_of(td))) {
        uhci_fail(s, UHCI_STS_SYSTEM, "a buffer is not in memory");
        return TD_FAILED;
    }
    if (pid == USB_PID_IN) /* a device sends no more than that in a packet */
        dma_list_cut(&s->list, usb_packet_bytes(usb, number | USB_IN));
    data = (struct usb_data){s->list.pieces, s->list.count, s->list.size_bytes, 0};
    status = usb_packet(usb, pid, number, &data);
    if (pid == USB_PID_IN)
        io_pieces_written(s->list.pieces, s->list.count, memory, data.done_bytes);
    switch (status) {
    case USB_DONE:
        return finish_td(w, td, data.done_bytes);
    case USB_NAK:
        set_status(w, td, td->status | TD_NAK);
        return TD_STAYS;
    default:
        fail_td(w, td, TD_STALLED | (status == USB_BABBLE ? TD_BABBLE : 0));
        return TD_STAYS;
    }
}

static bool is_pid(unsigned pid)
{
    return pid == USB_PID_IN || pid == USB_PID_OUT || pid == USB_PID_SETUP;
}

static enum td_end run_td(struct walk *w, struct td *td)
{
    struct usb_device *usb;

    if (!(td->status & TD_ACTIVE))
        return TD_STAYS;
    if (!is_pid(td->token & 0xff) || bytes_of(td) > TD_MAX_BYTES) {
        uhci_fail(w->s, UHCI_STS_PROCESS, "a transfer descriptor makes no sense");
        return TD_FAILED;
    }
    w->packets++;
    usb = uhci_device(w->s, td->token >> 8 & 0x7f);
    if (usb)
        return move_packet(w, td, usb);
    time_out(w, td);
    return TD_STAYS;
}

/* A driver on another CPU writes the status last, so it is read first. */
static bool read_td(struct walk *w, uint32_t link, struct td *td)
{
    uint32_t gpa = link & LINK_MASK, status, words[4];

    if (!read_words(w, gpa + 4, &status, 1))
        return false;
    atomic_thread_fence(memory_order_acquire);
    if (!read_words(w, gpa, words, 4))
        return false;
    *td = (struct td){gpa, words[0], status, words[2], words[3]};
    return true;
}

/* ---- the list ---- */

static bool is_full(const struct walk *w)
{
    return w->links >= FRAME_LINKS || w->packets >= FRAME_PACKETS;
}

/* Links from one to the next return where to go on; LINK_END: nowhere. */
static uint32_t visit_td(struct walk *w, uint32_t link)
{
    struct td td;

    if (!read_td(w, link, &td) || run_td(w, &td) == TD_FAILED)
        return LINK_END;
    return td.link;
}

static uint32_t visit_queue(struct walk *w, uint32_t link)
{
    uint32_t gpa = link & LINK_MASK, words[2]; /* link and element */
    enum td_end end = TD_DONE;
    struct td td;

    if (!read_words(w, gpa, words, 2))
        return LINK_END;
    while (end == TD_DONE && !(words[1] & (LINK_END | LINK_QUEUE)) && !is_full(w)) {
        w->links++;
        if (!read_td(w, words[1], &td))
            return LINK_END;
        end = run_td(w, &td);
        if (end == TD_FAILED)
            return LINK_END;
        if (end == TD_STAYS)
            break;
        words[1] = td.link;
        write_word(w, gpa + 4, td.link);
        if (!(td.link & LINK_DEPTH))
            end = TD_STAYS;
    }
    return (words[1] & (LINK_END | LINK_QUEUE)) == LINK_QUEUE ? words[1] : words[0];
}

/* Has all of a loop been seen, without that anything moved? */
static bool is_over(struct walk *w, uint32_t link)
{
    w->moved_since_mark |= w->moved;
    if (link == w->mark && !w->moved_since_mark)
        return true;
    if (link == w->mark || !(w->steps & (w->steps - 1))) {
        w->mark = link;
        w->moved_since_mark = false;
    }
    return false;
}

bool uhci_run_frame(struct device *dev)
{
    struct uhci *s = uhci_of(dev);
    struct walk w = {.s = s, .mark = LINK_END};
    bool any = false;
    uint32_t link;

    if (!pci_is_master(&s->function) ||
        !read_words(&w, s->frame_list + 4 * (s->frames.number % FRAMES), &link, 1))
        link = LINK_END;
    while (!(link & LINK_END) && !is_full(&w)) {
        w.links++;
        w.steps++;
        w.moved = false;
        link = link & LINK_QUEUE ? visit_queue(&w, link) : visit_td(&w, link);
        any |= w.moved;
        if (is_over(&w, link))
            break;
    }
    if (w.causes)
        s->status |= UHCI_STS_INT;
    s->causes |= w.causes;
    uhci_update_interrupts(s);
    return any;
}
