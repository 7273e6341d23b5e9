"""Read a container's log: its tail, a span of time, and what is added while it runs.

The writer is the shim (`engine.shim.log`). It appends whole records and rotates
by renaming: `log` -> `log.1` -> `log.2`, oldest last; some may be compressed.

Following waits for the kernel to tell (inotify), not for time to pass, and ends
when the container has: the shim's records are all written by then.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Awaitable
from pathlib import Path
from urllib.parse import quote_plus

from engine.containers.logfiles import BLOCK_BYTES, LogPart, open_all
from engine.containers.lognews import News
from engine.containers.logparsers import LogLine, Parser, parser_of

__all__ = ["LogLine", "details", "read"]


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
        await asyncio.to_thread(reader.open, tail, since_ns)
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


def details(line: LogLine) -> bytes:
    """Return what `logs --details` shows before the line; pure.

    Source: moby, api/server/httputils/write_log_stream.go, stringAttrs.
    """
    pairs = (f"{quote_plus(key)}={quote_plus(value)}" for key, value in line.attrs)
    return ",".join(pairs).encode() + b" "


class _Reader:
    """Goes through the files of one log; used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parser: Parser | None = None  # of the current file, once its first bytes are known
        self._older: deque[LogPart] = deque()
        self._current: LogPart | None = None
        self._following: LogPart | None = None

    def __enter__(self) -> "_Reader":
        return self

    def __exit__(self, *_: object) -> None:
        for part in (self._current, self._following, *self._older):
            if part is not None:
                part.close()

    def open(self, tail: int | None, since_ns: int) -> None:
        """Open every file of the log, and go to the first of the last `tail` records.

        Files that end before `since_ns` are passed over, where that is known.
        """
        parts = open_all(self._path)
        if tail is not None:
            left = tail
            for index in range(len(parts) - 1, -1, -1):
                left -= parts[index].seek_back(left)
                if left <= 0:
                    parts = _without(parts, index)
                    break
        while parts and 0 < parts[0].last_ns < since_ns:
            parts = _without(parts, 1)
        self._older.extend(parts)

    def more(self) -> list[LogLine]:
        """Return the next lines, over the ends of files; none when there are none now."""
        while True:
            block = self._current.read(BLOCK_BYTES) if self._current is not None else b""
            if block:
                self._parser = self._parser or parser_of(block)
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
            self._parser = None  # and what it has left: a torn record
            self._current, self._following = self._following, None
            return True
        self._following = self._older.popleft() if self._older else self._find_following()
        return self._following is not None

    def _find_following(self) -> LogPart | None:
        """Return the file that was begun after the current one, which may have been compressed meanwhile.

        Inode numbers come back once a file is gone, and old headers name them. But
        the current file is open here, so nothing newer has its number.
        """
        parts = open_all(self._path)
        chosen = 0
        for index, part in enumerate(parts):
            if self._current is not None and part.continues(self._current):
                chosen = index + 1
        for index, part in enumerate(parts):
            if index != chosen:
                part.close()
        return parts[chosen] if chosen < len(parts) else None


def _without(parts: list[LogPart], count: int) -> list[LogPart]:
    """Close the first `count` of the files and return the others."""
    for part in parts[:count]:
        part.close()
    return parts[count:]
