"""Writes bundles so that a kill, a full disk or a lost power supply leaves the old one or the new one."""

import contextlib
import ctypes
import dataclasses
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ndp_rt.bundle.manifest import MANIFEST_FILE, TEMPORARY_PREFIX, encode_manifest, read_manifest
from ndp_rt.bundle.open import Bundle, is_plain_name, open_bundle
from ndp_rt.errors import BundleError, InputError, StorageError
from ndp_rt.program.manifest import BundleManifest, FileSpec

BUNDLE_SUFFIX = ".ndp"
# Changing these needs no other file of the bundle to change.
CHANGEABLE = frozenset({"name", "thresholds", "provenance", "parity"})
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


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
    folder: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.tmp-{os.getpid()}-", dir=target.parent))
        folder.chmod(0o755)  # mkdtemp makes it private; a bundle is for all who may read its parent
        written = {name: _write_file(folder / name, content) for name, content in files.items()}
        manifest = dataclasses.replace(manifest_without_files, files=written)
        _write_file(folder / MANIFEST_FILE, encode_manifest(manifest))
        sync_folder(folder)
        open_bundle(folder)
        _move_into_place(folder, target)
    except OSError as error:
        raise _storage_error(target, error) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    return open_bundle(target, verify=False)


def update_manifest(bundle: Bundle, **changes: Any) -> Bundle:
    """Replace fields of the manifest, in one step, and return the bundle with its new manifest.

    Args:
        changes: of name, thresholds, provenance and parity; the rest belongs to the files.

    Raises:
        InputError: another field.
        BundleError: the bundle was replaced after it was opened, so the changes may not fit its files.
        StorageError: no space, no permission; the manifest stays as it was.
    """
    refused = sorted(set(changes) - CHANGEABLE)
    if refused:
        raise InputError(
            f"manifest fields: expected {', '.join(sorted(CHANGEABLE))}, which alone can change, got "
            f"{', '.join(refused)}. Write the bundle anew."
        )
    manifest = dataclasses.replace(read_current(bundle), **changes)
    content = encode_manifest(manifest)
    temporary = bundle.path / f"{TEMPORARY_PREFIX}{os.getpid()}"
    try:
        for leftover in bundle.path.glob(f"{TEMPORARY_PREFIX}*"):
            owner = leftover.name.removeprefix(TEMPORARY_PREFIX)
            if not (owner.isdecimal() and _is_running(int(owner))):  # else another update is on its way
                leftover.unlink(missing_ok=True)
        _write_file(temporary, content)
        temporary.replace(bundle.path / MANIFEST_FILE)
        sync_folder(bundle.path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise _storage_error(bundle.path / MANIFEST_FILE, error) from error
    return dataclasses.replace(bundle, manifest=manifest)


def read_current(bundle: Bundle) -> BundleManifest:
    """Return the manifest as it is now: another process may have changed a threshold after the bundle was opened.

    Raises:
        BundleError: the bundle's files were replaced.
    """
    current = read_manifest(bundle.path)
    if current.files != bundle.manifest.files:
        raise BundleError(f"{bundle.path}: was changed by another process since it was opened. Run the command again.")
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


def _move_into_place(folder: Path, target: Path) -> None:
    """Give `folder` the name `target`; an older bundle there is left under the name `folder`, or removed."""
    if not target.exists():
        folder.rename(target)
    elif not exchange(folder, target):
        # Between the two renames no bundle is there; opening then says where the old one lies.
        old = target.with_name(f".{target.name}.old-{os.getpid()}")
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
        folder.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    sync_folder(target.parent)


def _remove_leftovers(target: Path) -> None:
    """Remove what killed writers of this bundle left, unless the bundle itself is missing and lies among it."""
    for leftover in target.parent.glob(f".{target.name}.tmp-*"):
        match = re.search(r"\.tmp-(\d+)-", leftover.name)
        if match is None or not _is_running(int(match.group(1))):
            shutil.rmtree(leftover, ignore_errors=True)
    if target.exists():
        for leftover in target.parent.glob(f".{target.name}.old-*"):
            shutil.rmtree(leftover, ignore_errors=True)


def _is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


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


def _storage_error(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{path}: cannot be written ({error.strerror or error}); nothing was changed. "
        "Free some space or choose a folder that you may write to."
    )
