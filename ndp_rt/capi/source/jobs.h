/* An image that was submitted: its life as an object, from jobs.c, for queue.c. */
#ifndef NDP_RT_JOBS_H
#define NDP_RT_JOBS_H

#include "internal.h"

struct ndp_job {
    ndp_rt_image image;
    ndp_rt_result read;    /* in this build's layout */
    ndp_rt_result *result; /* the caller's */
    ndp_rt_done_callback done;
    void *user;
    struct ndp_inspector *inspector;
    const void *handle; /* NULL: nobody waits */
    double submitted_ms;
    uint32_t deadline_ms;                      /* 0: none */
    const char *reason;                        /* why it is not inspected; NULL: it waits, or was taken */
    struct ndp_job *next;                      /* in a queue */
    struct ndp_job *previous_kept, *next_kept; /* of the inspector's list of jobs with a handle */
    ndp_rt_status status;
    bool has_ended, has_waiter, is_claimed; /* is_claimed: somebody is about to free it */
    pthread_cond_t end;
    char *message; /* of a job that did not end with OK; NULL: no memory for it */
};

/* Return a job, with a handle where one is asked for, or NULL: no memory. */
struct ndp_job *ndp_job_make(struct ndp_inspector *inspector, bool has_handle);
void ndp_job_free(struct ndp_job *job);         /* one without a handle */
void ndp_job_keep(struct ndp_job *job);         /* one with a handle, until somebody waits for it; under ndp_lock */
void ndp_job_free_claimed(struct ndp_job *job); /* one with a handle that is in no list */
/* Free the jobs that nobody has waited for; all have ended. */
void ndp_job_free_kept(struct ndp_inspector *inspector);

#endif
