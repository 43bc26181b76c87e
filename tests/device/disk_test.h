/*
 * disk_test.h - images and properties, for the tests of all disk controllers
 */
#ifndef TESTS_DEVICE_DISK_TEST_H
#define TESTS_DEVICE_DISK_TEST_H

#include "cmocka_all.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device_test.h"
#include "trapeze/block.h"
#include "trapeze/device.h"
#include "trapeze/machine.h"

static inline void disk_fill(uint8_t *bytes, size_t size, unsigned seed)
{
    for (size_t n = 0; n < size; n++)
        bytes[n] = (uint8_t)(n * 7 + n / 256 + seed);
}

/* The first size bytes of the image, as disk_fill() makes them. */
static inline void disk_write_image(const char *path, size_t size, unsigned seed)
{
    uint8_t *bytes = malloc(size);
    int fd = open(path, O_WRONLY);

    disk_fill(bytes, size, seed);
    assert_int_equal(pwrite(fd, bytes, size, 0), size);
    close(fd);
    free(bytes);
}

static inline void disk_read_image(const char *path, uint64_t offset, void *out, size_t size)
{
    int fd = open(path, O_RDONLY);

    assert_int_equal(pread(fd, out, size, (off_t)offset), size);
    close(fd);
}

static inline bool disk_image_is(const char *path, uint64_t offset, uint8_t value, size_t size)
{
    uint8_t *bytes = malloc(size);
    bool is = true;

    disk_read_image(path, offset, bytes, size);
    for (size_t n = 0; n < size; n++)
        is &= bytes[n] == value;
    free(bytes);
    return is;
}

/* ---- errors that pause the machine ---- */

static inline void disk_pause_for(void *machine, const char *why)
{
    machine_pause_for((struct machine *)machine, why);
}

/* The main loop has taken up what was asked for. */
static inline void disk_wait_for_pause(struct device_test *t)
{
    for (unsigned n = 0; n < 1000 && machine_get_state(t->machine) != MACHINE_PAUSED; n++)
        loop_once(t->loop, 10000000);
    assert_int_equal(machine_get_state(t->machine), MACHINE_PAUSED);
}

/* Attach one more, with a property and a drive (NULL: without); an error must have text in it. */
static inline int disk_attach_result(struct machine *machine, const struct device_class *class,
                                     const char *name, const char *value, void *drive,
                                     const char *text)
{
    struct error err = {0};
    struct device *dev = device_new(machine, class, NULL, &err);
    int result;

    assert_non_null(dev);
    if (name)
        assert_int_equal(device_set(dev, name, value, &err), 0);
    if (drive)
        assert_int_equal(device_set_pointer(dev, "drive", drive, &err), 0);
    result = device_attach(dev, &err);
    if (result)
        assert_non_null(strstr(err.text, text));
    return result;
}

#endif
