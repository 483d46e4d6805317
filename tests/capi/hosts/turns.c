/* Threads that call one inspector over and over: turns BUNDLE THREADS CALLS. Prints each thread's share of the calls. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "ndp_rt.h"

enum { SIDE = 64, MOST_THREADS = 64 };

static ndp_rt_inspector *inspector;
static pthread_barrier_t begin;
static int left;

static void *call(void *argument)
{
    static uint8_t pixels[SIDE * SIDE];
    ndp_rt_image image = {0};
    ndp_rt_result result = {0};
    int *made = argument;

    image.struct_size = sizeof image;
    image.pixel_format = NDP_RT_PIXEL_GREY8;
    image.pixels = pixels;
    image.width_px = image.height_px = image.stride_bytes = SIDE;
    result.struct_size = sizeof result;
    pthread_barrier_wait(&begin);
    while (__atomic_sub_fetch(&left, 1, __ATOMIC_RELAXED) >= 0) {
        if (ndp_rt_inspector_inspect(inspector, &image, &result) != NDP_RT_STATUS_OK) {
            fprintf(stderr, "%s\n", ndp_rt_last_error());
            exit(1);
        }
        ++*made;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    int thread_count = argc == 4 ? atoi(argv[2]) : 0, made[MOST_THREADS] = {0}, i;
    ndp_rt_open_options options = {0};
    pthread_t threads[MOST_THREADS];

    options.struct_size = sizeof options;
    options.threads = 1;
    if (thread_count < 1 || thread_count > MOST_THREADS
        || ndp_rt_inspector_open(argv[1], &options, &inspector) != NDP_RT_STATUS_OK) {
        fprintf(stderr, "%s\n", ndp_rt_last_error());
        return 1;
    }
    left = atoi(argv[3]);
    pthread_barrier_init(&begin, NULL, (unsigned)thread_count);
    for (i = 0; i < thread_count; i++)
        pthread_create(&threads[i], NULL, call, &made[i]);
    for (i = 0; i < thread_count; i++)
        pthread_join(threads[i], NULL);
    for (i = 0; i < thread_count; i++)
        printf("%d\n", made[i]);
    return ndp_rt_inspector_close(inspector);
}
