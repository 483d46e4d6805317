"""Any network from an ONNX file as a rival: through ONNX Runtime where it is installed, else through OpenVINO."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ndp_rt.bench.peers.base import (
    Answer,
    Check,
    Image,
    PeerRunner,
    check_images,
    compare_answers,
    copy_answer,
    list_golden_images,
)
from ndp_rt.bench.peers.host_engines import build_engine
from ndp_rt.bench.peers.onnx_input import ImageInput, fill_input, list_free_sizes, make_float_model, read_input, resize
from ndp_rt.bundle.open import Bundle
from ndp_rt.engines.backend import EngineOptions
from ndp_rt.engines.engine import one_line
from ndp_rt.engines.registry import find_host_backend
from ndp_rt.errors import BundleError, ClosedError, EngineError, InputError, NdpRtError

REMEDY = "pip install 'ndp-rt[onnxruntime]'"
PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
Arrays = list[NDArray[Any]]


class Session(Protocol):
    """A file opened by some runtime."""

    runtime: str  # with its version

    def run(self, values: NDArray[Any]) -> Arrays:
        """Return every output that is an array of numbers.

        Raises:
            EngineError: the runtime failed.
        """
        ...

    def close(self) -> None: ...


class OnnxFilePeer:
    """See `ndp_rt.bench.peers.base.Peer`."""

    precisions = ("fp32",)

    def __init__(self, path: Path, device: str = "cpu") -> None:
        """Choose the file, and "cuda" or "cpu".

        Raises:
            InputError: there is no such file.
        """
        if not path.is_file():
            raise InputError(f"{path}: is no file; the path of an ONNX model is taken.")
        self.name = str(path)
        self._path = path
        self._device = device

    def find(self) -> str | None:
        if importlib.util.find_spec("onnx") is None:
            return "onnx is not installed: pip install onnx."
        if has_onnxruntime():
            import onnxruntime

            version = onnxruntime.__version__
            if PROVIDERS[self._device] in onnxruntime.get_available_providers():
                return None
            return f"ONNX Runtime {version} has no {PROVIDERS[self._device]}: pip install onnxruntime-gpu."
        if self._device == "cuda" or not has_openvino():
            return f"onnxruntime is not installed: {REMEDY}."
        return None

    def open(self, bundle: Bundle, precision: str, batch: int, *, threads: int | None = None) -> "OnnxFileRunner":
        model, taken = self._read(bundle, batch)
        session: Session
        if has_onnxruntime():
            free = list_free_sizes(model, taken)
            session = OnnxRuntimeSession(self._path, taken, free, self._device, threads)
        else:
            session = OpenVinoSession(model, taken, threads)
        return OnnxFileRunner(session, taken, bundle)

    def check(self, bundle: Bundle, runner: PeerRunner, precision: str, batch: int) -> Check:
        assert isinstance(runner, OnnxFileRunner)
        model, taken = self._read(bundle, batch)
        session, how = self._open_other(model, taken)
        images = list_golden_images(bundle, batch)
        other = OnnxFileRunner(session, taken, bundle)
        try:
            expected = copy_answer(other.run(images))
        finally:
            other.close()
        # OpenVINO twice shows no more than that it repeats itself.
        is_held = not (isinstance(session, OpenVinoSession) and isinstance(runner.session, OpenVinoSession))
        against = f"the same file in {session.runtime}, fp32{how}"
        return compare_answers(runner.run(images), expected, against=against, is_held=is_held)

    def _open_other(self, model: Any, taken: ImageInput) -> tuple[Session, str]:
        """Return another computation of the same file, and what is special in it, in words."""
        if has_openvino() and has_onnxruntime():
            try:
                return OpenVinoSession(model, taken, None), ""
            except EngineError:  # an operator that OpenVINO has not
                pass
        if has_onnxruntime():
            free = list_free_sizes(model, taken)
            session = OnnxRuntimeSession(self._path, taken, free, "cpu", None, is_optimised=False)
            return session, ", without optimisations"
        return OpenVinoSession(model, taken, None), ", compiled again: no other runtime is installed"

    def _read(self, bundle: Bundle, batch: int) -> tuple[Any, ImageInput]:
        """Return the model, and its input with every size settled."""
        from ndp_rt.graphs.folding import load_model

        try:
            model = load_model(self._path)
        except BundleError as error:
            raise InputError(
                f"{self._path}: cannot be read as ONNX ({one_line(Exception(error.__cause__))[:500]}). Give an ONNX "
                "model, with the files that its weights lie in beside it."
            ) from error
        contract = bundle.manifest.input
        return model, read_input(model, self._path, batch, contract.height_px, contract.width_px)


class OnnxFileRunner:
    """See `ndp_rt.bench.peers.base.PeerRunner`."""

    def __init__(self, session: Session, taken: ImageInput, bundle: Bundle) -> None:
        """Take over a session, run it once to see what it gives, and close it if that fails."""
        contract = bundle.manifest.input
        self._shape = (taken.n, contract.height_px, contract.width_px, 3)
        self.session = session
        self._taken, self._is_open = taken, True
        self._values = np.zeros(taken.shape, taken.dtype)
        self._maps = np.zeros((taken.n, 1, *self._shape[1:3]), np.float32)
        self._scores = np.zeros(taken.n, np.float32)
        try:
            arrays = session.run(self._values)
        except NdpRtError:
            session.close()
            raise
        self._map_index = find_map(arrays, taken.n)
        size, own = f"{taken.h} x {taken.w}", f"{self._shape[1]} x {self._shape[2]}"
        self.facts: dict[str, Any] = {
            "runtime": session.runtime,
            "input": f"{taken.dtype.name} {list(taken.shape)}" + (", 0 to 1" if taken.dtype == np.float32 else ""),
            "resizing": "none" if size == own else f"{own} to {size}",
            "output": "none is a map" if self._map_index is None else f"map {list(arrays[self._map_index].shape)}",
        }

    def run(self, images: Sequence[Image]) -> Answer:
        if not self._is_open:
            raise ClosedError("the rival is closed. Open another.")
        check_images(images, self._shape)
        fill_input(images, self._values, self._taken)
        arrays = self.session.run(self._values)
        n, h, w, _ = self._shape
        if self._map_index is None:
            rows = [array.reshape(n, -1) for array in arrays if array.shape[:1] == (n,)]
            for index in range(n):
                parts = [row[index] for row in rows] if rows else [array.ravel() for array in arrays]
                self._scores[index] = np.concatenate(parts).mean()
        else:
            found = arrays[self._map_index]
            for index, single in enumerate(found.reshape(n, *found.shape[-2:])):
                self._maps[index, 0] = resize(np.asarray(single, np.float32), h, w)
            self._maps.max(axis=(1, 2, 3), out=self._scores)
        return self._maps, self._scores

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self.session.close()


class OnnxRuntimeSession:
    """See `Session`."""

    def __init__(
        self,
        path: Path,
        taken: ImageInput,
        free_sizes: dict[str, int],
        device: str,
        threads: int | None,
        *,
        is_optimised: bool = True,
    ) -> None:
        """Open the file; `free_sizes` settles its named axes, which lets ONNX Runtime plan ahead.

        Raises:
            EngineError: ONNX Runtime refuses it, or would run it elsewhere than on `device`.
        """
        import onnxruntime

        self.runtime = f"ONNX Runtime {onnxruntime.__version__}"
        self._name = taken.name
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        settings.intra_op_num_threads = threads or 0  # 0: its own choice
        settings.inter_op_num_threads = 1
        for name, size in free_sizes.items():
            settings.add_free_dimension_override_by_name(name, size)
        if not is_optimised:
            settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        providers = list(dict.fromkeys((PROVIDERS[device], PROVIDERS["cpu"])))
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), settings, providers=providers)
        except Exception as error:  # ONNX Runtime's exceptions share no base below Exception
            raise EngineError(f"ONNX Runtime refuses {path}: {one_line(error)[:2000]}") from error
        if self._session.get_providers()[0] != PROVIDERS[device]:  # it falls back to the CPU by itself
            raise EngineError(f"ONNX Runtime runs {path} on the CPU, not on {device}: see its log for the reason.")

    def run(self, values: NDArray[Any]) -> Arrays:
        try:
            found = self._session.run(None, {self._name: values})
        except Exception as error:  # as above
            raise EngineError(f"ONNX Runtime failed to run: {one_line(error)[:2000]}") from error
        return [array for array in found if isinstance(array, np.ndarray) and array.dtype.kind in "fiub"]

    def close(self) -> None:
        self._session = None


class OpenVinoSession:
    """See `Session`; through an engine of the backend, which takes and gives float32."""

    def __init__(self, model: Any, taken: ImageInput, threads: int | None) -> None:
        """Compile a copy of the model.

        Raises:
            EngineError: OpenVINO refuses it.
        """
        self.runtime = f"OpenVINO {find_host_backend('openvino').find().version}"
        options = EngineOptions(batch=taken.n, threads=threads)
        try:
            self._engine = build_engine("openvino", make_float_model(model, taken), options)
        except EngineError:
            raise
        except Exception as error:  # of more than 2 GiB, or outputs of a size that depends on the input's values
            raise EngineError(f"OpenVINO cannot take the model: {one_line(error)[:2000]}") from error
        (name,) = self._engine.inputs
        self._inputs = {name: np.zeros(taken.shape, np.float32)}
        self._outputs = {
            name: np.empty(spec.with_batch(taken.n), np.float32) for name, spec in self._engine.outputs.items()
        }

    def run(self, values: NDArray[Any]) -> Arrays:
        (given,) = self._inputs.values()
        given[...] = values
        self._engine.run(self._inputs, self._outputs)
        return list(self._outputs.values())

    def close(self) -> None:
        self._engine.close()


def find_map(arrays: Sequence[NDArray[Any]], n: int) -> int | None:
    """Return which output is a map, [n, 1, h, w] or [n, h, w]: the first; None: none is.

    Raises:
        InputError: no output holds numbers.
    """
    if not arrays:
        raise InputError("the model gives no numbers; one output with numbers at least is taken. Export it with one.")
    for index, array in enumerate(arrays):
        is_map = array.ndim == 3 or (array.ndim == 4 and array.shape[1] == 1)
        if is_map and array.shape[0] == n and min(array.shape[-2:]) > 1:
            return index
    return None


def has_onnxruntime() -> bool:
    """Tell whether ONNX Runtime is installed."""
    return importlib.util.find_spec("onnxruntime") is not None


def has_openvino() -> bool:
    """Tell whether OpenVINO is installed."""
    return find_host_backend("openvino").find().version is not None
