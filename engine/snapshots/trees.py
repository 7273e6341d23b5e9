"""Measure and remove directory trees of any depth, by descriptors, without following a link.

A container may leave a tree deeper than any path or stack is long. `remove`
therefore lifts each directory to the top before it empties it, so that it
works two levels deep at most, with two descriptors, whatever the tree.
"""

import contextlib
import errno
import logging
import os
import stat
from pathlib import Path

log = logging.getLogger(__name__)

_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove(path: Path) -> None:
    """Remove the tree `path`, of which nobody else writes any more; harmless when it is gone.

    Raises:
        OSError: EBUSY for a mount point inside, EPERM for an immutable file;
            what could be removed is gone, and a second call goes on.
    """
    try:
        top_fd = os.open(path, _DIR_FLAGS)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        os.unlink(path)
        return
    try:
        empty(top_fd)
    finally:
        os.close(top_fd)
    os.rmdir(path)


def sweep(directory: Path, prefix: str) -> None:
    """Remove the trees in `directory` whose names begin so: what a crash left half removed or half made.

    One that cannot be removed is told in the log and left for the next time.
    """
    for name in sorted(os.listdir(directory)):
        if name.startswith(prefix):
            try:
                remove(directory / name)
            except OSError as err:
                log.warning("cannot remove %s: %s", directory / name, err)


def usage(path: Path) -> tuple[int, int]:
    """Return (bytes in regular files, number of inodes) below `path`, hard links counted once.

    The tree may be in use. It is walked by one descriptor, down by names and up by `..`, so that it
    may be of any depth and nothing outside is looked at; where a directory is moved away at that
    very moment, the rest is not counted.
    """
    try:
        fd = os.open(path, _DIR_FLAGS)
    except FileNotFoundError:
        return 0, 0
    tally = _Tally()
    above: list[tuple[tuple[int, int], list[str]]] = []  # of each parent: which it is, what is left in it
    try:
        names = tally.count(fd)
        while names or above:
            if names:
                below_fd = _open_directory(fd, names.pop())
                if below_fd is None:
                    continue
                above.append((_identity(fd), names))
                os.close(fd)
                fd = below_fd
                names = tally.count(fd)
            else:
                parent, names = above.pop()
                parent_fd = _open_directory(fd, "..")
                if parent_fd is None:
                    break
                os.close(fd)
                fd = parent_fd
                if _identity(fd) != parent:
                    break
    finally:
        os.close(fd)
    return tally.size_bytes, tally.inodes


class _Tally:
    """What has been counted so far."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self.inodes = 0
        self._linked: set[tuple[int, int]] = set()

    def count(self, dir_fd: int) -> list[str]:
        """Count the entries of a directory; return the names of those that are directories."""
        directories: list[str] = []
        with os.scandir(dir_fd) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if self._add(entry.stat(follow_symlinks=False)):
                        directories.append(entry.name)
        return directories

    def _add(self, status: os.stat_result) -> bool:
        """Count one inode; tell whether it is a directory."""
        if stat.S_ISDIR(status.st_mode):
            self.inodes += 1
            return True
        key = (status.st_dev, status.st_ino)
        if key in self._linked:
            return False
        if status.st_nlink > 1:
            self._linked.add(key)
        self.inodes += 1
        if stat.S_ISREG(status.st_mode):
            self.size_bytes += status.st_size
        return False


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _open_directory(dir_fd: int, name: str) -> int | None:
    """Open a directory; None when it is none any more."""
    try:
        return os.open(name, _DIR_FLAGS, dir_fd=dir_fd)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as err:
        if err.errno == errno.ELOOP:
            return None
        raise


def empty(top_fd: int) -> None:
    """Remove all that is in the directory `top_fd`."""
    lifted = 0
    while names := _unlink_files(top_fd):
        for name in names:
            directory_fd = os.open(name, _DIR_FLAGS, dir_fd=top_fd)
            try:
                for inner in _unlink_files(directory_fd):
                    if not _rmdir_if_empty(inner, directory_fd):
                        lifted = _lift(inner, directory_fd, top_fd, lifted)
            finally:
                os.close(directory_fd)
            os.rmdir(name, dir_fd=top_fd)


def _unlink_files(dir_fd: int) -> list[str]:
    """Remove everything in a directory but directories; return the names of those."""
    directories: list[str] = []
    with os.scandir(dir_fd) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_dir in names:
        if is_dir:
            directories.append(name)
        else:
            os.unlink(name, dir_fd=dir_fd)
    return directories


def _rmdir_if_empty(name: str, dir_fd: int) -> bool:
    try:
        os.rmdir(name, dir_fd=dir_fd)
    except OSError as err:
        if err.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _lift(name: str, dir_fd: int, top_fd: int, count: int) -> int:
    """Move a directory up into the top one under a name that is free there; return the next count."""
    while True:
        count += 1
        try:
            os.rename(name, f".lifted-{count}", src_dir_fd=dir_fd, dst_dir_fd=top_fd)
        except OSError as err:
            if err.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        else:
            return count
