/*
 * fuzz_share.c - a hostile guest of the 9P server, which serves a real folder
 *
 * Steps are messages whose arguments are of the right kind but any value, or bytes as they are.
 * Claims: each is answered within the room that there was; what a link in the folder leads to
 * stays as it is; what is open is saved and loaded, also what a hostile state has open.
 */
#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/share/server.h"
#include "base/bytes.h"
#include "fuzz_device.h"

static const struct {
    uint8_t type;
    const char *arguments; /* f: a fid; n: a name; m: a mode or flags */
} messages[] = {
    {8, "f"},     {12, "fm"},      {14, "fnmmw"},      {16, "fnnw"}, {18, "fnmwww"},  {20, "ffn"},
    {22, "f"},    {24, "fq"},      {26, "fmmwwqqqqq"}, {30, "ffx"},  {32, "fxlm"},    {40, "flm"},
    {50, "fw"},   {52, "fbwqqwn"}, {54, "fbqqwn"},     {70, "ffn"},  {72, "fnmw"},    {74, "fnfn"},
    {76, "fnm"},  {100, "mn"},     {104, "fwnew"},     {108, "h"},   {110, "ffhnnn"}, {116, "flm"},
    {118, "flm"}, {120, "f"},      {122, "f"},
};
static const char *const names[] = {"a",  "b",           "folder", "file",     "out", "up",
                                    "..", "/etc/passwd", "user.a", "9P2000.L", "",    "user.b"};

static char folder[] = "/tmp/trapeze-fuzz-share-XXXXXX", outside[64];

static uint8_t *put_argument(uint8_t *at, char kind, struct fuzz_input *in)
{
    const char *name = names[fuzz_take(in, 1) % (sizeof(names) / sizeof(names[0]))];

    switch (kind) {
    case 'b':
        *at = (uint8_t)fuzz_take(in, 1);
        return at + 1;
    case 'h':
        put_le16(at, (uint16_t)(fuzz_take(in, 1) % 20));
        return at + 2;
    case 'f':
        put_le32(at, (uint32_t)fuzz_take(in, 1) % 8);
        return at + 4;
    case 'm':
        put_le32(at, (uint32_t)fuzz_take(in, 2));
        return at + 4;
    case 'w':
        put_le32(at, (uint32_t)fuzz_take(in, 4));
        return at + 4;
    case 'l':
        put_le64(at, fuzz_take(in, 2));
        return at + 8;
    case 'q':
        put_le64(at, fuzz_take(in, 8));
        return at + 8;
    default: /* n, x, e */
        if (kind == 'x')
            name = fuzz_take(in, 1) & 1 ? "user.a" : "";
        if (kind == 'e')
            name = "";
        put_le16(at, (uint16_t)strlen(name));
        memcpy(at + 2, name, strlen(name));
        return at + 2 + strlen(name);
    }
}

static void step(struct share_server *server, struct fuzz_input *in)
{
    static uint8_t out[2048], answer[70000];
    uint8_t what = (uint8_t)fuzz_take(in, 1), *at = out + 7;
    size_t room = what & 0x80 ? 11 + fuzz_take(in, 1) : sizeof(answer), first;
    unsigned kind = what % (sizeof(messages) / sizeof(messages[0]));
    struct io_piece pieces[4];
    uint32_t size;

    if (what & 0x40) {
        for (unsigned n = (unsigned)fuzz_take(in, 1); n && in->left; n--)
            *at++ = (uint8_t)fuzz_take(in, 1);
    } else {
        for (const char *a = messages[kind].arguments; *a; a++)
            at = put_argument(at, *a, in);
        at += fuzz_take(in, 1); /* data of Twrite */
    }
    size = (uint32_t)(at - out);
    put_le32(out, size + (what & 0x40 ? (uint32_t)fuzz_take(in, 1) % 4 : 0));
    out[4] = messages[kind].type;
    first = fuzz_take(in, 1) % 11;
    pieces[0] = (struct io_piece){out, first < size ? first : size};
    pieces[1] = (struct io_piece){out + pieces[0].size_bytes, size - pieces[0].size_bytes};
    pieces[2] = (struct io_piece){answer, first};
    pieces[3] = (struct io_piece){answer + first, room - first};
    size = share_server_answer(server, pieces, 2, pieces + 2, 2);
    FUZZ_CLAIM(size >= 7 && size <= room && size == get_le32(answer));
}

static struct state_buffer save_and_load(struct share_server *server)
{
    struct state_buffer saved = {0};

    FUZZ_CLAIM(share_server_save(server, &saved) == 0);
    FUZZ_CLAIM(share_server_load(server, saved.data, saved.size_bytes) == 0);
    return saved;
}

/* What could not be opened again stays lost. */
static void check_state(struct share_server *server)
{
    struct state_buffer first, second;

    free(save_and_load(server).data);
    first = save_and_load(server);
    second = save_and_load(server);
    FUZZ_CLAIM(first.size_bytes == second.size_bytes);
    free(first.data);
    free(second.data);
}

static int remove_it(const char *path, const struct stat *st, int kind, struct FTW *place)
{
    (void)st;
    if (place->level)
        FUZZ_CLAIM((kind == FTW_DP ? rmdir(path) : unlink(path)) == 0);
    else
        chmod(path, 0700);
    return 0;
}

static void fill_folder(void)
{
    char path[96];

    nftw(folder, remove_it, 8, FTW_DEPTH | FTW_PHYS);
    snprintf(path, sizeof(path), "%s/out", folder);
    FUZZ_CLAIM(symlink(outside, path) == 0);
    snprintf(path, sizeof(path), "%s/up", folder);
    FUZZ_CLAIM(symlink("..", path) == 0);
    snprintf(path, sizeof(path), "%s/folder", folder);
    FUZZ_CLAIM(mkdir(path, 0700) == 0);
    snprintf(path, sizeof(path), "%s/file", folder);
    FUZZ_CLAIM(close(open(path, O_WRONLY | O_CREAT, 0600)) == 0);
}

static void set_up(void)
{
    int fd;

    FUZZ_CLAIM(mkdtemp(folder));
    snprintf(outside, sizeof(outside), "%s-outside", folder);
    fd = open(outside, O_WRONLY | O_CREAT | O_EXCL, 0600);
    FUZZ_CLAIM(fd >= 0 && write(fd, "secret", 6) == 6 && close(fd) == 0);
}

static void check_outside(void)
{
    struct stat st;

    FUZZ_CLAIM(stat(outside, &st) == 0 && st.st_size == 6 && (st.st_mode & 07777) == 0600 &&
               st.st_nlink == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t version[] = "\x15\0\0\0\x64\1\0\0\0\1\0\x08\0009P2000.L";
    static const uint8_t attach[] = "\x17\0\0\0\x68\2\0\0\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0\0";
    struct fuzz_input in = {data, size};
    struct share_server *server;
    uint8_t answer[64];
    struct io_piece room = {answer, sizeof(answer)}, message = {(void *)version, 21};
    int folder_fd, proc_fd;

    if (!*outside)
        set_up();
    fill_folder();
    folder_fd = open(folder, O_PATH | O_DIRECTORY);
    proc_fd = open("/proc/self/fd", O_PATH | O_DIRECTORY);
    server = share_server_new(folder_fd, proc_fd, size && data[0] == 0xff);
    share_server_answer(server, &message, 1, &room, 1);
    message = (struct io_piece){(void *)attach, 23};
    share_server_answer(server, &message, 1, &room, 1);
    for (unsigned n = 0; n < 200 && in.left; n++) {
        uint8_t what = *in.data;

        if (what == 0xfd) { /* the rest is a state */
            share_server_load(server, in.data + 1, in.left - 1);
            in.left = 0;
        }
        if (what == 0xfd || what == 0xfe)
            check_state(server);
        if (what == 0xfe)
            fuzz_take(&in, 1);
        else if (in.left)
            step(server, &in);
    }
    share_server_free(server);
    close(folder_fd);
    close(proc_fd);
    check_outside();
    return 0;
}
