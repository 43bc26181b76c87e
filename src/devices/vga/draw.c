/*
 * draw.c - what the VGA's monitor shows
 *
 * FreeVGA project, "CRTC Registers", "Graphics Registers", "Attribute Controller Registers"; IBM
 * VGA Technical Reference.
 *
 * Theory of operation. A picture is drawn row by row into a line that is compared with what is on
 * the screen, so that viewers hear of pixels that really differ. It is drawn when registers have
 * changed, pages of VRAM were written, or something blinks. VGA modes are drawn as a whole: the
 * CRTC's walk through memory says for each scan line where it begins and which row of characters it
 * is (start address, line compare, panning and row preset come out of that). Linear modes draw the
 * rows whose pages were written.
 *
 * Registers may say anything: sizes are bounded here, and offsets wrap around.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "devices/vga/vga_internal.h"

#define SPARE_PIXELS  64u /* of the line, for columns that begin or end beyond the screen */
#define WORDS         (VGA_MAX_MIB * (1u << 20) / GUEST_PAGE_SIZE / 64)
#define CURSOR_FRAMES 8u /* half a period of blinking */
#define TEXT_FRAMES   16u

enum picture { PICTURE_BLANK, PICTURE_TEXT, PICTURE_16, PICTURE_256, PICTURE_LINEAR };

/* What registers make of the picture. */
struct mode {
    enum picture picture;
    uint32_t width, height;
    /* VGA modes and 4 bits a pixel: */
    uint32_t columns;
    uint32_t dots;         /* of a column */
    uint32_t lines;        /* scan lines in a row of the surface */
    uint32_t panning;      /* pixels */
    uint32_t start, delta; /* addresses */
    uint32_t max_scan, line_compare;
    bool double_scan, doubles_dots;
    struct dispi_mode dispi; /* linear */
};

/* ---- colours ---- */

static uint32_t dac_colour(const struct vga *s, unsigned index)
{
    const uint8_t *c = &s->dac[3 * (index & s->dac_mask)];
    bool is_8bit = dispi_is_on(s) && (s->dispi[DISPI_ENABLE] & DISPI_8BIT_DAC);
    uint32_t colour = 0;

    for (unsigned n = 0; n < 3; n++)
        colour = colour << 8 | (uint8_t)(is_8bit ? c[n] : c[n] << 2 | (c[n] >> 4 & 3));
    return colour;
}

static void make_colours(struct vga *s)
{
    uint8_t select = s->attr[ATTR_COLOUR_SELECT];

    for (unsigned n = 0; n < 256; n++)
        s->colours[n] = dac_colour(s, n);
    for (unsigned n = 0; n < 16; n++) {
        uint8_t index = s->attr[n] & 0x3f;

        if (s->attr[ATTR_MODE] & ATTR_P54)
            index = (uint8_t)((index & 0xf) | (select & 3) << 4);
        s->attributes[n] = s->colours[index | (select & 0xc) << 4];
    }
}

/* ---- modes ---- */

static bool is_blank(const struct vga *s)
{
    if (!(s->attr_index & ATTR_SCREEN_ON))
        return true;
    return !dispi_is_on(s) && ((s->seq[SEQ_CLOCK] & CLOCK_OFF) || (s->seq[SEQ_RESET] & 3) != 3 ||
                               !(s->crtc[CRTC_MODE] & 0x80));
}

/* Panning is in dots; text of 9 dots begins with 8 for none. */
static uint32_t panning(const struct vga *s, const struct mode *m)
{
    uint32_t dots = s->attr[ATTR_PANNING] & 0xf;

    if (m->picture == PICTURE_256)
        return dots >> 1 & 3;
    if (m->dots == 9)
        return dots >= 8 ? 0 : dots + 1;
    return dots & 7;
}

/*
 * Scan lines of a graphics mode that are all the same make one row, unless they are taken from
 * different banks of memory.
 */
static uint32_t lines_in_row(const struct vga *s, const struct mode *m)
{
    uint32_t lines = m->double_scan ? 2 : 1;

    if (m->picture != PICTURE_TEXT && (s->crtc[CRTC_MODE] & 3) == 3)
        lines *= m->max_scan + 1;
    return lines;
}

static struct mode vga_mode(const struct vga *s)
{
    struct mode m = {.picture = PICTURE_TEXT, .dots = 8};

    if (s->gfx[GFX_MISC] & GFX_GRAPHICS)
        m.picture = s->gfx[GFX_MODE] & GFX_256 ? PICTURE_256 : PICTURE_16;
    if (m.picture == PICTURE_256)
        m.dots = 4;
    if (m.picture == PICTURE_TEXT && !(s->seq[SEQ_CLOCK] & CLOCK_8_DOTS))
        m.dots = 9;
    m.doubles_dots = m.picture == PICTURE_TEXT && (s->seq[SEQ_CLOCK] & CLOCK_HALF);
    m.columns = s->crtc[CRTC_H_DISPLAY] + 1u;
    m.max_scan = s->crtc[CRTC_MAX_SCAN] & 0x1f;
    m.double_scan = s->crtc[CRTC_MAX_SCAN] & 0x80;
    m.lines = lines_in_row(s, &m);
    m.width = m.columns * m.dots * (m.doubles_dots ? 2 : 1);
    m.height = vga_v_display(s) / m.lines;
    m.panning = panning(s, &m);
    m.start = (s->crtc[CRTC_START_HIGH] << 8 | s->crtc[CRTC_START_LOW]) +
              (s->crtc[CRTC_PRESET] >> 5 & 3u);
    m.delta = s->crtc[CRTC_OFFSET] * 2u;
    m.line_compare = vga_line_compare(s);
    if (!m.height)
        m.height = 1;
    return m;
}

static struct mode dispi_mode(const struct vga *s)
{
    struct dispi_mode d = vga_dispi_mode(s);

    return (struct mode){.picture = !d.height    ? PICTURE_BLANK
                                    : d.bpp == 4 ? PICTURE_16
                                                 : PICTURE_LINEAR,
                         .width = d.width,
                         .height = d.height ? d.height : 1,
                         .columns = d.width / 8,
                         .dots = 8,
                         .lines = 1,
                         .start = d.start,
                         .delta = d.line_bytes,
                         .line_compare = UINT32_MAX,
                         .dispi = d};
}

static struct mode find_mode(const struct vga *s)
{
    struct mode m = dispi_is_on(s) ? dispi_mode(s) : vga_mode(s);

    if (is_blank(s))
        m.picture = PICTURE_BLANK;
    return m;
}

/* ---- the CRTC's walk ---- */

struct walk {
    uint32_t line;    /* scan line */
    uint32_t address; /* of the first column, before its bits are moved about */
    uint32_t row;     /* scan line in the row of characters */
    bool second;      /* of a doubled line */
    uint32_t panning;
};

static struct walk walk_start(const struct vga *s, const struct mode *m)
{
    return (struct walk){.address = m->start,
                         .row = dispi_is_on(s) ? 0 : s->crtc[CRTC_PRESET] & 0x1f,
                         .panning = m->panning};
}

static void walk_line(const struct vga *s, const struct mode *m, struct walk *w)
{
    if (w->line++ == m->line_compare) {
        w->address = w->row = 0;
        w->second = false;
        if (s->attr[ATTR_MODE] & ATTR_SPLIT_RESETS)
            w->panning = 0;
        return;
    }
    if (m->double_scan && !w->second) {
        w->second = true;
        return;
    }
    w->second = false;
    if (w->row == m->max_scan) {
        w->row = 0;
        w->address += m->delta;
    } else {
        w->row = (w->row + 1) & 0x1f;
    }
}

/* To the next row of the surface. */
static void walk_lines(const struct vga *s, const struct mode *m, struct walk *w)
{
    for (uint32_t n = 0; n < m->lines; n++)
        walk_line(s, m, w);
}

/* Offset in the planes of a counted address. Doublewords are interleaved already (window.c). */
static uint32_t crtc_offset(const struct vga *s, uint32_t address, uint32_t row)
{
    uint8_t mode = s->crtc[CRTC_MODE];
    uint32_t offset = address;

    if (dispi_is_on(s))
        return address;
    if (!(s->crtc[CRTC_UNDERLINE] & 0x40) && !(mode & 0x40))
        offset = address << 1 | (address >> (mode & 0x20 ? 15 : 13) & 1);
    if (!(mode & 1))
        offset = (offset & ~0x2000u) | (row & 1) << 13;
    if (!(mode & 2))
        offset = (offset & ~0x4000u) | (row & 2) << 13;
    return offset & VGA_PLANE_MASK;
}

static uint32_t crtc_cell(const struct vga *s, uint32_t address, uint32_t row)
{
    return ram_load32(vga_cell(s, crtc_offset(s, address, row)));
}

/* ---- lines of VGA modes ---- */

/* A colour of four bits from the planes' bits at one place. */
static unsigned planar_pixel(uint32_t cell, unsigned bit)
{
    uint32_t bits = cell >> bit & 0x01010101u;

    return (bits | bits >> 7 | bits >> 14 | bits >> 21) & 0xf;
}

/* Two bits a pixel: four of planes 0 and 2, then four of 1 and 3. */
static unsigned interleaved_pixel(uint32_t cell, unsigned dot)
{
    unsigned plane = dot / 4, shift = 6 - 2 * (dot % 4);

    return (cell >> (8 * plane + shift) & 3) | (cell >> (8 * plane + 16 + shift) & 3) << 2;
}

static void draw_16(struct vga *s, const struct mode *m, const struct walk *w)
{
    uint8_t planes = s->attr[ATTR_PLANES] & 0xf;
    bool interleaves = !dispi_is_on(s) && (s->gfx[GFX_MODE] & GFX_INTERLEAVE);
    uint32_t *to = s->line;

    for (uint32_t column = 0; column <= m->columns; column++) {
        uint32_t cell = crtc_cell(s, w->address + column, w->row);

        for (unsigned dot = 0; dot < 8; dot++)
            *to++ = s->attributes[(interleaves ? interleaved_pixel(cell, dot)
                                               : planar_pixel(cell, 7 - dot)) &
                                  planes];
    }
}

static void draw_256(struct vga *s, const struct mode *m, const struct walk *w)
{
    uint32_t *to = s->line;

    for (uint32_t column = 0; column <= m->columns; column++) {
        uint32_t cell = crtc_cell(s, w->address + column, w->row);

        for (unsigned plane = 0; plane < 4; plane++)
            *to++ = s->colours[cell >> 8 * plane & 0xff];
    }
}

/* Where in plane 2 the font is that an attribute's bit 3 chooses. */
static uint32_t font_offset(const struct vga *s, bool second)
{
    uint8_t maps = s->seq[SEQ_FONT];
    unsigned map = second ? (maps >> 2 & 3) | (maps >> 3 & 4) : (maps & 3) | (maps >> 2 & 4);

    return (map & 3) << 14 | (map & 4) << 11;
}

struct glyph_colours {
    unsigned foreground, background;
    bool blinks;
};

static struct glyph_colours glyph_colours(const struct vga *s, uint8_t attribute)
{
    bool blinks = s->attr[ATTR_MODE] & ATTR_BLINK;

    return (struct glyph_colours){.foreground = attribute & 0xf,
                                  .background = attribute >> 4 & (blinks ? 7 : 0xf),
                                  .blinks = blinks && (attribute & 0x80)};
}

/* The row's dots of a character, leftmost in bit 8. */
static unsigned glyph_dots(const struct vga *s, uint8_t code, uint8_t attribute, uint32_t row)
{
    uint32_t offset = font_offset(s, attribute & 8) + code * 32u + row;
    unsigned dots = (unsigned)(ram_load32(vga_cell(s, offset)) >> 16 & 0xff) << 1;

    if ((s->attr[ATTR_MODE] & ATTR_LINE_GRAPHICS) && code >= 0xc0 && code < 0xe0)
        dots |= dots >> 1 & 1;
    if ((attribute & 7) == 1 && row == (s->crtc[CRTC_UNDERLINE] & 0x1fu))
        dots = 0x1ff;
    return dots;
}

static uint32_t cursor_address(const struct vga *s)
{
    return (uint32_t)(s->crtc[CRTC_CURSOR_HIGH] << 8 | s->crtc[CRTC_CURSOR_LOW]);
}

static bool cursor_is_enabled(const struct vga *s)
{
    return !(s->crtc[CRTC_CURSOR_START] & 0x20);
}

static bool cursor_has_row(const struct vga *s, uint32_t row)
{
    return cursor_is_enabled(s) && row >= (s->crtc[CRTC_CURSOR_START] & 0x1fu) &&
           row <= (s->crtc[CRTC_CURSOR_END] & 0x1fu);
}

static void draw_text(struct vga *s, const struct mode *m, const struct walk *w)
{
    uint8_t planes = s->attr[ATTR_PLANES] & 0xf;
    bool has_cursor = s->cursor_was_on && cursor_has_row(s, w->row);
    uint32_t *to = s->line;

    for (uint32_t column = 0; column <= m->columns; column++) {
        uint32_t address = w->address + column, cell = crtc_cell(s, address, w->row);
        struct glyph_colours c = glyph_colours(s, (uint8_t)(cell >> 8));
        unsigned dots = glyph_dots(s, (uint8_t)cell, (uint8_t)(cell >> 8), w->row);
        uint32_t foreground = s->attributes[c.foreground & planes];
        uint32_t background = s->attributes[c.background & planes];

        s->has_blink |= c.blinks;
        if (c.blinks && !s->text_was_on)
            dots = 0;
        if (((address ^ cursor_address(s)) & 0xffff) == 0) {
            s->has_cursor = true;
            dots = has_cursor ? 0x1ff : dots;
        }
        for (unsigned dot = 0; dot < m->dots; dot++, dots <<= 1)
            *to++ = dots & 0x100 ? foreground : background;
    }
}

/* From the right, as the line is its own source. */
static void double_dots(uint32_t *line, uint32_t count)
{
    while (count--)
        line[2 * count] = line[2 * count + 1] = line[count];
}

/* ---- lines of linear modes ---- */

static uint32_t rgb15(uint32_t pixel)
{
    uint32_t r = pixel >> 10 & 0x1f, g = pixel >> 5 & 0x1f, b = pixel & 0x1f;

    return (r << 3 | r >> 2) << 16 | (g << 3 | g >> 2) << 8 | (b << 3 | b >> 2);
}

static uint32_t rgb16(uint32_t pixel)
{
    uint32_t r = pixel >> 11, g = pixel >> 5 & 0x3f, b = pixel & 0x1f;

    return (r << 3 | r >> 2) << 16 | (g << 2 | g >> 4) << 8 | (b << 3 | b >> 2);
}

static void draw_linear(struct vga *s, const struct mode *m, uint32_t y)
{
    const uint8_t *from = s->line_bytes;
    uint32_t bytes = m->width * ((m->dispi.bpp + 7) / 8);

    ram_copy(s->line_bytes, s->vram + m->dispi.start + (size_t)y * m->dispi.line_bytes, bytes);
    for (uint32_t x = 0; x < m->width; x++) {
        switch (m->dispi.bpp) {
        case 8:
            s->line[x] = s->colours[from[x]];
            break;
        case 15:
            s->line[x] = rgb15(s->big_endian ? get_be16(from + 2 * x) : get_le16(from + 2 * x));
            break;
        case 16:
            s->line[x] = rgb16(s->big_endian ? get_be16(from + 2 * x) : get_le16(from + 2 * x));
            break;
        case 24:
            s->line[x] = from[3 * x] | from[3 * x + 1] << 8 | from[3 * x + 2] << 16;
            break;
        default:
            s->line[x] =
                (s->big_endian ? get_be32(from + 4 * x) : get_le32(from + 4 * x)) & 0xffffff;
            break;
        }
    }
}

static bool any_bit(const uint64_t *bits, uint32_t first, uint32_t last)
{
    for (uint32_t n = first; n <= last; n++)
        if (bits[n / 64] >> n % 64 & 1)
            return true;
    return false;
}

static bool row_is_dirty(const struct mode *m, uint32_t y, const uint64_t *pages)
{
    uint32_t first = m->dispi.start + y * m->dispi.line_bytes;
    uint32_t last = first + m->width * ((m->dispi.bpp + 7) / 8) - 1;

    return any_bit(pages, first / GUEST_PAGE_SIZE, last / GUEST_PAGE_SIZE);
}

/* ---- onto the screen ---- */

static void show_line(struct vga *s, const struct mode *m, uint32_t y, const uint32_t *line)
{
    uint32_t *row = screen_row(&s->screen, y), first = 0, end = m->width;

    if (!memcmp(row, line, m->width * sizeof(*row)))
        return;
    while (row[first] == line[first])
        first++;
    while (row[end - 1] == line[end - 1])
        end--;
    memcpy(row + first, line + first, (end - first) * sizeof(*row));
    screen_row_changed(&s->screen, y, first, end);
}

static bool reserve_line(struct vga *s, uint32_t width)
{
    uint32_t capacity = width + SPARE_PIXELS;

    if (capacity <= s->line_capacity)
        return true;
    free(s->line);
    free(s->line_bytes);
    s->line = malloc(capacity * sizeof(*s->line));
    s->line_bytes = malloc(capacity * sizeof(*s->line));
    s->line_capacity = s->line && s->line_bytes ? capacity : 0;
    return s->line_capacity != 0;
}

static void draw_vga(struct vga *s, const struct mode *m)
{
    struct walk w = walk_start(s, m);

    s->has_cursor = s->has_blink = false;
    for (uint32_t y = 0; y < m->height; y++) {
        uint32_t shift = w.panning;

        if (m->picture == PICTURE_TEXT)
            draw_text(s, m, &w);
        else if (m->picture == PICTURE_256)
            draw_256(s, m, &w);
        else
            draw_16(s, m, &w);
        if (m->doubles_dots) {
            memmove(s->line, s->line + shift, m->columns * m->dots * sizeof(*s->line));
            double_dots(s->line, m->columns * m->dots);
            shift = 0;
        }
        show_line(s, m, y, s->line + shift);
        walk_lines(s, m, &w);
    }
}

static void draw_rows(struct vga *s, const struct mode *m, const uint64_t *pages)
{
    for (uint32_t y = 0; y < m->height; y++) {
        if (!s->changed && !row_is_dirty(m, y, pages))
            continue;
        draw_linear(s, m, y);
        show_line(s, m, y, s->line);
    }
}

static void draw_nothing(struct vga *s, const struct mode *m)
{
    memset(s->line, 0, m->width * sizeof(*s->line));
    for (uint32_t y = 0; y < m->height; y++)
        show_line(s, m, y, s->line);
}

/* Is it another moment of what blinks? */
static bool blinks_now(struct vga *s, const struct mode *m)
{
    uint64_t frame = m->picture == PICTURE_TEXT ? vga_beam(s).frame : 0;
    bool cursor = frame / CURSOR_FRAMES % 2 == 0, text = frame / TEXT_FRAMES % 2 == 0;
    bool changes = (cursor != s->cursor_was_on && s->has_cursor && cursor_is_enabled(s)) ||
                   (text != s->text_was_on && s->has_blink);

    if (changes || s->changed) {
        s->cursor_was_on = cursor;
        s->text_was_on = text;
    }
    return changes;
}

static void refresh(void *opaque)
{
    struct vga *s = opaque;
    uint64_t pages[WORDS];
    struct mode m = find_mode(s);
    bool written =
        memory_watch_fetch(device_memory(&s->pci.dev), s->vram_offset, s->vram_bytes, pages);
    bool blinks = blinks_now(s, &m);

    if (!written && !s->changed && !blinks)
        return;
    if (!reserve_line(s, m.width) || screen_set_size(&s->screen, m.width, m.height)) {
        s->changed = true; /* all, when there is memory */
        return;
    }
    if (s->changed)
        make_colours(s);
    if (m.picture == PICTURE_BLANK && s->changed)
        draw_nothing(s, &m);
    else if (m.picture == PICTURE_LINEAR)
        draw_rows(s, &m, pages);
    else if (m.picture != PICTURE_BLANK)
        draw_vga(s, &m);
    screen_tell_changes(&s->screen);
    s->changed = false;
}

static void watched(void *opaque, bool on)
{
    struct vga *s = opaque;
    struct memory *memory = device_memory(&s->pci.dev);

    s->changed = true;
    if (on)
        memory_watch_start(memory, s->vram_offset, s->vram_bytes);
    else
        memory_watch_stop(memory, s->vram_offset, s->vram_bytes);
}

/* ---- as characters ---- */

static struct screen_cell text_cell(const struct vga *s, uint32_t cell)
{
    uint8_t attribute = (uint8_t)(cell >> 8);
    struct glyph_colours c = glyph_colours(s, attribute);
    bool second = (attribute & 8) && font_offset(s, true) != font_offset(s, false);
    bool underlined =
        (attribute & 7) == 1 && (s->crtc[CRTC_UNDERLINE] & 0x1f) <= (s->crtc[CRTC_MAX_SCAN] & 0x1f);

    return (struct screen_cell){.code = (uint16_t)((cell & 0xff) | (second ? 256 : 0)),
                                .foreground = (uint8_t)c.foreground,
                                .background = (uint8_t)c.background,
                                .flags = (c.blinks ? SCREEN_TEXT_BLINK : 0) |
                                         (underlined ? SCREEN_TEXT_UNDERLINE : 0)};
}

static void take_row(const struct vga *s, const struct walk *w, struct screen_text *out)
{
    struct screen_cell *cells = out->cells + (size_t)out->rows * out->columns;

    for (uint32_t column = 0; column < out->columns; column++) {
        uint32_t address = w->address + column;

        cells[column] = text_cell(s, crtc_cell(s, address, w->row));
        if (cursor_is_enabled(s) && ((address ^ cursor_address(s)) & 0xffff) == 0) {
            out->has_cursor = true;
            out->cursor_column = column;
            out->cursor_row = out->rows;
        }
    }
    out->rows++;
}

static bool text(void *opaque, struct screen_text *out)
{
    struct vga *s = opaque;
    struct mode m = find_mode(s);
    struct walk w = walk_start(s, &m);

    if (m.picture != PICTURE_TEXT)
        return false;
    out->cells = calloc((size_t)m.height * m.columns, sizeof(*out->cells));
    if (!out->cells)
        return false;
    out->columns = m.columns;
    make_colours(s);
    memcpy(out->colours, s->attributes, sizeof(out->colours));
    for (uint32_t y = 0; y < m.height; y++) {
        if (y == 0 || w.row == 0)
            take_row(s, &w, out);
        walk_lines(s, &m, &w);
    }
    return true;
}

const struct screen_source_ops vga_screen = {.watched = watched, .refresh = refresh, .text = text};
