/*
 * storm.c - a program of X that draws its whole screen anew as often as it goes
 *
 * storm SECONDS: a window without a frame as large as the screen, another picture each time. Says
 * "drew N frames" when they are over.
 */
#include <X11/Xlib.h>
#include <X11/Xutil.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
    Display *display = XOpenDisplay(NULL);
    if (!display || argc < 2) {
        fprintf(stderr, "storm: there is no display, or no number of seconds\n");
        return 1;
    }
    int screen = DefaultScreen(display);
    unsigned width = DisplayWidth(display, screen), height = DisplayHeight(display, screen);
    XSetWindowAttributes attributes = {.override_redirect = True};
    Window window =
        XCreateWindow(display, RootWindow(display, screen), 0, 0, width, height, 0, CopyFromParent,
                      InputOutput, CopyFromParent, CWOverrideRedirect, &attributes);
    XMapRaised(display, window);
    uint32_t *pixels = malloc(4ul * width * height);
    XImage *image =
        XCreateImage(display, DefaultVisual(display, screen), DefaultDepth(display, screen),
                     ZPixmap, 0, (char *)pixels, width, height, 32, 0);
    if (!pixels || !image)
        return 1;
    unsigned frames = 0;
    for (double end = now_s() + atof(argv[1]); now_s() < end; frames++) {
        for (unsigned n = 0; n < width * height; n++)
            pixels[n] = (n % width + frames) << 8 ^ (n / width + 3 * frames);
        XPutImage(display, window, DefaultGC(display, screen), image, 0, 0, 0, 0, width, height);
        XSync(display, False);
    }
    printf("drew %u frames\n", frames);
    return 0;
}
