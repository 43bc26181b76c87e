/*
 * guest_ram.h - single accesses to the RAM of a guest
 *
 * vCPUs and devices share guest RAM without a lock, as on a real machine: what order
 * there is, the guest makes. Engines, page walks and copies reach RAM through these
 * functions only. A load or store of 1 to 8 bytes is one access; it may be unaligned, as
 * may all others. Those called atomic are sequentially consistent if nothing else is said.
 *
 * The race detector does not see them: races in RAM are the guest's own, and a lock that the
 * guest takes must not pass for one that orders our structures. It would see them if they
 * were inlined, or if they called memcpy.
 */
#ifndef BASE_GUEST_RAM_H
#define BASE_GUEST_RAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__SANITIZE_THREAD__)
#define GUEST_RAM_UNSEEN __attribute__((no_sanitize_thread))
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define GUEST_RAM_UNSEEN __attribute__((disable_sanitizer_instrumentation))
#endif
#endif

#ifdef GUEST_RAM_UNSEEN
typedef uint64_t __attribute__((aligned(1), may_alias)) ram_word;
#define GUEST_RAM_ACCESS static __attribute__((noinline, unused)) GUEST_RAM_UNSEEN
#else
#define GUEST_RAM_ACCESS static inline __attribute__((always_inline))
#endif

#define GUEST_RAM_ACCESSES(bits)                                                                   \
    GUEST_RAM_ACCESS uint##bits##_t ram_load##bits(const void *ram)                                \
    {                                                                                              \
        uint##bits##_t value;                                                                      \
        memcpy(&value, ram, sizeof(value));                                                        \
        return value;                                                                              \
    }                                                                                              \
    GUEST_RAM_ACCESS void ram_store##bits(void *ram, uint##bits##_t value)                         \
    {                                                                                              \
        memcpy(ram, &value, sizeof(value));                                                        \
    }                                                                                              \
    GUEST_RAM_ACCESS uint##bits##_t ram_atomic_load##bits(const void *ram) /* acquire */           \
    {                                                                                              \
        return __atomic_load_n((const uint##bits##_t *)ram, __ATOMIC_ACQUIRE);                     \
    }                                                                                              \
    GUEST_RAM_ACCESS void ram_atomic_store##bits(void *ram, uint##bits##_t value) /* release */    \
    {                                                                                              \
        __atomic_store_n((uint##bits##_t *)ram, value, __ATOMIC_RELEASE);                          \
    }                                                                                              \
    GUEST_RAM_ACCESS uint##bits##_t ram_atomic_exchange##bits(void *ram, uint##bits##_t value)     \
    {                                                                                              \
        return __atomic_exchange_n((uint##bits##_t *)ram, value, __ATOMIC_SEQ_CST);                \
    }                                                                                              \
    GUEST_RAM_ACCESS uint##bits##_t ram_atomic_add##bits(void *ram, uint##bits##_t value)          \
    {                                                                                              \
        return __atomic_fetch_add((uint##bits##_t *)ram, value, __ATOMIC_SEQ_CST);                 \
    }                                                                                              \
    /* Store value if *expected is there; else say in *expected what is. */                        \
    GUEST_RAM_ACCESS bool ram_atomic_swap##bits(void *ram, uint##bits##_t *expected,               \
                                                uint##bits##_t value)                              \
    {                                                                                              \
        return __atomic_compare_exchange_n((uint##bits##_t *)ram, expected, value, false,          \
                                           __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                    \
    }
GUEST_RAM_ACCESSES(8)
GUEST_RAM_ACCESSES(16)
GUEST_RAM_ACCESSES(32)
GUEST_RAM_ACCESSES(64)
#undef GUEST_RAM_ACCESSES

GUEST_RAM_ACCESS uint8_t ram_atomic_or8(void *ram, uint8_t bits)
{
    return __atomic_fetch_or((uint8_t *)ram, bits, __ATOMIC_SEQ_CST);
}

/* At least one of the two is RAM; they do not overlap. */
GUEST_RAM_ACCESS void ram_copy(void *to, const void *from, size_t size_bytes)
{
#ifdef GUEST_RAM_UNSEEN
    volatile uint8_t *out = to;
    const volatile uint8_t *in = from;

    for (; size_bytes >= 8; size_bytes -= 8, out += 8, in += 8) /* no half-written pointers */
        *(volatile ram_word *)out = *(const volatile ram_word *)in;
    while (size_bytes--)
        *out++ = *in++;
#else
    memcpy(to, from, size_bytes);
#endif
}

/* From RAM to RAM; they may overlap. */
GUEST_RAM_ACCESS void ram_move(void *to, const void *from, size_t size_bytes)
{
#ifdef GUEST_RAM_UNSEEN
    volatile uint8_t *out = to;
    const volatile uint8_t *in = from;

    if ((uintptr_t)to - (uintptr_t)from >= size_bytes) {
        for (; size_bytes >= 8; size_bytes -= 8, out += 8, in += 8)
            *(volatile ram_word *)out = *(const volatile ram_word *)in;
        while (size_bytes--)
            *out++ = *in++;
        return;
    }
    while (size_bytes--)
        out[size_bytes] = in[size_bytes];
#else
    memmove(to, from, size_bytes);
#endif
}

GUEST_RAM_ACCESS void ram_fill(void *ram, uint8_t value, size_t size_bytes)
{
#ifdef GUEST_RAM_UNSEEN
    volatile uint8_t *out = ram;

    while (size_bytes--)
        *out++ = value;
#else
    memset(ram, value, size_bytes);
#endif
}

GUEST_RAM_ACCESS bool ram_equals(const void *ram, const void *bytes, size_t size_bytes)
{
#ifdef GUEST_RAM_UNSEEN
    const volatile uint8_t *a = ram, *b = bytes;

    while (size_bytes && *a == *b)
        a++, b++, size_bytes--;
    return size_bytes == 0;
#else
    return memcmp(ram, bytes, size_bytes) == 0;
#endif
}

#endif
