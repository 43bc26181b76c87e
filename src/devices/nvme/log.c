/*
 * log.c - log pages: errors, SMART and health, firmware slots
 *
 * The specification, 5.14. Reading a log lets events of its kind be reported again.
 */
#include <string.h>

#include "base/bytes.h"
#include "devices/nvme/nvme.h"

#define LOG_ERRORS       0x01u
#define LOG_SMART        0x02u
#define LOG_FIRMWARE     0x03u
#define LOG_BYTES        512u /* of the others */
#define ERROR_BYTES      64u
#define RETAIN_EVENT     0x8000u
#define DATA_UNIT        1000u /* sectors */
#define SPARE_PERCENT    100u
#define SPARE_THRESHOLD  10u
#define COMMAND_SPECIFIC 0xffffu /* where the error is in the command: not said */

void nvme_log_error(struct nvme *s, const struct nvme_request *r, uint16_t status)
{
    memmove(s->error_log + 1, s->error_log, sizeof(s->error_log) - sizeof(s->error_log[0]));
    s->error_log[0] = (struct nvme_error_entry){
        .count = ++s->counters.errors,
        .lba = r->sq ? (r->command.dword[10] | (uint64_t)r->command.dword[11] << 32) : 0,
        .nsid = r->command.nsid,
        .sq = r->sq,
        .cid = r->command.cid,
        .status = (uint16_t)(status << 1),
    };
}

static void fill_errors(const struct nvme *s, uint8_t *page)
{
    for (unsigned n = 0; n < NVME_ERROR_LOG && s->error_log[n].count; n++, page += ERROR_BYTES) {
        const struct nvme_error_entry *entry = &s->error_log[n];

        put_le64(page, entry->count);
        put_le16(page + 8, entry->sq);
        put_le16(page + 10, entry->cid);
        put_le16(page + 12, entry->status);
        put_le16(page + 14, COMMAND_SPECIFIC);
        put_le64(page + 16, entry->lba);
        put_le32(page + 24, entry->nsid);
    }
}

static uint64_t data_units(uint64_t sectors)
{
    return sectors / DATA_UNIT + (sectors % DATA_UNIT != 0);
}

/* Numbers have 16 bytes each. */
static void fill_smart(const struct nvme *s, uint8_t *page)
{
    page[0] = nvme_critical_warning(s);
    put_le16(page + 1, NVME_TEMPERATURE_K);
    page[3] = SPARE_PERCENT;
    page[4] = SPARE_THRESHOLD;
    put_le64(page + 32, data_units(s->counters.read_sectors));
    put_le64(page + 48, data_units(s->counters.written_sectors));
    put_le64(page + 64, s->counters.reads);
    put_le64(page + 80, s->counters.writes);
    put_le64(page + 112, 1); /* power cycles */
    put_le64(page + 160, s->counters.media_errors);
    put_le64(page + 176, s->counters.errors);
}

static void fill_firmware(uint8_t *page)
{
    page[0] = 1; /* the slot that runs */
    memcpy(page + 8, "1.0     ", 8);
}

static void end_event(struct nvme *s, unsigned type)
{
    s->events[type].masked = false;
    nvme_send_events(s);
}

uint16_t nvme_get_log_page(struct nvme_request *r)
{
    const uint32_t *dword = r->command.dword;
    uint8_t page[NVME_ERROR_LOG * ERROR_BYTES] = {0};
    uint64_t size = ((dword[10] >> 16) + ((uint64_t)(dword[11] & 0xffff) << 16) + 1) * 4;
    uint64_t offset = dword[12] | (uint64_t)dword[13] << 32, page_bytes = LOG_BYTES;
    unsigned log = dword[10] & 0xff;
    uint16_t status;

    if (log < LOG_ERRORS || log > LOG_FIRMWARE)
        return NVME_LOG_PAGE;
    if (log == LOG_ERRORS)
        page_bytes = sizeof(page);
    if (offset % 4 || offset > page_bytes)
        return NVME_INVALID_FIELD;
    if (log == LOG_SMART && r->command.nsid && r->command.nsid != NVME_ALL_NAMESPACES)
        return NVME_INVALID_FIELD; /* there is none for a namespace */
    if (log == LOG_ERRORS)
        fill_errors(r->s, page);
    else if (log == LOG_SMART)
        fill_smart(r->s, page);
    else
        fill_firmware(page);
    if (size > page_bytes - offset)
        size = page_bytes - offset;
    status = nvme_map_data(r, size);
    if (status)
        return status;
    nvme_copy_to_guest(r, page + offset, size);
    if (log != LOG_FIRMWARE && !(dword[10] & RETAIN_EVENT))
        end_event(r->s, log == LOG_ERRORS ? NVME_EVENT_ERROR : NVME_EVENT_SMART);
    return NVME_OK;
}
