"""Implements the functions of source/calls.h, which libndp_rt.so calls.

Imported only inside a process that loaded the library, where the bridge adds the module `_ndp_rt_bridge`.
"""

import itertools
import logging
import platform
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

from _ndp_rt_bridge import ffi, lib

from ndp_rt import __version__
from ndp_rt.capi.buffers import DeviceImage, make_options, take_frame, take_image, write_result
from ndp_rt.devices.host_process import explain_failure
from ndp_rt.errors import ClosedError, InputError, NdpRtError, StorageError
from ndp_rt.inspector import Inspector

PACKAGES = ("numpy", "opencv-python-headless", "openvino", "onnxruntime", "cupy-cuda12x", "cupy-cuda13x", "tensorrt")
GAP = b" ... "

log = logging.getLogger("ndp_rt")
inspectors: dict[int, Inspector] = {}
next_id = itertools.count(1)
Call = Callable[..., None]


def answer(name: str) -> Callable[[Call], Call]:
    """Make a function the bridge's `name`, with its errors as a status and a message."""

    def decorate(call: Call) -> Call:
        def run(*arguments: Any) -> int:
            try:
                call(*arguments[:-1])
            except BaseException as error:
                return report(error, arguments[-1])
            return int(lib.NDP_RT_STATUS_OK)

        ffi.def_extern(name=name, error=lib.NDP_RT_STATUS_INTERNAL)(run)
        return call

    return decorate


def report(error: BaseException, message: Any) -> int:
    """Write an error's text to char[NDP_MESSAGE_BYTES] and return its status."""
    if isinstance(error, NdpRtError):
        status, text = error.status, str(error)
    elif isinstance(error, MemoryError):
        cause = explain_failure("out of memory") or f"not enough memory ({error or 'no details'}). Use smaller images."
        status, text = lib.NDP_RT_STATUS_NO_MEMORY, str(cause)
    elif isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        status, text = StorageError.status, f"{where}{error.strerror or error}. Check the path and the free space."
    else:
        status, text = (
            lib.NDP_RT_STATUS_INTERNAL,
            f"{type(error).__name__}: {error}. This is a mistake of ndp-rt; report it.",
        )
        log.error("a call from C failed", exc_info=error)
    full = shorten(text.encode(errors="replace"), lib.NDP_MESSAGE_BYTES - 1) + b"\0"
    ffi.memmove(message, full, len(full))
    return int(status)


def shorten(text: bytes, byte_count: int) -> bytes:
    """Return UTF-8 text, without its middle if it is too long: its ends say what was expected and what to do."""
    if len(text) <= byte_count:
        return text
    head, tail = byte_count // 2, byte_count // 2 - len(GAP)
    return text[:head].decode(errors="ignore").encode() + GAP + text[-tail:].decode(errors="ignore").encode()


def find(inspector_id: int) -> Inspector:
    try:
        return inspectors[inspector_id]
    except KeyError:
        raise ClosedError("the inspector is closed; open another.") from None


def check_side(inspector: Inspector, image: Any) -> None:
    """Raise InputError if an image is in a GPU's memory and the inspector runs on the CPU."""
    if isinstance(image, DeviceImage) and inspector.device == "cpu":
        raise InputError(
            "memory: expected host memory for an inspector on the CPU, got NDP_RT_MEMORY_CUDA. Open it with "
            'device "cuda", or copy the image.'
        )


@answer("ndp_py_open")
def open_inspector(bundle: Any, options: Any, id_out: Any, info: Any) -> None:
    inspector = Inspector.open(**make_options(bundle, options))
    inspector_id = next(next_id)
    inspectors[inspector_id] = inspector
    contract = inspector.bundle.manifest.input
    info.input_width_px, info.input_height_px = contract.width_px, contract.height_px
    info.largest_batch = inspector.batch_sizes[-1]
    id_out[0] = inspector_id


@answer("ndp_py_close")
def close_inspector(inspector_id: int) -> None:
    inspector = inspectors.pop(inspector_id, None)
    if inspector is not None:
        inspector.close()


@answer("ndp_py_inspect")
def inspect(inspector_id: int, images: Any, count: int, overlap_px: int, results: Any) -> None:
    inspector = find(inspector_id)
    frames = [take_frame(images + index, results + index) for index in range(count)]
    for index, frame in enumerate(frames):
        check_side(inspector, frame.image)
        if results[index].points != ffi.NULL and not inspector.session.options.contours:
            raise InputError(
                "points: expected an inspector that was opened with NDP_RT_OPEN_CONTOURS, got one without."
            )
    first = frames[0]
    if overlap_px >= 0:
        found = [inspector.inspect_large(first.image, overlap_px=overlap_px, map_out=first.map_out)]
    elif count == 1:
        found = [inspector.inspect(first.image, map_out=first.map_out)]
    else:
        found = inspector.inspect_batch([frame.image for frame in frames], maps_out=[frame.map_out for frame in frames])
    for index, (result, frame) in enumerate(zip(found, frames, strict=True)):
        write_result(result, frame.mask, results + index)


@answer("ndp_py_warm_up")
def warm_up(inspector_id: int, count: int) -> None:
    find(inspector_id).warm_up(count=count)


@answer("ndp_py_get_threshold")
def get_threshold(inspector_id: int, threshold: Any) -> None:
    threshold[0] = find(inspector_id).threshold


@answer("ndp_py_set_threshold")
def set_threshold(inspector_id: int, threshold: float) -> None:
    find(inspector_id).set_threshold(threshold)


@answer("ndp_py_set_reference")
def set_reference(inspector_id: int, image: Any) -> None:
    inspector, array = find(inspector_id), take_image(image)
    check_side(inspector, array)
    inspector.set_reference(array)


@answer("ndp_py_describe")
def describe(inspector_id: int, buffer: Any, capacity: int, needed: Any) -> None:
    text = describe_runtime() if inspector_id == 0 else describe_inspector(find(inspector_id))
    full = text.encode(errors="replace") + b"\0"
    needed[0] = len(full)
    if len(full) <= capacity:
        ffi.memmove(buffer, full, len(full))


def describe_runtime() -> str:
    lines = [f"ndp-rt {__version__}", f"python {platform.python_version()} {sys.executable}"]
    for name in PACKAGES:
        try:
            lines.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return "\n".join(lines)


def describe_inspector(inspector: Inspector) -> str:
    batches = ", ".join(str(size) for size in inspector.batch_sizes)
    return f"{inspector!r}, batches {batches}, engine {inspector.engine_hash}"


class HostHandler(logging.Handler):
    """Gives messages to the host's callback."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:  # a broken message must not break the inspection that it is about
            text = str(record.msg)
        lib.ndp_bridge_emit(record.levelno, text.encode(errors="replace").replace(b"\0", b" "))


handler = HostHandler()


@answer("ndp_py_set_log_level")
def set_log_level(level: int) -> None:
    if level == 0:
        log.removeHandler(handler)
        log.propagate = True
        log.setLevel(logging.NOTSET)
    else:
        handler.setLevel(level)
        log.setLevel(level)
        log.propagate = False
        log.addHandler(handler)
