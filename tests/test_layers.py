"""The contracts on imports in pyproject.toml, the size and the names of files, and what an import loads."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
BEHIND_THE_LIBRARY = ("ndp_rt/capi/calls.py", "ndp_rt/capi/buffers.py")  # which libndp_rt.so alone can import
NAMES_NOT_TO_USE = {"utils", "util", "helpers", "helper", "common", "misc"}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60


def list_sources() -> dict[str, str]:
    """Return the text of every Python file of the package, once, by its path in the checkout."""
    own = [path for path in (ROOT / "ndp_rt").rglob("*.py") if not is_behind_link(path)]
    mapped = [path for folder in ("kernels", "export", "bench") for path in (ROOT / folder).rglob("*.py")]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sorted(own + mapped)}


def is_behind_link(path: Path) -> bool:
    return any(parent.is_symlink() for parent in path.parents)


def test_imports_keep_the_contracts() -> None:
    done = run_python("from importlinter.cli import lint_imports_command as lint; lint(['--no-cache'])")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Contracts: " in done.stdout


def test_files_are_short() -> None:
    long = {name: len(text.splitlines()) for name, text in list_sources().items()}
    assert {name: count for name, count in long.items() if count > MAX_FILE_LINES} == {}


def test_functions_are_short() -> None:
    long = {}
    for name, text in list_sources().items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                long[f"{name}:{node.lineno}: {node.name}"] = (node.end_lineno or node.lineno) - node.lineno + 1
    assert {where: count for where, count in long.items() if count > MAX_FUNCTION_LINES} == {}


def test_files_are_named_by_their_subject() -> None:
    assert [name for name in list_sources() if NAMES_NOT_TO_USE & set(Path(name).with_suffix("").parts)] == []


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=ROOT)


BLOCK_ALL_BUT_NUMPY = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        first = name.split(".")[0]
        if first in sys.stdlib_module_names or first in ("numpy", "ndp_rt") or first.startswith(("_", "__editable")):
            return None
        raise ModuleNotFoundError(f"blocked: {name}")
sys.meta_path.insert(0, Block())
"""


def test_importing_the_package_needs_numpy_alone() -> None:
    code = (
        BLOCK_ALL_BUT_NUMPY
        + "import ndp_rt, ndp_rt.errors, ndp_rt.program.manifest, ndp_rt.config; print(ndp_rt.__version__)"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def test_opening_the_help_loads_nothing_heavy() -> None:
    code = """
import sys
from ndp_rt.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
heavy = {"numpy", "cv2", "openvino", "onnxruntime", "onnx", "torch", "pyarrow", "rich", "sklearn", "scipy"}
print("loaded:", sorted(heavy & set(sys.modules)))
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_importing_any_runtime_module_leaves_torch_and_engines_alone() -> None:
    names = [name for name in list_sources() if not name.startswith(("export/", "bench/")) and "/engines/" not in name]
    modules = [
        ("ndp_rt." if name.startswith("kernels/") else "") + name[: -len(".py")].replace("/", ".")
        for name in names
        if not name.endswith(("__init__.py", "__main__.py")) and name not in BEHIND_THE_LIBRARY
    ]
    heavy = {"torch", "openvino", "onnxruntime", "tensorrt", "cupy"}
    code = (
        f"import sys\nfor name in {modules!r}: __import__(name)\nprint('loaded:', sorted({heavy!r} & set(sys.modules)))"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded: []"
