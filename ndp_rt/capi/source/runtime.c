/* Starts the runtime once and keeps its functions. */
#include <dlfcn.h>
#include <string.h>
#include <sys/resource.h>

#include "internal.h"

#define LEAST_ADDRESS_MIB 1024

enum { NEW, READY, FORKED };

static pthread_mutex_t start_lock = PTHREAD_MUTEX_INITIALIZER;
static int state = NEW;
static bool guards_forks, is_touched; /* is_touched: a start is on its way, or the bridge was called */
static struct ndp_calls calls;

static void mark_child(void)
{
    if (__atomic_load_n(&is_touched, __ATOMIC_ACQUIRE))
        __atomic_store_n(&state, FORKED, __ATOMIC_RELEASE);
}

ndp_rt_status ndp_check_process(void)
{
    if (__atomic_load_n(&state, __ATOMIC_ACQUIRE) != FORKED)
        return NDP_RT_STATUS_OK;
    return ndp_fail(NDP_RT_STATUS_FORKED,
                    "this process was forked after the runtime had started; threads and locks did not "
                    "come along. Fork before the first call, or exec.");
}

const struct ndp_calls *ndp_get_calls(void)
{
    return __atomic_load_n(&state, __ATOMIC_ACQUIRE) == READY ? &calls : NULL;
}

/* Refuse a process that runs another Python: the bridge's would take its functions for its own. */
static ndp_rt_status check_other_python(void)
{
    const char *(*get_version)(void);
    const char *version;

    *(void **)&get_version = dlsym(RTLD_DEFAULT, "Py_GetVersion");
    if (!get_version)
        return NDP_RT_STATUS_OK;
    version = get_version();
    if (strncmp(version, NDP_PYTHON_VERSION ".", strlen(NDP_PYTHON_VERSION) + 1) == 0)
        return NDP_RT_STATUS_OK;
    return ndp_fail(NDP_RT_STATUS_RUNTIME,
                    "Python: expected " NDP_PYTHON_VERSION
                    ", which libndp_rt.so is built for, got %.*s in this process. "
                    "Install ndp-rt with the latter, or use a process without Python.",
                    (int)strcspn(version, " "), version);
}

/* Refuse a limit of address space in which the libraries of Python and of engines crash while they are loaded. */
static ndp_rt_status check_address_space(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY
        || limit.rlim_cur >= (rlim_t)LEAST_ADDRESS_MIB << 20)
        return NDP_RT_STATUS_OK;
    return ndp_fail(NDP_RT_STATUS_HOST,
                    "address space: expected at least %d MiB for the libraries and engines, got a limit of %llu MiB "
                    "(ulimit -v, LimitAS= in a systemd unit). Raise or remove it; a control group (MemoryMax=) "
                    "limits the memory itself.",
                    LEAST_ADDRESS_MIB, (unsigned long long)limit.rlim_cur >> 20);
}

static ndp_rt_status start(const char *python, bool *called_bridge)
{
    char bridge_path[NDP_PATH_BYTES], python_path[NDP_PATH_BYTES], message[NDP_MESSAGE_BYTES] = "";
    struct ndp_start request = {.python = python_path, .emit = ndp_emit};
    ndp_bridge_start_function *start_bridge;
    ndp_rt_status status;
    void *bridge;

    status = check_address_space();
    if (status == NDP_RT_STATUS_OK)
        status = check_other_python();
    if (status == NDP_RT_STATUS_OK)
        status = ndp_find_python(python, python_path);
    if (status == NDP_RT_STATUS_OK)
        status = ndp_find_bridge(bridge_path);
    if (status != NDP_RT_STATUS_OK)
        return status;
    /* Global, whatever way the host loaded this library: extension modules look for Python's functions there. */
    bridge = dlopen(bridge_path, RTLD_NOW | RTLD_GLOBAL);
    if (!bridge)
        return ndp_fail(NDP_RT_STATUS_RUNTIME,
                        "the runtime's bridge cannot be loaded: %s. Build it again with 'ndp-rt capi "
                        "build'.",
                        dlerror());
    *(void **)&start_bridge = dlsym(bridge, NDP_BRIDGE_START);
    if (!start_bridge)
        return ndp_fail(NDP_RT_STATUS_RUNTIME,
                        "%s is not of this version. Build the library again with 'ndp-rt capi build'.", bridge_path);
    *called_bridge = true;
    status = start_bridge(&request, &calls, message);
    if (status == NDP_RT_STATUS_OK)
        ndp_guard_calls(&calls);
    return ndp_pass_on(status, message);
}

ndp_rt_status ndp_start_runtime(const char *python)
{
    ndp_rt_status status = ndp_check_process();
    struct ndp_shield shield;
    bool called_bridge = false;

    if (status != NDP_RT_STATUS_OK || ndp_get_calls())
        return status;
    ndp_raise_shield(&shield);
    pthread_mutex_lock(&start_lock);
    if (!ndp_get_calls()) {
        bool was_touched = is_touched;

        if (!guards_forks)
            guards_forks = pthread_atfork(NULL, NULL, mark_child) == 0;
        __atomic_store_n(&is_touched, true, __ATOMIC_RELEASE);
        status = guards_forks ? start(python, &called_bridge) : ndp_no_memory();
        if (status == NDP_RT_STATUS_OK)
            __atomic_store_n(&state, READY, __ATOMIC_RELEASE);
        else if (!was_touched && !called_bridge)
            __atomic_store_n(&is_touched, false, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&start_lock);
    ndp_lower_shield(&shield);
    return status == NDP_RT_STATUS_OK ? ndp_apply_log_level() : status;
}

ndp_rt_status ndp_rt_runtime_start(const char *python)
{
    return ndp_start_runtime(python);
}
