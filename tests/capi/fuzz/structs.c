#include <stdlib.h>
#include <string.h>

#include "structs.h"

enum { PIXEL_BYTES = 40000, PLANE_BYTES = 50000, ROOM = 6, BLOCKS = 512 };

static void *blocks[BLOCKS];
static int block_count;

void *make_block(size_t size)
{
    void *block = block_count < BLOCKS ? calloc(1, size ? size : 1) : NULL;

    if (!block)
        abort();
    return blocks[block_count++] = block;
}

int has_room(void)
{
    return block_count < BLOCKS - 64;
}

void free_blocks(void)
{
    while (block_count > 0)
        free(blocks[--block_count]);
}

const char *take_text(struct bytes *bytes, const char *usual)
{
    static const char *const TEXTS[] = {"",     "cpu",      "cuda:9", "\xff\xfe", "fail 5",
                                        "%s%n", "openvino", "fp32",   "nonsense"};
    char *block;

    switch (take_below(bytes, 6)) {
    case 0:
        return NULL;
    case 1:
        return TEXTS[take_below(bytes, sizeof TEXTS / sizeof *TEXTS)];
    case 2:
        block = make_block(5000);
        memset(block, 'a' + (int)take_below(bytes, 200), take_below(bytes, 2) ? 4999 : 8);
        return block;
    default:
        return usual;
    }
}

/* Copy a struct into a block that is as long as struct_size says. */
void *shorten(struct bytes *bytes, const void *whole, size_t size)
{
    uint32_t struct_size = (uint32_t)take_or(bytes, 24, (int64_t)size);
    size_t length = struct_size < size ? struct_size : size;
    uint8_t *block = make_block(length < 4 ? 4 : length);

    memcpy(block, whole, length < 4 ? 4 : length);
    memcpy(block, &struct_size, sizeof struct_size);
    return block;
}

static int64_t get_pixel_bytes(uint32_t format)
{
    static const int64_t BYTES[] = {0, 1, 2, 3, 3, 4, 4, 6, 6};

    return format < sizeof BYTES / sizeof *BYTES ? BYTES[format] : 0;
}

/* What is wrong with an image, by the header; 0: nothing. */
int has_flaw(const ndp_rt_image *image)
{
    int64_t row_bytes = get_pixel_bytes(image->pixel_format) * image->width_px;

    return row_bytes <= 0 || image->height_px < 1 || !image->pixels || image->stride_bytes < row_bytes
           || (int64_t)image->width_px * image->height_px > INT32_MAX || image->memory > 1
           || image->struct_size != sizeof *image;
}

ndp_rt_image *take_image(struct bytes *bytes, int may_be_null)
{
    ndp_rt_image image = {0};
    __int128 extent;

    if (may_be_null && take_below(bytes, 24) == 1)
        return NULL;
    image.pixel_format = (uint32_t)take_or(bytes, 12, 1 + take_below(bytes, 8));
    image.width_px = (int32_t)take_or(bytes, 12, 1 + take_below(bytes, 40));
    image.height_px = (int32_t)take_or(bytes, 12, 1 + take_below(bytes, 40));
    image.stride_bytes =
        take_or(bytes, 12, get_pixel_bytes(image.pixel_format) * image.width_px + 2 * take_below(bytes, 20));
    image.memory = (uint32_t)take_or(bytes, 40, 0);
    image.deadline_ms = (uint32_t)take_or(bytes, 30, 0);
    image.cuda_stream = (void *)(uintptr_t)take_or(bytes, 60, 0);
    image.struct_size = sizeof image;
    image.pixels = &image; /* for has_flaw; whatever else is wrong with it */
    extent = (__int128)image.stride_bytes * ((int64_t)image.height_px - 1)
             + (__int128)get_pixel_bytes(image.pixel_format) * image.width_px;
    if (!has_flaw(&image) && extent > PIXEL_BYTES) { /* a lie about memory */
        image.width_px = image.height_px = 1;
        extent = get_pixel_bytes(image.pixel_format);
    }
    extent = extent < 1 || extent > PIXEL_BYTES ? 1 : extent;
    image.pixels = memset(make_block((size_t)extent), (int)take_below(bytes, 256), (size_t)extent);
    if (take_below(bytes, 40) == 1)
        image.pixels = NULL;
    else if (take_below(bytes, 40) == 1 && image.width_px > 1) { /* not aligned */
        image.width_px--;
        image.pixels = (const uint8_t *)image.pixels + 1;
    }
    return shorten(bytes, &image, sizeof image);
}

/* Fill in a buffer of exactly `capacity` bytes where the struct claims a positive one. */
static void *take_plane(struct bytes *bytes, int64_t row_bytes, int32_t height_px, int64_t *stride, int64_t *capacity)
{
    uint8_t *block;

    *stride = take_or(bytes, 12, row_bytes + 4 * take_below(bytes, 8));
    *capacity = take_or(bytes, 12, *stride > 0 && *stride < PLANE_BYTES ? *stride * height_px : 0);
    if (*capacity > PLANE_BYTES)
        *capacity = PLANE_BYTES;
    if (take_below(bytes, 4) == 1)
        return NULL;
    block = make_block(*capacity > 0 ? (size_t)*capacity : 1);
    if (take_below(bytes, 40) == 1 && *capacity > 8) {
        *capacity -= 1;
        block++; /* not aligned */
    }
    return block;
}

ndp_rt_result *take_result(struct bytes *bytes, const ndp_rt_image *image, int may_be_null)
{
    int is_small = image && image->struct_size == sizeof *image && image->width_px > 0 && image->width_px < 5000
                   && image->height_px > 0 && image->height_px < 5000;
    int32_t width_px = is_small ? image->width_px : 8, height_px = is_small ? image->height_px : 8;
    ndp_rt_result result = {0};
    size_t defect_bytes;

    if (may_be_null && take_below(bytes, 24) == 1)
        return NULL;
    result.map = take_plane(bytes, width_px * 4, height_px, &result.map_stride_bytes, &result.map_capacity_bytes);
    result.mask = take_plane(bytes, width_px, height_px, &result.mask_stride_bytes, &result.mask_capacity_bytes);
    defect_bytes = take_below(bytes, 3) == 1 ? offsetof(ndp_rt_defect, first_point) : sizeof(ndp_rt_defect);
    result.defect_struct_size = (uint32_t)take_or(bytes, 24, (int64_t)defect_bytes);
    result.defect_capacity = (uint32_t)take_or(bytes, 12, take_below(bytes, ROOM));
    if (result.defect_capacity > ROOM)
        result.defect_capacity = ROOM;
    if (take_below(bytes, 3))
        result.defects =
            make_block(result.defect_capacity
                       * (result.defect_struct_size == defect_bytes ? defect_bytes : sizeof(ndp_rt_defect)));
    result.point_capacity = (uint32_t)take_or(bytes, 12, take_below(bytes, ROOM));
    if (result.point_capacity > ROOM)
        result.point_capacity = ROOM;
    if (take_below(bytes, 3) == 1)
        result.points = make_block(result.point_capacity * sizeof(ndp_rt_point));
    result.reserved = (uint32_t)take_or(bytes, 60, 0);
    if (take_below(bytes, 4) == 1) { /* as ABI 1.0 had it */
        result.struct_size = offsetof(ndp_rt_result, points);
        return memcpy(make_block(result.struct_size), &result, result.struct_size);
    }
    return shorten(bytes, &result, sizeof result);
}
