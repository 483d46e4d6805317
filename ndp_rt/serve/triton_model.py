"""The model that NVIDIA Triton's Python backend runs: an inspector of one bundle.

Triton gives every process of a model this module through the file model.py that `ndp-rt export-triton` writes.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ndp_rt.errors import InputError, NdpRtError
from ndp_rt.images.checks import Image
from ndp_rt.inspector import Inspector
from ndp_rt.result import Result
from ndp_rt.serve.decode import decode_images
from ndp_rt.serve.protocol import BYTES, ENCODED, IMAGE, IMAGE_WORDS, OF_A_MAP, make_outputs
from ndp_rt.serve.queue import NO_MAP

BUNDLE = "bundle.ndp"  # beside model.py
ENGINE = ("backend", "precision", "plan", "threads")
GPU = "GPU"


class TritonPythonModel:
    """See Triton's Python backend: it calls these three."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the bundle and warm its engine up.

        Args:
            args: of Triton: the configuration, where the model lies, its version, the instance's device.

        Raises:
            InputError: NumPy is of a version that Triton misreads, or a setting is none.
            NdpRtError: the bundle cannot be opened.
        """
        values = {name: one["string_value"] for name, one in json.loads(args["model_config"])["parameters"].items()}
        settings: dict[str, Any] = {name: values[name] for name in ENGINE if name in values}
        if "threads" in settings:
            settings["threads"] = int(settings["threads"])
        if args.get("model_instance_kind") == GPU:
            settings["device"] = f"cuda:{args['model_instance_device_id']}"
        if int(np.__version__.split(".")[0]) >= 2:
            raise InputError(
                f"expected NumPy below 2, got {np.__version__}, of whose arrays Triton makes empty tensors "
                "(triton-inference-server/server issue 8019). Install numpy<2 in the Python of its backend."
            )
        folder = Path(args["model_repository"]) / args["model_version"]
        self.inspector = Inspector.open(folder / BUNDLE, **settings)
        self.inspector.warm_up()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Return the answer to each request, all of whose images go through the engine together."""
        images: list[Image] = []
        taken: list[tuple[int, int] | NdpRtError] = []  # of each request: its first image and how many, or its error
        for request in requests:
            try:
                own = decode_images(self.inspector, _read_images(request))
                taken.append((len(images), len(own)))
                images += own
            except NdpRtError as error:
                taken.append(error)
        names = [list(request.requested_output_names()) for request in requests]
        map_out = None if any(not OF_A_MAP.isdisjoint(some) for some in names) else NO_MAP
        results = self.inspector.inspect_batch(images, maps_out=[map_out] * len(images))
        return [
            _refuse(one) if isinstance(one, NdpRtError) else _answer(results[one[0] : sum(one)], asked)
            for one, asked in zip(taken, names, strict=True)
        ]

    def finalize(self) -> None:
        """Free the engine."""
        self.inspector.close()


def _read_images(request: Any) -> list[Image | bytes]:
    import triton_python_backend_utils as triton

    found = {name: triton.get_input_tensor_by_name(request, name) for name in (IMAGE, ENCODED)}
    given = {name: one.as_numpy() for name, one in found.items() if one is not None}
    if len(given) != 1:
        raise InputError(f"inputs: expected one, {IMAGE_WORDS}, got {len(given)}.")
    (values,) = given.values()
    if IMAGE in given:
        return [*values]
    return [bytes(element) for element in values.ravel()]


def _answer(results: Sequence[Result], names: Sequence[str]) -> Any:
    import triton_python_backend_utils as triton

    try:
        outputs = make_outputs(results, names)
    except NdpRtError as error:
        return _refuse(error)
    tensors = []
    for one in outputs:
        values: Any = np.array(one.values, dtype=object) if one.datatype == BYTES else one.values
        # Triton's batches have an axis of their own, and values at least one more.
        tensors.append(triton.Tensor(one.name, values.reshape(-1, 1) if values.ndim == 1 else values))
    return triton.InferenceResponse(tensors)


def _refuse(error: NdpRtError) -> Any:
    import triton_python_backend_utils as triton

    return triton.InferenceResponse(error=triton.TritonError(str(error), triton.TritonError.INVALID_ARG))
