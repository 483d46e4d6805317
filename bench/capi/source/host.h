/* A host in C that `ndp-rt bench capi` drives: requests are lines on stdin, words separated by tabs; the answer to each
   is one JSON object a line. What the files of the host share. */
#ifndef HOST_H
#define HOST_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <ndp_rt.h>

enum { MAX_PICTURES = 32, MAX_INSPECTORS = 32, MAX_THREADS = 64 };

/* What a picture gives, whenever and wherever it is inspected. */
struct answer {
    double score;
    uint64_t map_sum;
    uint64_t mask_sum;
    uint32_t defect_count;
};

/* An image, and what it gives alone, in a batch and in tiles, where that is known. */
struct picture {
    ndp_rt_image image;
    size_t index;
    bool is_alone_known, is_batch_known, is_tiles_known;
    struct answer alone, batch, tiles;
};

/* ---- main.c: what was opened and loaded, and requests that fail ------------------------------------------------- */

extern struct picture pictures[MAX_PICTURES];
extern size_t picture_count;
extern ndp_rt_inspector *inspectors[MAX_INSPECTORS];
extern size_t inspector_count;
extern FILE *answers; /* the process's own stdout; what libraries print goes to stderr */

/* Answer the request with a message, the first of several; what it holds stays. In another thread: end that thread. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
bool has_failed(void);
/* Fail unless a call succeeded. */
void check(ndp_rt_status status, const char *call);
void *take_memory(size_t count, size_t size); /* as calloc; never NULL */
/* Return what a request's word names. */
struct picture *find_picture(const char *word);
struct picture *find_known_picture(const char *word); /* one whose answer is known */
ndp_rt_inspector *find_inspector(const char *word);

/* A handler gets the words after the request's name and writes its answer, without the line feed, unless it fails. */
typedef void handler(char **words);
handler do_calls, do_timings, do_crowd, do_submit, do_soak, do_heap;

/* ---- readings.c ------------------------------------------------------------------------------------------------- */

double read_clock_s(void);                                                /* CLOCK_MONOTONIC */
void write_list(const double *values, size_t count);                      /* [..] */
void write_numbers(const char *name, const double *values, size_t count); /* "name": [..] */

struct times {
    double elapsed_s, cpu_s; /* the processor's, of all threads */
};
/* Run `work` in a thread for each of `count` items of so many bytes, all from the same moment on; fail if one did. */
struct times run_together(void *(*work)(void *), void *items, size_t count, size_t size);
void wait_for_all(void); /* the first thing that `work` does */

/* ---- pictures.c: images and results ----------------------------------------------------------------------------- */

enum { WANTS_MAP = 1, WANTS_MASK = 2, WANTS_DEFECTS = 4, WANTS_ALL = 7 };

/* A result and its buffers. */
struct outputs {
    ndp_rt_result result;
    int wanted;
};

void load_picture(struct picture *picture, const char *path, const char *format, int32_t width_px, int32_t height_px);
void make_outputs(struct outputs *outputs, const struct picture *picture, int wanted);
void free_outputs(struct outputs *outputs);
void clear_outputs(struct outputs *outputs); /* so that an answer that was not written is noticed */
void spoil_outputs(struct outputs *outputs); /* the same for a few values, in no time */
struct answer read_answer(const struct outputs *outputs);
void write_answer(const struct answer *answer);
/* Fail unless the outputs hold what is expected, as far as it was wanted, bit for bit. */
void check_answer(const struct outputs *outputs, const struct answer *expected, size_t index, const char *how);

#endif
