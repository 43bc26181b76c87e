/*
 * fuzz_nvme.c - a hostile driver of the NVMe controller
 *
 * Steps are accesses to configuration space and registers, well-formed and malformed commands, PRP
 * lists, SGLs, and saved states. Claims: all commands of an honest driver end; states survive a
 * round trip; whatever happened, a reset makes it a disk again.
 */
#include "devices/devices.h"
#include "fuzz_device.h"
#include "nvme_driver.h"

#define RAM_BYTES  (1u << 20)
#define DISK_BYTES (256u << 10)
#define LISTS      0x40000u /* PRP lists and SGLs */
#define DATA       0x60000u
#define AREA_BYTES 0x10000u

struct rig {
    struct device_test *t;
    struct device *nvme;
    struct nvme_driver d;
    unsigned queues;   /* that were made */
    unsigned expected; /* completions */
    bool is_honest;    /* the input has only used the driver: all of its commands end */
};

/* An address: data, lists or queues, the end of RAM, registers or anywhere. */
static uint64_t take_gpa(struct fuzz_input *in)
{
    uint16_t value = (uint16_t)fuzz_take(in, 2);

    switch (value >> 13) {
    case 0:
        return RAM_BYTES - (value & 0x1fff);
    case 1:
        return value & 0x1000 ? NVME_BAR + (value & 0xfff) : fuzz_take(in, 8);
    case 2:
        return LISTS + (value & 0x1fff) * 8u;
    case 3:
        return NVME_MEMORY + (value & 0x1fff) * 8u;
    default:
        return DATA + (value & 0x1fffu) * 16u;
    }
}

static void begin_driver(struct rig *r, struct fuzz_input *in)
{
    uint8_t how = (uint8_t)fuzz_take(in, 1);
    unsigned queues = 1 + how % 3;

    nvme_driver_find(&r->d, r->t);
    if (how & 0x20)
        nvme_use_msix(&r->d, NVME_QUEUES);
    nvme_driver_start(&r->d, 16);
    r->queues = 1;
    r->expected = 0;
    r->is_honest = nvme_read(&r->d, NVME_REG_CSTS) == 1;
    for (unsigned n = 1; n <= queues && r->is_honest; n++, r->queues++)
        FUZZ_CLAIM(nvme_make_queues(&r->d, n, 2 + (how >> 6) * 7, n) == 0);
}

static struct nvme_test_command take_command(struct rig *r, struct fuzz_input *in, bool is_admin)
{
    static const uint8_t io[8] = {0, 1, 2, 5, 8, 9, 2, 1};
    static const uint8_t admin[8] = {6, 2, 9, 10, 8, 12, 6, 2};
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    struct nvme_test_command c = {.opcode = is_admin ? admin[what & 7] : io[what & 7],
                                  .nsid = what & 8 ? 1 : (uint32_t)fuzz_take(in, 1),
                                  .prp1 = DATA + (what >> 5) * 0x1000u,
                                  .prp2 = what & 0x10 ? LISTS : DATA + 0x9000};

    if (is_admin && c.opcode == 12 && r->is_honest)
        c.opcode = 10; /* requests for events do not end */
    c.dword[10] = (uint32_t)fuzz_take(in, 2);
    c.dword[11] = is_admin ? (uint32_t)fuzz_take(in, 2) : 0;
    c.dword[12] = (uint32_t)fuzz_take(in, 1) | (what & 0x80 ? 0x40000000u : 0);
    if (is_admin && c.opcode == 2)
        c.dword[10] = (c.dword[10] & 0x87) | (c.dword[10] & 0xff00u) << 8;
    return c;
}

static unsigned choose_queue(const struct rig *r, uint8_t what)
{
    return r->queues ? (what >> 5) % r->queues : 0;
}

static void take_entries(struct rig *r, unsigned queue)
{
    struct nvme_test_entry entry;

    if (!r->d.queues[queue].size)
        return;
    for (unsigned n = 0; n < 64 && nvme_take(&r->d, queue, &entry); n++) {
        if (r->expected)
            r->expected--;
        nvme_release(&r->d, queue);
    }
}

/* There is room for a command: one entry stays free. */
static bool is_full(const struct rig *r, unsigned queue)
{
    const struct nvme_driver_queue *q = &r->d.queues[queue];

    return !q->size || r->expected + 1 >= q->size;
}

static void add_command(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    unsigned queue = choose_queue(r, what);
    struct nvme_test_command c;

    if (is_full(r, queue))
        return;
    c = take_command(r, in, queue == 0);
    nvme_add(&r->d, queue, &c);
    r->expected++;
}

static void drain(struct rig *r)
{
    fuzz_pause(r->t, r->nvme);
}

/* A command of any bytes, or a few that matter of a good one changed. */
static void add_malformed(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    struct nvme_driver_queue *q = &r->d.queues[choose_queue(r, what)];
    uint8_t *entry;

    r->is_honest = false;
    if (!q->size)
        return;
    entry = r->t->ram.hva + q->sq + 64ull * q->tail;
    entry[0] = (uint8_t)fuzz_take(in, 1) % 14;
    entry[1] = (uint8_t)fuzz_take(in, 1);
    put_le64(entry + 24, take_gpa(in));
    put_le64(entry + 32,
             entry[1] & 0x40 ? fuzz_take(in, 2) | fuzz_take(in, 1) << 56 : take_gpa(in));
    for (unsigned n = 0; n < 3; n++)
        put_le32(entry + 40 + 4 * n, (uint32_t)fuzz_take(in, 2) | (uint32_t)fuzz_take(in, 2) << 16);
    q->tail = (q->tail + 1) % q->size;
}

static void fill_list(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    uint8_t at = (uint8_t)fuzz_take(in, 1);
    uint8_t *entry = r->t->ram.hva + LISTS + 8u * at;

    put_le64(entry, what & 0x20 ? take_gpa(in) : take_gpa(in) & ~4095ull);
    if (what & 0x40)
        put_le64(entry + 8, fuzz_take(in, 2) | fuzz_take(in, 1) << 56);
}

static void access_registers(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    uint64_t offset = what & 0x80 ? 0x1000 + fuzz_take(in, 1) % 64 * 4 : fuzz_take(in, 1) % 64;
    unsigned size = 1u << (what >> 4 & 3);

    if (what & 0x40) {
        test_read(r->t, NVME_BAR + offset, size);
        return;
    }
    r->is_honest = false;
    test_write(r->t, NVME_BAR + offset, fuzz_take(in, size), size);
}

static void access_config(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    uint64_t gpa = nvme_config_gpa((unsigned)fuzz_take(in, 1));
    unsigned size = 1u << (what >> 4 & 3) % 3;

    if (what & 0x40) {
        test_read(r->t, gpa, size);
        return;
    }
    r->is_honest = false;
    test_write(r->t, gpa, fuzz_take(in, size), size);
}

static void change_state(struct rig *r, struct fuzz_input *in, uint8_t what)
{
    drain(r);
    if (what & 0x80)
        r->is_honest = false;
    fuzz_change_state(in, r->t, r->nvme, what & 0x80);
}

static void step(struct rig *r, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);

    switch (what % 16) {
    case 0:
        begin_driver(r, in);
        break;
    case 1:
    case 2:
    case 3:
        add_command(r, in, what);
        break;
    case 4:
    case 5:
        if (r->queues)
            nvme_ring(&r->d, choose_queue(r, what));
        break;
    case 6:
    case 7:
        add_malformed(r, in, what);
        break;
    case 8:
    case 9:
        fill_list(r, in, what);
        break;
    case 10:
        access_registers(r, in, what);
        break;
    case 11:
        access_config(r, in, what);
        break;
    case 12:
        r->is_honest = false;
        test_write(r->t, take_gpa(in), fuzz_take(in, 4), 4);
        break;
    case 13:
        drain(r);
        take_entries(r, choose_queue(r, what));
        break;
    case 14:
        device_test_loop(r->t);
        break;
    default:
        change_state(r, in, what);
        break;
    }
}

/* All that an honest driver has asked for has ended. */
static void check_end(struct rig *r)
{
    for (unsigned round = 0; round < 4 && r->expected; round++)
        for (unsigned n = 0; n < r->queues; n++) {
            nvme_ring(&r->d, n);
            drain(r);
            take_entries(r, n);
        }
    FUZZ_CLAIM(r->expected == 0);
    FUZZ_CLAIM(nvme_read(&r->d, NVME_REG_CSTS) == 1);
}

static void check_mended(struct rig *r)
{
    struct nvme_test_command c = nvme_transfer(2, 0, 8, DATA, 0);
    struct nvme_test_entry entry = {.status = 0xffff};

    nvme_driver_find(&r->d, r->t);
    nvme_driver_start(&r->d, 4);
    FUZZ_CLAIM(nvme_read(&r->d, NVME_REG_CSTS) == 1 || nvme_read(&r->d, NVME_REG_CSTS) == 0x11);
    FUZZ_CLAIM(nvme_make_queues(&r->d, 1, 4, 1) == 0);
    nvme_add(&r->d, 1, &c);
    nvme_ring(&r->d, 1);
    drain(r);
    FUZZ_CLAIM(nvme_take(&r->d, 1, &entry) && entry.status == 0);
}

static struct rig *rig(void)
{
    static struct rig r;
    struct error err = {0};

    if (!r.t) {
        r.t = device_test_new(RAM_BYTES);
        device_test_add(r.t, &pci_host_class, "ecam=0xe0000000");
        r.nvme = device_test_create(r.t, &nvme_class, "addr=3,queues=3");
        FUZZ_CLAIM(device_set_pointer(r.nvme, "drive", fuzz_disk(r.t->loop, DISK_BYTES), &err) ==
                   0);
        device_test_attach(r.nvme);
        device_test_start(r.t);
    }
    device_test_reset(r.t);
    memset(r.t->ram.hva, 0, r.t->ram.size_bytes);
    r.d = (struct nvme_driver){.t = r.t};
    r.queues = r.expected = 0;
    r.is_honest = false;
    return &r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct rig *r = rig();

    while (in.left)
        step(r, &in);
    drain(r);
    if (r->is_honest)
        check_end(r);
    if (size % 8 == 0) /* which takes as long as many steps */
        device_test_round_trip(r->t, r->nvme);
    check_mended(r);
    return 0;
}
