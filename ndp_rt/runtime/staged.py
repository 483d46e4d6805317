"""NDP-Net as separate engines with RBFRM between them: the reference can be swapped while it runs.

Encoder, RBFRM on levels 3 to 5 for K = 2 and 4, FFM and decoder, the encoder's first levels on the reconstruction,
MSDSM. Every tensor between two steps has one buffer, made when the plan is opened.
"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.engines.engine import Engine
from ndp_rt.errors import ClosedError, InputError
from ndp_rt.kernels.rbfrm.host import PreparedReference, RbfrmHost
from ndp_rt.runtime.plan import Features, hash_features, missing_size

FloatArray = NDArray[np.float32]

STAGES = ("encoder", "decoder", "head", "segmentation")
REPAIRED_LEVELS = (3, 4, 5)
PATCH_SIZES = (2, 4)


class StagedPlan:
    """See `ndp_rt.runtime.plan.Plan`; `make_reference` returns a `Reference`."""

    stage_names = ("encoder", "rbfrm", "decoder", "head", "segmentation")

    def __init__(self, engines: Mapping[int, Mapping[str, Engine]], features: Features, engine_hash: str) -> None:
        """Make the buffers.

        Args:
            engines: by batch size, then by stage.
            features: the reference's f3, f4, f5.
            engine_hash: names the engines.
        """
        self._engines = {size: dict(engines[size]) for size in sorted(engines)}
        self._engine_hash = engine_hash
        self._buffers = {size: _make_buffers(self._engines[size], size) for size in self._engines}
        first = self._buffers[self.batch_sizes[0]]
        self._shapes = {f"f{level}": first[f"f{level}"].shape[1:] for level in REPAIRED_LEVELS}
        self.stage_timings_ms: dict[str, float] = dict.fromkeys(self.stage_names, 0.0)
        self.use_reference(self.make_reference(features))

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        return tuple(self._engines)

    @property
    def engine_hash(self) -> str:
        return f"{self._engine_hash}+{self._reference.digest}"

    def run(self, batch: FloatArray, map_out: FloatArray, reconstruction_out: FloatArray) -> None:
        engines = self._engines.get(len(batch))
        if engines is None:
            raise missing_size(len(batch), self.batch_sizes)
        buffers = self._buffers[len(batch)]
        times = [time.perf_counter()]
        engines["encoder"].run({"image": batch}, buffers)
        times.append(time.perf_counter())
        for (level, size), (rbfrm, prepared) in self._reference.kernels.items():
            rbfrm.run(prepared, [buffers[f"f{level}"]], [buffers[f"r{level}k{size}"]])
        times.append(time.perf_counter())
        engines["decoder"].run(buffers, {"reconstruction": reconstruction_out})
        times.append(time.perf_counter())
        engines["head"].run({"reconstruction": reconstruction_out}, buffers)
        times.append(time.perf_counter())
        engines["segmentation"].run(buffers, {"map": map_out})
        times.append(time.perf_counter())
        for name, start, end in zip(self.stage_names, times, times[1:], strict=False):
            self.stage_timings_ms[name] = (end - start) * 1e3

    def compute_features(self, image: FloatArray) -> dict[str, FloatArray]:
        size = self.batch_sizes[0] if self._engines else 0
        if not size:
            raise ClosedError("the plan is closed. Open another.")
        batch = np.zeros((size, *image.shape[1:]), np.float32)
        batch[0] = image[0]
        buffers = self._buffers[size]
        self._engines[size]["encoder"].run({"image": batch}, buffers)
        return {name: buffers[name][:1].copy() for name in self._shapes}

    def make_reference(self, features: Features) -> "Reference":
        return Reference(features, self._shapes)

    def use_reference(self, prepared: Any) -> None:
        self._reference: Reference = prepared

    def close(self) -> None:
        for engines in self._engines.values():
            for engine in engines.values():
                engine.close()
        self._engines, self._buffers = {}, {}


class Reference:
    """A reference cut into patches for every level and K, with the memory that RBFRM needs."""

    def __init__(self, features: Features, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Prepare features f3, f4, f5: float32 [1, c, h, w] of `shapes` [c, h, w].

        Raises:
            InputError: one is missing, or its shape differs.
        """
        self.kernels: dict[tuple[int, int], tuple[RbfrmHost, PreparedReference]] = {}
        for name, shape in shapes.items():
            if name not in features or features[name].shape != (1, *shape):
                came = list(features[name].shape) if name in features else "missing"
                raise InputError(f"reference feature {name} is {came}; float32 {[1, *shape]} is taken.")
            for size in PATCH_SIZES:
                rbfrm = RbfrmHost(shape, (1, *shape), size)
                self.kernels[int(name[1:]), size] = rbfrm, rbfrm.prepare([features[name]])
        self.digest = hash_features(features)


def _make_buffers(stages: Mapping[str, Engine], size: int) -> dict[str, FloatArray]:
    """Return the buffers of the tensors between the stages for one batch size."""
    specs = {**stages["encoder"].outputs, **stages["head"].outputs, **stages["decoder"].inputs}
    return {name: np.empty(spec.with_batch(size), np.float32) for name, spec in specs.items()}
