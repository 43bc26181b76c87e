/*
 * xhci.h - what the files of the xHCI controller share
 *
 * eXtensible Host Controller Interface for Universal Serial Bus 1.2, "the specification" below.
 * xhci.c has the registers and the lifecycle, ports.c the root hub's ports, ring.c TRBs, the event
 * ring and interrupters, command.c the command ring, slots and contexts, transfer.c transfers.
 *
 * All calls with the machine lock held.
 */
#ifndef DEVICES_USB_XHCI_H
#define DEVICES_USB_XHCI_H

#include "devices/dma.h"
#include "devices/usb/usb.h"
#include "trapeze/pci.h"

#define XHCI_SLOTS          32u
#define XHCI_SUPER_PORTS    4u /* ports 1 to 4 */
#define XHCI_PORTS          12u
#define XHCI_INTERRUPTERS   4u
#define XHCI_ENDPOINTS      31u /* of a slot; the first is the default control endpoint */
#define XHCI_TRB_BYTES      16u
#define XHCI_CONTEXT_BYTES  32u
#define XHCI_TD_TRBS        1024u /* of a transfer descriptor; more are refused */
#define XHCI_ERST_SEGMENTS  16u

/* Operational registers (5.4). */
#define XHCI_CMD_RUN        0x0001u
#define XHCI_CMD_RESET      0x0002u
#define XHCI_CMD_INTE       0x0004u
#define XHCI_CMD_HSEE       0x0008u
#define XHCI_CMD_CSS        0x0100u
#define XHCI_CMD_CRS        0x0200u
#define XHCI_STS_HALTED     0x0001u
#define XHCI_STS_HSE        0x0004u
#define XHCI_STS_EINT       0x0008u
#define XHCI_STS_PCD        0x0010u
#define XHCI_STS_SRE        0x0400u
#define XHCI_CRCR_CYCLE     0x01u
#define XHCI_CRCR_STOP      0x02u
#define XHCI_CRCR_ABORT     0x04u
#define XHCI_CRCR_RUNNING   0x08u

#define XHCI_IMAN_PENDING   0x1u
#define XHCI_IMAN_ENABLE    0x2u
#define XHCI_ERDP_BUSY      0x8u

/* TRBs (6.4). */
#define XHCI_TRB_CYCLE      0x0001u
#define XHCI_TRB_TOGGLE     0x0002u /* of a link */
#define XHCI_TRB_EVENT_DATA 0x0004u /* of an event */
#define XHCI_TRB_ISP        0x0004u
#define XHCI_TRB_CHAIN      0x0010u
#define XHCI_TRB_IOC        0x0020u
#define XHCI_TRB_IDT        0x0040u
#define XHCI_TRB_BEI        0x0200u
#define XHCI_TRB_BSR        0x0200u /* of Address Device; Deconfigure of Configure Endpoint */
#define XHCI_TRB_IN         0x00010000u

enum xhci_trb_type {
    XHCI_NORMAL = 1,
    XHCI_SETUP = 2,
    XHCI_DATA = 3,
    XHCI_STATUS = 4,
    XHCI_ISOCH = 5,
    XHCI_LINK = 6,
    XHCI_EVENT_DATA = 7,
    XHCI_NO_OP = 8,
    XHCI_ENABLE_SLOT = 9,
    XHCI_DISABLE_SLOT = 10,
    XHCI_ADDRESS_DEVICE = 11,
    XHCI_CONFIGURE_ENDPOINT = 12,
    XHCI_EVALUATE_CONTEXT = 13,
    XHCI_RESET_ENDPOINT = 14,
    XHCI_STOP_ENDPOINT = 15,
    XHCI_SET_DEQUEUE = 16,
    XHCI_RESET_DEVICE = 17,
    XHCI_NO_OP_COMMAND = 23,
    XHCI_TRANSFER_EVENT = 32,
    XHCI_COMMAND_EVENT = 33,
    XHCI_PORT_EVENT = 34,
    XHCI_HOST_EVENT = 37,
};

enum xhci_code {
    XHCI_SUCCESS = 1,
    XHCI_DATA_BUFFER_ERROR = 2,
    XHCI_BABBLE = 3,
    XHCI_TRANSACTION_ERROR = 4,
    XHCI_TRB_ERROR = 5,
    XHCI_STALL = 6,
    XHCI_RESOURCE_ERROR = 7,
    XHCI_NO_SLOTS = 9,
    XHCI_SLOT_NOT_ENABLED = 11,
    XHCI_ENDPOINT_NOT_ENABLED = 12,
    XHCI_SHORT_PACKET = 13,
    XHCI_PARAMETER_ERROR = 17,
    XHCI_CONTEXT_STATE = 19,
    XHCI_EVENT_RING_FULL = 21,
    XHCI_RING_STOPPED = 24,
    XHCI_STOPPED = 26,
};

enum xhci_endpoint_state {
    XHCI_EP_DISABLED,
    XHCI_EP_RUNNING,
    XHCI_EP_HALTED,
    XHCI_EP_STOPPED,
    XHCI_EP_ERROR,
};

enum xhci_slot_state {
    XHCI_SLOT_ENABLED,
    XHCI_SLOT_DEFAULT,
    XHCI_SLOT_ADDRESSED,
    XHCI_SLOT_CONFIGURED,
};

struct xhci_trb {
    uint64_t gpa; /* where it is; links were followed */
    uint64_t parameter;
    uint32_t status, control;
};

struct xhci_ring {
    uint64_t gpa; /* of the next TRB */
    bool cycle;
};

struct xhci_endpoint {
    uint8_t state; /* enum xhci_endpoint_state */
    uint8_t type;  /* of its context */
    struct xhci_ring ring;
};

struct xhci_slot {
    bool is_enabled;
    uint8_t state;    /* enum xhci_slot_state */
    uint8_t port;     /* of the root hub, from 1 on; 0: none was addressed */
    uint32_t route;   /* from there through hubs, as of usb_follow() */
    uint64_t context; /* GPA of the output device context */
    uint32_t kicked;  /* endpoints that have to be looked at, a bit each by DCI */
    struct xhci_endpoint endpoints[XHCI_ENDPOINTS];
};

struct xhci_interrupter {
    uint32_t management, moderation, table_size;
    uint64_t table, dequeue; /* dequeue: ERDP with its low bits */
    bool is_fresh;           /* the table is read before the next event */
    bool pending;            /* there was an event that asks for an interrupt */
    bool cycle;
    uint8_t segment; /* where the next event is put */
    uint16_t index;
    struct timer quiet; /* interrupts wait for its end */
};

/* Chained TRBs, and the memory that they name. */
struct xhci_td {
    unsigned count;
    struct xhci_trb trbs[XHCI_TD_TRBS];
    struct dma_list list;
};

struct xhci {
    struct pci_function function;

    /* Configuration. */
    struct usb_bus bus;
    struct usb_port ports[XHCI_PORTS];

    /* Guest-visible state. */
    uint32_t command, status, notification, config;
    uint64_t command_ring; /* as it was written */
    struct xhci_ring commands;
    bool commands_run;
    uint64_t contexts; /* DCBAAP */
    uint32_t port_status[XHCI_PORTS];
    struct xhci_interrupter interrupters[XHCI_INTERRUPTERS];
    struct xhci_slot slots[XHCI_SLOTS];
    uint64_t started_ns; /* MFINDEX counts from then on */
    struct timer more;   /* there was more to do than is done at once */

    struct xhci_td td; /* that is being looked at */
    bool is_working;   /* what devices wake meanwhile is seen afterwards */
    bool is_starved;   /* something waits for room in an event ring */
};

static inline struct xhci *xhci_of(struct device *dev)
{
    return container_of(dev, struct xhci, function.dev);
}

static inline unsigned xhci_trb_type(const struct xhci_trb *trb)
{
    return trb->control >> 10 & 0x3f;
}

static inline bool xhci_is_running(const struct xhci *s)
{
    return s->command & XHCI_CMD_RUN && pci_is_master(&s->function);
}

struct usb_bus *xhci_bus(struct device *dev);

/* ---- xhci.c ---- */

/* It cannot go on until it is reset (HSE); why is logged. */
void xhci_fail(struct xhci *s, const char *why);
/* There is more to do, soon. */
void xhci_later(struct xhci *s);
/* Do all that can be done: commands, and endpoints that were kicked. */
void xhci_work(struct xhci *s);

/* ---- ports.c ---- */

void xhci_init_ports(struct xhci *s);
void xhci_reset_ports(struct xhci *s);
/* The controller begins to run: what has changed before is told. */
void xhci_report_ports(struct xhci *s);
uint32_t xhci_read_port(const struct xhci *s, unsigned offset);
void xhci_write_port(struct xhci *s, unsigned offset, uint32_t value);
/* The device that a slot addresses; NULL: it is gone, or its port is off. */
struct usb_device *xhci_device(struct xhci *s, const struct xhci_slot *slot);
bool xhci_is_suspended(const struct xhci *s, const struct xhci_slot *slot);
bool xhci_ports_are_consistent(const struct xhci *s);

/* ---- ring.c ---- */

enum xhci_fetch { XHCI_FETCH_NONE, XHCI_FETCH_DONE, XHCI_FETCH_BAD };
/* The next TRB that is the controller's. BAD: memory is not there, or links lead to links only. */
enum xhci_fetch xhci_fetch(struct xhci *s, struct xhci_ring *ring, struct xhci_trb *out);
/* control: type and flags without the cycle bit. */
void xhci_post(struct xhci *s, unsigned interrupter, uint64_t parameter, uint32_t status,
               uint32_t control, bool is_quiet);
/* Is there room for that many events? */
bool xhci_has_room(struct xhci *s, unsigned interrupter, unsigned events);
/* IP, IE, INTE or the way of interrupts may have changed. */
void xhci_update_interrupts(struct xhci *s);
bool xhci_intx_level(const struct xhci *s);
uint32_t xhci_read_interrupter(const struct xhci *s, unsigned offset);
void xhci_write_interrupter(struct xhci *s, unsigned offset, uint32_t value);
void xhci_init_interrupters(struct xhci *s);
void xhci_reset_interrupters(struct xhci *s);

/* ---- command.c ---- */

/* Execute what is on the command ring. */
void xhci_run_commands(struct xhci *s);
void xhci_stop_commands(struct xhci *s);
/* The endpoint's state and dequeue pointer, in the output context. dci: from 1 on. */
void xhci_put_endpoint(struct xhci *s, struct xhci_slot *slot, unsigned dci);
/* Its address, with the direction. */
static inline uint8_t xhci_endpoint_address(unsigned dci)
{
    return (uint8_t)(dci / 2 | (dci > 1 && dci % 2 ? USB_IN : 0));
}

/* ---- transfer.c ---- */

/* Do what is on the endpoint's ring. */
void xhci_run_endpoint(struct xhci *s, unsigned slot, unsigned dci);
/* It is stopped; the transfer that waits is told so. */
void xhci_report_stopped(struct xhci *s, unsigned slot, unsigned dci);

#endif
