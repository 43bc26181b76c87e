/*
 * server.h - 9P2000.L over one folder
 *
 * What a guest sends is a message, what it gets an answer; docs/design/share.md has the rules. The
 * server runs in a process of its own (process.h), and in tests in theirs. One thread.
 */
#ifndef BACKENDS_SHARE_SERVER_H
#define BACKENDS_SHARE_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "trapeze/share.h"
#include "trapeze/state.h"

struct share_server;

#define SHARE_MAX_MESSAGE (512u << 10)
#define SHARE_MIN_MESSAGE 7u  /* size, type, tag */
#define SHARE_MIN_ANSWER  11u /* an error, whose code is behind them */
#define SHARE_RLERROR     7u  /* type of that answer */

/*
 * folder_fd is the folder, opened with O_PATH; proc_fd is /proc/self/fd. Both stay the caller's.
 * NULL: no memory.
 */
struct share_server *share_server_new(int folder_fd, int proc_fd, bool read_only);
void share_server_free(struct share_server *server); /* NULL is fine */
/* As if no message had ever come. */
void share_server_forget(struct share_server *server);
/* Append what is open, and the session. 0 or -ENOMEM. */
int share_server_save(const struct share_server *server, struct state_buffer *out);
/* Instead of what is open now. What cannot be opened again is lost. -EINVAL, -ENOMEM: all is. */
int share_server_load(struct share_server *server, const uint8_t *data, size_t size);
/*
 * Answer the message in out into in. At least SHARE_MIN_MESSAGE and SHARE_MIN_ANSWER bytes.
 * Returns the answer's bytes.
 */
uint32_t share_server_answer(struct share_server *server, const struct io_piece *out,
                             unsigned out_count, const struct io_piece *in, unsigned in_count);

#endif
