r"""Read a container's json-file log: its tail, a span of time, and what is added while it runs.

The writer is the shim (`engine.shim.log`). It appends whole records and rotates
by renaming: `log` -> `log.1` -> `log.2`, oldest last. A record that is not
whole or not JSON (a writer was killed in the middle) is skipped.

Following waits for the kernel to tell (inotify), not for time to pass, and ends
when the container has: the shim's records are all written by then.
"""

import asyncio
import calendar
import contextlib
import io
import itertools
import os
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from engine.containers.lognews import News

_BLOCK_BYTES = 256 * 1024
_RECORD_MAX_BYTES = 1 << 20  # the shim's are below 0.6 MiB: 80 KiB of text, each byte escaped

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One record: a line, or a part of a very long one (then without a newline)."""

    stream: str  # "stdout" or "stderr"
    time_ns: int  # wall clock
    text: bytes


class _Record(msgspec.Struct):
    log: str = ""
    stream: str = ""
    time: str = ""


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


class _Parser:
    """Turns blocks of a log, cut anywhere, into lines."""

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(_Record)
        self._times = _Times()
        self._rest = b""

    def feed(self, block: bytes) -> list[LogLine]:
        """Return the lines that `block` completes."""
        block = self._rest + block
        cut = block.rfind(b"\n") + 1
        self._rest = block[cut:] if len(block) - cut <= _RECORD_MAX_BYTES else b""
        return [self._line(record) for record in self._records(block[:cut])]

    def forget_rest(self) -> None:
        """The file has ended: what is left is a torn record."""
        self._rest = b""

    def _records(self, whole: bytes) -> Iterator[_Record]:
        try:
            yield from self._decoder.decode_lines(whole)
        except (msgspec.DecodeError, UnicodeDecodeError):
            for line in whole.split(b"\n"):
                with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                    yield self._decoder.decode(line)

    def _line(self, record: _Record) -> LogLine:
        text = record.log.encode(errors="replace")
        return LogLine(record.stream, self._times.parse(record.time), text)


async def read(
    path: Path,
    *,
    follow: bool = False,
    tail: int | None = None,
    since_ns: int = 0,
    until_ns: int = 0,
    ended: Awaitable[object] | None = None,
) -> AsyncGenerator[LogLine, None]:
    """Yield the lines of the log `path`, oldest first, over its rotated files.

    Args:
        path: the current file; it need not exist yet.
        follow: then wait for more, until `ended` is done and all is read, or
            for ever (close the iterator to stop).
        tail: start with the last so many lines; None for all. `since_ns` and
            `until_ns` choose among these, as in docker.
        since_ns: leave out lines before this wall-clock time; 0 for none.
        until_ns: leave out, and stop following at, lines after it; 0 for none.
        ended: done once the container has ended (such as `Shim.wait()`); an
            exception of it counts as an end.
    """
    with contextlib.ExitStack() as stack:
        news = stack.enter_context(News(path, ended)) if follow else None
        reader = stack.enter_context(_Reader(path))
        await asyncio.to_thread(reader.open, tail)
        while True:
            over = news is None or news.is_over  # asked before reading: all that came before it is read
            while lines := await asyncio.to_thread(reader.more):
                for line in lines:
                    if until_ns and line.time_ns > until_ns:
                        return
                    if line.time_ns >= since_ns:
                        yield line
            if over or news is None:
                return
            await news.wait()


class _Reader:
    """Goes through the files of one log; used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parser = _Parser()
        self._older: deque[_File] = deque()
        self._current: _File | None = None
        self._following: _File | None = None

    def __enter__(self) -> "_Reader":
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._current, self._following, *self._older):
            if file is not None:
                file.close()

    def open(self, tail: int | None) -> None:
        """Open every file of the log, and go to the first of the last `tail` records."""
        files = _open_all(self._path)
        if tail is not None:
            left = tail
            for index in range(len(files) - 1, -1, -1):
                left -= seek_back(files[index], left)
                if left <= 0:
                    for skipped in files[:index]:
                        skipped.close()
                    files = files[index:]
                    break
        self._older.extend(files)

    def more(self) -> list[LogLine]:
        """Return the next lines, over the ends of files; none when there are none now."""
        while True:
            block = self._current.read(_BLOCK_BYTES) if self._current is not None else b""
            if block:
                lines = self._parser.feed(block)
                if lines:
                    return lines
            elif not self._advance():
                return []

    def _advance(self) -> bool:
        """At the end of a file: tell whether reading again may give something.

        The writer renames after its last write. So once another file is seen
        to follow, the current one is read to its end once more.
        """
        if self._following is not None:
            if self._current is not None:
                self._current.close()
            self._parser.forget_rest()
            self._current, self._following = self._following, None
            return True
        self._following = self._older.popleft() if self._older else self._find_following()
        return self._following is not None

    def _find_following(self) -> "_File | None":
        files = _open_all(self._path)
        known = _identity(self._current) if self._current is not None else None
        identities = [_identity(file) for file in files]
        chosen = identities.index(known) + 1 if known in identities else 0
        for index, file in enumerate(files):
            if index != chosen:
                file.close()
        return files[chosen] if chosen < len(files) else None


_File = io.FileIO


def _open_all(path: Path) -> list[_File]:
    """Open the log's files, oldest first; again when they were rotated meanwhile."""
    while True:
        files = _open_existing(path)
        if [_identity(file) for file in files] == _present(path):
            return files
        for file in files:
            file.close()


def _open_existing(path: Path) -> list[_File]:
    """Open what there is."""
    return [file for file in _each(path, io.FileIO) if file is not None][::-1]


def _present(path: Path) -> list[tuple[int, int]]:
    found = [status for status in _each(path, os.stat) if status is not None]
    return [(status.st_dev, status.st_ino) for status in found][::-1]


def _each(path: Path, look: Callable[[str], T]) -> Iterator[T | None]:
    """Look at each file of the log, the newest first; None where one is missing.

    The writer renames the oldest first, so that between two of its renames one
    name is missing, and those behind it are not: the end is where two are.
    """
    missing = 0
    for name in itertools.chain([str(path)], (f"{path}.{number}" for number in itertools.count(1))):
        try:
            found = look(name)
        except FileNotFoundError:
            missing += 1
            if missing == 2:  # noqa: PLR2004 (see above)
                return
            yield None
        else:
            missing = 0
            yield found


def _identity(file: _File) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino


def seek_back(file: _File, count: int) -> int:
    """Go to the first of the last `count` whole records; return how many there are, at most `count`."""
    position = os.fstat(file.fileno()).st_size
    wanted = count + 1  # newlines: the one before the first record as well
    while position > 0:
        size = min(_BLOCK_BYTES, position)
        position -= size
        block = os.pread(file.fileno(), size, position)
        found = block.count(b"\n")
        if found >= wanted:
            at = len(block)
            for _ in range(wanted):
                at = block.rfind(b"\n", 0, at)
            file.seek(position + at + 1)
            return count
        wanted -= found
    file.seek(0)
    return count + 1 - wanted
