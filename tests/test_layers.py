"""The ladder of the design, the homes of third-party packages, and the size of files, by reading the source."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Lowest first. A module may import its own level and those below it. A file of ndp_rt itself is listed by its name.
LADDER: tuple[frozenset[str], ...] = (
    frozenset({"config", "errors"}),
    frozenset({"program"}),
    frozenset({"images"}),
    frozenset({"devices", "bundle"}),
    frozenset({"graphs", "kernels"}),
    frozenset({"decide"}),
    frozenset({"result"}),
    frozenset({"engines"}),
    frozenset({"options"}),
    frozenset({"runtime"}),
    frozenset({"pipeline"}),
    frozenset({"inspector"}),
    frozenset({"editing", "capi", "evaluate"}),
    frozenset({"quantise", "export"}),
    frozenset({"cli", "bench"}),
)
# Where a third-party package may be imported; one that is not named here may be imported anywhere.
HOMES: dict[str, tuple[str, ...]] = {
    "tensorrt": ("ndp_rt/engines/backends/tensorrt/",),
    "openvino": ("ndp_rt/engines/backends/openvino.py",),
    "onnxruntime": ("ndp_rt/engines/backends/onnxruntime.py", "bench/peers/"),
    "cupy": ("ndp_rt/devices/cuda/", "kernels/", "bench/peers/"),
    "torch": ("export/", "bench/models/", "bench/peers/", "ndp_rt/engines/backends/torch/"),
    "torchvision": (),
    "onnx": ("export/", "ndp_rt/bundle/", "ndp_rt/engines/", "ndp_rt/graphs/", "kernels/"),
    "sklearn": ("ndp_rt/evaluate/",),
    "scipy": ("ndp_rt/evaluate/", "bench/"),
    "matplotlib": ("ndp_rt/evaluate/", "bench/", "export/"),
    "skimage": (),
    "psutil": ("ndp_rt/evaluate/machine.py",),
    "pycuda": (),
    "cffi": ("ndp_rt/capi/build.py",),
    "_ndp_rt_bridge": ("ndp_rt/capi/calls.py", "ndp_rt/capi/buffers.py"),  # is there behind libndp_rt.so alone
}
BEHIND_THE_LIBRARY = HOMES["_ndp_rt_bridge"]
NAMES_NOT_TO_USE = {"utils", "util", "helpers", "helper", "common", "misc"}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60


def list_sources() -> list[Path]:
    """Return every Python file of the package, once, by its path in the checkout."""
    own = [path for path in (ROOT / "ndp_rt").rglob("*.py") if not is_behind_link(path)]
    mapped = [path for folder in ("kernels", "export", "bench") for path in (ROOT / folder).rglob("*.py")]
    return sorted(path for path in own + mapped if "__pycache__" not in path.parts)


def is_behind_link(path: Path) -> bool:
    return any(parent.is_symlink() for parent in path.parents)


SOURCES = list_sources()
NAMES = [path.relative_to(ROOT).as_posix() for path in SOURCES]


def find_level(part: str) -> int:
    """Return the ladder's level of a part of the package such as `bundle` or `config`."""
    for level, parts in enumerate(LADDER):
        if part in parts:
            return level
    raise AssertionError(f"'{part}' is on no level of the ladder; put it into LADDER of tests/test_layers.py")


def find_part(name: str) -> str:
    """Return the part that a file belongs to: kernels/load.py -> kernels, ndp_rt/runtime/plan.py -> plan."""
    parts = Path(name).with_suffix("").parts
    return parts[1] if parts[0] == "ndp_rt" else parts[0]


def list_imports(tree: ast.AST) -> Iterator[tuple[ast.stmt, str]]:
    """Return every module that is imported anywhere in a file, by its full name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node, "." * node.level
            elif node.module == "ndp_rt":
                yield from ((node, f"ndp_rt.{alias.name}") for alias in node.names)
            else:
                yield node, node.module or ""


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@pytest.mark.parametrize("name", NAMES)
def test_imports_point_down_the_ladder(name: str) -> None:
    if name == "ndp_rt/__init__.py":  # the public names, loaded on first use
        return
    tree = parse(ROOT / name)
    level = find_level(find_part(name))
    for node, module in list_imports(tree):
        where = f"{name}:{node.lineno}"
        assert not module.startswith("."), f"{where}: a relative import; write ndp_rt.*"
        first, *rest = module.split(".")
        assert first not in ("kernels", "export", "bench"), f"{where}: write ndp_rt.{module}"
        if first == "ndp_rt" and rest and rest[0] != "__version__":
            assert find_level(rest[0]) <= level, f"{where}: {find_part(name)} imports {module}, which lies above it"


@pytest.mark.parametrize("name", NAMES)
def test_third_party_packages_stay_in_their_homes(name: str) -> None:
    for node, module in list_imports(parse(ROOT / name)):
        homes = HOMES.get(module.split(".")[0])
        assert homes is None or name.startswith(homes), f"{name}:{node.lineno}: {module} may be imported in {homes}"


@pytest.mark.parametrize("name", NAMES)
def test_only_config_reads_the_environment(name: str) -> None:
    if name == "ndp_rt/config.py":
        return
    for node in ast.walk(parse(ROOT / name)):
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv", "putenv"):
            raise AssertionError(f"{name}:{node.lineno}: reads the environment; ndp_rt/config.py does")


@pytest.mark.parametrize("name", NAMES)
def test_files_and_functions_are_short(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_FILE_LINES, f"{name}: more than {MAX_FILE_LINES} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{name}:{node.lineno}: {node.name} has {length} lines"


@pytest.mark.parametrize("name", NAMES)
def test_files_are_named_by_their_subject(name: str) -> None:
    assert not NAMES_NOT_TO_USE & set(Path(name).with_suffix("").parts), f"{name}: name the subject"


@pytest.mark.parametrize("name", NAMES)
def test_no_bare_except_and_no_todo_without_an_issue(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), f"{name}:{node.lineno}: bare except"
    for number, line in enumerate(text.splitlines(), 1):
        assert "TODO" not in line or "#" in line.split("TODO", 1)[1], f"{name}:{number}: TODO without an issue number"


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT)


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
    names = [name for name in NAMES if not name.startswith(("export/", "bench/")) and "/engines/" not in name]
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
