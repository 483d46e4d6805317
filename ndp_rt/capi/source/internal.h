/* What the files of libndp_rt.so share. Names that begin with ndp_rt_ are public, those with ndp_ are not exported. */
#ifndef NDP_RT_INTERNAL_H
#define NDP_RT_INTERNAL_H

#include <fenv.h>
#include <locale.h>
#include <pthread.h>
#include <stdbool.h>

#include "calls.h"

/* ---- error.c: the thread's message ---------------------------------------------------------------------------- */

/* Keep a message for ndp_rt_last_error() and return `status`. */
ndp_rt_status ndp_fail(ndp_rt_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));
ndp_rt_status ndp_no_memory(void);
/* Keep the bridge's message unless it says OK. */
ndp_rt_status ndp_pass_on(ndp_rt_status status, const char *message);

/* ---- runtime.c: the interpreter behind the library ------------------------------------------------------------ */

ndp_rt_status ndp_check_process(void); /* FORKED in a child of a process that had started the runtime */
ndp_rt_status ndp_start_runtime(const char *python);
const struct ndp_calls *ndp_get_calls(void); /* valid after ndp_start_runtime returned OK */

/* ---- shield.c: what the host has set for its thread, against what the engines expect ---------------------------- */

struct ndp_shield { /* what the host had */
    locale_t locale;
    fenv_t floats;
    int cancel_state;
};

void ndp_raise_shield(struct ndp_shield *shield);
void ndp_lower_shield(const struct ndp_shield *shield);
void ndp_wait(pthread_cond_t *condition, pthread_mutex_t *lock); /* as pthread_cond_wait, but nothing cancels it */

/* ---- ending.c: calls that are in progress when the process ends ------------------------------------------------ */

void ndp_guard_calls(struct ndp_calls *calls);

/* ---- location.c: where the library, its bridge and its interpreter lie ---------------------------------------- */

#define NDP_PATH_BYTES 4096
ndp_rt_status ndp_find_bridge(char path[NDP_PATH_BYTES]);
ndp_rt_status ndp_find_python(const char *asked, char path[NDP_PATH_BYTES]);

/* ---- log.c ---------------------------------------------------------------------------------------------------- */

void ndp_emit(int32_t level, const char *message);
ndp_rt_status ndp_apply_log_level(void); /* tells the runtime, if it has started, what is listened to */

/* ---- handles.c: inspectors and jobs by number, so that a stale handle is recognised ---------------------------- */

/* One lock for handles, queues and jobs: held for a few instructions at a time, never across a call or a callback. */
extern pthread_mutex_t ndp_lock;

enum ndp_kind { NDP_INSPECTOR = 1, NDP_JOB = 2 };

void *ndp_handle_make(enum ndp_kind kind, void *object); /* NULL: no memory */
/* Find a handle's object and keep it from being freed until ndp_handle_drop. */
ndp_rt_status ndp_handle_take(const void *handle, enum ndp_kind kind, void **object);
void ndp_handle_drop(const void *handle);
/* Refuse takes from now on, with CLOSED. Succeeds once for each handle; the caller then owes ndp_handle_free. */
ndp_rt_status ndp_handle_shut(const void *handle, enum ndp_kind kind, void **object);
/* Wait until what was taken is dropped, and free the handle, not its object. */
void ndp_handle_free(const void *handle);

/* ---- arguments.c: what the caller passed, checked and in this build's layout ----------------------------------- */

/* Check a struct_size; `first` is what it was in ABI 1.0. */
ndp_rt_status ndp_check_size(const char *name, uint32_t struct_size, size_t first, size_t known);
ndp_rt_status ndp_read_options(const ndp_rt_open_options *from, ndp_rt_open_options *to);
/* Move the deadline out of the image; where `deadline_ms` is NULL, there may be none. */
ndp_rt_status ndp_read_image(const ndp_rt_image *from, ndp_rt_image *to, uint32_t *deadline_ms);
/* Check the buffers for an image of this size; the sizes that are needed are written to `from` in any case. */
ndp_rt_status ndp_read_result(ndp_rt_result *from, const ndp_rt_image *image, ndp_rt_result *to);
void ndp_write_result(const ndp_rt_result *from, ndp_rt_result *to); /* what is out */

/* ---- turns.c: calls on one inspector, first come, first served ------------------------------------------------- */

struct ndp_waiter;

struct ndp_turns { /* under ndp_lock; zero: nobody's turn */
    struct ndp_waiter *first, *last;
    bool is_taken;
};

void ndp_take_turn(struct ndp_turns *turns); /* waits */
void ndp_pass_turn(struct ndp_turns *turns);

/* ---- inspector.c ---------------------------------------------------------------------------------------------- */

struct ndp_job;

struct ndp_queue {
    struct ndp_job *first, *last;
};

struct ndp_inspector {
    int64_t id; /* for the calls */
    const void *handle;
    ndp_rt_info info;
    struct ndp_turns turns;
    /* Under ndp_lock: */
    ndp_rt_times times;
    uint32_t queue_capacity;
    bool newest_wins;
    struct ndp_queue waiting;
    struct ndp_queue dismissed; /* that are not inspected: they have their status, and are to be called back */
    struct ndp_job *running;
    struct ndp_job *kept; /* with a handle that nobody has waited for; linked by next_kept */
    bool has_worker, is_closing;
    pthread_t worker;
    pthread_cond_t has_work;
};

/* Inspect and count; for one image `images` and `results` are its own, for more arrays. */
ndp_rt_status ndp_run(struct ndp_inspector *inspector, const ndp_rt_image *images, size_t count, int32_t overlap_px,
                      ndp_rt_result *results);
/* The same for one image whose turn it is; passes the turn. */
ndp_rt_status ndp_run_submitted(struct ndp_inspector *inspector, const ndp_rt_image *image, ndp_rt_result *result,
                                double queue_ms);

/* ---- queue.c: images that were submitted ---------------------------------------------------------------------- */

bool ndp_is_worker_of(const struct ndp_inspector *inspector); /* whether this is its callback */
/* End the worker and all jobs; the inspector's handle is shut, others may still be inside calls. */
void ndp_end_queue(struct ndp_inspector *inspector);

#endif
