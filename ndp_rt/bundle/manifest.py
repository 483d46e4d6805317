"""Reads and writes manifest.json, which holds a hash of itself."""

import hashlib
import json
import math
from pathlib import Path

from ndp_rt.errors import BundleError
from ndp_rt.program.manifest import FORMAT_VERSION, HASH_ENTRY, BundleManifest

MANIFEST_FILE = "manifest.json"
# Files with this prefix are left by a killed writer; they are never read, and the next writer removes them.
TEMPORARY_PREFIX = ".ndp-rt-tmp-"
LARGEST_BYTES = 2**26  # a thousand times what a manifest takes
NO_HASH = "0" * 64  # stands in the hash's place while it is made


def read_manifest(folder: Path) -> BundleManifest:
    """Read the manifest of the bundle at `folder`.

    Raises:
        BundleError: it is missing, not JSON, of another format or of a newer version, or was changed by hand.
    """
    return parse_manifest(read_content(folder), folder)


def read_content(folder: Path) -> bytes:
    """Return the bytes of the manifest of the bundle at `folder`.

    Raises:
        BundleError: it is missing, no file, or far too large.
    """
    path = folder / MANIFEST_FILE
    try:
        return read_limited(path)
    except FileNotFoundError as error:
        raise BundleError(
            f"{folder}: expected a bundle's folder NAME.ndp, got one without {MANIFEST_FILE}. Export the bundle again."
        ) from error
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error}). Check its permissions, or export the bundle.") from error


def parse_manifest(content: bytes, folder: Path) -> BundleManifest:
    """Return what `read_content` read, as `read_manifest` does."""
    path = folder / MANIFEST_FILE
    try:
        document = json.loads(content.decode(), parse_float=_read_number, parse_constant=_read_number)
        _check_hash(document, content, folder)
        return BundleManifest.from_json(document)
    except (ValueError, RecursionError) as error:  # the latter from brackets nested a thousand deep
        if isinstance(error, BundleError):
            raise BundleError(f"{path}: {error}") from error
        raise BundleError(f"{path}: expected JSON, got something else ({error}). Export the bundle again.") from error


def _read_number(text: str) -> float:
    """Return a number; NaN and infinity, which JSON does not have, are refused, as is what becomes infinite (1e400)."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"expected a finite number, got {text}")
    return number


def encode_manifest(manifest: BundleManifest) -> bytes:
    """Return the manifest as the bytes of manifest.json."""
    document = manifest.to_json()
    start = {name: document.pop(name) for name in ("format", "format_version")}
    text = json.dumps({**start, HASH_ENTRY: NO_HASH, **document}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # A file name that is no UTF-8 holds lone surrogates, which this writes as the escapes that JSON has for them.
    content = text.encode("utf-8", "backslashreplace")
    return content.replace(NO_HASH.encode(), hashlib.sha256(content).hexdigest().encode(), 1)


def read_limited(path: Path) -> bytes:
    """Return what a small file holds.

    Raises:
        BundleError: it is no file, or too large to be one of ours.
        OSError: it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise BundleError(f"{path}: expected a file, got a folder, a pipe or a device. Export the bundle again.")
    with path.open("rb") as stream:
        content = stream.read(LARGEST_BYTES + 1)
    if len(content) > LARGEST_BYTES:
        raise BundleError(f"{path}: expected at most {LARGEST_BYTES} bytes, got more. Export the bundle again.")
    return content


def _check_hash(document: object, content: bytes, folder: Path) -> None:
    """Compare a manifest with the hash in it; those of before 0.2 have none, and later formats may have another.

    Raises:
        BundleError: it was changed since ndp-rt wrote it.
    """
    if not isinstance(document, dict) or HASH_ENTRY not in document:
        return
    version = document.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:  # which is refused as such
        return
    said = document[HASH_ENTRY]
    if isinstance(said, str) and len(said) == len(NO_HASH) and said.isascii():
        found = hashlib.sha256(content.replace(said.encode(), NO_HASH.encode(), 1)).hexdigest()
        if found == said:
            return
    raise BundleError(
        f"expected the content that ndp-rt wrote, with SHA-256 {said!r:.14}..., got another: it was changed, or is "
        f"damaged. A threshold is changed with: ndp-rt set-threshold {folder} VALUE; a reference with: ndp-rt "
        f"set-reference {folder} IMAGE. Else copy the bundle again, or export it again."
    )
