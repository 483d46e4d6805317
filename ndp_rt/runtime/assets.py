"""Assets in use: read from a bundle, made of other images, put into engines that hold them."""

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ndp_rt.arrays import FloatArray
from ndp_rt.bundle.assets import replace_initializers, replace_tensors
from ndp_rt.bundle.external_data import list_external_locations
from ndp_rt.bundle.open import Bundle
from ndp_rt.engines.engine import Engine
from ndp_rt.errors import InputError, StorageError
from ndp_rt.files import make_temporary_folder
from ndp_rt.images.checks import Image
from ndp_rt.program.manifest import INT8_PRECISIONS
from ndp_rt.program.program import AssetSpec, Program
from ndp_rt.runtime.host_step import run_steps

# Compiles a graph into an engine that is in no cache: the graph, a folder for its files, batch size, precision.
Compile = Callable[[Path, Path, int, str], Engine]


def read_assets(bundle: Bundle, program: Program) -> dict[str, dict[str, FloatArray]]:
    """Return the assets that the ops of a program read."""
    return {name: bundle.read_asset(name) for name in program.assets}


def hash_asset(tensors: Mapping[str, FloatArray]) -> str:
    """Return a short name of an asset: 12 hex digits of its tensors' SHA-256."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(np.ascontiguousarray(tensors[name], np.float32).tobytes())
    return digest.hexdigest()[:12]


def round_to_picture(prepared: FloatArray) -> NDArray[np.uint8]:
    """Round a preprocessed image to what a picture of 8 bits can hold, in place, and return that picture.

    A bundle keeps the picture, so one image gives one model everywhere.

    Args:
        prepared: float32 [1, 3, h, w], 0 to 1; overwritten with picture / 255.

    Returns:
        uint8 [h, w, 3], RGB.
    """
    picture: NDArray[np.uint8] = np.round(prepared[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    prepared[0] = picture.transpose(2, 0, 1) / np.float32(255)
    return picture


@dataclass(frozen=True)
class AssetMaker:
    """Makes the swappable asset of a bundle from images, and engines that hold another one in their graphs."""

    bundle: Bundle
    precision: str  # of the engines that are made anew
    compile: Compile  # makes engines that are in no cache

    @property
    def name(self) -> str:
        """The asset's name.

        Raises:
            InputError: the bundle has no asset that may be swapped.
        """
        name = self.bundle.manifest.find_swappable()
        if name is None:
            raise InputError(
                f"{self.bundle.path.name}: expected a model with a reference image, got one without. It cannot change."
            )
        return name

    @property
    def spec(self) -> AssetSpec:
        """The asset's entry in the manifest."""
        return self.bundle.manifest.assets[self.name]

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages whose engines make the asset of an image."""
        return tuple(step.engine for step in self.spec.made_by if step.engine)

    def prepare_picture(self, image: Image, channels: str) -> FloatArray:
        """Return an image preprocessed and rounded to 8 bits, float32 [1, 3, h, w]."""
        # Imported here: it needs OpenCV, which a machine that runs engines on a GPU may lack.
        from ndp_rt.images.preprocess import Preprocessor

        contract = self.bundle.manifest.input
        prepared = np.empty((1, 3, contract.height_px, contract.width_px), np.float32)
        Preprocessor(contract, channels=channels)(image, prepared[0])
        round_to_picture(prepared)
        return prepared

    def compute(self, batch: FloatArray, engines: Mapping[str, Engine]) -> dict[str, FloatArray]:
        """Return the asset's tensors of the first image of a batch, float32 [n, 3, h, w], by loaded engines."""
        spec = self.spec
        tensors = run_steps(self.bundle.manifest, spec.made_by, engines, {}, batch)
        return {own: tensors[made][:1].copy() for own, made in spec.made_from.items()}

    def compute_alone(self, picture: FloatArray) -> dict[str, FloatArray]:
        """Return the same of one image where the program has no such engines: they are compiled for it, in fp32."""
        engines: dict[str, Engine] = {}
        with self.bundle.held(), make_temporary_folder("asset") as folder:
            try:
                for stage in self.stages:
                    path = self.bundle.stage_path(stage)
                    engines[stage] = self.compile(path, Path(folder) / f"engine-{stage}", 1, "fp32")
                return self.compute(picture, engines)
            finally:
                for engine in engines.values():
                    engine.close()

    def make_file(self, tensors: Mapping[str, FloatArray]) -> bytes:
        """Return the asset's file with other tensors, in the types that the bundle keeps them in.

        Raises:
            InputError: a tensor is missing, of another shape, or not finite.
        """
        wanted = {name: tensors[name] for name in self.spec.tensors if name in tensors}
        missing = sorted(set(self.spec.tensors) - set(wanted))
        if missing:
            raise InputError(
                f"asset '{self.name}': expected the tensors {', '.join(self.spec.tensors)}, got "
                f"{', '.join(wanted) or 'none'}."
            )
        with self.bundle.held():
            return replace_tensors((self.bundle.path / self.spec.file).read_bytes(), wanted)

    def round_tensors(self, tensors: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """Return tensors as they come back from the bundle's file."""
        from safetensors.numpy import load

        found = load(self.make_file(tensors))
        return {name: np.asarray(found[name], np.float32) for name in self.spec.tensors}

    def rebuild_engines(
        self, stages: Sequence[str], tensors: Mapping[str, FloatArray], batch_sizes: Sequence[int]
    ) -> dict[int, dict[str, Engine]]:
        """Return engines, by batch size, of those stages that hold the asset in their graphs; seconds for each.

        Raises:
            InputError: tensors of another shape.
            EngineError: the backend refuses the changed graph.
        """
        holders = [stage for stage in stages if stage in self.spec.in_graphs]
        engines: dict[int, dict[str, Engine]] = {size: {} for size in batch_sizes} if holders else {}
        rounded = self.round_tensors(tensors) if holders else {}
        for stage in holders:
            with make_temporary_folder("asset") as name:
                folder = Path(name)
                with self.bundle.held():
                    path = self._change_graph(stage, rounded, folder)
                for size in batch_sizes:
                    engines[size][stage] = self.compile(path, folder / f"engine-{size}", size, self.precision)
        return engines

    def _change_graph(self, stage: str, tensors: Mapping[str, FloatArray], folder: Path) -> Path:
        """Put a stage's graph with other tensors of the asset into `folder`, in the engines' precision."""
        graph = self.bundle.stage_path(stage)
        changed = replace_initializers(graph.read_bytes(), self.spec.in_graphs[stage], tensors)
        path = put_beside_weights(graph.name, {graph.name: changed}, self.bundle, folder)
        if self.precision not in INT8_PRECISIONS:
            return path
        # Imported here: it needs the onnx package, which a machine with nothing but a GPU's may lack.
        from ndp_rt.graphs.quantised import prepare_graph

        return prepare_graph(self.bundle, path, self.precision, folder)


def put_beside_weights(file: str, changed: Mapping[str, bytes], bundle: Bundle, folder: Path) -> Path:
    """Put a graph into `folder` with the files that it keeps weights in; return the graph's path.

    Args:
        file: the graph's name.
        changed: the graph, and other files that differ from the bundle's, by name.
        bundle: has the files that do not.
        folder: exists.

    Raises:
        StorageError: no space.
    """
    others = set(list_external_locations(changed[file])) - set(changed)
    try:
        for name, content in changed.items():
            (folder / name).write_bytes(content)
        for name in others:
            _link_or_copy(bundle.path / name, folder / name)
    except OSError as error:
        raise StorageError(
            f"{folder}: the changed graph cannot be written ({error.strerror}). Free some space, or set TMPDIR."
        ) from error
    return folder / file


def _link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where that cannot be."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or links are not allowed
        shutil.copyfile(source, target)
