"""examples/csharp: its declarations are the header's, and where there is a C# compiler its classes do what they say."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cffi
import numpy as np
import pytest

from ndp_rt import Inspector
from ndp_rt.capi.build import read_declarations, read_header
from tests.capi.test_examples import format_result, write_pnm

CSHARP = Path(__file__).parent.parent.parent / "examples" / "csharp"
HOST = Path(__file__).parent / "hosts" / "wrapper.cs"
REMEDY = "needs a C# compiler: sudo apt install mono-mcs mono-runtime, or .NET 8 from https://dot.net"
DECLARATIONS = read_declarations(read_header())
BINDING = (CSHARP / "NdpRt.cs").read_text(encoding="utf-8")

# How C# writes a C type. Of a struct S: const S * is "ref S" or an array that goes in, S * also one that comes back.
VALUES = {"uint32_t": "uint", "int32_t": "int", "int64_t": "long", "uint64_t": "ulong", "double": "double"} | {
    "ndp_rt_status": "int",
    "size_t": "UIntPtr",
    "void *": "IntPtr",
}
PARAMETERS = {name: {written} for name, written in VALUES.items()} | {
    "const char *": {"byte[]"},
    "char *": {"byte[]"},
    "size_t *": {"out UIntPtr"},
    "double *": {"out double"},
    "ndp_rt_inspector *": {"InspectorHandle", "IntPtr"},
    "ndp_rt_inspector **": {"out InspectorHandle"},
    "ndp_rt_job *": {"IntPtr"},
    "ndp_rt_job **": {"IntPtr"},
    "ndp_rt_log_callback": {"LogCallback"},
    "ndp_rt_done_callback": {"DoneCallback"},
}


FORMS = ((np.uint8, (60, 70)), (np.uint16, (41, 33)), (np.uint8, (64, 64, 3)), (np.uint16, (9, 9, 3)))
STRUCT = r"\[StructLayout\(LayoutKind\.Explicit, Size = (\d+)\)\]\s*(?:public|internal) struct (\w+)\s*\{(.*?)\}"
FIELD = r"\[FieldOffset\((\d+)\)\] public (\w+) (\w+);"


def to_pascal(name: str) -> str:
    """Return a C name as C# writes it: struct_size -> StructSize, BUFFER_TOO_SMALL -> BufferTooSmall."""
    return "".join(part.capitalize() for part in name.split("_"))


def list_structs() -> dict[str, Any]:
    """Return the header's structs that have fields, as cffi knows them, by their C# names."""
    ffi = cffi.FFI()
    ffi.cdef(DECLARATIONS.replace("NDP_RT_API", ""))
    types = {name: ffi.typeof(name) for name in ffi.list_types()[0] if name.startswith("ndp_rt_")}
    structs = {name: one for name, one in types.items() if one.kind == "struct" and one.fields}
    return {
        to_pascal(name.removeprefix("ndp_rt_")): (
            ffi.sizeof(one),
            [(field.offset, field.type.cname, to_pascal(field_name)) for field_name, field in one.fields],
        )
        for name, one in structs.items()
    }


def split_parameters(text: str) -> list[tuple[str, str]]:
    """Return types and names of parameters in either language."""
    parts = [" ".join(part.split()) for part in re.split(r",(?![^\[]*\])", text) if part.strip() not in ("", "void")]
    return [(match[1].strip(), match[2]) for part in parts if (match := re.fullmatch(r"(.*?[ *])(\w+)", part))]


def test_enums_have_the_values_of_the_header() -> None:
    in_header: dict[str, dict[str, int]] = {}
    for kind, name, value in re.findall(r"NDP_RT_([A-Z]+)_(\w+) = (\d+)", DECLARATIONS):
        in_header.setdefault(to_pascal(kind), {})[to_pascal(name)] = int(value)
    in_binding = {
        name: {one: int(value) for one, value in re.findall(r"(\w+) = (\d+)", body)}
        for name, body in re.findall(r"public enum (\w+)[^{]*\{(.*?)\}", BINDING, re.S)
    }
    assert in_binding == in_header and len(in_header) == 5
    for name in ("MAJOR", "MINOR"):
        value = re.search(rf"#define NDP_RT_ABI_{name} +(\d+)", read_header())
        assert value is not None and f"const uint Abi{name.capitalize()} = {value[1]};" in BINDING


def test_structs_lie_in_memory_as_in_the_header() -> None:
    in_binding = {
        name: (int(size), [(int(offset), kind, field) for offset, kind, field in re.findall(FIELD, body)])
        for size, name, body in re.findall(STRUCT, BINDING, re.S)
    }
    in_header = {
        name: (size, [(offset, "IntPtr" if "*" in kind else VALUES[kind], field) for offset, kind, field in fields])
        for name, (size, fields) in list_structs().items()
    }
    assert in_binding == in_header and len(in_header) == 7


def test_functions_take_what_the_header_says() -> None:
    in_header = re.findall(r"NDP_RT_API ([\w ]+?[ *])(\w+)\((.*?)\);", DECLARATIONS, re.S)
    externs = re.findall(r"internal static extern (\w+) (\w+)\((.*?)\);", BINDING, re.S)
    in_binding = {name: (kind, split_parameters(text)) for kind, name, text in externs}
    assert {name for _, name, _ in in_header} == set(in_binding) and len(in_header) > 15
    for kind, name, text in in_header:
        expected, (found_kind, found) = split_parameters(text), in_binding[name]
        assert found_kind == ("IntPtr" if "*" in kind else VALUES[kind.strip()]), name
        assert [one for _, one in found] == [one for _, one in expected], name
        for (c_type, parameter), (written, _) in zip(expected, found, strict=True):
            struct = to_pascal(c_type.removeprefix("const ").removeprefix("ndp_rt_").removesuffix(" *"))
            way = "[In]" if c_type.startswith("const") else "[In, Out]"
            taken = PARAMETERS.get(c_type, {f"ref {struct}", f"{way} {struct}[]", "IntPtr"})
            assert written in taken, f"{name}: {parameter} is {c_type} and {written}"
    for callback, text in re.findall(r"typedef void \(\*ndp_rt_(\w+)\)\((.*?)\);", DECLARATIONS, re.S):
        match = re.search(rf"delegate void {to_pascal(callback)}\((.*?)\);", BINDING)
        kinds = ["IntPtr" if "*" in kind else VALUES[kind] for kind, _ in split_parameters(text)]
        assert match is not None and [kind for kind, _ in split_parameters(match[1])] == kinds


def build(sources: list[Path], folder: Path) -> list[str]:
    """Compile C# and return the command that runs it; skip the test where there is no compiler."""
    for source in sources:
        shutil.copy(source, folder)
    mcs, mono, dotnet = (shutil.which(name) or "" for name in ("mcs", "mono", "dotnet"))
    if mcs and mono:
        compiler = [mcs, "-langversion:7", "-warnaserror", "-out:program.exe", *(one.name for one in sources)]
        command = [mono, str(folder / "program.exe")]
    elif dotnet:
        shutil.copy(CSHARP / "inspect.csproj", folder)
        compiler = [dotnet, "build", "--nologo", "--configuration", "Release", "--output", "out", "-warnaserror"]
        command = [dotnet, str(folder / "out" / "inspect.dll")]
    else:
        pytest.skip(REMEDY)
    done = subprocess.run(compiler, capture_output=True, text=True, timeout=300, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return command


@pytest.fixture
def environment(library_path: Path, tmp_path: Path) -> dict[str, str]:
    """What a C# program needs to find its runtime, the library, and a place of its own for engines."""
    own = {"LD_LIBRARY_PATH": str(library_path.parent), "NDP_RT_CACHE": str(tmp_path / "cache")}
    return {"PATH": os.defpath, "HOME": str(tmp_path), "NDP_RT_PYTHON": sys.executable} | own


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


def test_the_classes_do_what_their_comments_say(tmp_path: Path, tiny_bundle: Path, environment: dict[str, str]) -> None:
    sources = [one for one in sorted(CSHARP.glob("*.cs")) if one.name != "Inspect.cs"]
    done = run([*build([*sources, HOST], tmp_path), str(tiny_bundle)], environment)
    assert (done.returncode, done.stderr) == (0, "")


def test_inspect_prints_what_python_finds(
    tmp_path: Path, tiny_bundle: Path, environment: dict[str, str], rng: np.random.Generator
) -> None:
    command = build(sorted(CSHARP.glob("*.cs")), tmp_path)
    paths, lines = [], []
    with Inspector.open(tiny_bundle, batches=[1], threshold=0.55) as opened:
        for dtype, shape in [
            (np.uint8, (60, 70)),
            (np.uint16, (41, 33)),
            (np.uint8, (64, 64, 3)),
            (np.uint16, (9, 9, 3)),
        ]:
            array = rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
            paths.append(write_pnm(tmp_path / f"{len(paths)}.pnm", array, comment="# 1 1\n"))
            lines.append(format_result(paths[-1], opened.inspect(array)))
    done = run([*command, "--threshold", "0.55", str(tiny_bundle), *map(str, paths)], environment)
    assert (done.stdout, done.stderr) == ("".join(lines), "")
    assert done.returncode == (3 if ": defect" in done.stdout else 0)


def test_inspect_says_in_one_line_what_is_wrong(tmp_path: Path, tiny_bundle: Path, environment: dict[str, str]) -> None:
    command = build(sorted(CSHARP.glob("*.cs")), tmp_path)
    good = write_pnm(tmp_path / "good.pgm", np.zeros((8, 8), np.uint8))
    short = tmp_path / "short.pgm"
    short.write_bytes(good.read_bytes()[:-1])
    for arguments, code, reason in (
        ([str(tiny_bundle)], 2, "usage: "),
        (["--threshold", "high", str(tiny_bundle), str(good)], 2, "usage: "),
        (["nowhere.ndp", str(good)], 1, "nowhere.ndp: does not exist"),
        ([str(tiny_bundle), str(short)], 1, "short.pgm: the file ends before its last pixel"),
        ([str(tiny_bundle), str(tmp_path / "nowhere.pgm")], 1, "nowhere.pgm"),
    ):
        done = run([*command, *arguments], environment)
        assert done.returncode == code, done.stderr
        assert reason in done.stderr and done.stderr.count("\n") == 1
    done = run([*command, str(tiny_bundle), str(good)], {**environment, "LD_LIBRARY_PATH": ""})
    assert done.returncode == 1 and "libndp_rt.so is not found" in done.stderr
