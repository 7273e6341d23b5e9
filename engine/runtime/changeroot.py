"""How a process makes the root of its container its own.

    PIVOT   the usual way: pivot_root, and the old root is gone
    MOVE    --no-pivot, for a host whose root is a ramfs, where the kernel refuses that: the root lies
            over the old one, whose process and system file systems are unmounted; the rest stays below it
    CHROOT  a container without a mount namespace of its own: its mounts are made on a copy of the root
            that is attached nowhere, so that nobody else in the namespace sees them and nothing of them
            is left when its last process has ended; chroot leads into it

A process in a container of the last kind has the namespace's own root within reach, if it may call
chroot(2): that is what was asked for.

Source: pivot_root(2), "NOTES"; runc's libcontainer for what --no-pivot leaves; open_tree(2), and mounts
on detached trees, which are Linux 6.15's.
"""

import contextlib
import enum
import errno
import os
from collections.abc import Sequence

from engine.kernel import mount as mounts
from engine.kernel.mount import AT_FDCWD, MountFlag, UmountFlag

_KERNEL_TYPES = frozenset({"proc", "sysfs"})
_LOCKED = frozenset({errno.EINVAL, errno.EPERM})
_OCTAL = 8
_ESCAPE_DIGITS = 3


class RootChange(enum.StrEnum):
    """The three ways."""

    PIVOT = "pivot"
    MOVE = "move"
    CHROOT = "chroot"


def mounts_on_detached() -> bool:
    """Tell, by trying, whether this kernel mounts on trees that are attached nowhere."""
    with contextlib.ExitStack() as opened:
        fds = []
        for _ in range(2):
            fs_fd = mounts.fsopen("tmpfs")
            opened.callback(os.close, fs_fd)
            mounts.fsconfig_create(fs_fd)
            fds.append(mounts.fsmount(fs_fd))
            opened.callback(os.close, fds[-1])
        try:
            mounts.move_mount(fds[1], fds[0])
        except OSError as err:
            if err.errno == errno.EINVAL:
                return False
            raise
    return True


def detached(path: str) -> int:
    """Return a copy of the tree at `path`, which learns of no mount of the host's and tells of none."""
    tree_fd = mounts.open_tree(AT_FDCWD, path, clone=True, recursive=True)
    mounts.mount_setattr(tree_fd, "", propagation=MountFlag.PRIVATE, recursive=True)
    return tree_fd


def kernel_views(mountinfo: str) -> list[str]:
    """Return where process and system file systems are mounted, deepest first; pure.

    Args:
        mountinfo: the text of proc_pid_mountinfo(5).
    """
    found = []
    for line in mountinfo.splitlines():
        head, _, tail = line.partition(" - ")
        if tail.partition(" ")[0] in _KERNEL_TYPES:
            found.append(_unescaped(head.split(" ")[4]))
    return found[::-1]


def _unescaped(path: str) -> str:
    first, *others = path.split("\\")
    return first + "".join(chr(int(part[:_ESCAPE_DIGITS], _OCTAL)) + part[_ESCAPE_DIGITS:] for part in others)


def pivot(root_fd: int) -> None:
    """Make `root_fd` the root and let go of the old one, which pivot_root stacks on top of it."""
    old_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fchdir(root_fd)
        mounts.pivot_root(".", ".")
        os.fchdir(old_fd)
    finally:
        os.close(old_fd)
    # Unmounting must not reach the host, whatever the propagation is.
    mounts.mount_setattr(AT_FDCWD, ".", propagation=MountFlag.SLAVE, recursive=True)
    mounts.umount2(".", UmountFlag.DETACH)
    os.close(root_fd)
    os.chdir("/")


def move(root_fd: int, views: Sequence[str]) -> None:
    """Make `root_fd`, which lies over the old root, the root; unmount the `views` of the kernel below.

    They are what could be mounted whole again from inside, or read there past the masks.
    """
    for path in views:
        try:
            mounts.umount2(path, UmountFlag.DETACH | UmountFlag.NOFOLLOW)
        except OSError as err:
            if err.errno not in _LOCKED:
                raise
            mounts.mount("tmpfs", path, "tmpfs", MountFlag.RDONLY)  # locked to its parent: it is covered
    chroot(root_fd)


def chroot(root_fd: int) -> None:
    """Make `root_fd`, which is closed, the root of this process."""
    os.fchdir(root_fd)
    os.chroot(".")
    os.close(root_fd)
    os.chdir("/")
