/* What a call costs: inspections one after another, submits while the engine is busy, and the call that does nothing
   but copy a struct. */
#include <stdlib.h>

#include "host.h"

enum { BLOCK_CALLS = 100, MAX_KEPT = 2000, MAX_SLOTS = 16 };

/* Inspect `count` times. Every answer is checked, outside the clock. */
static void inspect_often(ndp_rt_inspector *inspector, struct picture *picture, struct outputs *outputs, size_t count,
                          double *wall_ms, double *total_ms)
{
    ndp_rt_status status;
    double start_s, end_s;
    size_t i;

    for (i = 0; i < count; i++) {
        spoil_outputs(outputs);
        start_s = read_clock_s();
        status = ndp_rt_inspector_inspect(inspector, &picture->image, &outputs->result);
        end_s = read_clock_s();
        check(status, "ndp_rt_inspector_inspect");
        check_answer(outputs, &picture->alone, picture->index, "alone");
        wall_ms[i] = (end_s - start_s) * 1e3;
        total_ms[i] = outputs->result.total_ms;
    }
}

/* calls INSPECTOR PICTURE WANTED AGAIN COUNT: time COUNT calls, after AGAIN untimed ones; WANTED: sum of WANTS_. */
void do_calls(char **words)
{
    ndp_rt_inspector *inspector = find_inspector(words[0]);
    struct picture *picture = find_known_picture(words[1]);
    size_t again = strtoul(words[3], NULL, 10), count = again + strtoul(words[4], NULL, 10);
    double *wall_ms = take_memory(count, sizeof *wall_ms), *total_ms = take_memory(count, sizeof *total_ms);
    struct outputs outputs;

    make_outputs(&outputs, picture, atoi(words[2]));
    inspect_often(inspector, picture, &outputs, count, wall_ms, total_ms);
    fprintf(answers, "{");
    write_numbers("wall_ms", wall_ms + again, count - again);
    fprintf(answers, ", ");
    write_numbers("total_ms", total_ms + again, count - again);
    fprintf(answers, "}");
    free(wall_ms);
    free(total_ms);
    free_outputs(&outputs);
}

struct slot {
    struct outputs outputs;
    ndp_rt_job *job;
};

/* Submit once more from a slot that is free, and return the microseconds. */
static double submit(ndp_rt_inspector *inspector, const struct picture *picture, struct slot *slot)
{
    double start_s, end_s;
    ndp_rt_status status;

    spoil_outputs(&slot->outputs);
    start_s = read_clock_s();
    status = ndp_rt_inspector_submit(inspector, &picture->image, &slot->outputs.result, NULL, NULL, &slot->job);
    end_s = read_clock_s();
    check(status, "ndp_rt_inspector_submit");
    return (end_s - start_s) * 1e6;
}

static void wait_for(struct slot *slot)
{
    ndp_rt_job *job = slot->job;

    slot->job = NULL;
    check(ndp_rt_job_wait(job, -1), "ndp_rt_job_wait");
}

/* submit INSPECTOR PICTURE SLOTS COUNT: fill a queue of SLOTS, then put in one for each that comes out, COUNT times. */
void do_submit(char **words)
{
    ndp_rt_inspector *inspector = find_inspector(words[0]);
    struct picture *picture = find_known_picture(words[1]);
    size_t slot_count = strtoul(words[2], NULL, 10), count = strtoul(words[3], NULL, 10), least_waiting = MAX_SLOTS, i;
    static struct slot slots[MAX_SLOTS]; /* results of jobs that a failure leaves behind are written there */
    ndp_rt_times times = {.struct_size = sizeof times};
    double *submit_us, start_s;

    if (slot_count < 3 || slot_count > MAX_SLOTS)
        fail("slots: expected 3 to %d, got %zu.", MAX_SLOTS, slot_count);
    submit_us = take_memory(count, sizeof *submit_us);
    for (i = 0; i < MAX_SLOTS; i++) {
        if (slots[i].job)
            wait_for(&slots[i]);
        if (i < slot_count)
            make_outputs(&slots[i].outputs, picture, WANTS_MAP);
    }
    start_s = read_clock_s();
    for (i = 0; i < slot_count; i++)
        submit(inspector, picture, &slots[i]);
    for (i = 0; i < count + slot_count; i++) {
        struct slot *slot = &slots[i % slot_count];

        wait_for(slot);
        check_answer(&slot->outputs, &picture->alone, picture->index, "submitted");
        if (i >= count)
            continue;
        check(ndp_rt_timings(inspector, &times), "ndp_rt_timings");
        if (times.waiting_count < least_waiting)
            least_waiting = times.waiting_count;
        submit_us[i] = submit(inspector, picture, slot);
    }
    fprintf(answers, "{\"elapsed_s\": %.6f, \"least_waiting\": %zu, ", read_clock_s() - start_s, least_waiting);
    write_numbers("submit_us", submit_us, count);
    fprintf(answers, "}");
    for (i = 0; i < slot_count; i++)
        free_outputs(&slots[i].outputs);
    free(submit_us);
}

struct asker {
    ndp_rt_inspector *inspector;
    double seconds;
    uint64_t inspection_count; /* what every call has to tell */
    double block_us[MAX_KEPT]; /* a call's time, in every stride-th block of BLOCK_CALLS */
    size_t block_count, kept_count, stride;
};

/* Keep a block's time or, where there are too many, drop every other one and keep fewer from then on. */
static void keep(struct asker *asker, double call_us)
{
    size_t i;

    if (asker->kept_count == MAX_KEPT) {
        for (i = 0; i < MAX_KEPT / 2; i++)
            asker->block_us[i] = asker->block_us[2 * i];
        asker->kept_count = MAX_KEPT / 2;
        asker->stride *= 2;
    }
    if (asker->block_count++ % asker->stride == 0)
        asker->block_us[asker->kept_count++] = call_us;
}

static void *ask_often(void *of)
{
    struct asker *asker = of;
    ndp_rt_times times = {.struct_size = sizeof times};
    double start_s, end_s, last_s;
    size_t k;

    wait_for_all();
    last_s = read_clock_s() + asker->seconds;
    do {
        start_s = read_clock_s();
        for (k = 0; k < BLOCK_CALLS; k++) {
            times.inspection_count = UINT64_MAX;
            if (ndp_rt_timings(asker->inspector, &times) != NDP_RT_STATUS_OK
                || times.inspection_count != asker->inspection_count)
                fail("a wrong answer: ndp_rt_timings failed, or told another number of inspections than there were.");
        }
        end_s = read_clock_s();
        keep(asker, (end_s - start_s) * 1e6 / BLOCK_CALLS);
    } while (end_s < last_s);
    return NULL;
}

/* timings INSPECTOR THREADS SECONDS: time ndp_rt_timings in THREADS threads at once, for so long. */
void do_timings(char **words)
{
    ndp_rt_inspector *inspector = find_inspector(words[0]);
    size_t thread_count = strtoul(words[1], NULL, 10), count = 0, i;
    ndp_rt_times found = {.struct_size = sizeof found};
    struct asker *askers;
    struct times times;

    if (thread_count < 1 || thread_count > MAX_THREADS)
        fail("threads: expected 1 to %d, got %zu.", MAX_THREADS, thread_count);
    check(ndp_rt_timings(inspector, &found), "ndp_rt_timings");
    askers = take_memory(thread_count, sizeof *askers);
    for (i = 0; i < thread_count; i++) {
        askers[i].inspector = inspector;
        askers[i].seconds = atof(words[2]);
        askers[i].inspection_count = found.inspection_count;
        askers[i].stride = 1;
    }
    times = run_together(ask_often, askers, thread_count, sizeof *askers);
    for (i = 0; i < thread_count; i++)
        count += askers[i].block_count;
    fprintf(answers, "{\"calls\": %zu, \"elapsed_s\": %.6f, \"cpu_s\": %.6f", count * BLOCK_CALLS, times.elapsed_s,
            times.cpu_s);
    for (i = 0; i < thread_count; i++) {
        fprintf(answers, i ? ", " : ", \"block_us\": [");
        write_list(askers[i].block_us, askers[i].kept_count);
    }
    fprintf(answers, "]}");
    free(askers);
}
