"""Bundles: everything that is needed to build an engine anywhere (`docs/bundle.md` describes the format)."""

from ndp_rt.bundle.open import Bundle, Golden, open_bundle
from ndp_rt.bundle.write import update_manifest, write_bundle

__all__ = ["Bundle", "Golden", "open_bundle", "update_manifest", "write_bundle"]
