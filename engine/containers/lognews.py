"""Wait for news of a log: the file has grown or was rotated, or its container has ended.

All followers of one event loop share one inotify descriptor, as the kernel
gives a user 128 of them by default.
"""

import asyncio
import contextlib
import os
import weakref
from collections.abc import Awaitable
from pathlib import Path

from engine.kernel.inotify import (
    Change,
    inotify_add_watch,
    inotify_init,
    inotify_rm_watch,
    read_events,
)

_WATCHED = Change.MODIFY | Change.MOVED_FROM | Change.MOVED_TO | Change.CREATE | Change.ONLYDIR
_LOST = -1  # in place of a watch: the kernel's queue was full


class News:
    """News of one log, for one follower; a context manager."""

    def __init__(self, path: Path, ended: Awaitable[object] | None) -> None:
        """Watch the directory of `path`; `ended` is done once the container has ended."""
        self._path = path
        self._name = os.fsencode(path.name)
        self._ended = asyncio.ensure_future(ended) if ended is not None else None
        self._owns_ended = self._ended is not ended
        self._event = asyncio.Event()
        self._hub = _hub()

    def __enter__(self) -> "News":
        self._hub.join(self)
        if self._ended is not None:
            self._ended.add_done_callback(self._over)
        return self

    def __exit__(self, *_: object) -> None:
        self._hub.leave(self)
        if self._ended is not None:
            self._ended.remove_done_callback(self._over)
            if self._owns_ended:
                self._ended.cancel()

    @property
    def directory(self) -> Path:
        """What is watched."""
        return self._path.parent

    @property
    def is_over(self) -> bool:
        """Whether the container has ended."""
        return self._ended is not None and self._ended.done()

    async def wait(self) -> None:
        """Return once something has happened since the last return."""
        await self._event.wait()
        self._event.clear()

    def tell(self, name: bytes) -> None:
        """Something has happened to the file `name`; empty: to whichever."""
        if not name or name == self._name:
            self._event.set()

    def _over(self, ended: asyncio.Future[object]) -> None:
        if not ended.cancelled():
            ended.exception()  # an error ends the following as well, and is not this module's
        self._event.set()


class _Hub:
    """One inotify descriptor while somebody follows."""

    def __init__(self) -> None:
        self._fd = -1
        self._watches: dict[int, set[News]] = {}

    def join(self, news: News) -> None:
        """Watch for `news`."""
        if self._fd < 0:
            self._fd = inotify_init()
            asyncio.get_running_loop().add_reader(self._fd, self._readable)
        try:
            watch = inotify_add_watch(self._fd, news.directory, _WATCHED)
        except OSError:
            self._close_if_idle()
            raise
        self._watches.setdefault(watch, set()).add(news)

    def leave(self, news: News) -> None:
        """Watch no longer; harmless when it does not."""
        for watch, followers in list(self._watches.items()):
            followers.discard(news)
            if not followers:
                del self._watches[watch]
                with contextlib.suppress(OSError):  # gone with its directory
                    inotify_rm_watch(self._fd, watch)
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if not self._watches and self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _readable(self) -> None:
        for watch, change, name in read_events(self._fd):
            if watch == _LOST:
                followers = set().union(*self._watches.values())
            else:
                followers = self._watches.get(watch, set())
            for news in followers:
                news.tell(b"" if change & (Change.IGNORED | Change.Q_OVERFLOW) else name)


_hubs: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Hub]" = weakref.WeakKeyDictionary()


def _hub() -> _Hub:
    return _hubs.setdefault(asyncio.get_running_loop(), _Hub())
