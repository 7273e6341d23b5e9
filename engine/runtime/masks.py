"""Hide paths of the container, and make paths read-only; verified after.

Source: OCI runtime-spec 1.2.0, config-linux.md, "Masked Paths", "Readonly Paths".
"""

import errno
import os
import stat
from collections.abc import Sequence

from engine.kernel import mount as mounts
from engine.kernel import system
from engine.kernel.mount import MountAttr
from engine.runtime.options import MountOptions
from engine.runtime.progress import Progress
from engine.runtime.rootfs import MountStep, Rootfs, new_filesystem

_NULL = os.makedev(1, 3)
_EMPTY = MountStep(
    "/", "tmpfs", "tmpfs", MountOptions(attr_set=MountAttr.RDONLY, data=(("size", "0k"), ("nr_inodes", "1")))
)


class NotHidden(OSError):
    """A path shows what it should not, after all."""


class _Covers:
    """What is put over paths: the null device, and one empty directory for all."""

    def __init__(self, null_fd: int, empty_fd: int) -> None:
        self._null_fd = null_fd
        self._empty_fd = empty_fd
        self._attached = False

    def put(self, target_fd: int, *, directory: bool) -> None:
        """Mount the right one at `target_fd`."""
        if directory and not self._attached:
            # Only what is attached can be copied (until Linux 6.15), so the first use is the original.
            mounts.move_mount(self._empty_fd, target_fd)
            self._attached = True
            return
        tree_fd = mounts.open_tree(self._empty_fd if directory else self._null_fd, "", clone=True)
        try:
            mounts.move_mount(tree_fd, target_fd)
        finally:
            os.close(tree_fd)


def hide(rootfs: Rootfs, paths: Sequence[str], progress: Progress) -> None:
    """Put an empty, read-only directory or /dev/null over each of `paths` that exists."""
    if not paths:
        return
    progress.at("open", "/dev/null")
    null_fd = rootfs.open("/dev/null")
    try:
        found = os.fstat(null_fd)
        if not stat.S_ISCHR(found.st_mode) or found.st_rdev != _NULL:
            raise NotHidden(errno.EINVAL, "not the null device", "/dev/null")
        progress.at("mount an empty directory")
        empty_fd = new_filesystem(_EMPTY, progress)
        try:
            covers = _Covers(null_fd, empty_fd)
            for path in paths:
                progress.at("mask", path)
                _hide(rootfs, path, covers)
        finally:
            os.close(empty_fd)
    finally:
        os.close(null_fd)


def _hide(rootfs: Rootfs, path: str, covers: _Covers) -> None:
    try:
        target_fd = rootfs.open(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        directory = stat.S_ISDIR(os.fstat(target_fd).st_mode)
        covers.put(target_fd, directory=directory)
    finally:
        os.close(target_fd)
    seen_fd = rootfs.open(path)
    try:
        hidden = (
            system.statfs_type(seen_fd) == system.TMPFS_MAGIC
            if directory
            else os.fstat(seen_fd).st_rdev == _NULL
        )
    finally:
        os.close(seen_fd)
    if not hidden:
        raise NotHidden(errno.EPERM, "something else is there", path)


def make_readonly(rootfs: Rootfs, paths: Sequence[str], progress: Progress) -> None:
    """Make each of `paths` that exists read-only, with all that is mounted below."""
    for path in paths:
        progress.at("make read-only", path)
        try:
            target_fd = rootfs.open(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            tree_fd = mounts.open_tree(target_fd, "", clone=True, recursive=True)
            try:
                mounts.mount_setattr(tree_fd, "", MountAttr.RDONLY, recursive=True)
                mounts.move_mount(tree_fd, target_fd)
            finally:
                os.close(tree_fd)
        finally:
            os.close(target_fd)
        seen_fd = rootfs.open(path)
        try:
            if not os.fstatvfs(seen_fd).f_flag & os.ST_RDONLY:
                raise NotHidden(errno.EPERM, "it can still be written", path)
        finally:
            os.close(seen_fd)
