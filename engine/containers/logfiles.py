"""The files of one container's log, opened: the current one and the rotated ones, compressed or not.

The shim (`engine.shim.logfile`) rotates by renaming, so a file is known by its
device and inode, not by its name. The header of a compressed file says which
one it was made from. Its text is unpacked into a file without a name in the
same directory, once somebody reads it.
"""

import contextlib
import itertools
import os
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TypeVar

from engine.containers.logparsers import is_json, time_of
from engine.shim.compress import SUFFIX, Extra, gzip_extra
from engine.shim.localrecords import whole_bytes

BLOCK_BYTES = 256 * 1024
_HEAD_BYTES = 512  # enough for a gzip header with its extra field
_SIZE = struct.Struct(">I")
_GZIP_BITS = 16 + zlib.MAX_WBITS

Identity = tuple[int, int]
T = TypeVar("T")


class LogPart:
    """One file of a log, open for reading; owns its descriptors."""

    def __init__(self, path: str) -> None:
        """Open it.

        Raises:
            FileNotFoundError: there is none of that name, compressed or not.
        """
        self._path = path
        self._packed: IO[bytes] | None = None
        try:
            self._file: IO[bytes] = open(path, "rb", buffering=0)  # noqa: SIM115 (`close`)
            extra = Extra()
        except FileNotFoundError:
            self._file = self._packed = open(path + SUFFIX, "rb", buffering=0)  # noqa: SIM115
            extra = gzip_extra(os.pread(self._file.fileno(), _HEAD_BYTES, 0))
        self._source = extra.source  # what it was made from
        self.identity = _identity(os.fstat(self._file.fileno()))
        self.last_ns = time_of(extra.last_time)  # of its last record; 0 where that is not known

    def continues(self, other: "LogPart") -> bool:
        """Tell whether this is the file that `other` was, when that was opened."""
        return other.identity in (self.identity, self._source)

    def read(self, size: int) -> bytes:
        """Return the next bytes; none at the end, as far as it is written now."""
        self._unpack()
        return self._file.read(size)

    def seek_back(self, count: int) -> int:
        """Go to the first of the last `count` whole records; return how many there are, at most `count`."""
        self._unpack()
        fd = self._file.fileno()
        start = os.pread(fd, 1, 0)
        if not start:
            return 0
        found, offset = _last_lines(fd, count) if is_json(start) else _last_entries(fd, count)
        self._file.seek(offset)
        return found

    def close(self) -> None:
        """Close it."""
        self._file.close()
        if self._packed is not None:
            self._packed.close()

    def _unpack(self) -> None:
        if self._file is not self._packed:
            return
        self._file = tempfile.TemporaryFile(dir=os.path.dirname(self._path))  # noqa: SIM115 (`close`)
        inflate = zlib.decompressobj(_GZIP_BITS)
        with contextlib.suppress(zlib.error):  # a disk has failed: what could be unpacked is what there is
            while not inflate.eof and (block := inflate.unconsumed_tail or self._packed.read(BLOCK_BYTES)):
                self._file.write(inflate.decompress(block, BLOCK_BYTES))
        self._file.seek(0)


def open_all(path: Path) -> list[LogPart]:
    """Open the log's files, oldest first; again when they were rotated meanwhile."""
    while True:
        parts = [part for part in _each(path, LogPart) if part is not None][::-1]
        if [part.identity for part in parts] == _present(path):
            return parts
        for part in parts:
            part.close()


def _present(path: Path) -> list[Identity]:
    return [identity for identity in _each(path, _identity_at) if identity is not None][::-1]


def _identity_at(path: str) -> Identity:
    try:
        return _identity(os.stat(path))
    except FileNotFoundError:
        return _identity(os.stat(path + SUFFIX))


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino


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


def _last_lines(fd: int, count: int) -> tuple[int, int]:
    """Return how many of the last `count` lines there are, and where the first of them begins."""
    position = os.fstat(fd).st_size
    wanted = count + 1  # newlines: the one before the first record as well
    while position > 0:
        size = min(BLOCK_BYTES, position)
        position -= size
        block = os.pread(fd, size, position)
        found = block.count(b"\n")
        if found >= wanted:
            at = len(block)
            for _ in range(wanted):
                at = block.rfind(b"\n", 0, at)
            return count, position + at + 1
        wanted -= found
    return count + 1 - wanted, 0


def _last_entries(fd: int, count: int) -> tuple[int, int]:
    """As `_last_lines`, for the `local` form: each record ends in its size, so that one can walk back."""
    position = whole_bytes(fd, os.fstat(fd).st_size)
    found = 0
    while found < count and position > 0:
        (size,) = _SIZE.unpack(os.pread(fd, _SIZE.size, position - _SIZE.size))
        position -= size + 2 * _SIZE.size
        if position < 0:
            return found, 0
        found += 1
    return found, position
