/* Versions, statuses, runtime and log of ndp_rt.h, which includes this and says what holds for all of it. */
#ifndef NDP_RT_RUNTIME_H
#define NDP_RT_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

/* The ABI. A library fits a header when the major numbers are equal and its minor number is not lower; the minor number
   grows when something is added, the major when something that was there changes. */
#define NDP_RT_ABI_MAJOR         1
#define NDP_RT_ABI_MINOR         3
#define NDP_RT_ABI_FITS(version) ((version) >> 16 == NDP_RT_ABI_MAJOR && ((version) & 0xffff) + 1 > NDP_RT_ABI_MINOR)

#if defined(__GNUC__)
#define NDP_RT_API __attribute__((visibility("default")))
#else
#define NDP_RT_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Status --------------------------------------------------------------------------------------------------- */

typedef int32_t ndp_rt_status;

/* Values are fixed for ever; later versions add some, so treat one you do not know as an error. */
enum {
    NDP_RT_STATUS_OK = 0,
    NDP_RT_STATUS_ERROR = 1,             /* an error of no other kind */
    NDP_RT_STATUS_INPUT = 2,             /* an argument that is refused */
    NDP_RT_STATUS_BUNDLE = 5,            /* the bundle is missing, damaged, changed, or newer than this library */
    NDP_RT_STATUS_ENGINE = 6,            /* an engine cannot be built, loaded or run */
    NDP_RT_STATUS_MISSING = 7,           /* a package that the call needs is not installed */
    NDP_RT_STATUS_STORAGE = 8,           /* something could not be written: no space, no permission */
    NDP_RT_STATUS_CLOSED = 9,            /* the inspector was closed, or the job waited for */
    NDP_RT_STATUS_DEVICE = 10,           /* there is no such device, or it failed */
    NDP_RT_STATUS_HOST = 12,             /* what this process has loaded, set or limited keeps engines from running */
    NDP_RT_STATUS_RUNTIME = 32,          /* the runtime could not be started */
    NDP_RT_STATUS_FORKED = 33,           /* this process was forked from one that had started the runtime */
    NDP_RT_STATUS_HANDLE = 34,           /* not a handle of this kind */
    NDP_RT_STATUS_ABI = 35,              /* a struct_size that this library does not know */
    NDP_RT_STATUS_BUFFER_TOO_SMALL = 36, /* the needed size was returned */
    NDP_RT_STATUS_QUEUE_FULL = 37,       /* as many images wait as were asked for at open */
    NDP_RT_STATUS_TIMEOUT = 38,          /* the job has not ended yet */
    NDP_RT_STATUS_CANCELLED = 39,        /* cancelled, or the inspector closed, before the image's turn came */
    NDP_RT_STATUS_BUSY = 40,             /* in use by another thread, or by the callback that this is called from */
    NDP_RT_STATUS_NO_MEMORY = 41,
    NDP_RT_STATUS_INTERNAL = 42, /* a mistake of ours; the message says where */
    NDP_RT_STATUS_EXPIRED = 43,  /* the image's turn came after its deadline (ABI 1.2) */
    NDP_RT_STATUS_DROPPED = 44   /* the queue was full, and a newer image took this one's place (ABI 1.2) */
};

/* The message of this thread's last call that did not return OK; "" before there is one. Valid until the thread's next
   call that fails. Inside a callback: the message that goes with its status. Never NULL. */
NDP_RT_API const char *ndp_rt_last_error(void);

/* The name of a status, such as "NDP_RT_STATUS_INPUT"; "unknown status" for a number that is none. */
NDP_RT_API const char *ndp_rt_status_name(ndp_rt_status status);

/* ---- Versions and the runtime --------------------------------------------------------------------------------- */

/* ABI of the library: major << 16 | minor. The check to paste is in the example above. */
NDP_RT_API uint32_t ndp_rt_abi_version(void);

/* Version of the library, such as "1.4.2". */
NDP_RT_API const char *ndp_rt_version(void);

/* Start the runtime; the first open does it too. Takes some tenths of a second, once.

   python: path of the Python interpreter whose packages are used; NULL: environment variable NDP_RT_PYTHON, else the
           one that the library is installed with. Ignored once the runtime has started.

   Returns RUNTIME (no such interpreter, another Python in this process, a package missing or damaged). May be called
   again after a failure, with another interpreter until Python's modules have begun to load: the message says so. */
NDP_RT_API ndp_rt_status ndp_rt_runtime_start(const char *python);

/* Write the versions of what is in use as text, "name version" a line: ndp-rt, python and its path, numpy, opencv, the
   backends. Starts the runtime.

   buffer: of `capacity` bytes; may be NULL where capacity is 0.
   needed: receives the bytes that it takes, with the final zero; may be NULL.

   Returns RUNTIME; BUFFER_TOO_SMALL. */
NDP_RT_API ndp_rt_status ndp_rt_runtime_describe(char *buffer, size_t capacity, size_t *needed);

enum { NDP_RT_LOG_DEBUG = 10, NDP_RT_LOG_INFO = 20, NDP_RT_LOG_WARNING = 30, NDP_RT_LOG_ERROR = 40 };

/* Called from any thread, one at a time. `message` is valid during the call. Must not call ndp_rt functions other than
   ndp_rt_log_set, and must not leave by longjmp or an exception. */
typedef void (*ndp_rt_log_callback)(void *user, int32_t level, const char *message);

/* Have messages of `level` and above given to `callback`; NULL: no longer (warnings then go to standard error). When it
   returns, the former callback is not running and will not be called again. May be called before the runtime starts. */
NDP_RT_API ndp_rt_status ndp_rt_log_set(ndp_rt_log_callback callback, void *user, int32_t level);

#ifdef __cplusplus
}
#endif
#endif
