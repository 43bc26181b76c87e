/*
 * host.h - what base, machine and devices need of the system below
 *
 * Implemented by host/linux/ now and by host/bare/ later; chosen at link time.
 */
#ifndef HOST_HOST_H
#define HOST_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trapeze/error.h"

/* ---- time ---- */
uint64_t host_monotonic_ns(void);
uint64_t host_wall_ns(void); /* since 1970 UTC */
uint64_t host_cpu_ns(void);  /* what all threads of this process have computed */
/*
 * The processor's counter, read in program order. Is it the same on all processors and of constant
 * rate, so that the host's own clocks are made of it?
 */
uint64_t host_ticks(void);
bool host_ticks_are_steady(void);

/* ---- randomness ---- */
/* Fill with bytes fit for keys. Never fails: an entropy source that is not there yet is waited for.
 */
void host_random(void *out, size_t size_bytes);

/* ---- locks and threads ---- */
struct host_mutex {
    uint64_t opaque[8];
};
void host_mutex_init(struct host_mutex *mutex);
void host_mutex_done(struct host_mutex *mutex);
void host_mutex_lock(struct host_mutex *mutex);
bool host_mutex_try_lock(struct host_mutex *mutex); /* false: it is locked */
void host_mutex_unlock(struct host_mutex *mutex);

struct host_cond {
    uint64_t opaque[8];
};
void host_cond_init(struct host_cond *cond);
void host_cond_done(struct host_cond *cond);
void host_cond_wait(struct host_cond *cond, struct host_mutex *mutex);
/* false on timeout; deadline on host_monotonic_ns */
bool host_cond_wait_until(struct host_cond *cond, struct host_mutex *mutex, uint64_t deadline_ns);
void host_cond_broadcast(struct host_cond *cond);

struct host_thread;
/* name is at most 15 characters and shows in top(1). NULL on failure. */
struct host_thread *host_thread_start(const char *name, void (*fn)(void *opaque), void *opaque,
                                      struct error *err);
void host_thread_join(struct host_thread *thread); /* frees it; NULL is fine */
uint64_t host_thread_self(void);                   /* an id that is not 0 */
/* What the thread's accesses by GS begin at, which is free for generated code. x86-64 only. */
void host_set_gs_base(uintptr_t base);

/* ---- memory ---- */
struct host_memory {
    uint8_t *hva;
    uint64_t size_bytes;
    int fd; /* memfd, or -1 on bare metal */
};
/* Zeroed, shared, lazily populated. */
int host_memory_new(struct host_memory *memory, const char *name, uint64_t size_bytes,
                    struct error *err);
void host_memory_free(struct host_memory *memory);
/* Give whole pages back to the host; they are zero. offset and size are multiples of its page's. */
int host_memory_discard(const struct host_memory *memory, uint64_t offset, uint64_t size_bytes,
                        struct error *err);
uint64_t host_memory_used_bytes(const struct host_memory *memory); /* what it takes of the host's */

/*
 * Zeroed private memory, and behind it room for a view of code, of whole pages or 0. Pages appear
 * when they are touched. low: all of it is below 2 GiB. NULL and *err if there is no room.
 */
void *host_private_memory_new(size_t size_bytes, size_t code_bytes, bool low, struct error *err);
/* With a view of code that is there. memory may be NULL. */
void host_private_memory_free(void *memory, size_t size_bytes, size_t code_bytes);

/* One piece of memory seen twice: written through one view, executed through the other. */
struct host_code {
    uint8_t *write;
    const uint8_t *execute;
    size_t size_bytes;
    bool has_place; /* the execute view is in somebody's memory, who frees it */
};
/* place: where its execute view is to be, in room of host_private_memory_new(); or NULL. */
int host_code_new(struct host_code *code, size_t size_bytes, void *place, struct error *err);
void host_code_free(struct host_code *code);
/* Another execute view, in such room; before host_sandbox(). */
int host_code_view(const struct host_code *code, void *place, struct error *err);

/*
 * CPU exceptions of generated code. When an instruction in code's execute view raises one of
 * these, the thread goes on in handler as if the instruction had been a call of it: first and
 * second are what the registers of the first two arguments held. The handler does not return (it
 * may longjmp). Exceptions elsewhere are what they were before.
 */
enum host_trap {
    HOST_TRAP_UNDEFINED,  /* #UD */
    HOST_TRAP_PROTECTION, /* #GP, #PF, #AC */
    HOST_TRAP_X87,        /* #MF */
    HOST_TRAP_SIMD,       /* #XM */
};
/* A noreturn function; any thread. code is guarded until host_code_unguard(), before it is freed.
 */
int host_code_guard(const struct host_code *code,
                    void (*handler)(void *first, void *second, enum host_trap trap),
                    struct error *err);
void host_code_unguard(const struct host_code *code);
/*
 * fn is called when such an exception is nobody's and is about to end the process: in a signal
 * handler, on any thread. NULL: nothing is called.
 */
void host_on_crash(void (*fn)(void));

/* ---- sandbox ---- */
/* What some machines need beside. */
#define HOST_MAY_REMOVE        0x1u  /* files */
#define HOST_MAY_CONNECT       0x2u  /* to other hosts, by IPv4 and IPv6 */
#define HOST_MAY_READ          0x4u  /* any file */
#define HOST_MAY_CONNECT_LOCAL 0x8u  /* beside HOST_MAY_CONNECT: by unix sockets */
#define HOST_MAY_SUBMIT        0x10u /* to rings (io_uring) that are there */
#define HOST_MAY_PAIR          0x20u /* make sockets that lead to this process */
/*
 * From here on every thread of this process, those to come too, can do only what a running machine
 * does: with what is open, with memory that is not executed. rights: and HOST_MAY_... Other
 * system calls fail or end the process with a message. For good. Does nothing under sanitizers.
 */
int host_sandbox(unsigned rights, struct error *err);
/* Has this process all these rights? Where host_sandbox() was not called it has. */
bool host_may(unsigned rights);
/* The same for a process that serves the files of a folder. */
int host_serve_sandbox(struct error *err);
/* The same for a process that connects to unix sockets. */
int host_dial_sandbox(struct error *err);
/*
 * Fork a process that calls run() with a socket of whole packets, whose other end is *out_socket,
 * and ends when that returns or this process ends. It has nothing else of ours but standard error.
 * Before there are threads. Returns its id, for waitpid(), or -errno.
 */
int host_process_start(const char *name, void (*run)(int socket, void *opaque), void *opaque,
                       int *out_socket, struct error *err);
/* Bytes of a unix socket, or a packet: 0 at the end, -1 with errno. *out_fd came with it, or -1. */
ptrdiff_t host_receive(int socket, void *out, size_t size, bool waits, int *out_fd);
/* Send bytes to a unix socket, and a descriptor (-1: none). How many, or -1 with errno. */
ptrdiff_t host_send(int socket, const void *data, size_t size, int fd);
/*
 * A unix socket that listens on path, which removes one that nobody listens on any more (a process
 * was killed), and nothing else. A descriptor, or -errno. is_private: for its owner only.
 */
int host_listen(const char *path, unsigned backlog, bool is_private, struct error *err);
/*
 * Confine this process, which has one thread, to a folder: Landlock lets it open and change nothing
 * else; in a namespace of its own there is nothing else. *folder_fd is the folder and *proc_fd is
 * /proc/self/fd, both opened with O_PATH; they are replaced. Returns which of ways the kernel has
 * and allows. For good; proc_fd shows what lies open to this process even then.
 */
#define HOST_CONFINE_FOLDER    0x1u
#define HOST_CONFINE_NAMESPACE 0x2u
unsigned host_confine(unsigned ways, int *folder_fd, int *proc_fd, bool read_only);

#endif
