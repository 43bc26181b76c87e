/*
 * run_web.c - trapeze run --web: a page in the browser
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cli/run.h"
#include "control/web.h"
#include "trapeze/machine.h"

bool run_is_web_address(const char *word)
{
    const char *colon = strrchr(word, ':');
    const char *port = colon ? colon + 1 : word;

    return strcmp(word, RUN_WEB_ANYWHERE) == 0 ||
           (*port && colon != word && strlen(word) < 200 && !port[strspn(port, "0123456789")]);
}

int run_check_web(const char *text, struct error *err)
{
    if (!text || run_is_web_address(text))
        return 0;
    return error_set(err, EINVAL, "--web %s: give [HOST:]PORT", text);
}

int run_open_web(struct web **out, struct machine *machine, struct monitor *monitor,
                 struct chardev *console, const char *text, struct error *err)
{
    static char program[PATH_MAX], page[2 * PATH_MAX];
    struct web_config config = {.page = page, .monitor = monitor, .console = console};

    if (!text)
        return 0;
    if (strcmp(text, RUN_WEB_ANYWHERE))
        config.address = text;
    if (!cli_find_data("", "web", program, page, err))
        *out = web_new(machine, &config, err);
    if (!*out) {
        error_prefix(err, "--web: ");
        return -EINVAL;
    }
    /* It is the only way in, so it is said at any level of messages. */
    fprintf(stderr, "trapeze: web page: %s\n", web_url(*out));
    if (config.address && !run_is_loopback(config.address))
        log_warn("--web %s is not encrypted: whoever reads along can use the machine. "
                 "'ssh -L PORT:localhost:PORT HOST' is",
                 text);
    return 0;
}
