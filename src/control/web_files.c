/*
 * web_files.c - the files of the web page, in memory: a machine in its sandbox opens none
 *
 * A path is looked up in the list of what was read, so there is no way to any other file.
 *
 * xterm.js is packaged as modules of CommonJS, which browsers don't know. They become one module of
 * theirs, with a function for each: modules["public/Terminal.js"](exports, require, module).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/web_internal.h"

#define MAX_FILES 512u
#define MAX_BYTES (16u << 20) /* together */
#define MAX_DEPTH 4u
#define MAX_PATH  512u

static const struct {
    const char *suffix, *type;
} types[] = {
    {".html", "text/html; charset=utf-8"},
    {".js", "text/javascript; charset=utf-8"},
    {".css", "text/css; charset=utf-8"},
    {".svg", "image/svg+xml"},
};

static bool ends_with(const char *name, const char *suffix)
{
    size_t length = strlen(name), size = strlen(suffix);

    return length >= size && strcmp(name + length - size, suffix) == 0;
}

/* NULL: it is not for browsers. */
static const char *type_of(const char *name)
{
    for (size_t n = 0; n < sizeof(types) / sizeof(types[0]); n++)
        if (ends_with(name, types[n].suffix))
            return types[n].type;
    return NULL;
}

const struct web_file *web_files_find(const struct web_files *files, const char *path)
{
    for (size_t n = 0; n < files->count; n++)
        if (strcmp(files->files[n].path, path) == 0)
            return &files->files[n];
    return NULL;
}

/* An empty one. */
static struct web_file *add_file(struct web_files *files, const char *path, struct error *err)
{
    struct web_file *grown = realloc(files->files, (files->count + 1) * sizeof(struct web_file)),
                    *file;

    if (!grown) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    files->files = grown;
    file = grown + files->count;
    *file = (struct web_file){.path = strdup(path), .type = type_of(path)};
    if (!file->path) {
        error_set(err, ENOMEM, "out of memory");
        return NULL;
    }
    files->count++;
    return file;
}

static int append(struct web_file *file, const void *bytes, size_t size, struct error *err)
{
    uint8_t *grown = realloc(file->bytes, file->size + size + 1);

    if (!grown)
        return error_set(err, ENOMEM, "out of memory");
    memcpy(grown + file->size, bytes, size);
    file->bytes = grown;
    file->size += size;
    return 0;
}

static int append_text(struct web_file *file, const char *text, struct error *err)
{
    return append(file, text, strlen(text), err);
}

static int append_file(struct web_files *files, struct web_file *file, const char *name,
                       struct error *err)
{
    uint8_t bytes[16384];
    int fd = open(name, O_RDONLY | O_CLOEXEC), result = 0;
    ssize_t n = 0;

    if (fd < 0)
        return error_set(err, errno, "%s: %s", name, strerror(errno));
    while (!result && (n = read(fd, bytes, sizeof(bytes))) > 0) {
        files->bytes += (size_t)n;
        if (files->bytes > MAX_BYTES)
            result =
                error_set(err, EFBIG, "%s: the files have more than %u bytes", name, MAX_BYTES);
        else
            result = append(file, bytes, (size_t)n, err);
    }
    if (!result && n < 0)
        result = error_set(err, errno, "%s: %s", name, strerror(errno));
    close(fd);
    return result;
}

/* ---- folders ---- */

struct walk {
    struct web_files *files;
    const char *path;        /* of the URL, for the folder */
    struct web_file *bundle; /* they go into this one; NULL: each is a file */
    struct error *err;
};

static int add_module(struct walk *walk, const char *name, const char *relative)
{
    char head[2 * MAX_PATH];

    snprintf(head, sizeof(head), "modules[\"%s\"] = function (exports, require, module) {\n",
             relative);
    if (append_text(walk->bundle, head, walk->err) ||
        append_file(walk->files, walk->bundle, name, walk->err))
        return -EIO;
    return append_text(walk->bundle, "\n};\n", walk->err);
}

static int add_plain(struct walk *walk, const char *name, const char *relative)
{
    char path[2 * MAX_PATH];
    struct web_file *file;

    if (walk->files->count == MAX_FILES)
        return error_set(walk->err, EMFILE, "%s: there are more than %u files", name, MAX_FILES);
    snprintf(path, sizeof(path), "%s/%s", walk->path, relative);
    file = add_file(walk->files, path, walk->err);
    return file ? append_file(walk->files, file, name, walk->err) : -ENOMEM;
}

/* Of xterm.js only what the terminal itself is made of. */
static bool is_wanted(const struct walk *walk, const char *name)
{
    if (name[0] == '.' || !type_of(name))
        return false;
    return !walk->bundle || (ends_with(name, ".js") && !ends_with(name, ".test.js"));
}

static int walk_folder(struct walk *walk, const char *folder, const char *relative, unsigned depth)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    int result = 0;

    if (!dir)
        return error_set(walk->err, errno, "%s: %s", folder, strerror(errno));
    while (!result && (entry = readdir(dir))) {
        char name[2 * MAX_PATH], below[MAX_PATH];
        struct stat st;

        if (snprintf(name, sizeof(name), "%s/%s", folder, entry->d_name) >= (int)sizeof(name) ||
            snprintf(below, sizeof(below), "%s%s%s", relative, *relative ? "/" : "",
                     entry->d_name) >= (int)sizeof(below) ||
            entry->d_name[0] == '.' || stat(name, &st))
            continue;
        if (S_ISDIR(st.st_mode) && depth && strcmp(entry->d_name, "addons"))
            result = walk_folder(walk, name, below, depth - 1);
        else if (S_ISREG(st.st_mode) && is_wanted(walk, entry->d_name))
            result = walk->bundle ? add_module(walk, name, below) : add_plain(walk, name, below);
    }
    closedir(dir);
    return result;
}

static int add_folder(struct web_files *files, const char *path, const char *folder,
                      struct error *err)
{
    struct walk walk = {.files = files, .path = path, .err = err};

    return walk_folder(&walk, folder, "", MAX_DEPTH);
}

static int add_bundle(struct web_files *files, const char *path, const char *folder,
                      struct error *err)
{
    struct web_file *bundle = add_file(files, path, err);
    struct walk walk = {.files = files, .bundle = bundle, .err = err};

    if (!bundle || append_text(bundle, "export const modules = {};\n", err))
        return -ENOMEM;
    return walk_folder(&walk, folder, "", MAX_DEPTH);
}

/* ---- packages ---- */

static bool is_there(const char *packages, const char *file)
{
    char name[2 * MAX_PATH];

    snprintf(name, sizeof(name), "%s/%s", packages, file);
    return access(name, R_OK) == 0;
}

static int add_screen(struct web_files *files, const char *packages, struct error *err)
{
    char core[2 * MAX_PATH], vendor[2 * MAX_PATH];

    files->has_screen = is_there(packages, "novnc/core/rfb.js");
    if (!files->has_screen)
        return 0;
    snprintf(core, sizeof(core), "%s/novnc/core", packages);
    snprintf(vendor, sizeof(vendor), "%s/novnc/vendor", packages);
    return add_folder(files, "/novnc/core", core, err) ||
                   add_folder(files, "/novnc/vendor", vendor, err)
               ? -EIO
               : 0;
}

static int add_terminal(struct web_files *files, const char *packages, struct error *err)
{
    char name[2 * MAX_PATH];
    struct web_file *style;

    files->has_terminal = is_there(packages, "nodejs/xterm/lib/public/Terminal.js");
    if (!files->has_terminal)
        return 0;
    snprintf(name, sizeof(name), "%s/nodejs/xterm/lib", packages);
    if (add_bundle(files, "/xterm/modules.js", name, err))
        return -EIO;
    snprintf(name, sizeof(name), "%s/nodejs/xterm/lib/xterm.css", packages);
    style = add_file(files, "/xterm/xterm.css", err);
    return style ? append_file(files, style, name, err) : -ENOMEM;
}

int web_files_load(struct web_files *files, const char *page, const char *packages,
                   struct error *err)
{
    packages = packages ? packages : "/usr/share";
    if (add_folder(files, "", page, err) || add_screen(files, packages, err) ||
        add_terminal(files, packages, err))
        return -EIO;
    if (web_files_find(files, "/index.html"))
        return 0;
    return error_set(err, ENOENT, "%s/index.html is not there", page);
}

void web_files_done(struct web_files *files)
{
    for (size_t n = 0; n < files->count; n++) {
        free(files->files[n].path);
        free(files->files[n].bytes);
    }
    free(files->files);
    *files = (struct web_files){0};
}
