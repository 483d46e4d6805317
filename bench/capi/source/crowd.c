/* Many threads at once, on one inspector and with an inspector each. */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "host.h"

enum { MAX_SAMPLES = 200, LEAST_STEP = 100 /* a sample takes a millisecond */ };

struct worker {
    pthread_t thread;
    ndp_rt_inspector *inspector;
    size_t index;
    struct outputs outputs[MAX_PICTURES];
    uint64_t call_count;
    double longest_ms;
};

/* What the workers of one request share. */
static struct {
    pthread_barrier_t barrier;
    atomic_bool is_over;
    atomic_ullong begun_count, done_count;
    unsigned long long call_limit; /* 0: until end_s */
    double seconds, end_s;
    unsigned long long first_sample, sample_step;
    pthread_mutex_t sample_lock;
    size_t sample_count;
    double sample_calls[MAX_SAMPLES + 2], sample_bytes[MAX_SAMPLES + 2];
} crowd = {.sample_lock = PTHREAD_MUTEX_INITIALIZER};

/* Note the resident memory after so many calls, and tell how far things are. */
static void sample(unsigned long long done_count)
{
    pthread_mutex_lock(&crowd.sample_lock);
    if (crowd.sample_count < MAX_SAMPLES + 2) {
        crowd.sample_calls[crowd.sample_count] = (double)done_count;
        crowd.sample_bytes[crowd.sample_count++] = (double)read_rss_bytes();
    }
    fprintf(answers, "{\"progress\": \"%llu of %llu calls\"}\n", done_count, crowd.call_limit);
    fflush(answers);
    pthread_mutex_unlock(&crowd.sample_lock);
}

static bool run_call(struct worker *worker, unsigned long long number)
{
    size_t i = (size_t)((number + worker->index) % picture_count);
    double start_s = read_clock_s(), elapsed_ms;
    ndp_rt_status status;

    spoil_outputs(&worker->outputs[i]);
    status = ndp_rt_inspector_inspect(worker->inspector, &pictures[i].image, &worker->outputs[i].result);
    elapsed_ms = (read_clock_s() - start_s) * 1e3;
    if (!is_ok(status, "ndp_rt_inspector_inspect")
        || !is_expected(&worker->outputs[i], &pictures[i].alone, i, "beside other threads"))
        return false;
    worker->call_count++;
    if (elapsed_ms > worker->longest_ms)
        worker->longest_ms = elapsed_ms;
    return true;
}

static void *work(void *of)
{
    struct worker *worker = of;
    unsigned long long number, done;

    pthread_barrier_wait(&crowd.barrier); /* all are there: the clock starts */
    pthread_barrier_wait(&crowd.barrier);
    while (!atomic_load(&crowd.is_over)) {
        number = atomic_fetch_add(&crowd.begun_count, 1);
        if (crowd.call_limit ? number >= crowd.call_limit : read_clock_s() >= crowd.end_s)
            break;
        if (!run_call(worker, number)) {
            atomic_store(&crowd.is_over, true);
            break;
        }
        done = atomic_fetch_add(&crowd.done_count, 1) + 1;
        if (crowd.call_limit
            && (done == crowd.first_sample || done == crowd.call_limit
                || (done > crowd.first_sample && (done - crowd.first_sample) % crowd.sample_step == 0)))
            sample(done);
    }
    return NULL;
}

static void write_crowd(const struct worker *workers, size_t count, double elapsed_s, double cpu_s)
{
    double calls[MAX_THREADS], longest_ms[MAX_THREADS];
    size_t i;

    for (i = 0; i < count; i++) {
        calls[i] = (double)workers[i].call_count;
        longest_ms[i] = workers[i].longest_ms;
    }
    fprintf(answers, "{\"calls\": %llu, \"elapsed_s\": %.6f, \"cpu_s\": %.6f, ", atomic_load(&crowd.done_count),
            elapsed_s, cpu_s);
    write_numbers("thread_calls", calls, count);
    fprintf(answers, ", ");
    write_numbers("thread_longest_ms", longest_ms, count);
    fprintf(answers, ", ");
    write_numbers("sample_calls", crowd.sample_calls, crowd.sample_count);
    fprintf(answers, ", ");
    write_numbers("sample_bytes", crowd.sample_bytes, crowd.sample_count);
    fprintf(answers, "}");
}

/* Let the workers work until the limit, and write what they did. */
static bool run_crowd(struct worker *workers, size_t count)
{
    double start_s, cpu_s;
    size_t i;

    for (i = 0; i < count; i++)
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0)
            abort(); /* the others wait at the barrier for ever */
    pthread_barrier_wait(&crowd.barrier);
    start_s = read_clock_s();
    cpu_s = read_process_cpu_s();
    crowd.end_s = start_s + crowd.seconds;
    pthread_barrier_wait(&crowd.barrier);
    for (i = 0; i < count; i++)
        pthread_join(workers[i].thread, NULL);
    if (has_failed())
        return false;
    write_crowd(workers, count, read_clock_s() - start_s, read_process_cpu_s() - cpu_s);
    return true;
}

static void set_limits(unsigned long long call_limit, double seconds)
{
    atomic_store(&crowd.is_over, false);
    atomic_store(&crowd.begun_count, 0);
    atomic_store(&crowd.done_count, 0);
    crowd.call_limit = call_limit;
    crowd.seconds = seconds;
    crowd.first_sample = call_limit > 2000 ? 1000 : call_limit / 2;
    crowd.sample_step = (call_limit - crowd.first_sample) / MAX_SAMPLES + 1;
    if (crowd.sample_step < LEAST_STEP)
        crowd.sample_step = LEAST_STEP;
    crowd.sample_count = 0;
}

static bool prepare(struct worker *worker, size_t index, ndp_rt_inspector *inspector)
{
    size_t i;

    worker->index = index;
    worker->inspector = inspector;
    for (i = 0; i < picture_count; i++) {
        if (!pictures[i].is_alone_known)
            return fail("what picture %zu has to give is not known; ask with `answer` and `expect` first.", i);
        if (!make_outputs(&worker->outputs[i], &pictures[i], WANTS_MAP))
            return false;
    }
    return true;
}

/* crowd TOGETHER EACH CALLS SECONDS FIRST: TOGETHER threads on inspector 0 and EACH on inspectors FIRST, FIRST + 1 and
   so on; CALLS in all or, where that is 0, for SECONDS. */
bool do_crowd(char **words)
{
    size_t together = strtoul(words[0], NULL, 10), each = strtoul(words[1], NULL, 10), first, i, k;
    size_t count = together + each;
    struct worker *workers;
    bool is_done = true;

    first = strtoul(words[4], NULL, 10);
    if (count < 1 || count > MAX_THREADS || inspector_count < 1 || picture_count < 1 || first + each > inspector_count)
        return fail("%zu threads on one and %zu on their own need that many inspectors, a picture, and are 1 to %d.",
                    together, each, MAX_THREADS);
    workers = calloc(count, sizeof *workers);
    if (!workers || pthread_barrier_init(&crowd.barrier, NULL, (unsigned)count + 1) != 0) {
        free(workers);
        return fail("no memory for %zu threads.", count);
    }
    set_limits(strtoull(words[2], NULL, 10), atof(words[3]));
    for (i = 0; i < count && is_done; i++)
        is_done = prepare(&workers[i], i, inspectors[i < together ? 0 : first + i - together]);
    is_done = is_done && run_crowd(workers, count);
    for (i = 0; i < count; i++)
        for (k = 0; k < picture_count; k++)
            free_outputs(&workers[i].outputs[k]);
    pthread_barrier_destroy(&crowd.barrier);
    free(workers);
    return is_done;
}
