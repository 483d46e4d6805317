/* Lets calls on one inspector take turns, first come, first served.

   The lock behind them wakes whichever thread is quickest: of 16 threads one waited for a minute while others went ten
   times. So each thread waits here on a condition of its own, and one at a time goes on. */
#include "internal.h"

struct ndp_waiter {
    pthread_cond_t may_go;
    bool has_turn;
    struct ndp_waiter *next;
};

void ndp_take_turn(struct ndp_turns *turns)
{
    struct ndp_waiter self = {.next = NULL};

    pthread_mutex_lock(&ndp_lock);
    if (turns->is_taken) {
        pthread_cond_init(&self.may_go, NULL);
        if (turns->last)
            turns->last->next = &self;
        else
            turns->first = &self;
        turns->last = &self;
        while (!self.has_turn)
            ndp_wait(&self.may_go, &ndp_lock);
        pthread_cond_destroy(&self.may_go);
    }
    turns->is_taken = true;
    pthread_mutex_unlock(&ndp_lock);
}

void ndp_pass_turn(struct ndp_turns *turns)
{
    struct ndp_waiter *next;

    pthread_mutex_lock(&ndp_lock);
    next = turns->first;
    turns->is_taken = next != NULL; /* handed over, not put up for grabs */
    if (next) {
        turns->first = next->next;
        if (!turns->first)
            turns->last = NULL;
        next->has_turn = true;
        pthread_cond_signal(&next->may_go);
    }
    pthread_mutex_unlock(&ndp_lock);
}
