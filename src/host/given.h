/*
 * given.h - descriptors that one process opens and another one uses
 *
 * A process whose sandbox lets it open nothing is handed over what it is to use. Who hands over
 * runs the code that opens, while what it opens is recorded; the other one runs the same code, is
 * handed what was recorded, and opens nothing. What is not in what it was given it tries to open.
 *
 * Main loop's thread only. Implemented by host/linux/given.c.
 */
#ifndef HOST_GIVEN_H
#define HOST_GIVEN_H

#include <stddef.h>

struct stat;

#define HOST_MAX_GIVEN        32u
#define HOST_GIVEN_NAME_BYTES 4096u /* with its end mark */

struct host_given {
    struct host_given_file {
        char *name;
        unsigned flags; /* it was opened with */
        int fd;
    } files[HOST_MAX_GIVEN];
    size_t count;
};

/* Add a descriptor, which is given's from now on, also on failure: -E2BIG, -ENOMEM. */
int host_given_add(struct host_given *given, const char *name, unsigned flags, int fd);
/* Close what is left. */
void host_given_done(struct host_given *given);

/* Duplicates of all that is opened go there; what is too much, nowhere. NULL: no longer. */
void host_record(struct host_given *given);
/* What is opened is taken out of there. NULL: no longer. */
void host_use(struct host_given *given);

/* As stat(2), of what was given if there is something of that name. */
int host_stat(const char *path, struct stat *out);
/* As open(2), with O_CLOEXEC. */
int host_open(const char *path, int flags, unsigned mode);
/* Open for reading and writing: a file in folder that nobody else can find. -1 with errno. */
int host_open_nameless(const char *folder);
/* What is opened in another way: take it, or -1; tell that it was opened. */
int host_take_given(const char *name, unsigned flags);
void host_opened(const char *name, unsigned flags, int fd);

#endif
