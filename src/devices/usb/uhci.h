/*
 * uhci.h - what the files of the UHCI controller share
 *
 * Universal Host Controller Interface (UHCI) Design Guide 1.1, "the guide" below. uhci.c has the
 * registers and the lifecycle, uhci_ports.c the root hub, uhci_schedule.c what is done in a frame.
 *
 * All calls with the machine lock held.
 */
#ifndef DEVICES_USB_UHCI_H
#define DEVICES_USB_UHCI_H

#include "devices/dma.h"
#include "devices/usb/frames.h"
#include "devices/usb/usb.h"
#include "trapeze/pci.h"

#define UHCI_PORTS        2u

/* Registers (2.1). */
#define UHCI_CMD_RUN      0x0001u
#define UHCI_CMD_RESET    0x0002u /* of the controller */
#define UHCI_CMD_GRESET   0x0004u /* of the bus */
#define UHCI_CMD_SUSPEND  0x0008u /* of the bus */
#define UHCI_CMD_RESUME   0x0010u
#define UHCI_STS_INT      0x0001u
#define UHCI_STS_ERROR    0x0002u
#define UHCI_STS_RESUME   0x0004u
#define UHCI_STS_SYSTEM   0x0008u /* error of the host system */
#define UHCI_STS_PROCESS  0x0010u /* error in the schedule */
#define UHCI_STS_HALTED   0x0020u

/* Why there is UHCI_STS_INT; each has its enable in the register of interrupts. */
#define UHCI_CAUSE_DONE   0x1u
#define UHCI_CAUSE_SHORT  0x2u

/* Of a port (2.1.7), what is kept; that a device is there, and its speed, are seen from it. */
#define UHCI_PORT_CHANGE  0x0002u /* a device came or went */
#define UHCI_PORT_ENABLED 0x0004u
#define UHCI_PORT_OFF     0x0008u /* it was disabled by what happened */
#define UHCI_PORT_RESUME  0x0040u
#define UHCI_PORT_RESET   0x0200u
#define UHCI_PORT_SUSPEND 0x1000u
#define UHCI_PORT_KEPT    0x124eu

struct uhci {
    struct pci_function function;

    /* Configuration. */
    struct usb_bus bus;
    struct usb_port ports[UHCI_PORTS];

    /* Guest-visible state. */
    uint16_t command, status, interrupts;
    uint32_t frame_list;
    uint8_t sof;
    uint8_t causes; /* of UHCI_STS_INT */
    uint16_t port_status[UHCI_PORTS];
    struct usb_frames frames; /* its number is FRNUM */

    struct dma_list list; /* of the packet that is being moved */
};

static inline struct uhci *uhci_of(struct device *dev)
{
    return container_of(dev, struct uhci, function.dev);
}

struct usb_bus *uhci_bus(struct device *dev);

/* ---- uhci.c ---- */

/* Status, causes or what enables them may have changed. */
void uhci_update_interrupts(struct uhci *s);
/* It halts; error is UHCI_STS_SYSTEM or UHCI_STS_PROCESS, and why is logged. */
void uhci_fail(struct uhci *s, uint16_t error, const char *why);

/* ---- uhci_ports.c ---- */

void uhci_init_ports(struct uhci *s);
/* As after power-on: what is there has just come. */
void uhci_reset_ports(struct uhci *s);
/* Devices are reset, too. */
void uhci_reset_bus(struct uhci *s);
/* All of them at once. */
void uhci_bus_suspended(struct uhci *s);
/* Nothing is asked of devices any more. */
void uhci_stop_devices(struct uhci *s);
uint16_t uhci_read_port(const struct uhci *s, unsigned n);
void uhci_write_port(struct uhci *s, unsigned n, uint16_t value);
/*
 * Its ports, which are another controller's as well from now on; devices are plugged into those.
 * NULL: they are somebody's already.
 */
struct usb_port *uhci_share_ports(struct device *dev);
/* NULL: nobody that can be reached has this address. */
struct usb_device *uhci_device(struct uhci *s, uint8_t address);

/* ---- uhci_schedule.c ---- */

/* What the frame list holds for frames.number. True: something has moved. */
bool uhci_run_frame(struct device *dev);

#endif
