/*
 * ehci_schedule.c - what an EHCI controller does in a frame
 *
 * The specification, chapter 3 and 4. Two lists lead to queue heads (QHs), each of which has
 * transfer descriptors (qTDs) of one endpoint: the periodic list has a place for each frame, the
 * other is a circle that goes on for ever.
 *
 * Theory of operation. A QH keeps a copy of the qTD that it is at (the overlay). That is offered
 * to the device as a whole, which does it, or not yet; then it is written back, and the next is
 * copied. A frame goes round the circle until in a whole round nothing has moved, or
 * FRAME_TRANSFERS are done, and stays at the QH that is marked as its head: no driver takes that
 * one away, so there is no pointer to what was unlinked when a doorbell is answered. FRAME_LINKS
 * bound what hostile lists cost.
 *
 * A transaction with a device of full or low speed, behind the hub that the QH names, is done by
 * one visit, and not split (4.12): the hub's translator has an answer at once. iTDs, siTDs and
 * FSTNs are passed over. Memory is never late; what is not RAM is an error of the host system, at
 * which the controller halts. A qTD with more bytes than pages is a data buffer error.
 */
#include <stdatomic.h>

#include "base/bytes.h"
#include "devices/devices.h"
#include "devices/usb/ehci.h"

#define FRAME_TRANSFERS 64u
#define FRAME_LINKS     512u
#define LIST_ENTRIES    1024u

#define LINK_END        0x1u
#define LINK_TYPE       0x6u
#define LINK_QUEUE      0x2u
#define LINK_MASK       0xffffffe0u

/* Of a QH (3.6), in words. */
enum queue_word {
    QH_LINK,
    QH_ENDPOINT,
    QH_HUB,
    QH_CURRENT,
    QH_NEXT,
    QH_ALTERNATE,
    QH_TOKEN,
    QH_BUFFERS,
    QH_WORDS = 12,
};
#define QH_INACTIVATE   0x00000080u /* of QH_ENDPOINT */
#define QH_OWN_TOGGLE   0x00004000u /* each qTD says the toggle */
#define QH_HEAD         0x00008000u
#define QH_RELOAD_SHIFT 28          /* of the count of NAKs */
#define QH_START_MASK   0x000000ffu /* of QH_HUB */
#define SPEED_HIGH      2u

/* Of a qTD (3.5), in words. */
enum td_word { TD_NEXT, TD_ALTERNATE, TD_TOKEN, TD_BUFFERS, TD_WORDS = 8 };
#define TOKEN_STATUS          0x000000ffu
#define TOKEN_ACTIVE          0x00000080u
#define TOKEN_HALTED          0x00000040u
#define TOKEN_BUFFER          0x00000020u
#define TOKEN_BABBLE          0x00000010u
#define TOKEN_TRANSACTION     0x00000008u
#define TOKEN_PID_SHIFT       8
#define TOKEN_TRIES_SHIFT     10
#define TOKEN_PAGE_SHIFT      12
#define TOKEN_IOC             0x00008000u
#define TOKEN_SIZE_SHIFT      16
#define TOKEN_SIZE_MASK       0x7fffu
#define TOKEN_TOGGLE          0x80000000u
#define PAGES                 5u
#define PAGE_MASK             0xfffff000u
#define ALTERNATE_COUNT       0x0000001eu /* of NAKs, in the overlay */
#define ALTERNATE_COUNT_SHIFT 1

struct queue {
    uint32_t gpa;
    uint32_t words[QH_WORDS];
};

struct walk {
    struct ehci *s;
    unsigned links, transfers;
    bool is_later; /* than the first round of the frame */
    bool moved;
};

static bool read_words(struct walk *w, uint32_t gpa, uint32_t *words, unsigned count)
{
    uint8_t bytes[4 * QH_WORDS];

    if (memory_read(device_memory(&w->s->function.dev), gpa, bytes, 4 * count)) {
        ehci_fail(w->s, "its schedule is not in memory");
        return false;
    }
    for (unsigned n = 0; n < count; n++)
        words[n] = get_le32(bytes + 4 * n);
    return true;
}

static void write_words(struct walk *w, uint32_t gpa, const uint32_t *words, unsigned count)
{
    uint8_t bytes[4 * QH_WORDS];

    for (unsigned n = 0; n < count; n++)
        put_le32(bytes + 4 * n, words[n]);
    memory_write(device_memory(&w->s->function.dev), gpa, bytes, 4 * count);
}

/* ---- queues ---- */

/* The overlay, and the token of the qTD that it came from. */
static void write_back(struct walk *w, struct queue *q)
{
    write_words(w, q->gpa + 4 * QH_CURRENT, &q->words[QH_CURRENT], QH_WORDS - QH_CURRENT);
    if (!(q->words[QH_TOKEN] & TOKEN_ACTIVE))
        write_words(w, (q->words[QH_CURRENT] & LINK_MASK) + 4 * TD_TOKEN, &q->words[QH_TOKEN], 1);
}

/* False: it is not active. A driver on another CPU writes the token last, so it is read first. */
static bool read_active(struct walk *w, uint32_t gpa, uint32_t td[TD_WORDS])
{
    uint32_t token;

    if (!read_words(w, gpa + 4 * TD_TOKEN, &token, 1) || !(token & TOKEN_ACTIVE))
        return false;
    atomic_thread_fence(memory_order_acquire);
    return read_words(w, gpa, td, TD_WORDS);
}

/* How often it may answer NAK in a frame, where the overlay has it; 0: without a limit. */
static uint32_t naks_of(const struct queue *q)
{
    return q->words[QH_ENDPOINT] >> QH_RELOAD_SHIFT << ALTERNATE_COUNT_SHIFT;
}

/* Has it an answer left in this round? The first of a frame begins to count (4.9). */
static bool may_answer(const struct walk *w, struct queue *q)
{
    if (!w->is_later)
        q->words[QH_ALTERNATE] = (q->words[QH_ALTERNATE] & ~ALTERNATE_COUNT) | naks_of(q);
    return !naks_of(q) || q->words[QH_ALTERNATE] & ALTERNATE_COUNT;
}

static void count_nak(struct walk *w, struct queue *q)
{
    if (!naks_of(q))
        return;
    q->words[QH_ALTERNATE] -= 1u << ALTERNATE_COUNT_SHIFT;
    write_words(w, q->gpa + 4 * QH_ALTERNATE, &q->words[QH_ALTERNATE], 1);
}

/* Copy the next qTD to the overlay (4.10.2). False: there is none that is active. */
static bool advance(struct walk *w, struct queue *q)
{
    bool is_short = q->words[QH_TOKEN] >> TOKEN_SIZE_SHIFT & TOKEN_SIZE_MASK;
    uint32_t next = is_short && !(q->words[QH_ALTERNATE] & LINK_END) ? q->words[QH_ALTERNATE]
                                                                     : q->words[QH_NEXT];
    uint32_t td[TD_WORDS], toggle = q->words[QH_TOKEN] & TOKEN_TOGGLE;

    if (next & LINK_END || q->words[QH_ENDPOINT] & QH_INACTIVATE ||
        !read_active(w, next & LINK_MASK, td))
        return false;
    q->words[QH_CURRENT] = next & LINK_MASK;
    q->words[QH_NEXT] = td[TD_NEXT];
    q->words[QH_ALTERNATE] = (td[TD_ALTERNATE] & ~ALTERNATE_COUNT) | naks_of(q);
    q->words[QH_TOKEN] = q->words[QH_ENDPOINT] & QH_OWN_TOGGLE
                             ? td[TD_TOKEN]
                             : (td[TD_TOKEN] & ~TOKEN_TOGGLE) | toggle;
    for (unsigned n = 0; n < PAGES; n++)
        q->words[QH_BUFFERS + n] = td[TD_BUFFERS + n];
    write_back(w, q);
    return true;
}

/* It has failed, and the queue halts. */
static void fail(struct walk *w, struct queue *q, uint32_t errors)
{
    q->words[QH_TOKEN] = (q->words[QH_TOKEN] & ~TOKEN_ACTIVE) | TOKEN_HALTED | errors;
    w->s->status |= EHCI_STS_ERROR | (q->words[QH_TOKEN] & TOKEN_IOC ? EHCI_STS_INT : 0);
    w->moved = true;
    write_back(w, q);
}

/* Nobody has answered. Without a number of tries there is no end to them. */
static void time_out(struct walk *w, struct queue *q)
{
    uint32_t before = q->words[QH_TOKEN];
    unsigned tries = before >> TOKEN_TRIES_SHIFT & 3;

    q->words[QH_TOKEN] = (before | TOKEN_TRANSACTION) - (tries ? 1u << TOKEN_TRIES_SHIFT : 0);
    if (tries == 1)
        fail(w, q, 0);
    else if (q->words[QH_TOKEN] != before)
        write_back(w, q);
}

static uint32_t size_of(const struct queue *q)
{
    return q->words[QH_TOKEN] >> TOKEN_SIZE_SHIFT & TOKEN_SIZE_MASK;
}

/* So many of its bytes were moved: sizes, place and toggle follow (4.10.3). */
static void finish(struct walk *w, struct queue *q, uint32_t moved_bytes, bool is_in)
{
    uint32_t packet = q->words[QH_ENDPOINT] >> 16 & 0x7ff, left = size_of(q) - moved_bytes;
    uint32_t packets = packet ? moved_bytes / packet : 0, token = q->words[QH_TOKEN];
    uint32_t at = (q->words[QH_BUFFERS] & ~PAGE_MASK) + moved_bytes;
    uint32_t page = (token >> TOKEN_PAGE_SHIFT & 7) + at / GUEST_PAGE_SIZE;

    if (left || !packets || moved_bytes % packet) /* the last is not a whole one */
        packets++;
    token &= ~(TOKEN_STATUS | 7u << TOKEN_PAGE_SHIFT | TOKEN_SIZE_MASK << TOKEN_SIZE_SHIFT);
    token |= left << TOKEN_SIZE_SHIFT | (page & 7) << TOKEN_PAGE_SHIFT;
    q->words[QH_TOKEN] = packets % 2 ? token ^ TOKEN_TOGGLE : token;
    q->words[QH_BUFFERS] = (q->words[QH_BUFFERS] & PAGE_MASK) | (at & ~PAGE_MASK);
    w->moved = true;
    if (token & TOKEN_IOC || (is_in && left))
        w->s->status |= EHCI_STS_INT;
    write_back(w, q);
}

/* ---- transfers ---- */

/* Its bytes, from the page that it is at. False: they are more than the pages, or not in RAM. */
static bool collect(struct walk *w, struct queue *q)
{
    struct dma_list *list = &w->s->list;
    uint32_t left = size_of(q), at = q->words[QH_BUFFERS] & ~PAGE_MASK;
    unsigned page = q->words[QH_TOKEN] >> TOKEN_PAGE_SHIFT & 7;

    dma_list_clear(list);
    for (; left; page++, at = 0) {
        uint32_t part = GUEST_PAGE_SIZE - at < left ? (uint32_t)GUEST_PAGE_SIZE - at : left;

        if (page >= PAGES) {
            fail(w, q, TOKEN_BUFFER);
            return false;
        }
        if (!dma_list_add(list, device_memory(&w->s->function.dev),
                          (q->words[QH_BUFFERS + page] & PAGE_MASK) + at, part)) {
            ehci_fail(w->s, "a buffer is not in memory");
            return false;
        }
        left -= part;
    }
    return true;
}

/* The port of a hub of High Speed through which the device is reached; NULL: of none. */
static const struct usb_port *translator_of(const struct usb_device *usb)
{
    const struct usb_port *port = usb->port;

    while (port && port->controller->class == &usb_hub_class) {
        const struct usb_device *hub = usb_device_of(port->controller);

        if (hub->description->speed == USB_HIGH)
            return port;
        port = hub->port;
    }
    return NULL;
}

/* Who is spoken to: it has the speed that the queue says, and is where that says. */
static struct usb_device *device_of(struct walk *w, const struct queue *q)
{
    uint32_t endpoint = q->words[QH_ENDPOINT], hub = q->words[QH_HUB];
    struct usb_device *usb = ehci_device(w->s, endpoint & 0x7f);
    const struct usb_port *port = usb ? translator_of(usb) : NULL;

    if (!usb || (usb->description->speed == USB_HIGH) != ((endpoint >> 12 & 3) == SPEED_HIGH))
        return NULL;
    if (usb->description->speed == USB_HIGH)
        return usb;
    return port && usb_device_of(port->controller)->address == (hub >> 16 & 0x7f) &&
                   port->number == (hub >> 23 & 0x7f)
               ? usb
               : NULL;
}

/* Offer the overlay to the device. False: the queue waits, or has halted. */
static bool transfer(struct walk *w, struct queue *q)
{
    static const enum usb_pid pids[4] = {USB_PID_OUT, USB_PID_IN, USB_PID_SETUP, 0};
    enum usb_pid pid = pids[q->words[QH_TOKEN] >> TOKEN_PID_SHIFT & 3];
    struct usb_device *usb = device_of(w, q);
    struct dma_list *list = &w->s->list;
    struct usb_data data;
    enum usb_status status;

    w->transfers++;
    if (!usb || !pid) {
        time_out(w, q);
        return false;
    }
    if (!collect(w, q))
        return false;
    data = (struct usb_data){list->pieces, list->count, list->size_bytes, 0};
    status = usb_packet(usb, pid, q->words[QH_ENDPOINT] >> 8 & 0xf, &data);
    if (pid == USB_PID_IN)
        io_pieces_written(list->pieces, list->count, device_memory(&w->s->function.dev),
                          data.done_bytes);
    if (status == USB_NAK)
        count_nak(w, q);
    else if (status == USB_DONE)
        finish(w, q, (uint32_t)data.done_bytes, pid == USB_PID_IN);
    else
        fail(w, q, status == USB_BABBLE ? TOKEN_BABBLE : 0);
    return status == USB_DONE;
}

static bool is_full(const struct walk *w)
{
    return w->links >= FRAME_LINKS || w->transfers >= FRAME_TRANSFERS;
}

/* What a queue has to do, up to so many transfers. */
static void run_queue(struct walk *w, struct queue *q, unsigned most)
{
    for (unsigned n = 0; n < most && !is_full(w) && w->s->command & EHCI_CMD_RUN; n++) {
        if (q->words[QH_TOKEN] & TOKEN_HALTED)
            return;
        if (!(q->words[QH_TOKEN] & TOKEN_ACTIVE) && !advance(w, q))
            return;
        if (!may_answer(w, q) || !transfer(w, q))
            return;
    }
}

static bool read_queue(struct walk *w, uint32_t link, struct queue *q)
{
    q->gpa = link & LINK_MASK;
    return read_words(w, q->gpa, q->words, QH_WORDS);
}

/* ---- the lists ---- */

static unsigned bits_of(uint32_t mask)
{
    unsigned count = 0;

    for (; mask; mask &= mask - 1)
        count++;
    return count;
}

static uint32_t list_entries(const struct ehci *s)
{
    return LIST_ENTRIES >> (s->command >> EHCI_CMD_SIZE_SHIFT & 3);
}

static bool run_periodic(struct ehci *s)
{
    struct walk w = {.s = s};
    uint32_t link = LINK_END;

    if (s->command & EHCI_CMD_PERIODIC)
        read_words(&w, s->periodic_list + 4 * (s->frames.number % list_entries(s)), &link, 1);
    for (; !(link & LINK_END) && !is_full(&w) && s->command & EHCI_CMD_RUN; w.links++) {
        struct queue q;

        if ((link & LINK_TYPE) != LINK_QUEUE) {
            if (!read_words(&w, link & LINK_MASK, &link, 1))
                break;
            continue;
        }
        if (!read_queue(&w, link, &q))
            break;
        run_queue(&w, &q, bits_of(q.words[QH_HUB] & QH_START_MASK));
        link = q.words[QH_LINK];
    }
    return w.moved;
}

/* Rounds of the circle; a round begins at its head. */
static bool run_async(struct ehci *s)
{
    struct walk w = {.s = s};
    uint32_t link = s->async_list;
    bool any = false;

    if (!(s->command & EHCI_CMD_ASYNC))
        return false;
    while (!(link & LINK_END) && !is_full(&w) && s->command & EHCI_CMD_RUN) {
        struct queue q;

        if (!read_queue(&w, link, &q))
            break;
        if (q.words[QH_ENDPOINT] & QH_HEAD) {
            if (w.links && s->async_list == q.gpa && !w.moved)
                break;
            s->async_list = q.gpa;
            any |= w.moved;
            w.is_later = w.links;
            w.moved = false;
        }
        w.links++;
        run_queue(&w, &q, FRAME_TRANSFERS);
        link = q.words[QH_LINK];
    }
    return any || w.moved;
}

/* Frames that were lost are counted, too. */
static void count_frame(struct ehci *s)
{
    uint32_t entries = list_entries(s);

    if (s->frames.number / entries != s->last_frame / entries)
        s->status |= EHCI_STS_ROLLOVER;
    s->last_frame = s->frames.number;
}

bool ehci_run_frame(struct device *dev)
{
    struct ehci *s = ehci_of(dev);
    bool moved = false;

    count_frame(s);
    if (pci_is_master(&s->function)) {
        moved = run_periodic(s);
        moved |= run_async(s);
    }
    if (s->command & EHCI_CMD_DOORBELL) {
        s->command &= ~EHCI_CMD_DOORBELL;
        s->status |= EHCI_STS_ADVANCED;
    }
    ehci_update_interrupts(s);
    return moved;
}
