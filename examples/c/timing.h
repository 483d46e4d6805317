/* A clock, and percentiles of what it measures: POSIX, with _POSIX_C_SOURCE defined as 200809L before the first include. */
#ifndef EXAMPLES_TIMING_H
#define EXAMPLES_TIMING_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

/* Return the time since a fixed moment; no clock change affects it. */
static inline int64_t get_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline void sleep_until(int64_t ns)
{
    const struct timespec until = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        ;
}

/* Durations in a fixed amount of memory, however long a program runs. Every doubling of the value is divided into 64
   bins, so percentiles are true to 2 %. */
enum { BINS_PER_DOUBLING = 64, BIN_COUNT = 58 * BINS_PER_DOUBLING };

struct histogram {
    uint64_t counts[BIN_COUNT];
    uint64_t total;
};

static inline void add_to_histogram(struct histogram *histogram, int64_t value)
{
    uint64_t rest = value > 0 ? (uint64_t)value : 0;
    uint64_t first = 0;

    for (; rest >= 2 * BINS_PER_DOUBLING; rest /= 2)
        first += BINS_PER_DOUBLING;
    histogram->counts[first + rest]++;
    histogram->total++;
}

/* Return the value that `percent` of all stay at or below, to the bin's upper end; 0: there are none. */
static inline double get_percentile(const struct histogram *histogram, double percent)
{
    const double wanted = (double)histogram->total * percent / 100.0;
    double width = 1.0, end = 0.0;
    uint64_t count = 0;

    for (uint32_t bin = 0; bin < BIN_COUNT && histogram->total > 0; bin++) {
        if (bin >= 2 * BINS_PER_DOUBLING && bin % BINS_PER_DOUBLING == 0)
            width *= 2.0;
        end += width;
        count += histogram->counts[bin];
        if ((double)count >= wanted)
            return end;
    }
    return 0.0;
}

static inline void print_percentiles(const char *name, const struct histogram *histogram, double unit_ns)
{
    static const int PERCENTS[] = {50, 90, 99};

    for (int i = 0; i < 3; i++)
        printf(" %s_p%d=%.3f", name, PERCENTS[i], get_percentile(histogram, PERCENTS[i]) / unit_ns);
}

#endif
