/*
 * uart16550.c - serial port with a 16550A UART
 *
 * Modelled after the National Semiconductor PC16550D data sheet (June 1995):
 * all registers, 16-byte FIFOs with trigger levels and character timeout, loopback
 * with modem lines, break, and the interrupt priorities of its table IV.
 *
 * Theory of operation. A byte written to THR goes to the transmit FIFO and from
 * there to the chardev at once; what the chardev does not take stays in the FIFO, THRE
 * stays low, and can_send drains it later, so a guest that looks at LSR loses nothing.
 * Received bytes are asked for only while the receive FIFO has room. With the
 * property "pace" a byte leaves, and may arrive, only once per character time.
 * The interrupt output is level = "IIR has something"; on a PC, OUT2 gates it, and that is the
 * property "out2-gates-irq" (off, because small kernels written on emulators forget OUT2).
 *
 * Left out: DMA modes (FCR bit 3 is stored only), parity and framing errors other
 * than through break, and the effect of the line format on 8-bit data.
 *
 * Threads: machine lock. Guest memory: not touched.
 */
#include <string.h>

#include "devices/devices.h"
#include "trapeze/chardev.h"
#include "trapeze/machine.h"

#define UART_CLOCK_HZ      1843200u
#define UART_FIFO_SIZE     16
#define UART_PORT_COUNT    8
#define UART_TIMEOUT_CHARS 4

enum uart_register {
    UART_DATA, /* RBR, THR; with DLAB: divisor low */
    UART_IER,  /* with DLAB: divisor high */
    UART_IIR,  /* write: FCR */
    UART_LCR,
    UART_MCR,
    UART_LSR,
    UART_MSR,
    UART_SCR,
};

#define IER_RECEIVED    0x01u
#define IER_THRE        0x02u
#define IER_LINE        0x04u
#define IER_MODEM       0x08u
#define IER_MASK        0x0fu

#define IIR_NONE        0x01u
#define IIR_MODEM       0x00u
#define IIR_THRE        0x02u
#define IIR_RECEIVED    0x04u
#define IIR_LINE        0x06u
#define IIR_TIMEOUT     0x0cu
#define IIR_FIFOS       0xc0u

#define FCR_ENABLE      0x01u
#define FCR_CLEAR_RX    0x02u
#define FCR_CLEAR_TX    0x04u
#define FCR_STORED      0xc9u

#define LCR_WORD        0x03u
#define LCR_STOP2       0x04u
#define LCR_PARITY      0x08u
#define LCR_BREAK       0x40u
#define LCR_DLAB        0x80u

#define MCR_DTR         0x01u
#define MCR_RTS         0x02u
#define MCR_OUT1        0x04u
#define MCR_OUT2        0x08u
#define MCR_LOOP        0x10u
#define MCR_MASK        0x1fu

#define LSR_READY       0x01u
#define LSR_OVERRUN     0x02u
#define LSR_PARITY      0x04u
#define LSR_FRAMING     0x08u
#define LSR_BREAK       0x10u
#define LSR_THRE        0x20u
#define LSR_TEMT        0x40u
#define LSR_FIFO_ERROR  0x80u
#define LSR_CHAR_ERRORS (LSR_PARITY | LSR_FRAMING | LSR_BREAK)
#define LSR_ERRORS      (LSR_OVERRUN | LSR_CHAR_ERRORS)

#define MSR_DELTA_CTS   0x01u
#define MSR_DELTA_DSR   0x02u
#define MSR_RING_ENDED  0x04u
#define MSR_DELTA_DCD   0x08u
#define MSR_DELTAS      0x0fu
#define MSR_CTS         0x10u
#define MSR_DSR         0x20u
#define MSR_RI          0x40u
#define MSR_DCD         0x80u
#define MSR_LINES       0xf0u

struct uart_fifo {
    uint8_t data[UART_FIFO_SIZE];
    uint8_t errors[UART_FIFO_SIZE]; /* LSR_CHAR_ERRORS that came with the byte */
    uint8_t head;                   /* index of the oldest */
    uint8_t count;
};

struct uart16550 {
    struct device dev;

    /* Configuration. */
    uint16_t port;
    struct chardev *chardev;
    bool pace;
    bool out2_gates_irq;
    struct chardev_frontend frontend;

    /* Guest-visible state. */
    struct irq_line irq;
    uint16_t divisor;
    uint8_t ier, fcr, lcr, mcr, scr;
    uint8_t lsr; /* overrun and the errors of the byte at the head; the rest is derived */
    uint8_t msr;
    bool thre_pending;    /* THR became empty and IIR has not told so */
    bool timeout_pending; /* bytes have waited for four character times */
    bool line_busy;       /* paced: the shift register is sending */
    struct uart_fifo rx, tx;
    struct timer rx_timeout; /* armed while bytes below the trigger level wait */
    struct timer tx_done;    /* paced: end of the character on the line */
    struct timer rx_gap;     /* paced: the next character may arrive */
};

static struct uart16550 *uart_of(struct device *dev)
{
    return container_of(dev, struct uart16550, dev);
}

/* ---- FIFOs ---- */

static void fifo_clear(struct uart_fifo *fifo)
{
    fifo->head = 0;
    fifo->count = 0;
}

static void fifo_push(struct uart_fifo *fifo, uint8_t byte, uint8_t errors)
{
    unsigned slot = (fifo->head + fifo->count) % UART_FIFO_SIZE;

    fifo->data[slot] = byte;
    fifo->errors[slot] = errors;
    fifo->count++;
}

static uint8_t fifo_pop(struct uart_fifo *fifo)
{
    uint8_t byte = fifo->data[fifo->head];

    fifo->head = (fifo->head + 1) % UART_FIFO_SIZE;
    fifo->count--;
    return byte;
}

static bool fifo_has_error(const struct uart_fifo *fifo)
{
    for (unsigned i = 0; i < fifo->count; i++)
        if (fifo->errors[(fifo->head + i) % UART_FIFO_SIZE])
            return true;
    return false;
}

static unsigned uart_depth(const struct uart16550 *s)
{
    return s->fcr & FCR_ENABLE ? UART_FIFO_SIZE : 1;
}

static unsigned uart_trigger(const struct uart16550 *s)
{
    static const uint8_t levels[4] = {1, 4, 8, 14};

    return s->fcr & FCR_ENABLE ? levels[s->fcr >> 6] : 1;
}

/* ---- time ---- */

/* One character on the line: start bit, data, parity and stop bits. */
static uint64_t uart_character_ns(const struct uart16550 *s)
{
    unsigned half_bits = 2 * (1 + 5 + (s->lcr & LCR_WORD) + 1);
    uint64_t divisor = s->divisor ? s->divisor : 0x10000;

    if (s->lcr & LCR_PARITY)
        half_bits += 2;
    if (s->lcr & LCR_STOP2)
        half_bits += s->lcr & LCR_WORD ? 2 : 1;
    return half_bits * divisor * 16 * NANOSECONDS_PER_SECOND / (2 * UART_CLOCK_HZ);
}

/* Bytes below the trigger level raise an interrupt after four character times of silence. */
static void uart_restart_timeout(struct uart16550 *s)
{
    if ((s->fcr & FCR_ENABLE) && s->rx.count)
        timer_arm(&s->rx_timeout,
                  device_now_ns(&s->dev) + UART_TIMEOUT_CHARS * uart_character_ns(s));
    else
        timer_cancel(&s->rx_timeout);
}

/* ---- registers that are derived ---- */

static uint8_t uart_line_status(const struct uart16550 *s)
{
    uint8_t lsr = s->lsr;

    if (s->rx.count)
        lsr |= LSR_READY;
    if (!s->tx.count)
        lsr |= LSR_THRE;
    if (!s->tx.count && !s->line_busy)
        lsr |= LSR_TEMT;
    if ((s->fcr & FCR_ENABLE) && ((s->lsr & LSR_CHAR_ERRORS) || fifo_has_error(&s->rx)))
        lsr |= LSR_FIFO_ERROR;
    return lsr;
}

/* The pending interrupt of highest priority. */
static uint8_t uart_interrupt_id(const struct uart16550 *s)
{
    if ((s->ier & IER_LINE) && (s->lsr & LSR_ERRORS))
        return IIR_LINE;
    if ((s->ier & IER_RECEIVED) && s->rx.count >= uart_trigger(s))
        return IIR_RECEIVED;
    if ((s->ier & IER_RECEIVED) && s->timeout_pending)
        return IIR_TIMEOUT;
    if ((s->ier & IER_THRE) && s->thre_pending)
        return IIR_THRE;
    if ((s->ier & IER_MODEM) && (s->msr & MSR_DELTAS))
        return IIR_MODEM;
    return IIR_NONE;
}

static void uart_update_irq(struct uart16550 *s)
{
    bool level = uart_interrupt_id(s) != IIR_NONE;

    if (s->out2_gates_irq && (!(s->mcr & MCR_OUT2) || (s->mcr & MCR_LOOP)))
        level = false;
    if (level != s->irq.level)
        irq_set(&s->irq, level);
}

/* Modem inputs: crossed outputs in loopback, else whether somebody is at the other end. */
static uint8_t uart_modem_lines(const struct uart16550 *s)
{
    uint8_t lines = 0;

    if (!(s->mcr & MCR_LOOP))
        return !s->chardev || s->chardev->connected ? MSR_CTS | MSR_DSR | MSR_DCD : 0;
    if (s->mcr & MCR_RTS)
        lines |= MSR_CTS;
    if (s->mcr & MCR_DTR)
        lines |= MSR_DSR;
    if (s->mcr & MCR_OUT1)
        lines |= MSR_RI;
    if (s->mcr & MCR_OUT2)
        lines |= MSR_DCD;
    return lines;
}

static void uart_update_modem(struct uart16550 *s)
{
    uint8_t lines = uart_modem_lines(s);
    uint8_t changed = (s->msr ^ lines) & MSR_LINES;

    if (changed & MSR_CTS)
        s->msr |= MSR_DELTA_CTS;
    if (changed & MSR_DSR)
        s->msr |= MSR_DELTA_DSR;
    if (changed & MSR_DCD)
        s->msr |= MSR_DELTA_DCD;
    if ((changed & MSR_RI) && !(lines & MSR_RI))
        s->msr |= MSR_RING_ENDED;
    s->msr = (s->msr & MSR_DELTAS) | lines;
    uart_update_irq(s);
}

/* ---- receiver ---- */

/* The errors of a byte show in LSR when it gets to the head of the FIFO. */
static void uart_reveal_errors(struct uart16550 *s)
{
    if (s->rx.count) {
        s->lsr |= s->rx.errors[s->rx.head];
        s->rx.errors[s->rx.head] = 0;
    }
}

/* An overrun keeps the FIFO's contents, but without FIFO the new byte replaces the old one. */
static void uart_receive_byte(struct uart16550 *s, uint8_t byte, uint8_t errors)
{
    if (s->rx.count >= uart_depth(s)) {
        s->lsr |= LSR_OVERRUN;
        if (s->fcr & FCR_ENABLE)
            return;
        fifo_clear(&s->rx);
    }
    fifo_push(&s->rx, byte, errors);
    uart_reveal_errors(s);
    uart_restart_timeout(s);
}

static void uart_rx_timed_out(void *opaque)
{
    struct uart16550 *s = opaque;

    s->timeout_pending = s->rx.count > 0;
    uart_update_irq(s);
}

/* ---- transmitter ---- */

static void uart_line_free(struct uart16550 *s);

static void uart_thr_emptied(struct uart16550 *s)
{
    if (!s->tx.count)
        s->thre_pending = true;
}

/* Give one byte to the line; false if it cannot take it now. */
static bool uart_send_byte(struct uart16550 *s, uint8_t byte)
{
    if (s->mcr & MCR_LOOP) {
        uart_receive_byte(s, byte, 0);
        return true;
    }
    return chardev_send(s->chardev, &byte, 1) == 1;
}

/* Move bytes from the FIFO to the line until one of them is empty or busy. */
static void uart_transmit(struct uart16550 *s)
{
    while (s->tx.count && !s->line_busy) {
        if (!uart_send_byte(s, s->tx.data[s->tx.head]))
            return;
        fifo_pop(&s->tx);
        uart_thr_emptied(s);
        if (s->pace) {
            s->line_busy = true;
            timer_arm(&s->tx_done, device_now_ns(&s->dev) + uart_character_ns(s));
        }
    }
}

static void uart_line_free(struct uart16550 *s)
{
    s->line_busy = false;
    uart_transmit(s);
    uart_update_irq(s);
}

static void uart_tx_done(void *opaque)
{
    uart_line_free(opaque);
}

/* ---- the chardev's side ---- */

static size_t uart_can_receive(void *opaque)
{
    struct uart16550 *s = opaque;
    unsigned depth = uart_depth(s);

    if ((s->mcr & MCR_LOOP) || s->rx.count >= depth)
        return 0;
    if (s->pace)
        return timer_is_armed(&s->rx_gap) ? 0 : 1;
    return depth - s->rx.count;
}

static void uart_receive(void *opaque, const uint8_t *data, size_t size_bytes)
{
    struct uart16550 *s = opaque;

    for (size_t i = 0; i < size_bytes; i++)
        uart_receive_byte(s, data[i], 0);
    if (s->pace)
        timer_arm(&s->rx_gap, device_now_ns(&s->dev) + uart_character_ns(s));
    uart_update_irq(s);
}

static void uart_rx_gap_over(void *opaque)
{
    struct uart16550 *s = opaque;

    chardev_accept_input(s->chardev);
}

static void uart_can_send(void *opaque)
{
    struct uart16550 *s = opaque;

    uart_transmit(s);
    uart_update_irq(s);
}

static void uart_hang_up(void *opaque, bool connected)
{
    (void)connected;
    uart_update_modem(opaque);
}

static void uart_receive_break(void *opaque)
{
    struct uart16550 *s = opaque;

    if (s->mcr & MCR_LOOP)
        return;
    uart_receive_byte(s, 0, LSR_BREAK | LSR_FRAMING);
    uart_update_irq(s);
}

/* ---- register reads ---- */

static uint8_t uart_read_data(struct uart16550 *s)
{
    uint8_t byte;

    if (!s->rx.count)
        return s->rx.data[(s->rx.head + UART_FIFO_SIZE - 1) % UART_FIFO_SIZE];
    byte = fifo_pop(&s->rx);
    s->timeout_pending = false;
    uart_reveal_errors(s);
    uart_restart_timeout(s);
    uart_update_irq(s);
    if (!s->rx.count)
        chardev_accept_input(s->chardev);
    return byte;
}

static uint8_t uart_read_iir(struct uart16550 *s)
{
    uint8_t id = uart_interrupt_id(s);

    if (id == IIR_THRE) {
        s->thre_pending = false;
        uart_update_irq(s);
    }
    return id | (s->fcr & FCR_ENABLE ? IIR_FIFOS : 0);
}

static uint8_t uart_read_lsr(struct uart16550 *s)
{
    uint8_t lsr = uart_line_status(s);

    if (s->lsr & LSR_ERRORS) {
        s->lsr &= (uint8_t)~LSR_ERRORS;
        uart_update_irq(s);
    }
    return lsr;
}

static uint8_t uart_read_msr(struct uart16550 *s)
{
    uint8_t msr = s->msr;

    s->msr &= (uint8_t)~MSR_DELTAS;
    uart_update_irq(s);
    return msr;
}

static uint64_t uart_read(struct device *dev, uint64_t offset, unsigned size)
{
    struct uart16550 *s = uart_of(dev);
    bool dlab = s->lcr & LCR_DLAB;

    (void)size;
    switch (offset) {
    case UART_DATA:
        return dlab ? s->divisor & 0xff : uart_read_data(s);
    case UART_IER:
        return dlab ? s->divisor >> 8 : s->ier;
    case UART_IIR:
        return uart_read_iir(s);
    case UART_LCR:
        return s->lcr;
    case UART_MCR:
        return s->mcr;
    case UART_LSR:
        return uart_read_lsr(s);
    case UART_MSR:
        return uart_read_msr(s);
    default:
        return s->scr;
    }
}

/* ---- register writes ---- */

/*
 * A full FIFO drops the new byte; a THR without FIFO is overwritten. The interrupt goes
 * away for a moment even when the line takes the byte at once: edge-triggered
 * controllers must see that THR became empty once more.
 */
static void uart_write_data(struct uart16550 *s, uint8_t byte)
{
    s->thre_pending = false;
    uart_update_irq(s);
    if (s->tx.count >= uart_depth(s)) {
        if (!(s->fcr & FCR_ENABLE))
            s->tx.data[s->tx.head] = byte;
    } else {
        fifo_push(&s->tx, byte, 0);
    }
    uart_transmit(s);
    uart_update_irq(s);
}

/* Switching the THRE interrupt on while THR is empty raises it at once. */
static void uart_write_ier(struct uart16550 *s, uint8_t value)
{
    uint8_t switched_on = value & IER_MASK & (uint8_t)~s->ier;

    s->ier = value & IER_MASK;
    if ((switched_on & IER_THRE) && !s->tx.count)
        s->thre_pending = true;
    uart_update_irq(s);
}

static void uart_clear_rx(struct uart16550 *s)
{
    fifo_clear(&s->rx);
    s->timeout_pending = false;
    s->lsr &= (uint8_t)~LSR_CHAR_ERRORS;
    timer_cancel(&s->rx_timeout);
}

static void uart_clear_tx(struct uart16550 *s)
{
    fifo_clear(&s->tx);
    uart_thr_emptied(s);
}

/* Switching FIFOs on or off empties both; the other bits need the enable bit beside them. */
static void uart_write_fcr(struct uart16550 *s, uint8_t value)
{
    bool switched = (s->fcr ^ value) & FCR_ENABLE;

    if (!(value & FCR_ENABLE))
        value = 0;
    if (switched || (value & FCR_CLEAR_RX))
        uart_clear_rx(s);
    if (switched || (value & FCR_CLEAR_TX))
        uart_clear_tx(s);
    s->fcr = value & FCR_STORED;
    uart_update_irq(s);
    chardev_accept_input(s->chardev);
}

/* The break condition reaches the own receiver in loopback; a chardev has no such thing. */
static void uart_write_lcr(struct uart16550 *s, uint8_t value)
{
    bool break_begins = (value & LCR_BREAK) && !(s->lcr & LCR_BREAK);

    s->lcr = value;
    if (break_begins && (s->mcr & MCR_LOOP))
        uart_receive_byte(s, 0, LSR_BREAK | LSR_FRAMING);
    uart_update_irq(s);
}

static void uart_write_mcr(struct uart16550 *s, uint8_t value)
{
    bool loop_ends = (s->mcr & MCR_LOOP) && !(value & MCR_LOOP);

    s->mcr = value & MCR_MASK;
    uart_update_modem(s);
    if (loop_ends)
        chardev_accept_input(s->chardev);
}

static void uart_write_divisor(struct uart16550 *s, unsigned shift, uint8_t value)
{
    s->divisor = (uint16_t)((s->divisor & ~(0xffu << shift)) | (unsigned)value << shift);
}

static void uart_write(struct device *dev, uint64_t offset, uint64_t value64, unsigned size)
{
    struct uart16550 *s = uart_of(dev);
    uint8_t value = (uint8_t)value64;
    bool dlab = s->lcr & LCR_DLAB;

    (void)size;
    switch (offset) {
    case UART_DATA:
        if (dlab)
            uart_write_divisor(s, 0, value);
        else
            uart_write_data(s, value);
        break;
    case UART_IER:
        if (dlab)
            uart_write_divisor(s, 8, value);
        else
            uart_write_ier(s, value);
        break;
    case UART_IIR:
        uart_write_fcr(s, value);
        break;
    case UART_LCR:
        uart_write_lcr(s, value);
        break;
    case UART_MCR:
        uart_write_mcr(s, value);
        break;
    case UART_SCR:
        s->scr = value;
        break;
    default: /* LSR is for factory tests, MSR is read-only */
        break;
    }
}

static const struct region_ops uart_ports = {
    .name = "uart16550",
    .read = uart_read,
    .write = uart_write,
    .min_size = 1,
    .max_size = 1,
};

/* ---- lifecycle ---- */

static int uart_attach(struct device *dev, struct error *err)
{
    struct uart16550 *s = uart_of(dev);
    struct clocks *clocks = device_clocks(dev);

    timer_init(&s->rx_timeout, clocks, CLOCK_ID_VIRTUAL, uart_rx_timed_out, s);
    timer_init(&s->tx_done, clocks, CLOCK_ID_VIRTUAL, uart_tx_done, s);
    timer_init(&s->rx_gap, clocks, CLOCK_ID_VIRTUAL, uart_rx_gap_over, s);
    s->frontend = (struct chardev_frontend){
        .can_receive = uart_can_receive,
        .receive = uart_receive,
        .can_send = uart_can_send,
        .hang_up = uart_hang_up,
        .receive_break = uart_receive_break,
        .opaque = s,
    };
    if (s->chardev)
        chardev_connect(s->chardev, &s->frontend);
    return device_map_ports(dev, s->port, UART_PORT_COUNT, &uart_ports, err);
}

static void uart_detach(struct device *dev)
{
    struct uart16550 *s = uart_of(dev);

    if (s->chardev && s->chardev->frontend == &s->frontend)
        chardev_connect(s->chardev, NULL);
    if (s->rx_timeout.clocks) {
        timer_done(&s->rx_timeout);
        timer_done(&s->tx_done);
        timer_done(&s->rx_gap);
    }
}

/* Master reset (data sheet, table I); 9600 baud, 8N1 is what firmware would leave behind. */
static void uart_reset(struct device *dev)
{
    struct uart16550 *s = uart_of(dev);

    s->divisor = 12;
    s->ier = s->fcr = s->mcr = s->scr = s->lsr = 0;
    s->lcr = 3;
    s->msr = uart_modem_lines(s);
    s->thre_pending = s->timeout_pending = s->line_busy = false;
    memset(&s->rx, 0, sizeof(s->rx));
    memset(&s->tx, 0, sizeof(s->tx));
    timer_cancel(&s->rx_timeout);
    timer_cancel(&s->tx_done);
    timer_cancel(&s->rx_gap);
}

static void uart_reset_done(struct device *dev)
{
    struct uart16550 *s = uart_of(dev);

    irq_set(&s->irq, false);
    chardev_accept_input(s->chardev);
}

static void uart_resume(struct device *dev)
{
    struct uart16550 *s = uart_of(dev);

    uart_can_send(s);
    chardev_accept_input(s->chardev);
}

static int uart_after_load(void *object, struct error *err)
{
    struct uart16550 *s = object;

    (void)err;
    if (s->rx.count > uart_depth(s))
        s->rx.count = (uint8_t)uart_depth(s);
    if (s->tx.count > uart_depth(s))
        s->tx.count = (uint8_t)uart_depth(s);
    return 0;
}

static const struct property uart_properties[] = {
    PROPERTY_U16(struct uart16550, port, 0x3f8, "first of eight I/O ports"),
    PROPERTY_BOOL(struct uart16550, pace, false, "send and receive no faster than the baud rate"),
    PROPERTY_BOOL(struct uart16550, out2_gates_irq, false,
                  "interrupts only while modem output OUT2 is on, as on a PC"),
    PROPERTY_POINTER(struct uart16550, chardev, "where bytes go to and come from"),
    PROPERTY_END,
};

static const struct device_output uart_outputs[] = {
    DEVICE_OUTPUT(struct uart16550, irq),
    DEVICE_OUTPUT_END,
};

static const struct state_field uart_fifo_state[] = {
    STATE_BYTES(struct uart_fifo, data),
    STATE_BYTES(struct uart_fifo, errors),
    STATE_U8_MAX(struct uart_fifo, head, UART_FIFO_SIZE - 1),
    STATE_U8_MAX(struct uart_fifo, count, UART_FIFO_SIZE),
    STATE_END,
};

static const struct state_field uart_state[] = {
    STATE_LINE(struct uart16550, irq),
    STATE_U16(struct uart16550, divisor),
    STATE_U8_MAX(struct uart16550, ier, IER_MASK),
    STATE_U8(struct uart16550, fcr),
    STATE_U8(struct uart16550, lcr),
    STATE_U8_MAX(struct uart16550, mcr, MCR_MASK),
    STATE_U8(struct uart16550, scr),
    STATE_U8_MAX(struct uart16550, lsr, LSR_ERRORS),
    STATE_U8(struct uart16550, msr),
    STATE_BOOL(struct uart16550, thre_pending),
    STATE_BOOL(struct uart16550, timeout_pending),
    STATE_BOOL(struct uart16550, line_busy),
    STATE_STRUCT(struct uart16550, rx, uart_fifo_state),
    STATE_STRUCT(struct uart16550, tx, uart_fifo_state),
    STATE_TIMER(struct uart16550, rx_timeout),
    STATE_TIMER(struct uart16550, tx_done),
    STATE_TIMER(struct uart16550, rx_gap),
    STATE_END,
};

const struct device_class uart16550_class = {
    .name = "uart16550",
    .summary = "serial port with a 16550A UART",
    .bus = BUS_PLATFORM,
    .instance_size = sizeof(struct uart16550),
    .properties = uart_properties,
    .outputs = uart_outputs,
    .attach = uart_attach,
    .reset = uart_reset,
    .reset_done = uart_reset_done,
    .resume = uart_resume,
    .detach = uart_detach,
    .state =
        {
            .version = 1,
            .oldest = 1,
            .fields = uart_state,
            .after_load = uart_after_load,
        },
};
