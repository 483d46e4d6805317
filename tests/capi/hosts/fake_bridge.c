/* Stands in for the bridge, without Python, so that sanitizers, valgrind and a fuzzer run at full speed.

   It computes something simple from the pixels, and ends the process where the library breaks what calls.h promises.
   What it does depends on what it is given: bundle "fail N" is refused with status N, an image whose first byte is 255
   with ENGINE, one of 254 with INTERNAL and no message. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calls.h"

#define MOST_OPEN 4096
#define SIDE      64

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "the library broke its promise: %s (line %d)\n", #condition, __LINE__);                    \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static double thresholds[MOST_OPEN]; /* by id; 0: never opened, NaN: closed */
static int64_t next_id = 1;
static int32_t log_level;
static void (*emit)(int32_t level, const char *message);

static int32_t refuse(int32_t status, char *message, const char *text)
{
    snprintf(message, NDP_MESSAGE_BYTES, "%s", text);
    return status;
}

static double get(int64_t id)
{
    double threshold;

    pthread_mutex_lock(&lock);
    CHECK(id > 0 && id < next_id);
    threshold = thresholds[id % MOST_OPEN];
    pthread_mutex_unlock(&lock);
    CHECK(!isnan(threshold));
    return threshold;
}

static void set(int64_t id, double threshold)
{
    pthread_mutex_lock(&lock);
    thresholds[id % MOST_OPEN] = threshold;
    pthread_mutex_unlock(&lock);
}

static void say(const char *text)
{
    int32_t level;

    pthread_mutex_lock(&lock);
    level = log_level;
    pthread_mutex_unlock(&lock);
    if (level > 0 && level <= NDP_RT_LOG_WARNING)
        emit(NDP_RT_LOG_WARNING, text);
}

static void check_text(const char *text)
{
    CHECK(text == NULL || strlen(text) < ((size_t)1 << 30));
}

static int32_t fake_open(const char *bundle, const ndp_rt_open_options *options, int64_t *id, ndp_rt_info *info,
                         char *message)
{
    uint32_t i;

    CHECK(bundle && *bundle && options && message[0] == '\0');
    CHECK(options->white_level_16bit <= 65535 && options->threads >= 0 && options->flags < 32
          && options->queue_capacity <= 65536);
    CHECK(options->batch_size_count <= 64 && (options->batch_size_count == 0 || options->batch_sizes));
    for (i = 0; i < options->batch_size_count; i++)
        CHECK(options->batch_sizes[i] >= 1 && options->batch_sizes[i] <= 4096);
    CHECK(!(options->flags & NDP_RT_OPEN_THRESHOLD) || !isnan(options->threshold));
    CHECK(isfinite(options->mm_per_pixel) && options->mm_per_pixel >= 0);
    check_text(bundle);
    check_text(options->device);
    check_text(options->backend);
    check_text(options->precision);
    check_text(options->plan);
    check_text(options->require_signature);
    check_text(options->ignore_mask);
    CHECK(options->smallest_area_px >= 0 && options->smallest_area_px <= INT32_MAX);
    CHECK(options->smallest_area_mm2 >= 0);
    if (strncmp(bundle, "fail ", 5) == 0)
        return refuse(atoi(bundle + 5), message, "this bundle is refused; take another.");
    pthread_mutex_lock(&lock);
    *id = next_id++;
    thresholds[*id % MOST_OPEN] = options->flags & NDP_RT_OPEN_THRESHOLD ? options->threshold : 0.5;
    pthread_mutex_unlock(&lock);
    info->input_width_px = info->input_height_px = SIDE;
    info->largest_batch = 8;
    return NDP_RT_STATUS_OK;
}

static int32_t fake_close(int64_t id, char *message)
{
    CHECK(message[0] == '\0');
    get(id);
    set(id, NAN);
    return NDP_RT_STATUS_OK;
}

/* The bytes and values of a pixel, or 0. */
static int64_t get_pixel_bytes(uint32_t format)
{
    static const int64_t BYTES[] = {0, 1, 2, 3, 3, 4, 4, 6, 6};

    return format < sizeof BYTES / sizeof *BYTES ? BYTES[format] : 0;
}

static void check_image(const ndp_rt_image *image)
{
    int64_t row_bytes = get_pixel_bytes(image->pixel_format) * image->width_px;

    CHECK(image->struct_size == sizeof *image && image->deadline_ms == 0 && image->pixels);
    CHECK(image->memory == NDP_RT_MEMORY_HOST || image->memory == NDP_RT_MEMORY_CUDA);
    CHECK(get_pixel_bytes(image->pixel_format) > 0 && image->width_px > 0 && image->height_px > 0);
    CHECK((int64_t)image->width_px * image->height_px <= INT32_MAX && image->stride_bytes >= row_bytes);
    CHECK(image->stride_bytes <= INT64_MAX / image->height_px);
    CHECK((uintptr_t)image->pixels + (uint64_t)(image->stride_bytes * (image->height_px - 1) + row_bytes)
          > (uintptr_t)image->pixels);
    if (get_pixel_bytes(image->pixel_format) % 2 == 0 && image->pixel_format != NDP_RT_PIXEL_RGBA8
        && image->pixel_format != NDP_RT_PIXEL_BGRA8)
        CHECK((uintptr_t)image->pixels % 2 == 0 && image->stride_bytes % 2 == 0);
}

static void check_plane(const void *plane, int64_t stride, int64_t capacity, int64_t needed, int64_t value_bytes,
                        const ndp_rt_image *image)
{
    int64_t row_bytes = value_bytes * image->width_px;

    if (!plane)
        return;
    CHECK(stride >= row_bytes && stride % value_bytes == 0 && (uintptr_t)plane % (uintptr_t)value_bytes == 0);
    CHECK(stride <= INT64_MAX / image->height_px && needed == stride * (image->height_px - 1) + row_bytes);
    CHECK(capacity >= needed);
}

static void check_result(const ndp_rt_result *result, const ndp_rt_image *image)
{
    CHECK(result->struct_size == sizeof *result && result->reserved == 0);
    check_plane(result->map, result->map_stride_bytes, result->map_capacity_bytes, result->map_needed_bytes,
                sizeof *result->map, image);
    check_plane(result->mask, result->mask_stride_bytes, result->mask_capacity_bytes, result->mask_needed_bytes, 1,
                image);
    if (result->defects)
        CHECK((result->defect_struct_size == sizeof(ndp_rt_defect)
               || result->defect_struct_size == offsetof(ndp_rt_defect, first_point))
              && (uintptr_t)result->defects % 8 == 0);
    if (result->points)
        CHECK(result->defects && result->defect_struct_size == sizeof(ndp_rt_defect)
              && (uintptr_t)result->points % 4 == 0);
}

static void write_planes(ndp_rt_result *result, const ndp_rt_image *image)
{
    int32_t x, y;

    for (y = 0; y < image->height_px; y++)
        for (x = 0; x < image->width_px; x++) {
            if (result->map)
                ((float *)((char *)result->map + y * result->map_stride_bytes))[x] = (float)result->score + (float)x;
            if (result->mask)
                result->mask[y * result->mask_stride_bytes + x] = x % 2 ? 255 : 0;
        }
}

static int32_t inspect_one(const ndp_rt_image *image, ndp_rt_result *result, double threshold, char *message)
{
    const uint8_t *pixels = image->pixels;
    int64_t row_bytes = get_pixel_bytes(image->pixel_format) * image->width_px, x;
    uint64_t sum = 0;
    int32_t y;
    uint32_t i;

    if (image->memory == NDP_RT_MEMORY_CUDA)
        return refuse(NDP_RT_STATUS_INPUT, message, "memory: expected host memory, got NDP_RT_MEMORY_CUDA. Copy it.");
    if (image->width_px > 16384 || image->height_px > 16384)
        return refuse(NDP_RT_STATUS_INPUT, message, "image: expected up to 16384 pixels a side, got more.");
    if (pixels[0] == 255)
        return refuse(NDP_RT_STATUS_ENGINE, message, "the engine failed; start it again.");
    if (pixels[0] == 254)
        return NDP_RT_STATUS_INTERNAL;
    for (y = 0; y < image->height_px; y++)
        for (x = 0; x < row_bytes; x++)
            sum = sum * 31 + pixels[y * image->stride_bytes + x];
    result->score = (double)(sum % 1000) / 1000;
    result->threshold = threshold;
    result->is_defect = result->score >= threshold;
    write_planes(result, image);
    result->defect_count = (uint32_t)(sum % 5);
    for (i = 0; result->defects && i < result->defect_count && i < result->defect_capacity; i++) {
        ndp_rt_defect *defect = (ndp_rt_defect *)(void *)((char *)result->defects + i * result->defect_struct_size);

        memset(defect, 0, result->defect_struct_size);
        defect->area_px = (int64_t)(sum % 1000);
        defect->peak = 1.0 / (1 + i);
    }
    result->point_count = result->points ? result->defect_count : 0;
    for (i = 0; result->points && i < result->point_count && i < result->point_capacity; i++)
        result->points[i].x_px = result->points[i].y_px = (int32_t)i;
    result->preprocess_ms = result->engine_ms = result->postprocess_ms = 0.25;
    result->total_ms = 0.75;
    return NDP_RT_STATUS_OK;
}

static int32_t fake_inspect(int64_t id, const ndp_rt_image *images, uint64_t count, int32_t overlap_px,
                            ndp_rt_result *results, char *message)
{
    int32_t status = NDP_RT_STATUS_OK;
    double threshold = get(id);
    uint64_t i;

    CHECK(count > 0 && overlap_px >= -1 && (overlap_px == -1 || count == 1) && message[0] == '\0');
    for (i = 0; i < count; i++) {
        check_image(&images[i]);
        check_result(&results[i], &images[i]);
    }
    if (overlap_px > SIDE / 2)
        return refuse(NDP_RT_STATUS_INPUT, message, "overlap_px: expected 0 to half a tile, got more.");
    for (i = 0; i < count && status == NDP_RT_STATUS_OK; i++)
        status = inspect_one(&images[i], &results[i], threshold, message);
    say("inspected");
    return status;
}

static int32_t fake_warm_up(int64_t id, int32_t count, char *message)
{
    get(id);
    return count >= 1 ? NDP_RT_STATUS_OK : refuse(NDP_RT_STATUS_INPUT, message, "count: expected 1 or more, got less.");
}

static int32_t fake_get_threshold(int64_t id, double *threshold, char *message)
{
    CHECK(message[0] == '\0');
    *threshold = get(id);
    return NDP_RT_STATUS_OK;
}

static int32_t fake_set_threshold(int64_t id, double threshold, char *message)
{
    get(id);
    if (isnan(threshold))
        return refuse(NDP_RT_STATUS_INPUT, message, "threshold: expected a number, got NaN.");
    set(id, threshold);
    return NDP_RT_STATUS_OK;
}

static int32_t fake_set_reference(int64_t id, const ndp_rt_image *image, char *message)
{
    ndp_rt_result result;

    memset(&result, 0, sizeof result);
    check_image(image);
    return inspect_one(image, &result, get(id), message);
}

static int32_t fake_describe(int64_t id, char *buffer, uint64_t capacity, uint64_t *needed, char *message)
{
    static const char TEXT[] = "an inspector without Python";

    CHECK(message[0] == '\0' && (buffer || capacity == 0));
    if (id != 0)
        get(id);
    *needed = sizeof TEXT;
    if (capacity >= sizeof TEXT)
        memcpy(buffer, TEXT, sizeof TEXT);
    return NDP_RT_STATUS_OK;
}

static int32_t fake_set_log_level(int32_t level, char *message)
{
    CHECK(level >= 0 && message[0] == '\0');
    pthread_mutex_lock(&lock);
    log_level = level;
    pthread_mutex_unlock(&lock);
    say("listening");
    return NDP_RT_STATUS_OK;
}

__attribute__((visibility("default"))) int32_t ndp_bridge_start(const struct ndp_start *start, struct ndp_calls *calls,
                                                                char *message);

int32_t ndp_bridge_start(const struct ndp_start *start, struct ndp_calls *calls, char *message)
{
    static int start_count;

    CHECK(start->python && *start->python && start->emit && message[0] == '\0' && start_count < 2);
    if (getenv("FAKE_BRIDGE_FAILS") && start_count++ == 0)
        return refuse(NDP_RT_STATUS_RUNTIME, message, "the first start fails; start again.");
    emit = start->emit;
    *calls =
        (struct ndp_calls){fake_open,          fake_close,         fake_inspect,  fake_warm_up,      fake_get_threshold,
                           fake_set_threshold, fake_set_reference, fake_describe, fake_set_log_level};
    return NDP_RT_STATUS_OK;
}
