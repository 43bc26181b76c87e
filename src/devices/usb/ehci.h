/*
 * ehci.h - what the files of the EHCI controller share
 *
 * Enhanced Host Controller Interface Specification for Universal Serial Bus 1.0, "the
 * specification" below. ehci.c has the registers and the lifecycle, ehci_ports.c the root hub and
 * who owns its ports, ehci_schedule.c what is done in a frame.
 *
 * All calls with the machine lock held.
 */
#ifndef DEVICES_USB_EHCI_H
#define DEVICES_USB_EHCI_H

#include "devices/dma.h"
#include "devices/usb/frames.h"
#include "devices/usb/usb.h"
#include "trapeze/pci.h"

#define EHCI_PORTS          6u

/* Operational registers (2.3). */
#define EHCI_CMD_RUN        0x00000001u
#define EHCI_CMD_RESET      0x00000002u
#define EHCI_CMD_SIZE_SHIFT 2 /* of the frame list: 1024, 512 or 256 */
#define EHCI_CMD_SIZE       0x0000000cu
#define EHCI_CMD_PERIODIC   0x00000010u
#define EHCI_CMD_ASYNC      0x00000020u
#define EHCI_CMD_DOORBELL   0x00000040u
#define EHCI_CMD_THRESHOLD  0x00ff0000u
#define EHCI_STS_INT        0x00000001u
#define EHCI_STS_ERROR      0x00000002u
#define EHCI_STS_PORT       0x00000004u
#define EHCI_STS_ROLLOVER   0x00000008u
#define EHCI_STS_SYSTEM     0x00000010u /* error of the host system */
#define EHCI_STS_ADVANCED   0x00000020u
#define EHCI_STS_KEPT       0x0000003fu
#define EHCI_STS_HALTED     0x00001000u
#define EHCI_STS_PERIODIC   0x00004000u
#define EHCI_STS_ASYNC      0x00008000u

/* Of a port (2.3.9). That a device is there is seen from it. */
#define EHCI_PORT_CONNECTED 0x00000001u
#define EHCI_PORT_CHANGE    0x00000002u /* a device came or went */
#define EHCI_PORT_ENABLED   0x00000004u
#define EHCI_PORT_OFF       0x00000008u /* it was disabled by what happened */
#define EHCI_PORT_RESUME    0x00000040u
#define EHCI_PORT_SUSPEND   0x00000080u
#define EHCI_PORT_RESET     0x00000100u
#define EHCI_PORT_LINE_J    0x00000800u /* what a full or high speed device shows */
#define EHCI_PORT_LINE_K    0x00000400u /* low speed */
#define EHCI_PORT_POWER     0x00001000u
#define EHCI_PORT_COMPANION 0x00002000u /* it belongs to the companion */
#define EHCI_PORT_INDICATOR 0x0000c000u
#define EHCI_PORT_TEST      0x000f0000u
#define EHCI_PORT_WAKE      0x00700000u
#define EHCI_PORT_KEPT      0x007fe1ceu

struct ehci {
    struct pci_function function;

    /* Configuration. */
    struct usb_bus bus;
    struct usb_port ports[EHCI_PORTS];
    unsigned companions;

    /* Guest-visible state. */
    uint32_t command, status, interrupts;
    uint32_t periodic_list, async_list;
    bool is_configured; /* CONFIGFLAG: ports are its own */
    uint32_t port_status[EHCI_PORTS];
    struct usb_frames frames; /* its number and the time since then are FRINDEX */
    uint32_t last_frame;      /* that was looked at, whether the list has begun again since */

    struct dma_list list; /* of the transfer that is being done */
};

static inline struct ehci *ehci_of(struct device *dev)
{
    return container_of(dev, struct ehci, function.dev);
}

struct usb_bus *ehci_bus(struct device *dev);

/* ---- ehci.c ---- */

/* Status or what enables it may have changed. */
void ehci_update_interrupts(struct ehci *s);
/* It halts (4.15.2.4); why is logged. */
void ehci_fail(struct ehci *s, const char *why);

/* ---- ehci_ports.c ---- */

void ehci_init_ports(struct ehci *s);
/* The UHCI controllers of its slot, if there are any, have its ports as well. */
void ehci_find_companions(struct ehci *s);
void ehci_lose_companions(struct ehci *s);
/* As after power-on: what is there has just come. */
void ehci_reset_ports(struct ehci *s);
/* All ports become its own, or those of companions. */
void ehci_configure(struct ehci *s, bool is_configured);
/* Devices are where a loaded state says; nobody is told. */
void ehci_ports_loaded(struct ehci *s);
void ehci_stop_devices(struct ehci *s);
uint32_t ehci_read_port(const struct ehci *s, unsigned n);
void ehci_write_port(struct ehci *s, unsigned n, uint32_t value);
/* NULL: nobody that can be reached has this address. */
struct usb_device *ehci_device(struct ehci *s, uint8_t address);

/* ---- ehci_schedule.c ---- */

/* What is on the lists for frames.number. True: something has moved. */
bool ehci_run_frame(struct device *dev);

#endif
