"""Mounts: the descriptor-based calls, and the old ones where they still serve.

One function for each call, arguments in the manual page's order and with its
names. No policy here: which mounts a container gets is `engine.runtime`'s.

Source: Linux man-pages 6.9: mount(2), umount2(2), pivot_root(2); the manual
pages of fsopen, fsconfig, fsmount, open_tree and move_mount in util-linux' and
Christian Brauner's collections; include/uapi/linux/mount.h.
"""

import ctypes
import enum
import os
from pathlib import Path

from engine.kernel.libc import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_RECURSIVE,
    BYTES,
    INT,
    POINTER,
    UINT,
    ULONG,
    fail,
    function,
    syscall,
)

_mount = function("mount", BYTES, BYTES, BYTES, ULONG, BYTES)
_umount2 = function("umount2", BYTES, INT)
_pivot_root = syscall("pivot_root", BYTES, BYTES)
_open_tree = syscall("open_tree", INT, BYTES, UINT)
_move_mount = syscall("move_mount", INT, BYTES, INT, BYTES, UINT)
_fsopen = syscall("fsopen", BYTES, UINT)
_fsconfig = syscall("fsconfig", INT, UINT, BYTES, BYTES, INT)
_fsmount = syscall("fsmount", INT, UINT, UINT)
_fspick = syscall("fspick", INT, BYTES, UINT)
_mount_setattr = syscall("mount_setattr", INT, BYTES, UINT, POINTER, ULONG)


class MountFlag(enum.IntFlag):
    """`MS_*` of <sys/mount.h>."""

    NONE = 0
    RDONLY = 1
    NOSUID = 2
    NODEV = 4
    NOEXEC = 8
    SYNCHRONOUS = 16
    REMOUNT = 32
    DIRSYNC = 128
    NOATIME = 1024
    NODIRATIME = 2048
    BIND = 4096
    MOVE = 8192
    REC = 16384
    UNBINDABLE = 1 << 17
    PRIVATE = 1 << 18
    SLAVE = 1 << 19
    SHARED = 1 << 20
    RELATIME = 1 << 21
    STRICTATIME = 1 << 24


class UmountFlag(enum.IntFlag):
    """`MNT_*` of <sys/mount.h>."""

    NONE = 0
    FORCE = 1
    DETACH = 2
    EXPIRE = 4
    NOFOLLOW = 8


class MountAttr(enum.IntFlag):
    """`MOUNT_ATTR_*` of <linux/mount.h>; the access-time values share one field."""

    NONE = 0
    RDONLY = 0x1
    NOSUID = 0x2
    NODEV = 0x4
    NOEXEC = 0x8
    NOATIME = 0x10
    STRICTATIME = 0x20
    ATIME_FIELD = 0x70
    NODIRATIME = 0x80
    IDMAP = 0x100000
    NOSYMFOLLOW = 0x200000


class _MountAttr(ctypes.Structure):
    """`struct mount_attr`."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_OPEN_TREE_CLONE = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_SET_FD = 5
_FSCONFIG_CMD_CREATE = 6
_FSCONFIG_CMD_RECONFIGURE = 7
_FSPICK_CLOEXEC = 1
_FSPICK_EMPTY_PATH = 8
_CLOEXEC = os.O_CLOEXEC


def mount(
    source: str | None,
    target: Path | str,
    fstype: str | None,
    flags: MountFlag = MountFlag.NONE,
    data: str | None = None,
) -> None:
    """Attach a file system at `target`.

    Raises:
        FileNotFoundError: `source` or `target` does not exist.
        PermissionError: CAP_SYS_ADMIN is missing in this mount namespace.
        OSError: any other errno of mount(2).
    """
    if _mount(_bytes(source), os.fsencode(target), _bytes(fstype), flags, _bytes(data)) < 0:
        fail(f"mount({source!r}, {str(target)!r}, {fstype!r}, {flags!r}, {data!r})", str(target))


def umount2(target: Path | str, flags: UmountFlag = UmountFlag.NONE) -> None:
    """Detach the file system at `target`."""
    if _umount2(os.fsencode(target), flags) < 0:
        fail(f"umount2({str(target)!r}, {flags!r})", str(target))


def pivot_root(new_root: str, put_old: str) -> None:
    """Make `new_root` the root of this mount namespace."""
    if _pivot_root(os.fsencode(new_root), os.fsencode(put_old)) < 0:
        fail(f"pivot_root({new_root!r}, {put_old!r})", new_root)


def open_tree(
    dir_fd: int, path: str, *, clone: bool = False, recursive: bool = False, follow: bool = True
) -> int:
    """Return an O_PATH descriptor of the mount at `path`, or of a detached copy of it.

    An empty `path` is `dir_fd` itself. A copy that is never attached is gone
    with its descriptor.
    """
    flags = _CLOEXEC | (0 if path else AT_EMPTY_PATH) | (0 if follow else 0x100)
    if clone:
        flags |= _OPEN_TREE_CLONE | (AT_RECURSIVE if recursive else 0)
    fd: int = _open_tree(dir_fd, os.fsencode(path), flags)
    if fd < 0:
        fail(f"open_tree({dir_fd}, {path!r}, {flags:#x})", path)
    return fd


def move_mount(from_fd: int, to_fd: int, to_path: str = "") -> None:
    """Attach the mount `from_fd` at `to_path` below `to_fd`, or at `to_fd` itself.

    The last component of `to_path` is not followed when it is a symbolic link.
    """
    flags = _MOVE_MOUNT_F_EMPTY_PATH | (0 if to_path else _MOVE_MOUNT_T_EMPTY_PATH)
    if _move_mount(from_fd, b"", to_fd, os.fsencode(to_path), flags) < 0:
        fail(f"move_mount({from_fd}, '', {to_fd}, {to_path!r}, {flags:#x})", to_path)


def fsopen(fstype: str) -> int:
    """Return a descriptor in which a file system is configured."""
    fd: int = _fsopen(os.fsencode(fstype), 1)
    if fd < 0:
        fail(f"fsopen({fstype!r})", fstype)
    return fd


def fsconfig_string(fs_fd: int, key: str, value: str) -> None:
    """Set an option that has a value, of at most 255 bytes."""
    if _fsconfig(fs_fd, _FSCONFIG_SET_STRING, os.fsencode(key), os.fsencode(value), 0) < 0:
        fail(f"fsconfig(FSCONFIG_SET_STRING, {key!r}, {value!r})", f"{key}={value}")


def fsconfig_flag(fs_fd: int, key: str) -> None:
    """Set an option that has none."""
    if _fsconfig(fs_fd, _FSCONFIG_SET_FLAG, os.fsencode(key), None, 0) < 0:
        fail(f"fsconfig(FSCONFIG_SET_FLAG, {key!r})", key)


def fsconfig_fd(fs_fd: int, key: str, value_fd: int) -> None:
    """Set an option to an open file; for overlay layers since Linux 6.13."""
    if _fsconfig(fs_fd, _FSCONFIG_SET_FD, os.fsencode(key), None, value_fd) < 0:
        fail(f"fsconfig(FSCONFIG_SET_FD, {key!r}, {value_fd})", key)


def fsconfig_create(fs_fd: int) -> None:
    """Make the file system that has been configured."""
    if _fsconfig(fs_fd, _FSCONFIG_CMD_CREATE, None, None, 0) < 0:
        fail("fsconfig(FSCONFIG_CMD_CREATE)")


def fspick(mount_fd: int) -> int:
    """Return a descriptor in which the file system of the mount `mount_fd` is configured anew."""
    fd: int = _fspick(mount_fd, b"", _FSPICK_CLOEXEC | _FSPICK_EMPTY_PATH)
    if fd < 0:
        fail(f"fspick({mount_fd})")
    return fd


def fsconfig_reconfigure(fs_fd: int) -> None:
    """Apply what has been configured to the file system that was picked."""
    if _fsconfig(fs_fd, _FSCONFIG_CMD_RECONFIGURE, None, None, 0) < 0:
        fail("fsconfig(FSCONFIG_CMD_RECONFIGURE)")


def fsmount(fs_fd: int, attr_flags: MountAttr = MountAttr.NONE) -> int:
    """Return a detached mount of the file system `fs_fd`."""
    fd: int = _fsmount(fs_fd, 1, attr_flags)
    if fd < 0:
        fail(f"fsmount({fs_fd}, {attr_flags!r})")
    return fd


def fs_messages(fs_fd: int) -> str:
    """Return what the kernel has to say about a failed fsopen, fsconfig or fsmount."""
    lines: list[str] = []
    try:
        while len(lines) < 16:  # noqa: PLR2004 (the kernel keeps eight)
            lines.append(os.read(fs_fd, 1024).decode("utf-8", "replace").strip())
    except OSError:  # ENODATA: no more
        pass
    return "; ".join(line[2:] if line[1:2] == " " else line for line in lines)


def mount_setattr(
    dir_fd: int,
    path: str,
    attr_set: MountAttr = MountAttr.NONE,
    attr_clr: MountAttr = MountAttr.NONE,
    propagation: MountFlag = MountFlag.NONE,
    *,
    recursive: bool = False,
    userns_fd: int | None = None,
) -> None:
    """Change the attributes or the propagation of a mount, or with `recursive` of its whole tree."""
    flags = (0 if path else AT_EMPTY_PATH) | (AT_RECURSIVE if recursive else 0)
    if (attr_set | attr_clr) & MountAttr.ATIME_FIELD:  # one field: it is changed whole
        attr_clr |= MountAttr.ATIME_FIELD
    attr = _MountAttr(attr_set, attr_clr, propagation, userns_fd or 0)
    if _mount_setattr(dir_fd, os.fsencode(path), flags, ctypes.addressof(attr), ctypes.sizeof(attr)) < 0:
        fail(f"mount_setattr({dir_fd}, {path!r}, {attr_set!r}, {attr_clr!r}, {propagation!r})", path)


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


__all__ = [
    "AT_FDCWD",
    "MountAttr",
    "MountFlag",
    "UmountFlag",
    "fs_messages",
    "fsconfig_create",
    "fsconfig_fd",
    "fsconfig_flag",
    "fsconfig_reconfigure",
    "fsconfig_string",
    "fsmount",
    "fsopen",
    "fspick",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "pivot_root",
    "umount2",
]
