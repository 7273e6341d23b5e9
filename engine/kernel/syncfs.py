"""syncfs(2): make everything written to one file system durable."""

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)


def syncfs(fd: int) -> None:
    """Write out the file system that holds `fd`, data and names, and wait for it.

    Raises:
        OSError: EIO, ENOSPC, EDQUOT: something written since `fd` was opened was lost.
    """
    if _libc.syncfs(fd) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
