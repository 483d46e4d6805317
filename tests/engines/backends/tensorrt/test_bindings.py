"""What the TensorRT backend calls, and what the fake stands in for, against TensorRT's real Python bindings.

The bindings (1 MB a version) come from the package index and are imported over null libraries, so this needs no GPU and
no TensorRT. 8.5.3 comes in one piece of 549 MB, so its names are kept in tensorrt-8.5.3.1.json; made anew by
`python -m tests.engines.backends.tensorrt.test_bindings WHEEL_FOLDER STUB_FOLDER PYTHON_3.10`.
"""

import ast
import inspect
import json
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from ndp_rt.engines.backends.tensorrt.adapter import VERSIONED
from tests.engines.backends.tensorrt.used_names import MODULE_NAMES, Use, list_uses
from tests.fakes import fake_tensorrt

HERE = Path(__file__).parent
SOURCES = sorted((HERE.parents[3] / "ndp_rt" / "engines" / "backends" / "tensorrt").glob("*.py"))
RECORDED = HERE / "tensorrt-8.5.3.1.json"
# The oldest and the latest of each way in which versions differ.
WHEELS = {
    "8.6.1": "tensorrt-bindings",
    "10.0.1": "tensorrt-cu12-bindings",
    "10.16.1.11": "tensorrt-cu12-bindings",
    "11.4.0.106": "tensorrt-cu12-bindings",
}
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser", "nvparsers")
# Results that the bindings name as C++ does; a shape is used as a tuple.
CPP_NAMES = {"IParserError": "ParserError", "IEngineInspector": "EngineInspector", "Dims": ""}
NO_DRIVER = "a builder without a driver"


@dataclass(frozen=True)
class Bindings:
    """One version's names: each with its kind and its signatures."""

    version: str
    names: dict[str, list[str]]

    @property
    def numbers(self) -> tuple[int, int]:
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)


@dataclass(frozen=True)
class Signature:
    """A function's parameters, without self, and the class of its result ("" for what is no class of TensorRT)."""

    parameters: tuple[str, ...]
    required_count: int
    result: str


def parse_signature(line: str) -> Signature:
    """Read such as "set_flag(self: x.IBuilderConfig, flag: x.BuilderFlag = <A.B: 0>) -> None"."""
    head, _, result = line.rpartition(" -> ")
    words, depth, current = [], 0, ""
    for sign in head.partition("(")[2].removesuffix(")"):
        depth += (sign in "([{<") - (sign in ")]}>")
        if sign == "," and depth == 0:
            words.append(current)
            current = ""
        else:
            current += sign
    parts = [word.strip() for word in (*words, current) if word.strip() and word.strip() != "/"]
    parts = parts[1:] if parts and re.match(r"(self|arg0)\b", parts[0]) else parts
    return Signature(
        parameters=tuple(part.partition(":")[0].strip() for part in parts),
        required_count=sum("=" not in part.replace("==", "") for part in parts),
        result=find_result_class(result),
    )


def find_result_class(text: str) -> str:
    """Return the class in "tensorrt_bindings.tensorrt.X" or "nvonnxparser::IX"; "" for bool, str, list and so on."""
    match = re.fullmatch(r"(?:tensorrt\w*(?:\.tensorrt(?:_rtx)?)?\.|nv\w+::)([\w.:]+)", text.strip())
    name = match.group(1).replace("::", ".") if match else ""
    return CPP_NAMES.get(name, name)


def find_problems(use: Use, bindings: Bindings) -> list[str]:
    """Say what is wrong with one use in one version."""
    found = bindings.names.get(use.name)
    if found is None:
        return [f"{use.where}: {use.name} is not in {bindings.version}"]
    kind, signatures = found[0], [parse_signature(line) for line in found[1:]]
    problems = []
    if use.how == "set" and kind != "settable":
        problems.append(f"{use.where}: {use.name} cannot be set in {bindings.version}")
    if use.how == "call":
        if kind != "method" or not any(accepts(signature, use.arguments) for signature in signatures):
            problems.append(f"{use.where}: {use.name}{use.arguments} does not fit {found} of {bindings.version}")
        if use.is_ignored and any(line.endswith("-> bool") for line in found[1:]):
            problems.append(f"{use.where}: {use.name} answers with a bool, which is not looked at")
    if use.how == "override" and use.arguments != signatures[0].parameters:
        problems.append(f"{use.where}: {use.name} takes {signatures[0].parameters} in {bindings.version}")
    if use.result and use.how != "subclass" and not use.name.endswith(".__init__"):
        results = {signature.result for signature in signatures}
        if results != {use.result}:
            problems.append(f"{use.where}: {use.name} gives {results} in {bindings.version}, not {use.result}")
    return problems


def accepts(signature: Signature, arguments: tuple[str, ...]) -> bool:
    """Tell whether a function can be called with so many positional arguments and these keywords."""
    positional = sum(not one for one in arguments)
    keywords = {one for one in arguments if one}
    rest = signature.parameters[positional:]
    return (
        positional <= len(signature.parameters) and keywords <= set(rest) and len(arguments) >= signature.required_count
    )


def takes_as_many(signature: Signature, taken: tuple[str, ...]) -> bool:
    """Tell whether a function has these parameters first, and needs no others."""
    return signature.parameters[: len(taken)] == taken and signature.required_count <= len(taken)


def is_in(name: str, version: tuple[int, int]) -> bool:
    """Tell whether the adapter's table says that a version has a name."""
    span = VERSIONED.get(name)
    return span is None or (span.since <= version and (span.gone is None or version < span.gone))


def find_owner(name: str) -> str:
    """Return the entry of the table that speaks for a name: its own, or its class's."""
    return name if name in VERSIONED else name.partition(".")[0] if name.partition(".")[0] in VERSIONED else name


@pytest.fixture(scope="module")
def uses() -> list[Use]:
    return list_uses(SOURCES)


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of null libraries for every major version."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or platform.machine() != "x86_64" or sys.platform != "linux":
        pytest.skip("needs a C compiler, and Linux on x86-64, which the bindings are for")
    folder = tmp_path_factory.mktemp("stubs")
    for major in (8, 10, 11):
        (first, *others) = [folder / f"lib{name}.so.{major}" for name in LIBRARIES]
        for path in (first, *others):
            command = [compiler, "-shared", "-fPIC", "-w", f"-Wl,-soname,{path.name}", "-o", str(path)]
            subprocess.run([*command, str(HERE / "tensorrt_stub.c")], check=True)
    return folder


def dump_bindings(python: str, folder: Path, stubs: Path, major: str) -> Bindings:
    command = [python, str(HERE / "dump_bindings.py"), str(folder), str(stubs), major]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return Bindings(**json.loads(done.stdout))


def fetch_wheel(package: str, version: str, folder: Path) -> Path:
    """Return the folder of an unpacked wheel, fetched unless it is there; skip the test if it cannot be."""
    target = folder / f"{version}-{sys.version_info.major}.{sys.version_info.minor}"
    reason = "" if target.is_dir() else download(package, version, target)
    if reason:
        pytest.skip(f"{package} {version} cannot be fetched for this Python: {reason}")
    return target


@cache
def download(package: str, version: str, target: Path) -> str:
    """Fetch a wheel and unpack it into `target`; return why that was not possible, or nothing."""
    part = target.with_name(f".{target.name}")
    shutil.rmtree(part, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir", "--retries", "1"]
    command += ["--timeout", "10", "--only-binary=:all:", "-d", str(part), f"{package}=={version}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        return next((line for line in done.stderr.splitlines() if line.startswith("ERROR: No")), done.stderr[-200:])
    (wheel,) = part.glob("*.whl")
    shutil.unpack_archive(wheel, part, "zip")
    part.rename(target)
    return ""


@pytest.fixture(scope="module")
def wheels(stubs: Path, pytestconfig: pytest.Config) -> Path:
    """The folder that fetched wheels are kept in, from run to run if pytest has a cache."""
    cache = getattr(pytestconfig, "cache", None)
    return stubs if cache is None else Path(str(cache.mkdir("tensorrt-bindings")))


@pytest.fixture(scope="module", params=["8.5.3.1", *(pytest.param(name, marks=pytest.mark.nightly) for name in WHEELS)])
def bindings(request: pytest.FixtureRequest) -> Bindings:
    if request.param == "8.5.3.1":
        return Bindings(**json.loads(RECORDED.read_text(encoding="utf-8")))
    stubs, wheels = (request.getfixturevalue(name) for name in ("stubs", "wheels"))
    folder = fetch_wheel(WHEELS[request.param], request.param, wheels)
    return dump_bindings(sys.executable, folder, stubs, request.param.partition(".")[0])


def test_every_name_that_is_used_is_in_the_bindings_and_called_as_they_take_it(
    uses: list[Use], bindings: Bindings
) -> None:
    expected = [use for use in uses if is_in(find_owner(use.name), bindings.numbers)]
    problems = [problem for use in expected for problem in find_problems(use, bindings)]
    assert not problems, "\n".join(problems)
    assert len({use.name for use in expected}) > 70


def test_the_table_of_names_that_some_versions_lack_is_right(bindings: Bindings) -> None:
    wrong = [name for name in VERSIONED if (name in bindings.names) != is_in(name, bindings.numbers)]
    assert not wrong, f"{bindings.version} has or lacks {wrong}, other than VERSIONED says"


def test_without_a_driver_the_bindings_raise_what_the_adapter_catches(bindings: Bindings) -> None:
    assert bindings.names[NO_DRIVER] == ["pybind11::init(): factory function returned nullptr"]


@pytest.mark.nightly
@pytest.mark.parametrize("version", list(WHEELS))
def test_the_backend_gets_as_far_as_it_can_without_a_driver(stubs: Path, wheels: Path, version: str) -> None:
    folder, major = fetch_wheel(WHEELS[version], version, wheels), version.partition(".")[0]
    command = [
        sys.executable,
        "-m",
        "tests.engines.backends.tensorrt.exercise_bindings",
        str(folder),
        str(stubs),
        major,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=HERE.parents[3])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["lines"] == [["ERROR", "a line"]]
    for error, what in zip(found["errors"], ("builder", "runtime"), strict=True):
        assert error.startswith(
            f"DeviceError: TensorRT {version} makes no {what} (its log holds no error): it finds no GPU"
        )
    assert found["network_flags"] == {"8": [1], "10": [2], "11": [0]}[major]
    assert found["has_monitor"] == (major != "8")


def test_the_fake_has_only_what_the_bindings_have_and_takes_the_same_arguments(bindings: Bindings) -> None:
    lib = fake_tensorrt.make_fake(bindings.version)
    problems = []
    for name in (one for one in vars(lib) if one[0].isupper()):
        for member in (one for one in dir(getattr(lib, name)) if not one.startswith("_")):
            full, value = f"{name}.{member}", inspect.getattr_static(getattr(lib, name), member)
            if isinstance(value, fake_tensorrt.Absent) or member not in fake_tensorrt.ENUMS.get(name, (member,)):
                continue
            found = bindings.names.get(full)
            if found is None:
                problems.append(f"{full} is not in {bindings.version}")
            elif isinstance(value, property):
                if value.fset is not None and found[0] != "settable":
                    problems.append(f"{full} is {found[0]} in {bindings.version}")
            elif inspect.isfunction(value):
                taken = tuple(inspect.signature(value).parameters)[1:]
                signatures = [parse_signature(line) for line in found[1:]]
                if not any(takes_as_many(one, taken) for one in signatures):
                    problems.append(f"{full}{taken} does not fit {found} of {bindings.version}")
    assert not problems, "\n".join(problems)


def test_names_that_some_versions_lack_are_used_in_the_adapter_alone(uses: list[Use]) -> None:
    strays = {use.where for use in uses if find_owner(use.name) in VERSIONED and not use.where.startswith("adapter.py")}
    assert not strays
    table, _, code = (SOURCES[0].parent / "adapter.py").read_text(encoding="utf-8").partition("\n}\n")
    assert '"DataType.BF16": Span' in table
    assert set(re.findall(r'\b(?:has|need)\("([^"]+)"', code)) <= set(VERSIONED)
    unused = set(VERSIONED) - set(re.findall(r'"(\w+(?:\.\w+)?)"', code)) - {use.name for use in uses}
    assert not unused, f"VERSIONED has {unused}, which nothing uses"


def test_nothing_of_tensorrts_hides_behind_any() -> None:
    """What is annotated Any cannot be followed: the module, the logger and the progress monitor alone are."""
    hidden = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                if isinstance(node.returns, ast.Name) and node.returns.id == "Any":
                    hidden.add(node.name)
                given = (*node.args.args, *node.args.kwonlyargs)
                hidden |= {
                    f"{node.name}({one.arg})"
                    for one in given
                    if isinstance(one.annotation, ast.Name)
                    and one.annotation.id == "Any"
                    and one.arg not in (*MODULE_NAMES, "module")
                }
    assert hidden == {"import_tensorrt", "_make_logger", "get_log", "watch"}


def test_what_the_reader_of_the_source_cannot_follow_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "x.py"
    source.write_text('def f(config: "trt.IBuilderConfig") -> None:\n    config.get_timing_cache().serialize()\n')
    with pytest.raises(SyntaxError, match=r"x.py:2: annotate what IBuilderConfig.get_timing_cache gives"):
        list_uses([source])


BAD = {
    "config.set_flags(1)": "is not in",
    "config.set_flag()": "does not fit",
    "config.set_flag(1, 2)": "does not fit",
    "config.set_flag(flags=1)": "does not fit",
    "config.num_optimization_profiles = 2": "cannot be set",
    "config.set_timing_cache(1, False)": "answers with a bool, which is not looked at",
    'x: "trt.ILayer" = config.get_timing_cache()': "gives {'ITimingCache'}",
}


@pytest.mark.parametrize("line", list(BAD))
def test_a_wrong_call_is_found(tmp_path: Path, line: str) -> None:
    source = tmp_path / "x.py"
    source.write_text(f'def f(config: "trt.IBuilderConfig") -> None:\n    {line}\n')
    recorded = Bindings(**json.loads(RECORDED.read_text(encoding="utf-8")))
    problems = {problem for use in list_uses([source]) for problem in find_problems(use, recorded)}
    assert len(problems) == 1 and BAD[line] in problems.pop()


def record(folder: Path, stubs: Path, python: str) -> None:
    """Write RECORDED from the unpacked wheel in `folder`: the classes that are used or faked alone."""
    dumped = dump_bindings(python, folder, stubs, "8")
    wanted = {use.name.partition(".")[0] for use in list_uses(SOURCES)} | {
        one.__name__ for one in fake_tensorrt.CLASSES
    }
    wanted |= {*fake_tensorrt.ENUMS, NO_DRIVER}
    names = {name: found for name, found in dumped.names.items() if name.partition(".")[0] in wanted}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(found)}" for name, found in sorted(names.items()))
    RECORDED.write_text(f'{{"version": "{dumped.version}", "names": {{\n{lines}\n}}}}\n', encoding="utf-8")


if __name__ == "__main__":
    record(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
