"""The parts of a multipart/form-data body that is already in memory: nothing is spooled to disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serve.errors import RequestError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks


def read_parts(boundary: bytes, body: bytes, max_parts: int) -> list[tuple[str, bytes]]:
    """Names and contents of the parts, in order, whether or not they carry a file name.

    Raises RequestError: 400 for what is not multipart/form-data, 413 beyond `max_parts`.
    """
    collector = _Collector(max_parts)
    try:
        if not boundary:
            raise FormParserError("the Content-Type names no boundary")
        parser = MultipartParser(boundary, collector.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise RequestError(
            400, "bad_multipart", f"the body is not multipart/form-data: {error}", "let an HTTP library build it"
        ) from None
    if not collector.ended:
        raise RequestError(400, "bad_multipart", "the multipart body breaks off", "send it whole, to its last boundary")
    return [(part.name, bytes(part.content)) for part in collector.parts]


@dataclass
class _Part:
    name: str = ""
    content: bytearray = field(default_factory=bytearray)


class _Collector:
    """Gathers what the parser announces piece by piece."""

    def __init__(self, max_parts: int) -> None:
        self.parts: list[_Part] = []
        self.ended = False
        self._max_parts = max_parts
        self._header, self._value = bytearray(), bytearray()

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin_part,
            "on_header_begin": self._begin_header,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": lambda data, start, end: self.parts[-1].content.extend(data[start:end]),
            "on_end": self._end,
        }

    def _begin_part(self) -> None:
        if len(self.parts) == self._max_parts:
            raise RequestError(
                413, "too_many_inputs", f"there are over {self._max_parts} parts", "send fewer files in one request"
            )
        self.parts.append(_Part())

    def _begin_header(self) -> None:
        self._header, self._value = bytearray(), bytearray()

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            self.parts[-1].name = options.get(b"name", b"").decode("utf-8", "replace")

    def _end_headers(self) -> None:
        if not self.parts[-1].name:
            raise FormParserError("a part has no name")

    def _end(self) -> None:
        self.ended = True
