/* What callers pass: checked before anything else happens, and copied into this build's layout. */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

/* Structs end here in ABI 1.0; a later version that appends a field writes the old size into one more constant. */
#define OPTIONS_SIZE sizeof(ndp_rt_open_options)
#define IMAGE_SIZE   sizeof(ndp_rt_image)
#define RESULT_SIZE  sizeof(ndp_rt_result)

#define MAX_PIXELS     INT32_MAX
#define MAX_BATCH_SIZE 4096
#define ADDRESS_END    ((uint64_t)1 << 57) /* of a process, on any 64-bit Linux */
#define MIN_MM         1e-9                /* between these, an area in mm2 is a number */
#define MAX_MM         1e9

ndp_rt_status ndp_check_size(const char *name, uint32_t struct_size, size_t known)
{
    if (struct_size == known)
        return NDP_RT_STATUS_OK;
    if (struct_size > known)
        return ndp_fail(NDP_RT_STATUS_ABI,
                        "%s has a struct_size of %u; libndp_rt.so " NDP_VERSION " (ABI %d.%d) knows %zu "
                        "bytes. It is older than your ndp_rt.h: install the one that the header came with.",
                        name, struct_size, NDP_RT_ABI_MAJOR, NDP_RT_ABI_MINOR, known);
    return ndp_fail(NDP_RT_STATUS_ABI,
                    "%s has a struct_size of %u; sizeof the struct, which is %zu, is taken. Set it before "
                    "the call.",
                    name, struct_size, known);
}

static ndp_rt_status check_reserved(const char *name, uint32_t reserved)
{
    if (reserved == 0)
        return NDP_RT_STATUS_OK;
    return ndp_fail(NDP_RT_STATUS_INPUT, "reserved of %s is %u; 0 is taken. Set the whole struct to zero first.", name,
                    reserved);
}

/* A backend that starts a thousand threads that spin keeps the host waiting for minutes, or brings it down. */
static ndp_rt_status check_threads(int32_t threads)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN), most = processors > 64 ? processors : 64;

    if (threads >= 0 && threads <= most)
        return NDP_RT_STATUS_OK;
    return ndp_fail(NDP_RT_STATUS_INPUT,
                    "threads is %d; 1 to %ld are taken on this machine, which has %ld processors, or 0 to let the "
                    "backend choose.",
                    threads, most, processors);
}

static ndp_rt_status check_batch_sizes(const ndp_rt_open_options *options)
{
    uint32_t i;

    if (options->batch_size_count > 64)
        return ndp_fail(NDP_RT_STATUS_INPUT, "batch_size_count is %u; up to 64 are taken.", options->batch_size_count);
    if (options->batch_size_count > 0 && !options->batch_sizes)
        return ndp_fail(NDP_RT_STATUS_INPUT,
                        "batch_sizes is NULL and batch_size_count %u; an array of that many is taken.",
                        options->batch_size_count);
    for (i = 0; i < options->batch_size_count; i++)
        if (options->batch_sizes[i] < 1 || options->batch_sizes[i] > MAX_BATCH_SIZE)
            return ndp_fail(NDP_RT_STATUS_INPUT, "batch_sizes[%u] is %d; 1 to %d are taken.", i,
                            options->batch_sizes[i], MAX_BATCH_SIZE);
    return NDP_RT_STATUS_OK;
}

static ndp_rt_status check_numbers(const ndp_rt_open_options *options)
{
    if (options->flags & NDP_RT_OPEN_THRESHOLD && isnan(options->threshold))
        return ndp_fail(NDP_RT_STATUS_INPUT, "threshold is NaN; a number is taken, or infinity to let everything "
                                             "pass. Leave NDP_RT_OPEN_THRESHOLD out for the bundle's own.");
    if (options->mm_per_pixel != 0 && !(options->mm_per_pixel >= MIN_MM && options->mm_per_pixel <= MAX_MM))
        return ndp_fail(NDP_RT_STATUS_INPUT, "mm_per_pixel is %g; %g to %g is taken, or 0 where it is not known.",
                        options->mm_per_pixel, MIN_MM, MAX_MM);
    if (options->queue_capacity > 65536)
        return ndp_fail(NDP_RT_STATUS_INPUT, "queue_capacity is %u; up to 65536 is taken, or 0 for 16.",
                        options->queue_capacity);
    return NDP_RT_STATUS_OK;
}

ndp_rt_status ndp_read_options(const ndp_rt_open_options *from, ndp_rt_open_options *to)
{
    const uint32_t all_flags = NDP_RT_OPEN_THRESHOLD | NDP_RT_OPEN_NO_BUILD | NDP_RT_OPEN_FALLBACK;
    ndp_rt_status status;

    if (!from) {
        memset(to, 0, sizeof *to);
        return NDP_RT_STATUS_OK;
    }
    status = ndp_check_size("options", from->struct_size, OPTIONS_SIZE);
    if (status != NDP_RT_STATUS_OK)
        return status;
    memcpy(to, from, sizeof *to);
    if (to->flags & ~all_flags)
        return ndp_fail(NDP_RT_STATUS_INPUT, "flags is %#x; a sum of NDP_RT_OPEN_ values is taken.", to->flags);
    status = check_threads(to->threads);
    if (status == NDP_RT_STATUS_OK)
        status = check_batch_sizes(to);
    if (status == NDP_RT_STATUS_OK)
        status = check_numbers(to);
    return status == NDP_RT_STATUS_OK ? check_reserved("options", to->reserved) : status;
}

/* Return the bytes of a pixel, or 0 for a format that is not taken. */
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
            "pixel_format is %u, a Bayer mosaic; grey, RGB, BGR, RGBA and BGRA are taken. "
            "Demosaic it to the colours that the bundle was trained on (in the camera or the grabber's library), "
            "and pass NDP_RT_PIXEL_RGB8.",
            format);
    if (get_pixel_bytes(format) == 0)
        return ndp_fail(NDP_RT_STATUS_INPUT,
                        "pixel_format is %u; one of the NDP_RT_PIXEL_ values is taken, such as "
                        "NDP_RT_PIXEL_GREY8.",
                        format);
    return NDP_RT_STATUS_OK;
}

/* Tell whether memory from an address on can be as long as that. */
static bool fits_address_space(const void *start, int64_t size)
{
    return (uintptr_t)start < ADDRESS_END && (uint64_t)size <= ADDRESS_END - (uintptr_t)start;
}

ndp_rt_status ndp_read_image(const ndp_rt_image *from, ndp_rt_image *to)
{
    ndp_rt_status status;
    int64_t row_bytes;

    if (!from)
        return ndp_fail(NDP_RT_STATUS_INPUT, "image is NULL; an ndp_rt_image is taken.");
    status = ndp_check_size("image", from->struct_size, IMAGE_SIZE);
    if (status != NDP_RT_STATUS_OK)
        return status;
    memcpy(to, from, sizeof *to);
    status = check_format(to->pixel_format);
    if (status != NDP_RT_STATUS_OK)
        return status;
    if (!to->pixels)
        return ndp_fail(NDP_RT_STATUS_INPUT, "pixels is NULL; the address of the image's first pixel is taken.");
    if (to->width_px < 1 || to->height_px < 1)
        return ndp_fail(NDP_RT_STATUS_INPUT, "image is %d pixels wide and %d high; 1 or more is taken.", to->width_px,
                        to->height_px);
    if ((int64_t)to->width_px * to->height_px > MAX_PIXELS)
        return ndp_fail(NDP_RT_STATUS_INPUT,
                        "image is %d x %d pixels; up to 2147483647 in all are taken. Pass it in parts.", to->width_px,
                        to->height_px);
    row_bytes = (int64_t)to->width_px * get_pixel_bytes(to->pixel_format);
    if (to->stride_bytes < row_bytes || to->stride_bytes > INT64_MAX / to->height_px)
        return ndp_fail(NDP_RT_STATUS_INPUT,
                        "stride_bytes is %lld; %lld, the bytes of a row of %d pixels, or more is taken. "
                        "Turn images that are stored bottom up first.",
                        (long long)to->stride_bytes, (long long)row_bytes, to->width_px);
    if (!fits_address_space(to->pixels, to->stride_bytes * (to->height_px - 1) + row_bytes))
        return ndp_fail(NDP_RT_STATUS_INPUT,
                        "pixels is %p and stride_bytes %lld; %d such rows end beyond the address space.", to->pixels,
                        (long long)to->stride_bytes, to->height_px);
    if (has_16_bits(to->pixel_format) && ((uintptr_t)to->pixels % 2 || to->stride_bytes % 2))
        return ndp_fail(NDP_RT_STATUS_INPUT, "pixels is %p and stride_bytes %lld; even ones are taken for 16 bits.",
                        to->pixels, (long long)to->stride_bytes);
    if (to->memory != NDP_RT_MEMORY_HOST && to->memory != NDP_RT_MEMORY_CUDA)
        return ndp_fail(NDP_RT_STATUS_INPUT, "memory is %u; NDP_RT_MEMORY_HOST and NDP_RT_MEMORY_CUDA are taken.",
                        to->memory);
    return check_reserved("image", to->reserved);
}

/* Check one plane of results and tell its size in *needed. */
static ndp_rt_status check_plane(const char *name, const void *plane, int64_t stride, int64_t capacity,
                                 int64_t value_bytes, const ndp_rt_image *image, int64_t *needed)
{
    int64_t row_bytes = image->width_px * value_bytes, bytes;

    if (!plane)
        return NDP_RT_STATUS_OK;
    if (stride < row_bytes || stride > INT64_MAX / image->height_px || stride % value_bytes
        || (uintptr_t)plane % value_bytes)
        return ndp_fail(NDP_RT_STATUS_INPUT, "%s_stride_bytes is %lld and %s %p; a stride of %lld or more is taken%s.",
                        name, (long long)stride, name, plane, (long long)row_bytes,
                        value_bytes > 1 ? ", and both are multiples of 4" : "");
    bytes = stride * (image->height_px - 1) + row_bytes;
    if (!fits_address_space(plane, bytes))
        return ndp_fail(NDP_RT_STATUS_INPUT,
                        "%s is %p and %s_stride_bytes %lld; %d such rows end beyond the address space.", name, plane,
                        name, (long long)stride, image->height_px);
    *needed = bytes;
    if (capacity < bytes)
        return ndp_fail(NDP_RT_STATUS_BUFFER_TOO_SMALL, "%s_capacity_bytes is %lld; %lld is needed for %d x %d pixels.",
                        name, (long long)capacity, (long long)bytes, image->width_px, image->height_px);
    return NDP_RT_STATUS_OK;
}

ndp_rt_status ndp_read_result(ndp_rt_result *from, const ndp_rt_image *image, ndp_rt_result *to)
{
    ndp_rt_status status, mask_status;

    if (!from)
        return ndp_fail(NDP_RT_STATUS_INPUT, "result is NULL; an ndp_rt_result is taken.");
    status = ndp_check_size("result", from->struct_size, RESULT_SIZE);
    if (status != NDP_RT_STATUS_OK)
        return status;
    if (from->defects && from->defect_struct_size != sizeof(ndp_rt_defect))
        return ndp_check_size("defect", from->defect_struct_size, sizeof(ndp_rt_defect));
    if (from->defects && (uintptr_t)from->defects % _Alignof(ndp_rt_defect))
        return ndp_fail(NDP_RT_STATUS_INPUT, "defects is %p, which is no address of an ndp_rt_defect.",
                        (void *)from->defects);
    status = check_reserved("result", from->reserved);
    if (status != NDP_RT_STATUS_OK)
        return status;
    /* Both, so that both sizes are told; the map last, so that the message that stays goes with the status. */
    mask_status = check_plane("mask", from->mask, from->mask_stride_bytes, from->mask_capacity_bytes, 1, image,
                              &from->mask_needed_bytes);
    status = check_plane("map", from->map, from->map_stride_bytes, from->map_capacity_bytes, sizeof(float), image,
                         &from->map_needed_bytes);
    if (status == NDP_RT_STATUS_OK)
        status = mask_status;
    memcpy(to, from, sizeof *to);
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
}
