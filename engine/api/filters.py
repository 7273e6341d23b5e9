"""The `filters` parameter of docker's lists, in its two spellings; and times.

Source: Docker Engine API v1.51, "filters": `{"name": ["a"]}`, formerly `{"name": {"a": true}}`.
"""

import datetime
import re
from collections.abc import Mapping

from engine.api.http import Request
from engine.base import jsonio
from engine.base.errors import InvalidArgument

_MAX_CHARS = 64 * 1024
_NANOSECONDS = 1_000_000_000
_NUMBER = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,9})[0-9]*)?\Z", re.ASCII)


def parse(request: Request) -> dict[str, list[str]]:
    """Return the filters of a request; empty without any.

    Raises:
        InvalidArgument: they are not in one of the two forms.
    """
    text = request.text("filters")
    if not text:
        return {}
    if len(text) > _MAX_CHARS:
        raise InvalidArgument("invalid filters: too long")
    document = jsonio.decode(text.encode(), dict[str, object], noun="filters")
    return {name: _values(name, value) for name, value in document.items()}


def _values(name: str, value: object) -> list[str]:
    if isinstance(value, Mapping):
        return [str(key) for key, wanted in value.items() if wanted]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise InvalidArgument(f"invalid filter '{name}'")


def moment_ns(text: str, name: str) -> int:
    """Return a time parameter in nanoseconds: seconds with a fraction, or RFC 3339; 0 for an empty one.

    Raises:
        InvalidArgument: it is neither.
    """
    if not text:
        return 0
    match = _NUMBER.match(text)
    if match:
        return int(match[1]) * _NANOSECONDS + int((match[2] or "").ljust(9, "0"))
    try:
        return int(datetime.datetime.fromisoformat(text).timestamp() * _NANOSECONDS)
    except (ValueError, OverflowError):
        raise InvalidArgument(f"invalid value for {name}: {text!r} is not a time") from None
