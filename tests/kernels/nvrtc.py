"""NVIDIA's run-time compiler from the package index, which needs no GPU and no driver."""

import ctypes
import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

REMEDY = "needs NVRTC: pip install 'ndp-rt[test]' on x86-64 Linux"
LIBRARY = "lib/libnvrtc.so.13"
USAGE = re.compile(
    r"Compiling entry function '(?P<entry>\w+)'.*?(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads"
    r".*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a compiled kernel uses."""

    registers: int
    spill_bytes: int
    static_shared_bytes: int


@cache
def find_toolkit() -> Path | None:
    """Return the folder of NVRTC, or None where it is not installed."""
    try:
        spec = importlib.util.find_spec("nvidia.cu13")
    except ModuleNotFoundError:
        return None
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    return next((folder for folder in folders if (folder / LIBRARY).is_file()), None)


@cache
def compile_kernels(code: str, options: tuple[str, ...], architecture: int) -> dict[str, Usage]:
    """Compile `code` for one compute capability; return what each kernel in it uses.

    Raises:
        AssertionError: it does not compile; the message is the compiler's log.
    """
    return parse_usage(_compile(code, (*options, f"-arch=sm_{architecture}", "--ptxas-options=-v"))[0])


def compile_to_ptx(code: str, options: tuple[str, ...], architecture: int, *, with_lines: bool = True) -> str:
    """Return the PTX of `code` for one compute capability, and with `with_lines` the lines that it comes from.

    Raises:
        AssertionError: it does not compile; the message is the compiler's log.
    """
    return _compile(code, (*options, f"-arch=compute_{architecture}", *(["-lineinfo"] if with_lines else [])))[1]


def _compile(code: str, options: tuple[str, ...]) -> tuple[str, str]:
    """Return the compiler's log and the PTX."""
    toolkit = find_toolkit()
    assert toolkit is not None, REMEDY
    nvrtc = ctypes.CDLL(str(toolkit / LIBRARY))
    program = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"kernel.cu", 0, None, None) == 0

    def read(what: str) -> str:
        size = ctypes.c_size_t()
        assert getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)) == 0
        text = ctypes.create_string_buffer(size.value)
        assert getattr(nvrtc, f"nvrtcGet{what}")(program, text) == 0
        return text.value.decode(errors="replace")

    try:
        flags = [flag.encode() for flag in options]  # and no folder of headers: a machine may lack them
        status = nvrtc.nvrtcCompileProgram(program, len(flags), (ctypes.c_char_p * len(flags))(*flags))
        log = read("ProgramLog")
        assert status == 0 and "warning" not in log, log
        return log, read("PTX")
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def parse_usage(log: str) -> dict[str, Usage]:
    """Read what --ptxas-options=-v prints."""
    return {
        match["entry"]: Usage(
            registers=int(match["registers"]),
            spill_bytes=int(match["stores"]) + int(match["loads"]),
            static_shared_bytes=int((re.search(r"(\d+) bytes smem", match["rest"]) or ["0", "0"])[1]),
        )
        for match in USAGE.finditer(log)
    }
