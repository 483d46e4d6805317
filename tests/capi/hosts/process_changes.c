/* What a host may do to its process between calls, or ask of it, each under the name of its step. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fenv.h>
#include <langinfo.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <locale.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "process_changes.h"
#include "process_state.h"

/* Unmask floating-point exceptions and round upwards, as some numerical programs do. */
static void change_floats(void)
{
    feenableexcept(FE_DIVBYZERO | FE_INVALID | FE_OVERFLOW);
    fesetround(FE_UPWARD);
}

/* Let no memory become executable from now on, as MemoryDenyWriteExecute= of systemd does from Linux 6.3 on. */
static void deny_code(FILE *out)
{
    if (prctl(65 /* PR_SET_MDWE */, 1UL /* PR_MDWE_REFUSE_EXEC_GAIN */, 0UL, 0UL, 0UL) != 0)
        fprintf(out, "deny-code: missing\n");
}

/* The same as systemd did it before, and does it where there is no PR_SET_MDWE: by a filter of calls. */
static void filter_code(FILE *out)
{
#if defined(__x86_64__)
    const uint32_t number = offsetof(struct seccomp_data, nr), rights = offsetof(struct seccomp_data, args[2]);
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, number),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, rights),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, PROT_WRITE | PROT_EXEC),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PROT_WRITE | PROT_EXEC, 5, 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pkey_mprotect, 0, 2),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, rights),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
    };
    struct sock_fprog filter = {sizeof rules / sizeof *rules, rules};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1UL, 0UL, 0UL, 0UL) != 0
        || prctl(PR_SET_SECCOMP, (unsigned long)SECCOMP_MODE_FILTER, &filter, 0UL, 0UL) != 0)
#endif
        fprintf(out, "filter-code: missing\n");
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
    else if (strcmp(name, "filter-code") == 0)
        filter_code(out);
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
