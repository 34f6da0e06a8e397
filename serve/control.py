"""How the models of a server may be changed while it runs: by admin requests, by a folder that is watched, or not."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serve.errors import UserError, said

TOKEN, TOKEN_FILE = "LIMBECK_ADMIN_TOKEN", "LIMBECK_ADMIN_TOKEN_FILE"
MODELS_DIR, WATCH = "LIMBECK_MODELS_DIR", "LIMBECK_WATCH"
_SHORTEST = 16
_MAKE_ONE = "make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"


@dataclass(frozen=True)
class Control:
    """`token_hash` is the sha256 of the bearer token of admin requests; without one there are none."""

    token_hash: bytes | None = None
    models_dir: Path | None = None  # the only folder from which models are taken while the server runs
    watch: bool = False

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Control:
        """What the environment asks for. Raises UserError for what contradicts itself."""
        token = _read_token(environ)
        folder = Path(environ[MODELS_DIR]).resolve() if environ.get(MODELS_DIR) else None
        watch = bool(environ.get(WATCH))
        if folder is not None and not folder.is_dir():
            raise UserError(f"{MODELS_DIR} is {folder}, which is no folder", "name a folder of packages or runs")
        if watch and folder is None:
            raise UserError(f"{WATCH} is set, but no folder to watch", f"name one as {MODELS_DIR} (--models)")
        if folder is not None and not watch and token is None:
            hint = f"set {TOKEN} for admin requests, or {WATCH}=1 (--watch) to have the folder watched"
            raise UserError(f"{MODELS_DIR} is set, but nothing would load a model from it", hint)
        return cls(None if token is None else _hash(token), folder, watch)

    @property
    def changeable(self) -> bool:
        """Whether anything can change what is served."""
        return self.watch or self.token_hash is not None

    def admits(self, authorization: bytes) -> bool:
        """Whether an Authorization header carries the token. Takes as long whatever the header is."""
        scheme, _, token = authorization.partition(b" ")
        known = self.token_hash if self.token_hash is not None else bytes(32)
        same = hmac.compare_digest(hashlib.sha256(token.strip()).digest(), known)
        return same and scheme.lower() == b"bearer" and self.token_hash is not None


def read_token(environ: Mapping[str, str] = os.environ) -> str:
    """The admin token, for who sends it. Raises UserError where there is none."""
    token = _read_token(environ)
    if token is None:
        raise UserError("there is no admin token", f"set {TOKEN}, or {TOKEN_FILE}, as the server has it")
    return token


def _read_token(environ: Mapping[str, str]) -> str | None:
    token, file = environ.get(TOKEN), environ.get(TOKEN_FILE)
    if token and file:
        raise UserError(f"{TOKEN} and {TOKEN_FILE} are both set", "set one of them")
    if file:
        try:
            token = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            # The error of a decoder quotes what it read, which may be a token.
            why = said(error) if isinstance(error, OSError) else "it is not UTF-8 text"
            raise UserError(f"{TOKEN_FILE} cannot be read: {why} ({file})", _MAKE_ONE) from None
    elif not token:
        return None
    if len(token) < _SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        source = TOKEN_FILE if file else TOKEN
        problem = (
            f"has {len(token)} characters" if len(token) < _SHORTEST else "has a space or a character beyond ASCII"
        )
        raise UserError(f"the token of {source} {problem}, expected {_SHORTEST} printable ones or more", _MAKE_ONE)
    return token


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
