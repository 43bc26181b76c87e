/*
 * run_vsock.c - sockets between the guest of trapeze run and the host
 */
#include "cli/run.h"

#include <errno.h>
#include <string.h>

#include "devices/devices.h"
#include "trapeze/device.h"
#include "trapeze/machine.h"
#include "trapeze/vsock.h"

#define FIRST_CID 3u
#define LAST_CID  0xfffffffeu

/* "CID,PATH". *out_path points into text. */
static int parse(const char *text, uint64_t *out_cid, const char **out_path, struct error *err)
{
    const char *comma = strchr(text, ',');
    char number[16];

    if (!comma || !comma[1])
        return error_set(err, EINVAL, "write CID,PATH, like 3,vm.vsock");
    snprintf(number, sizeof(number), "%.*s", (int)(comma - text), text);
    *out_path = comma + 1;
    if (comma - text >= (ptrdiff_t)sizeof(number) ||
        property_parse_u64(number, LAST_CID, out_cid, err) || *out_cid < FIRST_CID)
        return error_set(err, EINVAL, "CID can be %u to %u", FIRST_CID, LAST_CID);
    return 0;
}

int run_check_vsock(const char *text, struct error *err)
{
    const char *path;
    uint64_t cid;

    return text ? parse(text, &cid, &path, err) : 0;
}

int run_open_vsock(struct vsock **out, const char *text, bool sandboxed, struct error *err)
{
    const char *path = NULL;
    uint64_t cid;

    if (!text)
        return 0;
    if (parse(text, &cid, &path, err))
        return -EINVAL;
    *out = vsock_open(path, sandboxed, err);
    if (*out)
        return 0;
    error_prefix(err, "--vsock %s: ", text);
    return -EINVAL;
}

int run_add_vsock(struct vsock *vsock, struct machine *machine, const char *text, struct error *err)
{
    const char *path;
    struct device *dev;
    uint64_t cid;

    if (!text)
        return 0;
    if (parse(text, &cid, &path, err) || vsock_start(vsock, machine_loop(machine), err))
        return -EINVAL;
    dev = device_new(machine, &virtio_vsock_class, NULL, err);
    return dev && !device_set_u64(dev, "cid", cid, err) &&
                   !device_set_pointer(dev, "host", vsock, err) && !device_attach(dev, err)
               ? 0
               : -EINVAL;
}
