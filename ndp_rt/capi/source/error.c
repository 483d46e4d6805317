/* Messages, one a thread, and the names of statuses. */
#include <stdarg.h>
#include <stdio.h>

#include "internal.h"

static __thread char last_message[NDP_MESSAGE_BYTES];

const char *ndp_rt_last_error(void)
{
    return last_message;
}

ndp_rt_status ndp_fail(ndp_rt_status status, const char *format, ...)
{
    va_list values;

    va_start(values, format);
    vsnprintf(last_message, sizeof last_message, format, values);
    va_end(values);
    return status;
}

ndp_rt_status ndp_no_memory(void)
{
    return ndp_fail(NDP_RT_STATUS_NO_MEMORY, "not enough memory. Close inspectors, or use a machine with more.");
}

#define NAME(status)                                                                                                   \
    case status:                                                                                                       \
        return #status

const char *ndp_rt_status_name(ndp_rt_status status)
{
    switch (status) {
        NAME(NDP_RT_STATUS_OK);
        NAME(NDP_RT_STATUS_ERROR);
        NAME(NDP_RT_STATUS_INPUT);
        NAME(NDP_RT_STATUS_BUNDLE);
        NAME(NDP_RT_STATUS_ENGINE);
        NAME(NDP_RT_STATUS_MISSING);
        NAME(NDP_RT_STATUS_STORAGE);
        NAME(NDP_RT_STATUS_CLOSED);
        NAME(NDP_RT_STATUS_DEVICE);
        NAME(NDP_RT_STATUS_RUNTIME);
        NAME(NDP_RT_STATUS_FORKED);
        NAME(NDP_RT_STATUS_HANDLE);
        NAME(NDP_RT_STATUS_ABI);
        NAME(NDP_RT_STATUS_BUFFER_TOO_SMALL);
        NAME(NDP_RT_STATUS_QUEUE_FULL);
        NAME(NDP_RT_STATUS_TIMEOUT);
        NAME(NDP_RT_STATUS_CANCELLED);
        NAME(NDP_RT_STATUS_BUSY);
        NAME(NDP_RT_STATUS_NO_MEMORY);
        NAME(NDP_RT_STATUS_INTERNAL);
    default:
        return "unknown status";
    }
}

uint32_t ndp_rt_abi_version(void)
{
    return (uint32_t)NDP_RT_ABI_MAJOR << 16 | NDP_RT_ABI_MINOR;
}

const char *ndp_rt_version(void)
{
    return NDP_VERSION;
}
