"""Where the tests of whole pipelines run: on the fake GPU everywhere, and on this machine's GPU where there is one."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ndp_rt.bundle import Bundle, open_bundle
from ndp_rt.engines.backend import find_distribution
from ndp_rt.engines.backends.tensorrt.library import DISTRIBUTIONS
from ndp_rt.engines.build import build_engine
from ndp_rt.engines.registry import find_device_backend
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.engines.stage_files import write_stages
from ndp_rt.options import Options
from ndp_rt.runtime.cuda import CudaExecutor
from ndp_rt.runtime.open import open_cuda
from tests.bricks import BRICK_IMAGES
from tests.fakes.fake_cupy import FakeCuda

if TYPE_CHECKING:
    from ndp_rt import Inspector

TINY_THRESHOLD = 0.55  # the tiny bundle's own would call every random image a defect
PLANS = ("staged", "unmerged", "fused")
PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
MARKS = {
    "fake": (),
    "torch-cuda": (pytest.mark.gpu, pytest.mark.torch),
    "tensorrt": (pytest.mark.tensorrt,),
    "tensorrt-rtx": (pytest.mark.tensorrt_rtx,),
}


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """What is opened: a backend, which says the kind of machine too, a precision, a bundle and a plan."""

    backend: str
    precision: str
    bundle: str
    plan: str = "staged"


def make_param(pipeline: Pipeline) -> Any:
    """Return a pipeline as a parameter of the fixture `place`, with the marks of what it needs."""
    name = f"{pipeline.backend}-{pipeline.precision}-{pipeline.bundle}-{pipeline.plan}"
    return pytest.param(pipeline, marks=MARKS[pipeline.backend], id=name)


ONE_EACH = [
    make_param(Pipeline(backend="fake", precision="fp32", bundle="tiny")),
    make_param(Pipeline(backend="torch-cuda", precision="fp16", bundle="bricks")),
    make_param(Pipeline(backend="tensorrt", precision="fp16", bundle="bricks")),
    make_param(Pipeline(backend="tensorrt-rtx", precision="fp16", bundle="bricks")),
]
INT8 = make_param(Pipeline(backend="tensorrt", precision="int8", bundle="bricks"))
EVERY_PRECISION = [
    ONE_EACH[0],
    *(
        make_param(Pipeline(backend=backend, precision=precision, bundle="bricks"))
        for backend in ("torch-cuda", "tensorrt", "tensorrt-rtx")
        for precision in PRECISIONS
    ),
    INT8,
]
# The fake GPU's other plans are in test_cuda_program.py. TensorRT takes some ten seconds an engine: not all are built.
EVERY_PLAN = [
    ONE_EACH[0],
    *(
        make_param(Pipeline(backend="torch-cuda", precision=precision, bundle=bundle, plan=plan))
        for precision in PRECISIONS
        for bundle in ("tiny", "bricks")
        for plan in PLANS
    ),
    *(make_param(Pipeline(backend="tensorrt", precision="fp16", bundle="tiny", plan=plan)) for plan in PLANS),
    *(make_param(Pipeline(backend="tensorrt", precision=precision, bundle="bricks")) for precision in PRECISIONS),
    INT8,
    make_param(Pipeline(backend="tensorrt", precision="fp16", bundle="bricks", plan="fused")),
]


class Place:
    """A GPU with one pipeline to open on it."""

    batches = (1, 3)

    def __init__(self, pipeline: Pipeline, bundle_path: Path, gpu: FakeCuda | None) -> None:
        """Take the pipeline; `gpu` is the fake one, None stands for this machine's."""
        self.pipeline = pipeline
        self.bundle: Bundle = open_bundle(bundle_path, verify=False)
        self.gpu = gpu
        own, fp32 = (self.bundle.threshold(name).value for name in (pipeline.precision, "fp32"))
        self.threshold = TINY_THRESHOLD if pipeline.bundle == "tiny" else own or fp32

    @property
    def is_fake(self) -> bool:
        return self.gpu is not None

    @property
    def precision(self) -> str:
        return self.pipeline.precision

    @property
    def settings(self) -> dict[str, Any]:
        """What both an inspector and `Options` take."""
        return {
            "device": "cuda",
            "backend": self.pipeline.backend,
            "precision": self.precision,
            "plan": self.pipeline.plan,
            "threshold": self.threshold,
        }

    def open(self, batches: tuple[int, ...] = batches, **changes: Any) -> "Inspector":
        from ndp_rt import Inspector

        return Inspector.open(self.bundle.path, **{**self.settings, "batches": batches, **changes})

    def open_on_cpu(self, plan: str = "fused") -> "Inspector":
        """Open the same bundle on the CPU in fp32, with its own threshold for that."""
        from ndp_rt import Inspector

        pytest.importorskip("openvino", reason="the comparison with the CPU needs OpenVINO: pip install ndp-rt")
        threshold = TINY_THRESHOLD if self.pipeline.bundle == "tiny" else None
        return Inspector.open(self.bundle.path, plan=plan, threshold=threshold)

    @contextmanager
    def open_executor(self) -> Iterator[CudaExecutor]:
        options = Options(bundle=str(self.bundle.path), batches=self.batches, **self.settings)
        executor = open_cuda(self.bundle, options.engine_spec)
        try:
            yield executor
        finally:
            executor.close()

    def count(self, on_gpu: int, on_fake: int) -> int:
        """Return how often something is repeated: a GPU takes a thousandth of what the fake one takes."""
        return on_fake if self.is_fake else on_gpu

    def draw_images(self, rng: np.random.Generator, count: int) -> list[np.ndarray]:
        """Return different images of the network's size: the golden ones, shifted round, with some noise."""
        golden = self.read_golden()
        images = [np.roll(golden[n % len(golden)], tuple(rng.integers(0, 64, 2)), (0, 1)) for n in range(count)]
        return [image ^ rng.integers(0, 8, image.shape, dtype=np.uint8) for image in images]

    def read_golden(self) -> list[np.ndarray]:
        """Return the golden vectors' inputs as the uint8 images [h, w, 3] that they were made of."""
        images = []
        for values in self.bundle.golden().image:
            image = np.round(values.transpose(1, 2, 0) * 255).astype(np.uint8)
            assert np.abs(image / np.float32(255) - values.transpose(1, 2, 0)).max() < 1e-6
            images.append(image)
        return images

    def read(self, array: Any) -> np.ndarray:
        """Return the values of an array on the device; the caller has waited for them."""
        return np.array(array.host() if self.is_fake else array.get())

    def find_free_bytes(self) -> int:
        """Return the device's free memory, with nothing left that PyTorch's allocator merely keeps."""
        import cupy

        if self.pipeline.backend == "torch-cuda":
            import torch

            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        return int(cupy.cuda.runtime.memGetInfo()[0])


def read_photographs() -> list[np.ndarray]:
    """Return the photographs of bricks, five with a defect and four without."""
    from ndp_rt.images.read import read_image

    return [read_image(path) for path in sorted(BRICK_IMAGES.glob("[dg]*_*.png"))]


def skip_what_is_not_offered(pipeline: Pipeline) -> None:
    """Skip a pipeline where a package is missing, or there in a version that cannot run it."""
    for module in ("cv2", "onnx", "safetensors"):  # machines that only run engines lack them
        pytest.importorskip(module, reason=f"an inspector that builds its engines needs {module}: pip install ndp-rt")
    if pipeline.backend == "torch-cuda":
        import torch

        if not torch.cuda.is_available():
            pytest.skip(
                f"PyTorch {torch.__version__} finds no GPU; install one with CUDA (pytorch.org names the command)"
            )
    if pipeline.backend == "tensorrt" and pipeline.precision == "bf16":
        _, version = find_distribution(DISTRIBUTIONS) or ("", "")
        if version.startswith("8."):
            pytest.skip(f"TensorRT {version} has no bf16; 10 and later have")


def report(what: str, difference: float, allowed: float) -> None:
    """Print how much of a tolerance was used, and fail beyond it; NaN fails."""
    print(f"{what}: {difference:.2e} of {allowed:.0e}")
    assert difference <= allowed, f"{what}: differs by {difference:.3e}; {allowed:.0e} is allowed"


def build_int8(place: Place, folder: Path) -> None:
    """Build a pipeline's engines from stages calibrated with photographs; an inspector cannot by itself."""
    from ndp_rt.images.preprocess import preprocess

    contract = place.bundle.manifest.input
    images = np.empty((len(read_photographs()), 3, contract.height_px, contract.width_px), np.float32)
    for photograph, image in zip(read_photographs(), images, strict=True):
        preprocess(photograph, contract, image)
    plan = place.pipeline.plan
    stages = write_stages(place.bundle, "int8", folder, plan=plan, calibration=images)
    options = find_device_backend(place.pipeline.backend).build_options
    spec = EngineSpec(
        device="cuda",
        backend=place.pipeline.backend,
        precision="int8",
        batches=place.batches,
        plan=plan,
        build=options(onnx_stages=str(stages.path)),
    )
    build_engine(place.bundle, spec)


def run_beside(*calls: Callable[[], Any], timeout_s: float = 120.0) -> list[Any]:
    """Run calls in threads of their own at once and return what they return; the first exception is raised here."""
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException] = []

    def run(index: int) -> None:
        try:
            results[index] = calls[index]()
        except BaseException as error:
            errors.append(error)

    # Daemons: a call that never returns fails the test and lets the run go on and end.
    threads = [Thread(target=run, args=(index,), daemon=True) for index in range(len(calls))]
    end = time.monotonic() + timeout_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    if errors:
        raise errors[0]
    stuck = [index for index, thread in enumerate(threads) if thread.is_alive()]
    assert not stuck, f"calls {stuck} did not return within {timeout_s} s"
    return results
