/*
 * memory.c - memfd memory: guest RAM, and code with a writable and an executable view
 *
 * Pages appear when they are touched, so a large guest costs nothing until it
 * uses its memory. Large pages are asked for; whether they come is the host's choice.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/file.h"
#include "host/host.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010u /* since Linux 6.3 */
#endif
#define LARGE_PAGE_SIZE (2u << 20)

static int sized_memfd(const char *name, uint64_t size_bytes, unsigned flags, struct error *err)
{
    int fd = memfd_create(name, MFD_CLOEXEC | flags);

    if (fd < 0 && errno == EINVAL && flags)
        fd = memfd_create(name, MFD_CLOEXEC);
    if (fd < 0)
        return error_set(err, errno, "cannot create memory '%s': %s", name, strerror(errno));
    if (size_bytes > INT64_MAX || ftruncate(fd, (off_t)size_bytes) < 0) {
        int code = size_bytes > INT64_MAX ? EFBIG : errno;

        close(fd);
        return error_set(err, code, "cannot size memory '%s' to %" PRIu64 " bytes: %s", name,
                         size_bytes, strerror(code));
    }
    return fd;
}

/* place: NULL, or what is mapped there is replaced. */
static void *map_memfd(int fd, uint64_t size_bytes, int protection, void *place, struct error *err)
{
    int flags = MAP_SHARED | MAP_NORESERVE | (place ? MAP_FIXED : 0);
    void *address = mmap(place, size_bytes, protection, flags, fd, 0);

    if (address != MAP_FAILED)
        return address;
    error_set(err, errno, "cannot map %" PRIu64 " bytes of memory: %s", size_bytes,
              strerror(errno));
    return NULL;
}

int host_memory_new(struct host_memory *memory, const char *name, uint64_t size_bytes,
                    struct error *err)
{
    int fd = sized_memfd(name, size_bytes, 0, err);
    void *hva;

    if (fd < 0)
        return fd;
    hva = map_memfd(fd, size_bytes, PROT_READ | PROT_WRITE, NULL, err);
    if (!hva) {
        close(fd);
        return -ENOMEM;
    }
    if (size_bytes >= LARGE_PAGE_SIZE)
        madvise(hva, size_bytes, MADV_HUGEPAGE);
    *memory = (struct host_memory){.hva = hva, .size_bytes = size_bytes, .fd = fd};
    return 0;
}

void host_memory_free(struct host_memory *memory)
{
    if (!memory->hva)
        return;
    munmap(memory->hva, memory->size_bytes);
    close(memory->fd);
    *memory = (struct host_memory){.fd = -1};
}

int host_memory_discard(const struct host_memory *memory, uint64_t offset, uint64_t size_bytes,
                        struct error *err)
{
    if (fallocate(memory->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                  (off_t)size_bytes) == 0)
        return 0;
    return error_set(err, errno, "cannot give memory back: %s", strerror(errno));
}

uint64_t host_memory_used_bytes(const struct host_memory *memory)
{
    struct stat file;

    return host_fstat(memory->fd, &file) ? 0 : (uint64_t)file.st_blocks * 512;
}

/* Where 32-bit displacements reach; only x86-64 has it, and only x86-64 needs it. */
#ifdef MAP_32BIT
#define LOW_MAPPING MAP_32BIT
#else
#define LOW_MAPPING 0
#endif

/* Memory that is mapped holds pointers too, which the search for leaks has to be told. */
#if defined(__SANITIZE_ADDRESS__)
#define FINDS_LEAKS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FINDS_LEAKS 1
#endif
#endif

#ifdef FINDS_LEAKS
#include <sanitizer/lsan_interface.h>
#else
#define __lsan_register_root_region(memory, size_bytes)   ((void)0)
#define __lsan_unregister_root_region(memory, size_bytes) ((void)0)
#endif

void *host_private_memory_new(size_t size_bytes, size_t code_bytes, bool low, struct error *err)
{
    size_t all = size_bytes + code_bytes;
    void *memory =
        mmap(NULL, all, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (low ? LOW_MAPPING : 0), -1, 0);

    if (memory != MAP_FAILED) {
        __lsan_register_root_region(memory, size_bytes);
        return memory;
    }
    error_set(err, errno, "cannot map %zu bytes of memory: %s", all, strerror(errno));
    return NULL;
}

void host_private_memory_free(void *memory, size_t size_bytes, size_t code_bytes)
{
    if (!memory)
        return;
    __lsan_unregister_root_region(memory, size_bytes);
    munmap(memory, size_bytes + code_bytes);
}

int host_code_new(struct host_code *code, size_t size_bytes, void *place, struct error *err)
{
    int fd = sized_memfd("trapeze-code", size_bytes, MFD_EXEC, err);
    void *write, *execute;

    if (fd < 0)
        return fd;
    write = map_memfd(fd, size_bytes, PROT_READ | PROT_WRITE, NULL, err);
    execute = write ? map_memfd(fd, size_bytes, PROT_READ | PROT_EXEC, place, err) : NULL;
    close(fd);
    if (!execute) {
        if (write)
            munmap(write, size_bytes);
        error_prefix(err, "memory for generated code: ");
        return -ENOMEM;
    }
    *code = (struct host_code){
        .write = write, .execute = execute, .size_bytes = size_bytes, .has_place = place};
    return 0;
}

/* Of a size of 0 it is another mapping of the same. */
int host_code_view(const struct host_code *code, void *place, struct error *err)
{
    void *execute = (void *)(uintptr_t)code->execute;

    if (mremap(execute, 0, code->size_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, place) != MAP_FAILED)
        return 0;
    return error_set(err, errno, "cannot map generated code: %s", strerror(errno));
}

void host_code_free(struct host_code *code)
{
    if (!code->write)
        return;
    munmap(code->write, code->size_bytes);
    if (!code->has_place)
        munmap((void *)(uintptr_t)code->execute, code->size_bytes);
    *code = (struct host_code){0};
}
