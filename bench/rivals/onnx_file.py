"""Any network from an ONNX file as a rival, through ONNX Runtime."""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bench.rivals.base import (
    Answer,
    Check,
    Image,
    OpenRival,
    Rival,
    compare_answers,
    copy_answer,
    list_golden_images,
)
from ndp_rt.bench.rivals.device_engines import PROVIDERS, find_no_provider
from ndp_rt.bench.rivals.fused_graph import ONNX
from ndp_rt.bench.rivals.onnx_input import fill_input, list_free_sizes, resize
from ndp_rt.bundle.open import Bundle
from ndp_rt.engines.engine import one_line
from ndp_rt.errors import BundleError, EngineError, InputError
from ndp_rt.importing.terms import ImageInput

REMEDY = "pip install 'ndp-rt[onnxruntime]'"
Arrays = list[NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Session:
    """A file opened by some runtime: what it is, with its version, and what runs it.

    `run` takes the input's array to every output that is an array of numbers, and raises EngineError where it fails.
    """

    runtime: str
    run: Callable[[NDArray[Any]], Arrays]


class OnnxFileRival(Rival):
    """A network of which only its file is known, with random or trained weights."""

    is_same_network = False

    def __init__(self, path: Path, device: str = "cpu") -> None:
        """Choose the file, and "cuda" or "cpu".

        Raises:
            InputError: there is no such file.
        """
        if not path.is_file():
            raise InputError(f"{path}: is no file. Give the path of an ONNX model.")
        self.name = str(path)
        self.needs = {"onnxruntime": REMEDY, **ONNX}
        self._path, self._device = path, device

    def find(self) -> str | None:
        return super().find() or find_no_provider(self._device)

    def open(self, bundle: Bundle, precision: str, batch: int, *, threads: int | None = None) -> OpenRival:
        model, taken = self._read(bundle, batch)
        session = open_onnxruntime(self._path, list_free_sizes(model, taken, batch), taken, self._device, threads)
        return open_session(session, taken, batch, bundle)

    def check(self, bundle: Bundle, opened: OpenRival, precision: str) -> Check:
        batch = opened.shape[0]
        model, taken = self._read(bundle, batch)
        session, how = self._open_other(model, taken, batch)
        images = list_golden_images(bundle, batch)
        expected = copy_answer(open_session(session, taken, batch, bundle).run(images))
        return compare_answers(opened.run(images), expected, against=f"the same file in {session.runtime}, fp32{how}")

    def _open_other(self, model: Any, taken: ImageInput, batch: int) -> tuple[Session, str]:
        """Return another computation of the same file, and what is special in it, in words."""
        with contextlib.suppress(EngineError, ImportError):  # it may lack an operator, or not be installed
            return open_openvino(self._path, taken.make_shape(batch), None), ""
        sizes = list_free_sizes(model, taken, batch)
        plain = open_onnxruntime(self._path, sizes, taken, "cpu", None, is_optimised=False)
        return plain, ", without optimisations"

    def _read(self, bundle: Bundle, batch: int) -> tuple[Any, ImageInput]:
        """Return the model, and its input; what that leaves open has the bundle's size."""
        from ndp_rt.graphs.folding import load_model
        from ndp_rt.importing.model import find_image

        try:
            model = load_model(self._path)
        except BundleError as error:
            raise InputError(
                f"{self._path}: cannot be read as ONNX ({one_line(Exception(error.__cause__))[:500]}). Give an ONNX "
                "model, with the files that its weights lie in beside it."
            ) from error
        contract = bundle.manifest.input
        return model, find_image(self._path, model, open_px=(contract.height_px, contract.width_px), batch=batch)


def open_session(session: Session, taken: ImageInput, n: int, bundle: Bundle) -> OpenRival:
    """Return a session with images around it; it is run once to see what it gives."""
    contract = bundle.manifest.input
    h, w = contract.height_px, contract.width_px
    values = np.zeros(taken.make_shape(n), taken.dtype)
    maps, scores = np.zeros((n, 1, h, w), np.float32), np.zeros(n, np.float32)
    arrays = session.run(values)
    map_index = find_map(arrays, n)

    def call(images: Sequence[Image]) -> Answer:
        fill_input(images, values, taken)
        arrays = session.run(values)
        if map_index is None:
            rows = [array.reshape(n, -1) for array in arrays if array.shape[:1] == (n,)]
            for index in range(n):
                parts = [row[index] for row in rows] if rows else [array.ravel() for array in arrays]
                scores[index] = np.concatenate(parts).mean()
            return maps, scores
        found = arrays[map_index]
        for index, single in enumerate(found.reshape(n, *found.shape[-2:])):
            maps[index, 0] = resize(np.asarray(single, np.float32), h, w)
        maps.max(axis=(1, 2, 3), out=scores)
        return maps, scores

    size, own = f"{taken.height_px} x {taken.width_px}", f"{h} x {w}"
    facts = {
        "runtime": session.runtime,
        "input": f"{taken.dtype.name} {list(values.shape)}" + (", 0 to 1" if taken.dtype == np.float32 else ""),
        "resizing": "none" if size == own else f"{own} to {size}",
        "output": "none is a map" if map_index is None else f"map {list(arrays[map_index].shape)}",
    }
    return OpenRival((n, h, w, 3), call, facts)


def open_onnxruntime(
    path: Path,
    sizes: Mapping[str, int],
    taken: ImageInput,
    device: str,
    threads: int | None,
    *,
    is_optimised: bool = True,
) -> Session:
    """Open the file in ONNX Runtime, its named axes settled to sizes, which lets it plan ahead.

    Raises:
        EngineError: ONNX Runtime refuses it, or would run it elsewhere than on `device`.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = threads or 0  # 0: its own choice
    settings.inter_op_num_threads = 1
    for name, size in sizes.items():
        settings.add_free_dimension_override_by_name(name, size)
    if not is_optimised:
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers = list(dict.fromkeys((PROVIDERS[device], PROVIDERS["cpu"])))
    try:
        session = onnxruntime.InferenceSession(str(path), settings, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions share no base below Exception
        raise EngineError(f"ONNX Runtime refuses {path}: {one_line(error)[:2000]}") from error
    if session.get_providers()[0] != PROVIDERS[device]:  # it falls back to the CPU by itself
        raise EngineError(f"ONNX Runtime runs {path} on the CPU, not on {device}: see its log for the reason.")

    def run(values: NDArray[Any]) -> Arrays:
        try:
            return keep_numbers(session.run(None, {taken.name: values}))
        except Exception as error:  # as above
            raise EngineError(f"ONNX Runtime failed to run: {one_line(error)[:2000]}") from error

    return Session(runtime=f"ONNX Runtime {onnxruntime.__version__}", run=run)


def open_openvino(path: Path, shape: Sequence[int], threads: int | None) -> Session:
    """Open a file in OpenVINO on the CPU as it is, in float32, the size of its one input settled.

    Raises:
        EngineError: OpenVINO refuses it.
    """
    import openvino

    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        model = openvino.Core().read_model(path)
        model.reshape(list(shape))
        compiled = openvino.Core().compile_model(model, "CPU", settings)
    except Exception as error:  # OpenVINO's exceptions share no base below Exception
        raise EngineError(f"OpenVINO refuses {path}: {one_line(error)[:2000]}") from error

    def run(values: NDArray[Any]) -> Arrays:
        try:
            return keep_numbers(compiled(values, share_inputs=True).values())
        except Exception as error:  # as above
            raise EngineError(f"OpenVINO failed to run: {one_line(error)[:2000]}") from error

    return Session(runtime=f"OpenVINO {openvino.__version__}", run=run)


def keep_numbers(found: Iterable[Any]) -> Arrays:
    """Return those outputs that are arrays of numbers."""
    return [array for array in found if isinstance(array, np.ndarray) and array.dtype.kind in "fiub"]


def find_map(arrays: Sequence[NDArray[Any]], n: int) -> int | None:
    """Return which output is a map, [n, 1, h, w] or [n, h, w]: the first; None: none is.

    Raises:
        InputError: no output holds numbers.
    """
    if not arrays:
        raise InputError("the model gives no numbers. Export it with one output of numbers at least.")
    for index, array in enumerate(arrays):
        is_map = array.ndim == 3 or (array.ndim == 4 and array.shape[1] == 1)
        if is_map and array.shape[0] == n and min(array.shape[-2:]) > 1:
            return index
    return None
