"""Reads and writes manifest.json."""

import json
from pathlib import Path

from ndp_rt.errors import BundleError
from ndp_rt.program.manifest import BundleManifest

MANIFEST_FILE = "manifest.json"
# Files with this prefix are left by a killed writer; they are never read, and the next writer removes them.
TEMPORARY_PREFIX = ".ndp-rt-tmp-"


def read_manifest(folder: Path) -> BundleManifest:
    """Read the manifest of the bundle at `folder`.

    Raises:
        BundleError: it is missing, not JSON, of another format or of a newer version.
    """
    path = folder / MANIFEST_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise BundleError(
            f"{folder}: expected a bundle's folder NAME.ndp, got one without {MANIFEST_FILE}. Export the bundle again."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: cannot be read ({error}). Check its permissions, or export the bundle.") from error
    try:
        return BundleManifest.from_json(json.loads(text))
    except (ValueError, RecursionError) as error:  # the latter from brackets nested a thousand deep
        if isinstance(error, BundleError):
            raise BundleError(f"{path}: {error}") from error
        raise BundleError(f"{path}: expected JSON, got something else ({error}). Export the bundle again.") from error


def encode_manifest(manifest: BundleManifest) -> bytes:
    """Return the manifest as the bytes of manifest.json."""
    text = json.dumps(manifest.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # A file name that is no UTF-8 holds lone surrogates, which this writes as the escapes that JSON has for them.
    return text.encode("utf-8", "backslashreplace")
