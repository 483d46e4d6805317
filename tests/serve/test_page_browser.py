"""The page in a browser: what it shows, by keyboard and for screen readers, and that nothing else is loaded or run."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ndp_rt.bundle import open_bundle
from ndp_rt.editing import set_threshold
from ndp_rt.program.manifest import ThresholdSpec
from tests.serve.conftest import Served, describe_image, make_image

sync_api = pytest.importorskip("playwright.sync_api", reason="drives the browser: pip install playwright")
NAMES = ("chromium", "chromium-browser", "google-chrome")
PATH = next((path for path in map(shutil.which, NAMES) if path), None)
pytestmark = pytest.mark.skipif(PATH is None, reason="needs the browser Chromium: apt install chromium")
HOSTILE = "<b>bold"
PATIENCE_MS = 120_000
expect = sync_api.expect
IMAGE = make_image(0, 40, 50)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        expect.set_options(timeout=PATIENCE_MS)
        found = playwright.chromium.launch(executable_path=PATH, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def watched(bundle_path: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with a model whose every image is a defect, and one with a hostile name."""
    own = shutil.copytree(bundle_path, tmp_path_factory.mktemp("watched") / "tiny.ndp")
    set_threshold(open_bundle(own), "fp32", ThresholdSpec(value=0.01, source="manual"))
    with Served([str(own), f"{HOSTILE}={bundle_path}"], cache) as one:
        yield one
        assert one.stop() == 0


class Opened:
    """A page, and what went wrong on it."""

    def __init__(self, browser: Any, served: Served, **options: Any) -> None:
        self.page = browser.new_page(**options)
        self.page.set_default_timeout(PATIENCE_MS)
        self.errors: list[str] = []
        self.addresses: set[str] = set()
        self.page.on("console", lambda one: self.errors.append(one.text) if one.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda one: self.addresses.add(one.url))
        self.page.goto(f"http://{served.address}/")

    def __enter__(self) -> Any:
        return self.page

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.page.close()


def send_until_drawn(page: Any, served: Served) -> Any:
    """Send images until one is on the page with its map, and return its card."""
    cards = page.locator(".card:has(svg)")
    while not cards.count():
        assert served.infer(describe_image(IMAGE))[0] == 200
        page.wait_for_timeout(50)  # lets the page go on
    return cards.first


@pytest.mark.nightly(but=1)
@pytest.mark.parametrize("size", [(1280, 900), (390, 844)])
def test_images_are_shown_as_they_come_and_opened_by_keyboard(
    browser: Any, watched: Served, size: tuple[int, int]
) -> None:
    opened = Opened(browser, watched, viewport={"width": size[0], "height": size[1]})
    with opened as page:
        expect(page.locator("#state-words")).to_have_text("live")
        card = send_until_drawn(page, watched)
        expect(card).to_have_accessible_name(re.compile(r"Image \d+, defect, score 0\.\d{4}"))
        expect(page.get_by_role("img", name="scores of the last")).to_be_visible()
        expect(page.locator("#share")).to_have_text("100.0 %")
        page.locator("#pause").click()  # so that the card stays the first
        expect(page.locator("#state-words")).to_have_text("paused")
        card.focus()
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        expect(dialog).to_be_visible()
        expect(dialog.get_by_role("heading", level=2)).to_contain_text("DEFECT")
        expect(dialog.get_by_role("table").get_by_role("row")).not_to_have_count(1)
        expect(dialog.locator("#nearest")).to_contain_text("keeps no good image")
        expect(dialog.locator("#large polygon").first).to_be_attached()
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        expect(card).to_be_focused()
        page.get_by_text("Scores as a table").click()
        expect(page.locator("#score-table tbody tr").first.locator("td").nth(4)).to_have_text("defect")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert opened.errors == []
    assert all(one.startswith((f"http://{watched.address}/", "blob:", "data:")) for one in opened.addresses)


def test_names_are_texts_and_models_are_chosen(browser: Any, watched: Served) -> None:
    with Opened(browser, watched) as page:
        choice = page.get_by_label("Model")
        expect(choice.locator("option")).to_have_count(2)
        choice.select_option(index=1)
        expect(page).to_have_title(f"{HOSTILE}: inspections")
        expect(choice.locator("option").nth(1)).to_have_text(HOSTILE)
        assert page.locator("b").count() == 0


@pytest.mark.nightly
def test_the_page_goes_on_after_the_service_was_started_anew(browser: Any, bundle_path: Path, cache: Path) -> None:
    with Served([str(bundle_path)], cache) as first, Opened(browser, first) as page:
        assert first.infer(describe_image(np.stack([IMAGE] * 3)))[0] == 200
        expect(page.locator("#count")).to_have_text("3")
        assert first.stop() == 0
        expect(page.locator("#state-words")).to_have_text("no connection; trying again")
        with Served([str(bundle_path)], cache) as second:  # at another port, which the browser is led to

            def lead(route: Any) -> None:
                status, body = second.ask("GET", route.request.url.removeprefix(f"http://{first.address}"))
                route.fulfill(status=status, body=body)

            page.route("**/page/**", lead)
            assert second.infer(describe_image(IMAGE))[0] == 200
            expect(page.locator("#count")).to_have_text("1")
            expect(page.locator("#state-words")).to_have_text("live")
            page.unroute("**/page/**")
            assert second.stop() == 0


@pytest.mark.nightly
def test_a_browser_brings_the_token(browser: Any, bundle_path: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a secret\n")
    with Served([str(bundle_path), "--token-file", str(tmp_path / "token")], cache) as one:
        with Opened(browser, one) as page:
            expect(page.locator("#content")).to_be_hidden()
            field = page.get_by_label("Token", exact=True)
            expect(field).to_be_focused()
            field.fill("another")
            page.keyboard.press("Enter")
            expect(page.get_by_role("alert")).to_have_text("That is not the service's token.")
            field.fill("a secret\u201d")  # which no header carries
            page.keyboard.press("Enter")
            expect(field).to_have_value("")
            expect(page.get_by_role("alert")).to_have_text("That is not the service's token.")
            assert page.evaluate("sessionStorage.length") == 0
            field.fill("a secret")
            page.get_by_role("button", name="Show the page").click()
            expect(page.locator("#state-words")).to_have_text("live")
            page.reload()
            expect(page.locator("#state-words")).to_have_text("live")
            page.evaluate("sessionStorage.setItem('ndp-rt token', '\u201d')")  # as an older page kept it
            page.reload()
            page.get_by_role("button", name="Forget token").click()
            field.fill("a secret")
            page.keyboard.press("Enter")
            expect(page.locator("#state-words")).to_have_text("live")
            page.get_by_role("button", name="Forget token").click()
            expect(page.locator("#content")).to_be_hidden()
        assert one.stop() == 0


@pytest.mark.nightly
def test_it_is_dark_where_the_browser_is(browser: Any, watched: Served) -> None:
    brightness = []
    for scheme in ("dark", "light"):
        with Opened(browser, watched, color_scheme=scheme) as page:
            colours = [
                page.evaluate(f"getComputedStyle(document.body).{name}").strip("rgb()").split(", ")
                for name in ("color", "backgroundColor")
            ]
            brightness.append([sum(map(int, colour)) for colour in colours])
    assert brightness[0][0] > 600 > 150 > brightness[0][1] and brightness[1][1] > 600 > 150 > brightness[1][0]
