/* For programs under AddressSanitizer, which ends a process that loads with RTLD_DEEPBIND, as TBB does with parts of
   itself: a dlopen without it, linked with -rdynamic. */
#define _GNU_SOURCE
#include <dlfcn.h>

void *dlopen(const char *path, int mode)
{
    void *(*next)(const char *, int);

    *(void **)&next = dlsym(RTLD_NEXT, "dlopen");
    return next(path, mode & ~RTLD_DEEPBIND);
}
