/* Open, use in every way, close, again and again: what leaks, or breaks with time, shows. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"

enum { SHORT_OPEN_COUNT = 3 }; /* opened and closed with one inspection, after each full use */

/* Kept from request to request: the host's own memory is to stay as it is. */
static struct outputs outputs[MAX_PICTURES], tile_outputs;
static atomic_int done_count;
static uint64_t call_count;

static void count_done(void *user, ndp_rt_status status, ndp_rt_result *result)
{
    (void)user;
    (void)status;
    (void)result;
    atomic_fetch_add(&done_count, 1);
}

static void call(ndp_rt_status status, const char *name)
{
    call_count++;
    check(status, name);
}

/* Check a result, or keep the first one of its kind for those that follow. */
static void check_first(struct picture *picture, struct outputs *found, bool *is_known, struct answer *expected,
                        const char *how)
{
    if (!*is_known) {
        *expected = read_answer(found);
        *is_known = true;
    }
    check_answer(found, expected, picture->index, how);
    clear_outputs(found);
}

static void check_alone(size_t i, const char *how)
{
    check_first(&pictures[i], &outputs[i], &pictures[i].is_alone_known, &pictures[i].alone, how);
}

static void inspect_alone(ndp_rt_inspector *inspector, size_t i)
{
    call(ndp_rt_inspector_inspect(inspector, &pictures[i].image, &outputs[i].result), "ndp_rt_inspector_inspect");
    check_alone(i, "alone");
}

static void inspect_together(ndp_rt_inspector *inspector)
{
    ndp_rt_image images[MAX_PICTURES];
    ndp_rt_result results[MAX_PICTURES];
    size_t i;

    for (i = 0; i < picture_count; i++) {
        images[i] = pictures[i].image;
        results[i] = outputs[i].result;
    }
    call(ndp_rt_inspector_inspect_batch(inspector, images, picture_count, results), "ndp_rt_inspector_inspect_batch");
    for (i = 0; i < picture_count; i++) {
        outputs[i].result = results[i];
        check_first(&pictures[i], &outputs[i], &pictures[i].is_batch_known, &pictures[i].batch, "in a batch");
    }
}

static void inspect_tiles(ndp_rt_inspector *inspector, struct picture *large)
{
    call(ndp_rt_inspector_inspect_large(inspector, &large->image, 16, &tile_outputs.result),
         "ndp_rt_inspector_inspect_large");
    check_first(large, &tile_outputs, &large->is_tiles_known, &large->tiles, "in tiles");
}

/* Submit every picture, wait for one after the other, and check that each callback was called. */
static void submit_each(ndp_rt_inspector *inspector)
{
    ndp_rt_job *jobs[MAX_PICTURES];
    size_t i;

    atomic_store(&done_count, 0);
    for (i = 0; i < picture_count; i++)
        call(ndp_rt_inspector_submit(inspector, &pictures[i].image, &outputs[i].result, count_done, NULL, &jobs[i]),
             "ndp_rt_inspector_submit");
    for (i = 0; i < picture_count; i++) {
        call(ndp_rt_job_wait(jobs[i], -1), "ndp_rt_job_wait");
        check_alone(i, "submitted");
    }
    if (atomic_load(&done_count) != (int)picture_count)
        fail("%d callbacks came for %zu submitted pictures.", atomic_load(&done_count), picture_count);
}

/* With thresholds on both sides of its score a picture is a defect, and is none. */
static void move_threshold(ndp_rt_inspector *inspector)
{
    static const double FACTORS[] = {0.5, 2.0};
    ndp_rt_result result = {.struct_size = sizeof result};
    double asked, found, score = pictures[0].alone.score;
    size_t i;

    for (i = 0; i < 2; i++) {
        asked = score * FACTORS[i];
        call(ndp_rt_inspector_set_threshold(inspector, asked), "ndp_rt_inspector_set_threshold");
        call(ndp_rt_inspector_get_threshold(inspector, &found), "ndp_rt_inspector_get_threshold");
        call(ndp_rt_inspector_inspect(inspector, &pictures[0].image, &result), "ndp_rt_inspector_inspect");
        if (found != asked || result.threshold != asked || result.is_defect != (score >= asked))
            fail("threshold %.17g was set; %.17g is there, and a score of %.17g is called %s.", asked, found, score,
                 result.is_defect ? "a defect" : "good");
    }
}

/* Ask for what costs no inspection, and check the count of those that there were. */
static void ask_about(ndp_rt_inspector *inspector, uint64_t inspection_count)
{
    ndp_rt_times times = {.struct_size = sizeof times};
    ndp_rt_info info = {.struct_size = sizeof info};
    char text[1000];

    call(ndp_rt_inspector_info(inspector, &info), "ndp_rt_inspector_info");
    call(ndp_rt_inspector_describe(inspector, text, sizeof text, NULL), "ndp_rt_inspector_describe");
    call(ndp_rt_timings(inspector, &times), "ndp_rt_timings");
    if (times.inspection_count != inspection_count || times.failure_count != 0 || times.waiting_count != 0)
        fail("ndp_rt_timings tells of %llu inspections, %llu failures and %u waiting; there were %llu, 0 and 0.",
             (unsigned long long)times.inspection_count, (unsigned long long)times.failure_count, times.waiting_count,
             (unsigned long long)inspection_count);
}

static void run_cycle(const char *bundle, struct picture *large)
{
    ndp_rt_open_options options = {.struct_size = sizeof options, .queue_capacity = MAX_PICTURES};
    ndp_rt_inspector *inspector = NULL;
    ndp_rt_times times = {.struct_size = sizeof times};
    ndp_rt_status status;
    size_t i;

    call(ndp_rt_inspector_open(bundle, &options, &inspector), "ndp_rt_inspector_open");
    for (i = 0; i < picture_count; i++)
        inspect_alone(inspector, i);
    inspect_together(inspector);
    inspect_tiles(inspector, large);
    submit_each(inspector);
    move_threshold(inspector);
    /* Alone, in a batch and submitted; one in tiles counts as one, and two are for the thresholds. */
    ask_about(inspector, 3 * (uint64_t)picture_count + 3);
    call(ndp_rt_inspector_close(inspector), "ndp_rt_inspector_close");
    call_count++;
    status = ndp_rt_timings(inspector, &times);
    if (status != NDP_RT_STATUS_CLOSED)
        fail("a closed inspector answers %s; NDP_RT_STATUS_CLOSED is right.", ndp_rt_status_name(status));
}

/* Open, inspect one picture, close. */
static void look_in(const char *bundle)
{
    ndp_rt_inspector *inspector = NULL;

    call(ndp_rt_inspector_open(bundle, NULL, &inspector), "ndp_rt_inspector_open");
    inspect_alone(inspector, 0);
    call(ndp_rt_inspector_close(inspector), "ndp_rt_inspector_close");
}

/* soak BUNDLE LARGE SECONDS: run cycles for so long, one at least, with picture LARGE for the tiles. */
void do_soak(char **words)
{
    struct picture *large = find_picture(words[1]);
    double start_s = read_clock_s(), seconds = atof(words[2]);
    uint64_t cycle_count = 0, open_count = 0;
    size_t i;

    for (i = 0; i < picture_count; i++)
        if (!outputs[i].wanted)
            make_outputs(&outputs[i], &pictures[i], WANTS_ALL);
    if (!tile_outputs.wanted)
        make_outputs(&tile_outputs, large, WANTS_ALL);
    call_count = 0;
    do {
        run_cycle(words[0], large);
        for (i = 0; i < SHORT_OPEN_COUNT; i++)
            look_in(words[0]);
        cycle_count++;
        open_count += 1 + SHORT_OPEN_COUNT;
    } while (read_clock_s() - start_s < seconds);
    fprintf(answers, "{\"cycles\": %llu, \"opens\": %llu, \"calls\": %llu}", (unsigned long long)cycle_count,
            (unsigned long long)open_count, (unsigned long long)call_count);
}
