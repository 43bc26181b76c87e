/*
 * time.c - the host's clocks
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "host/host.h"

static uint64_t read_clock_ns(clockid_t id)
{
    struct timespec now;

    clock_gettime(id, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t host_monotonic_ns(void)
{
    return read_clock_ns(CLOCK_MONOTONIC);
}

uint64_t host_wall_ns(void)
{
    return read_clock_ns(CLOCK_REALTIME);
}

uint64_t host_cpu_ns(void)
{
    return read_clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

#if defined(__x86_64__)
#include <x86intrin.h>

uint64_t host_ticks(void)
{
    unsigned cpu;

    return __rdtscp(&cpu);
}

/* Linux has made sure of it if this is what it takes the time from. */
bool host_ticks_are_steady(void)
{
    FILE *file = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "r");
    char name[8] = "";

    if (!file)
        return false;
    if (!fgets(name, sizeof(name), file))
        name[0] = 0;
    fclose(file);
    return strcmp(name, "tsc\n") == 0;
}
#else
uint64_t host_ticks(void)
{
    return 0;
}
bool host_ticks_are_steady(void)
{
    return false;
}
#endif
