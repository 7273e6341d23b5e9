"""Moments as docker's flags take them; no I/O but the clock."""

import time
from datetime import datetime

from engine.base.errors import InvalidArgument
from engine.base.units import parse_duration_ns


def moment(text: str, *, now_s: float | None = None) -> str:
    """Return a moment as the API takes it, seconds with a fraction.

    `text` is Unix seconds, RFC 3339 (without a zone: local time), or an age such as ``10m``.

    Raises:
        InvalidArgument: it is none of them.
    """
    if text.replace(".", "", 1).isdigit() and text.isascii():
        return text
    try:
        return f"{datetime.fromisoformat(text).timestamp():.9f}"
    except ValueError:
        pass
    try:
        age_ns = parse_duration_ns(text)
    except InvalidArgument:
        raise InvalidArgument(
            f"invalid time {text!r}: want 2006-01-02T15:04:05, Unix seconds or 10m"
        ) from None
    now_ns = time.time_ns() if now_s is None else int(now_s * 10**9)
    at_ns = now_ns - age_ns
    return f"{at_ns // 10**9}.{at_ns % 10**9:09d}"
