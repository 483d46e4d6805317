"""Inspects the demo's photographs, and describes the results on one page."""

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ndp_rt import __version__
from ndp_rt.arrays import BoolArray
from ndp_rt.bundle.open import Bundle
from ndp_rt.evaluate.dataset import Sample, load_mask
from ndp_rt.files import write_atomically
from ndp_rt.images.read import load_image
from ndp_rt.inspector import Inspector
from ndp_rt.pipeline.overlays import HEADER_PX, Picture, draw_overlay, encode_png, make_data_url
from ndp_rt.result import Result

DATA = Path(__file__).parent.parent / "data"
BUNDLE, IMAGES = DATA / "demo.ndp", DATA / "demo"
TEMPLATE = DATA / "demo.html"  # with @NAME@ for each value
PAGE = "index.html"
CREDIT = "README.txt"  # of a folder of images: its first line names their source


@dataclass(frozen=True, kw_only=True, eq=False)
class Inspected:
    """One labelled photograph with its result; `mask` is all False for a good one, None where there is none."""

    sample: Sample
    mask: BoolArray | None
    result: Result
    picture: Picture

    @property
    def is_right(self) -> bool:
        """True if the decision is what the photograph's label says."""
        return self.result.is_defect != self.sample.is_good

    @property
    def is_located(self) -> bool:
        """True if the map reaches its largest value inside of the mask."""
        peak = self.result.anomaly_map == self.result.anomaly_map.max()
        return self.mask is not None and bool((peak & self.mask).any())


def find_credit(folder: Path) -> str:
    """Return what a folder of images says of their source, or nothing."""
    path = folder / CREDIT
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def inspect_images(inspector: Inspector, samples: Sequence[Sample]) -> list[Inspected]:
    """Inspect photographs; the first is inspected once more before, so that its time is no start-up time.

    Raises:
        DataError: a mask does not serve.
        ImageFileError: an image cannot be read.
    """
    done = []
    white_level = inspector.bundle.manifest.input.white_level_16bit
    inspector.inspect(load_image(samples[0].path, white_level=white_level).pixels)
    for sample in samples:
        file = load_image(sample.path, white_level=white_level)
        image = file.pixels
        has_mask = sample.is_good or sample.mask_paths
        mask = load_mask(sample, *image.shape[:2], orientation=file.orientation) if has_mask else None
        result = inspector.inspect(image)
        picture = draw_overlay(image, result, sample.path.name, mask=mask, white_level_16bit=white_level)
        done.append(Inspected(sample=sample, mask=mask, result=result, picture=picture))
    return done


def write_overlays(inspected: Sequence[Inspected], out: Path) -> None:
    """Write every picture to out/overlays.

    Raises:
        StorageError: it cannot be written.
    """
    for one in inspected:
        name = f"{one.sample.kind}-{one.sample.path.stem}.png"  # kinds may share names
        write_atomically(out / "overlays" / name, encode_png(one.picture))


def write_page(inspected: Sequence[Inspected], bundle: Bundle, engine: str, credit: str, out: Path) -> Path:
    """Write the one-page summary, pictures included, and return its path.

    Args:
        inspected: at least one photograph.
        bundle: that inspected them.
        engine: what ran it, in words.
        credit: what is known of the photographs' source; its first line stands at the top.
        out: folder.

    Raises:
        StorageError: it cannot be written.
    """
    page = out / PAGE
    write_atomically(page, make_page(inspected, bundle, engine, credit).encode())
    return page


def make_page(inspected: Sequence[Inspected], bundle: Bundle, engine: str, credit: str) -> str:
    """Return the summary as HTML that needs no other file."""
    good = [one for one in inspected if one.sample.is_good]
    defective = [one for one in inspected if not one.sample.is_good]
    masked = [one for one in defective if one.mask is not None]
    threshold = bundle.threshold("fp32")
    times = sorted(one.result.timings_ms["total"] for one in inspected)
    values = {
        "title": f"ndp-rt demo: {bundle.path.name}",
        "good": f"{sum(one.is_right for one in good)} of {len(good)}",
        "found": f"{sum(one.is_right for one in defective)} of {len(defective)}",
        "located": f"{sum(one.is_located for one in masked)} of {len(masked)}",
        "median": f"{times[len(times) // 2]:.1f} ms",
        "engine": engine,
        "plot": draw_scores(inspected),
        "rows": "\n".join(make_row(one) for one in inspected),
        "source": credit.partition("\n")[0],
        "credit": credit,
        "threshold": f"{inspected[0].result.threshold:.4f}" + (f" ({threshold.note})" if threshold.note else ""),
        "model": f"{bundle.manifest.model.family}, preset {bundle.manifest.model.preset}",
        "provenance": json.dumps(dict(bundle.manifest.provenance), indent=2, ensure_ascii=False, default=str),
        "version": __version__,
    }
    raw = {"plot", "rows"}
    page = TEMPLATE.read_text(encoding="utf-8")
    for name, value in values.items():
        page = page.replace(f"@{name}@", value if name in raw else html.escape(value))
    return page


def make_row(one: Inspected) -> str:
    """Return one photograph's part of the page."""
    result, name = one.result, html.escape(one.sample.path.name)
    word, style = ("DEFECT", "defect") if result.is_defect else ("GOOD", "good")
    verdict = "as it should be" if one.is_right else "WRONG"
    return (
        f'<section><h3>{name}</h3><p><span class="badge {style}">{word}</span> '
        f"score {result.score:.4f}, {html.escape(one.sample.kind)}, <b>{verdict}</b>, "
        f"{result.timings_ms['total']:.1f} ms</p>"
        f'<img alt="input, label, anomaly map and contours of {name}" '
        f'src="{make_data_url(one.picture[HEADER_PX:])}"></section>'
    )


def draw_scores(inspected: Sequence[Inspected]) -> str:
    """Return the scores on one axis as SVG: good above, defective below, the threshold as a line."""
    scores = np.array([one.result.score for one in inspected])
    threshold = inspected[0].result.threshold
    top = max(float(scores.max()), threshold, 1e-6) * 1.08
    left, width = 110, 800

    def place(value: float) -> float:
        return left + width * value / top

    marks = []
    for one in inspected:
        y, style = (40, "good") if one.sample.is_good else (80, "defect")
        title = f"{html.escape(one.sample.path.name)}: {one.result.score:.4f}"
        marks.append(
            f'<circle class="{style}" cx="{place(one.result.score):.1f}" cy="{y}" r="7"><title>{title}</title></circle>'
        )
    x = place(threshold)
    ticks = [
        f'<text x="{place(value):.1f}" y="124" text-anchor="middle">{value:.2g}</text>' for value in choose_ticks(top)
    ]
    return (
        '<svg viewBox="0 0 960 140" role="img" aria-label="scores of all photographs">'
        f'<line x1="{left}" y1="106" x2="{left + width}" y2="106" class="axis"/>{"".join(ticks)}'
        '<text x="0" y="45">good</text><text x="0" y="85">defective</text>'
        f'<line x1="{x:.1f}" y1="18" x2="{x:.1f}" y2="106" class="threshold"/>'
        f'<text x="{x:.1f}" y="12" text-anchor="middle">threshold</text>{"".join(marks)}</svg>'
    )


def choose_ticks(top: float) -> list[float]:
    """Return three to ten round values from 0 up to `top`."""
    step = 10.0 ** np.floor(np.log10(top))
    while top / step < 3:
        step /= 2
    return [float(value) for value in np.arange(0.0, top, step)]
