/* Times, threads that begin together, and what malloc has handed out. */
#include <malloc.h>
#include <stdlib.h>
#include <time.h>

#include "host.h"

static pthread_barrier_t barrier;

static double read_s(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

double read_clock_s(void)
{
    return read_s(CLOCK_MONOTONIC);
}

void write_list(const double *values, size_t count)
{
    size_t i;

    fprintf(answers, "[");
    for (i = 0; i < count; i++)
        fprintf(answers, "%s%.6f", i ? ", " : "", values[i]);
    fprintf(answers, "]");
}

void write_numbers(const char *name, const double *values, size_t count)
{
    fprintf(answers, "\"%s\": ", name);
    write_list(values, count);
}

void wait_for_all(void)
{
    pthread_barrier_wait(&barrier); /* all are there: the clock starts */
    pthread_barrier_wait(&barrier);
}

struct times run_together(void *(*work)(void *), void *items, size_t count, size_t size)
{
    pthread_t threads[MAX_THREADS];
    struct times start, end;
    size_t i;

    pthread_barrier_init(&barrier, NULL, (unsigned)count + 1);
    for (i = 0; i < count; i++)
        if (pthread_create(&threads[i], NULL, work, (char *)items + i * size) != 0)
            abort(); /* the others wait at the barrier for ever */
    pthread_barrier_wait(&barrier);
    start = (struct times){read_clock_s(), read_s(CLOCK_PROCESS_CPUTIME_ID)};
    pthread_barrier_wait(&barrier);
    for (i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    end = (struct times){read_clock_s() - start.elapsed_s, read_s(CLOCK_PROCESS_CPUTIME_ID) - start.cpu_s};
    pthread_barrier_destroy(&barrier);
    if (has_failed())
        fail("a thread failed.");
    return end;
}

/* heap: what malloc has handed out and not got back: a leak shows here, fragmentation does not. -1: this C library does
   not tell. */
void do_heap(char **words)
{
    long long heap_bytes = -1;
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
    struct mallinfo2 info = mallinfo2();

    heap_bytes = (long long)(info.uordblks + info.hblkhd);
#endif
    (void)words;
    fprintf(answers, "{\"heap_bytes\": %lld}", heap_bytes);
}
