/* Threads that open, submit, cancel, wait and close at random, in each other's way: turmoil BUNDLE THREADS STEPS SEED

   Every call may be refused, but only with a status that fits; every image that was accepted is called back exactly
   once, and nothing is touched afterwards. Prints how many were accepted and how many were called back. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ndp_rt.h"

enum { INSPECTORS = 4, RECORDS = 64, SIDE = 16, MOST_THREADS = 32 };

/* An image on its way. It belongs to whoever took it from `resting`, and to the library once it was accepted. */
struct record {
    uint8_t pixels[SIDE * SIDE];
    float map[SIDE * SIDE];
    ndp_rt_result result;
    ndp_rt_job *job; /* published for all, under `lock` */
    int is_resting, call_count;
};

struct person {
    pthread_t thread;
    unsigned seed;
    int step_count;
};

static const char *bundle;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static ndp_rt_inspector *inspectors[INSPECTORS]; /* closed ones too */
static struct record records[RECORDS];
static long accepted_count, called_count, logged_count;

static void fail(const char *what, ndp_rt_status status)
{
    fprintf(stderr, "%s: %s %s\n", what, ndp_rt_status_name(status), ndp_rt_last_error());
    abort();
}

/* Fail unless the status is OK or one of these; the list ends with OK. */
static void allow(const char *what, ndp_rt_status status, const ndp_rt_status *allowed)
{
    while (*allowed != status && *allowed != NDP_RT_STATUS_OK)
        allowed++;
    if (*allowed != status)
        fail(what, status);
    if (status != NDP_RT_STATUS_OK && strlen(ndp_rt_last_error()) < 20)
        fail("message", status);
}

static ndp_rt_inspector *pick_inspector(unsigned *seed)
{
    ndp_rt_inspector *found;

    pthread_mutex_lock(&lock);
    found = inspectors[rand_r(seed) % INSPECTORS];
    pthread_mutex_unlock(&lock);
    return found;
}

static struct record *take_record(unsigned *seed)
{
    struct record *found = NULL;
    int i, first = rand_r(seed);

    pthread_mutex_lock(&lock);
    for (i = 0; i < RECORDS && !found; i++)
        if (records[(first + i) % RECORDS].is_resting)
            found = &records[(first + i) % RECORDS];
    if (found)
        found->is_resting = 0;
    pthread_mutex_unlock(&lock);
    return found;
}

static void rest(struct record *record)
{
    pthread_mutex_lock(&lock);
    record->is_resting = 1;
    pthread_mutex_unlock(&lock);
}

static ndp_rt_image make_image(struct record *record, unsigned *seed)
{
    static const uint8_t FIRST[] = {7, 8, 9, 255};
    ndp_rt_image image = {0};

    record->pixels[0] = FIRST[rand_r(seed) % 4]; /* the fake bridge fails with 255 */
    image.struct_size = sizeof image;
    image.pixel_format = NDP_RT_PIXEL_GREY8;
    image.pixels = record->pixels;
    image.width_px = image.height_px = SIDE;
    image.stride_bytes = SIDE;
    return image;
}

static void done(void *user, ndp_rt_status status, ndp_rt_result *result)
{
    static const ndp_rt_status ENDS[] = {NDP_RT_STATUS_ENGINE, NDP_RT_STATUS_CANCELLED, NDP_RT_STATUS_DROPPED,
                                         NDP_RT_STATUS_EXPIRED, NDP_RT_STATUS_OK};
    struct record *record = user;

    allow("done", status, ENDS);
    if (result != &record->result)
        fail("result of another", status);
    pthread_mutex_lock(&lock);
    record->call_count++;
    called_count++;
    record->is_resting = 1;
    pthread_mutex_unlock(&lock);
}

static void submit(unsigned *seed)
{
    static const ndp_rt_status REFUSALS[] = {NDP_RT_STATUS_QUEUE_FULL, NDP_RT_STATUS_CLOSED, NDP_RT_STATUS_OK};
    struct record *record = take_record(seed);
    ndp_rt_job *job = NULL;
    ndp_rt_image image;
    ndp_rt_status status;

    if (!record)
        return;
    image = make_image(record, seed);
    image.deadline_ms = (uint32_t)rand_r(seed) % 3;
    memset(&record->result, 0, sizeof record->result);
    record->result.struct_size = sizeof record->result;
    record->result.map = record->map;
    record->result.map_stride_bytes = SIDE * sizeof(float);
    record->result.map_capacity_bytes = sizeof record->map;
    status = ndp_rt_inspector_submit(pick_inspector(seed), &image, &record->result, done, record,
                                     rand_r(seed) % 3 ? &job : NULL);
    allow("submit", status, REFUSALS);
    if (status != NDP_RT_STATUS_OK) {
        rest(record);
        return;
    }
    pthread_mutex_lock(&lock);
    accepted_count++;
    records[rand_r(seed) % RECORDS].job = job; /* in any place, so that some are never waited for, others twice */
    pthread_mutex_unlock(&lock);
}

static void wait_for_job(unsigned *seed)
{
    static const ndp_rt_status ENDS[] = {NDP_RT_STATUS_TIMEOUT, NDP_RT_STATUS_BUSY,      NDP_RT_STATUS_CLOSED,
                                         NDP_RT_STATUS_ENGINE,  NDP_RT_STATUS_CANCELLED, NDP_RT_STATUS_DROPPED,
                                         NDP_RT_STATUS_EXPIRED, NDP_RT_STATUS_OK};
    static const int32_t TIMEOUTS_MS[] = {0, 1, 5, -1};
    ndp_rt_job *job;

    pthread_mutex_lock(&lock);
    job = records[rand_r(seed) % RECORDS].job;
    pthread_mutex_unlock(&lock);
    if (job)
        allow("wait", ndp_rt_job_wait(job, TIMEOUTS_MS[rand_r(seed) % 4]), ENDS);
}

static void cancel(unsigned *seed)
{
    static const ndp_rt_status ENDS[] = {NDP_RT_STATUS_BUSY, NDP_RT_STATUS_CLOSED, NDP_RT_STATUS_OK};
    const ndp_rt_result *one = &records[rand_r(seed) % RECORDS].result;

    allow("cancel", ndp_rt_inspector_cancel(pick_inspector(seed), rand_r(seed) % 4 ? one : NULL), ENDS);
}

static void inspect(unsigned *seed)
{
    static const ndp_rt_status ENDS[] = {NDP_RT_STATUS_CLOSED, NDP_RT_STATUS_ENGINE, NDP_RT_STATUS_OK};
    struct record *record = take_record(seed);
    ndp_rt_result result = {0};
    ndp_rt_image image;

    if (!record)
        return;
    image = make_image(record, seed);
    result.struct_size = sizeof result;
    allow("inspect", ndp_rt_inspector_inspect(pick_inspector(seed), &image, &result), ENDS);
    rest(record);
}

static void open_again(unsigned *seed)
{
    static const ndp_rt_status ENDS[] = {NDP_RT_STATUS_CLOSED, NDP_RT_STATUS_OK};
    ndp_rt_open_options options = {0};
    ndp_rt_inspector *inspector = NULL, *former;
    int place = rand_r(seed) % INSPECTORS;
    ndp_rt_status status;

    options.struct_size = sizeof options;
    options.threads = 1;
    options.flags = rand_r(seed) % 2 ? NDP_RT_OPEN_NEWEST_WINS : 0;
    options.queue_capacity = 1 + (uint32_t)rand_r(seed) % 8;
    status = ndp_rt_inspector_open(bundle, &options, &inspector);
    if (status != NDP_RT_STATUS_OK)
        fail("open", status);
    pthread_mutex_lock(&lock);
    former = inspectors[place];
    inspectors[place] = inspector;
    pthread_mutex_unlock(&lock);
    allow("close", ndp_rt_inspector_close(former), ENDS);
}

static void count_message(void *user, int32_t level, const char *message)
{
    (void)level;
    if (strlen(message) > 0)
        __atomic_add_fetch((long *)user, 1, __ATOMIC_RELAXED);
}

static void *work(void *argument)
{
    static const ndp_rt_status ENDS[] = {NDP_RT_STATUS_CLOSED, NDP_RT_STATUS_OK};
    struct person *person = argument;
    unsigned *seed = &person->seed;
    ndp_rt_times times = {0};
    int i;

    times.struct_size = sizeof times;
    for (i = 0; i < person->step_count; i++) {
        int kind = rand_r(seed) % 100;

        if (kind < 45)
            submit(seed);
        else if (kind < 70)
            wait_for_job(seed);
        else if (kind < 75)
            cancel(seed);
        else if (kind < 85)
            inspect(seed);
        else if (kind < 90)
            allow("timings", ndp_rt_timings(pick_inspector(seed), &times), ENDS);
        else if (kind < 93)
            ndp_rt_log_set(rand_r(seed) % 2 ? count_message : NULL, &logged_count, NDP_RT_LOG_WARNING);
        else if (kind < 96)
            allow("close", ndp_rt_inspector_close(pick_inspector(seed)), ENDS);
        else
            open_again(seed);
    }
    return NULL;
}

int main(int count, char **words)
{
    struct person people[MOST_THREADS];
    int i, thread_count = count > 4 ? atoi(words[2]) : 0;
    unsigned seed = 1;
    long sum = 0;

    if (thread_count < 1 || thread_count > MOST_THREADS)
        return 2;
    bundle = words[1];
    for (i = 0; i < RECORDS; i++)
        records[i].is_resting = 1;
    for (i = 0; i < 3 * INSPECTORS; i++)
        open_again(&seed);
    for (i = 0; i < thread_count; i++) {
        people[i] = (struct person){.seed = (unsigned)(atoi(words[4]) * 1000 + i), .step_count = atoi(words[3])};
        if (pthread_create(&people[i].thread, NULL, work, &people[i]) != 0)
            return 3;
    }
    for (i = 0; i < thread_count; i++)
        pthread_join(people[i].thread, NULL);
    for (i = 0; i < INSPECTORS; i++)
        ndp_rt_inspector_close(inspectors[i]);
    ndp_rt_log_set(NULL, NULL, 0);
    for (i = 0; i < RECORDS; i++)
        sum += records[i].call_count + (records[i].is_resting ? 0 : 1000000);
    printf("accepted %ld called %ld\n", accepted_count, called_count);
    return accepted_count == called_count && sum == called_count ? 0 : 1;
}
