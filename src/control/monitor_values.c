/*
 * monitor_values.c - arguments and members of replies
 */
#include "control/monitor_internal.h"

#include <errno.h>
#include <string.h>

#include "trapeze/machine.h"
#include "trapeze/property.h"

/* Text from anywhere, cut at the first byte that is not UTF-8 (an error text may be cut inside
 * a character). */
json_t *monitor_string(const char *text)
{
    json_t *string = json_string(text);

    for (size_t length = strlen(text); !string && length > 0; length--)
        string = json_stringn(text, length - 1);
    return string;
}

json_t *monitor_hex(uint64_t value)
{
    return json_sprintf("0x%llx", (unsigned long long)value);
}

void call_set(struct call *call, const char *name, json_t *value)
{
    json_object_set_new(call->reply, name, value);
}

const char *call_text(const struct call *call, const char *name)
{
    return json_string_value(json_object_get(call->request, name));
}

bool call_flag(const struct call *call, const char *name)
{
    return json_is_true(json_object_get(call->request, name));
}

/* A number, or text like "0x7c00" and "64K", since JSON numbers end at 2^53. */
int monitor_number(const json_t *value, uint64_t *out_value, struct error *err)
{
    if (json_is_string(value))
        return property_parse_u64(json_string_value(value), UINT64_MAX, out_value, err);
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return error_set(err, EINVAL,
                         "must be a number that is not negative, or text like "
                         "\"0x7c00\" or \"64K\"");
    *out_value = (uint64_t)json_integer_value(value);
    return 0;
}

/* The argument was checked already; absent ones give the default. */
uint64_t call_number(const struct call *call, const char *name, uint64_t initial)
{
    const json_t *value = json_object_get(call->request, name);
    uint64_t number = initial;

    if (value)
        monitor_number(value, &number, NULL);
    return number;
}

int call_expect_alive(struct call *call, struct error *err)
{
    if (machine_get_state(call->machine) != MACHINE_STOPPED)
        return 0;
    return error_set(err, ESHUTDOWN, "the machine is stopped");
}
