/* A grabber that submits while the engine is busy: how long it is held up. */
#include <stdlib.h>

#include "host.h"

enum { MAX_SLOTS = 16 };

struct slot {
    struct outputs outputs;
    ndp_rt_job *job;
};

/* Submit once more from a slot that is free, and time it. */
static bool submit(ndp_rt_inspector *inspector, const struct picture *picture, struct slot *slot, double *submit_us)
{
    double start_s, end_s;
    ndp_rt_status status;

    spoil_outputs(&slot->outputs);
    start_s = read_clock_s();
    status = ndp_rt_inspector_submit(inspector, &picture->image, &slot->outputs.result, NULL, NULL, &slot->job);
    end_s = read_clock_s();
    *submit_us = (end_s - start_s) * 1e6;
    return is_ok(status, "ndp_rt_inspector_submit");
}

static bool wait_for(const struct picture *picture, struct slot *slot)
{
    ndp_rt_job *job = slot->job;

    slot->job = NULL;
    return is_ok(ndp_rt_job_wait(job, -1), "ndp_rt_job_wait")
           && is_expected(&slot->outputs, &picture->alone, picture->index, "submitted");
}

/* Fill the queue, then put in one for each that comes out. */
static bool run_grabber(ndp_rt_inspector *inspector, const struct picture *picture, struct slot *slots,
                        size_t slot_count, size_t count, double *submit_us, size_t *least_waiting)
{
    ndp_rt_times times = {.struct_size = sizeof times};
    double untimed;
    size_t i;

    for (i = 0; i < slot_count; i++)
        if (!submit(inspector, picture, &slots[i], &untimed))
            return false;
    for (i = 0; i < count; i++) {
        if (!wait_for(picture, &slots[i % slot_count]) || !is_ok(ndp_rt_timings(inspector, &times), "ndp_rt_timings"))
            return false;
        if (times.waiting_count < *least_waiting)
            *least_waiting = times.waiting_count;
        if (!submit(inspector, picture, &slots[i % slot_count], &submit_us[i]))
            return false;
    }
    return true;
}

/* submit INSPECTOR PICTURE SLOTS COUNT: time COUNT submits while SLOTS - 1 images wait or run. */
bool do_submit(char **words)
{
    ndp_rt_inspector **inspector = find_inspector(words[0]);
    struct picture *picture = find_picture(words[1]);
    size_t slot_count = strtoul(words[2], NULL, 10), count = strtoul(words[3], NULL, 10), least_waiting = MAX_SLOTS, i;
    struct slot slots[MAX_SLOTS] = {{.job = NULL}};
    double *submit_us, start_s;
    bool is_done;

    if (!inspector || !picture)
        return false;
    if (!picture->is_alone_known || slot_count < 3 || slot_count > MAX_SLOTS)
        return fail("%zu slots are asked for; 3 to %d are taken, and a picture whose answer is known.", slot_count,
                    MAX_SLOTS);
    submit_us = calloc(count + 1, sizeof *submit_us);
    is_done = submit_us || fail("no memory for %zu times.", count);
    for (i = 0; i < slot_count && is_done; i++)
        is_done = make_outputs(&slots[i].outputs, picture, WANTS_MAP);
    start_s = read_clock_s();
    is_done = is_done && run_grabber(*inspector, picture, slots, slot_count, count, submit_us, &least_waiting);
    for (i = 0; i < slot_count; i++)
        if (slots[i].job)
            is_done = wait_for(picture, &slots[i]) && is_done;
    if (is_done) {
        fprintf(answers, "{\"elapsed_s\": %.6f, \"least_waiting\": %zu, ", read_clock_s() - start_s, least_waiting);
        write_numbers("submit_us", submit_us, count);
        fprintf(answers, "}");
    }
    for (i = 0; i < slot_count; i++)
        free_outputs(&slots[i].outputs);
    free(submit_us);
    return is_done;
}
