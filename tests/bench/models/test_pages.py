"""What is true of every page of bench/models, by what it states; none is built here."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ndp_rt.bench.models import LATER, PAPER, Architecture, find_architecture
from ndp_rt.errors import InputError

NAMES = (*PAPER, *LATER)
DOCS = (Path(__file__).parents[3] / "docs" / "bench-methods.md").read_text(encoding="utf-8")
# The NDP-Net paper's row "Average" in tables II (image ROCAUC), III (pixel ROCAUC) and IV (PRO-AUC).
IMAGE_ROCAUC = {
    "ae-ssim": 64.40,
    "anogan": 52.20,
    "f-anogan": 63.01,
    "ganomaly": 76.30,
    "vae": 78.20,
    "trustmae": 97.74,
    "riad": 95.10,
    "mkd": 87.68,
    "spade": 85.56,
    "patch-svdd": 94.54,
}
PIXEL_ROCAUC = {
    "ae-ssim": 78.00,
    "anogan": 58.00,
    "vae": 82.26,
    "trustmae": 93.83,
    "riad": 93.70,
    "mkd": 90.62,
    "spade": 92.94,
    "dfr": 94.80,
    "gcpf": 97.44,
    "patch-svdd": 93.68,
}
AUPRO = {
    "ae-ssim": 56.74,
    "anogan": 27.42,
    "vae": 57.16,
    "spade": 88.38,
    "mb-pfm": 94.60,
    "padim": 93.14,
    "stpm": 95.22,
}


@pytest.fixture(params=NAMES)
def architecture(request: pytest.FixtureRequest) -> Architecture:
    return find_architecture(request.param)


def test_the_paper_compares_with_fifteen_methods_and_the_tables_name_no_other() -> None:
    assert len(set(PAPER)) == 15
    assert set(IMAGE_ROCAUC) | set(PIXEL_ROCAUC) | set(AUPRO) == set(PAPER)


def test_rejects_a_name_that_is_not_there() -> None:
    with pytest.raises(InputError, match="no architecture 'ae_ssim'. Choose one of ae-ssim, f-anogan"):
        find_architecture("ae_ssim")


def test_names_are_known_without_pytorch() -> None:
    code = "import sys; from ndp_rt.bench.models import PAPER; print(len(PAPER), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["15", "False"], done.stderr


def test_says_whose_it_is_what_is_counted_and_what_is_left_out_in_sentences(architecture: Architecture) -> None:
    _, found = DOCS.split(f"## {architecture.title} (`{architecture.name}`)\n\n")
    source, counted, left_out, *_ = re.split(r"\n\nCounted:\n\n|\n\nLeft out or chosen:\n\n|\n\n## ", found)
    assert source.endswith(".") and any(str(year) in source for year in range(2017, 2025)), source
    for sentence in (*counted.split("\n- "), *left_out.split("\n- ")):
        assert sentence.removeprefix("- ")[0].isupper() or sentence.removeprefix("- ")[0].isdigit(), sentence
        assert sentence.rstrip().endswith("."), sentence


def test_is_called_by_its_title(architecture: Architecture) -> None:
    assert architecture.title.lower().replace(" ", "-").startswith(architecture.name.split("-")[0])


@pytest.mark.parametrize("name", NAMES)
def test_reports_the_papers_averages_and_none_where_a_table_has_no_column(name: str) -> None:
    tables = {"image_rocauc": IMAGE_ROCAUC, "pixel_rocauc": PIXEL_ROCAUC, "aupro": AUPRO}
    assert find_architecture(name).reported == {
        metric: table[name] for metric, table in tables.items() if name in table
    }
