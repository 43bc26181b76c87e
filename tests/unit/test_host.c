/*
 * test_host.c - memory, locks, threads and clocks of the host
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "host/file.h"
#include "host/host.h"

static void memory_is_zeroed_shared_and_lazy(void **state)
{
    struct host_memory memory;
    struct error err = {0};
    uint8_t *second;

    /* More than the machine that runs this has. */
    assert_int_equal(host_memory_new(&memory, "test", 1ull << 36, &err), 0);
    assert_int_equal(memory.hva[0], 0);
    assert_int_equal(memory.hva[(1ull << 36) - 1], 0);
    memory.hva[4096] = 42;
    second = mmap(NULL, 8192, PROT_READ, MAP_SHARED, memory.fd, 0);
    assert_ptr_not_equal(second, MAP_FAILED);
    assert_int_equal(second[4096], 42);
    munmap(second, 8192);
    host_memory_free(&memory);
    assert_null(memory.hva);
    host_memory_free(&memory);
}

static void impossible_sizes_are_refused(void **state)
{
    struct host_memory memory = {0};
    struct error err = {0};

    assert_true(host_memory_new(&memory, "test", UINT64_MAX, &err) < 0);
    assert_true(err.code != 0);
    assert_null(memory.hva);
}

static void code_is_written_here_and_executed_there(void **state)
{
    /* mov eax, 42; ret */
    static const uint8_t bytes[] = {0xb8, 42, 0, 0, 0, 0xc3};
    struct host_code code;
    struct error err = {0};

    assert_int_equal(host_code_new(&code, 65536, NULL, &err), 0);
    assert_ptr_not_equal(code.write, code.execute);
    memcpy(code.write + 100, bytes, sizeof(bytes));
    assert_memory_equal(code.execute + 100, bytes, sizeof(bytes));
#if defined(__x86_64__)
    assert_int_equal(((int (*)(void))(uintptr_t)(code.execute + 100))(), 42);
#endif
    host_code_free(&code);
    host_code_free(&code);
}

struct shared {
    struct host_mutex mutex;
    struct host_cond cond;
    unsigned count;
    bool ready;
    uint64_t self;
    bool interrupt_blocked, trap_blocked;
};

static void count_up(void *opaque)
{
    struct shared *shared = opaque;

    for (int i = 0; i < 10000; i++) {
        host_mutex_lock(&shared->mutex);
        shared->count++;
        host_mutex_unlock(&shared->mutex);
    }
}

static void wait_for_ready(void *opaque)
{
    struct shared *shared = opaque;
    sigset_t blocked;

    pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    host_mutex_lock(&shared->mutex);
    shared->self = host_thread_self();
    shared->interrupt_blocked = sigismember(&blocked, SIGINT);
    shared->trap_blocked = sigismember(&blocked, SIGSEGV);
    while (!shared->ready)
        host_cond_wait(&shared->cond, &shared->mutex);
    shared->count++;
    host_mutex_unlock(&shared->mutex);
}

static struct shared *new_shared(void)
{
    static struct shared shared;

    memset(&shared, 0, sizeof(shared));
    host_mutex_init(&shared.mutex);
    host_cond_init(&shared.cond);
    return &shared;
}

static void free_shared(struct shared *shared)
{
    host_cond_done(&shared->cond);
    host_mutex_done(&shared->mutex);
}

static void a_mutex_excludes(void **state)
{
    struct shared *shared = new_shared();
    struct host_thread *threads[4];
    struct error err = {0};

    for (int i = 0; i < 4; i++)
        threads[i] = host_thread_start("counter", count_up, shared, &err);
    for (int i = 0; i < 4; i++) {
        assert_non_null(threads[i]);
        host_thread_join(threads[i]);
    }
    assert_int_equal(shared->count, 40000);
    free_shared(shared);
    host_thread_join(NULL);
}

static void a_condition_wakes_all(void **state)
{
    struct shared *shared = new_shared();
    struct host_thread *threads[2];
    struct error err = {0};

    for (int i = 0; i < 2; i++)
        threads[i] = host_thread_start("a name that is too long", wait_for_ready, shared, &err);
    host_mutex_lock(&shared->mutex);
    shared->ready = true;
    host_cond_broadcast(&shared->cond);
    host_mutex_unlock(&shared->mutex);
    for (int i = 0; i < 2; i++)
        host_thread_join(threads[i]);
    assert_int_equal(shared->count, 2);
    assert_true(shared->self != 0);
    assert_true(shared->self != host_thread_self());
    assert_true(shared->interrupt_blocked);
    assert_false(shared->trap_blocked);
    free_shared(shared);
}

static void ask_for_signal_stack(void *opaque)
{
    sigaltstack(NULL, opaque);
}

static void a_thread_has_a_stack_for_signals(void **state)
{
    stack_t stack = {.ss_flags = SS_DISABLE};
    struct error err = {0};

    host_thread_join(host_thread_start("signals", ask_for_signal_stack, &stack, &err));
    assert_int_equal(stack.ss_flags, 0);
    assert_true(stack.ss_size >= (size_t)sysconf(_SC_MINSIGSTKSZ));
}

static void a_wait_times_out(void **state)
{
    struct shared *shared = new_shared();
    uint64_t start = host_monotonic_ns();

    host_mutex_lock(&shared->mutex);
    while (host_cond_wait_until(&shared->cond, &shared->mutex, start + 5000000))
        ;
    host_mutex_unlock(&shared->mutex);
    assert_true(host_monotonic_ns() - start >= 5000000);
    free_shared(shared);
}

static void clocks_go_forward(void **state)
{
    uint64_t first = host_monotonic_ns();

    assert_true(host_monotonic_ns() >= first);
    assert_true(host_wall_ns() > 1600000000ull * 1000000000ull); /* after 2020 */
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "wb");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void a_file_is_let_go_of_and_read_again(void **state)
{
    char path[] = "/tmp/trapeze-test-XXXXXX";
    const struct timespec later[2] = {{.tv_sec = 5}, {.tv_sec = 5}};
    struct host_file file;
    struct error err = {0};

    (void)state;
    close(mkstemp(path));
    write_file(path, "kernel");
    assert_int_equal(host_file_open(path, 5, &file, &err), -EFBIG);
    error_clear(&err);
    assert_int_equal(host_file_open(path, 6, &file, &err), 0);
    assert_int_equal(file.size_bytes, 6);
    assert_memory_equal(file.data, "kernel", 6);
    host_file_let_go(&file);
    assert_int_equal(host_file_read_again(&file, &err), 0);
    assert_memory_equal(file.data, "kernel", 6);
    assert_int_equal(utimensat(AT_FDCWD, path, later, 0), 0);
    assert_int_equal(host_file_read_again(&file, &err), -ESTALE);
    host_file_close(&file);
    write_file(path, "");
    error_clear(&err);
    assert_int_equal(host_file_open(path, 6, &file, &err), 0);
    write_file(path, "longer");
    assert_int_equal(host_file_read_again(&file, &err), -ESTALE);
    host_file_close(&file);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_zeroed_shared_and_lazy),
        cmocka_unit_test(impossible_sizes_are_refused),
        cmocka_unit_test(code_is_written_here_and_executed_there),
        cmocka_unit_test(a_file_is_let_go_of_and_read_again),
        cmocka_unit_test(a_mutex_excludes),
        cmocka_unit_test(a_condition_wakes_all),
        cmocka_unit_test(a_thread_has_a_stack_for_signals),
        cmocka_unit_test(a_wait_times_out),
        cmocka_unit_test(clocks_go_forward),
    };

    return cmocka_run_group_tests_name("host", tests, NULL, NULL);
}
