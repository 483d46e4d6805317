/* Gives a call what the engines expect of its thread, and the host back what it had set.

   - Locale: C.UTF-8. Engines write numbers as text and read them back, without the host's decimal comma.
   - Floating point: no traps, rounding to nearest. Engines divide by zero and round as they were tested.
   - Cancellation: held off, because a thread that ends inside would keep our locks. It is acted upon after the call.

   Threads that a call starts inherit its floating point. */
#include "internal.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static locale_t plain;

static void make_plain(void)
{
    plain = newlocale(LC_ALL_MASK, "C.UTF-8", (locale_t)0);
    if (!plain)
        plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

void ndp_raise_shield(struct ndp_shield *shield)
{
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &shield->cancel_state);
    pthread_once(&once, make_plain);
    shield->locale = uselocale(plain); /* changes nothing where there was no memory for one */
    fegetenv(&shield->floats);
    fesetenv(FE_DFL_ENV);
}

void ndp_lower_shield(const struct ndp_shield *shield)
{
    fesetenv(&shield->floats);
    uselocale(shield->locale);
    pthread_setcancelstate(shield->cancel_state, NULL);
}

void ndp_wait(pthread_cond_t *condition, pthread_mutex_t *lock)
{
    int before;

    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    pthread_cond_wait(condition, lock);
    pthread_setcancelstate(before, NULL);
}
