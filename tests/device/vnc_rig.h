/*
 * vnc_rig.h - a server of VNC with a card and a keyboard, and the far end of its sockets
 */
#ifndef TESTS_DEVICE_VNC_RIG_H
#define TESTS_DEVICE_VNC_RIG_H

#include "cmocka_all.h"

#include "backends/display/vnc_internal.h"
#include "base/bytes.h"
#include "device_test.h"

#define WIDTH  100u
#define HEIGHT 40u

/* The card: what it shows, and whether that is new. */
extern struct screen screen;
extern uint32_t width, height, colour;
extern uint32_t (*picture)(uint32_t x, uint32_t y);
extern bool is_dirty, is_watched;
uint32_t few_colours(uint32_t x, uint32_t y);
uint32_t one_colour(uint32_t x, uint32_t y);
uint32_t two_colours(uint32_t x, uint32_t y);
uint32_t many_colours(uint32_t x, uint32_t y);
/* For screen.source: it takes wishes for a size. */
extern const struct screen_source_ops free_card_ops;
extern uint32_t wished_width, wished_height;

/* The keyboard: what was typed, "+04-04" is A down and up. */
extern char typed[256];
extern unsigned leds;

extern struct device_test *t;
extern struct vnc *vnc;
extern int fd; /* of the viewer that speaks */

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int set_up(void **state);
int tear_down(void **state);
/* A server, and a viewer that has told its version. */
void open_server(const struct vnc_config *config);
int connect_viewer(void); /* another one; its socket */
/* A viewer comes in without a password, to a server of its own; to the one that is there. */
void come_in(void);
void choose_none(void);
void let_run(void);
void say(const void *bytes, size_t size);
void hear(void *out, size_t size); /* so many bytes, which the server takes its time for */
void expect(const void *bytes, size_t size);
bool has_hung_up(void);
void encodings(int32_t first, int32_t second);
void request(bool incremental);
void key(uint32_t keysym, bool pressed);

#endif
