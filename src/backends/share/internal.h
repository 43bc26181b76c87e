/*
 * internal.h - what the files of the 9P server share
 */
#ifndef BACKENDS_SHARE_INTERNAL_H
#define BACKENDS_SHARE_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "backends/share/server.h"

#define SHARE_MAX_WALK  16u
#define SHARE_ROOM      (64u << 10) /* for answers but those to Tread, and for attributes */
#define SHARE_FID_LISTS 1024u

enum node_kind {
    NODE_PATH,      /* found, not open: an O_PATH descriptor */
    NODE_OPEN,      /* a regular file or a folder, open for reading or writing */
    NODE_ATTRIBUTE, /* the value of an extended attribute, to be read */
    NODE_NEW_VALUE, /* the same, being written: set when its fid goes */
    NODE_LOST,      /* was open when the machine was saved, and could not be opened again */
};

#define SHARE_OPEN_FLAGS (O_ACCMODE | O_SYNC) /* that an open node keeps */

/* What fids stand for, several of them perhaps. Nothing but a new value changes in it. */
struct share_node {
    enum node_kind kind;
    unsigned references;
    int fd;                    /* -1 of attributes */
    mode_t type;               /* S_IFMT */
    struct share_node *parent; /* where name was found; of attributes: what has them. NULL: root */
    char *name;
    uint8_t *value; /* of an attribute */
    size_t value_bytes, filled;
    int flags; /* of an open node, SHARE_OPEN_FLAGS; of a new value, fsetxattr()'s */
};

struct share_fid {
    uint32_t number;
    struct share_node *node; /* one reference */
    struct share_fid *next;
};

struct share_server {
    int proc_fd;
    bool read_only;
    dev_t device; /* of the folder */
    struct share_node *root;
    uint32_t message_bytes; /* agreed on; 0: no session yet */
    unsigned fid_count;
    struct share_fid *fids[SHARE_FID_LISTS];
    uint8_t answer[SHARE_ROOM];
    _Alignas(8) uint8_t room[SHARE_ROOM]; /* entries of folders, values */
};

/* A message with its arguments, in the order of the message, and the answer that is being made. */
struct share_call {
    struct share_server *server;
    const struct io_piece *out, *in;
    unsigned out_count, in_count;
    uint64_t data_bytes;   /* of the message, behind its arguments */
    unsigned data_at;      /* where they begin */
    uint32_t answer_limit; /* bytes */

    struct share_fid *fids[2];
    uint64_t numbers[9];
    const char *texts[2];
    const char *names[SHARE_MAX_WALK]; /* of a walk */
    unsigned name_count;

    size_t answer_bytes; /* in server->answer, the header too */
    size_t direct_bytes; /* that were put behind them, into the guest's memory */
};

/* ---- server.c ---- */

void share_put8(struct share_call *call, uint8_t value);
void share_put16(struct share_call *call, uint16_t value);
void share_put32(struct share_call *call, uint32_t value);
void share_put64(struct share_call *call, uint64_t value);
void share_put_text(struct share_call *call, const char *text, size_t size);
void share_put_qid(struct share_call *call, const struct stat *st);

/* Can it be a step down? */
bool share_is_name(const char *text);
struct share_fid *share_find_fid(struct share_server *server, uint32_t number);
/* The fid takes the caller's reference, whatever happens. It is new, or another's so far. */
int share_set_fid(struct share_server *server, uint32_t number, struct share_node *node);
/* The fid goes. */
void share_drop_fid(struct share_server *server, struct share_fid *fid);

/* ---- node.c ---- */

/* fd (taken over) is -1 of attributes. NULL: no memory. */
struct share_node *share_node_new(enum node_kind kind, int fd, mode_t type,
                                  struct share_node *parent, const char *name);
/* The same of an open file or folder. */
struct share_node *share_node_new_open(int fd, int flags, mode_t type, struct share_node *parent,
                                       const char *name);
struct share_node *share_node_get(struct share_node *node);
void share_node_put(struct share_node *node); /* NULL is fine */
/* What name in a folder is. 0 and one reference, or -errno. */
int share_node_step(struct share_node *folder, const char *name, struct share_node **out_node,
                    struct stat *out_stat);
/* Open what node is, for a regular file or a folder. A descriptor or -errno. */
int share_node_open(const struct share_server *server, const struct share_node *node, int flags);
/* The name of node under proc_fd, for calls that take a path. */
struct share_path {
    char text[16];
};
struct share_path share_node_path(const struct share_node *node);

/* ---- answers: 0 or -errno ---- */

/* files.c */
int share_answer_walk(struct share_call *call);
int share_answer_lopen(struct share_call *call);
int share_answer_lcreate(struct share_call *call);
int share_answer_read(struct share_call *call);
int share_answer_write(struct share_call *call);
int share_answer_fsync(struct share_call *call);
int share_answer_readdir(struct share_call *call);
/* folders.c */
int share_answer_mkdir(struct share_call *call);
int share_answer_mknod(struct share_call *call);
int share_answer_symlink(struct share_call *call);
int share_answer_readlink(struct share_call *call);
int share_answer_link(struct share_call *call);
int share_answer_rename(struct share_call *call);
int share_answer_renameat(struct share_call *call);
int share_answer_unlinkat(struct share_call *call);
int share_answer_remove(struct share_call *call);
/* attributes.c */
int share_answer_getattr(struct share_call *call);
int share_answer_setattr(struct share_call *call);
int share_answer_statfs(struct share_call *call);
int share_answer_xattrwalk(struct share_call *call);
int share_answer_xattrcreate(struct share_call *call);
int share_read_value(struct share_call *call, const struct share_node *node);
int share_write_value(struct share_call *call, struct share_node *node);
/* The fid of a new value goes: set it. */
int share_set_value(const struct share_server *server, const struct share_node *node);

#endif
