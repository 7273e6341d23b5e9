"""Copy a directory of an image into a new directory: content, owners, modes, times, attributes, hard links.

Every name is made with the `*at` calls from the directory's own descriptor,
and files are created exclusively, so nothing in the image decides where
something is written.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from engine.volumes import merged
from engine.volumes.merged import Found, Parts

_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HIDDEN_ATTRIBUTES = "trusted.overlay."  # about the layer, not about the file
_CHUNK_BYTES = 1 << 30


@dataclass(slots=True)
class _Copy:
    """One copy on its way."""

    roots: Sequence[int]
    source: Parts
    target_fd: int
    linked: dict[tuple[int, int], Parts] = field(default_factory=dict)  # (device, inode) -> first name


def copy(roots: Sequence[int], source: Parts, target_fd: int) -> None:
    """Copy the merged directory at `source` into the empty directory `target_fd`.

    Args:
        roots: descriptors of the layers' roots, topmost first.
        source: real path in the merged tree.
        target_fd: gets the owner, mode and times of the source, too.

    Raises:
        OSError: half of it may be copied.
    """
    job = _Copy(roots, source, target_fd)
    directories: list[Parts] = [()]
    for place in directories:  # grows while it is walked
        with merged.opened(roots, source + place) as layers, _opened(target_fd, place) as here:
            for name, found in merged.entries(layers):
                if found.is_directory:
                    os.mkdir(name, 0o700, dir_fd=here)
                    directories.append((*place, name))
                else:
                    _copy_entry(job, (*place, name), found, here)
    for place in reversed(directories):  # after what is inside: that changes times
        with merged.opened(roots, source + place) as layers, _opened(target_fd, place) as here:
            copy_status(layers[0], here)


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


def _copy_entry(job: _Copy, place: Parts, found: Found, here: int) -> None:
    """Make the name `place[-1]` in the directory `here` as it is in the image."""
    name, layer, status = place[-1], found.layers[0], found.status
    identity = (status.st_dev, status.st_ino)
    if identity in job.linked:
        first = job.linked[identity]
        with _opened(job.target_fd, first[:-1]) as there:
            os.link(first[-1], name, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)
        return
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        _copy_file(name, layer, here)
    elif kind == stat.S_IFSOCK:
        return  # nobody listens on it in an image
    else:
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=layer), name, dir_fd=here)
        else:
            os.mknod(name, kind | 0o600, status.st_rdev, dir_fd=here)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=here, follow_symlinks=False)
        if kind != stat.S_IFLNK:
            os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=here)
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=here, follow_symlinks=False)
    if status.st_nlink > 1:
        job.linked[identity] = place


def _copy_file(name: str, layer: int, here: int) -> None:
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=layer)
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
            copied = os.copy_file_range(source, target, min(end - start, _CHUNK_BYTES), start, start)
            if not copied:
                break
            start += copied
        position = end
    os.ftruncate(target, size)


@contextlib.contextmanager
def _opened(root_fd: int, parts: Parts) -> Iterator[int]:
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
