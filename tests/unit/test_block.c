/*
 * test_block.c - block devices: opening, requests against a model, errors
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "backends/block/image.h"
#include "host/given.h"
#include "host/loop.h"
#include "trapeze/block.h"

#define BYTES (1u << 20)

struct fixture {
    struct loop *loop;
    struct block *block;
    char folder[64], path[96];
    unsigned seed;
};

static struct fixture f;

/* Instead of the system's: fails once when a test says so. */
static _Atomic int sync_error;
static _Atomic unsigned syncs;

int fdatasync(int fd)
{
    (void)fd;
    atomic_fetch_add(&syncs, 1);
    errno = atomic_exchange(&sync_error, 0);
    return errno ? -1 : 0;
}

/* Instead of the system's: nothing is in its cache when a test says so. Counts what waits. */
static _Atomic bool is_cold;
static _Atomic unsigned waits;

ssize_t preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    if (flags & RWF_NOWAIT && atomic_load(&is_cold)) {
        errno = EAGAIN;
        return -1;
    }
    atomic_fetch_add(&waits, !(flags & RWF_NOWAIT));
    return syscall(SYS_preadv2, fd, iov, count, offset, 0, flags);
}

/* Instead of the system's: what a disk wants that has large blocks. */
static _Atomic unsigned block_bytes;
static _Atomic bool is_silent; /* it does not say */

int statx(int folder, const char *path, int flags, unsigned mask, struct statx *out)
{
    int result = (int)syscall(SYS_statx, folder, path, flags, mask, out);

    if (atomic_load(&is_silent)) {
        errno = EPERM;
        return -1;
    }

#ifdef STATX_DIOALIGN
    if (atomic_load(&block_bytes)) {
        out->stx_mask |= STATX_DIOALIGN;
        out->stx_dio_mem_align = out->stx_dio_offset_align = atomic_load(&block_bytes);
    }
#endif
    return result;
}

static void make_file(off_t size)
{
    int fd = open(f.path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0 && ftruncate(fd, size) == 0);
    close(fd);
}

static int set_up(void **state)
{
    struct error err = {0};

    (void)state;
    f = (struct fixture){.folder = "/tmp/test-block-XXXXXX", .seed = 1};
    assert_non_null(mkdtemp(f.folder));
    snprintf(f.path, sizeof(f.path), "%s/disk", f.folder);
    f.loop = loop_new(&err);
    make_file(BYTES);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    atomic_store(&is_cold, false);
    atomic_store(&block_bytes, 0);
    atomic_store(&is_silent, false);
    block_free(f.block);
    loop_free(f.loop);
    unlink(f.path);
    rmdir(f.folder);
    return 0;
}

/* ---- opening ---- */

static struct block *try_open(const char *options, struct error *err)
{
    char description[256];

    *err = (struct error){0};
    snprintf(description, sizeof(description), "%s%s", f.path, options);
    return block_open(f.loop, description, err);
}

static void open_it(const char *options)
{
    struct error err;

    f.block = try_open(options, &err);
    if (!f.block)
        fail_msg("%s", err.text);
}

static void expect_error(const char *options, int code, const char *text)
{
    struct error err;

    assert_null(try_open(options, &err));
    assert_int_equal(err.code, code);
    if (!strstr(err.text, text))
        fail_msg("'%s' is not in: %s", text, err.text);
}

static void what_is_no_image_is_refused(void **state)
{
    (void)state;
    expect_error("2", ENOENT, f.path);
    expect_error(",format=vdj", ENOENT, "no image format 'vdj'");
    expect_error(",readnly=on", ENOENT, "readonly"); /* the nearest */
    expect_error(",readonly=perhaps", EINVAL, "perhaps");
    make_file(0);
    expect_error("", EINVAL, "empty");
    make_file(511);
    expect_error("", EINVAL, "empty");
    unlink(f.path);
    assert_int_equal(mkdir(f.path, 0700), 0);
    expect_error("", EINVAL, "neither a file nor a block device");
    expect_error(",readonly=on", EINVAL, "neither a file nor a block device");
    rmdir(f.path);
    assert_int_equal(mkfifo(f.path, 0600), 0); /* opening it would wait for a writer */
    expect_error(",readonly=on", EINVAL, "neither a file nor a block device");
}

static void a_description_names_a_file(void **state)
{
    struct error err = {0};

    (void)state;
    assert_null(block_open(f.loop, "", &err));
    assert_int_equal(err.code, EINVAL);
    assert_null(block_open(f.loop, "readonly=on", &err));
    unlink(f.path);
    snprintf(f.path, sizeof(f.path), "%s/a=b,,c", f.folder);
    expect_error("", ENOENT, "a=b,c'");
    snprintf(f.path, sizeof(f.path), "file=%s/x", f.folder);
    expect_error(",readonly=on", ENOENT, "/x'");
}

static void a_last_part_of_a_sector_is_not_there(void **state)
{
    (void)state;
    make_file(3 * 512 + 100);
    open_it("");
    assert_int_equal(block_size_bytes(f.block), 3 * 512);
    assert_false(block_is_read_only(f.block));
    assert_true(block_can_discard(f.block));
}

static void a_file_that_cannot_be_written_can_be_read(void **state)
{
    (void)state;
    if (geteuid() == 0)
        skip(); /* may write everything */
    chmod(f.path, 0400);
    expect_error("", EACCES, "readonly=on");
    open_it(",readonly=on");
    assert_true(block_is_read_only(f.block));
}

static void an_image_has_one_writer_or_many_readers(void **state)
{
    struct block *second;
    struct error err;
    pid_t child;
    int status;

    (void)state;
    open_it("");
    expect_error("", EBUSY, "somebody else has it open");
    expect_error(",readonly=on", EBUSY, "for writing");
    second = try_open(",lock=off", &err);
    assert_non_null(second);
    block_free(second);
    child = fork(); /* another process */
    if (child == 0)
        _exit(try_open("", &err) == NULL && err.code == EBUSY ? 7 : 1);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    block_free(f.block);
    open_it(",readonly=on");
    second = try_open(",readonly=on", &err);
    assert_non_null(second);
    expect_error("", EBUSY, "somebody else");
    block_free(second);
}

/* ---- requests ---- */

struct test_request {
    struct block_request block;
    struct io_piece pieces[100];
    int status;
    bool ended;
};

static void ended(struct block_request *block, int status)
{
    struct test_request *r = (struct test_request *)block;

    assert_false(r->ended);
    r->status = status;
    r->ended = true;
}

static void submit(struct test_request *r, enum block_op op, uint64_t offset, uint64_t size)
{
    r->block.op = op;
    r->block.offset = offset;
    r->block.size_bytes = size;
    r->block.pieces = r->pieces;
    r->block.done = ended;
    r->ended = false;
    block_submit(f.block, &r->block);
}

/* One piece, or many of odd sizes. */
static void cut(struct test_request *r, uint8_t *data, size_t size, unsigned max_pieces)
{
    unsigned count = 0;

    while (size) {
        size_t part = count + 1 < max_pieces ? (size_t)rand_r(&f.seed) % (size / 2 + 1) : size;

        r->pieces[count++] = (struct io_piece){data, part};
        data += part;
        size -= part;
    }
    r->block.piece_count = count;
}

static int run(enum block_op op, uint64_t offset, uint64_t size, uint8_t *data)
{
    struct test_request r = {0};

    if (data)
        cut(&r, data, size, 1);
    submit(&r, op, offset, size);
    block_drain(f.block);
    assert_true(r.ended);
    return r.status;
}

static uint8_t model[BYTES], buffer[BYTES], file[BYTES];

static void read_file(void)
{
    int fd = open(f.path, O_RDONLY | O_CLOEXEC);

    assert_int_equal(pread(fd, file, BYTES, 0), BYTES);
    close(fd);
}

static void random_request(void)
{
    static const enum block_op ops[] = {BLOCK_READ, BLOCK_READ,    BLOCK_WRITE, BLOCK_WRITE,
                                        BLOCK_ZERO, BLOCK_DISCARD, BLOCK_FLUSH};
    enum block_op op = ops[rand_r(&f.seed) % 7];
    uint64_t max = rand_r(&f.seed) % 4 ? 100 : BYTES / 512; /* small, or up to all */
    uint64_t size = ((uint64_t)rand_r(&f.seed) % max + 1) * 512;
    uint64_t offset = (uint64_t)rand_r(&f.seed) % ((BYTES - size) / 512 + 1) * 512;
    struct test_request r = {0};

    if (op == BLOCK_WRITE)
        for (uint64_t n = 0; n < size; n++)
            buffer[n] = (uint8_t)rand_r(&f.seed);
    cut(&r, buffer, size, 1 + (unsigned)rand_r(&f.seed) % 100);
    submit(&r, op, offset, size);
    block_drain(f.block);
    assert_true(r.ended);
    assert_int_equal(r.status, 0);
    if (op == BLOCK_READ)
        assert_memory_equal(buffer, model + offset, size);
    else if (op == BLOCK_WRITE)
        memcpy(model + offset, buffer, size);
    else if (op == BLOCK_ZERO)
        memset(model + offset, 0, size);
    if (op != BLOCK_DISCARD)
        return;
    assert_int_equal(run(BLOCK_READ, offset, size, buffer), 0); /* as it was, or zeros */
    for (uint64_t n = 0; n < size; n++)
        if (buffer[n] != 0 && buffer[n] != model[offset + n])
            fail_msg("byte %llu", (unsigned long long)(offset + n));
    memcpy(model + offset, buffer, size);
}

static void random_requests(const char *options, unsigned count)
{
    memset(model, 0, sizeof(model));
    open_it(options);
    for (unsigned n = 0; n < count; n++)
        random_request();
    read_file();
    assert_memory_equal(file, model, BYTES);
}

static void random_requests_agree_with_a_model(void **state)
{
    (void)state;
    random_requests("", 600);
}

static void so_they_do_without_discarding(void **state)
{
    (void)state;
    random_requests(",discard=off", 600);
}

/* ---- cache modes ---- */

static void skip_without_direct(void)
{
    int fd = open(f.path, O_RDWR | O_DIRECT | O_CLOEXEC);

    if (fd < 0)
        skip();
    close(fd);
}

static bool has_ring(void)
{
    open_it("");
    return block_has_ring(f.block);
}

static void reopen(const char *options)
{
    block_free(f.block);
    open_it(options);
}

static void requests_past_the_cache_agree_with_a_model(void **state)
{
    (void)state;
    skip_without_direct();
    random_requests(",cache=none", 200);
}

static void so_they_do_through_a_ring(void **state)
{
    (void)state;
    skip_without_direct();
    if (!has_ring())
        skip(); /* a kernel without, or one that allows none */
    block_free(f.block);
    random_requests(",cache=none,aio=io_uring", 200);
}

static void so_they_do_with_large_blocks_and_threads(void **state)
{
    (void)state;
    skip_without_direct();
    atomic_store(&block_bytes, 4096);
    random_requests(",cache=directsync,aio=threads", 200);
}

static void what_is_past_the_cache_is_not_in_it(void **state)
{
    static struct test_request r;
    static _Alignas(4096) uint8_t page[8192];

    (void)state;
    skip_without_direct();
    open_it(",cache=none");
    r.pieces[0] = (struct io_piece){page, sizeof(page)};
    r.block.piece_count = 1;
    submit(&r, BLOCK_WRITE, 4096, sizeof(page));
    assert_false(r.ended); /* it waits for the disk */
    block_drain(f.block);
    assert_true(r.ended && r.status == 0);
}

/* Parts of one block of 4096 bytes, and whole ones beside. */
static void writers_of_one_block_do_not_lose_each_others(void **state)
{
    static struct test_request r[64];
    static _Alignas(4096) uint8_t data[64 * 4096];

    (void)state;
    skip_without_direct();
    atomic_store(&block_bytes, 4096);
    reopen(has_ring() ? ",cache=none,aio=io_uring" : ",cache=none");
    for (unsigned turn = 0; turn < 5; turn++) {
        for (unsigned n = 0; n < sizeof(data); n++)
            data[n] = (uint8_t)rand_r(&f.seed);
        for (unsigned n = 0; n < 64; n++) {
            bool is_whole = n % 16 == 15;
            size_t at = is_whole ? (48 + n / 16) * 4096 : n * 512;

            r[n].pieces[0] = (struct io_piece){data + at, is_whole ? 4096 : 512};
            r[n].block.piece_count = 1;
            submit(&r[n], BLOCK_WRITE, at, is_whole ? 4096 : 512);
        }
        block_drain(f.block);
        read_file();
        for (unsigned n = 0; n < 64; n++) {
            size_t at = n % 16 == 15 ? (48 + n / 16) * 4096 : n * 512;

            assert_true(r[n].ended && r[n].status == 0);
            assert_memory_equal(file + at, data + at, n % 16 == 15 ? 4096 : 512);
        }
    }
}

static void qcow2_goes_past_the_cache(void **state)
{
    static char compression[] = "zlib";
    const struct image_options options = {
        .cluster_size = 512, .version = 3, .compression = compression};
    const struct image_new new = {
        .file = f.path, .format = "qcow2", .size_bytes = BYTES, .force = true, .options = &options};
    struct error err = {0};

    (void)state;
    skip_without_direct();
    for (unsigned turn = 0; turn < 2; turn++) {
        atomic_store(&block_bytes, turn ? 4096 : 512);
        if (image_create(&new, &err))
            fail_msg("%s", err.text);
        memset(model, 0, sizeof(model));
        open_it(",cache=none");
        for (unsigned n = 0; n < 80; n++)
            random_request();
        block_free(f.block);
        open_it(",cache=none");
        assert_int_equal(run(BLOCK_READ, 0, BYTES, buffer), 0);
        assert_memory_equal(buffer, model, BYTES);
        block_free(f.block);
        f.block = NULL;
    }
}

static void an_end_within_a_block_is_refused(void **state)
{
    (void)state;
    skip_without_direct();
    atomic_store(&block_bytes, 4096);
    make_file(BYTES - 512);
    expect_error(",cache=none", EINVAL, "no multiple of the 4096 bytes");
    open_it(",cache=none,readonly=on");
    assert_int_equal(run(BLOCK_READ, BYTES - 4096, 3584, buffer), 0);
    assert_int_equal(run(BLOCK_READ, BYTES - 1024, 512, buffer), 0);
}

/* As in the sandbox. */
static void what_the_system_does_not_say_is_tried(void **state)
{
    static _Alignas(4096) uint8_t block[1024];
    struct error err;
    int fd;
    bool takes_512;

    (void)state;
    skip_without_direct();
    make_file(BYTES - 512);
    fd = open(f.path, O_RDWR | O_DIRECT | O_CLOEXEC);
    takes_512 = pread(fd, block + 512, 512, 512) == 512;
    close(fd);
    atomic_store(&is_silent, true);
    f.block = try_open(",cache=none", &err);
    assert_int_equal(f.block != NULL, takes_512); /* the end is within a block of 4096 bytes */
    make_file(BYTES);
    if (takes_512)
        block_free(f.block);
    random_requests(",cache=none", 200);
}

static void a_cache_mode_says_when_the_disk_is_flushed(void **state)
{
    static const struct {
        const char *options;
        unsigned of_write, of_zero, of_flush, of_close;
    } rows[] = {
        {"", 0, 0, 1, 1},
        {",cache=writeback", 0, 0, 1, 1},
        {",cache=writethrough", 1, 1, 0, 1},
        {",cache=unsafe", 0, 0, 0, 0},
    };

    (void)state;
    for (unsigned n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        unsigned before = atomic_load(&syncs);

        open_it(rows[n].options);
        assert_int_equal(block_is_write_through(f.block), rows[n].of_write);
        assert_int_equal(run(BLOCK_WRITE, 0, 512, buffer), 0);
        assert_int_equal(atomic_load(&syncs), before += rows[n].of_write);
        assert_int_equal(run(BLOCK_ZERO, 0, 512, NULL), 0);
        assert_int_equal(atomic_load(&syncs), before += rows[n].of_zero);
        assert_int_equal(run(BLOCK_READ, 0, 512, buffer), 0);
        assert_int_equal(run(BLOCK_FLUSH, 0, 0, NULL), 0);
        assert_int_equal(atomic_load(&syncs), before += rows[n].of_flush);
        block_free(f.block);
        assert_int_equal(atomic_load(&syncs), before + rows[n].of_close);
    }
    f.block = NULL;
    expect_error(",cache=off", EINVAL, "writeback, none, writethrough, directsync or unsafe");
}

static void a_write_through_that_is_not_safe_has_failed(void **state)
{
    (void)state;
    open_it(",cache=writethrough,fault=flush:2");
    assert_int_equal(run(BLOCK_WRITE, 0, 512, buffer), 0);
    assert_int_equal(run(BLOCK_WRITE, 0, 512, buffer), -EIO);
}

/* ---- many ---- */

static void many_are_under_way(void **state)
{
    static struct test_request r[64];

    (void)state;
    open_it("");
    for (unsigned n = 0; n < BYTES; n++)
        buffer[n] = (uint8_t)(n / 1000 + n);
    for (unsigned n = 0; n < 64; n++) {
        cut(&r[n], buffer + n * (BYTES / 64), BYTES / 64, 10);
        submit(&r[n], BLOCK_WRITE, n * (BYTES / 64), BYTES / 64);
    }
    block_drain(f.block);
    for (unsigned n = 0; n < 64; n++)
        assert_true(r[n].ended && r[n].status == 0);
    read_file();
    assert_memory_equal(file, buffer, BYTES);
    for (unsigned n = 0; n < 8; n++) { /* larger: on worker threads, ended by the loop */
        cut(&r[n], model + n * (BYTES / 8), BYTES / 8, 3);
        submit(&r[n], BLOCK_READ, n * (BYTES / 8), BYTES / 8);
    }
    for (unsigned n = 0; n < 8; n++)
        while (!r[n].ended)
            loop_once(f.loop, 10000000);
    assert_memory_equal(model, buffer, BYTES);
}

/* ---- rings ---- */

static void what_is_not_in_memory_goes_through_a_ring(void **state)
{
    unsigned before;

    (void)state;
    if (!has_ring())
        skip();
    reopen(",format=raw,aio=io_uring");
    memset(buffer, 0x77, 8192);
    assert_int_equal(run(BLOCK_WRITE, 4096, 8192, buffer), 0);
    memset(buffer, 0, 8192);
    before = atomic_load(&waits);
    atomic_store(&is_cold, true);
    assert_int_equal(run(BLOCK_READ, 4096, 8192, buffer), 0);
    assert_int_equal(buffer[0] + buffer[8191], 2 * 0x77);
    assert_int_equal(atomic_load(&waits), before);
    reopen(",format=raw,aio=threads");
    assert_false(block_has_ring(f.block));
    assert_int_equal(run(BLOCK_READ, 4096, 8192, buffer), 0);
    assert_int_equal(atomic_load(&waits), before + 1);
}

static void many_are_in_a_ring(void **state)
{
    static struct test_request r[512];
    int fd = open(f.path, O_RDWR | O_CLOEXEC);

    (void)state;
    for (unsigned n = 0; n < BYTES; n++)
        model[n] = (uint8_t)(n / 2048 + n);
    assert_int_equal(pwrite(fd, model, BYTES, 0), BYTES);
    close(fd);
    open_it("");
    atomic_store(&is_cold, true);
    for (unsigned turn = 0; turn < 2; turn++) {
        memset(buffer, 0, BYTES);
        for (unsigned n = 0; n < 512; n++) { /* more than there is room for */
            cut(&r[n], buffer + n * 2048, 2048, 10);
            submit(&r[n], BLOCK_READ, n * 2048, 2048);
        }
        if (turn)
            block_quiesce(f.block);
        for (unsigned n = 0; n < 512; n++)
            while (!r[n].ended)
                loop_once(f.loop, 10000000);
        for (unsigned n = 0; n < 512; n++)
            assert_int_equal(r[n].status, 0);
        assert_memory_equal(buffer, model, BYTES);
    }
}

static void errors_of_a_ring_are_those_of_workers(void **state)
{
    (void)state;
    open_it("");
    atomic_store(&is_cold, true);
    assert_int_equal(truncate(f.path, BYTES / 2), 0);
    assert_int_equal(run(BLOCK_READ, BYTES / 2 - 512, 512, buffer), 0);
    assert_int_equal(run(BLOCK_READ, BYTES / 2, 512, buffer), -EIO);
    assert_int_equal(run(BLOCK_READ, BYTES / 2 - 512, 1024, buffer), -EIO);
}

/* Writers wait for readers that are in the ring, and who drains waits for both. */
static void qcow2_images_go_through_a_ring(void **state)
{
    static struct test_request r[64];
    struct error err = {0};
    static char compression[] = "zlib";
    const struct image_options options = {
        .cluster_size = 4096, .version = 3, .compression = compression};
    const struct image_new new = {
        .file = f.path, .format = "qcow2", .size_bytes = BYTES, .force = true, .options = &options};

    (void)state;
    if (image_create(&new, &err))
        fail_msg("%s", err.text);
    memset(model, 0, BYTES);
    open_it("");
    atomic_store(&is_cold, true);
    for (unsigned turn = 0; turn < 60; turn++) {
        for (unsigned n = 0; n < 32; n++) {
            uint64_t offset = n * (BYTES / 64) + 512 * (rand_r(&f.seed) % 8);

            memset(buffer + offset, (int)(turn + n), 4096);
            cut(&r[n], file + offset, 4096, 3);
            submit(&r[n], BLOCK_READ, offset, 4096);
            cut(&r[32 + n], buffer + offset, 4096, 3);
            submit(&r[32 + n], BLOCK_WRITE, offset, 4096);
        }
        block_drain(f.block);
        for (unsigned n = 0; n < 64; n++) {
            uint64_t offset = r[n].block.offset;

            assert_true(r[n].ended && r[n].status == 0);
            if (n >= 32)
                memcpy(model + offset, buffer + offset, 4096);
        }
        assert_int_equal(run(BLOCK_READ, 0, BYTES / 2, file), 0);
        assert_memory_equal(file, model, BYTES / 2);
    }
}

static void a_ring_can_only_read_and_write(void **state)
{
    char name[64], link[64];
    bool is_seen = false;

    (void)state;
    if (!has_ring())
        skip();
    for (int fd = 3; fd < 100; fd++) {
        ssize_t length;

        snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
        length = readlink(name, link, sizeof(link) - 1);
        link[length < 0 ? 0 : length] = '\0';
        if (!strstr(link, "io_uring"))
            continue;
        is_seen = true;
        assert_int_equal(syscall(SYS_io_uring_register, fd, 9 /* PERSONALITY */, NULL, 0), -1);
        assert_int_equal(errno, EACCES);
    }
    assert_true(is_seen);
}

static void there_are_two_ways_to_wait(void **state)
{
    (void)state;
    expect_error(",aio=native", EINVAL, "io_uring or threads");
}

/* ---- refusals ---- */

static void what_is_out_of_range_is_refused(void **state)
{
    static const enum block_op ops[] = {BLOCK_READ, BLOCK_WRITE, BLOCK_DISCARD, BLOCK_ZERO};

    (void)state;
    open_it("");
    for (unsigned n = 0; n < 4; n++) {
        assert_int_equal(run(ops[n], BYTES - 512, 1024, buffer), -EINVAL);
        assert_int_equal(run(ops[n], BYTES + 512, 0, NULL), -EINVAL);
        assert_int_equal(run(ops[n], UINT64_MAX - 511, 1024, buffer), -EINVAL);
        assert_int_equal(run(ops[n], 512, UINT64_MAX - 511, NULL), -EINVAL);
        assert_int_equal(run(ops[n], BYTES, 0, NULL), 0);
    }
    read_file();
}

/* By a name that is not there; fd is given away. */
static int open_given(int fd, struct error *err)
{
    struct host_given given = {.count = 0};

    assert_int_equal(host_given_add(&given, "/none/x.iso", O_RDONLY, fd), 0);
    host_use(&given);
    f.block = block_open(f.loop, "/none/x.iso,readonly=on", err);
    host_use(NULL);
    host_given_done(&given);
    return f.block ? 0 : -err->code;
}

static void an_image_can_be_given(void **state)
{
    struct error err = {0};
    int ends[2];

    (void)state;
    if (open_given(open(f.path, O_RDONLY | O_CLOEXEC), &err))
        fail_msg("%s", err.text);
    memset(buffer, 0x55, 512);
    assert_int_equal(run(BLOCK_READ, 0, 512, buffer), 0);
    assert_int_equal(buffer[0], 0);
    block_free(f.block);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(open_given(ends[0], &err), -EINVAL);
    assert_non_null(strstr(err.text, "neither a file nor a block device"));
    close(ends[1]);
    assert_int_not_equal(open_given(open(f.path, O_WRONLY | O_CLOEXEC), &err), 0);
    assert_null(block_open(f.loop, "/none/x.iso,readonly=on", &err));
}

static void a_read_only_disk_stays(void **state)
{
    (void)state;
    open_it(",readonly=on");
    assert_false(block_can_discard(f.block));
    assert_int_equal(run(BLOCK_READ, 0, 512, buffer), 0);
    assert_int_equal(run(BLOCK_WRITE, 0, 512, buffer), -EROFS);
    assert_int_equal(run(BLOCK_ZERO, 0, 512, NULL), -EROFS);
    assert_int_equal(run(BLOCK_DISCARD, 0, 512, NULL), -EROFS);
    assert_int_equal(run(BLOCK_FLUSH, 0, 0, NULL), 0);
}

/* ---- errors ---- */

static void a_file_that_was_cut_short_is_an_error(void **state)
{
    (void)state;
    open_it("");
    assert_int_equal(truncate(f.path, BYTES / 2), 0);
    assert_int_equal(run(BLOCK_READ, BYTES / 2 - 512, 512, buffer), 0);
    assert_int_equal(run(BLOCK_READ, BYTES / 2, 512, buffer), -EIO);
    assert_int_equal(run(BLOCK_READ, BYTES / 2 - 512, 1024, buffer), -EIO);
    assert_int_equal(run(BLOCK_READ, 0, BYTES, buffer), -EIO);     /* on a worker */
    assert_int_equal(run(BLOCK_WRITE, BYTES / 2, 512, buffer), 0); /* which makes it longer */
}

static void a_limit_of_the_file_is_an_error(void **state)
{
    struct rlimit old, limit;
    int small, large, zero;

    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    open_it(",discard=off");
    limit = (struct rlimit){BYTES / 2, old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    small = run(BLOCK_WRITE, BYTES / 2, 512, buffer);
    large = run(BLOCK_WRITE, BYTES / 4, BYTES / 2, buffer);
    zero = run(BLOCK_ZERO, BYTES / 4, BYTES / 2, NULL);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(small, -EFBIG);
    assert_int_equal(large, -EFBIG);
    assert_int_equal(zero, -EFBIG);
    assert_int_equal(run(BLOCK_WRITE, BYTES / 2, 512, buffer), 0);
}

static void a_flush_that_failed_fails_for_ever(void **state)
{
    (void)state;
    open_it("");
    assert_int_equal(run(BLOCK_FLUSH, 0, 0, NULL), 0);
    atomic_store(&sync_error, EIO);
    assert_int_equal(run(BLOCK_FLUSH, 0, 0, NULL), -EIO);
    assert_int_equal(run(BLOCK_FLUSH, 0, 0, NULL),
                     -EIO); /* the system would say that all is well */
    assert_int_equal(run(BLOCK_WRITE, 0, 512, buffer), 0);
}

static void closing_flushes(void **state)
{
    unsigned before = atomic_load(&syncs);

    (void)state;
    open_it("");
    block_free(f.block);
    assert_int_equal(atomic_load(&syncs), before + 1);
    open_it(",readonly=on");
    block_free(f.block);
    f.block = NULL;
    assert_int_equal(atomic_load(&syncs), before + 1);
}

/* ---- errors that pause ---- */

static unsigned pauses;
static char pause_text[512];

static void pause_it(void *opaque, const char *why)
{
    assert_ptr_equal(opaque, f.block);
    snprintf(pause_text, sizeof(pause_text), "%s", why);
    pauses++;
}

static void open_with_pause(const char *options)
{
    open_it(options);
    block_set_pause(f.block, pause_it, f.block);
    pauses = 0;
}

/* As a device does when the machine is paused and resumed. */
static void retry(void)
{
    struct block_request *kept[8];
    unsigned count = 0;
    int status;

    block_quiesce(f.block);
    while ((kept[count] = block_take_kept(f.block, &status))) {
        assert_true(status < 0 && count < 7);
        count++;
    }
    for (unsigned n = 0; n < count; n++)
        block_submit(f.block, kept[n]);
    block_quiesce(f.block);
}

static void submit_and_wait(struct test_request *r, enum block_op op, uint64_t offset,
                            uint64_t size)
{
    if (size)
        cut(r, buffer, size, 3);
    submit(r, op, offset, size);
    block_quiesce(f.block);
}

static void what_was_kept_is_tried_again(void **state)
{
    struct test_request write = {0}, flush = {0};

    (void)state;
    open_with_pause(",fault=write:1:2:enospc+flush:1:1:enospc");
    memset(buffer, 0x5a, 4096);
    submit_and_wait(&write, BLOCK_WRITE, 8192, 4096);
    assert_false(write.ended);
    assert_int_equal(pauses, 1);
    if (!strstr(pause_text, "cannot write 4096 bytes at 8192: No space left"))
        fail_msg("%s", pause_text);
    retry();
    assert_false(write.ended);
    assert_int_equal(pauses, 2);
    submit_and_wait(&flush, BLOCK_FLUSH, 0, 0);
    assert_false(flush.ended);
    retry();
    assert_true(write.ended && write.status == 0);
    assert_true(flush.ended && flush.status == 0);
    assert_int_equal(pauses, 3);
    read_file();
    assert_memory_equal(file + 8192, buffer, 4096);
}

static void what_was_kept_ends_with_a_drain(void **state)
{
    struct test_request r[3] = {0};

    (void)state;
    open_with_pause(",werror=pause,rerror=pause,fault=write:1:0+read:1:0");
    for (unsigned n = 0; n < 3; n++)
        submit_and_wait(&r[n], n ? BLOCK_WRITE : BLOCK_READ, n * 4096, 4096);
    block_drain(f.block);
    for (unsigned n = 0; n < 3; n++)
        assert_true(r[n].ended && r[n].status == -EIO);
    assert_int_equal(pauses, 3);
}

static bool is_writer(const void *owner, const struct block_request *request)
{
    assert_ptr_equal(owner, &f);
    return request->op == BLOCK_WRITE;
}

static void a_drain_of_one_owner_leaves_what_others_have_kept(void **state)
{
    struct test_request r[4] = {0};

    (void)state;
    open_with_pause(",werror=pause,rerror=pause,fault=write:1:0+read:1:2");
    for (unsigned n = 0; n < 4; n++)
        submit_and_wait(&r[n], n % 2 ? BLOCK_WRITE : BLOCK_READ, n * 4096, 4096);
    block_drain_owner(f.block, is_writer, &f);
    for (unsigned n = 0; n < 4; n++)
        assert_true(r[n].ended == n % 2 && r[n].status == (n % 2 ? -EIO : 0));
    assert_int_equal(pauses, 4);
    retry();
    assert_true(r[0].ended && r[2].ended && r[0].status == 0 && r[2].status == 0);
}

static void a_policy_says_what_becomes_of_errors(void **state)
{
    static const struct {
        const char *options;
        enum block_op op;
        int status; /* 1: it is kept */
    } rows[] = {
        {",fault=write:1", BLOCK_WRITE, -EIO},
        {",fault=write:1:1:enospc", BLOCK_WRITE, 1},
        {",fault=zero:1:1:enospc", BLOCK_ZERO, 1},
        {",fault=discard:1:1:enospc", BLOCK_DISCARD, 1},
        {",fault=flush:1:1:eio", BLOCK_FLUSH, -EIO},
        {",fault=flush:1:1:eio,werror=pause", BLOCK_FLUSH, 1},
        {",fault=read:1:1:eio", BLOCK_READ, -EIO},
        {",fault=read:1:1:enospc", BLOCK_READ, -ENOSPC},
        {",fault=read:1:1:enospc,rerror=enospc", BLOCK_READ, 1},
        {",fault=read:1:1:eio,rerror=pause", BLOCK_READ, 1},
        {",fault=read:1:1:eio,rerror=ignore", BLOCK_READ, 0},
        {",fault=write:1:1:eio,werror=ignore", BLOCK_WRITE, 0},
        {",fault=write:1:1:eio,werror=pause", BLOCK_WRITE, 1},
        {",fault=write:1:1:enospc,werror=report", BLOCK_WRITE, -ENOSPC},
        {",fault=write:2:1:enospc", BLOCK_WRITE, 0},
    };

    (void)state;
    for (unsigned n = 0; n < sizeof(rows) / sizeof(rows[0]); n++) {
        struct test_request r = {0};

        open_with_pause(rows[n].options);
        submit_and_wait(&r, rows[n].op, 0, rows[n].op == BLOCK_FLUSH ? 0 : 512);
        assert_int_equal(r.ended, rows[n].status != 1);
        assert_int_equal(pauses, rows[n].status == 1);
        if (r.ended)
            assert_int_equal(r.status, rows[n].status);
        retry();
        assert_true(r.ended);
        block_free(f.block);
    }
    f.block = NULL;
    expect_error(",werror=stop", EINVAL, "report, pause, ignore or enospc");
    expect_error(",rerror=", EINVAL, "report, pause, ignore or enospc");
    expect_error(",fault=wrote:1", EINVAL, "no operation 'wrote'");
    expect_error(",fault=write:1:1:efault", EINVAL, "no error 'efault'");
    expect_error(",fault=write:x", EINVAL, "fault=write:x");
}

static void nothing_is_kept_of_what_the_guest_asked_wrongly(void **state)
{
    (void)state;
    open_with_pause(",werror=pause,rerror=pause,readonly=on");
    assert_int_equal(run(BLOCK_WRITE, 0, 512, buffer), -EROFS);
    assert_int_equal(run(BLOCK_READ, BYTES, 512, buffer), -EINVAL);
    assert_int_equal(pauses, 0);
}

static void without_a_pause_errors_are_reported(void **state)
{
    (void)state;
    open_it(",werror=pause,fault=write:1");
    assert_int_equal(run(BLOCK_WRITE, 0, 512, buffer), -EIO);
}

/* ---- holes ---- */

static uint64_t allocated(void)
{
    struct stat stat_of;
    int fd = open(f.path, O_RDONLY | O_CLOEXEC);

    assert_int_equal(fsync(fd), 0); /* room is given when it is written */
    close(fd);
    assert_int_equal(stat(f.path, &stat_of), 0);
    return (uint64_t)stat_of.st_blocks * 512;
}

static void sparse_files_stay_sparse(void **state)
{
    uint64_t empty = allocated();

    (void)state;
    if (empty >= BYTES)
        skip(); /* a file system without holes */
    open_it("");
    memset(buffer, 0x55, BYTES);
    assert_int_equal(run(BLOCK_ZERO, 0, BYTES, NULL), 0);
    assert_int_equal(run(BLOCK_READ, 0, BYTES, file), 0);
    assert_int_equal(allocated(), empty);
    assert_int_equal(run(BLOCK_WRITE, 0, BYTES, buffer), 0);
    if (allocated() < BYTES)
        skip(); /* or one that compresses */
    assert_int_equal(run(BLOCK_DISCARD, 0, BYTES / 2, NULL), 0);
    assert_true(allocated() <= BYTES / 2 + empty + 65536);
    assert_int_equal(run(BLOCK_ZERO, BYTES / 2, BYTES / 2, NULL), 0);
    assert_true(allocated() <= empty + 65536);
}

static void without_discard_a_file_keeps_its_room(void **state)
{
    (void)state;
    open_it(",discard=off");
    assert_false(block_can_discard(f.block));
    memset(buffer, 0x55, BYTES);
    assert_int_equal(run(BLOCK_WRITE, 0, BYTES, buffer), 0);
    if (allocated() < BYTES)
        skip();
    assert_int_equal(run(BLOCK_DISCARD, 0, BYTES, NULL), 0);
    assert_int_equal(run(BLOCK_ZERO, 0, BYTES, NULL), 0);
    assert_true(allocated() >= BYTES);
    assert_int_equal(run(BLOCK_READ, 0, BYTES, file), 0);
    for (unsigned n = 0; n < BYTES; n++)
        assert_int_equal(file[n], 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_no_image_is_refused),
        TEST(a_description_names_a_file),
        TEST(a_last_part_of_a_sector_is_not_there),
        TEST(a_file_that_cannot_be_written_can_be_read),
        TEST(an_image_has_one_writer_or_many_readers),
        TEST(random_requests_agree_with_a_model),
        TEST(so_they_do_without_discarding),
        TEST(requests_past_the_cache_agree_with_a_model),
        TEST(so_they_do_through_a_ring),
        TEST(so_they_do_with_large_blocks_and_threads),
        TEST(what_is_past_the_cache_is_not_in_it),
        TEST(writers_of_one_block_do_not_lose_each_others),
        TEST(qcow2_goes_past_the_cache),
        TEST(an_end_within_a_block_is_refused),
        TEST(what_the_system_does_not_say_is_tried),
        TEST(a_cache_mode_says_when_the_disk_is_flushed),
        TEST(a_write_through_that_is_not_safe_has_failed),
        TEST(many_are_under_way),
        TEST(what_is_not_in_memory_goes_through_a_ring),
        TEST(many_are_in_a_ring),
        TEST(errors_of_a_ring_are_those_of_workers),
        TEST(qcow2_images_go_through_a_ring),
        TEST(a_ring_can_only_read_and_write),
        TEST(there_are_two_ways_to_wait),
        TEST(what_is_out_of_range_is_refused),
        TEST(an_image_can_be_given),
        TEST(a_read_only_disk_stays),
        TEST(a_file_that_was_cut_short_is_an_error),
        TEST(a_limit_of_the_file_is_an_error),
        TEST(a_flush_that_failed_fails_for_ever),
        TEST(closing_flushes),
        TEST(what_was_kept_is_tried_again),
        TEST(what_was_kept_ends_with_a_drain),
        TEST(a_drain_of_one_owner_leaves_what_others_have_kept),
        TEST(a_policy_says_what_becomes_of_errors),
        TEST(nothing_is_kept_of_what_the_guest_asked_wrongly),
        TEST(without_a_pause_errors_are_reported),
        TEST(sparse_files_stay_sparse),
        TEST(without_discard_a_file_keeps_its_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
