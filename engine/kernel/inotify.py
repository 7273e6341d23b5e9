"""inotify(7): be told of changes in a directory.

Source: Linux man-pages 6.9, inotify(7), inotify_init1(2), inotify_add_watch(2).
"""

import enum
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from engine.kernel.libc import BYTES, INT, UINT, fail, function

_inotify_init1 = function("inotify_init1", INT)
_inotify_add_watch = function("inotify_add_watch", INT, BYTES, UINT)
_inotify_rm_watch = function("inotify_rm_watch", INT, INT)

_EVENT = struct.Struct("iIII")  # wd, mask, cookie, length of the name
_READ_BYTES = 64 * 1024


class Change(enum.IntFlag):
    """`IN_*` of <sys/inotify.h>."""

    MODIFY = 0x2
    MOVED_FROM = 0x40
    MOVED_TO = 0x80
    CREATE = 0x100
    DELETE = 0x200
    DELETE_SELF = 0x400
    Q_OVERFLOW = 0x4000
    IGNORED = 0x8000
    ONLYDIR = 0x01000000


def inotify_init() -> int:
    """Return a new inotify descriptor: close-on-exec, not blocking, the caller's.

    Raises:
        OSError: EMFILE when the user has too many (fs.inotify.max_user_instances).
    """
    fd: int = _inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    if fd < 0:
        fail("inotify_init1(IN_CLOEXEC | IN_NONBLOCK)")
    return fd


def inotify_add_watch(fd: int, path: Path, changes: Change) -> int:
    """Watch `path` for `changes`; return the watch's number, the same for the same directory."""
    watch: int = _inotify_add_watch(fd, os.fsencode(path), int(changes))
    if watch < 0:
        fail(f"inotify_add_watch({fd}, {str(path)!r}, {changes!r})", os.fspath(path))
    return watch


def inotify_rm_watch(fd: int, watch: int) -> None:
    """End a watch.

    Raises:
        OSError: EINVAL when it has ended already, as with the directory.
    """
    if _inotify_rm_watch(fd, watch) < 0:
        fail(f"inotify_rm_watch({fd}, {watch})")


def read_events(fd: int) -> Iterator[tuple[int, Change, bytes]]:
    """Yield what has happened: watch (-1: events were lost), change, name in the directory."""
    try:
        data = os.read(fd, _READ_BYTES)
    except BlockingIOError:
        return
    at = 0
    while at < len(data):
        watch, mask, _, size = _EVENT.unpack_from(data, at)
        at += _EVENT.size
        yield watch, Change(mask), data[at : at + size].rstrip(b"\0")
        at += size
