/* PGM and PPM files, P5 and P6 of 8 and 16 bits: just enough for the examples, in C and in C++. */
#ifndef EXAMPLES_PNM_H
#define EXAMPLES_PNM_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct pnm {
    uint8_t *pixels; /* rows without gaps; 16 bits in this machine's byte order; for free() */
    int32_t width_px;
    int32_t height_px;
    int32_t channel_count; /* 1: grey, 3: RGB */
    int32_t value_bytes;   /* 1 or 2 */
} pnm;

/* Return the next character of the header; a comment counts as the end of its line. */
static inline int pnm_read_character(FILE *file)
{
    int c = getc(file);

    if (c == '#')
        while (c != '\n' && c != EOF)
            c = getc(file);
    return c;
}

static inline int pnm_is_space(int c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Return the header's next number, and skip the one character behind it; -1: there is none, or it is too large. */
static inline int64_t pnm_read_number(FILE *file)
{
    int64_t value = -1;
    int c = pnm_read_character(file);

    while (pnm_is_space(c))
        c = pnm_read_character(file);
    for (; c >= '0' && c <= '9' && value <= INT32_MAX; c = pnm_read_character(file))
        value = (value < 0 ? 0 : value * 10) + (c - '0');
    return value <= INT32_MAX && pnm_is_space(c) ? value : -1;
}

/* The file holds 16 bits with the larger byte first, the library takes them in the machine's own order. */
static inline void pnm_order_bytes(uint8_t *pixels, size_t byte_count)
{
    for (size_t i = 0; i < byte_count; i += 2) {
        const uint16_t value = (uint16_t)(pixels[i] << 8 | pixels[i + 1]);

        memcpy(pixels + i, &value, sizeof value);
    }
}

/* Read what follows the magic number. */
static inline const char *pnm_read_rest(FILE *file, pnm *image)
{
    const int64_t width = pnm_read_number(file), height = pnm_read_number(file), largest = pnm_read_number(file);
    size_t byte_count;

    if (width < 1 || height < 1 || largest < 1 || largest > 65535 || width * height > INT32_MAX)
        return "no header with a width, a height (2147483647 pixels at most) and a largest value (65535 at most)";
    image->width_px = (int32_t)width;
    image->height_px = (int32_t)height;
    image->value_bytes = largest > 255 ? 2 : 1;
    byte_count = (size_t)(width * height) * (size_t)(image->channel_count * image->value_bytes);
    image->pixels = (uint8_t *)malloc(byte_count);
    if (!image->pixels)
        return "not enough memory";
    if (fread(image->pixels, 1, byte_count, file) != byte_count) {
        free(image->pixels);
        image->pixels = NULL;
        return "the file ends before its last pixel";
    }
    if (image->value_bytes == 2)
        pnm_order_bytes(image->pixels, byte_count);
    return NULL;
}

/* Read a file; NULL, or what is wrong with it. The caller frees image->pixels. */
static inline const char *pnm_read(const char *path, pnm *image)
{
    FILE *file = fopen(path, "rb");
    char magic[2] = {0, 0};
    const char *problem = "not a PGM or PPM file that starts with P5 or P6";

    memset(image, 0, sizeof *image);
    if (!file)
        return strerror(errno);
    if (fread(magic, 1, 2, file) == 2 && magic[0] == 'P' && (magic[1] == '5' || magic[1] == '6')) {
        image->channel_count = magic[1] == '5' ? 1 : 3;
        problem = pnm_read_rest(file, image);
    }
    fclose(file);
    return problem;
}

/* Write values of 0 to 1 as a grey image of 8 bits; NULL, or what went wrong. */
static inline const char *pnm_write_map(const char *path, const float *map, int32_t width_px, int32_t height_px)
{
    const size_t count = (size_t)width_px * (size_t)height_px;
    FILE *file = fopen(path, "wb");
    int failed;

    if (!file)
        return strerror(errno);
    fprintf(file, "P5\n%d %d\n255\n", (int)width_px, (int)height_px);
    for (size_t i = 0; i < count; i++)
        putc((int)(map[i] * 255.0F + 0.5F), file);
    failed = ferror(file);
    return fclose(file) != 0 || failed ? "it cannot be written; is there space?" : NULL;
}

#endif
