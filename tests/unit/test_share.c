/*
 * test_share.c - the 9P server of shares, asked as a guest asks, and the walls around its process
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

#include "backends/share/server.h"
#include "base/bytes.h"
#include "host/host.h"

enum {
    STATFS = 8,
    LOPEN = 12,
    LCREATE = 14,
    SYMLINK = 16,
    MKNOD = 18,
    RENAME = 20,
    READLINK = 22,
    GETATTR = 24,
    SETATTR = 26,
    XATTRWALK = 30,
    XATTRCREATE = 32,
    READDIR = 40,
    FSYNC = 50,
    LOCK = 52,
    GETLOCK = 54,
    LINK = 70,
    MKDIR = 72,
    RENAMEAT = 74,
    UNLINKAT = 76,
    VERSION = 100,
    ATTACH = 104,
    FLUSH = 108,
    WALK = 110,
    READ = 116,
    WRITE = 118,
    CLUNK = 120,
    REMOVE = 122,
};
#define ROOT 0 /* fid */

static struct {
    char folder[32], outside[48];
    int folder_fd, proc_fd;
    struct share_server *server;
    uint8_t out[70000], in[70000];
    size_t in_room;
} f;

/* ---- asking ---- */

static size_t put(uint8_t *at, const char *format, va_list list)
{
    uint8_t *start = at;

    for (; *format; format++) {
        const char *text;
        size_t size;

        switch (*format) {
        case 'b':
            *at++ = (uint8_t)va_arg(list, int);
            break;
        case 'h':
            put_le16(at, (uint16_t)va_arg(list, int));
            at += 2;
            break;
        case 'w':
            put_le32(at, va_arg(list, unsigned));
            at += 4;
            break;
        case 'q':
            put_le64(at, va_arg(list, uint64_t));
            at += 8;
            break;
        default: /* t: text; d: data behind its length */
            text = va_arg(list, const char *);
            size = strlen(text);
            if (*format == 't')
                put_le16(at, (uint16_t)size);
            else
                put_le32(at, (uint32_t)size);
            at += *format == 't' ? 2 : 4;
            memcpy(at, text, size);
            at += size;
        }
    }
    return (size_t)(at - start);
}

/* In two pieces each. 0, or the error's code; the answer's contents are at f.in + 7. */
static int send_bytes(size_t size)
{
    struct io_piece out[2] = {{f.out, 5}, {f.out + 5, size - 5}};
    struct io_piece in[2] = {{f.in, 9}, {f.in + 9, f.in_room - 9}};
    uint32_t bytes = share_server_answer(f.server, out, 2, in, 2);

    assert_true(bytes >= 7 && bytes <= f.in_room);
    assert_int_equal(get_le32(f.in), bytes);
    assert_int_equal(get_le16(f.in + 5), 77);
    if (f.in[4] == SHARE_RLERROR)
        return (int)get_le32(f.in + 7);
    assert_int_equal(f.in[4], f.out[4] + 1);
    return 0;
}

static int ask(int type, const char *format, ...)
{
    va_list list;
    size_t size;

    va_start(list, format);
    size = 7 + put(f.out + 7, format, list);
    va_end(list);
    put_le32(f.out, (uint32_t)size);
    f.out[4] = (uint8_t)type;
    put_le16(f.out + 5, 77);
    return send_bytes(size);
}

static void begin(bool read_only)
{
    share_server_free(f.server);
    f.server = share_server_new(f.folder_fd, f.proc_fd, read_only);
    f.in_room = sizeof(f.in);
    assert_int_equal(ask(VERSION, "wt", 65536u, "9P2000.L"), 0);
    assert_int_equal(ask(ATTACH, "wwttw", ROOT, ~0u, "root", "", 0u), 0);
}

static int walk(unsigned fid, unsigned to, const char *name)
{
    return ask(WALK, "wwht", fid, to, 1, name);
}

static int create(unsigned fid, const char *name, unsigned flags, unsigned mode)
{
    int status = ask(WALK, "wwh", ROOT, fid, 0);

    return status ? status : ask(LCREATE, "wtwww", fid, name, flags, mode, 0u);
}

static const char *path_of(const char *name)
{
    static char path[256];

    snprintf(path, sizeof(path), "%s/%s", f.folder, name);
    return path;
}

static void host_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void check_host_file(const char *path, const char *text)
{
    char got[256] = "";
    FILE *file = fopen(path, "r");

    assert_non_null(file);
    got[fread(got, 1, sizeof(got) - 1, file)] = '\0';
    fclose(file);
    assert_string_equal(got, text);
}

static int set_up(void **state)
{
    (void)state;
    memset(&f, 0, sizeof(f));
    umask(0);
    strcpy(f.folder, "/tmp/trapeze-share-XXXXXX");
    assert_non_null(mkdtemp(f.folder));
    snprintf(f.outside, sizeof(f.outside), "%s-outside", f.folder);
    host_file(f.outside, "secret");
    f.folder_fd = open(f.folder, O_PATH | O_DIRECTORY);
    f.proc_fd = open("/proc/self/fd", O_PATH | O_DIRECTORY);
    begin(false);
    return 0;
}

static int tear_down(void **state)
{
    char command[128];

    (void)state;
    share_server_free(f.server);
    close(f.folder_fd);
    close(f.proc_fd);
    check_host_file(f.outside, "secret");
    snprintf(command, sizeof(command), "rm -rf %s %s", f.folder, f.outside);
    assert_int_equal(system(command), 0);
    return 0;
}

/* ---- messages ---- */

static void a_session_begins_with_a_version(void **state)
{
    (void)state;
    share_server_forget(f.server);
    assert_int_equal(ask(ATTACH, "wwttw", ROOT, ~0u, "root", "", 0u), EPROTO);
    assert_int_equal(ask(VERSION, "wt", 1u << 30, "9P2000.u"), 0);
    assert_memory_equal(f.in + 11, "\7\0unknown", 9);
    assert_int_equal(ask(VERSION, "wt", 100u, "9P2000.L"), EMSGSIZE);
    assert_int_equal(ask(VERSION, "wt", 1u << 30, "9P2000.L"), 0);
    assert_int_equal(get_le32(f.in + 7), SHARE_MAX_MESSAGE);
    assert_int_equal(ask(ATTACH, "wwttw", ROOT, ~0u, "root", "elsewhere", 0u), ENOENT);
    assert_int_equal(ask(ATTACH, "wwttw", ROOT, ~0u, "root", "/", 0u), 0);
    assert_int_equal(ask(ATTACH, "wwttw", ROOT, ~0u, "root", "/", 0u), EINVAL);
    assert_int_equal(ask(VERSION, "wt", 8192u, "9P2000.L"), 0); /* forgets all fids */
    assert_int_equal(ask(GETATTR, "wq", ROOT, (uint64_t)0), EBADF);
    assert_int_equal(ask(102, ""), EOPNOTSUPP);
    assert_int_equal(ask(FLUSH, "h", 1), 0);
}

static void what_is_written_is_read(void **state)
{
    struct stat st;

    (void)state;
    assert_int_equal(create(1, "file", 02, 0640), 0);
    assert_int_equal(ask(WRITE, "wqd", 1u, (uint64_t)3, "hello"), 0);
    assert_int_equal(get_le32(f.in + 7), 5);
    assert_int_equal(ask(FSYNC, "ww", 1u, 0u), 0);
    assert_int_equal(ask(READ, "wqw", 1u, (uint64_t)2, 100u), 0);
    assert_int_equal(get_le32(f.in + 7), 6);
    assert_memory_equal(f.in + 11, "\0hello", 6);
    f.in_room = 13; /* as much as there is room for */
    assert_int_equal(ask(READ, "wqw", 1u, (uint64_t)3, 100u), 0);
    assert_memory_equal(f.in + 7, "\2\0\0\0he", 6);
    f.in_room = sizeof(f.in);
    assert_int_equal(stat(path_of("file"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
    assert_int_equal(ask(GETATTR, "wq", 1u, (uint64_t)0), 0);
    assert_int_equal(get_le64(f.in + 7 + 8 + 13 + 4 * 3 + 8 + 8), 8); /* size */
    assert_int_equal(ask(READ, "wqw", 1u, ~0ull, 100u), EINVAL);
    put_le32(f.out + 19, 1000); /* more than the message has */
    f.out[4] = WRITE;
    assert_int_equal(send_bytes(23), EINVAL);
    assert_int_equal(ask(CLUNK, "w", 1u), 0);
    assert_int_equal(ask(READ, "wqw", 1u, (uint64_t)0, 1u), EBADF);
    assert_int_equal(walk(ROOT, 1, "file"), 0);
    assert_int_equal(ask(READ, "wqw", 1u, (uint64_t)0, 1u), EBADF); /* not open */
    assert_int_equal(ask(LOPEN, "ww", 1u, 01001u), 0);              /* emptied */
    assert_int_equal(ask(LOPEN, "ww", 1u, 0u), EINVAL);             /* once */
    assert_int_equal(stat(path_of("file"), &st), 0);
    assert_int_equal(st.st_size, 0);
    assert_int_equal(ask(LOCK, "wbwqqwt", 1u, 0, 0u, (uint64_t)0, (uint64_t)0, 1u, "me"), 0);
    assert_int_equal(ask(GETLOCK, "wbqqwt", 1u, 0, (uint64_t)0, (uint64_t)0, 1u, "me"), 0);
    assert_int_equal(f.in[7], 2);
    assert_int_equal(ask(STATFS, "w", ROOT), 0);
}

static void names_that_lead_elsewhere_are_refused(void **state)
{
    static const char *const names[] = {"..", ".", "", "/", "a/b", "../outside", "/etc"};
    static char long_name[300];

    (void)state;
    memset(long_name, 'x', sizeof(long_name) - 1);
    assert_int_equal(create(1, "file", 02, 0600), 0);
    for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++) {
        assert_int_equal(walk(ROOT, 2, names[n]), EINVAL);
        assert_int_equal(ask(MKDIR, "wtww", ROOT, names[n], 0755u, 0u), EINVAL);
        assert_int_equal(ask(UNLINKAT, "wtw", ROOT, names[n], 0u), EINVAL);
        assert_int_equal(ask(RENAMEAT, "wtwt", ROOT, "file", ROOT, names[n]), EINVAL);
        assert_int_equal(ask(RENAMEAT, "wtwt", ROOT, names[n], ROOT, "file"), EINVAL);
        assert_int_equal(ask(LINK, "wwt", ROOT, 1u, names[n]), EINVAL);
        assert_int_equal(ask(SYMLINK, "wttw", ROOT, names[n], "file", 0u), EINVAL);
        assert_int_equal(create(3, names[n], 02, 0600), EINVAL);
        assert_int_equal(ask(CLUNK, "w", 3u), 0);
    }
    assert_int_equal(walk(ROOT, 2, long_name), ENAMETOOLONG);
    ask(WALK, "wwht", ROOT, 2u, 1, "fi");
    f.out[7 + 4 + 4 + 2 + 2] = 0; /* a name with a zero in it */
    assert_int_equal(send_bytes(get_le32(f.out)), EINVAL);
    assert_int_equal(ask(WALK, "wwhtt", ROOT, 2u, 2, "file", ".."), EINVAL);
    assert_int_equal(ask(WALK, "wwh", ROOT, 2u, 17), EINVAL);
    assert_int_equal(ask(WALK, "wwht", ROOT, 2u, 2, "file"), EINVAL); /* cut short */
}

static void links_are_the_guests_to_follow(void **state)
{
    (void)state;
    assert_int_equal(symlink(f.outside, path_of("out")), 0);
    assert_int_equal(symlink("/tmp", path_of("up")), 0);
    assert_int_equal(walk(ROOT, 1, "out"), 0);
    assert_int_equal(f.in[9], 0x02); /* qid: a link */
    assert_int_equal(ask(LOPEN, "ww", 1u, 0u), ELOOP);
    assert_int_equal(ask(SETATTR, "wwwwwqqqqq", 1u, 1u, 0777u, 0u, 0u, (uint64_t)0, (uint64_t)0,
                         (uint64_t)0, (uint64_t)0, (uint64_t)0),
                     EOPNOTSUPP);
    assert_int_equal(ask(SETATTR, "wwwwwqqqqq", 1u, 8u, 0u, 0u, 0u, (uint64_t)0, (uint64_t)0,
                         (uint64_t)0, (uint64_t)0, (uint64_t)0),
                     EINVAL);
    assert_int_equal(ask(READLINK, "w", 1u), 0);
    assert_int_equal(get_le16(f.in + 7), strlen(f.outside));
    assert_int_equal(create(2, "out", 01001, 0600), ELOOP);
    assert_int_equal(ask(WALK, "wwhtt", ROOT, 3u, 2, "up", "passwd"), 0);
    assert_int_equal(get_le16(f.in + 7), 1); /* it ends there */
    assert_int_equal(ask(GETATTR, "wq", 3u, (uint64_t)0), EBADF);
    assert_int_equal(ask(LINK, "wwt", ROOT, 1u, "hard"), 0); /* to the link */
    assert_int_equal(ask(SYMLINK, "wttw", ROOT, "mine", "../../etc/passwd", 0u), 0);
    assert_int_equal(walk(ROOT, 4, "mine"), 0);
    assert_int_equal(ask(LOPEN, "ww", 4u, 0u), ELOOP);
}

static void nothing_but_files_and_folders_is_opened(void **state)
{
    (void)state;
    assert_int_equal(ask(MKNOD, "wtwwww", ROOT, "pipe", S_IFIFO | 0600u, 0u, 0u, 0u), 0);
    assert_int_equal(ask(MKNOD, "wtwwww", ROOT, "null", S_IFCHR | 0600u, 1u, 3u, 0u), EPERM);
    assert_int_equal(ask(MKNOD, "wtwwww", ROOT, "disk", S_IFBLK | 0600u, 1u, 3u, 0u), EPERM);
    assert_int_equal(walk(ROOT, 1, "pipe"), 0);
    assert_int_equal(ask(LOPEN, "ww", 1u, 0u), ENXIO);
    assert_int_equal(create(2, "pipe", 01, 0600), ENXIO);
    assert_int_equal(ask(LOPEN, "ww", 2u, 3u), EINVAL);
    assert_int_equal(ask(LOPEN, "ww", 2u, 01u), EISDIR);
}

static void the_host_gets_no_rights_and_no_owners(void **state)
{
    struct stat st;

    (void)state;
    assert_int_equal(create(1, "tool", 02, 06755), 0);
    assert_int_equal(stat(path_of("tool"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0755);
    assert_int_equal(ask(SETATTR, "wwwwwqqqqq", 1u, 1u | 2u | 4u | 8u | 0x20u | 0x100u, 07711u, 12u,
                         13u, (uint64_t)99, (uint64_t)0, (uint64_t)0, (uint64_t)1000, (uint64_t)5),
                     0);
    assert_int_equal(stat(path_of("tool"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 01711);
    assert_int_equal(st.st_uid, geteuid());
    assert_int_equal(st.st_gid, getegid());
    assert_int_equal(st.st_size, 99);
    assert_int_equal(st.st_mtim.tv_sec, 1000);
    assert_int_equal(st.st_mtim.tv_nsec, 5);
    assert_int_equal(ask(SETATTR, "wwwwwqqqqq", 1u, 0x120u, 0u, 0u, 0u, (uint64_t)0, (uint64_t)0,
                         (uint64_t)0, (uint64_t)0, (uint64_t)UTIME_OMIT),
                     EINVAL);
    assert_int_equal(ask(MKDIR, "wtww", ROOT, "folder", 06777u, 0u), 0);
    assert_int_equal(stat(path_of("folder"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0777);
}

static void files_are_moved_and_removed(void **state)
{
    (void)state;
    assert_int_equal(create(1, "a", 02, 0600), 0);
    assert_int_equal(ask(MKDIR, "wtww", ROOT, "d", 0755u, 0u), 0);
    assert_int_equal(walk(ROOT, 2, "d"), 0);
    assert_int_equal(ask(RENAMEAT, "wtwt", ROOT, "a", 2u, "b"), 0);
    assert_int_equal(access(path_of("d/b"), F_OK), 0);
    assert_int_equal(ask(LINK, "wwt", ROOT, 1u, "again"), 0);
    assert_int_equal(ask(REMOVE, "w", 1u), ENOENT); /* it is no longer where it was found */
    assert_int_equal(ask(GETATTR, "wq", 1u, (uint64_t)0), EBADF);
    assert_int_equal(walk(2, 1, "b"), 0);
    assert_int_equal(ask(RENAME, "wwt", 1u, ROOT, "c"), 0);
    assert_int_equal(access(path_of("c"), F_OK), 0);
    assert_int_equal(ask(UNLINKAT, "wtw", ROOT, "d", 0u), EISDIR);
    assert_int_equal(ask(UNLINKAT, "wtw", ROOT, "d", 0x200u), 0);
    assert_int_equal(walk(ROOT, 3, "c"), 0);
    assert_int_equal(ask(REMOVE, "w", 3u), 0);
    assert_int_equal(access(path_of("c"), F_OK), -1);
    assert_int_equal(ask(REMOVE, "w", ROOT), EBUSY);
}

static void a_folder_is_listed_piece_by_piece(void **state)
{
    bool seen[100] = {false};
    uint64_t offset = 0, count = 0;

    (void)state;
    for (unsigned n = 0; n < 100; n++) {
        char name[16];

        snprintf(name, sizeof(name), "file-%u", n);
        host_file(path_of(name), "");
    }
    assert_int_equal(ask(WALK, "wwh", ROOT, 1u, 0), 0);
    assert_int_equal(ask(LOPEN, "ww", 1u, 0200000u), 0);
    assert_int_equal(ask(READDIR, "wqw", 1u, (uint64_t)0, 10u), EINVAL); /* nothing fits */
    for (;;) {
        const uint8_t *at = f.in + 11, *end;

        assert_int_equal(ask(READDIR, "wqw", 1u, offset, 200u), 0);
        end = at + get_le32(f.in + 7);
        assert_true(end <= f.in + 11 + 200);
        if (at == end)
            break;
        while (at < end) {
            unsigned number;
            char name[16];

            snprintf(name, sizeof(name), "%.*s", get_le16(at + 22), at + 24);
            if (sscanf(name, "file-%u", &number) == 1) {
                assert_false(seen[number]);
                seen[number] = true;
            }
            offset = get_le64(at + 13);
            at += 24 + get_le16(at + 22);
            count++;
        }
    }
    assert_int_equal(count, 102);
}

static void only_attributes_of_users_are_seen(void **state)
{
    (void)state;
    assert_int_equal(create(1, "file", 02, 0600), 0);
    if (setxattr(path_of("file"), "user.test", "x", 1, 0))
        skip(); /* the file system has none */
    assert_int_equal(ask(CLUNK, "w", 1u), 0);
    assert_int_equal(walk(ROOT, 1, "file"), 0);
    assert_int_equal(ask(XATTRWALK, "wwt", 1u, 2u, "user.test"), 0);
    assert_int_equal(get_le64(f.in + 7), 1);
    assert_int_equal(ask(READ, "wqw", 2u, (uint64_t)0, 100u), 0);
    assert_memory_equal(f.in + 7, "\1\0\0\0x", 5);
    assert_int_equal(ask(READ, "wqw", 2u, (uint64_t)2, 100u), EINVAL);
    assert_int_equal(ask(WALK, "wwh", 2u, 9u, 0), EBADF);
    assert_int_equal(ask(XATTRWALK, "wwt", 1u, 3u, "security.capability"), EOPNOTSUPP);
    assert_int_equal(ask(XATTRWALK, "wwt", 1u, 3u, "user.none"), ENODATA);
    assert_int_equal(ask(XATTRCREATE, "wtqw", 1u, "trusted.x", (uint64_t)1, 0u), EOPNOTSUPP);
    assert_int_equal(ask(XATTRCREATE, "wtqw", 1u, "user.big", 1ull << 40, 0u), E2BIG);
    assert_int_equal(ask(XATTRCREATE, "wtqw", 1u, "user.new", (uint64_t)5, 0u), 0);
    assert_int_equal(ask(WRITE, "wqd", 1u, (uint64_t)0, "valuex"), ENOSPC);
    assert_int_equal(ask(WRITE, "wqd", 1u, (uint64_t)0, "val"), 0);
    assert_int_equal(ask(WRITE, "wqd", 1u, (uint64_t)3, "ue"), 0);
    assert_int_equal(ask(CLUNK, "w", 1u), 0);
    assert_int_equal(getxattr(path_of("file"), "user.new", f.out, 10), 5);
    assert_memory_equal(f.out, "value", 5);
    assert_int_equal(walk(ROOT, 1, "file"), 0);
    assert_int_equal(ask(XATTRWALK, "wwt", 1u, 3u, ""), 0);
    assert_int_equal(get_le64(f.in + 7), 19); /* two names */
    assert_int_equal(ask(XATTRCREATE, "wtqw", 1u, "user.new", (uint64_t)0, 2u), 0);
    assert_int_equal(ask(CLUNK, "w", 1u), 0);
    assert_int_equal(getxattr(path_of("file"), "user.new", f.out, 10), -1);
}

static void read_only_is_read_only(void **state)
{
    (void)state;
    host_file(path_of("file"), "text");
    begin(true);
    assert_int_equal(create(1, "new", 02, 0600), EROFS);
    assert_int_equal(ask(MKDIR, "wtww", ROOT, "d", 0755u, 0u), EROFS);
    assert_int_equal(ask(UNLINKAT, "wtw", ROOT, "file", 0u), EROFS);
    assert_int_equal(walk(ROOT, 2, "file"), 0);
    assert_int_equal(ask(LOPEN, "ww", 2u, 01u), EROFS);
    assert_int_equal(ask(LOPEN, "ww", 2u, 01000u), EROFS);
    assert_int_equal(ask(REMOVE, "w", 2u), EROFS);
    assert_int_equal(ask(LOPEN, "ww", 2u, 0u), 0);
    assert_int_equal(ask(WRITE, "wqd", 2u, (uint64_t)0, "x"), EBADF);
    check_host_file(path_of("file"), "text");
}

/* ---- state ---- */

/* Another server has open what this one has. */
static int move_to_another_server(bool read_only)
{
    struct state_buffer saved = {0};
    int status;

    assert_int_equal(share_server_save(f.server, &saved), 0);
    share_server_free(f.server);
    f.server = share_server_new(f.folder_fd, f.proc_fd, read_only);
    status = share_server_load(f.server, saved.data, saved.size_bytes);
    free(saved.data);
    return status;
}

static int read_at(unsigned fid, uint64_t offset, const char *expected)
{
    int status = ask(READ, "wqw", fid, offset, 100u);

    if (!status) {
        assert_int_equal(get_le32(f.in + 7), strlen(expected));
        assert_memory_equal(f.in + 11, expected, strlen(expected));
    }
    return status;
}

static void what_is_open_is_state(void **state)
{
    int folder = f.folder_fd;

    (void)state;
    assert_int_equal(mkdir(path_of("dir"), 0700), 0);
    host_file(path_of("dir/file"), "contents");
    assert_int_equal(walk(ROOT, 1, "dir"), 0);
    assert_int_equal(walk(1, 2, "file"), 0);
    assert_int_equal(ask(WALK, "wwh", 2u, 3u, 0), 0);
    assert_int_equal(ask(LOPEN, "ww", 2u, O_RDWR), 0);
    assert_int_equal(create(4, "removed", O_RDWR, 0600), 0);
    assert_int_equal(unlink(path_of("removed")), 0);
    assert_int_equal(create(5, "renamed", O_WRONLY, 0600), 0);
    assert_int_equal(renameat(AT_FDCWD, path_of("renamed"), folder, "dir/now here"), 0);
    assert_int_equal(symlink("dir", path_of("link")), 0);
    assert_int_equal(walk(ROOT, 6, "link"), 0);
    assert_int_equal(create(7, "replaced", O_RDONLY, 0600), 0);
    assert_int_equal(ask(WALK, "wwh", ROOT, 8u, 0), 0);
    assert_int_equal(ask(LOPEN, "ww", 8u, O_RDONLY), 0); /* a folder */
    assert_int_equal(ask(XATTRWALK, "wwt", 1u, 9u, ""), 0);
    assert_int_equal(create(10, "deleted (deleted)", O_RDONLY, 0600), 0);

    assert_int_equal(unlink(path_of("replaced")), 0);
    assert_int_equal(mkdir(path_of("replaced"), 0700), 0);
    assert_int_equal(move_to_another_server(false), 0);
    assert_int_equal(read_at(2, 3, "tents"), 0);
    assert_int_equal(ask(WRITE, "wqd", 2u, (uint64_t)0, "C"), 0);
    check_host_file(path_of("dir/file"), "Contents");
    assert_int_equal(ask(LOPEN, "ww", 3u, O_RDONLY), 0);
    assert_int_equal(ask(WRITE, "wqd", 5u, (uint64_t)0, "text"), 0);
    check_host_file(path_of("dir/now here"), "text");
    assert_int_equal(read_at(5, 0, ""), EBADF); /* as it was opened */
    assert_int_equal(ask(READLINK, "w", 6u), 0);
    assert_int_equal(ask(READDIR, "wqw", 8u, (uint64_t)0, 1000u), 0);
    assert_int_equal(read_at(10, 0, ""), 0);
    assert_int_equal(walk(1, 20, "file"), 0);
    for (unsigned n = 0; n < 3; n++) {
        static const unsigned lost[] = {4, 7, 9};

        assert_int_equal(read_at(lost[n], 0, ""), ESTALE);
        assert_int_equal(ask(GETATTR, "wq", lost[n], (uint64_t)0x7ff), ESTALE);
        assert_int_equal(ask(WALK, "wwh", lost[n], 30u, 0), ESTALE);
        assert_int_equal(ask(n ? CLUNK : REMOVE, "w", lost[n]), ESTALE);
        assert_int_equal(ask(CLUNK, "w", lost[n]), EBADF);
    }
    assert_int_equal(move_to_another_server(true), -EINVAL); /* it changes nothing */
    assert_int_equal(ask(GETATTR, "wq", ROOT, (uint64_t)0x7ff), EPROTO);
}

static int load_bytes(const char *bytes, size_t size)
{
    return share_server_load(f.server, (const uint8_t *)bytes, size);
}

static void hostile_states_are_refused(void **state)
{
#define HEAD               "\0\0\1\0"
#define RECORD(kind, flag) "\1\0\0\0" kind "\0\x40\0\0" flag "\0\0\0"
#define LOAD(bytes)        load_bytes(bytes, sizeof(bytes) - 1)

    (void)state;
    assert_int_equal(LOAD(HEAD RECORD("\0", "\0") "\0\0"), 0);
    assert_int_equal(ask(GETATTR, "wq", 1u, (uint64_t)0x7ff), 0); /* the folder itself */
    assert_int_equal(LOAD(""), -EINVAL);
    assert_int_equal(LOAD("\0\0\0\1"), -EINVAL);
    assert_int_equal(LOAD(HEAD "\1"), -EINVAL);
    assert_int_equal(LOAD(HEAD RECORD("\0", "\0") "\1\0"), -EINVAL);
    assert_int_equal(LOAD(HEAD RECORD("\2", "\0") "\0\0"), -EINVAL);   /* a value */
    assert_int_equal(LOAD(HEAD RECORD("\1", "\3") "\0\0"), -EINVAL);   /* how? */
    assert_int_equal(LOAD(HEAD RECORD("\1", "\x40") "\0\0"), -EINVAL); /* to be made */
    assert_int_equal(LOAD(HEAD RECORD("\0", "\0") "\2\0.."), -EINVAL);
    assert_int_equal(LOAD(HEAD RECORD("\0", "\0") "\2\0/a"), -EINVAL);
    assert_int_equal(LOAD(HEAD RECORD("\0", "\0") "\2\0a/"), -EINVAL);
    assert_int_equal(LOAD(HEAD RECORD("\0", "\0") "\4\0a/.b\0"), -EINVAL);
    assert_int_equal(LOAD(HEAD RECORD("\0", "\0") "\0\0" RECORD("\0", "\0") "\0\0"), -EINVAL);
    assert_int_equal(ask(GETATTR, "wq", 1u, (uint64_t)0x7ff), EPROTO);
    assert_int_equal(symlink("/etc", path_of("out")), 0);
    assert_int_equal(LOAD(HEAD RECORD("\0", "\0") "\3\0out"), 0); /* no folder, but a link */
    assert_int_equal(ask(GETATTR, "wq", 1u, (uint64_t)0x7ff), ESTALE);
}

static void sizes_that_lie_are_errors(void **state)
{
    (void)state;
    ask(GETATTR, "wq", ROOT, (uint64_t)0);
    put_le32(f.out, 3);
    assert_int_equal(send_bytes(19), EINVAL);
    put_le32(f.out, 20);
    assert_int_equal(send_bytes(19), EINVAL);
    put_le32(f.out, 18);
    assert_int_equal(send_bytes(19), EINVAL);
    put_le32(f.out, 19);
    f.in_room = 100;
    assert_int_equal(send_bytes(19), EMSGSIZE);
    f.in_room = sizeof(f.in);
    assert_int_equal(send_bytes(19), 0);
}

/* ---- the process ---- */

/* What cannot be done is a bit of the exit status. */
static void try_to_leave(unsigned ways)
{
    struct error err = {0};
    unsigned wrong = 0;
    char name[16];
    int fd;

    /* An ordinary user, whose /proc is not root's. */
    if (geteuid() == 0 && (setresuid(1, 1, 1) || prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)))
        _exit(100);
    f.proc_fd = open("/proc/self/fd", O_PATH | O_DIRECTORY);
    if (host_confine(ways, &f.folder_fd, &f.proc_fd, false) != ways)
        _exit(77);
    if (host_serve_sandbox(&err))
        _exit(101);
    fd = openat(f.folder_fd, "file", O_PATH | O_NOFOLLOW);
    snprintf(name, sizeof(name), "%d", fd);
    wrong |= openat(f.proc_fd, name, O_RDONLY) < 0 ? 1 : 0;
    wrong |= openat(f.folder_fd, "new", O_WRONLY | O_CREAT, 0600) < 0 ? 2 : 0;
    wrong |= renameat(f.folder_fd, "new", f.folder_fd, "newer") ? 4 : 0;
    wrong |= open("/etc/passwd", O_RDONLY) >= 0 ? 8 : 0;
    wrong |= openat(f.folder_fd, "../../etc/passwd", O_RDONLY) >= 0 ? 16 : 0;
    wrong |= openat(f.proc_fd, "../../../etc/passwd", O_RDONLY) >= 0 ? 32 : 0;
    _exit((int)wrong);
}

static void check_walls(unsigned ways)
{
    int status;
    pid_t child;

    host_file(path_of("file"), "text");
    assert_int_equal(chmod(path_of("file"), 0666), 0);
    assert_int_equal(chmod(f.folder, 0777), 0);
    child = fork();
    if (child == 0)
        try_to_leave(ways);
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        skip(); /* not on this kernel */
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void landlock_keeps_the_process_in(void **state)
{
    (void)state;
    check_walls(HOST_CONFINE_FOLDER);
}

static void a_namespace_keeps_the_process_in(void **state)
{
    (void)state;
    check_walls(HOST_CONFINE_NAMESPACE);
}

static void both_keep_the_process_in(void **state)
{
    (void)state;
    check_walls(HOST_CONFINE_FOLDER | HOST_CONFINE_NAMESPACE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_session_begins_with_a_version),
        TEST(what_is_written_is_read),
        TEST(names_that_lead_elsewhere_are_refused),
        TEST(links_are_the_guests_to_follow),
        TEST(nothing_but_files_and_folders_is_opened),
        TEST(the_host_gets_no_rights_and_no_owners),
        TEST(files_are_moved_and_removed),
        TEST(a_folder_is_listed_piece_by_piece),
        TEST(only_attributes_of_users_are_seen),
        TEST(read_only_is_read_only),
        TEST(what_is_open_is_state),
        TEST(hostile_states_are_refused),
        TEST(sizes_that_lie_are_errors),
        TEST(landlock_keeps_the_process_in),
        TEST(a_namespace_keeps_the_process_in),
        TEST(both_keep_the_process_in),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
