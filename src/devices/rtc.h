/*
 * rtc.h - the MC146818 real-time clock and its CMOS memory as the board sees them
 */
#ifndef DEVICES_RTC_H
#define DEVICES_RTC_H

#include <stdbool.h>
#include <stdint.h>

#include "trapeze/device.h"

#define RTC_CMOS_SIZE 256

/* Ports 0x70-0x73. */
extern const struct device_class rtc_class;

/* ISA IRQ8, or number 8 of hpet_sink. */
struct irq_line *rtc_output(struct device *rtc);

/*
 * Set a byte of CMOS memory as firmware or a factory would; index 0x0e-0xff. Indexes of
 * the clock's own registers and the century byte (0x32) are ignored. Machine lock held.
 */
void rtc_set_cmos(struct device *rtc, unsigned index, uint8_t value);

/* Bit 7 of port 0x70: the board's NMI sources are masked. */
bool rtc_nmi_masked(const struct device *rtc);

#endif
