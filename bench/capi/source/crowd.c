/* Many threads at once, on one inspector and with an inspector each. */
#include <stdatomic.h>
#include <stdlib.h>

#include "host.h"

enum { FIRST_CALLS = 1000, MAX_PROGRESS = 200, LEAST_STEP = 100 /* who reads it looks at the memory each time */ };

struct worker {
    ndp_rt_inspector *inspector;
    size_t index;
    struct outputs outputs[MAX_PICTURES];
    uint64_t call_count;
    double longest_ms;
};

/* What the workers of one request share. */
static struct {
    atomic_ullong begun_count, done_count;
    unsigned long long call_limit; /* 0: for so many seconds */
    double seconds;
    unsigned long long first, step; /* calls after which progress is told */
} crowd;

static void run_call(struct worker *worker, unsigned long long number)
{
    size_t i = (size_t)((number + worker->index) % picture_count);
    struct outputs *outputs = &worker->outputs[i];
    double start_s = read_clock_s(), elapsed_ms;
    ndp_rt_status status;

    spoil_outputs(outputs);
    status = ndp_rt_inspector_inspect(worker->inspector, &pictures[i].image, &outputs->result);
    elapsed_ms = (read_clock_s() - start_s) * 1e3;
    check(status, "ndp_rt_inspector_inspect");
    check_answer(outputs, &pictures[i].alone, i, "beside other threads");
    worker->call_count++;
    if (elapsed_ms > worker->longest_ms)
        worker->longest_ms = elapsed_ms;
}

static void *work(void *of)
{
    struct worker *worker = of;
    unsigned long long number, done;
    double end_s;

    wait_for_all();
    end_s = read_clock_s() + crowd.seconds;
    while (!has_failed()) {
        number = atomic_fetch_add(&crowd.begun_count, 1);
        if (crowd.call_limit ? number >= crowd.call_limit : read_clock_s() >= end_s)
            break;
        run_call(worker, number);
        done = atomic_fetch_add(&crowd.done_count, 1) + 1;
        if (crowd.call_limit
            && (done == crowd.call_limit || (done >= crowd.first && (done - crowd.first) % crowd.step == 0))) {
            fprintf(answers, "{\"progress\": %llu}\n", done); /* whole lines, whichever thread writes them */
            fflush(answers);
        }
    }
    return NULL;
}

static void set_limits(unsigned long long call_limit, double seconds)
{
    atomic_store(&crowd.begun_count, 0);
    atomic_store(&crowd.done_count, 0);
    crowd.call_limit = call_limit;
    crowd.seconds = seconds;
    crowd.first = call_limit > 2 * FIRST_CALLS ? FIRST_CALLS : call_limit / 2;
    crowd.step = (call_limit - crowd.first) / MAX_PROGRESS + 1;
    if (crowd.step < LEAST_STEP)
        crowd.step = LEAST_STEP;
}

static void write_crowd(const struct worker *workers, size_t count, struct times times)
{
    double calls[MAX_THREADS], longest_ms[MAX_THREADS];
    size_t i;

    for (i = 0; i < count; i++) {
        calls[i] = (double)workers[i].call_count;
        longest_ms[i] = workers[i].longest_ms;
    }
    fprintf(answers, "{\"calls\": %llu, \"elapsed_s\": %.6f, \"cpu_s\": %.6f, ", atomic_load(&crowd.done_count),
            times.elapsed_s, times.cpu_s);
    write_numbers("thread_calls", calls, count);
    fprintf(answers, ", ");
    write_numbers("thread_longest_ms", longest_ms, count);
    fprintf(answers, "}");
}

/* crowd TOGETHER EACH CALLS SECONDS FIRST: TOGETHER threads on inspector 0 and EACH on inspectors FIRST, FIRST + 1 and
   so on; CALLS in all or, where that is 0, for SECONDS. */
void do_crowd(char **words)
{
    size_t together = strtoul(words[0], NULL, 10), each = strtoul(words[1], NULL, 10), i, k;
    size_t count = together + each, first = strtoul(words[4], NULL, 10);
    struct worker *workers;

    if (count < 1 || count > MAX_THREADS || inspector_count < 1 || picture_count < 1 || first + each > inspector_count)
        fail("%zu threads on one and %zu on their own need that many inspectors, a picture, and are 1 to %d.", together,
             each, MAX_THREADS);
    workers = take_memory(count, sizeof *workers);
    for (i = 0; i < count; i++) {
        workers[i].index = i;
        workers[i].inspector = inspectors[i < together ? 0 : first + i - together];
        for (k = 0; k < picture_count; k++) {
            if (!pictures[k].is_alone_known)
                fail("what picture %zu has to give is not known; ask with `answer` and `expect` first.", k);
            make_outputs(&workers[i].outputs[k], &pictures[k], WANTS_MAP);
        }
    }
    set_limits(strtoull(words[2], NULL, 10), atof(words[3]));
    write_crowd(workers, count, run_together(work, workers, count, sizeof *workers));
    for (i = 0; i < count; i++)
        for (k = 0; k < picture_count; k++)
            free_outputs(&workers[i].outputs[k]);
    free(workers);
}
