"""The page at `/` in a real browser: Chromium, driven by Playwright, before our layers of the server."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from helpers import LABELS, colored, tiny_package, tiny_text_package

from serve.edge import Edge
from serve.engine import Engine
from serve.gate import Gate
from serve.limits import Limits
from serve.models import open_engine
from serve.registry import Registry
from serve.routes import Addresses, Routes
from serve.tokens import Tokens

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e '.[dev]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

TOKEN = "0123456789abcdef0123"
_PATIENCE_MS = 10_000  # for anything that a test waits for
_HOSTILE = "<img src=x onerror=document.title='run'>"  # a label that must stay text
_METRICS = {
    "split": "test",
    "n": 500,
    "accuracy": 0.875,
    "accuracy_ci95": [0.84, 0.9],
    "ece": 0.02,
    "accuracy_drop_points": 1.2,
    "accuracy_drop_points_ci95": [0.3, 2.1],
    "verdict": "accepted",
}


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Engine]]:
    """Of a run: a model whose card is complete, one that abstains from nearly everything, and one for texts."""
    folder = tmp_path_factory.mktemp("browser") / "run"
    package = tiny_package(folder / "packages" / "tiny")
    card = {"name": "tiny", "metrics": _METRICS, "expected": {"labels": dict.fromkeys(LABELS, 0.25)}}
    (package.path / "card.json").write_text(json.dumps(card))
    labels = ("dark", _HOSTILE, "green", "blue")
    tiny_package(folder / "packages" / "unsure", abstain_below=0.999999, labels=labels)
    tiny_text_package(folder / "packages" / "words")
    (folder / "report.json").write_text('{"selected": "tiny"}')
    (folder / "report.html").write_text("<!doctype html><title>The report</title><h1>A report</h1>")
    engines = {path.name: open_engine(path, Limits()) for path in (folder / "packages").iterdir()}
    yield engines
    for engine in engines.values():
        engine.close()


@contextlib.contextmanager
def _serving(engines: dict[str, Engine], tokens: Tokens | None = None) -> Iterator[str]:
    """The address of a server beside this thread."""

    async def bentoml(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("BentoML was asked")

    routes = Routes(bentoml, {"models": Registry(engines, "tiny"), "gate": Gate(8, 30)})
    app = Edge(routes, Addresses(admin=False), tokens)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def url(engines: dict[str, Engine]) -> Iterator[str]:
    with _serving(engines) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"], timeout=30_000
        )
        yield browser
        browser.close()


def _open(browser: Any, url: str, **options: Any) -> Any:
    """A page at `url`, whose every complaint and request elsewhere is kept."""
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(_PATIENCE_MS)
    page.complaints = []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda request: _note_outside(page, request.url, url))
    page.goto(url)
    return page


def _note_outside(page: Any, asked: str, url: str) -> None:
    if not asked.startswith((url, "blob:", "data:")):
        page.complaints.append(f"asked {asked}")


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Any]:
    page = _open(browser, url)
    page.wait_for_selector("#work:not([hidden])")
    yield page
    assert page.complaints == []
    page.context.close()


def _image(color: tuple[int, int, int] = (255, 0, 0), name: str = "red.png") -> dict[str, Any]:
    return {"name": name, "mimeType": "image/png", "buffer": colored(*color)}


def _expect(page: Any, selector: str) -> Any:
    return sync_api.expect(page.locator(selector))


# What an event of dropping or pasting carries cannot be given from outside: it is made inside the page.
_CARRY = """([kind, encoded]) => {
    const bytes = Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
    const carried = new DataTransfer();
    carried.items.add(new File([bytes], "given.png", { type: "image/png" }));
    const options = { bubbles: true, cancelable: true };
    const event = kind === "paste"
        ? new ClipboardEvent(kind, { ...options, clipboardData: carried })
        : new DragEvent(kind, { ...options, dataTransfer: carried });
    document.querySelector("main").dispatchEvent(event);
    return document.body.className;
}"""


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_an_image_dropped_or_pasted_anywhere_is_classified(page: Any, how: str) -> None:
    encoded = base64.b64encode(colored(255, 0, 0)).decode()
    if how == "drop":
        assert page.evaluate(_CARRY, ["dragenter", encoded]) == "dragging"
    assert page.evaluate(_CARRY, [how, encoded]) == ""
    _expect(page, ".verdict .label").to_have_text("red")
    _expect(page, ".bars li").to_have_count(4)  # three labels and the other one
    _expect(page, ".timing dt").to_have_count(5)
    assert page.locator(".preview").evaluate("image => image.naturalWidth") == 8
    assert "red" in page.locator("#status").inner_text()


def test_the_number_of_labels_asks_again_and_the_card_is_told_in_words(page: Any) -> None:
    page.set_input_files("#image", _image())
    _expect(page, ".verdict .label").to_have_text("red")
    page.fill("#top-k", "1")
    page.keyboard.press("Tab")
    _expect(page, ".bars li").to_have_count(2)
    _expect(page, ".bars .rest .name").to_have_text("the other 3 labels")
    card = page.locator(".card").inner_text().replace("\u00a0", " ")
    for words in ("87.5 % of 500 test items are right", "84.0 to 90.0", "1.20 points fewer right", "accepted", "8 × 8"):
        assert words in card, words
    assert "red 25.0 %" in card
    assert "null" not in card
    page.click("text=The whole report")
    _expect(page, "h1").to_have_text("A report")


def test_a_text_is_classified_by_keyboard_alone(page: Any) -> None:
    page.select_option("#first", "words")
    _expect(page, "#text").to_have_count(1)
    page.focus("#text")
    page.keyboard.type("a great film, and " * 10)
    page.keyboard.press("Control+Enter")
    _expect(page, ".verdict").to_have_count(1)
    _expect(page, ".note").to_contain_text("longer than the 16 tokens")
    _expect(page, "#image").to_have_count(0)


def test_two_models_answer_the_same_image_side_by_side(page: Any) -> None:
    page.set_input_files("#image", _image())
    page.select_option("#second", "unsure")
    _expect(page, ".verdict .label").to_have_text(["red", _HOSTILE])
    _expect(page, ".panel:nth-child(2) .doubt").to_contain_text("Below the promised precision")
    _expect(page, ".panel:nth-child(1) .doubt").to_have_count(0)
    left, right = (page.locator(".panel").nth(at).bounding_box() for at in (0, 1))
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] < right["x"]
    assert page.title() == "tiny and tiny · Limbeck"


def test_an_image_model_and_a_text_model_each_have_their_input(page: Any) -> None:
    page.select_option("#second", "words")
    page.fill("#text", "bad")
    page.click("text=Classify")
    _expect(page, ".panel:nth-child(2) .verdict").to_have_count(1)
    _expect(page, ".panel:nth-child(1) .empty").to_have_count(1)
    page.set_input_files("#image", _image())
    _expect(page, ".verdict").to_have_count(2)


def test_what_cannot_be_read_is_said_with_a_hint(browser: Any, url: str) -> None:
    page = _open(browser, url)
    page.set_input_files("#image", {"name": "bad.png", "mimeType": "image/png", "buffer": b"nonsense"})
    _expect(page, "[role=alert] .message").to_contain_text("image")
    _expect(page, "[role=alert] .hint").to_contain_text("PNG")
    _expect(page, ".verdict").to_have_count(0)
    page.set_input_files("#image", _image())
    _expect(page, ".verdict .label").to_have_text("red")
    _expect(page, "[role=alert] .message").to_have_count(0)
    page.set_input_files("#image", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"text"})
    _expect(page, "[role=alert] .message").to_have_text("notes.txt is no image")
    assert [text for text in page.complaints if "422" not in text] == []  # Chromium itself notes each 4xx
    page.context.close()


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1024, "light"), (1600, "dark")])
def test_it_fits_and_axe_finds_nothing(browser: Any, url: str, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe: pip install -e '.[dev]'")
    phone = {"is_mobile": True, "has_touch": True} if width < 500 else {}
    look = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme, "reduced_motion": "reduce"}
    page = _open(browser, url, bypass_csp=True, **look, **phone)  # axe is put into the page
    page.select_option("#second", "words")
    page.set_input_files("#image", _image())
    page.fill("#text", "good")
    page.click("text=Classify")
    _expect(page, ".verdict").to_have_count(2)
    assert page.evaluate("() => document.documentElement.scrollWidth") == width
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("() => document.getAnimations().length") == 0
    page.context.close()


def test_a_server_with_tokens_lets_in_who_has_one(browser: Any, engines: dict[str, Engine]) -> None:
    with _serving(engines, Tokens([TOKEN], None)) as url:
        page = _open(browser, url)
        _expect(page, "#token").to_be_focused()
        _expect(page, "#work").to_be_hidden()
        page.keyboard.type("another-token-0123")
        page.keyboard.press("Enter")
        _expect(page, "#trouble .message").to_contain_text("not one of this server's")
        page.keyboard.type(TOKEN)
        page.keyboard.press("Enter")
        _expect(page, "#ask").to_be_focused()
        page.set_input_files("#image", _image())
        _expect(page, ".verdict .label").to_have_text("red")
        _expect(page, "#door").to_be_hidden()
        _expect(page, "#program").to_be_hidden()
        _expect(page, "#trouble .message").to_have_count(0)
        kept = "() => JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])"
        assert TOKEN not in page.evaluate(kept)
        with page.expect_download() as download:
            page.click("text=Save the whole report")
        assert "A report" in Path(download.value.path()).read_text()
        page.context.close()
