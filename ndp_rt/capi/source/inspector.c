/* Opens inspectors, inspects, changes settings, closes. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define DEFAULT_QUEUE_CAPACITY 16

static ndp_rt_status take(ndp_rt_inspector *handle, struct ndp_inspector **inspector)
{
    void *object = NULL;
    ndp_rt_status status = ndp_handle_take(handle, NDP_INSPECTOR, &object);

    *inspector = object;
    return status;
}

static ndp_rt_status refuse_null(const char *name)
{
    return ndp_fail(NDP_RT_STATUS_INPUT, "%s: expected an address to write to, got NULL.", name);
}

/* End a call of the bridge on an inspector that was taken. */
static ndp_rt_status end_call(ndp_rt_inspector *handle, ndp_rt_status status, const char *message)
{
    status = ndp_pass_on(status, message);
    ndp_handle_drop(handle);
    return status;
}

ndp_rt_status ndp_rt_inspector_open(const char *bundle, const ndp_rt_open_options *options, ndp_rt_inspector **out)
{
    char message[NDP_MESSAGE_BYTES] = "";
    struct ndp_inspector *inspector;
    ndp_rt_open_options read;
    ndp_rt_status status = ndp_check_process();

    if (status != NDP_RT_STATUS_OK)
        return status;
    if (!out)
        return refuse_null("inspector");
    if (!bundle || !*bundle)
        return ndp_fail(NDP_RT_STATUS_INPUT, "bundle: expected the path of a folder NAME.ndp, got %s.",
                        bundle ? "an empty one" : "NULL");
    status = ndp_read_options(options, &read);
    if (status == NDP_RT_STATUS_OK)
        status = ndp_start_runtime(NULL);
    if (status != NDP_RT_STATUS_OK)
        return status;
    inspector = calloc(1, sizeof *inspector);
    if (!inspector)
        return ndp_no_memory();
    inspector->queue_capacity = read.queue_capacity ? read.queue_capacity : DEFAULT_QUEUE_CAPACITY;
    inspector->newest_wins = read.flags & NDP_RT_OPEN_NEWEST_WINS;
    inspector->info.struct_size = sizeof inspector->info;
    pthread_cond_init(&inspector->has_work, NULL);
    status = ndp_pass_on(ndp_get_calls()->open(bundle, &read, &inspector->id, &inspector->info, message), message);
    if (status == NDP_RT_STATUS_OK) {
        inspector->handle = ndp_handle_make(NDP_INSPECTOR, inspector);
        if (!inspector->handle) {
            ndp_get_calls()->close(inspector->id, message);
            status = ndp_no_memory();
        }
    }
    if (status != NDP_RT_STATUS_OK) {
        pthread_cond_destroy(&inspector->has_work);
        free(inspector);
        return status;
    }
    *out = (ndp_rt_inspector *)inspector->handle;
    return NDP_RT_STATUS_OK;
}

/* Return BUSY where a call from its own callback would wait for itself. */
static ndp_rt_status check_caller(ndp_rt_inspector *handle)
{
    struct ndp_inspector *inspector;
    ndp_rt_status status = take(handle, &inspector);

    if (status != NDP_RT_STATUS_OK)
        return status;
    if (ndp_is_worker_of(inspector))
        status = ndp_fail(NDP_RT_STATUS_BUSY,
                          "the inspector cannot be closed from its own callback, which the close would wait "
                          "for. Close it from another thread.");
    ndp_handle_drop(handle);
    return status;
}

ndp_rt_status ndp_rt_inspector_close(ndp_rt_inspector *handle)
{
    char message[NDP_MESSAGE_BYTES] = "";
    struct ndp_inspector *inspector;
    ndp_rt_status status;
    void *object;

    if (!handle)
        return NDP_RT_STATUS_OK;
    status = check_caller(handle);
    if (status == NDP_RT_STATUS_OK)
        status = ndp_handle_shut(handle, NDP_INSPECTOR, &object);
    if (status != NDP_RT_STATUS_OK)
        return status;
    inspector = object;
    ndp_end_queue(inspector);
    ndp_handle_free(handle);
    status = ndp_pass_on(ndp_get_calls()->close(inspector->id, message), message);
    pthread_cond_destroy(&inspector->has_work);
    free(inspector);
    return status;
}

ndp_rt_status ndp_rt_inspector_info(ndp_rt_inspector *handle, ndp_rt_info *info)
{
    struct ndp_inspector *inspector;
    ndp_rt_status status;

    if (!info)
        return refuse_null("info");
    status = ndp_check_size("info", info->struct_size, sizeof *info, sizeof *info);
    if (status == NDP_RT_STATUS_OK)
        status = take(handle, &inspector);
    if (status != NDP_RT_STATUS_OK)
        return status;
    *info = inspector->info;
    ndp_handle_drop(handle);
    return NDP_RT_STATUS_OK;
}

/* Return BUFFER_TOO_SMALL where a result has more defects or points than room. */
static ndp_rt_status check_room(const ndp_rt_result *result)
{
    if (result->defects && result->defect_count > result->defect_capacity)
        return ndp_fail(
            NDP_RT_STATUS_BUFFER_TOO_SMALL,
            "defect_capacity: expected %u, the number of defects, got %u. The list holds the highest peaks, "
            "everything else is complete.",
            result->defect_count, result->defect_capacity);
    if (result->points && result->point_count > result->point_capacity)
        return ndp_fail(
            NDP_RT_STATUS_BUFFER_TOO_SMALL,
            "point_capacity: expected %u, the points of all outlines, got %u. Outlines that did not fit are "
            "left out, everything else is complete.",
            result->point_count, result->point_capacity);
    return NDP_RT_STATUS_OK;
}

/* Inspect and count, and pass the turn. */
static ndp_rt_status run(struct ndp_inspector *inspector, const ndp_rt_image *images, size_t count, int32_t overlap_px,
                         ndp_rt_result *results, double queue_ms)
{
    char message[NDP_MESSAGE_BYTES] = "";
    ndp_rt_status status;
    ndp_rt_times *times = &inspector->times;
    const ndp_rt_result *last = &results[count - 1];
    size_t i;

    status = ndp_get_calls()->inspect(inspector->id, images, count, overlap_px, results, message);
    ndp_pass_turn(&inspector->turns);
    status = ndp_pass_on(status, message);
    pthread_mutex_lock(&ndp_lock);
    if (status != NDP_RT_STATUS_OK) {
        times->failure_count++;
    } else {
        times->inspection_count += count;
        times->queue_ms = queue_ms;
        times->preprocess_ms = last->preprocess_ms;
        times->engine_ms = last->engine_ms;
        times->postprocess_ms = last->postprocess_ms;
        times->total_ms = last->total_ms;
    }
    pthread_mutex_unlock(&ndp_lock);
    for (i = 0; i < count; i++)
        results[i].queue_ms = queue_ms;
    for (i = 0; status == NDP_RT_STATUS_OK && i < count; i++)
        status = check_room(&results[i]);
    return status;
}

ndp_rt_status ndp_run(struct ndp_inspector *inspector, const ndp_rt_image *images, size_t count, int32_t overlap_px,
                      ndp_rt_result *results)
{
    ndp_take_turn(&inspector->turns);
    return run(inspector, images, count, overlap_px, results, 0.0);
}

ndp_rt_status ndp_run_submitted(struct ndp_inspector *inspector, const ndp_rt_image *image, ndp_rt_result *result,
                                double queue_ms)
{
    return run(inspector, image, 1, -1, result, queue_ms);
}

static bool is_filled(ndp_rt_status status)
{
    return status == NDP_RT_STATUS_OK || status == NDP_RT_STATUS_BUFFER_TOO_SMALL;
}

/* Inspect one image. */
static ndp_rt_status inspect_one(ndp_rt_inspector *handle, const ndp_rt_image *image, int32_t overlap_px,
                                 ndp_rt_result *result)
{
    struct ndp_inspector *inspector;
    ndp_rt_image read_image;
    ndp_rt_result read_result;
    ndp_rt_status status = ndp_read_image(image, &read_image, NULL);

    if (status == NDP_RT_STATUS_OK)
        status = ndp_read_result(result, &read_image, &read_result);
    if (status == NDP_RT_STATUS_OK)
        status = take(handle, &inspector);
    if (status != NDP_RT_STATUS_OK)
        return status;
    status = ndp_run(inspector, &read_image, 1, overlap_px, &read_result);
    ndp_handle_drop(handle);
    if (is_filled(status))
        ndp_write_result(&read_result, result);
    return status;
}

ndp_rt_status ndp_rt_inspector_inspect(ndp_rt_inspector *handle, const ndp_rt_image *image, ndp_rt_result *result)
{
    return inspect_one(handle, image, -1, result);
}

ndp_rt_status ndp_rt_inspector_inspect_large(ndp_rt_inspector *handle, const ndp_rt_image *image, int32_t overlap_px,
                                             ndp_rt_result *result)
{
    if (overlap_px < 0)
        return ndp_fail(NDP_RT_STATUS_INPUT, "overlap_px: expected 0 to half a tile, got %d.", overlap_px);
    if (image && image->struct_size >= sizeof *image && image->memory != NDP_RT_MEMORY_HOST)
        return ndp_fail(NDP_RT_STATUS_INPUT, "memory: expected NDP_RT_MEMORY_HOST for a large image, got %u. Copy it.",
                        image->memory);
    return inspect_one(handle, image, overlap_px, result);
}

/* Return a result of an array, whose structs have the first one's size. */
static ndp_rt_result *get_result(ndp_rt_result *results, size_t index)
{
    return (ndp_rt_result *)(void *)((char *)results + index * results->struct_size);
}

/* Read the structs of a batch into arrays of this build's layout. */
static ndp_rt_status read_batch(const ndp_rt_image *images, size_t count, ndp_rt_result *results,
                                ndp_rt_image *read_images, ndp_rt_result *read_results)
{
    ndp_rt_status status = NDP_RT_STATUS_OK;
    char reason[NDP_MESSAGE_BYTES];
    size_t i;

    for (i = 0; i < count && status == NDP_RT_STATUS_OK; i++) {
        status = ndp_read_image(&images[i], &read_images[i], NULL);
        if (status == NDP_RT_STATUS_OK)
            status = ndp_check_size("result", get_result(results, i)->struct_size, results->struct_size,
                                    results->struct_size);
        if (status == NDP_RT_STATUS_OK)
            status = ndp_read_result(get_result(results, i), &read_images[i], &read_results[i]);
    }
    if (status == NDP_RT_STATUS_OK)
        return status;
    strcpy(reason, ndp_rt_last_error());
    return ndp_fail(status, "image %zu of the batch: %s", i - 1, reason);
}

ndp_rt_status ndp_rt_inspector_inspect_batch(ndp_rt_inspector *handle, const ndp_rt_image *images, size_t count,
                                             ndp_rt_result *results)
{
    struct ndp_inspector *inspector;
    ndp_rt_image *read_images;
    ndp_rt_result *read_results;
    ndp_rt_status status;
    size_t i;

    if (count > 0 && (!images || !results))
        return ndp_fail(NDP_RT_STATUS_INPUT, "%s: expected an array of %zu, got NULL.", images ? "results" : "images",
                        count);
    if (count > UINT32_MAX)
        return ndp_fail(NDP_RT_STATUS_INPUT, "count: expected up to 4294967295, got %zu.", count);
    status = take(handle, &inspector);
    if (status != NDP_RT_STATUS_OK)
        return status;
    read_images = calloc(count, sizeof *read_images);
    read_results = calloc(count, sizeof *read_results);
    if (count > 0 && read_images && read_results) {
        status = read_batch(images, count, results, read_images, read_results);
        if (status == NDP_RT_STATUS_OK) {
            status = ndp_run(inspector, read_images, count, -1, read_results);
            for (i = 0; is_filled(status) && i < count; i++)
                ndp_write_result(&read_results[i], get_result(results, i));
        }
    } else if (count > 0) {
        status = ndp_no_memory();
    }
    free(read_images);
    free(read_results);
    ndp_handle_drop(handle);
    return status;
}

ndp_rt_status ndp_rt_inspector_warm_up(ndp_rt_inspector *handle, int32_t count)
{
    char message[NDP_MESSAGE_BYTES] = "";
    struct ndp_inspector *inspector;
    ndp_rt_status status = take(handle, &inspector);

    if (status == NDP_RT_STATUS_OK)
        status = end_call(handle, ndp_get_calls()->warm_up(inspector->id, count, message), message);
    return status;
}

ndp_rt_status ndp_rt_inspector_get_threshold(ndp_rt_inspector *handle, double *threshold)
{
    char message[NDP_MESSAGE_BYTES] = "";
    struct ndp_inspector *inspector;
    ndp_rt_status status;

    if (!threshold)
        return refuse_null("threshold");
    status = take(handle, &inspector);
    if (status == NDP_RT_STATUS_OK)
        status = end_call(handle, ndp_get_calls()->get_threshold(inspector->id, threshold, message), message);
    return status;
}

ndp_rt_status ndp_rt_inspector_set_threshold(ndp_rt_inspector *handle, double threshold)
{
    char message[NDP_MESSAGE_BYTES] = "";
    struct ndp_inspector *inspector;
    ndp_rt_status status = take(handle, &inspector);

    if (status == NDP_RT_STATUS_OK)
        status = end_call(handle, ndp_get_calls()->set_threshold(inspector->id, threshold, message), message);
    return status;
}

ndp_rt_status ndp_rt_inspector_set_reference(ndp_rt_inspector *handle, const ndp_rt_image *image)
{
    char message[NDP_MESSAGE_BYTES] = "";
    struct ndp_inspector *inspector;
    ndp_rt_image read;
    ndp_rt_status status = ndp_read_image(image, &read, NULL);

    if (status == NDP_RT_STATUS_OK)
        status = take(handle, &inspector);
    if (status == NDP_RT_STATUS_OK)
        status = end_call(handle, ndp_get_calls()->set_reference(inspector->id, &read, message), message);
    return status;
}

ndp_rt_status ndp_rt_timings(ndp_rt_inspector *handle, ndp_rt_times *times)
{
    struct ndp_inspector *inspector;
    uint32_t struct_size;
    ndp_rt_times read;
    ndp_rt_status status;

    if (!times)
        return refuse_null("times");
    struct_size = times->struct_size;
    status = ndp_check_size("times", struct_size, offsetof(ndp_rt_times, expired_count), sizeof *times);
    if (status == NDP_RT_STATUS_OK)
        status = take(handle, &inspector);
    if (status != NDP_RT_STATUS_OK)
        return status;
    pthread_mutex_lock(&ndp_lock);
    read = inspector->times;
    pthread_mutex_unlock(&ndp_lock);
    read.struct_size = struct_size;
    memcpy(times, &read, struct_size);
    ndp_handle_drop(handle);
    return NDP_RT_STATUS_OK;
}
