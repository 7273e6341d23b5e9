"""A few megabytes of a disk that are kept, to be given back when it is full.

To stop a container or to remove an image takes a commit, and a commit takes
space: without a reserve, a full disk could not be emptied.
"""

import os
import time
from pathlib import Path

from engine.base.errors import OutOfSpace

_SIZE_BYTES = 16 << 20
_DISK_PARTS = 32  # at most this part of a small disk
_ROOM_TIMES = 4  # it is made where this many times its size is free
_LOOK_AGAIN_S = 10.0


class Reserve:
    """One reserve, a file of its own; not safe for several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._looked_s = -_LOOK_AGAIN_S

    def restore(self, *, now_s: float | None = None) -> None:
        """Make the file when it is missing and there is room for it; looks at the disk only now and then."""
        now_s = time.monotonic() if now_s is None else now_s
        if now_s - self._looked_s < _LOOK_AGAIN_S:
            return
        self._looked_s = now_s
        if self._path.exists():
            return
        disk = os.statvfs(self._path.parent)
        size = min(_SIZE_BYTES, disk.f_blocks * disk.f_frsize // _DISK_PARTS)
        if disk.f_bavail * disk.f_frsize < size * _ROOM_TIMES:
            return
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as err:
            os.unlink(self._path)
            if OutOfSpace.of(err) is None:  # else somebody was faster
                raise
        finally:
            os.close(fd)

    def release(self) -> bool:
        """Give the space back; false when there is none to give."""
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            return False
        return True
