/*
 * rtc.c - MC146818 real-time clock with 256 bytes of CMOS memory
 *
 * After Motorola's MC146818 data sheet (ADI-856) with the PC's additions: index port 0x70
 * with the NMI mask in bit 7, data port 0x71, second bank of 128 bytes at ports 0x72-0x73 (Intel
 * ICH), century byte 0x32. Modelled: BCD and binary, 12 and 24 hours, SET, divider
 * reset, update in progress, periodic, alarm and update interrupts with don't-care codes.
 *
 * Left out: daylight saving (the bit is stored), the square wave output, other crystals than
 * 32768 Hz. An update takes no time: UIP is set in the 244 us before it and clear after.
 *
 * Theory of operation. The divider chain is the virtual clock plus phase_ns. Its whole
 * seconds plus second_offset are the calendar, seconds since 1970 UTC; registers 0-9
 * and 0x32 are computed when they are read. While SET is 1 or the divider is held in reset the
 * calendar stands still in the bytes of the CMOS memory, which is what the guest then
 * reads and writes; the end of that makes second_offset anew. Flags of register C are worked out
 * for the time since the last look (seen_ns), so that nothing needs to happen each second; a timer
 * is armed only for the next enabled interrupt while none is pending.
 *
 * The calendar starts at the wall clock's time when the device is attached and is kept by a
 * reset, as by a battery.
 *
 * Threads: machine lock.
 */
#include "devices/rtc.h"

#include <errno.h>

#include "base/log.h"
#include "trapeze/device.h"
#include "trapeze/machine.h"

#define REG_SECONDS          0x00u
#define REG_SECONDS_ALARM    0x01u
#define REG_MINUTES          0x02u
#define REG_MINUTES_ALARM    0x03u
#define REG_HOURS            0x04u
#define REG_HOURS_ALARM      0x05u
#define REG_WEEKDAY          0x06u
#define REG_DAY              0x07u
#define REG_MONTH            0x08u
#define REG_YEAR             0x09u
#define REG_A                0x0au
#define REG_B                0x0bu
#define REG_C                0x0cu
#define REG_D                0x0du
#define REG_CENTURY          0x32u

#define A_UIP                0x80u
#define A_DIVIDER_RESET      0x60u /* bits 6:5 set: the chain is held in reset */
#define A_RATE               0x0fu
#define A_DEFAULT            0x26u
#define B_SET                0x80u
#define B_PERIODIC           0x40u
#define B_ALARM              0x20u
#define B_UPDATE             0x10u
#define B_SQUARE_WAVE        0x08u
#define B_BINARY             0x04u
#define B_24_HOURS           0x02u
#define C_REQUEST            0x80u
#define C_FLAGS              0x70u /* same places as the enable bits of B */
#define D_VALID              0x80u

#define CMOS_SHUTDOWN_STATUS 0x0fu
#define SHUTDOWN_WAKES       0xfeu /* as SeaBIOS and OVMF read it */

#define NMI_MASK             0x80u
#define HOUR_PM              0x80u
#define DONT_CARE            0xc0u

#define CRYSTAL_HZ           32768u
#define UIP_NS               244000u
#define DAY_SECONDS          86400
#define SECOND_OFFSET_MAX    (INT64_C(1) << 40)

struct rtc {
    struct device dev;

    /* guest-visible state */
    uint8_t index;          /* port 0x70, bit 7 is the NMI mask */
    uint8_t extended_index; /* port 0x72 */
    uint8_t cmos[RTC_CMOS_SIZE];
    uint64_t phase_ns;      /* divider chain - virtual clock, modulo 2^64 */
    uint64_t second_offset; /* calendar - seconds of the divider chain, modulo 2^64 */
    uint64_t seen_ns;       /* divider chain when register C was last brought up to date */
    uint8_t weekday_offset; /* added to the true day of the week, 0-6 */
    struct irq_line irq;
    struct irq_line alarm; /* up while the alarm is one of the reasons for irq */
    struct timer timer;
};

/* A date as the registers hold it, with all values in plain binary. */
struct rtc_date {
    int64_t year;
    unsigned month, day; /* from 1 */
    unsigned hour, minute, second;
    unsigned weekday; /* 0 = Sunday */
};

static struct rtc *rtc_of(struct device *dev)
{
    return container_of(dev, struct rtc, dev);
}

/* ---- calendar arithmetic, proleptic Gregorian ---- */

static int64_t floor_divide(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

static int64_t floor_modulo(int64_t a, int64_t b)
{
    return a - floor_divide(a, b) * b;
}

/* Days from 1970-01-01 to the first of a month (0 = January); years count from March inside. */
static int64_t days_to_month(int64_t year, int64_t month)
{
    int64_t from_march = month - 2;
    int64_t y = year + floor_divide(from_march, 12);
    int64_t m = floor_modulo(from_march, 12);

    return 365 * y + floor_divide(y, 4) - floor_divide(y, 100) + floor_divide(y, 400) +
           (153 * m + 2) / 5 - 719468;
}

static struct rtc_date rtc_date_of(int64_t seconds)
{
    int64_t days = floor_divide(seconds, DAY_SECONDS);
    unsigned rest = (unsigned)floor_modulo(seconds, DAY_SECONDS);
    struct rtc_date date = {.year = floor_divide(days * 400, 146097) + 1970};
    unsigned month = 11;

    while (days_to_month(date.year, 0) > days)
        date.year--;
    while (days_to_month(date.year + 1, 0) <= days)
        date.year++;
    while (days_to_month(date.year, month) > days)
        month--;
    date.month = month + 1;
    date.day = (unsigned)(days - days_to_month(date.year, month)) + 1;
    date.hour = rest / 3600;
    date.minute = rest / 60 % 60;
    date.second = rest % 60;
    date.weekday = (unsigned)floor_modulo(days + 4, 7);
    return date;
}

/* Values outside their range carry over, as 61 seconds or day 0 would. */
static int64_t rtc_seconds_of(const struct rtc_date *date)
{
    int64_t days = days_to_month(date->year, (int64_t)date->month - 1) + date->day - 1;

    return days * DAY_SECONDS + date->hour * 3600 + date->minute * 60 + date->second;
}

/* ---- registers and numbers ---- */

static uint8_t rtc_encode(const struct rtc *s, unsigned value)
{
    if (s->cmos[REG_B] & B_BINARY)
        return (uint8_t)value;
    return (uint8_t)(value / 10 % 10 << 4 | value % 10);
}

static unsigned rtc_decode(const struct rtc *s, uint8_t raw)
{
    if (s->cmos[REG_B] & B_BINARY)
        return raw;
    return (raw >> 4) * 10u + (raw & 15);
}

static uint8_t rtc_encode_hour(const struct rtc *s, unsigned hour)
{
    uint8_t raw;

    if (s->cmos[REG_B] & B_24_HOURS)
        return rtc_encode(s, hour);
    raw = rtc_encode(s, hour % 12 ? hour % 12 : 12);
    return hour >= 12 ? raw | HOUR_PM : raw;
}

static unsigned rtc_decode_hour(const struct rtc *s, uint8_t raw)
{
    unsigned hour;

    if (s->cmos[REG_B] & B_24_HOURS)
        return rtc_decode(s, raw);
    hour = rtc_decode(s, raw & (uint8_t)~HOUR_PM);
    if (hour == 12)
        hour = 0;
    return raw & HOUR_PM ? hour + 12 : hour;
}

/* ---- time ---- */

static uint64_t rtc_divider_ns(struct rtc *s)
{
    return device_now_ns(&s->dev) + s->phase_ns;
}

static int64_t rtc_calendar(const struct rtc *s, uint64_t divider_ns)
{
    return (int64_t)(divider_ns / NANOSECONDS_PER_SECOND + s->second_offset);
}

static bool rtc_divider_stands(const struct rtc *s)
{
    return (s->cmos[REG_A] & A_DIVIDER_RESET) == A_DIVIDER_RESET;
}

/* The calendar stands still, in the CMOS bytes. */
static bool rtc_stands(const struct rtc *s)
{
    return (s->cmos[REG_B] & B_SET) || rtc_divider_stands(s);
}

/* Put the calendar into the CMOS bytes. */
static void rtc_store_calendar(struct rtc *s, uint64_t divider_ns)
{
    struct rtc_date date = rtc_date_of(rtc_calendar(s, divider_ns));
    unsigned year = (unsigned)floor_modulo(date.year, 10000);

    s->cmos[REG_SECONDS] = rtc_encode(s, date.second);
    s->cmos[REG_MINUTES] = rtc_encode(s, date.minute);
    s->cmos[REG_HOURS] = rtc_encode_hour(s, date.hour);
    s->cmos[REG_WEEKDAY] = rtc_encode(s, (date.weekday + s->weekday_offset) % 7 + 1);
    s->cmos[REG_DAY] = rtc_encode(s, date.day);
    s->cmos[REG_MONTH] = rtc_encode(s, date.month);
    s->cmos[REG_YEAR] = rtc_encode(s, year % 100);
    s->cmos[REG_CENTURY] = rtc_encode(s, year / 100);
}

/* Make the calendar from the CMOS bytes. */
static void rtc_load_calendar(struct rtc *s, uint64_t divider_ns)
{
    struct rtc_date date = {
        .year = rtc_decode(s, s->cmos[REG_CENTURY]) * 100 + rtc_decode(s, s->cmos[REG_YEAR]),
        .month = rtc_decode(s, s->cmos[REG_MONTH]),
        .day = rtc_decode(s, s->cmos[REG_DAY]),
        .hour = rtc_decode_hour(s, s->cmos[REG_HOURS]),
        .minute = rtc_decode(s, s->cmos[REG_MINUTES]),
        .second = rtc_decode(s, s->cmos[REG_SECONDS]),
    };
    int64_t seconds = rtc_seconds_of(&date);
    unsigned weekday = rtc_decode(s, s->cmos[REG_WEEKDAY]) + 6; /* 1 = Sunday */

    s->second_offset = (uint64_t)seconds - divider_ns / NANOSECONDS_PER_SECOND;
    s->weekday_offset = (uint8_t)((weekday + 7 - rtc_date_of(seconds).weekday) % 7);
}

/* ---- alarm ---- */

/* One alarm register: the value it waits for, -1 for any. */
static int rtc_alarm_value(uint8_t raw, unsigned decoded)
{
    return (raw & DONT_CARE) == DONT_CARE ? -1 : (int)decoded;
}

/* The first matching second after a moment, or INT64_MAX if the registers never match. */
static int64_t rtc_next_alarm(const struct rtc *s, int64_t after)
{
    uint8_t raw_second = s->cmos[REG_SECONDS_ALARM], raw_minute = s->cmos[REG_MINUTES_ALARM];
    uint8_t raw_hour = s->cmos[REG_HOURS_ALARM];
    int second = rtc_alarm_value(raw_second, rtc_decode(s, raw_second));
    int minute = rtc_alarm_value(raw_minute, rtc_decode(s, raw_minute));
    int hour = rtc_alarm_value(raw_hour, rtc_decode_hour(s, raw_hour));
    int64_t t = after + 1, end = after + 2 * DAY_SECONDS;

    if (second > 59 || minute > 59 || hour > 23)
        return INT64_MAX;
    while (t <= end) {
        int now = (int)floor_modulo(t, DAY_SECONDS);

        if (hour >= 0 && now / 3600 != hour)
            t += 3600 - now % 3600;
        else if (minute >= 0 && now / 60 % 60 != minute)
            t += 60 - now % 60;
        else if (second >= 0 && now % 60 != second)
            t += 1;
        else
            return t;
    }
    return INT64_MAX;
}

/* ---- periodic interrupt ---- */

/* Crystal ticks of a period; 0: off. Rates 1 and 2 are those of 8 and 9. */
static uint64_t rtc_period_ticks(const struct rtc *s)
{
    unsigned rate = s->cmos[REG_A] & A_RATE;

    if (rate == 0)
        return 0;
    return 1ull << (rate < 3 ? rate + 6 : rate - 1);
}

static uint64_t rtc_ticks(uint64_t divider_ns)
{
    uint64_t seconds = divider_ns / NANOSECONDS_PER_SECOND;
    uint64_t rest_ns = divider_ns % NANOSECONDS_PER_SECOND;

    return seconds * CRYSTAL_HZ + rest_ns * CRYSTAL_HZ / NANOSECONDS_PER_SECOND;
}

static uint64_t rtc_ticks_ns(uint64_t ticks)
{
    uint64_t rest_ns = ticks % CRYSTAL_HZ * NANOSECONDS_PER_SECOND;

    return ticks / CRYSTAL_HZ * NANOSECONDS_PER_SECOND + (rest_ns + CRYSTAL_HZ - 1) / CRYSTAL_HZ;
}

/* ---- interrupts ---- */

/* When the next flag is set whose interrupt is enabled, as time of the divider chain. */
static uint64_t rtc_next_event_ns(const struct rtc *s)
{
    uint64_t second = s->seen_ns / NANOSECONDS_PER_SECOND, event_ns = CLOCK_NEVER;
    uint64_t period = rtc_period_ticks(s);
    uint8_t enabled = s->cmos[REG_B];

    if ((enabled & B_PERIODIC) && period && !rtc_divider_stands(s))
        event_ns = rtc_ticks_ns((rtc_ticks(s->seen_ns) / period + 1) * period);
    if (rtc_stands(s))
        return event_ns;
    int64_t wait = INT64_MAX;
    if (enabled & B_ALARM) {
        int64_t now = rtc_calendar(s, s->seen_ns), alarm = rtc_next_alarm(s, now);

        wait = alarm == INT64_MAX ? alarm : alarm - now;
    }
    if (enabled & B_UPDATE)
        wait = 1;
    if (wait != INT64_MAX) {
        uint64_t second_ns = (second + (uint64_t)wait) * NANOSECONDS_PER_SECOND;

        event_ns = second_ns < event_ns ? second_ns : event_ns;
    }
    return event_ns;
}

static bool rtc_alarm_level(const struct rtc *s)
{
    return s->cmos[REG_B] & s->cmos[REG_C] & B_ALARM;
}

static void rtc_update_irq(struct rtc *s)
{
    bool request = s->cmos[REG_B] & s->cmos[REG_C] & C_FLAGS;
    uint64_t event_ns = request ? CLOCK_NEVER : rtc_next_event_ns(s);

    if (request)
        s->cmos[REG_C] |= C_REQUEST;
    if (request != s->irq.level)
        irq_set(&s->irq, request);
    if (rtc_alarm_level(s) != s->alarm.level)
        irq_set(&s->alarm, !s->alarm.level);
    timer_arm(&s->timer, event_ns == CLOCK_NEVER ? CLOCK_NEVER : event_ns - s->phase_ns);
}

/* Set the flags of everything that happened since the last look. */
static void rtc_catch_up(struct rtc *s)
{
    uint64_t before_ns = s->seen_ns, now_ns = rtc_divider_ns(s);
    uint64_t period = rtc_period_ticks(s);
    int64_t before = rtc_calendar(s, before_ns), now = rtc_calendar(s, now_ns);

    if (!rtc_divider_stands(s) && period &&
        rtc_ticks(now_ns) / period > rtc_ticks(before_ns) / period)
        s->cmos[REG_C] |= B_PERIODIC;
    if (!rtc_stands(s) && now > before) {
        s->cmos[REG_C] |= B_UPDATE;
        if (rtc_next_alarm(s, before) <= now)
            s->cmos[REG_C] |= B_ALARM;
    }
    s->seen_ns = now_ns;
}

static void rtc_fire(void *opaque)
{
    struct rtc *s = opaque;

    rtc_catch_up(s);
    rtc_update_irq(s);
}

struct irq_line *rtc_output(struct device *rtc)
{
    return &rtc_of(rtc)->irq;
}

/* ---- registers ---- */

static bool rtc_is_calendar(unsigned index)
{
    return index == REG_CENTURY || (index <= REG_YEAR && index != REG_SECONDS_ALARM &&
                                    index != REG_MINUTES_ALARM && index != REG_HOURS_ALARM);
}

static uint8_t rtc_read_a(struct rtc *s)
{
    uint64_t position_ns = s->seen_ns % NANOSECONDS_PER_SECOND;
    bool updating = !rtc_stands(s) && position_ns >= NANOSECONDS_PER_SECOND - UIP_NS;

    return s->cmos[REG_A] | (updating ? A_UIP : 0);
}

static uint8_t rtc_read_c(struct rtc *s)
{
    uint8_t value = s->cmos[REG_C];

    s->cmos[REG_C] = 0;
    rtc_update_irq(s);
    return value;
}

static uint8_t rtc_read_cmos(struct rtc *s, unsigned index)
{
    rtc_catch_up(s);
    rtc_update_irq(s);
    if (rtc_is_calendar(index) && !rtc_stands(s))
        rtc_store_calendar(s, s->seen_ns);
    if (index == REG_A)
        return rtc_read_a(s);
    if (index == REG_C)
        return rtc_read_c(s);
    if (index == REG_D)
        return D_VALID;
    return s->cmos[index];
}

/* Registers A and B decide whether the calendar and the divider run. */
static void rtc_write_control(struct rtc *s, unsigned index, uint8_t value)
{
    bool stood = rtc_stands(s), divider_stood = rtc_divider_stands(s);

    if (!stood)
        rtc_store_calendar(s, s->seen_ns);
    s->cmos[index] = value;
    if (divider_stood && !rtc_divider_stands(s)) {
        /* The first update comes half a second after the chain is let go. */
        s->phase_ns += NANOSECONDS_PER_SECOND / 2 - s->seen_ns % NANOSECONDS_PER_SECOND;
        s->seen_ns = rtc_divider_ns(s);
    }
    if (stood && !rtc_stands(s))
        rtc_load_calendar(s, s->seen_ns);
}

static void rtc_write_b(struct rtc *s, uint8_t value)
{
    if (value & B_SET)
        value &= (uint8_t)~B_UPDATE;
    rtc_write_control(s, REG_B, value);
}

static void rtc_write_calendar(struct rtc *s, unsigned index, uint8_t value)
{
    bool stands = rtc_stands(s);

    if (!stands)
        rtc_store_calendar(s, s->seen_ns);
    s->cmos[index] = value;
    if (!stands)
        rtc_load_calendar(s, s->seen_ns);
}

static void rtc_write_cmos(struct rtc *s, unsigned index, uint8_t value)
{
    rtc_catch_up(s);
    if (rtc_is_calendar(index))
        rtc_write_calendar(s, index, value);
    else if (index == REG_A)
        rtc_write_control(s, REG_A, value & (uint8_t)~A_UIP);
    else if (index == REG_B)
        rtc_write_b(s, value);
    else if (index != REG_C && index != REG_D)
        s->cmos[index] = value;
    rtc_update_irq(s);
}

void rtc_set_cmos(struct device *rtc, unsigned index, uint8_t value)
{
    if (index > REG_D && index < RTC_CMOS_SIZE && index != REG_CENTURY)
        rtc_of(rtc)->cmos[index] = value;
}

bool rtc_nmi_masked(const struct device *rtc)
{
    return rtc_of((struct device *)rtc)->index & NMI_MASK;
}

/* ---- ports ---- */

static uint64_t rtc_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct rtc *s = rtc_of(dev);

    if (offset == 1)
        return rtc_read_cmos(s, s->index & 0x7f);
    if (offset == 3)
        return rtc_read_cmos(s, s->extended_index | 0x80u);
    return 0xff; /* the index ports cannot be read */
}

static void rtc_write(struct device *dev, uint64_t offset, uint64_t value, unsigned size)
{
    struct rtc *s = rtc_of(dev);

    if (offset == 0)
        s->index = (uint8_t)value;
    else if (offset == 1)
        rtc_write_cmos(s, s->index & 0x7f, (uint8_t)value);
    else if (offset == 2)
        s->extended_index = value & 0x7f;
    else
        rtc_write_cmos(s, s->extended_index | 0x80u, (uint8_t)value);
}

static const struct region_ops rtc_ports = {
    .name = "rtc",
    .read = rtc_read,
    .write = rtc_write,
    .min_size = 1,
    .max_size = 1,
};

/* ---- class ---- */

static int rtc_attach(struct device *dev, struct error *err)
{
    struct rtc *s = rtc_of(dev);

    timer_init(&s->timer, device_clocks(dev), CLOCK_ID_VIRTUAL, rtc_fire, s);
    s->phase_ns = clock_now_ns(device_clocks(dev), CLOCK_ID_WALL) - device_now_ns(dev);
    s->seen_ns = rtc_divider_ns(s);
    s->cmos[REG_A] = A_DEFAULT;
    s->cmos[REG_B] = B_24_HOURS;
    return device_map_ports(dev, 0x70, 4, &rtc_ports, err);
}

static void rtc_detach(struct device *dev)
{
    timer_done(&rtc_of(dev)->timer);
}

/*
 * The RESET pin: interrupts off; memory and calendar are kept. It is not pulled when the machine
 * wakes (Intel ICH9, 13.6.2: the wells of registers B and C), which firmware learns from the
 * shutdown status.
 */
static void rtc_reset(struct device *dev)
{
    struct rtc *s = rtc_of(dev);

    s->index = 0;
    s->extended_index = 0;
    if (machine_is_waking(dev->machine)) {
        s->cmos[CMOS_SHUTDOWN_STATUS] = SHUTDOWN_WAKES;
        return;
    }
    s->seen_ns = rtc_divider_ns(s); /* flags of what came before are gone */
    s->cmos[REG_B] &= (uint8_t) ~(B_PERIODIC | B_ALARM | B_UPDATE | B_SQUARE_WAVE);
    s->cmos[REG_C] = 0;
    timer_cancel(&s->timer);
}

static void rtc_reset_done(struct device *dev)
{
    struct rtc *s = rtc_of(dev);

    irq_set(&s->irq, s->cmos[REG_C] & C_REQUEST);
    irq_set(&s->alarm, rtc_alarm_level(s));
}

static int rtc_after_load(void *object, struct error *err)
{
    struct rtc *s = object;

    int64_t offset = (int64_t)s->second_offset;

    /* No guest gets further than the year 25755; the calendar's arithmetic relies on it. */
    if (offset > SECOND_OFFSET_MAX || offset < -SECOND_OFFSET_MAX)
        return error_set(err, EINVAL, "rtc: the calendar is %" PRId64 " s from the clock", offset);
    s->cmos[REG_A] &= (uint8_t)~A_UIP;
    return 0;
}

static const struct state_field rtc_state[] = {
    STATE_U8(struct rtc, index),
    STATE_U8_MAX(struct rtc, extended_index, 0x7f),
    STATE_BYTES(struct rtc, cmos),
    STATE_U64(struct rtc, phase_ns),
    STATE_U64(struct rtc, second_offset),
    STATE_U64(struct rtc, seen_ns),
    STATE_U8_MAX(struct rtc, weekday_offset, 6),
    STATE_LINE(struct rtc, irq),
    STATE_LINE(struct rtc, alarm),
    STATE_TIMER(struct rtc, timer),
    STATE_END,
};

static const struct device_output rtc_outputs[] = {
    DEVICE_OUTPUT(struct rtc, irq),
    DEVICE_OUTPUT(struct rtc, alarm),
    DEVICE_OUTPUT_END,
};

const struct device_class rtc_class = {
    .name = "rtc",
    .summary = "MC146818 real-time clock and CMOS memory",
    .bus = BUS_PLATFORM,
    .instance_size = sizeof(struct rtc),
    .outputs = rtc_outputs,
    .attach = rtc_attach,
    .reset = rtc_reset,
    .reset_done = rtc_reset_done,
    .detach = rtc_detach,
    .state = {.version = 1, .oldest = 1, .fields = rtc_state, .after_load = rtc_after_load},
};
