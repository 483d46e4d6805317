/* Checks what callers pass, before anything else happens, and copies it into this build's layout. */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

#define MAX_PIXELS     INT32_MAX
#define MAX_BATCH_SIZE 4096
#define ADDRESS_END    ((uint64_t)1 << 57) /* of a process, on any 64-bit Linux */
#define MIN_MM         1e-9                /* between these, an area in mm2 is a number */
#define MAX_MM         1e9

ndp_rt_status ndp_check_size(const char *name, uint32_t struct_size, size_t first, size_t known)
{
    if (struct_size == first || struct_size == known)
        return NDP_RT_STATUS_OK;
    if (struct_size > known)
        return ndp_fail(NDP_RT_STATUS_ABI,
                        "struct_size of %s: expected up to %zu by libndp_rt.so " NDP_VERSION
                        " (ABI %d.%d), got %u. It is "
                        "older than your ndp_rt.h: install the one that the header came with.",
                        name, known, NDP_RT_ABI_MAJOR, NDP_RT_ABI_MINOR, struct_size);
    return ndp_fail(NDP_RT_STATUS_ABI,
                    "struct_size of %s: expected sizeof the struct, which is %zu, got %u. Set it before the call.",
                    name, known, struct_size);
}

static ndp_rt_status check_reserved(uint32_t reserved)
{
    if (reserved == 0)
        return NDP_RT_STATUS_OK;
    return ndp_fail(NDP_RT_STATUS_INPUT, "reserved of result: expected 0, got %u. Set the whole struct to zero first.",
                    reserved);
}

static ndp_rt_status move_deadline(ndp_rt_image *image, uint32_t *deadline_ms)
{
    if (image->deadline_ms != 0 && !deadline_ms)
        return ndp_fail(NDP_RT_STATUS_INPUT,
                        "deadline_ms of image: expected 0 but in ndp_rt_inspector_submit, got %u. Set the whole struct "
                        "to zero first.",
                        image->deadline_ms);
    if (deadline_ms)
        *deadline_ms = image->deadline_ms;
    image->deadline_ms = 0;
    return NDP_RT_STATUS_OK;
}

/* Refuse a number of threads that would keep the host waiting for minutes, or bring it down. */
static ndp_rt_status check_threads(int32_t threads)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN), most = processors > 64 ? processors : 64;

    if (threads >= 0 && threads <= most)
        return NDP_RT_STATUS_OK;
    return ndp_fail(NDP_RT_STATUS_INPUT,
                    "threads: expected 1 to %ld on this machine, which has %ld processors, or 0 to let the backend "
                    "choose, got %d.",
                    most, processors, threads);
}

static ndp_rt_status check_batch_sizes(const ndp_rt_open_options *options)
{
    uint32_t i;

    if (options->batch_size_count > 64)
        return ndp_fail(NDP_RT_STATUS_INPUT, "batch_size_count: expected up to 64, got %u.", options->batch_size_count);
    if (options->batch_size_count > 0 && !options->batch_sizes)
        return ndp_fail(NDP_RT_STATUS_INPUT,
                        "batch_sizes: expected an array of batch_size_count, which is %u, got NULL.",
                        options->batch_size_count);
    for (i = 0; i < options->batch_size_count; i++)
        if (options->batch_sizes[i] < 1 || options->batch_sizes[i] > MAX_BATCH_SIZE)
            return ndp_fail(NDP_RT_STATUS_INPUT, "batch_sizes[%u]: expected 1 to %d, got %d.", i, MAX_BATCH_SIZE,
                            options->batch_sizes[i]);
    return NDP_RT_STATUS_OK;
}

static ndp_rt_status check_numbers(const ndp_rt_open_options *options)
{
    if (options->flags & NDP_RT_OPEN_THRESHOLD && isnan(options->threshold))
        return ndp_fail(NDP_RT_STATUS_INPUT,
                        "threshold: expected a number, or infinity to let everything pass, got NaN. "
                        "Leave NDP_RT_OPEN_THRESHOLD out for the bundle's own.");
    if (options->mm_per_pixel != 0 && !(options->mm_per_pixel >= MIN_MM && options->mm_per_pixel <= MAX_MM))
        return ndp_fail(NDP_RT_STATUS_INPUT, "mm_per_pixel: expected %g to %g, or 0 where it is not known, got %g.",
                        MIN_MM, MAX_MM, options->mm_per_pixel);
    if (options->queue_capacity > 65536)
        return ndp_fail(NDP_RT_STATUS_INPUT, "queue_capacity: expected up to 65536, or 0 for 16, got %u.",
                        options->queue_capacity);
    if (options->white_level_16bit > 65535)
        return ndp_fail(NDP_RT_STATUS_INPUT, "white_level_16bit: expected up to 65535, or 0 for the bundle's, got %u.",
                        options->white_level_16bit);
    if (options->smallest_area_px < 0 || options->smallest_area_px > MAX_PIXELS)
        return ndp_fail(NDP_RT_STATUS_INPUT, "smallest_area_px: expected up to %d, or 0 where all count, got %lld.",
                        MAX_PIXELS, (long long)options->smallest_area_px);
    if (!(options->smallest_area_mm2 >= 0) || isinf(options->smallest_area_mm2))
        return ndp_fail(NDP_RT_STATUS_INPUT, "smallest_area_mm2: expected an area, or 0 where all count, got %g.",
                        options->smallest_area_mm2);
    return NDP_RT_STATUS_OK;
}

ndp_rt_status ndp_read_options(const ndp_rt_open_options *from, ndp_rt_open_options *to)
{
    const uint32_t all_flags = NDP_RT_OPEN_THRESHOLD | NDP_RT_OPEN_NO_BUILD | NDP_RT_OPEN_FALLBACK
                               | NDP_RT_OPEN_NEWEST_WINS | NDP_RT_OPEN_CONTOURS;
    ndp_rt_status status;

    memset(to, 0, sizeof *to);
    if (!from)
        return NDP_RT_STATUS_OK;
    status = ndp_check_size("options", from->struct_size, offsetof(ndp_rt_open_options, require_signature), sizeof *to);
    if (status != NDP_RT_STATUS_OK)
        return status;
    memcpy(to, from, from->struct_size);
    to->struct_size = sizeof *to;
    if (to->flags & ~all_flags)
        return ndp_fail(NDP_RT_STATUS_INPUT, "flags: expected a sum of NDP_RT_OPEN_ values, got %#x.", to->flags);
    status = check_threads(to->threads);
    if (status == NDP_RT_STATUS_OK)
        status = check_batch_sizes(to);
    if (status == NDP_RT_STATUS_OK)
        status = check_numbers(to);
    return status;
}

/* Return the bytes of a pixel, or 0 for a format that is refused. */
static int32_t get_pixel_bytes(uint32_t format)
{
    switch (format) {
    case NDP_RT_PIXEL_GREY8:
        return 1;
    case NDP_RT_PIXEL_GREY16:
        return 2;
    case NDP_RT_PIXEL_RGB8:
    case NDP_RT_PIXEL_BGR8:
        return 3;
    case NDP_RT_PIXEL_RGBA8:
    case NDP_RT_PIXEL_BGRA8:
        return 4;
    case NDP_RT_PIXEL_RGB16:
    case NDP_RT_PIXEL_BGR16:
        return 6;
    default:
        return 0;
    }
}

static bool has_16_bits(uint32_t format)
{
    return format == NDP_RT_PIXEL_GREY16 || format == NDP_RT_PIXEL_RGB16 || format == NDP_RT_PIXEL_BGR16;
}

static ndp_rt_status check_format(uint32_t format)
{
    if (format >= NDP_RT_PIXEL_BAYER_RG8 && format <= NDP_RT_PIXEL_BAYER_BG8)
        return ndp_fail(
            NDP_RT_STATUS_INPUT,
            "pixel_format: expected grey, RGB, BGR, RGBA or BGRA, got %u, a Bayer mosaic. "
            "Demosaic it to the colours that the bundle was trained on (in the camera or the grabber's library), "
            "and pass NDP_RT_PIXEL_RGB8.",
            format);
    if (get_pixel_bytes(format) == 0)
        return ndp_fail(NDP_RT_STATUS_INPUT,
                        "pixel_format: expected one of the NDP_RT_PIXEL_ values, such as NDP_RT_PIXEL_GREY8, got %u.",
                        format);
    return NDP_RT_STATUS_OK;
}

/* Tell whether memory of this size can begin at an address. */
static bool fits_address_space(const void *start, int64_t size)
{
    return (uintptr_t)start < ADDRESS_END && (uint64_t)size <= ADDRESS_END - (uintptr_t)start;
}

ndp_rt_status ndp_read_image(const ndp_rt_image *from, ndp_rt_image *to, uint32_t *deadline_ms)
{
    ndp_rt_status status;
    int64_t row_bytes;

    if (!from)
        return ndp_fail(NDP_RT_STATUS_INPUT, "image: expected an ndp_rt_image, got NULL.");
    status = ndp_check_size("image", from->struct_size, sizeof *to, sizeof *to);
    if (status != NDP_RT_STATUS_OK)
        return status;
    memcpy(to, from, sizeof *to);
    status = check_format(to->pixel_format);
    if (status != NDP_RT_STATUS_OK)
        return status;
    if (!to->pixels)
        return ndp_fail(NDP_RT_STATUS_INPUT, "pixels: expected the address of the image's first pixel, got NULL.");
    if (to->width_px < 1 || to->height_px < 1)
        return ndp_fail(NDP_RT_STATUS_INPUT, "image: expected a width and a height of 1 or more, got %d and %d.",
                        to->width_px, to->height_px);
    if ((int64_t)to->width_px * to->height_px > MAX_PIXELS)
        return ndp_fail(NDP_RT_STATUS_INPUT,
                        "image: expected up to 2147483647 pixels in all, got %d x %d. Pass it in parts.", to->width_px,
                        to->height_px);
    row_bytes = (int64_t)to->width_px * get_pixel_bytes(to->pixel_format);
    if (to->stride_bytes < row_bytes || to->stride_bytes > INT64_MAX / to->height_px)
        return ndp_fail(NDP_RT_STATUS_INPUT,
                        "stride_bytes: expected %lld, the bytes of a row of %d pixels, or more, got %lld. "
                        "Turn images that are stored bottom up first.",
                        (long long)row_bytes, to->width_px, (long long)to->stride_bytes);
    if (!fits_address_space(to->pixels, to->stride_bytes * (to->height_px - 1) + row_bytes))
        return ndp_fail(NDP_RT_STATUS_INPUT,
                        "pixels: expected %d rows of stride_bytes %lld within the address space, got %p.",
                        to->height_px, (long long)to->stride_bytes, to->pixels);
    if (has_16_bits(to->pixel_format) && ((uintptr_t)to->pixels % 2 || to->stride_bytes % 2))
        return ndp_fail(NDP_RT_STATUS_INPUT,
                        "pixels and stride_bytes: expected even ones for 16 bits, got %p and %lld.", to->pixels,
                        (long long)to->stride_bytes);
    if (to->memory != NDP_RT_MEMORY_HOST && to->memory != NDP_RT_MEMORY_CUDA)
        return ndp_fail(NDP_RT_STATUS_INPUT, "memory: expected NDP_RT_MEMORY_HOST or NDP_RT_MEMORY_CUDA, got %u.",
                        to->memory);
    return move_deadline(to, deadline_ms);
}

/* Check one plane of results and write its size to *needed. */
static ndp_rt_status check_plane(const char *name, const void *plane, int64_t stride, int64_t capacity,
                                 int64_t value_bytes, const ndp_rt_image *image, int64_t *needed)
{
    int64_t row_bytes = image->width_px * value_bytes, bytes;

    if (!plane)
        return NDP_RT_STATUS_OK;
    if (stride < row_bytes || stride > INT64_MAX / image->height_px || stride % value_bytes
        || (uintptr_t)plane % value_bytes)
        return ndp_fail(NDP_RT_STATUS_INPUT, "%s_stride_bytes: expected %lld or more%s, got %lld and %s at %p.", name,
                        (long long)row_bytes, value_bytes > 1 ? ", and it and the address multiples of 4" : "",
                        (long long)stride, name, plane);
    bytes = stride * (image->height_px - 1) + row_bytes;
    if (!fits_address_space(plane, bytes))
        return ndp_fail(NDP_RT_STATUS_INPUT,
                        "%s: expected %d rows of %s_stride_bytes %lld within the address space, got %p.", name,
                        image->height_px, name, (long long)stride, plane);
    *needed = bytes;
    if (capacity < bytes)
        return ndp_fail(NDP_RT_STATUS_BUFFER_TOO_SMALL,
                        "%s_capacity_bytes: expected %lld for %d x %d pixels, got %lld.", name, (long long)bytes,
                        image->width_px, image->height_px, (long long)capacity);
    return NDP_RT_STATUS_OK;
}

/* Check the lists of a result in this build's layout. */
static ndp_rt_status check_lists(const ndp_rt_result *result)
{
    ndp_rt_status status = NDP_RT_STATUS_OK;

    if (result->defects)
        status = ndp_check_size("defect", result->defect_struct_size, offsetof(ndp_rt_defect, first_point),
                                sizeof(ndp_rt_defect));
    if (status != NDP_RT_STATUS_OK)
        return status;
    if ((uintptr_t)result->defects % _Alignof(ndp_rt_defect))
        return ndp_fail(NDP_RT_STATUS_INPUT, "defects: expected an address of ndp_rt_defect structs, got %p.",
                        (void *)result->defects);
    if ((uintptr_t)result->points % _Alignof(ndp_rt_point))
        return ndp_fail(NDP_RT_STATUS_INPUT, "points: expected an address of ndp_rt_point structs, got %p.",
                        (void *)result->points);
    if (result->points && (!result->defects || result->defect_struct_size != sizeof(ndp_rt_defect)))
        return ndp_fail(
            NDP_RT_STATUS_INPUT,
            "points: expected `defects` beside it, whose defect_struct_size is %zu, to say which outline is "
            "whose, got %p and %u.",
            sizeof(ndp_rt_defect), (void *)result->defects, result->defect_struct_size);
    return check_reserved(result->reserved);
}

ndp_rt_status ndp_read_result(ndp_rt_result *from, const ndp_rt_image *image, ndp_rt_result *to)
{
    ndp_rt_status status, mask_status;

    if (!from)
        return ndp_fail(NDP_RT_STATUS_INPUT, "result: expected an ndp_rt_result, got NULL.");
    status = ndp_check_size("result", from->struct_size, offsetof(ndp_rt_result, points), sizeof *to);
    if (status != NDP_RT_STATUS_OK)
        return status;
    memset(to, 0, sizeof *to);
    memcpy(to, from, from->struct_size);
    to->struct_size = sizeof *to;
    status = check_lists(to);
    if (status != NDP_RT_STATUS_OK)
        return status;
    /* Both, so that both sizes are written; the map last, so that the message that stays goes with the status. */
    mask_status = check_plane("mask", from->mask, from->mask_stride_bytes, from->mask_capacity_bytes, 1, image,
                              &from->mask_needed_bytes);
    status = check_plane("map", from->map, from->map_stride_bytes, from->map_capacity_bytes, sizeof(float), image,
                         &from->map_needed_bytes);
    if (status == NDP_RT_STATUS_OK)
        status = mask_status;
    to->map_needed_bytes = from->map_needed_bytes;
    to->mask_needed_bytes = from->mask_needed_bytes;
    return status;
}

void ndp_write_result(const ndp_rt_result *from, ndp_rt_result *to)
{
    to->defect_count = from->defect_count;
    to->score = from->score;
    to->threshold = from->threshold;
    to->is_defect = from->is_defect;
    to->queue_ms = from->queue_ms;
    to->preprocess_ms = from->preprocess_ms;
    to->engine_ms = from->engine_ms;
    to->postprocess_ms = from->postprocess_ms;
    to->total_ms = from->total_ms;
    if (to->struct_size >= sizeof *to)
        to->point_count = from->point_count;
}
