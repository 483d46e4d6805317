"""Looks at a machine: what ndp-rt can use here, and the remedy for what is missing."""

import importlib.metadata
import os
import platform
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ndp_rt
from ndp_rt.bundle.open import Bundle, open_bundle
from ndp_rt.capi.build import FOLDER, LIBRARY_NAME, PYTHON_VERSION
from ndp_rt.capi.installed import find_problem, find_remedy
from ndp_rt.cli.import_check import find_broken
from ndp_rt.config import find_cache_dir
from ndp_rt.devices.machine import find_cpu, find_driver_version, find_gpus
from ndp_rt.engines.backend import Backend
from ndp_rt.engines.registry import find_built_in, find_kinds, list_backends
from ndp_rt.engines.spec import EngineSpec, list_built_batches
from ndp_rt.errors import InputError, NdpRtError, StorageError
from ndp_rt.runtime.memory_estimate import estimate_memory

FOUND, MISSING, BROKEN = "found", "missing", "broken"
CROWDED_BYTES = 2**30  # less free space than this is worth a word: engines of w = 64 take some 150 MB each
GRAPHS = "int8 and mixed, preset paper, another reference, stages for a GPU"
# distribution, what it is for, remedy
PACKAGES = (
    ("numpy", "arrays", "pip install numpy"),
    ("opencv-python-headless", "images", "pip install opencv-python-headless"),
    ("safetensors", "bundles", "pip install safetensors"),
    ("filelock", "the engine cache", "pip install filelock"),
    ("onnx", GRAPHS, "pip install 'ndp-rt[graphs]'"),
    ("pyarrow", "inspect --format parquet", "pip install 'ndp-rt[parquet]'"),
    ("rich", "train, evaluate, quantise, bench", "pip install 'ndp-rt[evaluate]'"),
    ("torch", "train, export", "pip install 'ndp-rt[train]'"),
    ("scikit-learn", "evaluate", "pip install 'ndp-rt[evaluate]'"),
    ("matplotlib", "evaluate, curves of train", "pip install 'ndp-rt[evaluate]'"),
    ("cupy", "the GPU", "pip install 'ndp-rt[gpu]', or 'ndp-rt[gpu13]' for CUDA 13"),
)
MODULES = {"opencv-python-headless": "cv2", "scikit-learn": "sklearn"}  # where the name is not the distribution's
OTHER_NAMES = {"cupy": ("cupy-cuda12x", "cupy-cuda13x"), "opencv-python-headless": ("opencv-python",)}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked for."""

    topic: str
    name: str
    state: str  # FOUND, MISSING or BROKEN
    detail: str
    remedy: str = ""


def examine_machine() -> list[Finding]:
    """Return everything that ndp-rt may use, found or missing; raises nothing."""
    findings = [
        Finding(topic="ndp-rt", name="ndp-rt", state=FOUND, detail=ndp_rt.__version__),
        Finding(topic="ndp-rt", name="Python", state=FOUND, detail=f"{platform.python_version()}, {platform.system()}"),
    ]
    findings += [*_examine_devices(), *_examine_backends(), *_examine_packages()]
    return [*findings, _examine_library(), _examine_cache()]


def _examine_devices() -> Iterator[Finding]:
    cpu = find_cpu()
    flags = ", bf16 in hardware" if cpu.has_bf16 else ""
    detail = f"{cpu.model_name}, {cpu.usable_core_count} of {cpu.logical_core_count} cores usable{flags}"
    yield Finding(topic="device", name="CPU", state=FOUND, detail=detail)
    gpus = find_gpus()
    for gpu in gpus:
        memory = "" if gpu.memory_bytes is None else f", {gpu.memory_bytes / 2**30:.0f} GiB"
        driver = find_driver_version() or "unknown"
        detail = f"{gpu.name}{memory}, compute capability {gpu.compute_capability or 'unknown'}, driver {driver}"
        yield Finding(topic="device", name=f"GPU {gpu.index}", state=FOUND, detail=detail)
    if not gpus:
        yield Finding(
            topic="device",
            name="NVIDIA GPU",
            state=MISSING,
            detail="no driver or no device",
            remedy="not needed; with a GPU, install NVIDIA's driver (in a container: run it with --gpus all)",
        )


def _list_backends() -> tuple[dict[str, Backend], str]:
    """Return all backends, or our own and why those of other packages cannot be listed."""
    try:
        return list_backends(), ""
    except InputError as error:
        return find_built_in(), str(error)


def _examine_backends() -> Iterator[Finding]:
    backends, problem = _list_backends()
    if problem:
        yield Finding(topic="backend", name="of other packages", state=MISSING, detail=problem, remedy="as it says")
    for name, backend in backends.items():
        status = backend.find()
        if status.version is None:
            yield Finding(
                topic="backend", name=name, state=MISSING, detail="not installed", remedy=status.remedy or "none known"
            )
            continue
        devices = ", ".join(status.devices) or "no device"
        detail = f"{status.version} on {devices}: {', '.join(backend.precisions)}"
        yield Finding(topic="backend", name=name, state=FOUND, detail=detail, remedy=status.remedy or "")


def _examine_packages() -> Iterator[Finding]:
    versions = {name: _find_version(name) for name, _, _ in PACKAGES}
    modules = {name: MODULES.get(name, name) for name, version in versions.items() if version is not None}
    broken = find_broken(tuple(modules.values()))
    for name, purpose, remedy in PACKAGES:
        version = versions[name]
        if version is None:
            yield Finding(topic="package", name=name, state=MISSING, detail=f"for {purpose}", remedy=remedy)
        elif modules[name] in broken:
            detail = f"{version}, cannot be imported: {broken[modules[name]]}"
            again = f"{remedy} --force-reinstall, after uninstalling other packages with the same files"
            yield Finding(topic="package", name=name, state=BROKEN, detail=detail, remedy=again)
        else:
            yield Finding(topic="package", name=name, state=FOUND, detail=f"{version}, for {purpose}")


def _examine_library() -> Finding:
    """Look at the C library without loading it."""
    problem = find_problem()
    if problem is None:
        detail = f"{FOLDER / LIBRARY_NAME}, for Python {PYTHON_VERSION}"
        return Finding(topic="C", name=LIBRARY_NAME, state=FOUND, detail=detail)
    return Finding(topic="C", name=LIBRARY_NAME, state=MISSING, detail=problem, remedy=f"for C: {find_remedy()}")


def _find_version(name: str) -> str | None:
    for distribution in (name, *OTHER_NAMES.get(name, ())):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _examine_cache() -> Finding:
    """Look at the folder of the engines without making it."""
    remedy = "set NDP_RT_CACHE to a folder that you may write to"

    def lack(detail: str) -> Finding:
        return Finding(topic="cache", name="engine cache", state=MISSING, detail=detail, remedy=remedy)

    try:
        folder = find_cache_dir()
    except StorageError as error:
        return lack(str(error))
    existing = next((one for one in (folder, *folder.parents) if os.path.exists(one)), Path("/"))
    if not existing.is_dir():
        return lack(f"{folder} ({existing} is a file)")
    if not os.access(existing, os.R_OK | os.W_OK | os.X_OK):
        return lack(f"{folder} (not writable)")
    used = sum(_measure(path) for path in folder.rglob("*")) if folder.is_dir() else 0
    free = shutil.disk_usage(existing).free
    return Finding(
        topic="cache",
        name="engine cache",
        state=FOUND,
        detail=f"{folder}, {used / 2**20:.0f} MiB used, {free / 2**30:.1f} GiB free",
        remedy=f"little space: free some, or {remedy}" if free < CROWDED_BYTES else "",
    )


def _measure(path: Path) -> int:
    """Return a file's size in bytes; 0 for a folder, and for what a builder removes meanwhile."""
    try:
        status = path.lstat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def examine_bundle(path: Path) -> list[Finding]:
    """Verify a bundle and return what it holds and which of its engines are built here.

    Raises:
        BundleError: it is damaged; the message says how.
    """
    bundle = open_bundle(path)
    manifest = bundle.manifest
    size = sum(entry.size_bytes for entry in manifest.files.values()) / 1e6
    contract, model = manifest.input, manifest.model
    width = "" if model.width is None else f", w = {model.width}"
    facts = {
        "bundle": f"{manifest.name}: {len(manifest.files)} files, {size:.1f} MB, every hash as it should be",
        "model": f"{model.family}, preset {model.preset}{width}, weights {model.weights}",
        "input": f"{contract.height_px} x {contract.width_px} px, {contract.colour}, {contract.resize}",
    }
    findings = [Finding(topic="bundle", name=name, state=FOUND, detail=detail) for name, detail in facts.items()]
    for precision, threshold in manifest.thresholds.items():
        detail = "none" if threshold.value is None else f"{threshold.value:.6g}, {threshold.source}: {threshold.note}"
        findings.append(Finding(topic="bundle", name=f"threshold {precision}", state=FOUND, detail=detail))
    return [*findings, *_examine_gpu_memory(bundle), *_examine_engines(bundle)]


def _examine_gpu_memory(bundle: Bundle) -> Iterator[Finding]:
    """Say what the first program for a GPU would take there, whether there is one or not."""
    for precision in ("fp32", "fp16"):
        parts = []
        for size in (1, 8, 32):
            one = estimate_memory(bundle.manifest, None, precision, size)
            parts.append(f"batch {size}: {_mib(one.tensor_bytes)} ({_mib(one.unshared_bytes)} if none shared bytes)")
        detail = f"tensors {', '.join(parts)} MiB; assets {_mib(one.asset_bytes)} MiB; engines come besides"
        yield Finding(topic="GPU memory", name=precision, state=FOUND, detail=detail)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f}"


def _examine_engines(bundle: Bundle) -> Iterator[Finding]:
    is_any_built = False
    for backend, one in _list_backends()[0].items():
        for precision in one.precisions if one.find().version is not None else ():
            for plan in bundle.manifest.programs.get(find_kinds(one)[0], {}):
                try:
                    spec = EngineSpec(device=one.devices[0], backend=backend, precision=precision, plan=plan)
                    batches = list_built_batches(bundle, spec)
                except NdpRtError:
                    continue  # a backend that is there and cannot be asked is reported above
                if batches:
                    is_any_built = True
                    detail = f"built for batch {', '.join(map(str, batches))}"
                    name = f"{backend} {precision} {plan}"
                    yield Finding(topic="engine", name=name, state=FOUND, detail=detail)
    if not is_any_built:
        yield Finding(
            topic="engine",
            name="engines",
            state=MISSING,
            detail="none is built for this machine",
            remedy=f"ndp-rt build-engine {bundle.path}, or just inspect: it builds what it needs",
        )
