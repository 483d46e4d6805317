"""Writes bundles so that a kill, a full disk or a lost power supply leaves the old one or the new one.

Whoever replaces a bundle, or changes its manifest, holds the lock `.NAME.ndp.lock` beside it from reading what is there
until the change is in place.
"""

import contextlib
import ctypes
import dataclasses
import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ndp_rt.bundle.manifest import MANIFEST_FILE, TEMPORARY_PREFIX, encode_manifest, read_manifest
from ndp_rt.bundle.open import Bundle, is_plain_name, open_bundle
from ndp_rt.errors import InputError, StorageError
from ndp_rt.files import hold_lock, keep_access, storing
from ndp_rt.program.manifest import BundleManifest, FileSpec

BUNDLE_SUFFIX = ".ndp"
# Changing these needs no other file of the bundle to change.
CHANGEABLE = frozenset({"name", "thresholds", "provenance", "parity"})
LOCK_WAIT_S = 120.0  # a bundle is copied and hashed under the lock, at worst over a slow network
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2

Edit = Callable[[BundleManifest], BundleManifest]


def write_bundle(
    path: str | Path,
    *,
    manifest_without_files: BundleManifest,
    files: Mapping[str, bytes | Path],
    overwrite: bool = False,
) -> Bundle:
    """Write a new bundle and return it, opened and verified.

    Args:
        path: the folder to make, NAME.ndp.
        manifest_without_files: everything but `files`, which is made from what is written.
        files: content, or a file to copy, by name; manifest.json is not among them.
        overwrite: replace a bundle that is there; until the swap, which is one step, it stays as it was.

    Raises:
        InputError: a name that is no plain file name, or a path without .ndp.
        StorageError: something is there already, no space, no permission; nothing half-written is left.
        BundleError: what was written is no valid bundle.
    """
    target = Path(path).absolute()
    if target.suffix != BUNDLE_SUFFIX:
        raise InputError(f"bundle path: expected a name that ends in {BUNDLE_SUFFIX}, got {target}.")
    for name in files:
        if not is_plain_name(name) or name == MANIFEST_FILE:
            raise InputError(f"name of a bundle's file: expected a plain one, not {MANIFEST_FILE}, got {name!r}.")
    check_target(target, overwrite)
    with _storing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with lock_bundle(target):
            check_target(target, overwrite)
            with _drafting(target, manifest_without_files, files) as folder:
                _move_into_place(folder, target)
    return open_bundle(target, verify=False)


def replace_files(bundle: Bundle, changed: Mapping[str, bytes | Path], edit: Edit) -> Bundle:
    """Replace some files of a bundle and its manifest, in one step, and return it, opened and verified.

    Args:
        bundle: as it was opened when the change was computed.
        changed: content by name, of files that are there or new ones.
        edit: gets the manifest as it is now, which may have other thresholds than the bundle's, and returns the new
            one; its `files` are made from what is written. Files of engines that it no longer has are left out.

    Raises:
        BundleError: the bundle was replaced after it was opened.
        StorageError: no space, no permission, or another process keeps changing it; it stays as it was.
    """
    place = bundle.path.resolve()  # behind a link, the bundle itself
    with _storing(place), lock_bundle(place):
        manifest = edit(read_current(bundle))
        kept = set(bundle.manifest.files) - (bundle.manifest.engine_files - manifest.engine_files)
        files = {name: place / name for name in sorted(kept)} | dict(changed)
        with _drafting(place, manifest, files) as folder:
            written = read_manifest(folder).files
            for name in kept - set(changed):
                if written[name] != bundle.manifest.files[name]:
                    raise bundle.replaced()
            _move_into_place(folder, place)
    return open_bundle(bundle.path, verify=False)


def update_manifest(bundle: Bundle, edit: Edit) -> Bundle:
    """Change fields of the manifest, in one step, and return the bundle with its new manifest.

    Args:
        bundle: as it was opened when the change was computed.
        edit: gets the manifest as it is now, and returns it with other values of name, thresholds, provenance and
            parity; the rest belongs to the files.

    Raises:
        InputError: another field.
        BundleError: the bundle was replaced after it was opened, so the changes may not fit its files.
        StorageError: no space, no permission, or another process keeps changing it; the manifest stays as it was.
    """
    place = bundle.path.resolve()
    path = place / MANIFEST_FILE
    with _storing(path), lock_bundle(place):
        current = read_current(bundle)
        manifest = edit(current)
        fields = [field.name for field in dataclasses.fields(manifest)]
        refused = {name for name in fields if getattr(manifest, name) != getattr(current, name)} - CHANGEABLE
        if refused:
            raise InputError(
                f"manifest fields: expected {', '.join(sorted(CHANGEABLE))}, which alone can change, got "
                f"{', '.join(sorted(refused))}. Write the bundle anew."
            )
        for leftover in place.glob(f"{TEMPORARY_PREFIX}*"):  # of killed writers: a living one would hold the lock
            leftover.unlink(missing_ok=True)
        handle, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=place)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(encode_manifest(manifest))
                stream.flush()
                os.fsync(stream.fileno())
            keep_access(path, temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(place)
    return dataclasses.replace(bundle, manifest=manifest)


@contextlib.contextmanager
def lock_bundle(place: Path) -> Iterator[None]:
    """Hold the lock of the bundle at `place`, which is no link.

    Raises:
        StorageError: another process holds it for long, or it cannot be made in the folder around the bundle.
    """
    with hold_lock(place.with_name(f".{place.name}.lock"), wait_s=LOCK_WAIT_S):
        yield


def read_current(bundle: Bundle) -> BundleManifest:
    """Return the manifest as it is now: another process may have changed a threshold after the bundle was opened.

    Raises:
        BundleError: the bundle's files were replaced.
    """
    current = read_manifest(bundle.path)
    if current.files != bundle.manifest.files:
        raise bundle.replaced()
    return current


def add_command(provenance: Mapping[str, Any], command: str) -> dict[str, Any]:
    """Return the provenance with one more command that changed the bundle."""
    return {**provenance, "commands": [*provenance.get("commands", []), command]}


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power loss, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def exchange(first: Path, second: Path) -> bool:
    """Swap two paths in one step; return False where the system cannot (then nothing has changed)."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # TypeError: Windows
        return False
    return bool(rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0)


def check_target(target: Path, overwrite: bool) -> None:
    """Check that a bundle may be written to `target`, without changing anything.

    Raises:
        StorageError: a bundle is there and `overwrite` is False, or something that is none.
    """
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise StorageError(f"{target}: exists already. Choose another name, or overwrite it (--overwrite).")
    if target.is_symlink() or not target.is_dir() or (any(target.iterdir()) and not (target / MANIFEST_FILE).is_file()):
        raise StorageError(f"{target}: expected a bundle to overwrite, got something else. Choose another name.")


@contextlib.contextmanager
def _drafting(target: Path, manifest: BundleManifest, files: Mapping[str, bytes | Path]) -> Iterator[Path]:
    """Write a whole bundle into a hidden folder beside `target`, which is gone afterwards unless it was moved.

    The caller holds the bundle's lock, so whatever such folders lie there have no owner.
    """
    _remove_leftovers(target)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.tmp-", dir=target.parent))
    try:
        written = {name: _write_file(folder / name, content) for name, content in files.items()}
        _write_file(folder / MANIFEST_FILE, encode_manifest(dataclasses.replace(manifest, files=written)))
        folder.chmod(0o755)  # mkdtemp makes it private; a bundle is for all who may read its parent
        for path in (*folder.iterdir(), folder):
            keep_access(target / path.relative_to(folder), path)
        sync_folder(folder)
        open_bundle(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move_into_place(folder: Path, target: Path) -> None:
    """Give `folder` the name `target`; an older bundle there is left under the name `folder`, or removed."""
    if not target.exists():
        folder.rename(target)
    elif not exchange(folder, target):
        # Between the two renames no bundle is there; opening then says where the old one lies.
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old-", dir=target.parent))
        target.rename(old)  # an empty folder gives way
        folder.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    sync_folder(target.parent)


def _remove_leftovers(target: Path) -> None:
    """Remove what killed writers of this bundle left, unless the bundle itself is missing and lies among it."""
    kinds = ("tmp", "old") if target.exists() else ("tmp",)
    for leftover in [one for kind in kinds for one in target.parent.glob(f".{glob.escape(target.name)}.{kind}-*")]:
        shutil.rmtree(leftover, ignore_errors=True)


def _write_file(path: Path, content: bytes | Path) -> FileSpec:
    """Write or copy a file, make it durable, and return its size and hash."""
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as stream:
        if isinstance(content, Path):
            with content.open("rb") as source:
                while chunk := source.read(1 << 20):
                    size += stream.write(chunk)
                    digest.update(chunk)
        else:
            size = stream.write(content)
            digest.update(content)
        stream.flush()
        os.fsync(stream.fileno())
    return FileSpec(sha256=digest.hexdigest(), size_bytes=size)


@contextlib.contextmanager
def _storing(path: Path) -> Iterator[None]:
    remedy = "Nothing was changed. Free some space or choose a folder that you may write to."
    with storing(path, remedy):
        yield
