/*
 * fuzz_nbd.c - a hostile NBD server: what it says at the start, and what it answers
 *
 * The first half of the input is the server's. It is an honest server of one disk, but a byte of
 * its input that has the upper bits set changes what it would send next: another value, other
 * bytes, more, none, or it goes. Without input it stays honest. The second half is what is asked of
 * it. Claims: every call ends, with success or an error; nothing is written beside its memory; a
 * mapping has a size; an honest server's disk reads as it was written; closing does not wait for a
 * server that stays.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "backends/block/internal.h"
#include "base/bytes.h"
#include "base/log.h"
#include "fuzz_device.h"
#include "host/host.h"

#define DISK_BYTES  65536u
#define MAX_STEPS   24u
#define DEAF        0x5au
#define PATIENCE_MS 30
#define CLOSING_NS  5000000000ull

enum {
    NBD_OPT_EXPORT_NAME = 1,
    NBD_OPT_INFO = 6,
    NBD_OPT_GO,
    NBD_OPT_STRUCTURED,
    NBD_OPT_META = 10
};
enum { NBD_READ, NBD_WRITE, NBD_DISCONNECT, NBD_FLUSH, NBD_TRIM, NBD_ZERO = 6, NBD_STATUS };

static unsigned take(struct fuzz_input *in)
{
    return (unsigned)fuzz_take(in, 1);
}

/* ---- the server, on a thread of its own ---- */

static struct {
    int listener, stop_fd;
    char path[64];
    struct fuzz_input in;
    int fd;
    bool is_gone, is_structured, was_odd;
    bool is_deaf; /* stays when it is told to go */
    int wait_ms;  /* for the other end, then it goes; -1: for ever */
    uint8_t disk[DISK_BYTES];
} server;

static void put_bytes(const void *data, size_t size)
{
    if (!server.is_gone && send(server.fd, data, size, MSG_NOSIGNAL) != (ssize_t)size)
        server.is_gone = true;
}

/* What is sent instead of the next value. */
static uint64_t odd(uint64_t value)
{
    unsigned what = take(&server.in);
    uint8_t bytes[64] = {0};

    if (what < 0xc0)
        return value;
    server.was_odd = true;
    server.wait_ms = PATIENCE_MS;
    switch (what & 7) {
    case 0:
        return value ^ 1ull << (what >> 3 & 7);
    case 1:
        return value + take(&server.in);
    case 2:
        for (unsigned n = 0; n < 8; n++)
            value = value << 8 | take(&server.in);
        return value;
    case 3:
        for (unsigned n = 0; n < (what & 0x3f); n++)
            bytes[n] = (uint8_t)take(&server.in);
        put_bytes(bytes, what & 0x3f);
        return value;
    case 4:
        server.is_gone = true;
        return value;
    case 5:
        return UINT64_MAX >> take(&server.in) % 64;
    case 6:
        server.is_deaf = take(&server.in) == DEAF;
        return value;
    default:
        return 0;
    }
}

static void put(uint64_t value, unsigned size)
{
    uint8_t bytes[8];

    put_be64(bytes, odd(value) << (64 - 8 * size));
    put_bytes(bytes, size);
}

static bool get_bytes(void *data, size_t size)
{
    for (size_t done = 0; done < size && !server.is_gone;) {
        struct pollfd fds[2] = {{.fd = server.fd, .events = POLLIN},
                                {.fd = server.stop_fd, .events = POLLIN}};
        ssize_t part = 0;

        if (poll(fds, 2, server.wait_ms) > 0 && fds[0].revents)
            part = recv(server.fd, (char *)data + done, size - done, 0);
        if (part <= 0 && server.is_deaf && server.wait_ms < 0) /* it was told to go */
            poll(fds + 1, 1, -1);
        if (part <= 0)
            server.is_gone = true;
        else
            done += (size_t)part;
    }
    return !server.is_gone;
}

static void skip(uint64_t size)
{
    uint8_t bytes[4096];

    for (uint64_t part; size && !server.is_gone; size -= part) {
        part = size < sizeof(bytes) ? size : sizeof(bytes);
        get_bytes(bytes, part);
    }
}

static void put_reply(uint32_t option, uint32_t type, uint32_t size)
{
    put(0x3e889045565a9ull, 8);
    put(option, 4);
    put(type, 4);
    put(size, 4);
}

static void put_export(void)
{
    put(DISK_BYTES, 8);
    put(0x016d, 2); /* flags: flush, FUA, trim, zeroes, several connections */
}

/* False: transmission begins, or the end. */
static bool serve_option(void)
{
    uint8_t head[16];
    uint32_t option;

    if (!get_bytes(head, sizeof(head)))
        return false;
    option = get_be32(head + 8);
    skip(get_be32(head + 12) & 0xffff);
    switch (option) {
    case NBD_OPT_EXPORT_NAME:
        put_export();
        return false;
    case NBD_OPT_STRUCTURED:
        server.is_structured = !(take(&server.in) & 1);
        put_reply(option, server.is_structured ? 1 : 0x80000001u, 0);
        return !server.is_gone;
    case NBD_OPT_META:
        put_reply(option, 4, 4 + 15);
        put(1, 4);
        put_bytes("base:allocation", 15);
        put_reply(option, 1, 0);
        return !server.is_gone;
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        put_reply(option, 3, 12);
        put(0, 2);
        put_export();
        put_reply(option, 1, 0);
        return !server.is_gone && option == NBD_OPT_INFO;
    default:
        put_reply(option, 0x80000001u, 0);
        return !server.is_gone;
    }
}

static void put_chunk(uint16_t flags, uint16_t type, uint64_t cookie, uint32_t size)
{
    put(0x668e33ef, 4);
    put(flags, 2);
    put(type, 2);
    put(cookie, 8);
    put(size, 4);
}

static void put_simple(uint64_t cookie, uint32_t error)
{
    put(0x67446698, 4);
    put(error, 4);
    put(cookie, 8);
}

static bool is_in_disk(uint64_t offset, uint32_t size)
{
    return offset <= DISK_BYTES && size <= DISK_BYTES - offset;
}

static void answer_read(uint64_t cookie, uint64_t offset, uint32_t size)
{
    unsigned how = take(&server.in);

    if (!is_in_disk(offset, size))
        put_simple(cookie, 22);
    else if (!server.is_structured) {
        put_simple(cookie, 0);
        put_bytes(server.disk + offset, size);
    } else if (how & 1 && size > 1) { /* two parts, the second one first */
        put_chunk(0, 1, cookie, 8 + size - size / 2);
        put(offset + size / 2, 8);
        put_bytes(server.disk + offset + size / 2, size - size / 2);
        put_chunk(1, 1, cookie, 8 + size / 2);
        put(offset, 8);
        put_bytes(server.disk + offset, size / 2);
    } else if (how & 2) {
        server.was_odd = true;
        put_chunk(1, how & 4 ? 2 : 0x8001, cookie, how & 4 ? 12 : 6);
        put(how & 4 ? offset : 5, how & 4 ? 8 : 4);
        put(how & 4 ? size : 0, how & 4 ? 4 : 2);
    } else {
        put_chunk(1, 1, cookie, 8 + size);
        put(offset, 8);
        put_bytes(server.disk + offset, size);
    }
}

static void answer_status(uint64_t cookie, uint32_t size)
{
    if (!server.is_structured) {
        put_simple(cookie, 22);
        return;
    }
    put_chunk(1, 5, cookie, 12);
    put(1, 4);
    put(size, 4);
    put(0, 4);
}

static void serve_request(void)
{
    uint8_t head[28];
    uint64_t cookie, offset;
    uint32_t type, size;

    if (!get_bytes(head, sizeof(head)))
        return;
    type = get_be16(head + 6);
    cookie = get_be64(head + 8);
    offset = get_be64(head + 16);
    size = get_be32(head + 24);
    if (type == NBD_WRITE && !is_in_disk(offset, size))
        skip(size);
    else if (type == NBD_WRITE)
        get_bytes(server.disk + offset, size);
    if (type == NBD_DISCONNECT) {
        server.is_gone = !server.is_deaf;
        server.wait_ms = -1;
    }
    if (type == NBD_DISCONNECT || server.is_gone)
        return;
    if ((type == NBD_TRIM || type == NBD_ZERO) && is_in_disk(offset, size))
        memset(server.disk + offset, 0, size);
    if (type == NBD_READ)
        answer_read(cookie, offset, size);
    else if (type == NBD_STATUS)
        answer_status(cookie, size);
    else
        put_simple(cookie, 0);
}

static void serve_connection(void)
{
    uint8_t flags[4];

    server.is_gone = server.is_structured = server.is_deaf = false;
    server.wait_ms = server.was_odd ? PATIENCE_MS : -1;
    put(0x4e42444d41474943ull, 8);
    put(0x49484156454f5054ull, 8);
    put(3, 2);
    if (!get_bytes(flags, sizeof(flags)))
        return;
    while (serve_option())
        ;
    while (!server.is_gone)
        serve_request();
}

static void *serve(void *opaque)
{
    for (;;) {
        struct pollfd fds[2] = {{.fd = server.listener, .events = POLLIN},
                                {.fd = server.stop_fd, .events = POLLIN}};

        if (poll(fds, 2, -1) > 0 && fds[1].revents)
            return opaque;
        server.fd = accept(server.listener, NULL, NULL);
        if (server.fd < 0)
            continue;
        serve_connection();
        close(server.fd);
    }
}

static void listen_once(void)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};

    if (server.path[0])
        return;
    log_threshold = LOG_ERROR;
    snprintf(server.path, sizeof(server.path), "/tmp/fuzz-nbd-%d", (int)getpid());
    memcpy(name.sun_path, server.path, sizeof(server.path));
    unlink(server.path);
    server.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    FUZZ_CLAIM(bind(server.listener, (struct sockaddr *)&name, sizeof(name)) == 0 &&
               listen(server.listener, 16) == 0);
}

/* ---- what is asked ---- */

static uint8_t model[DISK_BYTES];

/* Memory of exactly the size, in two pieces. */
static void move(struct block_node *node, enum block_op op, uint64_t offset, size_t size,
                 unsigned fill)
{
    size_t first = size / 3;
    uint8_t *one = malloc(first ? first : 1), *two = malloc(size - first ? size - first : 1);
    struct io_piece pieces[2] = {{one, first}, {two, size - first}};
    struct block_request request = {
        .op = op, .offset = offset, .size_bytes = size, .pieces = pieces, .piece_count = 2};
    int status;

    memset(one, (int)fill, first);
    memset(two, (int)fill, size - first);
    status = node->ops->execute(node, &request);
    FUZZ_CLAIM(status <= 0);
    if (op == BLOCK_WRITE && !status)
        memset(model + offset, (int)fill, size);
    if (op == BLOCK_READ && !status && !server.was_odd) {
        FUZZ_CLAIM(memcmp(one, model + offset, first) == 0);
        FUZZ_CLAIM(memcmp(two, model + offset + first, size - first) == 0);
    }
    free(one);
    free(two);
}

static void step(struct block_node *node, struct fuzz_input *in)
{
    unsigned what = take(in);
    uint64_t end = node->size_bytes < DISK_BYTES ? node->size_bytes : DISK_BYTES;
    uint64_t offset = align_down(take(in) * 512u, 512), size = (take(in) % 32 + 1) * 512u;
    struct block_extent extent;

    if (offset >= end)
        return;
    if (size > end - offset)
        size = end - offset;
    switch (what % 6) {
    case 0:
    case 1:
        move(node, what & 1 ? BLOCK_WRITE : BLOCK_READ, offset, size, take(in));
        break;
    case 2:
        FUZZ_CLAIM(block_node_flush(node) <= 0);
        break;
    case 3:
        if (!block_node_clear(node, BLOCK_ZERO, offset, size))
            memset(model + offset, 0, size);
        break;
    case 4:
        if (!block_node_clear(node, BLOCK_DISCARD, offset, size))
            memset(model + offset, 0, size);
        break;
    default:
        if (!node->ops->map(node, offset, size, &extent))
            FUZZ_CLAIM(extent.size_bytes && extent.size_bytes <= size);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data + size / 2, size - size / 2};
    struct block_options options = {.discard = true};
    struct error err = {0};
    struct block_node *node;
    char uri[128];
    pthread_t thread;
    uint64_t start;

    listen_once();
    memset(server.disk, 0, sizeof(server.disk));
    memset(model, 0, sizeof(model));
    server.in = (struct fuzz_input){data, size / 2};
    server.was_odd = false;
    server.stop_fd = eventfd(0, EFD_CLOEXEC);
    FUZZ_CLAIM(pthread_create(&thread, NULL, serve, NULL) == 0);
    snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", server.path);
    options.file = uri;
    node = block_nbd_open(&options, &err);
    if (node) {
        FUZZ_CLAIM(node->size_bytes % 512 == 0);
        for (unsigned n = 0; n < MAX_STEPS && in.left; n++)
            step(node, &in);
        start = host_monotonic_ns();
        block_node_close(node);
        FUZZ_CLAIM(host_monotonic_ns() - start < CLOSING_NS);
    }
    FUZZ_CLAIM(eventfd_write(server.stop_fd, 1) == 0);
    pthread_join(thread, NULL);
    close(server.stop_fd);
    return 0;
}
