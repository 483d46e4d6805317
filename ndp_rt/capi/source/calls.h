/* What libndp_rt.so and the bridge say to each other. The library knows nothing of Python; the bridge, loaded by it,
   starts the interpreter and hands over functions that ndp_rt/capi/calls.py defines. Both are built together, from this
   file. */
#ifndef NDP_RT_CALLS_H
#define NDP_RT_CALLS_H

#include "ndp_rt.h"

#define NDP_MESSAGE_BYTES 2048 /* of every `message`, final zero included */
#define NDP_BRIDGE_START  "ndp_bridge_start"

/* Every function returns a status and writes a message unless it is OK. Structs have this build's size. `id` names an
   open inspector; the library calls with none that it has closed. */
struct ndp_calls {
    int32_t (*open)(const char *bundle, const ndp_rt_open_options *options, int64_t *id, ndp_rt_info *info,
                    char *message);
    int32_t (*close)(int64_t id, char *message);
    /* overlap_px: -1: whole images; else one image in tiles. */
    int32_t (*inspect)(int64_t id, const ndp_rt_image *images, uint64_t count, int32_t overlap_px,
                       ndp_rt_result *results, char *message);
    int32_t (*warm_up)(int64_t id, int32_t count, char *message);
    int32_t (*get_threshold)(int64_t id, double *threshold, char *message);
    int32_t (*set_threshold)(int64_t id, double threshold, char *message);
    int32_t (*set_reference)(int64_t id, const ndp_rt_image *image, char *message);
    /* Text for id, or for the runtime where id is 0: its bytes with the final zero, and the text where it fits. */
    int32_t (*describe)(int64_t id, char *buffer, uint64_t capacity, uint64_t *needed, char *message);
    int32_t (*set_log_level)(int32_t level, char *message); /* 0: give nothing to `emit` */
};

struct ndp_start {
    const char *python;                               /* path of the interpreter */
    void (*emit)(int32_t level, const char *message); /* may be called from any thread until the process ends */
};

/* The bridge's one exported function. Returns a status; may be called again after a failure. */
typedef int32_t ndp_bridge_start_function(const struct ndp_start *start, struct ndp_calls *calls, char *message);

#endif
