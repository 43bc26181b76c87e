/*
 * run_values.c - what options of trapeze run take that is more than a word or a number
 */
#include "cli/run.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "machine/pc.h"
#include "trapeze/chardev.h"
#include "trapeze/device.h"
#include "trapeze/machine.h"

void run_stats_choices(cli_put_choice *put, void *opaque)
{
    put(opaque, "text", "a line for each count");
    put(opaque, "json", "one line, an object for each processor");
}

void run_sandbox_choices(cli_put_choice *put, void *opaque)
{
    put(opaque, "on", "the process keeps what a running machine needs of the kernel");
    put(opaque, "off", "it keeps all that its user may do");
}

void run_balloon_choices(cli_put_choice *put, void *opaque)
{
    put(opaque, "on", "the guest can give memory back to the host");
    put(opaque, "off", "it has no device for that");
}

void run_console_choices(cli_put_choice *put, void *opaque)
{
    put(opaque, "serial", "the terminal is COM1's (ttyS0)");
    put(opaque, "virtio", "the terminal is a virtio console's (hvc0)");
}

void run_smm_choices(cli_put_choice *put, void *opaque)
{
    put(opaque, "auto", "if the firmware keeps its secrets there");
    put(opaque, "on", "SMIs are taken");
    put(opaque, "off", "SMIs are lost");
}

void run_entry_choices(cli_put_choice *put, void *opaque)
{
    put(opaque, "auto", "64-bit where the kernel offers it, else 32-bit");
    put(opaque, "32", "the 32-bit entry point");
    put(opaque, "64", "the 64-bit entry point");
}

void run_chardev_choices(cli_put_choice *put, void *opaque)
{
    for (unsigned i = 0; chardev_kind_name(i); i++)
        put(opaque, chardev_kind_name(i), chardev_kind_summary(i));
}

enum pc_entry run_parse_entry(const char *text)
{
    if (strcmp(text, "32") == 0)
        return PC_ENTRY_32;
    return strcmp(text, "64") == 0 ? PC_ENTRY_64 : PC_ENTRY_AUTO;
}

static void log_level_put(void *opaque, const char *name, const char *summary)
{
    struct {
        const char *wanted;
        int index, found;
    } *search = opaque;

    (void)summary;
    if (strcmp(name, search->wanted) == 0)
        search->found = search->index;
    search->index++;
}

void run_set_log_level(const char *name)
{
    struct {
        const char *wanted;
        int index, found;
    } search = {name, 0, LOG_INFO};

    cli_log_level_choices(log_level_put, &search);
    log_threshold = (enum log_level)search.found;
}

int run_parse_rtc(const char *text, uint64_t *out_wall_ns, struct error *err)
{
    struct tm tm = {0};
    const char *end;
    uint64_t seconds;

    if (strcmp(text, "now") == 0) {
        *out_wall_ns = 0;
        return 0;
    }
    if (text[0] == '@') {
        if (property_parse_u64(text + 1, UINT64_MAX / NANOSECONDS_PER_SECOND, &seconds, err))
            return -EINVAL;
    } else {
        end = strptime(text, "%Y-%m-%d", &tm);
        if (end && *end)
            end = strptime(end, "T%H:%M:%S", &tm);
        if (!end || *end || tm.tm_year < 70 || tm.tm_year > 500)
            return error_set(err, EINVAL,
                             "--rtc '%s' is not a time: write now, 2024-01-31T12:00:00 (UTC) or "
                             "@SECONDS since 1970",
                             text);
        seconds = (uint64_t)timegm(&tm);
    }
    *out_wall_ns = seconds ? seconds * NANOSECONDS_PER_SECOND : 1;
    return 0;
}

int run_parse_uuid(const char *text, uint8_t out[16], struct error *err)
{
    static const char form[] = "hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh";
    static const char digits[] = "0123456789abcdef";
    unsigned count = 0;
    size_t n = 0;

    memset(out, 0, 16);
    for (; form[n]; n++) {
        if (form[n] == '-' ? text[n] != '-' : !isxdigit((unsigned char)text[n]))
            break;
        if (form[n] == '-')
            continue;
        out[count / 2] =
            (uint8_t)(out[count / 2] << 4 | (strchr(digits, tolower(text[n])) - digits));
        count++;
    }
    if (form[n] || text[n])
        return error_set(err, EINVAL,
                         "--uuid '%s' is not a UUID like 123e4567-e89b-12d3-a456-426614174000",
                         text);
    return 0;
}
