/*
 * internal.h - what the files of the SCSI command set share
 */
#ifndef DEVICES_SCSI_INTERNAL_H
#define DEVICES_SCSI_INTERNAL_H

#include "devices/scsi/scsi.h"

/* disk.c: ends of a request, which is the transport's again. */
void scsi_end(struct scsi_request *r, uint32_t sense); /* enum scsi_sense */
/* Data from the unit, of which the guest wants no more than allocation_bytes. */
void scsi_reply(struct scsi_request *r, const void *data, size_t size_bytes,
                uint64_t allocation_bytes);
/* Data for the unit. False: there is less; the request has ended. */
bool scsi_take(struct scsi_request *r, void *out, size_t size_bytes);
bool scsi_has_write_cache(const struct scsi_disk *disk); /* if it is not written through */

/* inquiry.c */
void scsi_inquiry(struct scsi_request *r);
void scsi_report_luns(struct scsi_request *r);

/* mode.c */
void scsi_mode_sense(struct scsi_request *r);
void scsi_mode_select(struct scsi_request *r);

#endif
