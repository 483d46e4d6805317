/* A host that does what its arguments say, one step after the other: steps LIBRARY STEP...

   It loads the library with RTLD_LOCAL, as plug-in hosts do, and prints a line for each call:  STEP: STATUS MESSAGE.
   Each step is done in a thread of its own where thread=KIB came before, else in the main thread. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ndp_rt.h"
#include "process_changes.h"

#define MAX_OPENED 16
#define RACERS     8
#define SIDE       64

#define FUNCTIONS(X)                                                                                                   \
    X(ndp_rt_last_error)                                                                                               \
    X(ndp_rt_status_name)                                                                                              \
    X(ndp_rt_abi_version)                                                                                              \
    X(ndp_rt_version)                                                                                                  \
    X(ndp_rt_runtime_start)                                                                                            \
    X(ndp_rt_runtime_describe)                                                                                         \
    X(ndp_rt_log_set)                                                                                                  \
    X(ndp_rt_inspector_open)                                                                                           \
    X(ndp_rt_inspector_close)                                                                                          \
    X(ndp_rt_inspector_info)                                                                                           \
    X(ndp_rt_inspector_describe)                                                                                       \
    X(ndp_rt_inspector_warm_up)                                                                                        \
    X(ndp_rt_inspector_inspect)                                                                                        \
    X(ndp_rt_inspector_inspect_batch)                                                                                  \
    X(ndp_rt_inspector_inspect_large)                                                                                  \
    X(ndp_rt_inspector_submit)                                                                                         \
    X(ndp_rt_job_wait)                                                                                                 \
    X(ndp_rt_inspector_cancel)                                                                                         \
    X(ndp_rt_inspector_get_threshold)                                                                                  \
    X(ndp_rt_inspector_set_threshold)                                                                                  \
    X(ndp_rt_inspector_set_reference)                                                                                  \
    X(ndp_rt_timings)

/* Every function of ndp_rt.h under its name, found in the library that was loaded. */
static struct {
#define MEMBER(name) __typeof__(&name) name;
    FUNCTIONS(MEMBER)
} api;

static ndp_rt_inspector *opened[MAX_OPENED];
static int opened_count;
static FILE *out; /* a copy of stdout that close-streams leaves open */
static const char *who = "";
static pthread_barrier_t barrier;
static uint8_t pixels[SIDE * SIDE];
static float map[SIDE * SIDE];

/* ---- Calls ----------------------------------------------------------------------------------------------------- */

static void say(const char *step, ndp_rt_status status)
{
    fprintf(out, "%s%s: %s %s\n", who, step, api.ndp_rt_status_name(status) + strlen("NDP_RT_STATUS_"),
            status == NDP_RT_STATUS_OK ? "" : api.ndp_rt_last_error());
}

static ndp_rt_image make_image(void)
{
    ndp_rt_image image = {0};

    image.struct_size = sizeof image;
    image.pixels = pixels;
    image.width_px = image.height_px = SIDE;
    image.stride_bytes = SIDE;
    image.pixel_format = NDP_RT_PIXEL_GREY8;
    return image;
}

static ndp_rt_result make_result(void)
{
    ndp_rt_result result = {0};

    result.struct_size = sizeof result;
    result.map = map;
    result.map_stride_bytes = SIDE * sizeof *map;
    result.map_capacity_bytes = sizeof map;
    return result;
}

static ndp_rt_inspector *get_last(void)
{
    return opened_count ? opened[opened_count - 1] : NULL;
}

static int32_t threads = 1;

static void do_open(char *bundle)
{
    ndp_rt_open_options options = {0};
    ndp_rt_inspector *inspector = NULL;
    ndp_rt_status status;

    options.struct_size = sizeof options;
    options.threads = threads;
    status = api.ndp_rt_inspector_open(bundle, &options, &inspector);
    if (status == NDP_RT_STATUS_OK)
        opened[opened_count++] = inspector;
    say("open", status);
}

static void do_inspect(void)
{
    ndp_rt_image image = make_image();
    ndp_rt_result result = make_result();
    ndp_rt_status status = api.ndp_rt_inspector_inspect(get_last(), &image, &result);

    say("inspect", status);
    if (status == NDP_RT_STATUS_OK)
        fprintf(out, "%sscore: %a %a\n", who, result.score, (double)map[SIDE]);
}

/* Inspect the image twice at once. */
static void do_batch(void)
{
    ndp_rt_image images[2] = {make_image(), make_image()};
    ndp_rt_result results[2] = {make_result(), make_result()};
    ndp_rt_status status;

    results[1].map = NULL;
    status = api.ndp_rt_inspector_inspect_batch(get_last(), images, 2, results);
    say("batch", status);
    if (status == NDP_RT_STATUS_OK)
        fprintf(out, "%sscore: %a %a\n", who, results[1].score, (double)map[SIDE]);
}

static void do_describe(void)
{
    char text[2048];
    ndp_rt_status status = api.ndp_rt_runtime_describe(text, sizeof text, NULL);

    say("describe", status);
    if (status == NDP_RT_STATUS_OK)
        fprintf(out, "%s\n", text);
}

/* Submit twice and leave both: to be called in a process that then ends. */
static void do_submit(void)
{
    static ndp_rt_result results[2];
    ndp_rt_image image = make_image();
    ndp_rt_job *job;
    int i;

    for (i = 0; i < 2; i++) {
        results[i] = make_result();
        say("submit", api.ndp_rt_inspector_submit(get_last(), &image, &results[i], NULL, NULL, &job));
    }
}

static void do_reference(void)
{
    ndp_rt_image image = make_image();

    say("reference", api.ndp_rt_inspector_set_reference(get_last(), &image));
}

static sem_t may_go;

static void block(void *user, ndp_rt_status status, ndp_rt_result *result)
{
    (void)user;
    (void)status;
    (void)result;
    while (sem_wait(&may_go) != 0)
        ;
}

static void *wait_for_job(void *job)
{
    api.ndp_rt_job_wait(job, -1);
    sleep(60); /* where a cancelled thread ends */
    return NULL;
}

/* Cancel a thread that waits for a job, which waits for another's callback. */
static void do_cancel(void)
{
    static ndp_rt_result results[2];
    ndp_rt_image image = make_image();
    ndp_rt_job *job = NULL;
    pthread_t waiter;
    void *ended = NULL;
    int i;

    sem_init(&may_go, 0, 0);
    for (i = 0; i < 2; i++) {
        results[i] = make_result();
        say("submit",
            api.ndp_rt_inspector_submit(get_last(), &image, &results[i], i ? NULL : block, NULL, i ? &job : NULL));
    }
    pthread_create(&waiter, NULL, wait_for_job, job);
    usleep(200000); /* so that it waits; if it does not yet, it is cancelled where it begins to */
    pthread_cancel(waiter);
    sem_post(&may_go);
    pthread_join(waiter, &ended);
    fprintf(out, "cancel: %s\n", ended == PTHREAD_CANCELED ? "cancelled" : "returned");
}

static void ignore_message(void *user, int32_t level, const char *message)
{
    (void)user;
    (void)level;
    (void)message;
}

/* Call every function that can fail, on handles of this process or of the one that it was forked from. */
static void do_all(void)
{
    ndp_rt_image image = make_image();
    ndp_rt_result result = make_result();
    ndp_rt_info info = {0};
    ndp_rt_times times = {0};
    ndp_rt_inspector *inspector = get_last(), *other = NULL;
    ndp_rt_job *job = NULL;
    char text[256];
    double threshold;

    info.struct_size = sizeof info;
    times.struct_size = sizeof times;
    say("ndp_rt_runtime_start", api.ndp_rt_runtime_start(NULL));
    say("ndp_rt_runtime_describe", api.ndp_rt_runtime_describe(text, sizeof text, NULL));
    say("ndp_rt_log_set", api.ndp_rt_log_set(ignore_message, NULL, NDP_RT_LOG_ERROR));
    say("ndp_rt_inspector_open", api.ndp_rt_inspector_open("nowhere.ndp", NULL, &other));
    say("ndp_rt_inspector_info", api.ndp_rt_inspector_info(inspector, &info));
    say("ndp_rt_inspector_describe", api.ndp_rt_inspector_describe(inspector, text, sizeof text, NULL));
    say("ndp_rt_inspector_warm_up", api.ndp_rt_inspector_warm_up(inspector, 1));
    say("ndp_rt_inspector_inspect", api.ndp_rt_inspector_inspect(inspector, &image, &result));
    say("ndp_rt_inspector_inspect_batch", api.ndp_rt_inspector_inspect_batch(inspector, &image, 1, &result));
    say("ndp_rt_inspector_inspect_large", api.ndp_rt_inspector_inspect_large(inspector, &image, 0, &result));
    say("ndp_rt_inspector_submit", api.ndp_rt_inspector_submit(inspector, &image, &result, NULL, NULL, &job));
    say("ndp_rt_job_wait", api.ndp_rt_job_wait(job, -1));
    say("ndp_rt_inspector_cancel", api.ndp_rt_inspector_cancel(inspector, NULL));
    say("ndp_rt_inspector_get_threshold", api.ndp_rt_inspector_get_threshold(inspector, &threshold));
    say("ndp_rt_inspector_set_threshold", api.ndp_rt_inspector_set_threshold(inspector, 0.5));
    say("ndp_rt_inspector_set_reference", api.ndp_rt_inspector_set_reference(inspector, &image));
    say("ndp_rt_timings", api.ndp_rt_timings(inspector, &times));
    say("ndp_rt_inspector_close", api.ndp_rt_inspector_close(inspector));
}

/* ---- Steps ----------------------------------------------------------------------------------------------------- */

static void *race(void *bundle)
{
    pthread_barrier_wait(&barrier);
    do_open(bundle);
    return NULL;
}

static void do_race(char *bundle)
{
    pthread_t threads[RACERS];
    int i;

    pthread_barrier_init(&barrier, NULL, RACERS);
    for (i = 0; i < RACERS; i++)
        pthread_create(&threads[i], NULL, race, bundle);
    for (i = 0; i < RACERS; i++)
        pthread_join(threads[i], NULL);
}

/* Go on in a child and, once it has ended, in the parent. */
static void do_fork(void)
{
    int status = 0;
    pid_t child;

    fflush(NULL);
    child = fork();
    who = child == 0 ? "child " : "parent ";
    if (child == 0)
        return;
    waitpid(child, &status, 0);
    fprintf(out, "child ended: %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
}

static void close_last(void)
{
    say("close", api.ndp_rt_inspector_close(opened[--opened_count]));
    fflush(out);
}

static void do_start(char *python)
{
    say("start", api.ndp_rt_runtime_start(python));
}

static void set_threads(char *count)
{
    threads = atoi(count);
}

static void close_at_exit(void)
{
    atexit(close_last);
}

static void end(char *code)
{
    exit(atoi(code));
}

static const struct {
    const char *name;
    void (*run)(void);
    void (*run_with)(char *value); /* where run is NULL */
} STEPS[] = {
    {"start", NULL, do_start},   {"open", NULL, do_open},
    {"race", NULL, do_race},     {"threads", NULL, set_threads},
    {"exit", NULL, end},         {"inspect", do_inspect, NULL},
    {"batch", do_batch, NULL},   {"reference", do_reference, NULL},
    {"cancel", do_cancel, NULL}, {"describe", do_describe, NULL},
    {"submit", do_submit, NULL}, {"all", do_all, NULL},
    {"close", close_last, NULL}, {"close-at-exit", close_at_exit, NULL},
    {"fork", do_fork, NULL},
};

static void do_step(char *step)
{
    char *value = strchr(step, '=');
    char name[64];
    size_t i;

    snprintf(name, sizeof name, "%.*s", (int)(value ? value - step : (long)strlen(step)), step);
    value = value ? value + 1 : NULL;
    for (i = 0; i < sizeof STEPS / sizeof *STEPS; i++)
        if (strcmp(name, STEPS[i].name) == 0) {
            if (STEPS[i].run)
                STEPS[i].run();
            else
                STEPS[i].run_with(value);
            return;
        }
    if (!change_process(name, value, out))
        fprintf(out, "unknown step %s\n", step);
}

static void *do_step_here(void *step)
{
    do_step(step);
    return NULL;
}

static void do_step_in_thread(char *step, size_t stack_bytes)
{
    pthread_attr_t attributes;
    pthread_t thread;
    int error;

    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, stack_bytes);
    error = pthread_create(&thread, &attributes, do_step_here, step);
    if (error)
        fprintf(out, "thread: %s\n", strerror(error));
    else
        pthread_join(thread, NULL);
    pthread_attr_destroy(&attributes);
}

int main(int count, char **words)
{
    size_t stack_bytes = 0;
    void *library;
    int i;

    out = fdopen(fcntl(1, F_DUPFD_CLOEXEC, 100), "w");
    library = count > 1 ? dlopen(words[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    if (!library) {
        fprintf(out, "library: %s\n", count > 1 ? dlerror() : "steps LIBRARY STEP...");
        return 2;
    }
#define FIND(name) *(void **)&api.name = dlsym(library, #name);
    FUNCTIONS(FIND)
    for (i = 2; i < count && strcmp(words[i], "return") != 0; i++) {
        if (strncmp(words[i], "thread=", 7) == 0)
            stack_bytes = (size_t)atoi(words[i] + 7) * 1024;
        else if (stack_bytes)
            do_step_in_thread(words[i], stack_bytes);
        else
            do_step(words[i]);
        fflush(out);
    }
    return 0;
}
