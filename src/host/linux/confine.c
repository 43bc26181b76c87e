/*
 * confine.c - a process that can reach one folder
 *
 * Theory of operation. Two walls, each of which some kernels lack or forbid. Landlock (5.19 and
 * later, where it allows renames between folders) refuses to open, make, rename or remove what is
 * not below the folder. The namespace: a mount namespace of its own, in a user namespace unless the
 * process is privileged enough, and in it a copy of the folder's mount, which becomes the root. The
 * copy hangs nowhere, so nothing is above it, and nothing in it is a device or has set-user-id
 * rights. /proc/self/fd is copied likewise: it would lead up to the old root else.
 *
 * In a user namespace only the process's own user and group have numbers; others' files look like
 * nobody's.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/landlock.h>

#include "host/host.h"

/* Of newer kernels than the headers'. */
#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ull << 14)
#endif

#define ABI_OF_RENAMES    2 /* versions of Landlock */
#define ABI_OF_TRUNCATION 3
#define READING           (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define WRITING                                                                                    \
    (LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |                               \
     LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |  \
     LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_SYM |   \
     LANDLOCK_ACCESS_FS_REFER)
#define NEVER                                                                                      \
    (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK)

/* ---- Landlock ---- */

static bool use_landlock(int folder_fd, bool read_only)
{
    long abi = syscall(__NR_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    uint64_t truncation = abi >= ABI_OF_TRUNCATION ? LANDLOCK_ACCESS_FS_TRUNCATE : 0;
    struct landlock_ruleset_attr rules = {.handled_access_fs =
                                              READING | WRITING | NEVER | truncation};
    struct landlock_path_beneath_attr folder = {
        .allowed_access = READING | (read_only ? 0 : WRITING | truncation), .parent_fd = folder_fd};
    int fd;
    bool is_done;

    if (abi < ABI_OF_RENAMES)
        return false;
    fd = (int)syscall(__NR_landlock_create_ruleset, &rules, sizeof(rules), 0);
    if (fd < 0)
        return false;
    is_done = syscall(__NR_landlock_add_rule, fd, LANDLOCK_RULE_PATH_BENEATH, &folder, 0) == 0 &&
              prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
              syscall(__NR_landlock_restrict_self, fd, 0) == 0;
    close(fd);
    return is_done;
}

/* ---- namespace ---- */

static bool write_file(const char *path, const char *text, int length)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool is_done = fd >= 0 && write(fd, text, (size_t)length) == length;

    if (fd >= 0)
        close(fd);
    return is_done;
}

/* A user or a group keeps its number. */
static bool keep_number(const char *path, unsigned number)
{
    char text[32];
    int length = snprintf(text, sizeof(text), "%u %u 1", number, number);

    return write_file(path, text, length);
}

static bool enter_namespace(void)
{
    unsigned user = geteuid(), group = getegid();

    if (unshare(CLONE_NEWNS) == 0)
        return true;
    return unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 &&
           write_file("/proc/self/setgroups", "deny", 4) &&
           keep_number("/proc/self/uid_map", user) && keep_number("/proc/self/gid_map", group);
}

/* A mount that hangs nowhere, of what is found in this namespace. */
static int copy_mount(const char *path, bool with_others, uint64_t attributes)
{
    unsigned below = with_others ? AT_RECURSIVE : 0;
    int copy = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | below);
    struct mount_attr set = {.attr_set = attributes};

    if (copy >= 0 && attributes) /* since 5.12; the server is careful, too */
        mount_setattr(copy, "", AT_EMPTY_PATH | below, &set, sizeof(set));
    return copy;
}

static bool use_namespace(int *folder_fd, int *proc_fd, bool read_only)
{
    uint64_t attributes = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC |
                          (read_only ? MOUNT_ATTR_RDONLY : 0);
    int folder, proc;

    if (!enter_namespace()) /* which takes the current folder with it, but no descriptor */
        return false;
    folder = copy_mount(".", true, attributes);
    proc = copy_mount("/proc/self/fd", false, 0);
    if (folder < 0 || proc < 0 || fchdir(folder) || chroot(".")) {
        close(folder);
        close(proc);
        return false;
    }
    close(*folder_fd);
    close(*proc_fd);
    *folder_fd = folder;
    *proc_fd = proc;
    return true;
}

unsigned host_confine(unsigned ways, int *folder_fd, int *proc_fd, bool read_only)
{
    unsigned used = 0;

    if (fchdir(*folder_fd))
        return 0;
    if (ways & HOST_CONFINE_NAMESPACE && use_namespace(folder_fd, proc_fd, read_only))
        used |= HOST_CONFINE_NAMESPACE;
    if (ways & HOST_CONFINE_FOLDER && use_landlock(*folder_fd, read_only))
        used |= HOST_CONFINE_FOLDER;
    return used;
}
