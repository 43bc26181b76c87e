/* Integer, memory, call and run-time code generation loops. */
#include "vb.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- sha256 ---- */
static const u32 K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
#define ROR(x, n) (((x) >> (n)) | ((x) << (32 - (n))))
static void sha_block(u32 *s, const u8 *p)
{
    u32 w[64], a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7];
    for (int i = 0; i < 16; i++)
        w[i] =
            (u32)p[4 * i] << 24 | (u32)p[4 * i + 1] << 16 | (u32)p[4 * i + 2] << 8 | p[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        u32 x = w[i - 15], y = w[i - 2];
        w[i] = w[i - 16] + w[i - 7] + (ROR(x, 7) ^ ROR(x, 18) ^ (x >> 3)) +
               (ROR(y, 17) ^ ROR(y, 19) ^ (y >> 10));
    }
    for (int i = 0; i < 64; i++) {
        u32 t1 = h + (ROR(e, 6) ^ ROR(e, 11) ^ ROR(e, 25)) + ((e & f) ^ (~e & g)) + K[i] + w[i];
        u32 t2 = (ROR(a, 2) ^ ROR(a, 13) ^ ROR(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g;
        g = f;
        f = e;
        e = d + t1;
        d = c;
        c = b;
        b = a;
        a = t1 + t2;
    }
    s[0] += a;
    s[1] += b;
    s[2] += c;
    s[3] += d;
    s[4] += e;
    s[5] += f;
    s[6] += g;
    s[7] += h;
}
static void sha_init(u32 *s)
{
    static const u32 iv[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                              0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(s, iv, 32);
}
u64 vb_sha_work(u64 blocks)
{
    static u8 buf[64 << 10];
    u32 s[8];
    if (!buf[1])
        vb_text(buf, sizeof buf, 1);
    sha_init(s);
    for (u64 i = 0; i < blocks; i++)
        sha_block(s, buf + (i & 1023) * 64);
    return (u64)s[0] << 32 | s[7];
}
static void b_sha256(void)
{
    u64 n = vb_n(2.6e6, 64);
    vb_sha_work(1);
    vb_begin();
    u64 h = vb_sha_work(n);
    vb_end(n, h);
}

/* ---- LZ ---- */
static size_t lz_pack(const u8 *in, size_t n, u8 *out)
{
    static u32 tab[1 << 14];
    size_t i = 0, o = 0, lit = 0;
    memset(tab, 0, sizeof tab);
#define FLUSH(end)                                                                                 \
    do {                                                                                           \
        size_t l_ = (end)-lit;                                                                     \
        while (l_) {                                                                               \
            size_t k_ = l_ > 127 ? 127 : l_;                                                       \
            out[o++] = (u8)k_;                                                                     \
            memcpy(out + o, in + lit, k_);                                                         \
            o += k_;                                                                               \
            lit += k_;                                                                             \
            l_ -= k_;                                                                              \
        }                                                                                          \
    } while (0)
    while (i + 8 < n) {
        u32 v;
        memcpy(&v, in + i, 4);
        u32 h = (v * 2654435761u) >> 18;
        size_t m = tab[h];
        tab[h] = (u32)i;
        u32 w;
        memcpy(&w, in + m, 4);
        if (m < i && i - m < 65535 && v == w) {
            size_t l = 4;
            while (i + l < n && l < 127 && in[m + l] == in[i + l])
                l++;
            FLUSH(i);
            out[o++] = (u8)(128 | l);
            out[o++] = (u8)(i - m);
            out[o++] = (u8)((i - m) >> 8);
            i += l;
            lit = i;
        } else
            i++;
    }
    FLUSH(n);
    return o;
}
static size_t lz_unpack(const u8 *in, size_t n, u8 *out)
{
    size_t i = 0, o = 0;
    while (i < n) {
        u8 c = in[i++];
        if (c & 128) {
            size_t l = c & 127, d = in[i] | (size_t)in[i + 1] << 8;
            i += 2;
            for (size_t k = 0; k < l; k++, o++)
                out[o] = out[o - d];
        } else {
            memcpy(out + o, in + i, c);
            o += c;
            i += c;
        }
    }
    return o;
}
static void b_lz(void)
{
    enum { N = 256 << 10 };
    u64 n = vb_n(420, 1), h = 0;
    u8 *a = vb_alloc(N), *b = vb_alloc(2 * N), *c = vb_alloc(N + 256);
    vb_text(a, N, 5);
    vb_begin();
    for (u64 r = 0; r < n; r++) {
        size_t p = lz_pack(a, N, b), q = lz_unpack(b, p, c);
        if (q != N || memcmp(a, c, N))
            vb_fail("lz mismatch");
        h = vb_mix(h, p);
        a[(r * 7919) % N] ^= 1;
    }
    vb_end(n, h);
}

/* ---- sort ---- */
static void qs(u32 *a, long l, long r)
{
    while (r - l > 12) {
        u32 p = a[l + (r - l) / 2];
        long i = l, j = r;
        while (i <= j) {
            while (a[i] < p)
                i++;
            while (a[j] > p)
                j--;
            if (i <= j) {
                u32 t = a[i];
                a[i++] = a[j];
                a[j--] = t;
            }
        }
        if (j - l < r - i) {
            qs(a, l, j);
            l = i;
        } else {
            qs(a, i, r);
            r = j;
        }
    }
    for (long i = l + 1; i <= r; i++) {
        u32 v = a[i];
        long j = i;
        while (j > l && a[j - 1] > v) {
            a[j] = a[j - 1];
            j--;
        }
        a[j] = v;
    }
}
static void b_sort(void)
{
    enum { N = 100000 };
    u64 n = vb_n(100, 1), h = 0, s = 11;
    u32 *a = vb_alloc(N * 4);
    vb_begin();
    for (u64 r = 0; r < n; r++) {
        for (int i = 0; i < N; i++)
            a[i] = (u32)vb_rnd(&s);
        qs(a, 0, N - 1);
        h = vb_mix(h, a[r * 97 % N] + a[N / 2]);
    }
    vb_end(n, h);
}

/* ---- hash table ---- */
static void b_hash(void)
{
    enum { SZ = 1 << 16 };
    struct e {
        u64 k, v;
    } *t = vb_alloc(SZ * sizeof *t);
    u64 n = vb_n(4e7, 1000), s = 99, h = 0;
    memset(t, 0, SZ * sizeof *t);
    vb_begin();
    for (u64 i = 0; i < n; i++) {
        u64 k = (vb_rnd(&s) % 40000) + 1, p = (k * 0x9E3779B97F4A7C15ull) >> 48;
        while (t[p].k && t[p].k != k)
            p = (p + 1) & (SZ - 1);
        if (t[p].k)
            h += t[p].v++;
        else {
            t[p].k = k;
            t[p].v = i;
        }
    }
    vb_end(n, h);
}

/* ---- bytecode interpreter ---- */
enum {
    O_LI,
    O_ADD,
    O_SUB,
    O_MUL,
    O_XOR,
    O_SHR,
    O_AND,
    O_LD,
    O_ST,
    O_JNZ,
    O_JLT,
    O_DEC,
    O_MOV,
    O_HALT
};
struct ins {
    u8 op, a, b, c;
    int imm;
};
static __attribute__((noinline)) u64 interp(const struct ins *pc0, u64 *mem, u64 *count, u64 loops)
{
    u64 r[16] = {0}, n = 0;
    const struct ins *pc = pc0;
    r[15] = loops;
    for (;;) {
        const struct ins i = *pc++;
        n++;
        switch (i.op) {
        case O_LI:
            r[i.a] = (u64)(long)i.imm;
            break;
        case O_ADD:
            r[i.a] = r[i.b] + r[i.c];
            break;
        case O_SUB:
            r[i.a] = r[i.b] - r[i.c];
            break;
        case O_MUL:
            r[i.a] = r[i.b] * r[i.c];
            break;
        case O_XOR:
            r[i.a] = r[i.b] ^ r[i.c];
            break;
        case O_SHR:
            r[i.a] = r[i.b] >> (i.imm & 63);
            break;
        case O_AND:
            r[i.a] = r[i.b] & (u64)(long)i.imm;
            break;
        case O_LD:
            r[i.a] = mem[r[i.b] & 1023];
            break;
        case O_ST:
            mem[r[i.b] & 1023] = r[i.a];
            break;
        case O_JNZ:
            if (r[i.a])
                pc = pc0 + i.imm;
            break;
        case O_JLT:
            if (r[i.a] < r[i.b])
                pc = pc0 + i.imm;
            break;
        case O_DEC:
            r[i.a]--;
            break;
        case O_MOV:
            r[i.a] = r[i.b];
            break;
        case O_HALT:
            *count = n;
            return r[1] ^ r[2];
        }
    }
}
static void b_interp(void)
{
    static const struct ins prog[] = {
        {O_LI, 1, 0, 0, 1},
        {O_LI, 3, 0, 0, 6364136},
        {O_LI, 4, 0, 0, 1442695},
        /* 3: outer */
        {O_LI, 5, 0, 0, 50},
        /* 4: inner */
        {O_MUL, 1, 1, 3, 0},
        {O_ADD, 1, 1, 4, 0},
        {O_SHR, 6, 1, 0, 17},
        {O_AND, 7, 6, 0, 1023},
        {O_LD, 8, 7, 0, 0},
        {O_XOR, 8, 8, 1, 0},
        {O_ST, 8, 7, 0, 0},
        {O_AND, 9, 8, 0, 1},
        {O_JNZ, 9, 0, 0, 15},
        {O_SUB, 2, 2, 8, 0},
        {O_MOV, 10, 2, 0, 0},
        /* 15 */
        {O_ADD, 2, 2, 6, 0},
        {O_DEC, 5, 0, 0, 0},
        {O_JNZ, 5, 0, 0, 4},
        {O_DEC, 15, 0, 0, 0},
        {O_JNZ, 15, 0, 0, 3},
        {O_HALT, 0, 0, 0, 0},
    };
    static u64 mem[1024];
    u64 loops = vb_n(700000, 10), c = 0;
    vb_begin();
    u64 h = interp(prog, mem, &c, loops);
    vb_end(c, h);
}

#ifdef __x86_64__
static void b_muldiv(void)
{
    u64 n = vb_n(6e7, 1000), x = 0x123456789abcdefull, h = 0;
    vb_begin();
    for (u64 i = 0; i < n; i++) {
        unsigned __int128 p = (unsigned __int128)x * 0xd1342543de82ef95ull;
        x = (u64)p + (u64)(p >> 64) + i;
        u64 d = (x >> 40) | 1;
        h += x / d;
        h ^= x % (d + 2);
    }
    vb_end(n, h);
}
#endif

/* libc string functions, whichever variants the CPU identification selects */
static void b_str(void)
{
    enum { N = 16384 };
    u64 n = vb_n(1300000, 10), h = 0;
    char *a = vb_alloc(N), *b = vb_alloc(N);
    vb_text((u8 *)a, N, 21);
    for (int i = 0; i < N; i++)
        if (!a[i] || a[i] == '#')
            a[i] = 'x';
    a[N - 1] = 0;
    memcpy(b, a, N);
    vb_begin();
    for (u64 r = 0; r < n; r++) {
        size_t off = (r * 31) & 2047, len = 64 + ((r * 17) & 4095);
        char save = a[off + len];
        a[off + len] = 0;
        size_t l = strlen(a + off);
        a[off + len] = '#';
        char *q = memchr(a + off, '#', N - off - 1);
        char *p = strchr(a + off, '#');
        h = vb_mix(h, l + (size_t)(q - p) * 3);
        a[off + len] = save;
        h += (u64)(memcmp(a + off, b + off, l) == 0) +
             (u64)(strcmp(a + off + (l & ~15ul), b + off + (l & ~15ul)) == 0);
        __asm__ volatile("" ::: "memory");
    }
    vb_end(n, h);
}
static void b_memcpy(void)
{
    enum { N = 64 << 10 };
    u64 n = vb_n(300000, 2), h = 0;
    u8 *a = vb_alloc(N), *b = vb_alloc(N);
    vb_text(a, N, 3);
    vb_begin();
    for (u64 r = 0; r < n; r++) {
        u8 *d = r & 1 ? a : b, *s = r & 1 ? b : a;
        memcpy(d, s, N);
        d[r & (N - 1)]++;
        __asm__ volatile("" ::: "memory");
    }
    for (int i = 0; i < N; i++)
        h = vb_mix(h, a[i] + 256u * b[i]);
    vb_end(n * N, h);
}

/* ---- memory ---- */
struct node {
    struct node *next;
    u64 pad[7];
};
static void chase(size_t bytes, u64 n)
{
    size_t cnt = bytes / sizeof(struct node);
    struct node *v = vb_alloc(bytes);
    u32 *perm = malloc(cnt * 4);
    u64 s = 1234567;
    for (size_t i = 0; i < cnt; i++)
        perm[i] = (u32)i;
    for (size_t i = cnt - 1; i; i--) {
        size_t j = vb_rnd(&s) % i;
        u32 t = perm[i];
        perm[i] = perm[j];
        perm[j] = t;
    }
    for (size_t i = 0; i < cnt; i++)
        v[perm[i]].next = &v[perm[(i + 1) % cnt]];
    struct node *p = v;
    vb_begin();
    for (u64 i = 0; i < n; i++)
        p = p->next;
    vb_end(n, (u64)(p - v));
}
static void b_chase64m(void)
{
    chase(64u << 20, vb_n(6e6, 1000));
}
static void b_chase256k(void)
{
    chase(256u << 10, vb_n(1.5e8, 1000));
}
static void b_random(void)
{
    size_t cnt = (64u << 20) / 8;
    u64 *v = vb_alloc(cnt * 8), n = vb_n(2.5e7, 1000), s = 77, h = 0;
    vb_begin();
    for (u64 i = 0; i < n; i++) {
        u64 x = vb_rnd(&s);
        size_t k = (x >> 20) & (cnt - 1);
        h += v[k];
        v[k] = x;
    }
    vb_end(n, h);
}

/* ---- calls ---- */
struct obj {
    u64 (*const *vt)(struct obj *, u64);
    u64 v;
};
#define M(n, e)                                                                                    \
    static __attribute__((noinline)) u64 m##n(struct obj *o, u64 x)                                \
    {                                                                                              \
        return e;                                                                                  \
    }
M(0, o->v + x)
M(1, o->v ^ x)
M(2, x - o->v) M(3, (x << 1) + o->v) M(4, (x >> 1) ^ o->v) M(5, x * 3 + o->v) M(6, ~x + o->v)
    M(7, (x | 1) + o->v) static u64 (*const vts[8][2])(struct obj *, u64) = {
        {m0, m1}, {m1, m2}, {m2, m3}, {m3, m4}, {m4, m5}, {m5, m6}, {m6, m7}, {m7, m0}};
static void b_virtual(void)
{
    enum { N = 1024 };
    static struct obj o[N];
    u64 s = 5, n = vb_n(130000, 2), h = 1;
    for (int i = 0; i < N; i++) {
        o[i].vt = vts[vb_rnd(&s) & 7];
        o[i].v = vb_rnd(&s);
    }
    vb_begin();
    for (u64 r = 0; r < n; r++)
        for (int i = 0; i < N; i++)
            h = o[i].vt[r & 1](&o[i], h);
    vb_end(n * N, h);
}
static __attribute__((noinline, noclone, optimize("O1,no-optimize-sibling-calls"))) u64 fib(u64 n)
{
    if (n < 2)
        return n;
    return fib(n - 1) + fib(n - 2);
}
static void b_fib(void)
{
    u64 n = vb_n(90, 1), h = 0;
    vb_begin();
    for (u64 i = 0; i < n; i++)
        h = vb_mix(h, fib(30 - (i & 1)));
    vb_end(n, h);
}

#ifdef __x86_64__
/* ---- run-time code generation ---- */
static u8 *e4(u8 *p, u32 v)
{
    memcpy(p, &v, 4);
    return p + 4;
}
/* u64 f(u64 x): a few ALU operations with immediates */
static u8 *gen_fn(u8 *p, u64 *s, int len, int jumps)
{
    *p++ = 0x48;
    *p++ = 0x89;
    *p++ = 0xf8; /* mov rax, rdi */
    for (int i = 0; i < len; i++) {
        u64 r = vb_rnd(s);
        switch ((r >> 40) & 3) {
        case 0:
            *p++ = 0x48;
            *p++ = 0x05;
            p = e4(p, (u32)r & 0x7fffffff);
            break; /* add rax, imm */
        case 1:
            *p++ = 0x48;
            *p++ = 0x35;
            p = e4(p, (u32)r & 0x7fffffff);
            break; /* xor rax, imm */
        case 2:
            *p++ = 0x48;
            *p++ = 0xc1;
            *p++ = 0xc0;
            *p++ = 1 + (r & 31);
            break; /* rol rax, n */
        case 3:
            *p++ = 0x48;
            *p++ = 0x8d;
            *p++ = 0x44;
            *p++ = 0x38;
            *p++ = (u8)(r & 127);
            break; /* lea rax,[rax+rdi+n] */
        }
        if (jumps && i % 6 == 5) { /* test al,1; jz +2; inc rax..: small basic blocks */
            *p++ = 0xa8;
            *p++ = 0x01;
            *p++ = 0x74;
            *p++ = 0x03;
            *p++ = 0x48;
            *p++ = 0xff;
            *p++ = 0xc0;
        }
    }
    *p++ = 0xc3;
    return p;
}
typedef u64 jitfn(u64);
static void b_jit_wx(void)
{
    u64 n = vb_n(90000, 10), s = 42, h = 0;
    u8 *p = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        vb_fail("mmap");
    vb_begin();
    for (u64 i = 0; i < n; i++) {
        if (mprotect(p, 4096, PROT_READ | PROT_WRITE))
            vb_fail("mprotect %d", errno);
        gen_fn(p, &s, 24, 1);
        if (mprotect(p, 4096, PROT_READ | PROT_EXEC))
            vb_fail("mprotect %d", errno);
        for (int k = 0; k < 8; k++)
            h = ((jitfn *)(void *)p)(h + (u64)k);
    }
    vb_end(n, h);
}
static void b_jit_rwx(void)
{
    u64 n = vb_n(2e6, 10), s = 43, h = 0;
    u8 *p = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        vb_skip("no rwx");
        return;
    }
    u8 f[] = {0x48, 0x89, 0xf8, 0x48, 0x05, 1,   2,
              3,    4,    0x48, 0xd1, 0xc0, 0xc3}; /* mov;add imm;rol;ret */
    memcpy(p, f, sizeof f);
    memcpy(p + 2048, f, sizeof f);
    vb_begin();
    for (u64 i = 0; i < n; i++) {
        u8 *q = p + (i & 1) * 2048;
        e4(q + 5, (u32)vb_rnd(&s) & 0x7fffffff);
        __asm__ volatile("" ::: "memory");
        h = ((jitfn *)(void *)q)(h);
    }
    vb_end(n, h);
}
static void b_jit_cold(void)
{
    enum { FN = 256, LEN = 60, CAP = 512 };
    u64 n = vb_n(600, 1), s = 44, h = 0;
    u8 *p =
        mmap(0, FN * CAP, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        vb_skip("no rwx");
        return;
    }
    vb_begin();
    for (u64 i = 0; i < n; i++) {
        for (int k = 0; k < FN; k++)
            gen_fn(p + k * CAP, &s, LEN, 1);
        __asm__ volatile("" ::: "memory");
        for (int k = 0; k < FN; k++)
            h = ((jitfn *)(void *)(p + k * CAP))(h);
    }
    vb_end(n * FN, h);
}

#endif

const struct vb_bench vb_cpu[] = {{"int.sha256", b_sha256},
                                  {"int.lz", b_lz},
                                  {"int.sort", b_sort},
                                  {"int.hash", b_hash},
                                  {"int.interp", b_interp},
#ifdef __x86_64__
                                  {"int.muldiv", b_muldiv},
#endif
                                  {"simd.libc_str", b_str},
                                  {"simd.libc_memcpy", b_memcpy},
                                  {"mem.chase256k", b_chase256k},
                                  {"mem.chase64m", b_chase64m},
                                  {"mem.random64m", b_random},
                                  {"call.virtual", b_virtual},
                                  {"call.fib", b_fib},
#ifdef __x86_64__
                                  {"jit.wx", b_jit_wx},
                                  {"jit.rwx_patch", b_jit_rwx},
                                  {"jit.cold", b_jit_cold},
#endif
                                  {0, 0}};
