"""The page at `/` and the report, without a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import tiny_package
from starlette.testclient import TestClient

from serve import playground
from serve.edge import Edge
from serve.engine import Engine
from serve.errors import UserError
from serve.gate import Gate
from serve.limits import Limits
from serve.models import open_engine
from serve.openapi_models import whole_document
from serve.registry import Registry
from serve.routes import Addresses, Routes
from serve.tokens import Tokens

ROOT = Path(__file__).resolve().parent.parent
REPORT = "<!doctype html><title>r</title><script>document.title = 'ran'</script>" + "x" * 200_000


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with one package and a report."""
    folder = tmp_path_factory.mktemp("playground") / "run"
    tiny_package(folder / "packages" / "tiny")
    (folder / "report.json").write_text('{"selected": "tiny"}')
    (folder / "report.html").write_text(REPORT)
    return folder


@pytest.fixture(scope="module")
def engine(run: Path) -> Iterator[Engine]:
    engine = open_engine(run / "packages" / "tiny", Limits())
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def lone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Of a package that lies in no run."""
    engine = open_engine(tiny_package(tmp_path_factory.mktemp("alone") / "package").path, Limits())
    yield engine
    engine.close()


def _client(engine: Engine, page: bool = True, token: str | None = None) -> TestClient:
    async def never(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("BentoML was asked")

    state = {"models": Registry({"tiny": engine}, "tiny"), "gate": Gate(8, 30), "secured": token is not None}
    tokens = None if token is None else Tokens([token], None)
    return TestClient(Edge(Routes(never, state, page=page), Addresses(admin=False, page=page), tokens))


def test_every_file_of_the_page_has_an_address_and_the_page_names_them(engine: Engine) -> None:
    client = _client(engine)
    assert {path.name for path in playground.FOLDER.iterdir()} == set(playground.ADDRESSES.values())
    index = client.get("/").text
    linked = set(re.findall(r'(?:href|src)="(playground/[^"]+)"', index))
    assert {f"/{path}" for path in linked} == set(playground.ADDRESSES) - {"/"}
    for path in playground.ADDRESSES:
        response = client.get(path)
        assert response.status_code == 200
        assert response.content == (playground.FOLDER / playground.ADDRESSES[path]).read_bytes()
    for path in ("/playground/", "/playground/..%2flimits.py", "/playground/x.js", "/static_content/index.css"):
        assert client.get(path).status_code == 404


def test_nothing_of_it_names_another_host_and_it_is_small() -> None:
    files = [path.read_text() for path in playground.FOLDER.iterdir()]
    for text in files:
        addresses = re.findall(r"""(?:https?:)?//[\w.-]+\.\w+|@import|url\(""", text)
        assert [found for found in addresses if "www.w3.org" not in found] == []
    assert sum(map(len, files)) < 60_000


def test_its_policy_allows_its_own_files_and_no_text_that_is_run(engine: Engine) -> None:
    client = _client(engine)
    for path in playground.ADDRESSES:
        headers = client.get(path).headers
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["require-trusted-types-for"] == "'script'"
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    index = client.get("/").text
    assert re.findall(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=", index) == []


def test_a_browser_asks_again_and_gets_it_once(engine: Engine) -> None:
    client = _client(engine)
    for path in (*playground.ADDRESSES, "/report"):
        first = client.get(path)
        assert first.headers["cache-control"] == "private, no-cache"
        again = client.get(path, headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
        assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_head_is_get_without_its_body(engine: Engine) -> None:
    client = _client(engine)
    for path in ("/", "/playground/main.js", "/report", "/models/tiny/report"):
        head, get = client.head(path), client.get(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(get.content))


def test_the_report_is_that_one_file_in_a_sandbox(engine: Engine, run: Path) -> None:
    client = _client(engine)
    for path in ("/report", "/models/tiny/report"):
        response = client.get(path)
        assert response.text == REPORT
        assert response.headers["content-type"].startswith("text/html")
        policy = response.headers["content-security-policy"]
        assert "sandbox allow-scripts" in policy
        assert "allow-same-origin" not in policy
        assert "connect-src" not in policy
        assert "default-src 'none'" in policy
    assert client.get("/model").json()["report"] is True
    for path in ("/report/", "/report/report.json", "/models/other/report", "/models/tiny/report.json", "/report.html"):
        assert client.get(path).status_code == 404
    assert client.post("/report").status_code == 405


def test_a_report_that_is_written_again_is_served_anew(lone: Engine, tmp_path: Path) -> None:
    package = tmp_path / "run" / "packages" / "one"
    package.mkdir(parents=True)
    (tmp_path / "run" / "report.json").write_text("{}")
    page = tmp_path / "run" / "report.html"
    page.write_text("old")
    found = playground.report_of(package)
    assert found is not None
    before = playground._read(found)
    page.write_text("newer")
    after = playground._read(found)
    assert before is not None
    assert after is not None
    assert (before.body, after.body) == (b"old", b"newer")
    assert before.tag != after.tag


def test_where_there_is_no_report_it_says_so(lone: Engine, tmp_path: Path) -> None:
    client = _client(lone)
    assert client.get("/model").json()["report"] is False
    response = client.get("/report")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "no_report"
    run = tmp_path / "run"
    (run / "packages" / "one").mkdir(parents=True)
    (run / "report.json").write_text("{}")
    (tmp_path / "secret").write_text("secret")
    (run / "report.html").symlink_to(tmp_path / "secret")
    assert playground.report_of(run / "packages" / "one") is None  # a link could lead anywhere


def test_with_tokens_the_page_opens_and_says_nothing_without_one(engine: Engine) -> None:
    token = "0123456789abcdef"
    client = _client(engine, token=token)
    for path in playground.ADDRESSES:
        assert client.get(path).status_code == 200
    page = "".join(client.get(path).text for path in playground.ADDRESSES)
    assert engine.model_id not in page
    for path in ("/report", "/models", "/model", "/models/tiny", "/models/tiny/report", "/playground/x"):
        assert client.get(path).status_code == 401
    assert client.get("/report", headers={"Authorization": f"Bearer {token}"}).text == REPORT


def test_off_means_that_there_is_nothing(engine: Engine) -> None:
    client = _client(engine, page=False)
    for path in (*playground.ADDRESSES, "/report", "/models/tiny/report"):
        assert client.get(path).status_code == 404, path
    assert client.get("/model").json()["report"] is False
    assert client.get("/models/tiny").status_code == 200
    paths = client.get("/openapi.json").json()["paths"]
    assert not [path for path in paths if path == "/" or "report" in path or "playground" in path]


@pytest.mark.parametrize(("text", "on"), [("", True), ("on", True), ("1", True), ("OFF", False), ("0", False)])
def test_the_switch(text: str, on: bool) -> None:
    assert playground.wanted({playground.ENV: text}) is on
    assert playground.wanted({}) is True


def test_what_is_neither_on_nor_off_is_refused() -> None:
    with pytest.raises(UserError, match="expected on or off"):
        playground.wanted({playground.ENV: "maybe"})


def test_the_document_describes_the_page_and_each_report(engine: Engine) -> None:
    paths = whole_document({"tiny": engine.describe()}, "tiny")["paths"]
    assert {*playground.ADDRESSES, "/report", "/models/tiny/report"} <= set(paths)
    assert list(paths["/playground/icon.svg"]["get"]["responses"]["200"]["content"]) == ["image/svg+xml"]
    assert "404" in paths["/report"]["get"]["responses"]
    assert "404" not in paths["/"]["get"]["responses"]


def test_the_model_says_what_its_card_says(engine: Engine) -> None:
    model = _client(engine).get("/model").json()
    assert model["size_bytes"] == sum(len(content) for content in engine._predictor.package.files.values())
    assert model["expected"] == {}


def _palette(css: Path) -> list[dict[str, str]]:
    """The colours of a style sheet, light and dark."""
    blocks = re.findall(r":root \{(.*?)\}", css.read_text(), re.DOTALL)[:2]
    return [dict(re.findall(r"--([\w-]+): (#\w+);", block)) for block in blocks]


def test_the_page_has_the_colours_of_the_report() -> None:
    pages, reports = _palette(playground.FOLDER / "page.css"), _palette(ROOT / "compress/report/report.css")
    assert len(pages) == len(reports) == 2
    for page, report in zip(pages, reports, strict=True):
        assert len(page) > 6
        assert page.items() <= report.items()
