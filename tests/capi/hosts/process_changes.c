/* What a host may do to its process between calls, or ask of it, each under the name of its step. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fenv.h>
#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "process_changes.h"
#include "process_state.h"

/* Unmask floating-point exceptions and round upwards, as some numerical programs do. */
static void change_floats(void)
{
    feenableexcept(FE_DIVBYZERO | FE_INVALID | FE_OVERFLOW);
    fesetround(FE_UPWARD);
}

/* Let no memory become executable from now on, as MemoryDenyWriteExecute= of systemd does. */
static void deny_code(FILE *out)
{
    if (prctl(65 /* PR_SET_MDWE */, 1UL /* PR_MDWE_REFUSE_EXEC_GAIN */, 0UL, 0UL, 0UL) != 0)
        fprintf(out, "deny-code: missing\n");
}

/* Limit the address space to so many MiB, or to so many more than are used. */
static void limit_address_space(rlim_t mib, bool is_more, FILE *out)
{
    FILE *file = is_more ? fopen("/proc/self/statm", "r") : NULL;
    struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
    unsigned long pages = 0;

    if (file && fscanf(file, "%lu", &pages) != 1)
        fprintf(out, "statm: missing\n");
    if (file)
        fclose(file);
    limit.rlim_cur = (mib << 20) + (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
    setrlimit(RLIMIT_AS, &limit);
}

/* Call `void FUNCTION(void)` of another library: LIBRARY:FUNCTION. */
static void call_function(char *where, FILE *out)
{
    char *colon = strrchr(where, ':');
    void (*function)(void) = NULL;
    void *library;

    *colon = '\0';
    library = dlopen(where, RTLD_NOW | RTLD_LOCAL);
    if (library)
        *(void **)&function = dlsym(library, colon + 1);
    *colon = ':';
    if (function)
        function();
    else
        fprintf(out, "call: %s\n", dlerror());
}

static void close_streams(void)
{
    int i;

    for (i = 0; i < 3; i++)
        close(i);
}

bool change_process(const char *name, char *value, FILE *out)
{
    if (strcmp(name, "floats") == 0)
        change_floats();
    else if (strcmp(name, "handlers") == 0)
        count_signals();
    else if (strcmp(name, "raise") == 0)
        fprintf(out, "raise: %d\n", raise(SIGINT) == 0 ? get_signal_count() : -1);
    else if (strcmp(name, "remember") == 0)
        remember_state();
    else if (strcmp(name, "compare") == 0)
        compare_state(out);
    else if (strcmp(name, "ignore-children") == 0)
        signal(SIGCHLD, SIG_IGN);
    else if (strcmp(name, "ignore-file-limit") == 0)
        signal(SIGXFSZ, SIG_IGN);
    else if (strcmp(name, "locale") == 0)
        fprintf(out, "locale: %s\n", setlocale(LC_ALL, value) ? nl_langinfo(RADIXCHAR) : "missing");
    else if (strcmp(name, "deny-code") == 0)
        deny_code(out);
    else if (strcmp(name, "address") == 0 || strcmp(name, "address-left") == 0)
        limit_address_space((rlim_t)atoi(value), strcmp(name, "address-left") == 0, out);
    else if (strcmp(name, "call") == 0)
        call_function(value, out);
    else if (strcmp(name, "set") == 0)
        putenv(value);
    else if (strcmp(name, "close-streams") == 0)
        close_streams();
    else
        return false;
    return true;
}
