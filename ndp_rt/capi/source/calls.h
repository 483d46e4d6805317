/* The interface between libndp_rt.so and the bridge. The library knows nothing of Python; the bridge, which it loads,
   starts the interpreter and hands over functions that ndp_rt/capi/calls.py defines. */
#ifndef NDP_RT_CALLS_H
#define NDP_RT_CALLS_H

#include "ndp_rt.h"

#define NDP_MESSAGE_BYTES 2048 /* of every `message`, final zero included */
#define NDP_BRIDGE_START  "ndp_bridge_start"

/* The functions, as CALL(name, parameters, arguments); build.py reads them too. Each returns a status and writes a
   message unless it is OK. Structs have this build's size. `id` is an open inspector's.

   inspect: overlap_px is -1 for whole images; otherwise one image is cut into tiles.
   describe: writes a text, for the runtime where id is 0, if it fits; `needed` are its bytes with the final zero.
   set_log_level: 0 gives nothing to `emit`. */
#define NDP_CALLS(CALL)                                                                                                \
    CALL(open,                                                                                                         \
         (const char *bundle, const ndp_rt_open_options *options, int64_t *id, ndp_rt_info *info, char *message),      \
         (bundle, options, id, info, message))                                                                         \
    CALL(close, (int64_t id, char *message), (id, message))                                                            \
    CALL(inspect,                                                                                                      \
         (int64_t id, const ndp_rt_image *images, uint64_t count, int32_t overlap_px, ndp_rt_result *results,          \
          char *message),                                                                                              \
         (id, images, count, overlap_px, results, message))                                                            \
    CALL(warm_up, (int64_t id, int32_t count, char *message), (id, count, message))                                    \
    CALL(get_threshold, (int64_t id, double *threshold, char *message), (id, threshold, message))                      \
    CALL(set_threshold, (int64_t id, double threshold, char *message), (id, threshold, message))                       \
    CALL(set_reference, (int64_t id, const ndp_rt_image *image, char *message), (id, image, message))                  \
    CALL(describe, (int64_t id, char *buffer, uint64_t capacity, uint64_t *needed, char *message),                     \
         (id, buffer, capacity, needed, message))                                                                      \
    CALL(set_log_level, (int32_t level, char *message), (level, message))

#define NDP_FIELD(name, parameters, arguments) int32_t(*name) parameters;
struct ndp_calls {
    NDP_CALLS(NDP_FIELD)
};

struct ndp_start {
    const char *python;                               /* path of the interpreter */
    void (*emit)(int32_t level, const char *message); /* may be called from any thread until the process ends */
};

/* The bridge's one exported function. Returns a status; may be called again after a failure. */
typedef int32_t ndp_bridge_start_function(const struct ndp_start *start, struct ndp_calls *calls, char *message);

#endif
