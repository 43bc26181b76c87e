/* vb: guest benchmark program. Shared declarations. */
#ifndef VB_H
#define VB_H
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

/* Called by a benchmark around the part that is timed.
 * begin() prints "START name", end() prints
 * "BENCH name seconds s ops=N sum=HEX".  ops is the amount of work done, so
 * that runs at different scale factors can be compared per operation. */
void vb_begin(void);
void vb_end(u64 ops, u64 sum);
void vb_skip(const char *why);
void vb_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/* n scaled, at least min */
u64 vb_n(double n, u64 min);
extern const char *vb_tmp, *vb_busybox, *vb_disk;

static inline u64 vb_rnd(u64 *s)
{
    u64 x = *s;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *s = x;
}
static inline u64 vb_mix(u64 h, u64 v)
{
    h ^= v;
    h *= 0x9E3779B97F4A7C15ull;
    return h ^ (h >> 29);
}
void *vb_alloc(size_t n);                /* page aligned, touched, no huge pages */
void vb_text(u8 *p, size_t n, u64 seed); /* compressible pseudo text */

typedef void vb_fn(void);
struct vb_bench {
    const char *name;
    vb_fn *fn;
};
extern const struct vb_bench vb_cpu[], vb_fp[], vb_os[];
#endif
