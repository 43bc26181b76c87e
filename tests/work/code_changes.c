/* Code that is written, called, and written again: by its own thread, by others, through another
 * mapping, by system calls; in one page and across two. Prints a digest and the number of wrong
 * results. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef int function(int);

static uint8_t *code; /* 1 MiB, writable and executable */
static int wrong;
static volatile int stop;

static void check(const char *what, int n, int got, int expected)
{
    if (got != expected && wrong++ < 20)
        printf("%s %d: %#x, expected %#x\n", what, n, got, expected);
}

/* mov eax, value; ret */
static void put_constant(uint8_t *to, int value)
{
    uint8_t bytes[] = {0xb8, 0, 0, 0, 0, 0xc3};
    memcpy(bytes + 1, &value, 4);
    memcpy(to, bytes, sizeof(bytes));
}

/* mov eax, edi; up to 40 additions and XORs; ret */
static int generated(uint32_t seed, uint8_t *at)
{
    uint8_t *to = at;
    uint32_t value = 7;
    *to++ = 0x89;
    *to++ = 0xf8;
    for (uint32_t i = 0; i < seed % 40 + 1; i++) {
        uint32_t operand = seed * 2654435761u + i * 40503;
        int add = (seed + i) % 3 != 0;
        *to++ = add ? 0x05 : 0x35;
        memcpy(to, &operand, 4);
        to += 4;
        value = add ? value + operand : value ^ operand;
    }
    *to = 0xc3;
    int got = ((function *)at)(7);
    check("generated", (int)seed, got, (int)value);
    return got;
}

/* Calls a function whose constant another thread counts up: it never goes back. */
static void *caller(void *argument)
{
    function *f = argument;
    int last = 0;
    while (!stop) {
        int now = f(1);
        if (now < last)
            check("went back", last, now, last);
        last = now;
    }
    return NULL;
}

int main(void)
{
    uint64_t digest = 0;
    code =
        mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 300000; i++)
        digest = digest * 31 + generated(i, code + i * 37 % 30000);
    for (int i = 0; i < 30000; i++)
        digest = digest * 31 + generated(i, code + 4096 - i % 150);
    printf("%016llx\n", (unsigned long long)digest);

    /* A loop that changes the instruction behind the store:
     * xor eax, eax; again: mov [rip + 1], edi; add eax, CONSTANT; dec edi; jnz again; ret */
    static const uint8_t own[] = {0xb8, 0, 0, 0, 0, 0x89, 0x3d, 1,    0,    0,   0,
                                  0x05, 0, 0, 0, 0, 0xff, 0xcf, 0x75, 0xf1, 0xc3};
    for (int offset = 0; offset < 4096; offset += 53) {
        uint8_t *at = code + (512 << 10) + offset;
        memcpy(at, own, sizeof(own));
        check("own code", offset, ((function *)at)(500), 500 * 501 / 2);
    }

    /* One page mapped twice; and written by the kernel. */
    int fd = memfd_create("code", 0);
    if (ftruncate(fd, 65536) != 0)
        return 2;
    uint8_t *writable = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    uint8_t *executable = mmap(NULL, 65536, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    for (int i = 0; i < 100000; i++) {
        put_constant(writable + i * 6 % 60000, i);
        check("two mappings", i, ((function *)(executable + i * 6 % 60000))(0), i);
    }
    for (int i = 0; i < 20000; i++) {
        uint8_t bytes[6];
        put_constant(bytes, i);
        if (pwrite(fd, bytes, 6, 32768) != 6)
            return 2;
        check("pwrite", i, ((function *)(executable + 32768))(0), i);
    }

    /* A new page at the same address, and changes of its protection. */
    for (int i = 0; i < 20000; i++) {
        uint8_t *page = mmap(code + (900 << 10), 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        put_constant(page, i);
        check("new page", i, ((function *)page)(0), i);
        if (i % 3 == 0) {
            mprotect(page, 4096, PROT_READ | PROT_EXEC);
            check("protected page", i, ((function *)page)(0), i);
        }
    }

    /* Three threads run what this one changes: mov eax, CONSTANT, which is aligned; add eax, edi;
     * ret */
    static const uint8_t shared[] = {0x90, 0x90, 0x90, 0xb8, 0, 0, 0, 0, 0x01, 0xf8, 0xc3};
    uint8_t *at = code + (32 << 10);
    memcpy(at, shared, sizeof(shared));
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, caller, at);
    for (int i = 1; i < 200000; i++) {
        __atomic_store_n((int *)(at + 4), i, __ATOMIC_SEQ_CST);
        if (i % 1000 == 0)
            usleep(100);
        check("shared code", i, ((function *)at)(0), i);
    }
    stop = 1;
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    printf("%d wrong\n", wrong);
    return wrong != 0;
}
