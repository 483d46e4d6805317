"""From a bundle to an executor: engines, built where they are missing, in a program that was checked."""

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ndp_rt.bundle.open import Bundle
from ndp_rt.config import find_cuda_graphs
from ndp_rt.engines.build import Engines, build_engine, compile_engine, load_device_engines, load_engine, name_engines
from ndp_rt.engines.engine import Engine
from ndp_rt.engines.golden_report import compare_golden
from ndp_rt.engines.registry import find_device_backend
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.options import Options, with_white_level
from ndp_rt.runtime.assets import AssetMaker
from ndp_rt.runtime.executor import Executor

if TYPE_CHECKING:
    from ndp_rt.runtime.cuda import CudaExecutor
    from ndp_rt.runtime.host import HostExecutor

log = logging.getLogger("ndp_rt")


def open_executor(bundle: Bundle, options: Options) -> Executor:
    """Load a bundle's engines and return what runs images through them on the device of `options`.

    Raises:
        InputError: a name or number that the bundle or the backend does not have.
        MissingExtraError: a package that the device or the backend needs is not installed.
        DeviceError: there is no such device, or it has not enough memory.
        EngineError: an engine cannot be built, is damaged, or is missing and `options.build` is False.
    """
    spec = options.engine_spec
    open_on = open_cuda if spec.is_on_gpu else open_host
    return open_on(bundle, spec, channels=options.channels, build=options.build, white_level=options.white_level)


def open_host(
    bundle: Bundle,
    spec: EngineSpec,
    *,
    channels: str = "rgb",
    build: bool = True,
    white_level: int | None = None,
) -> "HostExecutor":
    """Return an executor on the CPU; see `open_executor`.

    Args:
        channels: order of the channels of images.
        build: build what is missing, and say so in the log; False: raise.
        white_level: of 16-bit images; None: the bundle's, with which it is checked in any case.
    """
    # Imported here: a machine that runs engines on a GPU may lack OpenCV.
    from ndp_rt.runtime.check import check_preprocessing

    spec = spec.resolve(bundle)
    found = build_engine(bundle, spec, progress=log.info) if build else None
    engines = load_engine(bundle, spec, found=found)
    levelled = with_white_level(bundle, white_level)
    executor = make_host_executor(levelled, spec, engines, channels=channels, engine_hash=name_engines(bundle, spec))
    try:
        golden, size = bundle.golden(), executor.batch_sizes[0]
        check_preprocessing(bundle, golden)
        compare_golden(bundle, golden, executor.run, precision=spec.precision, batch=size, vector_count=1)
    except BaseException:
        executor.close()
        raise
    return executor


def make_host_executor(
    bundle: Bundle, spec: EngineSpec, engines: Engines, *, channels: str = "rgb", engine_hash: str = ""
) -> "HostExecutor":
    """Return an executor that takes over loaded engines of a program for the CPU, unchecked.

    Args:
        spec: that they were compiled for; its plan None is the bundle's first.
        engines: by batch size and stage.
        channels: order of the channels of images.
        engine_hash: names the engines.
    """
    from ndp_rt.runtime.host import HostExecutor  # needs OpenCV

    plan, _ = bundle.manifest.find_program("cpu", spec.plan)
    maker = make_asset_maker(bundle, spec)
    return HostExecutor(bundle, plan, engines, maker, channels=channels, engine_hash=engine_hash)


def open_cuda(
    bundle: Bundle,
    spec: EngineSpec,
    *,
    channels: str = "rgb",
    build: bool = True,
    white_level: int | None = None,
) -> "CudaExecutor":
    """Return an executor on a GPU; see `open_executor` and `open_host`."""
    # Imported here: CuPy's arrays and kernels are of no use to a program on a CPU.
    from ndp_rt.devices.cuda.driver import CudaDevice
    from ndp_rt.kernels.load import KernelSet
    from ndp_rt.runtime.cuda import CudaExecutor
    from ndp_rt.runtime.cuda_program import CudaProgram

    device = CudaDevice(spec.device_index)
    device.activate()
    spec = spec.resolve(bundle)
    assert spec.plan is not None
    if build:
        build_engine(bundle, spec, progress=log.info)
    engines = load_device_engines(bundle, spec)
    backend, kernels = find_device_backend(spec.find_backend().name), KernelSet()
    program = CudaProgram(
        bundle,
        spec.plan,
        device,
        engines,
        precision=spec.precision,
        engine_hash=name_engines(bundle, spec),
        kernels=kernels,
        capture=partial(backend.capture, device) if find_cuda_graphs() == "capture" else None,
    )
    try:
        golden, size = bundle.golden(), program.batch_sizes[0]
        compare_golden(bundle, golden, program.run, precision=spec.precision, batch=size, vector_count=1)
        for stages in engines.values():
            backend.keep(stages.values())
        levelled = with_white_level(bundle, white_level)
        return CudaExecutor(levelled, program, kernels, make_asset_maker(levelled, spec), channels=channels)
    except BaseException:
        program.close()
        raise


def make_asset_maker(bundle: Bundle, spec: EngineSpec) -> AssetMaker:
    """Return what makes assets of images for the engines of a spec."""

    def compile_graph(graph: Path, artifact: Path, batch: int, precision: str) -> Engine:
        options = replace(spec, precision=precision).of_batch(batch)
        return compile_engine(spec.find_backend().name, graph, artifact, options)

    return AssetMaker(bundle, spec.precision, compile_graph)
