/*
 * vga_rig.h - a VGA in a machine, its modes set up register by register, and what its screen shows
 */
#ifndef TESTS_DEVICE_VGA_RIG_H
#define TESTS_DEVICE_VGA_RIG_H

#include "cmocka_all.h"

#include "device_test.h"
#include "devices/devices.h"
#include "trapeze/display.h"
#include "trapeze/pci.h"

#define RAM_BYTES   (4u << 20)
#define ECAM        0xe0000000ull
#define SLOT        2
#define VRAM        0xc0000000u
#define REGISTERS   0xc2000000u
#define WINDOW      0xa0000u
#define TEXT_WINDOW 0xb8000u
#define FRAME_NS    16700000ull

struct fixture {
    struct device_test *t;
    struct device *card;
    struct screen *screen;
    struct screen_viewer viewer;
    struct screen_surface surface;
    unsigned changes;
    struct screen_rect rect; /* the last that changed */
};

extern struct fixture f;

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

struct mode {
    uint8_t misc, seq[5], crtc[25], gfx[9], attr[21];
};
/* As the IBM BIOS sets them. */
extern const struct mode text_80x25, cga_4_colours, cga_2_colours, planar_640x480, mode_13h;

int set_up(void **state);
int tear_down(void **state);
void sequencer(uint8_t index, uint8_t value);
void graphics(uint8_t index, uint8_t value);
void crtc(uint8_t index, uint8_t value);
uint8_t get_indexed(uint16_t port, uint8_t index);
void attribute(uint8_t index, uint8_t value);
void dispi(uint16_t index, uint16_t value);
uint16_t dispi_get(uint16_t index);
/* Colour n of the palette that the tests have, as components of 6 bits, and as 0xRRGGBB. */
uint8_t component(unsigned n, unsigned which);
uint32_t colour(unsigned n);
void set_palette(void);
void set_mode(const struct mode *m);
void look(void);
uint32_t pixel(uint32_t x, uint32_t y);
void expect_size(uint32_t width, uint32_t height);
/* All pixels, against what a function of the test says. */
void expect_picture(uint32_t (*expected)(uint32_t x, uint32_t y));
/* At the window. */
void poke(uint32_t offset, uint8_t value);
uint8_t peek(uint32_t offset);
uint32_t black(uint32_t x, uint32_t y);
uint32_t first_colour(uint32_t x, uint32_t y);
/* The attribute controller's palette of mode 12h. */
uint32_t colour_16(unsigned n);
/* A font in which every character's rows differ. */
uint8_t glyph(unsigned code, unsigned row);
void load_font(uint32_t offset, uint8_t change);
void put_char(unsigned column, unsigned row, uint8_t code, uint8_t attr);
void start_text(void);
void set_linear(uint16_t width, uint16_t height, uint16_t bpp, uint16_t flags);

#endif
