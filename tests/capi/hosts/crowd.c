/* Many threads on one inspector and as many on inspectors of their own: crowd BUNDLE THREADS CALLS

   What every image gives is found first, in one thread; afterwards each result must be the same, bit for bit. Prints
   how many results were compared, and fails with the first that differs. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ndp_rt.h"

enum { SIDE = 48, PICTURES = 7, ROOM = 32, BATCH = 3, MOST_THREADS = 64 };

struct answer {
    double score;
    uint32_t defect_count;
    int32_t is_defect;
    float map[SIDE * SIDE];
    uint8_t mask[SIDE * SIDE];
};

struct member {
    pthread_t thread;
    ndp_rt_inspector *inspector;
    unsigned seed;
    int call_count;
    long compared_count;
};

static uint8_t pictures[PICTURES][SIDE * SIDE * 3];
static struct answer whole[PICTURES], tiled[PICTURES];

static void fail(const char *what, ndp_rt_status status)
{
    fprintf(stderr, "%s: %s %s\n", what, ndp_rt_status_name(status), ndp_rt_last_error());
    exit(1);
}

static void paint(void)
{
    int i, x;

    for (i = 0; i < PICTURES; i++)
        for (x = 0; x < SIDE * SIDE * 3; x++)
            pictures[i][x] = (uint8_t)((x * (i + 3) * 7 + (x / (SIDE * (i + 1))) * 31) % 200);
}

static ndp_rt_image make_image(int picture)
{
    ndp_rt_image image = {0};

    image.struct_size = sizeof image;
    image.pixel_format = NDP_RT_PIXEL_RGB8;
    image.pixels = pictures[picture];
    image.width_px = image.height_px = SIDE;
    image.stride_bytes = SIDE * 3;
    return image;
}

static ndp_rt_result make_result(struct answer *answer, ndp_rt_defect *defects)
{
    ndp_rt_result result = {0};

    memset(answer, 0xa5, sizeof *answer);
    result.struct_size = sizeof result;
    result.map = answer->map;
    result.map_stride_bytes = SIDE * sizeof(float);
    result.map_capacity_bytes = sizeof answer->map;
    result.mask = answer->mask;
    result.mask_stride_bytes = SIDE;
    result.mask_capacity_bytes = sizeof answer->mask;
    result.defects = defects;
    result.defect_capacity = ROOM;
    result.defect_struct_size = sizeof *defects;
    return result;
}

static void keep(const ndp_rt_result *result, struct answer *answer)
{
    answer->score = result->score;
    answer->defect_count = result->defect_count;
    answer->is_defect = result->is_defect;
}

static int is_done(ndp_rt_status status)
{
    return status == NDP_RT_STATUS_OK || status == NDP_RT_STATUS_BUFFER_TOO_SMALL; /* more defects than there is room */
}

static void compare(struct member *member, const struct answer *found, const struct answer *expected, const char *call)
{
    if (found->score != expected->score || found->defect_count != expected->defect_count
        || found->is_defect != expected->is_defect || memcmp(found->map, expected->map, sizeof found->map) != 0
        || memcmp(found->mask, expected->mask, sizeof found->mask) != 0) {
        fprintf(stderr, "%s: a result differs: score %.17g for %.17g\n", call, found->score, expected->score);
        exit(1);
    }
    member->compared_count++;
}

static void inspect_batch(struct member *member, int first)
{
    ndp_rt_image images[BATCH];
    ndp_rt_result results[BATCH];
    struct answer answers[BATCH];
    ndp_rt_defect defects[BATCH][ROOM];
    ndp_rt_status status;
    int i;

    for (i = 0; i < BATCH; i++) {
        images[i] = make_image((first + i) % PICTURES);
        results[i] = make_result(&answers[i], defects[i]);
    }
    status = ndp_rt_inspector_inspect_batch(member->inspector, images, BATCH, results);
    if (!is_done(status))
        fail("batch", status);
    for (i = 0; i < BATCH; i++) {
        keep(&results[i], &answers[i]);
        compare(member, &answers[i], &whole[(first + i) % PICTURES], "batch");
    }
}

static void inspect_one(struct member *member, int picture, int kind)
{
    ndp_rt_defect defects[ROOM];
    struct answer answer;
    ndp_rt_image image = make_image(picture);
    ndp_rt_result result = make_result(&answer, defects);
    ndp_rt_job *job = NULL;
    ndp_rt_status status;

    if (kind == 0) {
        do
            status = ndp_rt_inspector_submit(member->inspector, &image, &result, NULL, NULL, &job);
        while (status == NDP_RT_STATUS_QUEUE_FULL);
        if (status == NDP_RT_STATUS_OK)
            status = ndp_rt_job_wait(job, -1);
    } else if (kind == 1) {
        status = ndp_rt_inspector_inspect_large(member->inspector, &image, 8, &result);
    } else {
        status = ndp_rt_inspector_inspect(member->inspector, &image, &result);
    }
    if (!is_done(status))
        fail(kind == 0 ? "submit" : "inspect", status);
    keep(&result, &answer);
    compare(member, &answer, kind == 1 ? &tiled[picture] : &whole[picture], kind == 1 ? "large" : "whole");
}

static void ask(struct member *member)
{
    ndp_rt_times times = {0};
    double threshold;
    char text[512];
    ndp_rt_status status;

    times.struct_size = sizeof times;
    status = ndp_rt_timings(member->inspector, &times);
    if (status == NDP_RT_STATUS_OK)
        status = ndp_rt_inspector_get_threshold(member->inspector, &threshold);
    if (status == NDP_RT_STATUS_OK)
        status = ndp_rt_inspector_describe(member->inspector, text, sizeof text, NULL);
    if (status != NDP_RT_STATUS_OK || times.failure_count != 0)
        fail("ask", status);
}

static void *work(void *argument)
{
    struct member *member = argument;
    int i;

    for (i = 0; i < member->call_count; i++) {
        int picture = rand_r(&member->seed) % PICTURES, kind = rand_r(&member->seed) % 10;

        if (kind == 9)
            inspect_batch(member, picture);
        else
            inspect_one(member, picture, kind);
        if (kind == 5)
            ask(member);
    }
    return NULL;
}

static ndp_rt_inspector *open_bundle(const char *bundle)
{
    ndp_rt_open_options options = {0};
    ndp_rt_inspector *inspector = NULL;
    ndp_rt_status status;

    options.struct_size = sizeof options;
    options.threads = 1;
    status = ndp_rt_inspector_open(bundle, &options, &inspector);
    if (status != NDP_RT_STATUS_OK)
        fail("open", status);
    return inspector;
}

/* Find what every image gives; `inspector` is used by nobody else yet. */
static void find_answers(ndp_rt_inspector *inspector)
{
    ndp_rt_defect defects[ROOM];
    ndp_rt_status status;
    int i;

    for (i = 0; i < PICTURES; i++) {
        ndp_rt_image image = make_image(i);
        ndp_rt_result result = make_result(&whole[i], defects);

        status = ndp_rt_inspector_inspect(inspector, &image, &result);
        if (!is_done(status))
            fail("inspect", status);
        keep(&result, &whole[i]);
        result = make_result(&tiled[i], defects);
        status = ndp_rt_inspector_inspect_large(inspector, &image, 8, &result);
        if (!is_done(status))
            fail("large", status);
        keep(&result, &tiled[i]);
    }
}

int main(int count, char **words)
{
    struct member members[2 * MOST_THREADS];
    int i, thread_count = count > 3 ? atoi(words[2]) : 0;
    ndp_rt_inspector *shared;
    ndp_rt_status status;
    long compared_count = 0;

    if (thread_count < 1 || thread_count > MOST_THREADS)
        return 2;
    paint();
    shared = open_bundle(words[1]);
    find_answers(shared);
    for (i = 0; i < 2 * thread_count; i++) {
        members[i] = (struct member){0};
        members[i].inspector = i < thread_count ? shared : open_bundle(words[1]);
        members[i].seed = (unsigned)i + 1;
        members[i].call_count = atoi(words[3]);
    }
    for (i = 0; i < 2 * thread_count; i++)
        if (pthread_create(&members[i].thread, NULL, work, &members[i]) != 0)
            return 3;
    for (i = 0; i < 2 * thread_count; i++) {
        pthread_join(members[i].thread, NULL);
        compared_count += members[i].compared_count;
    }
    for (i = thread_count - 1; i < 2 * thread_count; i++) {
        status = ndp_rt_inspector_close(members[i].inspector);
        if (status != NDP_RT_STATUS_OK)
            fail("close", status);
    }
    printf("compared %ld\n", compared_count);
    return 0;
}
