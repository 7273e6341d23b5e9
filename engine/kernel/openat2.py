"""openat2(2): open a path without ever leaving the directory it is below.

Source: Linux man-pages 6.9, openat2(2).
"""

import ctypes
import enum
import errno
import os

from engine.kernel.libc import BYTES, INT, POINTER, ULONG, fail, syscall

_openat2 = syscall("openat2", INT, BYTES, POINTER, ULONG)
_ATTEMPTS = 64


class Resolve(enum.IntFlag):
    """`RESOLVE_*` of <linux/openat2.h>."""

    NO_XDEV = 0x1
    NO_MAGICLINKS = 0x2
    NO_SYMLINKS = 0x4
    BENEATH = 0x8
    IN_ROOT = 0x10
    CACHED = 0x20


IN_ROOT = Resolve.IN_ROOT | Resolve.NO_MAGICLINKS
"""Symbolic links and `..` are resolved as if the directory were the root."""

BENEATH = Resolve.BENEATH | Resolve.NO_SYMLINKS
"""No links at all, no climbing: for making things."""


class _OpenHow(ctypes.Structure):
    """`struct open_how`."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def openat2(dir_fd: int, path: str, flags: int, mode: int = 0, resolve: Resolve = IN_ROOT) -> int:
    """Open `path` below `dir_fd`; the descriptor is close-on-exec.

    With IN_ROOT or BENEATH the kernel answers EAGAIN when a rename anywhere
    raced with a `..`; that is tried again.

    Raises:
        FileNotFoundError: a component does not exist.
        OSError: ELOOP for a forbidden link, EXDEV for a way out, and all of open(2).
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    fd = -1
    for _ in range(_ATTEMPTS):
        fd = _openat2(dir_fd, os.fsencode(path), ctypes.addressof(how), ctypes.sizeof(how))
        if fd >= 0 or ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR):
            break
    if fd < 0:
        fail(f"openat2({dir_fd}, {path!r}, {flags:#o}, {mode:#o}, {resolve!r})", path)
    return fd
