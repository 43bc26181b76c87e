/* vb: benchmark driver. As process 1 of a guest it is also /init.
 *
 *   vb [-s scale] [-l list] [-t tmpdir] [-b busybox] [-d disk]
 *
 * list: comma separated names or group prefixes ("int,fp.nbody,sys.getppid@0.1");
 * NAME@X multiplies the scale of that item by X.
 * As /init the same settings come from the kernel command line:
 *   vb.list= vb.scale= vb.off=port:PORT:VALUE:SIZE|reboot|halt
 */
#define _GNU_SOURCE
#include "vb.h"
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

const char *vb_tmp = "/tmp", *vb_busybox = "/bin/busybox", *vb_disk;
static double scale = 1;
static const char *name = "?";
static struct timespec t0;

static void out(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void out(const char *fmt, ...)
{
    char b[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(b, sizeof b, fmt, ap);
    va_end(ap);
    for (int o = 0; o < n;) {
        ssize_t k = write(1, b + o, (size_t)(n - o));
        if (k <= 0)
            break;
        o += (int)k;
    }
    if (isatty(1))
        tcdrain(1); /* so that the line leaves before anything else happens */
}
void vb_begin(void)
{
    out("START %s\n", name);
    clock_gettime(CLOCK_MONOTONIC, &t0);
}
void vb_end(u64 ops, u64 sum)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    long long ns = (t.tv_sec - t0.tv_sec) * 1000000000ll + t.tv_nsec - t0.tv_nsec;
    out("BENCH %s %lld.%06lld s ops=%llu sum=%llx\n", name, ns / 1000000000, ns % 1000000000 / 1000,
        (unsigned long long)ops, (unsigned long long)sum);
}
void vb_skip(const char *why)
{
    out("SKIP %s %s\n", name, why);
}
void vb_fail(const char *fmt, ...)
{
    char b[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(b, sizeof b, fmt, ap);
    va_end(ap);
    out("FAIL %s %s\n", name, b);
    _exit(1);
}
u64 vb_n(double n, u64 min)
{
    n *= scale;
    return n < (double)min ? min : (u64)n;
}
void *vb_alloc(size_t n)
{
    u8 *p = mmap(0, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        vb_fail("out of memory");
    madvise(p, n, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < n; i += 4096)
        p[i] = 1;
    return p;
}
void vb_text(u8 *p, size_t n, u64 seed)
{
    static const char *w[] = {"the ", "of ",     "and ",   "data ", "machine ",     "able ", "to ",
                              "in ",  "memory ", "guest ", "a ",    "page ",        "table", "ed ",
                              "ing ", "kernel ", "zebra ", "q",     "translation ", ".\n"};
    u64 s = seed * 0x9E3779B97F4A7C15ull + 1;
    for (size_t i = 0; i < n;) {
        u64 r = vb_rnd(&s);
        if ((r & 31) == 0) {
            p[i++] = (u8)('0' + (r >> 8) % 10);
            continue;
        }
        const char *x = w[(r >> 16) % (sizeof w / sizeof *w)];
        while (*x && i < n)
            p[i++] = (u8)*x++;
    }
}

static void run_one(const struct vb_bench *b, double mul)
{
    pid_t p = fork();
    if (!p) {
        name = b->name;
        scale *= mul;
        b->fn();
        _exit(0);
    }
    int st;
    while (waitpid(p, &st, 0) < 0 && errno == EINTR)
        ;
    if (!WIFEXITED(st))
        out("FAIL %s signal %d\n", b->name, WTERMSIG(st));
    /* drop what it left in the scratch directory */
    p = fork();
    if (!p) {
        if (!chdir(vb_tmp)) {
            int n = open("/dev/null", O_RDWR);
            dup2(n, 2);
            execl(vb_busybox, "busybox", "rm", "-rf", "big", "txt", "txt.gz", "tree", "x", "t.tar",
                  (char *)0);
        }
        _exit(9);
    }
    waitpid(p, 0, 0);
}
static void run_list(const char *list)
{
    char tmp[4096];
    snprintf(tmp, sizeof tmp, "%s", list);
    for (char *sv, *t = strtok_r(tmp, ",", &sv); t; t = strtok_r(0, ",", &sv)) {
        double mul = 1;
        char *at = strchr(t, '@');
        if (at) {
            *at = 0;
            mul = atof(at + 1);
        }
        size_t l = strlen(t);
        int hit = 0;
        const struct vb_bench *sets[] = {vb_cpu, vb_fp, vb_os};
        if (!strcmp(t, "none"))
            continue;
        for (int i = 0; i < 3; i++)
            for (const struct vb_bench *b = sets[i]; b->name; b++)
                if (!strcmp(b->name, t) || (!strncmp(b->name, t, l) && b->name[l] == '.') ||
                    (!strcmp(t, "all") && strcmp(b->name, "hold"))) {
                    run_one(b, mul);
                    hit = 1;
                }
        if (!hit)
            out("FAIL %s unknown\n", t);
    }
}

static char cmdline[4096];
static const char *arg(const char *key, const char *def)
{
    char *p = cmdline;
    size_t l = strlen(key);
    static char r[4][2048];
    static int k;
    while (*p) {
        while (*p == ' ' || *p == '\n')
            p++;
        size_t n = strcspn(p, " \n");
        if (n > l && !strncmp(p, key, l) && p[l] == '=') {
            k = (k + 1) & 3;
            snprintf(r[k], sizeof r[k], "%.*s", (int)(n - l - 1), p + l + 1);
            return r[k];
        }
        p += n;
    }
    return def;
}
static void load(const char *m)
{
    char p[128];
    snprintf(p, sizeof p, "/lib/modules/%s.ko", m);
    int f = open(p, O_RDONLY);
    if (f >= 0) {
        if (syscall(SYS_finit_module, f, "", 0) && errno != ENOEXEC)
            out("NOTE module %s: %s\n", m, strerror(errno));
        close(f);
    }
}
static void power_off(void)
{
    const char *how = arg("vb.off", "");
    unsigned port = 0, val = 0, size = 1;
    sync();
    if (sscanf(how, "port:%i:%i:%u", (int *)&port, (int *)&val, &size) >= 2 && !iopl(3)) {
        if (size == 1)
            outb((u8)val, (u16)port);
        else if (size == 2)
            outw((u16)val, (u16)port);
        else
            outl(val, (u16)port);
    }
    if (!strcmp(how, "reboot"))
        reboot(RB_AUTOBOOT);
    if (!strcmp(how, "halt"))
        reboot(RB_HALT_SYSTEM);
    /* No ACPI tables and real ports: try the usual port before the kernel would only halt */
    if (access("/sys/firmware/acpi/tables/FACP", F_OK) && !iopl(3)) {
        outw(0x2000, 0x604);
        outb(0x10, 0xf4);
    }
    reboot(RB_POWER_OFF);
    for (;;)
        pause();
}
static void as_init(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    out("VB-INIT %ld.%03ld\n", (long)t.tv_sec, t.tv_nsec / 1000000);
    mkdir("/proc", 0755);
    mkdir("/sys", 0755);
    mkdir("/dev", 0755);
    mkdir("/tmp", 01777);
    mount("proc", "/proc", "proc", 0, 0);
    mount("sysfs", "/sys", "sysfs", 0, 0);
    mount("devtmpfs", "/dev", "devtmpfs", 0, 0);
    mount("tmpfs", "/tmp", "tmpfs", 0, "size=75%");
    int f = open("/proc/cmdline", O_RDONLY);
    if (f >= 0) {
        ssize_t n = read(f, cmdline, sizeof cmdline - 1);
        cmdline[n > 0 ? n : 0] = 0;
        close(f);
    }
    f = open("/sys/kernel/mm/transparent_hugepage/enabled", O_WRONLY);
    if (f >= 0) {
        if (write(f, "madvise", 7) != 7)
            out("NOTE thp\n");
        close(f);
    }
    static const char *mods[] = {
        "virtio_ring", "virtio",    "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci",
        "virtio_mmio", "virtio_blk"};
    for (size_t i = 0; i < sizeof mods / sizeof *mods; i++)
        load(mods[i]);
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    struct ifreq r;
    memset(&r, 0, sizeof r);
    strcpy(r.ifr_name, "lo");
    r.ifr_flags = IFF_UP | IFF_RUNNING;
    if (s >= 0 && ioctl(s, SIOCSIFFLAGS, &r))
        out("NOTE lo %d\n", errno);
    if (s >= 0)
        close(s);
    char b[256] = "";
    f = open("/sys/devices/system/clocksource/clocksource0/current_clocksource", O_RDONLY);
    if (f >= 0) {
        ssize_t n = read(f, b, sizeof b - 1);
        b[n > 0 ? n - 1 : 0] = 0;
        close(f);
    }
    out("INFO cpus=%ld clocksource=%s\n", sysconf(_SC_NPROCESSORS_ONLN), b);
}

int main(int argc, char **argv)
{
    const char *list = "all";
    static const char *disks[] = {"/dev/vda", "/dev/ubda", "/dev/sda", "/dev/hda"};
    int init = getpid() == 1;
    if (init) {
        as_init();
        list = arg("vb.list", "none");
        scale = atof(arg("vb.scale", "1"));
        for (size_t i = 0; i < 4 && !vb_disk; i++)
            if (!access(disks[i], R_OK | W_OK))
                vb_disk = disks[i];
    } else {
        int o;
        while ((o = getopt(argc, argv, "s:l:t:b:d:")) > 0)
            switch (o) {
            case 's':
                scale = atof(optarg);
                break;
            case 'l':
                list = optarg;
                break;
            case 't':
                vb_tmp = optarg;
                break;
            case 'b':
                vb_busybox = optarg;
                break;
            case 'd':
                vb_disk = optarg;
                break;
            default:
                return 2;
            }
        out("VB-INIT native\n");
    }
    run_list(list);
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    out("VB-DONE %ld.%03ld\n", (long)t.tv_sec, t.tv_nsec / 1000000);
    if (init)
        power_off();
    return 0;
}
