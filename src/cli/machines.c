/*
 * machines.c - running machines by their names: where their monitors' sockets are
 *
 * $XDG_RUNTIME_DIR/trapeze, or /tmp/trapeze-UID where there is none. Nobody else may be able to put
 * a socket there, so the folder has to belong to the user and be closed to others.
 */
#include "cli/machines.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char suffix[] = ".sock";

static int folder_path(char out[MACHINE_PATH_BYTES], struct error *err)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    struct stat status;
    int size;

    if (runtime && *runtime)
        size = snprintf(out, MACHINE_PATH_BYTES, "%s/trapeze", runtime);
    else
        size = snprintf(out, MACHINE_PATH_BYTES, "/tmp/trapeze-%u", (unsigned)getuid());
    if (size >= MACHINE_PATH_BYTES)
        return error_set(err, ENAMETOOLONG, "XDG_RUNTIME_DIR is too long");
    if (mkdir(out, 0700) && errno != EEXIST)
        return error_set(err, errno, "%s: %s", out, strerror(errno));
    if (lstat(out, &status) || !S_ISDIR(status.st_mode) || status.st_uid != getuid() ||
        status.st_mode & 077)
        return error_set(err, EPERM, "%s is not a folder that only you can use", out);
    return 0;
}

int machines_path(const char *name, char out[MACHINE_PATH_BYTES], struct error *err)
{
    char folder[MACHINE_PATH_BYTES];

    if (!*name || *name == '.' || strchr(name, '/') || strchr(name, ':'))
        return error_set(err, EINVAL, "'%s' cannot be a file's name", name);
    if (folder_path(folder, err))
        return -err->code;
    if (snprintf(out, MACHINE_PATH_BYTES, "%s/%s%s", folder, name, suffix) >= MACHINE_PATH_BYTES)
        return error_set(err, ENAMETOOLONG, "the name '%s' is too long", name);
    return 0;
}

int machines_find(const char *word, char out[MACHINE_PATH_BYTES], struct error *err)
{
    struct error why = {0};

    if (!strchr(word, '/') && !strchr(word, ':') && access(word, F_OK) &&
        !machines_path(word, out, &why) && access(out, F_OK) == 0)
        return 0;
    if (snprintf(out, MACHINE_PATH_BYTES, "%s", word) >= MACHINE_PATH_BYTES)
        return error_set(err, ENAMETOOLONG, "'%s' is too long for a socket's path", word);
    return 0;
}

static int is_socket(const struct dirent *entry)
{
    size_t length = strlen(entry->d_name);

    return length >= sizeof(suffix) && !strcmp(entry->d_name + length + 1 - sizeof(suffix), suffix);
}

void machines_choices(cli_put_choice *put, void *opaque)
{
    struct dirent **entries = NULL;
    char folder[MACHINE_PATH_BYTES];
    struct error ignored = {0};
    int count = folder_path(folder, &ignored) ? 0 : scandir(folder, &entries, is_socket, alphasort);

    for (int n = 0; n < count; n++) {
        entries[n]->d_name[strlen(entries[n]->d_name) + 1 - sizeof(suffix)] = '\0';
        put(opaque, entries[n]->d_name, "");
        free(entries[n]);
    }
    free(entries);
}
