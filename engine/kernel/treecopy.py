"""Copy files and trees between directories that are open: owners, modes, times, attributes, hard links.

Every name is made with the `*at` calls from the directory's own descriptor, no
link is followed, and files are created exclusively, so nothing in the source
decides where something is written.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HIDDEN_ATTRIBUTES = "trusted.overlay."  # about the layer, not about the file
_CHUNK_BYTES = 1 << 30
_Place = tuple[str, ...]


def copy(source_fd: int, target_fd: int) -> None:
    """Copy the directory `source_fd`, with its own status, into the empty directory `target_fd`.

    Sockets are left out: nobody listens on a copy.

    Raises:
        OSError: half of it may be copied.
    """
    linked: dict[tuple[int, int], _Place] = {}  # (device, inode) -> first name
    directories: list[_Place] = [()]
    for place in directories:  # grows while it is walked
        with opened(source_fd, place) as there, opened(target_fd, place) as here:
            for name in os.listdir(there):
                status = os.stat(name, dir_fd=there, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    os.mkdir(name, 0o700, dir_fd=here)
                    directories.append((*place, name))
                    continue
                identity = (status.st_dev, status.st_ino)
                if identity in linked:
                    link(target_fd, linked[identity], name, here)
                    continue
                copy_entry(name, status, there, here)
                if status.st_nlink > 1 and not stat.S_ISSOCK(status.st_mode):
                    linked[identity] = (*place, name)
    for place in reversed(directories):  # after what is inside: that changes times
        with opened(source_fd, place) as there, opened(target_fd, place) as here:
            copy_status(there, here)


def copy_entry(name: str, status: os.stat_result, there: int, here: int) -> None:
    """Copy what is no directory, and whose `status` is known, from the directory `there` into `here`."""
    if stat.S_ISREG(status.st_mode):
        copy_file(name, there, here)
    elif not stat.S_ISSOCK(status.st_mode):
        copy_special(name, status, there, here)


def link(root_fd: int, first: tuple[str, ...], name: str, here: int) -> None:
    """Make `name` in the directory `here` another name of the file `first` below `root_fd`."""
    with opened(root_fd, first[:-1]) as there:
        os.link(first[-1], name, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)


def copy_status(source_fd: int, target_fd: int) -> None:
    """Give the open file or directory `target_fd` the owner, mode, attributes and times of `source_fd`."""
    status = os.fstat(source_fd)
    os.fchown(target_fd, status.st_uid, status.st_gid)
    os.fchmod(target_fd, stat.S_IMODE(status.st_mode))  # after the owner: a change of owner drops set-uid
    with contextlib.suppress(_Unsupported):
        for name in _attributes(source_fd):
            os.setxattr(target_fd, name, os.getxattr(source_fd, name))
    os.utime(target_fd, ns=(status.st_atime_ns, status.st_mtime_ns))


class _Unsupported(OSError):
    pass


def _attributes(fd: int) -> list[str]:
    try:
        return [name for name in os.listxattr(fd) if not name.startswith(_HIDDEN_ATTRIBUTES)]
    except OSError as err:
        if err.errno == errno.ENOTSUP:
            raise _Unsupported from err
        raise


def copy_file(name: str, there: int, here: int) -> None:
    """Copy the regular file `name` of the directory `there` into `here`, where it must not exist."""
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=there)
    try:
        target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=here)
        try:
            _copy_data(source, target)
            copy_status(source, target)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _copy_data(source: int, target: int) -> None:
    """Copy what is written and leave holes as holes: a sparse file must not fill the disk."""
    size = os.fstat(source).st_size
    position = 0
    while position < size:
        try:
            start = os.lseek(source, position, os.SEEK_DATA)
        except OSError as err:
            if err.errno == errno.ENXIO:  # only a hole is left
                break
            raise
        end = os.lseek(source, start, os.SEEK_HOLE)
        while start < end:
            copied = _copy_range(source, target, start, min(end - start, _CHUNK_BYTES))
            if not copied:
                break
            start += copied
        position = end
    os.ftruncate(target, size)


def _copy_range(source: int, target: int, start: int, size: int) -> int:
    """Copy `size` bytes at `start`; return how many were."""
    if os.fstat(source).st_dev == os.fstat(target).st_dev:
        return os.copy_file_range(source, target, size, start, start)
    os.lseek(target, start, os.SEEK_SET)
    return os.sendfile(target, source, start, size)  # copy_file_range stays on one file system


def copy_special(name: str, status: os.stat_result, there: int, here: int) -> None:
    """Copy a link, a device or a pipe, whose `status` is known, from the directory `there` into `here`."""
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=there), name, dir_fd=here)
    else:
        os.mknod(name, kind | 0o600, status.st_rdev, dir_fd=here)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=here, follow_symlinks=False)
    if kind != stat.S_IFLNK:
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=here)
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=here, follow_symlinks=False)


@contextlib.contextmanager
def opened(root_fd: int, parts: tuple[str, ...]) -> Iterator[int]:
    """Open the directory at `parts` below `root_fd`, no links followed."""
    fd = os.open(".", _DIR_FLAGS, dir_fd=root_fd)
    try:
        for name in parts:
            below = os.open(name, _DIR_FLAGS, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)
