"""The page in headless Chromium: it loads without a network, says nothing, and fits its window."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ndp_rt.bench.read_records import read_records
from ndp_rt.bench.report.page import make_page, write_report
from tests.bench.bench_records import make_latency_record, make_records_of_all_modes, write_records

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]
# Writes into the title what no static look at a page can tell. The policy of the page forbids scripts, so the copy that
# is measured goes without it.
MEASURE = """<script>
addEventListener("load", () => {
  const shown = [...document.images].filter((one) => one.naturalWidth > 0);
  document.title = `width ${document.documentElement.scrollWidth}, images ${shown.length}.`;
});
</script></body>"""


def run_chromium(page: Path, *words: str, width_px: int = 1280) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={page.parent / 'profile'}",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--enable-logging=stderr",
        "--v=0",
        "--hide-scrollbars",
        f"--window-size={width_px},2000",
        *words,
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("width_px", [1280, 700])
def test_the_page_fits_its_window_and_shows_its_images(width_px: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    records = [make_latency_record(rng, 20), *make_records_of_all_modes(rng)]
    page = make_page(read_records(write_records(tmp_path / "a.jsonl", *records)))
    copy = tmp_path / "measured.html"
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    copy.write_text(bare.replace("</body>", MEASURE), encoding="utf-8")
    done = run_chromium(copy, "--dump-dom", width_px=width_px)
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None, done.stderr
    found = re.fullmatch(r"width (\d+), images (\d+)\.", title[1])
    assert found is not None, title[1]
    assert int(found[1]) <= width_px
    assert int(found[2]) == page.count("<img ") == 10


def test_the_page_renders_without_a_message_in_the_console(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    page, picture = tmp_path / "page.html", tmp_path / "page.png"
    write_report(read_records(write_records(tmp_path / "a.jsonl", *make_records_of_all_modes(rng))), page)
    done = run_chromium(page, f"--screenshot={picture}")
    assert picture.read_bytes().startswith(b"\x89PNG"), done.stderr
    assert "CONSOLE" not in done.stderr
