"""The functions that a template may call, and how values are shown; no I/O.

Source: pkg.go.dev/text/template, "Functions"; pkg.go.dev/fmt; docker/cli v28, templates/templates.go.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from engine.base.errors import EngineError

_VERB = re.compile(r"%([-+# 0]*)(\d{1,4})?(?:\.(\d{1,4}))?([a-zA-Z%])", re.ASCII)
_PAD_MAX = 1000


class TemplateError(EngineError):
    """A template of the user's is malformed, or asks for what is not there."""


def shown(value: Any) -> str:  # noqa: ANN401 (any document)
    """Return a value as Go prints it."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{shown(item)}" for key, item in sorted(value.items())) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(map(shown, value)) + "]"
    return str(value)


def _json(value: Any) -> str:  # noqa: ANN401 (any document)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _index(value: Any, *keys: Any) -> Any:  # noqa: ANN401 (any document)
    for key in keys:
        if isinstance(value, Mapping):
            texts = all(isinstance(item, str) for item in value.values())
            value = value.get(key, "" if texts else None)  # Go's zero value of the map's type
        else:
            _check_bounds(value, key)
            value = value[key]
    return value


def _slice(value: Any, first: int = 0, last: int | None = None) -> Any:  # noqa: ANN401 (any document)
    last = len(value) if last is None else last
    if not 0 <= first <= last <= len(value):
        raise IndexError(f"index out of range: {first}:{last}")
    return value[first:last]


def _check_bounds(value: Any, key: Any) -> None:  # noqa: ANN401 (any document)
    if not isinstance(value, str | list | tuple) or not isinstance(key, int):
        raise TypeError(f"can't index {shown(value)} with {shown(key)}")
    if not 0 <= key < len(value):
        raise IndexError(f"index out of range: {key}")


def _printf(form: str, *values: Any) -> str:  # noqa: ANN401 (any document)
    rest = list(values)

    def one(match: re.Match[str]) -> str:
        flags, width, precision, verb = match.groups()
        if verb == "%":
            return "%"
        if not rest:
            raise ValueError(f"no value for {match[0]}")
        text = _verb(verb, rest.pop(0), None if precision is None else int(precision), match[0])
        if "0" in flags and "-" not in flags and verb in "dfx":
            return text.zfill(int(width or 0))
        return text.ljust(int(width or 0)) if "-" in flags else text.rjust(int(width or 0))

    text = _VERB.sub(one, form)
    if rest:
        raise ValueError(f"too many values for {form!r}")
    return text


def _verb(verb: str, value: Any, precision: int | None, whole: str) -> str:  # noqa: ANN401 (any document)
    if verb in "sv":
        return shown(value)[:precision]
    if verb == "q":
        return go_quote(shown(value)[:precision])
    if verb == "t" and isinstance(value, bool):
        return shown(value)
    if verb in "dx" and isinstance(value, int):
        return format(value, verb)
    if verb == "x" and isinstance(value, str):
        return value.encode().hex()
    if verb in "feg" and isinstance(value, int | float):
        return format(float(value), f".{6 if precision is None else precision}{verb}")
    raise ValueError(f"{whole} does not take {shown(value)}")


def _kind(value: Any) -> str:  # noqa: ANN401 (any document)
    if isinstance(value, bool) or value is None:
        return str(type(value))
    return "number" if isinstance(value, int | float) else "text" if isinstance(value, str) else "other"


def _comparable(one: Any, other: Any) -> None:  # noqa: ANN401 (any document)
    if _kind(one) != _kind(other) and None not in (one, other):
        raise TypeError("incompatible types for comparison")


def _equal(one: Any, *others: Any) -> bool:  # noqa: ANN401 (any document)
    if not others:
        raise TypeError("missing argument for comparison")
    for other in others:
        _comparable(one, other)
    return any(one == other for other in others)


def _order(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(one: Any, other: Any) -> bool:  # noqa: ANN401 (any document)
        _comparable(one, other)
        return test(one, other)

    return compare


def _pad(text: str, left: int, right: int) -> str:
    if not 0 <= left <= _PAD_MAX or not 0 <= right <= _PAD_MAX:
        raise ValueError(f"want 0 to {_PAD_MAX} blanks")
    return " " * left + text + " " * right if text else ""


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": _json,
    "index": _index,
    "slice": _slice,
    "len": len,
    "upper": lambda text: str(text).upper(),
    "lower": lambda text: str(text).lower(),
    "title": lambda text: str(text).title(),
    "join": lambda items, separator: separator.join(map(str, items)),
    "split": lambda text, separator: text.split(separator),
    "truncate": lambda text, length: str(text)[: max(0, length)],
    "pad": _pad,
    "print": lambda *items: "".join(map(shown, items)),
    "printf": _printf,
    "println": lambda *items: " ".join(map(shown, items)) + "\n",
    "eq": _equal,
    "ne": lambda one, other: not _equal(one, other),
    "lt": _order(lambda one, other: one < other),
    "le": _order(lambda one, other: one <= other),
    "gt": _order(lambda one, other: one > other),
    "ge": _order(lambda one, other: one >= other),
    "not": lambda value: not value,
    "and": lambda *values: values,  # these two are evaluated by the template: they may stop early
    "or": lambda *values: values,
}


def _first(value: Any, *_others: Any) -> Any:  # noqa: ANN401 (any document)
    return value


# What is done to a column is not done to its title.
HEADING_FUNCTIONS: dict[str, Callable[..., Any]] = FUNCTIONS | dict.fromkeys(
    ("json", "upper", "lower", "title", "truncate", "pad", "split", "join"), _first
)


def go_quote(text: str) -> str:
    """Return `text` in double quotes, as Go's strconv.Quote does."""
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return (
        '"'
        + "".join(escapes.get(char, char if char.isprintable() else f"\\x{ord(char):02x}") for char in text)
        + '"'
    )
