/* Times, threads that begin together, and what this process holds. */
#include <dirent.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

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

/* Read the number after `field` in a file of /proc; -1: there is none. */
static long read_field(const char *path, const char *field)
{
    FILE *file = fopen(path, "r");
    char line[256];
    long value = -1;

    if (!file)
        return -1;
    while (value < 0 && fgets(line, sizeof line, file))
        if (strncmp(line, field, strlen(field)) == 0 && sscanf(line + strlen(field), "%ld", &value) != 1)
            value = -1;
    fclose(file);
    return value;
}

long long read_rss_bytes(void)
{
    /* smaps_rollup walks the pages; the counters behind status and statm may be off by some dozens for each core. */
    long rss_kib = read_field("/proc/self/smaps_rollup", "Rss:");

    if (rss_kib < 0)
        rss_kib = read_field("/proc/self/status", "VmRSS:");
    return rss_kib < 0 ? -1 : rss_kib * 1024LL;
}

static long count_descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    long count = -1; /* of the folder itself */

    if (!folder)
        return -1;
    for (const struct dirent *entry = readdir(folder); entry; entry = readdir(folder))
        count += entry->d_name[0] != '.';
    closedir(folder);
    return count;
}

/* What malloc has handed out and not got back: a leak shows here, fragmentation does not. -1: this C library does not
   tell. */
static long long count_heap_bytes(void)
{
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
    struct mallinfo2 info = mallinfo2();

    return (long long)(info.uordblks + info.hblkhd);
#else
    return -1;
#endif
}

/* memory: what this process holds. */
void do_memory(char **words)
{
    long long rss_bytes = read_rss_bytes();
    long threads = read_field("/proc/self/status", "Threads:");

    (void)words;
    if (rss_bytes < 0 || threads < 0)
        fail("/proc/self does not tell this process's memory and threads.");
    fprintf(answers, "{\"rss_bytes\": %lld, \"heap_bytes\": %lld, \"descriptors\": %ld, \"threads\": %ld}", rss_bytes,
            count_heap_bytes(), count_descriptors(), threads);
}
