"""What `import ndp_rt` offers."""

from importlib.metadata import version
from pathlib import Path

import pytest

import ndp_rt
from ndp_rt.errors import NdpRtError


@pytest.mark.parametrize("name", ndp_rt.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(ndp_rt, name) is not None
    assert name in dir(ndp_rt)


def test_other_names_raise_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Inspector"):
        ndp_rt.Detector  # noqa: B018


def test_version_is_stated_once() -> None:
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{ndp_rt.__version__}"' in text
    assert version("ndp-rt") == ndp_rt.__version__


def test_errors_have_statuses_of_their_own() -> None:
    leaves = NdpRtError.__subclasses__()
    statuses = [leaf.status for leaf in (NdpRtError, *leaves)]
    assert len(set(statuses)) == len(statuses)
