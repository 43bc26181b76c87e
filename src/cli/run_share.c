/*
 * run_share.c - folders of the host that the guest of trapeze run mounts
 */
#include "cli/run.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "devices/devices.h"
#include "trapeze/machine.h"
#include "trapeze/share.h"

/* Two of one name could not be told apart. */
static int check_tag(const struct run_shares *shares, const char *tag, struct error *err)
{
    for (size_t n = 0; n < shares->count; n++)
        if (strcmp(share_tag(shares->shares[n]), tag) == 0)
            return error_set(err, EEXIST, "another one has the tag '%s'; give it one with tag=NAME",
                             tag);
    return 0;
}

static int open_share(struct run_shares *shares, const char *text, bool sandboxed,
                      struct error *err)
{
    char tag[SHARE_MAX_TAG] = "share"; /* share, share2, share3 */
    struct share *share;

    if (shares->count)
        snprintf(tag, sizeof(tag), "share%zu", shares->count + 1);
    share = share_open(text, tag, sandboxed, err);
    if (share && !check_tag(shares, share_tag(share), err)) {
        shares->shares[shares->count++] = share;
        return 0;
    }
    share_free(share);
    error_prefix(err, "--share %s: ", text);
    return -EINVAL;
}

int run_open_shares(struct run_shares *shares, const struct cli_texts *texts, bool sandboxed,
                    struct error *err)
{
    if (texts->count > RUN_MAX_SHARES)
        return error_set(err, E2BIG, "%zu shares are too many; up to %d can be given", texts->count,
                         RUN_MAX_SHARES);
    for (size_t n = 0; n < texts->count; n++)
        if (open_share(shares, texts->items[n], sandboxed, err))
            return -EINVAL;
    return 0;
}

int run_add_shares(struct run_shares *shares, struct machine *machine, struct error *err)
{
    for (size_t n = 0; n < shares->count; n++) {
        struct device *dev = device_new(machine, &virtio_9p_class, NULL, err);

        if (!dev || device_set_pointer(dev, "share", shares->shares[n], err) ||
            device_attach(dev, err))
            return -EINVAL;
        log_info("in the guest: mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 %s /mnt",
                 share_tag(shares->shares[n]));
    }
    return 0;
}

void run_free_shares(struct run_shares *shares)
{
    for (size_t n = 0; n < shares->count; n++)
        share_free(shares->shares[n]);
    shares->count = 0;
}
