/* Makes, keeps and frees jobs, and waits for them.

   Everything here is guarded by ndp_lock. A job with a handle is freed by whoever waits for it, or by the inspector's
   close; one without by the worker. */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "jobs.h"

void ndp_job_free(struct ndp_job *job)
{
    pthread_cond_destroy(&job->end);
    free(job->message);
    free(job);
}

struct ndp_job *ndp_job_make(struct ndp_inspector *inspector, bool has_handle)
{
    struct ndp_job *job = calloc(1, sizeof *job);
    pthread_condattr_t attributes;

    if (!job)
        return NULL;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&job->end, &attributes);
    pthread_condattr_destroy(&attributes);
    job->inspector = inspector;
    if (has_handle) {
        job->handle = ndp_handle_make(NDP_JOB, job);
        if (!job->handle) {
            ndp_job_free(job);
            return NULL;
        }
    }
    return job;
}

void ndp_job_keep(struct ndp_job *job)
{
    struct ndp_inspector *inspector = job->inspector;

    job->next_kept = inspector->kept;
    if (inspector->kept)
        inspector->kept->previous_kept = job;
    inspector->kept = job;
}

/* Take a job that has ended out of its inspector's list; the caller then owes ndp_job_free_claimed. */
static void claim(struct ndp_job *job)
{
    job->is_claimed = true;
    if (job->previous_kept)
        job->previous_kept->next_kept = job->next_kept;
    else
        job->inspector->kept = job->next_kept;
    if (job->next_kept)
        job->next_kept->previous_kept = job->previous_kept;
}

/* Free a job with a handle, once nobody looks at it any more. */
void ndp_job_free_claimed(struct ndp_job *job)
{
    void *object;

    ndp_handle_shut(job->handle, NDP_JOB, &object);
    ndp_handle_free(job->handle);
    ndp_job_free(job);
}

void ndp_job_free_kept(struct ndp_inspector *inspector)
{
    struct ndp_job *job;

    do {
        pthread_mutex_lock(&ndp_lock);
        job = inspector->kept;
        if (job)
            claim(job);
        pthread_mutex_unlock(&ndp_lock);
        if (job)
            ndp_job_free_claimed(job);
    } while (job);
}

/* Wait under ndp_lock until the job has ended or the time is over. */
static void wait_for_end(struct ndp_job *job, int32_t timeout_ms)
{
    struct timespec until;
    int64_t nanoseconds;
    int error = 0, cancel_state;

    clock_gettime(CLOCK_MONOTONIC, &until);
    nanoseconds = until.tv_nsec + (int64_t)(timeout_ms % 1000) * 1000000;
    until.tv_sec += timeout_ms / 1000 + nanoseconds / 1000000000;
    until.tv_nsec = nanoseconds % 1000000000;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    while (!job->has_ended && error != ETIMEDOUT && timeout_ms != 0)
        error = timeout_ms < 0 ? pthread_cond_wait(&job->end, &ndp_lock)
                               : pthread_cond_timedwait(&job->end, &ndp_lock, &until);
    pthread_setcancelstate(cancel_state, NULL);
}

ndp_rt_status ndp_rt_job_wait(ndp_rt_job *handle, int32_t timeout_ms)
{
    struct ndp_job *job;
    void *object;
    ndp_rt_status status = ndp_handle_take(handle, NDP_JOB, &object);
    bool owns = false;

    if (status != NDP_RT_STATUS_OK)
        return status;
    job = object;
    pthread_mutex_lock(&ndp_lock);
    if (ndp_is_worker_of(job->inspector)) {
        status =
            ndp_fail(NDP_RT_STATUS_BUSY,
                     "a callback cannot wait for a job of its own inspector, which comes after it. Wait in another "
                     "thread.");
    } else if (job->has_waiter) {
        status = ndp_fail(NDP_RT_STATUS_BUSY, "another thread waits for this job already; only one can.");
    } else {
        job->has_waiter = true;
        wait_for_end(job, timeout_ms);
        job->has_waiter = false;
        owns = job->has_ended && !job->is_claimed; /* a close at the same time may have been first */
        if (owns)
            claim(job);
        if (!job->has_ended)
            status = ndp_fail(NDP_RT_STATUS_TIMEOUT, "the job has not ended after %d ms; wait again.", timeout_ms);
        else
            status = job->status == NDP_RT_STATUS_OK
                         ? job->status
                         : ndp_fail(job->status, "%s", job->message ? job->message : "no memory for details");
    }
    pthread_mutex_unlock(&ndp_lock);
    ndp_handle_drop(handle);
    if (owns)
        ndp_job_free_claimed(job);
    return status;
}
