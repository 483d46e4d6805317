/* Images from files of raw pixels, buffers for results, and whether what they hold is right. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"

enum { DEFECT_CAPACITY = 4096 };

static const struct {
    const char *name;
    uint32_t pixel_format;
    int64_t pixel_bytes;
} FORMATS[] = {{"grey8", NDP_RT_PIXEL_GREY8, 1}, {"grey16", NDP_RT_PIXEL_GREY16, 2}, {"rgb8", NDP_RT_PIXEL_RGB8, 3},
               {"bgr8", NDP_RT_PIXEL_BGR8, 3},   {"rgba8", NDP_RT_PIXEL_RGBA8, 4},   {"bgra8", NDP_RT_PIXEL_BGRA8, 4},
               {"rgb16", NDP_RT_PIXEL_RGB16, 6}, {"bgr16", NDP_RT_PIXEL_BGR16, 6}};

/* Read a whole file of a known size. */
static void *read_pixels(const char *path, size_t byte_count)
{
    FILE *file = fopen(path, "rb");
    void *pixels = take_memory(byte_count, 1);
    size_t read = file ? fread(pixels, 1, byte_count + 1, file) : 0;

    if (file)
        fclose(file);
    if (read != byte_count)
        fail("%s cannot be read, or does not have %zu bytes.", path, byte_count);
    return pixels;
}

void load_picture(struct picture *picture, const char *path, const char *format, int32_t width_px, int32_t height_px)
{
    ndp_rt_image *image = &picture->image;
    size_t i;

    memset(picture, 0, sizeof *picture);
    for (i = 0; i < sizeof FORMATS / sizeof *FORMATS; i++)
        if (strcmp(FORMATS[i].name, format) == 0) {
            image->struct_size = sizeof *image;
            image->pixel_format = FORMATS[i].pixel_format;
            image->width_px = width_px;
            image->height_px = height_px;
            image->stride_bytes = width_px * FORMATS[i].pixel_bytes;
            image->pixels = read_pixels(path, (size_t)(image->stride_bytes * height_px));
            return;
        }
    fail("pixel format '%s' is not known.", format);
}

void make_outputs(struct outputs *outputs, const struct picture *picture, int wanted)
{
    ndp_rt_result *result = &outputs->result;
    int64_t width = picture->image.width_px, height = picture->image.height_px;

    memset(outputs, 0, sizeof *outputs);
    outputs->wanted = wanted;
    result->struct_size = sizeof *result;
    if (wanted & WANTS_MAP) {
        result->map_stride_bytes = width * (int64_t)sizeof(float);
        result->map_capacity_bytes = result->map_stride_bytes * height;
        result->map = take_memory((size_t)result->map_capacity_bytes, 1);
    }
    if (wanted & WANTS_MASK) {
        result->mask_stride_bytes = width;
        result->mask_capacity_bytes = width * height;
        result->mask = take_memory((size_t)result->mask_capacity_bytes, 1);
    }
    if (wanted & WANTS_DEFECTS) {
        result->defect_struct_size = sizeof(ndp_rt_defect);
        result->defect_capacity = DEFECT_CAPACITY;
        result->defects = take_memory(DEFECT_CAPACITY, sizeof(ndp_rt_defect));
    }
    clear_outputs(outputs); /* also touches every page, so that none comes into memory inside a clock */
}

void free_outputs(struct outputs *outputs)
{
    free(outputs->result.map);
    free(outputs->result.mask);
    free(outputs->result.defects);
    memset(outputs, 0, sizeof *outputs);
}

void clear_outputs(struct outputs *outputs)
{
    ndp_rt_result *result = &outputs->result;

    result->score = -1;
    result->total_ms = -1;
    if (result->map)
        memset(result->map, 0xff, (size_t)result->map_capacity_bytes);
    if (result->mask)
        memset(result->mask, 0x55, (size_t)result->mask_capacity_bytes);
}

void spoil_outputs(struct outputs *outputs)
{
    ndp_rt_result *result = &outputs->result;
    size_t i;

    result->score = -1;
    result->total_ms = -1;
    for (i = 1; i <= 3; i++) { /* a value in each quarter's end */
        if (result->map)
            result->map[(size_t)result->map_capacity_bytes / sizeof(float) * i / 4] = -1;
        if (result->mask)
            result->mask[(size_t)result->mask_capacity_bytes * i / 4] = 0x55;
    }
}

/* Each value's bits times an odd number of its place's own, modulo 2^64: one wrong value, or two that changed places,
   give another sum. */
static uint64_t sum_map(const float *map, size_t count)
{
    uint64_t sum = 0;
    uint32_t bits;
    size_t i;

    for (i = 0; i < count; i++) {
        memcpy(&bits, &map[i], sizeof bits);
        sum += bits * (uint64_t)(2 * i + 1);
    }
    return sum;
}

static uint64_t sum_mask(const uint8_t *mask, size_t count)
{
    uint64_t sum = 0;
    size_t i;

    for (i = 0; i < count; i++)
        sum += mask[i] * (uint64_t)(2 * i + 1);
    return sum;
}

struct answer read_answer(const struct outputs *outputs)
{
    const ndp_rt_result *result = &outputs->result;
    struct answer answer = {.score = result->score};

    if (result->map)
        answer.map_sum = sum_map(result->map, (size_t)result->map_capacity_bytes / sizeof(float));
    if (result->mask)
        answer.mask_sum = sum_mask(result->mask, (size_t)result->mask_capacity_bytes);
    answer.defect_count = result->defect_count;
    return answer;
}

void write_answer(const struct answer *answer)
{
    uint64_t bits;

    memcpy(&bits, &answer->score, sizeof bits);
    fprintf(answers,
            "{\"score\": \"%016" PRIx64 "\", \"map_sum\": \"%016" PRIx64 "\", \"mask_sum\": \"%016" PRIx64
            "\", \"defect_count\": %" PRIu32 "}",
            bits, answer->map_sum, answer->mask_sum, answer->defect_count);
}

void check_answer(const struct outputs *outputs, const struct answer *expected, size_t index, const char *how)
{
    struct answer found = read_answer(outputs);

    if (memcmp(&found.score, &expected->score, sizeof found.score) != 0)
        fail("a wrong answer: picture %zu %s scored %.17g; %.17g is expected.", index, how, found.score,
             expected->score);
    if (outputs->wanted & WANTS_MAP && found.map_sum != expected->map_sum)
        fail("a wrong answer: picture %zu %s gave a map with checksum %016" PRIx64 "; %016" PRIx64 " is expected.",
             index, how, found.map_sum, expected->map_sum);
    if (outputs->wanted & WANTS_MASK && found.mask_sum != expected->mask_sum)
        fail("a wrong answer: picture %zu %s gave a mask with checksum %016" PRIx64 "; %016" PRIx64 " is expected.",
             index, how, found.mask_sum, expected->mask_sum);
    if (found.defect_count != expected->defect_count)
        fail("a wrong answer: picture %zu %s gave %" PRIu32 " defects; %" PRIu32 " are expected.", index, how,
             found.defect_count, expected->defect_count);
}
