#ifndef PROCESS_CHANGES_H
#define PROCESS_CHANGES_H

#include <stdbool.h>
#include <stdio.h>

/* Do the change of this name and say on `out` what it shows; false: there is none. */
bool change_process(const char *name, char *value, FILE *out);

#endif
