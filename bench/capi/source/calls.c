/* What a call costs: inspections one after another, and the call that does nothing but copy a struct. */
#include <inttypes.h>
#include <stdlib.h>

#include "host.h"

enum { BLOCK_CALLS = 100, MAX_KEPT = 2000 };

/* Inspect `count` times; times may be NULL. Every answer is checked, outside the clock. */
static bool inspect_often(ndp_rt_inspector *inspector, struct picture *picture, struct outputs *outputs, size_t count,
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
        if (!is_ok(status, "ndp_rt_inspector_inspect")
            || !is_expected(outputs, &picture->alone, picture->index, "alone"))
            return false;
        if (wall_ms) {
            wall_ms[i] = (end_s - start_s) * 1e3;
            total_ms[i] = outputs->result.total_ms;
        }
    }
    return true;
}

/* calls INSPECTOR PICTURE WANTED AGAIN COUNT: time COUNT calls, after AGAIN untimed ones; WANTED: sum of WANTS_. */
bool do_calls(char **words)
{
    ndp_rt_inspector **inspector = find_inspector(words[0]);
    struct picture *picture = find_picture(words[1]);
    size_t count = strtoul(words[4], NULL, 10);
    double *wall_ms, *total_ms;
    struct outputs outputs;
    bool is_done;

    if (!inspector || !picture || !make_outputs(&outputs, picture, atoi(words[2])))
        return false;
    if (!picture->is_alone_known)
        return fail("what picture %zu has to give is not known; ask with `answer` and `expect` first.", picture->index);
    wall_ms = calloc(count + 1, sizeof *wall_ms);
    total_ms = calloc(count + 1, sizeof *total_ms);
    is_done = (wall_ms && total_ms) || fail("no memory for %zu times.", count);
    is_done = is_done && inspect_often(*inspector, picture, &outputs, strtoul(words[3], NULL, 10), NULL, NULL)
              && inspect_often(*inspector, picture, &outputs, count, wall_ms, total_ms);
    if (is_done) {
        fprintf(answers, "{");
        write_numbers("wall_ms", wall_ms, count);
        fprintf(answers, ", ");
        write_numbers("total_ms", total_ms, count);
        fprintf(answers, "}");
    }
    free(wall_ms);
    free(total_ms);
    free_outputs(&outputs);
    return is_done;
}

struct asker {
    pthread_t thread;
    ndp_rt_inspector *inspector;
    pthread_barrier_t *barrier;
    double seconds;
    uint64_t inspection_count; /* what every call has to tell */
    double *block_us;          /* a call's time, in every stride-th block of BLOCK_CALLS */
    size_t block_count, kept_count, stride;
    bool is_right;
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

    pthread_barrier_wait(asker->barrier);
    last_s = read_clock_s() + asker->seconds;
    do {
        start_s = read_clock_s();
        for (k = 0; k < BLOCK_CALLS; k++) {
            times.inspection_count = UINT64_MAX;
            if (ndp_rt_timings(asker->inspector, &times) != NDP_RT_STATUS_OK
                || times.inspection_count != asker->inspection_count)
                asker->is_right = false;
        }
        end_s = read_clock_s();
        keep(asker, (end_s - start_s) * 1e6 / BLOCK_CALLS);
    } while (end_s < last_s);
    return NULL;
}

/* Have the threads ask at the same time, and write what it took. */
static bool ask_together(struct asker *askers, size_t thread_count)
{
    double cpu_s = read_process_cpu_s(), start_s = read_clock_s(), elapsed_s;
    bool is_right = true;
    size_t count = 0, i;

    for (i = 0; i < thread_count; i++)
        if (pthread_create(&askers[i].thread, NULL, ask_often, &askers[i]) != 0)
            abort(); /* the others wait at the barrier for ever */
    for (i = 0; i < thread_count; i++) {
        pthread_join(askers[i].thread, NULL);
        is_right = is_right && askers[i].is_right;
        count += askers[i].block_count;
    }
    elapsed_s = read_clock_s() - start_s;
    cpu_s = read_process_cpu_s() - cpu_s;
    if (!is_right)
        return fail("a wrong answer: ndp_rt_timings failed, or told another number of inspections than there were.");
    fprintf(answers, "{\"calls\": %zu, \"elapsed_s\": %.6f, \"cpu_s\": %.6f", count * BLOCK_CALLS, elapsed_s, cpu_s);
    for (i = 0; i < thread_count; i++) {
        fprintf(answers, i ? ", " : ", \"block_us\": [");
        write_list(askers[i].block_us, askers[i].kept_count);
    }
    fprintf(answers, "]}");
    return true;
}

/* timings INSPECTOR THREADS SECONDS: time ndp_rt_timings in THREADS threads at once, for so long. */
bool do_timings(char **words)
{
    ndp_rt_inspector **inspector = find_inspector(words[0]);
    size_t thread_count = strtoul(words[1], NULL, 10), i;
    ndp_rt_times times = {.struct_size = sizeof times};
    struct asker askers[MAX_THREADS];
    pthread_barrier_t barrier;
    double *block_us;
    bool is_done;

    if (thread_count < 1 || thread_count > MAX_THREADS)
        return fail("%zu threads are asked for; 1 to %d are taken.", thread_count, MAX_THREADS);
    if (!inspector || !is_ok(ndp_rt_timings(*inspector, &times), "ndp_rt_timings"))
        return false;
    block_us = calloc(thread_count * MAX_KEPT, sizeof *block_us);
    if (!block_us || pthread_barrier_init(&barrier, NULL, (unsigned)thread_count) != 0) {
        free(block_us);
        return fail("no memory for the times of %zu threads.", thread_count);
    }
    for (i = 0; i < thread_count; i++)
        askers[i] = (struct asker){.inspector = *inspector,
                                   .barrier = &barrier,
                                   .seconds = atof(words[2]),
                                   .inspection_count = times.inspection_count,
                                   .block_us = block_us + i * MAX_KEPT,
                                   .stride = 1,
                                   .is_right = true};
    is_done = ask_together(askers, thread_count);
    pthread_barrier_destroy(&barrier);
    free(block_us);
    return is_done;
}
