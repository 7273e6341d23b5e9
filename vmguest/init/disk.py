"""The data disk: found by its serial number, formatted only when it is blank, checked, mounted.

Nothing here ever formats a disk that holds anything: a head that is neither
all zeros nor ext4 is an error for a person to look at.

Some of its blocks are kept from containers, which could otherwise fill it so
that no engine can remove anything any more. ext4 gives them to processes with
CAP_SYS_RESOURCE, which the engine has and containers have not, and to one
user, who is root unless told otherwise; overlayfs never asks for them.

Source: Documentation/filesystems/ext4/globals.rst, "The Super Block"; e2fsck(8), exit codes.
"""

import enum
import os
import time
from collections.abc import Callable, Sequence

from engine.kernel.mount import MountFlag, mount

SERIAL = "pyengine-data"
MOUNT_POINT = "/var/lib/pyengine"
_HEAD_BYTES = 64 * 1024
_SUPER = 1024
_MAGIC_AT = _SUPER + 0x38
_MAGIC = b"\x53\xef"
_STATE_AT = _SUPER + 0x3A
_STATE_CLEAN = 1  # unmounted in order, and no error was ever seen
_INCOMPAT_AT = _SUPER + 0x60
_NEEDS_RECOVERY = 0x4  # the journal holds what is not in place yet
_FSCK_CORRECTED = 1  # exit codes are a sum: 0 clean, 1 corrected, 2 corrected and reboot, 4 left as it is
_FSCK_LEFT = 4
_KEPT_BYTES = 64 << 20
_KEPT_MAX_PERCENT = 5.0
_NOBODY_UID = (1 << 32) - 2  # the highest there is: no container's

Run = Callable[[Sequence[str]], int]


class DiskError(Exception):
    """The data disk cannot be used; the message is for the person at the host."""


class Content(enum.Enum):
    """What the head of a disk says."""

    BLANK = enum.auto()
    CLEAN = enum.auto()  # ext4 that was unmounted in order: e2fsck -p would look at the same bits and end
    EXT = enum.auto()
    OTHER = enum.auto()


def content_of(head: bytes) -> Content:
    """Return what a disk that begins with `head` holds."""
    if not any(head):
        return Content.BLANK
    if head[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] != _MAGIC:
        return Content.OTHER
    state = int.from_bytes(head[_STATE_AT : _STATE_AT + 2], "little")
    incompat = int.from_bytes(head[_INCOMPAT_AT : _INCOMPAT_AT + 4], "little")
    return Content.CLEAN if state == _STATE_CLEAN and not incompat & _NEEDS_RECOVERY else Content.EXT


def find(sys_block: str = "/sys/block", *, timeout_s: float = 5.0) -> str:
    """Return the device node of the data disk.

    Raises:
        DiskError: no disk with its serial number showed up.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        for name in sorted(os.listdir(sys_block)):
            if name.startswith("vd") and _serial(f"{sys_block}/{name}/serial") == SERIAL:
                return f"/dev/{name}"
        if time.monotonic() > deadline:
            raise DiskError(f"no disk with serial number {SERIAL}")
        time.sleep(0.01)  # nothing tells of new disks this early: udev does not run here


def prepare(device: str, run: Run) -> bool:
    """Format or check `device`, mount it, and tell whether it was formatted.

    Raises:
        DiskError: it holds something else, or is damaged beyond what may be repaired unasked.
    """
    with open(device, "rb", buffering=0) as file:
        content = content_of(file.read(_HEAD_BYTES))
    if content is Content.OTHER:
        raise DiskError(f"data disk {device} holds something that is not ext4; it was left untouched")
    if content is Content.BLANK:
        _format(device, run)
    elif content is Content.EXT:
        _check(device, run)
    try:
        options = f"errors=remount-ro,resuid={_NOBODY_UID}"
        mount(device, MOUNT_POINT, "ext4", MountFlag.NOATIME | MountFlag.NODEV, options)
    except OSError as err:
        raise DiskError(f"data disk {device} cannot be mounted: {err.strerror}") from err
    return content is Content.BLANK


def _format(device: str, run: Run) -> None:
    # The inode tables of a sparse disk read as zeros already, so nothing need be written now or later.
    features = "lazy_itable_init=1,lazy_journal_init=1,assume_storage_prezeroed=1,nodiscard"
    kept = kept_percent(size_of(device))
    code = run(["/usr/sbin/mkfs.ext4", "-q", "-F", "-m", kept, "-L", "pyengine", "-E", features, device])
    if code != 0:
        raise DiskError(f"data disk {device} cannot be formatted: mkfs.ext4 exit status {code}")


def kept_percent(size_bytes: int) -> str:
    """Return how much of a disk is kept from containers, in the form of mke2fs(8) `-m`."""
    return f"{min(_KEPT_MAX_PERCENT, 100 * _KEPT_BYTES / max(size_bytes, 1)):.4f}"


def size_of(device: str) -> int:
    """Return the size of a block device, or of a file, in bytes."""
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.lseek(fd, 0, os.SEEK_END)
    finally:
        os.close(fd)


def _check(device: str, run: Run) -> None:
    code = run(["/usr/sbin/fsck.ext4", "-p", device])
    if code < 0 or code >= _FSCK_LEFT:
        raise DiskError(f"data disk {device} is damaged and was left untouched: fsck.ext4 exit status {code}")


def _serial(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
