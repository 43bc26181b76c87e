/*
 * run_seed.c - what cloud-init in the guest reads at its first start: the NoCloud seed
 *
 * A disk with an ISO 9660 file system of the name CIDATA and two files on it, user-data (given) and
 * meta-data (a name, keys). It is in memory and has no name on the host. The instance has another
 * identity when the seed says something else, as cloud-init does its work once for each.
 *
 * https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html
 */
#include "cli/run.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef HAVE_ARCHIVE
#include <archive.h>
#include <archive_entry.h>
#endif
#include <jansson.h>

#include "base/hash.h"
#include "host/file.h"

#define MAX_BYTES (1u << 20) /* of a file that is given */

/* ---- keys ---- */

static bool is_key_line(const char *line)
{
    static const char *const types[] = {"ssh-", "ecdsa-", "sk-"};

    for (size_t n = 0; n < sizeof(types) / sizeof(types[0]); n++)
        if (strncmp(line, types[n], strlen(types[n])) == 0)
            return strchr(line, ' ') != NULL;
    return false;
}

static int add_key_line(json_t *keys, const char *path, char *line, struct error *err)
{
    line += strspn(line, " \t");
    line[strcspn(line, "\r")] = '\0';
    if (*line == '\0' || *line == '#')
        return 0;
    if (strstr(line, "PRIVATE KEY"))
        return error_set(err, EINVAL,
                         "'%s' is a private key, which stays where it is; give the public one "
                         "(%s.pub)",
                         path, path);
    if (!is_key_line(line))
        return error_set(err, EINVAL,
                         "'%s' is no file of public SSH keys: a line of it does not begin with a "
                         "type (ssh-ed25519 ...)",
                         path);
    return json_array_append_new(keys, json_string(line))
               ? error_set(err, EINVAL, "'%s': a key is not UTF-8 text", path)
               : 0;
}

static int add_keys(json_t *keys, const char *path, struct error *err)
{
    size_t size_bytes, before = json_array_size(keys);
    uint8_t *data;
    char *text, *next;
    int result = host_file_read(path, MAX_BYTES, &data, &size_bytes, err);

    if (result)
        return result;
    text = strndup((const char *)data, size_bytes);
    free(data);
    if (!text)
        return error_set(err, ENOMEM, "out of memory");
    next = text;
    while (!result && next)
        result = add_key_line(keys, path, strsep(&next, "\n"), err);
    if (!result && json_array_size(keys) == before)
        result = error_set(err, EINVAL, "'%s' has no key in it", path);
    free(text);
    return result;
}

/* ---- the files ---- */

struct seed_files {
    uint8_t *user_data;
    size_t user_data_bytes;
    char *meta_data;
};

/* cloud-init passes over what it does not know by its first line, and says nothing on the console.
 */
static int check_user_data(const char *path, const uint8_t *data, size_t size_bytes,
                           struct error *err)
{
    static const char *const starts[] = {"#", "Content-Type:", "MIME-Version:", "From ",
                                         "\x1f\x8b"};

    for (size_t n = 0; n < sizeof(starts) / sizeof(starts[0]); n++)
        if (size_bytes >= strlen(starts[n]) && memcmp(data, starts[n], strlen(starts[n])) == 0)
            return 0;
    return error_set(err, EINVAL,
                     "'%s' is nothing that cloud-init knows: its first line should be "
                     "'#cloud-config', or '#!' and a program",
                     path);
}

static int read_user_data(struct seed_files *files, const char *path, struct error *err)
{
    int result;

    if (!path) {
        files->user_data = (uint8_t *)strdup("#cloud-config\n{}\n");
        files->user_data_bytes = files->user_data ? strlen((char *)files->user_data) : 0;
        return files->user_data ? 0 : error_set(err, ENOMEM, "out of memory");
    }
    result = host_file_read(path, MAX_BYTES, &files->user_data, &files->user_data_bytes, err);
    if (!result)
        result = check_user_data(path, files->user_data, files->user_data_bytes, err);
    if (result)
        error_prefix(err, "--cloud-init: ");
    return result;
}

/* YAML, of which JSON is a part. */
static int make_meta_data(struct seed_files *files, const char *host_name, json_t *keys,
                          struct error *err)
{
    json_t *meta = json_object();
    uint64_t hash = HASH_START;
    char id[32], *text;

    json_object_set(meta, "public-keys", keys);
    if (host_name)
        json_object_set_new(meta, "local-hostname", json_string(host_name));
    text = json_dumps(meta, JSON_SORT_KEYS);
    if (text) {
        hash = hash_add(hash, text, strlen(text));
        hash = hash_add(hash, files->user_data, files->user_data_bytes);
        snprintf(id, sizeof(id), "trapeze-%016" PRIx64, hash);
        json_object_set_new(meta, "instance-id", json_string(id));
        free(text);
        files->meta_data = json_dumps(meta, JSON_SORT_KEYS | JSON_INDENT(2));
    }
    json_decref(meta);
    return files->meta_data ? 0 : error_set(err, ENOMEM, "out of memory");
}

static int make_files(struct seed_files *files, const struct run_seed *seed, struct error *err)
{
    json_t *keys = json_array();
    int result = read_user_data(files, seed->user_data, err);

    for (size_t n = 0; !result && n < seed->ssh_keys->count; n++) {
        result = add_keys(keys, seed->ssh_keys->items[n], err);
        if (result)
            error_prefix(err, "--ssh-key: ");
    }
    if (!result)
        result = make_meta_data(files, seed->host_name, keys, err);
    json_decref(keys);
    return result;
}

/* ---- the user ---- */

/*
 * Of YAML only what such files are written in, line by line: what is in another form names nobody.
 *
 * https://cloudinit.readthedocs.io/en/latest/reference/modules.html#users-and-groups
 */
struct names {
    char user[RUN_USER_BYTES];  /* of "user", instead of the system's own */
    char first[RUN_USER_BYTES]; /* of "users" */
    bool has_users, has_default;
    enum { ELSEWHERE, IN_USER, IN_USERS } place;
};

static void take_name(char out[RUN_USER_BYTES], const char *text)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz"
                                  "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789-.";
    size_t quoted = *text == '"' || *text == '\'', length = strspn(text + quoted, letters);
    const char *rest = text + quoted + length;

    if (quoted && *rest == *text)
        rest++;
    else if (quoted)
        return;
    if (!*out && length && length < RUN_USER_BYTES && !rest[strspn(rest, " \t\r")])
        snprintf(out, RUN_USER_BYTES, "%.*s", (int)length, text + quoted);
}

/* What follows "KEY:"; NULL: it is another line. */
static const char *value_of(const char *line, const char *key)
{
    size_t length = strlen(key);

    if (strncmp(line, key, length) || line[length] != ':')
        return NULL;
    line += length + 1;
    return line + strspn(line, " \t");
}

static void take_line(struct names *names, char *line)
{
    size_t indent = strspn(line, " ");
    const char *text = line + indent, *value;
    char *comment = strstr(line, " #");

    if (comment)
        *comment = '\0';
    if (!*text || *text == '#' || *text == '\r')
        return;
    if (!indent && *text != '-') {
        names->place = ELSEWHERE;
        if ((value = value_of(text, "user"))) {
            names->place = IN_USER;
            take_name(names->user, value);
        } else if ((value = value_of(text, "users"))) {
            names->place = IN_USERS;
            names->has_users = true;
            names->has_default = strstr(value, "default");
        }
        return;
    }
    if (names->place == IN_USERS && *text == '-') {
        text += 1 + strspn(text + 1, " ");
        names->has_default |= strncmp(text, "default", 7) == 0;
        if (!strchr(text, ':') && strncmp(text, "default", 7))
            take_name(names->first, text);
    }
    value = value_of(text, "name");
    if (value && names->place != ELSEWHERE)
        take_name(names->place == IN_USER ? names->user : names->first, value);
}

/* Whom these systems make, if nothing else is said, is called as they are. */
static void guess_user(const char *disk, char out[RUN_USER_BYTES])
{
    static const char *const systems[] = {"debian", "ubuntu",    "fedora",
                                          "rocky",  "almalinux", "alpine"};
    char *name = strdup(disk), *slash;

    if (!name)
        return;
    name[strcspn(name, ",")] = '\0';
    slash = strrchr(name, '/');
    for (size_t n = 0; !*out && n < sizeof(systems) / sizeof(systems[0]); n++)
        if (strcasestr(slash ? slash : name, systems[n]))
            snprintf(out, RUN_USER_BYTES, "%s", systems[n]);
    free(name);
}

void run_find_user(const struct run_seed *seed, const char *disk, char out[RUN_USER_BYTES])
{
    struct names names = {0};
    struct seed_files files = {0};
    struct error err = {0};
    char *text = NULL, *next;

    if (seed->user_data && !read_user_data(&files, seed->user_data, &err))
        text = strndup((const char *)files.user_data, files.user_data_bytes);
    next = text;
    if (text && strncmp(text, "#cloud-config", 13) == 0)
        while (next)
            take_line(&names, strsep(&next, "\n"));
    free(text);
    free(files.user_data);
    *out = '\0';
    if (*names.user)
        strcpy(out, names.user);
    else if (names.has_users && !names.has_default)
        strcpy(out, names.first);
    else if (disk)
        guess_user(disk, out);
}

/* ---- the file system ---- */

#ifdef HAVE_ARCHIVE
static int add_file(struct archive *image, const char *name, const void *data, size_t size_bytes)
{
    struct archive_entry *entry = archive_entry_new();
    int result;

    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_size(entry, (la_int64_t)size_bytes);
    archive_entry_set_mtime(entry, 0, 0);
    result = archive_write_header(image, entry);
    archive_entry_free(entry);
    if (result == ARCHIVE_OK && archive_write_data(image, data, size_bytes) != (ssize_t)size_bytes)
        result = ARCHIVE_FATAL;
    return result;
}

static int write_image(int fd, const struct seed_files *files, struct error *err)
{
    struct archive *image = archive_write_new();
    int result = image ? archive_write_set_format_iso9660(image) : ARCHIVE_FATAL;

    if (result == ARCHIVE_OK)
        result = archive_write_set_options(image, "volume-id=CIDATA,rockridge=useful,joliet");
    if (result == ARCHIVE_OK)
        result = archive_write_open_fd(image, fd);
    if (result == ARCHIVE_OK)
        result = add_file(image, "user-data", files->user_data, files->user_data_bytes);
    if (result == ARCHIVE_OK)
        result = add_file(image, "meta-data", files->meta_data, strlen(files->meta_data));
    if (result == ARCHIVE_OK)
        result = archive_write_close(image);
    if (result != ARCHIVE_OK)
        error_set(err, EIO, "cannot make the disk for cloud-init: %s",
                  image && archive_error_string(image) ? archive_error_string(image)
                                                       : "out of memory");
    archive_write_free(image);
    return result == ARCHIVE_OK ? 0 : -EIO;
}
#else
static int write_image(int fd, const struct seed_files *files, struct error *err)
{
    (void)fd;
    (void)files;
    return error_set(err, ENOTSUP,
                     "--cloud-init and --ssh-key want libarchive, which was not there when trapeze "
                     "was built; install libarchive-dev and build again");
}
#endif

int run_make_seed(const struct run_seed *seed, struct error *err)
{
    struct seed_files files = {0};
    int fd = -1, result = make_files(&files, seed, err);

    if (!result) {
        fd = memfd_create("cloud-init", MFD_CLOEXEC);
        result = fd < 0 ? error_set(err, errno, "memfd_create: %s", strerror(errno))
                        : write_image(fd, &files, err);
    }
    free(files.user_data);
    free(files.meta_data);
    if (!result)
        return fd;
    if (fd >= 0)
        close(fd);
    return result;
}
