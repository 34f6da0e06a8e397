"""The pages that a run leaves, in a real browser: opened from disk, nothing fetched, nothing complained of."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_run import Ran

from compress.report.comparing import write_comparison

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e '.[dev]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

_MOST_BYTES = 5_000_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tiny: Ran, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = Path(shutil.copytree(tiny.folder, tmp_path_factory.mktemp("pages") / "run"))
    _, compared = write_comparison(tiny.folder, folder)
    return {"report": folder / "report.html", "comparison": compared}


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1024, "light"), (1600, "dark")])
@pytest.mark.parametrize("name", ["report", "comparison"])
def test_a_page_fits_asks_for_nothing_and_axe_finds_nothing(
    browser: Any, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe: pip install -e '.[dev]'")
    file, complaints, asked = pages[name], [], []
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
    page.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert complaints == []
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
    assert file.stat().st_size < _MOST_BYTES
    page.close()


def test_figures_appear_where_the_keyboard_goes(browser: Any, pages: dict[str, Path]) -> None:
    page = browser.new_page(viewport={"width": 1024, "height": 900})
    page.goto(pages["report"].as_uri())
    tip = page.locator("#pareto .chart.wide .tip").first
    assert not tip.locator(".told text").first.is_visible()
    tip.focus()
    assert tip.locator(".told text").first.is_visible()
    assert "accuracy" in tip.get_attribute("aria-label")
    page.close()


def test_print_shows_one_drawing_of_each_chart(browser: Any, pages: dict[str, Path]) -> None:
    page = browser.new_page()
    page.goto(pages["report"].as_uri())
    page.emulate_media(media="print")
    assert page.locator("#pareto .chart.wide").first.is_visible()
    assert not page.locator("#pareto .chart.narrow").first.is_visible()
    page.close()
