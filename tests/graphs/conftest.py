"""The same tiny bundle as the engine tests."""

from tests.engines.conftest import bundle, own_bundle

__all__ = ["bundle", "own_bundle"]
