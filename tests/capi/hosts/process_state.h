#ifndef PROCESS_STATE_H
#define PROCESS_STATE_H

#include <stdio.h>

void count_signals(void); /* handle the usual signals by counting them */
int get_signal_count(void);
void remember_state(void);
void compare_state(FILE *out); /* say what has changed since, and then "compared" */

#endif
