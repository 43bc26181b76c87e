/*
 * edid.c - what a monitor tells of itself
 *
 * VESA Enhanced EDID Standard 1.4, section 3. The preferred timing is CVT with reduced blanking.
 */
#include <string.h>

#include "base/bytes.h"
#include "devices/vga/edid.h"

#define H_BLANK    160u
#define H_FRONT    48u
#define H_SYNC     32u
#define V_FRONT    3u
#define V_SYNC     4u
#define V_BLANK_NS 460000u
#define REFRESH    60u
#define DPI        96u

static uint32_t millimetres(uint32_t pixels)
{
    return pixels * 254 / (DPI * 10);
}

/* 3.10.2 */
static void put_timing(uint8_t *out, uint32_t width, uint32_t height)
{
    uint32_t frame_ns = 1000000000u / REFRESH;
    uint32_t v_blank = (uint32_t)((uint64_t)height * V_BLANK_NS / (frame_ns - V_BLANK_NS)) + 1;
    uint32_t clock = (width + H_BLANK) * (height + v_blank) / 1000 * REFRESH / 10; /* 10 kHz */
    uint32_t mm_wide = millimetres(width), mm_high = millimetres(height);

    put_le16(out, (uint16_t)(clock > UINT16_MAX ? UINT16_MAX : clock));
    out[2] = (uint8_t)width;
    out[3] = H_BLANK;
    out[4] = (uint8_t)(width >> 8 << 4);
    out[5] = (uint8_t)height;
    out[6] = (uint8_t)v_blank;
    out[7] = (uint8_t)(height >> 8 << 4 | v_blank >> 8);
    out[8] = H_FRONT;
    out[9] = H_SYNC;
    out[10] = V_FRONT << 4 | V_SYNC;
    out[12] = (uint8_t)mm_wide;
    out[13] = (uint8_t)mm_high;
    out[14] = (uint8_t)(mm_wide >> 8 << 4 | mm_high >> 8);
    out[17] = 0x1a; /* separate sync, horizontal positive */
}

void edid_build(uint8_t out[EDID_BYTES], uint32_t width, uint32_t height)
{
    static const uint8_t header[8] = {0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0};
    static const uint8_t srgb[10] = {0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54};
    /* 640x480, 800x600, 1024x768, 1280x720, 1280x1024, 1600x1200, 1920x1080, 1920x1200 */
    static const uint8_t timings[16] = {0x31, 0x40, 0x45, 0x40, 0x61, 0x40, 0x81, 0xc0,
                                        0x81, 0x80, 0xa9, 0x40, 0xd1, 0xc0, 0xd1, 0x00};
    static const uint8_t limits[18] = {0,   0,    0,    0xfd, 0,    50,   125,  30,   160,
                                       255, 0x01, 0x0a, 0x20, 0x20, 0x20, 0x20, 0x20, 0x20};
    static const uint8_t name[18] = {0,   0,   0,   0xfc, 0,   'T', 'r', 'a', 'p',
                                     'e', 'z', 'e', '\n', ' ', ' ', ' ', ' ', ' '};
    static const uint8_t none[18] = {0, 0, 0, 0x10};
    uint8_t sum = 0;

    memset(out, 0, EDID_BYTES);
    memcpy(out, header, sizeof(header));
    out[8] = 0x52; /* "TPZ" */
    out[9] = 0x1a;
    out[10] = 1;
    out[17] = 2024 - 1990;
    out[18] = 1; /* version 1.4 */
    out[19] = 4;
    out[20] = 0xa0; /* digital, 8 bits a colour */
    out[21] = (uint8_t)(millimetres(width) / 10);
    out[22] = (uint8_t)(millimetres(height) / 10);
    out[23] = 120;  /* gamma 2.2 */
    out[24] = 0x06; /* sRGB; the first timing is the best */
    memcpy(out + 25, srgb, sizeof(srgb));
    out[35] = 0x21; /* 640x480, 800x600 */
    out[36] = 0x08; /* 1024x768 */
    memcpy(out + 38, timings, sizeof(timings));
    put_timing(out + 54, width, height);
    memcpy(out + 72, limits, sizeof(limits));
    memcpy(out + 90, name, sizeof(name));
    memcpy(out + 108, none, sizeof(none));
    for (unsigned n = 0; n < EDID_BYTES - 1; n++)
        sum = (uint8_t)(sum + out[n]);
    out[EDID_BYTES - 1] = (uint8_t)-sum;
}
