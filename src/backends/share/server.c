/*
 * server.c - 9P2000.L: messages, fids, answers
 *
 * messages[] says what each message has and who answers it; arguments are taken apart and checked
 * before that. What a message holds is copied once, but for the data of Twrite.
 */
#include "backends/share/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/pieces.h"

#define VERSION       "9P2000.L"
#define MIN_AGREED    4096u
#define ARGUMENTS_MAX 8192u /* bytes; the longest message is a symbolic link's */
#define MAX_FIDS      (1u << 18)
#define QID_FOLDER    0x80
#define QID_SYMLINK   0x02
#define LOCK_GRANTED  0
#define LOCK_NONE     2 /* F_UNLCK */

/* ---- answers ---- */

static uint8_t *extend(struct share_call *call, size_t size)
{
    uint8_t *at = call->server->answer + call->answer_bytes;

    if (size > SHARE_ROOM - call->answer_bytes)
        abort(); /* an answer's size does not depend on the guest, but for those that look */
    call->answer_bytes += size;
    return at;
}

void share_put8(struct share_call *call, uint8_t value)
{
    *extend(call, 1) = value;
}

void share_put16(struct share_call *call, uint16_t value)
{
    put_le16(extend(call, 2), value);
}

void share_put32(struct share_call *call, uint32_t value)
{
    put_le32(extend(call, 4), value);
}

void share_put64(struct share_call *call, uint64_t value)
{
    put_le64(extend(call, 8), value);
}

void share_put_text(struct share_call *call, const char *text, size_t size)
{
    share_put16(call, (uint16_t)size);
    memcpy(extend(call, size), text, size);
}

/* Inode numbers are the host's; those of other file systems in the folder are moved away. */
void share_put_qid(struct share_call *call, const struct stat *st)
{
    uint64_t elsewhere = (uint64_t)st->st_dev ^ (uint64_t)call->server->device;

    share_put8(call, S_ISDIR(st->st_mode) ? QID_FOLDER : S_ISLNK(st->st_mode) ? QID_SYMLINK : 0);
    share_put32(call, (uint32_t)((uint64_t)st->st_mtim.tv_nsec ^ (uint64_t)st->st_mtim.tv_sec ^
                                 (uint64_t)st->st_size << 8));
    share_put64(call, st->st_ino ^ elsewhere * 0x9e3779b97f4a7c15ull);
}

/* ---- fids ---- */

static struct share_fid **fid_list(struct share_server *server, uint32_t number)
{
    return &server->fids[number % SHARE_FID_LISTS];
}

struct share_fid *share_find_fid(struct share_server *server, uint32_t number)
{
    struct share_fid *fid = *fid_list(server, number);

    while (fid && fid->number != number)
        fid = fid->next;
    return fid;
}

int share_set_fid(struct share_server *server, uint32_t number, struct share_node *node)
{
    struct share_fid *fid = share_find_fid(server, number), **list = fid_list(server, number);

    if (!fid && server->fid_count < MAX_FIDS)
        fid = calloc(1, sizeof(*fid));
    if (!fid) {
        share_node_put(node);
        return -ENFILE;
    }
    if (!fid->node) {
        fid->number = number;
        fid->next = *list;
        *list = fid;
        server->fid_count++;
    }
    share_node_put(fid->node);
    fid->node = node;
    return 0;
}

void share_drop_fid(struct share_server *server, struct share_fid *fid)
{
    struct share_fid **link = fid_list(server, fid->number);

    while (*link != fid)
        link = &(*link)->next;
    *link = fid->next;
    server->fid_count--;
    share_node_put(fid->node);
    free(fid);
}

void share_server_forget(struct share_server *server)
{
    for (unsigned n = 0; n < SHARE_FID_LISTS; n++)
        while (server->fids[n])
            share_drop_fid(server, server->fids[n]);
    server->message_bytes = 0;
}

/* ---- sessions ---- */

static int answer_version(struct share_call *call)
{
    struct share_server *server = call->server;
    uint64_t wanted = call->numbers[0];
    bool known = strcmp(call->texts[0], VERSION) == 0;

    share_server_forget(server);
    if (known && wanted < MIN_AGREED)
        return -EMSGSIZE;
    wanted = wanted < SHARE_MAX_MESSAGE ? wanted : SHARE_MAX_MESSAGE;
    if (known)
        server->message_bytes = (uint32_t)wanted;
    share_put32(call, (uint32_t)wanted);
    share_put_text(call, known ? VERSION : "unknown", strlen(known ? VERSION : "unknown"));
    return 0;
}

/* fid, afid, user, name of the tree, user's number. There is one tree, and no authentication. */
static int answer_attach(struct share_call *call)
{
    struct share_server *server = call->server;
    uint32_t number = (uint32_t)call->numbers[0];
    struct stat st;

    if (call->texts[1][strspn(call->texts[1], "/")])
        return -ENOENT;
    if (share_find_fid(server, number))
        return -EINVAL;
    if (fstat(server->root->fd, &st))
        return -errno;
    share_put_qid(call, &st);
    return share_set_fid(server, number, share_node_get(server->root));
}

static int answer_clunk(struct share_call *call)
{
    struct share_node *node = call->fids[0]->node;
    int status = node->kind == NODE_NEW_VALUE ? share_set_value(call->server, node) : 0;

    if (node->kind == NODE_LOST) /* it may have been a new value */
        status = -ESTALE;
    share_drop_fid(call->server, call->fids[0]);
    return status;
}

/* Messages are answered one after the other: what is to be flushed has been. */
static int answer_flush(struct share_call *call)
{
    (void)call;
    return 0;
}

/* The guest's kernel keeps its own locks; with others there are none. */
static int answer_lock(struct share_call *call)
{
    share_put8(call, LOCK_GRANTED);
    return 0;
}

static int answer_getlock(struct share_call *call)
{
    share_put8(call, LOCK_NONE);
    share_put64(call, call->numbers[1]);
    share_put64(call, call->numbers[2]);
    share_put32(call, (uint32_t)call->numbers[3]);
    share_put_text(call, "", 0);
    return 0;
}

/*
 * Arguments: b, h, w, q: a number of 8, 16, 32 or 64 bits; f: a fid that is known; n: the name of
 * something in a folder; t: any text; N: a count of 16 bits and as many names.
 */
static const struct message {
    uint8_t type;
    bool changes; /* something on the host, so not if it is read only */
    const char *arguments;
    int (*answer)(struct share_call *call);
} messages[] = {
    {8, false, "f", share_answer_statfs},           {12, false, "fw", share_answer_lopen},
    {14, true, "fnwww", share_answer_lcreate},      {16, true, "fntw", share_answer_symlink},
    {18, true, "fnwwww", share_answer_mknod},       {20, true, "ffn", share_answer_rename},
    {22, false, "f", share_answer_readlink},        {24, false, "fq", share_answer_getattr},
    {26, true, "fwwwwqqqqq", share_answer_setattr}, {30, false, "fwt", share_answer_xattrwalk},
    {32, true, "ftqw", share_answer_xattrcreate},   {40, false, "fqw", share_answer_readdir},
    {50, false, "fw", share_answer_fsync},          {52, false, "fbwqqwt", answer_lock},
    {54, false, "fbqqwt", answer_getlock},          {70, true, "ffn", share_answer_link},
    {72, true, "fnww", share_answer_mkdir},         {74, true, "fnfn", share_answer_renameat},
    {76, true, "fnw", share_answer_unlinkat},       {100, false, "wt", answer_version},
    {104, false, "wwttw", answer_attach},           {108, false, "h", answer_flush},
    {110, false, "fwN", share_answer_walk},         {116, false, "fqw", share_answer_read},
    {118, false, "fqw", share_answer_write},        {120, false, "f", answer_clunk},
    {122, true, "f", share_answer_remove},
};
#define TYPE_VERSION 100

/* ---- taking a message apart ---- */

struct arguments {
    uint8_t *at;
    size_t left;
    unsigned fids, numbers, texts; /* so far */
};

static int take_number(struct arguments *a, unsigned size, uint64_t *out_value)
{
    uint64_t value = 0;

    if (size > a->left)
        return -EINVAL;
    for (unsigned n = 0; n < size; n++)
        value |= (uint64_t)a->at[n] << 8 * n;
    a->at += size;
    a->left -= size;
    *out_value = value;
    return 0;
}

/* It moves onto its length, so that there is room for its end. */
static int take_text(struct arguments *a, const char **out_text)
{
    uint8_t *start = a->at;
    uint64_t size;

    if (take_number(a, 2, &size) || size > a->left || memchr(a->at, '\0', size))
        return -EINVAL;
    memmove(start, a->at, size);
    start[size] = '\0';
    a->at += size;
    a->left -= size;
    *out_text = (const char *)start;
    return 0;
}

/* No path: one step down, never up. */
bool share_is_name(const char *text)
{
    return *text && !strchr(text, '/') && strcmp(text, ".") != 0 && strcmp(text, "..") != 0;
}

static int take_name(struct arguments *a, const char **out_name)
{
    const char *name;

    if (take_text(a, &name) || !share_is_name(name))
        return -EINVAL;
    if (strlen(name) > NAME_MAX)
        return -ENAMETOOLONG;
    *out_name = name;
    return 0;
}

static int take_names(struct share_call *call, struct arguments *a)
{
    uint64_t count;

    if (take_number(a, 2, &count) || count > SHARE_MAX_WALK)
        return -EINVAL;
    call->name_count = (unsigned)count;
    for (unsigned n = 0; n < count; n++) {
        int status = take_name(a, &call->names[n]);

        if (status)
            return status;
    }
    return 0;
}

static int take_fid(struct share_call *call, struct arguments *a)
{
    uint64_t number;
    struct share_fid *fid;

    if (take_number(a, 4, &number))
        return -EINVAL;
    fid = share_find_fid(call->server, (uint32_t)number);
    call->fids[a->fids++] = fid;
    return fid ? 0 : -EBADF;
}

static int take_argument(struct share_call *call, struct arguments *a, char kind)
{
    switch (kind) {
    case 'b':
        return take_number(a, 1, &call->numbers[a->numbers++]);
    case 'h':
        return take_number(a, 2, &call->numbers[a->numbers++]);
    case 'w':
        return take_number(a, 4, &call->numbers[a->numbers++]);
    case 'q':
        return take_number(a, 8, &call->numbers[a->numbers++]);
    case 'f':
        return take_fid(call, a);
    case 'n':
        return take_name(a, &call->texts[a->texts++]);
    case 't':
        return take_text(a, &call->texts[a->texts++]);
    default: /* N */
        return take_names(call, a);
    }
}

static const struct message *find_message(uint8_t type)
{
    for (size_t n = 0; n < sizeof(messages) / sizeof(messages[0]); n++)
        if (messages[n].type == type)
            return &messages[n];
    return NULL;
}

static bool is_lost(const struct share_fid *fid)
{
    return fid && fid->node->kind == NODE_LOST;
}

/* bytes: the message's first copied, size of all of it. */
static int execute(struct share_call *call, uint8_t *bytes, size_t copied, uint32_t size)
{
    const struct message *message = find_message(bytes[4]);
    struct arguments a = {.at = bytes + SHARE_MIN_MESSAGE};
    struct share_server *server = call->server;

    if (!message)
        return -EOPNOTSUPP;
    if (size < SHARE_MIN_MESSAGE || size > pieces_bytes(call->out, call->out_count) ||
        size > SHARE_MAX_MESSAGE)
        return -EINVAL;
    if (!server->message_bytes && message->type != TYPE_VERSION)
        return -EPROTO;
    if (message->changes && server->read_only)
        return -EROFS;
    a.left = (copied < size ? copied : size) - SHARE_MIN_MESSAGE;
    for (const char *kind = message->arguments; *kind; kind++) {
        int status = take_argument(call, &a, *kind);

        if (status)
            return status;
    }
    if (is_lost(call->fids[0]) || is_lost(call->fids[1]))
        if (message->answer != answer_clunk && message->answer != share_answer_remove)
            return -ESTALE;
    call->data_at = (unsigned)(a.at - bytes);
    call->data_bytes = size - call->data_at;
    return message->answer(call);
}

static void begin_answer(struct share_call *call, uint8_t type, uint16_t tag)
{
    call->answer_bytes = 0;
    share_put32(call, 0);
    share_put8(call, type);
    share_put16(call, tag);
}

uint32_t share_server_answer(struct share_server *server, const struct io_piece *out,
                             unsigned out_count, const struct io_piece *in, unsigned in_count)
{
    struct share_call call = {
        .server = server, .out = out, .out_count = out_count, .in = in, .in_count = in_count};
    uint8_t message[ARGUMENTS_MAX] = {0};
    size_t copied = pieces_read(out, out_count, 0, message, sizeof(message));
    uint64_t limit = pieces_bytes(in, in_count);
    uint8_t type = message[4];
    uint16_t tag = get_le16(message + 5);
    uint32_t size = get_le32(message);
    int status;

    call.answer_limit = (uint32_t)(limit < SHARE_MAX_MESSAGE ? limit : SHARE_MAX_MESSAGE);
    if (server->message_bytes && call.answer_limit > server->message_bytes)
        call.answer_limit = server->message_bytes;
    begin_answer(&call, (uint8_t)(type + 1), tag);
    status = execute(&call, message, copied, size);
    if (!status && call.answer_bytes + call.direct_bytes > call.answer_limit)
        status = -EMSGSIZE;
    if (status) {
        call.direct_bytes = 0;
        begin_answer(&call, SHARE_RLERROR, tag);
        share_put32(&call, (uint32_t)-status);
    }
    size = (uint32_t)(call.answer_bytes + call.direct_bytes);
    put_le32(server->answer, size);
    pieces_write(in, in_count, 0, server->answer, call.answer_bytes);
    return size;
}

/* ---- lifecycle ---- */

struct share_server *share_server_new(int folder_fd, int proc_fd, bool read_only)
{
    struct share_server *server = calloc(1, sizeof(*server));
    int root = fcntl(folder_fd, F_DUPFD_CLOEXEC, 0);
    struct stat st;

    if (!server || root < 0 || fstat(root, &st)) {
        free(server);
        if (root >= 0)
            close(root);
        return NULL;
    }
    server->proc_fd = proc_fd;
    server->read_only = read_only;
    server->device = st.st_dev;
    server->root = share_node_new(NODE_PATH, root, S_IFDIR, NULL, NULL);
    if (server->root)
        return server;
    free(server);
    return NULL;
}

void share_server_free(struct share_server *server)
{
    if (!server)
        return;
    share_server_forget(server);
    share_node_put(server->root);
    free(server);
}
