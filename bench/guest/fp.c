/* Floating point, SIMD and bandwidth loops. Built with -O3 (baseline SSE2). */
#include "vb.h"
#include <emmintrin.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static u64 dbits(double d)
{
    u64 u;
    memcpy(&u, &d, 8);
    return u;
}

struct body {
    double x, y, z, vx, vy, vz, m;
};

static void nbody(void)
{
    const double pi = 3.141592653589793, sm = 4 * pi * pi, dy = 365.24;
    struct body b[5] = {
        {0, 0, 0, 0, 0, 0, sm},
        {4.84143144246472090, -1.16032004402742839, -0.103622044471123109,
         0.00166007664274403694 * dy, 0.00769901118419740425 * dy, -0.0000690460016972063023 * dy,
         0.000954791938424326609 * sm},
        {8.34336671824457987, 4.12479856412430479, -0.403523417114321381,
         -0.00276742510726411822 * dy, 0.00499852801234917238 * dy, 0.0000230417297573763929 * dy,
         0.000285885980666130812 * sm},
        {12.8943695621391310, -15.1111514016986312, -0.223307578892655734,
         0.00296460137564761618 * dy, 0.00237847173959480950 * dy, -0.0000296589568540237556 * dy,
         0.0000436624404335156298 * sm},
        {15.3796971148509165, -25.9193146099879641, 0.179258772950371181,
         0.00268067772490389322 * dy, 0.00162824170038242295 * dy, -0.0000951592254519715870 * dy,
         0.0000515138902046611451 * sm},
    };
    u64 n = vb_n(6e6, 100);

    vb_begin();
    for (u64 s = 0; s < n; s++) {
        for (int i = 0; i < 5; i++)
            for (int j = i + 1; j < 5; j++) {
                double dx = b[i].x - b[j].x, dyy = b[i].y - b[j].y, dz = b[i].z - b[j].z;
                double d2 = dx * dx + dyy * dyy + dz * dz;
                double mag = 0.001 / (d2 * sqrt(d2));
                b[i].vx -= dx * b[j].m * mag;
                b[i].vy -= dyy * b[j].m * mag;
                b[i].vz -= dz * b[j].m * mag;
                b[j].vx += dx * b[i].m * mag;
                b[j].vy += dyy * b[i].m * mag;
                b[j].vz += dz * b[i].m * mag;
            }
        for (int i = 0; i < 5; i++) {
            b[i].x += 0.001 * b[i].vx;
            b[i].y += 0.001 * b[i].vy;
            b[i].z += 0.001 * b[i].vz;
        }
    }
    u64 h = 0;
    for (int i = 0; i < 5; i++)
        h = vb_mix(vb_mix(h, dbits(b[i].x)), dbits(b[i].vz));
    vb_end(n, h);
}

#define MM 192
static double ma[MM][MM], mb[MM][MM], mc[MM][MM];
static void matmul(void)
{
    u64 n = vb_n(440, 1), s = 7, h = 0;
    for (int i = 0; i < MM; i++)
        for (int j = 0; j < MM; j++) {
            ma[i][j] = (double)(vb_rnd(&s) & 1023) / 1024;
            mb[i][j] = (double)(vb_rnd(&s) & 1023) / 1024;
        }
    vb_begin();
    for (u64 r = 0; r < n; r++) {
        for (int i = 0; i < MM; i++) {
            for (int j = 0; j < MM; j++)
                mc[i][j] = 0;
            for (int k = 0; k < MM; k++) {
                double x = ma[i][k];
                for (int j = 0; j < MM; j++)
                    mc[i][j] += x * mb[k][j];
            }
        }
        ma[r % MM][(r * 7) % MM] += 1.0 / 64;
        h = vb_mix(h, dbits(mc[r % MM][(r * 5) % MM]));
    }
    vb_end(n, h);
}

static void mandel(void)
{
    u64 rows = vb_n(8000, 1), h = 0;
    const int W = 256, IT = 200;
    vb_begin();
    for (u64 y = 0; y < rows; y++)
        for (int x = 0; x < W; x++) {
            double cx = -2.0 + 3.0 * x / W, cy = -1.2 + 2.4 * (double)(y * 37 % 256) / 256;
            double zx = 0, zy = 0;
            int i;
            for (i = 0; i < IT; i++) {
                double a = zx * zx, b = zy * zy;
                if (a + b > 4)
                    break;
                zy = 2 * zx * zy + cy;
                zx = a - b + cx;
            }
            h = vb_mix(h, (u64)i);
        }
    vb_end(rows, h);
}

static void x87(void)
{
    u64 n = vb_n(2.5e7, 1000);
    volatile long double seed = 1.25L;
    long double a = seed, b = 0.5L, c = 3.0L;
    vb_begin();
    for (u64 i = 0; i < n; i++) {
        a = a * b + c;
        c = c / 1.0000001L + 0.0000001L;
        b = b + (a - c) * 1e-9L;
    }
    vb_end(n, vb_mix(dbits((double)a), dbits((double)b)));
}

static void memcpy_sse2(void)
{
    enum { N = 64 << 10 };
    u64 n = vb_n(260000, 2), h = 0;
    u8 *a = vb_alloc(N), *b = vb_alloc(N);
    vb_text(a, N, 3);
    vb_begin();
    for (u64 r = 0; r < n; r++) {
        __m128i *d = (__m128i *)(r & 1 ? a : b), *s = (__m128i *)(r & 1 ? b : a);
        for (int i = 0; i < N / 16; i += 4) {
            __m128i x0 = _mm_load_si128(s + i), x1 = _mm_load_si128(s + i + 1);
            __m128i x2 = _mm_load_si128(s + i + 2), x3 = _mm_load_si128(s + i + 3);
            _mm_store_si128(d + i, x0);
            _mm_store_si128(d + i + 1, x1);
            _mm_store_si128(d + i + 2, x2);
            _mm_store_si128(d + i + 3, x3);
        }
        ((u8 *)d)[r & (N - 1)]++;
        __asm__ volatile("" ::: "memory");
    }
    for (int i = 0; i < N; i++)
        h = vb_mix(h, a[i] + 256u * b[i]);
    vb_end(n * N, h);
}

/* byte-wise integer SIMD: add, compare, movemask, shuffle, multiply */
static void simd_int(void)
{
    enum { N = 16 << 10 };
    u64 n = vb_n(300000, 2), h = 0;
    u8 *a = vb_alloc(N);
    vb_text(a, N, 9);
    __m128i acc = _mm_setzero_si128(), k = _mm_set1_epi8('e'), z = _mm_setzero_si128();
    vb_begin();
    for (u64 r = 0; r < n; r++) {
        __m128i *p = (__m128i *)a;
        for (int i = 0; i < N / 16; i++) {
            __m128i v = _mm_load_si128(p + i);
            __m128i m = _mm_cmpeq_epi8(v, k);
            h += (u64)_mm_movemask_epi8(m);
            __m128i lo = _mm_unpacklo_epi8(v, z), hi = _mm_unpackhi_epi8(v, z);
            acc = _mm_add_epi32(acc, _mm_madd_epi16(lo, hi));
            acc = _mm_xor_si128(acc, _mm_shuffle_epi32(acc, 0x39));
        }
    }
    u64 o[2];
    _mm_storeu_si128((__m128i *)o, acc);
    vb_end(n * N, vb_mix(vb_mix(h, o[0]), o[1]));
}

static void triad(void)
{
    enum { N = 3 << 20 };
    u64 n = vb_n(60, 1), h = 0;
    double *a = vb_alloc(N * 8), *b = vb_alloc(N * 8), *c = vb_alloc(N * 8);
    for (int i = 0; i < N; i++) {
        b[i] = i * 0.5;
        c[i] = i * 0.25;
    }
    vb_begin();
    for (u64 r = 0; r < n; r++) {
        for (int i = 0; i < N; i++)
            a[i] = b[i] + 3.0 * c[i];
        b[r] += 1;
        __asm__ volatile("" ::: "memory");
    }
    for (int i = 0; i < N; i += 4096)
        h = vb_mix(h, dbits(a[i]));
    vb_end(n * N, h);
}

const struct vb_bench vb_fp[] = {{"fp.nbody", nbody},
                                 {"fp.matmul", matmul},
                                 {"fp.mandel", mandel},
                                 {"fp.x87", x87},
                                 {"simd.copy_sse2", memcpy_sse2},
                                 {"simd.int_sse2", simd_int},
                                 {"mem.triad", triad},
                                 {0, 0}};
