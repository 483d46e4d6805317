"""Engines that a bundle brings along to the machines that it is copied to."""

import contextlib
import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ndp_rt.bundle.open import Bundle
from ndp_rt.bundle.write import add_command, replace_files
from ndp_rt.engines.cache import EngineKey, cache_error, lock_builds, make_build_folder, publish
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.errors import InputError
from ndp_rt.program.manifest import BundleManifest, EngineFiles

if TYPE_CHECKING:
    from ndp_rt.engines.build import EngineRecord


def check_portable(spec: EngineSpec) -> None:
    """Check that other machines can load what a spec's backend builds; raises InputError."""
    backend = spec.find_backend()
    if not backend.is_portable:
        raise InputError(
            f"--into-bundle: expected a backend whose engines other machines load, got {backend.name}. Build there."
        )


def put_into_bundle(bundle: Bundle, record: "EngineRecord", command: str) -> Bundle:
    """Store engines in their bundle, and return it; they take the place of others for the same purpose.

    Args:
        bundle: that they were built from.
        record: of engines that other machines can load.
        command: what is to stand in the bundle's provenance.

    Raises:
        InputError: the backend's engines are for one machine alone.
        BundleError: the bundle was replaced after it was opened.
        StorageError: it cannot be written; it stays as it was.
    """
    check_portable(record.spec)
    files: dict[str, bytes | Path] = {}
    added = {}
    for entry in record.entries:
        names = {path.name: f"{entry.path.name}.{path.name}" for path in sorted(entry.path.iterdir())}
        files |= {names[name]: entry.path / name for name in names}
        added[entry.path.name] = EngineFiles(key=entry.key.to_json(), files=names)
    purposes = {(entry.key.family, entry.key.compute_capability) for entry in record.entries}
    fingerprint = record.entries[0].key.bundle_fingerprint

    def is_kept(engine: EngineFiles) -> bool:
        key = EngineKey.from_json(dict(engine.key))
        is_current = key.precision != record.spec.precision or key.bundle_fingerprint == fingerprint
        return is_current and (key.family, key.compute_capability) not in purposes

    def edit(now: BundleManifest) -> BundleManifest:
        kept = {name: engine for name, engine in now.engines.items() if is_kept(engine)}
        provenance = add_command(now.provenance, command)
        return dataclasses.replace(now, engines=kept | added, provenance=provenance)

    return replace_files(bundle, files, edit)


def unpack(bundle: Bundle, spec: EngineSpec, engines_dir: Path) -> None:
    """Copy the bundle's engines that a resolved spec needs, and the cache lacks, into the cache.

    Raises:
        StorageError: the cache cannot be written.
        EngineError: another user may write to it.
    """
    backend = spec.find_backend()
    if not bundle.manifest.engines or not backend.is_portable:
        return
    for key in spec.locate_keys(bundle, engines_dir):
        if (engines_dir / key.folder_name).is_dir():
            continue
        for engine in bundle.manifest.engines.values():
            with contextlib.suppress(TypeError):  # a key of another version of ndp-rt
                made = EngineKey.from_json(dict(engine.key))
                if made.fits(key, backend.find_free_fields(made, key)):
                    _copy(bundle, engine, made, engines_dir)
                    break


def _copy(bundle: Bundle, engine: EngineFiles, key: EngineKey, engines_dir: Path) -> None:
    """Copy an engine's files into the cache, in one step; they are compared with their hashes when they are found."""
    name = key.folder_name
    with lock_builds(engines_dir, name, lambda: None):
        folder = make_build_folder(engines_dir, name)
        try:
            for own, stored in engine.files.items():
                shutil.copyfile(bundle.path / stored, folder / own)
                (folder / own).chmod(0o600)
            if not (engines_dir / name).is_dir():  # another process was quicker
                publish(folder, key, engines_dir)
        except OSError as error:
            raise cache_error(engines_dir, error) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
