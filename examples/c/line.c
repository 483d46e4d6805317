/* A production line: a grabber thread takes frames at a fixed rate and must never wait, whatever the inspection does.
   C99 and POSIX. Build it with

       cc line.c $(ndp-rt capi --cflags --libs) -lpthread -o line

   line [--fps F] [--seconds S] [--deadline-ms D] [--ring N] [--queue Q] [--device D] [--precision P] BUNDLE [FRAME.pgm]

   Every frame is FRAME, PGM or PPM, every tenth with a white spot on it; without FRAME it is noise of 256 x 256. It runs
   for S seconds (0: until SIGINT or SIGTERM), inspects the frames, and prints one line on the inspector and one
   of figures: "summary name=value ...". Ends with 0, with 1 for an error, 2 for wrong usage.

   The rule of the ring: the grabber owns a buffer until ndp_rt_inspector_submit returns OK, the library owns it until the
   callback is called, and then it is free. Where none is free, the frame is dropped and counted: waiting would lose it
   all the same, and those behind it too. */
#define _POSIX_C_SOURCE 200809L

#include <ndp_rt.h>

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/select.h>

#include "../pnm.h"
#include "timing.h"

enum { SPOT_PX = 4, SPOT_EVERY = 10, SYNTHETIC_PX = 256 };

struct line;

/* One buffer of the ring. */
struct slot {
    struct line *line;
    struct slot *next_free;
    ndp_rt_image image;
    ndp_rt_result result;
    uint8_t *pixels;
    int64_t grabbed_ns;
    size_t spot_place; /* from the first pixel on, in bytes */
};

struct counts {
    unsigned long grabbed, kept, missed, no_buffer, queue_full, failed, defects;
};

struct line {
    double fps, seconds;
    int64_t deadline_ns;
    uint32_t ring_count;
    ndp_rt_open_options options;
    const char *bundle;
    pnm frame;
    ndp_rt_inspector *inspector;
    struct slot *slots;
    uint8_t *ring_pixels;
    /* Under the lock, which is held for a few instructions at a time: */
    pthread_mutex_t lock;
    pthread_cond_t slot_freed;
    struct slot *first_free;
    uint32_t free_count;
    bool is_stopping;
    struct counts counts;
    struct histogram latency_ns, submit_ns;
    char problem[512]; /* of the first inspection that failed */
};

static volatile sig_atomic_t was_interrupted;

static void note_signal(int number)
{
    was_interrupted = number;
}

/* Take a free slot; NULL: there is none. Counts the frame. *is_stopping: the line is to end, and nothing was done. */
static struct slot *take_slot(struct line *line, bool *is_stopping)
{
    struct slot *slot = NULL;

    pthread_mutex_lock(&line->lock);
    *is_stopping = line->is_stopping;
    if (!line->is_stopping) {
        line->counts.grabbed++;
        slot = line->first_free;
        if (slot) {
            line->first_free = slot->next_free;
            line->free_count--;
        } else {
            line->counts.no_buffer++;
        }
    }
    pthread_mutex_unlock(&line->lock);
    return slot;
}

/* Give a slot back; the lock is held. */
static void free_slot(struct slot *slot)
{
    slot->next_free = slot->line->first_free;
    slot->line->first_free = slot;
    slot->line->free_count++;
    pthread_cond_signal(&slot->line->slot_freed);
}

/* Keep the message of the first failure; the lock is held. */
static void note_failure(struct line *line)
{
    if (line->counts.failed++ == 0)
        snprintf(line->problem, sizeof line->problem, "%s", ndp_rt_last_error());
}

/* The library's thread calls this when a frame is decided. A real line would switch its ejector here. */
static void take_decision(void *user, ndp_rt_status status, ndp_rt_result *result)
{
    struct slot *slot = user;
    struct line *line = slot->line;
    const int64_t latency_ns = get_ns() - slot->grabbed_ns;

    pthread_mutex_lock(&line->lock);
    if (status == NDP_RT_STATUS_OK) {
        line->counts.defects += result->is_defect != 0;
        line->counts.kept += latency_ns <= line->deadline_ns;
        line->counts.missed += latency_ns > line->deadline_ns;
        add_to_histogram(&line->latency_ns, latency_ns);
    } else {
        note_failure(line);
    }
    free_slot(slot);
    pthread_mutex_unlock(&line->lock);
}

/* Draw a white spot into the slot's buffer, or draw the frame where the last one was. */
static void draw_spot(struct slot *slot, bool is_white)
{
    const pnm *frame = &slot->line->frame;
    const size_t spot_bytes = (size_t)(SPOT_PX * frame->channel_count * frame->value_bytes);

    for (size_t y = 0; y < SPOT_PX; y++) {
        const size_t place = slot->spot_place + y * (size_t)slot->image.stride_bytes;

        if (is_white)
            memset(slot->pixels + place, 255, spot_bytes);
        else
            memcpy(slot->pixels + place, frame->pixels + place, spot_bytes);
    }
}

/* Write a frame into the slot's buffer, as a camera would; all but the spot is there already. */
static void grab(struct slot *slot, int64_t number)
{
    const pnm *frame = &slot->line->frame;
    const int64_t columns = frame->width_px - SPOT_PX + 1, rows = frame->height_px - SPOT_PX + 1;
    const int64_t place = (number * 97 + 11) % (columns * rows),
                  pixel_bytes = frame->channel_count * frame->value_bytes;

    draw_spot(slot, false);
    slot->spot_place = (size_t)(place / columns * slot->image.stride_bytes + place % columns * pixel_bytes);
    if (number % SPOT_EVERY == 0)
        draw_spot(slot, true);
    slot->grabbed_ns = get_ns();
}

static void submit(struct line *line, struct slot *slot)
{
    const int64_t start_ns = get_ns();
    const ndp_rt_status status =
        ndp_rt_inspector_submit(line->inspector, &slot->image, &slot->result, take_decision, slot, NULL);
    const int64_t taken_ns = get_ns() - start_ns;

    pthread_mutex_lock(&line->lock);
    add_to_histogram(&line->submit_ns, taken_ns);
    if (status == NDP_RT_STATUS_QUEUE_FULL)
        line->counts.queue_full++;
    else if (status != NDP_RT_STATUS_OK)
        note_failure(line);
    if (status != NDP_RT_STATUS_OK) /* there will be no callback, so the slot is still the grabber's */
        free_slot(slot);
    pthread_mutex_unlock(&line->lock);
}

static void *run_grabber(void *argument)
{
    struct line *line = argument;
    const int64_t start_ns = get_ns();
    bool is_stopping;

    for (int64_t number = 0;; number++) {
        struct slot *slot;

        sleep_until(start_ns + (int64_t)((double)number * 1e9 / line->fps)); /* the camera keeps its own time */
        slot = take_slot(line, &is_stopping);
        if (is_stopping)
            return NULL;
        if (slot) {
            grab(slot, number);
            submit(line, slot);
        }
    }
}

static bool fail(const char *what, const char *reason)
{
    fprintf(stderr, "line: %s: %s\n", what, reason);
    return false;
}

/* Make the ring's buffers, each with the frame in it. */
static bool make_slots(struct line *line)
{
    static const uint32_t FORMATS[2][2] = {{NDP_RT_PIXEL_GREY8, NDP_RT_PIXEL_GREY16},
                                           {NDP_RT_PIXEL_RGB8, NDP_RT_PIXEL_RGB16}};
    const pnm *frame = &line->frame;
    const int64_t row_bytes = (int64_t)frame->width_px * frame->channel_count * frame->value_bytes;
    const size_t byte_count = (size_t)(row_bytes * frame->height_px);

    line->slots = calloc(line->ring_count, sizeof *line->slots);
    line->ring_pixels = calloc(line->ring_count, byte_count);
    if (!line->slots || !line->ring_pixels)
        return fail("ring", "not enough memory");
    for (uint32_t i = 0; i < line->ring_count; i++) {
        struct slot *slot = &line->slots[i];

        slot->pixels = line->ring_pixels + i * byte_count;
        memcpy(slot->pixels, frame->pixels, byte_count);
        slot->line = line;
        slot->image = (ndp_rt_image){.struct_size = sizeof slot->image,
                                     .pixel_format = FORMATS[frame->channel_count == 3][frame->value_bytes == 2],
                                     .pixels = slot->pixels,
                                     .width_px = frame->width_px,
                                     .height_px = frame->height_px,
                                     .stride_bytes = row_bytes};
        slot->result.struct_size = sizeof slot->result; /* a map would have a buffer of its own here, in each slot */
        free_slot(slot);
    }
    return true;
}

static bool read_frame(struct line *line, const char *path)
{
    const size_t byte_count = (size_t)SYNTHETIC_PX * SYNTHETIC_PX;
    const char *problem;

    if (!path) {
        line->frame = (pnm){malloc(byte_count), SYNTHETIC_PX, SYNTHETIC_PX, 1, 1};
        for (size_t i = 0; line->frame.pixels && i < byte_count; i++)
            line->frame.pixels[i] = (uint8_t)(112 + (i * 2654435761U >> 16) % 32);
        return line->frame.pixels || fail("frame", "not enough memory");
    }
    problem = pnm_read(path, &line->frame);
    if (!problem && (line->frame.width_px < SPOT_PX || line->frame.height_px < SPOT_PX))
        problem = "smaller than the spot";
    return !problem || fail(path, problem);
}

/* Wait until the time is over or a signal comes. Signals are blocked but in here, so none is missed in between. */
static void wait_for_end(const struct line *line, const sigset_t *unblocked)
{
    const double seconds = line->seconds > 0 ? line->seconds : 1e9;
    const int64_t end_ns = get_ns() + (int64_t)(seconds * 1e9);

    for (int64_t rest_ns = end_ns - get_ns(); !was_interrupted && rest_ns > 0; rest_ns = end_ns - get_ns()) {
        const struct timespec rest = {(time_t)(rest_ns / 1000000000), (long)(rest_ns % 1000000000)};

        pselect(0, NULL, NULL, NULL, &rest, unblocked);
    }
}

static void print_summary(const struct line *line)
{
    const struct counts *c = &line->counts;

    printf("summary grabbed=%lu inspected=%lu defects=%lu kept=%lu missed=%lu dropped=%lu no_buffer=%lu queue_full=%lu "
           "failed=%lu",
           c->grabbed, c->kept + c->missed, c->defects, c->kept, c->missed, c->no_buffer + c->queue_full, c->no_buffer,
           c->queue_full, c->failed);
    print_percentiles("latency_ms", &line->latency_ns, 1e6);
    print_percentiles("submit_us", &line->submit_ns, 1e3);
    printf("\n");
}

/* Grab until the end, then wait for the last frames. */
static bool run(struct line *line, const sigset_t *unblocked)
{
    pthread_t grabber;
    const int error = pthread_create(&grabber, NULL, run_grabber, line);

    if (error != 0)
        return fail("grabber", strerror(error));
    wait_for_end(line, unblocked);
    pthread_mutex_lock(&line->lock);
    line->is_stopping = true;
    pthread_mutex_unlock(&line->lock);
    pthread_join(grabber, NULL);
    pthread_mutex_lock(&line->lock);
    while (line->free_count < line->ring_count)
        pthread_cond_wait(&line->slot_freed, &line->lock);
    pthread_mutex_unlock(&line->lock);
    print_summary(line);
    return line->counts.failed == 0 || fail("inspection", line->problem);
}

static int usage(void)
{
    fprintf(stderr, "usage: line [--fps F] [--seconds S] [--deadline-ms D] [--ring N] [--queue Q] [--device D] "
                    "[--precision P] BUNDLE [FRAME.pgm]\n");
    return 2;
}

/* Read a number of at least `lowest`, or return false. */
static bool read_number(const char *text, double lowest, double *number)
{
    char *end;

    *number = strtod(text, &end);
    return *text != '\0' && *end == '\0' && *number >= lowest && *number <= 1e9;
}

static bool read_option(struct line *line, const char *name, const char *value)
{
    double number = 0;

    if (strcmp(name, "--device") == 0)
        line->options.device = value;
    else if (strcmp(name, "--precision") == 0)
        line->options.precision = value;
    else if (strcmp(name, "--fps") == 0)
        return read_number(value, 0.001, &line->fps);
    else if (strcmp(name, "--seconds") == 0)
        return read_number(value, 0, &line->seconds);
    else if (strcmp(name, "--deadline-ms") == 0 && read_number(value, 0, &number))
        line->deadline_ns = (int64_t)(number * 1e6);
    else if (strcmp(name, "--ring") == 0 && read_number(value, 1, &number))
        line->ring_count = (uint32_t)number;
    else if (strcmp(name, "--queue") == 0 && read_number(value, 1, &number))
        line->options.queue_capacity = (uint32_t)number;
    else
        return false;
    return true;
}

/* Open and warm up, so that the first frame takes no longer than the others, and say what it runs on. */
static bool open_inspector(struct line *line)
{
    char text[1024];

    if (!NDP_RT_ABI_FITS(ndp_rt_abi_version()))
        return fail("libndp_rt.so", "older than the ndp_rt.h of this program");
    if (line->options.queue_capacity == 0)
        line->options.queue_capacity = line->ring_count; /* so that the ring alone says how many frames may wait */
    if (ndp_rt_inspector_open(line->bundle, &line->options, &line->inspector) != NDP_RT_STATUS_OK)
        return fail("open", ndp_rt_last_error());
    if (ndp_rt_inspector_warm_up(line->inspector, 2) != NDP_RT_STATUS_OK
        || ndp_rt_inspector_describe(line->inspector, text, sizeof text, NULL) != NDP_RT_STATUS_OK)
        return fail("warm-up", ndp_rt_last_error());
    printf("%s\n", text);
    fflush(stdout);
    return true;
}

static void clean_up(struct line *line)
{
    ndp_rt_inspector_close(line->inspector); /* before the buffers go; NULL is allowed */
    free(line->ring_pixels);
    free(line->slots);
    free(line->frame.pixels);
}

int main(int argc, char **argv)
{
    static const int32_t ONE = 1; /* frames come one by one, so engines for larger batches would do nothing */
    static struct line line = {.fps = 20, .seconds = 5, .deadline_ns = 100000000, .ring_count = 8};
    const struct sigaction action = {.sa_handler = note_signal};
    sigset_t stopping, before;
    bool is_good;
    int i;

    line.options =
        (ndp_rt_open_options){.struct_size = sizeof line.options, .batch_sizes = &ONE, .batch_size_count = 1};
    for (i = 1; i + 1 < argc && strncmp(argv[i], "--", 2) == 0; i += 2)
        if (!read_option(&line, argv[i], argv[i + 1]))
            return usage();
    if (i >= argc || argc - i > 2)
        return usage();
    line.bundle = argv[i];

    sigemptyset(&stopping);
    sigaddset(&stopping, SIGINT);
    sigaddset(&stopping, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &stopping, &before); /* in the threads that are made from here on, too */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    pthread_mutex_init(&line.lock, NULL);
    pthread_cond_init(&line.slot_freed, NULL);
    is_good = read_frame(&line, argv[i + 1]) && open_inspector(&line) && make_slots(&line) && run(&line, &before);
    clean_up(&line);
    return is_good ? 0 : 1;
}
