/*
 * data.c - where the files are that come with the program
 */
#include "cli/cli.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int cli_find_data(const char *in_tree, const char *name, char program[PATH_MAX],
                  char path[2 * PATH_MAX], struct error *err)
{
    const char *const places[] = {in_tree, "share/trapeze"};
    ssize_t length = readlink("/proc/self/exe", program, PATH_MAX - 1);
    char folder[PATH_MAX];

    if (length < 0)
        return error_set(err, errno, "/proc/self/exe: %s", strerror(errno));
    program[length] = '\0';
    strcpy(folder, program);
    dirname(folder);
    for (size_t n = 0; n < sizeof(places) / sizeof(places[0]); n++) {
        snprintf(path, 2 * PATH_MAX, "%s/../%s/%s", folder, places[n], name);
        if (access(path, R_OK) == 0)
            return 0;
    }
    return error_set(err, ENOENT, "%s is neither in %s/../%s nor in %s/../share/trapeze", name,
                     folder, in_tree, folder);
}
