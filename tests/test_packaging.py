"""What is packaged: the map of setup.py, the links in ndp_rt/, the wheel and the source archive hold the same."""

import ast
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOT_COPIED = shutil.ignore_patterns(
    ".git",
    ".venv*",
    "*.egg-info",
    "build",
    "dist",
    "runs",
    "demo-out",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
    "*.tmp",
)


def read_map() -> dict[str, str]:
    """Return MAPPED of setup.py, without running it."""
    for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MAPPED":
            return dict(ast.literal_eval(node.value))
    raise AssertionError("setup.py has no MAPPED")


def list_expected() -> set[str]:
    """Return the files that the wheel has to hold, by reading the checkout."""
    own = {
        f"ndp_rt/{path.relative_to(ROOT / 'ndp_rt').as_posix()}" for path in walk(ROOT / "ndp_rt", {".py", ".typed"})
    }
    for package, folder in read_map().items():
        prefix = package.replace(".", "/")
        suffixes = {".py", ".cu", ".cuh"}
        own |= {f"{prefix}/{path.relative_to(ROOT / folder).as_posix()}" for path in walk(ROOT / folder, suffixes)}
    assert "ndp_rt/kernels/cuda/warp.cuh" in own
    data = ROOT / "ndp_rt" / "data"
    return own | {f"ndp_rt/data/{path.relative_to(data).as_posix()}" for path in data.rglob("*") if path.is_file()}


def walk(folder: Path, suffixes: set[str]) -> list[Path]:
    """Return the files below `folder` with one of `suffixes`, none behind a link."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.suffix in suffixes]
    inside = [path for path in found if not any(parent.is_symlink() for parent in path.parents if parent != ROOT)]
    return [path for path in inside if "__pycache__" not in path.parts]


def build(source: Path, out: Path, kind: str) -> Path:
    """Build a wheel or a source archive of `source` with the installed setuptools; needs no network."""
    call = f"import setuptools.build_meta as b; b.build_{kind}({str(out)!r})"
    out.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([sys.executable, "-c", call], cwd=source, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    [made] = out.iterdir()
    return made


def list_wheel(wheel: Path) -> set[str]:
    """Return the files of a wheel that get installed into the package."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with its links, in a path with a space."""
    copy = tmp_path_factory.mktemp("check out") / "ndp-rt"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=NOT_COPIED)
    return copy


def test_each_mapped_package_has_a_relative_link_to_its_folder() -> None:
    links = {path.name: path.readlink().as_posix() for path in (ROOT / "ndp_rt").iterdir() if path.is_symlink()}
    assert links == {package.removeprefix("ndp_rt."): f"../{folder}" for package, folder in read_map().items()}
    assert all((ROOT / folder / "__init__.py").is_file() for folder in read_map().values())


def test_every_folder_with_code_is_a_package() -> None:
    folders = {
        path.parent for folder in ("ndp_rt", "kernels", "export", "bench") for path in walk(ROOT / folder, {".py"})
    }
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_the_wheel_holds_exactly_the_packages_and_their_data(checkout: Path, tmp_path: Path) -> None:
    wheel = build(checkout, tmp_path / "with", "wheel")
    found = list_wheel(wheel)
    assert found == list_expected()
    assert {name.split("/")[0] for name in found} == {"ndp_rt"}
    with zipfile.ZipFile(wheel) as archive:
        entry_points = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "ndp-rt = ndp_rt.cli:main" in archive.read(entry_points).decode()


def test_wheel_and_archive_are_the_same_without_the_links(checkout: Path, tmp_path: Path) -> None:
    for name in read_map():
        (checkout / name.replace(".", "/")).unlink(missing_ok=True)
    shutil.rmtree(checkout / "build", ignore_errors=True)
    assert list_wheel(build(checkout, tmp_path / "without", "wheel")) == list_expected()
    archive = build(checkout, tmp_path / "archive", "sdist")
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path / "unpacked")  # our own archive; Python 3.11.2 has no filters
    [unpacked] = (tmp_path / "unpacked").iterdir()
    assert (unpacked / "LICENSE").is_file() and (unpacked / "Makefile").is_file()
    assert list_wheel(build(unpacked, tmp_path / "again", "wheel")) == list_expected()


def test_the_installed_wheel_imports_from_an_empty_folder(checkout: Path, tmp_path: Path) -> None:
    wheel = build(checkout, tmp_path / "wheel", "wheel")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import ndp_rt, ndp_rt.kernels, ndp_rt.export, ndp_rt.bench\n"
        "print(ndp_rt.__file__, ndp_rt.bench.__file__)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert all(path.startswith(str(tmp_path / "site")) for path in done.stdout.split())


def test_what_ships_names_no_folder_of_the_machine_that_made_it() -> None:
    for path in (ROOT / "ndp_rt" / "data").rglob("*"):
        if path.suffix in {".json", ".txt", ".md"}:
            found = re.findall(
                r"(?<![\w.:/])/(?:home|root|work|tmp|Users|mnt)/[\w./-]*", path.read_text(encoding="utf-8")
            )
            assert found == [], path.name
