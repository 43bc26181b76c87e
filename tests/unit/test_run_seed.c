/*
 * test_run_seed.c - the disk that cloud-init reads: what is on it, and what is refused
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/bytes.h"
#include "cli/run.h"

#define SECTOR 2048

static char folder[] = "/tmp/trapeze-seed-XXXXXX";

static const char *file_with(const char *name, const char *text)
{
    static char paths[4][64];
    static unsigned next;
    char *path = paths[next++ % 4];
    FILE *file;

    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    return path;
}

#ifdef HAVE_ARCHIVE
/* The contents of a file in the root of an ISO 9660 image, by its number (ECMA-119, 8.4 and 9.1).
 */
static char *read_from(int fd, unsigned wanted)
{
    uint8_t volume[SECTOR], root[SECTOR], *record = root;
    char *text;
    size_t size_bytes;

    assert_int_equal(pread(fd, volume, SECTOR, 16 * SECTOR), SECTOR);
    assert_memory_equal(volume + 1, "CD001", 5);
    assert_memory_equal(volume + 40, "CIDATA ", 7);
    assert_int_equal(pread(fd, root, SECTOR, (off_t)get_le32(volume + 158) * SECTOR), SECTOR);
    for (unsigned n = 0; n < wanted + 2; n++) /* behind "." and ".." */
        record += record[0];
    assert_true(record[0]);
    size_bytes = get_le32(record + 10);
    text = calloc(1, size_bytes + 1);
    assert_int_equal(pread(fd, text, size_bytes, (off_t)get_le32(record + 2) * SECTOR), size_bytes);
    return text;
}

enum { META_DATA, USER_DATA }; /* the order in the root */
#endif

static int make(const char *user_data, const char *name, const char *key, struct error *err)
{
    struct cli_texts keys = {&key, key ? 1 : 0};
    struct run_seed seed = {user_data, name, &keys};

    *err = (struct error){0};
    return run_make_seed(&seed, err);
}

#ifdef HAVE_ARCHIVE
static json_t *meta_data_of(const char *user_data, const char *name, const char *key)
{
    struct error err;
    int fd = make(user_data, name, key, &err);
    char *text = fd < 0 ? NULL : read_from(fd, META_DATA);
    json_t *meta;

    assert_non_null(text);
    close(fd);
    meta = json_loads(text, 0, NULL);
    free(text);
    assert_non_null(meta);
    return meta;
}

static void user_data_is_as_it_was_given(void **state)
{
    const char *given = "#cloud-config\npackages: [tree]\n";
    struct error err;
    int fd = make(file_with("user", given), NULL, NULL, &err);
    char *text;

    assert_true(fd >= 0);
    text = read_from(fd, USER_DATA);
    assert_string_equal(text, given);
    free(text);
    close(fd);
}

static void keys_and_name_are_in_the_meta_data(void **state)
{
    const char *keys = "# mine\nssh-ed25519 AAAA me@here\r\n\n  ecdsa-sha2-nistp256 BBBB\n";
    json_t *meta = meta_data_of(NULL, "web1", file_with("keys", keys)), *list;

    assert_string_equal(json_string_value(json_object_get(meta, "local-hostname")), "web1");
    list = json_object_get(meta, "public-keys");
    assert_int_equal(json_array_size(list), 2);
    assert_string_equal(json_string_value(json_array_get(list, 0)), "ssh-ed25519 AAAA me@here");
    assert_string_equal(json_string_value(json_array_get(list, 1)), "ecdsa-sha2-nistp256 BBBB");
    json_decref(meta);
}

/* cloud-init does its work once for each identity. */
static void the_identity_follows_what_is_said(void **state)
{
    const char *user_data = file_with("script", "#!/bin/sh\ntrue\n");
    json_t *first = meta_data_of(user_data, NULL, NULL),
           *same = meta_data_of(user_data, NULL, NULL);
    json_t *other = meta_data_of(file_with("other", "#!/bin/sh\nfalse\n"), NULL, NULL);
    const char *id = json_string_value(json_object_get(first, "instance-id"));

    assert_string_equal(id, json_string_value(json_object_get(same, "instance-id")));
    assert_string_not_equal(id, json_string_value(json_object_get(other, "instance-id")));
    assert_null(json_object_get(first, "local-hostname"));
    json_decref(first);
    json_decref(same);
    json_decref(other);
}
#endif /* HAVE_ARCHIVE */

static void the_user_is_who_logs_in(void **state)
{
    static const struct {
        const char *user_data, *disk, *user;
    } rows[] = {
        {NULL, NULL, ""},
        {NULL, "disk.qcow2", ""},
        {NULL, "/vm/ubuntu/Debian-12.qcow2,if=nvme", "debian"},
        {NULL, "disk.img,serial=debian", ""},
        {"#cloud-config\npackages: [tree]\n", "ubuntu.img", "ubuntu"},
        {"#cloud-config\nuser: jo\n", "debian.img", "jo"},
        {"#cloud-config\n# user: no\nuser:   # mine\n  shell: /bin/sh\n  name: 'jo'\r\n", NULL,
         "jo"},
        {"#cloud-config\nusers:\n  - default\n  - name: al\n", "debian.img", "debian"},
        {"#cloud-config\nusers: [default]\n", "debian.img", "debian"},
        {"#cloud-config\nusers:\n- gecos: Al\n  name: \"al\"\n- name: bo\n", "debian.img", "al"},
        {"#cloud-config\nusers:\n  - al\nruncmd:\n - name: no\n", NULL, "al"},
        {"#cloud-config\nusers: []\n", "debian.img", ""},
        {"#cloud-config\nuser: $(reboot)\n", NULL, ""},
        {"#!/bin/sh\nuser: jo\n", "debian.img", "debian"},
    };

    (void)state;
    for (size_t n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        const struct run_seed seed = {
            rows[n].user_data ? file_with("user", rows[n].user_data) : NULL, NULL, NULL};
        char user[RUN_USER_BYTES];

        run_find_user(&seed, rows[n].disk, user);
        assert_string_equal(user, rows[n].user);
    }
}

static void what_would_do_nothing_is_refused(void **state)
{
    struct error err;

    assert_int_equal(make("/nonesuch/user-data", NULL, NULL, &err), -ENOENT);
    assert_int_equal(make(file_with("yaml", "packages: [tree]\n"), NULL, NULL, &err), -EINVAL);
    assert_non_null(strstr(err.text, "#cloud-config"));
    assert_int_equal(make(NULL, NULL, file_with("none", "# nothing\n"), &err), -EINVAL);
    assert_non_null(strstr(err.text, "no key in it"));
    assert_int_equal(make(NULL, NULL, file_with("text", "hello there\n"), &err), -EINVAL);
    assert_int_equal(
        make(NULL, NULL, file_with("id", "-----BEGIN OPENSSH PRIVATE KEY-----\n"), &err), -EINVAL);
    assert_non_null(strstr(err.text, ".pub"));
}

static int make_folder(void **state)
{
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    char command[64];

    snprintf(command, sizeof(command), "rm -r %s", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#ifdef HAVE_ARCHIVE
        cmocka_unit_test(user_data_is_as_it_was_given),
        cmocka_unit_test(keys_and_name_are_in_the_meta_data),
        cmocka_unit_test(the_identity_follows_what_is_said),
#endif
        cmocka_unit_test(the_user_is_who_logs_in),
        cmocka_unit_test(what_would_do_nothing_is_refused),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
