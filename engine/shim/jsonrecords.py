r"""The records of docker's json-file log.

One record a line::

    {"log":"text\n","stream":"stdout","attrs":{"tag":"web"},"time":"2026-01-02T03:04:05.123456789Z"}

`attrs` only where log options ask for some. A chunk of output is encoded at
once, by a handful of passes in C over all of its lines, and its lines share
one time stamp: line by line costs ten times as much.

Source: moby, daemon/logger/jsonfilelog; RFC 8259, section 7.
"""

import os
import time
from collections.abc import Mapping

import msgspec

_HEAD = b'{"log":"'
_ESCAPES = {byte: b"\\u%04x" % byte for byte in range(0x20)} | {
    ord('"'): b'\\"',
    ord("\\"): b"\\\\",
    ord("\b"): b"\\b",
    ord("\t"): b"\\t",
    ord("\f"): b"\\f",
    ord("\r"): b"\\r",
}
_PLAIN = bytes(byte for byte in range(256) if byte == ord("\n") or byte not in _ESCAPES)


class JsonRecords:
    """Writes the records of one container's log."""

    def __init__(self, attrs: Mapping[str, str]) -> None:
        """Put `attrs` into each record."""
        self._attrs = b'"attrs":%s,' % msgspec.json.encode(attrs, order="sorted") if attrs else b""
        self._clock = Clock()

    def encode(self, stream: str, text: bytes, time_ns: int) -> bytes:
        """Return the records of `text`: one for each line, and one for a last part without a newline."""
        return encode(text, stream, self._clock.stamp(time_ns), self._attrs)

    def cut(self, records: bytes, room_bytes: int) -> int:
        """Return how many bytes of `records` are the whole ones among the first `room_bytes`."""
        return records.rfind(b"\n", 0, max(0, room_bytes)) + 1

    def first(self, records: bytes) -> int:
        """Return the size of the first record."""
        return records.index(b"\n") + 1

    def count(self, records: bytes) -> int:
        """Return how many there are."""
        return records.count(b"\n")

    def mend(self, fd: int, size_bytes: int) -> int:
        """Keep what is appended to a file apart from a record at its end that is torn; return its size."""
        if size_bytes and os.pread(fd, 1, size_bytes - 1) != b"\n":
            size_bytes += os.write(fd, b"\n")
        return size_bytes


class Clock:
    """Wall-clock times in RFC 3339 with nanoseconds; the part up to the second is kept."""

    def __init__(self) -> None:
        self._second = -1
        self._prefix = b""

    def stamp(self, time_ns: int) -> bytes:
        """Return `time_ns` (since the epoch) as text, in UTC."""
        second, fraction_ns = divmod(time_ns, 10**9)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()
        return b"%s.%09dZ" % (self._prefix, fraction_ns)


def encode(text: bytes, stream: str, stamp: bytes, attrs: bytes = b"") -> bytes:
    """Return the records of `text`; `attrs` is a member of each, with its comma."""
    if not text.isascii():
        text = _valid_utf8(text)
    odd = set(text.translate(None, _PLAIN))
    for byte in sorted(odd, key=_backslash_first):
        text = text.replace(bytes((byte,)), _ESCAPES[byte])
    end = b'","stream":"%s",%s"time":"%s"}\n' % (stream.encode(), attrs, stamp)
    whole = text.endswith(b"\n")
    body = text.replace(b"\n", b"\\n" + end + _HEAD)
    if whole:
        return _HEAD + body[: -len(_HEAD)]
    return _HEAD + body + end


def _valid_utf8(text: bytes) -> bytes:
    try:
        text.decode()
    except UnicodeDecodeError:
        return text.decode(errors="replace").encode()
    return text


def _backslash_first(byte: int) -> bool:
    """Sort key: the escapes of all others contain a backslash."""
    return byte != ord("\\")
