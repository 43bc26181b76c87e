/*
 * run_device.c - devices of the command line, "CLASS[,PROPERTY=VALUE]..."
 */
#include "cli/run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices/devices.h"
#include "machine/pc.h"
#include "trapeze/device.h"
#include "trapeze/machine.h"
#include "trapeze/usb_host.h"

/* "rtc,help" */
static bool wants_device_help(const char *text)
{
    size_t length = strlen(text);

    return length > 5 && strcmp(text + length - 5, ",help") == 0;
}

const struct device_class *run_find_class(const char *text, struct error *err)
{
    char name[64];

    snprintf(name, sizeof(name), "%.*s", (int)strcspn(text, ","), text);
    if (cli_check_choice("device", name, cli_device_choices, err))
        return NULL;
    return device_class_find(name);
}

/* Where a property of a list ends: at a comma that is not doubled, or at the end. */
static char *property_end(char *property)
{
    while (*property && (*property != ',' || property[1] == ','))
        property += *property == ',' ? 2 : 1;
    return property;
}

const char *run_take_property(char *properties, const char *key, char out[32])
{
    return run_take_text(properties, key, out, 32);
}

const char *run_take_text(char *properties, const char *key, char *out, size_t out_size)
{
    size_t key_length = strlen(key);

    for (char *p = properties, *end; *p; p = *end ? end + 1 : end) {
        end = property_end(p);
        if (strncmp(p, key, key_length) != 0)
            continue;
        snprintf(out, out_size, "%.*s", (int)(end - p - (ptrdiff_t)key_length), p + key_length);
        if (*end)
            memmove(p, end + 1, strlen(end + 1) + 1);
        else
            p[p > properties ? -1 : 0] = '\0';
        return out;
    }
    return NULL;
}

/* "usb-host,id=46f4:0001": which of the host's; else what it is called here. */
static bool is_host_product(const struct device_class *class, const char *id)
{
    return class == &usb_host_class && id && strchr(id, ':');
}

/* NULL with err. */
static struct device *add_device(struct machine *machine, const struct device_class *class,
                                 const char *text, struct error *err)
{
    const char *comma = strchr(text, ',');
    char *properties = strdup(comma ? comma + 1 : "");
    struct device *dev = NULL;
    char id[32];
    int result = -EINVAL;

    if (class && properties) {
        const char *chosen_id = run_take_property(properties, "id=", id);
        const char *product = is_host_product(class, chosen_id) ? chosen_id : NULL;

        dev = device_new(machine, class, product ? NULL : chosen_id, err);
        result = dev ? 0 : -EINVAL;
        if (dev && product)
            result = device_set(dev, "product", product, err);
        if (!result && *properties)
            result = properties_parse(class->properties, dev, properties, err);
        if (result == 0)
            result = device_attach(dev, err);
        if (result == 0)
            pc_wire_added(machine, dev);
    }
    free(properties);
    if (!result)
        return dev;
    error_prefix(err, "--device %s: ", text);
    device_free(dev);
    return NULL;
}

int run_add_device(struct machine *machine, const char *text, struct error *err)
{
    const struct device_class *class = run_find_class(text, err);

    if (class && run_is_usb(class->name) && run_need_usb(machine, err))
        return -EINVAL;
    return add_device(machine, class, text, err) ? 0 : -EINVAL;
}

struct device *run_plug_usb(struct machine *machine, const char *text, struct error *err)
{
    const struct device_class *class = run_find_class(text, err);

    if (!class)
        return NULL;
    if (!run_is_usb(class->name) || !strcmp(class->name, "usb-storage")) {
        error_set(err, ENOTSUP, "%s: only devices on USB ports come and go; disks with --disk",
                  class->name);
        return NULL;
    }
    return add_device(machine, class, text, err);
}

/* The same, at the place where it is found here. */
static int hand_over_host_device(const char *text, char **out_text, struct error *err)
{
    char *rest = strdup(text), at[64] = "", product[32] = "", id[32], place[32];
    int result;

    if (!rest)
        return error_set(err, ENOMEM, "out of memory");
    run_take_text(rest, "at=", at, sizeof(at));
    run_take_property(rest, "product=", product);
    if (is_host_product(&usb_host_class, run_take_property(rest, "id=", id)))
        snprintf(product, sizeof(product), "%s", id);
    free(rest);
    result = usb_host_hand_over(product, at, place, sizeof(place), err);
    if (!result && asprintf(out_text, "%s,at=%s", text, place) < 0)
        result = error_set(err, ENOMEM, "out of memory");
    return result;
}

int run_hand_over_device(const char *text, char **out_text, struct error *err)
{
    const struct device_class *class = run_find_class(text, err);
    int result = class ? 0 : -EINVAL;

    if (class == &usb_host_class)
        result = hand_over_host_device(text, out_text, err);
    else if (class && !(*out_text = strdup(text)))
        result = error_set(err, ENOMEM, "out of memory");
    if (result)
        error_prefix(err, "--device %s: ", text);
    return result;
}

bool run_answer_device_help(const struct cli_texts *devices)
{
    struct error err = {0};

    for (size_t i = 0; i < devices->count; i++) {
        const struct device_class *class;

        if (!wants_device_help(devices->items[i]))
            continue;
        class = run_find_class(devices->items[i], &err);
        if (class)
            cli_print_properties(stdout, class);
        return class != NULL;
    }
    return false;
}
