/* The end of the process: exit() destroys what the engines' libraries keep, while other threads may be in a call.

   Every call to the bridge is counted here. A handler that runs before those libraries' own refuses calls from then on
   and waits for the ones in progress. */
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "internal.h"

#define LONGEST_WAIT_MS 3000 /* then the process ends all the same */

static struct ndp_calls bridge;
static int inside_count; /* threads in a call */
static bool is_ending;
static __thread int own_count; /* 1 in a log callback, which is called from within a call */

static void leave(const struct ndp_shield *shield)
{
    ndp_lower_shield(shield);
    own_count--;
    __atomic_sub_fetch(&inside_count, 1, __ATOMIC_SEQ_CST);
}

static bool enter(struct ndp_shield *shield, char *message)
{
    ndp_raise_shield(shield);
    own_count++;
    __atomic_add_fetch(&inside_count, 1, __ATOMIC_SEQ_CST);
    if (!__atomic_load_n(&is_ending, __ATOMIC_SEQ_CST))
        return true;
    leave(shield);
    snprintf(message, NDP_MESSAGE_BYTES,
             "the process is ending, and the runtime with it. Close inspectors before that.");
    return false;
}

static void end_calls(void)
{
    const struct timespec millisecond = {0, 1000000};
    int waited_ms;

    __atomic_store_n(&is_ending, true, __ATOMIC_SEQ_CST);
    for (waited_ms = 0; waited_ms < LONGEST_WAIT_MS; waited_ms++) {
        if (__atomic_load_n(&inside_count, __ATOMIC_SEQ_CST) <= own_count)
            return;
        nanosleep(&millisecond, NULL);
    }
}

static int read_load_count(struct dl_phdr_info *info, size_t size, void *load_count)
{
    (void)size;
    *(unsigned long long *)load_count = info->dlpi_adds;
    return 1; /* it is the same in all */
}

/* Have end_calls run at exit before the handlers of all libraries that are loaded by now. */
static void come_first_at_exit(void)
{
    static unsigned long long known_count;
    unsigned long long load_count = 0;

    dl_iterate_phdr(read_load_count, &load_count);
    if (__atomic_exchange_n(&known_count, load_count, __ATOMIC_SEQ_CST) != load_count)
        atexit(end_calls);
}

#define GUARD(name, parameters, arguments)                                                                             \
    static int32_t name parameters                                                                                     \
    {                                                                                                                  \
        struct ndp_shield shield;                                                                                      \
        int32_t status;                                                                                                \
                                                                                                                       \
        if (!enter(&shield, message))                                                                                  \
            return NDP_RT_STATUS_CLOSED;                                                                               \
        status = bridge.name arguments;                                                                                \
        leave(&shield);                                                                                                \
        return status;                                                                                                 \
    }

NDP_CALLS(GUARD)

/* Open; meanwhile engines load their libraries. */
static int32_t open_first(const char *bundle, const ndp_rt_open_options *options, int64_t *id, ndp_rt_info *info,
                          char *message)
{
    struct ndp_shield shield;
    int32_t status;

    if (!enter(&shield, message))
        return NDP_RT_STATUS_CLOSED;
    status = open(bundle, options, id, info, message);
    come_first_at_exit(); /* before leave: the process may end any time */
    leave(&shield);
    return status;
}

void ndp_guard_calls(struct ndp_calls *calls)
{
    bridge = *calls;
#define SET(name, parameters, arguments) .name = name,
    *calls = (struct ndp_calls){NDP_CALLS(SET)};
    calls->open = open_first;
}
