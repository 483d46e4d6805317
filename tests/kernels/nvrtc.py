"""NVIDIA's run-time compiler from the package index, which needs no GPU and no driver."""

import ctypes
import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

REMEDY = "needs NVRTC: pip install 'ndp-rt[test]' on x86-64 Linux"
LIBRARY, HEADERS = "lib/libnvrtc.so.13", ("include/cuda_fp16.h", "include/crt/mma.h")
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
    """Return the folder of NVRTC and CUDA's headers, or None where one of them is not installed."""
    try:
        spec = importlib.util.find_spec("nvidia.cu13")
    except ModuleNotFoundError:
        return None
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    return next((f for f in folders if all((f / name).is_file() for name in (LIBRARY, *HEADERS))), None)


@cache
def compile_kernels(code: str, options: tuple[str, ...], architecture: int) -> dict[str, Usage]:
    """Compile `code` for one compute capability; return what each kernel in it uses.

    Raises:
        AssertionError: it does not compile; the message is the compiler's log.
    """
    toolkit = find_toolkit()
    assert toolkit is not None, REMEDY
    nvrtc = ctypes.CDLL(str(toolkit / LIBRARY))
    program = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"kernel.cu", 0, None, None) == 0
    try:
        flags = (*options, f"-arch=sm_{architecture}", f"-I{toolkit / 'include'}", "--ptxas-options=-v")
        status = nvrtc.nvrtcCompileProgram(
            program, len(flags), (ctypes.c_char_p * len(flags))(*(f.encode() for f in flags))
        )
        size = ctypes.c_size_t()
        assert nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size)) == 0
        log = ctypes.create_string_buffer(size.value)
        assert nvrtc.nvrtcGetProgramLog(program, log) == 0
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    text = log.value.decode(errors="replace")
    assert status == 0, text
    assert "warning" not in text, text
    return parse_usage(text)


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
