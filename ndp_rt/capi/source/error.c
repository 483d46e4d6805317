/* Keeps a message for each thread, and names statuses. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define GAP " ... "

static __thread char last_message[NDP_MESSAGE_BYTES];

const char *ndp_rt_last_error(void)
{
    return last_message;
}

static bool is_inside_character(char byte)
{
    return ((unsigned char)byte & 0xc0) == 0x80; /* of UTF-8 */
}

/* Keep both ends of a text that is too long: the beginning says what was expected, the end what to do. */
static void keep_ends(const char *text, size_t length)
{
    size_t head = NDP_MESSAGE_BYTES / 2, tail = length - (NDP_MESSAGE_BYTES / 2 - sizeof GAP);

    while (is_inside_character(text[head]))
        head--;
    while (is_inside_character(text[tail]))
        tail++;
    memcpy(last_message, text, head);
    snprintf(last_message + head, sizeof last_message - head, GAP "%s", text + tail);
}

ndp_rt_status ndp_fail(ndp_rt_status status, const char *format, ...)
{
    va_list values;
    char *text = NULL;
    int length;

    va_start(values, format);
    length = vsnprintf(last_message, sizeof last_message, format, values);
    va_end(values);
    if (length < NDP_MESSAGE_BYTES)
        return status;
    va_start(values, format);
    length = vasprintf(&text, format, values);
    va_end(values);
    if (length >= 0)
        keep_ends(text, (size_t)length);
    free(length >= 0 ? text : NULL);
    return status;
}

ndp_rt_status ndp_no_memory(void)
{
    return ndp_fail(NDP_RT_STATUS_NO_MEMORY, "not enough memory. Close inspectors, or use a machine with more.");
}

ndp_rt_status ndp_pass_on(ndp_rt_status status, const char *message)
{
    if (status == NDP_RT_STATUS_OK)
        return status;
    return ndp_fail(status, "%s", *message ? message : "the call failed without a message; report it, with the log.");
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
        NAME(NDP_RT_STATUS_HOST);
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
        NAME(NDP_RT_STATUS_EXPIRED);
        NAME(NDP_RT_STATUS_DROPPED);
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
