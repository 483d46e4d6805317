"""Opens a bundle, and checks that it is whole and refers to nothing outside."""

import contextlib
import glob
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ndp_rt.arrays import FloatArray
from ndp_rt.bundle.external_data import list_external_locations
from ndp_rt.bundle.golden import check_golden
from ndp_rt.bundle.int8_layers import INT8_FILE, Int8Layers, read_int8_layers
from ndp_rt.bundle.manifest import MANIFEST_FILE, TEMPORARY_PREFIX, parse_manifest, read_content, read_manifest
from ndp_rt.bundle.programs import check_manifest
from ndp_rt.bundle.settled import read_settled, watch_folder
from ndp_rt.bundle.signature import SIGNATURE_FILE, check_signature
from ndp_rt.bundle.tensors import read_tensors
from ndp_rt.errors import BundleError, InputError
from ndp_rt.files import hash_file
from ndp_rt.program.manifest import INT8_PRECISIONS, BundleManifest, StageSpec, ThresholdSpec

GOLDEN_FILE = "golden.safetensors"
CALIBRATION_FILE = "calibration.safetensors"
BROUGHT = "brought with "  # begins the mark of an engine that came with a bundle; the rest is a hash
MAX_NAME_LENGTH = 255  # of a file, on any file system
# These change neither what an engine computes nor what it is checked against; int8.json, see `engine_fingerprint`.
NOT_IN_FINGERPRINT = frozenset({CALIBRATION_FILE, INT8_FILE})


@dataclass(frozen=True, kw_only=True)
class Golden:
    """Inputs with the outputs that every engine has to reproduce."""

    image: FloatArray  # [k, 3, h, w], preprocessed
    map: FloatArray  # [k, 1, h, w], before smoothing
    score: FloatArray  # [k], by the bundle's rules
    raw: tuple[NDArray[Any], ...]  # images before preprocessing, uint8 or uint16
    raw_expected: tuple[FloatArray, ...]  # the same, preprocessed: [3, h, w] each


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """An opened bundle; its files are read when asked for.

    Attributes:
        path: the folder, absolute.
        manifest: what `manifest.json` says.
        fingerprint: SHA-256 of everything that an engine depends on, which thresholds and provenance are not.

    Examples:
        >>> from ndp_rt import open_bundle
        >>> bundle = open_bundle("tiles.ndp")
        >>> bundle.manifest.input.height_px, bundle.threshold("fp32").source
        (256, 'calibrated')
    """

    path: Path
    manifest: BundleManifest
    fingerprint: str

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Read files of the bundle inside: they are those that it was opened with.

        Raises:
            BundleError: the bundle was replaced since it was opened, or is at the end.
        """
        with watch_folder(self.path) as is_same:
            if read_manifest(self.path).files != self.manifest.files:
                raise self.replaced()
            try:
                yield
            except Exception as error:
                if is_same():
                    raise
                raise self.replaced() from error
            if not is_same():
                raise self.replaced()

    def replaced(self) -> BundleError:
        """Return what to raise where the bundle's folder holds other files than it was opened with."""
        return BundleError(f"{self.path}: was changed by another process since it was opened. Open it again.")

    def stage(self, name: str) -> StageSpec:
        """Return the stage `name`.

        Raises:
            BundleError: the bundle has no such stage.
        """
        if name not in self.manifest.stages:
            have = ", ".join(self.manifest.stages) or "none"
            raise BundleError(f"{self.path}: has no stage '{name}'; it has {have}. Export the bundle again.")
        return self.manifest.stages[name]

    def stage_path(self, name: str) -> Path:
        """Return the path of a stage's ONNX file."""
        file = self.stage(name).file
        if file is None:
            raise BundleError(f"{self.path}: expected a stage with a file, got '{name}', which is derived from others.")
        return self.path / file

    def threshold(self, precision: str) -> ThresholdSpec:
        """Return the threshold calibrated for `precision`; one with source "none" if there is none."""
        return self.manifest.thresholds.get(precision, ThresholdSpec())

    def read_asset(self, name: str) -> dict[str, FloatArray]:
        """Return the tensors of an asset, float32.

        Raises:
            BundleError: its file lacks one, or has it in another shape.
        """
        asset = self.manifest.assets[name]
        path = self.path / asset.file
        tensors = read_tensors(path)
        _need(tensors, tuple(asset.tensors), path)
        for tensor, spec in asset.tensors.items():
            if tensors[tensor].shape != spec.shape:
                raise BundleError(
                    f"{path}: tensor '{tensor}': expected {spec.to_dims()}, got {list(tensors[tensor].shape)}. "
                    "Export the bundle again."
                )
        return {tensor: np.asarray(tensors[tensor], np.float32) for tensor in asset.tensors}

    def int8_layers(self) -> Int8Layers | None:
        """Return which layers compute in int8; None where none were chosen (`ndp-rt quantise`)."""
        return read_int8_layers(self.path / INT8_FILE) if INT8_FILE in self.manifest.files else None

    def int8_limits(self, precision: str) -> dict[str, float]:
        """Return the limits of the layers that compute in int8 in a precision; none where it was not chosen for."""
        layers = self.int8_layers()
        return {} if layers is None else layers.limits_of(precision)

    def calibration_images(self) -> NDArray[np.uint8] | None:
        """Return good images that were not trained on, uint8 [k, 3, h, w]; None where the bundle has none."""
        if CALIBRATION_FILE not in self.manifest.files:
            return None
        path = self.path / CALIBRATION_FILE
        tensors = read_tensors(path)
        _need(tensors, ("good",), path)
        good = tensors["good"]
        side = self.manifest.input.height_px, self.manifest.input.width_px
        is_shaped = good.ndim == 4 and len(good) > 0 and good.shape[1] in (1, 3) and good.shape[2:] == side
        if good.dtype != np.uint8 or not is_shaped:
            raise BundleError(
                f"{path}: expected 'good' to be uint8 [k, 1 or 3, {side[0]}, {side[1]}], k from 1, got {good.dtype} "
                f"{list(good.shape)}. Export the bundle again."
            )
        return np.broadcast_to(good, (len(good), 3, *good.shape[2:]))  # grey is stored as one channel

    def calibration_groups(self) -> list[int] | None:
        """Return the group of each image of `calibration_images`; None where the bundle does not say."""
        if CALIBRATION_FILE not in self.manifest.files:
            return None
        tensors = read_tensors(self.path / CALIBRATION_FILE)
        group = tensors.get("group")
        return group.tolist() if group is not None and group.shape == tensors["good"].shape[:1] else None

    def mark_engine(self, name: str) -> str:
        """Return what tells an engine that the bundle brings, one of `manifest.engines`, from all others."""
        files = self.manifest.engines[name].files
        hashes = [f"{own} {self.manifest.files[stored].sha256}" for own, stored in sorted(files.items())]
        return f"{BROUGHT}{hashlib.sha256(' '.join(hashes).encode()).hexdigest()[:32]}"

    def engine_fingerprint(self, precision: str) -> str:
        """Return the SHA-256 of all that an engine of this precision depends on."""
        if precision not in INT8_PRECISIONS or INT8_FILE not in self.manifest.files:
            return self.fingerprint
        return hashlib.sha256(f"{self.fingerprint} {self.manifest.files[INT8_FILE].sha256}".encode()).hexdigest()

    def golden(self) -> Golden:
        """Return the golden vectors."""
        path = self.path / GOLDEN_FILE
        tensors = read_tensors(path)
        _need(tensors, ("image", "map", "score"), path)
        count = 0
        while f"raw_{count}" in tensors:
            count += 1
        _need(tensors, [f"raw_{index}_expected" for index in range(count)], path)
        check_golden(tensors, self.manifest.input, path)
        return Golden(
            image=_to_floats(tensors["image"]),
            map=_to_floats(tensors["map"]),
            score=np.asarray(tensors["score"], np.float32),
            raw=tuple(tensors[f"raw_{index}"] for index in range(count)),
            raw_expected=tuple(np.asarray(tensors[f"raw_{index}_expected"], np.float32) for index in range(count)),
        )


def open_bundle(path: str | Path, *, verify: bool = True, require_signature: str | Path | None = None) -> Bundle:
    """Open a bundle.

    Args:
        path: the folder NAME.ndp.
        verify: also hash every file; without it only names, kinds and sizes are compared.
        require_signature: the file of a public key, with which the bundle has to be signed (`ndp-rt sign`); its files
            are hashed then in any case. None: signatures are not looked at.

    Raises:
        BundleError: no bundle, a newer format, a missing, changed or extra file, or one that points outside; or not
            signed with the key.
        InputError: there is no such key.
        MissingExtraError: a signature is required, and cryptography is not installed.

    Examples:
        >>> from ndp_rt import open_bundle
        >>> sorted(open_bundle("tiles.ndp").manifest.thresholds)
        ['bf16', 'fp32']
    """
    folder = Path(path).absolute()
    key = None if require_signature is None else Path(require_signature)
    return read_settled(folder, lambda: _open(folder, verify or key is not None, key))


def _open(folder: Path, verify: bool, key: Path | None) -> Bundle:
    if not os.path.isdir(folder):  # unlike Path's, False for a name that is too long
        raise BundleError(_explain_missing(folder))
    content = read_content(folder)
    if key is not None:
        check_signature(folder, content, key)
    manifest = parse_manifest(content, folder)
    _check_names(folder, manifest)
    for name, entry in manifest.files.items():
        _check_file(folder / name, entry.sha256, entry.size_bytes, verify)
    for stage in manifest.stages.values():
        if stage.file is not None:
            _check_external_data(folder, stage.file, manifest)
    try:
        check_manifest(manifest)
    except BundleError as error:
        raise BundleError(f"{folder / MANIFEST_FILE}: {error}") from error
    return Bundle(path=folder, manifest=manifest, fingerprint=_find_fingerprint(manifest))


def is_plain_name(name: str) -> bool:
    """Tell whether `name` is a file name of a flat folder: no path, no parent, not hidden."""
    return bool(name) and not name.startswith(".") and not any(sign in name for sign in ("/", "\\", "\0", ":"))


def _explain_missing(folder: Path) -> str:
    if os.path.exists(folder):
        return f"{folder}: expected a folder NAME.ndp, got a file. Give the folder that 'ndp-rt export' wrote."
    pattern = f".{glob.escape(folder.name)}.old-*"
    is_name = len(folder.name) <= MAX_NAME_LENGTH  # a pattern of a megabyte takes seconds
    replaced = sorted(folder.parent.glob(pattern)) if is_name and os.path.isdir(folder.parent) else []
    if replaced:
        return (
            f"{folder}: is missing, because its replacement was interrupted; the former bundle is {replaced[0]}. "
            f"Bring it back with: mv '{replaced[0]}' '{folder}'"
        )
    return f"{folder}: does not exist. Give the folder NAME.ndp that 'ndp-rt export' wrote."


def _check_names(folder: Path, manifest: BundleManifest) -> None:
    """Compare the folder's entries with the manifest's: same names, plain files, nothing that leads outside."""
    named = [*manifest.files, *(stage.file for stage in manifest.stages.values() if stage.file is not None)]
    named += [*manifest.engines, *(name for engine in manifest.engines.values() for name in engine.files)]
    for name in named:
        if not is_plain_name(name):
            raise BundleError(
                f"{folder}: expected files directly in the bundle, got {name!r} in the manifest, which points outside "
                "or is no plain name. Do not use this bundle unless you know who made it."
            )
    for name, stage in manifest.stages.items():
        if stage.file is not None and stage.file not in manifest.files:
            raise BundleError(f"{folder}: stage '{name}' names {stage.file}, which 'files' lacks. Export it again.")
    own = {GOLDEN_FILE, CALIBRATION_FILE, INT8_FILE, *(one.file for one in manifest.stages.values())}
    own |= {name for asset in manifest.assets.values() for name in (asset.file, asset.picture)}
    shared = sorted(manifest.engine_files & own)
    if shared:
        raise BundleError(f"{folder}: expected files of its engines' own, got {', '.join(shared)}. Do not use it.")
    absent = sorted(manifest.engine_files - set(manifest.files))
    if absent:
        raise BundleError(f"{folder}: its engines name {', '.join(absent)}, which 'files' lacks. Copy it again.")
    found = {entry.name for entry in folder.iterdir() if not entry.name.startswith(TEMPORARY_PREFIX)}
    missing = sorted(set(manifest.files) - found)
    if missing:
        raise BundleError(
            f"{folder}: expected {', '.join(missing)}, as its manifest says, got none. Copy the whole folder, or "
            "export again."
        )
    extra = sorted(found - set(manifest.files) - {MANIFEST_FILE, SIGNATURE_FILE})
    if extra:
        raise BundleError(
            f"{folder}: expected nothing but the files of its manifest, got {', '.join(extra)}. Move it elsewhere."
        )
    for name in (*manifest.files, MANIFEST_FILE):
        entry = folder / name
        try:
            place = entry.resolve() if entry.is_symlink() else entry
        except (OSError, RuntimeError) as error:  # the latter up to Python 3.12
            raise BundleError(f"{entry}: expected a file of the bundle, got links that run in circles.") from error
        if entry.is_symlink() and not place.is_relative_to(folder.resolve()):
            raise BundleError(
                f"{entry}: expected a file of the bundle, got a link to {place}, outside it. Put a copy in its place, "
                "if you trust it."
            )
        if not entry.is_file():
            raise BundleError(
                f"{entry}: expected a file, for a bundle is a flat folder of files. Export the bundle again."
            )


def _check_file(path: Path, sha256: str, size_bytes: int, verify: bool) -> None:
    try:
        size_found = path.stat().st_size
        hash_found = hash_file(path) if verify and size_found == size_bytes else sha256
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}). Check its permissions.") from error
    if size_found != size_bytes:
        raise BundleError(
            f"{path}: expected {size_bytes} bytes, as the manifest says, got {size_found}: it was cut short or "
            "changed. Copy the bundle again, or export it again."
        )
    if hash_found != sha256:
        raise BundleError(
            f"{path}: expected SHA-256 {sha256[:12]}..., as the manifest says, got {hash_found[:12]}...: it was "
            "changed. Copy the bundle again, or export it again."
        )


def _check_external_data(folder: Path, file: str, manifest: BundleManifest) -> None:
    """Check that the tensors which an ONNX file keeps elsewhere are in files of the bundle."""
    try:
        locations = list_external_locations((folder / file).read_bytes())
    except InputError as error:
        raise BundleError(f"{folder / file}: expected an ONNX file ({error}). Export the bundle again.") from error
    for location in locations:
        if not is_plain_name(location) or location not in manifest.files:
            raise BundleError(
                f"{folder / file}: expected weights in files of the bundle, got {location!r}. Do not use this bundle "
                "unless you know who made it."
            )


def _find_fingerprint(manifest: BundleManifest) -> str:
    document = manifest.to_json()
    left_out = {*NOT_IN_FINGERPRINT, *manifest.engine_files, *(asset.picture for asset in manifest.assets.values())}
    identity = {
        "input": manifest.input.to_json(),
        **{key: document[key] for key in ("stages", "assets", "programs", "decision")},
        "files": {name: entry.sha256 for name, entry in sorted(manifest.files.items()) if name not in left_out},
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _to_floats(values: NDArray[Any]) -> FloatArray:
    """Return values as float32; unsigned integers stand for 0 to 1, as in images."""
    if values.dtype.kind != "u":
        return np.asarray(values, np.float32)
    scaled: FloatArray = np.divide(values, np.float32(np.iinfo(values.dtype).max), dtype=np.float32)
    return scaled


def _need(tensors: Mapping[str, object], names: tuple[str, ...] | list[str], path: Path) -> None:
    missing = [name for name in names if name not in tensors]
    if missing:
        raise BundleError(f"{path}: lacks the tensors {', '.join(missing)}. Export the bundle again.")
