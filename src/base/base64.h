/*
 * base64.h - bytes as text (RFC 4648, section 4)
 */
#ifndef BASE_BASE64_H
#define BASE_BASE64_H

#include <stddef.h>
#include <stdint.h>

/* The text, which the caller frees; NULL without memory. */
char *base64_encode(const uint8_t *data, size_t size);
/* The bytes, which the caller frees; NULL without memory or if text is no base64. */
uint8_t *base64_decode(const char *text, size_t *out_size);

#endif
