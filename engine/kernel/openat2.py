"""openat2(2): open a path that cannot lead out of a directory.

Source: man openat2(2), Linux 5.6.
"""

import ctypes
import enum
import os

_SYS_OPENAT2 = 437  # the same number on every architecture

_libc = ctypes.CDLL(None, use_errno=True)


class Resolve(enum.IntFlag):
    """`RESOLVE_*` of <linux/openat2.h>."""

    NONE = 0
    NO_XDEV = 0x01
    NO_MAGICLINKS = 0x02
    NO_SYMLINKS = 0x04
    BENEATH = 0x08
    IN_ROOT = 0x10


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(dirfd: int, path: bytes | str, flags: int, mode: int, resolve: Resolve) -> int:
    """Open `path` below `dirfd` and return a new descriptor, closed on exec.

    `mode` must be 0 unless `flags` create.

    Raises:
        OSError: EXDEV for a path that leads out (``BENEATH``, ``NO_XDEV``),
            ELOOP for a symbolic link in it (``NO_SYMLINKS``), EAGAIN for a
            race with a rename, ENOSYS before Linux 5.6, or any errno of open(2).
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, int(resolve))
    raw = os.fsencode(path)
    fd = int(_libc.syscall(_SYS_OPENAT2, dirfd, raw, ctypes.byref(how), ctypes.sizeof(how)))
    if fd < 0:
        number = ctypes.get_errno()
        err = OSError(number, os.strerror(number), os.fsdecode(raw))
        err.add_note(f"system call: openat2({dirfd}, {raw!r}, {flags:#o}, {mode:#o}, {resolve!r})")
        raise err
    return fd
