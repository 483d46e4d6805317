"""What inspection PCs run: importing any module needs nothing that only Unix has."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator

from tests.test_layers import BEHIND_THE_LIBRARY, list_sources

UNIX_MODULES = ("crypt", "curses", "fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios")
UNIX_ATTRIBUTES = {
    "os": {"fork", "geteuid", "getuid", "killpg", "mkfifo", "pread", "sched_getaffinity", "statvfs", "sysconf"},
    "signal": {"SIGHUP", "SIGKILL", "SIGPIPE", "SIGUSR1", "SIGUSR2", "pthread_sigmask"},
}
# Other packages are free to look for these modules; ours are refused them, and the reason is printed.
IMPORT_ALL = """
import builtins, importlib
ordinary = builtins.__import__
def refuse(name, globals=None, locals=None, fromlist=(), level=0):
    if name.partition(".")[0] in {modules!r} and (globals or {{}}).get("__name__", "").startswith("ndp_rt"):
        raise ModuleNotFoundError(f"No module named {{name!r}}")
    return ordinary(name, globals, locals, fromlist, level)
builtins.__import__ = refuse
for name in {names!r}:
    try:
        importlib.import_module(name)
    except Exception as error:
        print(f"{{name}}: {{type(error).__name__}}: {{error}}")
"""


def name_module(path: str) -> str:
    """Return the name that a file of the checkout is imported by."""
    dotted = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return dotted if dotted.startswith("ndp_rt") else f"ndp_rt.{dotted}"


def test_every_module_imports_without_the_modules_of_unix() -> None:
    has_torch = importlib.util.find_spec("torch") is not None
    paths = [name for name in list_sources() if name not in BEHIND_THE_LIBRARY and not name.endswith("__main__.py")]
    names = [name_module(path) for path in paths if has_torch or not path.startswith(("export/", "bench/"))]
    code = IMPORT_ALL.format(modules=set(UNIX_MODULES), names=names)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def list_run_on_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what of a module runs when it is imported: everything outside of functions."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            yield from list_run_on_import(child)


def test_importing_uses_nothing_that_only_unix_has() -> None:
    used = [
        f"{path}, line {node.lineno}: {node.value.id}.{node.attr}"
        for path, text in list_sources().items()
        for node in list_run_on_import(ast.parse(text))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if node.attr in UNIX_ATTRIBUTES.get(node.value.id, ())
    ]
    assert used == []
