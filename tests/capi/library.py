"""libndp_rt.so in the tests' own process, through cffi reading the same header that C programs include.

The library then joins the tests' interpreter. Hosts without Python are C programs, built by `compile_program`.
"""

import subprocess
from pathlib import Path
from typing import Any

import cffi
import numpy as np
from numpy.typing import NDArray

from ndp_rt.capi.build import INCLUDE, read_declarations, read_header
from ndp_rt.config import find_compiler

STRICT = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror")
FORMATS = {"GREY8": (1, np.uint8), "GREY16": (1, np.uint16), "RGB8": (3, np.uint8), "BGR8": (3, np.uint8)} | {
    "RGBA8": (4, np.uint8),
    "BGRA8": (4, np.uint8),
    "RGB16": (3, np.uint16),
    "BGR16": (3, np.uint16),
}


class Library:
    """The functions of a built library, and structs with their sizes filled in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ffi = cffi.FFI()
        self.ffi.cdef(read_declarations(read_header()).replace("NDP_RT_API", ""))
        self.lib: Any = self.ffi.dlopen(str(path))

    @property
    def last_error(self) -> str:
        return str(self.ffi.string(self.lib.ndp_rt_last_error()).decode())

    def name(self, status: int) -> str:
        """Return a status without its prefix: "OK", "INPUT"."""
        return str(self.ffi.string(self.lib.ndp_rt_status_name(status)).decode()).removeprefix("NDP_RT_STATUS_")

    def make(self, kind: str, **fields: Any) -> Any:
        """Return a pointer to a new struct such as "ndp_rt_image", zero but for struct_size and fields."""
        return self.ffi.new(f"{kind} *", {"struct_size": self.ffi.sizeof(kind), **fields})

    def make_image(self, array: NDArray[Any], pixel_format: str) -> Any:
        """Return an ndp_rt_image of an array [h, w] or [h, w, c] with dense rows; the caller keeps the array alive."""
        return self.make(
            "ndp_rt_image",
            pixel_format=getattr(self.lib, f"NDP_RT_PIXEL_{pixel_format}"),
            pixels=self.ffi.cast("void *", array.ctypes.data),
            width_px=array.shape[1],
            height_px=array.shape[0],
            stride_bytes=array.strides[0],
        )

    def make_result(
        self,
        anomaly_map: NDArray[np.float32] | None = None,
        mask: NDArray[np.uint8] | None = None,
        defects: Any = None,
        points: Any = None,
    ) -> Any:
        """Return an ndp_rt_result with these buffers; defects is an ndp_rt_defect[], points an ndp_rt_point[].

        The caller keeps them alive.
        """
        fields: dict[str, Any] = {}
        for name, plane, kind in (("map", anomaly_map, "float *"), ("mask", mask, "uint8_t *")):
            if plane is not None:
                fields[name] = self.ffi.cast(kind, plane.ctypes.data)
                fields[f"{name}_stride_bytes"] = plane.strides[0]
                fields[f"{name}_capacity_bytes"] = plane.strides[0] * plane.shape[0]
        if defects is not None:
            fields |= {"defects": defects, "defect_capacity": len(defects)}
            fields["defect_struct_size"] = self.ffi.sizeof("ndp_rt_defect")
        if points is not None:
            fields |= {"points": points, "point_capacity": len(points)}
        return self.make("ndp_rt_result", **fields)

    def open(self, bundle: Path, **options: Any) -> Any:
        """Open a bundle, or fail the test with the library's message."""
        out = self.ffi.new("ndp_rt_inspector **")
        keep = {name: self.ffi.new("char[]", value.encode()) for name, value in options.items() if type(value) is str}
        made = self.make("ndp_rt_open_options", **(options | keep))
        status = self.lib.ndp_rt_inspector_open(str(bundle).encode(), made, out)
        assert status == 0, self.last_error
        return out[0]


def compile_program(library: Path, sources: list[Path], out: Path, *flags: str) -> Path:
    """Compile a C host strictly and link it to a built library."""
    folder = library.parent
    link = [f"-L{folder}", "-lndp_rt", f"-Wl,-rpath,{folder}", "-lpthread", "-ldl"]
    command = [*find_compiler(), *STRICT, f"-I{INCLUDE}", *map(str, sources), "-o", str(out), *flags, *link]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return out
