"""Bearer tokens: who may ask the server anything but whether it lives.

    LIMBECK_TOKENS="..."         one token or several, with commas or blanks between them
    LIMBECK_TOKENS_FILE=FILE     one on each line; blank lines and lines that begin with # say nothing

With neither, nobody is asked for one. With one of them, every address needs one but the health checks, which a load
balancer or Kubernetes asks without, the page at `/`, which holds nothing but a field for the token, and admin requests,
which have a token of their own. The file is read again when it changes. Only hashes are kept, and no token is ever
logged.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from serve.errors import RequestError, UserError
from serve.logs import log
from serve.playground import ADDRESSES as PAGE

ENV, ENV_FILE = "LIMBECK_TOKENS", "LIMBECK_TOKENS_FILE"
HEALTH = ("/livez", "/readyz", "/healthz")
ADMIN = "/admin/"
_SHORTEST, _LONGEST, _MOST = 16, 512, 100
_MAX_FILE_BYTES = 64 * 1024
_FORM = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1
_LOOK_S = 1.0  # between two looks at the file
_MAKE_ONE = "make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"
_CHALLENGE = b'Bearer realm="limbeck"'

OF_CLIENT = "LIMBECK_TOKEN"  # what our own clients send

Headers = Iterable[tuple[bytes, bytes]]


class Tokens:
    """The tokens that open this server."""

    def __init__(self, fixed: Iterable[str], file: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        """`fixed` stay, those in `file` are read again when it changes. Raises UserError for what is no safe token."""
        self._fixed = list(fixed)
        self._file = file
        self._clock = clock
        self._looked = clock()
        self._state = None if file is None else _state(file)
        self._hashes = _hashes(self._fixed + ([] if file is None else _read(file)))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Tokens | None:
        """What the environment names, or None. Set and empty is refused: a mistake there would open the server."""
        if ENV not in environ and ENV_FILE not in environ:
            return None
        for name in (ENV, ENV_FILE):
            if not environ.get(name, "x").strip():
                raise UserError(f"{name} is set and empty", f"unset it to serve without tokens, or {_MAKE_ONE}")
        fixed = re.split(r"[\s,]+", environ.get(ENV, "").strip(" \t\r\n,"))
        return cls(filter(None, fixed), Path(environ[ENV_FILE]) if ENV_FILE in environ else None)

    def remarks(self) -> list[str]:
        """What whoever starts the server should know."""
        if self._file is None or os.name != "posix" or not self._file.stat().st_mode & 0o077:
            return []
        return [f"{self._file} can be read by other users of this machine; chmod 600 it if they should not"]

    def refusal(self, path: str, headers: Headers) -> RequestError | None:
        """Why a request to `path` with these headers is not let in: a 401, or None."""
        if path in HEALTH or path in PAGE or path.startswith(ADMIN):
            return None
        self._look()
        given = [value for name, value in headers if name == b"authorization"]
        if not given:
            return _unauthorized("this server asks for a token", _CHALLENGE)
        scheme, _, token = given[0].partition(b" ")
        if len(given) == 1 and scheme.lower() == b"bearer" and self._known(token.strip()):
            return None
        return _unauthorized("the token is not one of this server's", _CHALLENGE + b', error="invalid_token"')

    def _known(self, token: bytes) -> bool:
        """Takes as long whichever token it is, and whether or not it is one: hashes of one length, all compared."""
        hashed = hashlib.sha256(token[: _LONGEST + 1]).digest()
        found = False
        for known in self._hashes:
            found |= hmac.compare_digest(hashed, known)
        return found

    def _look(self) -> None:
        """Take the file as it is now, if it has changed. One that cannot be used changes nothing."""
        now = self._clock()
        if self._file is None or now - self._looked < _LOOK_S:
            return
        self._looked = now
        try:
            state = _state(self._file)
        except UserError:  # it is gone, which reading it says
            state = None
        if state == self._state:
            return
        self._state = state
        try:
            self._hashes = _hashes(self._fixed + _read(self._file))
        except UserError as error:
            log.warning("the tokens stay as they were: %s", error.message)
        else:
            log.info("%s was read again: %d tokens", self._file, len(self._hashes))


def authorization(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The header of a client that has LIMBECK_TOKEN."""
    return {"Authorization": f"Bearer {environ[OF_CLIENT]}"} if environ.get(OF_CLIENT) else {}


def exposure(host: str, tokens: Tokens | None) -> list[str]:
    """What whoever serves on `host` should know."""
    if tokens is not None or host == "localhost":
        return []
    try:
        if ipaddress.ip_address(host).is_loopback:
            return []
    except ValueError:  # a name, which may be anywhere
        pass
    return [f"whoever reaches {host} can ask this server: it has no tokens ({ENV}, {ENV_FILE})"]


def _unauthorized(message: str, challenge: bytes) -> RequestError:
    hint = "send it as `Authorization: Bearer TOKEN`"
    return RequestError(401, "unauthorized", message, hint, [(b"www-authenticate", challenge)])


def _state(file: Path) -> tuple[int, int, int]:
    """What changes when a file does, also when another takes its place, as Kubernetes replaces secrets."""
    try:
        status = file.stat()
    except OSError as error:
        raise _unreadable(file, error) from None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(file: Path) -> list[str]:
    try:
        with file.open("rb") as opened:
            content = opened.read(_MAX_FILE_BYTES + 1)
        lines = [line.strip() for line in content.decode("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from None
    if len(content) > _MAX_FILE_BYTES:
        raise UserError(f"{file} is over {_MAX_FILE_BYTES} bytes", "it should hold a token on each line, and no more")
    if not (tokens := [line for line in lines if line and not line.startswith("#")]):
        raise UserError(f"{file} names no token", _MAKE_ONE)
    return tokens


def _unreadable(file: Path, error: OSError | ValueError) -> UserError:
    # The error of a decoder quotes what it read, which may be a token.
    why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
    return UserError(f"the tokens in {file} cannot be read: {why}", f"{ENV_FILE} names a file of tokens, one on a line")


def _hashes(tokens: list[str]) -> list[bytes]:
    """Hashes of tokens that are safe to use. An error counts them, and quotes none."""
    if not tokens:
        raise UserError(f"{ENV} names no token", _MAKE_ONE)
    for at, token in enumerate(tokens, 1):
        if not _SHORTEST <= len(token) <= _LONGEST:
            expected = f"expected {_SHORTEST} to {_LONGEST}"
            raise UserError(f"token {at} of {len(tokens)} has {len(token)} characters, {expected}", _MAKE_ONE)
        if not _FORM.fullmatch(token):
            what = "has a character that no bearer token has"
            raise UserError(f"token {at} of {len(tokens)} {what}", f"expected A-Z a-z 0-9 . _ ~ + / -; {_MAKE_ONE}")
        if token in tokens[: at - 1]:
            raise UserError(f"token {at} of {len(tokens)} is there twice", "name each token once")
    if len(tokens) > _MOST:
        raise UserError(f"there are {len(tokens)} tokens", f"at most {_MOST} are taken, since all are compared")
    return [hashlib.sha256(token.encode("ascii")).digest() for token in tokens]
