/* Describes the runtime and inspectors as text. */
#include "internal.h"

/* Write text for id, or for the runtime where id is 0, into the caller's buffer. */
static ndp_rt_status describe(int64_t id, char *buffer, size_t capacity, size_t *needed)
{
    char message[NDP_MESSAGE_BYTES] = "";
    uint64_t needed_bytes = 0;
    ndp_rt_status status = ndp_get_calls()->describe(id, buffer, capacity, &needed_bytes, message);

    if (status != NDP_RT_STATUS_OK)
        return ndp_pass_on(status, message);
    if (needed)
        *needed = needed_bytes;
    if (needed_bytes > capacity)
        return ndp_fail(NDP_RT_STATUS_BUFFER_TOO_SMALL, "capacity: expected %llu bytes, got %zu.",
                        (unsigned long long)needed_bytes, capacity);
    return NDP_RT_STATUS_OK;
}

static ndp_rt_status check_buffer(const char *buffer, size_t capacity)
{
    if (buffer || capacity == 0)
        return NDP_RT_STATUS_OK;
    return ndp_fail(NDP_RT_STATUS_INPUT, "buffer: expected %zu bytes to write to, got NULL.", capacity);
}

ndp_rt_status ndp_rt_runtime_describe(char *buffer, size_t capacity, size_t *needed)
{
    ndp_rt_status status = check_buffer(buffer, capacity);

    if (status == NDP_RT_STATUS_OK)
        status = ndp_start_runtime(NULL);
    return status == NDP_RT_STATUS_OK ? describe(0, buffer, capacity, needed) : status;
}

ndp_rt_status ndp_rt_inspector_describe(ndp_rt_inspector *handle, char *buffer, size_t capacity, size_t *needed)
{
    void *object;
    ndp_rt_status status = check_buffer(buffer, capacity);

    if (status == NDP_RT_STATUS_OK)
        status = ndp_handle_take(handle, NDP_INSPECTOR, &object);
    if (status != NDP_RT_STATUS_OK)
        return status;
    status = describe(((struct ndp_inspector *)object)->id, buffer, capacity, needed);
    ndp_handle_drop(handle);
    return status;
}
