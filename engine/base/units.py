"""Sizes, durations and ages, in and out, as docker writes them; no I/O.

Source: docker/go-units v0.5 (size.go, duration.go); Go's time.ParseDuration.
"""

import re

from engine.base.errors import InvalidArgument

_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?) ?(?:([kmgtp])(?:i?b)?|b)?\Z", re.IGNORECASE | re.ASCII)
_POWERS = {"k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
_DURATION_PART = re.compile(r"(\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})(ns|us|µs|ms|s|m|h)", re.ASCII)
_NANOSECONDS = {
    "ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000,
    "s": 1_000_000_000, "m": 60_000_000_000, "h": 3_600_000_000_000,
}  # fmt: skip
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def parse_size(text: str) -> int:
    """Return the bytes of ``100``, ``64m``, ``1.5g`` or ``2GiB`` (powers of 1024).

    Raises:
        InvalidArgument: it is no size.
    """
    match = _SIZE.match(text)
    if match is None:
        raise InvalidArgument(f"invalid size: '{text}'")
    return int(float(match[1]) * (1 << _POWERS[match[2].lower()] if match[2] else 1))


def parse_duration_ns(text: str) -> int:
    """Return the nanoseconds of ``5s``, ``1m30s`` or ``250ms``.

    Raises:
        InvalidArgument: it is no duration.
    """
    if text == "0":
        return 0
    total, at = 0.0, 0
    for match in _DURATION_PART.finditer(text):
        if match.start() != at:
            break
        total += float(match[1]) * _NANOSECONDS[match[2]]
        at = match.end()
    if not text or at != len(text):
        raise InvalidArgument(f"invalid duration {text!r}: want a number and a unit, such as 5s or 1m30s")
    return int(total)


def human_size(size_bytes: float, *, digits: int = 3) -> str:
    """Return ``4.27MB``: powers of 1000, `digits` significant ones."""
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    number = 0
    while size_bytes >= 1000 and number < len(units) - 1:  # noqa: PLR2004 (powers of 1000)
        size_bytes /= 1000
        number += 1
    return f"{size_bytes:.{digits}g}{units[number]}"


def human_duration(seconds: float) -> str:  # noqa: PLR0911 (one line a unit)
    """Return ``3 seconds``, ``About a minute``, ``2 weeks``."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < _MINUTE:
        return f"{whole} seconds"
    minutes = whole // _MINUTE
    if minutes == 1:
        return "About a minute"
    if minutes < _MINUTE:
        return f"{minutes} minutes"
    hours = int(seconds / _HOUR + 0.5)
    if hours == 1:
        return "About an hour"
    return _long_duration(hours, whole // _DAY)


def _long_duration(hours: int, days: int) -> str:
    if hours < 48:  # noqa: PLR2004 (docker's borders, as in go-units)
        return f"{hours} hours"
    for limit, divisor, unit in ((14, 1, "days"), (60, 7, "weeks"), (730, 30, "months")):
        if hours < 24 * limit:
            return f"{hours // 24 // divisor} {unit}"
    return f"{days // 365} years"
