/*
 * base64.c - bytes as text
 */
#include "base/base64.h"

#include <stdlib.h>
#include <string.h>

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *base64_encode(const uint8_t *data, size_t size)
{
    char *text = malloc((size + 2) / 3 * 4 + 1), *to = text;

    if (!text)
        return NULL;
    for (size_t n = 0; n < size; n += 3) {
        size_t left = size - n;
        uint32_t bits = (uint32_t)data[n] << 16 | (left > 1 ? (uint32_t)data[n + 1] << 8 : 0) |
                        (left > 2 ? data[n + 2] : 0);

        *to++ = digits[bits >> 18];
        *to++ = digits[bits >> 12 & 63];
        *to++ = left > 1 ? digits[bits >> 6 & 63] : '=';
        *to++ = left > 2 ? digits[bits & 63] : '=';
    }
    *to = '\0';
    return text;
}

uint8_t *base64_decode(const char *text, size_t *out_size)
{
    size_t length = strlen(text), used = 0;
    uint8_t *data = length % 4 ? NULL : malloc(length / 4 * 3 + 1);

    for (unsigned n = 0; n < 2 && length && text[length - 1] == '='; n++)
        length--;
    for (size_t n = 0; data && n < length; n += 4) {
        size_t count = length - n < 4 ? length - n : 4;
        uint32_t bits = 0;

        for (size_t i = 0; i < count; i++) {
            const char *digit = strchr(digits, text[n + i]);

            if (!digit) {
                free(data);
                return NULL;
            }
            bits |= (uint32_t)(digit - digits) << (18 - 6 * i);
        }
        for (size_t i = 0; i + 1 < count; i++)
            data[used++] = (uint8_t)(bits >> (16 - 8 * i));
    }
    *out_size = used;
    return data;
}
