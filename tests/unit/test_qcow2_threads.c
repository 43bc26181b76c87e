/*
 * test_qcow2_threads.c - many threads on one qcow2 image, each with sectors of its own
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "backends/block/qcow2_internal.h"
#include "qcow2_test.h"

#define KIB     1024u
#define SECTOR  512u

#define THREADS 4u

struct thread {
    pthread_t thread;
    struct block_node *node;
    unsigned number;
    uint64_t seed, sectors;
    uint32_t *values; /* of the sectors that are this thread's: every fourth */
    bool failed;
};

static uint32_t thread_random(struct thread *t, uint32_t limit)
{
    t->seed = t->seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)((t->seed >> 33) % limit);
}

static void thread_step(struct thread *t, uint32_t stamp)
{
    uint32_t sector = thread_random(t, (uint32_t)(t->sectors / THREADS)) * THREADS + t->number;
    uint32_t data[SECTOR / 4], kind = thread_random(t, 40);

    if (kind == 0) {
        t->failed |= block_node_flush(t->node) != 0;
    } else if (kind < 4) {
        t->failed |= block_node_clear(t->node, BLOCK_ZERO, sector * (uint64_t)SECTOR, SECTOR) != 0;
        t->values[sector] = 0;
    } else if (kind < 20) {
        for (unsigned n = 0; n < SECTOR / 4; n++)
            data[n] = stamp;
        t->failed |=
            request(t->node, BLOCK_WRITE, sector * (uint64_t)SECTOR, (uint8_t *)data, SECTOR) != 0;
        t->values[sector] = stamp;
    } else {
        t->failed |=
            request(t->node, BLOCK_READ, sector * (uint64_t)SECTOR, (uint8_t *)data, SECTOR) != 0;
        for (unsigned n = 0; n < SECTOR / 4; n++)
            t->failed |= data[n] != t->values[sector];
    }
}

static void *run_thread(void *opaque)
{
    struct thread *t = opaque;

    for (uint32_t n = 1; n <= 4000 && !t->failed; n++)
        thread_step(t, n * THREADS + t->number);
    return NULL;
}

static void test_many_threads(void **state)
{
    const struct qcow2_create_options options = {
        .size_bytes = 512 * KIB, .version = 3, .cluster_bytes = 2048};
    char path[] = "/tmp/test-qcow2-XXXXXX";
    struct block_options file_options = {.file = path, .discard = true, .lock = true};
    struct thread threads[THREADS] = {0};
    struct qcow2_check_result result;
    struct error err = {0};
    bool loud = true;
    struct block_node *file, *node;

    close(mkstemp(path));
    file = block_file_open(&file_options, true, &err);
    assert_non_null(file);
    assert_int_equal(qcow2_create(file, &options, &err), 0);
    node = block_qcow2.open(file, &file_options, NULL, &err);
    assert_non_null(node);
    for (unsigned n = 0; n < THREADS; n++) {
        threads[n] = (struct thread){
            .node = node, .number = n, .seed = n + 1, .sectors = options.size_bytes / SECTOR};
        threads[n].values = calloc(threads[n].sectors, sizeof(uint32_t));
        pthread_create(&threads[n].thread, NULL, run_thread, &threads[n]);
    }
    for (unsigned n = 0; n < THREADS; n++) {
        pthread_join(threads[n].thread, NULL);
        assert_false(threads[n].failed);
        free(threads[n].values);
    }
    block_node_close(node);
    file = block_file_open(&file_options, false, &err);
    assert_non_null(file);
    file_options.as_it_is = file_options.readonly = true;
    node = block_qcow2.open(file, &file_options, NULL, &err);
    assert_int_equal(qcow2_check(node, false, ignore, &loud, &result, &err), 0);
    assert_int_equal(result.corruptions + result.leaks, 0);
    block_node_close(node);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
