/*
 * process.c - the process that serves a share
 *
 * Theory of operation. It is forked before the machine has anything: no threads, no RAM, no open
 * files but the socket, and those are closed. It opens the folder, confines itself to it
 * (host_confine, host_serve_sandbox), says so, and then answers messages in the guest's RAM, one
 * after the other, until the other end of the socket is closed.
 */
#include "backends/share/process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/pieces.h"
#include "host/host.h"

#define MAX_FILES (1u << 20)

struct process {
    int socket, folder_fd, proc_fd;
    struct share_server *server;
    uint8_t *ram;
    uint64_t ram_bytes;
    struct share_packet packet;
};

/* ---- packets ---- */

static void map_ram(struct process *p, int fd)
{
    uint64_t bytes = p->packet.pieces[0].size_bytes;
    void *ram = fd < 0 || p->ram
                    ? MAP_FAILED
                    : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);

    if (ram == MAP_FAILED)
        _exit(1);
    p->ram = ram;
    p->ram_bytes = bytes;
}

/* False: a piece is not in RAM. */
static bool find_pieces(const struct process *p, struct io_piece *out)
{
    const struct share_packet *packet = &p->packet;

    for (unsigned n = 0; n < packet->out_count + packet->in_count; n++) {
        const struct share_piece *piece = &packet->pieces[n];

        if (!range_fits(piece->offset, piece->size_bytes, p->ram_bytes))
            return false;
        out[n] = (struct io_piece){p->ram + piece->offset, piece->size_bytes};
    }
    return true;
}

static uint32_t answer(struct process *p)
{
    const struct share_packet *packet = &p->packet;
    struct io_piece pieces[SHARE_MAX_PIECES];

    if (!find_pieces(p, pieces) || pieces_bytes(pieces, packet->out_count) < SHARE_MIN_MESSAGE ||
        pieces_bytes(pieces + packet->out_count, packet->in_count) < SHARE_MIN_ANSWER)
        _exit(1);
    return share_server_answer(p->server, pieces, packet->out_count, pieces + packet->out_count,
                               packet->in_count);
}

/* False: the other end is gone. */
static bool save(struct process *p, struct share_answer *done)
{
    struct state_buffer saved = {0};
    bool is_sent;

    done->bytes = share_server_save(p->server, &saved) ? SHARE_FAILED : (uint32_t)saved.size_bytes;
    is_sent = send(p->socket, done, sizeof(*done), MSG_NOSIGNAL) == sizeof(*done);
    for (size_t at = 0; is_sent && done->bytes != SHARE_FAILED && at < saved.size_bytes;) {
        size_t left = saved.size_bytes - at, size = left < SHARE_CHUNK ? left : SHARE_CHUNK;

        is_sent = send(p->socket, saved.data + at, size, MSG_NOSIGNAL) == (ssize_t)size;
        at += size;
    }
    free(saved.data);
    return is_sent;
}

static bool load(struct process *p, struct share_answer *done)
{
    uint64_t size = p->packet.out_count ? p->packet.pieces[0].size_bytes : 0;
    uint8_t *data = size && size <= SHARE_MAX_STATE ? malloc(size) : NULL;
    uint64_t at = 0;

    while (data && at < size) {
        int fd;
        ptrdiff_t got = host_receive(p->socket, data + at, size - at, true, &fd);

        if (got <= 0)
            break;
        at += (uint64_t)got;
    }
    if (data && at == size)
        done->bytes = (uint32_t)-share_server_load(p->server, data, size);
    free(data);
    return data && at == size &&
           send(p->socket, done, sizeof(*done), MSG_NOSIGNAL) == sizeof(*done);
}

static bool is_whole(const struct share_packet *packet, size_t size)
{
    return size >= share_packet_bytes(0) && packet->out_count <= SHARE_MAX_PIECES &&
           packet->in_count <= SHARE_MAX_PIECES - packet->out_count &&
           size == share_packet_bytes(packet->out_count + packet->in_count);
}

static void serve(struct process *p)
{
    for (;;) {
        int fd;
        ptrdiff_t size = host_receive(p->socket, &p->packet, sizeof(p->packet), true, &fd);
        struct share_answer done = {.slot = p->packet.slot};

        if (size <= 0 || !is_whole(&p->packet, (size_t)size))
            return;
        if (p->packet.kind == SHARE_RAM) {
            map_ram(p, fd);
            close(fd);
            continue;
        }
        if (p->packet.kind == SHARE_SAVE || p->packet.kind == SHARE_LOAD) {
            if (!(p->packet.kind == SHARE_SAVE ? save(p, &done) : load(p, &done)))
                return;
            continue;
        }
        if (p->packet.kind == SHARE_FORGET)
            share_server_forget(p->server);
        else
            done.bytes = answer(p);
        if (send(p->socket, &done, sizeof(done), MSG_NOSIGNAL) != sizeof(done))
            return;
    }
}

/* ---- the start ---- */

static void take_limits(void)
{
    struct rlimit files;

    umask(0); /* the guest says what modes are */
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max < MAX_FILES ? files.rlim_max : MAX_FILES;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

static int open_folder(struct process *p, const char *folder, struct error *err)
{
    p->folder_fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (p->folder_fd < 0)
        return error_set(err, errno, "'%s': %s", folder, strerror(errno));
    p->proc_fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (p->proc_fd < 0)
        return error_set(err, errno, "/proc is needed: %s", strerror(errno));
    return 0;
}

static int set_up(struct process *p, const char *folder, bool read_only, bool sandboxed,
                  struct share_greeting *greeting)
{
    struct error *err = &greeting->err;

    if (open_folder(p, folder, err))
        return -EINVAL;
    take_limits();
    if (sandboxed)
        greeting->confinement = host_confine(HOST_CONFINE_FOLDER | HOST_CONFINE_NAMESPACE,
                                             &p->folder_fd, &p->proc_fd, read_only);
    p->server = share_server_new(p->folder_fd, p->proc_fd, read_only);
    if (!p->server)
        return error_set(err, ENOMEM, "out of memory");
    return sandboxed ? host_serve_sandbox(err) : 0;
}

void share_process(int socket, const char *folder, bool read_only, bool sandboxed)
{
    struct process p = {.socket = socket};
    struct share_greeting greeting = {.confinement = 0};
    int status;

    status = set_up(&p, folder, read_only, sandboxed, &greeting);
    if (send(p.socket, &greeting, sizeof(greeting), MSG_NOSIGNAL) == sizeof(greeting) && !status)
        serve(&p);
    _exit(status != 0);
}
