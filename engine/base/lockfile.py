"""A lock that the operating system drops when its holder dies, and that says who holds it."""

import contextlib
import os
import sys
from pathlib import Path
from types import TracebackType

from engine.base.errors import Conflict

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


class Locked(Conflict):
    """Another process holds the lock.

    Attributes:
        holder_pid: its process id, or 0 when it has not written one yet.
    """

    def __init__(self, path: Path, holder_pid: int) -> None:
        who = f"process {holder_pid}" if holder_pid else "another process"
        super().__init__(f"{path}: in use by {who}")
        self.path = path
        self.holder_pid = holder_pid


class LockFile:
    """An exclusive lock on a file, held until `release`, `with`'s end or death.

    The file is never removed: removing a lock file that somebody waits on
    gives two holders.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def acquire(self) -> None:
        """Take the lock now.

        Raises:
            Locked: another process has it.
        """
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            _lock(fd)
        except OSError as err:
            holder = _read_pid(fd)
            os.close(fd)
            raise Locked(self.path, holder) from err
        with contextlib.suppress(OSError):  # it holds without a name: a full disk must not stop what frees it
            os.ftruncate(fd, 0)
            os.write(fd, f"{os.getpid()}\n".encode())
        self._fd = fd

    def release(self) -> None:
        """Drop the lock; harmless when it is not held."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def fileno(self) -> int:
        """Return the descriptor that carries the lock, to be inherited by a process that must hold it on."""
        return self._fd

    def __enter__(self) -> "LockFile":
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.release()


def holder_of(path: Path) -> int | None:
    """Return the pid that holds the lock `path` (0: unknown), or None when nobody does."""
    lock = LockFile(path)
    try:
        if not path.exists():
            return None
        lock.acquire()
    except Locked as err:
        return err.holder_pid
    lock.release()
    return None


def _lock(fd: int) -> None:
    if sys.platform == "win32":
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _read_pid(fd: int) -> int:
    try:
        os.lseek(fd, 0, os.SEEK_SET)
        text = os.read(fd, 32).strip()
    except OSError:  # Windows forbids reading a locked range
        return 0
    return int(text) if text.isdigit() else 0
