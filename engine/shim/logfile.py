"""The file of a container's log: whole records are appended, full files are rotated.

`log` -> `log.1` -> `log.2`, the oldest last; with compression the rotated ones
end in `.gz`, but the newest of them while it is being compressed. What is
there under either name moves on with the next rotation, so a log survives a
change of its options, and a compression that a crash has cut off.

Full disk: the container goes on, records are dropped, counted and reported,
and the file never ends in a torn record because of it.

Source: moby, daemon/logger/loggerutils/logfile.go.
"""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from engine.shim.compress import SUFFIX, Compressor

_WARN_INTERVAL_NS = 60 * 10**9
_MARGIN_BYTES = 1 << 20  # of records that may still come when output is no longer read


class Records(Protocol):
    """A form of records."""

    def encode(self, stream: str, text: bytes, time_ns: int) -> bytes:
        """Return the records of `text`, which came at `time_ns` (wall clock)."""

    def cut(self, records: bytes, room_bytes: int) -> int:
        """Return how many bytes of `records` are the whole ones among the first `room_bytes`."""

    def first(self, records: bytes) -> int:
        """Return the size of the first record."""

    def count(self, records: bytes) -> int:
        """Return how many there are."""

    def mend(self, fd: int, size_bytes: int) -> int:
        """Prepare a file that may end in a torn record for more; return its size."""


class LogFile:
    """The log file of one container; one writer."""

    def __init__(
        self,
        path: Path,
        records: Records,
        *,
        max_bytes: int = 0,
        max_files: int = 1,
        compressor: Compressor | None = None,
        warn: Callable[[str], None],
    ) -> None:
        """Open `path` for appending.

        Args:
            path: the current file; rotated ones get `.1` (newest), `.2`, ...
            records: the form of what is in it.
            max_bytes: size at which it is rotated; 0 for never.
            max_files: how many files are kept, the current one included.
            compressor: of rotated files; None to leave them as they are.
            warn: gets a line when records had to be dropped.
        """
        self._path = path
        self._records = records
        self._max_bytes = max_bytes
        self._max_files = max(1, max_files)
        self._compressor = compressor if self._max_files > 1 else None
        self._warn = warn
        self._fd = -1
        self._size_bytes = 0
        self._last_ns = 0
        self._dropped = 0
        self._warned_ns = 0
        self._open()

    @property
    def must_wait(self) -> bool:
        """Whether the file is nearly full while the last one is still being compressed."""
        busy = self._compressor is not None and self._compressor.is_busy
        return busy and self._size_bytes + _MARGIN_BYTES > self._max_bytes

    def append(self, records: bytes, time_ns: int) -> None:
        """Add whole records, which came at `time_ns`; what cannot be written is dropped and reported."""
        try:
            self._append_rotating(records, time_ns)
        except OSError as err:
            self._drop(records, err)

    def sync(self) -> None:
        """Wait until the records are on disk; a failure is only reported."""
        try:
            os.fdatasync(self._fd)
        except OSError as err:
            self._warn(f"log {self._path}: not synced: {os.strerror(err.errno or 0).lower()}")

    def settle(self) -> None:
        """Wait for a compression that is under way."""
        if self._compressor is not None:
            self._compressor.settle()

    def close(self) -> None:
        """Settle, and close the file; harmless when closed."""
        self.settle()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._size_bytes = self._records.mend(self._fd, os.fstat(self._fd).st_size)

    def _append_rotating(self, records: bytes, time_ns: int) -> None:
        while self._max_bytes and self._size_bytes + len(records) > self._max_bytes:
            cut = self._records.cut(records, self._max_bytes - self._size_bytes)
            if not cut and not self._size_bytes:
                cut = self._records.first(records)  # one record larger than a whole file
            if cut:
                self._write_all(records[:cut], time_ns)
                records = records[cut:]
            if not records:
                return
            self._rotate()
        self._write_all(records, time_ns)

    def _write_all(self, records: bytes, time_ns: int) -> None:
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
        self._last_ns = time_ns

    def _rotate(self) -> None:
        self.close()
        if self._max_files == 1:
            self._path.unlink(missing_ok=True)
        else:
            self._shift()
        self._open()
        if self._compressor is not None:
            self._compressor.start(Path(f"{self._path}.1"), self._last_ns)

    def _shift(self) -> None:
        """Give each file the next number; the last one goes."""
        oldest = f"{self._path}.{self._max_files - 1}"
        for suffix in ("", SUFFIX):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(oldest + suffix)
        for number in range(self._max_files - 1, 1, -1):
            for suffix in ("", SUFFIX):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{self._path}.{number - 1}{suffix}", f"{self._path}.{number}{suffix}")
        with contextlib.suppress(FileNotFoundError):  # somebody has removed it
            os.rename(self._path, f"{self._path}.1")

    def _drop(self, records: bytes, err: OSError) -> None:
        self._dropped += self._records.count(records)
        now_ns = time.monotonic_ns()
        if not self._warned_ns or now_ns - self._warned_ns > _WARN_INTERVAL_NS:
            self._warned_ns = now_ns
            reason = os.strerror(err.errno or 0).lower()
            self._warn(f"log {self._path}: {self._dropped} records dropped: {reason}")
