from __future__ import annotations

import logging
import secrets
from pathlib import Path

import pytest

from serve.errors import RequestError, UserError
from serve.tokens import Tokens

ONE, TWO, OTHER = "one-0123456789abcdef", "two_0123456789ABCDEF==", "another-0123456789abc"


def _refused(tokens: Tokens, *authorizations: str, path: str = "/classify") -> RequestError | None:
    headers = [(b"host", b"x"), *((b"authorization", value.encode("latin-1")) for value in authorizations)]
    return tokens.refusal(path, headers)


def _admits(tokens: Tokens, token: str) -> bool:
    return _refused(tokens, f"Bearer {token}") is None


def test_without_either_variable_nobody_is_asked() -> None:
    assert Tokens.from_env({}) is None


@pytest.mark.parametrize("separator", [",", " ", ", ", "\n", " , "])
def test_several_tokens_open_the_same_server(separator: str) -> None:
    tokens = Tokens.from_env({"LIMBECK_TOKENS": f"{ONE}{separator}{TWO}{separator}"})
    assert tokens is not None
    assert _admits(tokens, ONE)
    assert _admits(tokens, TWO)
    assert not _admits(tokens, OTHER)


def test_a_file_of_tokens_has_comments_and_blank_lines(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# of the web shop\n{ONE}\n\n   # of the others\n  {TWO}  \r\n")
    tokens = Tokens.from_env({"LIMBECK_TOKENS_FILE": str(file), "LIMBECK_TOKENS": OTHER})
    assert tokens is not None
    assert all(_admits(tokens, token) for token in (ONE, TWO, OTHER))
    assert not _admits(tokens, "# of the web shop")


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        ONE,
        f"Basic {ONE}",
        f"Bearer {ONE[:-1]}",
        f"Bearer {ONE}x",
        f"Bearer {ONE.upper()}",
        f"Bearer {ONE}, {TWO}",
        f"Bearer {ONE} {TWO}",
        f"Bearer \xff{ONE}",
        "Bearer " + "x" * 60_000,
    ],
)
def test_what_is_not_a_token_is_a_401_with_the_challenge(authorization: str) -> None:
    refusal = _refused(Tokens([ONE, TWO], None), authorization)
    assert refusal is not None
    assert (refusal.status, refusal.code) == (401, "unauthorized")
    assert dict(refusal.headers)[b"www-authenticate"] == b'Bearer realm="limbeck", error="invalid_token"'
    assert ONE not in refusal.message + refusal.hint


def test_no_token_at_all_is_told_apart_from_a_wrong_one() -> None:
    refusal = _refused(Tokens([ONE], None))
    assert refusal is not None
    assert dict(refusal.headers)[b"www-authenticate"] == b'Bearer realm="limbeck"'


def test_two_headers_are_none() -> None:
    assert _refused(Tokens([ONE], None), f"Bearer {ONE}", f"Bearer {OTHER}") is not None
    assert _refused(Tokens([ONE], None), f"bearer   {ONE} ") is None  # the scheme in any case


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz"])
def test_health_needs_none(path: str) -> None:
    assert _refused(Tokens([ONE], None), path=path) is None


@pytest.mark.parametrize(
    "path", ["/metrics", "/report", "/model", "/openapi.json", "/nothing", "/livez/", "//livez", "/admin"]
)
def test_everything_else_needs_one(path: str) -> None:
    assert _refused(Tokens([ONE], None), path=path) is not None


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("", "empty"),
        ("  ", "empty"),
        (",", "no token"),
        ("short", "5 characters"),
        (ONE + ",short", "token 2 of 2"),
        ("x" * 513, "513 characters"),
        (f"{ONE},{TWO},{ONE}", "token 3 of 3 is there twice"),
        ("é" * 20, "no bearer token"),
        ('"' + ONE + '"', "no bearer token"),
        (",".join(secrets.token_urlsafe(24) for _ in range(101)), "101 tokens"),
    ],
)
def test_what_is_no_safe_token_is_refused_at_the_start_and_not_quoted(value: str, what: str) -> None:
    with pytest.raises(UserError, match=what) as caught:
        Tokens.from_env({"LIMBECK_TOKENS": value})
    assert caught.value.hint
    assert all(token not in caught.value.message + caught.value.hint for token in (ONE, TWO, "short"))


@pytest.mark.parametrize("content", [b"", b"# none\n\n", b"\xff\xfe" + ONE.encode(), b"x" * 70_000])
def test_a_file_without_tokens_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "tokens"
    file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        Tokens.from_env({"LIMBECK_TOKENS_FILE": str(file)})
    assert ONE not in caught.value.message + caught.value.hint


def test_a_file_that_is_not_there_or_a_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            Tokens.from_env({"LIMBECK_TOKENS_FILE": str(path)})


def test_a_file_that_others_can_read_is_remarked_on(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(ONE)
    for mode, remarks in ((0o600, 0), (0o400, 0), (0o640, 1), (0o604, 1)):
        file.chmod(mode)
        assert len(Tokens([], file).remarks()) == remarks, oct(mode)
    assert Tokens([ONE], None).remarks() == []


def test_a_changed_file_is_read_again_and_a_broken_one_is_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file, now = tmp_path / "tokens", [0.0]
    file.write_text(ONE)
    tokens = Tokens([OTHER], file, clock=lambda: now[0])

    def later(content: str | None) -> None:
        now[0] += 1.5
        new = tmp_path / "new"
        if content is None:
            file.unlink()
        else:
            new.write_text(content)
            new.replace(file)

    with caplog.at_level(logging.INFO, "bentoml.limbeck"):
        later(f"{ONE}\n{TWO}")
        assert _admits(tokens, TWO)
        later(TWO)
        assert not _admits(tokens, ONE)
        for broken in ("", "short", f"{ONE}\n{ONE}", None, "# nobody"):
            later(broken)
            assert _admits(tokens, TWO), broken
            assert not _admits(tokens, ONE), broken
        later(ONE)
        assert _admits(tokens, ONE)
        assert not _admits(tokens, TWO)
        assert _admits(tokens, OTHER)
    assert caplog.text.count("stay as they were") == 5
    assert not any(token in caplog.text for token in (ONE, TWO, OTHER))


def test_the_file_is_looked_at_once_a_second_at_most(tmp_path: Path) -> None:
    file, now = tmp_path / "tokens", [0.0]
    file.write_text(ONE)
    tokens = Tokens([], file, clock=lambda: now[0])
    file.write_text(TWO)
    assert _admits(tokens, ONE)
    now[0] = 1.1
    assert _admits(tokens, TWO)


def test_every_token_is_compared_whichever_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    import serve.tokens as module

    compared: list[int] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(len(one))
        return one == other

    tokens = Tokens([ONE, TWO, OTHER], None)
    monkeypatch.setattr(module.hmac, "compare_digest", compare)
    for sent in (ONE, OTHER, "x", "x" * 5000):
        compared.clear()
        _admits(tokens, sent)
        assert compared == [32, 32, 32]  # hashes of one length, to the last
