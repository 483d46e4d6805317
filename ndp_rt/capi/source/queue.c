/* Inspects submitted images: a queue and a thread for each inspector.

   Everything here is guarded by ndp_lock. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "jobs.h"

static __thread const struct ndp_inspector *own_inspector; /* whose worker this thread is */

bool ndp_is_worker_of(const struct ndp_inspector *inspector)
{
    return own_inspector == inspector;
}

/* Return the next job, running from now on, or NULL when the inspector closes and none is left. */
static struct ndp_job *take_next(struct ndp_inspector *inspector, bool *is_cancelled)
{
    struct ndp_job *job;

    pthread_mutex_lock(&ndp_lock);
    while (!inspector->first && !inspector->is_closing)
        ndp_wait(&inspector->has_work, &ndp_lock);
    job = inspector->first;
    if (job) {
        inspector->first = job->next;
        if (!inspector->first)
            inspector->last = NULL;
        inspector->times.waiting_count--;
    }
    inspector->running = job;
    *is_cancelled = inspector->is_closing;
    pthread_mutex_unlock(&ndp_lock);
    return job;
}

static double get_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e3 + now.tv_nsec * 1e-6;
}

static void run(struct ndp_job *job, bool is_cancelled)
{
    if (is_cancelled)
        job->status = ndp_fail(NDP_RT_STATUS_CANCELLED, "the inspector was closed before the image's turn came.");
    else
        job->status = ndp_run(job->inspector, &job->image, 1, -1, &job->read, get_ms() - job->submitted_ms);
    if (job->status == NDP_RT_STATUS_OK || job->status == NDP_RT_STATUS_BUFFER_TOO_SMALL)
        ndp_write_result(&job->read, job->result);
    if (job->status != NDP_RT_STATUS_OK)
        job->message = strdup(ndp_rt_last_error());
    pthread_mutex_lock(&ndp_lock);
    job->inspector->running = NULL; /* the callback may submit the same result again */
    pthread_mutex_unlock(&ndp_lock);
    if (job->done)
        job->done(job->user, job->status, job->result);
}

static void *work(void *argument)
{
    struct ndp_inspector *inspector = argument;
    struct ndp_job *job;
    bool is_cancelled;

    own_inspector = inspector;
    while ((job = take_next(inspector, &is_cancelled))) {
        run(job, is_cancelled);
        pthread_mutex_lock(&ndp_lock);
        job->has_ended = true;
        if (job->handle)
            pthread_cond_broadcast(&job->end);
        else
            ndp_job_free(job);
        pthread_mutex_unlock(&ndp_lock);
    }
    return NULL;
}

/* Tell whether there is room for a job with this result; under ndp_lock. */
static ndp_rt_status check_room(struct ndp_inspector *inspector, const ndp_rt_result *result)
{
    const struct ndp_job *job;

    if (inspector->is_closing)
        return ndp_fail(NDP_RT_STATUS_CLOSED, "the inspector is closed; open another.");
    if (inspector->times.waiting_count >= inspector->queue_capacity)
        return ndp_fail(
            NDP_RT_STATUS_QUEUE_FULL,
            "queue: expected fewer than its capacity of %u images, got as many. Drop this one, wait for a job, or "
            "open with a larger queue_capacity.",
            inspector->queue_capacity);
    for (job = inspector->first; job && job->result != result; job = job->next)
        ;
    if (job || (inspector->running && inspector->running->result == result))
        return ndp_fail(NDP_RT_STATUS_BUSY,
                        "result: expected one of its own for each job, got %p, of a job that has not ended.",
                        (const void *)result);
    return NDP_RT_STATUS_OK;
}

/* Fill a set with the signals that are for the host's threads. Not in it: faults, and those with which the runtimes of
   other languages (Mono, .NET) stop a thread that once ran a callback of theirs, and wait until it answers. */
static void list_host_signals(sigset_t *set)
{
    static const int OWN[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT, SIGPWR, SIGXCPU};
    int number;
    size_t i;

    sigfillset(set);
    for (i = 0; i < sizeof OWN / sizeof *OWN; i++)
        sigdelset(set, OWN[i]);
    for (number = SIGRTMIN; number <= SIGRTMAX; number++)
        sigdelset(set, number);
}

/* Start the inspector's thread, which takes none of the host's signals. */
static bool start_worker(struct ndp_inspector *inspector)
{
    sigset_t blocked, before;

    list_host_signals(&blocked);
    pthread_sigmask(SIG_BLOCK, &blocked, &before);
    inspector->has_worker = pthread_create(&inspector->worker, NULL, work, inspector) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return inspector->has_worker;
}

static ndp_rt_status append(struct ndp_inspector *inspector, struct ndp_job *job)
{
    ndp_rt_status status = check_room(inspector, job->result);

    if (status != NDP_RT_STATUS_OK)
        return status;
    if (!inspector->has_worker && !start_worker(inspector))
        return ndp_no_memory();
    if (inspector->last)
        inspector->last->next = job;
    else
        inspector->first = job;
    inspector->last = job;
    inspector->times.waiting_count++;
    if (job->handle)
        ndp_job_keep(job);
    pthread_cond_signal(&inspector->has_work);
    return NDP_RT_STATUS_OK;
}

ndp_rt_status ndp_rt_inspector_submit(ndp_rt_inspector *handle, const ndp_rt_image *image, ndp_rt_result *result,
                                      ndp_rt_done_callback done, void *user, ndp_rt_job **out)
{
    ndp_rt_image read_image;
    ndp_rt_result read_result;
    struct ndp_inspector *inspector;
    struct ndp_job *job;
    void *object;
    ndp_rt_status status = ndp_read_image(image, &read_image);

    if (status == NDP_RT_STATUS_OK)
        status = ndp_read_result(result, &read_image, &read_result);
    if (status == NDP_RT_STATUS_OK && !done && !out)
        status = ndp_fail(NDP_RT_STATUS_INPUT,
                          "done and job: expected one of them, to learn when the job has ended, got NULL for both.");
    if (status == NDP_RT_STATUS_OK)
        status = ndp_handle_take(handle, NDP_INSPECTOR, &object);
    if (status != NDP_RT_STATUS_OK)
        return status;
    inspector = object;
    job = ndp_job_make(inspector, out != NULL);
    if (job) {
        const void *job_handle = job->handle;

        job->image = read_image;
        job->read = read_result;
        job->result = result;
        job->done = done;
        job->user = user;
        job->submitted_ms = get_ms();
        pthread_mutex_lock(&ndp_lock);
        status = append(inspector, job);
        if (status == NDP_RT_STATUS_OK && out)
            *out = (ndp_rt_job *)job_handle; /* before a callback can ask for it */
        pthread_mutex_unlock(&ndp_lock);
        if (status != NDP_RT_STATUS_OK) {
            if (job->handle)
                ndp_job_free_claimed(job); /* it never came into a list */
            else
                ndp_job_free(job);
        }
    } else {
        status = ndp_no_memory();
    }
    ndp_handle_drop(handle);
    return status;
}

void ndp_end_queue(struct ndp_inspector *inspector)
{
    int cancel_state;

    pthread_mutex_lock(&ndp_lock);
    inspector->is_closing = true;
    pthread_cond_signal(&inspector->has_work);
    pthread_mutex_unlock(&ndp_lock);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    if (inspector->has_worker)
        pthread_join(inspector->worker, NULL);
    pthread_setcancelstate(cancel_state, NULL);
    ndp_job_free_kept(inspector);
}
