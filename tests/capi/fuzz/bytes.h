/* Choices made from a fuzzer's bytes; when they are used up, all choices are 0. */
#ifndef BYTES_H
#define BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct bytes {
    const uint8_t *next;
    size_t left;
};

static inline uint64_t take_number(struct bytes *bytes, size_t size)
{
    uint64_t number = 0;

    size = size < bytes->left ? size : bytes->left;
    memcpy(&number, bytes->next, size);
    bytes->next += size;
    bytes->left -= size;
    return number;
}

static inline unsigned take_below(struct bytes *bytes, unsigned end)
{
    return (unsigned)take_number(bytes, 1) % end;
}

/* Once in `often` times a hostile number instead of `usual`. */
static inline int64_t take_or(struct bytes *bytes, unsigned often, int64_t usual)
{
    static const int64_t EDGES[] = {0,
                                    1,
                                    -1,
                                    2,
                                    3,
                                    7,
                                    63,
                                    64,
                                    65,
                                    255,
                                    256,
                                    4096,
                                    65535,
                                    65536,
                                    INT32_MAX,
                                    INT32_MIN,
                                    1 << 30,
                                    (int64_t)UINT32_MAX,
                                    INT64_MAX,
                                    INT64_MIN,
                                    (int64_t)1 << 31,
                                    (int64_t)1 << 47,
                                    (int64_t)1 << 57,
                                    (int64_t)1 << 62};

    if (take_below(bytes, often) != 1)
        return usual;
    switch (take_below(bytes, 4)) {
    case 0:
        return usual + (int64_t)take_below(bytes, 5) - 2;
    case 1:
        return (int64_t)take_number(bytes, 8);
    default:
        return EDGES[take_below(bytes, sizeof EDGES / sizeof *EDGES)];
    }
}

#endif
