/*
 * pc_rig.c - a whole board for tests
 */
#include "pc_rig.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"

int pc_set_up(void **state)
{
    struct pc_rig *f = calloc(1, sizeof(*f));

    f->loop = loop_new(&f->err);
    *state = f;
    return f->loop ? 0 : -1;
}

int pc_tear_down(void **state)
{
    struct pc_rig *f = *state;

    machine_free(f->machine);
    loop_free(f->loop);
    if (f->path[0])
        unlink(f->path);
    free(f);
    return 0;
}

int pc_build_rig(struct pc_rig *f, uint64_t ram_bytes, unsigned vcpu_count)
{
    struct machine_config config = {
        .engine = engine_find("null"),
        .ram_bytes = ram_bytes,
        .vcpu_count = vcpu_count,
        .counted = vcpu_count == 1,
        .loop = f->loop,
    };

    f->machine = machine_new(&config, &f->err);
    assert_non_null(f->machine);
    return pc_build(f->machine, &f->config, &f->err);
}

void pc_start(struct pc_rig *f, uint64_t ram_bytes, unsigned vcpu_count)
{
    if (pc_build_rig(f, ram_bytes, vcpu_count) || machine_start(f->machine, &f->err))
        fail_msg("%s", f->err.text);
}

void pc_write_file(struct pc_rig *f, const uint8_t *data, size_t size_bytes)
{
    int fd;

    strcpy(f->path, "/tmp/trapeze-test-XXXXXX");
    fd = mkstemp(f->path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, size_bytes), size_bytes);
    close(fd);
}

void pc_make_kernel(struct pc_rig *f)
{
    static uint8_t kernel[4096];

    memset(kernel, 0x90, sizeof(kernel));
    put_le32(kernel, 0x1badb002);
    put_le32(kernel + 4, 1 << 16);
    put_le32(kernel + 8, (uint32_t) - (0x1badb002 + (1 << 16)));
    put_le32(kernel + 12, 0x200000);
    put_le32(kernel + 16, 0x200000);
    put_le32(kernel + 20, 0x201000);
    put_le32(kernel + 24, 0x203000);
    put_le32(kernel + 28, 0x200020);
    pc_write_file(f, kernel, sizeof(kernel));
    f->config.kernel = f->path;
}

uint64_t pc_peek(struct pc_rig *f, uint64_t gpa, size_t size_bytes)
{
    uint8_t bytes[8] = {0};

    memory_read(machine_memory(f->machine), gpa, bytes, size_bytes);
    return get_le64(bytes);
}

void pc_start_rom(struct pc_rig *f, uint64_t ram_bytes)
{
    static uint8_t rom[256 * 1024];

    memset(rom, 0x77, sizeof(rom));
    pc_write_file(f, rom, sizeof(rom));
    f->config.firmware = f->path;
    pc_start(f, ram_bytes, 1);
}

void pc_write_host(struct pc_rig *f, unsigned offset, uint32_t value, unsigned size)
{
    bus_port_write(f->machine, 0xcf8, 0x80000000 | (offset & ~3u), 4);
    bus_port_write(f->machine, (uint16_t)(0xcfc + (offset & 3)), value, size);
}

unsigned pc_pic_requests(struct pc_rig *f)
{
    bus_port_write(f->machine, 0x20, 0x0a, 1);
    bus_port_write(f->machine, 0xa0, 0x0a, 1);
    return bus_port_read(f->machine, 0x20, 1) | bus_port_read(f->machine, 0xa0, 1) << 8;
}

void pc_init_pics(struct pc_rig *f)
{
    static const struct {
        uint16_t port;
        uint8_t value;
    } writes[] = {{0x20, 0x11}, {0x21, 0x20}, {0x21, 4}, {0x21, 1},    {0xa0, 0x11},
                  {0xa1, 0x28}, {0xa1, 2},    {0xa1, 1}, {0x21, 0xff}, {0xa1, 0xff}};

    for (size_t i = 0; i < sizeof(writes) / sizeof(writes[0]); i++)
        bus_port_write(f->machine, writes[i].port, writes[i].value, 1);
}
