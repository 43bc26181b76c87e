/*
 * sound_guest.c - in the guest of sound.py: play a tone by ALSA, record, beep by the PC speaker
 *
 * "sound_guest tone RATE HZ MS", "sound_guest record MS", "sound_guest beep HZ MS".
 */
#include <fcntl.h>
#include <linux/input.h>
#include <math.h>
#include <sound/asound.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define PERIOD 1024u

static int check(const char *what, int result)
{
    if (result >= 0)
        return result;
    perror(what);
    exit(1);
}

/* All volumes as high as they can be, all switches on. */
static void open_mixer(void)
{
    int fd = check("control", open("/dev/snd/controlC0", O_RDWR));
    static struct snd_ctl_elem_id ids[64];
    struct snd_ctl_elem_list list = {.space = 64, .pids = ids};

    check("list", ioctl(fd, SNDRV_CTL_IOCTL_ELEM_LIST, &list));
    for (unsigned n = 0; n < list.used; n++) {
        struct snd_ctl_elem_info info = {.id = ids[n]};
        struct snd_ctl_elem_value value = {.id = ids[n]};

        check("info", ioctl(fd, SNDRV_CTL_IOCTL_ELEM_INFO, &info));
        printf("control %s\n", info.id.name);
        if (!(info.access & SNDRV_CTL_ELEM_ACCESS_WRITE) || info.count > 2)
            continue;
        for (unsigned i = 0; i < info.count; i++)
            value.value.integer.value[i] =
                info.type == SNDRV_CTL_ELEM_TYPE_INTEGER ? info.value.integer.max : 1;
        if (info.type == SNDRV_CTL_ELEM_TYPE_INTEGER || info.type == SNDRV_CTL_ELEM_TYPE_BOOLEAN)
            check("write", ioctl(fd, SNDRV_CTL_IOCTL_ELEM_WRITE, &value));
    }
    close(fd);
}

static void set_mask(struct snd_pcm_hw_params *p, unsigned which, unsigned bit)
{
    memset(&p->masks[which - SNDRV_PCM_HW_PARAM_FIRST_MASK], 0, sizeof(struct snd_mask));
    p->masks[which - SNDRV_PCM_HW_PARAM_FIRST_MASK].bits[0] = 1u << bit;
}

static void set_number(struct snd_pcm_hw_params *p, unsigned which, unsigned value)
{
    struct snd_interval *i = &p->intervals[which - SNDRV_PCM_HW_PARAM_FIRST_INTERVAL];

    *i = (struct snd_interval){.min = value, .max = value, .integer = 1};
}

static int open_pcm(const char *path, unsigned rate)
{
    int fd = check(path, open(path, O_RDWR));
    struct snd_pcm_hw_params p;

    memset(&p, 0xff, sizeof(p));
    for (unsigned n = 0; n < sizeof(p.intervals) / sizeof(p.intervals[0]); n++)
        p.intervals[n] = (struct snd_interval){.min = 0, .max = ~0u};
    p.flags = 0;
    p.rmask = ~0u;
    p.cmask = p.info = 0;
    set_mask(&p, SNDRV_PCM_HW_PARAM_ACCESS, SNDRV_PCM_ACCESS_RW_INTERLEAVED);
    set_mask(&p, SNDRV_PCM_HW_PARAM_FORMAT, SNDRV_PCM_FORMAT_S16_LE);
    set_number(&p, SNDRV_PCM_HW_PARAM_CHANNELS, 2);
    set_number(&p, SNDRV_PCM_HW_PARAM_RATE, rate);
    set_number(&p, SNDRV_PCM_HW_PARAM_PERIOD_SIZE, PERIOD);
    set_number(&p, SNDRV_PCM_HW_PARAM_PERIODS, 8);
    check("parameters", ioctl(fd, SNDRV_PCM_IOCTL_HW_PARAMS, &p));
    check("prepare", ioctl(fd, SNDRV_PCM_IOCTL_PREPARE));
    return fd;
}

static void tone(unsigned rate, unsigned hz, unsigned ms)
{
    int fd = open_pcm("/dev/snd/pcmC0D0p", rate), underruns = 0;
    unsigned total = (unsigned)((unsigned long)rate * ms / 1000);
    short samples[PERIOD][2];

    for (unsigned at = 0; at < total; at += PERIOD) {
        struct snd_xferi x = {.buf = samples, .frames = total - at < PERIOD ? total - at : PERIOD};

        for (unsigned n = 0; n < x.frames; n++)
            samples[n][0] = samples[n][1] =
                (short)(10000 * sin(2 * 3.14159265358979 * hz * (at + n) / rate));
        while (ioctl(fd, SNDRV_PCM_IOCTL_WRITEI_FRAMES, &x) < 0) {
            underruns++;
            check("prepare", ioctl(fd, SNDRV_PCM_IOCTL_PREPARE));
        }
    }
    check("drain", ioctl(fd, SNDRV_PCM_IOCTL_DRAIN));
    printf("played %u frames, %d underruns\n", total, underruns);
}

static void record(unsigned ms)
{
    int fd = open_pcm("/dev/snd/pcmC0D0c", 48000);
    short samples[PERIOD][2];
    unsigned frames = 0, loud = 0;

    while (frames < 48 * ms) {
        struct snd_xferi x = {.buf = samples, .frames = PERIOD};

        check("read", ioctl(fd, SNDRV_PCM_IOCTL_READI_FRAMES, &x));
        frames += (unsigned)x.result;
        for (unsigned n = 0; n < (unsigned)x.result; n++)
            loud += samples[n][0] || samples[n][1];
    }
    printf("recorded %u frames, %u loud\n", frames, loud);
}

static void beep(int hz, unsigned ms)
{
    struct input_event event = {.type = EV_SND, .code = SND_TONE, .value = hz};
    char path[32], name[64] = "";
    int fd = -1;

    for (unsigned n = 0; n < 32 && !strstr(name, "Speaker"); n++) {
        if (fd >= 0)
            close(fd);
        snprintf(path, sizeof(path), "/dev/input/event%u", n);
        fd = open(path, O_RDWR);
        if (fd >= 0)
            ioctl(fd, EVIOCGNAME(sizeof(name)), name);
    }
    check("beep", (int)write(fd, &event, sizeof(event)));
    usleep(ms * 1000);
    event.value = 0;
    check("beep", (int)write(fd, &event, sizeof(event)));
    printf("beeped at %s\n", name);
}

int main(int count, char **words)
{
    if (count == 5 && !strcmp(words[1], "tone")) {
        open_mixer();
        tone((unsigned)atoi(words[2]), (unsigned)atoi(words[3]), (unsigned)atoi(words[4]));
    } else if (count == 3 && !strcmp(words[1], "record")) {
        record((unsigned)atoi(words[2]));
    } else if (count == 4 && !strcmp(words[1], "beep")) {
        beep(atoi(words[2]), (unsigned)atoi(words[3]));
    }
    return 0;
}
