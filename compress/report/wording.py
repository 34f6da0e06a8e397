"""Numbers and names as a reader meets them. What is missing or not finite becomes "n/a", never "nan"."""

from __future__ import annotations

import math
import re
from datetime import datetime

MISSING = "n/a"
NBSP = "\N{NO-BREAK SPACE}"
_MINUS = "\N{MINUS SIGN}"
# What neither XML 1.0, YAML nor a terminal should be handed: control characters, odd line ends, the marks that reorder
# the text around them, lone surrogates and non-characters.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)


def clean(text: str) -> str:
    """`text` with every character that no page may carry replaced by U+FFFD."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def short(text: str, limit: int) -> str:
    """`text` in one line of at most `limit` characters, the middle left out where it is longer."""
    text = " ".join(clean(text).split())
    if len(text) <= limit:
        return text
    tail = limit // 3
    return f"{text[: limit - tail - 1]}…{text[len(text) - tail :]}"


def plural(count: int, noun: str) -> str:
    """`3 errors`, `1 error`."""
    return f"{whole(count)}{NBSP}{noun}{'' if count == 1 else 's'}"


def sentence(words: str) -> str:
    """`words` with a capital first letter and a full stop."""
    words = words.strip()
    return capital(words) + ("" if words.endswith((".", "!", "?")) else ".")


def capital(words: str) -> str:
    """`words` with a capital first letter."""
    return words[:1].upper() + words[1:]


def fixed(value: float | None, digits: int = 2) -> str:
    """`value` with `digits` decimals, a true minus sign and a comma at the thousands."""
    if value is None or not math.isfinite(value):
        return MISSING
    rounded = round(value, digits) + 0.0  # + 0.0 turns -0.0 into 0.0
    return f"{rounded:,.{digits}f}".replace("-", _MINUS)


def signed(value: float | None, digits: int = 2) -> str:
    """Like `fixed`, with a plus sign before what is above zero."""
    text = fixed(value, digits)
    return f"+{text}" if value is not None and math.isfinite(value) and round(value, digits) > 0 else text


def significant(value: float | None, digits: int = 3) -> str:
    """`value` with `digits` significant digits, never in exponent form: 0.673, 5.21, 12.3, 1,234."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")  # first, so that 9.996 is counted as 10.0
    return fixed(rounded, max(0, digits - 1 - math.floor(math.log10(abs(rounded)))))


def whole(value: int | float | None) -> str:
    """A count: 1,821."""
    return fixed(value, 0)


def percent(rate: float | None, digits: int = 2, unit: bool = True) -> str:
    """A rate of 0..1 in percent."""
    text = fixed(None if rate is None else 100 * rate, digits)
    return text if text == MISSING or not unit else f"{text}{NBSP}%"


def percentage(value: float | None) -> str:
    """What is already in percent, with the unit and two decimals at most: `87 %`, `86.75 %`."""
    text = fixed(value)
    return text if text == MISSING else f"{text.removesuffix('.00')}{NBSP}%"


def interval(low: float, high: float, digits: int = 2) -> str:
    """`-0.12 to 0.94`; "to" rather than a dash, which would be read as a sign."""
    return f"{fixed(low, digits)} to {fixed(high, digits)}"


def percent_interval(bounds: tuple[float, float]) -> str:
    """Both ends in percent, without the unit."""
    return f"{percent(bounds[0], unit=False)} to {percent(bounds[1], unit=False)}"


def points(value: float | None) -> str:
    """Percentage points, with the unit."""
    text = fixed(value)
    return text if text == MISSING else f"{text}{NBSP}points"


def milliseconds(value: float | None) -> str:
    """A latency in ms, three significant digits, with the unit."""
    text = significant(value)
    return text if text == MISSING else f"{text}{NBSP}ms"


def size(size_bytes: float | None) -> str:
    """Decimal kilobytes or megabytes (1 MB = 1,000,000 bytes)."""
    if size_bytes is None or not math.isfinite(size_bytes):
        return MISSING
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if abs(size_bytes) >= scale:
            return f"{significant(size_bytes / scale)}{NBSP}{unit}"
    return f"{whole(size_bytes)}{NBSP}bytes"


def ratio(value: float | None) -> str:
    """`7.8×`."""
    text = significant(value, 2 if value is not None and abs(value) < 100 else 3)
    return text if text == MISSING else f"{text}×"


def difference(value: float | None) -> str:
    """A tiny difference of scores: 0.0042, and 3.1e−6 below a ten-thousandth."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value and abs(value) < 1e-4:
        digits, exponent = f"{value:.1e}".split("e")
        return f"{digits}e{_MINUS}{abs(int(exponent))}"
    return significant(value, 2)


def p_value(value: float | None) -> str:
    """Two significant digits; below 0.0001 only that it is."""
    if value is None or not math.isfinite(value):
        return MISSING
    return "<0.0001" if value < 1e-4 else significant(value, 2)


def duration(seconds: float | None) -> str:
    """`0.8 s`, `43 s`, `12 min 05 s`, `2 h 10 min`."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 10:
        return f"{significant(seconds, 2)}{NBSP}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest}{NBSP}s"
    if minutes < 60:
        return f"{minutes}{NBSP}min {rest:02d}{NBSP}s"
    return f"{minutes // 60}{NBSP}h {minutes % 60:02d}{NBSP}min"


def moment(iso: str) -> str:
    """An ISO 8601 time as `14 November 2025, 10:32 UTC`; as it stands where it cannot be read."""
    try:
        when = datetime.fromisoformat(iso)
    except ValueError:
        return clean(iso)
    return f"{when.day} {when:%B %Y, %H:%M} {when.tzname() or 'UTC'}"
