"""What `import ndp_rt` offers."""

import ast
import re
from pathlib import Path

import pytest

import ndp_rt
from ndp_rt.errors import NdpRtError

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ndp_rt.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(ndp_rt, name) is not None
    assert name in dir(ndp_rt)


def test_other_names_raise_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Inspector"):
        ndp_rt.Detector  # noqa: B018


def test_the_version_is_stated_in_one_place_and_has_a_heading_in_the_changelog() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'dynamic = ["version"]' in project and 'version = { attr = "ndp_rt.__version__" }' in project
    assert ndp_rt.__version__ not in project
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert ndp_rt.__version__ in headings[:2] and headings[0] in ("Next", ndp_rt.__version__)


def test_the_version_can_be_read_without_running_the_package() -> None:
    [line] = re.findall(r"^__version__ = (.+)$", Path(ndp_rt.__file__).read_text(encoding="utf-8"), re.MULTILINE)
    assert ast.literal_eval(line.partition("#")[0].strip()) == ndp_rt.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|(a|b|rc)\d+)?", ndp_rt.__version__)


def test_errors_have_statuses_of_their_own() -> None:
    leaves = NdpRtError.__subclasses__()
    statuses = [leaf.status for leaf in (NdpRtError, *leaves)]
    assert len(set(statuses)) == len(statuses)
