/* A program that is linked to the library, and loads it again by other names: names PATH ...

   Prints for each whether it is the same library. */
#include <dlfcn.h>
#include <stdio.h>

#include "ndp_rt.h"

int main(int count, char **paths)
{
    void *library;
    int i;

    if (!NDP_RT_ABI_FITS(ndp_rt_abi_version()))
        return 2;
    for (i = 1; i < count; i++) {
        library = dlopen(paths[i], RTLD_NOW);
        if (!library) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
        puts(dlsym(library, "ndp_rt_last_error") == dlsym(RTLD_DEFAULT, "ndp_rt_last_error") ? "same" : "another");
    }
    return 0;
}
