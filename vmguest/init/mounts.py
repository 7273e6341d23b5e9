"""The file systems that a machine has before anything else runs.

The root is read-only; what must be writable is tmpfs, and small. Of /etc only
single files are, each bound over the image's.
"""

import errno
import os

from engine.kernel.mount import MountFlag, UmountFlag, mount, umount2

_SECURE = MountFlag.NOSUID | MountFlag.NODEV | MountFlag.NOEXEC
_PLAN: tuple[tuple[str, str, str, MountFlag, str], ...] = (
    ("proc", "/proc", "proc", _SECURE, ""),
    ("sysfs", "/sys", "sysfs", _SECURE, ""),
    ("devtmpfs", "/dev", "devtmpfs", MountFlag.NOSUID, "mode=0755"),
    ("devpts", "/dev/pts", "devpts", MountFlag.NOSUID | MountFlag.NOEXEC, "gid=5,mode=0620,ptmxmode=0666"),
    ("tmpfs", "/dev/shm", "tmpfs", MountFlag.NOSUID | MountFlag.NODEV, "mode=1777"),  # noqa: S108 (a mount point)
    ("tmpfs", "/run", "tmpfs", MountFlag.NOSUID | MountFlag.NODEV, "mode=0755"),
    ("tmpfs", "/tmp", "tmpfs", MountFlag.NOSUID | MountFlag.NODEV, "mode=1777"),  # noqa: S108 (a mount point)
    ("cgroup2", "/sys/fs/cgroup", "cgroup2", _SECURE, "nsdelegate"),
)
_CGROUP = "/sys/fs/cgroup"
_STATE = "/run/machine"  # writable stand-ins for files of the read-only root


def mount_all() -> None:
    """Make every mount of the plan that the initial RAM disk has not made already.

    Raises:
        OSError: one failed; its `filename` is the mount point.
    """
    mount(None, "/", None, MountFlag.REC | MountFlag.SHARED)
    for source, target, fstype, flags, data in _PLAN:
        if target.startswith("/dev/"):
            os.makedirs(target, exist_ok=True)
        try:
            mount(source, target, fstype, flags, data)
        except OSError as err:
            if err.errno != errno.EBUSY:  # the kernel or the initial RAM disk was first
                raise
    os.makedirs(_STATE, mode=0o755, exist_ok=True)


def enable_controllers() -> None:
    """Let children of the root cgroup have every controller that the kernel has."""
    with open(f"{_CGROUP}/cgroup.controllers", encoding="ascii") as file:
        wanted = file.read().split()
    for controller in wanted:
        try:
            write(f"{_CGROUP}/cgroup.subtree_control", f"+{controller}")
        except OSError:  # one that is busy or kernel-internal does not take the others away
            continue


def write(path: str, text: str) -> None:
    """Put `text` into the file in a single system call, as those of /proc and /sys want it."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def replace_file(path: str, text: str, *, mode: int = 0o644) -> None:
    """Make the file `path` of the read-only root read as `text`.

    A link into a writable place is followed; a regular file is bound over; a
    missing one stays missing, since there is nothing to bind over.
    """
    target = os.path.realpath(path)
    if target.startswith("/run/"):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        _write_whole(target, text, mode)
        return
    if not os.path.exists(target):
        return
    stand_in = f"{_STATE}/{os.path.basename(path)}"
    fresh = not os.path.exists(stand_in)
    _write_whole(stand_in, text, mode)
    if fresh:
        mount(stand_in, target, None, MountFlag.BIND)


def _write_whole(path: str, text: str, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "w") as file:
        file.write(text)


def unmount_below(root: str) -> list[str]:
    """Unmount everything at and below `root`, innermost first, and return what stayed busy."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [line.split()[4].encode().decode("unicode_escape") for line in file]
    busy = []
    for point in reversed(points):
        if point == root or point.startswith(root + "/"):
            try:
                umount2(point)
            except OSError:
                busy.append(point)
                umount2(point, UmountFlag.DETACH)
    return busy
