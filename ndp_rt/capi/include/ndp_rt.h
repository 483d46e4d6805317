/* ndp_rt.h: surface-defect inspection from C99, C++ and whatever calls C. Linux, 64 bit.

   A whole program; build it with  cc first.c $(ndp-rt capi --cflags --libs) -o first

       #include <ndp_rt.h>
       #include <stdio.h>
       #include <stdlib.h>

       int main(void)
       {
           enum { WIDTH = 640, HEIGHT = 480 };
           uint8_t *frame = calloc(HEIGHT, WIDTH);
           float *map = calloc(HEIGHT, WIDTH * sizeof *map);
           ndp_rt_inspector *inspector = NULL;
           ndp_rt_image image = {.struct_size = sizeof image, .pixels = frame, .width_px = WIDTH, .height_px = HEIGHT,
                                 .stride_bytes = WIDTH, .pixel_format = NDP_RT_PIXEL_GREY8};
           ndp_rt_result result = {.struct_size = sizeof result, .map = map, .map_stride_bytes = WIDTH * sizeof *map,
                                   .map_capacity_bytes = HEIGHT * WIDTH * sizeof *map};

           if (!NDP_RT_ABI_FITS(ndp_rt_abi_version())) { fprintf(stderr, "another libndp_rt.so\n"); return 1; }
           if (ndp_rt_inspector_open("tiles.ndp", NULL, &inspector) != NDP_RT_STATUS_OK
               || ndp_rt_inspector_inspect(inspector, &image, &result) != NDP_RT_STATUS_OK) {
               fprintf(stderr, "%s\n", ndp_rt_last_error());
               return 1;
           }
           printf("score %.3f: %s\n", result.score, result.is_defect ? "defect" : "good");
           ndp_rt_inspector_close(inspector);
           free(map);
           free(frame);
           return 0;
       }

   WHAT HOLDS FOR EVERY FUNCTION
   - Functions that return ndp_rt_status return NDP_RT_STATUS_OK or say in ndp_rt_last_error() what was expected, what came
     and what to do. No argument makes them crash, exit or write anything but their out-parameters, and a failed call
     leaves these as they were, but for sizes that it says it returns.
   - Besides the statuses listed with a function, each may return INPUT (an argument that is refused), ABI (a
     struct_size of another header), NO_MEMORY, INTERNAL (a mistake of ours; please report the message), and after
     fork() FORKED. Functions that take an inspector or a job also return CLOSED (it was closed, or waited for) and
     HANDLE (it never was one).
   - Any thread may call any function at any time. Inspections on one inspector take turns, first come, first served;
     those on several run side by side. Signal handlers may call nothing. A thread that calls needs a stack of 256 KiB.
   - The caller owns every struct, string and buffer it passes. They are read, and written, only until the call returns;
     ndp_rt_inspector_submit alone holds on to some longer and says which.
   - Strings are UTF-8, terminated by zero. Those that are returned belong to the library: static, but for
     ndp_rt_last_error().
   - Structs that start with struct_size grow at their end in later versions. Set it to sizeof the struct, and the rest
     to zero before you fill it: zero means the default.
   - The first open starts the runtime in this process: signal handlers, locale, environment, working directory and
     standard streams stay as they are. It ends with the process. Close what you opened before main returns; calls that
     run then are waited for, up to 3 s, and later ones get CLOSED.
   - After fork() the child has no runtime and gets FORKED: fork before the first call, or exec.
   - Images go in where they lie and results come out where you want them; nothing is copied between.
*/
#ifndef NDP_RT_H
#define NDP_RT_H

#include "ndp_rt_runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Inspectors ----------------------------------------------------------------------------------------------- */

/* A handle, not an address: a closed one is recognised, and copies of it are the same inspector. */
typedef struct ndp_rt_inspector ndp_rt_inspector;

/* Flags of ndp_rt_open_options. */
enum {
    NDP_RT_OPEN_THRESHOLD = 1, /* decide by `threshold`, not by the bundle's */
    NDP_RT_OPEN_NO_BUILD = 2,  /* refuse (ENGINE) where an engine is missing, instead of building it (up to minutes) */
    NDP_RT_OPEN_FALLBACK = 4,  /* where the GPU cannot be used, or fails later, go on with the CPU in fp32 and log it */
    NDP_RT_OPEN_NEWEST_WINS = 8, /* a full queue takes a new image, and its oldest one ends with DROPPED (ABI 1.2) */
    NDP_RT_OPEN_CONTOURS = 16    /* trace the outlines of defects, for `points` of results (ABI 1.3) */
};

typedef struct ndp_rt_open_options {
    uint32_t struct_size;
    uint32_t flags;
    const char *device;         /* "cpu", "cuda" (the first GPU), "cuda:N"; NULL: "cpu" */
    const char *backend;        /* "openvino", "onnxruntime"; on a GPU "tensorrt", "torch-cuda"; NULL: its first */
    const char *precision;      /* "fp32", "bf16", "int8"; on a CPU "mixed", on a GPU "tf32", "fp16"; NULL: "fp32" */
    const char *plan;           /* "fused"; "staged" swaps the reference at once; NULL: "fused", on a GPU "staged" */
    const int32_t *batch_sizes; /* sizes to have engines for, 1 to 4096; NULL: those that are built, else 1 */
    uint32_t batch_size_count;  /* up to 64 */
    int32_t threads;            /* of the engine, up to 64 or this machine's processors; 0: the backend chooses */
    double threshold;           /* see NDP_RT_OPEN_THRESHOLD */
    double mm_per_pixel;        /* of the images, for defects in mm, 1e-9 to 1e9; 0: unknown */
    uint32_t queue_capacity;    /* images that may wait after ndp_rt_inspector_submit, up to 65536; 0: 16 */
    uint32_t white_level_16bit; /* the value of 16-bit images that is white, up to 65535; 0: the bundle's (ABI 1.1) */
    const char *require_signature; /* path of a public key, whose signature the bundle must have; NULL: any (ABI 1.2) */
    const char *ignore_mask;  /* path of an image: pixels that are not 0 there do not count; NULL: all do (ABI 1.2) */
    int64_t smallest_area_px; /* regions with fewer pixels of the image are no defects; 0: all count (ABI 1.2) */
    double smallest_area_mm2; /* likewise, with mm_per_pixel; 0: none (ABI 1.2) */
} ndp_rt_open_options;

/* Open a bundle. Takes tenths of a second where its engine is cached, seconds where it is to be built.

   bundle:    path of the folder NAME.ndp.
   options:   NULL: all defaults.
   inspector: receives the handle, which ndp_rt_inspector_close frees.

   Returns RUNTIME, BUNDLE, DEVICE, ENGINE, HOST, MISSING, STORAGE. */
NDP_RT_API ndp_rt_status ndp_rt_inspector_open(const char *bundle, const ndp_rt_open_options *options,
                                               ndp_rt_inspector **inspector);

/* Close an inspector: later calls on it get CLOSED, images that still wait end with CANCELLED, their callbacks being
   called, and calls in progress are waited for. Jobs nobody waits for are freed. NULL does nothing and returns OK. Two
   callbacks that close each other's inspectors wait for ever.

   Returns BUSY (from a callback of this very inspector). */
NDP_RT_API ndp_rt_status ndp_rt_inspector_close(ndp_rt_inspector *inspector);

typedef struct ndp_rt_info {
    uint32_t struct_size;
    int32_t input_width_px; /* of the network: images of other sizes are resized, tiles have this one */
    int32_t input_height_px;
    int32_t largest_batch; /* the largest batch size that there is an engine for */
} ndp_rt_info;

/* Fill `info`, whose struct_size is set. */
NDP_RT_API ndp_rt_status ndp_rt_inspector_info(ndp_rt_inspector *inspector, ndp_rt_info *info);

/* Write one line on the inspector: bundle, device, backend, precision, engine. As ndp_rt_runtime_describe. */
NDP_RT_API ndp_rt_status ndp_rt_inspector_describe(ndp_rt_inspector *inspector, char *buffer, size_t capacity,
                                                   size_t *needed);

/* Inspect a grey image `count` times with every batch size, so that the first real one is as fast as the others.
   Returns ENGINE, DEVICE, HOST. */
NDP_RT_API ndp_rt_status ndp_rt_inspector_warm_up(ndp_rt_inspector *inspector, int32_t count);

/* ---- Images --------------------------------------------------------------------------------------------------- */

/* Alpha is ignored. 16 bits: in this machine's byte order, white as the bundle says (usually 65535). Values from 64 on
   are Bayer mosaics, which are refused: demosaic first, to the colours that the bundle was trained on. */
enum {
    NDP_RT_PIXEL_GREY8 = 1,
    NDP_RT_PIXEL_GREY16 = 2,
    NDP_RT_PIXEL_RGB8 = 3,
    NDP_RT_PIXEL_BGR8 = 4,
    NDP_RT_PIXEL_RGBA8 = 5,
    NDP_RT_PIXEL_BGRA8 = 6,
    NDP_RT_PIXEL_RGB16 = 7,
    NDP_RT_PIXEL_BGR16 = 8,
    NDP_RT_PIXEL_BAYER_RG8 = 64,
    NDP_RT_PIXEL_BAYER_GR8 = 65,
    NDP_RT_PIXEL_BAYER_GB8 = 66,
    NDP_RT_PIXEL_BAYER_BG8 = 67
};

enum { NDP_RT_MEMORY_HOST = 0, NDP_RT_MEMORY_CUDA = 1 };

typedef struct ndp_rt_image {
    uint32_t struct_size;
    uint32_t pixel_format;
    const void *pixels;   /* first pixel of the first row; only read */
    int32_t width_px;     /* 1 or more; whole images up to 16384 a side and 2^28 pixels in all, */
    int32_t height_px;    /* tiled ones up to 2^31 - 1 pixels */
    int64_t stride_bytes; /* from one row to the next; a row's length or more, for 16 bits even */
    uint32_t memory;      /* NDP_RT_MEMORY_CUDA: on the inspector's GPU, which then reads it where it is */
    uint32_t deadline_ms; /* for submit alone: EXPIRED where its turn comes later than this; 0: none (ABI 1.2) */
    void *cuda_stream;    /* cudaStream_t whose work so far precedes the reading; NULL: the default stream */
} ndp_rt_image;

/* ---- Results -------------------------------------------------------------------------------------------------- */

typedef struct ndp_rt_defect {
    int32_t x_px; /* the bounding box, in the image's pixels */
    int32_t y_px;
    int32_t width_px;
    int32_t height_px;
    int64_t area_px;
    double peak; /* the map's largest value inside */
    double x_mm; /* NaN without mm_per_pixel, as are those below */
    double y_mm;
    double width_mm;
    double height_mm;
    double area_mm2;
    uint32_t first_point; /* its outline in `points` of the result (ABI 1.3): where it begins there, */
    uint32_t point_count; /* and how many points it has; 0: not wanted, or there was no room for it */
} ndp_rt_defect;

/* A pixel of a region at which its outer boundary turns; straight lines join them, the last one to the first. */
typedef struct ndp_rt_point {
    int32_t x_px;
    int32_t y_px;
} ndp_rt_point;

/* Fill in struct_size and the buffers that you want; the rest is filled for you. A result may be used again and again,
   by one call at a time. */
typedef struct ndp_rt_result {
    uint32_t struct_size;
    uint32_t defect_struct_size; /* in, with `defects`: sizeof(ndp_rt_defect) */
    float *map;                  /* in: height x width floats on the host, rows dense; NULL: not wanted, saves time */
    int64_t map_stride_bytes;    /* in: a multiple of 4, a row's length or more */
    int64_t map_capacity_bytes;  /* in: the bytes that may be written from `map` on */
    int64_t map_needed_bytes;    /* out, where a map was asked for, also with BUFFER_TOO_SMALL */
    uint8_t *mask;               /* in: as map, a byte a pixel: 255 where the map shows a defect that counts, else 0 */
    int64_t mask_stride_bytes;
    int64_t mask_capacity_bytes;
    int64_t mask_needed_bytes; /* out */
    ndp_rt_defect *defects;    /* in: room for `defect_capacity` entries, highest peak first; NULL: not wanted */
    uint32_t defect_capacity;  /* in */
    uint32_t defect_count;     /* out: how many there are, also where there is less room */
    double score;              /* out: the largest value of the smoothed map at the network's size that counts */
    double threshold;          /* out: what it was compared with */
    int32_t is_defect;         /* out: score >= threshold, 0 or 1 */
    uint32_t reserved;
    double queue_ms;      /* out: from ndp_rt_inspector_submit to its turn; 0 for the other calls */
    double preprocess_ms; /* out: this image's share, where it was one of a batch */
    double engine_ms;     /* out: likewise; of images beside each other, from its start until the map is there */
    double postprocess_ms;
    double total_ms; /* out: of the inspection, without queue_ms and waiting for other threads */
    ndp_rt_point
        *points; /* in, with `defects` and NDP_RT_OPEN_CONTOURS: room for outlines; NULL: not wanted (ABI 1.3) */
    uint32_t point_capacity; /* in */
    uint32_t point_count;    /* out: of all defects, also where there is less room */
} ndp_rt_result;

/* Inspect one image, resized to the network's input.

   image:  only read, until the call returns.
   result: as above.

   Returns ENGINE, DEVICE, HOST; BUFFER_TOO_SMALL: for map or mask, before anything ran, or for `defects` and `points`, where
   everything is filled in all the same, the list holds the highest peaks, and outlines are whole or left out. */
NDP_RT_API ndp_rt_status ndp_rt_inspector_inspect(ndp_rt_inspector *inspector, const ndp_rt_image *image,
                                                  ndp_rt_result *result);

/* Inspect `count` images: on a CPU (OpenVINO, plan "fused", two threads or more) beside each other, a thread for each,
   else in the largest batches that there are engines for; all are checked before the first runs.

   images:  `count` structs of one struct_size; sizes and formats may differ.
   results: `count` structs of one struct_size, each with buffers of its own.

   Returns as ndp_rt_inspector_inspect; a count of 0 is OK. */
NDP_RT_API ndp_rt_status ndp_rt_inspector_inspect_batch(ndp_rt_inspector *inspector, const ndp_rt_image *images,
                                                        size_t count, ndp_rt_result *results);

/* Inspect an image larger than the network's input in tiles of that size, without resizing; where tiles overlap, the
   map is their maximum.

   overlap_px: what neighbouring tiles share at least, 0 to half a tile; 32 is usual.

   Returns as ndp_rt_inspector_inspect. */
NDP_RT_API ndp_rt_status ndp_rt_inspector_inspect_large(ndp_rt_inspector *inspector, const ndp_rt_image *image,
                                                        int32_t overlap_px, ndp_rt_result *result);

/* ---- Without waiting ------------------------------------------------------------------------------------------ */

/* An image that was submitted; a handle, like an inspector's. */
typedef struct ndp_rt_job ndp_rt_job;

/* Called once, in the inspector's own thread, images in the order in which they were submitted, but for cancelled and
   dropped ones, which come as soon as that thread is free. `status` is what ndp_rt_inspector_inspect would have returned,
   or EXPIRED, CANCELLED, DROPPED: not inspected, the result is as it was. The image and the result are free again, so
   that both may be submitted once more. Should be quick, for the next image waits for it. May call any function but
   close, and job waits, of this very inspector; must not leave by longjmp or an exception. The thread blocks the host's
   signals, but for faults and real-time ones. */
typedef void (*ndp_rt_done_callback)(void *user, ndp_rt_status status, ndp_rt_result *result);

/* Put an image in the inspector's queue and return at once, within microseconds.

   image:  the struct is copied; the pixels must stay as they are until `done` is called or the job was waited for.
   result: the struct and its buffers must stay, untouched, for as long; one of its own for each job.
   done:   called when the result is there; NULL: not wanted.
   user:   given to `done`.
   job:    receives a handle for ndp_rt_job_wait, which frees it; NULL: not wanted, with `done` alone.

   Returns QUEUE_FULL, but not with NDP_RT_OPEN_NEWEST_WINS; BUSY: the result belongs to a job of this inspector without
   its result yet; BUFFER_TOO_SMALL for map and mask. */
NDP_RT_API ndp_rt_status ndp_rt_inspector_submit(ndp_rt_inspector *inspector, const ndp_rt_image *image,
                                                 ndp_rt_result *result, ndp_rt_done_callback done, void *user,
                                                 ndp_rt_job **job);

/* Wait for a job to end, its callback included. Unless it returns TIMEOUT or BUSY the job is freed, so wait once.

   timeout_ms: 0: only look; negative: as long as it takes.

   Returns TIMEOUT; BUSY: another thread waits, or this is a callback of the same inspector; else what `done` is told. */
NDP_RT_API ndp_rt_status ndp_rt_job_wait(ndp_rt_job *job, int32_t timeout_ms);

/* Have images that wait end with CANCELLED, their callbacks being called and their jobs waited for as ever. Waits for
   nothing, also in a callback. What is being inspected goes on. ABI 1.2.

   result: of the image; NULL: all that wait, be there any or not.

   Returns BUSY: no image with this result waits, for the inspector has taken it, it has ended, or was cancelled before. */
NDP_RT_API ndp_rt_status ndp_rt_inspector_cancel(ndp_rt_inspector *inspector, const ndp_rt_result *result);

/* ---- Settings and times --------------------------------------------------------------------------------------- */

/* What decides: score >= threshold. Setting it holds from the next image on and does not change the bundle on disk; NaN
   is refused. */
NDP_RT_API ndp_rt_status ndp_rt_inspector_get_threshold(ndp_rt_inspector *inspector, double *threshold);
NDP_RT_API ndp_rt_status ndp_rt_inspector_set_threshold(ndp_rt_inspector *inspector, double threshold);

/* Use another defect-free image as the reference from the next inspection on. With the fused plan this compiles for
   seconds, while inspections go on. The threshold stays, so check it. The bundle on disk does not change.
   Returns ENGINE, DEVICE, HOST; the old reference then stays. */
NDP_RT_API ndp_rt_status ndp_rt_inspector_set_reference(ndp_rt_inspector *inspector, const ndp_rt_image *image);

typedef struct ndp_rt_times {
    uint32_t struct_size;
    uint32_t waiting_count;    /* images in the queue now */
    uint64_t inspection_count; /* images since open that were inspected */
    uint64_t failure_count;    /* calls and jobs since open that came to the engine and failed */
    double queue_ms;           /* of the last image that was inspected; the last of a batch */
    double preprocess_ms;
    double engine_ms;
    double postprocess_ms;
    double total_ms;
    uint64_t expired_count; /* images since open that were not inspected: by their status (ABI 1.2) */
    uint64_t cancelled_count;
    uint64_t dropped_count;
} ndp_rt_times;

/* Fill `times`, whose struct_size is set; takes well under a microsecond and waits for no inspection. */
NDP_RT_API ndp_rt_status ndp_rt_timings(ndp_rt_inspector *inspector, ndp_rt_times *times);

#ifdef __cplusplus
}
#endif
#endif
