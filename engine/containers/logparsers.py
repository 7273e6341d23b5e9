"""Records of a container's log, read: docker's json-file and `local` forms.

Which one a file has, its first byte tells: a JSON object's brace, or the zero
that a size of less than 16 MiB begins with. A record that is not whole or
makes no sense (a writer was killed in the middle, a disk has failed) is
skipped; in a `local` file all that follows it is, for only sizes tell where a
record begins.

The writers are `engine.shim.jsonrecords` and `engine.shim.localrecords`, with
the forms drawn.
"""

import calendar
import contextlib
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import msgspec

RECORD_MAX_BYTES = 1 << 20  # the shim's are below 0.6 MiB: 80 KiB of text, each byte escaped
_SIZE = struct.Struct(">I")
_STREAM, _TIME, _LINE, _PARTIAL, _METADATA, _ATTR = range(1, 7)  # fields of a LogEntry
_LAST = 1
_KEY, _VALUE = 1, 2
_VARINT, _FIXED64, _SIZED, _FIXED32 = 0, 1, 2, 5  # protobuf's wire types
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
_VARINT_MAX_BYTES = 10

Attrs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class LogLine:
    """One record: a line, or a part of a very long one (then without a newline)."""

    stream: str  # "stdout" or "stderr"
    time_ns: int  # wall clock
    text: bytes
    attrs: Attrs = ()  # what log options ask for, by name


class Parser(Protocol):
    """Turns blocks of one file, cut anywhere, into lines."""

    def feed(self, block: bytes) -> list[LogLine]:
        """Return the lines that `block` completes."""


def parser_of(start: bytes) -> Parser:
    """Return the parser of a file that begins with `start`, which is not empty."""
    return JsonParser() if is_json(start) else LocalParser()


def is_json(start: bytes) -> bool:
    """Tell whether a file that begins with `start`, which is not empty, has lines of JSON."""
    return start[0] != 0


class _Record(msgspec.Struct):
    log: str = ""
    stream: str = ""
    time: str = ""
    attrs: dict[str, str] = {}


class JsonParser:
    """Of json-file's records."""

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(_Record)
        self._times = _Times()
        self._rest = b""

    def feed(self, block: bytes) -> list[LogLine]:
        """Return the lines that `block` completes."""
        block = self._rest + block
        cut = block.rfind(b"\n") + 1
        self._rest = block[cut:] if len(block) - cut <= RECORD_MAX_BYTES else b""
        return [self._line(record) for record in self._records(block[:cut])]

    def _records(self, whole: bytes) -> Iterator[_Record]:
        try:
            yield from self._decoder.decode_lines(whole)
        except (msgspec.DecodeError, UnicodeDecodeError):
            for line in whole.split(b"\n"):
                with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                    yield self._decoder.decode(line)

    def _line(self, record: _Record) -> LogLine:
        text = record.log.encode(errors="replace")
        attrs = tuple(sorted(record.attrs.items())) if record.attrs else ()
        return LogLine(record.stream, self._times.parse(record.time), text, attrs)


class LocalParser:
    """Of the `local` driver's records."""

    def __init__(self) -> None:
        self._rest = b""
        self._damaged = False

    def feed(self, block: bytes) -> list[LogLine]:
        """Return the lines that `block` completes."""
        if self._damaged:
            return []
        block = self._rest + block
        lines = []
        at = 0
        while at + _SIZE.size <= len(block):
            (size,) = _SIZE.unpack_from(block, at)
            end = at + _SIZE.size + size
            if size > RECORD_MAX_BYTES:
                self._damaged = True
                break
            if end + _SIZE.size > len(block):
                break
            with contextlib.suppress(ValueError, IndexError):
                lines.append(_entry(block[at + _SIZE.size : end]))
            at = end + _SIZE.size
        self._rest = block[at:]
        return lines


def _entry(data: bytes) -> LogLine:
    """Return the line of a LogEntry. Raises ValueError or IndexError where it is none."""
    stream, time_ns, text, attrs = "", 0, b"", []
    is_partial = is_last = False
    for number, value in _fields(data):
        if isinstance(value, int):
            if number == _TIME:
                time_ns = value
            elif number == _PARTIAL:
                is_partial = bool(value)
        elif number == _STREAM:
            stream = value.decode()
        elif number == _LINE:
            text = value
        elif number == _METADATA:
            is_last = any(inner == _LAST and found for inner, found in _fields(value))
        elif number == _ATTR:
            attrs.append(_attr(value))
    if not is_partial or is_last:
        text += b"\n"
    return LogLine(stream, time_ns, text, tuple(attrs))


def _attr(data: bytes) -> tuple[str, str]:
    found = {number: value.decode() for number, value in _fields(data) if isinstance(value, bytes)}
    return found.get(_KEY, ""), found.get(_VALUE, "")


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field of a protobuf message that has a varint or bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield number, value
        elif kind == _SIZED:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("a field is longer than its message")
            yield number, data[at : at + size]
            at += size
        else:
            at += _FIXED_BYTES[kind] if kind in _FIXED_BYTES else _unknown(kind)


def _unknown(kind: int) -> int:
    raise ValueError(f"wire type {kind}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at `at`, and where the next byte is."""
    byte = data[at]
    if byte < 0x80:  # noqa: PLR2004 (the bit that says that another byte follows)
        return byte, at + 1
    number = shift = 0
    for end in range(at, at + _VARINT_MAX_BYTES):
        byte = data[end]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004
            return number, end + 1
        shift += 7
    raise ValueError("a number has too many bytes")


class _Times:
    """Parses RFC 3339; neighbours mostly share their time, and always their second."""

    def __init__(self) -> None:
        self._text = ""
        self._text_ns = 0
        self._second = ""
        self._second_ns = 0

    def parse(self, text: str) -> int:
        """Return nanoseconds since the epoch; 0 for what is no time."""
        if text != self._text:
            self._text_ns = self._parse(text)
            self._text = text
        return self._text_ns

    def _parse(self, text: str) -> int:
        second, _, rest = text.partition(".")
        try:
            if second.rstrip("Z") != self._second:
                self._second = second.rstrip("Z")
                parsed = time.strptime(self._second, "%Y-%m-%dT%H:%M:%S")
                self._second_ns = calendar.timegm(parsed) * 10**9
            return self._second_ns + int(rest.rstrip("Z").ljust(9, "0")[:9] or 0)
        except ValueError:
            return 0


def time_of(text: str) -> int:
    """Return a time in RFC 3339 as nanoseconds since the epoch; 0 for what is none."""
    return _Times().parse(text)
