"""Makes the demo in the package: `python -m ndp_rt.export.demo ../shared/data/paper_flr01`.

DATA is a category in MVTec AD's layout. `ndp-rt train` with no option and `ndp-rt export --weights fp16`, for the size,
make demo.ndp of its training images. Some of its test images, with their masks, become the folder demo in the same
layout. They are evenly spaced by name, so that no score has a say in which are shown. The first good and the first
defective one are in demo_pnm too, for programs in C. demo/README.txt, which names their source, stays.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import ndp_rt
from ndp_rt.errors import RunError
from ndp_rt.evaluate.dataset import Sample, list_samples
from ndp_rt.files import storing
from ndp_rt.images.read import read_image

PACKAGE_DATA = Path(ndp_rt.__file__).parent / "data"
GOOD_COUNT, DEFECT_COUNT = 4, 6


def make_demo(data: Path, out: Path, options: Sequence[str] = ()) -> None:
    """Write demo.ndp and demo to a folder, in place of those that are there.

    Args:
        data: a category in MVTec AD's layout.
        out: the folder.
        options: of `ndp-rt train`, for tests; the demo shows what it does without.

    Raises:
        DataError: `data` has no labelled test images.
        RunError: training or exporting failed, and said why.
        StorageError: a file cannot be written.
    """
    samples = list_samples(data)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # The bundle keeps the commands: run beside the data, they name no folder of this machine.
        (folder / data.resolve().name).symlink_to(data.resolve(), target_is_directory=True)
        run("train", data.resolve().name, "-o", "run", *options, folder=folder)
        run("export", "run", "-o", "demo.ndp", "--weights", "fp16", folder=folder)
        with storing(out):
            shutil.rmtree(out / "demo.ndp", ignore_errors=True)
            shutil.copytree(folder / "demo.ndp", out / "demo.ndp")
    good = [one for one in samples if one.is_good]
    defective = [one for one in samples if len(one.mask_paths) == 1]
    shown_good, shown_defective = choose_evenly(good, GOOD_COUNT), choose_evenly(defective, DEFECT_COUNT)
    copy_samples(shown_good + shown_defective, out / "demo")
    write_pnm({"good": shown_good[0].path, "defect": shown_defective[0].path}, out / "demo_pnm")


def run(*arguments: str, folder: Path) -> None:
    """Run a command of ndp-rt in a folder.

    Raises:
        RunError: it failed.
    """
    code = subprocess.run([sys.executable, "-m", "ndp_rt.cli", *arguments], cwd=folder, check=False).returncode
    if code != 0:
        raise RunError(f"ndp-rt {arguments[0]}: expected exit code 0, got {code}. It says above what is wrong.")


def choose_evenly(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Return at most `count` samples: the middle one of each of as many equal parts."""
    count = min(count, len(samples))
    return [samples[(2 * part + 1) * len(samples) // (2 * count)] for part in range(count)]


def copy_samples(samples: Sequence[Sample], out: Path) -> None:
    """Copy images and masks, in MVTec AD's layout, in place of those that are there.

    Raises:
        StorageError: a file cannot be written.
    """
    with storing(out):
        for part in ("test", "ground_truth"):
            shutil.rmtree(out / part, ignore_errors=True)
        for one in samples:
            copies = [(out / "test" / one.kind, one.path)]
            copies += [(out / "ground_truth" / one.kind, path) for path in one.mask_paths]
            for folder, source in copies:
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, folder / source.name)


def write_pnm(photographs: Mapping[str, Path], out: Path) -> None:
    """Write photographs as NAME.ppm (or .pgm where they are grey), which programs in C read without a library.

    Raises:
        StorageError: a file cannot be written.
    """
    with storing(out):
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        for name, path in photographs.items():
            pixels = read_image(path)
            is_grey = pixels.ndim == 2
            kind, rows = ("P5", pixels) if is_grey else ("P6", pixels[..., :3])
            header = f"{kind}\n{pixels.shape[1]} {pixels.shape[0]}\n255\n".encode()
            (out / f"{name}.{'pgm' if is_grey else 'ppm'}").write_bytes(header + rows.tobytes())


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m ndp_rt.export.demo", description="Make the demo in the package.")
    parser.add_argument("data", type=Path, metavar="DATA", help="a category in MVTec AD's layout")
    parser.add_argument("-o", "--out", type=Path, metavar="OUT", default=PACKAGE_DATA, help="default: the package's")
    args = parser.parse_args()
    make_demo(args.data, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
