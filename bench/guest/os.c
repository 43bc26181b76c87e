/* Benchmarks that exercise the guest kernel: system calls, faults, processes,
 * disk, network loopback, busybox work, several processors. */
#define _GNU_SOURCE
#include "vb.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void pin(int cpu)
{
    cpu_set_t s;
    CPU_ZERO(&s);
    CPU_SET(cpu, &s);
    sched_setaffinity(0, sizeof s, &s);
}
static int cpus(int *list, int max)
{
    cpu_set_t s;
    int n = 0;
    CPU_ZERO(&s);
    if (sched_getaffinity(0, sizeof s, &s)) {
        list[0] = 0;
        return 1;
    }
    for (int i = 0; i < CPU_SETSIZE && n < max; i++)
        if (CPU_ISSET(i, &s))
            list[n++] = i;
    return n;
}

/* ---- system calls ---- */
static inline long raw0(long nr)
{
    long r;
#ifdef __x86_64__
    __asm__ volatile("syscall" : "=a"(r) : "0"(nr) : "rcx", "r11", "memory");
#else
    __asm__ volatile("int $0x80" : "=a"(r) : "0"(nr) : "memory");
#endif
    return r;
}
static void b_getpid(void)
{
    u64 n = vb_n(5e6, 10), h = 0;
    long me = getppid();
    vb_begin();
    for (u64 i = 0; i < n; i++)
        h += (u64)(raw0(SYS_getppid) == me);
    vb_end(n, h);
}
static void b_rw1(void)
{
    u64 n = vb_n(1.8e6, 10), h = 0;
    int z = open("/dev/zero", O_RDONLY), o = open("/dev/null", O_WRONLY);
    char c = 1;
    vb_begin();
    for (u64 i = 0; i < n; i++)
        h += (u64)read(z, &c, 1) + (u64)write(o, &c, 1);
    vb_end(n, h);
}
static void b_clock(void)
{
    u64 n = vb_n(1.5e7, 10);
    struct timespec t;
    vb_begin();
    for (u64 i = 0; i < n; i++)
        clock_gettime(CLOCK_MONOTONIC, &t);
    vb_end(n, 0);
}
static void pingpong(u64 n, int c0, int c1)
{
    int a[2], b[2];
    char c = 0;
    if (pipe(a) || pipe(b))
        vb_fail("pipe");
    pin(c0);
    pid_t pid = fork();
    if (!pid) {
        pin(c1);
        for (u64 i = 0; i <= n; i++)
            if (read(a[0], &c, 1) != 1 || write(b[1], &c, 1) != 1)
                _exit(1);
        _exit(0);
    }
    if (write(a[1], &c, 1) != 1 || read(b[0], &c, 1) != 1)
        vb_fail("pingpong");
    vb_begin();
    for (u64 i = 0; i < n; i++)
        if (write(a[1], &c, 1) != 1 || read(b[0], &c, 1) != 1)
            vb_fail("pingpong");
    vb_end(n, 0);
    waitpid(pid, 0, 0);
}
static void b_pipe(void)
{
    int l[64];
    cpus(l, 64);
    pingpong(vb_n(160000, 10), l[0], l[0]);
}
static volatile sig_atomic_t sigs;
static void on_sig(int s)
{
    (void)s;
    sigs++;
}
static void b_signal(void)
{
    u64 n = vb_n(450000, 10);
    struct sigaction sa = {.sa_handler = on_sig};
    sigaction(SIGUSR1, &sa, 0);
    pid_t me = getpid();
    vb_begin();
    for (u64 i = 0; i < n; i++)
        kill(me, SIGUSR1);
    vb_end(n, (u64)sigs);
}
static void b_open(void)
{
    u64 n = vb_n(280000, 10), h = 0;
    char path[256], buf[256];
    snprintf(path, sizeof path, "%s/openfile", vb_tmp);
    int f = open(path, O_CREAT | O_RDWR | O_TRUNC, 0600);
    memset(buf, 7, sizeof buf);
    if (f < 0 || write(f, buf, sizeof buf) != sizeof buf)
        vb_fail("open %s", path);
    close(f);
    vb_begin();
    for (u64 i = 0; i < n; i++) {
        struct stat st;
        f = open(path, O_RDONLY);
        fstat(f, &st);
        h += (u64)st.st_size + (u64)read(f, buf, 128);
        close(f);
    }
    vb_end(n, h);
    unlink(path);
}
static void b_sleep(void)
{
    u64 n = vb_n(4000, 5);
    struct timespec t = {0, 100000};
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    vb_begin();
    for (u64 i = 0; i < n; i++)
        clock_nanosleep(CLOCK_MONOTONIC, 0, &t, 0);
    vb_end(n, 0);
}
static void b_tcp(void)
{
    u64 n = vb_n(26000, 4), h = 0;
    enum { B = 64 << 10 };
    static char buf[B];
    int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), l[64];
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t al = sizeof a;
    if (s < 0 || bind(s, (void *)&a, sizeof a) || listen(s, 1) || getsockname(s, (void *)&a, &al)) {
        vb_skip("no tcp");
        return;
    }
    cpus(l, 64);
    pin(l[0]);
    pid_t pid = fork();
    if (!pid) {
        int c = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(c, (void *)&a, sizeof a))
            _exit(1);
        for (u64 i = 0; i < n; i++)
            for (size_t o = 0; o < B;) {
                ssize_t k = write(c, buf + o, B - o);
                if (k <= 0)
                    _exit(1);
                o += (size_t)k;
            }
        _exit(0);
    }
    int c = accept(s, 0, 0);
    vb_begin();
    for (;;) {
        ssize_t k = read(c, buf, B);
        if (k <= 0)
            break;
        h += (u64)k;
    }
    vb_end(n * B, h);
    waitpid(pid, 0, 0);
    if (h != n * B)
        vb_fail("tcp short");
}

/* ---- page faults and processes ---- */
static void b_touch(void)
{
    enum { SZ = 32 << 20 };
    u64 n = vb_n(55, 1), h = 0;
    vb_begin();
    for (u64 r = 0; r < n; r++) {
        u8 *p = mmap(0, SZ, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            vb_fail("mmap");
        madvise(p, SZ, MADV_NOHUGEPAGE);
        for (size_t i = 0; i < SZ; i += 4096)
            p[i] = (u8)i + 1;
        h += p[4096 * (r & 1023)];
        munmap(p, SZ);
    }
    vb_end(n * (SZ / 4096), h);
}
static void b_mprotect(void)
{
    u64 n = vb_n(350000, 10), h = 0;
    u8 *p = vb_alloc(16 * 4096);
    vb_begin();
    for (u64 i = 0; i < n; i++) {
        u8 *q = p + (i & 15) * 4096;
        mprotect(q, 4096, PROT_READ);
        h += *q;
        mprotect(q, 4096, PROT_READ | PROT_WRITE);
        *q = (u8)(*q + 1);
    }
    vb_end(n, h);
}
static void b_fork(void)
{
    u64 n = vb_n(4500, 3), h = 0;
    vb_begin();
    for (u64 i = 0; i < n; i++) {
        int st;
        pid_t p = fork();
        if (!p)
            _exit((int)(i & 7));
        waitpid(p, &st, 0);
        h += (u64)WEXITSTATUS(st);
    }
    vb_end(n, h);
}
static void b_exec(void)
{
    u64 n = vb_n(1400, 3), h = 0;
    vb_begin();
    for (u64 i = 0; i < n; i++) {
        int st;
        pid_t p = fork();
        if (!p) {
            execl(vb_busybox, "busybox", "true", (char *)0);
            _exit(9);
        }
        waitpid(p, &st, 0);
        h += (u64)WEXITSTATUS(st);
    }
    if (h)
        vb_fail("exec %s", vb_busybox);
    vb_end(n, h);
}

/* ---- disk ---- */
static int disk_open(int flags)
{
    if (!vb_disk) {
        vb_skip("no disk");
        return -1;
    }
    int f = open(vb_disk, flags | O_DIRECT);
    if (f < 0)
        f = open(vb_disk, flags);
    if (f < 0)
        vb_skip("open disk");
    return f;
}
static void disk_seq(int wr)
{
    enum { B = 1 << 20 };
    u64 n = vb_n(wr ? 700 : 900, 2), h = 0;
    int f = disk_open(wr ? O_RDWR : O_RDONLY);
    if (f < 0)
        return;
    off_t mb = lseek(f, 0, SEEK_END) >> 20;
    if (mb < 8)
        vb_fail("disk too small");
    if (mb > 256)
        mb = 256;
    u8 *p = vb_alloc(B);
    vb_text(p, B, 3);
    vb_begin();
    for (u64 i = 0; i < n; i++) {
        off_t o = (off_t)(i % (u64)mb) << 20;
        ssize_t k = wr ? pwrite(f, p, B, o) : pread(f, p, B, o);
        if (k != B)
            vb_fail("disk io %d", errno);
        h += p[i & 1023];
    }
    if (wr)
        fsync(f);
    vb_end(n * B, 0);
    (void)h;
}
static void disk_rand(int wr)
{
    u64 n = vb_n(wr ? 25000 : 40000, 4), s = 31;
    int f = disk_open(wr ? O_RDWR : O_RDONLY);
    if (f < 0)
        return;
    u64 blk = (u64)lseek(f, 0, SEEK_END) >> 12;
    if (blk > 65536)
        blk = 65536;
    u8 *p = vb_alloc(4096);
    vb_begin();
    for (u64 i = 0; i < n; i++) {
        off_t o = (off_t)(vb_rnd(&s) % blk) << 12;
        ssize_t k = wr ? pwrite(f, p, 4096, o) : pread(f, p, 4096, o);
        if (k != 4096)
            vb_fail("disk io %d", errno);
    }
    if (wr)
        fsync(f);
    vb_end(n, 0);
}
static void b_dsw(void)
{
    disk_seq(1);
}
static void b_dsr(void)
{
    disk_seq(0);
}
static void b_drr(void)
{
    disk_rand(0);
}
static void b_drw(void)
{
    disk_rand(1);
}

/* ---- busybox ---- */
static void mkfile(const char *name, size_t n, u64 seed)
{
    char path[256];
    u8 *b = malloc(1 << 20);
    snprintf(path, sizeof path, "%s/%s", vb_tmp, name);
    int f = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    if (f < 0)
        vb_fail("create %s", path);
    while (n) {
        size_t k = n < (1 << 20) ? n : 1 << 20;
        vb_text(b, k, seed++);
        if (write(f, b, k) != (ssize_t)k)
            vb_fail("write %s", path);
        n -= k;
    }
    close(f);
    free(b);
}
static void mktree(int dirs, int files)
{
    char p[256];
    snprintf(p, sizeof p, "%s/tree", vb_tmp);
    mkdir(p, 0700);
    for (int d = 0; d < dirs; d++) {
        snprintf(p, sizeof p, "%s/tree/d%d", vb_tmp, d);
        mkdir(p, 0700);
        for (int i = 0; i < files; i++) {
            snprintf(p, sizeof p, "tree/d%d/f%d", d, i);
            mkfile(p, (size_t)(200 + (d * 31 + i * 977) % 8000), (u64)(d * 1000 + i));
        }
    }
}
/* Runs a shell script; $BB is busybox. The checksum is over its output. */
static void sh(const char *script, u64 ops)
{
    int fd[2];
    u8 buf[4096];
    u64 h = 0;
    if (pipe(fd))
        vb_fail("pipe");
    setenv("BB", vb_busybox, 1);
    setenv("T", vb_tmp, 1);
    setenv("LC_ALL", "C", 1);
    vb_begin();
    pid_t p = fork();
    if (!p) {
        dup2(fd[1], 1);
        close(fd[0]);
        close(fd[1]);
        if (chdir(vb_tmp))
            _exit(8);
        execl(vb_busybox, "busybox", "sh", "-c", script, (char *)0);
        _exit(9);
    }
    close(fd[1]);
    ssize_t k;
    int st;
    size_t tot = 0;
    while ((k = read(fd[0], buf, sizeof buf)) > 0)
        for (ssize_t i = 0; i < k; i++, tot++)
            h = vb_mix(h, buf[i]);
    waitpid(p, &st, 0);
    if (!WIFEXITED(st) || WEXITSTATUS(st) || !tot)
        vb_fail("script status %x", (unsigned)st);
    vb_end(ops, h);
}
static void b_bbsha(void)
{
    u64 n = vb_n(100u << 20, 4096);
    mkfile("big", n, 5);
    sh("$BB sha256sum big", n);
}
static void b_bbgzip(void)
{
    u64 n = vb_n(14u << 20, 4096);
    mkfile("txt", n, 6);
    sh("$BB gzip -c txt | $BB md5sum", n);
}
static void b_bbgunzip(void)
{
    char c[512];
    u64 n = vb_n(60u << 20, 4096);
    mkfile("txt", n, 6);
    snprintf(c, sizeof c, "cd %s && %s gzip -1 -c txt > txt.gz && rm -f txt", vb_tmp, vb_busybox);
    pid_t p = fork();
    if (!p) {
        execl(vb_busybox, "busybox", "sh", "-c", c, (char *)0);
        _exit(9);
    }
    waitpid(p, 0, 0);
    sh("$BB gunzip -c txt.gz | $BB wc -c", n);
}
static void b_bbtar(void)
{
    u64 reps = vb_n(14, 1);
    char c[512];
    mktree(20, 40);
    snprintf(
        c, sizeof c,
        "i=0; while [ $i -lt %llu ]; do $BB tar cf t.tar tree && $BB rm -rf x && $BB mkdir x && "
        "$BB tar xf t.tar -C x; i=$((i+1)); done; cd x && $BB find . -type f | $BB sort | $BB "
        "md5sum",
        (unsigned long long)reps);
    sh(c, reps);
}
static void b_bbawk(void)
{
    u64 n = vb_n(2.4e6, 100);
    char c[512];
    snprintf(c, sizeof c,
             "$BB awk 'BEGIN{for(i=0;i<%llu;i++){x=(x*31+i)%%65521;a[x%%500]+=i} "
             "for(k=0;k<500;k++)s+=a[k]*k; printf \"%%d %%.0f\\n\",x,s}'",
             (unsigned long long)n);
    sh(c, n);
}
static void b_bbawktext(void)
{
    u64 n = vb_n(6u << 20, 4096);
    mkfile("txt", n, 8);
    sh("$BB awk '{n+=NF; for(i=1;i<=NF;i++)c[length($i)]++} END{print NR,n; for(i=0;i<64;i++)print "
       "i,c[i]+0}' txt",
       n);
}
static void b_bbsort(void)
{
    u64 n = vb_n(20u << 20, 4096);
    mkfile("txt", n, 9);
    sh("$BB sort txt | $BB uniq -c | $BB md5sum; $BB grep -c 'ab.*e' txt; $BB sed 's/the/THE/g' "
       "txt | $BB md5sum",
       n);
}
static void b_bbsh(void)
{
    u64 n = vb_n(500, 3);
    char c[512];
    snprintf(c, sizeof c,
             "i=0; while [ $i -lt %llu ]; do x=$(echo $i | $BB sed 's/1/2/'); [ \"$x\" = z ] || "
             "echo $x | $BB cat >/dev/null; i=$((i+1)); done; echo $x",
             (unsigned long long)n);
    sh(c, n);
}
static void b_bbfind(void)
{
    u64 n = vb_n(45, 1);
    char c[512];
    mktree(20, 40);
    snprintf(c, sizeof c,
             "i=0; while [ $i -lt %llu ]; do $BB find tree -type f -size +3 | $BB wc -l; $BB ls "
             "-lR tree | $BB wc -l; i=$((i+1)); done",
             (unsigned long long)n);
    sh(c, n);
}

/* ---- several processors ---- */
u64 vb_sha_work(u64 blocks);
static void b_smpcompute(void)
{
    int l[64], n = cpus(l, 64);
    u64 blocks = vb_n(1.3e6, 64);
    vb_sha_work(1);
    vb_begin();
    for (int i = 0; i < n; i++)
        if (!fork()) {
            pin(l[i]);
            vb_sha_work(blocks);
            _exit(0);
        }
    for (int i = 0; i < n; i++)
        wait(0);
    vb_end(blocks * (u64)n, (u64)n);
}
static void b_smpatomic(void)
{
    int l[64], n = cpus(l, 64);
    u64 ops = vb_n(1e7, 100);
    volatile u64 *c = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    c[0] = 0;
    vb_begin();
    for (int i = 0; i < n; i++)
        if (!fork()) {
            pin(l[i]);
            for (u64 k = 0; k < ops; k++)
                __atomic_fetch_add(c, 1, __ATOMIC_SEQ_CST);
            _exit(0);
        }
    for (int i = 0; i < n; i++)
        wait(0);
    vb_end(ops * (u64)n, c[0] == ops * (u64)n);
}
static void b_smppipe(void)
{
    int l[64], n = cpus(l, 64);
    if (n < 2) {
        vb_skip("one cpu");
        return;
    }
    pingpong(vb_n(60000, 10), l[0], l[1]);
}
static void b_smpshoot(void)
{
    /* TLB shootdown: another processor runs in the address space being changed */
    int l[64], n = cpus(l, 64);
    if (n < 2) {
        vb_skip("one cpu");
        return;
    }
    u8 *p = vb_alloc(16 * 4096);
    volatile u64 *stop = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    u64 ops = vb_n(60000, 10), h = 0;
    u8 *stk = vb_alloc(65536);
    *stop = 0;
    pin(l[0]);
    extern int vb_spin(void *);
    int tid = clone(vb_spin, stk + 65536, CLONE_VM | SIGCHLD, (void *)stop);
    if (tid < 0)
        vb_fail("clone");
    cpu_set_t s;
    CPU_ZERO(&s);
    CPU_SET(l[1], &s);
    sched_setaffinity(tid, sizeof s, &s);
    while (stop[1] < 1000)
        ;
    vb_begin();
    for (u64 i = 0; i < ops; i++) {
        u8 *q = p + (i & 15) * 4096;
        mprotect(q, 4096, PROT_READ);
        h += *q;
        mprotect(q, 4096, PROT_READ | PROT_WRITE);
        *q = (u8)(*q + 1);
    }
    *stop = 1;
    vb_end(ops, h);
    waitpid(tid, 0, 0);
}
int vb_spin(void *a)
{
    volatile u64 *s = a;
    while (!s[0])
        s[1]++;
    return 0;
}

/* Leaves time to look at the VMM from outside */
static void b_hold(void)
{
    u64 n = 64u << 20;
    mkfile("big", n, 5);
    u8 *p = vb_alloc(64u << 20);
    vb_begin();
    struct timespec t = {2, 0};
    nanosleep(&t, 0);
    vb_end(1, p[4096]);
}

const struct vb_bench vb_os[] = {{"sys.getppid", b_getpid},
                                 {"sys.rw1", b_rw1},
                                 {"sys.open", b_open},
                                 {"sys.clock", b_clock},
                                 {"sys.signal", b_signal},
                                 {"sys.pipe_switch", b_pipe},
                                 {"sys.nanosleep", b_sleep},
                                 {"sys.tcp_loopback", b_tcp},
                                 {"pf.touch", b_touch},
                                 {"pf.mprotect", b_mprotect},
                                 {"pf.fork_exit", b_fork},
                                 {"pf.fork_exec", b_exec},
                                 {"disk.seq_write", b_dsw},
                                 {"disk.seq_read", b_dsr},
                                 {"disk.rand4k_read", b_drr},
                                 {"disk.rand4k_write", b_drw},
                                 {"bb.sha256sum", b_bbsha},
                                 {"bb.gzip", b_bbgzip},
                                 {"bb.gunzip", b_bbgunzip},
                                 {"bb.tar", b_bbtar},
                                 {"bb.awk", b_bbawk},
                                 {"bb.awk_text", b_bbawktext},
                                 {"bb.sort_grep_sed", b_bbsort},
                                 {"bb.sh_pipes", b_bbsh},
                                 {"bb.find_ls", b_bbfind},
                                 {"smp.compute", b_smpcompute},
                                 {"smp.atomic", b_smpatomic},
                                 {"smp.pipe", b_smppipe},
                                 {"smp.shootdown", b_smpshoot},
                                 {"hold", b_hold},
                                 {0, 0}};
