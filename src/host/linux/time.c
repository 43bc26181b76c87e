/*
 * time.c - the host's clocks
 */
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
