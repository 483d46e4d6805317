"""Engines that a bundle brings along to the machines that it is copied to."""

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ndp_rt.bundle.open import BROUGHT, Bundle
from ndp_rt.bundle.write import add_command, replace_files
from ndp_rt.engines.cache import ENGINE_FILE, EngineKey, cache_error, lock_builds, make_build_folder, publish
from ndp_rt.engines.spec import EngineSpec
from ndp_rt.errors import EngineError, InputError
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
        key = _unmark(entry.key)
        files[names[ENGINE_FILE]] = _with_key((entry.path / ENGINE_FILE).read_bytes(), key)
        added[entry.path.name] = EngineFiles(key=key.to_json(), files=names)
    purposes = {(entry.key.family, entry.key.compute_capability) for entry in record.entries}
    fingerprint = record.entries[0].key.bundle_fingerprint

    def is_kept(engine: EngineFiles) -> bool:
        try:
            key = EngineKey.from_json(dict(engine.key))
        except TypeError:  # of another version of ndp-rt
            return False
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
        for name, engine in bundle.manifest.engines.items():
            with contextlib.suppress(TypeError):  # a key of another version of ndp-rt
                made = EngineKey.from_json(dict(engine.key))
                if made.fits(key, backend.find_free_fields(made, key)):
                    _copy(bundle, name, made, engines_dir)
                    break


def _copy(bundle: Bundle, name: str, made: EngineKey, engines_dir: Path) -> None:
    """Copy an engine's files into the cache, in one step; they are compared with their hashes when they are found.

    Their key is marked, so that no other bundle gets what this one brings.
    """
    files = bundle.manifest.engines[name].files
    key = dataclasses.replace(made, build_options=(*_unmark(made).build_options, bundle.mark_engine(name)))
    target = key.folder_name
    with lock_builds(engines_dir, target, lambda: None):
        folder = make_build_folder(engines_dir, target)
        try:
            for own, stored in files.items():
                shutil.copyfile(bundle.path / stored, folder / own)
                (folder / own).chmod(0o600)
            described = folder / ENGINE_FILE
            if not described.is_file():
                raise ValueError(f"it has no {ENGINE_FILE}")
            described.write_bytes(_with_key(described.read_bytes(), key))
            if not (engines_dir / target).is_dir():  # another process was quicker
                publish(folder, key, engines_dir)
        except (ValueError, AttributeError) as error:
            raise EngineError(
                f"{bundle.path}: its engine {name} is damaged ({error}). Copy the bundle again."
            ) from error
        except OSError as error:
            raise cache_error(engines_dir, error) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _unmark(key: EngineKey) -> EngineKey:
    return dataclasses.replace(
        key, build_options=tuple(one for one in key.build_options if not one.startswith(BROUGHT))
    )


def _with_key(content: bytes, key: EngineKey) -> bytes:
    """Return engine.json with another key."""
    document = json.loads(content)
    document["key"] = key.to_json()
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
