/* Calls every function of ndp_rt.h with what a fuzzer's bytes say: see README.md.

   Arguments are hostile, but never lie about memory, for against that there is no defence: each pointer is NULL or has
   behind it what the struct claims, in a block of its own, so that AddressSanitizer sees one byte too many. Structs are
   only as long as their struct_size says. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "structs.h"

enum { HANDLES = 12, STEPS = 40 };

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "not as ndp_rt.h says: %s (line %d): %s\n", #condition, __LINE__, ndp_rt_last_error());    \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

static struct {
    void *handles[HANDLES]; /* of both kinds, closed ones too */
    ndp_rt_inspector *opened[HANDLES];
    int handle_count, opened_count, accepted_count, called_count;
} now;

static const char *good_bundle = "good.ndp";
static int is_real; /* engines behind it take their time, and may fail */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void keep_handle(void *handle)
{
    now.handles[now.handle_count++ % HANDLES] = handle;
}

static void *take_handle(struct bytes *bytes)
{
    uintptr_t handle = (uintptr_t)now.handles[take_below(bytes, HANDLES)];

    switch (take_below(bytes, 12)) {
    case 0:
        return (void *)(handle ^ 3); /* the other kind */
    case 1:
        return (void *)(handle ^ (uintptr_t)1 << take_below(bytes, 64));
    case 2:
        return (void *)(uintptr_t)take_number(bytes, 8);
    case 3:
        return (void *)(uintptr_t)take_below(bytes, 64);
    default:
        return (void *)handle;
    }
}

/* ---- Calls ----------------------------------------------------------------------------------------------------- */

/* Check what holds after every call. */
static ndp_rt_status check(ndp_rt_status status)
{
    const char *name = ndp_rt_status_name(status);

    CHECK(strncmp(name, "NDP_RT_STATUS_", 14) == 0);
    CHECK(status == NDP_RT_STATUS_OK || strlen(ndp_rt_last_error()) >= 10);
    CHECK(strlen(ndp_rt_last_error()) < 2048);
    CHECK(status != NDP_RT_STATUS_INTERNAL || !is_real);
    CHECK(status != NDP_RT_STATUS_FORKED && status != NDP_RT_STATUS_RUNTIME);
    return status;
}

static void open_one(struct bytes *bytes)
{
    ndp_rt_open_options options = {0};
    ndp_rt_inspector *inspector = NULL;
    const char *bundle = take_text(bytes, good_bundle);
    int32_t *sizes;
    uint32_t i;

    if (now.opened_count == HANDLES || (is_real && take_below(bytes, 8)))
        return;
    options.flags = (uint32_t)take_or(bytes, 12, take_below(bytes, 32)) | (is_real ? NDP_RT_OPEN_NO_BUILD : 0);
    options.device = take_text(bytes, NULL);
    options.backend = take_text(bytes, NULL);
    options.precision = take_text(bytes, NULL);
    options.plan = take_text(bytes, NULL);
    options.require_signature = take_text(bytes, NULL);
    options.ignore_mask = take_text(bytes, NULL);
    options.batch_size_count = (uint32_t)take_or(bytes, 12, take_below(bytes, 3));
    sizes = make_block((options.batch_size_count > 100 ? 0 : options.batch_size_count) * sizeof *sizes);
    for (i = 0; i < options.batch_size_count && i < 100 && options.batch_size_count <= 100; i++)
        sizes[i] = (int32_t)take_or(bytes, 8, 1);
    options.batch_sizes = take_below(bytes, 4) ? sizes : NULL;
    options.threads = (int32_t)take_or(bytes, 12, 1);
    options.threshold = take_below(bytes, 4) ? 0.5 : NAN;
    options.mm_per_pixel = take_below(bytes, 4) ? 0.0 : (double)take_or(bytes, 2, 1);
    options.queue_capacity = (uint32_t)take_or(bytes, 12, take_below(bytes, 4));
    options.white_level_16bit = (uint32_t)take_or(bytes, 60, 0);
    options.smallest_area_px = (int64_t)take_or(bytes, 60, 0);
    options.smallest_area_mm2 = (double)take_or(bytes, 60, 0);
    if (check(ndp_rt_inspector_open(bundle, take_below(bytes, 4) ? shorten(bytes, &options, sizeof options) : NULL,
                                    take_below(bytes, 40) == 1 ? NULL : &inspector))
        == NDP_RT_STATUS_OK) {
        CHECK(inspector && bundle && *bundle);
        now.opened[now.opened_count++] = inspector;
        keep_handle(inspector);
    } else {
        CHECK(!inspector);
    }
}

static void inspect(struct bytes *bytes)
{
    void *handle = take_handle(bytes);
    ndp_rt_image *image = take_image(bytes, 1);
    ndp_rt_result *result = take_result(bytes, image, 1), before = {0};
    size_t size = result ? result->struct_size : 0; /* of ABI 1.0 or 1.3 */
    int is_whole = size == offsetof(ndp_rt_result, points) || size == sizeof *result;
    int32_t overlap_px = (int32_t)take_or(bytes, 6, 8);
    ndp_rt_status status;

    if (is_whole)
        memcpy(&before, result, size);
    switch (take_below(bytes, 3)) {
    case 0:
        status = ndp_rt_inspector_inspect(handle, image, result);
        break;
    case 1:
        status = ndp_rt_inspector_inspect_batch(handle, image, 1, result);
        break;
    default:
        status = ndp_rt_inspector_inspect_large(handle, image, overlap_px, result);
    }
    check(status);
    if (status == NDP_RT_STATUS_OK) {
        CHECK(image && !has_flaw(image) && image->deadline_ms == 0 && is_whole);
        CHECK(result->is_defect == (result->score >= result->threshold) && result->queue_ms == 0);
        CHECK(!result->map || result->map_capacity_bytes >= result->map_needed_bytes);
    } else if (is_whole && status != NDP_RT_STATUS_BUFFER_TOO_SMALL) {
        before.map_needed_bytes = result->map_needed_bytes;
        before.mask_needed_bytes = result->mask_needed_bytes;
        CHECK(memcmp(&before, result, size) == 0);
    }
}

static void inspect_several(struct bytes *bytes)
{
    enum { COUNT = 3 };
    ndp_rt_image *images = make_block(COUNT * sizeof *images), *image;
    ndp_rt_result *results = make_block(COUNT * sizeof *results), *result;
    size_t count = take_below(bytes, COUNT + 1);
    void *handle = take_handle(bytes);
    int i;

    for (i = 0; i < COUNT; i++) {
        image = take_image(bytes, 0);
        result = take_result(bytes, image, 0);
        if (image->struct_size != sizeof *image || result->struct_size != sizeof *result)
            return; /* structs of a size of their own lie elsewhere */
        images[i] = *image;
        results[i] = *result;
    }
    if (take_below(bytes, 20) == 1)
        check(ndp_rt_inspector_inspect_batch(handle, NULL, count, results));
    else
        check(ndp_rt_inspector_inspect_batch(handle, images, count, results));
}

static void count_call(void *user, ndp_rt_status status, ndp_rt_result *result)
{
    check(status);
    CHECK(result && user == result);
    __atomic_add_fetch(&now.called_count, 1, __ATOMIC_SEQ_CST);
}

static void submit(struct bytes *bytes)
{
    void *handle = take_handle(bytes);
    ndp_rt_image *image = take_image(bytes, 1);
    ndp_rt_result *result = take_result(bytes, image, 1);
    ndp_rt_done_callback done = take_below(bytes, 3) ? count_call : NULL;
    ndp_rt_job *job = NULL;
    int wants_job = take_below(bytes, 4) != 0;
    ndp_rt_status status;

    status = check(ndp_rt_inspector_submit(handle, image, result, done, result, wants_job ? &job : NULL));
    if (status == NDP_RT_STATUS_OK) {
        CHECK(image && !has_flaw(image) && result && (done || wants_job) && (!wants_job || job));
        now.accepted_count += done != NULL;
        if (job)
            keep_handle(job);
    } else {
        CHECK(!job);
    }
    if (take_below(bytes, 8) == 1)
        check(ndp_rt_inspector_cancel(handle, take_below(bytes, 4) ? result : NULL));
    else if (take_below(bytes, 16) == 1 && status == NDP_RT_STATUS_OK)
        check(ndp_rt_inspector_submit(handle, image, result, NULL, NULL, &job)); /* BUSY, unless it has ended */
}

static void ask(struct bytes *bytes)
{
    void *handle = take_handle(bytes);
    size_t capacity = (size_t)take_or(bytes, 4, 200), needed = 0;
    ndp_rt_info info = {0};
    ndp_rt_times times = {0};
    double threshold = 0.5;
    char *text;

    if (capacity > 5000)
        capacity = 5000;
    text = make_block(capacity);
    switch (take_below(bytes, 9)) {
    case 0:
        check(ndp_rt_inspector_describe(handle, take_below(bytes, 8) ? text : NULL, capacity, &needed));
        break;
    case 1:
        check(ndp_rt_runtime_describe(text, capacity, take_below(bytes, 2) ? &needed : NULL));
        break;
    case 2:
        check(ndp_rt_inspector_info(handle, shorten(bytes, &info, sizeof info)));
        break;
    case 3:
        check(ndp_rt_timings(handle, shorten(bytes, &times, sizeof times)));
        break;
    case 4:
        check(ndp_rt_inspector_get_threshold(handle, take_below(bytes, 8) ? &threshold : NULL));
        break;
    case 5:
        check(ndp_rt_inspector_set_threshold(handle, take_below(bytes, 8) ? 0.5 : NAN));
        break;
    case 6:
        check(ndp_rt_inspector_warm_up(handle, (int32_t)take_below(bytes, 4) - 1));
        break;
    case 7:
        check(ndp_rt_runtime_start(take_text(bytes, NULL)));
        break;
    default:
        check(ndp_rt_inspector_set_reference(handle, take_image(bytes, 1)));
    }
}

static void ignore_message(void *user, int32_t level, const char *message)
{
    CHECK(user == &now && level > 0 && strlen(message) < 100000);
}

static void do_step(struct bytes *bytes)
{
    void *handle;
    unsigned kind = take_below(bytes, 16);

    if (kind < 5) {
        inspect(bytes);
    } else if (kind < 8) {
        submit(bytes);
    } else if (kind < 10) {
        ask(bytes);
    } else if (kind == 10) {
        inspect_several(bytes);
    } else if (kind == 11) {
        check(ndp_rt_log_set(take_below(bytes, 2) ? ignore_message : NULL, &now, (int32_t)take_or(bytes, 4, 30)));
    } else if (kind == 12) {
        handle = take_handle(bytes);
        check(ndp_rt_inspector_close(handle));
    } else if (kind < 15) {
        handle = take_handle(bytes);
        check(ndp_rt_job_wait(handle, (int32_t)take_or(bytes, 4, -1)));
    } else {
        open_one(bytes);
    }
}

/* Return an inspector to begin with. A real one takes its time to open, so it is the last input's, if that left it. */
static ndp_rt_inspector *open_first(void)
{
    static ndp_rt_inspector *kept;
    ndp_rt_info info = {0};

    info.struct_size = sizeof info;
    if (!is_real || ndp_rt_inspector_info(kept, &info) != NDP_RT_STATUS_OK)
        CHECK(ndp_rt_inspector_open(good_bundle, NULL, &kept) == NDP_RT_STATUS_OK);
    return kept;
}

/* Wait until nothing of this input is in use any more. */
static void finish(void)
{
    static uint8_t pixel;
    ndp_rt_image image = {0};
    ndp_rt_result result = {0};
    ndp_rt_job *job = NULL;
    ndp_rt_status status = NDP_RT_STATUS_OK;
    int i;

    for (i = is_real; i < now.opened_count; i++)
        check(ndp_rt_inspector_close(now.opened[i]));
    image.struct_size = sizeof image;
    image.pixel_format = NDP_RT_PIXEL_GREY8;
    image.pixels = &pixel;
    image.width_px = image.height_px = 1;
    image.stride_bytes = 1;
    result.struct_size = sizeof result;
    do
        status = ndp_rt_inspector_submit(now.opened[0], &image, &result, NULL, NULL, &job);
    while (status == NDP_RT_STATUS_QUEUE_FULL);
    CHECK(status == NDP_RT_STATUS_CLOSED || ndp_rt_job_wait(job, -1) == NDP_RT_STATUS_OK);
    check(ndp_rt_log_set(NULL, NULL, 0));
    CHECK(now.called_count == now.accepted_count);
    free_blocks();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes bytes = {data, size};
    int i;

    if (getenv("FUZZ_BUNDLE")) {
        good_bundle = getenv("FUZZ_BUNDLE");
        is_real = 1;
    }
    memset(&now, 0, sizeof now);
    now.opened[now.opened_count++] = open_first();
    for (i = 0; i < HANDLES / 2; i++)
        keep_handle(now.opened[0]);
    for (i = 0; i < STEPS && bytes.left > 0 && has_room(); i++)
        do_step(&bytes);
    finish();
    return 0;
}
