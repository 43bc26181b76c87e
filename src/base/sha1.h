/*
 * sha1.h - the hash that WebSocket's handshake wants (RFC 3174). Not fit for anything secret.
 */
#ifndef BASE_SHA1_H
#define BASE_SHA1_H

#include <stddef.h>
#include <stdint.h>

#define SHA1_BYTES 20u

void sha1(const void *data, size_t size, uint8_t out[SHA1_BYTES]);

#endif
