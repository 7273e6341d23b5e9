"""JSON in and out, typed: the one place that knows how documents are decoded."""

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from engine.base.errors import InvalidArgument

T = TypeVar("T")
_MESSAGE_MAX = 240


def encode(value: Any) -> bytes:  # noqa: ANN401 (any document)
    """Return `value` as compact JSON."""
    return msgspec.json.encode(value)


def encode_pretty(value: Any) -> bytes:  # noqa: ANN401 (any document)
    """Return `value` as JSON for people: indented by four, with a final newline."""
    return msgspec.json.format(msgspec.json.encode(value), indent=4) + b"\n"


def decode(data: bytes | bytearray | memoryview | str, kind: type[T], *, noun: str = "document") -> T:
    """Return `data` as a `kind`.

    Raises:
        InvalidArgument: it is not JSON, or a field has the wrong type; the
            message is ``invalid <noun>: <reason> - at `$.path```.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        raise InvalidArgument(f"invalid {noun}: {_one_line(err)}") from err


def convert(value: Any, kind: type[T], *, noun: str = "document") -> T:  # noqa: ANN401 (decoded JSON)
    """Return already decoded JSON as a `kind`; raises as `decode` does."""
    try:
        return msgspec.convert(value, type=kind)
    except msgspec.ValidationError as err:
        raise InvalidArgument(f"invalid {noun}: {_one_line(err)}") from err


def read(path: Path, kind: type[T], *, noun: str | None = None) -> T:
    """Return the document in the file `path`; raises as `decode` does, and OSError."""
    return decode(path.read_bytes(), kind, noun=noun or str(path))


def _one_line(err: Exception) -> str:
    """Return what is wrong, then where; a value that is shown on the way may be of any length."""
    text = str(err)
    if len(text) > _MESSAGE_MAX:
        half = _MESSAGE_MAX // 2
        text = f"{text[:half]}...{text[-half:]}"
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]  # "JSON is malformed" stays
