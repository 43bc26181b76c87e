/*
 * main.c - trapeze-window: a machine's screen, keyboard and pointer in a window of SDL
 *
 * trapeze-window SOCKET NAME end|leave
 *
 * 'trapeze run --display sdl' and 'trapeze open' start it with a socket that leads to the machine
 * (backends/display/window.h). It is a program of its own: what SDL loads and opens is no business
 * of the machine's process, which is in a sandbox. What "end" or "leave" says is what closing the
 * window does: the guest is asked to power off, and the second time the machine ends; or only the
 * window goes.
 *
 * The screen's pixels are in memory that the machine writes. A thread reads the socket and makes
 * events of what comes; everything else is the first thread's. Keys are by their place on the
 * keyboard, so the guest's layout is the keyboard's.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <SDL.h>

#include "backends/display/window.h"
#include "host/host.h"
#include "trapeze/input.h"

static struct {
    int socket;
    const char *name;
    bool may_end;
    uint8_t *memory;
    uint32_t machine_event; /* of SDL: a packet came, in data1; NULL: the machine has ended */

    SDL_Window *window;
    SDL_Renderer *renderer;
    SDL_Texture *texture; /* NULL: no size is known */
    SDL_Cursor *cursor;   /* the guest's; NULL: the usual one */
    int width, height;    /* of the guest's screen */
    SDL_Rect place;       /* of the screen in the window */
    bool is_visible, owes_ready;
    bool is_resized; /* by the person: the guest does not change it any more */
    bool is_grabbed, is_absolute, is_running, was_asked;
    char *text; /* of the clipboard, that both sides have; NULL: none yet */
    unsigned buttons;
} w;

/* ---- talking to the machine ---- */

static void tell(uint32_t kind, int32_t a, int32_t b)
{
    const struct window_packet packet = {.kind = kind, .values = {(uint32_t)a, (uint32_t)b}};

    host_send(w.socket, &packet, sizeof(packet), -1); /* a machine that has gone is an event, too */
}

static int listen_to_machine(void *unused)
{
    SDL_Event event = {.type = w.machine_event};
    struct window_packet packet;

    (void)unused;
    while (recv(w.socket, &packet, sizeof(packet), 0) == sizeof(packet)) {
        event.user.data1 = malloc(sizeof(packet));
        if (!event.user.data1)
            break;
        memcpy(event.user.data1, &packet, sizeof(packet));
        SDL_PushEvent(&event);
    }
    event.user.data1 = NULL;
    SDL_PushEvent(&event);
    return 0;
}

/* ---- what is seen ---- */

static void set_title(void)
{
    char title[256];

    snprintf(title, sizeof(title), "%s%s%s%s - Trapeze", w.name,
             w.is_running ? "" : " (stands still)",
             w.was_asked && w.may_end ? " (asked to power off; closing again ends it)" : "",
             w.is_grabbed ? " (Ctrl-Alt-G lets go)" : "");
    SDL_SetWindowTitle(w.window, title);
}

/* As large as fits, in the middle. */
static void find_place(void)
{
    int width, height;
    int64_t wide, high;

    SDL_GetWindowSize(w.window, &width, &height);
    wide = (int64_t)width * w.height;
    high = (int64_t)height * w.width;
    w.place.w = wide <= high ? width : (int)(high / w.height);
    w.place.h = wide <= high ? (int)(wide / w.width) : height;
    w.place.x = (width - w.place.w) / 2;
    w.place.y = (height - w.place.h) / 2;
}

static void draw(void)
{
    bool is_whole;

    SDL_RenderClear(w.renderer);
    if (w.texture) {
        find_place();
        is_whole = w.place.w % w.width == 0 && w.place.h % w.height == 0;
        SDL_SetTextureScaleMode(w.texture, is_whole ? SDL_ScaleModeNearest : SDL_ScaleModeLinear);
        SDL_RenderCopy(w.renderer, w.texture, NULL, &w.place);
    }
    SDL_RenderPresent(w.renderer);
}

static void fit_window(void)
{
    SDL_Rect room;
    int width = w.width, height = w.height;

    if (SDL_GetDisplayUsableBounds(SDL_GetWindowDisplayIndex(w.window), &room) == 0) {
        width = width < room.w ? width : room.w;
        height = height < room.h ? height : room.h;
    }
    SDL_SetWindowSize(w.window, width, height);
}

static void take_size(uint32_t width, uint32_t height)
{
    if (!width || !height || width > SCREEN_MAX_SIZE || height > SCREEN_MAX_SIZE)
        return;
    SDL_DestroyTexture(w.texture);
    w.width = (int)width;
    w.height = (int)height;
    w.texture = SDL_CreateTexture(w.renderer, SDL_PIXELFORMAT_RGB888, SDL_TEXTUREACCESS_STREAMING,
                                  w.width, w.height);
    if (!w.is_resized)
        fit_window();
}

static void take_frame(const uint32_t values[4])
{
    SDL_Rect rect = {(int)values[0], (int)values[1], (int)values[2], (int)values[3]};
    const uint8_t *pixels = w.memory + WINDOW_CURSOR_BYTES;

    if (w.texture && rect.w)
        SDL_UpdateTexture(w.texture, &rect,
                          pixels + 4 * ((size_t)rect.y * (size_t)w.width + (size_t)rect.x),
                          4 * w.width);
    draw();
    if (w.is_visible)
        tell(WINDOW_READY, 0, 0);
    w.owes_ready = !w.is_visible;
}

static void take_cursor(const uint32_t values[4])
{
    SDL_Surface *surface = NULL;
    SDL_Cursor *old = w.cursor;

    w.cursor = NULL;
    if (values[0] && values[0] <= SCREEN_CURSOR_MAX && values[1] <= SCREEN_CURSOR_MAX)
        surface = SDL_CreateRGBSurfaceWithFormatFrom(w.memory, (int)values[0], (int)values[1], 32,
                                                     4 * (int)values[0], SDL_PIXELFORMAT_ARGB8888);
    if (surface)
        w.cursor = SDL_CreateColorCursor(surface, (int)values[2], (int)values[3]);
    SDL_FreeSurface(surface);
    SDL_SetCursor(w.cursor ? w.cursor : SDL_GetDefaultCursor());
    SDL_FreeCursor(old);
}

static void set_grab(bool on)
{
    w.is_grabbed = on;
    SDL_SetWindowGrab(w.window, on);
    SDL_SetWindowKeyboardGrab(w.window, on);
    SDL_SetRelativeMouseMode(on && !w.is_absolute);
    set_title();
}

static void take_state(uint32_t state)
{
    bool is_absolute = state & WINDOW_IS_ABSOLUTE;

    w.is_running = state & WINDOW_IS_RUNNING;
    if (is_absolute != w.is_absolute) {
        w.is_absolute = is_absolute;
        set_grab(w.is_grabbed);
    }
    set_title();
}

/* ---- the clipboard ---- */

/* The guest's, for the desktop. */
static void take_text(uint32_t size)
{
    char *text = size <= CLIPBOARD_MAX ? malloc(size + 1) : NULL;

    if (!text)
        return;
    memcpy(text, w.memory + WINDOW_TO_WINDOW, size);
    text[size] = '\0';
    free(w.text);
    w.text = text;
    SDL_SetClipboardText(text);
}

/* The desktop's, for the guest, while the window is in use. */
static void offer_text(void)
{
    char *text = NULL;
    size_t size;

    if (SDL_GetWindowFlags(w.window) & SDL_WINDOW_INPUT_FOCUS && SDL_HasClipboardText())
        text = SDL_GetClipboardText();
    size = text ? strlen(text) : 0;
    if (size && size <= CLIPBOARD_MAX && (!w.text || strcmp(text, w.text) != 0)) {
        memcpy(w.memory + WINDOW_FROM_WINDOW, text, size);
        tell(WINDOW_COPIED, (int32_t)size, 0);
        free(w.text);
        w.text = strdup(text);
    }
    SDL_free(text);
}

static void take_packet(const struct window_packet *packet)
{
    switch (packet->kind) {
    case WINDOW_SIZE:
        take_size(packet->values[0], packet->values[1]);
        break;
    case WINDOW_CURSOR:
        take_cursor(packet->values);
        break;
    case WINDOW_STATE:
        take_state(packet->values[0]);
        break;
    case WINDOW_TEXT:
        take_text(packet->values[0]);
        break;
    case WINDOW_FRAME:
        take_frame(packet->values);
        break;
    }
}

/* ---- what is pressed ---- */

/* Ctrl-Alt and a letter is for the window. */
static bool take_shortcut(const SDL_KeyboardEvent *event)
{
    unsigned held = event->keysym.mod;

    if (!(held & KMOD_CTRL) || !(held & KMOD_ALT) || held & (KMOD_SHIFT | KMOD_GUI))
        return false;
    switch (event->keysym.scancode) {
    case SDL_SCANCODE_F:
        SDL_SetWindowFullscreen(w.window, SDL_GetWindowFlags(w.window) & SDL_WINDOW_FULLSCREEN
                                              ? 0
                                              : SDL_WINDOW_FULLSCREEN_DESKTOP);
        break;
    case SDL_SCANCODE_G:
        set_grab(!w.is_grabbed);
        break;
    case SDL_SCANCODE_U:
        w.is_resized = false;
        fit_window();
        break;
    default:
        return false;
    }
    tell(WINDOW_RELEASE, 0, 0);
    return true;
}

/* Scan codes of SDL are usages of USB HID. */
static void take_key(const SDL_KeyboardEvent *event)
{
    bool is_pressed = event->type == SDL_KEYDOWN;

    if (event->repeat || (is_pressed && take_shortcut(event)))
        return;
    if (event->keysym.scancode <= SDL_SCANCODE_RGUI)
        tell(WINDOW_KEY, (int32_t)event->keysym.scancode, is_pressed);
}

/* The pixel of the guest's screen at a place of the window. */
static void point_at(int x, int y)
{
    int64_t right = (int64_t)(x - w.place.x) * w.width, down = (int64_t)(y - w.place.y) * w.height;

    if (!w.place.w || !w.place.h)
        return;
    right = right < 0 ? 0 : right / w.place.w;
    down = down < 0 ? 0 : down / w.place.h;
    tell(WINDOW_AT, (int32_t)(right < w.width ? right : w.width - 1),
         (int32_t)(down < w.height ? down : w.height - 1));
}

static void take_motion(const SDL_MouseMotionEvent *event)
{
    if (w.is_absolute)
        point_at(event->x, event->y);
    else if (w.is_grabbed)
        tell(WINDOW_MOVED, event->xrel, event->yrel);
}

static void take_button(const SDL_MouseButtonEvent *event)
{
    static const unsigned buttons[] = {
        [SDL_BUTTON_LEFT] = INPUT_BUTTON_LEFT,   [SDL_BUTTON_MIDDLE] = INPUT_BUTTON_MIDDLE,
        [SDL_BUTTON_RIGHT] = INPUT_BUTTON_RIGHT, [SDL_BUTTON_X1] = INPUT_BUTTON_SIDE,
        [SDL_BUTTON_X2] = INPUT_BUTTON_EXTRA,
    };
    unsigned button = event->button <= SDL_BUTTON_X2 ? buttons[event->button] : 0;

    if (!w.is_absolute && !w.is_grabbed) {
        if (event->type == SDL_MOUSEBUTTONDOWN)
            set_grab(true);
        return; /* the click was for the window */
    }
    w.buttons = event->type == SDL_MOUSEBUTTONDOWN ? w.buttons | button : w.buttons & ~button;
    if (w.is_absolute)
        point_at(event->x, event->y);
    tell(WINDOW_BUTTONS, (int32_t)w.buttons, 0);
}

static void take_wheel(const SDL_MouseWheelEvent *event)
{
    int sign = event->direction == SDL_MOUSEWHEEL_FLIPPED ? -1 : 1;

    tell(WINDOW_WHEEL, sign * event->y, sign * event->x);
}

/* ---- the window itself ---- */

static void set_visible(bool visible)
{
    w.is_visible = visible;
    if (visible && w.owes_ready)
        tell(WINDOW_READY, 0, 0);
    w.owes_ready &= !visible;
}

static void take_window_event(const SDL_WindowEvent *event)
{
    switch (event->event) {
    case SDL_WINDOWEVENT_SHOWN:
    case SDL_WINDOWEVENT_RESTORED:
        set_visible(true);
        break;
    case SDL_WINDOWEVENT_HIDDEN:
    case SDL_WINDOWEVENT_MINIMIZED:
        set_visible(false);
        break;
    case SDL_WINDOWEVENT_RESIZED: /* by the person; ours are SIZE_CHANGED only */
        w.is_resized = true;
        draw();
        break;
    case SDL_WINDOWEVENT_SIZE_CHANGED:
    case SDL_WINDOWEVENT_EXPOSED:
        draw();
        break;
    case SDL_WINDOWEVENT_FOCUS_GAINED:
        offer_text();
        break;
    case SDL_WINDOWEVENT_FOCUS_LOST:
        w.buttons = 0;
        tell(WINDOW_RELEASE, 0, 0);
        if (w.is_grabbed)
            set_grab(false);
        break;
    }
}

/* False: the window goes. */
static bool take_close(void)
{
    if (!w.may_end)
        return false;
    tell(w.was_asked ? WINDOW_END : WINDOW_POWER_OFF, 0, 0);
    w.was_asked = true;
    set_title();
    return true;
}

static bool take_event(const SDL_Event *event)
{
    switch (event->type) {
    case SDL_QUIT:
        return take_close();
    case SDL_CLIPBOARDUPDATE:
        offer_text();
        return true;
    case SDL_WINDOWEVENT:
        take_window_event(&event->window);
        return true;
    case SDL_KEYDOWN:
    case SDL_KEYUP:
        take_key(&event->key);
        return true;
    case SDL_MOUSEMOTION:
        take_motion(&event->motion);
        return true;
    case SDL_MOUSEBUTTONDOWN:
    case SDL_MOUSEBUTTONUP:
        take_button(&event->button);
        return true;
    case SDL_MOUSEWHEEL:
        take_wheel(&event->wheel);
        return true;
    }
    if (event->type != w.machine_event)
        return true;
    if (event->user.data1)
        take_packet(event->user.data1);
    free(event->user.data1);
    return event->user.data1 != NULL;
}

static bool open_window(void)
{
    SDL_SetHint(SDL_HINT_NO_SIGNAL_HANDLERS, "1");
    SDL_SetHint(SDL_HINT_VIDEO_X11_NET_WM_BYPASS_COMPOSITOR, "0");
    if (SDL_Init(SDL_INIT_VIDEO))
        return false;
    SDL_EnableScreenSaver();
    w.machine_event = SDL_RegisterEvents(1);
    w.window = SDL_CreateWindow("", SDL_WINDOWPOS_UNDEFINED, SDL_WINDOWPOS_UNDEFINED, 720, 400,
                                SDL_WINDOW_RESIZABLE);
    if (w.window)
        w.renderer = SDL_CreateRenderer(w.window, -1, 0);
    if (!w.renderer)
        return false;
    set_title();
    w.is_visible = true;
    return true;
}

/* The pixels' memory goes to the machine. */
static bool say_hello(void)
{
    const struct window_packet hello = {.kind = WINDOW_HELLO};
    int memory = memfd_create("screen", MFD_CLOEXEC);
    bool done;

    if (memory < 0 || ftruncate(memory, (off_t)WINDOW_MEMORY_BYTES))
        return false;
    w.memory = mmap(NULL, WINDOW_MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    done = w.memory != MAP_FAILED && host_send(w.socket, &hello, sizeof(hello), memory) > 0;
    close(memory);
    return done;
}

static void fail(const char *what, const char *why)
{
    struct {
        uint32_t kind;
        char text[WINDOW_TEXT_BYTES - sizeof(uint32_t)];
    } packet = {.kind = WINDOW_FAILED};

    snprintf(packet.text, sizeof(packet.text), "%s: %s", what, why);
    if (!w.may_end)
        fprintf(stderr, "trapeze: %s\n", packet.text); /* the machine is another one's */
    host_send(w.socket, &packet, sizeof(packet.kind) + strlen(packet.text), -1);
}

int main(int argc, char **argv)
{
    SDL_Thread *listener;
    SDL_Event event;

    if (argc != 4) {
        fprintf(stderr, "trapeze-window is started by 'trapeze run --display sdl' and 'trapeze "
                        "open'.\n");
        return 2;
    }
    w.socket = atoi(argv[1]);
    w.name = argv[2];
    w.may_end = strcmp(argv[3], "end") == 0;
    if (!open_window()) {
        fail("there can be no window here", SDL_GetError());
        return 1;
    }
    if (!say_hello()) {
        fail("memory for the screen", strerror(errno));
        return 1;
    }
    listener = SDL_CreateThread(listen_to_machine, "listen", NULL);
    if (!listener)
        return 1;
    tell(WINDOW_READY, 0, 0);
    while (SDL_WaitEvent(&event) && take_event(&event))
        ;
    shutdown(w.socket, SHUT_RDWR);
    SDL_WaitThread(listener, NULL); /* it wakes the window, which has to be there */
    /* No SDL_Quit(): it destroys the window by one connection to the X server while what woke it
     * may still wait on another, whose error (BadWindow) would end the program with status 1. */
    return 0;
}
