r"""The container's log in docker's json-file format, with rotation.

One record a line::

    {"log":"text\n","stream":"stdout","time":"2026-01-02T03:04:05.123456789Z"}

A chunk of output is encoded at once, by a handful of passes in C over all of
its lines, and its lines share one time stamp: line by line costs ten times as
much. Records hold whole lines; what is not yet a line waits, up to 16 KiB, as
it does in docker.

Full disk: the container goes on, records are dropped, counted and reported,
and the file never ends in a torn record because of it.

Source: moby, daemon/logger/jsonfilelog; RFC 8259, section 7.
"""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

PARTIAL_MAX_BYTES = 16 * 1024
_WARN_INTERVAL_NS = 60 * 10**9
_HEAD = b'{"log":"'
_ESCAPES = {byte: b"\\u%04x" % byte for byte in range(0x20)} | {
    ord('"'): b'\\"',
    ord("\\"): b"\\\\",
    ord("\b"): b"\\b",
    ord("\t"): b"\\t",
    ord("\f"): b"\\f",
    ord("\r"): b"\\r",
}
_LEADS = ((0xF0, 4), (0xE0, 3), (0xC0, 2))  # first byte of a UTF-8 sequence, from; its length
_PLAIN = bytes(byte for byte in range(256) if byte == ord("\n") or byte not in _ESCAPES)


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


def encode(text: bytes, stream: str, stamp: bytes) -> bytes:
    """Return the records of `text`: one for each line, and one for a last part without a newline."""
    if not text.isascii():
        text = _valid_utf8(text)
    odd = set(text.translate(None, _PLAIN))
    for byte in sorted(odd, key=_backslash_first):
        text = text.replace(bytes((byte,)), _ESCAPES[byte])
    end = b'","stream":"%s","time":"%s"}\n' % (stream.encode(), stamp)
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


def split(text: bytes) -> tuple[bytes, bytes]:
    """Return what of `text` can be logged now, and the part that waits for the rest of its line."""
    cut = text.rfind(b"\n") + 1
    if len(text) - cut >= PARTIAL_MAX_BYTES:
        cut = len(text) - _open_sequence_bytes(text)
    return text[:cut], text[cut:]


def _open_sequence_bytes(text: bytes) -> int:
    """Return how many bytes at the end begin a UTF-8 sequence that is not complete."""
    for back, byte in enumerate(reversed(text[-3:]), start=1):
        for lead, length in _LEADS:
            if byte >= lead:
                return back if back < length else 0
    return 0


class JsonLog:
    """The log file of one container; one writer."""

    def __init__(
        self, path: Path, *, max_bytes: int = 0, max_files: int = 1, warn: Callable[[str], None]
    ) -> None:
        """Open `path` for appending.

        Args:
            path: the current file; rotated ones get `.1` (newest), `.2`, ...
            max_bytes: size at which it is rotated; 0 for never.
            max_files: how many files are kept, the current one included.
            warn: gets a line when records had to be dropped.
        """
        self._path = path
        self._max_bytes = max_bytes
        self._max_files = max(1, max_files)
        self._warn = warn
        self._clock = Clock()
        self._waiting: dict[str, bytes] = {}
        self._fd = -1
        self._size_bytes = 0
        self._dropped = 0
        self._warned_ns = 0
        self._open()

    def write(self, stream: str, data: bytes) -> None:
        """Log a chunk of `stream` ("stdout" or "stderr")."""
        waiting = self._waiting.get(stream)
        text, rest = split(waiting + data if waiting else data)
        self._waiting[stream] = rest
        if text:
            self._append(encode(text, stream, self._clock.stamp(time.time_ns())))

    def finish(self) -> None:
        """Log what waits for the end of its line; every record is then in the kernel's hands."""
        for stream, text in self._waiting.items():
            if text:
                self._append(encode(text, stream, self._clock.stamp(time.time_ns())))
        self._waiting.clear()

    def sync(self) -> None:
        """Wait until the records are on disk; a failure is only reported."""
        try:
            os.fdatasync(self._fd)
        except OSError as err:
            self._warn(f"log {self._path}: not synced: {os.strerror(err.errno or 0).lower()}")

    def close(self) -> None:
        """Close the file; harmless when closed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._size_bytes = os.fstat(self._fd).st_size
        if self._size_bytes and os.pread(self._fd, 1, self._size_bytes - 1) != b"\n":
            self._write_all(b"\n")  # a writer died in a record: keep the next one apart from it

    def _append(self, records: bytes) -> None:
        try:
            self._append_rotating(records)
        except OSError as err:
            self._drop(records, err)

    def _append_rotating(self, records: bytes) -> None:
        while self._max_bytes and self._size_bytes + len(records) > self._max_bytes:
            room = self._max_bytes - self._size_bytes
            cut = records.rfind(b"\n", 0, room) + 1 if room > 0 else 0
            if not cut and not self._size_bytes:
                cut = records.index(b"\n") + 1  # one record larger than a whole file
            if cut:
                self._write_all(records[:cut])
                records = records[cut:]
            if not records:
                return
            self._rotate()
        self._write_all(records)

    def _write_all(self, records: bytes) -> None:
        if self._fd < 0:  # it could not be opened again after a rotation
            self._open()
        view = memoryview(records)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            with contextlib.suppress(OSError):  # not a regular file
                os.ftruncate(self._fd, self._size_bytes)
            raise
        self._size_bytes += len(records)

    def _rotate(self) -> None:
        names = [self._path, *(Path(f"{self._path}.{number}") for number in range(1, self._max_files))]
        if len(names) == 1:
            self._path.unlink()
        for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
            if newer.exists():
                newer.rename(older)
        self.close()
        self._open()

    def _drop(self, records: bytes, err: OSError) -> None:
        self._dropped += records.count(b"\n")
        now_ns = time.monotonic_ns()
        if not self._warned_ns or now_ns - self._warned_ns > _WARN_INTERVAL_NS:
            self._warned_ns = now_ns
            reason = os.strerror(err.errno or 0).lower()
            self._warn(f"log {self._path}: {self._dropped} records dropped: {reason}")
