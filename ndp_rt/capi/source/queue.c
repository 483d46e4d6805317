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

static void push(struct ndp_queue *queue, struct ndp_job *job)
{
    job->next = NULL;
    if (queue->last)
        queue->last->next = job;
    else
        queue->first = job;
    queue->last = job;
}

/* Take a job out of a queue, after the one before it there; NULL: it is the first. */
static void take_out(struct ndp_queue *queue, struct ndp_job *job, struct ndp_job *before)
{
    if (before)
        before->next = job->next;
    else
        queue->first = job->next;
    if (queue->last == job)
        queue->last = before;
}

/* Have a job that waits, after the one before it, end without an inspection. */
static void dismiss(struct ndp_job *job, struct ndp_job *before, ndp_rt_status status, const char *reason)
{
    struct ndp_inspector *inspector = job->inspector;

    take_out(&inspector->waiting, job, before);
    push(&inspector->dismissed, job);
    inspector->times.waiting_count--;
    job->status = status;
    job->reason = reason;
    pthread_cond_signal(&inspector->has_work);
}

/* Dismiss the jobs with this result, or all that wait where it is NULL; return how many. */
static uint32_t cancel(struct ndp_inspector *inspector, const ndp_rt_result *result, const char *reason)
{
    struct ndp_job *job = inspector->waiting.first, *before = NULL, *next;
    uint32_t count = 0;

    for (; job; job = next) {
        next = job->next;
        if (!result || job->result == result) {
            dismiss(job, before, NDP_RT_STATUS_CANCELLED, reason);
            count++;
        } else {
            before = job;
        }
    }
    inspector->times.cancelled_count += count;
    return count;
}

/* Return the next job, running from now on, or NULL when the inspector closes and none is left. */
static struct ndp_job *take_next(struct ndp_inspector *inspector)
{
    struct ndp_job *job;

    pthread_mutex_lock(&ndp_lock);
    while (!inspector->waiting.first && !inspector->dismissed.first && !inspector->is_closing)
        ndp_wait(&inspector->has_work, &ndp_lock);
    job = inspector->dismissed.first;
    if (job) {
        take_out(&inspector->dismissed, job, NULL);
    } else if ((job = inspector->waiting.first)) {
        take_out(&inspector->waiting, job, NULL);
        inspector->times.waiting_count--;
    }
    inspector->running = job;
    pthread_mutex_unlock(&ndp_lock);
    return job;
}

static double get_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e3 + now.tv_nsec * 1e-6;
}

static ndp_rt_status inspect(struct ndp_job *job)
{
    struct ndp_inspector *inspector = job->inspector;
    double waited_ms;

    ndp_take_turn(&inspector->turns);
    waited_ms = get_ms() - job->submitted_ms;
    if (job->deadline_ms == 0 || waited_ms <= job->deadline_ms)
        return ndp_run_submitted(inspector, &job->image, &job->read, waited_ms);
    ndp_pass_turn(&inspector->turns);
    pthread_mutex_lock(&ndp_lock);
    inspector->times.expired_count++;
    pthread_mutex_unlock(&ndp_lock);
    return ndp_fail(NDP_RT_STATUS_EXPIRED,
                    "deadline_ms: expected the image's turn within %u ms of its submission, got it after %.0f ms; it "
                    "was not inspected.",
                    job->deadline_ms, waited_ms);
}

static void run(struct ndp_job *job)
{
    job->status = job->reason ? ndp_fail(job->status, "%s", job->reason) : inspect(job);
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

    own_inspector = inspector;
    while ((job = take_next(inspector))) {
        run(job);
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

static bool has_result(const struct ndp_queue *queue, const ndp_rt_result *result)
{
    const struct ndp_job *job;

    for (job = queue->first; job && job->result != result; job = job->next)
        ;
    return job != NULL;
}

static bool is_full(const struct ndp_inspector *inspector)
{
    return inspector->times.waiting_count >= inspector->queue_capacity;
}

/* Tell whether there is room for a job with this result; under ndp_lock. */
static ndp_rt_status check_room(struct ndp_inspector *inspector, const ndp_rt_result *result)
{
    if (inspector->is_closing)
        return ndp_fail(NDP_RT_STATUS_CLOSED, "the inspector is closed; open another.");
    if (has_result(&inspector->waiting, result) || has_result(&inspector->dismissed, result)
        || (inspector->running && inspector->running->result == result))
        return ndp_fail(NDP_RT_STATUS_BUSY,
                        "result: expected one of its own for each job, got %p, of a job that has not ended.",
                        (const void *)result);
    if (is_full(inspector) && !inspector->newest_wins)
        return ndp_fail(
            NDP_RT_STATUS_QUEUE_FULL,
            "queue: expected fewer than its capacity of %u images, got as many. Drop this one, wait for a job, or "
            "open with a larger queue_capacity.",
            inspector->queue_capacity);
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
    if (is_full(inspector)) { /* the newest wins */
        dismiss(inspector->waiting.first, NULL, NDP_RT_STATUS_DROPPED,
                "the queue was full, and a newer image took the place of this one, its oldest. To keep more, open with "
                "a larger queue_capacity.");
        inspector->times.dropped_count++;
    }
    push(&inspector->waiting, job);
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
    uint32_t deadline_ms = 0;
    struct ndp_inspector *inspector;
    struct ndp_job *job;
    void *object;
    ndp_rt_status status = ndp_read_image(image, &read_image, &deadline_ms);

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
        job->deadline_ms = deadline_ms;
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

ndp_rt_status ndp_rt_inspector_cancel(ndp_rt_inspector *handle, const ndp_rt_result *result)
{
    uint32_t count;
    void *object;
    ndp_rt_status status = ndp_handle_take(handle, NDP_INSPECTOR, &object);

    if (status != NDP_RT_STATUS_OK)
        return status;
    pthread_mutex_lock(&ndp_lock);
    count = cancel(object, result, "the image was cancelled before its turn came.");
    pthread_mutex_unlock(&ndp_lock);
    if (result && count == 0)
        status = ndp_fail(
            NDP_RT_STATUS_BUSY,
            "result: expected that of an image that waits, got %p: the inspector has taken it, it has ended, or "
            "was cancelled before.",
            (const void *)result);
    ndp_handle_drop(handle);
    return status;
}

void ndp_end_queue(struct ndp_inspector *inspector)
{
    int cancel_state;

    pthread_mutex_lock(&ndp_lock);
    inspector->is_closing = true;
    cancel(inspector, NULL, "the inspector was closed before the image's turn came.");
    pthread_cond_signal(&inspector->has_work);
    pthread_mutex_unlock(&ndp_lock);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    if (inspector->has_worker)
        pthread_join(inspector->worker, NULL);
    pthread_setcancelstate(cancel_state, NULL);
    ndp_job_free_kept(inspector);
}
