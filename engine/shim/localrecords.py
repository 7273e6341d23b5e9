"""The records of docker's `local` log: protobuf messages between two copies of their size.

::

    0..3          4..4+n                        4+n..8+n
    n, unsigned,  LogEntry                      n once more: who reads backwards
    big-endian                                  finds the start by it

    LogEntry: 1 source, 2 time_nano, 3 line (without newline), 4 partial,
              5 partial_log_metadata {1 last, 2 id, 3 ordinal}, 6 attrs {1 key, 2 value}

A line that was logged in pieces has the metadata in each: all its pieces
share id and time, and the last one says so. Fields that are zero are left out.

Source: moby, daemon/logger/local and daemon/logger/internal/logdriver/entry.proto;
protobuf.dev, "Encoding".
"""

import os
import struct
from collections.abc import Mapping

_SIZE = struct.Struct(">I")
_SIZES_BYTES = 2 * _SIZE.size
_SOURCE, _TIME, _LINE = b"\x0a", b"\x10", b"\x1a"
_PARTIAL, _METADATA, _ATTR = b"\x20\x01", b"\x2a", b"\x32"
_LAST, _ID, _ORDINAL = b"\x08\x01", b"\x12", b"\x18"
_KEY, _VALUE = b"\x0a", b"\x12"
_ID_BYTES = 32


class LocalRecords:
    """Writes the records of one container's log."""

    def __init__(self, attrs: Mapping[str, str]) -> None:
        """Put `attrs` into each record."""
        self._attrs = b"".join(
            _ATTR + sized(_KEY + sized(key.encode()) + _VALUE + sized(value.encode()))
            for key, value in sorted(attrs.items())
        )
        self._pieces: dict[str, _Pieces] = {}

    def encode(self, stream: str, text: bytes, time_ns: int) -> bytes:
        """Return the records of `text`: one for each line, and one for a last part without a newline."""
        *lines, rest = text.split(b"\n")
        parts = []
        pieces = self._pieces.get(stream)
        if pieces is not None and lines:
            parts.append(self._piece(stream, lines.pop(0), pieces, last=True))
            del self._pieces[stream]
            pieces = None
        parts += self._whole(stream, lines, time_ns)
        if rest:
            pieces = self._pieces.setdefault(stream, _Pieces(time_ns))
            parts.append(self._piece(stream, rest, pieces, last=False))
        return b"".join(parts)

    def cut(self, records: bytes, room_bytes: int) -> int:
        """Return how many bytes of `records` are the whole ones among the first `room_bytes`."""
        at = 0
        while at < len(records) and (end := at + self.first(records, at)) <= room_bytes:
            at = end
        return at

    def first(self, records: bytes, at: int = 0) -> int:
        """Return the size of the record that begins at `at`."""
        return int(_SIZE.unpack_from(records, at)[0]) + _SIZES_BYTES

    def count(self, records: bytes) -> int:
        """Return how many there are."""
        count = at = 0
        while at < len(records):
            at += self.first(records, at)
            count += 1
        return count

    def mend(self, fd: int, size_bytes: int) -> int:
        """Cut a record off that is torn: what follows it could not be found; return the file's size."""
        end = whole_bytes(fd, size_bytes)
        if end != size_bytes:
            os.ftruncate(fd, end)
        return end

    def _whole(self, stream: str, lines: list[bytes], time_ns: int) -> list[bytes]:
        """Return the parts of whole lines' records; those of one length differ in nothing but the line."""
        head = _SOURCE + sized(stream.encode()) + _TIME + varint(time_ns)
        around: dict[int, tuple[bytes, bytes]] = {}
        for length in set(map(len, lines)):
            line_head = _LINE + varint(length) if length else b""
            size = _SIZE.pack(len(head) + len(line_head) + length + len(self._attrs))
            around[length] = size + head + line_head, self._attrs + size
        parts: list[bytes] = []
        for line in lines:
            before, after = around[len(line)]
            parts += (before, line, after)
        return parts

    def _piece(self, stream: str, text: bytes, pieces: "_Pieces", *, last: bool) -> bytes:
        pieces.count += 1
        line = _LINE + sized(text) if text else b""
        metadata = (_LAST if last else b"") + _ID + sized(pieces.id) + _ORDINAL + varint(pieces.count)
        entry = b"".join(
            (
                _SOURCE + sized(stream.encode()) + _TIME + varint(pieces.time_ns),
                line,
                _PARTIAL + _METADATA + sized(metadata),
                self._attrs,
            )
        )
        size = _SIZE.pack(len(entry))
        return size + entry + size


class _Pieces:
    """What the pieces of one line share."""

    def __init__(self, time_ns: int) -> None:
        self.time_ns = time_ns
        self.id = os.urandom(_ID_BYTES).hex().encode()
        self.count = 0


def varint(number: int) -> bytes:
    """Return protobuf's base 128 form of a number that is not negative."""
    out = bytearray()
    while number > 0x7F:  # noqa: PLR2004 (seven bits a byte)
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def sized(data: bytes) -> bytes:
    """Return `data` behind its length."""
    return varint(len(data)) + data


def whole_bytes(fd: int, size_bytes: int) -> int:
    """Return where the last whole record of a file ends; only a file with a torn one is read to find it."""
    if size_bytes >= _SIZES_BYTES:
        tail = os.pread(fd, _SIZE.size, size_bytes - _SIZE.size)
        start = size_bytes - _SIZES_BYTES - _SIZE.unpack(tail)[0]
        if start >= 0 and os.pread(fd, _SIZE.size, start) == tail:
            return size_bytes
    end = 0
    while len(head := os.pread(fd, _SIZE.size, end)) == _SIZE.size:
        after = end + _SIZE.unpack(head)[0] + _SIZES_BYTES
        if after > size_bytes or os.pread(fd, _SIZE.size, after - _SIZE.size) != head:
            break
        end = after
    return end
