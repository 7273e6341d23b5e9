"""The data disk of a machine on the host: a raw, sparse file that only grows."""

import errno
import os
from pathlib import Path

from engine.base.atomicfile import fsync_dir
from engine.base.errors import OutOfSpace

_GO_ON_BYTES = 64 << 20
_RESERVE_BYTES = 256 << 20


def ensure_disk(path: Path, size_bytes: int) -> None:
    """Make the disk `path`, or grow it to `size_bytes`; what is larger stays.

    Raises:
        OutOfSpace: the host's file system is full or cannot hold such a file.
    """
    free = _free_bytes(path.parent)
    if free is not None and free < _RESERVE_BYTES:
        raise OutOfSpace(
            f"{path.parent}: {free >> 20} MiB left on this disk, a machine needs {_RESERVE_BYTES >> 20} MiB",
            hint="free some space, then start the machine again",
        )
    fd = os.open(
        path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0), 0o600
    )
    try:
        if os.fstat(fd).st_size < size_bytes:
            os.truncate(fd, size_bytes)
            os.fsync(fd)
            fsync_dir(path.parent)
    except OSError as err:
        if err.errno in {errno.ENOSPC, errno.EFBIG}:
            raise OutOfSpace(
                f"{path}: cannot make a disk of {size_bytes} bytes: {os.strerror(err.errno)}"
            ) from err
        raise
    finally:
        os.close(fd)


def has_space(path: Path) -> bool:
    """Tell whether the file system of `path` has room enough for a machine to go on."""
    free = _free_bytes(path.parent)
    return free is None or free >= _GO_ON_BYTES


def used_bytes(path: Path) -> int:
    """Return what the sparse file `path` really takes; 0 when it is not there."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return 0
    blocks: int | None = getattr(found, "st_blocks", None)
    return found.st_size if blocks is None else blocks * 512


def _free_bytes(directory: Path) -> int | None:
    try:
        import shutil  # noqa: PLC0415 (once a start)

        return shutil.disk_usage(directory).free
    except OSError:
        return None
