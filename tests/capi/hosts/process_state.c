/* What a library must leave as it is: signal handlers, locale, folder, streams, umask, floating point, environment. */
#define _GNU_SOURCE
#include <fenv.h>
#include <langinfo.h>
#include <limits.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include "process_state.h"

static volatile sig_atomic_t signal_count;

#define RESTORER 0x04000000 /* glibc's own flag, which it adds to whatever is set */

struct process_state {
    struct sigaction actions[65];
    sigset_t mask;
    char locale[256], folder[PATH_MAX], decimal_point[8], streams[256];
    mode_t umask;
    int rounding, traps;
    unsigned vector_mode; /* rounding, traps, and whether tiny numbers become 0 */
    char *environment;
};

static struct process_state before;

static char *join_environment(void)
{
    char *text = NULL;
    size_t size = 0, i;
    FILE *stream = open_memstream(&text, &size);

    for (i = 0; environ[i]; i++)
        fprintf(stream, "%s\n", environ[i]);
    fclose(stream);
    return text;
}

static void read_state(struct process_state *state)
{
    char link[64];
    size_t used = 0;
    ssize_t length;
    int i;

    memset(state, 0, sizeof *state);
    for (i = 1; i < 65; i++)
        sigaction(i, NULL, &state->actions[i]);
    pthread_sigmask(SIG_SETMASK, NULL, &state->mask);
    snprintf(state->locale, sizeof state->locale, "%s", setlocale(LC_ALL, NULL));
    snprintf(state->decimal_point, sizeof state->decimal_point, "%s", nl_langinfo(RADIXCHAR));
    if (!getcwd(state->folder, sizeof state->folder))
        state->folder[0] = '\0';
    for (i = 0; i < 3; i++) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", i);
        length = readlink(link, state->streams + used, sizeof state->streams - used - 2);
        used += length > 0 ? (size_t)length : 0;
        state->streams[used++] = ' ';
    }
    state->umask = umask(0);
    umask(state->umask);
    state->rounding = fegetround();
    state->traps = fegetexcept();
#if defined(__SSE__)
    state->vector_mode = _mm_getcsr() & ~(unsigned)_MM_EXCEPT_MASK;
#endif
    state->environment = join_environment();
}

void compare_state(FILE *out)
{
    struct process_state now;
    int i;

    read_state(&now);
    for (i = 1; i < 65; i++)
        if (now.actions[i].sa_handler != before.actions[i].sa_handler
            || (now.actions[i].sa_flags ^ before.actions[i].sa_flags) & ~RESTORER)
            fprintf(out, "changed: signal %d\n", i);
    if (memcmp(&now.mask, &before.mask, sizeof now.mask) != 0)
        fprintf(out, "changed: signal mask\n");
    if (strcmp(now.locale, before.locale) != 0 || strcmp(now.decimal_point, before.decimal_point) != 0)
        fprintf(out, "changed: locale %s\n", now.locale);
    if (strcmp(now.folder, before.folder) != 0)
        fprintf(out, "changed: folder %s\n", now.folder);
    if (strcmp(now.streams, before.streams) != 0)
        fprintf(out, "changed: streams %s\n", now.streams);
    if (now.umask != before.umask)
        fprintf(out, "changed: umask %o\n", (unsigned)now.umask);
    if (now.rounding != before.rounding || now.traps != before.traps || now.vector_mode != before.vector_mode)
        fprintf(out, "changed: floating point, %d, %d and %x\n", now.rounding, now.traps, now.vector_mode);
    if (strcmp(now.environment, before.environment) != 0)
        fprintf(out, "changed: environment\n%s\n", now.environment);
    free(now.environment);
    fprintf(out, "compared\n");
}

static void count_signal(int number)
{
    (void)number;
    signal_count++;
}

void count_signals(void)
{
    static const int NUMBERS[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGCHLD, SIGUSR1};
    struct sigaction action;
    size_t i;

    memset(&action, 0, sizeof action);
    action.sa_handler = count_signal;
    action.sa_flags = SA_RESTART;
    for (i = 0; i < sizeof NUMBERS / sizeof *NUMBERS; i++)
        sigaction(NUMBERS[i], &action, NULL);
}

int get_signal_count(void)
{
    return (int)signal_count;
}

void remember_state(void)
{
    read_state(&before);
}
