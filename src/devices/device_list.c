/*
 * device_list.c - the table of device classes, in alphabetical order
 */
#include <string.h>

#include "devices/apic.h"
#include "devices/hpet.h"
#include "devices/ioapic.h"
#include "devices/pic.h"
#include "devices/pit.h"
#include "devices/rtc.h"
#include "trapeze/device.h"

const struct device_class *const device_classes[] = {
    &apic_class, &hpet_class, &ioapic_class, &pic_class, &pit_class, &rtc_class, NULL,
};

const struct device_class *device_class_find(const char *name)
{
    for (size_t i = 0; device_classes[i]; i++) {
        if (!strcmp(device_classes[i]->name, name))
            return device_classes[i];
    }
    return NULL;
}
