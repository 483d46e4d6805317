"""Runs a bundle's golden vectors through engines and compares what comes out."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from ndp_rt.bundle import Bundle, Golden
from ndp_rt.engines.engine import Engine, FloatArray
from ndp_rt.engines.golden_report import GoldenReport, compare_golden, find_largest
from ndp_rt.engines.tolerances import find_tolerance
from ndp_rt.errors import EngineError
from ndp_rt.images.preprocess import preprocess
from ndp_rt.kernels.rbfrm.host import RbfrmHost
from ndp_rt.kernels.smooth.host import smooth


def run_stages(
    engines: Mapping[str, Engine], reference: Mapping[str, FloatArray], image: FloatArray
) -> dict[str, FloatArray]:
    """Run stages in order, each fed with the tensors before it by name, and return every tensor.

    A tensor named r<level>k<K> that no stage makes is RBFRM's: f<level> rebuilt from the reference's patches of size K.
    """
    tensors: dict[str, FloatArray] = {"image": image}
    for engine in engines.values():
        for name in engine.inputs:
            if name not in tensors:
                level, size = name[1:].split("k")
                features = tensors[f"f{level}"]
                tensors[name] = np.empty_like(features)
                good = reference[f"f{level}"]
                rbfrm = RbfrmHost(features.shape[1:], good.shape, int(size))
                rbfrm.run(rbfrm.prepare([good]), [features], [tensors[name]])
        outputs = {name: np.empty(spec.with_batch(len(image)), np.float32) for name, spec in engine.outputs.items()}
        engine.run({name: tensors[name] for name in engine.inputs}, outputs)
        tensors.update(outputs)
    return tensors


def check_engines(
    bundle: Bundle,
    golden: Golden,
    engines: Mapping[str, Engine],
    *,
    precision: str,
    batch: int,
    vector_count: int | None = None,
) -> GoldenReport:
    """Compare the plan made of `engines` with the golden vectors.

    Args:
        engines: every stage of one plan, in order, all of one batch size.
        vector_count: how many vectors to run, from the first; None: all.

    Raises:
        EngineError: a map or score differs by more than `ndp_rt.engines.tolerances` allows; the message says by how
            much.
    """
    reference = {} if "fused" in engines else bundle.reference()

    def run(images: FloatArray) -> tuple[FloatArray, FloatArray]:
        maps = run_stages(engines, reference, images)["map"]
        return maps, _score(maps)

    return compare_golden(bundle, golden, run, precision=precision, batch=batch, vector_count=vector_count)


def check_build(
    bundle: Bundle,
    engines: Mapping[str, Engine],
    *,
    precision: str,
    batch: int,
    device_index: int,
    tell: Callable[[str], None],
) -> Mapping[str, float | int]:
    """Check engines on the host; see `ndp_rt.engines.build_check.BuildCheck`."""
    golden = bundle.golden()
    check_preprocessing(bundle, golden)
    tell(f"checking batch {batch} against {len(golden.image)} golden vectors")
    return dataclasses.asdict(check_engines(bundle, golden, engines, precision=precision, batch=batch))


def check_preprocessing(bundle: Bundle, golden: Golden) -> float:
    """Compare this machine's preprocessing with the golden images; return the largest difference.

    Raises:
        EngineError: it differs by more than `ndp_rt.engines.tolerances` allows.
    """
    difference = 0.0
    for raw, expected in zip(golden.raw, golden.raw_expected, strict=True):
        # The vectors may be of another size than the network's input: the rule is the same, the file smaller.
        _, height_px, width_px = expected.shape
        contract = dataclasses.replace(bundle.manifest.input, height_px=height_px, width_px=width_px)
        out = np.empty(expected.shape, np.float32)
        preprocess(raw, contract, out)
        difference = find_largest(difference, out, expected)
    tolerance = find_tolerance("preprocess", "fp32").absolute
    if not difference <= tolerance:
        raise EngineError(
            f"{bundle.path}: preprocessing differs from the bundle's golden images by {difference:.2e} "
            f"({tolerance:.0e} is allowed). Install another version of opencv-python-headless, and report this."
        )
    return difference


def _score(maps: FloatArray) -> FloatArray:
    smoothed = np.empty_like(maps)
    smooth(maps, smoothed, np.empty(maps.shape[-2:], np.float32))
    scores: FloatArray = smoothed.reshape(len(maps), -1).max(axis=1)
    return scores
