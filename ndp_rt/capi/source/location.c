/* Finds the bridge beside the library, and the interpreter that both were installed with. */
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

/* Write the real path of the folder that this library was loaded from, without the final slash. */
static bool find_own_folder(char path[NDP_PATH_BYTES])
{
    Dl_info info;
    char *real, *slash;
    bool fits;

    if (!dladdr((void *)(uintptr_t)&ndp_rt_abi_version, &info) || !info.dli_fname)
        return false;
    real = realpath(info.dli_fname, NULL);
    if (!real)
        return false;
    slash = strrchr(real, '/');
    *slash = '\0';
    fits = snprintf(path, NDP_PATH_BYTES, "%s", real) < NDP_PATH_BYTES;
    free(real);
    return fits;
}

/* Join as printf does and tell whether there is a file at the path. */
__attribute__((format(printf, 3, 4))) static bool is_there(char path[NDP_PATH_BYTES], int mode, const char *format, ...)
{
    va_list values;
    struct stat entry;
    int length;

    va_start(values, format);
    length = vsnprintf(path, NDP_PATH_BYTES, format, values);
    va_end(values);
    return length < NDP_PATH_BYTES && access(path, mode) == 0 && stat(path, &entry) == 0 && S_ISREG(entry.st_mode);
}

/* Refuse a bridge that was cut short: the loader maps it, and the process dies where the file ends. */
static ndp_rt_status check_whole(const char *path)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    struct stat entry;
    Elf64_Ehdr header;
    bool is_whole;

    /* The table of sections comes last in what linkers write. */
    is_whole = file >= 0 && fstat(file, &entry) == 0 && read(file, &header, sizeof header) == (ssize_t)sizeof header
               && memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 && header.e_shoff <= (uint64_t)entry.st_size
               && (uint64_t)header.e_shentsize * header.e_shnum <= (uint64_t)entry.st_size - header.e_shoff;
    if (file >= 0)
        close(file);
    if (is_whole)
        return NDP_RT_STATUS_OK;
    return ndp_fail(
        NDP_RT_STATUS_RUNTIME,
        "%s: expected a library, got another file, or one that was cut short. Build it again with 'ndp-rt capi "
        "build', or install ndp-rt again.",
        path);
}

ndp_rt_status ndp_find_bridge(char path[NDP_PATH_BYTES])
{
    char folder[NDP_PATH_BYTES];

    if (find_own_folder(folder) && is_there(path, R_OK, "%s/%s", folder, NDP_BRIDGE_FILE))
        return check_whole(path);
    if (is_there(path, R_OK, "%s/%s", NDP_BUILD_FOLDER, NDP_BRIDGE_FILE)) /* libndp_rt.so was copied elsewhere */
        return check_whole(path);
    return ndp_fail(
        NDP_RT_STATUS_RUNTIME,
        "%s: expected it beside libndp_rt.so or in %s, where it was built, got neither. Load the library from "
        "where it is installed ('ndp-rt capi --libs' says where), or build it again with 'ndp-rt capi build'.",
        NDP_BRIDGE_FILE, NDP_BUILD_FOLDER);
}

/* Cut the folder of an installed library to its environment's; false: it lies elsewhere, as in a checkout. */
static bool find_environment(char folder[NDP_PATH_BYTES])
{
    static const char INSTALLED_AT[] = "/lib/python" NDP_PYTHON_VERSION "/site-packages/ndp_rt/capi";
    size_t length = strlen(folder), tail = sizeof INSTALLED_AT - 1;

    if (length <= tail || strcmp(folder + length - tail, INSTALLED_AT) != 0)
        return false;
    folder[length - tail] = '\0';
    return true;
}

/* Tell whether an environment's Python is a link to one that was removed. */
static bool is_dangling(const char *environment)
{
    char path[NDP_PATH_BYTES];
    struct stat entry;

    return snprintf(path, sizeof path, "%s/bin/python" NDP_PYTHON_VERSION, environment) < (int)sizeof path
           && lstat(path, &entry) == 0 && stat(path, &entry) != 0;
}

ndp_rt_status ndp_find_python(const char *asked, char path[NDP_PATH_BYTES])
{
    const char *source = "python";
    char folder[NDP_PATH_BYTES];

    if (!asked || !*asked) {
        asked = getenv("NDP_RT_PYTHON");
        source = "NDP_RT_PYTHON";
    }
    if (asked && *asked) {
        if (strchr(asked, '/') && is_there(path, X_OK, "%s", asked))
            return NDP_RT_STATUS_OK;
        return ndp_fail(NDP_RT_STATUS_RUNTIME,
                        "%s: expected the path of a Python " NDP_PYTHON_VERSION
                        " interpreter with ndp-rt installed, got '%s', where there is no program.",
                        source, asked);
    }
    if (find_own_folder(folder) && find_environment(folder)) {
        if (is_there(path, X_OK, "%s/bin/python" NDP_PYTHON_VERSION, folder)
            || is_there(path, X_OK, "%s/bin/python3", folder))
            return NDP_RT_STATUS_OK;
        return ndp_fail(NDP_RT_STATUS_RUNTIME,
                        "%s/bin/python" NDP_PYTHON_VERSION
                        ": expected the Python of the environment that libndp_rt.so is installed in, got none%s. "
                        "Install Python " NDP_PYTHON_VERSION
                        " again, make the environment again, or set NDP_RT_PYTHON to a Python " NDP_PYTHON_VERSION
                        " with ndp-rt installed.",
                        folder, is_dangling(folder) ? ": the link there leads nowhere" : "");
    }
    if (is_there(path, X_OK, "%s", NDP_PYTHON))
        return NDP_RT_STATUS_OK;
    return ndp_fail(NDP_RT_STATUS_RUNTIME,
                    "%s: expected the Python interpreter that libndp_rt.so was built for, got none. Set NDP_RT_PYTHON "
                    "to the path of a Python " NDP_PYTHON_VERSION " with ndp-rt installed, or build the "
                    "library again with 'ndp-rt capi build'.",
                    NDP_PYTHON);
}
