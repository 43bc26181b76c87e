/*
 * gdb_monitor.c - "monitor ..." in the debugger: commands of the monitor, and a few of its own
 */
#include "control/gdb_session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/monitor.h"

#define OUTPUT_CHUNK_BYTES 4096

/* Output of "monitor ..." goes ahead of the reply, in pieces. */
static void send_output(struct gdbstub *stub, const char *text, size_t size)
{
    for (size_t done = 0; done < size;) {
        size_t part = size - done < OUTPUT_CHUNK_BYTES ? size - done : OUTPUT_CHUNK_BYTES;

        stub->reply.size = 0;
        gdb_put(&stub->reply, "O");
        gdb_put_hex(&stub->reply, text + done, part);
        gdb_send_frame(stub);
        done += part;
    }
    stub->reply.size = 0;
}

static void send_output_line(struct gdbstub *stub, const char *text)
{
    char line[ERROR_TEXT_SIZE + 2];
    int length = snprintf(line, sizeof(line), "%s\n", text);

    send_output(stub, line, (size_t)length);
}

static void monitor_phys(struct gdbstub *stub, const char *value)
{
    if (value && strcmp(value, "on") == 0)
        stub->physical = true;
    else if (value && strcmp(value, "off") == 0)
        stub->physical = false;
    else if (value)
        send_output_line(stub, "phys can be on or off");
    send_output_line(stub, stub->physical ? "addresses are guest-physical"
                                          : "addresses are linear, of the current thread");
}

static void print_command(void *opaque, const char *name, const char *summary)
{
    char line[160];

    snprintf(line, sizeof(line), "%-12s %s", name, summary);
    send_output_line(opaque, line);
}

static void monitor_help(struct gdbstub *stub)
{
    print_command(stub, "phys", "see guest-physical memory: phys on, phys off");
    monitor_list_commands(print_command, stub);
}

static void monitor_words(struct gdbstub *stub, const char *const *words, size_t count)
{
    struct error err = {0};
    json_t *request = monitor_parse_words(words, count, &err);
    json_t *answer = request ? monitor_execute(stub->machine, request) : NULL;
    char *text = NULL;
    size_t size = 0;
    FILE *out = answer ? open_memstream(&text, &size) : NULL;

    if (out) {
        monitor_print_reply(out, answer);
        fclose(out);
        send_output(stub, text, size);
        free(text);
    } else {
        send_output_line(stub, err.code ? err.text : "out of memory");
    }
    json_decref(answer);
    json_decref(request);
}

static void monitor_line(struct gdbstub *stub, char *line)
{
    const char *words[MONITOR_MAX_WORDS + 1] = {NULL};
    size_t count = monitor_split_words(line, words);

    if (count == 0 || strcmp(words[0], "help") == 0)
        monitor_help(stub);
    else if (strcmp(words[0], "phys") == 0)
        monitor_phys(stub, words[1]);
    else if (strcmp(words[0], "resume") == 0 || strcmp(words[0], "pause") == 0)
        send_output_line(stub, "use the debugger's own continue and interrupt");
    else
        monitor_words(stub, words, count);
}

void packet_monitor(struct gdbstub *stub, const char *text, size_t size)
{
    static char line[GDB_PACKET_BYTES / 2 + 1];
    size_t length = strlen(text) / 2;

    if (length >= sizeof(line) || !gdb_get_bytes(&text, line, length) || *text) {
        gdb_reply_error(stub, EINVAL);
        return;
    }
    line[length] = '\0';
    monitor_line(stub, line);
    gdb_reply_text(stub, "OK");
}
