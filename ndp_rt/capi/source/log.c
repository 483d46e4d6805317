/* Calls the host's log callback. */
#include "internal.h"

/* Recursive, so that a callback may remove itself. Held while the callback runs: when ndp_rt_log_set returns, the
   former one is not running. */
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static ndp_rt_log_callback callback;
static void *user;
static int32_t lowest_level;
static uint64_t set_count; /* how often these were set */

void ndp_emit(int32_t level, const char *message)
{
    pthread_mutex_lock(&lock);
    if (callback && level >= lowest_level)
        callback(user, level, message);
    pthread_mutex_unlock(&lock);
}

ndp_rt_status ndp_apply_log_level(void)
{
    const struct ndp_calls *calls = ndp_get_calls();
    char message[NDP_MESSAGE_BYTES] = "";
    ndp_rt_status status = NDP_RT_STATUS_OK;
    uint64_t told_count, newest_count = 0;
    int32_t level;

    if (!calls)
        return NDP_RT_STATUS_OK; /* called again when it starts */
    do {                         /* again where another thread has set it meanwhile: the last word must be the newest */
        pthread_mutex_lock(&lock);
        level = callback ? lowest_level : 0;
        told_count = set_count;
        pthread_mutex_unlock(&lock);
        status = calls->set_log_level(level, message);
        pthread_mutex_lock(&lock);
        newest_count = set_count;
        pthread_mutex_unlock(&lock);
    } while (status == NDP_RT_STATUS_OK && told_count != newest_count);
    return ndp_pass_on(status, message);
}

ndp_rt_status ndp_rt_log_set(ndp_rt_log_callback new_callback, void *new_user, int32_t level)
{
    ndp_rt_status status = ndp_check_process();

    if (status != NDP_RT_STATUS_OK)
        return status;
    if (new_callback && level < 1)
        return ndp_fail(NDP_RT_STATUS_INPUT, "level: expected 1 or more, such as NDP_RT_LOG_WARNING, got %d.", level);
    pthread_mutex_lock(&lock);
    callback = new_callback;
    user = new_user;
    lowest_level = level;
    set_count++;
    pthread_mutex_unlock(&lock);
    return ndp_apply_log_level();
}
