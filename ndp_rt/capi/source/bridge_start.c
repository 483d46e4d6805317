/* Starts Python in the host's process, or joins the one that is there, and hands over what calls.py defines.

   Compiled into the bridge, the only part that knows Python. cffi makes the functions ndp_py_* (see build.py): each
   takes the interpreter's lock and runs a Python function, from whatever thread. */
#include <Python.h>
#include <signal.h>
#include <string.h>

#include "calls.h"

#define MODULE "_ndp_rt_bridge"
#define START  "ndp_rt.capi.start"

#define DECLARE(name, parameters, arguments) extern int32_t ndp_py_##name parameters;
NDP_CALLS(DECLARE)
extern PyObject *PyInit__ndp_rt_bridge(void);

static void (*emit)(int32_t level, const char *message);
static char started_from[4096]; /* the interpreter that was started here; "": none */

/* What calls.py logs through. */
void ndp_bridge_emit(int32_t level, const char *message)
{
    emit(level, message);
}

/* Start the interpreter, leaving locale and environment alone; the calling thread then holds its lock. */
static PyStatus initialise(const char *path)
{
    PyPreConfig preconfig;
    PyConfig config;
    PyStatus status;

    PyPreConfig_InitIsolatedConfig(&preconfig);
    preconfig.utf8_mode = 1;
    status = Py_PreInitialize(&preconfig);
    if (PyStatus_Exception(status))
        return status;
    PyConfig_InitIsolatedConfig(&config);
    config.install_signal_handlers = 0;
    config.pathconfig_warnings = 0;
    config.write_bytecode = 0; /* on a full disk Python up to 3.13 leaves half a file, and never starts again */
    status = PyConfig_SetBytesString(&config, &config.program_name, path);
    if (!PyStatus_Exception(status))
        status = PyConfig_SetBytesString(&config, &config.executable, path);
    if (!PyStatus_Exception(status))
        status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    return status;
}

/* Write the names of the modules that calls.py cannot do without and that are not installed; "": none is missing. */
static void find_missing(char *names, size_t size)
{
    static const char SEARCH[] =
        "from importlib.util import find_spec\n"
        "missing = [name for name in ('ndp_rt', '_cffi_backend', 'numpy', 'cv2') if find_spec(name) is None]\n"
        "names = ', '.join(missing)\n";
    PyObject *globals = PyDict_New(), *done = NULL, *found = NULL;

    if (globals && PyDict_SetItemString(globals, "__builtins__", PyEval_GetBuiltins()) == 0)
        done = PyRun_String(SEARCH, Py_file_input, globals, globals);
    if (done)
        found = PyDict_GetItemString(globals, "names");
    snprintf(names, size, "%s", found ? PyUnicode_AsUTF8(found) : "importlib");
    PyErr_Clear();
    Py_XDECREF(done);
    Py_XDECREF(globals);
}

/* Start Python, or undo the start where it lacks ndp-rt, so that another interpreter may be tried. */
static int32_t start_python(const char *path, char *message)
{
    struct sigaction before;
    PyStatus status;
    char missing[256];
    PyObject *module;

    sigaction(SIGINT, NULL, &before);
    status = initialise(path);
    if (PyStatus_Exception(status)) {
        snprintf(message, NDP_MESSAGE_BYTES,
                 "Python cannot start from %.500s: %s. Set NDP_RT_PYTHON to a Python %d.%d with ndp-rt installed.",
                 path, status.err_msg ? status.err_msg : "no reason given", PY_MAJOR_VERSION, PY_MINOR_VERSION);
        return NDP_RT_STATUS_RUNTIME;
    }
    /* Its first import takes over SIGINT where the host has left that alone, whatever install_signal_handlers says. */
    module = PyImport_ImportModule("_signal");
    Py_XDECREF(module);
    PyErr_Clear();
    sigaction(SIGINT, &before, NULL);
    find_missing(missing, sizeof missing);
    if (*missing) {
        Py_FinalizeEx();
        snprintf(message, NDP_MESSAGE_BYTES,
                 "Python: expected a Python %d.%d with ndp-rt installed, got %.500s, which has no %s. Set "
                 "NDP_RT_PYTHON to the "
                 "path of one, or install it there: %.500s -m pip install ndp-rt",
                 PY_MAJOR_VERSION, PY_MINOR_VERSION, path, missing, path);
        return NDP_RT_STATUS_RUNTIME;
    }
    snprintf(started_from, sizeof started_from, "%s", path);
    return NDP_RT_STATUS_OK;
}

/* Write "Type: text" of the Python error that is set, and clear it. */
static void describe_error(char *text, size_t size)
{
    PyObject *type, *value, *trace, *string;
    const char *utf8;

    PyErr_Fetch(&type, &value, &trace);
    PyErr_NormalizeException(&type, &value, &trace);
    string = value ? PyObject_Str(value) : NULL;
    utf8 = string ? PyUnicode_AsUTF8(string) : NULL;
    snprintf(text, size, "%s: %s", type ? ((PyTypeObject *)type)->tp_name : "error", utf8 ? utf8 : "no text");
    PyErr_Clear();
    Py_XDECREF(string);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
}

/* Put this file's module where calls.py imports it from; it is loaded already, and its file lies on no import path. */
static int add_module(void)
{
    PyObject *modules = PyImport_GetModuleDict(), *module;
    int result;

    if (PyDict_GetItemString(modules, MODULE))
        return 0;
    module = PyInit__ndp_rt_bridge();
    if (!module)
        return -1;
    result = PyDict_SetItemString(modules, MODULE, module);
    Py_DECREF(module);
    return result;
}

/* Return the path of the interpreter that runs, which need not be the one that was asked for. */
static const char *find_running(const char *asked)
{
    PyObject *path = PySys_GetObject("executable");
    const char *text = path && PyUnicode_Check(path) ? PyUnicode_AsUTF8(path) : NULL;

    PyErr_Clear();
    return text && *text ? text : asked;
}

/* Say why calls.py cannot be imported, and what to do: a process has one Python, which stays once its modules are in. */
static void explain_import(const char *asked, char *message)
{
    char reason[NDP_MESSAGE_BYTES / 2], other[NDP_MESSAGE_BYTES / 4] = "";
    const char *running;

    describe_error(reason, sizeof reason);
    running = find_running(asked);
    if (*started_from && strcmp(started_from, asked) != 0)
        snprintf(other, sizeof other, " Or start this process again to have it use %.300s.", asked);
    snprintf(message, NDP_MESSAGE_BYTES,
             "Python %d.%d at %.300s cannot load ndp-rt " NDP_VERSION ": %s. Install it there: %.300s -m pip install "
             "ndp-rt.%s",
             PY_MAJOR_VERSION, PY_MINOR_VERSION, running, reason, running, other);
}

static int32_t import_calls(const char *asked, char *message)
{
    PyObject *module = NULL, *problem = NULL;
    int32_t status = NDP_RT_STATUS_OK;

    if (add_module() == 0)
        module = PyImport_ImportModule(START);
    if (module)
        problem = PyObject_CallMethod(module, "start", "s", NDP_VERSION);
    if (!problem) {
        explain_import(asked, message);
        status = NDP_RT_STATUS_RUNTIME;
    } else if (problem != Py_None) {
        snprintf(message, NDP_MESSAGE_BYTES, "%s", PyUnicode_AsUTF8(problem));
        status = NDP_RT_STATUS_RUNTIME;
    }
    Py_XDECREF(problem);
    Py_XDECREF(module);
    return status;
}

__attribute__((visibility("default"))) int32_t ndp_bridge_start(const struct ndp_start *start, struct ndp_calls *calls,
                                                                char *message);

int32_t ndp_bridge_start(const struct ndp_start *start, struct ndp_calls *calls, char *message)
{
    int has_python = Py_IsInitialized();
    PyGILState_STATE held = PyGILState_UNLOCKED;
    int32_t status = NDP_RT_STATUS_OK;

    if (has_python)
        held = PyGILState_Ensure();
    else
        status = start_python(start->python, message);
    if (status != NDP_RT_STATUS_OK)
        return status;
    emit = start->emit;
    status = import_calls(start->python, message);
#define SET(name, parameters, arguments) .name = ndp_py_##name,
    if (status == NDP_RT_STATUS_OK)
        *calls = (struct ndp_calls){NDP_CALLS(SET)};
    if (has_python)
        PyGILState_Release(held);
    else
        PyEval_SaveThread(); /* any thread may take the lock from now on */
    return status;
}
