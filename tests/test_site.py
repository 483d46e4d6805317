"""The documentation site: builds with every warning an error, and asks no other server for anything."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="needs the extra [docs]")
ROOT = Path(__file__).parent.parent
# What a browser loads by itself; what readers follow is not among it.
LOADING_LINKS = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "manifest"}


class LoadedParts(HTMLParser):
    """Collects the addresses that a page loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag != "a" and found.get("src"):
            self.addresses.append(found["src"] or "")
        if tag == "link" and LOADING_LINKS & set((found.get("rel") or "").split()):
            self.addresses.append(found["href"] or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; building ends with 1 for a link or an anchor that leads nowhere."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.nightly
def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        loaded = LoadedParts(page.read_text(encoding="utf-8")).addresses
        assert loaded and [address for address in loaded if "//" in address] == [], page.name
    for sheet in site.rglob("*.css"):
        assert re.search(r"(@import|url\()\s*[\"']?(https?:)?//", sheet.read_text(encoding="utf-8")) is None, sheet.name


def test_the_reference_describes_what_is_public(site: Path) -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in (site / "reference").glob("*.html"))
    for name in ("inspector.Inspector.open", "result.Result", "bundle.open.Bundle", "errors.InputError"):
        assert f'id="ndp_rt.{name}"' in text, name
