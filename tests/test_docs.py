"""The pages say what is so: every example on them runs, every link leads somewhere, every command is named."""

import ast
import doctest
import importlib
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import ndp_rt
from ndp_rt.cli import COMMANDS, EXIT_DEFECTS, EXIT_OK, EXIT_UNREADABLE, join_command, main
from ndp_rt.cli.demo_page import BUNDLE, IMAGES
from ndp_rt.evaluate.dataset import list_samples
from tests.importing.models import ANOMALIB_OUTPUTS, NORMALISED, write_model

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Pages for those who work on the code: their links and names are checked, their shell lines are not run.
OTHER_PAGES = [ROOT / f"{name}.md" for name in ("CONTRIBUTING", "CONVENTIONS", "SECURITY", "CODE_OF_CONDUCT")]
README_LINES = 120
# What makes a command of the pages short enough for a test; the rest of the line is run as it stands.
SHORTER = {
    "train": ["--steps", "2", "--size", "64", "--batch", "2", "--threads", "1"],
    "bench": ["--seconds", "0.2", "--threads", "1"],
    "bench capi": ["--seconds", "0.1", "--only", "timings"],
}
NEEDS_TORCH = ("train", "export")


def list_blocks(page: Path) -> list[tuple[str, str]]:
    """Return the fenced blocks of a page with their languages."""
    return re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def list_lines() -> list[list[str]]:
    """Return the words of every shell line on the pages."""
    blocks = [text for page in PAGES for language, text in list_blocks(page) if language == "sh"]
    return [shlex.split(line, comments=True) for text in blocks for line in text.splitlines() if line.strip()]


def write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder of the pages' examples: photos/, new/, data/, tiles.ndp and padim.onnx as they say."""
    for index in range(6):
        write_image(tmp_path / f"photos/{index}.png", rng.integers(90, 130, (72, 80), dtype=np.uint8))
    shutil.copytree(IMAGES, tmp_path / "data")
    (tmp_path / "new").mkdir()
    shutil.copy(next(one.path for one in list_samples(IMAGES) if not one.is_good), tmp_path / "new/piece.png")
    shutil.copytree(BUNDLE, tmp_path / "tiles.ndp")
    write_model(tmp_path / "padim.onnx", NORMALISED, ANOMALIB_OUTPUTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NDP_RT_CACHE", str(tmp_path / "cache"))
    yield tmp_path


def run_line(words: list[str]) -> None:
    """Run one line of a page, made shorter where it would take long."""
    assert words[0] == "ndp-rt", f"{shlex.join(words)}: no rule says how to run this"
    name = join_command(words[1:])[0]
    code = main([*words[1:], *SHORTER.get(name, [])])
    assert code in (EXIT_OK, EXIT_DEFECTS, EXIT_UNREADABLE), shlex.join(words)


def test_blocks_are_of_known_kinds() -> None:
    kinds = {language for page in PAGES for language, _ in list_blocks(page)}
    assert kinds <= {"json", "python", "sh", "text", "toml"}


def test_json_examples_are_json() -> None:
    for text in [text for page in PAGES for language, text in list_blocks(page) if language == "json"]:
        json.loads(text)


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    targets = [words[1] for words in list_lines() if words[0] == "make"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in targets)


def test_ci_calls_the_test_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert [line for line in script if line.endswith(" make test")] == ['timeout --kill-after=10 "$LIMIT_S" make test']


@pytest.mark.nightly
def test_shell_examples_run(folder: Path) -> None:
    lines = [words for words in list_lines() if words[0] != "make" and words[1] not in NEEDS_TORCH]
    assert lines
    for words in lines:
        run_line(words)


@pytest.mark.nightly
@pytest.mark.torch
def test_training_examples_run_from_photographs_to_a_bundle(folder: Path) -> None:
    shutil.rmtree(folder / "tiles.ndp")
    for words in list_lines():
        if words[0] == "ndp-rt" and words[1] in NEEDS_TORCH:
            run_line(words)
    assert (folder / "tiles.ndp" / "manifest.json").is_file()


def test_python_examples_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = [text for page in PAGES for language, text in list_blocks(page) if language == "python"]
    assert blocks
    for text in blocks:
        exec(compile(text, "README.md", "exec"), {})
    assert re.match(r"score [01]\.\d{3}, threshold 0\.\d{3}, defect: True\n\d+ pixels at x = ", capsys.readouterr().out)


def test_docstring_examples_run(folder: Path) -> None:
    sources = [path for part in ("ndp_rt", "kernels", "export", "bench") for path in (ROOT / part).rglob("*.py")]
    for path in {path.resolve() for path in sources}:
        text = path.read_text(encoding="utf-8")
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, documented)]
        if any(">>>" in (ast.get_docstring(node) or "") for node in nodes):
            name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
            module = importlib.import_module(name if name.startswith("ndp_rt") else f"ndp_rt.{name}")
            assert doctest.testmod(module).failed == 0, name


def test_what_is_public_has_an_example() -> None:
    public = [getattr(ndp_rt, name) for name in ndp_rt.__all__ if name not in ("__version__", "errors")]
    assert [one.__name__ for one in public if "Examples:\n" not in (one.__doc__ or "")] == []


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


def test_the_readme_fits_two_screens() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


def test_the_page_of_commands_names_every_command_and_no_other() -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| `ndp-rt ([^`]+)`", page, re.MULTILINE)
    assert {join_command(line.split())[0] for line in lines} == set(COMMANDS)


def test_pages_name_only_files_that_exist() -> None:
    for page in [*PAGES, *OTHER_PAGES]:
        for name in re.findall(r"`((?:bench|kernels|export|ndp_rt|tests|docs)/[\w./-]*)`", page.read_text("utf-8")):
            assert "NAME" in name or (ROOT / name).exists(), f"{page.name}: {name}"
